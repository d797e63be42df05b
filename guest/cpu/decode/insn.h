/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * insn - one decoded x86 instruction
 *
 * Spec: Intel SDM, volume 2, "Instruction Format" and the appendix "Opcode Map"; AMD APM,
 * volume 3, "Instruction Encoding".
 *
 * opcodes.def is the table: one row an instruction form, with operands, flags read and
 * written, memory access and class.  The interpreter's handlers and the translator's
 * emitters are found by .op; nobody looks at opcode bytes twice.
 *
 * insn_ops.h is generated from it: enum insn_op, one OP_<NAME> for each distinct mnemonic,
 * and enum cpu_feature.
 */
#include "guest/cpu/decode/insn_ops.h"

enum insn_map { MAP_1BYTE, MAP_0F, MAP_0F38, MAP_0F3A, MAP_3DNOW /* refused */, MAP_EVEX5, MAP_EVEX6 };
enum insn_encoding { ENC_LEGACY, ENC_VEX, ENC_EVEX };
enum insn_prefix {
    PFX_66 = 1 << 0, PFX_F2 = 1 << 1, PFX_F3 = 1 << 2, PFX_LOCK = 1 << 3,
    PFX_67 = 1 << 4, PFX_SEG = 1 << 5, /* a segment override that counts in this mode */
    PFX_REX = 1 << 6,
};

/* What kind of instruction it is: decides how an engine treats it. */
enum insn_class {
    CLASS_INTEGER, /* registers, flags, memory operand; no other effect: copyable */
    CLASS_STRING,  /* movs, stos, lods, scas, cmps (rep or not) */
    CLASS_STACK,   /* push, pop, enter, leave, pusha, popa, pushf, popf */
    CLASS_BRANCH,  /* relative jmp, jcc, call, loop, jcxz */
    CLASS_INDIRECT, /* near jmp/call through register or memory, near ret */
    CLASS_FAR,     /* far jmp/call/ret, int, iret, syscall, sysret, sysenter, sysexit, into, int3 */
    CLASS_X87,     /* x87 (needs CR0.EM, TS, MP checks and pending errors) */
    CLASS_MMX,     /* MMX registers */
    CLASS_SSE,     /* legacy-encoded SSE on XMM (needs CR0.EM, TS, CR4.OSFXSR) */
    CLASS_AVX,     /* VEX-encoded vector (needs CR4.OSXSAVE, XCR0) */
    CLASS_AVX512,
    CLASS_BMI,     /* VEX-encoded general register instructions */
    CLASS_SYSTEM,  /* privileged or serialising: its own handler */
    CLASS_IO,      /* in, out, ins, outs */
    CLASS_UNDEFINED, /* #UD */
};

/* How an operand is named.  The letters in opcodes.def follow the SDM's opcode map. */
enum operand_kind {
    OPD_NONE,
    OPD_REG,    /* general register .reg: modrm.reg, or opcode low bits if !has_modrm */
    OPD_RM,     /* general register .rm, or memory if .mem */
    OPD_MEM,    /* memory only */
    OPD_IMM,    /* immediate in .imm, sign-extended to 64 bits except the Ib of opcodes.def */
    OPD_REL,    /* branch displacement in .imm */
    OPD_MOFFS,  /* absolute address in .disp (mov al, moffs) */
    OPD_SREG, OPD_CREG, OPD_DREG, /* number in .reg */
    OPD_XMM, OPD_XMM_RM, /* vector register by modrm.reg / modrm.rm or memory */
    OPD_MMX, OPD_MMX_RM,
    OPD_VVVV,   /* vector register .vvvv; a general register in CLASS_BMI */
    OPD_IS4,    /* vector register .imm >> 4 */
    OPD_MASK,
    OPD_ST,     /* x87 stack: ST(rm), or the top; see the instruction */
    OPD_FAR,    /* ptr16:16, ptr16:32: offset in .imm, selector in .imm2 */
    OPD_STRING_SRC, OPD_STRING_DST, /* [rSI] with segment, es:[rDI] */
    OPD_ACC, OPD_CL, OPD_DX, OPD_ONE, OPD_XMM0, /* AL/AX/EAX/RAX; CL; DX; the constant 1 */
};

enum mem_access { MEM_NONE, MEM_READ = 1, MEM_WRITE = 2, MEM_RW = 3, MEM_ADDRESS = 4 /* lea, nop */ };

/* Sizes in .mem_bytes and .bytes below: bytes, or one of these; insn_size() resolves them. */
enum insn_size {
    SIZE_OPSIZE = 0,
    SIZE_Y = 240, /* 8 if the operand size is 8, else 4 */
    SIZE_Z,       /* 2 if the operand size is 2, else 4 */
    SIZE_X, SIZE_H, SIZE_F, SIZE_E, /* vector length, half, a quarter, an eighth of it */
    SIZE_P,       /* far pointer: operand size + 2 */
    SIZE_A,       /* bound: twice the operand size */
    SIZE_S,       /* descriptor table: 10 in 64-bit mode, else 6 */
    SIZE_C,       /* cmpxchg8b, cmpxchg16b */
    SIZE_HANDLER = 255, /* fxsave, gathers, ...: the handler knows */
};

