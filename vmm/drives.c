/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/json.h"
#include "host/image/image.h"
#include "host/image/options.h"
#include "vmm/build.h"
#include "vmm/options.h"
#include "vmm/vm.h"

#include <string.h>

/*
 * drives - from -drive, -hda and its like to images, and the places where boards find them
 */
enum { PLACES_MAX = 32 };

struct interface {
    const char *name;
    unsigned places;     /* how many the board has room for */
    bool holds_cd;
    const char *refused; /* why not */
};

static const struct interface interfaces[] = {
    {"ide", 4, true, NULL},
    {"floppy", 2, false, NULL},
    {"pflash", 2, false, NULL},
    {"virtio", PLACES_MAX, false, NULL},
    {"none", PLACES_MAX, true, NULL},
    {"scsi", 0, true, "use -device virtio-scsi-pci and scsi-hd"},
    {"sd", 0, false, "there are no SD cards"},
    {"mtd", 0, false, "there is no flash but pflash"},
    {"xen", 0, false, "there is no Xen"},
};
enum { IF_IDE, IF_FLOPPY, IF_PFLASH, IF_VIRTIO, IF_NONE };

static struct image *placed[IF_NONE][PLACES_MAX];
static GHashTable *cds; /* set of struct image * */
static unsigned unnamed; /* if=none drives without an id so far */

struct drive {
    const struct interface *iface;
    bool cd;
    int index; /* -1: the next free one */
    const char *serial;
    struct image_options image;
};

static bool bad(GError **error, const char *key, const char *value)
{
    g_set_error(error, LODGE_ERROR, EINVAL, "no %s=%s", key, value);
    return false;
}

static const struct {
    const char *name;
    bool direct, no_flush, writethrough;
} cache_modes[] = {
    {"writeback", false, false, false},  {"none", true, false, false},
    {"writethrough", false, false, true}, {"directsync", true, false, true},
    {"unsafe", false, true, false},
};

static bool take_cache(KeyVal *kv, struct image_options *image, GError **error)
{
    const char *mode = keyval_get(kv, "cache");
    bool found = !mode, writeback = true;
    for (unsigned i = 0; mode && i < G_N_ELEMENTS(cache_modes); i++) {
        if (g_str_equal(cache_modes[i].name, mode)) {
            image->direct = cache_modes[i].direct;
            image->no_flush = cache_modes[i].no_flush;
            image->writethrough = cache_modes[i].writethrough;
            found = true;
        }
    }
    if (!found) {
        return bad(error, "cache", mode);
    }
    if (!keyval_bool(kv, "cache.direct", &image->direct, error) ||
        !keyval_bool(kv, "cache.no-flush", &image->no_flush, error) ||
        !keyval_bool(kv, "cache.writeback", &writeback, error)) {
        return false;
    }
    image->writethrough |= !writeback;
    return true;
}

static bool take_on_error(KeyVal *kv, const char *key, enum image_on_error *out, GError **error)
{
    const char *value = keyval_get(kv, key);
    return !value || image_on_error_parse(value, out) || bad(error, key, value);
}

static bool take_zeroes(KeyVal *kv, struct image_options *image, GError **error)
{
    static const char *const names[] = {"off", "on", "unmap"};
    const char *value = keyval_get(kv, "detect-zeroes");
    for (unsigned i = 0; value && i < G_N_ELEMENTS(names); i++) {
        if (g_str_equal(names[i], value)) {
            image->zeroes = (enum image_zeroes)i;
            return true;
        }
    }
    return !value || bad(error, "detect-zeroes", value);
}

/* "throttling.bps-total" is the long form of "bps". */
static const struct {
    const char *name, *long_name;
} limit_names[THROTTLE_KINDS] = {
    [THROTTLE_BPS] = {"bps", "bps-total"},        [THROTTLE_BPS_READ] = {"bps_rd", "bps-read"},
    [THROTTLE_BPS_WRITE] = {"bps_wr", "bps-write"}, [THROTTLE_IOPS] = {"iops", "iops-total"},
    [THROTTLE_IOPS_READ] = {"iops_rd", "iops-read"}, [THROTTLE_IOPS_WRITE] = {"iops_wr", "iops-write"},
};

