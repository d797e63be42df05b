/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * e1000: Intel 82540EM Gigabit Ethernet controller.
 *
 * Spec: Intel, "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's
 * Manual" (317453), chapters "Receive and Transmit Description", "EEPROM Interface",
 * "PHY Functionality and Features", "Register Descriptions"; IEEE 802.3, "Reconciliation
 * Sublayer and Media Independent Interface".
 * Not modelled: flow control, wake-up, diagnostics FIFOs, receive and transmit delay timers
 * (interrupts come at once, at most as often as ITR allows).
 */
#include "base/bytes.h"
#include "base/util.h"
#include "guest/device/e1000_tx.h"
#include "guest/device/nic.h"

enum { MMIO_BYTES = 128 << 10, IO_BYTES = 64, DESC_BYTES = 16 };
enum { CTRL_SLU = 1 << 6, CTRL_RST = 1 << 26, CTRL_VME = 1 << 30 };
#define CTRL_PHY_RST (1u << 31)
enum { STATUS_LU = 1 << 1, STATUS_ALWAYS = 0x781 }; /* 1000 Mbit/s, full duplex */
#define STATUS_BIT31 0x80080000u
enum { EECD_SK = 1, EECD_CS = 2, EECD_DI = 4, EECD_DO = 8, EECD_STORED = 0x77, EECD_GNT = 0x80,
       EECD_PRESENT = 0x100 };
enum { EEPROM_WORDS = 64, EEPROM_SUM = 0xbaba, EEPROM_READ = 6 };
enum { ICR_TXDW = 1 << 0, ICR_TXQE = 1 << 1, ICR_LSC = 1 << 2, ICR_RXDMT0 = 1 << 4,
       ICR_RXO = 1 << 6, ICR_RXT0 = 1 << 7, ICR_MDAC = 1 << 9 };
#define ICR_ASSERTED (1u << 31)
enum { RCTL_EN = 1 << 1, RCTL_UPE = 1 << 3, RCTL_MPE = 1 << 4, RCTL_LPE = 1 << 5,
       RCTL_BAM = 1 << 15, RCTL_VFE = 1 << 18, RCTL_BSEX = 1 << 25, RCTL_SECRC = 1 << 26 };
enum { TCTL_EN = 1 << 1, MDIC_WRITE = 1 << 26, MDIC_READ = 1 << 27, MDIC_READY = 1 << 28,
       MDIC_ERROR = 1 << 30 };
enum { PHY_REGS = 32, PHY_CTRL = 0, PHY_STATUS = 1, PHY_LP = 5, PHY_SPECIFIC = 17 };
enum { PHY_CTRL_LOOPBACK = 1 << 14, PHY_CTRL_RESET = 1 << 15, PHY_CTRL_RESTART = 1 << 9 };
enum { PHY_STATUS_LINK = 1 << 2, PHY_STATUS_DONE = 1 << 5, PHY_SPECIFIC_LINK = 1 << 10 };
enum { RX_DD = 1, RX_EOP = 2, RX_IXSM = 4, RX_VP = 8, RX_TCPCS = 0x20, RX_IPCS = 0x40 };
enum { RXCSUM_IP = 1 << 8, RXCSUM_TCP = 1 << 9 };
enum { TX_RS = 1 << 27, TX_DD = 1, TX_BURST = 512 };
enum { FRAME_MIN = 60, FRAME_MAX = 1518, FCS = 4 };
#define RA_VALID (1u << 31)

/* Arrays of registers, which the table cannot hold. */
enum { STATS_AT = 0x4000, STATS = 74, MTA_AT = 0x5200, MTA = 128, RA_AT = 0x5400, RA = 32,
       VFTA_AT = 0x5600, VFTA = 128 };
/* Statistics by their index: (offset - 0x4000) / 4. */
enum stat { STAT_MPC = 4, STAT_GPRC = 0x74 / 4, STAT_BPRC, STAT_MPRC, STAT_GPTC,
            STAT_GORC = 0x88 / 4, STAT_GOTC = 0x90 / 4, STAT_RNBC = 0xa0 / 4,
            STAT_TOR = 0xc0 / 4, STAT_TOT = 0xc8 / 4, STAT_TPR = 0xd0 / 4, STAT_TPT };

