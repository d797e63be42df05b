/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * xhci_transfer: the rings of endpoints.
 *
 * Spec: Intel, xHCI 1.2, "Transfer Ring", "Transfer TRBs", "Transfer Descriptors (TDs)", "Event
 * Data TRB", "Short Transfers".
 * Not modelled: streams, isochronous transfers (no device here has them).
 *
 * A guest decides what rings hold: a turn ends after so many TRBs, and a TD has at most
 * XHCI_TD_PARTS.  An endpoint whose device has nothing to say keeps its place in the ring and
 * looks again when the device wakes it.
 */
#include "guest/device/xhci.h"

#include "base/bytes.h"
#include "base/log.h"

enum { TURNS = 8, TURN_TDS = 64, TURN_LINKS = 16, LENGTH_MASK = 0x1ffff };

static void endpoint_event(struct xhci *x, const struct xhci_td *td, uint64_t parameter,
                           enum xhci_code code, uint32_t bytes, uint32_t flags)
{
    xhci_event(x, TRB_TRANSFER_EVENT, parameter, (bytes & 0xffffff) | (uint32_t)code << 24,
               flags | (uint32_t)td->endpoint << 16 | (uint32_t)td->slot << 24);
}

void xhci_set_ep_state(struct xhci *x, unsigned slot, unsigned endpoint, enum endpoint_state state)
{
    unsigned ep = xhci_ep(slot, endpoint);
    uint64_t context = x->slot_context[slot] + (uint64_t)endpoint * CONTEXT_BYTES;
    x->ep_state[ep] = (uint8_t)state;
    xhci_store(x, context, (xhci_load(x, context) & ~7u) | (uint32_t)state);
    xhci_store(x, context + 8, (uint32_t)x->ep_at[ep] | x->ep_cycle[ep]);
    xhci_store(x, context + 12, (uint32_t)(x->ep_at[ep] >> 32));
}

/* ---- taking a TD ---- */

enum taken { TAKEN, NOTHING, MALFORMED };

static bool add_buffer(struct xhci *x, struct xhci_td *td, const struct trb *t)
{
    uint32_t left = t->status & LENGTH_MASK;
    uint64_t at = t->parameter;
    bool in = td->endpoint & 1 && (td->endpoint != 1 || (td->trb[0].control & TRB_DIR_IN));
    td->t.bytes += left;
    if (t->control & TRB_IMMEDIATE) {
        le64_put(td->immediate, t->parameter);
        td->iov[0] = (struct iovec){td->immediate, left};
        return !in && left <= sizeof(td->immediate) && td->parts++ == 0;
    }
    while (left) {
        uint64_t n = left;
        void *host = space_map(pci_dma_space(&x->pci), at, &n, in);
        if (!host || td->parts == XHCI_TD_PARTS) {
            return false;
        }
        td->iov[td->parts++] = (struct iovec){host, (size_t)n};
        at += n;
        left -= (uint32_t)n;
    }
    return true;
}

static bool has_buffer(const struct trb *t)
{
    return trb_type(t) == TRB_NORMAL || trb_type(t) == TRB_DATA;
}

/* Reads the TD at the endpoint's place into @td; the place is not moved. */
static enum taken take(struct xhci *x, struct xhci_td *td)
{
    unsigned ep = xhci_ep(td->slot, td->endpoint), links = 0;
    uint64_t at = x->ep_at[ep];
    uint8_t cycle = x->ep_cycle[ep];
    td->trbs = td->parts = 0;
    td->t.bytes = td->t.done = 0;
    for (;;) {
        struct trb t;
        if (!xhci_read_trb(x, at, &t)) {
            return MALFORMED;
        }
        if ((t.control & TRB_CYCLE) != cycle) {
            return NOTHING; /* or a TD that is not complete: its doorbell will come */
        }
        if (trb_type(&t) == TRB_LINK) {
            if (++links > TURN_LINKS) {
                return MALFORMED;
            }
            at = t.parameter & ~UINT64_C(15);
            cycle ^= t.control & TRB_TOGGLE ? 1 : 0;
            continue;
        }
        if (td->trbs == XHCI_TD_PARTS) {
            return MALFORMED;
        }
        td->trb[td->trbs++] = t;
        if (has_buffer(&t) && !add_buffer(x, td, &t)) {
            return MALFORMED;
        }
        at += TRB_BYTES;
        if (!(t.control & TRB_CHAIN)) {
            break;
        }
    }
    td->next = at;
    td->next_cycle = cycle;
    return TAKEN;
}

/* ---- ending it ---- */

static void note_written(const struct xhci_td *td)
{
    uint32_t left = td->t.done;
    for (unsigned i = 0; i < td->parts && left; i++) {
        uint32_t n = (uint32_t)MIN(left, td->iov[i].iov_len);
        ram_note_write(td->iov[i].iov_base, n);
        left -= n;
    }
}

/* Tells of the TRBs that ask for it.  After a short packet the first that does is the last. */
static void tell(struct xhci *x, const struct xhci_td *td)
{
    uint32_t left = td->t.done, data = 0;
    enum xhci_code code = CC_SUCCESS;
    for (unsigned i = 0; i < td->trbs; i++) {
        const struct trb *t = &td->trb[i];
        uint32_t bytes = has_buffer(t) ? t->status & LENGTH_MASK : 0, n = MIN(bytes, left);
        bool wanted = t->control & TRB_IOC;
        left -= n;
        data += n;
        if (n < bytes) {
            code = CC_SHORT;
            wanted |= t->control & TRB_ISP;
        }
        if (!wanted) {
            continue;
        }
        if (trb_type(t) == TRB_EVENT_DATA) {
            endpoint_event(x, td, t->parameter, code, data, TRB_ED);
            data = 0;
        } else {
            endpoint_event(x, td, t->at, code, bytes - n, 0);
        }
        if (code == CC_SHORT) {
            return;
        }
    }
}

