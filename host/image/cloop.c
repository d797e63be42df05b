/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * cloop: compressed loop devices as Knoppix has them, version 2, reading only.
 *
 * Spec: cloop 3.14, compressed_loop.h, struct cloop_head: a shell script of 128 bytes, the size
 * of a block and their number, the offset of each block and of the end, zlib streams.
 */
#include "base/bytes.h"
#include "host/image/codec.h"
#include "host/image/format.h"
#include "host/image/tables.h"

#include <inttypes.h>
#include <string.h>

enum {
    HEADER = 136, ENTRY = 8, SECTOR = 512, PAGE = 4096, STEP = 64 << 10,
    BLOCK_MAX = 64 << 20, TABLE_MAX = 512 << 20,
};

static const char magic[] = "#!/bin/sh\n#V2.0 Format\n";

struct cloop {
    uint32_t block, blocks;
    struct tables *offsets;
};

static unsigned cloop_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)file_name;
    return n >= HEADER && !memcmp(head, magic, strlen(magic)) ? 100 : 0;
}

static bool check_sizes(const struct cloop *c, uint64_t file, GError **error)
{
    if (!c->block || c->block % SECTOR) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "block_size %u must be a multiple of %d and not zero", c->block, SECTOR);
    } else if (c->block > BLOCK_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "block_size %u must be %d MB or less", c->block,
                    BLOCK_MAX >> 20);
    } else if ((c->blocks + UINT64_C(1)) * ENTRY > TABLE_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "n_blocks %u requires too many offsets, try increasing block size", c->blocks);
    } else if (HEADER + (c->blocks + UINT64_C(1)) * ENTRY > file) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "n_blocks %u: the offsets do not lie inside the file of %" PRIu64 " bytes",
                    c->blocks, file);
    } else {
        return true;
    }
    return false;
}

/* @offset is what the table has at @i, @*last what it had before. */
static bool check_offset(const struct cloop *c, uint64_t i, uint64_t offset, uint64_t *last,
                         uint64_t file, GError **error)
{
    uint64_t table_end = HEADER + (c->blocks + UINT64_C(1)) * ENTRY;
    if (i == 0 ? offset < table_end : offset < *last) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "offsets not monotonically increasing at index %" PRIu64
                    ", image file is corrupt",
                    i);
        return false;
    }
    if (i && offset - *last > 2 * (uint64_t)BLOCK_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "invalid compressed block size at index %" PRIu64 ", image file is corrupt", i);
        return false;
    }
    if (offset > file) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "offset %" PRIu64 " at index %" PRIu64 " is behind the end of the file", offset,
                    i);
        return false;
    }
    *last = offset;
    return true;
}

static bool check_offsets(const struct cloop *c, struct file *f, GError **error)
{
    g_autofree uint8_t *buf = g_malloc(STEP);
    uint64_t n = c->blocks + UINT64_C(1), last = 0, file = file_size(f);
    for (uint64_t i = 0; i < n; i++) {
        if (i % (STEP / ENTRY) == 0) {
            int r = file_read(f, HEADER + i * ENTRY, buf, (size_t)MIN(STEP, (n - i) * ENTRY));
            if (r < 0) {
                error_set_errno(error, -r, "Cannot read the offsets");
                return false;
            }
        }
        if (!check_offset(c, i, be64_at(buf + i % (STEP / ENTRY) * ENTRY), &last, file, error)) {
            return false;
        }
    }
    return true;
}

static bool cloop_open(struct node *node, unsigned flags, GError **error)
{
    uint8_t h[HEADER];
    (void)flags;
    int r = file_read(node->file, 0, h, sizeof(h));
    if (r < 0 || memcmp(h, magic, strlen(magic))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Image not in cloop version 2 format");
        return false;
    }
    struct cloop *c = node->priv = g_new0(struct cloop, 1);
    *c = (struct cloop){.block = be32_at(h + 128), .blocks = be32_at(h + 132)};
    if (!check_sizes(c, file_size(node->file), error) || !check_offsets(c, node->file, error)) {
        return false;
    }
    c->offsets = tables_new(node->file, PAGE, NULL, NULL);
    node->size = (uint64_t)c->block * c->blocks;
    return true;
}

static void cloop_close(struct node *node)
{
    struct cloop *c = node->priv;
    if (c) {
        tables_free(c->offsets);
        g_free(c);
        node->priv = NULL;
    }
}

static int offset_of(struct cloop *c, uint64_t i, bool wait, uint64_t *out)
{
    uint8_t *p;
    int r = tables_at(c->offsets, HEADER + i * ENTRY, wait, &p);
    *out = r == 0 ? be64_at(p) : 0;
    return r;
}

static int cloop_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                     struct extent *out)
{
    struct cloop *c = node->priv;
    uint64_t i = offset / c->block, at, end = 0;
    int r = offset_of(c, i, wait, &at);
    r = r ? r : offset_of(c, i + 1, wait, &end);
    if (r < 0) {
        return r;
    }
    if (end < at || end - at > 2 * (uint64_t)BLOCK_MAX) {
        return -EIO; /* the file has changed since */
    }
    *out = (struct extent){.kind = EXTENT_PACKED, .at = at, .stored = (uint32_t)(end - at),
                           .codec = &codec_zlib, .unit = c->block, .start = i * c->block,
                           .length = MIN(length, c->block - offset % c->block)};
    return 0;
}

const struct image_format format_cloop = {
    .name = "cloop",
    .about = "compressed loop devices, version 2, reading only",
    .spec = "cloop 3.14, struct cloop_head",
    .probe = cloop_probe,
    .open = cloop_open,
    .close = cloop_close,
    .map = cloop_map,
};
