/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * stack: push, pop and leave.  The stack pointer moves when nothing can fault any more.
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
static bool pushf_insn(struct tr *t)
{
    struct code *c = &t->hot;
    struct mem ah = SLOT(fl_saved);
    ah.disp++;
    if (!t->code64) {
        return false;
    }
    flags_free(t);
    struct mem top = memory_near(t, RSP, -8, 8, true);
    emit_load(c, 1, S2, ah);
    or_bit(t, SLOT(fl_saved), 11);
    or_bit(t, SLOT(intf), 9);
    or_bit(t, SLOT(df), 10);
    or_bit(t, SLOT(ac), 18);
    emit_load(c, 8, S0, SLOT(sys));
    emit_or(c, S2, S0);
    emit_store(c, 8, top, S2);
    stack_move(t, RSP, -8);
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
        return pushf_insn(t);
    case OP_LEAVE:
        return leave_insn(t, bytes);
    default:
        return false;
    }
}
