/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checkpoints.  What is known of each is a file DAEMON_VAR/qemu/checkpoint/MACHINE/NAME.xml; the
 * bitmaps are in the images.
 *
 * Spec: libvirt, "Checkpoint XML format".
 */
#include "manage/daemon/checkpoint.h"
#include "manage/daemon/disks.h"
#include "manage/daemon/uuid.h"

#include <glib/gstdio.h>
#include <string.h>

static XML_WORDS(kind_words, "no", "bitmap");
static const struct xml_row disk_rows[] = {
    XML_TEXT(struct checkpoint_disk, name, "@name", XML_REQUIRED),
    XML_ENUM(struct checkpoint_disk, kind, "@checkpoint", kind_words, 0),
    XML_TEXT(struct checkpoint_disk, bitmap, "@bitmap", 0),
    XML_LONG(struct checkpoint_disk, size, "@size", 0),
};
static const struct xml_table disk_row_table = XML_TABLE("disk", struct checkpoint_disk, disk_rows);
static const struct xml_row rows[] = {
    XML_TEXT(struct checkpoint, name, "name", 0),
    XML_TEXT(struct checkpoint, description, "description", 0),
    XML_TEXT(struct checkpoint, parent, "parent/name", 0),
    XML_LONG(struct checkpoint, created, "creationTime", 0),
    XML_LIST(struct checkpoint, disks, "disks/disk", &disk_row_table, 0),
    XML_STRUCT(struct checkpoint, def, "domain", &domain_table, 0),
    XML_INT(struct checkpoint, current, "active", 0),
};
static const struct xml_table checkpoint_table =
    XML_TABLE("domaincheckpoint", struct checkpoint, rows);

Checkpoint *checkpoint_parse(const char *xml, GError **error)
{
    return xml_read_text(&checkpoint_table, xml, "domain_checkpoint", 0, error);
}

void checkpoint_free(Checkpoint *c)
{
    xml_free(&checkpoint_table, c);
}

static void free_one(void *c)
{
    checkpoint_free(c);
}

/* --- files --- */

static char *folder_of(const Domain *d)
{
    return daemon_path(DAEMON_VAR, "qemu", "checkpoint", d->name, NULL);
}

static GPtrArray *load_all(const Domain *d)
{
    GPtrArray *all = g_ptr_array_new_with_free_func(free_one);
    g_autofree char *folder = folder_of(d);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *file;
    while (dir && (file = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, file, NULL), *text = NULL;
        Checkpoint *c =
            g_str_has_suffix(file, ".xml") && g_file_get_contents(path, &text, NULL, NULL)
                ? checkpoint_parse(text, NULL)
                : NULL;
        if (c) {
            g_ptr_array_add(all, c);
        }
    }
    return all;
}

static bool store(Domain *d, const Checkpoint *c, GError **error)
{
    if (d->gone) { /* while its disks were worked on */
        libvirt_error(error, ERR_NO_DOMAIN, "no domain with matching name '%s'", d->name);
        return false;
    }
    g_autofree char *file = g_strconcat(c->name, ".xml", NULL);
    g_autofree char *path =
        daemon_path_make(DAEMON_VAR, 0700, error, "qemu", "checkpoint", d->name, file, NULL);
    g_autofree char *text = xml_write_text(&checkpoint_table, c, XML_MODE_SECRET);
    bool ok = path && daemon_write_file(path, text, -1, 0600, error);
    checkpoint_recount(d);
    return ok;
}

static void forget(const Domain *d, const char *name)
{
    g_autofree char *file = g_strconcat(name, ".xml", NULL), *folder = folder_of(d);
    g_autofree char *path = g_build_filename(folder, file, NULL);
    g_unlink(path);
}

void checkpoint_recount(Domain *d)
{
    g_autoptr(GPtrArray) all = load_all(d);
    d->checkpoints = all->len;
}

