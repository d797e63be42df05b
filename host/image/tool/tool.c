/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/tool.h"

#include "host/image/tool/args.h"

#include <stdio.h>
#include <string.h>

/* main() of lodge-img: what stands before the verb, the verb, help. */

enum { HELP_COLUMN = 26 };

static void print_option(const struct tool_option *o)
{
    g_autoptr(GString) left = g_string_new("  ");
    if (o->letter) {
        g_string_append_printf(left, "-%c%s", o->letter, o->name ? ", " : "");
    }
    if (o->name) {
        g_string_append_printf(left, "--%s", o->name);
    }
    if (o->value) {
        g_string_append_printf(left, "%c%s", o->name ? '=' : ' ', o->value);
    }
    if (left->len >= HELP_COLUMN) {
        printf("%s\n%*s%s\n", left->str, HELP_COLUMN, "", o->help);
    } else {
        printf("%-*s%s\n", HELP_COLUMN, left->str, o->help);
    }
}

static void print_verb_help(const struct verb *v)
{
    bool named = !strcmp(tool_name, v->name); /* qemu-nbd is program and verb in one */
    printf("usage: %s%s%s [OPTIONS] %s\n%s\n\nOptions:\n", tool_name, named ? "" : " ",
           named ? "" : v->name, v->operands, v->about);
    for (const struct tool_option *o = v->options; o->help; o++) {
        print_option(o);
    }
}

static int print_help(void)
{
    printf("usage: %s [-h | --help] [-V | --version] COMMAND [OPTIONS] FILE...\n"
           "Lodge's disk image utility, with the commands and options of qemu-img 7.2\n\n"
           "Commands:\n",
           tool_name);
    for (unsigned i = 0; i < n_verbs; i++) {
        printf("  %-10s %s\n", verbs[i]->name, verbs[i]->about);
    }
    printf("\n'%s COMMAND --help' lists the options of a command.\n"
           "Sizes take the suffixes k, M, G, T, P and E (powers of 1024).\n",
           tool_name);
    return 0;
}

/* Scripts that look for qemu-img's version must find the one whose ways we keep. */
static int print_version(void)
{
    if (!strcmp(tool_name, "qemu-img")) {
        printf("qemu-img version 7.2.0 (lodge-img %s)\n", LODGE_VERSION);
        return 0;
    }
    if (!strcmp(tool_name, verb_qemu_nbd.name)) {
        printf("qemu-nbd 7.2.0 (lodge-img %s)\n", LODGE_VERSION);
        return 0;
    }
    printf("%s version %s (commands and options of qemu-img 7.2)\n", tool_name, LODGE_VERSION);
    return 0;
}

static const struct verb *find_verb(const char *name)
{
    for (unsigned i = 0; i < n_verbs; i++) {
        if (!strcmp(verbs[i]->name, name)) {
            return verbs[i];
        }
    }
    return NULL;
}

static int run_verb(const struct verb *v, int argc, char **argv)
{
    struct args args;
    int code = 1;
    switch (args_parse(&args, v, argc, argv)) {
    case ARGS_FINE:
        code = v->run(&args);
        break;
    case ARGS_HELP:
        print_verb_help(v);
        code = 0;
        break;
    case ARGS_WRONG:
        break;
    }
    args_clear(&args);
    if (fflush(stdout) != 0 && code == 0) { /* a full disk behind ">" */
        tool_error("standard output: %s", g_strerror(errno));
        code = 1;
    }
    return code;
}

int tool_main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    tool_name = slash ? slash + 1 : argv[0];
    if (argc < 2) {
        return tool_usage("Not enough arguments");
    }
    const char *first = argv[1];
    if (!strcmp(tool_name, "qemu-nbd") && strcmp(first, "-V") && strcmp(first, "--version")) {
        return run_verb(&verb_qemu_nbd, argc, argv);
    }
    if (!strcmp(first, "-h") || !strcmp(first, "--help")) {
        return print_help();
    }
    if (!strcmp(first, "-V") || !strcmp(first, "--version")) {
        return print_version();
    }
    if (g_str_has_prefix(first, "-T") || g_str_has_prefix(first, "--trace")) {
        return tool_usage("there is no tracing: leave out '%s'", first);
    }
    if (first[0] == '-' && first[1]) {
        return tool_usage("unrecognized option '%s'", first);
    }
    const struct verb *v = find_verb(first);
    return v ? run_verb(v, argc - 1, argv + 1) : tool_usage("Command not found: %s", first);
}
