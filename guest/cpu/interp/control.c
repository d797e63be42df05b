/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * control: control and debug registers, the interrupt flag, translations.
 *
 * Spec: Intel SDM, volume 3A, "System Architecture Overview": "Control Registers"; "8086
 * Emulation": "Virtual Interrupts"; volume 2, "MOV - Move to/from Control Registers",
 * "... Debug Registers", "CLI", "STI", "PUSHF", "POPF", "LMSW", "INVLPG", "INVPCID".
 */
#include "guest/cpu/debug.h"
#include "guest/cpu/interp/system.h"
#include "guest/cpu/models.h"
#include "guest/cpu/paging.h"

static G_NORETURN void gp(struct vcpu *cpu)
{
    cpu_raise_code(cpu, VEC_GP, 0);
}

static bool offers(const struct vcpu *cpu, enum cpuid_feature f)
{
    return !cpu->model || cpu->model->offers[f];
}

/* ---- CR0, CR3, CR4 ---- */

static void leave_long_mode(struct vcpu *cpu)
{
    if (vcpu_code64(cpu)) {
        gp(cpu);
    }
    cpu->r.efer &= ~(uint64_t)EFER_LMA;
}

static void enter_long_mode(struct vcpu *cpu)
{
    if (!(cpu->r.cr4 & CR4_PAE) || (cpu->r.seg[SEG_CS].attr & SEG_L) || !(cpu->r.tr.attr & 8)) {
        gp(cpu);
    }
    cpu->r.efer |= EFER_LMA;
}

void cpu_write_cr0(struct vcpu *cpu, uint64_t v)
{
    uint64_t known = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM |
                     CR0_NW | CR0_CD | CR0_PG;
    if (v >> 32 || ((v & CR0_PG) && !(v & CR0_PE)) || ((v & CR0_NW) && !(v & CR0_CD))) {
        gp(cpu);
    }
    v = (v & known) | CR0_ET;
    uint64_t change = v ^ cpu->r.cr0;
    bool pae = (cpu->r.cr4 & CR4_PAE) && !(cpu->r.efer & EFER_LME);
    if ((v & CR0_PG) && (change & (CR0_PG | CR0_CD | CR0_NW)) && pae &&
        !paging_load_pdptes(cpu, cpu->r.cr3)) {
        gp(cpu);
    }
    if ((change & CR0_PG) && (cpu->r.efer & EFER_LME)) {
        if (v & CR0_PG) {
            enter_long_mode(cpu);
        } else {
            leave_long_mode(cpu);
        }
    }
    cpu->r.cr0 = v;
    if (change & (CR0_PG | CR0_WP | CR0_PE)) {
        tlb_flush(cpu, true);
    }
}

void cpu_write_cr3(struct vcpu *cpu, uint64_t v)
{
    bool lma = vcpu_long_mode(cpu);
    if (lma) {
        if (cpu->r.cr4 & CR4_PCIDE) {
            v &= ~(UINT64_C(1) << 63);
        }
        if (v >> (cpu->model ? cpu->model->phys_bits : 52)) {
            gp(cpu);
        }
    } else {
        v = (uint32_t)v;
        if ((cpu->r.cr0 & CR0_PG) && (cpu->r.cr4 & CR4_PAE) && !paging_load_pdptes(cpu, v)) {
            gp(cpu);
        }
    }
    cpu->r.cr3 = v;
    tlb_flush(cpu, false);
}

static uint64_t cr4_known(const struct vcpu *cpu)
{
    static const struct {
        uint32_t bit;
        uint8_t feature;
    } rows[] = {
        {CR4_VME | CR4_PVI, FEAT_VME}, {CR4_TSD, FEAT_TSC}, {CR4_DE, FEAT_DE},
        {CR4_PSE, FEAT_PSE}, {CR4_PAE, FEAT_PAE}, {CR4_MCE, FEAT_MCE}, {CR4_PGE, FEAT_PGE},
        {CR4_PCE, FEAT_NONE}, {CR4_OSFXSR, FEAT_FXSR}, {CR4_OSXMMEXCPT, FEAT_SSE},
        {CR4_UMIP, FEAT_UMIP}, {CR4_FSGSBASE, FEAT_FSGSBASE}, {CR4_PCIDE, FEAT_PCID},
        {CR4_OSXSAVE, FEAT_XSAVE}, {CR4_SMEP, FEAT_SMEP}, {CR4_SMAP, FEAT_SMAP}};
    uint64_t known = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        known |= offers(cpu, (enum cpuid_feature)rows[i].feature) ? rows[i].bit : 0;
    }
    return known;
}

