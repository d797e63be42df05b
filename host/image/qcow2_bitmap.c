/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_bitmap: persistent bitmaps of what was written.  Spec: QEMU, "docs/interop/qcow2.txt",
 * section "Bitmaps".
 *
 * While writes are recorded the bits are in memory and the file calls the bitmaps in use, so
 * that a crash leaves bitmaps that nobody trusts; closing the image stores them.
 */
#include "host/image/qcow2.h"

#include <string.h>

enum {
    ENTRY_FIXED = 24,
    TYPE_DIRTY = 1,
    GRANULARITY_LEAST = 9,
    GRANULARITY_MOST = 31,
    BYTES_MAX = 512 << 20,
    FLAGS_KNOWN = 7,
    WORD_BITS = 64
};

static uint64_t bits_for(uint64_t size, const struct qcow2_bitmap *b)
{
    return (size >> b->granularity_bits) + ((size & ((1ull << b->granularity_bits) - 1)) != 0);
}

static uint64_t table_entries_for(const struct qcow2 *q, uint64_t bits)
{
    return qcow2_clusters(q, (bits + 7) / 8);
}

static void bitmap_clear(struct qcow2_bitmap *b)
{
    g_free(b->name);
    g_free(b->extra);
    g_free(b->bits);
}

void qcow2_bitmaps_free(struct qcow2 *q)
{
    for (uint32_t i = 0; q->bitmaps && i < q->h.n_bitmaps; i++) {
        bitmap_clear(&q->bitmaps[i]);
    }
    g_clear_pointer(&q->bitmaps, g_free);
}

static void find_record(struct qcow2 *q)
{
    q->record = false;
    for (uint32_t i = 0; i < q->h.n_bitmaps && !q->node->read_only; i++) {
        q->record |= !q->bitmaps[i].broken && (q->bitmaps[i].flags & BITMAP_AUTO);
    }
}

/* ---- the directory ---- */

static bool bad_entry(GError **error, uint32_t i, const char *what, uint64_t value)
{
    g_set_error(error, LODGE_ERROR, EINVAL,
                "Bitmap directory entry %u: %s %" G_GUINT64_FORMAT " is not valid", i, what, value);
    return false;
}

static bool read_entry(struct qcow2 *q, uint32_t i, const uint8_t *p, uint64_t left, uint64_t *n,
                       GError **error)
{
    struct qcow2_bitmap *b = &q->bitmaps[i];
    if (left < ENTRY_FIXED) {
        return bad_entry(error, i, "place", q->h.bitmaps_n - left);
    }
    uint32_t name_n = be16_at(p + 18), type = p[16];
    *b = (struct qcow2_bitmap){.table_at = be64_at(p),
                               .table_entries = be32_at(p + 8),
                               .flags = be32_at(p + 12),
                               .granularity_bits = p[17],
                               .extra_n = be32_at(p + 20)};
    *n = ((uint64_t)ENTRY_FIXED + b->extra_n + name_n + 7) & ~7ull;
    if (*n > left || name_n == 0 || name_n > QCOW2_NAME_MAX) {
        return bad_entry(error, i, "name size", name_n);
    }
    if (type != TYPE_DIRTY) {
        return bad_entry(error, i, "type", type);
    }
    if (b->flags & ~(uint32_t)FLAGS_KNOWN) {
        return bad_entry(error, i, "flags field", b->flags);
    }
    if (b->granularity_bits < GRANULARITY_LEAST || b->granularity_bits > GRANULARITY_MOST) {
        return bad_entry(error, i, "granularity", b->granularity_bits);
    }
    if (b->table_at % q->cluster || b->table_entries > BYTES_MAX / 8 ||
        b->table_at > (uint64_t)INT64_MAX - 8ull * b->table_entries) {
        return bad_entry(error, i, "table offset", b->table_at);
    }
    b->extra = g_memdup2(p + ENTRY_FIXED, b->extra_n);
    b->name = g_strndup((const char *)p + ENTRY_FIXED + b->extra_n, name_n);
    b->n_bits = bits_for(q->h.size, b);
    b->broken = b->flags & BITMAP_IN_USE || b->table_entries != table_entries_for(q, b->n_bits) ||
                (b->extra_n && !(b->flags & BITMAP_EXTRA_OK));
    return true;
}

