/* SPDX-License-Identifier: GPL-2.0-or-later */

/* xio3130_downstream: port of a PCI Express switch with a slot; the work is in pcie_port.c. */
#include "guest/device/pcie_port.h"

static bool start(struct device *dev, GError **error)
{
    return pcie_port_start(dev, PCIE_DOWNSTREAM, error);
}

static const struct pci_ident ident = {
    .vendor = 0x104c,
    .device = 0x8233,
    .class = 0x060400,
    .irq_pin = 1,
    .config_written = pcie_port_config_written,
};
static const struct reg regs[] = {PCIE_PORT_STATE};
static const struct prop props[] = {PCIE_PORT_PROPS};

const struct device_model model_xio3130_downstream = {
    .name = "xio3130-downstream",
    .about = "port of a PCI Express switch with a slot: on the bus of an x3130-upstream",
    PCIE_PORT_MODEL,
};
