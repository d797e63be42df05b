/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * uhci: the USB 1 host controller, for devices that speak full speed.
 *
 * Spec: Intel, "Universal Host Controller Interface (UHCI) Design Guide", Revision 1.1,
 * "Registers", "Data Structures", "Schedule Traversal".
 * A frame is walked each millisecond of the guest's clock while the controller runs.  Bounds
 * against lists that lead in circles: so many links and so many bytes a frame.
 * Not modelled: isochronous timing, legacy keyboard emulation.
 */
#include "guest/device/uhci.h"

#include "base/bytes.h"
#include "base/util.h"

enum {
    CMD_RUN = 1 << 0,
    CMD_HC_RESET = 1 << 1,
    CMD_BUS_RESET = 1 << 2,
    CMD_SLEEP = 1 << 3,
    CMD_BITS = 0xff
};
enum {
    STS_DONE = 1 << 0,
    STS_ERROR = 1 << 1,
    STS_RESUME = 1 << 2,
    STS_HOST_ERROR = 1 << 3,
    STS_PROCESS_ERROR = 1 << 4,
    STS_HALTED = 1 << 5
};
enum { INTR_ERROR = 1 << 0, INTR_RESUME = 1 << 1, INTR_DONE = 1 << 2, INTR_SHORT = 1 << 3 };
enum { DONE_ASKED = 1, DONE_SHORT = 2 };
enum {
    PORT_CONNECTED = 1 << 0,
    PORT_CONNECT_CHANGED = 1 << 1,
    PORT_ENABLED = 1 << 2,
    PORT_ENABLE_CHANGED = 1 << 3,
    PORT_RESUME = 1 << 6,
    PORT_ALWAYS = 1 << 7,
    PORT_LOW = 1 << 8,
    PORT_RESET = 1 << 9,
    PORT_SUSPEND = 1 << 12
};
enum {
    PORT_WRITABLE = PORT_ENABLED | PORT_RESUME | PORT_RESET | PORT_SUSPEND,
    PORT_CLEARED = PORT_CONNECT_CHANGED | PORT_ENABLE_CHANGED
};
enum { LINK_END = 1, LINK_QH = 2, LINK_DEPTH = 4, FRAMES = 1024, TD_BYTES = 16 };
#define LINK_ADDRESS 0xfffffff0u
enum {
    TD_ACTIVE = 1 << 23,
    TD_STALLED = 1 << 22,
    TD_BABBLE = 1 << 20,
    TD_NAK = 1 << 19,
    TD_TIMEOUT = 1 << 18,
    TD_IOC = 1 << 24,
    TD_SHORT = 1 << 29,
    TD_LENGTH = 0x7ff
};
enum { PID_IN = 0x69, PID_OUT = 0xe1, PID_SETUP = 0x2d };
enum { PACKET_MAX = 1280, LINKS_A_FRAME = 512, BYTES_A_FRAME = 1280, FRAME_NS = 1000000 };

static struct uhci *self(struct device *dev)
{
    return container_of(dev, struct uhci, pci.dev);
}

static struct uhci *of_bus(struct usb_bus *bus)
{
    return container_of(bus, struct uhci, bus);
}

void uhci_settle(struct device *dev)
{
    struct uhci *s = self(dev);
    bool done = (s->sts & STS_DONE) && (((s->done & DONE_ASKED) && (s->intr & INTR_DONE)) ||
                                        ((s->done & DONE_SHORT) && (s->intr & INTR_SHORT)));
    bool asks = done || ((s->sts & STS_ERROR) && (s->intr & INTR_ERROR)) ||
                ((s->sts & STS_RESUME) && (s->intr & INTR_RESUME)) ||
                (s->sts & (STS_HOST_ERROR | STS_PROCESS_ERROR));
    pci_irq(&s->pci, asks);
}

/* ---- packets ---- */

struct td {
    uint32_t at, link, control, token, buffer;
};
enum verdict { TD_PASS, TD_NEXT, TD_STAY }; /* not active; done, go on; leave it where it is */

static struct usb_device *device_at(struct uhci *s, unsigned address)
{
    for (unsigned i = 1; i <= UHCI_PORTS; i++) {
        struct usb_device *u = s->bus.device[i];
        if (u && u->address == address && (s->portsc[i - 1] & PORT_ENABLED)) {
            return u;
        }
    }
    return NULL;
}

