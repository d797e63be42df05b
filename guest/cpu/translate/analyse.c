/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * analyse: which instructions make a block, and where the guest's flags matter.
 *
 * A block goes on behind a conditional branch, so that the likely path is straight; it ends
 * with any other branch, at the end of the page, and before what cannot be decoded.  One whose
 * first instruction lies across two pages goes on in the second.
 */
#include "guest/cpu/translate/translate.h"

enum { AHEAD = 6 }; /* instructions looked at behind an exit */

static bool shift_by_imm(const struct insn *i)
{
    return i->map == MAP_1BYTE && (i->opcode & 0xfe) == 0xc0;
}

/* Flags that must be right before @i if @after must be right behind it. */
static uint32_t live_before(const struct insn *i, uint32_t after)
{
    uint32_t read = i->desc->flags_read & FLAGS_ARITH;
    if (shift_by_imm(i) && (i->imm & (i->opsize == 8 ? 63 : 31))) {
        unsigned which = i->modrm >> 3 & 7;
        read = which == 2 || which == 3 ? FLAG_CF : 0; /* rcl, rcr */
    }
    return (after & ~i->desc->flags_written) | read;
}

/* The guest's code at @pc, and how many bytes of it may be looked at; 0: none. */
static unsigned code_at(struct tr *t, uint64_t pc, const uint8_t **bytes)
{
    struct block *b = t->block;
    int page = block_page(b, pc);
    unsigned at = (unsigned)(pc & 4095), room = 4096 - at;
    if (page < 0) {
        return 0;
    }
    const uint8_t *host = page ? b->host2 : b->host;
    *bytes = (const uint8_t *)((uintptr_t)host & ~(uintptr_t)4095) + at;
    if (!page && b->host2 && pc >= b->pc) { /* the instruction across */
        memcpy(t->across, *bytes, room);
        memcpy(t->across + room, b->host2, INSN_BYTES);
        *bytes = t->across;
        room = INSN_BYTES;
    }
    return room;
}

static void note_lines(struct tr *t, uint64_t pc, unsigned bytes)
{
    for (uint64_t at = pc; at < pc + bytes; at = (at | 63) + 1) {
        t->lines[block_page(t->block, at)] |= UINT64_C(1) << (at & 4095) / 64;
    }
}

static bool decode_at(struct tr *t, uint64_t pc, struct insn *out)
{
    const uint8_t *bytes;
    unsigned room = code_at(t, pc, &bytes);
    if (!room || insn_decode(bytes, room, t->code64 ? 8 : 4, out) != DECODE_OK) {
        return false;
    }
    note_lines(t, pc, out->len);
    return true;
}

/* Flags that the code at @pc may read before it writes them. */
static uint32_t live_at(struct tr *t, uint64_t pc)
{
    static struct insn i; /* the cache lock is held */
    uint32_t live = 0, open = FLAGS_ARITH;
    for (unsigned n = 0; n < AHEAD && open; n++) {
        if (!decode_at(t, pc, &i)) {
            break;
        }
        live |= live_before(&i, 0) & open;
        open &= live_before(&i, FLAGS_ARITH);
        if ((i.desc->bits & INSN_ENDS) || i.desc->class == CLASS_SYSTEM) {
            if (i.op != OP_JMP) {
                break;
            }
            pc = pc + i.len + (uint64_t)i.imm;
            continue;
        }
        pc += i.len;
    }
    return live | open;
}

static uint64_t branch_target(const struct tr *t, unsigned k)
{
    uint64_t pc = insn_pc(t, k) + t->in[k].len + (uint64_t)t->in[k].imm;
    return t->code64 ? pc : (uint32_t)pc;
}

static bool is_cond(const struct insn *i)
{
    return i->op == OP_JCC || i->op == OP_LOOP || i->op == OP_LOOPE || i->op == OP_LOOPNE ||
           i->op == OP_JCXZ;
}

static bool ends_block(const struct insn *i)
{
    switch (i->desc->class) {
    case CLASS_SYSTEM:
        return i->op != OP_RDTSC && i->op != OP_CPUID && i->op != OP_CLI && i->op != OP_STI &&
               i->op != OP_RDMSR && i->op != OP_SWAPGS &&
               i->op != OP_RDTSCP && i->op != OP_MOV_FROM_SREG && i->op != OP_MOV_FROM_CR;
    case CLASS_FAR:
        return true;
    case CLASS_STACK:
        return i->op == OP_POPF || i->op == OP_POP_SREG;
    default:
        return (i->desc->bits & INSN_ENDS) && !is_cond(i);
    }
}

void analyse(struct tr *t)
{
    unsigned at = 0;
    bool ended = false;
    t->n = 0;
    t->lines[0] = t->lines[1] = 0;
    while (t->n < BLOCK_INSNS && !ended) {
        struct insn *i = &t->in[t->n];
        if (!decode_at(t, t->block->pc + at, i)) {
            break;
        }
        t->offset[t->n++] = (uint16_t)at;
        at += i->len;
        ended = ends_block(i);
    }
    t->offset[t->n] = (uint16_t)at;
    if (!t->n) {
        return;
    }
    const struct insn *last = &t->in[t->n - 1];
    uint32_t live = FLAGS_ARITH;
    if (!ended) {
        live = live_at(t, t->block->pc + at);
    } else if (last->op == OP_JMP || last->op == OP_CALL) {
        live = live_at(t, branch_target(t, t->n - 1));
    }
    t->live[t->n] = live;
    for (unsigned k = t->n; k-- > 0;) {
        if (is_cond(&t->in[k])) {
            live |= live_at(t, branch_target(t, k));
            t->live[k + 1] = live;
        }
        live = live_before(&t->in[k], live);
        t->live[k] = live;
    }
}
