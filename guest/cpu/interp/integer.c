/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * integer: arithmetic, logic, shifts, bits and moves on general registers and memory.
 *
 * Spec: Intel SDM, volume 2, "Instruction Set Reference", entries of the same names; AMD APM,
 * volume 3, "General-Purpose Instruction Reference".
 */
#include "guest/cpu/interp/alu.h"

/* ---- operands ---- */

uint64_t operand_load(struct vcpu *cpu, const struct insn *i, unsigned n)
{
    unsigned bytes = insn_size(i, i->desc->bytes[n]);
    switch (i->desc->operand[n]) {
    case OPD_REG:
        return reg_read(cpu, i, i->reg, bytes);
    case OPD_RM:
    case OPD_MEM:
    case OPD_MOFFS:
        if (i->mem) {
            bytes = insn_mem_bytes(i);
            return mem_load(cpu, interp_linear(cpu, i, bytes, false), bytes);
        }
        return reg_read(cpu, i, i->rm, bytes);
    case OPD_ACC:
        return cpu->r.gpr[RAX] & size_mask(bytes);
    case OPD_CL:
        return cpu->r.gpr[RCX] & 0xff;
    case OPD_ONE:
        return 1;
    case OPD_VVVV:
        return cpu->r.gpr[i->vvvv] & size_mask(bytes);
    default:
        return (uint64_t)i->imm;
    }
}

void operand_store(struct vcpu *cpu, const struct insn *i, unsigned n, uint64_t v)
{
    unsigned bytes = insn_size(i, i->desc->bytes[n]);
    switch (i->desc->operand[n]) {
    case OPD_REG:
        reg_write(cpu, i, i->reg, bytes, v);
        break;
    case OPD_ACC:
        reg_write(cpu, i, RAX, bytes, v);
        break;
    case OPD_VVVV:
        reg_write(cpu, i, i->vvvv, bytes, v);
        break;
    default:
        if (i->mem) {
            bytes = insn_mem_bytes(i);
            mem_store(cpu, interp_linear(cpu, i, bytes, true), v, bytes);
        } else {
            reg_write(cpu, i, i->rm, bytes, v);
        }
        break;
    }
}

#define SWAP_CASE(type)                                                                            \
    {                                                                                              \
        type *p = host, old = __atomic_load_n(p, __ATOMIC_RELAXED);                                \
        do {                                                                                       \
            *f = before;                                                                           \
        } while (!__atomic_compare_exchange_n(p, &old, (type)fn(old, b, bytes, f), false,          \
                                              __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));                \
        was = old;                                                                                 \
        break;                                                                                     \
    }

/* A locked operand need not be aligned; the host's processor does not mind either. */
#define ANY_ALIGNMENT __attribute__((no_sanitize("alignment")))

ANY_ALIGNMENT uint64_t locked_update(struct vcpu *cpu, uint64_t linear, unsigned bytes, alu2_fn *fn,
                                     uint64_t b, uint32_t *f)
{
    uint32_t before = *f;
    uint64_t was;
    void *host = mem_atomic(cpu, linear, bytes);
    if (!host) {
        mem_lock();
        was = mem_load_rmw(cpu, linear, bytes);
        mem_store(cpu, linear, fn(was, b, bytes, f), bytes);
        mem_unlock();
        return was;
    }
    switch (bytes) {
    case 1:
        SWAP_CASE(uint8_t)
    case 2:
        SWAP_CASE(uint16_t)
    case 4:
        SWAP_CASE(uint32_t)
    default:
        SWAP_CASE(uint64_t)
    }
    mem_wrote(cpu, host, bytes);
    return was;
}

void operand_update(struct vcpu *cpu, const struct insn *i, alu2_fn *fn, uint64_t b)
{
    uint32_t f = alu_pack(cpu->r.rflags);
    unsigned bytes = i->opsize;
    if (!i->mem || i->desc->operand[0] != OPD_RM) {
        unsigned reg = i->desc->operand[0] == OPD_RM    ? i->rm
                       : i->desc->operand[0] == OPD_REG ? i->reg
                                                        : (unsigned)RAX;
        reg_write(cpu, i, reg, bytes, fn(reg_read(cpu, i, reg, bytes), b, bytes, &f));
    } else {
        uint64_t linear = interp_linear(cpu, i, bytes, true);
        if (i->prefixes & PFX_LOCK) {
            locked_update(cpu, linear, bytes, fn, b, &f);
        } else {
            uint64_t v = fn(mem_load_rmw(cpu, linear, bytes), b, bytes, &f);
            mem_store(cpu, linear, v, bytes);
        }
    }
    cpu->r.rflags = alu_unpack(cpu->r.rflags, f);
}

bool condition_holds(const struct vcpu *cpu, unsigned code)
{
    uint64_t f = cpu->r.rflags;
    bool holds;
    switch (code >> 1 & 7) {
    case 0:
        holds = f & FLAG_OF;
        break;
    case 1:
        holds = f & FLAG_CF;
        break;
    case 2:
        holds = f & FLAG_ZF;
        break;
    case 3:
        holds = f & (FLAG_CF | FLAG_ZF);
        break;
    case 4:
        holds = f & FLAG_SF;
        break;
    case 5:
        holds = f & FLAG_PF;
        break;
    case 6:
        holds = !(f & FLAG_SF) != !(f & FLAG_OF);
        break;
    default:
        holds = (f & FLAG_ZF) || !(f & FLAG_SF) != !(f & FLAG_OF);
        break;
    }
    return holds != (code & 1);
}

/* ---- arithmetic and logic ---- */

