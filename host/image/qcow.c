/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow: version 1 of QEMU's copy-on-write format.
 *
 * A table of tables of clusters; there is no record of what is free, new clusters go to the
 * end of the file.  Tables are written after the data they point at has been flushed.
 *
 * Spec: Mark McLoughlin, "The QCOW Image Format", version 1.
 */
#include "base/bytes.h"
#include "host/image/cipher.h"
#include "host/image/codec.h"
#include "host/image/format.h"
#include "host/image/options.h"
#include "host/image/secret.h"
#include "host/image/tables.h"

#include <inttypes.h>
#include <string.h>

enum {
    HEADER = 48, ENTRY = 8, SECTOR = 512, NAME_MAX_BYTES = 1023, KEY = 16,
    CLUSTER_BITS_MIN = 9, CLUSTER_BITS_MAX = 16, L2_BITS_MIN = 6, L2_BITS_MAX = 13,
    PAGE_MAX = 4096,
};

enum crypt { CRYPT_NONE = 0, CRYPT_AES = 1 };

static const uint64_t packed_flag = UINT64_C(1) << 63;

struct qcow {
    struct node *node;
    unsigned cluster_bits, l2_bits;
    uint64_t l1_at, l1_entries;
    uint64_t end; /* where the next cluster goes: what is taken but not linked counts */
    enum crypt crypt;
    struct tables *l1, *l2;
    struct cipher *cipher;
};

static unsigned qcow_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)file_name;
    return n >= 8 && !memcmp(head, "QFI\xfb\0\0\0\1", 8) ? 100 : 0;
}

static uint32_t cluster_bytes(const struct qcow *q)
{
    return 1u << q->cluster_bits;
}

static uint64_t l2_bytes(const struct qcow *q)
{
    return (uint64_t)ENTRY << q->l2_bits;
}

static uint32_t page_bytes(const struct qcow *q)
{
    return (uint32_t)MIN(MIN(cluster_bytes(q), l2_bytes(q)), PAGE_MAX);
}

/* Guest bytes that one L2 table maps: bits. */
static unsigned l2_shift(const struct qcow *q)
{
    return q->cluster_bits + q->l2_bits;
}

/* ---- opening ---- */

static int qcow_flush(struct node *node);

static int clean(void *owner)
{
    return qcow_flush(owner);
}

static bool read_sizes(struct node *node, struct qcow *q, const uint8_t *h, GError **error)
{
    uint32_t crypt = be32_at(h + 36);
    node->size = be64_at(h + 24);
    q->cluster_bits = h[32];
    q->l2_bits = h[33];
    if (node->size <= 1) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Image size %" PRIu64 " is too small (must be at least 2 bytes)", node->size);
    } else if (q->cluster_bits < CLUSTER_BITS_MIN || q->cluster_bits > CLUSTER_BITS_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Cluster size 2^%u must be between 512 and 64k",
                    q->cluster_bits);
    } else if (q->l2_bits < L2_BITS_MIN || q->l2_bits > L2_BITS_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "L2 table size 2^%u must be between 2^%d and 2^%d",
                    q->l2_bits, L2_BITS_MIN, L2_BITS_MAX);
    } else if (crypt > CRYPT_AES) {
        g_set_error(error, LODGE_ERROR, EINVAL, "invalid encryption method %u in qcow header",
                    crypt);
    } else if (node->size > INT64_MAX - (UINT64_C(1) << l2_shift(q)) ||
               (node->size >> l2_shift(q)) > INT32_MAX / ENTRY) {
        g_set_error(error, LODGE_ERROR, EFBIG, "Image size %" PRIu64 " is too large", node->size);
    } else {
        q->crypt = (enum crypt)crypt;
        node->size &= ~(uint64_t)(SECTOR - 1); /* whole sectors only, as QEMU has it */
        return true;
    }
    return false;
}

