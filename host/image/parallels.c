/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * parallels: expanding disks of Parallels Desktop.
 *
 * One table with an entry a cluster.  A cluster need not be a power of two, so new ones are
 * put at the end of the file as zeroes and filled in place.  The table is written after the
 * data has been flushed; while somebody writes, the header says "in use".
 *
 * Spec: QEMU documentation, "Parallels Expandable Image File Format", sections "Header",
 * "Block Allocation Table", "Data area".
 */
#include "base/bytes.h"
#include "host/image/format.h"
#include "host/image/options.h"
#include "host/image/tables.h"

#include <inttypes.h>
#include <string.h>

enum {
    HEADER = 64, ENTRY = 4, SECTOR = 512, VERSION = 2,
    HEADS = 16, TRACK_SECTORS = 32, /* what a new image says of its geometry */
    CLUSTER = 1 << 20, TRACKS_MAX = INT32_MAX / 513,
    INUSE_AT = 44, COPY = 64 << 10,
    CLUSTERS_MAX = 1 << 30, /* for a check */
};

static const char magic_old[] = "WithoutFreeSpace", magic_new[] = "WithouFreSpacExt";
static const uint32_t inuse_magic = 0x746f6e59;
static const uint64_t extension_magic = UINT64_C(0xab234cef23dcea87);

struct parallels {
    struct node *node;
    uint32_t cluster; /* bytes */
    uint32_t unit;    /* bytes that an entry of the table counts in */
    uint32_t entries;
    uint64_t data_at; /* first byte that may hold data */
    uint64_t end;     /* where the next cluster goes */
    bool inuse;       /* as the header in the file says */
    bool unclean;     /* it said so when we opened it: nobody closed it */
    struct tables *table;
};

static unsigned parallels_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)file_name;
    return n >= HEADER && (!memcmp(head, magic_old, 16) || !memcmp(head, magic_new, 16)) &&
                   le32_at(head + 16) == VERSION
               ? 100 : 0;
}

static int write_inuse(struct parallels *p, bool on)
{
    uint8_t v[4];
    le32_put(v, on ? inuse_magic : 0);
    int r = file_write(p->node->file, INUSE_AT, v, sizeof(v));
    r = r ? r : file_flush(p->node->file);
    p->inuse = r == 0 ? on : p->inuse;
    return r;
}

static bool check(struct node *node, unsigned fix, struct check_result *out, GError **error);

/* First the data, then the table. */
static int parallels_flush(struct node *node)
{
    struct parallels *p = node->priv;
    int r = file_flush(node->file);
    if (r == 0 && tables_dirty(p->table)) {
        r = tables_write(p->table);
        r = r ? r : file_flush(node->file);
    }
    return r;
}

static int clean(void *owner)
{
    return parallels_flush(owner);
}

/* ---- opening ---- */

static bool read_geometry(struct node *node, const uint8_t *h, GError **error)
{
    struct parallels *p = node->priv;
    bool old = !memcmp(h, magic_old, 16);
    uint32_t tracks = le32_at(h + 28);
    uint64_t sectors = le64_at(h + 36), file = file_size(node->file);
    sectors = old ? (uint32_t)sectors : sectors;
    p->entries = le32_at(h + 32);
    if (!tracks || tracks > TRACKS_MAX) {
        g_set_error(error, LODGE_ERROR, EFBIG, "Invalid image: %u sectors per track", tracks);
    } else if (p->entries > INT32_MAX / ENTRY) {
        g_set_error(error, LODGE_ERROR, EFBIG, "Catalog too large: %u entries", p->entries);
    } else if ((uint64_t)p->entries * ENTRY + HEADER > file) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Catalog of %u entries does not lie inside the file of %" PRIu64 " bytes",
                    p->entries, file);
    } else if (sectors > INT64_MAX / SECTOR) {
        g_set_error(error, LODGE_ERROR, EFBIG, "Image size of %" PRIu64 " sectors is too large",
                    sectors);
    } else if (sectors / tracks + (sectors % tracks != 0) > p->entries) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Catalog of %u entries is too small for %" PRIu64 " sectors", p->entries,
                    sectors);
    } else {
        node->size = sectors * SECTOR;
        p->cluster = tracks * SECTOR;
        p->unit = old ? SECTOR : p->cluster;
        return true;
    }
    return false;
}

/* Old images do not say where their data starts. */
static bool read_data_start(struct node *node, const uint8_t *h, GError **error)
{
    struct parallels *p = node->priv;
    uint64_t table_end = HEADER + (uint64_t)p->entries * ENTRY;
    p->data_at = (uint64_t)le32_at(h + 48) * SECTOR;
    if (!p->data_at && p->unit == SECTOR) {
        p->data_at = (table_end + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    }
    if (p->data_at < table_end) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Data offset %" PRIu64 " lies inside the catalog, which ends at %" PRIu64,
                    p->data_at, table_end);
        return false;
    }
    return true;
}

