/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_map: where a guest's bytes lie.  Spec: QEMU, "docs/interop/qcow2.txt", sections
 * "Cluster mapping" and "Extended L2 Entries".
 */
#include "host/image/codec.h"
#include "host/image/qcow2.h"

#include <string.h>

uint8_t *qcow2_l2(struct qcow2 *q, uint64_t cluster, bool wait, int *result)
{
    uint64_t i = cluster >> q->l2_bits;
    *result = 0;
    if (i >= q->h.l1_entries) {
        return NULL;
    }
    uint64_t at = qcow2_l1_get(q, i) & QCOW2_OFFSET;
    if (at == 0) {
        return NULL;
    }
    if (at & (q->cluster - 1)) {
        *result = qcow2_corrupt(q);
        return NULL;
    }
    uint64_t within = (cluster & ((1ull << q->l2_bits) - 1)) * q->entry;
    uint64_t piece = within & ~(uint64_t)(q->piece - 1);
    uint8_t *p = qcow2_piece(q->l2, at + piece, wait, result);
    return p ? p + (within - piece) : NULL;
}

uint64_t qcow2_l2_left(const struct qcow2 *q, uint64_t cluster)
{
    uint64_t per_piece = q->piece / q->entry;
    return per_piece - (cluster & (per_piece - 1));
}

void qcow2_unit(const struct qcow2 *q, uint64_t entry, uint64_t *at, uint32_t *stored)
{
    unsigned x = 62 - (q->h.cluster_bits - 8);
    *at = entry & ((1ull << x) - 1) & ((1ull << 56) - 1);
    uint64_t sectors = (entry & (QCOW2_COMPRESSED - 1)) >> x;
    *stored = (uint32_t)((sectors + 1) * 512 - (*at & 511));
}

struct spot qcow2_spot(const struct qcow2 *q, const uint8_t *entry, unsigned sub)
{
    uint64_t e = be64_at(entry);
    if (e & QCOW2_COMPRESSED) {
        return (struct spot){.kind = EXTENT_PACKED, .host = e, .bad = q->data != q->file};
    }
    struct spot s = {.kind = EXTENT_ABSENT, .host = e & QCOW2_OFFSET, .copied = e & QCOW2_COPIED};
    /* In an external data file guest cluster 0 may lie at 0. */
    bool none = !s.host && !(q->data != q->file && s.copied);
    s.bad = s.host & (q->cluster - 1);
    if (none) {
        s.host = QCOW2_NO_HOST;
    }
    if (q->extended) {
        uint64_t bits = be64_at(entry + 8);
        bool data = bits >> sub & 1, zero = bits >> (QCOW2_SUBCLUSTERS + sub) & 1;
        s.kind = data ? EXTENT_DATA : zero ? EXTENT_ZERO : EXTENT_ABSENT;
        s.bad = s.bad || (data && (zero || none));
        s.host += none ? 0 : (uint64_t)sub << q->sub_bits;
    } else if ((e & QCOW2_ZERO) && q->h.version >= 3) {
        s.kind = EXTENT_ZERO;
    } else if (!none) {
        s.kind = EXTENT_DATA;
    }
    return s;
}

static bool continues(const struct qcow2 *q, const struct spot *a, const struct spot *b,
                      uint64_t units)
{
    if (a->kind != b->kind || b->bad || a->kind == EXTENT_PACKED) {
        return false;
    }
    if (a->kind == EXTENT_ABSENT) {
        return true; /* what space is kept there is nobody's business */
    }
    bool space = a->host != QCOW2_NO_HOST;
    if (space != (b->host != QCOW2_NO_HOST)) {
        return false;
    }
    return !space || (a->copied == b->copied && b->host == a->host + (units << q->sub_bits));
}

/* How many units (clusters, or subclusters) from @unit on continue @first, at most @most. */
static uint64_t run(struct qcow2 *q, uint64_t unit, uint64_t most, const struct spot *first)
{
    unsigned per = q->h.cluster_bits - q->sub_bits; /* log2 of units in a cluster */
    uint64_t n = 1;
    while (n < most) {
        uint64_t cluster = (unit + n) >> per;
        int r;
        const uint8_t *e = qcow2_l2(q, cluster, false, &r);
        if (r) {
            return n; /* not in memory, or broken: the next call will say */
        }
        if (!e) { /* no table: absent up to the next one */
            if (first->kind != EXTENT_ABSENT) {
                return n;
            }
            uint64_t next = ((cluster >> q->l2_bits) + 1) << q->l2_bits;
            n = MIN(most, (next << per) - unit);
            continue;
        }
        uint64_t end = MIN(most, ((cluster + qcow2_l2_left(q, cluster)) << per) - unit);
        for (; n < end; n++) {
            uint64_t i = ((unit + n) >> per) - cluster;
            struct spot s =
                qcow2_spot(q, e + i * q->entry, (unsigned)((unit + n) & ((1u << per) - 1)));
            if (!continues(q, first, &s, n)) {
                return n;
            }
        }
    }
    return n;
}

static int map_unit(struct qcow2 *q, uint64_t offset, uint64_t entry, struct extent *out)
{
    uint64_t end = file_size(q->file), within = offset & (q->cluster - 1);
    qcow2_unit(q, entry, &out->at, &out->stored);
    if (out->at >= end) {
        return -EIO;
    }
    out->stored = (uint32_t)MIN(out->stored, end - out->at);
    out->codec = q->node->codec;
    out->unit = q->cluster;
    out->start = offset - within;
    out->length = MIN(out->length, q->cluster - within);
    return 0;
}

int qcow2_map(struct node *node, uint64_t offset, uint64_t length, bool wait, struct extent *out)
{
    struct qcow2 *q = qcow2_of(node);
    unsigned per = q->h.cluster_bits - q->sub_bits;
    uint64_t unit = offset >> q->sub_bits, within = offset & ((1ull << q->sub_bits) - 1);
    uint64_t most = ((within + length - 1) >> q->sub_bits) + 1;
    int r;
    const uint8_t *e = qcow2_l2(q, unit >> per, wait, &r);
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
    *out = (struct extent){.kind = s.kind, .length = length};
    if (s.kind == EXTENT_PACKED) {
        return map_unit(q, offset, s.host, out);
    }
    uint64_t units = run(q, unit, most, &s);
    out->length = MIN(length, (units << q->sub_bits) - within);
    if (s.kind == EXTENT_ABSENT || s.host == QCOW2_NO_HOST) {
        return 0;
    }
    out->file = q->data == q->file ? NULL : q->data;
    out->at = s.host + within;
    if (s.kind == EXTENT_ZERO) {
        return 0;
    }
    out->tweak = q->h.crypt == CRYPT_AES ? offset : out->at;
    uint64_t end = file_size(q->data);
    if (out->at - (out->at & (q->cluster - 1)) >= end) {
        return -EIO; /* it points behind the end of the file */
    }
    if (out->at >= end) { /* the last cluster of a file need not be there completely */
        out->kind = EXTENT_ZERO;
        out->at = 0;
        out->length = MIN(out->length, q->cluster - (offset & (q->cluster - 1)));
        return 0;
    }
    out->length = MIN(out->length, end - out->at);
    out->holes = q->holes;
    out->in_place = s.copied && !node->read_only && !q->corrupt && (!q->record || q->recording) &&
                    !qcow2_meta_hit(q, out->at, out->length);
    return 0;
}
