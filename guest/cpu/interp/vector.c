/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vector: state management (FXSAVE, XSAVE and their relations, MXCSR), and the vector
 * instructions whose memory accesses depend on their operands: gathers and masked moves.
 *
 * Spec: Intel SDM, volume 1, "Managing State Using the XSAVE Feature Set", there "XSAVE Area",
 * "Operation of XSAVE", "Operation of XSAVEC", "Operation of XRSTOR"; volume 2, entries
 * FXSAVE, VMASKMOV, VPMASKMOV, VPGATHERDD and the others; MASKMOVDQU.
 */
#include "guest/cpu/interp/native.h"

/* ---- MXCSR ---- */

static uint32_t mxcsr_of(const struct vcpu *cpu)
{
    uint32_t v;
    memcpy(&v, cpu->r.xsave + XSAVE_MXCSR, sizeof(v));
    return v;
}

static void set_mxcsr(struct vcpu *cpu, uint32_t v)
{
    memcpy(cpu->r.xsave + XSAVE_MXCSR, &v, sizeof(v));
}

static void do_ldmxcsr(struct vcpu *cpu, const struct insn *i)
{
    uint32_t v = (uint32_t)mem_load(cpu, interp_linear(cpu, i, 4, false), 4);
    if (v & ~(uint32_t)MXCSR_VALID) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    xstate_own(cpu, XSTATE_SSE);
    set_mxcsr(cpu, v);
}

static void do_stmxcsr(struct vcpu *cpu, const struct insn *i)
{
    mem_store(cpu, interp_linear(cpu, i, 4, true), mxcsr_of(cpu), 4);
}

/* ---- FXSAVE ---- */

static uint64_t aligned_linear(struct vcpu *cpu, const struct insn *i, unsigned bytes,
                               unsigned align, bool write)
{
    uint64_t linear = interp_linear(cpu, i, bytes, write);
    if (linear & (align - 1)) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    return linear;
}

/* Vector registers that exist in this mode, in bytes. */
static unsigned xmm_bytes(const struct vcpu *cpu)
{
    return vcpu_code64(cpu) ? 256 : 128;
}

/* The x87 part's first 24 bytes; without REX.W pointers have 32 bits and a selector. */
static void x87_head(const struct vcpu *cpu, const struct insn *i, uint8_t head[24])
{
    memcpy(head, cpu->r.xsave, 24);
    head[XSAVE_FTW + 1] = 0;
    if (i->opsize != 8) {
        memset(head + XSAVE_FIP + 4, 0, 4);
        memset(head + XSAVE_FDP + 4, 0, 4);
    }
}

static void take_x87_head(struct vcpu *cpu, const struct insn *i, const uint8_t head[24])
{
    memcpy(cpu->r.xsave, head, 24);
    cpu->r.xsave[XSAVE_FTW + 1] = 0;
    if (i->opsize != 8) {
        memset(cpu->r.xsave + XSAVE_FIP + 4, 0, 4);
        memset(cpu->r.xsave + XSAVE_FDP + 4, 0, 4);
    }
    unsigned fcw = (fpu_word(cpu, XSAVE_FCW) & 0x1f7fu) | 0x40;
    unsigned fsw = fpu_word(cpu, XSAVE_FSW) & 0x7f7fu;
    if (fsw & ~fcw & 0x3f) {
        fsw |= 0x8080;
    }
    fpu_set_word(cpu, XSAVE_FCW, (uint16_t)fcw);
    fpu_set_word(cpu, XSAVE_FSW, (uint16_t)fsw);
    fpu_set_word(cpu, XSAVE_FOP, fpu_word(cpu, XSAVE_FOP) & 0x7ff);
}

static void do_fxsave(struct vcpu *cpu, const struct insn *i)
{
    uint8_t image[XSAVE_XMM + 256];
    uint32_t mask = MXCSR_VALID;
    uint64_t linear = aligned_linear(cpu, i, XSAVE_LEGACY, 16, true);
    mem_probe(cpu, linear, XSAVE_LEGACY, true);
    xstate_own(cpu, XSTATE_X87 | XSTATE_SSE);
    memcpy(image, cpu->r.xsave, sizeof(image));
    x87_head(cpu, i, image);
    memcpy(image + XSAVE_MXCSR_MASK, &mask, 4);
    mem_write(cpu, linear, image, XSAVE_XMM + xmm_bytes(cpu));
}

