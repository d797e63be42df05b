/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * decode: bytes to struct insn, by table.
 *
 * Spec: Intel SDM, volume 2, chapter "Instruction Format" and appendix "Opcode Map", there
 * "Opcode Extensions"; "Intel Advanced Vector Extensions", "The VEX Prefix"; AMD APM,
 * volume 3, "Instruction Encoding".
 *
 * An opcode leads to a slot; the slot names the fields that select among its rows (mandatory
 * prefix, modrm fields, W, L) and where their table starts in the pool.
 */
#include "guest/cpu/decode/insn.h"

#include "guest/cpu/vcpu.h"

#include <string.h>

enum { FLAGS_ALL = 0x003f7fd5 };
enum select {
    SEL_PFX = 1,
    SEL_REG = 2,
    SEL_MOD = 4,
    SEL_RM = 8,
    SEL_W = 16,
    SEL_L = 32,
    SEL_M64 = 64,
};
enum form {
    FORM_MODRM = 1,
    FORM_OPREG = 2,
    FORM_SREG = 4,
    FORM_NARROW = 8, /* has operands for narrow_registers() */
};
enum imm_kind {
    IMM_NONE,
    IMM_8,
    IMM_S8,
    IMM_16,
    IMM_Z,
    IMM_V,
    IMM_FAR,
    IMM_MOFFS,
    IMM_16_8,
    IMM_8_8,
};

struct slot {
    uint16_t first; /* in pool[] */
    uint8_t select;
    uint8_t modrm;
};

#include "guest/cpu/decode/insn_table.h"

enum byte_kind { NOT_PREFIX, SEGMENT, SIZE_66, SIZE_67, LOCK_F0, REP_F2, REP_F3, REX_40 };
static const uint8_t byte_kinds[256] = {
    [0x26] = SEGMENT, [0x2e] = SEGMENT, [0x36] = SEGMENT, [0x3e] = SEGMENT,
    [0x64] = SEGMENT, [0x65] = SEGMENT, [0x66] = SIZE_66, [0x67] = SIZE_67,
    [0xf0] = LOCK_F0, [0xf2] = REP_F2,  [0xf3] = REP_F3,  [0x40 ... 0x4f] = REX_40,
};

enum { REX_B = 1, REX_X = 2, REX_R = 4, REX_W = 8 };
enum { MAX_BYTES = 15 };

/* What is being read, and what the prefixes said. */
struct state {
    struct insn *in;
    unsigned at;  /* next byte */
    unsigned end; /* bytes there are; at most MAX_BYTES */
    unsigned pp;  /* mandatory prefix: 0 none, 1 66, 2 F3, 3 F2 */
    uint8_t w;    /* the W bit itself, in any mode */
    uint8_t seg;  /* override, or SEG_COUNT */
    /* Read once, as another processor may write to it; aligned, so that reading a byte need not
     * wait for the store of all. */
    _Alignas(16) uint8_t code[16];
};

static enum decode_result short_of(const struct state *s)
{
    return s->end == MAX_BYTES ? DECODE_TOO_LONG : DECODE_SHORT;
}

static uint64_t number(const uint8_t *at, unsigned bytes)
{
    switch (bytes) {
    case 1:
        return *at;
    case 2:
        return (uint64_t)at[0] | (uint64_t)at[1] << 8;
    case 4: {
        uint32_t v;
        memcpy(&v, at, 4);
        return v;
    }
    default: {
        uint64_t v;
        memcpy(&v, at, 8);
        return v;
    }
    }
}

static int64_t extend(uint64_t v, unsigned bytes)
{
    unsigned shift = 64 - 8 * bytes;
    return (int64_t)(v << shift) >> shift;
}

/*
 * REX or no prefix at all, as most instructions have it; without a branch between the two, which
 * no processor would guess.  False: something else.
 */
static bool take_rex(struct state *s)
{
    struct insn *in = s->in;
    unsigned rex = byte_kinds[s->code[0]] == REX_40;
    if (in->code_bytes != 8 || s->end < 2 || byte_kinds[s->code[rex]] != NOT_PREFIX) {
        return false;
    }
    in->rex = s->code[0] & (uint8_t)-rex;
    in->prefixes = (uint8_t)(rex * PFX_REX);
    s->w = (in->rex & REX_W) != 0;
    s->at = rex;
    return true;
}

