/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a machine takes of the host: network interfaces, ports for viewers. */
#include "manage/daemon/machine.h"

#include "base/util.h"
#include "manage/daemon/network.h"
#include "manage/daemon/port_guard.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

enum { VNC_FIRST = 5900, VNC_PORTS = 10000 };

/* <vlan> of the interface itself, as the network rooms know it. */
static void vlan_of(const struct domain_interface *nic, struct net_vlan *vlan)
{
    vlan->trunk = nic->vlan_trunk;
    for (unsigned i = 0; i < xml_count(nic->tags); i++) {
        const struct vlan_tag *tag = nic->tags->pdata[i];
        struct net_tag *copy = g_new0(struct net_tag, 1);
        copy->id = tag->id;
        copy->native = g_strdup(tag->native == 2 ? "untagged" : tag->native ? "tagged" : NULL);
        xml_append(NULL, &vlan->tags, copy);
    }
}

static void vlan_clear(struct net_vlan *vlan)
{
    for (unsigned i = 0; i < xml_count(vlan->tags); i++) {
        struct net_tag *tag = vlan->tags->pdata[i];
        g_free(tag->native);
        g_free(tag);
    }
    g_clear_pointer(&vlan->tags, g_ptr_array_unref);
}

static void mac_bytes(const char *text, uint8_t mac[6])
{
    for (unsigned i = 0; i < 6; i++) {
        mac[i] = (uint8_t)strtoul(text + 3 * i, NULL, 16);
    }
}

static const char *const direct_modes[] = {NULL, "vepa", "bridge", "private", "passthrough"};

static struct port_want want_of(const struct machine *m, const struct domain_interface *nic,
                                const struct net_vlan *vlan)
{
    struct port_want want = {
        .owner = m->def->name,
        .owner_uuid = m->def->uuid,
        .network = nic->type == IFACE_NETWORK ? nic->network : NULL,
        .portgroup = nic->portgroup,
        .bridge = nic->type == IFACE_BRIDGE ? nic->bridge : NULL,
        .lower = nic->type == IFACE_DIRECT ? nic->dev : NULL,
        .mode = nic->type == IFACE_DIRECT ? direct_modes[nic->mode ? nic->mode : 1] : NULL,
        .device = nic->target,
        .ethernet = nic->type == IFACE_ETHERNET,
        .theirs = nic->target_managed == TRI_NO,
        .vnet_header = true,
        .queues = nic->queues > 0 ? (unsigned)nic->queues : 1,
        .mtu = nic->mtu > 0 ? (unsigned)nic->mtu : 0,
        .vlan = nic->tags ? vlan : NULL,
        .isolated = nic->isolated,
    };
    mac_bytes(nic->mac, want.mac);
    return want;
}

static void set_text(char **to, const char *text)
{
    g_free(*to);
    *to = *text ? g_strdup(text) : NULL;
}

/* What a network has decided for its interface is told with what runs. */
static void tell_place(struct domain_interface *nic, const struct port *port)
{
    if (nic->type != IFACE_NETWORK) {
        return;
    }
    set_text(&nic->port_id, port->id);
    set_text(&nic->bridge, port->bridge);
    set_text(&nic->dev, port->lower);
    nic->mode = 0;
    for (unsigned i = 1; i < G_N_ELEMENTS(direct_modes); i++) {
        nic->mode = strcmp(port->mode, direct_modes[i]) ? nic->mode : (int)i;
    }
}

static bool open_wires(struct machine *m, struct domain_interface *nic, GArray *fds, GError **error)
{
    struct net_vlan vlan = {0};
    struct port port = {0};
    vlan_of(nic, &vlan);
    struct port_want want = want_of(m, nic, &vlan);
    bool ok = port_attach(&want, &port, error);
    vlan_clear(&vlan);
    if (!ok) {
        return false;
    }
    set_text(&nic->target, port.device);
    tell_place(nic, &port);
    if (nic->mtu == XML_ABSENT && port.mtu) { /* the network's, which the guest is to know */
        nic->mtu = port.mtu;
    }
    g_array_append_vals(fds, port.fds, port.queues);
    port.queues = 0; /* the descriptors are the caller's now */
    port_clear(&port);
    return true;
}

