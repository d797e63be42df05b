/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/cli/shell.h"

enum { ARGS_MAX = 80 };

/* The options of one call, by their place in the verb's table. */
struct args {
    const struct verb_row *verb;
    char *value[ARGS_MAX]; /* "" for a flag; owned */
    char **many;           /* of OPT_MANY; owned */
};

/* @words without the verb's own name.  False with virsh's words. */
bool args_parse(struct args *a, const struct verb_row *verb, char *const *words, unsigned n,
                GError **error);
void args_clear(struct args *a);
/*
 * Cuts @line into words as a POSIX shell does with quotes and backslashes; a lone ";" between
 * verbs comes out as NULL among the words.  The array holds @out->len entries, all owned.
 */
bool words_of_line(const char *line, GPtrArray *out, GError **error);