static bool take_limit(KeyVal *kv, unsigned kind, const char *suffix, const char *long_suffix,
                       uint64_t *out, GError **error)
{
    g_autofree char *name = g_strconcat(limit_names[kind].name, suffix, NULL);
    g_autofree char *full = g_strconcat("throttling.", limit_names[kind].long_name, long_suffix, NULL);
    return keyval_size(kv, name, 1, out, error) && keyval_size(kv, full, 1, out, error);
}

static bool take_limits(KeyVal *kv, struct image_options *image, GError **error)
{
    struct throttle_limits *l = &image->limits;
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        if (!take_limit(kv, i, "", "", &l->rate[i], error) ||
            !take_limit(kv, i, "_max", "-max", &l->burst[i], error) ||
            !take_limit(kv, i, "_max_length", "-max-length", &l->seconds[i], error)) {
            return false;
        }
    }
    if (!keyval_size(kv, "iops_size", 1, &l->request_bytes, error) ||
        !keyval_size(kv, "throttling.iops-size", 1, &l->request_bytes, error)) {
        return false;
    }
    image->group = keyval_get(kv, "throttling.group");
    const char *wrong = throttle_check(l);
    if (wrong) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s", wrong);
    }
    return !wrong;
}

/* Keys that are the drive's and not the image's. */
static bool take_drive_keys(KeyVal *kv, struct image_options *image, GError **error)
{
    return keyval_bool(kv, "readonly", &image->read_only, error) &&
           keyval_bool(kv, "read-only", &image->read_only, error) &&
           keyval_bool(kv, "snapshot", &image->snapshot, error) && take_cache(kv, image, error) &&
           take_zeroes(kv, image, error) && take_limits(kv, image, error) &&
           take_on_error(kv, "rerror", &image->on_read_error, error) &&
           take_on_error(kv, "werror", &image->on_write_error, error);
}

static bool take_place(KeyVal *kv, struct drive *d, GError **error)
{
    const char *iface = keyval_get(kv, "if"), *media = keyval_get(kv, "media");
    unsigned index = UINT_MAX, bus = 0, unit = UINT_MAX, on_bus = 2;
    for (unsigned i = 0; i < G_N_ELEMENTS(interfaces); i++) {
        if (g_str_equal(interfaces[i].name, iface ? iface : "ide")) {
            d->iface = &interfaces[i];
        }
    }
    if (!d->iface) {
        return bad(error, "if", iface);
    }
    if (d->iface->refused) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "if=%s: %s", iface, d->iface->refused);
        return false;
    }
    if (media && !g_str_equal(media, "disk") && !g_str_equal(media, "cdrom")) {
        return bad(error, "media", media);
    }
    d->cd = media && *media == 'c';
    if (d->cd && !d->iface->holds_cd) {
        g_set_error(error, LODGE_ERROR, EINVAL, "if=%s cannot hold a CD-ROM", iface);
        return false;
    }
    if (!keyval_unsigned(kv, "index", 1000, &index, error) ||
        !keyval_unsigned(kv, "bus", 100, &bus, error) ||
        !keyval_unsigned(kv, "unit", 100, &unit, error)) {
        return false;
    }
    if (keyval_get(kv, "bus") || unit != UINT_MAX) {
        index = bus * on_bus + (unit == UINT_MAX ? 0 : unit);
    }
    d->index = index == UINT_MAX ? -1 : (int)index;
    return true;
}

static bool settle_place(struct drive *d, GError **error)
{
    unsigned kind = (unsigned)(d->iface - interfaces);
    if (kind == IF_NONE) {
        d->index = d->image.id ? 0 : (int)unnamed++;
        return true;
    }
    for (int i = 0; d->index < 0 && i < (int)d->iface->places; i++) {
        if (!placed[kind][i]) {
            d->index = i;
        }
    }
    if (d->index < 0 || d->index >= (int)d->iface->places) {
        g_set_error(error, LODGE_ERROR, EINVAL, "if=%s has %u places, 0 to %u", d->iface->name,
                    d->iface->places, d->iface->places - 1);
        return false;
    }
    if (placed[kind][d->index]) {
        g_set_error(error, LODGE_ERROR, EEXIST, "drive with bus=%d, unit=%d (index=%d) exists",
                    d->index / 2, d->index % 2, d->index);
        return false;
    }
    return true;
}

