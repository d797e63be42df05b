/* SPDX-License-Identifier: GPL-2.0-or-later */

/* piix4_usb_uhci: USB 1 host controller of the PIIX4; the work is in uhci.c. */
#include "guest/device/uhci.h"

static const struct pci_ident ident = {UHCI_IDENT, .device = 0x7112};

const struct device_model model_piix4_usb_uhci = {
    .name = "piix4-usb-uhci",
    .about = "USB 1 host controller of the PIIX4",
    UHCI_MODEL,
};
