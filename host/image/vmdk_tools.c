/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * vmdk: other sizes, check, and what info tells.
 *
 * Spec: VMware, "Virtual Disk Format 5.0", section "Hosted Sparse Extents".
 */
#include "base/bytes.h"
#include "host/image/chain.h"
#include "host/image/protocol.h"
#include "host/image/vmdk_node.h"

#include <string.h>
#include <unistd.h>

/* ---- info ---- */

void vmdk_describe(struct node *node, json_t *data)
{
    struct vmdk *v = vmdk_of(node);
    json_t *extents = json_array();
    json_object_set_new(data, "cid", json_integer(v->desc.cid));
    json_object_set_new(data, "parent-cid", json_integer(v->desc.parent_cid));
    json_object_set_new(data, "create-type", json_string(v->desc.create_type));
    for (unsigned i = 0; i < v->n; i++) {
        const struct vmdk_extent *e = &v->extents[i];
        json_t *o = json_object();
        if (e->packed) {
            json_object_set_new(o, "compressed", json_true());
        }
        json_object_set_new(o, "virtual-size", json_integer((json_int_t)e->bytes));
        json_object_set_new(o, "filename", json_string(e->file ? file_name(e->file) : ""));
        if (e->grain) {
            json_object_set_new(o, "cluster-size", json_integer((json_int_t)e->grain));
        }
        json_object_set_new(o, "format",
                            json_string(v->desc_room || !v->text ? "" : vmdk_type_name(e->type)));
        json_array_append_new(extents, o);
    }
    json_object_set_new(data, "extents", extents);
}

/* ---- another parent ---- */

bool vmdk_set_backing(struct node *node, const char *name, const char *format, GError **error)
{
    struct vmdk *v = vmdk_of(node);
    uint32_t cid = UINT32_MAX;
    g_autofree char *hint = g_strdup_printf("\"%s\"", name ? name : "");
    if (!v->text || v->extents[0].type == VMDK_FLAT) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "this disk cannot have a parent");
        return false;
    }
    if (name && !vmdk_parent_cid(file_name(node->file), name, format, &cid, error)) {
        return false;
    }
    g_autofree char *value = g_strdup_printf("%08x", cid);
    g_autofree char *text = vmdk_desc_replace(v->text, "parentCID", value);
    g_autofree char *named = text ? vmdk_desc_replace(text, "parentFileNameHint", hint) : NULL;
    if (text && !named) { /* it had no parent */
        g_autofree char *both = g_strdup_printf("%s\nparentFileNameHint=%s", value, hint);
        named = vmdk_desc_replace(v->text, "parentCID", both);
    }
    int r = named ? vmdk_write_text(node, named) : -EINVAL;
    r = r ? r : file_flush(node->file);
    if (r < 0) {
        error_set_errno(error, -r, "cannot write the descriptor");
        return false;
    }
    v->desc.parent_cid = cid;
    return true;
}

/* ---- check ---- */

struct check {
    struct check_result *out;
    uint8_t *used;      /* a bit for each grain of the file */
    uint64_t size, odd; /* bytes: of the file; of where the first grain begins, modulo a grain */
    bool any;
};

static void report(struct check *c, const struct vmdk_extent *e, uint64_t g, const char *what)
{
    c->out->corruptions++;
    check_tell(c->out, "ERROR: %s for sector %" G_GUINT64_FORMAT, what,
               e->start / VMDK_SECTOR + g * e->header.grain);
}

/* Two entries must not name one grain.  Only those that lie in step with the first are
 * compared: all that one writer makes do. */
static bool is_double(struct check *c, const struct vmdk_extent *e, uint64_t at)
{
    if (e->packed) {
        return false;
    }
    c->odd = c->any ? c->odd : at % e->grain;
    c->any = true;
    if (at % e->grain != c->odd) {
        return false;
    }
    uint64_t n = at / e->grain;
    bool was = c->used[n / 8] >> n % 8 & 1;
    c->used[n / 8] |= (uint8_t)(1 << n % 8);
    return was;
}

