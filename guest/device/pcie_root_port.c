/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pcie_root_port: a port of the root complex with one slot behind it.
 *
 * Spec: PCI Express Base Specification 3.0, "PCI Express Capability Structure", "Type 1
 * Configuration Space Header".
 * Not modelled: hot-plug, power management events, error reporting (no AER).
 */
#include "guest/device/pci.h"

struct root_port {
    struct pci_device pci;
    struct pci_bus below;
    uint32_t prop_port, prop_chassis, prop_slot;
};

static struct root_port *self(struct device *dev)
{
    return (struct root_port *)dev;
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
    pci_bus_init_below(&s->below, &s->pci, dev->id ? dev->id : dev->path);
    return true;
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
};

static const struct reg regs[] = {PCI_STATE(struct root_port, pci)};
static const struct prop props[] = {
    PCI_PROPS(struct root_port, pci),
    {"port", PROP_U32, offsetof(struct root_port, prop_port), .help = "kept for old lines"},
    {"chassis", PROP_U32, offsetof(struct root_port, prop_chassis), .help = "kept for old lines"},
    {"slot", PROP_U32, offsetof(struct root_port, prop_slot), .help = "kept for old lines"},
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
};
