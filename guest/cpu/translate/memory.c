/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * memory: accesses through the flat TLB.
 *
 * Every access probes the table of its mode and direction:
 *
 *     lea   S1, [address]          test  S1b, size - 1    jnz  odd
 *     mov   S2, 12 | 36 << 8       bextr S1, S1, S2       bits 12 to 47
 *     mov   S2, table
 *     mov   S1, gs:[S2 + S1*8]     test  S1, S1           jz   miss
 *     op    [address + S1]
 *
 * What makes it safe is in docs/notes/translator.md: the index has 36 bits whatever the
 * address is, and an entry plus a canonical address of its page is a byte of guest memory
 * with at least RAM_GUARD bytes behind it that are guest memory or nothing.
 */
#include "guest/cpu/translate/translate.h"

#include "guest/memory/ram.h"

static unsigned table_number(const struct tr *t, bool write)
{
    return tlb_table(t->mode, write);
}

/* The slot of a guest register that has no host register. */
static struct mem high_slot(unsigned guest)
{
    struct mem m = SLOT(high);
    m.disp += (guest == R10 ? 0 : guest == R11 ? 1 : 2) * 8;
    return m;
}

static struct mem base_slot(unsigned seg)
{
    struct mem m = SLOT(seg_base);
    m.disp += (int32_t)seg * 8;
    return m;
}

void load_guest(struct tr *t, unsigned dst, unsigned guest)
{
    if (stolen((int)guest)) {
        emit_load(&t->hot, 8, dst, high_slot(guest));
    } else {
        emit_mov(&t->hot, dst, guest);
    }
}

void store_guest(struct tr *t, unsigned guest, unsigned src)
{
    if (stolen((int)guest)) {
        emit_store(&t->hot, 8, high_slot(guest), src);
    } else {
        emit_mov(&t->hot, guest, src);
    }
}

static bool one_page(uint64_t linear, unsigned size)
{
    return (linear & 4095) + size <= 4096;
}

static uint8_t *jcc_field(struct tr *t, unsigned cc)
{
    emit_jcc(&t->hot, cc, t->hot.at);
    return t->hot.at - 4;
}

/* Is @reg's address in one page?  .odd leads out if that is not certain. */
static void check_span(struct tr *t, struct stub *s, unsigned reg, unsigned size)
{
    s->reg = (uint8_t)reg;
    if (size == 2 || size == 4 || size == 8) {
        emit_test_imm8(&t->hot, reg, size - 1);
        s->odd = jcc_field(t, CC_NE);
        s->back = t->hot.at;
    } else if (size != 1) {
        emit_mov32(&t->hot, S2, reg);
        emit_and32_imm(&t->hot, S2, 4095);
        emit_cmp32_imm(&t->hot, S2, (int32_t)(4096 - size));
        s->odd = jcc_field(t, CC_A);
    }
}

/* S1 = the table's entry for @address, a register's.  Shifts and BTS would do, but processors have
 * few units for them, and BTS is two steps. */
static void look_up(struct tr *t, struct stub *s, unsigned address, bool write)
{
    unsigned number = table_number(t, write);
    t->in_s1 = 0;
    struct mem entry = {.base = -1, .index = S1, .scale = 3, .gs = true};
    emit_mov_imm(&t->hot, S2, PAGE_BITS | TLB_INDEX_BITS << 8);
    emit_bextr(&t->hot, S1, address, S2);
    if (number) {
        emit_mov_imm(&t->hot, S2, tlb_table_offset(number));
        entry.base = S2;
    }
    emit_load(&t->hot, 8, S1, entry);
    emit_test(&t->hot, S1, S1);
    s->miss = jcc_field(t, CC_E);
    s->retry = t->hot.at;
}

/* S1 = the lowest address of the group, which lies in one page. */
static void check_group(struct tr *t, unsigned base, const struct group *g)
{
    struct code *c = &t->hot;
    emit_lea(c, S1, MEM_BASE(base, g->lo));
    emit_mov32(c, S2, S1);
    emit_and32_imm(c, S2, 4095);
    emit_cmp32_imm(c, S2, 4096 - (g->hi - g->lo));
    exit_apart(t, CC_A);
}

static struct stub *slow_stub(struct tr *t, unsigned size, bool write)
{
    struct stub *s = stub_new(t, STUB_SLOW);
    s->size = (uint8_t)size;
    s->write = write;
    s->saved = t->saved;
    return s;
}

void memory_probe(struct tr *t, unsigned size, bool write)
{
    flags_free(t);
    struct stub *s = slow_stub(t, size, write);
    s->address = ADDRESS_IN_S0;
    check_span(t, s, S0, size);
    look_up(t, s, S0, write);
}

struct mem memory_near(struct tr *t, unsigned base, int32_t disp, unsigned size, bool write)
{
    struct mem m = MEM_BASE(base, disp);
    if (!t->code64) { /* the sum wraps at 32 bits */
        emit_lea32(&t->hot, S0, m);
        memory_probe(t, size, write);
        return MEM_SUM(S0, S1);
    }
    struct group g;
    if (group_use(t, base, disp, size, write)) {
        m.index = S1;
        return m;
    }
    flags_free(t);
    struct stub *s = slow_stub(t, size, write);
    s->address = ADDRESS_MEM;
    s->m = m;
    if (group_start(t, base, disp, size, write, &g)) {
        check_group(t, base, &g);
        s->apart = true;
        look_up(t, s, S1, write);
        group_add(t, &g);
        m.index = S1;
        return m;
    }
    unsigned address = disp ? S1 : base;
    if (disp) {
        emit_lea(&t->hot, S1, m);
    }
    check_span(t, s, address, size);
    look_up(t, s, address, write);
    m.index = S1;
    return m;
}

