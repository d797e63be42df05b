/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Each instruction group: an engine against the processor itself, with random operands.
 *
 * LODGE_ENGINE chooses the engine (interp), LODGE_CASES how many cases a group gets,
 * LODGE_SEED where they begin (seed.h), LODGE_ONLY restricts them to one mnemonic.
 */
#include "tests/unit/test.h"

#include "base/lock.h"
#include "guest/cpu/decode/insn.h"
#include "guest/cpu/engine.h"
#include "guest/cpu/interp/native.h"
#include "guest/cpu/models.h"
#include "guest/cpu/translate/bt.h"
#include "guest/memory/space.h"
#include "tests/unit/insn_native.h"
#include "tests/unit/seed.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed;
static unsigned cases_wanted = 80000;
static uint64_t cases_done;
static const char *only;
static struct native native;
static struct vcpu *cpu;
static const struct cpu_engine *reference; /* nothing but the processor's results will do */
static struct ram *ram;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * UINT64_C(0x2545f4914f6cdd1d);
}

static bool chance(unsigned percent)
{
    return (rnd() >> 20) % 100 < percent;
}

/* ---- the guest: flat long mode, everything at fixed physical places ---- */

enum {
    AT_GDT = 0x1000, AT_IDT = 0x2000, AT_TSS = 0x3000, AT_STACK = 0x5000, AT_HANDLERS = 0x6000,
    AT_PML4 = 0x8000, AT_PDPT = 0x9000, AT_PD = 0xa000, AT_PT = 0xb000, AT_TEST_PT = 0xc000,
    AT_TEST = 0x100000, RAM_BYTES = 2 << 20,
};

static void put64(uint64_t at, uint64_t v)
{
    memcpy(ram->host + at, &v, 8);
}

static void make_tables(void)
{
    put64(AT_PML4, AT_PDPT | 7);
    put64(AT_PDPT, AT_PD | 7);
    put64(AT_PD, AT_PT | 3);
    put64(AT_PD + 8 * (TEST_CODE >> 21), AT_TEST_PT | 7);
    for (unsigned n = 1; n < 512; n++) {
        put64(AT_PT + 8 * n, n << 12 | 0x63u);
    }
    for (unsigned n = 0; n < 3; n++) {
        put64(AT_TEST_PT + 8 * n, (AT_TEST + (n << 12)) | 0x67u);
    }
    static const uint64_t gdt[] = {0, 0x00209b0000000000, 0x00cf93000000ffff, 0,
                                   0x00cffb000000ffff, 0x00cff3000000ffff, 0x0020fb0000000000};
    memcpy(ram->host + AT_GDT, gdt, sizeof(gdt));
    put64(AT_TSS + 4, AT_STACK);
    for (unsigned v = 0; v < 32; v++) {
        uint64_t to = AT_HANDLERS + 16 * v, dpl = v == 3 || v == 4 ? 3 : 0;
        put64(AT_IDT + 16 * v, (to & 0xffff) | 8 << 16 | (0x8e00 | dpl << 13) << 32 |
                                   to >> 16 << 48);
        put64(AT_IDT + 16 * v + 8, 0);
        ram->host[to] = 0xf4; /* hlt */
    }
}

static void *at_linear(uint64_t linear)
{
    return ram->host + AT_TEST + (linear - TEST_CODE);
}

static void make_guest(void)
{
    g_autoptr(GError) error = NULL;
    const char *name = getenv("LODGE_ENGINE");
    reference = cpu_engine_find("interp");
    const struct cpu_engine *engine = cpu_engine_find(name ? name : "interp");
    static struct region region = {.name = "ram", .size = RAM_BYTES};
    static const struct cpu_topology topology = {1, 1, 1, 1};
    machine_lock();
    ram = ram_new("test", RAM_BYTES, NULL, &error);
    assert_works(ram != NULL, error);
    assert_non_null(engine);
    region.ram = ram;
    struct space *memory = space_new("memory", UINT64_C(1) << 40);
    struct space *ports = space_new("ports", 65536);
    space_place(memory, &region, 0, 0);
    struct cpu_model *model = cpu_model_new("max", engine->name, &topology, &error);
    assert_works(model != NULL, error);
    cpu = vcpu_new(0, 0, engine, model, NULL, memory, memory, ports, &error);
    assert_works(cpu != NULL, error);
    machine_unlock();
    make_tables();
    assert_works(engine->attach(cpu, &error), error);
}

static struct segment segment(uint16_t selector, uint32_t attr, uint32_t limit)
{
    return (struct segment){.selector = selector, .attr = attr, .limit = limit};
}

