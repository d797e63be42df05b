/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/memfile.h"
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "host/image/core.h"
#include "host/image/options.h"

#include <inttypes.h>

/*
 * What bad qcow2 images get: each row changes one field of a sound image, and says which words
 * the refusal has to have.  Rows of the second table open, and lie about what is further in:
 * reading reports an error or check finds it, and nothing is ever written outside.
 */
enum { SIZE = 8 << 20, CLUSTER = 65536 };

struct change {
    uint64_t at; /* byte of the file; where an extension or entry lies: see X_, L_ below */
    unsigned n;  /* bytes of the value, big-endian */
    uint64_t value;
};

struct row {
    const char *what, *options, *says;
    struct change changes[4];
};

#define NOBODY UINT64_C(0xfffffffffffffe00)

static const struct row headers[] = {
    {"magic", "", "not in qcow2 format", {{0, 4, 0x51464900}}},
    {"version 0", "", "Unsupported qcow2 version 0", {{4, 4, 0}}},
    {"version 1", "", "Unsupported qcow2 version 1", {{4, 4, 1}}},
    {"version 4", "", "Unsupported qcow2 version 4", {{4, 4, 4}}},
    {"clusters of 256", "", "Unsupported cluster size: 2^8", {{20, 4, 8}}},
    {"clusters of 4 MiB", "", "Unsupported cluster size: 2^22", {{20, 4, 22}}},
    {"clusters of 2^64", "", "Unsupported cluster size: 2^64", {{20, 4, 64}}},
    {"clusters of 2^4294967295", "", "Unsupported cluster size", {{20, 4, 0xffffffff}}},
    {"short header", "", "qcow2 header too short: 103", {{100, 4, 103}}},
    {"header length 0", "", "qcow2 header too short: 0", {{100, 4, 0}}},
    {"long header", "", "exceeds cluster size", {{100, 4, CLUSTER + 8}}},
    {"huge header", "", "exceeds cluster size", {{100, 4, 0xfffffff8}}},
    {"backing offset", "", "Invalid backing file offset", {{8, 8, CLUSTER + 1}}},
    {"backing offset 2^63", "", "Invalid backing file offset", {{8, 8, UINT64_C(1) << 63}}},
    {"backing in header", "", "Invalid backing file offset", {{8, 8, 8}, {16, 4, 4}}},
    {"backing name 1024", "", "Backing file name too long: 1024", {{8, 8, 1024}, {16, 4, 1024}}},
    {"backing name leaves", "", "Backing file name too long", {{8, 8, CLUSTER - 8}, {16, 4, 9}}},
    {"backing name has NUL", "", "NUL", {{8, 8, 4096}, {16, 4, 4}, {4096, 4, 0x61006261}}},
    {"encryption 3", "", "Unsupported encryption method 3", {{32, 4, 3}}},
    {"LUKS without header", "", "Missing CRYPTO header for crypt method 2", {{32, 4, 2}}},
    {"size needs more L1", "", "L1 table is too small: 1 entries", {{24, 8, UINT64_C(1) << 40}}},
    {"size 2^63", "", "Image is too big", {{24, 8, UINT64_C(1) << 63}}},
    {"size 2^64 - 512", "", "Image is too big", {{24, 8, NOBODY}}},
    {"no L1 entries", "", "L1 table is too small: 0 entries", {{36, 4, 0}}},
    {"L1 entries 2^32 - 1", "", "Active L1 table too large", {{36, 4, 0xffffffff}}},
    {"L1 entries over 32 MiB", "", "Active L1 table too large", {{36, 4, (32 << 20) / 8 + 1}}},
    {"L1 behind the end", "", "Could not read L1 table", {{40, 8, 1 << 30}}},
    {"L1 not aligned", "", "Active L1 table offset invalid: 0x30200", {{40, 8, 0x30200}}},
    {"L1 at 2^63", "", "Active L1 table offset invalid", {{40, 8, UINT64_C(1) << 63}}},
    {"refcounts not aligned", "", "Reference count table offset invalid", {{48, 8, 0x10008}}},
    {"refcounts at 2^64", "", "Reference count table offset invalid", {{48, 8, NOBODY}}},
    {"refcounts behind the end",
     "",
     "Could not read the reference count table",
     {{48, 8, 1 << 30}}},
    {"no refcount table", "", "does not contain a reference count table", {{56, 4, 0}}},
    {"refcount table over 8 MiB", "", "Reference count table too large: 129", {{56, 4, 129}}},
    {"refcount table 2^32 - 1", "", "Reference count table too large", {{56, 4, 0xffffffff}}},
    {"65537 snapshots", "", "Snapshot table too large: 65537", {{60, 4, 65537}}},
    {"snapshots not aligned", "", "Snapshot table offset invalid", {{60, 4, 1}, {64, 8, 512}}},
    {"snapshots at 2^63",
     "",
     "Snapshot table offset invalid",
     {{60, 4, 1}, {64, 8, UINT64_C(1) << 63}}},
    {"snapshots behind the end", "", "behind the end", {{60, 4, 60000}, {64, 8, 1 << 30}}},
    {"snapshot extra data",
     "",
     "Too much extra metadata in snapshot table entry 0",
     {{60, 4, 1}, {64, 8, CLUSTER}, {CLUSTER + 36, 4, 1025}}},
    {"unknown incompatible bit",
     "",
     "Unsupported qcow2 feature(s): unknown bit 40",
     {{72, 8, UINT64_C(1) << 40}}},
    {"compression bit, type zlib", "", "Compression type", {{72, 8, 8}}},
    {"compression type without bit", "", "Compression type 1", {{104, 1, 1}}},
    {"unknown compression type", "", "Unknown compression type: 2", {{72, 8, 8}, {104, 1, 2}}},
    {"refcount order 7", "", "Reference count entry width too large", {{96, 4, 7}}},
    {"refcount order 2^32 - 1", "", "Reference count entry width", {{96, 4, 0xffffffff}}},
    {"subclusters under 512", "cluster_size=4k", "Extended L2 entries need", {{72, 8, 16}}},
    {"data file without name", "", "'data-file' is required", {{72, 8, 4}}},
    {"raw data without data file", "", "data-file-raw", {{88, 8, 2}}},
    {"extension too long",
     "",
     "Header extension too large",
     {{112, 4, 0x12345678}, {116, 4, CLUSTER}}},
    {"extension 2^32 - 1",
     "",
     "Header extension too large",
     {{112, 4, 0x12345678}, {116, 4, 0xffffffff}}},
    {"backing format of 16",
     "",
     "ext_backing_format: len=16",
     {{112, 4, 0xe2792aca}, {116, 4, 16}}},
    {"bitmaps ext length",
     "",
     "bitmaps_ext: Invalid extension length 16",
     {{112, 4, 0x23852875}, {116, 4, 16}}},
    {"bitmaps ext reserved",
     "",
     "bitmaps_ext: Reserved field",
     {{88, 8, 1}, {112, 4, 0x23852875}, {116, 4, 24}, {124, 4, 1}}},
    {"bitmaps ext of none",
     "",
     "zero bitmaps",
     {{88, 8, 1}, {112, 4, 0x23852875}, {116, 4, 24}, {120, 8, 0}}},
    {"65536 bitmaps",
     "",
     "exceeding the maximum",
     {{88, 8, 1}, {112, 4, 0x23852875}, {116, 4, 24}, {120, 8, UINT64_C(65536) << 32}}},
    {"bitmap directory of 0",
     "",
     "invalid bitmap directory size 0",
     {{88, 8, 1},
      {112, 8, UINT64_C(0x2385287500000018)},
      {120, 8, UINT64_C(1) << 32},
      {128, 8, 0}}},
    {"bitmap directory 2^63",
     "",
     "invalid bitmap directory size",
     {{88, 8, 1},
      {112, 8, UINT64_C(0x2385287500000018)},
      {120, 8, UINT64_C(1) << 32},
      {128, 8, UINT64_C(1) << 63}}},
    {"CRYPTO ext, not encrypted",
     "",
     "CRYPTO header extension only expected",
     {{112, 4, 0x0537be77}, {116, 4, 16}}},
    {"CRYPTO ext length",
     "",
     "CRYPTO header extension size 8",
     {{32, 4, 2}, {112, 4, 0x0537be77}, {116, 4, 8}}},
    {"CRYPTO ext not aligned",
     "",
     "Encryption header offset 0x201",
     {{32, 4, 2}, {112, 8, UINT64_C(0x0537be7700000010)}, {120, 8, 0x201}, {128, 8, 512}}},
    {"CRYPTO ext larger than the file",
     "",
     "does not fit",
     {{32, 4, 2},
      {112, 8, UINT64_C(0x0537be7700000010)},
      {120, 8, CLUSTER},
      {128, 8, UINT64_C(1) << 62}}},
};