struct e1000 {
    struct pci_device pci; /* first */

    /* State: registers. */
    uint32_t ctrl, eecd, eerd, ctrl_ext, mdic, fcal, fcah, fct, vet, icr, itr, ims, rctl, fcttv,
        txcw, tctl, tipg, ait, ledctl, pba, fcrtl, fcrth, rdbal, rdbah, rdlen, rdh, rdt, rdtr,
        rxdctl, radv, rsrpd, tdbal, tdbah, tdlen, tdh, tdt, tidv, txdctl, tadv, rxcsum, wuc, wufc,
        wus, manc, ioaddr;
    uint32_t stats[STATS], mta[MTA], ra[RA], vfta[VFTA];
    uint16_t phy[PHY_REGS];
    /* The EEPROM's serial wire. */
    uint16_t ee_in, ee_bits;
    uint16_t ee_out; /* bit of the EEPROM that is on the wire */
    uint8_t ee_reading;
    /* The descriptor sequence being gathered: e1000_tx.c. */
    struct e1000_tx tx;
    struct timer throttle; /* armed: no new interrupt before */

    /* Properties. */
    struct netdev *net;
    uint8_t mac[6];
    uint32_t bootindex;

    uint16_t eeprom[EEPROM_WORDS];
    struct region mmio, io;
    struct timer wake, tx_again;
};

static struct e1000 *self(struct device *dev)
{
    return container_of(dev, struct e1000, pci.dev);
}

/* ---- interrupts ---- */

static void raise_cause(struct e1000 *s, uint32_t cause)
{
    s->icr |= cause;
}

static void settle(struct device *dev)
{
    struct e1000 *s = self(dev);
    bool level = s->icr & s->ims;
    if (!level || s->pci.irq_level) {
        pci_irq(&s->pci, level);
    } else if (!timer_armed(&s->throttle)) {
        pci_irq(&s->pci, true);
        if (s->itr & 0xffff) {
            timer_arm(&s->throttle, clock_now() + (int64_t)(s->itr & 0xffff) * 256);
        }
    }
}

static void throttle_over(void *owner)
{
    settle(owner);
}

static uint64_t icr_read(struct device *dev, uint64_t stored)
{
    struct e1000 *s = self(dev);
    uint32_t v = (uint32_t)stored | (stored & s->ims ? ICR_ASSERTED : 0);
    s->icr = 0;
    return v;
}

static void icr_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    self(dev)->icr &= ~(uint32_t)now;
}

static void ics_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    raise_cause(self(dev), (uint32_t)now & 0x1ffff);
}

static void ims_write(struct device *dev, uint64_t old, uint64_t now)
{
    self(dev)->ims = (uint32_t)(old | now) & 0x1ffff;
}

static void imc_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    self(dev)->ims &= ~(uint32_t)now;
}

/* ---- link, PHY, EEPROM ---- */

static bool link_is_up(const struct e1000 *s)
{
    return s->phy[PHY_STATUS] & PHY_STATUS_LINK;
}

static void set_link(struct e1000 *s, bool up)
{
    bool was = link_is_up(s);
    s->phy[PHY_STATUS] &= (uint16_t)~(PHY_STATUS_LINK | PHY_STATUS_DONE);
    s->phy[PHY_SPECIFIC] &= (uint16_t)~PHY_SPECIFIC_LINK;
    s->phy[PHY_LP] = 0;
    if (up) {
        s->phy[PHY_STATUS] |= PHY_STATUS_LINK | PHY_STATUS_DONE;
        s->phy[PHY_SPECIFIC] |= PHY_SPECIFIC_LINK;
        s->phy[PHY_LP] = 0x45e0; /* acknowledged; 10 and 100 Mbit/s, pause */
    }
    if (was != up) {
        raise_cause(s, ICR_LSC);
    }
}

static bool cable(const struct e1000 *s)
{
    return s->net && s->net->link_up;
}

static void link_changed(void *card)
{
    struct e1000 *s = card;
    set_link(s, cable(s));
    settle(&s->pci.dev);
}

