/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "guest/cpu/engine.h"
#include "guest/cpu/models.h"
#include "guest/cpu/paging.h"
#include "guest/cpu/regs.h"
#include "guest/cpu/tlb.h"
#include "guest/cpu/vcpu.h"

#include <glib.h>
#include <string.h>

static struct space *memory, *ports;
static struct ram *ram;
static struct vcpu *cpu;

static int setup(void **state)
{
    static struct region r;
    struct cpu_topology topology = {1, 1, 2, 2};
    (void)state;
    memory = space_new("memory", UINT64_C(1) << 40);
    ports = space_new("ports", 1 << 16);
    ram = ram_new("ram", 4 << 20, NULL, NULL);
    r = (struct region){.name = "ram", .size = 4 << 20, .ram = ram};
    space_place(memory, &r, 0, 0);
    struct cpu_model *model = cpu_model_new("max", "interp", &topology, NULL);
    cpu = vcpu_new(0, 0, cpu_engine_find("interp"), model, NULL, memory, NULL, ports, NULL);
    cpu->tlb = tlb_new(NULL);
    return cpu && cpu->tlb ? 0 : -1;
}

static int finish(void **state)
{
    (void)state;
    vcpu_remove(cpu);
    return 0;
}

static void put64(uint64_t at, uint64_t v)
{
    memcpy(ram->host + at, &v, 8);
}

/* Four levels from 0x1000 on; linear 0x200000 is page 0x10000. */
static void make_long_mode(void)
{
    memset(ram->host, 0, 0x20000);
    put64(0x1000, 0x2000 | 7);
    put64(0x2000, 0x3000 | 7);
    put64(0x3000, 0x00000 | 0x87);
    put64(0x3008, 0x4000 | 7);
    put64(0x4000, 0x10000 | 3);
    cpu->r.cr0 = CR0_PE | CR0_PG | CR0_WP;
    cpu->r.cr3 = 0x1000;
    cpu->r.cr4 = CR4_PAE | CR4_PGE;
    cpu->r.efer = EFER_LME | EFER_LMA | EFER_NXE;
    cpu->r.seg[SEG_CS].attr = 0xa09b;
    cpu->r.seg[SEG_SS].attr = 0xc093;
    tlb_flush(cpu, true);
}

static void a_walk_sets_accessed_and_dirty(void **state)
{
    struct translation t;
    uint32_t code = 0;
    (void)state;
    make_long_mode();
    assert_int_equal(paging_walk(cpu, 0x200123, ACCESS_READ, true, &t, &code), 0);
    assert_int_equal(ram->host[0x4000], 3);
    assert_int_equal(paging_walk(cpu, 0x200123, ACCESS_READ, false, &t, &code), 0);
    assert_int_equal(t.gpa, 0x10123);
    assert_int_equal(ram->host[0x4000], 0x23);
    assert_int_equal(ram->host[0x1000], 0x27);
    assert_int_equal(paging_walk(cpu, 0x200123, ACCESS_WRITE, false, &t, &code), 0);
    assert_int_equal(ram->host[0x4000], 0x63);
    assert_int_equal(ram->host[0x3008], 0x27);
}

static void a_walk_tells_why_it_faults(void **state)
{
    struct translation t;
    uint32_t code = 0;
    (void)state;
    make_long_mode();
    assert_int_equal(paging_walk(cpu, 0x200000, ACCESS_READ | ACCESS_USER, false, &t, &code), -1);
    assert_int_equal(code, 5);
    assert_int_equal(paging_walk(cpu, 0x201000, ACCESS_WRITE, false, &t, &code), -1);
    assert_int_equal(code, 2);
    put64(0x4000, UINT64_C(1) << 51 | 0x10003);
    assert_int_equal(paging_walk(cpu, 0x200000, ACCESS_READ, false, &t, &code), -1);
    assert_int_equal(code, 9);
    put64(0x4000, UINT64_C(1) << 63 | 0x10003);
    assert_int_equal(paging_walk(cpu, 0x200000, ACCESS_FETCH, false, &t, &code), -1);
    assert_int_equal(code, 0x11);
}

static void a_structure_outside_memory_reads_as_ones(void **state)
{
    struct translation t;
    uint32_t code = 0;
    (void)state;
    make_long_mode();
    cpu->r.cr3 = UINT64_C(1) << 38;
    assert_int_equal(paging_walk(cpu, 0, ACCESS_READ, false, &t, &code), -1);
    assert_int_equal(code, 9);
}

