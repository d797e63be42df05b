/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * vmdk: VMware's disks: one sparse file (monolithicSparse, streamOptimized), or a descriptor
 * and flat or sparse extents beside it (monolithicFlat, twoGbMaxExtent*, vmfs, vmfsSparse).
 *
 * A sparse extent has two levels of tables: the grain directory names grain tables of 512
 * entries, which name grains of 64 KiB; both are there twice.  Data reaches the medium before
 * an entry names it.
 *
 * Spec: VMware, "Virtual Disk Format 5.0", sections "The Descriptor File", "Hosted Sparse
 * Extents", "ESX Server Sparse Extents" (COWD), "Stream-Optimized Compressed Sparse Extents".
 */
#include "base/bytes.h"
#include "host/image/cipher.h"
#include "host/image/codec.h"
#include "host/image/vmdk_node.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096, RUN_STEPS = 1 << 16, COWD_GTES = 4096, FOOTER_BYTES = 3 * VMDK_SECTOR };
static const uint32_t COWD_MAGIC = 0x44574f43, KDMV_MAGIC = 0x564d444b, SESPARSE_MAGIC = 0xcafebabe;
static const uint32_t ENTRY_ZERO = 1;

/* ---- tables ---- */

uint64_t vmdk_grains(const struct vmdk_extent *e)
{
    return (e->bytes + e->grain - 1) / e->grain;
}

enum extent_kind vmdk_entry_kind(const struct vmdk_extent *e, uint32_t entry)
{
    return entry == 0                                                    ? EXTENT_ABSENT
           : entry == ENTRY_ZERO && (e->header.flags & VMDK_ZERO_GRAINS) ? EXTENT_ZERO
           : e->packed                                                   ? EXTENT_PACKED
                                                                         : EXTENT_DATA;
}

static int word_at(struct vmdk_extent *e, uint64_t at, bool wait, uint32_t *out)
{
    uint8_t *raw;
    int r = tables_at(e->tables, at, wait, &raw);
    *out = r ? 0 : le32_at(raw);
    return r;
}

static int set_word(struct vmdk_extent *e, uint64_t at, uint32_t value)
{
    uint8_t *raw;
    int r = tables_at(e->tables, at, true, &raw);
    if (r == 0) {
        le32_put(raw, value);
        tables_changed(e->tables, at, 4);
    }
    return r;
}

/* While a stream is written its tables do not go through ->tables. */
static int written_entry(struct vmdk_extent *e, uint64_t table, uint64_t in, bool wait,
                         uint32_t *entry)
{
    uint64_t sector = e->layout->gd[table];
    uint8_t raw[4] = {0};
    int r = !sector ? 0
            : wait  ? file_read(e->file, sector * VMDK_SECTOR + in * 4, raw, 4)
                    : -EAGAIN;
    *entry = le32_at(raw);
    return r;
}

int vmdk_entry_get(struct vmdk_extent *e, uint64_t g, bool wait, uint32_t *entry)
{
    uint64_t table = g / e->header.gtes, in = g % e->header.gtes;
    uint32_t sector;
    *entry = 0;
    if (e->layout && table == e->layout->gt_index) {
        *entry = e->layout->gt[in];
        return 0;
    }
    if (e->layout) {
        return written_entry(e, table, in, wait, entry);
    }
    int r = word_at(e, e->gd + table * 4, wait, &sector);
    return r || !sector ? r : word_at(e, (uint64_t)sector * VMDK_SECTOR + in * 4, wait, entry);
}

/* The entry in one of the two sets of tables. */
static int set_in(struct vmdk_extent *e, uint64_t directory, uint64_t g, uint32_t entry)
{
    uint32_t sector;
    int r = word_at(e, directory + g / e->header.gtes * 4, true, &sector);
    if (r == 0 && !sector) {
        return -EIO; /* images of others come with all their grain tables, as ours do */
    }
    return r ? r : set_word(e, (uint64_t)sector * VMDK_SECTOR + g % e->header.gtes * 4, entry);
}

int vmdk_entry_set(struct vmdk_extent *e, uint64_t g, uint32_t entry)
{
    int r = e->rgd ? set_in(e, e->rgd, g, entry) : 0;
    return r ? r : set_in(e, e->gd, g, entry);
}

static int finish_layout(struct vmdk_extent *e)
{
    struct vmdk_layout *l = e->layout;
    uint64_t end = l->at;
    int r = vmdk_layout_finish(l);
    l->at = end; /* what comes next overwrites the tables, which then follow it */
    e->unfinished = r < 0;
    return r;
}

int vmdk_extent_flush(struct vmdk_extent *e)
{
    int r = e->unfinished ? finish_layout(e) : 0;
    r = r || !e->file ? r : file_flush(e->file);
    if (r == 0 && e->tables && tables_dirty(e->tables)) {
        r = tables_write(e->tables);
        r = r ? r : file_flush(e->file);
    }
    return r;
}

