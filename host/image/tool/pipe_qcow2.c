/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2 through a pipe: header, refcounts, L1 and L2 tables come first, which needs to know
 * before which clusters hold data; then the clusters in the order of the disk.
 *
 * Spec: QEMU, docs/interop/qcow2.txt, "Header", "Host cluster management",
 * "Cluster mapping".
 */
#include "base/bytes.h"
#include "host/image/tool/pipe.h"

#include <errno.h>
#include <string.h>

enum {
    CLUSTER_BITS = 16,
    CLUSTER = 1 << CLUSTER_BITS,
    HEADER_BYTES = 104,
    REFCOUNT_ORDER = 4,      /* 16 bits */
    REFCOUNTS = CLUSTER / 2, /* in a block */
    ENTRIES = CLUSTER / 8,   /* in a table */
};
static const uint64_t COPIED = UINT64_C(1) << 63; /* the refcount is 1 */
static const uint64_t TABLE_MAX = 32 << 20;       /* bytes of an L1 table that others read */

struct qcow2_sink {
    struct sink sink;
    uint8_t *used;               /* one bit a guest cluster */
    uint64_t clusters;           /* guest clusters */
    uint64_t n_used, n_l1, n_l2; /* data clusters, L1 entries, L2 tables */
    /* Clusters of the file, one after the other. */
    uint64_t table_clusters, blocks, l1_clusters, all;
};

static bool is_used(const struct qcow2_sink *q, uint64_t cluster)
{
    return q->used[cluster / 8] >> (cluster % 8) & 1;
}

static void use(struct qcow2_sink *q, uint64_t from, uint64_t to)
{
    for (uint64_t c = from / CLUSTER; c * CLUSTER < to; c++) {
        q->n_used += !is_used(q, c);
        q->used[c / 8] |= (uint8_t)(1 << (c % 8));
    }
}

static int find_data(struct qcow2_sink *q, struct node *const *tops, unsigned n)
{
    uint64_t base = 0;
    for (unsigned i = 0; i < n; i++) {
        struct chain_status s;
        for (uint64_t at = 0; at < tops[i]->size; at += s.length) {
            int error = chain_status(tops[i], NULL, at, tops[i]->size - at, &s);
            if (error) {
                return error;
            }
            if (!s.zero) {
                use(q, base + at, base + at + s.length);
            }
        }
        base += tops[i]->size;
    }
    return 0;
}

/* Whether any of the clusters that L2 table @n maps is used. */
static bool table_used(const struct qcow2_sink *q, uint64_t n)
{
    uint64_t from = n * ENTRIES / 8, to = MIN((n + 1) * ENTRIES, q->clusters + 7) / 8;
    return !is_zero(q->used + from, to - from);
}

/* Refcount blocks count themselves too. */
static void lay_out(struct qcow2_sink *q)
{
    uint64_t before;
    q->n_l1 = (q->clusters + ENTRIES - 1) / ENTRIES;
    for (uint64_t i = 0; i < q->n_l1; i++) {
        q->n_l2 += table_used(q, i);
    }
    q->l1_clusters = (q->n_l1 * 8 + CLUSTER - 1) / CLUSTER;
    do {
        before = q->all;
        q->blocks = (q->all + REFCOUNTS - 1) / REFCOUNTS;
        q->table_clusters = MAX((q->blocks * 8 + CLUSTER - 1) / CLUSTER, 1);
        q->all = 1 + q->table_clusters + q->blocks + q->l1_clusters + q->n_l2 + q->n_used;
    } while (q->all != before);
}

static int put_header(const struct qcow2_sink *q, uint8_t *cluster)
{
    memset(cluster, 0, CLUSTER);
    be32_put(cluster, 0x514649fb);
    be32_put(cluster + 4, 3);
    be32_put(cluster + 20, CLUSTER_BITS);
    be64_put(cluster + 24, q->sink.size);
    be32_put(cluster + 36, (uint32_t)q->n_l1);
    be64_put(cluster + 40, (1 + q->table_clusters + q->blocks) * CLUSTER);
    be64_put(cluster + 48, CLUSTER);
    be32_put(cluster + 56, (uint32_t)q->table_clusters);
    be32_put(cluster + 96, REFCOUNT_ORDER);
    be32_put(cluster + 100, HEADER_BYTES);
    return pipe_write(cluster, CLUSTER);
}

