/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * virtio_pci: virtio over PCI, transitional: the modern registers behind BAR 4 and the
 * legacy ones behind BAR 0 show the same device.
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.1, "Virtio Over PCI Bus" and "Legacy
 * Interfaces: A Note on PCI Device Layout".
 */
#include "guest/device/virtio.h"

#include "base/bytes.h"
#include "base/util.h"
#include "guest/cpu/vcpu.h"

#include <glib-unix.h>
#include <string.h>
#include <sys/eventfd.h>

enum { VIRTIO_VENDOR = 0x1af4, MODERN_ID_BASE = 0x1040, MODERN_SUBSYSTEM = 0x1100 };
enum { BAR_LEGACY = 0, BAR_MSIX = 1, BAR_MODERN = 4 };

/* Where the four structures lie in BAR 4; a page each. */
enum { COMMON_AT = 0, ISR_AT = 0x1000, CONFIG_AT = 0x2000, NOTIFY_AT = 0x3000, MODERN_BYTES = 0x4000 };
enum { PART_BYTES = 0x1000, NOTIFY_STEP = 4 };
enum { LEGACY_HEADER = 20, LEGACY_HEADER_MSIX = 24, LEGACY_PAGE_BITS = 12 };

enum common {
    DEVICE_FEATURE_SELECT = 0, DEVICE_FEATURE = 4, DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12, CONFIG_VECTOR = 16, NUM_QUEUES = 18, DEVICE_STATUS = 20,
    CONFIG_GENERATION = 21, QUEUE_SELECT = 22, QUEUE_SIZE = 24, QUEUE_VECTOR = 26,
    QUEUE_ENABLE = 28, QUEUE_NOTIFY_OFF = 30, QUEUE_DESC = 32, QUEUE_AVAIL = 40,
    QUEUE_USED = 48, COMMON_BYTES = 56,
};

enum legacy {
    LEGACY_OFFERED = 0, LEGACY_FEATURES = 4, LEGACY_PFN = 8, LEGACY_SIZE = 12,
    LEGACY_SELECT = 14, LEGACY_NOTIFY = 16, LEGACY_STATUS = 18, LEGACY_ISR = 19,
    LEGACY_CONFIG_VECTOR = 20, LEGACY_QUEUE_VECTOR = 22,
};

enum cap_type { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4, CAP_WINDOW = 5 };

/* Of the window capability. */
enum { WINDOW_BAR = 4, WINDOW_OFFSET = 8, WINDOW_LENGTH = 12, WINDOW_DATA = 16, WINDOW_BYTES = 20 };

static struct virtio_pci *self(struct device *dev)
{
    return container_of(dev, struct virtio_pci, pci.dev);
}

static struct virtio_pci *transport(struct virtio *v)
{
    return container_of(v, struct virtio_pci, virtio);
}

/* ---- interrupts ---- */

static void notify(struct virtio *v, uint16_t vector, uint8_t isr)
{
    struct virtio_pci *p = transport(v);
    if (pci_msi_enabled(&p->pci)) {
        if (vector != VIRTIO_NO_VECTOR) {
            pci_msi(&p->pci, vector);
        }
        return;
    }
    v->isr |= isr;
    pci_irq(&p->pci, true);
}

/* ---- kicks through eventfds, while the driver is up ---- */

struct virtio_bell {
    struct virtio *virtio;
    unsigned queue, watch;
    struct doorbell modern, legacy;
};

static gboolean rung(gint fd, GIOCondition condition, gpointer data)
{
    struct virtio_bell *b = data;
    eventfd_t n;
    (void)condition;
    eventfd_read(fd, &n);
    if (vcpus_paused()) { /* the guest's memory is not to change before it runs again */
        timer_arm(&b->virtio->again, clock_now());
    } else {
        virtio_kick(b->virtio, b->queue);
    }
    return G_SOURCE_CONTINUE;
}

