/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/rpc/client.h"

#include "base/bytes.h"
#include "base/error.h"
#include "base/util.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

/*
 * Calls wait for their answer and handle meanwhile whatever else comes: pings, events, and
 * stream packets, which are kept until somebody asks for them.
 */
struct rpc {
    int fd;
    int patience_ms; /* -1: for ever */
    uint32_t serial;
    GByteArray *in;
    int fds[PACKET_FDS_MAX];
    unsigned nfds;
    rpc_event_fn *on_event;
    void *event_data;
    struct packet *answer; /* to the call that waits */
    struct packet_header call;
    struct packet *stream, **stream_tail; /* unread packets of the stream */
};

Rpc *rpc_new(int fd)
{
    Rpc *rpc = g_new0(Rpc, 1);
    rpc->fd = fd;
    rpc->patience_ms = -1;
    rpc->in = g_byte_array_new();
    rpc->stream_tail = &rpc->stream;
    return rpc;
}

Rpc *rpc_connect(const char *path, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        error_set_errno(error, ENAMETOOLONG, "%s", path);
        return NULL;
    }
    strcpy(address.sun_path, path);
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        error_set_errno(error, errno, "cannot connect to %s", path);
        return NULL;
    }
    return rpc_new(g_steal_fd(&fd));
}

static void drop_fds(Rpc *rpc)
{
    for (unsigned i = 0; i < rpc->nfds; i++) {
        if (rpc->fds[i] >= 0) {
            close(rpc->fds[i]);
        }
    }
    rpc->nfds = 0;
}

static void drop_stream(Rpc *rpc)
{
    while (rpc->stream) {
        struct packet *p = rpc->stream;
        rpc->stream = p->next;
        packet_free(p);
    }
    rpc->stream_tail = &rpc->stream;
}

void rpc_free(Rpc *rpc)
{
    if (rpc) {
        drop_fds(rpc);
        drop_stream(rpc);
        packet_free(rpc->answer);
        g_byte_array_unref(rpc->in);
        close(rpc->fd);
        g_free(rpc);
    }
}

void rpc_patience(Rpc *rpc, unsigned seconds)
{
    rpc->patience_ms = (int)seconds * 1000;
}

int rpc_fd(const Rpc *rpc)
{
    return rpc->fd;
}

void rpc_on_event(Rpc *rpc, rpc_event_fn *fn, void *data)
{
    rpc->on_event = fn;
    rpc->event_data = data;
}

int rpc_take_fd(Rpc *rpc, unsigned i)
{
    return i < rpc->nfds ? g_steal_fd(&rpc->fds[i]) : -1;
}

static bool lost(GError **error)
{
    libvirt_error(error, ERR_RPC, "the connection to the daemon is lost: %s",
                  errno ? g_strerror(errno) : "it closed it");
    return false;
}

static bool send_all(Rpc *rpc, struct packet *p, GError **error)
{
    while (p && p->sent < p->length) {
        ssize_t n = send(rpc->fd, p->data + p->sent, p->length - p->sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            packet_free(p);
            return lost(error);
        }
        p->sent += (size_t)MAX(n, 0);
    }
    if (!p) {
        libvirt_error(error, ERR_RPC, "the message is too large");
        return false;
    }
    packet_free(p);
    return true;
}

/* ---- What comes. ---- */

static bool take_packet(Rpc *rpc, const struct packet_header *h, const uint8_t *body, size_t n,
                        GError **error)
{
    if (h->program == PROGRAM_KEEPALIVE) {
        struct packet_header pong = *h;
        pong.procedure = KEEPALIVE_PONG;
        return h->procedure != KEEPALIVE_PING || send_all(rpc, packet_new(&pong, NULL, 0), error);
    }
    if (h->type == PACKET_EVENT) {
        if (rpc->on_event) {
            rpc->on_event(h->program, h->procedure, body, n, rpc->event_data);
        }
        return true;
    }
    if (h->serial != rpc->call.serial) {
        return true; /* of a stream that was broken off */
    }
    struct packet *p = packet_new(h, body, n);
    if (!p) {
        error_set_errno(error, ENOMEM, "answer of the daemon");
        return false;
    }
    if (h->type == PACKET_STREAM || h->type == PACKET_HOLE) {
        *rpc->stream_tail = p;
        rpc->stream_tail = &p->next;
    } else {
        packet_free(rpc->answer);
        rpc->answer = p;
    }
    return true;
}

