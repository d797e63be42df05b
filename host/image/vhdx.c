/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * vhdx: Hyper-V's disk images, dynamic and fixed.
 *
 * The block allocation table (BAT) has 64 bits for each block of the disk, and after each chunk
 * of them one for a bitmap that only differencing disks use.  What changes in it goes through
 * the log: flush() lets the guest's data reach the medium, then the log, then the BAT.
 *
 * Spec: [MS-VHDX] "Virtual Hard Disk v2 (VHDX) File Format", sections 2.1 to 2.6.
 */
#include "host/image/vhdx.h"

#include "base/bytes.h"

#include <string.h>

/* GUIDs as they stand in the file. */
const uint8_t vhdx_guid_bat[] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
const uint8_t vhdx_guid_metadata[] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                      0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
const uint8_t vhdx_guid_params[] = {0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
                                    0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b};
const uint8_t vhdx_guid_size[] = {0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
                                  0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8};
const uint8_t vhdx_guid_disk_id[] = {0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
                                     0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46};
const uint8_t vhdx_guid_sector[] = {0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
                                    0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f};
const uint8_t vhdx_guid_physical[] = {0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44,
                                      0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56};
const uint8_t vhdx_guid_parent[] = {0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45,
                                    0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c};

enum { SCAN_MAX = 16 << 20, CHANGES = 64 };
enum { STATE_MASK = 7, AT_SHIFT = 20 };

/* ---- the BAT ---- */

uint32_t vhdx_chunk(uint32_t block_size, uint32_t sector_size)
{
    return (uint32_t)((UINT64_C(1) << 23) * sector_size / block_size);
}

uint64_t vhdx_entries(uint64_t n, uint32_t chunk)
{
    return n ? n + (n - 1) / chunk : 0;
}

uint64_t vhdx_index(const struct vhdx *v, uint64_t block)
{
    return block + block / v->chunk;
}

int vhdx_entry_get(struct vhdx *v, uint64_t index, bool wait, uint64_t *entry)
{
    uint8_t *raw;
    int r = tables_at(v->tables, v->bat.at + index * 8, wait, &raw);
    *entry = r ? 0 : le64_at(raw);
    return r;
}

static bool overlaps(const struct vhdx_region *r, uint64_t at, uint64_t n)
{
    return at < r->at + r->length && r->at < at + n;
}

/* Whether a block may lie at @at: not where the image's own structures are. */
static bool place_good(const struct vhdx *v, uint64_t at)
{
    return at >= VHDX_MIB && !overlaps(&v->bat, at, v->block_size) &&
           !overlaps(&v->metadata, at, v->block_size) && !overlaps(&v->log, at, v->block_size);
}

static uint64_t entry_at(uint64_t entry)
{
    return entry >> AT_SHIFT << AT_SHIFT;
}

static int vhdx_get(struct node *node, uint64_t b, bool wait, enum extent_kind *kind, uint64_t *at)
{
    struct vhdx *v = vhdx_of(node);
    uint64_t entry;
    int r = b < v->n ? vhdx_entry_get(v, vhdx_index(v, b), wait, &entry) : -EIO;
    if (r < 0) {
        return r;
    }
    *at = entry_at(entry);
    switch (entry & STATE_MASK) {
    case VHDX_NOT_PRESENT:
        *kind = EXTENT_ABSENT;
        return 0;
    case VHDX_UNDEFINED:
    case VHDX_ZERO:
    case VHDX_UNMAPPED:
        *kind = EXTENT_ZERO;
        return 0;
    case VHDX_PRESENT:
        *kind = EXTENT_DATA;
        return place_good(v, *at) ? 0 : -EIO;
    default:
        return -EIO;
    }
}

/* The changed pages go through the log, in rounds that it has room for. */
static int write_tables(struct node *node)
{
    struct vhdx *v = vhdx_of(node);
    struct vhdx_change changes[CHANGES];
    struct tables_page pages[CHANGES];
    unsigned max = MIN(vhdx_changes_max(v), CHANGES), n;
    int r = 0;
    while (r == 0 && (n = tables_list(v->tables, pages, max))) {
        for (unsigned i = 0; i < n; i++) {
            changes[i] = (struct vhdx_change){pages[i].at, pages[i].bytes};
        }
        r = vhdx_change(node, changes, n);
        for (unsigned i = 0; i < n && r == 0; i++) {
            tables_written(v->tables, pages[i].at);
        }
    }
    return r;
}

