/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * flow: branches, and the ways out of a block.
 *
 * A direct jump inside the page leads straight to the next block once that exists.  So does
 * one out of the page in the kernel, as long as the target's page is global (link.c).  All
 * other jumps go through the vCPU's jump cache.
 *
 * Links are made with the guest's flags in the host's or in .fl_saved, as they happen to be;
 * the jump cache leads to code that finds them in .fl_saved.
 */
#include "guest/cpu/translate/translate.h"

/* The second page of a floating block's first instruction has another .page. */
static bool may_link(const struct tr *t, uint64_t pc)
{
    if (floats(t)) {
        return block_page(t->block, pc) == 0;
    }
    return block_page(t->block, pc) >= 0 || t->mode != TLB_USER;
}

static struct stub *exit_stub(struct tr *t, uint64_t pc)
{
    struct stub *s = stub_new(t, STUB_EXIT);
    s->value = pc;
    s->flags = t->exit_flags;
    s->link = may_link(t, pc);
    s->saved = t->saved;
    return s;
}

void jump_cached(struct code *c, unsigned mode, uint64_t pc)
{
    struct mem entry = JUMP_SLOT(mode, key, -1);
    entry.disp += (int32_t)(jump_slot(pc) * sizeof(((struct jump_cache *)0)->at[0]));
    struct mem code = entry;
    code.disp += (int32_t)(JUMP_SLOT(mode, code, -1).disp - JUMP_SLOT(mode, key, -1).disp);
    emit_mov_imm(c, S0, pc);
    emit_cmp_mem(c, S0, entry);
    emit_jcc(c, CC_NE, thunk_at[THUNK_JUMP_0 + mode]);
    emit_jmp_mem(c, code);
}

void address_floating(struct code *c, unsigned reg, uint64_t pc)
{
    emit_load(c, 8, reg, SLOT(page));
    emit_lea(c, reg, MEM_BASE(reg, (int32_t)pc));
}

void jump_floating(struct code *c, uint64_t pc)
{
    address_floating(c, S0, pc);
    jump_look_up(c, TLB_USER);
    emit_jcc(c, CC_NE, thunk_at[THUNK_JUMP_0 + TLB_USER]);
    emit_jmp_mem(c, JUMP_SLOT(TLB_USER, code, S1));
}

/* What comes next through the jump cache expects the flags in .fl_saved. */
static void flags_out(struct tr *t)
{
    if (!t->saved && (t->live[t->at + 1] & FLAGS_ARITH)) {
        flags_save(&t->hot);
        t->saved = true;
    }
}

void exit_direct(struct tr *t, uint64_t pc)
{
    if (!may_link(t, pc)) {
        flags_out(t);
        if (floats(t)) {
            jump_floating(&t->hot, pc);
        } else {
            jump_cached(&t->hot, t->exit_flags & BLOCK_MODE, pc);
        }
        return;
    }
    struct stub *s = exit_stub(t, pc);
    emit_align_field(&t->hot, 1);
    emit_jmp(&t->hot, t->hot.at);
    s->miss = t->hot.at - 4;
}

void exit_apart(struct tr *t, unsigned cc)
{
    struct stub *s = exit_stub(t, insn_pc(t, t->at));
    s->apart = true;
    emit_align_field(&t->hot, 2);
    emit_jcc(&t->hot, cc, t->hot.at);
    s->miss = t->hot.at - 4;
}

void exit_cond(struct tr *t, unsigned cc, uint64_t pc)
{
    flags_restore(t);
    struct stub *s = exit_stub(t, pc);
    emit_align_field(&t->hot, 2);
    emit_jcc(&t->hot, cc, t->hot.at);
    s->miss = t->hot.at - 4;
}

void insn_interp(struct tr *t, bool ends)
{
    struct desc *d = desc_new(t, t->at, t->saved);
    if (!d) {
        return;
    }
    t->in_s1 = 0; /* the helper's */
    emit_lea_rip(&t->hot, S2, (const uint8_t *)d);
    emit_jmp(&t->hot, thunk_at[THUNK_ONE]);
    t->done = ends;
}

