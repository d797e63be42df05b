/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * i8259: master and slave interrupt controller with edge/level control registers.
 *
 * Spec: Intel, "8259A Programmable Interrupt Controller" data sheet, "Programming the
 * 8259A"; Intel, "82371AB PCI-to-ISA / IDE Xcelerator (PIIX4)", "ELCR1, ELCR2".
 * Differs: an edge stays latched when its line falls before it was acknowledged, because
 * sources may pulse a line in no time.  8085 mode and buffered mode are not modelled.
 */
#include "guest/device/i8259.h"

#include "guest/device/board.h"

enum { ICW1_INIT = 0x10, ICW1_LEVEL = 0x08, ICW1_SINGLE = 0x02, ICW1_ICW4 = 0x01 };
enum { ICW4_AEOI = 0x02, ICW4_NESTED = 0x10 };
enum { OCW3 = 0x08, OCW3_POLL = 0x04, OCW3_READ = 0x02, OCW3_SMASK = 0x40 };
enum { CASCADE = 2 };
enum { MASTER, SLAVE };

struct chip {
    uint8_t lines;  /* inputs as they are */
    uint8_t irr, isr, imr;
    uint8_t elcr;   /* 1: level-triggered */
    uint8_t base;   /* vector of input 0 */
    uint8_t lowest; /* the input with the lowest priority */
    uint8_t expect; /* which ICW the data port takes next: 2, 3, 4; 0: OCW1 */
    uint8_t icw1;
    bool auto_eoi, rotate_aeoi, special_mask, nested, poll, read_isr;
};

struct i8259 {
    struct device dev;
    struct irq *out;
    struct irq input[16];
    struct chip chip[2];
    _Atomic bool asks;
    struct device_window window[3];
};

static struct i8259 *self(struct device *dev)
{
    return container_of(dev, struct i8259, dev);
}

static uint8_t level_mask(const struct chip *c)
{
    return c->icw1 & ICW1_LEVEL ? 0xff : c->elcr;
}

/* The input that the chip would ask for now, or -1. */
static int pending(const struct chip *c, bool is_master)
{
    unsigned ask = c->irr & ~c->imr;
    unsigned blocking = c->special_mask ? c->isr & ~c->imr : c->isr;
    if (!ask) {
        return -1;
    }
    for (unsigned i = 1; i <= 8; i++) {
        unsigned n = (c->lowest + i) & 7;
        bool again = c->nested && is_master && n == CASCADE;
        if ((blocking >> n & 1) && !again) {
            return -1;
        }
        if (ask >> n & 1) {
            return (int)n;
        }
        if (blocking >> n & 1) {
            return -1;
        }
    }
    return -1;
}

static void settle(struct device *dev)
{
    struct i8259 *s = self(dev);
    struct chip *m = &s->chip[MASTER];
    for (unsigned i = 0; i < 2; i++) { /* a level is not latched */
        struct chip *c = &s->chip[i];
        c->irr = (uint8_t)((c->irr & ~level_mask(c)) | (c->lines & level_mask(c)));
    }
    bool cascade = pending(&s->chip[SLAVE], false) >= 0;
    m->irr = (uint8_t)((m->irr & ~(1 << CASCADE)) | cascade << CASCADE);
    bool asks = pending(m, true) >= 0;
    atomic_store(&s->asks, asks);
    irq_set(s->out, asks);
}

static void input_set(struct irq *irq, bool level)
{
    struct i8259 *s = irq->owner;
    struct chip *c = &s->chip[irq->n / 8];
    uint8_t bit = (uint8_t)(1 << (irq->n & 7));
    if (level) {
        c->irr |= c->lines & bit ? 0 : bit;
        c->lines |= bit;
    } else {
        c->lines &= (uint8_t)~bit;
    }
    settle(&s->dev);
}

struct irq *i8259_input(struct device *pic, unsigned n)
{
    return n < 16 ? &self(pic)->input[n] : NULL;
}

bool i8259_asks(struct device *pic)
{
    return atomic_load(&self(pic)->asks);
}

/* ---- acknowledge and end of interrupt ---- */

