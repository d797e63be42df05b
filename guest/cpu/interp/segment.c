/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * segment: descriptors, segment registers, and the instructions that ask about them.
 *
 * Spec: Intel SDM, volume 3A, "Protected-Mode Memory Management": "Segment Descriptors",
 * "Segment Registers"; volume 2, "MOV", "LDS/LES/LFS/LGS/LSS", "LAR", "LSL", "VERR/VERW",
 * "ARPL", "LLDT", "LTR", "LGDT/LIDT", "SLDT", "STR", "SGDT", "SIDT".
 */
#include "guest/cpu/interp/system.h"
#include "guest/cpu/models.h"

/* ---- descriptors ---- */

bool descriptor_fetch(struct vcpu *cpu, uint16_t selector, struct descriptor *out)
{
    uint64_t base = cpu->r.gdt.base;
    uint32_t limit = cpu->r.gdt.limit;
    if (selector & SELECTOR_TI) {
        base = cpu->r.ldt.base;
        limit = cpu->r.ldt.attr & SEG_UNUSABLE ? 0 : cpu->r.ldt.limit;
    }
    if ((uint32_t)(selector | 7) > limit) {
        return false;
    }
    out->at = base + (selector & ~7u);
    uint64_t raw = sys_load(cpu, out->at, 8);
    out->low = (uint32_t)raw;
    out->high = (uint32_t)(raw >> 32);
    out->attr = out->high >> 8 & 0xf0ff;
    out->base = (out->low >> 16) | (out->high & 0xff) << 16 | (out->high & 0xff000000);
    out->limit = (out->low & 0xffff) | (out->high & 0xf0000);
    if (out->attr & SEG_G) {
        out->limit = out->limit << 12 | 0xfff;
    }
    return true;
}

void descriptor_need(struct vcpu *cpu, uint16_t selector, enum vector vector, unsigned ext,
                     struct descriptor *out)
{
    if (!(selector & ~3u)) {
        cpu_raise_code(cpu, vector, ext);
    }
    if (!descriptor_fetch(cpu, selector, out)) {
        cpu_raise_code(cpu, vector, (selector & ~3u) | ext);
    }
}

void descriptor_set_accessed(struct vcpu *cpu, struct descriptor *d)
{
    if (!(d->attr & 1)) {
        d->attr |= 1;
        d->high |= 1 << 8;
        sys_store(cpu, d->at + 5, d->high >> 8 & 0xff, 1);
    }
}

/* The second half of a 16-byte system descriptor: bits 32 to 63 of the base. */
static void widen(struct vcpu *cpu, uint16_t selector, struct descriptor *d)
{
    struct descriptor upper;
    if (!vcpu_long_mode(cpu)) {
        return;
    }
    uint32_t limit = selector & SELECTOR_TI ? cpu->r.ldt.limit : cpu->r.gdt.limit;
    if ((uint32_t)(selector & ~7u) + 15 > limit) {
        cpu_raise_code(cpu, VEC_GP, selector & ~3u);
    }
    uint64_t raw = sys_load(cpu, d->at + 8, 8);
    upper.high = (uint32_t)(raw >> 32);
    d->base |= raw << 32;
    if (upper.high & 0x1f00) {
        cpu_raise_code(cpu, VEC_GP, selector & ~3u);
    }
    if (!is_canonical(d->base)) {
        cpu_raise_code(cpu, VEC_GP, selector & ~3u);
    }
}

void segment_set(struct segment *s, uint16_t selector, const struct descriptor *d)
{
    *s = (struct segment){.base = d->base, .limit = d->limit, .attr = d->attr,
                          .selector = selector};
}

void segment_set_null(struct segment *s, uint16_t selector)
{
    uint32_t dpl = s->attr & (3u << SEG_DPL_SHIFT); /* SS's DPL is the CPL */
    *s = (struct segment){.attr = SEG_UNUSABLE | dpl, .selector = selector};
}

/* In real mode limit and attributes stay what protected mode left there ("unreal"). */
void segment_set_real(struct vcpu *cpu, enum seg_name seg, uint16_t selector)
{
    struct segment *s = &cpu->r.seg[seg];
    s->selector = selector;
    s->base = (uint64_t)selector << 4;
    if (cpu_v86(cpu)) {
        s->limit = 0xffff;
        s->attr = 0xf3;
    } else {
        s->attr = (s->attr & (SEG_G | SEG_DB)) | (seg == SEG_CS ? 0x9b : 0x93);
    }
}

/* ---- loading ---- */

