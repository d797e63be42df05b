/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * usb: ports, and what every USB device does on endpoint 0.
 *
 * Spec: USB-IF, Universal Serial Bus Specification, Revision 2.0, "USB Device Framework",
 * "Standard Device Requests", "Standard USB Descriptor Definitions".
 */
#include "guest/device/usb.h"

#include "base/bytes.h"
#include "base/keyval.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/device/board.h"

#include <string.h>

enum { DIR_IN = 0x80, TYPE_MASK = 0x60, RECIPIENT_MASK = 0x1f, TO_ENDPOINT = 2 };
enum request {
    GET_STATUS = 0,
    CLEAR_FEATURE = 1,
    SET_FEATURE = 3,
    SET_ADDRESS = 5,
    GET_DESCRIPTOR = 6,
    GET_CONFIGURATION = 8,
    SET_CONFIGURATION = 9,
    GET_INTERFACE = 10,
    SET_INTERFACE = 11,
};
enum { DESC_DEVICE = 1, DESC_CONFIG = 2, DESC_STRING = 3, DESC_QUALIFIER = 6, SERIAL = 3 };
enum { DEVICE_BYTES = 18, QUALIFIER_BYTES = 10, STRING_MAX = 126 };

static struct usb_bus *buses;

/* ---- buses ---- */

static bool name_taken(const char *name)
{
    for (const struct usb_bus *b = buses; b; b = b->next) {
        if (g_str_equal(b->name, name)) {
            return true;
        }
    }
    return false;
}

void usb_bus_add(struct usb_bus *bus, struct device *owner)
{
    bus->owner = owner;
    bus->name = owner->id ? g_strdup_printf("%s.0", owner->id) : g_strdup("usb-bus.0");
    for (unsigned n = 1; !owner->id && name_taken(bus->name); n++) {
        g_free(bus->name);
        bus->name = g_strdup_printf("usb-bus.%u", n);
    }
    struct usb_bus **at = &buses;
    while (*at) {
        at = &(*at)->next;
    }
    *at = bus;
}

void usb_bus_remove(struct usb_bus *bus)
{
    struct usb_bus **at = &buses;
    while (*at && *at != bus) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = bus->next;
    }
    for (unsigned i = 1; i <= bus->ports; i++) {
        if (bus->device[i]) {
            bus->device[i]->bus = NULL; /* its device goes, too, or stays without a bus */
        }
    }
    g_clear_pointer(&bus->name, g_free);
}

/* ---- life ---- */

static bool usable(const struct usb_bus *b, const struct usb_device *u)
{
    return b->owner->board == u->dev.board && (!u->prop_bus || g_str_equal(b->name, u->prop_bus));
}

static bool take_port(struct usb_device *u, GError **error)
{
    uint64_t wanted = 0;
    bool found = false, too_slow = false;
    if (u->prop_port && (!text_u64(u->prop_port, &wanted) || !wanted)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "port=%s: there are no hubs, a port is a number from 1", u->prop_port);
        return false;
    }
    for (struct usb_bus *b = buses; b; b = b->next) {
        if (!usable(b, u)) {
            continue;
        }
        found = true;
        if (b->full_speed && u->usb->high_only) {
            too_slow = true;
            continue;
        }
        for (unsigned i = 1; i <= b->ports; i++) {
            if (!b->device[i] && (!wanted || wanted == i)) {
                u->bus = b;
                u->port = i;
                b->device[i] = u;
                return true;
            }
        }
    }
    if (!found) {
        g_set_error(error, LODGE_ERROR, ENODEV,
                    u->prop_bus ? "there is no USB bus \"%s\"" : "there is no USB bus%s",
                    u->prop_bus ? u->prop_bus : "");
    } else if (too_slow) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "not on a USB 1 controller: add usb-ehci or qemu-xhci");
    } else {
        g_set_error(error, LODGE_ERROR, EBUSY, "no port%s%s is free", u->prop_port ? " " : "",
                    u->prop_port ? u->prop_port : "");
    }
    return false;
}

bool usb_start(struct usb_device *u, const struct usb_model *model, GError **error)
{
    u->usb = model;
    if (!take_port(u, error)) {
        return false;
    }
    u->bus->attached(u->bus, u->port);
    return true;
}

void usb_stop(struct usb_device *u)
{
    if (u->bus) {
        u->bus->device[u->port] = NULL;
        u->bus->detached(u->bus, u->port);
    }
}

void usb_device_reset(struct usb_device *u)
{
    if (u->usb->reset) {
        u->usb->reset(u);
    }
}

