/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The decoder against Zydis: random bytes in three modes, and real programs. */
#include "tests/unit/test.h"

#include "guest/cpu/decode/insn.h"
#include "guest/cpu/vcpu.h"
#include "tests/unit/seed.h"

#include <Zydis/Zydis.h>
#include <elf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t seed;
static bool show_all;
static unsigned shown;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * UINT64_C(0x2545f4914f6cdd1d);
}

/* Instructions that one of the two does not know on purpose. */
static bool is_outside(const ZydisDecodedInstruction *z)
{
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
        z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX ||
        z->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ||
        z->encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW) {
        return true;
    }
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX &&
        (z->mnemonic == ZYDIS_MNEMONIC_LZCNT || z->mnemonic == ZYDIS_MNEMONIC_TZCNT ||
         z->mnemonic == ZYDIS_MNEMONIC_POPCNT || z->mnemonic == ZYDIS_MNEMONIC_TZCNTI)) {
        return true; /* Knights Corner */
    }
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_UD0: /* their operands are named differently */
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_FEMMS:
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PTWRITE: /* not offered */
    case ZYDIS_MNEMONIC_INVLPGB:
    case ZYDIS_MNEMONIC_TLBSYNC:
    case ZYDIS_MNEMONIC_VMFUNC:
    case ZYDIS_MNEMONIC_KCONCATH:
    case ZYDIS_MNEMONIC_KCONCATL:
    case ZYDIS_MNEMONIC_SYSCALL: /* AMD's is legal outside 64-bit mode, too */
        return true;
    default:
        break;
    }
    switch (z->meta.isa_set) {
    case ZYDIS_ISA_SET_VTX:
    case ZYDIS_ISA_SET_SVM:
    case ZYDIS_ISA_SET_SMX:
    case ZYDIS_ISA_SET_SGX:
    case ZYDIS_ISA_SET_SGX_ENCLV:
    case ZYDIS_ISA_SET_RTM:
    case ZYDIS_ISA_SET_CET:
    case ZYDIS_ISA_SET_MPX:
    case ZYDIS_ISA_SET_WAITPKG:
    case ZYDIS_ISA_SET_CLDEMOTE:
    case ZYDIS_ISA_SET_MOVDIR:
    case ZYDIS_ISA_SET_ENQCMD:
    case ZYDIS_ISA_SET_SERIALIZE:
    case ZYDIS_ISA_SET_TSX_LDTRK:
    case ZYDIS_ISA_SET_KEYLOCKER:
    case ZYDIS_ISA_SET_KEYLOCKER_WIDE:
    case ZYDIS_ISA_SET_UINTR:
    case ZYDIS_ISA_SET_HRESET:
    case ZYDIS_ISA_SET_PCONFIG:
    case ZYDIS_ISA_SET_CLZERO:
    case ZYDIS_ISA_SET_RDPRU:
    case ZYDIS_ISA_SET_MCOMMIT:
    case ZYDIS_ISA_SET_SNP:
    case ZYDIS_ISA_SET_MONITORX:
    case ZYDIS_ISA_SET_TDX:
    case ZYDIS_ISA_SET_AMX_TILE:
    case ZYDIS_ISA_SET_AMX_INT8:
    case ZYDIS_ISA_SET_AMX_BF16:
    case ZYDIS_ISA_SET_TBM:
    case ZYDIS_ISA_SET_PADLOCK_ACE:
    case ZYDIS_ISA_SET_PADLOCK_PHE:
    case ZYDIS_ISA_SET_PADLOCK_PMM:
    case ZYDIS_ISA_SET_PADLOCK_RNG:
    case ZYDIS_ISA_SET_KNC_MISC:
    case ZYDIS_ISA_SET_KNCJKBR:
    case ZYDIS_ISA_SET_AVX512F_KOP:
    case ZYDIS_ISA_SET_AVX512BW_KOP:
    case ZYDIS_ISA_SET_AVX512DQ_KOP:
    case ZYDIS_ISA_SET_KNCE:
    case ZYDIS_ISA_SET_KNCV:
    case ZYDIS_ISA_SET_KNCSTREAM:
    case ZYDIS_ISA_SET_KNC_PF_HINT:
    case ZYDIS_ISA_SET_FMA4:
    case ZYDIS_ISA_SET_XOP:
        return true;
    default:
        return false;
    }
}