/* One row of opcodes.def. */
struct insn_desc {
    const char *name;     /* "add" */
    uint16_t op;          /* enum insn_op */
    uint8_t class;        /* enum insn_class */
    uint8_t mem;          /* enum mem_access of the explicit memory operand, if there is one */
    uint8_t mem_bytes;    /* its size: enum insn_size */
    uint8_t operand[4];   /* enum operand_kind */
    uint8_t access[4];    /* enum mem_access of each, register or memory */
    uint8_t bytes[4];     /* size of each: enum insn_size */
    uint32_t flags_read, flags_written; /* FLAG_*; written includes undefined ones */
    uint32_t flags_undefined; /* of those: value not defined by the manual */
    /* General registers used without being an operand (bit 1 << RAX ...).  The accumulator,
     * CL and DX as operands are included; those of the address are not. */
    uint16_t regs_read, regs_written;
    uint8_t cpuid;        /* enum cpu_feature that must be offered, 0: none */
    uint8_t imm, form;    /* the decoder's */
    uint32_t bits;        /* enum insn_bits */
};
enum insn_bits {
    INSN_LOCKABLE = 1 << 0,   /* LOCK allowed with a memory destination */
    INSN_NO64 = 1 << 1,       /* #UD in 64-bit mode: the decoder sees to it */
    INSN_ONLY64 = 1 << 2,     /* #UD outside it: the decoder sees to it */
    INSN_DEF64 = 1 << 3,      /* operand size defaults to 64 in 64-bit mode */
    INSN_CPL0 = 1 << 4,       /* #GP above CPL 0 */
    INSN_ENDS = 1 << 5,       /* a translated block ends after it */
    INSN_FORCE64 = 1 << 6,    /* operand size is always 64 in 64-bit mode (near branches) */
    INSN_BYTE = 1 << 7,       /* byte-sized form: opsize is 1 */
    INSN_MANDATORY = 1 << 8,  /* 66, F2, F3 belong to the opcode */
    INSN_O16 = 1 << 9,        /* ... but 66 sets the operand size all the same */
    INSN_VSIB = 1 << 10,      /* .index is a vector register */
    INSN_ALIGN = 1 << 11,     /* #GP if the memory operand is not aligned to its size */
    INSN_ODD_MEM = 1 << 12,   /* touches memory in another way than the operand says */
    INSN_DISTINCT = 1 << 13,  /* gathers: the three vector registers must differ */
    INSN_REP = 1 << 14,       /* REP, REPE, REPNE mean repetition */
    INSN_MAX4 = 1 << 15,      /* operand size 8 means 4 */
    INSN_NO_VVVV = 1 << 16,   /* VEX.vvvv must be 1111 */
    INSN_NO_MEM = 1 << 17,    /* modrm.mod is ignored: always a register */
    INSN_OWN = 1 << 18,       /* a vector or x87 instruction that is not left to the host */
};

struct insn {
    const struct insn_desc *desc;
    uint16_t op;       /* enum insn_op, = desc->op */
    uint8_t len;       /* bytes, 1 to 15 */
    uint8_t encoding;  /* enum insn_encoding */
    uint8_t map, opcode;
    uint8_t pp;        /* 0 none, 1 66, 2 F3, 3 F2; F2 and F3 before 66, the last of them */
    uint8_t prefixes;  /* enum insn_prefix */
    uint8_t rex;       /* the REX byte, or its equivalent from VEX/EVEX (W R X B), or 0 */
    uint8_t opsize;    /* 1, 2, 4, 8: operand size in force (byte forms: 1) */
    uint8_t addrsize;  /* 2, 4, 8 */
    uint8_t modrm, sib;
    uint8_t has_modrm;
    uint8_t reg;       /* register number of modrm.reg with its REX bit, or of opcode low bits */
    uint8_t rm;        /* register number of modrm.rm with its REX bit, if .mod == 3 */
    uint8_t mod;
    uint8_t mem;       /* the instruction has an explicit memory operand (mod != 3, moffs) */
    int8_t base, index; /* registers of the memory operand, -1: none */
    uint8_t scale;     /* 0 to 3: shift */
    uint8_t seg;       /* enum seg_name of the memory operand or string source, override applied */
    uint8_t rip_relative; /* disp is from the end of the instruction */
    uint8_t vvvv, vl;  /* VEX/EVEX: register; vector length 0: 128, 1: 256, 2: 512 */
    uint8_t evex_aaa, evex_z, evex_b;
    uint8_t at_opcode, at_modrm, at_disp, at_imm; /* offsets in the bytes; 0: there is none */
    uint8_t code_bytes; /* the mode it was decoded for */
    uint8_t disp_bytes, imm_bytes;
    int64_t disp;
    int64_t imm;       /* first immediate */
    uint16_t imm2;     /* second: enter's level, far selector */
    uint8_t bytes[16]; /* the instruction itself, zero-filled behind .len */
};

enum decode_result {
    DECODE_OK,
    DECODE_SHORT,     /* @n bytes were not enough: fetch more */
    DECODE_UD,        /* no such instruction: #UD; .desc is a row of CLASS_UNDEFINED */
    DECODE_TOO_LONG,  /* more than 15 bytes: #GP */
};

/*
 * Decodes one instruction from @n bytes at @at.  @code_bytes is 2, 4 or 8: default size of
 * the code segment (16, 32, 64-bit mode).  Does not look at the CPU: features, CPL and mode
 * bits in .desc are the engine's to check.  No allocation, any thread.
 */
enum decode_result insn_decode(const uint8_t *at, size_t n, unsigned code_bytes,
                               struct insn *out);

/* Bytes of a size code of .desc for this instruction; 0 for SIZE_HANDLER. */
unsigned insn_size(const struct insn *in, uint8_t code);
static inline unsigned insn_mem_bytes(const struct insn *in)
{
    return insn_size(in, in->desc->mem_bytes);
}

/* As -cpu and CPUID tables write them; "" for FEATURE_NONE. */
extern const char *const cpu_feature_names[];

/* Conditions of jcc, setcc, cmovcc: the low four bits of the opcode, in .opcode & 15. */
