/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/points.h"
#include "manage/cli/xpath.h"
#include "manage/error.h"

#include <string.h>

/* clang-format off */
const struct point_kind kind_snapshot = {
    "snapshot", "Snapshot", "snapshotname", true,
    PROC_domain_snapshot_lookup_by_name, PROC_domain_snapshot_get_parent,
    PROC_domain_snapshot_get_xml_desc, PROC_domain_list_all_snapshots,
    PROC_domain_snapshot_list_all_children, PROC_domain_snapshot_create_xml,
    PROC_domain_snapshot_delete, .descendants = 1, .edit_flags = 1 /* with passwords */,
    {{"roots", 1}, {"metadata", 2}, {"leaves", 4}, {"no-leaves", 8}, {"no-metadata", 16},
     {"inactive", 32}, {"active", 64}, {"disk-only", 128}, {"internal", 256}, {"external", 512},
     {"topological", 1024}},
};
const struct point_kind kind_checkpoint = {
    "checkpoint", "Checkpoint", "checkpointname", false,
    PROC_domain_checkpoint_lookup_by_name, PROC_domain_checkpoint_get_parent,
    PROC_domain_checkpoint_get_xml_desc, PROC_domain_list_all_checkpoints,
    PROC_domain_checkpoint_list_all_children, PROC_domain_checkpoint_create_xml,
    PROC_domain_checkpoint_delete, .descendants = 1, .edit_flags = 1,
    {{"roots", 1}, {"topological", 2}, {"leaves", 4}, {"no-leaves", 8}},
};
/* clang-format on */

/* ---- One of them ---- */

static bool lookup(Rpc *rpc, const struct point_kind *k, const rpc_domain *dom, const char *name,
                   rpc_snapshot *out, GError **error)
{
    rpc_domain_text_flags args = {*dom, (char *)name, 0};
    return rpc_ask(rpc, PROGRAM_REMOTE, k->lookup, (xdrproc_t)xdr_rpc_domain_text_flags, &args,
                   (xdrproc_t)xdr_rpc_snapshot, out, sizeof(*out), error);
}

static bool current(Rpc *rpc, const rpc_domain *dom, rpc_snapshot *out, GError **error)
{
    rpc_domain_flags args = {*dom, 0};
    rpc_snapshot_ret ret = {0};
    if (!ask_domain_snapshot_current(rpc, &args, &ret, error)) {
        return false;
    }
    *out = ret.snap;
    return true;
}

/* Snapshot verbs may say --current instead of a name; of edit that is another option. */
bool point_find(struct shell *sh, const struct args *a, rpc_snapshot *out, GError **error)
{
    const struct point_kind *k = shell_data(sh);
    const char *name = args_text(a, k->option);
    g_auto(rpc_domain) dom = {0};
    if (!name && !(k->has_current && args_flag(a, "current"))) {
        return shell_fail(error,
                          k->has_current ? "--%s or --current is required" : "--%s is required",
                          k->option);
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    return name ? lookup(rpc, k, &dom, name, out, error) : current(rpc, &dom, out, error);
}

bool point_xml(Rpc *rpc, const struct point_kind *k, const rpc_snapshot *point, unsigned flags,
               rpc_text *xml, GError **error)
{
    rpc_snapshot_flags args = {*point, flags};
    return rpc_ask(rpc, PROGRAM_REMOTE, k->get_xml, (xdrproc_t)xdr_rpc_snapshot_flags, &args,
                   (xdrproc_t)xdr_rpc_text, xml, sizeof(*xml), error);
}

char *point_parent(Rpc *rpc, const struct point_kind *k, const rpc_snapshot *point, GError **error)
{
    rpc_snapshot_flags args = {*point, 0};
    g_auto(rpc_snapshot) parent = {0};
    g_autoptr(GError) why = NULL;
    if (rpc_ask(rpc, PROGRAM_REMOTE, k->parent, (xdrproc_t)xdr_rpc_snapshot_flags, &args,
                (xdrproc_t)xdr_rpc_snapshot, &parent, sizeof(parent), &why)) {
        return g_strdup(parent.name);
    }
    if (why->domain != LIBVIRT_ERROR ||
        why->code != (k->has_current ? ERR_NO_DOMAIN_SNAPSHOT : ERR_NO_DOMAIN_CHECKPOINT)) {
        g_propagate_error(error, g_steal_pointer(&why));
    }
    return NULL;
}

/* ---- Lists and trees ---- */

/* All of the domain, or those below @from. */
static bool list(Rpc *rpc, const struct point_kind *k, const rpc_domain *dom,
                 const rpc_snapshot *from, unsigned flags, rpc_snapshots *all, GError **error)
{
    rpc_domain_list_args of_domain = {*dom, 1, flags};
    rpc_snapshot_list_args below = {.need_results = 1, .flags = flags};
    if (from) {
        below.snap = *from;
    }
    return rpc_ask(rpc, PROGRAM_REMOTE, from ? k->list_children : k->list,
                   from ? (xdrproc_t)xdr_rpc_snapshot_list_args
                        : (xdrproc_t)xdr_rpc_domain_list_args,
                   from ? (void *)&below : (void *)&of_domain, (xdrproc_t)xdr_rpc_snapshots, all,
                   sizeof(*all), error);
}

static void list_row(struct shell *sh, const struct point_kind *k, const rpc_snapshot *point,
                     const char *parent)
{
    g_auto(rpc_text) xml = {0};
    g_auto(xpath_t) x = {0};
    const char *columns[4] = {0};
    unsigned n = 0;
    if (!point_xml(shell_rpc(sh, NULL), k, point, 0, &xml, NULL) ||
        !xpath_open(&x, xml.text, NULL)) {
        return;
    }
    g_autofree char *state = xpath_text(&x, NULL, "state");
    g_autofree char *stamp = xpath_text(&x, NULL, "creationTime");
    g_autoptr(GDateTime) at =
        stamp ? g_date_time_new_from_unix_local(g_ascii_strtoll(stamp, NULL, 10)) : NULL;
    g_autofree char *when = at ? g_date_time_format(at, "%F %T %z") : g_strdup("");
    columns[n++] = when;
    if (k->has_current) {
        columns[n++] = state ? state : "-";
    }
    columns[n++] = parent;
    out_row(sh, point->name, columns[0], columns[1], columns[2], NULL);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const rpc_snapshot *)a)->name, ((const rpc_snapshot *)b)->name);
}

static void show_table(struct shell *sh, const struct point_kind *k, const rpc_snapshots *all,
                       bool parented, char *const *parents)
{
    const char *headers[5] = {"Name", "Creation Time"};
    unsigned n = 2;
    if (k->has_current) {
        headers[n++] = "State";
    }
    headers[n] = parented ? "Parent" : NULL;
    out_table(sh, headers);
    for (unsigned i = 0; i < all->items.items_len; i++) {
        const char *parent = parented && parents[i] ? parents[i] : "";
        list_row(sh, k, &all->items.items_val[i], parented ? parent : NULL);
    }
    out_table_end(sh);
}

/* All, or what is below @from, which is not in the list. */
static void show_tree(struct shell *sh, const rpc_snapshots *all, char *const *parents,
                      const char *from)
{
    unsigned n = all->items.items_len;
    g_autofree struct out_node *nodes = g_new0(struct out_node, n + 1);
    for (unsigned i = 0; i < n; i++) {
        nodes[i] = (struct out_node){all->items.items_val[i].name, parents[i]};
    }
    nodes[n].name = from;
    out_tree(sh, nodes, n + (from != NULL));
}

/* What list verbs show of @all: a tree, names or a table. */
static bool show_list(struct shell *sh, const struct args *a, rpc_snapshots *all, const char *from,
                      GError **error)
{
    const struct point_kind *k = shell_data(sh);
    unsigned n = all->items.items_len;
    bool parented = args_flag(a, "tree") || args_flag(a, "parent");
    g_autoptr(GPtrArray) parents = g_ptr_array_new_with_free_func(g_free);
    if (!args_flag(a, "topological")) {
        sort_items(all->items.items_val, n, sizeof(rpc_snapshot), by_name);
    }
    for (unsigned i = 0; parented && i < n; i++) {
        g_autoptr(GError) why = NULL;
        g_ptr_array_add(parents,
                        point_parent(shell_rpc(sh, NULL), k, &all->items.items_val[i], &why));
        if (why) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
    }
    if (args_flag(a, "tree")) {
        show_tree(sh, all, (char **)parents->pdata, from);
    } else if (args_flag(a, "name")) {
        for (unsigned i = 0; i < n; i++) {
            out_line(sh, "%s", all->items.items_val[i].name);
        }
    } else {
        show_table(sh, k, all, args_flag(a, "parent"), (char **)parents->pdata);
    }
    return true;
}

