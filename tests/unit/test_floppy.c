/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/rig.h"

#include "base/util.h"
#include "guest/device/isa_fdc.h"

enum { FLOPPY_BYTES = 1474560, DATA = 0x8000 };
enum { DOR = 0x3f2, MSR = 0x3f4, FIFO = 0x3f5, CCR = 0x3f7 };

static struct rig *rig;
static struct device *fdc;
static Image *floppy;
static char *path;

static void out(unsigned port, unsigned value)
{
    space_store(rig->board->ports, port, value, 1);
}

static unsigned in(unsigned port)
{
    return (unsigned)space_load(rig->board->ports, port, 1);
}

static uint8_t byte_at(unsigned i)
{
    return (uint8_t)(i * 5 + i / 512);
}

static Image *insert(bool read_only)
{
    g_autoptr(GError) error = NULL;
    Image *img = image_open(&(struct image_options){.id = "f", .file = path, .format = "raw",
                                                    .read_only = read_only}, &error);
    assert_works(img != NULL, error);
    return img;
}

static int set_up(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    path = g_strdup("/tmp/lodge-test-floppy-XXXXXX");
    autofd int fd = g_mkstemp(path);
    g_autofree uint8_t *data = g_malloc(FLOPPY_BYTES);
    for (unsigned i = 0; i < FLOPPY_BYTES; i++) {
        data[i] = byte_at(i);
    }
    assert_int_equal(write(fd, data, FLOPPY_BYTES), FLOPPY_BYTES);
    floppy = insert(false);
    rig = rig_new();
    rig_start(rig, rig_device(rig, "i8257"));
    fdc = device_new(device_model_find("isa-fdc"));
    assert_works(device_give(fdc, "driveA", floppy, &error), error);
    rig_start(rig, fdc);
    out(CCR, 0);
    out(DOR, 0x1c);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rig_free(rig);
    image_close(floppy);
    g_unlink(path);
    g_free(path);
    return 0;
}

static void command(const uint8_t *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(in(MSR) & 0xc0, 0x80);
        out(FIFO, bytes[i]);
    }
}

static unsigned result(uint8_t *to)
{
    unsigned n = 0;
    while ((in(MSR) & 0xd0) == 0xd0) {
        to[n++] = (uint8_t)in(FIFO);
    }
    assert_int_equal(in(MSR), 0x80);
    return n;
}

static void program_dma(unsigned mode, unsigned bytes)
{
    out(0x0a, 0x06);
    out(0x0c, 0);
    out(0x0b, mode | 2);
    out(0x04, DATA & 0xff);
    out(0x04, DATA >> 8 & 0xff);
    out(0x81, DATA >> 16);
    out(0x05, (bytes - 1) & 0xff);
    out(0x05, (bytes - 1) >> 8);
    out(0x0a, 0x02);
}

static void the_drive_is_of_the_disks_type(void **state)
{
    (void)state;
    assert_int_equal(isa_fdc_drive_type(fdc, 0), 4); /* 1.44 MB */
    assert_int_equal(isa_fdc_drive_type(fdc, 1), 0);
}

static void a_reset_asks_for_four_answers(void **state)
{
    (void)state;
    uint8_t r[8];
    out(DOR, 0x18);
    out(DOR, 0x1c);
    assert_true(rig->line[6].level);
    for (unsigned i = 0; i < 4; i++) {
        command((const uint8_t[]){8}, 1);
        assert_int_equal(result(r), 2);
        assert_int_equal(r[0], 0xc0 | i);
    }
    command((const uint8_t[]){8}, 1);
    assert_int_equal(result(r), 1);
    assert_int_equal(r[0], 0x80);
    assert_false(rig->line[6].level);
}

static void the_head_seeks(void **state)
{
    (void)state;
    uint8_t r[8];
    command((const uint8_t[]){0x0f, 0, 40}, 3);
    command((const uint8_t[]){8}, 1);
    assert_int_equal(result(r), 2);
    assert_int_equal(r[0] << 8 | r[1], 0x2000 | 40);
    command((const uint8_t[]){0x07, 0}, 2);
    command((const uint8_t[]){8}, 1);
    assert_int_equal(result(r), 2);
    assert_int_equal(r[1], 0);
    command((const uint8_t[]){0x04, 0}, 2);
    assert_int_equal(result(r), 1);
    assert_int_equal(r[0], 0x38);
}

