/* SPDX-License-Identifier: GPL-2.0-or-later */

/* units: reading inside compressed units. */
#include "host/image/units.h"

#include "host/image/codec.h"

static int unpack(struct file *file, const struct extent *e, uint8_t *to)
{
    uint64_t size = file_size(file);
    if (e->at >= size || !e->stored || e->unit > UNIT_MAX || e->stored > 2 * (uint64_t)UNIT_MAX) {
        return -EIO;
    }
    size_t stored = (size_t)MIN(e->stored, size - e->at);
    g_autofree uint8_t *packed = g_try_malloc(stored);
    int r = packed ? file_read(file, e->at, packed, stored) : -ENOMEM;
    return r < 0 ? r : e->codec->unpack(packed, stored, to, e->unit);
}

static bool read_kept(struct units *units, const struct extent *e, uint64_t skip, void *to,
                      uint64_t n)
{
    bool found = false;
    g_mutex_lock(&units->lock);
    for (unsigned i = 0; i < UNITS_KEPT && !found; i++) {
        struct unit *u = &units->kept[i];
        if (u->bytes && u->start == e->start && u->at == e->at && u->bytes == e->unit) {
            memcpy(to, u->data + skip, n);
            u->used = ++units->clock;
            found = true;
        }
    }
    g_mutex_unlock(&units->lock);
    return found;
}

static uint64_t bytes_kept(const struct units *units)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < UNITS_KEPT; i++) {
        sum += units->kept[i].bytes;
    }
    return sum;
}

/* Empties the entry that was used longest ago of those that hold something. */
static void drop_oldest(struct units *units)
{
    struct unit *oldest = NULL;
    for (unsigned i = 0; i < UNITS_KEPT; i++) {
        struct unit *u = &units->kept[i];
        if (u->bytes && (!oldest || u->used < oldest->used)) {
            oldest = u;
        }
    }
    g_free(oldest->data);
    *oldest = (struct unit){0};
}

static struct unit *find_empty(struct units *units)
{
    for (unsigned i = 0; i < UNITS_KEPT; i++) {
        if (!units->kept[i].bytes) {
            return &units->kept[i];
        }
    }
    drop_oldest(units);
    return find_empty(units);
}

static void keep(struct units *units, const struct extent *e, uint8_t *data)
{
    g_mutex_lock(&units->lock);
    while (bytes_kept(units) && bytes_kept(units) + e->unit > UNITS_BYTES) {
        drop_oldest(units);
    }
    *find_empty(units) = (struct unit){e->start, e->at, e->unit, data, ++units->clock};
    g_mutex_unlock(&units->lock);
}

int units_read(struct units *units, struct file *file, const struct extent *e, uint64_t skip,
               void *to, uint64_t n)
{
    if (skip > e->unit || n > e->unit - skip) {
        return -EIO;
    }
    if (n == e->unit) {
        return unpack(file, e, to);
    }
    if (read_kept(units, e, skip, to, n)) {
        return 0;
    }
    uint8_t *data = e->unit <= UNIT_MAX ? g_try_malloc(e->unit) : NULL;
    int r = data ? unpack(file, e, data) : -ENOMEM;
    if (r < 0) {
        g_free(data);
        return r;
    }
    memcpy(to, data + skip, n);
    keep(units, e, data);
    return 0;
}

void units_forget(struct units *units, uint64_t offset, uint64_t n)
{
    g_mutex_lock(&units->lock);
    for (unsigned i = 0; i < UNITS_KEPT; i++) {
        struct unit *u = &units->kept[i];
        if (u->bytes && u->start < offset + n && offset < u->start + u->bytes) {
            g_clear_pointer(&u->data, g_free);
            *u = (struct unit){0};
        }
    }
    g_mutex_unlock(&units->lock);
}

void units_clear(struct units *units)
{
    units_forget(units, 0, UINT64_MAX);
}
