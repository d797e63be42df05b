/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <errno.h>
#include <glib.h>
#include <stdbool.h>

/*
 * One way to fail, in two strengths.
 *
 * Control plane: a function that can fail returns bool or a pointer and takes
 * `GError **error` last; NULL means the caller does not care.  The domain is
 * LODGE_ERROR, the code a positive errno value.  The text is made where the knowledge
 * is, g_prefix_error() puts context in front on the way up, and exactly one place
 * reports it: the one whose scope owns the GError.  A GError passed by value is
 * given away.  Library code never prints and never exits.
 *
 * Data path (run loop, virtqueues, block I/O, translator): 0 or a negative errno
 * value, without text, because a GError allocates.
 */
#define LODGE_ERROR lodge_error_quark()
GQuark lodge_error_quark(void);

/* G_DEFINE_QUARK() for errors that several threads make at once. */
#define ERROR_DOMAIN(name)                                                                         \
    GQuark name##_quark(void)                                                                      \
    {                                                                                              \
        static _Atomic GQuark made;                                                                \
        GQuark q = made;                                                                           \
        if (!q) {                                                                                  \
            made = q = g_quark_from_static_string(#name "-quark");                                 \
        }                                                                                          \
        return q;                                                                                  \
    }

/* g_set_error() in our domain with ": " and the words for errno value @code at the end. */
void error_set_errno(GError **error, int code, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/* The errno value of any GError; EIO for a foreign one that has no counterpart. */
int error_errno(const GError *error);
