/* SPDX-License-Identifier: GPL-2.0-or-later */

/* network_port: taps and macvtaps, by which machines reach networks. */
#include "manage/daemon/netlink.h"
#include "manage/daemon/network.h"
#include "manage/error.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Everything that port, portgroup and network say, in one. */
struct plan {
    struct network *net; /* or NULL */
    const char *bridge, *lower, *mode;
    const struct net_vlan *vlan;
    bool isolated;
    unsigned mtu;
};

static bool plan_network(const struct port_want *want, struct plan *plan, GError **error)
{
    struct network *net = network_find(want->network);
    if (!net) {
        libvirt_error(error, ERR_NO_NETWORK, "no network with matching name '%s'", want->network);
        return false;
    }
    const struct network_def *def = net->def;
    if (!net->active) {
        libvirt_error(error, ERR_OPERATION_INVALID, "network '%s' is not active", want->network);
        return false;
    }
    const struct net_portgroup *group = network_portgroup(def, want->portgroup);
    if (want->portgroup && !group) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "network '%s' has no portgroup '%s'",
                      want->network, want->portgroup);
        return false;
    }
    plan->net = net;
    if (def->bridge) {
        plan->bridge = def->bridge;
    } else {
        plan->lower = network_port_device(net, error);
        plan->mode = forward_mode_names[def->mode];
    }
    plan->vlan = group && group->vlan ? group->vlan : def->vlan;
    plan->isolated = def->isolated == TRI_YES;
    plan->mtu = def->mtu == XML_ABSENT ? 0 : (unsigned)def->mtu;
    return plan->bridge || plan->lower;
}

static bool make_plan(const struct port_want *want, struct plan *plan, GError **error)
{
    *plan = (struct plan){
        .bridge = want->bridge, .lower = want->lower, .mode = want->mode ? want->mode : "vepa"};
    if (want->network && !plan_network(want, plan, error)) {
        return false;
    }
    plan->vlan = want->vlan ? want->vlan : plan->vlan;
    plan->isolated = want->isolated ? want->isolated == TRI_YES : plan->isolated;
    plan->mtu = want->mtu ? want->mtu : plan->mtu;
    if (plan->bridge && !link_is_bridge(plan->bridge, NULL)) {
        libvirt_error(error, ERR_OPERATION_FAILED, "there is no bridge '%s'", plan->bridge);
        return false;
    }
    if (want->ethernet) {
        return true;
    }
    if (!plan->bridge && (plan->vlan || plan->isolated)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "<%s> needs a bridge",
                      plan->vlan ? "vlan" : "port");
        return false;
    }
    return true;
}

/* Of several tags, or of a trunk, frames come and go tagged, but for the one that is native. */
static bool put_vlan(const char *device, const struct plan *plan, GError **error)
{
    const struct net_vlan *vlan = plan->vlan;
    bool vlans;
    if (!link_is_bridge(plan->bridge, &vlans) || !vlans) {
        libvirt_error(error, ERR_OPERATION_FAILED,
                      "bridge '%s' does not tell VLANs apart (vlan_filtering is off)",
                      plan->bridge);
        return false;
    }
    bool ok = port_vlan_remove(device, 1, error);
    bool single = vlan->tags->len == 1 && vlan->trunk != TRI_YES;
    for (unsigned i = 0; ok && i < vlan->tags->len; i++) {
        const struct net_tag *tag = vlan->tags->pdata[i];
        ok = port_vlan_add(device, (unsigned)tag->id, single || !g_strcmp0(tag->native, "untagged"),
                           error);
    }
    return ok;
}

/* The host's end must not look like the guest's own, nor become the bridge's address: the
 * bridge takes the lowest of its ports'. */
static bool put_mac(const char *device, const uint8_t mac[6], GError **error)
{
    uint8_t own[6];
    memcpy(own, mac, sizeof(own));
    own[0] = 0xfe;
    return link_set_mac(device, own, error);
}

static char *mac_text(const uint8_t m[6])
{
    return g_strdup_printf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
}

static bool plug_in(const char *device, const struct plan *plan, GError **error)
{
    return (!plan->mtu || link_set_mtu(device, plan->mtu, error)) &&
           link_set_master(device, plan->bridge, error) &&
           (!plan->vlan || put_vlan(device, plan, error)) &&
           (!plan->isolated || port_isolate(device, error));
}

static bool wire(const char *device, const struct port_want *want, const struct plan *plan,
                 GError **error)
{
    return put_mac(device, want->mac, error) &&
           (want->ethernet ? !plan->mtu || link_set_mtu(device, plan->mtu, error)
                           : plug_in(device, plan, error)) &&
           link_up(device, error);
}

