/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/bad_image.h"

#include "base/bytes.h"
#include "host/image/codec.h"
#include "host/image/vmdk_stream.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <unistd.h>

static const struct bad_format vmdk = {.name = "vmdk"};

#define STREAM "subformat=streamOptimized"
#define NOBODY UINT64_C(0xffffffffffffffff)

static const struct row rows[] = {
    {"version 0", NULL, "Unsupported VMDK version 0", {{4, 4, 0}}},
    {"version 4", NULL, "Unsupported VMDK version 4", {{4, 4, 4}}},
    {"magic", NULL, "descriptor", {{0, 4, 0}}},
    {"seSparse", NULL, "seSparse extents are not supported", {{0, 4, 0xcafebabe}}},
    {"grain 0", NULL, "Invalid granularity 0", {{20, 8, 0}}},
    {"grain 3", NULL, "Invalid granularity 3", {{20, 8, 3}}},
    {"grain 128 MiB", NULL, "Invalid granularity 262144", {{20, 8, 1 << 18}}},
    {"grain 2^63", NULL, "Invalid granularity 9223372036854775808", {{20, 8, UINT64_C(1) << 63}}},
    {"tables of 0", NULL, "a grain table has 1 to 512 entries, not 0", {{44, 4, 0}}},
    {"tables of 513", NULL, "a grain table has 1 to 512 entries, not 513", {{44, 4, 513}}},
    {"capacity 0", NULL, "a capacity of 0 sectors", {{12, 8, 0}}},
    {"capacity 2^63", NULL, "a capacity of 9223372036854775808", {{12, 8, UINT64_C(1) << 63}}},
    {"2^26 tables", NULL, "L1 size too big: 67108864", {{12, 8, UINT64_C(1) << 42}}},
    {"2^24 tables", NULL, "File truncated, expecting at least", {{12, 8, UINT64_C(1) << 40}}},
    {"directory at 0", NULL, "the grain directory is at sector 0", {{56, 8, 0}}},
    {"directory behind the end", NULL, "for grain directory", {{56, 8, 1 << 30}}},
    {"directory at 2^63", NULL, "the grain directory is at sector", {{56, 8, UINT64_C(1) << 63}}},
    {"redundant at 0", NULL, "the redundant grain directory is at sector 0", {{48, 8, 0}}},
    {"redundant behind the end", NULL, "for redundant grain directory", {{48, 8, 1 << 30}}},
    {"directory at the end", NULL, "no footer and end marker", {{56, 8, NOBODY}}},
    {"grains behind the end", NULL, "for the metadata", {{64, 8, UINT64_C(1) << 40}}},
    {"grains at 2^64", NULL, "for the metadata", {{64, 8, NOBODY}}},
    {"newlines", NULL, "copied as text", {{75, 1, '\n'}}},
    {"compression 2", STREAM, "compression algorithm 2", {{77, 2, 2}}},
    {"descriptor behind the end", NULL, "a descriptor of 10240 bytes", {{28, 8, 1 << 30}}},
    {"descriptor of 2^30", NULL, "a descriptor of 549755813888 bytes", {{36, 8, 1 << 30}}},
    {"descriptor of 2^63", NULL, "a descriptor of", {{36, 8, UINT64_C(1) << 63}}},
    {"no CID", NULL, "the descriptor has no CID", {{544, 1, 'X'}}},
    {"CID", NULL, "CID \"z", {{548, 1, 'z'}}},
    {"cut in the header", NULL, "descriptor", {{0}}, false, 3},
    {"cut in the tables", NULL, "File truncated", {{0}}, false, 20000},
    {"stream without end", STREAM, "no footer and end marker", {{0}}, false, 67072},
};

static void each_bad_header_is_refused_by_name(void **state)
{
    (void)state;
    refuse_rows(&vmdk, rows, G_N_ELEMENTS(rows));
}

