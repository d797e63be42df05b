/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/relay.h"

#include "base/util.h"
#include "manage/daemon/daemon.h"
#include "manage/daemon/poller.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>

/* What was read at one end and waits for the other to take it. */
struct end {
    struct watch watch;
    struct relay *relay;
    size_t at, n;
    uint8_t bytes[32 << 10];
};

struct relay {
    struct end ends[2];
};

static struct end *other(struct end *e)
{
    return &e->relay->ends[e == e->relay->ends];
}

/* Moves what @e has to the other end; false when either is gone. */
static bool pump(struct end *e)
{
    for (;;) {
        if (!e->n) {
            ssize_t got = read(e->watch.fd, e->bytes, sizeof(e->bytes));
            if (got <= 0) {
                return got < 0 && (errno == EAGAIN || errno == EINTR);
            }
            e->at = 0;
            e->n = (size_t)got;
        }
        ssize_t put = write(other(e)->watch.fd, e->bytes + e->at, e->n);
        if (put < 0) {
            return errno == EAGAIN || errno == EINTR;
        }
        e->at += (size_t)put;
        e->n -= (size_t)put;
    }
}

static void relay_free(struct relay *r)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(r->ends); i++) {
        poller_remove(&r->ends[i].watch);
        close(r->ends[i].watch.fd);
    }
    g_free(r);
}

static void ready(struct watch *watch, uint32_t events)
{
    struct end *e = container_of(watch, struct end, watch), *o = other(e);
    (void)events;
    if (!pump(e) || !pump(o)) {
        relay_free(e->relay);
        return;
    }
    poller_set(&e->watch, (e->n ? 0u : EPOLLIN) | (o->n ? EPOLLOUT : 0u));
    poller_set(&o->watch, (o->n ? 0u : EPOLLIN) | (e->n ? EPOLLOUT : 0u));
}

static void attach(void *data)
{
    struct relay *r = data;
    if (!poller_add(&r->ends[0].watch) || !poller_add(&r->ends[1].watch)) {
        daemon_log("cannot watch a connection to a screen: %s", g_strerror(errno));
        relay_free(r);
    }
}

void relay_start(int one, int two)
{
    struct relay *r = g_new0(struct relay, 1);
    const int fds[] = {one, two};
    for (unsigned i = 0; i < G_N_ELEMENTS(r->ends); i++) {
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
        r->ends[i].watch = (struct watch){.fd = fds[i], .events = EPOLLIN, .ready = ready};
        r->ends[i].relay = r;
    }
    daemon_in_loop(G_PRIORITY_DEFAULT, attach, r);
}
