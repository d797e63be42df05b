/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * vdi: VirtualBox disk images, version 1.1, dynamic and static.
 *
 * A header, one table with a 32-bit entry for each block of 1 MiB of the disk, then blocks in
 * the order in which they were first written.  Order on the medium: the header counts a block
 * as taken, and its bytes are there, before the table names it; so a crash can only leave
 * blocks that are counted and not used.
 *
 * Facts: VirtualBox source, src/VBox/Storage/VDICore.h, "Disk image" (structures and constants).
 */
#include "base/bytes.h"
#include "host/image/blocks.h"
#include "host/image/options.h"
#include "host/image/tables.h"

#include <string.h>

enum { SECTOR = 512, BLOCK_SHIFT = 20, BLOCK = 1 << BLOCK_SHIFT };
enum { HEADER_BYTES = 512, HEADER_SIZE_FIELD = 0x180 };
enum { PAGE = 4096, ENTRIES = PAGE / 4 };
enum { ERRORS_MAX = 100000 }; /* that check tells: a table may claim half a billion */
enum image_type { TYPE_DYNAMIC = 1, TYPE_STATIC = 2, TYPE_UNDO = 3, TYPE_DIFF = 4 };

static const uint32_t SIGNATURE = 0xbeda107f, VERSION = 0x00010001;
static const uint32_t FREE = 0xffffffff, ZERO = 0xfffffffe;
static const uint32_t MAX_BLOCKS = 0x1fffff80; /* QEMU's limit: 512 TiB */

/* Byte offsets in the header. */
enum {
    H_TEXT = 0,
    H_SIGNATURE = 0x40,
    H_VERSION = 0x44,
    H_SIZE = 0x48,
    H_TYPE = 0x4c,
    H_TABLE = 0x154,
    H_DATA = 0x158,
    H_CYLINDERS = 0x15c,
    H_HEADS = 0x160,
    H_SECTORS = 0x164,
    H_SECTOR_BYTES = 0x168,
    H_DISK = 0x170,
    H_BLOCK = 0x178,
    H_EXTRA = 0x17c,
    H_BLOCKS = 0x180,
    H_ALLOCATED = 0x184,
    H_UUID = 0x188,
    H_UUID_SNAP = 0x198,
    H_UUID_LINK = 0x1a8,
    H_UUID_PARENT = 0x1b8,
};

struct vdi {
    struct blocks blocks;
    struct tables *tables;
    uint8_t header[HEADER_BYTES];
    uint32_t table, data; /* byte offsets in the file */
    uint32_t n;           /* blocks of the disk */
    uint32_t allocated;   /* as the header on the medium says */
    uint32_t next;        /* place of the next new block; valid if .next_known */
    bool next_known;
};

static struct vdi *vdi_of(const struct node *node)
{
    return node->priv;
}

/* ---- the table ---- */

static int entry_get(struct vdi *v, uint32_t b, bool wait, uint32_t *entry)
{
    uint8_t *raw;
    int r = tables_at(v->tables, v->table + (uint64_t)b * 4, wait, &raw);
    *entry = r ? FREE : le32_at(raw);
    return r;
}

static int entry_set(struct vdi *v, uint32_t b, uint32_t entry)
{
    uint64_t at = v->table + (uint64_t)b * 4;
    uint8_t *raw;
    int r = tables_at(v->tables, at, true, &raw);
    if (r == 0) {
        le32_put(raw, entry);
        tables_changed(v->tables, at, 4);
    }
    return r;
}

static bool is_place(uint32_t entry)
{
    return entry < ZERO;
}

static uint64_t place_byte(const struct vdi *v, uint32_t place)
{
    return v->data + ((uint64_t)place << BLOCK_SHIFT);
}

/* New blocks go behind all that the header counts and all that the table names. */
static int find_next(struct vdi *v)
{
    v->next = v->allocated;
    for (uint32_t b = 0; b < v->n; b++) {
        uint32_t entry;
        int r = entry_get(v, b, true, &entry);
        if (r < 0) {
            return r;
        }
        if (is_place(entry)) {
            v->next = MAX(v->next, entry + 1);
        }
    }
    v->next_known = true;
    return 0;
}