static void phy_reset(struct e1000 *s)
{
    static const struct {
        uint8_t at;
        uint16_t value;
    } rows[] = {
        {PHY_CTRL, 0x1140}, {PHY_STATUS, 0x7949}, {2, 0x0141}, {3, 0x0c20}, {4, 0x0de1},
        {9, 0x0e00}, {10, 0x3c00}, {15, 0x3000}, {16, 0x0360}, {PHY_SPECIFIC, 0xa800},
        {20, 0x0d60}, {21, 0},
    };
    memset(s->phy, 0, sizeof(s->phy));
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        s->phy[rows[i].at] = rows[i].value;
    }
    set_link(s, cable(s));
}

static void phy_write(struct e1000 *s, unsigned at, uint16_t v)
{
    static const uint32_t read_only = 1u << 1 | 1u << 2 | 1u << 3 | 1u << 5 | 1u << 6 | 1u << 10 |
                                      1u << 15 | 1u << 17 | 1u << 21;
    if (at == PHY_CTRL) {
        s->phy[at] = v & (uint16_t)~(PHY_CTRL_RESET | PHY_CTRL_RESTART | 0x3f);
        if (v & PHY_CTRL_RESET) {
            phy_reset(s);
        }
        if (v & (PHY_CTRL_RESTART | PHY_CTRL_RESET)) {
            set_link(s, cable(s));
            raise_cause(s, ICR_LSC); /* negotiated in no time */
        }
    } else if (!(read_only >> at & 1)) {
        s->phy[at] = v;
    }
}

static void mdic_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct e1000 *s = self(dev);
    unsigned at = now >> 16 & 31, phy = now >> 21 & 31;
    (void)old;
    s->mdic = (uint32_t)now | MDIC_READY;
    if (phy != 1) {
        s->mdic |= MDIC_ERROR;
    } else if (now & MDIC_READ) {
        s->mdic = (s->mdic & 0xffff0000) | s->phy[at];
    } else if (now & MDIC_WRITE) {
        phy_write(s, at, (uint16_t)now);
    }
    if (now & 1u << 29) {
        raise_cause(s, ICR_MDAC);
    }
}

static void eeprom_fill(struct e1000 *s)
{
    static const struct {
        uint8_t at;
        uint16_t value;
    } rows[] = {
        {0x05, 0xffff}, {0x08, 0x3000}, {0x09, 0x1000}, {0x0a, 0x6403}, {0x0b, 0x100e},
        {0x0c, 0x8086}, {0x0d, 0x100e}, {0x0e, 0x8086}, {0x0f, 0x3040}, {0x10, 0x0008},
        {0x11, 0x2000}, {0x12, 0x7e14}, {0x13, 0x0048}, {0x14, 0x1000}, {0x15, 0x00d8},
        {0x24, 0x4d01},
    };
    uint16_t sum = 0;
    for (unsigned i = 0; i < 3; i++) {
        s->eeprom[i] = le16_at(s->mac + 2 * i);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        s->eeprom[rows[i].at] = rows[i].value;
    }
    for (unsigned i = 0; i < EEPROM_WORDS - 1; i++) {
        sum = (uint16_t)(sum + s->eeprom[i]);
    }
    s->eeprom[EEPROM_WORDS - 1] = (uint16_t)(EEPROM_SUM - sum);
}

/* Microwire: start bit, opcode, six address bits in; then data bits out, highest first. */
static void eecd_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct e1000 *s = self(dev);
    if (!(now & EECD_CS)) {
        return;
    }
    if (!(old & EECD_CS)) {
        s->ee_in = s->ee_bits = s->ee_out = s->ee_reading = 0;
    }
    if (!((old ^ now) & EECD_SK)) {
        return;
    }
    if (!(now & EECD_SK)) {
        s->ee_out++;
        return;
    }
    s->ee_in = (uint16_t)(s->ee_in << 1 | (now & EECD_DI ? 1 : 0));
    if (++s->ee_bits == 9 && !s->ee_reading) {
        s->ee_out = (uint16_t)((s->ee_in & 0x3f) * 16 - 1);
        s->ee_reading = (s->ee_in >> 6 & 7) == EEPROM_READ;
    }
}

