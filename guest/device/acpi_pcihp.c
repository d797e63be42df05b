/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * acpi_pcihp: slots of PCI buses that can be filled and emptied while the guest runs, told to it by
 * ACPI.
 *
 * Spec: QEMU, "QEMU<->ACPI BIOS PCI hotplug interface" (acpi_pci_hotplug), its registers;
 * ACPI Specification 6.3, "Device Object Notifications", "_EJx (Eject)".
 * The root bus of the machine pc, buses behind bridges and slots behind Express ports that were
 * there from the start have slots; what is behind a bridge that was plugged in stays as it is.
 */
#include "guest/device/acpi_pcihp.h"

#include "guest/device/acpi_pm.h"

enum { GPE = 1, FIRST_BUSES = 16 /* which a state of version 2 has */ };
enum { CLASS_DISPLAY = 0x03, CLASS_BRIDGE = 0x06 };

struct acpi_pcihp {
    struct device dev;
    uint32_t up[ACPI_PCIHP_BUSES], down[ACPI_PCIHP_BUSES]; /* slots whose news the guest has not
                                                              heard yet */
    uint32_t select;
    struct pci_bus *bus[ACPI_PCIHP_BUSES];
    unsigned n;
    uint32_t prop_port;
    bool prop_root, prop_bridges;
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

/* Between the ports of a switch, and among an Express root's own, nothing comes or goes. */
static uint32_t all_slots(const struct acpi_pcihp *s, const struct pci_bus *bus)
{
    if (bus->express) {
        return s->prop_bridges && bus->one_slot && bus->plugged;
    }
    return (bus->bridge ? s->prop_bridges : s->prop_root) ? UINT32_MAX : 0;
}

/* Those from which all can be taken. */
static uint32_t slots_of(const struct acpi_pcihp *s, const struct pci_bus *bus)
{
    uint32_t slots = all_slots(s, bus);
    for (unsigned i = 0; i < 256; i++) {
        const struct pci_device *pci = bus->function[i];
        if (pci && !removable(pci)) {
            slots &= ~(UINT32_C(1) << (i >> 3));
        }
    }
    return slots;
}

static int number_of(const struct acpi_pcihp *s, const struct pci_bus *bus)
{
    for (unsigned i = 0; s && i < s->n; i++) {
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

static struct acpi_pcihp *of_board(struct board *board)
{
    struct device *dev = board_part(board, "pcihp");
    return dev ? self(dev) : NULL;
}

static struct acpi_pcihp *of_bus(const struct pci_bus *bus)
{
    return bus->bridge ? of_board(bus->bridge->dev.board) : bus->hotplug;
}

bool acpi_pcihp_names(const struct pci_bus *bus)
{
    const struct acpi_pcihp *s = of_bus(bus);
    return number_of(s, bus) >= 0 && all_slots(s, bus);
}

void acpi_pcihp_plugged(struct pci_bus *bus, const struct pci_device *pci)
{
    struct acpi_pcihp *s = of_bus(bus);
    s->up[number_of(s, bus)] |= UINT32_C(1) << (pci->devfn >> 3);
    tell(&s->dev);
}

bool acpi_pcihp_may_go(const struct pci_bus *bus, const struct pci_device *pci, GError **error)
{
    if (slots_of(of_bus(bus), bus) >> (pci->devfn >> 3) & 1) {
        return true;
    }
    g_set_error(error, LODGE_ERROR, ENOTSUP, "Device '%s' does not support hotplugging",
                pci->dev.id ? pci->dev.id : pci->dev.model->name);
    return false;
}

void acpi_pcihp_unplug(struct pci_bus *bus, const struct pci_device *pci)
{
    struct acpi_pcihp *s = of_bus(bus);
    s->down[number_of(s, bus)] |= UINT32_C(1) << (pci->devfn >> 3);
    tell(&s->dev);
}

static void plugged(struct pci_bus *bus, struct pci_device *pci)
{
    acpi_pcihp_plugged(bus, pci);
}

static bool unplug(struct pci_bus *bus, struct pci_device *pci, GError **error)
{
    bool may = acpi_pcihp_may_go(bus, pci, error);
    if (may) {
        acpi_pcihp_unplug(bus, pci);
    }
    return may;
}

static void add_bus(struct acpi_pcihp *s, struct pci_bus *bus)
{
    if (number_of(s, bus) >= 0 || s->n == ACPI_PCIHP_BUSES) {
        return;
    }
    s->bus[s->n++] = bus;
    if (all_slots(s, bus) && !bus->one_slot) { /* a port knows more than one way */
        bus->hotplug = s;
        bus->plugged = plugged;
        bus->unplug = unplug;
    }
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
    struct acpi_pcihp *s = of_board(board);
    if (!s || !(s->prop_root || s->prop_bridges)) {
        return false;
    }
    number_buses(s);
    if (number >= s->n) {
        return false;
    }
    const struct pci_bus *bus = s->bus[number];
    *parent = bus->bridge ? number_of(s, bus->bridge->bus) : -1;
    *devfn = bus->bridge ? bus->bridge->devfn : 0;
    *slots = slots_of(s, bus);
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
    uint32_t go = slots & slots_of(s, bus);
    for (unsigned i = 0; go && i < 256; i++) {
        if (bus->function[i] && (go >> (i >> 3) & 1)) {
            pci_eject(bus->function[i]);
        }
    }
    s->down[number] &= ~slots;
    if (go && bus->bridge) {
        device_settle(&bus->bridge->dev); /* a port shows whether its slot is empty */
    }
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
    return selected(s) ? slots_of(s, s->bus[s->select]) : 0;
}

static bool start(struct device *dev, GError **error)
{
    struct acpi_pcihp *s = self(dev);
    struct pci_bus *bus = dev->board->pci;
    if (!bus) {
        g_set_error(error, LODGE_ERROR, ENODEV, "there is no PCI bus");
        return false;
    }
    device_window_init(&s->window, dev, 0, "acpi-pcihp", ACPI_PCIHP_BYTES);
    device_place(&s->window, dev->board->ports, s->prop_port, 1);
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

#define BUSES(label, field, from, n, ...)                                                          \
    {                                                                                              \
        .name = label, .slot = offsetof(struct acpi_pcihp, field) + 4 * (from), .size = 4,         \
        .count = (n), .port = REG_HIDDEN, .keep = true, __VA_ARGS__                                \
    }
static const struct reg regs[] = {
    BUSES("up", up, 0, FIRST_BUSES),
    BUSES("down", down, 0, FIRST_BUSES),
    BUSES("up_more", up, FIRST_BUSES, ACPI_PCIHP_BUSES - FIRST_BUSES, .since = 3),
    BUSES("down_more", down, FIRST_BUSES, ACPI_PCIHP_BUSES - FIRST_BUSES, .since = 3),
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
static const struct prop props[] = {
    {"port", PROP_U32, offsetof(struct acpi_pcihp, prop_port), ACPI_PCIHP_PC},
    {"root", PROP_BOOL, offsetof(struct acpi_pcihp, prop_root), 1, .help = "the root has slots"},
    {"bridges", PROP_BOOL, offsetof(struct acpi_pcihp, prop_bridges), 1,
     .help = "buses behind bridges have slots"},
};

const struct device_model model_acpi_pcihp = {
    .name = "acpi-pcihp",
    .about = "PCI hot-plug by ACPI",
    .spec = "QEMU, \"QEMU<->ACPI BIOS PCI hotplug interface\"",
    .size = sizeof(struct acpi_pcihp),
    .version = 3,
    .joins_later = true,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .reset = reset,
};
