/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Verbs of networks. */
#include "manage/daemon/network.h"
#include "manage/daemon/network_parts.h"
#include "manage/daemon/verb.h"
#include "manage/model/pool.h"

#include <string.h>

enum {
    LIST_INACTIVE = 1,
    LIST_ACTIVE = 2,
    LIST_PERSISTENT = 4,
    LIST_TRANSIENT = 8,
    LIST_AUTOSTART = 16,
    LIST_NO_AUTOSTART = 32,
    XML_INACTIVE = 1,
    DEFINE_VALIDATE = 1, /* what is unknown is always refused */
    UPDATE_LIVE = 1,
    UPDATE_CONFIG = 2,
    ADDRESS_IPV4 = 0,
    ADDRESS_IPV6 = 1,
};

static bool flags_check(unsigned flags, unsigned known, GError **error)
{
    if (flags & ~known) {
        libvirt_error(error, ERR_INVALID_ARG, "unsupported flags (0x%x)", flags & ~known);
    }
    return !(flags & ~known);
}

static struct network *get(const rpc_network *id, GError **error)
{
    struct network *net = network_find_uuid((const uint8_t *)id->uuid);
    if (!net) {
        g_autofree char *uuid = uuid_text((const uint8_t *)id->uuid);
        libvirt_error(error, ERR_NO_NETWORK, "no network with matching uuid '%s' (%s)", uuid,
                      id->name);
    }
    return net;
}

static void put(rpc_network *out, const struct network *net)
{
    out->name = g_strdup(net->def->name);
    uuid_bytes(net->def->uuid, (uint8_t *)out->uuid);
}

/* ---- finding ---- */

bool verb_network_lookup_by_name(struct call *call, const rpc_text *args, rpc_network_ret *ret,
                                 GError **error)
{
    (void)call;
    const struct network *net = network_find(args->text);
    if (!net) {
        libvirt_error(error, ERR_NO_NETWORK, "no network with matching name '%s'", args->text);
        return false;
    }
    put(&ret->net, net);
    return true;
}

bool verb_network_lookup_by_uuid(struct call *call, const rpc_uuid_args *args, rpc_network_ret *ret,
                                 GError **error)
{
    (void)call;
    const struct network *net = network_find_uuid((const uint8_t *)args->uuid);
    if (!net) {
        g_autofree char *uuid = uuid_text((const uint8_t *)args->uuid);
        libvirt_error(error, ERR_NO_NETWORK, "no network with matching uuid '%s'", uuid);
        return false;
    }
    put(&ret->net, net);
    return true;
}

static bool wanted(const struct network *net, unsigned flags)
{
    unsigned state = net->active ? LIST_ACTIVE : LIST_INACTIVE;
    unsigned lasting = net->persistent ? LIST_PERSISTENT : LIST_TRANSIENT;
    unsigned begins = net->autostart ? LIST_AUTOSTART : LIST_NO_AUTOSTART;
    return (!(flags & (LIST_ACTIVE | LIST_INACTIVE)) || (flags & state)) &&
           (!(flags & (LIST_PERSISTENT | LIST_TRANSIENT)) || (flags & lasting)) &&
           (!(flags & (LIST_AUTOSTART | LIST_NO_AUTOSTART)) || (flags & begins));
}

bool verb_connect_list_all_networks(struct call *call, const rpc_list_args *args, rpc_networks *ret,
                                    GError **error)
{
    (void)call;
    (void)error;
    unsigned n = 0;
    rpc_network *items = args->need_results ? g_new0(rpc_network, networks->len) : NULL;
    for (unsigned i = 0; i < networks->len; i++) {
        if (wanted(networks->pdata[i], args->flags)) {
            if (items) {
                put(&items[n], networks->pdata[i]);
            }
            n++;
        }
    }
    ret->items.items_val = items;
    ret->items.items_len = items ? n : 0;
    ret->count = n;
    return true;
}

static int count(unsigned flags)
{
    int n = 0;
    for (unsigned i = 0; i < networks->len; i++) {
        n += wanted(networks->pdata[i], flags);
    }
    return n;
}

static void names(unsigned flags, int max, rpc_names *ret)
{
    ret->names.names_val = g_new0(rpc_string, networks->len);
    for (unsigned i = 0; i < networks->len; i++) {
        const struct network *net = networks->pdata[i];
        if (wanted(net, flags) && (int)ret->names.names_len < max) {
            ret->names.names_val[ret->names.names_len++] = g_strdup(net->def->name);
        }
    }
}

bool verb_connect_num_of_networks(struct call *call, const rpc_none *args, rpc_int *ret,
                                  GError **error)
{
    (void)call;
    (void)args;
    (void)error;
    ret->value = count(LIST_ACTIVE);
    return true;
}

bool verb_connect_num_of_defined_networks(struct call *call, const rpc_none *args, rpc_int *ret,
                                          GError **error)
{
    (void)call;
    (void)args;
    (void)error;
    ret->value = count(LIST_INACTIVE);
    return true;
}