void checkpoint_forget_all(Domain *d)
{
    g_autoptr(GPtrArray) all = load_all(d);
    g_autofree char *folder = folder_of(d);
    for (unsigned i = 0; i < all->len; i++) {
        forget(d, ((Checkpoint *)all->pdata[i])->name);
    }
    g_rmdir(folder);
    d->checkpoints = 0;
}

static Checkpoint *find(const GPtrArray *all, const char *name)
{
    for (unsigned i = 0; name && i < all->len; i++) {
        Checkpoint *c = all->pdata[i];
        if (strcmp(c->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

static Checkpoint *find_current(const GPtrArray *all)
{
    for (unsigned i = 0; i < all->len; i++) {
        Checkpoint *c = all->pdata[i];
        if (c->current == 1) {
            return c;
        }
    }
    return NULL;
}

static Checkpoint *need(const GPtrArray *all, const char *name, GError **error)
{
    Checkpoint *c = find(all, name);
    if (!c) {
        libvirt_error(error, ERR_NO_DOMAIN_CHECKPOINT,
                      "no domain checkpoint with matching name '%s'", name);
    }
    return c;
}

static bool make_current(Domain *d, GPtrArray *all, const char *name, GError **error)
{
    for (unsigned i = 0; i < all->len; i++) {
        Checkpoint *c = all->pdata[i];
        int64_t now = name && strcmp(c->name, name) == 0;
        if ((c->current == 1) != now) {
            c->current = now;
            if (!store(d, c, error)) {
                return false;
            }
        }
    }
    return true;
}

bool checkpoint_keep(Domain *d, Checkpoint *c, GError **error)
{
    g_autoptr(GPtrArray) all = load_all(d);
    const Checkpoint *above = find_current(all);
    g_free(c->parent);
    c->parent = g_strdup(above ? above->name : NULL);
    c->current = 1;
    return store(d, c, error) && make_current(d, all, NULL, error);
}

/* --- making --- */

static struct checkpoint_disk *row_of(const Checkpoint *c, const char *target)
{
    for (unsigned i = 0; i < xml_count(c->disks); i++) {
        struct checkpoint_disk *row = c->disks->pdata[i];
        if (g_strcmp0(row->name, target) == 0) {
            return row;
        }
    }
    return NULL;
}

/* Rows that came get the names of their disks. */
static bool name_rows(Checkpoint *c, const DomainDef *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(c->disks); i++) {
        struct checkpoint_disk *row = c->disks->pdata[i];
        const struct domain_disk *disk = domain_find_disk((DomainDef *)(uintptr_t)def, row->name);
        const struct checkpoint_disk *first = disk ? row_of(c, disk->target) : NULL;
        if (!disk) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "no disk named '%s'", row->name);
            return false;
        }
        if (first && first != row) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "disk '%s' specified twice", disk->target);
            return false;
        }
        g_free(row->name);
        row->name = g_strdup(disk->target);
        row->size = XML_ABSENT;
    }
    return true;
}

static bool align_row(const Checkpoint *c, struct checkpoint_disk *row,
                      const struct domain_disk *disk, GError **error)
{
    if (row->kind == CHECKPOINT_NO) {
        if (row->bitmap) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "checkpoint bitmap '%s' for disk '%s' requires checkpoint='bitmap'",
                          row->bitmap, row->name);
        }
        return !row->bitmap;
    }
    g_autofree char *node = disk_node_name(disk);
    if (!node || disk->readonly || g_strcmp0(disk->format, "qcow2") != 0) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "checkpoint for disk %s unsupported for storage type %s", row->name,
                      disk->readonly ? "readonly"
                      : disk->format ? disk->format
                                     : "none");
        return false;
    }
    row->kind = CHECKPOINT_BITMAP;
    row->bitmap = row->bitmap ? row->bitmap : g_strdup(c->name);
    return true;
}

