/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * xhci: a USB 3 host controller, its registers and ports.
 *
 * Spec: Intel, eXtensible Host Controller Interface for Universal Serial Bus, Revision 1.2,
 * "Register Interface", "Root Hub Port State Machines", "xHCI Extended Capabilities".
 * Not modelled: more than one interrupter, interrupt moderation, streams, hubs, save and restore
 * of the controller by its driver (a resuming Linux sets it up anew).
 * Ports 1 to p2 are USB 2, where all devices of ours sit; p3 more are USB 3.
 */
#include "guest/device/xhci.h"

#include "base/bytes.h"
#include "base/util.h"

enum { MMIO_BYTES = 0x4000, OPERATIONAL = 0x40, PORTS_AT = 0x440, PORT_BYTES = 16, RUNTIME = 0x1000,
       DOORBELLS = 0x2000, CAPS_AT = 0x20, MSI_VECTORS = 1 };
enum { PORT_MASK_MAX = 15, VERSION = 0x0100 };
enum { CRCR_CYCLE = 1, CRCR_STOP = 2, CRCR_ABORT = 4, CRCR_RUNNING = 8, ERDP_BUSY = 8 };
enum { IMAN_PENDING = 1, IMAN_ENABLE = 2 };
enum { /* PORTSC */
    PORT_CONNECTED = 1 << 0, PORT_ENABLED = 1 << 1, PORT_RESET = 1 << 4, PORT_LINK = 15 << 5,
    PORT_POWER = 1 << 9, PORT_SPEED = 15 << 10, PORT_WRITE_LINK = 1 << 16, PORT_CHANGED = 1 << 17,
    PORT_RESET_CHANGED = 1 << 21, PORT_LINK_CHANGED = 1 << 22, PORT_CHANGES = 0x7f << 17,
    PORT_WAKE = 7 << 25,
};
enum { LINK_U0 = 0, LINK_U3 = 3 << 5, LINK_RX_DETECT = 5 << 5, LINK_POLLING = 7 << 5, LINK_RESUME = 15 << 5 };

static struct xhci *self(struct device *dev)
{
    return container_of(dev, struct xhci, pci.dev);
}

struct usb_device *xhci_device(const struct xhci *x, unsigned slot)
{
    unsigned port = slot && slot <= XHCI_SLOTS ? x->slot_port[slot] : 0;
    return port && port <= x->bus.ports ? x->bus.device[port] : NULL;
}

/* ---- interrupt ---- */

void xhci_settle(struct xhci *x)
{
    bool asks = (x->iman & IMAN_PENDING) && (x->iman & IMAN_ENABLE) && (x->usbcmd & CMD_INTERRUPTS);
    if (!pci_msi_enabled(&x->pci)) {
        pci_irq(&x->pci, asks);
    } else {
        pci_irq(&x->pci, false);
        if (asks && !x->asks) {
            pci_msi(&x->pci, 0);
            x->iman &= ~(uint32_t)IMAN_PENDING; /* the message takes it along */
            asks = false;
        }
    }
    x->asks = asks;
}

static void settle(struct device *dev)
{
    xhci_settle(self(dev));
}

/* ---- ports ---- */

static void port_event(struct xhci *x, unsigned port)
{
    x->ports_due |= 1u << (port - 1);
    x->usbsts |= STS_PORT;
    xhci_port_events(x);
    xhci_settle(x);
}

static void port_connect(struct xhci *x, unsigned port)
{
    bool there = port <= x->bus.ports && x->bus.device[port];
    uint32_t v = x->portsc[port - 1] & (PORT_POWER | PORT_WAKE | PORT_CHANGES);
    v |= there ? PORT_CONNECTED | LINK_POLLING : LINK_RX_DETECT;
    x->portsc[port - 1] = v | PORT_CHANGED;
}

static void attached(struct usb_bus *bus, unsigned port)
{
    struct xhci *x = container_of(bus, struct xhci, bus);
    port_connect(x, port);
    port_event(x, port);
}

