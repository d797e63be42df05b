/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/memfile.h"
#include "tests/unit/test.h"

#include "host/image/codec.h"
#include "host/image/core.h"
#include "host/image/options.h"

#include <inttypes.h>
#include <string.h>

/*
 * What a qcow2 image does, against a plain array that does the same: random writes of any
 * alignment, packed units, zeroes, snapshots made, applied and removed, sizes that change,
 * closing and opening again.  After each round check finds nothing at all.
 */
enum { SIZE = 3 << 20, ROUNDS = 12, STEPS = 40, SNAPSHOTS = 3, SIZE_MOST = 5 << 20 };

struct model {
    uint8_t bytes[SIZE_MOST];
    uint64_t size;
};

struct world {
    const char *options;
    GByteArray *file;
    struct node *node;
    GRand *dice;
    struct model now, kept[SNAPSHOTS];
    bool has[SNAPSHOTS], snapshots, resizes;
};

static const struct {
    const char *options;
    bool snapshots, resizes;
} kinds[] = {
    {"", true, true},
    {"compat=0.10", true, false},
    {"cluster_size=512", true, true},
    {"cluster_size=512,refcount_bits=64", true, true},
    {"cluster_size=2M", true, true},
    {"refcount_bits=8,cluster_size=4k", true, true},
    {"refcount_bits=1", false, true},
    {"extended_l2=on,cluster_size=16k", true, true},
    {"extended_l2=on", true, true},
    {"lazy_refcounts=on", true, true},
    {"preallocation=metadata,cluster_size=4k", true, true},
    {"extended_l2=on,preallocation=metadata", true, true},
    {"compression_type=zstd,cluster_size=4k", true, true},
};

static void open_world(struct world *w)
{
    g_autoptr(GError) error = NULL;
    json_t *o = json_pack("{s:s}", "driver", "qcow2");
    w->node = node_open_file(mem_file(g_byte_array_ref(w->file), false, 0), NULL, o, 0, &error);
    json_decref(o);
    if (!w->node) {
        fail_msg("%s: %s", w->options, error->message);
    }
}

static GByteArray *make(const char *options, uint64_t size)
{
    g_autoptr(GError) error = NULL;
    const struct image_format *format = format_find("qcow2", &error);
    g_autoptr(Options) o = options_new(format->tools->create_options, NULL);
    struct image_create how = {
        .file = mem_file(NULL, false, 0), .name = "memory", .size = size, .options = o};
    assert_works(!*options || options_parse(o, options, &error), error);
    const char *mode = option_str(o, "preallocation");
    how.preallocation = mode ? PREALLOC_METADATA : PREALLOC_OFF;
    assert_works(format->tools->create(&how, &error), error);
    GByteArray *bytes = g_byte_array_ref(mem_of(how.file)->bytes);
    file_close(how.file);
    return bytes;
}

static uint64_t below(struct world *w, uint64_t n)
{
    return (uint64_t)g_rand_int_range(w->dice, 0, (gint32)n);
}

static void range(struct world *w, uint64_t *at, uint64_t *n)
{
    *at = below(w, w->now.size);
    uint64_t most = below(w, 4) ? 9000 : 400000;
    *n = 1 + below(w, MIN(w->now.size - *at, most));
    if (below(w, 2)) { /* as guests do it */
        *at &= ~UINT64_C(511);
        *n = MIN((*n + 511) & ~UINT64_C(511), w->now.size - *at);
    }
}

static void do_write(struct world *w)
{
    uint64_t at, n;
    range(w, &at, &n);
    uint8_t fill = (uint8_t)below(w, 256);
    for (uint64_t i = 0; i < n; i++) {
        w->now.bytes[at + i] = (uint8_t)(fill + i * 7);
    }
    assert_int_equal(chain_write(w->node, at, w->now.bytes + at, n), 0);
}

static void do_zero(struct world *w)
{
    uint64_t at, n;
    range(w, &at, &n);
    memset(w->now.bytes + at, 0, n);
    assert_int_equal(chain_zero(w->node, at, n, below(w, 2) ? ZERO_KEEP : ZERO_UNMAP), 0);
}

/* What was discarded is what it was or zero; the next writes make it known again. */
static void do_discard(struct world *w)
{
    uint64_t at, n;
    range(w, &at, &n);
    assert_int_equal(chain_zero(w->node, at, n, ZERO_DISCARD), 0);
    assert_int_equal(chain_write(w->node, at, w->now.bytes + at, n), 0);
}