/* Somebody else's tap or macvtap: opened and otherwise left as it is. */
static bool attach_theirs(const struct port_want *want, struct port *out, GError **error)
{
    g_autofree char *macvtap = g_strdup_printf("/sys/class/net/%s/macvtap", want->device);
    bool is_macvtap = g_file_test(macvtap, G_FILE_TEST_IS_DIR);
    if (!link_index(want->device)) {
        libvirt_error(error, ERR_OPERATION_FAILED, "target device '%s' does not exist",
                      want->device);
        return false;
    }
    g_strlcpy(out->device, want->device, sizeof(out->device));
    for (; out->queues < MAX(want->queues, 1); out->queues++) {
        int fd = is_macvtap ? macvtap_open(want->device, want->vnet_header, error)
                            : tap_open(want->device, want->vnet_header, want->queues > 1,
                                       out->device, error);
        if (fd < 0) {
            return false;
        }
        out->fds[out->queues] = fd;
    }
    return true;
}

static bool attach_tap(const struct port_want *want, const struct plan *plan, struct port *out,
                       GError **error)
{
    const char *name = want->device ? want->device : "vnet%d";
    for (; out->queues < MAX(want->queues, 1); out->queues++) {
        int fd = tap_open(name, want->vnet_header, want->queues > 1, out->device, error);
        if (fd < 0) {
            return false;
        }
        out->fds[out->queues] = fd;
        name = out->device;
    }
    g_strlcpy(out->bridge, plan->bridge ? plan->bridge : "", sizeof(out->bridge));
    return wire(out->device, want, plan, error);
}

static bool attach_macvtap(const struct port_want *want, const struct plan *plan, struct port *out,
                           GError **error)
{
    enum { NAMES_MAX = 8192 };
    g_autofree char *name = g_strdup(want->device);
    for (unsigned i = 0; !name && i < NAMES_MAX; i++) {
        name = g_strdup_printf("macvtap%u", i);
        if (link_index(name)) {
            g_clear_pointer(&name, g_free);
        }
    }
    if (!macvtap_create(name, plan->lower, plan->mode, want->mac, error)) {
        return false;
    }
    g_strlcpy(out->device, name, sizeof(out->device));
    g_strlcpy(out->mode, plan->mode, sizeof(out->mode));
    g_strlcpy(out->lower, plan->lower, sizeof(out->lower));
    for (; out->queues < MAX(want->queues, 1); out->queues++) {
        int fd = macvtap_open(name, want->vnet_header, error);
        if (fd < 0) {
            return false;
        }
        out->fds[out->queues] = fd;
    }
    return link_up(name, error);
}

static struct net_vlan *vlan_copy(const struct net_vlan *vlan)
{
    return vlan ? xml_copy(&net_vlan_table, vlan) : NULL;
}

/* The network knows whom it has there. */
static bool enter(const struct port_want *want, const struct plan *plan, struct port *out,
                  GError **error)
{
    if (!plan->net || !want->owner) {
        return true;
    }
    struct net_port *port = net_port_new();
    port->uuid = g_uuid_string_random();
    port->owner = g_strdup(want->owner);
    port->owner_uuid = g_strdup(want->owner_uuid);
    port->group = g_strdup(want->portgroup);
    port->mac = mac_text(want->mac);
    port->vlan = vlan_copy(plan->vlan);
    port->isolated = plan->isolated ? TRI_YES : TRI_ABSENT;
    g_strlcpy(out->id, port->uuid, sizeof(out->id));
    if (!network_port_add(plan->net, port, error)) {
        out->id[0] = '\0';
        return false;
    }
    return true;
}

bool port_attach(const struct port_want *want, struct port *out, GError **error)
{
    struct plan plan;
    *out = (struct port){0};
    if (!make_plan(want, &plan, error)) {
        return false;
    }
    out->fds = g_new(int, MAX(MIN(want->queues, PORT_QUEUES_MAX), 1));
    out->mtu = plan.mtu;
    if (want->queues > PORT_QUEUES_MAX) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "%u queues: at most %d", want->queues,
                      PORT_QUEUES_MAX);
    } else if ((want->theirs                    ? attach_theirs(want, out, error)
                : plan.bridge || want->ethernet ? attach_tap(want, &plan, out, error)
                                                : attach_macvtap(want, &plan, out, error)) &&
               enter(want, &plan, out, error)) {
        return true;
    }
    bool macvtap = out->mode[0];
    g_autofree char *device = g_strdup(out->device);
    port_clear(out);
    if (macvtap) {
        port_detach(device);
    }
    return false;
}

void port_detach(const char *device)
{
    if (*device && link_index(device)) { /* a tap went with its last descriptor */
        link_delete(device, NULL);
    }
}

bool port_move(const char *device, const struct port_want *want, struct port *out, GError **error)
{
    struct plan plan;
    *out = (struct port){0};
    if (!make_plan(want, &plan, error)) {
        return false;
    }
    if (!plan.bridge) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "%s can only be moved to a bridge", device);
        return false;
    }
    g_strlcpy(out->bridge, plan.bridge, sizeof(out->bridge));
    /* Off the bridge it loses what it was there: tags, isolation. */
    return link_set_master(device, NULL, error) && plug_in(device, &plan, error) &&
           enter(want, &plan, out, error);
}

void port_clear(struct port *port)
{
    for (unsigned i = 0; i < port->queues; i++) {
        close(port->fds[i]);
    }
    g_free(port->fds);
    *port = (struct port){0};
}