/* The L1 table must be there, so what a header says costs no more than the file does. */
static bool read_l1_place(const struct node *node, struct qcow *q, const uint8_t *h,
                          GError **error)
{
    uint64_t per_entry = UINT64_C(1) << l2_shift(q), file = file_size(node->file);
    q->l1_at = be64_at(h + 40);
    q->l1_entries = (node->size + per_entry - 1) / per_entry;
    if (q->l1_at % ENTRY) {
        g_set_error(error, LODGE_ERROR, EINVAL, "L1 table offset %" PRIu64 " is not aligned",
                    q->l1_at);
        return false;
    }
    if (q->l1_at < HEADER || q->l1_at > file || q->l1_entries * ENTRY > file - q->l1_at) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "L1 table of %" PRIu64 " entries at byte %" PRIu64
                    " does not lie inside the file of %" PRIu64 " bytes",
                    q->l1_entries, q->l1_at, file);
        return false;
    }
    return true;
}

static bool read_backing_name(struct node *node, const uint8_t *h, GError **error)
{
    uint64_t at = be64_at(h + 8);
    uint32_t n = be32_at(h + 16);
    if (!at) {
        return true;
    }
    if (n > NAME_MAX_BYTES) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Backing file name of %u bytes is too long", n);
        return false;
    }
    char name[NAME_MAX_BYTES + 1] = {0};
    int r = file_read(node->file, at, name, n);
    if (r < 0) {
        error_set_errno(error, -r, "Could not read the backing file name at byte %" PRIu64, at);
        return false;
    }
    if (memchr(name, 0, n)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Backing file name contains a zero byte");
        return false;
    }
    node->backing_name = n ? g_strdup(name) : NULL;
    return true;
}

/* Of versions 1 and 2 "aes": the passphrase itself is the key, cut or filled with zeroes. */
static struct cipher *aes_cipher(const char *secret, GError **error)
{
    uint8_t key[KEY] = {0};
    size_t n;
    uint8_t *pass = secret_get(secret, &n, error);
    if (!pass) {
        return NULL;
    }
    memcpy(key, pass, MIN(n, KEY));
    secret_free(pass, n);
    struct cipher *c = cipher_new("aes", "cbc", "plain64", NULL, key, KEY, error);
    explicit_bzero(key, sizeof(key));
    return c;
}

static bool open_cipher(struct node *node, struct qcow *q, unsigned flags, GError **error)
{
    if (q->crypt == CRYPT_NONE || (flags & OPEN_NO_IO)) {
        return true;
    }
    const char *secret = json_text(json_object_get(node->options, "encrypt"), "key-secret");
    if (!secret) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Parameter 'encrypt.key-secret' is required for cipher");
        return false;
    }
    q->cipher = node->cipher = aes_cipher(secret, error);
    node->align = SECTOR;
    return q->cipher;
}

static bool qcow_open(struct node *node, unsigned flags, GError **error)
{
    uint8_t h[HEADER];
    int r = file_read(node->file, 0, h, sizeof(h));
    if (r < 0 || memcmp(h, "QFI\xfb", 4)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Image is not in qcow format");
        return false;
    }
    if (be32_at(h + 4) != 1) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unsupported qcow version %u", be32_at(h + 4));
        return false;
    }
    struct qcow *q = g_new0(struct qcow, 1);
    q->node = node;
    node->priv = q;
    if (!read_sizes(node, q, h, error) || !read_l1_place(node, q, h, error) ||
        !read_backing_name(node, h, error) || !open_cipher(node, q, flags, error)) {
        return false;
    }
    q->l1 = tables_new(node->file, SECTOR, clean, node);
    q->l2 = tables_new(node->file, page_bytes(q), clean, node);
    q->end = file_size(node->file);
    node->granule = cluster_bytes(q);
    node->codec = &codec_deflate;
    return true;
}

static void qcow_close(struct node *node)
{
    struct qcow *q = node->priv;
    if (!q) {
        return;
    }
    if (q->l1 && q->l2 && !node->read_only) {
        qcow_flush(node);
    }
    tables_free(q->l1);
    tables_free(q->l2);
    cipher_free(q->cipher);
    g_free(q);
    node->priv = NULL;
    node->cipher = NULL;
}

/* ---- tables ---- */

/* Where the L2 table for @offset lies; 0: there is none. */
static int find_l2(struct qcow *q, uint64_t offset, bool wait, uint64_t *l2_at)
{
    uint8_t *p;
    int r = tables_at(q->l1, q->l1_at + (offset >> l2_shift(q)) * ENTRY, wait, &p);
    *l2_at = r == 0 ? be64_at(p) : 0;
    return r == 0 && *l2_at % SECTOR ? -EIO : r;
}

