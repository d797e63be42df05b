/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/bad_image.h"

#include "base/bytes.h"

static void seal_one(uint8_t *p, size_t n, size_t at)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += i >= at && i < at + 4 ? 0 : p[i];
    }
    be32_put(p + at, ~sum);
}

/* Of a dynamic disk, or of a fixed one, which has its footer at the end only. */
static void seal(GByteArray *image)
{
    if (image->len == BAD_SIZE + 512 && image->data[0] == 0 && image->data[512] == 0) {
        seal_one(image->data + BAD_SIZE, 512, 64);
        return;
    }
    seal_one(image->data, 512, 64);
    seal_one(image->data + 512, 1024, 36);
}

static const struct bad_format vpc = {.name = "vpc", .big_endian = true, .seal = seal};

enum { HEADER = 512, TABLE = 1536 };
#define EXACT "force_size=on"

static const struct row rows[] = {
    {"footer checksum", NULL, "Incorrect header checksum 0x00000000", {{64, 4, 0}}, true},
    {"footer only at the end", NULL, "disk type 3 with the footer only at the end", {{0, 1, 0}}},
    {"differencing", NULL, "differencing VHD (type 4)", {{60, 4, 4}}},
    {"type 0", NULL, "disk type 0", {{60, 4, 0}}},
    {"type 2 in front", NULL, "disk type 2", {{60, 4, 2}}},
    {"type 99", NULL, "disk type 99", {{60, 4, 99}}},
    {"size 0", EXACT, "a disk of 0 sectors", {{48, 8, 0}}},
    {"size 2^63", EXACT, "a disk of 18014398509481984 sectors", {{48, 8, UINT64_C(1) << 63}}},
    {"geometry 0", NULL, "a disk of 0 sectors (geometry 0/", {{56, 2, 0}}},
    {"header behind the end", NULL, "cannot read the dynamic header", {{16, 8, UINT64_C(1) << 40}}},
    {"header at 2^64", NULL, "cannot read the dynamic header", {{16, 8, UINT64_MAX}}},
    {"header cookie", NULL, "no dynamic disk header at byte 512", {{HEADER, 1, 0}}},
    {"header checksum", NULL, "Incorrect dynamic header checksum", {{HEADER + 36, 4, 0}}, true},
    {"block size 0", NULL, "Invalid block size 0", {{HEADER + 32, 4, 0}}},
    {"block size 256", NULL, "Invalid block size 256", {{HEADER + 32, 4, 256}}},
    {"block size 3 MiB", NULL, "Invalid block size 3145728", {{HEADER + 32, 4, 3 << 20}}},
    {"block size 2^31", NULL, "Invalid block size 2147483648", {{HEADER + 32, 4, 1u << 31}}},
    {"2^32 - 1 entries", NULL, "Max Table Entries too large (4294967295)", {{HEADER + 28, 4, UINT32_MAX}}},
    {"2^29 entries", NULL, "Max Table Entries too large (536870912)", {{HEADER + 28, 4, 1u << 29}}},
    {"no entries", NULL, "Page table too small: 0 entries", {{HEADER + 28, 4, 0}}},
    {"too few entries", NULL, "Page table too small: 3 entries", {{HEADER + 28, 4, 3}}},
    {"many entries", NULL, "the table of 536870911 entries", {{HEADER + 28, 4, (1u << 29) - 1}}},
    {"table behind the end", NULL, "does not fit in the file", {{HEADER + 16, 8, UINT64_C(1) << 40}}},
    {"table at 2^64", NULL, "does not fit in the file", {{HEADER + 16, 8, UINT64_MAX - 511}}},
    {"table not aligned", NULL, "at byte 1537 does not fit", {{HEADER + 16, 8, 1537}}},
    {"cut in the footer", NULL, "511 bytes are less than a footer", {{0}}, false, 511},
    {"cut in the header", NULL, "cannot read the dynamic header", {{0}}, false, 1000},
    {"fixed, cut", "subformat=fixed", "no footer cookie", {{0}}, false, 1 << 20},
    {"fixed, too large",
     "subformat=fixed,force_size=on",
     "a fixed disk of 16777216 bytes does not fit",
     {{BAD_SIZE + 48, 8, 16 << 20}}},
};

static void each_bad_header_is_refused_by_name(void **state)
{
    (void)state;
    refuse_rows(&vpc, rows, G_N_ELEMENTS(rows));
}

static void entries_behind_the_end_do_not_read(void **state)
{
    static const struct change lies[] = {{TABLE, 4, 1 << 30}, {TABLE, 4, 0xfffffffe}};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(lies); i++) {
        GByteArray *image = sound_image("vpc", NULL);
        fill_image(image, "vpc", 3);
        change_bytes(image, &lies[i], true);
        assert_int_equal(read_of(image, "vpc"), -EIO);
        g_byte_array_unref(image);
    }
}

/* The copy of the footer in front is enough, as after a crash that cut the end. */
static void a_lost_footer_at_the_end_is_written_again(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    GByteArray *image = sound_image("vpc", NULL);
    uint8_t buf[512] = {7};
    fill_image(image, "vpc", 2);
    g_byte_array_set_size(image, image->len - 512);
    struct node *n = open_bytes(image, "vpc", 0, &error);
    assert_works(n != NULL, error);
    assert_int_equal(chain_write(n, 7 << 20, buf, sizeof(buf)), 0);
    chain_close(n);
    assert_memory_equal(image->data + image->len - 512, "conectix", 8);
    assert_int_equal(read_of(image, "vpc"), 0);
    g_byte_array_unref(image);
}

static void a_file_cut_off_anywhere_does_no_harm(void **state)
{
    (void)state;
    cut_anywhere("vpc", NULL);
    cut_anywhere("vpc", "subformat=fixed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bad_header_is_refused_by_name),
        cmocka_unit_test(entries_behind_the_end_do_not_read),
        cmocka_unit_test(a_lost_footer_at_the_end_is_written_again),
        cmocka_unit_test(a_file_cut_off_anywhere_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
