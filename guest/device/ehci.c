/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * ehci: the USB 2 host controller.
 *
 * Spec: Intel, "Enhanced Host Controller Interface Specification for Universal Serial Bus",
 * Revision 1.0, "Register Interface", "Data Structures", "Operational Model".
 * Both schedules are looked into each millisecond of the guest's clock while they are on.  Every
 * device here speaks high speed, so no port ever goes to a companion.  Bounds against lists that
 * lead in circles: so many queues and so many transfers a look.
 * Not modelled: isochronous transfers, split transactions, 64-bit structures.
 */
#include "guest/device/ehci.h"

#include "base/bytes.h"
#include "base/util.h"

enum {
    CMD_RUN = 1 << 0,
    CMD_RESET = 1 << 1,
    CMD_PERIODIC = 1 << 4,
    CMD_ASYNC = 1 << 5,
    CMD_DOORBELL = 1 << 6,
    CMD_WRITABLE = 0xff0073,
    CMD_FIRST = 0x080000
};
enum {
    STS_DONE = 1 << 0,
    STS_ERROR = 1 << 1,
    STS_PORT = 1 << 2,
    STS_ROLLOVER = 1 << 3,
    STS_HOST_ERROR = 1 << 4,
    STS_DOORBELL = 1 << 5,
    STS_HALTED = 1 << 12,
    STS_PERIODIC = 1 << 14,
    STS_ASYNC = 1 << 15,
    STS_EVENTS = 0x3f
};
enum {
    PORT_CONNECTED = 1 << 0,
    PORT_CONNECT_CHANGED = 1 << 1,
    PORT_ENABLED = 1 << 2,
    PORT_ENABLE_CHANGED = 1 << 3,
    PORT_RESUME = 1 << 6,
    PORT_SUSPEND = 1 << 7,
    PORT_RESET = 1 << 8,
    PORT_POWER = 1 << 12,
    PORT_CLEARED = 0x2a
};
#define PORT_WRITABLE 0x0070e1c4u /* owner too: software may say so, nothing follows */
enum { LINK_END = 1, LINK_QH = 1, LINK_TYPE_SHIFT = 1, FRAMES = 1024, FRAME_NS = 1000000 };
#define LINK_ADDRESS 0xffffffe0u
enum { QH_WORDS = 12, QTD_WORDS = 8, CHARACTERISTICS = 1, CURRENT = 3, OVERLAY = 4 };
enum { NEXT, ALTERNATE, TOKEN, PAGE }; /* of an overlay or qTD */
enum {
    T_ACTIVE = 0x80,
    T_HALTED = 0x40,
    T_ERROR = 0x08,
    T_IOC = 1 << 15,
    T_BYTES = 0x7fff,
    T_BYTES_SHIFT = 16,
    T_ERRORS = 3 << 10
};
#define T_TOGGLE 0x80000000u
enum { PID_OUT, PID_IN, PID_SETUP };
enum { TOGGLE_IN_QTD = 1 << 14, QUEUE_HEAD = 1 << 15 };
enum {
    QUEUES_A_LOOK = 256,
    TRANSFERS_A_QUEUE = 32,
    ROUNDS_A_LOOK = 8,
    BYTES_A_LOOK = 256 << 10,
    BYTES_A_TRANSFER = 1024 /* what one costs, however short */
};

static struct ehci *self(struct device *dev)
{
    return container_of(dev, struct ehci, pci.dev);
}

static struct ehci *of_bus(struct usb_bus *bus)
{
    return container_of(bus, struct ehci, bus);
}

void ehci_settle(struct device *dev)
{
    struct ehci *s = self(dev);
    pci_irq(&s->pci, s->sts & s->intr & STS_EVENTS);
}

/* ---- guest memory ---- */

static bool words_load(struct ehci *s, uint32_t at, uint32_t *words, unsigned n)
{
    uint8_t raw[QH_WORDS * 4];
    if (!pci_dma_read(&s->pci, at, raw, n * 4)) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        words[i] = le32_at(raw + 4 * i);
    }
    return true;
}

static void words_store(struct ehci *s, uint32_t at, const uint32_t *words, unsigned n)
{
    uint8_t raw[QH_WORDS * 4];
    for (unsigned i = 0; i < n; i++) {
        le32_put(raw + 4 * i, words[i]);
    }
    pci_dma_write(&s->pci, at, raw, n * 4);
}

