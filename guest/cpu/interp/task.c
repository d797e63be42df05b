/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * task: hardware task switches.
 *
 * Spec: Intel SDM, volume 3A, "Task Management": "Task Switching", "Task Linking",
 * "16-Bit Task-State Segment (TSS)".
 */
#include "guest/cpu/debug.h"
#include "guest/cpu/interp/system.h"
#include "guest/cpu/paging.h"

/* The dynamic part of a TSS, in the order of the 32-bit form. */
struct tss {
    uint32_t cr3, eip, eflags, gpr[8], seg[6], ldt, trap;
};
enum { TSS32_MIN = 0x67, TSS16_MIN = 0x2b, TSS32_CR3 = 0x1c, TSS32_EIP = 0x20, TSS16_IP = 0x0e };

static void read_tss(struct vcpu *cpu, uint64_t base, bool wide, struct tss *t)
{
    memset(t, 0, sizeof(*t));
    if (wide) {
        uint32_t *to[] = {&t->cr3, &t->eip, &t->eflags};
        for (unsigned i = 0; i < 3; i++) {
            *to[i] = (uint32_t)sys_load(cpu, base + TSS32_CR3 + i * 4, 4);
        }
        for (unsigned i = 0; i < 8; i++) {
            t->gpr[i] = (uint32_t)sys_load(cpu, base + 0x28 + i * 4, 4);
        }
        for (unsigned i = 0; i < 6; i++) {
            t->seg[i] = (uint32_t)sys_load(cpu, base + 0x48 + i * 4, 2);
        }
        t->ldt = (uint32_t)sys_load(cpu, base + 0x60, 2);
        t->trap = (uint32_t)sys_load(cpu, base + 0x64, 1) & 1;
        return;
    }
    t->eip = (uint32_t)sys_load(cpu, base + TSS16_IP, 2);
    t->eflags = (uint32_t)sys_load(cpu, base + 0x10, 2);
    for (unsigned i = 0; i < 8; i++) {
        t->gpr[i] = (uint32_t)sys_load(cpu, base + 0x12 + i * 2, 2) | 0xffff0000;
    }
    for (unsigned i = 0; i < 4; i++) {
        t->seg[i] = (uint32_t)sys_load(cpu, base + 0x22 + i * 2, 2);
    }
    t->ldt = (uint32_t)sys_load(cpu, base + 0x2a, 2);
}

static void save_old(struct vcpu *cpu, uint64_t next, uint64_t flags)
{
    uint64_t base = cpu->r.tr.base;
    bool wide = cpu->r.tr.attr & 8;
    unsigned size = wide ? 4 : 2;
    uint64_t at = base + (wide ? TSS32_EIP : TSS16_IP);
    sys_store(cpu, at, next, size);
    sys_store(cpu, at + size, flags, size);
    for (unsigned i = 0; i < 8; i++) {
        sys_store(cpu, at + size * (2 + i), cpu->r.gpr[i], size);
    }
    for (unsigned i = 0; i < (wide ? 6 : 4); i++) {
        sys_store(cpu, at + size * (10 + i), cpu->r.seg[i].selector, 2);
    }
}

static void set_busy(struct vcpu *cpu, uint16_t selector, bool busy)
{
    struct descriptor d;
    if (descriptor_fetch(cpu, selector, &d)) {
        uint32_t byte = d.high >> 8 & 0xff;
        sys_store(cpu, d.at + 5, busy ? byte | 2 : byte & ~2u, 1);
    }
}

static void load_ldt(struct vcpu *cpu, uint16_t selector)
{
    struct descriptor d;
    cpu->r.ldt = (struct segment){.attr = SEG_UNUSABLE, .selector = selector};
    if (!(selector & ~3u)) {
        return;
    }
    if ((selector & SELECTOR_TI) || !descriptor_fetch(cpu, selector, &d) ||
        desc_type(&d) != DESC_LDT || !(d.attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_TS, selector & ~3u);
    }
    segment_set(&cpu->r.ldt, selector, &d);
}

static void load_task_cs(struct vcpu *cpu, uint16_t selector)
{
    struct descriptor d;
    unsigned rpl = selector & 3;
    descriptor_need(cpu, selector, VEC_TS, 0, &d);
    bool conforming = d.attr & CODE_CONFORMING;
    if (!desc_is_code(&d) || (conforming ? desc_dpl(&d) > rpl : desc_dpl(&d) != rpl)) {
        cpu_raise_code(cpu, VEC_TS, selector & ~3u);
    }
    if (!(d.attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, selector & ~3u);
    }
    load_code_segment(cpu, selector, &d, rpl);
}

