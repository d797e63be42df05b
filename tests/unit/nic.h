/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "tests/unit/vdriver.h"

#include "host/net/backend.h"

/*
 * A network card of which the test is the driver at one end and the cable at the other.
 */
enum { NIC_FRAMES = 8, NIC_FRAME = 70000 };

static struct vdriver d;
static struct netdev *net;
/* What came out of the cable since the card was plugged in; the last ones. */
static uint8_t sent[NIC_FRAMES][NIC_FRAME];
static size_t sent_bytes[NIC_FRAMES];
static unsigned n_sent;

static inline void nic_send(struct netdev *n, const struct iovec *iov, unsigned niov)
{
    (void)n;
    unsigned at = n_sent++ % NIC_FRAMES;
    sent_bytes[at] = 0;
    for (unsigned i = 0; i < niov; i++) {
        assert_in_range(sent_bytes[at] + iov[i].iov_len, 0, NIC_FRAME);
        memcpy(sent[at] + sent_bytes[at], iov[i].iov_base, iov[i].iov_len);
        sent_bytes[at] += iov[i].iov_len;
    }
}

static inline struct netdev *nic_find(const char *id)
{
    return netdev_find(id);
}

/* The card @model on a cable, 52:54:00:aa:bb:cc; @set: "name", "value", ..., NULL, or NULL. */
static inline void nic_plug(const char *model, const char *const *set)
{
    g_autoptr(GError) error = NULL;
    if (!machine_lock_held()) {
        machine_lock();
    }
    net = netdev_new("null,id=n0", &error);
    assert_works(net != NULL, error);
    net->send = nic_send;
    vd_plug(&d, model, set);
    assert_works(device_set(&d.dev->pci.dev, "netdev", "n0", &error), error);
    assert_works(device_set(&d.dev->pci.dev, "mac", "52:54:00:aa:bb:cc", &error), error);
    d.board->backends.netdev = nic_find;
    n_sent = 0;
}

/* A card that is no virtio device: its registers lie where @bar0 and @bar1 say. */
static inline void nic_start(uint32_t bar0, uint32_t bar1)
{
    g_autoptr(GError) error = NULL;
    assert_works(device_start(&d.dev->pci.dev, d.board, NULL, &error), error);
    pci_config_write(&d.bus, 0, d.dev->pci.devfn, PCI_BAR0, bar0, 4);
    pci_config_write(&d.bus, 0, d.dev->pci.devfn, PCI_BAR0 + 4, bar1, 4);
    pci_config_write(&d.bus, 0, d.dev->pci.devfn, PCI_COMMAND, 7, 2);
}

static inline int nic_unplug(void **state)
{
    (void)state;
    vd_unplug(&d);
    netdevs_close();
    return 0;
}

/* @n bytes of IPv4, or of a VLAN's frame with tag @vlan, for the address @to. */
static inline void make_frame(uint8_t *f, size_t n, const char *to, unsigned vlan)
{
    for (size_t i = 0; i < n; i++) {
        f[i] = (uint8_t)(i * 7);
    }
    memcpy(f, to, 6);
    be16_put(f + 12, vlan ? 0x8100 : 0x0800);
    if (vlan) {
        be16_put(f + 14, (uint16_t)vlan);
    }
}
