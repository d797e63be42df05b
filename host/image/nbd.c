/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * nbd: network block devices, by libnbd.
 *
 * One connection carries the requests of all threads.  A thread that waits for its answer
 * either is the one that moves bytes for everybody (it polls the socket), or sleeps until
 * that one wakes it; so a lonely request costs no change of threads.
 *
 * Names: nbd:HOST:PORT[:exportname=NAME], nbd:unix:PATH[:exportname=NAME],
 * nbd[s]://HOST[:PORT]/[NAME], nbd[s]+unix:///[NAME]?socket=PATH.
 *
 * Spec: "The NBD protocol", "The NBD Uniform Resource Indicator (URI) format".
 */
#include "base/json.h"
#include "base/keyval.h"
#include "base/util.h"
#include "host/image/options.h"
#include "host/image/protocol.h"
#include "host/image/remote.h"

#include <inttypes.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

enum {
    CONNECT_SECONDS = 30, /* for connecting and negotiating */
    EXTENTS_MAX = 4096,   /* of one answer that are remembered */
    PIECE_MAX = 32 << 20, /* a request's data, where the server does not say */
    TRIES = 8,            /* connections for one request */
    RETRY_MS = 250,       /* between two tries to connect again */
};

/* One connection.  Freed when the last user has dropped it. */
struct link {
    struct nbd_handle *h;
    unsigned refs;      /* under the disk's lock */
    GMutex lock;        /* of the two below */
    struct call *calls; /* that wait */
    bool polled;        /* one of them polls the socket */
    int wake;           /* event descriptor: what to poll for may have changed */
};

/* One request that a thread waits for. */
struct call {
    struct call *next;
    GCond moved; /* done, or this thread is to poll */
    _Atomic bool done;
    int error; /* positive errno value */
};

struct status {
    uint64_t from, to; /* the range that .ends and .data say something of */
    uint64_t ends[EXTENTS_MAX];
    bool data[EXTENTS_MAX];
    unsigned n;
};

struct disk {
    char *host, *port, *path, *export;
    const json_t *tls; /* the credentials' properties, or NULL */
    bool secure;       /* nbds: */
    json_t *options;
    uint64_t reconnect_delay, open_timeout; /* seconds */
    /* What the server said. */
    uint64_t size;
    uint32_t unit; /* requests are multiples of it */
    uint32_t most; /* bytes of data in a request */
    bool read_only, can_zero, can_trim, can_flush, has_status;
    GMutex lock;         /* of the rest */
    struct link *link;   /* NULL: not connected */
    int64_t lost, tried; /* the connection; to get it back; g_get_monotonic_time() */
    struct status *status;
    GMutex edges; /* of writes that change a part of a unit */
};

/* ---- names and options ---- */

static bool take_uri(struct disk *d, const char *name, GError **error)
{
    g_autoptr(GUri) uri = remote_uri(name, error);
    if (!uri) {
        return false;
    }
    const char *scheme = g_uri_get_scheme(uri), *path = g_uri_get_path(uri);
    bool unix_socket = g_str_has_suffix(scheme, "+unix");
    g_autoptr(GHashTable) query = remote_query(uri, error);
    if (!query) {
        return false;
    }
    d->secure = g_str_has_prefix(scheme, "nbds");
    d->export = g_strdup(*path == '/' ? path + 1 : path);
    d->path = g_strdup(g_hash_table_lookup(query, "socket"));
    if (unix_socket != !!d->path || g_hash_table_size(query) > !!d->path) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: want %s", name,
                    unix_socket ? "nbd+unix:///EXPORT?socket=PATH" : "nbd://HOST[:PORT]/EXPORT");
        return false;
    }
    if (!unix_socket) {
        const char *host = g_uri_get_host(uri);
        d->host = g_strdup(host && *host ? host : "localhost");
        d->port = g_strdup_printf("%d", g_uri_get_port(uri) > 0 ? g_uri_get_port(uri) : 10809);
    }
    return true;
}

