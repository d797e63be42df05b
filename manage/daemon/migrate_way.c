/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The socket by which a machine's state goes to another host, and the name under which that host
 * is offered to the source.
 *
 * Facts: libvirt 9.0, "Guest migration", section "Migration URIs"; qemu.conf (migration_host,
 * migration_address, migration_port_min).
 */
#include "manage/daemon/migrate.h"

#include "base/inet.h"
#include "base/util.h"
#include "manage/daemon/client.h"
#include "manage/daemon/files.h"
#include "manage/daemon/settings.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { CONNECT_SECONDS = 30 };

typedef struct place {
    char *host, *port, *path; /* .path: a UNIX socket; else .port may be NULL */
} Place;

static void place_clear(Place *p)
{
    g_free(p->host);
    g_free(p->port);
    g_free(p->path);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Place, place_clear)

static bool place_read(const char *uri, Place *out, GError **error)
{
    if (g_str_has_prefix(uri, "unix:")) {
        const char *path = uri + strlen("unix:");
        path += g_str_has_prefix(path, "//") ? 2 : 0;
        out->path = *path == '/' ? g_strdup(path) : NULL;
        if (out->path) {
            return true;
        }
    } else if (g_str_has_prefix(uri, "tcp:")) {
        const char *at = uri + strlen("tcp:");
        at += g_str_has_prefix(at, "//") ? 2 : 0;
        size_t n = *at == '[' ? strcspn(at, "]") + 1 : strcspn(at, ":/");
        out->host = *at == '[' ? g_strndup(at + 1, n - 2) : g_strndup(at, n);
        out->port = at[n] == ':' ? g_strndup(at + n + 1, strcspn(at + n + 1, "/")) : NULL;
        if (*out->host) {
            return true;
        }
    }
    libvirt_error(error, ERR_INVALID_ARG,
                  "unsupported migration URI '%s': tcp://HOST[:PORT] or "
                  "unix:///PATH",
                  uri);
    return false;
}

static int connect_one(int family, const struct sockaddr *to, socklen_t n)
{
    autofd int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int code = 0;
    socklen_t len = sizeof(code);
    if (fd < 0 || (connect(fd, to, n) != 0 && errno != EINPROGRESS)) {
        return -1;
    }
    if (poll(&p, 1, CONNECT_SECONDS * 1000) <= 0) {
        errno = ETIMEDOUT;
        return -1;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) != 0 || code) {
        errno = code;
        return -1;
    }
    fcntl(fd, F_SETFL, 0);
    return g_steal_fd(&fd);
}

/* Without the lock. */
static int connect_to_place(const Place *at)
{
    if (at->path) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        g_strlcpy(address.sun_path, at->path, sizeof(address.sun_path));
        return connect_one(AF_UNIX, (struct sockaddr *)&address, sizeof(address));
    }
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int fd = -1;
    if (!at->port || getaddrinfo(at->host, at->port, &hints, &list) != 0) {
        errno = EHOSTUNREACH;
        return -1;
    }
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = connect_one(a->ai_family, a->ai_addr, a->ai_addrlen);
    }
    int code = errno;
    freeaddrinfo(list);
    errno = code;
    return fd;
}

int move_connect(const char *uri, GError **error)
{
    g_auto(Place) at = {0};
    if (!uri || !place_read(uri, &at, error)) {
        if (!uri) {
            libvirt_error(error, ERR_INTERNAL, "no migration URI was given");
        }
        return -1;
    }
    daemon_unlock();
    int fd = connect_to_place(&at), code = errno;
    daemon_lock();
    if (fd < 0) {
        libvirt_error(error, ERR_OPERATION_FAILED, "unable to connect to '%s': %s", uri,
                      g_strerror(code));
    }
    return fd;
}

/* --- the destination --- */

static int listen_on(const struct addrinfo *a)
{
    int on = 1, off = 0;
    autofd int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        (a->ai_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) != 0) ||
        bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 1) != 0) {
        return -1;
    }
    return g_steal_fd(&fd);
}