static void fills_are_found_and_flushed(void **state)
{
    struct tlb_result r;
    uint32_t code;
    (void)state;
    make_long_mode();
    assert_null(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, false, 0x200008));
    assert_int_equal(tlb_fill(cpu, TLB_KERNEL_AC, 0x200008, ACCESS_READ, &r, &code), 0);
    assert_ptr_equal(r.host, ram->host + 0x10008);
    assert_ptr_equal(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, false, 0x200010), ram->host + 0x10010);
    assert_null(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, true, 0x200010)); /* D is not set */
    assert_int_equal(tlb_fill(cpu, TLB_KERNEL_AC, 0x200008, ACCESS_WRITE, &r, &code), 0);
    assert_ptr_equal(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, true, 0x200010), ram->host + 0x10010);
    tlb_drop_writes(cpu, ram->host + 0x10000);
    assert_null(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, true, 0x200010));
    assert_non_null(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, false, 0x200010));
    tlb_flush_page(cpu, 0x200fff);
    assert_null(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, false, 0x200010));
}

static void global_pages_survive_cr3(void **state)
{
    struct tlb_result r;
    uint32_t code;
    (void)state;
    make_long_mode();
    put64(0x4000, 0x10103);
    assert_int_equal(tlb_fill(cpu, TLB_KERNEL_AC, 0x200000, ACCESS_READ, &r, &code), 0);
    assert_int_equal(tlb_fill(cpu, TLB_KERNEL_AC, 0x5000, ACCESS_READ, &r, &code), 0);
    tlb_flush(cpu, false);
    assert_non_null(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, false, 0x200000));
    assert_null(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, false, 0x5000));
    tlb_flush(cpu, true);
    assert_null(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, false, 0x200000));
}

static void invlpg_drops_a_whole_large_page(void **state)
{
    struct tlb_result r;
    uint32_t code;
    (void)state;
    make_long_mode();
    assert_int_equal(tlb_fill(cpu, TLB_KERNEL_AC, 0x5000, ACCESS_READ, &r, &code), 0);
    tlb_flush_page(cpu, 0x1ff000);
    assert_null(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, false, 0x5000));
}

static void pages_with_flags_have_no_direct_write_path(void **state)
{
    struct tlb_result r;
    uint32_t code;
    (void)state;
    make_long_mode();
    ram_flags_set(ram->host + 0x10000, PAGE_CLEAN_LOG);
    assert_int_equal(tlb_fill(cpu, TLB_KERNEL_AC, 0x200000, ACCESS_WRITE, &r, &code), 0);
    assert_true(r.note);
    assert_null(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, true, 0x200000));
    ram_note_write(r.host, 1);
    assert_int_equal(tlb_fill(cpu, TLB_KERNEL_AC, 0x200000, ACCESS_WRITE, &r, &code), 0);
    assert_false(r.note);
    assert_non_null(tlb_lookup(cpu->tlb, TLB_KERNEL_AC, true, 0x200000));
}

static void a_sparse_guest_stays_within_bounds(void **state)
{
    struct tlb_result r;
    uint32_t code;
    (void)state;
    cpu->r.cr0 = CR0_PE; /* no paging: every address is mapped */
    tlb_flush(cpu, true);
    for (uint64_t i = 0; i < 5000; i++) {
        tlb_fill(cpu, TLB_USER, i << 21 & 0x3fffff, ACCESS_READ, &r, &code);
        tlb_fill(cpu, TLB_USER, (i * 0x10000000) & 0x7fffffffffff, ACCESS_READ, &r, &code);
    }
    assert_true(cpu->tlb->pages_touched <= 4096);
    vcpu_reset(cpu, false);
    tlb_flush(cpu, true);
}

static void a_state_comes_back(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    for (unsigned i = 0; i < n_cpu_regs; i++) {
        memset((uint8_t *)&cpu->r + cpu_regs[i].at, (int)i + 1, cpu_regs[i].bytes);
    }
    cpu->r.in_smm = 0;
    g_autoptr(GBytes) saved = vcpu_save(cpu);
    vcpu_reset(cpu, false);
    assert_works(vcpu_load(cpu, saved, &error), error);
    g_autoptr(GBytes) again = vcpu_save(cpu);
    assert_true(g_bytes_equal(saved, again));

    gsize n;
    const uint8_t *data = g_bytes_get_data(saved, &n);
    g_autoptr(GBytes) cut = g_bytes_new(data, n - 1);
    assert_fails(vcpu_load(cpu, cut, &error), error, EINVAL);
    g_autofree uint8_t *copy = g_memdup2(data, n);
    copy[1] ^= 1;
    g_autoptr(GBytes) odd = g_bytes_new(copy, n);
    assert_fails(vcpu_load(cpu, odd, &error), error, EINVAL);
    g_autoptr(GBytes) none = g_bytes_new(data, 0);
    assert_fails(vcpu_load(cpu, none, &error), error, EINVAL);
    vcpu_reset(cpu, false);
    vcpus_set_a20(true);
}

