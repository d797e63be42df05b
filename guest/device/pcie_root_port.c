/* SPDX-License-Identifier: GPL-2.0-or-later */

/* pcie_root_port: PCI Express root port with a slot; the work is in pcie_port.c. */
#include "guest/device/pcie_port.h"

static bool start(struct device *dev, GError **error)
{
    return pcie_port_start(dev, PCIE_ROOT_PORT, error);
}

static const struct pci_ident ident = {
    .vendor = 0x1b36,
    .device = 0x000c,
    .class = 0x060400,
    .irq_pin = 1,
    .config_written = pcie_port_config_written,
};
static const struct reg regs[] = {PCIE_PORT_STATE};
static const struct prop props[] = {PCIE_PORT_PROPS};

const struct device_model model_pcie_root_port = {
    .name = "pcie-root-port",
    .alias = "ioh3420",
    .about = "PCI Express root port with a slot",
    PCIE_PORT_MODEL,
};
