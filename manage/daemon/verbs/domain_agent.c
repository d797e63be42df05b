/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the guest agent knows and does beyond one plain command.
 *
 * Spec: QEMU, "QEMU Guest Agent Protocol Reference"; names of parameters as in libvirt's
 * virDomainGetGuestInfo and virDomainGetGuestVcpus.
 */
#include "manage/daemon/machine.h"
#include "manage/daemon/params.h"
#include "manage/model/cpuset.h"

#include <string.h>

enum { ITEMS_MAX = 256 }; /* of each list that a guest sends */

/* The job, the machine and the agent's answer in one. */
static json_t *ask(const rpc_domain *named, const char *command, json_t *args, GError **error)
{
    g_autoptr(json_t) given = args;
    g_autoptr(DomainJob) d = domain_take(named, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    return m ? agent_run(m, command, g_steal_pointer(&given), error) : NULL;
}

static const char *word(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static uint64_t number(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

/* --- file systems --- */

/* The target of the disk that the guest sees there; NULL: none of ours. */
static const char *target_at(const DomainDef *def, const json_t *where)
{
    const json_t *pci = json_object_get(where, "pci-controller");
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        const struct address *a = disk->address;
        bool here = false;
        if (a && a->type == ADDRESS_PCI) {
            here = (uint64_t)a->bus == number(pci, "bus") &&
                   (uint64_t)a->slot == number(pci, "slot") &&
                   (uint64_t)a->function == number(pci, "function");
        } else if (a && a->type == ADDRESS_DRIVE) {
            here = (uint64_t)a->bus == number(where, "bus") &&
                   (uint64_t)a->target == number(where, "target") &&
                   (uint64_t)a->unit == number(where, "unit");
        }
        if (here) {
            return disk->target;
        }
    }
    return NULL;
}

static void put_fs(rpc_fsinfo *out, const DomainDef *def, const json_t *fs)
{
    const char *none = "";
    const json_t *disks = json_object_get(fs, "disk");
    *out = (rpc_fsinfo){.mountpoint = g_strdup(word(fs, "mountpoint") ?: none),
                        .name = g_strdup(word(fs, "name") ?: none),
                        .fstype = g_strdup(word(fs, "type") ?: none)};
    size_t i;
    json_t *where;
    out->devices.devices_val = g_new0(char *, MIN(json_array_size(disks), ITEMS_MAX));
    json_array_foreach(disks, i, where)
    {
        const char *target = i < ITEMS_MAX ? target_at(def, where) : NULL;
        if (target) {
            out->devices.devices_val[out->devices.devices_len++] = g_strdup(target);
        }
    }
}

bool verb_domain_get_fsinfo(struct call *call, const rpc_domain_flags *args, rpc_fsinfos *ret,
                            GError **error)
{
    (void)call;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    g_autoptr(json_t) all = m ? agent_run(m, "guest-get-fsinfo", NULL, error) : NULL;
    size_t i;
    json_t *fs;
    if (!all) {
        return false;
    }
    ret->items.items_val = g_new0(rpc_fsinfo, MIN(json_array_size(all), ITEMS_MAX));
    json_array_foreach(all, i, fs)
    {
        if (i < ITEMS_MAX) {
            put_fs(&ret->items.items_val[ret->items.items_len++], m->def, fs);
        }
    }
    ret->count = ret->items.items_len;
    return true;
}

/* --- passwords and sleep --- */

bool verb_domain_set_user_password(struct call *call, const rpc_password_args *args, rpc_none *ret,
                                   GError **error)
{
    (void)call, (void)ret;
    enum { ENCRYPTED = 1 };
    if (!args->user || !args->password) {
        libvirt_error(error, ERR_INVALID_ARG, "a user and a password are needed");
        return false;
    }
    const char *password = *args->password;
    g_autofree char *coded = g_base64_encode((const guchar *)password, strlen(password));
    json_t *words = json_pack("{s:b, s:s, s:s}", "crypted", (int)(args->flags & ENCRYPTED),
                              "username", *args->user, "password", coded);
    g_autoptr(json_t) got = ask(&args->dom, "guest-set-user-password", words, error);
    return got != NULL;
}

enum { TO_MEMORY, TO_DISK, TO_BOTH };

static bool may_sleep(const DomainDef *def, unsigned target, GError **error)
{
    bool no_memory = target != TO_DISK && def->suspend_to_mem == TRI_NO;
    if (no_memory || (target == TO_DISK && def->suspend_to_disk == TRI_NO)) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "%s state is disabled for this domain",
                      no_memory ? "S3" : "S4");
        return false;
    }
    return true;
}

bool verb_domain_pm_suspend_for_duration(struct call *call, const rpc_pm_suspend_args *args,
                                         rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    static const char *const commands[] = {"guest-suspend-ram", "guest-suspend-disk",
                                           "guest-suspend-hybrid"};
    if (args->duration || args->target >= G_N_ELEMENTS(commands)) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED, "%s",
                      args->duration ? "Duration not supported. Use 0 for now"
                                     : "Unknown suspend target");
        return false;
    }
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    return m && may_sleep(m->def, args->target, error) &&
           agent_send(m, commands[args->target], json_object(), error);
}

