/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * vmdk: new disks of each subformat.
 *
 * Spec: VMware, "Virtual Disk Format 5.0", sections "The Descriptor File", "Hosted Sparse
 * Extents".
 */
#include "base/bytes.h"
#include "host/image/chain.h"
#include "host/image/cipher.h"
#include "host/image/options.h"
#include "host/image/protocol.h"
#include "host/image/vmdk_node.h"

#include <string.h>
#include <unistd.h>

const struct option_desc vmdk_create_options[] = {
    {"adapter_type", "str",
     "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX", NULL},
    {"backing_file", "str", "File name of a base image", NULL},
    {"backing_fmt", "str", "Must be 'vmdk' if present", NULL},
    {"compat6", "bool (on/off)", "VMDK version 6 image", "off"},
    {"hwversion", "str", "VMDK hardware version", "undefined"},
    {"subformat", "str",
     "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | "
     "twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} ",
     NULL},
    {"toolsversion", "str", "VMware guest tools version", NULL},
    {"zeroed_grain", "bool (on/off)",
     "Enable efficient zero writes using the zeroed-grain GTE feature", NULL},
    {NULL},
};

struct subformat {
    const char *name;
    bool flat, split, packed;
};

static const struct subformat subformats[] = {
    {"monolithicSparse", false, false, false},    {"monolithicFlat", true, false, false},
    {"twoGbMaxExtentSparse", false, true, false}, {"twoGbMaxExtentFlat", true, true, false},
    {"streamOptimized", false, false, true},
};

/* What a new disk is to be, taken from the options. */
struct plan {
    const struct image_create *how;
    const struct subformat *sub;
    const char *adapter, *hw, *tools;
    const char *path; /* of several files; NULL: the name is none of a local file */
    bool zero_grains;
    uint64_t sectors;
    uint32_t parent_cid;
};

static bool take_subformat(struct plan *p, GError **error)
{
    const char *name = option_str(p->how->options, "subformat");
    name = name ? name : subformats[0].name;
    for (unsigned i = 0; i < G_N_ELEMENTS(subformats); i++) {
        if (!strcmp(subformats[i].name, name)) {
            p->sub = &subformats[i];
            return true;
        }
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "Invalid subformat '%s'", name);
    return false;
}

static bool take_hardware(struct plan *p, GError **error)
{
    static const char *const adapters[] = {"ide", "lsilogic", "buslogic", "legacyESX", NULL};
    const Options *o = p->how->options;
    bool compat6 = option_bool(o, "compat6", false);
    p->adapter = option_str(o, "adapter_type");
    p->hw = option_str(o, "hwversion");
    p->hw = p->hw && strcmp(p->hw, "undefined") ? p->hw : NULL;
    p->tools = option_str(o, "toolsversion");
    if (p->adapter && !g_strv_contains(adapters, p->adapter)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Unknown adapter type: %s", p->adapter);
        return false;
    }
    if (compat6 && p->hw) {
        g_set_error(error, LODGE_ERROR, EINVAL, "compat6 cannot be enabled with hwversion set");
        return false;
    }
    p->hw = compat6 ? "6" : p->hw;
    return true;
}

bool vmdk_parent_cid(const char *path, const char *name, const char *format, uint32_t *cid,
                     GError **error)
{
    g_autofree char *scheme = name_scheme(name), *dir = path ? g_path_get_dirname(path) : NULL;
    g_autofree char *full = scheme || !path || g_path_is_absolute(name)
                                ? g_strdup(name)
                                : g_build_filename(dir, name, NULL);
    struct chain_open how = {.name = full,
                             .format = "vmdk",
                             .flags = OPEN_READ_ONLY | OPEN_NO_IO | OPEN_NO_BACKING | OPEN_SHARE};
    if (format && strcmp(format, "vmdk")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid backing file format: %s. Must be vmdk",
                    format);
        return false;
    }
    struct node *parent = chain_open(&how, error);
    if (parent) {
        *cid = vmdk_of(parent)->desc.cid;
        chain_close(parent);
    }
    return parent;
}

/* The parent must be there: the new disk names the content that it is made on. */
static bool take_parent(struct plan *p, GError **error)
{
    p->parent_cid = UINT32_MAX;
    if (!p->how->backing_name) {
        return true;
    }
    if (p->sub->flat) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Flat image can't have backing file");
        return false;
    }
    return vmdk_parent_cid(p->path, p->how->backing_name, p->how->backing_format, &p->parent_cid,
                           error);
}