/* What others keep there, dirty bitmaps, would not be true any more after a write. */
static bool check_extension(struct node *node, const uint8_t *h, GError **error)
{
    uint64_t sector = le64_at(h + 56);
    uint8_t m[8] = {0};
    if (!sector) {
        return true;
    }
    if (sector > INT64_MAX / SECTOR || file_read(node->file, sector * SECTOR, m, sizeof(m)) < 0 ||
        le64_at(m) != extension_magic) {
        g_set_error(error, LODGE_ERROR, EINVAL, "No format extension at sector %" PRIu64, sector);
        return false;
    }
    if (!node->read_only) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "Images with a format extension (at sector %" PRIu64
                    ") can only be opened read-only",
                    sector);
        return false;
    }
    return true;
}

/* Nobody closed it.  Only an image whose table is good is written as it is. */
static bool recover(struct node *node, unsigned flags, GError **error)
{
    struct parallels *p = node->priv;
    struct check_result result = {0};
    if (!p->unclean || node->read_only ||
        (flags & (OPEN_READ_ONLY | OPEN_NO_IO | OPEN_CHECK))) {
        return true;
    }
    p->unclean = false; /* the check must judge the rest */
    if (!check(node, FIX_LEAKS, &result, error)) {
        return false;
    }
    if (result.corruptions) {
        p->unclean = true;
        g_set_error(error, LODGE_ERROR, EACCES,
                    "Image was not closed correctly and has %" PRIu64
                    " errors; check -r all repairs it",
                    result.corruptions);
        return false;
    }
    return true;
}

static bool parallels_open(struct node *node, unsigned flags, GError **error)
{
    uint8_t h[HEADER];
    int r = file_read(node->file, 0, h, sizeof(h));
    if (r < 0 || (memcmp(h, magic_old, 16) && memcmp(h, magic_new, 16))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Image not in Parallels format");
        return false;
    }
    if (le32_at(h + 16) != VERSION) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unsupported Parallels version %u",
                    le32_at(h + 16));
        return false;
    }
    struct parallels *p = node->priv = g_new0(struct parallels, 1);
    p->node = node;
    p->unclean = p->inuse = le32_at(h + INUSE_AT) == inuse_magic;
    if (!read_geometry(node, h, error) || !read_data_start(node, h, error) ||
        !check_extension(node, h, error)) {
        return false;
    }
    p->table = tables_new(node->file, SECTOR, clean, node);
    p->end = MAX(file_size(node->file), p->data_at);
    node->granule = SECTOR;
    return recover(node, flags, error);
}

static void parallels_close(struct node *node)
{
    struct parallels *p = node->priv;
    if (!p) {
        return;
    }
    if (p->table && !node->read_only && parallels_flush(node) == 0 && p->inuse && !p->unclean) {
        write_inuse(p, false);
    }
    tables_free(p->table);
    g_free(p);
    node->priv = NULL;
}

/* ---- the data path ---- */

static uint64_t entry_at(uint64_t cluster)
{
    return HEADER + cluster * ENTRY;
}

/* Where cluster @n lies; 0: nowhere yet. */
static int look_up(struct parallels *p, uint64_t n, bool wait, uint64_t *at)
{
    uint8_t *e;
    int r = tables_at(p->table, entry_at(n), wait, &e);
    *at = r == 0 ? (uint64_t)le32_at(e) * p->unit : 0;
    return r == 0 && *at && *at < p->data_at ? -EIO : r;
}

static int parallels_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                         struct extent *out)
{
    struct parallels *p = node->priv;
    uint64_t n = offset / p->cluster, in = offset % p->cluster, at, next;
    int r = look_up(p, n, wait, &at);
    if (r < 0) {
        return r;
    }
    *out = (struct extent){.kind = at ? EXTENT_DATA : EXTENT_ABSENT, .at = at ? at + in : 0,
                           .in_place = true};
    uint64_t have = p->cluster - in;
    while (have < length) {
        r = look_up(p, ++n, false, &next); /* what is not at hand is the next call's */
        if (r < 0 || next != (at ? out->at + have : 0)) {
            break;
        }
        have += p->cluster;
    }
    out->length = MIN(length, have);
    return 0;
}

