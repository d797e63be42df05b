/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/cpu/translate/emit_x64.h"

enum { MOD_DISP0 = 0x00, MOD_DISP8 = 0x40, MOD_DISP32 = 0x80, MOD_REG = 0xc0 };
enum { SIB_NONE = 4, SIB_NO_BASE = 5, NEEDS_SIB = 4, NEEDS_DISP = 5 };
enum { PREFIX_GS = 0x65, PREFIX_OPSIZE = 0x66, REX = 0x40, REX_W = 0x48 };

void emit_byte(struct code *c, unsigned b)
{
    if (c->at >= c->end) {
        c->full = true;
    } else {
        *c->at++ = (uint8_t)b;
    }
}

void emit_value(struct code *c, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        emit_byte(c, v >> (8 * i) & 0xff);
    }
}

void emit_copy(struct code *c, const uint8_t *insn, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        emit_byte(c, insn[i]);
    }
}

static unsigned modrm(unsigned mod, unsigned reg, unsigned rm)
{
    return mod | (reg & 7) << 3 | (rm & 7);
}

static void modrm_reg(struct code *c, unsigned reg, unsigned rm)
{
    emit_byte(c, modrm(MOD_REG, reg, rm));
}

static bool fits8(int64_t v)
{
    return v == (int8_t)v;
}

/* The encodings that surprise: base RSP/R12 needs a SIB, base RBP/R13 a displacement, and
 * a SIB without a base always has four bytes of it. */
void emit_modrm(struct code *c, unsigned reg, struct mem m)
{
    unsigned index = m.index < 0 ? SIB_NONE : (unsigned)m.index;
    if (m.base < 0) {
        emit_byte(c, modrm(MOD_DISP0, reg, NEEDS_SIB));
        emit_byte(c, (unsigned)m.scale << 6 | (index & 7) << 3 | SIB_NO_BASE);
        emit_value(c, (uint64_t)m.disp, 4);
        return;
    }
    bool sib = m.index >= 0 || (m.base & 7) == NEEDS_SIB;
    bool none = m.disp == 0 && (m.base & 7) != NEEDS_DISP;
    unsigned mod = none ? MOD_DISP0 : fits8(m.disp) ? MOD_DISP8 : MOD_DISP32;
    emit_byte(c, modrm(mod, reg, sib ? NEEDS_SIB : (unsigned)m.base));
    if (sib) {
        emit_byte(c, (unsigned)m.scale << 6 | (index & 7) << 3 | ((unsigned)m.base & 7));
    }
    emit_value(c, (uint64_t)m.disp, none ? 0 : mod == MOD_DISP8 ? 1 : 4);
}

static unsigned rex_mem(unsigned reg, struct mem m)
{
    return (reg >> 3) << 2 | (unsigned)(m.index >= 8) << 1 | (unsigned)(m.base >= 8);
}

static void segment(struct code *c, struct mem m)
{
    if (m.gs) {
        emit_byte(c, PREFIX_GS);
    }
}

/* A register-memory instruction: REX (with @w, or @force for SPL to DIL), opcode, operand. */
static void op_mem_plain(struct code *c, bool w, bool force, unsigned opcode, unsigned reg,
                         struct mem m)
{
    unsigned rex = rex_mem(reg, m) | (w ? 8 : 0);
    if (rex || force) {
        emit_byte(c, REX | rex);
    }
    if (opcode > 0xff) {
        emit_byte(c, opcode >> 8);
    }
    emit_byte(c, opcode & 0xff);
    emit_modrm(c, reg, m);
}

static void op_mem(struct code *c, bool w, bool force, unsigned opcode, unsigned reg, struct mem m)
{
    segment(c, m);
    op_mem_plain(c, w, force, opcode, reg, m);
}

/* The same with a register as second operand. */
static void op_reg(struct code *c, bool w, unsigned opcode, unsigned reg, unsigned rm)
{
    unsigned rex = (reg >> 3) << 2 | rm >> 3 | (w ? 8 : 0);
    if (rex) {
        emit_byte(c, REX | rex);
    }
    if (opcode > 0xff) {
        emit_byte(c, opcode >> 8);
    }
    emit_byte(c, opcode & 0xff);
    modrm_reg(c, reg, rm);
}

void emit_mov(struct code *c, unsigned dst, unsigned src)
{
    op_reg(c, true, 0x89, src, dst); /* mov r/m64, r64 */
}

void emit_mov32(struct code *c, unsigned dst, unsigned src)
{
    op_reg(c, false, 0x89, src, dst);
}

