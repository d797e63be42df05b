/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/chardev/backend.h"

#include "base/util.h"

#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK_BYTES = 4096 };

static struct stream *self(struct chardev *chr)
{
    return container_of(chr, struct stream, chr);
}

static size_t room_of(const struct chardev *chr)
{
    return !chr->receive ? 0 : chr->room ? chr->room(chr->peer) : SIZE_MAX;
}

static void end_reading(struct stream *s)
{
    s->in_watch = 0;
    if (s->hung_up) {
        s->hung_up(s);
    }
}

/* Bytes, and the descriptors that come with them for who wants such. */
static ssize_t take_in(struct stream *s, int fd, void *to, size_t n)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {to, n};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof(control.room)};
    ssize_t got = s->chr.receive_fd ? recvmsg(fd, &m, MSG_CMSG_CLOEXEC) : -1;
    if (!s->chr.receive_fd || (got < 0 && errno == ENOTSOCK)) {
        return read(fd, to, n);
    }
    const struct cmsghdr *c = got > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len >= CMSG_LEN(sizeof(int))) {
        int passed;
        memcpy(&passed, CMSG_DATA(c), sizeof(passed));
        s->chr.receive_fd(s->chr.peer, passed);
    }
    return got;
}

static gboolean readable(gint fd, GIOCondition condition, gpointer data)
{
    struct stream *s = data;
    uint8_t buf[CHUNK_BYTES];
    size_t room = room_of(&s->chr);
    (void)condition;
    if (room == 0) {
        s->in_watch = 0; /* accept_input() watches again */
        return G_SOURCE_REMOVE;
    }
    /* A message that is cut is lost, a stream's rest is not. */
    ssize_t n = take_in(s, fd, buf, s->datagrams ? sizeof(buf) : MIN(room, sizeof(buf)));
    if (n < 0 && (errno == EAGAIN || errno == EINTR || s->datagrams)) {
        return G_SOURCE_CONTINUE;
    }
    if (n <= 0 && !s->datagrams) {
        end_reading(s);
        return G_SOURCE_REMOVE;
    }
    size_t left = s->filter ? s->filter(s, buf, (size_t)n) : (size_t)n;
    guint watch = s->in_watch;
    if (left) {
        s->chr.receive(s->chr.peer, buf, MIN(left, room));
    }
    /* The receiver may have closed or stopped this very stream. */
    return s->in_watch == watch ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void stream_accept_input(struct chardev *chr)
{
    struct stream *s = self(chr);
    if (s->in >= 0 && !s->in_watch && chr->open && room_of(chr)) {
        s->in_watch = g_unix_fd_add(s->in, G_IO_IN | G_IO_HUP | G_IO_ERR, readable, s);
    }
}

static gboolean writable(gint fd, GIOCondition condition, gpointer data)
{
    struct stream *s = data;
    (void)fd, (void)condition;
    s->out_watch = 0;
    if (s->chr.writable) {
        s->chr.writable(s->chr.peer);
    }
    return G_SOURCE_REMOVE;
}

/* With nobody at the other end bytes go nowhere, as on a serial cable. */
static size_t stream_write(struct chardev *chr, const void *data, size_t n)
{
    struct stream *s = self(chr);
    size_t done = 0;
    if (!chr->open && s->somebody) {
        chr->open = s->somebody(s);
    }
    while (s->out >= 0 && chr->open && done < n) {
        ssize_t w = write(s->out, (const uint8_t *)data + done, n - done);
        if (w >= 0) {
            done += (size_t)w;
        } else if (errno == EAGAIN && !s->datagrams) {
            if (!s->out_watch) {
                s->out_watch = g_unix_fd_add(s->out, G_IO_OUT | G_IO_ERR | G_IO_HUP, writable, s);
            }
            return done;
        } else if (errno != EINTR) {
            break; /* the reading side hears of it */
        }
    }
    return n;
}

void stream_init(struct stream *s, const char *kind, int in, int out)
{
    s->chr.kind = kind;
    s->chr.write = stream_write;
    s->chr.accept_input = stream_accept_input;
    s->chr.close = stream_close;
    s->chr.log_fd = -1;
    s->in = in;
    s->out = out;
    s->chr.open = in >= 0 || out >= 0;
}

void stream_start(struct stream *s)
{
    stream_accept_input(&s->chr);
}

void stream_stop(struct stream *s)
{
    g_clear_handle_id(&s->in_watch, g_source_remove);
    g_clear_handle_id(&s->out_watch, g_source_remove);
    if (s->in >= 0) {
        close(s->in);
    }
    if (s->out >= 0 && s->out != s->in) {
        close(s->out);
    }
    s->in = s->out = -1;
    s->chr.open = false;
}

void stream_close(struct chardev *chr)
{
    stream_stop(self(chr));
    g_free(self(chr));
}

void chardev_tell(struct chardev *chr, enum chardev_event event)
{
    if (chr->event) {
        chr->event(chr->peer, event);
    }
}

size_t chardev_offer(struct chardev *chr, const uint8_t *data, size_t n)
{
    size_t done = 0;
    for (size_t room; done < n && (room = room_of(chr)) > 0;) {
        size_t step = MIN(room, n - done);
        chr->receive(chr->peer, data + done, step);
        done += step;
    }
    return done;
}