static uint64_t eecd_read(struct device *dev, uint64_t stored)
{
    struct e1000 *s = self(dev);
    unsigned word = s->eeprom[s->ee_out / 16 % EEPROM_WORDS], bit = 15 - s->ee_out % 16;
    bool out = !s->ee_reading || (word >> bit & 1);
    return (stored & EECD_STORED) | EECD_PRESENT | EECD_GNT | (out ? EECD_DO : 0);
}

static uint64_t eerd_read(struct device *dev, uint64_t stored)
{
    unsigned at = stored >> 8 & 0xff;
    if (!(stored & 1)) {
        return stored;
    }
    uint64_t word = at < EEPROM_WORDS ? self(dev)->eeprom[at] : 0;
    return 1u << 4 | (uint64_t)at << 8 | word << 16;
}

static uint64_t status_read(struct device *dev, uint64_t unused)
{
    (void)unused;
    return STATUS_BIT31 | STATUS_ALWAYS | (link_is_up(self(dev)) ? STATUS_LU : 0);
}

/* ---- receive ---- */

static void count(struct e1000 *s, enum stat i, uint32_t by)
{
    s->stats[i] = s->stats[i] > UINT32_MAX - by ? UINT32_MAX : s->stats[i] + by;
}

/* Octet counters have a low and a high half. */
static void count_wide(struct e1000 *s, enum stat i, uint64_t by)
{
    uint64_t v = (s->stats[i] | (uint64_t)s->stats[i + 1] << 32) + by;
    s->stats[i] = (uint32_t)v;
    s->stats[i + 1] = (uint32_t)(v >> 32);
}

static bool is_ours(const struct e1000 *s, const uint8_t *frame)
{
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255}, shifts[4] = {4, 3, 2, 0};
    if ((s->rctl & RCTL_VFE) && be16_at(frame + 12) == (s->vet & 0xffff)) {
        unsigned id = be16_at(frame + 14) & 0xfff;
        if (!(s->vfta[id / 32] >> id % 32 & 1)) {
            return false;
        }
    }
    bool group = frame[0] & 1;
    if ((!group && (s->rctl & RCTL_UPE)) || (group && (s->rctl & RCTL_MPE)) ||
        ((s->rctl & RCTL_BAM) && memcmp(frame, all, 6) == 0)) {
        return true;
    }
    for (unsigned i = 0; i < RA; i += 2) {
        if ((s->ra[i + 1] & RA_VALID) && s->ra[i] == le32_at(frame) &&
            (s->ra[i + 1] & 0xffff) == le16_at(frame + 4)) {
            return true;
        }
    }
    unsigned hash = le16_at(frame + 4) >> shifts[s->rctl >> 12 & 3] & 0xfff;
    return group && (s->mta[hash / 32] >> hash % 32 & 1);
}

static uint32_t rx_buffer_bytes(const struct e1000 *s)
{
    static const uint16_t plain[4] = {2048, 1024, 512, 256}, extended[4] = {2048, 16384, 8192, 4096};
    return (s->rctl & RCTL_BSEX ? extended : plain)[s->rctl >> 16 & 3];
}

static uint32_t rx_free(const struct e1000 *s)
{
    uint32_t ring = s->rdlen / DESC_BYTES;
    if (!ring || s->rdh >= ring || s->rdt >= ring) {
        return 0;
    }
    return (s->rdt + ring - s->rdh) % ring;
}

/* What the card would have found out about checksums, where the host vouches for them. */
static uint8_t rx_checksum_status(const struct e1000 *s, const uint8_t *frame, size_t n)
{
    uint8_t status = 0;
    if (!s->net->sums_good || n < ETH_HEADER + 20 || be16_at(frame + 12) != 0x0800 ||
        (be16_at(frame + ETH_HEADER + 6) & 0x3fff)) { /* a fragment */
        return RX_IXSM;
    }
    uint8_t protocol = frame[ETH_HEADER + 9];
    status |= s->rxcsum & RXCSUM_IP ? RX_IPCS : 0;
    status |= (s->rxcsum & RXCSUM_TCP) && (protocol == 6 || protocol == 17) ? RX_TCPCS : 0;
    return status ? status : RX_IXSM;
}

