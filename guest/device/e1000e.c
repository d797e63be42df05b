/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * e1000e: Intel 82574L Gigabit Ethernet controller, the 82540EM's successor on PCI Express.
 *
 * Spec: Intel, "82574 GbE Controller Family Datasheet" (317694), "Interrupts", "Extended Rx
 * Descriptor", "Packet Split Receive Descriptor", "Driver Programing Interface".
 * Not modelled: the second pair of queues and what spreads frames over them (RSS), the flash
 * window, management, wake-up.
 */
#include "guest/device/e1000.h"

#include "base/bytes.h"
#include "base/util.h"

enum { VECTORS = 5, CTRL_EXT_IAME = 1 << 27, RFCTL_EXTENDED = 1 << 15, RCTL_SPLIT = 1 << 10 };
enum { RXQ0 = 1 << 20, RXQ1 = 1 << 21, TXQ0 = 1 << 22, TXQ1 = 1 << 23, OTHER = 1 << 24 };
enum { IVAR_VALID = 8, SPLIT_DESC = 32, SPLIT_BUFFERS = 4, SYSTIM_UNIT = 40 /* ns */ };
enum { CFG_DONE = 1 << 18 };

struct e1000e {
    struct e1000 base; /* first */

    /* State. */
    uint32_t eiac, iam, ivar, eitr[VECTORS], extcnf, rfctl, mrqc, psrctl, swsm, gcr, timinca,
        tsyncrx, tsynctx, pbs, tarc;
    uint32_t told;        /* causes for which the message went out */
    uint64_t systim_base; /* SYSTIM at .systim_at */
    int64_t systim_at;
    struct timer gate[VECTORS]; /* armed: no new message of the vector before */
};

static struct e1000e *self(struct device *dev)
{
    return container_of(dev, struct e1000e, base.pci.dev);
}

/* ---- interrupts ---- */

/* Where IVAR has the vector of each cause. */
static const struct {
    uint32_t cause;
    uint8_t shift;
} allocations[] = {{RXQ0, 0}, {RXQ1, 4}, {TXQ0, 8}, {TXQ1, 12}, {OTHER, 16}};

static bool msix_enabled(const struct e1000 *s)
{
    return s->pci.msix_cap && (s->pci.config[s->pci.msix_cap + 3] & 0x80);
}

/* A vector that has been sent rests as long as its EITR says. */
static bool gate_open(struct e1000e *e, unsigned vector, uint32_t interval)
{
    if (timer_armed(&e->gate[vector])) {
        return false;
    }
    if (interval & 0xffff) {
        timer_arm(&e->gate[vector], clock_now() + (int64_t)(interval & 0xffff) * 256);
    }
    return true;
}

static void settle_msix(struct e1000e *e, uint32_t fresh)
{
    struct e1000 *s = &e->base;
    for (unsigned i = 0; i < G_N_ELEMENTS(allocations); i++) {
        uint32_t cause = allocations[i].cause, entry = e->ivar >> allocations[i].shift;
        unsigned vector = entry & 7;
        if (!(fresh & cause) || !(entry & IVAR_VALID) || vector >= VECTORS ||
            !gate_open(e, vector, e->eitr[vector])) {
            continue;
        }
        uint32_t automatic = e->eiac & cause;
        e->told |= cause;
        s->icr &= ~automatic;
        if (!(s->ctrl_ext & CTRL_EXT_IAME)) {
            s->ims &= ~automatic;
        }
        e->told &= s->icr & s->ims;
        pci_msi(&s->pci, vector);
    }
}

static void settle(struct device *dev)
{
    struct e1000e *e = self(dev);
    struct e1000 *s = &e->base;
    if (!pci_msi_enabled(&s->pci)) {
        e1000_line(s);
        return;
    }
    uint32_t pending = s->icr & s->ims, fresh;
    e->told &= pending;
    fresh = pending & ~e->told;
    pci_irq(&s->pci, false);
    if (msix_enabled(s)) {
        settle_msix(e, fresh);
    } else if (fresh && gate_open(e, 0, s->itr)) {
        e->told |= fresh;
        pci_msi(&s->pci, 0);
    }
}

