/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * insns: instructions that are copied, with their memory operand and the stolen registers
 * replaced.
 */
#include "guest/cpu/translate/translate.h"

#include <string.h>

/* Guest registers of one instruction that need a scratch register. */
struct data_regs {
    unsigned n;
    uint8_t guest[3], host[3];
    uint8_t read, written; /* bit k: .guest[k] */
};

static void add_reg(const struct insn *i, struct data_regs *d, unsigned guest, unsigned operand)
{
    unsigned access = i->desc->access[operand], k = 0;
    if (!stolen((int)guest)) {
        return;
    }
    if ((access & MEM_WRITE) && insn_size(i, i->desc->bytes[operand]) < 4) {
        access |= MEM_READ; /* the rest of the register stays */
    }
    while (k < d->n && d->guest[k] != guest) {
        k++;
    }
    d->guest[k] = (uint8_t)guest;
    d->read |= (uint8_t)(access & MEM_READ ? 1 << k : 0);
    d->written |= (uint8_t)(access & MEM_WRITE ? 1 << k : 0);
    d->n = k == d->n ? k + 1 : d->n;
}

static void find_data_regs(const struct insn *i, struct data_regs *d)
{
    *d = (struct data_regs){.n = 0};
    for (unsigned k = 0; k < 4; k++) {
        switch (i->desc->operand[k]) {
        case OPD_REG:
            add_reg(i, d, i->reg, k);
            break;
        case OPD_RM:
            if (!i->mem) {
                add_reg(i, d, i->rm, k);
            }
            break;
        case OPD_VVVV:
            if (i->desc->class == CLASS_BMI) {
                add_reg(i, d, i->vvvv, k);
            }
            break;
        default:
            break;
        }
    }
}

static uint8_t host_reg(const struct data_regs *d, unsigned guest)
{
    for (unsigned k = 0; k < d->n; k++) {
        if (d->guest[k] == guest) {
            return d->host[k];
        }
    }
    return (uint8_t)guest;
}

static void substitute(const struct insn *i, const struct data_regs *d, struct host_form *f)
{
    for (unsigned k = 0; k < 4; k++) {
        switch (i->desc->operand[k]) {
        case OPD_REG:
            f->reg = host_reg(d, i->reg);
            break;
        case OPD_RM:
            f->rm = i->mem ? f->rm : host_reg(d, i->rm);
            break;
        case OPD_VVVV:
            f->vvvv = i->desc->class == CLASS_BMI ? host_reg(d, i->vvvv) : f->vvvv;
            break;
        default:
            break;
        }
    }
}

/* Gives the data registers scratch registers; a memory operand in two of them is folded. */
static bool choose_scratch(struct tr *t, struct data_regs *d, struct host_form *f)
{
    static const uint8_t order[3] = {S2, S1, S0};
    if (f->mem && d->n > 1) {
        if (d->n > 2) {
            return false;
        }
        emit_lea(&t->hot, S0, f->m);
        f->m = MEM_BASE(S0, 0);
    }
    for (unsigned k = 0; k < d->n; k++) {
        d->host[k] = order[k];
    }
    return true;
}

/* The guest's flags in place for an instruction that reads some or keeps some. */
static void flags_before(struct tr *t, const struct insn *i)
{
    uint32_t read = i->desc->flags_read & FLAGS_ARITH;
    uint32_t written = i->desc->flags_written & FLAGS_ARITH;
    if (read || (written && (t->live[t->at + 1] & FLAGS_ARITH & ~written))) {
        flags_restore(t);
    }
}

void point_saved(struct tr *t)
{
    struct point *p = &t->point[t->n_points - 1];
    p->guest = (uint16_t)((p->guest & ~POINT_SAVED) | (t->saved ? POINT_SAVED : 0));
}

/*
 * AH, CH, DH or BH beside a memory operand, which needs a REX prefix, with which they have no
 * name: the number of the operand, or -1.  Such an instruction is executed with S2 instead.
 */
static int high_byte_operand(const struct insn *i)
{
    for (int k = 0; k < 4 && i->mem && !(i->prefixes & PFX_REX); k++) {
        if (i->desc->operand[k] == OPD_REG && i->desc->bytes[k] == 1 && i->reg >= 4) {
            return k;
        }
    }
    return -1;
}

