/* SPDX-License-Identifier: GPL-2.0-or-later */

/* usb_ehci: USB 2 host controller; the work is in ehci.c. */
#include "guest/device/ehci.h"

static const struct pci_ident ident = {EHCI_IDENT, .device = 0x24cd};

const struct device_model model_usb_ehci = {
    .name = "usb-ehci",
    .about = "USB 2 host controller",
    EHCI_MODEL,
};
