/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * vpc: VHD, the disk images of Virtual PC and Hyper-V, dynamic and fixed.
 *
 * Dynamic: a copy of the footer, a header, a table with the sector of each block, blocks each
 * behind a bitmap of its sectors, the footer.  Fixed: the disk, then the footer.
 * As QEMU does we take all sectors of a block for present, and see to it that the bitmap says
 * so before we write to one.  The footer at the end is overwritten by new blocks and written
 * again by flush; until then the copy in front stands for it.
 *
 * Spec: Microsoft, "Virtual Hard Disk Image Format Specification", version 1.0: "Hard Disk
 * Footer Format", "Dynamic Disk Header Format", "Block Allocation Table and Data Blocks",
 * "Appendix: CHS Calculation".
 */
#include "base/bytes.h"
#include "host/image/blocks.h"
#include "host/image/options.h"
#include "host/image/tables.h"

#include <string.h>
#include <time.h>

enum {
    SECTOR = 512,
    FOOTER_BYTES = 512,
    HEADER_BYTES = 1024,
    TABLE_AT = FOOTER_BYTES + HEADER_BYTES
};
enum { PAGE = 4096, ENTRIES = PAGE / 4, BLOCK_SHIFT = 21, MAX_SHIFT = 28 };
enum { DATA_ALIGN = 4096, FULL_BITS_MAX = 8 << 20 };
enum disk_type { TYPE_FIXED = 2, TYPE_DYNAMIC = 3, TYPE_DIFF = 4 };
enum { CHS_MAX_C = 65535, CHS_MAX_H = 16, CHS_MAX_S = 255 };

static const uint64_t CHS_MAX = (uint64_t)CHS_MAX_C * CHS_MAX_H * CHS_MAX_S;
static const uint64_t MAX_SECTORS = 0xff000000; /* 2,040 GiB */
static const uint32_t FREE = 0xffffffff;
static const time_t EPOCH = 946684800; /* 2000-01-01 00:00 UTC */

/* Byte offsets in the footer and the dynamic header; all numbers are big-endian. */
enum {
    F_FEATURES = 8,
    F_VERSION = 12,
    F_DATA = 16,
    F_TIME = 24,
    F_CREATOR = 28,
    F_CREATOR_VERSION = 32,
    F_CREATOR_OS = 36,
    F_ORIGINAL = 40,
    F_CURRENT = 48,
    F_CYLINDERS = 56,
    F_HEADS = 58,
    F_SECTORS = 59,
    F_TYPE = 60,
    F_SUM = 64,
    F_UUID = 68,
};
enum {
    H_DATA = 8,
    H_TABLE = 16,
    H_VERSION = 24,
    H_ENTRIES = 28,
    H_BLOCK = 32,
    H_SUM = 36,
    H_PARENT = 64
};

struct vpc {
    struct blocks blocks;
    struct tables *tables;
    uint8_t footer[FOOTER_BYTES], header[HEADER_BYTES];
    bool fixed, by_geometry; /* whose size is cylinders by heads by sectors */
    uint64_t table;          /* byte in the file */
    uint32_t n;              /* entries */
    uint32_t bitmap;         /* bytes in front of each block */
    uint64_t next;           /* byte where the next block may begin; valid if .next_known */
    bool next_known, footer_due;
    uint8_t *full; /* a bit for each block whose bitmap is known to be full; may be NULL */
};

static struct vpc *vpc_of(const struct node *node)
{
    return node->priv;
}

/* The ones' complement of the sum of all bytes but the sum's own. */
static uint32_t checksum(const uint8_t *p, size_t n, size_t sum_at)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += i >= sum_at && i < sum_at + 4 ? 0 : p[i];
    }
    return ~sum;
}

static void seal(struct vpc *v)
{
    be32_put(v->footer + F_SUM, checksum(v->footer, FOOTER_BYTES, F_SUM));
    be32_put(v->header + H_SUM, checksum(v->header, HEADER_BYTES, H_SUM));
}

/* ---- the table ---- */

static int entry_get(struct vpc *v, uint32_t b, bool wait, uint32_t *entry)
{
    uint8_t *raw;
    int r = tables_at(v->tables, v->table + (uint64_t)b * 4, wait, &raw);
    *entry = r ? FREE : be32_at(raw);
    return r;
}

static int entry_set(struct vpc *v, uint32_t b, uint32_t entry)
{
    uint64_t at = v->table + (uint64_t)b * 4;
    uint8_t *raw;
    int r = tables_at(v->tables, at, true, &raw);
    if (r == 0) {
        be32_put(raw, entry);
        tables_changed(v->tables, at, 4);
    }
    return r;
}

