/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_place: where what a guest writes goes.  Spec: QEMU, "docs/interop/qcow2.txt", sections
 * "Cluster mapping" and "Extended L2 Entries".
 *
 * A guest cluster whose space is its own is overwritten in place.  Otherwise it gets new space,
 * which its L2 entry names after the data is there.  With subclusters the entry names the new
 * space at once, with none of them in use, and the subclusters follow one by one.
 */
#include "host/image/cipher.h"
#include "host/image/codec.h"
#include "host/image/qcow2.h"

#include <string.h>

enum { COOKIE_NEW, COOKIE_KEPT }; /* .cookie: the space was taken for this; it was there */

#define SUB_DATA(i) (1ull << (i))
#define SUB_ZERO(i) (1ull << (QCOW2_SUBCLUSTERS + (i)))
#define ALL_DATA    0xffffffffull
#define ALL_ZERO    0xffffffff00000000ull

static void put_entry(struct qcow2 *q, uint8_t *p, uint64_t entry, uint64_t bits)
{
    be64_put(p, entry);
    if (q->extended) {
        be64_put(p + 8, bits);
    }
    tables_touched(q->l2, p, q->entry);
}

/* ---- L2 tables ---- */

static int copy_table(struct qcow2 *q, uint64_t from, uint64_t to)
{
    int r = 0;
    g_autofree uint8_t *copy = g_try_malloc(q->piece);
    for (uint32_t i = 0; i < q->cluster && !r; i += q->piece) {
        const uint8_t *old = copy && from ? qcow2_piece(q->l2, from + i, true, &r) : NULL;
        if (old) {
            memcpy(copy, old, q->piece);
        }
        uint8_t *p = r ? NULL : qcow2_blank_piece(q->l2, to + i, &r);
        if (p && old) {
            memcpy(p, copy, q->piece);
        }
    }
    return copy ? r : -ENOMEM;
}

uint8_t *qcow2_l2_own(struct qcow2 *q, uint64_t cluster, int *result)
{
    uint64_t i = cluster >> q->l2_bits;
    if (q->corrupt) {
        *result = -EIO;
        return NULL;
    }
    *result = i < q->h.l1_entries ? 0 : qcow2_l1_grow(q, i + 1);
    uint64_t l1 = *result ? 0 : qcow2_l1_get(q, i), old = l1 & QCOW2_OFFSET;
    if (!*result && old & (q->cluster - 1)) {
        *result = qcow2_corrupt(q);
    }
    if (*result) {
        return NULL;
    }
    if (!(l1 & QCOW2_COPIED) || !old) {
        uint64_t at;
        *result = qcow2_alloc_table(q, q->cluster, &at);
        *result = *result ? *result : copy_table(q, old, at);
        if (*result) {
            return NULL;
        }
        whole_table_put64(&q->l1, i, at | QCOW2_COPIED);
        *result = old ? qcow2_free_later(q, old, q->cluster) : 0;
        if (*result) {
            return NULL;
        }
    }
    return qcow2_l2(q, cluster, true, result);
}

/* ---- in place, or where? ---- */

enum how { HOW_IN_PLACE, HOW_KEPT, HOW_NEW };

static enum how how_of(const struct spot *s)
{
    if (s->kind == EXTENT_PACKED || s->host == QCOW2_NO_HOST || !s->copied) {
        return HOW_NEW;
    }
    return s->kind == EXTENT_DATA ? HOW_IN_PLACE : HOW_KEPT;
}

/* Up to @most units from @unit on that are written like @first, whose entry is at @e. */
static uint64_t same(struct qcow2 *q, const uint8_t *e, uint64_t unit, uint64_t most,
                     const struct spot *first)
{
    unsigned per = q->h.cluster_bits - q->sub_bits;
    uint64_t cluster = unit >> per, end = (cluster + qcow2_l2_left(q, cluster)) << per, n = 1;
    enum how how = how_of(first);
    for (most = MIN(most, end - unit); n < most; n++) {
        uint64_t i = ((unit + n) >> per) - cluster;
        struct spot s = qcow2_spot(q, e + i * q->entry, (unsigned)((unit + n) & ((1u << per) - 1)));
        if (s.bad || how_of(&s) != how ||
            (how != HOW_NEW && s.host != first->host + (n << q->sub_bits))) {
            break;
        }
    }
    return n;
}