static bool emit_high_byte(struct tr *t, const struct insn *i, struct host_form *f, bool written)
{
    struct code *c = &t->hot;
    unsigned whole = i->reg - 4u;
    f->reg = S2;
    emit_rorx(c, S2, whole, 8);
    if (!encode(c, i, f)) {
        return false;
    }
    if (written) {
        emit_rorx(c, whole, whole, 8);
        emit_mov8(c, whole, S2);
        emit_rorx(c, whole, whole, 56);
    }
    return true;
}

static bool emit_copied(struct tr *t, const struct insn *i)
{
    struct host_form f = host_form_of(i);
    struct data_regs d;
    find_data_regs(i, &d);
    if (i->mem) {
        unsigned size = insn_mem_bytes(i);
        if (!size || i->desc->mem == MEM_ADDRESS || !memory_operand(t, i, size, i->desc->mem & MEM_WRITE, &f.m)) {
            return false;
        }
        f.mem = true;
    }
    if (!choose_scratch(t, &d, &f)) {
        return false;
    }
    flags_before(t, i);
    point_saved(t);
    substitute(i, &d, &f);
    for (unsigned k = 0; k < d.n; k++) {
        if (d.read >> k & 1) {
            load_guest(t, d.host[k], d.guest[k]);
        }
    }
    int high = high_byte_operand(i);
    if (high >= 0 ? !emit_high_byte(t, i, &f, i->desc->access[high] & MEM_WRITE)
                  : !encode(&t->hot, i, &f)) {
        return false;
    }
    for (unsigned k = 0; k < d.n; k++) {
        if (d.written >> k & 1) {
            store_guest(t, d.guest[k], d.host[k]);
        }
    }
    if (i->desc->flags_written & FLAGS_ARITH) {
        t->saved = false;
    }
    return true;
}

static bool emit_lea_insn(struct tr *t, const struct insn *i)
{
    struct insn plain = *i;
    if (i->opsize == 2 || i->addrsize == 2) {
        return false;
    }
    plain.seg = SEG_DS;
    if (!stolen(i->reg) && !stolen(i->base) && !stolen(i->index) && !i->rip_relative &&
        i->addrsize == 8) {
        struct mem m = {.base = i->base, .index = i->index, .scale = i->scale,
                        .disp = (int32_t)i->disp};
        if (i->opsize == 8) {
            emit_lea(&t->hot, i->reg, m);
        } else {
            emit_lea32(&t->hot, i->reg, m);
        }
        return true;
    }
    memory_address(t, &plain);
    if (i->opsize == 4) {
        emit_mov32(&t->hot, S0, S0);
    }
    store_guest(t, i->reg, S0);
    return true;
}

/* A cache line is written back: nothing to do, but the address has to be right. */
static bool touch(struct tr *t, const struct insn *i)
{
    struct mem m;
    if (!memory_operand(t, i, 1, false, &m)) {
        return false;
    }
    emit_load(&t->hot, 1, S2, m);
    return true;
}

static bool emit_integer(struct tr *t, const struct insn *i)
{
    switch (i->op) {
    case OP_LEA:
        return emit_lea_insn(t, i);
    case OP_NOP:
    case OP_PAUSE:
    case OP_PREFETCH:
        return true;
    case OP_CLFLUSH:
    case OP_CLFLUSHOPT:
    case OP_CLWB:
        return touch(t, i);
    case OP_CLD:
    case OP_STD:
        emit_store_imm(&t->hot, 1, SLOT(df), i->op == OP_STD);
        return true;
    case OP_ENTER:
    case OP_BOUND:
        return false;
    default:
        return emit_copied(t, i);
    }
}

/* Code before the first instruction that uses x87 or vector registers. */
static void fp_need(struct tr *t, const struct insn *i)
{
    uint8_t need = i->desc->class == CLASS_AVX ? FP_AVX
                 : i->desc->class == CLASS_SSE ? FP_SSE
                                               : FP_X87;
    if (t->fp & need) {
        return;
    }
    flags_free(t);
    t->in_s1 = 0; /* the helper's */
    struct stub *s = stub_new(t, STUB_FP);
    s->fp = need;
    s->saved = t->saved;
    emit_test_mem8_imm(&t->hot, SLOT(fp_ok), need);
    emit_jcc(&t->hot, CC_E, t->hot.at);
    s->miss = t->hot.at - 4;
    s->retry = t->hot.at;
    t->fp |= need;
    t->fp_used = true;
}

