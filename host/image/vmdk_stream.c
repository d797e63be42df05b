/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * streamOptimized vmdk: grains packed one after the other, each behind a marker, in ascending
 * order; tables follow what they describe, so that a writer never goes back.
 *
 * Spec: VMware, "Virtual Disk Format 5.0", sections "Hosted Sparse Extents" (header),
 * "Stream-Optimized Compressed Sparse Extents" (markers, footer).
 */
#include "host/image/vmdk_stream.h"

#include "base/bytes.h"
#include "host/image/cipher.h"
#include "host/image/vmdk.h"

#include <string.h>

/* ---- the header ---- */

static const uint32_t MAGIC = 0x564d444b; /* "KDMV" */
enum { MAX_GRAIN_SECTORS = (64 << 20) / VMDK_SECTOR };

static bool check_table_fields(const struct vmdk_header *h, GError **error)
{
    if (h->grain == 0 || h->grain > MAX_GRAIN_SECTORS || (h->grain & (h->grain - 1))) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Invalid granularity %" G_GUINT64_FORMAT
                    ": a grain is a power of two of up to %u sectors",
                    h->grain, MAX_GRAIN_SECTORS);
        return false;
    }
    if (h->gtes == 0 || h->gtes > VMDK_GTES) {
        g_set_error(error, LODGE_ERROR, EINVAL, "a grain table has 1 to %u entries, not %u",
                    VMDK_GTES, h->gtes);
        return false;
    }
    if (h->capacity == 0 || h->capacity > VMDK_MAX_SECTORS) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "a capacity of %" G_GUINT64_FORMAT " sectors is not between 1 and 2^47",
                    h->capacity);
        return false;
    }
    if (vmdk_tables(h) > 32 << 20) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "L1 size too big: %" G_GUINT64_FORMAT " grain tables", vmdk_tables(h));
        return false;
    }
    return true;
}

bool vmdk_header_read(const uint8_t raw[VMDK_HEADER_BYTES], struct vmdk_header *h, GError **error)
{
    static const uint8_t newlines[4] = {'\n', ' ', '\r', '\n'};
    if (le32_at(raw) != MAGIC) {
        g_set_error(error, LODGE_ERROR, EINVAL, "no vmdk sparse extent: magic 0x%08x",
                    le32_at(raw));
        return false;
    }
    *h = (struct vmdk_header){.version = le32_at(raw + 4),
                              .flags = le32_at(raw + 8),
                              .capacity = le64_at(raw + 12),
                              .grain = le64_at(raw + 20),
                              .desc_at = le64_at(raw + 28),
                              .desc_n = le64_at(raw + 36),
                              .gtes = le32_at(raw + 44),
                              .rgd = le64_at(raw + 48),
                              .gd = le64_at(raw + 56),
                              .overhead = le64_at(raw + 64),
                              .compression = le16_at(raw + 77)};
    if (h->version == 0 || h->version > 3) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unsupported VMDK version %u", h->version);
        return false;
    }
    if ((h->flags & VMDK_NEWLINES) && memcmp(raw + 73, newlines, sizeof(newlines))) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "the newline bytes are changed: the file was copied as text");
        return false;
    }
    if ((h->flags & VMDK_COMPRESSED) && h->compression != 1) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "compression algorithm %u is not supported",
                    h->compression);
        return false;
    }
    return check_table_fields(h, error);
}

void vmdk_header_write(const struct vmdk_header *h, uint8_t raw[VMDK_HEADER_BYTES])
{
    memset(raw, 0, VMDK_HEADER_BYTES);
    le32_put(raw, MAGIC);
    le32_put(raw + 4, h->version);
    le32_put(raw + 8, h->flags);
    le64_put(raw + 12, h->capacity);
    le64_put(raw + 20, h->grain);
    le64_put(raw + 28, h->desc_at);
    le64_put(raw + 36, h->desc_n);
    le32_put(raw + 44, h->gtes);
    le64_put(raw + 48, h->rgd);
    le64_put(raw + 56, h->gd);
    le64_put(raw + 64, h->overhead);
    memcpy(raw + 73, "\n \r\n", 4);
    le16_put(raw + 77, h->compression);
}

