/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/bad_image.h"

#include "base/bytes.h"
#include "host/image/vhdx.h"

static void seal_one(GByteArray *image, uint64_t at, size_t n)
{
    le32_put(image->data + at + 4, vhdx_crc(image->data + at, n, 4));
}

static void seal(GByteArray *image)
{
    for (unsigned i = 0; i < 2; i++) {
        seal_one(image, VHDX_HEADER_AT[i], VHDX_HEADER_BYTES);
        seal_one(image, VHDX_REGIONS_AT[i], VHDX_TABLE_BYTES);
    }
}

static const struct bad_format vhdx = {.name = "vhdx", .seal = seal};

/* Both copies of a header's field, and of a region table's. */
#define H(field, n, value) {65536 + (field), n, value}, {131072 + (field), n, value}
#define R(field, n, value) {196608 + (field), n, value}, {262144 + (field), n, value}
enum { META = 2 << 20, BAT = 3 << 20, ITEMS = META + 65536 };
enum { E_PARAMS = META + 32, E_SIZE = META + 64 };

static const struct row rows[] = {
    {"signature", NULL, "Invalid VHDX signature", {{0, 1, 0}}},
    {"header signatures", NULL, "No valid VHDX header", {H(0, 1, 0)}},
    {"header checksums", NULL, "No valid VHDX header", {H(4, 4, 0)}, true},
    {"version 2", NULL, "Unsupported VHDX version 2", {H(66, 2, 2)}},
    {"log version 1", NULL, "Unsupported VHDX log version 1", {H(64, 2, 1)}},
    {"log not aligned", NULL, "the log of 1048576 bytes at byte 4660", {H(72, 8, 0x1234)}},
    {"log in the headers", NULL, "at byte 0 does not begin", {H(72, 8, 0)}},
    {"log at 2^63", NULL, "behind the headers", {H(72, 8, UINT64_C(1) << 63)}},
    {"log of no bytes", NULL, "the log of 0 bytes", {H(68, 4, 0)}},
    {"log of 5 bytes", NULL, "the log of 5 bytes", {H(68, 4, 5)}},
    {"log on the metadata", NULL, "overlap", {H(72, 8, META)}},
    {"log on the BAT", NULL, "overlap", {H(68, 4, 3 << 20)}},
    {"region signatures", NULL, "no valid region table", {R(0, 1, 0)}},
    {"region checksums", NULL, "no valid region table", {R(4, 4, 0)}, true},
    {"2048 regions", NULL, "2048 entries in the region table", {R(8, 4, 2048)}},
    {"2^32 - 1 regions", NULL, "4294967295 entries in the region table", {R(8, 4, UINT32_MAX)}},
    {"no regions", NULL, "has no BAT region", {R(8, 4, 0)}},
    {"one region", NULL, "has no metadata region", {R(8, 4, 1)}},
    {"unknown region", NULL, "is required and not known", {R(16, 1, 0)}},
    {"BAT not aligned", NULL, "the BAT region of 1048576 bytes at byte 12345", {R(32, 8, 12345)}},
    {"BAT of no bytes", NULL, "the BAT region of 0 bytes", {R(40, 4, 0)}},
    {"BAT on the metadata", NULL, "overlap", {R(32, 8, META)}},
    {"BAT behind the end", NULL, "a BAT of 1 entries does not fit", {R(32, 8, UINT64_C(1) << 40)}},
    {"BAT at 2^63", NULL, "the BAT region", {R(32, 8, UINT64_C(1) << 63)}},
    {"metadata at 0", NULL, "the metadata region of 1048576 bytes at byte 0", {R(64, 8, 0)}},
    {"metadata behind the end", NULL, "is behind the file's end", {R(64, 8, UINT64_C(1) << 40)}},
    {"metadata signature", NULL, "no metadata table at byte 2097152", {{META, 1, 0}}},
    {"2048 items", NULL, "2048 entries in the metadata table", {{META + 10, 2, 2048}}},
    {"no items", NULL, "\"file parameters\" is missing", {{META + 10, 2, 0}}},
    {"item in the table", NULL, "of 8 bytes at byte 100 is not inside", {{E_PARAMS + 16, 4, 100}}},
    {"item outside", NULL, "is not inside the metadata region", {{E_PARAMS + 16, 4, 0xfffffff8}}},
    {"item of 2^32 - 1", NULL, "is not inside the metadata region", {{E_PARAMS + 20, 4, UINT32_MAX}}},
    {"item of 4 bytes", NULL, "\"file parameters\" has 4 bytes", {{E_PARAMS + 20, 4, 4}}},
    {"item twice",
     NULL,
     "is there twice",
     {{E_SIZE, 8, UINT64_C(0x4d43fa36caa16737)}, {E_SIZE + 8, 8, UINT64_C(0x6be744aaf033b6b3)}}},
    {"unknown item", NULL, "is required and not known", {{E_PARAMS, 1, 0}}},
    {"no size", NULL, "\"virtual disk size\" is missing", {{E_SIZE, 1, 0}, {E_SIZE + 24, 4, 0}}},
    {"block size 0", NULL, "block size 0 is not", {{ITEMS, 4, 0}}},
    {"block size 3 MiB", NULL, "block size 3145728 is not", {{ITEMS, 4, 3 << 20}}},
    {"block size 512 MiB", NULL, "block size 536870912 is not", {{ITEMS, 4, 512 << 20}}},
    {"differencing", NULL, "differencing VHDX", {{ITEMS + 4, 4, 2}}},
    {"disk of 0", NULL, "a virtual disk size of 0 bytes", {{ITEMS + 8, 8, 0}}},
    {"disk of 1000", NULL, "a virtual disk size of 1000 bytes", {{ITEMS + 8, 8, 1000}}},
    {"disk over 64 TiB",
     NULL,
     "a virtual disk size of 70368744178176 bytes",
     {{ITEMS + 8, 8, (UINT64_C(64) << 40) + 512}}},
    {"disk of 64 TiB", NULL, "a BAT of", {{ITEMS + 8, 8, UINT64_C(64) << 40}}},
    {"sector size 0", NULL, "logical sector size 0", {{ITEMS + 32, 4, 0}}},
    {"sector size 513", NULL, "logical sector size 513", {{ITEMS + 32, 4, 513}}},
    {"state 4", NULL, "BAT entry 0 (0x4) has a reserved state", {{BAT, 8, 4}}},
    {"state 5", NULL, "BAT entry 0 (0x5) has a reserved state", {{BAT, 8, 5}}},
    {"state 7", NULL, "is of a differencing disk", {{BAT, 8, 7}}},
    {"block on the headers", NULL, "the image's own structures", {{BAT, 8, 6}}},
    {"block on the metadata", NULL, "the image's own structures", {{BAT, 8, META | 6}}},
    {"cut in the headers", NULL, "No valid VHDX header", {{0}}, false, 66000},
    {"cut in the metadata", NULL, "is behind the file's end", {{0}}, false, META + 100},
};

