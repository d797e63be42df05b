/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_fork: changes of the whole image that happen in one write of the header.
 *
 * A snapshot changes refcounts, the flags that repeat them in L2 tables, the L1 table and the list
 * of snapshots.  All of them are made anew beside the old ones: until the header names the new
 * ones the old image is as it was, but for space that leaks if we die; then the old ones are free.
 *
 * Spec: QEMU, "docs/interop/qcow2.txt", sections "Host cluster management", "Cluster mapping".
 */
#include "host/image/qcow2_fork.h"

#include <string.h>

enum { SLACK = 4 }; /* refcount blocks that taking the space itself may add */

static uint64_t count_blocks(const struct qcow2 *q)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < q->reftable.n / 8; i++) {
        n += be64_at(q->reftable.bytes + 8 * i) != 0;
    }
    return n;
}

static int give_back(struct qcow2 *q, const struct freed *run)
{
    return run->n ? qcow2_ref_add(q, run->first, run->n, -1) : 0;
}

/* Exactly @bytes in a row. */
static int take_run(struct qcow2 *q, uint64_t bytes, struct freed *out)
{
    uint64_t at;
    int r = bytes ? qcow2_alloc_table(q, bytes, &at) : 0;
    if (bytes && r == 0) {
        *out = (struct freed){at >> q->h.cluster_bits, qcow2_clusters(q, bytes)};
    }
    return r;
}

/* @want clusters, wherever they are. */
static int take_room(struct qcow2 *q, struct qcow2_fork *f, uint64_t want)
{
    while (want) {
        struct freed run;
        int64_t n = qcow2_alloc(q, want, &run.first);
        if (n < 0) {
            return (int)n;
        }
        run.n = (uint64_t)n;
        g_array_append_val(f->room, run);
        f->n_room += run.n;
        want -= run.n;
    }
    return 0;
}

static uint64_t take_one(struct qcow2_fork *f)
{
    const struct freed *run = &g_array_index(f->room, struct freed, f->run);
    uint64_t cluster = run->first + f->used;
    if (++f->used == run->n) {
        f->run++;
        f->used = 0;
    }
    return cluster;
}

/*
 * A table of refcounts as large as the one there is, and room for its blocks and for a copy of
 * each L2 table that @l1 names.  Taking space may need more blocks, and a larger table.
 */
static int take_tables(struct qcow2 *q, struct qcow2_fork *f, const uint8_t *l1, uint64_t entries)
{
    uint64_t copies = 0;
    int r = 0;
    for (uint64_t i = 0; i < entries; i++) {
        copies += (be64_at(l1 + 8 * i) & QCOW2_OFFSET) != 0;
    }
    while (r == 0) {
        uint64_t want = copies + count_blocks(q);
        if (f->counts.n < q->reftable.n >> q->h.cluster_bits) {
            r = give_back(q, &f->counts);
            f->counts.n = 0;
            r = r ? r : take_run(q, q->reftable.n, &f->counts);
        } else if (f->n_room < want) {
            r = take_room(q, f, want - f->n_room + SLACK);
        } else {
            break;
        }
    }
    return r;
}

/* The refcounts as they are now, at a place of their own; from here on those are changed. */
static int fork_counts(struct qcow2 *q, struct qcow2_fork *f)
{
    g_autofree uint8_t *bytes = g_try_malloc(q->cluster);
    struct whole_table fresh;
    uint64_t at = f->counts.first << q->h.cluster_bits;
    int r = bytes ? whole_table_blank(&fresh, at, q->reftable.n) : -ENOMEM;
    if (r) {
        return r;
    }
    for (uint64_t i = 0; i < q->reftable.n / 8 && !r; i++) {
        uint64_t from = be64_at(q->reftable.bytes + 8 * i);
        if (from) {
            uint64_t to = take_one(f) << q->h.cluster_bits;
            r = from % q->cluster ? -EIO : file_read(q->file, from, bytes, q->cluster);
            r = r ? r : file_write(q->file, to, bytes, q->cluster);
            whole_table_put64(&fresh, i, to);
        }
    }
    if (r) {
        whole_table_free(&fresh);
        return r;
    }
    f->was = q->reftable;
    q->reftable = fresh;
    q->forked = true;
    tables_forget(q->refs);
    return 0;
}

