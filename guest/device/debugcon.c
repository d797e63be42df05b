/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * debugcon: a port whose bytes go to the host, for firmware and test kernels.
 *
 * Spec: Bochs' port E9 hack, as QEMU documents it for `-device isa-debugcon`.
 */
#include "guest/device/board.h"
#include "host/chardev/chardev.h"

struct debugcon {
    struct device dev;
    struct chardev *chr;
    uint32_t iobase, readback;
    struct device_window window;
};

static struct debugcon *self(struct device *dev)
{
    return container_of(dev, struct debugcon, dev);
}

static uint64_t port_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return self(dev)->readback;
}

static void port_write(struct device *dev, uint64_t old, uint64_t now)
{
    uint8_t byte = (uint8_t)now;
    (void)old;
    chardev_write(self(dev)->chr, &byte, 1);
}

static bool start(struct device *dev, GError **error)
{
    struct debugcon *s = self(dev);
    if (s->iobase > 0xffff) {
        g_set_error(error, LODGE_ERROR, EINVAL, "iobase 0x%x is no port", s->iobase);
        return false;
    }
    device_window_init(&s->window, dev, 0, "debugcon", 1);
    device_place(&s->window, dev->board->ports, s->iobase, 0);
    return true;
}

static const struct reg regs[] = {
    REG_COMPUTED("data", .port = 0, .dir = REG_RW, .on_read = port_read, .on_write = port_write),
};

static const struct prop props[] = {
    {"chardev", PROP_CHARDEV, offsetof(struct debugcon, chr)},
    {"iobase", PROP_U32, offsetof(struct debugcon, iobase), 0xe9},
    {"readback", PROP_U32, offsetof(struct debugcon, readback), 0xe9,
     .help = "what a read gives: how guests see that the port is there"},
};

const struct device_model model_debugcon = {
    .name = "isa-debugcon",
    .about = "debug console port",
    .spec = "Bochs, port E9 hack",
    .size = sizeof(struct debugcon),
    .version = 1,
    .bus = BUS_ISA,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
};
