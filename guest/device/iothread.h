/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * iothread - a thread that works through the queues of its devices, so that the vCPU that has
 * kicked one is back in the guest at once
 *
 * It takes the machine lock for that, as everybody who looks at a device.  What was kicked while
 * the machine stands is done when it runs again.  Machine lock held for all of these.
 */
typedef struct iothread Iothread;

/* Of a device, for which the thread calls .run(owner, queue). */
struct iothread_user {
    Iothread *thread;            /* NULL: the device does its work where it is asked to */
    atomic_uint_fast64_t queues; /* that were kicked */
    void (*run)(void *owner, unsigned queue);
    void *owner;
    struct iothread_user *next;
};

Iothread *iothread_new(const char *id, GError **error);
Iothread *iothread_find(const char *id); /* NULL: there is none */
bool iothread_remove(const char *id);    /* false: there is none, or a device uses it */
void iothread_each(void (*each)(const char *id, int tid, void *data), void *data);

/* @id names the thread; NULL: none.  .run and .owner are set. */
bool iothread_join(struct iothread_user *u, const char *id, GError **error);
void iothread_leave(struct iothread_user *u); /* fine without a thread */
/* From any thread: @queue is kicked. */
void iothread_kick(struct iothread_user *u, unsigned queue);