static void check_grain(struct check *c, struct vmdk_extent *e, uint64_t g)
{
    uint32_t entry;
    if (vmdk_entry_get(e, g, true, &entry)) {
        report(c, e, g, "could not get cluster_offset");
        return;
    }
    enum extent_kind kind = vmdk_entry_kind(e, entry);
    uint64_t at = (uint64_t)entry * VMDK_SECTOR;
    if (kind != EXTENT_DATA && kind != EXTENT_PACKED) {
        return;
    }
    if (at >= c->size) {
        report(c, e, g, "cluster offset after file size");
    } else if (is_double(c, e, at)) {
        report(c, e, g, "grain is used twice");
    }
}

bool vmdk_check(struct node *node, unsigned fix, struct check_result *out, GError **error)
{
    struct vmdk *v = vmdk_of(node);
    (void)fix;
    for (unsigned i = 0; i < v->n; i++) {
        struct vmdk_extent *e = &v->extents[i];
        if (!e->tables) {
            continue;
        }
        struct check c = {.out = out, .size = file_size(e->file)};
        g_autofree uint8_t *used = c.used = g_try_malloc0(c.size / e->grain / 8 + 1);
        if (!used) {
            error_set_errno(error, ENOMEM, "a bitmap of the file's grains");
            return false;
        }
        for (uint64_t g = 0, absent; g < vmdk_grains(e); g += MAX(absent, 1)) {
            absent = vmdk_absent_grains(e, g, true);
            if (!absent) {
                check_grain(&c, e, g);
            }
        }
    }
    return true;
}

/* ---- resize: one sparse extent ---- */

/* Entries [@from, @to) name nothing, so that a disk that grows again begins with zeros. */
static int clear_entries(struct vmdk_extent *e, uint64_t from, uint64_t to)
{
    int r = 0;
    for (uint64_t g = from; g < to && r == 0; g++) {
        uint32_t entry;
        r = vmdk_entry_get(e, g, true, &entry);
        r = r || !entry ? r : vmdk_entry_set(e, g, 0);
    }
    return r ? r : vmdk_extent_flush(e);
}

/* What is behind the disk's end in its last grain is to read as zero when it becomes part of it. */
static int clear_tail(struct vmdk_extent *e)
{
    uint64_t in = e->bytes % e->grain;
    uint32_t entry = 0;
    int r = in ? vmdk_entry_get(e, e->bytes / e->grain, true, &entry) : 0;
    return r || !in || vmdk_entry_kind(e, entry) != EXTENT_DATA
               ? r
               : file_zero(e->file, (uint64_t)entry * VMDK_SECTOR + in, e->grain - in, true);
}

