/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The translator against the interpreter: random instructions on random registers, the
 * state and the memory afterwards compared.  LODGE_SEED says where it begins (seed.h),
 * LODGE_CASES how long it is.
 */
#include "tests/unit/test.h"

#include "guest/cpu/decode/insn.h"
#include "guest/cpu/engine.h"
#include "guest/cpu/models.h"
#include "guest/cpu/tlb.h"
#include "guest/cpu/translate/bt.h"
#include "guest/cpu/vcpu.h"
#include "guest/memory/ram.h"
#include "guest/memory/space.h"
#include "tests/unit/seed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RAM_BYTES = 256 * 1024, CODE_AT = 0x1000, DATA_AT = 0x10000, DATA_BYTES = 0x8000 };
enum { HANDLERS = 0x3000, GDT_AT = 0x4000, IDT_AT = 0x5000, PER_CASE = 12 };

struct machine {
    struct ram *ram;
    struct vcpu *cpu;
};
static struct machine m[2]; /* interp, bt */
static uint64_t seed;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void make_machine(struct machine *out, const char *engine, unsigned index)
{
    static const struct cpu_topology topology = {1, 1, 1, 1};
    static const struct vcpu_board board;
    GError *error = NULL;
    g_autofree char *name = g_strdup_printf("ram%u", index);
    const struct cpu_engine *e = cpu_engine_find(engine);
    out->ram = ram_new(name, RAM_BYTES, NULL, &error);
    assert_non_null(out->ram);
    struct region *r = g_new0(struct region, 1);
    r->name = "ram";
    r->size = RAM_BYTES;
    r->ram = out->ram;
    struct space *memory = space_new("memory", UINT64_C(1) << 40);
    space_place(memory, r, 0, 0);
    struct cpu_model *model = cpu_model_new("max", "bt", &topology, &error);
    assert_non_null(model);
    out->cpu = vcpu_new(index, index, e, model, &board, memory, memory, space_new("io", 65536), &error);
    assert_non_null(out->cpu);
    assert_works(e->attach(out->cpu, &error), error);
}

static void set_tables(uint8_t *ram)
{
    uint64_t code = UINT64_C(0x00af9b000000ffff), data = UINT64_C(0x00cf93000000ffff);
    memcpy(ram + GDT_AT + 8, &code, 8);
    memcpy(ram + GDT_AT + 16, &data, 8);
    for (unsigned v = 0; v < 32; v++) {
        uint32_t at = HANDLERS + v * 16;
        uint32_t gate[4] = {8 << 16 | (at & 0xffff), (at & 0xffff0000) | 0x8e00, 0, 0};
        memcpy(ram + IDT_AT + v * 16, gate, 16);
        ram[at] = 0xf4;
    }
}

static bool excluded(const struct insn *i)
{
    static const uint16_t ops[] = {OP_RDRAND, OP_RDSEED, OP_RDPID,  OP_FXSAVE,  OP_FXRSTOR,
                                   OP_XSAVE,  OP_XRSTOR, OP_XSAVEOPT, OP_XSAVEC, OP_FNSTENV,
                                   OP_FLDENV, OP_FNSAVE, OP_FRSTOR, OP_LDMXCSR, OP_FLDCW,
                                   OP_CLFLUSH, OP_ENTER};
    for (unsigned k = 0; k < G_N_ELEMENTS(ops); k++) {
        if (i->op == ops[k]) {
            return true;
        }
    }
    if (!strncmp(i->desc->name, "sha", 3) && i->mem) {
        return true; /* ... and in whether they check alignment here */
    }
    if (((i->op == OP_CMPXCHG && !i->mem) || i->op == OP_BSF || i->op == OP_BSR) && i->opsize == 4) {
        return true; /* processors differ in the upper half of what it leaves alone */
    }
    switch (i->desc->class) {
    case CLASS_INTEGER:
    case CLASS_STACK:
    case CLASS_STRING:
    case CLASS_BMI:
    case CLASS_SSE:
    case CLASS_AVX:
    case CLASS_MMX:
    case CLASS_X87:
        return i->op == OP_POPF || i->op == OP_POP_SREG || i->op == OP_STD;
    case CLASS_BRANCH:
        return i->op != OP_JCC;
    default:
        return true;
    }
}

