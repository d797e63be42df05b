/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * vhdx: checksums, the two headers, and the log that makes changes of metadata atomic.
 *
 * Each entry we write is a sequence of its own (its tail is itself), because what the entry
 * before it says is in place, and on the medium, before the next is written.  Entries go round
 * the log and none is longer than a quarter of it: a torn write can then damage entries that
 * are older than the last good one, never that one, so recovery cannot bring back old contents.
 *
 * Spec: [MS-VHDX] 2.2.2 "Headers", 2.3 "Log", 2.3.2 "Log Entry", 2.3.3 "Log Replay".
 */
#include "base/bytes.h"
#include "host/image/vhdx.h"

#include <string.h>

/* ---- checksums ---- */

static uint32_t crc_table[256];

static void make_crc_table(void)
{
    static gsize done;
    if (g_once_init_enter(&done)) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) {
                c = c & 1 ? 0x82f63b78 ^ c >> 1 : c >> 1; /* Castagnoli's polynomial, reflected */
            }
            crc_table[i] = c;
        }
        g_once_init_leave(&done, 1);
    }
}

static uint32_t crc_more(uint32_t c, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        c = crc_table[(c ^ p[i]) & 0xff] ^ c >> 8;
    }
    return c;
}

uint32_t vhdx_crc(const uint8_t *p, size_t n, size_t skip)
{
    static const uint8_t zero[4];
    make_crc_table();
    uint32_t c = crc_more(UINT32_MAX, p, skip);
    c = crc_more(c, zero, sizeof(zero));
    return ~crc_more(c, p + skip + sizeof(zero), n - skip - sizeof(zero));
}

/* ---- headers ---- */

enum {
    H_SUM = 4,
    H_SEQUENCE = 8,
    H_FILE_GUID = 16,
    H_DATA_GUID = 32,
    H_LOG_GUID = 48,
    H_LOG_VERSION = 64,
    H_VERSION = 66,
    H_LOG_LENGTH = 68,
    H_LOG_AT = 72,
};

static bool header_good(const uint8_t *h)
{
    return !memcmp(h, "head", 4) && le32_at(h + H_SUM) == vhdx_crc(h, VHDX_HEADER_BYTES, H_SUM);
}

static bool check_header(const uint8_t *h, GError **error)
{
    uint64_t at = le64_at(h + H_LOG_AT);
    uint32_t length = le32_at(h + H_LOG_LENGTH);
    if (le16_at(h + H_VERSION) != 1) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unsupported VHDX version %u",
                    le16_at(h + H_VERSION));
        return false;
    }
    if (le16_at(h + H_LOG_VERSION) != 0) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unsupported VHDX log version %u",
                    le16_at(h + H_LOG_VERSION));
        return false;
    }
    if (at < VHDX_MIB || at % VHDX_MIB || length % VHDX_MIB || length == 0 || at > INT64_MAX / 2) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "the log of %u bytes at byte %" G_GUINT64_FORMAT
                    " does not begin and end at multiples of 1 MiB behind the headers",
                    length, at);
        return false;
    }
    return true;
}

bool vhdx_read_headers(struct node *node, GError **error)
{
    struct vhdx *v = vhdx_of(node);
    uint8_t h[2][VHDX_HEADER_BYTES];
    bool good[2];
    for (unsigned i = 0; i < 2; i++) {
        good[i] =
            !file_read(node->file, VHDX_HEADER_AT[i], h[i], VHDX_HEADER_BYTES) && header_good(h[i]);
    }
    if (!good[0] && !good[1]) {
        g_set_error(
            error, LODGE_ERROR, EINVAL,
            "No valid VHDX header found: signature \"%.4s\", checksum 0x%08x, should be 0x%08x",
            memcmp(h[0], "head", 4) ? "(wrong)" : "head", le32_at(h[0] + H_SUM),
            vhdx_crc(h[0], VHDX_HEADER_BYTES, H_SUM));
        return false;
    }
    v->current = !good[0] || (good[1] && le64_at(h[1] + H_SEQUENCE) > le64_at(h[0] + H_SEQUENCE));
    memcpy(v->header, h[v->current], VHDX_HEADER_BYTES);
    v->log = (struct vhdx_region){le64_at(v->header + H_LOG_AT), le32_at(v->header + H_LOG_LENGTH)};
    return check_header(v->header, error);
}