/* What the log holds is as good as in its place: nothing need follow it. */
int vhdx_flush(struct node *node)
{
    struct vhdx *v = vhdx_of(node);
    if (node->read_only) {
        return 0;
    }
    return tables_dirty(v->tables) ? write_tables(node) : file_flush(node->file);
}

/* A changed page must make room. */
static int vhdx_clean(void *owner)
{
    return vhdx_flush(owner);
}

int vhdx_entry_set(struct node *node, uint64_t index, uint64_t entry)
{
    struct vhdx *v = vhdx_of(node);
    uint64_t at = v->bat.at + index * 8;
    uint8_t *raw;
    int r = tables_at(v->tables, at, true, &raw);
    if (r == 0) {
        le64_put(raw, entry);
        tables_changed(v->tables, at, 8);
    }
    return r;
}

static int vhdx_set(struct node *node, uint64_t b, uint64_t at)
{
    return vhdx_entry_set(node, vhdx_index(vhdx_of(node), b), at | VHDX_PRESENT);
}

static uint64_t region_end(const struct vhdx_region *r)
{
    return r->at + r->length;
}

/* Behind everything. */
int vhdx_find_next(struct node *node)
{
    struct vhdx *v = vhdx_of(node);
    uint64_t next = MAX(file_size(node->file), region_end(&v->bat));
    next = MAX(next, MAX(region_end(&v->metadata), region_end(&v->log)));
    for (uint64_t b = 0; b < v->n; b++) {
        uint64_t entry;
        int r = vhdx_entry_get(v, vhdx_index(v, b), true, &entry);
        if (r < 0) {
            return r;
        }
        if ((entry & STATE_MASK) == VHDX_PRESENT) {
            next = MAX(next, entry_at(entry) + v->block_size);
        }
    }
    v->next = (next + VHDX_MIB - 1) & ~(uint64_t)(VHDX_MIB - 1);
    v->next_known = true;
    return 0;
}

static int vhdx_take(struct node *node, uint64_t b, uint64_t *at)
{
    struct vhdx *v = vhdx_of(node);
    int r = vhdx_start(node);
    (void)b;
    if (r == 0 && !v->next_known) {
        r = vhdx_find_next(node);
    }
    if (r == 0 && v->next > INT64_MAX / 2) {
        r = -EFBIG;
    }
    if (r == 0) {
        *at = v->next;
        r = file_zero(node->file, *at, v->block_size, true);
    }
    v->next += r ? 0 : v->block_size;
    return r;
}

static int vhdx_touch(struct node *node, uint64_t b, uint64_t at)
{
    (void)b, (void)at;
    return vhdx_start(node);
}

static bool vhdx_touched(struct node *node, uint64_t b)
{
    (void)b;
    return vhdx_of(node)->started;
}

/* ---- opening: regions ---- */

enum { T_SUM = 4, T_COUNT = 8, T_BYTES = 16 };
enum { R_AT = 16, R_LENGTH = 24, R_REQUIRED = 28, R_BYTES = 32 };
enum { ENTRIES_MAX = 2047 };

static unsigned vhdx_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)file_name;
    return n >= 8 && !memcmp(head, "vhdxfile", 8) ? 100 : 0;
}

static bool check_signature(struct node *node, GError **error)
{
    uint8_t head[8];
    int r = file_read(node->file, 0, head, sizeof(head));
    if (r < 0 || memcmp(head, "vhdxfile", 8)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Invalid VHDX signature: the file does not begin with \"vhdxfile\"");
        return false;
    }
    return true;
}

/* A good region table in @raw; false: neither copy is. */
static bool read_region_table(struct node *node, uint8_t *raw, GError **error)
{
    for (unsigned i = 0; i < 2; i++) {
        if (!file_read(node->file, VHDX_REGIONS_AT[i], raw, VHDX_TABLE_BYTES) &&
            !memcmp(raw, "regi", 4) &&
            le32_at(raw + T_SUM) == vhdx_crc(raw, VHDX_TABLE_BYTES, T_SUM)) {
            return true;
        }
    }
    g_set_error(error, LODGE_ERROR, EINVAL,
                "no valid region table: the signature or checksum of both copies is wrong");
    return false;
}

