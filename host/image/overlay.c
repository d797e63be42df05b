/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * overlay: what a guest writes with snapshot=on, for as long as we run.
 *
 * A sparse temporary file holds written sectors at their own offsets, and a bitmap in
 * memory says which those are.  The bitmap is address space that only takes memory where
 * the guest wrote: 32 KiB for each GiB that was touched throughout.
 */
#include "host/image/core.h"
#include "host/image/protocol.h"

#include <sys/mman.h>

enum { SECTOR = 512, SECTOR_BITS = 9 };

struct overlay {
    uint64_t *written; /* a bit a sector */
    size_t bytes;
};

static bool overlay_open(struct node *node, unsigned flags, GError **error)
{
    (void)flags;
    uint64_t sectors = (node->backing->size + SECTOR - 1) >> SECTOR_BITS;
    size_t bytes = (size_t)((sectors + 63) / 64 * 8);
    void *map = mmap(NULL, MAX(bytes, 8), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        error_set_errno(error, errno, "bitmap of %" G_GUINT64_FORMAT " sectors", sectors);
        return false;
    }
    struct overlay *o = g_new0(struct overlay, 1);
    o->written = map;
    o->bytes = MAX(bytes, 8);
    node->priv = o;
    node->size = node->backing->size;
    node->granule = SECTOR;
    return true;
}

static void overlay_close(struct node *node)
{
    struct overlay *o = node->priv;
    if (o) {
        munmap(o->written, o->bytes);
    }
    g_clear_pointer(&node->priv, g_free);
}

static bool is_written(const struct overlay *o, uint64_t sector)
{
    return o->written[sector / 64] >> sector % 64 & 1;
}

/* The first sector in [@from, @end) whose bit is not @bit; whole words at a time. */
static uint64_t run_end(const struct overlay *o, uint64_t from, uint64_t end, bool bit)
{
    uint64_t same = bit ? UINT64_MAX : 0;
    while (from < end) {
        if (from % 64 == 0 && o->written[from / 64] == same) {
            from = MIN(from + 64, end);
        } else if (is_written(o, from) == bit) {
            from++;
        } else {
            break;
        }
    }
    return from;
}

static int overlay_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                       struct extent *out)
{
    const struct overlay *o = node->priv;
    uint64_t first = offset >> SECTOR_BITS, end = (offset + length + SECTOR - 1) >> SECTOR_BITS;
    bool bit = is_written(o, first);
    (void)wait;
    uint64_t stop = run_end(o, first, end, bit) << SECTOR_BITS;
    *out = (struct extent){
        .kind = bit ? EXTENT_DATA : EXTENT_ABSENT,
        .length = MIN(stop, offset + length) - offset,
        .at = offset,
        .in_place = bit,
    };
    return 0;
}

static int overlay_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    overlay_map(node, offset, length, true, out);
    out->fresh = out->kind == EXTENT_ABSENT;
    out->kind = EXTENT_DATA;
    return 0;
}

static int overlay_link(struct node *node, uint64_t offset, const struct extent *placed)
{
    struct overlay *o = node->priv;
    uint64_t at = offset >> SECTOR_BITS;
    uint64_t end = (offset + placed->length + SECTOR - 1) >> SECTOR_BITS;
    while (at < end) {
        if (at % 64 == 0 && end - at >= 64) {
            o->written[at / 64] = UINT64_MAX;
            at += 64;
        } else {
            o->written[at / 64] |= UINT64_C(1) << at % 64;
            at++;
        }
    }
    return 0;
}

const struct image_format format_overlay = {
    .name = "overlay",
    .about = "temporary changes over another image (snapshot=on)",
    .open = overlay_open,
    .close = overlay_close,
    .map = overlay_map,
    .place = overlay_place,
    .link = overlay_link,
};

struct node *node_overlay(struct node *base, GError **error)
{
    struct file *file = file_temporary(base->size, error);
    if (!file) {
        return NULL;
    }
    struct node *n = node_new(&format_overlay, file);
    n->backing = base;
    n->core->opened = true;
    if (!format_overlay.open(n, 0, error)) {
        node_close(n);
        return NULL;
    }
    return n;
}
