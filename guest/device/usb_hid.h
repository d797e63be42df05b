/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/usb.h"
#include "host/display/display.h"

/*
 * usb_hid - what usb-kbd, usb-mouse and usb-tablet share: a queue of what people do, given to
 * the guest report by report on the interrupt endpoint 1
 */
enum { HID_QUEUE = 32, HID_REPORT_MAX = 8, HID_KEYS = 16 };
enum hid_kind { HID_KEYBOARD, HID_MOUSE, HID_TABLET };

struct usb_hid {
    struct usb_device usb; /* first */
    enum hid_kind kind;
    struct display_input input;
    /* State.  Events that wait: of keys the usage and 0x100 while down; else buttons. */
    uint16_t event[HID_QUEUE];
    int32_t x[HID_QUEUE], y[HID_QUEUE], z[HID_QUEUE];
    uint8_t queued;
    uint8_t modifiers, n_keys, keys[HID_KEYS]; /* as last reported */
    uint8_t buttons;
    int32_t at_x, at_y;
    uint8_t idle, protocol, leds, report_now;
};
#define USB_HID_STATE                                                                              \
    USB_STATE(struct usb_hid, usb), STATE_ARRAY(struct usb_hid, event),                            \
        STATE_ARRAY(struct usb_hid, x), STATE_ARRAY(struct usb_hid, y),                            \
        STATE_ARRAY(struct usb_hid, z), STATE(struct usb_hid, queued),                             \
        STATE(struct usb_hid, modifiers), STATE(struct usb_hid, n_keys),                           \
        STATE_ARRAY(struct usb_hid, keys), STATE(struct usb_hid, buttons),                         \
        STATE(struct usb_hid, at_x), STATE(struct usb_hid, at_y), STATE(struct usb_hid, idle),     \
        STATE(struct usb_hid, protocol, .reset = 1), STATE(struct usb_hid, leds),                  \
        STATE(struct usb_hid, report_now)
#define USB_HID_PROPS                                                                              \
    USB_PROPS(struct usb_hid, usb), {"serial", PROP_STRING, offsetof(struct usb_hid, usb.serial)}

bool usb_hid_start(struct device *dev, enum hid_kind kind, const char *name, GError **error);
void usb_hid_stop(struct device *dev);
void usb_hid_reset(struct device *dev);
bool usb_hid_loaded(struct device *dev, GError **error);

/* Usage of the keyboard page for a set 1 scan code with 0x80 for E0; 0: none. */
uint8_t hid_usage(unsigned scancode);
