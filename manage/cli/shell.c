/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/run.h"

#include "base/util.h"
#include "manage/cli/args.h"
#include "manage/cli/help.h"
#include "manage/cli/out.h"
#include "manage/rpc/connect.h"

#include <getopt.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

/*
 * lodge: its own options, the connection, and how a verb is found and run.
 */
struct shell {
    struct out out;
    char *uri;
    bool read_only, timing, quit;
    Rpc *rpc;
    const struct verb_row *verb;
    char *failing;
    bool unconnected; /* that is why the verb fails */
};

struct out *out_of(struct shell *sh)
{
    return &sh->out;
}

const char *shell_uri(struct shell *sh)
{
    sh->uri = sh->uri ? sh->uri : connect_default_uri();
    return sh->uri;
}

bool shell_read_only(const struct shell *sh)
{
    return sh->read_only;
}

const void *shell_data(const struct shell *sh)
{
    return sh->verb->data;
}

bool shell_has_option(const struct shell *sh, const char *option)
{
    const struct option_row *o = sh->verb->options;
    while (o && o->name && strcmp(o->name, option) != 0) {
        o++;
    }
    return o && o->name;
}

void shell_quit(struct shell *sh)
{
    sh->quit = true;
}

Rpc *shell_rpc(struct shell *sh, GError **error)
{
    if (!sh->rpc) {
        sh->rpc = connect_to(shell_uri(sh), sh->read_only, error);
        if (!sh->rpc) {
            shell_failing(sh, "failed to connect to the hypervisor");
            sh->unconnected = true;
        }
    }
    return sh->rpc;
}

bool shell_reconnect(struct shell *sh, const char *uri, bool read_only, GError **error)
{
    g_clear_pointer(&sh->rpc, rpc_free);
    if (uri) {
        g_free(sh->uri);
        sh->uri = g_strdup(uri);
    }
    sh->read_only = read_only;
    return shell_rpc(sh, error) != NULL;
}

void shell_failing(struct shell *sh, const char *fmt, ...)
{
    if (sh->unconnected) {
        return; /* then nothing that the verb was to do is to blame */
    }
    va_list ap;
    va_start(ap, fmt);
    g_free(sh->failing);
    sh->failing = g_strdup_vprintf(fmt, ap);
    va_end(ap);
}

bool shell_fail(GError **error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_set_error_literal(error, LIBVIRT_ERROR, ERR_INVALID_ARG, text);
    return false;
}

const struct verb_row *shell_find(const char *name)
{
    for (unsigned i = 0; verb_groups[i]; i++) {
        for (const struct verb_row *v = verb_groups[i]->verbs; v->name; v++) {
            if (strcmp(v->name, name) == 0) {
                return v;
            }
        }
    }
    return NULL;
}

/* ---- Running ---- */

static void report(struct shell *sh, const GError *error)
{
    fflush(stdout);
    if (sh->failing && *sh->failing) {
        g_printerr("error: %s\n", sh->failing);
    }
    if (error) {
        g_printerr("error: %s\n", error->message);
    }
    g_clear_pointer(&sh->failing, g_free);
}

static bool run_verb(struct shell *sh, const struct verb_row *verb, const struct args *a)
{
    gint64 began = g_get_monotonic_time();
    g_autoptr(GError) error = NULL;
    sh->verb = verb;
    sh->unconnected = false;
    bool ok = verb->run(sh, a, &error);
    out_flush(sh);
    if (!ok) {
        report(sh, error);
    }
    g_clear_pointer(&sh->failing, g_free);
    if (sh->timing) {
        printf("\n(Time: %.3f ms)\n\n", (double)(g_get_monotonic_time() - began) / 1000);
    } else if (!sh->out.quiet && !sh->out.json_wanted) {
        putchar('\n');
    }
    fflush(stdout);
    return ok;
}

bool shell_run_words(struct shell *sh, char **words, unsigned n)
{
    const struct verb_row *verb = shell_find(words[0]);
    g_autoptr(GError) error = NULL;
    struct args a = {0};
    if (!verb) {
        g_printerr("error: unknown command: '%s'\n", words[0]);
        return false;
    }
    for (unsigned i = 1; i < n && strcmp(words[i], "--") != 0; i++) {
        if (strcmp(words[i], "--help") == 0) {
            return help_show(verb->name, NULL);
        }
    }
    bool ok = args_parse(&a, verb, words + 1, n - 1, &error);
    if (ok) {
        ok = run_verb(sh, verb, &a);
    } else {
        report(sh, error);
    }
    args_clear(&a);
    return ok;
}