bool qcow2_bitmaps_read(struct qcow2 *q, GError **error)
{
    uint64_t left = q->h.bitmaps_n;
    if (q->h.n_bitmaps == 0) {
        return true;
    }
    g_autofree uint8_t *dir = g_try_malloc(left); /* it lies in the file */
    int r = dir ? file_read(q->file, q->h.bitmaps_at, dir, left) : -ENOMEM;
    if (r) {
        error_set_errno(error, -r, "Could not read the bitmap directory");
        q->h.n_bitmaps = 0;
        return false;
    }
    q->bitmaps = g_new0(struct qcow2_bitmap, q->h.n_bitmaps);
    const uint8_t *p = dir;
    for (uint32_t i = 0; i < q->h.n_bitmaps; i++) {
        uint64_t n;
        if (!read_entry(q, i, p, left, &n, error)) {
            return false;
        }
        p += n;
        left -= n;
    }
    find_record(q);
    return true;
}

static GByteArray *make_directory(const struct qcow2_bitmap *all, uint32_t n)
{
    GByteArray *out = g_byte_array_new();
    static const uint8_t pad[8];
    for (uint32_t i = 0; i < n; i++) {
        const struct qcow2_bitmap *b = &all[i];
        uint8_t p[ENTRY_FIXED] = {0};
        size_t name_n = strlen(b->name);
        be64_put(p, b->table_at);
        be32_put(p + 8, b->table_entries);
        be32_put(p + 12, b->flags);
        p[16] = TYPE_DIRTY;
        p[17] = (uint8_t)b->granularity_bits;
        be16_put(p + 18, (uint16_t)name_n);
        be32_put(p + 20, b->extra_n);
        g_byte_array_append(out, p, sizeof(p));
        if (b->extra_n) {
            g_byte_array_append(out, b->extra, b->extra_n);
        }
        g_byte_array_append(out, (const uint8_t *)b->name, (guint)name_n);
        g_byte_array_append(out, pad, -out->len & 7);
    }
    return out;
}

/* Only flags have changed: the entries stay where they are. */
static int rewrite_directory(struct qcow2 *q)
{
    g_autoptr(GByteArray) dir = make_directory(q->bitmaps, q->h.n_bitmaps);
    int r = file_write(q->file, q->h.bitmaps_at, dir->data, dir->len);
    return r ? r : file_flush(q->file);
}

/* @all, of @n bitmaps, is what the file has from now on; takes it over if that works. */
static int replace_directory(struct qcow2 *q, struct qcow2_bitmap *all, uint32_t n)
{
    g_autoptr(GByteArray) dir = make_directory(all, n);
    struct qcow2_header was = q->h;
    uint64_t at = 0;
    int r = n ? qcow2_alloc_table(q, dir->len, &at) : 0;
    r = r || !n ? r : file_write(q->file, at, dir->data, dir->len);
    r = r ? r : qcow2_settle(q);
    r = r ? r : file_flush(q->file);
    if (r) {
        return r;
    }
    q->h.bitmaps_at = at;
    q->h.bitmaps_n = dir->len;
    q->h.n_bitmaps = n;
    q->h.autoclear =
        n ? q->h.autoclear | AUTOCLEAR_BITMAPS : q->h.autoclear & ~(uint64_t)AUTOCLEAR_BITMAPS;
    if (!qcow2_header_write(q, NULL)) {
        q->h = was;
        return -EIO;
    }
    g_free(q->bitmaps);
    q->bitmaps = all;
    find_record(q);
    r = file_flush(q->file);
    return r || !was.n_bitmaps ? r : qcow2_free_later(q, was.bitmaps_at, was.bitmaps_n);
}

/* ---- bits ---- */

int qcow2_bitmap_table(struct qcow2 *q, const struct qcow2_bitmap *b, struct whole_table *out)
{
    uint64_t bytes = 8ull * b->table_entries, size = file_size(q->file);
    if (b->table_at > size || bytes > size - b->table_at) {
        return -EIO;
    }
    return whole_table_read(out, q->file, b->table_at, bytes);
}

