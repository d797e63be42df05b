/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the PC's own chips do, one test a promise of their data sheets. */
#include "tests/unit/rig.h"

#include "base/bytes.h"
#include "guest/device/fw_cfg.h"
#include "guest/device/i8237.h"
#include "guest/device/i8254.h"
#include "guest/device/i8259.h"
#include "guest/device/ioapic.h"
#include "guest/device/mc146818.h"

static struct rig *rig;

static int set_up(void **state)
{
    (void)state;
    clock_set(1000000000);
    rig = rig_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rig_free(rig);
    return 0;
}

static uint8_t in(uint16_t port)
{
    return (uint8_t)space_load(rig->board->ports, port, 1);
}

static void out(uint16_t port, uint8_t v)
{
    space_store(rig->board->ports, port, v, 1);
}

static struct device *started(const char *name)
{
    return rig_start(rig, rig_device(rig, name));
}

/* On an ISA line instead of the anonymous wire. */
static struct device *started_on(const char *name, const char *wire, unsigned line)
{
    g_autoptr(GError) error = NULL;
    struct device *dev = rig_device(rig, name);
    assert_works(device_connect(dev, wire, WIRE_IRQ, &rig->line[line], &error), error);
    return rig_start(rig, dev);
}

static bool high(unsigned line)
{
    return rig->line[line].level;
}

/* ---- lines ---- */

static void a_shared_line_is_high_while_any_source_is(void **state)
{
    (void)state;
    struct irq *a = irq_join(&rig->line[5]), *b = irq_join(&rig->line[5]);
    irq_set(a, true);
    irq_set(b, true);
    irq_set(a, false);
    assert_true(high(5));
    irq_set(b, false);
    assert_false(high(5));
    irq_set(a, true);
    irq_leave(a);
    irq_leave(b);
    assert_false(high(5));
    assert_int_equal(rig->edges[5], 2);
}

/* ---- properties ---- */

static void properties_are_checked_by_name_and_value(void **state)
{
    g_autoptr(GError) error = NULL;
    struct device *dev = device_new(device_model_find("isa-debug-exit"));
    (void)state;
    assert_fails(device_set(dev, "speed", "1", &error), error, EINVAL);
    assert_fails(device_set(dev, "iobase", "x", &error), error, EINVAL);
    assert_fails(device_set(dev, "iobase", "0x100000000", &error), error, EINVAL);
    assert_works(device_set(dev, "iobase", "0xf4", &error), error);
    assert_works(device_set(dev, "iosize", "9", &error), error);
    assert_fails(device_start(dev, rig->board, NULL, &error), error, EINVAL);
    dev = device_new(device_model_find("isa-serial"));
    assert_works(device_set(dev, "chardev", "nobody", &error), error);
    assert_fails(device_start(dev, rig->board, NULL, &error), error, ENOENT);
    assert_null(rig->board->devices);
}

static void debug_exit_hands_over_the_exit_code(void **state)
{
    g_autoptr(GError) error = NULL;
    struct device *dev = rig_device(rig, "isa-debug-exit");
    (void)state;
    assert_works(device_set(dev, "iobase", "0xf4", &error), error);
    assert_works(device_set(dev, "iosize", "4", &error), error);
    rig_start(rig, dev);
    space_store(rig->board->ports, 0xf4, 0x10, 4);
    assert_int_equal(rig->last_request, BOARD_EXIT);
    assert_int_equal(rig->last_code, 0x21);
}

/* ---- i8259 ---- */

static struct device *pic_ready(void)
{
    static const uint8_t master[] = {0x11, 0x20, 0x04, 0x01}, slave[] = {0x11, 0x28, 0x02, 0x01};
    struct device *pic = started_on("i8259", "int", 0);
    for (unsigned i = 0; i < 4; i++) {
        out(i ? 0x21 : 0x20, master[i]);
        out(i ? 0xa1 : 0xa0, slave[i]);
    }
    return pic;
}

