/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The translator's memory for code: what is made of a page serves all addresses it is mapped at,
 * until it is written to, and reaches nothing else; a full cache keeps what is new.
 */
#include "tests/unit/test.h"

#include "guest/cpu/engine.h"
#include "guest/cpu/models.h"
#include "guest/cpu/translate/bt.h"
#include "guest/cpu/vcpu.h"
#include "guest/memory/ram.h"
#include "guest/memory/space.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { RAM_BYTES = 4 << 20, CACHE_BYTES = 4 << 20, KERNEL_AT = 0x1000, TABLES_AT = 0x100000 };
enum {
    CODE_AT = 0x10000,
    FAR_AT = 0x18000,
    STACK_AT = 0x20000,
    FILLER_AT = 0x200000,
    FILLER_PAGES = 16
};
enum { PTE_P = 1, PTE_RW = 2, PTE_US = 4, LOOPS = 100 };
#define KERNEL UINT64_C(0xffffffff80000000)
#define STACK  UINT64_C(0x7ffffff00000)
#define LOW    UINT64_C(0x400000)       /* a program that is linked to an address */
#define ONE    UINT64_C(0x555555554000) /* and where others may lie */
#define OTHER  UINT64_C(0x7f1234567000)

static struct ram *ram;
static struct vcpu *cpu;
static unsigned tables; /* pages used for them */

static void make_machine(void)
{
    static const struct cpu_topology topology = {1, 1, 1, 1};
    static const struct vcpu_board board;
    static struct region r = {.name = "ram", .size = RAM_BYTES};
    GError *error = NULL;
    ram = ram_new("ram", RAM_BYTES, NULL, &error);
    assert_non_null(ram);
    r.ram = ram;
    struct space *memory = space_new("memory", UINT64_C(1) << 40);
    space_place(memory, &r, 0, 0);
    struct cpu_model *model = cpu_model_new("max", "bt", &topology, &error);
    assert_non_null(model);
    const struct cpu_engine *e = cpu_engine_find("bt");
    cpu = vcpu_new(0, 0, e, model, &board, memory, memory, space_new("io", 65536), &error);
    assert_non_null(cpu);
    assert_works(e->attach(cpu, &error), error);
}

static uint64_t *entry_in(uint64_t table, unsigned n)
{
    return (uint64_t *)(void *)(ram->host + table) + n;
}

static void map(uint64_t linear, uint64_t physical, unsigned pages)
{
    for (; pages; pages--, linear += 4096, physical += 4096) {
        uint64_t table = TABLES_AT;
        for (unsigned shift = 39; shift > 12; shift -= 9) {
            uint64_t *e = entry_in(table, linear >> shift & 511);
            if (!*e) {
                *e = (TABLES_AT + ++tables * 4096ull) | PTE_P | PTE_RW | PTE_US;
            }
            table = *e & PAGE_MASK;
        }
        *entry_in(table, linear >> 12 & 511) = physical | PTE_P | PTE_RW | PTE_US;
    }
}

static void set_state(uint64_t rip)
{
    struct regs *r = &cpu->r;
    memset(r->gpr, 0, sizeof(r->gpr));
    r->efer = EFER_LMA | EFER_LME | EFER_SCE;
    r->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    r->cr4 = CR4_PAE;
    r->cr3 = TABLES_AT;
    for (unsigned k = 0; k < SEG_COUNT; k++) {
        r->seg[k] = (struct segment){.limit = UINT32_MAX, .attr = 0xc0f3, .selector = 0x2b};
    }
    r->seg[SEG_CS].attr = 0xa0fb;
    r->seg[SEG_CS].selector = 0x33;
    r->star = UINT64_C(8) << 32;
    r->lstar = KERNEL;
    r->rflags = 2;
    r->gpr[RSP] = STACK + 0x800;
    r->rip = rip;
    r->halted = 0;
}

/* User code from @rip up to its system call, which halts; RAX. */
static uint64_t run(uint64_t rip)
{
    set_state(rip);
    assert_int_equal(cpu->engine->run(cpu), STOP_HALTED);
    assert_int_equal(vcpu_cpl(cpu), 0);
    return cpu->r.gpr[RAX];
}

