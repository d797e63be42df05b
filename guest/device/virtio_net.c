/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio_net: a network card behind virtqueues.
 *
 * Checksums that the driver leaves to us are computed here, unless the backend takes the
 * driver's header as it is (a tap with vnet_hdr).  Large TCP segments go to backends that
 * end TCP themselves.
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.1, "Network Device".
 * Not modelled: several queue pairs, announcements, receive-side coalescing and hashing.
 */
#include "base/bytes.h"
#include "base/util.h"
#include "guest/device/nic.h"
#include "guest/device/virtio.h"

#include <linux/if_tun.h>

enum { QUEUE_RX, QUEUE_TX, QUEUE_CONTROL, QUEUES };
enum { QUEUE_SIZE = 256, CONFIG_BYTES = 12, CFG_MAC = 0, CFG_STATUS = 6, CFG_PAIRS = 8 };
enum { HEADER_BYTES = 12, HEADER_BYTES_LEGACY = 10, STATUS_LINK_UP = 1 };
enum { HDR_FLAGS = 0, HDR_GSO = 1, HDR_CSUM_START = 6, HDR_CSUM_OFFSET = 8, HDR_BUFFERS = 10 };
enum { HDR_NEEDS_CSUM = 1, HDR_DATA_VALID = 2 };
enum { MERGE_MAX = 64, MACS_MAX = 64, VLANS = 4096, TX_BURST = 512 };
enum { CTRL_RX = 0, CTRL_MAC = 1, CTRL_VLAN = 2, CTRL_OFFLOADS = 5 };
enum { CTRL_OK = 0, CTRL_ERR = 1 };

enum feature {
    NET_F_CSUM = 0, NET_F_GUEST_CSUM = 1, NET_F_GUEST_OFFLOADS = 2, NET_F_MAC = 5,
    NET_F_GUEST_TSO4 = 7, NET_F_GUEST_TSO6 = 8, NET_F_GUEST_ECN = 9, NET_F_GUEST_UFO = 10,
    NET_F_HOST_TSO4 = 11, NET_F_HOST_TSO6 = 12, NET_F_HOST_ECN = 13, NET_F_MRG_RXBUF = 15,
    NET_F_STATUS = 16, NET_F_CTRL_VQ = 17, NET_F_CTRL_RX = 18, NET_F_CTRL_VLAN = 19,
    NET_F_CTRL_RX_EXTRA = 20, NET_F_CTRL_MAC_ADDR = 23,
};

/* What CTRL_RX commands switch, in order of their numbers. */
enum filter { PROMISC, ALL_MULTI, ALL_UNI, NO_MULTI, NO_UNI, NO_BROADCAST, FILTERS };

struct virtio_net {
    struct virtio_pci base; /* first */

    /* State. */
    uint8_t filter[FILTERS];
    uint8_t n_uni, n_multi, uni_overflow, multi_overflow;
    uint8_t macs[MACS_MAX * 6]; /* .n_uni, then .n_multi of them */
    uint32_t vlans[VLANS / 32];
    uint64_t offloads;          /* GUEST_* features switched on */

    /* Properties. */
    struct netdev *net;
    uint8_t mac[6];
    bool csum, guest_csum, host_tso4, host_tso6, guest_tso4, guest_tso6, mrg_rxbuf, status, ctrl_vq;
    uint16_t rx_queue_size, tx_queue_size;
    uint32_t bootindex;

    struct timer wake, tx_again; /* derived; see nic_must_wait() and transmit() */
    uint8_t frame[HEADER_BYTES + NET_FRAME_MAX];
};

static struct virtio_net *self(struct device *dev)
{
    return container_of(dev, struct virtio_net, base.pci.dev);
}

static struct virtio_net *of(struct virtio *v)
{
    return container_of(v, struct virtio_net, base.virtio);
}

static bool has(const struct virtio_net *s, enum feature f)
{
    return s->base.virtio.features & VIRTIO_BIT(f);
}

