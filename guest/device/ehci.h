/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/pci.h"
#include "guest/device/usb.h"

/* ehci - what the USB 2 controllers share, which differ by their ids */
enum { EHCI_PORTS = 6, EHCI_TRANSFER_MAX = 5 * 4096 };

/* What a device has not finished; nothing is under way while a state is saved. */
struct ehci_flight {
    struct usb_transfer t;
    struct iovec iov;
    struct ehci *ehci;
    bool busy;
    unsigned seen;     /* the round that last came by */
    uint32_t qh, qtd, token, page[5];
    uint8_t data[EHCI_TRANSFER_MAX];
};

struct ehci {
    struct pci_device pci; /* first */
    struct usb_bus bus;
    struct device_window window;
    /* Registers. */
    uint32_t cmd, sts, intr, frindex, segment, periodic, async, config, portsc[EHCI_PORTS];
    /* More state. */
    struct timer frame;
    /* Of this process. */
    struct ehci_flight *flight; /* one a port, and one more for what ends at once */
    unsigned round, budget; /* budget: bytes that this look may still move */
};

bool ehci_start(struct device *dev, GError **error);
void ehci_stop(struct device *dev);
void ehci_settle(struct device *dev);
void ehci_reset(struct device *dev);
bool ehci_loaded(struct device *dev, GError **error);

enum { EHCI_NREGS = 23 };
extern const struct reg ehci_regs[EHCI_NREGS];
extern const struct prop ehci_props[5];
#define EHCI_IDENT                                                                                 \
    .vendor = 0x8086, .class = 0x0c0320, .subsystem_vendor = 0x1af4, .subsystem = 0x1100,          \
    .irq_pin = 1
#define EHCI_MODEL                                                                                 \
    .spec = "Intel, Enhanced Host Controller Interface 1.0, \"Register Interface\"",               \
    .size = sizeof(struct ehci), .version = 1, .bus = BUS_PCI, .regs = ehci_regs,                  \
    .nregs = G_N_ELEMENTS(ehci_regs), .props = ehci_props, .nprops = G_N_ELEMENTS(ehci_props),     \
    .bus_data = &ident, .start = ehci_start, .stop = ehci_stop, .settle = ehci_settle,             \
    .reset = ehci_reset, .loaded = ehci_loaded