static uint64_t counter(const char *name)
{
    struct bt_counter c[BT_COUNTERS];
    assert_true(bt_counters(0, c));
    for (unsigned k = 0; k < BT_COUNTERS; k++) {
        if (!strcmp(c[k].name, name)) {
            return c[k].value;
        }
    }
    fail_msg("no counter %s", name);
    return 0;
}

static void make_program(void)
{
    static const uint8_t code[] = {
        0xb9, LOOPS, 0,    0,    0,                /*      mov ecx, LOOPS */
        0x03, 0x05,  0xf5, 0x1f, 0,    0,          /*  5:  add eax, [rip + two pages on] */
        0xff, 0xc9,                                /* 11:  dec ecx */
        0x75, 0xf6,                                /*      jnz 5 */
        0xe8, 0xec,  0x0f, 0,    0,                /* 15:  call next page */
        0x48, 0x8d,  0x1d, 0xe5, 0xff, 0xff, 0xff, /* 20: lea rbx, [rip - 27]: the beginning */
        0xff, 0x15,  0xe7, 0x1f, 0,    0,          /* 27:  call [rip + two pages on, at 8] */
        0x0f, 0x05,                                /* 33:  syscall */
    };
    static const uint8_t next[] = {0x83, 0xc0, 0x07, 0xc3}; /* add eax, 7; ret */
    memcpy(ram->host + CODE_AT, code, sizeof(code));
    memcpy(ram->host + CODE_AT + 0x1000, next, sizeof(next));
    ram->host[CODE_AT + 0x2000] = 3;
    ram->host[KERNEL_AT] = 0xf4; /* hlt */
}

/* The pointer in the program's data is to its own next page, as a loader would make it. */
static uint64_t run_at(uint64_t linear)
{
    uint64_t to = linear + 0x1000;
    memcpy(ram->host + CODE_AT + 0x2008, &to, 8);
    uint64_t sum = run(linear);
    assert_int_equal(cpu->r.gpr[RBX], linear);
    return sum;
}

static void a_program_is_translated_once_wherever_it_lies(void)
{
    static const uint64_t places[] = {ONE, OTHER, ONE, LOW};
    uint64_t blocks = 0;
    for (unsigned k = 0; k < G_N_ELEMENTS(places); k++) {
        map(places[k], CODE_AT, 3);
        assert_int_equal(run_at(places[k]), LOOPS * 3 + 14);
        uint64_t now = counter("blocks");
        if (places[k] == LOW) {
            assert_true(now > blocks); /* its addresses are constants */
        } else if (k) {
            assert_int_equal(now, blocks);
        }
        blocks = now;
    }
}

/* Also where the code was before, in the jump cache's memory. */
static void a_write_is_seen_wherever_the_code_lies(void)
{
    ram->host[CODE_AT + 0x1002] = 8; /* add eax, 8 */
    ram_note_write(ram->host + CODE_AT + 0x1002, 1);
    assert_int_equal(run_at(ONE), LOOPS * 3 + 16);
    assert_int_equal(run_at(OTHER), LOOPS * 3 + 16);
    assert_int_equal(run_at(LOW), LOOPS * 3 + 16);
}