/* Writes one frame over as many descriptors as it takes; there are enough. */
static void rx_store(struct e1000 *s, const uint8_t *frame, size_t n, size_t shown, uint8_t status,
                     uint16_t special)
{
    uint32_t room = rx_buffer_bytes(s), ring = s->rdlen / DESC_BYTES;
    uint64_t base = s->rdbal | (uint64_t)s->rdbah << 32;
    size_t at = 0;
    do {
        uint8_t d[DESC_BYTES] = {0};
        pci_dma_read(&s->pci, base + s->rdh * DESC_BYTES, d, sizeof(d));
        size_t part = MIN(shown - at, room), real = at < n ? MIN(part, n - at) : 0;
        if (real && le64_at(d)) {
            pci_dma_write(&s->pci, le64_at(d), frame + at, real);
        }
        at += part;
        le16_put(d + 8, (uint16_t)part);
        le16_put(d + 10, 0);
        d[12] = (uint8_t)(status | RX_DD | (at == shown ? RX_EOP : 0));
        d[13] = 0;
        le16_put(d + 14, special);
        pci_dma_write(&s->pci, base + s->rdh * DESC_BYTES, d, sizeof(d));
        s->rdh = (s->rdh + 1) % ring;
    } while (at < shown);
}

static void rx_count(struct e1000 *s, const uint8_t *frame, size_t n)
{
    count(s, STAT_GPRC, 1);
    count(s, STAT_TPR, 1);
    count_wide(s, STAT_GORC, n + FCS);
    count_wide(s, STAT_TOR, n + FCS);
    if (frame[0] & 1) {
        count(s, frame[0] == 0xff ? STAT_BPRC : STAT_MPRC, 1);
    }
}

static bool receive(void *card, const void *data, size_t n)
{
    struct e1000 *s = card;
    uint8_t frame[NET_FRAME_MAX > 16384 ? 16384 : NET_FRAME_MAX];
    uint16_t special = 0;
    if (nic_must_wait(&s->wake)) {
        return false;
    }
    bool on = (s->rctl & RCTL_EN) && link_is_up(s) &&
              (s->pci.config[PCI_COMMAND] & PCI_COMMAND_MASTER);
    if (!on || n < ETH_HEADER || n > sizeof(frame) - FRAME_MIN ||
        (n > FRAME_MAX + ETH_VLAN_BYTES && !(s->rctl & RCTL_LPE))) {
        return true;
    }
    memset(frame, 0, FRAME_MIN);
    memcpy(frame, data, n);
    n = MAX(n, FRAME_MIN);
    if (!is_ours(s, frame)) {
        return true;
    }
    uint8_t status = rx_checksum_status(s, frame, n);
    if ((s->ctrl & CTRL_VME) && be16_at(frame + 12) == (s->vet & 0xffff)) {
        special = be16_at(frame + 14);
        status |= RX_VP;
        memmove(frame + 12, frame + 16, n - 16);
        n -= ETH_VLAN_BYTES;
    }
    size_t shown = n + (s->rctl & RCTL_SECRC ? 0 : FCS);
    if ((uint64_t)rx_free(s) * rx_buffer_bytes(s) < shown) {
        raise_cause(s, ICR_RXO);
        settle(&s->pci.dev);
        return false; /* until the driver moves RDT */
    }
    rx_store(s, frame, n, shown, status, special);
    rx_count(s, frame, n);
    uint32_t low = s->rdlen / DESC_BYTES >> ((s->rctl >> 8 & 3) + 1);
    raise_cause(s, ICR_RXT0 | (rx_free(s) <= low ? ICR_RXDMT0 : 0));
    settle(&s->pci.dev);
    return true;
}

static void rx_changed(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    net_resume(self(dev)->net);
}

/* ---- transmit ---- */

/* e1000_tx.c hands over finished frames. */
static void frame_out(void *owner, const uint8_t *frame, size_t n)
{
    struct e1000 *s = owner;
    struct iovec iov = {(void *)frame, n};
    count(s, STAT_GPTC, 1);
    count(s, STAT_TPT, 1);
    count_wide(s, STAT_GOTC, n + FCS);
    count_wide(s, STAT_TOT, n + FCS);
    if (s->phy[PHY_CTRL] & PHY_CTRL_LOOPBACK) {
        receive(s, frame, n);
    } else if (link_is_up(s)) {
        net_send(s->net, &iov, 1);
    }
}

