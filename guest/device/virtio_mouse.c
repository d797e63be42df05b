/* SPDX-License-Identifier: GPL-2.0-or-later */

/* virtio_mouse: mouse on virtio; the work is in virtio_input.c. */
#include "guest/device/virtio_input.h"

static const struct input_ident ident = {
    .pci = {.vendor = 0x1af4, .class = 0x090200, .irq_pin = 1},
    .kind = {"QEMU Virtio Mouse", 2},
};
static const struct reg regs[] = {VIRTIO_INPUT_STATE};
static const struct prop props[] = {VIRTIO_INPUT_PROPS};

const struct device_model model_virtio_mouse = {
    .name = "virtio-mouse-pci",
    .alias = "virtio-mouse",
    .about = "virtio mouse",
    VIRTIO_INPUT_MODEL,
};
