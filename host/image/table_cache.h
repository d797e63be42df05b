/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/format.h"

/*
 * Metadata tables of a format in memory, as the bytes that the file has.  Changes stay in
 * memory until the format writes them, in the order that keeps its file sound.
 *
 * A table_cache holds equal pieces of many tables, up to a fixed number; a whole_table one
 * table completely.  Thread: node->lock held.
 */
struct table_cache;

/*
 * Room for @most pieces of @bytes bytes (a power of two from 512 on); memory is taken as
 * pieces come in.  When all of them are changed and room is needed, @make_clean has to write
 * them: table_cache_write() after whatever must be in the file before.
 */
struct table_cache *table_cache_new(struct file *f, uint32_t bytes, uint32_t most,
                                    int (*make_clean)(void *owner), void *owner, GError **error);
void table_cache_free(struct table_cache *c); /* forgets changes; NULL is fine */

/*
 * The piece at file offset @at, valid until the next call that may load another.  NULL with
 * @result: -EAGAIN if it would have to be read and not @wait, or -errno.
 */
uint8_t *table_cache_get(struct table_cache *c, uint64_t at, bool wait, int *result);
/* The same without reading: zeroes, changed. */
uint8_t *table_cache_blank(struct table_cache *c, uint64_t at, int *result);
/* @n bytes from @changed on, inside a piece that get() has returned, are new. */
void table_cache_changed(struct table_cache *c, const uint8_t *changed, uint32_t n);
bool table_cache_dirty(const struct table_cache *c);
/* All changes go to the file, without flushing it. */
int table_cache_write(struct table_cache *c);
/* Forgets the pieces in a part of the file, changes included. */
void table_cache_drop(struct table_cache *c, uint64_t at, uint64_t n);
void table_cache_drop_all(struct table_cache *c);

struct whole_table {
    uint64_t at;    /* in the file */
    size_t n;       /* bytes */
    uint8_t *bytes; /* n of them; address space that takes memory where the file has data */
    uint8_t *dirty; /* one for each WHOLE_PAGE bytes */
    bool any_dirty;
};
enum { WHOLE_PAGE = 4096 };

/* Both leave @t alone unless they succeed.  0 or -errno. */
int whole_table_read(struct whole_table *t, struct file *f, uint64_t at, size_t n);
int whole_table_blank(struct whole_table *t, uint64_t at, size_t n);
void whole_table_put64(struct whole_table *t, size_t index, uint64_t big_endian_value);
/* Changed pages go to the file, without flushing it. */
int whole_table_write(struct whole_table *t, struct file *f);
void whole_table_free(struct whole_table *t);
