/* SPDX-License-Identifier: GPL-2.0-or-later */

/* piix3_usb_uhci: USB 1 host controller of the PIIX3; the work is in uhci.c. */
#include "guest/device/uhci.h"

static const struct pci_ident ident = {UHCI_IDENT, .device = 0x7020};

const struct device_model model_piix3_usb_uhci = {
    .name = "piix3-usb-uhci",
    .about = "USB 1 host controller of the PIIX3",
    UHCI_MODEL,
};
