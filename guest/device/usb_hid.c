/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * usb_hid: keyboard, mouse and tablet on USB.
 *
 * Spec: USB-IF, Device Class Definition for Human Interface Devices (HID) 1.11, "Descriptors",
 * "Requests", "Appendix B: Boot Interface Descriptors"; HID Usage Tables 1.12, "Generic Desktop
 * Page", "Keyboard/Keypad Page".
 */
#include "guest/device/usb_hid.h"

#include "base/bytes.h"
#include "base/util.h"
#include "guest/device/board.h"

#include <string.h>

enum { GET_REPORT = 1, GET_IDLE = 2, GET_PROTOCOL = 3, SET_REPORT = 9, SET_IDLE = 10, SET_PROTOCOL = 11 };
enum { CLASS_IN = 0xa1, CLASS_OUT = 0x21, STANDARD_IN = 0x81, GET_DESCRIPTOR = 6 };
enum { DESC_HID = 0x21, DESC_REPORT = 0x22, HID_AT = 18, HID_BYTES = 9 };
enum { KEY_DOWN = 0x100, MODIFIER_FIRST = 0xe0, MODIFIER_LAST = 0xe7, ROLL_OVER = 1, BOOT_KEYS = 6 };
enum { TABLET_MAX = 0x7fff, STEP_MAX = 127, FAR = 1 << 20 };

/* ---- descriptors ---- */

#define DEVICE(product)                                                                            \
    {18, 1, 0x00, 0x02, 0, 0, 0, 64, 0x27, 0x06, 0x01, 0x00, 0, 0, 1, product, 3, 1}
static const uint8_t device_tablet[18] = DEVICE(4), device_mouse[18] = DEVICE(2),
                     device_keyboard[18] = DEVICE(5);
static const char *const strings[] = {"Lodge", "USB Mouse", "1",
                                      "USB Tablet", "USB Keyboard", NULL};

/* Configuration, interface, HID, endpoint 1 in: 8 bytes every 4 ms at high speed. */
#define CONFIG(subclass, protocol, report)                                                         \
    {9, 2, 34, 0, 1, 1, 0, 0xa0, 50, 9, 4, 0, 0, 1, 3, subclass, protocol, 0,                      \
     9, DESC_HID, 0x11, 0x01, 0, 1, DESC_REPORT, sizeof(report) & 0xff, sizeof(report) >> 8,       \
     7, 5, 0x81, 3, HID_REPORT_MAX, 0, 6}

static const uint8_t report_mouse[] = {
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01,             /* desktop: mouse */
    0x09, 0x01, 0xa1, 0x00,                         /* pointer */
    0x05, 0x09, 0x19, 1, 0x29, 3, 0x15, 0, 0x25, 1, /* buttons 1 to 3 */
    0x95, 3, 0x75, 1, 0x81, 0x02, 0x95, 1, 0x75, 5, 0x81, 0x01,
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x09, 0x38, /* x, y, wheel, relative */
    0x15, 0x81, 0x25, 0x7f, 0x75, 8, 0x95, 3, 0x81, 0x06,
    0xc0, 0xc0,
};
static const uint8_t report_tablet[] = {
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00,
    0x05, 0x09, 0x19, 1, 0x29, 3, 0x15, 0, 0x25, 1,
    0x95, 3, 0x75, 1, 0x81, 0x02, 0x95, 1, 0x75, 5, 0x81, 0x01,
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31,             /* x, y, absolute */
    0x15, 0, 0x26, 0xff, 0x7f, 0x35, 0, 0x46, 0xff, 0x7f, 0x75, 16, 0x95, 2, 0x81, 0x02,
    0x05, 0x01, 0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0, 0x45, 0, 0x75, 8, 0x95, 1, 0x81, 0x06,
    0xc0, 0xc0,
};
static const uint8_t report_keyboard[] = {
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01,
    0x75, 1, 0x95, 8, 0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0, 0x25, 1, 0x81, 0x02,
    0x95, 1, 0x75, 8, 0x81, 0x01,
    0x95, 5, 0x75, 1, 0x05, 0x08, 0x19, 1, 0x29, 5, 0x91, 0x02, 0x95, 1, 0x75, 3, 0x91, 0x01,
    0x95, 6, 0x75, 8, 0x15, 0, 0x25, 0xff, 0x05, 0x07, 0x19, 0, 0x29, 0xff, 0x81, 0x00,
    0xc0,
};

