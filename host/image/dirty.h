/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/format.h"

/*
 * Dirty bitmaps of a node: which parts were written while a bitmap records.  Those that last are
 * the format's (bitmap_tools), the others are here and end with the node.
 *
 * Threads: dirty_next() and dirty_record() any; all else with the machine lock held and nothing
 * of the guest's under way at the node.  All take the node's lock.
 */
struct dirty;

/* @grain 0: the format's choice, or 64 KiB. */
bool dirty_add(struct node *n, const char *name, uint64_t grain, bool lasting, bool records,
               GError **error);
bool dirty_remove(struct node *n, const char *name, GError **error);
bool dirty_clear(struct node *n, const char *name, GError **error);
bool dirty_enable(struct node *n, const char *name, bool on, GError **error);
bool dirty_merge(struct node *to, const char *name, struct node *from, const char *source,
                 GError **error);
bool dirty_exists(struct node *n, const char *name);
bool dirty_records(struct node *n, const char *name);
/* Whether the bytes from @offset are marked, and how far that goes, at most @length; -ENOENT. */
int dirty_next(struct node *n, const char *name, uint64_t offset, uint64_t length, bool *dirty,
               uint64_t *run);
/* A copy that belongs to no node; NULL with an error. */
struct dirty *dirty_copy(struct node *n, const char *name, GError **error);
/* Puts a copy's marks back. */
bool dirty_restore(struct node *n, const char *name, const struct dirty *copy, GError **error);
void dirty_free(struct dirty *copy); /* NULL is fine */
/* Every bitmap as query-block has it: name, granularity, count, recording, busy, persistent. */
json_t *dirty_list(struct node *n);
/* All that last and that @to has not: for an image that takes the place of one above it. */
bool dirty_inherit(struct node *to, struct node *from, GError **error);

/* After bytes of @n changed. */
void dirty_record(struct node *n, uint64_t offset, uint64_t length);
/* At the end of the node. */
void dirty_forget(struct node *n);