static bool tx_write_back(struct e1000 *s, uint64_t at, uint8_t *d)
{
    if (!(le32_at(d + 8) & TX_RS)) {
        return false;
    }
    d[12] |= TX_DD;
    pci_dma_write(&s->pci, at + 12, d + 12, 1);
    return true;
}

static void transmit(struct e1000 *s)
{
    uint32_t ring = s->tdlen / DESC_BYTES, cause = 0;
    uint64_t base = s->tdbal | (uint64_t)s->tdbah << 32;
    unsigned n = 0;
    bool on = (s->tctl & TCTL_EN) && (s->pci.config[PCI_COMMAND] & PCI_COMMAND_MASTER);
    if (!on || s->tdh >= ring || s->tdt >= ring || s->tdh == s->tdt) {
        return;
    }
    struct e1000_tx_port port = {.owner = s, .frame = frame_out, .pci = &s->pci,
                                 .vlan_type = s->ctrl & CTRL_VME ? (uint16_t)s->vet : 0,
                                 .large = s->net && s->net->takes_large};
    for (; s->tdh != s->tdt && n + port.n_frames < TX_BURST; n++) {
        uint8_t d[DESC_BYTES] = {0};
        uint64_t at = base + s->tdh * DESC_BYTES;
        pci_dma_read(&s->pci, at, d, sizeof(d));
        e1000_tx_descriptor(&s->tx, &port, d);
        cause |= tx_write_back(s, at, d) ? ICR_TXDW : 0;
        s->tdh = (s->tdh + 1) % ring;
    }
    if (s->tdh != s->tdt) {
        timer_arm(&s->tx_again, clock_now()); /* others must get the machine lock, too */
    } else {
        cause |= ICR_TXQE;
    }
    raise_cause(s, cause);
    settle(&s->pci.dev);
}

static void tx_again(void *owner)
{
    transmit(owner);
}

static void tx_changed(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    transmit(self(dev));
}

static void wake(void *owner)
{
    struct e1000 *s = owner;
    net_resume(s->net);
    transmit(s);
}

/* ---- reset ---- */

static void reset_macs(struct e1000 *s)
{
    memset(s->mta, 0, sizeof(s->mta));
    memset(s->ra, 0, sizeof(s->ra));
    memset(s->vfta, 0, sizeof(s->vfta));
    memset(s->stats, 0, sizeof(s->stats));
    s->ra[0] = le32_at(s->mac);
    s->ra[1] = le16_at(s->mac + 4) | RA_VALID;
}

static void reset(struct device *dev)
{
    struct e1000 *s = self(dev);
    timer_disarm(&s->tx_again);
    reset_macs(s);
    phy_reset(s);
    s->icr = 0;
}

/* CTRL.RST: the MAC's registers as after power-on; PHY and PCI registers stay. */
static void ctrl_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct e1000 *s = self(dev);
    (void)old;
    if (now & CTRL_RST) {
        const struct device_model *m = dev->model;
        for (unsigned i = 0; i < m->nregs; i++) {
            const struct reg *r = &m->regs[i];
            if (r->port >= 0 && r->size == 4) {
                *(uint32_t *)(void *)((char *)dev + r->slot) = (uint32_t)r->reset;
            }
        }
        timer_disarm(&s->throttle);
        memset(&s->tx, 0, sizeof(s->tx));
        reset_macs(s);
        return;
    }
    if (now & CTRL_PHY_RST) {
        phy_reset(s);
    }
    s->ctrl &= ~CTRL_PHY_RST;
    if ((now & CTRL_SLU) && !(old & CTRL_SLU)) {
        set_link(s, cable(s));
    }
}

/* ---- windows ---- */

/* The array register at @at, or NULL. */
static uint32_t *array_at(struct e1000 *s, uint64_t at, bool *clears)
{
    const struct {
        uint32_t from, n, *array;
    } rows[] = {{MTA_AT, MTA, s->mta}, {RA_AT, RA, s->ra}, {VFTA_AT, VFTA, s->vfta},
                {STATS_AT, STATS, s->stats}};
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        uint64_t n = (at - rows[i].from) / 4;
        if (at >= rows[i].from && n < rows[i].n) {
            *clears = rows[i].from == STATS_AT;
            return &rows[i].array[n];
        }
    }
    return NULL;
}

