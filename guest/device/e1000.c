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
#include "guest/device/e1000.h"

/* ---- interrupts ---- */

enum { RX_CAUSES = ICR_RXT0 | ICR_RXDMT0, TX_CAUSES = ICR_TXDW | ICR_TXQE };

void e1000_raise(struct e1000 *s, uint32_t cause)
{
    cause |= cause & RX_CAUSES ? s->kind->rx_cause : 0;
    cause |= cause & TX_CAUSES ? s->kind->tx_cause : 0;
    cause |= cause & (ICR_LSC | ICR_RXO | ICR_MDAC) ? s->kind->other_cause : 0;
    s->icr |= cause;
}

void e1000_line(struct e1000 *s)
{
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

static void settle(struct device *dev)
{
    e1000_line(e1000_of(dev));
}

static void throttle_over(void *owner)
{
    device_settle(owner);
}

uint64_t e1000_icr_read(struct device *dev, uint64_t stored)
{
    struct e1000 *s = e1000_of(dev);
    uint32_t v = (uint32_t)stored | (stored & s->ims ? ICR_ASSERTED : 0);
    if (s->kind->icr_read) {
        s->kind->icr_read(s);
    } else {
        s->icr = 0;
    }
    return v;
}

void e1000_icr_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    e1000_of(dev)->icr &= ~(uint32_t)now;
}

void e1000_ics_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    e1000_raise(e1000_of(dev), (uint32_t)now & e1000_of(dev)->kind->causes);
}

void e1000_ims_write(struct device *dev, uint64_t old, uint64_t now)
{
    e1000_of(dev)->ims = (uint32_t)(old | now) & e1000_of(dev)->kind->causes;
}

void e1000_imc_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    e1000_of(dev)->ims &= ~(uint32_t)now;
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
        e1000_raise(s, ICR_LSC);
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
    device_settle(&s->pci.dev);
}

static void phy_reset(struct e1000 *s)
{
    static const struct {
        uint8_t at;
        uint16_t value;
    } rows[] = {
        {PHY_CTRL, 0x1140}, {PHY_STATUS, 0x7949}, {2, 0x0141}, {3, 0}, {4, 0x0de1},
        {9, 0x0e00}, {10, 0x3c00}, {15, 0x3000}, {16, 0x0360}, {PHY_SPECIFIC, 0xa800},
        {20, 0x0d60}, {21, 0},
    };
    memset(s->phy, 0, sizeof(s->phy));
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        s->phy[rows[i].at] = rows[i].value;
    }
    s->phy[3] = s->kind->phy_id;
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
            e1000_raise(s, ICR_LSC); /* negotiated in no time */
        }
    } else if (!(read_only >> at & 1)) {
        s->phy[at] = v;
    }
}

void e1000_mdic_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct e1000 *s = e1000_of(dev);
    unsigned at = now >> 16 & 31, phy = now >> 21 & 31;
    (void)old;
    s->mdic = (uint32_t)now | MDIC_READY;
    if (phy != 1) {
        s->mdic |= MDIC_ERROR;
    } else if (at >= PHY_PAGED && at != PHY_PAGE && s->phy[PHY_PAGE]) {
        s->mdic &= now & MDIC_READ ? 0xffff0000 : ~0u; /* other pages are empty */
    } else if (now & MDIC_READ) {
        s->mdic = (s->mdic & 0xffff0000) | s->phy[at];
    } else if (now & MDIC_WRITE) {
        phy_write(s, at, (uint16_t)now);
    }
    if (now & 1u << 29) {
        e1000_raise(s, ICR_MDAC);
    }
}

static void eeprom_fill(struct e1000 *s)
{
    uint16_t sum = 0;
    for (unsigned i = 0; i < 3; i++) {
        s->eeprom[i] = le16_at(s->mac + 2 * i);
    }
    for (unsigned i = 0; i < s->kind->n_nvm; i++) {
        s->eeprom[s->kind->nvm[i][0]] = s->kind->nvm[i][1];
    }
    for (unsigned i = 0; i < EEPROM_WORDS - 1; i++) {
        sum = (uint16_t)(sum + s->eeprom[i]);
    }
    s->eeprom[EEPROM_WORDS - 1] = (uint16_t)(EEPROM_SUM - sum);
}

