/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pcie_port: a port with one slot behind it, of the root complex or of a switch.
 *
 * Spec: PCI Express Base Specification 3.0, "PCI Express Capability Structure", "Type 1
 * Configuration Space Header".
 * Hot-plug is native: presence and the attention button are events of the slot; the guest
 * switches the slot's power off when it has let a card go.
 * Not modelled: power management events, error reporting (no AER).
 */
#include "guest/device/pcie_port.h"

#include "base/bytes.h"

/* Of the capability: registers, and bits there. */
enum { LINK_STATUS = 18, SLOT_CAPABILITIES = 20, SLOT_CONTROL = 24, SLOT_STATUS = 26 };
enum { LINK_ACTIVE = 1 << 13 };
enum {
    CAP_BUTTON = 1 << 0,
    CAP_POWER = 1 << 1,
    CAP_ATTENTION_LED = 1 << 3,
    CAP_POWER_LED = 1 << 4,
    CAP_SURPRISE = 1 << 5,
    CAP_HOT_PLUG = 1 << 6,
    CAP_NO_COMPLETION = 1 << 18,
    CAP_NUMBER_SHIFT = 19,
};
enum {
    CTL_INTERRUPT = 1 << 5,
    CTL_LEDS_OFF = 3 << 6 | 3 << 8,
    CTL_POWER_LED = 3 << 8,
    CTL_POWER_LED_ON = 1 << 8,
    CTL_POWER_OFF = 1 << 10,
    CTL_LINK = 1 << 12,
};
enum { STS_BUTTON = 1 << 0, STS_PRESENCE = 1 << 3, STS_PRESENT = 1 << 6, STS_LINK = 1 << 8 };

static struct pcie_port *self(struct device *dev)
{
    return (struct pcie_port *)dev;
}

static uint8_t *express(struct pcie_port *s)
{
    return s->pci.config + s->pci.express_cap;
}

static bool occupied(const struct pcie_port *s)
{
    for (unsigned i = 0; i < 8; i++) {
        if (s->below.function[i] && !s->below.function[i]->ejected) {
            return true;
        }
    }
    return false;
}

/* The low bits of control enable the events of the same bits of status. */
void pcie_port_settle(struct device *dev)
{
    struct pcie_port *s = self(dev);
    if (!s->pci.express_cap) {
        return;
    }
    uint16_t control = le16_at(express(s) + SLOT_CONTROL),
             status = le16_at(express(s) + SLOT_STATUS);
    bool event = (status & control & 0x0f) || ((status & STS_LINK) && (control & CTL_LINK));
    bool asks = event && (control & CTL_INTERRUPT);
    if (!pci_msi_enabled(&s->pci)) {
        pci_irq(&s->pci, asks);
    } else if (asks && !s->asked) {
        pci_msi(&s->pci, 0);
    }
    s->asked = asks;
}

static void show_card(struct pcie_port *s, uint16_t events)
{
    uint8_t *c = express(s);
    uint16_t status = le16_at(c + SLOT_STATUS) & (uint16_t)~STS_PRESENT;
    uint16_t link = le16_at(c + LINK_STATUS) & (uint16_t)~LINK_ACTIVE;
    bool there = occupied(s);
    le16_put(c + SLOT_STATUS, status | events | (there ? STS_PRESENT : 0));
    le16_put(c + LINK_STATUS, link | (there ? LINK_ACTIVE : 0));
    s->asked = s->asked && !events; /* each event is told, seen or not the one before */
    pcie_port_settle(&s->pci.dev);
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

static void let_go(struct pcie_port *s)
{
    for (unsigned i = 0; i < 8; i++) {
        if (s->below.function[i]) {
            pci_eject(s->below.function[i]);
        }
    }
    show_card(s, STS_PRESENCE | STS_LINK);
}

void pcie_port_config_written(struct pci_device *pci, unsigned at, unsigned bytes)
{
    struct pcie_port *s = self(&pci->dev);
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
    pcie_port_settle(&pci->dev);
}

void pcie_port_reset(struct device *dev)
{
    struct pcie_port *s = self(dev);
    if (s->pci.express_cap) {
        bool there = occupied(s);
        le16_put(express(s) + SLOT_CONTROL, there
                                                ? (CTL_LEDS_OFF & ~CTL_POWER_LED) | CTL_POWER_LED_ON
                                                : CTL_LEDS_OFF | CTL_POWER_OFF);
        le16_put(express(s) + SLOT_STATUS, 0);
        show_card(s, 0);
    }
}

static bool good_place(const struct pcie_port *s, bool root, GError **error)
{
    const struct pci_bus *bus = s->pci.bus;
    if (bus->express && (!root || !bus->bridge)) {
        return true;
    }
    g_set_error(error, LODGE_ERROR, EINVAL,
                root ? "bus %s is not an Express root bus: use -M q35"
                     : "bus %s is no Express bus: a switch is",
                bus->name);
    return false;
}

bool pcie_port_start(struct device *dev, enum pci_express_type type, GError **error)
{
    struct pcie_port *s = self(dev);
    if (!pci_attach(&s->pci, error) || !good_place(s, type == PCIE_ROOT_PORT, error)) {
        return false;
    }
    pci_add_express(&s->pci, type);
    uint32_t slot = s->prop_slot ? s->prop_slot : s->pci.devfn >> 3;
    le32_put(express(s) + SLOT_CAPABILITIES,
             CAP_BUTTON | CAP_POWER | CAP_ATTENTION_LED | CAP_POWER_LED | CAP_SURPRISE |
                 CAP_HOT_PLUG | CAP_NO_COMPLETION | (slot & 0x1fff) << CAP_NUMBER_SHIFT);
    pci_bus_init_below(&s->below, &s->pci, dev->id ? dev->id : dev->path);
    s->below.one_slot = true;
    s->below.hotplug = s;
    s->below.plugged = plugged;
    s->below.unplug = unplug;
    return pci_add_msi(&s->pci, 1, error);
}

void pcie_port_stop(struct device *dev)
{
    struct pcie_port *s = self(dev);
    pci_bus_remove(&s->below);
}