static int load(struct qcow2 *q, struct qcow2_bitmap *b)
{
    struct whole_table t;
    uint64_t bytes = (b->n_bits + WORD_BITS - 1) / WORD_BITS * 8;
    if (b->bits) {
        return 0;
    }
    if (bytes > BYTES_MAX) {
        return -EFBIG;
    }
    int r = qcow2_bitmap_table(q, b, &t);
    if (r) {
        return r;
    }
    uint8_t *bits = g_try_malloc0(bytes + q->cluster);
    r = bits ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < b->table_entries && !r; i++) {
        uint64_t e = be64_at(t.bytes + 8 * i), at = e & QCOW2_OFFSET;
        size_t part = MIN(bytes - i * q->cluster, q->cluster);
        if (at) {
            uint64_t have = MIN(part, (b->n_bits + 7) / 8 - i * q->cluster);
            r = at % q->cluster ? -EIO : file_read(q->file, at, bits + i * q->cluster, have);
        } else if (e & 1) {
            memset(bits + i * q->cluster, 0xff, part);
        }
    }
    whole_table_free(&t);
    if (r) {
        g_free(bits);
        return r;
    }
    if (b->n_bits % WORD_BITS) { /* no bits behind the end */
        ((uint64_t *)(void *)bits)[b->n_bits / WORD_BITS] &= (1ull << b->n_bits % WORD_BITS) - 1;
    }
    b->bits = (uint64_t *)(void *)bits;
    return 0;
}

static bool all_bytes(const uint8_t *p, size_t n, uint8_t value)
{
    return p[0] == value && !memcmp(p, p + 1, n - 1);
}

/* The bits in memory suit the disk's size. */
static int fit(struct qcow2 *q, struct qcow2_bitmap *b)
{
    uint64_t n = bits_for(q->h.size, b), words = (n + WORD_BITS - 1) / WORD_BITS;
    if (n == b->n_bits) {
        return 0;
    }
    if (words * 8 > BYTES_MAX) {
        return -EFBIG;
    }
    uint8_t *bits = g_try_malloc0(words * 8 + q->cluster);
    if (!bits) {
        return -ENOMEM;
    }
    memcpy(bits, b->bits, MIN(words, (b->n_bits + WORD_BITS - 1) / WORD_BITS) * 8);
    g_free(b->bits);
    b->bits = (uint64_t *)(void *)bits;
    b->n_bits = n;
    if (n % WORD_BITS) {
        b->bits[n / WORD_BITS] &= (1ull << n % WORD_BITS) - 1;
    }
    return 0;
}

static int free_stored(struct qcow2 *q, const struct qcow2_bitmap *b)
{
    struct whole_table t;
    if (!b->table_at) {
        return 0;
    }
    int r = qcow2_bitmap_table(q, b, &t);
    if (r) {
        return r == -EIO ? 0 : r; /* a table that is not there leaks */
    }
    for (uint64_t i = 0; i < b->table_entries && !r; i++) {
        uint64_t at = be64_at(t.bytes + 8 * i) & QCOW2_OFFSET;
        r = at && at % q->cluster == 0 ? qcow2_free_later(q, at, q->cluster) : 0;
    }
    if (!r && t.n) {
        r = qcow2_free_later(q, b->table_at, t.n);
    }
    whole_table_free(&t);
    return r;
}

/* Bits in memory, if any, to new clusters; @b then names its new table. */
static int save_bits(struct qcow2 *q, struct qcow2_bitmap *b)
{
    struct whole_table t;
    uint64_t entries = table_entries_for(q, b->n_bits), bytes = (b->n_bits + 7) / 8, at;
    int r = qcow2_alloc_table(q, 8 * entries, &at);
    r = r ? r : whole_table_blank(&t, at, 8 * entries);
    if (r) {
        return r;
    }
    for (uint64_t i = 0; i < entries && b->bits && !r; i++) {
        uint8_t *p = (uint8_t *)b->bits + i * q->cluster;
        uint64_t part = MIN(bytes - i * q->cluster, q->cluster), data;
        if (all_bytes(p, part, 0)) {
            continue;
        }
        if (part == q->cluster && all_bytes(p, part, 0xff)) {
            whole_table_put64(&t, i, 1);
            continue;
        }
        r = qcow2_alloc_table(q, q->cluster, &data);
        r = r ? r : file_write(q->file, data, p, q->cluster);
        if (!r) {
            whole_table_put64(&t, i, data);
        }
    }
    r = r ? r : whole_table_write(&t, q->file);
    whole_table_free(&t);
    b->table_at = at;
    b->table_entries = (uint32_t)entries;
    return r;
}

