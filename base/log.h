/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * The log of -d and -D: topics that a user switches on, each line with its topic.
 * A topic that is off costs one load and one branch.
 */
enum log_topic {
    LOG_GUEST_ERRORS = 1 << 0, /* the guest did what a data sheet forbids */
    LOG_UNIMP = 1 << 1,        /* the guest asked for what a model does not have */
    LOG_INT = 1 << 2,          /* interrupts and exceptions as they are delivered */
    LOG_IN_ASM = 1 << 3,       /* guest code as it is translated */
    LOG_OUT_ASM = 1 << 4,      /* host code that was made of it */
    LOG_CPU_RESET = 1 << 5,    /* registers before a CPU reset */
    LOG_MMU = 1 << 6,          /* page faults */
    LOG_JIT_STATS = 1 << 7,    /* counters of the translator, at the end */
};

extern _Atomic unsigned log_topics;

static inline bool log_on(enum log_topic topic)
{
    return atomic_load_explicit(&log_topics, memory_order_relaxed) & topic;
}

/* Any thread; a line is written whole. */
void log_line(enum log_topic topic, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* @items: comma-separated topic names, "all", or "help" (lists them in @error, ECANCELED). */
bool log_enable(const char *items, GError **error);
/* Log goes to file @path instead of stderr. */
bool log_to_file(const char *path, GError **error);
