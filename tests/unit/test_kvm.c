/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/lock.h"
#include "guest/cpu/debug.h"
#include "guest/cpu/engine.h"
#include "guest/cpu/kvm/kvm.h"
#include "guest/cpu/models.h"
#include "guest/memory/ram.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Whatever /dev/kvm this host has, or none: an answer comes soon, and a refusal says why. */
static void the_probe_decides_in_time(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    double start = seconds();
    bool works = cpu_engine_find("kvm")->probe(&error);
    double took = seconds() - start;
    if (!works) {
        assert_non_null(error);
        assert_non_null(strstr(error->message, "/dev/kvm"));
        print_message("%s\n", error->message);
    } else {
        assert_null(error);
    }
    assert_true(took < 1.0); /* 0.1 s where nobody else runs: make bench measures it */
    print_message("the probe took %.3f s\n", took);
}

/* ---- a machine of 1 MiB, in real mode, on whatever /dev/kvm there is ---- */

enum { RAM_BYTES = 1 << 20, CODE = 0x1000, DATA = 0x2000 };

/* again: nop * 6; inc byte [DATA]; jmp again */
static const uint8_t code[] = {0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
                               0xfe, 0x06, DATA & 0xff, DATA >> 8, 0xeb, 0xf4};
enum { AT_INC = CODE + 6, AT_JMP = CODE + 10 };

static struct ram *ram;
static struct vcpu *cpu;
static _Atomic int stopped;

static void on_stop(void *owner, struct vcpu *which, int stop)
{
    (void)owner;
    if (which->error) {
        print_message("%s\n", which->error->message);
    }
    stopped = stop;
}

static const struct vcpu_board board = {0};

static int make_machine(void **state)
{
    static struct region region;
    (void)state;
    struct space *memory = space_new("memory", 1ull << 40), *ports = space_new("ports", 1 << 16);
    ram = ram_new("ram", RAM_BYTES, NULL, NULL);
    region = (struct region){.name = "ram", .size = RAM_BYTES, .ram = ram};
    space_place(memory, &region, 0, 0);
    memcpy(ram->host + CODE, code, sizeof(code));
    static const struct cpu_topology topology = {1, 1, 1, 1};
    struct cpu_model *model = cpu_model_new("qemu64", "kvm", &topology, NULL);
    cpu = vcpu_new(0, 0, cpu_engine_find("kvm"), model, &board, memory, NULL, ports, NULL);
    vcpus_on_stop(on_stop, NULL);
    return !cpu;
}

static int end_machine(void **state)
{
    (void)state;
    if (cpu) {
        vcpus_exit();
    }
    return 0;
}

/* Without KVM the engine cannot be tried here; inside an emulated machine it is: check-kvm. */
static void need_kvm(void)
{
    if (kvm_fd() < 0) {
        print_message("there is no /dev/kvm\n");
        skip();
    }
}

static void run_until_stopped(void)
{
    double end = seconds() + 20;
    stopped = -1;
    vcpus_resume();
    while (stopped < 0 && seconds() < end) {
        usleep(1000);
    }
    vcpus_pause();
}

static void start_over(void)
{
    debug_clear_points();
    vcpu_reset(cpu, false);
    cpu->r.seg[SEG_CS].base = cpu->r.seg[SEG_CS].selector = 0;
    cpu->r.rip = CODE;
    cpu->watched = cpu->single_step = false;
}

static void points_stop_the_guest(void **state)
{
    (void)state;
    need_kvm();
    assert_true(kvm_open(NULL));
    start_over();
    assert_true(debug_add_point(GDB_EXECUTE, AT_INC, 1));
    run_until_stopped();
    assert_int_equal(stopped, STOP_DEBUG);
    assert_int_equal(cpu->r.rip, AT_INC);
    assert_int_equal(ram->host[DATA], 0);

    start_over();
    cpu->single_step = true;
    run_until_stopped();
    assert_int_equal(stopped, STOP_DEBUG);
    assert_int_equal(cpu->r.rip, CODE + 1);
}

