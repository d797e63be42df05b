/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_snapshot: states of the disk that share clusters with it.  Spec: QEMU,
 * "docs/interop/qcow2.txt", section "Snapshots".
 *
 * Making, applying and removing one changes counts and flags all over the file.  While that
 * goes on the dirty bit is set (version 3), so that whoever opens the file after a crash
 * counts again; the order of the writes makes the worst of it a leak.
 */
#include "host/image/qcow2_fork.h"

#include <string.h>

enum { ENTRY_FIXED = 40, EXTRA_KNOWN = 24, EXTRA_V3 = 16, ID_MAX = 128, NAME_MAX_BYTES = 256 };

static void snapshot_clear(struct qcow2_snapshot *s)
{
    g_free(s->shown.id);
    g_free(s->shown.name);
    g_free(s->unknown);
}

void qcow2_snapshots_free(struct qcow2 *q)
{
    for (uint32_t i = 0; q->snapshots && i < q->h.n_snapshots; i++) {
        snapshot_clear(&q->snapshots[i]);
    }
    g_clear_pointer(&q->snapshots, g_free);
}

/* ---- the table ---- */

static bool parse_extra(struct qcow2 *q, struct qcow2_snapshot *s, const uint8_t *p)
{
    if (s->extra_n >= 8) {
        s->shown.vm_state_size = be64_at(p);
    }
    s->shown.disk_size = s->extra_n >= 16 ? be64_at(p + 8) : q->h.size;
    s->shown.icount = s->extra_n >= 24 ? be64_at(p + 16) : UINT64_MAX;
    if (s->extra_n > EXTRA_KNOWN) {
        s->unknown_n = s->extra_n - EXTRA_KNOWN;
        s->unknown = g_memdup2(p + EXTRA_KNOWN, s->unknown_n);
    }
    return true;
}

/* One entry from file offset *@at, which moves behind it. */
static bool read_entry(struct qcow2 *q, uint32_t i, uint64_t *at, GError **error)
{
    struct qcow2_snapshot *s = &q->snapshots[i];
    uint8_t p[ENTRY_FIXED], rest[QCOW2_SNAPSHOT_EXTRA_MAX];
    int r = file_read(q->file, *at, p, sizeof(p));
    uint32_t id_n = be16_at(p + 12), name_n = be16_at(p + 14);
    if (r) {
        error_set_errno(error, -r, "Failed to read snapshot table entry %u", i);
        return false;
    }
    s->l1_at = be64_at(p);
    s->l1_entries = be32_at(p + 8);
    s->shown.date_sec = be32_at(p + 16);
    s->shown.date_nsec = be32_at(p + 20);
    s->shown.vm_clock_ns = be64_at(p + 24);
    s->shown.vm_state_size = be32_at(p + 32);
    s->extra_n = be32_at(p + 36);
    if (s->extra_n > QCOW2_SNAPSHOT_EXTRA_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Too much extra metadata in snapshot table entry %u: %u bytes", i, s->extra_n);
        return false;
    }
    r = file_read(q->file, *at + ENTRY_FIXED, rest, s->extra_n);
    s->shown.id = g_malloc0(id_n + 1);
    s->shown.name = g_malloc0(name_n + 1);
    uint64_t text = *at + ENTRY_FIXED + s->extra_n;
    r = r ? r : file_read(q->file, text, s->shown.id, id_n);
    r = r ? r : file_read(q->file, text + id_n, s->shown.name, name_n);
    if (r) {
        error_set_errno(error, -r, "Failed to read snapshot table entry %u", i);
        return false;
    }
    *at = (text + id_n + name_n + 7) & ~7ull;
    return parse_extra(q, s, rest);
}

bool qcow2_snapshots_read(struct qcow2 *q, GError **error)
{
    uint64_t at = q->h.snapshots_at, left = file_size(q->file);
    uint32_t n = q->h.n_snapshots;
    if (n == 0) {
        return true;
    }
    if (at > left || (uint64_t)n * ENTRY_FIXED > left - at) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Snapshot table of %u entries is behind the end "
                    "of the file",
                    n);
        return false;
    }
    q->snapshots = g_new0(struct qcow2_snapshot, n); /* the file holds as many */
    for (uint32_t i = 0; i < n; i++) {
        if (!read_entry(q, i, &at, error)) {
            return false;
        }
        if (at - q->h.snapshots_at > QCOW2_SNAPSHOT_TABLE_MAX) {
            g_set_error(error, LODGE_ERROR, EINVAL, "Snapshot table is too big: over %u bytes",
                        QCOW2_SNAPSHOT_TABLE_MAX);
            return false;
        }
    }
    return true;
}

