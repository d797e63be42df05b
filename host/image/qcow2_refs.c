/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_refs: who uses which cluster of the file, and what is free.  Spec: QEMU,
 * "docs/interop/qcow2.txt", section "Host cluster management".
 */
#include "host/image/qcow2.h"

#include <string.h>

enum { REFS_BYTES = 4 << 20, REFS_CHECK = 512 << 10, FREED_MAX = 4096, HELD_MAX = 65536,
       WORD_BITS = 64 };

/* ---- one entry ---- */

uint64_t qcow2_ref_at(const uint8_t *block, uint64_t i, unsigned order)
{
    switch (order) {
    case 3:
        return block[i];
    case 4:
        return be16_at(block + 2 * i);
    case 5:
        return be32_at(block + 4 * i);
    case 6:
        return be64_at(block + 8 * i);
    default: { /* several in a byte, the first in the lowest bits */
        unsigned each = 1u << order, in_byte = 8u >> order;
        return block[i / in_byte] >> i % in_byte * each & ((1u << each) - 1);
    }
    }
}

void qcow2_ref_put(uint8_t *block, uint64_t i, unsigned order, uint64_t value)
{
    switch (order) {
    case 3:
        block[i] = (uint8_t)value;
        break;
    case 4:
        be16_put(block + 2 * i, (uint16_t)value);
        break;
    case 5:
        be32_put(block + 4 * i, (uint32_t)value);
        break;
    case 6:
        be64_put(block + 8 * i, value);
        break;
    default: {
        unsigned each = 1u << order, in_byte = 8u >> order, shift = (unsigned)(i % in_byte) * each;
        uint8_t mask = (uint8_t)(((1u << each) - 1) << shift), *p = &block[i / in_byte];
        *p = (uint8_t)((*p & ~mask) | (uint8_t)(value << shift));
    }
    }
}

uint64_t qcow2_ref_max(const struct qcow2 *q)
{
    unsigned bits = 1u << q->h.refcount_order;
    return bits == 64 ? UINT64_MAX : (1ull << bits) - 1;
}

/* ---- pieces of refcount blocks ---- */

static uint64_t per_block(const struct qcow2 *q)
{
    return (uint64_t)q->cluster * 8 >> q->h.refcount_order;
}

static uint64_t per_piece(const struct qcow2 *q)
{
    return (uint64_t)q->piece * 8 >> q->h.refcount_order;
}

int qcow2_ref_view(struct qcow2 *q, uint64_t cluster, struct qcow2_view *v)
{
    uint64_t block = cluster / per_block(q), within = cluster % per_block(q);
    *v = (struct qcow2_view){NULL, 0, per_block(q) - within};
    if (block >= q->reftable.n / 8) {
        return 0;
    }
    uint64_t at = be64_at(q->reftable.bytes + 8 * block) & QCOW2_REF_OFFSET;
    if (at == 0) {
        return 0;
    }
    if (at % q->cluster) {
        return qcow2_corrupt(q);
    }
    int r;
    v->bytes = qcow2_piece(q->refs, at + within / per_piece(q) * q->piece, true, &r);
    v->i = within % per_piece(q);
    v->n = per_piece(q) - v->i;
    return r;
}

uint64_t qcow2_ref(struct qcow2 *q, uint64_t cluster, int *result)
{
    struct qcow2_view v;
    *result = qcow2_ref_view(q, cluster, &v);
    return *result || !v.bytes ? 0 : qcow2_ref_at(v.bytes, v.i, q->h.refcount_order);
}

void qcow2_ref_changed(struct qcow2 *q, const struct qcow2_view *v, uint64_t from, uint64_t to)
{
    uint64_t first = (from << q->h.refcount_order) / 8;
    uint64_t end = ((to << q->h.refcount_order) + 7) / 8;
    tables_touched(q->refs, v->bytes + first, (uint32_t)(end - first));
}

/* ---- what is known to be metadata ---- */

static int meta_room(struct qcow2 *q, uint64_t bits)
{
    if (bits <= q->n_meta) {
        return 0;
    }
    uint64_t n = (MAX(bits, 2 * q->n_meta) + 4095) & ~4095ull;
    uint64_t *more = g_try_malloc0(n / 8);
    if (!more) {
        return -ENOMEM;
    }
    if (q->meta) {
        memcpy(more, q->meta, q->n_meta / 8);
    }
    g_free(q->meta);
    q->meta = more;
    q->n_meta = n;
    return 0;
}