static uint64_t entry_at(const struct qcow *q, uint64_t l2_at, uint64_t offset)
{
    return l2_at + (offset >> q->cluster_bits) % (UINT64_C(1) << q->l2_bits) * ENTRY;
}

static uint64_t take(struct qcow *q, uint64_t n, uint32_t align)
{
    uint64_t at = (q->end + align - 1) & ~(uint64_t)(align - 1);
    q->end = at + n;
    return at;
}

/* The file may be shorter than what was taken when its last cluster was not filled. */
static int find_or_make_l2(struct qcow *q, uint64_t offset, uint64_t *l2_at)
{
    uint8_t *p;
    int r = find_l2(q, offset, true, l2_at);
    if (r < 0 || *l2_at) {
        return r;
    }
    uint64_t at = take(q, l2_bytes(q), cluster_bytes(q));
    r = file_zero(q->node->file, at, l2_bytes(q), false);
    uint64_t l1_entry = q->l1_at + (offset >> l2_shift(q)) * ENTRY;
    if (r == 0) {
        r = tables_at(q->l1, l1_entry, true, &p);
    }
    if (r == 0) {
        be64_put(p, at);
        tables_changed(q->l1, l1_entry, ENTRY);
        *l2_at = at;
    }
    return r;
}

/* First the data, then what points at it, from the bottom up. */
static int qcow_flush(struct node *node)
{
    struct qcow *q = node->priv;
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

/* What one entry says about the cluster at guest offset @start. */
static int decode_entry(const struct qcow *q, uint64_t entry, uint64_t start, struct extent *out)
{
    unsigned shift = 63 - q->cluster_bits;
    if (!entry) {
        out->kind = EXTENT_ABSENT;
    } else if (entry & packed_flag) {
        out->kind = EXTENT_PACKED;
        out->at = entry & ((UINT64_C(1) << shift) - 1);
        out->stored = (uint32_t)(entry >> shift) & (cluster_bytes(q) - 1);
        out->codec = &codec_deflate;
        out->unit = cluster_bytes(q);
        out->start = start;
    } else {
        out->kind = EXTENT_DATA;
        out->at = entry;
        out->in_place = true;
    }
    return out->kind == EXTENT_DATA && entry % SECTOR ? -EIO : 0;
}

/* Whether @entry goes on where @first, @n bytes long so far, ends. */
static bool continues(const struct extent *first, uint64_t n, uint64_t entry)
{
    return first->kind == EXTENT_ABSENT ? !entry
                                        : first->kind == EXTENT_DATA && entry == first->at + n;
}

/* Bytes from the cluster of the entry at @at on that its page and table answer like @first. */
static uint64_t run_length(const struct qcow *q, const uint8_t *p, uint64_t at, uint64_t l2_at,
                           const struct extent *first, uint64_t most)
{
    uint64_t in_page = page_bytes(q) - at % page_bytes(q), in_table = l2_at + l2_bytes(q) - at;
    uint64_t left = MIN(in_page, in_table) / ENTRY, n = cluster_bytes(q);
    for (uint64_t i = 1; i < left && n < most && continues(first, n, be64_at(p + i * ENTRY)); i++) {
        n += cluster_bytes(q);
    }
    return n;
}

static int qcow_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                    struct extent *out)
{
    struct qcow *q = node->priv;
    uint64_t l2_at, in = offset & (cluster_bytes(q) - 1), start = offset - in;
    uint8_t *p;
    *out = (struct extent){.kind = EXTENT_ABSENT};
    int r = find_l2(q, offset, wait, &l2_at);
    if (r < 0 || !l2_at) {
        uint64_t to = UINT64_C(1) << l2_shift(q);
        out->length = MIN(length, to - (offset & (to - 1)));
        return r;
    }
    uint64_t at = entry_at(q, l2_at, offset);
    r = tables_at(q->l2, at, wait, &p);
    if (r < 0) {
        return r;
    }
    r = decode_entry(q, be64_at(p), start, out);
    out->length = MIN(length, run_length(q, p, at, l2_at, out, in + length) - in);
    out->tweak = offset;
    if (out->kind == EXTENT_DATA) {
        out->at += in;
    }
    return r;
}