static void bell_hang(struct virtio_pci *p, struct virtio_bell *b, unsigned queue)
{
    int fd = p->virtio.q_enabled[queue] ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
    b->virtio = &p->virtio;
    b->queue = queue;
    b->modern.fd = fd;
    if (fd < 0) {
        return;
    }
    b->watch = g_unix_fd_add(fd, G_IO_IN, rung, b);
    b->modern = (struct doorbell){
        .region = &p->modern, .at = NOTIFY_AT + queue * NOTIFY_STEP, .fd = fd};
    b->legacy = (struct doorbell){.region = &p->legacy,
                                  .at = LEGACY_NOTIFY,
                                  .bytes = 2,
                                  .match = true,
                                  .value = queue,
                                  .fd = fd};
    doorbell_add(&b->modern);
    doorbell_add(&b->legacy);
}

static void bell_take_down(struct virtio_bell *b)
{
    if (b->modern.fd >= 0) {
        doorbell_remove(&b->modern);
        doorbell_remove(&b->legacy);
        g_source_remove(b->watch);
        close(b->modern.fd);
    }
}

static void settle_bells(struct virtio_pci *p)
{
    bool want = p->prop_ioeventfd && doorbells_changed && (p->virtio.status & VIRTIO_DRIVER_OK);
    if (want == (p->bells != NULL)) {
        return;
    }
    if (want) {
        p->bells = g_new0(struct virtio_bell, p->virtio.nqueues);
    }
    for (unsigned i = 0; i < p->virtio.nqueues; i++) {
        if (want) {
            bell_hang(p, &p->bells[i], i);
        } else {
            bell_take_down(&p->bells[i]);
        }
    }
    if (!want) {
        g_clear_pointer(&p->bells, g_free);
    }
}

void virtio_pci_settle(struct device *dev)
{
    struct virtio_pci *p = self(dev);
    settle_bells(p);
    pci_irq(&p->pci, p->virtio.isr != 0);
}

static uint8_t isr_read(struct virtio_pci *p)
{
    uint8_t isr = p->virtio.isr;
    p->virtio.isr = 0;
    pci_irq(&p->pci, false);
    return isr;
}

