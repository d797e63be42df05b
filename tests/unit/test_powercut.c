/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/memfile.h"
#include "tests/unit/test.h"

#include "host/image/core.h"
#include "host/image/options.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * Nothing lost: a writer dies, by a power cut that did only some of what was written since
 * the last flush, or by SIGKILL.  What was flushed must read back and `check` must not find
 * corruption; leaks are allowed.
 *
 * Each block that is written says which block it is and how many times it had been written,
 * so any content can be judged: not older than the last flush, not newer than what was sent.
 */
enum { BLOCK = 4096, BLOCKS = 2048, SIZE = BLOCK * BLOCKS, OPS = 120, CUTS = 60, KILLS = 200 };

struct stamp {
    uint64_t magic, block, version;
};
#define MAGIC UINT64_C(0x4c6f646765506f77)

/* In memory that a killed child leaves behind.  Versions count from 1; 0 is "never". */
struct model {
    uint64_t sent[BLOCKS], flushed[BLOCKS];
    uint64_t zeroed[BLOCKS]; /* the version of the last zeroing that was sent */
    uint64_t unflushed[BLOCKS]; /* sent by the writer that lives, since its last flush; 0: no */
    uint64_t clock, flushes;
};

struct kind {
    const char *format, *options;
    bool discards;
    bool repairs; /* a writer that died leaves a mark; the next one repairs when it opens */
};

static const struct kind kinds[] = {
    {"raw", "", false, false},
    {"qcow2", "", true, false},
    {"qcow2", "compat=0.10,cluster_size=4k", true, false},
    {"qcow2", "lazy_refcounts=on", true, true},
    {"qcow2", "extended_l2=on,cluster_size=128k", true, false},
    {"qcow2", "refcount_bits=64,cluster_size=512", true, false},
    {"qed", "", true, false},
    {"qed", "cluster_size=4k", true, false},
    {"qcow", "", true, false},
    {"cow", "", true, false},
    {"parallels", "cluster_size=64k", true, true},
    {"vdi", "", true, false},
    {"vmdk", "", true, false},
    {"vhdx", "block_size=1M", true, false},
};

static bool is_built(const char *format)
{
    return format_find(format, NULL);
}

/* ---- the writer ---- */

static void stamp_block(uint8_t *to, uint64_t block, uint64_t version)
{
    struct stamp s = {MAGIC, block, version};
    for (unsigned i = 0; i < BLOCK; i += 512) {
        memcpy(to + i, &s, sizeof(s));
        memset(to + i + sizeof(s), (int)(block + version), 512 - sizeof(s));
    }
}

static int write_blocks(struct node *n, struct model *m, uint64_t first, uint64_t count)
{
    g_autofree uint8_t *buf = g_malloc(count * BLOCK);
    uint64_t version = ++m->clock;
    for (uint64_t i = 0; i < count; i++) {
        m->sent[first + i] = m->unflushed[first + i] = version;
        stamp_block(buf + i * BLOCK, first + i, version);
    }
    return chain_write(n, first * BLOCK, buf, count * BLOCK);
}

static int zero_blocks(struct node *n, struct model *m, uint64_t first, uint64_t count,
                       enum zero_kind kind)
{
    uint64_t version = ++m->clock;
    for (uint64_t i = 0; i < count; i++) {
        m->sent[first + i] = m->unflushed[first + i] = m->zeroed[first + i] = version;
    }
    return chain_zero(n, first * BLOCK, count * BLOCK, kind);
}

static int flush_blocks(struct node *n, struct model *m)
{
    int r = chain_flush(n);
    for (unsigned i = 0; i < BLOCKS; i++) {
        m->flushed[i] = m->unflushed[i] ? m->unflushed[i] : m->flushed[i];
        m->unflushed[i] = 0;
    }
    m->flushes++;
    return r;
}

static int one_step(struct node *n, struct model *m, GRand *dice, const struct kind *kind)
{
    unsigned what = (unsigned)g_rand_int_range(dice, 0, 100);
    uint64_t first = (uint64_t)g_rand_int_range(dice, 0, BLOCKS);
    uint64_t count = (uint64_t)g_rand_int_range(dice, 1, what < 10 ? 64 : 4);
    count = MIN(count, BLOCKS - first);
    if (what < 12) {
        return flush_blocks(n, m);
    }
    if (what < 20 && kind->discards) {
        return zero_blocks(n, m, first, count * 8 < BLOCKS - first ? count * 8 : count,
                           what < 16 ? ZERO_UNMAP : ZERO_KEEP);
    }
    return write_blocks(n, m, first, count);
}

/* ---- the judge ---- */

static void complain(void *owner, const char *line)
{
    g_string_append_printf(owner, "  %s\n", line);
}

