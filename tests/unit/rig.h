/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "tests/unit/test.h"

#include "base/lock.h"
#include "guest/device/lapic.h"
#include "guest/device/pci.h"
#include "host/chardev/chardev.h"
#include "host/display/display.h"
#include "host/image/image.h"
#include "host/net/net.h"

#include <glib/gstdio.h>

/*
 * A bare board for device tests: RAM, lines that only remember their level, a PCI bus, and
 * a backend of each kind.  Guest time stands and is moved on with clock_advance().
 */
enum { RIG_RAM = 1 << 20, RIG_DISK = 1 << 20, RIG_LINES = 24 };

struct rig {
    struct board *board;
    struct pci_bus bus;
    struct ram *ram;
    struct region ram_region;
    struct irq line[RIG_LINES]; /* isa_irq and gsi */
    struct irq wire;            /* all wires of the device under test */
    unsigned edges[RIG_LINES];  /* how often each has risen */
    uint32_t intx;
    unsigned requests;          /* to the owner of the machine */
    int last_request, last_code;
    unsigned msis;
    uint64_t msi_address;
    uint32_t msi_data;
    struct chardev chr;
    uint8_t sent[4096];
    size_t n_sent, takes;       /* takes: how many bytes the backend still accepts */
    struct netdev net;
    unsigned frames;
    Image *disk;
};

static inline void rig_line_set(struct irq *irq, bool level)
{
    struct rig *r = irq->owner;
    r->edges[irq->n] += level;
}

static inline void rig_wire_set(struct irq *irq, bool level)
{
    (void)irq, (void)level;
}

static inline void rig_intx(struct pci_bus *bus, unsigned devfn, unsigned pin, bool level)
{
    struct rig *r = container_of(bus, struct rig, bus);
    uint32_t bit = 1u << ((devfn >> 3) + pin) % 32;
    r->intx = level ? r->intx | bit : r->intx & ~bit;
}

static inline void rig_request(struct board *board, enum board_event event, int code)
{
    struct rig *r = board->owner;
    r->requests++;
    r->last_request = (int)event;
    r->last_code = code;
}

static inline void rig_msi(struct board *board, uint64_t address, uint32_t data)
{
    struct rig *r = board->owner;
    r->msis++;
    r->msi_address = address;
    r->msi_data = data;
}

static inline size_t rig_chr_write(struct chardev *chr, const void *data, size_t n)
{
    struct rig *r = container_of(chr, struct rig, chr);
    n = MIN(n, r->takes);
    for (size_t i = 0; i < n; i++) {
        r->sent[r->n_sent++ % sizeof(r->sent)] = ((const uint8_t *)data)[i];
    }
    r->takes -= n;
    return n;
}

static inline void rig_net_send(struct netdev *net, const struct iovec *iov, unsigned n)
{
    (void)iov, (void)n;
    container_of(net, struct rig, net)->frames++;
}

static inline void rig_net_resume(struct netdev *net)
{
    (void)net;
}

static inline void rig_smi(struct board *board)
{
    (void)board;
}

/* The disk of all rigs: bytes 0, 1, 2 ... */
static inline const char *rig_disk_path(void)
{
    static char path[] = "/tmp/lodge-test-rig-XXXXXX";
    static int fd = -1;
    if (fd < 0) {
        fd = g_mkstemp(path);
        assert_true(fd >= 0);
    }
    return path;
}

static inline void rig_disk_fill(void)
{
    g_autofree uint8_t *data = g_malloc(RIG_DISK);
    for (unsigned i = 0; i < RIG_DISK; i++) {
        data[i] = (uint8_t)(i + i / 512);
    }
    assert_true(g_file_set_contents(rig_disk_path(), (char *)data, RIG_DISK, NULL));
}

static inline struct rig *rig_new(void)
{
    struct rig *r = g_new0(struct rig, 1);
    struct board *b = r->board = board_new();
    g_autoptr(GError) error = NULL;
    r->ram = ram_new("pc.ram", RIG_RAM, NULL, &error);
    assert_works(r->ram != NULL, error);
    r->ram_region = (struct region){.name = "ram", .size = RIG_RAM, .ram = r->ram};
    space_place(b->memory, &r->ram_region, 0, 0);
    b->ram_below_4g = RIG_RAM;
    pci_bus_init(&r->bus, b, "pci.0", false);
    r->bus.set_irq = rig_intx;
    b->pci = &r->bus;
    for (unsigned i = 0; i < RIG_LINES; i++) {
        r->line[i] = (struct irq){.set = rig_line_set, .owner = r, .n = i};
        b->gsi[i] = &r->line[i];
        if (i < 16) {
            b->isa_irq[i] = &r->line[i];
        }
    }
    r->wire = (struct irq){.set = rig_wire_set};
    b->request = rig_request;
    b->msi = rig_msi;
    b->smi = rig_smi;
    b->owner = r;
    b->display = display_new();
    r->takes = SIZE_MAX;
    r->chr = (struct chardev){.id = (char *)"c0", .kind = "test", .write = rig_chr_write,
                              .open = true};
    r->net = (struct netdev){.id = (char *)"n0", .kind = "test", .send = rig_net_send,
                             .resume = rig_net_resume, .link_up = true};
    return r;
}

static inline void rig_free(struct rig *r)
{
    struct display *d = r->board->display;
    board_free(r->board);
    g_free(d);
    if (r->disk) {
        image_close(r->disk);
    }
    ram_free(r->ram);
    g_free(r);
}

static inline Image *rig_disk(struct rig *r)
{
    g_autoptr(GError) error = NULL;
    if (!r->disk) {
        r->disk = image_open(&(struct image_options){.id = "d0", .file = rig_disk_path(),
                                                     .format = "raw", .lock_off = true},
                             &error);
        assert_works(r->disk != NULL, error);
    }
    return r->disk;
}

/* A device with a backend for everything that it takes, and all wires connected. */
static inline struct device *rig_device(struct rig *r, const char *name)
{
    g_autoptr(GError) error = NULL;
    const struct device_model *m = device_model_find(name);
    assert_non_null(m);
    struct device *dev = device_new(m);
    for (unsigned i = 0; i < m->nwires; i++) {
        assert_works(device_connect(dev, m->wires[i].name, WIRE_IRQ, &r->wire, &error), error);
    }
    for (unsigned i = 0; i < m->nprops; i++) {
        const struct prop *p = &m->props[i];
        void *backend = p->kind == PROP_CHARDEV  ? (void *)&r->chr
                        : p->kind == PROP_NETDEV ? (void *)&r->net
                        : p->kind == PROP_DRIVE  ? (void *)rig_disk(r)
                                                 : NULL;
        if (backend) {
            assert_works(device_give(dev, p->name, backend, &error), error);
        }
        if (p->kind == PROP_MAC) {
            assert_works(device_set(dev, p->name, "52:54:00:00:00:01", &error), error);
        }
    }
    return dev;
}

static inline struct device *rig_start(struct rig *r, struct device *dev)
{
    g_autoptr(GError) error = NULL;
    assert_works(device_start(dev, r->board, NULL, &error), error);
    return dev;
}

/* Completes what is in flight. */
static inline void rig_drain(void)
{
    image_drain_all();
    while (g_main_context_iteration(NULL, FALSE)) {
    }
}
