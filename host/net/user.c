/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * user: a NAT network in the process, by libslirp: DHCP, DNS, TFTP, and TCP, UDP and ping
 * to the outside through ordinary sockets of this user.
 *
 * libslirp wants its descriptors polled and asks for new ones each time round; struct user
 * is therefore a GSource that brings its own.  All its callbacks run with the machine lock,
 * the cards' send() too.
 */
#include "base/util.h"
#include "host/net/backend.h"

#include <arpa/inet.h>
#include <libslirp.h>
#include <string.h>

struct user {
    GSource src; /* first: g_source_new() allocates the whole struct */
    struct netdev net;
    Slirp *slirp;
    struct in_addr dhcp_start;
    GPtrArray *fds; /* of GPollFD, registered with the source */
    unsigned nfds;  /* of them asked for by the last fill */
    gint64 wake;    /* monotonic microseconds at which libslirp wants to run; -1: never */
    bool kicked;    /* the guest sent something: libslirp must run once, and poll anew */
    uint8_t frame[NET_FRAME_MAX];
};

/* ---- event loop ---- */

static gint64 now_us(void)
{
    return g_get_monotonic_time();
}

static int want_poll(int fd, int events, void *opaque)
{
    struct user *u = opaque;
    gushort io = 0;
    io |= events & SLIRP_POLL_IN ? G_IO_IN : 0;
    io |= events & SLIRP_POLL_OUT ? G_IO_OUT : 0;
    io |= events & SLIRP_POLL_PRI ? G_IO_PRI : 0;
    io |= G_IO_ERR | G_IO_HUP;
    if (u->nfds == u->fds->len) {
        g_ptr_array_add(u->fds, g_new0(GPollFD, 1));
        ((GPollFD *)u->fds->pdata[u->nfds])->fd = -1;
    }
    GPollFD *p = u->fds->pdata[u->nfds];
    if (p->fd != fd) {
        /* The context keeps its list sorted by descriptor: take it out to change it. */
        if (p->fd >= 0) {
            g_source_remove_poll(&u->src, p);
        }
        p->fd = fd;
        g_source_add_poll(&u->src, p);
    }
    p->events = io;
    p->revents = 0;
    return (int)u->nfds++;
}

static gboolean user_prepare(GSource *src, gint *timeout)
{
    struct user *u = container_of(src, struct user, src);
    uint32_t ms = UINT32_MAX;
    u->nfds = 0;
    slirp_pollfds_fill(u->slirp, &ms, want_poll, u);
    for (unsigned i = u->nfds; i < u->fds->len; i++) {
        GPollFD *p = u->fds->pdata[i];
        if (p->fd >= 0) {
            g_source_remove_poll(src, p);
            p->fd = -1;
        }
    }
    u->wake = ms == UINT32_MAX ? -1 : now_us() + (gint64)ms * 1000;
    *timeout = u->kicked ? 0 : ms > G_MAXINT ? -1 : (gint)ms;
    return *timeout == 0;
}

static gboolean user_check(GSource *src)
{
    struct user *u = container_of(src, struct user, src);
    for (unsigned i = 0; i < u->nfds; i++) {
        if (((GPollFD *)u->fds->pdata[i])->revents) {
            return TRUE;
        }
    }
    return u->kicked || (u->wake >= 0 && now_us() >= u->wake);
}

static int polled(int idx, void *opaque)
{
    struct user *u = opaque;
    if (idx < 0 || (unsigned)idx >= u->nfds) {
        return 0;
    }
    unsigned io = ((GPollFD *)u->fds->pdata[idx])->revents;
    int events = 0;
    events |= io & G_IO_IN ? SLIRP_POLL_IN : 0;
    events |= io & G_IO_OUT ? SLIRP_POLL_OUT : 0;
    events |= io & G_IO_PRI ? SLIRP_POLL_PRI : 0;
    events |= io & G_IO_ERR ? SLIRP_POLL_ERR : 0;
    events |= io & G_IO_HUP ? SLIRP_POLL_HUP : 0;
    return events;
}