/* Stores the address @value below the stack pointer, and moves that. */
static void push_value(struct tr *t, uint64_t value)
{
    int bytes = t->code64 ? 8 : 4;
    struct mem m = memory_near(t, RSP, -bytes, (unsigned)bytes, true);
    if (floats(t)) {
        address_floating(&t->hot, S2, value);
        emit_store(&t->hot, 8, m, S2);
    } else if (!t->code64 || value == (uint64_t)(int64_t)(int32_t)value) {
        emit_store_imm(&t->hot, (unsigned)bytes, m, (int32_t)value);
    } else {
        emit_mov_imm(&t->hot, S2, value);
        emit_store(&t->hot, 8, m, S2);
    }
    stack_move(t, RSP, -bytes);
}

/* loop, loope, loopne, jcxz: only 8-bit displacements, so over a jump. */
static void loop_insn(struct tr *t, const struct insn *i, uint64_t target)
{
    flags_restore(t);
    if (i->addrsize == 4) {
        emit_byte(&t->hot, 0x67);
    }
    emit_byte(&t->hot, i->opcode);
    emit_byte(&t->hot, 0);
    uint8_t *taken = t->hot.at;
    uint8_t *over = emit_jmp_short(&t->hot);
    emit_short_target(&t->hot, taken);
    exit_direct(t, target);
    emit_short_target(&t->hot, over);
}

bool emit_branch(struct tr *t, const struct insn *i)
{
    uint64_t target = next_pc(t) + (uint64_t)i->imm;
    if (i->opsize != (t->code64 ? 8 : 4) || i->addrsize == 2) {
        return false;
    }
    if (!t->code64) {
        target = (uint32_t)target;
    } else if (!canonical(target) || (floats(t) && (int64_t)target != (int32_t)target)) {
        return false;
    }
    switch (i->op) {
    case OP_JMP:
        exit_direct(t, target);
        t->done = true;
        return true;
    case OP_CALL:
        push_value(t, next_pc(t));
        exit_direct(t, target);
        t->done = true;
        return true;
    case OP_JCC:
        exit_cond(t, i->opcode & 15, target);
        return true;
    default:
        loop_insn(t, i, target);
        return true;
    }
}

/*
 * Behind it S1 is the jump cache's slot for the target in S0.  Without one the interpreter
 * does the whole instruction, because it may have to refuse the target, and then nothing may
 * have changed.
 */
static void find_target(struct tr *t)
{
    flags_free(t);
    struct stub *s = stub_new(t, STUB_TARGET);
    t->in_s1 = 0;
    jump_look_up(&t->hot, t->exit_flags & BLOCK_MODE);
    emit_jcc(&t->hot, CC_NE, t->hot.at);
    s->miss = t->hot.at - 4;
    s->back = t->hot.at;
    s->saved = t->saved;
    s->flags = t->exit_flags;
    t->done = true;
}

static struct mem target_code(const struct tr *t)
{
    return JUMP_SLOT(t->exit_flags & BLOCK_MODE, code, S1);
}

static bool ret_insn(struct tr *t, const struct insn *i)
{
    unsigned bytes = t->code64 ? 8 : 4;
    struct mem m = memory_near(t, RSP, 0, bytes, false);
    emit_load(&t->hot, bytes, S0, m);
    find_target(t);
    stack_move(t, RSP, (int)bytes + (i->imm_bytes ? (int)i->imm : 0));
    flags_out(t);
    emit_jmp_mem(&t->hot, target_code(t));
    return true;
}

bool emit_indirect(struct tr *t, const struct insn *i)
{
    unsigned bytes = t->code64 ? 8 : 4;
    if (i->opsize != bytes) {
        return false;
    }
    if (i->op == OP_RET) {
        return ret_insn(t, i);
    }
    if (i->mem) {
        struct mem m;
        if (!memory_operand(t, i, bytes, false, &m)) {
            return false;
        }
        emit_load(&t->hot, bytes, S0, m);
    } else {
        load_guest(t, S0, i->rm);
    }
    find_target(t);
    struct mem to = target_code(t);
    if (i->op == OP_CALL_IND) {
        emit_load(&t->hot, 8, S1, to);
        to = SLOT(link_pc);
        emit_store(&t->hot, 8, to, S1);
        emit_store(&t->hot, 8, SLOT(target), S0);
        push_value(t, next_pc(t));
        emit_load(&t->hot, 8, S0, SLOT(target)); /* a floating block asks where it is */
    }
    flags_out(t);
    emit_jmp_mem(&t->hot, to);
    return true;
}