static bool take_region(struct node *node, const uint8_t *e, GError **error)
{
    struct vhdx *v = vhdx_of(node);
    struct vhdx_region r = {le64_at(e + R_AT), le32_at(e + R_LENGTH)};
    struct vhdx_region *slot = !memcmp(e, vhdx_guid_bat, VHDX_GUID)        ? &v->bat
                               : !memcmp(e, vhdx_guid_metadata, VHDX_GUID) ? &v->metadata
                                                                           : NULL;
    if (!slot) {
        if (le32_at(e + R_REQUIRED) & 1) {
            g_set_error(error, LODGE_ERROR, ENOTSUP,
                        "region %08x at byte %" G_GUINT64_FORMAT " is required and not known",
                        le32_at(e), r.at);
        }
        return !(le32_at(e + R_REQUIRED) & 1);
    }
    if (slot->length) {
        g_set_error(error, LODGE_ERROR, EINVAL, "two %s regions",
                    slot == &v->bat ? "BAT" : "metadata");
        return false;
    }
    if (r.at < VHDX_MIB || r.at % VHDX_MIB || r.length == 0 || r.length % VHDX_MIB ||
        r.at > INT64_MAX / 2) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "the %s region of %" G_GUINT64_FORMAT " bytes at byte %" G_GUINT64_FORMAT
                    " does not begin and end at multiples of 1 MiB",
                    slot == &v->bat ? "BAT" : "metadata", r.length, r.at);
        return false;
    }
    *slot = r;
    return true;
}

static bool check_regions(const struct node *node, const struct vhdx *v, GError **error)
{
    if (!v->bat.length || !v->metadata.length) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the region table has no %s region",
                    v->bat.length ? "metadata" : "BAT");
        return false;
    }
    if (overlaps(&v->bat, v->metadata.at, v->metadata.length) ||
        overlaps(&v->log, v->metadata.at, v->metadata.length) ||
        overlaps(&v->log, v->bat.at, v->bat.length)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "BAT (at byte %" G_GUINT64_FORMAT "), metadata (%" G_GUINT64_FORMAT
                    ") and log (%" G_GUINT64_FORMAT ") overlap",
                    v->bat.at, v->metadata.at, v->log.at);
        return false;
    }
    if (v->metadata.at + VHDX_TABLE_BYTES > file_size(node->file)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "the metadata region at byte %" G_GUINT64_FORMAT " is behind the file's end",
                    v->metadata.at);
        return false;
    }
    return true;
}

static bool read_regions(struct node *node, GError **error)
{
    struct vhdx *v = vhdx_of(node);
    g_autofree uint8_t *raw = g_malloc(VHDX_TABLE_BYTES);
    v->bat = v->metadata = (struct vhdx_region){0};
    if (!read_region_table(node, raw, error)) {
        return false;
    }
    uint32_t n = le32_at(raw + T_COUNT);
    if (n > ENTRIES_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%u entries in the region table, the most is %u", n,
                    ENTRIES_MAX);
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!take_region(node, raw + T_BYTES + (size_t)i * R_BYTES, error)) {
            return false;
        }
    }
    return check_regions(node, v, error);
}

/* ---- opening: metadata ---- */

enum { M_COUNT = 10, M_BYTES = 32, M_AT = 16, M_LENGTH = 20, M_FLAGS = 24, M_REQUIRED = 4 };
enum { PARAM_KEEP_BLOCKS = 1, PARAM_HAS_PARENT = 2 };

struct metadata { /* where the items are, in bytes from the region's start; 0: absent */
    uint32_t params, size, sector, parent, parent_bytes;
};

struct item {
    const uint8_t *guid;
    const char *name;
    uint32_t bytes;
    size_t slot;
};

static const struct item items[] = {
    {vhdx_guid_params, "file parameters", 8, offsetof(struct metadata, params)},
    {vhdx_guid_size, "virtual disk size", 8, offsetof(struct metadata, size)},
    {vhdx_guid_sector, "logical sector size", 4, offsetof(struct metadata, sector)},
};

static bool item_known(const uint8_t *e)
{
    return !memcmp(e, vhdx_guid_disk_id, VHDX_GUID) || !memcmp(e, vhdx_guid_physical, VHDX_GUID);
}

