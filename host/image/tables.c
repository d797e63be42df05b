/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * tables: pages of a file's metadata.  A hand goes round over them; who was not asked for since
 * it came by last makes room, changed pages only when there is no other.
 */
#include "host/image/tables.h"

#include "host/image/format.h"

#include <string.h>

enum { PAGES = 512, NOBODY = -1 };

struct page {
    uint64_t at;
    int32_t next;      /* in its hash chain */
    uint32_t from, to; /* changed bytes; from == to: none */
    bool used, here;   /* used: asked for since the hand came by */
};

struct tables {
    struct file *file;
    uint32_t size; /* of a page */
    uint32_t most, filled, hand, n_dirty;
    unsigned shift, hash_bits;
    int (*clean)(void *owner);
    void *owner;
    struct page *pages;
    int32_t *buckets;
    uint8_t *bytes; /* of all pages: address space that takes memory as they are filled */
};

struct tables *tables_new_sized(struct file *file, uint32_t page, uint32_t pages,
                                int (*clean)(void *owner), void *owner)
{
    struct tables *t = g_new0(struct tables, 1);
    *t = (struct tables){.file = file,
                         .size = page,
                         .most = pages,
                         .clean = clean,
                         .owner = owner,
                         .shift = (unsigned)__builtin_ctz(page),
                         .hash_bits = g_bit_storage(pages)};
    t->pages = g_new0(struct page, pages);
    t->buckets = g_new(int32_t, (size_t)1 << t->hash_bits);
    memset(t->buckets, 0xff, sizeof(int32_t) << t->hash_bits);
    t->bytes = g_malloc((size_t)page * pages);
    return t;
}

struct tables *tables_new(struct file *file, uint32_t page, int (*clean)(void *owner), void *owner)
{
    return tables_new_sized(file, page, PAGES, clean, owner);
}

void tables_free(struct tables *t)
{
    if (t) {
        g_free(t->bytes);
        g_free(t->pages);
        g_free(t->buckets);
        g_free(t);
    }
}

static int32_t *bucket_of(const struct tables *t, uint64_t at)
{
    return &t->buckets[(at >> t->shift) * UINT64_C(0x9e3779b97f4a7c15) >> (64 - t->hash_bits)];
}

static struct page *find(const struct tables *t, uint64_t at)
{
    int32_t i = *bucket_of(t, at);
    while (i != NOBODY && t->pages[i].at != at) {
        i = t->pages[i].next;
    }
    return i == NOBODY ? NULL : &t->pages[i];
}

static uint8_t *bytes_of(const struct tables *t, const struct page *p)
{
    return t->bytes + ((size_t)(p - t->pages) << t->shift);
}

static bool is_dirty(const struct page *p)
{
    return p->from < p->to;
}

static void set_clean(struct tables *t, struct page *p)
{
    t->n_dirty -= is_dirty(p);
    p->from = p->to = 0;
}

static void forget(struct tables *t, struct page *p)
{
    int32_t *link = bucket_of(t, p->at);
    while (&t->pages[*link] != p) {
        link = &t->pages[*link].next;
    }
    *link = p->next;
    set_clean(t, p);
    p->here = p->used = false;
}

/* A page that holds nothing, perhaps after putting somebody out. */
static int make_room(struct tables *t, struct page **out)
{
    if (t->filled < t->most) {
        *out = &t->pages[t->filled++];
        return 0;
    }
    int r = t->n_dirty == t->most ? t->clean(t->owner) : 0;
    if (r < 0 || t->n_dirty == t->most) {
        return r < 0 ? r : -EIO;
    }
    for (;;) {
        struct page *p = &t->pages[t->hand];
        t->hand = (t->hand + 1) % t->most;
        if (p->here && (p->used || is_dirty(p))) {
            p->used = false;
            continue;
        }
        if (p->here) {
            forget(t, p);
        }
        *out = p;
        return 0;
    }
}

static void remember(struct tables *t, struct page *p, uint64_t at)
{
    int32_t *bucket = bucket_of(t, at);
    *p = (struct page){.at = at, .next = *bucket, .used = true, .here = true};
    *bucket = (int32_t)(p - t->pages);
}