void cpu_write_cr4(struct vcpu *cpu, uint64_t v)
{
    uint64_t change = v ^ cpu->r.cr4;
    if ((v & ~cr4_known(cpu)) || (vcpu_long_mode(cpu) && !(v & CR4_PAE))) {
        gp(cpu);
    }
    if ((change & v & CR4_PCIDE) && (!vcpu_long_mode(cpu) || (cpu->r.cr3 & 0xfff))) {
        gp(cpu);
    }
    uint64_t shape = CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP;
    if ((change & shape) && (v & CR4_PAE) && (cpu->r.cr0 & CR0_PG) && !vcpu_long_mode(cpu) &&
        !paging_load_pdptes(cpu, cpu->r.cr3)) {
        gp(cpu);
    }
    cpu->r.cr4 = v;
    if (change & (shape | CR4_SMAP | CR4_PCIDE)) {
        tlb_flush(cpu, true);
    }
}

static uint64_t read_cr8(struct vcpu *cpu)
{
    const struct vcpu_board *b = cpu->board;
    if (b && b->tpr_read) {
        cpu->r.cr8 = b->tpr_read(b->owner, cpu);
    }
    return cpu->r.cr8;
}

static void write_cr8(struct vcpu *cpu, uint64_t v)
{
    const struct vcpu_board *b = cpu->board;
    if (v > 15) {
        gp(cpu);
    }
    cpu->r.cr8 = v;
    if (b && b->tpr_write) {
        b->tpr_write(b->owner, cpu, v);
    }
}

static void do_mov_from_cr(struct vcpu *cpu, const struct insn *i)
{
    uint64_t v;
    switch (i->reg) {
    case 0:
        v = cpu->r.cr0;
        break;
    case 2:
        v = cpu->r.cr2;
        break;
    case 3:
        v = cpu->r.cr3;
        break;
    case 4:
        v = cpu->r.cr4;
        break;
    case 8:
        v = read_cr8(cpu);
        break;
    default:
        cpu_raise(cpu, VEC_UD);
    }
    cpu->r.gpr[i->rm] = vcpu_code64(cpu) ? v : (uint32_t)v;
}

static void do_mov_to_cr(struct vcpu *cpu, const struct insn *i)
{
    uint64_t v = vcpu_code64(cpu) ? cpu->r.gpr[i->rm] : (uint32_t)cpu->r.gpr[i->rm];
    switch (i->reg) {
    case 0:
        cpu_write_cr0(cpu, v);
        break;
    case 2:
        cpu->r.cr2 = v;
        break;
    case 3:
        cpu_write_cr3(cpu, v);
        break;
    case 4:
        cpu_write_cr4(cpu, v);
        break;
    case 8:
        write_cr8(cpu, v);
        break;
    default:
        cpu_raise(cpu, VEC_UD);
    }
}

static void do_lmsw(struct vcpu *cpu, const struct insn *i)
{
    if (vcpu_cpl(cpu)) {
        gp(cpu);
    }
    uint64_t v = i->mem ? mem_load(cpu, interp_linear(cpu, i, 2, false), 2) : cpu->r.gpr[i->rm];
    uint64_t low = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    v = (v & low) | (cpu->r.cr0 & CR0_PE); /* PE cannot be cleared */
    cpu_write_cr0(cpu, (cpu->r.cr0 & ~low) | v);
}

static void do_clts(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    cpu->r.cr0 &= ~(uint64_t)CR0_TS;
}

/* ---- debug registers ---- */

static unsigned dr_number(struct vcpu *cpu, const struct insn *i)
{
    unsigned n = i->reg;
    if (n > 7 || ((n == 4 || n == 5) && (cpu->r.cr4 & CR4_DE))) {
        cpu_raise(cpu, VEC_UD);
    }
    if (cpu->r.dr[7] & DR7_GD) {
        cpu_raise_debug(cpu, DR6_BD);
    }
    return n == 4 || n == 5 ? n + 2 : n;
}

static void do_mov_from_dr(struct vcpu *cpu, const struct insn *i)
{
    uint64_t v = cpu->r.dr[dr_number(cpu, i)];
    cpu->r.gpr[i->rm] = vcpu_code64(cpu) ? v : (uint32_t)v;
}

static void do_mov_to_dr(struct vcpu *cpu, const struct insn *i)
{
    unsigned n = dr_number(cpu, i);
    uint64_t v = vcpu_code64(cpu) ? cpu->r.gpr[i->rm] : (uint32_t)cpu->r.gpr[i->rm];
    if (n >= 6 && v >> 32) {
        gp(cpu);
    }
    if (n == 6) {
        v = (v & 0xe00f) | 0xffff0ff0;
    } else if (n == 7) {
        v = (v & 0xffff2fff) | 0x400;
    }
    cpu->r.dr[n] = v;
    tlb_flush(cpu, true); /* watched pages have no direct path */
}

/* ---- flags ---- */

uint64_t cpu_pushf(struct vcpu *cpu, unsigned bytes)
{
    uint64_t v = cpu->r.rflags & ~(uint64_t)(FLAG_VM | FLAG_RF);
    if (cpu_v86(cpu) && cpu_iopl(cpu) < 3) {
        if (!(cpu->r.cr4 & CR4_VME) || bytes != 2) {
            gp(cpu);
        }
        v = (v & ~(uint64_t)FLAG_IF) | FLAG_IOPL | (v & FLAG_VIF ? FLAG_IF : 0);
    }
    return v;
}

