/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * e1000_tx: frames out of transmit descriptors.
 *
 * Spec: Intel, "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's
 * Manual" (317453), "Legacy Transmit Descriptor Format", "TCP/IP Context Transmit Descriptor
 * Format", "TCP/IP Data Descriptor Format", "TCP Segmentation".
 */
#include "guest/device/e1000_tx.h"

#include "base/bytes.h"
#include "guest/device/nic.h"

/* Bits of a descriptor's third double word. */
enum { D_EOP = 1 << 24, D_IC = 1 << 26, D_TSE = 1 << 26, D_EXTENDED = 1 << 29, D_VLAN = 1 << 30 };
enum { TYPE_CONTEXT = 0, TYPE_DATA = 1 };
enum { TUCMD_TCP = 1, TUCMD_IPV4 = 2, TUCMD_TSE = 4 };
enum { OPT_IP = 1, OPT_TU = 2 };
enum { TCP_SEQ = 4, TCP_FLAGS = 13, TCP_FIN = 1, TCP_PSH = 8, UDP_LENGTH = 4 };
enum { MSS_MIN = 64 }; /* no TCP goes below; fewer would make a descriptor endless work */
enum { IP_LENGTH = 2, IP_ID = 4, IP6_LENGTH = 4, IP6_HEADER = 40 };

/* One ones' complement sum over [start, end] put at @at, where all that lies in the frame. */
static void put_sum(uint8_t *frame, size_t n, unsigned at, unsigned start, unsigned end)
{
    size_t stop = end && end < n ? end + 1u : n;
    if (at + 2 <= stop && start < stop) {
        uint16_t sum = (uint16_t)~nic_sum(frame + start, stop - start, 0);
        be16_put(frame + at, sum ? sum : 0xffff); /* 0 would mean "none" to UDP */
    }
}

static void put_sums(const struct e1000_tx *tx, const struct e1000_context *c, uint8_t *frame,
                     size_t n)
{
    if (tx->options & OPT_TU) {
        put_sum(frame, n, c->tu_offset, c->tu_start, c->tu_end);
    }
    if (tx->options & OPT_IP) {
        put_sum(frame, n, c->ip_offset, c->ip_start, c->ip_end);
    }
}

/* Sends a finished frame, with room for a VLAN tag in front of .frame's contents. */
static void send(struct e1000_tx_port *port, uint8_t *frame, size_t n, bool tagged,
                 uint16_t tag)
{
    if (tagged && port->vlan_type && n >= 12) {
        memmove(frame + 16, frame + 12, n - 12);
        be16_put(frame + 12, port->vlan_type);
        be16_put(frame + 14, tag);
        n += ETH_VLAN_BYTES;
    }
    port->frame(port->owner, frame, n);
    port->n_frames++;
}

/* Headers of segment number @i, which carries bytes from @from on of the payload. */
static void fix_headers(const struct e1000_context *c, uint8_t *f, size_t n, unsigned i,
                        uint32_t from, bool last)
{
    if (c->command & TUCMD_IPV4) {
        be16_put(f + c->ip_start + IP_LENGTH, (uint16_t)(n - c->ip_start));
        be16_put(f + c->ip_start + IP_ID, (uint16_t)(be16_at(f + c->ip_start + IP_ID) + i));
    } else {
        be16_put(f + c->ip_start + IP6_LENGTH, (uint16_t)(n - c->ip_start - IP6_HEADER));
    }
    uint8_t *tu = f + c->tu_start;
    if (c->command & TUCMD_TCP) {
        be32_put(tu + TCP_SEQ, be32_at(tu + TCP_SEQ) + from);
        tu[TCP_FLAGS] &= last ? 0xff : (uint8_t)~(TCP_FIN | TCP_PSH);
    } else {
        be16_put(tu + UDP_LENGTH, (uint16_t)(n - c->tu_start));
    }
    /* The driver summed the pseudo header without the length. */
    uint32_t sum = be16_at(f + c->tu_offset) + (uint32_t)(n - c->tu_start);
    be16_put(f + c->tu_offset, (uint16_t)((sum & 0xffff) + (sum >> 16)));
}