static enum usb_result packet(struct usb_device *u, uint32_t token, uint8_t *data, uint32_t *n)
{
    uint8_t endpoint = token >> 15 & 15, pid = (uint8_t)token;
    if (!endpoint) {
        return usb_control_packet(u, pid == PID_SETUP, pid == PID_IN, data, n);
    }
    struct iovec iov = {data, *n};
    struct usb_transfer t = {
        .endpoint = endpoint, .in = pid == PID_IN, .iov = &iov, .niov = 1, .bytes = *n};
    enum usb_result result = usb_transfer(u, &t);
    *n = t.done;
    return result;
}

static enum verdict td_failed(struct uhci *s, struct td *td, uint32_t why)
{
    td->control = (td->control & ~(uint32_t)TD_ACTIVE) | why;
    s->sts |= STS_ERROR;
    if (td->control & TD_IOC) {
        s->done |= DONE_ASKED;
        s->sts |= STS_DONE;
    }
    return TD_STAY;
}

static enum verdict td_moved(struct uhci *s, struct td *td, uint32_t wanted, uint32_t n)
{
    bool is_short = n < wanted && (uint8_t)td->token == PID_IN;
    td->control &= ~(uint32_t)(TD_ACTIVE | TD_NAK | TD_LENGTH);
    td->control |= (n - 1) & TD_LENGTH;
    if (td->control & TD_IOC) {
        s->done |= DONE_ASKED;
        s->sts |= STS_DONE;
    }
    if (is_short && (td->control & TD_SHORT)) {
        s->done |= DONE_SHORT;
        s->sts |= STS_DONE;
        return TD_STAY;
    }
    return TD_NEXT;
}

static enum verdict td_run(struct uhci *s, struct td *td, uint32_t *moved)
{
    uint8_t data[PACKET_MAX], pid = (uint8_t)td->token;
    uint32_t wanted = ((td->token >> 21) + 1) & TD_LENGTH, n = wanted;
    struct usb_device *u = device_at(s, td->token >> 8 & 127);
    if (!(td->control & TD_ACTIVE)) {
        return TD_PASS;
    }
    if (wanted > PACKET_MAX || (pid != PID_IN && pid != PID_OUT && pid != PID_SETUP)) {
        s->sts |= STS_PROCESS_ERROR | STS_HALTED;
        s->cmd &= (uint16_t)~CMD_RUN;
        return TD_STAY;
    }
    if (!u) {
        return td_failed(s, td, TD_STALLED | TD_TIMEOUT);
    }
    if (pid != PID_IN && !pci_dma_read(&s->pci, td->buffer, data, n)) {
        memset(data, 0, n);
    }
    enum usb_result result = packet(u, td->token, data, &n);
    if (result == USB_NAK || result == USB_ASYNC) {
        td->control |= TD_NAK;
        return TD_STAY;
    }
    if (result == USB_STALL) {
        return td_failed(s, td, TD_STALLED);
    }
    if (pid == PID_IN) {
        pci_dma_write(&s->pci, td->buffer, data, MIN(n, wanted));
    }
    *moved += n;
    return td_moved(s, td, wanted, n);
}

/* ---- the schedule ---- */

static bool td_load(struct uhci *s, uint32_t at, struct td *td)
{
    uint8_t raw[TD_BYTES];
    if (!pci_dma_read(&s->pci, at, raw, sizeof(raw))) {
        return false;
    }
    *td = (struct td){at, le32_at(raw), le32_at(raw + 4), le32_at(raw + 8), le32_at(raw + 12)};
    return true;
}

static void word_store(struct uhci *s, uint32_t at, uint32_t v)
{
    uint8_t raw[4];
    le32_put(raw, v);
    pci_dma_write(&s->pci, at, raw, sizeof(raw));
}

static enum verdict td_visit(struct uhci *s, uint32_t at, struct td *td, uint32_t *moved)
{
    if (!td_load(s, at & LINK_ADDRESS, td)) {
        s->sts |= STS_HOST_ERROR;
        return TD_STAY;
    }
    uint32_t before = td->control;
    enum verdict v = td_run(s, td, moved);
    if (td->control != before) {
        word_store(s, td->at + 4, td->control);
    }
    return v;
}