/* One instruction with a memory operand, if any, among the data. */
static unsigned random_insn(uint8_t *out, struct insn *i)
{
    static const uint16_t pointers = 1 << RBX | 1 << RBP | 1 << RSI | 1 << RDI | 1 << R8 |
                                     1 << R11 | 1 << R13 | 1 << R14 | 1 << R15;
    for (;;) {
        uint8_t b[16];
        unsigned at = 0;
        uint64_t r = rnd();
        for (unsigned k = 0; k < 16; k += 8) {
            uint64_t v = rnd();
            memcpy(b + k, &v, 8);
        }
        if ((r & 7) == 0) {
            b[at++] = (uint8_t[]){0x66, 0xf2, 0xf3, 0xf0}[r >> 8 & 3];
        }
        if (r >> 16 & 1) {
            b[at++] = 0x40 | (r >> 20 & 15);
        }
        if ((r >> 24 & 7) < 3) {
            b[at++] = 0x0f;
        } else if ((r >> 24 & 7) == 3 && !at) {
            b[at++] = 0xc4;
            b[at] = (uint8_t)((b[at] & 0xe0) | (1 + (r >> 28) % 3));
        }
        if (insn_decode(b, 15, 8, i) != DECODE_OK || excluded(i)) {
            continue;
        }
        if (i->mem && i->desc->mem != MEM_ADDRESS) {
            if (i->addrsize != 8 || (i->index >= 0 && i->index != R9) || i->seg > SEG_DS) {
                continue;
            }
            if (i->disp_bytes == 4 && i->rip_relative) {
                uint32_t d = DATA_AT - CODE_AT + (rnd() & 0x3fff);
                memcpy(b + i->at_disp, &d, 4);
            } else if (i->base < 0 || !(pointers >> i->base & 1)) {
                continue;
            } else if (i->disp_bytes == 4) {
                uint32_t d = (uint32_t)(rnd() & 0x7ff);
                memcpy(b + i->at_disp, &d, 4);
            }
        }
        if (i->op == OP_JCC) {
            memset(b + i->at_imm, 0, i->imm_bytes);
            }
        assert_int_equal(insn_decode(b, 15, 8, i), DECODE_OK);
        memcpy(out, b, i->len);
        return i->len;
    }
}

static unsigned random_code(uint8_t *code, uint32_t *undefined)
{
    unsigned at = 0;
    *undefined = 0;
    for (unsigned k = 0; k < PER_CASE; k++) {
        struct insn i;
        unsigned n = random_insn(code + at, &i);
        /* Shifts are listed as readers of what they may leave alone. */
        if (k && i.desc->class == CLASS_STRING && (i.prefixes & (PFX_F2 | PFX_F3))) {
            continue; /* RCX may be anything by now */
        }
        bool reads = i.desc->flags_read != i.desc->flags_written || i.op == OP_RCL || i.op == OP_RCR;
        if (reads && (i.desc->flags_read & *undefined)) {
            continue;
        }
        *undefined &= ~(i.desc->flags_written & ~i.desc->flags_read);
        *undefined |= i.desc->flags_undefined;
        at += n;
    }
    for (unsigned k = 0; k < 4; k++) {
        code[at++] = 0xf4;
    }
    return at;
}

static void random_state(struct regs *r)
{
    static const uint8_t pointers[] = {RBX, RBP, RSI, RDI, R8, R11, R13, R14, R15};
    for (unsigned k = 0; k < 16; k++) {
        r->gpr[k] = rnd() >> (rnd() & 63);
    }
    for (unsigned k = 0; k < sizeof(pointers); k++) {
        uint64_t odd = rnd() & 3 ? 0 : rnd() & 15;
        r->gpr[pointers[k]] = DATA_AT + 0x1000 + ((rnd() & 0x3fff) & ~UINT64_C(31)) + odd;
    }
    r->gpr[RCX] = rnd() & 0x3f;
    r->gpr[R9] = rnd() & 0xff;
    r->gpr[RSP] = DATA_AT + 0x6000 + (rnd() & 0xff8);
    r->rip = CODE_AT;
    r->rflags = 2 | (rnd() & FLAGS_ARITH);
    for (unsigned k = 0; k < 16; k++) { /* XMM, and halves of YMM */
        uint64_t v[4] = {rnd(), rnd(), rnd(), rnd()};
        if (rnd() & 1) {
            double d[2] = {(double)(int32_t)rnd() / 7, (double)(int32_t)rnd()};
            memcpy(v, d, 16);
        }
        memcpy(r->xsave + 160 + k * 16, v, 16);
        memcpy(r->xsave + 576 + k * 16, v + 2, 16);
    }
    r->xsave[512] = 7;
}

