/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "guest/machine/tables.h"

#include <glib/gstdio.h>
#include <string.h>

static const uint32_t ids[4] = {0, 1, 4, 300};
static const uint64_t base = 0x7fe0000;

static struct pc_layout layout(bool q35)
{
    return (struct pc_layout){.q35 = q35, .cpus = 2, .maxcpus = 4, .apic_id = ids,
        .ram_below_4g = 128 << 20, .ecam_at = q35 ? 0xb0000000 : 0,
        .ecam_bytes = q35 ? 256 << 20 : 0, .hole64_at = UINT64_C(1) << 35,
        .hole64_bytes = UINT64_C(1) << 35, .hpet = true, .serial = {true}, .parallel = true,
        .floppy = true, .keyboard = true, .fw_cfg = true, .s3 = true, .s4 = true};
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
        g_autofree char *command =
            g_strdup_printf("sh -c '%s -d %s && %s -oa -p %s/again %s'", iasl, file, iasl, dir,
                            source);
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
        cmocka_unit_test(the_loader_script_has_a_step_for_each_link),
        cmocka_unit_test(iasl_reads_the_dsdt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
