/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* cmocka wants these four first, in this order; no test has to know. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */

#include "base/error.h"

/* The contract of a call that can fail: true and no error, or false and one of ours. */
#define assert_works(call, error)                                                                  \
    do {                                                                                           \
        bool works_ = (call);                                                                      \
        if (!works_ || (error)) {                                                                  \
            fail_msg("%s: %s", #call, (error) ? (error)->message : "false without an error");      \
        }                                                                                          \
    } while (0)

/* ... of which the test wants @code_.  Leaves @error clear for the next call. */
#define assert_fails(call, error, code_)                                                           \
    do {                                                                                           \
        bool works_ = (call);                                                                      \
        if (works_ || !g_error_matches((error), LODGE_ERROR, (code_))) {                              \
            fail_msg("%s: %s", #call, (error) ? (error)->message : "no error");                    \
        }                                                                                          \
        g_clear_error(&(error));                                                                   \
    } while (0)
