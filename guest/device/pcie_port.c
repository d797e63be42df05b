/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pcie_port: a port with one slot behind it, of the root complex or of a switch.
 *
 * Spec: PCI Express Base Specification 3.0, "PCI Express Capability Structure", "Type 1
 * Configuration Space Header".
 * What comes and goes is told by ACPI where the tables name the slot (acpi_pcihp.c).  A guest that
 * took the slot's interrupts, as it may where they do not, is told natively: presence and the
 * attention button are events of the slot; it switches the slot's power off when it has let a card
 * go.
 * Not modelled: power management events, error reporting (no AER).
 */
#include "guest/device/pcie_port.h"

#include "guest/device/acpi_pcihp.h"

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
    CTL_POWER_LED_BLINKS = 2 << 8,
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

static void show_presence(struct pcie_port *s)
{
    uint8_t *c = express(s);
    bool there = occupied(s);
    uint16_t status = le16_at(c + SLOT_STATUS) & (uint16_t)~STS_PRESENT;
    uint16_t link = le16_at(c + LINK_STATUS) & (uint16_t)~LINK_ACTIVE;
    le16_put(c + SLOT_STATUS, status | (there ? STS_PRESENT : 0));
    le16_put(c + LINK_STATUS, link | (there ? LINK_ACTIVE : 0));
}

/* The low bits of control enable the events of the same bits of status. */
void pcie_port_settle(struct device *dev)
{
    struct pcie_port *s = self(dev);
    if (!s->pci.express_cap) {
        return;
    }
    show_presence(s);
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

static void happens(struct pcie_port *s, uint16_t events)
{
    uint8_t *status = express(s) + SLOT_STATUS;
    le16_put(status, le16_at(status) | events);
    s->asked = false; /* each event is told, seen or not the one before */
    pcie_port_settle(&s->pci.dev);
}

/* Power and its light, as firmware leaves them for a card that is there, or for none. */
static void set_power(struct pcie_port *s)
{
    if (!s->prop_hotplug) { /* power is always on, and there is no light */
        pcie_port_settle(&s->pci.dev);
        return;
    }
    uint8_t *control = express(s) + SLOT_CONTROL;
    uint16_t others = le16_at(control) & (uint16_t) ~(CTL_LEDS_OFF | CTL_POWER_OFF);
    s->powered = occupied(s);
    le16_put(control, others | (s->powered ? (CTL_LEDS_OFF & ~CTL_POWER_LED) | CTL_POWER_LED_ON
                                           : CTL_LEDS_OFF | CTL_POWER_OFF));
    pcie_port_settle(&s->pci.dev);
}

/* Has a guest taken the slot's interrupts? */
static bool listens(struct pcie_port *s)
{
    return le16_at(express(s) + SLOT_CONTROL) & CTL_INTERRUPT;
}

static bool is_native(struct pcie_port *s)
{
    return listens(s) || !acpi_pcihp_names(&s->below);
}

static void plugged(struct pci_bus *bus, struct pci_device *pci)
{
    struct pcie_port *s = bus->hotplug;
    if (!listens(s)) {
        set_power(s); /* who looks later finds it as if it had been there from the start */
    }
    if (is_native(s)) {
        happens(s, STS_PRESENCE | STS_LINK);
    } else {
        acpi_pcihp_plugged(bus, pci);
    }
}

/* Natively somebody presses the button; the guest lets go and switches off. */
static bool unplug(struct pci_bus *bus, struct pci_device *pci, GError **error)
{
    struct pcie_port *s = bus->hotplug;
    if (acpi_pcihp_names(bus) && !acpi_pcihp_may_go(bus, pci, error)) {
        return false;
    }
    if (!is_native(s)) {
        acpi_pcihp_unplug(bus, pci);
        return true;
    }
    if ((le16_at(express(s) + SLOT_CONTROL) & CTL_POWER_LED) == CTL_POWER_LED_BLINKS) {
        g_set_error(error, LODGE_ERROR, EBUSY, /* to press again would take it back */
                    "Hot-unplug failed: guest is busy (power indicator blinking)");
        return false;
    }
    s->leaving = true;
    happens(s, STS_BUTTON);
    return true;
}

static void let_go(struct pcie_port *s)
{
    s->leaving = false;
    for (unsigned i = 0; i < 8; i++) {
        if (s->below.function[i]) {
            pci_eject(s->below.function[i]);
        }
    }
}

static void reset_one(struct pci_device *pci, void *unused)
{
    (void)unused;
    device_reset(&pci->dev);
}

/* Who did not ask for a card gets none: a guest may switch one off and on again when it begins. */
static void power_off(struct pcie_port *s)
{
    if (s->leaving) {
        let_go(s);
        happens(s, STS_PRESENCE | STS_LINK);
    } else if (s->powered) {
        pci_bus_each(&s->below, reset_one, NULL);
    }
}

void pcie_port_config_written(struct pci_device *pci, unsigned at, unsigned bytes)
{
    struct pcie_port *s = self(&pci->dev);
    unsigned control_at = pci->express_cap + SLOT_CONTROL;
    if (!pci->express_cap || !s->prop_hotplug) {
        return;
    }
    if (at < control_at + 2 && control_at < at + bytes) {
        uint16_t control = le16_at(express(s) + SLOT_CONTROL);
        bool off = (control & CTL_POWER_OFF) && (control & CTL_POWER_LED) == CTL_POWER_LED;
        if (off && occupied(s)) {
            power_off(s);
        }
        s->powered = !off;
    }
    pcie_port_settle(&pci->dev);
}

void pcie_port_reset(struct device *dev)
{
    struct pcie_port *s = self(dev);
    if (s->pci.express_cap) {
        if (s->leaving) { /* a guest that starts anew needs no asking */
            let_go(s);
        }
        le16_put(express(s) + SLOT_STATUS, 0);
        le16_put(express(s) + SLOT_CONTROL, 0);
        set_power(s);
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
    uint32_t can = s->prop_hotplug ? CAP_BUTTON | CAP_POWER | CAP_ATTENTION_LED | CAP_POWER_LED |
                                         CAP_SURPRISE | CAP_HOT_PLUG
                                   : 0;
    le32_put(express(s) + SLOT_CAPABILITIES,
             can | CAP_NO_COMPLETION | (slot & 0x1fff) << CAP_NUMBER_SHIFT);
    pci_bus_init_below(&s->below, &s->pci, dev->id ? dev->id : dev->path);
    s->below.one_slot = true;
    if (s->prop_hotplug) {
        s->below.hotplug = s;
        s->below.plugged = plugged;
        s->below.unplug = unplug;
    }
    return pci_add_msi(&s->pci, 1, error);
}

void pcie_port_stop(struct device *dev)
{
    struct pcie_port *s = self(dev);
    pci_bus_remove(&s->below);
}
