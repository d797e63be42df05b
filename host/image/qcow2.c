/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2: QEMU's format with snapshots, versions 2 and 3.  Spec: QEMU,
 * "docs/interop/qcow2.txt".  This file opens, closes and describes; qcow2.h lists the others.
 */
#include "host/image/qcow2.h"

#include "host/image/codec.h"
#include "host/image/options.h"

#include <string.h>

enum { L2_BYTES = 16 << 20, L2_BYTES_MAX = 256 << 20, HOLES_WORTH = 1 << 20 };

static unsigned qcow2_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)file_name;
    return n >= 8 && be32_at(head) == QCOW2_MAGIC && be32_at(head + 4) >= 2 ? 100 : 0;
}

static int clean_l2(void *owner)
{
    return qcow2_settle(owner);
}

/* The name in the header, unless options say another. */
static bool open_data_file(struct qcow2 *q, unsigned flags, GError **error)
{
    const char *given = json_text(json_object_get(q->node->options, "data-file"), "filename");
    q->data = q->file;
    if (!(q->h.incompatible & INCOMPAT_DATA_FILE)) {
        if (given) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "'data-file' can only be set for images with an "
                        "external data file");
        }
        return !given;
    }
    if (!q->data_name && !given) {
        g_set_error(error, LODGE_ERROR, EINVAL, "'data-file' is required for this image");
        return false;
    }
    if (flags & OPEN_NO_IO) {
        q->data = NULL; /* its name is all that is asked for */
        return true;
    }
    q->data_own =
        file_open_beside(q->node, given ? given : q->data_name, q->node->read_only, error);
    if (!q->data_own) {
        g_prefix_error(error, "Could not open data file: ");
        return false;
    }
    q->data = q->data_own;
    return true;
}

static bool open_tables(struct qcow2 *q, unsigned flags, GError **error)
{
    uint64_t n = 8ull * q->h.l1_entries;
    int r = flags & OPEN_CHECK ? whole_table_read_cut(&q->l1, q->file, q->h.l1_at, n)
                               : whole_table_read(&q->l1, q->file, q->h.l1_at, n);
    if (r) {
        error_set_errno(error, -r, "Could not read L1 table");
        return false;
    }
    q->l2 = tables_new_sized(q->file, q->piece, (uint32_t)(q->l2_bytes / q->piece), clean_l2, q);
    return qcow2_snapshots_read(q, error) && qcow2_bitmaps_read(q, error) &&
           qcow2_refs_open(q, error);
}

static void ignore_line(void *owner, const char *line)
{
    (void)owner, (void)line;
}

/* What must be done before the first write. */
static bool ready_for_writing(struct qcow2 *q, unsigned flags, bool lazy, GError **error)
{
    bool changed = q->h.autoclear & ~(uint64_t)AUTOCLEAR_KNOWN || q->bitmaps_stale;
    if (q->h.incompatible & INCOMPAT_CORRUPT && !(flags & OPEN_CHECK)) {
        g_set_error(error, LODGE_ERROR, EACCES, "Image is corrupt; cannot be opened read/write");
        return false;
    }
    if ((flags & OPEN_CHECK)) {
        return true; /* the checker decides what is changed */
    }
    if (changed) {
        q->h.autoclear &= AUTOCLEAR_KNOWN;
        if (!qcow2_header_write(q, error)) {
            return false;
        }
    }
    if (q->h.incompatible & INCOMPAT_DIRTY) {
        struct check_result res = {.tell = ignore_line};
        if (!qcow2_check(q->node, FIX_LEAKS | FIX_ERRORS, &res, error)) {
            g_prefix_error(error, "Could not repair dirty image: ");
            return false;
        }
    }
    q->lazy = lazy;
    return true;
}

/* What of the options matters later, checked in any case. */
static bool take_options(struct qcow2 *q, bool *lazy, GError **error)
{
    *lazy = q->h.compatible & COMPAT_LAZY_REFCOUNTS;
    q->l2_bytes = L2_BYTES;
    if (!json_bool(q->node->options, "lazy-refcounts", lazy, error) ||
        !json_u64(q->node->options, "l2-cache-size", &q->l2_bytes, error)) {
        return false;
    }
    q->l2_bytes = CLAMP(q->l2_bytes, 4 * q->piece, L2_BYTES_MAX);
    if (*lazy && q->h.version < 3) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility "
                    "level");
        return false;
    }
    return true;
}

static void set_codec(struct qcow2 *q)
{
    q->node->codec = q->h.compression == COMPRESSION_ZSTD ? &codec_zstd : &codec_deflate;
}