static int vpc_get(struct node *node, uint64_t b, bool wait, enum extent_kind *kind, uint64_t *at)
{
    struct vpc *v = vpc_of(node);
    uint32_t entry;
    int r = b < v->n ? entry_get(v, (uint32_t)b, wait, &entry) : -EIO;
    if (r == 0) {
        *kind = entry == FREE ? EXTENT_ABSENT : EXTENT_DATA;
        *at = (uint64_t)entry * SECTOR + v->bitmap;
    }
    return r;
}

static uint64_t block_bytes(const struct vpc *v)
{
    return UINT64_C(1) << v->blocks.shift;
}

/* Behind the table, all blocks, and what else the file holds before its footer. */
static int find_next(struct node *node)
{
    struct vpc *v = vpc_of(node);
    uint64_t size = file_size(node->file), next = v->table + (uint64_t)v->n * 4;
    next = MAX(next, size > FOOTER_BYTES ? size - FOOTER_BYTES : 0);
    for (uint32_t b = 0; b < v->n; b++) {
        uint32_t entry;
        int r = entry_get(v, b, true, &entry);
        if (r < 0) {
            return r;
        }
        if (entry != FREE) {
            next = MAX(next, (uint64_t)entry * SECTOR + v->bitmap + block_bytes(v));
        }
    }
    v->next = (next + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    v->next_known = true;
    return 0;
}

static int vpc_flush(struct node *node)
{
    struct vpc *v = vpc_of(node);
    int r = node->read_only ? 0 : file_flush(node->file);
    if (r || node->read_only || v->fixed) {
        return r;
    }
    bool dirty = tables_dirty(v->tables) || v->footer_due;
    if (v->footer_due) {
        r = file_write(node->file, v->next, v->footer, FOOTER_BYTES);
        v->footer_due = r < 0;
    }
    r = r ? r : tables_write(v->tables);
    return r || !dirty ? r : file_flush(node->file);
}

/* A changed page must make room. */
static int vpc_clean(void *owner)
{
    return vpc_flush(owner);
}

static int vpc_set(struct node *node, uint64_t b, uint64_t at)
{
    struct vpc *v = vpc_of(node);
    return entry_set(v, (uint32_t)b, (uint32_t)((at - v->bitmap) / SECTOR));
}

static bool vpc_touched(struct node *node, uint64_t b)
{
    struct vpc *v = vpc_of(node);
    return v->full && (v->full[b / 8] >> b % 8 & 1);
}

static void note_full(struct vpc *v, uint64_t b)
{
    if (v->full) {
        v->full[b / 8] |= (uint8_t)(1 << b % 8);
    }
}

/* The bitmap in front of a block, set to ones; padded with ones as well. */
static int write_bitmap(struct node *node, uint64_t at)
{
    uint8_t ones[PAGE];
    uint32_t left = vpc_of(node)->bitmap;
    int r = 0;
    memset(ones, 0xff, sizeof(ones));
    while (left && r == 0) {
        uint32_t n = MIN(left, sizeof(ones));
        r = file_write(node->file, at, ones, n);
        at += n;
        left -= n;
    }
    return r;
}

/* The data, not its bitmap, is aligned: then the host's pages are the guest's. */
static int vpc_take(struct node *node, uint64_t b, uint64_t *at)
{
    struct vpc *v = vpc_of(node);
    int r = v->next_known ? 0 : find_next(node);
    if (r < 0) {
        return r;
    }
    uint64_t data = (v->next + v->bitmap + DATA_ALIGN - 1) & ~(uint64_t)(DATA_ALIGN - 1);
    if ((data - v->bitmap) / SECTOR >= FREE) {
        return -EFBIG;
    }
    r = file_zero(node->file, data - v->bitmap, v->bitmap + block_bytes(v), true);
    r = r ? r : write_bitmap(node, data - v->bitmap);
    if (r == 0) {
        v->next = data + block_bytes(v);
        v->footer_due = true;
        note_full(v, b);
        *at = data;
    }
    return r;
}

static bool is_full(const uint8_t *bitmap)
{
    return bitmap[0] == 0xff && !memcmp(bitmap, bitmap + 1, SECTOR - 1);
}

/* Before a block of somebody else's image is written to: all its sectors are present. */
static int vpc_touch(struct node *node, uint64_t b, uint64_t at)
{
    struct vpc *v = vpc_of(node);
    if (vpc_touched(node, b)) {
        return 0;
    }
    for (uint64_t from = at - v->bitmap; from < at; from += SECTOR) {
        uint8_t *raw;
        int r = tables_at(v->tables, from, true, &raw);
        if (r < 0) {
            return r;
        }
        if (!is_full(raw)) {
            memset(raw, 0xff, SECTOR);
            tables_changed(v->tables, from, SECTOR);
        }
    }
    note_full(v, b);
    return 0;
}

/* ---- opening ---- */

static const char COOKIE[] = "conectix", HEADER_COOKIE[] = "cxsparse";
enum { COOKIE_BYTES = 8 };

static unsigned vpc_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)file_name; /* a fixed disk has nothing in front: as in QEMU it must be named */
    return n >= COOKIE_BYTES && !memcmp(head, COOKIE, COOKIE_BYTES) ? 100 : 0;
}

