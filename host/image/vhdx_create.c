/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * vhdx: new images, and other sizes of old ones.
 *
 * Spec: [MS-VHDX] 2.2 "Header Section", 2.5 "BAT", 2.6 "Metadata Region".
 */
#include "base/bytes.h"
#include "host/image/options.h"
#include "host/image/vhdx.h"

#include <string.h>

enum { LOG_AT = VHDX_MIB, METADATA_BYTES = VHDX_MIB, SECTOR_BYTES = 512, PHYSICAL_BYTES = 4096 };
enum { PARAMS_AT = 65536, SIZE_AT = PARAMS_AT + 8, DISK_ID_AT = SIZE_AT + 8 };
enum { LOGICAL_AT = DISK_ID_AT + 16, PHYSICAL_AT = LOGICAL_AT + 4, ITEMS = 5 };
static const uint64_t GIB = UINT64_C(1) << 30, TIB = UINT64_C(1) << 40;

const struct option_desc vhdx_create_options[] = {
    {"block_size", "size",
     "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.", "0"},
    {"block_state_zero", "bool (on/off)",
     "Force use of payload blocks of type 'ZERO'.  Non-standard, but default.  Do not set to 'off' "
     "when using 'qemu-img convert' with subformat=dynamic.",
     NULL},
    {"log_size", "size", "Log size; min 1MB.", "1048576"},
    {"subformat", "str",
     "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'.", NULL},
    {NULL},
};

struct layout {
    uint64_t size, n, entries, log_bytes, metadata_at, bat_at, bat_bytes, data_at;
    uint32_t block_size, chunk;
    bool fixed, placed, zero;
};

static uint64_t whole_mib(uint64_t n)
{
    return (n + VHDX_MIB - 1) & ~(uint64_t)(VHDX_MIB - 1);
}

static uint32_t natural_block_size(uint64_t size)
{
    return size > 32 * TIB    ? 64 * VHDX_MIB
           : size > 100 * GIB ? 32 * VHDX_MIB
           : size > GIB       ? 16 * VHDX_MIB
                              : 8 * VHDX_MIB;
}

static bool take_options(const struct image_create *how, struct layout *l, GError **error)
{
    const char *subformat = option_str(how->options, "subformat");
    uint64_t block = option_size(how->options, "block_size", 0);
    l->fixed = subformat && !strcmp(subformat, "fixed");
    l->zero = option_bool(how->options, "block_state_zero", true);
    l->log_bytes = whole_mib(MAX(option_size(how->options, "log_size", VHDX_MIB), 1));
    block = block ? block : natural_block_size(how->size);
    if (subformat && !l->fixed && strcmp(subformat, "dynamic")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid subformat '%s'", subformat);
        return false;
    }
    if (block < VHDX_MIB || block > 256 * VHDX_MIB || (block & (block - 1))) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Block size %" G_GUINT64_FORMAT " is not a power of two from 1 MiB to 256 MiB",
                    block);
        return false;
    }
    if (l->log_bytes >= UINT64_C(1) << 32) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Log size must be smaller than 4 GB");
        return false;
    }
    l->block_size = (uint32_t)block;
    return true;
}

static bool plan(const struct image_create *how, struct layout *l, GError **error)
{
    *l = (struct layout){.size = (how->size + SECTOR_BYTES - 1) & ~(uint64_t)(SECTOR_BYTES - 1)};
    if (how->size == 0 || l->size > VHDX_MAX_SIZE) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "Image size %" G_GUINT64_FORMAT " is not between 1 byte and 64TB", how->size);
        return false;
    }
    if (!take_options(how, l, error)) {
        return false;
    }
    l->placed = l->fixed || how->preallocation != PREALLOC_OFF;
    l->n = (l->size + l->block_size - 1) / l->block_size;
    l->chunk = vhdx_chunk(l->block_size, SECTOR_BYTES);
    l->entries = vhdx_entries(l->n, l->chunk);
    l->metadata_at = LOG_AT + l->log_bytes;
    l->bat_at = l->metadata_at + METADATA_BYTES;
    l->bat_bytes = whole_mib(l->entries * 8);
    l->data_at = l->bat_at + l->bat_bytes;
    return true;
}

/* ---- the parts of a file ---- */