static void do_fxrstor(struct vcpu *cpu, const struct insn *i)
{
    uint8_t image[XSAVE_LEGACY];
    uint32_t mxcsr;
    mem_read(cpu, aligned_linear(cpu, i, XSAVE_LEGACY, 16, false), image, XSAVE_LEGACY);
    memcpy(&mxcsr, image + XSAVE_MXCSR, 4);
    if (mxcsr & ~(uint32_t)MXCSR_VALID) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    xstate_own(cpu, XSTATE_X87 | XSTATE_SSE);
    take_x87_head(cpu, i, image);
    set_mxcsr(cpu, mxcsr);
    memcpy(cpu->r.xsave + XSAVE_ST, image + XSAVE_ST, XSAVE_XMM - XSAVE_ST);
    memcpy(cpu->r.xsave + XSAVE_XMM, image + XSAVE_XMM, xmm_bytes(cpu));
}

/* ---- XSAVE ---- */

/* State components beyond the legacy region, in order of their bits. */
static const struct component {
    uint64_t bit;
    uint16_t at, bytes;
} components[] = {
    {1 << 2, 576, 256}, {1 << 5, 832, 64}, {1 << 6, 896, 512}, {1 << 7, 1408, 1024},
    {1 << 9, 2688, 8},
};
enum { COMPONENTS = sizeof(components) / sizeof(components[0]), XSAVE_HEADER_END = 576 };
#define COMPACTED (UINT64_C(1) << 63)

static uint64_t requested(struct vcpu *cpu)
{
    if (!(cpu->r.cr4 & CR4_OSXSAVE)) {
        cpu_raise(cpu, VEC_UD);
    }
    if (cpu->r.cr0 & CR0_TS) {
        cpu_raise(cpu, VEC_NM);
    }
    return cpu->r.xcr0 & (cpu->r.gpr[RDX] << 32 | (uint32_t)cpu->r.gpr[RAX]);
}

/* Where component @n lies: fixed, or packed behind those that @packed names before it. */
static unsigned component_at(unsigned n, uint64_t packed)
{
    unsigned at = XSAVE_HEADER_END;
    if (!(packed & COMPACTED)) {
        return components[n].at;
    }
    for (unsigned k = 0; k < n; k++) {
        at += packed & components[k].bit ? components[k].bytes : 0;
    }
    return at;
}

static unsigned area_bytes(uint64_t parts, uint64_t packed)
{
    unsigned end = XSAVE_HEADER_END;
    for (unsigned n = 0; n < COMPONENTS; n++) {
        if (parts & components[n].bit) {
            unsigned here = component_at(n, packed) + components[n].bytes;
            end = here > end ? here : end;
        }
    }
    return end;
}

static void save_legacy(struct vcpu *cpu, const struct insn *i, uint64_t linear, uint64_t parts,
                        bool mxcsr)
{
    uint32_t words[2] = {mxcsr_of(cpu), MXCSR_VALID};
    uint8_t head[24];
    if (parts & XSTATE_X87) {
        x87_head(cpu, i, head);
        mem_write(cpu, linear, head, 24);
        mem_write(cpu, linear + XSAVE_ST, cpu->r.xsave + XSAVE_ST, XSAVE_XMM - XSAVE_ST);
    }
    if (mxcsr) {
        mem_write(cpu, linear + XSAVE_MXCSR, words, 8);
    }
    if (parts & XSTATE_SSE) {
        mem_write(cpu, linear + XSAVE_XMM, cpu->r.xsave + XSAVE_XMM, xmm_bytes(cpu));
    }
}

