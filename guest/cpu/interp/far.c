/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * far: transfers between code segments, privilege levels and tasks.
 *
 * Spec: Intel SDM, volume 2, "JMP", "CALL", "RET", "INT n", "IRET", "SYSCALL", "SYSRET",
 * "SYSENTER", "SYSEXIT"; volume 3A, "Protection": "Call Gates"; AMD APM, volume 2,
 * "System-Call Extension" (what SYSCALL and SYSENTER do on AMD's processors).
 */
#include "guest/cpu/interp/system.h"
#include "guest/cpu/models.h"

static bool is_amd(const struct vcpu *cpu)
{
    return cpu->model && !strcmp(cpu->model->vendor, "AuthenticAMD");
}

/* ---- far jmp and call ---- */

/* A code segment that is reached without a gate: CPL stays. */
static void check_direct(struct vcpu *cpu, uint16_t selector, const struct descriptor *d)
{
    unsigned cpl = vcpu_cpl(cpu), rpl = selector & 3;
    bool ok = d->attr & CODE_CONFORMING ? desc_dpl(d) <= cpl : rpl <= cpl && desc_dpl(d) == cpl;
    bool both = vcpu_long_mode(cpu) && (d->attr & SEG_L) && (d->attr & SEG_DB);
    if (!ok || both) {
        cpu_raise_code(cpu, VEC_GP, selector & ~3u);
    }
    if (!(d->attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, selector & ~3u);
    }
}

static void check_target(struct vcpu *cpu, const struct descriptor *d, uint64_t offset)
{
    bool code64 = vcpu_long_mode(cpu) && (d->attr & SEG_L);
    if (code64 ? !is_canonical(offset) : offset > d->limit) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
}

static void current_stack(struct vcpu *cpu, struct stack *s)
{
    stack_open(cpu, s, &cpu->r.seg[SEG_SS], cpu->r.gpr[RSP] & size_mask(stack_bytes(cpu)),
               vcpu_cpl(cpu), stack_bytes(cpu) == 8);
}

static void push_return(struct vcpu *cpu, struct stack *s, unsigned size)
{
    stack_put(cpu, s, cpu->r.seg[SEG_CS].selector, size);
    stack_put(cpu, s, cpu->next_rip, size);
}

static void far_code(struct vcpu *cpu, uint16_t selector, struct descriptor *d, uint64_t offset,
                     unsigned size, bool call)
{
    struct stack s;
    check_direct(cpu, selector, d);
    check_target(cpu, d, offset);
    if (call) {
        current_stack(cpu, &s);
        stack_room(cpu, &s, 2 * size);
        push_return(cpu, &s, size);
        stack_set(cpu, s.sp);
    }
    load_code_segment(cpu, selector, d, vcpu_cpl(cpu));
    cpu->next_rip = offset;
}

struct call_gate {
    uint16_t selector;
    uint64_t offset;
    unsigned params, size;
};

static void fetch_call_gate(struct vcpu *cpu, uint16_t selector, const struct descriptor *d,
                            struct call_gate *g)
{
    bool wide = desc_type(d) == DESC_CALL;
    if (desc_dpl(d) < MAX(vcpu_cpl(cpu), (unsigned)(selector & 3))) {
        cpu_raise_code(cpu, VEC_GP, selector & ~3u);
    }
    if (!(d->attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, selector & ~3u);
    }
    *g = (struct call_gate){.selector = (uint16_t)(d->low >> 16), .params = d->high & 31,
                            .size = wide ? 4 : 2};
    g->offset = (d->low & 0xffff) | (wide ? d->high & 0xffff0000 : 0);
    if (vcpu_long_mode(cpu)) {
        uint64_t upper = sys_load(cpu, d->at + 8, 8);
        if (upper >> 32 & 0x1f00) {
            cpu_raise_code(cpu, VEC_GP, selector & ~3u);
        }
        g->offset |= upper << 32;
        g->size = 8;
        g->params = 0;
    }
}

/* Copies the parameters and switches to the stack of level @level. */
static void call_inner(struct vcpu *cpu, const struct call_gate *g, struct descriptor *cs)
{
    unsigned level = desc_dpl(cs);
    bool lm = vcpu_long_mode(cpu);
    struct stack_pointer p = tss_stack(cpu, level, 0);
    struct segment ss = {.attr = SEG_UNUSABLE | level << SEG_DPL_SHIFT,
                         .selector = (uint16_t)level};
    struct descriptor d = {.attr = 1};
    uint32_t params[31];
    struct stack s;
    if (!lm) {
        check_stack_segment(cpu, p.selector, level, VEC_TS, 0, &d);
        segment_set(&ss, p.selector, &d);
    }
    stack_open(cpu, &s, &ss, p.sp, level, lm);
    s.sp &= size_mask(s.bytes);
    s.error = lm ? 0 : p.selector & 0xfffc;
    for (unsigned i = 0; i < g->params; i++) {
        params[i] = (uint32_t)mem_load(cpu, stack_linear(cpu, i * g->size, g->size, false),
                                       g->size);
    }
    stack_room(cpu, &s, g->size * (4 + g->params));
    stack_put(cpu, &s, cpu->r.seg[SEG_SS].selector, g->size);
    stack_put(cpu, &s, cpu->r.gpr[RSP], g->size);
    for (unsigned i = g->params; i-- > 0;) {
        stack_put(cpu, &s, params[i], g->size);
    }
    push_return(cpu, &s, g->size);
    if (!lm) {
        descriptor_set_accessed(cpu, &d);
    }
    ss.attr |= lm ? 0 : 1;
    load_code_segment(cpu, g->selector, cs, level);
    cpu->r.seg[SEG_SS] = ss;
    stack_set(cpu, s.sp);
    cpu->next_rip = g->offset;
}

static void far_gate(struct vcpu *cpu, uint16_t selector, const struct descriptor *d, bool call)
{
    struct call_gate g;
    struct descriptor cs;
    unsigned cpl = vcpu_cpl(cpu);
    fetch_call_gate(cpu, selector, d, &g);
    descriptor_need(cpu, g.selector, VEC_GP, 0, &cs);
    uint32_t code = g.selector & ~3u;
    bool conforming = cs.attr & CODE_CONFORMING;
    if (!desc_is_code(&cs) || desc_dpl(&cs) > cpl ||
        (!call && !conforming && desc_dpl(&cs) != cpl) ||
        (vcpu_long_mode(cpu) && (cs.attr & (SEG_L | SEG_DB)) != SEG_L)) {
        cpu_raise_code(cpu, VEC_GP, code);
    }
    if (!(cs.attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, code);
    }
    check_target(cpu, &cs, g.offset);
    if (call && !conforming && desc_dpl(&cs) < cpl) {
        call_inner(cpu, &g, &cs);
        return;
    }
    struct stack s;
    if (call) {
        current_stack(cpu, &s);
        stack_room(cpu, &s, 2 * g.size);
        push_return(cpu, &s, g.size);
        stack_set(cpu, s.sp);
    }
    load_code_segment(cpu, g.selector, &cs, cpl);
    cpu->next_rip = g.offset;
}

static void far_task(struct vcpu *cpu, uint16_t selector, struct descriptor *d, bool call)
{
    bool gate = desc_type(d) == DESC_TASK_GATE;
    if (vcpu_long_mode(cpu) ||
        desc_dpl(d) < MAX(vcpu_cpl(cpu), (unsigned)(selector & 3))) {
        cpu_raise_code(cpu, VEC_GP, selector & ~3u);
    }
    if (!(d->attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, selector & ~3u);
    }
    if (gate) {
        selector = (uint16_t)(d->low >> 16);
        if ((selector & SELECTOR_TI) || !descriptor_fetch(cpu, selector, d) ||
            (desc_type(d) != DESC_TSS && desc_type(d) != DESC_TSS16)) {
            cpu_raise_code(cpu, VEC_GP, selector & ~3u);
        }
        if (!(d->attr & SEG_P)) {
            cpu_raise_code(cpu, VEC_NP, selector & ~3u);
        }
    }
    task_switch(cpu, selector, d, call ? TASK_CALL : TASK_JMP, cpu->next_rip, false, 0);
}

static void far_real(struct vcpu *cpu, uint16_t selector, uint64_t offset, unsigned size,
                     bool call)
{
    if (offset > cpu->r.seg[SEG_CS].limit) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    if (call) {
        struct stack s;
        current_stack(cpu, &s);
        stack_room(cpu, &s, 2 * size);
        push_return(cpu, &s, size);
        stack_set(cpu, s.sp);
    }
    segment_set_real(cpu, SEG_CS, selector);
    cpu->next_rip = offset;
}

static void far_transfer(struct vcpu *cpu, uint16_t selector, uint64_t offset, unsigned size,
                         bool call)
{
    struct descriptor d;
    offset &= size_mask(size);
    if (cpu_real_mode(cpu) || cpu_v86(cpu)) {
        far_real(cpu, selector, offset, size, call);
        return;
    }
    descriptor_need(cpu, selector, VEC_GP, 0, &d);
    if (desc_is_code(&d)) {
        far_code(cpu, selector, &d, offset, size, call);
        return;
    }
    switch (desc_type(&d)) {
    case DESC_CALL16:
        if (vcpu_long_mode(cpu)) {
            break;
        } /* fall through */
    case DESC_CALL:
        far_gate(cpu, selector, &d, call);
        return;
    case DESC_TSS:
    case DESC_TSS16:
    case DESC_TASK_GATE:
        far_task(cpu, selector, &d, call);
        return;
    }
    cpu_raise_code(cpu, VEC_GP, selector & ~3u);
}

static void do_jmp_far(struct vcpu *cpu, const struct insn *i)
{
    far_transfer(cpu, i->imm2, (uint64_t)i->imm, i->opsize, false);
}

static void do_call_far(struct vcpu *cpu, const struct insn *i)
{
    far_transfer(cpu, i->imm2, (uint64_t)i->imm, i->opsize, true);
}

static void far_indirect(struct vcpu *cpu, const struct insn *i, bool call)
{
    unsigned size = i->opsize;
    if (size == 8 && is_amd(cpu)) {
        size = 4; /* AMD's processors have no m16:64 */
    }
    uint64_t at = interp_linear(cpu, i, size + 2, false);
    uint64_t offset = mem_load(cpu, at, size);
    far_transfer(cpu, (uint16_t)mem_load(cpu, at + size, 2), offset, i->opsize, call);
}

static void do_jmp_far_ind(struct vcpu *cpu, const struct insn *i)
{
    far_indirect(cpu, i, false);
}

static void do_call_far_ind(struct vcpu *cpu, const struct insn *i)
{
    far_indirect(cpu, i, true);
}

/* ---- returns ---- */

/* Data segments that the outer level may not see become null. */
static void drop_inner_segments(struct vcpu *cpu, unsigned cpl)
{
    static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < G_N_ELEMENTS(data); i++) {
        struct segment *s = &cpu->r.seg[data[i]];
        bool conforming = (s->attr & (TYPE_IS_CODE | CODE_CONFORMING)) ==
                          (TYPE_IS_CODE | CODE_CONFORMING);
        if (!(s->attr & SEG_UNUSABLE) && !conforming && (s->attr >> SEG_DPL_SHIFT & 3) < cpl) {
            segment_set_null(s, 0);
        }
    }
}