/* Prefixes up to the opcode or an escape to VEX; false if the bytes end. */
static bool take_prefixes(struct state *s)
{
    struct insn *in = s->in;
    unsigned rep = 0;
    bool long_mode = in->code_bytes == 8;
    for (; s->at < s->end; s->at++) {
        uint8_t b = s->code[s->at], kind = byte_kinds[b];
        if (kind == NOT_PREFIX || (kind == REX_40 && !long_mode)) {
            break;
        }
        if (kind == REX_40) {
            in->rex = b;
            continue;
        }
        in->rex = 0; /* only a REX right before the opcode counts */
        switch (kind) {
        case SEGMENT:
            if (b >= 0x64) {
                s->seg = (uint8_t)(SEG_FS + (b & 1));
            } else if (!long_mode) {
                s->seg = (b >> 3) & 3;
            }
            break;
        case SIZE_66:
            in->prefixes |= PFX_66;
            break;
        case SIZE_67:
            in->prefixes |= PFX_67;
            break;
        case LOCK_F0:
            in->prefixes |= PFX_LOCK;
            break;
        default:
            in->prefixes |= kind == REP_F2 ? PFX_F2 : PFX_F3;
            rep = kind == REP_F2 ? 3 : 2;
            break;
        }
    }
    if (s->seg != SEG_COUNT) {
        in->prefixes |= PFX_SEG;
    }
    if (in->rex) {
        in->prefixes |= PFX_REX;
    }
    s->w = (in->rex & REX_W) != 0;
    s->pp = rep ? rep : (in->prefixes & PFX_66) ? 1 : 0;
    return s->at < s->end;
}

/* The bytes behind C4 or C5; the map and the opcode are left to read. */
static enum decode_result take_vex(struct state *s, uint8_t first)
{
    struct insn *in = s->in;
    unsigned payload = first == 0xc5 ? 1 : 2;
    if (s->at + 1 + payload >= s->end) {
        return short_of(s);
    }
    if (in->prefixes & (PFX_66 | PFX_F2 | PFX_F3 | PFX_LOCK | PFX_REX)) {
        return DECODE_UD;
    }
    uint8_t b1 = s->code[s->at + 1], last = s->code[s->at + payload];
    in->encoding = ENC_VEX;
    in->map = payload == 1 ? MAP_0F : b1 & 31;
    in->rex = (uint8_t)((~b1 >> 5) & 4);
    if (payload == 2) {
        in->rex = (uint8_t)((~b1 >> 5) & 7);
        s->w = last >> 7;
    }
    in->vvvv = (~last >> 3) & 15;
    in->vl = (last >> 2) & 1;
    s->pp = last & 3; /* the same numbers as ours */
    if (in->code_bytes == 8) {
        in->rex |= (uint8_t)(s->w << 3);
    } else {
        in->rex = 0;
    }
    s->at += 1 + payload;
    if (in->map < MAP_0F || in->map > MAP_0F3A) {
        return DECODE_UD;
    }
    return DECODE_OK;
}

/* Finds the opcode and its map. */
static enum decode_result take_opcode(struct state *s)
{
    struct insn *in = s->in;
    uint8_t b = s->code[s->at];
    if (b == 0xc4 || b == 0xc5) {
        if (s->at + 1 >= s->end) {
            return short_of(s);
        }
        if (in->code_bytes == 8 || s->code[s->at + 1] >= 0xc0) {
            enum decode_result r = take_vex(s, b);
            if (r != DECODE_OK) {
                return r;
            }
        }
    } else if (b == 0x0f) {
        in->map = MAP_0F;
        if (++s->at >= s->end) {
            return short_of(s);
        }
        b = s->code[s->at];
        if (b == 0x38 || b == 0x3a) {
            in->map = b == 0x38 ? MAP_0F38 : MAP_0F3A;
            if (++s->at >= s->end) {
                return short_of(s);
            }
        }
    }
    in->at_opcode = (uint8_t)s->at;
    in->opcode = s->code[s->at++];
    return DECODE_OK;
}

