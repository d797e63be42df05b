/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

#include <sys/uio.h>

/*
 * usb - devices on the ports of a USB controller
 *
 * Spec: USB-IF, Universal Serial Bus Specification, Revision 2.0, "USB Device Framework".
 *
 * A controller has a struct usb_bus with ports; a USB device is a device of BUS_USB that takes
 * one of them.  The controller hands over whole transfers: usb_control() for endpoint 0 (usb.c
 * answers the standard requests from the device's table of descriptors), usb_transfer() for the
 * others.  A device that has nothing to say answers USB_NAK and calls usb_wake() when it has.
 * Thread: machine lock held.
 */
enum { USB_CONTROL_MAX = 1024, USB_ENDPOINTS = 16, USB_PORTS_MAX = 15 };
enum usb_speed { USB_FULL = 1, USB_LOW = 2, USB_HIGH = 3, USB_SUPER = 4 }; /* xHCI's numbers */
enum usb_result { USB_OK, USB_NAK, USB_STALL, USB_ASYNC };

struct usb_device;

/* One transfer of an endpoint that is not 0; the controller owns it until it has ended. */
struct usb_transfer {
    uint8_t endpoint;
    bool in;             /* to the host */
    const struct iovec *iov;
    unsigned niov;
    uint32_t bytes;      /* the host has, or has room for */
    uint32_t done;       /* bytes moved */
    /* After USB_ASYNC: it has ended with @result (OK or STALL). */
    void (*ended)(struct usb_transfer *t, enum usb_result result);
    void *owner;
};

/* What a device is, for GET DESCRIPTOR. */
struct usb_model {
    const uint8_t *device;  /* 18 bytes */
    const uint8_t *config;  /* with interfaces and endpoints; its length is inside */
    const char *const *strings; /* from number 1 on, NULL-terminated; number 3 is the serial */
    enum usb_speed speed;
    /* Class and vendor requests, and GET DESCRIPTOR of an interface: @data has USB_CONTROL_MAX
     * bytes; to the host how many are to be sent is returned, -1 is a stall. */
    int (*control)(struct usb_device *u, const uint8_t setup[8], uint8_t *data);
    enum usb_result (*transfer)(struct usb_device *u, struct usb_transfer *t);
    void (*reset)(struct usb_device *u);      /* a bus reset */
    void (*configured)(struct usb_device *u); /* .configuration was set */
    void (*cancel)(struct usb_device *u);     /* what is USB_ASYNC ends before this returns */
    bool high_only;                           /* of no use on a USB 1 controller */
};

struct usb_device {
    struct device dev; /* first */
    const struct usb_model *usb;
    struct usb_bus *bus;
    unsigned port; /* from 1 on */
    const char *serial;
    /* State. */
    uint8_t address, configuration;
    uint32_t halted;   /* endpoints: bit n out, bit 16 + n in */
    uint8_t setup[8];
    uint16_t control_bytes, control_at; /* of .control that the data stage moves; moved */
    uint8_t control[USB_CONTROL_MAX];
    /* Properties. */
    const char *prop_bus, *prop_port;
};
#define USB_STATE(type, m)                                                                         \
    STATE(type, m.address), STATE(type, m.configuration), STATE(type, m.halted),                   \
        STATE_ARRAY(type, m.setup), STATE(type, m.control_bytes), STATE(type, m.control_at),       \
        STATE_ARRAY(type, m.control)
#define USB_PROPS(type, m)                                                                         \
    {"bus", PROP_STRING, offsetof(type, m.prop_bus)}, {"port", PROP_STRING, offsetof(type, m.prop_port)}

struct usb_bus {
    char *name; /* "usb.0" */
    struct device *owner;
    unsigned ports;
    bool full_speed; /* all devices on it run at that: a USB 1 controller */
    struct usb_device *device[USB_PORTS_MAX + 1];
    void (*attached)(struct usb_bus *bus, unsigned port);
    void (*detached)(struct usb_bus *bus, unsigned port); /* .device[port] is NULL already */
    void (*wake)(struct usb_bus *bus, unsigned port, uint8_t endpoint); /* 0x80: to the host */
    struct usb_bus *next; /* usb.c's */
};
/* A controller without an id is named "usb.0" if that is free. */
void usb_bus_add(struct usb_bus *bus, struct device *owner);
void usb_bus_remove(struct usb_bus *bus);

/* ---- for controllers ---- */
void usb_reset(struct usb_device *u);
/* The stages of a control transfer.  False is a stall. */
bool usb_setup(struct usb_device *u, const uint8_t setup[8]);
/* Moves up to @n bytes of the data stage; returns how many. */
size_t usb_data(struct usb_device *u, bool in, uint8_t *bytes, size_t n);
bool usb_status(struct usb_device *u);
/* One packet, or one stage, of endpoint 0 for controllers that do not tell stages apart: up to
 * *@n bytes move, which becomes how many did. */
enum usb_result usb_control_packet(struct usb_device *u, bool setup, bool in, uint8_t *data, uint32_t *n);
void usb_cancel(struct usb_device *u);
enum usb_result usb_transfer(struct usb_device *u, struct usb_transfer *t);

/* ---- for devices ---- */
bool usb_start(struct usb_device *u, const struct usb_model *model, GError **error);
void usb_stop(struct usb_device *u);
void usb_device_reset(struct usb_device *u); /* from a model's .reset */
bool usb_loaded(struct usb_device *u, GError **error);
void usb_wake(struct usb_device *u, uint8_t endpoint);
size_t usb_put(struct usb_transfer *t, const void *from, size_t n);
size_t usb_get(const struct usb_transfer *t, void *to, size_t n);