static bool read_footer(struct node *node, struct vpc *v, GError **error)
{
    uint64_t size = file_size(node->file);
    if (size < FOOTER_BYTES) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "invalid VPC image: %" G_GUINT64_FORMAT " bytes are less than a footer", size);
        return false;
    }
    int r = file_read(node->file, 0, v->footer, FOOTER_BYTES);
    if (r == 0 && memcmp(v->footer, COOKIE, COOKIE_BYTES)) {
        v->fixed = true;
        r = file_read(node->file, size - FOOTER_BYTES, v->footer, FOOTER_BYTES);
    }
    if (r < 0) {
        error_set_errno(error, -r, "cannot read the footer");
        return false;
    }
    if (memcmp(v->footer, COOKIE, COOKIE_BYTES)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "invalid VPC image: no footer cookie \"%s\"",
                    COOKIE);
        return false;
    }
    uint32_t sum = checksum(v->footer, FOOTER_BYTES, F_SUM);
    if (be32_at(v->footer + F_SUM) != sum) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Incorrect header checksum 0x%08x, should be 0x%08x",
                    be32_at(v->footer + F_SUM), sum);
        return false;
    }
    return true;
}

/* Which programs' images have their size in the footer, and which in the geometry. */
static bool creator_uses_geometry(const uint8_t *footer)
{
    static const char *const exact[] = {"win ", "qem2", "d2v ", "tap", "vs  ", "CTXS", "wa"};
    char name[5] = {0};
    memcpy(name, footer + F_CREATOR, 4);
    for (unsigned i = 0; i < G_N_ELEMENTS(exact); i++) {
        if (!strcmp(name, exact[i])) {
            return false;
        }
    }
    return true;
}

static bool take_size(struct node *node, struct vpc *v, GError **error)
{
    const char *calc = json_text(node->options, "force_size_calc");
    const uint8_t *f = v->footer;
    uint64_t geometry = (uint64_t)be16_at(f + F_CYLINDERS) * f[F_HEADS] * f[F_SECTORS];
    if (calc && strcmp(calc, "auto") && strcmp(calc, "chs") && strcmp(calc, "current_size")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid size calculation algorithm '%s'", calc);
        return false;
    }
    bool chosen = calc && strcmp(calc, "auto");
    v->by_geometry = chosen ? !strcmp(calc, "chs") : creator_uses_geometry(f);
    uint64_t sectors =
        v->by_geometry && geometry != CHS_MAX ? geometry : be64_at(f + F_CURRENT) / SECTOR;
    if (sectors == 0 || sectors > MAX_SECTORS) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "a disk of %" G_GUINT64_FORMAT " sectors (geometry %u/%u/%u) is not between 1 "
                    "and %" G_GUINT64_FORMAT,
                    sectors, be16_at(f + F_CYLINDERS), f[F_HEADS], f[F_SECTORS], MAX_SECTORS);
        return false;
    }
    node->size = sectors * SECTOR;
    return true;
}

static bool refuse_parent(struct node *node, const uint8_t *footer, GError **error)
{
    uint8_t header[HEADER_BYTES];
    g_autofree char *name = NULL;
    if (!file_read(node->file, be64_at(footer + F_DATA), header, sizeof(header))) {
        name =
            g_convert((const char *)header + H_PARENT, 512, "UTF-8", "UTF-16BE", NULL, NULL, NULL);
    }
    g_autofree char *shown = g_strescape(name ? name : "", NULL);
    g_set_error(
        error, LODGE_ERROR, ENOTSUP,
        "differencing VHD (type 4) with parent \"%.200s\": differencing disks are not supported",
        shown);
    return false;
}

