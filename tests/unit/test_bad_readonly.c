/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/bad.h"

#include <zlib.h>

/* bochs, cloop and dmg: the good images are made here. */

static GByteArray *zeroes(guint n)
{
    GByteArray *b = g_byte_array_new();
    g_byte_array_set_size(b, n);
    memset(b->data, 0, n);
    return b;
}

/* ---- bochs: 64 KiB in extents of 16 KiB, the second of which is there ---- */

static GByteArray *good_bochs(void)
{
    GByteArray *b = zeroes(512 + 4 * 4 + 512 + 16384);
    memcpy(b->data, "Bochs Virtual HD Image", 22);
    memcpy(b->data + 32, "Redolog", 7);
    memcpy(b->data + 48, "Growing", 7);
    le32_put(b->data + 64, 0x20000);
    le32_put(b->data + 68, 512);
    le32_put(b->data + 72, 4);
    le32_put(b->data + 76, 4);
    le32_put(b->data + 80, 16384);
    le64_put(b->data + 88, 65536);
    memset(b->data + 512, 0xff, 16);
    le32_put(b->data + 516, 0);
    b->data[528] = 1;
    memset(b->data + 512 + 16 + 512, 7, 512);
    return b;
}

static const struct bad bochs_rows[] = {
    {"magic", 0, 4, 0, "not in Bochs format"},
    {"type", 32, 4, 0x64697547, "type \"Guidlog\""},
    {"subtype", 48, 4, 0x6f646e55, "\"Undoing\""},
    {"version 3", 64, 4, 0x30000, "version 0x30000"},
    {"catalog of 0x100001", 72, 4, 0x100001, "Catalog size 1048577 is too large"},
    {"catalog of 2^32 - 1", 72, 4, UINT32_MAX, "Catalog size 4294967295 is too large"},
    {"catalog too small", 72, 4, 3, "Catalog size 3 is too small for 65536"},
    {"catalog past the end", 72, 4, 0x10000, "does not lie inside the file"},
    {"catalog in the header", 68, 4, 50, "Catalog at byte 50"},
    {"header of 2^32 - 1", 68, 4, UINT32_MAX, "Catalog at byte 4294967295"},
    {"bitmap of 0", 76, 4, 0, "Bitmap size 0"},
    {"bitmap of 2^32 - 1", 76, 4, UINT32_MAX, "Bitmap size 4294967295"},
    {"extent of 0", 80, 4, 0, "Extent size 0"},
    {"extent of 256", 80, 4, 256, "Extent size 256"},
    {"extent of 20000", 80, 4, 20000, "Extent size 20000 is not a power of two"},
    {"extent of 16 MiB", 80, 4, 16 << 20, "Extent size 16777216 is too large"},
    {"extent of 2^31", 80, 4, UINT32_C(1) << 31, "Extent size 2147483648 is too large"},
    {"disk of 2^63", 88, 8, UINT64_C(1) << 63, "Catalog size 4 is too small"},
    {"disk of 2^64 - 1", 88, 8, UINT64_MAX, "Catalog size 4 is too small"},
    {"header cut", 90, 0, 0, "Cannot read the header"},
    {"extent past the end", 516, 4, 5, NULL},
    {"extent 2^32 - 2", 516, 4, UINT32_MAX - 1, NULL},
    {"data cut", 1100, 0, 0, NULL},
};

static void bad_bochs(void **state)
{
    (void)state;
    GByteArray *good = good_bochs();
    TRY_ALL(good, "bochs", "{}", bochs_rows, false);
    g_byte_array_unref(good);
}

/* ---- cloop: two blocks of 4096 bytes ---- */

static GByteArray *good_cloop(void)
{
    uint8_t plain[4096] = {1, 2, 3}, packed[256];
    uLongf n = sizeof(packed);
    assert_int_equal(compress(packed, &n, plain, sizeof(plain)), Z_OK);
    GByteArray *b = zeroes(136 + 24 + 2 * (guint)n);
    memcpy(b->data, "#!/bin/sh\n#V2.0 Format\n", 23);
    be32_put(b->data + 128, 4096);
    be32_put(b->data + 132, 2);
    for (unsigned i = 0; i < 3; i++) {
        be64_put(b->data + 136 + 8 * i, 160 + i * n);
    }
    memcpy(b->data + 160, packed, n);
    memcpy(b->data + 160 + n, packed, n);
    return b;
}

