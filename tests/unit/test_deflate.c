/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/deflate.h"

#include "tests/unit/test.h"

#include <glib.h>
#include <zlib.h>

/* What deflate.c packs, unpacked by zlib with a window of 4 KiB and in small steps, so that a
 * reference farther back is an error. */

enum { UNIT = 65536, BIG = 2 << 20, STEP = 1000, WINDOW_BITS = 12 };

static void unpack_strictly(const uint8_t *packed, size_t n, const uint8_t *want, size_t want_n)
{
    g_autofree uint8_t *got = g_malloc(want_n + STEP);
    z_stream s = {0};
    int r = Z_OK;
    assert_int_equal(inflateInit2(&s, -WINDOW_BITS), Z_OK);
    s.next_in = (uint8_t *)packed;
    s.avail_in = (unsigned)n;
    s.next_out = got;
    while (r == Z_OK && s.total_out <= want_n) {
        s.avail_out = STEP;
        r = inflate(&s, Z_NO_FLUSH);
    }
    assert_int_equal(r, Z_STREAM_END);
    assert_int_equal(s.total_out, want_n);
    assert_int_equal(s.avail_in, 0);
    assert_memory_equal(got, want, want_n);
    inflateEnd(&s);
}

static void check(struct deflater *d, const uint8_t *in, size_t n)
{
    g_autofree uint8_t *out = g_malloc(n + n / 8 + 1000), *again = g_malloc(n + n / 8 + 1000);
    for (int level = 1; level <= 9; level += 2) {
        size_t k = deflater_pack(d, in, n, out, n + n / 8 + 1000, level);
        assert_true(k > 0);
        unpack_strictly(out, k, in, n);
        /* What it packed before makes no difference, and room that is too small is noticed. */
        assert_int_equal(deflater_pack(d, in, n, again, n + n / 8 + 1000, level), k);
        assert_memory_equal(out, again, k);
        memset(again, 0xa5, k);
        assert_int_equal(deflater_pack(d, in, n, again, k / 2, level), 0);
        assert_int_equal(again[k / 2], 0xa5);
    }
}

enum pattern { BLANK, NOISE, TEXT, DISTANT, FEW, STEPS, PATTERNS };

static void fill(uint8_t *to, size_t n, enum pattern p, GRand *rng)
{
    for (size_t i = 0; i < n; i++) {
        switch (p) {
        case BLANK:
            to[i] = 0;
            break;
        case NOISE:
            to[i] = (uint8_t)g_rand_int(rng);
            break;
        case TEXT:
            to[i] = (uint8_t)"the quick brown fox jumps over a lazy dog"[(i * i / 7 + i / 97) % 41];
            break;
        case DISTANT: /* repeats at 4095, 4096 and 4097 bytes, all beside each other */
            to[i] = i < 5000 || g_rand_int_range(rng, 0, 50) == 0
                        ? (uint8_t)g_rand_int(rng)
                        : to[i - 4095 - i / 3000 % 3];
            break;
        case FEW: /* skewed counts make long codes */
            to[i] = (uint8_t)__builtin_ctz(g_rand_int(rng) | 1u << 30);
            break;
        default:
            to[i] = (uint8_t)(i / 300);
            break;
        }
    }
}

static void test_patterns(void **state)
{
    struct deflater *d = deflater_new();
    g_autoptr(GRand) rng = g_rand_new_with_seed(7);
    g_autofree uint8_t *in = g_malloc(BIG);
    (void)state;
    for (enum pattern p = BLANK; p < PATTERNS; p++) {
        fill(in, BIG, p, rng);
        check(d, in, UNIT);
        check(d, in + 1, UNIT - 1);
        for (size_t n = 1; n < 24; n++) {
            check(d, in, n);
        }
    }
    fill(in, BIG, DISTANT, rng);
    check(d, in, BIG);
    deflater_free(d);
}

static void test_random_mixes(void **state)
{
    struct deflater *d = deflater_new();
    g_autoptr(GRand) rng = g_rand_new_with_seed(8);
    g_autofree uint8_t *in = g_malloc(UNIT);
    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        size_t n = (size_t)g_rand_int_range(rng, 1, UNIT), at = 0;
        while (at < n) {
            size_t part = (size_t)g_rand_int_range(rng, 1, 9000);
            part = MIN(part, n - at);
            fill(in + at, part, (enum pattern)g_rand_int_range(rng, 0, PATTERNS), rng);
            at += part;
        }
        check(d, in, n);
    }
    deflater_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_random_mixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
