/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tap: a virtual Ethernet interface of the host's kernel.
 *
 * The kernel puts a struct virtio_net_hdr in front of each frame.  Until a card asks for
 * that, by set_offload(), the card does not see it.
 *
 * Spec: Linux, Documentation/networking/tuntap.rst.
 */
#include "base/util.h"
#include "host/net/tap.h"

#include <fcntl.h>
#include <glib-unix.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

enum { QUEUES_MAX = 256, BURST = 64, PARTS_MAX = 64, HEADER_MAX = 12, HEADER_PLAIN = 10 };

struct tap {
    struct netdev net;
    int fd;
    guint watch;       /* 0: the card is behind */
    bool off;          /* one of several queues, not in use */
    unsigned header;   /* bytes the kernel puts before a frame */
    uint8_t frame[HEADER_MAX + NET_FRAME_MAX];
};

static struct tap *self(struct netdev *net)
{
    return container_of(net, struct tap, net);
}

static gboolean readable(gint fd, GIOCondition condition, gpointer data)
{
    struct tap *t = data;
    (void)condition;
    for (unsigned i = 0; i < BURST && net_idle(&t->net); i++) {
        ssize_t n = read(fd, t->frame, sizeof(t->frame));
        unsigned skip = t->header - t->net.vnet_hdr_bytes;
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return G_SOURCE_CONTINUE;
        }
        if (n < 0) { /* the interface is down or gone: nothing will come */
            t->watch = 0;
            return G_SOURCE_REMOVE;
        }
        if ((size_t)n > t->header) {
            net_deliver(&t->net, t->frame + skip, (size_t)n - skip);
        }
    }
    if (!net_idle(&t->net)) {
        t->watch = 0;
        return G_SOURCE_REMOVE;
    }
    return G_SOURCE_CONTINUE;
}

static void tap_resume(struct netdev *net)
{
    struct tap *t = self(net);
    net_flush(net);
    if (!t->watch && net_idle(net)) {
        t->watch = g_unix_fd_add(t->fd, G_IO_IN, readable, t);
    }
}

/* A full interface queue loses the frame, as a wire would. */
static void tap_send(struct netdev *net, const struct iovec *iov, unsigned n)
{
    static uint8_t none[HEADER_MAX];
    struct tap *t = self(net);
    struct iovec all[PARTS_MAX + 1] = {{none, t->header - net->vnet_hdr_bytes}};
    if (n > PARTS_MAX) {
        return;
    }
    memcpy(all + 1, iov, n * sizeof(*iov));
    bool bare = all[0].iov_len == 0;
    (void)!writev(t->fd, all + bare, (int)(n + !bare));
}

static void tap_set_offload(struct netdev *net, unsigned vnet_hdr_bytes, unsigned tun_f)
{
    struct tap *t = self(net);
    int bytes = (int)vnet_hdr_bytes;
    if (ioctl(t->fd, TUNSETVNETHDRSZ, &bytes) == 0) {
        t->header = vnet_hdr_bytes;
        net->vnet_hdr_bytes = (uint8_t)vnet_hdr_bytes;
        ioctl(t->fd, TUNSETOFFLOAD, (unsigned long)tun_f);
    }
}

static void tap_close(struct netdev *net)
{
    struct tap *t = self(net);
    if (t->watch) {
        g_source_remove(t->watch);
    }
    close(t->fd);
    g_free(t);
}

int tap_interface(char name[IFNAMSIZ], bool vnet_hdr, bool multi, GError **error)
{
    struct ifreq req = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (vnet_hdr ? IFF_VNET_HDR : 0) |
                                             (multi ? IFF_MULTI_QUEUE : 0))};
    memcpy(req.ifr_name, name, IFNAMSIZ);
    autofd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        error_set_errno(error, errno, "/dev/net/tun");
        return -1;
    }
    if (ioctl(fd, TUNSETIFF, &req) < 0) {
        error_set_errno(error, errno, "ifname=%s", *name ? name : "tap%d");
        return -1;
    }
    memcpy(name, req.ifr_name, IFNAMSIZ);
    return g_steal_fd(&fd);
}

/* fd=: somebody else opened it; what it is it says itself. */
static int take_fd(const char *text, char name[IFNAMSIZ], bool *vnet_hdr, GError **error)
{
    uint64_t fd;
    struct ifreq req = {0};
    if (!text_u64(text, &fd) || fd > G_MAXINT || fcntl((int)fd, F_GETFD) < 0) {
        g_set_error(error, LODGE_ERROR, EBADF, "fd=%s: not an open descriptor", text);
        return -1;
    }
    if (ioctl((int)fd, TUNGETIFF, &req) < 0) {
        error_set_errno(error, errno, "fd=%s: not a tap interface", text);
        return -1;
    }
    fcntl((int)fd, F_SETFD, FD_CLOEXEC);
    fcntl((int)fd, F_SETFL, fcntl((int)fd, F_GETFL) | O_NONBLOCK);
    *vnet_hdr = req.ifr_flags & IFF_VNET_HDR;
    memcpy(name, req.ifr_name, IFNAMSIZ);
    return (int)fd;
}

