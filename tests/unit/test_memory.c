/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "guest/memory/ahead.h"
#include "guest/memory/hugefile.h"
#include "guest/memory/space.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

static uint64_t last_at, last_value;
static unsigned last_bytes;

static uint64_t probe_read(void *owner, uint64_t at, unsigned bytes)
{
    (void)owner;
    last_bytes = bytes;
    return 0x8877665544332211u >> (at & 7) * 8;
}

static void probe_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    (void)owner;
    last_at = at;
    last_value = value;
    last_bytes = bytes;
}

static const struct region_ops probe_ops = {
    .read = probe_read, .write = probe_write, .max_bytes = 4, .lockless = true};

static struct ram *make_ram(const char *name, uint64_t size)
{
    g_autoptr(GError) error = NULL;
    struct ram *ram = ram_new(name, size, NULL, &error);
    assert_works(ram != NULL, error);
    return ram;
}

static void the_highest_region_answers(void **state)
{
    (void)state;
    struct space *s = space_new("test", UINT64_C(1) << 40);
    struct ram *ram = make_ram("ram", 1 << 20);
    struct region whole = {.name = "ram", .size = 1 << 20, .ram = ram};
    struct region io = {.name = "io", .size = 0x1000, .ops = &probe_ops};
    space_place(s, &whole, 0, 0);
    struct placing *p = space_place(s, &io, 0x8000, 1);

    space_store(s, 0x7ffc, 0x12345678, 4);
    assert_int_equal(le32_at(ram->host + 0x7ffc), 0x12345678);
    space_store(s, 0x8010, 0x1122334455667788u, 8); /* two halves of 4 bytes */
    assert_int_equal(last_at, 0x14);
    assert_int_equal(last_value, 0x11223344);
    assert_int_equal(le32_at(ram->host + 0x8010), 0);
    assert_int_equal(space_load(s, 0x8000, 8), 0x8877665544332211u);

    space_move(p, 0x20000);
    space_store(s, 0x8010, 7, 1);
    assert_int_equal(ram->host[0x8010], 7);
    space_show(p, false);
    space_store(s, 0x20000, 9, 1);
    assert_int_equal(ram->host[0x20000], 9);
    assert_int_equal(space_load(s, 1 << 20, 4), 0xffffffffu);
    space_free(s);
    ram_free(ram);
}

static void an_access_over_a_boundary_is_split(void **state)
{
    (void)state;
    struct space *s = space_new("test", UINT64_C(1) << 40);
    struct ram *ram = make_ram("ram", 0x2000);
    struct region a = {.name = "a", .size = 0x1000, .ram = ram};
    struct region b = {
        .name = "b", .size = 0x1000, .ram = ram, .ram_at = 0x1000, .read_only = true};
    space_place(s, &a, 0x1000, 0);
    space_place(s, &b, 0x2000, 0);
    memset(ram->host + 0x1000, 0x55, 0x1000);
    space_store(s, 0x1ffe, 0xaabbccdd, 4);
    assert_int_equal(space_load(s, 0x1ffe, 4), 0x5555ccdd);
    uint8_t buf[6];
    assert_false(space_read(s, 0x2ffd, buf, 6));
    assert_memory_equal(buf, "\x55\x55\x55\xff\xff\xff", 6);
    space_free(s);
    ram_free(ram);
}

static void a_space_shows_through_another(void **state)
{
    (void)state;
    struct space *below = space_new("memory", UINT64_C(1) << 40);
    struct space *smm = space_new("smm", UINT64_C(1) << 40);
    struct ram *ram = make_ram("ram", 0x2000), *smram = make_ram("smram", 0x1000);
    struct region r = {.name = "ram", .size = 0x2000, .ram = ram};
    struct region o = {.name = "smram", .size = 0x1000, .ram = smram};
    space_place_space(smm, below, 0);
    space_place(smm, &o, 0x1000, 1);
    struct placing *p = space_place(below, &r, 0, 0);
    space_store(smm, 0x0, 1, 1);
    space_store(smm, 0x1000, 2, 1);
    assert_int_equal(ram->host[0], 1);
    assert_int_equal(ram->host[0x1000], 0);
    assert_int_equal(smram->host[0], 2);
    space_show(p, false);
    assert_int_equal(space_load(smm, 0, 1), 0xff);
    space_free(smm);
    space_free(below);
    ram_free(ram);
    ram_free(smram);
}

