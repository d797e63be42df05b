/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio devices with little to them: entropy, balloon, consoles. */
#include "tests/unit/vdriver.h"

#include "guest/device/virtio_balloon.h"
#include "host/chardev/chardev.h"
#include "host/display/display.h"

static struct vdriver d;

static int unplug(void **state)
{
    (void)state;
    vd_unplug(&d);
    return 0;
}

static void plug(const char *model, const char *const *set)
{
    vd_plug(&d, model, set);
    vd_plugged(&d);
}

static void turn(unsigned ms)
{
    gint64 end = g_get_monotonic_time() + ms * 1000;
    while (g_get_monotonic_time() < end) {
        g_main_context_iteration(NULL, FALSE);
    }
}

/* ---- entropy ---- */

static void the_guest_gets_random_bytes(void **state)
{
    (void)state;
    static const uint8_t zero[64];
    plug("virtio-rng-pci", NULL);
    vd_start(&d, 0, 1);
    uint64_t at = vd_alloc(&d, 64);
    uint32_t n;
    vd_add(&d, 0, (struct vd_part[]){{at, 64, true}, {0}});
    vd_kick(&d, 0);
    assert_true(vd_used(&d, 0, &n));
    assert_int_equal(n, 64);
    assert_memory_not_equal(vd_at(&d, at), zero, 64);
}

static void entropy_is_rationed(void **state)
{
    (void)state;
    static const char *const set[] = {"max-bytes", "100", "period", "30", NULL};
    plug("virtio-rng-pci", set);
    vd_start(&d, 0, 1);
    uint64_t at = vd_alloc(&d, 64);
    uint32_t n;
    for (unsigned i = 0; i < 3; i++) {
        vd_add(&d, 0, (struct vd_part[]){{at, 64, true}, {0}});
    }
    vd_kick(&d, 0);
    assert_true(vd_used(&d, 0, &n) && n == 64);
    assert_true(vd_used(&d, 0, &n) && n == 36);
    assert_false(vd_used(&d, 0, &n));
    turn(80);
    assert_true(vd_used(&d, 0, &n) && n == 64);
}

/* ---- balloon ---- */

static void inflated_pages_are_given_back(void **state)
{
    (void)state;
    plug("virtio-balloon-pci", NULL);
    vd_start(&d, 2, 3);
    struct device *dev = board_part(d.board, "balloon");
    balloon_set_target(dev, 3 << 20);
    assert_int_equal(vd_config(&d, 0, 4), 768);
    memset(vd_at(&d, 0x800000), 0x55, 0x3000);
    uint64_t at = vd_alloc(&d, 12);
    le32_put(vd_at(&d, at), 0x800);
    le32_put(vd_at(&d, at + 4), 0x802);
    le32_put(vd_at(&d, at + 8), 0xfffffff); /* nothing there */
    vd_add(&d, 0, (struct vd_part[]){{at, 12}, {0}});
    vd_kick(&d, 0);
    assert_true(vd_used(&d, 0, NULL));
    assert_int_equal(*vd_at(&d, 0x800000), 0);
    assert_int_equal(*vd_at(&d, 0x801000), 0x55);
    assert_int_equal(*vd_at(&d, 0x802fff), 0);
    vd_put(&d, 0x2004, 2, 4);
    assert_int_equal(balloon_given(dev), 8192);
}

static void the_guests_figures_are_kept_and_asked_for(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    plug("virtio-balloon-pci", NULL);
    vd_start(&d, 2, 3);
    struct device *dev = board_part(d.board, "balloon");
    uint64_t at = vd_alloc(&d, 20);
    le16_put(vd_at(&d, at), 4); /* free memory */
    le64_put(vd_at(&d, at + 2), 123456);
    le16_put(vd_at(&d, at + 10), 999);
    vd_add(&d, 2, (struct vd_part[]){{at, 20}, {0}});
    vd_kick(&d, 2);
    assert_int_equal(balloon_stats(dev)[4], 123456);
    assert_int_equal(balloon_stats(dev)[0], UINT64_MAX);
    assert_false(vd_used(&d, 2, NULL));
    g_autoptr(GBytes) saved = device_save(dev);
    device_reset(dev);
    assert_works(device_load(dev, saved, &error), error);
    balloon_ask_stats(dev);
    assert_true(vd_used(&d, 2, NULL));
}

static void reported_pages_are_given_back(void **state)
{
    (void)state;
    static const char *const set[] = {"free-page-reporting", "on", NULL};
    plug("virtio-balloon-pci", set);
    vd_start(&d, 1 << 5, 4);
    memset(vd_at(&d, 0x900000), 0x55, 0x4000);
    vd_add(&d, 3, (struct vd_part[]){{0x900000, 0x2000, true}, {0}});
    vd_kick(&d, 3);
    assert_true(vd_used(&d, 3, NULL));
    assert_int_equal(*vd_at(&d, 0x901fff), 0);
    assert_int_equal(*vd_at(&d, 0x902000), 0x55);
}