/* xsave, xsaveopt, xsavec */
static void do_xsave(struct vcpu *cpu, const struct insn *i)
{
    uint64_t parts = requested(cpu), written = parts;
    if (mxcsr_of(cpu) != MXCSR_DEFAULT) {
        xstate_own(cpu, XSTATE_SSE); /* MXCSR counts as part of it */
    }
    uint64_t in_use = xstate_bv(cpu) & parts;
    uint64_t packed = i->op == OP_XSAVEC ? parts | COMPACTED : 0;
    unsigned bytes = area_bytes(parts, packed);
    uint64_t linear = aligned_linear(cpu, i, bytes, 64, true);
    mem_probe(cpu, linear, bytes, true);
    if (i->op != OP_XSAVE) {
        written = in_use; /* initial states need not be written */
    } else {
        xstate_own(cpu, parts);
    }
    bool mxcsr = parts & (packed ? XSTATE_SSE : XSTATE_SSE | XSTATE_AVX);
    save_legacy(cpu, i, linear, written, mxcsr);
    for (unsigned n = 0; n < COMPONENTS; n++) {
        if (written & components[n].bit) {
            unsigned size = n == 0 ? xmm_bytes(cpu) : components[n].bytes;
            mem_write(cpu, linear + component_at(n, packed), cpu->r.xsave + components[n].at, size);
        }
    }
    uint64_t old = packed ? 0 : mem_load(cpu, linear + XSAVE_BV, 8);
    mem_store(cpu, linear + XSAVE_BV, (old & ~parts) | in_use, 8);
    if (packed) {
        mem_store(cpu, linear + XSAVE_COMP_BV, packed, 8);
    }
}

struct xsave_header {
    uint64_t bv, packed, reserved[6];
};

static void check_header(struct vcpu *cpu, const struct xsave_header *h)
{
    bool bad = h->reserved[0];
    if (h->packed & COMPACTED) {
        bad |= (h->packed & ~COMPACTED & ~cpu->r.xcr0) || (h->bv & ~h->packed);
        for (unsigned n = 1; n < 6; n++) {
            bad |= h->reserved[n] != 0;
        }
    } else {
        bad |= h->packed || (h->bv & ~cpu->r.xcr0);
    }
    if (bad) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
}

static void restore_part(struct vcpu *cpu, const struct insn *i, const uint8_t *area,
                         uint64_t part)
{
    if (part == XSTATE_X87) {
        take_x87_head(cpu, i, area);
        memcpy(cpu->r.xsave + XSAVE_ST, area + XSAVE_ST, XSAVE_XMM - XSAVE_ST);
    } else if (part == XSTATE_SSE) {
        memcpy(cpu->r.xsave + XSAVE_XMM, area + XSAVE_XMM, xmm_bytes(cpu));
    }
}

static void clear_lower(struct vcpu *cpu, uint64_t parts)
{
    xstate_own(cpu, parts);
    if (parts & XSTATE_SSE) {
        memset(cpu->r.xsave + XSAVE_XMM, 0, 128);
    }
    if (parts & XSTATE_AVX) {
        memset(cpu->r.xsave + XSAVE_YMM, 0, 128);
    }
}

static void do_xrstor(struct vcpu *cpu, const struct insn *i)
{
    uint8_t area[4096];
    struct xsave_header h;
    uint64_t parts = requested(cpu);
    uint64_t linear = aligned_linear(cpu, i, XSAVE_HEADER_END, 64, false);
    mem_read(cpu, linear, area, XSAVE_HEADER_END);
    memcpy(&h, area + XSAVE_BV, sizeof(h));
    check_header(cpu, &h);
    uint64_t load = parts & h.bv;
    unsigned bytes = area_bytes(load, h.packed);
    if (bytes > XSAVE_HEADER_END) {
        mem_read(cpu, linear + XSAVE_HEADER_END, area + XSAVE_HEADER_END, bytes - XSAVE_HEADER_END);
    }
    uint32_t mxcsr;
    memcpy(&mxcsr, area + XSAVE_MXCSR, 4);
    bool has_mxcsr = h.packed & COMPACTED ? load & XSTATE_SSE : parts & (XSTATE_SSE | XSTATE_AVX);
    if (has_mxcsr && (mxcsr & ~(uint32_t)MXCSR_VALID)) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    /* Everything read and checked. */
    uint64_t clear = parts & ~load;
    if (!vcpu_code64(cpu)) { /* the upper eight vector registers stay */
        clear_lower(cpu, clear & (XSTATE_SSE | XSTATE_AVX));
        clear &= ~(uint64_t)(XSTATE_SSE | XSTATE_AVX);
    }
    if (!has_mxcsr && (h.packed & COMPACTED) && (parts & XSTATE_SSE)) {
        has_mxcsr = true;
        mxcsr = MXCSR_DEFAULT;
    }
    xstate_own(cpu, load);
    restore_part(cpu, i, area, load & XSTATE_X87);
    restore_part(cpu, i, area, load & XSTATE_SSE);
    for (unsigned n = 0; n < COMPONENTS; n++) {
        if (load & components[n].bit) {
            unsigned size = n == 0 ? xmm_bytes(cpu) : components[n].bytes;
            memcpy(cpu->r.xsave + components[n].at, area + component_at(n, h.packed), size);
        }
    }
    if (has_mxcsr) {
        set_mxcsr(cpu, mxcsr);
    }
    uint64_t bv = xstate_bv(cpu) & ~clear;
    memcpy(cpu->r.xsave + XSAVE_BV, &bv, 8);
}