void emit_mov16(struct code *c, unsigned dst, unsigned src)
{
    emit_byte(c, 0x66);
    op_reg(c, false, 0x89, src, dst);
}

void emit_mov8(struct code *c, unsigned dst, unsigned src)
{
    if (dst > RBX || src > RBX) { /* SPL to DIL, not AH to BH */
        emit_byte(c, REX | (src >> 3) << 2 | dst >> 3);
    }
    emit_byte(c, 0x88);
    modrm_reg(c, src, dst);
}

void emit_mov_imm(struct code *c, unsigned dst, uint64_t v)
{
    if (v <= UINT32_MAX) {
        if (dst >> 3) {
            emit_byte(c, REX | 1);
        }
        emit_byte(c, 0xb8 | (dst & 7)); /* mov r32, imm32 */
        emit_value(c, v, 4);
    } else if (v == (uint64_t)(int64_t)(int32_t)v) {
        op_reg(c, true, 0xc7, 0, dst); /* mov r/m64, simm32 */
        emit_value(c, v, 4);
    } else {
        emit_byte(c, REX_W | dst >> 3);
        emit_byte(c, 0xb8 | (dst & 7)); /* mov r64, imm64 */
        emit_value(c, v, 8);
    }
}

void emit_xchg(struct code *c, unsigned a, unsigned b)
{
    op_reg(c, true, 0x87, b, a);
}

void emit_load(struct code *c, unsigned bytes, unsigned dst, struct mem m)
{
    switch (bytes) {
    case 1:
        op_mem(c, false, false, 0x0fb6, dst, m); /* movzx r32, r/m8 */
        break;
    case 2:
        op_mem(c, false, false, 0x0fb7, dst, m); /* movzx r32, r/m16 */
        break;
    default:
        op_mem(c, bytes == 8, false, 0x8b, dst, m);
    }
}

void emit_store(struct code *c, unsigned bytes, struct mem m, unsigned src)
{
    segment(c, m);
    if (bytes == 2) {
        emit_byte(c, PREFIX_OPSIZE);
    }
    op_mem_plain(c, bytes == 8, bytes == 1 && src >= 4, bytes == 1 ? 0x88 : 0x89, src, m);
}

void emit_store_imm(struct code *c, unsigned bytes, struct mem m, int32_t v)
{
    segment(c, m);
    if (bytes == 2) {
        emit_byte(c, PREFIX_OPSIZE);
    }
    op_mem_plain(c, bytes == 8, false, bytes == 1 ? 0xc6 : 0xc7, 0, m);
    emit_value(c, (uint64_t)v, bytes == 8 ? 4 : bytes);
}

void emit_lea(struct code *c, unsigned dst, struct mem m)
{
    op_mem(c, true, false, 0x8d, dst, m);
}

void emit_lea32(struct code *c, unsigned dst, struct mem m)
{
    op_mem(c, false, false, 0x8d, dst, m);
}

/* Counts from the end of the instruction, so it must be the last part of one. */
static void rel32(struct code *c, const uint8_t *target)
{
    emit_value(c, (uint64_t)(target - (c->at + 4)), 4);
}

void emit_lea_rip(struct code *c, unsigned dst, const uint8_t *target)
{
    emit_byte(c, REX_W | (dst >> 3) << 2);
    emit_byte(c, 0x8d);
    emit_byte(c, modrm(MOD_DISP0, dst, 5));
    rel32(c, target);
}

/* Three-byte VEX: @map 2 is 0F38, 3 is 0F3A; @pp 1 is 66, 2 F3, 3 F2. */
static void vex3(struct code *c, unsigned rex, unsigned map, unsigned vvvv, unsigned pp)
{
    emit_byte(c, 0xc4);
    emit_byte(c, ((~rex & 7) << 5) | map);
    emit_byte(c, (rex & 8) << 4 | (~vvvv & 15) << 3 | pp);
}

void emit_crc32(struct code *c, unsigned dst, unsigned src)
{
    emit_byte(c, 0xf2);
    emit_byte(c, REX_W | (dst >> 3) << 2 | src >> 3);
    emit_copy(c, (const uint8_t[]){0x0f, 0x38, 0xf1}, 3);
    modrm_reg(c, dst, src);
}

void emit_rorx(struct code *c, unsigned dst, unsigned src, unsigned count)
{
    vex3(c, 8 | (dst >> 3) << 2 | src >> 3, 3, 0, 3);
    emit_byte(c, 0xf0);
    modrm_reg(c, dst, src);
    emit_byte(c, count);
}

