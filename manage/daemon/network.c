/* SPDX-License-Identifier: GPL-2.0-or-later */

/* network: the list of networks, what lasts of them, and their starting and stopping. */
#include "manage/daemon/network.h"

#include "manage/daemon/netlink.h"
#include "manage/daemon/network_parts.h"
#include "manage/daemon/poller.h"
#include "manage/daemon/port_guard.h"
#include "manage/daemon/verb.h"
#include "manage/model/pool.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { CHANGE_WAIT = 30 }; /* seconds until a second change gives up */

GPtrArray *networks;

/* ---- the list ---- */

static void network_unref(struct network *net)
{
    if (!--net->refs) {
        network_def_free(net->def);
        network_def_free(net->next);
        g_ptr_array_unref(net->ports);
        g_free(net);
    }
}

static struct traits traits(const void *thing)
{
    const struct network *net = thing;
    return (struct traits){.name = net->def->name,
                           .uuid = net->def->uuid,
                           .active = net->active,
                           .persistent = net->persistent,
                           .autostart = net->autostart};
}

static bool turn;
const struct managed_kind network_kind = {.noun = "network",
                                          .word = "network",
                                          .missing = ERR_NO_NETWORK,
                                          .folder = "qemu/networks",
                                          .all = &networks,
                                          .traits = traits,
                                          .turn = &turn};

struct network *network_find(const char *name)
{
    return managed_find(&network_kind, name);
}

/* Another network that has the bridge. */
static const struct network *bridge_owner(const char *bridge, const struct network *but)
{
    for (unsigned i = 0; i < networks->len; i++) {
        const struct network *net = networks->pdata[i];
        if (net != but && network_has_own_bridge(net->def) &&
            !g_strcmp0(net->def->bridge, bridge)) {
            return net;
        }
    }
    return NULL;
}

/* A name for the bridge of a network that does not say one, or has a '%d' in it. */
static bool choose_bridge(struct network_def *def, const struct network *own, GError **error)
{
    enum { BRIDGES_MAX = 1000 };
    const char *percent = def->bridge ? strstr(def->bridge, "%d") : NULL;
    if (!network_has_own_bridge(def) || (def->bridge && !percent)) {
        return true;
    }
    for (unsigned i = 0; i < BRIDGES_MAX; i++) {
        g_autofree char *name = def->bridge
                                    ? g_strdup_printf("%.*s%u%s", (int)(percent - def->bridge),
                                                      def->bridge, i, percent + 2)
                                    : g_strdup_printf("virbr%u", i);
        if (strlen(name) < IFNAMSIZ && !bridge_owner(name, own) && !link_index(name)) {
            g_free(def->bridge);
            def->bridge = g_steal_pointer(&name);
            return true;
        }
    }
    libvirt_error(error, ERR_INTERNAL, "Bridge generation exceeded max id %d", BRIDGES_MAX);
    return false;
}

static bool may_add(struct network_def *def, bool transient, GError **error)
{
    const struct network *named = network_find(def->name);
    if (!managed_may_add(&network_kind, def->name, def->uuid, transient, error)) {
        return false;
    }
    if (!choose_bridge(def, named, error)) {
        return false;
    }
    if (network_has_own_bridge(def) && bridge_owner(def->bridge, named)) {
        libvirt_error(error, ERR_INTERNAL, "bridge name '%s' already in use.", def->bridge);
        return false;
    }
    return true;
}

static struct network *network_new(struct network_def *def)
{
    struct network *net = g_new0(struct network, 1);
    net->def = def;
    net->refs = 1;
    net->ports = g_ptr_array_new_with_free_func(net_port_free);
    managed_add(&network_kind, net);
    return net;
}

static void put_lasting(struct network *net, struct network_def *def)
{
    struct network_def **place = net->active || net->changing ? &net->next : &net->def;
    network_def_free(*place);
    *place = def;
}