/* ---- a sound image in memory ---- */

static GByteArray *sound(const char *options)
{
    g_autoptr(GError) error = NULL;
    const struct image_format *format = format_find("qcow2", &error);
    g_autoptr(Options) o = options_new(format->tools->create_options, NULL);
    struct image_create how = {
        .file = mem_file(NULL, false, 0), .name = "memory", .size = SIZE, .options = o};
    assert_works(!*options || options_parse(o, options, &error), error);
    assert_works(format->tools->create(&how, &error), error);
    GByteArray *bytes = g_byte_array_ref(mem_of(how.file)->bytes);
    file_close(how.file);
    return bytes;
}

static void change(GByteArray *image, const struct change *c)
{
    uint8_t p[8];
    if (c->n) {
        be64_put(p, c->value);
        assert_true(c->at + c->n <= image->len);
        memcpy(image->data + c->at, p + 8 - c->n, c->n);
    }
}

static struct node *open_image(GByteArray *bytes, unsigned flags, GError **error)
{
    json_t *o = json_pack("{s:s}", "driver", "qcow2");
    struct node *n = node_open_file(mem_file(g_byte_array_ref(bytes), false, flags), NULL, o,
                                    flags | OPEN_NO_BACKING, error);
    json_decref(o);
    return n;
}

