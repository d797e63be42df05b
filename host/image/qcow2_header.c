/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_header: the first cluster.  Spec: QEMU, "docs/interop/qcow2.txt", sections "Header" and
 * "Header extensions".
 */
#include "host/image/qcow2.h"

#include <inttypes.h>

enum {
    EXT_END = 0,
    EXT_CRYPTO = 0x0537be77,
    EXT_BITMAPS = 0x23852875,
    EXT_DATA_FILE = 0x44415441,
    EXT_FEATURES = 0x6803f857,
};
#define EXT_BACKING_FORMAT 0xe2792acau

/* A smaller first cluster has better use for its bytes than the names of features. */
enum { FEATURE_BYTES = 48, FEATURES_FROM = 4096, SECTOR = 512, FORMAT_NAME_MAX = 15 };

enum feature_kind { INCOMPATIBLE, COMPATIBLE, AUTOCLEAR };
static const struct {
    uint8_t kind, bit;
    const char *name;
} features[] = {
    {INCOMPATIBLE, 0, "dirty bit"},
    {INCOMPATIBLE, 1, "corrupt bit"},
    {INCOMPATIBLE, 2, "external data file"},
    {INCOMPATIBLE, 3, "compression type"},
    {INCOMPATIBLE, 4, "extended L2 entries"},
    {COMPATIBLE, 0, "lazy refcounts"},
    {AUTOCLEAR, 0, "bitmaps"},
    {AUTOCLEAR, 1, "raw external data"},
};

static bool bad(GError **error, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static bool bad(GError **error, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, args);
    va_end(args);
    g_set_error(error, LODGE_ERROR, EINVAL, "%s", text);
    return false;
}

static void fields_from(struct qcow2_header *h, const uint8_t *p)
{
    *h = (struct qcow2_header){
        .version = be32_at(p + 4),
        .backing_at = be64_at(p + 8),
        .backing_n = be32_at(p + 16),
        .cluster_bits = be32_at(p + 20),
        .size = be64_at(p + 24),
        .crypt = be32_at(p + 32),
        .l1_entries = be32_at(p + 36),
        .l1_at = be64_at(p + 40),
        .reftable_at = be64_at(p + 48),
        .reftable_clusters = be32_at(p + 56),
        .n_snapshots = be32_at(p + 60),
        .snapshots_at = be64_at(p + 64),
        .refcount_order = 4,
        .length = QCOW2_HEADER_V2,
    };
    if (h->version >= 3) {
        h->incompatible = be64_at(p + 72);
        h->compatible = be64_at(p + 80);
        h->autoclear = be64_at(p + 88);
        h->refcount_order = be32_at(p + 96);
        h->length = be32_at(p + 100);
        h->compression = h->length > QCOW2_HEADER_V3 ? p[QCOW2_HEADER_V3] : 0;
    }
}

static void fields_to(const struct qcow2_header *h, uint8_t *p)
{
    be32_put(p, QCOW2_MAGIC);
    be32_put(p + 4, h->version);
    be64_put(p + 8, h->backing_at);
    be32_put(p + 16, h->backing_n);
    be32_put(p + 20, h->cluster_bits);
    be64_put(p + 24, h->size);
    be32_put(p + 32, h->crypt);
    be32_put(p + 36, h->l1_entries);
    be64_put(p + 40, h->l1_at);
    be64_put(p + 48, h->reftable_at);
    be32_put(p + 56, h->reftable_clusters);
    be32_put(p + 60, h->n_snapshots);
    be64_put(p + 64, h->snapshots_at);
    if (h->version >= 3) {
        be64_put(p + 72, h->incompatible);
        be64_put(p + 80, h->compatible);
        be64_put(p + 88, h->autoclear);
        be32_put(p + 96, h->refcount_order);
        be32_put(p + 100, h->length);
        if (h->length > QCOW2_HEADER_V3) {
            p[QCOW2_HEADER_V3] = h->compression;
        }
    }
}

void qcow2_geometry(struct qcow2 *q)
{
    q->cluster = 1u << q->h.cluster_bits;
    q->extended = q->h.incompatible & INCOMPAT_EXTENDED_L2;
    q->entry = q->extended ? 16 : 8;
    q->l2_bits = q->h.cluster_bits - (q->extended ? 4 : 3);
    q->sub_bits = q->h.cluster_bits - (q->extended ? 5 : 0);
    q->piece = MIN(q->cluster, (uint32_t)QCOW2_PIECE);
    q->raw_data = q->h.autoclear & AUTOCLEAR_RAW_DATA;
}