static void chip_acknowledge(struct chip *c, unsigned n)
{
    uint8_t bit = (uint8_t)(1 << n);
    if (!c->auto_eoi) {
        c->isr |= bit;
    } else if (c->rotate_aeoi) {
        c->lowest = (uint8_t)n;
    }
    c->irr &= (uint8_t) ~(bit & ~level_mask(c));
}

/* The input whose vector the chip gives; 7, unacknowledged, if there is none. */
static unsigned chip_take(struct chip *c, bool is_master)
{
    int n = pending(c, is_master);
    if (n >= 0) {
        chip_acknowledge(c, (unsigned)n);
    }
    return n >= 0 ? (unsigned)n : 7;
}

int i8259_acknowledge(struct device *pic)
{
    struct i8259 *s = self(pic);
    struct chip *m = &s->chip[MASTER];
    bool cascaded = pending(m, true) == CASCADE;
    unsigned n = chip_take(m, true);
    int vector = m->base + (int)n;
    if (cascaded) {
        vector = s->chip[SLAVE].base + (int)chip_take(&s->chip[SLAVE], false);
    }
    settle(pic);
    return vector;
}

static void end_of_interrupt(struct chip *c, uint8_t ocw2)
{
    bool specific = ocw2 & 0x40, rotate = ocw2 & 0x80, eoi = ocw2 & 0x20;
    unsigned n = ocw2 & 7;
    if (!eoi && !specific) {
        c->rotate_aeoi = rotate;
        return;
    }
    if (!specific) { /* the highest priority in service */
        unsigned in_service = c->special_mask ? c->isr & ~c->imr : c->isr, i = 1;
        while (i <= 8 && !(in_service >> ((c->lowest + i) & 7) & 1)) {
            i++;
        }
        if (i > 8) {
            return;
        }
        n = (c->lowest + i) & 7;
    }
    if (eoi) {
        c->isr &= (uint8_t) ~(1 << n);
    }
    if (rotate) {
        c->lowest = (uint8_t)n;
    }
}

/* ---- ports ---- */

static void initialize(struct chip *c, uint8_t icw1)
{
    c->icw1 = icw1;
    c->irr = c->lines & level_mask(c);
    c->isr = c->imr = 0;
    c->lowest = 7;
    c->auto_eoi = c->rotate_aeoi = c->special_mask = c->nested = c->poll = c->read_isr = false;
    c->expect = 2;
}

static void command_write(struct chip *c, uint8_t v)
{
    if (v & ICW1_INIT) {
        initialize(c, v);
    } else if (v & OCW3) {
        c->poll = v & OCW3_POLL;
        if (v & OCW3_READ) {
            c->read_isr = v & 1;
        }
        if (v & OCW3_SMASK) {
            c->special_mask = v & 0x20;
        }
    } else {
        end_of_interrupt(c, v);
    }
}

static void data_write(struct chip *c, uint8_t v)
{
    switch (c->expect) {
    case 2:
        c->base = v & 0xf8;
        c->expect = c->icw1 & ICW1_SINGLE ? (c->icw1 & ICW1_ICW4 ? 4 : 0) : 3;
        break;
    case 3: /* the cascade is soldered */
        c->expect = c->icw1 & ICW1_ICW4 ? 4 : 0;
        break;
    case 4:
        c->nested = v & ICW4_NESTED;
        c->auto_eoi = v & ICW4_AEOI;
        c->expect = 0;
        break;
    default:
        c->imr = v;
        break;
    }
}

static uint8_t poll_read(struct chip *c, bool is_master)
{
    int n = pending(c, is_master);
    c->poll = false;
    if (n < 0) {
        return 0;
    }
    chip_acknowledge(c, (unsigned)n);
    return (uint8_t)(0x80 | n);
}

static uint64_t port_read(struct device *dev, unsigned which, bool data)
{
    struct chip *c = &self(dev)->chip[which];
    if (c->poll) {
        return poll_read(c, which == MASTER);
    }
    return data ? c->imr : c->read_isr ? c->isr : c->irr;
}

