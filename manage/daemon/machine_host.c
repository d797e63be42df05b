/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a machine takes of the host: network interfaces, ports for viewers. */
#include "manage/daemon/machine.h"

#include "base/util.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>
#include <sys/socket.h>

enum { VNC_FIRST = 5900, VNC_PORTS = 10000 };

static bool system_error(GError **error, const char *what)
{
    libvirt_error(error, ERR_SYSTEM, "%s: %s", what, g_strerror(errno));
    return false;
}

/* Puts @name under @bridge and switches it on. */
static bool plug(const char *name, const char *bridge, bool up, GError **error)
{
    autofd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq bridge_request = {0}, request = {0};
    g_strlcpy(request.ifr_name, name, sizeof(request.ifr_name));
    if (bridge) {
        g_strlcpy(bridge_request.ifr_name, bridge, sizeof(bridge_request.ifr_name));
        bridge_request.ifr_ifindex = (int)if_nametoindex(name);
        if (fd < 0 || ioctl(fd, SIOCBRADDIF, &bridge_request) != 0) {
            g_autofree char *what =
                g_strdup_printf("Unable to add port %s to bridge %s", name, bridge);
            return system_error(error, what);
        }
    }
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) != 0) {
        return system_error(error, name);
    }
    request.ifr_flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
    return ioctl(fd, SIOCSIFFLAGS, &request) == 0 || system_error(error, name);
}

bool machine_net_open(struct machine *m, struct domain_interface *nic, int *fd, GError **error)
{
    const char *bridge = nic->bridge;
    if (nic->type == IFACE_NETWORK || nic->type == IFACE_DIRECT) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "<interface type='%s'> of '%s' cannot be started",
                      nic->type == IFACE_NETWORK ? "network" : "direct", m->def->name);
        return false;
    }
    autofd int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (tap < 0) {
        return system_error(error, "Unable to open /dev/net/tun, is tun module loaded?");
    }
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    g_strlcpy(request.ifr_name, nic->target ? nic->target : "vnet%d", sizeof(request.ifr_name));
    if (ioctl(tap, TUNSETIFF, &request) != 0) {
        return system_error(error, "Unable to create tap device");
    }
    if (!plug(request.ifr_name, bridge, nic->link != LINK_DOWN, error)) {
        return false;
    }
    g_free(nic->target);
    nic->target = g_strdup(request.ifr_name);
    *fd = g_steal_fd(&tap);
    return true;
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
