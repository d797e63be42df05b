/* SPDX-License-Identifier: GPL-2.0-or-later */

/* ich9_usb_uhci2: USB 1 host controller 2 of the ICH9; the work is in uhci.c. */
#include "guest/device/uhci.h"

static const struct pci_ident ident = {UHCI_IDENT, .device = 0x2935};

const struct device_model model_ich9_usb_uhci2 = {
    .name = "ich9-usb-uhci2",
    .about = "USB 1 host controller 2 of the ICH9",
    UHCI_MODEL,
};
