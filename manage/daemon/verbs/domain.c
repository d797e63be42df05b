/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Machines: what they are called, what they are, their lives. */
#include "base/util.h"
#include "manage/daemon/checkpoint.h"
#include "manage/daemon/client.h"
#include "manage/daemon/files.h"
#include "manage/daemon/machine.h"
#include "manage/daemon/managed.h"

#include <string.h>

/* --- finding --- */

bool verb_domain_lookup_by_name(struct call *call, const rpc_text *args, rpc_domain_ret *ret,
                                GError **error)
{
    (void)call;
    Domain *d = domain_by_name(args->text);
    if (!d) {
        libvirt_error(error, ERR_NO_DOMAIN, "no domain with matching name '%s'", args->text);
        return false;
    }
    ret->dom = domain_rpc(d);
    return true;
}

bool verb_domain_lookup_by_uuid(struct call *call, const rpc_uuid_args *args, rpc_domain_ret *ret,
                                GError **error)
{
    (void)call;
    rpc_domain named = {.name = (char *)""};
    memcpy(named.uuid, args->uuid, sizeof(named.uuid));
    Domain *d = domain_by_uuid((const uint8_t *)args->uuid);
    if (!d) {
        const uint8_t *u = (const uint8_t *)args->uuid;
        libvirt_error(error, ERR_NO_DOMAIN,
                      "no domain with matching uuid '%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
                      "%02x%02x%02x%02x%02x%02x'",
                      u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11],
                      u[12], u[13], u[14], u[15]);
        return false;
    }
    ret->dom = domain_rpc(d);
    return true;
}

bool verb_domain_lookup_by_id(struct call *call, const rpc_int *args, rpc_domain_ret *ret,
                              GError **error)
{
    (void)call;
    Domain *d = args->value >= 0 ? domain_by_id(args->value) : NULL;
    if (!d) {
        libvirt_error(error, ERR_NO_DOMAIN, "no domain with matching id %d", args->value);
        return false;
    }
    ret->dom = domain_rpc(d);
    return true;
}

/* --- lists --- */

enum {
    LIST_ACTIVE = 1 << 0,
    LIST_INACTIVE = 1 << 1,
    LIST_PERSISTENT = 1 << 2,
    LIST_TRANSIENT = 1 << 3,
    LIST_RUNNING = 1 << 4,
    LIST_PAUSED = 1 << 5,
    LIST_SHUTOFF = 1 << 6,
    LIST_OTHER = 1 << 7,
    LIST_MANAGEDSAVE = 1 << 8,
    LIST_NO_MANAGEDSAVE = 1 << 9,
    LIST_AUTOSTART = 1 << 10,
    LIST_NO_AUTOSTART = 1 << 11,
    LIST_HAS_SNAPSHOT = 1 << 12,
    LIST_NO_SNAPSHOT = 1 << 13,
    LIST_HAS_CHECKPOINT = 1 << 14,
    LIST_NO_CHECKPOINT = 1 << 15,
};

/* What of the flags is true of @d. */
static unsigned traits(const Domain *d)
{
    unsigned state = d->state == STATE_RUNNING   ? LIST_RUNNING
                     : d->state == STATE_PAUSED  ? LIST_PAUSED
                     : d->state == STATE_SHUTOFF ? LIST_SHUTOFF
                                                 : LIST_OTHER;
    return state | (domain_active(d) ? LIST_ACTIVE : LIST_INACTIVE) |
           (d->persistent ? LIST_PERSISTENT : LIST_TRANSIENT) |
           (d->managed_save ? LIST_MANAGEDSAVE : LIST_NO_MANAGEDSAVE) |
           (d->autostart ? LIST_AUTOSTART : LIST_NO_AUTOSTART) |
           (d->snapshots ? LIST_HAS_SNAPSHOT : LIST_NO_SNAPSHOT) |
           (d->checkpoints ? LIST_HAS_CHECKPOINT : LIST_NO_CHECKPOINT);
}

