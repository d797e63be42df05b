/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * The bytes between the NBD server and one client: a socket or two pipes, plain or in TLS.
 *
 * Sockets are non-blocking, so that a peer that stands still can be given up at a deadline or
 * when the server stops.
 */
#include "host/image/serve_nbd.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Waits until @fd can be read or written; false on deadline and stop. */
static bool wait_for(const struct stream *s, int fd, short events)
{
    struct pollfd fds[2] = {{fd, events, 0}, {s->stop, POLLIN, 0}};
    for (;;) {
        int64_t left = s->deadline ? (s->deadline - g_get_monotonic_time()) / 1000 : -1;
        if (s->deadline && left <= 0) {
            return false;
        }
        int n = poll(fds, 2, left < 0 ? -1 : (int)MIN(left, G_MAXINT));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        return n > 0 && fds[0].revents;
    }
}

static ssize_t plain_read(struct stream *s, void *to, size_t n)
{
    if (!s->socket && !wait_for(s, s->in, POLLIN)) {
        errno = ETIMEDOUT;
        return -1;
    }
    return s->socket ? recv(s->in, to, n, MSG_DONTWAIT) : read(s->in, to, n);
}

static ssize_t plain_write(struct stream *s, const void *from, size_t n)
{
    if (!s->socket && !wait_for(s, s->out, POLLOUT)) {
        errno = ETIMEDOUT;
        return -1;
    }
    return s->socket ? send(s->out, from, n, MSG_DONTWAIT | MSG_NOSIGNAL) : write(s->out, from, n);
}

/* GnuTLS's codes as read() and write() would say it. */
static ssize_t tls_result(ssize_t n)
{
    if (n >= 0) {
        return n;
    }
    errno = n == GNUTLS_E_AGAIN ? EAGAIN : n == GNUTLS_E_INTERRUPTED ? EINTR : EIO;
    return -1;
}

bool stream_read(struct stream *s, void *to, size_t n)
{
    uint8_t *at = to;
    while (n) {
        ssize_t got = s->tls ? tls_result(gnutls_record_recv(s->tls, at, n)) : plain_read(s, at, n);
        if (got > 0) {
            at += got;
            n -= (size_t)got;
        } else if (got == 0 || (errno != EAGAIN && errno != EINTR) ||
                   (errno == EAGAIN && !wait_for(s, s->in, POLLIN))) {
            return false;
        }
    }
    return true;
}

bool stream_write(struct stream *s, const void *from, size_t n)
{
    const uint8_t *at = from;
    while (n) {
        ssize_t put =
            s->tls ? tls_result(gnutls_record_send(s->tls, at, n)) : plain_write(s, at, n);
        if (put > 0) {
            at += put;
            n -= (size_t)put;
        } else if (put == 0 || (errno != EAGAIN && errno != EINTR) ||
                   (errno == EAGAIN && !wait_for(s, s->out, POLLOUT))) {
            return false;
        }
    }
    return true;
}

bool stream_skip(struct stream *s, uint64_t n)
{
    uint8_t waste[4096];
    while (n) {
        size_t now = MIN(n, sizeof(waste));
        if (!stream_read(s, waste, now)) {
            return false;
        }
        n -= now;
    }
    return true;
}

bool stream_pending(const struct stream *s)
{
    int n = 0;
    return (s->tls && gnutls_record_check_pending(s->tls)) || (!ioctl(s->in, FIONREAD, &n) && n);
}

static ssize_t tls_pull(gnutls_transport_ptr_t p, void *to, size_t n)
{
    return plain_read(p, to, n); /* leaves errno, which is this thread's own */
}

static ssize_t tls_push(gnutls_transport_ptr_t p, const void *from, size_t n)
{
    return plain_write(p, from, n);
}

bool stream_start_tls(struct stream *s, const struct server_tls *server)
{
    gnutls_session_t tls = server_tls_session(server);
    if (!tls) {
        return false;
    }
    s->tls = tls;
    gnutls_transport_set_ptr(tls, s);
    gnutls_transport_set_pull_function(tls, tls_pull);
    gnutls_transport_set_push_function(tls, tls_push);
    for (;;) {
        int r = gnutls_handshake(tls);
        if (r == GNUTLS_E_SUCCESS) {
            return server_tls_allows(server, tls);
        }
        if (gnutls_error_is_fatal(r)) {
            return false;
        }
        bool out = gnutls_record_get_direction(tls);
        if (r == GNUTLS_E_AGAIN && !wait_for(s, out ? s->out : s->in, out ? POLLOUT : POLLIN)) {
            return false;
        }
    }
}

void stream_close(struct stream *s)
{
    if (s->tls) {
        gnutls_bye(s->tls, GNUTLS_SHUT_WR);
        gnutls_deinit(s->tls);
    }
    close(s->in);
    if (s->out != s->in) {
        close(s->out);
    }
}