static void check_structure(struct node *n, const char *when)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) text = g_string_new(NULL);
    struct check_result result = {.tell = complain, .owner = text};
    if (!n->format->tools || !n->format->tools->check) {
        return;
    }
    bool done = n->format->tools->check(n, FIX_NOTHING, &result, &error);
    if (!done || result.corruptions || result.check_errors) {
        fail_msg("%s: %s: %" PRIu64 " corruptions, %" PRIu64 " errors%s%s\n%s", n->format->name,
                 when, result.corruptions, result.check_errors, error ? ": " : "",
                 error ? error->message : "", text->str);
    }
}

static bool is_zero(const uint8_t *p, size_t n)
{
    return !p[0] && !memcmp(p, p + 1, n - 1);
}

/* Sectors of a block that was being written may be of different age. */
static void check_sector(const struct model *m, uint64_t block, const uint8_t *p, const char *when)
{
    struct stamp s;
    memcpy(&s, p, sizeof(s));
    if (is_zero(p, 512)) {
        if (m->flushed[block] && m->zeroed[block] < m->flushed[block]) {
            fail_msg("%s: block %" PRIu64 " is zero, flushed at %" PRIu64, when, block,
                     m->flushed[block]);
        }
        return;
    }
    if (s.magic != MAGIC || s.block != block || s.version < m->flushed[block] ||
        s.version > m->sent[block]) {
        fail_msg("%s: block %" PRIu64 " holds %" PRIx64 " block %" PRIu64 " version %" PRIu64
                 ", flushed %" PRIu64 " sent %" PRIu64, when, block, s.magic, s.block, s.version,
                 m->flushed[block], m->sent[block]);
    }
}

static void check_content(struct node *n, const struct model *m, const char *when)
{
    static uint8_t buf[BLOCK];
    for (uint64_t b = 0; b < BLOCKS; b++) {
        int r = chain_read(n, b * BLOCK, buf, BLOCK);
        if (r < 0) {
            fail_msg("%s: %s: block %" PRIu64 ": %s", n->format->name, when, b, g_strerror(-r));
        }
        for (unsigned i = 0; i < BLOCK; i += 512) {
            check_sector(m, b, buf + i, when);
        }
    }
}

static struct node *open_on(struct file *f, const char *format, unsigned flags)
{
    g_autoptr(GError) error = NULL;
    json_t *o = json_pack("{s:s}", "driver", format);
    struct node *n = node_open_file(f, NULL, o, flags, &error);
    json_decref(o);
    if (!n) {
        fail_msg("%s: %s", format, error->message);
    }
    return n;
}

static void judge(struct file *(*file)(void *from), void *from, const struct kind *kind,
                  const struct model *m, const char *when)
{
    if (kind->repairs) {
        chain_close(open_on(file(from), kind->format, 0));
    }
    struct node *n = open_on(file(from), kind->format, OPEN_CHECK);
    check_structure(n, when);
    check_content(n, m, when);
    chain_close(n);
}

/* ---- power cuts ---- */

static GByteArray *make_image(const struct kind *kind)
{
    g_autoptr(GError) error = NULL;
    const struct image_format *format = format_find(kind->format, &error);
    g_autoptr(Options) o = options_new(format->tools->create_options, NULL);
    struct image_create how = {.file = mem_file(NULL, false, 0), .name = "memory", .size = SIZE,
                               .options = o};
    assert_works(!*kind->options || options_parse(o, kind->options, &error), error);
    assert_works(format->tools->create(&how, &error), error);
    GByteArray *bytes = g_byte_array_ref(mem_of(how.file)->bytes);
    file_close(how.file);
    return bytes;
}

static GByteArray *copy_of(const GByteArray *from)
{
    GByteArray *to = g_byte_array_sized_new(from->len);
    g_byte_array_append(to, from->data, from->len);
    return to;
}

static struct file *disk_file(void *bytes)
{
    return mem_file(g_byte_array_ref(bytes), false, 0);
}

/* A disk on which everything up to operation @flushed was done, and of what came until @cut
 * some, in any order, cut off inside. */
static GByteArray *disk_after(const GByteArray *start, const GArray *ops, unsigned flushed,
                              unsigned cut, GRand *dice)
{
    GByteArray *disk = copy_of(start);
    unsigned n = cut - flushed, order[4096];
    bool in_order = g_rand_boolean(dice);
    for (unsigned i = 0; i < flushed; i++) {
        mem_apply(disk, &g_array_index(ops, struct mem_op, i), UINT64_MAX);
    }
    assert_true(n <= G_N_ELEMENTS(order));
    for (unsigned i = 0; i < n; i++) {
        unsigned j = in_order ? i : (unsigned)g_rand_int_range(dice, 0, (gint32)i + 1);
        order[i] = order[j];
        order[j] = flushed + i;
    }
    for (unsigned i = 0; i < n; i++) {
        const struct mem_op *op = &g_array_index(ops, struct mem_op, order[i]);
        unsigned luck = (unsigned)g_rand_int_range(dice, 0, 10);
        uint64_t some = (uint64_t)g_rand_int(dice) << 32 | g_rand_int(dice);
        if (luck >= 4 || (in_order && luck >= 1)) {
            mem_apply(disk, op, UINT64_MAX);
        } else if (luck == 0 && op->kind == MEM_WRITE) {
            mem_apply(disk, op, some);
        }
    }
    return disk;
}