uint64_t qcow2_l1_entries_for(const struct qcow2 *q, uint64_t size)
{
    unsigned bits = q->h.cluster_bits + q->l2_bits;
    return (size >> bits) + ((size & ((1ull << bits) - 1)) != 0);
}

/* ---- checking ---- */

static bool check_table(const struct qcow2 *q, uint64_t at, uint64_t entries, uint64_t entry_bytes,
                        const char *what, GError **error)
{
    if (at % q->cluster || at > INT64_MAX - entries * entry_bytes) {
        return bad(error, "%s offset invalid: 0x%" PRIx64, what, at);
    }
    return true;
}

/* Names from the file's own table, because a newer program wrote it. */
static bool check_features(uint64_t unknown, const uint8_t *table, uint32_t n, GError **error)
{
    g_autoptr(GString) names = g_string_new(NULL);
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(unknown >> bit & 1)) {
            continue;
        }
        g_autofree char *name = g_strdup_printf("unknown bit %u", bit);
        for (uint32_t i = 0; i + FEATURE_BYTES <= n; i += FEATURE_BYTES) {
            if (table[i] == INCOMPATIBLE && table[i + 1] == bit) {
                g_autofree char *raw = g_strndup((const char *)table + i + 2, FEATURE_BYTES - 2);
                g_free(name);
                name = g_strescape(raw, NULL);
            }
        }
        g_string_append_printf(names, "%s%s", names->len ? ", " : "", name);
    }
    return bad(error, "Unsupported qcow2 feature(s): %s", names->str);
}

static bool check_first(const struct qcow2_header *h, GError **error)
{
    if (h->version != 2 && h->version != 3) {
        return bad(error, "Unsupported qcow2 version %" PRIu32, h->version);
    }
    if (h->cluster_bits < 9 || h->cluster_bits > 21) {
        return bad(error, "Unsupported cluster size: 2^%" PRIu32, h->cluster_bits);
    }
    if (h->version >= 3 && h->length < QCOW2_HEADER_V3) {
        return bad(error, "qcow2 header too short: %" PRIu32 " bytes", h->length);
    }
    if (h->length > 1u << h->cluster_bits || h->length % 8) {
        return bad(error, "qcow2 header exceeds cluster size: %" PRIu32 " bytes", h->length);
    }
    if (h->backing_at > 1u << h->cluster_bits || (h->backing_at && h->backing_at < h->length)) {
        return bad(error, "Invalid backing file offset 0x%" PRIx64, h->backing_at);
    }
    if (h->backing_at &&
        h->backing_n > MIN((uint64_t)QCOW2_NAME_MAX, (1u << h->cluster_bits) - h->backing_at)) {
        return bad(error, "Backing file name too long: %" PRIu32 " bytes", h->backing_n);
    }
    return true;
}

static bool check_compression(const struct qcow2_header *h, GError **error)
{
    bool flagged = h->incompatible & INCOMPAT_COMPRESSION;
    if (flagged && h->compression == COMPRESSION_ZLIB) {
        return bad(error, "Compression type incompatible feature bit must not be set for zlib");
    }
    if (!flagged && h->compression != COMPRESSION_ZLIB) {
        return bad(error, "Compression type %u without its incompatible feature bit",
                   h->compression);
    }
    if (h->compression > COMPRESSION_ZSTD) {
        return bad(error, "Unknown compression type: %u", h->compression);
    }
    return true;
}

static bool check_tables(const struct qcow2 *q, GError **error)
{
    const struct qcow2_header *h = &q->h;
    if (h->size > (uint64_t)INT64_MAX - q->cluster ||
        qcow2_l1_entries_for(q, h->size) > INT32_MAX) {
        return bad(error, "Image is too big: %" PRIu64 " bytes", h->size);
    }
    if (h->l1_entries > QCOW2_L1_MAX / 8) {
        return bad(error, "Active L1 table too large: %" PRIu32 " entries", h->l1_entries);
    }
    if (h->l1_entries < qcow2_l1_entries_for(q, h->size)) {
        return bad(error, "L1 table is too small: %" PRIu32 " entries", h->l1_entries);
    }
    if (!h->reftable_clusters && !(q->node->flags & OPEN_CHECK)) {
        return bad(error, "Image does not contain a reference count table");
    }
    if ((uint64_t)h->reftable_clusters << h->cluster_bits > QCOW2_REFTABLE_MAX) {
        return bad(error, "Reference count table too large: %" PRIu32 " clusters",
                   h->reftable_clusters);
    }
    if (h->n_snapshots > QCOW2_SNAPSHOTS_MAX) {
        return bad(error, "Snapshot table too large: %" PRIu32 " snapshots", h->n_snapshots);
    }
    return check_table(q, h->reftable_at, h->reftable_clusters, q->cluster, "Reference count table",
                       error) &&
           check_table(q, h->snapshots_at, h->n_snapshots ? QCOW2_SNAPSHOT_TABLE_MAX : 0, 1,
                       "Snapshot table", error) &&
           check_table(q, h->l1_at, h->l1_entries, 8, "Active L1 table", error);
}

