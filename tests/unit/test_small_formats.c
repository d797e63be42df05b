/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/bad.h"

#include "host/image/codec.h"
#include "host/image/secret.h"

/*
 * qcow, qed, parallels, cow and luks: writes, zeroes and packed units at any border, alone and
 * over a backing file, beside a plain array; what reads back, also after opening again.
 */
enum { SIZE = (3 << 20) + 5 * 512, BASE = 2 << 20, OPS = 250, MOST = 200000 };

struct kind {
    const char *format, *create, *open;
    bool backing;
};

static const struct kind kinds[] = {
    {"qcow", "", "{}", false},
    {"qcow", "", "{}", true},
    {"qcow", "encrypt.format=aes,encrypt.key-secret=s", "{\"encrypt\": {\"key-secret\": \"s\"}}", false},
    {"qcow", "encrypt.format=aes,encrypt.key-secret=s", "{\"encrypt\": {\"key-secret\": \"s\"}}", true},
    {"qed", "cluster_size=4k,table_size=1", "{}", false},
    {"qed", "", "{}", true},
    {"parallels", "cluster_size=64k", "{}", false},
    {"parallels", "cluster_size=31k", "{}", false}, /* no power of two */
    {"cow", "", "{}", false},
    {"cow", "", "{}", true},
    {"luks", "key-secret=s,iter-time=1", "{\"key-secret\": \"s\"}", false},
};

static uint8_t model[SIZE], base[BASE], buf[SIZE];

static struct node *open_kind(const struct kind *kind, GByteArray *image, GByteArray *below)
{
    g_autoptr(GError) error = NULL;
    struct node *n = open_bytes(image, kind->format, kind->open, 0, &error);
    assert_works(n != NULL, error);
    if (kind->backing) {
        n->backing = open_bytes(below, "raw", "{}", OPEN_READ_ONLY, &error);
        assert_works(n->backing != NULL, error);
    }
    return n;
}

static void fill_random(GRand *dice, uint8_t *to, size_t n)
{
    uint8_t step = (uint8_t)g_rand_int(dice), v = (uint8_t)g_rand_int(dice);
    for (size_t i = 0; i < n; i++) {
        to[i] = v = (uint8_t)(v + step + i / 700);
    }
}

static void write_packed(struct node *n, GRand *dice)
{
    static uint8_t packed[1 << 16];
    uint64_t at = (uint64_t)g_rand_int_range(dice, 0, (gint32)(SIZE / n->granule)) * n->granule;
    fill_random(dice, buf, n->granule);
    int64_t k = n->codec->pack(buf, n->granule, packed, sizeof(packed), 0);
    assert_true(k > 0);
    if (chain_write_packed(n, at, packed, (uint32_t)k) == 0) {
        memcpy(model + at, buf, n->granule);
    }
}

static void one_step(struct node *n, GRand *dice)
{
    int what = g_rand_int_range(dice, 0, 10);
    uint64_t at = (uint64_t)g_rand_int_range(dice, 0, SIZE);
    uint64_t count = (uint64_t)g_rand_int_range(dice, 1, g_rand_boolean(dice) ? 3000 : MOST);
    count = MIN(count, SIZE - at);
    if (what < 6) {
        fill_random(dice, model + at, count);
        assert_int_equal(chain_write(n, at, model + at, count), 0);
    } else if (what < 8) {
        memset(model + at, 0, count);
        assert_int_equal(chain_zero(n, at, count, what == 6 ? ZERO_KEEP : ZERO_UNMAP), 0);
    } else if (what == 8) {
        assert_int_equal(chain_flush(n), 0);
    } else if (n->codec && !n->cipher) {
        write_packed(n, dice);
    }
}

static void compare(struct node *n, const struct kind *kind, unsigned seed, unsigned step)
{
    memset(buf, 0xee, sizeof(buf));
    assert_int_equal(chain_read(n, 0, buf, SIZE), 0);
    for (size_t i = 0; i < SIZE; i++) {
        if (buf[i] != model[i]) {
            fail_msg("%s %s%s, seed %u, step %u: byte %zu is %u, not %u", kind->format, kind->create,
                     kind->backing ? " over a backing file" : "", seed, step, i, buf[i], model[i]);
        }
    }
}

static void check_image(struct node *n)
{
    g_autoptr(GError) error = NULL;
    struct check_result result = {0};
    if (n->format->tools->check) {
        assert_works(n->format->tools->check(n, FIX_NOTHING, &result, &error), error);
        assert_int_equal(result.corruptions + result.check_errors, 0);
        assert_int_equal(result.leaks, 0);
    }
}