static void do_packed(struct world *w)
{
    uint64_t unit = w->node->unit, at = below(w, w->now.size) & ~(unit - 1);
    g_autofree uint8_t *plain = g_malloc0(unit), *packed = g_malloc(unit);
    memset(plain, (int)below(w, 256), unit);
    for (unsigned i = 0; i < 40; i++) {
        plain[below(w, unit)] = (uint8_t)below(w, 256);
    }
    int64_t n = w->node->codec->pack(plain, unit, packed, unit - 1, 0);
    if (n > 0) {
        memcpy(w->now.bytes + at, plain, MIN(unit, w->now.size - at));
        assert_int_equal(chain_write_packed(w->node, at, packed, (uint32_t)n), 0);
    }
}

static void do_snapshot(struct world *w)
{
    g_autoptr(GError) error = NULL;
    const struct snapshot_tools *t = w->node->format->tools->snapshots;
    unsigned i = (unsigned)below(w, SNAPSHOTS);
    char name[] = {(char)('a' + i), 0};
    if (!w->has[i]) {
        struct image_snapshot s = {.name = name, .icount = UINT64_MAX};
        assert_works(t->create(w->node, &s, &error), error);
        w->kept[i] = w->now;
        w->has[i] = true;
    } else if (below(w, 2) && (w->resizes || w->kept[i].size == w->now.size)) {
        assert_works(t->apply(w->node, name, &error), error);
        chain_forget(w->node);
        w->now = w->kept[i];
        assert_int_equal(w->node->size, w->now.size);
    } else {
        assert_works(t->remove(w->node, name, &error), error);
        w->has[i] = false;
    }
    chain_forget(w->node);
}

static void do_resize(struct world *w)
{
    g_autoptr(GError) error = NULL;
    uint64_t size = (1 + below(w, SIZE_MOST / 512)) * 512;
    if (size > w->now.size) {
        memset(w->now.bytes + w->now.size, 0, size - w->now.size);
    }
    w->now.size = size;
    assert_works(w->node->format->tools->resize(w->node, size, PREALLOC_OFF, &error), error);
    assert_int_equal(w->node->size, size);
}

static void step(struct world *w)
{
    uint64_t what = below(w, 100);
    if (what < 50) {
        do_write(w);
    } else if (what < 62) {
        do_zero(w);
    } else if (what < 68) {
        do_discard(w);
    } else if (what < 80) {
        do_packed(w);
    } else if (what < 90) {
        assert_int_equal(chain_flush(w->node), 0);
    } else if (what < 95 && w->snapshots) {
        do_snapshot(w);
    } else if (what < 97 && w->resizes) {
        do_resize(w);
    } else {
        chain_close(w->node);
        open_world(w);
    }
}

static void complain(void *owner, const char *line)
{
    g_string_append_printf(owner, "  %s\n", line);
}

static void must_be_clean(struct world *w)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) text = g_string_new(NULL);
    struct check_result res = {.tell = complain, .owner = text};
    assert_works(w->node->format->tools->check(w->node, FIX_NOTHING, &res, &error), error);
    if (res.corruptions || res.leaks || res.check_errors) {
        fail_msg("%s: %" PRIu64 " corruptions, %" PRIu64 " leaks\n%s", w->options, res.corruptions,
                 res.leaks, text->str);
    }
}

static void must_equal(struct world *w, const struct model *m, const char *what)
{
    static uint8_t buf[SIZE_MOST];
    assert_int_equal(w->node->size, m->size);
    assert_int_equal(chain_read(w->node, 0, buf, m->size), 0);
    for (uint64_t i = 0; i < m->size; i++) {
        if (buf[i] != m->bytes[i]) {
            fail_msg("%s: %s: byte %" PRIu64 " is %u, not %u", w->options, what, i, buf[i],
                     m->bytes[i]);
        }
    }
}

