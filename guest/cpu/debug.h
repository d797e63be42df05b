/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/vcpu.h"

/*
 * debug - breakpoints and watchpoints: the guest's own (DR0-7) and the debugger's
 *
 * Spec: Intel SDM, volume 3B, "Debug, Branch Profile, TSC, and Intel RDT Features": "Debug
 * Registers".
 *
 * An engine that sees debug_active() executes by interp_step(), which looks at all of them.
 */
enum gdb_point_kind { GDB_EXECUTE, GDB_WRITE, GDB_READ, GDB_ACCESS };

struct gdb_point {
    uint64_t linear, bytes;
    enum gdb_point_kind kind;
    bool soft;     /* an INT3 in guest memory while the machine runs: see below */
    uint8_t *host; /* where it is now, in place of .byte; NULL: nowhere */
    uint8_t byte;
};

enum { GDB_POINTS_MAX = 64 };
struct gdb_points {
    unsigned n;
    struct gdb_point at[GDB_POINTS_MAX];
};

/* For all vCPUs; they are paused.  False: the table is full, the engine cannot, or no such
 * point. */
bool debug_add_point(enum gdb_point_kind kind, uint64_t linear, uint64_t bytes);
bool debug_remove_point(enum gdb_point_kind kind, uint64_t linear, uint64_t bytes);
void debug_clear_points(void);
/*
 * From an engine that has @registers debug registers and looks at nothing else: watchpoints
 * are limited to those, and breakpoints beyond become INT3s, which debug_patch() puts into
 * guest memory before the vCPUs run and debug_unpatch() takes out when they stand still.
 */
void debug_in_hardware(unsigned registers);
void debug_patch(void);
void debug_unpatch(void);

enum { DR7_ANY = 0xff, DR7_GD = 1 << 13, DR6_BS = 1 << 14, DR6_BD = 1 << 13, DR6_BT = 1 << 15 };

static inline bool debug_active(const struct vcpu *cpu)
{
    return (cpu->r.dr[7] & DR7_ANY) || cpu->points;
}

/* Does a data breakpoint or watchpoint lie in the page of @linear? */
bool debug_watches_page(const struct vcpu *cpu, uint64_t linear);
/* Notes what an access hits: cpu->traps gets DR6 bits, cpu->watch_hit the watchpoint. */
void debug_data_access(struct vcpu *cpu, uint64_t linear, uint64_t bytes, bool write);
/* DR6 bits of the instruction breakpoints at @linear. */
uint64_t debug_code_hits(const struct vcpu *cpu, uint64_t linear);
bool debug_gdb_breakpoint(const struct vcpu *cpu, uint64_t linear);