static void each_bad_header_is_refused_by_name(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(headers); i++) {
        const struct row *row = &headers[i];
        for (unsigned writing = 0; writing < 2; writing++) {
            g_autoptr(GError) error = NULL;
            GByteArray *image = sound(row->options);
            for (unsigned k = 0; k < G_N_ELEMENTS(row->changes); k++) {
                change(image, &row->changes[k]);
            }
            g_autofree uint8_t *before = g_memdup2(image->data, image->len);
            struct node *n = open_image(image, writing ? 0 : OPEN_READ_ONLY, &error);
            if (n || !error || !strstr(error->message, row->says) || strchr(error->message, '\n')) {
                fail_msg("%s: %s", row->what, error ? error->message : "opens");
            }
            assert_memory_equal(before, image->data, image->len);
            g_byte_array_unref(image);
        }
    }
}

/* Every cut of the file is refused or reads without harm. */
static void a_file_cut_off_anywhere_does_no_harm(void **state)
{
    (void)state;
    GByteArray *whole = sound("");
    for (unsigned n = 0; n < whole->len; n += n < 200 ? 1 : 4093) {
        g_autoptr(GError) error = NULL;
        GByteArray *image = g_byte_array_new();
        g_byte_array_append(image, whole->data, n);
        struct node *node = open_image(image, OPEN_READ_ONLY, &error);
        uint8_t buf[512];
        if (node) {
            chain_read(node, 0, buf, sizeof(buf));
            chain_close(node);
        } else {
            assert_non_null(error);
        }
        g_byte_array_unref(image);
    }
    g_byte_array_unref(whole);
}

/* ---- tables ---- */

/* Guest clusters 0 to 3 are host clusters 4 to 7, their table is cluster 8. */
static GByteArray *with_data(const char *options)
{
    g_autoptr(GError) error = NULL;
    GByteArray *image = sound(options);
    struct node *n = open_image(image, 0, &error);
    g_autofree uint8_t *buf = g_malloc(4 * CLUSTER);
    memset(buf, 0x5a, 4 * CLUSTER);
    assert_non_null(n);
    assert_int_equal(chain_write(n, 0, buf, 4 * CLUSTER), 0);
    assert_int_equal(chain_flush(n), 0);
    chain_close(n);
    return image;
}

#define COPIED (UINT64_C(1) << 63)
enum { L1_AT = 3 * CLUSTER, REFTABLE_AT = CLUSTER, REFBLOCK_AT = 2 * CLUSTER, L2_AT = 8 * CLUSTER };

