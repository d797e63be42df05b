/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/nic.h"

enum { REG_CTRL = 0, REG_STATUS = 8, REG_EECD = 0x10, REG_EERD = 0x14, REG_MDIC = 0x20,
       REG_ICR = 0xc0, REG_ITR = 0xc4, REG_ICS = 0xc8, REG_IMS = 0xd0, REG_IMC = 0xd8, REG_RCTL = 0x100,
       REG_TCTL = 0x400, REG_RDBAL = 0x2800, REG_RDLEN = 0x2808, REG_RDH = 0x2810,
       REG_RDT = 0x2818, REG_TDBAL = 0x3800, REG_TDLEN = 0x3808, REG_TDH = 0x3810,
       REG_TDT = 0x3818, REG_GPTC = 0x4080, REG_RAL = 0x5400, REG_VFTA = 0x5600 };
enum { RING = 16 };

static uint64_t tx_ring, rx_ring;
static unsigned tx_at;

static uint32_t rd(unsigned at)
{
    return (uint32_t)vd_get(&d, at, 4);
}

static void wr(unsigned at, uint32_t v)
{
    vd_put(&d, at, v, 4);
}

static int plug(void **state)
{
    (void)state;
    nic_plug("e1000", NULL);
    nic_start((uint32_t)VD_BAR, 0xc000);
    tx_at = 0;
    tx_ring = vd_alloc(&d, RING * 16);
    rx_ring = vd_alloc(&d, RING * 16);
    wr(REG_TDBAL, (uint32_t)tx_ring);
    wr(REG_TDLEN, RING * 16);
    wr(REG_TCTL, 2);
    wr(REG_RDBAL, (uint32_t)rx_ring);
    wr(REG_RDLEN, RING * 16);
    for (unsigned i = 0; i < RING; i++) {
        le64_put(vd_at(&d, rx_ring + i * 16), vd_alloc(&d, 2048));
    }
    rd(REG_ICR);
    return 0;
}

static void the_mac_address_is_in_registers_and_eeprom(void **state)
{
    (void)state;
    assert_int_equal(rd(REG_RAL), 0xaa005452);
    assert_int_equal(rd(REG_RAL + 4), 0x8000ccbb);
    uint16_t sum = 0;
    for (unsigned i = 0; i < 64; i++) {
        wr(REG_EERD, 1 | i << 8);
        uint32_t v = rd(REG_EERD);
        assert_int_equal(v & 0x10, 0x10);
        sum = (uint16_t)(sum + (v >> 16));
    }
    assert_int_equal(sum, 0xbaba);
    /* Word 1 bit by bit: start bit, opcode 10, address 000001. */
    uint32_t bits = 0x181;
    wr(REG_EECD, 2);
    for (int i = 8; i >= 0; i--) {
        uint32_t di = bits >> i & 1 ? 4 : 0;
        wr(REG_EECD, 2 | di);
        wr(REG_EECD, 3 | di);
        wr(REG_EECD, 2 | di);
    }
    uint32_t word = 0;
    for (unsigned i = 0; i < 16; i++) {
        wr(REG_EECD, 3);
        word = word << 1 | (rd(REG_EECD) >> 3 & 1);
        wr(REG_EECD, 2);
    }
    assert_int_equal(word, 0xaa00);
}

static uint32_t phy(unsigned at)
{
    wr(REG_MDIC, 1u << 27 | 1u << 21 | at << 16);
    return rd(REG_MDIC);
}

static void the_phy_tells_of_the_link(void **state)
{
    (void)state;
    assert_int_equal(phy(2) & 0xffff, 0x0141);
    assert_int_equal(phy(3) & 0xffff, 0x0c20);
    assert_int_equal(phy(1) & 0x10000024, 0x10000024);
    assert_int_equal(rd(REG_STATUS) & 2, 2);
    wr(REG_MDIC, 1u << 27 | 2u << 21);
    assert_true(rd(REG_MDIC) & 1u << 30);
    wr(REG_IMS, 4);
    net_set_link(net, false);
    assert_int_equal(rd(REG_STATUS) & 2, 0);
    assert_true(d.dev->pci.irq_level);
    assert_int_equal(rd(REG_ICR), 0x80000004);
    assert_false(d.dev->pci.irq_level);
}

static void tx(const void *bytes, uint32_t n, uint32_t command, uint32_t upper)
{
    uint64_t at = vd_alloc(&d, n);
    memcpy(vd_at(&d, at), bytes, n);
    uint8_t *desc = vd_at(&d, tx_ring + tx_at * 16);
    le64_put(desc, at);
    le32_put(desc + 8, command | n);
    le32_put(desc + 12, upper);
    tx_at = (tx_at + 1) % RING;
}