struct network *network_add(struct network_def *def, bool transient, GError **error)
{
    if (!may_add(def, transient, error)) {
        network_def_free(def);
        return NULL;
    }
    struct network *net = network_find(def->name);
    if (!net) {
        return network_new(def);
    }
    if (!transient) {
        put_lasting(net, def);
    } else if (net->changing) {
        libvirt_error(error, ERR_OPERATION_INVALID, "network '%s' is being changed", def->name);
        network_def_free(def);
        return NULL;
    } else {
        net->next = net->def;
        net->def = def;
    }
    return net;
}

void network_remove(struct network *net)
{
    if (!net->gone) {
        net->gone = true;
        g_ptr_array_remove(networks, net);
        network_unref(net);
    }
}

/* ---- what lasts ---- */

const struct network_def *network_lasting(const struct network *net)
{
    return net->next ? net->next : net->def;
}

bool network_save(const struct network *net, GError **error)
{
    const struct network_def *def = network_lasting(net);
    g_autofree char *text = network_format(def);
    return managed_write(&network_kind, def->name, text, error);
}

/* The disk has not taken what @net was to become: it is what it was, @old, or nothing. */
static void take_back(struct network *net, struct network_def *old)
{
    net->persistent = old;
    if (old) {
        put_lasting(net, old);
    } else if (net->active || net->changing) {
        network_def_free(g_steal_pointer(&net->next));
    } else {
        network_remove(net);
    }
    network_unref(net);
}

struct network *network_define(struct network_def *def, GError **error)
{
    struct network *net = network_find(def->name);
    bool was = net && net->persistent;
    struct network_def *old = was ? network_def_copy(network_lasting(net)) : NULL;
    net = network_add(def, false, error);
    if (net) {
        net->refs++;
        net->persistent = true; /* whoever stops it meanwhile keeps it */
        if (network_save(net, error)) {
            network_unref(net);
        } else {
            take_back(net, g_steal_pointer(&old));
            net = NULL;
        }
    }
    network_def_free(old);
    return net;
}

bool network_set_autostart(struct network *net, bool on, GError **error)
{
    if (!managed_set_autostart(&network_kind, net->def->name, on, error)) {
        return false;
    }
    net->autostart = on;
    return true;
}

bool network_forget_files(struct network *net, GError **error)
{
    if ((net->autostart && !network_set_autostart(net, false, error)) ||
        !managed_unlink(&network_kind, net->def->name, error)) {
        return false;
    }
    net->persistent = false;
    return true;
}

/* That it runs, for the next daemon. */
static void note_running(const struct network *net)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *file = g_strconcat(net->def->name, ".xml", NULL);
    g_autofree char *path = daemon_path_make(DAEMON_RUN, 0755, &error, "network", file, NULL);
    g_autofree char *text = network_format(net->def);
    if (path && !net->active) {
        unlink(path);
    } else if (!path || !daemon_note_file(path, text, &error)) {
        daemon_log("network %s: %s", net->def->name, error->message);
    }
}

void network_event(const struct network *net, int event)
{
    rpc_event_network message = {.net.name = net->def->name, .event = event};
    uuid_bytes(net->def->uuid, (uint8_t *)message.net.uuid);
    event_network_lifecycle(&message);
}

/* ---- jobs ---- */

bool network_change(struct network *net, GError **error)
{
    gint64 end = g_get_monotonic_time() + CHANGE_WAIT * G_USEC_PER_SEC;
    bool in_time = true;
    net->refs++;
    while (in_time && net->changing) {
        in_time = daemon_wait(end);
    }
    if (net->gone) {
        libvirt_error(error, ERR_NO_NETWORK, "no network with matching name '%s'", net->def->name);
    } else if (!in_time) {
        libvirt_error(error, ERR_OPERATION_TIMEOUT, "network '%s' is being changed",
                      net->def->name);
    } else {
        net->changing = true;
        return true;
    }
    network_unref(net);
    return false;
}

static void take_next(struct network *net)
{
    if (net->next && !net->active) {
        network_def_free(net->def);
        net->def = g_steal_pointer(&net->next);
    }
}

void network_changed(struct network *net)
{
    net->changing = false;
    take_next(net);
    network_unref(net);
    daemon_wake();
}

/* ---- the bridge and what hangs on it; without the lock ---- */