static const struct bad cloop_rows[] = {
    {"magic", 0, 4, 0, "not in cloop version 2 format"},
    {"block_size 0", 128, 4, 0, "block_size 0 "},
    {"block_size 100", 128, 4, 100, "block_size 100 must be a multiple of 512"},
    {"block_size 128 MiB", 128, 4, 128 << 20, "block_size 134217728 must be 64 MB or less"},
    {"block_size 2^32 - 512", 128, 4, UINT32_MAX - 511, "must be 64 MB or less"},
    {"n_blocks 2^32 - 1", 132, 4, UINT32_MAX, "n_blocks 4294967295 requires too many offsets"},
    {"n_blocks 2^29", 132, 4, 1 << 29, "n_blocks 536870912 requires too many offsets"},
    {"n_blocks past the end", 132, 4, 1 << 20, "n_blocks 1048576: the offsets do not lie inside"},
    {"first offset in the table", 136, 8, 100, "index 0"},
    {"offsets fall", 144, 8, 50, "not monotonically increasing at index 1"},
    {"block of more than 128 MiB", 144, 8, UINT64_C(1) << 28, "invalid compressed block size at index 1"},
    {"offset past the end", 152, 8, 10000, "offset 10000 at index 2 is behind the end"},
    {"offset 2^64 - 1", 152, 8, UINT64_MAX, "at index 2"},
    {"header cut", 130, 0, 0, "not in cloop version 2 format"},
    {"data cut", 165, 0, 0, "behind the end of the file"},
    {"garbage", 160, 8, UINT64_MAX, NULL},
    {"block of no bytes", 144, 8, 160, NULL},
};

static void bad_cloop(void **state)
{
    (void)state;
    GByteArray *good = good_cloop();
    TRY_ALL(good, "cloop", "{}", cloop_rows, true);
    g_byte_array_unref(good);
}

/* ---- dmg: one raw, one packed and one zero chunk of 8 sectors, before them a data fork ---- */

enum { RAW_AT = 512, PACKED_AT = RAW_AT + 4096, LIST_AT = PACKED_AT + 512, LIST = 1024,
       KOLY_AT = LIST_AT + LIST };

static void put_chunk(uint8_t *p, uint32_t type, uint64_t sector, uint64_t n, uint64_t at,
                      uint64_t stored)
{
    be32_put(p, type);
    be64_put(p + 8, sector);
    be64_put(p + 16, n);
    be64_put(p + 24, at);
    be64_put(p + 32, stored);
}

struct mish {
    uint32_t type;
    uint64_t sector, sectors, at, stored;
    uint32_t count;
};

/* A table of which the middle chunk is @m's. */
static GByteArray *make_dmg(const struct mish *m)
{
    uint8_t plain[4096] = {9, 8, 7}, table[204 + 4 * 40] = {0};
    GByteArray *b = zeroes(KOLY_AT + 512);
    uLongf n = 512;
    memset(b->data + RAW_AT, 5, 4096);
    assert_int_equal(compress(b->data + PACKED_AT, &n, plain, sizeof(plain)), Z_OK);
    memcpy(table, "mish", 4);
    be32_put(table + 200, m->count);
    put_chunk(table + 204, 1, 0, 8, 0, 4096);
    put_chunk(table + 244, m->type, m->sector, m->sectors, m->at, m->stored);
    put_chunk(table + 284, 0, 16, 8, 0, 0);
    put_chunk(table + 324, UINT32_MAX, 24, 0, 0, 0);
    g_autofree char *text = g_base64_encode(table, sizeof(table));
    g_autofree char *list = g_strdup_printf("<plist><key>blkx</key><data>%s</data></plist>", text);
    memcpy(b->data + LIST_AT, list, strlen(list));
    memcpy(b->data + KOLY_AT, "koly", 4);
    be64_put(b->data + KOLY_AT + 24, RAW_AT);
    be64_put(b->data + KOLY_AT + 216, LIST_AT);
    be64_put(b->data + KOLY_AT + 224, LIST);
    return b;
}

