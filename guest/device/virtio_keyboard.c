/* SPDX-License-Identifier: GPL-2.0-or-later */

/* virtio_keyboard: keyboard on virtio; the work is in virtio_input.c. */
#include "guest/device/virtio_input.h"

static const struct input_ident ident = {
    .pci = {.vendor = 0x1af4, .class = 0x090000, .irq_pin = 1},
    .kind = {"QEMU Virtio Keyboard", 1, .keys = true},
};
static const struct reg regs[] = {VIRTIO_INPUT_STATE};
static const struct prop props[] = {VIRTIO_INPUT_PROPS};

const struct device_model model_virtio_keyboard = {
    .name = "virtio-keyboard-pci",
    .alias = "virtio-keyboard",
    .about = "virtio keyboard",
    VIRTIO_INPUT_MODEL,
};
