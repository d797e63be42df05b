/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio_rng: entropy for the guest.
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.1, "Entropy Device".
 */
#include "base/rng.h"
#include "base/util.h"
#include "guest/device/virtio.h"

enum { QUEUE_SIZE = 8, CHUNK = 4096, BURST = 64, RETRY_MS = 10, PERIOD_MS = 65536 };

struct virtio_rng {
    struct virtio_pci base; /* first */

    /* State. */
    uint64_t left;       /* bytes that may still be given in this period */
    struct timer again;  /* a new period begins, or the source may have bytes again */

    /* Properties. */
    struct rng_source *rng;
    uint64_t max_bytes;
    uint32_t period_ms;
};

static struct virtio_rng *of(struct virtio *v)
{
    return container_of(v, struct virtio_rng, base.virtio);
}

/* A driver takes fewer bytes than it asked for, but not none. */
static uint32_t fill(struct virtio_rng *s, struct virtio_element *e)
{
    uint8_t bytes[CHUNK];
    size_t want = (size_t)MIN(MIN(e->in_bytes, sizeof(bytes)), s->left);
    size_t n = rng_read(s->rng, bytes, want);
    s->left -= s->max_bytes == UINT64_MAX ? 0 : n;
    return (uint32_t)virtio_put(e, 0, bytes, n);
}

static void wait(struct virtio_rng *s)
{
    uint32_t ms = s->left ? RETRY_MS : s->period_ms;
    if (!timer_armed(&s->again)) {
        timer_arm(&s->again, clock_now() + (int64_t)ms * 1000000);
    }
}

static void kick(struct virtio *v, unsigned queue)
{
    struct virtio_rng *s = of(v);
    struct virtio_element *e;
    unsigned n = 0;
    if (timer_armed(&s->again)) {
        return;
    }
    while (n < BURST && (e = virtio_pop(v, queue))) {
        uint32_t bytes = fill(s, e);
        if (!bytes && e->in_bytes) {
            virtio_unpop(v, e);
            break;
        }
        virtio_push(v, e, bytes);
        n++;
    }
    if (n) {
        virtio_interrupt(v, queue);
    }
    if (!virtio_queue_empty(v, queue)) {
        wait(s);
    }
}

static void again(void *owner)
{
    struct virtio_rng *s = owner;
    s->left = s->left ? s->left : s->max_bytes;
    if (virtio_ready(&s->base.virtio, 0)) {
        kick(&s->base.virtio, 0);
    }
}

static void reset_queue(struct virtio *v)
{
    struct virtio_rng *s = of(v);
    timer_disarm(&s->again);
    s->left = s->max_bytes;
}

static const struct virtio_model model = {
    .name = "virtio-rng", .id = 4, .legacy_id = 0x1005, .kick = kick, .reset = reset_queue};

static bool start(struct device *dev, GError **error)
{
    struct virtio_rng *s = container_of(dev, struct virtio_rng, base.pci.dev);
    struct virtio *v = &s->base.virtio;
    if (!s->period_ms || !s->max_bytes) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s=0: must be more", s->max_bytes ? "period" : "max-bytes");
        return false;
    }
    s->again = (struct timer){.fire = again, .owner = s};
    v->model = &model;
    v->nqueues = 1;
    v->queue_size_max[0] = QUEUE_SIZE;
    return virtio_pci_start(&s->base, error);
}

static bool loaded(struct device *dev, GError **error)
{
    struct virtio_rng *s = container_of(dev, struct virtio_rng, base.pci.dev);
    s->left = MIN(s->left, s->max_bytes);
    return virtio_pci_loaded(dev, error);
}

static const struct reg regs[] = {
    VIRTIO_PCI_STATE(struct virtio_rng, base),
    STATE(struct virtio_rng, left),
    STATE_TIMER(struct virtio_rng, again),
};

#define P(field) offsetof(struct virtio_rng, field)
static const struct prop props[] = {
    VIRTIO_PCI_PROPS(struct virtio_rng, base),
    {"rng", PROP_RNG, P(rng), .help = "id of the -object rng-*; without: the host's random numbers"},
    {"max-bytes", PROP_U64, P(max_bytes), UINT64_MAX, .help = "at most so many a period"},
    {"period", PROP_U32, P(period_ms), PERIOD_MS, .help = "milliseconds"},
};

static const struct pci_ident ident = {.vendor = 0x1af4, .class = 0x00ff00, .irq_pin = 1};

const struct device_model model_virtio_rng = {
    .name = "virtio-rng-pci",
    .alias = "virtio-rng",
    .about = "entropy from the host",
    .spec = "OASIS VIRTIO 1.1, \"Entropy Device\"",
    .size = sizeof(struct virtio_rng),
    .version = 1,
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