bool checkpoint_align(const Domain *d, Checkpoint *c, const DomainDef *def, GError **error)
{
    g_autoptr(GPtrArray) all = load_all(d);
    bool said = xml_count(c->disks), any = false;
    if (!c->name) {
        c->name = g_strdup_printf("%ld", (long)(g_get_real_time() / G_USEC_PER_SEC));
    }
    if (!*c->name || strchr(c->name, '/') || c->name[0] == '.' || strlen(c->name) > 200) {
        libvirt_error(error, ERR_XML, "invalid checkpoint name '%.210s'", c->name);
        return false;
    }
    if (find(all, c->name)) {
        libvirt_error(error, ERR_OPERATION_FAILED, "domain checkpoint %s already exists", c->name);
        return false;
    }
    if (!name_rows(c, def, error)) {
        return false;
    }
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        struct checkpoint_disk *row = row_of(c, disk->target);
        bool none =
            said || disk->readonly || !disk_has_medium(disk) || disk->device != DISK_DEVICE_DISK;
        if (!row) {
            row = xml_new(&disk_row_table);
            row->name = g_strdup(disk->target);
            row->kind = none ? CHECKPOINT_NO : CHECKPOINT_BITMAP;
            xml_append(&disk_row_table, &c->disks, row);
        }
        if (!align_row(c, row, disk, error)) {
            return false;
        }
        any |= row->kind == CHECKPOINT_BITMAP;
    }
    if (!any) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "no disks selected for checkpoint");
        return false;
    }
    c->created = g_get_real_time() / G_USEC_PER_SEC;
    xml_free(&domain_table, c->def);
    c->def = domain_def_copy(def);
    return true;
}

bool checkpoint_actions(struct machine *m, const Checkpoint *c, json_t *actions, GError **error)
{
    for (unsigned i = 0; i < xml_count(c->disks); i++) {
        const struct checkpoint_disk *row = c->disks->pdata[i];
        const struct domain_disk *disk = domain_find_disk(m->def, row->name);
        g_autofree char *node = disk ? disk_node_name(disk) : NULL;
        if (row->kind != CHECKPOINT_BITMAP) {
            continue;
        }
        if (!node) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "no disk named '%s'", row->name);
            return false;
        }
        json_array_append_new(actions, json_pack("{s:s, s:{s:s, s:s, s:b}}", "type",
                                                 "block-dirty-bitmap-add", "data", "node", node,
                                                 "name", row->bitmap, "persistent", 1));
    }
    return true;
}

/* --- bitmaps of a running machine --- */

static const json_t *node_row(const json_t *nodes, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(nodes, i, row)
    {
        if (g_strcmp0(json_string_value(json_object_get(row, "node-name")), name) == 0) {
            return row;
        }
    }
    return NULL;
}

static const json_t *bitmap_in(const json_t *row, const char *name)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(row, "dirty-bitmaps"), i, one)
    {
        if (g_strcmp0(json_string_value(json_object_get(one, "name")), name) == 0) {
            return one;
        }
    }
    return NULL;
}

static json_t *all_nodes(struct machine *m, GError **error)
{
    return qmp_run(m->qmp, "query-named-block-nodes", NULL, QMP_TIMEOUT_MS, error);
}

/* Names of the nodes of @disk whose bitmap @name can be used, the top first. */
static GPtrArray *nodes_with(const json_t *nodes, const struct domain_disk *disk, const char *name)
{
    GPtrArray *out = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GArray) chain = disk_chain(disk);
    for (unsigned i = 0; i < chain->len; i++) {
        const struct disk_link *link = &g_array_index(chain, struct disk_link, i);
        g_autofree char *node = g_strdup_printf("libvirt-%ld-format", (long)link->index);
        const json_t *one = bitmap_in(node_row(nodes, node), name);
        if (one && !json_is_true(json_object_get(one, "inconsistent"))) {
            g_ptr_array_add(out, g_steal_pointer(&node));
        }
    }
    return out;
}

