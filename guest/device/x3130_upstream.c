/* SPDX-License-Identifier: GPL-2.0-or-later */

/* x3130_upstream: upper port of a PCI Express switch; the work is in bridge.c. */
#include "guest/device/bridge.h"

static const struct bridge_ident ident = {
    .pci = {.vendor = 0x104c, .device = 0x8232, .class = 0x060400},
    .type = PCIE_UPSTREAM,
    .express_below = true,
};
static const struct reg regs[] = {BRIDGE_STATE};
static const struct prop props[] = {BRIDGE_PROPS};

const struct device_model model_x3130_upstream = {
    .name = "x3130-upstream",
    .about = "upper port of a PCI Express switch",
    BRIDGE_MODEL,
};
