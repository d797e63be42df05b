/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/time/clock.h"

#include "base/lock.h"
#include "base/util.h"

#include <cpuid.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/timerfd.h>
#include <time.h>
#include <x86intrin.h>

/*
 * Written with the machine lock held while no vCPU runs, read by all threads.  While the
 * clock runs, guest time is host time + offset; while it stands, guest time is .stopped_at.
 */
static struct {
    _Atomic bool running;
    _Atomic int64_t offset;
    int64_t stopped_at;
    _Atomic int64_t tsc_offset;
    uint64_t tsc_stopped_at;
    int64_t wall_offset;
    int64_t wall_base; /* wall clock at guest time 0, if it follows the guest clock */
    bool wall_follows;
} clk;

/*
 * Armed timers, under a lock of their own: a vCPU thread sets its APIC timer without the
 * machine lock.
 */
static pthread_mutex_t heap_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    struct timer **at; /* binary heap by .due */
    unsigned n, room;
    int fd;
    int64_t programmed; /* what the timerfd is set to, guest clock */
} heap = {.fd = -1, .programmed = TIMER_OFF};

static int64_t host_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

int64_t clock_now(void)
{
    return clk.running ? host_now() + clk.offset : clk.stopped_at;
}

bool clock_running(void)
{
    return clk.running;
}

/* Both clocks at once, as near as can be: of some looks the one that took least. */
struct moment {
    uint64_t tsc;
    int64_t ns;
};

static struct moment now_of_both(void)
{
    enum { LOOKS = 5 };
    struct moment best = {0};
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < LOOKS; i++) {
        uint64_t before = __rdtsc();
        int64_t ns = host_now();
        uint64_t took = __rdtsc() - before;
        if (took < least) {
            least = took;
            best = (struct moment){before + took / 2, ns};
        }
    }
    return best;
}

/* The window in which the counter's rate is measured begins with the process: less to wait. */
static struct moment process_start;
static __attribute__((constructor)) void note_start(void)
{
    process_start = now_of_both();
}

static uint64_t measure_tsc_hz(void)
{
    enum { LEAST_NS = 3000000 };
    unsigned a, b, c, d;
    /* The hypervisor leaf 0x40000010 (EAX in kHz) where there is one: exact and free. */
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 31))) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010) {
            __cpuid(0x40000010, a, b, c, d);
            if (a) {
                return a * UINT64_C(1000);
            }
        }
    }
    while (host_now() - process_start.ns < LEAST_NS) {
    }
    struct moment now = now_of_both();
    return (uint64_t)((unsigned __int128)(now.tsc - process_start.tsc) * 1000000000u /
                      (uint64_t)(now.ns - process_start.ns));
}

uint64_t tsc_hz(void)
{
    static uint64_t hz;
    static gsize once;
    if (g_once_init_enter(&once)) {
        hz = measure_tsc_hz();
        g_once_init_leave(&once, 1);
    }
    return hz;
}

int64_t tsc_offset(void)
{
    return clk.tsc_offset;
}

uint64_t tsc_now(void)
{
    return clk.running ? __rdtsc() + (uint64_t)clk.tsc_offset : clk.tsc_stopped_at;
}

int64_t tsc_to_clock(uint64_t tsc)
{
    int64_t ahead = (int64_t)(tsc - tsc_now());
    if (ahead <= 0) {
        return clock_now();
    }
    __int128 ns = (__int128)ahead * 1000000000 / (int64_t)tsc_hz();
    return ns > INT64_MAX / 2 ? INT64_MAX : clock_now() + (int64_t)ns + 2; /* never early */
}

int64_t clock_to_host(int64_t ns)
{
    return MAX(ns - clk.offset, 1);
}

int64_t clock_wall_ns(void)
{
    struct timespec ts;
    if (clk.wall_follows) {
        return clk.wall_base + clock_now() + clk.wall_offset;
    }
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec + clk.wall_offset;
}

void clock_wall_follow_guest(void)
{
    clk.wall_base = clock_wall_ns() - clk.wall_offset - clock_now();
    clk.wall_follows = true;
}

void clock_set_wall_offset(int64_t ns)
{
    clk.wall_offset = ns;
}

/* ---- the heap of armed timers ---- */

static void put(unsigned slot, struct timer *t)
{
    heap.at[slot] = t;
    t->slot = slot;
}