static bool context_fits(const struct e1000_context *c, size_t n)
{
    return c->header_bytes >= ETH_HEADER && c->header_bytes < n && c->mss >= MSS_MIN &&
           c->ip_start + (c->command & TUCMD_IPV4 ? 20u : 40u) <= c->header_bytes &&
           c->tu_start + (c->command & TUCMD_TCP ? 20u : 8u) <= c->header_bytes &&
           c->tu_offset + 2u <= c->header_bytes;
}

static void send_segments(struct e1000_tx *tx, struct e1000_tx_port *port, bool tagged,
                          uint16_t tag)
{
    const struct e1000_context *c = &tx->large;
    uint8_t seg[256 + UINT16_MAX + ETH_VLAN_BYTES];
    if (!context_fits(c, tx->bytes)) {
        return;
    }
    uint32_t payload = tx->bytes - c->header_bytes, from = 0;
    bool whole = port->large && (c->command & TUCMD_TCP) && tx->bytes - c->ip_start <= UINT16_MAX;
    uint32_t step = whole ? payload : c->mss;
    for (unsigned i = 0; from < payload; i++, from += step) {
        uint32_t part = MIN(step, payload - from);
        size_t n = c->header_bytes + part;
        memcpy(seg, tx->frame, c->header_bytes);
        memcpy(seg + c->header_bytes, tx->frame + c->header_bytes + from, part);
        fix_headers(c, seg, n, i, from, from + part == payload);
        put_sums(tx, c, seg, n);
        send(port, seg, n, tagged, tag);
    }
}

static void end_of_packet(struct e1000_tx *tx, struct e1000_tx_port *port, const uint8_t *d)
{
    uint32_t lower = le32_at(d + 8);
    bool tagged = lower & D_VLAN;
    uint16_t tag = le16_at(d + 14);
    if (!tx->overflow && tx->segment) {
        send_segments(tx, port, tagged, tag);
    } else if (!tx->overflow && tx->bytes >= ETH_HEADER) {
        if (!(lower & D_EXTENDED) && (lower & D_IC)) { /* legacy: CSO and CSS are in place */
            put_sum(tx->frame, tx->bytes, d[10], d[13], 0);
        } else if (lower & D_EXTENDED) {
            put_sums(tx, &tx->plain, tx->frame, tx->bytes);
        }
        send(port, tx->frame, tx->bytes, tagged, tag);
    }
    tx->bytes = 0;
    tx->options = tx->segment = tx->overflow = 0;
}

static void take_context(struct e1000_tx *tx, const uint8_t *d)
{
    uint32_t lower = le32_at(d + 8);
    struct e1000_context c = {
        .ip_start = d[0], .ip_offset = d[1], .ip_end = le16_at(d + 2),
        .tu_start = d[4], .tu_offset = d[5], .tu_end = le16_at(d + 6),
        .command = (uint8_t)(lower >> 24), .header_bytes = d[13], .mss = le16_at(d + 14),
    };
    if (c.command & TUCMD_TSE) {
        tx->large = c;
    } else {
        tx->plain = c;
    }
}

void e1000_tx_descriptor(struct e1000_tx *tx, struct e1000_tx_port *port, const uint8_t *d)
{
    uint32_t lower = le32_at(d + 8), n = lower & 0xffff;
    if (lower & D_EXTENDED) {
        if ((lower >> 20 & 15) == TYPE_CONTEXT) {
            take_context(tx, d);
            return;
        }
        n = lower & 0xfffff;
        if (!tx->bytes) {
            tx->options = d[13];
            tx->segment = lower & D_TSE ? 1 : 0;
        }
    }
    if (n > NET_FRAME_MAX - tx->bytes) {
        tx->overflow = 1;
    } else if (le64_at(d)) {
        pci_dma_read(port->pci, le64_at(d), tx->frame + tx->bytes, n);
        tx->bytes += n;
    }
    if (lower & D_EOP) {
        end_of_packet(tx, port, d);
    }
}

bool e1000_tx_sane(const struct e1000_tx *tx)
{
    return tx->bytes <= NET_FRAME_MAX;
}
