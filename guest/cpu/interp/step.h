/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/engine.h"
#include "guest/cpu/vcpu.h"

#include <glib.h>

/*
 * step - what the interpreter does for other engines
 *
 * All functions run in the vCPU's own thread with the state in cpu->r.
 */
struct insn;

enum { STOP_NONE = -1 }; /* beside enum stop: go on */

/*
 * Raising an exception: fills cpu->raised and calls longjmp() on cpu->unwind, a jmp_buf that
 * whoever executes guest code has set.  r.rip must be the address of the instruction that
 * faults; nothing else may have been changed by it.
 */
G_NORETURN void cpu_raise(struct vcpu *cpu, enum vector vector);
G_NORETURN void cpu_raise_code(struct vcpu *cpu, enum vector vector, uint32_t code);
G_NORETURN void cpu_raise_page_fault(struct vcpu *cpu, uint64_t linear, uint32_t code);
/* Leaves the instruction without an exception: run() is to return @why (debugger stops). */
G_NORETURN void cpu_leave(struct vcpu *cpu, enum stop why);

/*
 * Delivers an event through the IDT (real mode: the IVT), with double faults; afterwards the
 * handler's first instruction is next.  @next_rip is what is pushed for EVENT_SOFT and
 * EVENT_SOFT_EXCEPTION; the others push r.rip.  Uses cpu->unwind and restores it.
 * Return: STOP_NONE, or STOP_RESET after a triple fault.
 */
int cpu_deliver(struct vcpu *cpu, const struct cpu_event *event, uint64_t next_rip);
/* Delivers cpu->raised. */
int cpu_deliver_raised(struct vcpu *cpu);

/*
 * At an instruction boundary with .requests set: flushes, A20, NMI, SMI, INIT, SIPI,
 * interrupts if the window is open (delivered, also waking from HLT).
 * Return: STOP_NONE: go on (requests that must wait, such as an interrupt with IF clear, may
 * still be set: cpu_may_go_on() tells without looking closer); STOP_HALTED; STOP_KICKED.
 */
int cpu_take_requests(struct vcpu *cpu);
/* Delivers the event that r.event_pending tells of: at the start of run(). */
int cpu_finish_event(struct vcpu *cpu);
/* Is all that is requested a maskable interrupt (or NMI, SMI) that has to wait? */
static inline bool cpu_may_go_on(const struct vcpu *cpu)
{
    uint32_t req = atomic_load_explicit(&cpu->requests, memory_order_relaxed);
    if ((cpu->r.rflags & FLAG_IF) == 0 || cpu->r.shadow) {
        req &= ~(uint32_t)REQ_INTR;
    }
    if (cpu->r.nmi_blocked || cpu->r.shadow) {
        req &= ~(uint32_t)REQ_NMI;
    }
    if (cpu->r.in_smm || cpu->r.shadow) {
        req &= ~(uint32_t)REQ_SMI;
    }
    return req == 0;
}

/*
 * Exactly one instruction at r.rip: fetch, decode, execute, with its exception delivered if
 * it raises one, and single-step and debug-register traps after it.  Does not look at
 * .requests.  A rep string instruction may come back before it is done, with r.rip at itself.
 * Return: STOP_NONE, or an enum stop.
 */
int interp_step(struct vcpu *cpu);
/* The same up to and with the next branch that is taken; ends early when something is requested. */
int interp_straight(struct vcpu *cpu);

/*
 * The handler of @i alone, for an engine that has decoded it and set cpu->unwind: mode,
 * privilege and feature checks, execution, r.rip moved on.  Raises.
 */
void interp_execute(struct vcpu *cpu, const struct insn *i);

/* Must accesses be aligned (#AC)?  An engine that does not look at each address executes by
 * interp_step() while this holds. */
static inline bool cpu_alignment_checked(const struct vcpu *cpu)
{
    return (cpu->r.rflags & FLAG_AC) && (cpu->r.cr0 & CR0_AM) && vcpu_cpl(cpu) == 3;
}

/* Memory with the rights of @cpu, raising #PF at cpu->unwind: guest/cpu/interp/interp.h. */
uint64_t mem_load(struct vcpu *cpu, uint64_t linear, unsigned bytes);
void mem_store(struct vcpu *cpu, uint64_t linear, uint64_t value, unsigned bytes);