static int qcow_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    struct qcow *q = node->priv;
    uint64_t l2_at;
    int r = qcow_map(node, offset, length, true, out);
    if (r < 0 || out->kind == EXTENT_DATA) {
        return r;
    }
    r = find_or_make_l2(q, offset, &l2_at); /* now, so that link() cannot lack space */
    if (r < 0) {
        return r;
    }
    uint64_t n = (out->length + cluster_bytes(q) - 1) & ~(uint64_t)(cluster_bytes(q) - 1);
    *out = (struct extent){.kind = EXTENT_DATA, .length = out->length, .tweak = offset,
                           .at = take(q, n, cluster_bytes(q)), .fresh = true};
    return 0;
}

/* Ciphertext cannot be told from packed data: such images take none. */
static int qcow_place_packed(struct node *node, uint64_t offset, uint32_t stored,
                             struct extent *out)
{
    struct qcow *q = node->priv;
    uint64_t l2_at;
    if (q->crypt != CRYPT_NONE) {
        return -ENOTSUP;
    }
    if (stored >= cluster_bytes(q)) {
        return -E2BIG;
    }
    int r = find_or_make_l2(q, offset, &l2_at);
    if (r < 0) {
        return r;
    }
    *out = (struct extent){.kind = EXTENT_PACKED, .length = cluster_bytes(q), .stored = stored,
                           .at = take(q, stored, 1), .codec = &codec_deflate, .fresh = true,
                           .unit = cluster_bytes(q), .start = offset};
    return 0;
}

static int put_entry(struct qcow *q, uint64_t offset, uint64_t entry)
{
    uint64_t l2_at;
    uint8_t *p;
    int r = find_l2(q, offset, true, &l2_at);
    uint64_t at = entry_at(q, l2_at, offset);
    if (r == 0) {
        r = tables_at(q->l2, at, true, &p);
    }
    if (r == 0) {
        be64_put(p, entry);
        tables_changed(q->l2, at, ENTRY);
    }
    return r;
}

static int qcow_link(struct node *node, uint64_t offset, const struct extent *placed)
{
    struct qcow *q = node->priv;
    if (placed->kind == EXTENT_PACKED) {
        return put_entry(q, offset, packed_flag | placed->at |
                                        (uint64_t)placed->stored << (63 - q->cluster_bits));
    }
    int r = 0;
    for (uint64_t n = 0; r == 0 && n < placed->length; n += cluster_bytes(q)) {
        r = put_entry(q, offset + n, placed->at + n);
    }
    return r;
}

/* Only the end of the file can be given back. */
static void qcow_unplace(struct node *node, uint64_t offset, const struct extent *placed)
{
    struct qcow *q = node->priv;
    (void)offset;
    uint64_t n = placed->kind == EXTENT_PACKED
                     ? placed->stored
                     : (placed->length + cluster_bytes(q) - 1) & ~(uint64_t)(cluster_bytes(q) - 1);
    if (q->end == placed->at + n) {
        q->end = placed->at;
    }
}

static int make_empty(struct qcow *q)
{
    uint64_t bytes = q->l1_entries * ENTRY;
    int r = tables_empty(q->l1, q->l2, q->l1_at, bytes);
    q->end = r ? q->end : q->l1_at + bytes;
    return r;
}

/* The format has no zero clusters: without a backing file absent is zero. */
static int qcow_zero(struct node *node, uint64_t offset, uint64_t length, enum zero_kind kind)
{
    struct qcow *q = node->priv;
    int r = 0;
    if (kind == ZERO_ABSENT) {
        return offset || length < node->size ? -ENOTSUP : make_empty(q);
    }
    while (r == 0 && length) {
        struct extent e;
        r = qcow_map(node, offset, length, true, &e);
        if (r == 0 && e.kind == EXTENT_ABSENT) {
            r = node->backing ? -ENOTSUP : 0;
        } else if (r == 0) {
            r = e.kind == EXTENT_PACKED || q->cipher
                    ? -ENOTSUP
                    : file_zero(node->file, e.at, e.length, kind != ZERO_KEEP);
        }
        offset += e.length;
        length -= e.length;
    }
    return r;
}

/* ---- whole images ---- */

static const struct option_desc create_options[] = {
    {"backing_file", "str", "File name of a base image", NULL},
    {"backing_fmt", "str", "Must match the backing file's format", NULL},
    {"encryption", "bool (on/off)", "Encrypt the image with format 'aes'", NULL},
    {"encrypt.format", "str", "Encrypt the image: aes", NULL},
    {"encrypt.key-secret", "str", "ID of the secret with the passphrase", NULL},
    {0},
};