static void enter(const struct test_case *c)
{
    struct regs *r = &cpu->r;
    const struct test_state *s = &c->before;
    memcpy(r->gpr, s->gpr, sizeof(r->gpr));
    r->rip = s->rip;
    r->rflags = s->rflags;
    r->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    r->cr3 = AT_PML4;
    r->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    r->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    r->xcr0 = 7;
    r->gdt = (struct table_register){AT_GDT, 0x3f};
    r->idt = (struct table_register){AT_IDT, 0x1ff};
    r->tr = segment(0x38, 0x8b, 0x67);
    r->tr.base = AT_TSS;
    r->ldt = segment(0, SEG_UNUSABLE, 0);
    for (unsigned n = 0; n < SEG_COUNT; n++) {
        r->seg[n] = segment(0x2b, 0xc0f3, 0xffffffff);
    }
    r->seg[SEG_FS].selector = r->seg[SEG_GS].selector = 0; /* as in the child */
    r->seg[SEG_CS] = c->code_bytes == 8 ? segment(0x33, 0x20fb | 1 << 7, 0xffffffff)
                                        : segment(0x23, 0xc0fb, 0xffffffff);
    if (c->code_bytes == 2) {
        for (unsigned n = 0; n < SEG_FS; n++) {
            r->seg[n] = segment(TEST_DS16, 0xf3, 0xffff);
            r->seg[n].base = TEST_CODE;
        }
        r->seg[SEG_CS].selector = TEST_CS16;
        r->seg[SEG_CS].attr = 0xfb;
    }
    r->halted = r->wait_sipi = r->shadow = r->event_pending = 0;
    memset(r->xsave, 0, sizeof(r->xsave));
    memcpy(r->xsave, s->xsave, TEST_XSAVE);
    memset(at_linear(TEST_CODE), 0xcc, 0x1000);
    memcpy(at_linear(TEST_AT), c->code, 16);
    memcpy(at_linear(TEST_MIDDLE), s->memory, TEST_MIDDLE_BYTES);
    memcpy(at_linear(TEST_TAIL), s->memory + TEST_MIDDLE_BYTES, TEST_TAIL_BYTES);
    ram_note_write(at_linear(TEST_CODE), 0x1000);
}

/* The guest stands behind the hlt of an exception's handler: what it was before that. */
static bool leave(struct test_state *s)
{
    const struct regs *r = &cpu->r;
    memset(s, 0, sizeof(*s));
    uint64_t vector = (r->rip - AT_HANDLERS) / 16;
    if (r->rip < AT_HANDLERS || vector > 31) {
        return false;
    }
    bool code = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
    uint64_t frame[5];
    memcpy(frame, ram->host + r->gpr[RSP] + (code ? 8 : 0), sizeof(frame));
    memcpy(s->gpr, r->gpr, sizeof(s->gpr));
    s->rip = frame[0];
    s->rflags = frame[2];
    s->gpr[RSP] = frame[3];
    s->vector = (int32_t)vector;
    memcpy(s->xsave, r->xsave, TEST_XSAVE);
    memcpy(s->memory, at_linear(TEST_MIDDLE), TEST_MIDDLE_BYTES);
    memcpy(s->memory + TEST_MIDDLE_BYTES, at_linear(TEST_TAIL), TEST_TAIL_BYTES);
    return true;
}

static bool run_engine(const struct test_case *c, struct test_state *after)
{
    enter(c);
    if (cpu->engine->push) {
        cpu->engine->push(cpu);
    }
    enum stop stop = cpu->engine->run(cpu);
    if (cpu->engine->pull) {
        cpu->engine->pull(cpu);
    }
    if (stop != STOP_HALTED) {
        print_message("engine stopped with %d\n", stop);
        return false;
    }
    return leave(after);
}

/* ---- making cases ---- */

enum { EXEMPLARS = 48 };
struct exemplars {
    unsigned n;
    uint8_t bytes[EXEMPLARS][16];
};
static struct exemplars by_op[OP_COUNT];
static uint16_t ops[OP_COUNT];
static unsigned n_ops;

static bool want_state; /* the group of these */

static bool saves_state(const struct insn *i)
{
    switch (i->op) {
    case OP_FXSAVE: case OP_FXRSTOR: case OP_XSAVE: case OP_XSAVEC: case OP_XSAVEOPT:
    case OP_XRSTOR:
        return true;
    default:
        return false;
    }
}

