/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * rtl8139: Realtek RTL8139C+ Fast Ethernet controller, with the four transmit registers and the
 * receive ring of the 8139 and the descriptor rings of the C+ mode.
 *
 * Spec: Realtek, "RTL8139C(L)+ Single-Chip Fast Ethernet Controller with Power Management",
 * "Register Descriptions", "C+ Mode Functional Description"; IEEE 802.3, "Reconciliation Sublayer
 * and Media Independent Interface".
 * Not modelled: wake-up, the boot ROM window, early receive, counters of errors, which
 * do not happen.
 */
#include "base/bytes.h"
#include "base/util.h"
#include "guest/device/nic.h"
#include "guest/device/pci.h"

enum { WINDOW = 256, SLOTS = 4, FRAME_MAX = 8192, FRAME_MIN = 60, FCS = 4, HEADER = 4 };
enum { CMD_EMPTY = 1, CMD_TX = 4, CMD_RX = 8, CMD_RESET = 0x10 };
enum {
    INT_ROK = 1,
    INT_TOK = 4,
    INT_RER = 2,
    INT_RXOVW = 0x10,
    INT_LINK = 0x20,
    INT_FOVW = 0x40,
    INT_TDU = 0x80,
    INT_TIMEOUT = 0x4000
};
enum { TSD_SIZE = 0x1fff, TSD_OWN = 1 << 13, TSD_OK = 1 << 15 };
enum { RCR_ALL = 1, RCR_MINE = 2, RCR_MULTI = 4, RCR_BROAD = 8, RCR_WRAP = 0x80 };
enum { RX_OK = 1, RX_BROAD = 1 << 13, RX_MINE = 1 << 14, RX_MULTI = 1 << 15 };
#define TCR_CHIP   0x74800000u /* 8139C+ */
#define TCR_STORED 0x030707f0u
enum { TCR_LOOPBACK = 3 << 17 };
enum { CPCR_TX = 1, CPCR_RX = 2, CPCR_CHECKSUM = 1 << 5, CPCR_VLAN = 1 << 6 };
enum {
    BMCR_RESET = 1 << 15,
    BMCR_RESTART = 1 << 9,
    BMSR = 0x7809,
    BMSR_LINK = 4,
    BMSR_DONE = 0x20
};
enum { LPA = 0x45e1, ANER = 1 };
/* Of C+ descriptors. */
#define D_OWN (1u << 31)
#define D_EOR (1u << 30)
enum { DUMP = 8, DUMP_BYTES = 64, PCI_MHZ = 33 };
enum {
    D_FS = 1 << 29,
    D_LS = 1 << 28,
    D_LARGE = 1 << 27,
    D_IP = 1 << 18,
    D_UDP = 1 << 17,
    D_TCP = 1 << 16,
    D_VLAN = 1 << 17,
    D_VLAN_AVAILABLE = 1 << 16,
    D_MSS_SHIFT = 16
};
enum {
    RXD_SIZE = 0x1fff,
    TXD_SIZE = 0xffff,
    RXD_MULTI = 1 << 26,
    RXD_MINE = 1 << 25,
    RXD_BROAD = 1 << 24,
    RXD_TCP = 1 << 16,
    RXD_UDP = 2 << 16,
    RING_MAX = 64
};
enum { EEPROM_WORDS = 64, EE_CS = 8, EE_SK = 4, EE_DI = 2, EE_DO = 1, EE_MODE = 0x80 };
enum { FRAG_MAX = 65536 + 18, TX_BURST = 128, TX_PAUSE_NS = 50000 };

struct rtl8139 {
    struct pci_device pci; /* first */

    /* State. */
    uint8_t idr[6], mar[8], cmd, config0, config1, config3, config4, config5, cr9346, media;
    uint32_t tsd[SLOTS], tsad[SLOTS], rbstart, tcr, rcr, mpc, timer_int;
    uint16_t capr, cbr, imr, isr, multi_intr, cpcr, rms, bmcr, anar;
    uint32_t rxd_low, rxd_high;
    uint8_t txthresh;
    uint64_t tx_ok, rx_ok;    /* frames */
    int64_t counted_from;     /* when TCTR was 0 */
    struct timer tick;        /* when TCTR reaches TimerInt */
    uint32_t tx_at[2], rx_at; /* descriptors of the rings: normal and high priority */
    uint16_t ee_in, ee_bits, ee_out;
    uint8_t ee_reading;
    uint32_t bytes; /* of a frame being gathered */
    uint8_t overflow;
    uint8_t frame[FRAG_MAX + ETH_VLAN_BYTES];