static void set_mode(struct regs *r)
{
    r->efer = EFER_LMA | EFER_LME;
    r->cr0 = CR0_PE | CR0_ET | CR0_NE;
    r->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_PAE | CR4_OSXSAVE;
    r->xcr0 = 7;
    for (unsigned k = 0; k < SEG_COUNT; k++) {
        r->seg[k] = (struct segment){.limit = UINT32_MAX, .attr = 0xc093, .selector = 16};
    }
    r->seg[SEG_CS].attr = 0xa09b;
    r->seg[SEG_CS].selector = 8;
    r->gdt = (struct table_register){GDT_AT, 23};
    r->idt = (struct table_register){IDT_AT, 511};
}

static const char *difference(uint32_t undefined, int stop)
{
    static char text[128];
    struct regs *a = &m[0].cpu->r, *b = &m[1].cpu->r;
    for (unsigned k = 0; k < 16; k++) {
        if (a->gpr[k] != b->gpr[k]) {
            sprintf(text, "register %u: %" PRIx64 " and %" PRIx64, k, a->gpr[k], b->gpr[k]);
            return text;
        }
    }
    if (a->rip != b->rip) {
        sprintf(text, "rip: %" PRIx64 " and %" PRIx64, a->rip, b->rip);
        return text;
    }
    /* Flags that are overwritten before they are read may be stale in an exception. */
    bool raised = stop != STOP_HALTED || (a->rip >= HANDLERS && a->rip < GDT_AT);
    uint64_t frame = raised ? a->gpr[RSP] : UINT64_MAX - 64;
    if (((a->rflags ^ b->rflags) & ~(uint64_t)undefined) && !raised) {
        sprintf(text, "flags: %" PRIx64 " and %" PRIx64, a->rflags, b->rflags);
        return text;
    }
    for (unsigned k = 0; k < 832; k++) {
        if ((k >= 6 && k < 24) || (k >= 28 && k < 32)) { /* FOP, FIP, FDP; MXCSR_MASK */
            continue;
        }
        if (k >= 416 && k < 576) {
            continue;
        }
        if (k < 160 && k >= 32 && (k & 15) >= 10) {
            continue;
        }
        if (a->xsave[k] != b->xsave[k]) {
            sprintf(text, "xsave byte %u: %02x and %02x", k, a->xsave[k], b->xsave[k]);
            return text;
        }
    }
    if (!memcmp(m[0].ram->host, m[1].ram->host, RAM_BYTES)) {
        return NULL;
    }
    for (unsigned k = 0; k < RAM_BYTES; k++) {
        if (m[0].ram->host[k] != m[1].ram->host[k] && k - frame >= 48) {
            sprintf(text, "memory at %x: %02x and %02x", k, m[0].ram->host[k], m[1].ram->host[k]);
            return text;
        }
    }
    return NULL;
}

static void dump(const uint8_t *code, unsigned n, const struct regs *start)
{
    for (unsigned at = 0; at < n;) {
        struct insn i;
        if (insn_decode(code + at, 15, 8, &i) != DECODE_OK) {
            break;
        }
        fprintf(stderr, "  %4x: %-12s", CODE_AT + at, i.desc->name);
        for (unsigned k = 0; k < i.len; k++) {
            fprintf(stderr, " %02x", i.bytes[k]);
        }
        fprintf(stderr, "\n");
        at += i.len;
    }
    for (unsigned k = 0; k < 16; k++) {
        fprintf(stderr, "  r%-2u %16" PRIx64 "  -> %16" PRIx64 " %16" PRIx64 "\n", k, start->gpr[k],
                m[0].cpu->r.gpr[k], m[1].cpu->r.gpr[k]);
    }
    fprintf(stderr, "  flags %" PRIx64 " -> %" PRIx64 " %" PRIx64 " rip %" PRIx64 " %" PRIx64 "\n",
            start->rflags, m[0].cpu->r.rflags, m[1].cpu->r.rflags, m[0].cpu->r.rip,
            m[1].cpu->r.rip);
}

