/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * network_ports: who is plugged in where.  A machine's interface is an entry here as long as it
 * runs, and clients may make entries of their own; which device a machine gets of several that a
 * network has is decided by their number.  Each is a file among the running things, by which the
 * next daemon knows it.
 */
#include "manage/daemon/network.h"
#include "manage/daemon/uuid.h"
#include "manage/error.h"

#include <string.h>
#include <unistd.h>

static char *folder_of(const struct network *net)
{
    return daemon_path(DAEMON_RUN, "network-ports", net->def->uuid, NULL);
}

static char *file_of(const struct network *net, const char *uuid)
{
    g_autofree char *file = g_strconcat(uuid, ".xml", NULL);
    return daemon_path(DAEMON_RUN, "network-ports", net->def->uuid, file, NULL);
}

static unsigned users(const struct network *net, const char *dev)
{
    unsigned n = 0;
    for (unsigned i = 0; i < net->ports->len; i++) {
        const struct net_port *port = net->ports->pdata[i];
        n += !dev || !g_strcmp0(port->dev, dev);
    }
    return n;
}

static int64_t unless_none(unsigned n)
{
    return n ? n : XML_ABSENT;
}

void network_ports_count(struct network *net)
{
    net->def->connections = unless_none(users(net, NULL));
    for (unsigned i = 0; i < xml_count(net->def->interfaces); i++) {
        struct net_interface *one = net->def->interfaces->pdata[i];
        one->connections = unless_none(users(net, one->dev));
    }
}

struct net_port *network_port_find(const struct network *net, const char *uuid)
{
    for (unsigned i = 0; i < net->ports->len; i++) {
        struct net_port *port = net->ports->pdata[i];
        if (!strcmp(port->uuid, uuid)) {
            return port;
        }
    }
    return NULL;
}

const char *network_port_device(const struct network *net, GError **error)
{
    const struct network_def *def = net->def;
    const char *best = NULL;
    unsigned least = 0;
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        const struct net_interface *one = def->interfaces->pdata[i];
        unsigned n = users(net, one->dev);
        if (!best || n < least) {
            best = one->dev;
            least = n;
        }
    }
    if (def->mode == FORWARD_PASSTHROUGH && least) {
        libvirt_error(
            error, ERR_INTERNAL,
            "network '%s' requires exclusive access to interfaces, but none are available",
            def->name);
        return NULL;
    }
    return best;
}

/* Where it comes to: the bridge, or a device. */
static bool place(const struct network *net, struct net_port *port, GError **error)
{
    const struct network_def *def = net->def;
    if (port->plug) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "<plug> of a new port of network '%s' is decided by the network", def->name);
        return false;
    }
    if (def->bridge) {
        port->plug = network_has_own_bridge(def) ? PLUG_NETWORK : PLUG_BRIDGE;
        port->bridge = g_strdup(def->bridge);
        return true;
    }
    port->plug = PLUG_DIRECT;
    port->dev = g_strdup(network_port_device(net, error));
    port->mode = g_strdup(forward_mode_names[def->mode]);
    return port->dev;
}

static bool note(const struct network *net, const struct net_port *port, GError **error)
{
    g_autofree char *file = g_strconcat(port->uuid, ".xml", NULL);
    g_autofree char *path =
        daemon_path_make(DAEMON_RUN, 0755, error, "network-ports", net->def->uuid, file, NULL);
    g_autofree char *text = net_port_format(port);
    return path && daemon_note_file(path, text, error);
}

bool network_port_add(struct network *net, struct net_port *port, GError **error)
{
    const struct net_portgroup *group = network_portgroup(net->def, port->group);
    bool ok = net->active;
    if (!ok) {
        libvirt_error(error, ERR_OPERATION_INVALID, "network '%s' is not active", net->def->name);
    } else if (network_port_find(net, port->uuid)) {
        libvirt_error(error, ERR_NETWORK_PORT_EXIST, "a network port with uuid %s already exists",
                      port->uuid);
        ok = false;
    } else if (port->group && !group) {
        libvirt_error(error, ERR_INVALID_ARG, "network '%s' has no portgroup '%s'", net->def->name,
                      port->group);
        ok = false;
    }
    ok = ok && place(net, port, error) && note(net, port, error);
    if (!ok) {
        net_port_free(port);
        return false;
    }
    g_ptr_array_add(net->ports, port);
    network_ports_count(net);
    return true;
}

void network_port_remove(struct network *net, const char *uuid)
{
    struct net_port *port = net ? network_port_find(net, uuid) : NULL;
    if (port) {
        g_autofree char *path = file_of(net, uuid);
        unlink(path);
        g_ptr_array_remove(net->ports, port);
        network_ports_count(net);
    }
}

void network_ports_clear(struct network *net)
{
    while (net->ports->len) {
        const struct net_port *last = net->ports->pdata[net->ports->len - 1];
        g_autofree char *uuid = g_strdup(last->uuid);
        network_port_remove(net, uuid);
    }
    g_autofree char *folder = folder_of(net);
    rmdir(folder);
}

void network_ports_load(struct network *net)
{
    g_autofree char *folder = folder_of(net);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL), *text = NULL;
        struct net_port *port =
            g_file_get_contents(path, &text, NULL, NULL) ? net_port_parse(text, NULL) : NULL;
        if (port && !network_port_find(net, port->uuid)) {
            g_ptr_array_add(net->ports, port);
        } else {
            net_port_free(port);
        }
    }
    network_ports_count(net);
}