ALU2(alu_add, "add")
ALU2(alu_or, "or")
ALU2(alu_adc, "adc")
ALU2(alu_sbb, "sbb")
ALU2(alu_and, "and")
ALU2(alu_sub, "sub")
ALU2(alu_xor, "xor")
ALU1(alu1_inc, "inc")
ALU1(alu1_dec, "dec")
ALU1(alu1_neg, "neg")
ALU_SHIFT(alu_rol, "rol")
ALU_SHIFT(alu_ror, "ror")
ALU_SHIFT(alu_rcl, "rcl")
ALU_SHIFT(alu_rcr, "rcr")
ALU_SHIFT(alu_shl, "shl")
ALU_SHIFT(alu_shr, "shr")
ALU_SHIFT(alu_sar, "sar")
ALU2_WIDE(alu_imul, "imul")
ALU2_WIDE(alu_bts, "bts")
ALU2_WIDE(alu_btr, "btr")
ALU2_WIDE(alu_btc, "btc")
ALU2_WIDE(alu_bt, "bt")
ALU2_WIDE(alu_bsf, "bsf")
ALU2_WIDE(alu_bsr, "bsr")
ALU2_WIDE(alu_tzcnt, "tzcnt")
ALU2_WIDE(alu_lzcnt, "lzcnt")
ALU2_WIDE(alu_popcnt, "popcnt")

static uint64_t alu_inc(uint64_t a, uint64_t b, unsigned bytes, uint32_t *f)
{
    (void)b;
    return alu1_inc(a, bytes, f);
}

static uint64_t alu_dec(uint64_t a, uint64_t b, unsigned bytes, uint32_t *f)
{
    (void)b;
    return alu1_dec(a, bytes, f);
}

static uint64_t alu_neg(uint64_t a, uint64_t b, unsigned bytes, uint32_t *f)
{
    (void)b;
    return alu1_neg(a, bytes, f);
}

static uint64_t alu_not(uint64_t a, uint64_t b, unsigned bytes, uint32_t *f)
{
    (void)b, (void)bytes, (void)f;
    return ~a;
}

static uint64_t alu_exchange(uint64_t a, uint64_t b, unsigned bytes, uint32_t *f)
{
    (void)a, (void)bytes, (void)f;
    return b;
}

