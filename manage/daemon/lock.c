/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/daemon.h"

#include "manage/error.h"

#include <pthread.h>
#include <stdlib.h>

/* How GLib hands work to another thread is not seen by the thread sanitizer. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define HAND_OVER(item) __tsan_release(item)
#define TAKE_OVER(item) __tsan_acquire(item)
#else
#define HAND_OVER(item) ((void)(item))
#define TAKE_OVER(item) ((void)(item))
#endif

/* The daemon lock, and the threads that verbs wait on. */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread bool held;

void daemon_lock(void)
{
    pthread_mutex_lock(&lock);
    held = true;
}

void daemon_unlock(void)
{
    held = false;
    pthread_mutex_unlock(&lock);
}

bool daemon_lock_held(void)
{
    return held;
}

static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

bool daemon_wait(gint64 end)
{
    struct timespec until = {.tv_sec = end / G_USEC_PER_SEC,
                             .tv_nsec = end % G_USEC_PER_SEC * 1000};
    held = false;
    int result = pthread_cond_clockwait(&changed, &lock, CLOCK_MONOTONIC, &until);
    held = true;
    return result == 0;
}

void daemon_wake(void)
{
    pthread_cond_broadcast(&changed);
}

bool daemon_take_turn(bool *turn, GError **error)
{
    enum { SECONDS = 30 };
    gint64 end = g_get_monotonic_time() + daemon_patience(SECONDS) * G_USEC_PER_SEC;
    while (*turn) {
        if (!daemon_wait(end)) {
            libvirt_error(error, ERR_OPERATION_TIMEOUT, "%s",
                          "what was defined before is still being written");
            return false;
        }
    }
    return *turn = true;
}

void daemon_end_turn(bool *turn)
{
    *turn = false;
    daemon_wake();
}

unsigned daemon_patience(unsigned seconds)
{
    const char *text = g_getenv("LODGED_PATIENCE");
    return text ? MIN(seconds, (unsigned)MAX(1, atoi(text))) : seconds;
}

/* As many calls may wait for sick machines before others wait for a thread. */
enum { WORKERS_MAX = 128, WORKERS_KEPT = 4 };

struct work {
    void (*run)(void *);
    void *data;
};

static struct work *work_new(void (*run)(void *), void *data)
{
    struct work *work = g_new(struct work, 1);
    *work = (struct work){run, data};
    HAND_OVER(work);
    return work;
}

static void run(void *item, void *unused)
{
    TAKE_OVER(item);
    struct work work = *(struct work *)item;
    (void)unused;
    g_free(item);
    work.run(work.data);
}

static gboolean run_errand(void *item)
{
    run(item, NULL);
    return G_SOURCE_REMOVE;
}

void daemon_in_loop(int priority, void (*errand)(void *), void *data)
{
    g_idle_add_full(priority, run_errand, work_new(errand, data), NULL);
}

void daemon_worker(void (*work)(void *), void *data)
{
    static GThreadPool *pool;
    static gsize once;
    if (g_once_init_enter(&once)) {
        pool = g_thread_pool_new(run, NULL, WORKERS_MAX, FALSE, NULL);
        g_thread_pool_set_max_unused_threads(WORKERS_KEPT);
        g_once_init_leave(&once, 1);
    }
    g_thread_pool_push(pool, work_new(work, data), NULL);
}
