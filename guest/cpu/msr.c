/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * msr: model-specific registers.  A row says where the value lies, which bits a write may
 * set, and what else happens.
 *
 * Spec: Intel SDM, volume 4, "Model-Specific Registers"; AMD APM, volume 2, appendix "MSR
 * Cross-Reference"; Linux kernel documentation, "KVM-specific MSRs".
 */
#include "guest/cpu/msr.h"

#include "base/log.h"
#include "guest/cpu/models.h"
#include "guest/cpu/paravirt.h"
#include "guest/cpu/tlb.h"
#include "guest/time/clock.h"

#include <inttypes.h>
#include <string.h>

enum msr_kind {
    MSR_PLAIN = 0,
    MSR_CANONICAL = 1 << 0, /* #GP unless the value is canonical */
    MSR_PAT_TYPES = 1 << 1, /* eight memory types */
    MSR_DROP = 1 << 2,      /* writes are dropped, reads give .value */
    MSR_READ_ONLY = 1 << 3, /* writes are #GP */
};

struct msr {
    uint32_t first, n;   /* numbers */
    uint16_t field;      /* offsetof() in struct regs; .n of them in a row */
    uint8_t kind;        /* enum msr_kind */
    uint8_t needs;       /* enum cpuid_feature */
    uint64_t settable;   /* other bits set in a write: #GP */
    uint64_t value;      /* MSR_DROP, MSR_READ_ONLY */
    bool (*read)(struct vcpu *cpu, uint32_t msr, uint64_t *v);
    bool (*write)(struct vcpu *cpu, uint32_t msr, uint64_t v);
};