static int vdi_get(struct node *node, uint64_t b, bool wait, enum extent_kind *kind, uint64_t *at)
{
    struct vdi *v = vdi_of(node);
    uint32_t entry;
    int r = b < v->n ? entry_get(v, (uint32_t)b, wait, &entry) : -EIO;
    if (r == 0) {
        *kind = entry == FREE ? EXTENT_ABSENT : entry == ZERO ? EXTENT_ZERO : EXTENT_DATA;
        *at = place_byte(v, entry);
    }
    return r;
}

static int vdi_flush(struct node *node)
{
    struct vdi *v = vdi_of(node);
    int r = 0;
    if (node->read_only) {
        return 0;
    }
    if (v->next_known && v->next > v->allocated && tables_dirty(v->tables)) {
        le32_put(v->header + H_ALLOCATED, v->next);
        r = file_write(node->file, 0, v->header, HEADER_BYTES);
        v->allocated = r ? v->allocated : v->next;
    }
    r = r ? r : file_flush(node->file);
    if (r == 0 && tables_dirty(v->tables)) {
        r = tables_write(v->tables);
        r = r ? r : file_flush(node->file);
    }
    return r;
}

/* A changed page must make room. */
static int vdi_clean(void *owner)
{
    return vdi_flush(owner);
}

static int vdi_set(struct node *node, uint64_t b, uint64_t at)
{
    struct vdi *v = vdi_of(node);
    return entry_set(v, (uint32_t)b, (uint32_t)((at - v->data) >> BLOCK_SHIFT));
}

static int vdi_take(struct node *node, uint64_t b, uint64_t *at)
{
    struct vdi *v = vdi_of(node);
    int r = v->next_known ? 0 : find_next(v);
    (void)b;
    if (r == 0 && v->next >= MAX_BLOCKS) {
        r = -ENOSPC; /* only a damaged image gets here: places are used up by leaks */
    }
    if (r == 0) {
        *at = place_byte(v, v->next);
        r = file_zero(node->file, *at, BLOCK, true);
    }
    v->next += r ? 0 : 1;
    return r;
}

/* ---- opening ---- */

static unsigned vdi_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)file_name;
    return n >= HEADER_BYTES && le32_at(head + H_SIGNATURE) == SIGNATURE ? 100 : 0;
}

static bool wrong(GError **error, const char *what, uint64_t is, uint64_t should)
{
    g_set_error(error, LODGE_ERROR, ENOTSUP,
                "unsupported VDI image (%s %" G_GUINT64_FORMAT " is not %" G_GUINT64_FORMAT ")",
                what, is, should);
    return false;
}

static bool is_null(const uint8_t *uuid)
{
    static const uint8_t null[UUID_BYTES];
    return !memcmp(uuid, null, UUID_BYTES);
}

static bool check_kind(const uint8_t *h, GError **error)
{
    uint32_t version = le32_at(h + H_VERSION), type = le32_at(h + H_TYPE);
    if (le32_at(h + H_SIGNATURE) != SIGNATURE) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Image not in VDI format (bad signature %08x)",
                    le32_at(h + H_SIGNATURE));
        return false;
    }
    if (version != VERSION) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "unsupported VDI image (version %u.%u)",
                    version >> 16, version & 0xffff);
        return false;
    }
    if (type == TYPE_UNDO || type == TYPE_DIFF || !is_null(h + H_UUID_PARENT)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "unsupported VDI image (type %u: a differencing image, or it names a parent)",
                    type);
        return false;
    }
    if (type != TYPE_DYNAMIC && type != TYPE_STATIC) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "unsupported VDI image (type %u)", type);
        return false;
    }
    if (!is_null(h + H_UUID_LINK)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "unsupported VDI image (non-NULL link UUID)");
        return false;
    }
    return true;
}

