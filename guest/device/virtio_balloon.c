/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio_balloon: memory that the guest gives back, for a while.
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.2, "Traditional Memory Balloon Device".
 * Not modelled: free page hinting (a help for live migration), page poisoning.
 */
#include "guest/device/virtio_balloon.h"

#include "base/bytes.h"
#include "base/util.h"
#include "guest/device/virtio.h"

#include <time.h>

enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_STATS, QUEUE_REPORT };
enum { QUEUE_SIZE = 128, CONFIG_BYTES = 8, CFG_WANTED = 0, CFG_ACTUAL = 4 };
enum { BALLOON_F_STATS = 1, BALLOON_F_DEFLATE_ON_OOM = 2, BALLOON_F_REPORTING = 5 };
enum { STAT_BYTES = 10, PFNS = 1024, BURST = 64 };

struct virtio_balloon {
    struct virtio_pci base; /* first */

    /* State. */
    uint64_t stats[BALLOON_STATS];
    uint16_t stats_head; /* the buffer we hold until new figures are wanted */
    uint8_t stats_held;
    struct timer again;  /* more work than a burst */
    uint64_t stats_time; /* when the figures came, seconds since 1970 */
    uint32_t poll_seconds;
    struct timer poll;

    /* Properties. */
    bool deflate_on_oom, reporting;

    struct virtio_element *stats_element;
};

static struct virtio_balloon *of(struct virtio *v)
{
    return container_of(v, struct virtio_balloon, base.virtio);
}

static struct virtio_balloon *self(const struct device *dev)
{
    return container_of(dev, struct virtio_balloon, base.pci.dev);
}

/* One page of the guest; what is not plain RAM is left alone. */
static void give_back(struct virtio_balloon *s, uint64_t gpa)
{
    uint64_t n = BALLOON_PAGE;
    void *host = space_map(s->base.pci.dev.board->memory, gpa, &n, true);
    if (host && n == BALLOON_PAGE) {
        ram_discard(host, n);
    }
}

static void inflate(struct virtio_balloon *s, const struct virtio_element *e)
{
    uint8_t pfns[4 * PFNS];
    uint64_t done = 0;
    for (size_t n; (n = virtio_get(e, done, pfns, sizeof(pfns))) >= 4; done += n & ~(size_t)3) {
        for (size_t i = 0; i + 4 <= n; i += 4) {
            give_back(s, (uint64_t)le32_at(pfns + i) * BALLOON_PAGE);
        }
    }
}

/* Pages the guest says are free until it writes to them. */
static void report(const struct virtio_element *e)
{
    for (unsigned i = 0; i < e->nin; i++) {
        const struct iovec *part = &e->iov[e->nout + i];
        ram_discard(part->iov_base, part->iov_len);
    }
}

static void take_stats(struct virtio_balloon *s, const struct virtio_element *e)
{
    uint8_t row[STAT_BYTES];
    s->stats_time = (uint64_t)time(NULL);
    for (unsigned i = 0; i < BALLOON_STATS; i++) {
        s->stats[i] = UINT64_MAX;
    }
    for (unsigned i = 0; i < 4 * BALLOON_STATS; i++) {
        if (virtio_get(e, (uint64_t)i * STAT_BYTES, row, STAT_BYTES) < STAT_BYTES) {
            break;
        }
        if (le16_at(row) < BALLOON_STATS) {
            s->stats[le16_at(row)] = le64_at(row + 2);
        }
    }
}

/* The driver offers one buffer; we keep it until we want to know again. */
static void stats_queue(struct virtio_balloon *s)
{
    struct virtio *v = &s->base.virtio;
    struct virtio_element *e;
    for (unsigned i = 0; i < BURST && (e = virtio_pop(v, QUEUE_STATS)); i++) {
        if (s->stats_element) {
            virtio_push(v, s->stats_element, 0);
        }
        s->stats_element = e;
        s->stats_head = e->head;
        s->stats_held = 1;
        take_stats(s, e);
    }
}

static void page_queue(struct virtio_balloon *s, unsigned queue)
{
    struct virtio *v = &s->base.virtio;
    struct virtio_element *e;
    unsigned n = 0;
    while (n < BURST && (e = virtio_pop(v, queue))) {
        if (queue == QUEUE_INFLATE) {
            inflate(s, e);
        } else if (queue == QUEUE_REPORT) {
            report(e);
        }
        virtio_push(v, e, 0);
        n++;
    }
    if (n) {
        virtio_interrupt(v, queue);
    }
    if (n == BURST) {
        timer_arm(&s->again, clock_now());
    }
}

static void kick(struct virtio *v, unsigned queue)
{
    if (queue == QUEUE_STATS) {
        stats_queue(of(v));
    } else {
        page_queue(of(v), queue);
    }
}

static void again(void *owner)
{
    struct virtio_balloon *s = owner;
    for (unsigned queue = 0; queue < s->base.virtio.nqueues; queue++) {
        if (queue != QUEUE_STATS && virtio_ready(&s->base.virtio, queue)) {
            page_queue(s, queue);
        }
    }
}

static void reset_queues(struct virtio *v)
{
    struct virtio_balloon *s = of(v);
    s->stats_element = NULL;
    s->stats_held = 0;
    s->stats_time = 0;
    timer_disarm(&s->again);
    le32_put(v->config + CFG_ACTUAL, 0);
    for (unsigned i = 0; i < BALLOON_STATS; i++) {
        s->stats[i] = UINT64_MAX;
    }
}

