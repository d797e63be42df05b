/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vnc: -vnc's options, and the way from clients to keyboard, mouse and screen.
 */
#include "host/display/vnc.h"

#include "base/inet.h"
#include "base/keyval.h"
#include "base/util.h"
#include "host/display/display.h"
#include "host/display/keys.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { PORT_FIRST = 5900, WS_PORT_FIRST = 5700, LISTENERS_MAX = 8, REFRESH_MS = 33 };
enum { WHEEL_UP = 8, WHEEL_DOWN = 16 };

static struct {
    struct display *display;
    struct display_viewer viewer;
    bool running, password;
    unsigned clients, buttons;
    int x, y;               /* where the pointer was last */
    bool placed;
    unsigned width, height; /* what the server shows */
    uint8_t down[256 / 8];  /* keys that clients hold */
    char *path;             /* UNIX socket, unlinked at the end */
    struct vnc_end end;     /* where it listens */
} vnc;

void (*vnc_told)(enum vnc_step step, const struct vnc_end *client);

/* ---- from the screen ---- */

static void put(unsigned x, unsigned y, unsigned w, unsigned h)
{
    const struct display *d = vnc.display;
    vnc_server_pointer_mode(d->pointer_absolute);
    if (vnc.clients && d->pixels) {
        vnc_server_put(d->pixels, d->stride, x, y, MIN(w, d->width - x), MIN(h, d->height - y));
    }
}

static void changed(struct display_viewer *v, unsigned x, unsigned y, unsigned w, unsigned h)
{
    (void)v;
    put(x, y, w, h);
}

static void resized(struct display_viewer *v)
{
    const struct display *d = vnc.display;
    (void)v;
    if (!d->pixels) {
        return;
    }
    if (d->width != vnc.width || d->height != vnc.height) {
        vnc.width = d->width;
        vnc.height = d->height;
        vnc_server_resize(vnc.width, vnc.height);
    }
    put(0, 0, d->width, d->height);
}

static void pointer_mode(struct display_viewer *v)
{
    (void)v;
    vnc_server_pointer_mode(vnc.display->pointer_absolute);
}

/* ---- from clients ---- */

static void key(unsigned code, bool down)
{
    if (!code || code > 255) {
        return;
    }
    vnc.down[code / 8] = (uint8_t)((vnc.down[code / 8] & ~(1u << code % 8)) | (unsigned)down << code % 8);
    display_key(vnc.display, code, down);
}

static void release_keys(void)
{
    for (unsigned code = 1; code < 256; code++) {
        if (vnc.down[code / 8] >> code % 8 & 1) {
            key(code, false);
        }
    }
}

static void pointer(const struct vnc_input *in)
{
    struct display *d = vnc.display;
    unsigned pressed = in->buttons & ~vnc.buttons;
    int wheel = (pressed & WHEEL_DOWN ? 1 : 0) - (pressed & WHEEL_UP ? 1 : 0);
    int x = in->x, y = in->y;
    if (!d->width || !d->height) {
        return;
    }
    if (d->pointer_absolute) {
        x = CLAMP(x, 0, (int)d->width - 1) * 32767 / MAX((int)d->width - 1, 1);
        y = CLAMP(y, 0, (int)d->height - 1) * 32767 / MAX((int)d->height - 1, 1);
    } else if (!in->relative) {
        x = vnc.placed ? in->x - vnc.x : 0;
        y = vnc.placed ? in->y - vnc.y : 0;
        vnc.placed = true;
        vnc.x = in->x;
        vnc.y = in->y;
    }
    vnc.buttons = in->buttons;
    display_pointer(d, x, y, wheel, in->buttons & 7);
}

/* The screen is looked after only while somebody looks at it; its size is always known. */
static void count(unsigned clients)
{
    bool was = vnc.clients, is = clients;
    vnc.clients = clients;
    if (was == is) {
        return;
    }
    display_remove_viewer(vnc.display, &vnc.viewer);
    vnc.viewer.interval_ms = is ? REFRESH_MS : 0;
    if (is && vnc.display->refresh) {
        vnc.display->refresh(vnc.display->adapter);
    }
    display_add_viewer(vnc.display, &vnc.viewer); /* which shows it all */
    if (!is) {
        vnc.placed = false;
        release_keys();
    }
}

static void input(const struct vnc_input *in)
{
    switch (in->what) {
    case VNC_KEYSYM:
        key(key_of_keysym(in->code), in->down);
        break;
    case VNC_SCANCODE:
        key(in->code, in->down);
        break;
    case VNC_POINTER:
        pointer(in);
        break;
    case VNC_COUNT:
        count(in->code);
        if (vnc_told) {
            vnc_told(in->step, &in->client);
        }
        break;
    }
}

/* ---- where to listen ---- */