static bool check_layout(const uint8_t *h, GError **error)
{
    uint32_t table = le32_at(h + H_TABLE), data = le32_at(h + H_DATA), n = le32_at(h + H_BLOCKS);
    uint64_t disk = le64_at(h + H_DISK);
    if (table % SECTOR || table < HEADER_BYTES) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "unsupported VDI image (unaligned block map offset 0x%x)", table);
        return false;
    }
    if (data % SECTOR || data < table) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "unsupported VDI image (unaligned data offset 0x%x)", data);
        return false;
    }
    if (le32_at(h + H_SECTOR_BYTES) != SECTOR) {
        return wrong(error, "sector size", le32_at(h + H_SECTOR_BYTES), SECTOR);
    }
    if (le32_at(h + H_BLOCK) != BLOCK) {
        return wrong(error, "block size", le32_at(h + H_BLOCK), BLOCK);
    }
    if (le32_at(h + H_EXTRA)) {
        return wrong(error, "size of extra block data", le32_at(h + H_EXTRA), 0);
    }
    if (n > MAX_BLOCKS) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "unsupported VDI image (too many blocks %u, max is %u)", n, MAX_BLOCKS);
        return false;
    }
    if (disk > (uint64_t)n << BLOCK_SHIFT) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "unsupported VDI image (disk size %" G_GUINT64_FORMAT
                    ", image bitmap has room for %" G_GUINT64_FORMAT ")",
                    disk, (uint64_t)n << BLOCK_SHIFT);
        return false;
    }
    return true;
}

/* The table must be in the file and may not lie where blocks do. */
static bool check_table(const struct node *node, const struct vdi *v, GError **error)
{
    uint64_t end = v->table + (uint64_t)v->n * 4;
    if (end > file_size(node->file)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "the block map of %u entries ends at byte %" G_GUINT64_FORMAT
                    ", the file at %" G_GUINT64_FORMAT,
                    v->n, end, file_size(node->file));
        return false;
    }
    if (end > v->data) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "the block map of %u entries ends at byte %" G_GUINT64_FORMAT
                    ", behind the start of the data at %u",
                    v->n, end, v->data);
        return false;
    }
    return true;
}

static void take_header(struct node *node, struct vdi *v)
{
    v->table = le32_at(v->header + H_TABLE);
    v->data = le32_at(v->header + H_DATA);
    v->n = le32_at(v->header + H_BLOCKS);
    v->allocated = le32_at(v->header + H_ALLOCATED);
    v->next_known = false;
    /* Old versions of VirtualBox made disks that do not end with a whole sector. */
    node->size = (le64_at(v->header + H_DISK) + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
}

static bool vdi_open(struct node *node, unsigned flags, GError **error)
{
    struct vdi *v = node->priv = g_new0(struct vdi, 1);
    (void)flags;
    v->blocks =
        (struct blocks){.shift = BLOCK_SHIFT, .get = vdi_get, .set = vdi_set, .take = vdi_take};
    int r = file_read(node->file, 0, v->header, HEADER_BYTES);
    if (r < 0) {
        error_set_errno(error, -r, "cannot read the VDI header");
        return false;
    }
    if (!check_kind(v->header, error) || !check_layout(v->header, error)) {
        return false;
    }
    take_header(node, v);
    v->tables = tables_new(node->file, PAGE, vdi_clean, node);
    node->granule = BLOCKS_GRANULE;
    node->align = 1;
    return check_table(node, v, error);
}

static void vdi_close(struct node *node)
{
    struct vdi *v = vdi_of(node);
    if (v) {
        if (v->tables && tables_dirty(v->tables)) {
            vdi_flush(node);
        }
        tables_free(v->tables);
        blocks_clear(&v->blocks);
        g_clear_pointer(&node->priv, g_free);
    }
}

/* ---- the data path ---- */

static int vdi_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                   struct extent *out)
{
    return blocks_map(node, &vdi_of(node)->blocks, offset, length, wait, out);
}

static int vdi_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    return blocks_place(node, &vdi_of(node)->blocks, offset, length, out);
}

static int vdi_link(struct node *node, uint64_t offset, const struct extent *placed)
{
    return blocks_link(node, &vdi_of(node)->blocks, offset, placed);
}

static void vdi_unplace(struct node *node, uint64_t offset, const struct extent *placed)
{
    blocks_unplace(&vdi_of(node)->blocks, offset, placed);
}

static int vdi_zero(struct node *node, uint64_t offset, uint64_t length, enum zero_kind kind)
{
    return blocks_zero(node, &vdi_of(node)->blocks, offset, length, kind);
}

/* ---- new images ---- */

/* VirtualBox's data begins at a multiple of 1 MiB; the room before it lets the table grow. */
static uint64_t data_offset(uint64_t table, uint64_t n)
{
    return (table + n * 4 + BLOCK - 1) & ~(uint64_t)(BLOCK - 1);
}