static void detached(struct usb_bus *bus, unsigned port)
{
    struct xhci *x = container_of(bus, struct xhci, bus);
    port_connect(x, port);
    port_event(x, port);
}

static void wake(struct usb_bus *bus, unsigned port, uint8_t endpoint)
{
    struct xhci *x = container_of(bus, struct xhci, bus);
    for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++) {
        if (x->slot_port[slot] == port) {
            xhci_kick(x, slot, 2u * (endpoint & 15) + (endpoint >> 7));
        }
    }
    xhci_settle(x);
}

static void port_reset(struct xhci *x, unsigned port)
{
    struct usb_device *u = port <= x->bus.ports ? x->bus.device[port] : NULL;
    uint32_t *v = &x->portsc[port - 1];
    if (!u) {
        return;
    }
    usb_cancel(u);
    usb_reset(u);
    *v &= ~(uint32_t)(PORT_LINK | PORT_SPEED);
    *v |= PORT_ENABLED | LINK_U0 | (uint32_t)u->usb->speed << 10 | PORT_RESET_CHANGED;
    port_event(x, port);
}

static void port_write(struct xhci *x, unsigned port, uint32_t value)
{
    uint32_t *v = &x->portsc[port - 1];
    *v &= ~(value & PORT_CHANGES);
    *v = (*v & ~(uint32_t)(PORT_POWER | PORT_WAKE)) | (value & (PORT_POWER | PORT_WAKE));
    if (value & PORT_ENABLED) { /* writing 1 disables */
        *v &= ~(uint32_t)PORT_ENABLED;
    }
    if (value & PORT_RESET) {
        port_reset(x, port);
    } else if ((value & PORT_WRITE_LINK) && (*v & PORT_CONNECTED)) {
        uint32_t link = value & PORT_LINK, old = *v & PORT_LINK;
        *v = (*v & ~(uint32_t)PORT_LINK) | (link == LINK_RESUME ? LINK_RESUME : link == LINK_U3 ? LINK_U3 : LINK_U0);
        if (old != LINK_U0 && link == LINK_U0) {
            *v |= PORT_LINK_CHANGED;
            port_event(x, port);
        }
    }
}

/* ---- registers ---- */

static void forget(struct xhci *x)
{
    for (unsigned i = 1; i <= XHCI_SLOTS; i++) {
        xhci_free_slot(x, i);
    }
    timer_disarm(&x->again);
    x->usbcmd = x->dnctrl = x->crcr_lo = x->crcr_hi = x->dcbaap_lo = x->dcbaap_hi = x->config = 0;
    x->iman = x->erstsz = x->erstba_lo = x->erstba_hi = x->erdp_lo = x->erdp_hi = 0;
    x->imod = 4000;
    x->usbsts = STS_HALTED;
    x->command_at = x->event_base = 0;
    x->event_size = x->event_next = x->ports_due = 0;
    x->command_cycle = x->command_running = 0;
    x->event_cycle = 1;
    for (unsigned i = 1; i <= XHCI_PORTS; i++) {
        x->portsc[i - 1] = PORT_POWER;
        port_connect(x, i);
        bool there = x->portsc[i - 1] & PORT_CONNECTED;
        x->portsc[i - 1] &= there ? UINT32_MAX : ~(uint32_t)PORT_CHANGED;
        x->ports_due |= (uint32_t)there << (i - 1);
    }
}

static void look_everywhere(struct xhci *x)
{
    for (unsigned i = 1; i <= XHCI_SLOTS; i++) {
        if (x->slot_used[i]) {
            xhci_kick_slot(x, i);
        }
    }
    if (x->command_running) {
        xhci_commands(x);
    }
}

static void again(void *owner)
{
    struct xhci *x = owner;
    look_everywhere(x);
    xhci_settle(x);
}

static void usbcmd_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct xhci *x = self(dev);
    if (now & CMD_RESET) {
        forget(x);
        return;
    }
    if ((now & ~old) & CMD_RUN) {
        x->usbsts &= ~(uint32_t)STS_HALTED;
        xhci_port_events(x);
        look_everywhere(x);
    } else if (!(now & CMD_RUN)) {
        x->usbsts |= STS_HALTED;
        x->command_running = 0;
    }
}