    /* Properties. */
    struct netdev *net;
    uint8_t mac[6];
    uint32_t bootindex;

    uint16_t eeprom[EEPROM_WORDS];
    struct device_window io, mmio;
    struct timer wake, tx_again;
};

static struct rtl8139 *self(struct device *dev)
{
    return container_of(dev, struct rtl8139, pci.dev);
}

static void settle(struct device *dev)
{
    struct rtl8139 *s = self(dev);
    pci_irq(&s->pci, s->isr & s->imr);
}

static bool link_is_up(const struct rtl8139 *s)
{
    return s->net && s->net->link_up;
}

static bool may_dma(const struct rtl8139 *s)
{
    return s->pci.config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

/* ---- EEPROM: a 93C46 on four wires ---- */

static void eeprom_fill(struct rtl8139 *s)
{
    s->eeprom[0] = 0x8129;
    s->eeprom[1] = 0x10ec;
    s->eeprom[2] = 0x8139;
    for (unsigned i = 0; i < 3; i++) {
        s->eeprom[7 + i] = le16_at(s->mac + 2 * i);
    }
}

/* Start bit, opcode, six address bits in; then data bits out, highest first, a zero before them. */
static void cr9346_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct rtl8139 *s = self(dev);
    if (!(now & EE_CS) || !(now & EE_MODE)) {
        s->ee_in = s->ee_bits = s->ee_out = s->ee_reading = 0;
        return;
    }
    if (!(now & EE_SK) || (old & EE_SK)) {
        return;
    }
    if (s->ee_reading) {
        s->ee_out++;
        return;
    }
    s->ee_in = (uint16_t)(s->ee_in << 1 | (now & EE_DI ? 1 : 0));
    if (!s->ee_bits && !(s->ee_in & 1)) {
        return; /* the start bit is still to come */
    }
    if (++s->ee_bits == 9) {
        s->ee_reading = (s->ee_in >> 6 & 3) == 2;
        s->ee_out = (uint16_t)((s->ee_in & 0x3f) * 16 - 1);
        s->ee_bits = 0;
        s->ee_in = 0;
    }
}

static uint64_t cr9346_read(struct device *dev, uint64_t stored)
{
    const struct rtl8139 *s = self(dev);
    uint16_t at = s->ee_out;
    bool out = at != UINT16_MAX && (s->eeprom[at / 16 % EEPROM_WORDS] >> (15 - at % 16) & 1);
    return (stored & ~(uint64_t)EE_DO) | (s->ee_reading && out ? EE_DO : 0);
}

/* ---- receive ---- */

static uint32_t ring_bytes(const struct rtl8139 *s)
{
    return 8192u << (s->rcr >> 11 & 3);
}

/* The CRC of Ethernet, highest bit first, whose first six bits choose a bit of the filter. */
static unsigned hash_of(const uint8_t *mac)
{
    uint32_t crc = UINT32_MAX;
    for (unsigned i = 0; i < 6; i++) {
        for (unsigned k = 0; k < 8; k++) {
            uint32_t carry = crc >> 31 ^ (mac[i] >> k & 1);
            crc = crc << 1 ^ (carry ? 0x04c11db6 : 0);
            crc |= carry;
        }
    }
    return crc >> 26;
}

enum match { MATCH_NONE, MATCH_ALL, MATCH_BROAD, MATCH_MULTI, MATCH_MINE };
static enum match match_of(const struct rtl8139 *s, const uint8_t *frame)
{
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    unsigned hash = hash_of(frame);
    if (memcmp(frame, all, 6) == 0) {
        return s->rcr & RCR_BROAD ? MATCH_BROAD : s->rcr & RCR_ALL ? MATCH_ALL : MATCH_NONE;
    }
    if (frame[0] & 1) {
        bool wanted = (s->rcr & RCR_MULTI) && (s->mar[hash / 8] >> hash % 8 & 1);
        return wanted ? MATCH_MULTI : s->rcr & RCR_ALL ? MATCH_ALL : MATCH_NONE;
    }
    if (memcmp(frame, s->idr, 6) == 0 && (s->rcr & RCR_MINE)) {
        return MATCH_MINE;
    }
    return s->rcr & RCR_ALL ? MATCH_ALL : MATCH_NONE;
}