/* A binary operation whose destination is operand 0. */
#define BINARY(name)                                                                               \
    static void do_##name(struct vcpu *cpu, const struct insn *i)                                  \
    {                                                                                              \
        operand_update(cpu, i, alu_##name, operand_load(cpu, i, 1));                               \
    }
#define UNARY(name)                                                                                \
    static void do_##name(struct vcpu *cpu, const struct insn *i)                                  \
    {                                                                                              \
        operand_update(cpu, i, alu_##name, 0);                                                     \
    }
BINARY(add)
BINARY(or)
BINARY(adc)
BINARY(sbb)
BINARY(and)
BINARY(sub)
BINARY(xor)
BINARY(rol)
BINARY(ror)
BINARY(rcl)
BINARY(rcr)
BINARY(shl)
BINARY(shr)
BINARY(sar)
UNARY(inc)
UNARY(dec)
UNARY(neg)
UNARY(not)

/* Only the flags of fn(operand 0, operand 1). */
static void compare(struct vcpu *cpu, const struct insn *i, alu2_fn *fn)
{
    uint32_t f = alu_pack(cpu->r.rflags);
    uint64_t a = operand_load(cpu, i, 0);
    fn(a, operand_load(cpu, i, 1), i->opsize, &f);
    cpu->r.rflags = alu_unpack(cpu->r.rflags, f);
}

static void do_cmp(struct vcpu *cpu, const struct insn *i)
{
    compare(cpu, i, alu_sub);
}

static void do_test(struct vcpu *cpu, const struct insn *i)
{
    compare(cpu, i, alu_and);
}

static void do_imul(struct vcpu *cpu, const struct insn *i)
{
    uint32_t f = alu_pack(cpu->r.rflags);
    bool three = i->desc->operand[2] != OPD_NONE;
    uint64_t a = operand_load(cpu, i, three ? 1 : 0);
    uint64_t b = operand_load(cpu, i, three ? 2 : 1);
    uint64_t v = alu_imul(a, b, i->opsize, &f);
    reg_write(cpu, i, i->reg, i->opsize, v);
    cpu->r.rflags = alu_unpack(cpu->r.rflags, f);
}

/* bsf, bsr, tzcnt, lzcnt, popcnt: the old destination counts, bsf may leave it. */
static void count_bits(struct vcpu *cpu, const struct insn *i, alu2_fn *fn)
{
    uint32_t f = alu_pack(cpu->r.rflags);
    uint64_t source = operand_load(cpu, i, 1);
    uint64_t old = reg_read(cpu, i, i->reg, i->opsize);
    uint64_t v = fn(old, source, i->opsize, &f);
    if (source || (i->op != OP_BSF && i->op != OP_BSR)) { /* else not even the upper half */
        reg_write(cpu, i, i->reg, i->opsize, v);
    }
    cpu->r.rflags = alu_unpack(cpu->r.rflags, f);
}

static void do_bsf(struct vcpu *cpu, const struct insn *i)
{
    count_bits(cpu, i, alu_bsf);
}

static void do_bsr(struct vcpu *cpu, const struct insn *i)
{
    count_bits(cpu, i, alu_bsr);
}

static void do_tzcnt(struct vcpu *cpu, const struct insn *i)
{
    count_bits(cpu, i, alu_tzcnt);
}

static void do_lzcnt(struct vcpu *cpu, const struct insn *i)
{
    count_bits(cpu, i, alu_lzcnt);
}

static void do_popcnt(struct vcpu *cpu, const struct insn *i)
{
    count_bits(cpu, i, alu_popcnt);
}

/* ---- double shifts ---- */

#define DOUBLE_CASE(type, insn, suffix)                                                            \
    {                                                                                              \
        type d = (type)a, s = (type)b;                                                             \
        __asm__(ALU_FLAGS_IN insn suffix " %%cl, %[s], %[d]" ALU_FLAGS_OUT                         \
                : "+a"(ax), [d] "+r"(d)                                                            \
                : [s] "r"(s), "c"(count)                                                           \
                : "cc");                                                                           \
        a = d;                                                                                     \
        break;                                                                                     \
    }
#define DOUBLE_SHIFT(name, insn)                                                                   \
    static uint64_t name(uint64_t a, uint64_t b, uint8_t count, unsigned bytes, uint32_t *f)       \
    {                                                                                              \
        uint32_t ax = *f;                                                                          \
        switch (bytes) {                                                                           \
        case 2:                                                                                    \
            DOUBLE_CASE(uint16_t, insn, "w")                                                       \
        case 4:                                                                                    \
            DOUBLE_CASE(uint32_t, insn, "l")                                                       \
        default:                                                                                   \
            DOUBLE_CASE(uint64_t, insn, "q")                                                       \
        }                                                                                          \
        *f = ax;                                                                                   \
        return a;                                                                                  \
    }
DOUBLE_SHIFT(alu_shld, "shld")
DOUBLE_SHIFT(alu_shrd, "shrd")

static void do_double_shift(struct vcpu *cpu, const struct insn *i)
{
    uint32_t f = alu_pack(cpu->r.rflags);
    unsigned bytes = i->opsize;
    uint8_t count = (uint8_t)operand_load(cpu, i, 2);
    uint64_t other = reg_read(cpu, i, i->reg, bytes);
    uint64_t linear = 0, v;
    if (i->mem) {
        linear = interp_linear(cpu, i, bytes, true);
        v = mem_load_rmw(cpu, linear, bytes);
    } else {
        v = reg_read(cpu, i, i->rm, bytes);
    }
    v = i->op == OP_SHLD ? alu_shld(v, other, count, bytes, &f)
                         : alu_shrd(v, other, count, bytes, &f);
    if (i->mem) {
        mem_store(cpu, linear, v, bytes);
    } else {
        reg_write(cpu, i, i->rm, bytes, v);
    }
    cpu->r.rflags = alu_unpack(cpu->r.rflags, f);
}

/* ---- multiplication and division ---- */

#define WIDE_MUL_CASE(type, insn, suffix, hi)                                                      \
    {                                                                                              \
        type s = (type)b, low = (type)cpu->r.gpr[RAX], high = 0;                                   \
        __asm__(ALU_FLAGS_IN "mov %[low], %%" hi "\n\t" insn suffix " %[s]\n\tmov %%" hi           \
                             ", %[low]" ALU_FLAGS_OUT                                              \
                : "+a"(ax), [low] "+r"(low), "=&d"(high)                                           \
                : [s] "r"(s)                                                                       \
                : "cc");                                                                           \
        reg_write(cpu, i, RAX, bytes, low);                                                        \
        reg_write(cpu, i, RDX, bytes, high);                                                       \
        break;                                                                                     \
    }

/* mul and one-operand imul: the product in AX, DX:AX, EDX:EAX or RDX:RAX. */
static void do_mul(struct vcpu *cpu, const struct insn *i)
{
    uint32_t ax = alu_pack(cpu->r.rflags);
    unsigned bytes = i->opsize;
    uint64_t b = operand_load(cpu, i, 0);
    switch (bytes) {
    case 1: {
        uint16_t low = (uint16_t)(cpu->r.gpr[RAX] & 0xff);
        __asm__(ALU_FLAGS_IN "mov %[low], %%ax\n\tmulb %[s]\n\tmov %%ax, %[low]" ALU_FLAGS_OUT
                : "+a"(ax), [low] "+r"(low)
                : [s] "q"((uint8_t)b)
                : "cc");
        reg_write(cpu, i, RAX, 2, low);
        break;
    }
    case 2:
        WIDE_MUL_CASE(uint16_t, "mul", "w", "ax")
    case 4:
        WIDE_MUL_CASE(uint32_t, "mul", "l", "eax")
    default:
        WIDE_MUL_CASE(uint64_t, "mul", "q", "rax")
    }
    cpu->r.rflags = alu_unpack(cpu->r.rflags, ax);
}

static void do_imul1(struct vcpu *cpu, const struct insn *i)
{
    uint32_t ax = alu_pack(cpu->r.rflags);
    unsigned bytes = i->opsize;
    uint64_t b = operand_load(cpu, i, 0);
    switch (bytes) {
    case 1: {
        uint16_t low = (uint16_t)(cpu->r.gpr[RAX] & 0xff);
        __asm__(ALU_FLAGS_IN "mov %[low], %%ax\n\timulb %[s]\n\tmov %%ax, %[low]" ALU_FLAGS_OUT
                : "+a"(ax), [low] "+r"(low)
                : [s] "q"((uint8_t)b)
                : "cc");
        reg_write(cpu, i, RAX, 2, low);
        break;
    }
    case 2:
        WIDE_MUL_CASE(uint16_t, "imul", "w", "ax")
    case 4:
        WIDE_MUL_CASE(uint32_t, "imul", "l", "eax")
    default:
        WIDE_MUL_CASE(uint64_t, "imul", "q", "rax")
    }
    cpu->r.rflags = alu_unpack(cpu->r.rflags, ax);
}

static void divide_wide(struct vcpu *cpu, const struct insn *i, uint64_t d)
{
    unsigned __int128 n = (unsigned __int128)cpu->r.gpr[RDX] << 64 | cpu->r.gpr[RAX];
    uint64_t low = (uint64_t)n, high = (uint64_t)(n >> 64);
    if (high >= d) {
        cpu_raise(cpu, VEC_DE);
    }
    __asm__("divq %[d]" : "+a"(low), "+d"(high) : [d] "r"(d) : "cc");
    reg_write(cpu, i, RAX, 8, low);
    reg_write(cpu, i, RDX, 8, high);
}

static void do_div(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = i->opsize;
    uint64_t d = operand_load(cpu, i, 0), n;
    if (d == 0) {
        cpu_raise(cpu, VEC_DE);
    }
    if (bytes == 8) {
        divide_wide(cpu, i, d);
        return;
    }
    n = bytes == 1 ? cpu->r.gpr[RAX] & 0xffff
                   : (cpu->r.gpr[RDX] & size_mask(bytes)) << bytes * 8 |
                         (cpu->r.gpr[RAX] & size_mask(bytes));
    uint64_t q = n / d, rest = n % d;
    if (q > size_mask(bytes)) {
        cpu_raise(cpu, VEC_DE);
    }
    if (bytes == 1) {
        reg_write(cpu, i, RAX, 2, q | rest << 8);
    } else {
        reg_write(cpu, i, RAX, bytes, q);
        reg_write(cpu, i, RDX, bytes, rest);
    }
}

static int64_t sign_extend(uint64_t v, unsigned bytes)
{
    unsigned shift = 64 - 8 * bytes;
    return (int64_t)(v << shift) >> shift;
}

static void do_idiv(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = i->opsize;
    __int128 d = sign_extend(operand_load(cpu, i, 0), bytes), n;
    if (d == 0) {
        cpu_raise(cpu, VEC_DE);
    }
    if (bytes == 1) {
        n = sign_extend(cpu->r.gpr[RAX], 2);
    } else if (bytes == 8) {
        n = (__int128)((unsigned __int128)cpu->r.gpr[RDX] << 64 | cpu->r.gpr[RAX]);
    } else {
        uint64_t low = cpu->r.gpr[RAX] & size_mask(bytes);
        n = sign_extend(cpu->r.gpr[RDX] << bytes * 8 | low, 2 * bytes);
    }
    /* The most negative dividend by -1 would trap here: its quotient is too large anyway. */
    if (d == -1 && n == (__int128)((unsigned __int128)1 << 127)) {
        cpu_raise(cpu, VEC_DE);
    }
    __int128 q = n / d, rest = n % d;
    if (q != (__int128)sign_extend((uint64_t)q, bytes)) {
        cpu_raise(cpu, VEC_DE);
    }
    if (bytes == 1) {
        reg_write(cpu, i, RAX, 2, ((uint64_t)q & 0xff) | ((uint64_t)rest & 0xff) << 8);
    } else {
        reg_write(cpu, i, RAX, bytes, (uint64_t)q);
        reg_write(cpu, i, RDX, bytes, (uint64_t)rest);
    }
}

/* ---- bit tests ---- */

/* A register as bit offset reaches memory beyond the operand. */
static uint64_t bit_linear(struct vcpu *cpu, const struct insn *i, uint64_t bit, bool write)
{
    unsigned bytes = i->opsize;
    uint64_t offset = interp_offset(cpu, i);
    if (i->desc->operand[1] == OPD_REG) {
        int64_t word = sign_extend(bit, bytes) >> (bytes == 2 ? 4 : bytes == 4 ? 5 : 6);
        offset = (offset + (uint64_t)(word * (int64_t)bytes)) & size_mask(i->addrsize);
    }
    return seg_linear(cpu, (enum seg_name)i->seg, offset, bytes, write);
}

static void bit_operation(struct vcpu *cpu, const struct insn *i, alu2_fn *fn)
{
    uint32_t f = alu_pack(cpu->r.rflags);
    unsigned bytes = i->opsize;
    uint64_t bit = operand_load(cpu, i, 1), in_word = bit & (bytes * 8 - 1);
    bool write = i->op != OP_BT;
    if (!i->mem) {
        uint64_t v = fn(reg_read(cpu, i, i->rm, bytes), in_word, bytes, &f);
        if (write) {
            reg_write(cpu, i, i->rm, bytes, v);
        }
    } else {
        uint64_t linear = bit_linear(cpu, i, bit, write);
        if (!write) {
            fn(mem_load(cpu, linear, bytes), in_word, bytes, &f);
        } else if (i->prefixes & PFX_LOCK) {
            locked_update(cpu, linear, bytes, fn, in_word, &f);
        } else {
            mem_store(cpu, linear, fn(mem_load_rmw(cpu, linear, bytes), in_word, bytes, &f), bytes);
        }
    }
    cpu->r.rflags = alu_unpack(cpu->r.rflags, f);
}

static void do_bt(struct vcpu *cpu, const struct insn *i)
{
    bit_operation(cpu, i, alu_bt);
}

static void do_bts(struct vcpu *cpu, const struct insn *i)
{
    bit_operation(cpu, i, alu_bts);
}

static void do_btr(struct vcpu *cpu, const struct insn *i)
{
    bit_operation(cpu, i, alu_btr);
}

static void do_btc(struct vcpu *cpu, const struct insn *i)
{
    bit_operation(cpu, i, alu_btc);
}

/* ---- moves ---- */

static void do_mov(struct vcpu *cpu, const struct insn *i)
{
    operand_store(cpu, i, 0, operand_load(cpu, i, 1));
}

static void do_movsx(struct vcpu *cpu, const struct insn *i)
{
    unsigned from = insn_size(i, i->desc->bytes[1]);
    if (i->op == OP_MOVSXD && i->opsize == 2) {
        from = 2; /* of the four bytes read, two are moved */
    }
    uint64_t v = (uint64_t)sign_extend(operand_load(cpu, i, 1), from);
    reg_write(cpu, i, i->reg, i->opsize, v);
}

static void do_lea(struct vcpu *cpu, const struct insn *i)
{
    reg_write(cpu, i, i->reg, i->opsize, interp_offset(cpu, i));
}

static void do_xchg(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = i->opsize;
    uint32_t f = 0;
    if (i->mem) { /* locked, with the prefix or without */
        uint64_t v = reg_read(cpu, i, i->reg, bytes);
        v = locked_update(cpu, interp_linear(cpu, i, bytes, true), bytes, alu_exchange, v, &f);
        reg_write(cpu, i, i->reg, bytes, v);
        return;
    }
    unsigned other = i->has_modrm ? i->rm : (unsigned)RAX;
    uint64_t a = reg_read(cpu, i, i->reg, bytes), b = reg_read(cpu, i, other, bytes);
    reg_write(cpu, i, i->reg, bytes, b);
    reg_write(cpu, i, other, bytes, a);
}

static void do_xadd(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = i->opsize;
    uint32_t f = alu_pack(cpu->r.rflags);
    uint64_t add = reg_read(cpu, i, i->reg, bytes), was;
    if (!i->mem) {
        was = reg_read(cpu, i, i->rm, bytes);
        uint64_t sum = alu_add(was, add, bytes, &f);
        reg_write(cpu, i, i->reg, bytes, was);
        reg_write(cpu, i, i->rm, bytes, sum);
    } else {
        uint64_t linear = interp_linear(cpu, i, bytes, true);
        if (i->prefixes & PFX_LOCK) {
            was = locked_update(cpu, linear, bytes, alu_add, add, &f);
        } else {
            was = mem_load_rmw(cpu, linear, bytes);
            mem_store(cpu, linear, alu_add(was, add, bytes, &f), bytes);
        }
        reg_write(cpu, i, i->reg, bytes, was);
    }
    cpu->r.rflags = alu_unpack(cpu->r.rflags, f);
}

#define CMPXCHG_CASE(type)                                                                         \
    {                                                                                              \
        type old = (type)expect;                                                                   \
        __atomic_compare_exchange_n((type *)host, &old, (type)replace, false, __ATOMIC_SEQ_CST,    \
                                    __ATOMIC_SEQ_CST);                                             \
        was = old;                                                                                 \
        break;                                                                                     \
    }

/* Locked always: that costs little and is never wrong.  Returns what was there. */
ANY_ALIGNMENT static uint64_t compare_exchange(struct vcpu *cpu, uint64_t linear, unsigned bytes,
                                               uint64_t expect, uint64_t replace)
{
    uint64_t was;
    void *host = mem_atomic(cpu, linear, bytes);
    if (!host) {
        mem_lock();
        was = mem_load_rmw(cpu, linear, bytes);
        mem_store(cpu, linear, was == expect ? replace : was, bytes);
        mem_unlock();
        return was;
    }
    switch (bytes) {
    case 1:
        CMPXCHG_CASE(uint8_t)
    case 2:
        CMPXCHG_CASE(uint16_t)
    case 4:
        CMPXCHG_CASE(uint32_t)
    default:
        CMPXCHG_CASE(uint64_t)
    }
    mem_wrote(cpu, host, bytes);
    return was;
}

static void do_cmpxchg(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = i->opsize;
    uint32_t f = alu_pack(cpu->r.rflags);
    uint64_t expect = cpu->r.gpr[RAX] & size_mask(bytes);
    uint64_t replace = reg_read(cpu, i, i->reg, bytes), was;
    if (i->mem) {
        uint64_t linear = interp_linear(cpu, i, bytes, true);
        was = compare_exchange(cpu, linear, bytes, expect, replace);
    } else {
        was = reg_read(cpu, i, i->rm, bytes);
        if (was == expect) {
            reg_write(cpu, i, i->rm, bytes, replace);
        }
    }
    if (was != expect) {
        reg_write(cpu, i, RAX, bytes, was);
    }
    alu_sub(expect, was, bytes, &f);
    cpu->r.rflags = alu_unpack(cpu->r.rflags, f);
}

static bool compare_exchange16(struct vcpu *cpu, uint64_t linear, uint64_t expect[2],
                               const uint64_t replace[2])
{
    uint64_t was[2];
    uint8_t *host = mem_atomic(cpu, linear, 16);
    if (host) {
        bool same;
        __asm__ volatile("lock cmpxchg16b %[m]"
                         : "=@ccz"(same), [m] "+m"(*(unsigned __int128 *)host),
                           "+a"(expect[0]), "+d"(expect[1])
                         : "b"(replace[0]), "c"(replace[1])
                         : "memory");
        mem_wrote(cpu, host, 16);
        return same;
    }
    mem_lock();
    was[0] = mem_load_rmw(cpu, linear, 8);
    was[1] = mem_load_rmw(cpu, linear + 8, 8);
    bool same = was[0] == expect[0] && was[1] == expect[1];
    mem_store(cpu, linear, same ? replace[0] : was[0], 8);
    mem_store(cpu, linear + 8, same ? replace[1] : was[1], 8);
    mem_unlock();
    memcpy(expect, was, sizeof(was));
    return same;
}

/* cmpxchg8b, cmpxchg16b */
static void do_cmpxchg8b(struct vcpu *cpu, const struct insn *i)
{
    uint64_t *r = cpu->r.gpr;
    bool same;
    uint64_t linear = interp_linear(cpu, i, insn_mem_bytes(i), true);
    if (i->opsize == 8) {
        uint64_t expect[2] = {r[RAX], r[RDX]}, replace[2] = {r[RBX], r[RCX]};
        if (linear & 15) {
            cpu_raise_code(cpu, VEC_GP, 0);
        }
        same = compare_exchange16(cpu, linear, expect, replace);
        if (!same) {
            r[RAX] = expect[0];
            r[RDX] = expect[1];
        }
    } else {
        uint64_t expect = r[RDX] << 32 | (uint32_t)r[RAX];
        uint64_t was = compare_exchange(cpu, linear, 8, expect, r[RCX] << 32 | (uint32_t)r[RBX]);
        same = was == expect;
        if (!same) {
            r[RAX] = (uint32_t)was;
            r[RDX] = was >> 32;
        }
    }
    cpu->r.rflags = (cpu->r.rflags & ~(uint64_t)FLAG_ZF) | (same ? FLAG_ZF : 0);
}

static uint64_t swap_bytes(uint64_t v, unsigned bytes)
{
    return bytes == 2 ? __builtin_bswap16((uint16_t)v)
           : bytes == 4 ? __builtin_bswap32((uint32_t)v)
                        : __builtin_bswap64(v);
}

static void do_bswap(struct vcpu *cpu, const struct insn *i)
{
    uint64_t v = reg_read(cpu, i, i->reg, i->opsize);
    /* With 16 bits the result is undefined; processors give zero. */
    reg_write(cpu, i, i->reg, i->opsize, i->opsize == 2 ? 0 : swap_bytes(v, i->opsize));
}

static void do_movbe(struct vcpu *cpu, const struct insn *i)
{
    operand_store(cpu, i, 0, swap_bytes(operand_load(cpu, i, 1), i->opsize));
}

static void do_cbw(struct vcpu *cpu, const struct insn *i)
{
    uint64_t v = (uint64_t)sign_extend(cpu->r.gpr[RAX], i->opsize / 2u);
    reg_write(cpu, i, RAX, i->opsize, v);
}

static void do_cwd(struct vcpu *cpu, const struct insn *i)
{
    bool negative = sign_extend(cpu->r.gpr[RAX], i->opsize) < 0;
    reg_write(cpu, i, RDX, i->opsize, negative ? UINT64_MAX : 0);
}

static void do_cmovcc(struct vcpu *cpu, const struct insn *i)
{
    uint64_t v = operand_load(cpu, i, 1); /* faults whether or not it moves */
    if (!condition_holds(cpu, i->opcode)) {
        v = reg_read(cpu, i, i->reg, i->opsize);
    }
    reg_write(cpu, i, i->reg, i->opsize, v);
}

static void do_setcc(struct vcpu *cpu, const struct insn *i)
{
    operand_store(cpu, i, 0, condition_holds(cpu, i->opcode));
}

static void do_xlat(struct vcpu *cpu, const struct insn *i)
{
    uint64_t offset = cpu->r.gpr[RBX] + (cpu->r.gpr[RAX] & 0xff);
    offset &= size_mask(i->addrsize);
    uint64_t linear = seg_linear(cpu, (enum seg_name)i->seg, offset, 1, false);
    reg_write(cpu, i, RAX, 1, mem_load(cpu, linear, 1));
}

/* ---- flags ---- */

static void do_flag(struct vcpu *cpu, const struct insn *i)
{
    uint64_t *f = &cpu->r.rflags;
    switch (i->op) {
    case OP_CLC:
        *f &= ~(uint64_t)FLAG_CF;
        break;
    case OP_STC:
        *f |= FLAG_CF;
        break;
    case OP_CMC:
        *f ^= FLAG_CF;
        break;
    case OP_CLD:
        *f &= ~(uint64_t)FLAG_DF;
        break;
    default:
        *f |= FLAG_DF;
        break;
    }
}

static void do_lahf(struct vcpu *cpu, const struct insn *i)
{
    uint64_t f = (cpu->r.rflags & FLAGS_ARITH & 0xff) | 2;
    (void)i;
    cpu->r.gpr[RAX] = (cpu->r.gpr[RAX] & ~UINT64_C(0xff00)) | f << 8;
}

static void do_sahf(struct vcpu *cpu, const struct insn *i)
{
    uint64_t mask = FLAGS_ARITH & 0xff;
    (void)i;
    cpu->r.rflags = (cpu->r.rflags & ~mask) | (cpu->r.gpr[RAX] >> 8 & mask);
}

/* ---- decimal ---- */

static uint64_t flags_of_byte(uint64_t rflags, uint8_t v)
{
    rflags &= ~(uint64_t)(FLAG_SF | FLAG_ZF | FLAG_PF);
    return rflags | (v & FLAG_SF) | (v ? 0 : FLAG_ZF) |
           (__builtin_parity(v) ? 0 : (uint64_t)FLAG_PF);
}

/* daa and das */
static void do_decimal_adjust(struct vcpu *cpu, const struct insn *i)
{
    uint8_t al = (uint8_t)cpu->r.gpr[RAX], v = al;
    uint64_t f = cpu->r.rflags & ~(uint64_t)(FLAG_CF | FLAG_AF);
    bool carry = cpu->r.rflags & FLAG_CF, add = i->op == OP_DAA;
    if ((al & 15) > 9 || (cpu->r.rflags & FLAG_AF)) {
        f |= FLAG_AF;
        if (!add && (carry || al < 6)) {
            f |= FLAG_CF;
        }
        v = (uint8_t)(add ? v + 6 : v - 6);
    }
    if (al > 0x99 || carry) {
        v = (uint8_t)(add ? v + 0x60 : v - 0x60);
        f |= FLAG_CF;
    }
    reg_write(cpu, i, RAX, 1, v);
    cpu->r.rflags = flags_of_byte(f, v);
}

/* aaa and aas */
static void do_ascii_adjust(struct vcpu *cpu, const struct insn *i)
{
    uint16_t ax = (uint16_t)cpu->r.gpr[RAX];
    uint64_t f = cpu->r.rflags & ~(uint64_t)(FLAG_CF | FLAG_AF);
    if ((ax & 15) > 9 || (cpu->r.rflags & FLAG_AF)) {
        ax = (uint16_t)(i->op == OP_AAA ? ax + 0x106 : ax - 0x106);
        f |= FLAG_CF | FLAG_AF;
    }
    ax &= 0xff0f;
    reg_write(cpu, i, RAX, 2, ax);
    cpu->r.rflags = f;
}

static void do_aam(struct vcpu *cpu, const struct insn *i)
{
    uint8_t al = (uint8_t)cpu->r.gpr[RAX], base = (uint8_t)i->imm;
    if (base == 0) {
        cpu_raise(cpu, VEC_DE);
    }
    reg_write(cpu, i, RAX, 2, (uint64_t)(al / base) << 8 | al % base);
    cpu->r.rflags = flags_of_byte(cpu->r.rflags, al % base);
}

static void do_aad(struct vcpu *cpu, const struct insn *i)
{
    uint64_t ax = cpu->r.gpr[RAX];
    uint8_t al = (uint8_t)((ax & 0xff) + (ax >> 8 & 0xff) * (uint8_t)i->imm);
    reg_write(cpu, i, RAX, 2, al);
    cpu->r.rflags = flags_of_byte(cpu->r.rflags, al);
}

static void do_salc(struct vcpu *cpu, const struct insn *i)
{
    reg_write(cpu, i, RAX, 1, cpu->r.rflags & FLAG_CF ? 0xff : 0);
}

static void do_bound(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = i->opsize;
    uint64_t linear = interp_linear(cpu, i, 2 * bytes, false);
    int64_t low = sign_extend(mem_load(cpu, linear, bytes), bytes);
    int64_t high = sign_extend(mem_load(cpu, linear + bytes, bytes), bytes);
    int64_t v = sign_extend(reg_read(cpu, i, i->reg, bytes), bytes);
    if (v < low || v > high) {
        cpu_raise(cpu, VEC_BR);
    }
}

/* ---- newer ones ---- */

#define CARRY_CHAIN(name, insn)                                                                    \
    static uint64_t name(uint64_t a, uint64_t b, unsigned bytes, uint32_t *f)                      \
    {                                                                                              \
        uint32_t ax = *f;                                                                          \
        switch (bytes) {                                                                           \
        case 4:                                                                                    \
            ALU2_CASE(uint32_t, insn, "l", "r")                                                    \
        default:                                                                                   \
            ALU2_CASE(uint64_t, insn, "q", "r")                                                    \
        }                                                                                          \
        *f = ax;                                                                                   \
        return a;                                                                                  \
    }
CARRY_CHAIN(alu_adcx, "adcx")
CARRY_CHAIN(alu_adox, "adox")

static void do_adx(struct vcpu *cpu, const struct insn *i)
{
    operand_update(cpu, i, i->op == OP_ADCX ? alu_adcx : alu_adox, operand_load(cpu, i, 1));
}

static void do_crc32(struct vcpu *cpu, const struct insn *i)
{
    uint64_t crc = (uint32_t)cpu->r.gpr[i->reg], v = operand_load(cpu, i, 1);
    unsigned from = insn_size(i, i->desc->bytes[1]);
    for (unsigned at = 0; at < from; at++) {
        uint32_t c = (uint32_t)crc;
        __asm__("crc32b %[v], %[c]" : [c] "+r"(c) : [v] "q"((uint8_t)(v >> 8 * at)));
        crc = c;
    }
    cpu->r.gpr[i->reg] = crc;
}

static void do_random(struct vcpu *cpu, const struct insn *i)
{
    uint64_t v = 0;
    bool good = false;
    for (unsigned n = 0; n < 16 && !good; n++) { /* rdseed runs dry sooner */
        if (i->op == OP_RDRAND) {
            __asm__ volatile("rdrand %0" : "=r"(v), "=@ccc"(good));
        } else {
            __asm__ volatile("rdseed %0" : "=r"(v), "=@ccc"(good));
        }
    }
    reg_write(cpu, i, i->rm, i->opsize, good ? v : 0);
    cpu->r.rflags = (cpu->r.rflags & ~(uint64_t)FLAGS_ARITH) | (good ? FLAG_CF : 0);
}

#define VEX_FLAGS_CASE(type, insn, suffix)                                                         \
    {                                                                                              \
        type d, s = (type)a, t = (type)b;                                                          \
        __asm__(ALU_FLAGS_IN insn suffix " %[s], %[t], %[d]" ALU_FLAGS_OUT                         \
                : "+a"(ax), [d] "=&r"(d)                                                           \
                : [s] "r"(s), [t] "r"(t)                                                           \
                : "cc");                                                                           \
        v = d;                                                                                     \
    }
#define BLS_CASE(type, insn, suffix)                                                               \
    {                                                                                              \
        type d, s = (type)a;                                                                       \
        __asm__(ALU_FLAGS_IN insn suffix " %[s], %[d]" ALU_FLAGS_OUT                               \
                : "+a"(ax), [d] "=&r"(d)                                                           \
                : [s] "r"(s)                                                                       \
                : "cc");                                                                           \
        v = d;                                                                                     \
    }
#define VEX3(name, text, first, second)                                                            \
    static void do_##name(struct vcpu *cpu, const struct insn *i)                                  \
    {                                                                                              \
        uint32_t ax = alu_pack(cpu->r.rflags);                                                     \
        uint64_t a = operand_load(cpu, i, first), b = operand_load(cpu, i, second), v;             \
        if (i->opsize == 8) {                                                                      \
            VEX_FLAGS_CASE(uint64_t, text, "q")                                                    \
        } else {                                                                                   \
            VEX_FLAGS_CASE(uint32_t, text, "l")                                                    \
        }                                                                                          \
        operand_store(cpu, i, 0, v);                                                               \
        cpu->r.rflags = alu_unpack(cpu->r.rflags, ax);                                             \
    }
#define BLS(name, text)                                                                            \
    static void do_##name(struct vcpu *cpu, const struct insn *i)                                  \
    {                                                                                              \
        uint32_t ax = alu_pack(cpu->r.rflags);                                                     \
        uint64_t a = operand_load(cpu, i, 1), v;                                                   \
        if (i->opsize == 8) {                                                                      \
            BLS_CASE(uint64_t, text, "q")                                                          \
        } else {                                                                                   \
            BLS_CASE(uint32_t, text, "l")                                                          \
        }                                                                                          \
        operand_store(cpu, i, 0, v);                                                               \
        cpu->r.rflags = alu_unpack(cpu->r.rflags, ax);                                             \
    }
/* AT&T order is the reverse of the manual's: insn first, second, destination. */
VEX3(andn, "andn", 2, 1)
VEX3(bextr, "bextr", 2, 1)
VEX3(bzhi, "bzhi", 2, 1)
VEX3(pdep, "pdep", 2, 1)
VEX3(pext, "pext", 2, 1)
VEX3(shlx, "shlx", 2, 1)
VEX3(sarx, "sarx", 2, 1)
VEX3(shrx, "shrx", 2, 1)
BLS(blsr, "blsr")
BLS(blsmsk, "blsmsk")
BLS(blsi, "blsi")

static void do_mulx(struct vcpu *cpu, const struct insn *i)
{
    unsigned bytes = i->opsize;
    uint64_t b = operand_load(cpu, i, 2);
    unsigned __int128 product = (unsigned __int128)(cpu->r.gpr[RDX] & size_mask(bytes)) * b;
    reg_write(cpu, i, i->vvvv, bytes, (uint64_t)product);
    /* If both are the same register it gets the high half. */
    reg_write(cpu, i, i->reg, bytes, (uint64_t)(product >> bytes * 8));
}

static void do_rorx(struct vcpu *cpu, const struct insn *i)
{
    unsigned bits = i->opsize * 8u, n = (unsigned)i->imm & (bits - 1);
    uint64_t v = operand_load(cpu, i, 1);
    reg_write(cpu, i, i->reg, i->opsize, n ? v >> n | v << (bits - n) : v);
}

static void do_nothing(struct vcpu *cpu, const struct insn *i)
{
    (void)cpu, (void)i;
}

static void do_fence(struct vcpu *cpu, const struct insn *i)
{
    (void)cpu, (void)i;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* clflush and its like need a readable byte and change nothing that can be seen. */
static void do_cache_line(struct vcpu *cpu, const struct insn *i)
{
    mem_probe(cpu, interp_linear(cpu, i, 1, false), 1, false);
}

static void do_undefined(struct vcpu *cpu, const struct insn *i)
{
    (void)i;
    cpu_raise(cpu, VEC_UD);
}

static const struct interp_row interp_integer_rows[] = {
    {OP_ADD, do_add}, {OP_OR, do_or}, {OP_ADC, do_adc}, {OP_SBB, do_sbb}, {OP_AND, do_and},
    {OP_SUB, do_sub}, {OP_XOR, do_xor}, {OP_CMP, do_cmp}, {OP_TEST, do_test},
    {OP_INC, do_inc}, {OP_DEC, do_dec}, {OP_NEG, do_neg}, {OP_NOT, do_not},
    {OP_ROL, do_rol}, {OP_ROR, do_ror}, {OP_RCL, do_rcl}, {OP_RCR, do_rcr},
    {OP_SHL, do_shl}, {OP_SHR, do_shr}, {OP_SAR, do_sar},
    {OP_SHLD, do_double_shift}, {OP_SHRD, do_double_shift},
    {OP_IMUL, do_imul}, {OP_IMUL1, do_imul1}, {OP_MUL, do_mul}, {OP_DIV, do_div},
    {OP_IDIV, do_idiv},
    {OP_BT, do_bt}, {OP_BTS, do_bts}, {OP_BTR, do_btr}, {OP_BTC, do_btc},
    {OP_BSF, do_bsf}, {OP_BSR, do_bsr}, {OP_TZCNT, do_tzcnt}, {OP_LZCNT, do_lzcnt},
    {OP_POPCNT, do_popcnt},
    {OP_MOV, do_mov}, {OP_MOVZX, do_mov}, {OP_MOVSX, do_movsx}, {OP_MOVSXD, do_movsx},
    {OP_MOVNTI, do_mov}, {OP_LEA, do_lea}, {OP_XCHG, do_xchg}, {OP_XADD, do_xadd},
    {OP_CMPXCHG, do_cmpxchg}, {OP_CMPXCHG8B, do_cmpxchg8b}, {OP_BSWAP, do_bswap},
    {OP_MOVBE, do_movbe}, {OP_CBW, do_cbw}, {OP_CWD, do_cwd}, {OP_CMOVCC, do_cmovcc},
    {OP_SETCC, do_setcc}, {OP_XLAT, do_xlat},
    {OP_CLC, do_flag}, {OP_STC, do_flag}, {OP_CMC, do_flag}, {OP_CLD, do_flag},
    {OP_STD, do_flag}, {OP_LAHF, do_lahf}, {OP_SAHF, do_sahf},
    {OP_DAA, do_decimal_adjust}, {OP_DAS, do_decimal_adjust}, {OP_AAA, do_ascii_adjust},
    {OP_AAS, do_ascii_adjust}, {OP_AAM, do_aam}, {OP_AAD, do_aad}, {OP_SALC, do_salc},
    {OP_BOUND, do_bound},
    {OP_ADCX, do_adx}, {OP_ADOX, do_adx}, {OP_CRC32, do_crc32}, {OP_RDRAND, do_random},
    {OP_RDSEED, do_random}, {OP_ANDN, do_andn}, {OP_BEXTR, do_bextr}, {OP_BZHI, do_bzhi},
    {OP_PDEP, do_pdep}, {OP_PEXT, do_pext}, {OP_SHLX, do_shlx}, {OP_SARX, do_sarx},
    {OP_SHRX, do_shrx}, {OP_BLSR, do_blsr}, {OP_BLSMSK, do_blsmsk}, {OP_BLSI, do_blsi},
    {OP_MULX, do_mulx}, {OP_RORX, do_rorx},
    {OP_NOP, do_nothing}, {OP_PAUSE, do_nothing}, {OP_PREFETCH, do_nothing},
    {OP_LFENCE, do_fence}, {OP_MFENCE, do_fence}, {OP_SFENCE, do_fence},
    {OP_CLFLUSH, do_cache_line}, {OP_CLFLUSHOPT, do_cache_line}, {OP_CLWB, do_cache_line},
    {OP_UD0, do_undefined}, {OP_UD1, do_undefined}, {OP_UD2, do_undefined},
};
INTERP_TABLE(interp_integer);