/* The model at the time of each operation of the file. */
struct moment {
    unsigned ops;
    struct model model;
};

static void cut_power(const struct kind *kind, unsigned seed)
{
    GRand *dice = g_rand_new_with_seed(seed);
    GByteArray *start = make_image(kind);
    struct file *f = mem_file(copy_of(start), true, 0);
    struct node *n = open_on(f, kind->format, 0);
    struct mem *mem = mem_of(f);
    static struct moment moments[OPS];
    static struct model m;
    memset(&m, 0, sizeof(m));
    for (unsigned i = 0; i < OPS; i++) {
        assert_int_equal(one_step(n, &m, dice, kind), 0);
        moments[i] = (struct moment){mem->ops->len, m};
    }
    for (unsigned i = 0; i < CUTS; i++) {
        unsigned at = (unsigned)g_rand_int_range(dice, 1, OPS), flushed = 0;
        /* Inside step @at: what it sent may be there, what it flushed is not sure yet. */
        unsigned cut = (unsigned)g_rand_int_range(dice, (gint32)moments[at - 1].ops,
                                                  (gint32)moments[at].ops + 1);
        struct model then = moments[at].model;
        memcpy(then.flushed, moments[at - 1].model.flushed, sizeof(then.flushed));
        for (unsigned k = 0; k < cut; k++) {
            flushed = g_array_index(mem->ops, struct mem_op, k).kind == MEM_FLUSH ? k + 1 : flushed;
        }
        g_autofree char *when = g_strdup_printf("%s %s seed %u cut %u (flushed %u of %u)",
                                                kind->format, kind->options, seed, i, flushed, cut);
        GByteArray *disk = disk_after(start, mem->ops, flushed, cut, dice);
        judge(disk_file, disk, kind, &then, when);
        g_byte_array_unref(disk);
    }
    check_content(n, &m, "alive");
    chain_close(n);
    g_byte_array_unref(start);
    g_rand_free(dice);
}

static void a_power_cut_loses_nothing_that_was_flushed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        for (unsigned seed = 1; is_built(kinds[i].format) && seed <= 3; seed++) {
            cut_power(&kinds[i], seed);
        }
    }
}

/* ---- SIGKILL ---- */

static void write_until_killed(const char *path, const struct kind *kind, struct model *m,
                               unsigned seed)
{
    g_autoptr(GError) error = NULL;
    GRand *dice = g_rand_new_with_seed(seed);
    struct chain_open how = {.name = path, .format = kind->format};
    struct node *n = chain_open(&how, &error);
    if (!n) {
        fprintf(stderr, "%s: %s\n", kind->format, error->message);
        _exit(1);
    }
    int r = 0;
    memset(m->unflushed, 0, sizeof(m->unflushed)); /* the last writer's may be lost */
    while (r == 0) {
        r = one_step(n, m, dice, kind);
    }
    fprintf(stderr, "%s: %s\n", kind->format, g_strerror(-r));
    _exit(1);
}

static struct file *path_file(void *path)
{
    struct file *f = file_open(path, NULL, 0, NULL);
    assert_non_null(f);
    return f;
}

static void kill_writer(const struct kind *kind, const char *path, struct model *m, unsigned seed)
{
    pid_t pid = fork();
    if (pid == 0) {
        write_until_killed(path, kind, m, seed);
    }
    g_usleep(500 + seed * 7919 % 9000);
    kill(pid, SIGKILL);
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    judge(path_file, (void *)(uintptr_t)path, kind, m, "after SIGKILL");
}

static void kill_writers(const struct kind *kind, unsigned kills)
{
    g_autofree char *path = g_strdup("/tmp/lodge-test-powercut-XXXXXX");
    close(g_mkstemp(path));
    struct model *m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(m != MAP_FAILED);
    GByteArray *image = make_image(kind);
    assert_true(g_file_set_contents(path, (char *)image->data, image->len, NULL));
    for (unsigned i = 0; i < kills; i++) {
        kill_writer(kind, path, m, i + 1);
    }
    g_byte_array_unref(image);
    munmap(m, sizeof(*m));
    g_unlink(path);
}

static void a_killed_writer_loses_nothing_that_was_flushed(void **state)
{
    static const char *const formats[] = {"qcow2", "qed", "vdi", "vmdk", "vhdx"};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
        for (unsigned k = 0; is_built(formats[i]) && k < G_N_ELEMENTS(kinds); k++) {
            if (!strcmp(kinds[k].format, formats[i])) {
                kill_writers(&kinds[k], KILLS);
                break;
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_loses_nothing_that_was_flushed),
        cmocka_unit_test(a_killed_writer_loses_nothing_that_was_flushed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
