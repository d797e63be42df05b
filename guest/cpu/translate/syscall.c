/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * syscall: system calls and returns from them in 64-bit mode.
 *
 * Spec: AMD64 APM, volume 3, "SYSCALL", "SYSRET"; Intel SDM, volume 2, the same.
 */
#include "guest/cpu/translate/translate.h"

enum { CODE64 = 0xa09b, DATA = 0xc093, DPL3 = 3 << SEG_DPL_SHIFT };
#define FLAGS_FROM_R11 UINT64_C(0x3c7fd7)

static struct segment flat_segment(unsigned selector, uint32_t attr)
{
    return (struct segment){.limit = UINT32_MAX, .attr = attr, .selector = (uint16_t)selector};
}

bool system_call(struct vcpu *cpu, uint64_t next)
{
    struct regs *r = &cpu->r;
    unsigned selector = (unsigned)(r->star >> 32) & 0xfffc;
    if (!(r->efer & EFER_SCE)) {
        return false;
    }
    r->gpr[RCX] = next;
    r->gpr[R11] = r->rflags & ~(uint64_t)FLAG_RF;
    r->rip = r->lstar;
    r->rflags = (r->rflags & ~(r->fmask | FLAG_RF)) | 2;
    r->seg[SEG_CS] = flat_segment(selector, CODE64);
    r->seg[SEG_SS] = flat_segment(selector + 8, DATA);
    return true;
}

bool system_return(struct vcpu *cpu)
{
    struct regs *r = &cpu->r;
    unsigned selector = (unsigned)(r->star >> 48);
    uint64_t flags = r->gpr[R11];
    if (!(r->efer & EFER_SCE) || (flags & FLAG_TF) || r->gpr[RCX] >> 47) {
        return false;
    }
    r->rip = r->gpr[RCX];
    r->rflags = (flags & FLAGS_FROM_R11) | 2;
    r->seg[SEG_CS] = flat_segment((selector + 16) | 3, CODE64 | DPL3);
    r->seg[SEG_SS] = flat_segment((selector + 8) | 3, DATA | DPL3);
    return true;
}