bool shell_run_line(struct shell *sh, const char *line)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) error = NULL;
    if (!words_of_line(line, words, &error)) {
        report(sh, error);
        return false;
    }
    bool ok = true;
    for (unsigned at = 0, end; ok && !sh->quit && at < words->len; at = end + 1) {
        for (end = at; end < words->len && words->pdata[end]; end++) {
        }
        ok = end == at || shell_run_words(sh, (char **)words->pdata + at, end - at);
    }
    return ok;
}

bool shell_is_over(const struct shell *sh)
{
    return sh->quit;
}

/* ---- Options ---- */

enum { OPTION_JSON = 256, OPTION_MANUAL };
static const struct option long_options[] = {
    {"connect", required_argument, NULL, 'c'},
    {"readonly", no_argument, NULL, 'r'},
    {"quiet", no_argument, NULL, 'q'},
    {"timing", no_argument, NULL, 't'},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'},
    {"manual", required_argument, NULL, OPTION_MANUAL},
    {NULL},
};

static int usage(void)
{
    printf("lodge [OPTION]... [VERB...]\nlodge [OPTION]... VERB [ARGUMENT]...\n\n"
           "  options:\n"
           "    -c | --connect=URI   what to speak to (LODGE_URI, LIBVIRT_DEFAULT_URI)\n"
           "    -r | --readonly      ask for nothing that changes something\n"
           "    -q | --quiet         results only\n"
           "    -t | --timing        say how long each verb took\n"
           "         --json          results as JSON\n"
           "         --manual=KIND   man page, or completion: man, bash, zsh, fish\n"
           "    -v | --version\n"
           "    -h | --help\n\n"
           "  verbs (lodge help VERB tells more):\n\n");
    return help_show(NULL, NULL) ? 0 : 1;
}

static bool options_read(struct shell *sh, int argc, char **argv, int *code)
{
    int c;
    *code = -1;
    while ((c = getopt_long(argc, argv, "+c:rqthvV", long_options, NULL)) != -1) {
        switch (c) {
        case 'c':
            g_free(sh->uri);
            sh->uri = g_strdup(optarg);
            break;
        case 'r':
            sh->read_only = true;
            break;
        case 'q':
            sh->out.quiet = true;
            break;
        case 't':
            sh->timing = true;
            break;
        case OPTION_JSON:
            sh->out.json_wanted = true;
            break;
        case 'h':
            *code = usage();
            return false;
        case 'v':
        case 'V':
            printf("lodge 0.1\n");
            *code = 0;
            return false;
        case OPTION_MANUAL:
            *code = manual_show(optarg) ? 0 : 1;
            return false;
        default:
            *code = 1;
            return false;
        }
    }
    return true;
}

/* "lodge 'list; dominfo x'" is a line of verbs, "lodge list --all" one verb in words. */
static bool run_arguments(struct shell *sh, char **words, unsigned n)
{
    return n == 1 && strpbrk(words[0], " ;\t\n") ? shell_run_line(sh, words[0])
                                                 : shell_run_words(sh, words, n);
}

/*
 * libvirt's clients look for "virt-ssh-helper" on the other host and give it a URI, and -r before
 * that: the same as lodge's own verb.
 */
static char **as_helper(char **argv)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new();
    char **rest = argv + 1;
    g_ptr_array_add(words, argv[0]);
    if (*rest && (strcmp(*rest, "-r") == 0 || strcmp(*rest, "--readonly") == 0)) {
        g_ptr_array_add(words, *rest++);
    }
    g_ptr_array_add(words, (char *)"ssh-helper");
    for (; *rest; rest++) {
        g_ptr_array_add(words, *rest);
    }
    g_ptr_array_add(words, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&words), FALSE);
}

int shell_main(int argc, char **argv)
{
    struct shell sh = {.read_only = false};
    g_autofree char *called = g_path_get_basename(argc ? argv[0] : "lodge");
    g_autofree char **helper = strcmp(called, "virt-ssh-helper") == 0 ? as_helper(argv) : NULL;
    int code;
    setlocale(LC_CTYPE, ""); /* names are printed as they are, numbers as programs read them */
    if (helper) {
        argv = helper;
        argc = (int)g_strv_length(helper);
    }
    if (options_read(&sh, argc, argv, &code)) {
        if (optind < argc) {
            code = run_arguments(&sh, argv + optind, (unsigned)(argc - optind)) ? 0 : 1;
        } else {
            shell_interact(&sh);
            code = 0;
        }
    }
    g_clear_pointer(&sh.rpc, rpc_free);
    g_free(sh.uri);
    return code;
}
