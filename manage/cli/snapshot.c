/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/points.h"

#include <string.h>

#define NAMED         DOMAIN_OPTION(COMPLETE_DOMAIN)
#define SNAPSHOT_NAME {"snapshotname", OPT_TEXT, 0, "the snapshot", COMPLETE_SNAPSHOT}
#define OR_CURRENT    {"current", OPT_BOOL, 0, "the current one"}

static const struct flag_bit create_bits[] = {
    {"redefine", 1}, {"current", 2}, {"no-metadata", 4}, {"halt", 8}, {"disk-only", 16},
    {"reuse-external", 32}, {"quiesce", 64}, {"atomic", 128}, {"live", 256}, {"validate", 512}};

static bool run_create(struct shell *sh, const struct args *a, GError **error)
{
    const char *path = args_text(a, "xmlfile");
    g_auto(rpc_domain) dom = {0};
    g_autofree char *xml = path ? shell_read_file(path, error) : g_strdup("<domainsnapshot/>");
    return xml && shell_domain(sh, args_text(a, "domain"), &dom, error) &&
           point_create(sh, &kind_snapshot, &dom, xml,
                        flags_of(a, create_bits, G_N_ELEMENTS(create_bits)), path, error);
}

/* "[file=]/x[,snapshot=external]" */
static bool memory_element(GString *xml, const char *spec, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(spec, ",", -1);
    const char *file = NULL, *type = NULL;
    for (unsigned i = 0; parts[i]; i++) {
        if (g_str_has_prefix(parts[i], "snapshot=")) {
            type = parts[i] + 9;
        } else if (i == 0 || g_str_has_prefix(parts[i], "file=")) {
            file = parts[i] + (g_str_has_prefix(parts[i], "file=") ? 5 : 0);
        } else {
            return shell_fail(error, "unable to parse memspec: %s", spec);
        }
    }
    g_string_append(xml, "  <memory");
    if (type) {
        g_autofree char *safe = g_markup_escape_text(type, -1);
        g_string_append_printf(xml, " snapshot='%s'", safe);
    }
    if (file) {
        g_autofree char *safe = g_markup_escape_text(file, -1);
        g_string_append_printf(xml, " file='%s'", safe);
    }
    g_string_append(xml, "/>\n");
    return true;
}

static bool snapshot_xml(const struct args *a, GString *xml, GError **error)
{
    static const char *const attributes[] = {"snapshot", NULL};
    g_string_append(xml, "<domainsnapshot>\n");
    point_words(a, xml);
    if ((args_text(a, "memspec") && !memory_element(xml, args_text(a, "memspec"), error)) ||
        !point_disks(a, xml, attributes, error)) {
        return false;
    }
    g_string_append(xml, "</domainsnapshot>\n");
    return true;
}

static bool run_create_as(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {
        {"no-metadata", 4}, {"halt", 8}, {"disk-only", 16}, {"reuse-external", 32},
        {"quiesce", 64}, {"atomic", 128}, {"live", 256}, {"validate", 512}};
    g_autoptr(GString) xml = g_string_new(NULL);
    g_auto(rpc_domain) dom = {0};
    if (!snapshot_xml(a, xml, error)) {
        return false;
    }
    if (args_flag(a, "print-xml")) {
        out_text(sh, "xml", "%s\n", xml->str);
        return true;
    }
    return shell_domain(sh, args_text(a, "domain"), &dom, error) &&
           point_create(sh, &kind_snapshot, &dom, xml->str,
                        flags_of(a, bits, G_N_ELEMENTS(bits)), NULL, error);
}

/* ---- One snapshot ---- */

/* Makes @name the current one: it is defined again, as it is. */
static bool make_current(struct shell *sh, const rpc_domain *dom, const char *name, GError **error)
{
    enum { REDEFINE = 1, CURRENT = 2, SECURE = 1 };
    rpc_domain_text_flags by_name = {*dom, (char *)name, 0};
    g_auto(rpc_snapshot_ret) found = {0}, made = {0};
    g_auto(rpc_text) xml = {0};
    Rpc *rpc = shell_rpc(sh, NULL);
    if (!ask_domain_snapshot_lookup_by_name(rpc, &by_name, &found, error) ||
        !point_xml(rpc, &kind_snapshot, &found.snap, SECURE, &xml, error)) {
        return false;
    }
    rpc_domain_text_flags args = {*dom, xml.text, REDEFINE | CURRENT};
    if (!ask_domain_snapshot_create_xml(rpc, &args, &made, error)) {
        return false;
    }
    out_note_open(sh, "Snapshot %s set as current", name);
    return true;
}

static bool run_current(struct shell *sh, const struct args *a, GError **error)
{
    const char *name = args_text(a, "snapshotname");
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_snapshot_ret) ret = {0};
    g_auto(rpc_text) xml = {0};
    rpc_int has;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    if (name) {
        return make_current(sh, &dom, name, error);
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
    if (!point_xml(rpc, &kind_snapshot, &ret.snap, args_flag(a, "security-info"), &xml, error)) {
        return false;
    }
    out_text(sh, "xml", "%s", xml.text);
    return true;
}

