/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How many processors a machine has and which, in its definition, while it runs, by its agent. */
#include "manage/daemon/params.h"
#include "manage/daemon/tune.h"

#include <string.h>

enum { VCPU_MAXIMUM = 4, VCPU_GUEST = 8, VCPU_HOTPLUGGABLE = 16 };
enum { UNPLUG_SECONDS = 5 };

/* --- the running machine --- */

static bool plug(struct machine *m, unsigned id, GError **error)
{
    json_t *options = vcpu_options(m->def, id, error);
    g_autoptr(json_t) got =
        options ? qmp_run(m->qmp, "device_add", options, QMP_TIMEOUT_MS, error) : NULL;
    if (!got || m->ended) {
        return false;
    }
    domain_vcpu_set(m->def, id, true, true);
    machine_save(m);
    return tune_vcpus(m, error);
}

/* The guest lets go when it wants to: DEVICE_DELETED says so, machine_vcpu_gone() hears it. */
static bool unplug(struct machine *m, unsigned id, GError **error)
{
    g_autofree char *alias = g_strdup_printf("vcpu%u", id);
    g_clear_pointer(&m->refused, g_free);
    if (!qmp_do(m->qmp, error, "device_del", "{s:s}", "id", alias)) {
        return false;
    }
    int64_t until = g_get_monotonic_time() + UNPLUG_SECONDS * G_USEC_PER_SEC;
    while (!m->ended && domain_vcpu_online(m->def, id)) {
        if (g_strcmp0(m->refused, alias) == 0) {
            libvirt_error(error, ERR_OPERATION_FAILED,
                          "vcpu unplug request failed. Unplug result "
                          "must be manually inspected in the domain");
            return false;
        }
        if (!daemon_wait(until)) {
            libvirt_error(error, ERR_OPERATION_TIMEOUT,
                          "vcpu unplug request timed out. Unplug result must be manually inspected "
                          "in the domain");
            return false;
        }
    }
    return true;
}

void machine_vcpu_gone(struct machine *m, unsigned id)
{
    if (id < m->def->vcpus && domain_vcpu_online(m->def, id)) {
        domain_vcpu_set(m->def, id, false, true);
        machine_save(m);
        daemon_wake();
    }
}

/* Those that are to change from the one state to the other, the last to go first. */
static GArray *choose(const DomainDef *def, unsigned n, GError **error)
{
    GArray *ids = g_array_new(FALSE, FALSE, sizeof(unsigned));
    unsigned has = domain_vcpus_online(def);
    for (unsigned i = 0; i < def->vcpus && has < n; i++) {
        if (!domain_vcpu_online(def, i)) {
            g_array_append_val(ids, i);
            has++;
        }
    }
    for (unsigned i = (unsigned)def->vcpus; i-- > 0 && has > n;) {
        if (domain_vcpu_online(def, i) && domain_vcpu_removable(def, i)) {
            g_array_append_val(ids, i);
            has--;
        }
    }
    if (has == n) {
        return ids;
    }
    g_array_unref(ids);
    libvirt_error(error, ERR_INVALID_ARG,
                  "failed to find appropriate hotpluggable vcpus to reach the desired target vcpu "
                  "count");
    return NULL;
}

static bool set_live(Domain *d, unsigned n, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m) {
        return false;
    }
    if (n > m->def->vcpus) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "requested vcpus is greater than max allowable vcpus for the live domain: "
                      "%u > %ld",
                      n, (long)m->def->vcpus);
        return false;
    }
    bool more = n > domain_vcpus_online(m->def);
    g_autoptr(GArray) ids = choose(m->def, n, error);
    for (unsigned i = 0; ids && i < ids->len; i++) {
        unsigned id = g_array_index(ids, unsigned, i);
        if (!(more ? plug(m, id, error) : unplug(m, id, error))) {
            return false;
        }
    }
    return ids != NULL;
}

/* --- by the agent --- */

static unsigned agent_online(const json_t *all)
{
    size_t i;
    json_t *cpu;
    unsigned n = 0;
    json_array_foreach(all, i, cpu)
    {
        n += json_is_true(json_object_get(cpu, "online"));
    }
    return n;
}

static json_t *agent_cpus(struct machine *m, GError **error)
{
    return agent_run(m, "guest-get-vcpus", NULL, error);
}

static bool set_by_agent(Domain *d, unsigned n, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    g_autoptr(json_t) all = m ? agent_cpus(m, error) : NULL;
    if (!all) {
        return false;
    }
    if (n > json_array_size(all)) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "requested vcpu count is greater than the count of enabled vcpus in the "
                      "domain: %u > %zu",
                      n, json_array_size(all));
        return false;
    }
    unsigned has = agent_online(all);
    json_t *list = json_array(), *cpu;
    size_t count = json_array_size(all);
    for (size_t k = 0; k < count && has != n; k++) {
        cpu = json_array_get(all, has < n ? k : count - 1 - k);
        bool online = json_is_true(json_object_get(cpu, "online"));
        if (online == (has < n) || json_is_false(json_object_get(cpu, "can-offline"))) {
            continue;
        }
        json_array_append_new(list,
                              json_pack("{s:O, s:b}", "logical-id",
                                        json_object_get(cpu, "logical-id"), "online", !online));
        has = online ? has - 1 : has + 1;
    }
    if (has != n) {
        json_decref(list);
        libvirt_error(error, ERR_INTERNAL,
                      "failed to set vCPU count: some vCPUs cannot be offline");
        return false;
    }
    g_autoptr(json_t) got =
        agent_run(m, "guest-set-vcpus", json_pack("{s:o}", "vcpus", list), error);
    return got != NULL;
}