/* ---- recording ---- */

int qcow2_bitmaps_hold(struct qcow2 *q)
{
    bool any = false;
    for (uint32_t i = 0; i < q->h.n_bitmaps; i++) {
        struct qcow2_bitmap *b = &q->bitmaps[i];
        if (b->broken || b->flags & BITMAP_IN_USE) {
            continue;
        }
        if (load(q, b)) {
            b->broken = true; /* the file will call it in use for ever */
        }
        b->flags |= BITMAP_IN_USE;
        any = true;
    }
    if (!any) {
        return 0;
    }
    q->recording = true;
    return rewrite_directory(q);
}

static int start_recording(struct qcow2 *q)
{
    bool any = false;
    for (uint32_t i = 0; i < q->h.n_bitmaps; i++) {
        struct qcow2_bitmap *b = &q->bitmaps[i];
        if (b->broken || !(b->flags & BITMAP_AUTO) || b->flags & BITMAP_IN_USE) {
            continue;
        }
        b->broken = load(q, b) != 0;
        b->flags |= BITMAP_IN_USE;
        any = true;
    }
    q->recording = true;
    return any ? rewrite_directory(q) : 0;
}

static void set_bits(struct qcow2_bitmap *b, uint64_t first, uint64_t end)
{
    while (first < end) {
        uint64_t word = first / WORD_BITS, from = first % WORD_BITS;
        uint64_t to = MIN(end - word * WORD_BITS, WORD_BITS);
        uint64_t mask = (to == WORD_BITS ? UINT64_MAX : (1ull << to) - 1) & (UINT64_MAX << from);
        __atomic_fetch_or(&b->bits[word], mask, __ATOMIC_RELAXED); /* several may record */
        first = (word + 1) * WORD_BITS;
    }
}

int qcow2_bitmaps_record(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    int r = q->recording ? 0 : start_recording(q);
    for (uint32_t i = 0; i < q->h.n_bitmaps && !r; i++) {
        struct qcow2_bitmap *b = &q->bitmaps[i];
        if (b->bits && (b->flags & BITMAP_AUTO)) {
            uint64_t end = ((offset + length - 1) >> b->granularity_bits) + 1;
            set_bits(b, offset >> b->granularity_bits, MIN(end, b->n_bits));
        }
    }
    return r;
}

int qcow2_bitmaps_store(struct qcow2 *q)
{
    uint32_t n = q->h.n_bitmaps;
    int r = 0;
    if (!q->recording || !n || q->corrupt) {
        return 0;
    }
    for (uint32_t i = 0; i < n && !r; i++) {
        r = q->bitmaps[i].bits ? fit(q, &q->bitmaps[i]) : 0;
    }
    g_autofree struct qcow2_bitmap *old = g_memdup2(q->bitmaps, n * sizeof(*old));
    struct qcow2_bitmap *all = g_memdup2(q->bitmaps, n * sizeof(*all));
    for (uint32_t i = 0; i < n && !r; i++) {
        if (old[i].bits) {
            r = save_bits(q, &all[i]);
            all[i].flags &= ~(uint32_t)BITMAP_IN_USE;
            all[i].bits = NULL;
        }
    }
    r = r ? r : replace_directory(q, all, n);
    if (r) {
        g_free(all); /* those in memory stay, and the file calls them in use */
        return r;
    }
    for (uint32_t i = 0; i < n && !r; i++) {
        r = old[i].bits ? free_stored(q, &old[i]) : 0;
        g_free(old[i].bits);
    }
    q->recording = false;
    return r;
}

/* ---- tools ---- */