static gboolean user_dispatch(GSource *src, GSourceFunc unused, gpointer data)
{
    struct user *u = container_of(src, struct user, src);
    (void)unused, (void)data;
    u->kicked = false;
    slirp_pollfds_poll(u->slirp, 0, polled, u);
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs user_source = {
    .prepare = user_prepare, .check = user_check, .dispatch = user_dispatch};

/*
 * After libslirp did something outside user_dispatch(): what it waits for may be other, and
 * packets that waited for an ARP answer leave only when it runs.
 */
static void kick(struct user *u)
{
    if (!u->kicked) {
        u->kicked = true;
        g_main_context_wakeup(NULL);
    }
}

/* ---- libslirp's callbacks ---- */

static ssize_t cb_send_packet(const void *buf, size_t n, void *opaque)
{
    struct user *u = opaque;
    net_deliver(&u->net, buf, n);
    return (ssize_t)n;
}

static void cb_guest_error(const char *msg, void *opaque)
{
    (void)msg, (void)opaque;
}

static int64_t cb_clock_ns(void *opaque)
{
    (void)opaque;
    return now_us() * 1000;
}

struct slirp_timer {
    GSource src;
    SlirpTimerCb fire;
    void *opaque;
};

static gboolean timer_dispatch(GSource *src, GSourceFunc unused, gpointer data)
{
    struct slirp_timer *t = container_of(src, struct slirp_timer, src);
    (void)unused, (void)data;
    g_source_set_ready_time(src, -1);
    t->fire(t->opaque);
    return G_SOURCE_CONTINUE;
}

static void *cb_timer_new(SlirpTimerCb fire, void *fire_opaque, void *opaque)
{
    static GSourceFuncs funcs = {.dispatch = timer_dispatch};
    GSource *src = g_source_new(&funcs, sizeof(struct slirp_timer));
    struct slirp_timer *t = container_of(src, struct slirp_timer, src);
    (void)opaque;
    t->fire = fire;
    t->opaque = fire_opaque;
    g_source_attach(src, NULL);
    return t;
}

static void cb_timer_free(void *timer, void *opaque)
{
    struct slirp_timer *t = timer;
    (void)opaque;
    g_source_destroy(&t->src);
    g_source_unref(&t->src);
}

static void cb_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    struct slirp_timer *t = timer;
    (void)opaque;
    g_source_set_ready_time(&t->src, expire_ms * 1000);
}

static void cb_poll_fd(int fd, void *opaque)
{
    (void)fd;
    kick(opaque);
}

static void cb_notify(void *opaque)
{
    kick(opaque);
}

static const SlirpCb callbacks = {
    .send_packet = cb_send_packet,
    .guest_error = cb_guest_error,
    .clock_get_ns = cb_clock_ns,
    .timer_new = cb_timer_new,
    .timer_free = cb_timer_free,
    .timer_mod = cb_timer_mod,
    .register_poll_fd = cb_poll_fd,
    .unregister_poll_fd = cb_poll_fd,
    .notify = cb_notify,
};

/* ---- the card's side ---- */

static void user_send(struct netdev *net, const struct iovec *iov, unsigned n)
{
    struct user *u = container_of(net, struct user, net);
    size_t used = 0;
    if (n == 1) {
        slirp_input(u->slirp, iov->iov_base, (int)MIN(iov->iov_len, NET_FRAME_MAX));
        kick(u);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        if (iov[i].iov_len > sizeof(u->frame) - used) {
            return; /* longer than any frame: not sent, as a card would refuse */
        }
        memcpy(u->frame + used, iov[i].iov_base, iov[i].iov_len);
        used += iov[i].iov_len;
    }
    slirp_input(u->slirp, u->frame, (int)used);
    kick(u);
}

static void user_close(struct netdev *net)
{
    struct user *u = container_of(net, struct user, net);
    if (u->slirp) {
        slirp_cleanup(u->slirp);
    }
    g_source_destroy(&u->src);
    g_ptr_array_unref(u->fds);
    g_source_unref(&u->src);
}

/* ---- options ---- */

struct user_options {
    SlirpConfig cfg;
    const char *search[16];
};

static bool take_addr(KeyVal *kv, const char *key, struct in_addr *out, GError **error)
{
    const char *text = keyval_get(kv, key);
    if (text && inet_pton(AF_INET, text, out) != 1) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s=%s: not an IPv4 address", key, text);
        return false;
    }
    return true;
}

static bool take_addr6(KeyVal *kv, const char *key, struct in6_addr *out, GError **error)
{
    const char *text = keyval_get(kv, key);
    if (text && inet_pton(AF_INET6, text, out) != 1) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s=%s: not an IPv6 address", key, text);
        return false;
    }
    return true;
}