static bool make_plan(const struct image_create *how, struct plan *p, GError **error)
{
    *p = (struct plan){.how = how,
                       .path = how->name ? name_local_path(how->name) : NULL,
                       .sectors = (how->size + VMDK_SECTOR - 1) / VMDK_SECTOR,
                       .zero_grains = option_bool(how->options, "zeroed_grain", false)};
    if (!take_subformat(p, error) || !take_hardware(p, error)) {
        return false;
    }
    if (p->sub->flat && p->zero_grains) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Flat image can't enable zeroed grain");
        return false;
    }
    if (p->sectors == 0 || p->sectors > VMDK_MAX_SECTORS) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "a size of %" G_GUINT64_FORMAT " bytes is not between 1 byte and 64 PiB",
                    how->size);
        return false;
    }
    if ((p->sub->flat || p->sub->split) && !p->path) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "subformat %s needs local files", p->sub->name);
        return false;
    }
    return take_parent(p, error);
}

/* ---- the descriptor ---- */

static char *make_text(const struct plan *p, const char *lines)
{
    uint32_t cid = 1;
    cipher_random(&cid, sizeof(cid), NULL);
    return vmdk_desc_make(&(struct vmdk_desc_options){.create_type = p->sub->name,
                                                      .adapter_type = p->adapter,
                                                      .hw_version = p->hw,
                                                      .tools_version = p->tools,
                                                      .parent_hint = p->how->backing_name,
                                                      .cid = cid,
                                                      .parent_cid = p->parent_cid,
                                                      .sectors = p->sectors,
                                                      .lines = lines});
}

static char *make_line(uint64_t sectors, bool flat, const char *path)
{
    g_autofree char *name = g_path_get_basename(path);
    return g_strdup_printf("RW %" G_GUINT64_FORMAT " %s \"%s\"%s\n", sectors,
                           flat ? "FLAT" : "SPARSE", name, flat ? " 0" : "");
}

char *vmdk_extent_path(const char *path, bool flat, unsigned number)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
    const char *end = dot ? dot : path + strlen(path);
    int base = (int)(end - path);
    return number ? g_strdup_printf("%.*s-%c%03u%s", base, path, flat ? 'f' : 's', number, end)
                  : g_strdup_printf("%.*s-flat%s", base, path, end);
}

/* ---- sparse extents ---- */

/* Where the parts of a sparse extent go, in sectors. */
struct layout {
    uint64_t grains, tables, gd_sectors, gt_sectors, rgd, gd, data;
};

static struct layout lay_out(uint64_t sectors)
{
    uint64_t grain = VMDK_GRAIN_BYTES / VMDK_SECTOR;
    struct layout l = {.grains = (sectors + grain - 1) / grain,
                       .gt_sectors = VMDK_GTES * 4 / VMDK_SECTOR,
                       .rgd = 1 + VMDK_DESC_SECTORS};
    l.tables = (l.grains + VMDK_GTES - 1) / VMDK_GTES;
    l.gd_sectors = (l.tables * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR;
    l.gd = l.rgd + l.gd_sectors + l.tables * l.gt_sectors;
    l.data = l.gd + l.gd_sectors + l.tables * l.gt_sectors;
    l.data = (l.data + grain - 1) / grain * grain;
    return l;
}

/* @n numbers from @first on, @step apart, at byte @at. */
static int write_numbers(struct file *f, uint64_t at, uint64_t n, uint64_t first, uint64_t step)
{
    uint8_t raw[4096];
    int r = 0;
    for (uint64_t i = 0; i < n && r == 0; i += sizeof(raw) / 4) {
        size_t count = (size_t)MIN(n - i, sizeof(raw) / 4);
        for (size_t k = 0; k < count; k++) {
            le32_put(raw + k * 4, (uint32_t)(first + (i + k) * step));
        }
        r = file_write(f, at + i * 4, raw, count * 4);
    }
    return r;
}

static int write_directory(struct file *f, const struct layout *l, uint64_t sector, bool placed)
{
    uint64_t tables = sector + l->gd_sectors;
    int r = write_numbers(f, sector * VMDK_SECTOR, l->tables, tables, l->gt_sectors);
    if (r == 0 && placed) {
        r = write_numbers(f, tables * VMDK_SECTOR, l->grains, l->data,
                          VMDK_GRAIN_BYTES / VMDK_SECTOR);
    }
    return r;
}

static int write_head(struct file *f, const struct vmdk_header *h, const char *desc)
{
    uint8_t raw[(1 + VMDK_DESC_SECTORS) * VMDK_SECTOR] = {0};
    size_t n = desc ? strlen(desc) : 0;
    if (n >= sizeof(raw) - VMDK_SECTOR) {
        return -ENAMETOOLONG;
    }
    vmdk_header_write(h, raw);
    memcpy(raw + VMDK_SECTOR, desc ? desc : "", n);
    return file_write(f, 0, raw, sizeof(raw));
}

bool vmdk_create_sparse(struct file *f, uint64_t sectors, bool zero_grains, const char *desc,
                        enum preallocation how, GError **error)
{
    struct layout l = lay_out(sectors);
    bool placed = how != PREALLOC_OFF;
    uint64_t data = l.data * VMDK_SECTOR, end = data + (placed ? l.grains * VMDK_GRAIN_BYTES : 0);
    struct vmdk_header h = {.version = zero_grains ? 2 : 1,
                            .flags = VMDK_NEWLINES | VMDK_REDUNDANT |
                                     (zero_grains ? VMDK_ZERO_GRAINS : 0),
                            .capacity = sectors,
                            .grain = VMDK_GRAIN_BYTES / VMDK_SECTOR,
                            .desc_at = 1,
                            .desc_n = VMDK_DESC_SECTORS,
                            .gtes = VMDK_GTES,
                            .rgd = l.rgd,
                            .gd = l.gd,
                            .overhead = l.data};
    if (end / VMDK_SECTOR > UINT32_MAX || l.tables > 32 << 20) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "a sparse extent of %" G_GUINT64_FORMAT " sectors is too large", sectors);
        return false;
    }
    int r = file_resize(f, data);
    r = r ? r : write_directory(f, &l, l.rgd, placed);
    r = r ? r : write_directory(f, &l, l.gd, placed);
    r = r ? r : write_head(f, &h, desc);
    if (r < 0) {
        error_set_errno(error, -r, "cannot write the sparse extent's header and tables");
        return false;
    }
    return file_preallocate(f, data, end, how, error);
}