bool verb_domain_pm_wakeup(struct call *call, const rpc_domain_flags *args, rpc_none *ret,
                           GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    return m && qmp_do(m->qmp, error, "system_wakeup", NULL);
}

/* --- processors as the guest has them --- */

static void set_text(Params *p, const char *name, const struct cpuset *set)
{
    g_autofree char *text = cpuset_format(set);
    params_text(p, name, text);
}

bool verb_domain_get_guest_vcpus(struct call *call, const rpc_domain_flags *args, rpc_params *ret,
                                 GError **error)
{
    (void)call;
    g_autoptr(json_t) all = ask(&args->dom, "guest-get-vcpus", NULL, error);
    struct cpuset vcpus = {0}, online = {0}, offlinable = {0};
    size_t i;
    json_t *cpu;
    if (!all) {
        return false;
    }
    json_array_foreach(all, i, cpu)
    {
        uint64_t id = number(cpu, "logical-id");
        if (i >= ITEMS_MAX || id >= CPUSET_BITS) {
            break;
        }
        cpuset_put(&vcpus, (unsigned)id, true);
        cpuset_put(&online, (unsigned)id, json_is_true(json_object_get(cpu, "online")));
        cpuset_put(&offlinable, (unsigned)id, json_is_true(json_object_get(cpu, "can-offline")));
    }
    Params *p = params_new();
    set_text(p, "vcpus", &vcpus);
    set_text(p, "online", &online);
    set_text(p, "offlinable", &offlinable);
    ret->params.params_len = p->len;
    ret->params.params_val = (rpc_param *)(void *)g_array_free(p, FALSE);
    return true;
}

/* "0,2-3,^2" as a bitmap of 256; false with an error. */
static bool read_set(const char *text, bool set[ITEMS_MAX], GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);
    for (unsigned i = 0; parts[i]; i++) {
        const char *at = parts[i];
        bool off = *at == '^';
        char *end;
        uint64_t from = g_ascii_strtoull(at + off, &end, 10), to = from;
        bool ok = g_ascii_isdigit(at[off]);
        if (ok && *end == '-') {
            ok = g_ascii_isdigit(end[1]);
            to = g_ascii_strtoull(end + 1, &end, 10);
        }
        if (!ok || *end || from > to || to >= ITEMS_MAX) {
            libvirt_error(error, ERR_INVALID_ARG, "Failed to parse bitmap '%s'", text);
            return false;
        }
        for (uint64_t n = from; n <= to; n++) {
            set[n] = !off;
        }
    }
    return true;
}

bool verb_domain_set_guest_vcpus(struct call *call, const rpc_domain_cpus_flags *args,
                                 rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    bool set[ITEMS_MAX] = {false};
    if (!read_set(args->cpus, set, error)) {
        return false;
    }
    json_t *list = json_array();
    for (unsigned i = 0; i < ITEMS_MAX; i++) {
        if (set[i]) {
            json_array_append_new(
                list, json_pack("{s:i, s:b}", "logical-id", (int)i, "online", args->state != 0));
        }
    }
    size_t wanted = json_array_size(list);
    g_autoptr(json_t) got =
        ask(&args->dom, "guest-set-vcpus", json_pack("{s:o}", "vcpus", list), error);
    if (got && (size_t)json_integer_value(got) < wanted) {
        libvirt_error(error, ERR_INTERNAL, "the guest changed %d of %zu processors",
                      (int)json_integer_value(got), wanted);
        return false;
    }
    return got != NULL;
}

/* --- all about the guest --- */

enum {
    INFO_USERS = 1,
    INFO_OS = 2,
    INFO_TIMEZONE = 4,
    INFO_HOSTNAME = 8,
    INFO_FILESYSTEM = 16,
    INFO_DISKS = 32,
    INFO_INTERFACES = 64,
};

static void put_users(Params *p, const DomainDef *def, const json_t *got)
{
    char name[64];
    size_t i;
    json_t *user;
    (void)def;
    params_uint(p, "user.count", (unsigned)MIN(json_array_size(got), ITEMS_MAX));
    json_array_foreach(got, i, user)
    {
        if (i >= ITEMS_MAX) {
            break;
        }
        g_snprintf(name, sizeof(name), "user.%zu.name", i);
        params_text(p, name, word(user, "user") ?: "");
        if (word(user, "domain")) {
            g_snprintf(name, sizeof(name), "user.%zu.domain", i);
            params_text(p, name, word(user, "domain"));
        }
        g_snprintf(name, sizeof(name), "user.%zu.login-time", i);
        params_ullong(p, name,
                      (uint64_t)(json_number_value(json_object_get(user, "login-time")) * 1000));
    }
}