static size_t header_bytes(const struct virtio_net *s)
{
    bool merged = has(s, NET_F_MRG_RXBUF) || virtio_has(&s->base.virtio, VIRTIO_F_VERSION_1);
    return merged ? HEADER_BYTES : HEADER_BYTES_LEGACY;
}

/* ---- receive ---- */

static bool in_table(const struct virtio_net *s, const uint8_t *mac, unsigned from, unsigned n)
{
    for (unsigned i = from; i < from + n; i++) {
        if (memcmp(s->macs + i * 6, mac, 6) == 0) {
            return true;
        }
    }
    return false;
}

static bool wants(const struct virtio_net *s, const uint8_t *frame)
{
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    if (s->filter[PROMISC]) {
        return true;
    }
    if (be16_at(frame + 12) == ETH_TYPE_VLAN && has(s, NET_F_CTRL_VLAN)) {
        unsigned id = be16_at(frame + 14) & 0xfff;
        if (!(s->vlans[id / 32] >> id % 32 & 1)) {
            return false;
        }
    }
    if (memcmp(frame, all, 6) == 0) {
        return !s->filter[NO_BROADCAST];
    }
    if (frame[0] & 1) {
        return !s->filter[NO_MULTI] && (s->filter[ALL_MULTI] || s->multi_overflow ||
                                        in_table(s, frame, s->n_uni, s->n_multi));
    }
    return !s->filter[NO_UNI] &&
           (s->filter[ALL_UNI] || s->uni_overflow ||
            memcmp(frame, s->base.virtio.config + CFG_MAC, 6) == 0 ||
            in_table(s, frame, 0, s->n_uni));
}

/* Takes buffers for @bytes; returns how many, 0 if there are too few (none is taken then). */
static unsigned take_buffers(struct virtio_net *s, uint64_t bytes, struct virtio_element **held,
                             bool *never)
{
    struct virtio *v = &s->base.virtio;
    unsigned n = 0, max = has(s, NET_F_MRG_RXBUF) ? MERGE_MAX : 1;
    uint64_t room = 0;
    while (room < bytes && n < max) {
        struct virtio_element *e = virtio_pop(v, QUEUE_RX);
        if (!e) {
            break;
        }
        held[n++] = e;
        room += e->in_bytes;
    }
    if (room >= bytes) {
        return n;
    }
    *never = n == max; /* the frame is larger than a driver may expect: drop it */
    while (n) {
        virtio_unpop(v, held[--n]);
    }
    return 0;
}

static void fill_buffers(struct virtio_net *s, struct virtio_element **held, unsigned n,
                         const uint8_t *head, size_t head_bytes, const uint8_t *frame, size_t bytes)
{
    struct virtio *v = &s->base.virtio;
    size_t skip = virtio_put(held[0], 0, head, head_bytes);
    for (unsigned i = 0; i < n; i++) {
        size_t part = virtio_put(held[i], skip, frame, bytes);
        virtio_fill(v, held[i], (uint32_t)(skip + part));
        frame += part;
        bytes -= part;
        skip = 0;
    }
    virtio_flush(v, QUEUE_RX);
    virtio_interrupt(v, QUEUE_RX);
}

static bool receive(void *card, const void *data, size_t n)
{
    struct virtio_net *s = card;
    struct virtio_element *held[MERGE_MAX];
    const uint8_t *frame = data;
    uint8_t head[HEADER_BYTES] = {0};
    size_t given = s->net->vnet_hdr_bytes, head_bytes = header_bytes(s);
    bool never = false;
    if (nic_must_wait(&s->wake)) {
        return false;
    }
    if (!virtio_ready(&s->base.virtio, QUEUE_RX) || n < given + ETH_HEADER + ETH_VLAN_BYTES ||
        !wants(s, frame + given)) {
        return true; /* the card does not want it: gone */
    }
    memcpy(head, frame, MIN(given, sizeof(head)));
    if (!given && s->net->sums_good && has(s, NET_F_GUEST_CSUM)) {
        head[HDR_FLAGS] = HDR_DATA_VALID;
    }
    unsigned count = take_buffers(s, head_bytes + n - given, held, &never);
    if (!count) {
        return never;
    }
    le16_put(head + HDR_BUFFERS, (uint16_t)count);
    fill_buffers(s, held, count, head, head_bytes, frame + given, n - given);
    return true;
}

