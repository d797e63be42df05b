/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/qmp_handlers.h"

#include "host/image/chain.h"
#include "host/image/describe.h"
#include "host/image/dirty.h"
#include "host/image/image.h"
#include "host/image/options.h"
#include "host/image/protocol.h"
#include "vmm/blockdev.h"
#include "vmm/events.h"
#include "vmm/monitor/qmp_transaction.h"
#include "vmm/vm.h"

#include <string.h>

/* Drives, nodes and media. */

#define HANDLER(name) json_t *qmp_##name(json_t *args, GError **error)
#define UNUSED        (void)args, (void)error

static json_t *u64(uint64_t v)
{
    return json_integer((json_int_t)MIN(v, (uint64_t)INT64_MAX));
}

/* ---- what there is ---- */

static struct image *drive_of(struct device *dev)
{
    for (unsigned i = 0; i < dev->model->nprops; i++) {
        const struct prop *p = &dev->model->props[i];
        Image *img = p->kind == PROP_DRIVE ? *(Image **)((char *)dev + p->slot) : NULL;
        if (img) {
            return img;
        }
    }
    return NULL;
}

static const char *name_of(const Image *img, const struct node *n)
{
    const char *name = json_text(n->options, "node-name");
    return name ? name : n == image_top(img) && image_node_name(img) ? image_node_name(img)
                       : n == image_top(img)                        ? image_id(img)
                                                                    : "";
}

/* The image with what is below it. */
static json_t *image_json(struct node *n)
{
    json_t *info = node_info(n);
    if (n->backing) {
        json_object_set_new(info, "backing-image", image_json(n->backing));
    }
    return info;
}

static void add_limits(json_t *o, const struct throttle_limits *l)
{
    static const char *const names[THROTTLE_KINDS] = {"bps", "bps_rd", "bps_wr",
                                                      "iops", "iops_rd", "iops_wr"};
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        json_object_set_new(o, names[i], u64(l->rate[i]));
    }
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        g_autofree char *burst = g_strconcat(names[i], "_max", NULL);
        g_autofree char *length = g_strconcat(burst, "_length", NULL);
        if (l->burst[i]) {
            json_object_set_new(o, burst, u64(l->burst[i]));
            json_object_set_new(o, length, u64(MAX(l->seconds[i], 1)));
        }
    }
    if (l->request_bytes) {
        json_object_set_new(o, "iops_size", u64(l->request_bytes));
    }
}

static unsigned depth_below(const struct node *n)
{
    unsigned depth = 0;
    for (n = n->backing; n; n = n->backing) {
        depth++;
    }
    return depth;
}

static json_t *node_json(Image *img, struct node *n)
{
    struct throttle_limits limits = image_limits(img);
    bool top = n == image_top(img), encrypted = n->cipher != NULL;
    json_t *o = json_pack("{s:s, s:s, s:b, s:s, s:b, s:s, s:I}", "file",
                          top && image_file(img) ? image_file(img) : node_name(n), "node-name",
                          name_of(img, n), "ro", n->read_only, "drv", n->format->name, "encrypted",
                          encrypted, "detect_zeroes", "off", "write_threshold",
                          (json_int_t)(n->file ? n->file->threshold : 0));
    json_object_set_new(o, "cache", json_pack("{s:b, s:b, s:b}", "writeback",
                                              !(n->flags & OPEN_WRITETHROUGH), "direct",
                                              (n->flags & OPEN_DIRECT) != 0, "no-flush",
                                              (n->flags & OPEN_NO_FLUSH) != 0));
    json_object_set_new(o, "backing_file_depth", json_integer(depth_below(n)));
    if (n->backing_name) {
        json_object_set_new(o, "backing_file", json_string(n->backing_name));
    }
    add_limits(o, &limits);
    if (throttle_is_on(&(struct throttle){.limits = limits})) {
        json_object_set_new(o, "group",
                            json_string(image_group(img) ? image_group(img) : image_id(img)));
    }
    json_t *bitmaps = dirty_list(n);
    if (json_array_size(bitmaps)) {
        json_object_set(o, "dirty-bitmaps", bitmaps);
    }
    json_decref(bitmaps);
    return o;
}

static json_t *inserted(Image *img)
{
    json_t *o = node_json(img, image_top(img));
    json_object_set_new(o, "image", image_json(image_top(img)));
    return o;
}

