/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_rebuild: a refcount table and its blocks made anew behind the end of the file, of any
 * width.  Spec: QEMU, "docs/interop/qcow2.txt", section "Host cluster management".
 */
#include "host/image/qcow2.h"

#include <string.h>

struct rebuild {
    struct qcow2 *q;
    struct qcow2_counts *counts;
    unsigned order;
    uint64_t per_block, first; /* the first new cluster */
    uint64_t blocks, table;    /* clusters of blocks, and of the table behind them */
    uint64_t entries;          /* of the table that are in use */
};

static bool any_count(const struct rebuild *b, uint64_t from, uint64_t to)
{
    if (to > b->first) {
        return true; /* the new tables themselves */
    }
    for (uint64_t i = from; i < to;) {
        if (!b->counts->chunks[i / COUNTS_CHUNK]) {
            i = (i / COUNTS_CHUNK + 1) * COUNTS_CHUNK;
        } else if (qcow2_counts_get(b->counts, i)) {
            return true;
        } else {
            i++;
        }
    }
    return false;
}

/* How many blocks and how large a table: they count themselves too. */
static void measure(struct rebuild *b)
{
    uint64_t used = 0, cluster = b->q->cluster;
    for (uint64_t i = 0; i < b->first / b->per_block; i++) {
        used += any_count(b, i * b->per_block, MIN((i + 1) * b->per_block, b->first));
    }
    b->blocks = b->table = 0;
    for (;;) {
        uint64_t end = b->first + b->blocks + b->table;
        uint64_t entries = (end + b->per_block - 1) / b->per_block;
        uint64_t blocks = used + entries - b->first / b->per_block;
        uint64_t table = (8 * entries + cluster - 1) / cluster;
        if (blocks == b->blocks && table == b->table) {
            b->entries = entries;
            return;
        }
        b->blocks = blocks;
        b->table = table;
    }
}

/* The old blocks and table are referred to no more. */
static void take_off_old(struct rebuild *b)
{
    struct qcow2 *q = b->q;
    uint64_t clusters = q->reftable.n >> q->h.cluster_bits;
    for (uint64_t i = 0; i < q->reftable.n / 8 + clusters; i++) {
        uint64_t entry = i < q->reftable.n / 8
                             ? be64_at(q->reftable.bytes + 8 * i)
                             : q->h.reftable_at + ((i - q->reftable.n / 8) << q->h.cluster_bits);
        uint64_t c = entry >> q->h.cluster_bits;
        if (entry == 0 || entry & (q->cluster - 1) || !qcow2_counts_get(b->counts, c)) {
            continue;
        }
        b->counts->chunks[c / COUNTS_CHUNK][c % COUNTS_CHUNK]--;
    }
}

static int fill(const struct rebuild *b, uint64_t block, uint8_t *bytes)
{
    uint64_t most = b->order == 6 ? UINT64_MAX : (1ull << (1u << b->order)) - 1;
    uint64_t end = b->first + b->blocks + b->table;
    memset(bytes, 0, b->q->cluster);
    for (uint64_t i = 0; i < b->per_block; i++) {
        uint64_t c = block * b->per_block + i;
        uint64_t count = c >= b->first ? c < end : qcow2_counts_get(b->counts, c);
        if (count > most) {
            return -EOVERFLOW;
        }
        if (count) {
            qcow2_ref_put(bytes, i, b->order, count);
        }
    }
    return 0;
}

static int write_blocks(struct rebuild *b, struct whole_table *table)
{
    struct qcow2 *q = b->q;
    g_autofree uint8_t *bytes = g_try_malloc(q->cluster);
    uint64_t at = b->first << q->h.cluster_bits;
    int r = bytes ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < b->entries && !r; i++) {
        uint64_t to = (i + 1) * b->per_block;
        if (any_count(b, i * b->per_block, to)) {
            r = fill(b, i, bytes);
            r = r ? r : file_write(q->file, at, bytes, q->cluster);
            whole_table_put64(table, i, at);
            at += q->cluster;
        }
    }
    return r;
}

int qcow2_refs_rebuild(struct qcow2 *q, struct qcow2_counts *counts, unsigned order)
{
    struct rebuild b = {.q = q,
                        .counts = counts,
                        .order = order,
                        .per_block = (uint64_t)q->cluster * 8 >> order,
                        .first = qcow2_clusters(q, file_size(q->file))};
    struct qcow2_header was = q->h;
    struct whole_table table;
    take_off_old(&b);
    measure(&b);
    if (b.table << q->h.cluster_bits > QCOW2_REFTABLE_MAX) {
        return -EFBIG;
    }
    uint64_t at = (b.first + b.blocks) << q->h.cluster_bits;
    int r = whole_table_blank(&table, at, b.table << q->h.cluster_bits);
    if (r) {
        return r;
    }
    r = write_blocks(&b, &table);
    r = r ? r : whole_table_write(&table, q->file);
    r = r ? r : file_flush(q->file);
    if (!r) {
        q->h.reftable_at = at;
        q->h.reftable_clusters = (uint32_t)b.table;
        q->h.refcount_order = order;
        r = qcow2_header_put(q);
        r = r ? r : file_flush(q->file);
    }
    if (r) {
        q->h = was;
        whole_table_free(&table);
        return r;
    }
    whole_table_free(&q->reftable);
    q->reftable = table;
    q->first_free = 0;
    q->packed_at = 0;
    tables_forget(q->refs);
    return q->node->read_only ? 0 : qcow2_meta_collect(q);
}