/* What reading the first and writing the ninth guest cluster gives. */
static const struct {
    const char *what;
    struct change change;
    int read, write;
    bool marked, repairable; /* marked: the corrupt bit is set afterwards */
} tables[] = {
    {"L1 entry not aligned", {L1_AT, 8, COPIED | (L2_AT + 512)}, -EIO, -EIO, true, false},
    {"L1 entry behind the end", {L1_AT, 8, COPIED | 1 << 30}, -EIO, -EIO, false, false},
    {"L2 entry not aligned", {L2_AT, 8, COPIED | (4 * CLUSTER + 512)}, -EIO, -EIO, true, false},
    {"L2 entry behind the end", {L2_AT, 8, COPIED | 1 << 30}, -EIO, 0, false, false},
    {"unit behind the end", {L2_AT, 8, UINT64_C(1) << 62 | 1 << 30}, -EIO, 0, false, false},
    {"unit of rubbish", {L2_AT, 8, UINT64_C(1) << 62 | 5 * CLUSTER}, -EIO, 0, false, true},
    {"two clusters are one", {L2_AT + 8, 8, COPIED | 4 * CLUSTER}, 0, 0, false, true},
    {"used cluster counts 0", {REFBLOCK_AT + 12, 2, 0}, 0, 0, false, true},
    {"refcount table counts 0", {REFBLOCK_AT + 2, 2, 0}, 0, -EIO, true, true},
    {"L2 table counts 0", {REFBLOCK_AT + 16, 2, 0}, 0, -EIO, true, true},
    {"header counts 0", {REFBLOCK_AT, 2, 0}, 0, -EIO, true, true},
    {"refcount block not aligned", {REFTABLE_AT, 8, REFBLOCK_AT + 512}, 0, -EIO, true, true},
    {"refcount block behind the end", {REFTABLE_AT, 8, 1 << 30}, 0, -EIO, false, true},
    {"no refcount block", {REFTABLE_AT, 8, 0}, 0, -EIO, true, true},
    {"reserved bits in L2", {L2_AT, 8, COPIED | (4 * CLUSTER + 2)}, 0, 0, false, false},
    {"data on the header", {L2_AT + 64, 8, COPIED | CLUSTER}, 0, -EIO, true, true},
};

static void tables_that_lie_are_found(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(tables); i++) {
        g_autoptr(GError) error = NULL;
        GByteArray *image = with_data("");
        change(image, &tables[i].change);
        struct check_result res = {0};
        struct node *n = open_image(image, OPEN_READ_ONLY | OPEN_CHECK, &error);
        assert_non_null(n);
        bool checked = n->format->tools->check(n, FIX_NOTHING, &res, &error);
        g_clear_error(&error);
        chain_close(n);
        if (checked && !res.corruptions && !res.check_errors) {
            fail_msg("%s: check finds nothing", tables[i].what);
        }
        uint8_t buf[512] = {1};
        n = open_image(image, 0, &error);
        assert_non_null(n);
        int r = chain_read(n, 0, buf, sizeof(buf));
        int w = chain_write(n, 8 * CLUSTER, buf, sizeof(buf));
        chain_close(n);
        if (r != tables[i].read || w != tables[i].write ||
            !!(image->data[79] & 2) != tables[i].marked) {
            fail_msg("%s: read %d, write %d, features %d", tables[i].what, r, w, image->data[79]);
        }
        n = open_image(image, 0, &error);
        if (tables[i].marked != (n == NULL)) {
            fail_msg("%s: %s", tables[i].what, n ? "opens" : error->message);
        }
        if (n) {
            chain_close(n);
        }
        g_clear_error(&error);
        g_byte_array_unref(image);
    }
}

/* check -r all makes every one of them an image that check calls clean. */
static void repair_makes_them_clean(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(tables); i++) {
        g_autoptr(GError) error = NULL;
        GByteArray *image = with_data("");
        struct check_result res = {0}, again = {0};
        if (!tables[i].repairable) {
            g_byte_array_unref(image);
            continue; /* entries that name nothing: only their owner knows what to do */
        }
        change(image, &tables[i].change);
        struct node *n = open_image(image, OPEN_CHECK, &error);
        assert_works(n->format->tools->check(n, FIX_LEAKS | FIX_ERRORS, &res, &error), error);
        chain_close(n);
        n = open_image(image, OPEN_READ_ONLY | OPEN_CHECK, &error);
        assert_works(n->format->tools->check(n, FIX_NOTHING, &again, &error), error);
        chain_close(n);
        if (again.corruptions || again.check_errors || again.leaks || !res.corruptions_fixed) {
            fail_msg("%s: %" PRIu64 " corruptions, %" PRIu64 " leaks left, %" PRIu64 " fixed",
                     tables[i].what, again.corruptions, again.leaks, res.corruptions_fixed);
        }
        g_byte_array_unref(image);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bad_header_is_refused_by_name),
        cmocka_unit_test(tables_that_lie_are_found),
        cmocka_unit_test(repair_makes_them_clean),
        cmocka_unit_test(a_file_cut_off_anywhere_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
