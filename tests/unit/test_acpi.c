/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "guest/machine/numa.h"
#include "guest/machine/tables.h"

#include <glib/gstdio.h>
#include <string.h>

static const uint32_t ids[4] = {0, 1, 4, 300};
static const uint64_t base = 0x7fe0000;

/* Behind slot 3 of the root, and in turn behind slot 31 there. */
static const struct hot_bus hot_buses[3] = {{-1, 0, 0xf0}, {0, 0x18, 0x7fffffff}, {1, 0xf9, 3}};

static struct pc_layout layout(bool q35)
{
    return (struct pc_layout){.q35 = q35,
                              .cpus = 2,
                              .maxcpus = 4,
                              .apic_id = ids,
                              .ram_below_4g = 128 << 20,
                              .ecam_at = q35 ? 0xb0000000 : 0,
                              .ecam_bytes = q35 ? 256 << 20 : 0,
                              .hole64_at = UINT64_C(1) << 35,
                              .hole64_bytes = UINT64_C(1) << 35,
                              .hpet = true,
                              .serial = {true},
                              .parallel = true,
                              .floppy = true,
                              .keyboard = true,
                              .fw_cfg = true,
                              .panic_port = 0x505,
                              .s3 = true,
                              .s4 = true,
                              .cpus_port = 0xaf00,
                              .dimm_slots = 3,
                              .hot_buses = hot_buses,
                              .n_hot_buses = 3,
                              .pcihp_port = 0xae00};
}

static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t v = 0;
    while (n--) {
        v = (uint8_t)(v + *p++);
    }
    return v;
}

/* The table that the XSDT names @signature; checks its checksum. */
static const uint8_t *table(const struct acpi_tables *t, const char *signature)
{
    const uint8_t *rsdp = t->rsdp->data;
    assert_int_equal(sum(rsdp, 20), 0);
    assert_int_equal(sum(rsdp, 36), 0);
    const uint8_t *xsdt = t->tables->data + (le64_at(rsdp + 24) - base);
    for (unsigned at = 36; at < le32_at(xsdt + 4); at += 8) {
        const uint8_t *p = t->tables->data + (le64_at(xsdt + at) - base);
        assert_int_equal(sum(p, le32_at(p + 4)), 0);
        if (memcmp(p, signature, 4) == 0) {
            return p;
        }
    }
    return NULL;
}

static void linked_tables_are_found_and_sum_to_zero(void **state)
{
    (void)state;
    for (unsigned q35 = 0; q35 < 2; q35++) {
        struct pc_layout pc = layout(q35);
        struct acpi_tables *t = acpi_tables_new(&pc);
        acpi_install(t, base, 0xf0000);
        const uint8_t *fadt = table(t, "FACP");
        assert_non_null(fadt);
        assert_int_equal(le32_at(fadt + 4), 244);
        assert_int_equal((le32_at(fadt + 36) - base) % 64, 0);
        assert_memory_equal(t->tables->data + (le32_at(fadt + 36) - base), "FACS", 4);
        const uint8_t *dsdt = t->tables->data + (le32_at(fadt + 40) - base);
        assert_memory_equal(dsdt, "DSDT", 4);
        assert_int_equal(sum(dsdt, le32_at(dsdt + 4)), 0);
        assert_int_equal(le64_at(fadt + 140), le32_at(fadt + 40));
        assert_true(!!table(t, "MCFG") == q35);
        assert_non_null(table(t, "HPET"));
        acpi_tables_free(t);
    }
}

static void possible_processors_are_listed_but_not_enabled(void **state)
{
    (void)state;
    struct pc_layout pc = layout(false);
    struct acpi_tables *t = acpi_tables_new(&pc);
    acpi_install(t, base, 0xf0000);
    const uint8_t *madt = table(t, "APIC");
    unsigned enabled = 0, possible = 0;
    for (unsigned at = 44; at < le32_at(madt + 4); at += madt[at + 1]) {
        if (madt[at] == 0 || madt[at] == 9) {
            uint32_t flags = le32_at(madt + at + (madt[at] ? 8 : 4));
            enabled += flags & 1;
            possible += flags >> 1 & 1;
            assert_int_equal(madt[at] ? le32_at(madt + at + 4) : madt[at + 3],
                             ids[enabled + possible - 1]);
        }
    }
    assert_int_equal(enabled, 2);
    assert_int_equal(possible, 2);
    /* Those that are there change, the checksum stays right. */
    acpi_tables_cpus(t, t->tables->data, (const bool[]){true, false, true, true});
    madt = table(t, "APIC");
    assert_int_equal(le32_at(madt + 44 + 4), 1);
    assert_int_equal(le32_at(madt + 52 + 4), 2);
    assert_int_equal(le32_at(madt + 60 + 4), 1);
    assert_int_equal(madt[68], 9);
    assert_int_equal(le32_at(madt + 68 + 8), 1);
    acpi_tables_free(t);
}