/* A directory of @n tables at sector *@at: those of the one at byte @old, then empty ones. */
static int write_directory(struct vmdk_extent *e, uint64_t old, uint64_t n, uint64_t *at)
{
    uint64_t has = vmdk_tables(&e->header), gt = e->header.gtes * 4 / VMDK_SECTOR;
    uint64_t sectors = (n * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR, end = sectors + (n - has) * gt;
    g_autofree uint8_t *raw = g_try_malloc0(sectors * VMDK_SECTOR);
    if (!raw) {
        return -ENOMEM;
    }
    if (*at + end > UINT32_MAX) {
        return -EFBIG;
    }
    int r = file_read(e->file, old, raw, has * 4);
    for (uint64_t i = has; i < n; i++) {
        le32_put(raw + i * 4, (uint32_t)(*at + sectors + (i - has) * gt));
    }
    r = r ? r : file_zero(e->file, *at * VMDK_SECTOR, end * VMDK_SECTOR, true);
    r = r ? r : file_write(e->file, *at * VMDK_SECTOR, raw, sectors * VMDK_SECTOR);
    *at += end;
    return r;
}

/* One sector: the old disk or the new one. */
static int write_header(struct vmdk_extent *e, const struct vmdk_header *h)
{
    uint8_t raw[VMDK_HEADER_BYTES];
    vmdk_header_write(h, raw);
    int r = file_flush(e->file);
    r = r ? r : file_write(e->file, 0, raw, sizeof(raw));
    return r ? r : file_flush(e->file);
}

static int grow_sparse(struct vmdk_extent *e, uint64_t sectors)
{
    struct vmdk_header h = e->header;
    uint64_t has = vmdk_tables(&h), at = (file_size(e->file) + VMDK_SECTOR - 1) / VMDK_SECTOR;
    int r = clear_tail(e);
    r = r ? r : clear_entries(e, vmdk_grains(e), has * h.gtes);
    h.capacity = sectors;
    uint64_t n = vmdk_tables(&h);
    if (r == 0 && n > has && e->rgd) {
        h.rgd = at;
        r = write_directory(e, e->rgd, n, &at);
    }
    if (r == 0 && n > has) {
        h.gd = at;
        r = write_directory(e, e->gd, n, &at);
    }
    return r ? r : write_header(e, &h);
}

/* The space of grains [@from, @to) goes back to the file system once nothing names them. */
static int drop_grains(struct vmdk_extent *e, uint64_t from, uint64_t to)
{
    enum { BATCH = 1024 };
    uint32_t old[BATCH];
    int r = 0;
    while (from < to && r == 0) {
        uint64_t n = MIN(to - from, BATCH);
        for (uint64_t i = 0; i < n && r == 0; i++) {
            r = vmdk_entry_get(e, from + i, true, &old[i]);
        }
        r = r ? r : clear_entries(e, from, from + n);
        for (uint64_t i = 0; i < n && r == 0; i++) {
            if (vmdk_entry_kind(e, old[i]) == EXTENT_DATA) {
                r = file_discard(e->file, (uint64_t)old[i] * VMDK_SECTOR, e->grain);
            }
        }
        from += n;
    }
    return r;
}

static int shrink_sparse(struct vmdk_extent *e, uint64_t sectors)
{
    struct vmdk_header h = e->header;
    uint64_t old = vmdk_grains(e);
    h.capacity = sectors;
    int r = write_header(e, &h);
    return r ? r : drop_grains(e, (sectors + h.grain - 1) / h.grain, old);
}

static int resize_sparse(struct vmdk_extent *e, uint64_t sectors)
{
    return sectors * VMDK_SECTOR >= e->bytes ? grow_sparse(e, sectors) : shrink_sparse(e, sectors);
}

/* ---- resize: the disk ---- */

/* What the last extent becomes, what is added behind it, and how many go. */
struct resize {
    struct node *node;
    uint64_t sectors; /* of the disk */
    unsigned keep;    /* extents; the last of them changes */
    uint64_t last;    /* sectors of that one */
    bool split, flat;
    enum preallocation how;
    GPtrArray *added; /* paths of new extents */
    GError **error;
};

static char *line_of(const struct vmdk_line *l, uint64_t sectors)
{
    bool flat = l->type == VMDK_FLAT || l->type == VMDK_VMFS;
    g_autofree char *offset =
        flat ? g_strdup_printf(" %" G_GUINT64_FORMAT, l->offset) : g_strdup("");
    return l->name ? g_strdup_printf("RW %" G_GUINT64_FORMAT " %s \"%s\"%s\n", sectors,
                                     vmdk_type_name(l->type), l->name, offset)
                   : g_strdup_printf("RW %" G_GUINT64_FORMAT " ZERO\n", sectors);
}

static bool failed(struct resize *z, int r, const char *what)
{
    error_set_errno(z->error, -r, "%s", what);
    return false;
}

static bool resize_last(struct resize *z)
{
    struct vmdk_extent *e = &vmdk_of(z->node)->extents[z->keep - 1];
    uint64_t end = e->offset + z->last * VMDK_SECTOR;
    int r = 0;
    if (e->tables) {
        r = resize_sparse(e, z->last);
    } else if (e->file && end > file_size(e->file)) {
        return file_preallocate(e->file, file_size(e->file), end, z->how, z->error);
    } else if (e->file && z->last * VMDK_SECTOR < e->bytes && e->owns_file) {
        r = file_resize(e->file, end);
    }
    return r == 0 || failed(z, r, "cannot change the last extent");
}

/* What is there already belongs to somebody else. */
static bool may_create(const char *path, unsigned number, GError **error)
{
    if (number > VMDK_MAX_EXTENTS) {
        g_set_error(error, LODGE_ERROR, EFBIG, "more than %u extents", VMDK_MAX_EXTENTS);
        return false;
    }
    if (g_file_test(path, G_FILE_TEST_EXISTS)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "the new extent '%s' exists already", path);
        return false;
    }
    return true;
}