static void legacy_descriptors_make_frames(void **state)
{
    (void)state;
    uint8_t f[100];
    make_frame(f, sizeof(f), "\x52\x54\0\1\2\3", 0);
    tx(f, 40, 0, 0);
    tx(f + 40, 60, 1u << 24 | 1u << 27, 0);
    wr(REG_TDT, tx_at);
    assert_int_equal(n_sent, 1);
    assert_int_equal(sent_bytes[0], 100);
    assert_memory_equal(sent[0], f, 100);
    assert_int_equal(rd(REG_TDH), 2);
    assert_int_equal(*vd_at(&d, tx_ring + 12), 0);
    assert_int_equal(*vd_at(&d, tx_ring + 16 + 12), 1);
    assert_int_equal(rd(REG_ICR) & 3, 3);
    assert_int_equal(rd(REG_GPTC), 1);
    assert_int_equal(rd(REG_GPTC), 0);
    /* Insert a checksum over bytes from 20 on at 50; tag it. */
    wr(REG_CTRL, 1u << 30);
    memset(f + 50, 0, 2);
    tx(f, 100, 1u << 24 | 1u << 26 | 1u << 30 | 50u << 16, 20u << 8 | 0x0123u << 16);
    wr(REG_TDT, tx_at);
    assert_int_equal(sent_bytes[1], 104);
    assert_int_equal(be32_at(sent[1] + 12), 0x81000123);
    uint32_t sum = 0;
    for (unsigned i = 24; i < 104; i += 2) {
        sum += be16_at(sent[1] + i);
    }
    sum = (sum & 0xffff) + (sum >> 16);
    assert_int_equal((sum & 0xffff) + (sum >> 16), 0xffff);
}

static uint16_t fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

static uint32_t words(const uint8_t *p, size_t n)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
    }
    return sum;
}

static void large_tcp_segments_are_cut(void **state)
{
    (void)state;
    uint8_t f[54 + 2500] = {0}, context[16] = {0};
    make_frame(f, sizeof(f), "\x52\x54\0\1\2\3", 0);
    memset(f + 14, 0, 40);
    f[14] = 0x45;
    f[23] = 6;
    be16_put(f + 18, 100);  /* id */
    be32_put(f + 26, 0x0a00020f);
    be32_put(f + 30, 0x0a000202);
    be32_put(f + 38, 1000); /* sequence number */
    f[46] = 0x50;
    f[47] = 0x19; /* ACK PSH FIN */
    be16_put(f + 50, fold(words(f + 26, 8) + 6));
    context[0] = 14, context[1] = 24, context[2] = 33;
    context[4] = 34, context[5] = 50;
    le32_put(context + 8, 1u << 29 | 7u << 24 | 2500);
    context[13] = 54;
    le16_put(context + 14, 1000);
    memcpy(vd_at(&d, tx_ring), context, 16);
    tx_at = 1;
    tx(f, 54, 1u << 29 | 1u << 20 | 1u << 26, 3u << 8);
    tx(f + 54, 2500, 1u << 29 | 1u << 20 | 1u << 26 | 1u << 24, 0);
    wr(REG_TDT, tx_at);
    assert_int_equal(n_sent, 3);
    for (unsigned i = 0; i < 3; i++) {
        const uint8_t *s = sent[i];
        size_t n = sent_bytes[i];
        assert_int_equal(n, i < 2 ? 1054 : 554);
        assert_int_equal(be16_at(s + 16), n - 14);
        assert_int_equal(be16_at(s + 18), 100 + i);
        assert_int_equal(be32_at(s + 38), 1000 + i * 1000);
        assert_int_equal(s[47], i < 2 ? 0x10 : 0x19);
        assert_memory_equal(s + 54, f + 54 + i * 1000, n - 54);
        assert_int_equal(fold(words(s + 14, 20)), 0xffff);
        assert_int_equal(fold(words(s + 26, 8) + 6 + (uint32_t)(n - 34) + words(s + 34, n - 34)),
                         0xffff);
    }
}

static void nonsense_in_the_rings_hurts_nobody(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (unsigned round = 0; round < 3000; round++) {
        for (unsigned i = 0; i < RING * 16; i += 4) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            le32_put(vd_at(&d, tx_ring + i), (uint32_t)(seed >> 32) & ((i & 15) == 4 ? 0 : ~0u));
        }
        n_sent = 0;
        wr(REG_TDT, (rd(REG_TDH) + 5) % RING);
    }
    wr(REG_TDLEN, 0xfff80);
    wr(REG_TDH, 0xffff);
    n_sent = 0;
    wr(REG_TDT, 0xfffe);
    uint8_t f[200];
    make_frame(f, sizeof(f), "\x52\x54\0\xaa\xbb\xcc", 0);
    wr(REG_RDLEN, 0);
    wr(REG_RCTL, 2 | 8);
    net_deliver(net, f, sizeof(f));
}