struct frame {
    uint64_t rip, flags, sp;
    uint16_t cs, ss;
};

/* The code segment that a return names. */
static void check_return_cs(struct vcpu *cpu, uint16_t selector, struct descriptor *d)
{
    unsigned rpl = selector & 3;
    uint32_t code = selector & ~3u;
    descriptor_need(cpu, selector, VEC_GP, 0, d);
    bool conforming = d->attr & CODE_CONFORMING;
    if (!desc_is_code(d) || rpl < vcpu_cpl(cpu) ||
        (conforming ? desc_dpl(d) > rpl : desc_dpl(d) != rpl) ||
        (vcpu_long_mode(cpu) && (d->attr & SEG_L) && (d->attr & SEG_DB))) {
        cpu_raise_code(cpu, VEC_GP, code);
    }
    if (!(d->attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, code);
    }
}

/* The stack that a return to an outer level, or a 64-bit IRET, names. */
static void check_return_ss(struct vcpu *cpu, uint16_t selector, unsigned rpl, bool to64,
                            struct segment *out)
{
    struct descriptor d;
    if (!(selector & ~3u) && to64 && rpl < 3 && (selector & 3) == rpl) {
        *out = (struct segment){.attr = SEG_UNUSABLE | rpl << SEG_DPL_SHIFT,
                                .selector = selector};
        return;
    }
    check_stack_segment(cpu, selector, rpl, VEC_GP, 0, &d);
    descriptor_set_accessed(cpu, &d);
    segment_set(out, selector, &d);
}