static bool check_header(struct node *node, struct vpc *v, GError **error)
{
    const uint8_t *h = v->header;
    uint32_t sum = checksum(h, HEADER_BYTES, H_SUM), block = be32_at(h + H_BLOCK);
    if (memcmp(h, HEADER_COOKIE, COOKIE_BYTES)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "no dynamic disk header at byte %" G_GUINT64_FORMAT,
                    be64_at(v->footer + F_DATA));
        return false;
    }
    if (be32_at(h + H_SUM) != sum) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Incorrect dynamic header checksum 0x%08x, should be 0x%08x",
                    be32_at(h + H_SUM), sum);
        return false;
    }
    if (block < SECTOR || block > 1u << MAX_SHIFT || (block & (block - 1))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid block size %u", block);
        return false;
    }
    if (be32_at(h + H_ENTRIES) > INT32_MAX / 4) {
        g_set_error(error, LODGE_ERROR, EFBIG, "Max Table Entries too large (%u)",
                    be32_at(h + H_ENTRIES));
        return false;
    }
    if ((uint64_t)be32_at(h + H_ENTRIES) * block < node->size) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Page table too small: %u entries for a disk of %" G_GUINT64_FORMAT " bytes",
                    be32_at(h + H_ENTRIES), node->size);
        return false;
    }
    return true;
}

static bool take_header(struct node *node, struct vpc *v, GError **error)
{
    uint64_t size = file_size(node->file);
    uint32_t block = be32_at(v->header + H_BLOCK);
    v->table = be64_at(v->header + H_TABLE);
    v->n = be32_at(v->header + H_ENTRIES);
    v->blocks.shift = (unsigned)__builtin_ctz(block);
    v->bitmap = MAX(block / SECTOR / 8, 1);
    v->bitmap = (v->bitmap + SECTOR - 1) & ~(uint32_t)(SECTOR - 1);
    if (v->table % SECTOR || v->table > size || (uint64_t)v->n * 4 > size - v->table) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "the table of %u entries at byte %" G_GUINT64_FORMAT
                    " does not fit in the file of %" G_GUINT64_FORMAT " bytes",
                    v->n, v->table, size);
        return false;
    }
    if (v->n <= FULL_BITS_MAX && !node->read_only) {
        g_free(v->full);
        v->full = g_try_malloc0(v->n / 8 + 1);
    }
    node->granule = MIN(BLOCKS_GRANULE, block);
    return true;
}

static bool open_dynamic(struct node *node, struct vpc *v, GError **error)
{
    int r = file_read(node->file, be64_at(v->footer + F_DATA), v->header, HEADER_BYTES);
    if (r < 0) {
        error_set_errno(error, -r, "cannot read the dynamic header at byte %" G_GUINT64_FORMAT,
                        be64_at(v->footer + F_DATA));
        return false;
    }
    v->tables = tables_new(node->file, PAGE, vpc_clean, node);
    return check_header(node, v, error) && take_header(node, v, error);
}

static bool open_fixed(struct node *node, GError **error)
{
    uint64_t room = file_size(node->file) - FOOTER_BYTES;
    node->granule = 1;
    if (node->size > room) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "a fixed disk of %" G_GUINT64_FORMAT
                    " bytes does not fit in the file: %" G_GUINT64_FORMAT
                    " bytes before the footer",
                    node->size, room);
        return false;
    }
    return true;
}

static bool vpc_open(struct node *node, unsigned flags, GError **error)
{
    struct vpc *v = node->priv = g_new0(struct vpc, 1);
    (void)flags;
    v->blocks = (struct blocks){.get = vpc_get,
                                .set = vpc_set,
                                .take = vpc_take,
                                .touch = vpc_touch,
                                .touched = vpc_touched};
    node->align = 1;
    if (!read_footer(node, v, error)) {
        return false;
    }
    uint32_t type = be32_at(v->footer + F_TYPE);
    if (type == TYPE_DIFF) {
        return refuse_parent(node, v->footer, error);
    }
    if (type != (v->fixed ? TYPE_FIXED : TYPE_DYNAMIC)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "invalid VPC image: disk type %u with the footer %s", type,
                    v->fixed ? "only at the end" : "in front");
        return false;
    }
    return take_size(node, v, error) &&
           (v->fixed ? open_fixed(node, error) : open_dynamic(node, v, error));
}

static void vpc_close(struct node *node)
{
    struct vpc *v = vpc_of(node);
    if (v) {
        if (v->tables && (tables_dirty(v->tables) || v->footer_due)) {
            vpc_flush(node);
        }
        tables_free(v->tables);
        blocks_clear(&v->blocks);
        g_free(v->full);
        g_clear_pointer(&node->priv, g_free);
    }
}

/* ---- the data path ---- */

static void fixed_extent(const struct node *node, uint64_t offset, uint64_t length,
                         struct extent *out)
{
    *out = (struct extent){.kind = EXTENT_DATA,
                           .length = length,
                           .at = offset,
                           .in_place = !node->read_only,
                           .holes = true};
}

