/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/nic.h"

enum { F_CSUM = 1 << 0, F_GUEST_CSUM = 1 << 1, F_TSO4 = 1 << 11, F_MRG = 1 << 15,
       F_STATUS = 1 << 16, F_CTRL = 7 << 17 | 1 << 20, F_MQ = 1 << 22, F_MTU = 1 << 3 };

static int plug(void **state)
{
    (void)state;
    nic_plug("virtio-net-pci", NULL);
    net->sums_good = net->takes_large = true;
    vd_plugged(&d);
    return 0;
}

/* Two more behind a second and a third pair of queues. */
static struct netdev *others[2];
static bool in_use[2];
static unsigned n_other;

static void use(struct netdev *n, bool on)
{
    in_use[n == others[1]] = on;
}

static void other_send(struct netdev *n, const struct iovec *iov, unsigned niov)
{
    n_other += n == others[0];
    nic_send(n, iov, niov);
}

static int plug_pairs(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    static const char *const set[] = {"mq", "on", "host_mtu", "1400", NULL};
    nic_plug("virtio-net-pci", set);
    others[0] = net->more = netdev_new("null,id=n1", &error);
    others[1] = others[0]->more = netdev_new("null,id=n2", &error);
    for (unsigned i = 0; i < G_N_ELEMENTS(others); i++) {
        others[i]->send = other_send;
        others[i]->use = use;
    }
    vd_plugged(&d);
    n_other = 0;
    return 0;
}

static int unplug_pairs(void **state)
{
    (void)state;
    vd_unplug(&d);
    net->more = others[0]->more = NULL; /* each is in the list */
    netdevs_close();
    return 0;
}

static uint64_t rx_buffer(uint32_t n)
{
    uint64_t at = vd_alloc(&d, n);
    vd_add(&d, 0, (struct vd_part[]){{at, n, true}, {0}});
    return at;
}

static void frames_go_out_without_their_header(void **state)
{
    (void)state;
    vd_start(&d, F_STATUS, 2);
    assert_int_equal(vd_config(&d, 0, 4), 0xaa005452);
    assert_int_equal(vd_config(&d, 6, 2), 1);
    uint64_t head = vd_alloc(&d, 12), body = vd_alloc(&d, 100);
    memset(vd_at(&d, head), 0, 12);
    make_frame(vd_at(&d, body), 100, "\x52\x54\0\1\2\3", 0);
    vd_add(&d, 1, (struct vd_part[]){{head, 12}, {body, 60}, {body + 60, 40}, {0}});
    vd_kick(&d, 1);
    assert_int_equal(n_sent, 1);
    assert_int_equal(sent_bytes[0], 100);
    assert_memory_equal(sent[0], vd_at(&d, body), 100);
    assert_true(vd_used(&d, 1, NULL));
}

static void checksums_left_to_the_card_are_made(void **state)
{
    (void)state;
    vd_start(&d, F_CSUM, 2);
    uint64_t at = vd_alloc(&d, 12 + 60);
    uint8_t *p = vd_at(&d, at);
    memset(p, 0, 72);
    make_frame(p + 12, 60, "\x52\x54\0\1\2\3", 0);
    p[0] = 1;
    le16_put(p + 6, 34);
    le16_put(p + 8, 16);
    be16_put(p + 12 + 34 + 16, 0x1234); /* the driver's sum of the pseudo header */
    uint32_t want = 0;
    for (unsigned i = 34; i < 60; i += 2) {
        want += be16_at(p + 12 + i);
    }
    want = (want & 0xffff) + (want >> 16);
    want = (want & 0xffff) + (want >> 16);
    vd_add(&d, 1, (struct vd_part[]){{at, 72}, {0}});
    vd_kick(&d, 1);
    assert_int_equal(be16_at(sent[0] + 50), (uint16_t)~want);
    le16_put(p + 8, 60); /* beyond the frame: not sent, the chain comes back */
    vd_add(&d, 1, (struct vd_part[]){{at, 72}, {0}});
    vd_kick(&d, 1);
    assert_int_equal(n_sent, 1);
    assert_true(vd_used(&d, 1, NULL) && vd_used(&d, 1, NULL));
}

