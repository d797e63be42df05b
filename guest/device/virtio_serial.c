/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio_serial: a controller of byte channels ("virtio-serial"), and what its ports share.
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.1, "Console Device".
 * Not modelled: console size, emergency write.
 */
#include "guest/device/virtio_serial.h"

#include "base/bytes.h"
#include "base/util.h"

enum { CONTROL_RX = 2, CONTROL_TX = 3, QUEUE_SIZE = 128, CONTROL_SIZE = 32, BURST = 64 };
enum { CONFIG_BYTES = 12, CFG_MAX_PORTS = 4, CONSOLE_F_MULTIPORT = 1, MESSAGE_BYTES = 8 };
enum event { DEVICE_READY, DEVICE_ADD, DEVICE_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN,
             PORT_NAME };
enum { NAME_MAX_BYTES = 128 };
/* What the guest has yet to be told of a port, in the order in which it is told. */
enum { TELL_REMOVE = 1, TELL_ADD = 2, TELL_CONSOLE = 4, TELL_NAME = 8, TELL_OPEN = 16 };

struct virtio_serial {
    struct virtio_pci base; /* first */
    uint8_t tell[SERIAL_PORTS_MAX + 1]; /* state */
    struct timer again;                 /* state: more work than a burst */
    uint32_t max_ports;                 /* property */
    struct serial_port *port[SERIAL_PORTS_MAX + 1];
    struct timer wake;                  /* input waited while the machine stood still */
};

static struct virtio_serial *of(struct virtio *v)
{
    return container_of(v, struct virtio_serial, base.virtio);
}

static bool multiport(const struct virtio_serial *s)
{
    return s->base.virtio.features & VIRTIO_BIT(CONSOLE_F_MULTIPORT);
}

static unsigned rx_queue(const struct serial_port *p)
{
    return p->nr ? 2 * p->nr + 2 : 0;
}

static bool guest_listens(const struct serial_port *p)
{
    return !multiport(p->bus) || p->guest_open;
}

/* For chardevs: is a program in the guest there to read?  A console needs none. */
static bool program_listens(void *peer)
{
    const struct serial_port *p = peer;
    return p->console || p->guest_open;
}

static bool host_listens(const struct serial_port *p)
{
    return p->console || !p->chr || p->chr->open;
}

/* ---- to the guest ---- */

static void to_guest(struct serial_port *p)
{
    struct virtio *v = &p->bus->base.virtio;
    unsigned queue = rx_queue(p);
    struct virtio_element *e;
    bool any = false;
    while (p->fifo_used && clock_running() && virtio_ready(v, queue) && (e = virtio_pop(v, queue))) {
        size_t n = virtio_put(e, 0, p->fifo, p->fifo_used);
        p->fifo_used = (uint16_t)(p->fifo_used - n);
        memmove(p->fifo, p->fifo + n, p->fifo_used);
        virtio_push(v, e, (uint32_t)n);
        any = true;
    }
    if (any) {
        virtio_interrupt(v, queue);
    }
}

static size_t room(void *peer)
{
    struct serial_port *p = peer;
    if (!clock_running()) {
        timer_arm(&p->bus->wake, clock_now());
        return 0;
    }
    return guest_listens(p) ? sizeof(p->fifo) - p->fifo_used : 0;
}

static void receive(void *peer, const uint8_t *data, size_t n)
{
    struct serial_port *p = peer;
    n = MIN(n, sizeof(p->fifo) - p->fifo_used);
    memcpy(p->fifo + p->fifo_used, data, n);
    p->fifo_used = (uint16_t)(p->fifo_used + n);
    to_guest(p);
}

/* ---- from the guest ---- */

/* Writes a chain on; false if the chardev takes no more now. */
static bool write_chain(struct serial_port *p, const struct virtio_element *e)
{
    uint8_t bytes[4096];
    size_t n;
    while (host_listens(p) && (n = virtio_get(e, p->sent, bytes, sizeof(bytes))) > 0) {
        size_t taken = chardev_write(p->chr, bytes, n);
        p->sent += taken;
        if (taken < n) {
            return false;
        }
    }
    p->sent = 0;
    return true;
}

