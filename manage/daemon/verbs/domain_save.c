/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Machines put to sleep in files. */
#include "manage/daemon/files.h"
#include "manage/daemon/machine.h"

#include "base/util.h"

#include <string.h>

/* Which way a save image is to wake up: as flags say, else as the machine is. */
static int wake_as(unsigned flags)
{
    return flags & SAVE_RUNNING ? 1 : flags & SAVE_PAUSED ? 0 : -1;
}

/* Neither way goes past the host's cache. */
static bool cached(unsigned flags, GError **error)
{
    if (flags & SAVE_BYPASS_CACHE) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED,
                      "a saved state cannot be written or read past the host's cache");
    }
    return !(flags & SAVE_BYPASS_CACHE);
}

static bool save(const rpc_domain *named, const char *to, const char *xml, unsigned flags,
                 GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    if (!d || !domain_check_active(d, error) || !cached(flags, error)) {
        return false;
    }
    if (!to || *to != '/') {
        libvirt_error(error, ERR_INVALID_ARG, "the file to save to must be an absolute path");
        return false;
    }
    return domain_save_to(d, to, xml, wake_as(flags), error);
}

bool verb_domain_save(struct call *call, const rpc_domain_text *args, rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    return save(&args->dom, args->text, NULL, 0, error);
}

bool verb_domain_save_flags(struct call *call, const rpc_save_args *args, rpc_none *ret,
                            GError **error)
{
    (void)call, (void)ret;
    return save(&args->dom, args->to, args->xml ? *args->xml : NULL, args->flags, error);
}

static const char *text_param(const rpc_param *params, unsigned n, const char *name)
{
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(params[i].field, name) == 0 && params[i].value.type == 7) {
            return params[i].value.rpc_value_u.s;
        }
    }
    return NULL;
}

bool verb_domain_save_params(struct call *call, const rpc_domain_params_flags *args, rpc_none *ret,
                             GError **error)
{
    (void)call, (void)ret;
    const rpc_param *p = args->params.params_val;
    unsigned n = args->params.params_len;
    return save(&args->dom, text_param(p, n, "file"), text_param(p, n, "dxml"), args->flags, error);
}

static bool restore(const char *from, const char *xml, unsigned flags, GError **error)
{
    g_autofree char *saved = NULL;
    bool running;
    if (!from) {
        libvirt_error(error, ERR_INVALID_ARG, "missing file to restore from");
        return false;
    }
    if (!cached(flags, error)) {
        return false;
    }
    autofile int fd = saved_open(from, &saved, &running, error);
    g_autoptr(DomainDef) def = fd >= 0 ? domain_def_parse(xml ? xml : saved, 0, error) : NULL;
    g_autoptr(DomainJob) d = def ? domain_take_transient(def, error) : NULL;
    if (!d) {
        return false;
    }
    /* START_PAUSED and SAVE_BYPASS_CACHE are the same bit. */
    unsigned how = (flags & SAVE_PAUSED ? START_PAUSED : flags & SAVE_RUNNING) |
                   (flags & RESTORE_RESET_NVRAM ? START_RESET_NVRAM : 0);
    bool ok = domain_restore_with(d, from, def, how, error);
    domain_settle(d);
    return ok;
}

bool verb_domain_restore(struct call *call, const rpc_text *args, rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    return restore(args->text, NULL, 0, error);
}

bool verb_domain_restore_flags(struct call *call, const rpc_restore_args *args, rpc_none *ret,
                               GError **error)
{
    (void)call, (void)ret;
    return restore(args->from, args->xml ? *args->xml : NULL, args->flags, error);
}

bool verb_domain_restore_params(struct call *call, const rpc_params_flags *args, rpc_none *ret,
                                GError **error)
{
    (void)call, (void)ret;
    const rpc_param *p = args->params.params_val;
    unsigned n = args->params.params_len;
    return restore(text_param(p, n, "file"), text_param(p, n, "dxml"), args->flags, error);
}