bool domain_matches(const Domain *d, unsigned flags)
{
    static const unsigned groups[] = {
        LIST_ACTIVE | LIST_INACTIVE,
        LIST_PERSISTENT | LIST_TRANSIENT,
        LIST_RUNNING | LIST_PAUSED | LIST_SHUTOFF | LIST_OTHER,
        LIST_MANAGEDSAVE | LIST_NO_MANAGEDSAVE,
        LIST_AUTOSTART | LIST_NO_AUTOSTART,
        LIST_HAS_SNAPSHOT | LIST_NO_SNAPSHOT,
        LIST_HAS_CHECKPOINT | LIST_NO_CHECKPOINT,
    };
    unsigned have = traits(d);
    for (unsigned i = 0; i < G_N_ELEMENTS(groups); i++) {
        if ((flags & groups[i]) && !(flags & groups[i] & have)) {
            return false;
        }
    }
    return true;
}

struct selection {
    unsigned flags;
    GArray *items; /* of rpc_domain; NULL: only counts */
    GPtrArray *names;
    GArray *ids;
    unsigned count, max;
};

static void select_one(Domain *d, void *data)
{
    struct selection *s = data;
    if (!domain_matches(d, s->flags) || s->count >= s->max) {
        return;
    }
    s->count++;
    if (s->items) {
        rpc_domain r = domain_rpc(d);
        g_array_append_val(s->items, r);
    }
    if (s->names) {
        g_ptr_array_add(s->names, g_strdup(d->name));
    }
    if (s->ids) {
        g_array_append_val(s->ids, d->id);
    }
}

bool verb_connect_list_all_domains(struct call *call, const rpc_list_args *args, rpc_domains *ret,
                                   GError **error)
{
    (void)call, (void)error;
    struct selection s = {.flags = args->flags, .max = RPC_LIST_MAX};
    if (args->need_results) {
        s.items = g_array_new(FALSE, FALSE, sizeof(rpc_domain));
    }
    domain_each(select_one, &s);
    ret->count = s.count;
    if (s.items) {
        ret->items.items_len = s.items->len;
        ret->items.items_val = (rpc_domain *)(void *)g_array_free(s.items, FALSE);
    }
    return true;
}

static unsigned count(unsigned flags)
{
    struct selection s = {.flags = flags, .max = UINT_MAX};
    domain_each(select_one, &s);
    return s.count;
}

bool verb_connect_num_of_domains(struct call *call, const rpc_none *args, rpc_int *ret,
                                 GError **error)
{
    (void)call, (void)args, (void)error;
    ret->value = (int)count(LIST_ACTIVE);
    return true;
}

bool verb_connect_num_of_defined_domains(struct call *call, const rpc_none *args, rpc_int *ret,
                                         GError **error)
{
    (void)call, (void)args, (void)error;
    ret->value = (int)count(LIST_INACTIVE);
    return true;
}

bool verb_connect_list_domains(struct call *call, const rpc_int *args, rpc_ids *ret, GError **error)
{
    (void)call, (void)error;
    struct selection s = {.flags = LIST_ACTIVE,
                          .max = (unsigned)CLAMP(args->value, 0, RPC_LIST_MAX),
                          .ids = g_array_new(FALSE, FALSE, sizeof(int))};
    domain_each(select_one, &s);
    ret->ids.ids_len = s.ids->len;
    ret->ids.ids_val = (int *)(void *)g_array_free(s.ids, FALSE);
    return true;
}

bool verb_connect_list_defined_domains(struct call *call, const rpc_int *args, rpc_names *ret,
                                       GError **error)
{
    (void)call, (void)error;
    struct selection s = {.flags = LIST_INACTIVE,
                          .max = (unsigned)CLAMP(args->value, 0, RPC_LIST_MAX),
                          .names = g_ptr_array_new()};
    domain_each(select_one, &s);
    ret->names.names_len = s.names->len;
    ret->names.names_val = (char **)g_ptr_array_free(s.names, FALSE);
    return true;
}

/* --- questions --- */