/* nbd:unix:PATH or nbd:HOST:PORT, then :exportname=NAME, which may hold colons. */
static bool take_old_name(struct disk *d, const char *name, GError **error)
{
    const char *at = strchr(name, ':') + 1, *export = strstr(at, ":exportname=");
    g_autofree char *where = export ? g_strndup(at, (size_t)(export - at)) : g_strdup(at);
    if (export) {
        d->export = g_strdup(export + strlen(":exportname="));
    }
    if (g_str_has_prefix(where, "unix:")) {
        d->path = g_strdup(where + 5);
        return true;
    }
    char *colon = strrchr(where, ':');
    if (!colon || colon == where || !colon[1]) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "%s: want nbd:HOST:PORT or nbd:unix:PATH, then perhaps :exportname=NAME", name);
        return false;
    }
    *colon = '\0';
    size_t n = strlen(where);
    bool bracketed = where[0] == '[' && where[n - 1] == ']';
    d->host = bracketed ? g_strndup(where + 1, n - 2) : g_strdup(where);
    d->port = g_strdup(colon + 1);
    return true;
}

static bool take_server(struct disk *d, const json_t *server, GError **error)
{
    static const char *const known[] = {"type", "host", "port", "path", NULL};
    if (!json_is_object(server) || !remote_keys(server, known, error)) {
        return false;
    }
    const char *type = json_text(server, "type");
    if (type && strcmp(type, "inet") && strcmp(type, "unix")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "server.type=%s: want inet or unix", type);
        return false;
    }
    d->host = g_strdup(json_text(server, "host"));
    d->port = g_strdup(json_text(server, "port"));
    d->path = g_strdup(json_text(server, "path"));
    return true;
}

static bool take_options(struct disk *d, const json_t *o, GError **error)
{
    static const char *const known[] = {
        "filename",        "host",         "port",      "path",
        "export",          "server",       "tls-creds", "tls-hostname",
        "reconnect-delay", "open-timeout", NULL};
    const char *name = json_text(o, "filename");
    const json_t *server = json_object_get(o, "server");
    if (!remote_options(o, known, error) ||
        !json_u64(o, "reconnect-delay", &d->reconnect_delay, error) ||
        !json_u64(o, "open-timeout", &d->open_timeout, error)) {
        return false;
    }
    if (json_object_get(o, "tls-hostname")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "tls-hostname is not supported: the certificate is checked against the host");
        return false;
    }
    d->tls = json_object_get(o, "tls-creds");
    if (name) {
        const char *colon = strchr(name, ':');
        return strncmp(name, "nbd:", 4) || !strncmp(colon, "://", 3)
                   ? take_uri(d, name, error)
                   : take_old_name(d, name, error);
    }
    if (server && !take_server(d, server, error)) {
        return false;
    }
    if (!server) {
        d->host = g_strdup(json_text(o, "host"));
        d->port = g_strdup(json_text(o, "port"));
        d->path = g_strdup(json_text(o, "path"));
    }
    d->export = g_strdup(json_text(o, "export"));
    if (!d->host == !d->path) {
        g_set_error(error, LODGE_ERROR, EINVAL, "nbd: want either host or path");
        return false;
    }
    if (d->host && !d->port) {
        d->port = g_strdup("10809");
    }
    return true;
}

/* ---- connections ---- */

static void link_free(struct link *l)
{
    nbd_close(l->h);
    close(l->wake);
    g_mutex_clear(&l->lock);
    g_free(l);
}

static void link_drop(struct disk *d, struct link *l)
{
    g_mutex_lock(&d->lock);
    bool last = --l->refs == 0;
    g_mutex_unlock(&d->lock);
    if (last) {
        link_free(l);
    }
}