static void load_ss(struct vcpu *cpu, uint16_t selector)
{
    unsigned cpl = vcpu_cpl(cpu);
    struct descriptor d;
    if (!(selector & ~3u) && vcpu_code64(cpu) && cpl < 3 && (selector & 3) == cpl) {
        segment_set_null(&cpu->r.seg[SEG_SS], selector);
        return;
    }
    check_stack_segment(cpu, selector, cpl, VEC_GP, 0, &d);
    descriptor_set_accessed(cpu, &d);
    segment_set(&cpu->r.seg[SEG_SS], selector, &d);
}

void check_stack_segment(struct vcpu *cpu, uint16_t selector, unsigned cpl, enum vector vector,
                         unsigned ext, struct descriptor *out)
{
    uint32_t code = (selector & ~3u) | ext;
    descriptor_need(cpu, selector, vector, ext, out);
    if ((selector & 3) != cpl || !desc_is_writable_data(out) || desc_dpl(out) != cpl) {
        cpu_raise_code(cpu, vector, code);
    }
    if (!(out->attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_SS, code);
    }
}

void cpu_load_segment(struct vcpu *cpu, enum seg_name seg, uint16_t selector)
{
    struct descriptor d;
    if (cpu_real_mode(cpu) || cpu_v86(cpu)) {
        segment_set_real(cpu, seg, selector);
        return;
    }
    if (seg == SEG_SS) {
        load_ss(cpu, selector);
        return;
    }
    if (!(selector & ~3u)) {
        segment_set_null(&cpu->r.seg[seg], selector);
        return;
    }
    descriptor_need(cpu, selector, VEC_GP, 0, &d);
    bool code = d.attr & TYPE_IS_CODE;
    if (!(d.attr & SEG_S) || (code && !(d.attr & CODE_READ))) {
        cpu_raise_code(cpu, VEC_GP, selector & ~3u);
    }
    unsigned rpl = selector & 3, cpl = vcpu_cpl(cpu);
    if (!(code && (d.attr & CODE_CONFORMING)) && MAX(rpl, cpl) > desc_dpl(&d)) {
        cpu_raise_code(cpu, VEC_GP, selector & ~3u);
    }
    if (!(d.attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, selector & ~3u);
    }
    descriptor_set_accessed(cpu, &d);
    segment_set(&cpu->r.seg[seg], selector, &d);
}

void load_code_segment(struct vcpu *cpu, uint16_t selector, struct descriptor *d, unsigned cpl)
{
    descriptor_set_accessed(cpu, d);
    segment_set(&cpu->r.seg[SEG_CS], (uint16_t)((selector & ~3u) | cpl), d);
}

/* ---- instructions ---- */

static uint64_t rm_read(struct vcpu *cpu, const struct insn *i, unsigned bytes)
{
    return i->mem ? mem_load(cpu, interp_linear(cpu, i, bytes, false), bytes)
                  : reg_read(cpu, i, i->rm, bytes);
}

/* To a register with operand size, to memory always 16 bits. */
static void rm_write_selector(struct vcpu *cpu, const struct insn *i, uint16_t v)
{
    if (i->mem) {
        mem_store(cpu, interp_linear(cpu, i, 2, true), v, 2);
    } else {
        reg_write(cpu, i, i->rm, i->opsize, v);
    }
}

static void do_mov_from_sreg(struct vcpu *cpu, const struct insn *i)
{
    if (i->reg >= SEG_COUNT) {
        cpu_raise(cpu, VEC_UD);
    }
    rm_write_selector(cpu, i, cpu->r.seg[i->reg].selector);
}

static void do_mov_to_sreg(struct vcpu *cpu, const struct insn *i)
{
    if (i->reg >= SEG_COUNT || i->reg == SEG_CS) {
        cpu_raise(cpu, VEC_UD);
    }
    cpu_load_segment(cpu, (enum seg_name)i->reg, (uint16_t)rm_read(cpu, i, 2));
    if (i->reg == SEG_SS) {
        cpu->r.shadow = SHADOW_MOV_SS;
    }
}

static void load_far_pointer(struct vcpu *cpu, const struct insn *i, enum seg_name seg)
{
    uint64_t at = interp_linear(cpu, i, i->opsize + 2u, false);
    uint64_t offset = mem_load(cpu, at, i->opsize);
    cpu_load_segment(cpu, seg, (uint16_t)mem_load(cpu, at + i->opsize, 2));
    reg_write(cpu, i, i->reg, i->opsize, offset);
}

static void do_les(struct vcpu *cpu, const struct insn *i)
{
    load_far_pointer(cpu, i, SEG_ES);
}

static void do_lds(struct vcpu *cpu, const struct insn *i)
{
    load_far_pointer(cpu, i, SEG_DS);
}

