/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * group: accesses of a block from one base register, checked together.
 *
 * The first of them checks that all lie in one page and finds the addend of that page, which
 * the others use.  What it found stays in a slot, so that C code may come in between.  It
 * holds to the end of the block: nobody takes a page away from a vCPU that has not left
 * generated code since, other than by an instruction that ends the block.
 *
 * Accesses that do not lie in one page: the block goes on in another translation, in which
 * each access is checked apart (BLOCK_APART).
 */
#include "guest/cpu/translate/translate.h"

enum { REACH = 512, ALL_REGS = 0xffff }; /* bytes from the first to the last access */

struct access {
    unsigned base, size;
    int32_t disp;
    bool write;
};

static bool plain_operand(const struct insn *i)
{
    return i->mem && i->addrsize == 8 && i->index < 0 && i->base >= 0 && !stolen(i->base) &&
           !i->rip_relative && i->seg != SEG_FS && i->seg != SEG_GS &&
           (i->desc->mem & MEM_RW) && !(i->desc->bits & (INSN_ODD_MEM | INSN_VSIB)) &&
           i->disp == (int32_t)i->disp && i->encoding != ENC_EVEX;
}

/* Accesses whose address is a register and a constant. */
static unsigned accesses_of(const struct insn *i, struct access out[2])
{
    unsigned n = 0, size = insn_mem_bytes(i);
    if (plain_operand(i) && size && size <= 32) {
        out[n++] = (struct access){(unsigned)i->base, size, (int32_t)i->disp,
                                   i->desc->mem & MEM_WRITE};
    }
    if (i->opsize != 8) {
        return n;
    }
    switch (i->op) {
    case OP_PUSH:
    case OP_CALL:
    case OP_CALL_IND:
        out[n++] = (struct access){RSP, 8, -8, true};
        break;
    case OP_POP:
    case OP_RET:
        out[n++] = (struct access){RSP, 8, 0, false};
        break;
    case OP_LEAVE:
        out[n++] = (struct access){RBP, 8, 0, false};
        break;
    default:
        break;
    }
    return n;
}

/* The register that a number in a byte operand means: AH to BH are parts of RAX to RBX. */
static unsigned whole_reg(const struct insn *i, unsigned k, unsigned reg)
{
    bool high = i->desc->bytes[k] == 1 && !(i->prefixes & PFX_REX) && reg >= 4 && reg < 8;
    return high ? reg - 4 : reg;
}

/* General registers that @i may change, one bit each. */
static unsigned writes_regs(const struct insn *i)
{
    unsigned regs = i->desc->regs_written;
    if (i->desc->class == CLASS_SYSTEM || i->desc->class == CLASS_STRING ||
        i->desc->class == CLASS_FAR) {
        return ALL_REGS;
    }
    for (unsigned k = 0; k < 4; k++) {
        unsigned kind = i->desc->operand[k];
        if (!(i->desc->access[k] & MEM_WRITE)) {
            continue;
        }
        regs |= kind == OPD_REG ? 1u << whole_reg(i, k, i->reg) : 0;
        regs |= kind == OPD_RM && !i->mem ? 1u << whole_reg(i, k, i->rm) : 0;
        regs |= kind == OPD_VVVV ? 1u << i->vvvv : 0;
    }
    return regs;
}

/* By how much @i moves RSP; false: that is not known. */
static bool stack_delta(const struct insn *i, int32_t *by)
{
    bool of_rsp = i->opsize == 8 && !i->mem && i->rm == RSP && i->desc->operand[0] == OPD_RM;
    if (i->op == OP_PUSH && i->opsize == 8) {
        *by = -8;
        return true;
    }
    if (i->op == OP_POP && i->opsize == 8 && !i->mem) {
        *by = 8;
        return (i->desc->operand[0] == OPD_REG ? i->reg : i->rm) != RSP;
    }
    if ((i->op == OP_ADD || i->op == OP_SUB) && of_rsp && i->imm_bytes) {
        *by = i->op == OP_ADD ? (int32_t)i->imm : -(int32_t)i->imm;
        return i->imm == (int32_t)i->imm && i->imm > -REACH && i->imm < REACH;
    }
    return false;
}

/* What lies between @a's instruction and the end of the block and can be checked with it. */
static unsigned plan(const struct tr *t, const struct access *a, int32_t *lo, int32_t *hi)
{
    int32_t moved = 0, by;
    unsigned n = 0;
    *lo = a->disp;
    *hi = a->disp + (int32_t)a->size;
    for (unsigned k = t->at; k < t->n; k++) {
        struct access more[2];
        unsigned m = accesses_of(&t->in[k], more);
        for (unsigned j = 0; j < m; j++) {
            int32_t from = more[j].disp + moved, to = from + (int32_t)more[j].size;
            int32_t low = MIN(*lo, from), high = MAX(*hi, to);
            if (more[j].base == a->base && (a->write || !more[j].write) &&
                (int64_t)high - low <= REACH) {
                *lo = low;
                *hi = high;
                n++;
            }
        }
        if (writes_regs(&t->in[k]) >> a->base & 1) {
            if (a->base != RSP || !stack_delta(&t->in[k], &by)) {
                break;
            }
            moved += by;
        }
    }
    return n;
}

bool group_start(struct tr *t, unsigned base, int32_t disp, unsigned size, bool write,
                 struct group *out)
{
    struct access a = {base, size, disp, write};
    /* Could not be the other translation's first, or not be linked to. */
    bool across = t->block->host2 && (t->at == 0 || floats(t));
    *out = (struct group){.valid = true, .base = (uint8_t)base, .write = write};
    return t->code64 && !(t->block->flags & BLOCK_APART) && !across && size <= 32 &&
           plan(t, &a, &out->lo, &out->hi) > 1;
}

void group_add(struct tr *t, const struct group *g)
{
    unsigned k = t->next_group++ % GROUPS;
    t->group[k] = *g;
    t->in_s1 = (uint8_t)(k + 1);
    emit_store(&t->hot, 8, SLOT_AT(near, k), S1);
}

bool group_use(struct tr *t, unsigned base, int32_t disp, unsigned size, bool write)
{
    for (unsigned k = 0; k < GROUPS; k++) {
        const struct group *g = &t->group[k];
        if (g->valid && g->base == base && disp >= g->lo && disp + (int64_t)size <= g->hi &&
            (g->write || !write)) {
            if (t->in_s1 != k + 1) {
                emit_load(&t->hot, 8, S1, SLOT_AT(near, k));
                t->in_s1 = (uint8_t)(k + 1);
            }
            return true;
        }
    }
    return false;
}

/* Does the code written for @i leave S1 alone? */
static bool keeps_s1(const struct insn *i)
{
    bool in_high = stolen(i->reg) || (!i->mem && stolen(i->rm));
    return i->op == OP_PUSH || i->op == OP_POP ? !i->mem
                                               : i->op == OP_MOV && !i->mem && !in_high;
}

void group_after(struct tr *t, const struct insn *i)
{
    unsigned regs = writes_regs(i);
    int32_t by = 0;
    bool known = stack_delta(i, &by);
    for (unsigned k = 0; k < GROUPS; k++) {
        struct group *g = &t->group[k];
        if (!(regs >> g->base & 1)) {
            continue;
        }
        if (g->base == RSP && known) {
            g->lo -= by;
            g->hi -= by;
        } else {
            g->valid = false;
        }
    }
    if (!keeps_s1(i)) {
        t->in_s1 = 0;
    }
}