static bool check_size(uint64_t size, GError **error)
{
    if (size > (uint64_t)MAX_BLOCKS << BLOCK_SHIFT) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "Unsupported VDI image size (size is 0x%" G_GINT64_MODIFIER
                    "x, max supported is 0x%" G_GINT64_MODIFIER "x)",
                    size, (uint64_t)MAX_BLOCKS << BLOCK_SHIFT);
        return false;
    }
    return true;
}

static void make_header(uint8_t *h, uint64_t size, uint32_t n, bool fixed, uint32_t allocated)
{
    memset(h, 0, HEADER_BYTES);
    g_strlcpy((char *)h + H_TEXT, "<<< Lodge VM Virtual Disk Image >>>\n", H_SIGNATURE);
    le32_put(h + H_SIGNATURE, SIGNATURE);
    le32_put(h + H_VERSION, VERSION);
    le32_put(h + H_SIZE, HEADER_SIZE_FIELD);
    le32_put(h + H_TYPE, fixed ? TYPE_STATIC : TYPE_DYNAMIC);
    le32_put(h + H_TABLE, HEADER_BYTES);
    le32_put(h + H_DATA, (uint32_t)data_offset(HEADER_BYTES, n));
    le32_put(h + H_SECTOR_BYTES, SECTOR);
    le64_put(h + H_DISK, size);
    le32_put(h + H_BLOCK, BLOCK);
    le32_put(h + H_BLOCKS, n);
    le32_put(h + H_ALLOCATED, allocated);
    blocks_uuid(h + H_UUID);
    blocks_uuid(h + H_UUID_SNAP);
}

/* Entries [@from, @to) of a table at @table: place @first and up, or all free. */
static int write_entries(struct file *f, uint64_t table, uint32_t from, uint32_t to, bool placed,
                         uint32_t first)
{
    uint8_t raw[PAGE];
    while (from < to) {
        uint32_t n = MIN(to - from, ENTRIES);
        for (uint32_t i = 0; i < n; i++) {
            le32_put(raw + i * 4, placed ? first++ : FREE);
        }
        int r = file_write(f, table + (uint64_t)from * 4, raw, (size_t)n * 4);
        if (r < 0) {
            return r;
        }
        from += n;
    }
    return 0;
}

