/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * cow: QEMU's first copy-on-write format, version 2.
 *
 * A bitmap says which sectors are in this file, each at its own place behind the bitmap; all
 * others are in the backing file.  The header is a C structure that was never packed: its
 * numbers lie where the compiler of a 64-bit or of a 32-bit machine has put them.
 *
 * Spec: QEMU 2.1, block/cow.c, struct cow_header_v2; Linux, arch/um/drivers/cow_user.c, for the
 * layouts of User-mode Linux, which have the same magic.
 */
#include "base/bytes.h"
#include "host/image/format.h"
#include "host/image/tables.h"

#include <inttypes.h>
#include <string.h>

enum {
    SECTOR = 512, NAME_AT = 8, NAME = 1024, VERSION = 2,
    HEAD = 4132, /* of the longest layout that we tell apart */
    LONGEST_RUN = 64 << 20,
};

static const uint32_t magic = 0x4f4f4f4d; /* "OOOM" */

struct layout {
    const char *what; /* NULL: ours */
    uint32_t size_at, sector_at, header;
};

static const struct layout layouts[] = {
    {NULL, 1040, 1048, 1056}, /* 64-bit hosts */
    {NULL, 1036, 1044, 1048}, /* i386 */
    {"User-mode Linux, 64-bit", 4112, 4120, 4128},
    {"User-mode Linux, 32-bit", 4108, 4116, 4120},
};

struct cow {
    struct node *node;
    uint64_t bitmap_at, data_at;
    struct tables *bitmap;
};

static unsigned cow_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)file_name;
    return n >= 8 && be32_at(head) == magic && be32_at(head + 4) >= 1 && be32_at(head + 4) <= 3
               ? 100 : 0;
}

/* ---- opening ---- */

static uint64_t bitmap_bytes(uint64_t size)
{
    return (size / SECTOR + (size % SECTOR != 0) + 7) / 8;
}

/* Whether @h, @n bytes of the file, fits @l: sectors of 512 bytes and room for the bitmap. */
static bool fits(const struct layout *l, const uint8_t *h, size_t n, uint64_t file)
{
    return n >= l->header && be32_at(h + l->sector_at) == SECTOR && file >= l->header &&
           bitmap_bytes(be64_at(h + l->size_at)) <= file - l->header;
}

static const struct layout *find_layout(const uint8_t *h, size_t n, uint64_t file)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(layouts); i++) {
        if (fits(&layouts[i], h, n, file)) {
            return &layouts[i];
        }
    }
    return NULL;
}

static const struct layout *choose_layout(const uint8_t *h, size_t n, uint64_t file, GError **error)
{
    uint32_t version = be32_at(h + 4);
    if (be32_at(h) != magic) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Image is not in COW format");
        return NULL;
    }
    if (version != VERSION) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unsupported COW version %u%s", version,
                    version == 1 || version == 3 ? " (User-mode Linux)" : "");
        return NULL;
    }
    const struct layout *l = find_layout(h, n, file);
    if (!l) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "COW header has no sector size of %d or its bitmap is behind the end of the "
                    "file of %" PRIu64 " bytes",
                    SECTOR, file);
    } else if (l->what) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "COW layout of %s is not supported", l->what);
        l = NULL;
    }
    return l;
}

static int cow_flush(struct node *node)
{
    struct cow *c = node->priv;
    int r = file_flush(node->file);
    if (r == 0 && tables_dirty(c->bitmap)) {
        r = tables_write(c->bitmap);
        r = r ? r : file_flush(node->file);
    }
    return r;
}

static int clean(void *owner)
{
    return cow_flush(owner);
}

static bool read_backing_name(struct node *node, const uint8_t *h, GError **error)
{
    if (!memchr(h + NAME_AT, 0, NAME)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "COW backing file name is not NUL terminated");
        return false;
    }
    node->backing_name = h[NAME_AT] ? g_strdup((const char *)h + NAME_AT) : NULL;
    return true;
}

