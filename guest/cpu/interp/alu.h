/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/interp/interp.h"

/*
 * alu - arithmetic by the host's own instruction, flags included
 *
 * The guest's arithmetic flags travel in AX as LAHF and SETO leave them: AH is the low byte
 * of RFLAGS, AL is OF.  The host instruction starts with them and leaves its own, so what
 * the manual calls undefined is what this processor does.
 */
#define ALU_FLAGS_IN "addb $0x7f, %%al\n\tsahf\n\t" /* 1 + 0x7f overflows, 0 + 0x7f does not */
#define ALU_FLAGS_OUT "\n\tlahf\n\tseto %%al"

static inline uint32_t alu_pack(uint64_t rflags)
{
    return (uint32_t)((rflags & 0xff) << 8 | ((rflags >> 11) & 1));
}

static inline uint64_t alu_unpack(uint64_t rflags, uint32_t ax)
{
    uint64_t now = (ax >> 8 & (FLAGS_ARITH & 0xff)) | (uint64_t)(ax & 1) << 11;
    return (rflags & ~(uint64_t)FLAGS_ARITH) | now;
}

/* @f: packed flags, in and out. */
typedef uint64_t alu1_fn(uint64_t a, unsigned bytes, uint32_t *f);
typedef uint64_t alu2_fn(uint64_t a, uint64_t b, unsigned bytes, uint32_t *f);

#define ALU1_CASE(type, insn, suffix)                                                              \
    {                                                                                              \
        type d = (type)a;                                                                          \
        __asm__(ALU_FLAGS_IN insn suffix " %[d]" ALU_FLAGS_OUT : "+a"(ax), [d] "+q"(d) : : "cc");  \
        a = d;                                                                                     \
        break;                                                                                     \
    }
#define ALU2_CASE(type, insn, suffix, where)                                                       \
    {                                                                                              \
        type d = (type)a, s = (type)b;                                                             \
        __asm__(ALU_FLAGS_IN insn suffix " %[s], %[d]" ALU_FLAGS_OUT                               \
                : "+a"(ax), [d] "+q"(d)                                                            \
                : [s] where(s)                                                                     \
                : "cc");                                                                           \
        a = d;                                                                                     \
        break;                                                                                     \
    }
/* name(a, flags): insn a */
#define ALU1(name, insn)                                                                           \
    static uint64_t name(uint64_t a, unsigned bytes, uint32_t *f)                                  \
    {                                                                                              \
        uint32_t ax = *f;                                                                          \
        switch (bytes) {                                                                           \
        case 1:                                                                                    \
            ALU1_CASE(uint8_t, insn, "b")                                                          \
        case 2:                                                                                    \
            ALU1_CASE(uint16_t, insn, "w")                                                         \
        case 4:                                                                                    \
            ALU1_CASE(uint32_t, insn, "l")                                                         \
        default:                                                                                   \
            ALU1_CASE(uint64_t, insn, "q")                                                         \
        }                                                                                          \
        *f = ax;                                                                                   \
        return a;                                                                                  \
    }
/* name(a, b, flags): insn b, a */
#define ALU2(name, insn)                                                                           \
    static uint64_t name(uint64_t a, uint64_t b, unsigned bytes, uint32_t *f)                      \
    {                                                                                              \
        uint32_t ax = *f;                                                                          \
        switch (bytes) {                                                                           \
        case 1:                                                                                    \
            ALU2_CASE(uint8_t, insn, "b", "q")                                                     \
        case 2:                                                                                    \
            ALU2_CASE(uint16_t, insn, "w", "r")                                                    \
        case 4:                                                                                    \
            ALU2_CASE(uint32_t, insn, "l", "r")                                                    \
        default:                                                                                   \
            ALU2_CASE(uint64_t, insn, "q", "r")                                                    \
        }                                                                                          \
        *f = ax;                                                                                   \
        return a;                                                                                  \
    }
/* the same for instructions without a byte form */
#define ALU2_WIDE(name, insn)                                                                      \
    static uint64_t name(uint64_t a, uint64_t b, unsigned bytes, uint32_t *f)                      \
    {                                                                                              \
        uint32_t ax = *f;                                                                          \
        switch (bytes) {                                                                           \
        case 2:                                                                                    \
            ALU2_CASE(uint16_t, insn, "w", "r")                                                    \
        case 4:                                                                                    \
            ALU2_CASE(uint32_t, insn, "l", "r")                                                    \
        default:                                                                                   \
            ALU2_CASE(uint64_t, insn, "q", "r")                                                    \
        }                                                                                          \
        *f = ax;                                                                                   \
        return a;                                                                                  \
    }
/* shifts: insn cl, a */
#define ALU_SHIFT_CASE(type, insn, suffix)                                                         \
    {                                                                                              \
        type d = (type)a;                                                                          \
        __asm__(ALU_FLAGS_IN insn suffix " %%cl, %[d]" ALU_FLAGS_OUT                               \
                : "+a"(ax), [d] "+q"(d)                                                            \
                : "c"((uint8_t)b)                                                                  \
                : "cc");                                                                           \
        a = d;                                                                                     \
        break;                                                                                     \
    }
#define ALU_SHIFT(name, insn)                                                                      \
    static uint64_t name(uint64_t a, uint64_t b, unsigned bytes, uint32_t *f)                      \
    {                                                                                              \
        uint32_t ax = *f;                                                                          \
        switch (bytes) {                                                                           \
        case 1:                                                                                    \
            ALU_SHIFT_CASE(uint8_t, insn, "b")                                                     \
        case 2:                                                                                    \
            ALU_SHIFT_CASE(uint16_t, insn, "w")                                                    \
        case 4:                                                                                    \
            ALU_SHIFT_CASE(uint32_t, insn, "l")                                                    \
        default:                                                                                   \
            ALU_SHIFT_CASE(uint64_t, insn, "q")                                                    \
        }                                                                                          \
        *f = ax;                                                                                   \
        return a;                                                                                  \
    }

/* ---- operands ---- */

/* Operand @n of the instruction as a number of its size. */
uint64_t operand_load(struct vcpu *cpu, const struct insn *i, unsigned n);
/* Writes a register or memory operand that is not read. */
void operand_store(struct vcpu *cpu, const struct insn *i, unsigned n, uint64_t v);
/* Operand 0 becomes fn(operand 0, @b): register, memory, or memory with LOCK. */
void operand_update(struct vcpu *cpu, const struct insn *i, alu2_fn *fn, uint64_t b);
/*
 * Memory at @linear becomes fn(it, @b) in one step that other processors cannot see half
 * of; returns what it was.  Sets no flags: the last call's are in *@f.
 */
uint64_t locked_update(struct vcpu *cpu, uint64_t linear, unsigned bytes, alu2_fn *fn, uint64_t b,
                       uint32_t *f);
/* The condition in the opcode's low four bits. */
bool condition_holds(const struct vcpu *cpu, unsigned code);
