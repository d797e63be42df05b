/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"
#include "manage/cli/xpath.h"

#include <string.h>

#define NAMED         DOMAIN_OPTION(COMPLETE_DOMAIN)
#define SNAPSHOT_NAME {"snapshotname", OPT_TEXT, 0, "the snapshot", COMPLETE_SNAPSHOT}
#define OR_CURRENT    {"current", OPT_BOOL, 0, "the current one"}

static const struct flag_bit create_bits[] = {
    {"redefine", 1}, {"current", 2}, {"no-metadata", 4}, {"halt", 8}, {"disk-only", 16},
    {"reuse-external", 32}, {"quiesce", 64}, {"atomic", 128}, {"live", 256}, {"validate", 512}};

/* The one that the options name; its .dom is freed with it. */
static bool find(struct shell *sh, const struct args *a, rpc_snapshot *out, GError **error)
{
    const char *name = args_text(a, "snapshotname");
    rpc_snapshot_ret ret = {0};
    g_auto(rpc_domain) dom = {0};
    if (!name && !args_flag(a, "current")) {
        return shell_fail(error, "--snapshotname or --current is required");
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_domain_text_flags by_name = {dom, (char *)name, 0};
    rpc_domain_flags current = {dom, 0};
    if (!(name ? ask_domain_snapshot_lookup_by_name(rpc, &by_name, &ret, error)
               : ask_domain_snapshot_current(rpc, &current, &ret, error))) {
        return false;
    }
    *out = ret.snap;
    return true;
}

static bool xml_of(Rpc *rpc, const rpc_snapshot *snap, unsigned flags, rpc_text *xml,
                   GError **error)
{
    rpc_snapshot_flags args = {*snap, flags};
    return ask_domain_snapshot_get_xml_desc(rpc, &args, xml, error);
}

/* ---- snapshot-list ---- */

static char *parent_of(Rpc *rpc, const rpc_snapshot *snap)
{
    rpc_snapshot_flags args = {*snap, 0};
    g_auto(rpc_snapshot_ret) ret = {0};
    return ask_domain_snapshot_get_parent(rpc, &args, &ret, NULL) ? g_strdup(ret.snap.name) : NULL;
}

static void tree(struct shell *sh, const rpc_snapshots *all, char *const *parents,
                 const char *parent, const char *indent, bool last)
{
    unsigned n = all->items.items_len, left = 0;
    for (unsigned i = 0; i < n; i++) {
        left += g_strcmp0(parents[i], parent) == 0;
    }
    for (unsigned i = 0; i < n; i++) {
        if (g_strcmp0(parents[i], parent) != 0) {
            continue;
        }
        bool final = --left == 0;
        const char *name = all->items.items_val[i].name;
        g_autofree char *deeper = parent ? g_strconcat(indent, final ? "    " : "|   ", NULL)
                                         : g_strdup("  ");
        if (parent) {
            out_line(sh, "%s|", indent);
            out_line(sh, "%s+- %s", indent, name);
        } else {
            out_line(sh, "%s", name);
        }
        tree(sh, all, parents, name, parent ? deeper : "  ", last && final);
        if (!parent) {
            out_line(sh, "%s", "");
        }
    }
}

static void list_row(struct shell *sh, Rpc *rpc, const rpc_snapshot *snap, bool with_parent)
{
    g_auto(rpc_text) xml = {0};
    g_auto(xpath_t) x = {0};
    if (!xml_of(rpc, snap, 0, &xml, NULL) || !xpath_open(&x, xml.text, NULL)) {
        return;
    }
    g_autofree char *state = xpath_text(&x, NULL, "state");
    g_autofree char *stamp = xpath_text(&x, NULL, "creationTime");
    g_autoptr(GDateTime) at =
        stamp ? g_date_time_new_from_unix_local(g_ascii_strtoll(stamp, NULL, 10)) : NULL;
    g_autofree char *when = at ? g_date_time_format(at, "%F %T %z") : g_strdup("");
    g_autofree char *parent = with_parent ? parent_of(rpc, snap) : NULL;
    if (with_parent) {
        out_row(sh, snap->name, when, state ? state : "-", parent ? parent : "", NULL);
    } else {
        out_row(sh, snap->name, when, state ? state : "-", NULL);
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const rpc_snapshot *)a)->name, ((const rpc_snapshot *)b)->name);
}