/* Bytes at the ring's write position, which goes around unless the frame may run over the end. */
static void ring_put(struct rtl8139 *s, const void *from, uint32_t n)
{
    uint32_t size = ring_bytes(s), first = s->rcr & RCR_WRAP ? n : MIN(n, size - s->cbr % size);
    pci_dma_write(&s->pci, s->rbstart + s->cbr % size, from, first);
    if (n > first) {
        pci_dma_write(&s->pci, s->rbstart, (const uint8_t *)from + first, n - first);
    }
    s->cbr = (uint16_t)((s->cbr % size + n) % size);
}

static bool ring_is_empty(const struct rtl8139 *s)
{
    uint32_t size = ring_bytes(s);
    return (uint32_t)(s->capr + 16) % size == s->cbr % size;
}

static uint32_t ring_room(const struct rtl8139 *s)
{
    uint32_t size = ring_bytes(s);
    uint32_t used = (s->cbr % size + size - (uint32_t)(s->capr + 16) % size) % size;
    return size - used;
}

static bool receive_ring(struct rtl8139 *s, uint8_t *frame, uint32_t n, enum match how)
{
    static const uint8_t pad[HEADER + FCS];
    uint8_t head[HEADER];
    uint32_t whole = (HEADER + n + FCS + 3) & ~3u;
    if (ring_room(s) <= whole) {
        s->isr |= INT_RXOVW;
        s->mpc++;
        return false; /* until the driver has read */
    }
    le16_put(head, (uint16_t)(RX_OK | (how == MATCH_BROAD   ? RX_BROAD
                                       : how == MATCH_MULTI ? RX_MULTI
                                       : how == MATCH_MINE  ? RX_MINE
                                                            : 0)));
    le16_put(head + 2, (uint16_t)(n + FCS));
    uint16_t start = s->cbr;
    ring_put(s, head, HEADER);
    ring_put(s, frame, n);
    ring_put(s, pad, FCS); /* nobody checks it */
    s->cbr = (uint16_t)((start % ring_bytes(s) + whole) % ring_bytes(s));
    s->isr |= INT_ROK;
    return true;
}

static bool receive_plus(struct rtl8139 *s, uint8_t *frame, uint32_t n, enum match how)
{
    uint8_t d[16] = {0};
    uint64_t at = (s->rxd_low | (uint64_t)s->rxd_high << 32) + s->rx_at * 16u;
    uint16_t tag = 0;
    bool tagged = (s->cpcr & CPCR_VLAN) && be16_at(frame + 12) == ETH_TYPE_VLAN;
    pci_dma_read(&s->pci, at, d, sizeof(d));
    uint32_t word = le32_at(d), room = word & RXD_SIZE;
    if (!(word & D_OWN)) {
        s->isr |= INT_RXOVW;
        s->mpc++;
        return false; /* until the driver gives more */
    }
    if (tagged) {
        tag = be16_at(frame + 14);
        memmove(frame + 12, frame + 16, n - 16);
        n -= ETH_VLAN_BYTES;
    }
    if (n + FCS > room) {
        s->isr |= INT_RXOVW;
        return true; /* it fits into no buffer of this driver's */
    }
    pci_dma_write(&s->pci, le64_at(d + 8), frame, n);
    uint32_t status = (word & D_EOR) | D_FS | D_LS | (n + FCS);
    status |= how == MATCH_BROAD   ? RXD_BROAD
              : how == MATCH_MULTI ? RXD_MULTI
              : how == MATCH_MINE  ? RXD_MINE
                                   : 0;
    if (s->net->sums_good && (s->cpcr & CPCR_CHECKSUM) && be16_at(frame + 12) == 0x0800 &&
        !(be16_at(frame + ETH_HEADER + 6) & 0x3fff)) { /* no fragment */
        status |= frame[ETH_HEADER + 9] == 6 ? RXD_TCP : frame[ETH_HEADER + 9] == 17 ? RXD_UDP : 0;
    }
    le32_put(d + 4, tagged ? D_VLAN_AVAILABLE | (uint32_t)(uint16_t)(tag >> 8 | tag << 8) : 0);
    pci_dma_write(&s->pci, at + 4, d + 4, 4);
    le32_put(d, status);
    pci_dma_write(&s->pci, at, d, 4);
    s->rx_at = word & D_EOR || s->rx_at + 1 >= RING_MAX ? 0 : s->rx_at + 1;
    s->isr |= INT_ROK;
    return true;
}