static const uint8_t config_mouse[34] = CONFIG(1, 2, report_mouse);
static const uint8_t config_tablet[34] = CONFIG(0, 0, report_tablet);
static const uint8_t config_keyboard[34] = CONFIG(1, 1, report_keyboard);

/* ---- keys ---- */

/* Scan codes 1 to 0x58 of set 1, in their order. */
static const uint8_t usages[0x80] = {
    [0x01] = 0x29, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x2d, 0x2e, 0x2a,
    [0x0f] = 0x2b, 0x14, 0x1a, 0x08, 0x15, 0x17, 0x1c, 0x18, 0x0c, 0x12, 0x13, 0x2f, 0x30, 0x28,
    [0x1d] = 0xe0, 0x04, 0x16, 0x07, 0x09, 0x0a, 0x0b, 0x0d, 0x0e, 0x0f, 0x33, 0x34, 0x35, 0xe1,
    [0x2b] = 0x31, 0x1d, 0x1b, 0x06, 0x19, 0x05, 0x11, 0x10, 0x36, 0x37, 0x38, 0xe5, 0x55, 0xe2,
    [0x39] = 0x2c, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x40, 0x41, 0x42, 0x43, 0x53, 0x47,
    [0x47] = 0x5f, 0x60, 0x61, 0x56, 0x5c, 0x5d, 0x5e, 0x57, 0x59, 0x5a, 0x5b, 0x62, 0x63,
    [0x54] = 0x9a, [0x56] = 0x64, [0x57] = 0x44, [0x58] = 0x45,
    [0x70] = 0x88, [0x73] = 0x87, [0x79] = 0x8a, [0x7b] = 0x8b, [0x7d] = 0x89, [0x7e] = 0x85,
};
static const struct {
    uint8_t code, usage;
} extended[] = {
    {0x1c, 0x58}, {0x1d, 0xe4}, {0x35, 0x54}, {0x37, 0x46}, {0x38, 0xe6}, {0x46, 0x48}, {0x47, 0x4a},
    {0x48, 0x52}, {0x49, 0x4b}, {0x4b, 0x50}, {0x4d, 0x4f}, {0x4f, 0x4d}, {0x50, 0x51}, {0x51, 0x4e},
    {0x52, 0x49}, {0x53, 0x4c}, {0x5b, 0xe3}, {0x5c, 0xe7}, {0x5d, 0x65}, {0x5e, 0x66}, {0x20, 0x7f},
    {0x30, 0x80}, {0x2e, 0x81},
};

uint8_t hid_usage(unsigned scancode)
{
    for (unsigned i = 0; (scancode & 0x80) && i < G_N_ELEMENTS(extended); i++) {
        if (extended[i].code == (scancode & 0x7f)) {
            return extended[i].usage;
        }
    }
    return scancode & 0x80 ? 0 : usages[scancode & 0x7f];
}

static struct usb_hid *of(struct usb_device *u)
{
    return container_of(u, struct usb_hid, usb);
}

static void on_key(void *owner, unsigned scancode, bool down)
{
    struct usb_hid *s = owner;
    uint8_t usage = hid_usage(scancode);
    if (usage && s->queued < HID_QUEUE) {
        s->event[s->queued++] = (uint16_t)(usage | (down ? KEY_DOWN : 0));
        usb_wake(&s->usb, 0x81);
    }
}

static void key_goes_down(struct usb_hid *s, uint8_t usage)
{
    if (!memchr(s->keys, usage, s->n_keys) && s->n_keys < HID_KEYS) {
        s->keys[s->n_keys++] = usage;
    }
}

static void key_goes_up(struct usb_hid *s, uint8_t usage)
{
    uint8_t *at = memchr(s->keys, usage, s->n_keys);
    if (at) {
        s->n_keys--;
        memmove(at, at + 1, (size_t)(s->keys + s->n_keys - at));
    }
}

static void take_key(struct usb_hid *s)
{
    uint8_t usage = (uint8_t)s->event[0];
    bool down = s->event[0] & KEY_DOWN;
    if (usage >= MODIFIER_FIRST && usage <= MODIFIER_LAST) {
        uint8_t bit = (uint8_t)(1u << (usage - MODIFIER_FIRST));
        s->modifiers = down ? s->modifiers | bit : s->modifiers & (uint8_t)~bit;
    } else if (down) {
        key_goes_down(s, usage);
    } else {
        key_goes_up(s, usage);
    }
}

/* ---- pointers ---- */