static bool feature_offered(const struct tr *t, const struct insn *i)
{
    static const struct cpu_model *of; /* the cache lock is held */
    static uint8_t known[256];         /* 1 no, 2 yes */
    if (of != t->cpu->model) {
        of = t->cpu->model;
        memset(known, 0, sizeof(known));
    }
    uint8_t *k = &known[i->desc->cpuid];
    if (!*k) {
        *k = !i->desc->cpuid || model_offers(of, cpu_feature_names[i->desc->cpuid]) ? 2 : 1;
    }
    return *k == 2;
}

/* bt, bts, btr, btc with a bit number in a register, which reaches beyond the operand. */
static bool bit_in_memory(struct tr *t, const struct insn *i)
{
    struct code *c = &t->hot;
    struct host_form f = host_form_of(i);
    unsigned shift = i->opsize == 8 ? 6 : 5;
    if (i->opsize < 4 || i->seg == SEG_FS || i->seg == SEG_GS) {
        return false;
    }
    flags_free(t);
    memory_address(t, i);
    load_guest(t, S2, i->reg);
    if (i->opsize == 4) {
        emit_movsxd(c, S2, S2);
    }
    emit_sar(c, S2, shift);
    emit_lea(c, S0, (struct mem){.base = S0, .index = S2, .scale = (uint8_t)(shift - 3)});
    if (i->addrsize == 4) {
        emit_mov32(c, S0, S0);
    }
    memory_probe(t, i->opsize, i->desc->mem & MEM_WRITE);
    load_guest(t, S2, i->reg);
    emit_and32_imm(c, S2, i->opsize == 8 ? 63 : 31);
    emit_store(c, 8, SLOT(temp), S2);
    flags_before(t, i);
    emit_load(c, 8, S2, SLOT(temp));
    point_saved(t);
    f.mem = true;
    f.m = MEM_SUM(S0, S1);
    f.reg = S2;
    t->saved = false;
    return encode(c, i, &f);
}

static bool is_bit_op(const struct insn *i)
{
    return i->op == OP_BT || i->op == OP_BTS || i->op == OP_BTR || i->op == OP_BTC;
}

bool emit_insn(struct tr *t, const struct insn *i)
{
    bool odd = (i->desc->bits & INSN_ODD_MEM) && !is_bit_op(i);
    if (odd || (i->desc->bits & INSN_VSIB) || i->addrsize == 2 ||
        i->encoding == ENC_EVEX || !feature_offered(t, i) ||
        ((i->prefixes & PFX_LOCK) && !(i->mem && (i->desc->bits & INSN_LOCKABLE)))) {
        return false;
    }
    if (!t->code64 && i->mem &&
        (i->seg == SEG_CS || (i->seg == SEG_FS && !(t->block->flags & BLOCK_FS)) ||
         (i->seg == SEG_GS && !(t->block->flags & BLOCK_GS)))) {
        return false; /* with a limit, or not writable */
    }
    if (!t->code64 && (i->op == OP_VZEROUPPER || i->op == OP_VZEROALL)) {
        return false; /* here it would clear registers that 32-bit code does not have */
    }
    if ((i->desc->bits & INSN_ODD_MEM) && is_bit_op(i) && i->mem) {
        return bit_in_memory(t, i);
    }
    switch (i->desc->class) {
    case CLASS_INTEGER:
        return emit_integer(t, i);
    case CLASS_BMI:
        return emit_copied(t, i);
    case CLASS_BRANCH:
        return emit_branch(t, i);
    case CLASS_INDIRECT:
        return emit_indirect(t, i);
    case CLASS_STACK:
        return emit_stack(t, i);
    case CLASS_STRING:
        return emit_string(t, i);
    case CLASS_X87:
    case CLASS_MMX:
    case CLASS_SSE:
    case CLASS_AVX:
        fp_need(t, i);
        return emit_copied(t, i);
    case CLASS_SYSTEM:
    case CLASS_FAR:
        return emit_system(t, i);
    default:
        return false;
    }
}