static bool receive(void *card, const void *data, size_t n)
{
    struct rtl8139 *s = card;
    uint8_t frame[FRAME_MAX];
    if (nic_must_wait(&s->wake)) {
        return false;
    }
    bool plus = s->cpcr & CPCR_RX;
    if (!(s->cmd & CMD_RX) || !may_dma(s) || n < ETH_HEADER || n > sizeof(frame) - FRAME_MIN) {
        return true;
    }
    memset(frame, 0, FRAME_MIN);
    memcpy(frame, data, n);
    n = MAX(n, FRAME_MIN);
    enum match how = match_of(s, frame);
    if (!how) {
        return true;
    }
    bool taken = (plus ? receive_plus : receive_ring)(s, frame, (uint32_t)n, how);
    s->rx_ok += taken;
    device_settle(&s->pci.dev);
    return taken;
}

static void rx_changed(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    net_resume(self(dev)->net);
}

/* ---- transmit ---- */

static void send(struct rtl8139 *s, uint8_t *frame, size_t n)
{
    struct iovec iov = {frame, n};
    s->tx_ok++;
    if ((s->tcr & TCR_LOOPBACK) == TCR_LOOPBACK) {
        receive(s, frame, n);
    } else {
        net_send(s->net, &iov, 1);
    }
}

static void send_slot(struct rtl8139 *s, unsigned i)
{
    uint32_t n = s->tsd[i] & TSD_SIZE;
    if (n > FRAME_MAX) {
        n = FRAME_MAX;
    }
    uint8_t frame[FRAME_MAX] = {0};
    pci_dma_read(&s->pci, s->tsad[i], frame, n);
    if (n >= ETH_HEADER) {
        send(s, frame, n);
    }
    s->tsd[i] |= TSD_OWN | TSD_OK;
    s->isr |= INT_TOK;
}

/* In C+ mode the first two are the address to which counters are dumped. */
static void dump(struct rtl8139 *s)
{
    uint8_t all[DUMP_BYTES] = {0};
    le64_put(all, s->tx_ok);
    le64_put(all + 8, s->rx_ok);
    pci_dma_write(&s->pci, (s->tsd[0] & ~63u) | (uint64_t)s->tsd[1] << 32, all, sizeof(all));
    s->tsd[0] &= ~(uint32_t)DUMP;
}

static void tsd_written(struct rtl8139 *s, unsigned i, uint32_t old)
{
    uint32_t now = s->tsd[i];
    if (s->cpcr & (CPCR_TX | CPCR_RX)) {
        if (i == 0 && (now & DUMP)) {
            dump(s);
        }
    } else if (!(s->cmd & CMD_TX) || !may_dma(s)) {
        s->tsd[i] = old;
    } else {
        s->tsd[i] = now & ~(uint32_t)(TSD_OWN | TSD_OK);
        if (!(now & TSD_OWN)) {
            send_slot(s, i);
        }
    }
}

/* ---- transmit, C+ ---- */

static void put_sum(uint8_t *p, size_t n, size_t at)
{
    if (at + 2 <= n) {
        be16_put(p + at, 0);
        uint16_t sum = (uint16_t)~nic_sum(p, n, 0);
        be16_put(p + at, sum ? sum : 0xffff);
    }
}

/* The checksum of TCP or UDP, whose pseudo header the driver left out. */
static void put_l4(uint8_t *ip, size_t head, size_t whole)
{
    bool tcp = ip[9] == 6;
    size_t n = whole - head, at = tcp ? 16 : 6;
    uint8_t pseudo[12];
    memcpy(pseudo, ip + 12, 8);
    pseudo[8] = 0;
    pseudo[9] = ip[9];
    be16_put(pseudo + 10, (uint16_t)n);
    if (at + 2 > n) {
        return;
    }
    be16_put(ip + head + at, 0);
    uint16_t sum = (uint16_t)~nic_sum(ip + head, n, nic_sum(pseudo, sizeof(pseudo), 0));
    be16_put(ip + head + at, sum ? sum : 0xffff);
}