static bool take_item(struct node *node, const uint8_t *e, struct metadata *m, GError **error)
{
    struct vhdx *v = vhdx_of(node);
    uint32_t at = le32_at(e + M_AT), length = le32_at(e + M_LENGTH);
    if (length && (at < VHDX_TABLE_BYTES || (uint64_t)at + length > v->metadata.length ||
                   v->metadata.at + at + length > file_size(node->file))) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "metadata item %08x of %u bytes at byte %u is not inside the metadata region",
                    le32_at(e), length, at);
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(items); i++) {
        uint32_t *slot = (uint32_t *)((char *)m + items[i].slot);
        if (memcmp(e, items[i].guid, VHDX_GUID)) {
            continue;
        }
        if (length < items[i].bytes || *slot) {
            g_set_error(error, LODGE_ERROR, EINVAL, "metadata item \"%s\" has %u bytes%s",
                        items[i].name, length, *slot ? " and is there twice" : "");
            return false;
        }
        *slot = at;
        return true;
    }
    if (!memcmp(e, vhdx_guid_parent, VHDX_GUID)) {
        m->parent = at;
        m->parent_bytes = length;
        return true;
    }
    if (!item_known(e) && (le32_at(e + M_FLAGS) & M_REQUIRED)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "metadata item %08x is required and not known",
                    le32_at(e));
        return false;
    }
    return true;
}

static bool read_items(struct node *node, struct metadata *m, GError **error)
{
    struct vhdx *v = vhdx_of(node);
    g_autofree uint8_t *raw = g_malloc(VHDX_TABLE_BYTES);
    int r = file_read(node->file, v->metadata.at, raw, VHDX_TABLE_BYTES);
    if (r < 0 || memcmp(raw, "metadata", 8)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "no metadata table at byte %" G_GUINT64_FORMAT ": the signature is wrong",
                    v->metadata.at);
        return false;
    }
    uint32_t n = le16_at(raw + M_COUNT);
    if (n > ENTRIES_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%u entries in the metadata table, the most is %u",
                    n, ENTRIES_MAX);
        return false;
    }
    for (uint32_t i = 1; i <= n; i++) {
        if (!take_item(node, raw + (size_t)i * M_BYTES, m, error)) {
            return false;
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(items); i++) {
        if (!*(uint32_t *)((char *)m + items[i].slot)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "metadata item \"%s\" is missing",
                        items[i].name);
            return false;
        }
    }
    return true;
}

enum { L_COUNT = 18, L_HEAD = 20, L_ENTRY = 12, L_VALUE_AT = 4, L_KEY_N = 8, L_VALUE_N = 10 };

static char *utf16_text(const uint8_t *raw, size_t have, uint32_t at, uint16_t n)
{
    return at <= have && n <= have - at
               ? g_convert((const char *)raw + at, n, "UTF-8", "UTF-16LE", NULL, NULL, NULL)
               : NULL;
}

/* The parent as the parent locator names it, for the message that refuses it. */
static char *parent_name(struct node *node, const struct metadata *m)
{
    struct vhdx *v = vhdx_of(node);
    uint32_t n = MIN(m->parent_bytes, 65536);
    g_autofree uint8_t *raw = g_malloc0((size_t)n + L_HEAD);
    if (!m->parent || file_read(node->file, v->metadata.at + m->parent, raw, n)) {
        return g_strdup("");
    }
    for (uint32_t i = 0; i < le16_at(raw + L_COUNT) && L_HEAD + (i + 1) * L_ENTRY <= n; i++) {
        const uint8_t *e = raw + L_HEAD + (size_t)i * L_ENTRY;
        g_autofree char *key = utf16_text(raw, n, le32_at(e), le16_at(e + L_KEY_N));
        g_autofree char *value =
            utf16_text(raw, n, le32_at(e + L_VALUE_AT), le16_at(e + L_VALUE_N));
        if (value && key &&
            (!strcmp(key, "relative_path") || !strcmp(key, "absolute_win32_path"))) {
            return g_strescape(value, NULL);
        }
    }
    return g_strdup("");
}

static bool is_size(uint32_t value, uint32_t min, uint32_t max)
{
    return value >= min && value <= max && !(value & (value - 1));
}

static bool check_params(struct node *node, uint64_t size, GError **error)
{
    struct vhdx *v = vhdx_of(node);
    if (!is_size(v->block_size, VHDX_MIB, 256 * VHDX_MIB)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "block size %u is not a power of two between 1 MiB and 256 MiB", v->block_size);
        return false;
    }
    if (v->sector_size != 512 && v->sector_size != 4096) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "logical sector size %u is not 512 or 4096",
                    v->sector_size);
        return false;
    }
    if (size == 0 || size > VHDX_MAX_SIZE || size % v->sector_size) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "a virtual disk size of %" G_GUINT64_FORMAT
                    " bytes is not a multiple of the sector size between 1 sector and 64 TiB",
                    size);
        return false;
    }
    return true;
}