void usb_reset(struct usb_device *u)
{
    u->address = u->configuration = 0;
    u->halted = 0;
    u->control_bytes = u->control_at = 0;
    usb_device_reset(u);
}

bool usb_loaded(struct usb_device *u, GError **error)
{
    if (u->control_at > u->control_bytes || u->control_bytes > USB_CONTROL_MAX ||
        u->address > 127) {
        g_set_error(error, LODGE_ERROR, EINVAL, "a control transfer cannot be as it is stated");
        return false;
    }
    return true;
}

void usb_wake(struct usb_device *u, uint8_t endpoint)
{
    if (u->bus) {
        u->bus->wake(u->bus, u->port, endpoint);
    }
}

/* ---- standard requests ---- */

/* As UTF-16; number 0 is the list of languages. */
static int string_descriptor(const struct usb_device *u, unsigned n, uint8_t *out)
{
    const char *text = NULL;
    for (unsigned i = 0; n && i < n && u->usb->strings[i]; i++) {
        text = i + 1 == n ? u->usb->strings[i] : NULL;
    }
    text = n == SERIAL && u->serial ? u->serial : text;
    size_t len = text ? MIN(strlen(text), STRING_MAX) : 0;
    if (n && !text) {
        return -1;
    }
    if (!n) {
        le16_put(out + 2, 0x0409);
        len = 1;
    }
    for (size_t i = 0; n && i < len; i++) {
        le16_put(out + 2 + 2 * i, (uint8_t)text[i]);
    }
    out[0] = (uint8_t)(2 + 2 * len);
    out[1] = DESC_STRING;
    return out[0];
}

/* Intervals count in units of 125 us times a power of two at high speed, in milliseconds else. */
static void slow_down(uint8_t *config, unsigned n)
{
    enum { DESC_ENDPOINT = 5, INTERVAL = 6, INTERRUPT = 3 };
    for (unsigned at = 0; at + 7 <= n && config[at]; at += config[at]) {
        uint8_t *e = config + at;
        if (e[1] == DESC_ENDPOINT && (e[3] & 3) == INTERRUPT && e[INTERVAL]) {
            e[INTERVAL] = (uint8_t)MAX(1 << MIN(e[INTERVAL] - 1, 10) >> 3, 1);
        }
    }
}

static int descriptor(const struct usb_device *u, uint16_t value, uint8_t *out)
{
    const struct usb_model *m = u->usb;
    unsigned n = le16_at(m->config + 2);
    switch (value >> 8) {
    case DESC_DEVICE:
        memcpy(out, m->device, DEVICE_BYTES);
        return DEVICE_BYTES;
    case DESC_CONFIG:
        if (value & 0xff) {
            return -1;
        }
        memcpy(out, m->config, n);
        if (u->bus && u->bus->full_speed) {
            slow_down(out, n);
        }
        return (int)n;
    case DESC_STRING:
        return string_descriptor(u, value & 0xff, out);
    case DESC_QUALIFIER: /* what it would be at the other speed: the same */
        if (m->speed != USB_HIGH || (u->bus && u->bus->full_speed)) {
            return -1;
        }
        memcpy(out + 2, m->device + 2, 6);
        out[0] = QUALIFIER_BYTES;
        out[1] = DESC_QUALIFIER;
        out[8] = 1;
        out[9] = 0;
        return QUALIFIER_BYTES;
    default:
        return -1;
    }
}

static uint32_t halt_bit(uint16_t endpoint)
{
    return 1u << ((endpoint & 15) + (endpoint & 0x80 ? 16 : 0));
}

static int change_feature(struct usb_device *u, const uint8_t *setup, bool set)
{
    uint16_t feature = le16_at(setup + 2);
    if ((setup[0] & RECIPIENT_MASK) == TO_ENDPOINT) {
        if (feature) { /* only ENDPOINT_HALT */
            return -1;
        }
        uint32_t bit = halt_bit(le16_at(setup + 4));
        u->halted = set ? u->halted | bit : u->halted & ~bit;
    }
    return 0; /* remote wake-up is taken and never used */
}

