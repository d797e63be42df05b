/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/vcpu.h"

/* Why run() came back. */
enum stop {
    STOP_KICKED, /* a request that the engine does not deal with: look at .requests */
    STOP_HALTED, /* HLT (or wait for SIPI) with nothing to wake it; r.halted is set */
    STOP_RESET,  /* triple fault, or shutdown */
    STOP_DEBUG,  /* breakpoint, watchpoint or single step, for the debugger */
    STOP_BROKEN, /* the engine cannot go on; vcpu->error says why */
};

/*
 * A way to execute guest code.  Engines differ in speed, never in result: the same vCPU
 * may move from one to another between two runs, and the conformance tests do that on
 * purpose.  All functions run in the vCPU's own thread, except probe(), forget(), and kick().
 */
struct cpu_engine {
    const char *name; /* "interp", "bt", "kvm": -accel */
    const char *about;
    /* The CPU features it can give, by word; NULL: those of the host that the models know it
     * can do.  False: it cannot tell now. */
    bool (*features)(uint32_t words[]);
    /* Can this host do it, usefully?  The error is the line for the user. */
    bool (*probe)(GError **error);
    bool (*attach)(struct vcpu *cpu, GError **error);
    void (*detach)(struct vcpu *cpu);

    /* Data path: allocates nothing before it stops. */
    enum stop (*run)(struct vcpu *cpu); /* until something else must happen */
    void (*pull)(struct vcpu *cpu);     /* engine state -> cpu->r; idempotent */
    void (*push)(struct vcpu *cpu);     /* cpu->r -> engine state */
    /* The general registers alone, in the middle of a port access; NULL: .r has them. */
    void (*gprs)(struct vcpu *cpu, bool push);
    /*
     * After a bit of .requests was set: get the vCPU out of the guest soon.  Any thread.
     * NULL: the engine polls .requests often enough.
     */
    void (*kick)(struct vcpu *cpu);
    /* The guest's mapping of [linear, linear + bytes) may have changed (own thread);
     * bytes 0: all of it, @global included global pages.  NULL: not interested. */
    void (*unmapped)(struct vcpu *cpu, uint64_t linear, uint64_t bytes, bool global);
};

/* Generated from the list in guest/cpu/meson.build. */
extern const struct cpu_engine *const cpu_engines[];
extern const unsigned n_cpu_engines;
const struct cpu_engine *cpu_engine_find(const char *name); /* "tcg" is "bt"; NULL if none */
