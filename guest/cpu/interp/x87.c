/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * x87: control instructions of the floating-point unit, and EMMS's relations.
 *
 * Spec: Intel SDM, volume 1, "Programming with the x87 FPU", there "x87 FPU Control
 * Instructions", "Saving the x87 FPU's State with FSTENV/FNSTENV and FSAVE/FNSAVE";
 * volume 2, the entries.  Arithmetic is native.c's.
 */
#include "guest/cpu/interp/native.h"

enum { FSW_TOP_SHIFT = 11, FSW_ES = 0x80, FSW_B = 0x8000, FCW_DEFAULT = 0x37f };

static unsigned top_of(const struct vcpu *cpu)
{
    return fpu_word(cpu, XSAVE_FSW) >> FSW_TOP_SHIFT & 7;
}

void fpu_set_top(struct vcpu *cpu, unsigned top)
{
    uint8_t turned[128], *st = cpu->r.xsave + XSAVE_ST;
    unsigned old = top_of(cpu), fsw = fpu_word(cpu, XSAVE_FSW);
    for (unsigned n = 0; n < 8; n++) {
        memcpy(turned + 16 * n, st + 16 * ((n + top - old) & 7), 16);
    }
    memcpy(st, turned, sizeof(turned));
    fpu_set_word(cpu, XSAVE_FSW, (uint16_t)((fsw & ~0x3800u) | top << FSW_TOP_SHIFT));
}

/* ES and B say whether an unmasked exception is pending. */
static void summarize(struct vcpu *cpu)
{
    unsigned fsw = fpu_word(cpu, XSAVE_FSW), fcw = fpu_word(cpu, XSAVE_FCW);
    bool pending = fsw & ~fcw & 0x3f;
    fsw &= ~(unsigned)(FSW_ES | FSW_B);
    fpu_set_word(cpu, XSAVE_FSW, (uint16_t)(pending ? fsw | FSW_ES | FSW_B : fsw));
}

/* ---- tags ---- */

enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static unsigned tag_of(const uint8_t *st)
{
    uint64_t mantissa;
    uint16_t exponent;
    memcpy(&mantissa, st, 8);
    memcpy(&exponent, st + 8, 2);
    exponent &= 0x7fff;
    if (exponent == 0x7fff) {
        return TAG_SPECIAL;
    }
    if (exponent == 0) {
        return mantissa ? TAG_SPECIAL : TAG_ZERO;
    }
    return mantissa >> 63 ? TAG_VALID : TAG_SPECIAL;
}

/* The full tag word, by physical register; the area holds one bit of it each. */
static uint16_t tag_word(const struct vcpu *cpu)
{
    unsigned used = cpu->r.xsave[XSAVE_FTW], word = 0;
    for (unsigned n = 0; n < 8; n++) {
        unsigned st = (n - top_of(cpu)) & 7;
        unsigned tag = used >> n & 1 ? tag_of(cpu->r.xsave + XSAVE_ST + 16 * st) : TAG_EMPTY;
        word |= tag << 2 * n;
    }
    return (uint16_t)word;
}

static void set_tag_word(struct vcpu *cpu, uint16_t word)
{
    unsigned used = 0;
    for (unsigned n = 0; n < 8; n++) {
        used |= (unsigned)((word >> 2 * n & 3) != TAG_EMPTY) << n;
    }
    cpu->r.xsave[XSAVE_FTW] = (uint8_t)used;
}

/* ---- environment ---- */

struct environment {
    uint16_t fcw, fsw, ftw, opcode, cs, ds;
    uint32_t ip, dp;
};

/* Where each word lies: 16-bit format 2 bytes apart, 32-bit format 4. */
static void put_word(uint8_t *image, unsigned wide, unsigned n, uint32_t v)
{
    memcpy(image + n * wide, &v, wide);
}

static uint32_t get_word(const uint8_t *image, unsigned wide, unsigned n)
{
    uint32_t v = 0;
    memcpy(&v, image + n * wide, wide);
    return v;
}

static unsigned environment_bytes(const struct insn *i)
{
    return i->opsize == 2 ? 14 : 28;
}