static struct qcow2_bitmap *find_bitmap(struct qcow2 *q, const char *name, bool usable,
                                        GError **error)
{
    for (uint32_t i = 0; i < q->h.n_bitmaps; i++) {
        struct qcow2_bitmap *b = &q->bitmaps[i];
        if (strcmp(b->name, name)) {
            continue;
        }
        if (usable && b->broken) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "Bitmap '%s' is inconsistent and cannot be used", name);
            return NULL;
        }
        return b;
    }
    g_set_error(error, LODGE_ERROR, ENOENT, "Dirty bitmap '%s' not found", name);
    return NULL;
}

static bool ended(int r, const char *what, const char *name, GError **error)
{
    if (r) {
        error_set_errno(error, -r, "Could not %s bitmap '%s'", what, name);
    }
    return r == 0;
}

static bool may_add(struct qcow2 *q, const char *name, uint64_t granularity, GError **error)
{
    size_t name_n = strlen(name);
    const char *why = NULL;
    if (q->h.version < 3) {
        why = "Cannot store dirty bitmaps in qcow2 v2 files";
    } else if (name_n == 0 || name_n > QCOW2_NAME_MAX) {
        why = "Bitmap name must have 1 to 1023 bytes";
    } else if (granularity < 512 || granularity > 1ull << GRANULARITY_MOST ||
               granularity & (granularity - 1)) {
        why = "Granularity must be a power of two from 512 bytes to 2 GiB";
    } else if (q->h.n_bitmaps >= QCOW2_BITMAPS_MAX) {
        why = "Maximum number of persistent bitmaps is already reached";
    }
    if (why) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s", why);
        return false;
    }
    for (uint32_t i = 0; i < q->h.n_bitmaps; i++) {
        if (!strcmp(q->bitmaps[i].name, name)) {
            g_set_error(error, LODGE_ERROR, EEXIST, "Bitmap already exists: %s", name);
            return false;
        }
    }
    return true;
}

static bool bitmap_add(struct node *node, const char *name, uint32_t granularity, bool enabled,
                       GError **error)
{
    struct qcow2 *q = qcow2_of(node);
    uint64_t grain = granularity ? granularity : CLAMP(q->cluster, 4096u, 65536u);
    int r = qcow2_bitmaps_store(q);
    if (!may_add(q, name, grain, error)) {
        return false;
    }
    struct qcow2_bitmap fresh = {.granularity_bits = (uint32_t)__builtin_ctzll(grain),
                                 .flags = enabled ? BITMAP_AUTO : 0};
    fresh.n_bits = bits_for(q->h.size, &fresh);
    if (table_entries_for(q, fresh.n_bits) > BYTES_MAX / 8 || fresh.n_bits / 8 > BYTES_MAX) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "Too much space will be occupied by the bitmap. "
                    "Use larger granularity");
        return false;
    }
    r = r ? r : save_bits(q, &fresh);
    if (!r) {
        uint32_t n = q->h.n_bitmaps;
        struct qcow2_bitmap *all = g_new(struct qcow2_bitmap, n + 1);
        if (n) {
            memcpy(all, q->bitmaps, n * sizeof(*all));
        }
        fresh.name = g_strdup(name);
        all[n] = fresh;
        r = replace_directory(q, all, n + 1);
        if (r) {
            g_free(fresh.name);
            g_free(all);
        }
    }
    return ended(r, "add", name, error);
}

static bool bitmap_remove(struct node *node, const char *name, GError **error)
{
    struct qcow2 *q = qcow2_of(node);
    int r = qcow2_bitmaps_store(q);
    struct qcow2_bitmap *b = find_bitmap(q, name, false, error);
    if (!b) {
        return false;
    }
    uint32_t n = q->h.n_bitmaps - 1, i = (uint32_t)(b - q->bitmaps);
    struct qcow2_bitmap gone = *b, *all = g_new(struct qcow2_bitmap, n + 1);
    memcpy(all, q->bitmaps, i * sizeof(*all));
    memcpy(all + i, q->bitmaps + i + 1, (n - i) * sizeof(*all));
    r = r ? r : replace_directory(q, all, n);
    if (r) {
        g_free(all);
        return ended(r, "remove", name, error);
    }
    r = free_stored(q, &gone);
    r = r ? r : qcow2_settle(q);
    bool ok = ended(r, "remove", name, error);
    bitmap_clear(&gone);
    return ok;
}