static int vpc_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                   struct extent *out)
{
    struct vpc *v = vpc_of(node);
    if (v->fixed) {
        fixed_extent(node, offset, length, out);
        return 0;
    }
    return blocks_map(node, &v->blocks, offset, length, wait, out);
}

static int vpc_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    struct vpc *v = vpc_of(node);
    if (v->fixed) {
        fixed_extent(node, offset, length, out);
        return 0;
    }
    return blocks_place(node, &v->blocks, offset, length, out);
}

static int vpc_link(struct node *node, uint64_t offset, const struct extent *placed)
{
    return blocks_link(node, &vpc_of(node)->blocks, offset, placed);
}

static void vpc_unplace(struct node *node, uint64_t offset, const struct extent *placed)
{
    blocks_unplace(&vpc_of(node)->blocks, offset, placed);
}

static int vpc_zero(struct node *node, uint64_t offset, uint64_t length, enum zero_kind kind)
{
    struct vpc *v = vpc_of(node);
    return v->fixed ? file_zero(node->file, offset, length, kind != ZERO_KEEP)
                    : blocks_zero(node, &v->blocks, offset, length, kind);
}

/* ---- new images ---- */

/* The geometry that the specification's appendix gives a disk of @sectors sectors. */
static void geometry_of(uint64_t sectors, uint32_t *c, uint32_t *h, uint32_t *s)
{
    uint64_t tracks;
    sectors = MIN(sectors, CHS_MAX);
    if (sectors >= (uint64_t)CHS_MAX_C * CHS_MAX_H * 63) {
        *s = CHS_MAX_S;
        *h = CHS_MAX_H;
        tracks = sectors / *s;
    } else {
        *s = 17;
        tracks = sectors / *s;
        *h = (uint32_t)MAX((tracks + 1023) / 1024, 4);
        if (tracks >= *h * UINT64_C(1024) || *h > CHS_MAX_H) {
            *s = 31;
            *h = CHS_MAX_H;
            tracks = sectors / *s;
        }
        if (tracks >= *h * UINT64_C(1024)) {
            *s = 63;
            *h = CHS_MAX_H;
            tracks = sectors / *s;
        }
    }
    *c = (uint32_t)(tracks / *h);
}

/*
 * The disk's real size in sectors; 0: too large.  Unless @exact it is the next size that is
 * a geometry, because Virtual PC believes nothing else.
 */
static uint64_t find_geometry(uint64_t size, bool exact, uint32_t *c, uint32_t *h, uint32_t *s)
{
    uint64_t sectors = (size + SECTOR - 1) / SECTOR, probe = MIN(sectors, CHS_MAX);
    geometry_of(probe, c, h, s);
    while (!exact && (uint64_t)*c * *h * *s < MIN(sectors, CHS_MAX)) {
        geometry_of(++probe, c, h, s);
    }
    uint64_t geometry = (uint64_t)*c * *h * *s;
    uint64_t real = exact || geometry >= CHS_MAX ? sectors : geometry;
    return real > MAX_SECTORS ? 0 : real;
}

static bool set_size(uint8_t *footer, uint64_t size, bool exact, uint64_t *sectors, GError **error)
{
    uint32_t c, h, s;
    *sectors = find_geometry(size, exact, &c, &h, &s);
    if (!*sectors) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "The disk size %" G_GUINT64_FORMAT " is too large, max size is 2040 GiB", size);
        return false;
    }
    be64_put(footer + F_CURRENT, *sectors * SECTOR);
    be16_put(footer + F_CYLINDERS, (uint16_t)c);
    footer[F_HEADS] = (uint8_t)h;
    footer[F_SECTORS] = (uint8_t)s;
    return true;
}

static void make_footer(uint8_t *f, bool fixed, bool exact)
{
    memset(f, 0, FOOTER_BYTES);
    memcpy(f, COOKIE, COOKIE_BYTES);
    be32_put(f + F_FEATURES, 2); /* the bit that is always set */
    be32_put(f + F_VERSION, 0x00010000);
    be64_put(f + F_DATA, fixed ? UINT64_MAX : FOOTER_BYTES);
    be32_put(f + F_TIME, (uint32_t)(time(NULL) - EPOCH));
    memcpy(f + F_CREATOR, exact ? "qem2" : "qemu", 4); /* how readers tell what the size means */
    be16_put(f + F_CREATOR_VERSION, 5);
    be16_put(f + F_CREATOR_VERSION + 2, 3);
    memcpy(f + F_CREATOR_OS, "Wi2k", 4);
    be32_put(f + F_TYPE, fixed ? TYPE_FIXED : TYPE_DYNAMIC);
    blocks_uuid(f + F_UUID);
}