/* Node 0 ends below the hole at 4 GiB, node 1 goes on behind it; node 2 has no memory. */
static void nodes_have_their_processors_memory_and_distances(void **state)
{
    (void)state;
    static const uint8_t cpu_node[4] = {0, 1, 2, 1};
    static const uint64_t mb = 1 << 20;
    static const struct {
        uint64_t at, bytes;
        unsigned node;
    } expected[] = {{0, 640 << 10, 0},
                    {mb, 999 * mb, 0},
                    {1000 * mb, 2072 * mb, 1},
                    {UINT64_C(1) << 32, 1024 * mb, 1},
                    {8192 * mb, 5120 * mb, 2}};
    struct numa numa = {.nodes = 3,
                        .bytes = {1000 * mb, 3096 * mb},
                        .cpu_node = (uint8_t *)cpu_node,
                        .has_distances = true,
                        .distance = {{10, 20, 30}, {21, 10, 40}, {31, 41, 10}}};
    struct pc_layout pc = layout(false);
    pc.ram_below_4g = 3072 * mb;
    pc.ram_above_4g = 1024 * mb;
    pc.numa = &numa;
    pc.dimm_at = UINT64_C(8) << 30;
    pc.dimm_bytes = UINT64_C(5) << 30;
    struct acpi_tables *t = acpi_tables_new(&pc);
    acpi_install(t, base, 0xf0000);
    const uint8_t *srat = table(t, "SRAT"), *slit = table(t, "SLIT");
    unsigned cpus = 0, ranges = 0;
    assert_non_null(srat);
    assert_non_null(slit);
    for (unsigned at = 48; at < le32_at(srat + 4); at += srat[at + 1]) {
        const uint8_t *p = srat + at;
        if (p[0] == 1) {
            assert_int_equal(p[1], 40);
            assert_int_equal(le32_at(p + 2), expected[ranges].node);
            assert_int_equal(le64_at(p + 8), expected[ranges].at);
            assert_int_equal(le64_at(p + 16), expected[ranges].bytes);
            assert_int_equal(le32_at(p + 28), ranges == 4 ? 3 : 1); /* modules come and go */
            ranges++;
        } else {
            assert_int_equal(p[0], ids[cpus] < 255 ? 0 : 2);
            assert_int_equal(p[1], p[0] ? 24 : 16);
            assert_int_equal(p[0] ? le32_at(p + 8) : p[3], ids[cpus]);
            assert_int_equal(p[0] ? le32_at(p + 4) : p[2], cpu_node[cpus]);
            assert_int_equal(le32_at(p + (p[0] ? 12 : 4)), 1);
            cpus++;
        }
    }
    assert_int_equal(cpus, 4);
    assert_int_equal(ranges, G_N_ELEMENTS(expected));
    assert_int_equal(le64_at(slit + 36), 3);
    assert_int_equal(le32_at(slit + 4), 44 + 9);
    assert_memory_equal(slit + 44, "\x0a\x14\x1e\x15\x0a\x28\x1f\x29\x0a", 9);
    acpi_tables_free(t);
}

static void the_loader_script_has_a_step_for_each_link(void **state)
{
    (void)state;
    struct pc_layout pc = layout(true);
    struct acpi_tables *t = acpi_tables_new(&pc);
    GByteArray *script = acpi_loader_script(t);
    assert_int_equal(script->len, t->links->len * 128);
    assert_int_equal(le32_at(script->data), LINK_ALLOCATE);
    assert_string_equal((char *)script->data + 4, ACPI_TABLES_FILE);
    assert_int_equal(le32_at(script->data + 60), 64);
    g_byte_array_unref(script);
    acpi_tables_free(t);
}

/* Intel's compiler reads our AML back; a warning about what it cannot resolve is a bug. */
static void iasl_reads_the_dsdt(void **state)
{
    (void)state;
    g_autofree char *iasl = g_find_program_in_path("iasl");
    assert_non_null(iasl); /* package acpica-tools; make check installs it */
    for (unsigned q35 = 0; q35 < 2; q35++) {
        struct pc_layout pc = layout(q35);
        struct acpi_tables *t = acpi_tables_new(&pc);
        g_autoptr(GError) error = NULL;
        g_autofree char *dir = g_dir_make_tmp("lodge-acpi-XXXXXX", &error);
        g_autofree char *file = g_build_filename(dir, "dsdt.aml", NULL);
        g_autofree char *source = g_build_filename(dir, "dsdt.dsl", NULL);
        g_autofree char *made = g_build_filename(dir, "again.aml", NULL);
        g_autofree char *command = g_strdup_printf("sh -c '%s -d %s && %s -oa -p %s/again %s'",
                                                   iasl, file, iasl, dir, source);
        g_autofree char *out = NULL, *err = NULL;
        int status;
        acpi_install(t, base, 0xf0000);
        const uint8_t *dsdt = t->tables->data + 64;
        assert_true(g_file_set_contents(file, (const char *)dsdt, le32_at(dsdt + 4), &error));
        assert_true(g_spawn_command_line_sync(command, &out, &err, &status, &error));
        if (status || !strstr(out, " 0 Errors")) {
            fail_msg("iasl: %s%s", out, err);
        }
        g_remove(file);
        g_remove(source);
        g_remove(made);
        g_rmdir(dir);
        acpi_tables_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linked_tables_are_found_and_sum_to_zero),
        cmocka_unit_test(possible_processors_are_listed_but_not_enabled),
        cmocka_unit_test(nodes_have_their_processors_memory_and_distances),
        cmocka_unit_test(the_loader_script_has_a_step_for_each_link),
        cmocka_unit_test(iasl_reads_the_dsdt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