static void each_bad_header_is_refused_by_name(void **state)
{
    (void)state;
    refuse_rows(&vhdx, rows, G_N_ELEMENTS(rows));
}

static void one_good_copy_is_enough(void **state)
{
    static const struct change hurt[] = {
        {65536, 4, 0}, {131072 + 100, 4, 1}, {196608, 4, 0}, {262144 + 16, 4, 1}};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(hurt); i++) {
        GByteArray *image = sound_image("vhdx", NULL);
        change_bytes(image, &hurt[i], false);
        assert_int_equal(read_of(image, "vhdx"), 0);
        g_byte_array_unref(image);
    }
}

static void entries_that_lie_are_found(void **state)
{
    static const struct change lies[] = {
        {BAT, 8, UINT64_C(1) << 40 | 6}, {BAT + 8, 8, UINT64_C(4) << 20 | 6}, {BAT + 16, 8, 4}};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(lies); i++) {
        GByteArray *image = sound_image("vhdx", "block_size=1M");
        fill_image(image, "vhdx", 3);
        assert_int_equal(corruptions_of(image, "vhdx"), 0);
        change_bytes(image, &lies[i], false);
        assert_int_equal(corruptions_of(image, "vhdx"), 1);
        g_byte_array_unref(image);
    }
}

/* ---- the log ---- */