static bool left_out(const struct insn *i)
{
    switch (i->op) {
    case OP_RDRAND: case OP_RDSEED: case OP_POPF: case OP_UD0: case OP_UD1: case OP_UD2:
        return true;
    default:
        break;
    }
    if (saves_state(i) != want_state) {
        return true;
    }
    if (!cpu->model->insn_offers[i->desc->cpuid] || (i->desc->bits & INSN_CPL0)) {
        return true;
    }
    if (i->op == OP_NOP && i->opcode == 0x0d) {
        return true; /* undefined for AMD */
    }
    if (i->op == OP_POP_SREG && i->reg >= SEG_FS) {
        return true;
    }
    if (i->seg >= SEG_FS || (i->addrsize == 2 && i->code_bytes != 2)) {
        return true; /* those segments belong to the child's C library */
    }
    if (i->rm == RSP && i->mod == 3 &&
        (i->op == OP_JMP_IND || i->op == OP_CALL_IND)) {
        return true; /* would run data */
    }
    if (i->code_bytes == 4 && (i->op == OP_VPEXTRD || i->op == OP_VPINSRD) &&
        i->bytes[i->at_opcode - 1] >> 7) {
        return true; /* makers differ about W there */
    }
    if (i->code_bytes == 2 &&
        i->op == OP_POP_SREG) {
        return true; /* what may be loaded is another question */
    }
    bool near = i->desc->class == CLASS_BRANCH || i->desc->class == CLASS_INDIRECT;
    /* With 66 makers differ; with F3 AMD's loopne is loope. */
    return near && (i->prefixes & (i->code_bytes == 2 ? PFX_F2 | PFX_F3
                                                      : PFX_66 | PFX_F2 | PFX_F3));
}

struct group {
    const char *name;
    uint32_t classes;
    unsigned code_bytes;
    bool state; /* FXSAVE, XSAVE and their like */
};

static void random_bytes(uint8_t bytes[16], unsigned code_bytes)
{
    uint64_t r = rnd(), words[2] = {rnd(), rnd()};
    unsigned at = 0;
    memcpy(bytes, words, 16);
    if ((r & 3) == 0) {
        bytes[at++] = (const uint8_t[]){0x66, 0xf2, 0xf3, 0xf0}[(r >> 2) & 3];
    }
    if ((r >> 4 & 15) == 0) {
        bytes[at++] = 0x67;
    }
    if ((r >> 8 & 1) && code_bytes == 8) {
        bytes[at++] = (uint8_t)(0x40 | (r >> 9 & 15));
    }
    if (r >> 13 & 1) {
        bytes[at++] = 0x0f;
        if (r >> 14 & 1) {
            bytes[at++] = r >> 15 & 1 ? 0x38 : 0x3a;
        }
    } else if (r >> 16 & 1) {
        at = 0;
        bytes[at++] = 0xc4;
        bytes[at++] = (uint8_t)((r >> 20 & 0xe0) | (1 + (r >> 30 & 3) % 3));
        if (code_bytes == 4) {
            bytes[1] |= 0xc0;
        }
    }
}

static void collect(const struct group *g)
{
    memset(by_op, 0, sizeof(by_op));
    n_ops = 0;
    for (unsigned n = 0; n < 600000; n++) {
        uint8_t bytes[16];
        struct insn i;
        random_bytes(bytes, g->code_bytes);
        if (insn_decode(bytes, 15, g->code_bytes, &i) != DECODE_OK ||
            !(g->classes >> i.desc->class & 1) || left_out(&i) ||
            (only && strcmp(only, i.desc->name) != 0)) {
            continue;
        }
        struct exemplars *e = &by_op[i.op];
        if (e->n == 0) {
            ops[n_ops++] = i.op;
        }
        if (e->n < EXEMPLARS) {
            memcpy(e->bytes[e->n++], i.bytes, 16);
        }
    }
}

static uint64_t interesting(void)
{
    static const uint64_t corners[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff,
                                       0x80000000, 0xffffffff, INT64_MAX, UINT64_C(1) << 63,
                                       UINT64_MAX};
    uint64_t r = rnd();
    switch (r & 3) {
    case 0:
        return corners[(r >> 8) % G_N_ELEMENTS(corners)];
    case 1:
        return rnd() >> (r >> 8 & 63);
    default:
        return rnd();
    }
}

/* A number that floating-point code finds worth a look. */
static uint32_t single(void)
{
    static const uint32_t corners[] = {0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                       0xff800000, 0x7fc00000, 0x7f800001, 1, 0x807fffff,
                                       0x00800000, 0x7f7fffff, 0x4f000000, 0x40490fdb};
    uint64_t r = rnd();
    return r & 1 ? corners[(r >> 8) % G_N_ELEMENTS(corners)]
                 : (uint32_t)((r >> 8 & 0x807fffff) | (96 + (r >> 40 & 63)) << 23);
}

static uint64_t twice(void)
{
    static const uint64_t corners[] = {0, UINT64_C(1) << 63, 0x3ff0000000000000,
                                       0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000,
                                       0x7ff8000000000000, 0x7ff0000000000001, 1,
                                       0x0010000000000000, 0x7fefffffffffffff, 0x41e0000000000000};
    uint64_t r = rnd();
    return r & 1 ? corners[(r >> 8) % G_N_ELEMENTS(corners)]
                 : (r & 0x800fffffffffffff) | (UINT64_C(992) + (rnd() & 63)) << 52;
}

/* Operands enough for a group, in stretches of one kind: making them anew takes too long. */
enum { POOL = 1 << 18, STRETCH = 256 };
static uint8_t pool[POOL];