void emit_bextr(struct code *c, unsigned dst, unsigned src, unsigned which_reg)
{
    vex3(c, 8 | (dst >> 3) << 2 | src >> 3, 2, which_reg, 0);
    emit_byte(c, 0xf7);
    modrm_reg(c, dst, src);
}

void emit_shlx(struct code *c, unsigned dst, unsigned src, unsigned count_reg)
{
    vex3(c, 8 | (dst >> 3) << 2 | src >> 3, 2, count_reg, 1);
    emit_byte(c, 0xf7);
    modrm_reg(c, dst, src);
}

void emit_movsxd(struct code *c, unsigned dst, unsigned src)
{
    op_reg(c, true, 0x63, dst, src);
}

void emit_lahf(struct code *c)
{
    emit_byte(c, 0x9f);
}

void emit_seto_al(struct code *c)
{
    op_reg(c, false, 0x0f90, 0, RAX);
}

void emit_setcc(struct code *c, unsigned cc, struct mem m)
{
    op_mem(c, false, false, 0x0f90 | cc, 0, m);
}

void emit_jmp(struct code *c, const uint8_t *target)
{
    emit_byte(c, 0xe9);
    rel32(c, target);
}

void emit_jcc(struct code *c, unsigned cc, const uint8_t *target)
{
    emit_byte(c, 0x0f);
    emit_byte(c, 0x80 | cc);
    rel32(c, target);
}

void emit_jmp_mem(struct code *c, struct mem m)
{
    op_mem(c, false, false, 0xff, 4, m);
}

void emit_jmp_reg(struct code *c, unsigned reg)
{
    op_reg(c, false, 0xff, 4, reg);
}

void emit_call_reg(struct code *c, unsigned reg)
{
    op_reg(c, false, 0xff, 2, reg);
}

void emit_ret(struct code *c)
{
    emit_byte(c, 0xc3);
}

void emit_push(struct code *c, unsigned reg)
{
    if (reg >> 3) {
        emit_byte(c, REX | 1);
    }
    emit_byte(c, 0x50 | (reg & 7));
}

void emit_pop(struct code *c, unsigned reg)
{
    if (reg >> 3) {
        emit_byte(c, REX | 1);
    }
    emit_byte(c, 0x58 | (reg & 7));
}

void emit_cld(struct code *c)
{
    emit_byte(c, 0xfc);
}

void emit_rdtsc(struct code *c)
{
    emit_byte(c, 0x0f);
    emit_byte(c, 0x31);
}

static uint8_t *short_jump(struct code *c, unsigned opcode)
{
    emit_byte(c, opcode);
    emit_byte(c, 0);
    return c->at;
}

uint8_t *emit_jmp_short(struct code *c)
{
    return short_jump(c, 0xeb);
}

uint8_t *emit_jcc_short(struct code *c, unsigned cc)
{
    return short_jump(c, 0x70 | cc);
}

void emit_short_target(struct code *c, uint8_t *from)
{
    if (!c->full) {
        from[-1] = (uint8_t)(c->at - from);
    }
}

void emit_patch_rel32(uint8_t *field, const uint8_t *target)
{
    __atomic_store_n((uint32_t *)(void *)field, (uint32_t)(target - (field + 4)), __ATOMIC_RELEASE);
}

/* AMD64 APM, volume 2, "Cross-Modifying Code": one store to a naturally aligned quadword. */
void emit_patch_jmp(uint8_t *insn, const uint8_t *target)
{
    uint32_t rel = (uint32_t)(target - (insn + 5));
    uint8_t bytes[8];
    uint64_t all;
    memcpy(bytes, insn, sizeof(bytes));
    bytes[0] = 0xe9;
    memcpy(bytes + 1, &rel, sizeof(rel));
    memcpy(&all, bytes, sizeof(all));
    __atomic_store_n((uint64_t *)(void *)insn, all, __ATOMIC_RELEASE);
}

