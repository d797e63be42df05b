/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/iothread.h"
#include "guest/device/pci.h"

#include <sys/uio.h>

/*
 * virtio - queues between a driver in the guest and a device
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.1, "Split Virtqueues", "Virtio Over
 * PCI Bus", and the "Legacy Interface" sections of both.
 *
 * virtio.c holds rings and negotiation, virtio_pci.c the transport (transitional: modern
 * and legacy at once).  A device embeds struct virtio_pci first, has a struct virtio_model
 * beside its struct device_model, and is woken by .kick when the driver made buffers
 * available:
 *
 *     struct virtio_element *e;
 *     while ((e = virtio_pop(v, queue))) {
 *         ... read e->iov[0 .. nout), fill e->iov[nout .. nout + nin) ...
 *         virtio_push(v, e, bytes_written);
 *     }
 *     virtio_interrupt(v, queue);
 *
 * Rings are hostile input.  What cannot be is answered by virtio_pop() with NULL and
 * DEVICE_NEEDS_RESET; no other function here fails.  Nothing here allocates once the
 * driver has set up its queues.  The machine lock is held throughout.
 */
enum {
    VIRTIO_QUEUES_MAX = 64,
    VIRTIO_QUEUE_SIZE_MAX = 1024,
    VIRTIO_CONFIG_MAX = 256,
    VIRTIO_NO_VECTOR = 0xffff,
};

enum virtio_feature { /* bit numbers; those of a device type are in its file */
    VIRTIO_F_NOTIFY_ON_EMPTY = 24,
    VIRTIO_F_ANY_LAYOUT = 27,
    VIRTIO_F_INDIRECT_DESC = 28,
    VIRTIO_F_EVENT_IDX = 29,
    VIRTIO_F_VERSION_1 = 32,
    VIRTIO_F_ACCESS_PLATFORM = 33,
    VIRTIO_F_RING_PACKED = 34,
};
#define VIRTIO_BIT(feature) (UINT64_C(1) << (feature))

enum virtio_status {
    VIRTIO_ACKNOWLEDGE = 1,
    VIRTIO_DRIVER = 2,
    VIRTIO_DRIVER_OK = 4,
    VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 64,
    VIRTIO_FAILED = 128,
};

struct virtio;

/* A chain of descriptors as the driver made it available: host memory, bounds checked. */
struct virtio_element {
    struct virtio_element *next; /* the device's while it holds the element */
    uint16_t queue, head;
    uint16_t nout, nin;          /* parts to read, parts to fill */
    uint64_t out_bytes, in_bytes;
    struct iovec *iov;           /* nout parts, then nin parts */
};

/* What a device type adds to the queues. */
struct virtio_model {
    const char *name;        /* "virtio-blk": in messages */
    uint16_t id;             /* device type: 1 net, 2 block, 3 console, 4 entropy ... */
    uint16_t legacy_id;      /* transitional PCI device id, 0x1000 ..; 0: modern only */
    uint16_t element_bytes;  /* the device's request struct, struct virtio_element first;
                                0: a plain one */
    /* Buffers were made available in @queue (or the machine was loaded or resumed). */
    void (*kick)(struct virtio *v, unsigned queue);
    /* Optional: all elements are gone after it; drain the backend first. */
    void (*reset)(struct virtio *v);
    /* Optional: features are negotiated, or the driver is ready (DRIVER_OK in .status). */
    void (*status_changed)(struct virtio *v, uint8_t old);
    /* Optional: bring .config up to date before the guest reads it. */
    void (*config_reading)(struct virtio *v);
    /* Optional: the guest has written bytes [at, at + bytes) of the configuration; @value
     * is what it wrote, .config still holds the old bytes.  NULL: read-only. */
    void (*config_written)(struct virtio *v, unsigned at, unsigned bytes, uint32_t value);
};

/* One queue's fast side, derived from the state below. */
struct virtio_ring;