static void watchpoints_stop_the_guest(void **state)
{
    (void)state;
    need_kvm();
    if (!cpu_engine_find("kvm")->probe(NULL)) {
        print_message("this /dev/kvm emulates instructions, and not their watchpoints\n");
        skip();
    }
    assert_true(kvm_open(NULL));
    start_over();
    assert_true(debug_add_point(GDB_WRITE, DATA, 1));
    run_until_stopped();
    assert_int_equal(stopped, STOP_DEBUG);
    assert_true(cpu->watched);
    assert_int_equal(cpu->watch_hit, DATA);
    assert_int_equal(cpu->r.rip, AT_JMP);
}

static void points_beyond_the_registers_are_int3(void **state)
{
    (void)state;
    need_kvm();
    assert_true(kvm_open(NULL));
    start_over();
    for (unsigned i = 0; i < 6; i++) {
        assert_true(debug_add_point(GDB_EXECUTE, CODE + i, 1));
    }
    assert_true(debug_add_point(GDB_WRITE, DATA, 4)); /* takes a register from a breakpoint */
    debug_patch();
    static const uint8_t patched[] = {0x90, 0x90, 0x90, 0xcc, 0xcc, 0xcc, 0xfe};
    assert_memory_equal(ram->host + CODE, patched, sizeof(patched));
    ram->host[CODE + 4] = 0xf4; /* the guest's new code stays */
    debug_unpatch();
    static const uint8_t clean[] = {0x90, 0x90, 0x90, 0x90, 0xf4, 0x90, 0xfe};
    assert_memory_equal(ram->host + CODE, clean, sizeof(clean));
    memcpy(ram->host + CODE, code, sizeof(code));

    for (unsigned i = 1; i < 4; i++) {
        assert_true(debug_add_point(GDB_ACCESS, DATA + 8 * i, 8));
    }
    assert_false(debug_add_point(GDB_WRITE, DATA + 64, 1)); /* a fifth watchpoint */
    debug_clear_points();
    assert_false(debug_add_point(GDB_WRITE, DATA, 3));
    assert_false(debug_add_point(GDB_WRITE, DATA + 1, 2));
}

/* Each pause has to get the vCPU out of the guest, wherever it is just then. */
static void pauses_come_through(void **state)
{
    (void)state;
    need_kvm();
    start_over();
    stopped = -1;
    for (unsigned i = 0; i < 2000; i++) {
        vcpus_resume();
        if (i % 3) {
            usleep(i % 7 * 10);
        }
        vcpus_pause();
    }
    assert_int_equal(stopped, -1);
    assert_in_range(cpu->r.rip, CODE, CODE + sizeof(code) - 1);
}

static void the_log_knows_what_was_written(void **state)
{
    (void)state;
    need_kvm();
    static uint64_t dirty[RAM_BYTES >> PAGE_BITS >> 6];
    start_over();
    vcpus_resume();
    usleep(1000);
    vcpus_pause();
    ram_collect_dirty(ram, 0, RAM_BYTES, PAGE_CLEAN_LOG, dirty); /* starts the log: all */
    memset(dirty, 0, sizeof(dirty));
    for (unsigned turn = 0; turn < 200 && !dirty[0]; turn++) { /* a busy host may take long */
        vcpus_resume();
        usleep(20000);
        vcpus_pause();
        ram_collect_dirty(ram, 0, RAM_BYTES, PAGE_CLEAN_LOG, dirty);
    }
    assert_int_equal(dirty[0], 1u << (DATA >> PAGE_BITS));
    for (unsigned i = 1; i < G_N_ELEMENTS(dirty); i++) {
        assert_int_equal(dirty[i], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_probe_decides_in_time),
        cmocka_unit_test(points_stop_the_guest),
        cmocka_unit_test(watchpoints_stop_the_guest),
        cmocka_unit_test(points_beyond_the_registers_are_int3),
        cmocka_unit_test(pauses_come_through),
        cmocka_unit_test(the_log_knows_what_was_written),
    };
    return cmocka_run_group_tests(tests, make_machine, end_machine);
}
