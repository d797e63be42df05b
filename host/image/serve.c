/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * serve: the NBD server's sockets, clients and life.
 */
#include "base/util.h"
#include "host/image/core.h"
#include "host/image/serve_nbd.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 256, LISTEN_MAX = 8 };

/* An export, and the first bytes of a disk whose format was guessed to be raw. */
struct exported {
    struct serve_export e;
    bool guarded;
    GMutex lock;
    uint8_t head[PROBE_BYTES];
    /* A range that had data when we looked last.  If there are zeroes now, sending them as data
     * is right too, and some file systems count pages for each answer. */
    uint64_t data_from, data_to;
};

struct server {
    struct serve_options opts;
    struct server_tls *tls;
    GPtrArray *exports; /* of struct exported */
    int listening[LISTEN_MAX];
    unsigned n_listening;
    int stop;    /* readable from serve_stop() on */
    int changed; /* a client has gone */
    GMutex lock;
    unsigned clients; /* under .lock */
    bool served;      /* under .lock: somebody chose an export */
    _Atomic bool stopping;
};

static void exported_free(void *data)
{
    struct exported *x = data;
    g_mutex_clear(&x->lock);
    g_free(x);
}

static void serve_free(Server *s)
{
    if (s) {
        if (s->stop >= 0) {
            close(s->stop);
        }
        if (s->changed >= 0) {
            close(s->changed);
        }
        server_tls_free(s->tls);
        g_ptr_array_unref(s->exports);
        g_free(s);
    }
}

static Server *serve_new(const struct serve_options *opts, GError **error)
{
    Server *s = g_new0(Server, 1);
    s->opts = *opts;
    s->exports = g_ptr_array_new_with_free_func(exported_free);
    s->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->changed = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bool ok = s->stop >= 0 && s->changed >= 0;
    if (!ok) {
        error_set_errno(error, errno, "cannot make an event descriptor");
    } else if (opts->tls) {
        s->tls = server_tls_new(opts->tls, opts->identity, error);
        ok = s->tls;
    }
    if (!ok) {
        serve_free(s);
        return NULL;
    }
    return s;
}

static bool serve_add_export(Server *s, const struct serve_export *e, GError **error)
{
    if (strlen(e->name) > NBD_NAME_MAX ||
        (e->description && strlen(e->description) > NBD_NAME_MAX)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "an export's name and description have at most %d bytes", NBD_NAME_MAX);
        return false;
    }
    if (server_find_export(s, e->name, strlen(e->name))) {
        g_set_error(error, LODGE_ERROR, EEXIST, "export \"%s\" is there already", e->name);
        return false;
    }
    struct exported *x = g_new0(struct exported, 1);
    x->e = *e;
    x->guarded = node_guessed(e->image) && !e->read_only;
    g_mutex_init(&x->lock);
    g_ptr_array_add(s->exports, x);
    int r = x->guarded ? chain_read(e->image, 0, x->head, MIN(PROBE_BYTES, e->image->size)) : 0;
    if (r) {
        error_set_errno(error, -r, "cannot read the first sectors");
    }
    return !r;
}

bool server_may_write(const struct serve_export *e, uint64_t offset, const uint8_t *from,
                      uint64_t n)
{
    struct exported *x = container_of(e, struct exported, e);
    uint8_t head[PROBE_BYTES];
    offset += e->offset;
    if (!x->guarded || offset >= sizeof(head)) {
        return true;
    }
    size_t here = (size_t)MIN(n, sizeof(head) - offset);
    g_mutex_lock(&x->lock);
    memcpy(head, x->head, sizeof(head));
    if (from) {
        memcpy(head + offset, from, here);
    } else {
        memset(head + offset, 0, here);
    }
    bool still_raw = !image_probe_name(head, sizeof(head));
    if (still_raw) {
        memcpy(x->head, head, sizeof(head));
    }
    g_mutex_unlock(&x->lock);
    return still_raw;
}

uint64_t server_known_data(const struct serve_export *e, uint64_t offset)
{
    struct exported *x = container_of(e, struct exported, e);
    g_mutex_lock(&x->lock);
    uint64_t n = offset >= x->data_from && offset < x->data_to ? x->data_to - offset : 0;
    g_mutex_unlock(&x->lock);
    return n;
}

void server_learn_data(const struct serve_export *e, uint64_t from, uint64_t to)
{
    struct exported *x = container_of(e, struct exported, e);
    g_mutex_lock(&x->lock);
    x->data_from = from;
    x->data_to = to;
    g_mutex_unlock(&x->lock);
}

const struct serve_export *server_export(Server *s, unsigned i)
{
    return i < s->exports->len ? &((struct exported *)g_ptr_array_index(s->exports, i))->e : NULL;
}

const struct serve_export *server_find_export(Server *s, const char *name, size_t n)
{
    const struct serve_export *e;
    for (unsigned i = 0; (e = server_export(s, i)); i++) {
        if (strlen(e->name) == n && !memcmp(e->name, name, n)) {
            return e;
        }
    }
    return NULL;
}

const struct server_tls *server_tls(const Server *s)
{
    return s->tls;
}

bool server_stopping(const Server *s)
{
    return s->stopping;
}