static void add_block(Image *img, void *list)
{
    bool removable = vm_drive_removable(img);
    const struct device *dev = vm_drive_owner(img);
    json_t *row = json_pack("{s:s, s:s, s:b, s:b}", "device",
                            image_node_name(img) && !strcmp(image_id(img), image_node_name(img))
                                ? "" : image_id(img),
                            "type", "unknown", "removable", removable, "locked", 0);
    if (dev) {
        json_object_set_new(row, "qdev", json_string(dev->path));
    }
    if (image_inserted(img)) {
        json_object_set_new(row, "inserted", inserted(img));
    }
    if (removable) {
        json_object_set_new(row, "tray_open", json_boolean(!image_inserted(img)));
    }
    int held_for = image_held_for(img);
    json_object_set_new(row, "io-status",
                        json_string(!held_for            ? "ok"
                                    : held_for == ENOSPC ? "nospace"
                                                         : "failed"));
    json_array_append_new(list, row);
}

HANDLER(query_block)
{
    UNUSED;
    json_t *list = json_array();
    image_each(add_block, list);
    return list;
}

/* The file under a node, where somebody gave it a name. */
static void add_file_node(struct node *n, json_t *list)
{
    const char *name = json_text(json_object_get(n->options, "file"), "node-name");
    uint64_t size = file_size(n->file);
    if (name) {
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:b, s:s, s:b, s:{s:s, s:s, s:o, s:o}}", "file",
                            file_name(n->file), "node-name", name, "ro", n->file->read_only, "drv",
                            n->file->protocol->name, "encrypted", 0, "image", "filename",
                            file_name(n->file), "format", n->file->protocol->name, "virtual-size",
                            u64(size), "actual-size", u64(file_allocated(n->file))));
    }
}

static void add_nodes(Image *img, void *list)
{
    for (struct node *n = image_top(img); n; n = n->backing) {
        json_t *o = node_json(img, n);
        json_object_set_new(o, "image", node_info(n));
        json_array_append_new(list, o);
        add_file_node(n, list);
    }
}

/* ---- written beyond an offset ---- */

struct passed {
    unsigned file; /* .watched: it may be gone by then, and another lie in its place */
    uint64_t threshold, excess;
    const char *name;
};

static const char *file_node_name(const struct node *n)
{
    return json_text(json_object_get(n->options, "file"), "node-name");
}

static void name_passed(Image *img, void *data)
{
    struct passed *p = data;
    for (struct node *n = image_top(img); n && !p->name; n = n->backing) {
        if (n->file && n->file->watched == p->file) {
            p->name = file_node_name(n) ? file_node_name(n) : name_of(img, n);
        }
    }
}

static gboolean tell_passed(gpointer data)
{
    g_autofree struct passed *p = data;
    image_each(name_passed, p); /* nothing if it was closed meanwhile */
    if (p->name) {
        vm_event("BLOCK_WRITE_THRESHOLD",
                 json_pack("{s:s, s:o, s:o}", "node-name", p->name, "amount-exceeded",
                           u64(p->excess), "write-threshold", u64(p->threshold)));
    }
    return G_SOURCE_REMOVE;
}

static void on_passed(struct file *f, uint64_t threshold, uint64_t excess)
{
    struct passed *p = g_new0(struct passed, 1);
    *p = (struct passed){.file = f->watched, .threshold = threshold, .excess = excess};
    g_idle_add(tell_passed, p);
}

HANDLER(write_threshold)
{
    const char *name = qmp_str(args, "node-name");
    json_int_t threshold = json_integer_value(json_object_get(args, "write-threshold"));
    Image *img = NULL;
    struct node *n = name ? image_find_node(name, &img) : NULL;
    if (!n || !n->file || threshold < 0) {
        g_set_error(error, LODGE_ERROR, n ? EINVAL : ENODEV,
                    n ? "no threshold for node '%s'" : "Device '%s' not found", name ? name : "");
        return NULL;
    }
    if (g_strcmp0(file_node_name(n), name) != 0 && strcmp(n->format->name, "raw") != 0) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "offsets of node '%s' are not its file's: a threshold needs the file's name",
                    name);
        return NULL;
    }
    static unsigned last;
    file_passed = on_passed;
    n->file->watched = n->file->watched ? n->file->watched : ++last;
    __atomic_store_n(&n->file->threshold, (uint64_t)threshold, __ATOMIC_RELEASE);
    return NULL;
}