/* "10.0.2.0/24", "10.0.2.0/255.255.255.0", or without a mask: that of the address class. */
static bool take_net(KeyVal *kv, SlirpConfig *cfg, GError **error)
{
    const char *text = keyval_get(kv, "net");
    g_auto(GStrv) part = g_strsplit(text ? text : "10.0.2.0/24", "/", 2);
    guint64 bits;
    bool ok = inet_pton(AF_INET, part[0], &cfg->vnetwork) == 1;
    uint32_t first = ntohl(cfg->vnetwork.s_addr);
    if (!part[1]) {
        uint32_t mask = first >> 31 == 0   ? 0xff000000u
                        : first >> 30 == 2 ? 0xffff0000u
                                           : 0xffffff00u;
        cfg->vnetmask.s_addr = htonl(mask);
    } else if (g_ascii_string_to_unsigned(part[1], 10, 4, 30, &bits, NULL)) {
        cfg->vnetmask.s_addr = htonl(UINT32_MAX << (32 - bits));
    } else {
        ok = ok && inet_pton(AF_INET, part[1], &cfg->vnetmask) == 1;
    }
    if (!ok) {
        g_set_error(error, LODGE_ERROR, EINVAL, "net=%s: not an IPv4 network", text);
        return false;
    }
    cfg->vnetwork.s_addr &= cfg->vnetmask.s_addr;
    return true;
}

static bool in_net(const SlirpConfig *cfg, const char *key, struct in_addr a, GError **error)
{
    if ((a.s_addr & cfg->vnetmask.s_addr) != cfg->vnetwork.s_addr ||
        a.s_addr == cfg->vnetwork.s_addr ||
        a.s_addr == (cfg->vnetwork.s_addr | ~cfg->vnetmask.s_addr)) {
        char text[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &a, text, sizeof(text));
        g_set_error(error, LODGE_ERROR, EINVAL, "%s=%s: not a host of the virtual network", key,
                    text);
        return false;
    }
    return true;
}

static bool take_ipv4(KeyVal *kv, SlirpConfig *cfg, GError **error)
{
    if (!take_net(kv, cfg, error)) {
        return false;
    }
    uint32_t net = cfg->vnetwork.s_addr, room = ~cfg->vnetmask.s_addr;
    cfg->vhost.s_addr = net | (htonl(2) & room);
    cfg->vnameserver.s_addr = net | (htonl(3) & room);
    cfg->vdhcp_start.s_addr = net | (htonl(15) & room);
    if (!take_addr(kv, "host", &cfg->vhost, error) ||
        !take_addr(kv, "dns", &cfg->vnameserver, error) ||
        !take_addr(kv, "dhcpstart", &cfg->vdhcp_start, error)) {
        return false;
    }
    if (cfg->vhost.s_addr == cfg->vnameserver.s_addr) {
        g_set_error(error, LODGE_ERROR, EINVAL, "host= and dns= are the same address");
        return false;
    }
    return in_net(cfg, "host", cfg->vhost, error) && in_net(cfg, "dns", cfg->vnameserver, error) &&
           in_net(cfg, "dhcpstart", cfg->vdhcp_start, error);
}

/* "ipv6-net=fec0::/64" is short for ipv6-prefix= and ipv6-prefixlen=. */
static bool take_ipv6(KeyVal *kv, SlirpConfig *cfg, GError **error)
{
    const char *net = keyval_get(kv, "ipv6-net");
    g_auto(GStrv) part = net ? g_strsplit(net, "/", 2) : NULL;
    uint64_t len = 64;
    inet_pton(AF_INET6, "fec0::", &cfg->vprefix_addr6);
    if (part && (inet_pton(AF_INET6, part[0], &cfg->vprefix_addr6) != 1 ||
                 (part[1] && (!text_u64(part[1], &len) || len > 126)))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "ipv6-net=%s: not an IPv6 network", net);
        return false;
    }
    if (!take_addr6(kv, "ipv6-prefix", &cfg->vprefix_addr6, error) ||
        !keyval_u64(kv, "ipv6-prefixlen", 126, &len, error)) {
        return false;
    }
    cfg->vprefix_len = (uint8_t)len;
    cfg->vhost6 = cfg->vnameserver6 = cfg->vprefix_addr6;
    cfg->vhost6.s6_addr[15] |= 2;
    cfg->vnameserver6.s6_addr[15] |= 3;
    return take_addr6(kv, "ipv6-host", &cfg->vhost6, error) &&
           take_addr6(kv, "ipv6-dns", &cfg->vnameserver6, error);
}