/* @n new clusters in a row for the guest's from @cluster on; the file offset of the first. */
static int64_t take_data(struct qcow2 *q, uint64_t cluster, uint64_t n, uint64_t *at)
{
    if (q->data != q->file) { /* in a data file every cluster has its place */
        *at = cluster << q->h.cluster_bits;
        return (int64_t)n;
    }
    uint64_t first;
    int64_t got = qcow2_alloc(q, n, &first);
    *at = got > 0 ? first << q->h.cluster_bits : 0;
    return got;
}

static int give_back_data(struct qcow2 *q, uint64_t at, uint64_t bytes)
{
    return q->data == q->file ? qcow2_free_later(q, at, bytes) : 0;
}

/* What entry @e pointed at loses a reference; nothing in memory points at it any more. */
static int release(struct qcow2 *q, uint64_t e)
{
    uint64_t at = e & QCOW2_OFFSET;
    uint32_t stored;
    if (e & QCOW2_COMPRESSED) {
        qcow2_unit(q, e, &at, &stored);
        uint64_t first = at & ~(uint64_t)(q->cluster - 1);
        return qcow2_free_later(q, first, at + stored - first);
    }
    return at ? give_back_data(q, at, q->cluster) : 0;
}

/* ---- subclusters: the space first ---- */

/* The bytes of one cluster, from wherever its old entry says, in clear. */
static int read_cluster(struct qcow2 *q, uint64_t cluster, const uint8_t *entry, uint8_t *buf)
{
    uint64_t e = be64_at(entry), at = e & QCOW2_OFFSET, guest = cluster << q->h.cluster_bits;
    if (e & QCOW2_COMPRESSED) {
        uint32_t stored;
        qcow2_unit(q, e, &at, &stored);
        uint64_t end = file_size(q->file);
        stored = at < end ? (uint32_t)MIN(stored, end - at) : 0;
        g_autofree uint8_t *packed = g_try_malloc(MAX(stored, 1));
        int r = packed ? file_read(q->file, at, packed, stored) : -ENOMEM;
        return r ? r : q->node->codec->unpack(packed, stored, buf, q->cluster);
    }
    uint64_t end = file_size(q->data), n = at < end ? MIN(q->cluster, end - at) : 0;
    memset(buf + n, 0, q->cluster - n);
    int r = file_read(q->data, at, buf, n);
    if (!r && q->node->cipher) {
        r = cipher_decrypt(q->node->cipher, q->h.crypt == CRYPT_AES ? guest : at, buf, n & ~511ull);
    }
    return r;
}

/* A cluster that is packed, or shared with a snapshot, gets a copy of its own. */
static int unshare_cluster(struct qcow2 *q, uint64_t cluster)
{
    int r;
    uint8_t *p = qcow2_l2_own(q, cluster, &r);
    uint64_t at, e = p ? be64_at(p) : 0, bits = p ? be64_at(p + 8) : 0;
    g_autofree uint8_t *buf = g_try_malloc(q->cluster);
    if (!p || !buf) {
        return r ? r : -ENOMEM;
    }
    if ((e & QCOW2_COMPRESSED) || bits & ALL_DATA) {
        r = read_cluster(q, cluster, p, buf);
    } else {
        memset(buf, 0, q->cluster);
    }
    int64_t got = r ? r : take_data(q, cluster, 1, &at);
    if (got < 0) {
        return (int)got;
    }
    if (q->node->cipher) {
        r = cipher_encrypt(q->node->cipher, at, buf, q->cluster);
    }
    r = r ? r : file_write(q->data, at, buf, q->cluster);
    p = r ? NULL : qcow2_l2(q, cluster, true, &r);
    if (!p) {
        return r;
    }
    put_entry(q, p, at | QCOW2_COPIED, e & QCOW2_COMPRESSED ? ALL_DATA : bits);
    return release(q, e);
}