static void fill_pool(void)
{
    unsigned kind = 0;
    for (unsigned n = 0; n < POOL; n += 8) {
        kind = n % STRETCH ? kind : (unsigned)(rnd() & 3);
        uint64_t v = kind == 0   ? twice()
                     : kind == 1 ? single() | (uint64_t)single() << 32
                                 : interesting();
        memcpy(pool + n, &v, 8);
    }
}

static void fill_vector(uint8_t *to, unsigned bytes)
{
    memcpy(to, pool + (rnd() >> 8) % (POOL - bytes) / 8 * 8, bytes);
}

static void fill_x87(struct test_state *s)
{
    uint16_t fcw = (uint16_t)(0x40 | (rnd() & 0xf00) | 0x3f), fsw = (uint16_t)(rnd() & 0x7f00);
    static const uint16_t exponents[] = {0x3fff, 0xbfff, 0x4000, 0, 0x7fff, 0xffff, 0x3ffe, 0x401e};
    if (chance(8)) {
        fcw &= (uint16_t)~(rnd() & 0x3f); /* some unmasked */
    }
    fsw |= chance(20) ? (uint16_t)(rnd() & 0x3f) : 0;
    if (fsw & ~fcw & 0x3f) {
        fsw = (uint16_t)(fsw | 0x8080);
    }
    memcpy(s->xsave, &fcw, 2);
    memcpy(s->xsave + 2, &fsw, 2);
    s->xsave[4] = chance(50) ? 0xff : (uint8_t)rnd();
    for (unsigned n = 0; n < 8; n++) {
        uint64_t mantissa = chance(30) ? UINT64_C(1) << 63 : rnd();
        uint16_t exponent = chance(50) ? (uint16_t)(0x3ff0 + (rnd() & 31))
                                       : exponents[rnd() % G_N_ELEMENTS(exponents)];
        if ((exponent & 0x7fff) != 0 && chance(95)) {
            mantissa |= UINT64_C(1) << 63;
        }
        if ((exponent & 0x7fff) == 0 && chance(60)) {
            mantissa = 0;
        }
        memcpy(s->xsave + 32 + 16 * n, &mantissa, 8);
        memcpy(s->xsave + 40 + 16 * n, &exponent, 2);
    }
}

static void fill_state(struct test_state *s)
{
    memset(s, 0, sizeof(*s));
    for (unsigned n = 0; n < 16; n++) {
        s->gpr[n] = interesting();
    }
    s->rip = TEST_AT;
    s->rflags = 2 | FLAG_IF | (rnd() & FLAGS_ARITH) | (chance(25) ? FLAG_DF : 0);
    fill_vector(s->memory, TEST_MEMORY);
    fill_x87(s);
    uint32_t mxcsr = 0x1f80 | (uint32_t)(rnd() & 0xe07f);
    if (chance(10)) {
        mxcsr &= ~(uint32_t)(rnd() & 0x1f80);
    }
    memcpy(s->xsave + 24, &mxcsr, 4);
    for (unsigned n = 0; n < 16; n++) {
        fill_vector(s->xsave + 160 + 16 * n, 16);
        fill_vector(s->xsave + 576 + 16 * n, 16);
    }
    s->xsave[512] = 7;
}

/* Where a memory operand should lie. */
static uint64_t choose_target(unsigned bytes)
{
    uint64_t r = rnd();
    if (chance(3)) {
        return TEST_DATA_END - (r & 31); /* may touch what is not mapped */
    }
    uint64_t at = TEST_MIDDLE + 0x240 + (r >> 8) % 0x140; /* around the page boundary */
    if (chance(60)) {
        unsigned align = bytes && bytes <= 64 ? bytes : 16;
        at -= at % align;
    }
    return at;
}

static void patch(struct test_case *c, const struct insn *i, int64_t disp)
{
    memcpy(c->code + i->at_disp, &disp, i->disp_bytes);
}

/* Lanes of the index register become small. */
static void tame_index(struct test_case *c, const struct insn *i)
{
    bool wide = i->op == OP_VPGATHERQ || i->op == OP_VGATHERQP;
    for (unsigned n = 0; n < (wide ? 4u : 8u); n++) {
        int64_t v = (int64_t)(rnd() & 31) - 16;
        unsigned bytes = wide ? 8 : 4, at = n * bytes;
        uint8_t *to = c->before.xsave + (at < 16 ? 160 : 576 - 16) + 16 * i->index + at;
        memcpy(to, &v, bytes);
    }
}