/* A transfer's bytes lie in up to five pages, from the first page pointer's low bits on. */
static void pages(struct ehci *s, const struct ehci_flight *f, uint8_t *data, uint32_t n,
                  bool to_guest)
{
    uint32_t at = f->page[0] & 0xfff, first = f->token >> 12 & 7;
    for (uint32_t done = 0; done < n;) {
        uint32_t page = first + at / 4096, step = MIN(n - done, 4096 - at % 4096);
        if (page > 4) {
            return;
        }
        uint64_t where = (f->page[page] & ~0xfffu) + at % 4096;
        if (to_guest) {
            pci_dma_write(&s->pci, where, data + done, step);
        } else if (!pci_dma_read(&s->pci, where, data + done, step)) {
            memset(data + done, 0, step);
        }
        done += step;
        at += step;
    }
}

/* ---- transfers ---- */

static struct usb_device *device_at(struct ehci *s, unsigned address)
{
    for (unsigned i = 1; i <= EHCI_PORTS; i++) {
        struct usb_device *u = s->bus.device[i];
        if (u && u->address == address && (s->portsc[i - 1] & PORT_ENABLED)) {
            return u;
        }
    }
    return NULL;
}

/* Writes how it went into the qTD and the queue's copy of it. */
static void conclude(struct ehci *s, struct ehci_flight *f, enum usb_result result, uint32_t n)
{
    uint32_t wanted = f->token >> T_BYTES_SHIFT & T_BYTES, token = f->token;
    bool in = (token >> 8 & 3) == PID_IN;
    n = MIN(n, wanted);
    if (in && result == USB_OK) {
        pages(s, f, f->data, n, true);
    }
    token &= ~(uint32_t)(T_ACTIVE | T_BYTES << T_BYTES_SHIFT);
    token |= (wanted - n) << T_BYTES_SHIFT;
    if (result != USB_OK) {
        token |= T_HALTED;
        s->sts |= STS_ERROR;
    }
    if ((token & T_IOC) || (in && n < wanted)) {
        s->sts |= STS_DONE;
    }
    words_store(s, f->qtd + TOKEN * 4, &token, 1);
    words_store(s, f->qh + (OVERLAY + TOKEN) * 4, &token, 1);
}

static void ended(struct usb_transfer *t, enum usb_result result)
{
    struct ehci_flight *f = t->owner;
    if (f->busy) {
        f->busy = false;
        conclude(f->ehci, f, result, t->done);
        ehci_settle(&f->ehci->pci.dev);
        if (timer_armed(&f->ehci->frame)) {
            timer_arm(&f->ehci->frame, clock_now()); /* there may be more to do */
        }
    }
}

/* The device is rid of it before this returns. */
static void abandon(struct ehci *s, unsigned port)
{
    struct ehci_flight *f = &s->flight[port];
    if (f->busy && s->bus.device[port]) {
        f->busy = false;
        usb_cancel(s->bus.device[port]);
    }
    f->busy = false;
}

static enum usb_result ask(struct ehci_flight *f, struct usb_device *u, unsigned endpoint,
                           uint32_t *n)
{
    unsigned pid = f->token >> 8 & 3;
    if (!endpoint) {
        return usb_control_packet(u, pid == PID_SETUP, pid == PID_IN, f->data, n);
    }
    f->iov = (struct iovec){f->data, *n};
    f->t = (struct usb_transfer){.endpoint = (uint8_t)endpoint,
                                 .in = pid == PID_IN,
                                 .iov = &f->iov,
                                 .niov = 1,
                                 .bytes = *n,
                                 .ended = ended,
                                 .owner = f};
    enum usb_result result = usb_transfer(u, &f->t);
    *n = f->t.done;
    return result;
}

