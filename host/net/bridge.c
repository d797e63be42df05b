/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bridge: a tap interface that is a port of one of the host's bridges.
 *
 * Spec: Linux, Documentation/networking/bridge.rst; netdevice(7) for the requests.
 * There is no privileged helper: who may not change the host's network is told so.
 */
#include "base/util.h"
#include "host/net/tap.h"

#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static bool ask(int fd, unsigned long request, struct ifreq *req, const char *br, GError **error)
{
    if (ioctl(fd, request, req) == 0) {
        return true;
    }
    error_set_errno(error, errno,
                    errno == EPERM ? "br=%s (needs CAP_NET_ADMIN; lodged has it)" : "br=%s", br);
    return false;
}

static bool join(const char *br, const char *port, GError **error)
{
    struct ifreq req = {0};
    autofd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        error_set_errno(error, errno, "br=%s", br);
        return false;
    }
    g_strlcpy(req.ifr_name, br, sizeof(req.ifr_name));
    req.ifr_ifindex = (int)if_nametoindex(port);
    if (!ask(fd, SIOCBRADDIF, &req, br, error)) {
        return false;
    }
    memset(&req, 0, sizeof(req));
    g_strlcpy(req.ifr_name, port, sizeof(req.ifr_name));
    if (!ask(fd, SIOCGIFFLAGS, &req, br, error)) {
        return false;
    }
    req.ifr_flags |= IFF_UP;
    return ask(fd, SIOCSIFFLAGS, &req, br, error);
}

static struct netdev *bridge_open(KeyVal *kv, const char *id, GError **error)
{
    char name[IFNAMSIZ] = "";
    const char *br = keyval_get(kv, "br");
    (void)id;
    br = br ? br : "br0";
    if (keyval_get(kv, "helper")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "helper= is not supported");
        return NULL;
    }
    if (!*br || strlen(br) >= IFNAMSIZ) {
        g_set_error(error, LODGE_ERROR, EINVAL, "br=%s: not 1 to 15 bytes", br);
        return NULL;
    }
    autofd int fd = tap_interface(name, true, false, error);
    if (fd < 0 || !join(br, name, error)) {
        return NULL;
    }
    g_autofree char *about = g_strdup_printf("br=%s,ifname=%s", br, name);
    return tap_over(g_steal_fd(&fd), about, true);
}

const struct net_backend net_backend_bridge = {
    .name = "bridge",
    .about = "port of one of the host's bridges (br=)",
    .open = bridge_open,
};