static bool write_switch(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

static bool has_ipv6(const struct network_def *def)
{
    bool has = def->ipv6 == TRI_YES;
    for (unsigned i = 0; i < xml_count(def->ips); i++) {
        has |= ((struct net_ip *)def->ips->pdata[i])->af == AF_INET6;
    }
    return has;
}

/* Nobody else may route to the same addresses. */
static bool addresses_free(const struct network_def *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->ips); i++) {
        const struct net_ip *ip = def->ips->pdata[i];
        g_autofree char *device = NULL;
        if (!route_device(ip->af, &ip->binary, ip->bits, &device, error)) {
            return false;
        }
        if (device && strcmp(device, def->bridge)) {
            libvirt_error(error, ERR_INTERNAL, "Network is already in use by interface %s", device);
            return false;
        }
    }
    return true;
}

static bool routing_on(const struct network_def *def, GError **error)
{
    if (def->mode == FORWARD_NONE && !def->forwarded->len) {
        return true;
    }
    bool ok = write_switch("/proc/sys/net/ipv4/ip_forward", "1\n");
    if (ok && has_ipv6(def)) {
        ok = write_switch("/proc/sys/net/ipv6/conf/all/forwarding", "1\n");
    }
    if (!ok) {
        libvirt_error(error, ERR_SYSTEM, "failed to enable IP forwarding: %s", g_strerror(errno));
    }
    return ok;
}

static bool bridge_addresses(const struct network_def *def, GError **error)
{
    if (!has_ipv6(def)) {
        g_autofree char *path =
            g_strdup_printf("/proc/sys/net/ipv6/conf/%s/disable_ipv6", def->bridge);
        write_switch(path, "1\n"); /* a kernel without IPv6 has no such file */
    }
    bool ok = true;
    for (unsigned i = 0; ok && i < xml_count(def->ips); i++) {
        const struct net_ip *ip = def->ips->pdata[i];
        ok = address_add(def->bridge, ip->af, &ip->binary, ip->bits, error);
    }
    ok = ok && link_up(def->bridge, error);
    for (unsigned i = 0; ok && i < xml_count(def->routes); i++) {
        const struct net_route *r = def->routes->pdata[i];
        ok = route_add(def->bridge, r->af, &r->binary, r->bits, &r->via,
                       r->metric == XML_ABSENT ? 0 : (unsigned)r->metric, error);
    }
    return ok;
}

static bool any_vlan(const struct network_def *def)
{
    bool any = def->vlan;
    for (unsigned i = 0; i < xml_count(def->portgroups); i++) {
        any |= ((struct net_portgroup *)def->portgroups->pdata[i])->vlan != NULL;
    }
    return any;
}

static bool bridge_make(const struct network_def *def, GError **error)
{
    struct bridge bridge = {.name = def->bridge,
                            .stp = def->stp == TRI_YES,
                            .delay = (unsigned)def->delay,
                            .vlans = any_vlan(def)};
    mac_parse(def->mac, bridge.mac);
    return bridge_create(&bridge, error) &&
           (def->mtu == XML_ABSENT || link_set_mtu(def->bridge, (unsigned)def->mtu, error));
}

/* Seen from the network: what goes in leaves the bridge's device, towards its ports. */
static bool bridge_guard(const struct network_def *def, GError **error)
{
    struct port_guard guard = {
        .device = def->bridge, .inbound = def->inbound, .outbound = def->outbound};
    return (!def->inbound && !def->outbound) || port_guard(&guard, error);
}

static bool own_start(const struct network_def *def, GError **error)
{
    if (link_index(def->bridge)) {
        libvirt_error(error, ERR_OPERATION_FAILED,
                      "bridge name '%s' is taken: there is a device of that name", def->bridge);
        return false;
    }
    if (!addresses_free(def, error) || !bridge_make(def, error)) {
        return false;
    }
    bool ruled = false;
    bool ok = bridge_addresses(def, error) && routing_on(def, error) &&
              (ruled = rules_put(def, error)) && bridge_guard(def, error) &&
              (!dnsmasq_wanted(def) || dnsmasq_start(def, error));
    if (!ok) {
        if (ruled) {
            rules_drop(def, NULL);
            port_unguard(def->bridge);
        }
        link_delete(def->bridge, NULL);
    }
    return ok;
}