/* A changed page must make room. */
static int clean(void *owner)
{
    return vmdk_extent_flush(owner);
}

/* ---- opening a sparse extent ---- */

static bool too_short(const struct vmdk_extent *e, const char *what, uint64_t end, GError **error)
{
    uint64_t size = file_size(e->file);
    if (end > size) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "'%s': File truncated, expecting at least %" G_GUINT64_FORMAT " bytes for %s",
                    file_name(e->file), end, what);
    }
    return end > size;
}

static bool check_directory(const struct vmdk_extent *e, const char *what, uint64_t sector,
                            GError **error)
{
    uint64_t n = vmdk_tables(&e->header) * 4;
    if (sector == 0 || sector > VMDK_MAX_SECTORS) {
        g_set_error(error, LODGE_ERROR, EINVAL, "'%s': the %s is at sector %" G_GUINT64_FORMAT,
                    file_name(e->file), what, sector);
        return false;
    }
    return !too_short(e, what, sector * VMDK_SECTOR + n, error);
}

/* Tables behind the data: the real header is the footer, before the end marker. */
static bool read_footer(struct vmdk_extent *e, GError **error)
{
    uint8_t raw[FOOTER_BYTES];
    uint64_t size = file_size(e->file);
    int r = size < FOOTER_BYTES ? -EIO : file_read(e->file, size - FOOTER_BYTES, raw, sizeof(raw));
    const uint8_t *end = raw + 2 * VMDK_SECTOR;
    if (r < 0 || le32_at(raw + 8) || le32_at(raw + 12) != MARKER_FOOTER || le64_at(end) ||
        le32_at(end + 8) || le32_at(end + 12) != MARKER_END) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "'%s': no footer and end marker in the last %u bytes: the file is cut off",
                    file_name(e->file), FOOTER_BYTES);
        return false;
    }
    return vmdk_header_read(raw + VMDK_SECTOR, &e->header, error);
}

static bool take_sparse_header(struct vmdk_extent *e, const uint8_t *raw, GError **error)
{
    if (!vmdk_header_read(raw, &e->header, error) ||
        (e->header.gd == VMDK_GD_AT_END && !read_footer(e, error))) {
        return false;
    }
    e->packed = e->header.flags & VMDK_COMPRESSED;
    if (e->header.flags & VMDK_REDUNDANT && !e->packed) {
        e->rgd = e->header.rgd * VMDK_SECTOR;
        if (!check_directory(e, "redundant grain directory", e->header.rgd, error)) {
            return false;
        }
    }
    e->gd = e->header.gd * VMDK_SECTOR;
    uint64_t overhead = MIN(e->header.overhead, VMDK_MAX_SECTORS) * VMDK_SECTOR;
    return check_directory(e, "grain directory", e->header.gd, error) &&
           !too_short(e, "the metadata", overhead, error);
}

/* The older header of ESX. */
static bool take_cowd_header(struct vmdk_extent *e, const uint8_t *raw, GError **error)
{
    struct vmdk_header *h = &e->header;
    uint32_t directory = le32_at(raw + 20), entries = le32_at(raw + 24);
    *h = (struct vmdk_header){.version = le32_at(raw + 4),
                              .capacity = le32_at(raw + 12),
                              .grain = le32_at(raw + 16),
                              .gtes = COWD_GTES,
                              .gd = directory};
    e->cowd = true;
    if (h->version != 1) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unsupported COWD version %u", h->version);
        return false;
    }
    if (h->grain == 0 || h->grain > 128 << 10 || (h->grain & (h->grain - 1)) || !h->capacity) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Invalid granularity: %" G_GUINT64_FORMAT
                    " sectors in a grain of %" G_GUINT64_FORMAT,
                    h->grain, h->capacity);
        return false;
    }
    if (entries < vmdk_tables(h)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "L1 entry size is invalid: %u entries, %" G_GUINT64_FORMAT " are needed",
                    entries, vmdk_tables(h));
        return false;
    }
    e->gd = h->gd * VMDK_SECTOR;
    return check_directory(e, "grain directory", h->gd, error);
}

/* Reads the header of @e->file: hosted or ESX. */
static bool open_sparse(struct vmdk_extent *e, GError **error)
{
    uint8_t raw[VMDK_HEADER_BYTES];
    int r = file_read(e->file, 0, raw, sizeof(raw));
    if (r < 0) {
        error_set_errno(error, -r, "'%s': cannot read the header", file_name(e->file));
        return false;
    }
    if (!(le32_at(raw) == COWD_MAGIC ? take_cowd_header : take_sparse_header)(e, raw, error)) {
        return false;
    }
    e->grain = e->header.grain * VMDK_SECTOR;
    /* Pages hold nothing but tables if no grain fits between two of them. */
    e->tables = tables_new(e->file, e->grain < PAGE ? VMDK_SECTOR : PAGE, clean, e);
    return true;
}

