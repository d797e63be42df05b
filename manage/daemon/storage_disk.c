/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * disk: volumes are the partitions of a disk.
 *
 * Spec: sfdisk(8), "INPUT FORMATS" and --json; partx(8), by which the kernel hears of partitions
 * on devices whose tables it does not read itself.
 */
#include "base/json.h"
#include "manage/daemon/run.h"
#include "manage/daemon/storage_kind.h"
#include "manage/error.h"

#include <inttypes.h>
#include <string.h>

enum { SECONDS = 60, ALIGN = 1 << 20, PARTITIONS_MAX = 128 };

static const char *const labels[] = {"unknown", "dos", "gpt", NULL};
static const char *const types[] = {"none",       "linux",    "linux-swap", "linux-lvm",
                                    "linux-raid", "extended", NULL};
static const char *const sfdisk_types[] = {"linux", "linux", "swap", "lvm", "raid", "extended"};

static const char *device_of(const struct pool_def *def)
{
    return ((const struct pool_device *)def->devices->pdata[0])->path;
}

/* ---- reading the table ---- */

struct partition {
    unsigned number;
    int64_t start, end; /* bytes; the end is behind the last */
    char node[4096];
};

struct table {
    struct partition all[PARTITIONS_MAX];
    unsigned n;
    int64_t first, last; /* bytes where partitions may be */
    char label[16];
};

static int by_start(const void *a, const void *b)
{
    const struct partition *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static unsigned number_at_end(const char *text)
{
    size_t n = strlen(text);
    while (n && g_ascii_isdigit(text[n - 1])) {
        n--;
    }
    return (unsigned)g_ascii_strtoull(text + n, NULL, 10);
}

static void take_partition(struct table *t, const json_t *entry, int64_t sector)
{
    const char *node = json_string_value(json_object_get(entry, "node"));
    json_int_t start = json_integer_value(json_object_get(entry, "start"));
    json_int_t size = json_integer_value(json_object_get(entry, "size"));
    if (!node || t->n == PARTITIONS_MAX || start < 0 || size <= 0 ||
        start > INT64_MAX / 2 / sector || size > INT64_MAX / 2 / sector) {
        return;
    }
    struct partition *p = &t->all[t->n++];
    *p = (struct partition){number_at_end(node), start * sector, (start + size) * sector, ""};
    g_strlcpy(p->node, node, sizeof(p->node));
}

static bool read_table(const struct pool_def *def, struct table *t, GError **error)
{
    g_autofree char *text = NULL;
    const char *const argv[] = {"sfdisk", "--json", "--", device_of(def), NULL};
    if (!run_program(argv, NULL, SECONDS, &text, NULL, error)) {
        return false;
    }
    g_autoptr(json_t) all = json_parse(text, strlen(text), error);
    const json_t *table = json_object_get(all, "partitiontable");
    int64_t sector = json_integer_value(json_object_get(table, "sectorsize"));
    sector = sector >= 512 && sector <= 65536 ? sector : 512;
    memset(t, 0, sizeof(*t));
    if (!table) {
        return all ? (libvirt_error(error, ERR_INTERNAL, "sfdisk tells nothing of %s",
                                    device_of(def)),
                      false)
                   : false;
    }
    const char *label = json_string_value(json_object_get(table, "label"));
    g_strlcpy(t->label, label ? label : "", sizeof(t->label));
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(table, "partitions"), i, entry)
    {
        take_partition(t, entry, sector);
    }
    qsort(t->all, t->n, sizeof(*t->all), by_start);
    t->first = MAX(json_integer_value(json_object_get(table, "firstlba")) * sector, ALIGN);
    t->last = (json_integer_value(json_object_get(table, "lastlba")) + 1) * sector;
    return true;
}

static bool disk_size(const struct pool_def *def, int64_t *size, GError **error)
{
    struct volume_def *disk = volume_def_new("disk");
    disk->path = g_strdup(device_of(def));
    bool ok = device_vol_refresh(NULL, disk, error);
    *size = ok ? disk->capacity : 0;
    volume_def_free(disk);
    return ok;
}

