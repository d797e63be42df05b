/* SPDX-License-Identifier: GPL-2.0-or-later */

/* qcow2_amend: other options for an image that exists.  Spec: QEMU, "docs/interop/qcow2.txt". */
#include "host/image/chain.h"
#include "host/image/options.h"
#include "host/image/qcow2.h"

#include <inttypes.h>
#include <string.h>

const struct option_desc qcow2_amend_options[] = {
    {"backing_file", "str", "File name of a base image", NULL},
    {"backing_fmt", "str", "Image format of the base image", NULL},
    {"compat", "str", "Compatibility level (v2 [0.10] or v3 [1.1])", NULL},
    {"data_file", "str", "File name of an external data file", NULL},
    {"data_file_raw", "bool (on/off)", "The external data file must stay valid as a raw image",
     NULL},
    {"encrypt.iter-time", "num", "Time to spend in PBKDF in milliseconds", NULL},
    {"encrypt.keyslot", "num", "Select a single keyslot to modify explicitly", NULL},
    {"encrypt.new-secret", "str",
     "New secret to set in the matching keyslots. Empty string to erase", NULL},
    {"encrypt.old-secret", "str", "Select all keyslots that match this password", NULL},
    {"encrypt.state", "str", "Select new state of affected keyslots (active/inactive)", NULL},
    {"lazy_refcounts", "bool (on/off)", "Postpone refcount updates", NULL},
    {"refcount_bits", "num", "Width of a reference count entry in bits", NULL},
    {"size", "size", "Virtual disk size", NULL},
    {0},
};

struct wish { /* what is asked for, checked */
    uint32_t version;
    unsigned order;
    bool lazy, data_raw;
};

static bool bad(GError **error, const char *text)
{
    g_set_error(error, LODGE_ERROR, EINVAL, "%s", text);
    return false;
}

static bool failed(GError **error, int r, const char *what)
{
    if (r) {
        error_set_errno(error, -r, "%s", what);
    }
    return r == 0;
}

static bool read_wish(const struct qcow2 *q, const struct options *o, struct wish *w,
                      GError **error)
{
    const char *compat = option_str(o, "compat");
    uint64_t bits = option_num(o, "refcount_bits", 1ull << q->h.refcount_order);
    *w = (struct wish){
        .version = q->h.version,
        .lazy = option_bool(o, "lazy_refcounts", q->h.compatible & COMPAT_LAZY_REFCOUNTS),
        .data_raw = option_bool(o, "data_file_raw", q->raw_data)};
    if (compat && (!strcmp(compat, "0.10") || !strcmp(compat, "v2"))) {
        w->version = 2;
    } else if (compat && (!strcmp(compat, "1.1") || !strcmp(compat, "v3"))) {
        w->version = 3;
    } else if (compat) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Unknown compatibility level %s", compat);
        return false;
    }
    if (bits < 1 || bits > 64 || bits & (bits - 1)) {
        return bad(error, "Refcount width must be a power of two and may not exceed 64 bits");
    }
    w->order = (unsigned)__builtin_ctzll(bits);
    if (option_given(o, "data_file") && !(q->h.incompatible & INCOMPAT_DATA_FILE)) {
        return bad(error, "data-file can only be set for images that use an external data file");
    }
    if (w->data_raw && !q->raw_data) {
        return bad(error, "data-file-raw cannot be set on existing images");
    }
    if (w->version < 3 && w->order != 4) {
        return bad(error, "Refcount widths other than 16 bits require compatibility level 1.1 or "
                          "above (use compat=1.1 or greater)");
    }
    if (w->version < 3 && w->lazy && option_given(o, "lazy_refcounts")) {
        return bad(error, "Lazy refcounts only supported with compatibility level 1.1 and above "
                          "(use compat=1.1 or greater)");
    }
    return true;
}

/* ---- refcount width ---- */

static bool change_width(struct qcow2 *q, unsigned order, GError **error)
{
    struct check_result res = {0};
    struct qcow2_counting c = {.q = q, .out = &res, .file_n = 0};
    int r = qcow2_settle(q);
    r = r ? r : qcow2_settle(q); /* with what the first one gave back */
    c.file_n = file_size(q->file);
    if (r) {
        return failed(error, r, "Could not write the tables");
    }
    if (!qcow2_counts_init(&c.counts, qcow2_clusters(q, c.file_n) + 1, error)) {
        return false;
    }
    qcow2_count(&c);
    if (c.failed || res.corruptions) {
        r = -EIO;
        bad(error, "Image is corrupt; repair it before changing the refcount width");
    } else {
        r = qcow2_refs_rebuild(q, &c.counts, order);
        if (r == -EOVERFLOW) {
            g_set_error(error, LODGE_ERROR, EOVERFLOW,
                        "Cannot decrease refcount entry width to %u "
                        "bits: a cluster has more references",
                        1u << order);
        } else {
            failed(error, r, "Could not write the new refcounts");
        }
    }
    qcow2_counts_free(&c.counts);
    return r == 0;
}