uint64_t vmdk_tables(const struct vmdk_header *h)
{
    uint64_t span = h->grain * h->gtes;
    return (h->capacity + span - 1) / span;
}

/* Deflate adds 5 bytes to each 16 KiB that it cannot pack; be generous to other packers. */
uint64_t vmdk_stored_max(const struct vmdk_header *h)
{
    return h->grain * VMDK_SECTOR + h->grain * VMDK_SECTOR / 16 + 1024;
}

struct vmdk_header vmdk_stream_header(uint64_t sectors)
{
    return (struct vmdk_header){.version = 3,
                                .flags = VMDK_NEWLINES | VMDK_COMPRESSED | VMDK_MARKERS,
                                .capacity = sectors,
                                .grain = VMDK_STREAM_UNIT / VMDK_SECTOR,
                                .desc_at = 1,
                                .desc_n = VMDK_DESC_SECTORS,
                                .gtes = VMDK_GTES,
                                .gd = VMDK_GD_AT_END,
                                .overhead = VMDK_STREAM_UNIT / VMDK_SECTOR,
                                .compression = 1};
}

void vmdk_grain_marker(uint8_t raw[GRAIN_MARKER_BYTES], uint64_t offset, uint32_t stored)
{
    le64_put(raw, offset / VMDK_SECTOR);
    le32_put(raw + 8, stored);
}

/* ---- the layout of what is written ---- */

static const uint64_t NONE = UINT64_MAX;

bool vmdk_layout_init(struct vmdk_layout *l, const struct vmdk_header *header, GError **error)
{
    *l = (struct vmdk_layout){
        .header = *header, .at = header->overhead, .last = NONE, .gt_index = NONE};
    l->header.gd = VMDK_GD_AT_END;
    l->header.rgd = 0;
    l->gd = g_try_new0(uint32_t, vmdk_tables(header));
    if (!l->gd) {
        error_set_errno(error, ENOMEM, "%" G_GUINT64_FORMAT " grain tables", vmdk_tables(header));
        return false;
    }
    return true;
}

void vmdk_layout_clear(struct vmdk_layout *l)
{
    g_free(l->gd);
    l->gd = NULL;
}

/* One sector that says what the @sectors sectors after it are. */
static int put_marker(struct vmdk_layout *l, enum vmdk_marker type, uint64_t sectors)
{
    uint8_t raw[VMDK_SECTOR] = {0};
    le64_put(raw, sectors);
    le32_put(raw + 12, type);
    int r = l->write(l->owner, l->at * VMDK_SECTOR, raw, sizeof(raw));
    l->at += r ? 0 : 1;
    return r;
}

