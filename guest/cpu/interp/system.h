/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/interp/interp.h"

/* What the files of the system part share: descriptors, task switches, SMM. */

/* A descriptor as fetched from a table; .attr as in struct segment. */
struct descriptor {
    uint64_t base;
    uint32_t limit, attr;
    uint32_t low, high;  /* the two words */
    uint64_t at;         /* linear address */
};
enum {
    DESC_TSS16 = 1, DESC_LDT = 2, DESC_TSS16_BUSY = 3, DESC_CALL16 = 4, DESC_TASK_GATE = 5,
    DESC_INT16 = 6, DESC_TRAP16 = 7, DESC_TSS = 9, DESC_TSS_BUSY = 11, DESC_CALL = 12,
    DESC_INT = 14, DESC_TRAP = 15,
};
enum { CODE_READ = 2, CODE_CONFORMING = 4, TYPE_IS_CODE = 8, DATA_WRITE = 2, DATA_DOWN = 4 };
enum { SELECTOR_TI = 4, ERROR_EXT = 1, ERROR_IDT = 2 };

static inline bool desc_is_code(const struct descriptor *d)
{
    return (d->attr & (SEG_S | TYPE_IS_CODE)) == (SEG_S | TYPE_IS_CODE);
}
static inline bool desc_is_writable_data(const struct descriptor *d)
{
    return (d->attr & (SEG_S | TYPE_IS_CODE | DATA_WRITE)) == (SEG_S | DATA_WRITE);
}
static inline unsigned desc_dpl(const struct descriptor *d)
{
    return d->attr >> SEG_DPL_SHIFT & 3;
}
static inline unsigned desc_type(const struct descriptor *d) /* bit 4: S */
{
    return d->attr & (SEG_S | SEG_TYPE);
}

void sys_probe(struct vcpu *cpu, uint64_t linear, unsigned n, bool write);

/* False: the selector is beyond its table.  May raise #PF. */
bool descriptor_fetch(struct vcpu *cpu, uint16_t selector, struct descriptor *out);
/* The same, raising @vector(selector + @ext) if it is null or beyond. */
void descriptor_need(struct vcpu *cpu, uint16_t selector, enum vector vector, unsigned ext,
                     struct descriptor *out);
void descriptor_set_accessed(struct vcpu *cpu, struct descriptor *d);
void segment_set(struct segment *s, uint16_t selector, const struct descriptor *d);
void segment_set_null(struct segment *s, uint16_t selector);
void segment_set_real(struct vcpu *cpu, enum seg_name seg, uint16_t selector); /* and v8086 */
/* Sets SS's DPL, which is the CPL. */
static inline void cpu_set_cpl(struct vcpu *cpu, unsigned cpl)
{
    cpu->r.seg[SEG_SS].attr =
        (cpu->r.seg[SEG_SS].attr & ~(3u << SEG_DPL_SHIFT)) | cpl << SEG_DPL_SHIFT;
}

/* CS for a transfer to @selector within @cpl: loads CS; the caller has checked. */
void load_code_segment(struct vcpu *cpu, uint16_t selector, struct descriptor *d, unsigned cpl);

/*
 * A stack segment for privilege level @cpl: checks as for an inner stack from a TSS
 * (@vector is #TS or, for returns, #GP).
 */
void check_stack_segment(struct vcpu *cpu, uint16_t selector, unsigned cpl, enum vector vector,
                         unsigned ext, struct descriptor *out);
/* SS:rSP of level @level from the current TSS (64-bit: .selector is 0). */
struct stack_pointer {
    uint16_t selector;
    uint64_t sp;
};
struct stack_pointer tss_stack(struct vcpu *cpu, unsigned level, unsigned ext);

/* Pushes into a stack that is not yet the current one. */
struct stack {
    struct segment ss;
    uint64_t sp;
    enum tlb_mode mode;
    unsigned bytes;      /* of its pointer: 2, 4, 8 */
    uint16_t error;      /* code of the #SS that an overrun raises */
};
void stack_open(struct vcpu *cpu, struct stack *s, const struct segment *ss, uint64_t sp,
                unsigned cpl, bool long_mode);
/* Raises what @n bytes of pushes would raise; after it they do not. */
void stack_room(struct vcpu *cpu, struct stack *s, unsigned n);
void stack_put(struct vcpu *cpu, struct stack *s, uint64_t value, unsigned bytes);

enum task_reason { TASK_JMP, TASK_CALL, TASK_INT, TASK_IRET };
/* To the task whose TSS @selector names; @next is the EIP saved in the old one. */
void task_switch(struct vcpu *cpu, uint16_t selector, const struct descriptor *tss,
                 enum task_reason reason, uint64_t next, bool has_code, uint32_t code);

/* Flags that a load of EFLAGS with all rights may change. */
#define FLAGS_LOADABLE                                                                             \
    (FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ID)
static inline void cpu_set_flags(struct vcpu *cpu, uint64_t image, uint64_t mask)
{
    cpu->r.rflags = (cpu->r.rflags & ~mask) | (image & mask) | 2;
}

/* A #DB fault that sets @dr6 in DR6. */
G_NORETURN void cpu_raise_debug(struct vcpu *cpu, uint64_t dr6);

void smm_enter(struct vcpu *cpu);
void cpu_leave_smm(struct vcpu *cpu); /* RSM */

/* Control registers, with all checks; they raise #GP. */
void cpu_write_cr0(struct vcpu *cpu, uint64_t v);
void cpu_write_cr3(struct vcpu *cpu, uint64_t v);
void cpu_write_cr4(struct vcpu *cpu, uint64_t v);