/* Microwire: start bit, opcode, six address bits in; then data bits out, highest first. */
void e1000_eecd_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct e1000 *s = e1000_of(dev);
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

uint64_t e1000_eecd_read(struct device *dev, uint64_t stored)
{
    struct e1000 *s = e1000_of(dev);
    unsigned word = s->eeprom[s->ee_out / 16 % EEPROM_WORDS], bit = 15 - s->ee_out % 16;
    bool out = !s->ee_reading || (word >> bit & 1);
    return (stored & EECD_STORED) | s->kind->eecd | (out ? EECD_DO : 0);
}

uint64_t e1000_eerd_read(struct device *dev, uint64_t stored)
{
    struct e1000 *s = e1000_of(dev);
    unsigned at = (uint16_t)stored >> s->kind->eerd_shift;
    if (!(stored & 1)) {
        return stored;
    }
    uint64_t word = at < EEPROM_WORDS ? s->eeprom[at] : 0;
    return s->kind->eerd_done | (uint64_t)at << s->kind->eerd_shift | word << 16;
}

uint64_t e1000_status_read(struct device *dev, uint64_t unused)
{
    (void)unused;
    struct e1000 *s = e1000_of(dev);
    return STATUS_BIT31 | STATUS_ALWAYS | (s->ctrl & CTRL_NO_MASTER ? 0 : STATUS_MASTER) |
           (link_is_up(s) ? STATUS_LU : 0);
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

uint32_t e1000_rx_buffer(const struct e1000 *s)
{
    static const uint16_t plain[4] = {2048, 1024, 512, 256}, extended[4] = {2048, 16384, 8192, 4096};
    return (s->rctl & RCTL_BSEX ? extended : plain)[s->rctl >> 16 & 3];
}

static void rx_shape(const struct e1000 *s, uint32_t *descriptor, uint32_t *room)
{
    *descriptor = DESC_BYTES;
    *room = e1000_rx_buffer(s);
    if (s->kind->rx_shape) {
        s->kind->rx_shape(s, descriptor, room);
    }
}

/* Head and tail count pieces of 16 bytes, of which a larger descriptor takes two. */
static uint32_t rx_free(const struct e1000 *s, uint32_t descriptor)
{
    uint32_t ring = s->rdlen / DESC_BYTES;
    if (!ring || s->rdh >= ring || s->rdt >= ring) {
        return 0;
    }
    return (s->rdt + ring - s->rdh) % ring / (descriptor / DESC_BYTES);
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

void e1000_rx_put(struct e1000 *s, uint64_t at, const struct e1000_part *part)
{
    uint8_t d[DESC_BYTES] = {0};
    pci_dma_read(&s->pci, at, d, sizeof(d));
    if (part->real && le64_at(d)) {
        pci_dma_write(&s->pci, le64_at(d), part->from, part->real);
    }
    le16_put(d + 8, (uint16_t)part->shown);
    le16_put(d + 10, 0);
    d[12] = part->status;
    d[13] = 0;
    le16_put(d + 14, part->special);
    pci_dma_write(&s->pci, at, d, sizeof(d));
}

/* Writes one frame over as many descriptors as it takes; there are enough. */
static void rx_store(struct e1000 *s, const uint8_t *frame, size_t n, size_t shown, uint8_t status,
                     uint16_t special)
{
    uint32_t descriptor, room;
    rx_shape(s, &descriptor, &room);
    uint32_t ring = s->rdlen / DESC_BYTES;
    uint64_t base = s->rdbal | (uint64_t)s->rdbah << 32;
    size_t at = 0;
    do {
        struct e1000_part part = {.from = frame + at, .shown = MIN(shown - at, room)};
        part.real = at < n ? MIN(part.shown, n - at) : 0;
        part.special = special;
        at += part.shown;
        part.status = (uint8_t)(status | RX_DD | (at == shown ? RX_EOP : 0));
        (s->kind->rx_put ? s->kind->rx_put : e1000_rx_put)(s, base + s->rdh * DESC_BYTES, &part);
        s->rdh = (s->rdh + descriptor / DESC_BYTES) % ring;
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
    uint32_t descriptor, room;
    rx_shape(s, &descriptor, &room);
    if ((uint64_t)rx_free(s, descriptor) * room < shown) {
        e1000_raise(s, ICR_RXO);
        device_settle(&s->pci.dev);
        return false; /* until the driver moves RDT */
    }
    rx_store(s, frame, n, shown, status, special);
    rx_count(s, frame, n);
    uint32_t low = s->rdlen / descriptor >> ((s->rctl >> 8 & 3) + 1);
    e1000_raise(s, ICR_RXT0 | (rx_free(s, descriptor) <= low ? ICR_RXDMT0 : 0));
    device_settle(&s->pci.dev);
    return true;
}

void e1000_rx_changed(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    net_resume(e1000_of(dev)->net);
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
    e1000_raise(s, cause);
    device_settle(&s->pci.dev);
}

static void tx_again(void *owner)
{
    transmit(owner);
}

void e1000_tx_changed(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    transmit(e1000_of(dev));
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

void e1000_reset(struct device *dev)
{
    struct e1000 *s = e1000_of(dev);
    timer_disarm(&s->tx_again);
    reset_macs(s);
    phy_reset(s);
    s->icr = 0;
}

/* CTRL.RST: the MAC's registers as after power-on; PHY and PCI registers stay. */
void e1000_ctrl_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct e1000 *s = e1000_of(dev);
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

static const struct reg regs[] = {E1000_ROWS};

static const struct prop props[] = {E1000_PROPS};

static const struct pci_ident ident = {
    .vendor = 0x8086, .device = 0x100e, .subsystem_vendor = 0x1af4, .subsystem = 0x1100,
    .revision = 3, .class = 0x020000, .irq_pin = 1, .romfile = "efi-e1000.rom",
};

static const uint16_t nvm[][2] = {
    {0x05, 0xffff}, {0x08, 0x3000}, {0x09, 0x1000}, {0x0a, 0x6403}, {0x0b, 0x100e},
    {0x0c, 0x8086}, {0x0d, 0x100e}, {0x0e, 0x8086}, {0x0f, 0x3040}, {0x10, 0x0008},
    {0x11, 0x2000}, {0x12, 0x7e14}, {0x13, 0x0048}, {0x14, 0x1000}, {0x15, 0x00d8},
    {0x24, 0x4d01},
};

static const struct e1000_kind kind = {
    .name = "e1000",
    .phy_id = 0x0c20,
    .causes = 0x1ffff,
    .eerd_shift = 8,
    .eerd_done = 1u << 4,
    .eecd = EECD_PRESENT | EECD_GNT,
    .nvm = nvm,
    .n_nvm = G_N_ELEMENTS(nvm),
    .mmio_bar = 0,
    .io_bar = 1,
};

bool e1000_start(struct e1000 *s, const struct e1000_kind *of, GError **error)
{
    s->kind = of;
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
    s->mmio = (struct region){.name = of->name, .size = MMIO_BYTES, .ops = &mmio_ops, .owner = s};
    s->io = (struct region){.name = of->name, .size = IO_BYTES, .ops = &io_ops, .owner = s};
    pci_set_bar(&s->pci, of->mmio_bar, &s->mmio, false, false, false);
    pci_set_bar(&s->pci, of->io_bar, &s->io, true, false, false);
    return true;
}

static bool start(struct device *dev, GError **error)
{
    return e1000_start(e1000_of(dev), &kind, error);
}

void e1000_stop(struct device *dev)
{
    struct e1000 *s = e1000_of(dev);
    nic_unplug(s->net);
    timer_disarm(&s->wake);
    timer_disarm(&s->tx_again);
    pci_detach(&s->pci);
}

/* What was queued goes on once the machine runs. */
bool e1000_loaded(struct device *dev, GError **error)
{
    struct e1000 *s = e1000_of(dev);
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
    .stop = e1000_stop,
    .settle = settle,
    .reset = e1000_reset,
    .loaded = e1000_loaded,
};
