/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * io: port input and output; INS is in string.c.
 *
 * Spec: Intel SDM, volume 1, "Input/Output": "Protected-Mode I/O", "I/O Permission Bit Map".
 */
#include "guest/cpu/interp/system.h"

enum { TSS_IO_MAP_BASE = 0x66 };

void cpu_check_io(struct vcpu *cpu, uint16_t port, unsigned bytes)
{
    const struct segment *tr = &cpu->r.tr;
    if (cpu_real_mode(cpu) || (!cpu_v86(cpu) && vcpu_cpl(cpu) <= cpu_iopl(cpu))) {
        return;
    }
    if ((tr->attr & SEG_UNUSABLE) || !(tr->attr & 8) || tr->limit < TSS_IO_MAP_BASE + 1) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    uint32_t at = (uint32_t)sys_load(cpu, tr->base + TSS_IO_MAP_BASE, 2) + port / 8u;
    if (at + 1 > tr->limit) { /* two bytes are read, always */
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    uint64_t map = sys_load(cpu, tr->base + at, 2) >> (port & 7);
    if (map & ((1u << bytes) - 1)) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
}

static uint16_t port_of(const struct vcpu *cpu, const struct insn *i)
{
    return i->imm_bytes ? (uint8_t)i->imm : (uint16_t)cpu->r.gpr[RDX];
}

static void do_in(struct vcpu *cpu, const struct insn *i)
{
    uint16_t port = port_of(cpu, i);
    unsigned n = MIN(i->opsize, 4);
    cpu_check_io(cpu, port, n);
    reg_write(cpu, i, RAX, n, space_load(cpu->ports, port, n));
}

static void do_out(struct vcpu *cpu, const struct insn *i)
{
    uint16_t port = port_of(cpu, i);
    unsigned n = MIN(i->opsize, 4);
    cpu_check_io(cpu, port, n);
    space_store(cpu->ports, port, cpu->r.gpr[RAX] & size_mask(n), n);
}

static void advance(struct vcpu *cpu, enum gpr reg, const struct insn *i, unsigned n)
{
    uint64_t mask = size_mask(i->addrsize), *r = &cpu->r.gpr[reg];
    uint64_t v = (*r + (cpu->r.rflags & FLAG_DF ? -(uint64_t)n : n)) & mask;
    *r = i->addrsize == 2 ? (*r & ~mask) | v : v;
}

/* Counts one repetition; true if another follows now. */
static bool again(struct vcpu *cpu, const struct insn *i)
{
    uint64_t mask = size_mask(i->addrsize), *rcx = &cpu->r.gpr[RCX];
    uint64_t left = (*rcx - 1) & mask;
    *rcx = i->addrsize == 2 ? (*rcx & ~mask) | left : left;
    if (left && interp_rep_must_stop(cpu)) {
        cpu->next_rip = cpu->r.rip;
        return false;
    }
    return left != 0;
}

static bool repeats(const struct insn *i)
{
    return i->prefixes & (PFX_F2 | PFX_F3);
}

static void one_out(struct vcpu *cpu, const struct insn *i, unsigned n)
{
    uint64_t from = cpu->r.gpr[RSI] & size_mask(i->addrsize);
    uint64_t linear = seg_linear(cpu, (enum seg_name)i->seg, from, n, false);
    uint64_t v = mem_load(cpu, linear, n);
    space_store(cpu->ports, (uint16_t)cpu->r.gpr[RDX], v, n);
    advance(cpu, RSI, i, n);
}

static void do_outs(struct vcpu *cpu, const struct insn *i)
{
    unsigned n = MIN(i->opsize, 4);
    cpu_check_io(cpu, (uint16_t)cpu->r.gpr[RDX], n);
    if (!repeats(i)) {
        one_out(cpu, i, n);
        return;
    }
    if (!(cpu->r.gpr[RCX] & size_mask(i->addrsize))) {
        return;
    }
    do {
        one_out(cpu, i, n);
    } while (again(cpu, i));
}

static const struct interp_row interp_io_rows[] = {
    {OP_IN, do_in},
    {OP_OUT, do_out},
    {OP_OUTS, do_outs},
};
INTERP_TABLE(interp_io);
