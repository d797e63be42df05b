/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/bytes.h"

#include <string.h>

typedef uint64_t lanes __attribute__((vector_size(64), aligned(1), may_alias));

/* What chooses runs before the thread sanitizer does, which it calls. */
#ifdef __SANITIZE_THREAD__
#define AS_WIDE_AS_CAN_BE
#else
#define AS_WIDE_AS_CAN_BE __attribute__((target_clones("avx512f", "avx2", "default")))
#endif

/* 64 bytes a step, as wide as the machine has registers; data mostly ends the first one. */
AS_WIDE_AS_CAN_BE static bool scan(const uint8_t *at, size_t n)
{
    const uint8_t *end = at + n;
    for (; end - at >= 256; at += 256) {
        lanes any = *(const lanes *)at | *(const lanes *)(at + 64) | *(const lanes *)(at + 128) |
                    *(const lanes *)(at + 192);
        uint64_t bits = 0;
        for (unsigned i = 0; i < 8; i++) {
            bits |= any[i];
        }
        if (bits) {
            return false;
        }
    }
    for (; at < end; at++) {
        if (*at) {
            return false;
        }
    }
    return true;
}

/* By way of another: clang's name for what is chosen at run time is not what others call. */
bool is_zero(const void *p, size_t n)
{
    return scan(p, n);
}
