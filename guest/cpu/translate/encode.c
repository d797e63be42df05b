/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * encode: guest instructions with other operands.
 *
 * Spec: Intel SDM, volume 2, "Instruction Format": "Instruction Prefixes", "REX Prefixes",
 * "Intel Advanced Vector Extensions: VEX"; "EVEX Prefix" in "Intel AVX-512".
 */
#include "guest/cpu/translate/encode.h"

enum { REX = 0x40, REX_W = 8, REX_R = 4, REX_X = 2, REX_B = 1, MOD_REG = 0xc0 };

struct host_form host_form_of(const struct insn *i)
{
    return (struct host_form){.reg = i->reg, .rm = i->rm, .vvvv = i->vvvv};
}

static bool opcode_names_reg(const struct insn *i)
{
    return !i->has_modrm && (i->desc->operand[0] == OPD_REG || i->desc->operand[1] == OPD_REG);
}

static unsigned rex_bits(const struct insn *i, const struct host_form *f)
{
    unsigned rex = i->rex & REX_W;
    if (opcode_names_reg(i)) {
        return rex | (f->reg >> 3 ? REX_B : 0);
    }
    if (i->has_modrm || f->mem) {
        rex |= f->reg >> 3 ? REX_R : 0;
        if (f->mem) {
            rex |= f->m.index >= 8 ? REX_X : 0;
            rex |= f->m.base >= 8 ? REX_B : 0;
        } else {
            rex |= f->rm >> 3 ? REX_B : 0;
        }
    }
    return rex;
}

static void modrm_and_imm(struct code *c, const struct insn *i, const struct host_form *f,
                          unsigned reg)
{
    if (f->mem) {
        emit_modrm(c, reg, f->m);
    } else if (i->has_modrm) {
        emit_byte(c, MOD_REG | (reg & 7) << 3 | (f->rm & 7));
    }
    if (i->imm_bytes) {
        emit_copy(c, i->bytes + i->at_imm, i->imm_bytes);
    }
}

/* AH, CH, DH or BH is named, still: a REX prefix would make it another register. */
static bool names_high_byte(const struct insn *i, const struct host_form *f)
{
    if (i->prefixes & PFX_REX) {
        return false;
    }
    for (unsigned k = 0; k < 4; k++) {
        unsigned kind = i->desc->operand[k];
        unsigned reg = kind == OPD_REG && f->reg == i->reg ? i->reg
                     : kind == OPD_RM && !i->mem           ? i->rm
                                                           : 0;
        if (i->desc->bytes[k] == 1 && reg >= 4) {
            return true;
        }
    }
    return false;
}

/* Of several F2 and F3 the last one counts. */
static unsigned last_repeat(const struct insn *i)
{
    unsigned last = 0;
    for (unsigned k = 0; k < i->at_opcode; k++) {
        last = i->bytes[k] == 0xf2 || i->bytes[k] == 0xf3 ? i->bytes[k] : last;
    }
    return last;
}

static bool encode_legacy(struct code *c, const struct insn *i, const struct host_form *f)
{
    bool mandatory = i->desc->bits & INSN_MANDATORY, inc_dec = false;
    unsigned rex = rex_bits(i, f), opcode = i->opcode, reg = f->reg;
    bool moffs = f->mem && !i->has_modrm;
    if (i->map == MAP_1BYTE && (opcode & 0xf0) == 0x40) { /* these bytes are REX in 64-bit mode */
        inc_dec = true;
        rex = f->reg >> 3 ? REX_B : 0;
        reg = opcode >> 3 & 1;
        opcode = 0xff;
    } else if (moffs) { /* mov with an absolute address: the ordinary mov of the accumulator */
        reg = RAX;
        opcode = (opcode & 1) | (opcode & 2 ? 0x88 : 0x8a);
    } else if (opcode_names_reg(i)) {
        opcode = (opcode & ~7u) | (reg & 7);
    }
    if ((rex & ~(unsigned)REX_W) && names_high_byte(i, f)) {
        return false;
    }
    if (i->prefixes & PFX_LOCK) {
        emit_byte(c, 0xf0);
    }
    if (i->prefixes & PFX_66) {
        emit_byte(c, 0x66);
    }
    if (mandatory && (i->prefixes & (PFX_F2 | PFX_F3))) {
        emit_byte(c, last_repeat(i));
    }
    if (rex || (i->prefixes & PFX_REX)) {
        emit_byte(c, REX | rex);
    }
    if (i->map != MAP_1BYTE) {
        emit_byte(c, 0x0f);
    }
    if (i->map == MAP_0F38 || i->map == MAP_0F3A) {
        emit_byte(c, i->map == MAP_0F38 ? 0x38 : 0x3a);
    }
    emit_byte(c, opcode);
    if (inc_dec) {
        emit_byte(c, MOD_REG | reg << 3 | (f->reg & 7));
    } else if (moffs) {
        emit_modrm(c, reg, f->m);
    } else {
        modrm_and_imm(c, i, f, reg);
    }
    return true;
}

/* Always the three-byte form. */
static void encode_vex(struct code *c, const struct insn *i, const struct host_form *f)
{
    const uint8_t *at = i->bytes + i->at_opcode;
    unsigned rex = rex_bits(i, f), last = at[-1]; /* W vvvv L pp; R in the two-byte form */
    emit_byte(c, 0xc4);
    emit_byte(c, (~rex & 7) << 5 | i->map);
    emit_byte(c, (rex & REX_W) << 4 | (~(unsigned)f->vvvv & 15) << 3 | (last & 7));
    emit_byte(c, i->opcode);
    modrm_and_imm(c, i, f, f->reg);
}

bool encode(struct code *c, const struct insn *i, const struct host_form *f)
{
    switch (i->encoding) {
    case ENC_LEGACY:
        return encode_legacy(c, i, f);
    case ENC_VEX:
        encode_vex(c, i, f);
        return true;
    default:
        return false;
    }
}
