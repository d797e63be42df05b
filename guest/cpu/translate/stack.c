/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * stack: push, pop, pushf, popf and leave.  The stack pointer moves when nothing can fault any more.
 */
#include "guest/cpu/translate/translate.h"

void stack_move(struct tr *t, unsigned from, int by)
{
    if (t->code64) {
        emit_lea(&t->hot, RSP, MEM_BASE(from, by));
    } else {
        emit_lea32(&t->hot, RSP, MEM_BASE(from, by));
    }
}

static bool push_insn(struct tr *t, const struct insn *i, unsigned bytes)
{
    struct code *c = &t->hot;
    int down = -(int)bytes;
    struct mem m;
    if (i->mem) {
        if (!memory_operand(t, i, bytes, false, &m)) {
            return false;
        }
        emit_load(c, bytes, S0, m);
        emit_store(c, 8, SLOT(link_pc), S0);
    }
    struct mem top = memory_near(t, RSP, down, bytes, true);
    if (i->imm_bytes) {
        emit_store_imm(c, bytes, top, (int32_t)i->imm);
    } else if (i->mem) {
        emit_load(c, 8, S2, SLOT(link_pc));
        emit_store(c, bytes, top, S2);
    } else {
        unsigned reg = i->desc->operand[0] == OPD_REG ? i->reg : i->rm;
        if (stolen((int)reg)) {
            load_guest(t, S2, reg);
            reg = S2;
        }
        emit_store(c, bytes, top, reg);
    }
    stack_move(t, RSP, down);
    return true;
}

static bool pop_insn(struct tr *t, const struct insn *i, unsigned bytes)
{
    struct code *c = &t->hot;
    unsigned reg = i->desc->operand[0] == OPD_REG ? i->reg : i->rm;
    if (i->mem || reg == RSP) {
        return false;
    }
    struct mem top = memory_near(t, RSP, 0, bytes, false);
    emit_load(c, bytes, stolen((int)reg) ? S2 : reg, top);
    if (stolen((int)reg)) {
        store_guest(t, reg, S2);
    }
    stack_move(t, RSP, (int)bytes);
    return true;
}

static bool leave_insn(struct tr *t, unsigned bytes)
{
    struct mem top = memory_near(t, RBP, 0, bytes, false);
    emit_load(&t->hot, bytes, S2, top);
    stack_move(t, RBP, (int)bytes);
    emit_mov(&t->hot, RBP, S2);
    return true;
}

static void or_bit(struct tr *t, struct mem slot, unsigned bit)
{
    emit_load(&t->hot, 1, S0, slot);
    emit_shl(&t->hot, S0, bit);
    emit_or(&t->hot, S2, S0);
}

/* The image is put together from the slots; the arithmetic flags stay saved. */
static bool pushf_insn(struct tr *t, unsigned bytes)
{
    struct code *c = &t->hot;
    struct mem ah = SLOT(fl_saved);
    ah.disp++;
    flags_free(t);
    emit_load(c, 1, S2, ah);
    or_bit(t, SLOT(fl_saved), 11);
    or_bit(t, SLOT(intf), 9);
    or_bit(t, SLOT(df), 10);
    or_bit(t, SLOT(ac), 18);
    emit_load(c, 8, S0, SLOT(sys));
    emit_or(c, S2, S0);
    emit_store(c, 8, SLOT(link_pc), S2);
    struct mem top = memory_near(t, RSP, -(int)bytes, bytes, true);
    emit_load(c, 8, S2, SLOT(link_pc));
    emit_store(c, bytes, top, S2);
    stack_move(t, RSP, -(int)bytes);
    return true;
}

/* Most bring back arithmetic flags alone; where another one changes the interpreter does it. */
static bool popf_insn(struct tr *t, unsigned bytes)
{
    struct code *c = &t->hot;
    struct mem ah = SLOT(fl_saved);
    ah.disp++;
    flags_free(t);
    struct mem top = memory_near(t, RSP, 0, bytes, false);
    emit_load(c, bytes, S1, top);
    t->in_s1 = 0;
    emit_load(c, 8, S2, SLOT(sys));
    or_bit(t, SLOT(intf), 9);
    or_bit(t, SLOT(df), 10);
    or_bit(t, SLOT(ac), 18);
    emit_xor32(c, S2, S1);
    emit_and32_imm(c, S2, ~(int32_t)FLAGS_ARITH);
    uint8_t *same = emit_jcc_short(c, CC_E);
    struct desc *d = desc_new(t, t->at, t->saved);
    if (d) {
        emit_lea_rip(c, S2, (const uint8_t *)d);
        emit_jmp(c, thunk_at[THUNK_ONE]);
    }
    emit_short_target(c, same);
    emit_store(c, 1, ah, S1);
    emit_shl(c, S1, 63 - 11); /* OF alone */
    emit_shr(c, S1, 63);
    emit_store(c, 1, SLOT(fl_saved), S1);
    t->saved = true;
    stack_move(t, RSP, (int)bytes);
    return true;
}

bool emit_stack(struct tr *t, const struct insn *i)
{
    unsigned bytes = t->code64 ? 8 : 4;
    if (i->opsize != bytes) {
        return false;
    }
    switch (i->op) {
    case OP_PUSH:
        return push_insn(t, i, bytes);
    case OP_POP:
        return pop_insn(t, i, bytes);
    case OP_PUSHF:
        return pushf_insn(t, bytes);
    case OP_POPF:
        return popf_insn(t, bytes);
    case OP_LEAVE:
        return leave_insn(t, bytes);
    default:
        return false;
    }
}
