/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/memfile.h"
#include "tests/unit/test.h"

#include "host/image/codec.h"
#include "host/image/core.h"
#include "host/image/options.h"

#include <glib/gstdio.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Many threads on one chain.  Each owns the blocks whose number leaves its own remainder, which
 * are smaller than any cluster: so writes, zeroings and copies on write of different threads meet
 * in the same cluster all the time, and each thread must find what it left in its own blocks.
 */
enum { THREADS = 6, BLOCK = 1024, BLOCKS = 4096, SIZE = BLOCK * BLOCKS, STEPS = 1500 };

struct shared {
    struct node *top;
    struct node *base;       /* for pulling, or NULL */
    uint32_t version[BLOCKS]; /* what the owner wrote last; 0: zero */
    gint failed;
};

struct worker {
    struct shared *shared;
    unsigned number;
};

static void fill_block(uint8_t *to, uint64_t block, uint32_t version)
{
    uint32_t word = version ? (uint32_t)block << 16 ^ version : 0;
    for (unsigned i = 0; i < BLOCK; i += 4) {
        memcpy(to + i, &word, 4);
    }
}

static bool expect_block(struct shared *s, uint64_t block)
{
    uint8_t want[BLOCK], have[BLOCK];
    fill_block(want, block, s->version[block]);
    int r = chain_read(s->top, block * BLOCK, have, BLOCK);
    if (r < 0 || memcmp(want, have, BLOCK)) {
        fprintf(stderr, "block %" PRIu64 " version %u: %s, word %08x\n", block, s->version[block],
                r < 0 ? g_strerror(-r) : "differs", *(uint32_t *)have);
        g_atomic_int_set(&s->failed, 1);
        return false;
    }
    return true;
}

static int change_block(struct shared *s, uint64_t block, GRand *dice)
{
    uint8_t buf[BLOCK];
    int what = g_rand_int_range(dice, 0, 10);
    if (what < 7) {
        s->version[block] = (uint32_t)g_rand_int_range(dice, 1, 65536);
        fill_block(buf, block, s->version[block]);
        return chain_write(s->top, block * BLOCK, buf, BLOCK);
    }
    s->version[block] = 0;
    return chain_zero(s->top, block * BLOCK, BLOCK, what < 9 ? ZERO_KEEP : ZERO_UNMAP);
}

static gpointer work(gpointer data)
{
    struct worker *w = data;
    struct shared *s = w->shared;
    GRand *dice = g_rand_new_with_seed(w->number + 1);
    for (unsigned i = 0; i < STEPS && !g_atomic_int_get(&s->failed); i++) {
        uint64_t block = (uint64_t)g_rand_int_range(dice, 0, BLOCKS / THREADS) * THREADS + w->number;
        int r = change_block(s, block, dice);
        if (r == 0 && g_rand_int_range(dice, 0, 200) == 0) {
            r = chain_flush(s->top);
        }
        if (r == 0 && s->base && g_rand_int_range(dice, 0, 20) == 0) {
            bool copied;
            uint64_t step = MAX(s->top->granule, 65536), at = block * BLOCK / step * step;
            r = chain_pull(s->top, NULL, at, MIN(step, SIZE - at), &copied);
        }
        if (r < 0) {
            fprintf(stderr, "%s: %s\n", s->top->format->name, g_strerror(-r));
            g_atomic_int_set(&s->failed, 1);
        }
        expect_block(s, block);
        expect_block(s, (uint64_t)g_rand_int_range(dice, 0, BLOCKS / THREADS) * THREADS + w->number);
    }
    g_rand_free(dice);
    return NULL;
}

static struct node *make(const char *format, const char *options, struct node *backing)
{
    g_autoptr(GError) error = NULL;
    const struct image_format *f = format_find(format, &error);
    g_autoptr(Options) o = options_new(f->tools->create_options, NULL);
    struct image_create how = {.file = mem_file(NULL, false, 0), .name = "memory", .size = SIZE,
                               .options = o};
    if (backing) {
        how.backing_name = "below";
        how.backing_format = backing->format->name;
    }
    assert_works(!*options || options_parse(o, options, &error), error);
    assert_works(f->tools->create(&how, &error), error);
    GByteArray *bytes = g_byte_array_ref(mem_of(how.file)->bytes);
    file_close(how.file);
    json_t *object = json_object();
    struct node *n = node_open_file(mem_file(bytes, false, 0), NULL, object, 0, &error);
    json_decref(object);
    assert_works(n != NULL, error);
    assert_string_equal(n->format->name, format);
    n->backing = backing;
    return n;
}

