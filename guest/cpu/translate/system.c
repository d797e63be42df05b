/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * system: instructions of the system part that need no help, and those that a C function
 * does faster than the interpreter would.
 */
#include "guest/cpu/translate/translate.h"

static bool kernel(const struct tr *t)
{
    return t->block->flags & BLOCK_CPL0;
}

/* The one instruction behind STI must come before an interrupt that waits already. */
static bool sti(struct tr *t)
{
    if (t->at + 1 >= t->n) {
        return false;
    }
    flags_free(t);
    emit_cmp_mem8_imm(&t->hot, SLOT(waiting), 0);
    uint8_t *none = emit_jcc_short(&t->hot, CC_E);
    struct desc *d = desc_new(t, t->at, t->saved);
    if (d) {
        emit_lea_rip(&t->hot, S2, (const uint8_t *)d);
        emit_jmp(&t->hot, thunk_at[THUNK_ONE]);
    }
    emit_short_target(&t->hot, none);
    emit_store_imm(&t->hot, 1, SLOT(intf), 1);
    return true;
}

/* stac, clac: the same code address, another way to see memory. */
static bool change_ac(struct tr *t, bool on)
{
    uint32_t flags = t->block->flags & ~(uint32_t)(BLOCK_MODE | BLOCK_APART);
    flags |= on || !(flags & BLOCK_SMAP) ? TLB_KERNEL_AC : TLB_KERNEL;
    if (!kernel(t)) {
        return false;
    }
    emit_store_imm(&t->hot, 1, SLOT(ac), on);
    emit_store_imm(&t->hot, 1, SLOT(mode), (int32_t)(flags & BLOCK_MODE));
    emit_store_imm(&t->hot, 4, SLOT(flags), (int32_t)flags);
    t->exit_flags = flags;
    exit_direct(t, next_pc(t));
    t->done = true;
    return true;
}

static bool swapgs(struct tr *t)
{
    struct mem gs = SLOT(seg_base);
    gs.disp += SEG_GS * 8;
    if (!kernel(t)) {
        return false;
    }
    emit_load(&t->hot, 8, S0, gs);
    emit_load(&t->hot, 8, S1, SLOT(kernel_gs));
    emit_store(&t->hot, 8, gs, S1);
    emit_store(&t->hot, 8, SLOT(kernel_gs), S0);
    return true;
}

/* The guest's counter is the host's and a constant. */
static bool rdtsc(struct tr *t)
{
    struct code *c = &t->hot;
    if ((t->block->flags & BLOCK_TSD) && !kernel(t)) {
        return false;
    }
    emit_rdtsc(c);
    if (t->in[t->at].op == OP_RDTSCP) {
        emit_load(c, 4, RCX, SLOT(tsc_aux));
    }
    emit_mov_imm(c, S0, 32);
    emit_shlx(c, S1, RDX, S0);
    emit_lea(c, S1, MEM_SUM(S1, RAX));
    emit_load(c, 8, S0, SLOT(tsc_add));
    emit_lea(c, S1, MEM_SUM(S1, S0));
    emit_mov32(c, RAX, S1);
    emit_rorx(c, RDX, S1, 32);
    emit_mov32(c, RDX, RDX);
    return true;
}

/* A C function does it: helper bt_system(). */
static bool by_helper(struct tr *t, unsigned which, bool ends)
{
    struct desc *d = desc_new(t, t->at, t->saved);
    if (d) {
        d->size = (uint8_t)which;
        emit_lea_rip(&t->hot, S2, (const uint8_t *)d);
        emit_jmp(&t->hot, thunk_at[THUNK_SYSTEM]);
    }
    t->done = ends;
    return true;
}

/* Programs ask for the same leaf again and again: the last answer is in the slots. */
static bool cpuid(struct tr *t)
{
    static const uint8_t to[4] = {RAX, RBX, RCX, RDX};
    struct code *c = &t->hot;
    if (t->at + 1 >= t->n) {
        return false;
    }
    flags_free(t);
    emit_mov32(c, S0, RCX);
    emit_shl(c, S0, 32);
    emit_mov32(c, S1, RAX);
    emit_or(c, S0, S1);
    emit_cmp_mem(c, S0, SLOT(cpuid_key));
    uint8_t *hit = emit_jcc_short(c, CC_E);
    by_helper(t, SYSTEM_CPUID, false);
    emit_short_target(c, hit);
    for (unsigned k = 0; k < 4; k++) {
        struct mem m = SLOT(cpuid);
        m.disp += (int32_t)k * 4;
        emit_load(c, 4, to[k], m);
    }
    return true;
}

/* A selector to memory, a register or the low half of a word in one. */
static bool from_selector(struct tr *t, const struct insn *i)
{
    int32_t at = (int32_t)(offsetof(struct vcpu, r.seg) + i->reg * sizeof(struct segment) +
                           offsetof(struct segment, selector));
    struct code *c = &t->hot;
    struct mem m;
    if (i->reg >= SEG_COUNT || (i->mem && !memory_operand(t, i, 2, true, &m))) {
        return false;
    }
    emit_load(c, 8, S2, SLOT(cpu));
    emit_load(c, 2, S2, MEM_BASE(S2, at));
    if (i->mem) {
        emit_store(c, 2, m, S2);
    } else if (i->opsize == 2) {
        load_guest(t, S0, i->rm);
        emit_mov16(c, S0, S2);
        store_guest(t, i->rm, S0);
    } else {
        store_guest(t, i->rm, S2);
    }
    return true;
}

/* Those that are nothing but what was written to them last. */
static bool from_control(struct tr *t, const struct insn *i)
{
    size_t at = i->reg == 0   ? offsetof(struct vcpu, r.cr0)
              : i->reg == 2   ? offsetof(struct vcpu, r.cr2)
              : i->reg == 3   ? offsetof(struct vcpu, r.cr3)
              : i->reg == 4   ? offsetof(struct vcpu, r.cr4)
                              : 0;
    if (!at || !kernel(t) || !t->code64) {
        return false;
    }
    emit_load(&t->hot, 8, S0, SLOT(cpu));
    emit_load(&t->hot, 8, S0, MEM_BASE(S0, (int32_t)at));
    store_guest(t, i->rm, S0);
    return true;
}

bool emit_system(struct tr *t, const struct insn *i)
{
    switch (i->op) {
    case OP_MOV_FROM_SREG:
        return from_selector(t, i);
    case OP_MOV_FROM_CR:
        return from_control(t, i);
    case OP_CLI:
        if (!kernel(t)) {
            return false;
        }
        emit_store_imm(&t->hot, 1, SLOT(intf), 0);
        return true;
    case OP_STI:
        return kernel(t) && sti(t);
    case OP_STAC:
        return change_ac(t, true);
    case OP_CLAC:
        return change_ac(t, false);
    case OP_SWAPGS:
        return swapgs(t);
    case OP_RDTSC:
    case OP_RDTSCP:
        return rdtsc(t);
    case OP_SYSCALL:
        return t->code64 && by_helper(t, SYSTEM_SYSCALL, true);
    case OP_SYSRET:
        return t->code64 && kernel(t) && (i->rex & 8) && by_helper(t, SYSTEM_SYSRET, true);
    case OP_IRET:
        return t->code64 && kernel(t) && i->opsize == 8 && by_helper(t, SYSTEM_IRET, true);
    case OP_CPUID:
        return cpuid(t);
    default:
        return false;
    }
}
