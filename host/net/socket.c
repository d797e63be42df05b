/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * socket: a cable between machines: TCP (each frame after its length, 32 bits big-endian),
 * or a datagram a frame by UDP or multicast.
 *
 * Spec: QEMU, "Network options", -netdev socket.
 */
#include "base/bytes.h"
#include "base/util.h"
#include "host/net/backend.h"

#include <arpa/inet.h>
#include <glib-unix.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

enum { BURST = 64, LENGTH = 4 };

struct sock {
    struct netdev net;
    int fd, listener;             /* -1: none */
    guint watch, out_watch, listen_watch;
    bool stream;
    struct sockaddr_in peer;      /* datagrams go there */
    size_t in_used, out_used, out_done;
    uint8_t in[LENGTH + NET_FRAME_MAX], out[LENGTH + NET_FRAME_MAX];
};

static struct sock *self(struct netdev *net)
{
    return container_of(net, struct sock, net);
}

static void unwatch(guint *id)
{
    if (*id) {
        g_source_remove(*id);
    }
    *id = 0;
}

/* The other end has gone; a listener waits for the next. */
static void hang_up(struct sock *s)
{
    unwatch(&s->watch);
    unwatch(&s->out_watch);
    close(s->fd);
    s->fd = -1;
    s->in_used = s->out_used = s->out_done = 0;
}

/* Hands over the whole frames in .in; false: the peer does not speak this. */
static bool take_frames(struct sock *s)
{
    size_t at = 0;
    while (s->in_used - at >= LENGTH) {
        size_t n = be32_at(s->in + at);
        if (n > NET_FRAME_MAX) {
            return false;
        }
        if (s->in_used - at < LENGTH + n) {
            break;
        }
        net_deliver(&s->net, s->in + at + LENGTH, n);
        at += LENGTH + n;
    }
    s->in_used -= at;
    memmove(s->in, s->in + at, s->in_used);
    return true;
}

static bool read_once(struct sock *s)
{
    ssize_t n = recv(s->fd, s->in + s->in_used, sizeof(s->in) - s->in_used, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR || !s->stream)) {
        return false;
    }
    if (!s->stream) {
        net_deliver(&s->net, s->in, (size_t)n);
        return true;
    }
    s->in_used += n > 0 ? (size_t)n : 0;
    if (n <= 0 || !take_frames(s)) {
        s->watch = 0; /* the source that runs this goes with its return value */
        hang_up(s);
        return false;
    }
    return true;
}

static gboolean readable(gint fd, GIOCondition condition, gpointer data)
{
    struct sock *s = data;
    (void)fd, (void)condition;
    for (unsigned i = 0; i < BURST && net_idle(&s->net) && read_once(s); i++) {
    }
    if (s->fd < 0 || !net_idle(&s->net)) {
        s->watch = 0;
        return G_SOURCE_REMOVE;
    }
    return G_SOURCE_CONTINUE;
}

static void sock_resume(struct netdev *net)
{
    struct sock *s = self(net);
    net_flush(net);
    if (!s->watch && s->fd >= 0 && net_idle(net)) {
        s->watch = g_unix_fd_add(s->fd, G_IO_IN, readable, s);
    }
}

static gboolean writable(gint fd, GIOCondition condition, gpointer data)
{
    struct sock *s = data;
    (void)condition;
    ssize_t n = send(fd, s->out + s->out_done, s->out_used - s->out_done, MSG_DONTWAIT | MSG_NOSIGNAL);
    s->out_done += n > 0 ? (size_t)n : 0;
    if (s->out_done < s->out_used && (n >= 0 || errno == EAGAIN)) {
        return G_SOURCE_CONTINUE;
    }
    s->out_used = s->out_done = 0;
    s->out_watch = 0;
    return G_SOURCE_REMOVE;
}

/* While the rest of a frame waits, further ones are lost, as on a wire. */
static void sock_send(struct netdev *net, const struct iovec *iov, unsigned n)
{
    struct sock *s = self(net);
    size_t used = LENGTH;
    if (s->fd < 0 || s->out_used) {
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        if (iov[i].iov_len > sizeof(s->out) - used) {
            return;
        }
        memcpy(s->out + used, iov[i].iov_base, iov[i].iov_len);
        used += iov[i].iov_len;
    }
    if (!s->stream) {
        (void)!sendto(s->fd, s->out + LENGTH, used - LENGTH, MSG_DONTWAIT | MSG_NOSIGNAL,
                      (struct sockaddr *)&s->peer, sizeof(s->peer));
        return;
    }
    be32_put(s->out, (uint32_t)(used - LENGTH));
    ssize_t done = send(s->fd, s->out, used, MSG_DONTWAIT | MSG_NOSIGNAL);
    if ((done < 0 && errno == EAGAIN) || (done >= 0 && (size_t)done < used)) {
        s->out_used = used;
        s->out_done = done > 0 ? (size_t)done : 0;
        s->out_watch = g_unix_fd_add(s->fd, G_IO_OUT, writable, s);
    }
}

static void connected(struct sock *s, int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    s->fd = fd;
    s->watch = g_unix_fd_add(fd, G_IO_IN, readable, s);
}