/* ---- subformats ---- */

static int put(void *owner, uint64_t at, const void *from, size_t n)
{
    return file_write(owner, at, from, n);
}

static bool create_stream(const struct plan *p, const char *text, GError **error)
{
    struct vmdk_header h = vmdk_stream_header(p->sectors);
    struct vmdk_layout l;
    if (vmdk_tables(&h) > 32 << 20) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "a streamOptimized disk of %" G_GUINT64_FORMAT " sectors is too large",
                    p->sectors);
        return false;
    }
    if (!vmdk_layout_init(&l, &h, error)) {
        return false;
    }
    l.write = put;
    l.owner = p->how->file;
    int r = write_head(p->how->file, &h, text);
    r = r ? r : vmdk_layout_finish(&l);
    vmdk_layout_clear(&l);
    if (r < 0) {
        error_set_errno(error, -r, "cannot write the header and the end");
    }
    return r == 0;
}

static bool create_one(const struct plan *p, GError **error)
{
    g_autofree char *line = make_line(p->sectors, false, p->path ? p->path : "disk.vmdk");
    g_autofree char *text = make_text(p, line);
    return p->sub->packed ? create_stream(p, text, error)
                          : vmdk_create_sparse(p->how->file, p->sectors, p->zero_grains, text,
                                               p->how->preallocation, error);
}

static bool fill_extent(const struct plan *p, struct file *f, uint64_t sectors, GError **error)
{
    return p->sub->flat
               ? file_preallocate(f, 0, sectors * VMDK_SECTOR, p->how->preallocation, error)
               : vmdk_create_sparse(f, sectors, p->zero_grains, NULL, p->how->preallocation, error);
}

static bool create_extent(const struct plan *p, const char *path, uint64_t sectors, GError **error)
{
    struct file *f = file_create(path, error);
    bool good = f && fill_extent(p, f, sectors, error);
    if (f && !good) {
        g_prefix_error(error, "'%s': ", path);
    }
    file_close(f);
    return good;
}

/* Extents, then the descriptor that names them; what was made goes away if one fails. */
static bool create_several(const struct plan *p, GError **error)
{
    uint64_t max = p->sub->split ? VMDK_SPLIT_SECTORS : p->sectors;
    uint64_t count = (p->sectors + max - 1) / max;
    g_autoptr(GPtrArray) made = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GString) lines = g_string_new(NULL);
    bool good = count <= VMDK_MAX_EXTENTS;
    if (!good) {
        g_set_error(error, LODGE_ERROR, EFBIG,
                    "a disk of %" G_GUINT64_FORMAT " extents, the most is %u", count,
                    VMDK_MAX_EXTENTS);
    }
    for (uint64_t i = 0; i < count && good; i++) {
        uint64_t sectors = MIN(max, p->sectors - i * max);
        char *path = vmdk_extent_path(p->path, p->sub->flat, p->sub->split ? (unsigned)i + 1 : 0);
        g_autofree char *line = make_line(sectors, p->sub->flat, path);
        g_ptr_array_add(made, path);
        g_string_append(lines, line);
        good = create_extent(p, path, sectors, error);
    }
    g_autofree char *text = make_text(p, lines->str);
    int r = good ? file_write(p->how->file, 0, text, strlen(text)) : 0;
    if (r < 0) {
        error_set_errno(error, -r, "cannot write the descriptor");
    }
    for (unsigned i = 0; i < made->len && (!good || r < 0); i++) {
        unlink(g_ptr_array_index(made, i));
    }
    return good && r == 0;
}

bool vmdk_create(const struct image_create *how, GError **error)
{
    struct plan p;
    if (!make_plan(how, &p, error)) {
        return false;
    }
    return p.sub->flat || p.sub->split ? create_several(&p, error) : create_one(&p, error);
}