struct virtio {
    const struct virtio_model *model;
    struct device *dev;
    void (*notify)(struct virtio *v, uint16_t vector, uint8_t isr); /* the transport's */
    unsigned nqueues;
    uint16_t queue_size_max[VIRTIO_QUEUES_MAX]; /* what is offered; power of two */
    uint64_t offered;        /* feature bits; the device adds its own before it starts */
    unsigned config_bytes;
    struct virtio_ring *ring[VIRTIO_QUEUES_MAX];
    struct timer again;      /* after load: looks into all queues */
    struct iothread_user io; /* who works through the queues, where not who kicks */

    /* State. */
    uint8_t config[VIRTIO_CONFIG_MAX]; /* device-specific configuration, little-endian */
    uint64_t features;       /* negotiated */
    uint8_t status, isr, generation, broken;
    uint16_t config_vector;
    uint16_t q_size[VIRTIO_QUEUES_MAX], q_vector[VIRTIO_QUEUES_MAX];
    uint8_t q_enabled[VIRTIO_QUEUES_MAX];
    uint64_t q_desc[VIRTIO_QUEUES_MAX], q_avail[VIRTIO_QUEUES_MAX], q_used[VIRTIO_QUEUES_MAX];
    uint16_t q_next[VIRTIO_QUEUES_MAX];      /* next entry of the available ring to take */
    uint16_t q_used_at[VIRTIO_QUEUES_MAX];   /* next entry of the used ring to fill */
    uint16_t q_signalled[VIRTIO_QUEUES_MAX]; /* q_used_at when the driver was last told */
};

static inline bool virtio_has(const struct virtio *v, enum virtio_feature feature)
{
    return v->features & VIRTIO_BIT(feature);
}

/* The driver is up and the device is not broken: queues may be looked at. */
bool virtio_ready(const struct virtio *v, unsigned queue);

/* Takes the next chain; NULL: nothing there, and the driver will kick when there is. */
struct virtio_element *virtio_pop(struct virtio *v, unsigned queue);
/* Gives back the chain that was taken last, untouched. */
void virtio_unpop(struct virtio *v, struct virtio_element *e);
/* After load: takes the chain at descriptor @head again, which the device held when saved. */
struct virtio_element *virtio_retake(struct virtio *v, unsigned queue, uint16_t head);
/*
 * Ends a chain: @written bytes from the start of its writable parts were filled.
 * virtio_fill() and virtio_flush() are its halves, for devices that must show several
 * chains to the driver at once (merged receive buffers).
 */
void virtio_push(struct virtio *v, struct virtio_element *e, uint32_t written);
void virtio_fill(struct virtio *v, struct virtio_element *e, uint32_t written);
void virtio_flush(struct virtio *v, unsigned queue);
/* Tells the driver of what was pushed, if it wants to know.  Once a batch. */
void virtio_interrupt(struct virtio *v, unsigned queue);
/* .config was changed by the device: generation and interrupt. */
void virtio_config_changed(struct virtio *v);
/* The guest did what it may not: DEVICE_NEEDS_RESET, queues are dead until reset. */
void virtio_break(struct virtio *v, const char *why);
/* Whether the queue has anything to take; does not ask for a kick. */
bool virtio_queue_empty(struct virtio *v, unsigned queue);

/* Copies up to @n bytes out of the readable parts, from byte @skip on; returns how many. */
size_t virtio_get(const struct virtio_element *e, uint64_t skip, void *to, size_t n);
/* Copies up to @n bytes into the writable parts, from byte @skip on; returns how many. */
size_t virtio_put(const struct virtio_element *e, uint64_t skip, const void *from, size_t n);

/* ---- for transports ---- */

/* Allocates what the rings and elements need as queues are enabled; after .model is set. */
void virtio_init(struct virtio *v, struct device *dev);
void virtio_free(struct virtio *v);
void virtio_reset(struct virtio *v);
void virtio_set_status(struct virtio *v, uint8_t status);
void virtio_set_features(struct virtio *v, uint64_t features);
/* The driver has set addresses and size of @queue. */
void virtio_enable_queue(struct virtio *v, unsigned queue);
void virtio_kick(struct virtio *v, unsigned queue);
/* From a model's start(), after virtio_pci_start(): @id (NULL: none) of the -object iothread that
 * works through the queues.  virtio_pci_stop() ends it. */
