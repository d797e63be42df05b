/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/qmp_handlers.h"

#include "host/image/dirty.h"
#include "host/image/image.h"
#include "host/image/options.h"
#include "vmm/monitor/qmp_transaction.h"

#include <string.h>

/* Dirty bitmaps of nodes: marks of what was written. */

#define HANDLER(name) json_t *qmp_##name(json_t *args, GError **error)

/* What was done to a bitmap, and what it was before. */
struct change {
    char *node, *name;
    enum { ADDED, MARKED, SWITCHED, TO_REMOVE } what;
    bool records;
    struct dirty *marks;
};

/* A node whose drive is at rest: nothing marks meanwhile. */
static struct node *node_named(const char *name, GError **error)
{
    Image *img = NULL;
    struct node *n = image_find_node(name, &img);
    if (!n && (img = image_find(name))) {
        n = image_top(img);
    }
    if (!n) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Cannot find device='%s' nor node-name='%s'", name,
                    name);
        return NULL;
    }
    image_drain(img);
    return n;
}

static struct change *new_change(int what, json_t *args, const char *key)
{
    struct change *c = g_new0(struct change, 1);
    *c = (struct change){.node = g_strdup(qmp_str(args, "node")),
                         .name = g_strdup(qmp_str(args, key)),
                         .what = what};
    return c;
}

static void free_change(struct change *c)
{
    g_free(c->node);
    g_free(c->name);
    dirty_free(c->marks);
    g_free(c);
}

/* Both names are there: a transaction's parts are not checked by the schema. */
static struct node *target_of(json_t *args, const char *key, GError **error)
{
    const char *node = qmp_str(args, "node"), *name = qmp_str(args, key);
    if (!node || !name) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter '%s' is missing", node ? key : "node");
        return NULL;
    }
    return node_named(node, error);
}

void *bitmap_add_run(json_t *args, GError **error)
{
    uint64_t grain = 0;
    bool lasting = false, disabled = false;
    struct node *n = target_of(args, "name", error);
    if (!n || !json_u64(args, "granularity", &grain, error) ||
        !json_bool(args, "persistent", &lasting, error) ||
        !json_bool(args, "disabled", &disabled, error) ||
        !dirty_add(n, qmp_str(args, "name"), grain, lasting, !disabled, error)) {
        return NULL;
    }
    return new_change(ADDED, args, "name");
}

/* For what changes marks: they are kept. */
static struct change *keep_marks(struct node *n, json_t *args, const char *key, GError **error)
{
    struct change *c = new_change(MARKED, args, key);
    c->marks = dirty_copy(n, c->name, error);
    if (!c->marks) {
        free_change(c);
        return NULL;
    }
    return c;
}

void *bitmap_clear_run(json_t *args, GError **error)
{
    struct node *n = target_of(args, "name", error);
    struct change *c = n ? keep_marks(n, args, "name", error) : NULL;
    if (c && !dirty_clear(n, c->name, error)) {
        free_change(c);
        return NULL;
    }
    return c;
}

static bool merge_one(struct node *to, const char *name, json_t *said, const char *node,
                      GError **error)
{
    const char *source =
        json_string_value(json_is_object(said) ? json_object_get(said, "name") : said);
    const char *of = json_string_value(json_object_get(said, "node"));
    struct node *from = node_named(of ? of : node, error);
    if (from && !source) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'bitmaps' expects names");
        return false;
    }
    if (from && !dirty_exists(from, source)) {
        g_set_error(error, LODGE_ERROR, ENOENT, "Dirty bitmap '%s' not found", source);
        return false;
    }
    return from && dirty_merge(to, name, from, source, error);
}

void *bitmap_merge_run(json_t *args, GError **error)
{
    struct node *n = target_of(args, "target", error);
    struct change *c = n ? keep_marks(n, args, "target", error) : NULL;
    size_t i;
    json_t *said;
    json_array_foreach(json_object_get(args, "bitmaps"), i, said)
    {
        if (c && !merge_one(n, c->name, said, c->node, error)) {
            bitmap_undo(c);
            return NULL;
        }
    }
    return c;
}

static void *switch_to(json_t *args, bool on, GError **error)
{
    struct node *n = target_of(args, "name", error);
    struct change *c = n ? new_change(SWITCHED, args, "name") : NULL;
    if (!c) {
        return NULL;
    }
    c->records = dirty_records(n, c->name);
    if (!dirty_enable(n, c->name, on, error)) {
        free_change(c);
        return NULL;
    }
    return c;
}

void *bitmap_enable_run(json_t *args, GError **error)
{
    return switch_to(args, true, error);
}

void *bitmap_disable_run(json_t *args, GError **error)
{
    return switch_to(args, false, error);
}

/* Done when all of the transaction has succeeded. */
void *bitmap_remove_run(json_t *args, GError **error)
{
    struct node *n = target_of(args, "name", error);
    if (n && !dirty_exists(n, qmp_str(args, "name"))) {
        g_set_error(error, LODGE_ERROR, ENOENT, "Dirty bitmap '%s' not found",
                    qmp_str(args, "name"));
        return NULL;
    }
    return n ? new_change(TO_REMOVE, args, "name") : NULL;
}

void bitmap_undo(void *change)
{
    struct change *c = change;
    struct node *n = node_named(c->node, NULL);
    if (n && c->what == ADDED) {
        dirty_remove(n, c->name, NULL);
    } else if (n && c->what == MARKED) {
        dirty_clear(n, c->name, NULL);
        dirty_restore(n, c->name, c->marks, NULL);
    } else if (n && c->what == SWITCHED) {
        dirty_enable(n, c->name, c->records, NULL);
    }
    free_change(c);
}

void bitmap_keep(void *change)
{
    struct change *c = change;
    struct node *n = c->what == TO_REMOVE ? node_named(c->node, NULL) : NULL;
    if (n) {
        dirty_remove(n, c->name, NULL);
    }
    free_change(c);
}

/* ---- alone ---- */

static json_t *alone(struct change *done)
{
    if (done) {
        bitmap_keep(done);
    }
    return NULL;
}

HANDLER(bitmap_add)
{
    return alone(bitmap_add_run(args, error));
}

HANDLER(bitmap_clear)
{
    return alone(bitmap_clear_run(args, error));
}

HANDLER(bitmap_enable)
{
    return alone(bitmap_enable_run(args, error));
}

HANDLER(bitmap_disable)
{
    return alone(bitmap_disable_run(args, error));
}

HANDLER(bitmap_merge)
{
    return alone(bitmap_merge_run(args, error));
}

HANDLER(bitmap_remove)
{
    struct node *n = target_of(args, "name", error);
    if (n) {
        dirty_remove(n, qmp_str(args, "name"), error);
    }
    return NULL;
}