static void load_task_data(struct vcpu *cpu, enum seg_name seg, uint16_t selector, unsigned cpl)
{
    struct descriptor d;
    if (!(selector & ~3u)) {
        segment_set_null(&cpu->r.seg[seg], selector);
        return;
    }
    descriptor_need(cpu, selector, VEC_TS, 0, &d);
    bool code = d.attr & TYPE_IS_CODE;
    bool conforming = code && (d.attr & CODE_CONFORMING);
    if (!(d.attr & SEG_S) || (code && !(d.attr & CODE_READ)) ||
        (!conforming && MAX((unsigned)(selector & 3), cpl) > desc_dpl(&d))) {
        cpu_raise_code(cpu, VEC_TS, selector & ~3u);
    }
    if (!(d.attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, selector & ~3u);
    }
    descriptor_set_accessed(cpu, &d);
    segment_set(&cpu->r.seg[seg], selector, &d);
}

/* The new task's segments: faults now belong to the new task. */
static void load_task_segments(struct vcpu *cpu, const struct tss *t)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) { /* what faults shows as null */
        segment_set_null(&cpu->r.seg[i], (uint16_t)t->seg[i]);
    }
    cpu->r.ldt = (struct segment){.attr = SEG_UNUSABLE, .selector = (uint16_t)t->ldt};
    if (t->eflags & FLAG_VM) {
        cpu->r.rflags |= FLAG_VM;
        for (unsigned i = 0; i < SEG_COUNT; i++) {
            segment_set_real(cpu, (enum seg_name)i, (uint16_t)t->seg[i]);
        }
        load_ldt(cpu, (uint16_t)t->ldt);
        return;
    }
    unsigned cpl = t->seg[SEG_CS] & 3;
    struct descriptor ss;
    cpu_set_cpl(cpu, cpl);
    load_ldt(cpu, (uint16_t)t->ldt);
    load_task_cs(cpu, (uint16_t)t->seg[SEG_CS]);
    check_stack_segment(cpu, (uint16_t)t->seg[SEG_SS], cpl, VEC_TS, 0, &ss);
    descriptor_set_accessed(cpu, &ss);
    segment_set(&cpu->r.seg[SEG_SS], (uint16_t)t->seg[SEG_SS], &ss);
    static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < G_N_ELEMENTS(data); i++) {
        load_task_data(cpu, (enum seg_name)data[i], (uint16_t)t->seg[data[i]], cpl);
    }
}

static void push_code(struct vcpu *cpu, uint32_t code, bool wide)
{
    uint64_t next = cpu->next_rip;
    stack_push(cpu, code, wide ? 4 : 2);
    cpu->next_rip = next;
}

void task_switch(struct vcpu *cpu, uint16_t selector, const struct descriptor *desc,
                 enum task_reason reason, uint64_t next, bool has_code, uint32_t code)
{
    bool wide = desc->attr & 8, old_wide = cpu->r.tr.attr & 8;
    uint64_t flags = cpu->r.rflags;
    struct tss t;
    if (desc->limit < (wide ? TSS32_MIN : TSS16_MIN)) {
        cpu_raise_code(cpu, VEC_TS, selector & ~3u);
    }
    /* Everything in memory that is needed is touched before anything is changed. */
    sys_probe(cpu, cpu->r.tr.base, old_wide ? TSS32_MIN + 1 : TSS16_MIN + 1, true);
    sys_probe(cpu, desc->base, wide ? TSS32_MIN + 1 : TSS16_MIN + 1, true);
    read_tss(cpu, desc->base, wide, &t);
    if (reason == TASK_JMP || reason == TASK_IRET) {
        set_busy(cpu, cpu->r.tr.selector, false);
    }
    if (reason == TASK_IRET) {
        flags &= ~(uint64_t)FLAG_NT;
    }
    save_old(cpu, next, flags);
    uint16_t link = cpu->r.tr.selector;
    if (reason == TASK_CALL || reason == TASK_INT) {
        sys_store(cpu, desc->base, link, 2);
        t.eflags |= FLAG_NT;
    }
    if (reason != TASK_IRET) {
        set_busy(cpu, selector, true);
    }
    segment_set(&cpu->r.tr, selector, desc);
    cpu->r.tr.attr |= 2;
    cpu->r.cr0 |= CR0_TS;
    if ((cpu->r.cr0 & CR0_PG) && wide && t.cr3 != cpu->r.cr3) {
        if (!(cpu->r.cr4 & CR4_PAE) || paging_load_pdptes(cpu, t.cr3)) {
            cpu->r.cr3 = t.cr3;
            tlb_flush(cpu, false);
        }
    }
    cpu->r.rip = t.eip;
    cpu->next_rip = t.eip;
    cpu->r.rflags = (t.eflags & (FLAGS_LOADABLE | FLAG_VIF | FLAG_VIP)) | 2;
    for (unsigned i = 0; i < 8; i++) {
        cpu->r.gpr[i] = t.gpr[i];
    }
    cpu->r.dr[7] &= ~UINT64_C(0x155); /* local breakpoints */
    load_task_segments(cpu, &t);
    if (has_code) {
        push_code(cpu, code, wide);
    }
    if (t.eip > cpu->r.seg[SEG_CS].limit) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    if (t.trap) {
        cpu->traps |= DR6_BT;
    }
}