/* A vector that is not there reads back as none: so a driver learns of it. */
static uint16_t vector_of(const struct virtio_pci *p, uint32_t value)
{
    return value < p->pci.msix_vectors ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

/* ---- common configuration ---- */

static uint32_t selected_half(uint32_t select, uint64_t features)
{
    return select < 2 ? (uint32_t)(features >> 32 * select) : 0;
}

static uint64_t *queue_address(struct virtio *v, unsigned queue, uint64_t at)
{
    return at < QUEUE_AVAIL ? &v->q_desc[queue]
           : at < QUEUE_USED ? &v->q_avail[queue]
                             : &v->q_used[queue];
}

static uint32_t queue_read(const struct virtio_pci *p, uint64_t at)
{
    const struct virtio *v = &p->virtio;
    unsigned q = p->queue_select;
    if (q >= v->nqueues) {
        return 0;
    }
    switch (at) {
    case QUEUE_SIZE:
        return v->q_size[q];
    case QUEUE_VECTOR:
        return v->q_vector[q];
    case QUEUE_ENABLE:
        return v->q_enabled[q];
    case QUEUE_NOTIFY_OFF:
        return q;
    default:
        return (uint32_t)(*queue_address((struct virtio *)(uintptr_t)v, q, at) >> 8 * (at & 4));
    }
}

static uint32_t common_read(struct virtio_pci *p, uint64_t at)
{
    const struct virtio *v = &p->virtio;
    switch (at) {
    case DEVICE_FEATURE_SELECT:
        return p->feature_select;
    case DEVICE_FEATURE:
        return selected_half(p->feature_select, v->offered);
    case DRIVER_FEATURE_SELECT:
        return p->driver_feature_select;
    case DRIVER_FEATURE:
        return selected_half(p->driver_feature_select, v->features);
    case CONFIG_VECTOR:
        return v->config_vector;
    case NUM_QUEUES:
        return v->nqueues;
    case DEVICE_STATUS:
        return v->status;
    case CONFIG_GENERATION:
        return v->generation;
    case QUEUE_SELECT:
        return p->queue_select;
    default:
        return at >= QUEUE_SIZE && at < COMMON_BYTES ? queue_read(p, at) : 0;
    }
}

static void queue_write(struct virtio_pci *p, uint64_t at, uint32_t value)
{
    struct virtio *v = &p->virtio;
    unsigned q = p->queue_select;
    if (q >= v->nqueues) {
        return;
    }
    if (at == QUEUE_VECTOR) {
        v->q_vector[q] = vector_of(p, value);
    } else if (v->q_enabled[q]) {
        return; /* the rest is fixed once the queue is live */
    } else if (at == QUEUE_SIZE) {
        v->q_size[q] = (uint16_t)value;
    } else if (at == QUEUE_ENABLE) {
        if (value == 1) {
            virtio_enable_queue(v, q);
        }
    } else if (at >= QUEUE_DESC && at < COMMON_BYTES) {
        uint64_t *address = queue_address(v, q, at), shift = 8 * (at & 4);
        *address = (*address & ~(UINT64_C(0xffffffff) << shift)) | (uint64_t)value << shift;
    }
}

static void driver_feature_write(struct virtio_pci *p, uint32_t value)
{
    uint32_t shift = 32 * p->driver_feature_select;
    if (p->driver_feature_select < 2) {
        uint64_t keep = p->virtio.features & ~(UINT64_C(0xffffffff) << shift);
        virtio_set_features(&p->virtio, keep | (uint64_t)value << shift);
    }
}

static void common_write(struct virtio_pci *p, uint64_t at, uint32_t value)
{
    struct virtio *v = &p->virtio;
    switch (at) {
    case DEVICE_FEATURE_SELECT:
        p->feature_select = value;
        break;
    case DRIVER_FEATURE_SELECT:
        p->driver_feature_select = value;
        break;
    case DRIVER_FEATURE:
        driver_feature_write(p, value);
        break;
    case CONFIG_VECTOR:
        v->config_vector = vector_of(p, value);
        break;
    case DEVICE_STATUS:
        virtio_set_status(v, (uint8_t)value);
        break;
    case QUEUE_SELECT:
        p->queue_select = (uint16_t)value;
        break;
    default:
        queue_write(p, at, value);
        break;
    }
}

/* ---- BAR 4 ---- */

static uint64_t modern_read(void *owner, uint64_t at, unsigned bytes)
{
    struct virtio_pci *p = owner;
    uint64_t v = 0;
    switch (at & ~(uint64_t)(PART_BYTES - 1)) {
    case COMMON_AT:
        v = common_read(p, at);
        break;
    case ISR_AT:
        v = at == ISR_AT ? isr_read(p) : 0;
        break;
    case CONFIG_AT:
        v = virtio_config_read(&p->virtio, at - CONFIG_AT, bytes);
        break;
    default:
        break;
    }
    virtio_pci_settle(&p->pci.dev);
    return v;
}

static void modern_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct virtio_pci *p = owner;
    if (at >= NOTIFY_AT) {
        virtio_kick(&p->virtio, (unsigned)(at - NOTIFY_AT) / NOTIFY_STEP);
        return;
    }
    switch (at & ~(uint64_t)(PART_BYTES - 1)) {
    case COMMON_AT:
        common_write(p, at, (uint32_t)value);
        break;
    case CONFIG_AT:
        virtio_config_write(&p->virtio, at - CONFIG_AT, bytes, (uint32_t)value);
        break;
    default:
        break;
    }
    virtio_pci_settle(&p->pci.dev);
}

static const struct region_ops modern_ops = {
    .read = modern_read, .write = modern_write, .max_bytes = 4};

/* ---- BAR 0 ---- */

static unsigned legacy_header(const struct virtio_pci *p)
{
    return pci_msi_enabled(&p->pci) ? LEGACY_HEADER_MSIX : LEGACY_HEADER;
}

