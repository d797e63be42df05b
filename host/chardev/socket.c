/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/chardev/backend.h"

#include "base/error.h"
#include "base/inet.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * socket - UNIX and TCP stream sockets, server or client; udp beside them.
 *
 * Spec (telnet=on): RFC 854 "Telnet Protocol Specification", RFC 857 "Telnet Echo Option",
 * RFC 858 "Telnet Suppress Go Ahead Option", RFC 856 "Telnet Binary Transmission".
 *
 * A server serves one client at a time; others wait in the kernel's queue.
 */
struct socket {
    struct stream stream;
    int listener;       /* -1 while there is none */
    guint listen_watch, retry;
    unsigned reconnect; /* seconds between attempts of a client; 0: never */
    char *path, *host, *port; /* .path or the other two */
    bool unlink_path, telnet, nodelay;
    unsigned telnet_skip; /* bytes of a telnet command still to come */
};

enum { BACKLOG = 4 };

static struct socket *self(struct chardev *chr)
{
    return container_of(chr, struct socket, stream.chr);
}

static int set_flags(int fd)
{
    if (fd >= 0) {
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    return fd;
}

/* ---- addresses ---- */

static bool unix_address(const char *path, struct sockaddr_un *out, GError **error)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(out->sun_path)) {
        g_set_error(error, LODGE_ERROR, ENAMETOOLONG, "socket path is longer than %zu bytes",
                    sizeof(out->sun_path) - 1);
        return false;
    }
    memcpy(out->sun_path, path, strlen(path) + 1);
    return true;
}

static int unix_socket(const char *path, bool server, GError **error)
{
    struct sockaddr_un addr;
    if (!unix_address(path, &addr, error)) {
        return -1;
    }
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr *sa = (const struct sockaddr *)&addr;
    if (server) {
        unix_forget(path);
    }
    if (fd < 0 || (server ? bind(fd, sa, sizeof(addr)) : connect(fd, sa, sizeof(addr))) < 0 ||
        (server && listen(fd, BACKLOG) < 0)) {
        error_set_errno(error, errno, "%s", path);
        return -1;
    }
    return g_steal_fd(&fd);
}

static int try_address(const struct addrinfo *a, bool server)
{
    int on = 1;
    autofd int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd < 0) {
        return -1;
    }
    if (server) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    }
    if ((server ? bind(fd, a->ai_addr, a->ai_addrlen) : connect(fd, a->ai_addr, a->ai_addrlen)) < 0 ||
        (server && a->ai_socktype == SOCK_STREAM && listen(fd, BACKLOG) < 0)) {
        return -1;
    }
    return g_steal_fd(&fd);
}

static int inet_socket(const char *host, const char *port, int type, bool server, GError **error)
{
    struct addrinfo hints = {.ai_socktype = type, .ai_flags = server ? AI_PASSIVE : 0}, *list;
    int fd = -1;
    if (!inet_look_up(host, port, &hints, &list, error)) {
        return -1;
    }
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = try_address(a, server);
    }
    int saved = errno;
    freeaddrinfo(list);
    if (fd < 0) {
        error_set_errno(error, saved, "%s:%s", host ? host : "", port);
    }
    return fd;
}

/* ---- telnet ---- */

enum { IAC = 255, IAC_DONT = 254, IAC_WILL = 251, IAC_SB = 250, IAC_BREAK = 243 };

static void telnet_greet(struct chardev *chr)
{
    static const uint8_t hello[] = {IAC, 251, 1, IAC, 251, 3, IAC, 251, 0, IAC, 253, 0};
    chardev_write(chr, hello, sizeof(hello)); /* WILL echo, go-ahead off, binary; DO binary */
}

/* Takes commands out; a doubled IAC is a byte 255. */
static size_t telnet_filter(struct stream *stream, uint8_t *data, size_t n)
{
    struct socket *s = container_of(stream, struct socket, stream);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = data[i];
        if (s->telnet_skip == 2) {
            s->telnet_skip = c >= IAC_WILL && c <= IAC_DONT ? 1 : 0;
            if (c == IAC) {
                data[kept++] = c;
            } else if (c == IAC_BREAK) {
                chardev_tell(&stream->chr, CHARDEV_BREAK);
            }
        } else if (s->telnet_skip == 1) {
            s->telnet_skip = 0;
        } else if (c == IAC) {
            s->telnet_skip = 2;
        } else if (c != '\0') {
            data[kept++] = c;
        }
    }
    return kept;
}

