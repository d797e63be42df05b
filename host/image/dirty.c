/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/dirty.h"

#include "base/json.h"

#include "host/image/core.h"

#include <stdatomic.h>
#include <string.h>

enum {
    GRAIN = 64 << 10,
    GRAIN_BITS_LEAST = 9,
    GRAIN_BITS_MOST = 31,
    WORD = 64,
    BITS_MAX = 1 << 30
};

struct dirty {
    struct dirty *next;
    char *name;
    unsigned grain_bits;
    _Atomic bool records;
    uint64_t n; /* bits */
    _Atomic uint64_t *bits;
};

static const struct bitmap_tools *tools_of(const struct node *n)
{
    return n->format->tools ? n->format->tools->bitmaps : NULL;
}

static struct dirty *find(const struct node *n, const char *name)
{
    for (struct dirty *d = n->core->dirty; d; d = d->next) {
        if (!g_strcmp0(d->name, name)) {
            return d;
        }
    }
    return NULL;
}

static bool missing(const char *name, GError **error)
{
    g_set_error(error, LODGE_ERROR, ENOENT, "Dirty bitmap '%s' not found", name);
    return false;
}

static uint64_t words(const struct dirty *d)
{
    return (d->n + WORD - 1) / WORD;
}

/* ---- marks ---- */

/* The bytes of @d from @offset on. */
static void mark(struct dirty *d, uint64_t offset, uint64_t length)
{
    uint64_t end = MIN(((offset + length - 1) >> d->grain_bits) + 1, d->n);
    for (uint64_t at = offset >> d->grain_bits; at < end;) {
        uint64_t from = at % WORD, to = MIN(end - at / WORD * WORD, WORD);
        uint64_t mask = (to == WORD ? UINT64_MAX : (UINT64_C(1) << to) - 1) & (UINT64_MAX << from);
        atomic_fetch_or(&d->bits[at / WORD], mask);
        at = (at / WORD + 1) * WORD;
    }
}

void dirty_record(struct node *n, uint64_t offset, uint64_t length)
{
    const struct bitmap_tools *tools = tools_of(n);
    if (!length) {
        return;
    }
    for (struct dirty *d = n->core->dirty; d; d = d->next) {
        if (d->records) {
            mark(d, offset, length);
        }
    }
    if (tools && tools->record) {
        tools->record(n, offset, length);
    }
}

static int next_in(const struct dirty *d, uint64_t offset, uint64_t length, bool *dirty,
                   uint64_t *run)
{
    uint64_t first = offset >> d->grain_bits, bit = first;
    if (first >= d->n) { /* the disk has grown since */
        *dirty = true;
        *run = length;
        return 0;
    }
    uint64_t last = MIN((offset + length - 1) >> d->grain_bits, d->n - 1);
    *dirty = d->bits[first / WORD] >> first % WORD & 1;
    while (bit <= last) {
        uint64_t word = *dirty ? ~d->bits[bit / WORD] : d->bits[bit / WORD];
        word >>= bit % WORD;
        if (word) {
            bit += (unsigned)__builtin_ctzll(word);
            break;
        }
        bit = (bit / WORD + 1) * WORD;
    }
    *run = MIN(length, (MIN(bit, d->n) << d->grain_bits) - offset);
    return 0;
}

int dirty_next(struct node *n, const char *name, uint64_t offset, uint64_t length, bool *dirty,
               uint64_t *run)
{
    const struct dirty *d = find(n, name);
    const struct bitmap_tools *tools = tools_of(n);
    if (d) {
        return next_in(d, offset, length, dirty, run);
    }
    if (!tools || !tools->next) {
        return -ENOENT;
    }
    g_mutex_lock(&n->lock);
    int r = tools->next(n, name, offset, length, dirty, run);
    g_mutex_unlock(&n->lock);
    return r;
}

/* ---- making and removing ---- */