HANDLER(query_named_block_nodes)
{
    UNUSED;
    json_t *list = json_array();
    image_each(add_nodes, list);
    return list;
}

static json_t *stats_json(const struct image_stats *s)
{
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"rd_bytes", s->rd_bytes},         {"rd_operations", s->rd_ops},
        {"rd_total_time_ns", s->rd_ns},    {"wr_bytes", s->wr_bytes},
        {"wr_operations", s->wr_ops},      {"wr_total_time_ns", s->wr_ns},
        {"flush_operations", s->flush_ops}, {"flush_total_time_ns", s->flush_ns},
        {"wr_highest_offset", s->wr_highest}, {"failed_rd_operations", s->rd_failed},
        {"failed_wr_operations", s->wr_failed}, {"failed_flush_operations", s->flush_failed},
    };
    json_t *o = json_object();
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        json_object_set_new(o, rows[i].name, u64(rows[i].value));
    }
    return o;
}

static void add_blockstats(Image *img, void *list)
{
    struct image_stats s = image_stats(img);
    const struct device *dev = vm_drive_owner(img);
    json_t *row = json_pack("{s:s, s:o}", "device", image_id(img), "stats", stats_json(&s));
    if (image_top(img)) {
        json_object_set_new(row, "node-name", json_string(name_of(img, image_top(img))));
    }
    if (dev) {
        json_object_set_new(row, "qdev", json_string(dev->path));
    }
    json_array_append_new(list, row);
}

HANDLER(query_blockstats)
{
    UNUSED;
    json_t *list = json_array();
    image_each(add_blockstats, list);
    return list;
}

/* ---- media ---- */

/* The drive that "device", "node-name" or the device "id" mean. */
static Image *drive_in(json_t *args, GError **error)
{
    const char *drive = qmp_str(args, "device"), *id = qmp_str(args, "id");
    const char *node = qmp_str(args, "node-name");
    const char *shown = drive && *drive ? drive : node ? node : id ? id : "";
    Image *img = drive && *drive ? image_find(drive) : NULL;
    struct device *dev = id ? board_find(vm_board(), id) : NULL;
    if (!img && node) {
        image_find_node(node, &img);
    }
    img = img ? img : dev ? drive_of(dev) : NULL;
    if (!img) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Device '%s' not found", shown);
    }
    return img;
}

static Image *removable(json_t *args, GError **error)
{
    Image *img = drive_in(args, error);
    if (img && !vm_drive_removable(img)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Device '%s' is not removable", image_id(img));
        return NULL;
    }
    return img;
}

/* "id" is the device's where it has one. */
void event_tray_moved(Image *img, bool open)
{
    const char *id = image_id(img);
    for (struct device *d = vm_board()->devices; d; d = d->next) {
        id = d->id && drive_of(d) == img ? d->id : id;
    }
    vm_event("DEVICE_TRAY_MOVED", json_pack("{s:s, s:s, s:b}", "device", image_id(img), "id", id,
                                            "tray-open", open));
}

HANDLER(eject)
{
    Image *img = removable(args, error);
    if (img) {
        image_eject(img);
        event_tray_moved(img, true);
    }
    return NULL;
}

HANDLER(open_tray)
{
    return qmp_eject(args, error);
}

HANDLER(close_tray)
{
    Image *img = removable(args, error);
    if (img) {
        event_tray_moved(img, false);
    }
    return NULL;
}

HANDLER(change_medium)
{
    Image *img = removable(args, error);
    const char *mode = qmp_str(args, "read-only-mode");
    struct image_options o = {.file = qmp_str(args, "filename"), .format = qmp_str(args, "format")};
    if (!img) {
        return NULL;
    }
    o.id = image_id(img);
    o.read_only = mode && g_str_equal(mode, "read-write")  ? false
                  : mode && g_str_equal(mode, "read-only") ? true
                                                           : vm_drive_is_cd(img);
    if (image_change(img, &o, error)) {
        event_tray_moved(img, false);
    }
    return NULL;
}

HANDLER(blockdev_add)
{
    vm_blockdev_add(args, error);
    return NULL;
}

HANDLER(blockdev_del)
{
    vm_blockdev_remove(qmp_str(args, "node-name"), error);
    return NULL;
}

/* ---- changes ---- */

HANDLER(block_resize)
{
    json_int_t size = json_integer_value(json_object_get(args, "size"));
    Image *img = drive_in(args, error);
    if (img && (size < 0 || size % 512)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'size' expects a multiple of 512");
    } else if (img) {
        image_resize(img, (uint64_t)size, error);
    }
    return NULL;
}