/* ---- opening: which extents there are ---- */

static unsigned vmdk_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)file_name;
    if (n < 4 || le32_at(head) == KDMV_MAGIC || le32_at(head) == COWD_MAGIC) {
        return n < 4 ? 0 : 100;
    }
    g_autofree char *text = g_strndup((const char *)head, n);
    for (char *line = text, *end; line; line = end ? end + 1 : NULL) {
        end = strchr(line, '\n');
        size_t length = end ? (size_t)(end - line) : strlen(line);
        g_autofree char *word = g_strstrip(g_strndup(line, length));
        if (*word && *word != '#') {
            return !strcmp(word, "version=1") || !strcmp(word, "version=2") ||
                           !strcmp(word, "version=3")
                       ? 100
                       : 0;
        }
    }
    return 0;
}

static struct vmdk_extent *new_extents(struct vmdk *v, unsigned n)
{
    v->extents = g_new0(struct vmdk_extent, n);
    v->n = n;
    return v->extents;
}

/* The descriptor at @at; blank where an extent of a split disk has none. */
static bool read_descriptor(struct node *node, uint64_t at, uint64_t n, GError **error)
{
    struct vmdk *v = vmdk_of(node);
    uint64_t size = file_size(node->file);
    if (n > VMDK_DESC_BYTES_MAX || at > size || n > size - at) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "a descriptor of %" G_GUINT64_FORMAT " bytes at byte %" G_GUINT64_FORMAT
                    " does not fit in the file of %" G_GUINT64_FORMAT " bytes, or in 1 MiB",
                    n, at, size);
        return false;
    }
    g_free(v->text);
    v->text = g_malloc0(n + 1);
    int r = n ? file_read(node->file, at, v->text, n) : 0;
    if (r < 0) {
        error_set_errno(error, -r, "cannot read the descriptor");
    }
    return r == 0;
}

static bool open_one_file(struct node *node, GError **error)
{
    struct vmdk *v = vmdk_of(node);
    struct vmdk_extent *e = new_extents(v, 1);
    *e = (struct vmdk_extent){.type = VMDK_SPARSE, .file = node->file};
    if (!open_sparse(e, error)) {
        return false;
    }
    e->bytes = e->header.capacity * VMDK_SECTOR;
    v->desc_at = e->header.desc_at * VMDK_SECTOR;
    v->desc_room = e->header.desc_n * VMDK_SECTOR;
    if (e->cowd || !e->header.desc_at || !e->header.desc_n) {
        v->desc_room = 0;
    } else if (e->header.desc_at > VMDK_MAX_SECTORS || e->header.desc_n > VMDK_MAX_SECTORS ||
               !read_descriptor(node, v->desc_at, v->desc_room, error)) {
        if (error && !*error) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "a descriptor of %" G_GUINT64_FORMAT
                        " sectors at sector %" G_GUINT64_FORMAT,
                        e->header.desc_n, e->header.desc_at);
        }
        return false;
    }
    if (!v->text || !*v->text) {
        g_clear_pointer(&v->text, g_free);
        v->desc = (struct vmdk_desc){.parent_cid = UINT32_MAX,
                                     .create_type =
                                         g_strdup(e->cowd ? "vmfsSparse" : "monolithicSparse")};
        return true;
    }
    return vmdk_desc_parse(v->text, &v->desc, error);
}

/* The descriptor's own file as an extent of itself would let a guest rewrite it. */
static bool is_descriptor(const struct node *node, const struct file *f)
{
    g_autofree char *a = realpath(file_name(node->file), NULL), *b = realpath(file_name(f), NULL);
    return a && b && !strcmp(a, b);
}

/* Several extents may lie in one file, which is locked once. */
static struct file *file_of_line(struct node *node, unsigned i, bool *owns, GError **error)
{
    struct vmdk *v = vmdk_of(node);
    const struct vmdk_line *l = v->desc.lines;
    for (unsigned k = 0; k < i; k++) {
        if (l[k].name && !strcmp(l[k].name, l[i].name) && l[k].access == l[i].access) {
            if (v->extents[k].tables) {
                g_set_error(error, LODGE_ERROR, EINVAL,
                            "extents %u and %u are the same sparse file", k + 1, i + 1);
                return NULL;
            }
            *owns = false;
            return v->extents[k].file;
        }
    }
    *owns = true;
    return file_open_beside(node, l[i].name, node->read_only || l[i].access != VMDK_RW, error);
}

static bool open_flat(const struct vmdk_extent *e, GError **error)
{
    return !too_short(e, "a flat extent", e->offset + e->bytes, error);
}

