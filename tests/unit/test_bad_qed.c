/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/bad.h"

/* 8 MiB, clusters of 64 KiB: L1 at 65536, the L2 table at 327680. */
static const struct bad rows[] = {
    {"magic", 0, 4, 0, "not in QED format"},
    {"cluster size 0", 4, 4, 0, "QED cluster size 0"},
    {"cluster size 2048", 4, 4, 2048, "QED cluster size 2048"},
    {"cluster size 65537", 4, 4, 65537, "QED cluster size 65537"},
    {"cluster size 128 MiB", 4, 4, 128 << 20, "QED cluster size 134217728"},
    {"table size 0", 8, 4, 0, "QED table size 0"},
    {"table size 3", 8, 4, 3, "QED table size 3"},
    {"table size 32", 8, 4, 32, "QED table size 32"},
    {"header size 0", 12, 4, 0, "QED header size of 0"},
    {"header size that overflows", 12, 4, 0x10001, "QED header size of 65537"},
    {"header size 2^32 - 1", 12, 4, UINT32_MAX, "QED header size of 4294967295"},
    {"unknown feature", 16, 8, 8, "Unsupported QED features: 0x8"},
    {"unknown features", 16, 8, UINT64_C(1) << 63, "Unsupported QED features: 0x8000000000000000"},
    {"backing name without one", 16, 8, 1, "empty"},
    {"L1 not aligned", 40, 8, 65537, "QED L1 table offset 65537"},
    {"L1 in the header", 40, 8, 0, "QED L1 table offset 0"},
    {"L1 past the end", 40, 8, UINT64_C(1) << 40, "QED L1 table offset 1099511627776"},
    {"L1 at 2^64 - 65536", 40, 8, UINT64_MAX - 65535, "QED L1 table offset"},
    {"image size 1", 48, 8, 1, "QED image size 1"},
    {"image size 2^63", 48, 8, UINT64_C(1) << 63, "QED image size"},
    {"image size past the tables", 48, 8, UINT64_C(1) << 50, "QED image size"},
    {"header cut", 40, 0, 0, "not in QED format"},
    {"L1 cut", 70000, 0, 0, "QED L1 table offset"},
    {"L2 not aligned", 65536, 8, 65537, NULL},
    {"L2 past the end", 65536, 8, UINT64_C(1) << 40, NULL},
    {"L2 in the header", 65536, 8, 65536, NULL},
    {"cluster past the end", 327680, 8, UINT64_C(1) << 40, NULL},
    {"cluster not aligned", 327680, 8, 327681, NULL},
    {"cluster at 2^64 - 65536", 327680, 8, UINT64_MAX - 65535, NULL},
    {"cluster in the header", 327680, 8, 2, NULL},
    {"unknown compatible feature", 24, 8, 1, NULL},
};

static const struct bad backing_rows[] = {
    {"backing name outside the header", 56, 4, 65536, "does not fit the header"},
    {"backing name past 2^32", 56, 4, UINT32_MAX, "does not fit the header"},
    {"backing name of 1024 bytes", 60, 4, 1024, "name of 1024 bytes"},
    {"backing name of 0 bytes", 60, 4, 0, "is empty"},
    {"backing name with a zero byte", 60, 4, 30, "zero byte"},
};

static void bad_headers_are_refused(void **state)
{
    (void)state;
    GByteArray *good = good_image("qed", "", 8 << 20, NULL);
    fill_image(good, "qed", "{}", 0, 300000);
    TRY_ALL(good, "qed", "{}", rows, false);
    g_byte_array_unref(good);
    good = good_image("qed", "", 8 << 20, "base.raw");
    TRY_ALL(good, "qed", "{}", backing_rows, false);
    g_byte_array_unref(good);
}

/* An autoclear feature that we do not know goes when the image is opened for writing. */
static void unknown_autoclear_features_are_dropped(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    GByteArray *image = good_image("qed", "", 8 << 20, NULL);
    image->data[32] = 4;
    chain_close(open_bytes(image, "qed", "{}", OPEN_READ_ONLY, &error));
    assert_int_equal(image->data[32], 4);
    chain_close(open_bytes(image, "qed", "{}", 0, &error));
    assert_int_equal(image->data[32], 0);
    g_byte_array_unref(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(unknown_autoclear_features_are_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