/* <ip> and <portForward> of a user network. */
static void user_options(const struct domain_interface *nic, json_t *o)
{
    json_t *forwards = json_array();
    for (unsigned i = 0; i < xml_count(nic->ips); i++) {
        const struct interface_ip *ip = nic->ips->pdata[i];
        bool six = strchr(ip->address, ':');
        g_autofree char *net = g_strdup_printf("%s/%ld", ip->address,
                                               ip->prefix != XML_ABSENT ? (long)ip->prefix
                                               : six                    ? 64L
                                                                        : 24L);
        json_object_set_new(o, six ? "ipv6-net" : "net", json_string(net));
    }
    for (unsigned i = 0; i < xml_count(nic->forwards); i++) {
        const struct port_forward *f = nic->forwards->pdata[i];
        for (unsigned k = 0; k < xml_count(f->ranges); k++) {
            const struct port_range *r = f->ranges->pdata[k];
            int64_t end = r->end == XML_ABSENT ? r->start : r->end;
            int64_t to = r->to == XML_ABSENT ? r->start : r->to;
            for (int64_t p = r->start; p <= end; p++) {
                g_autofree char *rule = g_strdup_printf(
                    "%s:%s:%ld-:%ld", f->proto == 1 ? "tcp" : "udp", f->address ? f->address : "",
                    (long)p, (long)(to + p - r->start));
                json_array_append_new(forwards, json_pack("{s:s}", "str", rule));
            }
        }
    }
    if (json_array_size(forwards)) {
        json_object_set(o, "hostfwd", forwards);
    }
    json_decref(forwards);
}

json_t *machine_netdev(struct machine *m, struct domain_interface *nic, GArray *fds, GError **error)
{
    g_autofree char *id = g_strconcat("host", nic->alias, NULL);
    bool user = nic->type == IFACE_USER;
    if (!user && !open_wires(m, nic, fds, error)) {
        return NULL;
    }
    json_t *o = json_pack("{s:s, s:s}", "type", user ? "user" : "tap", "id", id);
    if (user) {
        user_options(nic, o);
    }
    return o;
}

bool machine_net_link(struct machine *m, const struct domain_interface *nic, GError **error)
{
    g_autofree char *id = g_strconcat("host", nic->alias, NULL);
    return qmp_do(m->qmp, error, "set_link", "{s:s, s:b}", "name", id, "up",
                  nic->link != LINK_DOWN);
}

static bool on_bridge(const struct domain_interface *nic)
{
    return nic->type == IFACE_BRIDGE || (nic->type == IFACE_NETWORK && nic->bridge);
}

bool machine_net_move(struct machine *m, struct domain_interface *nic,
                      struct domain_interface *wanted, GError **error)
{
    struct net_vlan vlan = {0};
    struct port port;
    if (!on_bridge(nic) || (wanted->type != IFACE_NETWORK && wanted->type != IFACE_BRIDGE)) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "only an interface on a bridge can be moved, and to another bridge");
        return false;
    }
    vlan_of(wanted, &vlan);
    struct port_want want = want_of(m, wanted, &vlan);
    mac_bytes(nic->mac, want.mac);
    bool ok = port_move(nic->target, &want, &port, error);
    vlan_clear(&vlan);
    if (!ok) {
        return false;
    }
    if (nic->port_id) {
        network_port_remove(network_find(nic->network), nic->port_id);
    }
    set_text(&nic->network, wanted->type == IFACE_NETWORK ? wanted->network : "");
    set_text(&nic->portgroup, wanted->portgroup ? wanted->portgroup : "");
    set_text(&nic->port_id, "");
    set_text(&nic->bridge, port.bridge);
    GPtrArray *tags = nic->tags; /* the caller frees what was */
    nic->tags = wanted->tags;
    wanted->tags = tags;
    nic->vlan_trunk = wanted->vlan_trunk;
    nic->isolated = wanted->isolated;
    nic->type = wanted->type;
    tell_place(nic, &port);
    return true;
}

static bool is_macvtap(const struct domain_interface *nic)
{
    return nic->type == IFACE_DIRECT || (nic->type == IFACE_NETWORK && nic->target && !nic->bridge);
}

static bool guarded(const struct domain_interface *nic)
{
    return nic->inbound || nic->outbound || nic->filter;
}

/* What its network's port group says of bandwidth, where the interface says nothing itself. */
static void limits_of(const struct domain_interface *nic, struct port_guard *guard)
{
    const struct network *net = nic->type == IFACE_NETWORK ? network_find(nic->network) : NULL;
    const struct net_portgroup *group = net ? network_portgroup(net->def, nic->portgroup) : NULL;
    bool own = nic->inbound || nic->outbound || !group;
    guard->inbound = own ? nic->inbound : group->inbound;
    guard->outbound = own ? nic->outbound : group->outbound;
}

bool machine_net_guard(const struct domain_interface *nic, GError **error)
{
    struct port_guard guard = {0};
    limits_of(nic, &guard);
    return (!guard.inbound && !guard.outbound && !nic->filter) ||
           machine_net_guard_anew(nic, error);
}

