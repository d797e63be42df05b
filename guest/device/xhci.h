/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/pci.h"
#include "guest/device/usb.h"

/*
 * xhci - what xhci.c (registers, ports), xhci_ring.c (rings in guest memory, events),
 * xhci_command.c (the command ring) and xhci_transfer.c (the endpoints' rings) share
 *
 * Spec: Intel, eXtensible Host Controller Interface for Universal Serial Bus, Revision 1.2.
 */
enum { XHCI_SLOTS = 32, XHCI_ENDPOINTS = 32, XHCI_PORTS = 30, XHCI_TD_PARTS = 1024 };
enum { TRB_BYTES = 16, CONTEXT_BYTES = 32 };

enum trb_type {
    TRB_NORMAL = 1, TRB_SETUP = 2, TRB_DATA = 3, TRB_STATUS = 4, TRB_LINK = 6, TRB_EVENT_DATA = 7,
    TRB_NOOP = 8, TRB_ENABLE_SLOT = 9, TRB_DISABLE_SLOT = 10, TRB_ADDRESS = 11, TRB_CONFIGURE = 12,
    TRB_EVALUATE = 13, TRB_RESET_ENDPOINT = 14, TRB_STOP_ENDPOINT = 15, TRB_SET_DEQUEUE = 16,
    TRB_RESET_DEVICE = 17, TRB_NOOP_COMMAND = 23, TRB_TRANSFER_EVENT = 32, TRB_COMMAND_DONE = 33,
    TRB_PORT_EVENT = 34,
};
enum { /* of a TRB's last word */
    TRB_CYCLE = 1 << 0, TRB_TOGGLE = 1 << 1, TRB_ISP = 1 << 2, TRB_ED = 1 << 2, TRB_CHAIN = 1 << 4,
    TRB_IOC = 1 << 5, TRB_IMMEDIATE = 1 << 6, TRB_BSR = 1 << 9, TRB_DC = 1 << 9, TRB_DIR_IN = 1 << 16,
};
enum xhci_code {
    CC_SUCCESS = 1, CC_TRANSACTION = 4, CC_TRB = 5, CC_STALL = 6, CC_NO_SLOTS = 9, CC_SLOT = 11,
    CC_ENDPOINT = 12, CC_SHORT = 13, CC_PARAMETER = 17, CC_CONTEXT = 19, CC_COMMAND_STOPPED = 24,
};
enum endpoint_state { EP_DISABLED, EP_RUNNING, EP_HALTED, EP_STOPPED, EP_ERROR };
enum slot_state { SLOT_ENABLED = 0, SLOT_DEFAULT = 1, SLOT_ADDRESSED = 2, SLOT_CONFIGURED = 3 };
enum { CMD_RUN = 1, CMD_RESET = 2, CMD_INTERRUPTS = 4 };
enum { STS_HALTED = 1 << 0, STS_ERROR = 1 << 2, STS_EVENT = 1 << 3, STS_PORT = 1 << 4 };

struct trb {
    uint64_t at; /* where it lies */
    uint64_t parameter;
    uint32_t status, control;
};
static inline unsigned trb_type(const struct trb *t)
{
    return t->control >> 10 & 0x3f;
}

/* A transfer descriptor that a device works on. */
struct xhci_td {
    struct xhci *x;
    uint8_t slot, endpoint; /* as in the doorbell */
    bool busy;
    struct usb_transfer t;
    unsigned trbs, parts;
    uint64_t next;          /* the ring after it */
    uint8_t next_cycle;
    uint8_t immediate[8];
    struct trb trb[XHCI_TD_PARTS];
    struct iovec iov[XHCI_TD_PARTS];
};

struct xhci {
    struct pci_device pci;
    struct usb_bus bus;
    struct region mmio;
    struct xhci_td *td;      /* one a slot */
    struct timer again;      /* endpoints that had more than one turn's work */
    uint32_t more[XHCI_SLOTS + 1];
    bool asks;               /* an interrupt for what stands was given */
    /* State. */
    uint32_t usbcmd, usbsts, dnctrl, crcr_lo, crcr_hi, dcbaap_lo, dcbaap_hi, config;
    uint32_t iman, imod, erstsz, erstba_lo, erstba_hi, erdp_lo, erdp_hi;
    uint64_t command_at, event_base;
    uint32_t event_size, event_next, ports_due;
    uint8_t command_cycle, event_cycle, command_running;
    uint32_t portsc[XHCI_PORTS];
    uint8_t slot_used[XHCI_SLOTS + 1], slot_port[XHCI_SLOTS + 1], setup_failed[XHCI_SLOTS + 1];
    uint64_t slot_context[XHCI_SLOTS + 1];
    uint8_t ep_state[(XHCI_SLOTS + 1) * XHCI_ENDPOINTS], ep_cycle[(XHCI_SLOTS + 1) * XHCI_ENDPOINTS];
    uint64_t ep_at[(XHCI_SLOTS + 1) * XHCI_ENDPOINTS];
    /* Properties. */
    uint32_t p2, p3;
};
static inline unsigned xhci_ep(unsigned slot, unsigned endpoint)
{
    return slot * XHCI_ENDPOINTS + endpoint;
}

/* xhci.c */
void xhci_settle(struct xhci *x);
struct usb_device *xhci_device(const struct xhci *x, unsigned slot); /* NULL: gone */
/* xhci_ring.c */
bool xhci_read_trb(struct xhci *x, uint64_t at, struct trb *t);
uint32_t xhci_load(struct xhci *x, uint64_t at);
void xhci_store(struct xhci *x, uint64_t at, uint32_t value);
void xhci_event_ring(struct xhci *x);          /* its registers were written */
bool xhci_event_room(const struct xhci *x);    /* for what a transfer may say */
void xhci_event(struct xhci *x, enum trb_type type, uint64_t parameter, uint32_t status,
                uint32_t control);
void xhci_port_events(struct xhci *x);         /* those that found no room */
/* xhci_command.c */
void xhci_commands(struct xhci *x);
void xhci_free_slot(struct xhci *x, unsigned slot);
/* xhci_transfer.c */
void xhci_kick(struct xhci *x, unsigned slot, unsigned endpoint);
void xhci_kick_slot(struct xhci *x, unsigned slot);
void xhci_set_ep_state(struct xhci *x, unsigned slot, unsigned endpoint, enum endpoint_state state);