static void models_are_parsed(void **state)
{
    g_autoptr(GError) error = NULL;
    struct cpu_topology topology = {1, 1, 1, 1};
    (void)state;
    struct cpu_model *m =
        cpu_model_new("qemu64,+ssse3,-cx16,tsc_adjust=off", "interp", &topology, &error);
    assert_works(m != NULL, error);
    assert_true(cpu_model_has(m, "ssse3"));
    assert_false(cpu_model_has(m, "cx16"));
    assert_false(cpu_model_has(m, "tsc-adjust"));
    assert_true(cpu_model_has(m, "nx"));
    assert_int_equal(cpu_signature(m), 0x00060fb1);
    g_free(m);
    assert_fails(cpu_model_new("nonsense", "interp", &topology, &error), error, EINVAL);
    assert_fails(cpu_model_new("max,+nonsense", "interp", &topology, &error), error, EINVAL);
    assert_fails(cpu_model_new("max,+svm,enforce", "interp", &topology, &error), error, ENOTSUP);
    m = cpu_model_new("max,+svm", "bt", &topology, &error);
    assert_works(m != NULL, error);
    assert_string_equal(m->missing, "svm");
    g_free(m);
}

static void cpuid_shows_the_topology(void **state)
{
    (void)state;
    struct cpuid_regs r = cpu_cpuid(cpu, 0xb, 0);
    assert_int_equal(r.eax, 1);
    assert_int_equal(r.ebx, 2);
    r = cpu_cpuid(cpu, 0xb, 1);
    assert_int_equal(r.eax, 2);
    assert_int_equal(r.ebx, 4);
    r = cpu_cpuid(cpu, 1, 0);
    assert_int_equal(r.ebx >> 16 & 0xff, 4);
    assert_true(r.edx >> 28 & 1);
    r = cpu_cpuid(cpu, 0x40000000, 0);
    assert_int_equal(r.ebx, 0x4b4d564b);
}

static void caches_may_end_with_the_second(void **state)
{
    (void)state;
    static const char *const models[] = {"qemu64,+topoext", "Haswell", "qemu64,+topoext,l3-cache=off",
                                         "Haswell,l3-cache=off"};
    for (unsigned i = 0; i < G_N_ELEMENTS(models); i++) {
        struct cpu_topology topology = {1, 1, 1, 1};
        g_autoptr(GError) error = NULL;
        struct cpu_model *m = cpu_model_new(models[i], "interp", &topology, &error);
        struct vcpu one = {.model = m};
        assert_works(m != NULL, error);
        bool amd = i % 2 == 0, third = i < 2;
        uint32_t leaf = amd ? 0x8000001d : 4;
        assert_int_not_equal(cpu_cpuid(&one, leaf, 2).eax, 0);
        assert_int_equal(cpu_cpuid(&one, leaf, 3).eax != 0, third);
        if (amd) {
            assert_int_equal(cpu_cpuid(&one, 0x80000006, 0).edx != 0, third);
        }
        g_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_walk_sets_accessed_and_dirty),
        cmocka_unit_test(a_walk_tells_why_it_faults),
        cmocka_unit_test(a_structure_outside_memory_reads_as_ones),
        cmocka_unit_test(fills_are_found_and_flushed),
        cmocka_unit_test(global_pages_survive_cr3),
        cmocka_unit_test(invlpg_drops_a_whole_large_page),
        cmocka_unit_test(pages_with_flags_have_no_direct_write_path),
        cmocka_unit_test(a_sparse_guest_stays_within_bounds),
        cmocka_unit_test(a_state_comes_back),
        cmocka_unit_test(models_are_parsed),
        cmocka_unit_test(cpuid_shows_the_topology),
        cmocka_unit_test(caches_may_end_with_the_second),
    };
    return cmocka_run_group_tests(tests, setup, finish);
}
