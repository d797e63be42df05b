/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * xhci_ring: TRBs in guest memory, and the event ring.
 *
 * Spec: Intel, xHCI 1.2, "TRB Ring", "Event Ring Management", "Event TRBs".
 * There is one interrupter and one segment of events.
 */
#include "guest/device/xhci.h"

#include "base/bytes.h"

enum { EVENTS_MIN = 16, EVENTS_MAX = 4096, RESERVE = 40 };
enum { IMAN_PENDING = 1, ERDP_BUSY = 1 << 3 };

bool xhci_read_trb(struct xhci *x, uint64_t at, struct trb *t)
{
    uint8_t raw[TRB_BYTES];
    if (!pci_dma_read(&x->pci, at, raw, sizeof(raw))) {
        return false;
    }
    *t = (struct trb){at, le64_at(raw), le32_at(raw + 8), le32_at(raw + 12)};
    return true;
}

uint32_t xhci_load(struct xhci *x, uint64_t at)
{
    uint8_t raw[4] = {0};
    pci_dma_read(&x->pci, at, raw, sizeof(raw));
    return le32_at(raw);
}

void xhci_store(struct xhci *x, uint64_t at, uint32_t value)
{
    uint8_t raw[4];
    le32_put(raw, value);
    pci_dma_write(&x->pci, at, raw, sizeof(raw));
}

void xhci_event_ring(struct xhci *x)
{
    uint64_t table = (uint64_t)x->erstba_hi << 32 | x->erstba_lo;
    uint32_t size = 0;
    x->event_next = 0;
    x->event_cycle = 1;
    x->event_size = 0;
    if (x->erstsz == 1 && table) {
        x->event_base = (xhci_load(x, table) & ~63u) | (uint64_t)xhci_load(x, table + 4) << 32;
        size = xhci_load(x, table + 8) & 0xffff;
        x->event_size = size >= EVENTS_MIN && size <= EVENTS_MAX ? size : 0;
    }
}

/* Entries that may be written before the ring is full. */
static unsigned room(const struct xhci *x)
{
    uint64_t erdp = (uint64_t)x->erdp_hi << 32 | (x->erdp_lo & ~15u);
    uint64_t read = (erdp - x->event_base) / TRB_BYTES;
    if (!x->event_size || read >= x->event_size) {
        return 0;
    }
    return (unsigned)((read + x->event_size - x->event_next - 1) % x->event_size);
}

bool xhci_event_room(const struct xhci *x)
{
    return room(x) > MIN(x->event_size / 2, RESERVE);
}

void xhci_event(struct xhci *x, enum trb_type type, uint64_t parameter, uint32_t status,
                uint32_t control)
{
    uint8_t raw[TRB_BYTES];
    if (!(x->usbcmd & CMD_RUN) || !room(x)) {
        return;
    }
    le64_put(raw, parameter);
    le32_put(raw + 8, status);
    le32_put(raw + 12, control | (uint32_t)type << 10 | x->event_cycle);
    pci_dma_write(&x->pci, x->event_base + (uint64_t)x->event_next * TRB_BYTES, raw, sizeof(raw));
    if (++x->event_next == x->event_size) {
        x->event_next = 0;
        x->event_cycle ^= 1;
    }
    if (!(x->erdp_lo & ERDP_BUSY)) {
        x->erdp_lo |= ERDP_BUSY;
        x->iman |= IMAN_PENDING;
        x->usbsts |= STS_EVENT;
    }
}

void xhci_port_events(struct xhci *x)
{
    for (unsigned i = 0; i < XHCI_PORTS; i++) {
        if ((x->ports_due >> i & 1) && (x->usbcmd & CMD_RUN) && room(x)) {
            x->ports_due &= ~(1u << i);
            xhci_event(x, TRB_PORT_EVENT, (uint64_t)(i + 1) << 24, (uint32_t)CC_SUCCESS << 24, 0);
        }
    }
}