/* A page that cannot be read stays one that holds nothing. */
static int load(struct tables *t, uint64_t at, struct page *p)
{
    size_t have = (size_t)MIN(t->size, file_size(t->file) - at);
    int r = file_read(t->file, at, bytes_of(t, p), have);
    if (r == 0) {
        memset(bytes_of(t, p) + have, 0, t->size - have);
        remember(t, p, at);
    }
    return r;
}

int tables_at(struct tables *t, uint64_t at, bool wait, uint8_t **out)
{
    uint64_t start = at & ~(uint64_t)(t->size - 1);
    struct page *p = find(t, start);
    if (!p) {
        if (!wait) {
            return -EAGAIN;
        }
        if (at >= file_size(t->file)) {
            return -EIO;
        }
        int r = make_room(t, &p);
        r = r ? r : load(t, start, p);
        if (r < 0) {
            return r;
        }
    }
    p->used = true;
    *out = bytes_of(t, p) + (at - start);
    return 0;
}

static void set_dirty(struct tables *t, struct page *p, uint32_t from, uint32_t to)
{
    bool was_clean = !is_dirty(p);
    p->from = was_clean ? from : MIN(p->from, from);
    p->to = was_clean ? to : MAX(p->to, to);
    t->n_dirty += was_clean && is_dirty(p);
}

int tables_blank(struct tables *t, uint64_t at, uint8_t **out)
{
    struct page *p = find(t, at);
    if (!p) {
        int r = make_room(t, &p);
        if (r < 0) {
            return r;
        }
        remember(t, p, at);
    }
    memset(bytes_of(t, p), 0, t->size);
    set_dirty(t, p, 0, t->size);
    *out = bytes_of(t, p);
    return 0;
}

void tables_changed(struct tables *t, uint64_t at, uint32_t n)
{
    uint32_t from = (uint32_t)(at & (t->size - 1));
    set_dirty(t, find(t, at - from), from, from + n);
}

void tables_touched(struct tables *t, const uint8_t *changed, uint32_t n)
{
    size_t offset = (size_t)(changed - t->bytes);
    uint32_t from = (uint32_t)offset & (t->size - 1);
    set_dirty(t, &t->pages[offset >> t->shift], from, from + n);
}

int tables_write(struct tables *t)
{
    for (uint32_t i = 0; t->n_dirty && i < t->filled; i++) {
        struct page *p = &t->pages[i];
        if (is_dirty(p)) {
            int r = file_write(t->file, p->at + p->from, bytes_of(t, p) + p->from, p->to - p->from);
            if (r < 0) {
                return r;
            }
            set_clean(t, p);
        }
    }
    return 0;
}

unsigned tables_list(struct tables *t, struct tables_page *out, unsigned n)
{
    unsigned found = 0;
    for (uint32_t i = 0; i < t->filled && found < MIN(n, t->n_dirty); i++) {
        const struct page *p = &t->pages[i];
        if (is_dirty(p)) {
            out[found++] = (struct tables_page){p->at, bytes_of(t, p)};
        }
    }
    return found;
}

void tables_written(struct tables *t, uint64_t at)
{
    struct page *p = find(t, at);
    if (p) {
        set_clean(t, p);
    }
}

bool tables_dirty(const struct tables *t)
{
    return t->n_dirty;
}

void tables_forget(struct tables *t)
{
    memset(t->pages, 0, t->most * sizeof(*t->pages));
    memset(t->buckets, 0xff, sizeof(int32_t) << t->hash_bits);
    t->filled = t->hand = t->n_dirty = 0;
}

void tables_drop(struct tables *t, uint64_t at, uint64_t n)
{
    for (uint64_t end = at + n; at < end; at += t->size) {
        struct page *p = find(t, at);
        if (p) {
            forget(t, p);
        }
    }
}

int tables_empty(struct tables *l1, struct tables *l2, uint64_t at, uint64_t bytes)
{
    struct file *f = l1->file;
    int r = file_zero(f, at, bytes, false);
    tables_forget(l1);
    tables_forget(l2);
    r = r ? r : file_flush(f);
    return r ? r : file_resize(f, at + bytes);
}
