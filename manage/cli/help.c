/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/help.h"

#include <stdio.h>
#include <string.h>

static const char *kind_word(const struct option_row *o)
{
    return o->kind == OPT_NUMBER || o->kind == OPT_SIZE ? "number" : "string";
}

static void print_synopsis(const struct verb_row *v)
{
    printf("  SYNOPSIS\n    %s", v->name);
    for (const struct option_row *o = v->options; o && o->name; o++) {
        if (o->kind == OPT_BOOL) {
            printf(" [--%s]", o->name);
        } else if (o->kind == OPT_MANY) {
            printf(o->flags & OPT_NEEDED ? " <%s>..." : " [<%s>]...", o->name);
        } else if (o->flags & OPT_NEEDED) {
            printf(o->flags & OPT_NAMED ? " --%s <%s>" : " <%s>", o->name, kind_word(o));
        } else {
            printf(" [--%s <%s>]", o->name, kind_word(o));
        }
    }
    printf("\n\n");
}

static void print_option(const struct option_row *o)
{
    g_autofree char *left =
        o->kind == OPT_BOOL                          ? g_strdup_printf("--%s", o->name)
        : o->kind == OPT_MANY                        ? g_strdup_printf("<%s>", o->name)
        : o->flags & OPT_NEEDED && !(o->flags & OPT_NAMED)
            ? g_strdup_printf("[--%s] <%s>", o->name, kind_word(o))
            : g_strdup_printf("--%s <%s>", o->name, kind_word(o));
    printf("    %-15s  %s\n", left, o->help);
}

static void print_verb(const struct verb_row *v)
{
    printf("  NAME\n    %s - %s\n\n", v->name, v->help);
    print_synopsis(v);
    if (v->options && v->options->name) {
        printf("  OPTIONS\n");
        for (const struct option_row *o = v->options; o->name; o++) {
            print_option(o);
        }
        putchar('\n');
    }
}

static void print_group(const struct verb_group *f)
{
    printf(" %s (help keyword '%s'):\n", f->title, f->keyword);
    for (const struct verb_row *v = f->verbs; v->name; v++) {
        printf("    %-30s %s\n", v->name, v->help);
    }
    putchar('\n');
}

bool help_show(const char *about, GError **error)
{
    if (!about) {
        printf("Grouped commands:\n\n");
        for (unsigned i = 0; verb_groups[i]; i++) {
            print_group(verb_groups[i]);
        }
        return true;
    }
    for (unsigned i = 0; verb_groups[i]; i++) {
        if (strcmp(verb_groups[i]->keyword, about) == 0) {
            print_group(verb_groups[i]);
            return true;
        }
    }
    const struct verb_row *v = shell_find(about);
    if (!v) {
        return shell_fail(error, "command or command group '%s' doesn't exist", about);
    }
    print_verb(v);
    return true;
}