bool verb_domain_get_info(struct call *call, const rpc_domain_args *args, rpc_domain_info *ret,
                          GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d) {
        return false;
    }
    const DomainDef *def = domain_active(d) ? d->machine->def : NULL;
    ret->state = d->state;
    ret->max_memory = (uint64_t)(def ? def->memory : d->max_memory);
    ret->memory = (uint64_t)(def ? def->current_memory : d->memory);
    ret->vcpus = (uint16_t)(!def                               ? d->vcpus
                            : def->current_vcpus == XML_ABSENT ? def->vcpus
                                                               : def->current_vcpus);
    ret->cpu_time = def ? machine_cpu_time(d->machine) : 0;
    return true;
}

bool verb_domain_get_state(struct call *call, const rpc_domain_flags *args, rpc_domain_state *ret,
                           GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d) {
        return false;
    }
    ret->state = d->state;
    ret->reason = d->reason;
    return true;
}

enum {
    XML_FLAG_SECURE = 1,
    XML_FLAG_INACTIVE = 2,
    XML_FLAG_UPDATE_CPU = 4,
    XML_FLAG_MIGRATABLE = 8
};

bool verb_domain_get_xml_desc(struct call *call, const rpc_domain_flags *args, rpc_text *ret,
                              GError **error)
{
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d) {
        return false;
    }
    bool live = domain_active(d) && !((args->flags & XML_FLAG_INACTIVE) && d->persistent);
    if ((args->flags & XML_FLAG_SECURE) && call_read_only(call)) {
        libvirt_error(error, ERR_OPERATION_DENIED, "virDomainGetXMLDesc with secure flag");
        return false;
    }
    g_autoptr(DomainDef) own = live ? NULL : domain_config(d, error);
    if (!live && !own) {
        return false;
    }
    unsigned mode =
        (live && !(args->flags & (XML_FLAG_INACTIVE | XML_FLAG_MIGRATABLE)) ? XML_MODE_LIVE : 0) |
        (args->flags & XML_FLAG_SECURE ? XML_MODE_SECRET : 0);
    if (own && !own->emulator) {
        own->emulator = vm_program();
    }
    ret->text = domain_def_format(live ? d->machine->def : own, mode);
    return true;
}

bool verb_domain_get_os_type(struct call *call, const rpc_domain_args *args, rpc_text *ret,
                             GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    ret->text = d ? g_strdup("hvm") : NULL;
    return d != NULL;
}

bool verb_domain_get_autostart(struct call *call, const rpc_domain_args *args, rpc_int *ret,
                               GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    ret->value = d && d->autostart;
    return d != NULL;
}

bool verb_domain_is_active(struct call *call, const rpc_domain_args *args, rpc_int *ret,
                           GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    ret->value = d && domain_active(d);
    return d != NULL;
}

bool verb_domain_is_persistent(struct call *call, const rpc_domain_args *args, rpc_int *ret,
                               GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    ret->value = d && d->persistent;
    return d != NULL;
}

bool verb_domain_is_updated(struct call *call, const rpc_domain_args *args, rpc_int *ret,
                            GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    ret->value = 0;
    return d != NULL;
}

bool verb_domain_get_max_memory(struct call *call, const rpc_domain_args *args, rpc_uhyper *ret,
                                GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    ret->value = !d ? 0 : (uint64_t)(domain_active(d) ? d->machine->def->memory : d->max_memory);
    return d != NULL;
}

bool verb_domain_get_max_vcpus(struct call *call, const rpc_domain_args *args, rpc_int *ret,
                               GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(DomainDef) def = d ? domain_def_of(d, true, error) : NULL;
    ret->value = def ? (int)def->vcpus : 0;
    return def != NULL;
}

bool verb_domain_get_security_label(struct call *call, const rpc_domain_args *args,
                                    rpc_security_label *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    ret->label.label_val = g_new0(char, 1);
    ret->label.label_len = 1;
    return d != NULL;
}

/* --- defining --- */

