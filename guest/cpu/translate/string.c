/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * string: movs, stos and lods, upwards.  A repeated one is the host's own, page by page.
 */
#include "guest/cpu/translate/translate.h"

enum { REP = 0xf3 };

struct string {
    const struct insn *i;
    unsigned bytes, shift; /* of an element, and its logarithm */
    bool src, dst;
};

/* Downwards the interpreter does it. */
static void check_direction(struct tr *t)
{
    emit_cmp_mem8_imm(&t->hot, SLOT(df), 0);
    uint8_t *up = emit_jcc_short(&t->hot, CC_E);
    struct desc *d = desc_new(t, t->at, t->saved);
    if (d) {
        emit_lea_rip(&t->hot, S2, (const uint8_t *)d);
        emit_jmp(&t->hot, thunk_at[THUNK_ONE]);
    }
    emit_short_target(&t->hot, up);
}

static void probe(struct tr *t, const struct string *s, unsigned reg, bool write)
{
    emit_mov(&t->hot, S0, reg);
    memory_probe(t, s->bytes, write);
}

/* @to = elements from the address in @reg to the end of its page; the first one fits. */
static void to_page_end(struct tr *t, const struct string *s, unsigned to, unsigned reg)
{
    emit_mov32(&t->hot, to, reg);
    emit_or32_imm(&t->hot, to, -4096);
    emit_neg32(&t->hot, to);
    if (s->shift) {
        emit_shr(&t->hot, to, s->shift);
    }
}

/* S2 = how many elements now: up to the first page end, or all. */
static void run_length(struct tr *t, const struct string *s)
{
    struct code *c = &t->hot;
    to_page_end(t, s, S2, s->dst ? RDI : RSI);
    if (s->src && s->dst) {
        to_page_end(t, s, S0, RSI);
        emit_cmp(c, S2, S0);
        emit_cmov(c, CC_A, S2, S0);
    }
    emit_cmp(c, S2, RCX);
    emit_cmov(c, CC_A, S2, RCX);
}

static void host_string(struct tr *t, const struct string *s, bool rep)
{
    if (s->bytes == 2) {
        emit_byte(&t->hot, 0x66);
    }
    if (rep) {
        emit_byte(&t->hot, REP);
    }
    if (s->bytes == 8) {
        emit_byte(&t->hot, 0x48);
    }
    emit_byte(&t->hot, (s->i->opcode & 0xfeu) | (s->bytes > 1));
}

/* Outside 64-bit mode the registers wrap at 32 bits. */
static void wrap(struct tr *t, unsigned reg)
{
    if (!t->code64) {
        emit_mov32(&t->hot, reg, reg);
    }
}

static void run_of_pages(struct tr *t, const struct string *s)
{
    struct code *c = &t->hot;
    emit_store(c, 8, SLOT(count), RCX);
    emit_mov(c, RCX, S2);
    emit_lea(c, RDI, MEM_SUM(RDI, S1));
    if (s->src) {
        emit_load(c, 8, S0, SLOT(source));
        emit_lea(c, RSI, MEM_SUM(RSI, S0));
    }
    host_string(t, s, true);
    emit_sub(c, RDI, S1);
    wrap(t, RDI);
    if (s->src) {
        emit_sub(c, RSI, S0);
        wrap(t, RSI);
    }
    emit_load(c, 8, RCX, SLOT(count));
    emit_sub(c, RCX, S2);
}

static void repeated(struct tr *t, const struct string *s)
{
    struct code *c = &t->hot;
    uint8_t *top = c->at;
    emit_test(c, RCX, RCX);
    emit_jcc(c, CC_E, c->at);
    uint8_t *done = c->at;
    emit_load(c, 8, S0, SLOT(poll));
    emit_load(c, 4, S0, MEM_BASE(S0, 0));
    if (s->src) {
        probe(t, s, RSI, false);
        emit_store(c, 8, SLOT(source), S1);
    }
    probe(t, s, RDI, true);
    run_length(t, s);
    run_of_pages(t, s);
    emit_jmp(c, top);
    if (!c->full) {
        emit_patch_rel32(done - 4, c->at);
    }
}

static void advance(struct tr *t, const struct string *s, unsigned reg)
{
    if (t->code64) {
        emit_lea(&t->hot, reg, MEM_BASE(reg, (int32_t)s->bytes));
    } else {
        emit_lea32(&t->hot, reg, MEM_BASE(reg, (int32_t)s->bytes));
    }
}

static void single(struct tr *t, const struct string *s)
{
    struct code *c = &t->hot;
    unsigned value = RAX;
    if (s->src) {
        probe(t, s, RSI, false);
        if (!s->dst) { /* lods: smaller ones keep the rest of RAX */
            emit_copy(c, (const uint8_t[]){0x66}, s->bytes == 2);
            emit_byte(c, s->bytes == 8 ? 0x4b : 0x43);
            emit_byte(c, s->bytes > 1 ? 0x8b : 0x8a);
            emit_modrm(c, RAX, MEM_SUM(S0, S1));
        } else {
            emit_load(c, s->bytes, S2, MEM_SUM(S0, S1));
            emit_store(c, 8, SLOT(source), S2);
            value = S2;
        }
    }
    if (s->dst) {
        probe(t, s, RDI, true);
        if (value == S2) {
            emit_load(c, 8, S2, SLOT(source));
        }
        emit_store(c, s->bytes, MEM_SUM(S0, S1), value);
        advance(t, s, RDI);
    }
    if (s->src) {
        advance(t, s, RSI);
    }
}

bool emit_string(struct tr *t, const struct insn *i)
{
    struct string s = {.i = i, .bytes = i->opsize};
    bool rep = i->prefixes & (PFX_F2 | PFX_F3);
    s.src = i->op == OP_MOVS || i->op == OP_LODS;
    s.dst = i->op == OP_MOVS || i->op == OP_STOS;
    if ((!s.src && !s.dst) || i->addrsize != (t->code64 ? 8 : 4) || (rep && i->op == OP_LODS) ||
        ((i->prefixes & PFX_SEG) && s.src)) {
        return false;
    }
    while (s.bytes >> (s.shift + 1)) {
        s.shift++;
    }
    flags_free(t);
    check_direction(t);
    if (rep) {
        repeated(t, &s);
    } else {
        single(t, &s);
    }
    return true;
}
