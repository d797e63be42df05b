/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_create: new images, and how large they would be.  Spec: QEMU,
 * "docs/interop/qcow2.txt".
 *
 * The file is laid out at once: header, refcount table, refcount blocks, encryption header, L1
 * table, L2 tables, data.  The header is written last, so a crash leaves no image at all.
 */
#include "host/image/luks.h"
#include "host/image/options.h"
#include "host/image/qcow2.h"

#include <inttypes.h>
#include <string.h>

enum { BUFFER = 2 << 20 }; /* at least a cluster */

const struct option_desc qcow2_create_options[] = {
    {"backing_file", "str", "File name of a base image", NULL},
    {"backing_fmt", "str", "Image format of the base image", NULL},
    {"cluster_size", "size", "qcow2 cluster size", "65536"},
    {"compat", "str", "Compatibility level (v2 [0.10] or v3 [1.1])", NULL},
    {"compression_type", "str", "Compression method used for image cluster compression", "zlib"},
    {"data_file", "str", "File name of an external data file", NULL},
    {"data_file_raw", "bool (on/off)", "The external data file must stay valid as a raw image",
     NULL},
    {"encrypt.cipher-alg", "str", "Name of encryption cipher algorithm", NULL},
    {"encrypt.cipher-mode", "str", "Name of encryption cipher mode", NULL},
    {"encrypt.format", "str", "Encrypt the image, format choices: 'aes', 'luks'", NULL},
    {"encrypt.hash-alg", "str", "Name of encryption hash algorithm", NULL},
    {"encrypt.iter-time", "num", "Time to spend in PBKDF in milliseconds", NULL},
    {"encrypt.ivgen-alg", "str", "Name of IV generator algorithm", NULL},
    {"encrypt.ivgen-hash-alg", "str", "Name of IV generator hash algorithm", NULL},
    {"encrypt.key-secret", "str", "ID of secret providing qcow AES key or LUKS passphrase", NULL},
    {"encryption", "bool (on/off)",
     "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)", NULL},
    {"extended_l2", "bool (on/off)", "Extended L2 tables", "off"},
    {"lazy_refcounts", "bool (on/off)", "Postpone refcount updates", "off"},
    {"preallocation", "str", "Preallocation mode (allowed values: off, metadata, falloc, full)",
     NULL},
    {"refcount_bits", "num", "Width of a reference count entry in bits", "16"},
    {"size", "size", "Virtual disk size", NULL},
    {0},
};

/* ---- sizes ---- */

uint64_t qcow2_refs_size(uint64_t clusters, uint32_t cluster, unsigned order, uint64_t *blocks)
{
    uint64_t per_block = (uint64_t)cluster * 8 >> order, table = 0, n = 0, last;
    *blocks = 0;
    do {
        last = n;
        *blocks = (clusters + table + *blocks + per_block - 1) / per_block;
        table = (*blocks + cluster / 8 - 1) / (cluster / 8);
        n = clusters + *blocks + table;
    } while (n != last);
    return (*blocks + table) * cluster;
}

struct layout {
    struct qcow2 q; /* its header and geometry only */
    enum preallocation prealloc;
    uint64_t l1_clusters, l2_tables, data; /* clusters */
    uint64_t crypto;                       /* bytes of the encryption header */
    uint64_t blocks, table_clusters;
    uint64_t crypto_at, l1_at, l2_at, data_at, end; /* cluster numbers */
};

static bool bad(GError **error, const char *text)
{
    g_set_error(error, LODGE_ERROR, EINVAL, "%s", text);
    return false;
}

static bool read_version(const struct options *o, struct qcow2_header *h, GError **error)
{
    const char *compat = option_str(o, "compat");
    h->version = 3;
    if (compat && (!strcmp(compat, "0.10") || !strcmp(compat, "v2"))) {
        h->version = 2;
    } else if (compat && strcmp(compat, "1.1") && strcmp(compat, "v3")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid compatibility level: '%s'", compat);
        return false;
    }
    return true;
}

static bool read_widths(const struct options *o, struct qcow2_header *h, GError **error)
{
    uint64_t cluster = option_size(o, "cluster_size", 65536);
    uint64_t bits = option_num(o, "refcount_bits", 16);
    if (cluster < 512 || cluster > 2 << 20 || cluster & (cluster - 1)) {
        return bad(error, "Cluster size must be a power of two between 512 and 2048k");
    }
    if (bits < 1 || bits > 64 || bits & (bits - 1)) {
        return bad(error, "Refcount width must be a power of two and may not exceed 64 bits");
    }
    if (h->version < 3 && bits != 16) {
        return bad(error, "Different refcount widths than 16 bits require compatibility level 1.1 "
                          "or above (use version=v3 or greater)");
    }
    h->cluster_bits = (uint32_t)__builtin_ctzll(cluster);
    h->refcount_order = (uint32_t)__builtin_ctzll(bits);
    return true;
}

