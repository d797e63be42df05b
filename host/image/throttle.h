/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * How fast a drive may be: leaky buckets, one each for all, reading and writing, in bytes
 * and in requests a second.  A bucket without a rate bounds nothing.
 */
enum throttle_what {
    THROTTLE_BPS, THROTTLE_BPS_READ, THROTTLE_BPS_WRITE,
    THROTTLE_IOPS, THROTTLE_IOPS_READ, THROTTLE_IOPS_WRITE,
    THROTTLE_KINDS
};

struct throttle_limits {
    uint64_t rate[THROTTLE_KINDS];    /* a second */
    uint64_t burst[THROTTLE_KINDS];   /* a second while a burst lasts; 0: .rate / 10 at once */
    uint64_t seconds[THROTTLE_KINDS]; /* that a burst may last; 0: one */
    uint64_t request_bytes;           /* a larger request counts as several; 0: it does not */
};

struct throttle {
    struct throttle_limits limits;
    double level[THROTTLE_KINDS];
    int64_t leaked_at; /* monotonic microseconds */
};

/* Drives that share their limits, by name: made by the first that joins, gone with the last. */
struct throttle_group {
    char *name;
    struct throttle throttle;
    unsigned users;
    struct throttle_group *next;
};
struct throttle_group *throttle_group_find(const char *name); /* NULL: there is none */
struct throttle_group *throttle_group_join(const char *name);
void throttle_group_leave(struct throttle_group *group); /* NULL is fine */

bool throttle_is_on(const struct throttle *t);
/* Microseconds until a request may go; 0: at once, and it is counted. */
int64_t throttle_take(struct throttle *t, bool write, uint64_t bytes, int64_t now);
/* NULL if @limits make sense, else what does not. */
const char *throttle_check(const struct throttle_limits *limits);