static void run_kind(const struct kind *kind, GByteArray *below, unsigned seed)
{
    GRand *dice = g_rand_new_with_seed(seed);
    GByteArray *image = good_image(kind->format, kind->create, SIZE, kind->backing ? "below" : NULL);
    struct node *n = open_kind(kind, image, below);
    memset(model, 0, sizeof(model));
    if (!strcmp(kind->format, "luks")) { /* what was never written is noise */
        assert_int_equal(chain_write(n, 0, model, SIZE), 0);
    }
    memcpy(model, base, kind->backing ? BASE : 0);
    for (unsigned i = 0; i < OPS; i++) {
        one_step(n, dice);
        if (i % 50 == 49) {
            compare(n, kind, seed, i);
            chain_close(n);
            n = open_kind(kind, image, below);
            compare(n, kind, seed, i);
        }
    }
    check_image(n);
    chain_close(n);
    g_byte_array_unref(image);
    g_rand_free(dice);
}

static bool add_secret(const char *text, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(text, NULL, error);
    return kv && secret_add(kv, error) && keyval_done(kv, error);
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    GByteArray *below = g_byte_array_new();
    for (size_t i = 0; i < BASE; i++) {
        base[i] = (uint8_t)(i * 13 + i / 4096);
    }
    g_byte_array_append(below, base, BASE);
    assert_works(add_secret("id=s,data=open", &error), error);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        run_kind(&kinds[i], below, i + 1);
        run_kind(&kinds[i], below, i + 1000);
    }
    g_byte_array_unref(below);
}

/* What commit does to the upper image when it is done. */
static void an_image_can_be_emptied(void **state)
{
    static const char *const formats[] = {"qcow", "qed"};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
        g_autoptr(GError) error = NULL;
        GByteArray *image = good_image(formats[i], "", 4 << 20, NULL);
        guint empty = image->len;
        fill_image(image, formats[i], "{}", 100, 2 << 20);
        assert_true(image->len > empty);
        struct node *n = open_bytes(image, formats[i], "{}", 0, &error);
        assert_works(n != NULL, error);
        assert_int_equal(chain_zero(n, 0, n->size, ZERO_ABSENT), 0);
        struct chain_status s;
        assert_int_equal(chain_status(n, NULL, 0, n->size, &s), 0);
        assert_false(s.present);
        assert_int_equal(image->len, empty);
        assert_int_equal(chain_write(n, 5000, "x", 1), 0);
        chain_close(n);
        n = open_bytes(image, formats[i], "{}", 0, &error);
        char c = 0;
        assert_int_equal(chain_read(n, 5000, &c, 1), 0);
        assert_int_equal(c, 'x');
        chain_close(n);
        g_byte_array_unref(image);
    }
}

/* A file that cannot grow: the write fails, and nothing that was there is lost. */
static void a_full_disk_loses_nothing(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autoptr(GError) error = NULL;
        const struct kind *kind = &kinds[i];
        if (kind->backing || !strcmp(kind->format, "luks") || !strcmp(kind->format, "cow")) {
            continue; /* over nothing, or with all of its space from the start */
        }
        GByteArray *image = good_image(kind->format, kind->create, SIZE, NULL);
        struct node *n = open_kind(kind, image, NULL);
        memset(model, 0, sizeof(model));
        GRand *dice = g_rand_new_with_seed(1);
        fill_random(dice, model, 300000);
        g_rand_free(dice);
        assert_int_equal(chain_write(n, 0, model, 300000), 0);
        mem_of(n->file)->max = image->len + 100000;
        assert_int_equal(chain_write(n, 1 << 20, model, 1 << 20), -ENOSPC);
        assert_int_equal(chain_flush(n), 0);
        mem_of(n->file)->max = 512 << 20;
        assert_int_equal(chain_read(n, 0, buf, 300000), 0);
        assert_memory_equal(buf, model, 300000);
        assert_int_equal(chain_write(n, 1 << 20, model, 300000), 0);
        chain_close(n);
        n = open_kind(kind, image, NULL);
        assert_int_equal(chain_read(n, 0, buf, 300000), 0);
        assert_memory_equal(buf, model, 300000);
        assert_int_equal(chain_read(n, 1 << 20, buf, 300000), 0);
        assert_memory_equal(buf, model, 300000);
        struct check_result result = {0};
        if (n->format->tools->check) {
            assert_works(n->format->tools->check(n, FIX_NOTHING, &result, &error), error);
            assert_int_equal(result.corruptions, 0);
        }
        chain_close(n);
        g_byte_array_unref(image);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(an_image_can_be_emptied),
        cmocka_unit_test(a_full_disk_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
