/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * serial16550: asynchronous serial port with FIFOs, at an ISA address.
 *
 * Spec: National Semiconductor, "PC16550D Universal Asynchronous Receiver/Transmitter with
 * FIFOs" data sheet, "Registers".
 * Not modelled: line speed (a byte leaves when the backend takes it), parity and framing
 * errors; the receive timeout is not waited for.
 */
#include "guest/device/board.h"
#include "host/chardev/chardev.h"

enum { IER_RX = 1, IER_TX = 2, IER_LINE = 4, IER_MODEM = 8 };
enum { IIR_NONE = 1, IIR_MODEM = 0, IIR_TX = 2, IIR_RX = 4, IIR_LINE = 6, IIR_TIMEOUT = 12 };
enum { IIR_FIFO = 0xc0 };
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4 };
enum { LSR_DR = 1, LSR_OE = 2, LSR_BI = 0x10, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { LCR_BREAK = 0x40, LCR_DLAB = 0x80, MCR_OUT2 = 8, MCR_LOOP = 0x10 };
enum {
    MSR_DELTA = 0x0f, MSR_TERI = 4, MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80,
};
enum { FIFO = 16 };

struct serial {
    struct device dev;
    struct irq *irq;
    struct chardev *chr;
    uint32_t iobase, irq_number, index; /* properties */

    uint8_t ier, fcr, lcr, mcr, msr, scr, dll, dlm;
    uint8_t errors; /* bits of LSR that a read clears */
    uint8_t rx[FIFO], tx[FIFO];
    uint8_t rx_n, tx_n;
    bool tx_irq; /* the transmitter became empty, and nobody was told */
    struct device_window window;
};

static struct serial *self(struct device *dev)
{
    return container_of(dev, struct serial, dev);
}

static unsigned depth(const struct serial *s)
{
    return s->fcr & FCR_ENABLE ? FIFO : 1;
}

/* The pending interrupt of the highest priority, as IIR shows it. */
static uint8_t cause(const struct serial *s)
{
    static const uint8_t triggers[] = {1, 4, 8, 14};
    if ((s->ier & IER_LINE) && s->errors) {
        return IIR_LINE;
    }
    if ((s->ier & IER_RX) && s->rx_n) {
        bool below = (s->fcr & FCR_ENABLE) && s->rx_n < triggers[s->fcr >> 6];
        return below ? IIR_TIMEOUT : IIR_RX;
    }
    if ((s->ier & IER_TX) && s->tx_irq) {
        return IIR_TX;
    }
    if ((s->ier & IER_MODEM) && (s->msr & MSR_DELTA)) {
        return IIR_MODEM;
    }
    return IIR_NONE;
}

static void settle(struct device *dev)
{
    struct serial *s = self(dev);
    irq_set(s->irq, cause(s) != IIR_NONE && ((s->mcr & MCR_OUT2) && !(s->mcr & MCR_LOOP)));
}

/* ---- receiving ---- */

static size_t room(void *peer)
{
    struct serial *s = peer;
    return s->mcr & MCR_LOOP ? 0 : depth(s) - MIN(s->rx_n, depth(s));
}

static void push(struct serial *s, uint8_t byte)
{
    if (s->rx_n < depth(s)) {
        s->rx[s->rx_n++] = byte;
    } else {
        s->errors |= LSR_OE;
        s->rx[0] = depth(s) == 1 ? byte : s->rx[0]; /* a FIFO keeps what it has */
    }
}

static void receive(void *peer, const uint8_t *data, size_t n)
{
    struct serial *s = peer;
    for (size_t i = 0; i < n; i++) {
        push(s, data[i]);
    }
    settle(&s->dev);
}

static void event(void *peer, enum chardev_event what)
{
    struct serial *s = peer;
    if (what == CHARDEV_BREAK) {
        push(s, 0);
        s->errors |= LSR_BI;
        settle(&s->dev);
    }
}

static uint64_t rbr_read(struct device *dev, uint64_t stored)
{
    struct serial *s = self(dev);
    uint8_t byte = s->rx[0];
    (void)stored;
    if (s->rx_n) {
        memmove(s->rx, s->rx + 1, --s->rx_n);
        if (!s->rx_n) {
            chardev_accept_input(s->chr);
        }
    }
    return byte;
}

/* ---- sending ---- */

static void flush(struct serial *s)
{
    if (!s->tx_n) {
        return;
    }
    size_t taken = MIN(chardev_write(s->chr, s->tx, s->tx_n), s->tx_n);
    s->tx_n = (uint8_t)(s->tx_n - taken);
    memmove(s->tx, s->tx + taken, s->tx_n);
    s->tx_irq |= s->tx_n == 0;
}

static void writable(void *peer)
{
    struct serial *s = peer;
    flush(s);
    settle(&s->dev);
}

static void thr_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct serial *s = self(dev);
    (void)old;
    s->tx_irq = false;
    if (s->mcr & MCR_LOOP) {
        push(s, (uint8_t)now);
        s->tx_irq = true;
        return;
    }
    if (s->tx_n < FIFO) {
        s->tx[s->tx_n++] = (uint8_t)now;
    }
    flush(s);
}