static void pass(struct xhci *x, const struct xhci_td *td)
{
    unsigned ep = xhci_ep(td->slot, td->endpoint);
    x->ep_at[ep] = td->next;
    x->ep_cycle[ep] = td->next_cycle;
}

static void halt(struct xhci *x, const struct xhci_td *td, enum xhci_code code)
{
    const struct trb *t = &td->trb[td->trbs ? td->trbs - 1 : 0];
    uint64_t at = td->trbs ? t->at : x->ep_at[xhci_ep(td->slot, td->endpoint)];
    xhci_set_ep_state(x, td->slot, td->endpoint, code == CC_STALL ? EP_HALTED : EP_ERROR);
    endpoint_event(x, td, at, code, td->t.bytes - td->t.done, 0);
}

static void finish(struct xhci *x, struct xhci_td *td, enum usb_result result)
{
    if (result == USB_STALL) {
        halt(x, td, CC_STALL);
        return;
    }
    if (td->t.in) {
        note_written(td);
    }
    pass(x, td);
    tell(x, td);
}

static void ended(struct usb_transfer *t, enum usb_result result)
{
    struct xhci_td *td = t->owner;
    struct xhci *x = td->x;
    td->busy = false;
    if (x->ep_state[xhci_ep(td->slot, td->endpoint)] == EP_RUNNING) {
        finish(x, td, result);
        xhci_kick_slot(x, td->slot);
    }
    xhci_settle(x);
}

/* ---- endpoint 0 ---- */

static enum usb_result control_data(struct usb_device *u, struct xhci_td *td)
{
    td->t.in = td->trb[0].control & TRB_DIR_IN;
    for (unsigned i = 0; i < td->parts; i++) {
        size_t n = usb_data(u, td->t.in, td->iov[i].iov_base, td->iov[i].iov_len);
        td->t.done += (uint32_t)n;
        if (n < td->iov[i].iov_len) {
            break;
        }
    }
    return USB_OK;
}

static enum usb_result control_stage(struct xhci *x, struct usb_device *u, struct xhci_td *td)
{
    uint8_t setup[8], *failed = &x->setup_failed[td->slot];
    td->t.in = false;
    switch (trb_type(&td->trb[0])) {
    case TRB_SETUP: /* a device takes each; what it thinks of it, the next stage says */
        le64_put(setup, td->trb[0].parameter);
        *failed = !usb_setup(u, setup);
        return USB_OK;
    case TRB_DATA:
        return *failed ? USB_STALL : control_data(u, td);
    case TRB_STATUS:
        return *failed || !usb_status(u) ? USB_STALL : USB_OK;
    default:
        return USB_OK;
    }
}

/* ---- turns ---- */

static enum usb_result give(struct xhci *x, struct usb_device *u, struct xhci_td *td)
{
    if (td->endpoint == 1) {
        return control_stage(x, u, td);
    }
    if (trb_type(&td->trb[0]) == TRB_NOOP || !has_buffer(&td->trb[0])) {
        return USB_OK;
    }
    td->t.endpoint = td->endpoint / 2;
    td->t.in = td->endpoint & 1;
    td->t.iov = td->iov;
    td->t.niov = td->parts;
    td->t.ended = ended;
    td->t.owner = td;
    td->busy = true;
    enum usb_result result = usb_transfer(u, &td->t);
    td->busy = result == USB_ASYNC;
    return result;
}

/* One TD; false: nothing more can be done now. */
static bool step(struct xhci *x, struct usb_device *u, struct xhci_td *td)
{
    if (x->ep_state[xhci_ep(td->slot, td->endpoint)] != EP_RUNNING || !xhci_event_room(x)) {
        return false;
    }
    enum taken taken = take(x, td);
    if (taken == MALFORMED) {
        log_line(LOG_GUEST_ERRORS, "xhci: slot %u, endpoint %u: a transfer that cannot be", td->slot,
                 td->endpoint);
        halt(x, td, CC_TRB);
    }
    if (taken != TAKEN) {
        return false;
    }
    enum usb_result result = give(x, u, td);
    if (result == USB_NAK || result == USB_ASYNC) {
        return false;
    }
    finish(x, td, result);
    return true;
}

static void turn(struct xhci *x, struct usb_device *u, struct xhci_td *td, unsigned endpoint)
{
    td->endpoint = (uint8_t)endpoint;
    for (unsigned i = 0; step(x, u, td); i++) {
        if (i == TURN_TDS) {
            x->more[td->slot] |= 1u << endpoint;
            return;
        }
    }
}

void xhci_kick(struct xhci *x, unsigned slot, unsigned endpoint)
{
    struct usb_device *u = xhci_device(x, slot);
    struct xhci_td *td = &x->td[slot];
    if (!u || !(x->usbcmd & CMD_RUN) || !endpoint || endpoint >= XHCI_ENDPOINTS) {
        return;
    }
    x->more[slot] |= 1u << endpoint;
    for (unsigned i = 0; i < TURNS && !td->busy && x->more[slot]; i++) {
        unsigned next = (unsigned)__builtin_ctz(x->more[slot]);
        x->more[slot] &= ~(1u << next);
        td->x = x;
        td->slot = (uint8_t)slot;
        turn(x, u, td, next);
    }
    if (x->more[slot] && !td->busy) {
        timer_arm(&x->again, clock_now());
    }
}

void xhci_kick_slot(struct xhci *x, unsigned slot)
{
    for (unsigned i = 1; i < XHCI_ENDPOINTS; i++) {
        if (x->ep_state[xhci_ep(slot, i)] == EP_RUNNING) {
            xhci_kick(x, slot, i);
        }
    }
}
