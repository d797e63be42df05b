/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/bytes.h"
#include "tests/unit/bad_image.h"

/*
 * What changes the whole image and is cut short.
 *
 * A resize that the power cuts short, with some of what was written since the last flush on the
 * medium and some not, leaves the old disk or the new one: what both have reads as before, and
 * check finds nothing but leaks.
 */
enum { UNIT = 65536, UNITS = BAD_SIZE / UNIT, CUTS = 60,
       SNAPSHOT_CUTS = 20 };

struct step {
    const char *format, *options;
    uint64_t sizes[5]; /* one after the other; ends with 0 */
};

#define MB(n) ((uint64_t)(n) << 20)

static const struct step steps[] = {
    {"vdi", NULL, {MB(20), MB(3), MB(9)}},
    {"vdi", "static=on", {MB(12), MB(5)}},
    {"vdi", NULL, {MB(300 << 10), MB(600 << 10)}}, /* the table leaves its room, twice */
    {"vpc", "force_size=on", {MB(20), MB(2000), MB(3), MB(9)}},
    {"vpc", "subformat=fixed,force_size=on", {MB(12), MB(5), MB(6)}},
    {"vhdx", "block_size=1M", {MB(20), MB(3), MB(9)}},
    {"vhdx", "block_size=1M", {MB(200 << 10), MB(3)}}, /* the BAT moves */
    {"vhdx", "block_size=1M,subformat=fixed", {MB(12), MB(5)}},
    {"vmdk", NULL, {MB(20), MB(3), MB(9)}},
    {"vmdk", NULL, {MB(5000), MB(40)}}, /* the directory moves */
};

static bool has_data(unsigned unit)
{
    return unit % 5 != 3;
}

static GByteArray *full_image(const struct step *s)
{
    g_autoptr(GError) error = NULL;
    GByteArray *image = sound_image(s->format, s->options);
    g_autofree uint8_t *data = g_malloc(UNIT);
    struct node *n = open_bytes(image, s->format, 0, &error);
    assert_works(n != NULL, error);
    for (unsigned u = UNITS; u-- > 0;) { /* backwards: places are not in the guest's order */
        memset(data, (int)u + 1, UNIT);
        if (has_data(u)) {
            assert_int_equal(chain_write(n, (uint64_t)u * UNIT, data, UNIT), 0);
        }
    }
    assert_int_equal(chain_flush(n), 0);
    chain_close(n);
    return image;
}

/* Readers refuse a block whose place is not below the number of blocks. */
static void check_places(const GByteArray *disk, const char *when)
{
    uint32_t table = le32_at(disk->data + 0x154), n = le32_at(disk->data + 0x180);
    for (uint32_t b = 0; b < n && table + 4 * (b + 1) <= disk->len; b++) {
        uint32_t place = le32_at(disk->data + table + 4 * b);
        if (place < 0xfffffffe && place >= n) {
            fail_msg("%s: block %u of %u is at place %u", when, b, n, place);
        }
    }
}

/* Up to @kept bytes are as they were made, all behind them is zero. */
static void check_disk(GByteArray *disk, const struct step *s, uint64_t kept, uint64_t old,
                       uint64_t new, const char *when)
{
    g_autoptr(GError) error = NULL;
    struct check_result out = {0};
    uint8_t buf[512];
    struct node *n = open_bytes(disk, s->format, OPEN_CHECK, &error);
    if (!n) {
        fail_msg("%s: %s", when, error->message);
    }
    if (n->size != old && n->size != new) {
        fail_msg("%s: %llu bytes", when, (unsigned long long)n->size);
    }
    if (n->format->tools->check) {
        assert_works(n->format->tools->check(n, FIX_NOTHING, &out, &error), error);
        assert_int_equal(out.corruptions, 0);
    }
    for (unsigned u = 0; u < UNITS + 16 && (u + UINT64_C(1)) * UNIT <= n->size; u++) {
        bool there = (u + UINT64_C(1)) * UNIT <= kept && has_data(u);
        bool cut_off = (u + UINT64_C(1)) * UNIT > MIN(kept, new); /* in both: old bytes, or none */
        assert_int_equal(chain_read(n, (uint64_t)u * UNIT + 1024, buf, sizeof(buf)), 0);
        if (buf[7] != (there ? u + 1 : 0) && !(cut_off && !buf[7])) {
            fail_msg("%s: unit %u holds %u", when, u, buf[7]);
        }
    }
    chain_close(n);
}