bool run_point_list(struct shell *sh, const struct args *a, GError **error)
{
    const struct point_kind *k = shell_data(sh);
    const char *name = args_text(a, "from");
    bool from_current = k->has_current && args_flag(a, "current");
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_snapshot) from = {0};
    g_auto(rpc_snapshots) all = {0};
    unsigned flags = flags_of(a, k->list_bits, G_N_ELEMENTS(k->list_bits));
    if (name && from_current) {
        return shell_fail(error, "--from and --current are mutually exclusive");
    }
    if (args_flag(a, "descendants") && !name && !from_current) {
        return shell_fail(error, k->has_current
                                     ? "--descendants requires either --from or --current"
                                     : "--descendants requires --from");
    }
    if (!exclusive(a, "tree", "name", error) || !exclusive(a, "parent", "roots", error) ||
        !exclusive(a, "parent", "tree", error) || !exclusive(a, "roots", "tree", error) ||
        !exclusive(a, "roots", "from", error) ||
        (k->has_current && !exclusive(a, "roots", "current", error)) ||
        !shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    if ((name && !lookup(rpc, k, &dom, name, &from, error)) ||
        (!name && from_current && !current(rpc, &dom, &from, error))) {
        return false;
    }
    if (args_flag(a, "descendants")) {
        flags |= k->descendants;
    }
    return list(rpc, k, &dom, from.name ? &from : NULL, flags, &all, error) &&
           show_list(sh, a, &all, from.name, error);
}

/* ---- Making ---- */

bool point_create(struct shell *sh, const struct point_kind *k, const rpc_domain *dom,
                  const char *xml, unsigned flags, const char *path, GError **error)
{
    rpc_domain_text_flags args = {*dom, (char *)xml, flags};
    g_auto(rpc_snapshot) made = {0};
    if (!rpc_ask(shell_rpc(sh, NULL), PROGRAM_REMOTE, k->create,
                 (xdrproc_t)xdr_rpc_domain_text_flags, &args, (xdrproc_t)xdr_rpc_snapshot, &made,
                 sizeof(made), error)) {
        return false;
    }
    if (path) {
        out_note_open(sh, "Domain %s %s created from '%s'", k->noun, made.name, path);
    } else {
        out_note_open(sh, "Domain %s %s created", k->noun, made.name);
    }
    return true;
}

void point_words(const struct args *a, GString *xml)
{
    static const char *const words[] = {"name", "description"};
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        if (args_text(a, words[i])) {
            g_autofree char *safe = g_markup_escape_text(args_text(a, words[i]), -1);
            g_string_append_printf(xml, "  <%s>%s</%s>\n", words[i], safe, words[i]);
        }
    }
}

/* The value of "key=value" in @parts, or NULL; what it was is taken out. */
static char *take(char **parts, const char *key)
{
    size_t n = strlen(key);
    for (; *parts; parts++) {
        if (strncmp(*parts, key, n) == 0 && (*parts)[n] == '=') {
            char *safe = g_markup_escape_text(*parts + n + 1, -1);
            g_free(*parts);
            *parts = g_strdup("");
            return safe;
        }
    }
    return NULL;
}

/* "vda,snapshot=external,file=/x" as an element; false at a part that is not known. */
static bool disk_element(GString *xml, const char *spec, const char *const *attributes,
                         GError **error)
{
    g_auto(GStrv) parts = g_strsplit(spec, ",", -1);
    g_autofree char *disk = g_markup_escape_text(parts[0] ? parts[0] : "", -1);
    char **more = parts + (parts[0] != NULL);
    g_autofree char *driver = take(more, "driver"), *file = take(more, "file");
    g_string_append_printf(xml, "    <disk name='%s'", disk);
    for (; *attributes; attributes++) {
        g_autofree char *value = take(more, *attributes);
        if (value) {
            g_string_append_printf(xml, " %s='%s'", *attributes, value);
        }
    }
    for (; *more; more++) {
        if (**more) {
            return shell_fail(error, "unable to parse diskspec: %s", spec);
        }
    }
    g_string_append(xml, file || driver ? ">\n" : "/>\n");
    if (driver) {
        g_string_append_printf(xml, "      <driver type='%s'/>\n", driver);
    }
    if (file) {
        g_string_append_printf(xml, "      <source file='%s'/>\n", file);
    }
    if (file || driver) {
        g_string_append(xml, "    </disk>\n");
    }
    return true;
}