static bool fits_line(const struct vmdk_extent *e, GError **error)
{
    uint64_t has = e->header.capacity * VMDK_SECTOR;
    if (has < e->bytes) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "'%s' has a capacity of %" G_GUINT64_FORMAT
                    " sectors, its extent line says %" G_GUINT64_FORMAT,
                    file_name(e->file), e->header.capacity, e->bytes / VMDK_SECTOR);
        return false;
    }
    return true;
}

static bool open_line(struct node *node, unsigned i, uint64_t start, GError **error)
{
    struct vmdk *v = vmdk_of(node);
    const struct vmdk_line *l = &v->desc.lines[i];
    struct vmdk_extent *e = &v->extents[i];
    *e = (struct vmdk_extent){.type = l->type,
                              .access = l->access,
                              .start = start,
                              .bytes = l->sectors * VMDK_SECTOR,
                              .offset = l->offset * VMDK_SECTOR};
    if (l->access == VMDK_NOACCESS) {
        g_set_error(error, LODGE_ERROR, EACCES, "extent %u is marked NOACCESS", i + 1);
        return false;
    }
    if (l->type == VMDK_ZERO) {
        return true;
    }
    e->file = file_of_line(node, i, &e->owns_file, error);
    if (!e->file) {
        return false;
    }
    if (is_descriptor(node, e->file)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "extent %u '%s' is the descriptor itself", i + 1,
                    l->name);
        return false;
    }
    return l->type == VMDK_FLAT || l->type == VMDK_VMFS
               ? open_flat(e, error)
               : open_sparse(e, error) && fits_line(e, error);
}

static bool type_known(const char *type)
{
    static const char *const types[] = {
        "monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse", "vmfs",  "vmfsSparse",
        "vmfsThin",       "vmfsPreallocated",   "vmfsEagerZeroedThick", "custom"};
    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        if (!g_ascii_strcasecmp(types[i], type)) {
            return true;
        }
    }
    return false;
}

static bool open_lines(struct node *node, GError **error)
{
    struct vmdk *v = vmdk_of(node);
    uint64_t start = 0;
    if (!type_known(v->desc.create_type)) {
        g_autofree char *shown = g_strescape(v->desc.create_type, NULL);
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Unsupported image type '%.40s'", shown);
        return false;
    }
    if (!v->desc.n_lines) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the descriptor has no extents");
        return false;
    }
    new_extents(v, v->desc.n_lines);
    for (unsigned i = 0; i < v->n; i++) {
        if (!open_line(node, i, start, error)) {
            return false;
        }
        start += v->extents[i].bytes;
    }
    return true;
}

static bool open_text(struct node *node, GError **error)
{
    struct vmdk *v = vmdk_of(node);
    v->desc_at = v->desc_room = 0;
    return read_descriptor(node, 0, file_size(node->file), error) &&
           vmdk_desc_parse(v->text, &v->desc, error) && open_lines(node, error);
}

/* ---- opening: what the node becomes ---- */

static bool is_empty(struct vmdk_extent *e)
{
    for (uint64_t i = 0; i < vmdk_tables(&e->header); i++) {
        uint32_t sector;
        if (word_at(e, e->gd + i * 4, true, &sector) || sector) {
            return false;
        }
    }
    return true;
}

static int layout_write(void *owner, uint64_t at, const void *from, size_t n)
{
    return file_write(owner, at, from, n);
}

/* streamOptimized is written once, from front to end: only an empty one can be. */
static bool start_layout(struct node *node, struct vmdk_extent *e, GError **error)
{
    struct vmdk_header h = e->header;
    if (!is_empty(e) || (h.flags & (VMDK_MARKERS | VMDK_REDUNDANT)) != VMDK_MARKERS) {
        g_set_error(error, LODGE_ERROR, EROFS,
                    "a streamOptimized image that holds data can only be opened read-only");
        return false;
    }
    e->layout = g_new0(struct vmdk_layout, 1);
    if (!vmdk_layout_init(e->layout, &h, error)) {
        g_clear_pointer(&e->layout, g_free);
        return false;
    }
    e->layout->write = layout_write;
    e->layout->owner = e->file;
    node->codec = &codec_zlib;
    return true;
}

static bool check_writable(struct node *node, struct vmdk_extent *e, GError **error)
{
    if (e->cowd || e->type == VMDK_FLAT || e->type == VMDK_VMFS || e->type == VMDK_ZERO) {
        if (e->cowd) {
            g_set_error(error, LODGE_ERROR, EROFS, "COWD extents can only be opened read-only");
        }
        return !e->cowd;
    }
    if (e->packed) {
        if (vmdk_of(node)->n > 1) {
            g_set_error(error, LODGE_ERROR, EROFS,
                        "compressed extents can only be opened read-only");
            return false;
        }
        return start_layout(node, e, error);
    }
    if (e->header.version == 3) {
        g_set_error(error, LODGE_ERROR, EROFS, "VMDK version 3 must be read only");
        return false;
    }
    if (e->start % node->granule ||
        (e->bytes % node->granule && e->start + e->bytes != node->size)) {
        g_set_error(
            error, LODGE_ERROR, EROFS,
            "an extent begins or ends inside a grain: the image can only be opened read-only");
        return false;
    }
    return true;
}