static bool take_whole(Rpc *rpc, GError **error)
{
    while (rpc->in->len >= PACKET_HEAD) {
        uint32_t length = be32_at(rpc->in->data), front = 0;
        struct packet_header h;
        packet_header_read(rpc->in->data, &h);
        if (length < PACKET_HEAD || length > PACKET_MAX) {
            libvirt_error(error, ERR_RPC, "the daemon sent a packet of %u bytes", length);
            return false;
        }
        if (rpc->in->len < length) {
            break;
        }
        uint32_t fds = 0;
        if (h.type == PACKET_REPLY_FDS && length >= PACKET_HEAD + 4) {
            front = 4;
            fds = be32_at(rpc->in->data + PACKET_HEAD);
            if (rpc->in->len - length < fds) {
                break; /* a byte for each is still to come */
            }
        }
        if (!take_packet(rpc, &h, rpc->in->data + PACKET_HEAD + front, length - PACKET_HEAD - front,
                         error)) {
            return false;
        }
        g_byte_array_remove_range(rpc->in, 0, length + fds);
    }
    return true;
}

static bool read_some(Rpc *rpc, GError **error)
{
    enum { ROOM = 64 << 10 };
    guint old = rpc->in->len;
    struct pollfd p = {.fd = rpc->fd, .events = POLLIN};
    if (rpc->patience_ms >= 0 && poll(&p, 1, rpc->patience_ms) == 0) {
        errno = ETIMEDOUT;
        return lost(error);
    }
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(PACKET_FDS_MAX * sizeof(int))];
    } control;
    g_byte_array_set_size(rpc->in, old + ROOM);
    struct iovec iov = {rpc->in->data + old, ROOM};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof(control.room)};
    ssize_t n = recvmsg(rpc->fd, &m, MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == ENOTSOCK) { /* a pipe of ssh */
        m.msg_controllen = 0;
        n = read(rpc->fd, rpc->in->data + old, ROOM);
    }
    int code = errno;
    g_byte_array_set_size(rpc->in, old + (guint)MAX(n, 0));
    if (n <= 0) {
        if (n < 0 && (code == EINTR || code == EAGAIN)) {
            return true;
        }
        errno = n ? code : 0;
        return lost(error);
    }
    if (m.msg_controllen) {
        rpc->nfds = packet_keep_fds(&m, rpc->fds, rpc->nfds);
    }
    return take_whole(rpc, error);
}

bool rpc_wait(Rpc *rpc, int timeout_ms, GError **error)
{
    struct pollfd p = {.fd = rpc->fd, .events = POLLIN};
    return poll(&p, 1, timeout_ms) <= 0 || read_some(rpc, error);
}

/* ---- Calls. ---- */

/* Whether @p says that all is well; frees it if not. */
static bool is_good(struct packet *p, GError **error)
{
    rpc_error body;
    struct packet_header h;
    packet_header_read(p->data, &h);
    if (h.status != STATUS_ERROR) {
        return true;
    }
    if (packet_decode(p->data + PACKET_HEAD, p->length - PACKET_HEAD, (xdrproc_t)xdr_rpc_error,
                      &body, sizeof(body))) {
        g_propagate_error(error, error_from_body(&body));
        xdr_free((xdrproc_t)xdr_rpc_error, (char *)&body);
    } else {
        libvirt_error(error, ERR_RPC, "the daemon's error cannot be read");
    }
    packet_free(p);
    return false;
}

bool rpc_ask(Rpc *rpc, uint32_t program, int procedure, xdrproc_t args_codec, const void *args,
             xdrproc_t ret_codec, void *ret, size_t ret_size, GError **error)
{
    rpc->call =
        (struct packet_header){program, 1, procedure, PACKET_CALL, rpc->serial++, STATUS_OK};
    drop_fds(rpc);
    drop_stream(rpc);
    g_clear_pointer(&rpc->answer, packet_free);
    if (!send_all(rpc, packet_encode(&rpc->call, args_codec, args, 0), error)) {
        return false;
    }
    while (!rpc->answer) {
        if (!read_some(rpc, error)) {
            return false;
        }
    }
    struct packet *p = g_steal_pointer(&rpc->answer);
    if (!is_good(p, error)) {
        return false;
    }
    bool ok =
        packet_decode(p->data + PACKET_HEAD, p->length - PACKET_HEAD, ret_codec, ret, ret_size);
    packet_free(p);
    if (!ok) {
        libvirt_error(error, ERR_RPC, "the answer to procedure %d cannot be read", procedure);
    }
    return ok;
}