static void frames_arrive_and_raise_an_interrupt(void **state)
{
    (void)state;
    uint8_t f[1400];
    make_frame(f, sizeof(f), "\x52\x54\0\xaa\xbb\xcc", 0);
    wr(REG_IMS, 0x80);
    wr(REG_RCTL, 2 | 1u << 15);
    wr(REG_RDT, 3);
    net_deliver(net, f, sizeof(f));
    assert_true(d.dev->pci.irq_level);
    const uint8_t *desc = vd_at(&d, rx_ring);
    assert_int_equal(le16_at(desc + 8), 1404);
    assert_int_equal(desc[12], 7);
    assert_memory_equal(vd_at(&d, le64_at(desc)), f, 1400);
    assert_int_equal(rd(REG_RDH), 1);
    rd(REG_ICR);
    f[5] = 0;
    net_deliver(net, f, 60); /* somebody else's */
    assert_int_equal(rd(REG_RDH), 1);
    wr(REG_RCTL, 2 | 1u << 15 | 3u << 16); /* buffers of 256 bytes: six for a frame */
    f[5] = 0xcc;
    net_deliver(net, f, sizeof(f));
    assert_int_equal(rd(REG_RDH), 1);
    wr(REG_RDT, 10);
    assert_int_equal(rd(REG_RDH), 7);
    assert_int_equal(vd_at(&d, rx_ring + 16)[12] & 3, 1);
    assert_int_equal(vd_at(&d, rx_ring + 6 * 16)[12] & 3, 3);
    assert_int_equal(le16_at(vd_at(&d, rx_ring + 6 * 16) + 8), 1404 - 5 * 256);
}

static bool gets(const char *to, unsigned vlan)
{
    uint8_t f[64];
    uint32_t before = rd(REG_RDH);
    make_frame(f, sizeof(f), to, vlan);
    net_deliver(net, f, sizeof(f));
    wr(REG_RDT, (rd(REG_RDH) + RING - 1) % RING);
    return rd(REG_RDH) != before;
}

static void the_filters_pass_what_they_should(void **state)
{
    (void)state;
    wr(REG_RDT, RING - 1);
    wr(REG_RCTL, 2);
    assert_true(gets("\x52\x54\0\xaa\xbb\xcc", 0));
    assert_false(gets("\xff\xff\xff\xff\xff\xff", 0));
    assert_false(gets("\x52\x54\0\1\2\3", 0));
    wr(REG_RCTL, 2 | 1u << 15);
    assert_true(gets("\xff\xff\xff\xff\xff\xff", 0));
    wr(REG_RCTL, 2 | 8);
    assert_true(gets("\x52\x54\0\1\2\3", 0));
    wr(REG_RCTL, 2);
    assert_false(gets("\x33\x33\0\0\0\1", 0));
    wr(0x5200 + 4 * (0x010 >> 5), 1u << (0x010 & 31)); /* hash of bytes 4 and 5: 0x0100 >> 4 */
    assert_true(gets("\x33\x33\0\0\0\1", 0));
    wr(REG_RCTL, 2 | 1u << 18);
    assert_false(gets("\x52\x54\0\xaa\xbb\xcc", 37));
    wr(REG_VFTA + 4, 1u << 5);
    wr(REG_CTRL, 1u << 30);
    uint32_t at = rd(REG_RDH);
    assert_true(gets("\x52\x54\0\xaa\xbb\xcc", 37));
    const uint8_t *desc = vd_at(&d, rx_ring + at * 16);
    assert_int_equal(le16_at(desc + 14), 37);
    assert_int_equal(desc[12] & 8, 8);
}

static void interrupts_keep_their_distance(void **state)
{
    (void)state;
    wr(REG_IMS, 4);
    wr(REG_ITR, 0xffff); /* 16 ms */
    wr(REG_ICS, 4);
    assert_true(d.dev->pci.irq_level);
    rd(REG_ICR);
    wr(REG_ICS, 4);
    assert_false(d.dev->pci.irq_level);
    gint64 end = g_get_monotonic_time() + G_USEC_PER_SEC;
    while (!d.dev->pci.irq_level && g_get_monotonic_time() < end) {
        g_main_context_iteration(NULL, FALSE);
    }
    assert_true(d.dev->pci.irq_level);
}

static void a_reset_keeps_the_address_and_forgets_the_rings(void **state)
{
    (void)state;
    wr(REG_RAL, 1);
    wr(REG_CTRL, 1u << 26);
    assert_int_equal(rd(REG_CTRL) & 1u << 26, 0);
    assert_int_equal(rd(REG_RAL), 0xaa005452);
    assert_int_equal(rd(REG_TDLEN), 0);
    space_store(d.board->ports, 0xc000, REG_RAL, 4);
    assert_int_equal(space_load(d.board->ports, 0xc004, 4), 0xaa005452);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, plug, nic_unplug)
    const struct CMUnitTest tests[] = {
        T(the_mac_address_is_in_registers_and_eeprom),
        T(the_phy_tells_of_the_link),
        T(legacy_descriptors_make_frames),
        T(large_tcp_segments_are_cut),
        T(nonsense_in_the_rings_hurts_nobody),
        T(frames_arrive_and_raise_an_interrupt),
        T(the_filters_pass_what_they_should),
        T(interrupts_keep_their_distance),
        T(a_reset_keeps_the_address_and_forgets_the_rings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