/* The other header becomes the current one. */
static int write_header(struct node *node)
{
    struct vhdx *v = vhdx_of(node);
    unsigned to = v->current ^ 1;
    le64_put(v->header + H_SEQUENCE, le64_at(v->header + H_SEQUENCE) + 1);
    memcpy(v->header, "head", 4);
    le32_put(v->header + H_SUM, vhdx_crc(v->header, VHDX_HEADER_BYTES, H_SUM));
    int r = file_write(node->file, VHDX_HEADER_AT[to], v->header, VHDX_HEADER_BYTES);
    r = r ? r : file_flush(node->file);
    v->current = r ? v->current : to;
    return r;
}

int vhdx_start(struct node *node)
{
    struct vhdx *v = vhdx_of(node);
    if (v->started) {
        return 0;
    }
    blocks_uuid(v->log_guid);
    blocks_uuid(v->header + H_FILE_GUID);
    blocks_uuid(v->header + H_DATA_GUID);
    memcpy(v->header + H_LOG_GUID, v->log_guid, VHDX_GUID);
    int r = write_header(node);
    v->started = r == 0;
    v->log_sequence = v->log_sequence ? v->log_sequence : 1;
    v->log_at = 0;
    return r;
}

int vhdx_finish(struct node *node)
{
    struct vhdx *v = vhdx_of(node);
    int r = v->started ? file_flush(node->file) : 0;
    if (v->started && r == 0) {
        memset(v->header + H_LOG_GUID, 0, VHDX_GUID);
        r = write_header(node);
        v->started = r < 0;
    }
    return r;
}

/* ---- writing entries ---- */

enum {
    E_SUM = 4,
    E_LENGTH = 8,
    E_TAIL = 12,
    E_SEQUENCE = 16,
    E_COUNT = 24,
    E_GUID = 32,
    E_FLUSHED = 48,
    E_LAST = 56,
    E_BYTES = 64,
};
enum { D_TRAILING = 4, D_LEADING = 8, D_AT = 16, D_SEQUENCE = 24, D_BYTES = 32 };
enum { Z_LENGTH = 8 };
/* A logged sector keeps its middle; its first 8 and last 4 bytes are in the descriptor. */
enum { S_HIGH = 4, S_MIDDLE = 8, S_LOW = VHDX_SECTOR - 4, LEADING = 8, TRAILING = 4 };
enum { CHANGES_MAX = 64 };

static uint32_t head_bytes(uint64_t descriptors)
{
    return (uint32_t)((E_BYTES + descriptors * D_BYTES + VHDX_SECTOR - 1) / VHDX_SECTOR *
                      VHDX_SECTOR);
}

unsigned vhdx_changes_max(const struct vhdx *v)
{
    return (unsigned)MIN(v->log.length / 4 / VHDX_SECTOR - 2, CHANGES_MAX);
}

static void put_change(uint8_t *desc, uint8_t *sector, const struct vhdx_change *c,
                       uint64_t sequence)
{
    memcpy(desc, "desc", 4);
    memcpy(desc + D_TRAILING, c->data + S_LOW, TRAILING);
    memcpy(desc + D_LEADING, c->data, LEADING);
    le64_put(desc + D_AT, c->at);
    le64_put(desc + D_SEQUENCE, sequence);
    memcpy(sector, "data", 4);
    le32_put(sector + S_HIGH, (uint32_t)(sequence >> 32));
    memcpy(sector + S_MIDDLE, c->data + S_MIDDLE, S_LOW - S_MIDDLE);
    le32_put(sector + S_LOW, (uint32_t)sequence);
}

/* @e: head_bytes() and a sector for each change, zeroed. */
static void make_entry(struct node *node, uint8_t *e, uint32_t length,
                       const struct vhdx_change *changes, unsigned n)
{
    struct vhdx *v = vhdx_of(node);
    uint32_t head = head_bytes(n);
    memcpy(e, "loge", 4);
    le32_put(e + E_LENGTH, length);
    le32_put(e + E_TAIL, (uint32_t)v->log_at);
    le64_put(e + E_SEQUENCE, v->log_sequence);
    le32_put(e + E_COUNT, n);
    memcpy(e + E_GUID, v->log_guid, VHDX_GUID);
    le64_put(e + E_FLUSHED, file_size(node->file));
    le64_put(e + E_LAST, file_size(node->file));
    for (unsigned i = 0; i < n; i++) {
        put_change(e + E_BYTES + i * D_BYTES, e + head + (size_t)i * VHDX_SECTOR, &changes[i],
                   v->log_sequence);
    }
    le32_put(e + E_SUM, vhdx_crc(e, length, E_SUM));
}