#define PORTS(name, which)                                                                         \
    static uint64_t name##_command_read(struct device *dev, uint64_t stored)                       \
    {                                                                                              \
        (void)stored;                                                                              \
        return port_read(dev, which, false);                                                       \
    }                                                                                              \
    static uint64_t name##_data_read(struct device *dev, uint64_t stored)                          \
    {                                                                                              \
        (void)stored;                                                                              \
        return port_read(dev, which, true);                                                        \
    }                                                                                              \
    static void name##_command_write(struct device *dev, uint64_t old, uint64_t now)               \
    {                                                                                              \
        (void)old;                                                                                 \
        command_write(&self(dev)->chip[which], (uint8_t)now);                                      \
    }                                                                                              \
    static void name##_data_write(struct device *dev, uint64_t old, uint64_t now)                  \
    {                                                                                              \
        (void)old;                                                                                 \
        data_write(&self(dev)->chip[which], (uint8_t)now);                                         \
    }
PORTS(master, MASTER)
PORTS(slave, SLAVE)

static bool loaded(struct device *dev, GError **error)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct chip *c = &self(dev)->chip[i];
        if (c->lowest > 7 || c->expect == 1 || c->expect > 4) {
            g_set_error(error, LODGE_ERROR, EINVAL, "chip %u is in no possible state", i);
            return false;
        }
    }
    return true;
}

static bool start(struct device *dev, GError **error)
{
    static const uint16_t at[] = {0x20, 0xa0, 0x4d0};
    static const char *const names[] = {"pic", "pic-slave", "elcr"};
    struct i8259 *s = self(dev);
    (void)error;
    for (unsigned i = 0; i < 16; i++) {
        s->input[i] = (struct irq){.set = input_set, .owner = s, .n = i};
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(at); i++) {
        device_window_init(&s->window[i], dev, i, names[i], 2);
        device_place(&s->window[i], dev->board->ports, at[i], 0);
    }
    board_add_part(dev->board, "pic", dev);
    return true;
}

#define CHIP(n)                                                                                    \
    STATE(struct i8259, chip[n].lines, .keep = true), STATE(struct i8259, chip[n].irr),            \
        STATE(struct i8259, chip[n].isr), STATE(struct i8259, chip[n].imr),                        \
        STATE(struct i8259, chip[n].base), STATE(struct i8259, chip[n].lowest, .reset = 7),        \
        STATE(struct i8259, chip[n].expect), STATE(struct i8259, chip[n].icw1),                    \
        STATE(struct i8259, chip[n].auto_eoi), STATE(struct i8259, chip[n].rotate_aeoi),           \
        STATE(struct i8259, chip[n].special_mask), STATE(struct i8259, chip[n].nested),            \
        STATE(struct i8259, chip[n].poll), STATE(struct i8259, chip[n].read_isr)

static const struct reg regs[] = {
    CHIP(MASTER),
    CHIP(SLAVE),
    REG_COMPUTED("ocw23", .window = 0, .port = 0, .dir = REG_RW, .on_read = master_command_read,
                 .on_write = master_command_write, .help = "master commands, IRR or ISR"),
    REG_COMPUTED("ocw1", .window = 0, .port = 1, .dir = REG_RW, .on_read = master_data_read,
                 .on_write = master_data_write, .help = "master ICW2 to ICW4, mask"),
    REG_COMPUTED("slave-ocw23", .window = 1, .port = 0, .dir = REG_RW,
                 .on_read = slave_command_read, .on_write = slave_command_write),
    REG_COMPUTED("slave-ocw1", .window = 1, .port = 1, .dir = REG_RW, .on_read = slave_data_read,
                 .on_write = slave_data_write),
    REG(struct i8259, chip[MASTER].elcr, .window = 2, .port = 0, .dir = REG_RW, .writable = 0xf8,
        .help = "IRQ 0, 1 and 2 are always edges"),
    REG(struct i8259, chip[SLAVE].elcr, .window = 2, .port = 1, .dir = REG_RW, .writable = 0xde,
        .help = "IRQ 8 and 13 are always edges"),
};

static const struct wire wires[] = {{"int", WIRE_IRQ, offsetof(struct i8259, out)}};

const struct device_model model_i8259 = {
    .name = "i8259",
    .alias = "isa-i8259",
    .about = "PC interrupt controllers, master and slave",
    .spec = "Intel 8259A data sheet, \"Programming the 8259A\"",
    .size = sizeof(struct i8259),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .wires = wires,
    .nwires = G_N_ELEMENTS(wires),
    .start = start,
    .settle = settle,
    .loaded = loaded,
};