static int32_t limited(int64_t v, int32_t most)
{
    return (int32_t)CLAMP(v, -most, most);
}

/* Motion without a change of the buttons is one event, however much of it comes. */
static void on_pointer(void *owner, int x, int y, int wheel, unsigned buttons)
{
    struct usb_hid *s = owner;
    uint16_t pressed = (uint16_t)((buttons & 1) | (buttons & 4 ? 2 : 0) | (buttons & 2 ? 4 : 0));
    unsigned i = s->queued;
    if (i && s->event[i - 1] == pressed) {
        i--;
    } else if (i < HID_QUEUE) {
        s->event[i] = pressed;
        s->x[i] = s->y[i] = s->z[i] = 0;
        s->queued++;
    } else {
        return;
    }
    if (s->kind == HID_TABLET) {
        s->x[i] = CLAMP(x, 0, TABLET_MAX);
        s->y[i] = CLAMP(y, 0, TABLET_MAX);
    } else {
        s->x[i] = limited((int64_t)s->x[i] + x, FAR);
        s->y[i] = limited((int64_t)s->y[i] + y, FAR);
    }
    s->z[i] = limited((int64_t)s->z[i] - wheel, FAR);
    usb_wake(&s->usb, 0x81);
}

/* As much of the first event as one report can say; what is left stays. */
static int8_t take_step(int32_t *left)
{
    int32_t step = CLAMP(*left, -STEP_MAX, STEP_MAX);
    *left -= step;
    return (int8_t)step;
}

/* ---- reports ---- */

static void drop_first(struct usb_hid *s)
{
    size_t n = --s->queued;
    memmove(s->event, s->event + 1, n * sizeof(*s->event));
    memmove(s->x, s->x + 1, n * sizeof(*s->x));
    memmove(s->y, s->y + 1, n * sizeof(*s->y));
    memmove(s->z, s->z + 1, n * sizeof(*s->z));
}

static unsigned report_keys(struct usb_hid *s, uint8_t *out)
{
    if (s->queued) {
        take_key(s);
        drop_first(s);
    }
    out[0] = s->modifiers;
    memset(out + 2, s->n_keys > BOOT_KEYS ? ROLL_OVER : 0, BOOT_KEYS);
    if (s->n_keys <= BOOT_KEYS) {
        memcpy(out + 2, s->keys, s->n_keys);
    }
    return 8;
}

static unsigned report_motion(struct usb_hid *s, uint8_t *out)
{
    int8_t x = 0, y = 0, z = 0;
    if (s->queued) {
        s->buttons = (uint8_t)s->event[0];
        x = take_step(&s->x[0]);
        y = take_step(&s->y[0]);
        z = take_step(&s->z[0]);
        if (!s->x[0] && !s->y[0] && !s->z[0]) {
            drop_first(s);
        }
    }
    out[0] = s->buttons;
    out[1] = (uint8_t)x;
    out[2] = (uint8_t)y;
    out[3] = (uint8_t)z;
    return 4;
}

static unsigned report_place(struct usb_hid *s, uint8_t *out)
{
    int8_t z = 0;
    if (s->queued) {
        s->buttons = (uint8_t)s->event[0];
        s->at_x = s->x[0];
        s->at_y = s->y[0];
        z = take_step(&s->z[0]);
        if (!s->z[0]) {
            drop_first(s);
        }
    }
    out[0] = s->buttons;
    le16_put(out + 1, (uint16_t)s->at_x);
    le16_put(out + 3, (uint16_t)s->at_y);
    out[5] = (uint8_t)z;
    return 6;
}

static unsigned report(struct usb_hid *s, uint8_t out[HID_REPORT_MAX])
{
    memset(out, 0, HID_REPORT_MAX);
    s->report_now = 0;
    return s->kind == HID_KEYBOARD ? report_keys(s, out)
           : s->kind == HID_MOUSE  ? report_motion(s, out)
                                   : report_place(s, out);
}

static enum usb_result transfer(struct usb_device *u, struct usb_transfer *t)
{
    struct usb_hid *s = of(u);
    uint8_t out[HID_REPORT_MAX];
    if (t->endpoint != 1 || !t->in) {
        return USB_STALL;
    }
    if (!s->queued && !s->report_now) {
        return USB_NAK;
    }
    unsigned n = report(s, out);
    usb_put(t, out, MIN(n, t->bytes));
    return USB_OK;
}

/* ---- requests ---- */

