/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/poller.h"

#include "base/util.h"

#include <glib.h>

enum { BATCH = 64, ROUNDS = 16 };

/* The events of one epoll_wait(); an entry is cleared when its watch goes. */
static struct {
    int fd;
    struct epoll_event events[BATCH];
    int count;
} poller = {.fd = -1};

/* Stays in here while there is work: a turn of GLib's loop costs more than most calls. */
static gboolean dispatch(GSource *source, GSourceFunc unused, gpointer data)
{
    (void)source, (void)unused, (void)data;
    for (int round = 0; round < ROUNDS; round++) {
        poller.count = epoll_wait(poller.fd, poller.events, BATCH, 0);
        if (poller.count <= 0) {
            break;
        }
        for (int i = 0; i < poller.count; i++) {
            struct watch *watch = poller.events[i].data.ptr;
            if (watch) {
                watch->ready(watch, poller.events[i].events);
            }
        }
    }
    poller.count = 0;
    return G_SOURCE_CONTINUE;
}

static void start(void)
{
    static GSourceFuncs funcs = {.dispatch = dispatch};
    poller.fd = epoll_create1(EPOLL_CLOEXEC);
    GSource *source = g_source_new(&funcs, sizeof(GSource));
    g_source_add_unix_fd(source, poller.fd, G_IO_IN);
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
    for (int i = 0; i < poller.count; i++) {
        if (poller.events[i].data.ptr == watch) {
            poller.events[i].data.ptr = NULL;
        }
    }
}
