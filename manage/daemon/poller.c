/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/poller.h"

#include "base/util.h"

#include <glib.h>
#include <stdatomic.h>

enum { BATCH = 64, ROUNDS = 64 };
/* Microseconds: as long is looked for the next call of a client that makes one after the other, and
 * as short is the time between two calls that makes us look.  One look in OTHERS is for all
 * descriptors. */
enum { LINGER = 80, IN_A_ROW = 250, LESSONS = 6, OTHERS = 8 };

/* The events of one epoll_wait(); an entry is cleared when its watch goes. */
static struct {
    int fd;
    struct epoll_event events[BATCH];
    int count;
} poller = {.fd = -1};

static struct {
    struct watch *last; /* who made a call last, or NULL */
    gint64 left;        /* when we last had nothing to do */
    unsigned quick;     /* so many times in a row there was soon something again */
    unsigned lesson; /* we look after 1 << lesson such times: more if nobody came when we looked */
    atomic_bool interrupted;
} linger;

void poller_interrupt(void)
{
    atomic_store_explicit(&linger.interrupted, true, memory_order_relaxed);
}

/* Did something come soon after we left?  Then the next will too, and to sleep would cost both
 * sides more than the whole call: 50 us until a processor wakes, and the client's threads move
 * meanwhile. */
static bool in_a_row(void)
{
    linger.quick = g_get_monotonic_time() - linger.left < IN_A_ROW ? linger.quick + 1 : 0;
    return linger.quick >= 1u << linger.lesson;
}

/* False: there is nothing. */
static bool serve(void)
{
    poller.count = epoll_wait(poller.fd, poller.events, BATCH, 0);
    bool any = poller.count > 0;
    for (int i = 0; i < poller.count; i++) {
        struct watch *watch = poller.events[i].data.ptr;
        if (watch) {
            linger.last = watch->look ? watch : linger.last;
            watch->ready(watch, poller.events[i].events);
        }
    }
    poller.count = 0;
    return any;
}

/* Looks for a while whether something comes.  If it does not come soon the machine is busy, and
 * sleeping is better; so is it than to give way, after which it would be our turn late. */
static bool look_again(void)
{
    gint64 end = g_get_monotonic_time() + LINGER;
    for (unsigned turn = 1; !atomic_load_explicit(&linger.interrupted, memory_order_relaxed);
         turn++) {
        if (linger.last && turn % OTHERS ? linger.last->look(linger.last) : serve()) {
            linger.lesson = 0;
            return true;
        }
        if (g_get_monotonic_time() > end) {
            linger.lesson = MIN(linger.lesson + 1, LESSONS);
            linger.quick = 0;
            break;
        }
    }
    return false;
}

/* Stays in here while there is work: a turn of GLib's loop costs more than most calls. */
static gboolean dispatch(GSource *source, GSourceFunc unused, gpointer data)
{
    (void)source, (void)unused, (void)data;
    atomic_store_explicit(&linger.interrupted, false, memory_order_relaxed);
    bool lingers = in_a_row();
    for (int round = 0; round < ROUNDS && (serve() || (lingers && look_again())); round++) {
    }
    linger.left = g_get_monotonic_time();
    return G_SOURCE_CONTINUE;
}

static void start(void)
{
    static GSourceFuncs funcs = {.dispatch = dispatch};
    poller.fd = epoll_create1(EPOLL_CLOEXEC);
    GSource *source = g_source_new(&funcs, sizeof(GSource));
    g_source_add_unix_fd(source, poller.fd, G_IO_IN);
    g_source_set_can_recurse(source, TRUE); /* else GLib wakes itself before and after each turn */
    g_source_attach(source, NULL);
    g_source_unref(source);
}

bool poller_add(struct watch *watch)
{
    if (poller.fd < 0) {
        start();
    }
    struct epoll_event event = {.events = watch->events, .data.ptr = watch};
    return epoll_ctl(poller.fd, EPOLL_CTL_ADD, watch->fd, &event) == 0;
}

void poller_set(struct watch *watch, uint32_t events)
{
    if (watch->events != events) {
        struct epoll_event event = {.events = events, .data.ptr = watch};
        watch->events = events;
        epoll_ctl(poller.fd, EPOLL_CTL_MOD, watch->fd, &event);
    }
}

void poller_remove(struct watch *watch)
{
    epoll_ctl(poller.fd, EPOLL_CTL_DEL, watch->fd, NULL);
    linger.last = linger.last == watch ? NULL : linger.last;
    for (int i = 0; i < poller.count; i++) {
        if (poller.events[i].data.ptr == watch) {
            poller.events[i].data.ptr = NULL;
        }
    }
}