/* Gives the clusters of the range their space. */
static int take_space(struct qcow2 *q, uint64_t cluster, uint64_t clusters)
{
    while (clusters) {
        int r;
        uint8_t *p = qcow2_l2_own(q, cluster, &r);
        uint64_t n = 0, most = MIN(clusters, qcow2_l2_left(q, cluster)), at;
        if (!p) {
            return r;
        }
        struct spot s = qcow2_spot(q, p, 0);
        if (s.bad) {
            return qcow2_corrupt(q);
        }
        if (s.kind == EXTENT_PACKED || (s.host != QCOW2_NO_HOST && !s.copied)) {
            r = unshare_cluster(q, cluster);
            n = 1;
        } else if (s.host != QCOW2_NO_HOST) {
            n = 1;
        } else {
            while (n < most && !(be64_at(p + n * q->entry) &
                                 (QCOW2_OFFSET | QCOW2_COMPRESSED | QCOW2_COPIED))) {
                n++;
            }
            int64_t got = take_data(q, cluster, n, &at);
            n = got > 0 ? (uint64_t)got : 0;
            r = got > 0 ? 0 : (int)got;
            p = r ? NULL : qcow2_l2(q, cluster, true, &r); /* taking may have moved it */
            for (uint64_t i = 0; p && i < n; i++) {
                uint8_t *entry = p + i * q->entry;
                put_entry(q, entry, (at + (i << q->h.cluster_bits)) | QCOW2_COPIED,
                          be64_at(entry + 8));
            }
        }
        if (r) {
            return r;
        }
        cluster += n;
        clusters -= n;
    }
    return 0;
}

/* ---- the format's functions ---- */

static int may_write(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    if (q->corrupt) {
        return -EIO;
    }
    return q->record ? qcow2_bitmaps_record(q, offset, length) : 0;
}

static int place_at(struct qcow2 *q, uint64_t offset, uint64_t length, const struct spot *s,
                    uint64_t units, struct extent *out)
{
    out->length = MIN(length, units << q->sub_bits);
    out->at = s->host;
    out->tweak = q->h.crypt == CRYPT_AES ? offset : out->at;
    out->fresh = how_of(s) == HOW_KEPT;
    out->cookie = COOKIE_KEPT;
    if (q->data == q->file && qcow2_meta_hit(q, out->at, out->length)) {
        return qcow2_corrupt(q); /* a guest cluster on top of a table */
    }
    return 0;
}

int qcow2_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    struct qcow2 *q = qcow2_of(node);
    unsigned per = q->h.cluster_bits - q->sub_bits;
    uint64_t unit = offset >> q->sub_bits, most = ((length - 1) >> q->sub_bits) + 1;
    int r = may_write(q, offset, length);
    if (r) {
        return r;
    }
    *out = (struct extent){.kind = EXTENT_DATA, .file = q->data == q->file ? NULL : q->data};
    if (q->extended) {
        r = take_space(q, unit >> per, ((unit + most - 1) >> per) - (unit >> per) + 1);
        if (r) {
            return r;
        }
    }
    const uint8_t *e = qcow2_l2(q, unit >> per, true, &r);
    if (r) {
        return r;
    }
    struct spot s = {.kind = EXTENT_ABSENT, .host = QCOW2_NO_HOST};
    if (e) {
        s = qcow2_spot(q, e, (unsigned)(unit & ((1u << per) - 1)));
    }
    if (s.bad) {
        return qcow2_corrupt(q);
    }
    uint64_t n = e ? same(q, e, unit, most, &s)
                   : MIN(most, (((unit >> q->l2_bits) + 1) << q->l2_bits) - unit);
    if (how_of(&s) != HOW_NEW) {
        return place_at(q, offset, length, &s, n, out);
    }
    /* Without subclusters only: units are clusters. */
    int64_t got = take_data(q, unit, n, &out->at);
    if (got < 0) {
        return (int)got;
    }
    out->length = MIN(length, (uint64_t)got << q->h.cluster_bits);
    out->tweak = q->h.crypt == CRYPT_AES ? offset : out->at;
    out->fresh = true;
    out->cookie = COOKIE_NEW;
    return 0;
}

