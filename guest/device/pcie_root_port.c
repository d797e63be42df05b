/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pcie_root_port: a port of the root complex with one slot behind it.
 *
 * Spec: PCI Express Base Specification 3.0, "PCI Express Capability Structure", "Type 1
 * Configuration Space Header".
 * Hot-plug is native: presence and the attention button are events of the slot; the guest
 * switches the slot's power off when it has let a card go.
 * Not modelled: power management events, error reporting (no AER).
 */
#include "guest/device/pci.h"

#include "base/bytes.h"

/* Of the capability: registers, and bits there. */
enum { LINK_STATUS = 18, SLOT_CAPABILITIES = 20, SLOT_CONTROL = 24, SLOT_STATUS = 26 };
enum { LINK_ACTIVE = 1 << 13 };
enum {
    CAP_BUTTON = 1 << 0, CAP_POWER = 1 << 1, CAP_ATTENTION_LED = 1 << 3, CAP_POWER_LED = 1 << 4,
    CAP_SURPRISE = 1 << 5, CAP_HOT_PLUG = 1 << 6, CAP_NO_COMPLETION = 1 << 18,
    CAP_NUMBER_SHIFT = 19,
};
enum {
    CTL_INTERRUPT = 1 << 5, CTL_LEDS_OFF = 3 << 6 | 3 << 8, CTL_POWER_LED = 3 << 8,
    CTL_POWER_LED_ON = 1 << 8, CTL_POWER_OFF = 1 << 10, CTL_LINK = 1 << 12,
};
enum { STS_BUTTON = 1 << 0, STS_PRESENCE = 1 << 3, STS_PRESENT = 1 << 6, STS_LINK = 1 << 8 };

struct root_port {
    struct pci_device pci;
    struct pci_bus below;
    bool asked; /* an interrupt for the events that stand in the status was given */
    uint32_t prop_port, prop_chassis, prop_slot;
};

static struct root_port *self(struct device *dev)
{
    return (struct root_port *)dev;
}

static uint8_t *express(struct root_port *s)
{
    return s->pci.config + s->pci.express_cap;
}

static bool occupied(const struct root_port *s)
{
    for (unsigned i = 0; i < 8; i++) {
        if (s->below.function[i] && !s->below.function[i]->ejected) {
            return true;
        }
    }
    return false;
}

/* The low bits of control enable the events of the same bits of status. */
static void settle(struct device *dev)
{
    struct root_port *s = self(dev);
    if (!s->pci.express_cap) {
        return;
    }
    uint16_t control = le16_at(express(s) + SLOT_CONTROL), status = le16_at(express(s) + SLOT_STATUS);
    bool event = (status & control & 0x0f) || ((status & STS_LINK) && (control & CTL_LINK));
    bool asks = event && (control & CTL_INTERRUPT);
    if (!pci_msi_enabled(&s->pci)) {
        pci_irq(&s->pci, asks);
    } else if (asks && !s->asked) {
        pci_msi(&s->pci, 0);
    }
    s->asked = asks;
}

static void show_card(struct root_port *s, uint16_t events)
{
    uint8_t *c = express(s);
    uint16_t status = le16_at(c + SLOT_STATUS) & (uint16_t)~STS_PRESENT;
    uint16_t link = le16_at(c + LINK_STATUS) & (uint16_t)~LINK_ACTIVE;
    bool there = occupied(s);
    le16_put(c + SLOT_STATUS, status | events | (there ? STS_PRESENT : 0));
    le16_put(c + LINK_STATUS, link | (there ? LINK_ACTIVE : 0));
    s->asked = s->asked && !events; /* each event is told, seen or not the one before */
    settle(&s->pci.dev);
}

static void plugged(struct pci_bus *bus, struct pci_device *pci)
{
    (void)pci;
    show_card(bus->hotplug, STS_PRESENCE | STS_LINK);
}

