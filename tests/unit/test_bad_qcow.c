/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/bad.h"

/* 4 MiB: cluster_bits 12, l2_bits 9, two L1 entries at 48. */
static const struct bad rows[] = {
    {"magic", 0, 4, 0x51464900, "not in qcow format"},
    {"version 2", 4, 4, 2, "Unsupported qcow version 2"},
    {"version 0", 4, 4, 0, "Unsupported qcow version 0"},
    {"size 0", 24, 8, 0, "Image size 0 is too small"},
    {"size 1", 24, 8, 1, "Image size 1 is too small"},
    {"size of 2^63", 24, 8, UINT64_C(1) << 63, "is too large"},
    {"size of 2^64 - 1", 24, 8, UINT64_MAX, "is too large"},
    {"size that needs more L1 than there is", 24, 8, UINT64_C(1) << 45, "does not lie inside the file"},
    {"cluster_bits 0", 32, 1, 0, "Cluster size 2^0"},
    {"cluster_bits 8", 32, 1, 8, "Cluster size 2^8"},
    {"cluster_bits 17", 32, 1, 17, "Cluster size 2^17"},
    {"cluster_bits 63", 32, 1, 63, "Cluster size 2^63"},
    {"l2_bits 5", 33, 1, 5, "L2 table size 2^5"},
    {"l2_bits 14", 33, 1, 14, "L2 table size 2^14"},
    {"l2_bits 255", 33, 1, 255, "L2 table size 2^255"},
    {"crypt_method 2", 36, 4, 2, "invalid encryption method 2"},
    {"crypt_method 1 without a secret", 36, 4, 1, "encrypt.key-secret"},
    {"L1 past the end", 40, 8, 1 << 30, "does not lie inside the file"},
    {"L1 at 2^64 - 8", 40, 8, UINT64_MAX - 7, "does not lie inside the file"},
    {"L1 in the header", 40, 8, 8, "does not lie inside the file"},
    {"L1 not aligned", 40, 8, 49, "L1 table offset 49 is not aligned"},
    {"header cut", 20, 0, 0, "not in qcow format"},
    {"empty file", 0, 0, 0, "not in qcow format"},
    {"L2 past the end", 48, 8, UINT64_C(1) << 40, NULL},
    {"L2 not aligned", 48, 8, 4097, NULL},
    {"L2 in the header", 48, 8, 0x1000, NULL},
    {"cluster past the end", 4096, 8, UINT64_C(1) << 40, NULL},
    {"cluster not aligned", 4096, 8, 12289, NULL},
    {"packed past the end", 4096, 8, UINT64_C(1) << 63 | UINT64_C(100) << 51 | UINT64_C(1) << 40, NULL},
    {"packed garbage", 4096, 8, UINT64_C(1) << 63 | UINT64_C(100) << 51 | 8192, NULL},
    {"cut inside the data", 10000, 0, 0, NULL},
};

static const struct bad backing_rows[] = {
    {"backing name past the end", 8, 8, UINT64_C(1) << 40, "Could not read the backing file name"},
    {"backing name at 2^63", 8, 8, UINT64_C(1) << 63, "Could not read the backing file name"},
    {"backing name of 1024 bytes", 16, 4, 1024, "name of 1024 bytes is too long"},
    {"backing name of 2^32 - 1 bytes", 16, 4, UINT32_MAX, "is too long"},
    {"backing name with a zero byte", 16, 4, 20, "zero byte"},
};

static void bad_headers_are_refused(void **state)
{
    (void)state;
    GByteArray *good = good_image("qcow", "", 4 << 20, NULL);
    fill_image(good, "qcow", "{}", 0, 100000);
    TRY_ALL(good, "qcow", "{}", rows, true);
    g_byte_array_unref(good);
    good = good_image("qcow", "", 4 << 20, "base.raw");
    TRY_ALL(good, "qcow", "{}", backing_rows, true);
    g_byte_array_unref(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bad_headers_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
