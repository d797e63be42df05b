/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * acpi_pcihp: slots of the machine pc's PCI bus that can be filled and emptied while the guest
 * runs, told to it by ACPI.
 *
 * Spec: QEMU, "QEMU<->ACPI BIOS PCI hotplug interface" (acpi_pci_hotplug), its registers;
 * ACPI Specification 6.3, "Device Object Notifications", "_EJx (Eject)".
 * Bus 0 only: there is no other on this machine that could take a card.
 */
#include "guest/device/acpi_pcihp.h"

#include "guest/device/acpi_pm.h"

enum { PORTS_AT = 0xae00, PORTS_BYTES = 0x14, GPE = 1 };
enum { CLASS_DISPLAY = 0x03, CLASS_BRIDGE = 0x06 };

struct acpi_pcihp {
    struct device dev;
    uint32_t up, down; /* slots whose news the guest has not heard yet */
    uint32_t select;
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

uint32_t acpi_pcihp_slots(struct board *board)
{
    uint32_t slots = UINT32_MAX;
    for (unsigned i = 0; board->pci && i < 256; i++) {
        const struct pci_device *pci = board->pci->function[i];
        if (pci && !removable(pci)) {
            slots &= ~(UINT32_C(1) << (i >> 3));
        }
    }
    return slots;
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
    s->up |= UINT32_C(1) << (pci->devfn >> 3);
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
    s->down |= UINT32_C(1) << (pci->devfn >> 3);
    tell(&s->dev);
    return true;
}

static void eject(struct acpi_pcihp *s, uint32_t slots)
{
    struct pci_bus *bus = s->dev.board->pci;
    for (unsigned i = 0; i < 256; i++) {
        struct pci_device *pci = bus->function[i];
        if (pci && (slots >> (i >> 3) & 1) && removable(pci)) {
            pci_eject(pci);
        }
    }
    s->down &= ~slots;
}

static uint64_t up_read(struct device *dev, uint64_t stored)
{
    self(dev)->up = 0;
    return self(dev)->select ? 0 : stored;
}

static uint64_t down_read(struct device *dev, uint64_t stored)
{
    return self(dev)->select ? 0 : stored;
}

static void eject_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    if (!self(dev)->select) {
        eject(self(dev), (uint32_t)now);
    }
}

static uint64_t removable_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return self(dev)->select ? 0 : acpi_pcihp_slots(dev->board);
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
    bus->hotplug = s;
    bus->plugged = plugged;
    bus->unplug = unplug;
    return true;
}

/* What was asked of a guest that starts anew needs no asking. */
static void reset(struct device *dev)
{
    struct acpi_pcihp *s = self(dev);
    eject(s, s->down);
    s->up = s->select = 0;
}

static const struct reg regs[] = {
    REG(struct acpi_pcihp, up, .port = 0, .dir = REG_R, .on_read = up_read,
        .help = "slots with a new device; reading clears"),
    REG(struct acpi_pcihp, down, .port = 4, .dir = REG_R, .keep = true, .on_read = down_read,
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
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .start = start,
    .reset = reset,
};
