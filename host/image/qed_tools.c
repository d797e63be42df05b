/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qed_tools: making, checking and changing whole qed images.
 *
 * Spec: QEMU documentation, "QED Image File Format Specification", sections "Header",
 * "Consistency checking".
 */
#include "host/image/qed.h"

#include "base/bytes.h"
#include "host/image/options.h"

#include <inttypes.h>
#include <string.h>

enum { CLUSTERS_MAX = 1 << 30 }; /* for a check: one bit each */

/* ---- the header ---- */

static void encode_header(const struct qed *q, uint64_t size, const char *backing, uint8_t *h)
{
    memset(h, 0, QED_HEADER);
    memcpy(h, "QED", 4);
    le32_put(h + 4, q->cluster);
    le32_put(h + 8, q->table);
    le32_put(h + 12, q->header);
    le64_put(h + 16, q->features);
    le64_put(h + 24, q->compat_features);
    le64_put(h + 32, q->autoclear_features);
    le64_put(h + 40, q->l1_at);
    le64_put(h + 48, size);
    le32_put(h + 56, backing ? QED_HEADER : 0);
    le32_put(h + 60, backing ? (uint32_t)strlen(backing) : 0);
}

/* Header and name go in one write, which a sector-atomic disk does whole for short names. */
static int write_header(struct file *file, const struct qed *q, uint64_t size, const char *backing)
{
    uint64_t name = backing ? strlen(backing) : 0;
    if (name >= 1024 || QED_HEADER + name > (uint64_t)q->header * q->cluster) {
        return -ENAMETOOLONG;
    }
    uint8_t h[QED_HEADER + 1024];
    encode_header(q, size, backing, h);
    memcpy(h + QED_HEADER, backing ? backing : "", name);
    int r = file_write(file, 0, h, QED_HEADER + name);
    return r ? r : file_flush(file);
}

int qed_write_header(struct qed *q)
{
    return write_header(q->node->file, q, q->node->size, q->node->backing_name);
}

/* ---- create ---- */

static const struct option_desc create_options[] = {
    {"backing_file", "str", "File name of a base image", NULL},
    {"backing_fmt", "str", "Must match the backing file's format", NULL},
    {"cluster_size", "size", "Bytes of a cluster", "65536"},
    {"table_size", "size", "Clusters of an L1 or L2 table", NULL},
    {0},
};

static bool power_between(uint64_t v, uint64_t least, uint64_t most)
{
    return v >= least && v <= most && !(v & (v - 1));
}

static bool check_create(const struct image_create *how, uint64_t cluster, uint64_t table,
                         uint64_t size, GError **error)
{
    if (!power_between(cluster, QED_CLUSTER_MIN, QED_CLUSTER_MAX)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "QED cluster size must be within range [%d, %d] and power of 2",
                    QED_CLUSTER_MIN, QED_CLUSTER_MAX);
    } else if (!power_between(table, 1, QED_TABLE_MAX)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "QED table size must be within range [1, %d] and power of 2", QED_TABLE_MAX);
    } else if (size < how->size || !qed_size_fits((uint32_t)cluster, (uint32_t)table, size)) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "QED image size %" PRIu64 " is too large for the cluster and table size",
                    how->size);
    } else {
        return true;
    }
    return false;
}

static bool create(const struct image_create *how, GError **error)
{
    uint64_t cluster = option_size(how->options, "cluster_size", QED_CLUSTER);
    uint64_t table = option_size(how->options, "table_size", QED_TABLE);
    uint64_t size = (how->size + QED_SECTOR - 1) & ~(uint64_t)(QED_SECTOR - 1);
    if (!check_create(how, cluster, table, size, error)) {
        return false;
    }
    bool raw = how->backing_format && !strcmp(how->backing_format, "raw");
    struct qed q = {.cluster = (uint32_t)cluster, .table = (uint32_t)table, .header = 1,
                    .l1_at = cluster};
    q.features = !how->backing_name ? 0 : QED_HAS_BACKING | (raw ? QED_BACKING_RAW : 0);
    int r = file_zero(how->file, cluster, qed_table_bytes(&q), false);
    r = r ? r : write_header(how->file, &q, size, how->backing_name);
    if (r < 0) {
        error_set_errno(error, -r, "Cannot write the QED header");
    }
    return r == 0;
}

