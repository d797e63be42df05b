/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ahead: the thread, and what is likely to be next.
 *
 * A guest takes its memory upwards more often than not, and downwards where it does so already.
 * No more than what lies behind (or before) something touched is asked for, so a guest that
 * touches little gets little.
 */
#include "guest/memory/ahead.h"

#include <pthread.h>
#include <sys/mman.h>

enum { RING = 16 };
#define CHUNK (UINT64_C(1) << AHEAD_SHIFT)

_Atomic uint8_t *ahead_states;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t asked = PTHREAD_COND_INITIALIZER;
static void *ring[RING];
static unsigned n_asked, n_done;
static bool started;

static void *touch_all(void *unused)
{
    (void)unused;
    pthread_setname_np(pthread_self(), "memory");
    pthread_mutex_lock(&lock);
    for (;;) {
        while (n_done == n_asked) {
            pthread_cond_wait(&asked, &lock);
        }
        void *at = ring[n_done++ % RING];
        pthread_mutex_unlock(&lock);
        madvise(at, CHUNK, MADV_POPULATE_WRITE); /* what is not mapped or not to be had is left */
        pthread_mutex_lock(&lock);
    }
    return NULL;
}

/* Once: without it all works as well. */
static void start(void)
{
    pthread_t thread;
    pthread_attr_t attr;
    started = true;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_create(&thread, &attr, touch_all, NULL);
    pthread_attr_destroy(&attr);
}

void ahead_ask(void *at)
{
    pthread_mutex_lock(&lock);
    if (!started) {
        start();
    }
    if (n_asked - n_done < RING) {
        ring[n_asked++ % RING] = (void *)((uintptr_t)at & PAGE_MASK);
        pthread_cond_signal(&asked);
    }
    pthread_mutex_unlock(&lock);
}

void ahead_open(const void *host, uint64_t bytes)
{
    size_t from = (size_t)((const uint8_t *)host - ram_pool), end = (from + bytes) >> AHEAD_SHIFT;
    for (size_t i = (from + CHUNK - 1) >> AHEAD_SHIFT; i < end; i++) {
        ahead_states[i] = AHEAD_FRESH;
    }
}

/* False: it is no memory that comes when it is touched, or has been. */
static bool ask_for(size_t i)
{
    uint8_t state = AHEAD_FRESH;
    if (atomic_compare_exchange_strong(&ahead_states[i], &state, AHEAD_FRESH | AHEAD_ASKED)) {
        ahead_ask(ram_pool + (i << AHEAD_SHIFT));
    }
    return state & AHEAD_FRESH;
}

void ahead_first_touch(const void *host)
{
    size_t i = (size_t)((const uint8_t *)host - ram_pool) >> AHEAD_SHIFT;
    atomic_store(&ahead_states[i], 0);
    if (!ask_for(i + 1) && i) {
        ask_for(i - 1);
    }
}