int qcow2_meta_set(struct qcow2 *q, uint64_t at, uint64_t bytes)
{
    uint64_t first = at >> q->h.cluster_bits, end = first + qcow2_clusters(q, bytes);
    int r = meta_room(q, end);
    for (uint64_t c = first; c < end && !r;) {
        uint64_t n = MIN(end - c, WORD_BITS - c % WORD_BITS);
        q->meta[c / WORD_BITS] |= (UINT64_MAX >> (WORD_BITS - n)) << c % WORD_BITS;
        c += n;
    }
    return r;
}

bool qcow2_meta_hit(const struct qcow2 *q, uint64_t at, uint64_t bytes)
{
    uint64_t c = at >> q->h.cluster_bits, end = MIN(c + qcow2_clusters(q, bytes), q->n_meta);
    while (c < end) {
        uint64_t word = q->meta[c / WORD_BITS] >> c % WORD_BITS;
        if (word && (uint64_t)__builtin_ctzll(word) < end - c) {
            return true;
        }
        c = (c / WORD_BITS + 1) * WORD_BITS;
    }
    return false;
}

/* A pointer that leads out of the file is reported where it is used. */
static int meta_note(struct qcow2 *q, uint64_t at, uint64_t bytes)
{
    return at < file_size(q->file) && bytes <= file_size(q->file) ? qcow2_meta_set(q, at, bytes)
                                                                  : 0;
}

int qcow2_meta_collect(struct qcow2 *q)
{
    if (q->meta) {
        memset(q->meta, 0, q->n_meta / 8);
    }
    int r = meta_note(q, 0, q->cluster);
    r = r ? r : meta_note(q, q->h.l1_at, 8ull * q->h.l1_entries);
    r = r ? r : meta_note(q, q->h.reftable_at, q->reftable.n);
    r = r ? r : meta_note(q, q->h.crypto_at, q->h.crypto_n);
    if (q->h.n_snapshots && !r) {
        r = meta_note(q, q->h.snapshots_at, qcow2_snapshots_bytes(q->snapshots, q->h.n_snapshots));
    }
    for (uint32_t i = 0; i < q->h.n_snapshots && !r; i++) {
        r = meta_note(q, q->snapshots[i].l1_at, 8ull * q->snapshots[i].l1_entries);
    }
    if (q->h.n_bitmaps && !r) {
        r = meta_note(q, q->h.bitmaps_at, q->h.bitmaps_n);
    }
    for (uint64_t i = 0; i < q->reftable.n / 8 && !r; i++) {
        uint64_t at = be64_at(q->reftable.bytes + 8 * i) & QCOW2_REF_OFFSET;
        r = at ? meta_note(q, at, q->cluster) : 0;
    }
    for (uint64_t i = 0; i < q->h.l1_entries && !r; i++) {
        uint64_t at = qcow2_l1_get(q, i) & QCOW2_OFFSET;
        r = at ? meta_note(q, at, q->cluster) : 0;
    }
    return r;
}

static int clean_refs(void *owner)
{
    struct qcow2 *q = owner; /* a count that is too high harms nobody: any time will do */
    return tables_write(q->refs);
}

bool qcow2_refs_open(struct qcow2 *q, GError **error)
{
    /* Who checks reads them in order, and has better use for memory. */
    bool check = q->node->flags & OPEN_CHECK;
    size_t n = (size_t)q->h.reftable_clusters << q->h.cluster_bits;
    q->refs = tables_new_sized(q->file, q->piece, (check ? REFS_CHECK : REFS_BYTES) / q->piece,
                               clean_refs, q);
    int r = check ? whole_table_read_cut(&q->reftable, q->file, q->h.reftable_at, n)
                  : whole_table_read(&q->reftable, q->file, q->h.reftable_at, n);
    if (r) {
        error_set_errno(error, -r,
                        "Could not read the reference count table at 0x%" G_GINT64_MODIFIER "x",
                        q->h.reftable_at);
        return false;
    }
    q->freed = g_new(struct freed, FREED_MAX);
    r = q->node->read_only ? 0 : qcow2_meta_collect(q);
    if (r) {
        error_set_errno(error, -r, "map of metadata");
    }
    return r == 0;
}

/* ---- changing counts ---- */