static bool run_list(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const plain[] = {"Name", "Creation Time", "State", NULL};
    static const char *const parented[] = {"Name", "Creation Time", "State", "Parent", NULL};
    static const struct flag_bit bits[] = {
        {"roots", 1}, {"metadata", 2}, {"leaves", 4}, {"no-leaves", 8}, {"no-metadata", 16},
        {"inactive", 32}, {"active", 64}, {"disk-only", 128}, {"internal", 256},
        {"external", 512}, {"topological", 1024}};
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_snapshots) all = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_domain_list_args args = {dom, 1, flags_of(a, bits, G_N_ELEMENTS(bits))};
    if (!ask_domain_list_all_snapshots(rpc, &args, &all, error)) {
        return false;
    }
    unsigned n = all.items.items_len;
    sort_items(all.items.items_val, n, sizeof(rpc_snapshot), by_name);
    if (args_flag(a, "tree")) {
        g_autoptr(GPtrArray) parents = g_ptr_array_new_with_free_func(g_free);
        for (unsigned i = 0; i < n; i++) {
            g_ptr_array_add(parents, parent_of(rpc, &all.items.items_val[i]));
        }
        tree(sh, &all, (char **)parents->pdata, NULL, "", true);
        return true;
    }
    if (args_flag(a, "name")) {
        for (unsigned i = 0; i < n; i++) {
            out_line(sh, "%s", all.items.items_val[i].name);
        }
        return true;
    }
    out_table(sh, args_flag(a, "parent") ? parented : plain);
    for (unsigned i = 0; i < n; i++) {
        list_row(sh, rpc, &all.items.items_val[i], args_flag(a, "parent"));
    }
    out_table_end(sh);
    return true;
}

/* ---- Making ---- */

static bool create(struct shell *sh, const rpc_domain *dom, const char *xml, unsigned flags,
                   const char *from, GError **error)
{
    rpc_domain_text_flags args = {*dom, (char *)xml, flags};
    g_auto(rpc_snapshot_ret) ret = {0};
    if (!ask_domain_snapshot_create_xml(shell_rpc(sh, NULL), &args, &ret, error)) {
        return false;
    }
    if (from) {
        out_note_open(sh, "Domain snapshot %s created from '%s'", ret.snap.name, from);
    } else {
        out_note_open(sh, "Domain snapshot %s created", ret.snap.name);
    }
    return true;
}

static bool run_create(struct shell *sh, const struct args *a, GError **error)
{
    const char *path = args_text(a, "xmlfile");
    g_auto(rpc_domain) dom = {0};
    g_autofree char *xml = path ? shell_read_file(path, error) : g_strdup("<domainsnapshot/>");
    return xml && shell_domain(sh, args_text(a, "domain"), &dom, error) &&
           create(sh, &dom, xml, flags_of(a, create_bits, G_N_ELEMENTS(create_bits)), path, error);
}

/* "vda,snapshot=external,file=/x" as an element; false at a part that is not known. */
static bool disk_element(GString *xml, const char *spec, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(spec, ",", -1);
    g_autofree char *disk = g_markup_escape_text(parts[0] ? parts[0] : "", -1);
    const char *file = NULL, *driver = NULL, *snapshot = NULL;
    for (unsigned i = 1; parts[i]; i++) {
        if (g_str_has_prefix(parts[i], "file=")) {
            file = parts[i] + 5;
        } else if (g_str_has_prefix(parts[i], "driver=")) {
            driver = parts[i] + 7;
        } else if (g_str_has_prefix(parts[i], "snapshot=")) {
            snapshot = parts[i] + 9;
        } else {
            return shell_fail(error, "unable to parse diskspec: %s", spec);
        }
    }
    g_string_append_printf(xml, "    <disk name='%s'", disk);
    if (snapshot) {
        g_autofree char *safe = g_markup_escape_text(snapshot, -1);
        g_string_append_printf(xml, " snapshot='%s'", safe);
    }
    g_string_append(xml, file || driver ? ">\n" : "/>\n");
    if (driver) {
        g_autofree char *safe = g_markup_escape_text(driver, -1);
        g_string_append_printf(xml, "      <driver type='%s'/>\n", safe);
    }
    if (file) {
        g_autofree char *safe = g_markup_escape_text(file, -1);
        g_string_append_printf(xml, "      <source file='%s'/>\n", safe);
    }
    if (file || driver) {
        g_string_append(xml, "    </disk>\n");
    }
    return true;
}