static uint32_t legacy_queue_read(const struct virtio_pci *p, uint64_t at)
{
    const struct virtio *v = &p->virtio;
    unsigned q = p->queue_select;
    if (q >= v->nqueues) {
        return at == LEGACY_QUEUE_VECTOR ? VIRTIO_NO_VECTOR : 0;
    }
    switch (at) {
    case LEGACY_PFN:
        return v->q_enabled[q] ? (uint32_t)(v->q_desc[q] >> LEGACY_PAGE_BITS) : 0;
    case LEGACY_SIZE:
        return v->queue_size_max[q];
    default:
        return v->q_vector[q];
    }
}

static uint64_t legacy_read(void *owner, uint64_t at, unsigned bytes)
{
    struct virtio_pci *p = owner;
    if (at >= legacy_header(p)) {
        return virtio_config_read(&p->virtio, at - legacy_header(p), bytes);
    }
    switch (at) {
    case LEGACY_OFFERED:
        return (uint32_t)p->virtio.offered;
    case LEGACY_FEATURES:
        return (uint32_t)p->virtio.features;
    case LEGACY_SELECT:
        return p->queue_select;
    case LEGACY_STATUS:
        return p->virtio.status;
    case LEGACY_ISR:
        return isr_read(p);
    case LEGACY_CONFIG_VECTOR:
        return p->virtio.config_vector;
    case LEGACY_PFN:
    case LEGACY_SIZE:
    case LEGACY_QUEUE_VECTOR:
        return legacy_queue_read(p, at);
    default:
        return 0;
    }
}

/* One page number says it all: the three parts follow each other. */
static void legacy_pfn_write(struct virtio_pci *p, uint32_t pfn)
{
    struct virtio *v = &p->virtio;
    unsigned q = p->queue_select;
    if (q >= v->nqueues || (pfn && v->q_enabled[q])) {
        return;
    }
    if (!pfn) {
        virtio_set_status(v, 0);
        return;
    }
    uint64_t page = UINT64_C(1) << LEGACY_PAGE_BITS, n = v->q_size[q] = v->queue_size_max[q];
    v->q_desc[q] = (uint64_t)pfn << LEGACY_PAGE_BITS;
    v->q_avail[q] = v->q_desc[q] + 16 * n;
    v->q_used[q] = (v->q_avail[q] + 6 + 2 * n + page - 1) & ~(page - 1);
    virtio_enable_queue(v, q);
}

static void legacy_write(void *owner, uint64_t at, uint64_t wide, unsigned bytes)
{
    struct virtio_pci *p = owner;
    struct virtio *v = &p->virtio;
    uint32_t value = (uint32_t)wide;
    if (at >= legacy_header(p)) {
        virtio_config_write(v, at - legacy_header(p), bytes, value);
        return;
    }
    switch (at) {
    case LEGACY_FEATURES:
        virtio_set_features(v, value & v->offered);
        break;
    case LEGACY_PFN:
        legacy_pfn_write(p, value);
        break;
    case LEGACY_SELECT:
        p->queue_select = (uint16_t)value;
        break;
    case LEGACY_NOTIFY:
        virtio_kick(v, value);
        break;
    case LEGACY_STATUS:
        virtio_set_status(v, (uint8_t)value);
        break;
    case LEGACY_CONFIG_VECTOR:
        v->config_vector = vector_of(p, value);
        break;
    case LEGACY_QUEUE_VECTOR:
        if (p->queue_select < v->nqueues) {
            v->q_vector[p->queue_select] = vector_of(p, value);
        }
        break;
    default:
        break;
    }
    virtio_pci_settle(&p->pci.dev);
}

static const struct region_ops legacy_ops = {
    .read = legacy_read, .write = legacy_write, .max_bytes = 4, .unaligned = true};

/* ---- the window: registers through configuration space, for firmware ---- */