static int link_packed(struct qcow2 *q, uint64_t offset, const struct extent *placed)
{
    unsigned x = 62 - (q->h.cluster_bits - 8);
    uint64_t last = placed->at + placed->stored - 1;
    uint64_t sectors = (last >> 9) - (placed->at >> 9);
    int r;
    uint8_t *p = qcow2_l2_own(q, offset >> q->h.cluster_bits, &r);
    if (!p) {
        return r;
    }
    uint64_t old = be64_at(p);
    put_entry(q, p, QCOW2_COMPRESSED | sectors << x | placed->at, 0);
    return release(q, old);
}

int qcow2_link(struct node *node, uint64_t offset, const struct extent *placed)
{
    struct qcow2 *q = qcow2_of(node);
    if (placed->kind == EXTENT_PACKED) {
        return link_packed(q, offset, placed);
    }
    unsigned per = q->h.cluster_bits - q->sub_bits;
    uint64_t unit = offset >> q->sub_bits, n = ((placed->length - 1) >> q->sub_bits) + 1;
    for (uint64_t i = 0; i < n; i++) {
        int r;
        uint64_t cluster = (unit + i) >> per, sub = (unit + i) & ((1u << per) - 1);
        uint8_t *p = qcow2_l2_own(q, cluster, &r);
        if (!p) {
            return r;
        }
        if (q->extended) {
            uint64_t bits = (be64_at(p + 8) | SUB_DATA(sub)) & ~SUB_ZERO(sub);
            put_entry(q, p, be64_at(p), bits);
            continue;
        }
        uint64_t old = be64_at(p);
        put_entry(q, p, (placed->at + (i << q->h.cluster_bits)) | QCOW2_COPIED, 0);
        r = placed->cookie == COOKIE_NEW ? release(q, old) : 0;
        if (r) {
            return r;
        }
    }
    return 0;
}

void qcow2_unplace(struct node *node, uint64_t offset, const struct extent *placed)
{
    struct qcow2 *q = qcow2_of(node);
    (void)offset;
    if (placed->kind == EXTENT_PACKED) {
        uint64_t first = placed->at & ~(uint64_t)(q->cluster - 1);
        qcow2_free_later(q, first, placed->at + placed->stored - first);
    } else if (placed->cookie == COOKIE_NEW && !q->extended) {
        give_back_data(q, placed->at, placed->length);
    }
}

int qcow2_place_packed(struct node *node, uint64_t offset, uint32_t stored, struct extent *out)
{
    struct qcow2 *q = qcow2_of(node);
    if (q->data != q->file || q->h.crypt || stored == 0 || stored >= q->cluster) {
        return -ENOTSUP;
    }
    int r = may_write(q, offset, q->cluster);
    *out = (struct extent){.kind = EXTENT_PACKED,
                           .length = q->cluster,
                           .codec = node->codec,
                           .stored = stored,
                           .unit = q->cluster,
                           .start = offset,
                           .fresh = true};
    r = r ? r : qcow2_alloc_packed(q, stored, &out->at);
    unsigned x = 62 - (q->h.cluster_bits - 8);
    return r ? r : out->at >> MIN(x, 56) ? -EFBIG : 0;
}

/* ---- zeroes ---- */

/* The entry (and bits of subclusters) that makes subclusters @mask of entry @e be as @kind
 * wants; whether its space goes back. */
