/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * acpi_pcihp: slots of the machine pc's PCI bus that can be filled and emptied while the guest
 * runs, told to it by ACPI.
 *
 * Spec: QEMU, "QEMU<->ACPI BIOS PCI hotplug interface" (acpi_pci_hotplug), its registers;
 * ACPI Specification 6.3, "Device Object Notifications", "_EJx (Eject)".
 * The root bus and those behind bridges that were there from the start have slots; what is behind a
 * bridge that was plugged in stays as it is.
 */
#include "guest/device/acpi_pcihp.h"

#include "guest/device/acpi_pm.h"

enum { PORTS_AT = 0xae00, PORTS_BYTES = 0x14, GPE = 1 };
enum { CLASS_DISPLAY = 0x03, CLASS_BRIDGE = 0x06 };

struct acpi_pcihp {
    struct device dev;
    uint32_t up[ACPI_PCIHP_BUSES], down[ACPI_PCIHP_BUSES]; /* slots whose news the guest has not
                                                              heard yet */
    uint32_t select;
    struct pci_bus *bus[ACPI_PCIHP_BUSES];
    unsigned n;
    struct device_window window;
};

static struct acpi_pcihp *self(struct device *dev)
{
    return container_of(dev, struct acpi_pcihp, dev);
}

static bool removable(const struct pci_device *pci)
{
    uint8_t class = pci->config[PCI_CLASS + 1];
    return class != CLASS_DISPLAY && class != CLASS_BRIDGE && !pci->dev.model->soldered;
}

static uint32_t slots_of(const struct pci_bus *bus)
{
    uint32_t slots = UINT32_MAX;
    for (unsigned i = 0; bus && i < 256; i++) {
        const struct pci_device *pci = bus->function[i];
        if (pci && !removable(pci)) {
            slots &= ~(UINT32_C(1) << (i >> 3));
        }
    }
    return slots;
}

static int number_of(const struct acpi_pcihp *s, const struct pci_bus *bus)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (s->bus[i] == bus) {
            return (int)i;
        }
    }
    return -1;
}

static void tell(struct device *dev)
{
    struct acpi_pm *pm = acpi_pm_of(dev->board);
    if (pm) {
        acpi_pm_gpe(pm, GPE);
    }
}

static void plugged(struct pci_bus *bus, struct pci_device *pci)
{
    struct acpi_pcihp *s = bus->hotplug;
    s->up[number_of(s, bus)] |= UINT32_C(1) << (pci->devfn >> 3);
    tell(&s->dev);
}

static bool unplug(struct pci_bus *bus, struct pci_device *pci, GError **error)
{
    struct acpi_pcihp *s = bus->hotplug;
    if (!removable(pci)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Device '%s' does not support hotplugging",
                    pci->dev.id ? pci->dev.id : pci->dev.model->name);
        return false;
    }
    s->down[number_of(s, bus)] |= UINT32_C(1) << (pci->devfn >> 3);
    tell(&s->dev);
    return true;
}

static void add_bus(struct acpi_pcihp *s, struct pci_bus *bus)
{
    if (bus->hotplug || bus->express || s->n == ACPI_PCIHP_BUSES) {
        return; /* a slot of its own tells of itself */
    }
    s->bus[s->n++] = bus;
    bus->hotplug = s;
    bus->plugged = plugged;
    bus->unplug = unplug;
}

/* Buses that have come since are behind those that are there. */
static void number_buses(struct acpi_pcihp *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        for (struct pci_bus *below = s->bus[i]->child; below; below = below->sibling) {
            if (below->bridge && below->bridge->bus == s->bus[i]) {
                add_bus(s, below);
            }
        }
    }
}

bool acpi_pcihp_bus(struct board *board, unsigned number, int *parent, uint8_t *devfn,
                    uint32_t *slots)
{
    struct device *dev = board_part(board, "pcihp");
    struct acpi_pcihp *s = dev ? self(dev) : NULL;
    if (!s) {
        return false;
    }
    number_buses(s);
    if (number >= s->n) {
        return false;
    }
    const struct pci_bus *bus = s->bus[number];
    *parent = bus->bridge ? number_of(s, bus->bridge->bus) : -1;
    *devfn = bus->bridge ? bus->bridge->devfn : 0;
    *slots = slots_of(bus);
    return true;
}