HANDLER(block_set_io_throttle)
{
    static const char *const names[THROTTLE_KINDS] = {"bps", "bps_rd", "bps_wr",
                                                      "iops", "iops_rd", "iops_wr"};
    struct throttle_limits l = {0};
    Image *img = drive_in(args, error);
    bool fine = img && json_u64(args, "iops_size", &l.request_bytes, error);
    for (unsigned i = 0; fine && i < THROTTLE_KINDS; i++) {
        g_autofree char *burst = g_strconcat(names[i], "_max", NULL);
        g_autofree char *length = g_strconcat(burst, "_length", NULL);
        fine = json_u64(args, names[i], &l.rate[i], error) &&
               json_u64(args, burst, &l.burst[i], error) &&
               json_u64(args, length, &l.seconds[i], error);
    }
    const char *wrong = fine ? throttle_check(&l) : NULL, *group = qmp_str(args, "group");
    if (wrong) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s", wrong);
    } else if (fine && !throttle_is_on(&(struct throttle){.limits = l})) {
        image_join_group(img, NULL); /* the others of its group keep their limits */
        image_set_limits(img, &l);
    } else if (fine) {
        if (group) {
            image_join_group(img, group);
        }
        image_set_limits(img, &l);
    }
    return NULL;
}

/* A new image of @format over @img's, or (@existing) the one that is there; opened alone. */
static struct node *make_overlay(Image *img, const char *file, const char *format,
                                 const char *node_name, bool existing, GError **error)
{
    struct node *top = image_top(img);
    g_autofree char *below = g_canonicalize_filename(file_name(top->file), NULL);
    struct chain_create make = {.name = file, .format = format, .size = top->size,
                                .backing_name = top->file->fd >= 0 ? below : file_name(top->file),
                                .backing_format = top->format->name};
    struct chain_open how = {.name = file, .format = format,
                             .flags = (top->flags & ~(unsigned)OPEN_READ_ONLY) | OPEN_NO_BACKING};
    json_t *options = node_name ? json_pack("{s:s}", "node-name", node_name) : NULL;
    how.options = options;
    bool made = existing || chain_create(&make, error);
    struct node *over = made ? chain_open(&how, error) : NULL;
    json_decref(options);
    return over;
}

void *snapshot_sync_run(json_t *args, GError **error)
{
    const char *file = qmp_str(args, "snapshot-file"), *format = qmp_str(args, "format");
    const char *mode = qmp_str(args, "mode"), *name = qmp_str(args, "snapshot-node-name");
    Image *img = drive_in(args, error), *other;
    if (!img || !image_top(img)) {
        if (img) {
            g_set_error(error, LODGE_ERROR, ENOMEDIUM, "Device '%s' has no medium", image_id(img));
        }
        return NULL;
    }
    if (!file) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'snapshot-file' is missing");
        return NULL;
    }
    if (name && image_find_node(name, &other)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "New overlay node-name already in use");
        return NULL;
    }
    struct node *over = make_overlay(img, file, format ? format : "qcow2", name,
                                     mode && g_str_equal(mode, "existing"), error);
    if (over && !image_push(img, over, error)) {
        chain_close(over);
        return NULL;
    }
    return over ? img : NULL;
}

HANDLER(blockdev_snapshot_sync)
{
    snapshot_sync_run(args, error);
    return NULL;
}

void *snapshot_run(json_t *args, GError **error)
{
    Image *img = NULL, *over = NULL;
    const char *node = qmp_str(args, "node"), *overlay = qmp_str(args, "overlay");
    if (!image_find_node(node, &img) || !image_find_node(overlay, &over) || img == over) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Cannot find node-name='%s'", img ? overlay : node);
        return NULL;
    }
    if (image_attached(over) || (image_top(over) && image_top(over)->backing)) {
        g_set_error(error, LODGE_ERROR, EBUSY, "The overlay is already in use or has a backing file");
        return NULL;
    }
    struct node *top = image_take(over);
    bool pushed = image_push(img, top, error);
    image_close(over);
    if (!pushed) {
        chain_close(top);
    }
    return pushed ? img : NULL;
}

void snapshot_undo(void *drive)
{
    chain_close(image_pop(drive));
}

HANDLER(blockdev_snapshot)
{
    snapshot_run(args, error);
    return NULL;
}