static void tell(void *owner, const char *line)
{
    (void)owner;
    fprintf(stderr, "%s\n", line);
}

static void run(struct shared *s)
{
    struct worker workers[THREADS];
    GThread *threads[THREADS];
    struct check_result result = {.tell = tell};
    const struct format_tools *t = s->top->format->tools;
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){s, i};
        threads[i] = g_thread_new("worker", work, &workers[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        g_thread_join(threads[i]);
    }
    for (uint64_t b = 0; b < BLOCKS / THREADS * THREADS; b++) {
        expect_block(s, b);
    }
    assert_int_equal(s->failed, 0);
    assert_int_equal(chain_flush(s->top), 0);
    if (t->check) {
        assert_true(t->check(s->top, FIX_NOTHING, &result, NULL));
        assert_int_equal(result.corruptions + result.check_errors + result.leaks, 0);
    }
    chain_close(s->top);
}

static const struct {
    const char *format, *options;
} kinds[] = {
    {"raw", ""},
    {"qcow2", ""},
    {"qcow2", "cluster_size=4k,refcount_bits=1"},
    {"qcow2", "extended_l2=on,cluster_size=64k"},
    {"qcow2", "lazy_refcounts=on"},
    {"qed", "cluster_size=4k"},
    {"vdi", ""},
    {"vmdk", ""},
    {"vhdx", "block_size=1M"},
    {"vpc", "force_size=on"},
    {"parallels", ""},
    {"qcow", ""},
};

static void threads_do_not_disturb_each_other(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        struct shared s = {0};
        if (format_find(kinds[i].format, NULL)) {
            s.top = make(kinds[i].format, kinds[i].options, NULL);
            run(&s);
        }
    }
}

static void write_base(struct node *base, struct shared *s)
{
    static uint8_t data[SIZE];
    for (uint64_t b = 0; b < BLOCKS; b++) {
        s->version[b] = b / 128 % 2 ? 1 + (uint32_t)(b & 0xfff) : 0;
        fill_block(data + b * BLOCK, b, s->version[b]);
    }
    assert_int_equal(chain_write(base, 0, data, SIZE), 0);
}

static void copies_on_write_and_pulling_up_do_not_disturb_writers(void **state)
{
    static const char *const options[] = {"", "cluster_size=512", "extended_l2=on,cluster_size=128k"};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        struct shared s = {.base = make("qcow2", "cluster_size=4k", NULL)};
        write_base(s.base, &s);
        s.top = make("qcow2", options[i], s.base);
        run(&s);
    }
}

/* A unit is given back as soon as a part of it is written, while others still read it. */
static void compressed_units_are_read_while_they_are_replaced(void **state)
{
    static const char *const options[] = {"", "compression_type=zstd", "extended_l2=on"};
    static uint8_t packed[1 << 20], data[SIZE];
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        struct shared s = {.top = make("qcow2", options[i], NULL)};
        struct node *n = s.top;
        uint64_t unit = n->unit ? n->unit : n->granule;
        for (uint64_t b = 0; b < BLOCKS; b++) {
            s.version[b] = 1 + (uint32_t)(b & 0xfff);
            fill_block(data + b * BLOCK, b, s.version[b]);
        }
        for (uint64_t at = 0; at < SIZE; at += unit) {
            int64_t k = n->codec->pack(data + at, unit, packed, sizeof(packed), 0);
            assert_true(k > 0);
            assert_int_equal(chain_write_packed(n, at, packed, (uint32_t)k), 0);
        }
        struct chain_status status;
        assert_int_equal(chain_status(n, NULL, 0, SIZE, &status), 0);
        assert_true(status.compressed);
        run(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_disturb_each_other),
        cmocka_unit_test(copies_on_write_and_pulling_up_do_not_disturb_writers),
        cmocka_unit_test(compressed_units_are_read_while_they_are_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