/* Length of the IPv4 header and packet in @f; false if there is none that is sound. */
static bool find_ip(const uint8_t *f, size_t n, size_t *head, size_t *whole)
{
    if (n < ETH_HEADER + 20 || be16_at(f + 12) != 0x0800 || f[ETH_HEADER] >> 4 != 4) {
        return false;
    }
    *head = (f[ETH_HEADER] & 15) * 4u;
    *whole = be16_at(f + ETH_HEADER + 2);
    return *head >= 20 && *whole >= *head && *whole <= n - ETH_HEADER;
}

static void send_segments(struct rtl8139 *s, uint32_t mss)
{
    uint8_t *f = s->frame, *ip = f + ETH_HEADER, seg[FRAME_MAX];
    size_t head, whole;
    if (!find_ip(f, s->bytes, &head, &whole) || ip[9] != 6 || whole < head + 20) {
        return;
    }
    size_t tcp = (ip[head + 12] >> 4) * 4u, all = ETH_HEADER + head + tcp;
    if (tcp < 20 || head + tcp > whole || mss < 64 || all + mss > sizeof(seg)) {
        return;
    }
    size_t payload = whole - head - tcp;
    uint32_t seq = be32_at(ip + head + 4);
    uint16_t id = be16_at(ip + 4);
    for (size_t from = 0; from < payload; from += mss) {
        size_t part = MIN(mss, payload - from);
        uint8_t *to = seg + ETH_HEADER;
        memcpy(seg, f, all);
        memcpy(seg + all, f + all + from, part);
        be16_put(to + 2, (uint16_t)(head + tcp + part));
        be16_put(to + 4, id++);
        be32_put(to + head + 4, seq + (uint32_t)from);
        to[head + 13] &=
            from + part < payload ? (uint8_t)~9 : 0xff; /* FIN and PSH are the last's */
        put_sum(to, head, 10);
        put_l4(to, head, head + tcp + part);
        send(s, seg, all + part);
    }
}

static void send_plus(struct rtl8139 *s, uint32_t word, uint32_t vlan)
{
    size_t head, whole, n = s->bytes;
    uint8_t *f = s->frame;
    if (word & D_LARGE) {
        send_segments(s, word >> D_MSS_SHIFT & 0x7ff);
        return;
    }
    if ((word & (D_IP | D_TCP | D_UDP)) && find_ip(f, n, &head, &whole)) {
        uint8_t protocol = f[ETH_HEADER + 9];
        if (word & D_IP) {
            put_sum(f + ETH_HEADER, head, 10);
        }
        if (((word & D_TCP) && protocol == 6) || ((word & D_UDP) && protocol == 17)) {
            put_l4(f + ETH_HEADER, head, whole);
        }
    }
    if (vlan & D_VLAN) {
        memmove(f + 16, f + 12, n - 12);
        be16_put(f + 12, ETH_TYPE_VLAN);
        be16_put(f + 14, (uint16_t)((vlan & 0xff) << 8 | (vlan >> 8 & 0xff)));
        n += ETH_VLAN_BYTES;
    }
    send(s, f, n);
}

/* One descriptor of ring @high; false if it is not ours. */
static bool take_descriptor(struct rtl8139 *s, bool high)
{
    const uint32_t *ring = s->tsad + 2 * high; /* in this mode these are two addresses */
    uint64_t base = ring[0] | (uint64_t)ring[1] << 32;
    uint64_t at = base + s->tx_at[high] * 16u;
    uint8_t d[16] = {0};
    pci_dma_read(&s->pci, at, d, sizeof(d));
    uint32_t word = le32_at(d), n = word & TXD_SIZE;
    if (!(word & D_OWN)) {
        return false;
    }
    if (word & D_FS) {
        s->bytes = s->overflow = 0;
    }
    if (n > FRAG_MAX - s->bytes) {
        s->overflow = 1;
    } else {
        pci_dma_read(&s->pci, le64_at(d + 8), s->frame + s->bytes, n);
        s->bytes += n;
    }
    s->tx_at[high] = word & D_EOR || s->tx_at[high] + 1 >= RING_MAX ? 0 : s->tx_at[high] + 1;
    le32_put(d, word & ~(D_OWN | 0xffu << 20));
    pci_dma_write(&s->pci, at, d, 4);
    if (word & D_LS) {
        if (!s->overflow && s->bytes >= ETH_HEADER) {
            send_plus(s, word, le32_at(d + 4));
        }
        s->bytes = s->overflow = 0;
    }
    return true;
}