static void given_back(struct qcow2 *q, uint64_t first, uint64_t n)
{
    if (q->forked) {
        struct freed run = {first, n};
        if (q->held->len < HELD_MAX) {
            g_array_append_val(q->held, run); /* discarding is advice: so many are enough */
        }
        return;
    }
    q->first_free = MIN(q->first_free, first);
    uint64_t end = MIN(first + n, q->n_meta);
    for (uint64_t c = first; c < end; c++) {
        if (q->meta[c / WORD_BITS] >> c % WORD_BITS & 1) {
            q->meta[c / WORD_BITS] &= ~(1ull << c % WORD_BITS);
            tables_drop(q->l2, c << q->h.cluster_bits, q->cluster);
            tables_drop(q->refs, c << q->h.cluster_bits, q->cluster);
        }
    }
    if (q->packed_at && (q->packed_at - 1) >> q->h.cluster_bits >= first &&
        (q->packed_at - 1) >> q->h.cluster_bits < first + n) {
        q->packed_at = 0;
    }
    file_discard(q->file, first << q->h.cluster_bits, n << q->h.cluster_bits);
}

int qcow2_ref_add(struct qcow2 *q, uint64_t first, uint64_t n, int delta)
{
    uint64_t most = qcow2_ref_max(q), back = 0, back_n = 0;
    unsigned order = q->h.refcount_order;
    while (n) {
        struct qcow2_view v;
        int r = qcow2_ref_view(q, first, &v);
        if (r || !v.bytes) {
            return r ? r : qcow2_corrupt(q); /* only what is in use changes its count */
        }
        uint64_t part = MIN(n, v.n);
        for (uint64_t i = 0; i < part; i++) {
            uint64_t now = qcow2_ref_at(v.bytes, v.i + i, order);
            if (delta < 0 ? now < (uint64_t)-delta : now > most - (uint64_t)delta) {
                qcow2_ref_changed(q, &v, v.i, v.i + i);
                return delta < 0 ? qcow2_corrupt(q) : -EOVERFLOW;
            }
            now += (uint64_t)(int64_t)delta;
            qcow2_ref_put(v.bytes, v.i + i, order, now);
            if (now == 0) {
                if (back_n && back + back_n == first + i) {
                    back_n++;
                } else {
                    if (back_n) {
                        given_back(q, back, back_n);
                    }
                    back = first + i;
                    back_n = 1;
                }
            }
        }
        qcow2_ref_changed(q, &v, v.i, v.i + part);
        first += part;
        n -= part;
    }
    if (back_n) {
        given_back(q, back, back_n);
    }
    return 0;
}

/* ---- finding free clusters ---- */

static uint64_t used_run(const struct qcow2 *q, const struct qcow2_view *v)
{
    unsigned order = q->h.refcount_order;
    uint64_t i = 0;
    if (order == 4) { /* four at a time, the usual width */
        for (; i + 4 <= v->n; i += 4) {
            uint64_t w;
            memcpy(&w, v->bytes + 2 * (v->i + i), sizeof(w));
            if ((w - 0x0001000100010001ull) & ~w & 0x8000800080008000ull) {
                break;
            }
        }
    }
    while (i < v->n && qcow2_ref_at(v->bytes, v->i + i, order)) {
        i++;
    }
    return i;
}

static uint64_t free_run(const struct qcow2 *q, const struct qcow2_view *v, uint64_t most)
{
    uint64_t i = 0;
    while (i < MIN(v->n, most) && !qcow2_ref_at(v->bytes, v->i + i, q->h.refcount_order)) {
        i++;
    }
    return i;
}

/* A block for clusters that have none: it takes the first of them itself. */
static int new_block(struct qcow2 *q, uint64_t block)
{
    int r = block < q->reftable.n / 8 ? 0 : qcow2_reftable_grow(q, block + 1);
    if (r || be64_at(q->reftable.bytes + 8 * block)) {
        return r; /* growing may have made it */
    }
    uint64_t first = block * per_block(q), at = first << q->h.cluster_bits;
    if (qcow2_meta_hit(q, at, q->cluster)) {
        return qcow2_corrupt(q);
    }
    r = qcow2_meta_set(q, at, q->cluster);
    for (uint32_t i = q->cluster / q->piece; i-- && !r;) {
        uint8_t *piece = qcow2_blank_piece(q->refs, at + (uint64_t)i * q->piece, &r);
        if (piece && i == 0) {
            qcow2_ref_put(piece, 0, q->h.refcount_order, 1);
        }
    }
    if (!r) {
        whole_table_put64(&q->reftable, block, at);
    }
    return r;
}