static void crcr_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct xhci *x = self(dev);
    (void)old;
    if (now & (CRCR_STOP | CRCR_ABORT)) {
        if (x->command_running) {
            x->command_running = 0;
            xhci_event(x, TRB_COMMAND_DONE, x->command_at, (uint32_t)CC_COMMAND_STOPPED << 24, 0);
        }
    } else if (!x->command_running) {
        x->command_at = (uint64_t)x->crcr_hi << 32 | ((uint32_t)now & ~63u);
        x->command_cycle = now & CRCR_CYCLE;
    }
    x->crcr_lo = 0; /* reads as 0, but for whether it runs */
}

static void crcr_hi_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct xhci *x = self(dev);
    (void)old;
    if (!x->command_running) {
        x->command_at = (x->command_at & 0xffffffff) | (uint64_t)now << 32;
    }
}

static uint64_t crcr_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return self(dev)->command_running ? CRCR_RUNNING : 0;
}

static void iman_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    self(dev)->asks = false; /* an event that comes after this asks anew */
}

static void erstba_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    xhci_event_ring(self(dev));
}

/* Room for what had none; events that came since the driver looked ask again. */
static void erdp_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct xhci *x = self(dev);
    uint64_t at = (uint64_t)x->erdp_hi << 32 | (x->erdp_lo & ~15u);
    (void)old;
    if (!(now & ERDP_BUSY) && x->event_size &&
        at != x->event_base + (uint64_t)x->event_next * TRB_BYTES) {
        x->erdp_lo |= ERDP_BUSY;
        x->iman |= IMAN_PENDING;
        x->usbsts |= STS_EVENT;
    }
    xhci_port_events(x);
    timer_arm(&x->again, clock_now());
}

static uint64_t mfindex_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return (self(dev)->usbcmd & CMD_RUN) ? (uint64_t)(clock_now() / 125000) & 0x3fff : 0;
}

static uint64_t hcsparams1_read(struct device *dev, uint64_t stored)
{
    const struct xhci *x = self(dev);
    (void)stored;
    return XHCI_SLOTS | 1 << 8 | (uint64_t)(x->p2 + x->p3) << 24;
}

static uint64_t usb2_ports_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return 1 | (uint64_t)self(dev)->p2 << 8;
}

static uint64_t usb3_ports_read(struct device *dev, uint64_t stored)
{
    const struct xhci *x = self(dev);
    (void)stored;
    return (x->p2 + 1) | (uint64_t)x->p3 << 8;
}

static uint64_t caplength_read(struct device *dev, uint64_t stored)
{
    (void)dev, (void)stored;
    return OPERATIONAL | VERSION << 16;
}

#define CONSTANT(name, value)                                                                      \
    static uint64_t name##_read(struct device *dev, uint64_t stored)                               \
    {                                                                                              \
        (void)dev, (void)stored;                                                                   \
        return value;                                                                              \
    }
CONSTANT(hcsparams2, 0)
CONSTANT(hccparams1, 1 | CAPS_AT / 4 << 16) /* 64-bit addresses; contexts of 32 bytes */
CONSTANT(dboff, DOORBELLS)
CONSTANT(rtsoff, RUNTIME)
CONSTANT(pagesize, 1)
CONSTANT(usb2_cap, 2 | (0x10 / 4) << 8 | 0x02000000)
CONSTANT(usb3_cap, 2 | 0x03000000)
CONSTANT(usb_name, 0x20425355)
CONSTANT(zero, 0)

#define C(label, at, ...) REG_COMPUTED(label, .port = at, .width = 4, __VA_ARGS__)
#define RO(label, at) C(#label, at, .dir = REG_R, .on_read = label##_read)
#define RW(field, at, mask, ...)                                                                   \
    REG(struct xhci, field, .port = at, .dir = REG_RW, .writable = mask, __VA_ARGS__)