/* "file=/x,snapshot=external" */
static bool memory_element(GString *xml, const char *spec, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(spec, ",", -1);
    g_string_append(xml, "  <memory");
    for (unsigned i = 0; parts[i]; i++) {
        const char *value = g_str_has_prefix(parts[i], "file=")       ? parts[i] + 5
                            : g_str_has_prefix(parts[i], "snapshot=") ? parts[i] + 9
                            : i == 0                                  ? parts[i]
                                                                      : NULL;
        if (!value) {
            return shell_fail(error, "unable to parse memspec: %s", spec);
        }
        g_autofree char *safe = g_markup_escape_text(value, -1);
        g_string_append_printf(xml, " %s='%s'",
                               g_str_has_prefix(parts[i], "file=") ? "file" : "snapshot", safe);
    }
    g_string_append(xml, "/>\n");
    return true;
}

static bool snapshot_xml(const struct args *a, GString *xml, GError **error)
{
    g_string_append(xml, "<domainsnapshot>\n");
    for (const char *const *e = (const char *const[]){"name", "description", NULL}; *e; e++) {
        if (args_text(a, *e)) {
            g_autofree char *safe = g_markup_escape_text(args_text(a, *e), -1);
            g_string_append_printf(xml, "  <%s>%s</%s>\n", *e, safe, *e);
        }
    }
    if (args_text(a, "memspec") && !memory_element(xml, args_text(a, "memspec"), error)) {
        return false;
    }
    char **disks = args_many(a, "diskspec");
    if (disks) {
        g_string_append(xml, "  <disks>\n");
        for (; *disks; disks++) {
            if (!disk_element(xml, *disks, error)) {
                return false;
            }
        }
        g_string_append(xml, "  </disks>\n");
    }
    g_string_append(xml, "</domainsnapshot>\n");
    return true;
}

static bool run_create_as(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {
        {"no-metadata", 4}, {"halt", 8}, {"disk-only", 16}, {"reuse-external", 32},
        {"quiesce", 64}, {"atomic", 128}, {"live", 256}};
    g_autoptr(GString) xml = g_string_new(NULL);
    g_auto(rpc_domain) dom = {0};
    if (!snapshot_xml(a, xml, error)) {
        return false;
    }
    if (args_flag(a, "print-xml")) {
        out_text(sh, "xml", "%s", xml->str);
        return true;
    }
    return shell_domain(sh, args_text(a, "domain"), &dom, error) &&
           create(sh, &dom, xml->str, flags_of(a, bits, G_N_ELEMENTS(bits)), NULL, error);
}

/* ---- One snapshot ---- */

static bool run_current(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_snapshot_ret) ret = {0};
    g_auto(rpc_text) xml = {0};
    rpc_int has;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_domain_flags args = {dom, 0};
    if (!ask_domain_has_current_snapshot(rpc, &args, &has, error)) {
        return false;
    }
    if (!has.value) {
        return shell_fail(error, "domain '%s' has no current snapshot", dom.name);
    }
    if (!ask_domain_snapshot_current(rpc, &args, &ret, error)) {
        return false;
    }
    if (args_flag(a, "name")) {
        out_text(sh, "name", "%s", ret.snap.name);
        return true;
    }
    if (!xml_of(rpc, &ret.snap, args_flag(a, "security-info"), &xml, error)) {
        return false;
    }
    out_text(sh, "xml", "%s", xml.text);
    return true;
}

static bool run_dumpxml(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_snapshot) snap = {0};
    g_auto(rpc_text) xml = {0};
    if (!find(sh, a, &snap, error) ||
        !xml_of(shell_rpc(sh, NULL), &snap, args_flag(a, "security-info"), &xml, error)) {
        return false;
    }
    out_text(sh, "xml", "%s", xml.text);
    return true;
}