int socket_listen_tcp(const char *host, unsigned port)
{
    g_autofree char *text = g_strdup_printf("%u", port);
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int fd = -1;
    if (getaddrinfo(host, text, &hints, &list) != 0) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    for (const struct addrinfo *a = list; a && fd < 0 && !host; a = a->ai_next) {
        fd = a->ai_family == AF_INET6 ? listen_on(a) : -1;
    }
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = listen_on(a);
    }
    int code = errno;
    freeaddrinfo(list);
    errno = code;
    return fd;
}

int socket_listen_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    const struct addrinfo a = {.ai_family = AF_UNIX,
                               .ai_addr = (struct sockaddr *)&address,
                               .ai_addrlen = sizeof(address)};
    return listen_on(&a);
}

/* --- the name under which this host is offered --- */

static bool same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    if (!b || a->sa_family != b->sa_family) {
        return false;
    }
    if (a->sa_family == AF_INET) {
        return memcmp(&((const struct sockaddr_in *)(const void *)a)->sin_addr,
                      &((const struct sockaddr_in *)(const void *)b)->sin_addr, 4) == 0;
    }
    return a->sa_family == AF_INET6 &&
           memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr, 16) == 0;
}

/* One that other hosts can use too as it stands. */
static bool is_far(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        uint32_t ip = ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr);
        return ip >> 24 != 127 && ip != 0;
    }
    const struct in6_addr *ip = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
    return a->sa_family == AF_INET6 && !IN6_IS_ADDR_LOOPBACK(ip) && !IN6_IS_ADDR_LINKLOCAL(ip) &&
           !IN6_IS_ADDR_UNSPECIFIED(ip);
}

static bool is_ours(const struct sockaddr *a, const struct ifaddrs *all)
{
    for (; all; all = all->ifa_next) {
        if (same_address(a, all->ifa_addr)) {
            return is_far(a);
        }
    }
    return false;
}

static char *address_text(const struct sockaddr *a)
{
    char text[INET6_ADDRSTRLEN] = "";
    if (a->sa_family == AF_INET6) {
        const struct in6_addr *ip = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
        if (!IN6_IS_ADDR_V4MAPPED(ip)) {
            return g_strdup(inet_ntop(AF_INET6, ip, text, sizeof(text)));
        }
        return g_strdup(inet_ntop(AF_INET, ip->s6_addr + 12, text, sizeof(text)));
    }
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)a;
    return g_strdup(inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text)));
}

/* @name, if whatever it stands for is this host; else what of it is; NULL if nothing. */
static char *by_name(const char *name)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    struct ifaddrs *all = NULL;
    if (getaddrinfo(name, NULL, &hints, &list) != 0) {
        return NULL;
    }
    if (getifaddrs(&all) != 0) {
        freeaddrinfo(list);
        return NULL;
    }
    const struct sockaddr *ours = NULL;
    bool others = false;
    for (const struct addrinfo *a = list; a; a = a->ai_next) {
        bool is = is_ours(a->ai_addr, all);
        ours = is && !ours ? a->ai_addr : ours;
        others = others || !is;
    }
    char *text = !ours ? NULL : others ? address_text(ours) : g_strdup(name);
    freeaddrinfo(list);
    freeifaddrs(all);
    return text;
}

/* Our side of the way to everywhere: asks the kernel, sends nothing. */
static char *by_route(void)
{
    /* An address for documentation: RFC 5737, "IPv4 Address Blocks Reserved for Documentation". */
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct sockaddr_storage is = {0};
    socklen_t n = sizeof(is);
    inet_pton(AF_INET, "198.51.100.1", &to.sin_addr);
    autofd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0 ||
        getsockname(fd, (struct sockaddr *)&is, &n) != 0) {
        return NULL;
    }
    return address_text((struct sockaddr *)&is);
}

char *move_host(const char *name, const struct sockaddr *came_in)
{
    char *host = by_name(name);
    if (!host && came_in && (came_in->sa_family == AF_INET || came_in->sa_family == AF_INET6)) {
        host = address_text(came_in);
    }
    host = host ? host : by_route();
    return host ? host : g_strdup("127.0.0.1");
}