static void gate_over(void *owner)
{
    device_settle(owner);
}

static void after_icr_read(struct e1000 *s)
{
    bool automatic = (s->icr & s->ims) && (s->ctrl_ext & CTRL_EXT_IAME);
    if (!msix_enabled(s) || !s->ims || automatic) {
        s->icr = 0;
    }
    if (automatic) {
        s->ims &= ~self(&s->pci.dev)->iam;
    }
}

/* ---- receive ---- */

static bool splits(const struct e1000 *s)
{
    return s->rctl & RCTL_SPLIT;
}

static uint32_t split_bytes(const struct e1000e *e, unsigned i)
{
    return i ? (e->psrctl >> i * 8 & 0x3f) * 1024 : (e->psrctl & 0x7f) * 128;
}

static void rx_shape(const struct e1000 *s, uint32_t *descriptor, uint32_t *room)
{
    const struct e1000e *e = self((struct device *)(uintptr_t)&s->pci.dev);
    if (splits(s)) {
        *descriptor = SPLIT_DESC;
        *room = 0;
        for (unsigned i = 0; i < SPLIT_BUFFERS; i++) {
            *room += split_bytes(e, i);
        }
    }
}

/* One descriptor with four buffers, filled in their order; no header is taken apart. */
static void put_split(struct e1000 *s, uint64_t at, const struct e1000_part *part)
{
    uint8_t in[SPLIT_DESC] = {0}, out[SPLIT_DESC] = {0};
    size_t done = 0;
    pci_dma_read(&s->pci, at, in, sizeof(in));
    for (unsigned i = 0; i < SPLIT_BUFFERS; i++) {
        size_t n = MIN(part->shown - done, split_bytes(self(&s->pci.dev), i));
        size_t real = done < part->real ? MIN(n, part->real - done) : 0;
        if (real) {
            pci_dma_write(&s->pci, le64_at(in + i * 8), part->from + done, real);
        }
        le16_put(out + (i ? 16 + i * 2 : 12), (uint16_t)n);
        done += n;
    }
    le32_put(out + 8, part->status);
    le16_put(out + 14, part->special);
    pci_dma_write(&s->pci, at, out, sizeof(out));
}

static void put_extended(struct e1000 *s, uint64_t at, const struct e1000_part *part)
{
    uint8_t d[16] = {0};
    pci_dma_read(&s->pci, at, d, sizeof(d));
    if (part->real && le64_at(d)) {
        pci_dma_write(&s->pci, le64_at(d), part->from, part->real);
    }
    memset(d, 0, sizeof(d));
    le32_put(d + 8, part->status);
    le16_put(d + 12, (uint16_t)part->shown);
    le16_put(d + 14, part->special);
    pci_dma_write(&s->pci, at, d, sizeof(d));
}

static void rx_put(struct e1000 *s, uint64_t at, const struct e1000_part *part)
{
    bool extended = self(&s->pci.dev)->rfctl & RFCTL_EXTENDED;
    (splits(s) ? put_split : extended ? put_extended : e1000_rx_put)(s, at, part);
}

/* ---- the clock of IEEE 1588 ---- */

static uint64_t systim(const struct e1000e *e)
{
    uint64_t period = e->timinca >> 24, step = e->timinca & 0xffffff;
    uint64_t ticks = (uint64_t)MAX(clock_now() - e->systim_at, 0) / SYSTIM_UNIT;
    return e->systim_base + (period ? ticks / period * step : 0);
}

static void systim_set(struct e1000e *e, uint64_t now)
{
    e->systim_base = now;
    e->systim_at = clock_now();
}

static uint64_t systim_low(struct device *dev, uint64_t unused)
{
    (void)unused;
    return (uint32_t)systim(self(dev));
}

static uint64_t systim_high(struct device *dev, uint64_t unused)
{
    (void)unused;
    return systim(self(dev)) >> 32;
}

static void systim_low_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    systim_set(self(dev), (systim(self(dev)) & ~UINT64_C(0xffffffff)) | (uint32_t)now);
}

static void systim_high_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    systim_set(self(dev), (uint32_t)systim(self(dev)) | now << 32);
}

