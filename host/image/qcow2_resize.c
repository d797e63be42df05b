/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_resize: more or fewer guest bytes, and L1 tables that move for them.  Spec: QEMU,
 * "docs/interop/qcow2.txt", sections "Header" and "Cluster mapping".
 */
#include "host/image/chain.h"
#include "host/image/qcow2.h"

#include <string.h>

/* One sector of the header says where the table is and how large the disk: all or nothing. */
int qcow2_l1_replace(struct qcow2 *q, struct whole_table *fresh)
{
    struct qcow2_header was = q->h;
    int r = whole_table_write(fresh, q->file);
    r = r ? r : file_flush(q->file);
    if (r) {
        return r;
    }
    q->h.l1_at = fresh->at;
    q->h.l1_entries = (uint32_t)(fresh->n / 8);
    r = qcow2_header_put(q);
    r = r ? r : file_flush(q->file);
    if (r) {
        q->h = was;
        return r;
    }
    q->l1 = *fresh;
    return 0;
}

int qcow2_l1_grow(struct qcow2 *q, uint64_t entries)
{
    struct whole_table fresh, old;
    uint64_t at, old_bytes = 8ull * q->h.l1_entries;
    if (entries <= q->h.l1_entries) {
        return 0;
    }
    if (8 * entries > QCOW2_L1_MAX) {
        return -EFBIG;
    }
    int r = qcow2_settle(q); /* what the old table still has to learn it learns here */
    r = r ? r : qcow2_alloc_table(q, 8 * entries, &at);
    r = r ? r : whole_table_blank(&fresh, at, 8 * entries);
    if (r) {
        return r;
    }
    memcpy(fresh.bytes, q->l1.bytes, old_bytes);
    old = q->l1;
    r = qcow2_settle(q); /* the new clusters count before the header names them */
    r = r ? r : qcow2_l1_replace(q, &fresh);
    if (r) {
        whole_table_free(&fresh);
        return r;
    }
    r = old_bytes ? qcow2_free_later(q, old.at, old_bytes) : 0;
    whole_table_free(&old);
    return r;
}

/* ---- growing ---- */

/* Takes space for the guest bytes from @from on: entries that name it, and the space itself. */
static int prealloc(struct qcow2 *q, uint64_t from, uint64_t to, enum preallocation how,
                    GError **error)
{
    uint64_t at = from & ~(uint64_t)(q->cluster - 1);
    while (at < to) {
        struct extent e;
        uint64_t part = MIN(to - at, 1ull << 30);
        int r = qcow2_place(q->node, at, part, &e);
        bool ok = r == 0;
        if (ok && how != PREALLOC_METADATA) {
            ok = file_preallocate(q->data, e.at, e.at + e.length, how, error);
        } else if (ok && file_size(q->data) < e.at + q->cluster) {
            r = file_resize(q->data,
                            (e.at + e.length + q->cluster - 1) & ~(uint64_t)(q->cluster - 1));
        }
        if (ok && !r && e.fresh) {
            r = qcow2_link(q->node, at, &e);
        }
        if (r || !ok) {
            if (e.fresh) {
                qcow2_unplace(q->node, at, &e);
            }
            return r ? r : -EIO;
        }
        at += e.length;
    }
    return 0;
}

static int set_size(struct qcow2 *q, uint64_t size)
{
    uint64_t was = q->h.size;
    int r = qcow2_settle(q);
    q->h.size = size;
    r = r ? r : qcow2_header_put(q);
    r = r ? r : file_flush(q->file);
    if (r) {
        q->h.size = was;
    }
    q->node->size = q->h.size;
    return r;
}

/* What the new bytes would show of the last cluster's old content, or of a longer backing file. */
static int zero_tail(struct qcow2 *q, uint64_t was, uint64_t size)
{
    struct node *node = q->node;
    uint64_t end = was, last = (was + q->cluster - 1) & ~(uint64_t)(q->cluster - 1);
    int r = 0;
    for (uint64_t at = was; at < last && !r;) {
        struct extent e;
        r = qcow2_map(node, at, last - at, true, &e);
        at += r ? 0 : e.length;
        end = !r && e.kind != EXTENT_ABSENT && e.kind != EXTENT_ZERO ? MIN(last, size) : end;
    }
    if (node->backing && node->backing->size > was) {
        end = MAX(end, MIN(size, node->backing->size));
    }
    return r || end == was ? r : chain_zero(node, was, end - was, ZERO_KEEP);
}

