/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * track: overlapping requests.
 *
 * Nobody who waits here holds node->lock, and who is in a list ends without waiting for
 * anybody that came later: an exclusive request first enters its list, so that later ones
 * wait for it, and then waits for the plain ones that were there before.
 */
#include "host/image/track.h"

#include "host/image/core.h"

static bool overlaps(const struct track *list, const struct track *t)
{
    for (; list; list = list->next) {
        if (list != t && list->start < t->end && t->start < list->end) {
            return true;
        }
    }
    return false;
}

static void set_range(const struct node *node, struct track *t, uint64_t offset, uint64_t n)
{
    /* What a compressed unit takes is given back as soon as any part of it is written. */
    uint64_t whole = MAX(MAX(node->granule, node->align), node->unit), mask = whole - 1;
    t->start = offset & ~mask;
    t->end = (offset + n + mask) & ~mask;
}

static void enter(struct track **list, struct track *t)
{
    t->next = *list;
    t->at = list;
    if (t->next) {
        t->next->at = &t->next;
    }
    *list = t;
}

static void wait_until_clear(struct tracks *all, struct track *const *list, const struct track *t)
{
    while (overlaps(*list, t)) {
        all->waiting++;
        g_cond_wait(&all->ended, &all->lock);
        all->waiting--;
    }
}

void track_begin(struct node *node, struct track *t, uint64_t offset, uint64_t n)
{
    struct tracks *all = &node->core->tracks;
    set_range(node, t, offset, n);
    t->exclusive = false;
    g_mutex_lock(&all->lock);
    wait_until_clear(all, &all->exclusive, t);
    enter(&all->plain, t);
    g_mutex_unlock(&all->lock);
}

bool track_try(struct node *node, struct track *t, uint64_t offset, uint64_t n)
{
    struct tracks *all = &node->core->tracks;
    set_range(node, t, offset, n);
    t->exclusive = false;
    g_mutex_lock(&all->lock);
    bool clear = !overlaps(all->exclusive, t);
    if (clear) {
        enter(&all->plain, t);
    }
    g_mutex_unlock(&all->lock);
    return clear;
}

void track_begin_exclusive(struct node *node, struct track *t, uint64_t offset, uint64_t n)
{
    struct tracks *all = &node->core->tracks;
    set_range(node, t, offset, n);
    t->exclusive = true;
    g_mutex_lock(&all->lock);
    wait_until_clear(all, &all->exclusive, t);
    enter(&all->exclusive, t);
    wait_until_clear(all, &all->plain, t);
    g_mutex_unlock(&all->lock);
}

void track_end(struct node *node, struct track *t)
{
    struct tracks *all = &node->core->tracks;
    g_mutex_lock(&all->lock);
    *t->at = t->next;
    if (t->next) {
        t->next->at = t->at;
    }
    t->at = NULL;
    if (all->waiting) {
        g_cond_broadcast(&all->ended);
    }
    g_mutex_unlock(&all->lock);
}
