/* SPDX-License-Identifier: GPL-2.0-or-later */

/* describe: what an image is, as JSON. */
#include "host/image/describe.h"

#include "host/image/chain.h"
#include "host/image/options.h"
#include "host/image/protocol.h"

#include <string.h>

/* Names in images need not be UTF-8. */
static json_t *json_text_of(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    return json_string(valid);
}

static json_t *snapshot_json(const struct image_snapshot *s)
{
    json_t *o = json_object();
    if (s->icount != UINT64_MAX) {
        json_object_set_new(o, "icount", json_integer((json_int_t)s->icount));
    }
    json_object_set_new(o, "vm-clock-nsec", json_integer(s->vm_clock_ns % 1000000000));
    json_object_set_new(o, "name", json_text_of(s->name));
    json_object_set_new(o, "date-sec", json_integer(s->date_sec));
    json_object_set_new(o, "date-nsec", json_integer(s->date_nsec));
    json_object_set_new(o, "vm-clock-sec", json_integer(s->vm_clock_ns / 1000000000));
    json_object_set_new(o, "id", json_text_of(s->id));
    json_object_set_new(o, "vm-state-size", json_integer((json_int_t)s->vm_state_size));
    return o;
}

static void add_snapshots(struct node *node, json_t *info)
{
    const struct format_tools *tools = node->format->tools;
    unsigned n = tools && tools->snapshots ? tools->snapshots->count(node) : 0;
    if (n) {
        json_t *list = json_array();
        for (unsigned i = 0; i < n; i++) {
            json_array_append_new(list, snapshot_json(tools->snapshots->get(node, i)));
        }
        json_object_set_new(info, "snapshots", list);
    }
}

/* What the format says of itself; "dirty-flag" and "encrypted" belong one level up. */
static void add_specific(struct node *node, json_t *info)
{
    const struct format_tools *tools = node->format->tools;
    json_t *data = json_object();
    if (tools && tools->describe) {
        tools->describe(node, data);
    }
    bool dirty = json_is_true(json_object_get(data, "dirty-flag"));
    bool encrypted = json_is_true(json_object_get(data, "encrypted")) ||
                     json_object_get(data, "encrypt") || !strcmp(node->format->name, "luks");
    json_object_del(data, "dirty-flag");
    json_object_del(data, "encrypted");
    bool known = !node->format->flat || node->file->protocol->allocated; /* as QEMU has it */
    if (tools && tools->dirty_flag && known) {
        json_object_set_new(info, "dirty-flag", json_boolean(dirty));
    }
    if (encrypted) {
        json_object_set_new(info, "encrypted", json_true());
    }
    if (json_object_size(data)) {
        json_t *specific = json_object();
        json_object_set_new(specific, "type", json_string(node->format->name));
        json_object_set(specific, "data", data);
        json_object_set_new(info, "format-specific", specific);
    }
    json_decref(data);
}

static uint64_t allocated_bytes(struct node *node)
{
    if (node->file->block_device) {
        return 0; /* of a file system, as QEMU has it */
    }
    const struct format_tools *tools = node->format->tools;
    return tools && tools->allocated ? tools->allocated(node) : file_allocated(node->file);
}

/* However the name of a local file was written, its path is told. */
static const char *told_name(struct node *node)
{
    const char *name = node_name(node);
    g_autofree char *scheme = name_scheme(name);
    return scheme && strcmp(scheme, "json") && node->file->fd >= 0 ? file_name(node->file) : name;
}

/* A protocol that was asked for by itself is what the image is. */
static const char *told_format(const struct node *node)
{
    const char *driver = json_text(node->options, "driver");
    return driver && protocol_exists(driver) ? driver : node->format->name;
}

json_t *node_info(struct node *node)
{
    const struct format_tools *tools = node->format->tools;
    json_t *info = json_object();
    uint32_t cluster = tools && tools->cluster_size ? tools->cluster_size(node) : 0;
    add_snapshots(node, info);
    json_object_set_new(info, "virtual-size", json_integer((json_int_t)node->size));
    json_object_set_new(info, "filename", json_text_of(told_name(node)));
    if (cluster) {
        json_object_set_new(info, "cluster-size", json_integer(cluster));
    }
    json_object_set_new(info, "format", json_string(told_format(node)));
    if (node->file->protocol->allocated) { /* else nobody knows */
        json_object_set_new(info, "actual-size", json_integer((json_int_t)allocated_bytes(node)));
    }
    add_specific(node, info);
    if (node->backing_name) {
        g_autofree char *full = node_backing_path(node);
        json_object_set_new(info, "backing-filename", json_text_of(node->backing_name));
        if (full) {
            json_object_set_new(info, "full-backing-filename", json_text_of(full));
        }
    }
    if (node->backing_name && node->backing_format) {
        json_object_set_new(info, "backing-filename-format", json_text_of(node->backing_format));
    }
    return info;
}