static void from_guest(struct serial_port *p)
{
    struct virtio *v = &p->bus->base.virtio;
    unsigned queue = rx_queue(p) + 1, n = 0;
    struct virtio_element *e;
    bool stuck = false;
    while (!stuck && n < BURST && virtio_ready(v, queue) && (e = virtio_pop(v, queue))) {
        if (write_chain(p, e)) {
            virtio_push(v, e, 0);
            n++;
        } else {
            virtio_unpop(v, e);
            stuck = true;
        }
    }
    if (n) {
        virtio_interrupt(v, queue);
    }
    if (n == BURST) {
        timer_arm(&p->bus->again, clock_now());
    }
}

static void writable(void *peer)
{
    from_guest(peer);
}

/* ---- control queues ---- */

static bool send_message(struct virtio_serial *s, unsigned nr, enum event event, unsigned value,
                         const char *text)
{
    struct virtio *v = &s->base.virtio;
    struct virtio_element *e = virtio_ready(v, CONTROL_RX) ? virtio_pop(v, CONTROL_RX) : NULL;
    uint8_t m[MESSAGE_BYTES];
    if (!e) {
        return false;
    }
    le32_put(m, nr);
    le16_put(m + 4, (uint16_t)event);
    le16_put(m + 6, (uint16_t)value);
    size_t n = virtio_put(e, 0, m, sizeof(m));
    if (text) {
        n += virtio_put(e, n, text, MIN(strlen(text), NAME_MAX_BYTES));
    }
    virtio_push(v, e, (uint32_t)n);
    return true;
}

static bool tell_one(struct virtio_serial *s, unsigned nr, unsigned what)
{
    const struct serial_port *p = s->port[nr];
    switch (what) {
    case TELL_REMOVE:
        return send_message(s, nr, DEVICE_REMOVE, 1, NULL);
    case TELL_ADD:
        return !p || send_message(s, nr, DEVICE_ADD, 1, NULL);
    case TELL_CONSOLE:
        return !p || send_message(s, nr, CONSOLE_PORT, 1, NULL);
    case TELL_NAME:
        return !p || send_message(s, nr, PORT_NAME, 1, p->name);
    default:
        return !p || send_message(s, nr, PORT_OPEN, host_listens(p), NULL);
    }
}

static void tell(struct virtio_serial *s)
{
    if (!multiport(s) || !clock_running()) {
        return;
    }
    for (unsigned nr = 0; nr < s->max_ports; nr++) {
        for (unsigned what = TELL_REMOVE; what <= TELL_OPEN; what <<= 1) {
            if (!(s->tell[nr] & what)) {
                continue;
            }
            if (!tell_one(s, nr, what)) {
                virtio_interrupt(&s->base.virtio, CONTROL_RX);
                return; /* the rest when the driver has buffers again */
            }
            s->tell[nr] &= (uint8_t)~what;
        }
    }
    virtio_interrupt(&s->base.virtio, CONTROL_RX);
}

static void port_is_ready(struct virtio_serial *s, struct serial_port *p)
{
    p->ready = 1;
    s->tell[p->nr] |= (uint8_t)((p->console ? TELL_CONSOLE : 0) | (p->name ? TELL_NAME : 0) | TELL_OPEN);
}

/* Told again if it is as it was, as QEMU does it: who has just come hears of it, too. */
static void set_open(struct serial_port *p, bool open)
{
    struct board *board = p->dev.board;
    p->guest_open = open;
    if (board->tell && p->dev.id) {
        board->tell(board, BOARD_PORT, &p->dev, open);
    }
}

static void take_message(struct virtio_serial *s, const uint8_t *m)
{
    uint32_t nr = le32_at(m);
    unsigned value = le16_at(m + 6);
    struct serial_port *p = nr < s->max_ports ? s->port[nr] : NULL;
    switch (le16_at(m + 4)) {
    case DEVICE_READY:
        for (unsigned i = 0; value && i < s->max_ports; i++) {
            s->tell[i] |= s->port[i] ? TELL_ADD : 0;
        }
        break;
    case PORT_READY:
        if (p && value) {
            port_is_ready(s, p);
        }
        break;
    case PORT_OPEN:
        if (p) {
            set_open(p, value != 0);
            chardev_accept_input(p->chr);
        }
        break;
    default:
        break;
    }
}

