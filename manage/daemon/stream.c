/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/bytes.h"
#include "base/util.h"
#include "manage/daemon/client.h"
#include "manage/daemon/dispatch.h"
#include "manage/daemon/files.h"
#include "manage/daemon/verb.h"

#include <errno.h>
#include <sys/socket.h>

/*
 * Streams: bulk data behind a call.  One kind asks functions that may wait, on a worker thread,
 * one step at a time; the other moves bytes between the client and a descriptor.  Both stop
 * when their client has too much waiting (OUT_HIGH, STREAM_HIGH) and go on from streams_run().
 *
 * A step that runs holds a reference on its stream; everything else happens on the main loop
 * with the daemon lock held.
 */
struct stream {
    struct stream *next;
    struct client *client; /* NULL: it has ended */
    int refs;              /* the client's, and one of each thread that is at it */
    struct packet_header h;
    const struct stream_ops *ops; /* NULL: .watch */
    void *data;
    struct watch watch;
    char *name; /* beside .watch; see stream_cut() */
    bool cut;
    bool watched;
    bool busy;                    /* a step is running */
    bool gone;                    /* nobody waits for what is still done */
    bool eof;                     /* told the client that there is no more */
    bool finish;                  /* the client is done; true after its last byte was queued */
    struct packet *in, **in_tail; /* from the client; .sent is what was written already */
};

static void fd_ready(struct watch *watch, uint32_t events);

struct stream *stream_new(const struct stream_ops *ops, void *data, int fd, char *name)
{
    struct stream *s = g_new0(struct stream, 1);
    s->refs = 1;
    s->ops = ops;
    s->data = data;
    s->name = name;
    s->watch = (struct watch){.fd = fd, .ready = fd_ready};
    s->in_tail = &s->in;
    return s;
}

static struct packet *pop(struct stream *s)
{
    struct packet *p = s->in;
    s->in = p->next;
    if (!s->in) {
        s->in_tail = &s->in;
    }
    if (s->client) {
        s->client->stream_bytes -= p->length;
    }
    return p;
}

static void drop_input(struct stream *s)
{
    while (s->in) {
        packet_free(pop(s));
    }
}

static void stream_unref(struct stream *s)
{
    if (--s->refs) {
        return;
    }
    drop_input(s);
    if (s->ops) {
        if (s->ops->free) {
            s->ops->free(s->data);
        }
    } else {
        if (s->watched) {
            poller_remove(&s->watch);
        }
        close(s->watch.fd);
    }
    g_free(s->name);
    g_free(s);
}

void stream_free_unused(struct stream *s)
{
    stream_unref(s);
}

void stream_attach(struct client *c, struct stream *s, const struct packet_header *h)
{
    s->client = c;
    s->h = *h;
    s->h.type = PACKET_STREAM;
    s->next = c->streams;
    c->streams = s;
    c->streams_count++;
    client_kick(c);
}

static void unlink_stream(struct stream *s)
{
    for (struct stream **at = &s->client->streams; *at; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            s->client->streams_count--;
            break;
        }
    }
}

/* The stream is over, but for a step that still runs. */
static void end(struct stream *s)
{
    drop_input(s);
    unlink_stream(s);
    s->client = NULL;
    s->gone = true;
    stream_unref(s);
}

static void tell(struct stream *s, enum packet_status status, const void *data, size_t n)
{
    struct packet_header h = s->h;
    h.status = status;
    client_send(s->client, packet_new(&h, data, n));
}

static void fail(struct stream *s, const GError *error)
{
    client_send(s->client, dispatch_error(&s->h, NULL, error));
    end(s);
}

static void fail_errno(struct stream *s, int code)
{
    g_autoptr(GError) error = NULL;
    libvirt_error(&error, ERR_SYSTEM, "stream: %s", g_strerror(code));
    fail(s, error);
}

bool stream_packet(struct client *c, const struct packet_header *h, const uint8_t *body, size_t n)
{
    struct stream *s = c->streams;
    while (s && (s->h.serial != h->serial || s->h.procedure != h->procedure)) {
        s = s->next;
    }
    if (!s) {
        return true; /* it ended here while this was under way */
    }
    if (h->status == STATUS_ERROR) {
        tell(s, STATUS_OK, NULL, 0);
        end(s);
    } else if (h->status == STATUS_OK) {
        s->finish = true;
        client_kick(c);
    } else if (!s->finish && (n || h->type == PACKET_HOLE)) {
        struct packet *p = packet_new(h, body, n);
        if (!p) {
            return false;
        }
        *s->in_tail = p;
        s->in_tail = &p->next;
        c->stream_bytes += p->length;
        client_kick(c);
    }
    return true;
}

