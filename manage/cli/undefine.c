/* SPDX-License-Identifier: GPL-2.0-or-later */
/* undefine, together with the volumes that are the domain's disks. */
#include "manage/cli/object.h"
#include "manage/cli/xpath.h"

#include <string.h>

struct storage {
    char *target, *source;
    rpc_volume volume;
};

static void storage_free(void *data)
{
    struct storage *s = data;
    g_free(s->target);
    g_free(s->source);
    rpc_volume_clear(&s->volume);
    g_free(s);
}

/* Whether a disk is among @wanted (NULL: all are); what was found is taken out of it. */
static bool is_wanted(GPtrArray *wanted, const char *target, const char *source)
{
    for (unsigned i = 0; wanted && i < wanted->len; i++) {
        const char *name = wanted->pdata[i];
        if (g_strcmp0(name, target) == 0 || g_strcmp0(name, source) == 0) {
            g_ptr_array_remove_index(wanted, i);
            return true;
        }
    }
    return !wanted;
}

/* The volume behind @disk, or NULL: it is not one of a pool. */
static struct storage *storage_of(struct shell *sh, xpath_t *x, xmlNodePtr disk, GPtrArray *wanted)
{
    g_autofree char *target = xpath_text(x, disk, "target/@dev");
    g_autofree char *pool = xpath_text(x, disk, "source/@pool");
    g_autofree char *source = xpath_text(
        x, disk,
        pool ? "source/@volume" : "source/@file | source/@dev | source/@dir | source/@name");
    g_autoptr(GError) why = NULL;
    struct storage *s;
    if (!source || !is_wanted(wanted, target, source)) {
        return NULL;
    }
    s = g_new0(struct storage, 1);
    if (!shell_volume(sh, source, pool, &s->volume, &why)) {
        shell_failing(sh, "%s", "");
        g_printerr("error: Storage volume '%s'(%s) is not managed by libvirt. Remove it "
                   "manually.\n\n",
                   target, source);
        storage_free(s);
        return NULL;
    }
    s->target = g_steal_pointer(&target);
    s->source = g_steal_pointer(&source);
    return s;
}

/* The volumes to remove: before the definition is gone, which says what they are. */
static GPtrArray *volumes_of(struct shell *sh, const struct args *a, xpath_t *x, GError **error)
{
    const char *names = args_text(a, "storage");
    g_autoptr(GPtrArray) out = g_ptr_array_new_with_free_func(storage_free), wanted = NULL;
    g_auto(GStrv) words = names ? g_strsplit(names, ",", -1) : NULL;
    if (words) {
        wanted = g_ptr_array_new();
        for (unsigned i = 0; words[i]; i++) {
            g_ptr_array_add(wanted, words[i]);
        }
    }
    xmlXPathObjectPtr disks = xpath_nodes(x, "devices/disk");
    for (int i = 0; i < xmlXPathNodeSetGetLength(disks ? disks->nodesetval : NULL); i++) {
        struct storage *s = storage_of(sh, x, disks->nodesetval->nodeTab[i], wanted);
        if (s) {
            g_ptr_array_add(out, s);
        }
    }
    xmlXPathFreeObject(disks);
    if (wanted && wanted->len) {
        shell_fail(error, "Volume '%s' was not found in domain's definition.\n",
                   (const char *)wanted->pdata[0]);
        return NULL;
    }
    return g_steal_pointer(&out);
}

static bool remove_one(struct shell *sh, const struct args *a, const struct storage *s,
                       GError **error)
{
    enum { WITH_SNAPSHOTS = 2 };
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_volume_flags args = {s->volume, 0};
    rpc_none none;
    if (args_flag(a, "wipe-storage")) {
        out_note_open(sh, "Wiping volume '%s'(%s) ... ", s->target, s->source);
        if (!ask_storage_vol_wipe(rpc, &args, &none, error)) {
            shell_failing(sh, "Failed! Volume not removed.");
            return false;
        }
        out_note(sh, "Done.");
    }
    args.flags = args_flag(a, "delete-storage-volume-snapshots") ? WITH_SNAPSHOTS : 0;
    if (!ask_storage_vol_delete(rpc, &args, &none, error)) {
        shell_failing(sh, "Failed to remove storage volume '%s'(%s)", s->target, s->source);
        return false;
    }
    out_note(sh, "Volume '%s'(%s) removed.", s->target, s->source);
    return true;
}

bool run_undefine_domain(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {
        {"managed-save", 1}, {"snapshots-metadata", 2},    {"nvram", 4},
        {"keep-nvram", 8},   {"checkpoints-metadata", 16}, {"tpm", 32},
        {"keep-tpm", 64}};
    enum { INACTIVE = 2 };
    bool remove = args_flag(a, "remove-all-storage") || args_text(a, "storage");
    g_auto(rpc_domain) dom = {0};
    g_auto(xpath_t) x = {0};
    g_autoptr(GPtrArray) volumes = NULL;
    rpc_none none;
    if (!exclusive(a, "nvram", "keep-nvram", error) || !exclusive(a, "tpm", "keep-tpm", error)) {
        return false;
    }
    if (!xpath_domain(sh, args_text(a, "domain"), INACTIVE, &dom, &x, error)) {
        return false;
    }
    if (remove && dom.id != -1) {
        return shell_fail(error, "Storage volume deletion is supported only on stopped domains");
    }
    if (args_flag(a, "remove-all-storage") && args_text(a, "storage")) {
        return shell_fail(error, "Specified both --storage and --remove-all-storage");
    }
    volumes = remove ? volumes_of(sh, a, &x, error) : g_ptr_array_new();
    if (!volumes) {
        return false;
    }
    rpc_domain_flags args = {dom, flags_of(a, bits, G_N_ELEMENTS(bits))};
    if (!ask_domain_undefine_flags(shell_rpc(sh, NULL), &args, &none, error)) {
        shell_failing(sh, "Failed to undefine domain '%s'", dom.name);
        return false;
    }
    out_note(sh, "Domain '%s' has been undefined", dom.name);
    bool ok = true;
    for (unsigned i = 0; ok && i < volumes->len; i++) {
        ok = remove_one(sh, a, volumes->pdata[i], error);
    }
    return ok;
}
