/* SPDX-License-Identifier: GPL-2.0-or-later */

/* usb_tablet: tablet: a pointer with absolute places on USB; the work is in usb_hid.c. */
#include "guest/device/usb_hid.h"

static bool start(struct device *dev, GError **error)
{
    return usb_hid_start(dev, HID_TABLET, "QEMU HID Tablet", error);
}

static const struct reg regs[] = {USB_HID_STATE};
static const struct prop props[] = {USB_HID_PROPS};

const struct device_model model_usb_tablet = {
    .name = "usb-tablet",
    .about = "USB tablet: a pointer with absolute places",
    .spec = "USB-IF HID 1.11, \"Requests\"",
    .size = sizeof(struct usb_hid),
    .version = 1,
    .bus = BUS_USB,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = usb_hid_stop,
    .reset = usb_hid_reset,
    .loaded = usb_hid_loaded,
};
