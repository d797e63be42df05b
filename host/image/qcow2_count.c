/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_count: finds every reference to a host cluster, and what is wrong on the way.  Spec:
 * QEMU, "docs/interop/qcow2.txt", sections "Host cluster management" to "Bitmaps".
 */
#include "host/image/qcow2.h"

#include <inttypes.h>
#include <string.h>

#define COUNTS_MOST (1ull << 42) /* clusters; a file with more than that is all hole */

bool qcow2_counts_init(struct qcow2_counts *c, uint64_t n, GError **error)
{
    uint64_t chunks = n / COUNTS_CHUNK + 1;
    c->n = n;
    c->chunks = n < COUNTS_MOST ? g_try_new0(uint16_t *, chunks) : NULL;
    if (!c->chunks) {
        error_set_errno(error, ENOMEM, "counters of %" PRIu64 " clusters", n);
    }
    return c->chunks;
}

void qcow2_counts_free(struct qcow2_counts *c)
{
    for (uint64_t i = 0; c->chunks && i <= c->n / COUNTS_CHUNK; i++) {
        g_free(c->chunks[i]);
    }
    g_clear_pointer(&c->chunks, g_free);
}

uint16_t qcow2_counts_get(const struct qcow2_counts *c, uint64_t i)
{
    const uint16_t *chunk = i < c->n ? c->chunks[i / COUNTS_CHUNK] : NULL;
    return chunk ? chunk[i % COUNTS_CHUNK] : 0;
}

static void fail(struct qcow2_counting *c)
{
    c->failed = true;
    c->out->check_errors++;
}

/* One reference more to each cluster of [at, at + bytes). */
static void add(struct qcow2_counting *c, uint64_t at, uint64_t bytes)
{
    const struct qcow2 *q = c->q;
    if (bytes == 0) {
        return;
    }
    if (at + bytes < at || (at + bytes > c->file_n && at + bytes - c->file_n >= q->cluster)) {
        check_tell(c->out,
                   "ERROR: counting reference for region exceeding the end of the file by one "
                   "cluster or more: offset 0x%" PRIx64 " size 0x%" PRIx64,
                   at, bytes);
        c->out->corruptions++;
        return;
    }
    uint64_t most = MIN(qcow2_ref_max(q), COUNT_MOST);
    uint64_t last = (at + bytes - 1) >> q->h.cluster_bits;
    for (uint64_t i = at >> q->h.cluster_bits; i <= last; i++) {
        uint16_t **chunk = &c->counts.chunks[i / COUNTS_CHUNK];
        if (!*chunk && !(*chunk = g_try_new0(uint16_t, COUNTS_CHUNK))) {
            fail(c);
            return;
        }
        uint16_t *count = &(*chunk)[i % COUNTS_CHUNK];
        if (*count < most) {
            ++*count;
        } else if (most < COUNT_MOST || qcow2_ref_max(q) == COUNT_MOST) {
            check_tell(c->out, "ERROR: overflow cluster offset=0x%" PRIx64, i << q->h.cluster_bits);
            check_tell(c->out, "Use qemu-img amend to increase the refcount entry width or qemu-img "
                          "convert to create a clean copy if the image cannot be opened for "
                          "writing");
            c->out->corruptions++;
        }
    }
}

/* ---- L2 tables ---- */

struct table { /* being looked at */
    uint64_t at;
    uint8_t *bytes;
    bool active;
    uint64_t next; /* where the next cluster continues the last one */
};

/* The entry is replaced by "reads as zero", in the file too. */
static void mend_by_zero(struct qcow2_counting *c, struct table *t, uint64_t i)
{
    struct qcow2 *q = c->q;
    uint8_t *p = t->bytes + i * q->entry;
    be64_put(p, q->extended ? 0 : QCOW2_ZERO);
    if (q->extended) {
        be64_put(p + 8, 0xffffffff00000000ull);
    }
    if (file_write(q->file, t->at + i * q->entry, p, q->entry)) {
        check_tell(c->out, "ERROR: Failed to overwrite L2 table entry");
        fail(c);
        return;
    }
    c->out->corruptions--;
    c->out->corruptions_fixed++;
}

