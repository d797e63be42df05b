/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * dmg_table: the block tables of a dmg image, from its property list or resource fork.
 *
 * Spec: "Demystifying the DMG File Format" (newosxbook.com); Wikipedia, "Apple Disk Image",
 * section "UDIF data format".
 */
#include "host/image/dmg.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_HEADER = 204, CHUNK = 40, CHUNKS_MAX = 4 << 20,
    MISH_SECTOR = 8, MISH_DATA = 24, MISH_COUNT = 200,
};

static bool is_packed(enum dmg_type type)
{
    return type >= DMG_ADC && type <= DMG_LZMA;
}

static bool reserve(struct dmg_table *t, size_t more, GError **error)
{
    if (more > CHUNKS_MAX - t->n) {
        g_set_error(error, LODGE_ERROR, EFBIG, "more than %d chunks", CHUNKS_MAX);
        return false;
    }
    if (t->n + more > t->room) {
        size_t room = MAX(t->n + more, t->room * 2);
        void *bigger = g_try_realloc_n(t->chunks, room, sizeof(*t->chunks));
        if (!bigger) {
            g_set_error(error, LODGE_ERROR, ENOMEM, "no memory for %zu chunks", room);
            return false;
        }
        t->chunks = bigger;
        t->room = room;
    }
    return true;
}

/* What the chunk says must lie inside the file and be small enough to be unpacked. */
static bool check_chunk(const struct dmg_table *t, enum dmg_type type, uint64_t sector,
                        uint64_t sectors, uint64_t at, uint64_t stored, GError **error)
{
    bool packed = is_packed(type), data = packed || type == DMG_RAW;
    if (sector > INT64_MAX / DMG_SECTOR || sectors > INT64_MAX / DMG_SECTOR - sector) {
        g_set_error(error, LODGE_ERROR, EINVAL, "chunk of %" PRIu64 " sectors at sector %" PRIu64
                    " is too large", sectors, sector);
    } else if (sectors > UINT32_MAX || (packed && sectors > DMG_UNIT_MAX / DMG_SECTOR)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "sector count %" PRIu64 " for chunk at sector %" PRIu64 " is larger than max",
                    sectors, sector);
    } else if (data && (at > t->file_size || stored > t->file_size - at)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "chunk of %" PRIu64 " bytes at byte %" PRIu64
                    " does not lie inside the file of %" PRIu64 " bytes", stored, at, t->file_size);
    } else if (packed && stored > DMG_UNIT_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "length %" PRIu64
                    " for chunk at sector %" PRIu64 " is larger than max", stored, sector);
    } else if (type == DMG_RAW && stored < sectors * DMG_SECTOR) {
        g_set_error(error, LODGE_ERROR, EINVAL, "raw chunk at sector %" PRIu64 " has %" PRIu64
                    " bytes for %" PRIu64 " sectors", sector, stored, sectors);
    } else {
        return true;
    }
    return false;
}

static bool add_chunk(struct dmg_table *t, const uint8_t *c, uint64_t first, uint64_t data_at,
                      GError **error)
{
    enum dmg_type type = (enum dmg_type)(int32_t)be32_at(c);
    uint64_t sector = be64_at(c + 8) + first, sectors = be64_at(c + 16);
    uint64_t at = be64_at(c + 24) + data_at, stored = be64_at(c + 32);
    if (type == DMG_COMMENT || type == DMG_END || !sectors) {
        return true;
    }
    if (type != DMG_ZERO && type != DMG_RAW && type != DMG_IGNORE && !is_packed(type)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "chunk type 0x%x is not supported", be32_at(c));
        return false;
    }
    if (!check_chunk(t, type, sector, sectors, at, stored, error)) {
        return false;
    }
    t->chunks[t->n++] = (struct dmg_chunk){.sector = sector, .sectors = (uint32_t)sectors,
                                           .at = at, .stored = (uint32_t)MIN(stored, UINT32_MAX),
                                           .type = type};
    return true;
}

bool dmg_add_block(struct dmg_table *t, const uint8_t *block, size_t n, GError **error)
{
    if (n < BLOCK_HEADER || memcmp(block, "mish", 4)) {
        return true; /* a checksum or a partition's name */
    }
    uint32_t count = be32_at(block + MISH_COUNT);
    if (count > (n - BLOCK_HEADER) / CHUNK) {
        g_set_error(error, LODGE_ERROR, EINVAL, "block table of %zu bytes has no room for %u chunks",
                    n, count);
        return false;
    }
    bool ok = reserve(t, count, error);
    uint64_t first = be64_at(block + MISH_SECTOR), data_at = be64_at(block + MISH_DATA) + t->data_at;
    for (uint32_t i = 0; ok && i < count; i++) {
        ok = add_chunk(t, block + BLOCK_HEADER + (size_t)i * CHUNK, first, data_at, error);
    }
    return ok;
}

/* ---- where the blocks are ---- */

/* Base64 between two tags, in place. */
static bool add_base64(struct dmg_table *t, char *text, GError **error)
{
    gsize n = 0;
    if (!*text) {
        return true;
    }
    g_base64_decode_inplace(text, &n);
    return dmg_add_block(t, (const uint8_t *)text, n, error);
}

bool dmg_add_property_list(struct dmg_table *t, char *xml, size_t n, GError **error)
{
    static const char open[] = "<data>", close[] = "</data>";
    char *at = xml, *end = xml + n;
    bool any = false;
    while ((at = memmem(at, (size_t)(end - at), open, strlen(open)))) {
        at += strlen(open);
        char *stop = memmem(at, (size_t)(end - at), close, strlen(close));
        if (!stop) {
            break;
        }
        *stop = 0;
        if (!add_base64(t, at, error)) {
            return false;
        }
        any = true;
        at = stop + 1;
    }
    if (!any) {
        g_set_error(error, LODGE_ERROR, EINVAL, "property list of %zu bytes has no <data>", n);
    }
    return any;
}

/* A length, the bytes, the next length, ... in the data part of the fork. */
bool dmg_add_resources(struct dmg_table *t, const uint8_t *fork, size_t n, GError **error)
{
    uint64_t at = n < 16 ? 0 : be32_at(fork), length = n < 16 ? 0 : be32_at(fork + 8);
    if (at < 16 || at > n || length > n - at) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "resources of %" PRIu64 " bytes at byte %" PRIu64
                    " do not lie inside the resource fork of %zu bytes",
                    length, at, n);
        return false;
    }
    for (uint64_t end = at + length; end - at >= 4;) {
        uint64_t one = be32_at(fork + at);
        at += 4;
        if (one > end - at) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "resource of %" PRIu64 " bytes is longer than the resource fork", one);
            return false;
        }
        if (!dmg_add_block(t, fork + at, one, error)) {
            return false;
        }
        at += one;
    }
    return true;
}

/* ---- looking up ---- */

static int by_sector(const void *a, const void *b)
{
    const struct dmg_chunk *x = a, *y = b;
    return x->sector < y->sector ? -1 : x->sector > y->sector;
}

void dmg_sort(struct dmg_table *t)
{
    if (t->n) {
        qsort(t->chunks, t->n, sizeof(*t->chunks), by_sector);
    }
}

const struct dmg_chunk *dmg_find(const struct dmg_table *t, uint64_t sector)
{
    size_t low = 0, high = t->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (t->chunks[middle].sector <= sector) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low ? &t->chunks[low - 1] : NULL;
}