/* Sets base or displacement so that the operand lies at @target.  False: it cannot be. */
static bool aim(struct test_case *c, const struct insn *i, uint64_t target)
{
    uint64_t *gpr = c->before.gpr;
    uint64_t mask = i->addrsize == 8 ? UINT64_MAX : 0xffffffff;
    target -= c->code_bytes == 2 ? TEST_CODE : 0;
    if (i->rip_relative) {
        patch(c, i, (int64_t)(target - (TEST_AT + i->len)));
        return true;
    }
    if (i->desc->bits & INSN_VSIB) {
        tame_index(c, i);
        if (i->base < 0) {
            patch(c, i, (int64_t)target);
            return true;
        }
        gpr[i->base] = (target - (uint64_t)i->disp) & mask;
        return true;
    }
    uint64_t scaled = i->index >= 0 ? gpr[i->index] << i->scale : 0;
    if (i->base < 0) {
        if (i->index >= 0) {
            gpr[i->index] = scaled = rnd() & 0xff;
            scaled <<= i->scale;
        }
        if (i->disp_bytes < (i->addrsize == 2 ? 2 : 4)) {
            return false;
        }
        patch(c, i, (int64_t)(target - scaled));
        return true;
    }
    if (i->base == i->index) {
        return false;
    }
    uint64_t base = target - scaled - (uint64_t)i->disp;
    gpr[i->base] = i->addrsize == 8   ? base
                   : i->addrsize == 4 ? (base & mask) | rnd() << 32
                                      : (base & 0xffff) | rnd() << 16;
    return true;
}

static void put_memory(struct test_case *c, uint64_t at, const void *from, unsigned bytes)
{
    if (at >= TEST_MIDDLE && at + bytes <= TEST_MIDDLE + TEST_MIDDLE_BYTES) {
        memcpy(c->before.memory + (at - TEST_MIDDLE), from, bytes);
    }
}

/* What has to be subtracted from a linear address. */
static uint64_t segment_base(const struct test_case *c)
{
    return c->code_bytes == 2 ? TEST_CODE : 0;
}

static uint64_t code_target(void)
{
    return TEST_CODE + 0x100 + rnd() % 0x500;
}

/* Registers with a meaning of their own. */
static bool special(struct test_case *c, struct insn *i, uint64_t target)
{
    uint64_t *gpr = c->before.gpr, to, low = segment_base(c);
    switch (i->desc->class) {
    case CLASS_STRING:
        gpr[RSI] = choose_target(i->opsize) - low;
        gpr[RDI] = choose_target(i->opsize) - low;
        gpr[RCX] = rnd() % 9;
        return true;
    case CLASS_STACK:
    case CLASS_INDIRECT:
        gpr[RSP] = i->op == OP_POPA || chance(95) ? /* a popa that faults may have begun */
                   TEST_MIDDLE + 0x280 + (rnd() & 0xf8) : choose_target(8);
        gpr[RBP] = TEST_MIDDLE + 0x280 + (rnd() & 0xf8);
        gpr[RSP] -= low;
        gpr[RBP] -= low;
        to = code_target() - low;
        if (c->code_bytes == 8 && chance(4)) {
            to |= UINT64_C(1) << (47 + rnd() % 17); /* not canonical */
        } else if (c->code_bytes == 8 && chance(1)) {
            to = UINT64_MAX;
        }
        if (i->op == OP_POP_SREG) {
            uint64_t selector = (const uint16_t[]){0x2b, 0x28, 0, 3, 0xfffb}[rnd() % 5];
            put_memory(c, gpr[RSP] + low, &selector, i->opsize);
        }
        if (i->op == OP_RET) {
            put_memory(c, gpr[RSP] + low, &to, i->opsize);
        } else if (i->mem) {
            put_memory(c, target, &to, i->opsize);
        } else if (i->rm != RSP) {
            gpr[i->rm] = to;
        }
        uint64_t from = i->op == OP_RET ? gpr[RSP] + low : target;
        if (low && (i->mem || i->op == OP_RET) &&
            (from < TEST_MIDDLE || from > TEST_MIDDLE + TEST_MIDDLE_BYTES - 8)) {
            return false; /* with 64 KiB a random target is one too often */
        }
        if (i->op == OP_ENTER) {
            c->code[i->at_imm] &= 0x3f;
            c->code[i->at_imm + 1] = 0;
            c->code[i->at_imm + 2] &= 3;
        }
        return true;
    case CLASS_BRANCH:
        gpr[RSP] = TEST_MIDDLE + 0x280 + (rnd() & 0xf8) - low;
        if (i->imm_bytes > 1) {
            int32_t rel = (int32_t)(code_target() - (TEST_AT + i->len));
            memcpy(c->code + i->at_imm, &rel, i->imm_bytes);
        } else {
            c->code[i->at_imm] = (uint8_t)(rnd() & 0x7f) | (rnd() & 1 ? 0 : 0x80);
            c->code[i->at_imm] &= c->code[i->at_imm] & 0x80 ? 0xdf : 0xff; /* not into itself */
        }
        if (chance(40)) {
            gpr[RCX] = rnd() & 1;
        }
        return true;
    default:
        break;
    }
    switch (i->op) {
    case OP_XLAT:
        gpr[RBX] = TEST_MIDDLE + 0x280 - low;
        return true;
    case OP_MASKMOVQ:
    case OP_MASKMOVDQU:
    case OP_VMASKMOVDQU:
        gpr[RDI] = TEST_MIDDLE + 0x240 + (rnd() & 0xff) - low; /* whether masked bytes fault is open */
        return true;
    case OP_DIV:
    case OP_IDIV:
        if (chance(70)) {
            gpr[RDX] = chance(50) ? rnd() & 0xff : 0;
            gpr[RAX] >>= 8;
        }
        return true;
    case OP_CMPXCHG8B:
    case OP_CMPXCHG:
        if (i->mem && chance(50)) { /* often equal */
            uint64_t pair[2] = {gpr[RAX], gpr[RDX]};
            if (i->op == OP_CMPXCHG8B && i->opsize == 4) {
                pair[0] = (uint32_t)gpr[RAX] | gpr[RDX] << 32;
            }
            put_memory(c, target, pair, 16);
        }
        return true;
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC:
        if (i->mem && i->desc->operand[1] == OPD_REG) {
            gpr[i->reg] = (uint64_t)((int64_t)(rnd() & 511) - 256);
        }
        return true;
    case OP_LDMXCSR:
    case OP_VLDMXCSR:
    {
        /* Without AMD's bit 17, which we do not offer. */
        uint32_t v = (uint32_t)rnd() & (chance(80) ? 0xffff : 0xfffdffff);
        put_memory(c, target, &v, 4);
        return target + 4 <= TEST_MIDDLE + TEST_MIDDLE_BYTES;
    }
    default:
        return true;
    }
}