bool point_disks(const struct args *a, GString *xml, const char *const *attributes, GError **error)
{
    char **disks = args_many(a, "diskspec");
    if (!disks) {
        return true;
    }
    g_string_append(xml, "  <disks>\n");
    for (; *disks; disks++) {
        if (!disk_element(xml, *disks, attributes, error)) {
            return false;
        }
    }
    g_string_append(xml, "  </disks>\n");
    return true;
}

/* ---- Verbs of one ---- */

bool run_point_parent(struct shell *sh, const struct args *a, GError **error)
{
    const struct point_kind *k = shell_data(sh);
    g_auto(rpc_snapshot) point = {0};
    g_autoptr(GError) why = NULL;
    if (!point_find(sh, a, &point, error)) {
        return false;
    }
    g_autofree char *parent = point_parent(shell_rpc(sh, NULL), k, &point, &why);
    if (why) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    if (!parent) {
        return shell_fail(error, "%s '%s' has no parent", k->noun, point.name);
    }
    out_text(sh, "name", "%s", parent);
    return true;
}

bool run_point_delete(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"children", 1}, {"metadata", 2}, {"children-only", 4}};
    const struct point_kind *k = shell_data(sh);
    g_auto(rpc_snapshot) point = {0};
    rpc_none none;
    if (!point_find(sh, a, &point, error)) {
        return false;
    }
    rpc_snapshot_flags args = {point, flags_of(a, bits, G_N_ELEMENTS(bits))};
    if (!rpc_ask(shell_rpc(sh, NULL), PROGRAM_REMOTE, k->delete_one,
                 (xdrproc_t)xdr_rpc_snapshot_flags, &args, (xdrproc_t)xdr_rpc_none, &none,
                 sizeof(none), error)) {
        shell_failing(sh, "Failed to delete %s %s", k->noun, point.name);
        return false;
    }
    out_note(sh, "Domain %s %s %sdeleted", k->noun, point.name,
             args_flag(a, "children-only") ? "children " : "");
    return true;
}

static void show_count(struct shell *sh, const struct point_kind *k, const rpc_snapshot *point,
                       const char *label, unsigned flags)
{
    g_auto(rpc_snapshots) below = {0};
    if (list(shell_rpc(sh, NULL), k, &point->dom, point, flags, &below, NULL)) {
        out_field(sh, label, "%u", below.items.items_len);
    }
}

/* What only snapshots have. */
static bool show_state(struct shell *sh, const rpc_snapshot *snap, GError **error)
{
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_snapshot_flags args = {*snap, 0};
    g_auto(rpc_text) xml = {0};
    g_auto(xpath_t) x = {0};
    rpc_int v;
    if (!point_xml(rpc, &kind_snapshot, snap, 0, &xml, error) || !xpath_open(&x, xml.text, error)) {
        return false;
    }
    g_autofree char *state = xpath_text(&x, NULL, "state");
    g_autofree char *memory = xpath_text(&x, NULL, "memory/@snapshot");
    bool external = g_strcmp0(memory, "external") == 0 || g_strcmp0(state, "disk-snapshot") == 0;
    if (ask_domain_snapshot_is_current(rpc, &args, &v, NULL)) {
        out_field(sh, "Current:", "%s", v.value ? "yes" : "no");
    }
    out_field(sh, "State:", "%s", state ? state : "-");
    out_field(sh, "Location:", "%s", external ? "external" : "internal");
    return true;
}