static bool set_tls(struct disk *d, struct nbd_handle *h)
{
    if (!d->tls && !d->secure) {
        return true;
    }
    if (nbd_set_tls(h, LIBNBD_TLS_REQUIRE)) {
        return false;
    }
    if (!d->tls) {
        return true;
    }
    const char *type = json_text(d->tls, "qom-type"), *dir = json_text(d->tls, "dir");
    const char *user = json_text(d->tls, "username");
    bool verify = true;
    if (user && nbd_set_tls_username(h, user)) {
        return false;
    }
    if (!g_strcmp0(type, "tls-creds-psk")) {
        g_autofree char *keys = g_build_filename(dir, "keys.psk", NULL);
        return nbd_set_tls_psk_file(h, keys) == 0;
    }
    return json_bool(d->tls, "verify-peer", &verify, NULL) &&
           nbd_set_tls_verify_peer(h, verify) == 0 && nbd_set_tls_certificates(h, dir) == 0;
}

/* libnbd goes without a certificate that it may not read, and the server refuses a stranger. */
static bool readable(const struct disk *d, GError **error)
{
    static const char *const names[] = {"ca-cert.pem", "client-cert.pem", "client-key.pem"};
    const char *type = d->tls ? json_text(d->tls, "qom-type") : NULL;
    bool x509 = !g_strcmp0(type, "tls-creds-x509");
    for (unsigned i = 0; x509 && i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(json_text(d->tls, "dir"), names[i], NULL);
        if (access(path, R_OK) < 0 && errno != ENOENT) {
            error_set_errno(error, errno, "nbd: TLS credentials in '%s' cannot be read", path);
            return false;
        }
    }
    return true;
}

static bool prepare(struct disk *d, struct nbd_handle *h)
{
    return nbd_set_export_name(h, d->export ? d->export : "") == 0 &&
           nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 && set_tls(d, h);
}

/* Connects and negotiates, within CONNECT_SECONDS. */
static bool greet(struct disk *d, struct nbd_handle *h)
{
    int64_t deadline = g_get_monotonic_time() + CONNECT_SECONDS * G_USEC_PER_SEC;
    int r = d->path ? nbd_aio_connect_unix(h, d->path) : nbd_aio_connect_tcp(h, d->host, d->port);
    while (r >= 0 && nbd_aio_is_connecting(h)) {
        int64_t left = (deadline - g_get_monotonic_time()) / 1000;
        if (left <= 0) {
            errno = ETIMEDOUT;
            return false;
        }
        r = nbd_poll(h, (int)left);
    }
    errno = 0;
    return r >= 0 && (nbd_aio_is_ready(h) || nbd_aio_is_negotiating(h));
}

static void set_connect_error(const struct disk *d, GError **error)
{
    g_autofree char *where =
        d->path ? g_strdup(d->path) : g_strdup_printf("%s:%s", d->host, d->port);
    if (errno == ETIMEDOUT) {
        error_set_errno(error, ETIMEDOUT, "Failed to connect to '%s'", where);
        return;
    }
    int code = nbd_get_errno();
    const char *text = nbd_get_error();
    const char *words = text ? strchr(text, ':') : NULL; /* behind libnbd's function */
    g_set_error(error, LODGE_ERROR, code ? code : EIO, "Failed to connect to '%s': %s", where,
                code == ECONNREFUSED || code == ENOENT || !words ? g_strerror(code ? code : EIO)
                                                                 : words + 2);
}

