/* SPDX-License-Identifier: GPL-2.0-or-later */

/* virtio_tablet: tablet: a pointer with absolute places on virtio; the work is in virtio_input.c.
 */
#include "guest/device/virtio_input.h"

static const struct input_ident ident = {
    .pci = {.vendor = 0x1af4, .class = 0x090200, .irq_pin = 1},
    .kind = {"QEMU Virtio Tablet", 3, .absolute = true},
};
static const struct reg regs[] = {VIRTIO_INPUT_STATE};
static const struct prop props[] = {VIRTIO_INPUT_PROPS};

const struct device_model model_virtio_tablet = {
    .name = "virtio-tablet-pci",
    .alias = "virtio-tablet",
    .about = "virtio tablet: a pointer with absolute places",
    VIRTIO_INPUT_MODEL,
};
