/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qed: QEMU enhanced disk.
 *
 * Two levels of tables, no record of what is free: new clusters go to the end of the file.
 * Tables are written after what they point at has been flushed, so a crash can only leave
 * clusters that nothing points at; the need-check flag that others set instead of flushing is
 * honoured and never set.
 *
 * Spec: QEMU documentation, "QED Image File Format Specification".
 */
#include "host/image/qed.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <string.h>

static const uint8_t magic[4] = {'Q', 'E', 'D', 0};

static unsigned qed_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)file_name;
    return n >= QED_HEADER && !memcmp(head, magic, sizeof(magic)) ? 100 : 0;
}

static bool power_between(uint32_t v, uint32_t least, uint32_t most)
{
    return v >= least && v <= most && !(v & (v - 1));
}

bool qed_size_fits(uint32_t cluster, uint32_t table, uint64_t size)
{
    uint64_t entries = (uint64_t)cluster * table / QED_ENTRY, per_l2 = entries * cluster;
    return size <= INT64_MAX - per_l2 && (size + per_l2 - 1) / per_l2 <= entries;
}

bool qed_valid(const struct qed *q, uint64_t at, uint64_t n)
{
    uint64_t end = q->end / q->cluster * q->cluster;
    return at % q->cluster == 0 && at >= (uint64_t)q->header * q->cluster && at < end &&
           n * q->cluster <= end - at;
}

/* ---- opening ---- */

static bool check_geometry(struct qed *q, uint64_t size, GError **error)
{
    if (!power_between(q->cluster, QED_CLUSTER_MIN, QED_CLUSTER_MAX)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "QED cluster size %u must be a power of two between %d and %d", q->cluster,
                    QED_CLUSTER_MIN, QED_CLUSTER_MAX);
    } else if (!power_between(q->table, 1, QED_TABLE_MAX)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "QED table size %u must be a power of two between 1 and %d", q->table,
                    QED_TABLE_MAX);
    } else if (!q->header || q->header > q->end / q->cluster) {
        g_set_error(error, LODGE_ERROR, EINVAL, "QED header size of %u clusters is not valid",
                    q->header);
    } else if (size % QED_SECTOR || !qed_size_fits(q->cluster, q->table, size)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "QED image size %" PRIu64 " is not valid", size);
    } else if (!qed_valid(q, q->l1_at, q->table)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "QED L1 table offset %" PRIu64 " is not valid",
                    q->l1_at);
    } else {
        q->entries = qed_table_bytes(q) / QED_ENTRY;
        return true;
    }
    return false;
}

static bool read_backing_name(struct node *node, const uint8_t *h, GError **error)
{
    const struct qed *q = node->priv;
    uint32_t at = le32_at(h + 56), n = le32_at(h + 60);
    char name[1024] = {0};
    if (!(q->features & QED_HAS_BACKING)) {
        return true;
    }
    if (n >= sizeof(name) || (uint64_t)at + n > (uint64_t)q->header * q->cluster) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "QED backing file name of %u bytes at byte %u does not fit the header", n, at);
        return false;
    }
    int r = file_read(node->file, at, name, n);
    if (r < 0) {
        error_set_errno(error, -r, "Could not read the backing file name at byte %u", at);
        return false;
    }
    if (!n || memchr(name, 0, n)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "QED backing file name is empty or has a zero byte");
        return false;
    }
    node->backing_name = g_strdup(name);
    node->backing_format = q->features & QED_BACKING_RAW ? g_strdup("raw") : NULL;
    return true;
}

/* Others set the flag instead of flushing; such an image is repaired before it is written. */
static bool repair(struct node *node, unsigned flags, GError **error)
{
    const struct qed *q = node->priv;
    struct check_result result = {0};
    if (!(q->features & QED_NEED_CHECK) || node->read_only ||
        (flags & (OPEN_CHECK | OPEN_READ_ONLY | OPEN_NO_IO))) {
        return true;
    }
    if (!qed_check(node, FIX_LEAKS | FIX_ERRORS, &result, error)) {
        g_prefix_error(error, "QED image needs a check: ");
        return false;
    }
    if (result.corruptions || result.check_errors) {
        g_set_error(error, LODGE_ERROR, EIO,
                    "QED image needs a check and cannot be repaired: %" PRIu64 " errors left",
                    result.corruptions + result.check_errors);
        return false;
    }
    return true;
}

/* Features that we do not know but may drop when we write. */
static bool drop_autoclear(struct node *node, unsigned flags, GError **error)
{
    struct qed *q = node->priv;
    if (!q->autoclear_features || node->read_only || (flags & (OPEN_READ_ONLY | OPEN_NO_IO))) {
        return true;
    }
    q->autoclear_features = 0;
    int r = qed_write_header(q);
    if (r < 0) {
        error_set_errno(error, -r, "Could not write the QED header");
    }
    return r == 0;
}

static int clean(void *owner)
{
    return qed_flush(owner);
}