/* Calls @each for all values of a key that may be repeated, until one fails. */
static bool take_each(KeyVal *kv, const char *key,
                      bool (*each)(void *owner, const char *text, GError **error), void *owner,
                      GError **error)
{
    g_autofree char *in_json = g_strconcat(key, ".", NULL); /* a list of {"str": value} there */
    for (unsigned i = 0; i < keyval_count(kv); i++) {
        const char *name = keyval_key(kv, i);
        bool of_list = g_str_has_prefix(name, in_json) && g_str_has_suffix(name, ".str");
        if (!of_list && !g_str_equal(name, key)) {
            continue;
        }
        keyval_get(kv, name); /* it is known */
        if (!each(owner, keyval_value(kv, i), error)) {
            return false;
        }
    }
    return true;
}

static bool add_search(void *owner, const char *text, GError **error)
{
    struct user_options *o = owner;
    unsigned n = 0;
    while (o->search[n]) {
        n++;
    }
    if (n + 1 == G_N_ELEMENTS(o->search)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "dnssearch= more than %u times", n);
        return false;
    }
    o->search[n] = text;
    o->cfg.vdnssearch = o->search;
    return true;
}

static bool take_names(KeyVal *kv, struct user_options *o, GError **error)
{
    o->cfg.vhostname = keyval_get(kv, "hostname");
    o->cfg.vdomainname = keyval_get(kv, "domainname");
    o->cfg.tftp_path = keyval_get(kv, "tftp");
    o->cfg.tftp_server_name = keyval_get(kv, "tftp-server-name");
    o->cfg.bootfile = keyval_get(kv, "bootfile");
    if (o->cfg.tftp_path && !g_file_test(o->cfg.tftp_path, G_FILE_TEST_IS_DIR)) {
        g_set_error(error, LODGE_ERROR, ENOTDIR, "tftp=%s: not a directory", o->cfg.tftp_path);
        return false;
    }
    const char *smb = keyval_get(kv, "smb");
    if (smb) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "smb=%s: there is no SMB server here", smb);
        return false;
    }
    return take_each(kv, "dnssearch", add_search, o, error);
}

static bool take_options(KeyVal *kv, struct user_options *o, GError **error)
{
    bool restricted = false;
    o->cfg.version = 3;
    o->cfg.in_enabled = o->cfg.in6_enabled = true;
    if (!keyval_bool(kv, "ipv4", &o->cfg.in_enabled, error) ||
        !keyval_bool(kv, "ipv6", &o->cfg.in6_enabled, error) ||
        !keyval_bool(kv, "restrict", &restricted, error) || !take_ipv4(kv, &o->cfg, error) ||
        !take_ipv6(kv, &o->cfg, error) || !take_names(kv, o, error)) {
        return false;
    }
    o->cfg.restricted = restricted;
    if (!o->cfg.in_enabled && !o->cfg.in6_enabled) {
        g_set_error(error, LODGE_ERROR, EINVAL, "ipv4=off and ipv6=off leave nothing");
        return false;
    }
    return true;
}

/* "ADDR:PORT" with an empty address for @any; false if it is neither. */
static bool endpoint(const char *text, struct in_addr any, struct in_addr *addr, uint16_t *port)
{
    const char *colon = strrchr(text, ':');
    guint64 n;
    if (!colon || !g_ascii_string_to_unsigned(colon + 1, 10, 0, 65535, &n, NULL)) {
        return false;
    }
    g_autofree char *host = g_strndup(text, (gsize)(colon - text));
    *addr = any;
    *port = (uint16_t)n;
    return !*host || inet_pton(AF_INET, host, addr) == 1;
}

/* What follows "tcp:", "udp:" or ":", or NULL. */
static const char *protocol(const char *text, bool *udp)
{
    *udp = g_str_has_prefix(text, "udp:");
    return *udp || g_str_has_prefix(text, "tcp:") ? text + 4 : *text == ':' ? text + 1 : NULL;
}

