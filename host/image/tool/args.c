/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/args.h"

#include "base/keyval.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The command line: a verb's table becomes what getopt_long() wants, which also takes options
 * behind file names.
 */
enum { LONG_BASE = 256 }; /* long options without a letter are numbered from here */

static unsigned count_options(const struct tool_option *table)
{
    unsigned n = 0;
    while (table[n].help) {
        n++;
    }
    return n;
}

static bool is_named(const struct tool_option *o, const char *name)
{
    return name[1] ? o->name && !strcmp(o->name, name) : o->letter == name[0];
}

bool args_has(const struct args *args, const char *name)
{
    for (unsigned i = 0; i < args->n_given; i++) {
        if (is_named(args->given[i].option, name)) {
            return true;
        }
    }
    return false;
}

const char *args_get(const struct args *args, const char *name)
{
    const char *value = NULL;
    for (unsigned i = 0; i < args->n_given; i++) {
        if (is_named(args->given[i].option, name)) {
            value = args->given[i].value;
        }
    }
    return value;
}

char *args_joined(const struct args *args, const char *name)
{
    GString *all = NULL;
    for (unsigned i = 0; i < args->n_given; i++) {
        if (is_named(args->given[i].option, name)) {
            if (all) {
                g_string_append_c(all, ',');
            } else {
                all = g_string_new(NULL);
            }
            g_string_append(all, args->given[i].value);
        }
    }
    return all ? g_string_free(all, FALSE) : NULL;
}

bool options_ask_help(const char *text)
{
    while (text && *text) {
        size_t n = strcspn(text, ",");
        if ((n == 4 && !strncmp(text, "help", 4)) || (n == 1 && *text == '?')) {
            return true;
        }
        text += n;
        text += strspn(text, ",");
    }
    return false;
}

static void fill_tables(const struct tool_option *table, unsigned n, GString *letters,
                        struct option *longs)
{
    unsigned used = 0;
    g_string_assign(letters, ":");
    for (unsigned i = 0; i < n; i++) {
        if (table[i].letter) {
            g_string_append_c(letters, table[i].letter);
            g_string_append(letters, table[i].value ? ":" : "");
        }
        if (table[i].name) {
            longs[used++] = (struct option){
                .name = table[i].name,
                .has_arg = table[i].value ? required_argument : no_argument,
                .val = LONG_BASE + (int)i,
            };
        }
    }
    longs[used] = (struct option){0};
}

static const struct tool_option *row_of(const struct tool_option *table, int found)
{
    if (found >= LONG_BASE) {
        return &table[found - LONG_BASE];
    }
    while (table->letter != found) {
        table++;
    }
    return table;
}

enum args_outcome args_parse(struct args *args, const struct verb *verb, int argc, char **argv)
{
    unsigned n = count_options(verb->options);
    g_autofree struct option *longs = g_new0(struct option, n + 1);
    g_autoptr(GString) letters = g_string_new(NULL);
    int found;

    fill_tables(verb->options, n, letters, longs);
    *args = (struct args){.verb = verb, .given = g_new0(struct given, (size_t)argc)};
    optind = 0;
    char *last = verb->sign_last && argc > 1 ? argv[argc - 1] : NULL;
    if (last && last[0] == '-' && g_ascii_isdigit(last[1])) {
        argc--;
    } else {
        last = NULL;
    }
    while ((found = getopt_long(argc, argv, letters->str, longs, NULL)) != -1) {
        if (found == ':') {
            tool_usage("missing argument for option '%s'", argv[optind - 1]);
            return ARGS_WRONG;
        }
        if (found == '?') {
            tool_usage("unrecognized option '%s'", argv[optind - 1]);
            return ARGS_WRONG;
        }
        const struct tool_option *o = row_of(verb->options, found);
        if (o->letter == 'h') {
            return ARGS_HELP;
        }
        args->given[args->n_given++] = (struct given){o, o->value ? optarg : NULL};
    }
    args->operands = argv + optind;
    args->n_operands = (unsigned)(argc - optind) + (last != NULL);
    return ARGS_FINE;
}

void args_clear(struct args *args)
{
    g_free(args->given);
}

/* Digits, perhaps a fraction, perhaps a suffix: then what text_size() refuses is too large. */
static bool looks_like_size(const char *text)
{
    static const char digits[] = "0123456789";
    size_t n = strspn(text, digits);
    bool number = n > 0;
    if (number && text[n] == '.') {
        n += 1 + strspn(text + n + 1, digits);
    }
    return number && (!text[n] || (strchr("bBkKmMgGtTpPeE", text[n]) && !text[n + 1]));
}

bool tool_number(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    uint64_t v = UINT64_MAX;
    bool bare_fraction = strchr(text, '.') && strspn(text, "0123456789.") == strlen(text);
    if (bare_fraction || (!text_size(text, 1, &v) && !looks_like_size(text))) {
        tool_error("Invalid %s specified. You may use k, M, G, T, P or E suffixes for", what);
        tool_error("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
        return false;
    }
    if (v < min || v > max) {
        tool_error("Invalid %s specified. Must be between %" PRIu64 " and %" PRIu64 ".", what, min,
                   max);
        return false;
    }
    *out = v;
    return true;
}

bool tool_wants_json(const struct args *args, bool *json)
{
    const char *text = args_get(args, "output");
    *json = text && !strcmp(text, "json");
    if (text && !*json && strcmp(text, "human")) {
        tool_error("--output must be used with human or json as argument.");
        return false;
    }
    return true;
}