/* The file up to its present size, and what was changed before, are on the medium already. */
static int log_changes(struct node *node, const struct vhdx_change *changes, unsigned n)
{
    struct vhdx *v = vhdx_of(node);
    uint32_t length = head_bytes(n) + n * VHDX_SECTOR;
    g_autofree uint8_t *e = g_try_malloc0(length);
    if (!e) {
        return -ENOMEM;
    }
    if (v->log_at + length > v->log.length) {
        v->log_at = 0;
    }
    make_entry(node, e, length, changes, n);
    int r = file_write(node->file, v->log.at + v->log_at, e, length);
    r = r ? r : file_flush(node->file);
    if (r == 0) {
        v->log_at += length;
        v->log_sequence++;
    }
    return r;
}

int vhdx_change(struct node *node, const struct vhdx_change *changes, unsigned n)
{
    unsigned max = vhdx_changes_max(vhdx_of(node));
    int r = vhdx_start(node);
    while (n && r == 0) {
        unsigned some = MIN(n, max);
        r = file_flush(node->file);
        r = r ? r : log_changes(node, changes, some);
        for (unsigned i = 0; i < some && r == 0; i++) {
            r = file_write(node->file, changes[i].at, changes[i].data, VHDX_SECTOR);
        }
        changes += some;
        n -= some;
    }
    return r;
}

/* ---- replay ---- */

/* An entry that was found in the log and is whole. */
struct entry {
    uint64_t at, sequence;
    uint32_t length, tail, count;
};

struct replay {
    struct node *node;
    uint8_t *sectors; /* scratch: one entry */
    uint64_t budget;  /* bytes that may still be read: entries can claim to be long */
    GError **error;
};

/* Bytes of the log, which is a ring. */
static int read_ring(struct replay *p, uint64_t at, uint8_t *to, uint64_t n)
{
    struct vhdx *v = vhdx_of(p->node);
    uint64_t first = MIN(n, v->log.length - at);
    if (n > p->budget) {
        return -EFBIG;
    }
    p->budget -= n;
    int r = file_read(p->node->file, v->log.at + at, to, first);
    return r || first == n ? r : file_read(p->node->file, v->log.at, to + first, n - first);
}

static bool header_plausible(struct vhdx *v, const uint8_t *h)
{
    uint32_t length = le32_at(h + E_LENGTH), count = le32_at(h + E_COUNT),
             tail = le32_at(h + E_TAIL);
    return !memcmp(h, "loge", 4) && length >= VHDX_SECTOR && length % VHDX_SECTOR == 0 &&
           length <= v->log.length && tail % VHDX_SECTOR == 0 && tail < v->log.length &&
           le64_at(h + E_SEQUENCE) != 0 && count <= length / D_BYTES &&
           head_bytes(count) <= length && !memcmp(h + E_GUID, v->header + H_LOG_GUID, VHDX_GUID);
}

static bool descriptors_good(const uint8_t *e, uint32_t count, uint32_t length, uint64_t sequence)
{
    uint64_t data = 0, at = head_bytes(count);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *d = e + E_BYTES + (size_t)i * D_BYTES;
        bool zero = !memcmp(d, "zero", 4), desc = !memcmp(d, "desc", 4);
        if ((!zero && !desc) || le64_at(d + D_SEQUENCE) != sequence ||
            le64_at(d + D_AT) % VHDX_SECTOR ||
            (zero &&
             (le64_at(d + Z_LENGTH) % VHDX_SECTOR || le64_at(d + Z_LENGTH) > INT64_MAX / 2)) ||
            le64_at(d + D_AT) > INT64_MAX / 2) {
            return false;
        }
        data += desc;
    }
    if (at + data * VHDX_SECTOR != length) {
        return false;
    }
    for (uint64_t i = 0; i < data; i++) {
        const uint8_t *s = e + at + i * VHDX_SECTOR;
        if (memcmp(s, "data", 4) || le32_at(s + S_HIGH) != sequence >> 32 ||
            le32_at(s + S_LOW) != (uint32_t)sequence) {
            return false;
        }
    }
    return true;
}

