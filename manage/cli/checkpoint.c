/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"

#include <string.h>

/*
 * Checkpoints of a domain's disks, and backups since one of them.
 */
AUTO_XDR(rpc_checkpoint_ret)

static bool find(struct shell *sh, const struct args *a, rpc_domain *dom, rpc_checkpoint_ret *ret,
                 GError **error)
{
    if (!shell_domain(sh, args_text(a, "domain"), dom, error)) {
        return false;
    }
    rpc_domain_text_flags args = {*dom, (char *)args_text(a, "checkpointname"), 0};
    return ask_domain_checkpoint_lookup_by_name(shell_rpc(sh, NULL), &args, ret, error);
}

static bool run_create(struct shell *sh, const struct args *a, GError **error)
{
    enum { REDEFINE = 1, QUIESCE = 2 };
    const char *path = args_text(a, "xmlfile");
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_checkpoint_ret) ret = {0};
    g_autofree char *xml =
        path ? shell_read_file(path, error) : g_strdup("<domaincheckpoint/>");
    if (!xml || !shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_text_flags args = {dom, xml,
                                  (args_flag(a, "redefine") ? REDEFINE : 0u) |
                                      (args_flag(a, "quiesce") ? QUIESCE : 0u)};
    if (!ask_domain_checkpoint_create_xml(shell_rpc(sh, NULL), &args, &ret, error)) {
        return false;
    }
    if (path) {
        out_note_open(sh, "Domain checkpoint %s created from '%s'", ret.checkpoint.name, path);
    } else {
        out_note_open(sh, "Domain checkpoint %s created", ret.checkpoint.name);
    }
    return true;
}

static bool run_dumpxml(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"security-info", 1}, {"no-domain", 2}, {"size", 4}};
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_checkpoint_ret) ret = {0};
    g_auto(rpc_text) xml = {0};
    if (!find(sh, a, &dom, &ret, error)) {
        return false;
    }
    rpc_checkpoint_flags args = {ret.checkpoint, flags_of(a, bits, G_N_ELEMENTS(bits))};
    return ask_domain_checkpoint_get_xml_desc(shell_rpc(sh, NULL), &args, &xml, error) &&
           show_xml(sh, a, xml.text, error);
}

static bool run_delete(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {
        {"children", 1}, {"metadata", 2}, {"children-only", 4}};
    const char *name = args_text(a, "checkpointname");
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_checkpoint_ret) ret = {0};
    rpc_none none;
    if (!find(sh, a, &dom, &ret, error)) {
        return false;
    }
    rpc_checkpoint_flags args = {ret.checkpoint, flags_of(a, bits, G_N_ELEMENTS(bits))};
    if (!ask_domain_checkpoint_delete(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Failed to delete checkpoint %s", name);
        return false;
    }
    if (args_flag(a, "children-only")) {
        out_note(sh, "Domain checkpoint %s children deleted", name);
    } else {
        out_note(sh, "Domain checkpoint %s deleted", name);
    }
    return true;
}

static bool run_parent(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_checkpoint_ret) ret = {0}, parent = {0};
    if (!find(sh, a, &dom, &ret, error)) {
        return false;
    }
    rpc_checkpoint_flags args = {ret.checkpoint, 0};
    g_autoptr(GError) why = NULL;
    if (!ask_domain_checkpoint_get_parent(shell_rpc(sh, NULL), &args, &parent, &why)) {
        if (why->domain == LIBVIRT_ERROR && why->code == ERR_NO_DOMAIN_CHECKPOINT) {
            return shell_fail(error, "checkpoint '%s' has no parent", ret.checkpoint.name);
        }
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    out_text(sh, "parent", "%s", parent.checkpoint.name);
    return true;
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
#define CHECKPOINT {"checkpointname", OPT_TEXT, OPT_NEEDED, "name of the checkpoint"}

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
        {"quiesce", OPT_BOOL, 0, "the guest's file systems are frozen meanwhile"}, {NULL}},
     "begins to note what changes", run_create},
    {"checkpoint-delete", (const struct option_row[]){NAMED, CHECKPOINT,
        {"children", OPT_BOOL, 0, "and those after it"},
        {"children-only", OPT_BOOL, 0, "only those after it"},
        {"metadata", OPT_BOOL, 0, "what lodged knows of it alone"}, {NULL}},
     "forgets a checkpoint", run_delete},
    {"checkpoint-dumpxml", (const struct option_row[]){NAMED, CHECKPOINT,
        {"security-info", OPT_BOOL, 0, "with passwords"}, {"no-domain", OPT_BOOL, 0, "without the domain"},
        {"size", OPT_BOOL, 0, "with how much has changed"}, XPATH_OPTIONS, {NULL}},
     "prints a checkpoint's XML", run_dumpxml},
    {"checkpoint-parent", (const struct option_row[]){NAMED, CHECKPOINT, {NULL}},
     "prints the one before", run_parent},
    {NULL},
}};