/* What a writer that died after a flush leaves: an entry in the log; the BAT as it was before. */
static GByteArray *with_dirty_log(void)
{
    g_autoptr(GError) error = NULL;
    GByteArray *image = sound_image("vhdx", "block_size=1M"), *copy = g_byte_array_new();
    g_autofree uint8_t *bat = g_memdup2(image->data + BAT, 4096);
    uint8_t data[4096];
    memset(data, 0x77, sizeof(data));
    struct node *n = open_bytes(image, "vhdx", 0, &error);
    assert_works(n != NULL, error);
    assert_int_equal(chain_write(n, 0, data, sizeof(data)), 0);
    assert_int_equal(chain_flush(n), 0);
    g_byte_array_append(copy, image->data, image->len);
    memcpy(copy->data + BAT, bat, 4096);
    chain_close(n);
    g_byte_array_unref(image);
    return copy;
}

static void a_log_is_replayed_or_the_image_refused(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    GByteArray *image = with_dirty_log();
    uint8_t data[512];
    assert_null(open_bytes(image, "vhdx", OPEN_READ_ONLY, &error));
    assert_non_null(strstr(error->message, "contains a log that needs to be replayed"));
    g_clear_error(&error);
    struct node *n = open_bytes(image, "vhdx", 0, &error);
    assert_works(n != NULL, error);
    assert_int_equal(chain_read(n, 0, data, sizeof(data)), 0);
    assert_int_equal(data[0], 0x77);
    chain_close(n);
    assert_int_equal(read_of(image, "vhdx"), 0); /* clean now */
    g_byte_array_unref(image);
}

/* An entry with anything wrong is none: the image is as it was before it. */
static void a_torn_log_entry_is_not_replayed(void **state)
{
    enum { LOG = 1 << 20 };
    static const struct change tears[] = {
        {LOG + 8, 4, 0},          {LOG + 8, 4, 0xfffff000}, {LOG + 12, 4, 4096}, {LOG + 16, 8, 0},
        {LOG + 24, 4, 0xffffffff}, {LOG + 32, 4, 1},         {LOG + 64, 4, 1},    {LOG + 64 + 16, 8, 1},
        {LOG + 64 + 24, 8, 99},   {LOG + 4096, 4, 1},       {LOG + 8188, 4, 77}, {LOG + 5000, 1, 1}};
    (void)state;
    for (unsigned sealed = 0; sealed < 2; sealed++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(tears) - sealed; i++) {
            g_autoptr(GError) error = NULL;
            GByteArray *image = with_dirty_log();
            uint8_t data[512] = {1};
            change_bytes(image, &tears[i], false);
            if (sealed) { /* then what it says is checked, not only its sum */
                seal_one(image, LOG, 8192);
            }
            struct node *n = open_bytes(image, "vhdx", 0, &error);
            assert_works(n != NULL, error);
            assert_int_equal(chain_read(n, 0, data, sizeof(data)), 0);
            assert_int_equal(data[0], 0);
            chain_close(n);
            g_byte_array_unref(image);
        }
    }
}

static void a_log_that_leaves_the_file_is_refused(void **state)
{
    enum { LOG = 1 << 20 };
    static const struct change lies[] = {
        {LOG + 48, 8, UINT64_C(1) << 50}, {LOG + 56, 8, UINT64_C(1) << 50}, {LOG + 64 + 16, 8, 1 << 30}};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(lies); i++) {
        g_autoptr(GError) error = NULL;
        GByteArray *image = with_dirty_log();
        guint before = image->len;
        change_bytes(image, &lies[i], false);
        seal_one(image, LOG, 8192);
        assert_null(open_bytes(image, "vhdx", 0, &error));
        assert_non_null(strstr(error->message, "the log w"));
        assert_int_equal(image->len, before);
        g_byte_array_unref(image);
    }
}

static void a_file_cut_off_anywhere_does_no_harm(void **state)
{
    (void)state;
    cut_anywhere("vhdx", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bad_header_is_refused_by_name),
        cmocka_unit_test(one_good_copy_is_enough),
        cmocka_unit_test(entries_that_lie_are_found),
        cmocka_unit_test(a_log_is_replayed_or_the_image_refused),
        cmocka_unit_test(a_torn_log_entry_is_not_replayed),
        cmocka_unit_test(a_log_that_leaves_the_file_is_refused),
        cmocka_unit_test(a_file_cut_off_anywhere_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