static void keep_alive(struct nbd_handle *h)
{
    int on = 1;
    setsockopt(nbd_aio_get_fd(h), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

static struct link *link_new(struct disk *d, GError **error)
{
    if (!readable(d, error)) {
        return NULL;
    }
    struct nbd_handle *h = nbd_create();
    if (!h || !prepare(d, h)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "nbd: %s", nbd_get_error());
        nbd_close(h);
        return NULL;
    }
    if (!greet(d, h)) {
        set_connect_error(d, error);
        nbd_close(h);
        return NULL;
    }
    keep_alive(h);
    struct link *l = g_new0(struct link, 1);
    l->h = h;
    l->refs = 1; /* the disk's */
    l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g_mutex_init(&l->lock);
    return l;
}

/* What the server said; false if it is not what we began with. */
static bool learn(struct disk *d, struct nbd_handle *h, bool again, GError **error)
{
    int64_t size = nbd_get_size(h);
    int64_t unit = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
    int64_t most = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);
    if (size < 0 || (again && (uint64_t)size != d->size)) {
        g_set_error(error, LODGE_ERROR, EIO, "the NBD export has changed its size");
        return false;
    }
    if (unit > 64 << 10 || (unit > 1 && (unit & (unit - 1)))) {
        g_set_error(error, LODGE_ERROR, EIO, "the NBD server wants blocks of %" PRIi64 " bytes",
                    unit);
        return false;
    }
    if (again) {
        return true;
    }
    d->size = (uint64_t)size;
    d->unit = (uint32_t)MAX(unit, 1);
    d->most = (uint32_t)(most > 0 ? MIN(most, PIECE_MAX) : PIECE_MAX);
    d->most = MAX(d->most & ~(d->unit - 1), d->unit);
    d->read_only = nbd_is_read_only(h) != 0;
    d->can_zero = nbd_can_zero(h) > 0;
    d->can_trim = nbd_can_trim(h) > 0;
    d->can_flush = nbd_can_flush(h) > 0;
    d->has_status = nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
    return true;
}

/* Under d->lock.  Tries until @deadline, at least once. */
static bool connect_until(struct disk *d, int64_t deadline, bool again, GError **error)
{
    for (;;) {
        g_autoptr(GError) why = NULL;
        struct link *l = link_new(d, &why);
        if (l && learn(d, l->h, again, &why)) {
            d->link = l;
            return true;
        }
        if (l) {
            link_free(l);
        }
        if (g_get_monotonic_time() + RETRY_MS * 1000 >= deadline) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        g_usleep(RETRY_MS * 1000);
    }
}

/* The connection, with a reference; a new one if @old has broken; NULL if there is none. */
static struct link *link_take(struct disk *d, struct link *old)
{
    g_mutex_lock(&d->lock);
    if (old && d->link == old) {
        d->link = NULL;
        d->lost = g_get_monotonic_time();
        old->refs--; /* the caller still holds one */
    }
    int64_t deadline = d->lost + (int64_t)d->reconnect_delay * G_USEC_PER_SEC;
    int64_t now = g_get_monotonic_time();
    if (!d->link && (now < deadline || now > d->tried + RETRY_MS * 1000)) {
        connect_until(d, deadline, true, NULL);
        d->tried = g_get_monotonic_time();
    }
    struct link *l = d->link;
    if (l) {
        l->refs++;
    }
    g_mutex_unlock(&d->lock);
    return l;
}

/* ---- requests ---- */

static int call_done(void *data, int *error)
{
    struct call *call = data;
    call->error = *error;
    atomic_store(&call->done, true);
    return 1; /* libnbd may forget it */
}

/* Under l->lock: wakes those whose answers have come. */
static void wake_done(const struct link *l)
{
    for (struct call *c = l->calls; c; c = c->next) {
        if (atomic_load(&c->done)) {
            g_cond_signal(&c->moved);
        }
    }
}

/* Under l->lock: if nobody polls, somebody who still waits shall. */
static void wake_heir(const struct link *l)
{
    for (struct call *c = l->calls; c && !l->polled; c = c->next) {
        if (!atomic_load(&c->done)) {
            g_cond_signal(&c->moved);
            return;
        }
    }
}