bool verb_domain_save_image_get_xml_desc(struct call *call, const rpc_text_flags *args,
                                         rpc_text *ret, GError **error)
{
    (void)call;
    g_autofree char *xml = NULL;
    bool running;
    autofile int fd = saved_open(args->text, &xml, &running, error);
    g_autoptr(DomainDef) def = fd >= 0 ? domain_def_load(xml, 0, error) : NULL;
    ret->text = def ? domain_def_format(def, args->flags & 1 ? XML_MODE_SECRET : 0) : NULL;
    return def != NULL;
}

/* Another definition of the same machine in a saved one. */
static bool redefine(const char *path, const char *xml, unsigned flags, GError **error)
{
    g_autofree char *old = NULL;
    bool ran;
    autofile int fd = saved_open(path, &old, &ran, error);
    g_autoptr(DomainDef) was = fd >= 0 ? domain_def_load(old, 0, error) : NULL;
    g_autoptr(DomainDef) def = was ? domain_def_parse(xml, 0, error) : NULL;
    if (!def) {
        return false;
    }
    if (strcmp(def->name, was->name) != 0 || strcmp(def->uuid, was->uuid) != 0) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "Target domain %s %s does not match source %s %s", def->name, def->uuid,
                      was->name, was->uuid);
        return false;
    }
    if (def->memory != was->memory || def->vcpus != was->vcpus ||
        g_strcmp0(def->machine, was->machine) != 0) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "memory, processors and board of a saved domain cannot change");
        return false;
    }
    return saved_define(path, def, wake_as(flags), error);
}

bool verb_domain_save_image_define_xml(struct call *call, const rpc_save_image_define_args *args,
                                       rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    return redefine(args->file, args->xml, args->flags, error);
}

bool verb_domain_managed_save_define_xml(struct call *call, const rpc_domain_maybe_flags *args,
                                         rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d) {
        return false;
    }
    if (!d->managed_save) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain does not have managed save image");
        return false;
    }
    g_autofree char *path = domain_managed_save_path(d);
    return redefine(path, args->text ? *args->text : "", args->flags, error);
}

/* --- managed: the next start takes it --- */

bool verb_domain_managed_save(struct call *call, const rpc_domain_flags *args, rpc_none *ret,
                              GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d || !domain_check_active(d, error) || !cached(args->flags, error)) {
        return false;
    }
    if (!d->persistent) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cannot do managed save for transient domain");
        return false;
    }
    g_autofree char *path = domain_managed_save_path(d);
    g_autofree char *folder = g_path_get_dirname(path);
    g_mkdir_with_parents(folder, 0700);
    d->managed_save = domain_save_to(d, path, NULL, wake_as(args->flags), error);
    return d->managed_save;
}

bool verb_domain_has_managed_save_image(struct call *call, const rpc_domain_flags *args,
                                        rpc_int *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    ret->value = d && d->managed_save;
    return d != NULL;
}

bool verb_domain_managed_save_remove(struct call *call, const rpc_domain_flags *args, rpc_none *ret,
                                     GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d) {
        return false;
    }
    g_autofree char *path = domain_managed_save_path(d);
    if (d->managed_save && unlink(path) != 0 && errno != ENOENT) {
        libvirt_error(error, ERR_SYSTEM, "Failed to remove managed save file '%s': %s", path,
                      g_strerror(errno));
        return false;
    }
    d->managed_save = false;
    return true;
}

bool verb_domain_managed_save_get_xml_desc(struct call *call, const rpc_domain_flags *args,
                                           rpc_text *ret, GError **error)
{
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d) {
        return false;
    }
    if (!d->managed_save) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain does not have managed save image");
        return false;
    }
    g_autofree char *path = domain_managed_save_path(d);
    const rpc_text_flags file = {.text = path, .flags = call_read_only(call) ? 0 : args->flags & 1};
    return verb_domain_save_image_get_xml_desc(call, &file, ret, error);
}