/* "actual" is the driver's. */
static void config_written(struct virtio *v, unsigned at, unsigned bytes, uint32_t value)
{
    for (unsigned i = 0; i < bytes; i++) {
        if (at + i >= CFG_ACTUAL && at + i < CFG_ACTUAL + 4) {
            v->config[at + i] = (uint8_t)(value >> i * 8);
        }
    }
    struct device *dev = &of(v)->base.pci.dev;
    if (at + bytes == CFG_ACTUAL + 4 && dev->board->tell) {
        dev->board->tell(dev->board, BOARD_BALLOON, dev, (int64_t)balloon_given(dev));
    }
}

static const struct virtio_model model = {
    .name = "virtio-balloon",
    .id = 5,
    .legacy_id = 0x1002,
    .kick = kick,
    .reset = reset_queues,
    .config_written = config_written,
};

/* ---- for the monitor ---- */

void balloon_set_target(struct device *dev, uint64_t bytes)
{
    struct virtio *v = &self(dev)->base.virtio;
    le32_put(v->config + CFG_WANTED, (uint32_t)MIN(bytes / BALLOON_PAGE, UINT32_MAX));
    virtio_config_changed(v);
}

uint64_t balloon_given(const struct device *dev)
{
    return (uint64_t)le32_at(self(dev)->base.virtio.config + CFG_ACTUAL) * BALLOON_PAGE;
}

const uint64_t *balloon_stats(const struct device *dev)
{
    return self(dev)->stats;
}

void balloon_ask_stats(struct device *dev)
{
    struct virtio_balloon *s = self(dev);
    if (s->stats_element) {
        virtio_push(&s->base.virtio, s->stats_element, 0);
        s->stats_element = NULL;
        s->stats_held = 0;
        virtio_interrupt(&s->base.virtio, QUEUE_STATS);
    }
}

uint64_t balloon_stats_time(const struct device *dev)
{
    return self(dev)->stats_time;
}

uint32_t balloon_poll_seconds(const struct device *dev)
{
    return self(dev)->poll_seconds;
}

static void poll_again(struct virtio_balloon *s)
{
    timer_disarm(&s->poll);
    if (s->poll_seconds) {
        timer_arm(&s->poll, clock_now() + s->poll_seconds * INT64_C(1000000000));
    }
}

static void poll(void *owner)
{
    struct virtio_balloon *s = owner;
    balloon_ask_stats(&s->base.pci.dev);
    poll_again(s);
}

void balloon_poll_stats(struct device *dev, uint32_t seconds)
{
    self(dev)->poll_seconds = seconds;
    balloon_ask_stats(dev);
    poll_again(self(dev));
}

/* ---- the device ---- */

static bool start(struct device *dev, GError **error)
{
    struct virtio_balloon *s = self(dev);
    struct virtio *v = &s->base.virtio;
    if (board_part(dev->board, "balloon")) {
        g_set_error(error, LODGE_ERROR, EBUSY, "the machine has a balloon already");
        return false;
    }
    s->again = (struct timer){.fire = again, .owner = s};
    s->poll = (struct timer){.fire = poll, .owner = s};
    v->model = &model;
    v->nqueues = s->reporting ? QUEUE_REPORT + 1 : QUEUE_REPORT;
    for (unsigned i = 0; i < v->nqueues; i++) {
        v->queue_size_max[i] = QUEUE_SIZE;
    }
    v->config_bytes = CONFIG_BYTES;
    v->offered = VIRTIO_BIT(BALLOON_F_STATS);
    v->offered |= s->deflate_on_oom ? VIRTIO_BIT(BALLOON_F_DEFLATE_ON_OOM) : 0;
    v->offered |= s->reporting ? VIRTIO_BIT(BALLOON_F_REPORTING) : 0;
    if (!virtio_pci_start(&s->base, error)) {
        return false;
    }
    board_add_part(dev->board, "balloon", dev);
    return true;
}

static bool loaded(struct device *dev, GError **error)
{
    struct virtio_balloon *s = self(dev);
    s->stats_element = NULL;
    if (!virtio_pci_loaded(dev, error)) {
        return false;
    }
    if (s->stats_held) {
        s->stats_element = virtio_retake(&s->base.virtio, QUEUE_STATS, s->stats_head);
        s->stats_held = s->stats_element != NULL;
    }
    return true;
}

static const struct reg regs[] = {
    VIRTIO_PCI_STATE(struct virtio_balloon, base),
    STATE_ARRAY(struct virtio_balloon, stats),
    STATE(struct virtio_balloon, stats_head),
    STATE(struct virtio_balloon, stats_held),
    STATE_TIMER(struct virtio_balloon, again),
    STATE(struct virtio_balloon, stats_time, .since = 2),
    STATE(struct virtio_balloon, poll_seconds, .since = 2, .keep = true),
    STATE_TIMER(struct virtio_balloon, poll, .since = 2, .keep = true),
};

#define P(field) offsetof(struct virtio_balloon, field)
static const struct prop props[] = {
    VIRTIO_PCI_PROPS(struct virtio_balloon, base),
    {"deflate-on-oom", PROP_BOOL, P(deflate_on_oom)},
    {"free-page-reporting", PROP_BOOL, P(reporting)},
};

static const struct pci_ident ident = {.vendor = 0x1af4, .class = 0x00ff00, .irq_pin = 1};

const struct device_model model_virtio_balloon = {
    .name = "virtio-balloon-pci",
    .alias = "virtio-balloon",
    .about = "memory balloon",
    .spec = "OASIS VIRTIO 1.2, \"Traditional Memory Balloon Device\"",
    .size = sizeof(struct virtio_balloon),
    .version = 2,
    .bus = BUS_PCI,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = virtio_pci_stop,
    .settle = virtio_pci_settle,
    .reset = virtio_pci_reset,
    .loaded = loaded,
};