bool machine_net_guard_anew(const struct domain_interface *nic, GError **error)
{
    if (!card_can_be(nic, error)) {
        return false;
    }
    if (!nic->target) {
        return true; /* a user network's has nothing that could be guarded, and no wish */
    }
    struct port_guard guard = {.device = nic->target};
    limits_of(nic, &guard);
    bool swapped = is_macvtap(nic);
    if (nic->filter && swapped) { /* of a network of macvtaps */
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "<filterref> is not supported with macvtap");
        return false;
    }
    if (nic->filter && !(guard.filter = filter_rules(nic->target, nic, error))) {
        return false;
    }
    struct bandwidth in, out; /* the definition may change while the lock is away */
    g_autofree char *device = g_strdup(nic->target);
    guard.device = device;
    if (guard.inbound) {
        in = *guard.inbound;
        guard.inbound = &in;
    }
    if (guard.outbound) {
        out = *guard.outbound;
        guard.outbound = &out;
    }
    if (swapped) { /* what leaves a macvtap's device comes from the machine */
        const struct bandwidth *inbound = guard.inbound;
        guard.inbound = guard.outbound;
        guard.outbound = inbound;
    }
    daemon_unlock();
    bool ok = port_guard(&guard, error);
    daemon_lock();
    json_decref(guard.filter);
    return ok;
}

void machine_nic_close(const struct domain_interface *nic)
{
    struct port_guard limits = {0};
    limits_of(nic, &limits);
    if (nic->target && (guarded(nic) || limits.inbound || limits.outbound)) {
        port_unguard(nic->target);
    }
    if (nic->type != IFACE_USER && nic->target && nic->target_managed != TRI_NO) {
        port_detach(nic->target);
    }
    if (nic->port_id) {
        network_port_remove(network_find(nic->network), nic->port_id);
    }
}

void machine_net_close(const DomainDef *def)
{
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        machine_nic_close(def->interfaces->pdata[i]);
    }
}

static bool port_free(const char *address, int port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, address, &in.sin_addr) != 1) {
        in.sin_addr.s_addr = htonl(INADDR_ANY);
    }
    autofd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    return fd >= 0 && bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0;
}

/* Two machines that start at once must not get the same port. */
static int take_port(const char *address)
{
    static int next = VNC_FIRST;
    for (int i = 0; i < VNC_PORTS; i++) {
        int port = next;
        next = next + 1 < VNC_FIRST + VNC_PORTS ? next + 1 : VNC_FIRST;
        if (port_free(address, port)) {
            return port;
        }
    }
    return -1;
}

/* The host's address in a network. */
static bool listen_on_network(struct domain_graphics *g, struct graphics_listen *listen,
                              GError **error)
{
    const char *name = listen->network ? listen->network : "";
    const struct network *net = network_find(name);
    const struct net_ip *ip = net && xml_count(net->def->ips) ? net->def->ips->pdata[0] : NULL;
    if (!net) {
        libvirt_error(error, ERR_NO_NETWORK,
                      "Network not found: no network with matching name '%s'", name);
    } else if (!net->active || !ip) {
        libvirt_error(error, ERR_INTERNAL, "network '%s' %s", name,
                      ip ? "is not active" : "has no address for graphics to listen on");
    } else {
        g_free(g->listen);
        g_free(listen->address);
        g->listen = g_strdup(ip->address);
        listen->address = g_strdup(ip->address);
        return true;
    }
    return false;
}

char *machine_vnc_address(struct machine *m, struct domain_graphics *g, GError **error)
{
    struct graphics_listen *first = g->listens ? g->listens->pdata[0] : NULL;
    if (g->socket || (first && (first->type == LISTEN_SOCKET || first->type == LISTEN_NONE))) {
        if (!g->socket && first->socket) {
            g->socket = g_strdup(first->socket);
        }
        if (!g->socket) {
            g->socket = g_build_filename(m->folder, "vnc.sock", NULL);
            g_free(first->socket);
            first->socket = first->type == LISTEN_SOCKET ? g_strdup(g->socket) : NULL;
        }
        return g_strdup_printf("unix:%s", g->socket);
    }
    if (first && first->type == LISTEN_NETWORK && !listen_on_network(g, first, error)) {
        return NULL;
    }
    if (!g->listen) {
        g->listen = g_strdup("127.0.0.1");
    }
    if (first && !first->address) {
        first->address = g_strdup(g->listen);
    }
    if (g->port < 0) {
        g->port = take_port(g->listen);
    }
    if (g->port < VNC_FIRST) {
        libvirt_error(error, ERR_INTERNAL, "Unable to find an unused port in range 'VNC' (%d-%d)",
                      VNC_FIRST, VNC_FIRST + VNC_PORTS - 1);
        return NULL;
    }
    bool six = strchr(g->listen, ':') != NULL;
    return g_strdup_printf("%s%s%s:%ld", six ? "[" : "", g->listen, six ? "]" : "",
                           (long)g->port - VNC_FIRST);
}