static const struct region *window_region(const struct virtio_pci *p, uint32_t *at,
                                          unsigned *bytes)
{
    const uint8_t *cap = p->pci.config + p->window;
    const struct region *r = cap[WINDOW_BAR] == BAR_MODERN   ? &p->modern
                             : cap[WINDOW_BAR] == BAR_LEGACY ? &p->legacy
                                                             : NULL;
    *at = le32_at(cap + WINDOW_OFFSET);
    *bytes = le32_at(cap + WINDOW_LENGTH);
    bool fits = (*bytes == 1 || *bytes == 2 || *bytes == 4) && !(*at & (*bytes - 1)) && r &&
                r->ops && *at < r->size && *bytes <= r->size - *at;
    return fits ? r : NULL;
}

static bool touches_data(const struct virtio_pci *p, unsigned at, unsigned bytes)
{
    unsigned data = p->window + WINDOW_DATA;
    return at < data + 4 && at + bytes > data;
}

static void window_reading(struct pci_device *pci, unsigned at, unsigned bytes)
{
    struct virtio_pci *p = container_of(pci, struct virtio_pci, pci);
    uint32_t offset;
    unsigned n;
    const struct region *r = touches_data(p, at, bytes) ? window_region(p, &offset, &n) : NULL;
    if (r) {
        le32_put(pci->config + p->window + WINDOW_DATA,
                 (uint32_t)r->ops->read(r->owner, offset, n));
    }
}

static void window_written(struct pci_device *pci, unsigned at, unsigned bytes)
{
    struct virtio_pci *p = container_of(pci, struct virtio_pci, pci);
    uint32_t offset;
    unsigned n;
    const struct region *r = touches_data(p, at, bytes) ? window_region(p, &offset, &n) : NULL;
    if (r) {
        uint32_t value = le32_at(pci->config + p->window + WINDOW_DATA);
        r->ops->write(r->owner, offset, n == 4 ? value : value & ((1u << 8 * n) - 1), n);
    }
}

/* ---- life ---- */

static unsigned add_cap(struct virtio_pci *p, enum cap_type type, uint32_t at, uint32_t bytes)
{
    unsigned extra = type == CAP_NOTIFY || type == CAP_WINDOW ? 4 : 0, size = 16 + extra;
    unsigned cap = pci_add_capability(&p->pci, PCI_CAP_VENDOR, size);
    uint8_t *c = p->pci.config + cap;
    c[2] = (uint8_t)size;
    c[3] = (uint8_t)type;
    c[4] = BAR_MODERN;
    le32_put(c + 8, at);
    le32_put(c + 12, bytes);
    if (type == CAP_NOTIFY) {
        le32_put(c + 16, NOTIFY_STEP);
    }
    return cap;
}

static void add_modern(struct virtio_pci *p)
{
    p->modern = (struct region){
        .name = "virtio-modern", .size = MODERN_BYTES, .ops = &modern_ops, .owner = p};
    pci_set_bar(&p->pci, BAR_MODERN, &p->modern, false, true, true);
    add_cap(p, CAP_COMMON, COMMON_AT, PART_BYTES);
    add_cap(p, CAP_ISR, ISR_AT, PART_BYTES);
    add_cap(p, CAP_DEVICE, CONFIG_AT, PART_BYTES);
    add_cap(p, CAP_NOTIFY, NOTIFY_AT, PART_BYTES);
    p->window = add_cap(p, CAP_WINDOW, 0, 0);
    p->pci.config[p->window + WINDOW_BAR] = 0;
    p->pci.writable[p->window + WINDOW_BAR] = 0xff;
    memset(p->pci.writable + p->window + WINDOW_OFFSET, 0xff, WINDOW_BYTES - WINDOW_OFFSET);
    p->pci.layer_reading = window_reading;
    p->pci.layer_written = window_written;
}