/* ---- check ---- */

struct check {
    struct qed *q;
    unsigned fix;
    struct check_result *out;
    uint8_t *used; /* a bit a cluster of the file */
    uint64_t clusters;
    uint64_t last; /* where the last data cluster lay: fragmentation */
};

/* Counts @n clusters at @at as used; false if they cannot be or are already. */
static bool take(struct check *c, uint64_t at, uint64_t n)
{
    uint64_t first = at / c->q->cluster;
    if (!qed_valid(c->q, at, n)) {
        return false;
    }
    for (uint64_t i = first; i < first + n; i++) {
        if (c->used[i / 8] >> i % 8 & 1) {
            return false;
        }
    }
    for (uint64_t i = first; i < first + n; i++) {
        c->used[i / 8] |= (uint8_t)(1u << i % 8);
    }
    return true;
}

/* A bad entry for @n clusters: counted, told, and made 0 if that is wanted. */
static void bad_entry(struct check *c, struct tables *t, uint64_t at, uint8_t *p, uint64_t n)
{
    check_tell(c->out, "ERROR %s entry at byte %" PRIu64 " points at %" PRIu64 ", which is %s",
         t == c->q->l1 ? "L1" : "L2", at, le64_at(p),
         qed_valid(c->q, le64_at(p), n) ? "used twice" : "no cluster of the file");
    c->out->corruptions++;
    if (c->fix & FIX_ERRORS) {
        le64_put(p, 0);
        tables_changed(t, at, QED_ENTRY);
        c->out->corruptions--;
        c->out->corruptions_fixed++;
    }
}

static int check_l2(struct check *c, uint64_t l2_at)
{
    for (uint64_t i = 0; i < c->q->entries; i++) {
        uint64_t at = l2_at + i * QED_ENTRY, entry;
        uint8_t *p;
        int r = tables_at(c->q->l2, at, true, &p);
        if (r < 0) {
            return r;
        }
        entry = le64_at(p);
        if (entry <= QED_ZERO) {
            continue;
        }
        if (!take(c, entry, 1)) {
            bad_entry(c, c->q->l2, at, p, 1);
            continue;
        }
        c->out->allocated_clusters++;
        c->out->fragmented_clusters += c->last && entry != c->last + c->q->cluster;
        c->last = entry;
    }
    return 0;
}