static bool read_features(const struct image_create *how, struct qcow2_header *h, GError **error)
{
    const struct options *o = how->options;
    const char *type = option_str(o, "compression_type"), *data = option_str(o, "data_file");
    bool v3 = h->version >= 3;
    if (option_bool(o, "lazy_refcounts", false)) {
        h->compatible |= COMPAT_LAZY_REFCOUNTS;
    }
    if (option_bool(o, "extended_l2", false)) {
        h->incompatible |= INCOMPAT_EXTENDED_L2;
    }
    if (type && !strcmp(type, "zstd")) {
        h->compression = COMPRESSION_ZSTD;
        h->incompatible |= INCOMPAT_COMPRESSION;
    } else if (type && strcmp(type, "zlib")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid parameter '%s' for compression_type",
                    type);
        return false;
    }
    h->incompatible |= data ? INCOMPAT_DATA_FILE : 0;
    if (option_bool(o, "data_file_raw", false)) {
        h->autoclear |= AUTOCLEAR_RAW_DATA;
    }
    if (!v3 && h->compatible) {
        return bad(error, "Lazy refcounts only supported with compatibility level 1.1 and above "
                          "(use version=v3 or greater)");
    }
    if (!v3 && h->incompatible & INCOMPAT_EXTENDED_L2) {
        return bad(error, "Extended L2 entries are only supported with compatibility level 1.1 "
                          "and above (use version=v3 or greater)");
    }
    if (!v3 && h->incompatible & INCOMPAT_COMPRESSION) {
        return bad(error, "Non-zlib compression type is only supported with compatibility level "
                          "1.1 and above (use version=v3 or greater)");
    }
    if (!v3 && data) {
        return bad(error, "External data files are only supported with compatibility level 1.1 "
                          "and above (use version=v3 or greater)");
    }
    if (h->autoclear && !data) {
        return bad(error, "data-file-raw requires data-file");
    }
    if (h->autoclear && how->backing_name) {
        return bad(error, "Backing file and data-file-raw cannot be used at the same time");
    }
    if (h->incompatible & INCOMPAT_EXTENDED_L2 && h->cluster_bits < 14) {
        return bad(error, "Extended L2 entries are only supported with cluster sizes of at least "
                          "16384 bytes");
    }
    return true;
}

static bool read_crypto(const struct options *o, struct layout *l, GError **error)
{
    const char *format = option_str(o, "encrypt.format");
    if (option_bool(o, "encryption", false)) {
        if (format) {
            return bad(error, "Options encryption and encrypt.format are mutually exclusive");
        }
        format = "aes";
    }
    if (!format) {
        return true;
    }
    if (!strcmp(format, "aes")) {
        l->q.h.crypt = CRYPT_AES;
        return true;
    }
    if (strcmp(format, "luks")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Unknown encryption format '%s'", format);
        return false;
    }
    struct luks_params p;
    l->q.h.crypt = CRYPT_LUKS;
    return luks_params_of(o, "encrypt.", &p, error) && luks_header_size(&p, &l->crypto, error);
}

static bool lay_out(const struct image_create *how, struct layout *l, GError **error)
{
    struct qcow2_header *h = &l->q.h;
    *l = (struct layout){.prealloc = how->preallocation};
    if (!read_version(how->options, h, error) || !read_widths(how->options, h, error) ||
        !read_features(how, h, error) || !read_crypto(how->options, l, error)) {
        return false;
    }
    qcow2_geometry(&l->q);
    const struct qcow2 *q = &l->q;
    h->size = (how->size + 511) & ~511ull;
    if (how->backing_name && l->prealloc != PREALLOC_OFF && !q->extended) {
        return bad(error, "Backing file and preallocation can only be used at the same time if "
                          "extended_l2 is enabled");
    }
    if (q->raw_data && l->prealloc == PREALLOC_OFF) {
        l->prealloc = PREALLOC_METADATA; /* so that the data file is valid by itself */
    }
    uint64_t entries =
        h->size > (uint64_t)INT64_MAX - q->cluster ? UINT64_MAX : qcow2_l1_entries_for(q, h->size);
    if (entries > QCOW2_L1_MAX / 8) {
        return bad(error, "The image size is too large for file format 'qcow2' (try using a larger "
                          "cluster size)");
    }
    h->l1_entries = (uint32_t)entries;
    h->length = h->version >= 3 ? QCOW2_HEADER_OURS : QCOW2_HEADER_V2;
    l->l1_clusters = qcow2_clusters(q, 8 * entries);
    uint64_t data = qcow2_clusters(q, h->size), crypto = qcow2_clusters(q, l->crypto);
    l->l2_tables = l->prealloc == PREALLOC_OFF ? 0 : entries;
    l->data = l->prealloc == PREALLOC_OFF || h->incompatible & INCOMPAT_DATA_FILE ? 0 : data;
    uint64_t others = 1 + crypto + l->l1_clusters + l->l2_tables + l->data;
    uint64_t refs = qcow2_refs_size(others, q->cluster, h->refcount_order, &l->blocks);
    l->table_clusters = (refs >> h->cluster_bits) - l->blocks;
    l->crypto_at = 1 + l->table_clusters + l->blocks;
    l->l1_at = l->crypto_at + crypto;
    l->l2_at = l->l1_at + l->l1_clusters;
    l->data_at = l->l2_at + l->l2_tables;
    l->end = l->data_at + l->data;
    h->l1_at = l->l1_at << h->cluster_bits;
    h->reftable_at = q->cluster;
    h->reftable_clusters = (uint32_t)l->table_clusters;
    h->crypto_n = l->crypto;
    h->crypto_at = l->crypto ? l->crypto_at << h->cluster_bits : 0;
    if (l->table_clusters << h->cluster_bits > QCOW2_REFTABLE_MAX) {
        return bad(error, "The image size is too large for its refcount table (try using a larger "
                          "cluster size or fewer refcount bits)");
    }
    return true;
}

