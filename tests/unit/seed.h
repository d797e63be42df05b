/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * Where a random test begins.  A run in CI tells about the change in hand, so each group of
 * cases has its own constant; LODGE_SEED=random is for soaking, LODGE_SEED=number repeats
 * what a run has printed.
 */
static inline uint64_t test_seed(const char *group)
{
    const char *given = getenv("LODGE_SEED");
    uint64_t seed = UINT64_C(0x9e3779b97f4a7c15) * (g_str_hash(group) | 1);
    if (given && strcmp(given, "random") == 0) {
        seed = ((uint64_t)g_random_int() << 32 | g_random_int()) | 1;
    } else if (given) {
        seed = strtoull(given, NULL, 0);
    }
    print_message("%s: LODGE_SEED=%#" PRIx64 "\n", group, seed);
    return seed;
}