static int check_l1(struct check *c)
{
    for (uint64_t i = 0; i < c->q->entries; i++) {
        uint64_t at = c->q->l1_at + i * QED_ENTRY, l2_at;
        uint8_t *p;
        int r = tables_at(c->q->l1, at, true, &p);
        if (r < 0) {
            return r;
        }
        l2_at = le64_at(p);
        if (!l2_at) {
            continue;
        }
        if (!take(c, l2_at, c->q->table)) {
            bad_entry(c, c->q->l1, at, p, c->q->table);
            continue;
        }
        r = check_l2(c, l2_at);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* Clusters that nothing points at; those at the end of the file can be given back. */
static int count_leaks(struct check *c)
{
    uint64_t end = c->clusters;
    while (end && !(c->used[(end - 1) / 8] >> (end - 1) % 8 & 1)) {
        end--;
    }
    for (uint64_t i = 0; i < end; i++) {
        c->out->leaks += !(c->used[i / 8] >> i % 8 & 1);
    }
    uint64_t tail = c->clusters - end;
    if (!tail || !(c->fix & FIX_LEAKS)) {
        c->out->leaks += tail;
        return 0;
    }
    int r = file_resize(c->q->node->file, end * c->q->cluster);
    if (r == 0) {
        c->q->end = end * c->q->cluster;
        c->out->leaks_fixed += tail;
    }
    return r;
}

static int clear_need_check(struct check *c)
{
    bool clean = !c->out->corruptions && !c->out->check_errors;
    if (!(c->q->features & QED_NEED_CHECK) || !c->fix || !clean) {
        return 0;
    }
    c->q->features &= ~(uint64_t)QED_NEED_CHECK;
    return qed_write_header(c->q);
}

static int run_check(struct check *c)
{
    take(c, c->q->l1_at, c->q->table);
    for (uint64_t i = 0; i < c->q->header; i++) {
        c->used[i / 8] |= (uint8_t)(1u << i % 8);
    }
    int r = check_l1(c);
    r = r || !c->fix ? r : qed_flush(c->q->node);
    r = r ? r : count_leaks(c);
    return r ? r : clear_need_check(c);
}

bool qed_check(struct node *node, unsigned fix, struct check_result *out, GError **error)
{
    struct qed *q = node->priv;
    struct check c = {.q = q, .fix = fix, .out = out, .clusters = q->end / q->cluster};
    c.used = c.clusters > CLUSTERS_MAX ? NULL : g_try_malloc0(c.clusters / 8 + 1);
    if (!c.used) {
        g_set_error(error, LODGE_ERROR, ENOMEM, "%" PRIu64 " clusters are too many to check",
                    c.clusters);
        return false;
    }
    out->total_clusters = (node->size + q->cluster - 1) / q->cluster;
    int r = run_check(&c);
    g_free(c.used);
    if (r < 0) {
        error_set_errno(error, -r, "Cannot %s the QED tables", fix ? "repair" : "read");
    }
    return r == 0;
}

/* ---- the rest ---- */

static bool resize(struct node *node, uint64_t size, enum preallocation preallocation,
                   GError **error)
{
    struct qed *q = node->priv;
    if (preallocation != PREALLOC_OFF) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "qed does not support preallocation");
        return false;
    }
    if (size < node->size) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Shrinking images is currently not supported");
        return false;
    }
    if (size % QED_SECTOR || !qed_size_fits(q->cluster, q->table, size)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid image size %" PRIu64 " for qed", size);
        return false;
    }
    uint64_t old = node->size;
    node->size = size;
    int r = qed_write_header(q);
    if (r < 0) {
        node->size = old;
        error_set_errno(error, -r, "Cannot write the QED header");
    }
    return r == 0;
}

static bool set_backing(struct node *node, const char *name, const char *format, GError **error)
{
    struct qed *q = node->priv;
    bool raw = name && format && !strcmp(format, "raw");
    uint64_t features = q->features & ~(uint64_t)(QED_HAS_BACKING | QED_BACKING_RAW);
    struct qed changed = *q;
    changed.features = features | (name ? QED_HAS_BACKING : 0) | (raw ? QED_BACKING_RAW : 0);
    int r = write_header(node->file, &changed, node->size, name);
    if (r < 0) {
        error_set_errno(error, -r, "Cannot write the backing file name");
        return false;
    }
    q->features = changed.features;
    char *copy = g_strdup(name), *copy_format = raw ? g_strdup("raw") : NULL;
    g_free(node->backing_name);
    g_free(node->backing_format);
    node->backing_name = copy;
    node->backing_format = copy_format;
    return true;
}

static void describe(struct node *node, json_t *data)
{
    const struct qed *q = node->priv;
    json_object_set_new(data, "dirty-flag", json_boolean(q->features & QED_NEED_CHECK));
}

static uint32_t cluster_size(struct node *node)
{
    return ((struct qed *)node->priv)->cluster;
}

const struct format_tools qed_tools = {
    .create_options = create_options,
    .create = create,
    .resize = resize,
    .check = qed_check,
    .describe = describe,
    .cluster_size = cluster_size,
    .set_backing = set_backing,
    .dirty_flag = true,
};
