/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/memory/ram.h"

/*
 * ahead - memory of the host that is there before somebody waits for it
 *
 * A host clears 2 MiB at the first touch, and one that is a guest itself may have to ask its own
 * host for each page of them: that takes from 0.1 ms to some 6.  So a thread touches what is
 * likely to be next.
 */

/* Soon, at most 2 MiB of a mapping; a wish: it may be forgotten, and @at need not be mapped. */
void ahead_ask(void *at);

/*
 * Now: memory for [@at, @at + @n), which nobody has touched; no harm if there is none.  While such
 * a host has to ask for huge pages, small ones are taken, of which there are more that it has.
 */
void ahead_back(void *at, size_t n);

enum { AHEAD_SHIFT = 21 };
enum ahead_state { AHEAD_FRESH = 1, AHEAD_ASKED = 2 };
extern _Atomic uint8_t *ahead_states; /* one byte for 2 MiB of ram_pool */

/* Memory in [@host, @host + @bytes) of the pool comes when it is touched. */
void ahead_open(const void *host, uint64_t bytes);
void ahead_first_touch(const void *host);

/* The guest is about to touch @host; data path, any thread. */
static inline void ahead_touch(const void *host)
{
    size_t i = (size_t)((const uint8_t *)host - ram_pool) >> AHEAD_SHIFT;
    if (atomic_load_explicit(&ahead_states[i], memory_order_relaxed) & AHEAD_FRESH) {
        ahead_first_touch(host);
    }
}