static int put_refcounts(const struct qcow2_sink *q, uint8_t *cluster)
{
    int error = 0;
    for (uint64_t t = 0; t < q->table_clusters && !error; t++) {
        memset(cluster, 0, CLUSTER);
        for (uint64_t i = 0; i < ENTRIES && t * ENTRIES + i < q->blocks; i++) {
            be64_put(cluster + i * 8, (1 + q->table_clusters + t * ENTRIES + i) * CLUSTER);
        }
        error = pipe_write(cluster, CLUSTER);
    }
    for (uint64_t b = 0; b < q->blocks && !error; b++) {
        memset(cluster, 0, CLUSTER);
        for (uint64_t i = 0; i < REFCOUNTS && b * REFCOUNTS + i < q->all; i++) {
            be16_put(cluster + i * 2, 1);
        }
        error = pipe_write(cluster, CLUSTER);
    }
    return error;
}

static int put_l1(const struct qcow2_sink *q, uint8_t *cluster)
{
    uint64_t at = 1 + q->table_clusters + q->blocks + q->l1_clusters;
    int error = 0;
    for (uint64_t c = 0; c < q->l1_clusters && !error; c++) {
        memset(cluster, 0, CLUSTER);
        for (uint64_t i = 0; i < ENTRIES && c * ENTRIES + i < q->n_l1; i++) {
            if (table_used(q, c * ENTRIES + i)) {
                be64_put(cluster + i * 8, at++ * CLUSTER | COPIED);
            }
        }
        error = pipe_write(cluster, CLUSTER);
    }
    return error;
}

static int put_l2(const struct qcow2_sink *q, uint8_t *cluster)
{
    uint64_t at = q->all - q->n_used;
    int error = 0;
    for (uint64_t t = 0; t < q->n_l1 && !error; t++) {
        if (!table_used(q, t)) {
            continue;
        }
        memset(cluster, 0, CLUSTER);
        for (uint64_t i = 0; i < ENTRIES && t * ENTRIES + i < q->clusters; i++) {
            if (is_used(q, t * ENTRIES + i)) {
                be64_put(cluster + i * 8, at++ * CLUSTER | COPIED);
            }
        }
        error = pipe_write(cluster, CLUSTER);
    }
    return error;
}

/* Whole clusters, in order; the disk's last one is filled up. */
static int put_data(struct sink *s, uint64_t offset, const void *from, uint64_t n)
{
    struct qcow2_sink *q = (struct qcow2_sink *)s;
    static const uint8_t zeros[CLUSTER];
    const uint8_t *at = from;
    int error = 0;
    for (uint64_t part; n && !error; n -= part, at += part, offset += part) {
        part = MIN(n, CLUSTER);
        if (is_used(q, offset / CLUSTER)) {
            error = pipe_write(at, part);
            error = error ? error : pipe_write(zeros, CLUSTER - part);
        } else if (!is_zero(at, part)) {
            return -ESTALE; /* the source was written to meanwhile */
        }
    }
    return error;
}

/* What was data when it was looked at is there as a cluster, even if it is zero now. */
static int put_zero(struct sink *s, uint64_t offset, uint64_t n)
{
    const struct qcow2_sink *q = (struct qcow2_sink *)s;
    static const uint8_t zeros[CLUSTER];
    int error = 0;
    for (uint64_t c = offset / CLUSTER; c * CLUSTER < offset + n && !error; c++) {
        error = is_used(q, c) ? pipe_write(zeros, CLUSTER) : 0;
    }
    return error;
}

static void qcow2_close(struct sink *s)
{
    g_free(((struct qcow2_sink *)s)->used);
}

static int begin(struct qcow2_sink *q, struct node *const *tops, unsigned n)
{
    g_autofree uint8_t *cluster = g_malloc(CLUSTER);
    int error = find_data(q, tops, n);
    if (error) {
        return error;
    }
    lay_out(q);
    error = put_header(q, cluster);
    error = error ? error : put_refcounts(q, cluster);
    error = error ? error : put_l1(q, cluster);
    return error ? error : put_l2(q, cluster);
}

struct sink *sink_of_qcow2_pipe(struct node *const *tops, unsigned n, GError **error)
{
    struct qcow2_sink *q = g_new0(struct qcow2_sink, 1);
    for (unsigned i = 0; i < n; i++) {
        q->sink.size += tops[i]->size;
    }
    q->clusters = (q->sink.size + CLUSTER - 1) / CLUSTER;
    q->sink.granule = CLUSTER;
    q->sink.ordered = true;
    q->sink.data = put_data;
    q->sink.zero = put_zero;
    q->sink.close = qcow2_close;
    q->used = q->clusters / ENTRIES < TABLE_MAX / 8 ? g_try_malloc0(q->clusters / 8 + 1) : NULL;
    int failed = q->used ? begin(q, tops, n) : -EFBIG;
    if (failed) {
        error_set_errno(error, -failed, "qcow2 to standard output");
        g_free(q->used);
        g_free(q);
        return NULL;
    }
    return &q->sink;
}