/* @n entries, as they are in memory, padded to whole sectors. */
static int put_table(struct vmdk_layout *l, const uint32_t *table, uint64_t n)
{
    uint8_t raw[8 * VMDK_SECTOR];
    uint64_t per = sizeof(raw) / 4;
    for (uint64_t i = 0; i < n; i += per) {
        uint64_t count = MIN(n - i, per), sectors = (count * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR;
        memset(raw, 0, sizeof(raw));
        for (uint64_t k = 0; k < count; k++) {
            le32_put(raw + k * 4, table[i + k]);
        }
        int r = l->write(l->owner, l->at * VMDK_SECTOR, raw, sectors * VMDK_SECTOR);
        if (r) {
            return r;
        }
        l->at += sectors;
    }
    return 0;
}

/* Writes the grain table that is being filled, if it holds anything. */
static int put_gt(struct vmdk_layout *l)
{
    if (l->gt_index == NONE) {
        return 0;
    }
    int r = put_marker(l, MARKER_GT, (l->header.gtes * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR);
    if (!r) {
        l->gd[l->gt_index] = (uint32_t)l->at;
        r = put_table(l, l->gt, l->header.gtes);
    }
    return r;
}

int vmdk_layout_place(struct vmdk_layout *l, uint64_t offset, uint32_t stored, uint64_t *at)
{
    uint64_t grain = offset / VMDK_SECTOR / l->header.grain, index = grain / l->header.gtes;
    uint64_t bytes = (uint64_t)stored + GRAIN_MARKER_BYTES;
    if ((l->last != NONE && grain <= l->last) || index >= vmdk_tables(&l->header)) {
        return -ENOTSUP; /* grains ascend, and none is written twice */
    }
    if (index != l->gt_index) {
        int r = put_gt(l);
        if (r) {
            return r;
        }
        memset(l->gt, 0, sizeof(l->gt));
        l->gt_index = index;
    }
    if (l->at + bytes / VMDK_SECTOR + 1 > UINT32_MAX) {
        return -EFBIG; /* tables count sectors in 32 bits: 2 TiB */
    }
    l->gt[grain % l->header.gtes] = (uint32_t)l->at;
    l->last = grain;
    *at = l->at * VMDK_SECTOR;
    l->at += (bytes + VMDK_SECTOR - 1) / VMDK_SECTOR;
    return 0;
}

int vmdk_layout_finish(struct vmdk_layout *l)
{
    struct vmdk_header footer = l->header;
    uint8_t raw[VMDK_HEADER_BYTES];
    uint64_t n = vmdk_tables(&l->header);
    int r = put_gt(l);
    if (!r) {
        r = put_marker(l, MARKER_GD, (n * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR);
    }
    footer.gd = l->at;
    if (!r) {
        r = put_table(l, l->gd, n);
    }
    if (!r) {
        r = put_marker(l, MARKER_FOOTER, 1);
    }
    vmdk_header_write(&footer, raw);
    if (!r) {
        r = l->write(l->owner, l->at * VMDK_SECTOR, raw, sizeof(raw));
        l->at++;
    }
    return r ? r : put_marker(l, MARKER_END, 0);
}

/* ---- a stream being written ---- */

struct vmdk_writer {
    struct vmdk_layout layout;
    vmdk_write_fn *write;
    void *owner;
    uint64_t size;
    bool finished;
};

/* In a pipe "where" is always "next": the layout goes up only. */
static int writer_write(void *owner, uint64_t at, const void *from, size_t n)
{
    struct vmdk_writer *w = owner;
    (void)at;
    return w->write(w->owner, from, n);
}

static bool put_head(struct vmdk_writer *w, const struct vmdk_stream_options *how, GError **error)
{
    const struct vmdk_header *h = &w->layout.header;
    size_t n = h->overhead * VMDK_SECTOR, room = VMDK_DESC_SECTORS * VMDK_SECTOR;
    g_autofree uint8_t *head = g_malloc0(n);
    uint32_t cid = 1;
    g_autofree char *lines =
        g_strdup_printf("RW %" G_GUINT64_FORMAT " SPARSE \"%s\"\n", h->capacity, how->name);
    g_autofree char *desc =
        vmdk_desc_make(&(struct vmdk_desc_options){.create_type = "streamOptimized",
                                                   .adapter_type = how->adapter_type,
                                                   .hw_version = how->hw_version,
                                                   .tools_version = how->tools_version,
                                                   .cid = cid,
                                                   .parent_cid = UINT32_MAX,
                                                   .sectors = h->capacity,
                                                   .lines = lines});
    if (strlen(desc) >= room) {
        g_set_error(error, LODGE_ERROR, ENAMETOOLONG, "the descriptor does not fit in %zu bytes",
                    room);
        return false;
    }
    vmdk_header_write(h, head);
    memcpy(head + h->desc_at * VMDK_SECTOR, desc, strlen(desc));
    int r = w->write(w->owner, head, n);
    if (r) {
        error_set_errno(error, -r, "cannot write the vmdk header");
    }
    return r == 0;
}

struct vmdk_writer *vmdk_writer_new(const struct vmdk_stream_options *how, vmdk_write_fn *write,
                                    void *owner, GError **error)
{
    struct vmdk_header h = vmdk_stream_header(how->size / VMDK_SECTOR);
    struct vmdk_writer *w = g_new0(struct vmdk_writer, 1);
    w->write = write;
    w->owner = owner;
    w->size = how->size;
    if (!check_table_fields(&h, error) || !vmdk_layout_init(&w->layout, &h, error) ||
        !put_head(w, how, error)) {
        vmdk_writer_free(w);
        return NULL;
    }
    w->layout.write = writer_write;
    w->layout.owner = w;
    return w;
}

void vmdk_writer_free(struct vmdk_writer *w)
{
    if (w) {
        vmdk_layout_clear(&w->layout);
        g_free(w);
    }
}

/* Marker and grain in one piece, padded to a whole sector. */
static int put_grain(struct vmdk_writer *w, uint64_t offset, const void *packed, uint32_t stored)
{
    uint8_t marker[GRAIN_MARKER_BYTES];
    static const uint8_t zeros[VMDK_SECTOR];
    size_t pad = -(stored + sizeof(marker)) % VMDK_SECTOR;
    vmdk_grain_marker(marker, offset, stored);
    int r = w->write(w->owner, marker, sizeof(marker));
    if (!r) {
        r = w->write(w->owner, packed, stored);
    }
    return r || !pad ? r : w->write(w->owner, zeros, pad);
}

bool vmdk_writer_grain(struct vmdk_writer *w, uint64_t offset, const void *packed, size_t stored,
                       GError **error)
{
    uint64_t at;
    if (offset % VMDK_STREAM_UNIT || offset >= w->size || w->finished ||
        stored > vmdk_stored_max(&w->layout.header)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "no grain of %zu bytes fits at byte %" G_GUINT64_FORMAT, stored, offset);
        return false;
    }
    int r = vmdk_layout_place(&w->layout, offset, (uint32_t)stored, &at);
    if (!r) {
        r = put_grain(w, offset, packed, (uint32_t)stored);
    }
    if (r == -ENOTSUP) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "a vmdk stream is written in ascending order: byte %" G_GUINT64_FORMAT
                    " comes too late",
                    offset);
    } else if (r) {
        error_set_errno(error, -r, "cannot write the grain at byte %" G_GUINT64_FORMAT, offset);
    }
    return r == 0;
}