static void transmit_plus(struct rtl8139 *s)
{
    bool on = (s->cmd & CMD_TX) && (s->cpcr & CPCR_TX) && may_dma(s);
    for (unsigned high = 2; on && high-- > 0;) {
        unsigned n = 0;
        while (n < TX_BURST && take_descriptor(s, high)) {
            n++;
        }
        if (n == TX_BURST) { /* others must get the machine lock, too, also from an endless ring */
            timer_arm(&s->tx_again, clock_now() + TX_PAUSE_NS);
        }
        s->isr |= n ? INT_TOK : 0;
    }
    device_settle(&s->pci.dev);
}

static void poll_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    if (now & 0xc0) {
        transmit_plus(self(dev));
    }
}

static void tx_again(void *owner)
{
    transmit_plus(owner);
}

static void wake(void *owner)
{
    struct rtl8139 *s = owner;
    net_resume(s->net);
}

/* ---- registers ---- */

static void reset(struct device *dev)
{
    struct rtl8139 *s = self(dev);
    timer_disarm(&s->tx_again);
    memcpy(s->idr, s->mac, 6);
    for (unsigned i = 0; i < SLOTS; i++) {
        s->tsd[i] = TSD_OWN;
    }
}

static void cmd_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct rtl8139 *s = self(dev);
    if (now & CMD_RESET) {
        uint8_t cr9346 = s->cr9346;
        const struct device_model *m = dev->model;
        for (unsigned i = 0; i < m->nregs; i++) {
            const struct reg *r = &m->regs[i];
            if (r->port >= 0 && r->size) {
                memcpy((char *)dev + r->slot, &r->reset, r->size);
            }
        }
        s->cr9346 = cr9346;
        s->rx_at = s->tx_at[0] = s->tx_at[1] = 0;
        s->bytes = s->overflow = 0;
        reset(dev);
        return;
    }
    if ((now & CMD_RX) && !(old & CMD_RX)) {
        s->cbr = 0;
        s->rx_at = 0;
        net_resume(s->net);
    }
    if ((now & CMD_TX) && !(old & CMD_TX)) {
        s->tx_at[0] = s->tx_at[1] = 0;
    }
}

static uint64_t cmd_read(struct device *dev, uint64_t stored)
{
    const struct rtl8139 *s = self(dev);
    return (stored & (CMD_TX | CMD_RX)) | (ring_is_empty(s) ? CMD_EMPTY : 0);
}

static uint64_t tcr_read(struct device *dev, uint64_t stored)
{
    (void)dev;
    return TCR_CHIP | stored;
}

static uint64_t bmsr_read(struct device *dev, uint64_t unused)
{
    (void)unused;
    return BMSR | (link_is_up(self(dev)) ? BMSR_LINK | BMSR_DONE : 0);
}

static uint64_t lpa_read(struct device *dev, uint64_t unused)
{
    (void)unused;
    return link_is_up(self(dev)) ? LPA : 0;
}

static uint64_t aner_read(struct device *dev, uint64_t unused)
{
    (void)dev, (void)unused;
    return ANER;
}

/* Link partner, speed (100 Mbit/s is 0), inverse link. */
static uint64_t media_read(struct device *dev, uint64_t stored)
{
    return (stored & 0xc0) | (link_is_up(self(dev)) ? 0 : 4);
}

static void bmcr_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    self(dev)->bmcr = (uint16_t)(now & BMCR_RESET ? 0x3100 : now & ~(uint64_t)BMCR_RESTART);
}

/* Summary of the four: owned by the card's host, sent, ... */
static uint64_t tsad_read(struct device *dev, uint64_t unused)
{
    const struct rtl8139 *s = self(dev);
    uint64_t v = 0;
    (void)unused;
    for (unsigned i = 0; i < SLOTS; i++) {
        v |= s->tsd[i] & TSD_OK ? 0x1000u << i : 0;
        v |= s->tsd[i] & TSD_OWN ? 1u << i : 0;
    }
    return v;
}

/* Counts the PCI clock. */
static uint64_t tctr_read(struct device *dev, uint64_t unused)
{
    (void)unused;
    return (uint32_t)((clock_now() - self(dev)->counted_from) * PCI_MHZ / 1000);
}

