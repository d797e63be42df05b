/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_check: compares the refcounts with the references that there are, and mends them.
 * Spec: QEMU, "docs/interop/qcow2.txt"; what is said and counted is what qemu-img says.
 */
#include "host/image/qcow2.h"

#include <inttypes.h>
#include <string.h>

/* The refcounts from @cluster on; what cannot be read counts as 0 and wants a rebuild. */
static void view(struct qcow2_counting *c, uint64_t cluster, struct qcow2_view *v)
{
    if (qcow2_ref_view(c->q, cluster, v)) {
        uint64_t per_block = (uint64_t)c->q->cluster * 8 >> c->q->h.refcount_order;
        *v = (struct qcow2_view){NULL, 0, per_block - cluster % per_block};
    }
}

/* True if it was mended. */
static bool mismatch(struct qcow2_counting *c, struct qcow2_view *v, uint64_t k, uint64_t cluster,
                     uint64_t has, uint64_t wants, unsigned fix)
{
    struct check_result *out = c->out;
    uint64_t *mended = NULL;
    if (has == 0 && !v->bytes) {
        c->rebuild = true;
    } else if (has == 0) {
        c->rebuild = true; /* its cluster may have been given to somebody else */
    } else if (has > wants && (fix & FIX_LEAKS)) {
        mended = &out->leaks_fixed;
    } else if (has < wants && (fix & FIX_ERRORS)) {
        mended = &out->corruptions_fixed;
    }
    check_tell(c->out, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
               mended        ? "Repairing"
               : has < wants ? "ERROR"
                             : "Leaked",
               cluster, has, wants);
    if (mended) {
        qcow2_ref_put(v->bytes, v->i + k, c->q->h.refcount_order, wants);
        qcow2_ref_changed(c->q, v, v->i + k, v->i + k + 1);
        ++*mended;
        return true;
    }
    if (has < wants) {
        out->corruptions++;
    } else {
        out->leaks++;
    }
    return false;
}

static void compare(struct qcow2_counting *c, unsigned fix, uint64_t *highest)
{
    unsigned order = c->q->h.refcount_order;
    uint64_t n = c->counts.n;
    *highest = 0;
    for (uint64_t at = 0; at < n;) {
        struct qcow2_view v;
        view(c, at, &v);
        uint64_t part = MIN(v.n, n - at);
        part = MIN(part, COUNTS_CHUNK - at % COUNTS_CHUNK);
        const uint16_t *chunk = c->counts.chunks[at / COUNTS_CHUNK];
        for (uint64_t k = 0; k < part && (v.bytes || chunk); k++) {
            uint64_t has = v.bytes ? qcow2_ref_at(v.bytes, v.i + k, order) : 0;
            uint64_t wants = chunk ? chunk[at % COUNTS_CHUNK + k] : 0;
            if (has || wants) {
                *highest = at + k;
            }
            bool same = has == wants || (wants == COUNT_MOST && has > wants);
            if (!same) {
                mismatch(c, &v, k, at + k, has, wants, fix);
            }
        }
        at += part;
    }
}

/* ---- the flags ---- */

struct flags {
    struct qcow2_counting *c;
    struct qcow2_view v; /* refcounts around the last cluster looked at */
    uint64_t first;      /* the cluster of .v's first entry */
};

static uint64_t count_at(struct flags *f, uint64_t cluster)
{
    if (cluster < f->first || cluster - f->first >= f->v.n) {
        view(f->c, cluster, &f->v);
        f->first = cluster;
    }
    return f->v.bytes
               ? qcow2_ref_at(f->v.bytes, f->v.i + (cluster - f->first), f->c->q->h.refcount_order)
               : 0;
}

/* Whether the flag of an entry is wrong. */
static bool flag_wrong(struct flags *f, const char *what, uint64_t e, uint64_t count)
{
    struct qcow2_counting *c = f->c;
    bool mend = c->fix & FIX_ERRORS;
    if ((count == 1) == !!(e & QCOW2_COPIED)) {
        return false;
    }
    check_tell(c->out, "%s OFLAG_COPIED %s=%" PRIx64 " refcount=%" PRIu64, mend ? "Repairing" : "ERROR",
               what, e, count);
    if (mend) {
        c->out->corruptions_fixed++;
    } else {
        c->out->corruptions++;
    }
    return true;
}

static int check_table_flags(struct flags *f, uint64_t at, uint8_t *bytes)
{
    struct qcow2 *q = f->c->q;
    bool changed = false, own = q->h.incompatible & INCOMPAT_DATA_FILE;
    for (uint64_t i = 0; i < q->cluster; i += q->entry) {
        uint64_t e = be64_at(bytes + i), data = e & QCOW2_OFFSET;
        if (!data || (e & QCOW2_COMPRESSED)) {
            continue;
        }
        uint64_t count = own ? 1 : count_at(f, data >> q->h.cluster_bits);
        if (flag_wrong(f, "data cluster: l2_entry", e, count)) {
            be64_put(bytes + i, e ^ QCOW2_COPIED);
            changed = true;
        }
    }
    return changed && f->c->fix & FIX_ERRORS ? file_write(q->file, at, bytes, q->cluster) : 0;
}

