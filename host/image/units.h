/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/format.h"

/*
 * The last few units that were unpacked for reads of less than a whole one.  Entries are
 * valid for one mapping: who links, zeroes or frees a guest range forgets what overlaps it.
 */
enum { UNITS_KEPT = 8, UNIT_MAX = 64 << 20, UNITS_BYTES = 32 << 20 };

struct units {
    GMutex lock;
    struct unit {
        uint64_t start, at;
        uint32_t bytes; /* 0: empty */
        uint8_t *data;
        uint64_t used; /* when it was last asked for */
    } kept[UNITS_KEPT];
    uint64_t clock;
};

/* Bytes of the unit of @e, which is EXTENT_PACKED, from @skip into it on. */
int units_read(struct units *units, struct file *file, const struct extent *e, uint64_t skip,
               void *to, uint64_t n);
void units_forget(struct units *units, uint64_t offset, uint64_t n);
void units_clear(struct units *units);