static struct dirty *new_dirty(const char *name, uint64_t size, unsigned grain_bits, GError **error)
{
    uint64_t n = (size >> grain_bits) + ((size & ((UINT64_C(1) << grain_bits) - 1)) != 0);
    _Atomic uint64_t *bits = n <= BITS_MAX ? g_try_malloc0((n / WORD + 1) * 8) : NULL;
    if (!bits) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "Too much space will be occupied by the bitmap. Use larger granularity");
        return NULL;
    }
    struct dirty *d = g_new0(struct dirty, 1);
    *d = (struct dirty){.name = g_strdup(name), .grain_bits = grain_bits, .n = n, .bits = bits};
    return d;
}

void dirty_free(struct dirty *d)
{
    if (d) {
        g_free(d->name);
        g_free((void *)d->bits);
        g_free(d);
    }
}

void dirty_forget(struct node *n)
{
    while (n->core->dirty) {
        struct dirty *d = n->core->dirty;
        n->core->dirty = d->next;
        dirty_free(d);
    }
}

static bool add_here(struct node *n, const char *name, uint64_t grain, bool records, GError **error)
{
    grain = grain ? grain : GRAIN;
    unsigned bits = (unsigned)__builtin_ctzll(grain);
    if ((grain & (grain - 1)) || bits < GRAIN_BITS_LEAST || bits > GRAIN_BITS_MOST) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Granularity must be a power of two from 512 bytes to 2 GiB");
        return false;
    }
    struct dirty *d = new_dirty(name, n->size, bits, error);
    if (d) {
        d->records = records;
        d->next = n->core->dirty;
        n->core->dirty = d;
    }
    return d;
}

bool dirty_exists(struct node *n, const char *name)
{
    bool dirty;
    uint64_t run;
    int r = n->size ? dirty_next(n, name, 0, 1, &dirty, &run) : -ENOENT;
    return r != -ENOENT;
}

bool dirty_add(struct node *n, const char *name, uint64_t grain, bool lasting, bool records,
               GError **error)
{
    const struct bitmap_tools *tools = tools_of(n);
    if (!name || !*name || strlen(name) > 1023) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Bitmap name must have 1 to 1023 bytes");
        return false;
    }
    if (dirty_exists(n, name)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "Bitmap already exists: %s", name);
        return false;
    }
    if (!lasting) {
        return add_here(n, name, grain, records, error);
    }
    if (!tools || n->read_only || grain > UINT32_MAX) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    n->read_only ? "the image is read-only" : "Format '%s' cannot keep bitmaps",
                    n->format->name);
        return false;
    }
    g_mutex_lock(&n->lock);
    bool ok = tools->add(n, name, (uint32_t)grain, records, error);
    g_mutex_unlock(&n->lock);
    return ok;
}

/* ---- changes: of our own, else by the format ---- */

#define BY_FORMAT(n, name, error, call)                                                            \
    do {                                                                                           \
        const struct bitmap_tools *tools = tools_of(n);                                            \
        if (!tools) {                                                                              \
            return missing(name, error);                                                           \
        }                                                                                          \
        g_mutex_lock(&(n)->lock);                                                                  \
        bool ok_ = call;                                                                           \
        g_mutex_unlock(&(n)->lock);                                                                \
        return ok_;                                                                                \
    } while (0)

bool dirty_remove(struct node *n, const char *name, GError **error)
{
    for (struct dirty **at = &n->core->dirty; *at; at = &(*at)->next) {
        struct dirty *d = *at;
        if (!g_strcmp0(d->name, name)) {
            *at = d->next;
            dirty_free(d);
            return true;
        }
    }
    BY_FORMAT(n, name, error, tools->remove(n, name, error));
}

bool dirty_clear(struct node *n, const char *name, GError **error)
{
    struct dirty *d = find(n, name);
    for (uint64_t i = 0; d && i < words(d); i++) {
        d->bits[i] = 0;
    }
    if (d) {
        return true;
    }
    BY_FORMAT(n, name, error, tools->clear(n, name, error));
}

bool dirty_enable(struct node *n, const char *name, bool on, GError **error)
{
    struct dirty *d = find(n, name);
    if (d) {
        d->records = on;
        return true;
    }
    BY_FORMAT(n, name, error, tools->enable(n, name, on, error));
}