/* ---- transmit ---- */

/* Does what the header asks for; false if it asks for nonsense. */
static bool finish_checksum(const uint8_t *head, uint8_t *frame, size_t n)
{
    size_t start = le16_at(head + HDR_CSUM_START);
    size_t at = start + le16_at(head + HDR_CSUM_OFFSET);
    if (!(head[HDR_FLAGS] & HDR_NEEDS_CSUM)) {
        return true;
    }
    if (start >= n || at + 2 > n) {
        return false;
    }
    uint16_t sum = (uint16_t)~nic_sum(frame + start, n - start, 0);
    be16_put(frame + at, sum ? sum : 0xffff); /* 0 would mean "none" to UDP, is the same to TCP */
    return true;
}

static void send_element(struct virtio_net *s, const struct virtio_element *e)
{
    size_t head_bytes = header_bytes(s), given = s->net->vnet_hdr_bytes;
    uint8_t *frame = s->frame + HEADER_BYTES, head[HEADER_BYTES] = {0};
    virtio_get(e, 0, head, head_bytes);
    size_t n = virtio_get(e, head_bytes, frame, NET_FRAME_MAX);
    if (n < ETH_HEADER || e->out_bytes - head_bytes > NET_FRAME_MAX) {
        return;
    }
    if (given) {
        head[HDR_BUFFERS] = head[HDR_BUFFERS + 1] = 0;
        memcpy(frame - given, head, given);
    } else if ((head[HDR_GSO] && !s->net->takes_large) || !finish_checksum(head, frame, n)) {
        return;
    }
    struct iovec iov = {frame - given, n + given};
    net_send(s->net, &iov, 1);
}

static void transmit(struct virtio_net *s)
{
    struct virtio *v = &s->base.virtio;
    struct virtio_element *e;
    unsigned n = 0;
    /* Another vCPU may add frames as fast as they leave: others must get the lock, too. */
    while (n < TX_BURST && (e = virtio_pop(v, QUEUE_TX))) {
        if (s->net && e->out_bytes >= header_bytes(s)) {
            send_element(s, e);
        }
        virtio_push(v, e, 0);
        n++;
    }
    if (n) {
        virtio_interrupt(v, QUEUE_TX);
    }
    if (n == TX_BURST) {
        timer_arm(&s->tx_again, clock_now());
    }
}

static void tx_again(void *owner)
{
    struct virtio_net *s = owner;
    transmit(s);
}

static void wake(void *owner)
{
    struct virtio_net *s = owner;
    net_resume(s->net);
}

/* ---- control queue ---- */

static bool control_rx(struct virtio_net *s, unsigned command, const uint8_t *p, size_t n)
{
    if (command >= FILTERS || n < 1) {
        return false;
    }
    s->filter[command] = p[0] != 0;
    return true;
}

/* One of the two lists of MAC_TABLE_SET; returns the bytes it takes, 0 if it is cut off. */
static size_t mac_list(struct virtio_net *s, const uint8_t *p, size_t n, uint8_t *count,
                       uint8_t *overflow, unsigned used)
{
    uint64_t entries = n >= 4 ? le32_at(p) : 0;
    if (n < 4 || entries * 6 > n - 4) {
        return 0;
    }
    *overflow = entries > MACS_MAX - used;
    *count = *overflow ? 0 : (uint8_t)entries;
    memcpy(s->macs + used * 6, p + 4, *count * 6u);
    return 4 + (size_t)entries * 6;
}