static bool run_info(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_snapshot) snap = {0};
    g_auto(rpc_text) xml = {0};
    g_auto(xpath_t) x = {0};
    rpc_int v;
    if (!find(sh, a, &snap, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_snapshot_flags args = {snap, 0};
    if (!xml_of(rpc, &snap, 0, &xml, error) || !xpath_open(&x, xml.text, error)) {
        return false;
    }
    g_autofree char *state = xpath_text(&x, NULL, "state");
    g_autofree char *memory = xpath_text(&x, NULL, "memory/@snapshot");
    g_autofree char *parent = parent_of(rpc, &snap);
    bool external = g_strcmp0(memory, "external") == 0 || g_strcmp0(state, "disk-snapshot") == 0;
    out_field(sh, "Name:", "%s", snap.name);
    out_field(sh, "Domain:", "%s", snap.dom.name);
    if (ask_domain_snapshot_is_current(rpc, &args, &v, NULL)) {
        out_field(sh, "Current:", "%s", v.value ? "yes" : "no");
    }
    out_field(sh, "State:", "%s", state ? state : "-");
    out_field(sh, "Location:", "%s", external ? "external" : "internal");
    out_field(sh, "Parent:", "%s", parent ? parent : "-");
    if (ask_domain_snapshot_num_children(rpc, &args, &v, NULL)) {
        out_field(sh, "Children:", "%d", v.value);
    }
    rpc_snapshot_flags descendants = {snap, 1};
    if (ask_domain_snapshot_num_children(rpc, &descendants, &v, NULL)) {
        out_field(sh, "Descendants:", "%d", v.value);
    }
    if (ask_domain_snapshot_has_metadata(rpc, &args, &v, NULL)) {
        out_field(sh, "Metadata:", "%s", v.value ? "yes" : "no");
    }
    return true;
}

static bool run_parent(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_snapshot) snap = {0};
    if (!find(sh, a, &snap, error)) {
        return false;
    }
    g_autofree char *parent = parent_of(shell_rpc(sh, NULL), &snap);
    if (!parent) {
        return shell_fail(error, "snapshot '%s' has no parent", snap.name);
    }
    out_text(sh, "name", "%s\n", parent);
    return true;
}

static bool run_delete(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"children", 1}, {"metadata", 2}, {"children-only", 4}};
    g_auto(rpc_snapshot) snap = {0};
    rpc_none none;
    if (!find(sh, a, &snap, error)) {
        return false;
    }
    rpc_snapshot_flags args = {snap, flags_of(a, bits, 3)};
    if (!ask_domain_snapshot_delete(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Failed to delete snapshot %s", snap.name);
        return false;
    }
    out_note(sh, args_flag(a, "children-only") ? "Domain snapshot %s children deleted"
                                               : "Domain snapshot %s deleted", snap.name);
    return true;
}

static bool run_revert(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"running", 1}, {"paused", 2}, {"force", 4},
                                           {"reset-nvram", 8}};
    g_auto(rpc_snapshot) snap = {0};
    rpc_none none;
    if (!find(sh, a, &snap, error)) {
        return false;
    }
    rpc_snapshot_flags args = {snap, flags_of(a, bits, G_N_ELEMENTS(bits))};
    if (!ask_domain_revert_to_snapshot(shell_rpc(sh, NULL), &args, &none, error)) {
        return false;
    }
    out_note(sh, "Domain snapshot %s reverted", snap.name);
    return true;
}

#define CREATE_FLAGS                                                                               \
    {"no-metadata", OPT_BOOL, 0, "forget it at once"},                                             \
        {"halt", OPT_BOOL, 0, "stop the domain afterwards"},                                       \
        {"disk-only", OPT_BOOL, 0, "without memory"},                                              \
        {"reuse-external", OPT_BOOL, 0, "into files that are there"},                              \
        {"quiesce", OPT_BOOL, 0, "freeze the guest's file systems meanwhile"},                     \
        {"atomic", OPT_BOOL, 0, "all or nothing"},                                                 \
        {"live", OPT_BOOL, 0, "the guest goes on meanwhile"}

