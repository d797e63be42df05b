/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/bad.h"

static const struct bad rows[] = {
    {"magic", 0, 4, 0, "not in COW format"},
    {"version 0", 4, 4, 0, "Unsupported COW version 0"},
    {"version 1 of User-mode Linux", 4, 4, 1, "version 1 (User-mode Linux)"},
    {"version 3 of User-mode Linux", 4, 4, 3, "version 3 (User-mode Linux)"},
    {"sector size 0", 1048, 4, 0, "no sector size of 512"},
    {"sector size 4096", 1048, 4, 4096, "no sector size of 512"},
    {"bitmap past the end", 1040, 8, UINT64_C(1) << 40, "bitmap is behind the end"},
    {"size 2^64 - 1", 1040, 8, UINT64_MAX, "bitmap is behind the end"},
    {"header cut", 1000, 0, 0, "no sector size of 512"},
    {"bitmap cut", 1100, 0, 0, "bitmap is behind the end"},
    {"empty file", 0, 0, 0, "not in COW format"},
    {"bits without data", 1056, 4, UINT32_MAX, NULL},
};

static void bad_headers_are_refused(void **state)
{
    (void)state;
    GByteArray *good = good_image("cow", "", 8 << 20, NULL);
    TRY_ALL(good, "cow", "{}", rows, true);
    memset(good->data + 8, 'x', 1024);
    static const struct bad name = {"name without an end", 8, 1, 'y', "not NUL terminated"};
    try_bad(good, "cow", "{}", &name, true);
    g_byte_array_unref(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bad_headers_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