/* AMD64 APM, volume 3, "NOP": the recommended multi-byte forms. */
void emit_nops(struct code *c, unsigned bytes)
{
    static const uint8_t forms[][9] = {
        {0x90},
        {0x66, 0x90},
        {0x0f, 0x1f, 0x00},
        {0x0f, 0x1f, 0x40, 0x00},
        {0x0f, 0x1f, 0x44, 0x00, 0x00},
        {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00},
        {0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00},
        {0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
        {0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
    };
    while (bytes) {
        unsigned n = bytes < 9 ? bytes : 9;
        emit_copy(c, forms[n - 1], n);
        bytes -= n;
    }
}

void emit_align_field(struct code *c, unsigned head)
{
    enum { LINE = 64 };
    unsigned at = (unsigned)((uintptr_t)c->at + head) % LINE;
    if (at > LINE - 4) {
        emit_nops(c, LINE - at);
    }
}

void emit_sahf(struct code *c)
{
    emit_byte(c, 0x9e);
}

void emit_add_al_imm(struct code *c, unsigned v)
{
    emit_byte(c, 0x04);
    emit_byte(c, v);
}

void emit_shl(struct code *c, unsigned reg, unsigned count)
{
    op_reg(c, true, 0xc1, 4, reg);
    emit_byte(c, count);
}

void emit_shr(struct code *c, unsigned reg, unsigned count)
{
    op_reg(c, true, 0xc1, 5, reg);
    emit_byte(c, count);
}

void emit_sar(struct code *c, unsigned reg, unsigned count)
{
    op_reg(c, true, 0xc1, 7, reg);
    emit_byte(c, count);
}

void emit_test(struct code *c, unsigned a, unsigned b)
{
    op_reg(c, true, 0x85, b, a);
}

void emit_test_imm8(struct code *c, unsigned reg, unsigned v)
{
    if (reg >= 4) {
        emit_byte(c, REX | reg >> 3);
    }
    emit_byte(c, 0xf6);
    modrm_reg(c, 0, reg);
    emit_byte(c, v);
}

/* Group 1 with the shorter immediate where it fits. */
static void group1(struct code *c, bool w, unsigned which, unsigned reg, int32_t v)
{
    op_reg(c, w, fits8(v) ? 0x83 : 0x81, which, reg);
    emit_value(c, (uint64_t)v, fits8(v) ? 1 : 4);
}

void emit_and32_imm(struct code *c, unsigned reg, int32_t v)
{
    group1(c, false, 4, reg, v);
}

void emit_or32_imm(struct code *c, unsigned reg, int32_t v)
{
    group1(c, false, 1, reg, v);
}

void emit_cmp32_imm(struct code *c, unsigned reg, int32_t v)
{
    group1(c, false, 7, reg, v);
}

void emit_add_imm(struct code *c, unsigned reg, int32_t v)
{
    group1(c, true, 0, reg, v);
}

void emit_cmp(struct code *c, unsigned a, unsigned b)
{
    op_reg(c, true, 0x39, b, a);
}

void emit_sub(struct code *c, unsigned dst, unsigned src)
{
    op_reg(c, true, 0x29, src, dst);
}

void emit_or(struct code *c, unsigned dst, unsigned src)
{
    op_reg(c, true, 0x09, src, dst);
}

void emit_xor32(struct code *c, unsigned dst, unsigned src)
{
    op_reg(c, false, 0x31, src, dst);
}

void emit_shr32(struct code *c, unsigned reg, unsigned count)
{
    op_reg(c, false, 0xc1, 5, reg);
    emit_byte(c, count);
}

void emit_neg32(struct code *c, unsigned reg)
{
    op_reg(c, false, 0xf7, 3, reg);
}

void emit_cmov(struct code *c, unsigned cc, unsigned dst, unsigned src)
{
    op_reg(c, true, 0x0f40 | cc, dst, src);
}

void emit_cmp_mem(struct code *c, unsigned a, struct mem m)
{
    op_mem(c, true, false, 0x3b, a, m);
}

void emit_add_mem(struct code *c, unsigned reg, struct mem m)
{
    op_mem(c, true, false, 0x03, reg, m);
}

void emit_cmp_mem8_imm(struct code *c, struct mem m, unsigned v)
{
    op_mem(c, false, false, 0x80, 7, m);
    emit_byte(c, v);
}

void emit_test_mem8_imm(struct code *c, struct mem m, unsigned v)
{
    op_mem(c, false, false, 0xf6, 0, m);
    emit_byte(c, v);
}

void emit_test_mem32_imm(struct code *c, struct mem m, int32_t v)
{
    op_mem(c, false, false, 0xf7, 0, m);
    emit_value(c, (uint64_t)v, 4);
}

void emit_and_mem32_imm(struct code *c, struct mem m, int32_t v)
{
    op_mem(c, false, false, 0x81, 4, m);
    emit_value(c, (uint64_t)v, 4);
}

void emit_or_mem32_imm(struct code *c, struct mem m, int32_t v)
{
    op_mem(c, false, false, 0x81, 1, m);
    emit_value(c, (uint64_t)v, 4);
}

void emit_inc_mem(struct code *c, struct mem m)
{
    op_mem(c, true, false, 0xff, 0, m);
}
