/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/lock.h"

#include <glib.h>
#include <pthread.h>

/* A pthread mutex, because the thread sanitizer does not know GMutex. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool held;

void machine_lock(void)
{
    g_assert(!held);
    pthread_mutex_lock(&lock);
    held = true;
}

void machine_unlock(void)
{
    g_assert(held);
    held = false;
    pthread_mutex_unlock(&lock);
}

bool machine_lock_held(void)
{
    return held;
}

static gint poll_unlocked(GPollFD *fds, guint n, gint timeout_ms)
{
    if (timeout_ms == 0 || !held) {
        return g_poll(fds, n, timeout_ms);
    }
    machine_unlock();
    gint r;
    do {
        r = g_poll(fds, n, timeout_ms);
    } while (r > 0 && timeout_ms < 0 && g_poll(fds, n, 0) == 0); /* another thread has done it */
    machine_lock();
    return r;
}

void lock_main_context(void)
{
    g_main_context_set_poll_func(NULL, poll_unlocked);
}