/* 1: *@out is a whole entry at byte @at of the log, its bytes are in ->sectors; 0: none. */
static int read_entry(struct replay *p, uint64_t at, struct entry *out)
{
    struct vhdx *v = vhdx_of(p->node);
    uint8_t h[E_BYTES];
    int r = read_ring(p, at, h, sizeof(h));
    if (r < 0 || !header_plausible(v, h)) {
        return r;
    }
    *out = (struct entry){.at = at,
                          .sequence = le64_at(h + E_SEQUENCE),
                          .length = le32_at(h + E_LENGTH),
                          .tail = le32_at(h + E_TAIL),
                          .count = le32_at(h + E_COUNT)};
    r = read_ring(p, at, p->sectors, out->length);
    if (r < 0) {
        return r;
    }
    return vhdx_crc(p->sectors, out->length, E_SUM) == le32_at(h + E_SUM) &&
           descriptors_good(p->sectors, out->count, out->length, out->sequence);
}

/* A run of entries, one behind the other with ascending numbers, of which the last counts. */
struct sequence {
    struct entry head;
    uint64_t bytes; /* of all of it */
    bool valid;     /* the head's tail is one of the run */
};

static uint64_t ring_next(const struct vhdx *v, const struct entry *e)
{
    return (e->at + e->length) % v->log.length;
}

/* 1: a sequence begins at @at; 0: none; or -errno. */
static int read_sequence(struct replay *p, uint64_t at, struct sequence *out)
{
    struct vhdx *v = vhdx_of(p->node);
    struct entry e;
    uint64_t total = 0;
    int r = read_entry(p, at, &e);
    if (r <= 0) {
        return r;
    }
    /* Which entry a tail names can only be told from the head: remember where they begin. */
    g_autoptr(GArray) starts = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    do {
        g_array_append_val(starts, e.at);
        total += e.length;
        out->head = e;
        if (total >= v->log.length) {
            break;
        }
        r = read_entry(p, ring_next(v, &out->head), &e);
    } while (r > 0 && e.sequence == out->head.sequence + 1);
    out->valid = false;
    out->bytes = total;
    for (unsigned i = 0; i < starts->len; i++) {
        out->valid |= g_array_index(starts, uint64_t, i) == out->head.tail;
    }
    return r < 0 ? r : 1;
}

/* The sequence that ends with the highest number; 0: the log holds none. */
static int find_active(struct replay *p, struct sequence *best)
{
    struct vhdx *v = vhdx_of(p->node);
    bool found = false;
    uint64_t step;
    for (uint64_t at = 0; at < v->log.length; at += step) {
        struct sequence s;
        int r = read_sequence(p, at, &s);
        if (r < 0) {
            return r;
        }
        step = r > 0 ? s.bytes : VHDX_SECTOR; /* what begins inside it ends with the same head */
        if (r > 0 && s.valid && (!found || s.head.sequence > best->head.sequence)) {
            *best = s;
            found = true;
        }
    }
    return found;
}

/* Applies the entry whose bytes are in ->sectors. */
static int apply(struct replay *p, const struct entry *e)
{
    const uint8_t *sector = p->sectors + head_bytes(e->count);
    uint8_t data[VHDX_SECTOR];
    int r = 0;
    for (uint32_t i = 0; i < e->count && r == 0; i++) {
        const uint8_t *d = p->sectors + E_BYTES + (size_t)i * D_BYTES;
        uint64_t at = le64_at(d + D_AT);
        if (!memcmp(d, "zero", 4)) {
            r = file_zero(p->node->file, at, le64_at(d + Z_LENGTH), true);
            continue;
        }
        memcpy(data, d + D_LEADING, LEADING);
        memcpy(data + S_MIDDLE, sector + S_MIDDLE, S_LOW - S_MIDDLE);
        memcpy(data + S_LOW, d + D_TRAILING, TRAILING);
        r = file_write(p->node->file, at, data, VHDX_SECTOR);
        sector += VHDX_SECTOR;
    }
    return r;
}

