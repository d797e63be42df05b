/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/bad.h"

/* 8 MiB, clusters of 1 MiB: eight entries at 64, data from 1 MiB on. */
static const struct bad rows[] = {
    {"magic", 0, 4, 0, "not in Parallels format"},
    {"version 1", 16, 4, 1, "Unsupported Parallels version 1"},
    {"tracks 0", 28, 4, 0, "0 sectors per track"},
    {"tracks 2^31", 28, 4, UINT32_C(1) << 31, "2147483648 sectors per track"},
    {"tracks 4186128", 28, 4, 4186128, "4186128 sectors per track"},
    {"more entries than the file has", 32, 4, 1 << 28, "Catalog of 268435456 entries"},
    {"too many entries", 32, 4, 1 << 29, "Catalog too large: 536870912"},
    {"entries 2^32 - 1", 32, 4, UINT32_MAX, "Catalog too large: 4294967295"},
    {"too few entries", 32, 4, 7, "Catalog of 7 entries is too small"},
    {"no entries", 32, 4, 0, "Catalog of 0 entries is too small"},
    {"sectors 2^63", 36, 8, UINT64_C(1) << 63, "9223372036854775808 sectors is too large"},
    {"sectors 2^55", 36, 8, UINT64_C(1) << 55, "36028797018963968 sectors"},
    {"data in the catalog", 48, 4, 0, "Data offset 0 lies inside the catalog"},
    {"no extension there", 56, 8, 2048, "No format extension at sector 2048"},
    {"extension past the end", 56, 8, UINT64_C(1) << 40, "No format extension at sector 1099511627776"},
    {"extension at 2^64 - 1", 56, 8, UINT64_MAX, "No format extension at sector 18446744073709551615"},
    {"header cut", 63, 0, 0, "not in Parallels format"},
    {"catalog cut", 80, 0, 0, "Catalog of 8 entries"},
    {"entry past the end", 64, 4, 1 << 30, NULL},
    {"entry 2^32 - 1", 64, 4, UINT32_MAX, NULL},
    {"entry twice", 68, 4, 1, NULL},
    {"data cut", (2 << 20) + 1, 0, 0, NULL},
};

static void bad_headers_are_refused(void **state)
{
    (void)state;
    GByteArray *good = good_image("parallels", "", 8 << 20, NULL);
    fill_image(good, "parallels", "{}", 0, 3 << 20);
    TRY_ALL(good, "parallels", "{}", rows, false);
    g_byte_array_unref(good);
}

/* Dirty bitmaps of others would not be true any more. */
static void extensions_are_read_only(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    GByteArray *image = good_image("parallels", "", 8 << 20, NULL);
    fill_image(image, "parallels", "{}", 0, 100);
    le64_put(image->data + (1 << 20), UINT64_C(0xab234cef23dcea87));
    le64_put(image->data + 56, 2048);
    assert_fails(open_bytes(image, "parallels", "{}", 0, &error) != NULL, error, ENOTSUP);
    struct node *n = open_bytes(image, "parallels", "{}", OPEN_READ_ONLY, &error);
    assert_works(n != NULL, error);
    chain_close(n);
    g_byte_array_unref(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(extensions_are_read_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