static void do_lss(struct vcpu *cpu, const struct insn *i)
{
    load_far_pointer(cpu, i, SEG_SS);
}

static void do_lfs(struct vcpu *cpu, const struct insn *i)
{
    load_far_pointer(cpu, i, SEG_FS);
}

static void do_lgs(struct vcpu *cpu, const struct insn *i)
{
    load_far_pointer(cpu, i, SEG_GS);
}

/* LDTR and TR exist in protected mode only. */
static void need_protected(struct vcpu *cpu)
{
    if (cpu_real_mode(cpu) || cpu_v86(cpu)) {
        cpu_raise(cpu, VEC_UD);
    }
}

static void check_umip(struct vcpu *cpu)
{
    if ((cpu->r.cr4 & CR4_UMIP) && vcpu_cpl(cpu) > 0) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
}

static void do_sldt(struct vcpu *cpu, const struct insn *i)
{
    need_protected(cpu);
    check_umip(cpu);
    rm_write_selector(cpu, i, cpu->r.ldt.selector);
}

static void do_str(struct vcpu *cpu, const struct insn *i)
{
    need_protected(cpu);
    check_umip(cpu);
    rm_write_selector(cpu, i, cpu->r.tr.selector);
}

static void do_smsw(struct vcpu *cpu, const struct insn *i)
{
    check_umip(cpu);
    if (i->mem) {
        mem_store(cpu, interp_linear(cpu, i, 2, true), cpu->r.cr0, 2);
    } else {
        reg_write(cpu, i, i->rm, i->opsize, cpu->r.cr0);
    }
}

static void need_cpl0(struct vcpu *cpu)
{
    if (vcpu_cpl(cpu)) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
}

static void do_lldt(struct vcpu *cpu, const struct insn *i)
{
    struct descriptor d;
    need_protected(cpu);
    need_cpl0(cpu);
    uint16_t selector = (uint16_t)rm_read(cpu, i, 2);
    if (!(selector & ~3u)) {
        cpu->r.ldt = (struct segment){.attr = SEG_UNUSABLE, .selector = selector};
        return;
    }
    if ((selector & SELECTOR_TI) || !descriptor_fetch(cpu, selector, &d) ||
        desc_type(&d) != DESC_LDT) {
        cpu_raise_code(cpu, VEC_GP, selector & ~3u);
    }
    if (!(d.attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, selector & ~3u);
    }
    widen(cpu, selector, &d);
    segment_set(&cpu->r.ldt, selector, &d);
}

static void do_ltr(struct vcpu *cpu, const struct insn *i)
{
    struct descriptor d;
    need_protected(cpu);
    need_cpl0(cpu);
    uint16_t selector = (uint16_t)rm_read(cpu, i, 2);
    if (!(selector & ~3u)) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    if ((selector & SELECTOR_TI) || !descriptor_fetch(cpu, selector, &d) ||
        (desc_type(&d) != DESC_TSS && (vcpu_long_mode(cpu) || desc_type(&d) != DESC_TSS16))) {
        cpu_raise_code(cpu, VEC_GP, selector & ~3u);
    }
    if (!(d.attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, selector & ~3u);
    }
    widen(cpu, selector, &d);
    d.attr |= 2; /* busy */
    sys_store(cpu, d.at + 5, d.attr & 0xff, 1);
    segment_set(&cpu->r.tr, selector, &d);
}

static void store_table(struct vcpu *cpu, const struct insn *i, const struct table_register *t)
{
    unsigned bytes = vcpu_code64(cpu) ? 8 : 4;
    uint8_t image[10];
    check_umip(cpu);
    memcpy(image, &t->limit, 2);
    memcpy(image + 2, &t->base, bytes);
    mem_write(cpu, interp_linear(cpu, i, bytes + 2, true), image, bytes + 2);
}

static void load_table(struct vcpu *cpu, const struct insn *i, struct table_register *t)
{
    unsigned bytes = vcpu_code64(cpu) ? 8 : 4;
    uint64_t at = interp_linear(cpu, i, bytes + 2, false);
    uint16_t limit = (uint16_t)mem_load(cpu, at, 2);
    uint64_t base = mem_load(cpu, at + 2, bytes);
    if (bytes == 4 && i->opsize == 2) {
        base &= 0xffffff;
    }
    if (!is_canonical(base) && bytes == 8) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    t->limit = limit;
    t->base = base;
}

static void do_sgdt(struct vcpu *cpu, const struct insn *i)
{
    store_table(cpu, i, &cpu->r.gdt);
}

static void do_sidt(struct vcpu *cpu, const struct insn *i)
{
    store_table(cpu, i, &cpu->r.idt);
}