/* Random code may overwrite its handlers, and then faults for ever: such a case is left. */
static _Atomic unsigned case_number;

static GMutex watch_lock;
static GCond watch_end;
static bool all_cases_done;

static void *watch(void *unused)
{
    unsigned last = 0;
    (void)unused;
    g_mutex_lock(&watch_lock);
    while (!all_cases_done) {
        if (g_cond_wait_until(&watch_end, &watch_lock,
                              g_get_monotonic_time() + 5 * G_USEC_PER_SEC)) {
            continue;
        }
        unsigned now = case_number;
        for (unsigned k = 0; k < 2 && now == last; k++) {
            vcpu_request(m[k].cpu, REQ_PAUSE);
        }
        last = now;
    }
    g_mutex_unlock(&watch_lock);
    return NULL;
}

/* Was an exception's frame put where its handler is?  Then the flags in it, which may be stale or
 * undefined, were executed. */
static bool frame_on_handlers(const struct regs *r)
{
    return r->gpr[RSP] + 64 > HANDLERS && r->gpr[RSP] < GDT_AT;
}

static void one_case(unsigned number)
{
    static uint8_t code[4096];
    static struct regs start;
    uint32_t undefined;
    uint64_t case_seed = seed;
    unsigned n = random_code(code, &undefined);
    start = m[0].cpu->r;
    memset(&start, 0, offsetof(struct regs, xcr0));
    memset(start.xsave, 0, sizeof(start.xsave));
    start.xsave[0] = 0x7f;
    start.xsave[1] = 3;
    start.xsave[24] = 0x80;
    start.xsave[25] = 0x1f;
    set_mode(&start);
    random_state(&start);
    start.halted = 0;
    int stop[2];
    for (unsigned k = 0; k < 2; k++) {
        struct vcpu *cpu = m[k].cpu;
        memset(m[k].ram->host, 0xf4, DATA_AT);
        ram_note_write(m[k].ram->host, DATA_AT);
        set_tables(m[k].ram->host);
        memset(m[k].ram->host + DATA_AT, 0x5a, RAM_BYTES - DATA_AT);
        memcpy(m[k].ram->host + CODE_AT, code, n);
        ram_note_write(m[k].ram->host + CODE_AT, n);
        cpu->r = start;
        stop[k] = (int)cpu->engine->run(cpu);
    }
    case_number++;
    for (unsigned k = 0; k < 2; k++) {
        vcpu_unrequest(m[k].cpu, REQ_PAUSE);
        if (stop[k] == STOP_KICKED) {
            return;
        }
    }
    if (frame_on_handlers(&m[0].cpu->r) || frame_on_handlers(&m[1].cpu->r)) {
        return;
    }
    const char *what = difference(undefined, stop[0]);
    if (!what && stop[0] != stop[1]) {
        what = "reason to stop";
    }
    if (what) {
        fprintf(stderr, "case %u (LODGE_SEED=%" PRIu64 "): %s; stops %d %d\n", number, case_seed, what,
                stop[0], stop[1]);
        dump(code, n, &start);
        fail_msg("%s", what);
    }
}

/* In a test, not in a set-up function: cmocka puts its own signal handlers in between. */
static void make_machines(void)
{
    make_machine(&m[0], "interp", 0);
    make_machine(&m[1], "bt", 1);
}

static void random_code_ends_as_in_the_interpreter(void **state)
{
    (void)state;
    bt_hot = 0;
    make_machines();
    const char *c = getenv("LODGE_CASES");
    unsigned cases = c ? (unsigned)atoi(c) : 30000;
    seed = test_seed("random code");
    GThread *watcher = g_thread_new("watch", watch, NULL);
    for (unsigned k = 0; k < cases; k++) {
        one_case(k);
    }
    g_mutex_lock(&watch_lock);
    all_cases_done = true;
    g_cond_signal(&watch_end);
    g_mutex_unlock(&watch_lock);
    g_thread_join(watcher);
    for (unsigned k = 0; k < 2; k++) {
        m[k].cpu->engine->detach(m[k].cpu);
        vcpu_remove(m[k].cpu);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_code_ends_as_in_the_interpreter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
