/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/cpu/vcpu.h"

/*
 * Host code emission, x86-64.  Guest and host are the same architecture: most guest
 * instructions are copied (encode.h), and these functions write the glue between them.
 *
 * Each writes exactly one host instruction and decides nothing else but the shortest form
 * of an immediate or a displacement.
 *
 * Spec: AMD64 Architecture Programmer's Manual, volume 3 (24594), "Instruction
 * Encoding": "ModRM and SIB Bytes", "REX Prefix", "VEX and XOP Prefixes".
 */
struct code {
    uint8_t *at, *end;
    bool full; /* set instead of overrunning; the caller retries in a fresh region */
};

/* Registers are the guest's numbers, enum gpr. */
struct mem {
    int8_t base, index; /* -1: none */
    uint8_t scale;      /* 0 to 3: shift of .index */
    bool gs;            /* relative to the vCPU's block */
    int32_t disp;
};
#define MEM_BASE(b, d) ((struct mem){.base = (int8_t)(b), .index = -1, .disp = (d)})
#define MEM_SUM(b, i) ((struct mem){.base = (int8_t)(b), .index = (int8_t)(i)})
#define MEM_SLOT(d) ((struct mem){.base = -1, .index = -1, .gs = true, .disp = (d)})

void emit_byte(struct code *c, unsigned b);
void emit_value(struct code *c, uint64_t v, unsigned bytes); /* little-endian */
void emit_copy(struct code *c, const uint8_t *insn, unsigned bytes);
/* ModRM, SIB and displacement of @m, with @reg in the register field. */
void emit_modrm(struct code *c, unsigned reg, struct mem m);

/* ---- these leave the flags alone ---- */

void emit_mov(struct code *c, unsigned dst, unsigned src);
void emit_mov32(struct code *c, unsigned dst, unsigned src);
void emit_mov16(struct code *c, unsigned dst, unsigned src); /* low words */
void emit_mov8(struct code *c, unsigned dst, unsigned src); /* low bytes */
void emit_mov_imm(struct code *c, unsigned dst, uint64_t v); /* shortest of three forms */
void emit_xchg(struct code *c, unsigned a, unsigned b);
/* 1, 2 and 4 bytes are zero-extended. */
void emit_load(struct code *c, unsigned bytes, unsigned dst, struct mem m);
void emit_store(struct code *c, unsigned bytes, struct mem m, unsigned src);
void emit_store_imm(struct code *c, unsigned bytes, struct mem m, int32_t v);
void emit_lea(struct code *c, unsigned dst, struct mem m);
void emit_lea32(struct code *c, unsigned dst, struct mem m); /* result cut to 32 bits */
void emit_lea_rip(struct code *c, unsigned dst, const uint8_t *target);
void emit_crc32(struct code *c, unsigned dst, unsigned src);
void emit_rorx(struct code *c, unsigned dst, unsigned src, unsigned count);
/* @dst = bits of @src, from .. how many << 8 in @which_reg; changes flags */
void emit_bextr(struct code *c, unsigned dst, unsigned src, unsigned which_reg);
void emit_shlx(struct code *c, unsigned dst, unsigned src, unsigned count_reg);
void emit_cmov(struct code *c, unsigned cc, unsigned dst, unsigned src);
void emit_movsxd(struct code *c, unsigned dst, unsigned src);
void emit_lahf(struct code *c);
void emit_seto_al(struct code *c);
void emit_setcc(struct code *c, unsigned cc, struct mem m); /* a byte */
/* Always the 4-byte form, so that a chained block can be patched.  Same cache only. */
void emit_jmp(struct code *c, const uint8_t *target);
void emit_jcc(struct code *c, unsigned cc, const uint8_t *target); /* cc as in the guest's Jcc */
void emit_jmp_mem(struct code *c, struct mem m);
void emit_jmp_reg(struct code *c, unsigned reg);
void emit_call_reg(struct code *c, unsigned reg);
void emit_ret(struct code *c);
void emit_push(struct code *c, unsigned reg);
void emit_pop(struct code *c, unsigned reg);
void emit_cld(struct code *c);
void emit_rdtsc(struct code *c);
/* Short forms with an 8-bit displacement that short_target() fills in. */
uint8_t *emit_jmp_short(struct code *c);
uint8_t *emit_jcc_short(struct code *c, unsigned cc);
void emit_short_target(struct code *c, uint8_t *from);
/* Makes the 4 bytes that a jump form above ended in point to @target; atomic. */
void emit_patch_rel32(uint8_t *field, const uint8_t *target);
/* The same for a whole jump over an instruction of 5 to 8 bytes on a multiple of 8. */
void emit_patch_jmp(uint8_t *insn, const uint8_t *target);
void emit_nops(struct code *c, unsigned bytes);
/* Room in front of @head bytes and a rel32, so that the rel32 can be patched while others run
 * it: it must not lie across cache lines. */
void emit_align_field(struct code *c, unsigned head);

/* ---- these change flags ---- */

void emit_sahf(struct code *c);
void emit_add_al_imm(struct code *c, unsigned v);
void emit_shl(struct code *c, unsigned reg, unsigned count);
void emit_shr(struct code *c, unsigned reg, unsigned count);
void emit_sar(struct code *c, unsigned reg, unsigned count);
void emit_test(struct code *c, unsigned a, unsigned b);
void emit_test_imm8(struct code *c, unsigned reg, unsigned v); /* low byte */
void emit_and32_imm(struct code *c, unsigned reg, int32_t v);
void emit_or32_imm(struct code *c, unsigned reg, int32_t v);
void emit_cmp32_imm(struct code *c, unsigned reg, int32_t v);
void emit_cmp(struct code *c, unsigned a, unsigned b);
void emit_cmp_mem(struct code *c, unsigned a, struct mem m); /* 64 bits: a - [m] */
void emit_cmp_mem8_imm(struct code *c, struct mem m, unsigned v);
void emit_test_mem8_imm(struct code *c, struct mem m, unsigned v);
void emit_test_mem32_imm(struct code *c, struct mem m, int32_t v);
void emit_and_mem32_imm(struct code *c, struct mem m, int32_t v);
void emit_or_mem32_imm(struct code *c, struct mem m, int32_t v);
void emit_add_imm(struct code *c, unsigned reg, int32_t v);
void emit_add_mem(struct code *c, unsigned reg, struct mem m);
void emit_inc_mem(struct code *c, struct mem m); /* 64 bits */
void emit_sub(struct code *c, unsigned dst, unsigned src);
void emit_or(struct code *c, unsigned dst, unsigned src);
void emit_xor32(struct code *c, unsigned dst, unsigned src);
void emit_shr32(struct code *c, unsigned reg, unsigned count);
void emit_neg32(struct code *c, unsigned reg);

enum cond { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS };
