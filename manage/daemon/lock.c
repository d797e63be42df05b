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

struct work {
    void (*run)(void *);
    void *data;
    struct lane *lane; /* NULL: on the main loop */
};

static struct work *work_new(void (*run)(void *), void *data, struct lane *lane)
{
    struct work *work = g_new(struct work, 1);
    *work = (struct work){run, data, lane};
    HAND_OVER(work);
    return work;
}

static void work_do(struct work *work)
{
    work->run(work->data);
    g_free(work);
}

static gboolean run_errand(void *item)
{
    TAKE_OVER(item);
    work_do(item);
    return G_SOURCE_REMOVE;
}

void daemon_in_loop(int priority, void (*errand)(void *), void *data)
{
    g_idle_add_full(priority, run_errand, work_new(errand, data, NULL), NULL);
}

/* --- threads --- */

/* As many threads are for who comes first, and as many for the daemon's own work; beyond them each
 * lane may have one. */
enum { WORKERS_MAX = 128, WORKERS_KEPT = 4 };

struct lane {
    GQueue queue; /* struct work that waits for a thread */
    unsigned running;
    bool freed;
};

static pthread_mutex_t lanes = PTHREAD_MUTEX_INITIALIZER; /* for all of these */
static GQueue waiting = G_QUEUE_INIT; /* clients' lanes with a queue, in the order of their turns */
static unsigned running;              /* of clients */
static struct lane own = {.queue = G_QUEUE_INIT};

struct lane *lane_new(void)
{
    struct lane *lane = g_new0(struct lane, 1);
    g_queue_init(&lane->queue);
    return lane;
}

static void forget(struct lane *lane)
{
    if (lane->freed && !lane->running && g_queue_is_empty(&lane->queue)) {
        g_free(lane);
    }
}

void lane_free(struct lane *lane)
{
    pthread_mutex_lock(&lanes);
    lane->freed = true;
    forget(lane);
    pthread_mutex_unlock(&lanes);
}

static bool has_thread(const struct lane *lane)
{
    return lane == &own ? own.running < WORKERS_MAX : !lane->running || running < WORKERS_MAX;
}

static void begin(struct lane *lane)
{
    lane->running++;
    running += lane != &own;
}

/* The first of its queue; it stands behind all others then. */
static struct work *take(struct lane *lane)
{
    struct work *work = g_queue_pop_head(&lane->queue);
    if (lane != &own) {
        g_queue_remove(&waiting, lane);
    }
    if (lane != &own && !g_queue_is_empty(&lane->queue)) {
        g_queue_push_tail(&waiting, lane);
    }
    begin(lane);
    return work;
}

/* What a thread does that has done something of @lane; NULL: it is not needed any more. */
static struct work *next(struct lane *lane)
{
    lane->running--;
    running -= lane != &own;
    bool goes_on = !g_queue_is_empty(&lane->queue) && (lane == &own || !lane->running);
    struct lane *of = goes_on || lane == &own ? lane : g_queue_peek_head(&waiting);
    struct work *work = of && !g_queue_is_empty(&of->queue) && has_thread(of) ? take(of) : NULL;
    forget(lane);
    return work;
}

static void work_on(void *item, void *unused)
{
    TAKE_OVER(item);
    (void)unused;
    for (struct work *work = item; work;) {
        struct lane *lane = work->lane;
        work_do(work);
        pthread_mutex_lock(&lanes);
        work = next(lane);
        pthread_mutex_unlock(&lanes);
    }
}

void lane_work(struct lane *lane, void (*run)(void *), void *data)
{
    static GThreadPool *pool;
    struct work *work = work_new(run, data, lane);
    pthread_mutex_lock(&lanes);
    if (!pool) {
        pool = g_thread_pool_new(work_on, NULL, -1, FALSE, NULL);
        g_thread_pool_set_max_unused_threads(WORKERS_KEPT);
    }
    if (has_thread(lane)) {
        begin(lane);
        g_thread_pool_push(pool, work, NULL);
    } else {
        if (lane != &own && g_queue_is_empty(&lane->queue)) {
            g_queue_push_tail(&waiting, lane);
        }
        g_queue_push_tail(&lane->queue, work);
    }
    pthread_mutex_unlock(&lanes);
}

void daemon_worker(void (*work)(void *), void *data)
{
    lane_work(&own, work, data);
}