static void arm_tick(struct rtl8139 *s)
{
    timer_disarm(&s->tick);
    if (s->timer_int) {
        timer_arm(&s->tick, s->counted_from + (int64_t)s->timer_int * 1000 / PCI_MHZ);
    }
}

static void tctr_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    self(dev)->counted_from = clock_now();
    arm_tick(self(dev));
}

static void timer_int_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    if ((int64_t)tctr_read(dev, 0) < self(dev)->timer_int) {
        arm_tick(self(dev));
    }
}

static void tick(void *owner)
{
    struct rtl8139 *s = owner;
    s->isr |= INT_TIMEOUT;
    device_settle(&s->pci.dev);
}

static void mpc_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    self(dev)->mpc = 0;
}

#define SLOT(i)                                                                                    \
    static void tsd##i##_write(struct device *dev, uint64_t old, uint64_t now)                     \
    {                                                                                              \
        (void)now;                                                                                 \
        tsd_written(self(dev), i, (uint32_t)old);                                                  \
    }
SLOT(0)
SLOT(1)
SLOT(2)
SLOT(3)
#undef SLOT

#define S                    struct rtl8139
#define R(field, at, ...)    REG(S, field, .port = at, .dir = REG_RW, __VA_ARGS__)
#define RW(field, at, mask)  R(field, at, .writable = mask)
#define C(label, at, w, ...) REG_COMPUTED(label, .port = at, .width = w, __VA_ARGS__)
static const struct reg regs[] = {
    PCI_STATE(S, pci),
    RW(idr[0], 0x00, 0xff),
    RW(idr[1], 0x01, 0xff),
    RW(idr[2], 0x02, 0xff),
    RW(idr[3], 0x03, 0xff),
    RW(idr[4], 0x04, 0xff),
    RW(idr[5], 0x05, 0xff),
    RW(mar[0], 0x08, 0xff),
    RW(mar[1], 0x09, 0xff),
    RW(mar[2], 0x0a, 0xff),
    RW(mar[3], 0x0b, 0xff),
    RW(mar[4], 0x0c, 0xff),
    RW(mar[5], 0x0d, 0xff),
    RW(mar[6], 0x0e, 0xff),
    RW(mar[7], 0x0f, 0xff),
    R(tsd[0], 0x10, .writable = 0xffffffff, .on_write = tsd0_write),
    R(tsd[1], 0x14, .writable = 0xffffffff, .on_write = tsd1_write),
    R(tsd[2], 0x18, .writable = 0xffffffff, .on_write = tsd2_write),
    R(tsd[3], 0x1c, .writable = 0xffffffff, .on_write = tsd3_write),
    RW(tsad[0], 0x20, 0xffffffff),
    RW(tsad[1], 0x24, 0xffffffff),
    RW(tsad[2], 0x28, 0xffffffff),
    RW(tsad[3], 0x2c, 0xffffffff),
    RW(rbstart, 0x30, 0xffffffff),
    R(cmd, 0x37, .writable = CMD_TX | CMD_RX, .on_read = cmd_read, .on_write = cmd_write),
    R(capr, 0x38, .writable = 0xffff, .reset = 0xfff0, .on_write = rx_changed),
    REG(S, cbr, .port = 0x3a, .dir = REG_R),
    RW(imr, 0x3c, 0xffff),
    R(isr, 0x3e, .w1c = 0xffff),
    R(tcr, 0x40, .writable = TCR_STORED, .on_read = tcr_read, .reset = 0x03000000),
    R(rcr, 0x44, .writable = 0x0f07ffff, .on_write = rx_changed),
    C("tctr", 0x48, 4, .dir = REG_RW, .on_read = tctr_read, .on_write = tctr_write),
    R(mpc, 0x4c, .writable = 0xffffff, .on_write = mpc_write),
    R(cr9346, 0x50, .writable = 0xfe, .on_read = cr9346_read, .on_write = cr9346_write),
    R(config0, 0x51, .reset = 0x10),
    RW(config1, 0x52, 0xcf),
    R(timer_int, 0x54, .writable = 0xffffffff, .on_write = timer_int_write),
    R(media, 0x58, .writable = 0xc0, .on_read = media_read, .reset = 0x80),
    RW(config3, 0x59, 0xff),
    RW(config4, 0x5a, 0xff),
    RW(multi_intr, 0x5c, 0xffff),
    C("tsad_summary", 0x60, 2, .dir = REG_R, .on_read = tsad_read),
    R(bmcr, 0x62, .writable = 0xffff, .reset = 0x3100, .on_write = bmcr_write),
    C("bmsr", 0x64, 2, .dir = REG_R, .on_read = bmsr_read),
    R(anar, 0x66, .writable = 0xffff, .reset = 0x05e1),
    C("anlpar", 0x68, 2, .dir = REG_R, .on_read = lpa_read),
    C("aner", 0x6a, 2, .dir = REG_R, .on_read = aner_read),
    RW(config5, 0xd8, 0xff),
    C("txpoll", 0xd9, 1, .dir = REG_W, .on_write = poll_write),
    RW(rms, 0xda, 0x1fff),
    R(cpcr, 0xe0, .writable = 0xffff, .on_write = rx_changed),
    RW(rxd_low, 0xe4, 0xffffffff),
    RW(rxd_high, 0xe8, 0xffffffff),
    RW(txthresh, 0xec, 0xff),
    STATE(S, tx_ok),
    STATE(S, rx_ok),
    STATE(S, counted_from),
    STATE_TIMER(S, tick),
    STATE_TIMER(S, tx_again),
    STATE_ARRAY(S, tx_at),
    STATE(S, rx_at),
    STATE(S, ee_in),
    STATE(S, ee_bits),
    STATE(S, ee_out),
    STATE(S, ee_reading),
    STATE(S, bytes),
    STATE(S, overflow),
    STATE_ARRAY(S, frame),
};

