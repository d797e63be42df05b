/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * syscall: system calls and returns from them and from interrupts in 64-bit mode.
 *
 * Spec: AMD64 APM, volume 3, "SYSCALL", "SYSRET", "IRET"; Intel SDM, volume 2, the same.
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

/* ---- from an interrupt, or by a kernel that wants to be sure of its code, to the kernel ---- */

enum { FRAME_RIP, FRAME_CS, FRAME_FLAGS, FRAME_RSP, FRAME_SS, FRAME_WORDS };
#define FLAGS_OF_IRET   (FLAGS_ARITH | FLAG_IF | FLAG_DF | FLAG_AC | FLAG_RF)
#define DESCRIPTOR_TYPE UINT64_C(0x0060ff0000000000) /* L, D, P, DPL, S, type */
#define KERNEL_CODE     UINT64_C(0x00209b0000000000)
#define KERNEL_DATA     UINT64_C(0x0000930000000000)

/* Is @selector in force, and does its descriptor, if it can be read, say @type? */
static bool still(const struct vcpu *cpu, enum seg_name seg, uint64_t selector, uint64_t type)
{
    const struct regs *r = &cpu->r;
    enum tlb_mode mode = r->cr4 & CR4_SMAP ? TLB_KERNEL : TLB_KERNEL_AC;
    uint64_t at = r->gdt.base + selector, word;
    if ((uint16_t)selector != r->seg[seg].selector || (selector & 7) ||
        (uint16_t)selector + 7u > r->gdt.limit || !canonical(at) || (at & 7)) {
        return false;
    }
    const void *host = tlb_lookup(cpu->tlb, mode, false, at);
    if (!host) {
        return false;
    }
    memcpy(&word, host, sizeof(word));
    uint64_t mask = seg == SEG_CS ? DESCRIPTOR_TYPE : DESCRIPTOR_TYPE & (UINT64_C(0xff) << 40);
    return (word & mask) == type;
}

bool system_iret(struct vcpu *cpu)
{
    struct regs *r = &cpu->r;
    uint64_t sp = r->gpr[RSP], f[FRAME_WORDS];
    const void *host = canonical(sp) && (sp & 4095) <= 4096 - sizeof(f)
                           ? tlb_lookup(cpu->tlb, tlb_mode(cpu), false, sp)
                           : NULL;
    if (!host || (r->rflags & FLAG_NT)) {
        return false;
    }
    memcpy(f, host, sizeof(f));
    uint16_t ss = (uint16_t)f[FRAME_SS];
    if (((f[FRAME_FLAGS] ^ r->rflags) & ~(uint64_t)FLAGS_OF_IRET) || !canonical(f[FRAME_RIP]) ||
        !still(cpu, SEG_CS, (uint16_t)f[FRAME_CS], KERNEL_CODE) ||
        (ss || r->seg[SEG_SS].selector ? !still(cpu, SEG_SS, ss, KERNEL_DATA) : false)) {
        return false;
    }
    r->rip = f[FRAME_RIP];
    r->rflags = f[FRAME_FLAGS];
    r->gpr[RSP] = f[FRAME_RSP];
    r->nmi_blocked = 0;
    return true;
}