/* ---- connections ---- */

static gboolean incoming(gint fd, GIOCondition condition, gpointer data);
static gboolean try_again(gpointer data);

static void connected(struct socket *s, int fd)
{
    int on = 1;
    set_flags(fd);
    if (s->nodelay) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    s->stream.in = s->stream.out = fd;
    s->stream.chr.open = true;
    s->telnet_skip = 0;
    g_clear_handle_id(&s->listen_watch, g_source_remove);
    if (s->telnet) {
        telnet_greet(&s->stream.chr);
    }
    chardev_tell(&s->stream.chr, CHARDEV_OPENED);
    stream_start(&s->stream);
}

static void listen_again(struct socket *s)
{
    if (s->listener >= 0 && !s->listen_watch) {
        s->listen_watch = g_unix_fd_add(s->listener, G_IO_IN, incoming, s);
    }
}

static void hung_up(struct stream *stream)
{
    struct socket *s = container_of(stream, struct socket, stream);
    stream_stop(stream);
    chardev_tell(&stream->chr, CHARDEV_CLOSED);
    listen_again(s);
    if (s->listener < 0 && s->reconnect && !s->retry) {
        s->retry = g_timeout_add_seconds(s->reconnect, try_again, s);
    }
}

static void send_away(struct chardev *chr)
{
    if (chr->open) {
        hung_up(&self(chr)->stream);
    }
}

static gboolean incoming(gint fd, GIOCondition condition, gpointer data)
{
    struct socket *s = data;
    (void)condition;
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0) {
        return G_SOURCE_CONTINUE;
    }
    s->listen_watch = 0;
    connected(s, client);
    return G_SOURCE_REMOVE;
}

static int dial(struct socket *s, GError **error)
{
    return s->path ? unix_socket(s->path, false, error)
                   : inet_socket(s->host, s->port, SOCK_STREAM, false, error);
}

static gboolean try_again(gpointer data)
{
    struct socket *s = data;
    int fd = dial(s, NULL);
    if (fd < 0) {
        return G_SOURCE_CONTINUE;
    }
    s->retry = 0;
    connected(s, fd);
    return G_SOURCE_REMOVE;
}

static void socket_close(struct chardev *chr)
{
    struct socket *s = self(chr);
    g_clear_handle_id(&s->listen_watch, g_source_remove);
    g_clear_handle_id(&s->retry, g_source_remove);
    stream_stop(&s->stream);
    if (s->listener >= 0) {
        close(s->listener);
    }
    if (s->unlink_path) {
        unlink(s->path);
    }
    g_free(s->path);
    g_free(s->host);
    g_free(s->port);
    g_free(s);
}

/* ---- making ---- */

static bool serve(struct socket *s, bool wait, GError **error)
{
    s->listener = s->path ? unix_socket(s->path, true, error)
                          : inet_socket(s->host, s->port, SOCK_STREAM, true, error);
    if (s->listener < 0) {
        return false;
    }
    s->unlink_path = s->path != NULL;
    if (wait) {
        if (chardev_waiting) {
            chardev_waiting(s->stream.chr.about);
        }
        int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            error_set_errno(error, errno, "accept");
            return false;
        }
        connected(s, fd);
    } else {
        listen_again(s);
    }
    set_flags(s->listener);
    return true;
}

static bool call(struct socket *s, GError **error)
{
    g_autoptr(GError) why = NULL;
    int fd = dial(s, &why);
    if (fd >= 0) {
        connected(s, fd);
    } else if (s->reconnect) {
        s->retry = g_timeout_add_seconds(s->reconnect, try_again, s);
    } else {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    return true;
}

/* fd=N: a socket that somebody opened for us, listening or connected. */
static bool adopt(struct socket *s, const char *text, GError **error)
{
    uint64_t fd;
    int listening = 0;
    socklen_t len = sizeof(listening);
    if (!text_u64(text, &fd) || fd > INT_MAX ||
        getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "fd=%s is no open socket", text);
        return false;
    }
    if (listening) {
        s->listener = set_flags((int)fd);
        listen_again(s);
    } else {
        connected(s, (int)fd);
    }
    return true;
}