static void timinca_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct e1000e *e = self(dev);
    e->timinca = (uint32_t)old;
    systim_set(e, systim(e));
    e->timinca = (uint32_t)now;
}

static uint64_t cfg_done(struct device *dev, uint64_t unused)
{
    (void)dev, (void)unused;
    return CFG_DONE;
}

/* ---- table ---- */

#define R(field, at, ...)                                                                          \
    REG(struct e1000e, field, .port = at, .dir = REG_RW, .writable = E1000_ALL, __VA_ARGS__)
static const struct reg regs[] = {
    E1000_ROWS,
    R(eiac, 0x00dc),
    R(iam, 0x00e0),
    R(ivar, 0x00e4),
    R(eitr[0], 0x00e8),
    R(eitr[1], 0x00ec),
    R(eitr[2], 0x00f0),
    R(eitr[3], 0x00f4),
    R(eitr[4], 0x00f8),
    R(extcnf, 0x0f00),
    R(pbs, 0x1008),
    E1000_C("eemngctl", 0x1010, .dir = REG_R, .on_read = cfg_done),
    R(psrctl, 0x2170, .reset = 0x00040402),
    R(tarc, 0x3840),
    R(rfctl, 0x5008),
    R(mrqc, 0x5818),
    R(gcr, 0x5b00),
    R(swsm, 0x5b50),
    E1000_C("systiml", 0xb600, .dir = REG_R, .on_read = systim_low),
    E1000_C("systimh", 0xb604, .dir = REG_R, .on_read = systim_high),
    E1000_C("systiml_set", 0xb600, .dir = REG_W, .on_write = systim_low_write),
    E1000_C("systimh_set", 0xb604, .dir = REG_W, .on_write = systim_high_write),
    R(timinca, 0xb608, .on_write = timinca_write),
    R(tsynctx, 0xb614),
    R(tsyncrx, 0xb620),
    STATE(struct e1000e, told),
    STATE(struct e1000e, systim_base),
    STATE(struct e1000e, systim_at),
    STATE_TIMER(struct e1000e, gate, .count = VECTORS),
};

static const struct prop props[] = {E1000_PROPS};

static const struct pci_ident ident = {
    .vendor = 0x8086,
    .device = 0x10d3,
    .subsystem_vendor = 0x8086,
    .class = 0x020000,
    .irq_pin = 1,
    .msi = 1,
    .msix = VECTORS,
    .msix_bar = 3,
    .express = true,
    .romfile = "efi-e1000e.rom",
};

static const uint16_t nvm[][2] = {
    {0x03, 0x0420}, {0x05, 0xffff}, {0x08, 0xffff}, {0x09, 0xffff}, {0x0a, 0x026b},
    {0x0c, 0x8086}, {0x0d, 0x10d3}, {0x0e, 0x8086}, {0x10, 0x0008}, {0x14, 0x1000},
};

static const struct e1000_kind kind = {
    .name = "e1000e",
    .phy_id = 0x0cb1,
    .causes = 0x01f7ffff,
    .rx_cause = RXQ0,
    .tx_cause = TXQ0,
    .other_cause = OTHER,
    .eerd_shift = 2,
    .eerd_done = 1u << 1,
    .eecd = EECD_PRESENT | EECD_GNT | EECD_LOADED,
    .nvm = nvm,
    .n_nvm = G_N_ELEMENTS(nvm),
    .mmio_bar = 0,
    .io_bar = 2,
    .rx_shape = rx_shape,
    .rx_put = rx_put,
    .icr_read = after_icr_read,
};

static bool start(struct device *dev, GError **error)
{
    struct e1000e *e = self(dev);
    for (unsigned i = 0; i < VECTORS; i++) {
        e->gate[i] = (struct timer){.fire = gate_over, .owner = e};
    }
    return e1000_start(&e->base, &kind, error);
}

const struct device_model model_e1000e = {
    .name = "e1000e",
    .about = "Intel 82574L gigabit network card",
    .spec = "Intel 317694, \"Driver Programing Interface\"",
    .size = sizeof(struct e1000e),
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