/* Moves bytes until something may have come. */
static void poll_once(struct link *l)
{
    unsigned dir = nbd_aio_get_direction(l->h);
    short events = (short)((dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                           (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
    struct pollfd fds[2] = {{nbd_aio_get_fd(l->h), events, 0}, {l->wake, POLLIN, 0}};
    if (poll(fds, 2, -1) <= 0) {
        return;
    }
    if (fds[1].revents) {
        uint64_t n;
        ssize_t got = read(l->wake, &n, sizeof(n));
        (void)got;
    }
    dir = nbd_aio_get_direction(l->h);
    if ((fds[0].revents & (POLLIN | POLLHUP | POLLERR)) && (dir & LIBNBD_AIO_DIRECTION_READ)) {
        nbd_aio_notify_read(l->h);
    } else if ((fds[0].revents & POLLOUT) && (dir & LIBNBD_AIO_DIRECTION_WRITE)) {
        nbd_aio_notify_write(l->h);
    }
}

static void unlink_call(struct link *l, struct call *call)
{
    struct call **at = &l->calls;
    while (*at != call) {
        at = &(*at)->next;
    }
    *at = call->next;
}

/* The poller must look again if what was sent last did not fit the socket. */
static void wake_poller(const struct link *l)
{
    uint64_t one = 1;
    if (nbd_aio_get_direction(l->h) & LIBNBD_AIO_DIRECTION_WRITE) {
        ssize_t n = write(l->wake, &one, sizeof(one));
        (void)n;
    }
}

/* Until @call is done. */
static void wait_for(struct link *l, struct call *call)
{
    g_mutex_lock(&l->lock);
    call->next = l->calls;
    l->calls = call;
    while (!atomic_load(&call->done)) {
        if (l->polled) {
            wake_poller(l);
            g_cond_wait(&call->moved, &l->lock);
            continue;
        }
        l->polled = true;
        g_mutex_unlock(&l->lock);
        poll_once(l);
        g_mutex_lock(&l->lock);
        l->polled = false;
        wake_done(l);
    }
    unlink_call(l, call);
    wake_heir(l);
    g_mutex_unlock(&l->lock);
}

enum verb { READ, WRITE, ZERO, TRIM, FLUSH, STATUS };

struct request {
    enum verb verb;
    uint32_t flags;
    uint64_t at, n;
    void *to;
    const void *from;
    struct status *status;
};

/* One context's answer: pairs of length and flags. */
static int take_status(void *data, const char *context, uint64_t at, uint32_t *entries, size_t n,
                       int *error)
{
    struct status *s = data;
    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION)) {
        return 0;
    }
    s->from = s->to = at;
    s->n = 0;
    for (size_t i = 0; i + 1 < n && s->n < EXTENTS_MAX && entries[i]; i += 2) {
        bool hole = entries[i + 1] & LIBNBD_STATE_ZERO;
        s->to += entries[i];
        if (s->n && s->data[s->n - 1] == !hole) {
            s->ends[s->n - 1] = s->to;
        } else {
            s->data[s->n] = !hole;
            s->ends[s->n++] = s->to;
        }
    }
    return 0;
}

static int64_t send_request(struct link *l, const struct request *q, struct call *call)
{
    nbd_completion_callback done = {.callback = call_done, .user_data = call};
    switch (q->verb) {
    case READ:
        return nbd_aio_pread(l->h, q->to, q->n, q->at, done, 0);
    case WRITE:
        return nbd_aio_pwrite(l->h, q->from, q->n, q->at, done, 0);
    case ZERO:
        return nbd_aio_zero(l->h, q->n, q->at, done, q->flags);
    case TRIM:
        return nbd_aio_trim(l->h, q->n, q->at, done, 0);
    case FLUSH:
        return nbd_aio_flush(l->h, done, 0);
    case STATUS: {
        nbd_extent_callback extent = {.callback = take_status, .user_data = q->status};
        return nbd_aio_block_status(l->h, q->n, q->at, extent, done, 0);
    }
    }
    return -1;
}

/* One request on @l: 0 or a negative errno value; -ENOTCONN: the connection has gone. */
static int request_on(struct link *l, const struct request *q)
{
    struct call call = {0};
    g_cond_init(&call.moved);
    int r;
    if (send_request(l, q, &call) < 0) {
        bool gone = nbd_aio_is_dead(l->h) > 0 || nbd_aio_is_closed(l->h) > 0;
        r = gone ? -ENOTCONN : nbd_get_errno() ? -nbd_get_errno() : -EIO;
    } else {
        wait_for(l, &call);
        r = -call.error;
        if (r && (nbd_aio_is_dead(l->h) > 0 || nbd_aio_is_closed(l->h) > 0)) {
            r = -ENOTCONN;
        }
    }
    g_cond_clear(&call.moved);
    return r;
}

/* With a new connection where the old one broke. */
static int request(struct disk *d, const struct request *q)
{
    struct link *l = link_take(d, NULL);
    for (unsigned i = 0; l && i < TRIES; i++) {
        int r = request_on(l, q);
        if (r != -ENOTCONN) {
            link_drop(d, l);
            return r == -ESHUTDOWN ? -EIO : r;
        }
        struct link *next = link_take(d, l);
        link_drop(d, l);
        l = next;
    }
    if (l) {
        link_drop(d, l); /* a server that goes away whenever it is asked this */
    }
    return -EIO;
}

/* ---- the protocol's functions ---- */

/* In pieces that the server takes. */
static int in_pieces(struct disk *d, struct request q, uint64_t most)
{
    uint64_t left = q.n;
    int r = 0;
    while (left && !r) {
        q.n = MIN(left, most);
        r = request(d, &q);
        q.at += q.n;
        q.to = q.to ? (uint8_t *)q.to + q.n : NULL;
        q.from = q.from ? (const uint8_t *)q.from + q.n : NULL;
        left -= q.n;
    }
    return r;
}

static bool aligned(const struct disk *d, uint64_t at, uint64_t n)
{
    return !((at | n) & (d->unit - 1));
}

/* One unit that the range [@at, @at + @n) touches only a part of, through a buffer. */
static int edge(struct disk *d, uint64_t at, uint8_t *to, const uint8_t *from, size_t n)
{
    uint64_t start = at & ~(uint64_t)(d->unit - 1);
    g_autofree uint8_t *unit = g_try_malloc(d->unit);
    if (!unit) {
        return -ENOMEM;
    }
    struct request q = {.verb = READ, .at = start, .n = d->unit, .to = unit};
    int r = request(d, &q);
    if (!r && to) {
        memcpy(to, unit + (at - start), n);
    }
    if (!r && from) {
        memcpy(unit + (at - start), from, n);
        q = (struct request){.verb = WRITE, .at = start, .n = d->unit, .from = unit};
        r = request(d, &q);
    }
    return r;
}

/* Whole units directly, what is left over at both ends by edge(). */
static int transfer(struct disk *d, uint64_t at, uint8_t *to, const uint8_t *from, size_t n)
{
    struct request q = {.verb = to ? READ : WRITE};
    int r = 0;
    while (n && !r) {
        size_t into = at & (d->unit - 1), whole = n & ~(size_t)(d->unit - 1);
        size_t now = into || !whole ? MIN(n, d->unit - into) : whole;
        if (into || !whole) {
            r = edge(d, at, to, from, now);
        } else {
            q.at = at, q.n = now, q.to = to, q.from = from;
            r = in_pieces(d, q, d->most);
        }
        at += now;
        to = to ? to + now : NULL;
        from = from ? from + now : NULL;
        n -= now;
    }
    return r;
}

static int disk_read(struct file *f, uint64_t at, void *to, size_t n)
{
    return transfer(f->priv, at, to, NULL, n);
}

/* What was remembered of holes may not be so any more. */
static void forget_status(struct disk *d)
{
    g_mutex_lock(&d->lock);
    d->status->to = d->status->from = 0;
    g_mutex_unlock(&d->lock);
}

static int disk_write(struct file *f, uint64_t at, const void *from, size_t n)
{
    struct disk *d = f->priv;
    if (at + n > d->size) {
        return -ENOSPC;
    }
    bool part = !aligned(d, at, n);
    if (part) {
        g_mutex_lock(&d->edges);
    }
    int r = transfer(d, at, NULL, from, n);
    if (part) {
        g_mutex_unlock(&d->edges);
    }
    forget_status(d);
    return r;
}

static int disk_zero(struct file *f, uint64_t at, uint64_t n, bool may_unmap)
{
    struct disk *d = f->priv;
    struct request q = {
        .verb = ZERO, .at = at, .n = n, .flags = may_unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE};
    if (!d->can_zero || !aligned(d, at, n)) {
        return -ENOTSUP;
    }
    int r = in_pieces(d, q, G_MAXINT32 & ~(uint64_t)(d->unit - 1));
    forget_status(d);
    return r;
}

static int disk_discard(struct file *f, uint64_t at, uint64_t n)
{
    struct disk *d = f->priv;
    if (!d->can_trim || !aligned(d, at, n)) {
        return 0;
    }
    int r = in_pieces(d, (struct request){.verb = TRIM, .at = at, .n = n},
                      G_MAXINT32 & ~(uint64_t)(d->unit - 1));
    forget_status(d);
    return r;
}

static int disk_flush(struct file *f)
{
    struct disk *d = f->priv;
    return d->can_flush ? request(d, &(struct request){.verb = FLUSH}) : 0;
}

/* Under d->lock: what is remembered of @at. */
static bool find_status(const struct status *s, uint64_t at, uint64_t n, bool *data,
                        uint64_t *length)
{
    if (at < s->from || at >= s->to) {
        return false;
    }
    unsigned low = 0, high = s->n - 1;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (s->ends[middle] > at) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    *data = s->data[low];
    *length = MIN(n, s->ends[low] - at);
    return true;
}

static int disk_extent(struct file *f, uint64_t at, uint64_t n, bool *data, uint64_t *length)
{
    struct disk *d = f->priv;
    *data = true;
    *length = n;
    if (!d->has_status) {
        return 0;
    }
    g_mutex_lock(&d->lock);
    bool found = find_status(d->status, at, n, data, length);
    g_mutex_unlock(&d->lock);
    if (found) {
        return 0;
    }
    struct status *fresh = g_try_new0(struct status, 1);
    if (!fresh) {
        return -ENOMEM;
    }
    uint64_t start = at & ~(uint64_t)(d->unit - 1);
    struct request q = {.verb = STATUS,
                        .at = start,
                        .status = fresh,
                        .n = MIN(d->size - start, G_MAXINT32 & ~(uint64_t)(d->unit - 1))};
    int r = request(d, &q);
    g_mutex_lock(&d->lock);
    if (!r && find_status(fresh, at, n, data, length)) {
        struct status *old = d->status;
        d->status = fresh;
        fresh = old;
    }
    g_mutex_unlock(&d->lock);
    g_free(fresh);
    return r;
}

/* It is as large as it is. */
static int disk_resize(struct file *f, uint64_t size)
{
    return size > f->size ? -ENOSPC : -ENOTSUP;
}

static void disk_free(struct disk *d)
{
    if (d->link) {
        nbd_shutdown(d->link->h, 0);
        link_drop(d, d->link);
    }
    g_mutex_clear(&d->lock);
    g_mutex_clear(&d->edges);
    json_decref(d->options);
    g_free(d->status);
    g_free(d->host);
    g_free(d->port);
    g_free(d->path);
    g_free(d->export);
    g_free(d);
}

static void disk_close(struct file *f)
{
    if (f->priv) {
        disk_free(f->priv);
        f->priv = NULL;
    }
}

static bool check_writable(struct file *f, const struct disk *d, GError **error)
{
    if (d->read_only && !f->read_only) {
        g_set_error(error, LODGE_ERROR, EROFS, "the NBD export is read-only");
        return false;
    }
    return true;
}

static struct disk *disk_new(const json_t *options)
{
    struct disk *d = g_new0(struct disk, 1);
    g_mutex_init(&d->lock);
    g_mutex_init(&d->edges);
    d->options = json_deep_copy(options);
    return d;
}

static bool disk_open(struct file *f, const json_t *options, unsigned flags, GError **error)
{
    struct disk *d = disk_new(options);
    f->priv = d;
    f->read_only = flags & OPEN_READ_ONLY;
    d->status = g_new0(struct status, 1);
    if (!take_options(d, d->options, error)) {
        return false;
    }
    int64_t deadline = g_get_monotonic_time() + (int64_t)d->open_timeout * G_USEC_PER_SEC;
    if (!connect_until(d, deadline, false, error) || !check_writable(f, d, error)) {
        return false;
    }
    f->size = d->size;
    return true;
}

static bool disk_reopen(struct file *f, bool read_only, GError **error)
{
    f->read_only = read_only;
    return check_writable(f, f->priv, error);
}

/* What an image is made in must be there already and is as large as it is. */
static bool disk_create(const json_t *options, uint64_t size, GError **error)
{
    struct file f = {0};
    bool ok = disk_open(&f, options, 0, error);
    if (ok && f.size < size) {
        g_set_error(error, LODGE_ERROR, ENOSPC,
                    "the NBD export has %" PRIu64 " bytes, fewer than the %" PRIu64 " wanted",
                    f.size, size);
        ok = false;
    }
    disk_close(&f);
    return ok;
}

/* ---- all exports of a server ---- */

static int on_export(void *owner, const char *name, const char *description)
{
    json_t *names = owner;
    (void)description;
    if (json_array_size(names) < SERVER_LIST_MAX && g_utf8_validate(name, -1, NULL)) {
        json_array_append_new(names, json_string(name));
    }
    return 0;
}

/* While the two sides still negotiate; an export that the server does not open is left out. */
static bool list_exports(struct nbd_handle *h, json_t *found)
{
    g_autoptr(json_t) names = json_array();
    size_t i;
    const json_t *name;
    if (nbd_opt_list(h, (nbd_list_callback){.callback = on_export, .user_data = names}) < 0) {
        return false;
    }
    json_array_foreach(names, i, name)
    {
        const char *text = json_string_value(name);
        if (nbd_set_export_name(h, text) == 0 && nbd_opt_info(h) == 0 && nbd_get_size(h) >= 0) {
            json_array_append_new(
                found, json_pack("{s:s, s:I}", "name", text, "size", (json_int_t)nbd_get_size(h)));
        }
    }
    return true;
}

static bool server_list(const json_t *options, json_t *found, GError **error)
{
    struct disk *d = disk_new(options);
    struct nbd_handle *h = take_options(d, d->options, error) ? nbd_create() : NULL;
    bool ok = false;
    if (h && (nbd_set_opt_mode(h, true) || !set_tls(d, h))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "nbd: %s", nbd_get_error());
    } else if (h && !greet(d, h)) {
        set_connect_error(d, error);
    } else if (h) {
        ok = nbd_aio_is_negotiating(h) && list_exports(h, found);
        if (!ok) {
            g_set_error(error, LODGE_ERROR, ENOTSUP, "the NBD server does not list its exports");
        }
        nbd_opt_abort(h);
    }
    if (h) {
        nbd_close(h);
    }
    disk_free(d);
    return ok;
}

static const struct protocol_server server = {.list = server_list};

const struct protocol lodge_protocol = {
    .name = "nbd",
    .open = disk_open,
    .close = disk_close,
    .read = disk_read,
    .write = disk_write,
    .zero = disk_zero,
    .discard = disk_discard,
    .flush = disk_flush,
    .resize = disk_resize,
    .extent = disk_extent,
    .create = disk_create,
    .reopen = disk_reopen,
    .server = &server,
};