/* As it is in the file; put_entry() writes all the extra data that we know. */
static uint64_t entry_bytes(const struct qcow2_snapshot *s)
{
    uint64_t n = ENTRY_FIXED + s->extra_n + strlen(s->shown.id) + strlen(s->shown.name);
    return (n + 7) & ~7ull;
}

uint64_t qcow2_snapshots_bytes(const struct qcow2_snapshot *all, uint32_t n)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        bytes += entry_bytes(&all[i]);
    }
    return bytes;
}

static void put_entry(uint8_t *p, const struct qcow2_snapshot *s)
{
    size_t id_n = strlen(s->shown.id), name_n = strlen(s->shown.name);
    bool large = s->shown.vm_state_size > UINT32_MAX;
    be64_put(p, s->l1_at);
    be32_put(p + 8, s->l1_entries);
    be16_put(p + 12, (uint16_t)id_n);
    be16_put(p + 14, (uint16_t)name_n);
    be32_put(p + 16, s->shown.date_sec);
    be32_put(p + 20, s->shown.date_nsec);
    be64_put(p + 24, s->shown.vm_clock_ns);
    be32_put(p + 32, large ? 0 : (uint32_t)s->shown.vm_state_size);
    be32_put(p + 36, EXTRA_KNOWN + s->unknown_n);
    be64_put(p + 40, s->shown.vm_state_size);
    be64_put(p + 48, s->shown.disk_size);
    be64_put(p + 56, s->shown.icount);
    p += ENTRY_FIXED + EXTRA_KNOWN;
    if (s->unknown_n) {
        memcpy(p, s->unknown, s->unknown_n);
    }
    memcpy(p + s->unknown_n, s->shown.id, id_n);
    memcpy(p + s->unknown_n + id_n, s->shown.name, name_n);
}

/* As they will be written: bytes of the list. */
static uint64_t complete(struct qcow2_snapshot *all, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        all[i].extra_n = EXTRA_KNOWN + all[i].unknown_n;
    }
    return qcow2_snapshots_bytes(all, n);
}

/* The table of @n snapshots at byte @at, for which there is room. */
static int write_list(struct qcow2 *q, const struct qcow2_snapshot *all, uint32_t n, uint64_t at)
{
    uint64_t bytes = qcow2_snapshots_bytes(all, n);
    g_autofree uint8_t *table = g_try_malloc0(bytes + 1);
    uint8_t *p = table;
    for (uint32_t i = 0; i < n && table; i++) {
        put_entry(p, &all[i]);
        p += entry_bytes(&all[i]);
    }
    return !table ? -ENOMEM : n ? file_write(q->file, at, table, bytes) : 0;
}

int qcow2_snapshots_write(struct qcow2 *q, struct qcow2_snapshot *all, uint32_t n)
{
    uint64_t old = qcow2_snapshots_bytes(q->snapshots, q->h.n_snapshots);
    uint64_t bytes = complete(all, n), at = 0, old_at = q->h.snapshots_at;
    if (bytes > QCOW2_SNAPSHOT_TABLE_MAX) {
        return -EFBIG;
    }
    int r = n ? qcow2_alloc_table(q, bytes, &at) : 0;
    r = r ? r : write_list(q, all, n, at);
    r = r ? r : qcow2_settle(q);
    r = r ? r : file_flush(q->file);
    if (r) {
        return r;
    }
    struct qcow2_header was = q->h;
    q->h.snapshots_at = at;
    q->h.n_snapshots = n;
    r = qcow2_header_put(q);
    r = r ? r : file_flush(q->file);
    if (r) {
        q->h = was; /* the table in memory is the old one still */
        (void)qcow2_header_put(q);
        return r;
    }
    if (old) {
        r = qcow2_ref_add(q, old_at >> q->h.cluster_bits, qcow2_clusters(q, old), -1);
    }
    return r;
}