static int register_number(ZydisRegister r)
{
    return r == ZYDIS_REGISTER_NONE || r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP
               ? -1
               : ZydisRegisterGetId(r);
}

static const char *compare_memory(const struct insn *in, const ZydisDecodedOperand *o)
{
    bool relative = o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP;
    if (!in->mem) {
        return "memory operand";
    }
    if (in->addrsize == 4 && in->code_bytes == 8 && in->mod == 0 && (in->sib & 7) == 5 && (in->rex & 1)) {
        return NULL; /* Zydis 4.0 takes R13D for the base there, and no displacement */
    }
    int base = register_number(o->mem.base), index = register_number(o->mem.index);
    /* 16-bit pairs are addends: no order. */
    if (!(in->base == base && in->index == index) && !(in->index == base && in->base == index)) {
        return "base or index";
    }
    if (in->rip_relative != relative) {
        return "rip_relative";
    }
    if (in->index >= 0 && (1u << in->scale) != (o->mem.scale ? o->mem.scale : 1)) {
        return "scale";
    }
    if (in->disp != o->mem.disp.value &&
        !(in->at_imm == 0 && in->desc->operand[0] == OPD_MOFFS) &&
        !(in->desc->operand[1] == OPD_MOFFS)) {
        return "displacement";
    }
    static const ZydisRegister segments[] = {ZYDIS_REGISTER_ES, ZYDIS_REGISTER_CS,
                                             ZYDIS_REGISTER_SS, ZYDIS_REGISTER_DS,
                                             ZYDIS_REGISTER_FS, ZYDIS_REGISTER_GS};
    if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM) {
        return NULL; /* lea has no segment */
    }
    if (segments[in->seg] != o->mem.segment && in->code_bytes != 8) {
        return "segment";
    }
    if (in->code_bytes == 8 && (in->seg >= SEG_FS || o->mem.segment == ZYDIS_REGISTER_FS ||
                                o->mem.segment == ZYDIS_REGISTER_GS) &&
        segments[in->seg] != o->mem.segment) {
        return "segment";
    }
    unsigned bytes = insn_mem_bytes(in);
    if (o->mem.type == ZYDIS_MEMOP_TYPE_MEM && in->desc->mem != MEM_ADDRESS && bytes &&
        bytes * 8 != o->size) {
        return "memory size";
    }
    return NULL;
}

static const char *compare(const struct insn *in, const ZydisDecodedInstruction *z,
                           const ZydisDecodedOperand *operands)
{
    bool memory_seen = false;
    if (in->len != z->length) {
        return "length";
    }
    for (unsigned i = 0; i < z->operand_count; i++) {
        const ZydisDecodedOperand *o = &operands[i];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
            memory_seen = true;
            const char *wrong = compare_memory(in, o);
            if (wrong) {
                return wrong;
            }
        }
        if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && o->encoding != ZYDIS_OPERAND_ENCODING_IS4 &&
            o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
            uint64_t mine = (uint64_t)(i > 0 && operands[i - 1].type == o->type ? in->imm2 : in->imm);
            unsigned bits = o->size ? o->size : 8;
            uint64_t mask = bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
            if (((mine ^ o->imm.value.u) & mask) && in->desc->operand[i & 3] != OPD_ONE) {
                return "immediate";
            }
        }
    }
    if (in->mem && !memory_seen && in->desc->operand[0] != OPD_NONE && in->op != OP_NOP) {
        return "no memory operand there";
    }
    if (in->desc->class <= CLASS_IO && (in->desc->operand[0] == OPD_REG ||
                                        in->desc->operand[0] == OPD_RM) &&
        operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
        unsigned bytes = insn_size(in, in->desc->bytes[0]);
        if (bytes && bytes * 8 != operands[0].size) {
            return "operand size";
        }
        unsigned reg = in->desc->operand[0] == OPD_REG ? in->reg : in->rm;
        ZyanI8 id = ZydisRegisterGetId(operands[0].reg.value);
        if (bytes > 1 && id != (int)reg) {
            return "register";
        }
    }
    return NULL;
}

struct machine {
    ZydisDecoder decoder;
    unsigned code_bytes;
};