static void serve_listen(Server *s, int fd)
{
    if (s->n_listening < LISTEN_MAX) {
        s->listening[s->n_listening++] = fd;
    } else {
        close(fd);
    }
}

static void poke(int fd)
{
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof(one)); /* fails only if it is readable already */
    (void)n;
}

static void serve_stop(Server *s)
{
    poke(s->stop);
}

/* ---- clients ---- */

struct start {
    struct client *client;
    void (*run)(struct client *c);
};

static void *start_main(void *data)
{
    struct start *start = data;
    struct client *c = start->client;
    void (*run)(struct client * c) = start->run;
    g_free(start);
    run(c);
    return NULL;
}

bool client_spawn(struct client *c, void (*run)(struct client *c))
{
    struct start *start = g_new(struct start, 1);
    start->client = c;
    start->run = run;
    GThread *t = g_thread_try_new("nbd-client", start_main, start, NULL);
    if (!t) {
        g_free(start);
        return false;
    }
    g_thread_unref(t);
    return true;
}

static void tell(const Server *s, const char *line)
{
    if (s->opts.tell) {
        s->opts.tell(line);
    }
}

void client_end(struct client *c)
{
    Server *s = c->server;
    bool greeted = c->greeted;
    tell(s, greeted ? "a client has gone" : "a client was turned away");
    stream_close(&c->stream);
    g_mutex_clear(&c->receiving);
    g_mutex_clear(&c->sending);
    g_free(c);
    g_mutex_lock(&s->lock);
    s->clients--;
    s->served |= greeted;
    poke(s->changed); /* under the lock: afterwards the server, and the program, may be gone */
    g_mutex_unlock(&s->lock);
}

static void client_main(struct client *c)
{
    if (!nbd_greet(c)) {
        client_end(c);
        return;
    }
    c->stream.deadline = 0;
    c->greeted = true;
    tell(c->server, "a client has connected");
    nbd_transmit(c);
}

static struct client *client_new(Server *s, int in, int out)
{
    struct client *c = g_new0(struct client, 1);
    c->server = s;
    c->stream = (struct stream){.in = in, .out = out, .stop = s->stop, .socket = in == out};
    g_mutex_init(&c->receiving);
    g_mutex_init(&c->sending);
    g_mutex_lock(&s->lock);
    s->clients++;
    g_mutex_unlock(&s->lock);
    return c;
}

static bool serve_client(Server *s, int in, int out, GError **error)
{
    struct client *c = client_new(s, in, out);
    if (client_spawn(c, client_main)) {
        return true;
    }
    client_end(c);
    g_set_error(error, LODGE_ERROR, EAGAIN, "cannot make a thread");
    return false;
}

static void accept_client(Server *s, int listening)
{
    int on = 1, fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        return; /* it has gone again; what else fails, fails again and is no worse */
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* not for UNIX sockets */
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    struct client *c = client_new(s, fd, fd);
    c->stream.deadline = g_get_monotonic_time() + GREET_SECONDS * G_USEC_PER_SEC;
    if (!client_spawn(c, client_main)) {
        client_end(c);
    }
}

/* ---- the server's thread ---- */

static unsigned count_clients(Server *s, bool *served)
{
    g_mutex_lock(&s->lock);
    unsigned n = s->clients;
    *served = s->served;
    g_mutex_unlock(&s->lock);
    return n;
}

/* Waits for something to happen; false: the server is to end. */
static bool step(Server *s)
{
    bool served;
    unsigned clients = count_clients(s, &served);
    unsigned most = s->opts.clients ? MIN(s->opts.clients, CLIENTS_MAX) : CLIENTS_MAX;
    unsigned n = clients < most ? s->n_listening : 0; /* the others wait in the queue */
    struct pollfd fds[2 + LISTEN_MAX] = {{s->stop, POLLIN, 0}, {s->changed, POLLIN, 0}};
    if (!clients && ((served && !s->opts.persistent) || !s->n_listening)) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        fds[2 + i] = (struct pollfd){s->listening[i], POLLIN, 0};
    }
    if (poll(fds, 2 + n, -1) < 0) {
        return errno == EINTR;
    }
    if (fds[1].revents) {
        uint64_t count;
        ssize_t got = read(s->changed, &count, sizeof(count));
        (void)got;
    }
    for (unsigned i = 0; i < n; i++) {
        if (fds[2 + i].revents) {
            accept_client(s, s->listening[i]);
            break; /* there may be room for one only */
        }
    }
    return !fds[0].revents;
}

static void serve_run(Server *s)
{
    bool served;
    while (step(s)) {
    }
    for (unsigned i = 0; i < s->n_listening; i++) {
        close(s->listening[i]);
    }
    s->n_listening = 0;
    s->stopping = true;
    serve_stop(s); /* ends what clients wait for */
    while (count_clients(s, &served)) {
        struct pollfd fd = {s->changed, POLLIN, 0};
        uint64_t count;
        poll(&fd, 1, -1);
        ssize_t got = read(s->changed, &count, sizeof(count));
        (void)got;
    }
}

const struct serve_api lodge_serve = {
    .new = serve_new,
    .add_export = serve_add_export,
    .listen = serve_listen,
    .client = serve_client,
    .run = serve_run,
    .stop = serve_stop,
    .free = serve_free,
};
