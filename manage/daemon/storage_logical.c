/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * logical: volumes are the logical volumes of an LVM volume group.
 *
 * Spec: lvm(8), lvmreport(7), "JSON".
 */
#include "base/json.h"
#include "manage/daemon/run.h"
#include "manage/daemon/storage_kind.h"
#include "manage/error.h"

#include <inttypes.h>
#include <string.h>

enum { SECONDS = 20 };

static const char *const formats[] = {"lvm2", "unknown", NULL};

static bool lvm(const char *const *argv, GError **error)
{
    return run_program(argv, NULL, SECONDS, NULL, NULL, error);
}

/* The rows of a report, of which all values are text: [{"lv_name": "a", ...}, ...]. */
static json_t *report(const char *what, const char *columns, const char *group, GError **error)
{
    g_autofree char *text = NULL;
    g_autofree char *kind = g_strconcat(what, "s", NULL);
    const char *const argv[] = {kind, "--reportformat", "json", "--units", "b", "--nosuffix",
                                "-o", columns,          group,  NULL};
    if (!run_program(argv, NULL, SECONDS, &text, NULL, error)) {
        return NULL;
    }
    g_autoptr(json_t) all = json_parse(text, strlen(text), error);
    json_t *rows = json_object_get(json_array_get(json_object_get(all, "report"), 0), what);
    if (all && !rows) {
        libvirt_error(error, ERR_INTERNAL, "%s tells nothing", kind);
    }
    return json_incref(rows);
}

static const char *text_of(const json_t *row, const char *column)
{
    const char *text = json_string_value(json_object_get(row, column));
    return text ? text : "";
}

static int64_t bytes_of(const json_t *row, const char *column)
{
    return (int64_t)g_ascii_strtoull(text_of(row, column), NULL, 10);
}

static bool group_size(const struct pool_def *def, struct pool_content *out, GError **error)
{
    g_autoptr(json_t) rows = report("vg", "vg_size,vg_free", def->source_name, error);
    const json_t *row = json_array_get(rows, 0);
    out->capacity = (uint64_t)bytes_of(row, "vg_size");
    out->available = (uint64_t)bytes_of(row, "vg_free");
    out->allocation = out->capacity - MIN(out->available, out->capacity);
    return rows;
}

static bool refresh(struct pool_def *def, struct pool_content *out, GError **error)
{
    size_t i;
    json_t *row;
    if (!group_size(def, out, error)) {
        return false;
    }
    g_autoptr(json_t) rows =
        report("lv", "lv_name,origin,lv_uuid,lv_size,lv_attr", def->source_name, error);
    json_array_foreach(rows, i, row)
    {
        const char *name = text_of(row, "lv_name"), *origin = text_of(row, "origin");
        if (!*name || strlen(text_of(row, "lv_attr")) < 5 || text_of(row, "lv_attr")[4] != 'a' ||
            strchr("teiTM", text_of(row, "lv_attr")[0])) {
            continue; /* not active, or what others are made of */
        }
        struct volume_def *vol = volume_def_new(name);
        vol->type = 1 + VOLUME_BLOCK;
        vol->path = g_build_filename(def->path, name, NULL);
        vol->key = g_strdup(text_of(row, "lv_uuid"));
        vol->capacity = vol->allocation = bytes_of(row, "lv_size");
        device_vol_refresh(def, vol, NULL);
        if (*origin) {
            vol->has_backing = true;
            vol->backing_path = g_build_filename(def->path, origin, NULL);
        }
        g_ptr_array_add(out->volumes, vol);
    }
    return rows;
}

static bool find(const struct pool_def *spec, GPtrArray *found, GError **error)
{
    size_t i;
    json_t *row;
    (void)spec;
    g_autoptr(json_t) rows = report("pv", "pv_name,vg_name", NULL, error);
    g_autoptr(GHashTable) groups = g_hash_table_new(g_str_hash, g_str_equal);
    json_array_foreach(rows, i, row)
    {
        const char *group = text_of(row, "vg_name");
        struct pool_def *def = g_hash_table_lookup(groups, group);
        if (!*group) {
            continue;
        }
        if (!def) {
            def = pool_def_new(POOL_NONE);
            def->source_name = g_strdup(group);
            def->format = g_strdup("lvm2");
            g_ptr_array_add(found, def);
            g_hash_table_insert(groups, def->source_name, def);
        }
        pool_add_device(def, text_of(row, "pv_name"));
    }
    return rows;
}

