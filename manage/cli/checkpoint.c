/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/points.h"

#include <string.h>

/*
 * Checkpoints of a domain's disks, and backups since one of them.
 */
static bool run_create(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {
        {"redefine", 1}, {"quiesce", 2}, {"redefine-validate", 4}};
    const char *path = args_text(a, "xmlfile");
    g_auto(rpc_domain) dom = {0};
    g_autofree char *xml = path ? shell_read_file(path, error) : g_strdup("<domaincheckpoint/>");
    if (args_flag(a, "redefine-validate") && !args_flag(a, "redefine")) {
        return shell_fail(error, "Option --redefine is required by option --redefine-validate");
    }
    return xml && shell_domain(sh, args_text(a, "domain"), &dom, error) &&
           point_create(sh, &kind_checkpoint, &dom, xml, flags_of(a, bits, G_N_ELEMENTS(bits)),
                        path, error);
}

static bool run_create_as(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"quiesce", 2}};
    static const char *const attributes[] = {"checkpoint", "bitmap", NULL};
    g_autoptr(GString) xml = g_string_new("<domaincheckpoint>\n");
    g_auto(rpc_domain) dom = {0};
    point_words(a, xml);
    if (!point_disks(a, xml, attributes, error)) {
        return false;
    }
    g_string_append(xml, "</domaincheckpoint>\n");
    if (args_flag(a, "print-xml")) {
        out_text(sh, "xml", "%s\n", xml->str);
        return true;
    }
    return shell_domain(sh, args_text(a, "domain"), &dom, error) &&
           point_create(sh, &kind_checkpoint, &dom, xml->str,
                        flags_of(a, bits, G_N_ELEMENTS(bits)), NULL, error);
}

static bool run_dumpxml(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"security-info", 1}, {"no-domain", 2}, {"size", 4}};
    g_auto(rpc_snapshot) point = {0};
    g_auto(rpc_text) xml = {0};
    return point_find(sh, a, &point, error) &&
           point_xml(shell_rpc(sh, NULL), &kind_checkpoint, &point,
                     flags_of(a, bits, G_N_ELEMENTS(bits)), &xml, error) &&
           show_xml(sh, a, xml.text, error);
}

static bool run_backup(struct shell *sh, const struct args *a, GError **error)
{
    enum { REUSE_EXTERNAL = 1 };
    const char *since = args_text(a, "checkpointxml"), *path = args_text(a, "backupxml");
    g_auto(rpc_domain) dom = {0};
    g_autofree char *xml = path ? shell_read_file(path, error) : g_strdup("<domainbackup/>");
    g_autofree char *checkpoint = xml && since ? shell_read_file(since, error) : NULL;
    rpc_none none;
    if (!xml || (since && !checkpoint) ||
        !shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_backup_args args = {dom, xml, checkpoint ? &checkpoint : NULL,
                            args_flag(a, "reuse-external") ? REUSE_EXTERNAL : 0};
    if (!ask_domain_backup_begin(shell_rpc(sh, NULL), &args, &none, error)) {
        return false;
    }
    out_note(sh, "Backup started");
    return true;
}

#define NAMED      DOMAIN_OPTION(COMPLETE_DOMAIN)
#define CHECKPOINT {"checkpointname", OPT_TEXT, 0, "name of the checkpoint"}

const struct verb_group verb_group_checkpoint = {"Checkpoints and Backups", "checkpoint", (const struct verb_row[]){
    {"backup-begin", (const struct option_row[]){DOMAIN_OPTION(COMPLETE_DOMAIN_ACTIVE),
        {"backupxml", OPT_TEXT, 0, "file with what is to be copied, and whereto", COMPLETE_FILE},
        {"checkpointxml", OPT_TEXT, 0, "file with a checkpoint to make at once", COMPLETE_FILE},
        {"reuse-external", OPT_BOOL, 0, "into files that are there"}, {NULL}},
     "begins to copy a running domain's disks", run_backup},
    {"backup-dumpxml", (const struct option_row[]){DOMAIN_OPTION(COMPLETE_DOMAIN_ACTIVE),
        XPATH_OPTIONS, {NULL}}, "prints the XML of the backup that runs", run_object_xml,
     &(const struct simple){&kind_domain, PROC_domain_backup_get_xml_desc, .with_flags = true}},
    {"checkpoint-create", (const struct option_row[]){NAMED,
        {"xmlfile", OPT_TEXT, 0, "file with the XML", COMPLETE_FILE},
        {"redefine", OPT_BOOL, 0, "of one that was there before"},
        {"redefine-validate", OPT_BOOL, 0, "and whose bitmaps are there"},
        {"quiesce", OPT_BOOL, 0, "the guest's file systems are frozen meanwhile"}, {NULL}},
     "begins to note what changes", run_create},
    {"checkpoint-create-as", (const struct option_row[]){NAMED,
        {"name", OPT_TEXT, 0, "its name"}, {"description", OPT_TEXT, 0, "what it is"},
        {"print-xml", OPT_BOOL, 0, "print the XML and do nothing"},
        {"quiesce", OPT_BOOL, 0, "the guest's file systems are frozen meanwhile"},
        {"diskspec", OPT_MANY, OPT_EMPTY_OK, "DISK[,checkpoint=TYPE][,bitmap=NAME]"}, {NULL}},
     "makes a checkpoint of arguments", run_create_as},
    {"checkpoint-delete", (const struct option_row[]){NAMED, CHECKPOINT,
        {"children", OPT_BOOL, 0, "and those after it"},
        {"children-only", OPT_BOOL, 0, "only those after it"},
        {"metadata", OPT_BOOL, 0, "what lodged knows of it alone"}, {NULL}},
     "forgets a checkpoint", run_point_delete, &kind_checkpoint},
    {"checkpoint-dumpxml", (const struct option_row[]){NAMED, CHECKPOINT,
        {"security-info", OPT_BOOL, 0, "with passwords"}, {"no-domain", OPT_BOOL, 0, "without the domain"},
        {"size", OPT_BOOL, 0, "with how much has changed"}, XPATH_OPTIONS, {NULL}},
     "prints a checkpoint's XML", run_dumpxml, &kind_checkpoint},
    {"checkpoint-edit", (const struct option_row[]){NAMED, CHECKPOINT, {NULL}},
     "changes a checkpoint's XML in an editor", run_point_edit, &kind_checkpoint},
    {"checkpoint-info", (const struct option_row[]){NAMED, CHECKPOINT, {NULL}},
     "tells about a checkpoint", run_point_info, &kind_checkpoint},
    {"checkpoint-list", (const struct option_row[]){NAMED,
        {"parent", OPT_BOOL, 0, "parents too"}, {"roots", OPT_BOOL, 0, "without parent"},
        {"leaves", OPT_BOOL, 0, "without children"}, {"no-leaves", OPT_BOOL, 0, "with children"},
        {"tree", OPT_BOOL, 0, "as a tree"},
        {"from", OPT_TEXT, OPT_NAMED, "children of this one"},
        {"descendants", OPT_BOOL, 0, "and theirs"}, {"name", OPT_BOOL, 0, "only names"},
        {"topological", OPT_BOOL, 0, "parents first"}, {NULL}},
     "lists a domain's checkpoints", run_point_list, &kind_checkpoint},
    {"checkpoint-parent", (const struct option_row[]){NAMED, CHECKPOINT, {NULL}},
     "prints the one before", run_point_parent, &kind_checkpoint},
    {NULL},
}};