/* Somebody presses the button; the guest lets go and switches off. */
static bool unplug(struct pci_bus *bus, struct pci_device *pci, GError **error)
{
    (void)pci, (void)error;
    show_card(bus->hotplug, STS_BUTTON);
    return true;
}

static void let_go(struct root_port *s)
{
    for (unsigned i = 0; i < 8; i++) {
        if (s->below.function[i]) {
            pci_eject(s->below.function[i]);
        }
    }
    show_card(s, STS_PRESENCE | STS_LINK);
}

static void config_written(struct pci_device *pci, unsigned at, unsigned bytes)
{
    struct root_port *s = self(&pci->dev);
    unsigned control_at = pci->express_cap + SLOT_CONTROL;
    if (!pci->express_cap) {
        return;
    }
    if (at < control_at + 2 && control_at < at + bytes) {
        uint16_t control = le16_at(express(s) + SLOT_CONTROL);
        bool off = (control & CTL_POWER_OFF) && (control & CTL_POWER_LED) == CTL_POWER_LED;
        if (off && occupied(s)) {
            let_go(s);
        }
    }
    settle(&pci->dev);
}

static void reset(struct device *dev)
{
    struct root_port *s = self(dev);
    if (s->pci.express_cap) {
        bool there = occupied(s);
        le16_put(express(s) + SLOT_CONTROL,
                 there ? (CTL_LEDS_OFF & ~CTL_POWER_LED) | CTL_POWER_LED_ON
                       : CTL_LEDS_OFF | CTL_POWER_OFF);
        le16_put(express(s) + SLOT_STATUS, 0);
        show_card(s, 0);
    }
}

static bool start(struct device *dev, GError **error)
{
    struct root_port *s = self(dev);
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    if (!s->pci.bus->express || s->pci.bus->bridge) {
        g_set_error(error, LODGE_ERROR, EINVAL, "bus %s is not an Express root bus: use -M q35",
                    s->pci.bus->name);
        return false;
    }
    pci_add_express(&s->pci, PCIE_ROOT_PORT);
    uint32_t slot = s->prop_slot ? s->prop_slot : s->pci.devfn >> 3;
    le32_put(express(s) + SLOT_CAPABILITIES,
             CAP_BUTTON | CAP_POWER | CAP_ATTENTION_LED | CAP_POWER_LED | CAP_SURPRISE |
                 CAP_HOT_PLUG | CAP_NO_COMPLETION | (slot & 0x1fff) << CAP_NUMBER_SHIFT);
    pci_bus_init_below(&s->below, &s->pci, dev->id ? dev->id : dev->path);
    s->below.hotplug = s;
    s->below.plugged = plugged;
    s->below.unplug = unplug;
    return pci_add_msi(&s->pci, 1, error);
}

static void free_one(struct pci_device *pci, void *unused)
{
    (void)unused;
    device_free(&pci->dev);
}

static void stop(struct device *dev)
{
    struct root_port *s = self(dev);
    pci_bus_each(&s->below, free_one, NULL);
    pci_bus_remove(&s->below);
}

static const struct pci_ident ident = {
    .vendor = 0x1b36,
    .device = 0x000c,
    .class = 0x060400,
    .irq_pin = 1,
    .config_written = config_written,
};

static const struct reg regs[] = {PCI_STATE(struct root_port, pci),
                                  STATE(struct root_port, asked)};
static const struct prop props[] = {
    PCI_PROPS(struct root_port, pci),
    {"port", PROP_U32, offsetof(struct root_port, prop_port), .help = "kept for old lines"},
    {"chassis", PROP_U32, offsetof(struct root_port, prop_chassis), .help = "kept for old lines"},
    {"slot", PROP_U32, offsetof(struct root_port, prop_slot), .help = "the slot's number"},
};

const struct device_model model_pcie_root_port = {
    .name = "pcie-root-port",
    .alias = "ioh3420",
    .about = "PCI Express root port with a slot",
    .spec = "PCI Express Base Specification 3.0, \"Type 1 Configuration Space Header\"",
    .size = sizeof(struct root_port),
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
};