static void add_legacy(struct virtio_pci *p)
{
    uint64_t size = 32;
    while (size < LEGACY_HEADER_MSIX + p->virtio.config_bytes) {
        size *= 2;
    }
    p->legacy =
        (struct region){.name = "virtio-legacy", .size = size, .ops = &legacy_ops, .owner = p};
    pci_set_bar(&p->pci, BAR_LEGACY, &p->legacy, true, false, false);
}

static void fill_ids(struct virtio_pci *p, bool legacy)
{
    const struct virtio_model *m = p->virtio.model;
    uint8_t *c = p->pci.config;
    le16_put(c + PCI_VENDOR, VIRTIO_VENDOR);
    le16_put(c + PCI_DEVICE, legacy ? m->legacy_id : (uint16_t)(MODERN_ID_BASE + m->id));
    c[PCI_REVISION] = legacy ? 0 : 1;
    le16_put(c + PCI_SUBSYSTEM_VENDOR, VIRTIO_VENDOR);
    le16_put(c + PCI_SUBSYSTEM, legacy ? m->id : MODERN_SUBSYSTEM);
    pci_name_rom(&p->pci);
}

/* On a port of its own a device is Express, and there legacy I/O has no place. */
static bool choose_legacy(const struct virtio_pci *p, bool *legacy, GError **error)
{
    const char *text = p->prop_disable_legacy ? p->prop_disable_legacy : "auto";
    bool port = p->pci.bus->express && p->pci.bus->bridge;
    if (strcmp(text, "on") && strcmp(text, "off") && strcmp(text, "auto")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "disable-legacy is on, off or auto, not \"%s\"",
                    text);
        return false;
    }
    *legacy = p->virtio.model->legacy_id && strcmp(text, "on") &&
              !(port && !strcmp(text, "auto"));
    if (!*legacy && p->prop_disable_modern) {
        g_set_error(error, LODGE_ERROR, EINVAL, "neither legacy nor modern is left");
        return false;
    }
    return true;
}

static void offer_features(struct virtio *v, const struct virtio_pci *p)
{
    v->offered |= p->prop_event_idx ? VIRTIO_BIT(VIRTIO_F_EVENT_IDX) : 0;
    v->offered |= p->prop_indirect ? VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) : 0;
    v->offered |= VIRTIO_BIT(VIRTIO_F_ANY_LAYOUT);
    v->offered |= p->prop_disable_modern ? 0 : VIRTIO_BIT(VIRTIO_F_VERSION_1);
}

static bool add_parts(struct virtio_pci *p, GError **error)
{
    struct virtio *v = &p->virtio;
    bool legacy;
    if (!choose_legacy(p, &legacy, error)) {
        return false;
    }
    unsigned vectors = p->prop_vectors == UINT32_MAX ? v->nqueues + 1 : p->prop_vectors;
    if (vectors && !pci_add_msix(&p->pci, vectors, BAR_MSIX, error)) {
        return false;
    }
    fill_ids(p, legacy);
    if (legacy) {
        add_legacy(p);
    }
    if (!p->prop_disable_modern) {
        add_modern(p);
    }
    return true;
}

bool virtio_pci_start(struct virtio_pci *p, GError **error)
{
    struct virtio *v = &p->virtio;
    if (p->prop_packed) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "packed rings are not supported");
        return false;
    }
    virtio_init(v, &p->pci.dev);
    v->notify = notify;
    offer_features(v, p);
    if (!pci_attach(&p->pci, error)) {
        return false;
    }
    if (!add_parts(p, error)) {
        pci_detach(&p->pci);
        return false;
    }
    return true;
}

void virtio_pci_stop(struct device *dev)
{
    struct virtio_pci *p = self(dev);
    iothread_leave(&p->virtio.io);
    virtio_reset(&p->virtio);
    settle_bells(p);
    virtio_free(&p->virtio);
    pci_detach(&p->pci);
}

void virtio_pci_reset(struct device *dev)
{
    virtio_reset(&self(dev)->virtio);
}

bool virtio_pci_loaded(struct device *dev, GError **error)
{
    return virtio_loaded(&self(dev)->virtio, error);
}
