/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * account: what it gains a program to run in a process of its own, and what that costs.
 *
 * All in ticks of the TSC, stretch by stretch: what a program computes between two visits to the
 * guest's kernel.  Of one that was translated it is known how long it took, so what it would have
 * gained; of one that ran there, what it computed and what going there and back has cost.
 *
 * Two decisions come of it.  A program gets a process when what it would have gained has
 * paid for that, and loses it when it had no use for long; each time the process did not pay, it
 * takes twice as much to get the next one.  With a process, a stretch begins there if the last
 * ones gained, and goes there late if it turns out to be long, where that has not paid, later.
 */
#include "guest/cpu/translate/direct.h"

enum {
    TRIP_US = 15,       /* of a stretch, until it is known */
    TRIP_MOST_US = 100, /* most of that is new memory, which comes once */
    MOVE_US = 1000,     /* to get a process, likewise */
    COUNTED_US = 1000,  /* longer stretches tell no more, and may be those of others */
    RECENT_US = 200,    /* one stretch is not to decide about many */
    RECENT = 4,         /* stretches, about */
    SLOW = 5,           /* translated code takes SLOW / FAST of the time, or less */
    FAST = 2,
    UNUSED_MOST = 4096, /* stretches in a row */
    PATIENCE = 64,
    BAR = 6,
};

void account_start(struct account *a, uint64_t ticks_of_us, uint64_t trip, uint64_t move)
{
    *a = (struct account){.us = ticks_of_us, .patience = 1};
    a->trip = trip ? trip : TRIP_US * a->us;
    a->move = move ? CLAMP(move, MOVE_US / 4 * a->us, MOVE_US * 4 * a->us) : MOVE_US * a->us;
}

static void get(struct account *a, bool process)
{
    a->hot = process;
    a->missed = a->earned = 0;
    a->unused = a->bar = 0;
}

/* The last stretch was translated, and would have gained so much. */
static void missed(struct account *a, int64_t gain)
{
    /* Short ones do not say that there are no long ones, but a few of those are noise. */
    a->missed = MAX(a->missed + (gain > 0 ? gain : gain / 4), 0);
    if (a->missed > (int64_t)(a->move * a->patience)) {
        get(a, true);
    }
}

static void lose(struct account *a)
{
    a->patience = a->earned > (int64_t)a->move ? 1 : MIN(a->patience * 2, (unsigned)PATIENCE);
    get(a, false);
}

/* What the last stretch gained in the process; @late: it did not begin there. */
static int64_t gained(struct account *a, bool late)
{
    int64_t there = (int64_t)MIN(a->inside, COUNTED_US * a->us);
    int64_t gain = there * (SLOW - FAST) / FAST - (int64_t)a->beside;
    a->trip += (int64_t)(MIN(a->beside, TRIP_MOST_US * a->us) - a->trip) / 16;
    a->earned += gain;
    a->unused = 0;
    if (late) {
        a->bar = gain > 0 ? a->bar / 2 : MIN(a->bar + 1, (unsigned)BAR);
    }
    return gain;
}

void account_end(struct account *a)
{
    int64_t most = RECENT_US * (int64_t)a->us;
    int64_t here = (int64_t)MIN(a->translated, COUNTED_US * a->us);
    int64_t gain = here * (SLOW - FAST) / SLOW;
    if (a->beside) {
        gain += gained(a, account_late(a));
    } else {
        gain -= (int64_t)a->trip;
        a->unused++;
    }
    a->recent += (CLAMP(gain, -most, most) - a->recent) / RECENT;
    a->inside = a->beside = a->translated = 0;
    if (!a->hot) {
        missed(a, gain);
    } else if (a->unused > UNUSED_MOST) {
        lose(a);
    }
}
