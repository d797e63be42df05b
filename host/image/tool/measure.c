/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/open.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* lodge-img measure */

static const struct tool_option options[] = {
    OPTION_HELP,
    {0, "size", "SIZE", "of a disk of this size that holds nothing"},
    OPTION_FORMAT,
    {'O', NULL, "FORMAT", "format of the image that would be made (raw)"},
    {'o', NULL, "OPTIONS", "its options"},
    {'l', NULL, "SNAPSHOT", "of a snapshot in FILE"},
    OPTION_OUTPUT,
    OPTION_SHARE,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

enum { CLUSTER_DEFAULT = 65536, BITMAP_ENTRY = 24 };

/* Guest bytes that are data, in whole clusters. */
static bool count_data(struct node *node, uint64_t cluster, uint64_t *used)
{
    struct chain_status s;
    *used = 0;
    for (uint64_t at = 0; at < node->size; at += s.length) {
        int error = chain_status(node, NULL, at, node->size - at, &s);
        if (error) {
            tool_error("Unable to get block status: %s", g_strerror(-error));
            return false;
        }
        status_as_told(&s);
        if (!s.zero) {
            uint64_t from = at - at % cluster, to = at + s.length;
            to = (to + cluster - 1) / cluster * cluster;
            *used += to - from;
            s.length = MIN(to, node->size) - at;
        }
    }
    return true;
}

static bool measure(const struct tool_create *how, uint64_t used, uint64_t out[2])
{
    const struct image_format *f = format_find(how->format, NULL);
    enum preallocation prealloc = PREALLOC_OFF;
    const char *mode = option_str(how->options, "preallocation");
    GError *error = NULL;
    if (mode && !preallocation_of(mode, &prealloc, &error)) {
        tool_report(error, "%s", "");
        return false;
    }
    if (!f->tools->measure) {
        tool_error("Block driver '%s' does not support size measurement", f->name);
        return false;
    }
    struct image_create make = {
        .size = how->size,
        .options = how->options,
        .backing_name = option_str(how->options, "backing_file"),
        .backing_format = option_str(how->options, "backing_fmt"),
        .preallocation = prealloc,
    };
    if (!f->tools->measure(&make, used, out, &error)) {
        tool_report(error, "%s", "");
        return false;
    }
    return true;
}

/* Bytes that the persistent bitmaps of @node take in a qcow2 image: of each its bits and a table
 * of their clusters, and a directory. */
static uint64_t bitmap_bytes(struct node *node, uint64_t cluster)
{
    json_t *data = json_object(), *bitmap;
    uint64_t clusters = 0, directory = 0;
    size_t i;
    node->format->tools->describe(node, data);
    json_array_foreach(json_object_get(data, "bitmaps"), i, bitmap)
    {
        uint64_t g = (uint64_t)json_integer_value(json_object_get(bitmap, "granularity"));
        uint64_t bits = (node->size + g - 1) / MAX(g, 1);
        uint64_t n = ((bits + 7) / 8 + cluster - 1) / cluster;
        clusters += n + (n * 8 + cluster - 1) / cluster;
        directory += (BITMAP_ENTRY + strlen(json_text(bitmap, "name")) + 7) / 8 * 8;
    }
    json_decref(data);
    return (clusters + (directory + cluster - 1) / cluster) * cluster;
}

struct sizes {
    uint64_t required, full, bitmaps;
    bool has_bitmaps;
};

static void print(bool json, const struct sizes *s)
{
    if (!json) {
        printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", s->required,
               s->full);
        if (s->has_bitmaps) {
            printf("bitmaps size: %" PRIu64 "\n", s->bitmaps);
        }
        return;
    }
    json_t *o = json_object();
    if (s->has_bitmaps) {
        json_object_set_new(o, "bitmaps", json_integer((json_int_t)s->bitmaps));
    }
    json_object_set_new(o, "required", json_integer((json_int_t)s->required));
    json_object_set_new(o, "fully-allocated", json_integer((json_int_t)s->full));
    print_json(o);
    json_decref(o);
}

static bool has_bitmaps(struct node *node)
{
    json_t *data = json_object();
    bool can = node->format->tools && node->format->tools->bitmaps && node->format->tools->describe;
    if (can) {
        node->format->tools->describe(node, data);
    }
    bool old = !g_strcmp0(json_text(data, "compat"), "0.10");
    json_decref(data);
    return can && !old;
}

static bool takes_bitmaps(const struct tool_create *how)
{
    const char *compat = option_str(how->options, "compat");
    bool old = compat && (!strcmp(compat, "0.10") || !strcmp(compat, "v2"));
    return format_find(how->format, NULL)->tools->bitmaps && !old;
}

static bool from_image(struct args *args, struct tool_create *how, uint64_t *used, struct sizes *s)
{
    struct tool_common common;
    const char *snapshot = args_get(args, "l");
    GError *error = NULL;
    if (!tool_common(args, &common)) {
        return false;
    }
    g_autoptr(Node) node =
        tool_open(&common, args->operands[0], args_get(args, "f"), OPEN_READ_ONLY);
    if (!node) {
        return false;
    }
    if (snapshot && !tool_load_snapshot(node, snapshot, &error)) {
        tool_report(error, "Failed to load snapshot: ");
        return false;
    }
    uint64_t cluster = option_size(how->options, "cluster_size", CLUSTER_DEFAULT);
    how->size = node->size;
    s->has_bitmaps = takes_bitmaps(how) && has_bitmaps(node);
    s->bitmaps = s->has_bitmaps && cluster ? bitmap_bytes(node, cluster) : 0;
    return count_data(node, MAX(cluster, 1), used);
}

static int run(struct args *args)
{
    const char *size = args_get(args, "size");
    g_autofree char *text = args_joined(args, "o");
    struct tool_create how = {.format = args_get(args, "O")};
    g_autoptr(Options) owned = NULL;
    GError *error = NULL;
    struct sizes sizes = {0};
    uint64_t used = 0, out[2];
    bool json;
    how.format = how.format ? how.format : "raw";
    if (size && !tool_number("image size", size, 0, INT64_MAX, &how.size)) {
        return 1;
    }
    if (!tool_wants_json(args, &json)) {
        return 1;
    }
    if (args->n_operands > 1) {
        tool_error("At most one filename argument is allowed.");
        return 1;
    }
    if (size && args->n_operands) {
        tool_error("--size N cannot be used together with a filename.");
        return 1;
    }
    if (!size && !args->n_operands) {
        tool_error("Either --size N or one filename must be specified.");
        return 1;
    }
    bool fine = create_prepare(&how, text, &error);
    owned = how.options;
    if (!fine) {
        tool_report(error, "%s", "");
        return 1;
    }
    if ((!size && !from_image(args, &how, &used, &sizes)) || !measure(&how, used, out)) {
        return 1;
    }
    sizes.required = out[0];
    sizes.full = out[1];
    print(json, &sizes);
    return 0;
}

const struct verb verb_measure = {"measure", "tell how large a new image would be",
                                  "[FILE | --size SIZE]", options, run};