/* Zero descriptors and the file's end must not make a file larger than any disk is. */
static bool sizes_good(struct replay *p, const struct entry *e)
{
    uint64_t max = 2 * VHDX_MAX_SIZE, last = le64_at(p->sectors + E_LAST);
    uint64_t flushed = le64_at(p->sectors + E_FLUSHED), size = file_size(p->node->file);
    if (size < flushed || last > max) {
        g_set_error(p->error, LODGE_ERROR, EINVAL,
                    "the log wants a file of %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
                    " bytes: this one has %" G_GUINT64_FORMAT,
                    flushed, last, size);
        return false;
    }
    for (uint32_t i = 0; i < e->count; i++) {
        const uint8_t *d = p->sectors + E_BYTES + (size_t)i * D_BYTES;
        uint64_t n = memcmp(d, "zero", 4) ? VHDX_SECTOR : le64_at(d + Z_LENGTH);
        if (le64_at(d + D_AT) > max || n > max || le64_at(d + D_AT) + n > MAX(last, size)) {
            g_set_error(p->error, LODGE_ERROR, EINVAL,
                        "the log writes %" G_GUINT64_FORMAT " bytes at byte %" G_GUINT64_FORMAT
                        ": behind the file's end",
                        n, le64_at(d + D_AT));
            return false;
        }
    }
    return true;
}

static bool apply_sequence(struct replay *p, const struct sequence *s)
{
    struct vhdx *v = vhdx_of(p->node);
    uint64_t at = s->head.tail, last = 0;
    for (bool over = false; !over;) {
        struct entry e;
        int r = read_entry(p, at, &e);
        if (r > 0 && !sizes_good(p, &e)) {
            return false;
        }
        last = r > 0 ? le64_at(p->sectors + E_LAST) : 0;
        r = r > 0 ? apply(p, &e) : r < 0 ? r : -EIO;
        if (r < 0) {
            error_set_errno(p->error, -r, "cannot replay the log");
            return false;
        }
        over = at == s->head.at;
        at = ring_next(v, &e);
    }
    int r = last > file_size(p->node->file) ? file_resize(p->node->file, last) : 0;
    if (r < 0) {
        error_set_errno(p->error, -r,
                        "cannot replay the log: the file must have %" G_GUINT64_FORMAT " bytes",
                        last);
    }
    return r == 0;
}

static bool replay_into_file(struct replay *p)
{
    struct vhdx *v = vhdx_of(p->node);
    struct sequence s = {0};
    int r = find_active(p, &s);
    if (r < 0) {
        error_set_errno(p->error, -r,
                        "cannot read the log of %" G_GUINT64_FORMAT
                        " bytes at byte %" G_GUINT64_FORMAT,
                        v->log.length, v->log.at);
        return false;
    }
    if (r == 0) {
        return true; /* a session that ended before it changed any metadata */
    }
    if (p->node->read_only) {
        g_set_error(p->error, LODGE_ERROR, EROFS,
                    "VHDX image file '%s' opened read-only, but contains a log that needs to be "
                    "replayed (open it for writing once, or run check -r all on it)",
                    file_name(p->node->file));
        return false;
    }
    if (!apply_sequence(p, &s)) {
        return false;
    }
    v->replayed = true;
    v->log_sequence = s.head.sequence + 1;
    return true;
}

bool vhdx_replay(struct node *node, GError **error)
{
    static const uint8_t none[VHDX_GUID];
    struct vhdx *v = vhdx_of(node);
    if (!memcmp(v->header + H_LOG_GUID, none, VHDX_GUID)) {
        return true;
    }
    uint64_t size = file_size(node->file);
    if (v->log.at > size || v->log.length > size - v->log.at || v->log.length > UINT32_C(1) << 30) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "the log of %" G_GUINT64_FORMAT " bytes at byte %" G_GUINT64_FORMAT
                    " does not fit in the file of %" G_GUINT64_FORMAT " bytes",
                    v->log.length, v->log.at, size);
        return false;
    }
    struct replay p = {.node = node, .error = error, .budget = 16 * v->log.length + (64 << 20)};
    p.sectors = g_try_malloc(v->log.length);
    if (!p.sectors) {
        error_set_errno(error, ENOMEM, "a log of %" G_GUINT64_FORMAT " bytes", v->log.length);
        return false;
    }
    bool good = replay_into_file(&p);
    g_free(p.sectors);
    if (!good || node->read_only) {
        return good;
    }
    int r = file_flush(node->file);
    memset(v->header + H_LOG_GUID, 0, VHDX_GUID);
    r = r ? r : write_header(node);
    if (r < 0) {
        error_set_errno(error, -r, "cannot write the header after the log was replayed");
    }
    return r == 0;
}
