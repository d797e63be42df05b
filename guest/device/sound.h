/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

/*
 * sound - a stream that runs as the guest's clock goes
 *
 * A sound card arms a pace when a stream starts; at each tick .due() says how many frames have
 * passed since the last one.  A machine that was late does not catch up beyond SOUND_LATE_NS.
 */
enum { SOUND_TICK_NS = 5000000, SOUND_LATE_NS = 100000000 };

struct sound_pace {
    struct timer timer;  /* state */
    int64_t from;        /* state: guest time of frame 0 */
    uint64_t done;       /* state: frames since then */
    void *card;          /* whose stream it is, and which */
    unsigned n;
};
#define SOUND_PACE_STATE(type, member)                                                             \
    STATE_TIMER(type, member.timer), STATE(type, member.from), STATE(type, member.done)

static inline void sound_pace_init(struct sound_pace *p, void (*fire)(void *pace), void *card, unsigned n)
{
    *p = (struct sound_pace){.timer = {.fire = fire, .owner = p, .due = TIMER_OFF}, .card = card, .n = n};
}

static inline void sound_pace_start(struct sound_pace *p)
{
    p->from = clock_now();
    p->done = 0;
    timer_arm(&p->timer, p->from + SOUND_TICK_NS);
}

static inline void sound_pace_stop(struct sound_pace *p)
{
    timer_disarm(&p->timer);
}

/* From the timer's .fire: frames that are due at @rate; arms the next tick. */
static inline unsigned sound_pace_due(struct sound_pace *p, unsigned rate)
{
    int64_t now = clock_now(), passed = now - p->from;
    uint64_t frames = passed < 0 ? 0 : (uint64_t)passed / 1000 * rate / 1000000;
    uint64_t most = (uint64_t)SOUND_LATE_NS / 1000000 * rate / 1000;
    unsigned due = (unsigned)(frames > p->done ? MIN(frames - p->done, most) : 0);
    if (passed < 0 || frames > p->done + most || p->done > frames) { /* late, or never so */
        p->from = now;
        p->done = 0;
    } else {
        p->done = frames;
    }
    timer_arm(&p->timer, now + SOUND_TICK_NS);
    return due;
}
