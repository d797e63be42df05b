/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/blockdev.h"
#include "base/json.h"
#include "host/image/chain.h"
#include "host/image/image.h"
#include "host/image/options.h"
#include "host/image/protocol.h"
#include "vmm/vm.h"

#include <string.h>
#include <unistd.h>

/*
 * blockdev - the nodes of -blockdev and blockdev-add
 *
 * A node is what the user said of it, until it is used: by a device as it is, or as the file
 * or the backing file of another node, whose object then holds a copy of its own.  All but
 * local files are opened as soon as they are named, so that what is wrong is said at once; when
 * another one is put over it, it is opened again as a part of that.
 */
struct blockdev {
    char *name;
    json_t *options;
    struct blockdev *parent; /* the node that it is a part of; NULL: none */
    bool opened;             /* as an image of its own */
};

static GPtrArray *nodes;

static struct blockdev *find(const char *name)
{
    for (unsigned i = 0; nodes && name && i < nodes->len; i++) {
        struct blockdev *b = g_ptr_array_index(nodes, i);
        if (g_str_equal(b->name, name)) {
            return b;
        }
    }
    return NULL;
}

static void forget(struct blockdev *b)
{
    for (unsigned i = 0; i < nodes->len; i++) {
        struct blockdev *other = g_ptr_array_index(nodes, i);
        if (other->parent == b) {
            other->parent = NULL;
        }
    }
    g_ptr_array_remove(nodes, b);
    json_decref(b->options);
    g_free(b->name);
    g_free(b);
}

/* A child that @name names, as a part of @parent: its object in full; NULL with an error. */
static json_t *take_child(struct blockdev *parent, const char *key, const char *name,
                          GError **error)
{
    struct blockdev *b = find(name);
    if (!b) {
        g_set_error(error, LODGE_ERROR, ENODEV, "%s=%s: Cannot find device='' nor node-name='%s'",
                    key, name, name);
        return NULL;
    }
    Image *img = b->opened ? image_find(name) : NULL;
    if (b->parent || (img && image_attached(img))) {
        g_set_error(error, LODGE_ERROR, EBUSY, "%s=%s: the node is in use", key, name);
        return NULL;
    }
    image_close(img);
    b->opened = false;
    b->parent = parent;
    return json_deep_copy(b->options);
}

/* Names of other nodes in @options become what those are. */
static bool take_children(struct blockdev *b, json_t *options, GError **error)
{
    static const char *const keys[] = {"file", "backing"};
    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
        json_t *child = json_object_get(options, keys[i]);
        const char *name = json_string_value(child);
        if (json_is_object(child) && !take_children(b, child, error)) {
            return false;
        }
        if (!name || !*name) {
            continue;
        }
        json_t *full = take_child(b, keys[i], name, error);
        if (!full) {
            return false;
        }
        json_object_set_new(options, keys[i], full);
    }
    return true;
}

static bool open_node(struct blockdev *b, GError **error)
{
    const char *zeroes = json_text(b->options, "detect-zeroes");
    struct image_options image = {.id = b->name, .node_name = b->name, .options = b->options};
    image.zeroes = !zeroes || g_str_equal(zeroes, "off") ? IMAGE_ZEROES_WRITE
                   : g_str_equal(zeroes, "unmap")        ? IMAGE_ZEROES_UNMAP
                                                         : IMAGE_ZEROES_ZERO;
    b->opened = image_open(&image, error) != NULL;
    return b->opened;
}

/* What can be said of a local file without opening it: who uses it decides how it is opened. */
static bool look_at_file(const json_t *options, GError **error)
{
    const char *name = json_text(options, "filename"), *path = name ? name_local_path(name) : NULL;
    if (!json_text(options, "filename") && g_str_equal(json_text(options, "driver"), "file")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "it needs filename=");
        return false;
    }
    if (path && g_str_equal(json_text(options, "driver"), "file") && access(path, R_OK) < 0) {
        error_set_errno(error, errno, "Could not open '%s'", path);
        return false;
    }
    return true;
}

static bool check_name(const json_t *options, GError **error)
{
    const char *driver = json_text(options, "driver"), *name = json_text(options, "node-name");
    if (!driver || !name || !*name) {
        g_set_error(error, LODGE_ERROR, EINVAL, "it needs %s=", driver ? "node-name" : "driver");
        return false;
    }
    if (find(name) || image_find(name)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "node \"%s\" exists", name);
        return false;
    }
    return protocol_exists(driver) || format_find(driver, error);
}

bool vm_blockdev_add(const json_t *given, GError **error)
{
    if (!check_name(given, error)) {
        return false;
    }
    struct blockdev *b = g_new0(struct blockdev, 1);
    b->name = g_strdup(json_text(given, "node-name"));
    b->options = json_deep_copy(given);
    nodes = nodes ? nodes : g_ptr_array_new();
    g_ptr_array_add(nodes, b);
    const char *driver = json_text(b->options, "driver");
    bool fine = protocol_exists(driver) && !protocol_is_remote(driver)
                    ? look_at_file(b->options, error)
                    : take_children(b, b->options, error) && open_node(b, error);
    if (!fine) {
        forget(b);
    }
    return fine;
}

bool vm_blockdev_remove(const char *name, GError **error)
{
    struct blockdev *b = find(name);
    Image *img = b && b->opened ? image_find(name) : NULL;
    if (!b) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Failed to find node with node-name='%s'", name);
        return false;
    }
    Image *user = NULL;
    bool used = image_find_node(name, &user) && user != img;
    if (used || (img && image_attached(img))) {
        g_set_error(error, LODGE_ERROR, EBUSY, "Node '%s' is busy: node is used %s", name,
                    used ? "as a child of another" : "by a device");
        return false;
    }
    image_close(img);
    forget(b);
    return true;
}

struct image *vm_drive(const char *id)
{
    Image *img = image_find(id);
    struct blockdev *b = img ? NULL : find(id);
    if (b && !b->parent && !b->opened && open_node(b, NULL)) {
        img = image_find(id);
    }
    return img;
}
