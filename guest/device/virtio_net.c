/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio_net: a network card behind virtqueues.
 *
 * Checksums that the driver leaves to us are computed here, unless the backend takes the
 * driver's header as it is (a tap with vnet_hdr).  Large TCP segments go to backends that
 * end TCP themselves.
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.1, "Network Device".
 * A backend of several queues has a pair of virtqueues for each, with mq=on.
 * Not modelled: announcements, receive-side coalescing and hashing.
 */
#include "base/bytes.h"
#include "base/util.h"
#include "guest/device/nic.h"
#include "guest/device/virtio.h"

#include <linux/if_tun.h>

/* Pair n is queues 2n and 2n + 1; the control queue follows the pairs that the driver knows of. */
enum { QUEUE_RX, QUEUE_TX, PAIR_QUEUES, PAIRS_MAX = (VIRTIO_QUEUES_MAX - 1) / PAIR_QUEUES };
enum { QUEUE_SIZE = 256, CONTROL_SIZE = 64, CONFIG_BYTES = 12 };
enum { CFG_MAC = 0, CFG_STATUS = 6, CFG_PAIRS = 8, CFG_MTU = 10, MTU_MIN = 68, MTU_MAX = 65535 };
enum { HEADER_BYTES = 12, HEADER_BYTES_LEGACY = 10, STATUS_LINK_UP = 1 };
enum { HDR_FLAGS = 0, HDR_GSO = 1, HDR_CSUM_START = 6, HDR_CSUM_OFFSET = 8, HDR_BUFFERS = 10 };
enum { HDR_NEEDS_CSUM = 1, HDR_DATA_VALID = 2 };
enum { MERGE_MAX = 64, MACS_MAX = 64, VLANS = 4096, TX_BURST = 512 };
enum { CTRL_RX = 0, CTRL_MAC = 1, CTRL_VLAN = 2, CTRL_MQ = 4, CTRL_OFFLOADS = 5 };
enum { CTRL_OK = 0, CTRL_ERR = 1 };

enum feature {
    NET_F_CSUM = 0, NET_F_GUEST_CSUM = 1, NET_F_GUEST_OFFLOADS = 2, NET_F_MTU = 3, NET_F_MAC = 5,
    NET_F_GUEST_TSO4 = 7, NET_F_GUEST_TSO6 = 8, NET_F_GUEST_ECN = 9, NET_F_GUEST_UFO = 10,
    NET_F_HOST_TSO4 = 11, NET_F_HOST_TSO6 = 12, NET_F_HOST_ECN = 13, NET_F_MRG_RXBUF = 15,
    NET_F_STATUS = 16, NET_F_CTRL_VQ = 17, NET_F_CTRL_RX = 18, NET_F_CTRL_VLAN = 19,
    NET_F_CTRL_RX_EXTRA = 20, NET_F_MQ = 22, NET_F_CTRL_MAC_ADDR = 23,
};

/* What CTRL_RX commands switch, in order of their numbers. */
enum filter { PROMISC, ALL_MULTI, ALL_UNI, NO_MULTI, NO_UNI, NO_BROADCAST, FILTERS };

struct virtio_net;

/* Two virtqueues and the queue of the backend behind them. */
struct pair {
    struct virtio_net *s;
    struct netdev *net; /* NULL: there is none */
    unsigned n;
    struct timer wake, tx_again; /* derived; see nic_must_wait() and transmit() */
};

struct virtio_net {
    struct virtio_pci base; /* first */

    /* State. */
    uint8_t filter[FILTERS];
    uint8_t n_uni, n_multi, uni_overflow, multi_overflow;
    uint8_t macs[MACS_MAX * 6]; /* .n_uni, then .n_multi of them */
    uint32_t vlans[VLANS / 32];
    uint64_t offloads;          /* GUEST_* features switched on */
    uint16_t active;            /* pairs that the driver uses */