static bool is_canonical_address(uint64_t a)
{
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

/* ---- clocks ---- */

static bool read_tsc(struct vcpu *cpu, uint32_t msr, uint64_t *v)
{
    (void)msr;
    *v = vcpu_tsc(cpu);
    return true;
}

static bool write_tsc(struct vcpu *cpu, uint32_t msr, uint64_t v)
{
    (void)msr;
    uint64_t moved = v - vcpu_tsc(cpu);
    cpu->r.tsc_offset += moved;
    cpu->r.tsc_adjust += moved;
    return true;
}

static bool write_tsc_adjust(struct vcpu *cpu, uint32_t msr, uint64_t v)
{
    (void)msr;
    cpu->r.tsc_offset += v - cpu->r.tsc_adjust;
    cpu->r.tsc_adjust = v;
    return true;
}

/* struct pvclock_vcpu_time_info of the KVM documentation. */
struct pvclock {
    uint32_t version, pad;
    uint64_t tsc, ns;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, pad2[2];
};
enum { PVCLOCK_STABLE = 1 };

/* ns = (ticks << shift) * mul >> 32, mul as large as fits. */
static void scale_of(uint64_t hz, uint32_t *mul, int8_t *shift)
{
    uint64_t ns = 1000000000, ticks = hz;
    *shift = 0;
    while (ticks > 2 * ns || ticks >> 32) {
        ticks >>= 1;
        --*shift;
    }
    while (ticks <= ns) {
        ticks <<= 1;
        ++*shift;
    }
    *mul = (uint32_t)((ns << 32) / ticks);
}

static bool write_system_time(struct vcpu *cpu, uint32_t msr, uint64_t v)
{
    (void)msr;
    cpu->r.kvm_system_time = v;
    if (!(v & 1)) {
        return true;
    }
    /* The guest's clock and TSC stop and go together, so one reading serves forever. */
    uint64_t tsc = vcpu_tsc(cpu);
    struct pvclock c = {.version = 2, .tsc = tsc, .ns = (uint64_t)clock_now(),
                        .flags = PVCLOCK_STABLE};
    scale_of(tsc_hz(), &c.mul, &c.shift);
    space_write(cpu->memory, v & ~UINT64_C(1), &c, sizeof(c));
    return true;
}

static bool write_wall_clock(struct vcpu *cpu, uint32_t msr, uint64_t v)
{
    (void)msr;
    int64_t boot = clock_wall_ns() - clock_now();
    uint32_t image[3] = {2, (uint32_t)(boot / 1000000000), (uint32_t)(boot % 1000000000)};
    cpu->r.kvm_wall_clock = v;
    space_write(cpu->memory, v, image, sizeof(image));
    return true;
}

static bool write_steal_time(struct vcpu *cpu, uint32_t msr, uint64_t v)
{
    (void)msr;
    return paravirt_steal_time(cpu, v);
}

/* ---- what has effects ---- */

static bool write_efer(struct vcpu *cpu, uint32_t msr, uint64_t v)
{
    const struct cpu_model *m = cpu->model;
    uint64_t known = EFER_LMA;
    known |= m->offers[FEAT_SYSCALL] ? EFER_SCE : 0;
    known |= m->offers[FEAT_LM] ? EFER_LME : 0;
    known |= m->offers[FEAT_NX] ? EFER_NXE : 0;
    known |= m->offers[FEAT_FXSR_OPT] ? EFER_FFXSR : 0;
    (void)msr;
    if ((v & ~known) || ((cpu->r.cr0 & CR0_PG) && ((v ^ cpu->r.efer) & EFER_LME))) {
        return false;
    }
    bool flush = (v ^ cpu->r.efer) & EFER_NXE;
    cpu->r.efer = (v & ~(uint64_t)EFER_LMA) | (cpu->r.efer & EFER_LMA);
    if (flush) {
        tlb_flush(cpu, true);
    }
    return true;
}

static bool read_base(struct vcpu *cpu, uint32_t msr, uint64_t *v)
{
    *v = cpu->r.seg[msr == 0xc0000100 ? SEG_FS : SEG_GS].base;
    return true;
}

static bool write_base(struct vcpu *cpu, uint32_t msr, uint64_t v)
{
    cpu->r.seg[msr == 0xc0000100 ? SEG_FS : SEG_GS].base = v;
    return true;
}

static bool read_apic(struct vcpu *cpu, uint32_t msr, uint64_t *v)
{
    const struct vcpu_board *b = cpu->board;
    if (b && b->apic_msr_read) {
        return b->apic_msr_read(b->owner, cpu, msr, v);
    }
    *v = cpu->r.apic_base;
    return msr == 0x1b;
}

static bool write_apic(struct vcpu *cpu, uint32_t msr, uint64_t v)
{
    const struct vcpu_board *b = cpu->board;
    if (b && b->apic_msr_write) {
        return b->apic_msr_write(b->owner, cpu, msr, v);
    }
    cpu->r.apic_base = v;
    return msr == 0x1b;
}


static bool write_mtrr_base(struct vcpu *cpu, uint32_t msr, uint64_t v)
{
    unsigned n = (msr - 0x200) / 2;
    uint64_t *field = msr & 1 ? &cpu->r.mtrr_mask[n] : &cpu->r.mtrr_base[n];
    if (v >> cpu->model->phys_bits || (v & (msr & 1 ? 0x7ff : 0xf00))) {
        return false;
    }
    *field = v;
    return true;
}

static bool read_mtrr_base(struct vcpu *cpu, uint32_t msr, uint64_t *v)
{
    unsigned n = (msr - 0x200) / 2;
    *v = msr & 1 ? cpu->r.mtrr_mask[n] : cpu->r.mtrr_base[n];
    return true;
}

/* ---- the table ---- */

/* RDCL_NO, IBRS_ALL, SKIP_L1DFL, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO,
 * FBSDP_NO, PSDP_NO, PBRSB_NO, GDS_NO, RFDS_NO: a software processor leaks none of that. */
#define ARCH_CAPABILITIES UINT64_C(0xd0ee17b)
#define ANY UINT64_MAX
#define AT(name) offsetof(struct regs, name)
enum { MCG_BANKS = 10 };

static const struct msr msrs[] = {
    {0x10, 1, 0, 0, FEAT_TSC, ANY, 0, read_tsc, write_tsc},
    {0x17, 1, 0, MSR_READ_ONLY},
    {0x1b, 1, 0, 0, FEAT_APIC, ANY, 0, read_apic, write_apic},
    {0x2a, 1, 0, MSR_DROP},
    {0x34, 1, 0, MSR_READ_ONLY},
    {0x3a, 1, 0, MSR_READ_ONLY, FEAT_NONE, 0, 1},
    {0x3b, 1, AT(tsc_adjust), 0, FEAT_TSC_ADJUST, ANY, 0, NULL, write_tsc_adjust},
    {0x48, 1, AT(spec_ctrl), 0, FEAT_SPEC_CTRL, 7},
    {0x49, 1, 0, MSR_DROP, FEAT_SPEC_CTRL},
    {0x79, 1, 0, MSR_DROP},
    {0x8b, 1, 0, MSR_DROP, FEAT_NONE, 0, UINT64_C(1) << 32},
    {0xc1, 2, 0, MSR_DROP}, /* performance counters: leaf 0xa says there are none */
    {0xfe, 1, 0, MSR_READ_ONLY, FEAT_MTRR, 0, 0x508},
    {0x10a, 1, 0, MSR_READ_ONLY, FEAT_ARCH_CAPABILITIES, 0, ARCH_CAPABILITIES},
    {0x174, 1, AT(sysenter_cs), 0, FEAT_SEP, ANY},
    {0x175, 1, AT(sysenter_esp), MSR_CANONICAL, FEAT_SEP, ANY},
    {0x176, 1, AT(sysenter_eip), MSR_CANONICAL, FEAT_SEP, ANY},
    {0x179, 1, 0, MSR_READ_ONLY, FEAT_MCA, 0, MCG_BANKS | 1 << 8 | 1 << 24},
    {0x17a, 1, AT(mcg_status), 0, FEAT_MCA, ANY},
    {0x17b, 1, AT(mcg_ctl), 0, FEAT_MCA, ANY},
    {0x186, 2, 0, MSR_DROP},
    {0x198, 1, 0, MSR_READ_ONLY, FEAT_NONE, 0, 0x3e8 | UINT64_C(0x400) << 32},
    {0x19a, 3, 0, MSR_DROP},
    {0x1a0, 1, AT(misc_enable), 0, FEAT_NONE, ANY},
    {0x1d9, 1, AT(debugctl), 0, FEAT_NONE, 3},
    {0x1db, 4, 0, MSR_READ_ONLY},
    {0x200, 16, 0, 0, FEAT_MTRR, ANY, 0, read_mtrr_base, write_mtrr_base},
    {0x250, 1, AT(mtrr_fixed[0]), 0, FEAT_MTRR, ANY},
    {0x258, 2, AT(mtrr_fixed[1]), 0, FEAT_MTRR, ANY},
    {0x268, 8, AT(mtrr_fixed[3]), 0, FEAT_MTRR, ANY},
    {0x277, 1, AT(pat), MSR_PAT_TYPES, FEAT_PAT, ANY},
    {0x2ff, 1, AT(mtrr_def_type), 0, FEAT_MTRR, 0xcff},
    {0x400, MCG_BANKS * 4, AT(mc_bank), 0, FEAT_MCA, ANY},
    {0x6e0, 1, 0, 0, FEAT_TSC_DEADLINE, ANY, 0, read_apic, write_apic},
    {0x800, 0x100, 0, 0, FEAT_X2APIC, ANY, 0, read_apic, write_apic},
    {0xc0000080, 1, AT(efer), 0, FEAT_NONE, ANY, 0, NULL, write_efer},
    {0xc0000081, 1, AT(star), 0, FEAT_SYSCALL, ANY},
    {0xc0000082, 1, AT(lstar), MSR_CANONICAL, FEAT_LM, ANY},
    {0xc0000083, 1, AT(cstar), MSR_CANONICAL, FEAT_LM, ANY},
    {0xc0000084, 1, AT(fmask), 0, FEAT_LM, 0xffffffff},
    {0xc0000100, 2, 0, MSR_CANONICAL, FEAT_LM, ANY, 0, read_base, write_base},
    {0xc0000102, 1, AT(kernel_gs_base), MSR_CANONICAL, FEAT_LM, ANY},
    {0xc0000103, 1, AT(tsc_aux), 0, FEAT_RDTSCP, 0xffffffff},
    {0xc0010000, 8, 0, MSR_DROP},  /* K7 performance counters */
    {0xc0010010, 1, 0, MSR_DROP},  /* SYSCFG */
    {0xc0010015, 1, 0, MSR_DROP, FEAT_NONE, 0, 1u << 24}, /* HWCR: TSC at P0 frequency */
    {0xc001001f, 1, 0, MSR_DROP},
    {0xc0010055, 1, 0, MSR_DROP},
    {0xc0010058, 1, 0, MSR_DROP},
    {0xc0010061, 3, 0, MSR_DROP},
    {0xc0010064, 8, 0, MSR_DROP},
    {0xc0010114, 1, 0, MSR_DROP, FEAT_NONE, 0, 1 << 4}, /* VM_CR: SVM off */
    {0xc0010117, 1, 0, MSR_DROP},
    {0xc0010140, 2, 0, MSR_DROP},
    {0xc0011005, 1, 0, MSR_DROP},
    {0xc0011020, 16, 0, MSR_DROP}, /* LS_CFG, DC_CFG, DE_CFG ... */
    {0x11, 1, AT(kvm_wall_clock), 0, FEAT_KVMCLOCK, ANY, 0, NULL, write_wall_clock},
    {0x12, 1, AT(kvm_system_time), 0, FEAT_KVMCLOCK, ANY, 0, NULL, write_system_time},
    {0x4b564d00, 1, AT(kvm_wall_clock), 0, FEAT_KVMCLOCK, ANY, 0, NULL, write_wall_clock},
    {0x4b564d01, 1, AT(kvm_system_time), 0, FEAT_KVMCLOCK, ANY, 0, NULL, write_system_time},
    {0x4b564d03, 1, AT(kvm_steal_time), 0, FEAT_KVM_STEAL_TIME, ANY, 0, NULL, write_steal_time},
    {0x4b564d04, 1, AT(kvm_eoi), 0, FEAT_KVM_PV_EOI, ANY, 0, NULL, write_apic},
};

static const struct msr *find(const struct vcpu *cpu, uint32_t msr)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(msrs); i++) {
        const struct msr *m = &msrs[i];
        if (msr - m->first < m->n) {
            return cpu->model->offers[m->needs] ? m : NULL;
        }
    }
    return NULL;
}