static void put_os(Params *p, const DomainDef *def, const json_t *got)
{
    static const char *const keys[] = {
        "id",      "name",           "pretty-name", "version",   "version-id", "kernel-release",
        "machine", "kernel-version", "variant",     "variant-id"};
    (void)def;
    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (word(got, keys[i])) {
            g_autofree char *name = g_strconcat("os.", keys[i], NULL);
            params_text(p, name, word(got, keys[i]));
        }
    }
}

static void put_timezone(Params *p, const DomainDef *def, const json_t *got)
{
    (void)def;
    if (word(got, "zone")) {
        params_text(p, "timezone.name", word(got, "zone"));
    }
    params_int(p, "timezone.offset", (int)json_integer_value(json_object_get(got, "offset")));
}

static void put_hostname(Params *p, const DomainDef *def, const json_t *got)
{
    (void)def;
    params_text(p, "hostname", word(got, "host-name") ?: "");
}

static void put_one_fs(Params *p, unsigned i, const DomainDef *def, const json_t *fs)
{
    static const struct {
        const char *name, *key;
    } texts[] = {{"name", "name"}, {"mountpoint", "mountpoint"}, {"fstype", "type"}},
      sizes[] = {{"total-bytes", "total-bytes"}, {"used-bytes", "used-bytes"}};
    char name[64];
    for (unsigned k = 0; k < G_N_ELEMENTS(texts); k++) {
        g_snprintf(name, sizeof(name), "fs.%u.%s", i, texts[k].name);
        params_text(p, name, word(fs, texts[k].key) ?: "");
    }
    for (unsigned k = 0; k < G_N_ELEMENTS(sizes); k++) {
        if (json_object_get(fs, sizes[k].key)) {
            g_snprintf(name, sizeof(name), "fs.%u.%s", i, sizes[k].name);
            params_ullong(p, name, number(fs, sizes[k].key));
        }
    }
    const json_t *disks = json_object_get(fs, "disk");
    unsigned n = (unsigned)MIN(json_array_size(disks), 16);
    g_snprintf(name, sizeof(name), "fs.%u.disk.count", i);
    params_uint(p, name, n);
    for (unsigned k = 0; k < n; k++) {
        const json_t *disk = json_array_get(disks, k);
        const char *target = target_at(def, disk);
        if (target) {
            g_snprintf(name, sizeof(name), "fs.%u.disk.%u.alias", i, k);
            params_text(p, name, target);
        }
        if (word(disk, "dev")) {
            g_snprintf(name, sizeof(name), "fs.%u.disk.%u.device", i, k);
            params_text(p, name, word(disk, "dev"));
        }
    }
}

static void put_filesystems(Params *p, const DomainDef *def, const json_t *got)
{
    unsigned n = (unsigned)MIN(json_array_size(got), 16);
    params_uint(p, "fs.count", n);
    for (unsigned i = 0; i < n; i++) {
        put_one_fs(p, i, def, json_array_get(got, i));
    }
}

static const struct {
    unsigned bit;
    const char *command;
    void (*put)(Params *p, const DomainDef *def, const json_t *got);
} infos[] = {
    {INFO_USERS, "guest-get-users", put_users},
    {INFO_OS, "guest-get-osinfo", put_os},
    {INFO_TIMEZONE, "guest-get-timezone", put_timezone},
    {INFO_HOSTNAME, "guest-get-host-name", put_hostname},
    {INFO_FILESYSTEM, "guest-get-fsinfo", put_filesystems},
};

bool verb_domain_get_guest_info(struct call *call, const rpc_domain_uint_flags *args,
                                rpc_params *ret, GError **error)
{
    (void)call;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    if (args->value & (INFO_DISKS | INFO_INTERFACES)) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED,
                      "guest information about disks and interfaces is not supported");
        return false;
    }
    Params *p = params_new();
    bool ok = true;
    for (unsigned i = 0; ok && i < G_N_ELEMENTS(infos); i++) {
        g_autoptr(GError) why = NULL;
        if (args->value && !(args->value & infos[i].bit)) {
            continue;
        }
        g_autoptr(json_t) got = agent_run(m, infos[i].command, NULL, &why);
        if (got) {
            infos[i].put(p, m->def, got);
        } else if (args->value || why->code != ERR_INTERNAL) { /* else: it does not know this one */
            g_propagate_error(error, g_steal_pointer(&why));
            ok = false;
        }
    }
    ret->params.params_len = p->len;
    ret->params.params_val = (rpc_param *)(void *)g_array_free(p, FALSE);
    return ok;
}

bool verb_domain_agent_set_response_timeout(struct call *call, const rpc_domain_int_flags *args,
                                            rpc_int *ret, GError **error)
{
    (void)call;
    enum { FOREVER = -2 };
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d || !domain_check_active(d, error)) {
        return false;
    }
    if (args->value < FOREVER) {
        libvirt_error(error, ERR_INVALID_ARG, "guest agent timeout '%d' is less than the minimum",
                      args->value);
        return false;
    }
    d->machine->agent_seconds = args->value == FOREVER ? AGENT_SECONDS_MAX
                                : args->value < 0      ? 0
                                                       : CLAMP(args->value, 1, AGENT_SECONDS_MAX);
    ret->value = 0;
    return true;
}