int qcow2_fork_begin(struct qcow2 *q, struct qcow2_fork *f, const uint8_t *l1, uint64_t entries,
                     uint64_t snapshot_bytes)
{
    *f = (struct qcow2_fork){.room = g_array_new(FALSE, FALSE, sizeof(struct freed)),
                             .lazy = q->lazy};
    q->lazy = false; /* what is copied must be complete */
    int r = q->corrupt ? -EIO : qcow2_settle(q);
    r = r ? r : qcow2_settle(q); /* what the first one gave back */
    r = r ? r : take_run(q, 8 * entries, &f->l1);
    r = r ? r : take_run(q, snapshot_bytes, &f->snapshots);
    r = r ? r : take_tables(q, f, l1, entries);
    r = r ? r : qcow2_settle(q);
    r = r ? r : file_flush(q->file);
    return r ? r : fork_counts(q, f);
}

void qcow2_fork_abort(struct qcow2 *q, struct qcow2_fork *f)
{
    if (q->forked) {
        whole_table_free(&q->reftable);
        q->reftable = f->was;
        q->forked = false;
        g_array_set_size(q->held, 0);
        tables_forget(q->refs);
    }
    int r = q->corrupt ? -EIO : give_back(q, &f->l1);
    r = r ? r : give_back(q, &f->snapshots);
    r = r ? r : give_back(q, &f->counts);
    for (unsigned i = 0; i < f->room->len && !r; i++) {
        r = give_back(q, &g_array_index(f->room, struct freed, i));
    }
    r = r ? r : qcow2_settle(q); /* if it cannot, they leak */
    g_array_free(f->room, TRUE);
    q->lazy = f->lazy;
}

/* ---- counting ---- */

/* Adds @delta to the clusters of entries [0, n) of @table, neighbours together. */
static int count_entries(struct qcow2 *q, const uint8_t *table, uint64_t n, int delta)
{
    uint64_t first = 0, many = 0;
    int r = 0;
    for (uint64_t i = 0; i < n && !r; i++) {
        uint64_t e = be64_at(table + i * q->entry), at = e & QCOW2_OFFSET, clusters = 1;
        if (e & QCOW2_COMPRESSED) {
            uint32_t stored;
            qcow2_unit(q, e, &at, &stored);
            clusters = ((at & (q->cluster - 1)) + stored + q->cluster - 1) >> q->h.cluster_bits;
        } else if (!at) {
            continue;
        }
        uint64_t cluster = at >> q->h.cluster_bits;
        if (many && cluster == first + many && !(e & QCOW2_COMPRESSED)) {
            many++;
            continue;
        }
        r = many ? qcow2_ref_add(q, first, many, delta) : 0;
        first = cluster;
        many = clusters;
    }
    return r || !many ? r : qcow2_ref_add(q, first, many, delta);
}

int qcow2_fork_count(struct qcow2 *q, const uint8_t *l1, uint64_t entries, int delta)
{
    g_autofree uint8_t *table = g_try_malloc(q->cluster);
    int r = table ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < entries && !r; i++) {
        uint64_t at = be64_at(l1 + 8 * i) & QCOW2_OFFSET;
        if (at == 0) {
            continue;
        }
        r = at % q->cluster ? qcow2_corrupt(q) : file_read(q->file, at, table, q->cluster);
        r = r ? r : count_entries(q, table, q->cluster / q->entry, delta);
        r = r ? r : qcow2_ref_add(q, at >> q->h.cluster_bits, 1, delta);
    }
    return r;
}

/* ---- flags ---- */

/* The flags of entries [0, n): set where the cluster is used once.  *@changed if any is another. */
static int flag_entries(struct qcow2 *q, uint8_t *table, uint64_t n, bool *changed)
{
    int r = 0;
    for (uint64_t i = 0; i < n && !r; i++) {
        uint8_t *p = table + i * q->entry;
        uint64_t e = be64_at(p), at = e & QCOW2_OFFSET;
        if ((e & QCOW2_COMPRESSED) || !at) {
            continue;
        }
        uint64_t count = qcow2_ref(q, at >> q->h.cluster_bits, &r);
        uint64_t now = count == 1 ? e | QCOW2_COPIED : e & ~QCOW2_COPIED;
        if (now != e) {
            be64_put(p, now);
            *changed = true;
        }
    }
    return r;
}