static bool cow_open(struct node *node, unsigned flags, GError **error)
{
    uint8_t h[HEAD] = {0};
    uint64_t file = file_size(node->file);
    size_t n = (size_t)MIN(file, HEAD);
    (void)flags;
    int r = file_read(node->file, 0, h, n);
    if (r < 0) {
        error_set_errno(error, -r, "Cannot read the header");
        return false;
    }
    const struct layout *l = choose_layout(h, n, file, error);
    if (!l || !read_backing_name(node, h, error)) {
        return false;
    }
    uint64_t size = be64_at(h + l->size_at);
    if (size > INT64_MAX - (64 << 20)) {
        g_set_error(error, LODGE_ERROR, EFBIG, "COW image size %" PRIu64 " is too large", size);
        return false;
    }
    struct cow *c = node->priv = g_new0(struct cow, 1);
    *c = (struct cow){.node = node, .bitmap_at = l->header};
    c->data_at = (l->header + bitmap_bytes(size) + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    c->bitmap = tables_new(node->file, SECTOR, clean, node);
    node->size = size;
    node->granule = SECTOR;
    return true;
}

static void cow_close(struct node *node)
{
    struct cow *c = node->priv;
    if (c) {
        if (!node->read_only) {
            cow_flush(node);
        }
        tables_free(c->bitmap);
        g_free(c);
        node->priv = NULL;
    }
}

/* ---- the data path ---- */

/* The byte of the bitmap that has sector @s, and how many bytes its page goes on. */
static int bits_at(struct cow *c, uint64_t s, bool wait, uint8_t **p, uint64_t *left)
{
    uint64_t at = c->bitmap_at + s / 8;
    *left = SECTOR - at % SECTOR;
    return tables_at(c->bitmap, at, wait, p);
}

/* Sectors from @s on, at most @most, with a bit like @first's: as far as one page says. */
static uint64_t run_of_bits(const uint8_t *p, uint64_t left, unsigned bit, uint64_t most)
{
    bool set = p[0] >> bit & 1;
    uint8_t all = set ? 0xff : 0;
    uint64_t n = 0;
    most = MIN(most, left * 8 - bit);
    while (n < most) {
        uint64_t i = bit + n;
        if (i % 8 == 0 && p[i / 8] == all) {
            n += 8;
        } else if ((p[i / 8] >> i % 8 & 1) == set) {
            n++;
        } else {
            break;
        }
    }
    return MIN(n, most);
}

static int cow_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                   struct extent *out)
{
    struct cow *c = node->priv;
    uint64_t s = offset / SECTOR, in = offset % SECTOR, left;
    uint64_t want = (in + length + SECTOR - 1) / SECTOR, n = 0;
    bool set = false;
    while (n < want && n < LONGEST_RUN / SECTOR) {
        uint8_t *p;
        int r = bits_at(c, s + n, wait && !n, &p, &left);
        if (r < 0 && !n) {
            return r;
        }
        unsigned bit = (s + n) % 8;
        if (r < 0 || (n && (p[0] >> bit & 1) != set)) {
            break;
        }
        set = p[0] >> bit & 1;
        uint64_t more = run_of_bits(p, left, bit, want - n);
        n += more;
        if (more < left * 8 - bit) {
            break; /* the page does not go on like this */
        }
    }
    *out = (struct extent){.kind = set ? EXTENT_DATA : EXTENT_ABSENT,
                           .length = MIN(length, n * SECTOR - in),
                           .at = set ? c->data_at + offset : 0, .in_place = true};
    return 0;
}

/* A sector has one place, used or not. */
static int cow_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    const struct cow *c = node->priv;
    int r = cow_map(node, offset, length, true, out);
    if (r == 0 && out->kind == EXTENT_ABSENT) {
        *out = (struct extent){.kind = EXTENT_DATA, .length = out->length,
                               .at = c->data_at + offset, .fresh = true};
    }
    return r;
}

static int set_bits(struct cow *c, uint64_t s, uint64_t n)
{
    int r = 0;
    while (r == 0 && n) {
        uint64_t at = c->bitmap_at + s / 8, left;
        uint8_t *p;
        unsigned bit = s % 8, some = (unsigned)MIN(n, 8 - bit);
        r = bits_at(c, s, true, &p, &left);
        if (r == 0) {
            *p |= (uint8_t)(((1u << some) - 1) << bit);
            tables_changed(c->bitmap, at, 1);
        }
        s += some;
        n -= some;
    }
    return r;
}

static int cow_link(struct node *node, uint64_t offset, const struct extent *placed)
{
    return set_bits(node->priv, offset / SECTOR, (placed->length + SECTOR - 1) / SECTOR);
}

static void cow_unplace(struct node *node, uint64_t offset, const struct extent *placed)
{
    (void)node, (void)offset, (void)placed; /* the place was the sector's before, too */
}

/* There is no mark for zero: sectors that are absent are zero only if nothing is below. */
static int cow_zero(struct node *node, uint64_t offset, uint64_t length, enum zero_kind kind)
{
    int r = kind == ZERO_ABSENT ? -ENOTSUP : 0;
    while (r == 0 && length) {
        struct extent e;
        r = cow_map(node, offset, length, true, &e);
        if (r == 0 && e.kind == EXTENT_DATA) {
            r = file_zero(node->file, e.at, e.length, kind != ZERO_KEEP);
        } else if (r == 0 && node->backing) {
            r = -ENOTSUP;
        }
        offset += e.length;
        length -= e.length;
    }
    return r;
}

/* ---- create ---- */

static const struct option_desc create_options[] = {
    {"backing_file", "str", "File name of a base image", NULL},
    {"backing_fmt", "str", "Must match the backing file's format", NULL},
    {0},
};

static bool create(const struct image_create *how, GError **error)
{
    const struct layout *l = &layouts[0];
    uint8_t h[1056] = {0};
    const char *backing = how->backing_name ? how->backing_name : "";
    if (strlen(backing) >= NAME) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Backing file name of %zu bytes is too long",
                    strlen(backing));
        return false;
    }
    be32_put(h, magic);
    be32_put(h + 4, VERSION);
    memcpy(h + NAME_AT, backing, strlen(backing)); /* its mtime stays 0: nobody looks at it */
    be64_put(h + l->size_at, how->size);
    be32_put(h + l->sector_at, SECTOR);
    uint64_t bitmap = bitmap_bytes(how->size);
    int r = file_write(how->file, 0, h, sizeof(h));
    r = r || !bitmap ? r : file_zero(how->file, sizeof(h), bitmap, false);
    if (r < 0) {
        error_set_errno(error, -r, "Cannot write the header");
    }
    return r == 0;
}

static const struct format_tools tools = {
    .create_options = create_options,
    .create = create,
};

const struct image_format format_cow = {
    .name = "cow",
    .about = "QEMU's first copy-on-write format, version 2",
    .spec = "QEMU 2.1, struct cow_header_v2",
    .probe = cow_probe,
    .open = cow_open,
    .close = cow_close,
    .map = cow_map,
    .place = cow_place,
    .link = cow_link,
    .unplace = cow_unplace,
    .zero = cow_zero,
    .flush = cow_flush,
    .tools = &tools,
};