#define S(field) STATE(struct xhci, field)
#define A(field) STATE_ARRAY(struct xhci, field)
#define OP(at) (OPERATIONAL + at)
#define IR(at) (RUNTIME + 0x20 + at)
#define ALL 0xffffffff
static const struct reg regs[] = {
    PCI_STATE(struct xhci, pci),
    RO(caplength, 0x00), RO(hcsparams1, 0x04), RO(hcsparams2, 0x08),
    C("hcsparams3", 0x0c, .dir = REG_R, .on_read = zero_read), RO(hccparams1, 0x10), RO(dboff, 0x14),
    RO(rtsoff, 0x18), C("hccparams2", 0x1c, .dir = REG_R, .on_read = zero_read),
    RO(usb2_cap, 0x20), RO(usb_name, 0x24), RO(usb2_ports, 0x28),
    C("usb2_slots", 0x2c, .dir = REG_R, .on_read = zero_read),
    RO(usb3_cap, 0x30), C("usb3_name", 0x34, .dir = REG_R, .on_read = usb_name_read),
    RO(usb3_ports, 0x38), C("usb3_slots", 0x3c, .dir = REG_R, .on_read = zero_read),
    RW(usbcmd, OP(0x00), 0x0c0f, .on_write = usbcmd_write),
    RW(usbsts, OP(0x04), 0, .w1c = 0x41c, .reset = STS_HALTED),
    RO(pagesize, OP(0x08)),
    RW(dnctrl, OP(0x14), 0xffff),
    RW(crcr_lo, OP(0x18), 0xffffffcf, .on_read = crcr_read, .on_write = crcr_write),
    RW(crcr_hi, OP(0x1c), ALL, .on_write = crcr_hi_write),
    RW(dcbaap_lo, OP(0x30), 0xffffffc0), RW(dcbaap_hi, OP(0x34), ALL),
    RW(config, OP(0x38), 0xff),
    C("mfindex", RUNTIME, .dir = REG_R, .on_read = mfindex_read),
    RW(iman, IR(0x00), IMAN_ENABLE, .w1c = IMAN_PENDING, .on_write = iman_write),
    RW(imod, IR(0x04), ALL, .reset = 4000),
    RW(erstsz, IR(0x08), 0xffff),
    RW(erstba_lo, IR(0x10), 0xffffffc0, .on_write = erstba_write),
    RW(erstba_hi, IR(0x14), ALL, .on_write = erstba_write),
    RW(erdp_lo, IR(0x18), 0xfffffff7, .w1c = ERDP_BUSY, .on_write = erdp_write),
    RW(erdp_hi, IR(0x1c), ALL),
    S(command_at), S(event_base), S(event_size), S(event_next), S(ports_due), S(command_cycle),
    STATE(struct xhci, event_cycle, .reset = 1), S(command_running), A(portsc), A(slot_used),
    A(slot_port), A(setup_failed), A(slot_context), A(ep_state), A(ep_cycle), A(ep_at),
};

static uint64_t dword_read(struct xhci *x, uint64_t at)
{
    if (at >= PORTS_AT && at < PORTS_AT + PORT_BYTES * (x->p2 + x->p3)) {
        return at % PORT_BYTES ? 0 : x->portsc[(at - PORTS_AT) / PORT_BYTES];
    }
    uint64_t v = device_read(&x->pci.dev, 0, at);
    return v == UINT64_MAX ? 0 : v & ALL;
}

static void dword_write(struct xhci *x, uint64_t at, uint32_t value)
{
    if (at >= PORTS_AT && at < PORTS_AT + PORT_BYTES * (x->p2 + x->p3)) {
        if (at % PORT_BYTES == 0) {
            port_write(x, (unsigned)(at - PORTS_AT) / PORT_BYTES + 1, value);
        }
    } else if (at == DOORBELLS) {
        xhci_commands(x);
    } else if (at > DOORBELLS && at <= DOORBELLS + 4 * XHCI_SLOTS) {
        xhci_kick(x, (unsigned)(at - DOORBELLS) / 4, value & 0xff);
    } else {
        device_write(&x->pci.dev, 0, at, value);
        return;
    }
    xhci_settle(x);
}

