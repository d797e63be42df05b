/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * debug_exit: a port that ends the machine with the guest's number as exit code.
 *
 * Spec: QEMU's `-device isa-debug-exit`: the exit code is the number twice, plus one.
 */
#include "guest/device/board.h"

struct debug_exit {
    struct device dev;
    uint32_t iobase, iosize;
    struct device_window window;
};

static struct debug_exit *self(struct device *dev)
{
    return container_of(dev, struct debug_exit, dev);
}

static uint64_t port_read(struct device *dev, uint64_t stored)
{
    (void)dev, (void)stored;
    return 0;
}

static void port_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    if (dev->board->request) {
        dev->board->request(dev->board, BOARD_EXIT, (int)(now << 1 & 0xff) | 1);
    }
}

static bool start(struct device *dev, GError **error)
{
    struct debug_exit *s = self(dev);
    if (s->iosize < 1 || s->iosize > 4 || s->iobase > 0x10000 - s->iosize) {
        g_set_error(error, LODGE_ERROR, EINVAL, "iobase 0x%x, iosize %u is no range of ports",
                    s->iobase, s->iosize);
        return false;
    }
    if (!board_ports_free(dev->board, s->iobase, s->iosize, error)) {
        return false;
    }
    device_window_init(&s->window, dev, 0, "debug-exit", s->iosize);
    device_place(&s->window, dev->board->ports, s->iobase, 0);
    return true;
}

static const struct reg regs[] = {
    REG_COMPUTED("code", .port = 0, .width = 4, .dir = REG_RW, .on_read = port_read,
                 .on_write = port_write),
};

static const struct prop props[] = {
    {"iobase", PROP_U32, offsetof(struct debug_exit, iobase), 0x501},
    {"iosize", PROP_U32, offsetof(struct debug_exit, iosize), 2, .help = "bytes, 1 to 4"},
};

const struct device_model model_debug_exit = {
    .name = "isa-debug-exit",
    .about = "ends the machine with an exit code",
    .spec = "QEMU, isa-debug-exit",
    .size = sizeof(struct debug_exit),
    .version = 1,
    .bus = BUS_ISA,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
};
