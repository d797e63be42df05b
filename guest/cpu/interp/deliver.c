/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * deliver: exceptions and interrupts.
 *
 * Spec: Intel SDM, volume 3A, "Interrupt and Exception Handling": "Exception and Interrupt
 * Handling in Protected Mode", "... in 64-bit Mode", "Double Fault Exception (#DF)"; "8086
 * Emulation": "Interrupts and Exceptions in Virtual-8086 Mode"; volume 2, "INT n".
 *
 * Each path first checks everything that can fault and then commits, so that a fault in
 * the middle finds the state of the interrupted instruction.
 */
#include "base/log.h"
#include "guest/cpu/debug.h"
#include "guest/cpu/interp/system.h"
#include "guest/cpu/paging.h"

#include <inttypes.h>
#include <setjmp.h>

/* ---- raising ---- */

static G_NORETURN void unwind(struct vcpu *cpu)
{
    longjmp(*(jmp_buf *)cpu->unwind, 1);
}

void cpu_raise(struct vcpu *cpu, enum vector vector)
{
    cpu->raised = (struct cpu_event){.kind = EVENT_EXCEPTION, .vector = (uint8_t)vector};
    unwind(cpu);
}

void cpu_raise_code(struct vcpu *cpu, enum vector vector, uint32_t code)
{
    cpu->raised = (struct cpu_event){
        .kind = EVENT_EXCEPTION, .vector = (uint8_t)vector, .has_code = true, .code = code};
    unwind(cpu);
}

void cpu_raise_page_fault(struct vcpu *cpu, uint64_t linear, uint32_t code)
{
    cpu->raised = (struct cpu_event){.kind = EVENT_EXCEPTION, .vector = VEC_PF, .has_code = true,
                                     .code = code, .cr2 = linear};
    unwind(cpu);
}

void cpu_raise_debug(struct vcpu *cpu, uint64_t dr6)
{
    cpu->raised = (struct cpu_event){.kind = EVENT_EXCEPTION, .vector = VEC_DB, .dr6 = dr6};
    unwind(cpu);
}

void cpu_leave(struct vcpu *cpu, enum stop why)
{
    longjmp(*(jmp_buf *)cpu->unwind, 2 + (int)why);
}

/* ---- stacks that are not current yet ---- */

void stack_open(struct vcpu *cpu, struct stack *s, const struct segment *ss, uint64_t sp,
                unsigned cpl, bool long_mode)
{
    bool smap = (cpu->r.cr4 & CR4_SMAP) && !(cpu->r.rflags & FLAG_AC);
    *s = (struct stack){.ss = *ss, .sp = sp,
                        .mode = cpl == 3 ? TLB_USER : smap ? TLB_KERNEL : TLB_KERNEL_AC,
                        .bytes = long_mode ? 8 : ss->attr & SEG_DB ? 4 : 2};
}

static uint64_t stack_at(struct vcpu *cpu, const struct stack *s, uint64_t sp, unsigned bytes)
{
    if (s->bytes == 8) {
        if (!is_canonical(sp)) {
            cpu_raise_code(cpu, VEC_SS, s->error);
        }
        return sp;
    }
    uint64_t last = sp + bytes - 1;
    bool down = (s->ss.attr & (TYPE_IS_CODE | DATA_DOWN)) == DATA_DOWN;
    bool ok = down ? sp > s->ss.limit && last <= (s->ss.attr & SEG_DB ? 0xffffffffu : 0xffffu)
                   : last <= s->ss.limit;
    if (!ok) {
        cpu_raise_code(cpu, VEC_SS, s->error);
    }
    return (uint32_t)(s->ss.base + sp);
}

static void probe_one(struct vcpu *cpu, enum tlb_mode mode, uint64_t linear)
{
    struct tlb_result r;
    uint32_t code;
    if (!tlb_lookup(cpu->tlb, mode, true, linear) &&
        tlb_fill(cpu, mode, linear, 2 /* ACCESS_WRITE */, &r, &code) < 0) {
        cpu_raise_page_fault(cpu, linear, code);
    }
}

void stack_room(struct vcpu *cpu, struct stack *s, unsigned n)
{
    uint64_t mask = size_mask(s->bytes);
    probe_one(cpu, s->mode, stack_at(cpu, s, (s->sp - 1) & mask, 1));
    probe_one(cpu, s->mode, stack_at(cpu, s, (s->sp - n) & mask, 1));
}

void stack_put(struct vcpu *cpu, struct stack *s, uint64_t value, unsigned bytes)
{
    s->sp = (s->sp - bytes) & size_mask(s->bytes);
    uint64_t linear = stack_at(cpu, s, s->sp, bytes);
    struct tlb_result r;
    uint32_t code;
    for (unsigned i = 0; i < bytes;) { /* a piece a page */
        unsigned left = PAGE_SIZE - ((linear + i) & (PAGE_SIZE - 1)), n = MIN(bytes - i, left);
        uint8_t *host = tlb_lookup(cpu->tlb, s->mode, true, linear + i);
        r.note = false;
        if (!host) {
            if (tlb_fill(cpu, s->mode, linear + i, 2, &r, &code) < 0) {
                cpu_raise_page_fault(cpu, linear + i, code);
            }
            host = r.host;
        }
        uint64_t piece = value >> i * 8;
        if (host) {
            memcpy(host, &piece, n);
            if (r.note) {
                ram_note_write(host, n);
            }
        } else {
            space_write(cpu->memory, r.gpa, &piece, n);
        }
        i += n;
    }
}

struct stack_pointer tss_stack(struct vcpu *cpu, unsigned level, unsigned ext)
{
    const struct segment *tr = &cpu->r.tr;
    bool wide = tr->attr & 8;
    uint32_t at = vcpu_long_mode(cpu) ? 4 + level * 8 : wide ? 4 + level * 8 : 2 + level * 4;
    uint32_t bytes = wide || vcpu_long_mode(cpu) ? 8 : 4;
    if (at + bytes - 1 > tr->limit) {
        cpu_raise_code(cpu, VEC_TS, (tr->selector & ~3u) | ext);
    }
    if (vcpu_long_mode(cpu)) {
        return (struct stack_pointer){0, sys_load(cpu, tr->base + at, 8)};
    }
    uint64_t sp = sys_load(cpu, tr->base + at, bytes / 2);
    return (struct stack_pointer){(uint16_t)sys_load(cpu, tr->base + at + bytes / 2, 2), sp};
}

/* ---- one event ---- */

struct delivery {
    const struct cpu_event *ev;
    uint64_t rip;    /* to push */
    uint64_t flags;  /* to push */
    unsigned ext;    /* EXT bit of error codes that delivery itself raises */
    bool soft;
};

static bool is_fault(const struct cpu_event *ev)
{
    return ev->kind == EVENT_EXCEPTION && ev->vector != VEC_DB && ev->vector != VEC_BP &&
           ev->vector != VEC_OF && ev->vector != VEC_DF && ev->vector != VEC_MC;
}

static void deliver_real(struct vcpu *cpu, const struct delivery *d)
{
    uint32_t at = d->ev->vector * 4u;
    struct stack s;
    if (at + 3 > cpu->r.idt.limit) {
        cpu_raise_code(cpu, VEC_GP, d->ev->vector * 8u + 2);
    }
    uint64_t gate = sys_load(cpu, cpu->r.idt.base + at, 4);
    stack_open(cpu, &s, &cpu->r.seg[SEG_SS], cpu->r.gpr[RSP] & size_mask(stack_bytes(cpu)), 0,
               false);
    stack_room(cpu, &s, 6);
    stack_put(cpu, &s, d->flags, 2);
    stack_put(cpu, &s, cpu->r.seg[SEG_CS].selector, 2);
    stack_put(cpu, &s, d->rip, 2);
    stack_set(cpu, s.sp);
    segment_set_real(cpu, SEG_CS, (uint16_t)(gate >> 16));
    cpu->r.rip = gate & 0xffff;
    cpu->r.rflags &= ~(uint64_t)(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
}

struct gate {
    uint32_t type, dpl;
    bool present;
    uint16_t selector;
    uint64_t offset;
    unsigned ist;
};

static struct gate fetch_gate(struct vcpu *cpu, const struct delivery *d)
{
    bool lm = vcpu_long_mode(cpu);
    uint32_t code = d->ev->vector * 8u + ERROR_IDT;
    uint32_t at = d->ev->vector * (lm ? 16u : 8u);
    if (at + (lm ? 15 : 7) > cpu->r.idt.limit) {
        cpu_raise_code(cpu, VEC_GP, code | d->ext);
    }
    uint64_t raw = sys_load(cpu, cpu->r.idt.base + at, 8);
    uint64_t upper = lm ? sys_load(cpu, cpu->r.idt.base + at + 8, 8) : 0;
    struct gate g = {.type = raw >> 40 & 0x1f, .dpl = raw >> 45 & 3, .present = raw >> 47 & 1,
                     .selector = (uint16_t)(raw >> 16), .ist = lm ? raw >> 32 & 7 : 0};
    g.offset = (raw & 0xffff) | (raw >> 32 & 0xffff0000) | (upper & 0xffffffff) << 32;
    bool ok = g.type == DESC_INT || g.type == DESC_TRAP ||
              (!lm && (g.type == DESC_TASK_GATE || g.type == DESC_INT16 || g.type == DESC_TRAP16));
    if (!ok || (d->soft && vcpu_cpl(cpu) > g.dpl)) {
        cpu_raise_code(cpu, VEC_GP, code | d->ext);
    }
    if (!g.present) {
        cpu_raise_code(cpu, VEC_NP, code | d->ext);
    }
    if (g.type == DESC_INT16 || g.type == DESC_TRAP16) {
        g.offset &= 0xffff;
    }
    return g;
}

static void deliver_task(struct vcpu *cpu, const struct delivery *d, const struct gate *g)
{
    struct descriptor tss;
    uint32_t code = (g->selector & ~3u) | d->ext;
    if ((g->selector & SELECTOR_TI) || !descriptor_fetch(cpu, g->selector, &tss)) {
        cpu_raise_code(cpu, VEC_GP, code);
    }
    if (desc_type(&tss) != DESC_TSS && desc_type(&tss) != DESC_TSS16) {
        cpu_raise_code(cpu, VEC_GP, code);
    }
    if (!(tss.attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, code);
    }
    cpu->r.rflags = (cpu->r.rflags & ~(uint64_t)FLAG_RF) | (d->flags & FLAG_RF);
    task_switch(cpu, g->selector, &tss, TASK_INT, d->rip, d->ev->has_code, d->ev->code);
}

/* The gate's code segment; returns the privilege level of the handler. */
static unsigned handler_level(struct vcpu *cpu, const struct delivery *d, const struct gate *g,
                              struct descriptor *cs)
{
    uint32_t code = (g->selector & ~3u) | d->ext;
    unsigned cpl = vcpu_cpl(cpu);
    descriptor_need(cpu, g->selector, VEC_GP, d->ext, cs);
    if (!desc_is_code(cs) || desc_dpl(cs) > cpl) {
        cpu_raise_code(cpu, VEC_GP, code);
    }
    if (vcpu_long_mode(cpu) && (cs->attr & (SEG_L | SEG_DB)) != SEG_L) {
        cpu_raise_code(cpu, VEC_GP, code);
    }
    if (!(cs->attr & SEG_P)) {
        cpu_raise_code(cpu, VEC_NP, code);
    }
    unsigned level = cs->attr & CODE_CONFORMING ? cpl : desc_dpl(cs);
    if (cpu_v86(cpu) && level != 0) {
        cpu_raise_code(cpu, VEC_GP, code);
    }
    return level;
}

static void enter_handler(struct vcpu *cpu, const struct gate *g, struct descriptor *cs,
                          unsigned level)
{
    uint64_t clear = FLAG_TF | FLAG_VM | FLAG_RF | FLAG_NT;
    load_code_segment(cpu, g->selector, cs, level);
    if (g->type == DESC_INT || g->type == DESC_INT16) {
        clear |= FLAG_IF;
    }
    cpu->r.rflags &= ~clear;
    cpu->r.rip = g->offset;
}

static uint64_t ist_stack(struct vcpu *cpu, unsigned ist, unsigned ext)
{
    uint32_t at = 36 + (ist - 1) * 8;
    if (at + 7 > cpu->r.tr.limit) {
        cpu_raise_code(cpu, VEC_TS, (cpu->r.tr.selector & ~3u) | ext);
    }
    return sys_load(cpu, cpu->r.tr.base + at, 8);
}

static void deliver_long(struct vcpu *cpu, const struct delivery *d, const struct gate *g)
{
    struct descriptor cs;
    struct stack s;
    unsigned level = handler_level(cpu, d, g, &cs), cpl = vcpu_cpl(cpu);
    uint64_t sp = g->ist ? ist_stack(cpu, g->ist, d->ext)
                : level < cpl ? tss_stack(cpu, level, d->ext).sp : cpu->r.gpr[RSP];
    if (!is_canonical(g->offset)) {
        cpu_raise_code(cpu, VEC_GP, d->ext);
    }
    sp &= ~UINT64_C(15);
    stack_open(cpu, &s, &cpu->r.seg[SEG_SS], sp, level, true);
    s.error = (uint16_t)d->ext;
    stack_room(cpu, &s, d->ev->has_code ? 48 : 40);
    stack_put(cpu, &s, cpu->r.seg[SEG_SS].selector, 8);
    stack_put(cpu, &s, cpu->r.gpr[RSP], 8);
    stack_put(cpu, &s, d->flags, 8);
    stack_put(cpu, &s, cpu->r.seg[SEG_CS].selector, 8);
    stack_put(cpu, &s, d->rip, 8);
    if (d->ev->has_code) {
        stack_put(cpu, &s, d->ev->code, 8);
    }
    enter_handler(cpu, g, &cs, level);
    if (level < cpl) {
        segment_set_null(&cpu->r.seg[SEG_SS], (uint16_t)level);
        cpu_set_cpl(cpu, level);
    }
    cpu->r.gpr[RSP] = s.sp;
}

static void push_frame(struct vcpu *cpu, const struct delivery *d, struct stack *s, unsigned size,
                       bool inner)
{
    if (cpu_v86(cpu)) {
        stack_put(cpu, s, cpu->r.seg[SEG_GS].selector, size);
        stack_put(cpu, s, cpu->r.seg[SEG_FS].selector, size);
        stack_put(cpu, s, cpu->r.seg[SEG_DS].selector, size);
        stack_put(cpu, s, cpu->r.seg[SEG_ES].selector, size);
    }
    if (inner) {
        stack_put(cpu, s, cpu->r.seg[SEG_SS].selector, size);
        stack_put(cpu, s, cpu->r.gpr[RSP], size);
    }
    stack_put(cpu, s, d->flags, size);
    stack_put(cpu, s, cpu->r.seg[SEG_CS].selector, size);
    stack_put(cpu, s, d->rip, size);
    if (d->ev->has_code) {
        stack_put(cpu, s, d->ev->code, size);
    }
}

static void deliver_protected(struct vcpu *cpu, const struct delivery *d, const struct gate *g)
{
    struct descriptor cs, ss;
    struct stack s;
    unsigned level = handler_level(cpu, d, g, &cs), cpl = vcpu_cpl(cpu);
    unsigned size = g->type >= DESC_INT ? 4 : 2;
    bool inner = level < cpl;
    unsigned n = size * (3 + (inner ? 2u : 0) + (cpu_v86(cpu) ? 4u : 0) + d->ev->has_code);
    struct segment stack_segment = cpu->r.seg[SEG_SS];
    uint64_t sp = cpu->r.gpr[RSP] & size_mask(stack_bytes(cpu));
    if (inner) {
        struct stack_pointer p = tss_stack(cpu, level, d->ext);
        check_stack_segment(cpu, p.selector, level, VEC_TS, d->ext, &ss);
        segment_set(&stack_segment, p.selector, &ss);
        sp = p.sp;
    }
    if (g->offset > cs.limit) {
        cpu_raise_code(cpu, VEC_GP, d->ext);
    }
    stack_open(cpu, &s, &stack_segment, sp, level, false);
    s.error = (uint16_t)(inner ? (stack_segment.selector & ~3u) | d->ext : d->ext);
    s.sp &= size_mask(s.bytes);
    stack_room(cpu, &s, n);
    push_frame(cpu, d, &s, size, inner);
    bool v86 = cpu_v86(cpu);
    enter_handler(cpu, g, &cs, level);
    if (inner) {
        descriptor_set_accessed(cpu, &ss);
        stack_segment.attr |= 1;
        cpu->r.seg[SEG_SS] = stack_segment;
    }
    stack_set(cpu, s.sp);
    if (v86) {
        segment_set_null(&cpu->r.seg[SEG_ES], 0);
        segment_set_null(&cpu->r.seg[SEG_DS], 0);
        segment_set_null(&cpu->r.seg[SEG_FS], 0);
        segment_set_null(&cpu->r.seg[SEG_GS], 0);
    }
}

/*
 * INT n in v8086 mode: with CR4.VME and a clear bit in the redirection bitmap it goes
 * through the 8086 program's own table.  True if it has.
 */
static bool v86_redirected(struct vcpu *cpu, const struct delivery *d)
{
    if (!(cpu->r.cr4 & CR4_VME)) {
        return false;
    }
    const struct segment *tr = &cpu->r.tr;
    if (tr->limit < 0x67) {
        return false;
    }
    uint32_t map = (uint32_t)sys_load(cpu, tr->base + 0x66, 2) - 32 + d->ev->vector / 8u;
    if (map > tr->limit || (sys_load(cpu, tr->base + map, 1) >> (d->ev->vector & 7) & 1)) {
        return false;
    }
    struct delivery v = *d;
    struct stack s;
    if (cpu_iopl(cpu) < 3) { /* the program sees VIF as IF, and IOPL 3 */
        v.flags = (v.flags & ~(uint64_t)FLAG_IF) | FLAG_IOPL;
        v.flags |= cpu->r.rflags & FLAG_VIF ? FLAG_IF : 0;
    }
    uint64_t gate = mem_load(cpu, d->ev->vector * 4u, 4);
    stack_open(cpu, &s, &cpu->r.seg[SEG_SS], cpu->r.gpr[RSP] & 0xffff, 3, false);
    stack_room(cpu, &s, 6);
    stack_put(cpu, &s, v.flags, 2);
    stack_put(cpu, &s, cpu->r.seg[SEG_CS].selector, 2);
    stack_put(cpu, &s, v.rip, 2);
    stack_set(cpu, s.sp);
    segment_set_real(cpu, SEG_CS, (uint16_t)(gate >> 16));
    cpu->r.rip = gate & 0xffff;
    uint64_t clear = FLAG_TF | FLAG_RF | FLAG_NT;
    clear |= cpu_iopl(cpu) < 3 ? FLAG_VIF : FLAG_IF;
    cpu->r.rflags &= ~clear;
    return true;
}

static void deliver_one(struct vcpu *cpu, const struct cpu_event *ev, uint64_t next_rip)
{
    struct delivery d = {.ev = ev, .rip = cpu->r.rip, .flags = cpu->r.rflags, .ext = ERROR_EXT};
    if (ev->kind == EVENT_SOFT || ev->kind == EVENT_SOFT_EXCEPTION) {
        d.rip = next_rip;
        d.ext = 0;
        d.soft = true;
    }
    if (is_fault(ev)) {
        d.flags |= FLAG_RF;
    }
    if (cpu_real_mode(cpu)) {
        deliver_real(cpu, &d);
        return;
    }
    if (cpu_v86(cpu) && ev->kind == EVENT_SOFT) {
        if (v86_redirected(cpu, &d)) {
            return;
        }
        if (cpu_iopl(cpu) < 3) {
            cpu_raise_code(cpu, VEC_GP, 0);
        }
    }
    struct gate g = fetch_gate(cpu, &d);
    if (g.type == DESC_TASK_GATE) {
        deliver_task(cpu, &d, &g);
    } else if (vcpu_long_mode(cpu)) {
        deliver_long(cpu, &d, &g);
    } else {
        deliver_protected(cpu, &d, &g);
    }
}

/* ---- double and triple faults ---- */

static bool contributory(const struct cpu_event *ev)
{
    return ev->kind == EVENT_EXCEPTION &&
           (ev->vector == VEC_DE || (ev->vector >= VEC_TS && ev->vector <= VEC_GP));
}

static bool doubles(const struct cpu_event *first, const struct cpu_event *second)
{
    bool first_pf = first->kind == EVENT_EXCEPTION && first->vector == VEC_PF;
    bool second_pf = second->vector == VEC_PF;
    return (contributory(first) && contributory(second)) ||
           (first_pf && (second_pf || contributory(second)));
}

static const char *const kind_names[] = {
    [EVENT_EXCEPTION] = "exception", [EVENT_SOFT] = "int", [EVENT_SOFT_EXCEPTION] = "int3/into",
    [EVENT_EXTERNAL] = "interrupt", [EVENT_NMI] = "nmi"};

/* An invalid instruction: which one. */
static void log_undefined(struct vcpu *cpu)
{
    uint8_t b[8] = {0};
    uint64_t linear = cpu->r.rip + (vcpu_code64(cpu) ? 0 : cpu->r.seg[SEG_CS].base);
    paging_peek(cpu, linear, b, sizeof(b));
    log_line(LOG_INT, "CPU %u #UD: %02x %02x %02x %02x %02x %02x %02x %02x", cpu->index, b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7]);
}

/* True if it went through; else cpu->raised is what came in between. */
static bool attempt(struct vcpu *cpu, const struct cpu_event *ev, uint64_t next_rip)
{
    jmp_buf here;
    cpu->unwind = &here;
    if (_setjmp(here)) {
        return false;
    }
    if (log_on(LOG_INT)) {
        log_line(LOG_INT,
                 "CPU %u %s %02x code %x cr2 %" PRIx64 " at %04x:%" PRIx64 " sp %" PRIx64
                 " flags %" PRIx64 " cpl %u",
                 cpu->index, kind_names[ev->kind], ev->vector, ev->code, ev->cr2,
                 cpu->r.seg[SEG_CS].selector, cpu->r.rip, cpu->r.gpr[RSP], cpu->r.rflags,
                 vcpu_cpl(cpu));
        if (ev->kind == EVENT_EXCEPTION && ev->vector == VEC_UD) {
            log_undefined(cpu);
        }
    }
    if (ev->kind == EVENT_EXCEPTION && ev->vector == VEC_PF) {
        cpu->r.cr2 = ev->cr2;
    }
    if (ev->kind == EVENT_EXCEPTION && ev->vector == VEC_DB) {
        cpu->r.dr[6] = (cpu->r.dr[6] & ~UINT64_C(15)) | ev->dr6;
        cpu->r.dr[7] &= ~(uint64_t)DR7_GD;
    }
    deliver_one(cpu, ev, next_rip);
    return true;
}

int cpu_deliver(struct vcpu *cpu, const struct cpu_event *event, uint64_t next_rip)
{
    struct cpu_event now = *event;
    void *outer = cpu->unwind;
    int stop = STOP_NONE;
    while (!attempt(cpu, &now, next_rip)) {
        if (now.kind == EVENT_EXCEPTION && now.vector == VEC_DF &&
            (contributory(&cpu->raised) || cpu->raised.vector == VEC_PF)) {
            stop = STOP_RESET;
            break;
        }
        if (doubles(&now, &cpu->raised)) {
            now = (struct cpu_event){
                .kind = EVENT_EXCEPTION, .vector = VEC_DF, .has_code = true};
        } else {
            now = cpu->raised;
        }
    }
    cpu->unwind = outer;
    cpu->r.shadow = 0;
    cpu->r.halted = 0;
    cpu->traps = 0;
    if (event->kind == EVENT_NMI) {
        cpu->r.nmi_blocked = 1;
    }
    if (stop == STOP_RESET) {
        log_line(LOG_INT, "CPU %u triple fault at %04x:%" PRIx64, cpu->index,
                 cpu->r.seg[SEG_CS].selector, cpu->r.rip);
        log_line(LOG_CPU_RESET, "CPU %u triple fault at %04x:%" PRIx64, cpu->index,
                 cpu->r.seg[SEG_CS].selector, cpu->r.rip);
    }
    return stop;
}

int cpu_deliver_raised(struct vcpu *cpu)
{
    struct cpu_event ev = cpu->raised;
    return cpu_deliver(cpu, &ev, 0);
}
