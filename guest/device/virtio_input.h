/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/virtio.h"
#include "host/display/display.h"

/* virtio_input - what virtio-keyboard-pci, virtio-mouse-pci and virtio-tablet-pci share */
enum { INPUT_WAITING = 64 };

struct input_kind {
    const char *name;
    uint16_t product;
    bool keys, absolute; /* not .keys: a pointer */
};

struct virtio_input {
    struct virtio_pci base; /* first */
    const struct input_kind *kind;
    struct display_input input;
    /* State: events that wait for buffers, the oldest first. */
    uint16_t type[INPUT_WAITING], code[INPUT_WAITING];
    uint32_t value[INPUT_WAITING];
    uint8_t waiting, buttons;
    int32_t at_x, at_y; /* as last told */
    const char *prop_serial;
};

bool virtio_input_start(struct device *dev, GError **error);
void virtio_input_stop(struct device *dev);
bool virtio_input_loaded(struct device *dev, GError **error);

#define VIRTIO_INPUT_STATE                                                                         \
    VIRTIO_PCI_STATE(struct virtio_input, base), STATE_ARRAY(struct virtio_input, type),           \
        STATE_ARRAY(struct virtio_input, code), STATE_ARRAY(struct virtio_input, value),           \
        STATE(struct virtio_input, waiting), STATE(struct virtio_input, buttons),                  \
        STATE(struct virtio_input, at_x), STATE(struct virtio_input, at_y)
#define VIRTIO_INPUT_PROPS                                                                         \
    VIRTIO_PCI_PROPS(struct virtio_input, base),                                                   \
        {"serial", PROP_STRING, offsetof(struct virtio_input, prop_serial)}
struct input_ident {
    struct pci_ident pci; /* first */
    struct input_kind kind;
};
#define VIRTIO_INPUT_MODEL                                                                         \
    .spec = "OASIS VIRTIO 1.1, \"Input Device\"", .size = sizeof(struct virtio_input),             \
    .version = 1, .bus = BUS_PCI, .regs = regs, .nregs = G_N_ELEMENTS(regs), .props = props,       \
    .nprops = G_N_ELEMENTS(props), .bus_data = &ident, .start = virtio_input_start,                \
    .stop = virtio_input_stop, .settle = virtio_pci_settle, .reset = virtio_pci_reset,             \
    .loaded = virtio_input_loaded