static bool check_bat(struct node *node, GError **error)
{
    struct vhdx *v = vhdx_of(node);
    if (v->entries * 8 > v->bat.length || v->bat.at + v->entries * 8 > file_size(node->file)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "a BAT of %" G_GUINT64_FORMAT
                    " entries does not fit in its region of %" G_GUINT64_FORMAT
                    " bytes at byte %" G_GUINT64_FORMAT,
                    v->entries, v->bat.length, v->bat.at);
        return false;
    }
    return true;
}

static bool read_metadata(struct node *node, GError **error)
{
    struct vhdx *v = vhdx_of(node);
    struct metadata m = {0};
    uint8_t params[8], size[8], sector[4];
    if (!read_items(node, &m, error)) {
        return false;
    }
    v->params_at = v->metadata.at + m.params;
    v->size_at = v->metadata.at + m.size;
    int r = file_read(node->file, v->params_at, params, sizeof(params));
    r = r ? r : file_read(node->file, v->size_at, size, sizeof(size));
    r = r ? r : file_read(node->file, v->metadata.at + m.sector, sector, sizeof(sector));
    if (r < 0) {
        error_set_errno(error, -r, "cannot read the metadata");
        return false;
    }
    if (le32_at(params + 4) & PARAM_HAS_PARENT) {
        g_autofree char *name = parent_name(node, &m);
        g_set_error(
            error, LODGE_ERROR, ENOTSUP,
            "differencing VHDX with parent \"%.200s\": differencing disks are not supported", name);
        return false;
    }
    v->block_size = le32_at(params);
    v->sector_size = le32_at(sector);
    v->keep_blocks = le32_at(params + 4) & PARAM_KEEP_BLOCKS;
    if (!check_params(node, le64_at(size), error)) {
        return false;
    }
    node->size = le64_at(size);
    v->chunk = vhdx_chunk(v->block_size, v->sector_size);
    v->n = (node->size + v->block_size - 1) / v->block_size;
    v->entries = vhdx_entries(v->n, v->chunk);
    v->blocks.shift = (unsigned)__builtin_ctz(v->block_size);
    return check_bat(node, error);
}

static bool entry_wrong(const struct vhdx *v, uint64_t entry, const char **why)
{
    unsigned state = (unsigned)(entry & STATE_MASK);
    *why = state == 4 || state == 5 ? "has a reserved state"
           : state == VHDX_PARTLY   ? "is of a differencing disk"
           : state == VHDX_PRESENT && !place_good(v, entry_at(entry))
               ? "lies where the image's own structures are"
               : NULL;
    return *why;
}

/* Payload entries, as far as that is quick; later ones are looked at when they are used. */
static bool scan_bat(struct node *node, GError **error)
{
    struct vhdx *v = vhdx_of(node);
    uint64_t n = MIN(v->entries, SCAN_MAX / 8);
    const char *why;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t entry;
        int r = vhdx_entry_get(v, i, true, &entry);
        if (r < 0) {
            error_set_errno(error, -r, "cannot read the BAT");
            return false;
        }
        if (i % (v->chunk + UINT64_C(1)) != v->chunk && entry_wrong(v, entry, &why)) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "BAT entry %" G_GUINT64_FORMAT " (0x%" G_GINT64_MODIFIER "x) %s", i, entry,
                        why);
            return false;
        }
    }
    return true;
}

static bool vhdx_open(struct node *node, unsigned flags, GError **error)
{
    struct vhdx *v = node->priv = g_new0(struct vhdx, 1);
    v->blocks = (struct blocks){.get = vhdx_get,
                                .set = vhdx_set,
                                .take = vhdx_take,
                                .touch = vhdx_touch,
                                .touched = vhdx_touched};
    node->granule = BLOCKS_GRANULE;
    node->align = 1;
    v->tables = tables_new(node->file, VHDX_SECTOR, vhdx_clean, node);
    return check_signature(node, error) && vhdx_read_headers(node, error) &&
           vhdx_replay(node, error) && read_regions(node, error) && read_metadata(node, error) &&
           ((flags & (OPEN_NO_IO | OPEN_CHECK)) || scan_bat(node, error));
}