/* Extents of a split disk behind those that are there; their lines. */
static bool add_extents(struct resize *z, GString *lines)
{
    struct vmdk *v = vmdk_of(z->node);
    uint64_t have = z->last;
    for (unsigned i = 0; i + 1 < z->keep; i++) {
        have += v->extents[i].bytes / VMDK_SECTOR;
    }
    for (unsigned number = z->keep + 1; have < z->sectors; number++) {
        uint64_t n = MIN(z->sectors - have, VMDK_SPLIT_SECTORS);
        g_autofree char *path = vmdk_extent_path(file_name(z->node->file), z->flat, number);
        g_autofree char *name = g_path_get_basename(path);
        struct file *f = may_create(path, number, z->error) ? file_create(path, z->error) : NULL;
        bool good = f && (z->flat ? file_preallocate(f, 0, n * VMDK_SECTOR, z->how, z->error)
                                  : vmdk_create_sparse(f, n, false, NULL, PREALLOC_OFF, z->error));
        int r = good ? file_flush(f) : 0;
        if (f) {
            g_ptr_array_add(z->added, g_strdup(path));
        }
        file_close(f);
        if (!good || r < 0) {
            return good ? failed(z, r, "cannot write a new extent") : false;
        }
        g_string_append_printf(lines, "RW %" G_GUINT64_FORMAT " %s \"%s\"%s\n", n,
                               z->flat ? "FLAT" : "SPARSE", name, z->flat ? " 0" : "");
        have += n;
    }
    return true;
}

static bool write_lines(struct resize *z, const char *lines)
{
    struct vmdk *v = vmdk_of(z->node);
    g_autofree char *text = vmdk_desc_with_extents(v->text, lines, z->sectors);
    int r = file_flush(z->node->file);
    r = r ? r : vmdk_write_text(z->node, text);
    r = r ? r : file_flush(z->node->file);
    return r == 0 || failed(z, r, "cannot write the descriptor");
}

static void unlink_all(const GPtrArray *paths)
{
    for (unsigned i = 0; i < paths->len; i++) {
        if (g_ptr_array_index(paths, i)) {
            unlink(g_ptr_array_index(paths, i));
        }
    }
}

/* Extents first, then who names them.  Without room for all of them they go again. */
static bool grow_extents(struct resize *z, GString *lines)
{
    struct vmdk_extent *e = &vmdk_of(z->node)->extents[z->keep - 1];
    uint64_t before = e->file ? file_size(e->file) : 0;
    if (resize_last(z) && add_extents(z, lines) && write_lines(z, lines->str)) {
        return true;
    }
    unlink_all(z->added);
    if (e->tables) {
        resize_sparse(e, e->bytes / VMDK_SECTOR);
    } else if (e->file) {
        file_resize(e->file, before);
    }
    return false;
}