static void make_header(uint8_t *h, uint32_t n)
{
    memset(h, 0, HEADER_BYTES);
    memcpy(h, HEADER_COOKIE, COOKIE_BYTES);
    be64_put(h + H_DATA, UINT64_MAX);
    be64_put(h + H_TABLE, TABLE_AT);
    be32_put(h + H_VERSION, 0x00010000);
    be32_put(h + H_ENTRIES, n);
    be32_put(h + H_BLOCK, 1u << BLOCK_SHIFT);
}

/* Free entries [@from, @to) of the table at @table, to the end of its last sector. */
static int write_free(struct file *f, uint64_t table, uint64_t from, uint64_t to)
{
    uint8_t raw[PAGE];
    uint64_t at = table + from * 4, end = (table + to * 4 + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    memset(raw, 0xff, sizeof(raw));
    while (at < end) {
        size_t n = (size_t)MIN(end - at, sizeof(raw));
        int r = file_write(f, at, raw, n);
        if (r < 0) {
            return r;
        }
        at += n;
    }
    return 0;
}

/* All blocks one after the other, for preallocation. */
static int place_all(struct node *node, uint32_t from)
{
    struct vpc *v = vpc_of(node);
    int r = 0;
    for (uint32_t b = from; b < v->n && r == 0; b++) {
        uint64_t at;
        uint32_t entry;
        r = entry_get(v, b, true, &entry);
        if (r || entry != FREE) {
            continue;
        }
        r = vpc_take(node, b, &at);
        r = r ? r : vpc_set(node, b, at);
    }
    return r ? r : vpc_flush(node);
}

static bool preallocate(struct node *node, uint32_t from, enum preallocation how, GError **error)
{
    uint64_t start = file_size(node->file);
    int r = how == PREALLOC_OFF ? 0 : place_all(node, from);
    if (r < 0) {
        error_set_errno(error, -r, "cannot place the blocks");
        return false;
    }
    /* FULL writes zeros over the bitmaps as well: that would be wrong, space is enough. */
    how = how == PREALLOC_FULL ? PREALLOC_FALLOC : how;
    return how == PREALLOC_OFF ||
           file_preallocate(node->file, start, file_size(node->file), how, error);
}

static bool create_fixed(const struct image_create *how, struct vpc *v, uint64_t sectors,
                         GError **error)
{
    uint64_t end = sectors * SECTOR;
    if (!file_preallocate(how->file, 0, end, how->preallocation, error)) {
        return false;
    }
    int r = file_write(how->file, end, v->footer, FOOTER_BYTES);
    if (r < 0) {
        error_set_errno(error, -r, "cannot write the footer");
    }
    return r == 0;
}

static bool create_dynamic(const struct image_create *how, struct vpc *v, uint64_t sectors,
                           GError **error)
{
    uint64_t per = (1u << BLOCK_SHIFT) / SECTOR;
    uint32_t n = (uint32_t)((sectors + per - 1) / per);
    make_header(v->header, n);
    seal(v);
    int r = file_write(how->file, 0, v->footer, FOOTER_BYTES);
    r = r ? r : file_write(how->file, FOOTER_BYTES, v->header, HEADER_BYTES);
    r = r ? r : write_free(how->file, TABLE_AT, 0, n);
    r = r ? r : file_write(how->file, file_size(how->file), v->footer, FOOTER_BYTES);
    if (r < 0) {
        error_set_errno(error, -r, "cannot write the headers and the table");
        return false;
    }
    struct node node = {.file = how->file};
    bool good = how->preallocation == PREALLOC_OFF ||
                (vpc_open(&node, 0, error) && preallocate(&node, 0, how->preallocation, error));
    vpc_close(&node);
    return good;
}

static bool vpc_create(const struct image_create *how, GError **error)
{
    const char *subformat = option_str(how->options, "subformat");
    bool fixed = subformat && !strcmp(subformat, "fixed");
    bool exact = option_bool(how->options, "force_size", false);
    uint64_t sectors;
    struct vpc v = {0};
    if (subformat && !fixed && strcmp(subformat, "dynamic")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid subformat '%s'", subformat);
        return false;
    }
    make_footer(v.footer, fixed, exact);
    if (!set_size(v.footer, how->size, exact, &sectors, error)) {
        return false;
    }
    be64_put(v.footer + F_ORIGINAL, sectors * SECTOR);
    seal(&v);
    return fixed ? create_fixed(how, &v, sectors, error) : create_dynamic(how, &v, sectors, error);
}

static uint32_t vpc_cluster_size(struct node *node)
{
    struct vpc *v = vpc_of(node);
    return v->fixed ? 0 : 1u << v->blocks.shift;
}

static bool vpc_measure(const struct image_create *how, uint64_t used, uint64_t out[2],
                        GError **error)
{
    const char *subformat = option_str(how->options, "subformat");
    bool fixed = subformat && !strcmp(subformat, "fixed");
    uint8_t footer[FOOTER_BYTES];
    uint64_t sectors, block = 1u << BLOCK_SHIFT;
    if (!set_size(footer, how->size, option_bool(how->options, "force_size", false), &sectors,
                  error)) {
        return false;
    }
    if (fixed) {
        out[0] = out[1] = sectors * SECTOR + FOOTER_BYTES;
        return true;
    }
    uint64_t n = (sectors * SECTOR + block - 1) / block, some = MIN((used + block - 1) / block, n);
    uint64_t fixed_part =
        TABLE_AT + ((n * 4 + SECTOR - 1) & ~(uint64_t)(SECTOR - 1)) + FOOTER_BYTES;
    out[0] = fixed_part + (how->preallocation == PREALLOC_OFF ? some : n) * (block + DATA_ALIGN);
    out[1] = fixed_part + n * (block + DATA_ALIGN);
    return true;
}

/* ---- resize ---- */

/* The footer's copy in front, then the one at the end; each fits in one sector. */
static int write_footers(struct node *node)
{
    struct vpc *v = vpc_of(node);
    int r = file_flush(node->file);
    r = r ? r : file_write(node->file, 0, v->footer, FOOTER_BYTES);
    r = r ? r : file_flush(node->file);
    r = r ? r : file_write(node->file, v->next, v->footer, FOOTER_BYTES);
    v->footer_due = r < 0;
    return r ? r : file_flush(node->file);
}

static int write_header(struct node *node)
{
    struct vpc *v = vpc_of(node);
    int r = file_flush(node->file);
    r = r ? r : file_write(node->file, be64_at(v->footer + F_DATA), v->header, HEADER_BYTES);
    return r ? r : file_flush(node->file);
}

/* A table of @n entries: behind the old one's last sector is something else, so it moves. */
static int grow_table(struct node *node, uint32_t n)
{
    struct vpc *v = vpc_of(node);
    uint64_t room = ((uint64_t)v->n * 4 + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    uint64_t to = v->table;
    int r = 0;
    if ((uint64_t)n * 4 > room) {
        uint8_t raw[PAGE];
        to = v->next;
        for (uint64_t at = 0; at < (uint64_t)v->n * 4 && r == 0; at += sizeof(raw)) {
            size_t part = (size_t)MIN((uint64_t)v->n * 4 - at, sizeof(raw));
            r = file_read(node->file, v->table + at, raw, part);
            r = r ? r : file_write(node->file, to + at, raw, part);
        }
        v->next = (to + (uint64_t)n * 4 + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    }
    r = r ? r : write_free(node->file, to, v->n, n);
    /* The end of the file is a footer again before anything refers to the new table. */
    r = r ? r : file_write(node->file, v->next, v->footer, FOOTER_BYTES);
    be64_put(v->header + H_TABLE, to);
    be32_put(v->header + H_ENTRIES, n);
    return r;
}

/* What is behind the disk's end in its last block is to read as zero when it becomes part of it. */
static int clear_tail(struct node *node)
{
    struct vpc *v = vpc_of(node);
    uint64_t in = node->size & (block_bytes(v) - 1), at;
    enum extent_kind kind;
    int r = in ? vpc_get(node, node->size >> v->blocks.shift, true, &kind, &at) : 0;
    return r || !in || kind != EXTENT_DATA
               ? r
               : file_zero(node->file, at + in, block_bytes(v) - in, true);
}

static int grow_dynamic(struct node *node, uint32_t n, const uint8_t *footer)
{
    struct vpc *v = vpc_of(node);
    int r = clear_tail(node);
    if (r == 0 && n > v->n) {
        r = grow_table(node, n);
        seal(v);
        r = r ? r : write_header(node);
    }
    memcpy(v->footer, footer, FOOTER_BYTES);
    return r ? r : write_footers(node);
}

/* Entries [@from, @to), at most ENTRIES, become free; then the space of their blocks goes back. */
static int free_blocks(struct node *node, uint32_t from, uint32_t to)
{
    struct vpc *v = vpc_of(node);
    uint32_t old[ENTRIES];
    int r = 0;
    for (uint32_t b = from; b < to && r == 0; b++) {
        r = entry_get(v, b, true, &old[b - from]);
        r = r || old[b - from] == FREE ? r : entry_set(v, b, FREE);
    }
    r = r ? r : vpc_flush(node);
    for (uint32_t b = from; b < to && r == 0; b++) {
        if (old[b - from] != FREE) {
            r = file_discard(node->file, (uint64_t)old[b - from] * SECTOR,
                             v->bitmap + block_bytes(v));
        }
    }
    return r;
}

/* Smaller first; then nothing may name what is behind the end. */
static int shrink_dynamic(struct node *node, uint32_t n, const uint8_t *footer)
{
    struct vpc *v = vpc_of(node);
    memcpy(v->footer, footer, FOOTER_BYTES);
    int r = write_footers(node);
    for (uint32_t b = n; b < v->n && r == 0; b += ENTRIES) {
        r = free_blocks(node, b, MIN(v->n, b + ENTRIES));
    }
    be32_put(v->header + H_ENTRIES, n);
    seal(v);
    return r ? r : write_header(node);
}

static int resize_dynamic(struct node *node, uint64_t size, const uint8_t *footer)
{
    struct vpc *v = vpc_of(node);
    uint64_t n = (size + block_bytes(v) - 1) >> v->blocks.shift;
    int r = v->next_known ? 0 : find_next(node);
    r = r ? r : vpc_flush(node);
    r = r                    ? r
        : size >= node->size ? grow_dynamic(node, (uint32_t)n, footer)
                             : shrink_dynamic(node, (uint32_t)n, footer);
    tables_forget(v->tables);
    return r;
}

/* The footer is at its new place before the old one becomes part of the disk, or is cut off. */
static int resize_fixed(struct node *node, uint64_t size, const uint8_t *footer)
{
    uint64_t old = file_size(node->file) - FOOTER_BYTES;
    int r = file_write(node->file, size, footer, FOOTER_BYTES);
    r = r ? r : file_flush(node->file);
    if (r == 0 && size > node->size) {
        uint64_t end = MIN(old + FOOTER_BYTES, size);
        r = file_zero(node->file, node->size, end - node->size, true);
    }
    r = r ? r : file_resize(node->file, size + FOOTER_BYTES);
    memcpy(vpc_of(node)->footer, footer, FOOTER_BYTES);
    return r ? r : file_flush(node->file);
}

static bool vpc_resize(struct node *node, uint64_t size, enum preallocation how, GError **error)
{
    struct vpc *v = vpc_of(node);
    uint8_t footer[FOOTER_BYTES];
    uint64_t sectors, old = node->size;
    uint32_t old_n = v->n;
    memcpy(footer, v->footer, FOOTER_BYTES);
    if (!set_size(footer, size, !v->by_geometry, &sectors, error)) {
        return false;
    }
    be32_put(footer + F_SUM, checksum(footer, FOOTER_BYTES, F_SUM));
    int r = v->fixed ? resize_fixed(node, sectors * SECTOR, footer)
                     : resize_dynamic(node, sectors * SECTOR, footer);
    if (r < 0) {
        error_set_errno(error, -r, "cannot change the size to %" G_GUINT64_FORMAT " sectors",
                        sectors);
        return false;
    }
    node->size = sectors * SECTOR;
    if (v->fixed) {
        return node->size <= old || how == PREALLOC_OFF ||
               file_preallocate(node->file, old, node->size, how, error);
    }
    return take_header(node, v, error) && preallocate(node, old_n, how, error);
}

static const struct option_desc create_options[] = {
    {"subformat", "str",
     "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} ", NULL},
    {"force_size", "bool (on/off)",
     "Force disk size calculation to use the actual size specified, rather than using the nearest "
     "CHS-based calculation",
     NULL},
    {NULL},
};

static const struct format_tools tools = {
    .create_options = create_options,
    .create = vpc_create,
    .resize = vpc_resize,
    .cluster_size = vpc_cluster_size,
    .measure = vpc_measure,
    .dirty_flag = true,
};

static const char *const open_options[] = {"force_size_calc", NULL};

const struct image_format format_vpc = {
    .open_options = open_options,
    .name = "vpc",
    .about = "VHD: Virtual PC and Hyper-V disk image",
    .spec = "Microsoft Virtual Hard Disk Image Format Specification 1.0",
    .probe = vpc_probe,
    .open = vpc_open,
    .close = vpc_close,
    .map = vpc_map,
    .place = vpc_place,
    .link = vpc_link,
    .unplace = vpc_unplace,
    .zero = vpc_zero,
    .flush = vpc_flush,
    .tools = &tools,
};