static void vhdx_close(struct node *node)
{
    struct vhdx *v = vhdx_of(node);
    if (v) {
        if (v->tables && !node->read_only && (!tables_dirty(v->tables) || vhdx_flush(node) == 0)) {
            vhdx_finish(node); /* else the log is needed the next time */
        }
        tables_free(v->tables);
        blocks_clear(&v->blocks);
        g_clear_pointer(&node->priv, g_free);
    }
}

/* ---- the data path ---- */

static int vhdx_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                    struct extent *out)
{
    return blocks_map(node, &vhdx_of(node)->blocks, offset, length, wait, out);
}

static int vhdx_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    return blocks_place(node, &vhdx_of(node)->blocks, offset, length, out);
}

static int vhdx_link(struct node *node, uint64_t offset, const struct extent *placed)
{
    return blocks_link(node, &vhdx_of(node)->blocks, offset, placed);
}

static void vhdx_unplace(struct node *node, uint64_t offset, const struct extent *placed)
{
    blocks_unplace(&vhdx_of(node)->blocks, offset, placed);
}

static int vhdx_zero(struct node *node, uint64_t offset, uint64_t length, enum zero_kind kind)
{
    return blocks_zero(node, &vhdx_of(node)->blocks, offset, length, kind);
}

/* ---- whole images ---- */

static void report(struct check_result *out, uint64_t block, uint64_t entry, const char *why)
{
    out->corruptions++;
    check_tell(out, "ERROR block %" G_GUINT64_FORMAT ": BAT entry 0x%" G_GINT64_MODIFIER "x %s",
               block, entry, why);
}

/* A bit for each MiB of the file. */
static bool take_place(uint8_t *bits, uint64_t at, uint64_t n)
{
    bool free = true;
    for (uint64_t m = at / VHDX_MIB; m < (at + n) / VHDX_MIB; m++) {
        free &= !(bits[m / 8] >> m % 8 & 1);
        bits[m / 8] |= (uint8_t)(1 << m % 8);
    }
    return free;
}

/* Bytes of a block that are part of the disk: the file of a fixed one may end after them. */
static uint64_t disk_part(const struct node *node, uint64_t block)
{
    uint64_t size = vhdx_of(node)->block_size;
    return MIN(size, node->size - block * size);
}

static bool vhdx_check(struct node *node, unsigned fix, struct check_result *out, GError **error)
{
    struct vhdx *v = vhdx_of(node);
    uint64_t size = file_size(node->file);
    g_autofree uint8_t *bits = g_try_malloc0((size + v->block_size) / VHDX_MIB / 8 + 1);
    (void)fix;
    if (!bits) {
        error_set_errno(error, ENOMEM, "a bitmap of the file");
        return false;
    }
    out->corruptions_fixed = v->replayed;
    for (uint64_t b = 0; b < v->n; b++) {
        uint64_t entry;
        const char *why;
        int r = vhdx_entry_get(v, vhdx_index(v, b), true, &entry);
        if (r < 0) {
            error_set_errno(error, -r, "cannot read the BAT");
            return false;
        }
        if (entry_wrong(v, entry, &why)) {
            report(out, b, entry, why);
        } else if ((entry & STATE_MASK) != VHDX_PRESENT) {
            continue;
        } else if (entry_at(entry) > size || disk_part(node, b) > size - entry_at(entry)) {
            report(out, b, entry, "is behind the file's end");
        } else if (!take_place(bits, entry_at(entry), v->block_size)) {
            report(out, b, entry, "overlaps another block");
        }
    }
    return true;
}

static uint32_t vhdx_cluster_size(struct node *node)
{
    return vhdx_of(node)->block_size;
}

static const struct format_tools tools = {
    .create_options = vhdx_create_options,
    .create = vhdx_create,
    .resize = vhdx_resize,
    .check = vhdx_check,
    .cluster_size = vhdx_cluster_size,
    .measure = vhdx_measure,
    .dirty_flag = true,
};

const struct image_format format_vhdx = {
    .name = "vhdx",
    .about = "Hyper-V disk image",
    .spec = "[MS-VHDX] Virtual Hard Disk v2 (VHDX) File Format",
    .probe = vhdx_probe,
    .open = vhdx_open,
    .close = vhdx_close,
    .map = vhdx_map,
    .place = vhdx_place,
    .link = vhdx_link,
    .unplace = vhdx_unplace,
    .zero = vhdx_zero,
    .flush = vhdx_flush,
    .tools = &tools,
};