static int put_identifier(struct file *f)
{
    static const char creator[] = "Lodge";
    uint8_t raw[8 + 512] = "vhdxfile";
    for (unsigned i = 0; creator[i]; i++) {
        le16_put(raw + 8 + 2 * i, (uint16_t)creator[i]);
    }
    return file_write(f, 0, raw, sizeof(raw));
}

static int put_headers(struct file *f, const struct layout *l)
{
    uint8_t h[VHDX_HEADER_BYTES] = "head";
    int r = 0;
    blocks_uuid(h + 16); /* file write */
    blocks_uuid(h + 32); /* data write; the log's stays null: nothing to replay */
    le16_put(h + 66, 1);
    le32_put(h + 68, (uint32_t)l->log_bytes);
    le64_put(h + 72, LOG_AT);
    for (unsigned i = 0; i < 2 && r == 0; i++) {
        le64_put(h + 8, i + 1);
        le32_put(h + 4, vhdx_crc(h, sizeof(h), 4));
        r = file_write(f, VHDX_HEADER_AT[i], h, sizeof(h));
    }
    return r;
}

static void put_region(uint8_t *e, const uint8_t *guid, uint64_t at, uint64_t length)
{
    memcpy(e, guid, VHDX_GUID);
    le64_put(e + 16, at);
    le32_put(e + 24, (uint32_t)length);
    le32_put(e + 28, 1); /* required */
}

/* One copy after the other: a crash leaves one that is whole. */
static int put_regions(struct file *f, const struct vhdx_region *bat,
                       const struct vhdx_region *metadata)
{
    g_autofree uint8_t *raw = g_malloc0(VHDX_TABLE_BYTES);
    int r = 0;
    memcpy(raw, "regi", 4);
    le32_put(raw + 8, 2);
    put_region(raw + 16, vhdx_guid_bat, bat->at, bat->length);
    put_region(raw + 48, vhdx_guid_metadata, metadata->at, metadata->length);
    le32_put(raw + 4, vhdx_crc(raw, VHDX_TABLE_BYTES, 4));
    for (unsigned i = 0; i < 2 && r == 0; i++) {
        r = file_write(f, VHDX_REGIONS_AT[i], raw, VHDX_TABLE_BYTES);
        r = r ? r : file_flush(f);
    }
    return r;
}

static int put_metadata(struct file *f, const struct layout *l)
{
    enum { REQUIRED = 4, OF_DISK = 2 };
    static const struct {
        const uint8_t *guid;
        uint32_t at, bytes, flags;
    } rows[ITEMS] = {
        {vhdx_guid_params, PARAMS_AT, 8, REQUIRED},
        {vhdx_guid_size, SIZE_AT, 8, REQUIRED | OF_DISK},
        {vhdx_guid_disk_id, DISK_ID_AT, VHDX_GUID, REQUIRED | OF_DISK},
        {vhdx_guid_sector, LOGICAL_AT, 4, REQUIRED | OF_DISK},
        {vhdx_guid_physical, PHYSICAL_AT, 4, REQUIRED | OF_DISK},
    };
    g_autofree uint8_t *raw = g_malloc0(PARAMS_AT + VHDX_SECTOR);
    memcpy(raw, "metadata", 8);
    le16_put(raw + 10, ITEMS);
    for (unsigned i = 0; i < ITEMS; i++) {
        uint8_t *e = raw + 32 * (i + 1);
        memcpy(e, rows[i].guid, VHDX_GUID);
        le32_put(e + 16, rows[i].at);
        le32_put(e + 20, rows[i].bytes);
        le32_put(e + 24, rows[i].flags);
    }
    le32_put(raw + PARAMS_AT, l->block_size);
    le32_put(raw + PARAMS_AT + 4, l->fixed);
    le64_put(raw + SIZE_AT, l->size);
    blocks_uuid(raw + DISK_ID_AT);
    le32_put(raw + LOGICAL_AT, SECTOR_BYTES);
    le32_put(raw + PHYSICAL_AT, PHYSICAL_BYTES);
    return file_write(f, l->metadata_at, raw, PARAMS_AT + VHDX_SECTOR);
}