static int descriptor(const struct usb_hid *s, unsigned kind, uint8_t *out)
{
    static const struct {
        const uint8_t *report;
        size_t bytes;
    } reports[] = {
        [HID_KEYBOARD] = {report_keyboard, sizeof(report_keyboard)},
        [HID_MOUSE] = {report_mouse, sizeof(report_mouse)},
        [HID_TABLET] = {report_tablet, sizeof(report_tablet)},
    };
    if (kind == DESC_HID) {
        memcpy(out, s->usb.usb->config + HID_AT, HID_BYTES);
        return HID_BYTES;
    }
    if (kind != DESC_REPORT) {
        return -1;
    }
    memcpy(out, reports[s->kind].report, reports[s->kind].bytes);
    return (int)reports[s->kind].bytes;
}

static int control(struct usb_device *u, const uint8_t setup[8], uint8_t *data)
{
    struct usb_hid *s = of(u);
    uint16_t value = le16_at(setup + 2);
    switch (setup[0] << 8 | setup[1]) {
    case STANDARD_IN << 8 | GET_DESCRIPTOR:
        return descriptor(s, value >> 8, data);
    case CLASS_IN << 8 | GET_REPORT:
        return (int)report(s, data);
    case CLASS_IN << 8 | GET_IDLE:
        data[0] = s->idle;
        return 1;
    case CLASS_IN << 8 | GET_PROTOCOL:
        data[0] = s->protocol;
        return 1;
    case CLASS_OUT << 8 | SET_REPORT:
        s->leds = le16_at(setup + 6) ? data[0] : s->leds;
        return 0;
    case CLASS_OUT << 8 | SET_IDLE:
        s->idle = (uint8_t)(value >> 8);
        s->report_now = s->kind == HID_KEYBOARD && s->idle;
        return 0;
    case CLASS_OUT << 8 | SET_PROTOCOL:
        s->protocol = value & 1;
        return 0;
    default:
        return -1;
    }
}

/* ---- life ---- */

static void tell_display(struct usb_hid *s)
{
    struct display *d = s->usb.dev.board->display;
    if (d) {
        display_input_ready(d, &s->input, s->usb.configuration != 0);
    }
}

static void configured(struct usb_device *u)
{
    tell_display(of(u));
}

static void bus_reset(struct usb_device *u)
{
    struct usb_hid *s = of(u);
    s->queued = s->modifiers = s->n_keys = s->buttons = 0;
    s->idle = s->leds = s->report_now = 0;
    s->at_x = s->at_y = 0;
    s->protocol = 1;
    tell_display(s);
}

static const struct usb_model models[] = {
    [HID_KEYBOARD] = {device_keyboard, config_keyboard, strings, USB_HIGH, control, transfer, bus_reset,
                      configured},
    [HID_MOUSE] = {device_mouse, config_mouse, strings, USB_HIGH, control, transfer, bus_reset, configured},
    [HID_TABLET] = {device_tablet, config_tablet, strings, USB_HIGH, control, transfer, bus_reset,
                    configured},
};

bool usb_hid_start(struct device *dev, enum hid_kind kind, const char *name, GError **error)
{
    struct usb_hid *s = container_of(dev, struct usb_hid, usb.dev);
    s->kind = kind;
    s->protocol = 1;
    s->input = (struct display_input){.name = name, .owner = s, .absolute = kind == HID_TABLET,
                                      .key = kind == HID_KEYBOARD ? on_key : NULL,
                                      .pointer = kind == HID_KEYBOARD ? NULL : on_pointer};
    if (!usb_start(&s->usb, &models[kind], error)) {
        return false;
    }
    if (dev->board->display) {
        display_add_input(dev->board->display, &s->input, false);
    }
    return true;
}

void usb_hid_stop(struct device *dev)
{
    struct usb_hid *s = container_of(dev, struct usb_hid, usb.dev);
    if (dev->board->display) {
        display_remove_input(dev->board->display, &s->input);
    }
    usb_stop(&s->usb);
}

void usb_hid_reset(struct device *dev)
{
    usb_device_reset(&container_of(dev, struct usb_hid, usb.dev)->usb);
}

bool usb_hid_loaded(struct device *dev, GError **error)
{
    struct usb_hid *s = container_of(dev, struct usb_hid, usb.dev);
    if (s->queued > HID_QUEUE || s->n_keys > HID_KEYS) {
        g_set_error(error, LODGE_ERROR, EINVAL, "more events wait than can");
        return false;
    }
    tell_display(s);
    return usb_loaded(&s->usb, error);
}