/* Code whose addresses reach as far as they can, at the borders of where code floats: no escape. */
static void far_addresses_fault(void)
{
    static const uint8_t code[][7] = {
        {0x8b, 0x05, 0, 0, 0, 0x80, 0xf4},          /* mov eax, [rip - 2 GiB] */
        {0x8b, 0x05, 0xff, 0xff, 0xff, 0x7f, 0xf4}, /* mov eax, [rip + 2 GiB - 1] */
        {0x89, 0x05, 0, 0, 0, 0x80, 0xf4},          /* the same, stores */
        {0x89, 0x05, 0xff, 0xff, 0xff, 0x7f, 0xf4}, {0xe9, 0, 0, 0, 0x80, 0xf4}, /* jmp */
        {0xe9, 0xff, 0xff, 0xff, 0x7f, 0xf4},       {0xe8, 0, 0, 0, 0x80, 0xf4}, /* call */
        {0xe8, 0xff, 0xff, 0xff, 0x7f, 0xf4},
    };
    static const uint64_t places[] = {
        UINT64_C(1) << 32,
        (UINT64_C(1) << 32) - 4096,
        (UINT64_C(1) << 47) - (UINT64_C(1) << 32),
        (UINT64_C(1) << 47) - (UINT64_C(1) << 32) - 4096,
        (UINT64_C(1) << 47) - 4096,
    };
    for (unsigned k = 0; k < G_N_ELEMENTS(places); k++) {
        map(places[k], FAR_AT, 1);
        for (unsigned n = 0; n < G_N_ELEMENTS(code); n++) {
            memcpy(ram->host + FAR_AT, code[n], sizeof(code[n]));
            ram_note_write(ram->host + FAR_AT, sizeof(code[n]));
            set_state(places[k]);
            assert_int_equal(cpu->engine->run(cpu), STOP_RESET); /* there are no handlers */
        }
    }
}

/* The memory that code is written to is never what it runs from. */
static void nothing_is_writable_and_executable(void)
{
    g_autofree char *maps = NULL;
    unsigned views = 0;
    assert_true(g_file_get_contents("/proc/self/maps", &maps, NULL, NULL));
    g_auto(GStrv) lines = g_strsplit(maps, "\n", -1);
    for (unsigned k = 0; lines[k]; k++) {
        uint64_t from, to;
        char rights[5];
        if (sscanf(lines[k], "%" SCNx64 "-%" SCNx64 " %4s", &from, &to, rights) == 3) {
            assert_false(rights[1] == 'w' && rights[2] == 'x');
            views += to - from == CACHE_BYTES && rights[3] == 's' &&
                     (rights[1] == 'w' || rights[2] == 'x');
        }
    }
    assert_int_equal(views, 2);
}

/* A page of jumps, each a block, fills the better part of a quarter of the cache. */
static void make_filler(uint64_t linear)
{
    for (unsigned k = 0; k < FILLER_PAGES; k++) {
        uint8_t *page = ram->host + FILLER_AT + k * 4096;
        for (unsigned at = 0; at < 4094; at += 2) {
            page[at] = 0xeb; /* jmp to what follows */
        }
        page[4094] = 0x0f;
        page[4095] = 0x05;
    }
    map(linear, FILLER_AT, FILLER_PAGES);
}

static void a_full_cache_keeps_what_is_new(void)
{
    const uint64_t filler = UINT64_C(0x7f0000000000);
    struct bt_cache_use before = bt_cache_use();
    uint64_t again = 0, size = 0;
    make_filler(filler);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned k = 0; k < FILLER_PAGES; k++) {
            run(filler + k * 4096);
            uint64_t blocks = counter("blocks");
            assert_int_equal(run_at(ONE), LOOPS * 3 + 16);
            uint64_t more = counter("blocks") - blocks;
            again += more != 0;
            size = MAX(size, more);
            assert_true(bt_cache_use().used <= CACHE_BYTES);
            assert_true(bt_cache_use().bytes <= CACHE_BYTES);
        }
    }
    uint64_t emptied = bt_cache_use().emptied - before.emptied;
    assert_true(emptied >= 8);
    assert_true(size > 0);             /* it was in the oldest quarter now and then, */
    assert_true(again <= emptied / 3); /* and stayed while others were emptied */
}

/* One after the other in one function: cmocka puts its own signal handlers in between. */
static void code_memory(void **state)
{
    (void)state;
    bt_hot = 0;
    bt_cache_bytes = CACHE_BYTES;
    make_machine();
    map(KERNEL, KERNEL_AT, 1);
    map(STACK, STACK_AT, 1);
    make_program();
    a_program_is_translated_once_wherever_it_lies();
    a_write_is_seen_wherever_the_code_lies();
    far_addresses_fault();
    nothing_is_writable_and_executable();
    a_full_cache_keeps_what_is_new();
    cpu->engine->detach(cpu);
    vcpu_remove(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