static char *default_id(const struct drive *d)
{
    if (d->iface == &interfaces[IF_IDE]) {
        return g_strdup_printf("ide%d-%s%d", d->index / 2, d->cd ? "cd" : "hd", d->index % 2);
    }
    return g_strdup_printf("%s%d", d->iface->name, d->index);
}

static bool make_drive(struct drive *d, GError **error)
{
    g_autofree char *id = d->image.id ? g_strdup(d->image.id) : default_id(d);
    bool has_file = (d->image.file && *d->image.file) ||
                    (!d->image.file && json_object_get(d->image.options, "file"));
    d->image.id = id;
    d->image.read_only |= d->cd;
    if (image_find(id)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "drive id \"%s\" is taken", id);
        return false;
    }
    bool may_be_empty = d->cd || d->iface == &interfaces[IF_FLOPPY] ||
                        d->iface == &interfaces[IF_NONE];
    if (!has_file && !may_be_empty) {
        g_set_error(error, LODGE_ERROR, EINVAL, "it needs file=");
        return false;
    }
    Image *img = has_file ? image_open(&d->image, error) : image_new_empty(id);
    if (!img) {
        return false;
    }
    if (d->cd) {
        cds = cds ? cds : g_hash_table_new(NULL, NULL);
        g_hash_table_add(cds, img);
    }
    if (d->iface != &interfaces[IF_NONE]) {
        placed[d->iface - interfaces][d->index] = img;
    }
    if (d->iface == &interfaces[IF_IDE]) {
        build_ide_is_cd((unsigned)d->index, d->cd);
    }
    if (d->iface == &interfaces[IF_VIRTIO]) {
        g_autofree char *serial = d->serial ? g_strdup_printf(",serial=%s", d->serial) : g_strdup("");
        g_autofree char *text = g_strdup_printf("virtio-blk-pci,drive=%s%s", id, serial);
        build_add_device(text);
    }
    return true;
}

/* What nobody has asked for is the image's: one object, for the format and what is below. */
static json_t *rest_of(KeyVal *kv, GError **error)
{
    g_autoptr(KeyVal) rest = keyval_new();
    for (unsigned i = 0; i < keyval_count(kv); i++) {
        if (!keyval_known(kv, i)) {
            keyval_set(rest, keyval_key(kv, i), keyval_value(kv, i));
        }
    }
    return options_nest(rest, error);
}

bool vm_drive_add(KeyVal *kv, GError **error)
{
    struct drive d = {.index = -1};
    const char *driver = keyval_get(kv, "driver");
    d.image.id = keyval_get(kv, "id");
    d.image.file = keyval_get(kv, "file");
    d.image.format = keyval_get(kv, "format");
    d.image.format = d.image.format ? d.image.format : driver;
    d.image.node_name = keyval_get(kv, "node-name");
    d.image.snapshot = vm_options()->snapshot;
    d.serial = keyval_get(kv, "serial");
    if (!take_place(kv, &d, error) || !take_drive_keys(kv, &d.image, error)) {
        return false;
    }
    g_autoptr(json_t) rest = rest_of(kv, error);
    if (!rest) {
        return false;
    }
    d.image.options = rest;
    if (d.image.file && g_str_has_prefix(d.image.file, "json:")) {
        d.image.format = NULL;
    }
    return settle_place(&d, error) && make_drive(&d, error);
}

bool vm_drive_is_cd(const struct image *img)
{
    return cds && g_hash_table_contains(cds, img);
}

struct device *vm_drive_owner(const struct image *img)
{
    for (struct device *d = vm_board()->devices; d; d = d->next) {
        for (unsigned i = 0; i < d->model->nprops; i++) {
            const struct prop *p = &d->model->props[i];
            if (p->kind == PROP_DRIVE && *(Image **)((char *)d + p->slot) == img) {
                return d;
            }
        }
    }
    return NULL;
}

bool vm_drive_removable(const struct image *img)
{
    const struct device *dev = vm_drive_owner(img);
    return vm_drive_is_cd(img) || (dev && g_str_equal(dev->model->name, "isa-fdc"));
}

struct image *build_placed(const char *iface, unsigned index)
{
    for (unsigned kind = 0; kind < IF_NONE; kind++) {
        if (g_str_equal(interfaces[kind].name, iface)) {
            return placed[kind][index];
        }
    }
    return NULL;
}