static void popf_vme(struct vcpu *cpu, uint64_t image)
{
    if ((image & FLAG_TF) || ((image & FLAG_IF) && (cpu->r.rflags & FLAG_VIP))) {
        gp(cpu);
    }
    image |= image & FLAG_IF ? FLAG_VIF : 0;
    cpu_set_flags(cpu, image, FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_VIF);
}

void cpu_popf(struct vcpu *cpu, uint64_t image, unsigned bytes)
{
    uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;
    if (bytes > 2) {
        mask |= FLAG_AC | FLAG_ID | FLAG_RF;
        image &= ~(uint64_t)FLAG_RF;
    }
    if (cpu_v86(cpu)) {
        if (cpu_iopl(cpu) < 3) {
            if (!(cpu->r.cr4 & CR4_VME) || bytes != 2) {
                gp(cpu);
            }
            popf_vme(cpu, image);
            return;
        }
        mask |= FLAG_IF;
    } else if (vcpu_cpl(cpu) == 0) {
        mask |= FLAG_IF | FLAG_IOPL;
    } else if (vcpu_cpl(cpu) <= cpu_iopl(cpu)) {
        mask |= FLAG_IF;
    }
    cpu_set_flags(cpu, image, mask);
}

/* Is VIF what CLI and STI change here?  #GP if neither it nor IF may be. */
static bool virtual_if(struct vcpu *cpu)
{
    if (cpu_v86(cpu) ? cpu_iopl(cpu) == 3 : cpu_real_mode(cpu) || vcpu_cpl(cpu) <= cpu_iopl(cpu)) {
        return false;
    }
    bool v86 = cpu_v86(cpu) && (cpu->r.cr4 & CR4_VME);
    bool pvi = !cpu_v86(cpu) && vcpu_cpl(cpu) == 3 && (cpu->r.cr4 & CR4_PVI);
    if (!v86 && !pvi) {
        gp(cpu);
    }
    return true;
}

static void do_cli(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    cpu->r.rflags &= ~(uint64_t)(virtual_if(cpu) ? FLAG_VIF : FLAG_IF);
}

static void do_sti(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    if (virtual_if(cpu)) {
        if (cpu->r.rflags & FLAG_VIP) {
            gp(cpu);
        }
        cpu->r.rflags |= FLAG_VIF;
        return;
    }
    if (!(cpu->r.rflags & FLAG_IF)) {
        cpu->r.rflags |= FLAG_IF;
        cpu->r.shadow = SHADOW_STI;
    }
}

static void do_clac(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    cpu->r.rflags &= ~(uint64_t)FLAG_AC;
}

static void do_stac(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    cpu->r.rflags |= FLAG_AC;
}

static void do_hlt(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    cpu->r.halted = 1;
}

/* ---- translations and caches ---- */

static void do_invlpg(struct vcpu *cpu, const struct insn *i)
{
    uint64_t linear = interp_offset(cpu, i);
    if (!vcpu_code64(cpu)) {
        linear = (uint32_t)(linear + cpu->r.seg[i->seg].base);
    } else if (i->seg >= SEG_FS) {
        linear += cpu->r.seg[i->seg].base;
    }
    if (is_canonical(linear)) {
        tlb_flush_page(cpu, linear);
    }
}

static void do_invpcid(struct vcpu *cpu, const struct insn *i)
{
    uint64_t type = reg_read(cpu, i, i->reg, vcpu_code64(cpu) ? 8 : 4);
    uint64_t at = interp_linear(cpu, i, 16, false);
    uint64_t pcid = mem_load(cpu, at, 8), linear = mem_load(cpu, at + 8, 8);
    if (type > 3 || pcid >> 12 || (type == 0 && !is_canonical(linear)) ||
        (type < 2 && pcid && !(cpu->r.cr4 & CR4_PCIDE))) {
        gp(cpu);
    }
    /* Translations carry no PCID here, so any of them drops more than it must. */
    tlb_flush(cpu, type != 3);
}

static void do_nothing(struct vcpu *cpu, const struct insn *i)
{
    (void)cpu, (void)i;
}

static const struct interp_row interp_control_rows[] = {
    {OP_MOV_FROM_CR, do_mov_from_cr}, {OP_MOV_TO_CR, do_mov_to_cr},
    {OP_MOV_FROM_DR, do_mov_from_dr}, {OP_MOV_TO_DR, do_mov_to_dr}, {OP_LMSW, do_lmsw},
    {OP_CLTS, do_clts}, {OP_CLI, do_cli}, {OP_STI, do_sti}, {OP_CLAC, do_clac},
    {OP_STAC, do_stac}, {OP_HLT, do_hlt}, {OP_INVLPG, do_invlpg}, {OP_INVPCID, do_invpcid},
    {OP_INVD, do_nothing}, {OP_WBINVD, do_nothing},
};
INTERP_TABLE(interp_control);