/* The devices of <source>, each prepared, as a new group. */
static bool build(struct pool_def *def, unsigned flags, GError **error)
{
    g_autoptr(GPtrArray) group = g_ptr_array_new();
    g_ptr_array_add(group, "vgcreate");
    g_ptr_array_add(group, def->source_name);
    for (unsigned i = 0; i < xml_count(def->devices); i++) {
        char *path = ((struct pool_device *)def->devices->pdata[i])->path;
        const char *const argv[] = {"pvcreate", flags & BUILD_OVERWRITE ? "-ffy" : "-y", "--", path,
                                    NULL};
        const char *const careful[] = {"pvcreate", "--", path, NULL};
        if (!lvm(flags & BUILD_OVERWRITE ? argv : careful, error)) {
            return false;
        }
        g_ptr_array_add(group, path);
    }
    if (!xml_count(def->devices)) {
        libvirt_error(error, ERR_XML, "missing storage pool source device name");
        return false;
    }
    g_ptr_array_add(group, NULL);
    return lvm((const char *const *)group->pdata, error);
}

static bool start(struct pool_def *def, GError **error)
{
    const char *const argv[] = {"vgchange", "-aly", "--", def->source_name, NULL};
    return lvm(argv, error);
}

static bool stop(struct pool_def *def, GError **error)
{
    const char *const argv[] = {"vgchange", "-aln", "--", def->source_name, NULL};
    return lvm(argv, error);
}

static bool delete_group(struct pool_def *def, GError **error)
{
    const char *const argv[] = {"vgremove", "-f", "--", def->source_name, NULL};
    bool ok = lvm(argv, error);
    for (unsigned i = 0; ok && i < xml_count(def->devices); i++) {
        const char *const wipe[] = {"pvremove", "--",
                                    ((struct pool_device *)def->devices->pdata[i])->path, NULL};
        ok = lvm(wipe, error);
    }
    return ok;
}

static bool vol_plan(struct pool_def *def, struct volume_def *vol, GError **error)
{
    vol->type = 1 + VOLUME_BLOCK;
    g_free(vol->path);
    vol->path = g_build_filename(def->path, vol->name, NULL);
    if (vol->encryption || vol->name[0] == '-') {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      vol->encryption ? "<encryption> of logical volumes is not supported"
                                      : "a logical volume's name does not begin with '-'");
        return false;
    }
    return true;
}

static bool vol_delete(struct pool_def *def, const struct volume_def *vol, GError **error)
{
    g_autofree char *name = g_strdup_printf("%s/%s", def->source_name, vol->name);
    const char *const argv[] = {"lvremove", "-f", "--", name, NULL};
    return lvm(argv, error);
}

static bool vol_create(struct pool_def *def, struct volume_def *vol, const struct volume_def *from,
                       unsigned flags, GError **error)
{
    g_autofree char *size = g_strdup_printf("%" PRId64 "b", vol->capacity);
    g_autofree char *origin = vol->has_backing ? g_path_get_basename(vol->backing_path) : NULL;
    g_autofree char *base = origin ? g_strdup_printf("%s/%s", def->source_name, origin) : NULL;
    const char *const plain[] = {"lvcreate", "-Wy", "-y", "--name",         vol->name,
                                 "-L",       size,  "--", def->source_name, NULL};
    const char *const over[] = {"lvcreate", "--name", vol->name, "-L", size,
                                "-s",       "--",     base,      NULL};
    if (flags) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "logical volumes are not preallocated");
        return false;
    }
    if (!lvm(base ? over : plain, error)) {
        return false;
    }
    bool ok = device_vol_refresh(def, vol, error) &&
              bytes_set_permissions(vol->path, vol->permissions, (mode_t)-1, error) &&
              (!from || bytes_copy(from, vol, false, error));
    if (!ok) {
        vol_delete(def, vol, NULL);
    }
    return ok;
}

static bool vol_resize(struct pool_def *def, struct volume_def *vol, uint64_t size, unsigned flags,
                       GError **error)
{
    g_autofree char *bytes = g_strdup_printf("%" PRIu64 "b", size);
    g_autofree char *name = g_strdup_printf("%s/%s", def->source_name, vol->name);
    const char *const argv[] = {"lvresize", "-f", "-L", bytes, "--", name, NULL};
    (void)flags;
    return lvm(argv, error) && device_vol_refresh(def, vol, error);
}

const struct storage_kind storage_kind_logical = {
    .type = POOL_LOGICAL,
    .about = "logical volumes of a volume group",
    .rules = {.needs = NEEDS_NAME, .formats = formats, .path = "/dev/"},
    .find = find,
    .build = build,
    .start = start,
    .refresh = refresh,
    .stop = stop,
    .remove = delete_group,
    .vol_plan = vol_plan,
    .vol_create = vol_create,
    .vol_refresh = device_vol_refresh,
    .vol_delete = vol_delete,
    .vol_resize = vol_resize,
    .vol_wipe = bytes_wipe,
};