static void count_packed(struct qcow2_counting *c, const struct table *t, uint64_t i, uint64_t e,
                         uint64_t bits)
{
    struct qcow2 *q = c->q;
    uint64_t at;
    uint32_t stored;
    if (e & QCOW2_COPIED) {
        check_tell(c->out,
                   "ERROR: coffset=0x%" PRIx64 ": copied flag must never be set for compressed "
                   "clusters",
                   e & ((UINT64_C(1) << (62 - (q->h.cluster_bits - 8))) - 1));
        c->out->corruptions++;
    }
    if (q->h.incompatible & INCOMPAT_DATA_FILE || bits) {
        check_tell(c->out,
                   bits ? "ERROR compressed cluster %" PRIu64 " with non-zero subcluster "
                          "allocation bitmap, entry=0x%" PRIx64
                        : "ERROR compressed cluster %" PRIu64 " with data file, entry=0x%" PRIx64,
                   i, e);
        c->out->corruptions++;
        return;
    }
    qcow2_unit(q, e, &at, &stored);
    add(c, at & ~511ull, stored + (at & 511));
    if (t->active) {
        c->out->allocated_clusters++;
        c->out->compressed_clusters++;
        c->out->fragmented_clusters++; /* its neighbour is in the same sectors */
    }
}

/* False if the entry is not to be counted. */
static bool entry_sane(struct qcow2_counting *c, struct table *t, uint64_t i, uint64_t e,
                       uint64_t bits)
{
    struct qcow2 *q = c->q;
    uint64_t at = e & QCOW2_OFFSET;
    bool data = q->extended ? bits & 0xffffffff : !(e & QCOW2_ZERO) || q->h.version < 3;
    if (bits & bits >> 32 & 0xffffffff) {
        c->out->corruptions++;
        check_tell(c->out,
                   "%s offset=%" PRIx64 ": Allocated cluster has corrupted subcluster "
                   "allocation bitmap",
                   c->fix & FIX_ERRORS ? "Repairing" : "ERROR", at);
        if (c->fix & FIX_ERRORS) {
            mend_by_zero(c, t, i);
        }
        return false;
    }
    if (at & (q->cluster - 1)) {
        c->out->corruptions++;
        if (!data) {
            check_tell(c->out,
                       "%s offset=%" PRIx64 ": Preallocated cluster is not properly aligned; "
                       "L2 entry corrupted.",
                       c->fix & FIX_ERRORS ? "Repairing" : "ERROR", at);
            if (c->fix & FIX_ERRORS) {
                mend_by_zero(c, t, i);
                return false;
            }
        } else {
            check_tell(c->out,
                       "ERROR offset=%" PRIx64 ": Data cluster is not properly aligned; L2 "
                       "entry corrupted.",
                       at);
        }
    }
    return true;
}

static void count_entry(struct qcow2_counting *c, struct table *t, uint64_t i, uint64_t e,
                        uint64_t bits)
{
    struct qcow2 *q = c->q;
    uint64_t at = e & QCOW2_OFFSET;
    bool own = q->h.incompatible & INCOMPAT_DATA_FILE;
    if (e & QCOW2_COMPRESSED) {
        count_packed(c, t, i, e, bits);
        return;
    }
    uint64_t reserved = QCOW2_L2_RESERVED | (q->extended || q->h.version < 3 ? QCOW2_ZERO : 0);
    if (e & reserved) {
        check_tell(c->out, "ERROR found l2 entry with reserved bits set: %" PRIx64, e);
        c->out->corruptions++;
    }
    if (!at && !(own && e & QCOW2_COPIED)) {
        if (bits & 0xffffffff) {
            c->out->corruptions++;
            check_tell(c->out, "ERROR: Unallocated cluster has non-zero subcluster allocation map");
        }
        return;
    }
    if (!entry_sane(c, t, i, e, bits)) {
        return;
    }
    if (t->active) {
        c->out->allocated_clusters++;
        c->out->fragmented_clusters += t->next && at != t->next;
        t->next = at + q->cluster;
    }
    if (!own) {
        add(c, at, q->cluster);
    }
}