static bool settle(struct node *node, GError **error)
{
    struct vmdk *v = vmdk_of(node);
    node->size = 0;
    node->granule = 1;
    node->align = 1;
    for (unsigned i = 0; i < v->n; i++) {
        node->size += v->extents[i].bytes;
        node->granule = (uint32_t)MAX(node->granule, v->extents[i].grain);
    }
    for (unsigned i = 0; i < v->n && !node->read_only; i++) {
        if (!check_writable(node, &v->extents[i], error)) {
            return false;
        }
    }
    return true;
}

static void close_extents(struct vmdk *v)
{
    for (unsigned i = 0; i < v->n; i++) {
        struct vmdk_extent *e = &v->extents[i];
        tables_free(e->tables);
        if (e->layout) {
            vmdk_layout_clear(e->layout);
            g_free(e->layout);
        }
        if (e->owns_file) {
            file_close(e->file);
        }
    }
    g_clear_pointer(&v->extents, g_free);
    v->n = 0;
    vmdk_desc_clear(&v->desc);
    g_clear_pointer(&v->text, g_free);
}

bool vmdk_reopen(struct node *node, GError **error)
{
    uint8_t magic[4] = {0};
    close_extents(vmdk_of(node));
    file_read(node->file, 0, magic, sizeof(magic));
    if (le32_at(magic) == SESPARSE_MAGIC) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "seSparse extents are not supported");
        return false;
    }
    bool one = le32_at(magic) == KDMV_MAGIC || le32_at(magic) == COWD_MAGIC;
    bool good = (one ? open_one_file : open_text)(node, error) && settle(node, error);
    vmdk_of(node)->first_cid = vmdk_of(node)->desc.cid;
    return good;
}

static bool vmdk_open(struct node *node, unsigned flags, GError **error)
{
    struct vmdk *v = node->priv = g_new0(struct vmdk, 1);
    (void)flags;
    if (!vmdk_reopen(node, error)) {
        return false;
    }
    if (v->desc.parent_cid != UINT32_MAX) {
        if (!v->desc.parent_hint || !*v->desc.parent_hint) {
            g_set_error(
                error, LODGE_ERROR, EINVAL,
                "parentCID %08x says that there is a parent, but parentFileNameHint does not "
                "name it",
                v->desc.parent_cid);
            return false;
        }
        node->backing_name = g_strdup(v->desc.parent_hint);
        node->backing_format = g_strdup("vmdk");
    }
    return true;
}

/* ---- the content's number ---- */

int vmdk_write_text(struct node *node, const char *text)
{
    struct vmdk *v = vmdk_of(node);
    size_t n = strlen(text);
    int r;
    if (v->desc_room) {
        g_autofree uint8_t *raw = n < v->desc_room ? g_malloc0(v->desc_room) : NULL;
        if (!raw) {
            return -ENAMETOOLONG;
        }
        memcpy(raw, text, n);
        r = file_write(node->file, v->desc_at, raw, v->desc_room);
    } else {
        r = file_write(node->file, 0, text, n);
        r = r || file_size(node->file) == n ? r : file_resize(node->file, n);
    }
    if (r == 0) {
        g_free(v->text);
        v->text = g_strdup(text);
    }
    return r;
}

/* Before the first change of a session: disks that have this one as parent must not use it. */
static int touch(struct node *node)
{
    struct vmdk *v = vmdk_of(node);
    uint32_t cid = 1;
    if (v->touched || !v->text) {
        return 0;
    }
    cipher_random(&cid, sizeof(cid), NULL);
    g_autofree char *value = g_strdup_printf("%08x", cid);
    g_autofree char *text = vmdk_desc_replace(v->text, "CID", value);
    int r = text ? vmdk_write_text(node, text) : 0;
    v->touched = r == 0;
    v->desc.cid = r ? v->desc.cid : cid;
    return r;
}

static struct vmdk *parent_of(const struct node *node)
{
    const struct node *below = node->backing;
    return below && below->format == node->format ? vmdk_of(below) : NULL;
}

/* The parent is what this disk was made on only as long as nobody else wrote to it. */
static int check_parent(const struct node *node)
{
    const struct vmdk *below = parent_of(node);
    return below && below->first_cid != vmdk_of(node)->desc.parent_cid ? -EINVAL : 0;
}