static bool socket_setup(struct socket *s, KeyVal *opts, GError **error)
{
    const char *fd = keyval_get(opts, "fd");
    bool server = false, wait = true;
    s->path = g_strdup(keyval_get(opts, "path"));
    s->host = g_strdup(keyval_get(opts, "host"));
    s->port = g_strdup(keyval_get(opts, "port"));
    if (!keyval_bool(opts, "server", &server, error) || !keyval_bool(opts, "wait", &wait, error) ||
        !keyval_bool(opts, "telnet", &s->telnet, error) ||
        !keyval_bool(opts, "nodelay", &s->nodelay, error) ||
        !keyval_bool(opts, "delay", &(bool){false}, error) ||
        !keyval_unsigned(opts, "reconnect", 3600, &s->reconnect, error)) {
        return false;
    }
    if (!fd && !s->path == !s->port) {
        g_set_error(error, LODGE_ERROR, EINVAL, "a socket needs either path= or port=");
        return false;
    }
    if (server && s->reconnect) {
        g_set_error(error, LODGE_ERROR, EINVAL, "reconnect= is for clients, not with server=on");
        return false;
    }
    s->stream.filter = s->telnet ? telnet_filter : NULL;
    const char *suffix = server ? ",server=on" : "";
    s->stream.chr.about =
        fd ? g_strdup_printf("fd:%s", fd)
        : s->path
            ? g_strdup_printf("unix:%s%s", s->path, suffix)
            : g_strdup_printf("%s:%s:%s%s", s->telnet ? "telnet" : "tcp", s->host ? s->host : "",
                              s->port, suffix);
    return fd ? adopt(s, fd, error) : server ? serve(s, wait, error) : call(s, error);
}

static struct chardev *socket_open(KeyVal *opts, GError **error)
{
    struct socket *s = g_new0(struct socket, 1);
    stream_init(&s->stream, "socket", -1, -1);
    s->stream.chr.close = socket_close;
    s->stream.chr.hang_up = send_away;
    s->stream.hung_up = hung_up;
    s->listener = -1;
    if (!socket_setup(s, opts, error)) {
        g_free(s->stream.chr.about);
        socket_close(&s->stream.chr);
        return NULL;
    }
    return &s->stream.chr;
}

/* The peer's address in the family of the bound socket @fd. */
static bool udp_connect(int fd, const char *host, const char *port, GError **error)
{
    struct sockaddr_storage mine;
    socklen_t len = sizeof(mine);
    getsockname(fd, (struct sockaddr *)&mine, &len);
    struct addrinfo hints = {.ai_family = mine.ss_family, .ai_socktype = SOCK_DGRAM}, *to = NULL;
    if (!inet_look_up(host, port, &hints, &to, error)) {
        return false;
    }
    bool ok = connect(fd, to->ai_addr, to->ai_addrlen) == 0;
    if (!ok) {
        error_set_errno(error, errno, "%s:%s", host, port);
    }
    freeaddrinfo(to);
    return ok;
}

static struct chardev *udp_open(KeyVal *opts, GError **error)
{
    const char *host = keyval_get(opts, "host"), *port = keyval_get(opts, "port");
    const char *local = keyval_get(opts, "localaddr"), *local_port = keyval_get(opts, "localport");
    bool bound = local || local_port;
    host = host ? host : "localhost";
    if (!port) {
        g_set_error(error, LODGE_ERROR, EINVAL, "udp needs port=");
        return NULL;
    }
    autofd int fd = bound ? inet_socket(local, local_port ? local_port : "0", SOCK_DGRAM, true, error)
                          : inet_socket(host, port, SOCK_DGRAM, false, error);
    if (fd < 0 || (bound && !udp_connect(fd, host, port, error))) {
        return NULL;
    }
    struct stream *s = g_new0(struct stream, 1);
    int both = set_flags(g_steal_fd(&fd));
    stream_init(s, "udp", both, both);
    s->datagrams = true;
    s->chr.about = g_strdup_printf("udp:%s:%s", host, port);
    return &s->chr;
}

const struct chardev_backend chardev_socket = {
    "socket", "UNIX or TCP (path= or host=,port=; server=, wait=, reconnect=, telnet=)",
    socket_open};
const struct chardev_backend chardev_udp = {
    "udp", "datagrams (host=, port=, localaddr=, localport=)", udp_open};