static void a_frame_fills_one_buffer_or_several(void **state)
{
    (void)state;
    uint8_t f[1000];
    uint32_t bytes;
    make_frame(f, sizeof(f), "\x52\x54\0\xaa\xbb\xcc", 0);
    vd_start(&d, F_MRG | F_GUEST_CSUM, 2);
    uint64_t a = rx_buffer(512), b = rx_buffer(512), c = rx_buffer(512);
    net_deliver(net, f, sizeof(f));
    assert_true(vd_used(&d, 0, &bytes));
    assert_int_equal(bytes, 512);
    assert_int_equal(*vd_at(&d, a), 2); /* checksums are good */
    assert_int_equal(le16_at(vd_at(&d, a + 10)), 2);
    assert_memory_equal(vd_at(&d, a + 12), f, 500);
    assert_true(vd_used(&d, 0, &bytes));
    assert_int_equal(bytes, 500);
    assert_memory_equal(vd_at(&d, b), f + 500, 500);
    assert_false(vd_used(&d, 0, &bytes));
    (void)c;
}

static void a_frame_waits_until_there_are_enough_buffers(void **state)
{
    (void)state;
    uint8_t f[1000];
    uint32_t bytes;
    make_frame(f, sizeof(f), "\x52\x54\0\xaa\xbb\xcc", 0);
    net_deliver(net, f, sizeof(f)); /* no driver: gone */
    vd_start(&d, F_MRG, 2);
    rx_buffer(512);
    net_deliver(net, f, sizeof(f));
    assert_false(vd_used(&d, 0, NULL));
    uint64_t b = rx_buffer(512);
    vd_kick(&d, 0);
    assert_true(vd_used(&d, 0, &bytes) && vd_used(&d, 0, &bytes));
    assert_int_equal(bytes, 500);
    assert_memory_equal(vd_at(&d, b), f + 500, 500);
    assert_false(vd_used(&d, 0, NULL));
}

static void a_frame_that_no_buffer_holds_is_dropped(void **state)
{
    (void)state;
    uint8_t f[1000];
    make_frame(f, sizeof(f), "\x52\x54\0\xaa\xbb\xcc", 0);
    vd_start(&d, 0, 2);
    rx_buffer(512);
    net_deliver(net, f, sizeof(f));
    assert_false(vd_used(&d, 0, NULL));
    net_deliver(net, f, 400);
    assert_true(vd_used(&d, 0, NULL));
}

static unsigned control_at(unsigned queue, unsigned class, unsigned command, const void *data,
                           uint32_t n)
{
    uint64_t head = vd_alloc(&d, 2), body = vd_alloc(&d, n), ack = vd_alloc(&d, 1);
    *vd_at(&d, head) = (uint8_t)class;
    *vd_at(&d, head + 1) = (uint8_t)command;
    memcpy(vd_at(&d, body), data, n);
    *vd_at(&d, ack) = 0xee;
    vd_add(&d, queue, (struct vd_part[]){{head, 2}, {body, n}, {ack, 1, true}, {0}});
    vd_kick(&d, queue);
    assert_true(vd_used(&d, queue, NULL));
    return *vd_at(&d, ack);
}

static unsigned control(unsigned class, unsigned command, const void *data, uint32_t n)
{
    return control_at(2, class, command, data, n);
}

static bool gets(const char *to, unsigned vlan)
{
    uint8_t f[64];
    make_frame(f, sizeof(f), to, vlan);
    rx_buffer(512);
    net_deliver(net, f, sizeof(f));
    return vd_used(&d, 0, NULL);
}

static void the_filter_does_what_the_driver_says(void **state)
{
    (void)state;
    static const char all[] = "\xff\xff\xff\xff\xff\xff", own[] = "\x52\x54\0\xaa\xbb\xcc";
    static const char other[] = "\x52\x54\0\1\2\3", multi[] = "\x33\x33\0\0\0\1";
    vd_start(&d, F_CTRL, 3);
    assert_true(gets(other, 0));
    assert_int_equal(control(0, 0, "\0", 1), 0);
    assert_false(gets(other, 0));
    assert_true(gets(own, 0));
    assert_true(gets(all, 0));
    assert_false(gets(multi, 0));
    assert_int_equal(control(1, 0, "\1\0\0\0\x52\x54\0\1\2\3\1\0\0\0\x33\x33\0\0\0\1", 20), 0);
    assert_true(gets(other, 0));
    assert_true(gets(multi, 0));
    assert_int_equal(control(1, 0, "\xff\0\0\0\x52\x54\0\1\2\3\1\0\0\0\x33\x33\0\0\0\1", 20), 1);
    assert_int_equal(control(0, 5, "\1", 1), 0);
    assert_false(gets(all, 0));
    assert_false(gets(own, 5));
    assert_int_equal(control(2, 0, "\5\0", 2), 0);
    assert_true(gets(own, 5));
    assert_int_equal(control(2, 0, "\0\x10", 2), 1);
    assert_int_equal(control(9, 0, "\0", 1), 1);
    assert_int_equal(control(0, 9, "\0", 1), 1);
}