/* An image that can be restored, most times; and what to save or restore. */
static void state_case(struct test_case *c, uint64_t target)
{
    uint8_t image[832];
    struct test_state other;
    fill_state(&other);
    memcpy(image, other.xsave, sizeof(image));
    uint64_t bv = rnd() & 7;
    if (chance(5)) {
        bv |= UINT64_C(1) << (20 + rnd() % 44); /* the child has some that we have not */
    }
    memcpy(image + 512, &bv, 8);
    memset(image + 24 + 4, 0, 4);
    if (chance(2)) {
        image[520 + (rnd() & 15)] = 1;
    }
    put_memory(c, target, image, sizeof(image));
    c->before.gpr[RAX] = (c->before.gpr[RAX] & ~UINT64_C(0xffffffff)) | (rnd() & 7);
    c->before.gpr[RDX] &= ~UINT64_C(0xffffffff);
}

static bool make_case(struct test_case *c, const struct group *g)
{
    struct insn i;
    const struct exemplars *e = &by_op[ops[rnd() % n_ops]];
    memset(c, 0, sizeof(*c));
    memset(c->code, 0xcc, sizeof(c->code));
    c->code_bytes = (uint8_t)g->code_bytes;
    fill_state(&c->before);
    const uint8_t *bytes = e->bytes[rnd() % e->n];
    insn_decode(bytes, 15, g->code_bytes, &i);
    memcpy(c->code, bytes, i.len);
    uint64_t target = choose_target(insn_mem_bytes(&i));
    if (want_state) {
        if (i.base == RAX || i.base == RDX || i.index == RAX || i.index == RDX) {
            return false; /* they say what to save */
        }
        target = TEST_MIDDLE + (rnd() & 0x1c0) + (chance(5) ? rnd() & 63 : 0);
        state_case(c, target);
    }
    if (!special(c, &i, target)) {
        return false;
    }
    if (i.mem && i.desc->operand[0] != OPD_MOFFS && i.desc->operand[1] != OPD_MOFFS) {
        if (!aim(c, &i, target)) {
            return false;
        }
    } else if (i.mem) {
        patch(c, &i, (int64_t)(target - segment_base(c)));
    }
    c->before.rip -= segment_base(c);
    if (g->code_bytes != 8) {
        for (unsigned n = 0; n < 16; n++) {
            c->before.gpr[n] = n < 8 ? (uint32_t)c->before.gpr[n] : 0;
        }
    }
    return true;
}

/* ---- comparing ---- */

/* Parts in their initial state may hold anything. */
static void normalize(struct test_state *s)
{
    uint8_t bv = s->xsave[512];
    if (!(bv & 1)) {
        memset(s->xsave, 0, 24);
        s->xsave[0] = 0x7f;
        s->xsave[1] = 3;
        memset(s->xsave + 32, 0, 128);
    }
    if (!(bv & 2)) {
        memset(s->xsave + 160, 0, 256);
    }
    if (!(bv & 4)) {
        memset(s->xsave + 576, 0, 256);
    }
    memset(s->xsave + 5, 0, 19);   /* FOP and the pointers: see below */
    memset(s->xsave + 28, 0, 4);
    memset(s->xsave + 416, 0, 160);
    for (unsigned n = 0; n < 8; n++) {
        memset(s->xsave + 32 + 16 * n + 10, 0, 6);
    }
}