/* The queue's first element; the link that is to be followed now. */
static uint32_t queue_visit(struct uhci *s, uint32_t link, uint32_t *moved)
{
    uint8_t raw[8];
    struct td td;
    if (!pci_dma_read(&s->pci, link & LINK_ADDRESS, raw, sizeof(raw))) {
        s->sts |= STS_HOST_ERROR;
        return LINK_END;
    }
    uint32_t across = le32_at(raw), element = le32_at(raw + 4);
    if (element & LINK_END) {
        return across;
    }
    if (element & LINK_QH) {
        return element;
    }
    if (td_visit(s, element, &td, moved) != TD_NEXT) {
        return across;
    }
    word_store(s, (link & LINK_ADDRESS) + 4, td.link);
    return (td.link & LINK_DEPTH) && !(td.link & LINK_END) ? link : across;
}

static void walk(struct uhci *s)
{
    uint8_t raw[4];
    uint32_t moved = 0;
    uint64_t at = (s->flbase & ~0xfffu) + (s->frnum % FRAMES) * 4;
    uint32_t link = pci_dma_read(&s->pci, at, raw, sizeof(raw)) ? le32_at(raw) : LINK_END;
    for (unsigned n = 0; n < LINKS_A_FRAME && !(link & LINK_END) && moved < BYTES_A_FRAME; n++) {
        struct td td;
        if (link & LINK_QH) {
            link = queue_visit(s, link, &moved);
        } else {
            td.link = LINK_END;
            td_visit(s, link, &td, &moved);
            link = td.link;
        }
    }
}

static void frame(void *owner)
{
    struct uhci *s = owner;
    if (!(s->cmd & CMD_RUN)) {
        s->sts |= STS_HALTED;
        return;
    }
    walk(s);
    s->frnum = (s->frnum + 1) & 0x7ff;
    timer_arm(&s->frame, clock_now() + FRAME_NS);
    uhci_settle(&s->pci.dev);
}

/* ---- ports ---- */

static void attached(struct usb_bus *bus, unsigned port)
{
    struct uhci *s = of_bus(bus);
    s->portsc[port - 1] |= PORT_CONNECTED | PORT_CONNECT_CHANGED;
    if ((s->cmd & CMD_SLEEP) || (s->portsc[port - 1] & PORT_SUSPEND)) {
        s->sts |= STS_RESUME;
    }
    uhci_settle(&s->pci.dev);
}

static void detached(struct usb_bus *bus, unsigned port)
{
    struct uhci *s = of_bus(bus);
    uint16_t *p = &s->portsc[port - 1];
    *p |= PORT_CONNECT_CHANGED | (*p & PORT_ENABLED ? PORT_ENABLE_CHANGED : 0);
    *p &= (uint16_t) ~(PORT_CONNECTED | PORT_ENABLED);
    uhci_settle(&s->pci.dev);
}

/* The next frame asks the device; one that sleeps is woken. */
static void wake(struct usb_bus *bus, unsigned port, uint8_t endpoint)
{
    struct uhci *s = of_bus(bus);
    (void)endpoint;
    if ((s->cmd & CMD_SLEEP) || (s->portsc[port - 1] & PORT_SUSPEND)) {
        s->portsc[port - 1] |= PORT_RESUME;
        s->sts |= STS_RESUME;
        uhci_settle(&s->pci.dev);
    }
}

static void port_write(struct uhci *s, unsigned i, uint64_t old, uint64_t now)
{
    struct usb_device *u = s->bus.device[i + 1];
    if ((now & PORT_RESET) && !(old & PORT_RESET) && u) {
        usb_cancel(u);
        usb_reset(u);
    }
    if (!u || (now & PORT_RESET)) {
        s->portsc[i] &= (uint16_t)~PORT_ENABLED;
    }
    if ((old & PORT_RESUME) && !(now & PORT_RESUME)) {
        s->portsc[i] &= (uint16_t)~PORT_SUSPEND;
    }
}

static void port0_write(struct device *dev, uint64_t old, uint64_t now)
{
    port_write(self(dev), 0, old, now);
}

static void port1_write(struct device *dev, uint64_t old, uint64_t now)
{
    port_write(self(dev), 1, old, now);
}

