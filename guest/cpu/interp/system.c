/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * system: CPUID, MSRs, time stamps, FS and GS bases, XCR0, waiting, hypercalls.
 *
 * Spec: Intel SDM, volume 2; AMD APM, volume 3; Linux kernel documentation, "KVM
 * Hypercalls".
 */
#include "guest/cpu/interp/system.h"
#include "guest/cpu/models.h"
#include "guest/cpu/msr.h"
#include "guest/cpu/paravirt.h"

static G_NORETURN void gp(struct vcpu *cpu)
{
    cpu_raise_code(cpu, VEC_GP, 0);
}

static void do_cpuid(struct vcpu *cpu, const struct insn *i)
{
    struct regs *r = &cpu->r;
    (void)i;
    struct cpuid_regs c = cpu_cpuid(cpu, (uint32_t)r->gpr[RAX], (uint32_t)r->gpr[RCX]);
    r->gpr[RAX] = c.eax;
    r->gpr[RBX] = c.ebx;
    r->gpr[RCX] = c.ecx;
    r->gpr[RDX] = c.edx;
}

static void set_edx_eax(struct vcpu *cpu, uint64_t v)
{
    cpu->r.gpr[RAX] = (uint32_t)v;
    cpu->r.gpr[RDX] = v >> 32;
}

static uint64_t edx_eax(const struct vcpu *cpu)
{
    return cpu->r.gpr[RDX] << 32 | (uint32_t)cpu->r.gpr[RAX];
}

static void do_rdmsr(struct vcpu *cpu, const struct insn *i)
{
    uint64_t v;
    (void)i;
    if (!cpu_rdmsr(cpu, (uint32_t)cpu->r.gpr[RCX], &v)) {
        gp(cpu);
    }
    set_edx_eax(cpu, v);
}

static void do_wrmsr(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    if (!cpu_wrmsr(cpu, (uint32_t)cpu->r.gpr[RCX], edx_eax(cpu))) {
        gp(cpu);
    }
}

static void check_tsd(struct vcpu *cpu)
{
    if ((cpu->r.cr4 & CR4_TSD) && vcpu_cpl(cpu)) {
        gp(cpu);
    }
}

static void do_rdtsc(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    check_tsd(cpu);
    set_edx_eax(cpu, vcpu_tsc(cpu));
}

static void do_rdtscp(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    check_tsd(cpu);
    set_edx_eax(cpu, vcpu_tsc(cpu));
    cpu->r.gpr[RCX] = (uint32_t)cpu->r.tsc_aux;
}

static void do_rdpid(struct vcpu *cpu, const struct insn *i)
{
    cpu->r.gpr[i->rm] = (uint32_t)cpu->r.tsc_aux;
}

static void do_rdpmc(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    if ((!(cpu->r.cr4 & CR4_PCE) && vcpu_cpl(cpu)) || (uint32_t)cpu->r.gpr[RCX] >= 4) {
        gp(cpu);
    }
    set_edx_eax(cpu, 0);
}

static void do_swapgs(struct vcpu *cpu, const struct insn *i)
{
    uint64_t base = cpu->r.seg[SEG_GS].base;
    (void)i;
    cpu->r.seg[SEG_GS].base = cpu->r.kernel_gs_base;
    cpu->r.kernel_gs_base = base;
}

static void check_fsgsbase(struct vcpu *cpu)
{
    if (!(cpu->r.cr4 & CR4_FSGSBASE)) {
        cpu_raise(cpu, VEC_UD);
    }
}

static void do_rdfsbase(struct vcpu *cpu, const struct insn *i)
{
    check_fsgsbase(cpu);
    reg_write(cpu, i, i->rm, i->opsize, cpu->r.seg[SEG_FS].base);
}

static void do_rdgsbase(struct vcpu *cpu, const struct insn *i)
{
    check_fsgsbase(cpu);
    reg_write(cpu, i, i->rm, i->opsize, cpu->r.seg[SEG_GS].base);
}