static void pic_serves_by_priority_until_eoi(void **state)
{
    struct device *pic = pic_ready();
    (void)state;
    irq_pulse(i8259_input(pic, 4));
    assert_true(high(0));
    assert_int_equal(i8259_acknowledge(pic), 0x24);
    assert_false(high(0));
    irq_pulse(i8259_input(pic, 5)); /* lower: waits */
    assert_false(high(0));
    irq_pulse(i8259_input(pic, 1)); /* higher: interrupts the service */
    assert_true(high(0));
    assert_int_equal(i8259_acknowledge(pic), 0x21);
    out(0x20, 0x0b);
    assert_int_equal(in(0x20), 0x12); /* ISR */
    out(0x20, 0x20);
    out(0x20, 0x20);
    assert_int_equal(i8259_acknowledge(pic), 0x25);
    out(0x20, 0x60 | 5);
    assert_int_equal(in(0x20), 0);
    assert_int_equal(i8259_acknowledge(pic), 0x27); /* nothing there: spurious */
}

static void pic_cascades_and_masks(void **state)
{
    struct device *pic = pic_ready();
    (void)state;
    out(0xa1, 0x10);
    irq_pulse(i8259_input(pic, 12));
    assert_false(high(0));
    out(0xa1, 0);
    assert_int_equal(i8259_acknowledge(pic), 0x2c);
    irq_pulse(i8259_input(pic, 9)); /* higher on the slave, but the master is in IRQ 2 */
    assert_false(high(0));
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_int_equal(i8259_acknowledge(pic), 0x29);
}

static void pic_keeps_asking_for_a_level(void **state)
{
    struct device *pic = pic_ready();
    (void)state;
    out(0x4d1, 0x08); /* IRQ 11 is a level */
    irq_set(i8259_input(pic, 11), true);
    assert_int_equal(i8259_acknowledge(pic), 0x2b);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_int_equal(i8259_acknowledge(pic), 0x2b);
    irq_set(i8259_input(pic, 11), false);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_false(high(0));
}

static void pic_rotates_and_ends_by_itself(void **state)
{
    struct device *pic = pic_ready();
    (void)state;
    out(0x20, 0xc0 | 4); /* 4 is the lowest now: 5 goes before 3 */
    irq_pulse(i8259_input(pic, 3));
    irq_pulse(i8259_input(pic, 5));
    assert_int_equal(i8259_acknowledge(pic), 0x25);
    out(0x20, 0xa0); /* end, and rotate: 5 is the lowest */
    assert_int_equal(i8259_acknowledge(pic), 0x23);
    out(0x20, 0x20);
    out(0x20, 0x0c); /* poll */
    irq_pulse(i8259_input(pic, 6));
    assert_int_equal(in(0x20), 0x86);
}

/* ---- i8254 ---- */