static uint64_t port_read(struct device *dev, uint64_t stored)
{
    (void)dev;
    return stored | PORT_ALWAYS;
}

/* ---- registers ---- */

static void forget(struct uhci *s)
{
    timer_disarm(&s->frame);
    s->cmd = s->intr = s->frnum = s->done = 0;
    s->sts = STS_HALTED;
    s->flbase = 0;
    s->sofmod = 0x40;
    for (unsigned i = 0; i < UHCI_PORTS; i++) {
        struct usb_device *u = s->bus.device[i + 1];
        s->portsc[i] = u ? PORT_CONNECTED | PORT_CONNECT_CHANGED : 0;
        if (u) {
            usb_cancel(u);
            usb_reset(u);
        }
    }
}

static void cmd_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct uhci *s = self(dev);
    if (now & (CMD_HC_RESET | CMD_BUS_RESET)) {
        forget(s);
        s->cmd = (uint16_t)(now & CMD_BUS_RESET);
    } else if ((now & CMD_RUN) && !(old & CMD_RUN)) {
        s->sts &= (uint16_t)~STS_HALTED;
        timer_arm(&s->frame, clock_now() + FRAME_NS);
    } else if (!(now & CMD_RUN)) {
        timer_disarm(&s->frame);
        s->sts |= STS_HALTED;
    }
}

static void sts_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    if (!(now & STS_DONE)) {
        self(dev)->done = 0;
    }
}

void uhci_reset(struct device *dev)
{
    struct uhci *s = self(dev);
    s->pci.config[0x60] = 0x10; /* USB 1.0 */
    s->pci.config[0xc1] = 0x20; /* its interrupt is wanted */
    forget(s);
}

bool uhci_loaded(struct device *dev, GError **error)
{
    struct uhci *s = self(dev);
    if (s->frnum > 0x7ff || s->done > (DONE_ASKED | DONE_SHORT)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "frame %u is none", s->frnum);
        return false;
    }
    return true;
}

bool uhci_start(struct device *dev, GError **error)
{
    struct uhci *s = self(dev);
    s->frame = (struct timer){.fire = frame, .owner = s, .due = TIMER_OFF};
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    s->pci.writable[0xc0] = 0xff;
    s->pci.writable[0xc1] = 0xff;
    device_window_init(&s->window, dev, 0, "uhci", 0x20);
    pci_set_bar(&s->pci, 4, &s->window.region, true, false, false);
    if (!s->prop_masterbus) { /* a companion has no devices: all here speak high speed */
        s->bus = (struct usb_bus){.ports = UHCI_PORTS,
                                  .full_speed = true,
                                  .attached = attached,
                                  .detached = detached,
                                  .wake = wake};
        usb_bus_add(&s->bus, dev);
    }
    return true;
}

void uhci_stop(struct device *dev)
{
    struct uhci *s = self(dev);
    timer_disarm(&s->frame);
    if (s->bus.name) {
        usb_bus_remove(&s->bus);
    }
    pci_detach(&s->pci);
}

#define F(field, at, ...) REG(struct uhci, field, .port = at, .dir = REG_RW, __VA_ARGS__)
#define P(n)                                                                                       \
    F(portsc[n], 0x10 + 2 * n, .writable = PORT_WRITABLE, .w1c = PORT_CLEARED,                     \
      .on_read = port_read, .on_write = port##n##_write)
const struct reg uhci_regs[UHCI_NREGS] = {
    PCI_STATE(struct uhci, pci),
    F(cmd, 0x00, .writable = CMD_BITS, .on_write = cmd_write),
    F(sts, 0x02, .w1c = 0x1f, .on_write = sts_write),
    F(intr, 0x04, .writable = 0x0f),
    F(frnum, 0x06, .writable = 0x7ff),
    F(flbase, 0x08, .writable = 0xfffff000),
    F(sofmod, 0x0c, .writable = 0x7f),
    P(0),
    P(1),
    STATE(struct uhci, done),
    STATE_TIMER(struct uhci, frame),
};
const struct prop uhci_props[] = {
    PCI_PROPS(struct uhci, pci),
    {"masterbus", PROP_STRING, offsetof(struct uhci, prop_masterbus),
     .help = "of the EHCI it goes with"},
    {"firstport", PROP_U32, offsetof(struct uhci, prop_firstport), .help = "there"},
};