static GByteArray *copy_of(const GByteArray *from)
{
    GByteArray *to = g_byte_array_sized_new(from->len);
    g_byte_array_append(to, from->data, from->len);
    return to;
}

static const struct mem_op *op_at(const GArray *ops, unsigned i)
{
    return &g_array_index(ops, struct mem_op, i);
}

/* What is on the medium if the power goes before operation @cut. */
static GByteArray *disk_after(const GByteArray *start, const GArray *ops, unsigned cut, GRand *dice)
{
    GByteArray *disk = copy_of(start);
    unsigned flushed = 0;
    for (unsigned i = 0; i < cut; i++) {
        flushed = op_at(ops, i)->kind == MEM_FLUSH ? i : flushed;
    }
    for (unsigned i = 0; i < cut; i++) {
        if (i < flushed || g_rand_int_range(dice, 0, 3)) {
            mem_apply(disk, op_at(ops, i), UINT64_MAX);
        }
    }
    return disk;
}

static void resize_and_cut(const struct step *s, GByteArray **image, uint64_t *kept, uint64_t size,
                           GRand *dice)
{
    g_autoptr(GError) error = NULL;
    json_t *o = json_pack("{s:s}", "driver", s->format);
    struct file *f = mem_file(copy_of(*image), true, 0);
    struct mem *mem = mem_of(f);
    struct node *n = node_open_file(f, NULL, o, 0, &error);
    json_decref(o);
    assert_works(n != NULL, error);
    uint64_t old = n->size, before = *kept;
    assert_works(n->format->tools->resize(n, size, PREALLOC_OFF, &error), error);
    assert_int_equal(chain_flush(n), 0);
    *kept = MIN(*kept, size);
    unsigned ops = mem->ops->len;
    for (unsigned i = 0; i < MIN(CUTS, ops); i++) {
        unsigned cut = ops <= CUTS ? i : (unsigned)g_rand_int_range(dice, 0, (gint32)ops);
        g_autofree char *when = g_strdup_printf("%s %s to %u MiB, cut at %u of %u", s->format,
                                                s->options ? s->options : "", (unsigned)(size >> 20),
                                                cut, ops);
        GByteArray *disk = disk_after(*image, mem->ops, cut, dice);
        if (!strcmp(s->format, "vdi")) {
            check_places(disk, when);
        }
        check_disk(disk, s, before, old, size, when);
        g_byte_array_unref(disk);
    }
    GByteArray *after = g_byte_array_ref(mem->bytes);
    chain_close(n);
    check_disk(after, s, *kept, size, size, "done");
    g_byte_array_unref(*image);
    *image = after;
}

static void a_resize_that_is_cut_short_corrupts_nothing(void **state)
{
    (void)state;
    GRand *dice = g_rand_new_with_seed(7);
    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        GByteArray *image = full_image(&steps[i]);
        uint64_t kept = BAD_SIZE;
        for (unsigned k = 0; steps[i].sizes[k]; k++) {
            resize_and_cut(&steps[i], &image, &kept, steps[i].sizes[k], dice);
        }
        g_byte_array_unref(image);
    }
    g_rand_free(dice);
}

/* ---- snapshots ---- */

