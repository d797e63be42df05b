/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * handlers: the one table of all instructions' handlers, and the checks before a handler.
 *
 * Spec: Intel SDM, volume 2, "Instruction Format" and the exception tables of each
 * instruction; volume 3A, "System Programming for Instruction Set Extensions".
 */
#include "guest/cpu/interp/handlers.h"

#include "guest/cpu/models.h"

interp_fn *interp_handlers[OP_COUNT];

static const struct interp_table *const tables[] = {
    &interp_integer, &interp_branch,  &interp_string, &interp_vector, &interp_x87, &interp_native,
    &interp_control, &interp_far,     &interp_segment, &interp_io,    &interp_system,
};

static void do_unknown(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    cpu_raise(cpu, VEC_UD);
}

void interp_handlers_init(void)
{
    static gsize done;
    if (!g_once_init_enter(&done)) {
        return;
    }
    for (unsigned op = 0; op < OP_COUNT; op++) {
        interp_handlers[op] = do_unknown;
    }
    for (unsigned t = 0; t < G_N_ELEMENTS(tables); t++) {
        for (unsigned i = 0; i < tables[t]->n; i++) {
            interp_handlers[tables[t]->rows[i].op] = tables[t]->rows[i].fn;
        }
    }
    g_once_init_leave(&done, 1);
}

/* ---- checks ---- */

enum { XCR0_SSE_AVX = 6 };

static void check_sse(struct vcpu *cpu)
{
    if ((cpu->r.cr0 & CR0_EM) || !(cpu->r.cr4 & CR4_OSFXSR)) {
        cpu_raise(cpu, VEC_UD);
    }
    if (cpu->r.cr0 & CR0_TS) {
        cpu_raise(cpu, VEC_NM);
    }
}

static void check_x87(struct vcpu *cpu, const struct insn *i)
{
    bool wait = i->op == OP_FWAIT;
    uint64_t stops = wait ? CR0_TS | CR0_MP : CR0_TS | CR0_EM;
    if (wait ? (cpu->r.cr0 & stops) == stops : cpu->r.cr0 & stops) {
        cpu_raise(cpu, VEC_NM);
    }
}

static void check_mmx(struct vcpu *cpu)
{
    if (cpu->r.cr0 & CR0_EM) {
        cpu_raise(cpu, VEC_UD);
    }
    if (cpu->r.cr0 & CR0_TS) {
        cpu_raise(cpu, VEC_NM);
    }
}

static void check_avx(struct vcpu *cpu)
{
    if (cpu_real_mode(cpu) || cpu_v86(cpu) || !(cpu->r.cr4 & CR4_OSXSAVE) ||
        (cpu->r.xcr0 & XCR0_SSE_AVX) != XCR0_SSE_AVX) {
        cpu_raise(cpu, VEC_UD);
    }
    if (cpu->r.cr0 & CR0_TS) {
        cpu_raise(cpu, VEC_NM);
    }
}

/* FXSAVE and XSAVE families stand in CLASS_SSE and have conditions of their own. */
static bool check_state_save(struct vcpu *cpu, const struct insn *i)
{
    switch (i->op) {
    case OP_FXSAVE:
    case OP_FXRSTOR:
        if (cpu->r.cr0 & (CR0_EM | CR0_TS)) {
            cpu_raise(cpu, VEC_NM);
        }
        return true;
    case OP_XSAVE:
    case OP_XRSTOR:
    case OP_XSAVEOPT:
    case OP_XSAVEC:
        if (!(cpu->r.cr4 & CR4_OSXSAVE)) {
            cpu_raise(cpu, VEC_UD);
        }
        if (cpu->r.cr0 & CR0_TS) {
            cpu_raise(cpu, VEC_NM);
        }
        return true;
    default:
        return false;
    }
}

void cpu_check_vector(struct vcpu *cpu, const struct insn *i)
{
    switch (i->desc->class) {
    case CLASS_X87:
        check_x87(cpu, i);
        break;
    case CLASS_MMX:
        check_mmx(cpu);
        break;
    case CLASS_SSE:
        if (!check_state_save(cpu, i)) {
            check_sse(cpu);
        }
        break;
    case CLASS_AVX:
        check_avx(cpu);
        break;
    case CLASS_AVX512:
        cpu_raise(cpu, VEC_UD);
    default:
        if (i->encoding == ENC_VEX && (cpu_real_mode(cpu) || cpu_v86(cpu))) {
            cpu_raise(cpu, VEC_UD); /* BMI */
        }
    }
}

bool interp_plain(const struct insn *i)
{
    const struct insn_desc *d = i->desc;
    bool integer = d->class <= CLASS_FAR || d->class >= CLASS_SYSTEM;
    return integer && d->class != CLASS_UNDEFINED && !d->cpuid && !(d->bits & INSN_CPL0) &&
           !(i->prefixes & PFX_LOCK) && i->encoding == ENC_LEGACY;
}

void interp_check(struct vcpu *cpu, const struct insn *i)
{
    const struct insn_desc *d = i->desc;
    if (d->class == CLASS_UNDEFINED || !cpu->model->insn_offers[d->cpuid]) {
        cpu_raise(cpu, VEC_UD);
    }
    if ((i->prefixes & PFX_LOCK) && !((d->bits & INSN_LOCKABLE) && i->mem)) {
        cpu_raise(cpu, VEC_UD);
    }
    cpu_check_vector(cpu, i);
    if ((d->bits & INSN_CPL0) && vcpu_cpl(cpu)) {
        /* Some have conditions that come before; their handlers look at CPL again. */
        switch (i->op) {
        case OP_LLDT:
        case OP_LTR:
        case OP_SYSRET:
        case OP_SYSEXIT:
            return;
        default:
            cpu_raise_code(cpu, VEC_GP, 0);
        }
    }
}