/* What the queue's overlay says.  True: it is over, and the queue may go on. */
static bool transfer(struct ehci *s, uint32_t at, const uint32_t *qh)
{
    struct usb_device *u = device_at(s, qh[CHARACTERISTICS] & 127);
    unsigned endpoint = qh[CHARACTERISTICS] >> 8 & 15;
    struct ehci_flight *f = &s->flight[u ? u->port : 0];
    uint32_t token = qh[OVERLAY + TOKEN], n = token >> T_BYTES_SHIFT & T_BYTES;
    s->budget -= MIN(s->budget, n + BYTES_A_TRANSFER);
    if (f->busy) {
        f->seen = f->qh == at ? s->round : f->seen;
        return false;
    }
    f->qh = at;
    f->qtd = qh[CURRENT] & LINK_ADDRESS;
    f->token = token;
    f->seen = s->round;
    memcpy(f->page, qh + OVERLAY + PAGE, sizeof(f->page));
    if (!u || n > EHCI_TRANSFER_MAX || (token >> 8 & 3) == 3) {
        f->token |= T_ERROR;
        f->token &= ~(uint32_t)T_ERRORS;
        conclude(s, f, USB_STALL, 0);
        return false;
    }
    if ((token >> 8 & 3) != PID_IN) {
        pages(s, f, f->data, n, false);
    }
    enum usb_result result = ask(f, u, endpoint, &n);
    f->busy = result == USB_ASYNC;
    if (result == USB_OK || result == USB_STALL) {
        conclude(s, f, result, n);
    }
    return result == USB_OK;
}

/* ---- queues ---- */

/* The next qTD becomes the overlay; false: there is none that is active. */
static bool advance(struct ehci *s, uint32_t at, uint32_t *qh)
{
    uint32_t *o = qh + OVERLAY, td[QTD_WORDS];
    bool was_short = o[TOKEN] >> T_BYTES_SHIFT & T_BYTES;
    uint32_t next = was_short && !(o[ALTERNATE] & LINK_END) ? o[ALTERNATE] : o[NEXT];
    if ((next & LINK_END) || !words_load(s, next & LINK_ADDRESS, td, QTD_WORDS) ||
        !(td[TOKEN] & T_ACTIVE)) {
        return false;
    }
    if (!(qh[CHARACTERISTICS] & TOGGLE_IN_QTD)) {
        td[TOKEN] = (td[TOKEN] & ~T_TOGGLE) | (o[TOKEN] & T_TOGGLE);
    }
    memcpy(o, td, sizeof(td));
    qh[CURRENT] = next & LINK_ADDRESS;
    words_store(s, at + CURRENT * 4, qh + CURRENT, 1 + QTD_WORDS);
    return true;
}

/* True if something moved. */
static bool queue_run(struct ehci *s, uint32_t at, uint32_t *qh)
{
    bool moved = false;
    for (unsigned i = 0; i < TRANSFERS_A_QUEUE && s->budget; i++) {
        uint32_t token = qh[OVERLAY + TOKEN];
        if (token & T_HALTED) {
            break;
        }
        if (!(token & T_ACTIVE) && !advance(s, at, qh)) {
            break;
        }
        if (!transfer(s, at, qh)) {
            break;
        }
        moved = true;
        if (!words_load(s, at, qh, QH_WORDS)) {
            break;
        }
    }
    return moved;
}

/* Once around the ring; true if something moved. */
static bool async_round(struct ehci *s)
{
    uint32_t qh[QH_WORDS], first = s->async & LINK_ADDRESS, at = first;
    bool moved = false;
    for (unsigned i = 0; i < QUEUES_A_LOOK && words_load(s, at, qh, QH_WORDS); i++) {
        moved |= queue_run(s, at, qh);
        at = qh[0] & LINK_ADDRESS;
        if ((qh[0] & LINK_END) || at == first) {
            break;
        }
    }
    return moved;
}

static void periodic_walk(struct ehci *s)
{
    uint32_t link = LINK_END, qh[QH_WORDS];
    words_load(s, (s->periodic & ~0xfffu) + (s->frindex >> 3 & (FRAMES - 1)) * 4, &link, 1);
    for (unsigned i = 0; i < QUEUES_A_LOOK && !(link & LINK_END); i++) {
        bool is_queue = (link >> LINK_TYPE_SHIFT & 3) == LINK_QH;
        uint32_t at = link & LINK_ADDRESS;
        if (!words_load(s, at, qh, is_queue ? QH_WORDS : 1)) {
            s->sts |= STS_HOST_ERROR;
            return;
        }
        if (is_queue) {
            queue_run(s, at, qh);
        }
        link = qh[0];
    }
}

/* Software took a queue out and asks whether it may have its memory back. */
static void doorbell(struct ehci *s)
{
    for (unsigned i = 1; i <= EHCI_PORTS; i++) {
        if (s->flight[i].busy && s->flight[i].seen != s->round) {
            abandon(s, i);
        }
    }
    s->cmd &= ~(uint32_t)CMD_DOORBELL;
    s->sts |= STS_DOORBELL;
}