static bool control_mac(struct virtio_net *s, unsigned command, const uint8_t *p, size_t n)
{
    if (command == 1 && n == 6) { /* MAC_ADDR_SET */
        memcpy(s->base.virtio.config + CFG_MAC, p, 6);
        return true;
    }
    if (command != 0) {
        return false;
    }
    s->n_uni = s->n_multi = 0;
    size_t first = mac_list(s, p, n, &s->n_uni, &s->uni_overflow, 0);
    return first && mac_list(s, p + first, n - first, &s->n_multi, &s->multi_overflow, s->n_uni);
}

static bool control_vlan(struct virtio_net *s, unsigned command, const uint8_t *p, size_t n)
{
    unsigned id = n >= 2 ? le16_at(p) : VLANS;
    if (id >= VLANS || command > 1) {
        return false;
    }
    uint32_t bit = UINT32_C(1) << id % 32;
    s->vlans[id / 32] = command ? s->vlans[id / 32] & ~bit : s->vlans[id / 32] | bit;
    return true;
}

/* Tells a backend with vnet_hdr what it may hand us. */
static void set_offloads(struct virtio_net *s)
{
    static const struct {
        enum feature feature;
        unsigned tun;
    } rows[] = {{NET_F_GUEST_CSUM, TUN_F_CSUM}, {NET_F_GUEST_TSO4, TUN_F_TSO4},
                {NET_F_GUEST_TSO6, TUN_F_TSO6}, {NET_F_GUEST_ECN, TUN_F_TSO_ECN}};
    unsigned tun = 0;
    if (!s->net || !s->net->set_offload) {
        return;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        tun |= s->offloads & VIRTIO_BIT(rows[i].feature) ? rows[i].tun : 0;
    }
    s->net->set_offload(s->net, (unsigned)header_bytes(s), tun & TUN_F_CSUM ? tun : 0);
}

static bool control_offloads(struct virtio_net *s, unsigned command, const uint8_t *p, size_t n)
{
    if (command != 0 || n < 8 || (le64_at(p) & ~s->base.virtio.features)) {
        return false;
    }
    s->offloads = le64_at(p);
    set_offloads(s);
    return true;
}

static bool control(struct virtio_net *s, const uint8_t *p, size_t n)
{
    switch (p[0]) {
    case CTRL_RX:
        return control_rx(s, p[1], p + 2, n - 2);
    case CTRL_MAC:
        return control_mac(s, p[1], p + 2, n - 2);
    case CTRL_VLAN:
        return control_vlan(s, p[1], p + 2, n - 2);
    case CTRL_OFFLOADS:
        return control_offloads(s, p[1], p + 2, n - 2);
    default:
        return false;
    }
}

static void control_queue(struct virtio_net *s)
{
    struct virtio *v = &s->base.virtio;
    struct virtio_element *e;
    bool any = false;
    for (unsigned i = 0; i < QUEUE_SIZE && (e = virtio_pop(v, QUEUE_CONTROL)); i++) {
        size_t n = virtio_get(e, 0, s->frame, sizeof(s->frame));
        uint8_t ack = n >= 2 && control(s, s->frame, n) ? CTRL_OK : CTRL_ERR;
        virtio_push(v, e, (uint32_t)virtio_put(e, 0, &ack, 1));
        any = true;
    }
    if (any) {
        virtio_interrupt(v, QUEUE_CONTROL);
        net_resume(s->net);
    }
}

/* ---- the device ---- */

static void kick(struct virtio *v, unsigned queue)
{
    struct virtio_net *s = of(v);
    if (queue == QUEUE_RX) {
        net_resume(s->net);
    } else if (queue == QUEUE_TX) {
        transmit(s);
    } else {
        control_queue(s);
    }
}