static void count_table(struct qcow2_counting *c, struct table *t)
{
    struct qcow2 *q = c->q;
    uint64_t n = q->cluster / q->entry;
    t->next = 0;
    for (uint64_t i = 0; i < n && !c->failed; i++) {
        uint64_t e, bits = 0;
        memcpy(&e, t->bytes + i * q->entry, sizeof(e));
        if (q->extended) {
            bits = be64_at(t->bytes + i * q->entry + 8);
        }
        if (e || bits) {
            count_entry(c, t, i, GUINT64_FROM_BE(e), bits);
        }
    }
}

/* ---- L1 tables ---- */

static void count_l1(struct qcow2_counting *c, uint64_t l1_at, uint64_t entries, bool active)
{
    struct qcow2 *q = c->q;
    struct whole_table l1 = {0};
    g_autofree uint8_t *bytes = g_try_malloc(q->cluster);
    add(c, l1_at, 8 * entries);
    if (!entries) {
        return;
    }
    uint64_t have = l1_at < c->file_n ? MIN(8 * entries, (c->file_n - l1_at) & ~7ull) : 0;
    if (!bytes || whole_table_read(&l1, q->file, l1_at, have)) {
        check_tell(c->out, "ERROR: I/O error in check_refcounts_l1");
        fail(c);
        return;
    }
    for (uint64_t i = 0; i < have / 8 && !c->failed; i++) {
        uint64_t e = be64_at(l1.bytes + 8 * i), at = e & QCOW2_OFFSET;
        if (e == 0) {
            continue;
        }
        if (e & QCOW2_L1_RESERVED) {
            check_tell(c->out, "ERROR found L1 entry with reserved bits set: %" PRIx64, e);
            c->out->corruptions++;
        }
        if (at == 0) {
            continue;
        }
        if (active && at >= c->file_n && c->fix & FIX_ERRORS) {
            check_tell(c->out,
                       "Repairing L2 table %" PRIu64 " at 0x%" PRIx64 ", behind the end of the "
                       "file: what it mapped is lost", i, at);
            whole_table_put64(&q->l1, i, 0);
            c->out->corruptions_fixed++;
            continue;
        }
        add(c, at, q->cluster);
        if (at & (q->cluster - 1)) {
            check_tell(c->out,
                       "ERROR l2_offset=%" PRIx64 ": Table is not cluster aligned; L1 entry "
                       "corrupted",
                       at);
            c->out->corruptions++;
        }
        /* What is behind the end of the file reads as zero. */
        uint64_t part = at < c->file_n ? MIN(q->cluster, c->file_n - at) : 0;
        memset(bytes + part, 0, q->cluster - part);
        if (part && file_read(q->file, at, bytes, part)) {
            check_tell(c->out, "ERROR: I/O error in check_refcounts_l2");
            fail(c);
        } else if (part) {
            struct table t = {.at = at, .bytes = bytes, .active = active};
            count_table(c, &t);
        }
    }
    whole_table_free(&l1);
}