/* Real and v8086 mode keep linear addresses and the opcode instead of selectors. */
static bool linear_format(const struct vcpu *cpu)
{
    return cpu_real_mode(cpu) || cpu_v86(cpu);
}

static void make_environment(const struct vcpu *cpu, const struct insn *i, uint8_t *image)
{
    unsigned wide = i->opsize == 2 ? 2 : 4;
    uint32_t ones = wide == 4 ? 0xffff0000 : 0, ip, dp;
    uint16_t opcode = fpu_word(cpu, XSAVE_FOP) & 0x7ff;
    memcpy(&ip, cpu->r.xsave + XSAVE_FIP, 4);
    memcpy(&dp, cpu->r.xsave + XSAVE_FDP, 4);
    put_word(image, wide, 0, ones | fpu_word(cpu, XSAVE_FCW));
    put_word(image, wide, 1, ones | fpu_word(cpu, XSAVE_FSW));
    put_word(image, wide, 2, ones | tag_word(cpu));
    put_word(image, wide, 3, ip);
    put_word(image, wide, 5, dp);
    if (!linear_format(cpu)) {
        put_word(image, wide, 4, wide == 4 ? (uint32_t)opcode << 16 : 0); /* CS is kept as 0 */
        put_word(image, wide, 6, ones);
    } else if (wide == 2) {
        put_word(image, wide, 4, (ip >> 4 & 0xf000) | opcode);
        put_word(image, wide, 6, dp >> 4 & 0xf000);
    } else {
        put_word(image, wide, 3, ones | (ip & 0xffff));
        put_word(image, wide, 5, ones | (dp & 0xffff));
        put_word(image, wide, 4, (ip >> 16 & 0xffff) << 12 | opcode);
        put_word(image, wide, 6, (dp >> 16 & 0xffff) << 12);
    }
}

static void take_environment(struct vcpu *cpu, const struct insn *i, const uint8_t *image)
{
    unsigned wide = i->opsize == 2 ? 2 : 4;
    uint64_t ip = get_word(image, wide, 3), dp = get_word(image, wide, 5);
    uint16_t opcode = (uint16_t)(wide == 4 ? get_word(image, wide, 4) >> 16 & 0x7ff : 0);
    if (linear_format(cpu)) {
        uint32_t high = get_word(image, wide, 4), dp_high = get_word(image, wide, 6);
        opcode = high & 0x7ff;
        if (wide == 2) {
            ip |= (high & 0xf000) << 4;
            dp |= (dp_high & 0xf000) << 4;
        } else {
            ip = (ip & 0xffff) | (high >> 12 & 0xffff) << 16;
            dp = (dp & 0xffff) | (dp_high >> 12 & 0xffff) << 16;
        }
    }
    fpu_set_word(cpu, XSAVE_FCW, (uint16_t)((get_word(image, wide, 0) & 0x1f7f) | 0x40));
    fpu_set_word(cpu, XSAVE_FSW, (uint16_t)get_word(image, wide, 1));
    set_tag_word(cpu, (uint16_t)get_word(image, wide, 2));
    fpu_set_word(cpu, XSAVE_FOP, opcode);
    memcpy(cpu->r.xsave + XSAVE_FIP, &ip, 8);
    memcpy(cpu->r.xsave + XSAVE_FDP, &dp, 8);
    summarize(cpu);
}

static void do_fnstenv(struct vcpu *cpu, const struct insn *i)
{
    uint8_t image[28];
    unsigned bytes = environment_bytes(i);
    uint64_t linear = interp_linear(cpu, i, bytes, true);
    xstate_own(cpu, XSTATE_X87);
    make_environment(cpu, i, image);
    mem_write(cpu, linear, image, bytes);
    fpu_set_word(cpu, XSAVE_FCW, fpu_word(cpu, XSAVE_FCW) | 0x3f);
    summarize(cpu);
}

static void initialize(struct vcpu *cpu)
{
    fpu_set_top(cpu, 0); /* the registers keep their contents */
    memset(cpu->r.xsave, 0, XSAVE_MXCSR);
    fpu_set_word(cpu, XSAVE_FCW, FCW_DEFAULT);
}

