/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/pci.h"

/* bridge - what bridges without a slot of their own share: a bus behind them, which stays as it
 * is while the guest runs */
struct bridge_ident {
    struct pci_ident pci;       /* first */
    enum pci_express_type type; /* of the capability; PCIE_ENDPOINT: it has none */
    bool express_below;
};

struct bridge {
    struct pci_device pci;
    struct pci_bus below;
    uint32_t prop_chassis;
    bool prop_msi, prop_shpc;
};

bool bridge_start(struct device *dev, GError **error);
void bridge_stop(struct device *dev);

#define BRIDGE_STATE PCI_STATE(struct bridge, pci)
#define BRIDGE_PROPS                                                                               \
    PCI_PROPS(struct bridge, pci),                                                                 \
        {"chassis_nr", PROP_U32, offsetof(struct bridge, prop_chassis),                            \
         .help = "kept for old lines"},                                                            \
        {"msi", PROP_BOOL, offsetof(struct bridge, prop_msi), .help = "kept for old lines"},       \
        {"shpc", PROP_BOOL, offsetof(struct bridge, prop_shpc), .help = "only off is supported"}
#define BRIDGE_MODEL                                                                               \
    .spec = "PCI-to-PCI Bridge Architecture Specification 1.2, \"Configuration Space\"",           \
    .size = sizeof(struct bridge), .version = 1, .bus = BUS_PCI, .regs = regs,                     \
    .nregs = G_N_ELEMENTS(regs), .props = props, .nprops = G_N_ELEMENTS(props),                    \
    .bus_data = &ident, .start = bridge_start, .stop = bridge_stop
