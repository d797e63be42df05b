/* SPDX-License-Identifier: GPL-2.0-or-later */

/* tables: pages of a file's metadata, in sets of eight of which the oldest makes room. */
#include "host/image/tables.h"

#include "host/image/format.h"

#include <string.h>

enum { SETS = 64, WAYS = 8, PAGES = SETS * WAYS };

struct page {
    uint64_t number; /* + 1; 0: empty */
    uint64_t used;   /* tick of the last use */
    uint32_t from, to; /* changed bytes; from == to: none */
};

struct tables {
    struct file *file;
    uint32_t size; /* of a page */
    unsigned shift;
    int (*clean)(void *owner);
    void *owner;
    uint64_t tick;
    unsigned n_dirty;
    struct page pages[PAGES];
    uint8_t *bytes; /* of all pages */
};

struct tables *tables_new(struct file *file, uint32_t page, int (*clean)(void *owner), void *owner)
{
    struct tables *t = g_new0(struct tables, 1);
    *t = (struct tables){.file = file, .size = page, .shift = (unsigned)__builtin_ctz(page),
                         .clean = clean, .owner = owner};
    t->bytes = g_malloc((size_t)page * PAGES);
    return t;
}

void tables_free(struct tables *t)
{
    if (t) {
        g_free(t->bytes);
        g_free(t);
    }
}

static uint8_t *bytes_of(struct tables *t, const struct page *p)
{
    return t->bytes + (size_t)(p - t->pages) * t->size;
}

/* Neighbours fall into different sets; so do the same pages of neighbouring tables. */
static struct page *set_of(struct tables *t, uint64_t number)
{
    return &t->pages[(number ^ number >> 6 ^ number >> 12) % SETS * WAYS];
}

static struct page *find(struct tables *t, uint64_t number)
{
    struct page *set = set_of(t, number);
    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].number == number + 1) {
            return &set[i];
        }
    }
    return NULL;
}

/* The page of @number's set that is to hold it: clean. */
static int make_room(struct tables *t, uint64_t number, struct page **out)
{
    struct page *set = set_of(t, number), *oldest = set;
    for (unsigned i = 1; i < WAYS; i++) {
        if (set[i].used < oldest->used) {
            oldest = &set[i];
        }
    }
    *out = oldest;
    return oldest->from < oldest->to ? t->clean(t->owner) : 0;
}

static int load(struct tables *t, uint64_t number, struct page *p)
{
    uint64_t at = number << t->shift, end = file_size(t->file);
    size_t have = (size_t)MIN(t->size, end - at);
    p->number = 0;
    int r = file_read(t->file, at, bytes_of(t, p), have);
    if (r == 0) {
        memset(bytes_of(t, p) + have, 0, t->size - have);
        p->number = number + 1;
    }
    return r;
}

int tables_at(struct tables *t, uint64_t at, bool wait, uint8_t **out)
{
    uint64_t number = at >> t->shift;
    struct page *p = find(t, number);
    if (!p) {
        if (!wait) {
            return -EAGAIN;
        }
        if (at >= file_size(t->file)) {
            return -EIO;
        }
        int r = make_room(t, number, &p);
        if (r == 0) {
            r = load(t, number, p);
        }
        if (r < 0) {
            return r;
        }
    }
    p->used = ++t->tick;
    *out = bytes_of(t, p) + (at & (t->size - 1));
    return 0;
}

void tables_changed(struct tables *t, uint64_t at, uint32_t n)
{
    struct page *p = find(t, at >> t->shift);
    uint32_t from = (uint32_t)(at & (t->size - 1)), to = from + n;
    bool was_clean = p->from == p->to;
    p->from = was_clean ? from : MIN(p->from, from);
    p->to = was_clean ? to : MAX(p->to, to);
    t->n_dirty += was_clean;
}

int tables_write(struct tables *t)
{
    for (unsigned i = 0; t->n_dirty && i < PAGES; i++) {
        struct page *p = &t->pages[i];
        if (p->from == p->to) {
            continue;
        }
        int r = file_write(t->file, ((p->number - 1) << t->shift) + p->from,
                           bytes_of(t, p) + p->from, p->to - p->from);
        if (r < 0) {
            return r;
        }
        p->from = p->to = 0;
        t->n_dirty--;
    }
    return 0;
}

unsigned tables_list(struct tables *t, struct tables_page *out, unsigned n)
{
    unsigned found = 0;
    for (unsigned i = 0; i < PAGES && found < MIN(n, t->n_dirty); i++) {
        struct page *p = &t->pages[i];
        if (p->from < p->to) {
            out[found++] = (struct tables_page){(p->number - 1) << t->shift, bytes_of(t, p)};
        }
    }
    return found;
}

void tables_written(struct tables *t, uint64_t at)
{
    struct page *p = find(t, at >> t->shift);
    if (p && p->from < p->to) {
        p->from = p->to = 0;
        t->n_dirty--;
    }
}

bool tables_dirty(const struct tables *t)
{
    return t->n_dirty;
}

void tables_forget(struct tables *t)
{
    memset(t->pages, 0, sizeof(t->pages));
    t->n_dirty = 0;
}