struct sockets {
    int fd[LISTENERS_MAX];
    unsigned n;
};

static void close_all(struct sockets *s, unsigned from)
{
    while (s->n > from) {
        close(s->fd[--s->n]);
    }
}

static bool listen_unix(struct sockets *s, const char *path, GError **error)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof(sa.sun_path)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "unix:%s: not a socket path", path);
        return false;
    }
    memcpy(sa.sun_path, path, strlen(path) + 1);
    unix_forget(path);
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 16) < 0) {
        error_set_errno(error, errno, "unix:%s", path);
        return false;
    }
    s->fd[s->n++] = g_steal_fd(&fd);
    vnc.path = g_strdup(path);
    return true;
}

static int listen_one(const struct addrinfo *ai)
{
    int one = 1;
    autofd int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (ai->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    }
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, 16) < 0) {
        return -errno;
    }
    return g_steal_fd(&fd);
}

/* All addresses of @host (empty: any), or none: a host without IPv6 is no failure. */
static bool listen_tcp(struct sockets *s, const char *host, unsigned port, int family, GError **error)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_family = family,
                             .ai_socktype = SOCK_STREAM}, *list = NULL;
    g_autofree char *service = g_strdup_printf("%u", port);
    unsigned before = s->n;
    int failed = 0;
    if (!inet_look_up(host, service, &hints, &list, error)) {
        return false;
    }
    for (const struct addrinfo *ai = list; ai && s->n < LISTENERS_MAX; ai = ai->ai_next) {
        int fd = listen_one(ai);
        if (fd >= 0) {
            s->fd[s->n++] = fd;
        } else if (fd != -EAFNOSUPPORT && fd != -EADDRNOTAVAIL) {
            failed = -fd;
        }
    }
    freeaddrinfo(list);
    if (failed || s->n == before) {
        close_all(s, before);
        error_set_errno(error, failed ? failed : EADDRNOTAVAIL, "%s:%u", host, port);
        return false;
    }
    return true;
}

struct options {
    const char *where;
    char *host;
    uint64_t display, to;
    uint64_t websocket; /* a port, 0: none; 1: by the display's number */
    int family;
    struct vnc_config server;
};

/* "host:display", "[::1]:display", ":display". */
static bool split_where(struct options *o, GError **error)
{
    const char *colon = strrchr(o->where, ':');
    if (!colon || !text_u64(colon + 1, &o->display) || o->display > 65535 - PORT_FIRST) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: not host:display, unix:path or none", o->where);
        return false;
    }
    bool braces = o->where[0] == '[' && colon > o->where && colon[-1] == ']';
    o->host = braces ? g_strndup(o->where + 1, (gsize)(colon - o->where - 2))
                     : g_strndup(o->where, (gsize)(colon - o->where));
    return true;
}

static bool take_share(KeyVal *kv, struct options *o, GError **error)
{
    static const char *const words[] = {"allow-exclusive", "force-shared", "ignore", NULL};
    const char *text = keyval_get(kv, "share");
    for (unsigned i = 0; text && words[i]; i++) {
        if (g_str_equal(words[i], text)) {
            o->server.share = i;
            return true;
        }
    }
    if (text) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "share=%s: want allow-exclusive, force-shared or ignore", text);
    }
    return !text;
}

static bool take_websocket(KeyVal *kv, struct options *o, GError **error)
{
    const char *text = keyval_get(kv, "websocket");
    bool on = false;
    if (!text || text_bool(text, &on)) {
        o->websocket = on;
        return true;
    }
    if (!text_u64(text, &o->websocket) || o->websocket < 2 || o->websocket > 65535) {
        g_set_error(error, LODGE_ERROR, EINVAL, "websocket=%s: want on, off or a port", text);
        return false;
    }
    return true;
}

static bool take_family(KeyVal *kv, struct options *o, GError **error)
{
    bool v4 = true, v6 = true;
    if (!keyval_bool(kv, "ipv4", &v4, error) || !keyval_bool(kv, "ipv6", &v6, error)) {
        return false;
    }
    o->family = v4 && v6 ? AF_UNSPEC : v4 ? AF_INET : AF_INET6;
    return true;
}

static bool take_options(KeyVal *kv, struct options *o, GError **error)
{
    static const char *const missing[] = {"lossy", "sasl", "tls-creds", "acl", "sasl-authz",
                                          "tls-authz", "password-secret", "reverse", "audiodev",
                                          "key-delay-ms", "power-control"};
    bool adaptive = true;
    for (unsigned i = 0; i < G_N_ELEMENTS(missing); i++) {
        if (keyval_get(kv, missing[i])) {
            g_set_error(error, LODGE_ERROR, ENOTSUP, "%s= is not supported", missing[i]);
            return false;
        }
    }
    o->to = UINT64_MAX;
    return keyval_bool(kv, "password", &o->server.password, error) &&
           keyval_bool(kv, "adaptive", &adaptive, error) &&
           keyval_bool(kv, "non-adaptive", &adaptive, error) &&
           keyval_u64(kv, "to", 65535 - PORT_FIRST, &o->to, error) && take_share(kv, o, error) &&
           take_websocket(kv, o, error) && take_family(kv, o, error) && keyval_done(kv, error);
}