/* ---- Functions that may wait. ---- */

enum step { STEP_NONE, STEP_WRITE, STEP_FINISH, STEP_READ };

static enum step next_step(const struct stream *s)
{
    if (s->in) {
        return STEP_WRITE;
    }
    if (s->finish) {
        return STEP_FINISH;
    }
    return s->ops->read && !s->eof && client_has_room(s->client) ? STEP_READ : STEP_NONE;
}

/* Lock not held in these three; each a step. */
static bool step_write(struct stream *s, const struct packet *p, GError **error)
{
    const uint8_t *body = p->data + PACKET_HEAD;
    size_t n = p->length - PACKET_HEAD;
    bool hole = be32_at(p->data + 16) == PACKET_HOLE;
    if (!s->ops->write || (hole && (!s->ops->write_hole || n != 12))) {
        libvirt_error(error, ERR_OPERATION_INVALID, "the stream takes no %s",
                      hole ? "holes" : "data");
        return false;
    }
    return hole ? s->ops->write_hole(s->data, be64_at(body), error)
                : s->ops->write(s->data, body, n, error);
}

/* NULL with an error; a packet with an empty body says that there is no more. */
static struct packet *step_read(struct stream *s, GError **error)
{
    struct packet_header h = s->h;
    h.status = STATUS_CONTINUE;
    if (s->ops->read_hole) {
        int64_t hole = s->ops->read_hole(s->data, error);
        if (hole < 0) {
            return NULL;
        }
        if (hole) {
            uint8_t body[12] = {0};
            be64_put(body, (uint64_t)hole);
            h.type = PACKET_HOLE;
            return packet_new(&h, body, sizeof(body));
        }
    }
    struct packet *p = packet_new(&h, NULL, STREAM_CHUNK);
    ssize_t n = -1;
    if (!p) {
        libvirt_error(error, ERR_NO_MEMORY, "stream");
    } else {
        n = s->ops->read(s->data, p->data + PACKET_HEAD, STREAM_CHUNK, error);
    }
    if (n < 0) {
        packet_free(p);
        return NULL;
    }
    p->length = PACKET_HEAD + (size_t)n;
    be32_put(p->data, (uint32_t)p->length);
    return p;
}

/* One that its stream has given up ends when the server answers again. */
struct deed {
    struct stream *s;
    enum step what;
    struct packet *in, *out;
    GError *error;
    bool ok;
};

/* Lock not held. */
static void deed_run(void *data)
{
    struct deed *d = data;
    struct stream *s = d->s;
    if (d->what == STEP_WRITE) {
        d->ok = step_write(s, d->in, &d->error);
    } else if (d->what == STEP_FINISH) {
        d->ok = !s->ops->finish || s->ops->finish(s->data, &d->error);
    } else {
        d->out = step_read(s, &d->error);
        d->ok = d->out;
    }
}

static void deed_drop(void *data)
{
    struct deed *d = data;
    packet_free(d->in);
    packet_free(d->out);
    g_clear_error(&d->error);
    bool held = daemon_lock_held();
    if (!held) {
        daemon_lock();
    }
    stream_unref(d->s);
    if (!held) {
        daemon_unlock();
    }
    g_free(d);
}

/* What came of @d; lock held. */
static void deed_done(struct deed *d)
{
    struct stream *s = d->s;
    if (s->gone) {
        return;
    }
    if (!d->ok) {
        fail(s, d->error);
    } else if (d->what == STEP_FINISH) {
        tell(s, STATUS_OK, NULL, 0);
        end(s);
    } else if (d->what == STEP_READ) {
        s->eof = d->out->length == PACKET_HEAD;
        client_send(s->client, g_steal_pointer(&d->out));
    }
}