static bool check_fields(const struct qcow2 *q, GError **error)
{
    const struct qcow2_header *h = &q->h;
    if (h->refcount_order > 6) {
        return bad(error,
                   "Reference count entry width too large: 2^%" PRIu32
                   " bits; may not exceed 64 bits",
                   h->refcount_order);
    }
    if (h->crypt > CRYPT_LUKS) {
        return bad(error, "Unsupported encryption method %" PRIu32, h->crypt);
    }
    if (q->extended && q->h.cluster_bits < 14) {
        return bad(error, "Extended L2 entries need clusters of 16384 bytes or more, not %u",
                   q->cluster);
    }
    if (h->crypt == CRYPT_LUKS && !h->crypto_n) {
        return bad(error, "Missing CRYPTO header for crypt method %" PRIu32, h->crypt);
    }
    if ((h->autoclear & AUTOCLEAR_RAW_DATA) && !(h->incompatible & INCOMPAT_DATA_FILE)) {
        return bad(error, "data-file-raw is set, but there is no data file");
    }
    return check_compression(h, error) && check_tables(q, error);
}

/* ---- extensions ---- */

static bool read_bitmaps_ext(struct qcow2 *q, const uint8_t *p, uint32_t n, GError **error)
{
    struct qcow2_header *h = &q->h;
    if (n != 24) {
        return bad(error, "bitmaps_ext: Invalid extension length %" PRIu32, n);
    }
    if (!(h->autoclear & AUTOCLEAR_BITMAPS)) {
        q->bitmaps_stale = true; /* a program that knows no bitmaps wrote to the image */
        return true;
    }
    h->n_bitmaps = be32_at(p);
    h->bitmaps_n = be64_at(p + 8);
    h->bitmaps_at = be64_at(p + 16);
    if (be32_at(p + 4)) {
        return bad(error, "bitmaps_ext: Reserved field is not zero: %" PRIu32, be32_at(p + 4));
    }
    if (h->n_bitmaps == 0) {
        return bad(error, "bitmaps_ext: found bitmaps extension with zero bitmaps");
    }
    if (h->n_bitmaps > QCOW2_BITMAPS_MAX) {
        return bad(error, "bitmaps_ext: image has %" PRIu32 " bitmaps, exceeding the maximum of %u",
                   h->n_bitmaps, QCOW2_BITMAPS_MAX);
    }
    if (h->bitmaps_n > QCOW2_BITMAPS_MAX * 1024ull || h->bitmaps_n < 24ull * h->n_bitmaps) {
        return bad(error, "bitmaps_ext: invalid bitmap directory size %" PRIu64, h->bitmaps_n);
    }
    if (h->bitmaps_at % q->cluster || h->bitmaps_at > file_size(q->file) ||
        h->bitmaps_n > file_size(q->file) - h->bitmaps_at) {
        return bad(error, "bitmaps_ext: invalid bitmap directory offset 0x%" PRIx64, h->bitmaps_at);
    }
    return true;
}

static bool read_crypto_ext(struct qcow2 *q, const uint8_t *p, uint32_t n, GError **error)
{
    struct qcow2_header *h = &q->h;
    if (h->crypt != CRYPT_LUKS) {
        return bad(error, "CRYPTO header extension only expected with LUKS encryption method");
    }
    if (n != 16) {
        return bad(error, "CRYPTO header extension size %" PRIu32 ", but expected size 16", n);
    }
    h->crypto_at = be64_at(p);
    h->crypto_n = be64_at(p + 8);
    if (h->crypto_at % q->cluster || h->crypto_at > INT64_MAX - h->crypto_n) {
        return bad(error,
                   "Encryption header offset 0x%" PRIx64 " is not a multiple of cluster size",
                   h->crypto_at);
    }
    if (h->crypto_n == 0 || h->crypto_n > file_size(q->file)) {
        return bad(error, "Encryption header of %" PRIu64 " bytes does not fit the file",
                   h->crypto_n);
    }
    return true;
}