/* What the host must have that is not ours. */
static bool others_start(const struct network_def *def, GError **error)
{
    if (def->bridge && !link_is_bridge(def->bridge, NULL)) {
        libvirt_error(error, ERR_OPERATION_FAILED,
                      "network '%s' needs bridge '%s', which the host lacks", def->name,
                      def->bridge);
        return false;
    }
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        const struct net_interface *one = def->interfaces->pdata[i];
        if (!link_index(one->dev)) {
            libvirt_error(error, ERR_OPERATION_FAILED,
                          "network '%s' needs device '%s', which the host lacks", def->name,
                          one->dev);
            return false;
        }
    }
    return true;
}

static void own_stop(const struct network_def *def)
{
    if (def->inbound || def->outbound) {
        port_unguard(def->bridge);
    }
    dnsmasq_stop(def);
    dnsmasq_forget(def);
    rules_drop(def, NULL);
    if (link_index(def->bridge)) {
        link_delete(def->bridge, NULL);
    }
}

bool network_start(struct network *net, GError **error)
{
    struct network_def *live = network_def_copy(net->def);
    if (live->mode == FORWARD_NAT && live->port_start == XML_ABSENT && !live->nat_start) {
        live->port_start = 1024; /* what it comes to, as libvirt tells of running networks */
        live->port_end = 65535;
    }
    daemon_unlock();
    bool ok = network_has_own_bridge(live) ? own_start(live, error) : others_start(live, error);
    daemon_lock();
    if (!ok) {
        network_def_free(live);
        return false;
    }
    if (net->next || !net->persistent) {
        network_def_free(net->def);
    } else {
        net->next = net->def;
    }
    net->def = live;
    net->active = true;
    note_running(net);
    return true;
}

bool network_stop(struct network *net, GError **error)
{
    (void)error;
    if (network_has_own_bridge(net->def)) {
        daemon_unlock();
        own_stop(net->def);
        daemon_lock();
    }
    network_ports_clear(net);
    net->active = false;
    note_running(net);
    take_next(net);
    return true;
}

bool network_apply(struct network *net, struct network_def *live, GError **error)
{
    bool ok = true;
    if (network_has_own_bridge(live)) {
        daemon_unlock();
        dnsmasq_stop(net->def);
        ok = rules_put(live, error) && (!dnsmasq_wanted(live) || dnsmasq_start(live, error));
        if (!ok) { /* as it was */
            rules_put(net->def, NULL);
            if (dnsmasq_wanted(net->def)) {
                dnsmasq_start(net->def, NULL);
            }
        }
        daemon_lock();
    }
    if (ok) {
        network_def_free(net->def);
        net->def = live;
        network_ports_count(net);
        note_running(net);
    }
    return ok;
}

/* ---- when others flush the firewall ---- */

static struct watch watch = {.fd = -1};
static guint mend_timer;

/* On a worker thread. */
static void mend(void *unused)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) there = rules_list(&error);
    (void)unused;
    if (there) {
        port_guard_mend(there);
    }
    daemon_lock();
    for (unsigned i = 0; there && i < networks->len; i++) {
        struct network *net = networks->pdata[i];
        bool ruled = net->active && network_has_own_bridge(net->def);
        g_autofree char *name = ruled ? rules_name(net->def) : NULL;
        if (!name || net->changing ||
            g_ptr_array_find_with_equal_func(there, name, g_str_equal, NULL)) {
            continue;
        }
        struct network_def *def = network_def_copy(net->def);
        if (network_change(net, NULL)) {
            daemon_unlock();
            bool ok = rules_put(def, &error);
            daemon_log("network %s: its firewall rules were gone%s%s", def->name,
                       ok ? " and are back" : ": ", ok ? "" : error->message);
            daemon_lock();
            network_changed(net);
            g_clear_error(&error);
            i = UINT_MAX; /* the list may have changed */
            g_ptr_array_add(there, g_steal_pointer(&name));
        }
        network_def_free(def);
    }
    daemon_unlock();
}