/* A definition, though @text may be what dumpxml says of a machine that runs. */
static DomainDef *read_definition(const char *text, GError **error)
{
    DomainDef *def = domain_def_parse(text, DOMAIN_NEW, error);
    if (def) {
        g_autofree char *folders = daemon_path(DAEMON_RUN, "qemu", NULL);
        domain_def_inactive(def, folders);
        domain_name_variables(def);
    }
    return def;
}

static bool define(const char *text, rpc_domain_ret *ret, GError **error)
{
    g_autoptr(DomainDef) def = read_definition(text, error);
    Domain *d = def ? domain_define(def, error) : NULL;
    if (d) {
        ret->dom = domain_rpc(d);
    }
    return d != NULL;
}

bool verb_domain_define_xml(struct call *call, const rpc_text *args, rpc_domain_ret *ret,
                            GError **error)
{
    (void)call;
    return define(args->text, ret, error);
}

bool verb_domain_define_xml_flags(struct call *call, const rpc_text_flags *args,
                                  rpc_domain_ret *ret, GError **error)
{
    (void)call; /* flag "validate": the reader refuses what it does not know anyway */
    return define(args->text, ret, error);
}

enum {
    UNDEFINE_MANAGED_SAVE = 1,
    UNDEFINE_SNAPSHOTS_METADATA = 2,
    UNDEFINE_NVRAM = 4,
    UNDEFINE_KEEP_NVRAM = 8,
    UNDEFINE_CHECKPOINTS_METADATA = 16,
};

static bool undefine(const rpc_domain *named, unsigned flags, GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    if (!d) {
        return false;
    }
    if (!d->persistent) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cannot undefine transient domain");
        return false;
    }
    g_autoptr(DomainDef) def = domain_config(d, error);
    g_autofree char *saved = domain_managed_save_path(d);
    if (!def) {
        return false;
    }
    if (d->managed_save && !(flags & UNDEFINE_MANAGED_SAVE)) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "Refusing to undefine while domain managed save image exists");
        return false;
    }
    if (!domain_active(d) && d->snapshots && !(flags & UNDEFINE_SNAPSHOTS_METADATA)) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "cannot delete inactive domain with %u snapshots", d->snapshots);
        return false;
    }
    if (!domain_active(d) && d->checkpoints && !(flags & UNDEFINE_CHECKPOINTS_METADATA)) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "cannot delete inactive domain with %u checkpoints", d->checkpoints);
        return false;
    }
    struct stat st = {0};
    if (def->nvram && !file_answers(def->nvram, &st, error)) {
        return false;
    }
    bool nvram = st.st_mode;
    if (nvram && !domain_active(d) && !(flags & (UNDEFINE_NVRAM | UNDEFINE_KEEP_NVRAM))) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cannot undefine domain with nvram");
        return false;
    }
    if (nvram && (flags & UNDEFINE_NVRAM) && path_unlink(def->nvram) != 0 && errno != ENOENT) {
        path_error(error, ERR_SYSTEM, "failed to remove nvram", def->nvram);
        return false;
    }
    if (d->managed_save) {
        unlink(saved);
        d->managed_save = false;
    }
    if (!domain_active(d)) {
        domain_forget_snapshots(d);
        checkpoint_forget_all(d);
    }
    return domain_undefine(d, error);
}

bool verb_domain_undefine(struct call *call, const rpc_domain_args *args, rpc_none *ret,
                          GError **error)
{
    (void)call, (void)ret;
    return undefine(&args->dom, 0, error);
}

bool verb_domain_undefine_flags(struct call *call, const rpc_domain_flags *args, rpc_none *ret,
                                GError **error)
{
    (void)call, (void)ret;
    return undefine(&args->dom, args->flags, error);
}

bool verb_domain_set_autostart(struct call *call, const rpc_domain_int *args, rpc_none *ret,
                               GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d) {
        return false;
    }
    if (!d->persistent) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cannot set autostart for transient domain");
        return false;
    }
    return domain_set_autostart(d, args->value != 0, error);
}