static void an_image_does_what_an_array_does(void **state)
{
    (void)state;
    struct world *w = g_new0(struct world, 1);
    for (unsigned k = 0; k < G_N_ELEMENTS(kinds); k++) {
        memset(w, 0, sizeof(*w));
        *w = (struct world){.options = kinds[k].options,
                            .snapshots = kinds[k].snapshots,
                            .resizes = kinds[k].resizes,
                            .file = make(kinds[k].options, SIZE),
                            .dice = g_rand_new_with_seed(k + 1)};
        w->now.size = SIZE;
        open_world(w);
        for (unsigned round = 0; round < ROUNDS; round++) {
            for (unsigned i = 0; i < STEPS; i++) {
                step(w);
            }
            must_equal(w, &w->now, "at the end of a round");
            chain_close(w->node);
            open_world(w);
            must_be_clean(w);
            must_equal(w, &w->now, "opened again");
        }
        chain_close(w->node);
        g_byte_array_unref(w->file);
        g_rand_free(w->dice);
    }
    g_free(w);
}

/* ---- damage ---- */

/* Whatever is broken: nothing crashes, and after repair check agrees that it is repaired. */
static void random_damage_is_survived(void **state)
{
    (void)state;
    struct world *w = g_new0(struct world, 1);
    for (unsigned seed = 1; seed <= 300; seed++) {
        g_autoptr(GError) error = NULL;
        memset(w, 0, sizeof(*w));
        *w = (struct world){.options = seed % 2 ? "cluster_size=4k" : "extended_l2=on",
                            .file = make(seed % 2 ? "cluster_size=4k" : "extended_l2=on", 1 << 20),
                            .snapshots = true,
                            .dice = g_rand_new_with_seed(seed)};
        w->now.size = 1 << 20;
        open_world(w);
        const struct bitmap_tools *b = w->node->format->tools->bitmaps;
        assert_works(b->add(w->node, "b", 0, true, &error), error);
        for (unsigned i = 0; i < 12; i++) {
            step(w);
        }
        chain_close(w->node);
        for (uint64_t n = 1 + below(w, 6); n; n--) { /* tables are dense in the first clusters */
            uint64_t at = 104 + below(w, MIN(w->file->len - 104, 1 << 19));
            w->file->data[at & (below(w, 2) ? ~UINT64_C(7) : UINT64_MAX)] ^=
                (uint8_t)(1 + below(w, 255));
        }
        for (unsigned pass = 0; pass < 2; pass++) {
            json_t *o = json_pack("{s:s}", "driver", "qcow2");
            struct node *n = node_open_file(mem_file(g_byte_array_ref(w->file), false, 0), NULL, o,
                                            OPEN_CHECK, &error);
            struct check_result res = {0};
            json_decref(o);
            if (n) {
                n->format->tools->check(n, pass ? FIX_NOTHING : FIX_LEAKS | FIX_ERRORS, &res, NULL);
                chain_close(n);
            }
            g_clear_error(&error);
        }
        json_t *o = json_pack("{s:s}", "driver", "qcow2");
        w->node = node_open_file(mem_file(g_byte_array_ref(w->file), false, 0), NULL, o, 0, &error);
        json_decref(o);
        uint8_t buf[4096] = {1};
        for (uint64_t at = 0; w->node && at + sizeof(buf) <= w->node->size && at < 1 << 20;
             at += 8192) {
            chain_read(w->node, at, buf, sizeof(buf));
            chain_write(w->node, at, buf, sizeof(buf));
        }
        if (w->node) {
            chain_close(w->node);
        }
        g_byte_array_unref(w->file);
        g_rand_free(w->dice);
    }
    g_free(w);
}

/* Memory and time are bounded by what the file holds: 1 TiB of nothing opens like 1 MiB. */
static void a_huge_empty_disk_is_cheap(void **state)
{
    (void)state;
    struct world *w = g_new0(struct world, 1);
    w->options = "";
    w->file = make("", UINT64_C(64) << 40);
    assert_true(w->file->len < 8 << 20);
    open_world(w);
    uint8_t buf[512] = {1};
    assert_int_equal(chain_write(w->node, (UINT64_C(64) << 40) - 512, buf, sizeof(buf)), 0);
    assert_int_equal(chain_read(w->node, UINT64_C(63) << 40, buf, sizeof(buf)), 0);
    assert_int_equal(buf[0], 0);
    must_be_clean(w);
    chain_close(w->node);
    g_byte_array_unref(w->file);
    g_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_does_what_an_array_does),
        cmocka_unit_test(random_damage_is_survived),
        cmocka_unit_test(a_huge_empty_disk_is_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