static bool zeroed(const struct qcow2 *q, uint64_t *e, uint64_t *bits, uint64_t mask,
                   enum zero_kind kind, bool below)
{
    bool whole = mask == (q->extended ? ALL_DATA : 1), space = *e & QCOW2_OFFSET;
    bool absent = kind == ZERO_ABSENT || (!below && (kind == ZERO_DISCARD || q->h.version < 3));
    bool keep = kind == ZERO_KEEP && q->h.version >= 3 && space && (*e & QCOW2_COPIED) &&
                !(*e & QCOW2_COMPRESSED);
    if (q->data != q->file && !(*e & QCOW2_COMPRESSED) && (*e & QCOW2_COPIED) && !absent) {
        keep = true; /* its place in the data file is its own in any case */
    }
    if (!q->extended) {
        bool had = *e & (QCOW2_OFFSET | QCOW2_COMPRESSED);
        *e = keep ? *e | QCOW2_ZERO : absent ? 0 : QCOW2_ZERO;
        return had && !keep;
    }
    if (whole && !keep) {
        bool had = *e & (QCOW2_OFFSET | QCOW2_COMPRESSED);
        *e = 0;
        *bits = absent ? 0 : ALL_ZERO;
        return had;
    }
    *bits =
        (*bits & ~(mask | mask << QCOW2_SUBCLUSTERS)) | (absent ? 0 : mask << QCOW2_SUBCLUSTERS);
    return false;
}

/* Subclusters of the cluster at @at that lie in [offset, end). */
static uint64_t mask_of(const struct qcow2 *q, uint64_t at, uint64_t offset, uint64_t end)
{
    if (!q->extended) {
        return 1;
    }
    uint64_t from = offset > at ? (offset - at) >> q->sub_bits : 0;
    uint64_t to = MIN((end - at + (1ull << q->sub_bits) - 1) >> q->sub_bits, QCOW2_SUBCLUSTERS);
    if (end >= q->node->size && at + q->cluster >= end) {
        to = QCOW2_SUBCLUSTERS; /* what is behind the end of the disk goes along */
    }
    return (to == QCOW2_SUBCLUSTERS ? ALL_DATA : SUB_DATA(to) - 1) & ~(SUB_DATA(from) - 1);
}

static int zero_one(struct qcow2 *q, uint64_t cluster, uint64_t mask, enum zero_kind kind,
                    bool below)
{
    int r;
    const uint8_t *now = qcow2_l2(q, cluster, true, &r);
    if (r) {
        return r;
    }
    uint64_t e = now ? be64_at(now) : 0, bits = now && q->extended ? be64_at(now + 8) : 0;
    uint64_t was = e, was_bits = bits;
    if (q->extended && (e & QCOW2_COMPRESSED) && mask != ALL_DATA) {
        r = unshare_cluster(q, cluster);
        return r ? r : zero_one(q, cluster, mask, kind, below);
    }
    bool back = zeroed(q, &e, &bits, mask, kind, below);
    if ((e == was && bits == was_bits) || (!now && !below)) {
        return 0; /* nothing there, nothing below: zero already */
    }
    uint8_t *p = qcow2_l2_own(q, cluster, &r);
    if (!p) {
        return r;
    }
    put_entry(q, p, e, bits);
    return back ? release(q, was) : 0;
}

int qcow2_zero(struct node *node, uint64_t offset, uint64_t length, enum zero_kind kind)
{
    struct qcow2 *q = qcow2_of(node);
    bool below = node->backing || node->backing_name;
    int r = may_write(q, offset, length);
    if (!r && q->h.version < 3 && below && kind != ZERO_ABSENT) {
        return kind == ZERO_DISCARD ? 0 : -ENOTSUP; /* version 2 has no way to say zero */
    }
    if (!r && q->raw_data) {
        r = file_zero(q->data, offset, length, kind != ZERO_KEEP);
    }
    uint64_t end = offset + length;
    for (uint64_t at = offset & ~(uint64_t)(q->cluster - 1); at < end && !r;) {
        uint64_t cluster = at >> q->h.cluster_bits, i = cluster >> q->l2_bits;
        if ((!below || kind == ZERO_ABSENT) &&
            (i >= q->h.l1_entries || !(qcow2_l1_get(q, i) & QCOW2_OFFSET))) {
            at = (i + 1) << (q->l2_bits + q->h.cluster_bits); /* no table, nothing to do */
            continue;
        }
        r = zero_one(q, cluster, mask_of(q, at, offset, end), kind, below);
        at += q->cluster;
    }
    return r;
}

int qcow2_flush(struct node *node)
{
    struct qcow2 *q = qcow2_of(node);
    int r = qcow2_settle(q);
    if (!r && q->data_own) {
        r = file_flush(q->data_own);
    }
    return r ? r : file_flush(q->file);
}
