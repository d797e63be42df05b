/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * parallel: the printer port, at an ISA address.
 *
 * Spec: IBM, "Personal Computer XT/AT Technical Reference", "Parallel Printer Adapter"; IEEE
 * 1284-1994, "Compatibility Mode".
 * A byte goes to the backend when the strobe begins; what the backend cannot take keeps the
 * port busy.  Not modelled: input, EPP and ECP.
 */
#include "guest/device/board.h"
#include "host/chardev/chardev.h"

enum { STS_ONE = 0x07, STS_NO_ERROR = 0x08, STS_SELECTED = 0x10, STS_NO_ACK = 0x40, STS_READY = 0x80 };
enum { CTL_STROBE = 0x01, CTL_INIT = 0x04, CTL_SELECT = 0x08, CTL_IRQ = 0x10, CTL_ONES = 0xc0 };

struct parallel {
    struct device dev;
    struct irq *irq;
    struct chardev *chr;
    uint32_t iobase, irq_number, index; /* properties */

    uint8_t data, control;
    uint8_t held;      /* the byte that the backend has not taken */
    bool busy;         /* there is one */
    bool acknowledged; /* the printer took a byte, and nobody has seen its pulse */
    struct device_window window;
};

static struct parallel *self(struct device *dev)
{
    return container_of(dev, struct parallel, dev);
}

static void offer(struct parallel *s)
{
    if (s->busy && (!s->chr || chardev_write(s->chr, &s->held, 1) == 1)) {
        s->busy = false;
        s->acknowledged = true;
        if (s->control & CTL_IRQ) {
            irq_pulse(s->irq);
        }
    }
}

static void writable(void *peer)
{
    offer(peer);
}

/* The pulse on ACK is low for one look. */
static uint64_t status_read(struct device *dev, uint64_t stored)
{
    struct parallel *s = self(dev);
    (void)stored;
    uint8_t v = STS_ONE | STS_NO_ERROR | STS_SELECTED | (s->busy ? 0 : STS_READY) |
                (s->acknowledged ? 0 : STS_NO_ACK);
    s->acknowledged = false;
    return v;
}

static void control_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct parallel *s = self(dev);
    if (!(now & CTL_INIT)) {
        s->busy = s->acknowledged = false;
    } else if ((now & ~old & CTL_STROBE) && !s->busy) {
        s->held = s->data;
        s->busy = true;
        offer(s);
    }
}

static uint64_t control_read(struct device *dev, uint64_t stored)
{
    (void)dev;
    return stored | CTL_ONES;
}

static bool start(struct device *dev, GError **error)
{
    static const struct {
        uint16_t iobase;
        uint8_t irq;
    } lpt[] = {{0x378, 7}, {0x278, 5}, {0x3bc, 7}};
    struct parallel *s = self(dev);
    unsigned n = s->index;
    if (n == UINT32_MAX) { /* the next one */
        n = 0;
        for (struct device *d = dev->board->devices; d && d != dev; d = d->next) {
            n += d->model == dev->model;
        }
    }
    if (n >= G_N_ELEMENTS(lpt) && (!s->iobase || !s->irq_number)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "index is 0 to 2, or iobase and irq are given");
        return false;
    }
    s->iobase = s->iobase ? s->iobase : lpt[n].iobase;
    s->irq_number = s->irq_number ? s->irq_number : lpt[n].irq;
    if (s->irq_number > 15 || s->iobase > 0xfff8) {
        g_set_error(error, LODGE_ERROR, EINVAL, "irq is up to 15, iobase up to 0xfff8");
        return false;
    }
    s->irq = s->irq ? s->irq : device_irq(dev, dev->board->isa_irq[s->irq_number]);
    if (s->chr) {
        s->chr->writable = writable;
        s->chr->peer = s;
    }
    device_window_init(&s->window, dev, 0, "parallel", 8);
    device_place(&s->window, dev->board->ports, s->iobase, 0);
    return true;
}

static void stop(struct device *dev)
{
    struct parallel *s = self(dev);
    if (s->chr) {
        s->chr->writable = NULL;
        s->chr->peer = NULL;
    }
}

#define R(field, ...) REG(struct parallel, field, __VA_ARGS__)
static const struct reg regs[] = {
    R(data, .port = 0, .dir = REG_RW, .writable = 0xff, .help = "data"),
    REG_COMPUTED("status", .port = 1, .dir = REG_R, .on_read = status_read, .help = "status"),
    R(control, .port = 2, .dir = REG_RW, .writable = 0x3f, .reset = CTL_SELECT | CTL_INIT,
      .on_read = control_read, .on_write = control_write, .help = "control"),
    STATE(struct parallel, held),
    STATE(struct parallel, busy, .help = "the backend has not taken the byte"),
    STATE(struct parallel, acknowledged, .help = "a pulse that nobody has seen"),
};
static const struct wire wires[] = {{"irq", WIRE_IRQ, offsetof(struct parallel, irq)}};
#define P(field) offsetof(struct parallel, field)
static const struct prop props[] = {
    {"chardev", PROP_CHARDEV, P(chr), .help = "id of the -chardev that prints"},
    {"iobase", PROP_U32, P(iobase)},
    {"irq", PROP_U32, P(irq_number)},
    {"index", PROP_U32, P(index), UINT32_MAX, .help = "0 to 2: LPT1 to LPT3"},
};

const struct device_model model_parallel = {
    .name = "isa-parallel",
    .about = "printer port",
    .spec = "IBM, \"Parallel Printer Adapter\"",
    .size = sizeof(struct parallel),
    .version = 1,
    .bus = BUS_ISA,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .wires = wires,
    .nwires = G_N_ELEMENTS(wires),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = stop,
};