bool checkpoint_merge(struct machine *m, const struct domain_disk *disk, const char *bitmap,
                      const char *into, json_t *actions, GError **error)
{
    g_autofree char *top = disk_node_name(disk), *alias = g_strdup(disk->alias);
    g_autoptr(json_t) nodes = all_nodes(m, error);
    disk = machine_disk(m, alias);
    g_autoptr(GPtrArray) with = nodes && disk ? nodes_with(nodes, disk, bitmap) : NULL;
    if (!with) {
        return false;
    }
    json_t *list = json_array();
    for (unsigned i = 0; i < with->len; i++) {
        json_array_append_new(
            list, json_pack("{s:s, s:s}", "node", (char *)with->pdata[i], "name", bitmap));
    }
    /* The top must have it, or what was written last is not known. */
    if (!with->len || strcmp(with->pdata[0], top) != 0) {
        libvirt_error(error, ERR_INVALID_ARG, "missing or broken bitmap '%s' for disk '%s'", bitmap,
                      disk->target);
        json_decref(list);
        return false;
    }
    json_array_append_new(actions,
                          json_pack("{s:s, s:{s:s, s:s, s:o}}", "type", "block-dirty-bitmap-merge",
                                    "data", "node", top, "target", into, "bitmaps", list));
    return true;
}

bool checkpoint_follow(struct machine *m, const struct domain_disk *disk, const char *overlay,
                       json_t *actions, GError **error)
{
    g_autofree char *top = disk_node_name(disk);
    g_autoptr(json_t) nodes = m->domain->checkpoints ? all_nodes(m, error) : json_array();
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(node_row(nodes, top), "dirty-bitmaps"), i, one)
    {
        if (json_is_true(json_object_get(one, "persistent")) &&
            json_is_true(json_object_get(one, "recording"))) {
            json_array_append_new(actions,
                                  json_pack("{s:s, s:{s:s, s:O, s:O, s:b}}", "type",
                                            "block-dirty-bitmap-add", "data", "node", overlay,
                                            "name", json_object_get(one, "name"), "granularity",
                                            json_object_get(one, "granularity"), "persistent", 1));
        }
    }
    return nodes != NULL;
}

char *checkpoint_bitmap(const Domain *d, const char *name, const char *target, GError **error)
{
    g_autoptr(GPtrArray) all = load_all(d);
    const Checkpoint *c = find(all, name);
    const struct checkpoint_disk *row = c ? row_of(c, target) : NULL;
    if (!c) {
        libvirt_error(error, ERR_NO_DOMAIN_CHECKPOINT,
                      "Checkpoint '%s' for incremental backup of disk '%s' not found", name,
                      target);
    } else if (!row || row->kind != CHECKPOINT_BITMAP) {
        libvirt_error(error, ERR_INVALID_ARG, "disk '%s' is not part of checkpoint '%s'", target,
                      name);
    } else {
        return g_strdup(row->bitmap);
    }
    return NULL;
}

enum { CREATE_REDEFINE = 1, CREATE_QUIESCE = 2, CREATE_VALIDATE = 4 };

static void give(rpc_checkpoint *out, const Domain *d, const char *name)
{
    out->name = g_strdup(name);
    out->dom = domain_rpc(d);
}

/* Told once more of one that was made before: its place in the tree, not its bitmaps. */
static bool again(Domain *d, Checkpoint *c, GError **error)
{
    g_autoptr(GPtrArray) all = load_all(d);
    const Checkpoint *old = find(all, c->name);
    char uuid[UUID_TEXT];
    uuid_text(d->uuid, uuid);
    if (!c->name || c->created == XML_ABSENT || !c->def) {
        libvirt_error(error, ERR_XML, "missing %s from existing checkpoint",
                      !c->name ? "name"
                      : c->def ? "creationTime"
                               : "domain");
    } else if (strcmp(c->def->uuid, uuid) != 0) {
        libvirt_error(error, ERR_INVALID_ARG, "definition for checkpoint %s must use uuid %s",
                      c->name, uuid);
    } else if (g_strcmp0(c->parent, c->name) == 0 || (c->parent && !find(all, c->parent))) {
        libvirt_error(error, ERR_INVALID_ARG, "parent %s for moment %s not found", c->parent,
                      c->name);
    } else {
        c->current = old ? old->current : !find_current(all);
        return store(d, c, error);
    }
    return false;
}

