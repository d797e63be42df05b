/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ich9_lpc: LPC bridge of the machine "q35": interrupt steering, ACPI, SMI, chipset
 * configuration registers.
 *
 * Spec: Intel I/O Controller Hub 9 (ICH9) Family data sheet, order number 316972, "LPC
 * Interface Bridge Registers (D31:F0)", "Chipset Configuration Registers", "Power Management
 * I/O Registers".
 * Not modelled: TCO watchdog (its registers are storage), GPIO, LPC decode ranges, SPI.
 */
#include "base/bytes.h"
#include "guest/device/acpi_pm.h"
#include "guest/device/pci.h"
#include "guest/device/pirq.h"

struct ich9_lpc {
    struct pci_device pci;
    struct acpi_pm pm;
    struct pirq pirq;
    struct irq *gsi[PIRQ_MAX]; /* inputs 16 to 23 of the I/O APIC */
    uint8_t rcba[0x4000];
    uint32_t smi_en, smi_sts;
    uint8_t apm_control, apm_status, tco[32];
    bool prop_smm;
    struct device_window smi, tco_window;
    struct region apm, rcba_region;
    struct placing *apm_at, *fixed_at, *gpe_at, *smi_at, *tco_at, *rcba_at;
};

enum {
    PMBASE_AT = 0x40,
    ACPI_CNTL_AT = 0x44,
    ROUTE_AD = 0x60,
    ROUTE_EH = 0x68,
    RCBA_AT = 0xf0,
    GEN_PMCON1_AT = 0xa0
};
enum { ACPI_ON = 0x80, GPE_AT = 0x20, SMI_AT = 0x30, TCO_AT = 0x60, GPE_LENGTH = 8 };
enum { SMI_GLOBAL = 1 << 0, SMI_APM = 1 << 5, SMI_STS_APM = 1 << 5 };
enum { ACPI_ENABLE = 2, ACPI_DISABLE = 3 };
enum { RCBA_GCS = 0x3410, RCBA_OIC = 0x31ff };

/* Where the chipset configuration registers say how a slot's pins are wired to lines. */
static const uint16_t pin_routes[] = {
    [25] = 0x3150, [26] = 0x314c, [27] = 0x3148, [28] = 0x3146, [29] = 0x3144, [31] = 0x3140,
};

static struct ich9_lpc *self(struct device *dev)
{
    return (struct ich9_lpc *)dev;
}

/* ---- interrupts ---- */

/* Slots of the root bus: 25 to 31 by register, the others and the bridge at 30 turn E to H. */
static unsigned line_of(const struct ich9_lpc *s, unsigned slot, unsigned pin)
{
    if (slot < G_N_ELEMENTS(pin_routes) && pin_routes[slot]) {
        return le16_at(s->rcba + pin_routes[slot]) >> pin * 4 & 7;
    }
    return slot == 30 ? 4 + pin : 4 + ((slot + pin) & 3);
}

static void route(const struct ich9_lpc *s, uint8_t out[PIRQ_MAX])
{
    memcpy(out, s->pci.config + ROUTE_AD, 4);
    memcpy(out + 4, s->pci.config + ROUTE_EH, 4);
}

static void settle(struct device *dev)
{
    struct ich9_lpc *s = self(dev);
    uint8_t routes[PIRQ_MAX];
    route(s, routes);
    pirq_settle(&s->pirq, routes, PIRQ_MAX);
    for (unsigned i = 0; i < PIRQ_MAX; i++) {
        irq_set(s->gsi[i], s->pirq.held[i]);
    }
    acpi_pm_settle(&s->pm);
}

static void set_irq(struct pci_bus *bus, unsigned devfn, unsigned pin, bool level)
{
    struct ich9_lpc *s = bus->owner;
    pirq_hold(&s->pirq, line_of(s, devfn >> 3, pin), level);
    settle(&s->pci.dev);
}

/* ---- power management ---- */

static void place(struct placing *p, uint64_t at, bool on)
{
    space_move(p, at);
    space_show(p, on);
}

