/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "tests/unit/test.h"

#include "base/bytes.h"
#include "base/lock.h"
#include "guest/device/virtio.h"

#include <string.h>

/*
 * A driver in miniature for tests of virtio devices: a board with RAM and one PCI bus, the
 * modern transport, rings that the test fills by hand.
 */
enum { VD_RAM = 16 << 20, VD_QUEUES = 8, VD_SIZE = 64 };
#define VD_BAR UINT64_C(0xfe000000)

struct vd_queue {
    uint64_t desc, avail, used;
    unsigned next_desc, size;
    uint16_t avail_idx, used_idx;
};

struct vdriver {
    struct board *board;
    struct pci_bus bus;
    struct ram *ram;
    struct region ram_region;
    struct virtio_pci *dev;
    uint64_t heap; /* next free byte of RAM */
    struct vd_queue q[VD_QUEUES];
};

static inline uint8_t *vd_at(struct vdriver *d, uint64_t gpa)
{
    return d->ram->host + gpa;
}

static inline uint64_t vd_alloc(struct vdriver *d, size_t n)
{
    uint64_t at = (d->heap + 15) & ~UINT64_C(15);
    d->heap = at + n;
    assert_true(d->heap <= VD_RAM);
    return at;
}

static inline uint64_t vd_get(struct vdriver *d, unsigned at, unsigned bytes)
{
    return space_load(d->board->memory, VD_BAR + at, bytes);
}

static inline void vd_put(struct vdriver *d, unsigned at, uint64_t value, unsigned bytes)
{
    space_store(d->board->memory, VD_BAR + at, value, bytes);
}

static inline uint32_t vd_config(struct vdriver *d, unsigned at, unsigned bytes)
{
    return (uint32_t)vd_get(d, 0x2000 + at, bytes);
}

static inline void vd_kick(struct vdriver *d, unsigned queue)
{
    vd_put(d, 0x3000 + 4 * queue, queue, 2);
}

/* A board with device @model in it; @set: "name", "value", ..., NULL.  The main loop's lock
 * is taken and the clock runs. */
static inline void vd_plug(struct vdriver *d, const char *model, const char *const *set)
{
    g_autoptr(GError) error = NULL;
    memset(d, 0, sizeof(*d));
    if (!machine_lock_held()) {
        machine_lock();
    }
    clock_start();
    d->board = board_new();
    pci_bus_init(&d->bus, d->board, "pci.0", false);
    d->board->pci = &d->bus;
    d->ram = ram_new("ram", VD_RAM, NULL, &error);
    assert_works(d->ram != NULL, error);
    d->ram_region = (struct region){.name = "ram", .size = VD_RAM, .ram = d->ram};
    space_place(d->board->memory, &d->ram_region, 0, 0);
    d->heap = 0x1000;
    assert_non_null(device_model_find(model));
    struct device *dev = device_new(device_model_find(model));
    for (; set && *set; set += 2) {
        assert_works(device_set(dev, set[0], set[1], &error), error);
    }
    d->dev = (struct virtio_pci *)dev;
}

static inline void vd_plugged(struct vdriver *d)
{
    g_autoptr(GError) error = NULL;
    assert_works(device_start(&d->dev->pci.dev, d->board, NULL, &error), error);
    pci_config_write(&d->bus, 0, d->dev->pci.devfn, PCI_BAR0 + 16, (uint32_t)VD_BAR, 4);
    pci_config_write(&d->bus, 0, d->dev->pci.devfn, PCI_BAR0 + 20, 0, 4);
    pci_config_write(&d->bus, 0, d->dev->pci.devfn, PCI_COMMAND, 7, 2);
}

static inline void vd_unplug(struct vdriver *d)
{
    board_free(d->board);
    ram_free(d->ram);
}

static inline void vd_queue_up(struct vdriver *d, unsigned i)
{
    struct vd_queue *q = &d->q[i];
    memset(q, 0, sizeof(*q));
    d->heap = (d->heap + 4095) & ~UINT64_C(4095);
    q->desc = vd_alloc(d, VD_SIZE * 16);
    q->avail = vd_alloc(d, 6 + VD_SIZE * 2);
    q->used = vd_alloc(d, 6 + VD_SIZE * 8);
    memset(vd_at(d, q->desc), 0, d->heap - q->desc);
    vd_put(d, 22, i, 2);
    q->size = MIN(VD_SIZE, (unsigned)vd_get(d, 24, 2));
    vd_put(d, 24, q->size, 2);
    vd_put(d, 32, q->desc, 4);
    vd_put(d, 36, 0, 4);
    vd_put(d, 40, q->avail, 4);
    vd_put(d, 44, 0, 4);
    vd_put(d, 48, q->used, 4);
    vd_put(d, 52, 0, 4);
    vd_put(d, 28, 1, 2);
}

/* Reset, features, queues 0 to @queues - 1, DRIVER_OK.  Event indexes stay off. */
static inline void vd_start(struct vdriver *d, uint64_t features, unsigned queues)
{
    vd_put(d, 20, 0, 1);
    vd_put(d, 20, 3, 1);
    features |= VIRTIO_BIT(VIRTIO_F_VERSION_1);
    for (unsigned i = 0; i < 2; i++) {
        vd_put(d, 8, i, 4);
        vd_put(d, 12, (uint32_t)(features >> i * 32), 4);
    }
    vd_put(d, 20, 11, 1);
    assert_int_equal(vd_get(d, 20, 1), 11);
    for (unsigned i = 0; i < queues; i++) {
        vd_queue_up(d, i);
    }
    vd_put(d, 20, 15, 1);
}

/* One part of a chain; .n 0 ends a list of them. */
struct vd_part {
    uint64_t at;
    uint32_t n;
    bool in; /* for the device to write */
};

/* Makes a chain available; returns its head. */
static inline unsigned vd_add(struct vdriver *d, unsigned queue, const struct vd_part *part)
{
    struct vd_queue *q = &d->q[queue];
    unsigned head = q->next_desc;
    for (; part->n; part++) {
        unsigned i = q->next_desc++ % q->size;
        uint8_t *desc = vd_at(d, q->desc + i * 16);
        le64_put(desc, part->at);
        le32_put(desc + 8, part->n);
        le16_put(desc + 12, (uint16_t)((part[1].n ? 1 : 0) | (part->in ? 2 : 0)));
        le16_put(desc + 14, (uint16_t)(q->next_desc % q->size));
    }
    head %= q->size;
    le16_put(vd_at(d, q->avail + 4 + q->avail_idx % q->size * 2), (uint16_t)head);
    le16_put(vd_at(d, q->avail + 2), ++q->avail_idx);
    return head;
}

/* Whether a chain has come back; @bytes: what was written to it. */
static inline bool vd_used(struct vdriver *d, unsigned queue, uint32_t *bytes)
{
    struct vd_queue *q = &d->q[queue];
    if (le16_at(vd_at(d, q->used + 2)) == q->used_idx) {
        return false;
    }
    const uint8_t *e = vd_at(d, q->used + 4 + q->used_idx++ % q->size * 8);
    if (bytes) {
        *bytes = le32_at(e + 4);
    }
    return true;
}