static void nothing_arrives_while_the_machine_stands_still(void **state)
{
    (void)state;
    uint8_t f[64];
    make_frame(f, sizeof(f), "\x52\x54\0\xaa\xbb\xcc", 0);
    vd_start(&d, 0, 2);
    rx_buffer(512);
    clock_stop();
    net_deliver(net, f, sizeof(f));
    assert_false(vd_used(&d, 0, NULL));
    clock_start();
    gint64 end = g_get_monotonic_time() + G_USEC_PER_SEC;
    while (le16_at(vd_at(&d, d.q[0].used + 2)) == 0 && g_get_monotonic_time() < end) {
        g_main_context_iteration(NULL, FALSE);
    }
    assert_true(vd_used(&d, 0, NULL));
}

static void the_filter_survives_a_migration(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    vd_start(&d, F_CTRL, 3);
    control(0, 0, "\0", 1);
    g_autoptr(GBytes) saved = device_save(&d.dev->pci.dev);
    device_reset(&d.dev->pci.dev);
    assert_works(device_load(&d.dev->pci.dev, saved, &error), error);
    assert_false(gets("\x52\x54\0\1\2\3", 0));
    assert_true(gets("\x52\x54\0\xaa\xbb\xcc", 0));
}

/* Whether a frame from the second queue of the backend comes out of the second pair. */
static bool second_gets(void)
{
    uint8_t f[64];
    make_frame(f, sizeof(f), "\x52\x54\0\xaa\xbb\xcc", 0);
    vd_add(&d, 2, (struct vd_part[]){{vd_alloc(&d, 512), 512, true}, {0}});
    net_deliver(others[0], f, sizeof(f));
    return vd_used(&d, 2, NULL);
}

static void pairs_of_queues_are_used_as_the_driver_says(void **state)
{
    (void)state;
    enum { CONTROL = 6, MQ = 4 };
    g_autoptr(GError) error = NULL;
    assert_int_equal(vd_config(&d, 8, 2), 3);
    assert_int_equal(vd_config(&d, 10, 2), 1400);
    vd_start(&d, F_CTRL | F_MQ | F_MTU, 7);
    assert_false(in_use[0] || in_use[1] || second_gets());
    assert_int_equal(control_at(CONTROL, MQ, 0, "\2\0", 2), 0);
    assert_true(in_use[0] && !in_use[1] && second_gets());
    uint64_t head = vd_alloc(&d, 12), body = vd_alloc(&d, 100);
    memset(vd_at(&d, head), 0, 12);
    make_frame(vd_at(&d, body), 100, "\x52\x54\0\1\2\3", 0);
    vd_add(&d, 3, (struct vd_part[]){{head, 12}, {body, 100}, {0}});
    vd_kick(&d, 3);
    assert_int_equal(n_other, 1);
    assert_true(vd_used(&d, 3, NULL));
    assert_int_equal(control_at(CONTROL, MQ, 0, "\0\0", 2), 1);
    assert_int_equal(control_at(CONTROL, MQ, 0, "\4\0", 2), 1);
    assert_int_equal(control_at(CONTROL, MQ, 1, "\2\0", 2), 1);
    g_autoptr(GBytes) saved = device_save(&d.dev->pci.dev);
    device_reset(&d.dev->pci.dev);
    assert_false(in_use[0]);
    assert_works(device_load(&d.dev->pci.dev, saved, &error), error);
    assert_true(in_use[0] && !in_use[1] && second_gets());
    net_set_link(net, false);
    assert_false(second_gets());
    vd_start(&d, F_CTRL, 3); /* a driver of one pair has its control queue behind that */
    assert_int_equal(control(0, 0, "\0", 1), 0);
    assert_int_equal(control(MQ, 0, "\2\0", 2), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, plug, nic_unplug)
    const struct CMUnitTest tests[] = {
        T(frames_go_out_without_their_header),
        T(checksums_left_to_the_card_are_made),
        T(a_frame_fills_one_buffer_or_several),
        T(a_frame_waits_until_there_are_enough_buffers),
        T(a_frame_that_no_buffer_holds_is_dropped),
        T(the_filter_does_what_the_driver_says),
        T(nothing_arrives_while_the_machine_stands_still),
        T(the_filter_survives_a_migration),
        cmocka_unit_test_setup_teardown(pairs_of_queues_are_used_as_the_driver_says, plug_pairs,
                                        unplug_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
