/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/lock.h"
#include "base/util.h"
#include "guest/device/board.h"
#include "host/image/image.h"

#include <glib/gstdio.h>
#include <stdlib.h>

enum { BYTES = 64 << 10 };
static const uint64_t base = 0xfff00000;

static struct board *board;
static struct device *flash;
static Image *img;
static char *path;

static void store(uint64_t at, unsigned value)
{
    space_store(board->memory, base + at, value, 1);
}

static unsigned load(uint64_t at)
{
    return (unsigned)space_load(board->memory, base + at, 1);
}

static void make(bool read_only)
{
    g_autoptr(GError) error = NULL;
    img = image_open(&(struct image_options){.id = "f", .file = path, .format = "raw",
                                             .read_only = read_only}, &error);
    assert_works(img != NULL, error);
    board = board_new();
    flash = device_new(device_model_find("cfi.pflash01"));
    assert_works(device_give(flash, "drive", img, &error), error);
    assert_works(device_set(flash, "base", "0xfff00000", &error), error);
    assert_works(device_start(flash, board, "flash", &error), error);
}

static int set_up(void **state)
{
    (void)state;
    path = g_strdup("/tmp/lodge-test-pflash-XXXXXX");
    autofd int fd = g_mkstemp(path);
    uint8_t byte = 0x5a;
    assert_int_equal(ftruncate(fd, BYTES), 0);
    assert_int_equal(pwrite(fd, &byte, 1, 5), 1);
    make(false);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    board_free(board);
    image_close(img);
    g_unlink(path);
    g_free(path);
    return 0;
}

static unsigned on_disk(uint64_t at)
{
    uint8_t byte = 0;
    assert_int_equal(image_read(img, at, &byte, 1), 0);
    return byte;
}

static void firmware_finds_a_flash(void **state)
{
    (void)state;
    store(0, 0x50);
    assert_int_equal(load(0), 0); /* neither RAM, which would hold 0x50, ... */
    store(0, 0x70);
    assert_int_equal(load(5), 0); /* ... nor ROM, which would hold what it did */
    store(0, 0xff);
    assert_int_equal(load(5), 0x5a);
}

static void bytes_are_programmed_and_kept(void **state)
{
    (void)state;
    store(7, 0x40);
    store(7, 0x11);
    assert_int_equal(load(7), 0x80);
    store(8, 0x10);
    store(8, 0x22);
    store(0, 0xff);
    assert_int_equal(load(7), 0x11);
    assert_int_equal(on_disk(7), 0x11);
    assert_int_equal(on_disk(8), 0x22);
}

static void a_block_is_erased(void **state)
{
    (void)state;
    store(0x1234, 0x20);
    store(0x1234, 0xd0);
    assert_int_equal(load(0), 0x80);
    store(0, 0xff);
    assert_int_equal(load(0x1000), 0xff);
    assert_int_equal(on_disk(0x1fff), 0xff);
    assert_int_equal(load(0x2000), 0);
    store(0, 0x20);
    store(0, 0x11); /* no confirmation */
    assert_int_equal(load(0), 0);
    store(0, 0x70);
    assert_int_equal(load(0) & 0x30, 0x30);
}

static void the_write_buffer_is_committed(void **state)
{
    (void)state;
    store(0x3000, 0xe8);
    store(0x3000, 3);
    for (unsigned i = 0; i < 4; i++) {
        store(0x3000 + i, 0xa0 + i);
    }
    assert_int_equal(on_disk(0x3000), 0);
    store(0x3000, 0xd0);
    store(0, 0xff);
    assert_int_equal(load(0x3003), 0xa3);
    assert_int_equal(on_disk(0x3000), 0xa0);
}

static void identification_can_be_read(void **state)
{
    (void)state;
    store(0, 0x90);
    assert_int_equal(load(0), 0x89);
    store(0, 0x98);
    assert_int_equal(load(0x10), 'Q');
    assert_int_equal(load(0x12), 'Y');
    assert_int_equal(load(0x27), 16);
    assert_int_equal(load(0x2d), BYTES / 4096 - 1);
    device_reset(flash);
    assert_int_equal(load(5), 0x5a);
}

static void a_read_only_flash_says_so(void **state)
{
    board_free(board);
    image_close(img);
    make(true);
    (void)state;
    store(5, 0x40);
    store(5, 0);
    assert_int_equal(load(5) & 0x12, 0x12);
    store(5, 0xff);
    assert_int_equal(load(5), 0x5a);
}

static void the_mode_survives_a_save(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    store(0, 0x90);
    g_autoptr(GBytes) saved = device_save(flash);
    store(0, 0xff);
    assert_works(device_load(flash, saved, &error), error);
    assert_int_equal(load(0), 0x89);
}

static void random_writes_are_survived(void **state)
{
    (void)state;
    g_autoptr(GRand) rand = g_rand_new_with_seed(3);
    static const uint8_t commands[] = {0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x90,
                                       0x98, 0xd0, 0xe8, 0xff, 0x01, 0x77};
    for (unsigned i = 0; i < 20000; i++) {
        unsigned pick = (unsigned)g_rand_int_range(rand, 0, G_N_ELEMENTS(commands));
        store((unsigned)g_rand_int_range(rand, 0, BYTES), commands[pick]);
        load((unsigned)g_rand_int_range(rand, 0, BYTES));
    }
    device_reset(flash);
    store(5, 0x40);
    store(5, 0x77);
    store(5, 0xff);
    assert_int_equal(load(5), 0x77);
}

#define FTEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        FTEST(firmware_finds_a_flash),
        FTEST(bytes_are_programmed_and_kept),
        FTEST(a_block_is_erased),
        FTEST(the_write_buffer_is_committed),
        FTEST(identification_can_be_read),
        FTEST(a_read_only_flash_says_so),
        FTEST(the_mode_survives_a_save),
        FTEST(random_writes_are_survived),
    };
    machine_lock();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