/* ---- writing ---- */

/* A stream of big writes to consecutive places. */
struct out {
    struct file *file;
    uint64_t at;
    uint8_t *bytes;
    size_t n;
    int result;
};

static void out_flush(struct out *o)
{
    if (o->n && !o->result) {
        o->result = file_write(o->file, o->at, o->bytes, o->n);
    }
    o->at += o->n;
    o->n = 0;
}

static void out_entry(struct out *o, uint64_t big_endian_value)
{
    be64_put(o->bytes + o->n, big_endian_value);
    o->n += 8;
    if (o->n == BUFFER) {
        out_flush(o);
    }
}

static void out_pad(struct out *o, uint64_t to)
{
    while (o->at + o->n < to) {
        out_entry(o, 0);
    }
}

/* One reference for each cluster of the new file. */
static void out_blocks(struct out *o, const struct layout *l)
{
    const struct qcow2 *q = &l->q;
    uint64_t per_block = (uint64_t)q->cluster * 8 >> q->h.refcount_order;
    g_autofree uint8_t *full = g_malloc0(q->cluster);
    for (uint64_t i = 0; i < per_block; i++) {
        qcow2_ref_put(full, i, q->h.refcount_order, 1);
    }
    for (uint64_t b = 0; b < l->blocks; b++) {
        uint64_t used = MIN(per_block, l->end - MIN(l->end, b * per_block));
        if (used < per_block) {
            for (uint64_t i = used; i < per_block; i++) {
                qcow2_ref_put(full, i, q->h.refcount_order, 0);
            }
        }
        if (o->n + q->cluster > BUFFER) {
            out_flush(o);
        }
        memcpy(o->bytes + o->n, full, q->cluster);
        o->n += q->cluster;
    }
    out_flush(o);
}

static void out_l2(struct out *o, const struct layout *l)
{
    const struct qcow2 *q = &l->q;
    bool own = q->h.incompatible & INCOMPAT_DATA_FILE;
    uint64_t n = qcow2_clusters(q, q->h.size), base = own ? 0 : l->data_at;
    for (uint64_t i = 0; i < n && !o->result; i++) {
        out_entry(o, (base + i) << q->h.cluster_bits | QCOW2_COPIED);
        if (q->extended) {
            out_entry(o, own ? 0xffffffff : 0); /* space, not yet in use */
        }
    }
    out_pad(o, l->data_at << q->h.cluster_bits);
}

static int write_tables(struct file *f, const struct layout *l)
{
    const struct qcow2 *q = &l->q;
    unsigned bits = q->h.cluster_bits;
    struct out o = {.file = f, .at = q->cluster, .bytes = g_malloc(BUFFER)};
    for (uint64_t b = 0; b < l->blocks; b++) {
        out_entry(&o, (1 + l->table_clusters + b) << bits);
    }
    out_pad(&o, (1 + l->table_clusters) << bits);
    out_flush(&o);
    out_blocks(&o, l);
    o.at = q->h.l1_at;
    for (uint64_t i = 0; i < l->l2_tables; i++) {
        out_entry(&o, (l->l2_at + i) << bits | QCOW2_COPIED);
    }
    if (l->l2_tables) {
        out_pad(&o, l->l2_at << bits);
        out_l2(&o, l);
    } else if (file_size(f) > q->h.l1_at) { /* a device, which holds what it held before */
        out_pad(&o, q->h.l1_at + q->h.l1_entries * UINT64_C(8));
    }
    out_flush(&o);
    g_free(o.bytes);
    return o.result;
}

