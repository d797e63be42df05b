/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pc_ports: system control port A (92h) and the coprocessor's error latch (F0h).
 *
 * Spec: Intel, "82371AB PCI-to-ISA / IDE Xcelerator (PIIX4)", "Port 92 Register",
 * "Coprocessor Error Register".
 * A20 follows whoever set it last, this port or the keyboard controller.
 */
#include "guest/device/pc_ports.h"

#include "guest/cpu/vcpu.h"
#include "guest/device/board.h"

enum { PORT92_RESET = 1, PORT92_A20 = 2 };

struct pc_ports {
    struct device dev;
    struct irq *irq13;
    uint8_t port92;
    bool ferr;
    struct device_window window[2];
};

static struct pc_ports *self(struct device *dev)
{
    return container_of(dev, struct pc_ports, dev);
}

static void settle(struct device *dev)
{
    irq_set(self(dev)->irq13, self(dev)->ferr);
}

void pc_ports_ferr(struct device *ports)
{
    self(ports)->ferr = true;
    settle(ports);
}

static void port92_write(struct device *dev, uint64_t old, uint64_t now)
{
    if ((old ^ now) & PORT92_A20) {
        vcpus_set_a20(now & PORT92_A20);
    }
    if ((now & ~old & PORT92_RESET) && dev->board->request) {
        dev->board->request(dev->board, BOARD_RESET, 0);
    }
}

static void f0_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    self(dev)->ferr = false;
}

static void reset(struct device *dev)
{
    (void)dev;
    vcpus_set_a20(true);
}

static bool start(struct device *dev, GError **error)
{
    struct pc_ports *s = self(dev);
    (void)error;
    if (!s->irq13) {
        s->irq13 = device_irq(dev, dev->board->isa_irq[13]);
    }
    device_window_init(&s->window[0], dev, 0, "port92", 1);
    device_window_init(&s->window[1], dev, 1, "ferr", 1);
    device_place(&s->window[0], dev->board->ports, 0x92, 0);
    device_place(&s->window[1], dev->board->ports, 0xf0, 0);
    board_add_part(dev->board, "pc-ports", dev);
    return true;
}

static const struct reg regs[] = {
    REG(struct pc_ports, port92, .window = 0, .port = 0, .dir = REG_RW, .writable = 0x0b,
        .reset = PORT92_A20, .on_write = port92_write, .help = "fast A20 and reset"),
    REG_COMPUTED("f0", .window = 1, .port = 0, .dir = REG_W, .on_write = f0_write),
    STATE(struct pc_ports, ferr, .help = "IRQ 13 is asked for"),
};

static const struct wire wires[] = {{"irq13", WIRE_IRQ, offsetof(struct pc_ports, irq13)}};

const struct device_model model_pc_ports = {
    .name = "port92",
    .about = "fast A20, reset and coprocessor error ports",
    .spec = "Intel PIIX4 data sheet, \"Port 92 Register\"",
    .size = sizeof(struct pc_ports),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .wires = wires,
    .nwires = G_N_ELEMENTS(wires),
    .start = start,
    .reset = reset,
    .settle = settle,
};