static void control_queue(struct virtio_serial *s)
{
    struct virtio *v = &s->base.virtio;
    struct virtio_element *e;
    uint8_t m[MESSAGE_BYTES];
    for (unsigned i = 0; i < BURST && (e = virtio_pop(v, CONTROL_TX)); i++) {
        if (virtio_get(e, 0, m, sizeof(m)) == sizeof(m)) {
            take_message(s, m);
        }
        virtio_push(v, e, 0);
    }
    virtio_interrupt(v, CONTROL_TX);
    tell(s);
}

static void kick(struct virtio *v, unsigned queue)
{
    struct virtio_serial *s = of(v);
    if (queue == CONTROL_RX) {
        tell(s);
        return;
    }
    if (queue == CONTROL_TX) {
        control_queue(s);
        return;
    }
    struct serial_port *p = s->port[queue < 2 ? 0 : queue / 2 - 1];
    if (p && queue & 1) {
        from_guest(p);
    } else if (p) {
        to_guest(p);
        chardev_accept_input(p->chr);
    }
}

static void again(void *owner)
{
    struct virtio_serial *s = owner;
    for (unsigned i = 0; i < s->max_ports; i++) {
        if (s->port[i]) {
            from_guest(s->port[i]);
        }
    }
    tell(s);
}

static void wake(void *owner)
{
    struct virtio_serial *s = owner;
    for (unsigned i = 0; i < s->max_ports; i++) {
        if (s->port[i]) {
            to_guest(s->port[i]);
            chardev_accept_input(s->port[i]->chr);
        }
    }
}

static void reset_queues(struct virtio *v)
{
    struct virtio_serial *s = of(v);
    memset(s->tell, 0, sizeof(s->tell));
    timer_disarm(&s->again);
    for (unsigned i = 0; i < s->max_ports; i++) {
        if (s->port[i]) {
            s->port[i]->ready = 0;
            s->port[i]->sent = 0;
            if (s->port[i]->guest_open) {
                set_open(s->port[i], false);
            }
        }
    }
}

static const struct virtio_model model = {
    .name = "virtio-serial", .id = 3, .legacy_id = 0x1003, .kick = kick, .reset = reset_queues};

/* ---- ports ---- */

extern const struct device_model model_virtio_serial;

static struct virtio_serial *find_bus(struct board *board, const char *name, GError **error)
{
    g_autofree char *id = name ? g_strdup(name) : NULL;
    if (id && g_str_has_suffix(id, ".0")) {
        id[strlen(id) - 2] = '\0';
    }
    for (struct device *d = board->devices; d; d = d->next) {
        if (d->model == &model_virtio_serial && (!id || g_strcmp0(d->id, id) == 0 ||
                                                 g_strcmp0(d->path, id) == 0)) {
            return (struct virtio_serial *)d;
        }
    }
    g_set_error(error, LODGE_ERROR, ENOENT, id ? "no virtio-serial bus \"%s\"" : "no virtio-serial bus%s",
                id ? id : "");
    return NULL;
}

static bool take_number(struct serial_port *p, GError **error)
{
    struct virtio_serial *s = p->bus;
    uint32_t nr = p->nr;
    if (nr == UINT32_MAX) { /* port 0 is for a console: drivers without many ports know only it */
        for (nr = p->console ? 0 : 1; nr < s->max_ports && s->port[nr]; nr++) {
        }
    }
    if (nr >= s->max_ports || s->port[nr]) {
        g_set_error(error, LODGE_ERROR, nr < s->max_ports ? EBUSY : EINVAL,
                    nr < s->max_ports ? "port %u is taken" : "port %u is more than the bus has", nr);
        return false;
    }
    if (nr == 0 && !p->console) {
        g_set_error(error, LODGE_ERROR, EINVAL, "port 0 is for a virtconsole");
        return false;
    }
    p->nr = nr;
    return true;
}

static void event(void *peer, enum chardev_event what)
{
    struct serial_port *p = peer;
    if (p->ready && !p->console && (what == CHARDEV_OPENED || what == CHARDEV_CLOSED)) {
        p->bus->tell[p->nr] |= TELL_OPEN;
        tell(p->bus);
    }
}

