/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/pci.h"
#include "guest/device/usb.h"

/* uhci - what the USB 1 controllers share, which differ by their ids */
enum { UHCI_PORTS = 2 };

struct uhci {
    struct pci_device pci; /* first */
    struct usb_bus bus;    /* without a name: a companion, whose devices the EHCI has */
    struct device_window window;
    /* Registers. */
    uint16_t cmd, sts, intr, frnum, portsc[UHCI_PORTS];
    uint32_t flbase;
    uint8_t sofmod;
    /* More state. */
    uint8_t done;     /* why bit 0 of the status is set: a TD that asked for it, a short packet */
    struct timer frame;
    /* Properties. */
    const char *prop_masterbus;
    uint32_t prop_firstport;
};

bool uhci_start(struct device *dev, GError **error);
void uhci_stop(struct device *dev);
void uhci_settle(struct device *dev);
void uhci_reset(struct device *dev);
bool uhci_loaded(struct device *dev, GError **error);

enum { UHCI_NREGS = 14 };
extern const struct reg uhci_regs[UHCI_NREGS];
extern const struct prop uhci_props[7];
#define UHCI_IDENT                                                                                 \
    .vendor = 0x8086, .class = 0x0c0300, .subsystem_vendor = 0x1af4, .subsystem = 0x1100,          \
    .irq_pin = 1, .revision = 1
#define UHCI_MODEL                                                                                 \
    .spec = "Intel, Universal Host Controller Interface 1.1, \"Registers\"",                       \
    .size = sizeof(struct uhci), .version = 1, .bus = BUS_PCI, .regs = uhci_regs,                  \
    .nregs = G_N_ELEMENTS(uhci_regs), .props = uhci_props, .nprops = G_N_ELEMENTS(uhci_props),     \
    .bus_data = &ident, .start = uhci_start, .stop = uhci_stop, .settle = uhci_settle,             \
    .reset = uhci_reset, .loaded = uhci_loaded