/* The first byte of each unit, as the guest reads it, of a disk that check calls sound. */
static void first_bytes(GByteArray *disk, uint8_t out[UNITS], const char *when)
{
    g_autoptr(GError) error = NULL;
    struct check_result found = {0};
    struct node *n = open_bytes(disk, "qcow2", OPEN_CHECK | OPEN_READ_ONLY, &error);
    if (!n) {
        fail_msg("%s: %s", when, error->message);
    }
    assert_works(n->format->tools->check(n, FIX_NOTHING, &found, &error), error);
    if (found.corruptions || found.check_errors) {
        fail_msg("%s: %u corruptions", when, (unsigned)found.corruptions);
    }
    for (unsigned u = 0; u < UNITS; u++) {
        assert_int_equal(chain_read(n, (uint64_t)u * UNIT, &out[u], 1), 0);
    }
    chain_close(n);
}

static bool snapshot_step(struct node *n, char verb, const char *name, GError **error)
{
    const struct snapshot_tools *s = n->format->tools->snapshots;
    struct image_snapshot fresh = {.name = (char *)(uintptr_t)name, .icount = UINT64_MAX};
    uint8_t data[512];
    switch (verb) {
    case 'c':
        return s->create(n, &fresh, error);
    case 'a':
        return s->apply(n, name, error);
    case 'd':
        return s->remove(n, name, error);
    default: /* some units become others */
        memset(data, *name, sizeof(data));
        for (unsigned u = 0; u < UNITS; u += 7) {
            assert_int_equal(chain_write(n, (uint64_t)u * UNIT, data, sizeof(data)), 0);
        }
        return true;
    }
}

static void snapshot_and_cut(GByteArray **image, const char *options, char verb, const char *name,
                             GRand *dice)
{
    g_autoptr(GError) error = NULL;
    uint8_t old[UNITS], new[UNITS], cut_off[UNITS];
    json_t *o = json_pack("{s:s}", "driver", "qcow2");
    struct file *f = mem_file(copy_of(*image), true, 0);
    struct mem *mem = mem_of(f);
    struct node *n = node_open_file(f, NULL, o, 0, &error);
    json_decref(o);
    assert_works(n != NULL && snapshot_step(n, verb, name, &error), error);
    assert_int_equal(chain_flush(n), 0);
    unsigned ops = mem->ops->len;
    GByteArray *after = copy_of(mem->bytes);
    first_bytes(*image, old, "before");
    first_bytes(after, new, "after");
    for (unsigned i = 0; i < MIN(SNAPSHOT_CUTS, ops) && verb != 'w'; i++) {
        unsigned cut = ops <= SNAPSHOT_CUTS ? i : (unsigned)g_rand_int_range(dice, 0, (gint32)ops);
        g_autofree char *when = g_strdup_printf("%s: %c %s, cut at %u of %u",
                                                options ? options : "", verb, name, cut, ops);
        GByteArray *disk = disk_after(*image, mem->ops, cut, dice);
        first_bytes(disk, cut_off, when);
        if (memcmp(cut_off, old, UNITS) && memcmp(cut_off, new, UNITS)) {
            fail_msg("%s: neither the old disk nor the new one", when);
        }
        g_byte_array_unref(disk);
    }
    chain_close(n);
    g_byte_array_unref(*image);
    *image = after;
}

static void a_snapshot_that_is_cut_short_corrupts_nothing(void **state)
{
    static const char *const kinds[] = {NULL, "compat=0.10", "cluster_size=512",
                                        "extended_l2=on,cluster_size=16k", "refcount_bits=2"};
    static const struct {
        char verb;
        const char *name;
    } life[] = {{'c', "a"}, {'w', "x"}, {'c', "b"}, {'w', "y"}, {'a', "a"}, {'w', "z"},
                {'a', "b"}, {'d', "a"}, {'w', "q"}, {'d', "b"}, {'c', "c"}, {'d', "c"}};
    GRand *dice = g_rand_new_with_seed(9);
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        GByteArray *image = full_image(&(struct step){"qcow2", kinds[i], {0}});
        for (unsigned k = 0; k < G_N_ELEMENTS(life); k++) {
            snapshot_and_cut(&image, kinds[i], life[k].verb, life[k].name, dice);
        }
        g_byte_array_unref(image);
    }
    g_rand_free(dice);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_resize_that_is_cut_short_corrupts_nothing),
        cmocka_unit_test(a_snapshot_that_is_cut_short_corrupts_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