/* ---- the other registers ---- */

static uint64_t iir_read(struct device *dev, uint64_t stored)
{
    struct serial *s = self(dev);
    uint8_t c = cause(s);
    (void)stored;
    if (c == IIR_TX) {
        s->tx_irq = false;
    }
    return c | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static void fcr_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct serial *s = self(dev);
    bool toggled = (old ^ now) & FCR_ENABLE;
    if ((now & FCR_CLEAR_RX) || toggled) {
        s->rx_n = 0;
        chardev_accept_input(s->chr);
    }
    if ((now & FCR_CLEAR_TX) || toggled) {
        s->tx_irq |= s->tx_n > 0;
        s->tx_n = 0;
    }
    s->fcr = (uint8_t)(now & FCR_ENABLE ? now & 0xc9 : 0);
}

static void ier_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct serial *s = self(dev);
    if ((now & ~old & IER_TX) && !s->tx_n) {
        s->tx_irq = true; /* switching the interrupt on asks for it */
    }
}

static uint64_t lsr_read(struct device *dev, uint64_t stored)
{
    struct serial *s = self(dev);
    uint8_t v = s->errors | (s->rx_n ? LSR_DR : 0) | (s->tx_n ? 0 : LSR_THRE | LSR_TEMT);
    (void)stored;
    s->errors = 0;
    return v;
}

/* In loopback the modem's inputs are the port's own outputs. */
static uint8_t modem_lines(const struct serial *s)
{
    unsigned m = s->mcr;
    if (m & MCR_LOOP) {
        return (uint8_t)((m & 1 ? MSR_DSR : 0) | (m & 2 ? MSR_CTS : 0) | (m & 4 ? MSR_RI : 0) |
                         (m & 8 ? MSR_DCD : 0));
    }
    return MSR_CTS | MSR_DSR | MSR_DCD;
}

static void mcr_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct serial *s = self(dev);
    uint8_t lines = modem_lines(s), changed = (s->msr ^ lines) & 0xf0;
    uint8_t delta = changed >> 4;
    if ((changed & MSR_RI) && (lines & MSR_RI)) {
        delta &= (uint8_t)~MSR_TERI; /* only the trailing edge of RI counts */
    }
    s->msr = (uint8_t)(lines | (s->msr & MSR_DELTA) | delta);
    if ((old & MCR_LOOP) && !(now & MCR_LOOP)) {
        chardev_accept_input(s->chr);
    }
}

static unsigned bank(const struct device *dev)
{
    return container_of(dev, const struct serial, dev)->lcr & LCR_DLAB ? 2 : 1;
}

/* ---- life ---- */

static bool loaded(struct device *dev, GError **error)
{
    struct serial *s = self(dev);
    if (s->rx_n > FIFO || s->tx_n > FIFO) {
        g_set_error(error, LODGE_ERROR, EINVAL, "a FIFO holds more than it can");
        return false;
    }
    flush(s);
    return true;
}

static void attach(struct serial *s)
{
    if (s->chr) {
        s->chr->receive = receive;
        s->chr->room = room;
        s->chr->event = event;
        s->chr->writable = writable;
        s->chr->peer = s;
    }
}

