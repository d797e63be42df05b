/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/cli/shell.h"

/* What a verb has put out so far. */
struct out {
    bool json_wanted, quiet;
    json_t *json;   /* array, or NULL */
    json_t *object; /* fields since the last out_next() */
    unsigned columns;
    char **headers;
    GPtrArray *cells;
};
struct out *out_of(struct shell *sh);
/* At the end of a verb. */
void out_flush(struct shell *sh);