/* ---- registers ---- */

static bool selected(const struct acpi_pcihp *s)
{
    return s->select < s->n;
}

static void eject(struct acpi_pcihp *s, unsigned number, uint32_t slots)
{
    struct pci_bus *bus = s->bus[number];
    for (unsigned i = 0; i < 256; i++) {
        struct pci_device *pci = bus->function[i];
        if (pci && (slots >> (i >> 3) & 1) && removable(pci)) {
            pci_eject(pci);
        }
    }
    s->down[number] &= ~slots;
}

static uint64_t up_read(struct device *dev, uint64_t stored)
{
    struct acpi_pcihp *s = self(dev);
    (void)stored;
    uint32_t up = selected(s) ? s->up[s->select] : 0;
    if (selected(s)) {
        s->up[s->select] = 0;
    }
    return up;
}

static uint64_t down_read(struct device *dev, uint64_t stored)
{
    struct acpi_pcihp *s = self(dev);
    (void)stored;
    return selected(s) ? s->down[s->select] : 0;
}

static void eject_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct acpi_pcihp *s = self(dev);
    (void)old;
    if (selected(s)) {
        eject(s, s->select, (uint32_t)now);
    }
}

static uint64_t removable_read(struct device *dev, uint64_t stored)
{
    struct acpi_pcihp *s = self(dev);
    (void)stored;
    return selected(s) ? slots_of(s->bus[s->select]) : 0;
}

static bool start(struct device *dev, GError **error)
{
    struct acpi_pcihp *s = self(dev);
    struct pci_bus *bus = dev->board->pci;
    if (!bus) {
        g_set_error(error, LODGE_ERROR, ENODEV, "there is no PCI bus");
        return false;
    }
    device_window_init(&s->window, dev, 0, "acpi-pcihp", PORTS_BYTES);
    device_place(&s->window, dev->board->ports, PORTS_AT, 1);
    board_add_part(dev->board, "pcihp", dev);
    add_bus(s, bus);
    return true;
}

/* What was asked of a guest that starts anew needs no asking. */
static void reset(struct device *dev)
{
    struct acpi_pcihp *s = self(dev);
    for (unsigned i = 0; i < s->n; i++) {
        eject(s, i, s->down[i]);
        s->up[i] = 0;
    }
    s->select = 0;
}

static const struct reg regs[] = {
    STATE_ARRAY(struct acpi_pcihp, up, .keep = true),
    STATE_ARRAY(struct acpi_pcihp, down, .keep = true),
    REG_COMPUTED("came", .port = 0, .width = 4, .dir = REG_R, .on_read = up_read,
                 .help = "slots with a new device; reading clears"),
    REG_COMPUTED("goes", .port = 4, .width = 4, .dir = REG_R, .on_read = down_read,
                 .help = "slots whose device is to go"),
    REG_COMPUTED("eject", .port = 8, .width = 4, .dir = REG_W, .on_write = eject_write,
                 .help = "slots that the guest has let go"),
    REG_COMPUTED("removable", .port = 0x0c, .width = 4, .dir = REG_R, .on_read = removable_read,
                 .help = "slots that can be filled and emptied"),
    REG(struct acpi_pcihp, select, .port = 0x10, .dir = REG_RW, .writable = UINT32_MAX,
        .help = "of which bus the others speak"),
};

const struct device_model model_acpi_pcihp = {
    .name = "acpi-pcihp",
    .about = "PCI hot-plug of the machine pc",
    .spec = "QEMU, \"QEMU<->ACPI BIOS PCI hotplug interface\"",
    .size = sizeof(struct acpi_pcihp),
    .version = 2,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .start = start,
    .reset = reset,
};
