/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * piix3: PCI-to-ISA bridge of the machine "pc": steers PCI interrupts.
 *
 * Spec: Intel 82371FB (PIIX) and 82371SB (PIIX3) data sheet, order number 290550, "PCI to ISA
 * Bridge Configuration Registers".
 * Not modelled: positive decode and timing registers (kept as storage), MBIRQ, USB.
 */
#include "guest/device/pci.h"
#include "guest/device/pirq.h"

#include "base/bytes.h"

struct piix3 {
    struct pci_device pci;
    struct pirq pirq;
};

enum { ROUTE_AT = 0x60, LINES = 4 };

static struct piix3 *self(struct device *dev)
{
    return (struct piix3 *)dev;
}

static void settle(struct device *dev)
{
    struct piix3 *s = self(dev);
    pirq_settle(&s->pirq, s->pci.config + ROUTE_AT, LINES);
}

/* Slot 1 is the bridge itself: there INTA# is PIRQA#. */
static void set_irq(struct pci_bus *bus, unsigned devfn, unsigned pin, bool level)
{
    struct piix3 *s = bus->owner;
    pirq_hold(&s->pirq, (pin + (devfn >> 3) - 1) & 3, level);
    settle(&s->pci.dev);
}

static void config_written(struct pci_device *pci, unsigned at, unsigned bytes)
{
    if (at < ROUTE_AT + LINES && at + bytes > ROUTE_AT) {
        settle(&pci->dev);
    }
}

static void reset(struct device *dev)
{
    struct piix3 *s = self(dev);
    uint8_t *c = s->pci.config;
    le16_put(c + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    le16_put(c + PCI_STATUS, 0x0200); /* medium DEVSEL# */
    memset(c + ROUTE_AT, PIRQ_OFF, LINES);
    c[0x4c] = 0x4d; /* ISA recovery timer */
    c[0x4e] = 0x03; /* X-bus chip select */
    c[0x69] = 0x02; /* top of memory */
    c[0x70] = 0x80;
    c[0x76] = c[0x77] = 0x0c;
    c[0x82] = 0x02;
    settle(dev);
}

static bool start(struct device *dev, GError **error)
{
    struct piix3 *s = self(dev);
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    memset(s->pci.writable + 0x4c, 0xff, 0x100 - 0x4c);
    memset(s->pci.writable + ROUTE_AT, 0x8f, LINES);
    s->pci.bus->set_irq = set_irq;
    s->pci.bus->owner = s;
    return true;
}

static const struct pci_ident ident = {
    .vendor = 0x8086,
    .device = 0x7000,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .class = 0x060100,
    .multifunction = true,
    .config_written = config_written,
};

static const struct reg regs[] = {PCI_STATE(struct piix3, pci)};
static const struct prop props[] = {PCI_PROPS(struct piix3, pci)};
static const struct wire wires[] = {PIRQ_WIRES(struct piix3, pirq)};

const struct device_model model_piix3 = {
    .name = "PIIX3",
    .about = "PCI-to-ISA bridge of the machine pc",
    .spec = "Intel 82371SB (PIIX3) data sheet, \"PCI to ISA Bridge Configuration Registers\"",
    .size = sizeof(struct piix3),
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
    .settle = settle,
    .reset = reset,
};
