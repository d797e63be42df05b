/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threads of a machine for the queues of its disks: which there are, and where they run. */
#include "manage/daemon/capabilities.h"
#include "manage/daemon/iothreads.h"
#include "manage/daemon/params.h"
#include "manage/daemon/tune.h"
#include "manage/model/iothreads.h"

#include <string.h>

/* The thread of @id in the running machine; 0 with an error. */
static pid_t thread_of(struct machine *m, int64_t id, GError **error)
{
    g_autofree char *name = g_strdup_printf("iothread%ld", (long)id);
    g_autoptr(json_t) all = qmp_run(m->qmp, "query-iothreads", NULL, QMP_TIMEOUT_MS, error);
    size_t i;
    json_t *one;
    json_array_foreach(all, i, one)
    {
        if (!g_strcmp0(json_string_value(json_object_get(one, "id")), name)) {
            return (pid_t)json_integer_value(json_object_get(one, "thread-id"));
        }
    }
    if (all) {
        libvirt_error(error, ERR_INVALID_ARG, "iothread %ld not found", (long)id);
    }
    return 0;
}

static bool pin_thread(struct machine *m, int64_t id, const struct cpuset *set, GError **error)
{
    pid_t thread = thread_of(m, id, error);
    return thread && tune_pin_thread(thread, set, error);
}

bool iothreads_place(struct machine *m, GError **error)
{
    g_autoptr(GArray) ids = domain_iothreads(m->def);
    for (unsigned i = 0; i < ids->len; i++) {
        int64_t id = g_array_index(ids, int64_t, i);
        const char *pin = domain_iothread_pin(m->def, id);
        struct cpuset set;
        if (pin && (!cpuset_parse(pin, &set, error) || !pin_thread(m, id, &set, error))) {
            return false;
        }
    }
    return true;
}

/* --- asking --- */

bool verb_domain_get_iothread_info(struct call *call, const rpc_domain_flags *args,
                                   rpc_iothreads *ret, GError **error)
{
    (void)call;
    unsigned flags = args->flags, bytes = ((unsigned)host_cpus()->present + 7) / 8;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(DomainDef) def =
        d && domain_affect(d, &flags, error) ? domain_def_of(d, flags & AFFECT_LIVE, error) : NULL;
    if (!def) {
        return false;
    }
    g_autoptr(GArray) ids = domain_iothreads(def);
    ret->items.items_val = g_new0(rpc_iothread, ids->len + 1);
    ret->items.items_len = ret->count = ids->len;
    for (unsigned i = 0; i < ids->len; i++) {
        rpc_iothread *one = &ret->items.items_val[i];
        const char *pin = domain_iothread_pin(def, g_array_index(ids, int64_t, i));
        struct cpuset set;
        pin = pin ? pin : def->vcpu_cpuset;
        if (!pin) {
            cpuset_all(&set, (unsigned)host_cpus()->present);
        } else if (!cpuset_parse(pin, &set, error)) {
            return false;
        }
        one->id = (unsigned)g_array_index(ids, int64_t, i);
        one->map.map_val = g_memdup2(set.bytes, MIN(bytes, CPUSET_BYTES));
        one->map.map_len = MIN(bytes, CPUSET_BYTES);
    }
    return true;
}

/* --- places --- */

static bool pin_live(Domain *d, int64_t id, const struct cpuset *set, const char *text,
                     GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m || !pin_thread(m, id, set, error)) {
        return false;
    }
    if (!m->ended) {
        domain_pin_iothread(m->def, id, text);
        machine_save(m);
        g_autofree char *name = g_strdup_printf("cputune.iothreadpin%ld", (long)id);
        Params *p = params_new();
        params_text(p, name, text);
        tune_event(d, p);
    }
    return true;
}

bool verb_domain_pin_iothread(struct call *call, const rpc_pin_vcpu_flags *args, rpc_none *ret,
                              GError **error)
{
    (void)call, (void)ret;
    struct cpuset set;
    unsigned flags = args->flags;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d || !domain_affect(d, &flags, error) ||
        !cpuset_from_map(args->map.map_val, args->map.map_len, &set, error)) {
        return false;
    }
    g_autofree char *text = cpuset_format(&set);
    g_autoptr(DomainDef) def = flags & AFFECT_CONFIG ? domain_config(d, error) : NULL;
    if ((flags & AFFECT_CONFIG) && !def) {
        return false;
    }
    if (def && !domain_has_iothread(def, args->vcpu)) {
        libvirt_error(error, ERR_INVALID_ARG, "iothreadid %u not found", args->vcpu);
        return false;
    }
    if ((flags & AFFECT_LIVE) && !pin_live(d, args->vcpu, &set, text, error)) {
        return false;
    }
    if (def) {
        domain_pin_iothread(def, args->vcpu, text);
    }
    return !def || domain_save_config(d, def, error);
}

/* --- coming and going --- */

static bool may_change(const DomainDef *def, int64_t id, bool add, GError **error)
{
    const char *user = add ? NULL : domain_iothread_user(def, id);
    g_autoptr(GArray) ids = domain_iothreads(def);
    if (id < 1) {
        libvirt_error(error, ERR_INVALID_ARG, "invalid value of 0 for iothread_id");
    } else if (add && domain_has_iothread(def, id)) {
        libvirt_error(error, ERR_INVALID_ARG, "an IOThread is already using iothread_id '%ld'",
                      (long)id);
    } else if (add && ids->len >= IOTHREADS_MAX) {
        libvirt_error(error, ERR_INVALID_ARG, "there are at most %d iothreads", IOTHREADS_MAX);
    } else if (!add && !domain_has_iothread(def, id)) {
        libvirt_error(error, ERR_INVALID_ARG, "cannot find IOThread '%ld' in iothreadids list",
                      (long)id);
    } else if (user) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "cannot remove IOThread %ld since it is being used by '%s'", (long)id, user);
    } else {
        return true;
    }
    return false;
}

static void change(DomainDef *def, int64_t id, bool add)
{
    (add ? domain_add_iothread : domain_drop_iothread)(def, id);
}

static bool change_live(Domain *d, int64_t id, bool add, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m || !may_change(m->def, id, add, error)) {
        return false;
    }
    g_autofree char *name = g_strdup_printf("iothread%ld", (long)id);
    if (!(add ? qmp_do(m->qmp, error, "object-add", "{s:s, s:s}", "qom-type", "iothread", "id",
                       name)
              : qmp_do(m->qmp, error, "object-del", "{s:s}", "id", name))) {
        return false;
    }
    if (!m->ended) {
        change(m->def, id, add);
        machine_save(m);
    }
    return true;
}

static bool add_or_drop(const rpc_domain_uint_flags *args, bool add, GError **error)
{
    unsigned flags = args->flags;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    g_autoptr(DomainDef) def = flags & AFFECT_CONFIG ? domain_config(d, error) : NULL;
    if ((flags & AFFECT_CONFIG) && (!def || !may_change(def, args->value, add, error))) {
        return false;
    }
    if ((flags & AFFECT_LIVE) && !change_live(d, args->value, add, error)) {
        return false;
    }
    if (def) {
        change(def, args->value, add);
    }
    return !def || domain_save_config(d, def, error);
}

bool verb_domain_add_iothread(struct call *call, const rpc_domain_uint_flags *args, rpc_none *ret,
                              GError **error)
{
    (void)call, (void)ret;
    return add_or_drop(args, true, error);
}

bool verb_domain_del_iothread(struct call *call, const rpc_domain_uint_flags *args, rpc_none *ret,
                              GError **error)
{
    (void)call, (void)ret;
    return add_or_drop(args, false, error);
}