bool verb_domain_rename(struct call *call, const rpc_domain_maybe_flags *args, rpc_int *ret,
                        GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d) {
        return false;
    }
    if (domain_active(d)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cannot rename active domain");
        return false;
    }
    if (!args->text || d->snapshots || d->managed_save || d->checkpoints) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "a domain with saved states, snapshots or checkpoints cannot be renamed");
        return false;
    }
    return domain_rename(d, *args->text, error);
}

/* --- living --- */

enum { START_BYPASS_CACHE = 4, START_FORCE_BOOT = 8 };

static bool boot(Domain *d, const DomainDef *def, unsigned flags, GError **error)
{
    const struct machine_start how = {
        .flags = flags, .incoming_fd = -1, .running_reason = RUNNING_BOOTED};
    return machine_start(d, def, &how, error);
}

static void leave(void *data)
{
    machine_abandon(data);
    machine_unref(data);
}

/* The machine that this call has started is to end with its connection, if the flags say so. */
static void tie_to_client(struct call *call, const Domain *d, unsigned flags)
{
    if ((flags & START_AUTODESTROY) && d->machine) {
        client_at_end(call_client(call), leave, machine_ref(d->machine));
    }
}

static bool create(struct call *call, const rpc_domain *named, unsigned flags, rpc_domain_ret *ret,
                   GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    if (!d) {
        return false;
    }
    if (d->machine) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain is already running");
        return false;
    }
    g_autofree char *saved = domain_managed_save_path(d);
    if (d->managed_save && (flags & START_FORCE_BOOT)) {
        unlink(saved);
        d->managed_save = false;
    }
    if (d->managed_save && (flags & START_BYPASS_CACHE)) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED,
                      "a saved state cannot be read past the host's cache");
        return false;
    }
    g_autoptr(DomainDef) def = domain_config(d, error);
    bool ok = def && (d->managed_save ? domain_restore_from(d, saved, flags, error)
                                      : boot(d, def, flags, error));
    if (ok && d->managed_save) {
        unlink(saved);
        d->managed_save = false;
    }
    if (ok) {
        tie_to_client(call, d, flags);
    }
    if (ok && ret) {
        ret->dom = domain_rpc(d);
    }
    return ok;
}

bool verb_domain_create(struct call *call, const rpc_domain_args *args, rpc_none *ret,
                        GError **error)
{
    (void)ret;
    return create(call, &args->dom, 0, NULL, error);
}

bool verb_domain_create_with_flags(struct call *call, const rpc_domain_flags *args,
                                   rpc_domain_ret *ret, GError **error)
{
    return create(call, &args->dom, args->flags, ret, error);
}

bool verb_domain_create_xml(struct call *call, const rpc_text_flags *args, rpc_domain_ret *ret,
                            GError **error)
{
    g_autoptr(DomainDef) def = read_definition(args->text, error);
    g_autoptr(DomainJob) d = def ? domain_take_transient(def, error) : NULL;
    if (!d) {
        return false;
    }
    bool ok = boot(d, def, args->flags, error);
    if (ok) {
        tie_to_client(call, d, args->flags);
        ret->dom = domain_rpc(d);
    }
    domain_settle(d);
    return ok;
}

/* Files are for the first process of a container. */
static bool no_files(struct call *call, GError **error)
{
    autofd int fd = call_take_fd(call, 0);
    if (fd >= 0) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED, "machines take no files");
    }
    return fd < 0;
}

bool verb_domain_create_with_files(struct call *call, const rpc_domain_flags *args,
                                   rpc_domain_ret *ret, GError **error)
{
    return no_files(call, error) && create(call, &args->dom, args->flags, ret, error);
}

bool verb_domain_create_xml_with_files(struct call *call, const rpc_text_flags *args,
                                       rpc_domain_ret *ret, GError **error)
{
    return no_files(call, error) && verb_domain_create_xml(call, args, ret, error);
}

enum { DESTROY_GRACEFUL = 1, DESTROY_REMOVE_LOGS = 2 };

