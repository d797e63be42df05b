/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * bridge: a bus behind a function, and nothing else; forwarding is in pci.c.
 *
 * Spec: PCI-to-PCI Bridge Architecture Specification 1.2, "Configuration Space".
 * Not modelled: the standard hot-plug controller; acpi_pcihp.c tells the guest what comes and goes.
 */
#include "guest/device/bridge.h"

#include "base/util.h"

static struct bridge *self(struct device *dev)
{
    return container_of(dev, struct bridge, pci.dev);
}

bool bridge_start(struct device *dev, GError **error)
{
    struct bridge *s = self(dev);
    const struct bridge_ident *ident = container_of(dev->model->bus_data, struct bridge_ident, pci);
    if (s->prop_shpc) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "shpc=on is not supported");
        return false;
    }
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    if (ident->type != PCIE_ENDPOINT) {
        if (!s->pci.bus->express) {
            g_set_error(error, LODGE_ERROR, EINVAL, "bus %s is no Express bus", s->pci.bus->name);
            return false;
        }
        pci_add_express(&s->pci, ident->type);
    }
    pci_bus_init_below(&s->below, &s->pci, dev->id ? dev->id : dev->path);
    s->below.express = ident->express_below;
    return true;
}

void bridge_stop(struct device *dev)
{
    struct bridge *s = self(dev);
    pci_bus_remove(&s->below);
}