static int standard(struct usb_device *u, const uint8_t *setup, uint8_t *out)
{
    uint16_t value = le16_at(setup + 2);
    switch (setup[1]) {
    case GET_STATUS:
        le16_put(out, (setup[0] & RECIPIENT_MASK) == TO_ENDPOINT
                          ? (u->halted & halt_bit(le16_at(setup + 4)) ? 1 : 0)
                          : 1);
        return 2;
    case CLEAR_FEATURE:
    case SET_FEATURE:
        return change_feature(u, setup, setup[1] == SET_FEATURE);
    case SET_ADDRESS:
        u->address = value & 127;
        return 0;
    case GET_DESCRIPTOR:
        if ((setup[0] & RECIPIENT_MASK) != 0) {
            return u->usb->control(u, setup, out);
        }
        return descriptor(u, value, out);
    case GET_CONFIGURATION:
        out[0] = u->configuration;
        return 1;
    case SET_CONFIGURATION:
        if (value > 1) {
            return -1;
        }
        u->configuration = (uint8_t)value;
        u->halted = 0;
        if (u->usb->configured) {
            u->usb->configured(u);
        }
        return 0;
    case GET_INTERFACE:
        out[0] = 0;
        return 1;
    case SET_INTERFACE:
        return value ? -1 : 0;
    default:
        return -1;
    }
}

/* ---- control transfers ---- */

static int run_control(struct usb_device *u)
{
    int n = u->setup[0] & TYPE_MASK ? u->usb->control(u, u->setup, u->control)
                                    : standard(u, u->setup, u->control);
    if (n < 0) {
        log_line(LOG_UNIMP, "%s: USB request %02x %02x %04x", u->dev.path, u->setup[0], u->setup[1],
                 le16_at(u->setup + 2));
    }
    return n;
}

bool usb_setup(struct usb_device *u, const uint8_t setup[8])
{
    uint16_t wanted = le16_at(setup + 6);
    memcpy(u->setup, setup, sizeof(u->setup));
    u->control_at = u->control_bytes = 0;
    if (!(setup[0] & DIR_IN)) { /* done when the data are there */
        bool fits = wanted <= USB_CONTROL_MAX;
        u->control_bytes = fits ? wanted : 0;
        return fits;
    }
    int n = run_control(u);
    u->control_bytes = n > 0 ? (uint16_t)MIN((unsigned)n, wanted) : 0;
    return n >= 0;
}

size_t usb_data(struct usb_device *u, bool in, uint8_t *bytes, size_t n)
{
    uint8_t *from = u->control + u->control_at;
    if (in != !!(u->setup[0] & DIR_IN)) {
        return 0;
    }
    n = MIN(n, (size_t)(u->control_bytes - u->control_at));
    memcpy(in ? bytes : from, in ? from : bytes, n);
    u->control_at = (uint16_t)(u->control_at + n);
    return n;
}

bool usb_status(struct usb_device *u)
{
    bool out = !(u->setup[0] & DIR_IN), whole = u->control_at == u->control_bytes;
    bool good = !out || (whole && run_control(u) >= 0);
    u->control_bytes = u->control_at = 0;
    return good;
}

/* The status stage goes against the data, or in if there are none. */
enum usb_result usb_control_packet(struct usb_device *u, bool setup, bool in, uint8_t *data,
                                   uint32_t *n)
{
    bool data_in = (u->setup[0] & DIR_IN) && le16_at(u->setup + 6);
    if (setup) {
        return *n == 8 && usb_setup(u, data) ? USB_OK : USB_STALL;
    }
    if (in != data_in) {
        *n = 0;
        return usb_status(u) ? USB_OK : USB_STALL;
    }
    *n = (uint32_t)usb_data(u, in, data, *n);
    return USB_OK;
}

/* ---- other endpoints ---- */

enum usb_result usb_transfer(struct usb_device *u, struct usb_transfer *t)
{
    uint32_t bit = halt_bit((uint16_t)(t->endpoint | (t->in ? 0x80 : 0)));
    t->done = 0;
    if (!u->configuration || (u->halted & bit)) {
        return USB_STALL;
    }
    enum usb_result result = u->usb->transfer(u, t);
    if (result == USB_STALL) {
        u->halted |= bit;
    }
    return result;
}

void usb_cancel(struct usb_device *u)
{
    if (u->usb->cancel) {
        u->usb->cancel(u);
    }
}

size_t usb_put(struct usb_transfer *t, const void *from, size_t n)
{
    size_t done = 0;
    for (unsigned i = 0; i < t->niov && done < n; i++) {
        size_t step = MIN(t->iov[i].iov_len, n - done);
        memcpy(t->iov[i].iov_base, (const uint8_t *)from + done, step);
        done += step;
    }
    t->done = (uint32_t)done;
    return done;
}

size_t usb_get(const struct usb_transfer *t, void *to, size_t n)
{
    size_t done = 0;
    for (unsigned i = 0; i < t->niov && done < n; i++) {
        size_t step = MIN(t->iov[i].iov_len, n - done);
        memcpy((uint8_t *)to + done, t->iov[i].iov_base, step);
        done += step;
    }
    return done;
}
