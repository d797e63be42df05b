/* SPDX-License-Identifier: GPL-2.0-or-later */

/* pcie_pci_bridge: bridge from PCI Express to PCI; the work is in bridge.c. */
#include "guest/device/bridge.h"

static const struct bridge_ident ident = {
    .pci = {.vendor = 0x1b36, .device = 0x000e, .class = 0x060400},
    .type = PCIE_TO_PCI,
};
static const struct reg regs[] = {BRIDGE_STATE};
static const struct prop props[] = {BRIDGE_PROPS};

const struct device_model model_pcie_pci_bridge = {
    .name = "pcie-pci-bridge",
    .about = "bridge from PCI Express to PCI",
    BRIDGE_MODEL,
};