static const struct insn_desc *find_row(const struct state *s, const struct slot *slot)
{
    const struct insn *in = s->in;
    unsigned index = 0, select = slot->select;
    if (select) {
        if (select & SEL_PFX) {
            index = s->pp;
        }
        if (select & SEL_REG) {
            index = index * 8 + ((in->modrm >> 3) & 7);
        }
        if (select & SEL_MOD) {
            index = index * 2 + (in->mod == 3);
        }
        if (select & SEL_RM) {
            index = index * 8 + (in->modrm & 7);
        }
        if (select & SEL_W) {
            index = index * 2 + s->w;
        }
        if (select & SEL_L) {
            index = index * 4 + in->vl;
        }
        if (select & SEL_M64) {
            index = index * 2 + (in->code_bytes == 8);
        }
    }
    return &descs[pool[slot->first + index]];
}

static const int8_t base16[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
static const int8_t index16[8] = {RSI, RDI, RSI, RDI, -1, -1, -1, -1};

static void address16(struct state *s)
{
    struct insn *in = s->in;
    unsigned rm = in->modrm & 7;
    if (in->mod == 0 && rm == 6) {
        in->disp_bytes = 2;
        return;
    }
    in->base = base16[rm];
    in->index = index16[rm];
    in->disp_bytes = in->mod;
}

/* False if the SIB byte is missing. */
static bool address32(struct state *s)
{
    struct insn *in = s->in;
    unsigned rm = in->modrm & 7;
    in->disp_bytes = in->mod == 1 ? 1 : in->mod == 2 ? 4 : 0;
    if (rm == 4) {
        if (s->at >= s->end) {
            return false;
        }
        in->sib = s->code[s->at++];
        in->scale = in->sib >> 6;
        unsigned index = ((in->sib >> 3) & 7) | (in->rex & REX_X) << 2;
        if (index != 4 || (in->desc->bits & INSN_VSIB)) {
            in->index = (int8_t)index;
        }
        rm = in->sib & 7;
        if (rm == 5 && in->mod == 0) {
            in->disp_bytes = 4;
            return true;
        }
    } else if (rm == 5 && in->mod == 0) {
        in->disp_bytes = 4;
        in->rip_relative = in->code_bytes == 8;
        return true;
    }
    in->base = (int8_t)(rm | (in->rex & REX_B) << 3);
    return true;
}

static bool take_memory(struct state *s)
{
    struct insn *in = s->in;
    in->mem = 1;
    in->base = in->index = -1;
    if (in->addrsize == 2) {
        address16(s);
    } else if (!address32(s)) {
        return false;
    }
    if (in->disp_bytes) {
        if (s->at + in->disp_bytes > s->end) {
            return false;
        }
        in->at_disp = (uint8_t)s->at;
        in->disp = extend(number(s->code + s->at, in->disp_bytes), in->disp_bytes);
        s->at += in->disp_bytes;
    }
    if (s->seg == SEG_COUNT && (in->base == RSP || in->base == RBP)) {
        in->seg = SEG_SS;
    }
    return true;
}

static void set_opsize(struct state *s)
{
    struct insn *in = s->in;
    uint32_t bits = in->desc->bits;
    bool long_mode = in->code_bytes == 8;
    bool p66 = in->prefixes & PFX_66;
    if (bits & INSN_BYTE) {
        in->opsize = 1;
    } else if (long_mode && (bits & INSN_FORCE64)) {
        in->opsize = 8;
    } else if (in->rex & REX_W) {
        in->opsize = (bits & INSN_MAX4) ? 4 : 8;
    } else if ((bits & (INSN_MANDATORY | INSN_O16)) == INSN_MANDATORY) {
        in->opsize = 4;
    } else if (long_mode) {
        in->opsize = p66 ? 2 : (bits & INSN_DEF64) ? 8 : 4;
    } else {
        in->opsize = p66 == (in->code_bytes == 2) ? 4 : 2;
    }
}

static unsigned imm_size(const struct insn *in, unsigned kind)
{
    switch (kind) {
    case IMM_8:
    case IMM_S8:
        return 1;
    case IMM_16:
        return 2;
    case IMM_Z:
        return in->opsize == 2 ? 2 : 4;
    case IMM_V:
        return in->opsize;
    case IMM_FAR:
        return in->opsize + 2u;
    case IMM_MOFFS:
        return in->addrsize;
    case IMM_16_8:
        return 3;
    case IMM_8_8:
        return 2;
    default:
        return 0;
    }
}

static bool take_immediate(struct state *s)
{
    struct insn *in = s->in;
    unsigned kind = in->desc->imm, bytes = imm_size(in, kind);
    if (s->at + bytes > s->end) {
        return false;
    }
    const uint8_t *at = s->code + s->at;
    in->at_imm = (uint8_t)s->at;
    in->imm_bytes = (uint8_t)bytes;
    s->at += bytes;
    switch (kind) {
    case IMM_8:
        in->imm = at[0];
        break;
    case IMM_16:
        in->imm = (int64_t)number(at, 2);
        break;
    case IMM_FAR:
        in->imm = (int64_t)number(at, in->opsize);
        in->imm2 = (uint16_t)number(at + in->opsize, 2);
        break;
    case IMM_MOFFS:
        in->at_disp = in->at_imm;
        in->disp_bytes = in->imm_bytes;
        in->at_imm = in->imm_bytes = 0;
        in->disp = (int64_t)number(at, bytes);
        in->mem = 1;
        in->base = in->index = -1;
        break;
    case IMM_16_8:
        in->imm = (int64_t)number(at, 2);
        in->imm2 = at[2];
        break;
    case IMM_8_8:
        in->imm = at[0];
        in->imm2 = at[1];
        break;
    default:
        in->imm = extend(number(at, bytes), bytes);
        break;
    }
    return true;
}

/* Numbers of registers that REX does not extend, or of which there are few. */
static bool narrow_registers(struct insn *in)
{
    static const uint16_t cr_valid = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8;
    for (unsigned i = 0; i < 2; i++) {
        switch (in->desc->operand[i]) {
        case OPD_SREG:
            in->reg &= 7;
            if (in->reg >= SEG_COUNT || (in->op == OP_MOV_TO_SREG && in->reg == SEG_CS)) {
                return false;
            }
            break;
        case OPD_CREG:
            if (!(cr_valid >> in->reg & 1)) {
                return false;
            }
            break;
        case OPD_DREG:
            if (in->reg > 7) {
                return false;
            }
            break;
        case OPD_MMX:
            in->reg &= 7;
            break;
        case OPD_MMX_RM:
            in->rm &= 7;
            break;
        default:
            break;
        }
    }
    return true;
}

static bool has_general_operand(const struct insn_desc *d)
{
    return d->class == CLASS_BMI || d->regs_read || d->bytes[0] == SIZE_Y ||
           d->bytes[1] == SIZE_Y || d->bytes[2] == SIZE_Y;
}

/*
 * Outside 64-bit mode VEX.W is still part of the opcode where it is no operand size, and bit
 * 7 of an immediate that names a register is ignored.  .rex and .bytes say so, for who
 * encodes the instruction again in 64-bit mode.
 */
static void adapt_vex(struct state *s)
{
    struct insn *in = s->in;
    if (s->w && !has_general_operand(in->desc)) {
        in->rex |= REX_W;
    }
    if (in->desc->operand[3] == OPD_IS4) {
        in->imm &= 0x7f;
        s->code[in->at_imm] &= 0x7f;
    }
}

/* What must hold for the whole instruction. */
static bool legal(struct insn *in)
{
    const struct insn_desc *d = in->desc;
    uint32_t bits = d->bits;
    if (in->code_bytes == 8 ? bits & INSN_NO64 : bits & INSN_ONLY64) {
        return false;
    }
    if ((in->prefixes & PFX_LOCK) && (!(bits & INSN_LOCKABLE) || !in->mem)) {
        return false;
    }
    if (in->encoding != ENC_LEGACY) {
        if ((bits & INSN_NO_VVVV) && in->vvvv) {
            return false;
        }
        if (in->code_bytes != 8) {
            in->vvvv &= 7;
        }
        if ((bits & INSN_DISTINCT) && (in->index < 0 || in->addrsize == 2 || in->reg == in->vvvv ||
                                       in->reg == in->index || in->vvvv == in->index)) {
            return false;
        }
    }
    return !(d->form & FORM_NARROW) || narrow_registers(in);
}

static enum decode_result take_rest(struct state *s)
{
    struct insn *in = s->in;
    const struct slot *slot = &slots[in->encoding][in->map][in->opcode];
    if (slot->modrm) {
        if (s->at >= s->end) {
            return short_of(s);
        }
        in->at_modrm = (uint8_t)s->at;
        in->modrm = s->code[s->at++];
        in->has_modrm = 1;
        in->mod = in->modrm >> 6;
        in->reg = (uint8_t)(((in->modrm >> 3) & 7) | (in->rex & REX_R) << 1);
    }
    in->seg = s->seg != SEG_COUNT ? s->seg : SEG_DS;
    in->desc = find_row(s, slot);
    /* 90 is nop or pause; with REX.B it is an exchange like 91 to 97. */
    if (in->opcode == 0x90 && in->map == MAP_1BYTE && (in->rex & REX_B)) {
        in->desc = find_row(s, &slots[ENC_LEGACY][MAP_1BYTE][0x91]);
    }
    in->op = in->desc->op;
    in->pp = (uint8_t)s->pp;
    if (in->op == OP_INVALID) {
        return DECODE_UD;
    }
    if (in->has_modrm) {
        if (in->mod == 3 || (in->desc->bits & INSN_NO_MEM)) {
            in->mod = 3;
            in->rm = (uint8_t)((in->modrm & 7) | (in->rex & REX_B) << 3);
        } else if (!take_memory(s)) {
            return short_of(s);
        }
    } else if (in->desc->form & FORM_OPREG) {
        in->reg = (uint8_t)((in->opcode & 7) | (in->rex & REX_B) << 3);
    } else if (in->desc->form & FORM_SREG) {
        in->reg = (in->opcode >> 3) & 7;
    }
    set_opsize(s);
    if (in->desc->imm && !take_immediate(s)) {
        return short_of(s);
    }
    if (in->encoding == ENC_VEX && in->code_bytes != 8) {
        adapt_vex(s);
    }
    return legal(in) ? DECODE_OK : DECODE_UD;
}

/* The first .len bytes, and zeroes. */
static void keep_bytes(struct insn *in, const uint8_t code[16])
{
    static const uint8_t ones[2 * 16] = {[0 ... 15] = 0xff};
    uint64_t bytes[2], mask[2];
    memcpy(bytes, code, sizeof(bytes));
    memcpy(mask, ones + 16 - in->len, sizeof(mask));
    bytes[0] &= mask[0];
    bytes[1] &= mask[1];
    memcpy(in->bytes, bytes, sizeof(bytes));
}

enum decode_result insn_decode(const uint8_t *at, size_t n, unsigned code_bytes, struct insn *out)
{
    struct state s = {.in = out, .end = n < MAX_BYTES ? (unsigned)n : MAX_BYTES, .seg = SEG_COUNT};
    memset(out, 0, sizeof(*out));
    if (n >= sizeof(s.code)) {
        memcpy(s.code, at, sizeof(s.code));
    } else {
        memcpy(s.code, at, n);
    }
    out->code_bytes = (uint8_t)code_bytes;
    out->desc = &descs[0];
    enum decode_result result;
    if (!take_rex(&s) && !take_prefixes(&s)) {
        result = short_of(&s);
    } else {
        unsigned half = code_bytes == 8 ? 4 : 6 - code_bytes;
        out->addrsize = (uint8_t)((out->prefixes & PFX_67) ? half : code_bytes);
        result = take_opcode(&s);
    }
    if (result == DECODE_OK) {
        result = take_rest(&s);
    }
    out->len = (uint8_t)s.at;
    if (result != DECODE_OK) {
        out->desc = &descs[0];
        out->op = OP_INVALID;
    }
    keep_bytes(out, s.code);
    return result;
}

unsigned insn_size(const struct insn *in, uint8_t code)
{
    switch (code) {
    case SIZE_OPSIZE:
        return in->opsize;
    case SIZE_Y:
        return in->opsize == 8 ? 8 : 4;
    case SIZE_Z:
        return in->opsize == 2 ? 2 : 4;
    case SIZE_X:
        return 16u << in->vl;
    case SIZE_H:
        return 8u << in->vl;
    case SIZE_F:
        return 4u << in->vl;
    case SIZE_E:
        return 2u << in->vl;
    case SIZE_P:
        return in->opsize + 2u;
    case SIZE_A:
        return in->opsize * 2u;
    case SIZE_S:
        return in->code_bytes == 8 ? 10 : 6;
    case SIZE_C:
        return in->opsize == 8 ? 16 : 8;
    case SIZE_HANDLER:
        return 0;
    default:
        return code;
    }
}
