/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/help.h"
#include "manage/cli/object.h"

#include <string.h>
#include <unistd.h>

/*
 * The shell's own verbs.
 */
static bool run_cd(struct shell *sh, const struct args *a, GError **error)
{
    const char *dir = args_text(a, "dir") ? args_text(a, "dir") : g_get_home_dir();
    (void)sh;
    return chdir(dir) == 0 || shell_fail(error, "cd: %s: %s", dir, g_strerror(errno));
}

static bool run_pwd(struct shell *sh, const struct args *a, GError **error)
{
    g_autofree char *dir = g_get_current_dir();
    (void)a, (void)error;
    out_text(sh, "dir", "%s\n", dir);
    return true;
}

/* For tests of quoting: as a shell takes it, or XML. */
static char *echoed(const struct args *a, const char *word)
{
    static const char special[] = "|&;<>()$`\\\"' \t\r\n*?[#~=%";
    bool quote = args_flag(a, "shell") && (!*word || strpbrk(word, special));
    g_autofree char *quoted = quote ? g_shell_quote(word) : g_strdup(word);
    return args_flag(a, "xml") ? g_markup_escape_text(quoted, -1) : g_steal_pointer(&quoted);
}

static bool run_echo(struct shell *sh, const struct args *a, GError **error)
{
    g_autoptr(GString) line = g_string_new(NULL);
    if (!exclusive(a, "shell", "xml", error)) {
        return false;
    }
    for (char **words = args_many(a, "string"); words && *words; words++) {
        g_autofree char *word = echoed(a, *words);
        const char *between = args_flag(a, "split") ? "\n " : " ";
        g_string_append_printf(line, "%s%s", line->len ? between : "", word);
    }
    if (args_flag(a, "err")) {
        g_printerr("error: %s\n", line->str);
    } else {
        out_text(sh, "text", "%s%s", line->str, args_flag(a, "split") ? "\n" : "");
    }
    return true;
}

static bool run_quit(struct shell *sh, const struct args *a, GError **error)
{
    (void)a, (void)error;
    shell_quit(sh);
    return true;
}

static bool run_help(struct shell *sh, const struct args *a, GError **error)
{
    (void)sh;
    return help_show(args_text(a, "command"), error);
}

static bool run_connect(struct shell *sh, const struct args *a, GError **error)
{
    return shell_reconnect(sh, args_text(a, "name"), args_flag(a, "readonly"), error);
}

/* For the completion of bash, zsh and fish: what may come next, a line each. */
static bool run_complete(struct shell *sh, const struct args *a, GError **error)
{
    char **words = args_many(a, "string");
    static char *const none[] = {(char *)"", NULL};
    char *const *given = words ? words : none;
    g_auto(GStrv) found = shell_complete(sh, given, g_strv_length((char **)given));
    (void)error;
    for (unsigned i = 0; found[i]; i++) {
        out_line(sh, "%s", found[i]);
    }
    return true;
}

const struct verb_group verb_group_own = {"Shell", "shell", (const struct verb_row[]){
    {"cd", (const struct option_row[]){{"dir", OPT_TEXT, 0, "where to", COMPLETE_FILE}, {NULL}},
     "changes the current folder", run_cd},
    {"complete", (const struct option_row[]){
        {"string", OPT_MANY, OPT_EMPTY_OK, "words so far"}, {NULL}},
     "prints what may come next", run_complete},
    {"connect", (const struct option_row[]){
        {"name", OPT_TEXT, 0, "URI"}, {"readonly", OPT_BOOL, 0, "change nothing"}, {NULL}},
     "connects again, or to another URI", run_connect},
    {"echo", (const struct option_row[]){
        {"shell", OPT_BOOL, 0, "quoted for a shell"}, {"xml", OPT_BOOL, 0, "quoted for XML"},
        {"split", OPT_BOOL, 0, "a line for each word"}, {"err", OPT_BOOL, 0, "as an error"},
        
        {"string", OPT_MANY, OPT_EMPTY_OK, "words"}, {NULL}}, "prints its arguments", run_echo},
    {"exit", NULL, "leaves", run_quit},
    {"help", (const struct option_row[]){
        {"command", OPT_TEXT, 0, "verb or group", COMPLETE_VERB}, {NULL}}, "explains verbs",
     run_help},
    {"pwd", NULL, "prints the current folder", run_pwd},
    {"quit", NULL, "leaves", run_quit},
    {NULL},
}};
