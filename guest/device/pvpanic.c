/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pvpanic: a port through which a guest says that it has crashed.
 *
 * Spec: QEMU, "PVPANIC DEVICE", "ISA Interface".
 */
#include "guest/device/board.h"

enum { PANICKED = 1, CRASH_LOADED = 2 };

struct pvpanic {
    struct device dev;
    uint32_t ioport, events;
    struct device_window window;
};

static struct pvpanic *self(struct device *dev)
{
    return container_of(dev, struct pvpanic, dev);
}

static uint64_t event_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return self(dev)->events & (PANICKED | CRASH_LOADED);
}

static void event_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    if ((now & self(dev)->events & (PANICKED | CRASH_LOADED)) && dev->board->request) {
        dev->board->request(dev->board, BOARD_PANIC, (int)now & (PANICKED | CRASH_LOADED));
    }
}

static bool start(struct device *dev, GError **error)
{
    struct pvpanic *s = self(dev);
    if (s->ioport > 0xffff) {
        g_set_error(error, LODGE_ERROR, EINVAL, "ioport 0x%x is no port", s->ioport);
        return false;
    }
    device_window_init(&s->window, dev, 0, "pvpanic", 1);
    device_place(&s->window, dev->board->ports, s->ioport, 0);
    dev->board->panic_port = (uint16_t)s->ioport;
    return true;
}

static const struct reg regs[] = {
    REG_COMPUTED("event", .port = 0, .dir = REG_RW, .on_read = event_read, .on_write = event_write),
};

static const struct prop props[] = {
    {"ioport", PROP_U32, offsetof(struct pvpanic, ioport), 0x505},
    {"events", PROP_U32, offsetof(struct pvpanic, events), PANICKED | CRASH_LOADED},
};

const struct device_model model_pvpanic = {
    .name = "pvpanic",
    .about = "tells the host of a guest's panic",
    .spec = "QEMU, PVPANIC DEVICE",
    .size = sizeof(struct pvpanic),
    .version = 1,
    .bus = BUS_ISA,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
};
