/* SPDX-License-Identifier: GPL-2.0-or-later */
/* <bandwidth> of one card of a machine, looked at and changed (domiftune). */
#include "manage/daemon/machine.h"
#include "manage/daemon/params.h"
#include "manage/daemon/port_guard.h"

#include <string.h>

static const struct {
    const char *name;
    bool out;
    uint16_t offset; /* in struct bandwidth */
} values[] = {
    {"inbound.average", false, offsetof(struct bandwidth, average)},
    {"inbound.peak", false, offsetof(struct bandwidth, peak)},
    {"inbound.burst", false, offsetof(struct bandwidth, burst)},
    {"inbound.floor", false, offsetof(struct bandwidth, floor)},
    {"outbound.average", true, offsetof(struct bandwidth, average)},
    {"outbound.peak", true, offsetof(struct bandwidth, peak)},
    {"outbound.burst", true, offsetof(struct bandwidth, burst)},
};

static int64_t *value_at(struct bandwidth *b, unsigned i)
{
    return (int64_t *)(void *)((char *)b + values[i].offset);
}

static struct domain_interface *card(const DomainDef *def, const char *name, GError **error)
{
    struct domain_interface *nic = domain_find_interface(def, name);
    if (!nic) {
        libvirt_error(error, ERR_INVALID_ARG, "Can't find device '%s'", name);
    }
    return nic;
}

bool verb_domain_get_interface_parameters(struct call *call, const rpc_domain_of_int_flags *args,
                                          rpc_params_count *ret, GError **error)
{
    (void)call;
    unsigned flags = args->flags & (AFFECT_LIVE | AFFECT_CONFIG);
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    ret->count = G_N_ELEMENTS(values);
    if (!args->max) { /* how many there are */
        return true;
    }
    g_autoptr(DomainDef) def = domain_def_of(d, flags & AFFECT_LIVE, error);
    struct domain_interface *nic = def ? card(def, args->of, error) : NULL;
    if (!nic) {
        return false;
    }
    Params *p = params_new();
    for (unsigned i = 0; i < G_N_ELEMENTS(values); i++) {
        struct bandwidth *b = values[i].out ? nic->outbound : nic->inbound;
        int64_t v = b ? *value_at(b, i) : XML_ABSENT;
        params_uint(p, values[i].name, v == XML_ABSENT ? 0 : (unsigned)v);
    }
    ret->params.params_val = params_finish(p, &ret->params.params_len);
    return true;
}

/* ---- setting ---- */

/* A direction whose average is given is said anew; an average of 0 ends its limit. */
static bool apply(struct domain_interface *nic, const rpc_domain_of_params_flags *args,
                  GError **error)
{
    struct bandwidth *made[2] = {NULL, NULL};
    bool ok = true;
    for (unsigned i = 0; ok && i < args->params.params_len; i++) {
        const rpc_param *p = &args->params.params_val[i];
        unsigned k = 0;
        int64_t v;
        while (k < G_N_ELEMENTS(values) && strcmp(values[k].name, p->field)) {
            k++;
        }
        if (k == G_N_ELEMENTS(values)) {
            libvirt_error(error, ERR_INVALID_ARG, "parameter '%s' not supported", p->field);
            ok = false;
            continue;
        }
        ok = param_number(p, &v, error);
        struct bandwidth **b = &made[values[k].out];
        *b = *b ? *b : xml_new(values[k].out ? &outbound_table : &inbound_table);
        if (ok && (v || !strcmp(p->field + strlen(p->field) - strlen("average"), "average"))) {
            *value_at(*b, k) = v;
        }
    }
    for (unsigned k = 0; ok && k < 2; k++) {
        ok = !made[k] || bandwidth_check(k ? NULL : made[k], k ? made[k] : NULL, error);
    }
    for (unsigned k = 0; k < 2; k++) {
        struct bandwidth **place = k ? &nic->outbound : &nic->inbound;
        const struct xml_table *t = k ? &outbound_table : &inbound_table;
        if (ok && made[k]) {
            xml_free(t, *place);
            *place = made[k]->average ? g_steal_pointer(&made[k]) : NULL;
        }
        xml_free(t, made[k]);
    }
    return ok;
}

static bool set_live(Domain *d, const rpc_domain_of_params_flags *args, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    g_autoptr(DomainDef) copy = m ? domain_def_copy(m->def) : NULL;
    struct domain_interface *wanted = copy ? card(copy, args->of, error) : NULL;
    if (!wanted || !apply(wanted, args, error) || !machine_net_guard_anew(wanted, error)) {
        return false;
    }
    struct domain_interface *nic = m->ended ? NULL : domain_find_interface(m->def, wanted->mac);
    if (nic) {
        apply(nic, args, NULL);
        machine_save(m);
    }
    return true;
}

static bool set_config(Domain *d, const rpc_domain_of_params_flags *args, GError **error)
{
    g_autoptr(DomainDef) def = domain_config(d, error);
    struct domain_interface *nic = def ? card(def, args->of, error) : NULL;
    return nic && apply(nic, args, error) && domain_save_config(d, def, error);
}

bool verb_domain_set_interface_parameters(struct call *call, const rpc_domain_of_params_flags *args,
                                          rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    unsigned flags = args->flags;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    return d && domain_affect(d, &flags, error) &&
           (!(flags & AFFECT_LIVE) || set_live(d, args, error)) &&
           (!(flags & AFFECT_CONFIG) || set_config(d, args, error));
}