bool run_point_info(struct shell *sh, const struct args *a, GError **error)
{
    const struct point_kind *k = shell_data(sh);
    g_auto(rpc_snapshot) point = {0};
    rpc_int v;
    if (!point_find(sh, a, &point, error)) {
        return false;
    }
    out_field(sh, "Name:", "%s", point.name);
    out_field(sh, "Domain:", "%s", point.dom.name);
    if (k->has_current && !show_state(sh, &point, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    g_autofree char *parent = point_parent(rpc, k, &point, NULL);
    out_field(sh, "Parent:", "%s", parent ? parent : "-");
    show_count(sh, k, &point, "Children:", 0);
    show_count(sh, k, &point, "Descendants:", k->descendants);
    rpc_snapshot_flags args = {point, 0};
    if (k->has_current && ask_domain_snapshot_has_metadata(rpc, &args, &v, NULL)) {
        out_field(sh, "Metadata:", "%s", v.value ? "yes" : "no");
    }
    return true;
}

/* ---- Editing ---- */

struct edited {
    const struct point_kind *kind;
    const rpc_snapshot *point;
    bool rename, clone;
    unsigned flags;
    char *name; /* the new one */
};

static char *get_edited(struct shell *sh, const void *data, GError **error)
{
    const struct edited *e = data;
    g_auto(rpc_text) xml = {0};
    return point_xml(shell_rpc(sh, NULL), e->kind, e->point, e->kind->edit_flags, &xml, error)
               ? g_strdup(xml.text)
               : NULL;
}

static bool put_edited(struct shell *sh, const char *xml, bool validate, const void *data,
                       GError **error)
{
    struct edited *e = (struct edited *)data;
    enum { REDEFINE = 1, DISK_ONLY = 16 };
    g_auto(xpath_t) x = {0};
    (void)validate;
    if (!xpath_open(&x, xml, error)) {
        return false;
    }
    g_free(e->name);
    e->name = xpath_text(&x, NULL, "name");
    if (g_strcmp0(e->name, e->point->name) != 0 && !e->rename && !e->clone) {
        return e->kind->has_current
                   ? shell_fail(error, "Must use --rename or --clone to change %s to %s",
                                e->point->name, e->name)
                   : shell_fail(error, "Cannot rename checkpoint %s to %s", e->point->name,
                                e->name);
    }
    g_autofree char *state = xpath_text(&x, NULL, "state");
    rpc_domain_text_flags args = {e->point->dom, (char *)xml,
                                  REDEFINE | e->flags |
                                      (g_strcmp0(state, "disk-snapshot") == 0 ? DISK_ONLY : 0)};
    g_auto(rpc_snapshot) made = {0};
    return rpc_ask(shell_rpc(sh, NULL), PROGRAM_REMOTE, e->kind->create,
                   (xdrproc_t)xdr_rpc_domain_text_flags, &args, (xdrproc_t)xdr_rpc_snapshot, &made,
                   sizeof(made), error);
}

/* It has another name now: the old one is forgotten. */
static bool forget_old(struct shell *sh, const struct edited *e, GError **error)
{
    enum { METADATA = 2 };
    rpc_snapshot_flags args = {*e->point, METADATA};
    rpc_none none;
    if (!ask_domain_snapshot_delete(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Failed to clean up %s", e->point->name);
        return false;
    }
    return true;
}

bool run_point_edit(struct shell *sh, const struct args *a, GError **error)
{
    enum { CURRENT = 2 };
    const struct point_kind *k = shell_data(sh);
    g_auto(rpc_snapshot) point = {0};
    bool changed;
    struct edited e = {k, &point};
    if (k->has_current) {
        e.rename = args_flag(a, "rename");
        e.clone = args_flag(a, "clone");
        if (!exclusive(a, "rename", "clone", error)) {
            return false;
        }
    }
    if (!point_find(sh, a, &point, error)) {
        return false;
    }
    bool make_current = k->has_current && args_flag(a, "current") && args_text(a, k->option);
    e.flags = make_current ? CURRENT : 0;
    const struct edit edit = {get_edited, put_edited, &e, .put_unchanged = make_current};
    bool ok = edit_run(sh, &edit, &changed, error);
    if (!ok) { /* virsh tells the reason first */
        shell_failing(sh, "%s", (*error)->message);
        g_clear_error(error);
        shell_fail(error, "Failed to update %s", point.name);
    }
    bool other = ok && changed && g_strcmp0(e.name, point.name) != 0;
    if (ok && !changed) {
        out_note(sh, "%s %s XML configuration not changed.", k->title, point.name);
    } else if (ok && other) {
        out_note(sh, e.clone ? "%s %s cloned to %s." : "%s %s renamed to %s.", k->title, point.name,
                 e.name);
        ok = e.clone || forget_old(sh, &e, error);
    } else if (ok) {
        out_note(sh, "%s %s edited.", k->title, point.name);
    }
    g_free(e.name);
    return ok;
}
