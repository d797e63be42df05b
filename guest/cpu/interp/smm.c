/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * smm: entering and leaving system management mode.
 *
 * Spec: AMD APM, volume 2, "System-Management Mode": "SMM State-Save Area (AMD64
 * Architecture)", "SMM Operating-Environment".  Firmware (SeaBIOS, OVMF) knows the
 * processor by this layout's revision.
 */
#include "guest/cpu/interp/system.h"

enum { SMM_REVISION = 0x00020064, SAVE_AT = 0x8000 };

/* Plain registers: where in the area, of what size. */
struct saved {
    uint16_t at, bytes, field;
};
#define SAVED(offset, size, name) {offset, size, offsetof(struct regs, name)}
static const struct saved saved[] = {
    SAVED(0x7ff8, 8, gpr[RAX]), SAVED(0x7ff0, 8, gpr[RCX]), SAVED(0x7fe8, 8, gpr[RDX]),
    SAVED(0x7fe0, 8, gpr[RBX]), SAVED(0x7fd8, 8, gpr[RSP]), SAVED(0x7fd0, 8, gpr[RBP]),
    SAVED(0x7fc8, 8, gpr[RSI]), SAVED(0x7fc0, 8, gpr[RDI]), SAVED(0x7fb8, 8, gpr[R8]),
    SAVED(0x7fb0, 8, gpr[R9]),  SAVED(0x7fa8, 8, gpr[R10]), SAVED(0x7fa0, 8, gpr[R11]),
    SAVED(0x7f98, 8, gpr[R12]), SAVED(0x7f90, 8, gpr[R13]), SAVED(0x7f88, 8, gpr[R14]),
    SAVED(0x7f80, 8, gpr[R15]), SAVED(0x7f78, 8, rip),      SAVED(0x7f70, 8, rflags),
    SAVED(0x7f68, 8, dr[6]),    SAVED(0x7f60, 8, dr[7]),    SAVED(0x7f58, 8, cr0),
    SAVED(0x7f50, 8, cr3),      SAVED(0x7f48, 8, cr4),      SAVED(0x7ed0, 8, efer),
    SAVED(0x7e64, 2, gdt.limit), SAVED(0x7e68, 8, gdt.base), SAVED(0x7e84, 2, idt.limit),
    SAVED(0x7e88, 8, idt.base), SAVED(0x7f00, 4, smbase),
};

struct saved_segment {
    uint16_t at, field;
};
static const struct saved_segment saved_segments[] = {
    {0x7e00, offsetof(struct regs, seg[SEG_ES])}, {0x7e10, offsetof(struct regs, seg[SEG_CS])},
    {0x7e20, offsetof(struct regs, seg[SEG_SS])}, {0x7e30, offsetof(struct regs, seg[SEG_DS])},
    {0x7e40, offsetof(struct regs, seg[SEG_FS])}, {0x7e50, offsetof(struct regs, seg[SEG_GS])},
    {0x7e70, offsetof(struct regs, ldt)},         {0x7e90, offsetof(struct regs, tr)},
};

static void save(struct vcpu *cpu, uint64_t area)
{
    struct space *m = cpu->memory;
    for (unsigned i = 0; i < G_N_ELEMENTS(saved); i++) {
        space_write(m, area + saved[i].at, (uint8_t *)&cpu->r + saved[i].field, saved[i].bytes);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(saved_segments); i++) {
        const struct saved_segment *s = &saved_segments[i];
        const struct segment *seg = (const void *)((uint8_t *)&cpu->r + s->field);
        space_store(m, area + s->at, seg->selector, 2);
        /* A null segment shows as not present; bits 8-11, which are free, keep that. */
        space_store(m, area + s->at + 2u,
                    (seg->attr & 0xf0ff) | (seg->attr & SEG_UNUSABLE ? 0x100 : 0), 2);
        space_store(m, area + s->at + 4u, seg->limit, 4);
        space_store(m, area + s->at + 8u, seg->base, 8);
    }
    space_store(m, area + 0x7efc, SMM_REVISION, 4);
    space_store(m, area + 0x7ec8, cpu->r.halted ? 0x100 : 0, 2); /* auto-halt restart */
}

static void restore(struct vcpu *cpu, uint64_t area)
{
    struct space *m = cpu->memory;
    for (unsigned i = 0; i < G_N_ELEMENTS(saved); i++) {
        space_read(m, area + saved[i].at, (uint8_t *)&cpu->r + saved[i].field, saved[i].bytes);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(saved_segments); i++) {
        const struct saved_segment *s = &saved_segments[i];
        struct segment *seg = (void *)((uint8_t *)&cpu->r + s->field);
        uint32_t attr = (uint32_t)space_load(m, area + s->at + 2u, 2);
        *seg = (struct segment){.selector = (uint16_t)space_load(m, area + s->at, 2),
                                .attr = (attr & 0xf0ff) | (attr & 0x100 ? SEG_UNUSABLE : 0),
                                .limit = (uint32_t)space_load(m, area + s->at + 4u, 4),
                                .base = space_load(m, area + s->at + 8u, 8)};
    }
}

void smm_enter(struct vcpu *cpu)
{
    struct regs *r = &cpu->r;
    cpu->memory = cpu->memory_smm;
    save(cpu, r->smbase + SAVE_AT);
    r->in_smm = 1;
    r->nmi_blocked |= 2; /* bit 0: as it was before */
    r->halted = 0;
    r->rflags = 2;
    r->rip = 0x8000;
    r->cr0 &= ~(uint64_t)(CR0_PE | CR0_EM | CR0_TS | CR0_PG);
    r->cr4 = 0;
    r->efer = 0;
    r->dr[7] = 0x400;
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        r->seg[i] = (struct segment){.limit = 0xffffffff, .attr = 0x8093};
    }
    r->seg[SEG_CS].base = r->smbase;
    r->seg[SEG_CS].selector = (uint16_t)(r->smbase >> 4);
    r->seg[SEG_CS].attr = 0x809b;
    cpu->traps = 0;
    tlb_flush(cpu, true);
}

void cpu_leave_smm(struct vcpu *cpu)
{
    struct regs *r = &cpu->r;
    uint64_t area = r->smbase + SAVE_AT, smbase = r->smbase;
    restore(cpu, area);
    bool relocate = space_load(cpu->memory, area + 0x7efc, 4) & 0x20000;
    r->smbase = relocate ? (uint32_t)r->smbase : smbase;
    r->halted = space_load(cpu->memory, area + 0x7ec9, 1) & 1;
    r->rflags |= 2;
    r->in_smm = 0;
    r->nmi_blocked &= 1;
    cpu->memory = cpu->memory_normal;
    tlb_flush(cpu, true);
}