/* ---- back to version 2 ---- */

static bool may_downgrade(const struct qcow2 *q, GError **error)
{
    if (q->h.refcount_order != 4) {
        return bad(error, "Cannot downgrade an image with refcount widths other than 16 bits");
    }
    if (q->h.incompatible & INCOMPAT_DATA_FILE) {
        return bad(error, "Cannot downgrade an image with a data file");
    }
    if (q->h.incompatible & ~(uint64_t)INCOMPAT_DIRTY) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "Cannot downgrade an image with incompatible "
                    "features set: 0x%" PRIx64,
                    q->h.incompatible);
        return false;
    }
    if (q->h.n_bitmaps) {
        return bad(error, "Cannot downgrade an image with persistent bitmaps");
    }
    for (uint32_t i = 0; i < q->h.n_snapshots; i++) {
        if (q->snapshots[i].shown.disk_size != q->h.size || q->snapshots[i].shown.vm_state_size) {
            return bad(error, "Internal snapshots prevent downgrade of image");
        }
    }
    return true;
}

static int snapshot_has_zero(struct qcow2 *q, const struct qcow2_snapshot *s, bool *has)
{
    struct whole_table l1;
    int r = whole_table_read(&l1, q->file, s->l1_at, 8ull * s->l1_entries);
    g_autofree uint8_t *bytes = g_malloc(q->cluster);
    for (uint64_t i = 0; i < s->l1_entries && !r; i++) {
        uint64_t at = be64_at(l1.bytes + 8 * i) & QCOW2_OFFSET;
        r = at ? file_read(q->file, at, bytes, q->cluster) : 0;
        for (uint32_t k = 0; at && !r && k < q->cluster; k += 8) {
            uint64_t e = be64_at(bytes + k);
            *has |= e & QCOW2_ZERO && !(e & QCOW2_COMPRESSED);
        }
    }
    if (!r) {
        whole_table_free(&l1);
    }
    return r;
}

/* Version 2 cannot say "zero": such clusters go, or get real zeroes above a backing file. */
static int expand_zeroes(struct qcow2 *q)
{
    struct node *node = q->node;
    uint64_t at = 0;
    int r = 0;
    while (at < node->size && !r) {
        struct extent e;
        r = qcow2_map(node, at, node->size - at, true, &e);
        uint64_t n = r ? 0 : (e.length + q->cluster - 1) & ~(uint64_t)(q->cluster - 1);
        if (!r && e.kind == EXTENT_ZERO && node->backing_name) {
            struct extent to;
            uint64_t end = at + n;
            while (at < end && !r) {
                r = qcow2_place(node, at, end - at, &to);
                r = r ? r : file_zero(q->data, to.at, to.length, false);
                r = r || !to.fresh ? r : qcow2_link(node, at, &to);
                at += to.length;
            }
            continue;
        }
        if (!r && e.kind == EXTENT_ZERO) {
            r = qcow2_zero(node, at, e.length, ZERO_ABSENT);
        }
        at += n;
    }
    return r;
}

static bool downgrade(struct qcow2 *q, GError **error)
{
    bool zero = false;
    int r = 0;
    if (!may_downgrade(q, error)) {
        return false;
    }
    for (uint32_t i = 0; i < q->h.n_snapshots && !r; i++) {
        r = snapshot_has_zero(q, &q->snapshots[i], &zero);
    }
    if (zero) {
        return bad(error, "Cannot downgrade an image whose snapshots have zero clusters");
    }
    r = r ? r : expand_zeroes(q);
    q->lazy = false;
    r = r ? r : qcow2_settle(q);
    r = r ? r : qcow2_settle(q);
    r = r ? r : qcow2_mark(q, INCOMPAT_DIRTY, false);
    if (!failed(error, r, "Could not expand zero clusters")) {
        return false;
    }
    q->h.version = 2;
    q->h.compatible = q->h.autoclear = 0;
    return qcow2_header_write(q, error);
}

/* ---- the rest ---- */