static bool destroy(const rpc_domain *named, unsigned flags, GError **error)
{
    g_autoptr(Domain) d = domain_get(named, error);
    if (!d || !domain_check_active(d, error)) {
        return false;
    }
    /* Without the job: whoever holds it may be waiting for this very machine. */
    if (!machine_stop(d, SHUTOFF_DESTROYED, flags & DESTROY_GRACEFUL, error)) {
        return false;
    }
    return !(flags & DESTROY_REMOVE_LOGS) || machine_remove_log(d, error);
}

bool verb_domain_destroy(struct call *call, const rpc_domain_args *args, rpc_none *ret,
                         GError **error)
{
    (void)call, (void)ret;
    return destroy(&args->dom, 0, error);
}

bool verb_domain_destroy_flags(struct call *call, const rpc_domain_flags *args, rpc_none *ret,
                               GError **error)
{
    (void)call, (void)ret;
    return destroy(&args->dom, args->flags, error);
}

bool verb_domain_suspend(struct call *call, const rpc_domain_args *args, rpc_none *ret,
                         GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take_beside(&args->dom, error);
    if (!d || !domain_check_active(d, error)) {
        return false;
    }
    if (d->state == STATE_PMSUSPENDED) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain is pmsuspended");
        return false;
    }
    return d->state == STATE_PAUSED || machine_pause(d, PAUSED_USER, error);
}

bool verb_domain_resume(struct call *call, const rpc_domain_args *args, rpc_none *ret,
                        GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d || !domain_check_active(d, error)) {
        return false;
    }
    if (d->state == STATE_PMSUSPENDED) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain is pmsuspended");
        return false;
    }
    if (d->state == STATE_RUNNING) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain is already running");
        return false;
    }
    return machine_resume(d, RUNNING_UNPAUSED, error);
}

/* One QMP command to a running machine, which the caller's flags have nothing to add to. */
static bool tell(const rpc_domain *named, const char *command, GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    return m && qmp_do(m->qmp, error, command, NULL);
}

enum { BY_ACPI = 1, BY_AGENT = 2 };

static bool power(const rpc_domain *named, unsigned flags, bool reboot, GError **error)
{
    if (flags & BY_AGENT) {
        g_autoptr(DomainJob) d = domain_take(named, error);
        g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
        if (!m) {
            return false;
        }
        g_autoptr(GError) agent = NULL;
        json_t *args = json_pack("{s:s}", "mode", reboot ? "reboot" : "powerdown");
        if (agent_send(m, "guest-shutdown", args, &agent)) {
            return true;
        }
        if (!(flags & BY_ACPI)) {
            g_propagate_error(error, g_steal_pointer(&agent));
            return false;
        }
    }
    /* A reboot by ACPI: the guest powers off and is started again. */
    g_autoptr(DomainJob) d = domain_take(named, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    return m && (reboot ? machine_reboot(m, error) : machine_power_off(m, error));
}

bool verb_domain_shutdown(struct call *call, const rpc_domain_args *args, rpc_none *ret,
                          GError **error)
{
    (void)call, (void)ret;
    return power(&args->dom, 0, false, error);
}

bool verb_domain_shutdown_flags(struct call *call, const rpc_domain_flags *args, rpc_none *ret,
                                GError **error)
{
    (void)call, (void)ret;
    return power(&args->dom, args->flags, false, error);
}

bool verb_domain_reboot(struct call *call, const rpc_domain_flags *args, rpc_none *ret,
                        GError **error)
{
    (void)call, (void)ret;
    return power(&args->dom, args->flags, true, error);
}

bool verb_domain_reset(struct call *call, const rpc_domain_flags *args, rpc_none *ret,
                       GError **error)
{
    (void)call, (void)ret;
    return tell(&args->dom, "system_reset", error);
}

bool verb_domain_inject_nmi(struct call *call, const rpc_domain_flags *args, rpc_none *ret,
                            GError **error)
{
    (void)call, (void)ret;
    return tell(&args->dom, "inject-nmi", error);
}