static const struct {
    const char *what, *lines, *says;
    unsigned flags;
} texts[] = {
    {"no extents", "", "the descriptor has no extents", 0},
    {"extent type", "RW 128 FOO \"a\"", "extents are FLAT, SPARSE", 0},
    {"seSparse", "RW 128 SESPARSE \"a\"", "extents are FLAT, SPARSE", 0},
    {"no number", "RW abc FLAT \"a\" 0", "the size is not a number", 0},
    {"minus one", "RW -1 FLAT \"a\" 0", "the size is not a number", 0},
    {"no sectors", "RW 0 FLAT \"a\" 0", "1 to 2^47 sectors", 0},
    {"2^63 sectors", "RW 9223372036854775808 FLAT \"a\" 0", "1 to 2^47 sectors", 0},
    {"2^64 sectors", "RW 18446744073709551616 FLAT \"a\" 0", "the size is not a number", 0},
    {"sum of sectors", "RW 140737488355328 ZERO\nRW 128 ZERO", "all extents together", 0},
    {"negative offset", "RW 128 FLAT \"a\" -1", "the offset is not a number", 0},
    {"no offset", "RW 128 FLAT \"a\"", "a FLAT extent needs an offset", 0},
    {"large offset", "RW 128 FLAT \"a\" 9223372036854775807", "the offset is too large", 0},
    {"no quotes", "RW 128 FLAT a 0", "no file name in quotes", 0},
    {"no access", "NOACCESS 128 FLAT \"data\" 0", "is marked NOACCESS", 0},
    {"missing", "RW 128 FLAT \"missing\" 0", "missing", 0},
    {"too short", "RW 4096 FLAT \"data\" 0", "expecting at least 2097152 bytes", 0},
    {"itself", "RW 1 FLAT \"x.vmdk\" 0", "is the descriptor itself", OPEN_READ_ONLY},
    {"same sparse file", "RW 128 SPARSE \"sparse\"\nRW 128 SPARSE \"sparse\"", "are the same sparse file", 0},
    {"a sparse one of zeros", "RW 128 SPARSE \"data\"", "no vmdk sparse extent", 0},
    {"untrusted, absolute", "RW 1 FLAT \"/etc/hostname\" 0", "untrusted", OPEN_UNTRUSTED},
    {"untrusted, above", "RW 1 FLAT \"../data\" 0", "untrusted", OPEN_UNTRUSTED},
    {"untrusted, protocol", "RW 1 FLAT \"nbd://localhost\" 0", "untrusted", OPEN_UNTRUSTED},
    {"untrusted, json", "RW 1 FLAT \"json:{}\" 0", "untrusted", OPEN_UNTRUSTED},
};

struct folder {
    char *path, *image, *data, *sparse;
};

static struct folder make_folder(void)
{
    struct folder f = {.path = g_dir_make_tmp("lodge-test-vmdk-XXXXXX", NULL)};
    f.image = g_build_filename(f.path, "x.vmdk", NULL);
    f.data = g_build_filename(f.path, "data", NULL);
    g_autofree char *zeros = g_malloc0(65536);
    assert_true(g_file_set_contents(f.data, zeros, 65536, NULL));
    f.sparse = g_build_filename(f.path, "sparse", NULL);
    GByteArray *image = sound_image("vmdk", NULL);
    assert_true(g_file_set_contents(f.sparse, (char *)image->data, image->len, NULL));
    g_byte_array_unref(image);
    return f;
}

static void drop_folder(struct folder *f)
{
    g_unlink(f->image);
    g_unlink(f->data);
    g_unlink(f->sparse);
    g_rmdir(f->path);
    g_free(f->image);
    g_free(f->data);
    g_free(f->sparse);
    g_free(f->path);
}

static struct node *open_text(const struct folder *f, const char *type, const char *lines,
                              unsigned flags, GError **error)
{
    g_autofree char *text = g_strdup_printf("# Disk DescriptorFile\nversion=1\nCID=12345678\n"
                                            "parentCID=ffffffff\ncreateType=\"%s\"\n%s\n", type, lines);
    assert_true(g_file_set_contents(f->image, text, -1, NULL));
    return chain_open(&(struct chain_open){.name = f->image, .format = "vmdk", .flags = flags}, error);
}

static void each_bad_descriptor_is_refused_by_name(void **state)
{
    (void)state;
    struct folder f = make_folder();
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GError) error = NULL;
        struct node *n = open_text(&f, "monolithicFlat", texts[i].lines, texts[i].flags, &error);
        if (n || !error || !strstr(error->message, texts[i].says) || strchr(error->message, '\n')) {
            fail_msg("%s: %s", texts[i].what, error ? error->message : "opens");
        }
    }
    static const char *const types[] = {"seSparse", "fullDevice", "monolithicSparse", "x\ty"};
    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        g_autoptr(GError) error = NULL;
        assert_null(open_text(&f, types[i], "RW 128 FLAT \"data\" 0", 0, &error));
        assert_non_null(strstr(error->message, "Unsupported image type"));
    }
    drop_folder(&f);
}