static bool read_header(struct node *node, const uint8_t *h, GError **error)
{
    struct qed *q = node->priv;
    *q = (struct qed){.node = node,
                      .cluster = le32_at(h + 4),
                      .table = le32_at(h + 8),
                      .header = le32_at(h + 12),
                      .features = le64_at(h + 16),
                      .compat_features = le64_at(h + 24),
                      .autoclear_features = le64_at(h + 32),
                      .l1_at = le64_at(h + 40),
                      .end = file_size(node->file)};
    node->size = le64_at(h + 48);
    if (q->features & ~(uint64_t)QED_FEATURES) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unsupported QED features: 0x%" PRIx64,
                    q->features & ~(uint64_t)QED_FEATURES);
        return false;
    }
    return check_geometry(q, node->size, error) && read_backing_name(node, h, error);
}

static bool qed_open(struct node *node, unsigned flags, GError **error)
{
    uint8_t h[QED_HEADER];
    int r = file_read(node->file, 0, h, sizeof(h));
    if (r < 0 || memcmp(h, magic, sizeof(magic))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Image is not in QED format");
        return false;
    }
    struct qed *q = node->priv = g_new0(struct qed, 1);
    if (!read_header(node, h, error)) {
        return false;
    }
    q->end = (q->end + q->cluster - 1) / q->cluster * q->cluster;
    q->l1 = tables_new(node->file, QED_PAGE, clean, node);
    q->l2 = tables_new(node->file, QED_PAGE, clean, node);
    node->granule = q->cluster;
    return repair(node, flags, error) && drop_autoclear(node, flags, error);
}

static void qed_close(struct node *node)
{
    struct qed *q = node->priv;
    if (!q) {
        return;
    }
    if (q->l1 && !node->read_only) {
        qed_flush(node);
    }
    tables_free(q->l1);
    tables_free(q->l2);
    g_free(q);
    node->priv = NULL;
}

/* ---- tables ---- */

static uint64_t l1_entry_at(const struct qed *q, uint64_t offset)
{
    return q->l1_at + offset / q->cluster / q->entries * QED_ENTRY;
}

static uint64_t l2_entry_at(const struct qed *q, uint64_t l2_at, uint64_t offset)
{
    return l2_at + offset / q->cluster % q->entries * QED_ENTRY;
}

/* Where the L2 table for @offset lies; 0: there is none. */
static int find_l2(struct qed *q, uint64_t offset, bool wait, uint64_t *l2_at)
{
    uint8_t *p;
    int r = tables_at(q->l1, l1_entry_at(q, offset), wait, &p);
    *l2_at = r == 0 ? le64_at(p) : 0;
    return r == 0 && *l2_at && !qed_valid(q, *l2_at, q->table) ? -EIO : r;
}

static int find_or_make_l2(struct qed *q, uint64_t offset, uint64_t *l2_at)
{
    uint8_t *p;
    int r = find_l2(q, offset, true, l2_at);
    if (r < 0 || *l2_at) {
        return r;
    }
    uint64_t l1_entry = l1_entry_at(q, offset), at = q->end;
    r = file_zero(q->node->file, at, qed_table_bytes(q), false);
    if (r == 0) {
        r = tables_at(q->l1, l1_entry, true, &p);
    }
    if (r == 0) {
        q->end += qed_table_bytes(q);
        le64_put(p, at);
        tables_changed(q->l1, l1_entry, QED_ENTRY);
        *l2_at = at;
    }
    return r;
}

static int put_entry(struct qed *q, uint64_t offset, uint64_t entry)
{
    uint64_t l2_at;
    uint8_t *p;
    int r = find_or_make_l2(q, offset, &l2_at);
    uint64_t at = l2_entry_at(q, l2_at, offset);
    if (r == 0) {
        r = tables_at(q->l2, at, true, &p);
    }
    if (r == 0) {
        le64_put(p, entry);
        tables_changed(q->l2, at, QED_ENTRY);
    }
    return r;
}

int qed_flush(struct node *node)
{
    struct qed *q = node->priv;
    int r = file_flush(node->file);
    if (r == 0 && (tables_dirty(q->l2) || tables_dirty(q->l1))) {
        r = tables_write(q->l2);
        r = r ? r : file_flush(node->file);
        r = r ? r : tables_write(q->l1);
        r = r ? r : file_flush(node->file);
    }
    return r;
}

/* ---- the data path ---- */

static bool continues(const struct extent *first, uint64_t n, uint64_t entry)
{
    return first->kind == EXTENT_ABSENT ? !entry
           : first->kind == EXTENT_ZERO ? entry == QED_ZERO
                                        : entry == first->at + n;
}