bool verb_connect_list_networks(struct call *call, const rpc_int *args, rpc_names *ret,
                                GError **error)
{
    (void)call;
    (void)error;
    names(LIST_ACTIVE, args->value, ret);
    return true;
}

bool verb_connect_list_defined_networks(struct call *call, const rpc_int *args, rpc_names *ret,
                                        GError **error)
{
    (void)call;
    (void)error;
    names(LIST_INACTIVE, args->value, ret);
    return true;
}

/* ---- looking ---- */

bool verb_network_get_xml_desc(struct call *call, const rpc_network_flags *args, rpc_text *ret,
                               GError **error)
{
    (void)call;
    const struct network *net = get(&args->net, error);
    if (!net || !flags_check(args->flags, XML_INACTIVE, error)) {
        return false;
    }
    ret->text = network_format(args->flags & XML_INACTIVE ? network_lasting(net) : net->def);
    return true;
}

bool verb_network_get_bridge_name(struct call *call, const rpc_network_args *args, rpc_text *ret,
                                  GError **error)
{
    (void)call;
    const struct network *net = get(&args->net, error);
    if (net && !net->def->bridge) {
        libvirt_error(error, ERR_INTERNAL, "network '%s' does not have a bridge name.",
                      net->def->name);
        return false;
    }
    ret->text = net ? g_strdup(net->def->bridge) : NULL;
    return net;
}

bool verb_network_is_active(struct call *call, const rpc_network_args *args, rpc_int *ret,
                            GError **error)
{
    (void)call;
    const struct network *net = get(&args->net, error);
    ret->value = net && net->active;
    return net;
}

bool verb_network_is_persistent(struct call *call, const rpc_network_args *args, rpc_int *ret,
                                GError **error)
{
    (void)call;
    const struct network *net = get(&args->net, error);
    ret->value = net && net->persistent;
    return net;
}

bool verb_network_get_autostart(struct call *call, const rpc_network_args *args, rpc_int *ret,
                                GError **error)
{
    (void)call;
    const struct network *net = get(&args->net, error);
    ret->value = net && net->autostart;
    return net;
}

bool verb_network_set_autostart(struct call *call, const rpc_network_int *args, rpc_none *ret,
                                GError **error)
{
    (void)call;
    (void)ret;
    struct network *net = get(&args->net, error);
    if (net && !net->persistent) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cannot set autostart for transient network");
        return false;
    }
    return net && (net->autostart == (args->value != 0) ||
                   network_set_autostart(net, args->value != 0, error));
}

static rpc_maybe_string maybe(char **from)
{
    if (!*from) {
        return NULL;
    }
    rpc_maybe_string to = g_new(rpc_string, 1);
    *to = g_steal_pointer(from);
    return to;
}

bool verb_network_get_dhcp_leases(struct call *call, const rpc_leases_args *args, rpc_leases *ret,
                                  GError **error)
{
    (void)call;
    const struct network *net = get(&args->net, error);
    if (!net || !flags_check(args->flags, 0, error)) {
        return false;
    }
    struct network_def *def = network_def_copy(net->def);
    daemon_unlock();
    g_autoptr(GPtrArray) leases = dnsmasq_leases(def, args->mac ? *args->mac : NULL);
    daemon_lock();
    ret->count = leases->len;
    ret->items.items_len = args->need_results ? leases->len : 0;
    ret->items.items_val = g_new0(rpc_lease, ret->items.items_len);
    for (unsigned i = 0; i < ret->items.items_len; i++) {
        struct dhcp_lease *l = leases->pdata[i];
        ret->items.items_val[i] = (rpc_lease){
            .iface = g_strdup(def->bridge ? def->bridge : ""),
            .expiry = l->expiry,
            .type = l->ipv6 ? ADDRESS_IPV6 : ADDRESS_IPV4,
            .mac = maybe(&l->mac),
            .iaid = maybe(&l->iaid),
            .address = g_steal_pointer(&l->address),
            .prefix = l->prefix,
            .hostname = maybe(&l->hostname),
            .client_id = maybe(&l->client_id),
        };
    }
    network_def_free(def);
    return true;
}

/* ---- changing ---- */

static bool define(const char *xml, rpc_network_ret *ret, GError **error)
{
    struct network_def *def = network_parse(xml, error);
    bool known = def && network_find(def->name);
    struct network *net = def ? network_add(def, false, error) : NULL;
    if (!net) {
        return false;
    }
    if (!network_save(net, error)) {
        if (!known) {
            network_remove(net);
        }
        return false;
    }
    net->persistent = true;
    network_event(net, NETWORK_DEFINED);
    put(&ret->net, net);
    return true;
}

bool verb_network_define_xml(struct call *call, const rpc_text *args, rpc_network_ret *ret,
                             GError **error)
{
    (void)call;
    return define(args->text, ret, error);
}

bool verb_network_define_xml_flags(struct call *call, const rpc_text_flags *args,
                                   rpc_network_ret *ret, GError **error)
{
    (void)call;
    return flags_check(args->flags, DEFINE_VALIDATE, error) && define(args->text, ret, error);
}