static void reset_queues(struct virtio *v)
{
    struct virtio_net *s = of(v);
    memset(s->filter, 0, sizeof(s->filter));
    memset(s->vlans, 0, sizeof(s->vlans));
    s->filter[PROMISC] = 1; /* until a driver that can says otherwise */
    s->n_uni = s->n_multi = s->uni_overflow = s->multi_overflow = 0;
    s->offloads = 0;
    memcpy(v->config + CFG_MAC, s->mac, 6);
    timer_disarm(&s->tx_again);
}

static void status_changed(struct virtio *v, uint8_t old)
{
    struct virtio_net *s = of(v);
    if ((v->status & ~old & VIRTIO_DRIVER_OK)) {
        if (old) { /* by the driver; a loaded state says itself what is on */
            s->offloads = v->features;
        }
        set_offloads(s);
    }
}

static void config_reading(struct virtio *v)
{
    struct virtio_net *s = of(v);
    le16_put(v->config + CFG_STATUS, !s->net || s->net->link_up ? STATUS_LINK_UP : 0);
}

static void link_changed(void *card)
{
    struct virtio_net *s = card;
    if (has(s, NET_F_STATUS)) {
        virtio_config_changed(&s->base.virtio);
    }
}

/* Legacy drivers set the address here. */
static void config_written(struct virtio *v, unsigned at, unsigned bytes, uint32_t value)
{
    for (unsigned i = 0; i < bytes && !virtio_has(v, VIRTIO_F_VERSION_1); i++) {
        if (at + i < 6) {
            v->config[CFG_MAC + at + i] = (uint8_t)(value >> i * 8);
        }
    }
}

static const struct virtio_model net_model = {
    .name = "virtio-net",
    .id = 1,
    .legacy_id = 0x1000,
    .kick = kick,
    .reset = reset_queues,
    .status_changed = status_changed,
    .config_reading = config_reading,
    .config_written = config_written,
};

static uint64_t features_of(const struct virtio_net *s)
{
    bool vnet = s->net && s->net->vnet_hdr_offered;
    bool large = vnet || (s->net && s->net->takes_large);
    const struct {
        enum feature feature;
        bool on;
    } rows[] = {
        {NET_F_MAC, true},
        {NET_F_STATUS, s->status},
        {NET_F_MRG_RXBUF, s->mrg_rxbuf},
        {NET_F_CSUM, s->csum},
        {NET_F_GUEST_CSUM, s->guest_csum && (vnet || (s->net && s->net->sums_good))},
        {NET_F_HOST_TSO4, s->csum && s->host_tso4 && large},
        {NET_F_HOST_TSO6, s->csum && s->host_tso6 && large},
        {NET_F_HOST_ECN, s->csum && s->host_tso4 && vnet},
        {NET_F_GUEST_TSO4, s->guest_csum && s->guest_tso4 && vnet},
        {NET_F_GUEST_TSO6, s->guest_csum && s->guest_tso6 && vnet},
        {NET_F_GUEST_ECN, s->guest_csum && s->guest_tso4 && vnet},
        {NET_F_GUEST_OFFLOADS, s->ctrl_vq && vnet},
        {NET_F_CTRL_VQ, s->ctrl_vq},
        {NET_F_CTRL_RX, s->ctrl_vq},
        {NET_F_CTRL_RX_EXTRA, s->ctrl_vq},
        {NET_F_CTRL_VLAN, s->ctrl_vq},
        {NET_F_CTRL_MAC_ADDR, s->ctrl_vq},
    };
    uint64_t bits = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        bits |= rows[i].on ? VIRTIO_BIT(rows[i].feature) : 0;
    }
    return bits;
}