static bool read_extension(struct qcow2 *q, uint32_t type, const uint8_t *p, uint32_t n,
                           GError **error)
{
    switch (type) {
    case EXT_BACKING_FORMAT:
        if (n > FORMAT_NAME_MAX) {
            return bad(error, "ext_backing_format: len=%" PRIu32 " too large (>=16)", n);
        }
        g_free(q->node->backing_format);
        q->node->backing_format = g_strndup((const char *)p, n);
        return true;
    case EXT_FEATURES:
        return true; /* written anew; check_features() has looked at it */
    case EXT_CRYPTO:
        return read_crypto_ext(q, p, n, error);
    case EXT_BITMAPS:
        return read_bitmaps_ext(q, p, n, error);
    case EXT_DATA_FILE:
        if (n > QCOW2_NAME_MAX) {
            return bad(error, "data file name too long: %" PRIu32 " bytes", n);
        }
        g_free(q->data_name);
        q->data_name = g_strndup((const char *)p, n);
        return true;
    default: {
        struct qcow2_extension e = {type, n, g_memdup2(p, n)};
        g_array_append_val(q->extensions, e);
        return true;
    }
    }
}

/* The extensions in @p, which is the first cluster up to the backing file's name. */
static bool each_extension(struct qcow2 *q, const uint8_t *p, uint64_t end, bool features_only,
                           GError **error)
{
    uint64_t unknown = q->h.incompatible & ~(uint64_t)INCOMPAT_KNOWN;
    for (uint64_t at = q->h.length; at + 8 <= end;) {
        uint32_t type = be32_at(p + at), n = be32_at(p + at + 4);
        at += 8;
        if (type == EXT_END) {
            break;
        }
        if (n > end - at) {
            return bad(error, "Header extension too large: %" PRIu32 " bytes", n);
        }
        if (features_only ? type == EXT_FEATURES && unknown : true) {
            if (features_only) {
                return check_features(unknown, p + at, n, error);
            }
            if (!read_extension(q, type, p + at, n, error)) {
                return false;
            }
        }
        at += ((uint64_t)n + 7) & ~7ull;
    }
    return features_only && unknown ? check_features(unknown, NULL, 0, error) : true;
}

bool qcow2_header_read(struct qcow2 *q, GError **error)
{
    uint8_t head[QCOW2_HEADER_OURS] = {0};
    uint64_t have = file_size(q->file);
    int r = have < QCOW2_HEADER_V2 ? 0 : file_read(q->file, 0, head, MIN(have, sizeof(head)));
    if (r) {
        error_set_errno(error, -r, "Could not read qcow2 header");
        return false;
    }
    if (be32_at(head) != QCOW2_MAGIC) {
        return bad(error, "Image is not in qcow2 format");
    }
    fields_from(&q->h, head);
    if (!check_first(&q->h, error)) {
        return false;
    }
    qcow2_geometry(q);
    uint64_t end = q->h.backing_at ? q->h.backing_at : q->cluster;
    g_autofree uint8_t *first = g_malloc0(q->cluster); /* at most 2 MiB */
    r = file_read(q->file, 0, first, MIN(have, q->cluster));
    if (r) {
        error_set_errno(error, -r, "Could not read qcow2 header");
        return false;
    }
    if (!each_extension(q, first, end, true, error) ||
        !each_extension(q, first, end, false, error) || !check_fields(q, error)) {
        return false;
    }
    if (q->h.backing_at && q->h.backing_n) {
        if (memchr(first + q->h.backing_at, 0, q->h.backing_n)) {
            return bad(error, "Backing file name has a NUL character in it");
        }
        q->node->backing_name = g_strndup((char *)first + q->h.backing_at, q->h.backing_n);
    }
    return true;
}

/* ---- writing ---- */

int qcow2_header_put(struct qcow2 *q)
{
    uint8_t head[SECTOR];
    int r = file_read(q->file, 0, head, sizeof(head));
    if (r) {
        return r;
    }
    fields_to(&q->h, head);
    return file_write(q->file, 0, head, sizeof(head));
}

static void put_ext(GByteArray *out, uint32_t type, const void *data, uint32_t n)
{
    uint8_t head[8];
    static const uint8_t pad[8];
    be32_put(head, type);
    be32_put(head + 4, n);
    g_byte_array_append(out, head, sizeof(head));
    g_byte_array_append(out, data, n);
    g_byte_array_append(out, pad, -n & 7);
}