    /* Properties. */
    struct netdev *net;
    uint8_t mac[6];
    bool csum, guest_csum, host_tso4, host_tso6, guest_tso4, guest_tso6, mrg_rxbuf, status, ctrl_vq;
    bool mq;
    uint16_t rx_queue_size, tx_queue_size, host_mtu;
    uint32_t bootindex;

    struct pair pair[PAIRS_MAX];
    unsigned pairs;
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

static unsigned control_queue_of(const struct virtio_net *s)
{
    return PAIR_QUEUES * (has(s, NET_F_MQ) ? s->pairs : 1);
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
static unsigned take_buffers(struct pair *p, uint64_t bytes, struct virtio_element **held,
                             bool *never)
{
    struct virtio_net *s = p->s;
    struct virtio *v = &s->base.virtio;
    unsigned n = 0, max = has(s, NET_F_MRG_RXBUF) ? MERGE_MAX : 1;
    uint64_t room = 0;
    while (room < bytes && n < max) {
        struct virtio_element *e = virtio_pop(v, PAIR_QUEUES * p->n + QUEUE_RX);
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

static void fill_buffers(struct pair *p, struct virtio_element **held, unsigned n,
                         const uint8_t *head, size_t head_bytes, const uint8_t *frame, size_t bytes)
{
    struct virtio *v = &p->s->base.virtio;
    unsigned queue = PAIR_QUEUES * p->n + QUEUE_RX;
    size_t skip = virtio_put(held[0], 0, head, head_bytes);
    for (unsigned i = 0; i < n; i++) {
        size_t part = virtio_put(held[i], skip, frame, bytes);
        virtio_fill(v, held[i], (uint32_t)(skip + part));
        frame += part;
        bytes -= part;
        skip = 0;
    }
    virtio_flush(v, queue);
    virtio_interrupt(v, queue);
}

static bool receive(void *card, const void *data, size_t n)
{
    struct pair *p = card;
    struct virtio_net *s = p->s;
    struct virtio_element *held[MERGE_MAX];
    const uint8_t *frame = data;
    uint8_t head[HEADER_BYTES] = {0};
    size_t given = p->net->vnet_hdr_bytes, head_bytes = header_bytes(s);
    bool never = false;
    if (nic_must_wait(&p->wake)) {
        return false;
    }
    if (p->n >= s->active || !virtio_ready(&s->base.virtio, PAIR_QUEUES * p->n + QUEUE_RX) || n < given + ETH_HEADER + ETH_VLAN_BYTES ||
        !wants(s, frame + given)) {
        return true; /* the card does not want it: gone */
    }
    memcpy(head, frame, MIN(given, sizeof(head)));
    if (!given && p->net->sums_good && has(s, NET_F_GUEST_CSUM)) {
        head[HDR_FLAGS] = HDR_DATA_VALID;
    }
    unsigned count = take_buffers(p, head_bytes + n - given, held, &never);
    if (!count) {
        return never;
    }
    le16_put(head + HDR_BUFFERS, (uint16_t)count);
    fill_buffers(p, held, count, head, head_bytes, frame + given, n - given);
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

static void send_element(struct pair *p, const struct virtio_element *e)
{
    struct virtio_net *s = p->s;
    size_t head_bytes = header_bytes(s), given = p->net->vnet_hdr_bytes;
    uint8_t *frame = s->frame + HEADER_BYTES, head[HEADER_BYTES] = {0};
    virtio_get(e, 0, head, head_bytes);
    size_t n = virtio_get(e, head_bytes, frame, NET_FRAME_MAX);
    if (n < ETH_HEADER || e->out_bytes - head_bytes > NET_FRAME_MAX) {
        return;
    }
    if (given) {
        head[HDR_BUFFERS] = head[HDR_BUFFERS + 1] = 0;
        memcpy(frame - given, head, given);
    } else if ((head[HDR_GSO] && !p->net->takes_large) || !finish_checksum(head, frame, n)) {
        return;
    }
    struct iovec iov = {frame - given, n + given};
    net_send(p->net, &iov, 1);
}

static void transmit(struct pair *p)
{
    struct virtio *v = &p->s->base.virtio;
    struct virtio_element *e;
    unsigned n = 0, queue = PAIR_QUEUES * p->n + QUEUE_TX;
    /* Another vCPU may add frames as fast as they leave: others must get the lock, too. */
    while (n < TX_BURST && (e = virtio_pop(v, queue))) {
        if (p->net && e->out_bytes >= header_bytes(p->s)) {
            send_element(p, e);
        }
        virtio_push(v, e, 0);
        n++;
    }
    if (n) {
        virtio_interrupt(v, queue);
    }
    if (n == TX_BURST) {
        timer_arm(&p->tx_again, clock_now());
    }
}

static void tx_again(void *owner)
{
    transmit(owner);
}

static void wake(void *owner)
{
    struct pair *p = owner;
    net_resume(p->net);
}

/* Backends spread what comes over the queues that are in use. */
static void use_pairs(struct virtio_net *s)
{
    for (unsigned i = 0; i < s->pairs; i++) {
        struct netdev *net = s->pair[i].net;
        if (net && net->use) {
            net->use(net, i < s->active);
        }
    }
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
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        tun |= s->offloads & VIRTIO_BIT(rows[i].feature) ? rows[i].tun : 0;
    }
    for (struct netdev *net = s->net; net && net->set_offload; net = net->more) {
        net->set_offload(net, (unsigned)header_bytes(s), tun & TUN_F_CSUM ? tun : 0);
    }
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

/* How many pairs the driver uses from now on. */
static bool control_mq(struct virtio_net *s, unsigned command, const uint8_t *p, size_t n)
{
    unsigned pairs = n >= 2 ? le16_at(p) : 0;
    if (command != 0 || !has(s, NET_F_MQ) || !pairs || pairs > s->pairs) {
        return false;
    }
    s->active = (uint16_t)pairs;
    use_pairs(s);
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
    case CTRL_MQ:
        return control_mq(s, p[1], p + 2, n - 2);
    case CTRL_OFFLOADS:
        return control_offloads(s, p[1], p + 2, n - 2);
    default:
        return false;
    }
}

static void control_queue(struct virtio_net *s, unsigned queue)
{
    struct virtio *v = &s->base.virtio;
    struct virtio_element *e;
    bool any = false;
    for (unsigned i = 0; i < QUEUE_SIZE && (e = virtio_pop(v, queue)); i++) {
        size_t n = virtio_get(e, 0, s->frame, sizeof(s->frame));
        uint8_t ack = n >= 2 && control(s, s->frame, n) ? CTRL_OK : CTRL_ERR;
        virtio_push(v, e, (uint32_t)virtio_put(e, 0, &ack, 1));
        any = true;
    }
    if (any) {
        virtio_interrupt(v, queue);
        for (unsigned i = 0; i < s->pairs; i++) {
            net_resume(s->pair[i].net);
        }
    }
}

/* ---- the device ---- */

static void kick(struct virtio *v, unsigned queue)
{
    struct virtio_net *s = of(v);
    if (queue == control_queue_of(s)) {
        control_queue(s, queue);
    } else if (queue < PAIR_QUEUES * s->pairs && queue % PAIR_QUEUES == QUEUE_RX) {
        net_resume(s->pair[queue / PAIR_QUEUES].net);
    } else if (queue < PAIR_QUEUES * s->pairs) {
        transmit(&s->pair[queue / PAIR_QUEUES]);
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
    s->active = 1;
    use_pairs(s);
    memcpy(v->config + CFG_MAC, s->mac, 6);
    for (unsigned i = 0; i < s->pairs; i++) {
        timer_disarm(&s->pair[i].tx_again);
    }
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
    struct virtio_net *s = ((struct pair *)card)->s;
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
        {NET_F_MQ, s->pairs > 1},
        {NET_F_MTU, s->host_mtu},
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

/* Without mq=on, or without a control queue to say how many, the first queue is all there is. */
static bool count_pairs(struct virtio_net *s, GError **error)
{
    unsigned n = 0;
    for (const struct netdev *net = s->net; net; net = net->more) {
        n++;
    }
    s->pairs = s->mq && s->ctrl_vq ? MAX(n, 1) : 1;
    if (s->pairs > PAIRS_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "netdev \"%s\" has %u queues: a card has at most %d",
                    s->net->id, n, PAIRS_MAX);
        return false;
    }
    if (s->host_mtu && s->host_mtu < MTU_MIN) {
        g_set_error(error, LODGE_ERROR, EINVAL, "host_mtu=%u: not %d to %d", s->host_mtu, MTU_MIN,
                    MTU_MAX);
        return false;
    }
    return true;
}

static void unplug_pairs(struct virtio_net *s)
{
    for (unsigned i = 0; i < s->pairs; i++) {
        nic_unplug(s->pair[i].net);
    }
}

static bool plug_pairs(struct virtio_net *s, GError **error)
{
    struct netdev *net = s->net;
    for (unsigned i = 0; i < s->pairs; i++, net = net ? net->more : NULL) {
        struct pair *p = &s->pair[i];
        *p = (struct pair){.s = s,
                           .n = i,
                           .wake = {.fire = wake, .owner = p},
                           .tx_again = {.fire = tx_again, .owner = p}};
        if (!nic_plug(net, receive, p, error)) {
            return false; /* the first has a card already: nothing was plugged */
        }
        p->net = net;
    }
    if (s->net) {
        s->net->link_changed = link_changed;
    }
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct virtio_net *s = self(dev);
    struct virtio *v = &s->base.virtio;
    if (!queue_size_fits("rx_queue_size", s->rx_queue_size, error) ||
        !queue_size_fits("tx_queue_size", s->tx_queue_size, error) || !count_pairs(s, error) ||
        !plug_pairs(s, error)) {
        return false;
    }
    nic_default_mac(s->mac);
    v->model = &net_model;
    v->nqueues = PAIR_QUEUES * s->pairs + s->ctrl_vq;
    for (unsigned i = 0; i < s->pairs; i++) {
        v->queue_size_max[PAIR_QUEUES * i + QUEUE_RX] = s->rx_queue_size;
        v->queue_size_max[PAIR_QUEUES * i + QUEUE_TX] = s->tx_queue_size;
    }
    v->queue_size_max[PAIR_QUEUES * s->pairs] = CONTROL_SIZE;
    v->config_bytes = CONFIG_BYTES;
    v->offered = features_of(s);
    le16_put(v->config + CFG_PAIRS, (uint16_t)s->pairs);
    le16_put(v->config + CFG_MTU, s->host_mtu);
    memcpy(v->config + CFG_MAC, s->mac, 6);
    if (!virtio_pci_start(&s->base, error)) {
        unplug_pairs(s);
        return false;
    }
    return true;
}

static void stop(struct device *dev)
{
    struct virtio_net *s = self(dev);
    unplug_pairs(s);
    for (unsigned i = 0; i < s->pairs; i++) {
        timer_disarm(&s->pair[i].wake);
        timer_disarm(&s->pair[i].tx_again);
    }
    virtio_pci_stop(dev);
}

static bool loaded(struct device *dev, GError **error)
{
    struct virtio_net *s = self(dev);
    if (s->n_uni + s->n_multi > MACS_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "more addresses than the table has");
        return false;
    }
    if (!s->active || s->active > s->pairs) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%u queue pairs in use of %u", s->active, s->pairs);
        return false;
    }
    use_pairs(s);
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
    STATE(struct virtio_net, active, .since = 2, .reset = 1),
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
    {"mq", PROP_BOOL, P(mq), .help = "a pair of queues for each of the backend's"},
    {"host_mtu", PROP_U16, P(host_mtu), .help = "what the driver is told; 0: nothing"},
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
    .version = 2,
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