static const char *difference(const struct insn *i, const struct test_state *a,
                              const struct test_state *b)
{
    static char text[80];
    uint64_t mask = FLAGS_ARITH | FLAG_DF | FLAG_IF | FLAG_TF;
    if (a->vector != b->vector) {
        return "exception";
    }
    if (a->rip != b->rip) {
        return "rip";
    }
    uint32_t written = i->desc->flags_written | i->desc->flags_undefined;
    if (a->vector == 3) {
        mask &= ~(uint64_t)i->desc->flags_undefined;
    } else if (cpu->engine != reference && (written & FLAGS_ARITH) == FLAGS_ARITH) {
        mask &= ~(uint64_t)FLAGS_ARITH; /* stale, as docs/notes/translator.md says */
    }
    if ((a->rflags ^ b->rflags) & mask) {
        return "flags";
    }
    for (unsigned n = 0; n < 16; n++) {
        if (a->gpr[n] != b->gpr[n]) {
            g_snprintf(text, sizeof(text), "register %u", n);
            return text;
        }
    }
    if (memcmp(a->memory, b->memory, TEST_MEMORY) == 0 &&
        memcmp(a->xsave, b->xsave, TEST_XSAVE) == 0) {
        return NULL;
    }
    for (unsigned n = 0; n < TEST_MEMORY; n++) {
        /* AMD's mask of MXCSR has bit 17, which we do not offer. */
        bool mxcsr_mask = saves_state(i) && n >= 30 && a->memory[n] == 2 && b->memory[n] == 0 &&
                    a->memory[n - 1] == 0xff && a->memory[n - 2] == 0xff;
        if (a->memory[n] != b->memory[n] && !mxcsr_mask) {
            g_snprintf(text, sizeof(text), "memory at %u: %02x, not %02x", n, b->memory[n],
                       a->memory[n]);
            return text;
        }
    }
    for (unsigned n = 0; n < TEST_XSAVE; n++) {
        if (a->xsave[n] != b->xsave[n]) {
            g_snprintf(text, sizeof(text), "vector state byte %u", n);
            return text;
        }
    }
    return NULL;
}

static void show(const char *name, const struct test_state *s)
{
    print_message("  %s: exception %d rip %#" PRIx64 " flags %#" PRIx64 " mxcsr %02x%02x"
                  " fcw %02x%02x fsw %02x%02x ftw %02x\n   ", name, s->vector, s->rip, s->rflags,
                  s->xsave[25], s->xsave[24], s->xsave[1], s->xsave[0], s->xsave[3], s->xsave[2],
                  s->xsave[4]);
    for (unsigned n = 0; n < 16; n++) {
        print_message(" %" PRIx64, s->gpr[n]);
    }
    print_message("\n");
}

static unsigned failures;
static uint16_t failed_ops[OP_COUNT];

static void check_case(struct test_case *c)
{
    struct test_state mine;
    struct insn i;
    insn_decode(c->code, 15, c->code_bytes, &i);
    if (!run_engine(c, &mine)) {
        failures++;
        print_message("%s: the engine is lost at %#" PRIx64 "\n", i.desc->name, cpu->r.rip);
        return;
    }
    normalize(&mine);
    normalize(&c->after);
    if (c->code_bytes != 8) {
        c->after.gpr[RSP] = (uint32_t)c->after.gpr[RSP]; /* Linux leaves its own above a 16-bit SP */
    }
    const char *what = difference(&i, &c->after, &mine);
    if (!what) {
        return;
    }
    failures++;
    if (failed_ops[i.op]++ >= 2) {
        return;
    }
    print_message("%s (%u-bit):", i.desc->name, c->code_bytes * 8);
    for (unsigned n = 0; n < i.len; n++) {
        print_message(" %02x", i.bytes[n]);
    }
    print_message(": %s\n", what);
    show("before", &c->before);
    show("native", &c->after);
    show("engine", &mine);
    unsigned at = 0;
    if (sscanf(what, "vector state byte %u", &at) == 1) {
        at &= ~15u;
        for (unsigned n = 0; n < 16; n++) {
            print_message(" %02x/%02x/%02x", c->before.xsave[at + n], c->after.xsave[at + n],
                          mine.xsave[at + n]);
        }
        print_message("\n");
    }
}