bool rpc_open(Rpc *rpc, const char *uri, bool read_only, GError **error)
{
    rpc_none none = {0};
    rpc_auth_list auth;
    if (!ask_auth_list(rpc, &none, &auth, error)) {
        return false;
    }
    bool wants = auth.types.types_len && auth.types.types_val[0];
    xdr_free((xdrproc_t)xdr_rpc_auth_list, (char *)&auth);
    rpc_int done;
    if (wants && !ask_auth_polkit(rpc, &none, &done, error)) {
        return false;
    }
    rpc_string name = (char *)uri;
    rpc_open_args args = {&name, read_only};
    return ask_connect_open(rpc, &args, &none, error);
}

/* ---- The stream. ---- */

static struct packet_header stream_header(const Rpc *rpc, enum packet_type type,
                                          enum packet_status status)
{
    struct packet_header h = rpc->call;
    h.type = type;
    h.status = status;
    return h;
}

static struct packet *pop(Rpc *rpc)
{
    struct packet *p = rpc->stream;
    rpc->stream = p->next;
    if (!rpc->stream) {
        rpc->stream_tail = &rpc->stream;
    }
    return p;
}

/* The daemon may have ended the stream with an error while we were sending. */
static bool no_error_came(Rpc *rpc, GError **error)
{
    if (!rpc_wait(rpc, 0, error)) {
        return false;
    }
    struct packet_header h = {0};
    if (rpc->stream) {
        packet_header_read(rpc->stream->data, &h);
    }
    return h.status != STATUS_ERROR || is_good(pop(rpc), error);
}

bool rpc_stream_send(Rpc *rpc, const void *data, size_t n, GError **error)
{
    struct packet_header h = stream_header(rpc, PACKET_STREAM, STATUS_CONTINUE);
    for (size_t at = 0, k; at < n; at += k) {
        k = MIN(n - at, STREAM_CHUNK);
        if (!no_error_came(rpc, error) ||
            !send_all(rpc, packet_new(&h, (const char *)data + at, k), error)) {
            return false;
        }
    }
    return true;
}

bool rpc_stream_send_hole(Rpc *rpc, uint64_t n, GError **error)
{
    struct packet_header h = stream_header(rpc, PACKET_HOLE, STATUS_CONTINUE);
    rpc_stream_hole hole = {(int64_t)n, 0};
    return no_error_came(rpc, error) &&
           send_all(rpc, packet_encode(&h, (xdrproc_t)xdr_rpc_stream_hole, &hole, 0), error);
}

bool rpc_stream_ready(const Rpc *rpc)
{
    return rpc->stream;
}

ssize_t rpc_stream_receive(Rpc *rpc, void *to, size_t n, uint64_t *hole, GError **error)
{
    while (!rpc->stream) {
        if (!read_some(rpc, error)) {
            return -1;
        }
    }
    struct packet *p = rpc->stream;
    struct packet_header h;
    packet_header_read(p->data, &h);
    if (h.status == STATUS_ERROR) {
        is_good(pop(rpc), error);
        return -1;
    }
    if (h.type == PACKET_HOLE) {
        p = pop(rpc);
        if (hole && p->length == PACKET_HEAD + 12) {
            *hole = be64_at(p->data + PACKET_HEAD);
        }
        packet_free(p);
        return 0;
    }
    size_t at = MAX(p->sent, PACKET_HEAD), k = MIN(n, p->length - at);
    memcpy(to, p->data + at, k);
    p->sent = at + k;
    if (p->sent == p->length) {
        packet_free(pop(rpc));
    }
    return (ssize_t)k;
}

static bool stream_end(Rpc *rpc, enum packet_status status, GError **error)
{
    struct packet_header h = stream_header(rpc, PACKET_STREAM, status);
    if (!send_all(rpc, packet_new(&h, NULL, 0), error)) {
        return false;
    }
    for (;;) {
        while (!rpc->stream) {
            if (!read_some(rpc, error)) {
                return false;
            }
        }
        struct packet *p = pop(rpc);
        packet_header_read(p->data, &h);
        if (!is_good(p, status == STATUS_ERROR ? NULL : error)) {
            return status == STATUS_ERROR;
        }
        packet_free(p);
        if (h.status == STATUS_OK) {
            return true; /* else data that was under way */
        }
    }
}

bool rpc_stream_finish(Rpc *rpc, GError **error)
{
    return stream_end(rpc, STATUS_OK, error);
}

bool rpc_stream_abort(Rpc *rpc, GError **error)
{
    return stream_end(rpc, STATUS_ERROR, error);
}