static uint64_t *field_of(struct vcpu *cpu, const struct msr *m, uint32_t msr)
{
    return (uint64_t *)((uint8_t *)&cpu->r + m->field) + (msr - m->first);
}

bool cpu_rdmsr(struct vcpu *cpu, uint32_t msr, uint64_t *value)
{
    const struct msr *m = find(cpu, msr);
    if (!m) {
        log_line(LOG_UNIMP, "CPU %u rdmsr %#x at %" PRIx64, cpu->index, msr, cpu->r.rip);
        return false;
    }
    if (m->kind & (MSR_DROP | MSR_READ_ONLY)) {
        *value = m->value;
        return true;
    }
    if (m->read) {
        return m->read(cpu, msr, value);
    }
    *value = *field_of(cpu, m, msr);
    return true;
}

static bool valid(const struct msr *m, uint64_t v)
{
    if ((v & ~m->settable) || ((m->kind & MSR_CANONICAL) && !is_canonical_address(v))) {
        return false;
    }
    for (unsigned i = 0; (m->kind & MSR_PAT_TYPES) && i < 8; i++) {
        unsigned type = v >> i * 8 & 0xff;
        if (type > 7 || type == 2 || type == 3) {
            return false;
        }
    }
    return true;
}

bool cpu_wrmsr(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    const struct msr *m = find(cpu, msr);
    if (!m || (m->kind & MSR_READ_ONLY)) {
        log_line(LOG_UNIMP, "CPU %u wrmsr %#x = %#" PRIx64 " at %" PRIx64, cpu->index, msr, value,
                 cpu->r.rip);
        return false;
    }
    if (m->kind & MSR_DROP) {
        return true;
    }
    if (!valid(m, value)) {
        return false;
    }
    if (m->write) {
        return m->write(cpu, msr, value);
    }
    *field_of(cpu, m, msr) = value;
    return true;
}