static void write_base(struct vcpu *cpu, const struct insn *i, enum seg_name seg)
{
    check_fsgsbase(cpu);
    uint64_t v = reg_read(cpu, i, i->rm, i->opsize);
    if (!is_canonical(v)) {
        gp(cpu);
    }
    cpu->r.seg[seg].base = v;
}

static void do_wrfsbase(struct vcpu *cpu, const struct insn *i)
{
    write_base(cpu, i, SEG_FS);
}

static void do_wrgsbase(struct vcpu *cpu, const struct insn *i)
{
    write_base(cpu, i, SEG_GS);
}

/* ---- XCR0 ---- */

enum { XCR0_X87 = 1, XCR0_SSE = 2, XCR0_AVX = 4, XCR0_AVX512 = 0xe0 };

static void need_osxsave(struct vcpu *cpu)
{
    if (!(cpu->r.cr4 & CR4_OSXSAVE)) {
        cpu_raise(cpu, VEC_UD);
    }
}

static void do_xgetbv(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    need_osxsave(cpu);
    uint32_t n = (uint32_t)cpu->r.gpr[RCX];
    if (n == 0) {
        set_edx_eax(cpu, cpu->r.xcr0);
    } else if (n == 1 && cpu->model->offers[FEAT_XGETBV1]) {
        uint64_t in_use;
        memcpy(&in_use, cpu->r.xsave + 512, 8);
        set_edx_eax(cpu, cpu->r.xcr0 & (in_use | XCR0_X87));
    } else {
        gp(cpu);
    }
}

static void do_xsetbv(struct vcpu *cpu, const struct insn *i)
{
    uint64_t v = edx_eax(cpu);
    (void)i;
    need_osxsave(cpu);
    bool avx512 = v & XCR0_AVX512;
    if ((uint32_t)cpu->r.gpr[RCX] || (v & ~(uint64_t)cpu->model->xcr0_mask) || !(v & XCR0_X87) ||
        ((v & XCR0_AVX) && !(v & XCR0_SSE)) ||
        (avx512 && ((v & XCR0_AVX512) != XCR0_AVX512 || !(v & XCR0_AVX)))) {
        gp(cpu);
    }
    cpu->r.xcr0 = v;
}

/* ---- waiting and calling out ---- */

static void do_monitor(struct vcpu *cpu, const struct insn *i)
{
    if (vcpu_cpl(cpu)) {
        cpu_raise(cpu, VEC_UD);
    }
    uint64_t at = cpu->r.gpr[RAX] & size_mask(i->addrsize);
    mem_load(cpu, seg_linear(cpu, (enum seg_name)i->seg, at, 1, false), 1);
}

/* Any store may have been the awaited one, so it never waits. */
static void do_mwait(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    if (vcpu_cpl(cpu)) {
        cpu_raise(cpu, VEC_UD);
    }
}

static void do_vmcall(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    if (!cpu->model->kvm_pv) {
        cpu_raise(cpu, VEC_UD);
    }
    paravirt_call(cpu);
}

static const struct interp_row interp_system_rows[] = {
    {OP_CPUID, do_cpuid}, {OP_RDMSR, do_rdmsr}, {OP_WRMSR, do_wrmsr}, {OP_RDTSC, do_rdtsc},
    {OP_RDTSCP, do_rdtscp}, {OP_RDPID, do_rdpid}, {OP_RDPMC, do_rdpmc}, {OP_SWAPGS, do_swapgs},
    {OP_RDFSBASE, do_rdfsbase}, {OP_RDGSBASE, do_rdgsbase}, {OP_WRFSBASE, do_wrfsbase},
    {OP_WRGSBASE, do_wrgsbase}, {OP_XGETBV, do_xgetbv}, {OP_XSETBV, do_xsetbv},
    {OP_MONITOR, do_monitor}, {OP_MWAIT, do_mwait}, {OP_VMCALL, do_vmcall},
    {OP_VMMCALL, do_vmcall},
};
INTERP_TABLE(interp_system);