static bool run_dumpxml(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_snapshot_ret) ret = {0};
    g_auto(rpc_text) xml = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_text_flags args = {dom, (char *)args_text(a, "snapshotname"), 0};
    Rpc *rpc = shell_rpc(sh, NULL);
    return ask_domain_snapshot_lookup_by_name(rpc, &args, &ret, error) &&
           point_xml(rpc, &kind_snapshot, &ret.snap, args_flag(a, "security-info"), &xml, error) &&
           show_xml(sh, a, xml.text, error);
}

static bool run_revert(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"running", 1}, {"paused", 2}, {"force", 4},
                                           {"reset-nvram", 8}};
    g_auto(rpc_snapshot) snap = {0};
    rpc_none none;
    if (!point_find(sh, a, &snap, error)) {
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
        {"validate", OPT_BOOL, 0, "check the XML against the schema"},
        {"memspec", OPT_TEXT, OPT_NAMED, "[file=]NAME[,snapshot=TYPE]"},
        {"diskspec", OPT_MANY, OPT_EMPTY_OK, "DISK[,snapshot=TYPE][,driver=TYPE][,file=NAME]"},
        {NULL}},
     "makes a snapshot of arguments", run_create_as},
    {"snapshot-current", (const struct option_row[]){NAMED,
        {"name", OPT_BOOL, 0, "its name alone"},
        {"security-info", OPT_BOOL, 0, "passwords too"},
        {"snapshotname", OPT_TEXT, 0, "make this one the current one", COMPLETE_SNAPSHOT}, {NULL}},
     "prints the current snapshot, or says which it is", run_current},
    {"snapshot-delete", (const struct option_row[]){NAMED, SNAPSHOT_NAME, OR_CURRENT,
        {"children", OPT_BOOL, 0, "all below it too"},
        {"children-only", OPT_BOOL, 0, "all below it alone"},
        {"metadata", OPT_BOOL, 0, "only forget it"}, {NULL}},
     "removes a snapshot", run_point_delete, &kind_snapshot},
    {"snapshot-dumpxml", (const struct option_row[]){NAMED,
        {"snapshotname", OPT_TEXT, OPT_NEEDED, "the snapshot", COMPLETE_SNAPSHOT},
        {"security-info", OPT_BOOL, 0, "passwords too"}, XPATH_OPTIONS, {NULL}},
     "prints a snapshot's XML", run_dumpxml},
    {"snapshot-edit", (const struct option_row[]){NAMED, SNAPSHOT_NAME,
        {"current", OPT_BOOL, 0, "and make it the current one"},
        {"rename", OPT_BOOL, 0, "it may get another name"},
        {"clone", OPT_BOOL, 0, "under another name, and stay"}, {NULL}},
     "changes a snapshot's XML in an editor", run_point_edit, &kind_snapshot},
    {"snapshot-info", (const struct option_row[]){NAMED, SNAPSHOT_NAME, OR_CURRENT, {NULL}},
     "tells about a snapshot", run_point_info, &kind_snapshot},
    {"snapshot-list", (const struct option_row[]){NAMED,
        {"parent", OPT_BOOL, 0, "parents too"}, {"roots", OPT_BOOL, 0, "without parent"},
        {"leaves", OPT_BOOL, 0, "without children"}, {"no-leaves", OPT_BOOL, 0, "with children"},
        {"metadata", OPT_BOOL, 0, "with metadata"}, {"no-metadata", OPT_BOOL, 0, "without"},
        {"inactive", OPT_BOOL, 0, "of a domain that was off"},
        {"active", OPT_BOOL, 0, "of one that ran"}, {"disk-only", OPT_BOOL, 0, "without memory"},
        {"internal", OPT_BOOL, 0, "inside images"}, {"external", OPT_BOOL, 0, "in files"},
        {"tree", OPT_BOOL, 0, "as a tree"},
        {"from", OPT_TEXT, OPT_NAMED, "children of this one", COMPLETE_SNAPSHOT},
        {"current", OPT_BOOL, 0, "children of the current one"},
        {"descendants", OPT_BOOL, 0, "and theirs"}, {"name", OPT_BOOL, 0, "only names"},
        {"topological", OPT_BOOL, 0, "parents first"}, {NULL}},
     "lists a domain's snapshots", run_point_list, &kind_snapshot},
    {"snapshot-parent", (const struct option_row[]){NAMED, SNAPSHOT_NAME, OR_CURRENT, {NULL}},
     "prints the parent of a snapshot", run_point_parent, &kind_snapshot},
    {"snapshot-revert", (const struct option_row[]){NAMED, SNAPSHOT_NAME, OR_CURRENT,
        {"running", OPT_BOOL, 0, "run afterwards"}, {"paused", OPT_BOOL, 0, "be paused afterwards"},
        {"force", OPT_BOOL, 0, "even if it is risky"},
        {"reset-nvram", OPT_BOOL, 0, "with fresh firmware variables"}, {NULL}},
     "takes a domain back to a snapshot", run_revert, &kind_snapshot},
    {NULL},
}};
