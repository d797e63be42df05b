/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/pci.h"
#include "host/net/net.h"

/*
 * e1000_tx - frames out of transmit descriptors: gathering, checksums, VLAN tags and TCP
 * segmentation
 */
struct e1000_context {
    uint8_t ip_start, ip_offset, tu_start, tu_offset; /* bytes in the frame */
    uint16_t ip_end, tu_end;                          /* last byte; 0: the frame's */
    uint8_t header_bytes, command;
    uint16_t mss;
};

struct e1000_tx {
    struct e1000_context plain, large; /* the latest of each kind */
    uint32_t bytes;     /* gathered so far */
    uint8_t options;    /* of the first data descriptor: insert checksums */
    uint8_t segment;    /* segmentation is on for it */
    uint8_t overflow;   /* longer than a frame may be: dropped at its end */
    uint8_t frame[NET_FRAME_MAX + 4];
};

#define E1000_CONTEXT_STATE(type, m)                                                               \
    STATE(type, m.ip_start), STATE(type, m.ip_offset), STATE(type, m.tu_start),                    \
        STATE(type, m.tu_offset), STATE(type, m.ip_end), STATE(type, m.tu_end),                    \
        STATE(type, m.header_bytes), STATE(type, m.command), STATE(type, m.mss)
#define E1000_TX_STATE(type, m)                                                                    \
    E1000_CONTEXT_STATE(type, m.plain), E1000_CONTEXT_STATE(type, m.large), STATE(type, m.bytes),  \
        STATE(type, m.options), STATE(type, m.segment), STATE(type, m.overflow),                   \
        STATE_ARRAY(type, m.frame)

/* Where frames go. */
struct e1000_tx_port {
    void *owner;
    void (*frame)(void *owner, const uint8_t *frame, size_t n);
    struct pci_device *pci;
    uint16_t vlan_type; /* of tags that descriptors ask for; 0: none */
    unsigned n_frames;  /* how many were sent */
    bool large;         /* the backend takes TCP segments as large as they come */
};

/* Takes one descriptor of 16 bytes. */
void e1000_tx_descriptor(struct e1000_tx *tx, struct e1000_tx_port *port, const uint8_t *d);
bool e1000_tx_sane(const struct e1000_tx *tx);
