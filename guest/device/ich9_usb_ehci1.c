/* SPDX-License-Identifier: GPL-2.0-or-later */

/* ich9_usb_ehci1: USB 2 host controller of the ICH9; the work is in ehci.c. */
#include "guest/device/ehci.h"

static const struct pci_ident ident = {EHCI_IDENT, .device = 0x293a};

const struct device_model model_ich9_usb_ehci1 = {
    .name = "ich9-usb-ehci1",
    .about = "USB 2 host controller of the ICH9",
    EHCI_MODEL,
};
