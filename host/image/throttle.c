/* SPDX-License-Identifier: GPL-2.0-or-later */

/* throttle: leaky buckets for a drive's limits. */
#include "host/image/throttle.h"

#include <glib.h>
#include <string.h>

enum { BURST_PART = 10, RATE_MAX_SHIFT = 50 };

static bool applies(unsigned what, bool write)
{
    unsigned kind = what % 3;
    return kind == 0 || (kind == 1) == !write;
}

static double units_of(const struct throttle *t, unsigned what, uint64_t bytes)
{
    uint64_t each = t->limits.request_bytes;
    if (what < THROTTLE_IOPS) {
        return (double)bytes;
    }
    return each && bytes > each ? (double)bytes / (double)each : 1;
}

/* What may be in the bucket when another request is let in. */
static double room(const struct throttle *t, unsigned what)
{
    uint64_t burst = t->limits.burst[what], seconds = t->limits.seconds[what];
    return burst ? (double)burst * (double)MAX(seconds, 1)
                 : (double)t->limits.rate[what] / BURST_PART;
}

bool throttle_is_on(const struct throttle *t)
{
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        if (t->limits.rate[i]) {
            return true;
        }
    }
    return false;
}

static void leak(struct throttle *t, int64_t now)
{
    double seconds = (double)(now - t->leaked_at) / G_USEC_PER_SEC;
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        t->level[i] = MAX(t->level[i] - seconds * (double)t->limits.rate[i], 0);
    }
    t->leaked_at = now;
}

int64_t throttle_take(struct throttle *t, bool write, uint64_t bytes, int64_t now)
{
    double wait = 0;
    leak(t, now);
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        double rate = (double)t->limits.rate[i], over = t->level[i] - room(t, i);
        if (rate > 0 && applies(i, write) && over > 0) {
            wait = MAX(wait, over / rate * G_USEC_PER_SEC);
        }
    }
    for (unsigned i = 0; wait <= 0 && i < THROTTLE_KINDS; i++) {
        t->level[i] += t->limits.rate[i] && applies(i, write) ? units_of(t, i, bytes) : 0;
    }
    return wait > 0 ? (int64_t)wait + 1 : 0;
}

const char *throttle_check(const struct throttle_limits *l)
{
    for (unsigned i = 0; i < THROTTLE_KINDS; i += 3) {
        if (l->rate[i] && (l->rate[i + 1] || l->rate[i + 2])) {
            return "bps/iops/max total values and read/write values cannot be used at the same time";
        }
    }
    for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
        if (l->burst[i] && !l->rate[i]) {
            return "bps_max/iops_max require corresponding bps/iops values";
        }
        if (l->burst[i] && l->burst[i] < l->rate[i]) {
            return "bps_max/iops_max cannot be lower than bps/iops";
        }
        if (l->seconds[i] > 1 && !l->burst[i]) {
            return "burst length set without burst rate";
        }
        if (l->rate[i] >> RATE_MAX_SHIFT || l->burst[i] >> RATE_MAX_SHIFT) {
            return "bps/iops/max values must be within [0, 2^50)";
        }
    }
    return NULL;
}

/* ---- groups ---- */

static struct throttle_group *groups;

struct throttle_group *throttle_group_find(const char *name)
{
    struct throttle_group *g = groups;
    while (g && strcmp(g->name, name) != 0) {
        g = g->next;
    }
    return g;
}

struct throttle_group *throttle_group_join(const char *name)
{
    struct throttle_group *g = throttle_group_find(name);
    if (!g) {
        g = g_new0(struct throttle_group, 1);
        g->name = g_strdup(name);
        g->next = groups;
        groups = g;
    }
    g->users++;
    return g;
}

void throttle_group_leave(struct throttle_group *group)
{
    struct throttle_group **at = &groups;
    if (!group || --group->users) {
        return;
    }
    while (*at != group) {
        at = &(*at)->next;
    }
    *at = group->next;
    g_free(group->name);
    g_free(group);
}