static bool make(Domain *d, Checkpoint *c, unsigned flags, GError **error)
{
    g_autoptr(Machine) m = NULL;
    if (!domain_active(d)) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "cannot create checkpoint for inactive domain");
        return false;
    }
    m = machine_of(d, error);
    if (!m || !checkpoint_align(d, c, m->def, error)) {
        return false;
    }
    json_t *actions = json_array();
    bool quiet = flags & CREATE_QUIESCE;
    if (!checkpoint_actions(m, c, actions, error)) {
        json_decref(actions);
        return false;
    }
    g_autoptr(json_t) frozen = quiet ? agent_run(m, "guest-fsfreeze-freeze", NULL, error) : NULL;
    if (quiet && !frozen) {
        json_decref(actions);
        return false;
    }
    bool ok = qmp_do(m->qmp, error, "transaction", "{s:o}", "actions", actions);
    if (quiet) {
        g_autoptr(json_t) thawed = agent_run(m, "guest-fsfreeze-thaw", NULL, ok ? error : NULL);
        ok = ok && thawed;
    }
    return ok && checkpoint_keep(d, c, error);
}

bool verb_domain_checkpoint_create_xml(struct call *call, const rpc_domain_text_flags *args,
                                       rpc_checkpoint_ret *ret, GError **error)
{
    (void)call;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Checkpoint) c = d ? checkpoint_parse(args->text, error) : NULL;
    if (!c ||
        !(args->flags & CREATE_REDEFINE ? again(d, c, error) : make(d, c, args->flags, error))) {
        return false;
    }
    give(&ret->checkpoint, d, c->name);
    return true;
}

/* --- deleting --- */

enum { DELETE_CHILDREN = 1, DELETE_METADATA = 2, DELETE_CHILDREN_ONLY = 4 };

static bool delete_bitmaps(Domain *d, const Checkpoint *c, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    g_autoptr(json_t) nodes = m ? all_nodes(m, error) : NULL;
    json_t *actions = json_array();
    for (unsigned i = 0; nodes && i < xml_count(c->disks); i++) {
        const struct checkpoint_disk *row = c->disks->pdata[i];
        const struct domain_disk *disk = domain_find_disk(m->def, row->name);
        g_autofree char *top = disk ? disk_node_name(disk) : NULL;
        /* What lies in images below stays there: they are only read. */
        if (row->bitmap && top && bitmap_in(node_row(nodes, top), row->bitmap)) {
            json_array_append_new(actions, json_pack("{s:s, s:{s:s, s:s}}", "type",
                                                     "block-dirty-bitmap-remove", "data", "node",
                                                     top, "name", row->bitmap));
        }
    }
    if (!nodes || !json_array_size(actions)) {
        json_decref(actions);
        return nodes;
    }
    return qmp_do(m->qmp, error, "transaction", "{s:o}", "actions", actions);
}

static bool delete_one(Domain *d, GPtrArray *all, const Checkpoint *c, unsigned flags,
                       GError **error)
{
    if (!(flags & DELETE_METADATA)) {
        if (!domain_active(d)) {
            libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                          "cannot delete checkpoint for inactive domain");
            return false;
        }
        if (!delete_bitmaps(d, c, error)) {
            return false;
        }
    }
    for (unsigned i = 0; i < all->len; i++) { /* its children go up to its parent */
        Checkpoint *child = all->pdata[i];
        if (g_strcmp0(child->parent, c->name) == 0) {
            g_free(child->parent);
            child->parent = g_strdup(c->parent);
            if (!store(d, child, error)) {
                return false;
            }
        }
    }
    if (c->current == 1 && c->parent && !make_current(d, all, c->parent, error)) {
        return false;
    }
    forget(d, c->name);
    checkpoint_recount(d);
    return true;
}

