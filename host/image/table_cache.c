/* SPDX-License-Identifier: GPL-2.0-or-later */

/* table_cache: metadata tables in memory and what of them the file does not have yet. */
#include "host/image/table_cache.h"

#include "base/bytes.h"

#include <string.h>
#include <sys/mman.h>

enum { NOBODY = -1, SECTOR = 512, READ_STEP = 1 << 16 };

struct piece {
    uint64_t at;
    int32_t next;      /* in its hash chain */
    uint32_t from, to; /* changed bytes; from >= to: none */
    bool used, here;   /* used: asked for since the hand came by */
};

struct table_cache {
    struct file *file;
    uint32_t bytes, most, filled, hand, dirty;
    unsigned bits, hash_bits;
    uint8_t *room; /* most * bytes of address space */
    struct piece *pieces;
    int32_t *buckets;
    int (*make_clean)(void *owner);
    void *owner;
};

static void *reserve(size_t n)
{
    void *p =
        mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

struct table_cache *table_cache_new(struct file *f, uint32_t bytes, uint32_t most,
                                    int (*make_clean)(void *owner), void *owner, GError **error)
{
    struct table_cache *c = g_new0(struct table_cache, 1);
    *c = (struct table_cache){.file = f,
                              .bytes = bytes,
                              .most = most,
                              .make_clean = make_clean,
                              .owner = owner,
                              .bits = (unsigned)__builtin_ctz(bytes),
                              .hash_bits = g_bit_storage(most)};
    c->room = reserve((size_t)most * bytes);
    c->pieces = g_try_new0(struct piece, most);
    c->buckets = g_try_new(int32_t, (size_t)1 << c->hash_bits);
    if (!c->room || !c->pieces || !c->buckets) {
        error_set_errno(error, ENOMEM, "cache of %u tables", most);
        table_cache_free(c);
        return NULL;
    }
    memset(c->buckets, 0xff, sizeof(int32_t) << c->hash_bits);
    return c;
}

void table_cache_free(struct table_cache *c)
{
    if (c) {
        if (c->room) {
            munmap(c->room, (size_t)c->most * c->bytes);
        }
        g_free(c->pieces);
        g_free(c->buckets);
        g_free(c);
    }
}

static int32_t *bucket_of(const struct table_cache *c, uint64_t at)
{
    return &c->buckets[(at >> c->bits) * 0x9e3779b97f4a7c15u >> (64 - c->hash_bits)];
}

static int32_t find(const struct table_cache *c, uint64_t at)
{
    int32_t i = *bucket_of(c, at);
    while (i != NOBODY && c->pieces[i].at != at) {
        i = c->pieces[i].next;
    }
    return i;
}

static uint8_t *bytes_of(const struct table_cache *c, uint32_t i)
{
    return c->room + ((size_t)i << c->bits);
}

static bool is_dirty(const struct piece *p)
{
    return p->from < p->to;
}

static void set_clean(struct table_cache *c, struct piece *p)
{
    c->dirty -= is_dirty(p);
    p->from = p->to = 0;
}

static void forget(struct table_cache *c, uint32_t i)
{
    struct piece *p = &c->pieces[i];
    int32_t *link = bucket_of(c, p->at);
    while (*link != (int32_t)i) {
        link = &c->pieces[*link].next;
    }
    *link = p->next;
    set_clean(c, p);
    p->here = p->used = false;
}

/* A place that holds nothing, perhaps after putting somebody out. */
static int take_room(struct table_cache *c, uint32_t *out)
{
    if (c->filled < c->most) {
        *out = c->filled++;
        return 0;
    }
    if (c->dirty == c->most) {
        int r = c->make_clean(c->owner);
        if (r) {
            return r;
        }
    }
    for (;;) {
        uint32_t i = c->hand;
        struct piece *p = &c->pieces[i];
        c->hand = (c->hand + 1) % c->most;
        if (p->here && (p->used || is_dirty(p))) {
            p->used = false;
            if (c->dirty == c->most) {
                return -EIO; /* make_clean() did not do its work */
            }
            continue;
        }
        if (p->here) {
            forget(c, i);
        }
        *out = i;
        return 0;
    }
}

static void remember(struct table_cache *c, uint32_t i, uint64_t at)
{
    int32_t *bucket = bucket_of(c, at);
    c->pieces[i] = (struct piece){.at = at, .next = *bucket, .used = true, .here = true};
    *bucket = (int32_t)i;
}

uint8_t *table_cache_get(struct table_cache *c, uint64_t at, bool wait, int *result)
{
    int32_t known = find(c, at);
    *result = 0;
    if (known != NOBODY) {
        c->pieces[known].used = true;
        return bytes_of(c, (uint32_t)known);
    }
    uint32_t i;
    *result = wait ? take_room(c, &i) : -EAGAIN;
    if (*result) {
        return NULL;
    }
    /* The last table of a file need not be there completely. */
    uint64_t end = file_size(c->file), part = at < end ? MIN(c->bytes, end - at) : 0;
    *result = part ? file_read(c->file, at, bytes_of(c, i), part) : -EIO;
    memset(bytes_of(c, i) + part, 0, c->bytes - part);
    if (*result) {
        return NULL; /* the place is found again: it is not .here */
    }
    remember(c, i, at);
    return bytes_of(c, i);
}

uint8_t *table_cache_blank(struct table_cache *c, uint64_t at, int *result)
{
    int32_t known = find(c, at);
    uint32_t i = (uint32_t)known;
    *result = known == NOBODY ? take_room(c, &i) : 0;
    if (*result) {
        return NULL;
    }
    if (known == NOBODY) {
        remember(c, i, at);
    }
    memset(bytes_of(c, i), 0, c->bytes);
    table_cache_changed(c, bytes_of(c, i), c->bytes);
    return bytes_of(c, i);
}

void table_cache_changed(struct table_cache *c, const uint8_t *changed, uint32_t n)
{
    size_t offset = (size_t)(changed - c->room);
    struct piece *p = &c->pieces[offset >> c->bits];
    uint32_t from = (uint32_t)offset & (c->bytes - 1), to = from + n;
    from &= ~(uint32_t)(SECTOR - 1);
    to = (to + SECTOR - 1) & ~(uint32_t)(SECTOR - 1);
    if (!is_dirty(p)) {
        c->dirty++;
        p->from = from;
        p->to = to;
    } else {
        p->from = MIN(p->from, from);
        p->to = MAX(p->to, to);
    }
}

bool table_cache_dirty(const struct table_cache *c)
{
    return c->dirty;
}

int table_cache_write(struct table_cache *c)
{
    for (uint32_t i = 0; i < c->filled && c->dirty; i++) {
        struct piece *p = &c->pieces[i];
        if (is_dirty(p)) {
            int r = file_write(c->file, p->at + p->from, bytes_of(c, i) + p->from, p->to - p->from);
            if (r) {
                return r;
            }
            set_clean(c, p);
        }
    }
    return 0;
}

void table_cache_drop(struct table_cache *c, uint64_t at, uint64_t n)
{
    for (uint64_t end = at + n; at < end; at += c->bytes) {
        int32_t i = find(c, at);
        if (i != NOBODY) {
            forget(c, (uint32_t)i);
        }
    }
}

void table_cache_drop_all(struct table_cache *c)
{
    for (uint32_t i = 0; i < c->filled; i++) {
        if (c->pieces[i].here) {
            forget(c, i);
        }
    }
}

/* ---- one table, whole ---- */

static int take_table(struct whole_table *t, uint64_t at, size_t n)
{
    *t = (struct whole_table){.at = at, .n = n};
    t->bytes = reserve(MAX(n, 1));
    t->dirty = g_try_malloc0(n / WHOLE_PAGE + 1);
    if (!t->bytes || !t->dirty) {
        whole_table_free(t);
        return -ENOMEM;
    }
    return 0;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (!p[0] && !memcmp(p, p + 1, n - 1));
}

int whole_table_read(struct whole_table *t, struct file *f, uint64_t at, size_t n)
{
    struct whole_table fresh;
    g_autofree uint8_t *step = g_malloc(READ_STEP);
    int r = take_table(&fresh, at, n);
    /* By way of a buffer, so that what is zero in the file takes no memory here. */
    for (size_t i = 0; i < n && !r; i += READ_STEP) {
        size_t part = MIN(n - i, (size_t)READ_STEP);
        r = file_read(f, at + i, step, part);
        for (size_t k = 0; k < part && !r; k += WHOLE_PAGE) {
            size_t page = MIN(part - k, (size_t)WHOLE_PAGE);
            if (!is_zero(step + k, page)) {
                memcpy(fresh.bytes + i + k, step + k, page);
            }
        }
    }
    if (r) {
        whole_table_free(&fresh);
        return r;
    }
    *t = fresh;
    return 0;
}

int whole_table_blank(struct whole_table *t, uint64_t at, size_t n)
{
    struct whole_table fresh;
    int r = take_table(&fresh, at, n);
    if (r) {
        return r;
    }
    memset(fresh.dirty, 1, n / WHOLE_PAGE + 1);
    fresh.any_dirty = true;
    *t = fresh;
    return 0;
}

void whole_table_put64(struct whole_table *t, size_t index, uint64_t big_endian_value)
{
    be64_put(t->bytes + 8 * index, big_endian_value);
    t->dirty[8 * index / WHOLE_PAGE] = 1;
    t->any_dirty = true;
}

int whole_table_write(struct whole_table *t, struct file *f)
{
    for (size_t page = 0; page * WHOLE_PAGE < t->n && t->any_dirty; page++) {
        size_t from = page * WHOLE_PAGE, end = page;
        while (end * WHOLE_PAGE < t->n && t->dirty[end]) {
            end++;
        }
        if (end > page) {
            size_t to = MIN(end * WHOLE_PAGE, t->n);
            int r = file_write(f, t->at + from, t->bytes + from, to - from);
            if (r) {
                return r;
            }
            memset(t->dirty + page, 0, end - page);
            page = end - 1;
        }
    }
    t->any_dirty = false;
    return 0;
}

void whole_table_free(struct whole_table *t)
{
    if (t->bytes) {
        munmap(t->bytes, MAX(t->n, 1));
    }
    g_free(t->dirty);
    *t = (struct whole_table){0};
}