static bool vdi_create(const struct image_create *how, GError **error)
{
    uint64_t size = (how->size + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    bool fixed = option_bool(how->options, "static", false);
    bool placed = fixed || how->preallocation != PREALLOC_OFF;
    uint8_t header[HEADER_BYTES];
    if (!check_size(size, error)) {
        return false;
    }
    uint32_t n = (uint32_t)((size + BLOCK - 1) >> BLOCK_SHIFT);
    make_header(header, size, n, fixed, placed ? n : 0);
    uint64_t data = le32_at(header + H_DATA);
    int r = file_write(how->file, 0, header, HEADER_BYTES);
    r = r ? r : write_entries(how->file, HEADER_BYTES, 0, n, placed, 0);
    if (r < 0) {
        error_set_errno(error, -r, "cannot write the VDI header and block map");
        return false;
    }
    return file_preallocate(how->file, data, data + (placed ? (uint64_t)n << BLOCK_SHIFT : 0),
                            how->preallocation, error);
}

/* ---- whole images ---- */

/* Which places are used: a bit for each, up to .next. */
struct places {
    uint8_t *bits;
    uint32_t n, used;
};

static bool places_take(struct places *p, uint32_t place)
{
    bool was = p->bits[place / 8] >> place % 8 & 1;
    p->bits[place / 8] |= (uint8_t)(1 << place % 8);
    p->used += was ? 0 : 1;
    return !was;
}

/* Places that the file has room for: no more can be in use. */
static uint32_t places_in_file(const struct node *node, const struct vdi *v)
{
    uint64_t size = file_size(node->file), bytes = size > v->data ? size - v->data : 0;
    return (uint32_t)MIN((bytes + BLOCK - 1) >> BLOCK_SHIFT, MAX_BLOCKS);
}

static int survey(struct node *node, struct places *p, struct check_result *out)
{
    struct vdi *v = vdi_of(node);
    for (uint32_t b = 0; b < v->n; b++) {
        uint32_t entry;
        if (out->corruptions == ERRORS_MAX) {
            check_tell(out, "ERROR: that is enough: entries from %u on are not looked at", b);
            return 0;
        }
        int r = entry_get(v, b, true, &entry);
        if (r < 0) {
            return r;
        }
        if (!is_place(entry)) {
            continue;
        }
        if (entry >= p->n) {
            check_tell(out, "ERROR: block index %u out of range, is %u", b, entry);
            out->corruptions++;
        } else if (!places_take(p, entry)) {
            check_tell(out, "ERROR: block index %u also used by %u", entry, b);
            out->corruptions++;
        }
    }
    return 0;
}

/*
 * Moves the blocks that lie last into unused places before them, so that the first @used
 * places are the used ones, and cuts the file.  A block's old place stays as it is until the
 * table with its new one is on the medium.
 */
static int compact(struct node *node, struct places *p)
{
    struct vdi *v = vdi_of(node);
    g_autofree uint8_t *data = g_try_malloc(BLOCK);
    uint32_t hole = 0;
    int r = data ? 0 : -ENOMEM;
    for (uint32_t b = 0; b < v->n && r == 0; b++) {
        uint32_t entry;
        r = entry_get(v, b, true, &entry);
        if (r < 0 || !is_place(entry) || entry < p->used) {
            continue;
        }
        while (p->bits[hole / 8] >> hole % 8 & 1) {
            hole++;
        }
        p->bits[hole / 8] |= (uint8_t)(1 << hole % 8);
        r = file_read(node->file, place_byte(v, entry), data, BLOCK);
        r = r ? r : file_write(node->file, place_byte(v, hole), data, BLOCK);
        r = r ? r : vdi_set(node, b, place_byte(v, hole));
    }
    r = r ? r : vdi_flush(node);
    le32_put(v->header + H_ALLOCATED, p->used);
    r = r ? r : file_write(node->file, 0, v->header, HEADER_BYTES);
    r = r ? r : file_flush(node->file);
    if (r == 0) {
        v->allocated = v->next = p->used;
        v->next_known = true;
        r = file_resize(node->file, place_byte(v, p->used));
    }
    return r;
}

static bool places_init(struct places *p, uint32_t n, GError **error)
{
    *p = (struct places){.n = n, .bits = g_try_malloc0((gsize)n / 8 + 1)};
    if (!p->bits) {
        error_set_errno(error, ENOMEM, "a bitmap of %u blocks", n);
    }
    return p->bits;
}

static bool vdi_check(struct node *node, unsigned fix, struct check_result *out, GError **error)
{
    struct vdi *v = vdi_of(node);
    struct places p;
    uint32_t there = places_in_file(node, v);
    if (!places_init(&p, MIN(v->allocated, there), error)) {
        return false;
    }
    g_autofree uint8_t *bits = p.bits;
    int r = survey(node, &p, out);
    out->leaks = v->allocated > p.used ? v->allocated - p.used : 0;
    if (r == 0 && out->leaks && !out->corruptions) {
        check_tell(out, "Leaked blocks: %u are counted, %u used", v->allocated, p.used);
    }
    if (r == 0 && (fix & FIX_LEAKS) && out->leaks && !out->corruptions) {
        r = compact(node, &p);
        out->leaks_fixed = r ? 0 : out->leaks;
        out->leaks = r ? out->leaks : 0;
    }
    if (r < 0) {
        error_set_errno(error, -r, "cannot check the block map");
    }
    return r == 0;
}

static uint32_t vdi_cluster_size(struct node *node)
{
    (void)node;
    return BLOCK;
}

static bool vdi_measure(const struct image_create *how, uint64_t used, uint64_t out[2],
                        GError **error)
{
    uint64_t n = (how->size + BLOCK - 1) >> BLOCK_SHIFT, data = data_offset(HEADER_BYTES, n);
    if (!check_size(how->size, error)) {
        return false;
    }
    bool placed = option_bool(how->options, "static", false) || how->preallocation != PREALLOC_OFF;
    out[1] = data + (n << BLOCK_SHIFT);
    out[0] =
        placed ? out[1] : MIN(out[1], data + ((used + BLOCK - 1) >> BLOCK_SHIFT << BLOCK_SHIFT));
    return true;
}

/* ---- resize ---- */

/* One sector: it is on the medium as it was or as it will be. */
static int write_header(struct node *node)
{
    struct vdi *v = vdi_of(node);
    int r = file_flush(node->file);
    r = r ? r : file_write(node->file, 0, v->header, HEADER_BYTES);
    r = r ? r : file_flush(node->file);
    if (r == 0) {
        take_header(node, v);
    }
    return r;
}

/* Copies the blocks in the first @n places to the end; from then on they may be overwritten. */
static int vacate(struct node *node, uint32_t n)
{
    struct vdi *v = vdi_of(node);
    g_autofree uint8_t *buffer = g_try_malloc(BLOCK);
    int r = buffer ? v->next_known ? 0 : find_next(v) : -ENOMEM;
    v->next = MAX(v->next, n);
    for (uint32_t b = 0; b < v->n && r == 0; b++) {
        uint32_t entry;
        uint64_t to;
        r = entry_get(v, b, true, &entry);
        if (r < 0 || !is_place(entry) || entry >= n) {
            continue;
        }
        r = file_read(node->file, place_byte(v, entry), buffer, BLOCK);
        r = r ? r : vdi_take(node, b, &to);
        r = r ? r : file_write(node->file, to, buffer, BLOCK);
        r = r ? r : vdi_set(node, b, to);
    }
    return r ? r : vdi_flush(node);
}

/*
 * Makes room for a table of @n entries: where the first @shift blocks lay.  Places are then
 * counted from behind it.  Nothing uses the new table until the header does.
 */
static int move_table(struct node *node, uint32_t n, uint32_t shift)
{
    struct vdi *v = vdi_of(node);
    uint8_t raw[PAGE];
    uint32_t fresh = v->data;
    int r = vacate(node, shift);
    for (uint32_t b = 0; b < n && r == 0; b += ENTRIES) {
        uint32_t count = MIN(n - b, ENTRIES);
        for (uint32_t i = 0; i < count && r == 0; i++) {
            uint32_t entry = FREE;
            r = b + i < v->n ? entry_get(v, b + i, true, &entry) : 0;
            le32_put(raw + i * 4, is_place(entry) ? entry - shift : entry);
        }
        r = r ? r : file_write(node->file, fresh + (uint64_t)b * 4, raw, (size_t)count * 4);
    }
    le32_put(v->header + H_TABLE, fresh);
    le32_put(v->header + H_DATA, fresh + (shift << BLOCK_SHIFT));
    le32_put(v->header + H_ALLOCATED, v->next - shift);
    return r;
}

/* What is behind the disk's end in its last block is to read as zero when it becomes part of it. */
static int clear_tail(struct node *node)
{
    uint64_t in = node->size & (BLOCK - 1), at;
    enum extent_kind kind;
    int r = in ? vdi_get(node, node->size >> BLOCK_SHIFT, true, &kind, &at) : 0;
    return r || !in || kind != EXTENT_DATA ? r : file_zero(node->file, at + in, BLOCK - in, true);
}

/* Entries from @n on name nothing. */
static int drop_entries(struct node *node, uint32_t n)
{
    struct vdi *v = vdi_of(node);
    int r = 0;
    for (uint32_t b = n; b < v->n && r == 0; b++) {
        uint32_t entry;
        r = entry_get(v, b, true, &entry);
        r = r || entry == FREE ? r : entry_set(v, b, FREE);
    }
    return r ? r : vdi_flush(node);
}

/* The table has @n entries, for which there is room, and the header says so. */
static int lengthen(struct node *node, uint32_t n)
{
    struct vdi *v = vdi_of(node);
    int r = write_entries(node->file, v->table, v->n, n, false, 0);
    le32_put(v->header + H_BLOCKS, n);
    tables_forget(v->tables);
    return r;
}

/*
 * The number of entries grows to @n; a larger table moves if there is no room behind it.  It
 * first takes what room there is: blocks that make way for it go to places behind all others,
 * and readers refuse a place that is not below the number of entries.
 */
static int grow(struct node *node, uint64_t size, uint32_t n)
{
    struct vdi *v = vdi_of(node);
    uint64_t room = v->data - v->table, need = (uint64_t)n * 4;
    uint32_t shift = (uint32_t)((need + BLOCK - 1) >> BLOCK_SHIFT);
    if (need > room && v->data + ((uint64_t)shift << BLOCK_SHIFT) > UINT32_MAX) {
        return -EFBIG; /* the header counts in 32 bits */
    }
    int r = clear_tail(node);
    r = r ? r : drop_entries(node, (uint32_t)((node->size + BLOCK - 1) >> BLOCK_SHIFT));
    r = r ? r : lengthen(node, (uint32_t)(MIN(room, need) / 4));
    if (r == 0 && need > room) {
        r = write_header(node);
        r = r ? r : move_table(node, n, shift);
        le32_put(v->header + H_BLOCKS, n);
    }
    le64_put(v->header + H_DISK, size);
    r = r ? r : write_header(node);
    tables_forget(v->tables);
    return r;
}

/*
 * Blocks behind the new end are no longer named, then not counted, then their space is used;
 * the number of entries falls when all blocks lie at places below it.
 */
static int shrink(struct node *node, uint64_t size, uint32_t n)
{
    struct vdi *v = vdi_of(node);
    struct check_result found = {0};
    struct places p;
    le64_put(v->header + H_DISK, size);
    int r = write_header(node);
    r = r ? r : drop_entries(node, n);
    if (r < 0) {
        return r;
    }
    if (!places_init(&p, MIN(v->allocated, places_in_file(node, v)), NULL)) {
        return -ENOMEM;
    }
    g_autofree uint8_t *bits = p.bits;
    r = survey(node, &p, &found);
    if (r == 0 && !found.corruptions && p.used < v->allocated) {
        r = compact(node, &p);
    }
    le32_put(v->header + H_BLOCKS, n);
    r = r ? r : write_header(node);
    tables_forget(v->tables);
    return r;
}

/* A static image has a place for every block; PREALLOC_* asks for the same. */
static bool fill_up(struct node *node, uint32_t from, enum preallocation how, GError **error)
{
    struct vdi *v = vdi_of(node);
    int r = v->next_known ? 0 : find_next(v);
    uint32_t first = v->next, n = v->n - from;
    if (r == 0 &&
        !file_preallocate(node->file, place_byte(v, first),
                          place_byte(v, first) + ((uint64_t)n << BLOCK_SHIFT), how, error)) {
        return false;
    }
    for (uint32_t b = from; b < v->n && r == 0; b++) {
        v->next++;
        r = vdi_set(node, b, place_byte(v, first++));
    }
    r = r ? r : vdi_flush(node);
    if (r < 0) {
        error_set_errno(error, -r, "cannot write the block map");
    }
    return r == 0;
}

static bool vdi_resize(struct node *node, uint64_t size, enum preallocation how, GError **error)
{
    struct vdi *v = vdi_of(node);
    bool fixed = le32_at(v->header + H_TYPE) == TYPE_STATIC;
    uint32_t n = (uint32_t)((size + BLOCK - 1) >> BLOCK_SHIFT), old = v->n;
    uint8_t before[HEADER_BYTES];
    if (!check_size(size, error)) {
        return false;
    }
    memcpy(before, v->header, HEADER_BYTES);
    int r = vdi_flush(node);
    r = r                    ? r
        : size >= node->size ? grow(node, size, MAX(n, v->n))
                             : shrink(node, size, n);
    if (r < 0) {
        if (file_read(node->file, 0, v->header, HEADER_BYTES)) {
            memcpy(v->header, before, HEADER_BYTES);
        }
        take_header(node, v); /* as far as it came */
        error_set_errno(error, -r, "cannot change the block map to %u entries", n);
        return false;
    }
    return n <= old || (!fixed && how == PREALLOC_OFF) || fill_up(node, old, how, error);
}

static const struct option_desc create_options[] = {
    {"static", "bool (on/off)", "VDI static (pre-allocated) image", "off"},
    {NULL},
};

static const struct format_tools tools = {
    .create_options = create_options,
    .create = vdi_create,
    .resize = vdi_resize,
    .check = vdi_check,
    .cluster_size = vdi_cluster_size,
    .measure = vdi_measure,
    .dirty_flag = true,
};

const struct image_format format_vdi = {
    .name = "vdi",
    .about = "VirtualBox disk image",
    .spec = "VirtualBox source, VDICore.h",
    .probe = vdi_probe,
    .open = vdi_open,
    .close = vdi_close,
    .map = vdi_map,
    .place = vdi_place,
    .link = vdi_link,
    .unplace = vdi_unplace,
    .zero = vdi_zero,
    .flush = vdi_flush,
    .tools = &tools,
};