static bool constant_operand(struct tr *t, uint64_t linear, unsigned size, bool write,
                             struct mem *out)
{
    if (!one_page(linear, size) || !canonical(linear)) {
        return false;
    }
    flags_free(t);
    t->in_s1 = 0;
    struct stub *s = slow_stub(t, size, write);
    s->address = ADDRESS_CONST;
    s->value = linear;
    emit_mov_imm(&t->hot, S2, tlb_table_offset(table_number(t, write)) + tlb_index(linear) * 8);
    emit_load(&t->hot, 8, S1, (struct mem){.base = S2, .index = -1, .gs = true});
    *out = MEM_BASE(S1, (int32_t)linear);
    if (linear != (uint64_t)(int64_t)(int32_t)linear) {
        emit_mov_imm(&t->hot, S0, linear);
        *out = MEM_SUM(S0, S1);
    }
    emit_test(&t->hot, S1, S1);
    s->miss = jcc_field(t, CC_E);
    s->retry = t->hot.at;
    return true;
}

/* The same relative to where the page of a floating block is. */
static bool floating_operand(struct tr *t, uint64_t pc, unsigned size, bool write, struct mem *out)
{
    if (!one_page(pc, size) || (int64_t)pc != (int32_t)pc) {
        return false;
    }
    flags_free(t);
    struct stub *s = slow_stub(t, size, write);
    s->address = ADDRESS_IN_S0;
    address_floating(&t->hot, S0, pc);
    look_up(t, s, S0, write);
    *out = MEM_SUM(S0, S1);
    return true;
}

static bool has_base(const struct insn *i)
{
    return i->seg == SEG_FS || i->seg == SEG_GS;
}

/* Registers of the operand as a host operand; those without one come through S0 and S1. */
static struct mem registers_of(struct tr *t, const struct insn *i)
{
    struct mem m = {.base = i->base, .index = i->index, .scale = i->scale};
    bool big = i->disp != (int32_t)i->disp;
    if (stolen(i->base)) {
        load_guest(t, S0, (unsigned)i->base);
        m.base = S0;
    }
    if (stolen(i->index)) {
        m.index = i->index == i->base ? m.base : S1;
        if (m.index == S1) {
            load_guest(t, S1, (unsigned)i->index);
        }
    }
    if (big) { /* an absolute 64-bit address: no registers */
        emit_mov_imm(&t->hot, S0, (uint64_t)i->disp);
        m.base = S0;
    } else {
        m.disp = (int32_t)i->disp;
    }
    return m;
}

/* Segment base, one register and a displacement: two instructions. */
static bool based_address(struct tr *t, const struct insn *i)
{
    if (i->addrsize != 8 || i->index >= 0 || stolen(i->base) || i->disp != (int32_t)i->disp) {
        return false;
    }
    struct mem m = {.base = S0, .index = i->base, .disp = (int32_t)i->disp};
    if (i->base == RSP) { /* cannot be an index */
        m.base = RSP;
        m.index = S0;
    }
    emit_load(&t->hot, 8, S0, base_slot(i->seg));
    emit_lea(&t->hot, S0, m);
    return true;
}

void memory_address(struct tr *t, const struct insn *i)
{
    struct code *c = &t->hot;
    t->in_s1 = 0;
    if (i->rip_relative && floats(t)) {
        address_floating(c, S0, next_pc(t));
        emit_lea(c, S0, MEM_BASE(S0, (int32_t)i->disp));
        if (i->addrsize == 4) {
            emit_mov32(c, S0, S0);
        }
    } else if (i->rip_relative) {
        uint64_t a = next_pc(t) + (uint64_t)i->disp;
        emit_mov_imm(c, S0, i->addrsize == 4 ? (uint32_t)a : a);
    } else if (has_base(i) && based_address(t, i)) {
        return;
    } else {
        struct mem m = registers_of(t, i);
        if (i->addrsize == 4) {
            emit_lea32(c, S0, m);
        } else {
            emit_lea(c, S0, m);
        }
    }
    if (has_base(i)) {
        emit_load(c, 8, S1, base_slot(i->seg));
        if (t->code64) {
            emit_lea(c, S0, MEM_SUM(S0, S1));
        } else {
            emit_lea32(c, S0, MEM_SUM(S0, S1));
        }
    }
}

bool memory_operand(struct tr *t, const struct insn *i, unsigned size, bool write, struct mem *out)
{
    if (!has_base(i) && i->base < 0 && i->index < 0) {
        uint64_t a = (uint64_t)i->disp + (i->rip_relative ? next_pc(t) : 0);
        if (i->rip_relative && floats(t)) {
            return i->addrsize == 8 && floating_operand(t, a, size, write, out);
        }
        return constant_operand(t, i->addrsize == 4 ? (uint32_t)a : a, size, write, out);
    }
    if (!has_base(i) && i->addrsize == 8 && i->index < 0 && !stolen(i->base)) {
        *out = memory_near(t, (unsigned)i->base, (int32_t)i->disp, size, write);
        return true;
    }
    memory_address(t, i);
    memory_probe(t, size, write);
    *out = MEM_SUM(S0, S1);
    return true;
}
