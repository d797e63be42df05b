/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

/*
 * Thousands of descriptors in one GSource: an epoll set that the main loop polls.  Main loop
 * only; the daemon lock is not held in .ready.
 */
struct watch {
    int fd;
    uint32_t events; /* EPOLLIN, EPOLLOUT */
    /* May remove this watch or any other. */
    void (*ready)(struct watch *watch, uint32_t events);
    /* NULL, or for those that ask one thing after the other: looks and handles what there is
     * without having been told that there is something; false if there was nothing. */
    bool (*look)(struct watch *watch);
};

bool poller_add(struct watch *watch);
void poller_set(struct watch *watch, uint32_t events);
void poller_remove(struct watch *watch);
/* From any thread, after work for the main loop was queued elsewhere: it looks there soon. */
void poller_interrupt(void);