/* After a commit the parent is another content, and rightly so. */
static int adopt_parent(struct node *node)
{
    struct vmdk *v = vmdk_of(node), *below = parent_of(node);
    if (!below || !v->text || below->desc.cid == v->desc.parent_cid) {
        return 0;
    }
    g_autofree char *value = g_strdup_printf("%08x", below->desc.cid);
    g_autofree char *text = vmdk_desc_replace(v->text, "parentCID", value);
    int r = text ? vmdk_write_text(node, text) : 0;
    if (r == 0) {
        v->desc.parent_cid = below->first_cid = below->desc.cid;
    }
    return r;
}

/* ---- flush and close ---- */

static int vmdk_flush(struct node *node)
{
    struct vmdk *v = vmdk_of(node);
    int r = node->read_only ? 0 : file_flush(node->file);
    for (unsigned i = 0; i < v->n && r == 0 && !node->read_only; i++) {
        r = vmdk_extent_flush(&v->extents[i]);
    }
    return r;
}

static void vmdk_close(struct node *node)
{
    struct vmdk *v = vmdk_of(node);
    if (!v) {
        return;
    }
    for (unsigned i = 0; i < v->n; i++) {
        struct vmdk_extent *e = &v->extents[i];
        if (e->unfinished || (e->tables && tables_dirty(e->tables))) {
            vmdk_extent_flush(e);
        }
    }
    close_extents(v);
    g_clear_pointer(&node->priv, g_free);
}

/* ---- the data path ---- */

static struct vmdk_extent *extent_at(struct vmdk *v, uint64_t offset)
{
    unsigned low = 0, high = v->n;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (v->extents[middle].start <= offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &v->extents[low];
}

/* How many grains from @g on share a grain table that is not there; 0: it is there. */
uint64_t vmdk_absent_grains(struct vmdk_extent *e, uint64_t g, bool wait)
{
    uint32_t sector;
    if (e->layout || word_at(e, e->gd + g / e->header.gtes * 4, wait, &sector) || sector) {
        return 0;
    }
    return e->header.gtes - g % e->header.gtes;
}

/* Where @length guest bytes from byte @in of the extent on lie: one kind, without a break.  Long
 * runs are cut, so that a table of a petabyte of nothing holds nobody up. */
static int run_of(struct vmdk_extent *e, uint64_t in, uint64_t length, bool wait, uint32_t *first,
                  uint64_t *run)
{
    uint64_t g = in / e->grain, n = 1;
    uint32_t entry;
    int r = vmdk_entry_get(e, g, wait, first);
    if (r < 0) {
        return r;
    }
    enum extent_kind kind = vmdk_entry_kind(e, *first);
    *run = e->grain - in % e->grain;
    for (unsigned steps = 0; *run < length && kind != EXTENT_PACKED && steps < RUN_STEPS; steps++) {
        uint64_t absent = kind == EXTENT_ABSENT ? vmdk_absent_grains(e, g + n, wait) : 0;
        if (!absent &&
            (vmdk_entry_get(e, g + n, wait, &entry) || vmdk_entry_kind(e, entry) != kind ||
             (kind == EXTENT_DATA && entry != *first + n * e->header.grain))) {
            break;
        }
        absent = MAX(absent, 1);
        *run += absent * e->grain;
        n += absent;
    }
    *run = MIN(*run, length);
    return 0;
}

/* Of a disk that does not end with a whole grain, some writers pack only what there is. */
static int unpack_short(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n)
{
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    size_t used, got = 0;
    int r = d ? -EIO : -ENOMEM;
    if (d && !libdeflate_zlib_decompress_ex(d, in, in_n, out, out_n, &used, &got)) {
        memset(out + got, 0, out_n - got);
        r = 0;
    }
    libdeflate_free_decompressor(d);
    return r;
}

static int unpack_grain(const uint8_t *in, size_t in_n, uint8_t *out, size_t out_n)
{
    int r = codec_zlib.unpack(in, in_n, out, out_n);
    return r == -EIO ? unpack_short(in, in_n, out, out_n) : r;
}

static const struct codec grain_codec = {.name = "zlib", .unpack = unpack_grain};

static int map_packed(struct vmdk_extent *e, uint64_t in, uint32_t entry, bool wait,
                      struct extent *out)
{
    uint8_t marker[GRAIN_MARKER_BYTES];
    uint64_t at = (uint64_t)entry * VMDK_SECTOR, start = in - in % e->grain;
    uint32_t stored = (uint32_t)vmdk_stored_max(&e->header);
    if (e->header.flags & VMDK_MARKERS) {
        int r = wait ? file_read(e->file, at, marker, sizeof(marker)) : -EAGAIN;
        if (r < 0) {
            return r;
        }
        if (le32_at(marker + 8) > stored || le64_at(marker) != start / VMDK_SECTOR) {
            return -EIO;
        }
        stored = le32_at(marker + 8);
        at += sizeof(marker);
    }
    out->at = at;
    out->codec = &grain_codec;
    out->stored = stored;
    out->unit = (uint32_t)e->grain;
    out->start = e->start + start;
    return 0;
}

static int map_sparse(struct node *node, struct vmdk_extent *e, uint64_t in, uint64_t length,
                      bool wait, struct extent *out)
{
    uint32_t entry;
    int r = run_of(e, in, length, wait, &entry, &out->length);
    if (r < 0) {
        return r;
    }
    out->kind = vmdk_entry_kind(e, entry);
    switch (out->kind) {
    case EXTENT_DATA:
        out->at = (uint64_t)entry * VMDK_SECTOR + in % e->grain;
        out->in_place = vmdk_of(node)->touched;
        return 0;
    case EXTENT_PACKED:
        return map_packed(e, in, entry, wait, out);
    case EXTENT_ABSENT:
        return check_parent(node);
    case EXTENT_ZERO:
        break;
    }
    return 0;
}

static int vmdk_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                    struct extent *out)
{
    struct vmdk_extent *e = extent_at(vmdk_of(node), offset);
    uint64_t in = offset - e->start;
    length = MIN(length, e->bytes - in);
    *out = (struct extent){.file = e->file, .length = length};
    if (e->type == VMDK_ZERO) {
        out->kind = EXTENT_ZERO;
        return 0;
    }
    if (e->type == VMDK_FLAT || e->type == VMDK_VMFS) {
        out->at = e->offset + in;
        out->in_place = vmdk_of(node)->touched && e->access == VMDK_RW;
        out->holes = true;
        return 0;
    }
    return map_sparse(node, e, in, length, wait, out);
}