/* Bytes from the cluster of the entry at @at on that its page answers like @first. */
static uint64_t run_length(const struct qed *q, const uint8_t *p, uint64_t at,
                           const struct extent *first, uint64_t most)
{
    uint64_t left = (QED_PAGE - at % QED_PAGE) / QED_ENTRY, n = q->cluster;
    for (uint64_t i = 1; i < left && n < most; i++, n += q->cluster) {
        if (!continues(first, n, le64_at(p + i * QED_ENTRY))) {
            break;
        }
    }
    return n;
}

static int qed_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                   struct extent *out)
{
    struct qed *q = node->priv;
    uint64_t l2_at, in = offset % q->cluster, per_l2 = q->entries * q->cluster;
    uint8_t *p;
    int r = find_l2(q, offset, wait, &l2_at);
    *out = (struct extent){.kind = EXTENT_ABSENT, .length = MIN(length, per_l2 - offset % per_l2)};
    if (r < 0 || !l2_at) {
        return r;
    }
    uint64_t at = l2_entry_at(q, l2_at, offset);
    r = tables_at(q->l2, at, wait, &p);
    if (r < 0) {
        return r;
    }
    uint64_t entry = le64_at(p);
    if (entry > QED_ZERO) {
        *out = (struct extent){.kind = EXTENT_DATA, .at = entry, .in_place = true};
    } else {
        out->kind = entry == QED_ZERO ? EXTENT_ZERO : EXTENT_ABSENT;
    }
    out->length = MIN(length, run_length(q, p, at, out, in + length) - in);
    if (entry > QED_ZERO) {
        out->at += in;
        return qed_valid(q, entry, (in + out->length + q->cluster - 1) / q->cluster) ? 0 : -EIO;
    }
    return 0;
}

static int qed_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    struct qed *q = node->priv;
    uint64_t l2_at;
    int r = qed_map(node, offset, length, true, out);
    if (r < 0 || out->kind == EXTENT_DATA) {
        return r;
    }
    r = find_or_make_l2(q, offset, &l2_at); /* now, so that link() cannot lack space */
    if (r < 0) {
        return r;
    }
    *out = (struct extent){.kind = EXTENT_DATA, .length = out->length, .at = q->end, .fresh = true};
    q->end += (out->length + q->cluster - 1) / q->cluster * q->cluster;
    return 0;
}

/* A last cluster that the disk does not fill is whole in the file all the same. */
static int fill_last(struct qed *q, const struct extent *placed)
{
    return placed->length % q->cluster && file_size(q->node->file) < q->end
               ? file_resize(q->node->file, q->end) : 0;
}

static int qed_link(struct node *node, uint64_t offset, const struct extent *placed)
{
    struct qed *q = node->priv;
    int r = fill_last(q, placed);
    for (uint64_t n = 0; r == 0 && n < placed->length; n += q->cluster) {
        r = put_entry(q, offset + n, placed->at + n);
    }
    return r;
}

/* Only the end of the file can be given back. */
static void qed_unplace(struct node *node, uint64_t offset, const struct extent *placed)
{
    struct qed *q = node->priv;
    (void)offset;
    if (q->end == placed->at + (placed->length + q->cluster - 1) / q->cluster * q->cluster) {
        q->end = placed->at;
    }
}

static int make_empty(struct qed *q)
{
    uint64_t bytes = qed_table_bytes(q);
    int r = qed_flush(q->node);
    r = r ? r : tables_empty(q->l1, q->l2, q->l1_at, bytes);
    q->end = r ? q->end : q->l1_at + bytes;
    return r;
}

static int zero_extent(struct qed *q, uint64_t offset, const struct extent *e, enum zero_kind kind)
{
    int r = 0;
    if (e->kind == EXTENT_DATA) {
        return file_zero(q->node->file, e->at, e->length, kind != ZERO_KEEP);
    }
    if (e->kind == EXTENT_ABSENT && !q->node->backing) {
        return 0;
    }
    for (uint64_t n = 0; r == 0 && e->kind == EXTENT_ABSENT && n < e->length; n += q->cluster) {
        r = put_entry(q, offset + n, QED_ZERO);
    }
    return r;
}

static int qed_zero(struct node *node, uint64_t offset, uint64_t length, enum zero_kind kind)
{
    struct qed *q = node->priv;
    int r = 0;
    if (kind == ZERO_ABSENT) {
        return offset || length < node->size ? -ENOTSUP : make_empty(q);
    }
    while (r == 0 && length) {
        struct extent e;
        r = qed_map(node, offset, length, true, &e);
        r = r ? r : zero_extent(q, offset, &e, kind);
        offset += e.length;
        length -= e.length;
    }
    return r;
}

const struct image_format format_qed = {
    .name = "qed",
    .about = "QEMU enhanced disk",
    .spec = "QEMU, QED Image File Format Specification",
    .probe = qed_probe,
    .open = qed_open,
    .close = qed_close,
    .map = qed_map,
    .place = qed_place,
    .link = qed_link,
    .unplace = qed_unplace,
    .zero = qed_zero,
    .flush = qed_flush,
    .tools = &qed_tools,
};