static int put_bat(struct file *f, const struct layout *l)
{
    uint8_t raw[VHDX_SECTOR];
    uint64_t at = l->data_at;
    int r = 0;
    for (uint64_t i = 0; i < l->entries && r == 0; i += sizeof(raw) / 8) {
        uint64_t n = MIN(l->entries - i, sizeof(raw) / 8);
        memset(raw, 0, sizeof(raw));
        for (uint64_t k = 0; k < n; k++) {
            bool bitmap = (i + k) % (l->chunk + UINT64_C(1)) == l->chunk;
            if (!bitmap) {
                le64_put(raw + k * 8, l->placed ? at | VHDX_PRESENT
                                      : l->zero ? VHDX_ZERO
                                                : VHDX_NOT_PRESENT);
                at += l->block_size;
            }
        }
        r = file_write(f, l->bat_at + i * 8, raw, sizeof(raw));
    }
    return r;
}

bool vhdx_create(const struct image_create *how, GError **error)
{
    struct layout l;
    struct file *f = how->file;
    if (!plan(how, &l, error)) {
        return false;
    }
    struct vhdx_region bat = {l.bat_at, l.bat_bytes}, metadata = {l.metadata_at, METADATA_BYTES};
    int r = put_identifier(f);
    r = r ? r : put_headers(f, &l);
    r = r ? r : put_metadata(f, &l);
    r = r ? r : put_bat(f, &l);
    r = r ? r : put_regions(f, &bat, &metadata);
    if (r < 0) {
        error_set_errno(error, -r, "cannot write the headers, metadata and BAT");
        return false;
    }
    return file_preallocate(f, l.data_at, l.data_at + (l.placed ? l.n * l.block_size : 0),
                            how->preallocation, error);
}

bool vhdx_measure(const struct image_create *how, uint64_t used, uint64_t out[2], GError **error)
{
    struct layout l;
    if (!plan(how, &l, error)) {
        return false;
    }
    uint64_t some = MIN((used + l.block_size - 1) / l.block_size, l.n);
    out[1] = l.data_at + l.n * l.block_size;
    out[0] = l.placed ? out[1] : l.data_at + some * l.block_size;
    return true;
}

/* ---- resize ---- */

/* The disk's size, through the log: its eight bytes may lie in two sectors. */
static int log_size(struct node *node, uint64_t size)
{
    struct vhdx *v = vhdx_of(node);
    uint8_t raw[2 * VHDX_SECTOR];
    uint64_t first = v->size_at & ~(uint64_t)(VHDX_SECTOR - 1);
    unsigned n = v->size_at + 8 > first + VHDX_SECTOR ? 2 : 1;
    struct vhdx_change changes[2] = {{first, raw}, {first + VHDX_SECTOR, raw + VHDX_SECTOR}};
    uint64_t there = MIN(n * UINT64_C(4096), file_size(node->file) - first);
    memset(raw, 0, sizeof(raw));
    int r = file_read(node->file, first, raw, there);
    le64_put(raw + (v->size_at - first), size);
    return r ? r : vhdx_change(node, changes, n);
}

/* The BAT moves to the end of the file: its region is too small for @entries. */
static int move_bat(struct node *node, uint64_t entries)
{
    struct vhdx *v = vhdx_of(node);
    struct vhdx_region to = {v->next, whole_mib(entries * 8)};
    uint8_t raw[VHDX_SECTOR];
    int r = file_zero(node->file, to.at, to.length, true);
    for (uint64_t at = 0; at < v->entries * 8 && r == 0; at += sizeof(raw)) {
        r = file_read(node->file, v->bat.at + at, raw, sizeof(raw));
        r = r ? r : file_write(node->file, to.at + at, raw, sizeof(raw));
    }
    r = r ? r : file_flush(node->file);
    r = r ? r : put_regions(node->file, &to, &v->metadata);
    if (r == 0) {
        v->next = to.at + to.length;
        v->bat = to;
        tables_forget(v->tables);
    }
    return r;
}

/* Entries [@from, @to) of blocks that the disk has not (yet) mean nothing. */
static int clear_entries(struct node *node, uint64_t from, uint64_t to)
{
    struct vhdx *v = vhdx_of(node);
    int r = 0;
    for (uint64_t i = from; i < to && r == 0; i++) {
        uint64_t entry;
        r = vhdx_entry_get(v, i, true, &entry);
        r = r || !entry ? r : vhdx_entry_set(node, i, 0);
    }
    return r ? r : vhdx_flush(node);
}

