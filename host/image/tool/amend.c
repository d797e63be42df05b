/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/open.h"

#include <stdio.h>
#include <string.h>

/* lodge-img amend */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    {'o', NULL, "OPTIONS", "options to change; -o help lists them"},
    OPTION_CACHE,
    OPTION_PROGRESS,
    OPTION_PROGRESS_AS,
    OPTION_QUIET,
    {0, "force", NULL, "do what may make the image unusable too"},
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

static void moved(void *owner, double part)
{
    (void)owner;
    progress_at(part * 100);
}

static bool can_amend(const struct image_format *f)
{
    if (!f->tools || !f->tools->amend) {
        tool_error("Format driver '%s' does not support option amendment", f->name);
        return false;
    }
    return true;
}

static int print_options(const char *format)
{
    const struct image_format *f = format_find(format, NULL);
    if (!f) {
        tool_error("Unknown file format '%s'", format);
        return 1;
    }
    if (!can_amend(f)) {
        return 1;
    }
    printf("Amend options for '%s':\n", f->name);
    const struct option_desc *const tables[2] = {f->tools->amend_options, NULL};
    print_option_table(tables);
    return 0;
}

static bool amend(struct node *node, const char *text, bool force)
{
    const struct image_format *f = node->format;
    GError *error = NULL;
    if (!can_amend(f)) {
        return false;
    }
    g_autoptr(Options) changes = options_new(f->tools->amend_options, NULL);
    if (!options_parse(changes, text, &error) ||
        !f->tools->amend(node, changes, force, moved, NULL, &error)) {
        tool_report(error, "%s", "");
        return false;
    }
    return true;
}

static int run(struct args *args)
{
    g_autofree char *text = args_joined(args, "o");
    const char *format = args_get(args, "f"), *cache = args_get(args, "t");
    struct tool_common common;
    unsigned flags = OPEN_UNMAP;
    if (!text) {
        return tool_usage("Must specify options (-o)");
    }
    if (options_ask_help(text) && format) {
        return print_options(format);
    }
    if (args->n_operands != 1) {
        tool_error("Expecting one image file name");
        return 1;
    }
    if (!cache_flags(cache, &flags)) {
        tool_error("Invalid cache option: %s", cache);
        return 1;
    }
    if (!tool_common(args, &common) || !progress_begin(args)) {
        return 1;
    }
    const char *file = args->operands[0];
    struct node *node = tool_open(&common, file, format, flags);
    if (!node) {
        return 1;
    }
    bool ok, help = options_ask_help(text);
    if (help) {
        ok = print_options(node->format->name) == 0;
    } else {
        progress_at(0);
        ok = amend(node, text, args_has(args, "force")) && tool_flush(node, file);
        if (ok) {
            progress_at(100);
        }
        progress_end();
    }
    tool_close(node);
    return ok ? 0 : 1;
}

const struct verb verb_amend = {"amend", "change options of an image that is there", "FILE",
                                options, run};
