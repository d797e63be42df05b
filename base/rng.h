/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

/* Where a guest's entropy device gets its bytes: an -object rng-builtin or rng-random. */
struct rng_source {
    char *id;
    int fd; /* of rng-random's file, non-blocking; -1: the kernel's getrandom() */
};

/* @path NULL: getrandom(). */
struct rng_source *rng_new(const char *id, const char *path, GError **error);
struct rng_source *rng_find(const char *id); /* NULL: none */
bool rng_remove(const char *id);
/* Data path.  Fills at most @n bytes; how many came, 0 if there are none just now.  NULL as
 * @rng is getrandom(). */
size_t rng_read(struct rng_source *rng, void *to, size_t n);