static gboolean acceptable(gint listener, GIOCondition condition, gpointer data)
{
    struct sock *s = data;
    (void)condition;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 && s->fd >= 0) {
        close(fd); /* a cable has two ends */
    } else if (fd >= 0) {
        connected(s, fd);
    }
    return G_SOURCE_CONTINUE;
}

static void sock_close(struct netdev *net)
{
    struct sock *s = self(net);
    if (s->fd >= 0) {
        hang_up(s);
    }
    unwatch(&s->listen_watch);
    if (s->listener >= 0) {
        close(s->listener);
    }
    g_free(s);
}

/* ---- options ---- */

/* "host:port"; an empty host is any. */
static bool address(const char *key, const char *text, struct sockaddr_in *out, GError **error)
{
    const char *colon = strrchr(text, ':');
    struct addrinfo hints = {.ai_family = AF_INET, .ai_flags = AI_PASSIVE}, *list = NULL;
    g_autofree char *host = colon ? g_strndup(text, (gsize)(colon - text)) : NULL;
    uint64_t port;
    if (!colon || !text_u64(colon + 1, &port) || port > 65535 ||
        getaddrinfo(*host ? host : NULL, "0", &hints, &list) != 0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s=%s: not host:port", key, text);
        return false;
    }
    memcpy(out, list->ai_addr, sizeof(*out));
    out->sin_port = htons((uint16_t)port);
    freeaddrinfo(list);
    return true;
}

static int make_socket(int type, bool reuse)
{
    int one = 1, fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    if (fd >= 0 && reuse) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    }
    return fd;
}

static bool open_stream(struct sock *s, const char *key, const char *text, GError **error)
{
    struct sockaddr_in sa;
    if (!address(key, text, &sa, error)) {
        return false;
    }
    bool listens = g_str_equal(key, "listen");
    autofd int fd = make_socket(SOCK_STREAM, true);
    s->stream = true;
    if (fd < 0 || (listens ? bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 1) < 0
                           : connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)) {
        error_set_errno(error, errno, "%s=%s", key, text);
        return false;
    }
    if (listens) {
        s->listener = g_steal_fd(&fd);
        s->listen_watch = g_unix_fd_add(s->listener, G_IO_IN, acceptable, s);
    } else {
        connected(s, g_steal_fd(&fd));
    }
    return true;
}

static bool open_datagram(struct sock *s, const char *key, const char *text, const char *local,
                          GError **error)
{
    struct sockaddr_in here = {.sin_family = AF_INET};
    bool mcast = g_str_equal(key, "mcast");
    if (!address(key, text, &s->peer, error)) {
        return false;
    }
    if (!mcast && !local) {
        g_set_error(error, LODGE_ERROR, EINVAL, "udp=%s needs localaddr=", text);
        return false;
    }
    if (mcast ? local && inet_pton(AF_INET, local, &here.sin_addr) != 1
              : !address("localaddr", local, &here, error)) {
        if (mcast) {
            g_set_error(error, LODGE_ERROR, EINVAL, "localaddr=%s: not an IPv4 address", local);
        }
        return false;
    }
    autofd int fd = make_socket(SOCK_DGRAM, mcast);
    struct ip_mreq group = {.imr_multiaddr = s->peer.sin_addr, .imr_interface = here.sin_addr};
    const struct sockaddr_in *bound = mcast ? &s->peer : &here;
    if (fd < 0 || bind(fd, (const struct sockaddr *)bound, sizeof(*bound)) < 0 ||
        (mcast && setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof(group)) < 0) ||
        (mcast && local &&
         setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &here.sin_addr, sizeof(here.sin_addr)) < 0)) {
        error_set_errno(error, errno, "%s=%s", key, text);
        return false;
    }
    s->fd = g_steal_fd(&fd);
    s->watch = g_unix_fd_add(s->fd, G_IO_IN, readable, s);
    return true;
}

static struct netdev *sock_open(KeyVal *kv, const char *id, GError **error)
{
    static const char *const kinds[] = {"listen", "connect", "mcast", "udp"};
    const char *key = NULL, *text = NULL, *local = keyval_get(kv, "localaddr");
    (void)id;
    if (keyval_get(kv, "fd")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "fd= is not supported");
        return NULL;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        const char *v = keyval_get(kv, kinds[i]);
        if (v && text) {
            g_set_error(error, LODGE_ERROR, EINVAL, "%s= together with %s=", key, kinds[i]);
            return NULL;
        }
        key = v ? kinds[i] : key;
        text = v ? v : text;
    }
    if (!text) {
        g_set_error(error, LODGE_ERROR, EINVAL, "wants one of listen=, connect=, mcast=, udp=");
        return NULL;
    }
    struct sock *s = g_new0(struct sock, 1);
    s->fd = s->listener = -1;
    s->net = (struct netdev){.send = sock_send, .resume = sock_resume, .close = sock_close};
    bool datagram = g_str_equal(key, "mcast") || g_str_equal(key, "udp");
    if (!(datagram ? open_datagram(s, key, text, local, error) : open_stream(s, key, text, error))) {
        g_free(s);
        return NULL;
    }
    s->net.about = g_strdup_printf("%s=%s", key, text);
    return &s->net;
}

const struct net_backend net_backend_socket = {
    .name = "socket",
    .about = "cable to another machine by TCP, UDP or multicast",
    .open = sock_open,
};
