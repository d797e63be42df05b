/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/decode/insn.h"
#include "guest/cpu/interp/step.h"
#include "guest/cpu/tlb.h"
#include "guest/cpu/vcpu.h"

#include <string.h>

/*
 * interp - what instruction handlers are made of
 *
 * A handler executes one instruction.  On entry r.rip is the instruction's own address and
 * cpu->next_rip the one behind it; a handler that branches calls cpu_jump().  After it has
 * returned the interpreter moves r.rip to next_rip.  A handler may leave at any access or
 * cpu_raise() by longjmp(): it then must not have changed anything (probe first) and own
 * nothing.  Before the call the interpreter has checked: mode bits of the description
 * (NO64, ONLY64, CPL0), LOCK, the CPUID feature, and for x87, MMX, SSE and AVX CR0.EM/TS,
 * CR4.OSFXSR, CR4.OSXSAVE with XCR0 (cpu_check_vector()).
 */
typedef void interp_fn(struct vcpu *cpu, const struct insn *i);

/* Each file of handlers gives one of these; handlers.c merges them by op. */
struct interp_row {
    uint16_t op; /* enum insn_op */
    interp_fn *fn;
};
struct interp_table {
    const struct interp_row *rows;
    unsigned n;
};
#define INTERP_TABLE(name) const struct interp_table name = {name##_rows, G_N_ELEMENTS(name##_rows)}
/* User level (each with its `static const struct interp_row interp_X_rows[]`). */
extern const struct interp_table interp_integer, interp_branch, interp_string, interp_vector,
    interp_x87, interp_native;
/* System part. */
extern const struct interp_table interp_control, interp_far, interp_segment, interp_io,
    interp_system;

/* ---- addresses ---- */

/* Offset of the memory operand in its segment, wrapped to the address size.  lea's result. */
uint64_t interp_offset(const struct vcpu *cpu, const struct insn *i);

/*
 * Linear address of @bytes bytes at @offset in @seg: #SS or #GP for limit, type, null and
 * canonical violations; wrapped to 32 bits outside 64-bit mode.
 */
uint64_t seg_linear(struct vcpu *cpu, enum seg_name seg, uint64_t offset, unsigned bytes,
                    bool write);

/* The memory operand: interp_offset() and seg_linear(). */
static inline uint64_t interp_linear(struct vcpu *cpu, const struct insn *i, unsigned bytes,
                                     bool write)
{
    return seg_linear(cpu, (enum seg_name)i->seg, interp_offset(cpu, i), bytes, write);
}

/* ---- memory by linear address, with the rights of the current privilege level ---- */

/* 1 to 8 bytes, zero-extended. */
uint64_t mem_load(struct vcpu *cpu, uint64_t linear, unsigned bytes);
void mem_store(struct vcpu *cpu, uint64_t linear, uint64_t value, unsigned bytes);
/* First half of read-modify-write: faults as the write would. */
uint64_t mem_load_rmw(struct vcpu *cpu, uint64_t linear, unsigned bytes);
/* Any number of bytes up to 4096; a fault comes before the first byte is stored. */
void mem_read(struct vcpu *cpu, uint64_t linear, void *to, unsigned n);
void mem_write(struct vcpu *cpu, uint64_t linear, const void *from, unsigned n);
/* Raises what a read or write of all @n bytes (up to 4096) would raise. */
void mem_probe(struct vcpu *cpu, uint64_t linear, unsigned n, bool write);

/*
 * Host address of @linear and in *@n how many of the wanted bytes lie there (never beyond
 * the page), for rep string instructions.  NULL if it is not plain memory (I/O, page flags):
 * use mem_load()/mem_store() for one element.  Raises #PF.
 */
uint8_t *mem_map(struct vcpu *cpu, uint64_t linear, uint64_t *n, bool write);

/*
 * LOCK: host address for an atomic operation on @bytes bytes, already checked for writing.
 * NULL: not plain memory or across pages; then, after this call nothing more can fault,
 * take mem_lock(), use mem_load_rmw() and mem_store(), mem_unlock().  After writing through
 * the pointer call mem_wrote().
 */
void *mem_atomic(struct vcpu *cpu, uint64_t linear, unsigned bytes);
void mem_wrote(struct vcpu *cpu, void *host, unsigned bytes);
void mem_lock(void);
void mem_unlock(void);

/* Implicit supervisor accesses: descriptor tables, TSS. */
uint64_t sys_load(struct vcpu *cpu, uint64_t linear, unsigned bytes);
void sys_store(struct vcpu *cpu, uint64_t linear, uint64_t value, unsigned bytes);

