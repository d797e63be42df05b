/* SPDX-License-Identifier: GPL-2.0-or-later */

/* i82801b11_bridge: Intel DMI to PCI bridge; the work is in bridge.c. */
#include "guest/device/bridge.h"

static const struct bridge_ident ident = {
    .pci = {.vendor = 0x8086, .device = 0x244e, .class = 0x060400},
};
static const struct reg regs[] = {BRIDGE_STATE};
static const struct prop props[] = {BRIDGE_PROPS};

const struct device_model model_i82801b11_bridge = {
    .name = "i82801b11-bridge",
    .about = "Intel DMI to PCI bridge",
    BRIDGE_MODEL,
};