static int clear_tail(struct node *node)
{
    struct vhdx *v = vhdx_of(node);
    uint64_t in = node->size & (v->block_size - 1), at;
    enum extent_kind kind;
    int r = in ? v->blocks.get(node, node->size / v->block_size, true, &kind, &at) : 0;
    return r || !in || kind != EXTENT_DATA
               ? r
               : file_zero(node->file, at + in, v->block_size - in, true);
}

static void take_size(struct node *node, uint64_t size)
{
    struct vhdx *v = vhdx_of(node);
    node->size = size;
    v->n = (size + v->block_size - 1) / v->block_size;
    v->entries = vhdx_entries(v->n, v->chunk);
}

static int grow(struct node *node, uint64_t size)
{
    struct vhdx *v = vhdx_of(node);
    uint64_t entries = vhdx_entries((size + v->block_size - 1) / v->block_size, v->chunk);
    int r = v->next_known ? 0 : vhdx_find_next(node);
    r = r ? r : clear_tail(node);
    if (r == 0 && entries * 8 > v->bat.length) {
        r = move_bat(node, entries);
    }
    if (r == 0 && v->bat.at + entries * 8 > file_size(node->file)) {
        uint64_t end = file_size(node->file);
        r = file_zero(node->file, end, v->bat.at + v->bat.length - end, true);
    }
    r = r ? r : clear_entries(node, v->entries, entries);
    r = r ? r : log_size(node, size);
    if (r == 0) {
        take_size(node, size);
    }
    return r;
}

/* The blocks of entries [@from, @to) go back to the file system. */
static int discard_blocks(struct node *node, uint64_t from, uint64_t to)
{
    struct vhdx *v = vhdx_of(node);
    int r = 0;
    for (uint64_t b = from; b < to && r == 0; b++) {
        enum extent_kind kind;
        uint64_t at;
        r = v->blocks.get(node, b, true, &kind, &at);
        if (r == 0 && kind == EXTENT_DATA) {
            r = vhdx_entry_set(node, vhdx_index(v, b), 0);
            r = r ? r : vhdx_flush(node);
            file_discard(node->file, at, v->block_size);
        }
    }
    return r;
}

static int shrink(struct node *node, uint64_t size)
{
    struct vhdx *v = vhdx_of(node);
    uint64_t n = (size + v->block_size - 1) / v->block_size;
    int r = log_size(node, size);
    r = r ? r : discard_blocks(node, n, v->n);
    r = r ? r : clear_entries(node, vhdx_entries(n, v->chunk), v->entries);
    if (r == 0) {
        take_size(node, size);
    }
    return r;
}

/* The space first, so that a full disk changes no entry. */
static bool fill_up(struct node *node, uint64_t from, enum preallocation how, GError **error)
{
    struct vhdx *v = vhdx_of(node);
    uint64_t end = v->next + (v->n - from) * v->block_size;
    int r = 0;
    if (!file_preallocate(node->file, v->next, end, how, error)) {
        return false;
    }
    for (uint64_t b = from; b < v->n && r == 0; b++) {
        r = vhdx_entry_set(node, vhdx_index(v, b), v->next | VHDX_PRESENT);
        v->next += v->block_size;
    }
    r = r ? r : vhdx_flush(node);
    if (r < 0) {
        error_set_errno(error, -r, "cannot place the new blocks");
    }
    return r == 0;
}

bool vhdx_resize(struct node *node, uint64_t size, enum preallocation how, GError **error)
{
    struct vhdx *v = vhdx_of(node);
    uint64_t old = v->n;
    if (size == 0 || size > VHDX_MAX_SIZE || size % v->sector_size) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Image size %" G_GUINT64_FORMAT
                    " is not a multiple of %u between 1 sector and 64TB",
                    size, v->sector_size);
        return false;
    }
    int r = vhdx_flush(node);
    r = r ? r : vhdx_start(node);
    r = r ? r : size >= node->size ? grow(node, size) : shrink(node, size);
    if (r < 0) {
        error_set_errno(error, -r, "cannot change the size to %" G_GUINT64_FORMAT, size);
        return false;
    }
    return v->n <= old || (!v->keep_blocks && how == PREALLOC_OFF) ||
           fill_up(node, old, how, error);
}
