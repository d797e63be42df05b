/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Verbs of networks. */
#include "manage/daemon/network.h"
#include "manage/daemon/network_parts.h"
#include "manage/daemon/verb.h"
#include "manage/model/pool.h"

#include <string.h>

enum {
    XML_INACTIVE = 1,
    UPDATE_LIVE = 1,
    UPDATE_CONFIG = 2,
    ADDRESS_IPV4 = 0,
    ADDRESS_IPV6 = 1,
};

static struct network *get(const rpc_network *id, GError **error)
{
    return managed_by_uuid(&network_kind, id->uuid, id->name, error);
}

MANAGED_VERBS(&network_kind, network, networks, rpc_network, net)

/* ---- looking ---- */

bool verb_network_get_xml_desc(struct call *call, const rpc_network_flags *args, rpc_text *ret,
                               GError **error)
{
    (void)call;
    const struct network *net = get(&args->net, error);
    if (!net) {
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
    if (!net) {
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
    if (!def || !daemon_take_turn(network_kind.turn, error)) {
        network_def_free(def);
        return false;
    }
    const struct network *net = network_define(def, error);
    if (net) {
        network_event(net, NETWORK_DEFINED);
        managed_put(&network_kind, &ret->net, net);
    }
    daemon_end_turn(network_kind.turn);
    return net;
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
    return define(args->text, ret, error);
}

/* Nobody changes the network of that name, if there is one. */
static bool settled(const char *name, GError **error)
{
    struct network *net = network_find(name);
    if (!net || !net->changing) {
        return true;
    }
    if (!network_change(net, error)) {
        return false;
    }
    network_changed(net);
    return true;
}

static bool create_xml(const char *xml, rpc_network_ret *ret, GError **error)
{
    struct network_def *def = network_parse(xml, error);
    if (!def || !settled(def->name, error) || !daemon_take_turn(network_kind.turn, error)) {
        network_def_free(def);
        return false;
    }
    struct network *net = network_add(def, true, error);
    daemon_end_turn(network_kind.turn);
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
        managed_put(&network_kind, &ret->net, net);
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
    return create_xml(args->text, ret, error);
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

static bool forget(struct network *net, GError **error)
{
    if (!net->persistent) {
        libvirt_error(error, ERR_OPERATION_INVALID, "can't undefine transient network");
        return false;
    }
    if (!network_forget_files(net, error)) {
        return false;
    }
    network_event(net, NETWORK_UNDEFINED); /* one that runs does so until it is stopped */
    network_def_free(g_steal_pointer(&net->next));
    if (!net->active) {
        network_remove(net);
    }
    return true;
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
    bool ok = daemon_take_turn(network_kind.turn, error);
    if (ok) {
        ok = forget(net, error);
        daemon_end_turn(network_kind.turn);
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
        struct network_def *before = *place;
        *place = later;
        ok = network_save(net, error);
        if (!ok) {
            *place = before;
        }
        network_def_free(ok ? before : later);
    }
    return ok;
}

bool verb_network_update(struct call *call, const rpc_network_update_args *args, rpc_none *ret,
                         GError **error)
{
    (void)call;
    (void)ret;
    struct network *net = get(&args->net, error);
    if (!net || !network_change(net, error)) {
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
    ok = ok && daemon_take_turn(network_kind.turn, error);
    if (ok) {
        ok = update(net, args, live, config, error);
        daemon_end_turn(network_kind.turn);
    }
    network_changed(net);
    return ok;
}

/* ---- ports ---- */

static void port_put(const struct network *net, const struct net_port *port, rpc_network_port *out)
{
    managed_put(&network_kind, &out->net, net);
    uuid_bytes(port->uuid, (uint8_t *)out->uuid);
}

static struct net_port *port_get(const struct network *net, const char *uuid, GError **error)
{
    g_autofree char *text = uuid_text((const uint8_t *)uuid);
    struct net_port *port = net ? network_port_find(net, text) : NULL;
    if (net && !port) {
        libvirt_error(error, ERR_NO_NETWORK_PORT, "no network port with matching uuid '%s'", text);
    }
    return port;
}

bool verb_network_list_all_ports(struct call *call, const rpc_network_list_args *args,
                                 rpc_network_ports *ret, GError **error)
{
    (void)call;
    const struct network *net = get(&args->net, error);
    if (!net) {
        return false;
    }
    ret->count = net->ports->len;
    ret->items.items_len = args->need_results ? net->ports->len : 0;
    ret->items.items_val = g_new0(rpc_network_port, ret->items.items_len);
    for (unsigned i = 0; i < ret->items.items_len; i++) {
        port_put(net, net->ports->pdata[i], &ret->items.items_val[i]);
    }
    return true;
}

bool verb_network_port_lookup_by_uuid(struct call *call, const rpc_network_port_args *args,
                                      rpc_network_port_ret *ret, GError **error)
{
    (void)call;
    const struct network *net = get(&args->net, error);
    const struct net_port *port = port_get(net, args->uuid, error);
    if (port) {
        port_put(net, port, &ret->port);
    }
    return port;
}

bool verb_network_port_create_xml(struct call *call, const rpc_network_text_flags *args,
                                  rpc_network_port_ret *ret, GError **error)
{
    (void)call;
    struct network *net = get(&args->net, error);
    if (!net || !network_change(net, error)) {
        return false;
    }
    struct net_port *port = net_port_parse(args->text, error);
    bool ok = port && network_port_add(net, port, error);
    if (ok) {
        port_put(net, port, &ret->port);
    }
    network_changed(net);
    return ok;
}

bool verb_network_port_get_xml_desc(struct call *call, const rpc_network_port_flags *args,
                                    rpc_text *ret, GError **error)
{
    (void)call;
    const struct network *net = get(&args->port.net, error);
    const struct net_port *port = port_get(net, args->port.uuid, error);
    if (!port) {
        return false;
    }
    ret->text = net_port_format(port);
    return true;
}

bool verb_network_port_delete(struct call *call, const rpc_network_port_flags *args, rpc_none *ret,
                              GError **error)
{
    (void)call;
    (void)ret;
    struct network *net = get(&args->port.net, error);
    if (!net || !network_change(net, error)) {
        return false;
    }
    const struct net_port *port = port_get(net, args->port.uuid, error);
    bool found = port;
    if (found) {
        g_autofree char *uuid = g_strdup(port->uuid);
        network_port_remove(net, uuid);
    }
    network_changed(net);
    return found;
}