bool vmdk_writer_finish(struct vmdk_writer *w, GError **error)
{
    int r = vmdk_layout_finish(&w->layout);
    w->finished = true;
    if (r) {
        error_set_errno(error, -r, "cannot write the end of the vmdk stream");
    }
    return r == 0;
}

/* ---- a stream being read ---- */

struct vmdk_reader {
    vmdk_read_fn *read;
    void *owner;
    struct vmdk_header header;
    uint8_t *packed; /* vmdk_stored_max() and a sector */
    uint64_t at;     /* bytes taken from the stream */
    uint64_t next;   /* the next grain begins here or later: guest bytes */
    bool over;
};

/* 1, 0 if the stream ends before the first byte, or -errno; -EIO if it ends after that. */
static int take(struct vmdk_reader *r, void *to, size_t n)
{
    size_t have = 0;
    while (have < n) {
        ssize_t got = r->read(r->owner, (uint8_t *)to + have, n - have);
        if (got <= 0) {
            return got < 0 ? (int)got : have ? -EIO : 0;
        }
        have += (size_t)got;
        r->at += (uint64_t)got;
    }
    return 1;
}

static bool take_all(struct vmdk_reader *r, void *to, size_t n, GError **error)
{
    int got = take(r, to, n);
    if (got <= 0) {
        error_set_errno(error, got ? -got : EIO,
                        "the vmdk stream ends after %" G_GUINT64_FORMAT " bytes", r->at);
    }
    return got > 0;
}

static bool skip(struct vmdk_reader *r, uint64_t sectors, GError **error)
{
    uint8_t raw[8 * VMDK_SECTOR];
    while (sectors) {
        uint64_t n = MIN(sectors, sizeof(raw) / VMDK_SECTOR);
        if (!take_all(r, raw, n * VMDK_SECTOR, error)) {
            return false;
        }
        sectors -= n;
    }
    return true;
}

static bool read_head(struct vmdk_reader *r, GError **error)
{
    uint8_t raw[VMDK_HEADER_BYTES];
    struct vmdk_header *h = &r->header;
    if (!take_all(r, raw, sizeof(raw), error) || !vmdk_header_read(raw, h, error)) {
        return false;
    }
    if ((h->flags & (VMDK_COMPRESSED | VMDK_MARKERS)) != (VMDK_COMPRESSED | VMDK_MARKERS)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "this vmdk is not streamOptimized: it cannot be read from a pipe");
        return false;
    }
    if (h->overhead == 0 || h->overhead > VMDK_MAX_SECTORS) {
        g_set_error(error, LODGE_ERROR, EINVAL, "an overhead of %" G_GUINT64_FORMAT " sectors",
                    h->overhead);
        return false;
    }
    return skip(r, h->overhead - 1, error);
}