static int take_grains(struct vmdk_extent *e, uint64_t n, uint64_t *at)
{
    if (!e->next) {
        uint64_t end = MAX(file_size(e->file), e->header.overhead * VMDK_SECTOR);
        e->next = (end + e->grain - 1) & ~(e->grain - 1);
    }
    if ((e->next + n * e->grain) / VMDK_SECTOR > UINT32_MAX) {
        return -EFBIG; /* tables count sectors in 32 bits: 2 TiB */
    }
    *at = e->next;
    e->next += n * e->grain;
    return 0;
}

/* @length ends at a whole grain, or where the disk does. */
static int place_sparse(struct vmdk_extent *e, uint64_t in, uint64_t length, struct extent *out)
{
    uint32_t entry;
    int r = run_of(e, in, length, true, &entry, &out->length);
    if (r < 0) {
        return r;
    }
    if (vmdk_entry_kind(e, entry) == EXTENT_DATA) {
        out->at = (uint64_t)entry * VMDK_SECTOR + in % e->grain;
        return 0;
    }
    out->fresh = true;
    return take_grains(e, (out->length + e->grain - 1) / e->grain, &out->at);
}

static int vmdk_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    struct vmdk_extent *e = extent_at(vmdk_of(node), offset);
    uint64_t in = offset - e->start;
    if (e->type == VMDK_ZERO || e->access != VMDK_RW) {
        return -EROFS;
    }
    if (e->packed) {
        return -ENOTSUP;
    }
    int r = touch(node);
    length = MIN(length, e->bytes - in);
    *out = (struct extent){.file = e->file, .length = length};
    if (r == 0 && (e->type == VMDK_FLAT || e->type == VMDK_VMFS)) {
        out->at = e->offset + in;
        return 0;
    }
    return r ? r : place_sparse(e, in, length, out);
}

static int vmdk_place_packed(struct node *node, uint64_t offset, uint32_t stored,
                             struct extent *out)
{
    struct vmdk_extent *e = &vmdk_of(node)->extents[0];
    struct vmdk_layout *l = e->layout;
    uint8_t marker[GRAIN_MARKER_BYTES];
    uint64_t at;
    if (!l) {
        return -ENOTSUP;
    }
    int r = 0;
    if (!e->unfinished) { /* nothing of the tables behind may show through new grains */
        r = file_resize(e->file, l->at * VMDK_SECTOR);
        e->unfinished = r == 0;
    }
    r = r ? r : touch(node);
    r = r ? r : vmdk_layout_place(l, offset, stored, &at);
    vmdk_grain_marker(marker, offset, stored);
    r = r ? r : file_write(e->file, at, marker, sizeof(marker));
    if (r == 0) {
        *out = (struct extent){.kind = EXTENT_PACKED,
                               .length = MIN(e->grain, node->size - offset),
                               .at = at + sizeof(marker),
                               .fresh = true};
    }
    return r;
}

static int vmdk_link(struct node *node, uint64_t offset, const struct extent *placed)
{
    struct vmdk_extent *e = extent_at(vmdk_of(node), offset);
    int r = 0;
    if (e->layout) {
        return 0; /* its table has it since it was placed */
    }
    for (uint64_t done = 0; done < placed->length && r == 0; done += e->grain) {
        r = vmdk_entry_set(e, (offset - e->start + done) / e->grain,
                           (uint32_t)((placed->at + done) / VMDK_SECTOR));
    }
    return r;
}