/* ---- whole registers ---- */

/* vzeroupper, vzeroall */
static void do_vzero(struct vcpu *cpu, const struct insn *i)
{
    xstate_own(cpu, XSTATE_SSE | XSTATE_AVX);
    memset(cpu->r.xsave + XSAVE_YMM, 0, xmm_bytes(cpu));
    if (i->op == OP_VZEROALL) {
        memset(cpu->r.xsave + XSAVE_XMM, 0, xmm_bytes(cpu));
    }
}

/* A vector register as 32 bytes. */
struct lanes {
    uint8_t b[32];
};

static struct lanes vector_read(const struct vcpu *cpu, unsigned n)
{
    struct lanes v;
    memcpy(v.b, cpu->r.xsave + XSAVE_XMM + 16 * n, 16);
    memcpy(v.b + 16, cpu->r.xsave + XSAVE_YMM + 16 * n, 16);
    return v;
}

static void vector_write(struct vcpu *cpu, unsigned n, const struct lanes *v)
{
    memcpy(cpu->r.xsave + XSAVE_XMM + 16 * n, v->b, 16);
    memcpy(cpu->r.xsave + XSAVE_YMM + 16 * n, v->b + 16, 16);
}

static int64_t lane(const struct lanes *v, unsigned n, unsigned bytes)
{
    int64_t wide;
    int32_t narrow;
    if (bytes == 8) {
        memcpy(&wide, v->b + 8 * n, 8);
        return wide;
    }
    memcpy(&narrow, v->b + 4 * n, 4);
    return narrow;
}

/* ---- masked moves ---- */

/* Bytes of a lane: PS and D 4, PD and Q 8. */
static unsigned masked_lane(const struct insn *i)
{
    if (i->op == OP_VPMASKMOV) {
        return i->rex & 8 ? 8 : 4; /* VEX.W */
    }
    return i->op == OP_VMASKMOVPS ? 4 : 8;
}

static void do_vmaskmov(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = masked_lane(i), total = 16u << i->vl;
    bool store = i->desc->operand[0] == OPD_MEM;
    uint64_t offset = interp_offset(cpu, i), at[8];
    xstate_own(cpu, XSTATE_SSE | XSTATE_AVX);
    struct lanes mask = vector_read(cpu, i->vvvv), data = vector_read(cpu, i->reg), v = {0};
    for (unsigned n = 0; n * bytes < total; n++) {
        if (lane(&mask, n, bytes) >= 0) {
            continue;
        }
        uint64_t lane_offset = (offset + n * bytes) & size_mask(i->addrsize);
        at[n] = seg_linear(cpu, (enum seg_name)i->seg, lane_offset, bytes, store);
        if (store) {
            mem_probe(cpu, at[n], bytes, true);
        } else {
            mem_read(cpu, at[n], v.b + n * bytes, bytes);
        }
    }
    if (!store) {
        vector_write(cpu, i->reg, &v);
        return;
    }
    for (unsigned n = 0; n * bytes < total; n++) {
        if (lane(&mask, n, bytes) < 0) {
            mem_write(cpu, at[n], data.b + n * bytes, bytes);
        }
    }
}

/* Bytes of @data whose mask byte has its top bit set go to [rDI]. */
static void masked_bytes(struct vcpu *cpu, const struct insn *i, const uint8_t *data,
                         const uint8_t *mask, unsigned n)
{
    uint64_t offset = cpu->r.gpr[RDI] & size_mask(i->addrsize);
    uint64_t linear = seg_linear(cpu, (enum seg_name)i->seg, offset, n, true);
    for (unsigned k = 0; k < n; k++) {
        if (mask[k] & 0x80) {
            mem_probe(cpu, linear + k, 1, true);
        }
    }
    for (unsigned k = 0; k < n; k++) {
        if (mask[k] & 0x80) {
            mem_store(cpu, linear + k, data[k], 1);
        }
    }
}

