/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/bad_image.h"

static const struct bad_format vdi = {.name = "vdi"};

static const struct row rows[] = {
    {"signature", NULL, "bad signature 00000001", {{0x40, 4, 1}}},
    {"version 1.0", NULL, "version 1.0", {{0x44, 4, 0x10000}}},
    {"version 2.1", NULL, "version 2.1", {{0x44, 4, 0x20001}}},
    {"type 0", NULL, "type 0", {{0x4c, 4, 0}}},
    {"undo image", NULL, "type 3", {{0x4c, 4, 3}}},
    {"differencing image", NULL, "type 4", {{0x4c, 4, 4}}},
    {"type 5", NULL, "type 5", {{0x4c, 4, 5}}},
    {"table not aligned", NULL, "unaligned block map offset 0x201", {{0x154, 4, 0x201}}},
    {"table in the header", NULL, "block map offset 0x0", {{0x154, 4, 0}}},
    {"table behind the end", NULL, "unaligned data offset 0x100000", {{0x154, 4, 0x40000000}}},
    {"data not aligned", NULL, "unaligned data offset 0x100001", {{0x158, 4, 0x100001}}},
    {"data before the table", NULL, "data offset 0x0", {{0x158, 4, 0}}},
    {"data on the table", NULL, "behind the start of the data at 512", {{0x158, 4, 512}}},
    {"sector size", NULL, "sector size 4096 is not 512", {{0x168, 4, 4096}}},
    {"block size 0", NULL, "block size 0 is not 1048576", {{0x178, 4, 0}}},
    {"block size 2 MiB", NULL, "block size 2097152 is not", {{0x178, 4, 2 << 20}}},
    {"extra bytes a block", NULL, "extra block data 16", {{0x17c, 4, 16}}},
    {"disk of 2^63", NULL, "disk size 9223372036854775808", {{0x170, 8, UINT64_C(1) << 63}}},
    {"disk larger than blocks", NULL, "disk size 8388609", {{0x170, 8, BAD_SIZE + 1}}},
    {"too many blocks", NULL, "too many blocks 536870785", {{0x180, 4, 0x1fffff81}}},
    {"2^32 - 1 blocks", NULL, "too many blocks 4294967295", {{0x180, 4, 0xffffffff}}},
    {"table larger than the file", NULL, "block map of 536870784 entries", {{0x180, 4, 0x1fffff80}}},
    {"link UUID", NULL, "non-NULL link UUID", {{0x1a8, 8, 1}}},
    {"parent UUID", NULL, "names a parent", {{0x1c0, 8, 1}}},
    {"cut in the header", NULL, "cannot read the VDI header", {{0}}, false, 511},
    {"cut in the table", NULL, "the file at 520", {{0}}, false, 520},
};

static void each_bad_header_is_refused_by_name(void **state)
{
    (void)state;
    refuse_rows(&vdi, rows, G_N_ELEMENTS(rows));
}

static void tables_that_lie_are_found(void **state)
{
    static const struct change lies[] = {{512, 4, 100}, {512, 4, 1}, {512, 4, 0xfffffffd}};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(lies); i++) {
        GByteArray *image = sound_image("vdi", NULL);
        fill_image(image, "vdi", 3);
        assert_int_equal(corruptions_of(image, "vdi"), 0);
        change_bytes(image, &lies[i], false);
        assert_int_equal(corruptions_of(image, "vdi"), 1);
        assert_int_equal(read_of(image, "vdi"), lies[i].value > 2 ? -EIO : 0);
        g_byte_array_unref(image);
    }
}

/* A new block never goes where a table entry points already, whatever the header counts. */
static void a_header_that_counts_too_little_costs_nothing(void **state)
{
    static const struct change lie = {0x184, 4, 0};
    (void)state;
    g_autoptr(GError) error = NULL;
    GByteArray *image = sound_image("vdi", NULL);
    uint8_t buf[512] = {99};
    fill_image(image, "vdi", 3);
    change_bytes(image, &lie, false);
    struct node *n = open_bytes(image, "vdi", 0, &error);
    assert_int_equal(chain_write(n, 5 << 20, buf, sizeof(buf)), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(chain_read(n, (uint64_t)i << 20, buf, sizeof(buf)), 0);
        assert_int_equal(buf[0], i + 1);
    }
    chain_close(n);
    assert_int_equal(corruptions_of(image, "vdi"), 0);
    g_byte_array_unref(image);
}

/* Places that are counted and that no entry names: check -r leaks gives them back. */
static void leaks_are_repaired(void **state)
{
    static const struct change drop = {512 + 4, 4, 0xffffffff};
    (void)state;
    g_autoptr(GError) error = NULL;
    GByteArray *image = sound_image("vdi", NULL);
    struct check_result out = {0}, again = {0};
    uint8_t buf[512];
    fill_image(image, "vdi", 4);
    guint before = image->len;
    change_bytes(image, &drop, false);
    struct node *n = open_bytes(image, "vdi", OPEN_CHECK, &error);
    assert_works(n->format->tools->check(n, FIX_LEAKS, &out, &error), error);
    assert_int_equal(out.leaks_fixed, 1);
    assert_works(n->format->tools->check(n, FIX_NOTHING, &again, &error), error);
    assert_int_equal(again.leaks + again.corruptions, 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(chain_read(n, (uint64_t)i << 20, buf, sizeof(buf)), 0);
        assert_int_equal(buf[0], i == 1 ? 0 : i + 1);
    }
    chain_close(n);
    assert_int_equal(before - image->len, 1 << 20);
    g_byte_array_unref(image);
}

static void a_file_cut_off_anywhere_does_no_harm(void **state)
{
    (void)state;
    cut_anywhere("vdi", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bad_header_is_refused_by_name),
        cmocka_unit_test(tables_that_lie_are_found),
        cmocka_unit_test(a_header_that_counts_too_little_costs_nothing),
        cmocka_unit_test(leaks_are_repaired),
        cmocka_unit_test(a_file_cut_off_anywhere_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