/* Makes cluster @n: zeroes at the end of the file. */
static int make_cluster(struct parallels *p, uint64_t n, uint64_t *at)
{
    struct file *file = p->node->file;
    uint8_t *e;
    int r = p->inuse ? 0 : write_inuse(p, true);
    *at = (p->end + p->unit - 1) / p->unit * p->unit;
    if (*at / p->unit > UINT32_MAX) {
        return -EFBIG;
    }
    r = r ? r : file_zero(file, *at, p->cluster, false);
    r = r ? r : tables_at(p->table, entry_at(n), true, &e);
    if (r == 0) {
        p->end = *at + p->cluster;
        le32_put(e, (uint32_t)(*at / p->unit));
        tables_changed(p->table, entry_at(n), ENTRY);
    }
    return r;
}

static int parallels_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    struct parallels *p = node->priv;
    uint64_t n = offset / p->cluster, in = offset % p->cluster, at;
    int r = look_up(p, n, true, &at);
    if (r == 0 && !at) {
        r = make_cluster(p, n, &at);
    }
    *out = (struct extent){.kind = EXTENT_DATA, .length = MIN(length, p->cluster - in),
                           .at = at + in, .in_place = true};
    return r;
}

/* Absent is zero; what is there is zeroed in place. */
static int parallels_zero(struct node *node, uint64_t offset, uint64_t length, enum zero_kind kind)
{
    int r = kind == ZERO_ABSENT ? -ENOTSUP : 0;
    while (r == 0 && length) {
        struct extent e;
        r = parallels_map(node, offset, length, true, &e);
        if (r == 0 && e.kind == EXTENT_DATA) {
            r = file_zero(node->file, e.at, e.length, kind != ZERO_KEEP);
        }
        offset += e.length;
        length -= e.length;
    }
    return r;
}

/* ---- whole images ---- */

static const struct option_desc create_options[] = {
    {"cluster_size", "size", "Bytes of a cluster", "1048576"},
    {0},
};

static bool check_create(uint64_t size, uint64_t cluster, GError **error)
{
    if (!cluster || cluster % SECTOR || cluster / SECTOR > TRACKS_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid cluster size %" PRIu64, cluster);
        return false;
    }
    if (size / cluster >= INT32_MAX / ENTRY) {
        g_set_error(error, LODGE_ERROR, EFBIG, "Image size is too big for this cluster size");
        return false;
    }
    return true;
}

static bool create(const struct image_create *how, GError **error)
{
    uint8_t h[HEADER] = {0};
    uint64_t cluster = option_size(how->options, "cluster_size", CLUSTER);
    uint64_t sectors = how->size / SECTOR + (how->size % SECTOR != 0);
    if (!check_create(how->size, cluster, error)) {
        return false;
    }
    uint64_t entries = how->size / cluster + (how->size % cluster != 0);
    uint64_t data_at = (HEADER + entries * ENTRY + cluster - 1) / cluster * cluster;
    memcpy(h, magic_new, 16);
    le32_put(h + 16, VERSION);
    le32_put(h + 20, HEADS);
    le32_put(h + 24, (uint32_t)MIN(sectors / HEADS / TRACK_SECTORS, UINT32_MAX));
    le32_put(h + 28, (uint32_t)(cluster / SECTOR));
    le32_put(h + 32, (uint32_t)entries);
    le64_put(h + 36, sectors);
    le32_put(h + 48, (uint32_t)(data_at / SECTOR));
    int r = file_zero(how->file, 0, data_at, false);
    r = r ? r : file_write(how->file, 0, h, sizeof(h));
    if (r < 0) {
        error_set_errno(error, -r, "Failed to create Parallels image");
    }
    return r == 0;
}

struct check {
    struct parallels *p;
    unsigned fix;
    struct check_result *out;
    uint8_t *used; /* a bit a cluster of the file from .data_at on */
    uint64_t file_end, highest, last;
};

/* NULL if the entry is good. */
static const char *find_fault(struct check *c, uint64_t at)
{
    struct parallels *p = c->p;
    uint64_t i = (at - p->data_at) / p->cluster;
    if (at < p->data_at || at >= c->file_end) {
        return "outside image";
    }
    if (c->used[i / 8] >> i % 8 & 1) {
        return "used twice";
    }
    c->used[i / 8] |= (uint8_t)(1u << i % 8);
    return NULL;
}

/* Two guest clusters in one place: each gets what was read there. */
static int copy_cluster(struct check *c, uint64_t n, uint64_t from)
{
    struct parallels *p = c->p;
    g_autofree uint8_t *buf = g_malloc(COPY);
    uint64_t to;
    int r = make_cluster(p, n, &to);
    for (uint64_t done = 0; r == 0 && done < p->cluster; done += COPY) {
        uint64_t at = from + done, end = file_size(p->node->file);
        size_t step = (size_t)MIN(p->cluster - done, COPY), there = at < end ? MIN(step, end - at) : 0;
        r = file_read(p->node->file, at, buf, there);
        r = r ? r : file_write(p->node->file, to + done, buf, there);
    }
    c->highest = p->end;
    return r;
}