static uint64_t mmio_read(void *owner, uint64_t at, unsigned bytes)
{
    struct e1000 *s = owner;
    bool clears;
    uint32_t *a = array_at(s, at & ~UINT64_C(3), &clears);
    (void)bytes;
    if (a) {
        uint32_t v = *a;
        *a = clears ? 0 : v;
        return v >> (at & 3) * 8;
    }
    uint64_t v = device_read(&s->pci.dev, 0, at & ~UINT64_C(3));
    return v == UINT64_MAX ? 0 : v >> (at & 3) * 8; /* reserved registers read as 0 */
}

static void mmio_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct e1000 *s = owner;
    bool clears;
    uint32_t *a = array_at(s, at, &clears);
    if (bytes != 4) {
        return; /* "partial writes are not supported" */
    }
    if (a && !clears) {
        *a = (uint32_t)value;
    } else if (!a) {
        device_write(&s->pci.dev, 0, at, value);
    }
}

static const struct region_ops mmio_ops = {.read = mmio_read, .write = mmio_write, .max_bytes = 4};

/* The same registers through an address and a data port. */
static uint64_t io_read(void *owner, uint64_t at, unsigned bytes)
{
    struct e1000 *s = owner;
    if (at == 0) {
        return s->ioaddr;
    }
    return at == 4 ? mmio_read(s, s->ioaddr, bytes) : 0;
}

static void io_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct e1000 *s = owner;
    if (at == 0 && bytes == 4) {
        s->ioaddr = (uint32_t)value & (MMIO_BYTES - 4);
    } else if (at == 4) {
        mmio_write(s, s->ioaddr, value, bytes);
    }
}

static const struct region_ops io_ops = {.read = io_read, .write = io_write, .max_bytes = 4};

/* ---- table ---- */

#define R(field, at, ...) REG(struct e1000, field, .port = at, __VA_ARGS__)
#define RW(field, at, mask, ...)                                                                   \
    R(field, at, .dir = REG_RW, .writable = mask, __VA_ARGS__)
#define C(label, at, ...) REG_COMPUTED(label, .port = at, .width = 4, __VA_ARGS__)
#define A(field) STATE_ARRAY(struct e1000, field)
#define ALL 0xffffffff
static const struct reg regs[] = {
    PCI_STATE(struct e1000, pci),
    RW(ctrl, 0x0000, ALL, .reset = 0x00140240, .on_write = ctrl_write),
    C("status", 0x0008, .dir = REG_R, .on_read = status_read),
    RW(eecd, 0x0010, EECD_STORED, .on_read = eecd_read, .on_write = eecd_write),
    RW(eerd, 0x0014, 0xff01, .on_read = eerd_read),
    RW(ctrl_ext, 0x0018, ALL),
    R(mdic, 0x0020, .dir = REG_R, .reset = MDIC_READY),
    C("mdic_command", 0x0020, .dir = REG_W, .on_write = mdic_write),
    RW(fcal, 0x0028, ALL), RW(fcah, 0x002c, 0xffff), RW(fct, 0x0030, 0xffff),
    RW(vet, 0x0038, 0xffff, .reset = ETH_TYPE_VLAN),
    R(icr, 0x00c0, .dir = REG_R, .on_read = icr_read),
    C("icr_clear", 0x00c0, .dir = REG_W, .on_write = icr_write),
    RW(itr, 0x00c4, 0xffff, .help = "units of 256 ns between interrupts"),
    C("ics", 0x00c8, .dir = REG_W, .on_write = ics_write),
    RW(ims, 0x00d0, ALL, .on_write = ims_write),
    C("imc", 0x00d8, .dir = REG_W, .on_write = imc_write),
    RW(rctl, 0x0100, ALL, .on_write = rx_changed),
    RW(fcttv, 0x0170, 0xffff), RW(txcw, 0x0178, ALL),
    RW(tctl, 0x0400, ALL, .on_write = tx_changed),
    RW(tipg, 0x0410, ALL), RW(ait, 0x0458, 0xffff), RW(ledctl, 0x0e00, ALL, .reset = 0x07061302),
    RW(pba, 0x1000, 0xffff, .reset = 0x00100030),
    RW(fcrtl, 0x2160, ALL), RW(fcrth, 0x2168, ALL),
    RW(rdbal, 0x2800, 0xfffffff0), RW(rdbah, 0x2804, ALL), RW(rdlen, 0x2808, 0xfff80),
    RW(rdh, 0x2810, 0xffff), RW(rdt, 0x2818, 0xffff, .on_write = rx_changed),
    RW(rdtr, 0x2820, 0xffff), RW(rxdctl, 0x2828, ALL), RW(radv, 0x282c, 0xffff),
    RW(rsrpd, 0x2c00, 0xfff),
    RW(tdbal, 0x3800, 0xfffffff0), RW(tdbah, 0x3804, ALL), RW(tdlen, 0x3808, 0xfff80),
    RW(tdh, 0x3810, 0xffff), RW(tdt, 0x3818, 0xffff, .on_write = tx_changed),
    RW(tidv, 0x3820, 0xffff), RW(txdctl, 0x3828, ALL), RW(tadv, 0x382c, 0xffff),
    RW(rxcsum, 0x5000, 0x7ff), RW(wuc, 0x5800, ALL), RW(wufc, 0x5808, ALL), RW(wus, 0x5810, ALL),
    RW(manc, 0x5820, ALL),
    STATE(struct e1000, ioaddr), A(stats), A(mta), A(ra), A(vfta), A(phy),
    STATE(struct e1000, ee_in), STATE(struct e1000, ee_bits), STATE(struct e1000, ee_out),
    STATE(struct e1000, ee_reading), STATE_TIMER(struct e1000, throttle),
    E1000_TX_STATE(struct e1000, tx),
};