static bool change_lazy(struct qcow2 *q, bool lazy, GError **error)
{
    if (lazy == !!(q->h.compatible & COMPAT_LAZY_REFCOUNTS)) {
        return true;
    }
    q->lazy = false;
    int r = qcow2_settle(q);
    r = r ? r : file_flush(q->file);
    r = r ? r : qcow2_mark(q, INCOMPAT_DIRTY, false);
    if (!r) {
        q->h.compatible ^= COMPAT_LAZY_REFCOUNTS;
        q->lazy = lazy;
        r = qcow2_header_put(q);
    }
    return failed(error, r, "Could not change lazy_refcounts");
}

static bool change_key(struct qcow2 *q, const struct options *o, bool force, GError **error)
{
    const char *state = option_str(o, "encrypt.state");
    if (!state && !option_given(o, "encrypt.new-secret") && !option_given(o, "encrypt.keyslot") &&
        !option_given(o, "encrypt.old-secret") && !option_given(o, "encrypt.iter-time")) {
        return true;
    }
    if (!q->luks) {
        return bad(error, "Only LUKS encryption options can be amended for qcow2 with amend");
    }
    struct luks_amend how;
    return luks_amend_of(o, "encrypt.", &how, error) && luks_amend(q->luks, &how, force, error);
}

static bool change_names(struct qcow2 *q, const struct options *o, bool raw, GError **error)
{
    const char *data = option_str(o, "data_file"), *backing = option_str(o, "backing_file");
    const char *format = option_str(o, "backing_fmt");
    if (data || raw != q->raw_data) {
        if (data) {
            g_free(q->data_name);
            q->data_name = *data ? g_strdup(data) : NULL;
        }
        if (!raw) {
            q->h.autoclear &= ~(uint64_t)AUTOCLEAR_RAW_DATA;
            q->raw_data = false;
        }
        if (!qcow2_header_write(q, error)) {
            return false;
        }
    }
    const struct node *n = q->node;
    if ((backing && g_strcmp0(backing, n->backing_name)) ||
        (format && g_strcmp0(format, n->backing_format))) {
        return bad(error, "Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.");
    }
    return true;
}

bool qcow2_set_backing(struct node *node, const char *name, const char *format, GError **error)
{
    struct qcow2 *q = qcow2_of(node);
    bool none = !name || !*name;
    if (!none && q->raw_data) {
        return bad(error, "Cannot set a backing file for images with data-file-raw=on");
    }
    if (!none && strlen(name) > QCOW2_NAME_MAX) {
        return bad(error, "Backing file name is longer than 1023 bytes");
    }
    char *was = node->backing_name, *was_format = node->backing_format;
    node->backing_name = none ? NULL : g_strdup(name);
    node->backing_format = none || !format || !*format ? NULL : g_strdup(format);
    if (!qcow2_header_write(q, error)) {
        g_free(node->backing_name);
        g_free(node->backing_format);
        node->backing_name = was;
        node->backing_format = was_format;
        return false;
    }
    g_free(was);
    g_free(was_format);
    return failed(error, file_flush(q->file), "Could not write the qcow2 header");
}

bool qcow2_amend(struct node *node, const struct options *o, bool force,
                 void (*progress)(void *owner, double part), void *owner, GError **error)
{
    struct qcow2 *q = qcow2_of(node);
    struct wish w;
    if (!read_wish(q, o, &w, error)) {
        return false;
    }
    if (w.version > q->h.version) {
        q->h.version = w.version;
        q->h.length = QCOW2_HEADER_OURS;
        /* Version 3 keeps the disk's size with each snapshot. */
        int r = q->h.n_snapshots ? qcow2_snapshots_write(q, q->snapshots, q->h.n_snapshots) : 0;
        if (!failed(error, r, "Could not write the snapshot table") ||
            !qcow2_header_write(q, error)) {
            return false;
        }
    }
    if (w.order != q->h.refcount_order && !change_width(q, w.order, error)) {
        return false;
    }
    if (progress) {
        progress(owner, 0.5);
    }
    if (!change_names(q, o, w.data_raw, error) ||
        (w.version >= 3 && !change_lazy(q, w.lazy, error)) || !change_key(q, o, force, error)) {
        return false;
    }
    uint64_t size = option_size(o, "size", q->h.size);
    if (size != q->h.size && !chain_resize(node, size, PREALLOC_OFF, error)) {
        return false;
    }
    if (w.version < q->h.version && !downgrade(q, error)) {
        return false;
    }
    if (progress) {
        progress(owner, 1);
    }
    return true;
}