static bool qcow2_open(struct node *node, unsigned flags, GError **error)
{
    struct qcow2 *q = g_new0(struct qcow2, 1);
    node->priv = q;
    q->node = node;
    q->file = node->file;
    q->held = g_array_new(FALSE, FALSE, sizeof(struct freed));
    q->extensions = g_array_new(FALSE, FALSE, sizeof(struct qcow2_extension));
    if (!qcow2_header_read(q, error)) {
        return false;
    }
    node->size = q->h.size;
    node->granule = 1u << q->sub_bits;
    node->unit = q->cluster;
    node->align = q->h.crypt ? 512 : 1;
    q->corrupt = q->h.incompatible & INCOMPAT_CORRUPT && !(flags & OPEN_CHECK);
    uint64_t size = file_size(q->file);
    q->holes = !q->h.crypt && size > HOLES_WORTH && file_allocated(q->file) < size - HOLES_WORTH;
    set_codec(q);
    bool lazy;
    return take_options(q, &lazy, error) && open_data_file(q, flags, error) && open_tables(q, flags, error) &&
           qcow2_crypt_open(q, flags, error) &&
           (node->read_only || ready_for_writing(q, flags, lazy, error));
}

static void write_all(struct qcow2 *q)
{
    if (q->node->read_only || !q->refs || !q->l2 || q->corrupt) {
        return;
    }
    int r = qcow2_bitmaps_store(q);
    r = r ? r : qcow2_settle(q);
    if (!r && q->lazy) { /* the counts, which were not urgent */
        q->lazy = false;
        r = qcow2_settle(q);
    }
    r = r ? r : qcow2_settle(q); /* what the first one gave back */
    uint64_t end = (file_size(q->file) + 511) & ~UINT64_C(511);
    if (!r && q->packed_at && end > file_size(q->file)) {
        r = file_resize(q->file, end); /* packed units are counted in sectors, and read so */
    }
    r = r ? r : file_flush(q->file);
    if (!r && !(q->node->flags & OPEN_CHECK)) {
        qcow2_mark(q, INCOMPAT_DIRTY, false);
    }
}

static void qcow2_close(struct node *node)
{
    struct qcow2 *q = qcow2_of(node);
    if (!q) {
        return;
    }
    write_all(q);
    qcow2_snapshots_free(q);
    qcow2_bitmaps_free(q);
    qcow2_crypt_close(q);
    tables_free(q->l2);
    tables_free(q->refs);
    whole_table_free(&q->l1);
    whole_table_free(&q->reftable);
    file_close(q->data_own);
    for (unsigned i = 0; i < q->extensions->len; i++) {
        g_free(g_array_index(q->extensions, struct qcow2_extension, i).data);
    }
    g_array_free(q->extensions, TRUE);
    g_array_free(q->held, TRUE);
    g_free(q->data_name);
    g_free(q->freed);
    g_free(q->meta);
    g_clear_pointer(&node->priv, g_free);
}

/* ---- info ---- */

static void qcow2_describe(struct node *node, json_t *data)
{
    const struct qcow2 *q = qcow2_of(node);
    bool v3 = q->h.version >= 3;
    json_object_set_new(data, "dirty-flag", json_boolean(q->h.incompatible & INCOMPAT_DIRTY));
    json_object_set_new(data, "compat", json_string(v3 ? "1.1" : "0.10"));
    json_object_set_new(data, "compression-type",
                        json_string(q->h.compression == COMPRESSION_ZSTD ? "zstd" : "zlib"));
    if (v3) {
        json_object_set_new(data, "lazy-refcounts",
                            json_boolean(q->h.compatible & COMPAT_LAZY_REFCOUNTS));
        qcow2_bitmaps_describe(qcow2_of(node), data);
    }
    json_object_set_new(data, "refcount-bits", json_integer(1ll << q->h.refcount_order));
    qcow2_crypt_describe(qcow2_of(node), data);
    if (v3 && q->data_name) {
        json_object_set_new(data, "data-file", json_string(q->data_name));
        json_object_set_new(data, "data-file-raw", json_boolean(q->raw_data));
    }
    if (v3) {
        json_object_set_new(data, "corrupt", json_boolean(q->h.incompatible & INCOMPAT_CORRUPT));
        json_object_set_new(data, "extended-l2", json_boolean(q->extended));
    }
}

static uint32_t qcow2_cluster_size(struct node *node)
{
    return qcow2_of(node)->cluster;
}

static const struct format_tools tools = {
    .create_options = qcow2_create_options,
    .amend_options = qcow2_amend_options,
    .create = qcow2_create,
    .resize = qcow2_resize,
    .check = qcow2_check,
    .amend = qcow2_amend,
    .describe = qcow2_describe,
    .cluster_size = qcow2_cluster_size,
    .measure = qcow2_measure,
    .set_backing = qcow2_set_backing,
    .snapshots = &qcow2_snapshot_tools,
    .bitmaps = &qcow2_bitmap_tools,
    .dirty_flag = true,
};

static const char *const open_options[] = {"data-file", "lazy-refcounts", "l2-cache-size", "encrypt",
                                           NULL};

const struct image_format format_qcow2 = {
    .open_options = open_options,
    .name = "qcow2",
    .about = "QEMU's format with snapshots, backing files, compression and encryption",
    .spec = "QEMU, docs/interop/qcow2.txt",
    .probe = qcow2_probe,
    .open = qcow2_open,
    .close = qcow2_close,
    .map = qcow2_map,
    .place = qcow2_place,
    .link = qcow2_link,
    .unplace = qcow2_unplace,
    .zero = qcow2_zero,
    .place_packed = qcow2_place_packed,
    .flush = qcow2_flush,
    .tools = &tools,
};
