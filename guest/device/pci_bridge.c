/* SPDX-License-Identifier: GPL-2.0-or-later */

/* pci_bridge: PCI bridge; the work is in bridge.c. */
#include "guest/device/bridge.h"

static const struct bridge_ident ident = {
    .pci = {.vendor = 0x1b36, .device = 0x0001, .class = 0x060400},
};
static const struct reg regs[] = {BRIDGE_STATE};
static const struct prop props[] = {BRIDGE_PROPS};

const struct device_model model_pci_bridge = {
    .name = "pci-bridge",
    .about = "PCI bridge",
    BRIDGE_MODEL,
};