/* What lies last is free again; other space stays unused. */
static void vmdk_unplace(struct node *node, uint64_t offset, const struct extent *placed)
{
    struct vmdk_extent *e = extent_at(vmdk_of(node), offset);
    uint64_t bytes = e->layout ? 0 : (placed->length + e->grain - 1) / e->grain * e->grain;
    if (e->layout) {
        uint64_t g = offset / e->grain;
        if (g / e->header.gtes == e->layout->gt_index) {
            e->layout->gt[g % e->header.gtes] = 0;
        }
    } else if (placed->at + bytes == e->next) {
        e->next = placed->at;
    }
}

/* The parent shows through again.  The grains are not used again: until the tables are on the
 * medium they still hold what a reader after a crash would see. */
static int make_absent(struct vmdk_extent *e, uint64_t in, uint64_t length)
{
    int r = 0;
    for (uint64_t g = in / e->grain; g * e->grain < in + length && r == 0; g++) {
        r = vmdk_entry_set(e, g, 0);
    }
    return r;
}

static int zero_sparse(struct node *node, struct vmdk_extent *e, uint64_t in, uint64_t length,
                       enum zero_kind kind)
{
    int r = 0;
    for (uint64_t n; length && r == 0; in += n, length -= n) {
        uint32_t entry;
        r = run_of(e, in, length, true, &entry, &n);
        if (r < 0) {
            return r;
        }
        enum extent_kind is = vmdk_entry_kind(e, entry);
        if (kind == ZERO_ABSENT && node->backing && is != EXTENT_PACKED) {
            r = is == EXTENT_ABSENT ? 0 : make_absent(e, in, n);
            continue;
        }
        switch (is) {
        case EXTENT_DATA:
            r = file_zero(e->file, (uint64_t)entry * VMDK_SECTOR + in % e->grain, n,
                          kind != ZERO_KEEP);
            break;
        case EXTENT_PACKED:
            r = -ENOTSUP;
            break;
        case EXTENT_ZERO:
            break;
        case EXTENT_ABSENT:
            if (node->backing && !(e->header.flags & VMDK_ZERO_GRAINS)) {
                return -ENOTSUP;
            }
            for (uint64_t g = in / e->grain; node->backing && g * e->grain < in + n && r == 0;
                 g++) {
                r = vmdk_entry_set(e, g, ENTRY_ZERO);
            }
            break;
        }
    }
    return r;
}

static int vmdk_zero(struct node *node, uint64_t offset, uint64_t length, enum zero_kind kind)
{
    int r = touch(node);
    r = r || kind != ZERO_ABSENT ? r : adopt_parent(node);
    while (length && r == 0) {
        struct vmdk_extent *e = extent_at(vmdk_of(node), offset);
        uint64_t in = offset - e->start, n = MIN(length, e->bytes - in);
        if (kind == ZERO_ABSENT && node->backing && !e->tables) {
            r = -ENOTSUP;
        } else if (e->type == VMDK_FLAT || e->type == VMDK_VMFS) {
            r = e->access == VMDK_RW ? file_zero(e->file, e->offset + in, n, kind != ZERO_KEEP)
                                     : -EROFS;
        } else if (e->type != VMDK_ZERO) {
            r = zero_sparse(node, e, in, n, kind);
        }
        offset += n;
        length -= n;
    }
    return r;
}

/* ---- the format ---- */

static uint32_t vmdk_cluster_size(struct node *node)
{
    return node->granule > 1 ? node->granule : 0;
}

/* Of all files of the disk. */
static uint64_t vmdk_allocated(struct node *node)
{
    const struct vmdk *v = vmdk_of(node);
    uint64_t n = file_allocated(node->file);
    for (unsigned i = 0; i < v->n; i++) {
        n += v->extents[i].owns_file ? file_allocated(v->extents[i].file) : 0;
    }
    return n;
}

static const struct format_tools tools = {
    .create_options = vmdk_create_options,
    .create = vmdk_create,
    .resize = vmdk_resize,
    .check = vmdk_check,
    .describe = vmdk_describe,
    .cluster_size = vmdk_cluster_size,
    .allocated = vmdk_allocated,
    .set_backing = vmdk_set_backing,
    .dirty_flag = true,
};

const struct image_format format_vmdk = {
    .name = "vmdk",
    .about = "VMware disk image",
    .spec = "VMware Virtual Disk Format 5.0",
    .probe = vmdk_probe,
    .open = vmdk_open,
    .close = vmdk_close,
    .map = vmdk_map,
    .place = vmdk_place,
    .link = vmdk_link,
    .unplace = vmdk_unplace,
    .zero = vmdk_zero,
    .place_packed = vmdk_place_packed,
    .flush = vmdk_flush,
    .tools = &tools,
};