/* The free space that begins at or behind *@at, without what is lost to alignment. */
static bool next_free(const struct table *t, int64_t disk, int64_t *at, struct free_extent *out)
{
    int64_t last = t->last > ALIGN ? t->last : disk;
    for (unsigned i = 0; i <= t->n; i++) {
        int64_t end = i < t->n ? t->all[i].start : last;
        int64_t start = (MAX(*at, t->first) + ALIGN - 1) / ALIGN * ALIGN;
        if (start < end && (i == t->n || t->all[i].end > *at)) {
            *out = (struct free_extent){start, end};
            *at = i < t->n ? t->all[i].end : last;
            return true;
        }
        *at = i < t->n ? MAX(*at, t->all[i].end) : *at;
    }
    return false;
}

static bool refresh(struct pool_def *def, struct pool_content *out, GError **error)
{
    g_autofree struct table *t = g_new(struct table, 1);
    struct free_extent hole;
    int64_t size, at = 0;
    if (!disk_size(def, &size, error) || !read_table(def, t, error)) {
        return false;
    }
    out->capacity = (uint64_t)size;
    for (unsigned i = 0; i < t->n; i++) {
        g_autofree char *name = g_path_get_basename(t->all[i].node);
        struct volume_def *vol = volume_def_new(name);
        vol->type = 1 + VOLUME_BLOCK;
        vol->path = g_strdup(t->all[i].node);
        vol->key = g_strdup(vol->path);
        vol->format = g_strdup("none");
        vol->capacity = vol->allocation = t->all[i].end - t->all[i].start;
        volume_add_device(vol, device_of(def), t->all[i].start, t->all[i].end);
        device_vol_refresh(def, vol, NULL); /* a node may be missing: the table says the size */
        out->allocation += (uint64_t)vol->capacity;
        g_ptr_array_add(out->volumes, vol);
    }
    out->free_extents = g_ptr_array_new_with_free_func(g_free);
    while (next_free(t, size, &at, &hole)) {
        out->available += (uint64_t)(hole.end - hole.start);
        g_ptr_array_add(out->free_extents, free_extent_new(hole.start, hole.end));
    }
    return true;
}

/* ---- changing it ---- */

/* partx cannot make the kernel's list the same as an empty one; it can empty it. */
static bool tell_kernel(const struct pool_def *def, GError **error)
{
    g_autofree struct table *t = g_new(struct table, 1);
    const char *const update[] = {"partx", "--update", device_of(def), NULL};
    const char *const empty[] = {"partx", "--delete", device_of(def), NULL};
    int none_there;
    if (!read_table(def, t, error)) {
        return false;
    }
    return t->n ? run_program(update, NULL, SECONDS, NULL, NULL, error)
                : run_program(empty, NULL, SECONDS, NULL, &none_there, error);
}

static bool build(struct pool_def *def, unsigned flags, GError **error)
{
    g_autofree struct table *t = g_new(struct table, 1);
    bool unknown = !strcmp(def->format, "unknown");
    if ((flags & BUILD_OVERWRITE) && (flags & BUILD_NO_OVERWRITE)) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "flags 'overwrite' and 'no-overwrite' are mutually exclusive");
        return false;
    }
    if (!(flags & BUILD_OVERWRITE) && read_table(def, t, NULL)) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "Device '%s' already has a partition table of type %s: it is replaced with "
                      "--overwrite only",
                      device_of(def), t->label);
        return false;
    }
    g_autofree char *script = g_strdup_printf("label: %s\n", unknown ? "dos" : def->format);
    const char *const argv[] = {"sfdisk", "--quiet",      "--wipe", "always",
                                "--",     device_of(def), NULL};
    return run_program(argv, script, SECONDS, NULL, NULL, error) && tell_kernel(def, error);
}

static bool start(struct pool_def *def, GError **error)
{
    g_autofree struct table *t = g_new(struct table, 1);
    if (!read_table(def, t, error)) {
        return false;
    }
    if (strcmp(def->format, "unknown") && strcmp(def->format, t->label)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "disk label of '%s' is %s, not %s",
                      device_of(def), t->label, def->format);
        return false;
    }
    return true;
}

static bool vol_plan(struct pool_def *def, struct volume_def *vol, GError **error)
{
    (void)def;
    vol->type = 1 + VOLUME_BLOCK;
    g_free(vol->path);
    vol->path = g_build_filename("/dev", vol->name, NULL);
    if (vol->has_backing || vol->encryption) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "partitions have no <%s>",
                      vol->has_backing ? "backingStore" : "encryption");
        return false;
    }
    return true;
}