/* Signals that engines use, and what they do with them. */
static const int caught[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
static struct sigaction engine_actions[G_N_ELEMENTS(caught)];

static void run_group(const struct group *g)
{
    for (unsigned n = 0; n < G_N_ELEMENTS(caught); n++) {
        sigaction(caught[n], &engine_actions[n], NULL); /* cmocka has taken them for itself */
    }
    if (g->code_bytes == 2 && !native_has_16_bit()) {
        print_message("no 16-bit segments here\n");
        skip();
    }
    want_state = g->state;
    seed = test_seed(g->name);
    collect(g);
    fill_pool();
    print_message("%s: %u mnemonics\n", g->name, n_ops);
    failures = 0;
    for (unsigned done = 0; n_ops && done < cases_wanted; done += TEST_BATCH) {
        for (unsigned n = 0; n < TEST_BATCH;) {
            n += make_case(&native.cases[n], g);
        }
        assert_true(native_run(&native, TEST_BATCH));
        for (unsigned n = 0; n < TEST_BATCH; n++) {
            check_case(&native.cases[n]);
        }
        cases_done += TEST_BATCH;
    }
    memset(failed_ops, 0, sizeof(failed_ops));
    assert_int_equal(failures, 0);
}

#define GROUP(test, title, bits, mode, ...)                                                           \
    static void test(void **state)                                                                 \
    {                                                                                              \
        static const struct group g = {title, bits, mode, ##__VA_ARGS__};                        \
        (void)state;                                                                               \
        run_group(&g);                                                                             \
    }
#define INTEGERS (1 << CLASS_INTEGER | 1 << CLASS_BMI)
#define BRANCHES (1 << CLASS_STACK | 1 << CLASS_BRANCH | 1 << CLASS_INDIRECT)
GROUP(integers_are_the_processors, "integer", INTEGERS, 8)
GROUP(integers_in_32_bit_code, "integer, 32-bit", INTEGERS, 4)
GROUP(strings_are_the_processors, "string", 1 << CLASS_STRING, 8)
GROUP(strings_in_32_bit_code, "string, 32-bit", 1 << CLASS_STRING, 4)
GROUP(stack_and_branches, "stack and branch", BRANCHES, 8)
GROUP(stack_and_branches_in_32_bit_code, "stack and branch, 32-bit", BRANCHES, 4)
GROUP(x87_is_the_processors, "x87", 1 << CLASS_X87, 8)
GROUP(mmx_is_the_processors, "MMX", 1 << CLASS_MMX, 8)
GROUP(sse_is_the_processors, "SSE", 1 << CLASS_SSE, 8)
GROUP(sse_in_32_bit_code, "SSE, 32-bit", 1 << CLASS_SSE, 4)
GROUP(avx_is_the_processors, "AVX", 1 << CLASS_AVX, 8)
GROUP(avx_in_32_bit_code, "AVX, 32-bit", 1 << CLASS_AVX, 4)

GROUP(integers_in_16_bit_code, "integer, 16-bit", INTEGERS, 2)
GROUP(strings_in_16_bit_code, "string, 16-bit", 1 << CLASS_STRING, 2)
GROUP(stack_and_branches_in_16_bit_code, "stack and branch, 16-bit", BRANCHES, 2)
GROUP(x87_in_16_bit_code, "x87, 16-bit", 1 << CLASS_X87, 2)
GROUP(sse_in_16_bit_code, "SSE, 16-bit", 1 << CLASS_SSE, 2)
GROUP(state_is_saved_as_the_processor_does, "state", 1 << CLASS_SSE, 8, true)
GROUP(state_is_saved_in_32_bit_code, "state, 32-bit", 1 << CLASS_SSE, 4, true)

static int start(void **state)
{
    (void)state;
    assert_true(native_start(&native));
    make_guest();
    native_catch_signals();
    for (unsigned n = 0; n < G_N_ELEMENTS(caught); n++) {
        sigaction(caught[n], NULL, &engine_actions[n]);
    }
    return 0;
}

static int finish(void **state)
{
    (void)state;
    native_stop(&native);
    print_message("%" PRIu64 " cases on %s\n", cases_done, cpu->engine->name);
    cpu->engine->detach(cpu);
    vcpu_remove(cpu);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_the_processors),
        cmocka_unit_test(integers_in_32_bit_code),
        cmocka_unit_test(strings_are_the_processors),
        cmocka_unit_test(strings_in_32_bit_code),
        cmocka_unit_test(stack_and_branches),
        cmocka_unit_test(stack_and_branches_in_32_bit_code),
        cmocka_unit_test(x87_is_the_processors),
        cmocka_unit_test(mmx_is_the_processors),
        cmocka_unit_test(sse_is_the_processors),
        cmocka_unit_test(sse_in_32_bit_code),
        cmocka_unit_test(avx_is_the_processors),
        cmocka_unit_test(avx_in_32_bit_code),
        cmocka_unit_test(integers_in_16_bit_code),
        cmocka_unit_test(strings_in_16_bit_code),
        cmocka_unit_test(stack_and_branches_in_16_bit_code),
        cmocka_unit_test(x87_in_16_bit_code),
        cmocka_unit_test(sse_in_16_bit_code),
        cmocka_unit_test(state_is_saved_as_the_processor_does),
        cmocka_unit_test(state_is_saved_in_32_bit_code),
    };
    const char *count = getenv("LODGE_CASES");
    cases_wanted = count ? (unsigned)atoi(count) : cases_wanted;
    only = getenv("LODGE_ONLY");
    bt_hot = 0; /* every case is new code */
    return cmocka_run_group_tests(tests, start, finish);
}