static void show_schedules(struct ehci *s)
{
    bool runs = s->cmd & CMD_RUN;
    s->sts &= ~(uint32_t)(STS_PERIODIC | STS_ASYNC | STS_HALTED);
    s->sts |= (runs && (s->cmd & CMD_PERIODIC) ? STS_PERIODIC : 0) |
              (runs && (s->cmd & CMD_ASYNC) ? STS_ASYNC : 0) | (runs ? 0 : STS_HALTED);
}

static void frame(void *owner)
{
    struct ehci *s = owner;
    if (!(s->cmd & CMD_RUN)) {
        return;
    }
    s->round++;
    s->budget = BYTES_A_LOOK;
    if (s->cmd & CMD_PERIODIC) {
        periodic_walk(s);
    }
    for (unsigned i = 0; (s->cmd & CMD_ASYNC) && i < ROUNDS_A_LOOK && async_round(s); i++) {
    }
    if (s->cmd & CMD_DOORBELL) {
        doorbell(s);
    }
    s->frindex = (s->frindex + 8) & 0x3fff;
    s->sts |= s->frindex & 0x1fff ? 0 : STS_ROLLOVER;
    timer_arm(&s->frame, clock_now() + FRAME_NS);
    ehci_settle(&s->pci.dev);
}

/* ---- ports ---- */

static void attached(struct usb_bus *bus, unsigned port)
{
    struct ehci *s = of_bus(bus);
    s->portsc[port - 1] |= PORT_CONNECTED | PORT_CONNECT_CHANGED;
    s->sts |= STS_PORT;
    ehci_settle(&s->pci.dev);
}

static void detached(struct usb_bus *bus, unsigned port)
{
    struct ehci *s = of_bus(bus);
    uint32_t *p = &s->portsc[port - 1];
    s->flight[port].busy = false; /* the device has let go of it */
    *p |= PORT_CONNECT_CHANGED | (*p & PORT_ENABLED ? PORT_ENABLE_CHANGED : 0);
    *p &= ~(uint32_t)(PORT_CONNECTED | PORT_ENABLED);
    s->sts |= STS_PORT;
    ehci_settle(&s->pci.dev);
}

/* The next look asks the device; one that sleeps is woken. */
static void wake(struct usb_bus *bus, unsigned port, uint8_t endpoint)
{
    struct ehci *s = of_bus(bus);
    (void)endpoint;
    if (s->portsc[port - 1] & PORT_SUSPEND) {
        s->portsc[port - 1] |= PORT_RESUME;
        s->sts |= STS_PORT;
        ehci_settle(&s->pci.dev);
    }
}

/* The port is enabled when its reset ends. */
static void port_write(struct ehci *s, unsigned i, uint64_t old, uint64_t now)
{
    struct usb_device *u = s->bus.device[i + 1];
    uint32_t *p = &s->portsc[i];
    *p = (*p & ~(uint32_t)PORT_ENABLED) | (old & now & PORT_ENABLED) | PORT_POWER;
    if ((now & PORT_RESET) && !(old & PORT_RESET) && u) {
        abandon(s, i + 1);
        usb_reset(u);
    }
    if (now & PORT_RESET) {
        *p &= ~(uint32_t)(PORT_ENABLED | PORT_SUSPEND);
    } else if ((old & PORT_RESET) && u) {
        *p |= PORT_ENABLED;
    }
    if ((old & PORT_RESUME) && !(now & PORT_RESUME)) {
        *p &= ~(uint32_t)PORT_SUSPEND;
    }
}

#define PORT_HOOK(n)                                                                               \
    static void port##n##_write(struct device *dev, uint64_t old, uint64_t now)                    \
    {                                                                                              \
        port_write(self(dev), n, old, now);                                                        \
    }
PORT_HOOK(0)
PORT_HOOK(1)
PORT_HOOK(2)
PORT_HOOK(3)
PORT_HOOK(4)
PORT_HOOK(5)

/* ---- registers ---- */

static void forget(struct ehci *s)
{
    timer_disarm(&s->frame);
    s->cmd = CMD_FIRST;
    s->sts = STS_HALTED;
    s->intr = s->frindex = s->segment = s->periodic = s->async = s->config = 0;
    for (unsigned i = 0; i < EHCI_PORTS; i++) {
        struct usb_device *u = s->bus.device[i + 1];
        s->portsc[i] = PORT_POWER | (u ? PORT_CONNECTED | PORT_CONNECT_CHANGED : 0);
        if (u) {
            abandon(s, i + 1);
            usb_reset(u);
        }
    }
}