static void sift_up(unsigned i)
{
    struct timer *t = heap.at[i];
    while (i && heap.at[(i - 1) / 2]->due > t->due) {
        put(i, heap.at[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(i, t);
}

static void sift_down(unsigned i)
{
    struct timer *t = heap.at[i];
    for (;;) {
        unsigned child = 2 * i + 1;
        if (child >= heap.n) {
            break;
        }
        if (child + 1 < heap.n && heap.at[child + 1]->due < heap.at[child]->due) {
            child++;
        }
        if (heap.at[child]->due >= t->due) {
            break;
        }
        put(i, heap.at[child]);
        i = child;
    }
    put(i, t);
}

static void heap_remove(struct timer *t)
{
    unsigned slot = t->slot;
    struct timer *last = heap.at[--heap.n];
    if (last != t) {
        put(slot, last);
        sift_up(slot);
        sift_down(last->slot);
    }
    t->armed = false;
    t->due = TIMER_OFF;
}

static void heap_insert(struct timer *t)
{
    if (heap.n == heap.room) {
        heap.room = heap.room ? heap.room * 2 : 32;
        heap.at = g_renew(struct timer *, heap.at, heap.room); /* as many as there are devices */
    }
    t->armed = true;
    put(heap.n++, t);
    sift_up(heap.n - 1);
}

static gboolean on_timerfd(GIOChannel *ch, GIOCondition cond, gpointer unused);

static void make_timerfd(void)
{
    heap.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (heap.fd < 0) {
        g_error("timerfd_create: %s", g_strerror(errno)); /* at start only: no timers, no machine */
    }
    GIOChannel *ch = g_io_channel_unix_new(heap.fd);
    g_io_add_watch_full(ch, G_PRIORITY_HIGH, G_IO_IN, on_timerfd, NULL, NULL);
    g_io_channel_unref(ch);
}

/* Sets the descriptor to the first timer; one system call, and only if that changed. */
static void program(void)
{
    int64_t due = heap.n && clk.running ? heap.at[0]->due : TIMER_OFF;
    if (due == heap.programmed) {
        return;
    }
    if (heap.fd < 0) {
        make_timerfd();
    }
    heap.programmed = due;
    struct itimerspec when = {{0, 0}, {0, 0}};
    if (due != TIMER_OFF) {
        int64_t host = clock_to_host(due); /* 0 would disarm it */
        when.it_value.tv_sec = host / 1000000000;
        when.it_value.tv_nsec = host % 1000000000;
    }
    timerfd_settime(heap.fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static gboolean on_timerfd(GIOChannel *ch, GIOCondition cond, gpointer unused)
{
    uint64_t times;
    (void)ch, (void)cond, (void)unused;
    if (read(heap.fd, &times, sizeof(times)) < 0) {
        return G_SOURCE_CONTINUE; /* set anew between poll() and here */
    }
    int64_t now = clock_now();
    pthread_mutex_lock(&heap_lock);
    heap.programmed = TIMER_OFF;
    while (heap.n && clk.running && heap.at[0]->due <= now) {
        struct timer *t = heap.at[0];
        heap_remove(t);
        pthread_mutex_unlock(&heap_lock);
        t->fire(t->owner);
        pthread_mutex_lock(&heap_lock);
    }
    program();
    pthread_mutex_unlock(&heap_lock);
    return G_SOURCE_CONTINUE;
}

void timer_arm(struct timer *t, int64_t due)
{
    pthread_mutex_lock(&heap_lock);
    if (t->armed) {
        heap_remove(t);
    }
    if (due != TIMER_OFF) {
        t->due = due;
        heap_insert(t);
    }
    program();
    pthread_mutex_unlock(&heap_lock);
}

void timer_disarm(struct timer *t)
{
    pthread_mutex_lock(&heap_lock);
    if (t->armed) {
        heap_remove(t);
        program();
    }
    t->due = TIMER_OFF;
    pthread_mutex_unlock(&heap_lock);
}

void clock_start(void)
{
    if (!clk.running) {
        if (!clk.tsc_stopped_at) { /* never ran: equal to the host's, it can be read unaided */
            clk.tsc_stopped_at = __rdtsc();
            clk.tsc_offset = 0;
        } else {
            clk.tsc_offset = (int64_t)(clk.tsc_stopped_at - __rdtsc());
        }
        clk.offset = clk.stopped_at - host_now();
        clk.running = true;
        pthread_mutex_lock(&heap_lock);
        heap.programmed = TIMER_OFF;
        program();
        pthread_mutex_unlock(&heap_lock);
    }
}

void clock_stop(void)
{
    if (clk.running) {
        clk.stopped_at = clock_now();
        clk.tsc_stopped_at = tsc_now();
        clk.running = false;
        pthread_mutex_lock(&heap_lock);
        program();
        pthread_mutex_unlock(&heap_lock);
    }
}

void clock_set(int64_t ns)
{
    g_assert(!clk.running);
    clk.stopped_at = ns;
    clk.tsc_stopped_at = (uint64_t)((unsigned __int128)(uint64_t)ns * tsc_hz() / 1000000000u);
}

void clock_advance(int64_t ns)
{
    int64_t end = clk.stopped_at + ns;
    for (;;) {
        pthread_mutex_lock(&heap_lock);
        struct timer *t = heap.n && heap.at[0]->due <= end ? heap.at[0] : NULL;
        if (t) {
            clock_set(MAX(t->due, clk.stopped_at));
            heap_remove(t);
        }
        pthread_mutex_unlock(&heap_lock);
        if (!t) {
            break;
        }
        t->fire(t->owner);
    }
    clock_set(end);
}