/* Calls @change on the bits in memory, then stores them. */
static bool change_bits(struct qcow2 *q, const char *name, const char *what,
                        void (*change)(struct qcow2_bitmap *b, const struct qcow2_bitmap *with),
                        const struct qcow2_bitmap *with, GError **error)
{
    int r = qcow2_bitmaps_store(q);
    struct qcow2_bitmap *b = find_bitmap(q, name, true, error);
    if (!b) {
        return false;
    }
    r = r ? r : load(q, b);
    if (!r) {
        change(b, with);
        b->flags |= BITMAP_IN_USE;
        q->recording = true;
        r = rewrite_directory(q);
        r = r ? r : qcow2_bitmaps_store(q);
    }
    return ended(r, what, name, error);
}

static void change_to_none(struct qcow2_bitmap *b, const struct qcow2_bitmap *with)
{
    (void)with;
    memset(b->bits, 0, (b->n_bits + WORD_BITS - 1) / WORD_BITS * 8);
}

static bool bitmap_clear_bits(struct node *node, const char *name, GError **error)
{
    return change_bits(qcow2_of(node), name, "clear", change_to_none, NULL, error);
}

static bool bitmap_enable(struct node *node, const char *name, bool on, GError **error)
{
    struct qcow2 *q = qcow2_of(node);
    int r = qcow2_bitmaps_store(q);
    struct qcow2_bitmap *b = find_bitmap(q, name, true, error);
    if (!b) {
        return false;
    }
    b->flags = on ? b->flags | BITMAP_AUTO : b->flags & ~(uint32_t)BITMAP_AUTO;
    find_record(q);
    r = r ? r : rewrite_directory(q);
    return ended(r, on ? "enable" : "disable", name, error);
}

static void change_by_merge(struct qcow2_bitmap *b, const struct qcow2_bitmap *with)
{
    for (uint64_t w = 0; w < (with->n_bits + WORD_BITS - 1) / WORD_BITS; w++) {
        for (uint64_t left = with->bits[w]; left; left &= left - 1) {
            uint64_t bit = w * WORD_BITS + (unsigned)__builtin_ctzll(left);
            uint64_t first = bit << with->granularity_bits;
            uint64_t end = ((first + (1ull << with->granularity_bits) - 1) >> b->granularity_bits);
            set_bits(b, MIN(first >> b->granularity_bits, b->n_bits), MIN(end + 1, b->n_bits));
        }
    }
}

static bool bitmap_merge(struct node *node, const char *name, struct node *from, const char *source,
                         GError **error)
{
    struct qcow2 *q = qcow2_of(from);
    if (from->format != node->format) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Format '%s' has no bitmaps", from->format->name);
        return false;
    }
    struct qcow2_bitmap *b = find_bitmap(q, source, true, error);
    int r = b ? qcow2_bitmaps_store(q) : 0;
    r = r || !b ? r : load(q, b);
    if (!b || r) {
        return b ? ended(r, "read", source, error) : false;
    }
    struct qcow2_bitmap with = *b;
    b->bits = NULL;
    bool ok = change_bits(qcow2_of(node), name, "merge into", change_by_merge, &with, error);
    g_free(with.bits);
    return ok;
}

static bool bitmap_merge_bits(struct node *node, const char *name, const uint64_t *bits, uint64_t n,
                              unsigned grain_bits, GError **error)
{
    const struct qcow2_bitmap with = {
        .bits = (uint64_t *)(uintptr_t)bits, .n_bits = n, .granularity_bits = grain_bits};
    return change_bits(qcow2_of(node), name, "merge into", change_by_merge, &with, error);
}

/* The first write has gone through place(), which began to record. */
static void bitmap_record(struct node *node, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = qcow2_of(node);
    for (uint32_t i = 0; q->recording && i < q->h.n_bitmaps; i++) {
        struct qcow2_bitmap *b = &q->bitmaps[i];
        if (b->bits && (b->flags & BITMAP_AUTO)) {
            uint64_t end = ((offset + length - 1) >> b->granularity_bits) + 1;
            set_bits(b, offset >> b->granularity_bits, MIN(end, b->n_bits));
        }
    }
}