const struct verb_group verb_group_snapshot = {"Snapshot", "snapshot", (const struct verb_row[]){
    {"snapshot-create", (const struct option_row[]){NAMED,
        {"xmlfile", OPT_TEXT, 0, "file with its XML", COMPLETE_FILE},
        {"redefine", OPT_BOOL, 0, "make known what is there"},
        {"current", OPT_BOOL, 0, "with --redefine: make it the current one"}, CREATE_FLAGS,
        {"validate", OPT_BOOL, 0, "check the XML against the schema"}, {NULL}},
     "makes a snapshot of XML", run_create},
    {"snapshot-create-as", (const struct option_row[]){NAMED,
        {"name", OPT_TEXT, 0, "its name"}, {"description", OPT_TEXT, 0, "what it is"},
        {"print-xml", OPT_BOOL, 0, "print the XML and do nothing"}, CREATE_FLAGS,
        {"memspec", OPT_TEXT, OPT_NAMED, "[file=]NAME[,snapshot=TYPE]"},
        {"diskspec", OPT_MANY, OPT_EMPTY_OK, "DISK[,snapshot=TYPE][,driver=TYPE][,file=NAME]"},
        {NULL}},
     "makes a snapshot of arguments", run_create_as},
    {"snapshot-current", (const struct option_row[]){NAMED,
        {"name", OPT_BOOL, 0, "its name alone"},
        {"security-info", OPT_BOOL, 0, "passwords too"}, {NULL}},
     "prints the current snapshot", run_current},
    {"snapshot-delete", (const struct option_row[]){NAMED, SNAPSHOT_NAME, OR_CURRENT,
        {"children", OPT_BOOL, 0, "all below it too"},
        {"children-only", OPT_BOOL, 0, "all below it alone"},
        {"metadata", OPT_BOOL, 0, "only forget it"}, {NULL}},
     "removes a snapshot", run_delete},
    {"snapshot-dumpxml", (const struct option_row[]){NAMED, SNAPSHOT_NAME, OR_CURRENT,
        {"security-info", OPT_BOOL, 0, "passwords too"}, {NULL}},
     "prints a snapshot's XML", run_dumpxml},
    {"snapshot-info", (const struct option_row[]){NAMED, SNAPSHOT_NAME, OR_CURRENT, {NULL}},
     "tells about a snapshot", run_info},
    {"snapshot-list", (const struct option_row[]){NAMED,
        {"parent", OPT_BOOL, 0, "parents too"}, {"roots", OPT_BOOL, 0, "without parent"},
        {"leaves", OPT_BOOL, 0, "without children"}, {"no-leaves", OPT_BOOL, 0, "with children"},
        {"metadata", OPT_BOOL, 0, "with metadata"}, {"no-metadata", OPT_BOOL, 0, "without"},
        {"inactive", OPT_BOOL, 0, "of a domain that was off"},
        {"active", OPT_BOOL, 0, "of one that ran"}, {"disk-only", OPT_BOOL, 0, "without memory"},
        {"internal", OPT_BOOL, 0, "inside images"}, {"external", OPT_BOOL, 0, "in files"},
        {"tree", OPT_BOOL, 0, "as a tree"}, {"name", OPT_BOOL, 0, "only names"},
        {"topological", OPT_BOOL, 0, "parents first"}, {NULL}},
     "lists a domain's snapshots", run_list},
    {"snapshot-parent", (const struct option_row[]){NAMED, SNAPSHOT_NAME, OR_CURRENT, {NULL}},
     "prints the parent of a snapshot", run_parent},
    {"snapshot-revert", (const struct option_row[]){NAMED, SNAPSHOT_NAME, OR_CURRENT,
        {"running", OPT_BOOL, 0, "run afterwards"}, {"paused", OPT_BOOL, 0, "be paused afterwards"},
        {"force", OPT_BOOL, 0, "even if it is risky"},
        {"reset-nvram", OPT_BOOL, 0, "with fresh firmware variables"}, {NULL}},
     "takes a domain back to a snapshot", run_revert},
    {NULL},
}};