static bool choose_crypt(const struct options *o, enum crypt *out, GError **error)
{
    const char *format = option_str(o, "encrypt.format");
    bool aes = format ? !strcmp(format, "aes") : option_bool(o, "encryption", false);
    *out = aes ? CRYPT_AES : CRYPT_NONE;
    if (format && !aes) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Unknown encryption format %s", format);
        return false;
    }
    const char *secret = option_str(o, "encrypt.key-secret");
    if (aes && !secret) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Parameter 'encrypt.key-secret' is required for cipher");
        return false;
    }
    struct cipher *c = aes ? aes_cipher(secret, error) : NULL; /* is the secret there? */
    cipher_free(c);
    return !aes || c;
}

static void encode_header(uint8_t *h, const struct image_create *how, uint64_t size,
                          unsigned cluster_bits, unsigned l2_bits, enum crypt crypt,
                          uint64_t l1_at)
{
    size_t name = how->backing_name ? strlen(how->backing_name) : 0;
    memcpy(h, "QFI\xfb", 4);
    be32_put(h + 4, 1);
    be64_put(h + 8, name ? HEADER : 0);
    be32_put(h + 16, (uint32_t)name);
    be64_put(h + 24, size);
    h[32] = (uint8_t)cluster_bits;
    h[33] = (uint8_t)l2_bits;
    be32_put(h + 36, crypt);
    be64_put(h + 40, l1_at);
    memcpy(h + HEADER, how->backing_name ? how->backing_name : "", name);
}

static bool qcow_create(const struct image_create *how, GError **error)
{
    uint8_t h[HEADER + NAME_MAX_BYTES + ENTRY] = {0};
    size_t name = how->backing_name ? strlen(how->backing_name) : 0;
    enum crypt crypt;
    /* With a backing file small clusters, so that little is copied; 2 MiB a table either way. */
    unsigned cluster_bits = name ? 9 : 12, l2_bits = name ? 12 : 9;
    uint64_t l1_at = (HEADER + name + ENTRY - 1) & ~(uint64_t)(ENTRY - 1);
    if (how->size <= 1 || how->size >> (cluster_bits + l2_bits) > INT32_MAX / ENTRY) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Image size %" PRIu64 " is too %s", how->size,
                    how->size <= 1 ? "small, cannot be zero length" : "large for qcow");
        return false;
    }
    if (name > NAME_MAX_BYTES) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Backing file name of %zu bytes is too long", name);
        return false;
    }
    if (!choose_crypt(how->options, &crypt, error)) {
        return false;
    }
    uint64_t size = (how->size + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    encode_header(h, how, size, cluster_bits, l2_bits, crypt, l1_at);
    uint64_t l1 = ((size - 1) >> (cluster_bits + l2_bits)) + 1;
    int r = file_write(how->file, 0, h, l1_at);
    r = r ? r : file_zero(how->file, l1_at, l1 * ENTRY, false);
    if (r < 0) {
        error_set_errno(error, -r, "Cannot write the header");
    }
    return r == 0;
}

static void qcow_describe(struct node *node, json_t *data)
{
    const struct qcow *q = node->priv;
    if (q->crypt != CRYPT_NONE) {
        json_object_set_new(data, "encrypted", json_true());
    }
}

static uint32_t qcow_cluster_size(struct node *node)
{
    return cluster_bytes(node->priv);
}

static const struct format_tools qcow_tools = {
    .create_options = create_options,
    .create = qcow_create,
    .describe = qcow_describe,
    .cluster_size = qcow_cluster_size,
    .dirty_flag = true,
};

static const char *const open_options[] = {"encrypt", NULL};

const struct image_format format_qcow = {
    .open_options = open_options,
    .name = "qcow",
    .about = "QEMU copy-on-write, version 1",
    .spec = "Mark McLoughlin, The QCOW Image Format",
    .probe = qcow_probe,
    .open = qcow_open,
    .close = qcow_close,
    .map = qcow_map,
    .place = qcow_place,
    .link = qcow_link,
    .unplace = qcow_unplace,
    .zero = qcow_zero,
    .place_packed = qcow_place_packed,
    .flush = qcow_flush,
    .tools = &qcow_tools,
};