static bool start(struct device *dev, GError **error)
{
    static const struct {
        uint16_t iobase;
        uint8_t irq;
    } com[] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};
    struct serial *s = self(dev);
    unsigned n = s->index;
    if (n == UINT32_MAX) { /* the next one */
        n = 0;
        for (struct device *d = dev->board->devices; d && d != dev; d = d->next) {
            n += d->model == dev->model;
        }
    }
    if (n >= G_N_ELEMENTS(com) && (!s->iobase || !s->irq_number)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "there are 4 serial ports, 0 to 3");
        return false;
    }
    unsigned iobase = s->iobase ? s->iobase : com[n].iobase;
    unsigned irq = s->irq_number ? s->irq_number : com[n].irq;
    if (iobase > 0xfff8 || irq > 15) {
        g_set_error(error, LODGE_ERROR, EINVAL, "no iobase 0x%x or irq %u", iobase, irq);
        return false;
    }
    if (!s->irq) {
        s->irq = device_irq(dev, dev->board->isa_irq[irq]);
    }
    attach(s);
    device_window_init(&s->window, dev, 0, "serial", 8);
    device_place(&s->window, dev->board->ports, iobase, 0);
    return true;
}

static void stop(struct device *dev)
{
    struct serial *s = self(dev);
    if (s->chr && s->chr->peer == s) {
        s->chr->receive = NULL;
        s->chr->room = NULL;
        s->chr->event = NULL;
        s->chr->writable = NULL;
        s->chr->peer = NULL;
    }
}

#define R(field, ...) REG(struct serial, field, __VA_ARGS__)
static const struct reg regs[] = {
    REG_COMPUTED("rbr", .port = 0, .bank = 1, .dir = REG_R, .on_read = rbr_read,
                 .help = "receive buffer"),
    REG_COMPUTED("thr", .port = 0, .bank = 1, .dir = REG_W, .on_write = thr_write,
                 .help = "transmit holding"),
    R(dll, .port = 0, .bank = 2, .dir = REG_RW, .writable = 0xff, .reset = 12,
      .help = "divisor, low byte; 12 is 9600 baud at 1.8432 MHz"),
    R(ier, .port = 1, .bank = 1, .dir = REG_RW, .writable = 0x0f, .on_write = ier_write,
      .help = "interrupt enable"),
    R(dlm, .port = 1, .bank = 2, .dir = REG_RW, .writable = 0xff, .help = "divisor, high byte"),
    REG_COMPUTED("iir", .port = 2, .dir = REG_R, .on_read = iir_read,
                 .help = "interrupt identification"),
    R(fcr, .port = 2, .dir = REG_W, .writable = 0xff, .on_write = fcr_write,
      .help = "FIFO control"),
    R(lcr, .port = 3, .dir = REG_RW, .writable = 0xff, .help = "line control; bit 7 is DLAB"),
    R(mcr, .port = 4, .dir = REG_RW, .writable = 0x1f, .reset = MCR_OUT2, .on_write = mcr_write,
      .help = "modem control"),
    REG_COMPUTED("lsr", .port = 5, .dir = REG_R, .on_read = lsr_read, .help = "line status"),
    R(msr, .port = 6, .dir = REG_R, .reset = MSR_CTS | MSR_DSR | MSR_DCD, .rclr = MSR_DELTA,
      .help = "modem status"),
    R(scr, .port = 7, .dir = REG_RW, .writable = 0xff, .help = "scratch"),
    STATE(struct serial, errors, .help = "line status bits that a read clears"),
    STATE_ARRAY(struct serial, rx),
    STATE_ARRAY(struct serial, tx),
    STATE(struct serial, rx_n),
    STATE(struct serial, tx_n),
    STATE(struct serial, tx_irq, .help = "transmitter-empty cause is pending"),
};

static const struct wire wires[] = {{"irq", WIRE_IRQ, offsetof(struct serial, irq)}};

static const struct prop props[] = {
    {"chardev", PROP_CHARDEV, offsetof(struct serial, chr)},
    {"index", PROP_U32, offsetof(struct serial, index), UINT32_MAX, .help = "0 is COM1"},
    {"iobase", PROP_U32, offsetof(struct serial, iobase), .help = "0: by index"},
    {"irq", PROP_U32, offsetof(struct serial, irq_number), .help = "0: by index"},
};

const struct device_model model_serial16550 = {
    .name = "isa-serial",
    .alias = "serial16550",
    .about = "serial port with FIFOs (16550A)",
    .spec = "National Semiconductor PC16550D data sheet, \"Registers\"",
    .size = sizeof(struct serial),
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
    .bank = bank,
    .settle = settle,
    .loaded = loaded,
};