bool virtio_use_iothread(struct virtio *v, const char *id, GError **error);
uint32_t virtio_config_read(struct virtio *v, uint64_t at, unsigned bytes);
void virtio_config_write(struct virtio *v, uint64_t at, unsigned bytes, uint32_t value);
bool virtio_loaded(struct virtio *v, GError **error);

/* ---- PCI transport ---- */

struct virtio_pci {
    struct pci_device pci;
    struct virtio virtio;
    struct region legacy, modern; /* BAR 0 and BAR 4 */
    unsigned window;              /* where the window capability is; 0: none */
    struct virtio_bell *bells;    /* a queue's kick without the vCPU; NULL: not in use */
    /* State. */
    uint32_t feature_select, driver_feature_select;
    uint16_t queue_select;
    /* Properties. */
    const char *prop_disable_legacy; /* on, off, auto */
    bool prop_disable_modern, prop_event_idx, prop_indirect, prop_packed, prop_ioeventfd;
    uint32_t prop_vectors;
};

/* Rows that each virtio-pci device's tables begin with. */
#define VIRTIO_PCI_STATE(type, m)                                                                  \
    PCI_STATE(type, m.pci), STATE_ARRAY(type, m.virtio.config, .keep = true),                      \
        STATE(type, m.virtio.features), STATE(type, m.virtio.status), STATE(type, m.virtio.isr),   \
        STATE(type, m.virtio.generation), STATE(type, m.virtio.broken),                            \
        STATE(type, m.virtio.config_vector, .reset = VIRTIO_NO_VECTOR),                            \
        STATE_ARRAY(type, m.virtio.q_size), STATE_ARRAY(type, m.virtio.q_vector),                  \
        STATE_ARRAY(type, m.virtio.q_enabled), STATE_ARRAY(type, m.virtio.q_desc),                 \
        STATE_ARRAY(type, m.virtio.q_avail), STATE_ARRAY(type, m.virtio.q_used),                   \
        STATE_ARRAY(type, m.virtio.q_next), STATE_ARRAY(type, m.virtio.q_used_at),                 \
        STATE_ARRAY(type, m.virtio.q_signalled), STATE(type, m.feature_select),                    \
        STATE(type, m.driver_feature_select), STATE(type, m.queue_select)
#define VIRTIO_PCI_PROPS(type, m)                                                                  \
    PCI_PROPS(type, m.pci), {"disable-legacy", PROP_STRING, offsetof(type, m.prop_disable_legacy)},\
        {"disable-modern", PROP_BOOL, offsetof(type, m.prop_disable_modern)},                      \
        {"event_idx", PROP_BOOL, offsetof(type, m.prop_event_idx), 1},                             \
        {"indirect_desc", PROP_BOOL, offsetof(type, m.prop_indirect), 1},                          \
        {"packed", PROP_BOOL, offsetof(type, m.prop_packed)},                                      \
        {"ioeventfd", PROP_BOOL, offsetof(type, m.prop_ioeventfd), 1},                             \
        {"vectors", PROP_U32, offsetof(type, m.prop_vectors), UINT32_MAX}

/*
 * From a model's start(), after it has filled .virtio.model, .nqueues, .queue_size_max,
 * .config, .config_bytes and added its bits to .offered: attaches to the bus.  The model's
 * struct pci_ident names .vendor 0x1af4, .class and .irq_pin 1; ids and MSI-X (a vector a
 * queue and one more) are added here.
 */
bool virtio_pci_start(struct virtio_pci *p, GError **error);
/* For the model's .stop, .reset, .settle and .loaded, or called from its own. */
void virtio_pci_stop(struct device *dev);
void virtio_pci_reset(struct device *dev);
void virtio_pci_settle(struct device *dev);
bool virtio_pci_loaded(struct device *dev, GError **error);
