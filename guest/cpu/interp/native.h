/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/interp/interp.h"

/*
 * Vector and x87 state in cpu->r.xsave.  The header's XSTATE_BV says which parts the area
 * holds; what it does not is in its initial state, whatever the bytes are.
 */
enum { XSTATE_X87 = 1, XSTATE_SSE = 2, XSTATE_AVX = 4, XSTATE_AVX512 = 0xe0, XSTATE_PKRU = 0x200 };
enum {
    XSAVE_FCW = 0, XSAVE_FSW = 2, XSAVE_FTW = 4, XSAVE_FOP = 6, XSAVE_FIP = 8, XSAVE_FDP = 16,
    XSAVE_MXCSR = 24, XSAVE_MXCSR_MASK = 28, XSAVE_ST = 32, XSAVE_XMM = 160, XSAVE_LEGACY = 512,
    XSAVE_BV = 512, XSAVE_COMP_BV = 520, XSAVE_YMM = 576,
};
enum { MXCSR_DEFAULT = 0x1f80, MXCSR_VALID = 0xffff };

static inline uint16_t fpu_word(const struct vcpu *cpu, unsigned at)
{
    uint16_t v;
    memcpy(&v, cpu->r.xsave + at, sizeof(v));
    return v;
}

static inline void fpu_set_word(struct vcpu *cpu, unsigned at, uint16_t v)
{
    memcpy(cpu->r.xsave + at, &v, sizeof(v));
}

static inline uint64_t xstate_bv(const struct vcpu *cpu)
{
    uint64_t v;
    memcpy(&v, cpu->r.xsave + XSAVE_BV, sizeof(v));
    return v;
}

/* Makes the area hold these parts: those that it does not are filled with initial values. */
void xstate_own(struct vcpu *cpu, uint64_t parts);
/* Puts them into their initial state. */
void xstate_init(struct vcpu *cpu, uint64_t parts);
/* Raises #MF (or tells the board: IRQ 13) if an unmasked x87 error is pending. */
void fpu_check_pending(struct vcpu *cpu);

/* Moves the top of the x87 stack: the area holds registers in stack order, so all move. */
void fpu_set_top(struct vcpu *cpu, unsigned top);
/* Takes SIGFPE, as the first native_execute() does; for who has set another handler since. */
void native_catch_signals(void);
/* Executes a vector, MMX or x87 instruction by the host's own. */
void native_execute(struct vcpu *cpu, const struct insn *i);