/* The next free cluster from *@cluster on, with its view. */
static int next_free(struct qcow2 *q, uint64_t *cluster, struct qcow2_view *v)
{
    for (;;) {
        int r = qcow2_ref_view(q, *cluster, v);
        if (!r && !v->bytes) {
            r = new_block(q, *cluster / per_block(q));
            if (!r) {
                continue;
            }
        }
        if (r) {
            return r;
        }
        if (*cluster >> (56 - q->h.cluster_bits)) {
            return -EFBIG; /* no L2 entry could name it */
        }
        uint64_t used = used_run(q, v);
        *cluster += used;
        if (used < v->n) {
            v->i += used;
            v->n -= used;
            return 0;
        }
    }
}

static int take(struct qcow2 *q, uint64_t first, uint64_t n)
{
    if (qcow2_meta_hit(q, first << q->h.cluster_bits, n << q->h.cluster_bits)) {
        return qcow2_corrupt(q); /* metadata that the counts call free */
    }
    return qcow2_ref_add(q, first, n, 1);
}

int64_t qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *first)
{
    struct qcow2_view v;
    uint64_t c = q->first_free;
    int r = q->corrupt ? -EIO : next_free(q, &c, &v);
    if (r) {
        return r;
    }
    *first = c;
    uint64_t n = free_run(q, &v, want);
    while (n < want && n == v.n + (c - *first)) { /* to the end of the piece: go on behind it */
        c = *first + n;
        if (qcow2_ref_view(q, c, &v) || !v.bytes) {
            break;
        }
        n += free_run(q, &v, want - n);
    }
    r = take(q, *first, n);
    if (r) {
        return r;
    }
    q->first_free = *first + n;
    return (int64_t)n;
}

int qcow2_alloc_table(struct qcow2 *q, uint64_t bytes, uint64_t *at)
{
    uint64_t want = qcow2_clusters(q, bytes), first = q->first_free, n = 0, c = first;
    if (q->corrupt) {
        return -EIO;
    }
    while (n < want) {
        struct qcow2_view v;
        uint64_t free_at = c;
        int r = next_free(q, &free_at, &v);
        if (r) {
            return r;
        }
        if (free_at != first + n) {
            first = free_at;
            n = 0;
        }
        n += free_run(q, &v, want - n);
        c = first + n;
    }
    int r = take(q, first, want);
    r = r ? r : qcow2_meta_set(q, first << q->h.cluster_bits, want << q->h.cluster_bits);
    if (first == q->first_free) {
        q->first_free = first + want;
    }
    *at = first << q->h.cluster_bits;
    return r;
}

/* Compressed bytes share clusters: each unit holds a reference to every cluster it touches. */
int qcow2_alloc_packed(struct qcow2 *q, uint32_t n, uint64_t *at)
{
    unsigned bits = q->h.cluster_bits;
    uint64_t begin = q->packed_at, within = begin & (q->cluster - 1);
    uint64_t room = within ? q->cluster - within : 0, first, have = 0;
    if (room) {
        int r;
        have = qcow2_ref(q, begin >> bits, &r);
        if (r) {
            return r;
        }
        if (have == 0 || have == qcow2_ref_max(q)) {
            room = 0;
        }
    }
    if (room < n) {
        int64_t got = qcow2_alloc(q, 1, &first);
        if (got < 0) {
            return (int)got;
        }
        if (!room || first << bits != begin + room) {
            *at = first << bits;
            q->packed_at = *at + n;
            return 0; /* its own count is the unit's reference */
        }
    }
    int r = qcow2_ref_add(q, begin >> bits, 1, 1);
    if (!r) {
        *at = begin;
        q->packed_at = begin + n;
    }
    return r;
}

/* ---- giving back ---- */

int qcow2_free_later(struct qcow2 *q, uint64_t at, uint64_t bytes)
{
    uint64_t first = at >> q->h.cluster_bits, n = qcow2_clusters(q, bytes);
    struct freed *last = q->n_freed ? &q->freed[q->n_freed - 1] : NULL;
    if (last && last->first + last->n == first) {
        last->n += n;
        return 0;
    }
    if (q->n_freed == FREED_MAX) {
        int r = qcow2_settle(q);
        if (r) {
            return r;
        }
    }
    q->freed[q->n_freed++] = (struct freed){first, n};
    return 0;
}

