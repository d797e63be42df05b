/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Guest time and timers.
 *
 * The guest clock counts nanoseconds of CLOCK_MONOTONIC while the machine runs and
 * stands still while it is stopped; a loaded state continues where it was saved.  Guest
 * time stamps (RDTSC) are the host's TSC plus an offset, so that a guest may read them
 * without leaving its code; the offset moves when the machine was stopped.
 *
 * One machine a process, so the clock is the process's.
 */

/* Now, in nanoseconds of guest time.  Any thread. */
int64_t clock_now(void);
/* Idempotent; with the machine lock held. */
void clock_start(void);
void clock_stop(void);
bool clock_running(void);
/* Sets a stopped clock, for loading a state. */
void clock_set(int64_t ns);

/* Lets a stopped clock go on by @ns, firing what becomes due at its time: for tests. */
void clock_advance(int64_t ns);

/* Host time stamp counter frequency in Hz, measured once at start (or read from CPUID). */
uint64_t tsc_hz(void);
/* What a guest without a TSC offset of its own reads: host TSC less the time stopped. */
uint64_t tsc_now(void);
/* What to add to the host's RDTSC to get tsc_now(); changes only while vCPUs are stopped. */
int64_t tsc_offset(void);
/* Guest-clock nanoseconds at which tsc_now() will be @tsc; INT64_MAX if never. */
int64_t tsc_to_clock(uint64_t tsc);

/* The host's CLOCK_MONOTONIC at @ns of a guest clock that runs. */
int64_t clock_to_host(int64_t ns);

/* Wall-clock seconds since 1970 as the guest sees them (-rtc base=..., clock=...). */
int64_t clock_wall_ns(void);
void clock_set_wall_offset(int64_t ns);
/* -rtc clock=vm: from now on the wall clock goes and stands with the guest clock. */
void clock_wall_follow_guest(void);

/*
 * A timer: .fire runs once in the main loop with the machine lock held, at or soon
 * after .due on the guest clock.  Embedded in its owner; zero-filled is a valid disarmed
 * timer except for .fire and .owner.
 * Thread: arm and disarm with the machine lock held.  An owner that cannot (the APIC timer)
 * may do so from one thread of its own, and its .fire must bear being late: to run when the
 * timer has just been set anew.
 */
struct timer {
    void (*fire)(void *owner);
    void *owner;
    int64_t due;   /* guest-clock nanoseconds; TIMER_OFF if it is not armed */
    bool armed;
    unsigned slot; /* place in the heap, the clock's own */
};
#define TIMER_OFF INT64_MAX

void timer_arm(struct timer *t, int64_t due); /* arms again if it was armed */
void timer_disarm(struct timer *t);
static inline bool timer_armed(const struct timer *t)
{
    return t->armed;
}