/* Daemon lock held, given up during the work. */
static void step(struct stream *s, enum step what)
{
    struct deed *d = g_new0(struct deed, 1);
    *d = (struct deed){.s = s, .what = what, .in = what == STEP_WRITE ? pop(s) : NULL};
    s->refs++;
    if (s->ops->file) {
        g_autoptr(GError) late = NULL;
        if (!file_work(s->ops->file(s->data), deed_run, d, deed_drop, &late)) {
            if (!s->gone) {
                fail(s, late);
            }
            return;
        }
    } else {
        daemon_unlock();
        deed_run(d);
        daemon_lock();
    }
    deed_done(d);
    deed_drop(d);
}

/* On a worker thread: goes on while nothing is in the way. */
static void work(void *data)
{
    struct stream *s = data;
    daemon_lock();
    struct client *c = s->client; /* NULL: it has gone before there was a thread */
    enum step what;
    while (!s->gone && (what = next_step(s)) != STEP_NONE) {
        step(s, what);
    }
    s->busy = false;
    if (!s->gone) {
        client_kick(c);
    }
    stream_unref(s);
    daemon_unlock();
}

static void run_ops(struct stream *s)
{
    if (!s->busy && next_step(s) != STEP_NONE) {
        s->busy = true;
        s->refs++;
        lane_work(s->client->lane, work, s);
    }
}

/* ---- A descriptor. ---- */

static bool is_open(const struct stream *s, const char *name)
{
    return g_strcmp0(s->name, name) == 0 && !s->eof && !s->cut && !s->finish;
}

bool stream_is_open(const char *name)
{
    for (const struct client *c = clients; c; c = c->next) {
        for (const struct stream *s = c->streams; s; s = s->next) {
            if (is_open(s, name)) {
                return true;
            }
        }
    }
    return false;
}

void stream_cut(const char *name)
{
    for (struct client *c = clients; c; c = c->next) {
        for (struct stream *s = c->streams; s; s = s->next) {
            if (is_open(s, name)) {
                s->cut = true;
                client_kick(c);
            }
        }
    }
}

/* Writes what came from the client; false if the stream ended. */
static bool fd_write(struct stream *s)
{
    while (s->in) {
        struct packet *p = s->in;
        size_t at = MAX(p->sent, PACKET_HEAD);
        size_t left = p->length > at ? p->length - at : 0;
        ssize_t n = left && !s->cut ? write(s->watch.fd, p->data + at, left) : (ssize_t)left;
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return true;
        }
        if (n < 0) {
            fail_errno(s, errno);
            return false;
        }
        p->sent = at + (size_t)n;
        if (p->sent == p->length) {
            packet_free(pop(s));
        }
    }
    if (s->finish) {
        tell(s, STATUS_OK, NULL, 0);
        end(s);
        return false;
    }
    return true;
}

/* Reads what there is; false if the stream ended. */
static bool fd_read(struct stream *s)
{
    static uint8_t bytes[STREAM_CHUNK]; /* main loop only */
    if (s->eof || !client_has_room(s->client)) {
        return true;
    }
    ssize_t n = s->cut ? 0 : read(s->watch.fd, bytes, sizeof(bytes));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (n <= 0) { /* EIO: the other side of a terminal has closed */
        s->eof = true;
        n = 0;
    }
    tell(s, STATUS_CONTINUE, bytes, (size_t)n);
    return true;
}

static void fd_wait(struct stream *s)
{
    uint32_t events = (s->in ? EPOLLOUT : 0u);
    events |= !s->eof && client_has_room(s->client) ? EPOLLIN : 0u;
    if (events && !s->watched) {
        s->watch.events = events;
        s->watched = poller_add(&s->watch);
    } else if (!events && s->watched) { /* a hang-up would be reported for ever */
        poller_remove(&s->watch);
        s->watched = false;
    } else if (s->watched) {
        poller_set(&s->watch, events);
    }
}

static void fd_ready(struct watch *watch, uint32_t events)
{
    struct stream *s = container_of(watch, struct stream, watch);
    daemon_lock();
    bool on = true;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        on = fd_read(s);
    }
    if (on && fd_write(s)) {
        fd_wait(s);
    }
    daemon_unlock();
}

void streams_run(struct client *c)
{
    for (struct stream *s = c->streams, *next; s; s = next) {
        next = s->next;
        if (s->ops) {
            run_ops(s);
        } else if ((!s->cut || fd_read(s)) && fd_write(s)) {
            fd_wait(s);
        }
    }
}

void streams_abort(struct client *c)
{
    while (c->streams) {
        end(c->streams);
    }
}