static void sectors_move_by_dma(void **state)
{
    (void)state;
    uint8_t r[8], back[512];
    program_dma(0x44, 20 * 512); /* to memory; goes on at the other side */
    command((const uint8_t[]){0xe6, 0, 0, 0, 3, 2, 18, 27, 255}, 9);
    assert_true(rig->line[6].level);
    assert_int_equal(result(r), 7);
    assert_memory_equal(r, "\4\0\0\0\1\5\2", 7);
    for (unsigned i = 0; i < 20 * 512; i++) {
        assert_int_equal(rig->ram->host[DATA + i], byte_at(2 * 512 + i));
    }
    memset(rig->ram->host + DATA, 0x99, 512);
    program_dma(0x48, 512);
    command((const uint8_t[]){0x45, 0, 0, 0, 9, 2, 18, 27, 255}, 9);
    assert_int_equal(result(r), 7);
    assert_int_equal(r[0], 0);
    assert_int_equal(image_read(floppy, 8 * 512, back, 512), 0);
    assert_memory_equal(back, rig->ram->host + DATA, 512);
}

static void sectors_move_by_the_processor(void **state)
{
    (void)state;
    uint8_t r[8];
    command((const uint8_t[]){3, 0xdf, 3}, 3);
    command((const uint8_t[]){0x46, 4, 0, 1, 17, 2, 18, 27, 255}, 9);
    for (unsigned i = 0; i < 1024; i++) {
        assert_int_equal(in(MSR) & 0xe0, 0xe0);
        assert_int_equal(in(FIFO), byte_at((18 + 16) * 512 + i));
    }
    assert_int_equal(result(r), 7);
    assert_int_equal(r[0], 4);
}

static void what_is_not_there_is_an_error(void **state)
{
    (void)state;
    uint8_t r[8];
    const uint8_t missing[] = {0x46, 0, 0, 0, 19, 2, 18, 27, 255};
    command(missing, 9);
    assert_int_equal(result(r), 7);
    assert_int_equal(r[0] << 8 | r[1], 0x4004);
    out(CCR, 2); /* the rate of another density */
    command((const uint8_t[]){0x4a, 0}, 2);
    assert_int_equal(result(r), 7);
    assert_int_equal(r[0] << 8 | r[1], 0x4001);
    command((const uint8_t[]){0x1f}, 1);
    assert_int_equal(result(r), 1);
    assert_int_equal(r[0], 0x80);
}

static void a_change_of_disks_shows_until_the_head_moves(void **state)
{
    (void)state;
    uint8_t r[8];
    g_autoptr(GError) error = NULL;
    assert_int_equal(in(CCR) & 0x80, 0);
    image_eject(floppy);
    assert_int_equal(in(CCR) & 0x80, 0x80);
    command((const uint8_t[]){0x4a, 0}, 2);
    assert_int_equal(result(r), 7);
    assert_int_equal(r[0], 0x40);
    assert_works(image_change(floppy, &(struct image_options){.file = path}, &error), error);
    assert_int_equal(in(CCR) & 0x80, 0x80);
    command((const uint8_t[]){0x0f, 0, 1}, 3);
    assert_int_equal(in(CCR) & 0x80, 0);
}

static void a_track_is_formatted(void **state)
{
    (void)state;
    uint8_t r[8], back[512];
    for (unsigned i = 0; i < 18; i++) {
        memcpy(rig->ram->host + DATA + 4 * i, (uint8_t[]){0, 0, (uint8_t)(i + 1), 2}, 4);
    }
    program_dma(0x48, 18 * 4);
    command((const uint8_t[]){0x4d, 0, 2, 18, 0x54, 0xf6}, 6);
    assert_int_equal(result(r), 7);
    assert_int_equal(r[0], 0);
    assert_int_equal(image_read(floppy, 17 * 512, back, 512), 0);
    assert_int_equal(back[0] & back[511], 0xf6);
    assert_int_equal(image_read(floppy, 18 * 512, back, 512), 0);
    assert_int_equal(back[1], byte_at(18 * 512 + 1));
}

#define FTEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        FTEST(a_reset_asks_for_four_answers),
        FTEST(the_drive_is_of_the_disks_type),
        FTEST(the_head_seeks),
        FTEST(sectors_move_by_dma),
        FTEST(sectors_move_by_the_processor),
        FTEST(what_is_not_there_is_an_error),
        FTEST(a_change_of_disks_shows_until_the_head_moves),
        FTEST(a_track_is_formatted),
    };
    machine_lock();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
