/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/pci.h"

/* pcie_port - what pcie-root-port and xio3130-downstream share: one slot */
struct pcie_port {
    struct pci_device pci;
    struct pci_bus below;
    bool asked;   /* an interrupt for the events that stand in the status was given */
    bool leaving; /* the card goes when the guest switches off */
    bool powered;
    uint32_t prop_port, prop_chassis, prop_slot;
    bool prop_hotplug;
};

bool pcie_port_start(struct device *dev, enum pci_express_type type, GError **error);
void pcie_port_stop(struct device *dev);
void pcie_port_settle(struct device *dev);
void pcie_port_reset(struct device *dev);
void pcie_port_config_written(struct pci_device *pci, unsigned at, unsigned bytes);

#define PCIE_PORT_STATE                                                                            \
    PCI_STATE(struct pcie_port, pci), STATE(struct pcie_port, asked),                              \
        STATE(struct pcie_port, leaving, .since = 2, .keep = true),                                \
        STATE(struct pcie_port, powered, .since = 2, .keep = true)
#define PCIE_PORT_PROPS                                                                            \
    PCI_PROPS(struct pcie_port, pci),                                                              \
        {"port", PROP_U32, offsetof(struct pcie_port, prop_port), .help = "kept for old lines"},   \
        {"chassis", PROP_U32, offsetof(struct pcie_port, prop_chassis),                            \
         .help = "kept for old lines"},                                                            \
        {"hotplug", PROP_BOOL, offsetof(struct pcie_port, prop_hotplug), .value = true,            \
         .help = "off: what is in the slot stays, and nothing comes"},                             \
    {                                                                                              \
        "slot", PROP_U32, offsetof(struct pcie_port, prop_slot), .help = "the slot's number"       \
    }
#define PCIE_PORT_MODEL                                                                            \
    .spec = "PCI Express Base Specification 3.0, \"Type 1 Configuration Space Header\"",           \
    .size = sizeof(struct pcie_port), .version = 2, .bus = BUS_PCI, .regs = regs,                  \
    .nregs = G_N_ELEMENTS(regs), .props = props, .nprops = G_N_ELEMENTS(props),                    \
    .bus_data = &ident, .start = start, .stop = pcie_port_stop, .settle = pcie_port_settle,        \
    .reset = pcie_port_reset