/* ---- the image with other snapshots ---- */

struct change {
    const uint8_t *l1; /* the disk's table afterwards, but for flags */
    uint64_t entries, size;
    bool used_once_more;  /* what it leads to: somebody else keeps it too */
    const uint8_t *gone;  /* a table that goes with what it leads to; NULL: none */
    uint64_t gone_at, gone_entries;
    bool drops_l1;        /* nobody keeps the disk's old table */
    struct qcow2_snapshot *all; /* those that there are afterwards */
    uint32_t n;
};

static int drop_run(struct qcow2 *q, uint64_t at, uint64_t bytes)
{
    return bytes ? qcow2_ref_add(q, at >> q->h.cluster_bits, qcow2_clusters(q, bytes), -1) : 0;
}

/* Everything anew beside the old, up to the write of the header. */
static int prepare(struct qcow2 *q, const struct change *c, struct qcow2_fork *f,
                   struct whole_table *fresh)
{
    uint64_t at = c->entries ? f->l1.first << q->h.cluster_bits : q->h.l1_at;
    int r = 0;
    if (c->gone) { /* first, so that no count is higher than it must be */
        r = qcow2_fork_count(q, c->gone, c->gone_entries, -1);
        r = r ? r : drop_run(q, c->gone_at, 8 * c->gone_entries);
    }
    r = r || !c->used_once_more ? r : qcow2_fork_count(q, c->l1, c->entries, 1);
    r = r || !c->drops_l1 ? r : drop_run(q, q->h.l1_at, 8ull * q->h.l1_entries);
    r = r ? r : whole_table_blank(fresh, at, 8 * c->entries);
    if (r) {
        return r;
    }
    memcpy(fresh->bytes, c->l1, fresh->n);
    r = qcow2_fork_flags(q, f, fresh);
    r = r ? r : write_list(q, c->all, c->n, f->snapshots.first << q->h.cluster_bits);
    return r ? r : drop_run(q, q->h.snapshots_at, qcow2_snapshots_bytes(q->snapshots, q->h.n_snapshots));
}

static int change(struct qcow2 *q, const struct change *c)
{
    uint64_t bytes = complete(c->all, c->n);
    struct whole_table fresh = {0};
    struct qcow2_fork f;
    if (bytes > QCOW2_SNAPSHOT_TABLE_MAX) {
        return -EFBIG;
    }
    int r = qcow2_fork_begin(q, &f, c->l1, c->entries, bytes);
    r = r ? r : prepare(q, c, &f, &fresh);
    if (r == 0) {
        struct qcow2_header next = q->h;
        next.size = c->size;
        next.l1_at = fresh.at;
        next.l1_entries = (uint32_t)c->entries;
        next.n_snapshots = c->n;
        next.snapshots_at = c->n ? f.snapshots.first << q->h.cluster_bits : 0;
        r = qcow2_fork_end(q, &f, &next, &fresh);
    }
    if (r) {
        whole_table_free(&fresh);
        qcow2_fork_abort(q, &f);
        return r;
    }
    g_free(q->snapshots);
    q->snapshots = c->all;
    q->node->size = q->h.size;
    return qcow2_meta_collect(q);
}

static bool finish(const struct qcow2 *q, int r, GError **error)
{
    if (r == -EOVERFLOW) {
        g_set_error(error, LODGE_ERROR, EOVERFLOW, "refcount_bits=%u cannot count another snapshot",
                    1u << q->h.refcount_order);
    } else if (r) {
        g_set_error(error, LODGE_ERROR, -r, "%s", g_strerror(-r));
    }
    return r == 0;
}

static int find_snapshot(const struct qcow2 *q, const char *id_or_name)
{
    for (uint32_t i = 0; i < q->h.n_snapshots; i++) {
        if (!strcmp(q->snapshots[i].shown.id, id_or_name)) {
            return (int)i;
        }
    }
    for (uint32_t i = 0; i < q->h.n_snapshots; i++) {
        if (!strcmp(q->snapshots[i].shown.name, id_or_name)) {
            return (int)i;
        }
    }
    return -1;
}