static bool delete_below(Domain *d, const char *name, unsigned flags, GError **error)
{
    for (;;) {
        g_autoptr(GPtrArray) all = load_all(d);
        const Checkpoint *child = NULL;
        for (unsigned i = 0; i < all->len && !child; i++) {
            Checkpoint *c = all->pdata[i];
            child = g_strcmp0(c->parent, name) == 0 ? c : NULL;
        }
        if (!child) {
            return true;
        }
        if (!delete_below(d, child->name, flags, error) ||
            !delete_one(d, all, child, flags, error)) {
            return false;
        }
    }
}

bool verb_domain_checkpoint_delete(struct call *call, const rpc_checkpoint_flags *args,
                                   rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    const char *name = args->checkpoint.name;
    g_autoptr(DomainJob) d = domain_take(&args->checkpoint.dom, error);
    if (!d) {
        return false;
    }
    g_autoptr(GPtrArray) before = load_all(d);
    if (!need(before, name, error)) {
        return false;
    }
    if ((args->flags & (DELETE_CHILDREN | DELETE_CHILDREN_ONLY)) &&
        !delete_below(d, name, args->flags, error)) {
        return false;
    }
    g_autoptr(GPtrArray) all = load_all(d);
    const Checkpoint *c = need(all, name, error);
    return c && ((args->flags & DELETE_CHILDREN_ONLY) || delete_one(d, all, c, args->flags, error));
}

/* --- questions --- */

enum { LIST_ROOTS = 1, LIST_TOPOLOGICAL = 2, LIST_LEAVES = 4, LIST_NO_LEAVES = 8 };

static unsigned depth_of(const GPtrArray *all, const Checkpoint *c)
{
    unsigned depth = 0;
    while ((c = find(all, c->parent)) && depth < all->len) {
        depth++;
    }
    return depth;
}

static bool is_below(const GPtrArray *all, const Checkpoint *c, const char *top, bool deep)
{
    for (unsigned depth = 0; c && depth <= all->len; depth++) {
        if (g_strcmp0(c->parent, top) == 0) {
            return true;
        }
        c = deep ? find(all, c->parent) : NULL;
    }
    return false;
}

static bool chosen(const GPtrArray *all, const Checkpoint *c, const char *top, unsigned flags)
{
    bool leaf = true, first = flags & LIST_ROOTS;
    for (unsigned i = 0; i < all->len; i++) {
        leaf &= g_strcmp0(((const Checkpoint *)all->pdata[i])->parent, c->name) != 0;
    }
    unsigned wanted = flags & (LIST_LEAVES | LIST_NO_LEAVES);
    return (!wanted || (wanted & (leaf ? LIST_LEAVES : LIST_NO_LEAVES))) &&
           (top ? is_below(all, c, top, first) : !first || !c->parent);
}

static bool list_all(const rpc_domain *named, const char *top, int need_results, unsigned flags,
                     rpc_checkpoints *ret, GError **error)
{
    g_autoptr(Domain) d = domain_get(named, error);
    g_autoptr(GPtrArray) all = d ? load_all(d) : NULL;
    if (!all || (top && !need(all, top, error))) {
        return false;
    }
    ret->items.items_val = g_new0(rpc_checkpoint, all->len + 1);
    unsigned steps = flags & LIST_TOPOLOGICAL ? all->len : 1;
    for (unsigned k = 0; k < steps; k++) {
        for (unsigned i = 0; i < all->len; i++) {
            const Checkpoint *c = all->pdata[i];
            if (chosen(all, c, top, flags) && (steps == 1 || depth_of(all, c) == k)) {
                ret->count++;
                if (need_results) {
                    give(&ret->items.items_val[ret->items.items_len++], d, c->name);
                }
            }
        }
    }
    return true;
}