static uint64_t pop_at(struct vcpu *cpu, unsigned n, unsigned size)
{
    return mem_load(cpu, stack_linear(cpu, (int64_t)n * size, size, false), size);
}

static void ret_far(struct vcpu *cpu, unsigned size, unsigned extra)
{
    struct frame f = {.rip = pop_at(cpu, 0, size), .cs = (uint16_t)pop_at(cpu, 1, size)};
    struct descriptor cs;
    struct segment ss;
    unsigned old_cpl = vcpu_cpl(cpu);
    if (cpu_real_mode(cpu) || cpu_v86(cpu)) {
        if (f.rip > cpu->r.seg[SEG_CS].limit) {
            cpu_raise_code(cpu, VEC_GP, 0);
        }
        stack_set(cpu, cpu->r.gpr[RSP] + 2 * size + extra);
        segment_set_real(cpu, SEG_CS, f.cs);
        cpu->next_rip = f.rip;
        return;
    }
    check_return_cs(cpu, f.cs, &cs);
    check_target(cpu, &cs, f.rip);
    unsigned cpl = f.cs & 3;
    if (cpl == old_cpl) {
        uint64_t sp = cpu->r.gpr[RSP] + 2 * size + extra;
        stack_set(cpu, sp);
        load_code_segment(cpu, f.cs, &cs, cpl);
        cpu->next_rip = f.rip;
        return;
    }
    f.sp = mem_load(cpu, stack_linear(cpu, 2 * size + extra, size, false), size);
    f.ss = (uint16_t)mem_load(cpu, stack_linear(cpu, 3 * size + extra, size, false), size);
    check_return_ss(cpu, f.ss, cpl, cs.attr & SEG_L && vcpu_long_mode(cpu), &ss);
    load_code_segment(cpu, f.cs, &cs, cpl);
    cpu->r.seg[SEG_SS] = ss;
    stack_set(cpu, f.sp + extra);
    drop_inner_segments(cpu, cpl);
    cpu->next_rip = f.rip;
}