struct dirty *dirty_copy(struct node *n, const char *name, GError **error)
{
    struct dirty *copy = new_dirty(name, n->size, 16, error);
    uint64_t grain = 0;
    g_autoptr(json_t) all = dirty_list(n);
    size_t i;
    json_t *one;
    json_array_foreach(all, i, one)
    {
        if (!g_strcmp0(json_string_value(json_object_get(one, "name")), name)) {
            grain = (uint64_t)json_integer_value(json_object_get(one, "granularity"));
        }
    }
    if (copy && grain) {
        dirty_free(copy);
        copy = new_dirty(name, n->size, (unsigned)__builtin_ctzll(grain), error);
    }
    for (uint64_t at = 0, run = 0; copy && at < n->size; at += run) {
        bool dirty = false;
        int r = dirty_next(n, name, at, n->size - at, &dirty, &run);
        if (r == -ENOENT) {
            missing(name, error);
        } else if (r) {
            error_set_errno(error, -r, "Bitmap '%s' is inconsistent and cannot be used", name);
        }
        if (r) {
            dirty_free(copy);
            return NULL;
        }
        if (dirty) {
            mark(copy, at, run);
        }
    }
    return copy;
}

bool dirty_restore(struct node *n, const char *name, const struct dirty *copy, GError **error)
{
    struct dirty *d = find(n, name);
    for (uint64_t at = 0, run = 0; d && at < n->size; at += run) {
        bool dirty;
        next_in(copy, at, n->size - at, &dirty, &run);
        if (dirty) {
            mark(d, at, run);
        }
    }
    if (d) {
        return true;
    }
    BY_FORMAT(n, name, error,
              tools->merge_bits(n, name, (const uint64_t *)(const void *)copy->bits, copy->n,
                                copy->grain_bits, error));
}

bool dirty_merge(struct node *to, const char *name, struct node *from, const char *source,
                 GError **error)
{
    struct dirty *copy = dirty_copy(from, source, error);
    bool ok = copy && dirty_restore(to, name, copy, error);
    dirty_free(copy);
    return ok;
}

bool dirty_inherit(struct node *to, struct node *from, GError **error)
{
    g_autoptr(json_t) all = dirty_list(from);
    size_t i;
    json_t *one;
    json_array_foreach(all, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        bool lasts = json_is_true(json_object_get(one, "persistent"));
        bool broken = json_is_true(json_object_get(one, "inconsistent"));
        uint64_t grain = (uint64_t)json_integer_value(json_object_get(one, "granularity"));
        if (!lasts || broken) {
            continue;
        }
        if (!dirty_exists(to, name) &&
            !dirty_add(to, name, grain, true, json_is_true(json_object_get(one, "recording")),
                       error)) {
            return false;
        }
        if (!dirty_merge(to, name, from, name, error)) {
            return false;
        }
    }
    return true;
}

/* ---- what there is ---- */

static uint64_t count(const struct dirty *d)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < words(d); i++) {
        n += (uint64_t)__builtin_popcountll(d->bits[i]);
    }
    return n << d->grain_bits;
}

json_t *dirty_list(struct node *n)
{
    const struct bitmap_tools *tools = tools_of(n);
    json_t *all = json_array();
    if (tools && tools->list) {
        g_mutex_lock(&n->lock);
        tools->list(n, all);
        g_mutex_unlock(&n->lock);
    }
    for (const struct dirty *d = n->core->dirty; d; d = d->next) {
        json_array_append_new(all, json_pack("{s:s, s:I, s:I, s:b, s:b, s:b}", "name", d->name,
                                             "granularity", (json_int_t)1 << d->grain_bits, "count",
                                             (json_int_t)count(d), "recording", (int)d->records,
                                             "busy", 0, "persistent", 0));
    }
    return all;
}

bool dirty_records(struct node *n, const char *name)
{
    g_autoptr(json_t) all = dirty_list(n);
    size_t i;
    json_t *one;
    json_array_foreach(all, i, one)
    {
        if (!g_strcmp0(json_string_value(json_object_get(one, "name")), name)) {
            return json_is_true(json_object_get(one, "recording"));
        }
    }
    return false;
}