#define P(field) offsetof(struct e1000, field)
static const struct prop props[] = {
    PCI_PROPS(struct e1000, pci),
    {"netdev", PROP_NETDEV, P(net), .help = "id of the -netdev"},
    {"mac", PROP_MAC, P(mac), .help = "52:54:00:12:34:56 and counting if absent"},
    {"bootindex", PROP_U32, P(bootindex), UINT32_MAX},
};

static const struct pci_ident ident = {
    .vendor = 0x8086, .device = 0x100e, .subsystem_vendor = 0x1af4, .subsystem = 0x1100,
    .revision = 3, .class = 0x020000, .irq_pin = 1, .romfile = "efi-e1000.rom",
};

static bool start(struct device *dev, GError **error)
{
    struct e1000 *s = self(dev);
    if (!nic_plug(s->net, receive, s, error)) {
        return false;
    }
    if (s->net) {
        s->net->link_changed = link_changed;
    }
    nic_default_mac(s->mac);
    eeprom_fill(s);
    s->throttle = (struct timer){.fire = throttle_over, .owner = s};
    s->wake = (struct timer){.fire = wake, .owner = s};
    s->tx_again = (struct timer){.fire = tx_again, .owner = s};
    if (!pci_attach(&s->pci, error)) {
        nic_unplug(s->net);
        return false;
    }
    s->mmio = (struct region){.name = "e1000-mmio", .size = MMIO_BYTES, .ops = &mmio_ops, .owner = s};
    s->io = (struct region){.name = "e1000-io", .size = IO_BYTES, .ops = &io_ops, .owner = s};
    pci_set_bar(&s->pci, 0, &s->mmio, false, false, false);
    pci_set_bar(&s->pci, 1, &s->io, true, false, false);
    return true;
}

static void stop(struct device *dev)
{
    struct e1000 *s = self(dev);
    nic_unplug(s->net);
    timer_disarm(&s->wake);
    timer_disarm(&s->tx_again);
    pci_detach(&s->pci);
}

/* What was queued goes on once the machine runs. */
static bool loaded(struct device *dev, GError **error)
{
    struct e1000 *s = self(dev);
    if (!e1000_tx_sane(&s->tx)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the transmit context cannot be");
        return false;
    }
    timer_arm(&s->wake, clock_now());
    return true;
}

const struct device_model model_e1000 = {
    .name = "e1000",
    .alias = "e1000-82540em",
    .about = "Intel 82540EM gigabit network card",
    .spec = "Intel 317453, \"Register Descriptions\"",
    .size = sizeof(struct e1000),
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
