/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct node;

/*
 * Who is where in one node, so that overlapping requests of which one changes where bytes
 * live (exclusive: it allocates, frees or zeroes) wait for each other.  The others (reads,
 * writes in place) run beside each other.  A range is rounded to whole granules.
 */
struct track {
    struct track *next, **at; /* linked while under way */
    uint64_t start, end;
    bool exclusive;
};

struct tracks {
    GMutex lock;
    GCond ended;
    struct track *plain, *exclusive;
    unsigned waiting;
};

/* Waits for exclusive requests that overlap. */
void track_begin(struct node *node, struct track *t, uint64_t offset, uint64_t n);
/* False, and nothing begun, if it would have to wait. */
bool track_try(struct node *node, struct track *t, uint64_t offset, uint64_t n);
/* Waits for all requests that overlap. */
void track_begin_exclusive(struct node *node, struct track *t, uint64_t offset, uint64_t n);
void track_end(struct node *node, struct track *t);