/* ---- registers ---- */

/* By number in an operand of @bytes; without REX 4 to 7 are AH, CH, DH, BH. */
static inline uint64_t reg_read(const struct vcpu *cpu, const struct insn *i, unsigned reg,
                                unsigned bytes)
{
    switch (bytes) {
    case 1:
        return reg >= 4 && reg < 8 && !(i->prefixes & PFX_REX) ? cpu->r.gpr[reg - 4] >> 8 & 0xff
                                                               : cpu->r.gpr[reg] & 0xff;
    case 2:
        return cpu->r.gpr[reg] & 0xffff;
    case 4:
        return cpu->r.gpr[reg] & 0xffffffff;
    default:
        return cpu->r.gpr[reg];
    }
}

static inline void reg_write(struct vcpu *cpu, const struct insn *i, unsigned reg, unsigned bytes,
                             uint64_t v)
{
    uint64_t *r = &cpu->r.gpr[reg];
    switch (bytes) {
    case 1:
        if (reg >= 4 && reg < 8 && !(i->prefixes & PFX_REX)) {
            r = &cpu->r.gpr[reg - 4];
            *r = (*r & ~UINT64_C(0xff00)) | (v & 0xff) << 8;
        } else {
            *r = (*r & ~UINT64_C(0xff)) | (v & 0xff);
        }
        break;
    case 2:
        *r = (*r & ~UINT64_C(0xffff)) | (v & 0xffff);
        break;
    case 4:
        *r = v & 0xffffffff;
        break;
    default:
        *r = v;
    }
}

/* ---- stack ---- */

/* Bytes of the stack pointer in force: 8, 4 or 2. */
static inline unsigned stack_bytes(const struct vcpu *cpu)
{
    return vcpu_code64(cpu) ? 8 : cpu->r.seg[SEG_SS].attr & SEG_DB ? 4 : 2;
}
static inline uint64_t size_mask(unsigned bytes)
{
    return bytes >= 8 ? UINT64_MAX : (UINT64_C(1) << bytes * 8) - 1;
}
/* Stores @sp into RSP, ESP or SP: what is above SP stays, above ESP is cleared in 64-bit
 * processors only by the 32-bit form. */
void stack_set(struct vcpu *cpu, uint64_t sp);
/* Linear address of @bytes bytes at @delta from the stack pointer, checked (#SS). */
uint64_t stack_linear(struct vcpu *cpu, int64_t delta, unsigned bytes, bool write);
void stack_push(struct vcpu *cpu, uint64_t value, unsigned bytes);
uint64_t stack_pop(struct vcpu *cpu, unsigned bytes);

/* ---- control ---- */

/* A near branch to @target, wrapped to operand size @bytes: #GP beyond the limit or if it is
 * not canonical.  Sets next_rip. */
void cpu_jump(struct vcpu *cpu, uint64_t target, unsigned bytes);
/* A repeated string instruction asks after each element (or page) whether to stop with
 * next_rip = r.rip, so that interrupts, traps and requests are seen in between. */
static inline bool interp_rep_must_stop(const struct vcpu *cpu)
{
    return atomic_load_explicit(&cpu->requests, memory_order_relaxed) ||
           (cpu->r.rflags & FLAG_TF) || cpu->single_step || cpu->points || (cpu->r.dr[7] & 0xff);
}
/* #UD, #NM, ... as the class of @i wants. */
void cpu_check_vector(struct vcpu *cpu, const struct insn *i);
static inline bool cpu_real_mode(const struct vcpu *cpu)
{
    return !(cpu->r.cr0 & CR0_PE);
}
static inline bool cpu_v86(const struct vcpu *cpu)
{
    return cpu->r.rflags & FLAG_VM;
}
static inline unsigned cpu_iopl(const struct vcpu *cpu)
{
    return (unsigned)(cpu->r.rflags >> 12) & 3;
}
static inline bool is_canonical(uint64_t a)
{
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}
/* pushf's image and popf's effect, with all the rules of CPL, IOPL, v8086 and VME. */
uint64_t cpu_pushf(struct vcpu *cpu, unsigned bytes);
void cpu_popf(struct vcpu *cpu, uint64_t image, unsigned bytes);
/* mov sreg, pop sreg, lds...: loads SS, DS, ES, FS or GS with all checks. */
void cpu_load_segment(struct vcpu *cpu, enum seg_name seg, uint16_t selector);
/* in, out, ins, outs: #GP if IOPL and the TSS's bitmap forbid the ports. */
void cpu_check_io(struct vcpu *cpu, uint16_t port, unsigned bytes);