static bool grow(struct qcow2 *q, uint64_t size, enum preallocation how, GError **error)
{
    uint64_t was = q->h.size;
    int r = qcow2_l1_grow(q, qcow2_l1_entries_for(q, size));
    if (!r && q->data_own && file_size(q->data) < size) {
        r = file_resize(q->data, size);
    }
    r = r ? r : set_size(q, size);
    r = r ? r : zero_tail(q, was, size);
    enum preallocation really = how == PREALLOC_OFF && q->raw_data ? PREALLOC_METADATA : how;
    if (!r && really != PREALLOC_OFF) {
        GError *why = NULL;
        r = prealloc(q, was, size, really, &why);
        if (why) {
            g_propagate_error(error, why);
            return false;
        }
        r = r ? r : qcow2_settle(q);
    }
    if (r) {
        error_set_errno(error, -r, "Could not grow the image");
    }
    return r == 0;
}

/* ---- shrinking ---- */

/* L2 tables behind the new end go, then the end of the file that nothing uses. */
static int drop_tables(struct qcow2 *q, uint64_t size)
{
    uint64_t keep = qcow2_l1_entries_for(q, size);
    for (uint64_t i = keep; i < q->h.l1_entries; i++) {
        uint64_t at = qcow2_l1_get(q, i) & QCOW2_OFFSET;
        if (at) {
            whole_table_put64(&q->l1, i, 0);
            int r = qcow2_free_later(q, at, q->cluster);
            if (r) {
                return r;
            }
        }
    }
    return 0;
}

static int cut_file(struct qcow2 *q)
{
    uint64_t clusters = qcow2_clusters(q, file_size(q->file));
    int r = 0;
    while (clusters > 1 && !r) {
        uint64_t count = qcow2_ref(q, clusters - 1, &r);
        if (r || count) {
            break;
        }
        clusters--;
    }
    if (!r && clusters << q->h.cluster_bits < file_size(q->file)) {
        r = file_resize(q->file, clusters << q->h.cluster_bits);
    }
    return r;
}

static bool shrink(struct qcow2 *q, uint64_t size, GError **error)
{
    uint64_t from = (size + q->cluster - 1) & ~(uint64_t)(q->cluster - 1);
    int r = from < q->h.size ? qcow2_zero(q->node, from, q->h.size - from, ZERO_ABSENT) : 0;
    r = r ? r : drop_tables(q, size);
    r = r ? r : qcow2_settle(q);
    r = r ? r : set_size(q, size);
    r = r ? r : qcow2_settle(q);
    if (!r) {
        r = q->data_own ? file_resize(q->data, size) : cut_file(q);
    }
    if (r) {
        error_set_errno(error, -r, "Could not shrink the image");
    }
    return r == 0;
}

bool qcow2_resize(struct node *node, uint64_t size, enum preallocation how, GError **error)
{
    struct qcow2 *q = qcow2_of(node);
    if (size % 512) {
        g_set_error(error, LODGE_ERROR, EINVAL, "The new size must be a multiple of 512");
        return false;
    }
    if (q->h.n_snapshots && q->h.version < 3) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Can't resize a v2 image which has snapshots");
        return false;
    }
    if (q->corrupt) {
        g_set_error(error, LODGE_ERROR, EIO, "Image is corrupt");
        return false;
    }
    if (size > (uint64_t)INT64_MAX - q->cluster ||
        qcow2_l1_entries_for(q, size) > QCOW2_L1_MAX / 8) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "The image size is too large for file format "
                    "'qcow2' (try using a larger cluster size)");
        return false;
    }
    if (size < q->h.size && how != PREALLOC_OFF) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Preallocation can't be used for shrinking an "
                    "image");
        return false;
    }
    if (size == q->h.size) {
        return true;
    }
    int r = qcow2_bitmaps_hold(q);
    bool ok = r == 0 && (size > q->h.size ? grow(q, size, how, error) : shrink(q, size, error));
    int stored = qcow2_bitmaps_store(q);
    if ((r || stored) && (ok || r)) {
        error_set_errno(error, -(r ? r : stored), "Could not resize the bitmaps");
        return false;
    }
    return ok;
}