/* QEMU takes 20 seconds for this one. */
static void forty_thousand_extents_are_too_many(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    struct folder f = make_folder();
    g_autoptr(GString) lines = g_string_new(NULL);
    for (unsigned i = 0; i < 43000; i++) {
        g_string_append(lines, "RW 1 FLAT \"data\" 0\n");
    }
    assert_null(open_text(&f, "monolithicFlat", lines->str, 0, &error));
    assert_non_null(strstr(error->message, "more than 2048 extents"));
    drop_folder(&f);
}

/* Extents of one file, of zeros and read-only ones, in one disk. */
static void extents_of_all_kinds_make_a_disk(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    struct folder f = make_folder();
    uint8_t buf[512] = {5}, got[512];
    struct node *n = open_text(&f, "custom",
                               "RW 16 FLAT \"data\" 64\nRW 8 ZERO\nRW 16 FLAT \"data\" 0\n", 0, &error);
    assert_works(n != NULL, error);
    assert_int_equal(n->size, 40 * 512);
    assert_int_equal(chain_write(n, 24 * 512, buf, 512), 0);
    assert_int_equal(chain_write(n, 0, buf, 512), 0);
    assert_int_equal(chain_write(n, 16 * 512, buf, 512), -EROFS);
    assert_int_equal(chain_read(n, 24 * 512, got, 512), 0);
    assert_memory_equal(got, buf, 512);
    chain_close(n);
    g_autofree char *data = NULL, *text = NULL;
    assert_true(g_file_get_contents(f.data, &data, NULL, NULL));
    assert_int_equal(data[0], 5);
    assert_int_equal(data[64 * 512], 5);
    assert_true(g_file_get_contents(f.image, &text, NULL, NULL));
    assert_null(strstr(text, "CID=12345678")); /* written to: it is another content now */
    drop_folder(&f);
}

/* ---- tables ---- */

enum { GD = 26 * 512, GT = 27 * 512 }; /* of a small disk: the second set of tables */

static void tables_that_lie_are_found(void **state)
{
    static const struct {
        struct change change;
        int read;
        bool found;
    } lies[] = {
        {{GT, 4, 1 << 30}, -EIO, true},
        {{GT + 16 * 4, 4, 128}, 0, true}, /* the first grain is at sector 128 */
        {{GD, 4, 1 << 30}, -EIO, true},
    };
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(lies); i++) {
        GByteArray *image = sound_image("vmdk", NULL);
        fill_image(image, "vmdk", 3);
        assert_int_equal(corruptions_of(image, "vmdk"), 0);
        change_bytes(image, &lies[i].change, false);
        assert_int_equal(corruptions_of(image, "vmdk") > 0, lies[i].found);
        assert_int_equal(read_of(image, "vmdk"), lies[i].read);
        g_byte_array_unref(image);
    }
}

static void a_grain_whose_marker_lies_does_not_read(void **state)
{
    static const struct change lies[] = {
        {65536 + 8, 4, 0xffffffff}, {65536 + 8, 4, 3}, {65536, 8, 128}, {65536 + 12, 2, 0}};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(lies); i++) {
        GByteArray *image = sound_image("vmdk", STREAM);
        fill_image(image, "vmdk", 3);
        assert_int_equal(read_of(image, "vmdk"), 0);
        change_bytes(image, &lies[i], false);
        assert_int_equal(read_of(image, "vmdk"), -EIO);
        g_byte_array_unref(image);
    }
}

/* ---- streams ---- */

struct bytes {
    GByteArray *all;
    guint at;
};

static int put(void *owner, const void *from, size_t n)
{
    g_byte_array_append(((struct bytes *)owner)->all, from, (guint)n);
    return 0;
}

/* A pipe gives what it likes. */
static ssize_t get(void *owner, void *to, size_t n)
{
    struct bytes *b = owner;
    n = MIN(n, MIN(b->all->len - b->at, 777));
    if (n) {
        memcpy(to, b->all->data + b->at, n);
    }
    b->at += (guint)n;
    return (ssize_t)n;
}