static bool resident(uint8_t *at)
{
    unsigned char page = 0;
    assert_int_equal(mincore(at, PAGE_SIZE, &page), 0);
    return page & 1;
}

static void wait_for_memory(uint8_t *at)
{
    for (unsigned ms = 0; !resident(at); ms++) {
        assert_true(ms < 180000);
        g_usleep(1000);
    }
}

static void memory_comes_before_it_is_touched(void **state)
{
    (void)state;
    const uint64_t chunk = UINT64_C(1) << AHEAD_SHIFT;
    uint8_t *host = make_ram("ahead", 8 * chunk)->host;
    if (madvise(host, PAGE_SIZE, MADV_POPULATE_WRITE) < 0) {
        print_message("no MADV_POPULATE_WRITE on this host\n");
        skip();
    }
    ahead_touch(host + 4 * chunk + 123);
    wait_for_memory(host + 5 * chunk);
    ahead_touch(host + 4 * chunk); /* nothing new */
    ahead_touch(host + 3 * chunk); /* downwards */
    wait_for_memory(host + 2 * chunk);
    assert_false(resident(host + chunk));
    assert_false(resident(host + 3 * chunk));
    assert_false(resident(host + 6 * chunk));
    ahead_touch(host + 7 * chunk); /* the last one */
    wait_for_memory(host + 6 * chunk);
}

/* By whole huge pages or not, and where some of it is not mapped. */
static void memory_comes_at_once(void **state)
{
    (void)state;
    const uint64_t chunk = UINT64_C(1) << AHEAD_SHIFT;
    uint8_t *host = make_ram("back", 8 * chunk)->host;
    if (madvise(host, PAGE_SIZE, MADV_POPULATE_WRITE) < 0) {
        print_message("no MADV_POPULATE_WRITE on this host\n");
        skip();
    }
    host[chunk] = 7;
    ahead_back(host + chunk + 100, 3 * chunk);
    for (uint64_t at = chunk; at < 4 * chunk + 100; at += PAGE_SIZE) {
        assert_true(resident(host + at));
    }
    assert_int_equal(host[chunk], 7);
    assert_false(resident(host + 6 * chunk));
    ahead_back(host + 7 * chunk + 1, 2 * chunk);
    assert_true(resident(host + 7 * chunk));
    ahead_back(host + 6 * chunk, 0);
    assert_false(resident(host + 6 * chunk));
}

static void written_pages_are_found_dirty(void **state)
{
    (void)state;
    struct ram *ram = make_ram("ram", 0x4000);
    uint64_t map[1];
    assert_true(ram_collect_dirty(ram, 0, 0x4000, PAGE_CLEAN_VGA, map));
    assert_int_equal(map[0], 15);
    assert_false(ram_collect_dirty(ram, 0, 0x4000, PAGE_CLEAN_VGA, map));
    ram_note_write(ram->host + 0x1fff, 2);
    assert_true(ram_collect_dirty(ram, 0, 0x4000, PAGE_CLEAN_VGA, map));
    assert_int_equal(map[0], 6);
    ram_free(ram);
}

static void discarded_pages_read_as_zero(void **state)
{
    (void)state;
    static const struct ram_source shared = {.share = true};
    for (unsigned i = 0; i < 2; i++) {
        g_autoptr(GError) error = NULL;
        struct ram *ram = ram_new("ram", 0x4000, i ? &shared : NULL, &error);
        assert_works(ram != NULL, error);
        memset(ram->host, 0x55, 0x4000);
        ram_discard(ram->host + 0x800, 0x2000); /* one whole page lies in it */
        assert_int_equal(ram->host[0xfff], 0x55);
        assert_int_equal(ram->host[0x1000], 0);
        assert_int_equal(ram->host[0x1fff], 0);
        assert_int_equal(ram->host[0x2000], 0x55);
        ram_discard(ram->host + 0x3000, 0x100000);
        assert_int_equal(ram->host[0x3000], 0);
        ram_free(ram);
    }
}