/* A table whose flags become others is written to a new place. */
int qcow2_fork_flags(struct qcow2 *q, struct qcow2_fork *f, struct whole_table *l1)
{
    g_autofree uint8_t *table = g_try_malloc(q->cluster);
    int r = table ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < l1->n / 8 && !r; i++) {
        uint64_t e = be64_at(l1->bytes + 8 * i), at = e & QCOW2_OFFSET;
        if (at == 0) {
            continue;
        }
        bool changed = false;
        r = file_read(q->file, at, table, q->cluster);
        r = r ? r : flag_entries(q, table, q->cluster / q->entry, &changed);
        if (changed && !r) {
            uint64_t to = take_one(f) << q->h.cluster_bits;
            r = file_write(q->file, to, table, q->cluster);
            r = r ? r : qcow2_ref_add(q, at >> q->h.cluster_bits, 1, -1);
            at = to;
        }
        uint64_t count = r ? 0 : qcow2_ref(q, at >> q->h.cluster_bits, &r);
        whole_table_put64(l1, i, at | (count == 1 ? QCOW2_COPIED : 0));
    }
    return r;
}

/* ---- the switch ---- */

/* What the old refcounts take, and what was not needed. */
static int drop_old_counts(struct qcow2 *q, struct qcow2_fork *f)
{
    int r = 0;
    for (; f->run < f->room->len && !r; f->run++, f->used = 0) {
        const struct freed *run = &g_array_index(f->room, struct freed, f->run);
        r = give_back(q, &(struct freed){run->first + f->used, run->n - f->used});
    }
    for (uint64_t i = 0; i < f->was.n / 8 && !r; i++) {
        uint64_t at = be64_at(f->was.bytes + 8 * i);
        r = at ? qcow2_ref_add(q, at >> q->h.cluster_bits, 1, -1) : 0;
    }
    return r ? r
             : qcow2_ref_add(q, f->was.at >> q->h.cluster_bits, qcow2_clusters(q, f->was.n), -1);
}

/* Space that nobody uses goes back to the file system; some of it may have found a user again. */
static void discard_held(struct qcow2 *q)
{
    for (unsigned i = 0; i < q->held->len; i++) {
        const struct freed *run = &g_array_index(q->held, struct freed, i);
        uint64_t first = run->first, end = run->first + run->n;
        for (uint64_t c = first; c <= end; c++) {
            int r = 0;
            if (c == end || qcow2_ref(q, c, &r) || r) {
                if (c > first) {
                    file_discard(q->file, first << q->h.cluster_bits,
                                 (c - first) << q->h.cluster_bits);
                }
                first = c + 1;
            }
        }
    }
    g_array_set_size(q->held, 0);
}

int qcow2_fork_end(struct qcow2 *q, struct qcow2_fork *f, const struct qcow2_header *next,
                   struct whole_table *l1)
{
    struct qcow2_header was = q->h;
    int r = drop_old_counts(q, f);
    r = r ? r : tables_write(q->refs);
    r = r ? r : whole_table_write(&q->reftable, q->file);
    r = r ? r : whole_table_write(l1, q->file);
    r = r ? r : file_flush(q->file);
    if (r) {
        return r;
    }
    q->h = *next;
    q->h.reftable_at = q->reftable.at;
    q->h.reftable_clusters = (uint32_t)(q->reftable.n >> q->h.cluster_bits);
    r = qcow2_header_put(q);
    r = r ? r : file_flush(q->file);
    if (r) {
        q->h = was;
        (void)qcow2_header_put(q);
        return r;
    }
    whole_table_free(&f->was);
    whole_table_free(&q->l1);
    q->l1 = *l1;
    *l1 = (struct whole_table){0};
    q->forked = false;
    q->first_free = 0;
    q->packed_at = 0;
    q->lazy = f->lazy;
    tables_forget(q->l2);
    g_array_free(f->room, TRUE);
    discard_held(q);
    return 0;
}