static bool queue_size_fits(const char *name, unsigned size, GError **error)
{
    if (size < 64 || size > VIRTIO_QUEUE_SIZE_MAX || (size & (size - 1))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s=%u: not a power of two from 64 to %u", name, size,
                    VIRTIO_QUEUE_SIZE_MAX);
        return false;
    }
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct virtio_net *s = self(dev);
    struct virtio *v = &s->base.virtio;
    if (!queue_size_fits("rx_queue_size", s->rx_queue_size, error) ||
        !queue_size_fits("tx_queue_size", s->tx_queue_size, error) ||
        !nic_plug(s->net, receive, s, error)) {
        return false;
    }
    nic_default_mac(s->mac);
    s->wake = (struct timer){.fire = wake, .owner = s};
    s->tx_again = (struct timer){.fire = tx_again, .owner = s};
    if (s->net) {
        s->net->link_changed = link_changed;
    }
    v->model = &net_model;
    v->nqueues = s->ctrl_vq ? QUEUES : QUEUES - 1;
    v->queue_size_max[QUEUE_RX] = s->rx_queue_size;
    v->queue_size_max[QUEUE_TX] = s->tx_queue_size;
    v->queue_size_max[QUEUE_CONTROL] = 64;
    v->config_bytes = CONFIG_BYTES;
    v->offered = features_of(s);
    le16_put(v->config + CFG_PAIRS, 1);
    memcpy(v->config + CFG_MAC, s->mac, 6);
    if (!virtio_pci_start(&s->base, error)) {
        nic_unplug(s->net);
        return false;
    }
    return true;
}

static void stop(struct device *dev)
{
    struct virtio_net *s = self(dev);
    nic_unplug(s->net);
    timer_disarm(&s->wake);
    timer_disarm(&s->tx_again);
    virtio_pci_stop(dev);
}

static bool loaded(struct device *dev, GError **error)
{
    struct virtio_net *s = self(dev);
    if (s->n_uni + s->n_multi > MACS_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "more addresses than the table has");
        return false;
    }
    return virtio_pci_loaded(dev, error);
}

static const struct reg regs[] = {
    VIRTIO_PCI_STATE(struct virtio_net, base),
    STATE_ARRAY(struct virtio_net, filter),
    STATE(struct virtio_net, n_uni),
    STATE(struct virtio_net, n_multi),
    STATE(struct virtio_net, uni_overflow),
    STATE(struct virtio_net, multi_overflow),
    STATE_ARRAY(struct virtio_net, macs),
    STATE_ARRAY(struct virtio_net, vlans),
    STATE(struct virtio_net, offloads),
};

#define P(field) offsetof(struct virtio_net, field)
static const struct prop props[] = {
    VIRTIO_PCI_PROPS(struct virtio_net, base),
    {"netdev", PROP_NETDEV, P(net), .help = "id of the -netdev"},
    {"mac", PROP_MAC, P(mac), .help = "52:54:00:12:34:56 and counting if absent"},
    {"csum", PROP_BOOL, P(csum), 1},
    {"guest_csum", PROP_BOOL, P(guest_csum), 1},
    {"host_tso4", PROP_BOOL, P(host_tso4), 1},
    {"host_tso6", PROP_BOOL, P(host_tso6), 1},
    {"guest_tso4", PROP_BOOL, P(guest_tso4), 1},
    {"guest_tso6", PROP_BOOL, P(guest_tso6), 1},
    {"mrg_rxbuf", PROP_BOOL, P(mrg_rxbuf), 1},
    {"status", PROP_BOOL, P(status), 1},
    {"ctrl_vq", PROP_BOOL, P(ctrl_vq), 1},
    {"rx_queue_size", PROP_U16, P(rx_queue_size), QUEUE_SIZE},
    {"tx_queue_size", PROP_U16, P(tx_queue_size), QUEUE_SIZE},
    {"bootindex", PROP_U32, P(bootindex), UINT32_MAX},
};

static const struct pci_ident ident = {
    .vendor = 0x1af4, .class = 0x020000, .irq_pin = 1, .romfile = "efi-virtio.rom",
};

const struct device_model model_virtio_net = {
    .name = "virtio-net-pci",
    .alias = "virtio-net,virtio-net-pci-transitional,virtio-net-pci-non-transitional",
    .about = "virtio network card",
    .spec = "VIRTIO 1.1, \"Network Device\"",
    .size = sizeof(struct virtio_net),
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
