/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * A bounded write-back cache of a format's tables and bitmaps, by pages of the file.
 *
 * Changed pages are written when the format says so, which is after it has flushed what they
 * point at; only the bytes that were changed are written, so a page may hold something else
 * besides.  When a changed page must make room the format is asked to flush first.
 * Thread: node->lock held.
 */
struct file;
struct tables;

/* @page: bytes, a power of two.  @clean: tables_write() in the format's safe order; 0 or -errno. */
struct tables *tables_new(struct file *file, uint32_t page, int (*clean)(void *owner), void *owner);
/* The same with room for @pages pages instead of 512. */
struct tables *tables_new_sized(struct file *file, uint32_t page, uint32_t pages,
                                int (*clean)(void *owner), void *owner);
void tables_free(struct tables *t); /* NULL is fine; what was not written is lost */
/*
 * Where the page with byte @at of the file lies in memory from @at on, until the next call;
 * bytes behind the end of the file are 0, but @at itself must be inside (-EIO).  With !@wait:
 * -EAGAIN if the file would have to be read.
 */
int tables_at(struct tables *t, uint64_t at, bool wait, uint8_t **out);
/* The same for a whole page without reading it: zeroes, changed. */
int tables_blank(struct tables *t, uint64_t at, uint8_t **out);
/* The @n bytes at @at, which tables_at() has just given, were changed. */
void tables_changed(struct tables *t, uint64_t at, uint32_t n);
/* The same, named by where they lie in memory. */
void tables_touched(struct tables *t, const uint8_t *changed, uint32_t n);
/* All changed pages to the file, which is not flushed. */
int tables_write(struct tables *t);
/* Up to @n changed pages, whole, for a format that writes them by way of a log; and that one
 * of them has been written. */
struct tables_page {
    uint64_t at;
    const uint8_t *bytes;
};
unsigned tables_list(struct tables *t, struct tables_page *out, unsigned n);
void tables_written(struct tables *t, uint64_t at);
bool tables_dirty(const struct tables *t);
/* Forgets all pages: the file was changed otherwise. */
void tables_forget(struct tables *t);
/* Forgets those in a part of the file, changes included. */
void tables_drop(struct tables *t, uint64_t at, uint64_t n);
/* All of an image with tables in two levels: the file ends behind its empty first table. */
int tables_empty(struct tables *l1, struct tables *l2, uint64_t at, uint64_t bytes);