/* Grains of 40 MiB, every third is there: three grain tables. */
static struct bytes make_stream(void)
{
    g_autoptr(GError) error = NULL;
    struct bytes b = {g_byte_array_new(), 0};
    g_autofree uint8_t *data = g_malloc(65536), *packed = g_malloc(70000);
    struct vmdk_stream_options how = {.size = 100 << 20, .name = "disk.vmdk"};
    struct vmdk_writer *w = vmdk_writer_new(&how, put, &b, &error);
    assert_works(w != NULL, error);
    for (unsigned g = 0; g < 1600; g += 37) {
        memset(data, (int)g, 65536);
        int64_t n = codec_zlib.pack(data, 65536, packed, 70000, 0);
        assert_true(n > 0);
        assert_works(vmdk_writer_grain(w, (uint64_t)g * 65536, packed, (size_t)n, &error), error);
    }
    assert_false(vmdk_writer_grain(w, 65536, packed, 100, &error));
    assert_non_null(strstr(error->message, "ascending order"));
    g_clear_error(&error);
    assert_works(vmdk_writer_finish(w, &error), error);
    vmdk_writer_free(w);
    return b;
}

static void a_stream_reads_back_as_stream_and_as_file(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    struct bytes b = make_stream();
    struct vmdk_reader *r = vmdk_reader_new(get, &b, &error);
    struct vmdk_grain grain;
    g_autofree uint8_t *data = g_malloc(65536);
    unsigned g = 0;
    int more;
    assert_works(r != NULL, error);
    assert_int_equal(vmdk_reader_size(r), 100 << 20);
    for (; (more = vmdk_reader_next(r, &grain, &error)) > 0; g += 37) {
        assert_int_equal(grain.offset, g * 65536);
        assert_int_equal(codec_zlib.unpack(grain.packed, grain.stored, data, grain.unit), 0);
        assert_int_equal(data[65535], (uint8_t)g);
    }
    assert_int_equal(more, 0);
    assert_true(g >= 1600);
    assert_int_equal(b.at, b.all->len);
    vmdk_reader_free(r);
    struct node *n = open_bytes(b.all, "vmdk", OPEN_READ_ONLY, &error);
    assert_works(n != NULL, error);
    for (unsigned k = 0; k < 1600; k++) {
        assert_int_equal(chain_read(n, (uint64_t)k * 65536, data, 512), 0);
        assert_int_equal(data[5], k % 37 ? 0 : (uint8_t)k);
    }
    chain_close(n);
    g_byte_array_unref(b.all);
}

/* Cut anywhere, or with a field changed: an error, never a disk that is silently shorter. */
static void a_bad_stream_is_an_error(void **state)
{
    static const struct {
        struct change change;
        const char *says;
    } lies[] = {
        {{65536 + 8, 4, 0xffffffff}, "is larger than a packed grain can be"},
        {{65536, 8, UINT64_C(1) << 60}, "is not one of this disk"},
        {{65536, 8, 1}, "is not one of this disk"},
        {{65536, 8, 128 * 100}, "is not in ascending order"},
        {{8, 4, 3}, "not streamOptimized"},
        {{64, 8, 0}, "an overhead of 0 sectors"},
    };
    (void)state;
    struct bytes whole = make_stream();
    for (guint cut = 0; cut < G_N_ELEMENTS(lies) + 400; cut++) {
        g_autoptr(GError) error = NULL;
        struct bytes b = {g_byte_array_new(), 0};
        struct vmdk_grain grain;
        bool lie = cut < G_N_ELEMENTS(lies);
        g_byte_array_append(b.all, whole.all->data,
                            lie ? whole.all->len : (whole.all->len - 512) / 400 * (cut - 6));
        if (lie) {
            change_bytes(b.all, &lies[cut].change, false);
        }
        struct vmdk_reader *r = vmdk_reader_new(get, &b, &error);
        while (r && vmdk_reader_next(r, &grain, &error) > 0) {
        }
        assert_non_null(error);
        if (!strstr(error->message, lie ? lies[cut].says : "the vmdk stream ends after")) {
            fail_msg("%u: %s", cut, error->message);
        }
        vmdk_reader_free(r);
        g_byte_array_unref(b.all);
    }
    g_byte_array_unref(whole.all);
}

static void a_file_cut_off_anywhere_does_no_harm(void **state)
{
    (void)state;
    cut_anywhere("vmdk", NULL);
    cut_anywhere("vmdk", STREAM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bad_header_is_refused_by_name),
        cmocka_unit_test(each_bad_descriptor_is_refused_by_name),
        cmocka_unit_test(forty_thousand_extents_are_too_many),
        cmocka_unit_test(extents_of_all_kinds_make_a_disk),
        cmocka_unit_test(tables_that_lie_are_found),
        cmocka_unit_test(a_grain_whose_marker_lies_does_not_read),
        cmocka_unit_test(a_stream_reads_back_as_stream_and_as_file),
        cmocka_unit_test(a_bad_stream_is_an_error),
        cmocka_unit_test(a_file_cut_off_anywhere_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