/* @listen, if it is one address that the source can use. */
static char *by_listening(const char *listen)
{
    struct in_addr four;
    struct in6_addr six;
    if (!listen) {
        return NULL;
    }
    bool one = (inet_pton(AF_INET, listen, &four) == 1 && four.s_addr != 0) ||
               (inet_pton(AF_INET6, listen, &six) == 1 && !IN6_IS_ADDR_UNSPECIFIED(&six));
    return one ? g_strdup(listen) : NULL;
}

/* --- the door --- */

/* At *port, or at one of those for migrations if that is 0. */
static int open_port(const char *listen, unsigned *port)
{
    static atomic_uint next;
    if (*port) {
        return socket_listen_tcp(listen, *port);
    }
    unsigned first = setting_number("migration", "first_port");
    unsigned n = setting_number("migration", "last_port") - first + 1;
    int fd = -1;
    errno = EINVAL;
    for (unsigned i = 0; fd < 0 && n <= 65536 && first + n <= 65536 && i < n; i++) {
        *port = first + next++ % n;
        fd = socket_listen_tcp(listen, *port);
    }
    return fd;
}

int move_port(const char *listen, unsigned *port, GError **error)
{
    const char *set = setting("migration", "address");
    g_autofree char *address = g_strdup(listen || !*set ? listen : set);
    daemon_unlock();
    int fd = open_port(address, port), code = errno;
    daemon_lock();
    if (fd < 0) {
        libvirt_error(error, ERR_SYSTEM, "cannot listen for the disks: %s", g_strerror(code));
    }
    return fd;
}

char *move_host_of(const char *uri)
{
    g_auto(Place) at = {0};
    return uri && place_read(uri, &at, NULL) ? g_steal_pointer(&at.host) : NULL;
}

static int open_one(const Place *at, const char *listen, unsigned *port)
{
    if (at->path) {
        unix_forget(at->path);
        return socket_listen_unix(at->path);
    }
    if (at->port) {
        *port = (unsigned)g_ascii_strtoull(at->port, NULL, 10);
        errno = EINVAL;
        return *port && *port < 65536 ? socket_listen_tcp(listen, *port) : -1;
    }
    return open_port(listen, port);
}

static char *choose_host(const Place *at, const char *listen, const struct sockaddr *came_in)
{
    const char *set = setting("migration", "host");
    if (at->host || *set) {
        return g_strdup(at->host ? at->host : set);
    }
    char *host = by_listening(listen);
    return host ? host : move_host(g_get_host_name(), came_in);
}

int move_listen(const struct move *w, const struct client *c, char **uri, GError **error)
{
    g_auto(Place) at = {0};
    if (w->uri && !place_read(w->uri, &at, error)) {
        return -1;
    }
    struct sockaddr_storage came_in = {0};
    socklen_t n = sizeof(came_in);
    if (!c->dead) {
        getsockname(c->watch.fd, (struct sockaddr *)&came_in, &n);
    }
    const char *set = setting("migration", "address");
    g_autofree char *listen = g_strdup(w->listen || !*set ? w->listen : set);
    unsigned port = 0;
    daemon_unlock(); /* names may take long */
    autofd int fd = open_one(&at, listen, &port);
    int code = errno;
    g_autofree char *host =
        fd >= 0 && !at.path ? choose_host(&at, listen, (struct sockaddr *)&came_in) : NULL;
    daemon_lock();
    if (fd < 0) {
        libvirt_error(error, ERR_SYSTEM, "cannot listen for the migration at %s: %s",
                      w->uri ? w->uri : "one of the ports for it", g_strerror(code));
        return -1;
    }
    bool six = host && strchr(host, ':') != NULL;
    *uri = at.path ? g_strdup(w->uri)
                   : g_strdup_printf("tcp:%s%s%s:%u", six ? "[" : "", host, six ? "]" : "", port);
    return g_steal_fd(&fd);
}