static void count_snapshots(struct qcow2_counting *c)
{
    struct qcow2 *q = c->q;
    for (uint32_t i = 0; i < q->h.n_snapshots && !c->failed; i++) {
        const struct qcow2_snapshot *s = &q->snapshots[i];
        if (s->l1_at & (q->cluster - 1)) {
            check_tell(c->out,
                       "ERROR snapshot %s (%s) l1_offset=%#" PRIx64 ": L1 table is not cluster "
                       "aligned; snapshot table entry corrupted",
                       s->shown.id, s->shown.name, s->l1_at);
            c->out->corruptions++;
        } else if (s->l1_entries > QCOW2_L1_MAX / 8) {
            check_tell(c->out,
                       "ERROR snapshot %s (%s) l1_size=%#" PRIx32 ": L1 table is too large; "
                       "snapshot table entry corrupted",
                       s->shown.id, s->shown.name, s->l1_entries);
            c->out->corruptions++;
        } else {
            count_l1(c, s->l1_at, s->l1_entries, false);
        }
    }
    if (q->h.n_snapshots) {
        add(c, q->h.snapshots_at, qcow2_snapshots_bytes(q->snapshots, q->h.n_snapshots));
    }
}

static void count_bitmaps(struct qcow2_counting *c)
{
    struct qcow2 *q = c->q;
    if (!q->h.n_bitmaps) {
        return;
    }
    add(c, q->h.bitmaps_at, q->h.bitmaps_n);
    for (uint32_t i = 0; i < q->h.n_bitmaps && !c->failed; i++) {
        const struct qcow2_bitmap *b = &q->bitmaps[i];
        struct whole_table t;
        add(c, b->table_at, 8ull * b->table_entries);
        if (qcow2_bitmap_table(q, b, &t)) {
            c->out->corruptions++;
            continue;
        }
        for (uint64_t k = 0; k < b->table_entries; k++) {
            uint64_t e = be64_at(t.bytes + 8 * k), at = e & QCOW2_OFFSET;
            if (e & ~(QCOW2_OFFSET | 1) || (at && (e & 1 || at & (q->cluster - 1)))) {
                c->out->corruptions++;
            } else if (at) {
                add(c, at, q->cluster);
            }
        }
        whole_table_free(&t);
    }
}

/* ---- refcount blocks ---- */

/* A block behind the end of the file: the file grows to hold it. */
static void count_outside(struct qcow2_counting *c, uint64_t i, uint64_t at)
{
    c->out->corruptions++;
    check_tell(c->out, "%s refcount block %" PRIu64 " is outside image",
               c->fix & FIX_ERRORS ? "Repairing" : "ERROR", i);
    c->rebuild |= c->fix & FIX_ERRORS;
    (void)at;
}

static void count_blocks(struct qcow2_counting *c)
{
    struct qcow2 *q = c->q;
    for (uint64_t i = 0; i < q->reftable.n / 8 && !c->failed; i++) {
        uint64_t e = be64_at(q->reftable.bytes + 8 * i), at = e & QCOW2_REF_OFFSET;
        if (e & 511) {
            check_tell(c->out, "ERROR refcount table entry %" PRIu64 " has reserved bits set", i);
            c->out->corruptions++;
            c->rebuild = true;
            continue;
        }
        if (at & (q->cluster - 1)) {
            check_tell(c->out,
                       "ERROR refcount block %" PRIu64 " is not cluster aligned; refcount table "
                       "entry corrupted",
                       i);
            c->out->corruptions++;
            c->rebuild = true;
            continue;
        }
        if (at == 0) {
            continue;
        }
        if (at >= c->file_n) {
            count_outside(c, i, at);
            continue;
        }
        add(c, at, q->cluster);
        uint16_t count = qcow2_counts_get(&c->counts, at >> q->h.cluster_bits);
        if (count != 1) {
            check_tell(c->out, "ERROR refcount block %" PRIu64 " refcount=%u", i, count);
            c->out->corruptions++;
            c->rebuild = true;
        }
    }
}

void qcow2_count(struct qcow2_counting *c)
{
    struct qcow2 *q = c->q;
    add(c, 0, q->cluster);
    count_l1(c, q->h.l1_at, q->h.l1_entries, true);
    count_snapshots(c);
    add(c, q->h.reftable_at, q->reftable.n);
    add(c, q->h.crypto_at, q->h.crypto_n);
    count_bitmaps(c);
    count_blocks(c);
}