static void pit_program(uint8_t channel, uint8_t mode, uint16_t count)
{
    out(0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    out((uint16_t)(0x40 + channel), (uint8_t)count);
    out((uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static void pit_interrupts_at_its_rate(void **state)
{
    (void)state;
    started_on("i8254", "irq", 0);
    pit_program(0, 2, 11932); /* 100 Hz */
    unsigned before = rig->edges[0];
    clock_advance(1000000000);
    assert_in_range(rig->edges[0] - before, 99, 100);
    pit_program(0, 0, 1193); /* once, after 1 ms */
    assert_false(high(0));
    clock_advance(999000);
    assert_false(high(0));
    clock_advance(2000);
    assert_true(high(0));
    before = rig->edges[0];
    clock_advance(1000000000);
    assert_int_equal(rig->edges[0], before);
}

static void pit_latches_count_and_status(void **state)
{
    (void)state;
    started("i8254");
    pit_program(2, 0, 0xffff);
    clock_advance(10000000); /* 11931 ticks */
    out(0x43, 0x80);
    clock_advance(10000000);
    unsigned count = in(0x42);
    count |= (unsigned)in(0x42) << 8;
    assert_in_range(0xffff - count, 11930, 11933);
    out(0x43, 0xe8); /* read back: status of channel 2 */
    assert_int_equal(in(0x42), 0x30);
    assert_int_equal(in(0x61) & 0x20, 0);
    clock_advance(40000000);
    assert_int_equal(in(0x61) & 0x20, 0x20);
}

/* ---- mc146818 ---- */

static uint8_t cmos(uint8_t index)
{
    out(0x70, index);
    return in(0x71);
}

static void set_cmos(uint8_t index, uint8_t v)
{
    out(0x70, index);
    out(0x71, v);
}

static struct device *rtc_at(const char *base)
{
    g_autoptr(GError) error = NULL;
    struct device *dev = rig_device(rig, "mc146818rtc");
    assert_works(device_set(dev, "base", base, &error), error);
    assert_works(device_connect(dev, "irq", WIRE_IRQ, &rig->line[8], &error), error);
    return rig_start(rig, dev);
}

static void rtc_shows_the_base_it_was_given(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    rtc_at("2024-02-28T23:59:58");
    assert_int_equal(cmos(0), 0x58);
    assert_int_equal(cmos(4), 0x23);
    clock_advance(2000000000);
    assert_int_equal(cmos(7), 0x29); /* a leap year */
    assert_int_equal(cmos(6), 5);    /* Thursday */
    assert_int_equal(cmos(8), 0x02);
    assert_int_equal(cmos(9), 0x24);
    assert_int_equal(cmos(0x32), 0x20);
    set_cmos(11, 0x04); /* binary, 12 hours */
    assert_int_equal(cmos(4), 12);
    assert_int_equal(cmos(7), 29);
    struct device *dev = rig_device(rig, "mc146818rtc");
    assert_works(device_set(dev, "base", "yesterday", &error), error);
    assert_fails(device_start(dev, rig->board, NULL, &error), error, EINVAL);
}

static void rtc_can_be_set(void **state)
{
    (void)state;
    rtc_at("2024-02-28");
    set_cmos(11, 0x82); /* SET, 24 hours */
    set_cmos(0, 0x30);
    set_cmos(2, 0x45);
    set_cmos(4, 0x13);
    clock_advance(5000000000);
    assert_int_equal(cmos(0), 0x30);
    set_cmos(11, 0x02);
    clock_advance(31000000000);
    assert_int_equal(cmos(0), 0x01);
    assert_int_equal(cmos(2), 0x46);
    assert_int_equal(cmos(4), 0x13);
}

static void rtc_interrupts(void **state)
{
    (void)state;
    rtc_at("2024-02-28");
    cmos(12);
    set_cmos(11, 0x42); /* periodic, 1024 Hz */
    unsigned before = rig->edges[8];
    for (unsigned i = 0; i < 1000; i++) {
        clock_advance(1000000);
        cmos(12);
    }
    assert_in_range(rig->edges[8] - before, 950, 1000); /* each of our 1000 looks takes one */
    set_cmos(11, 0x12); /* once a second */
    cmos(12);
    before = rig->edges[8];
    clock_advance(1000000000);
    assert_int_equal(rig->edges[8], before + 1);
    assert_int_equal(cmos(12) & 0x90, 0x90);
    assert_false(high(8));
    set_cmos(1, 0x10); /* alarm at 00:01:10 */
    set_cmos(3, 0x01);
    set_cmos(5, 0x00);
    set_cmos(11, 0x22);
    cmos(12);
    clock_advance(66000000000);
    assert_false(high(8));
    clock_advance(5000000000);
    assert_true(high(8));
    assert_int_equal(cmos(12) & 0xa0, 0xa0);
}

/* ---- serial16550 ---- */

enum { COM1 = 0x3f8 };

static void serial_sends_and_waits_for_a_slow_backend(void **state)
{
    (void)state;
    started_on("isa-serial", "irq", 4);
    out(COM1 + 2, 1);
    out(COM1 + 1, 2);
    assert_true(high(4)); /* the transmitter is empty */
    assert_int_equal(in(COM1 + 2), 0xc2);
    assert_false(high(4));
    rig->takes = 3;
    for (unsigned i = 0; i < 10; i++) {
        out(COM1, (uint8_t)('a' + i));
    }
    assert_int_equal(in(COM1 + 5), 0);
    rig->takes = SIZE_MAX;
    rig->chr.writable(rig->chr.peer);
    assert_int_equal(in(COM1 + 5), 0x60);
    assert_true(high(4));
    assert_int_equal(rig->n_sent, 10);
    assert_memory_equal(rig->sent, "abcdefghij", 10);
}

static void serial_receives_into_its_fifo(void **state)
{
    (void)state;
    started_on("isa-serial", "irq", 4);
    assert_int_equal(rig->chr.room(rig->chr.peer), 1);
    out(COM1 + 2, 0x81); /* FIFO on, trigger 8 */
    out(COM1 + 1, 1);
    assert_int_equal(rig->chr.room(rig->chr.peer), 16);
    rig->chr.receive(rig->chr.peer, (const uint8_t *)"xyz", 3);
    assert_true(high(4));
    assert_int_equal(in(COM1 + 2), 0xcc); /* below the trigger: timeout */
    assert_int_equal(in(COM1), 'x');
    assert_int_equal(in(COM1), 'y');
    assert_int_equal(in(COM1 + 5), 0x61);
    assert_int_equal(in(COM1), 'z');
    assert_false(high(4));
    out(COM1 + 3, 0x83);
    out(COM1, 1);
    assert_int_equal(in(COM1), 1);
    out(COM1 + 3, 0x03);
    assert_int_equal(in(COM1), 'z');
    out(COM1 + 4, 0x1f); /* loopback */
    out(COM1, 'q');
    assert_int_equal(in(COM1), 'q');
    assert_int_equal(in(COM1 + 6) & 0xf0, 0xf0);
}

/* ---- i8042 ---- */

static void start_keyboard(void)
{
    g_autoptr(GError) error = NULL;
    struct device *dev = rig_device(rig, "i8042");
    assert_works(device_connect(dev, "irq", WIRE_IRQ, &rig->line[1], &error), error);
    assert_works(device_connect(dev, "irq-mouse", WIRE_IRQ, &rig->line[12], &error), error);
    rig_start(rig, dev);
}

static uint8_t kbd_command(uint8_t command)
{
    out(0x64, command);
    return in(0x60);
}

static void keyboard_answers_and_translates(void **state)
{
    (void)state;
    start_keyboard();
    assert_int_equal(kbd_command(0xaa), 0x55);
    out(0x64, 0x60);
    out(0x60, 0x41); /* interrupts, translation */
    out(0x60, 0xff);
    assert_int_equal(in(0x60), 0xfa);
    assert_int_equal(in(0x60), 0xaa);
    display_key(rig->board->display, 0x1e, true);
    display_key(rig->board->display, 0x1e, false);
    display_key(rig->board->display, 0xcb, true); /* left arrow: E0 */
    assert_true(high(1));
    assert_int_equal(in(0x60), 0x1e);
    assert_int_equal(in(0x60), 0x9e);
    assert_int_equal(in(0x60), 0xe0);
    assert_int_equal(in(0x60), 0x4b);
    assert_false(high(1));
    out(0x64, 0x60);
    out(0x60, 0x01); /* as the keyboard sends it: set 2 */
    display_key(rig->board->display, 0x1e, false);
    assert_int_equal(in(0x60), 0xf0);
    assert_int_equal(in(0x60), 0x1c);
    assert_int_equal(in(0x64) & 1, 0);
}

/* A viewer pastes a line before the guest has looked once; none of it is lost. */
static void keyboard_holds_a_line(void **state)
{
    enum { KEYS = 60 };
    (void)state;
    start_keyboard();
    out(0x64, 0x60);
    out(0x60, 0x41);
    for (unsigned i = 0; i < KEYS; i++) {
        display_key(rig->board->display, 0x10 + i % 8, true);
        display_key(rig->board->display, 0x10 + i % 8, false);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        assert_int_equal(in(0x60), 0x10 + i % 8);
        assert_int_equal(in(0x60), 0x90 + i % 8);
    }
    assert_int_equal(in(0x64) & 1, 0);
}

static void mouse_write(uint8_t v)
{
    out(0x64, 0xd4);
    out(0x60, v);
    assert_int_equal(in(0x64) & 0x21, 0x21);
    assert_int_equal(in(0x60), 0xfa);
}

static void mouse_learns_about_the_wheel(void **state)
{
    static const uint8_t knock[] = {200, 100, 80};
    (void)state;
    start_keyboard();
    out(0x64, 0x60);
    out(0x60, 0x03);
    for (unsigned i = 0; i < 3; i++) {
        mouse_write(0xf3);
        mouse_write(knock[i]);
    }
    mouse_write(0xf2);
    assert_int_equal(in(0x60), 3);
    display_pointer(rig->board->display, 1, 1, 0, 0);
    assert_int_equal(in(0x64) & 1, 0); /* not yet reporting */
    mouse_write(0xf4);
    display_pointer(rig->board->display, 5, 3, -1, 1);
    assert_true(high(12));
    assert_int_equal(in(0x60), 0x29); /* left button, y negative */
    assert_int_equal(in(0x60), 5);
    assert_int_equal(in(0x60), 0xfd);
    assert_int_equal(in(0x60), 0xff);
    assert_false(high(12));
}

static void keyboard_controller_resets_the_machine(void **state)
{
    (void)state;
    start_keyboard();
    out(0x64, 0xfe);
    assert_int_equal(rig->requests, 1);
    assert_int_equal(rig->last_request, BOARD_RESET);
}

/* ---- fw_cfg ---- */

static void fw_select(uint16_t key)
{
    space_store(rig->board->ports, 0x510, key, 2);
}

static void fw_cfg_gives_items_and_files(void **state)
{
    g_autoptr(GError) error = NULL;
    struct device *fw = started("fw_cfg");
    (void)state;
    assert_works(fw_cfg_add_file(fw, "etc/one", "hello", 5, &error), error);
    assert_fails(fw_cfg_add_file(fw, "etc/one", "again", 5, &error), error, EEXIST);
    fw_cfg_add_u16(fw, FW_CFG_NB_CPUS, 4);
    fw_select(FW_CFG_SIGNATURE);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(in(0x511), "QEMU"[i]);
    }
    assert_int_equal(in(0x511), 0);
    fw_select(FW_CFG_NB_CPUS);
    assert_int_equal(in(0x511), 4);
    fw_select(FW_CFG_FILE_DIR);
    uint8_t dir[68];
    for (unsigned i = 0; i < sizeof(dir); i++) {
        dir[i] = in(0x511);
    }
    assert_int_equal(be32_at(dir), 1);
    assert_int_equal(be32_at(dir + 4), 5);
    assert_int_equal(be16_at(dir + 8), 0x20);
    assert_string_equal((char *)dir + 12, "etc/one");
    fw_select(0xffff);
    assert_int_equal(in(0x511), 0);
}

/* Runs a transfer described at 0x1000; what is left in its control word. */
static uint32_t fw_dma(uint32_t control, uint32_t n, uint64_t at)
{
    uint8_t *d = rig->ram->host + 0x1000;
    be32_put(d, control);
    be32_put(d + 4, n);
    be64_put(d + 8, at);
    space_store(rig->board->ports, 0x514, 0, 4);
    space_store(rig->board->ports, 0x518, GUINT32_SWAP_LE_BE(0x1000), 4);
    return be32_at(d);
}

static void fw_cfg_transfers_by_dma(void **state)
{
    g_autoptr(GError) error = NULL;
    struct device *fw = started("fw_cfg");
    struct fw_cfg_hooks hooks = {.writable = true};
    (void)state;
    assert_works(fw_cfg_add_live_file(fw, "rw", "0123456789", 10, &hooks, &error), error);
    assert_works(fw_cfg_add_file(fw, "ro", "abc", 3, &error), error);
    assert_int_equal(space_load(rig->board->ports, 0x514, 4), 0x554d4551);
    assert_int_equal(fw_dma(0x20 << 16 | 8 | 4, 4, 0), 0);
    assert_int_equal(fw_dma(2, 8, 0x2000), 0);
    assert_memory_equal(rig->ram->host + 0x2000, "456789\0\0", 8);
    memcpy(rig->ram->host + 0x3000, "XY", 2);
    assert_int_equal(fw_dma(0x20 << 16 | 8 | 16, 2, 0x3000), 0);
    assert_int_equal(fw_dma(0x20 << 16 | 8 | 2, 3, 0x2000), 0);
    assert_memory_equal(rig->ram->host + 0x2000, "XY2", 3);
    assert_int_equal(fw_dma(0x20 << 16 | 8 | 16, 11, 0x3000), 1);
    assert_int_equal(fw_dma(0x21 << 16 | 8 | 16, 1, 0x3000), 1);
    assert_int_equal(fw_dma(0x21 << 16 | 8 | 2, 3, UINT64_MAX - 1), 1);
}

/* ---- i8237 ---- */

static struct {
    struct device *dma;
    unsigned calls;
    size_t moved;
} floppy;

static void floppy_ready(void *owner)
{
    static const uint8_t sector[16] = "a sector of data";
    (void)owner;
    floppy.calls++;
    floppy.moved = i8237_write_memory(floppy.dma, 2, sector, sizeof(sector));
    i8237_request(floppy.dma, 2, false);
}

static void dma_runs_when_the_channel_is_unmasked(void **state)
{
    (void)state;
    memset(&floppy, 0, sizeof(floppy));
    floppy.dma = started("i8257");
    i8237_attach(floppy.dma, 2, floppy_ready, NULL);
    i8237_request(floppy.dma, 2, true);
    assert_int_equal(floppy.calls, 0);
    out(0x0c, 0);
    out(0x0b, 0x46); /* single, to memory, channel 2 */
    out(0x04, 0x00);
    out(0x04, 0x40);
    out(0x81, 0x01); /* 0x14000 */
    out(0x05, 9);
    out(0x05, 0); /* 10 bytes */
    assert_int_equal(in(0x08) & 0x40, 0x40);
    out(0x0a, 0x02);
    assert_int_equal(floppy.calls, 1);
    assert_int_equal(floppy.moved, 10);
    assert_memory_equal(rig->ram->host + 0x14000, "a sector o\0", 11);
    assert_true(i8237_done(floppy.dma, 2));
    assert_int_equal(in(0x08), 0x04);
    assert_int_equal(in(0x08), 0);
    assert_int_equal(i8237_write_memory(floppy.dma, 2, "x", 1), 0); /* masked itself */
}

/* ---- hpet ---- */

enum { HPET = 0xfed00000 };

static uint64_t hpet(unsigned at)
{
    return space_load(rig->board->memory, HPET + at, 8);
}

static void set_hpet(unsigned at, uint32_t v)
{
    space_store(rig->board->memory, HPET + at, v, 4);
}

static void hpet_counts_and_compares(void **state)
{
    (void)state;
    started("hpet");
    assert_int_equal(hpet(0) >> 32, 10000000);
    set_hpet(0x10, 1);
    clock_advance(1000);
    assert_int_equal(hpet(0xf0), 100);
    set_hpet(0x100, 2 << 9 | 4); /* edge, input 2 */
    set_hpet(0x108, 1000);
    set_hpet(0x10c, 0);
    clock_advance(8990);
    assert_int_equal(rig->edges[2], 0);
    clock_advance(20);
    assert_int_equal(rig->edges[2], 1);
    set_hpet(0x120, 5 << 9 | 0x40 | 8 | 4 | 2); /* periodic level on input 5 */
    uint32_t first = (uint32_t)hpet(0xf0) + 100000;
    set_hpet(0x128, first);
    set_hpet(0x12c, 0);
    set_hpet(0x128, 100000);
    clock_advance(1000010);
    assert_true(high(5));
    assert_int_equal(hpet(0x20), 2);
    set_hpet(0x20, 2);
    assert_false(high(5));
    clock_advance(1000000);
    assert_true(high(5));
}

static void hpet_replaces_the_old_timers(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    started_on("i8254", "irq", 0);
    struct device *h = rig_device(rig, "hpet");
    rig_start(rig, h);
    pit_program(0, 2, 11932);
    clock_advance(100000000);
    assert_true(rig->edges[0] > 8);
    set_hpet(0x100, 4);
    set_hpet(0x108, 1 << 20);
    set_hpet(0x10c, 0);
    set_hpet(0x10, 3);
    unsigned before = rig->edges[0];
    clock_advance(1000000000);
    assert_int_equal(rig->edges[0], before + 1); /* the comparator's, none of the PIT's */
}

/* ---- ioapic ---- */

static uint32_t ioapic(unsigned index)
{
    space_store(rig->board->memory, 0xfec00000, index, 4);
    return (uint32_t)space_load(rig->board->memory, 0xfec00010, 4);
}

static void set_ioapic(unsigned index, uint32_t v)
{
    space_store(rig->board->memory, 0xfec00000, index, 4);
    space_store(rig->board->memory, 0xfec00010, v, 4);
}

static void ioapic_sends_edges_and_levels(void **state)
{
    struct device *dev = started("ioapic");
    (void)state;
    assert_int_equal(ioapic(1), 0x170020);
    assert_int_equal(ioapic(0x10 + 8), 0x10000);
    set_ioapic(0x11 + 8, 0x03000000);
    set_ioapic(0x10 + 8, 0x10031); /* masked: an edge is lost */
    irq_pulse(ioapic_input(dev, 4));
    set_ioapic(0x10 + 8, 0x31);
    assert_int_equal(rig->msis, 0);
    irq_pulse(ioapic_input(dev, 4));
    assert_int_equal(rig->msis, 1);
    assert_int_equal(rig->msi_address, 0xfee03000);
    assert_int_equal(rig->msi_data, 0x31);
    set_ioapic(0x10 + 20, 0x8842 | 0x10000); /* level, logical, input 10 */
    irq_set(ioapic_input(dev, 10), true);
    assert_int_equal(rig->msis, 1);
    set_ioapic(0x10 + 20, 0x8842);
    assert_int_equal(rig->msis, 2);
    assert_int_equal(rig->msi_data, 0xc042);
    assert_int_equal(ioapic(0x10 + 20), 0xc842); /* remote IRR */
    ioapic_eoi(dev, 0x42);
    assert_int_equal(rig->msis, 3); /* still high */
    irq_set(ioapic_input(dev, 10), false);
    space_store(rig->board->memory, 0xfec00040, 0x42, 4);
    assert_int_equal(rig->msis, 3);
    assert_int_equal(ioapic(0x10 + 20), 0x8842);
}

/* ---- printer ---- */

enum { LPT = 0x378, STROBE = 0x01, LPT_IRQ = 0x10, LPT_UP = 0x0c };

static void a_printed_byte_leaves_with_the_strobe(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    struct device *dev = rig_device(rig, "isa-parallel");
    assert_works(device_give(dev, "chardev", &rig->chr, &error), error);
    assert_works(device_connect(dev, "irq", WIRE_IRQ, &rig->line[7], &error), error);
    rig_start(rig, dev);
    rig->takes = 1;
    assert_int_equal(in(LPT + 1), 0xdf);
    out(LPT, 'A');
    assert_int_equal(rig->n_sent, 0);
    out(LPT + 2, LPT_UP | LPT_IRQ | STROBE);
    out(LPT + 2, LPT_UP | LPT_IRQ);
    assert_int_equal(rig->n_sent, 1);
    assert_int_equal(rig->sent[0], 'A');
    assert_int_equal(rig->edges[7], 1);
    assert_int_equal(in(LPT + 1), 0x9f); /* acknowledged, for one look */
    assert_int_equal(in(LPT + 1), 0xdf);
    /* A printer that does not take it is busy. */
    out(LPT, 'B');
    out(LPT + 2, LPT_UP | STROBE);
    out(LPT + 2, LPT_UP);
    assert_int_equal(in(LPT + 1), 0x5f);
    rig->takes = 1;
    rig->chr.writable(rig->chr.peer);
    assert_int_equal(rig->sent[1], 'B');
    assert_int_equal(in(LPT + 1), 0x9f);
}

/* ---- watchdog ---- */

enum { DOG = 0x80000000, DOG_LOCK = 0x68 };

static void dog_write(unsigned at, uint32_t value)
{
    space_store(rig->board->memory, DOG + 0xc, 0x80, 2);
    space_store(rig->board->memory, DOG + 0xc, 0x86, 2);
    space_store(rig->board->memory, DOG + at, value, at == 0xc ? 2 : 4);
}

static void a_watchdog_that_is_not_fed_barks(void **state)
{
    (void)state;
    struct pci_device *pci = (struct pci_device *)started("i6300esb");
    pci_config_write(&rig->bus, 0, pci->devfn, PCI_BAR0, DOG, 4);
    pci_config_write(&rig->bus, 0, pci->devfn, PCI_COMMAND, 2, 2);
    space_store(rig->board->memory, DOG, 5, 4); /* without the key: nothing */
    dog_write(0, 1000); /* about a second each */
    dog_write(4, 1000);
    pci_config_write(&rig->bus, 0, pci->devfn, DOG_LOCK, 3, 1); /* on, and locked */
    pci_config_write(&rig->bus, 0, pci->devfn, DOG_LOCK, 0, 1);
    assert_int_equal(pci_config_read(&rig->bus, 0, pci->devfn, DOG_LOCK, 1), 3);
    clock_advance(900 * 1000000ll);
    dog_write(0xc, 0x100); /* fed */
    clock_advance(900 * 1000000ll);
    assert_int_equal(rig->intx, 0);
    clock_advance(200 * 1000000ll);
    assert_int_not_equal(rig->intx, 0); /* the first stage is a warning */
    assert_int_equal(rig->requests, 0);
    space_store(rig->board->memory, DOG + 8, 1, 4);
    assert_int_equal(rig->intx, 0);
    clock_advance(1000 * 1000000ll);
    assert_int_equal(rig->requests, 1);
    assert_int_equal(rig->last_request, BOARD_WATCHDOG);
    assert_int_equal(space_load(rig->board->memory, DOG + 0xc, 2), 0x200);
    board_reset(rig->board);
    pci_config_write(&rig->bus, 0, pci->devfn, PCI_BAR0, DOG, 4);
    pci_config_write(&rig->bus, 0, pci->devfn, PCI_COMMAND, 2, 2);
    assert_int_equal(space_load(rig->board->memory, DOG + 0xc, 2), 0x200); /* why it started anew */
    clock_advance(3000 * 1000000ll);
    assert_int_equal(rig->requests, 1);
}

/* ---- SMBus ---- */

enum { SMBUS = 0x700 };

/* Nobody is there: a transaction ends in an error, with an interrupt if it was asked for. */
static void the_smbus_says_that_nobody_answered(void **state)
{
    (void)state;
    struct pci_device *pci = (struct pci_device *)started("ICH9-SMB");
    pci_config_write(&rig->bus, 0, pci->devfn, PCI_BAR0 + 16, SMBUS, 4);
    pci_config_write(&rig->bus, 0, pci->devfn, PCI_COMMAND, 1, 2);
    assert_int_equal(in(SMBUS), 0);
    assert_int_equal(in(SMBUS), 0x40); /* taken by the first read */
    out(SMBUS + 4, 0xa1);
    out(SMBUS + 2, 0x48);
    assert_int_equal(in(SMBUS) & 0x1f, 4);
    assert_int_equal(in(SMBUS + 2), 8); /* the start bit reads as zero */
    assert_int_equal(rig->intx, 0);
    out(SMBUS, 0x44);
    out(SMBUS + 2, 0x49);
    assert_int_not_equal(rig->intx, 0);
    out(SMBUS, 0x1e);
    assert_int_equal(rig->intx, 0);
    out(SMBUS + 7, 0x12);
    out(SMBUS + 7, 0x34);
    in(SMBUS + 2); /* back to the first byte */
    assert_int_equal(in(SMBUS + 7), 0x12);
    assert_int_equal(in(SMBUS + 7), 0x34);
}

/* ---- -global ---- */

static void globals_are_the_defaults_of_new_devices(void **state)
{
    g_autoptr(GError) error = NULL;
    const struct device_model *m = device_model_find("isa-debug-exit");
    (void)state;
    assert_fails(device_global(m, "speed", "1", &error), error, EINVAL);
    assert_fails(device_global(m, "iobase", "x", &error), error, EINVAL);
    assert_works(device_global(m, "iobase", "0x300", &error), error);
    assert_works(device_global(m, "iobase", "0x310", &error), error);
    started("isa-debug-exit");
    out(0x310, 7);
    assert_int_equal(rig->last_code, 15);
}

#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        T(a_shared_line_is_high_while_any_source_is),
        T(properties_are_checked_by_name_and_value),
        T(debug_exit_hands_over_the_exit_code),
        T(pic_serves_by_priority_until_eoi),
        T(pic_cascades_and_masks),
        T(pic_keeps_asking_for_a_level),
        T(pic_rotates_and_ends_by_itself),
        T(pit_interrupts_at_its_rate),
        T(pit_latches_count_and_status),
        T(rtc_shows_the_base_it_was_given),
        T(rtc_can_be_set),
        T(rtc_interrupts),
        T(the_smbus_says_that_nobody_answered),
        T(serial_sends_and_waits_for_a_slow_backend),
        T(serial_receives_into_its_fifo),
        T(keyboard_answers_and_translates),
        T(keyboard_holds_a_line),
        T(mouse_learns_about_the_wheel),
        T(keyboard_controller_resets_the_machine),
        T(fw_cfg_gives_items_and_files),
        T(fw_cfg_transfers_by_dma),
        T(dma_runs_when_the_channel_is_unmasked),
        T(hpet_counts_and_compares),
        T(hpet_replaces_the_old_timers),
        T(ioapic_sends_edges_and_levels),
        T(a_printed_byte_leaves_with_the_strobe),
        T(a_watchdog_that_is_not_fed_barks),
        T(globals_are_the_defaults_of_new_devices),
    };
    machine_lock();
    clock_wall_follow_guest();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