static void do_lgdt(struct vcpu *cpu, const struct insn *i)
{
    need_cpl0(cpu);
    load_table(cpu, i, &cpu->r.gdt);
}

static void do_lidt(struct vcpu *cpu, const struct insn *i)
{
    need_cpl0(cpu);
    load_table(cpu, i, &cpu->r.idt);
}

static void set_zf(struct vcpu *cpu, bool on)
{
    cpu->r.rflags = on ? cpu->r.rflags | FLAG_ZF : cpu->r.rflags & ~(uint64_t)FLAG_ZF;
}

/* Fetches for LAR, LSL, VERR, VERW: which only clear ZF where a load would fault. */
static bool visible(struct vcpu *cpu, const struct insn *i, struct descriptor *d)
{
    need_protected(cpu);
    uint16_t selector = (uint16_t)rm_read(cpu, i, 2);
    if (!(selector & ~3u) || !descriptor_fetch(cpu, selector, d)) {
        return false;
    }
    unsigned level = MAX((unsigned)(selector & 3), vcpu_cpl(cpu));
    return (desc_is_code(d) && (d->attr & CODE_CONFORMING)) || level <= desc_dpl(d);
}

/* System types that LAR and LSL know, one bit each. */
enum {
    LAR_TYPES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 11 | 1 << 12,
    LSL_TYPES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11,
    LAR_TYPES_LONG = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12,
    LSL_TYPES_LONG = 1 << 2 | 1 << 9 | 1 << 11,
};

static bool known(struct vcpu *cpu, const struct descriptor *d, unsigned types, unsigned types_long)
{
    return (d->attr & SEG_S) || (vcpu_long_mode(cpu) ? types_long : types) >> desc_type(d) & 1;
}

static void do_lar(struct vcpu *cpu, const struct insn *i)
{
    struct descriptor d;
    bool ok = visible(cpu, i, &d) && known(cpu, &d, LAR_TYPES, LAR_TYPES_LONG);
    if (ok) {
        reg_write(cpu, i, i->reg, i->opsize, d.high & 0x00f0ff00);
    }
    set_zf(cpu, ok);
}

static void do_lsl(struct vcpu *cpu, const struct insn *i)
{
    struct descriptor d;
    bool ok = visible(cpu, i, &d) && known(cpu, &d, LSL_TYPES, LSL_TYPES_LONG);
    if (ok) {
        reg_write(cpu, i, i->reg, i->opsize, d.limit);
    }
    set_zf(cpu, ok);
}

static void do_verr(struct vcpu *cpu, const struct insn *i)
{
    struct descriptor d;
    set_zf(cpu, visible(cpu, i, &d) && (d.attr & SEG_S) &&
                    (!(d.attr & TYPE_IS_CODE) || (d.attr & CODE_READ)));
}

static void do_verw(struct vcpu *cpu, const struct insn *i)
{
    struct descriptor d;
    set_zf(cpu, visible(cpu, i, &d) && desc_is_writable_data(&d));
}

static void do_arpl(struct vcpu *cpu, const struct insn *i)
{
    need_protected(cpu);
    uint64_t at = i->mem ? interp_linear(cpu, i, 2, true) : 0;
    uint16_t dst = (uint16_t)(i->mem ? mem_load_rmw(cpu, at, 2) : reg_read(cpu, i, i->rm, 2));
    uint16_t src = (uint16_t)reg_read(cpu, i, i->reg, 2);
    bool raise = (dst & 3) < (src & 3);
    if (raise) {
        dst = (uint16_t)((dst & ~3) | (src & 3));
        if (i->mem) {
            mem_store(cpu, at, dst, 2);
        } else {
            reg_write(cpu, i, i->rm, 2, dst);
        }
    }
    set_zf(cpu, raise);
}

static const struct interp_row interp_segment_rows[] = {
    {OP_MOV_FROM_SREG, do_mov_from_sreg}, {OP_MOV_TO_SREG, do_mov_to_sreg},
    {OP_LES, do_les}, {OP_LDS, do_lds}, {OP_LSS, do_lss}, {OP_LFS, do_lfs}, {OP_LGS, do_lgs},
    {OP_SLDT, do_sldt}, {OP_STR, do_str}, {OP_SMSW, do_smsw}, {OP_LLDT, do_lldt},
    {OP_LTR, do_ltr}, {OP_SGDT, do_sgdt}, {OP_SIDT, do_sidt}, {OP_LGDT, do_lgdt},
    {OP_LIDT, do_lidt}, {OP_LAR, do_lar}, {OP_LSL, do_lsl}, {OP_VERR, do_verr},
    {OP_VERW, do_verw}, {OP_ARPL, do_arpl},
};
INTERP_TABLE(interp_segment);