static bool create_xml(const char *xml, rpc_network_ret *ret, GError **error)
{
    struct network_def *def = network_parse(xml, error);
    struct network *net = def ? network_add(def, true, error) : NULL;
    if (!net || !network_change(net, error)) {
        return false;
    }
    bool ok = !net->active;
    if (!ok) {
        libvirt_error(error, ERR_OPERATION_INVALID, "network is already active as '%s'",
                      net->def->name);
    } else {
        ok = network_start(net, error);
    }
    if (ok) {
        network_event(net, NETWORK_STARTED);
        put(&ret->net, net);
    } else if (!net->persistent && !net->active) {
        network_remove(net);
    }
    network_changed(net);
    return ok;
}

bool verb_network_create_xml(struct call *call, const rpc_text *args, rpc_network_ret *ret,
                             GError **error)
{
    (void)call;
    return create_xml(args->text, ret, error);
}

bool verb_network_create_xml_flags(struct call *call, const rpc_text_flags *args,
                                   rpc_network_ret *ret, GError **error)
{
    (void)call;
    return flags_check(args->flags, DEFINE_VALIDATE, error) && create_xml(args->text, ret, error);
}

bool verb_network_create(struct call *call, const rpc_network_args *args, rpc_none *ret,
                         GError **error)
{
    (void)call;
    (void)ret;
    struct network *net = get(&args->net, error);
    if (!net || !network_change(net, error)) {
        return false;
    }
    bool ok = !net->active;
    if (!ok) {
        libvirt_error(error, ERR_OPERATION_INVALID, "network is already active");
    } else {
        ok = network_start(net, error);
    }
    if (ok) {
        network_event(net, NETWORK_STARTED);
    }
    network_changed(net);
    return ok;
}

static bool active_check(const struct network *net, GError **error)
{
    if (!net->active) {
        libvirt_error(error, ERR_OPERATION_INVALID, "network '%s' is not active", net->def->name);
    }
    return net->active;
}

bool verb_network_destroy(struct call *call, const rpc_network_args *args, rpc_none *ret,
                          GError **error)
{
    (void)call;
    (void)ret;
    struct network *net = get(&args->net, error);
    if (!net || !network_change(net, error)) {
        return false;
    }
    bool ok = active_check(net, error) && network_stop(net, error);
    if (ok) {
        network_event(net, NETWORK_STOPPED);
        if (!net->persistent) {
            network_remove(net);
        }
    }
    network_changed(net);
    return ok;
}

bool verb_network_undefine(struct call *call, const rpc_network_args *args, rpc_none *ret,
                           GError **error)
{
    (void)call;
    (void)ret;
    struct network *net = get(&args->net, error);
    if (!net || !network_change(net, error)) {
        return false;
    }
    bool ok = net->persistent;
    if (!ok) {
        libvirt_error(error, ERR_OPERATION_INVALID, "can't undefine transient network");
    } else {
        ok = network_forget_files(net, error);
    }
    if (ok) { /* one that runs does so until it is stopped */
        network_event(net, NETWORK_UNDEFINED);
        network_def_free(g_steal_pointer(&net->next));
        if (!net->active) {
            network_remove(net);
        }
    }
    network_changed(net);
    return ok;
}

/* A copy of @def with the change made; NULL with an error. */
static struct network_def *updated(const struct network_def *def,
                                   const rpc_network_update_args *args, GError **error)
{
    struct network_def *copy = network_def_copy(def);
    if (!network_update(copy, args->command, args->section, args->parent, args->xml, error)) {
        network_def_free(copy);
        return NULL;
    }
    return copy;
}

static bool update(struct network *net, const rpc_network_update_args *args, bool live, bool config,
                   GError **error)
{
    struct network_def *now = NULL, *later = NULL;
    bool ok = (!live || (now = updated(net->def, args, error))) &&
              (!config || (later = updated(network_lasting(net), args, error))) &&
              (!live || network_apply(net, now, error));
    if (!ok) {
        network_def_free(now);
        network_def_free(later);
        return false;
    }
    if (config) {
        struct network_def **place = net->active ? &net->next : &net->def;
        network_def_free(*place);
        *place = later;
        ok = network_save(net, error);
    }
    return ok;
}

bool verb_network_update(struct call *call, const rpc_network_update_args *args, rpc_none *ret,
                         GError **error)
{
    (void)call;
    (void)ret;
    struct network *net = get(&args->net, error);
    if (!net || !flags_check(args->flags, UPDATE_LIVE | UPDATE_CONFIG, error) ||
        !network_change(net, error)) {
        return false;
    }
    bool live = args->flags & UPDATE_LIVE || (!args->flags && net->active);
    bool config = args->flags & UPDATE_CONFIG || (!args->flags && !net->active);
    bool ok = true;
    if (live && !net->active) {
        libvirt_error(error, ERR_OPERATION_INVALID, "network is not running");
        ok = false;
    } else if (config && !net->persistent) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "cannot change persistent config of a transient network");
        ok = false;
    }
    ok = ok && update(net, args, live, config, error);
    network_changed(net);
    return ok;
}
