/* SPDX-License-Identifier: GPL-2.0-or-later */

/* ich9_usb_uhci3: USB 1 host controller 3 of the ICH9; the work is in uhci.c. */
#include "guest/device/uhci.h"

static const struct pci_ident ident = {UHCI_IDENT, .device = 0x2936};

const struct device_model model_ich9_usb_uhci3 = {
    .name = "ich9-usb-uhci3",
    .about = "USB 1 host controller 3 of the ICH9",
    UHCI_MODEL,
};