static bool resize_extents(struct resize *z)
{
    struct vmdk *v = vmdk_of(z->node);
    g_autoptr(GString) lines = g_string_new(NULL);
    bool grows = z->sectors * VMDK_SECTOR >= z->node->size;
    g_autoptr(GPtrArray) dropped = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) added = z->added = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; i < z->keep; i++) {
        g_autofree char *line =
            line_of(&v->desc.lines[i], i + 1 == z->keep ? z->last : v->desc.lines[i].sectors);
        g_string_append(lines, line);
    }
    for (unsigned i = z->keep; i < v->n; i++) {
        if (v->extents[i].owns_file) {
            g_ptr_array_add(dropped, g_strdup(name_local_path(file_name(v->extents[i].file))));
        }
    }
    if (grows ? !grow_extents(z, lines) : !write_lines(z, lines->str) || !resize_last(z)) {
        return false;
    }
    unlink_all(dropped);
    return true;
}

static void plan(struct resize *z)
{
    struct vmdk *v = vmdk_of(z->node);
    uint64_t before = 0;
    z->flat = v->extents[v->n - 1].type == VMDK_FLAT;
    z->split = g_str_has_prefix(v->desc.create_type, "twoGbMaxExtent");
    for (z->keep = 1; z->keep < v->n; z->keep++) {
        uint64_t n = v->extents[z->keep - 1].bytes / VMDK_SECTOR;
        if (before + n >= z->sectors) {
            break;
        }
        before += n;
    }
    z->last = z->sectors - before;
    if (z->split) {
        z->last =
            MIN(z->last, MAX(VMDK_SPLIT_SECTORS, v->extents[z->keep - 1].bytes / VMDK_SECTOR));
    }
}

static bool resize_one_file(struct resize *z)
{
    struct vmdk *v = vmdk_of(z->node);
    g_autofree char *name = g_path_get_basename(file_name(z->node->file));
    g_autofree char *lines =
        g_strdup_printf("RW %" G_GUINT64_FORMAT " SPARSE \"%s\"\n", z->sectors, name);
    if (v->extents[0].packed) {
        g_set_error(z->error, LODGE_ERROR, ENOTSUP,
                    "streamOptimized images cannot be resized: convert to another subformat first");
        return false;
    }
    int r = resize_sparse(&v->extents[0], z->sectors);
    if (r < 0) {
        return failed(z, r, "cannot change the extent");
    }
    return !v->text || write_lines(z, lines);
}

/* Grains take space when something is written to them, be it zeros. */
static bool fill_grains(struct node *node, uint64_t from, GError **error)
{
    enum { STEP = 1 << 20 };
    g_autofree uint8_t *zeros = g_malloc0(STEP);
    int r = 0;
    for (uint64_t at = from; at < node->size && r == 0; at += STEP) {
        r = chain_write(node, at, zeros, MIN(STEP, node->size - at));
    }
    r = r ? r : chain_flush(node);
    if (r < 0) {
        error_set_errno(error, -r, "Could not preallocate data");
    }
    return r == 0;
}

bool vmdk_resize(struct node *node, uint64_t size, enum preallocation how, GError **error)
{
    struct vmdk *v = vmdk_of(node);
    uint64_t was = node->size;
    struct resize z = {.node = node,
                       .sectors = (size + VMDK_SECTOR - 1) / VMDK_SECTOR,
                       .how = how,
                       .error = error};
    if (z.sectors == 0 || z.sectors > VMDK_MAX_SECTORS) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "a size of %" G_GUINT64_FORMAT " bytes is not between 1 byte and 64 PiB", size);
        return false;
    }
    for (unsigned i = 0; i < v->n; i++) {
        int r = vmdk_extent_flush(&v->extents[i]);
        if (r < 0) {
            return failed(&z, r, "cannot write the tables");
        }
    }
    plan(&z);
    bool one = v->extents[0].file == node->file;
    return (one ? resize_one_file(&z) : resize_extents(&z)) && vmdk_reopen(node, error) &&
           (z.flat || how == PREALLOC_OFF || fill_grains(node, was, error));
}