static const struct mish good_mish = {0x80000005, 8, 8, PACKED_AT - RAW_AT, 512, 4};

static const struct bad dmg_rows[] = {
    {"trailer", KOLY_AT, 4, 0, "Could not locate UDIF trailer"},
    {"property list past the end", KOLY_AT + 216, 8, 1 << 20, "property list of 1024 bytes at byte 1048576"},
    {"property list at 2^64 - 1", KOLY_AT + 216, 8, UINT64_MAX, "property list of 1024 bytes"},
    {"property list of 2^63", KOLY_AT + 224, 8, UINT64_C(1) << 63, "property list of 9223372036854775808"},
    {"no property list", KOLY_AT + 224, 8, 0, "neither a property list nor a resource fork"},
    {"property list without data", KOLY_AT + 224, 8, 10, "has no <data>"},
    {"data fork past the end", KOLY_AT + 24, 8, UINT64_C(1) << 40, "data fork at byte 1099511627776"},
    {"resource fork past the end", KOLY_AT + 48, 8, 1 << 20, NULL},
    {"cut", KOLY_AT, 0, 0, "Could not locate UDIF trailer"},
    {"empty file", 0, 0, 0, "Could not locate UDIF trailer"},
    {"packed garbage", PACKED_AT, 8, UINT64_MAX, NULL},
    {"data is no base64", LIST_AT + 40, 8, 0x2525252525252525, "has no room for"},
};

static const struct {
    struct mish m;
    const char *says;
} mishes[] = {
    {{0x80000005, 8, 8, 4096, 512, 5}, "no room for 5 chunks"},
    {{0x80000005, 8, 8, 4096, 512, UINT32_MAX}, "no room for 4294967295 chunks"},
    {{0x80000005, 8, 131073, 4096, 512, 4}, "sector count 131073 for chunk at sector 8"},
    {{0x80000005, 8, UINT64_MAX, 4096, 512, 4}, "is too large"},
    {{0x80000005, UINT64_MAX, 8, 4096, 512, 4}, "is too large"},
    {{0x80000005, 8, 8, 1 << 20, 512, 4}, "does not lie inside the file"},
    {{0x80000005, 8, 8, UINT64_MAX - 600, 512, 4}, "does not lie inside the file"},
    {{0x80000005, 8, 8, 4096, UINT64_MAX, 4}, "does not lie inside the file"},
    {{1, 8, 8, 0, 4095, 4}, "raw chunk at sector 8 has 4095 bytes for 8 sectors"},
    {{0x80000007, 8, 8, 4096, 512, 4}, NULL},
    {{0x80000009, 8, 8, 4096, 512, 4}, "chunk type 0x80000009"},
    {{0x80000006, 8, 8, 4096, 512, 4}, NULL}, /* bzip2 of garbage: read errors */
    {{0x80000008, 8, 8, 4096, 512, 4}, NULL},
    {{0x80000004, 8, 8, 4096, 512, 4}, NULL},
    {{0x80000005, 0, 8, 4096, 512, 4}, NULL}, /* chunks overlap */
};

static void bad_dmg(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    uint8_t sector[512];
    GByteArray *good = make_dmg(&good_mish);
    struct node *n = open_bytes(good, "dmg", "{}", OPEN_READ_ONLY, &error);
    assert_works(n != NULL, error);
    assert_int_equal(n->size, 24 * 512);
    assert_int_equal(chain_read(n, 8 * 512, sector, sizeof(sector)), 0);
    assert_int_equal(sector[0], 9);
    chain_close(n);
    TRY_ALL(good, "dmg", "{}", dmg_rows, true);
    g_byte_array_unref(good);
    for (unsigned i = 0; i < G_N_ELEMENTS(mishes); i++) {
        g_autofree char *what = g_strdup_printf("chunk row %u", i);
        struct bad row = {what, 0, 1, 0, mishes[i].says}; /* byte 0 is nobody's */
        GByteArray *image = make_dmg(&mishes[i].m);
        try_bad(image, "dmg", "{}", &row, true);
        g_byte_array_unref(image);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_bochs),
        cmocka_unit_test(bad_cloop),
        cmocka_unit_test(bad_dmg),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