static bool listen_display(struct options *o, struct sockets *s, GError **error)
{
    if (!listen_tcp(s, o->host, (unsigned)(PORT_FIRST + o->display), o->family, error)) {
        return false;
    }
    unsigned ws = o->websocket == 1 ? (unsigned)(WS_PORT_FIRST + o->display) : (unsigned)o->websocket;
    if (ws && !listen_tcp(s, o->host, ws, o->family, error)) {
        close_all(s, 0);
        return false;
    }
    return true;
}

static bool open_sockets(struct options *o, struct sockets *s, GError **error)
{
    if (g_str_has_prefix(o->where, "unix:")) {
        return listen_unix(s, o->where + 5, error);
    }
    if (!split_where(o, error)) {
        return false;
    }
    for (;; o->display++) { /* to=: the first that is free */
        g_autoptr(GError) own = NULL;
        if (listen_display(o, s, &own)) {
            return true;
        }
        if (!g_error_matches(own, LODGE_ERROR, EADDRINUSE) || o->to == UINT64_MAX ||
            o->display >= o->to) {
            g_propagate_error(error, g_steal_pointer(&own));
            return false;
        }
    }
}

bool vnc_keymap_is_known(const char *keymap, GError **error)
{
    if (keymap && !g_str_equal(keymap, "en-us")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "keyboard layout \"%s\" is not known; there is: en-us (clients with extended key "
                    "events work with any)", keymap);
        return false;
    }
    return true;
}

bool vnc_start(struct display *d, const char *text, const char *keymap, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(text, "vnc", error);
    struct options o = {0};
    struct sockets s = {0};
    if (!kv) {
        return false;
    }
    o.where = keyval_get(kv, "vnc");
    if (!take_options(kv, &o, error) || !vnc_keymap_is_known(keymap, error)) {
        return false;
    }
    if (!o.where || g_str_equal(o.where, "none")) {
        return true;
    }
    if (vnc.running) {
        g_set_error(error, LODGE_ERROR, EBUSY, "there is a VNC server already");
        return false;
    }
    bool ok = open_sockets(&o, &s, error);
    g_free(o.host);
    o.server.listener = s.fd;
    o.server.n_listeners = s.n;
    o.server.input = input;
    if (!ok || !vnc_server_start(&o.server, error)) {
        close_all(&s, 0);
        g_clear_pointer(&vnc.path, g_free);
        return false;
    }
    vnc.display = d;
    vnc.width = vnc.height = 0;
    vnc.password = o.server.password;
    vnc_end_of(s.fd[0], false, &vnc.end);
    vnc.viewer = (struct display_viewer){.pointer_mode = pointer_mode, .resized = resized, .changed = changed};
    vnc.running = true;
    display_add_viewer(d, &vnc.viewer);
    return true;
}

void vnc_stop(void)
{
    if (!vnc.running) {
        return;
    }
    count(0);
    display_remove_viewer(vnc.display, &vnc.viewer);
    vnc_server_stop();
    if (vnc.path) {
        unlink(vnc.path);
    }
    g_clear_pointer(&vnc.path, g_free);
    vnc.running = false;
}

static bool wants_password(GError **error)
{
    if (!vnc.running || !vnc.password) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    vnc.running ? "VNC was started without password=on" : "there is no VNC server");
        return false;
    }
    return true;
}

bool vnc_set_password(const char *password, GError **error)
{
    if (!wants_password(error)) {
        return false;
    }
    vnc_server_password(password);
    return true;
}

bool vnc_expire_password(int64_t at, GError **error)
{
    if (!wants_password(error)) {
        return false;
    }
    vnc_server_expire(at);
    return true;
}

bool vnc_server(struct vnc_end *out)
{
    *out = vnc.end;
    return vnc.running;
}

const char *vnc_auth(void)
{
    return vnc.password ? "vnc" : "none";
}

unsigned vnc_clients(struct vnc_end *out, unsigned most)
{
    return vnc.running ? vnc_server_clients(out, most) : 0;
}

void vnc_end_text(const struct vnc_end *end, GString *out)
{
    if (g_str_equal(end->family, "unix")) {
        g_string_append_printf(out, "unix:%s", end->host);
    } else {
        bool v6 = g_str_equal(end->family, "ipv6");
        g_string_append_printf(out, v6 ? "[%s]:%s" : "%s:%s", end->host, end->service);
    }
}