static uint64_t mmio_read(void *owner, uint64_t at, unsigned bytes)
{
    struct xhci *x = owner;
    uint64_t v = dword_read(x, at & ~UINT64_C(3));
    if (bytes == 8) {
        return v | dword_read(x, at + 4) << 32;
    }
    return v >> (at & 3) * 8 & (UINT64_MAX >> (64 - 8 * bytes));
}

/* Registers take whole words; what writes less is wrong and does nothing. */
static void mmio_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct xhci *x = owner;
    if (bytes >= 4) {
        if (bytes == 8) { /* high half first: the low one sets things off */
            dword_write(x, at + 4, (uint32_t)(value >> 32));
        }
        dword_write(x, at, (uint32_t)value);
    }
}

static const struct region_ops mmio_ops = {.read = mmio_read, .write = mmio_write};

/* ---- life ---- */

static void reset(struct device *dev)
{
    struct xhci *x = self(dev);
    x->pci.config[0x60] = 0x30; /* serial bus release, frame length adjustment */
    x->pci.config[0x61] = 0x20;
    forget(x);
}

static bool start(struct device *dev, GError **error)
{
    struct xhci *x = self(dev);
    if (!x->p2 || x->p2 > PORT_MASK_MAX || x->p3 > PORT_MASK_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "p2 is from 1 to 15, p3 from 0 to 15");
        return false;
    }
    x->td = g_try_new0(struct xhci_td, XHCI_SLOTS + 1);
    if (!x->td || !pci_attach(&x->pci, error)) {
        return false;
    }
    x->again = (struct timer){.fire = again, .owner = x};
    x->mmio = (struct region){.name = "xhci", .size = MMIO_BYTES, .ops = &mmio_ops, .owner = x};
    pci_set_bar(&x->pci, 0, &x->mmio, false, true, false);
    x->bus = (struct usb_bus){.ports = x->p2, .attached = attached, .detached = detached, .wake = wake};
    usb_bus_add(&x->bus, dev);
    return true;
}

static void stop(struct device *dev)
{
    struct xhci *x = self(dev);
    forget(x);
    timer_disarm(&x->again);
    usb_bus_remove(&x->bus);
    pci_detach(&x->pci);
    g_clear_pointer(&x->td, g_free);
}

static bool loaded(struct device *dev, GError **error)
{
    struct xhci *x = self(dev);
    bool sane = x->event_next < MAX(x->event_size, 1) && x->event_size <= 4096 && x->command_cycle <= 1 &&
                x->event_cycle <= 1;
    for (unsigned i = 0; i < G_N_ELEMENTS(x->ep_state); i++) {
        sane = sane && x->ep_cycle[i] <= 1 && x->ep_state[i] <= EP_ERROR;
    }
    for (unsigned i = 0; i <= XHCI_SLOTS; i++) {
        sane = sane && x->slot_port[i] <= XHCI_PORTS;
    }
    if (!sane) {
        g_set_error(error, LODGE_ERROR, EINVAL, "rings cannot be as they are stated");
        return false;
    }
    timer_arm(&x->again, clock_now());
    return true;
}

static const struct prop props[] = {
    PCI_PROPS(struct xhci, pci),
    {"p2", PROP_U32, offsetof(struct xhci, p2), 4, .help = "USB 2 ports, where devices sit"},
    {"p3", PROP_U32, offsetof(struct xhci, p3), 4, .help = "USB 3 ports"},
};

static const struct pci_ident ident = {
    .vendor = 0x1b36, .device = 0x000d, .subsystem_vendor = 0x1af4, .subsystem = 0x1100,
    .revision = 1, .class = 0x0c0330, .irq_pin = 1, .msi = MSI_VECTORS, .express = true,
};

const struct device_model model_xhci = {
    .name = "qemu-xhci",
    .alias = "nec-usb-xhci",
    .about = "USB 3 host controller",
    .spec = "Intel xHCI 1.2, \"Register Interface\"",
    .size = sizeof(struct xhci),
    .version = 1,
    .bus = BUS_PCI,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = stop,
    .settle = settle,
    .reset = reset,
    .loaded = loaded,
};