static struct qcow2_snapshot *want_snapshot(struct qcow2 *q, const char *id_or_name, GError **error)
{
    int i = find_snapshot(q, id_or_name);
    if (i < 0) {
        g_set_error(error, LODGE_ERROR, ENOENT, "Can't find snapshot '%s'", id_or_name);
        return NULL;
    }
    struct qcow2_snapshot *s = &q->snapshots[i];
    if (s->l1_at % q->cluster || s->l1_entries > QCOW2_L1_MAX / 8) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Snapshot L1 table of '%s' is invalid: %u entries at 0x%" G_GINT64_MODIFIER "x",
                    id_or_name, s->l1_entries, s->l1_at);
        return NULL;
    }
    return s;
}

static bool refuse_data_file(const struct qcow2 *q, GError **error)
{
    if (q->h.incompatible & INCOMPAT_DATA_FILE) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "Internal snapshots are not supported with an external data file");
        return true;
    }
    return false;
}

/* ---- making one ---- */

static char *new_id(const struct qcow2 *q)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < q->h.n_snapshots; i++) {
        most = MAX(most, g_ascii_strtoull(q->snapshots[i].shown.id, NULL, 10));
    }
    return g_strdup_printf("%" G_GUINT64_FORMAT, most + 1);
}

/* The disk's table becomes the snapshot's, the disk gets a copy. */
static int make(struct qcow2 *q, struct qcow2_snapshot *s)
{
    uint32_t n = q->h.n_snapshots;
    struct qcow2_snapshot *all = g_new(struct qcow2_snapshot, n + 1);
    int r = q->corrupt ? -EIO : qcow2_settle(q); /* the table in the file is to be the whole truth */
    if (n) {
        memcpy(all, q->snapshots, n * sizeof(*all));
    }
    s->l1_at = q->h.l1_at;
    all[n] = *s;
    r = r ? r : change(q, &(struct change){.l1 = q->l1.bytes,
                                           .entries = q->h.l1_entries,
                                           .size = q->h.size,
                                           .used_once_more = true,
                                           .all = all,
                                           .n = n + 1});
    if (r) {
        g_free(all);
    }
    return r;
}

static bool snapshot_create(struct node *node, struct image_snapshot *snap, GError **error)
{
    struct qcow2 *q = qcow2_of(node);
    if (refuse_data_file(q, error)) {
        return false;
    }
    if (q->h.n_snapshots >= QCOW2_SNAPSHOTS_MAX) {
        g_set_error(error, LODGE_ERROR, EFBIG, "No room for more than %u snapshots",
                    QCOW2_SNAPSHOTS_MAX);
        return false;
    }
    if (strlen(snap->name) >= NAME_MAX_BYTES) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Snapshot name of %zu bytes is too long",
                    strlen(snap->name));
        return false;
    }
    struct qcow2_snapshot s = {.shown = *snap, .l1_entries = q->h.l1_entries};
    s.shown.id = new_id(q);
    s.shown.name = g_strdup(snap->name);
    s.shown.disk_size = q->h.size;
    int r = make(q, &s);
    if (r) {
        snapshot_clear(&s);
    }
    return finish(q, r, error);
}

/* ---- applying one ---- */

/* The disk gets a copy of the snapshot's table. */
static int apply(struct qcow2 *q, const struct qcow2_snapshot *s)
{
    uint64_t entries = MAX(s->l1_entries, qcow2_l1_entries_for(q, s->shown.disk_size));
    g_autofree uint8_t *l1 = g_try_malloc0(MAX(8 * entries, 1));
    struct qcow2_snapshot *all = g_memdup2(q->snapshots, q->h.n_snapshots * sizeof(*all));
    int r = !l1 ? -ENOMEM : q->corrupt ? -EIO : qcow2_settle(q);
    r = r ? r : file_read(q->file, s->l1_at, l1, 8ull * s->l1_entries);
    r = r ? r : change(q, &(struct change){.l1 = l1,
                                           .entries = entries,
                                           .size = s->shown.disk_size,
                                           .used_once_more = true,
                                           .gone = q->l1.bytes,
                                           .gone_at = q->h.l1_at,
                                           .gone_entries = q->h.l1_entries,
                                           .all = all,
                                           .n = q->h.n_snapshots});
    if (r) {
        g_free(all);
    }
    return r;
}