static void decode(struct ich9_lpc *s)
{
    const uint8_t *c = s->pci.config;
    uint64_t pm = le32_at(c + PMBASE_AT) & 0xff80;
    bool on = (c[ACPI_CNTL_AT] & ACPI_ON) && pm;
    uint32_t rcba = le32_at(c + RCBA_AT);
    if (!s->fixed_at) {
        return;
    }
    place(s->fixed_at, pm, on);
    place(s->gpe_at, pm + GPE_AT, on);
    place(s->smi_at, pm + SMI_AT, on);
    place(s->tco_at, pm + TCO_AT, on);
    place(s->rcba_at, rcba & ~UINT32_C(0x3fff), rcba & 1);
}

static void config_written(struct pci_device *pci, unsigned at, unsigned bytes)
{
    (void)at, (void)bytes;
    decode(self(&pci->dev));
    settle(&pci->dev);
}

static uint64_t apm_read(void *owner, uint64_t at, unsigned bytes)
{
    const struct ich9_lpc *s = owner;
    (void)bytes;
    return at ? s->apm_status : s->apm_control;
}

static void apm_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct ich9_lpc *s = owner;
    struct board *board = s->pci.dev.board;
    (void)bytes;
    if (at) {
        s->apm_status = (uint8_t)value;
        return;
    }
    s->apm_control = (uint8_t)value;
    if (value == ACPI_ENABLE || value == ACPI_DISABLE) {
        acpi_pm_enable(&s->pm, value == ACPI_ENABLE);
    }
    if ((s->smi_en & SMI_APM) && (s->smi_en & SMI_GLOBAL) && s->prop_smm && board->smi) {
        s->smi_sts |= SMI_STS_APM;
        board->smi(board);
    }
}

static const struct region_ops apm_ops = {.read = apm_read, .write = apm_write, .max_bytes = 1};

/* ---- chipset configuration registers ---- */

static uint64_t rcba_read(void *owner, uint64_t at, unsigned bytes)
{
    const struct ich9_lpc *s = owner;
    uint64_t v = 0;
    memcpy(&v, s->rcba + at, bytes);
    return v;
}

/* Changing a route while a line is held would leave it held: such writes wait for none. */
static void rcba_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct ich9_lpc *s = owner;
    if (at >= 0x3140 && at < 0x3152) {
        for (unsigned i = 0; i < PIRQ_MAX; i++) {
            if (s->pirq.held[i]) {
                return;
            }
        }
    }
    memcpy(s->rcba + at, &value, bytes);
}

static const struct region_ops rcba_ops = {.read = rcba_read, .write = rcba_write, .max_bytes = 4};

/* ---- life ---- */