static void do_ret_far(struct vcpu *cpu, const struct insn *i)
{
    ret_far(cpu, i->opsize, i->imm_bytes ? (uint16_t)i->imm : 0);
}

/* Which flags IRET may load at @cpl. */
static uint64_t iret_mask(const struct vcpu *cpu, unsigned cpl, unsigned size)
{
    uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;
    if (size > 2) {
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    }
    if (cpl == 0) {
        mask |= FLAG_IOPL | FLAG_IF;
        mask |= size > 2 ? FLAG_VIF | FLAG_VIP : 0;
    } else if (cpl <= cpu_iopl(cpu)) {
        mask |= FLAG_IF;
    }
    return mask;
}

static void iret_real(struct vcpu *cpu, unsigned size)
{
    uint64_t rip = pop_at(cpu, 0, size), flags = pop_at(cpu, 2, size);
    uint16_t cs = (uint16_t)pop_at(cpu, 1, size);
    if (rip > 0xffff && rip > cpu->r.seg[SEG_CS].limit) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    stack_set(cpu, cpu->r.gpr[RSP] + 3 * size);
    segment_set_real(cpu, SEG_CS, cs);
    cpu->next_rip = rip;
    uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT;
    cpu_set_flags(cpu, flags, size == 2 ? mask : mask | FLAG_RF | FLAG_AC | FLAG_ID);
}