/* "tcp:127.0.0.1:2222-10.0.2.15:22" */
static bool add_hostfwd(void *owner, const char *text, GError **error)
{
    struct user *u = owner;
    struct in_addr host, guest, any = {.s_addr = INADDR_ANY};
    uint16_t host_port, guest_port;
    bool udp;
    const char *rest = protocol(text, &udp), *dash = rest ? strchr(rest, '-') : NULL;
    if (!dash) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "hostfwd=%s: not [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport", text);
        return false;
    }
    g_autofree char *left = g_strndup(rest, (gsize)(dash - rest));
    if (!endpoint(left, any, &host, &host_port) ||
        !endpoint(dash + 1, u->dhcp_start, &guest, &guest_port) || !guest_port) {
        g_set_error(error, LODGE_ERROR, EINVAL, "hostfwd=%s: not an address and port", text);
        return false;
    }
    if (slirp_add_hostfwd(u->slirp, udp, host, host_port, guest, guest_port) < 0) {
        error_set_errno(error, errno ? errno : EADDRINUSE, "hostfwd=%s", text);
        return false;
    }
    return true;
}

/* "tcp:127.0.0.1:2222" */
static bool remove_hostfwd(struct user *u, const char *text, GError **error)
{
    struct in_addr host, any = {.s_addr = INADDR_ANY};
    uint16_t port;
    bool udp;
    const char *rest = protocol(text, &udp);
    if (!rest || !endpoint(rest, any, &host, &port)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: not [tcp|udp]:[hostaddr]:hostport", text);
        return false;
    }
    if (slirp_remove_hostfwd(u->slirp, udp, host, port) < 0) {
        g_set_error(error, LODGE_ERROR, ENOENT, "host forwarding rule for %s not found", text);
        return false;
    }
    return true;
}

static bool user_forward(struct netdev *net, bool add, const char *rule, GError **error)
{
    struct user *u = container_of(net, struct user, net);
    return add ? add_hostfwd(u, rule, error) : remove_hostfwd(u, rule, error);
}

static char *user_connections(struct netdev *net)
{
    return slirp_connection_info(container_of(net, struct user, net)->slirp);
}

/* "tcp:10.0.2.100:80-cmd:COMMAND": a process a connection, its stdin and stdout. */
static bool add_guestfwd(void *owner, const char *text, GError **error)
{
    struct user *u = owner;
    struct in_addr addr, none = {0};
    uint16_t port;
    const char *dash = strchr(text, '-');
    g_autofree char *left = dash ? g_strndup(text, (gsize)(dash - text)) : g_strdup(text);
    const char *at = g_str_has_prefix(left, "tcp:") ? left + 4 : left;
    if (!dash || !endpoint(at, none, &addr, &port) || !addr.s_addr || !port) {
        g_set_error(error, LODGE_ERROR, EINVAL, "guestfwd=%s: not tcp:addr:port-cmd:command", text);
        return false;
    }
    if (!g_str_has_prefix(dash + 1, "cmd:")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "guestfwd=%s: only -cmd:command is supported, not a chardev", text);
        return false;
    }
    if (slirp_add_exec(u->slirp, dash + 5, &addr, port) < 0) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "guestfwd=%s: address taken, or not in the virtual network", text);
        return false;
    }
    return true;
}

static struct netdev *user_open(KeyVal *kv, const char *id, GError **error)
{
    struct user_options o = {0};
    (void)id;
    if (!take_options(kv, &o, error)) {
        return NULL;
    }
    GSource *src = g_source_new(&user_source, sizeof(struct user));
    struct user *u = container_of(src, struct user, src);
    u->fds = g_ptr_array_new_with_free_func(g_free);
    u->net.send = user_send;
    u->net.close = user_close;
    u->net.forward = user_forward;
    u->net.connections = user_connections;
    u->net.sums_good = u->net.takes_large = true;
    u->slirp = slirp_new(&o.cfg, &callbacks, u);
    if (!u->slirp) {
        g_set_error(error, LODGE_ERROR, EINVAL, "libslirp refuses these options");
    }
    u->dhcp_start = o.cfg.vdhcp_start;
    if (!u->slirp || !take_each(kv, "hostfwd", add_hostfwd, u, error) ||
        !take_each(kv, "guestfwd", add_guestfwd, u, error)) {
        user_close(&u->net);
        return NULL;
    }
    char net[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &o.cfg.vnetwork, net, sizeof(net));
    u->net.about = g_strdup_printf("net=%s,restrict=%s", net, o.cfg.restricted ? "on" : "off");
    g_source_attach(src, NULL);
    return &u->net;
}

const struct net_backend net_backend_user = {
    .name = "user",
    .about = "NAT network in the process, no privileges needed",
    .open = user_open,
};