static bool snapshot_apply(struct node *node, const char *id_or_name, GError **error)
{
    struct qcow2 *q = qcow2_of(node);
    struct qcow2_snapshot *s = want_snapshot(q, id_or_name, error);
    if (!s || refuse_data_file(q, error)) {
        return false;
    }
    bool resized = s->shown.disk_size != q->h.size;
    int r = resized ? qcow2_bitmaps_hold(q) : 0;
    r = r ? r : apply(q, s);
    if (!r && q->record) {
        r = qcow2_bitmaps_record(q, 0, q->h.size);
    }
    r = r || !resized ? r : qcow2_bitmaps_store(q);
    return finish(q, r, error);
}

/* ---- removing one ---- */

static int delete (struct qcow2 *q, uint32_t i)
{
    struct qcow2_snapshot gone = q->snapshots[i], *all = g_new(struct qcow2_snapshot, q->h.n_snapshots);
    struct whole_table l1 = {0};
    uint32_t n = q->h.n_snapshots - 1;
    int r = q->corrupt ? -EIO : qcow2_settle(q);
    memcpy(all, q->snapshots, i * sizeof(*all));
    memcpy(all + i, q->snapshots + i + 1, (n - i) * sizeof(*all));
    r = r ? r : whole_table_read(&l1, q->file, gone.l1_at, 8ull * gone.l1_entries);
    r = r ? r : change(q, &(struct change){.l1 = q->l1.bytes,
                                           .entries = q->h.l1_entries,
                                           .size = q->h.size,
                                           .gone = l1.bytes,
                                           .gone_at = gone.l1_at,
                                           .gone_entries = gone.l1_entries,
                                           .drops_l1 = true,
                                           .all = all,
                                           .n = n});
    whole_table_free(&l1);
    if (r) {
        g_free(all);
    } else {
        snapshot_clear(&gone);
    }
    return r;
}

static bool snapshot_remove(struct node *node, const char *id_or_name, GError **error)
{
    struct qcow2 *q = qcow2_of(node);
    struct qcow2_snapshot *s = want_snapshot(q, id_or_name, error);
    if (!s) {
        return false;
    }
    return finish(q, delete (q, (uint32_t)(s - q->snapshots)), error);
}

/* ---- looking ---- */

static bool snapshot_load(struct node *node, const char *id_or_name, GError **error)
{
    struct qcow2 *q = qcow2_of(node);
    struct qcow2_snapshot *s = want_snapshot(q, id_or_name, error);
    if (!s) {
        return false;
    }
    if (!node->read_only) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Device is not readonly");
        return false;
    }
    if (qcow2_l1_entries_for(q, s->shown.disk_size) > s->l1_entries) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Snapshot '%s' of %" G_GUINT64_FORMAT " bytes has only %u L1 entries",
                    id_or_name, s->shown.disk_size, s->l1_entries);
        return false;
    }
    struct whole_table l1;
    int r = whole_table_read(&l1, q->file, s->l1_at, 8ull * s->l1_entries);
    if (r) {
        error_set_errno(error, -r, "Failed to read l1 table for snapshot");
        return false;
    }
    whole_table_free(&q->l1);
    q->l1 = l1;
    q->h.l1_entries = s->l1_entries;
    node->size = q->h.size = s->shown.disk_size;
    return true;
}

static unsigned snapshot_count(struct node *node)
{
    return qcow2_of(node)->h.n_snapshots;
}

static const struct image_snapshot *snapshot_get(struct node *node, unsigned n)
{
    return &qcow2_of(node)->snapshots[n].shown;
}

static uint64_t state_offset(struct node *node)
{
    const struct qcow2 *q = qcow2_of(node);
    return qcow2_l1_entries_for(q, q->h.size) << (q->h.cluster_bits + q->l2_bits);
}

const struct snapshot_tools qcow2_snapshot_tools = {
    .state_offset = state_offset,
    .count = snapshot_count,
    .get = snapshot_get,
    .create = snapshot_create,
    .apply = snapshot_apply,
    .remove = snapshot_remove,
    .load = snapshot_load,
};