/* Beside the image, where opening it will look for it. */
static struct file *make_data_file(const struct image_create *how, GError **error)
{
    const char *name = option_str(how->options, "data_file");
    g_autofree char *dir = g_path_get_dirname(how->name);
    g_autofree char *path = g_path_is_absolute(name) || strstr(name, "://")
                                ? g_strdup(name)
                                : g_build_filename(dir, name, NULL);
    return file_create(path, error);
}

static bool write_data_file(const struct image_create *how, const struct layout *l, GError **error)
{
    struct file *f = make_data_file(how, error);
    if (!f) {
        return false;
    }
    int r = file_resize(f, l->q.h.size);
    if (r) {
        error_set_errno(error, -r, "Could not resize the data file");
    }
    bool ok = r == 0 && (l->prealloc < PREALLOC_FALLOC ||
                         file_preallocate(f, 0, l->q.h.size, l->prealloc, error));
    file_close(f);
    return ok;
}

static bool write_crypto(const struct image_create *how, const struct layout *l, GError **error)
{
    if (l->q.h.crypt == CRYPT_AES) {
        return qcow2_aes_check(option_str(how->options, "encrypt.key-secret"), error);
    }
    if (l->q.h.crypt == CRYPT_NONE) {
        return true;
    }
    struct luks_area area = {how->file, l->q.h.crypto_at,
                             qcow2_clusters(&l->q, l->crypto) << l->q.h.cluster_bits};
    struct luks_params p;
    struct luks *luks =
        luks_params_of(how->options, "encrypt.", &p, error) ? luks_create(&area, &p, error) : NULL;
    luks_free(luks);
    return luks;
}

static bool write_header(const struct image_create *how, struct layout *l, GError **error)
{
    struct node node = {.backing_name = (char *)how->backing_name,
                        .backing_format = (char *)how->backing_format};
    struct qcow2 *q = &l->q;
    q->node = &node;
    q->file = how->file;
    q->data_name = (char *)option_str(how->options, "data_file");
    q->extensions = g_array_new(FALSE, FALSE, sizeof(struct qcow2_extension));
    bool ok = qcow2_header_write(q, error);
    g_array_free(q->extensions, TRUE);
    return ok;
}

bool qcow2_create(const struct image_create *how, GError **error)
{
    struct layout l;
    if (!lay_out(how, &l, error) || !write_crypto(how, &l, error)) {
        return false;
    }
    const char *data = option_str(how->options, "data_file");
    if (data && strlen(data) > QCOW2_NAME_MAX) {
        return bad(error, "data_file name is too long");
    }
    unsigned bits = l.q.h.cluster_bits;
    int r = write_tables(how->file, &l);
    uint64_t end = l.end << bits;
    r = r || file_size(how->file) >= end ? r : file_resize(how->file, end);
    if (r) {
        error_set_errno(error, -r, "Could not write the tables");
        return false;
    }
    if (l.data && l.prealloc >= PREALLOC_FALLOC &&
        !file_preallocate(how->file, l.data_at << bits, end, l.prealloc, error)) {
        return false;
    }
    if (data && !write_data_file(how, &l, error)) {
        return false;
    }
    if (!write_header(how, &l, error)) {
        return false;
    }
    r = file_flush(how->file);
    if (r) {
        error_set_errno(error, -r, "Could not write the image");
    }
    return r == 0;
}

/* ---- measure ---- */

bool qcow2_measure(const struct image_create *how, uint64_t used, uint64_t out[2], GError **error)
{
    struct layout l;
    if (!lay_out(how, &l, error)) {
        return false;
    }
    const struct qcow2 *q = &l.q;
    uint64_t per_l2 = q->cluster / q->entry, blocks;
    uint64_t data = qcow2_clusters(q, q->h.size), bytes = data << q->h.cluster_bits;
    uint64_t l2 = (data + per_l2 - 1) / per_l2, l1 = (l2 + q->cluster / 8 - 1) / (q->cluster / 8);
    uint64_t meta = (1 + l2 + l1) << q->h.cluster_bits;
    meta += qcow2_refs_size((meta + bytes) >> q->h.cluster_bits, q->cluster, q->h.refcount_order,
                            &blocks);
    uint64_t crypto = qcow2_clusters(q, l.crypto) << q->h.cluster_bits;
    out[1] = meta + bytes + crypto;
    out[0] = how->preallocation >= PREALLOC_FALLOC ? out[1] : out[1] - bytes + MIN(used, bytes);
    return true;
}