static void iret_v86(struct vcpu *cpu, unsigned size)
{
    bool vme = (cpu->r.cr4 & CR4_VME) && size == 2 && cpu_iopl(cpu) < 3;
    if (cpu_iopl(cpu) < 3 && !vme) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    uint64_t rip = pop_at(cpu, 0, size), flags = pop_at(cpu, 2, size);
    uint16_t cs = (uint16_t)pop_at(cpu, 1, size);
    if (rip > 0xffff) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;
    if (vme) {
        if ((flags & FLAG_TF) || ((flags & FLAG_IF) && (cpu->r.rflags & FLAG_VIP))) {
            cpu_raise_code(cpu, VEC_GP, 0);
        }
        flags |= flags & FLAG_IF ? FLAG_VIF : 0;
        mask |= FLAG_VIF;
    } else {
        mask |= FLAG_IF;
    }
    stack_set(cpu, cpu->r.gpr[RSP] + 3 * size);
    segment_set_real(cpu, SEG_CS, cs);
    cpu->next_rip = rip;
    cpu_set_flags(cpu, flags, size == 2 ? mask : mask | FLAG_RF | FLAG_AC | FLAG_ID);
}

static void iret_to_v86(struct vcpu *cpu, const struct frame *f)
{
    static const uint8_t order[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    uint16_t selectors[4];
    uint64_t sp = pop_at(cpu, 3, 4);
    uint16_t ss = (uint16_t)pop_at(cpu, 4, 4);
    for (unsigned i = 0; i < 4; i++) {
        selectors[i] = (uint16_t)pop_at(cpu, 5 + i, 4);
    }
    cpu_set_flags(cpu, f->flags, FLAGS_LOADABLE | FLAG_VM | FLAG_VIF | FLAG_VIP);
    segment_set_real(cpu, SEG_CS, f->cs);
    segment_set_real(cpu, SEG_SS, ss);
    for (unsigned i = 0; i < 4; i++) {
        segment_set_real(cpu, (enum seg_name)order[i], selectors[i]);
    }
    cpu->r.gpr[RSP] = (uint32_t)sp;
    cpu->next_rip = f->rip & 0xffff;
}

static void iret_nested(struct vcpu *cpu)
{
    struct descriptor d;
    if (vcpu_long_mode(cpu)) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    uint16_t link = (uint16_t)sys_load(cpu, cpu->r.tr.base, 2);
    if ((link & SELECTOR_TI) || !(link & ~3u) || !descriptor_fetch(cpu, link, &d) ||
        (desc_type(&d) != DESC_TSS_BUSY && desc_type(&d) != DESC_TSS16_BUSY)) {
        cpu_raise_code(cpu, VEC_TS, link & ~3u);
    }
    if (!(d.attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, link & ~3u);
    }
    task_switch(cpu, link, &d, TASK_IRET, cpu->next_rip, false, 0);
}

static void iret_protected(struct vcpu *cpu, unsigned size)
{
    struct frame f = {.rip = pop_at(cpu, 0, size), .cs = (uint16_t)pop_at(cpu, 1, size),
                      .flags = pop_at(cpu, 2, size)};
    struct descriptor cs;
    struct segment ss = cpu->r.seg[SEG_SS];
    unsigned old_cpl = vcpu_cpl(cpu);
    if (size == 4 && (f.flags & FLAG_VM) && old_cpl == 0 && !vcpu_long_mode(cpu)) {
        iret_to_v86(cpu, &f);
        return;
    }
    check_return_cs(cpu, f.cs, &cs);
    check_target(cpu, &cs, f.rip);
    unsigned cpl = f.cs & 3;
    bool with_stack = cpl != old_cpl || vcpu_code64(cpu);
    uint64_t mask = iret_mask(cpu, old_cpl, size);
    if (with_stack) {
        f.sp = pop_at(cpu, 3, size);
        f.ss = (uint16_t)pop_at(cpu, 4, size);
        check_return_ss(cpu, f.ss, cpl, (cs.attr & SEG_L) && vcpu_long_mode(cpu), &ss);
    } else {
        f.sp = cpu->r.gpr[RSP] + 3 * size;
    }
    load_code_segment(cpu, f.cs, &cs, cpl);
    cpu->r.seg[SEG_SS] = ss;
    stack_set(cpu, f.sp);
    cpu_set_flags(cpu, f.flags, mask);
    if (cpl > old_cpl) {
        drop_inner_segments(cpu, cpl);
    }
    cpu->next_rip = f.rip;
}

static void do_iret(struct vcpu *cpu, const struct insn *i)
{
    if (cpu_real_mode(cpu)) {
        iret_real(cpu, i->opsize);
    } else if (cpu_v86(cpu)) {
        iret_v86(cpu, i->opsize);
    } else if (cpu->r.rflags & FLAG_NT) {
        iret_nested(cpu);
    } else {
        iret_protected(cpu, i->opsize);
    }
    cpu->r.nmi_blocked = 0;
}

/* ---- software interrupts ---- */

static void software(struct vcpu *cpu, enum event_kind kind, unsigned vector)
{
    struct cpu_event ev = {.kind = (uint8_t)kind, .vector = (uint8_t)vector};
    int stop = cpu_deliver(cpu, &ev, cpu->next_rip);
    cpu->next_rip = cpu->r.rip;
    if (stop != STOP_NONE) {
        cpu_leave(cpu, (enum stop)stop);
    }
}

static void do_int(struct vcpu *cpu, const struct insn *i)
{
    software(cpu, EVENT_SOFT, (uint8_t)i->imm);
}

static void do_int3(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    software(cpu, EVENT_SOFT_EXCEPTION, VEC_BP);
}

static void do_into(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    if (cpu->r.rflags & FLAG_OF) {
        software(cpu, EVENT_SOFT_EXCEPTION, VEC_OF);
    }
}

static void do_int1(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    cpu->r.rip = cpu->next_rip; /* a trap */
    software(cpu, EVENT_EXCEPTION, VEC_DB);
}

/* ---- fast system calls ---- */

static const struct segment flat_code = {.limit = 0xffffffff, .attr = 0xc09b};
static const struct segment flat_data = {.limit = 0xffffffff, .attr = 0xc093};

static void set_flat(struct vcpu *cpu, uint16_t cs, uint16_t ss, unsigned cpl, bool code64)
{
    struct segment *c = &cpu->r.seg[SEG_CS], *s = &cpu->r.seg[SEG_SS];
    *c = flat_code;
    c->selector = cs;
    c->attr |= cpl << SEG_DPL_SHIFT;
    if (code64) {
        c->attr = (c->attr & ~(uint32_t)SEG_DB) | SEG_L;
    }
    *s = flat_data;
    s->selector = ss;
    s->attr |= cpl << SEG_DPL_SHIFT;
}

static void do_syscall(struct vcpu *cpu, const struct insn *i)
{
    struct regs *r = &cpu->r;
    (void)i;
    if (!(r->efer & EFER_SCE) || cpu_real_mode(cpu) || (!is_amd(cpu) && !vcpu_code64(cpu))) {
        cpu_raise(cpu, VEC_UD);
    }
    uint16_t cs = (uint16_t)((r->star >> 32) & 0xfffc);
    if (!vcpu_long_mode(cpu)) {
        r->gpr[RCX] = (uint32_t)cpu->next_rip;
        set_flat(cpu, cs, (uint16_t)(cs + 8), 0, false);
        r->rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
        cpu->next_rip = (uint32_t)r->star;
        return;
    }
    uint64_t target = vcpu_code64(cpu) ? r->lstar : r->cstar;
    r->gpr[RCX] = cpu->next_rip;
    r->gpr[R11] = r->rflags & ~(uint64_t)FLAG_RF;
    set_flat(cpu, cs, (uint16_t)(cs + 8), 0, true);
    r->rflags = (r->rflags & ~r->fmask & ~(uint64_t)FLAG_RF) | 2;
    cpu->next_rip = target;
}

static void do_sysret(struct vcpu *cpu, const struct insn *i)
{
    struct regs *r = &cpu->r;
    if (!(r->efer & EFER_SCE) || cpu_real_mode(cpu) || (!is_amd(cpu) && !vcpu_code64(cpu))) {
        cpu_raise(cpu, VEC_UD);
    }
    if (vcpu_cpl(cpu)) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    uint16_t base = (uint16_t)(r->star >> 48);
    bool to64 = i->opsize == 8;
    if (to64 && !is_canonical(r->gpr[RCX])) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    if (vcpu_long_mode(cpu)) {
        cpu_set_flags(cpu, r->gpr[R11], FLAGS_LOADABLE & ~(uint64_t)FLAG_RF);
    } else {
        r->rflags |= FLAG_IF;
    }
    set_flat(cpu, (uint16_t)((base + (to64 ? 16 : 0)) | 3), (uint16_t)((base + 8) | 3), 3, to64);
    cpu->next_rip = to64 ? r->gpr[RCX] : (uint32_t)r->gpr[RCX];
}

static void check_sysenter(struct vcpu *cpu)
{
    if (cpu_real_mode(cpu) || !(cpu->r.sysenter_cs & 0xfffc)) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
}

static void do_sysenter(struct vcpu *cpu, const struct insn *i)
{
    struct regs *r = &cpu->r;
    bool lm = vcpu_long_mode(cpu);
    (void)i;
    if (lm && is_amd(cpu)) {
        cpu_raise(cpu, VEC_UD);
    }
    check_sysenter(cpu);
    uint16_t cs = r->sysenter_cs & 0xfffc;
    r->rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
    set_flat(cpu, cs, (uint16_t)(cs + 8), 0, lm);
    r->gpr[RSP] = lm ? r->sysenter_esp : (uint32_t)r->sysenter_esp;
    cpu->next_rip = lm ? r->sysenter_eip : (uint32_t)r->sysenter_eip;
}

static void do_sysexit(struct vcpu *cpu, const struct insn *i)
{
    struct regs *r = &cpu->r;
    bool to64 = i->opsize == 8;
    if (vcpu_long_mode(cpu) && is_amd(cpu)) {
        cpu_raise(cpu, VEC_UD);
    }
    check_sysenter(cpu);
    if (vcpu_cpl(cpu)) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    if (to64 && (!is_canonical(r->gpr[RDX]) || !is_canonical(r->gpr[RCX]))) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    uint16_t cs = (uint16_t)((r->sysenter_cs & 0xfffc) + (to64 ? 32 : 16));
    set_flat(cpu, cs | 3, (uint16_t)((cs + 8) | 3), 3, to64);
    r->gpr[RSP] = to64 ? r->gpr[RCX] : (uint32_t)r->gpr[RCX];
    cpu->next_rip = to64 ? r->gpr[RDX] : (uint32_t)r->gpr[RDX];
}

static void do_rsm(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    if (!cpu->r.in_smm) {
        cpu_raise(cpu, VEC_UD);
    }
    cpu_leave_smm(cpu);
    cpu->next_rip = cpu->r.rip;
}

static const struct interp_row interp_far_rows[] = {
    {OP_JMP_FAR, do_jmp_far}, {OP_CALL_FAR, do_call_far}, {OP_JMP_FAR_IND, do_jmp_far_ind},
    {OP_CALL_FAR_IND, do_call_far_ind}, {OP_RET_FAR, do_ret_far}, {OP_IRET, do_iret},
    {OP_INT, do_int}, {OP_INT3, do_int3}, {OP_INTO, do_into}, {OP_INT1, do_int1},
    {OP_SYSCALL, do_syscall}, {OP_SYSRET, do_sysret}, {OP_SYSENTER, do_sysenter},
    {OP_SYSEXIT, do_sysexit}, {OP_RSM, do_rsm},
};
INTERP_TABLE(interp_far);
