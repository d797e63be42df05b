/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/run.h"

#include <editline/readline.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The prompt: libedit, with a history that lasts and completion of verbs, options and objects.
 */
enum { HISTORY_LINES = 500 };

static struct shell *the_shell; /* libedit's hooks have no argument */
static char **found;
static unsigned found_next;

static char *next_found(const char *text, int state)
{
    (void)text;
    if (state == 0) {
        found_next = 0;
    }
    return found && found[found_next] ? strdup(found[found_next++]) : NULL;
}

static char **complete(const char *text, int start, int end)
{
    g_autofree char *before = g_strndup(rl_line_buffer, (size_t)start);
    const char *semicolon = strrchr(before, ';');
    g_auto(GStrv) words = g_strsplit_set(semicolon ? semicolon + 1 : before, " \t", -1);
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    (void)end;
    for (unsigned i = 0; words[i]; i++) {
        if (*words[i]) {
            g_ptr_array_add(list, words[i]);
        }
    }
    g_ptr_array_add(list, (char *)text);
    g_clear_pointer(&found, g_strfreev);
    found = shell_complete(the_shell, (char **)list->pdata, list->len);
    rl_attempted_completion_over = 1;
    return rl_completion_matches(text, next_found);
}

static char *history_path(void)
{
    g_autofree char *folder = g_build_filename(g_get_user_cache_dir(), "lodge", NULL);
    g_mkdir_with_parents(folder, 0700);
    return g_build_filename(folder, "history", NULL);
}

void shell_interact(struct shell *sh)
{
    g_autofree char *path = history_path();
    the_shell = sh;
    rl_readline_name = (char *)"lodge";
    rl_attempted_completion_function = complete;
    rl_completer_word_break_characters = (char *)" \t;";
    using_history();
    stifle_history(HISTORY_LINES);
    read_history(path);
    if (isatty(STDIN_FILENO)) {
        printf("lodge: 'help' lists the verbs, 'quit' leaves\n\n");
    }
    const char *prompt = shell_read_only(sh) ? "lodge > " : "lodge # ";
    char *line;
    while (!shell_is_over(sh) && (line = readline(prompt))) {
        if (*g_strchug(line)) {
            add_history(line);
            shell_run_line(sh, line);
        }
        free(line);
    }
    write_history(path);
    g_clear_pointer(&found, g_strfreev);
}