static gboolean mend_now(void *unused)
{
    (void)unused;
    mend_timer = 0;
    daemon_worker(mend, NULL);
    return G_SOURCE_REMOVE;
}

/* Main loop.  Whoever reloads a firewall does so in several steps: wait until it is quiet. */
static void tables_changed(struct watch *w, uint32_t events)
{
    enum { QUIET_MS = 200 };
    (void)events;
    if (rules_watch_read(w->fd)) {
        g_clear_handle_id(&mend_timer, g_source_remove);
        mend_timer = g_timeout_add(QUIET_MS, mend_now, NULL);
    }
}

/* ---- start and end of the daemon ---- */

static const char default_network[] =
    "<network><name>default</name><bridge name='virbr0'/><forward/>"
    "<ip address='192.168.122.1' netmask='255.255.255.0'>"
    "<dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip></network>";

static void load_text(const char *text, const char *name, bool running)
{
    g_autoptr(GError) error = NULL;
    struct network_def *def = network_parse(text, &error);
    struct network *net = def ? network_find(def->name) : NULL;
    if (def && running) {
        net = net ? net : network_new(def);
        if (net->def != def) {
            net->next = net->def;
            net->def = def;
        }
        net->active = true;
        network_ports_load(net);
    } else if (def) {
        net = network_add(def, false, &error);
    }
    if (!net) {
        daemon_log("network %s: %s", name, error->message);
        return;
    }
    net->persistent |= !running;
    net->autostart = managed_starts(&network_kind, net->def->name);
}

static void load_folder(const char *folder, bool running)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL), *text = NULL;
        if (g_str_has_suffix(name, ".xml") && g_file_get_contents(path, &text, NULL, NULL)) {
            load_text(text, name, running);
        }
    }
}

/* The first start of all: there is a network that everybody's machines ask for. */
static bool ship_default(GError **error)
{
    load_text(default_network, "default", false);
    struct network *net = network_find("default");
    return !net || network_save(net, error);
}

/* What ran when the last daemon ended, and what is to run. */
static void wake(struct network *net)
{
    g_autoptr(GError) error = NULL;
    bool ok = true;
    if (!network_change(net, NULL)) {
        return;
    }
    if (net->active && network_has_own_bridge(net->def)) {
        if (!link_is_bridge(net->def->bridge, NULL)) { /* the host has started anew */
            network_ports_clear(net);
            net->active = false;
            note_running(net);
            take_next(net);
        } else {
            ok = rules_put(net->def, &error) && bridge_guard(net->def, &error) &&
                 (!dnsmasq_wanted(net->def) || dnsmasq_running(net->def) ||
                  dnsmasq_start(net->def, &error));
        }
    }
    if (!net->active && net->autostart) {
        ok = network_start(net, &error);
    }
    if (!ok) {
        daemon_log("network %s: %s", net->def->name, error->message);
    }
    if (!net->active && !net->persistent) {
        network_remove(net);
    }
    network_changed(net);
}

static bool start(GError **error)
{
    g_autofree char *defined = daemon_path(DAEMON_ETC, "qemu", "networks", NULL);
    g_autofree char *running = daemon_path(DAEMON_RUN, "network", NULL);
    networks = g_ptr_array_new();
    bool first = !g_file_test(defined, G_FILE_TEST_IS_DIR) && !daemon_is_session();
    load_folder(defined, false);
    if (first && !ship_default(error)) {
        return false;
    }
    load_folder(running, true);
    g_autoptr(GPtrArray) all = g_ptr_array_copy(networks, NULL, NULL);
    for (unsigned i = 0; i < all->len; i++) {
        wake(all->pdata[i]);
    }
    watch = (struct watch){.fd = rules_watch(NULL), .events = EPOLLIN, .ready = tables_changed};
    if (watch.fd >= 0) {
        poller_add(&watch);
    }
    return true;
}

const struct daemon_room room_network = {.name = "network", .start = start};