static int check_entry(struct check *c, uint64_t n)
{
    struct parallels *p = c->p;
    uint8_t *e;
    int r = tables_at(p->table, entry_at(n), true, &e);
    uint64_t at = r == 0 ? (uint64_t)le32_at(e) * p->unit : 0;
    const char *fault = at ? find_fault(c, at) : NULL;
    if (fault) {
        check_tell(c->out, "%s cluster %" PRIu64 " at %" PRIu64 " is %s",
             c->fix & FIX_ERRORS ? "Repairing" : "ERROR", n, at, fault);
        c->out->corruptions += !(c->fix & FIX_ERRORS);
        c->out->corruptions_fixed += (c->fix & FIX_ERRORS) != 0;
        if ((c->fix & FIX_ERRORS) && at < c->file_end && at >= p->data_at) {
            r = copy_cluster(c, n, at);
        } else if (c->fix & FIX_ERRORS) {
            le32_put(e, 0);
            tables_changed(p->table, entry_at(n), ENTRY);
        }
    } else if (at) {
        c->out->allocated_clusters++;
        c->out->fragmented_clusters += c->last && at != c->last + p->cluster;
        c->last = at;
        c->highest = MAX(c->highest, at + p->cluster);
    }
    return r;
}

/* Space behind the last cluster. */
static int check_tail(struct check *c)
{
    uint64_t extra = c->file_end > c->highest ? c->file_end - c->highest : 0;
    uint64_t n = (extra + c->p->cluster - 1) / c->p->cluster;
    c->out->image_end_offset = c->highest;
    if (!n) {
        return 0;
    }
    check_tell(c->out, "%s space leaked at the end of the image %" PRIu64,
         c->fix & FIX_LEAKS ? "Repairing" : "ERROR", extra);
    if (!(c->fix & FIX_LEAKS)) {
        c->out->leaks += n;
        return 0;
    }
    int r = file_resize(c->p->node->file, c->highest);
    if (r == 0) {
        c->p->end = c->highest;
        c->out->leaks_fixed += n;
    }
    return r;
}

static int check_inuse(struct check *c)
{
    if (!c->p->unclean) {
        return 0;
    }
    check_tell(c->out, "%s image was not closed correctly", c->fix & FIX_ERRORS ? "Repairing" : "ERROR");
    if (!(c->fix & FIX_ERRORS)) {
        c->out->corruptions++;
        return 0;
    }
    int r = write_inuse(c->p, false);
    c->p->unclean = r < 0;
    c->out->corruptions_fixed += r == 0;
    return r;
}

static int run_check(struct check *c)
{
    int r = 0;
    for (uint64_t n = 0; r == 0 && n < c->out->total_clusters; n++) {
        r = check_entry(c, n);
    }
    r = r || !c->fix ? r : parallels_flush(c->p->node);
    r = r ? r : check_tail(c);
    return r ? r : check_inuse(c);
}

static bool check(struct node *node, unsigned fix, struct check_result *out, GError **error)
{
    struct parallels *p = node->priv;
    struct check c = {.p = p, .fix = fix, .out = out, .file_end = file_size(node->file),
                      .highest = p->data_at};
    uint64_t clusters = c.file_end / p->cluster + 1;
    c.used = clusters > CLUSTERS_MAX ? NULL : g_try_malloc0(clusters / 8 + 1);
    if (!c.used) {
        g_set_error(error, LODGE_ERROR, ENOMEM, "%" PRIu64 " clusters are too many to check",
                    clusters);
        return false;
    }
    out->total_clusters = node->size / p->cluster + (node->size % p->cluster != 0);
    int r = run_check(&c);
    g_free(c.used);
    if (r < 0) {
        error_set_errno(error, -r, "Cannot %s the catalog", fix ? "repair" : "read");
    }
    return r == 0;
}

static const struct format_tools tools = {
    .create_options = create_options,
    .create = create,
    .check = check,
};

const struct image_format format_parallels = {
    .name = "parallels",
    .about = "expanding disks of Parallels Desktop",
    .spec = "QEMU, Parallels Expandable Image File Format",
    .probe = parallels_probe,
    .open = parallels_open,
    .close = parallels_close,
    .map = parallels_map,
    .place = parallels_place,
    .zero = parallels_zero,
    .flush = parallels_flush,
    .tools = &tools,
};