static int check_flags(struct qcow2_counting *c)
{
    struct qcow2 *q = c->q;
    struct flags f = {.c = c};
    g_autofree uint8_t *bytes = g_try_malloc(q->cluster);
    int r = bytes ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < q->h.l1_entries && !r; i++) {
        uint64_t e = qcow2_l1_get(q, i), at = e & QCOW2_OFFSET;
        if (at == 0 || at & (q->cluster - 1) || at >= c->file_n) {
            continue;
        }
        g_autofree char *what = g_strdup_printf("L2 cluster: l1_index=%" PRIu64 " l1_entry", i);
        if (flag_wrong(&f, what, e, count_at(&f, at >> q->h.cluster_bits)) && c->fix & FIX_ERRORS) {
            whole_table_put64(&q->l1, i, e ^ QCOW2_COPIED);
        }
        uint64_t part = MIN(q->cluster, c->file_n - at);
        memset(bytes + part, 0, q->cluster - part);
        r = file_read(q->file, at, bytes, part);
        r = r ? r : check_table_flags(&f, at, bytes);
    }
    return r;
}

/* ---- all of it ---- */

/* Entries that the file was cut off before: they read as 0 when there is room for them again. */
static int check_l1_end(struct qcow2_counting *c)
{
    struct qcow2 *q = c->q;
    uint64_t end = q->h.l1_at + 8ull * q->h.l1_entries, size = file_size(q->file);
    if (end <= size) {
        return 0;
    }
    bool mend = c->fix & FIX_ERRORS;
    check_tell(c->out, "%s the L1 table ends at byte %" PRIu64 ", the file at %" PRIu64,
               mend ? "Repairing" : "ERROR", end, size);
    if (!mend) {
        c->out->corruptions++;
        return 0;
    }
    if (size > q->h.l1_at && size % 8) {
        whole_table_put64(&q->l1, (size - q->h.l1_at) / 8, 0); /* half of an entry is there */
    }
    int r = file_resize(q->file, (end + q->cluster - 1) & ~(uint64_t)(q->cluster - 1));
    c->out->corruptions_fixed += r ? 0 : 1;
    return r;
}

/* Version 3 wants the size of the disk with each snapshot. */
static int check_snapshot_table(struct qcow2_counting *c)
{
    struct qcow2 *q = c->q;
    uint64_t bad = 0;
    for (uint32_t i = 0; i < q->h.n_snapshots && q->h.version >= 3; i++) {
        if (q->snapshots[i].extra_n < 16) {
            bad++;
            check_tell(c->out, "%s snapshot table entry %u is incomplete",
                       c->fix & FIX_ERRORS ? "Repairing" : "ERROR", i);
        }
    }
    if (!bad || !(c->fix & FIX_ERRORS)) {
        c->out->corruptions += bad;
        return 0;
    }
    int r = qcow2_snapshots_write(q, q->snapshots, q->h.n_snapshots);

    c->out->corruptions_fixed += r ? 0 : bad;
    return r;
}

static int mend(struct qcow2_counting *c, uint64_t *highest)
{
    struct check_result *out = c->out;
    int r = 0;
    if (c->rebuild && (c->fix & FIX_ERRORS)) {
        check_tell(c->out, "Rebuilding refcount structure");
        r = qcow2_refs_rebuild(c->q, &c->counts, c->q->h.refcount_order);
        if (!r) {
            out->corruptions_fixed += out->corruptions;
            out->leaks_fixed += out->leaks;
            out->corruptions = out->leaks = 0;
            *highest = qcow2_clusters(c->q, file_size(c->q->file)) - 1;
        }
    } else if (c->rebuild) {
        check_tell(c->out, "ERROR need to rebuild refcount structures");
        r = -EIO;
    }
    return r;
}

static bool run(struct qcow2_counting *c, GError **error)
{
    struct qcow2 *q = c->q;
    struct check_result *out = c->out;
    uint64_t highest;
    int r = check_snapshot_table(c);
    qcow2_count(c);
    if (c->failed || r) {
        error_set_errno(error, r ? -r : EIO, "Check failed");
        return false;
    }
    struct check_result before = *out;
    compare(c, FIX_NOTHING, &highest);
    if (c->fix && c->rebuild) {
        r = mend(c, &highest);
    } else if (c->fix && (out->leaks || out->corruptions)) {
        out->leaks = before.leaks;
        out->corruptions = before.corruptions;
        compare(c, c->fix, &highest);
    }
    r = r ? r : check_flags(c);
    if (r) {
        out->check_errors++;
        error_set_errno(error, -r, "Check failed");
        return false;
    }
    out->image_end_offset = (highest + 1) << q->h.cluster_bits;
    return true;
}

bool qcow2_check(struct node *node, unsigned fix, struct check_result *out, GError **error)
{
    struct qcow2 *q = qcow2_of(node);
    struct qcow2_counting c = {.q = q, .out = out, .fix = fix};
    int r = check_l1_end(&c);
    r = r || node->read_only ? r : qcow2_settle(q);
    out->total_clusters = qcow2_clusters(q, q->h.size);
    tables_forget(q->l2);
    c.file_n = file_size(q->file);
    if (r || !qcow2_counts_init(&c.counts, qcow2_clusters(q, c.file_n) + 1, error)) {
        if (r) {
            error_set_errno(error, -r, "Check failed");
        }
        return false;
    }
    bool ok = run(&c, error);
    qcow2_counts_free(&c.counts);
    if (!ok || !fix) {
        return ok;
    }
    r = qcow2_settle(q);
    r = r ? r : file_flush(q->file);
    if (!r && !out->corruptions && !out->check_errors) {
        r = qcow2_mark(q, INCOMPAT_DIRTY | INCOMPAT_CORRUPT, false);
    }
    if (r) {
        error_set_errno(error, -r, "Check failed");
    }
    return r == 0;
}