static bool refuse_missing(KeyVal *kv, GError **error)
{
    static const char *const missing[] = {"vhostfd", "vhostfds", "helper",    "br",
                                          "sndbuf",  "poll-us",  "vhostforce"};
    static const char *const scripts[] = {"script", "downscript"};
    bool vhost = false;
    for (unsigned i = 0; i < G_N_ELEMENTS(missing); i++) {
        if (keyval_get(kv, missing[i])) {
            g_set_error(error, LODGE_ERROR, ENOTSUP, "%s= is not supported", missing[i]);
            return false;
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(scripts); i++) {
        const char *text = keyval_get(kv, scripts[i]);
        if (text && *text && !g_str_equal(text, "no") && !g_str_equal(text, "off")) {
            g_set_error(error, LODGE_ERROR, ENOTSUP, "%s=%s: no scripts are run; say %s=no",
                        scripts[i], text, scripts[i]);
            return false;
        }
    }
    if (!keyval_bool(kv, "vhost", &vhost, error)) {
        return false;
    }
    if (vhost) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "vhost=on is not supported; say vhost=off");
    }
    return !vhost;
}

/* The kernel hands frames only to queues that are in use. */
static void tap_use(struct netdev *net, bool on)
{
    struct tap *t = self(net);
    struct ifreq req = {.ifr_flags = (short)(on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE)};
    if (t->off == on && ioctl(t->fd, TUNSETQUEUE, &req) == 0) {
        t->off = !on;
        if (on && !t->watch && net_idle(net)) {
            t->watch = g_unix_fd_add(t->fd, G_IO_IN, readable, t);
        }
    }
}

struct netdev *tap_over(int fd, const char *about, bool vnet_hdr)
{
    struct tap *t = g_new0(struct tap, 1);
    t->fd = fd;
    t->header = vnet_hdr ? HEADER_PLAIN : 0;
    t->net = (struct netdev){.send = tap_send, .resume = tap_resume, .close = tap_close,
                             .vnet_hdr_offered = vnet_hdr,
                             .set_offload = vnet_hdr ? tap_set_offload : NULL,
                             .about = g_strdup(about)};
    if (vnet_hdr) {
        int bytes = HEADER_PLAIN;
        ioctl(fd, TUNSETVNETHDRSZ, &bytes);
        ioctl(fd, TUNSETOFFLOAD, 0ul);
    }
    t->watch = g_unix_fd_add(fd, G_IO_IN, readable, t);
    return &t->net;
}

/* Whether there is at most one word on where the queues come from, and how many there are. */
static bool count_queues(KeyVal *kv, uint64_t *queues, GError **error)
{
    const char *fds = keyval_get(kv, "fds"), *fd = keyval_get(kv, "fd");
    bool said = keyval_get(kv, "queues");
    *queues = 1;
    if (!keyval_u64(kv, "queues", QUEUES_MAX, queues, error)) {
        return false;
    }
    if (!*queues || (fds && (fd || said)) || (fd && said)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    !*queues ? "queues=0" : "one of fd=, fds= and queues= is enough");
        return false;
    }
    for (const char *p = fds ? fds : ""; *p; p++) {
        *queues += *p == ':';
    }
    if (*queues > QUEUES_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "fds=: more than %d", QUEUES_MAX);
        return false;
    }
    return true;
}

static void close_all(struct netdev *net)
{
    while (net) {
        struct netdev *more = net->more;
        g_free(net->about);
        net->close(net);
        net = more;
    }
}

static struct netdev *tap_open(KeyVal *kv, const char *id, GError **error)
{
    char name[IFNAMSIZ] = "";
    const char *ifname = keyval_get(kv, "ifname"), *given = keyval_get(kv, "fd");
    bool vnet_hdr = true;
    uint64_t queues;
    (void)id;
    if (!refuse_missing(kv, error) || !keyval_bool(kv, "vnet_hdr", &vnet_hdr, error) ||
        !count_queues(kv, &queues, error)) {
        return NULL;
    }
    given = given ? given : keyval_get(kv, "fds");
    if (ifname && (given || strlen(ifname) >= sizeof(name) || !*ifname)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    given ? "ifname=%s together with fd=" : "ifname=%s: not 1 to 15 bytes", ifname);
        return NULL;
    }
    g_strlcpy(name, ifname ? ifname : "", sizeof(name));
    g_auto(GStrv) fds = given ? g_strsplit(given, ":", (int)queues) : NULL;
    struct netdev *first = NULL, **end = &first;
    bool multi = queues > 1;
    for (unsigned i = 0; i < queues; i++) {
        int fd = given ? take_fd(fds[i], name, &vnet_hdr, error)
                       : tap_interface(name, vnet_hdr, multi, error);
        if (fd < 0) {
            close_all(first);
            return NULL;
        }
        g_autofree char *about = g_strdup_printf("ifname=%s", name);
        *end = tap_over(fd, about, vnet_hdr);
        (*end)->use = multi ? tap_use : NULL;
        end = &(*end)->more;
    }
    return first;
}

const struct net_backend net_backend_tap = {
    .name = "tap",
    .about = "interface of the host's kernel; for bridges and routing",
    .open = tap_open,
};