/* A page out of the middle of a huge one. */
static void a_page_of_a_large_block_is_discarded(void **state)
{
    (void)state;
    static const struct ram_source shared = {.share = true};
    g_autoptr(GError) error = NULL;
    struct ram *ram = ram_new("ram", 4 << 20, &shared, &error);
    struct stat before, after;
    assert_works(ram != NULL, error);
    memset(ram->host, 0x55, ram->size);
    assert_int_equal(fstat(ram->parts[0].fd, &before), 0);
    ram_discard(ram->host + 0x201000, 0x1000);
    assert_int_equal(fstat(ram->parts[0].fd, &after), 0);
    assert_int_equal(before.st_blocks * 512, ram->size);
    assert_true(after.st_blocks <= before.st_blocks);
    for (uint64_t at = 0; at < ram->size; at += 0x1000) {
        assert_int_equal(ram->host[at], at == 0x201000 ? 0 : 0x55);
    }
    ram_free(ram);
}

static bool is_zero_and_shared(int fd, uint64_t size)
{
    struct stat st;
    uint8_t *a = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint8_t *b = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    bool ok = a != MAP_FAILED && b != MAP_FAILED && fstat(fd, &st) == 0 &&
              (uint64_t)st.st_size == size && st.st_nlink == 0;
    for (uint64_t at = 0; ok && at < size; at += 0x1000) {
        ok = a[at] == 0;
        a[at] = 7;
        ok = ok && b[at] == 7;
    }
    return ok;
}

/* As the user who runs the test, and as nobody, who may mount only in a namespace of his own. */
static void files_in_memory(void **state)
{
    (void)state;
    for (unsigned nobody = 0; nobody < 2; nobody++) {
        pid_t child = fork();
        if (child == 0) {
            bool is = nobody && geteuid() == 0;
            bool ok =
                !is || (setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
            int fd = huge_file("test", 6 << 20), more = huge_file("test", 4096);
            _exit(!(ok && fd >= 0 && more >= 0 && fd != more && is_zero_and_shared(fd, 6 << 20) &&
                    is_zero_and_shared(more, 4096)));
        }
        int status = -1;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}

/* Two parts: each discards in what is behind it, and nothing of the other's. */
static void a_block_may_have_several_sources(void **state)
{
    (void)state;
    static const struct ram_source plain = {.bytes = 0};
    static const struct ram_source shared = {.share = true, .bytes = 0x3000, .next = &plain};
    GError *error = NULL;
    struct ram *ram = ram_new("parts", 0x6000, &shared, &error);
    assert_non_null(ram);
    assert_int_equal(ram->n_parts, 2);
    assert_true(ram->parts[0].fd >= 0);
    assert_int_equal(ram->parts[1].fd, -1);
    memset(ram->host, 0x55, ram->size);
    ram_discard(ram->host + 0x2000, 0x2000);
    for (unsigned at = 0; at < 0x6000; at += 0x1000) {
        assert_int_equal(ram->host[at], at == 0x2000 || at == 0x3000 ? 0 : 0x55);
    }
    ram_free(ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_highest_region_answers),
        cmocka_unit_test(an_access_over_a_boundary_is_split),
        cmocka_unit_test(a_space_shows_through_another),
        cmocka_unit_test(a_block_may_have_several_sources),
        cmocka_unit_test(discarded_pages_read_as_zero),
        cmocka_unit_test(a_page_of_a_large_block_is_discarded),
        cmocka_unit_test(files_in_memory),
        cmocka_unit_test(memory_comes_before_it_is_touched),
        cmocka_unit_test(memory_comes_at_once),
        cmocka_unit_test(written_pages_are_found_dirty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