bool serial_port_start(struct serial_port *p, GError **error)
{
    p->bus = find_bus(p->dev.board, p->prop_bus, error);
    if (!p->bus || !take_number(p, error)) {
        return false;
    }
    if (p->chr && p->chr->peer) {
        g_set_error(error, LODGE_ERROR, EBUSY, "chardev \"%s\" is in use", p->chr->id);
        return false;
    }
    p->bus->port[p->nr] = p;
    if (p->chr) {
        p->chr->peer = p;
        p->chr->receive = receive;
        p->chr->room = room;
        p->chr->event = event;
        p->chr->listens = program_listens;
        p->chr->writable = writable;
    }
    if (virtio_ready(&p->bus->base.virtio, CONTROL_RX)) { /* plugged in while it runs */
        p->bus->tell[p->nr] |= TELL_ADD;
        tell(p->bus);
    }
    return true;
}

void serial_port_stop(struct serial_port *p)
{
    if (p->chr) {
        p->chr->receive = NULL;
        p->chr->room = NULL;
        p->chr->event = NULL;
        p->chr->listens = NULL;
        p->chr->writable = NULL;
        p->chr->peer = NULL;
    }
    if (p->bus) {
        p->bus->port[p->nr] = NULL;
        p->bus->tell[p->nr] = TELL_REMOVE;
        tell(p->bus);
    }
}

bool serial_port_loaded(struct device *dev, GError **error)
{
    struct serial_port *p = container_of(dev, struct serial_port, dev);
    if (p->fifo_used > sizeof(p->fifo)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "more bytes wait than can");
        return false;
    }
    set_open(p, p->guest_open);
    return true;
}

/* ---- the controller ---- */

static bool start(struct device *dev, GError **error)
{
    struct virtio_serial *s = container_of(dev, struct virtio_serial, base.pci.dev);
    struct virtio *v = &s->base.virtio;
    if (!s->max_ports || s->max_ports > SERIAL_PORTS_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "max_ports=%u: not from 1 to %u", s->max_ports,
                    SERIAL_PORTS_MAX);
        return false;
    }
    s->again = (struct timer){.fire = again, .owner = s};
    s->wake = (struct timer){.fire = wake, .owner = s};
    v->model = &model;
    v->nqueues = 2 * (s->max_ports + 1);
    for (unsigned i = 0; i < v->nqueues; i++) {
        v->queue_size_max[i] = i == CONTROL_RX || i == CONTROL_TX ? CONTROL_SIZE : QUEUE_SIZE;
    }
    v->config_bytes = CONFIG_BYTES;
    le32_put(v->config + CFG_MAX_PORTS, s->max_ports);
    v->offered = VIRTIO_BIT(CONSOLE_F_MULTIPORT);
    return virtio_pci_start(&s->base, error);
}

static void stop(struct device *dev)
{
    struct virtio_serial *s = container_of(dev, struct virtio_serial, base.pci.dev);
    timer_disarm(&s->wake);
    for (unsigned i = 0; i < SERIAL_PORTS_MAX; i++) {
        if (s->port[i]) {
            s->port[i]->bus = NULL; /* its device goes, too, or stays without a bus */
        }
    }
    virtio_pci_stop(dev);
}

static bool loaded(struct device *dev, GError **error)
{
    struct virtio_serial *s = container_of(dev, struct virtio_serial, base.pci.dev);
    timer_arm(&s->wake, clock_now());
    return virtio_pci_loaded(dev, error);
}

static const struct reg regs[] = {
    VIRTIO_PCI_STATE(struct virtio_serial, base),
    STATE_ARRAY(struct virtio_serial, tell),
    STATE_TIMER(struct virtio_serial, again),
};

static const struct prop props[] = {
    VIRTIO_PCI_PROPS(struct virtio_serial, base),
    {"max_ports", PROP_U32, offsetof(struct virtio_serial, max_ports), SERIAL_PORTS_MAX},
};

static const struct pci_ident ident = {.vendor = 0x1af4, .class = 0x078000, .irq_pin = 1};

const struct device_model model_virtio_serial = {
    .name = "virtio-serial-pci",
    .alias = "virtio-serial",
    .about = "controller of virtio consoles and ports",
    .spec = "OASIS VIRTIO 1.1, \"Console Device\"",
    .size = sizeof(struct virtio_serial),
    .version = 1,
    .bus = BUS_PCI,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = stop,
    .settle = virtio_pci_settle,
    .reset = virtio_pci_reset,
    .loaded = loaded,
};