bool verb_domain_list_all_checkpoints(struct call *call, const rpc_domain_list_args *args,
                                      rpc_checkpoints *ret, GError **error)
{
    (void)call;
    return list_all(&args->dom, NULL, args->need_results, args->flags, ret, error);
}

bool verb_domain_checkpoint_list_all_children(struct call *call,
                                              const rpc_checkpoint_list_args *args,
                                              rpc_checkpoints *ret, GError **error)
{
    (void)call;
    return list_all(&args->checkpoint.dom, args->checkpoint.name, args->need_results, args->flags,
                    ret, error);
}

bool verb_domain_checkpoint_lookup_by_name(struct call *call, const rpc_domain_text_flags *args,
                                           rpc_checkpoint_ret *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(GPtrArray) all = d ? load_all(d) : NULL;
    if (!all || !need(all, args->text, error)) {
        return false;
    }
    give(&ret->checkpoint, d, args->text);
    return true;
}

bool verb_domain_checkpoint_get_parent(struct call *call, const rpc_checkpoint_flags *args,
                                       rpc_checkpoint_ret *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->checkpoint.dom, error);
    g_autoptr(GPtrArray) all = d ? load_all(d) : NULL;
    const Checkpoint *c = all ? need(all, args->checkpoint.name, error) : NULL;
    if (c && !c->parent) {
        libvirt_error(error, ERR_NO_DOMAIN_CHECKPOINT, "checkpoint '%s' does not have a parent",
                      c->name);
    }
    if (!c || !c->parent) {
        return false;
    }
    give(&ret->checkpoint, d, c->parent);
    return true;
}

/* How much was written since, in all images of each disk. */
static bool add_sizes(Domain *d, Checkpoint *c, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    g_autoptr(json_t) nodes = m ? all_nodes(m, error) : NULL;
    for (unsigned i = 0; nodes && i < xml_count(c->disks); i++) {
        struct checkpoint_disk *row = c->disks->pdata[i];
        const struct domain_disk *disk = domain_find_disk(m->def, row->name);
        g_autoptr(GPtrArray) with =
            disk && row->bitmap ? nodes_with(nodes, disk, row->bitmap) : NULL;
        for (unsigned k = 0; with && k < with->len; k++) {
            const json_t *one = bitmap_in(node_row(nodes, with->pdata[k]), row->bitmap);
            row->size = row->size == XML_ABSENT ? 0 : row->size;
            row->size += json_integer_value(json_object_get(one, "count"));
        }
    }
    return nodes != NULL;
}

bool verb_domain_checkpoint_get_xml_desc(struct call *call, const rpc_checkpoint_flags *args,
                                         rpc_text *ret, GError **error)
{
    enum { XML_SECURE = 1, XML_NO_DOMAIN = 2, XML_SIZE_TOO = 4 };
    g_autoptr(Domain) d = domain_get(&args->checkpoint.dom, error);
    g_autoptr(GPtrArray) all = d ? load_all(d) : NULL;
    Checkpoint *c = all ? need(all, args->checkpoint.name, error) : NULL;
    if (!c || ((args->flags & XML_SIZE_TOO) && !add_sizes(d, c, error))) {
        return false;
    }
    if ((args->flags & XML_SECURE) && call_read_only(call)) {
        libvirt_error(error, ERR_OPERATION_DENIED,
                      "virDomainCheckpointGetXMLDesc with secure flag");
        return false;
    }
    c->current = XML_ABSENT; /* ours alone */
    if (args->flags & XML_NO_DOMAIN) {
        xml_free(&domain_table, g_steal_pointer(&c->def));
    }
    ret->text =
        xml_write_text(&checkpoint_table, c, args->flags & XML_SECURE ? XML_MODE_SECRET : 0);
    return true;
}