/* ---- consoles ---- */

static char written[256];
static size_t n_written, takes;

static size_t chr_write(struct chardev *chr, const void *data, size_t n)
{
    (void)chr;
    n = MIN(n, MIN(takes, sizeof(written) - n_written));
    memcpy(written + n_written, data, n);
    n_written += n;
    takes -= n;
    return n;
}

static struct chardev console_chr = {.id = "c0", .write = chr_write, .open = true};
static struct chardev port_chr = {.id = "c1", .write = chr_write, .open = true};

static struct chardev *find_chardev(const char *id)
{
    return g_str_equal(id, "c0") ? &console_chr : g_str_equal(id, "c1") ? &port_chr : NULL;
}

static void add_port(const char *model, const char *chr, const char *name)
{
    g_autoptr(GError) error = NULL;
    struct device *dev = device_new(device_model_find(model));
    assert_works(device_set(dev, "chardev", chr, &error), error);
    assert_works(!name || device_set(dev, "name", name, &error), error);
    assert_works(device_start(dev, d.board, NULL, &error), error);
}

static void plug_serial(void)
{
    static const char *const set[] = {"max_ports", "3", NULL};
    plug("virtio-serial-pci", set);
    d.board->backends.chardev = find_chardev;
    add_port("virtconsole", "c0", NULL);
    add_port("virtserialport", "c1", "org.lodge.test");
    n_written = 0;
    takes = SIZE_MAX;
}

static void say(unsigned nr, unsigned event, unsigned value)
{
    uint64_t at = vd_alloc(&d, 8);
    le32_put(vd_at(&d, at), nr);
    le16_put(vd_at(&d, at + 4), (uint16_t)event);
    le16_put(vd_at(&d, at + 6), (uint16_t)value);
    vd_add(&d, 3, (struct vd_part[]){{at, 8}, {0}});
    vd_kick(&d, 3);
}

static uint64_t control_at[8];

static void expect(unsigned i, unsigned nr, unsigned event, unsigned value)
{
    const uint8_t *m = vd_at(&d, control_at[i]);
    assert_true(vd_used(&d, 2, NULL));
    assert_int_equal(le32_at(m), nr);
    assert_int_equal(le16_at(m + 4), event);
    assert_int_equal(le16_at(m + 6), value);
}

static void start_serial(void)
{
    plug_serial();
    vd_start(&d, 2, 8);
    for (unsigned i = 0; i < 8; i++) {
        control_at[i] = vd_alloc(&d, 64);
        vd_add(&d, 2, (struct vd_part[]){{control_at[i], 64, true}, {0}});
    }
    vd_kick(&d, 2);
}

static void ports_are_told_by_the_book(void **state)
{
    (void)state;
    start_serial();
    assert_int_equal(vd_config(&d, 4, 4), 3);
    say(0, 0, 1);
    expect(0, 0, 1, 1);
    expect(1, 1, 1, 1);
    say(0, 3, 1);
    expect(2, 0, 4, 1);
    expect(3, 0, 6, 1);
    say(1, 3, 1);
    expect(4, 1, 7, 1);
    assert_memory_equal(vd_at(&d, control_at[4]) + 8, "org.lodge.test", 14);
    expect(5, 1, 6, 1);
    port_chr.event(port_chr.peer, CHARDEV_CLOSED);
    assert_true(vd_used(&d, 2, NULL));
    say(77, 3, 1);
    say(2, 6, 1);
}

static void bytes_go_both_ways_and_wait_where_they_must(void **state)
{
    (void)state;
    start_serial();
    uint64_t out = vd_alloc(&d, 16), in = vd_alloc(&d, 16);
    uint32_t n;
    memcpy(vd_at(&d, out), "hello, world", 12);
    takes = 5;
    vd_add(&d, 1, (struct vd_part[]){{out, 12}, {0}});
    vd_kick(&d, 1);
    assert_int_equal(n_written, 5);
    assert_false(vd_used(&d, 1, NULL));
    takes = 100;
    console_chr.writable(console_chr.peer);
    assert_memory_equal(written, "hello, world", 12);
    assert_true(vd_used(&d, 1, NULL));

    assert_int_equal(console_chr.room(console_chr.peer), 0); /* nobody has it open */
    say(0, 6, 1);
    assert_true(console_chr.room(console_chr.peer) >= 6);
    console_chr.receive(console_chr.peer, (const uint8_t *)"abcdef", 6);
    vd_add(&d, 0, (struct vd_part[]){{in, 4, true}, {0}});
    vd_kick(&d, 0);
    assert_true(vd_used(&d, 0, &n) && n == 4);
    assert_memory_equal(vd_at(&d, in), "abcd", 4);
    vd_add(&d, 0, (struct vd_part[]){{in, 4, true}, {0}});
    vd_kick(&d, 0);
    assert_true(vd_used(&d, 0, &n) && n == 2);
    assert_memory_equal(vd_at(&d, in), "ef", 2);
}