static void do_maskmovdqu(struct vcpu *cpu, const struct insn *i)
{
    xstate_own(cpu, XSTATE_SSE);
    struct lanes data = vector_read(cpu, i->reg), mask = vector_read(cpu, i->rm);
    masked_bytes(cpu, i, data.b, mask.b, 16);
}

static void do_maskmovq(struct vcpu *cpu, const struct insn *i)
{
    uint8_t data[8], mask[8];
    fpu_check_pending(cpu);
    unsigned top = fpu_word(cpu, XSAVE_FSW) >> 11 & 7;
    memcpy(data, cpu->r.xsave + XSAVE_ST + 16 * ((i->reg - top) & 7), 8);
    memcpy(mask, cpu->r.xsave + XSAVE_ST + 16 * ((i->rm - top) & 7), 8);
    masked_bytes(cpu, i, data, mask, 8);
    fpu_set_top(cpu, 0); /* as every MMX instruction does */
    cpu->r.xsave[XSAVE_FTW] = 0xff;
}

/* ---- gathers ---- */

/*
 * Lanes are done in order; each that is done clears its lane of the mask, so a fault leaves
 * registers from which the instruction can go on.
 */
static void do_gather(struct vcpu *cpu, const struct insn *i)
{
    bool wide_index = i->op == OP_VPGATHERQ || i->op == OP_VGATHERQP;
    unsigned index_bytes = wide_index ? 8 : 4, total = 16u << i->vl;
    unsigned bytes = i->rex & 8 ? 8 : 4; /* VEX.W */
    unsigned lanes = total / (bytes > index_bytes ? bytes : index_bytes);
    xstate_own(cpu, XSTATE_SSE | XSTATE_AVX);
    struct lanes index = vector_read(cpu, (unsigned)i->index);
    struct lanes mask = vector_read(cpu, i->vvvv), v = vector_read(cpu, i->reg);
    uint64_t base = i->base >= 0 ? cpu->r.gpr[i->base] : 0;
    for (unsigned n = 0; n < lanes; n++) {
        if (lane(&mask, n, bytes) < 0) {
            uint64_t offset = base + (uint64_t)i->disp;
            offset += (uint64_t)lane(&index, n, index_bytes) << i->scale;
            offset &= size_mask(i->addrsize);
            uint64_t at = seg_linear(cpu, (enum seg_name)i->seg, offset, bytes, false);
            uint64_t got = mem_load(cpu, at, bytes);
            memcpy(v.b + n * bytes, &got, bytes);
            vector_write(cpu, i->reg, &v);
        }
        memset(mask.b + n * bytes, 0, bytes);
        vector_write(cpu, i->vvvv, &mask);
    }
    memset(v.b + lanes * bytes, 0, sizeof(v.b) - lanes * bytes);
    memset(mask.b, 0, sizeof(mask.b));
    vector_write(cpu, i->reg, &v);
    vector_write(cpu, i->vvvv, &mask);
}

static const struct interp_row interp_vector_rows[] = {
    {OP_LDMXCSR, do_ldmxcsr}, {OP_STMXCSR, do_stmxcsr}, {OP_VLDMXCSR, do_ldmxcsr},
    {OP_VSTMXCSR, do_stmxcsr}, {OP_FXSAVE, do_fxsave}, {OP_FXRSTOR, do_fxrstor},
    {OP_XSAVE, do_xsave}, {OP_XSAVEOPT, do_xsave}, {OP_XSAVEC, do_xsave},
    {OP_XRSTOR, do_xrstor}, {OP_VZEROUPPER, do_vzero}, {OP_VZEROALL, do_vzero},
    {OP_VMASKMOVPS, do_vmaskmov}, {OP_VMASKMOVPD, do_vmaskmov}, {OP_VPMASKMOV, do_vmaskmov},
    {OP_MASKMOVDQU, do_maskmovdqu}, {OP_VMASKMOVDQU, do_maskmovdqu},
    {OP_MASKMOVQ, do_maskmovq}, {OP_VPGATHERD, do_gather}, {OP_VPGATHERQ, do_gather},
    {OP_VGATHERDP, do_gather}, {OP_VGATHERQP, do_gather},
};
INTERP_TABLE(interp_vector);
