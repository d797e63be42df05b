/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/client.h"

#include "base/bytes.h"
#include "base/util.h"
#include "manage/daemon/daemon.h"
#include "manage/daemon/login.h"
#include "manage/daemon/settings.h"
#include "manage/daemon/tls.h"

#include <errno.h>
#include <sys/socket.h>

/*
 * One connection: bytes in, packets out.  A client that sends what is no packet, or fetches
 * nothing, is dropped; nobody else notices.
 */
enum { READ_BYTES = 64 << 10, READ_ROUNDS = 8, IN_KEPT = 16 << 10 };

const struct tls_module *tls;
const struct login_module *login;
struct client *clients;
unsigned clients_count;

static void client_ready(struct watch *watch, uint32_t events);
static bool client_look(struct watch *watch);

struct client *client_ref(struct client *c)
{
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void client_unref(struct client *c)
{
    if (atomic_fetch_sub(&c->refs, 1) == 1) {
        g_byte_array_unref(c->in);
        lane_free(c->lane);
        if (c->callbacks) {
            g_array_unref(c->callbacks);
        }
        if (c->login) {
            login->destroy(c->login);
        }
        g_free(c);
    }
}

/* How this one has to prove itself. */
static void choose_auth(struct client *c)
{
    if (c->kind == LISTEN_UNIX) {
        socklen_t n = sizeof(c->peer);
        getsockopt(c->watch.fd, SOL_SOCKET, SO_PEERCRED, &c->peer, &n);
        c->auth = c->peer.uid != 0 && polkit_wanted() ? PROVE_POLKIT : PROVE_NOTHING;
    } else if (c->kind == LISTEN_TCP || strcmp(setting("tls", "sasl"), "yes") == 0) {
        c->auth = PROVE_SASL;
    }
    /* Whoever could open the socket, or had a certificate on the list. */
    c->authenticated = c->auth == PROVE_NOTHING && c->kind != LISTEN_TLS;
}

void client_new(int fd, const struct listener *from)
{
    struct client *c = g_new0(struct client, 1);
    c->watch = (struct watch){.fd = fd, .events = EPOLLIN, .ready = client_ready};
    c->refs = 1;
    c->lane = lane_new();
    c->in = g_byte_array_new();
    c->out_tail = &c->out;
    c->kind = from->kind;
    c->read_only = from->read_only;
    c->peer.pid = -1;
    choose_auth(c);
    if (c->kind == LISTEN_TLS) {
        c->tls = tls->create(fd);
        c->handshaking = true;
    } else {
        c->watch.look = client_look;
    }
    daemon_lock();
    c->next = clients;
    c->link = &clients;
    if (clients) {
        clients->link = &c->next;
    }
    clients = c;
    clients_count++;
    daemon_unlock();
    if ((c->kind == LISTEN_TLS && !c->tls) || !poller_add(&c->watch)) {
        client_drop(c, "no room for one more");
    }
}

struct client_end {
    void (*act)(void *);
    void *data;
};

void client_at_end(struct client *c, void (*act)(void *), void *data)
{
    if (c->dead) {
        act(data);
        return;
    }
    c->at_end = c->at_end ? c->at_end : g_array_new(FALSE, FALSE, sizeof(struct client_end));
    const struct client_end end = {act, data};
    g_array_append_val(c->at_end, end);
}

static void act_at_end(struct client *c)
{
    for (unsigned i = 0; c->at_end && i < c->at_end->len; i++) {
        const struct client_end *end = &g_array_index(c->at_end, struct client_end, i);
        end->act(end->data);
    }
    g_clear_pointer(&c->at_end, g_array_unref);
}

void client_drop(struct client *c, const char *why)
{
    daemon_lock();
    if (c->dead) {
        daemon_unlock();
        return;
    }
    c->dead = true;
    *c->link = c->next;
    if (c->next) {
        c->next->link = c->link;
    }
    clients_count--;
    streams_abort(c);
    while (c->out) {
        struct packet *p = c->out;
        c->out = p->next;
        packet_free(p);
    }
    if (c->callbacks) {
        g_array_set_size(c->callbacks, 0);
    }
    act_at_end(c);
    daemon_unlock();
    if (why) {
        daemon_log("client of process %d dropped: %s", c->peer.pid, why);
    }
    poller_remove(&c->watch);
    if (c->tls) {
        tls->destroy(c->tls);
    }
    close(c->watch.fd);
    for (unsigned i = 0; i < c->nfds; i++) {
        close(c->fds[i]);
    }
    client_unref(c);
}

bool client_has_room(const struct client *c)
{
    return c->out_bytes < OUT_HIGH;
}

/* ---- Out. ---- */

/* One FD with a byte of its own; false if it has to wait or failed (then errno says so). */
static bool send_fd(int to, int fd)
{
    char byte = 0;
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof(control.room)};
    control.head = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
    return sendmsg(to, &m, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
}

static ssize_t send_some(struct client *c, const void *data, size_t n)
{
    return c->tls ? tls->send(c->tls, data, n)
                  : send(c->watch.fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Sends what the socket takes.  False if the connection is broken.  Daemon lock held. */
static bool flush(struct client *c)
{
    while (c->out) {
        struct packet *p = c->out;
        while (p->sent < p->length) {
            ssize_t n = send_some(c, p->data + p->sent, p->length - p->sent);
            if (n < 0) {
                return errno == EAGAIN || errno == EINTR;
            }
            p->sent += (size_t)n;
            c->stalled = 0;
        }
        while (p->fds_sent < p->nfds) {
            if (!send_fd(c->watch.fd, p->fds[p->fds_sent])) {
                return errno == EAGAIN || errno == EINTR;
            }
            p->fds_sent++;
        }
        c->out_bytes -= p->length;
        c->out = p->next;
        if (!c->out) {
            c->out_tail = &c->out;
        }
        packet_free(p);
    }
    return true;
}

/* libvirt's reasons. */
enum end_reason { END_EOF = 1, END_KEEPALIVE = 2 };

/* Ends it with a word to those who asked for one, if the socket takes it now. */
static void end(struct client *c, enum end_reason reason, const char *why)
{
    const struct packet_header h = {PROGRAM_REMOTE, 1, EVENT_CONNECTION_CLOSED,
                                    PACKET_EVENT,   0, STATUS_OK};
    const rpc_int message = {.value = (int)reason};
    daemon_lock();
    if (c->told_of_end && !c->dead) {
        client_send(c, packet_encode(&h, (xdrproc_t)xdr_rpc_int, &message, 0));
        flush(c);
    }
    daemon_unlock();
    client_drop(c, why);
}

void client_drop_all(void)
{
    while (clients) {
        end(clients, END_EOF, NULL);
    }
}

static void kicked(void *data);

void client_kick(struct client *c)
{
    if (!c->kicked && !c->dead) {
        c->kicked = true;
        daemon_in_loop(G_PRIORITY_DEFAULT, kicked, client_ref(c));
        poller_interrupt();
    }
}

void client_send(struct client *c, struct packet *p)
{
    if (c->dead) {
        packet_free(p);
        return;
    }
    if (p && c->wrapped) {
        p = login->wrap(c->login, p);
    }
    /* The answer that ends SASL is the last one without its layer. */
    c->wrapped = c->authenticated && c->login && login->wraps(c->login);
    if (p) {
        *c->out_tail = p;
        c->out_tail = &p->next;
        c->out_bytes += p->length;
    } else {
        c->out_bytes = OUT_MAX + 1; /* the peer would wait for ever */
    }
    client_kick(c);
}

/* ---- In. ---- */

/* Replies that nobody fetches and streams that nobody drains hold up their own client.  Daemon lock
 * held. */
static bool may_go_on(struct client *c)
{
    return c->calls < CALLS_MAX && c->out_bytes < OUT_HIGH && c->stream_bytes < STREAM_HIGH;
}

static bool goes_on(struct client *c)
{
    daemon_lock();
    bool on = !c->dead && may_go_on(c);
    daemon_unlock();
    return on;
}

static bool handle(struct client *c, const struct packet_header *h, const uint8_t *body, size_t n)
{
    if (h->program == PROGRAM_KEEPALIVE) {
        if (h->procedure == KEEPALIVE_PING) {
            struct packet_header pong = *h;
            pong.procedure = KEEPALIVE_PONG;
            daemon_lock();
            client_send(c, packet_new(&pong, NULL, 0));
            daemon_unlock();
        }
        return n == 0;
    }
    if (h->type == PACKET_STREAM || h->type == PACKET_HOLE) {
        daemon_lock();
        bool ok = stream_packet(c, h, body, n);
        daemon_unlock();
        return ok;
    }
    return dispatch_call(c, h, body, n, NULL, 0);
}

/* A call with FDs: @body starts with their number, @rest is what follows the packet.  The
 * bytes that carried them, 0 if they are not all there yet, -1 if that cannot be. */
static int handle_with_fds(struct client *c, const struct packet_header *h, const uint8_t *body,
                           size_t n, size_t rest)
{
    uint32_t count = n >= 4 ? be32_at(body) : UINT32_MAX;
    if (count > PACKET_FDS_MAX) {
        return -1;
    }
    if (rest < count || c->nfds < count) {
        return rest < count ? 0 : -1;
    }
    int fds[PACKET_FDS_MAX];
    memcpy(fds, c->fds, count * sizeof(int));
    c->nfds -= count;
    memmove(c->fds, c->fds + count, c->nfds * sizeof(int));
    return dispatch_call(c, h, body + 4, n - 4, fds, count) ? (int)count : -1;
}

/* Handles whole packets in @n bytes; how many bytes they took, or -1. */
static ssize_t consume(struct client *c, const uint8_t *data, size_t n)
{
    size_t at = 0;
    while (n - at >= 4 && goes_on(c)) {
        uint32_t length = be32_at(data + at);
        if (length < PACKET_HEAD || length > (c->authenticated ? PACKET_MAX : PACKET_MAX_ANYONE)) {
            return -1;
        }
        if (n - at < length) {
            break;
        }
        struct packet_header h;
        packet_header_read(data + at, &h);
        const uint8_t *body = data + at + PACKET_HEAD;
        size_t bytes = length - PACKET_HEAD;
        if (h.type == PACKET_CALL_FDS) {
            size_t rest = n - at - length;
            int used = handle_with_fds(c, &h, body, bytes, rest);
            if (used < 0) {
                return -1;
            }
            if (!used && be32_at(body)) {
                break; /* the FDs are still on their way */
            }
            at += (size_t)used;
        } else if (!handle(c, &h, body, bytes)) {
            return -1;
        }
        at += length;
    }
    return (ssize_t)at;
}

/* Packets that were left while the client had to wait; false: drop it. */
static bool consume_kept(struct client *c)
{
    if (!c->in->len) {
        return true;
    }
    ssize_t used = consume(c, c->in->data, c->in->len);
    if (used > 0) {
        g_byte_array_remove_range(c->in, 0, (guint)used);
        if (!c->in->len) {
            g_byte_array_unref(c->in); /* it may have held a large packet */
            c->in = g_byte_array_new();
        }
    }
    return used >= 0;
}

static ssize_t receive(struct client *c, uint8_t *to, size_t n)
{
    if (c->tls) {
        return tls->receive(c->tls, to, n);
    }
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(PACKET_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {to, n};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof(control.room)};
    ssize_t got = recvmsg(c->watch.fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got > 0 && m.msg_controllen) {
        c->nfds = packet_keep_fds(&m, c->fds, c->nfds);
    }
    return got;
}

/* Bytes just read, which nearly always are whole packets: only the rest is copied. */
static bool take(struct client *c, const uint8_t *data, size_t n)
{
    ssize_t used = 0;
    daemon_lock();
    bool wrapped = c->wrapped; /* the peer knows too: it waited for the answer */
    bool ok = !wrapped || login->unwrap(c->login, data, n, c->in);
    daemon_unlock();
    if (wrapped) {
        return ok && consume_kept(c);
    }
    if (!c->in->len) {
        used = consume(c, data, n);
        if (used < 0) {
            return false;
        }
    }
    g_byte_array_append(c->in, data + used, (guint)(n - (size_t)used));
    return c->in->len == n - (size_t)used || consume_kept(c);
}

/* NULL, or why the client goes.  Sets @any if there was something. */
static const char *read_all(struct client *c, bool *any)
{
    static uint8_t bytes[READ_BYTES]; /* main loop only */
    for (int round = 0; (round < READ_ROUNDS || c->tls) && goes_on(c); round++) {
        ssize_t n = receive(c, bytes, sizeof(bytes));
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return NULL;
        }
        *any = true;
        if (n <= 0) {
            return n ? g_strerror(errno) : "";
        }
        c->silent = c->unanswered = c->stalled = 0;
        if (!take(c, bytes, (size_t)n)) {
            return "malformed packet";
        }
        if ((size_t)n < sizeof(bytes) && !c->tls) {
            return NULL;
        }
    }
    return NULL;
}

/* After whatever happened: sends, goes on with what had to wait, sets what to wait for. */
static void client_work(struct client *c)
{
    const char *why = NULL;
    bool any;
    if (!consume_kept(c)) {
        why = "malformed packet";
    } else if (c->tls && !c->dead && tls->pending(c->tls)) {
        why = read_all(c, &any); /* the socket itself will not tell */
    }
    daemon_lock();
    if (c->dead) {
        daemon_unlock();
        return;
    }
    if (why) {
        ;
    } else if (c->out_bytes > OUT_MAX) {
        why = "it does not fetch what it asked for";
    } else if (!flush(c)) {
        why = g_strerror(errno);
    } else {
        streams_run(c);
    }
    uint32_t events = (c->out ? EPOLLOUT : 0u) | (may_go_on(c) ? EPOLLIN : 0u);
    daemon_unlock();
    if (why) {
        client_drop(c, *why ? why : NULL);
    } else {
        poller_set(&c->watch, events);
    }
}

static void kicked(void *data)
{
    struct client *c = data;
    daemon_lock();
    c->kicked = false;
    daemon_unlock();
    client_work(c);
    client_unref(c);
}

static void handshake(struct client *c)
{
    g_autoptr(GError) error = NULL;
    switch (tls->handshake(c->tls, &error)) {
    case TLS_FAILED:
        client_drop(c, error->message);
        break;
    case TLS_WANTS_READ:
        poller_set(&c->watch, EPOLLIN);
        break;
    case TLS_WANTS_WRITE:
        poller_set(&c->watch, EPOLLOUT);
        break;
    case TLS_DONE:
        c->handshaking = false;
        daemon_lock();
        c->authenticated = c->auth == PROVE_NOTHING;
        daemon_unlock();
        client_work(c);
        break;
    }
}

/* False: there was nothing to read. */
static bool read_and_work(struct client *c)
{
    bool any = false;
    /* The queue is flushed below: no need to be called for it once more. */
    daemon_lock();
    bool was = c->kicked;
    c->kicked = true;
    daemon_unlock();
    const char *why = read_all(c, &any);
    daemon_lock();
    c->kicked = was;
    daemon_unlock();
    if (why) {
        client_drop(c, *why ? why : NULL);
    } else {
        client_work(c);
    }
    return any;
}

static void client_ready(struct watch *watch, uint32_t events)
{
    struct client *c = client_ref(container_of(watch, struct client, watch));
    if (c->handshaking) {
        handshake(c);
    } else if (events & EPOLLIN) {
        read_and_work(c);
    } else if (events & (EPOLLHUP | EPOLLERR)) {
        client_drop(c, NULL);
    } else {
        client_work(c);
    }
    client_unref(c);
}

static bool client_look(struct watch *watch)
{
    struct client *c = client_ref(container_of(watch, struct client, watch));
    bool any = (watch->events & EPOLLIN) && read_and_work(c);
    client_unref(c);
    return any;
}

/* ---- Every second. ---- */

unsigned clients_anonymous(void)
{
    unsigned count = 0;
    for (const struct client *c = clients; c; c = c->next) {
        count += !c->authenticated;
    }
    return count;
}

/* Asks a silent client for a sign of life; NULL, or why it goes. */
static const char *keep_alive(struct client *c)
{
    static const struct packet_header ping = {PROGRAM_KEEPALIVE, 1, KEEPALIVE_PING,
                                              PACKET_EVENT,      0, STATUS_OK};
    unsigned interval = setting_number("keepalive", "interval");
    if (!c->keepalive || !interval || !may_go_on(c) || ++c->silent < interval) {
        return NULL; /* of one that has to wait for us we read nothing */
    }
    c->silent = 0;
    if (c->unanswered++ >= setting_number("keepalive", "count")) {
        return "it does not answer";
    }
    client_send(c, packet_new(&ping, NULL, 0));
    return NULL;
}

/* Somebody who stops half-way, sending or fetching, holds memory and a place. */
static const char *stalled(struct client *c)
{
    bool half_way = !c->authenticated || c->out || (c->in->len && may_go_on(c));
    c->stalled = half_way ? c->stalled + 1 : 0;
    return c->stalled > setting_number("keepalive", "stall") ? "it stopped half-way" : NULL;
}

void clients_tick(void)
{
    for (struct client *c = clients, *next; c; c = next) {
        next = c->next;
        daemon_lock();
        const char *half_way = stalled(c), *silent = half_way ? NULL : keep_alive(c);
        daemon_unlock();
        if (half_way) {
            client_drop(c, half_way);
        } else if (silent) {
            end(c, END_KEEPALIVE, silent);
        }
    }
}