static void put_features(GByteArray *out)
{
    uint8_t table[FEATURE_BYTES * G_N_ELEMENTS(features)] = {0};
    for (unsigned i = 0; i < G_N_ELEMENTS(features); i++) {
        uint8_t *p = table + FEATURE_BYTES * i;
        p[0] = features[i].kind;
        p[1] = features[i].bit;
        g_strlcpy((char *)p + 2, features[i].name, FEATURE_BYTES - 2);
    }
    put_ext(out, EXT_FEATURES, table, sizeof(table));
}

static void put_extensions(const struct qcow2 *q, GByteArray *out)
{
    const struct node *node = q->node;
    uint8_t b[24] = {0};
    if (node->backing_format && *node->backing_format) {
        put_ext(out, EXT_BACKING_FORMAT, node->backing_format,
                (uint32_t)strlen(node->backing_format));
    }
    if (q->data_name && (q->h.incompatible & INCOMPAT_DATA_FILE)) {
        put_ext(out, EXT_DATA_FILE, q->data_name, (uint32_t)strlen(q->data_name));
    }
    if (q->h.crypto_n) {
        be64_put(b, q->h.crypto_at);
        be64_put(b + 8, q->h.crypto_n);
        put_ext(out, EXT_CRYPTO, b, 16);
    }
    if (q->h.version >= 3 && q->cluster >= FEATURES_FROM) {
        put_features(out);
    }
    if (q->h.n_bitmaps) {
        be32_put(b, q->h.n_bitmaps);
        be32_put(b + 4, 0);
        be64_put(b + 8, q->h.bitmaps_n);
        be64_put(b + 16, q->h.bitmaps_at);
        put_ext(out, EXT_BITMAPS, b, 24);
    }
    for (unsigned i = 0; i < q->extensions->len; i++) {
        const struct qcow2_extension *e = &g_array_index(q->extensions, struct qcow2_extension, i);
        put_ext(out, e->type, e->data, e->n);
    }
    put_ext(out, EXT_END, b, 0);
}

bool qcow2_header_write(struct qcow2 *q, GError **error)
{
    struct qcow2_header *h = &q->h;
    g_autoptr(GByteArray) out = g_byte_array_new();
    /* Fields behind those we know stay as they are in the file. */
    h->length = h->version >= 3 ? MAX(h->length, (uint32_t)QCOW2_HEADER_OURS) : QCOW2_HEADER_V2;
    g_byte_array_set_size(out, h->length);
    memset(out->data, 0, h->length);
    if (h->length > QCOW2_HEADER_OURS) {
        file_read(q->file, 0, out->data, h->length);
    }
    put_extensions(q, out);
    const char *backing = q->node->backing_name;
    h->backing_n = backing ? (uint32_t)strlen(backing) : 0;
    h->backing_at = h->backing_n ? out->len : 0;
    if (out->len + h->backing_n > q->cluster || h->backing_n > QCOW2_NAME_MAX) {
        g_set_error(error, LODGE_ERROR, ENOSPC, "Header of %u bytes does not fit into a cluster",
                    out->len + h->backing_n);
        return false;
    }
    g_byte_array_append(out, (const uint8_t *)(backing ? backing : ""), h->backing_n);
    guint used = out->len;
    g_byte_array_set_size(out, q->cluster);
    memset(out->data + used, 0, q->cluster - used);
    fields_to(h, out->data);
    int r = file_write(q->file, 0, out->data, q->cluster);
    if (r) {
        error_set_errno(error, -r, "Could not write the qcow2 header");
    }
    return r == 0;
}

int qcow2_mark(struct qcow2 *q, uint64_t bit, bool on)
{
    uint64_t now = on ? q->h.incompatible | bit : q->h.incompatible & ~bit;
    if (now == q->h.incompatible || q->h.version < 3) {
        return 0;
    }
    q->h.incompatible = now;
    int r = qcow2_header_put(q);
    return r ? r : file_flush(q->file);
}

int qcow2_corrupt(struct qcow2 *q)
{
    if (q->node->flags & OPEN_CHECK) {
        return -EIO; /* the checker looks at everything and decides then */
    }
    if (!q->corrupt && !q->node->read_only) {
        qcow2_mark(q, INCOMPAT_CORRUPT, true);
    }
    q->corrupt = true;
    return -EIO;
}