/* --- verbs --- */

static bool set_config(Domain *d, unsigned n, unsigned flags, GError **error)
{
    g_autoptr(DomainDef) def = domain_config(d, error);
    if (!def) {
        return false;
    }
    if (flags & VCPU_MAXIMUM) {
        domain_vcpus_limit(def, n);
    } else if (n > def->vcpus) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "requested vcpus is greater than max allowable vcpus for the persistent "
                      "domain: %u > %ld",
                      n, (long)def->vcpus);
        return false;
    } else {
        domain_vcpus_set(def, n, flags & VCPU_HOTPLUGGABLE);
    }
    return domain_def_check(def, error) && domain_save_config(d, def, error);
}

static bool set_vcpus(const rpc_domain *named, unsigned n, unsigned flags, GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    if (n == 0 || n > UINT16_MAX) {
        libvirt_error(error, ERR_INVALID_ARG, "%u processors are not possible", n);
        return false;
    }
    if (flags & VCPU_GUEST) {
        return set_by_agent(d, n, error);
    }
    if ((flags & VCPU_MAXIMUM) && (flags & AFFECT_LIVE)) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "maximum vcpu count can't be changed on a running domain");
        return false;
    }
    return (!(flags & AFFECT_LIVE) || set_live(d, n, error)) &&
           (!(flags & AFFECT_CONFIG) || set_config(d, n, flags, error));
}

bool verb_domain_set_vcpus(struct call *call, const rpc_domain_uint *args, rpc_none *ret,
                           GError **error)
{
    (void)call, (void)ret;
    return set_vcpus(&args->dom, args->value, AFFECT_LIVE, error);
}

bool verb_domain_set_vcpus_flags(struct call *call, const rpc_domain_uint_flags *args,
                                 rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    return set_vcpus(&args->dom, args->value, args->flags, error);
}

bool verb_domain_get_vcpus_flags(struct call *call, const rpc_domain_flags *args, rpc_int *ret,
                                 GError **error)
{
    (void)call;
    unsigned flags = args->flags;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    if (flags & VCPU_GUEST) {
        g_autoptr(Machine) m = machine_of(d, error);
        g_autoptr(json_t) all = m ? agent_cpus(m, error) : NULL;
        ret->value = (flags & VCPU_MAXIMUM) ? (int)json_array_size(all) : (int)agent_online(all);
        return all != NULL;
    }
    g_autoptr(DomainDef) def = domain_def_of(d, flags & AFFECT_LIVE, error);
    if (!def) {
        return false;
    }
    ret->value = (int)((flags & VCPU_MAXIMUM) ? def->vcpus : domain_vcpus_online(def));
    return true;
}

/* "1,3-4" in @def: each must exist, not be the first, and be otherwise than @state. */
static bool check_named(const DomainDef *def, const struct cpuset *set, bool state, bool live,
                        GError **error)
{
    for (unsigned i = 0; i < CPUSET_BITS; i++) {
        const char *wrong =
            !cpuset_has(set, i)                                ? NULL
            : i >= def->vcpus                                  ? "is not present in the domain"
            : i == 0                                           ? "can't be modified"
            : live && domain_vcpu_online(def, i) == state      ? "is already in requested state"
            : live && !state && !domain_vcpu_removable(def, i) ? "is not hotunpluggable"
                                                               : NULL;
        if (wrong) {
            libvirt_error(error, ERR_INVALID_ARG, "vCPU '%u' %s", i, wrong);
            return false;
        }
    }
    return true;
}

static bool set_named_live(Domain *d, const struct cpuset *set, bool state, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m || !check_named(m->def, set, state, true, error)) {
        return false;
    }
    for (unsigned i = 0; i < m->def->vcpus; i++) {
        if (cpuset_has(set, i) && !(state ? plug(m, i, error) : unplug(m, i, error))) {
            return false;
        }
    }
    return true;
}

static bool set_named_config(Domain *d, const struct cpuset *set, bool state, GError **error)
{
    g_autoptr(DomainDef) def = domain_config(d, error);
    if (!def || !check_named(def, set, state, false, error)) {
        return false;
    }
    for (unsigned i = 0; i < def->vcpus; i++) {
        if (cpuset_has(set, i)) {
            domain_vcpu_set(def, i, state, true);
        }
    }
    return domain_vcpus_fill(def, error) && domain_save_config(d, def, error);
}

bool verb_domain_set_vcpu(struct call *call, const rpc_domain_cpus_flags *args, rpc_none *ret,
                          GError **error)
{
    (void)call, (void)ret;
    unsigned flags = args->flags;
    struct cpuset set;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    return d && domain_affect(d, &flags, error) && cpuset_parse(args->cpus, &set, error) &&
           (!(flags & AFFECT_LIVE) || set_named_live(d, &set, args->state != 0, error)) &&
           (!(flags & AFFECT_CONFIG) || set_named_config(d, &set, args->state != 0, error));
}