static struct machine machine(unsigned code_bytes)
{
    struct machine m = {.code_bytes = code_bytes};
    ZydisDecoderInit(&m.decoder,
                     code_bytes == 8   ? ZYDIS_MACHINE_MODE_LONG_64
                     : code_bytes == 4 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                       : ZYDIS_MACHINE_MODE_LEGACY_16,
                     code_bytes == 8   ? ZYDIS_STACK_WIDTH_64
                     : code_bytes == 4 ? ZYDIS_STACK_WIDTH_32
                                       : ZYDIS_STACK_WIDTH_16);
    ZydisDecoderEnableMode(&m.decoder, ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYAN_FALSE);
    ZydisDecoderEnableMode(&m.decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    ZydisDecoderEnableMode(&m.decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(&m.decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(&m.decoder, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
    return m;
}

static void report(const struct machine *m, const uint8_t *at, const struct insn *in,
                   const ZydisDecodedInstruction *z, const char *what)
{
    if (shown++ > 40 && !show_all) {
        return;
    }
    print_message("%u-bit", m->code_bytes * 8);
    for (unsigned i = 0; i < 15; i++) {
        print_message(" %02x", at[i]);
    }
    print_message(": %s; ours %s, %u bytes; Zydis %s, %u\n", what, in->desc->name, in->len,
                  z ? ZydisMnemonicGetString(z->mnemonic) : "none", z ? z->length : 0);
}

/* Returns bytes to go on; counts differences. */
static unsigned one(const struct machine *m, const uint8_t *at, size_t n, unsigned *wrong)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    struct insn in;
    bool theirs = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&m->decoder, at, n, &z, operands));
    bool ours = insn_decode(at, n, m->code_bytes, &in) == DECODE_OK;
    if (theirs && is_outside(&z)) {
        return z.length;
    }
    if (theirs != ours) {
        report(m, at, &in, theirs ? &z : NULL, "legality");
        (*wrong)++;
        return theirs ? z.length : 1;
    }
    if (theirs) {
        const char *what = compare(&in, &z, operands);
        if (what) {
            report(m, at, &in, &z, what);
            (*wrong)++;
        }
        return z.length;
    }
    return 1;
}

static void random_bytes(unsigned code_bytes)
{
    struct machine m = machine(code_bytes);
    unsigned wrong = 0;
    unsigned count = getenv("LODGE_CASES") ? (unsigned)atoi(getenv("LODGE_CASES")) : 400000;
    g_autofree char *name = g_strdup_printf("%u-bit code", code_bytes * 8);
    seed = test_seed(name);
    for (unsigned n = 0; n < count; n++) {
        uint64_t words[2] = {next_random(), next_random()};
        uint8_t bytes[16];
        memcpy(bytes, words, 16);
        /* Half of them in the maps behind 0F, some with prefixes, some VEX. */
        unsigned at = 0;
        uint64_t r = next_random();
        if (r & 1) {
            bytes[at++] = (const uint8_t[]){0x66, 0xf2, 0xf3, 0x66}[(r >> 1) & 3];
        }
        if ((r >> 3 & 3) == 0 && code_bytes == 8) {
            bytes[at++] = (uint8_t)(0x40 | (r >> 8 & 15));
        }
        if (r >> 5 & 1) {
            bytes[at++] = 0x0f;
            if ((r >> 12 & 3) == 0) {
                bytes[at++] = r >> 14 & 1 ? 0x38 : 0x3a;
            }
        } else if ((r >> 16 & 3) == 0) {
            at = 0;
            bytes[at++] = 0xc4;
            bytes[at++] = (uint8_t)((r >> 20 & 0xe0) | (r >> 30 & 3));
        }
        one(&m, bytes, 15, &wrong);
    }
    assert_int_equal(wrong, 0);
}

static void agrees_in_64_bit_mode(void **state)
{
    (void)state;
    random_bytes(8);
}

static void agrees_in_32_bit_mode(void **state)
{
    (void)state;
    random_bytes(4);
}

static void agrees_in_16_bit_mode(void **state)
{
    (void)state;
    random_bytes(2);
}

/* .text of a 64-bit ELF file: every instruction in a row. */
static void program(const char *path)
{
    g_autofree char *data = NULL;
    gsize size;
    if (!g_file_get_contents(path, &data, &size, NULL)) {
        return; /* not on this system */
    }
    const Elf64_Ehdr *head = (const void *)data;
    const Elf64_Shdr *sections = (const void *)(data + head->e_shoff);
    struct machine m = machine(8);
    unsigned wrong = 0, count = 0;
    for (unsigned i = 0; i < head->e_shnum; i++) {
        if (sections[i].sh_type != SHT_PROGBITS || !(sections[i].sh_flags & SHF_EXECINSTR)) {
            continue;
        }
        const uint8_t *at = (const uint8_t *)data + sections[i].sh_offset;
        const uint8_t *end = at + sections[i].sh_size;
        while (at < end && count < 1500000) {
            at += one(&m, at, MIN(15, (size_t)(end - at)), &wrong);
            count++;
        }
    }
    print_message("%s: %u instructions\n", path, count);
    assert_int_equal(wrong, 0);
}

static void agrees_on_real_programs(void **state)
{
    (void)state;
    program("/usr/lib/x86_64-linux-gnu/libc.so.6");
    program("/usr/lib/x86_64-linux-gnu/libcrypto.so.3");
    program("/usr/bin/python3.11");
}

static void short_input_asks_for_more(void **state)
{
    (void)state;
    static const uint8_t add[] = {0x48, 0x81, 0x84, 0x8b, 1, 2, 3, 4, 5, 6, 7, 8};
    struct insn in;
    for (unsigned n = 0; n < sizeof(add); n++) {
        assert_int_equal(insn_decode(add, n, 8, &in), DECODE_SHORT);
    }
    assert_int_equal(insn_decode(add, sizeof(add), 8, &in), DECODE_OK);
    assert_int_equal(in.len, sizeof(add));
    assert_int_equal(in.disp, 0x04030201);
}

static void sixteen_bytes_are_too_long(void **state)
{
    (void)state;
    uint8_t prefixes[16];
    memset(prefixes, 0x66, 16);
    struct insn in;
    assert_int_equal(insn_decode(prefixes, 16, 8, &in), DECODE_TOO_LONG);
    assert_int_equal(insn_decode(prefixes, 14, 8, &in), DECODE_SHORT);
    prefixes[14] = 0x90;
    assert_int_equal(insn_decode(prefixes, 16, 8, &in), DECODE_OK);
}

static void flags_and_registers_of_a_few(void **state)
{
    (void)state;
    struct insn in;
    assert_int_equal(insn_decode((const uint8_t *)"\xff\xc0", 2, 8, &in), DECODE_OK);
    assert_int_equal(in.op, OP_INC);
    assert_int_equal(in.desc->flags_written, FLAGS_ARITH & ~FLAG_CF);
    assert_int_equal(in.desc->flags_read, 0);
    assert_int_equal(insn_decode((const uint8_t *)"\xd3\xe0", 2, 8, &in), DECODE_OK);
    assert_int_equal(in.op, OP_SHL);
    assert_int_equal(in.desc->flags_read, FLAGS_ARITH);
    assert_int_equal(in.desc->regs_read, 1 << RCX);
    assert_int_equal(insn_decode((const uint8_t *)"\x48\xf7\xe1", 3, 8, &in), DECODE_OK);
    assert_int_equal(in.op, OP_MUL);
    assert_int_equal(in.desc->regs_read, 1 << RAX);
    assert_int_equal(in.desc->regs_written, 1 << RAX | 1 << RDX);
    assert_int_equal(insn_decode((const uint8_t *)"\x41\x90", 2, 8, &in), DECODE_OK);
    assert_int_equal(in.op, OP_XCHG);
    assert_int_equal(insn_decode((const uint8_t *)"\xf3\x90", 2, 8, &in), DECODE_OK);
    assert_int_equal(in.op, OP_PAUSE);
}

static void speed(void **state)
{
    (void)state;
    g_autofree char *data = NULL;
    gsize size;
    if (!g_file_get_contents("/usr/lib/x86_64-linux-gnu/libc.so.6", &data, &size, NULL)) {
        return;
    }
    struct insn in;
    size_t at = 0x30000, count = 0;
    struct timespec a, b;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    while (at < 0x130000 && at + 16 < size) {
        insn_decode((const uint8_t *)data + at, 16, 8, &in);
        at += in.len ? in.len : 1;
        count++;
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    double ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
    print_message("%.1f ns an instruction\n", ns / (double)count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_input_asks_for_more),
        cmocka_unit_test(sixteen_bytes_are_too_long),
        cmocka_unit_test(flags_and_registers_of_a_few),
        cmocka_unit_test(agrees_in_64_bit_mode),
        cmocka_unit_test(agrees_in_32_bit_mode),
        cmocka_unit_test(agrees_in_16_bit_mode),
        cmocka_unit_test(agrees_on_real_programs),
        cmocka_unit_test(speed),
    };
    show_all = getenv("LODGE_SHOW_ALL");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
