/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/open.h"

#include <string.h>

/* lodge-img bitmap */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    {'b', "source-file", "FILE", "where the bitmaps of --merge are, if not in FILE itself"},
    {'F', "source-format", "FORMAT", "its format"},
    {'g', "granularity", "SIZE", "granularity of a bitmap that is added (64k)"},
    {0, "add", NULL, "make the bitmap"},
    {0, "remove", NULL, "remove it"},
    {0, "clear", NULL, "forget what it has noted"},
    {0, "enable", NULL, "go on noting what is written"},
    {0, "disable", NULL, "note nothing more"},
    {0, "merge", "BITMAP", "add what another bitmap has noted"},
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    {0},
};

enum { GRANULARITY_MIN = 512, GRANULARITY_DEFAULT = 65536 };

struct job {
    struct node *node, *source;
    const struct bitmap_tools *tools;
    const char *name;
    uint32_t granularity;
    bool granularity_bad;
};

static bool act(struct job *j, const struct given *g, GError **error)
{
    const char *action = g->option->name;
    const struct bitmap_tools *t = j->tools;
    if (!strcmp(action, "add") && j->granularity_bad) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Granularity must be power of 2 and at least %d",
                    GRANULARITY_MIN);
        return false;
    }
    if (!t) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "Can't store persistent bitmaps to %s: Operation not supported",
                    node_name(j->node));
        return false;
    }
    if (!strcmp(action, "add")) {
        return t->add(j->node, j->name, j->granularity, true, error);
    }
    if (!strcmp(action, "remove")) {
        return t->remove(j->node, j->name, error);
    }
    if (!strcmp(action, "clear")) {
        return t->clear(j->node, j->name, error);
    }
    if (!strcmp(action, "merge")) {
        return t->merge(j->node, j->name, j->source ? j->source : j->node, g->value, error);
    }
    return t->enable(j->node, j->name, !strcmp(action, "enable"), error);
}

static bool is_action(const struct given *g)
{
    static const char *const actions[] = {"add",     "remove", "clear", "enable",
                                          "disable", "merge",  NULL};
    return g->option->name && g_strv_contains(actions, g->option->name);
}

static bool act_all(struct job *j, const struct args *args)
{
    for (unsigned i = 0; i < args->n_given; i++) {
        GError *error = NULL;
        if (is_action(&args->given[i]) && !act(j, &args->given[i], &error)) {
            tool_report(error, "Operation %s on bitmap %s failed: ", args->given[i].option->name,
                        j->name);
            return false;
        }
    }
    return true;
}

static bool check_args(const struct args *args)
{
    bool any = false;
    const char *wrong = NULL;
    for (unsigned i = 0; i < args->n_given; i++) {
        any |= is_action(&args->given[i]);
    }
    if (!any) {
        wrong = "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge";
    } else if (args_has(args, "g") && !args_has(args, "add")) {
        wrong = "granularity only supported with --add";
    } else if (args_has(args, "F") && !args_has(args, "b")) {
        wrong = "-F only supported with -b";
    } else if (args_has(args, "b") && !args_has(args, "merge")) {
        wrong = "Merge bitmap source file only supported with --merge";
    } else if (args->n_operands != 2) {
        wrong = "Expecting filename and bitmap name";
    }
    if (wrong) {
        tool_error("%s", wrong);
    }
    return !wrong;
}

static int run(struct args *args)
{
    struct tool_common common;
    struct job j = {.granularity = GRANULARITY_DEFAULT};
    const char *g = args_get(args, "g"), *b = args_get(args, "b");
    uint64_t granularity = GRANULARITY_DEFAULT;
    if ((g && !tool_number("granularity", g, 1, INT64_MAX, &granularity)) || !check_args(args) ||
        !tool_common(args, &common)) {
        return 1;
    }
    j.granularity_bad = granularity < GRANULARITY_MIN || granularity > UINT32_MAX ||
                        (granularity & (granularity - 1));
    j.granularity = (uint32_t)granularity;
    j.name = args->operands[1];
    j.node = tool_open(&common, args->operands[0], args_get(args, "f"), OPEN_UNMAP);
    bool ok = j.node != NULL;
    if (ok && b) {
        struct tool_common plain = {.flags = common.flags};
        j.source = tool_open(&plain, b, args_get(args, "F"), OPEN_READ_ONLY);
        ok = j.source != NULL;
    }
    if (ok) {
        j.tools = j.node->format->tools ? j.node->format->tools->bitmaps : NULL;
        ok = act_all(&j, args) && tool_flush(j.node, args->operands[0]);
    }
    tool_close(j.source);
    tool_close(j.node);
    return ok ? 0 : 1;
}

const struct verb verb_bitmap = {"bitmap", "make, remove or change a persistent bitmap",
                                 "FILE BITMAP", options, run};