static void do_fldenv(struct vcpu *cpu, const struct insn *i)
{
    uint8_t image[28];
    unsigned bytes = environment_bytes(i);
    fpu_check_pending(cpu);
    mem_read(cpu, interp_linear(cpu, i, bytes, false), image, bytes);
    fpu_set_top(cpu, get_word(image, i->opsize == 2 ? 2 : 4, 1) >> FSW_TOP_SHIFT & 7);
    take_environment(cpu, i, image);
}

static void do_fnsave(struct vcpu *cpu, const struct insn *i)
{
    uint8_t image[28 + 80];
    unsigned head = environment_bytes(i);
    uint64_t linear = interp_linear(cpu, i, head + 80, true);
    xstate_own(cpu, XSTATE_X87);
    make_environment(cpu, i, image);
    for (unsigned n = 0; n < 8; n++) {
        memcpy(image + head + 10 * n, cpu->r.xsave + XSAVE_ST + 16 * n, 10);
    }
    mem_write(cpu, linear, image, head + 80);
    initialize(cpu);
}

static void do_frstor(struct vcpu *cpu, const struct insn *i)
{
    uint8_t image[28 + 80];
    unsigned head = environment_bytes(i);
    fpu_check_pending(cpu);
    mem_read(cpu, interp_linear(cpu, i, head + 80, false), image, head + 80);
    for (unsigned n = 0; n < 8; n++) {
        uint8_t *st = cpu->r.xsave + XSAVE_ST + 16 * n;
        memcpy(st, image + head + 10 * n, 10);
        memset(st + 10, 0, 6);
    }
    take_environment(cpu, i, image);
}

/* ---- words ---- */

static void do_fninit(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    xstate_own(cpu, XSTATE_X87);
    initialize(cpu);
}

static void do_fnclex(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    xstate_own(cpu, XSTATE_X87);
    fpu_set_word(cpu, XSAVE_FSW, fpu_word(cpu, XSAVE_FSW) & 0x7f00);
}

static void do_fldcw(struct vcpu *cpu, const struct insn *i)
{
    fpu_check_pending(cpu);
    uint64_t v = mem_load(cpu, interp_linear(cpu, i, 2, false), 2);
    fpu_set_word(cpu, XSAVE_FCW, (uint16_t)((v & 0x1f7f) | 0x40));
    summarize(cpu);
}

static void store_word(struct vcpu *cpu, const struct insn *i, unsigned at)
{
    xstate_own(cpu, XSTATE_X87);
    if (i->mem) {
        mem_store(cpu, interp_linear(cpu, i, 2, true), fpu_word(cpu, at), 2);
    } else {
        reg_write(cpu, i, RAX, 2, fpu_word(cpu, at));
    }
}

static void do_fnstcw(struct vcpu *cpu, const struct insn *i)
{
    store_word(cpu, i, XSAVE_FCW);
}

static void do_fnstsw(struct vcpu *cpu, const struct insn *i)
{
    store_word(cpu, i, XSAVE_FSW);
}

static void do_fwait(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    fpu_check_pending(cpu);
}

/* FENI, FDISI, FSETPM: of the 8087 and 287, without effect since. */
static void do_nothing(struct vcpu *cpu, const struct insn *i)
{
    (void)cpu, (void)i;
}

static const struct interp_row interp_x87_rows[] = {
    {OP_FNSTENV, do_fnstenv}, {OP_FLDENV, do_fldenv}, {OP_FNSAVE, do_fnsave},
    {OP_FRSTOR, do_frstor}, {OP_FNINIT, do_fninit}, {OP_FNCLEX, do_fnclex},
    {OP_FLDCW, do_fldcw}, {OP_FNSTCW, do_fnstcw}, {OP_FNSTSW, do_fnstsw},
    {OP_FWAIT, do_fwait}, {OP_FNENI, do_nothing}, {OP_FNDISI, do_nothing},
    {OP_FNSETPM, do_nothing},
};
INTERP_TABLE(interp_x87);