/* As the kernel names it: a "p" comes between two digits. */
static char *node_of(const struct pool_def *def, unsigned number)
{
    const char *device = device_of(def);
    bool digit = g_ascii_isdigit(device[strlen(device) - 1]);
    return g_strdup_printf("%s%s%u", device, digit ? "p" : "", number);
}

static const char *type_of(const char *format)
{
    for (unsigned i = 0; types[i]; i++) {
        if (!format || !strcmp(format, types[i])) {
            return sfdisk_types[i];
        }
    }
    return NULL;
}

static bool free_space(const struct pool_def *def, const struct table *t, int64_t bytes,
                       int64_t *where, GError **error)
{
    struct free_extent hole;
    int64_t size, at = 0;
    if (!disk_size(def, &size, error)) {
        return false;
    }
    while (next_free(t, size, &at, &hole)) {
        if (hole.end - hole.start >= bytes) {
            *where = hole.start;
            return true;
        }
    }
    libvirt_error(error, ERR_INTERNAL, "no large enough free extent");
    return false;
}

static bool vol_create(struct pool_def *def, struct volume_def *vol, const struct volume_def *from,
                       unsigned flags, GError **error)
{
    g_autofree struct table *t = g_new(struct table, 1);
    const char *type = type_of(vol->format);
    int64_t where, bytes = (vol->capacity + ALIGN - 1) / ALIGN * ALIGN;
    if (!type || flags) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      type ? "partitions are not preallocated" : "unknown volume format type %s",
                      vol->format);
        return false;
    }
    if (!read_table(def, t, error)) {
        return false;
    }
    unsigned number = 1;
    for (unsigned i = 0; i < t->n; i++) { /* as often as there may be one that is taken */
        for (unsigned k = 0; k < t->n; k++) {
            number += t->all[k].number == number;
        }
    }
    g_autofree char *node = node_of(def, number), *name = g_path_get_basename(node);
    if (strcmp(name, vol->name)) {
        libvirt_error(error, ERR_INVALID_ARG, "invalid partition name '%s', expected '%s'",
                      vol->name, name);
        return false;
    }
    if (bytes <= 0 || !free_space(def, t, bytes, &where, error)) {
        return bytes <= 0 ? (libvirt_error(error, ERR_INVALID_ARG, "a partition of no size"), false)
                          : false;
    }
    g_autofree char *script = g_strdup_printf(
        "start=%" PRId64 "KiB, size=%" PRId64 "KiB, type=%s\n", where / 1024, bytes / 1024, type);
    const char *const argv[] = {"sfdisk", "--quiet", "--append",     "--wipe-partitions",
                                "always", "--",      device_of(def), NULL};
    if (!run_program(argv, script, SECONDS, NULL, NULL, error)) {
        return false;
    }
    g_free(vol->path);
    vol->path = g_strdup(node);
    g_free(vol->key);
    vol->key = g_strdup(node);
    bool ok = tell_kernel(def, error) && device_vol_refresh(def, vol, error) &&
              (!from || bytes_copy(from, vol, false, error));
    if (ok) {
        volume_add_device(vol, device_of(def), where, where + bytes);
    } else {
        g_autofree char *text = g_strdup_printf("%u", number);
        const char *const undo[] = {"sfdisk", "--quiet", "--delete", device_of(def), text, NULL};
        run_program(undo, NULL, SECONDS, NULL, NULL, NULL);
        tell_kernel(def, NULL);
    }
    return ok;
}

static bool vol_delete(struct pool_def *def, const struct volume_def *vol, GError **error)
{
    g_autofree char *number = g_strdup_printf("%u", number_at_end(vol->path));
    const char *const argv[] = {"sfdisk", "--quiet", "--delete", device_of(def), number, NULL};
    return run_program(argv, NULL, SECONDS, NULL, NULL, error) && tell_kernel(def, error);
}

const struct storage_kind storage_kind_disk = {
    .type = POOL_DISK,
    .about = "partitions of a disk",
    .rules = {.needs = NEEDS_DEVICE | NEEDS_PATH, .formats = labels},
    .volume_formats = types,
    .build = build,
    .start = start,
    .refresh = refresh,
    .vol_plan = vol_plan,
    .vol_create = vol_create,
    .vol_refresh = device_vol_refresh,
    .vol_delete = vol_delete,
    .vol_wipe = bytes_wipe,
};