#define P(field) offsetof(S, field)
static const struct prop props[] = {
    PCI_PROPS(S, pci),
    {"netdev", PROP_NETDEV, P(net), .help = "id of the -netdev"},
    {"mac", PROP_MAC, P(mac), .help = "52:54:00:12:34:56 and counting if absent"},
    {"bootindex", PROP_U32, P(bootindex), UINT32_MAX},
};

static const struct pci_ident ident = {
    .vendor = 0x10ec,
    .device = 0x8139,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .revision = 0x20, /* drivers know the C+ by it */
    .class = 0x020000,
    .irq_pin = 1,
    .romfile = "efi-rtl8139.rom",
};

static void link_changed(void *card)
{
    struct rtl8139 *s = card;
    s->isr |= INT_LINK;
    device_settle(&s->pci.dev);
}

static bool start(struct device *dev, GError **error)
{
    struct rtl8139 *s = self(dev);
    if (!nic_plug(s->net, receive, s, error)) {
        return false;
    }
    if (s->net) {
        s->net->link_changed = link_changed;
    }
    nic_default_mac(s->mac);
    eeprom_fill(s);
    s->wake = (struct timer){.fire = wake, .owner = s};
    s->tx_again = (struct timer){.fire = tx_again, .owner = s};
    s->tick = (struct timer){.fire = tick, .owner = s};
    if (!pci_attach(&s->pci, error)) {
        nic_unplug(s->net);
        return false;
    }
    device_window_init(&s->io, dev, 0, "rtl8139-io", WINDOW);
    device_window_init(&s->mmio, dev, 0, "rtl8139-mmio", WINDOW);
    pci_set_bar(&s->pci, 0, &s->io.region, true, false, false);
    pci_set_bar(&s->pci, 1, &s->mmio.region, false, false, false);
    return true;
}

static void stop(struct device *dev)
{
    struct rtl8139 *s = self(dev);
    nic_unplug(s->net);
    timer_disarm(&s->wake);
    timer_disarm(&s->tx_again);
    timer_disarm(&s->tick);
    pci_detach(&s->pci);
}

/* What comes in goes on once the machine runs. */
static bool loaded(struct device *dev, GError **error)
{
    struct rtl8139 *s = self(dev);
    if (s->bytes > FRAG_MAX || s->rx_at >= RING_MAX || s->tx_at[0] >= RING_MAX ||
        s->tx_at[1] >= RING_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "places in rings that cannot be");
        return false;
    }
    timer_arm(&s->wake, clock_now());
    return true;
}

const struct device_model model_rtl8139 = {
    .name = "rtl8139",
    .about = "Realtek RTL8139C+ network card",
    .spec = "Realtek RTL8139C(L)+, \"Register Descriptions\", \"C+ Mode Functional Description\"",
    .size = sizeof(S),
    .version = 1,
    .bus = BUS_PCI,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = stop,
    .settle = settle,
    .reset = reset,
    .loaded = loaded,
};