static void reset(struct device *dev)
{
    struct ich9_lpc *s = self(dev);
    uint8_t *c = s->pci.config;
    le16_put(c + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    le16_put(c + PCI_STATUS, 0x0200);
    memset(c + 0x40, 0, 0xc0);
    c[PMBASE_AT] = 1;
    memset(c + ROUTE_AD, PIRQ_OFF, 4);
    memset(c + ROUTE_EH, PIRQ_OFF, 4);
    memset(s->rcba, 0, sizeof(s->rcba));
    for (unsigned slot = 0; slot < G_N_ELEMENTS(pin_routes); slot++) {
        if (pin_routes[slot]) {
            le16_put(s->rcba + pin_routes[slot], 0x3210);
        }
    }
    le32_put(s->rcba + RCBA_GCS, 1 << 5);
    /* Firmware takes SMM for set up if it finds APM SMIs enabled: so it is without SMM. */
    s->smi_en = s->prop_smm ? 0 : SMI_APM;
    acpi_pm_reset(&s->pm);
    decode(s);
}

static bool loaded(struct device *dev, GError **error)
{
    (void)error;
    decode(self(dev));
    return true;
}

static struct placing *hidden(struct space *space, struct region *r)
{
    struct placing *p = space_place(space, r, 0, 1);
    space_show(p, false);
    return p;
}

static void make_windows(struct ich9_lpc *s, struct device *dev)
{
    struct space *ports = dev->board->ports;
    s->apm = (struct region){.name = "apm", .size = 2, .ops = &apm_ops, .owner = s};
    s->rcba_region =
        (struct region){.name = "rcba", .size = sizeof(s->rcba), .ops = &rcba_ops, .owner = s};
    device_window_init(&s->smi, dev, 1, "smi", 8);
    device_window_init(&s->tco_window, dev, 2, "tco", sizeof(s->tco));
    s->apm_at = space_place(ports, &s->apm, 0xb2, 1);
    s->fixed_at = hidden(ports, &s->pm.fixed);
    s->gpe_at = hidden(ports, &s->pm.gpe);
    s->smi_at = hidden(ports, &s->smi.region);
    s->tco_at = hidden(ports, &s->tco_window.region);
    s->rcba_at = hidden(dev->board->memory, &s->rcba_region);
}

static bool start(struct device *dev, GError **error)
{
    struct ich9_lpc *s = self(dev);
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    memset(s->pci.writable + 0x40, 0xff, 0xc0);
    le32_put(s->pci.writable + PMBASE_AT, 0xff80);
    le32_put(s->pci.writable + RCBA_AT, 0xffffc001);
    memset(s->pci.writable + ROUTE_AD, 0x8f, 4);
    memset(s->pci.writable + ROUTE_EH, 0x8f, 4);
    acpi_pm_init(&s->pm, dev, GPE_LENGTH);
    make_windows(s, dev);
    s->pci.bus->set_irq = set_irq;
    s->pci.bus->owner = s;
    return true;
}

static void stop(struct device *dev)
{
    struct ich9_lpc *s = self(dev);
    acpi_pm_stop(&s->pm);
    space_remove(s->apm_at);
    space_remove(s->fixed_at);
    space_remove(s->gpe_at);
    space_remove(s->smi_at);
    space_remove(s->tco_at);
    space_remove(s->rcba_at);
}

static const struct pci_ident ident = {
    .vendor = 0x8086,
    .device = 0x2918,
    .revision = 2,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .class = 0x060100,
    .multifunction = true,
    .config_written = config_written,
};

static const struct reg regs[] = {
    PCI_STATE(struct ich9_lpc, pci),
    ACPI_PM_STATE(struct ich9_lpc, pm),
    STATE_ARRAY(struct ich9_lpc, rcba, .help = "chipset configuration registers"),
    REG(struct ich9_lpc, smi_en, .window = 1, .port = 0, .dir = REG_RW, .writable = 0xffffffff,
        .help = "SMI_EN"),
    REG(struct ich9_lpc, smi_sts, .window = 1, .port = 4, .dir = REG_RW, .w1c = 0xffffffff,
        .help = "SMI_STS"),
    STATE(struct ich9_lpc, apm_control, .help = "APM_CNT, port 0xb2"),
    STATE(struct ich9_lpc, apm_status, .help = "APM_STS, port 0xb3"),
    STATE_ARRAY(struct ich9_lpc, tco, .help = "TCO registers: read as zero"),
};
static const struct prop props[] = {
    PCI_PROPS(struct ich9_lpc, pci),
    ACPI_PM_PROPS(struct ich9_lpc, pm),
    {"smm", PROP_BOOL, offsetof(struct ich9_lpc, prop_smm), 1, .help = "SMIs are delivered"},
};
#define GSI_WIRE(n)                                                                                \
    {                                                                                              \
        "gsi" #n, WIRE_IRQ, offsetof(struct ich9_lpc, gsi[n])                                      \
    }
static const struct wire wires[] = {
    PIRQ_WIRES(struct ich9_lpc, pirq),
    GSI_WIRE(0),
    GSI_WIRE(1),
    GSI_WIRE(2),
    GSI_WIRE(3),
    GSI_WIRE(4),
    GSI_WIRE(5),
    GSI_WIRE(6),
    GSI_WIRE(7),
    {"sci", WIRE_IRQ, offsetof(struct ich9_lpc, pm.sci)},
};

const struct device_model model_ich9_lpc = {
    .name = "ICH9-LPC",
    .about = "LPC bridge of the machine q35",
    .spec = "Intel ICH9 Family data sheet, \"LPC Interface Bridge Registers (D31:F0)\"",
    .size = sizeof(struct ich9_lpc),
    .version = 1,
    .bus = BUS_PCI,
    .soldered = true,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .wires = wires,
    .nwires = G_N_ELEMENTS(wires),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = stop,
    .settle = settle,
    .reset = reset,
    .loaded = loaded,
};
