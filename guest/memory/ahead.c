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
#include <time.h>

enum { RING = 16, SMALL_CHUNKS = 64, SLOW_US = 1000 }; /* 2 MiB that are there: 100 to 300 */
#define CHUNK (UINT64_C(1) << AHEAD_SHIFT)

_Atomic uint8_t *ahead_states;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t asked = PTHREAD_COND_INITIALIZER;
static void *ring[RING];
static unsigned n_asked, n_done;
static bool started;

static int64_t thread_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/*
 * Chunks that shall still be made of small pages.  A host gives back (and later has to ask for)
 * memory that lies free in large pieces; small pages come out of the pieces between.  They hold a
 * guest up less when it starts, huge ones are better for what it does in the long run.
 */
static _Atomic int small_left = -1; /* not decided */

/* What is not mapped or not to be had is left. */
static void touch(void *from, size_t n)
{
    int undecided = -1;
    if (atomic_load(&small_left) > 0) {
        atomic_fetch_sub(&small_left, 1);
        madvise(from, n, MADV_NOHUGEPAGE);
        madvise(from, n, MADV_POPULATE_WRITE);
        madvise(from, n, MADV_HUGEPAGE); /* as it was */
        return;
    }
    int64_t begun = thread_us();
    madvise(from, n, MADV_POPULATE_WRITE);
    if (thread_us() - begun > SLOW_US) {
        atomic_compare_exchange_strong(&small_left, &undecided, SMALL_CHUNKS);
    }
}

/* Code is not: small pages would make it slower all the time. */
static bool in_ram(const void *at)
{
    return ram_pool && (size_t)((const uint8_t *)at - ram_pool) < ram_pool_size;
}

void ahead_back(void *at, size_t n)
{
    uint8_t *from = (uint8_t *)((uintptr_t)at & PAGE_MASK), *end = (uint8_t *)at + n, *to;
    for (; from < end; from = to) {
        to = (uint8_t *)MIN(((uintptr_t)from | (CHUNK - 1)) + 1, (uintptr_t)end);
        touch(from, (size_t)(to - from));
        if (in_ram(from) && (size_t)(to - from) == CHUNK) {
            atomic_store(&ahead_states[(size_t)(from - ram_pool) >> AHEAD_SHIFT], 0);
        }
    }
}

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
        if (in_ram(at)) {
            touch(at, CHUNK);
        } else {
            madvise(at, CHUNK, MADV_POPULATE_WRITE);
        }
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
    if (atomic_exchange(&ahead_states[i], 0) == AHEAD_FRESH && atomic_load(&small_left) > 0) {
        touch(ram_pool + (i << AHEAD_SHIFT), CHUNK);
    }
    if (!ask_for(i + 1) && i) {
        ask_for(i - 1);
    }
}
