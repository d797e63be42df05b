/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * bt - what the machine's owner may set before the first vCPU runs: -accel bt,tb-size=.
 */
/* Bound of the translation cache in bytes, a multiple of the page size; 0: by guest memory. */
extern uint64_t bt_cache_bytes;
/* How often code is interpreted before it is translated; at most 255. */
extern unsigned bt_hot;
/* Programs in processes of their own (direct.h): those that gain, none, or all. */
enum bt_direct { DIRECT_HOT, DIRECT_OFF, DIRECT_ALWAYS };
extern enum bt_direct bt_direct;
bool bt_direct_named(const char *name); /* on, off, always: sets it */
/*
 * What a sandbox has to leave to the engine: to trace its children, vfork(), and execveat() of
 * this descriptor with this path (empty, and no copy of it) and AT_EMPTY_PATH.  False: no program
 * can have a process, and it needs none of it.
 */
enum { BT_DIRECT_FD = 577 };
extern const char bt_direct_path[];
bool bt_direct_prepare(void);
/* In the first thread of the process while it is the only one: later the host's kernel would wait
 * for all its processors before a descriptor gets so high a number, up to 12 ms. */
void bt_direct_make_room(void);
extern bool bt_direct_keeps_cores; /* it may call sched_setaffinity() */
/*
 * What was translated, how often generated code was left and why, and what the TLB did.  The
 * counters of vCPU @index, BT_COUNTERS of them; false: it is not bt's.
 */
struct bt_counter {
    const char *name;
    uint64_t value;
};
enum { BT_COUNTERS = 15 };
bool bt_counters(unsigned index, struct bt_counter out[BT_COUNTERS]);
struct bt_cache_use {
    uint64_t bytes, used, emptied;
};
struct bt_cache_use bt_cache_use(void);
/* The same as text; nothing if no vCPU is bt's. */
void bt_describe(GString *out);
