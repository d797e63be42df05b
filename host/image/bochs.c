/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * bochs: growing disks of the Bochs emulator ("redolog"), reading only.
 *
 * A catalog has a number for each extent of the disk; the extent lies behind a bitmap of the
 * sectors in it that were ever written.
 *
 * Spec: Bochs 2.7, iodev/hdimage/hdimage.h, redolog_header_t; Bochs Developers Guide, section
 * "About the different disk image modes".
 */
#include "base/bytes.h"
#include "host/image/format.h"
#include "host/image/tables.h"

#include <inttypes.h>
#include <string.h>

enum {
    HEADER = 104, SECTOR = 512, ENTRY = 4, NONE = -1,
    TYPE_AT = 32, SUBTYPE_AT = 48, NAME = 16, VERSION_AT = 64, HEADER_AT = 68, EXTRA_AT = 72,
    VERSION_1 = 0x10000, VERSION_2 = 0x20000,
    CATALOG_MAX = 0x100000, EXTENT_MAX = 0x800000, PAGE = 4096,
};

static const char magic[32] = "Bochs Virtual HD Image";

struct bochs {
    uint64_t catalog_at, data_at;
    uint32_t entries;
    uint32_t extent;        /* guest bytes */
    uint32_t bitmap_blocks; /* sectors in front of each extent */
    struct tables *tables;
};

static unsigned bochs_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)file_name;
    return n >= HEADER && !memcmp(head, magic, sizeof(magic)) ? 100 : 0;
}

/* A fixed field as text for messages. */
static char *shown(const uint8_t *field)
{
    g_autofree char *text = g_strndup((const char *)field, NAME);
    return g_strescape(text, NULL);
}

static bool check_kind(const uint8_t *h, GError **error)
{
    if (memcmp(h, magic, sizeof(magic))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Image not in Bochs format");
        return false;
    }
    g_autofree char *type = shown(h + TYPE_AT), *subtype = shown(h + SUBTYPE_AT);
    uint32_t version = le32_at(h + VERSION_AT);
    if (strcmp(type, "Redolog") || strcmp(subtype, "Growing")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Bochs images of type \"%s\", \"%s\" are not "
                    "supported, only \"Redolog\", \"Growing\"", type, subtype);
        return false;
    }
    if (version != VERSION_1 && version != VERSION_2) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unsupported Bochs version 0x%x", version);
        return false;
    }
    return true;
}

static bool check_sizes(const struct bochs *b, uint64_t size, uint32_t bitmap, uint64_t file,
                        GError **error)
{
    if (b->entries > CATALOG_MAX) {
        g_set_error(error, LODGE_ERROR, EFBIG, "Catalog size %u is too large", b->entries);
    } else if (b->extent < SECTOR || b->extent & (b->extent - 1)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Extent size %u is not a power of two of at least %d", b->extent, SECTOR);
    } else if (b->extent > EXTENT_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Extent size %u is too large", b->extent);
    } else if (bitmap < (b->extent / SECTOR + 7) / 8 || bitmap > EXTENT_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Bitmap size %u does not fit extents of %u bytes",
                    bitmap, b->extent);
    } else if (size / b->extent + (size % b->extent != 0) > b->entries) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Catalog size %u is too small for %" PRIu64 " bytes",
                    b->entries, size);
    } else if (b->catalog_at < HEADER - 4 || b->data_at > file) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Catalog at byte %" PRIu64 " does not lie inside the file of %" PRIu64 " bytes",
                    b->catalog_at, file);
    } else {
        return true;
    }
    return false;
}

static bool bochs_open(struct node *node, unsigned flags, GError **error)
{
    uint8_t h[HEADER] = {0};
    (void)flags;
    int r = file_read(node->file, 0, h, sizeof(h));
    if (r < 0) {
        error_set_errno(error, -r, "Cannot read the header");
        return false;
    }
    if (!check_kind(h, error)) {
        return false;
    }
    bool second = le32_at(h + VERSION_AT) == VERSION_2; /* has a time before the size */
    uint32_t bitmap = le32_at(h + EXTRA_AT + 4);
    struct bochs *b = node->priv = g_new0(struct bochs, 1);
    *b = (struct bochs){.catalog_at = le32_at(h + HEADER_AT),
                        .entries = le32_at(h + EXTRA_AT),
                        .extent = le32_at(h + EXTRA_AT + 8),
                        .bitmap_blocks = bitmap / SECTOR + (bitmap % SECTOR != 0)};
    b->data_at = b->catalog_at + (uint64_t)b->entries * ENTRY;
    node->size = le64_at(h + EXTRA_AT + (second ? 16 : 12)) & ~(uint64_t)(SECTOR - 1);
    if (!check_sizes(b, node->size, bitmap, file_size(node->file), error)) {
        return false;
    }
    b->tables = tables_new(node->file, PAGE, NULL, NULL);
    return true;
}

static void bochs_close(struct node *node)
{
    struct bochs *b = node->priv;
    if (b) {
        tables_free(b->tables);
        g_free(b);
        node->priv = NULL;
    }
}

/* Whether sector @s of the extent whose bitmap is at @bitmap_at was written. */
static int was_written(struct bochs *b, uint64_t bitmap_at, uint64_t s, bool wait, bool *yes)
{
    uint8_t *p;
    int r = tables_at(b->tables, bitmap_at + s / 8, wait, &p);
    *yes = r == 0 && (*p >> s % 8 & 1);
    return r;
}

static int map_extent(struct bochs *b, uint64_t bitmap_at, uint64_t in, uint64_t length, bool wait,
                      struct extent *out)
{
    uint64_t s = in / SECTOR, n = 1, want = (in % SECTOR + length + SECTOR - 1) / SECTOR;
    bool first, next;
    int r = was_written(b, bitmap_at, s, wait, &first);
    while (r == 0 && n < want && was_written(b, bitmap_at, s + n, wait, &next) == 0 &&
           next == first) {
        n++;
    }
    *out = (struct extent){.kind = first ? EXTENT_DATA : EXTENT_ZERO,
                           .length = MIN(length, n * SECTOR - in % SECTOR),
                           .at = first ? bitmap_at + (uint64_t)b->bitmap_blocks * SECTOR + in : 0};
    return r;
}

static int bochs_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                     struct extent *out)
{
    struct bochs *b = node->priv;
    uint64_t in = offset % b->extent;
    uint8_t *p;
    length = MIN(length, b->extent - in);
    *out = (struct extent){.kind = EXTENT_ZERO, .length = length};
    int r = tables_at(b->tables, b->catalog_at + offset / b->extent * ENTRY, wait, &p);
    uint32_t entry = r == 0 ? le32_at(p) : 0;
    if (r < 0 || entry == (uint32_t)NONE) {
        return r;
    }
    uint64_t step = (b->extent / SECTOR + (uint64_t)b->bitmap_blocks) * SECTOR;
    return map_extent(b, b->data_at + entry * step, in, length, wait, out);
}

const struct image_format format_bochs = {
    .name = "bochs",
    .about = "growing disks of the Bochs emulator, reading only",
    .spec = "Bochs 2.7, redolog_header_t",
    .probe = bochs_probe,
    .open = bochs_open,
    .close = bochs_close,
    .map = bochs_map,
};