static int by_cluster(const void *a, const void *b)
{
    const struct freed *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

static int free_now(struct qcow2 *q)
{
    int r = 0;
    qsort(q->freed, q->n_freed, sizeof(*q->freed), by_cluster);
    for (unsigned i = 0; i < q->n_freed && !r;) {
        struct freed all = q->freed[i++]; /* neighbours go together */
        while (i < q->n_freed && q->freed[i].first == all.first + all.n) {
            all.n += q->freed[i++].n;
        }
        r = qcow2_ref_add(q, all.first, all.n, -1);
    }
    q->n_freed = 0; /* after an error the rest leaks */
    return r;
}

static int flush_files(struct qcow2 *q)
{
    int r = q->data_own ? file_flush(q->data_own) : 0;
    return r ? r : file_flush(q->file);
}

/* With lazy refcounts the dirty bit stands for them. */
static int settle_counts(struct qcow2 *q)
{
    if (q->lazy) {
        return qcow2_mark(q, INCOMPAT_DIRTY, true);
    }
    int r = tables_write(q->refs);
    if (!r && q->reftable.any_dirty) {
        r = flush_files(q);
        r = r ? r : whole_table_write(&q->reftable, q->file);
    }
    return r;
}

int qcow2_settle(struct qcow2 *q)
{
    if (!tables_dirty(q->l2) && !q->l1.any_dirty && !q->n_freed) {
        return q->lazy ? 0 : settle_counts(q);
    }
    int r = settle_counts(q);
    r = r ? r : flush_files(q);
    if (!r && tables_dirty(q->l2)) {
        r = tables_write(q->l2);
        r = r ? r : file_flush(q->file);
    }
    if (!r && q->l1.any_dirty) {
        r = whole_table_write(&q->l1, q->file);
        r = r ? r : file_flush(q->file);
    }
    return r ? r : free_now(q);
}

/* ---- a larger refcount table ---- */

/*
 * The new table and the blocks that count it lie behind all that the old one covers, so that
 * nothing in use is touched until the header names it.
 */
int qcow2_reftable_grow(struct qcow2 *q, uint64_t blocks)
{
    uint64_t old = q->reftable.n / 8, base = old * per_block(q), table, more, at;
    uint64_t entries = MAX(blocks + 1, old + old / 2);
    do { /* clusters of the table, and blocks for those and for themselves */
        table = qcow2_clusters(q, 8 * entries);
        more = (table + per_block(q) - 2) / (per_block(q) - 1);
        entries = MAX(entries, old + more);
    } while (table < qcow2_clusters(q, 8 * entries));
    if (table << q->h.cluster_bits > QCOW2_REFTABLE_MAX) {
        return -EFBIG;
    }
    struct whole_table fresh, was = q->reftable;
    at = (base + more) << q->h.cluster_bits;
    int r = whole_table_blank(&fresh, at, table << q->h.cluster_bits);
    if (r) {
        return r;
    }
    memcpy(fresh.bytes, was.bytes, was.n);
    for (uint64_t b = 0; b < more; b++) { /* block b lies in the cluster base + b */
        whole_table_put64(&fresh, old + b, (base + b) << q->h.cluster_bits);
        for (uint32_t i = 0; i < q->cluster / q->piece && !r; i++) {
            qcow2_blank_piece(q->refs, ((base + b) << q->h.cluster_bits) + (uint64_t)i * q->piece,
                              &r);
        }
    }
    q->reftable = fresh;
    r = r ? r : qcow2_ref_add(q, base, more + table, 1);
    r = r ? r : tables_write(q->refs);
    r = r ? r : whole_table_write(&q->reftable, q->file);
    r = r ? r : file_flush(q->file);
    if (r) {
        q->reftable = was;
        whole_table_free(&fresh);
        tables_drop(q->refs, base << q->h.cluster_bits, more << q->h.cluster_bits);
        return r;
    }
    q->h.reftable_at = at;
    q->h.reftable_clusters = (uint32_t)table;
    r = qcow2_header_put(q);
    r = r ? r : file_flush(q->file);
    r = r ? r : qcow2_meta_set(q, base << q->h.cluster_bits, (more + table) << q->h.cluster_bits);
    if (!r) {
        r = qcow2_ref_add(q, was.at >> q->h.cluster_bits, qcow2_clusters(q, was.n), -1);
    }
    whole_table_free(&was);
    return r;
}
