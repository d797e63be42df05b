/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The RTL8139 as old drivers use it: four transmit registers, one receive ring. */
#include "tests/unit/nic.h"

enum { IDR = 0, TSD = 0x10, TSAD = 0x20, RBSTART = 0x30, CMD = 0x37, CAPR = 0x38, IMR = 0x3c,
       ISR = 0x3e, TCR = 0x40, RCR = 0x44, TCTR = 0x48, TIMER_INT = 0x54, BMSR = 0x64, CPCR = 0xe0 };
enum { RING = 8192, OWN = 1 << 13, OK = 1 << 15 };

static uint64_t ring, frame;

static uint32_t rd(unsigned at, unsigned bytes)
{
    return (uint32_t)vd_get(&d, at, bytes);
}

static void wr(unsigned at, uint32_t v, unsigned bytes)
{
    vd_put(&d, at, v, bytes);
}

static int plug(void **state)
{
    (void)state;
    nic_plug("rtl8139", NULL);
    nic_start(0xc000, (uint32_t)VD_BAR);
    ring = vd_alloc(&d, RING + 2048);
    frame = vd_alloc(&d, 2048);
    wr(RBSTART, (uint32_t)ring, 4);
    wr(CMD, 0xc, 1);
    wr(RCR, 0xa, 4); /* broadcast and its own */
    wr(IMR, 0xffff, 2);
    return 0;
}

static void the_address_and_the_link_are_there(void **state)
{
    (void)state;
    assert_int_equal(rd(IDR, 4), 0xaa005452);
    assert_int_equal(rd(IDR + 4, 2), 0xccbb);
    assert_int_equal(rd(BMSR, 2) & 0x24, 0x24);
    assert_int_equal(rd(TCR, 4) & 0x7cc00000, 0x74800000);
    net_set_link(net, false);
    assert_int_equal(rd(BMSR, 2) & 4, 0);
    assert_int_equal(rd(ISR, 2), 0x20);
    assert_true(d.dev->pci.irq_level);
    wr(ISR, 0x20, 2);
    assert_false(d.dev->pci.irq_level);
}

static void a_slot_sends_a_frame(void **state)
{
    (void)state;
    memset(vd_at(&d, frame), 0x5a, 100);
    assert_int_equal(rd(TSD + 4, 4) & OWN, OWN);
    wr(TSAD + 4, (uint32_t)frame, 4);
    wr(TSD + 4, 100, 4);
    assert_int_equal(n_sent, 1);
    assert_int_equal(sent_bytes[0], 100);
    assert_int_equal(sent[0][99], 0x5a);
    assert_int_equal(rd(TSD + 4, 4) & (OWN | OK), OWN | OK);
    assert_int_equal(rd(ISR, 2), 4);
    wr(CMD, 8, 1); /* transmission is off: nothing happens */
    wr(TSD + 4, 60, 4);
    assert_int_equal(n_sent, 1);
}

static void the_ring_goes_around_and_is_never_overrun(void **state)
{
    (void)state;
    uint8_t data[1000] = {0x52, 0x54, 0, 0xaa, 0xbb, 0xcc};
    unsigned at = 0;
    for (unsigned i = 0; i < 20; i++) {
        data[20] = (uint8_t)i;
        assert_true(net->receive(net->card, data, sizeof(data)));
        assert_int_equal(rd(CMD, 1) & 1, 0);
        const uint8_t *head = vd_at(&d, ring + at);
        assert_int_equal(le16_at(head), 0x4001);
        assert_int_equal(le16_at(head + 2), 1004);
        assert_int_equal(*(uint8_t *)vd_at(&d, ring + (at + 4 + 20) % RING), i);
        at = (at + 4 + 1004 + 3) / 4 * 4 % RING;
        wr(CAPR, (at - 16) & 0xffff, 2);
        assert_int_equal(rd(CMD, 1) & 1, 1);
    }
    unsigned n = 0;
    while (net->receive(net->card, data, sizeof(data))) {
        n++;
    }
    assert_int_equal(n, 8);
    assert_int_equal(rd(ISR, 2) & 0x10, 0x10);
    data[5] = 0xcd; /* somebody else's */
    assert_true(net->receive(net->card, data, sizeof(data)));
}

static void the_timer_counts_the_bus_clock(void **state)
{
    (void)state;
    clock_stop();
    wr(TCTR, 0, 4);
    wr(TIMER_INT, 33000, 4); /* one millisecond */
    clock_advance(900000);
    assert_int_equal(rd(ISR, 2) & 0x4000, 0);
    assert_in_range(rd(TCTR, 4), 29600, 29800);
    clock_advance(200000);
    assert_int_equal(rd(ISR, 2) & 0x4000, 0x4000);
    clock_start();
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, plug, nic_unplug)
    const struct CMUnitTest tests[] = {
        T(the_address_and_the_link_are_there),
        T(a_slot_sends_a_frame),
        T(the_ring_goes_around_and_is_never_overrun),
        T(the_timer_counts_the_bus_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