static void cmd_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct ehci *s = self(dev);
    if (now & CMD_RESET) {
        forget(s);
        return;
    }
    if ((now & CMD_RUN) && !(old & CMD_RUN)) {
        timer_arm(&s->frame, clock_now() + FRAME_NS);
    } else if (!(now & CMD_RUN)) {
        timer_disarm(&s->frame);
    }
    show_schedules(s);
    if ((now & CMD_DOORBELL) && !(s->sts & STS_ASYNC)) {
        s->round++;
        doorbell(s);
    }
}

#define READ_ONLY(name, value)                                                                     \
    static uint64_t name##_read(struct device *dev, uint64_t stored)                               \
    {                                                                                              \
        (void)dev, (void)stored;                                                                   \
        return value;                                                                              \
    }
READ_ONLY(caplength, 0x20)
READ_ONLY(version, 0x0100)
READ_ONLY(structure, EHCI_PORTS)
READ_ONLY(capability, 0)

void ehci_reset(struct device *dev)
{
    struct ehci *s = self(dev);
    s->pci.config[0x60] = 0x20; /* USB 2.0 */
    s->pci.config[0x61] = 0x20; /* frame length adjustment: none */
    forget(s);
}

bool ehci_loaded(struct device *dev, GError **error)
{
    struct ehci *s = self(dev);
    if (s->frindex > 0x3fff) {
        g_set_error(error, LODGE_ERROR, EINVAL, "frame %u is none", s->frindex);
        return false;
    }
    for (unsigned i = 0; i <= EHCI_PORTS; i++) {
        s->flight[i].busy = false;
    }
    return true;
}

bool ehci_start(struct device *dev, GError **error)
{
    struct ehci *s = self(dev);
    s->frame = (struct timer){.fire = frame, .owner = s, .due = TIMER_OFF};
    s->flight = g_try_new0(struct ehci_flight, EHCI_PORTS + 1);
    if (!s->flight || !pci_attach(&s->pci, error)) {
        return false;
    }
    for (unsigned i = 0; i <= EHCI_PORTS; i++) {
        s->flight[i].ehci = s;
    }
    device_window_init(&s->window, dev, 0, "ehci", 0x1000);
    pci_set_bar(&s->pci, 0, &s->window.region, false, false, false);
    s->bus = (struct usb_bus){
        .ports = EHCI_PORTS, .attached = attached, .detached = detached, .wake = wake};
    usb_bus_add(&s->bus, dev);
    return true;
}

void ehci_stop(struct device *dev)
{
    struct ehci *s = self(dev);
    timer_disarm(&s->frame);
    for (unsigned i = 1; i <= EHCI_PORTS; i++) {
        abandon(s, i);
    }
    usb_bus_remove(&s->bus);
    pci_detach(&s->pci);
    g_clear_pointer(&s->flight, g_free);
}

#define F(field, at, ...) REG(struct ehci, field, .port = at, .dir = REG_RW, __VA_ARGS__)
#define RO(label, at, bytes)                                                                       \
    REG_COMPUTED(#label, .port = at, .width = bytes, .dir = REG_R, .on_read = label##_read)
#define P(n)                                                                                       \
    F(portsc[n], 0x64 + 4 * n, .writable = PORT_WRITABLE, .w1c = PORT_CLEARED,                     \
      .on_write = port##n##_write)
const struct reg ehci_regs[EHCI_NREGS] = {
    PCI_STATE(struct ehci, pci),
    RO(caplength, 0x00, 1),
    RO(version, 0x02, 2),
    RO(structure, 0x04, 4),
    RO(capability, 0x08, 4),
    F(cmd, 0x20, .writable = CMD_WRITABLE, .on_write = cmd_write),
    F(sts, 0x24, .w1c = STS_EVENTS),
    F(intr, 0x28, .writable = STS_EVENTS),
    F(frindex, 0x2c, .writable = 0x3fff),
    F(segment, 0x30),
    F(periodic, 0x34, .writable = 0xfffff000),
    F(async, 0x38, .writable = LINK_ADDRESS),
    F(config, 0x60, .writable = 1),
    P(0),
    P(1),
    P(2),
    P(3),
    P(4),
    P(5),
    STATE_TIMER(struct ehci, frame),
};
const struct prop ehci_props[] = {PCI_PROPS(struct ehci, pci)};