static void ports_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value, *says;
    } rows[] = {{"nr", "0", "port 0"}, {"nr", "1", "taken"}, {"nr", "9", "more than"},
                {"bus", "nosuch.0", "nosuch"}, {"chardev", "c0", "in use"}};
    plug_serial();
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GError) error = NULL;
        struct device *dev = device_new(device_model_find("virtserialport"));
        assert_works(device_set(dev, rows[i].name, rows[i].value, &error), error);
        if (device_start(dev, d.board, NULL, &error) || !strstr(error->message, rows[i].says)) {
            fail_msg("%s=%s: %s", rows[i].name, rows[i].value, error ? error->message : "works");
        }
    }
}

/* ---- virtio-tablet-pci ---- */

static unsigned input_config(uint8_t select, uint8_t sub)
{
    vd_put(&d, 0x2000, select, 1);
    vd_put(&d, 0x2001, sub, 1);
    return vd_config(&d, 2, 1);
}

static void expect_event(uint64_t at, unsigned type, unsigned code, uint32_t value)
{
    uint32_t bytes = 0;
    assert_true(vd_used(&d, 0, &bytes));
    assert_int_equal(bytes, 8);
    assert_int_equal(le16_at(vd_at(&d, at)), type);
    assert_int_equal(le16_at(vd_at(&d, at + 2)), code);
    assert_int_equal(le32_at(vd_at(&d, at + 4)), value);
}

/* What it is, where it is, and that a packet waits for buffers. */
static void a_tablet_tells_where_it_is(void **state)
{
    struct display *screen = display_new();
    uint64_t at[4];
    (void)state;
    vd_plug(&d, "virtio-tablet-pci", NULL);
    d.board->display = screen;
    vd_plugged(&d);
    assert_int_equal(input_config(1, 0), strlen("QEMU Virtio Tablet"));
    assert_int_equal(input_config(3, 0), 8);
    assert_int_equal(vd_config(&d, 10, 2), 0x0627);
    assert_int_equal(input_config(0x11, 3), 1); /* two axes ... */
    assert_int_equal(vd_config(&d, 8, 1), 3);
    assert_int_equal(input_config(0x12, 1), 20); /* ... as far as this */
    assert_int_equal(vd_config(&d, 12, 4), 0x7fff);
    assert_int_equal(input_config(0x12, 9), 0);
    assert_int_equal(input_config(0x77, 0xff), 0);
    display_pointer(screen, 1, 1, 0, 0); /* nobody listens yet */
    vd_start(&d, 0, 2);
    assert_true(screen->pointer_absolute);
    display_pointer(screen, 100, 0x7fff, 0, 1);
    for (unsigned i = 0; i < 4; i++) {
        at[i] = vd_alloc(&d, 8);
        vd_add(&d, 0, (struct vd_part[]){{at[i], 8, true}, {0}});
    }
    vd_kick(&d, 0);
    expect_event(at[0], 3, 0, 100);
    expect_event(at[1], 3, 1, 0x7fff);
    expect_event(at[2], 1, 0x110, 1);
    expect_event(at[3], 0, 0, 0);
    for (unsigned i = 0; i < 1000; i++) { /* more than it keeps: whole packets are lost */
        display_pointer(screen, (int)i, 7, 0, 1);
    }
    assert_false(vd_used(&d, 0, NULL));
    vd_put(&d, 20, 0, 1);
    assert_false(screen->pointer_absolute);
    board_free(d.board);
    ram_free(d.ram);
    memset(&d, 0, sizeof(d));
    g_free(screen);
}

int main(void)
{
#define T(name) cmocka_unit_test_teardown(name, unplug)
    const struct CMUnitTest tests[] = {
        T(the_guest_gets_random_bytes),
        T(entropy_is_rationed),
        T(inflated_pages_are_given_back),
        T(the_guests_figures_are_kept_and_asked_for),
        T(reported_pages_are_given_back),
        T(ports_are_told_by_the_book),
        T(bytes_go_both_ways_and_wait_where_they_must),
        T(ports_that_cannot_be_are_refused),
        cmocka_unit_test(a_tablet_tells_where_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