struct vmdk_reader *vmdk_reader_new(vmdk_read_fn *read, void *owner, GError **error)
{
    struct vmdk_reader *r = g_new0(struct vmdk_reader, 1);
    r->read = read;
    r->owner = owner;
    if (!read_head(r, error)) {
        vmdk_reader_free(r);
        return NULL;
    }
    r->packed = g_try_malloc(vmdk_stored_max(&r->header) + VMDK_SECTOR);
    if (!r->packed) {
        error_set_errno(error, ENOMEM, "grains of %" G_GUINT64_FORMAT " sectors", r->header.grain);
        vmdk_reader_free(r);
        return NULL;
    }
    return r;
}

void vmdk_reader_free(struct vmdk_reader *r)
{
    if (r) {
        g_free(r->packed);
        g_free(r);
    }
}

uint64_t vmdk_reader_size(const struct vmdk_reader *r)
{
    return r->header.capacity * VMDK_SECTOR;
}

uint32_t vmdk_reader_unit(const struct vmdk_reader *r)
{
    return (uint32_t)(r->header.grain * VMDK_SECTOR);
}

static int wrong_grain(uint64_t sector, uint32_t stored, const char *why, GError **error)
{
    g_set_error(error, LODGE_ERROR, EINVAL,
                "the grain of %u bytes for sector %" G_GUINT64_FORMAT " %s", stored, sector, why);
    return -1;
}

/* @raw: the sector that begins with the grain's marker. */
static int take_grain(struct vmdk_reader *r, const uint8_t *raw, struct vmdk_grain *out,
                      GError **error)
{
    uint64_t sector = le64_at(raw), unit = vmdk_reader_unit(r);
    uint32_t stored = le32_at(raw + 8);
    if (stored > vmdk_stored_max(&r->header)) {
        return wrong_grain(sector, stored, "is larger than a packed grain can be", error);
    }
    if (sector >= r->header.capacity || sector % r->header.grain) {
        return wrong_grain(sector, stored, "is not one of this disk", error);
    }
    if (sector * VMDK_SECTOR < r->next) {
        return wrong_grain(sector, stored, "is not in ascending order", error);
    }
    size_t here = MIN(stored, VMDK_SECTOR - GRAIN_MARKER_BYTES);
    size_t rest = (stored - here + VMDK_SECTOR - 1) / VMDK_SECTOR * VMDK_SECTOR;
    memcpy(r->packed, raw + GRAIN_MARKER_BYTES, here);
    if (rest && !take_all(r, r->packed + here, rest, error)) {
        return -1;
    }
    *out = (struct vmdk_grain){.offset = sector * VMDK_SECTOR,
                               .unit = (uint32_t)unit,
                               .stored = stored,
                               .packed = r->packed};
    r->next = out->offset + unit;
    return 1;
}

int vmdk_reader_next(struct vmdk_reader *r, struct vmdk_grain *out, GError **error)
{
    uint8_t raw[VMDK_SECTOR];
    while (!r->over) {
        int got = take(r, raw, sizeof(raw));
        if (got == 0 && r->header.gd != VMDK_GD_AT_END) {
            r->over = true; /* its tables were in front, and nothing need follow the grains */
            break;
        }
        if (got <= 0) {
            error_set_errno(error, got ? -got : EIO,
                            "the vmdk stream ends after %" G_GUINT64_FORMAT
                            " bytes, without its end marker",
                            r->at);
            return -1;
        }
        uint64_t value = le64_at(raw);
        uint32_t type = le32_at(raw + 12);
        if (le32_at(raw + 8)) {
            return take_grain(r, raw, out, error);
        }
        if (type > MARKER_FOOTER || (type == MARKER_END && value)) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "marker of unknown type %u at byte %" G_GUINT64_FORMAT, type, r->at);
            return -1;
        }
        r->over = type == MARKER_END;
        if (!skip(r, value, error)) {
            return -1;
        }
    }
    return 0;
}