static void bitmap_list(struct node *node, json_t *all)
{
    struct qcow2 *q = qcow2_of(node);
    for (uint32_t i = 0; i < q->h.n_bitmaps; i++) {
        struct qcow2_bitmap *b = &q->bitmaps[i];
        uint64_t count = 0;
        int r = b->broken ? -EINVAL : load(q, b);
        for (uint64_t w = 0; !r && w < (b->n_bits + WORD_BITS - 1) / WORD_BITS; w++) {
            count += (uint64_t)__builtin_popcountll(b->bits[w]);
        }
        json_t *one = json_pack("{s:s, s:I, s:I, s:b, s:b, s:b}", "name", b->name, "granularity",
                                (json_int_t)1 << b->granularity_bits, "count",
                                (json_int_t)(count << b->granularity_bits), "recording",
                                !b->broken && (b->flags & BITMAP_AUTO), "busy", 0, "persistent", 1);
        if (b->broken) {
            json_object_set_new(one, "inconsistent", json_true());
        }
        json_array_append_new(all, one);
    }
}

static bool bitmap_copy(struct node *to, struct node *from, bool skip_broken, GError **error)
{
    struct qcow2 *q = qcow2_of(from);
    for (uint32_t i = 0; i < q->h.n_bitmaps; i++) {
        const struct qcow2_bitmap *b = &q->bitmaps[i];
        if (b->broken && skip_broken) {
            continue;
        }
        if (b->broken) {
            g_set_error(error, LODGE_ERROR, EINVAL, "Cannot copy inconsistent bitmap '%s'",
                        b->name);
            return false;
        }
        if (!bitmap_add(to, b->name, 1u << b->granularity_bits, false, error) ||
            !bitmap_merge(to, b->name, from, b->name, error) ||
            (b->flags & BITMAP_AUTO && !bitmap_enable(to, b->name, true, error))) {
            return false;
        }
    }
    return true;
}

/* Bits are read into memory when first asked for and stay there. */
static int bitmap_next(struct node *node, const char *name, uint64_t offset, uint64_t length,
                       bool *dirty, uint64_t *run)
{
    struct qcow2 *q = qcow2_of(node);
    struct qcow2_bitmap *b = find_bitmap(q, name, false, NULL);
    int r = !b ? -ENOENT : b->broken ? -EINVAL : load(q, b);
    if (r) {
        return r;
    }
    uint64_t first = offset >> b->granularity_bits, bit = first;
    uint64_t last = MIN((offset + length - 1) >> b->granularity_bits, b->n_bits - 1);
    *dirty = b->bits[first / WORD_BITS] >> first % WORD_BITS & 1;
    while (bit <= last) {
        uint64_t word = *dirty ? ~b->bits[bit / WORD_BITS] : b->bits[bit / WORD_BITS];
        word >>= bit % WORD_BITS; /* bits that end the run */
        if (word) {
            bit += (unsigned)__builtin_ctzll(word);
            break;
        }
        bit = (bit / WORD_BITS + 1) * WORD_BITS;
    }
    *run = MIN(length, (bit << b->granularity_bits) - offset);
    return 0;
}

void qcow2_bitmaps_describe(struct qcow2 *q, json_t *data)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < q->h.n_bitmaps; i++) {
        const struct qcow2_bitmap *b = &q->bitmaps[i];
        json_t *flags = json_array(), *one = json_object();
        if (b->flags & BITMAP_IN_USE) {
            json_array_append_new(flags, json_string("in-use"));
        }
        if (b->flags & BITMAP_AUTO) {
            json_array_append_new(flags, json_string("auto"));
        }
        json_object_set_new(one, "flags", flags);
        json_object_set_new(one, "name", json_string(b->name));
        json_object_set_new(one, "granularity", json_integer(1ll << b->granularity_bits));
        json_array_append_new(list, one);
    }
    if (q->h.n_bitmaps) {
        json_object_set(data, "bitmaps", list);
    }
    json_decref(list);
}

const struct bitmap_tools qcow2_bitmap_tools = {
    .add = bitmap_add,
    .remove = bitmap_remove,
    .clear = bitmap_clear_bits,
    .enable = bitmap_enable,
    .merge = bitmap_merge,
    .merge_bits = bitmap_merge_bits,
    .record = bitmap_record,
    .list = bitmap_list,
    .copy = bitmap_copy,
    .next = bitmap_next,
};
