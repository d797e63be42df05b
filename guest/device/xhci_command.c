/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * xhci_command: the command ring, and the contexts of slots and endpoints.
 *
 * Spec: Intel, xHCI 1.2, "Command Interface", "Command TRBs", "Device Context", "Input Context".
 * Hubs are not modelled: a device sits on a root port.
 */
#include "guest/device/xhci.h"

#include "base/bytes.h"

enum { TURN_COMMANDS = 64, TURN_LINKS = 16 };
enum { ADD_SLOT = 1, ADD_EP0 = 2, STATE_SHIFT = 27 };

static uint64_t input_endpoint(uint64_t input, unsigned endpoint)
{
    return input + (uint64_t)(endpoint + 1) * CONTEXT_BYTES;
}

static void copy_context(struct xhci *x, uint64_t from, uint64_t to)
{
    for (unsigned i = 0; i < 5; i++) {
        xhci_store(x, to + 4 * i, xhci_load(x, from + 4 * i));
    }
}

static void set_slot_state(struct xhci *x, unsigned slot, enum slot_state state, unsigned address)
{
    xhci_store(x, x->slot_context[slot] + 12, (uint32_t)state << STATE_SHIFT | address);
}

static unsigned slot_state(struct xhci *x, unsigned slot)
{
    return xhci_load(x, x->slot_context[slot] + 12) >> STATE_SHIFT;
}

/* What is under way ends first. */
static void cancel(struct xhci *x, unsigned slot)
{
    struct usb_device *u = xhci_device(x, slot);
    if (u && x->td[slot].busy) {
        usb_cancel(u);
    }
}

/* Takes the endpoint's context as the guest wants it and lets it run. */
static void start_endpoint(struct xhci *x, unsigned slot, unsigned endpoint, uint64_t input)
{
    unsigned ep = xhci_ep(slot, endpoint);
    uint64_t from = input_endpoint(input, endpoint);
    uint32_t dequeue = xhci_load(x, from + 8);
    copy_context(x, from, x->slot_context[slot] + (uint64_t)endpoint * CONTEXT_BYTES);
    x->ep_at[ep] = (dequeue & ~15u) | (uint64_t)xhci_load(x, from + 12) << 32;
    x->ep_cycle[ep] = dequeue & 1;
    xhci_set_ep_state(x, slot, endpoint, EP_RUNNING);
}

static void stop_endpoints(struct xhci *x, unsigned slot, uint32_t which)
{
    cancel(x, slot);
    for (unsigned i = 1; i < XHCI_ENDPOINTS; i++) {
        if ((which >> i & 1) && x->ep_state[xhci_ep(slot, i)] != EP_DISABLED) {
            xhci_set_ep_state(x, slot, i, EP_DISABLED);
        }
    }
    x->more[slot] &= ~which;
}

void xhci_free_slot(struct xhci *x, unsigned slot)
{
    cancel(x, slot);
    memset(&x->ep_state[xhci_ep(slot, 0)], EP_DISABLED, XHCI_ENDPOINTS);
    x->slot_used[slot] = x->slot_port[slot] = x->setup_failed[slot] = 0;
    x->slot_context[slot] = 0;
    x->more[slot] = 0;
}

/* ---- commands ---- */

static enum xhci_code enable_slot(struct xhci *x, unsigned *slot)
{
    for (unsigned i = 1; i <= MIN(x->config & 0xff, XHCI_SLOTS); i++) {
        if (!x->slot_used[i]) {
            x->slot_used[i] = 1;
            *slot = i;
            return CC_SUCCESS;
        }
    }
    return CC_NO_SLOTS;
}

static enum xhci_code disable_slot(struct xhci *x, unsigned slot)
{
    if (x->slot_context[slot]) {
        set_slot_state(x, slot, SLOT_ENABLED, 0);
    }
    xhci_free_slot(x, slot);
    return CC_SUCCESS;
}

static enum xhci_code address_device(struct xhci *x, unsigned slot, const struct trb *t)
{
    uint64_t input = t->parameter & ~UINT64_C(15);
    uint64_t dcbaa = (uint64_t)x->dcbaap_hi << 32 | (x->dcbaap_lo & ~63u), at = dcbaa + 8 * slot;
    uint32_t route = xhci_load(x, input + CONTEXT_BYTES) & 0xfffff;
    unsigned port = xhci_load(x, input + CONTEXT_BYTES + 4) >> 16 & 0xff;
    bool addressed = !(t->control & TRB_BSR);
    if ((xhci_load(x, input + 4) & 3) != (ADD_SLOT | ADD_EP0) || route || !port || port > XHCI_PORTS) {
        return CC_TRB;
    }
    for (unsigned i = 1; i <= XHCI_SLOTS; i++) {
        if (i != slot && x->slot_port[i] == port) {
            return CC_TRB; /* the port's device has a slot already */
        }
    }
    cancel(x, slot);
    x->slot_port[slot] = (uint8_t)port;
    struct usb_device *u = xhci_device(x, slot);
    if (!u) {
        x->slot_port[slot] = 0;
        return CC_TRANSACTION;
    }
    x->slot_context[slot] = (xhci_load(x, at) & ~63u) | (uint64_t)xhci_load(x, at + 4) << 32;
    copy_context(x, input + CONTEXT_BYTES, x->slot_context[slot]);
    usb_reset(u);
    u->address = addressed ? (uint8_t)slot : 0;
    set_slot_state(x, slot, addressed ? SLOT_ADDRESSED : SLOT_DEFAULT, addressed ? slot : 0);
    start_endpoint(x, slot, 1, input);
    return CC_SUCCESS;
}

static enum xhci_code configure(struct xhci *x, unsigned slot, const struct trb *t)
{
    uint64_t input = t->parameter & ~UINT64_C(15);
    uint32_t drop = xhci_load(x, input), add = xhci_load(x, input + 4);
    uint64_t context = x->slot_context[slot];
    if (slot_state(x, slot) < SLOT_ADDRESSED) {
        return CC_CONTEXT;
    }
    if (t->control & TRB_DC) {
        stop_endpoints(x, slot, ~3u);
        set_slot_state(x, slot, SLOT_ADDRESSED, slot);
        return CC_SUCCESS;
    }
    if ((drop & 3) || (add & 3) != ADD_SLOT) {
        return CC_TRB;
    }
    stop_endpoints(x, slot, drop | (add & ~3u));
    for (unsigned i = 2; i < XHCI_ENDPOINTS; i++) {
        if (add >> i & 1) {
            start_endpoint(x, slot, i, input);
        }
    }
    uint32_t entries = xhci_load(x, input + CONTEXT_BYTES) & 0xf8000000;
    xhci_store(x, context, (xhci_load(x, context) & ~0xf8000000) | entries);
    set_slot_state(x, slot, SLOT_CONFIGURED, slot);
    return CC_SUCCESS;
}

static enum xhci_code evaluate(struct xhci *x, unsigned slot, const struct trb *t)
{
    uint64_t input = t->parameter & ~UINT64_C(15), context = x->slot_context[slot];
    uint32_t add = xhci_load(x, input + 4);
    if (add & ADD_SLOT) { /* exit latency */
        uint32_t latency = xhci_load(x, input + CONTEXT_BYTES + 4) & 0xffff;
        xhci_store(x, context + 4, (xhci_load(x, context + 4) & 0xffff0000) | latency);
    }
    if (add & ADD_EP0) { /* the packet size */
        uint32_t size = xhci_load(x, input_endpoint(input, 1) + 4) & 0xffff0000;
        uint64_t ep0 = context + CONTEXT_BYTES + 4;
        xhci_store(x, ep0, (xhci_load(x, ep0) & 0xffff) | size);
    }
    return CC_SUCCESS;
}

static enum xhci_code endpoint_command(struct xhci *x, unsigned slot, const struct trb *t)
{
    unsigned endpoint = t->control >> 16 & 0x1f, ep = xhci_ep(slot, endpoint);
    unsigned state = x->ep_state[ep];
    if (!endpoint || state == EP_DISABLED) {
        return endpoint ? CC_ENDPOINT : CC_TRB;
    }
    switch (trb_type(t)) {
    case TRB_RESET_ENDPOINT:
        if (state != EP_HALTED) {
            return CC_CONTEXT;
        }
        xhci_set_ep_state(x, slot, endpoint, EP_STOPPED);
        return CC_SUCCESS;
    case TRB_STOP_ENDPOINT:
        if (state != EP_RUNNING) {
            return CC_CONTEXT;
        }
        cancel(x, slot);
        if (x->ep_state[ep] == EP_RUNNING) {
            xhci_set_ep_state(x, slot, endpoint, EP_STOPPED);
        }
        return CC_SUCCESS;
    default: /* TRB_SET_DEQUEUE */
        if (state != EP_STOPPED && state != EP_ERROR) {
            return CC_CONTEXT;
        }
        x->ep_at[ep] = t->parameter & ~UINT64_C(15);
        x->ep_cycle[ep] = t->parameter & 1;
        xhci_set_ep_state(x, slot, endpoint, EP_STOPPED);
        return CC_SUCCESS;
    }
}

static enum xhci_code reset_device(struct xhci *x, unsigned slot)
{
    if (slot_state(x, slot) < SLOT_ADDRESSED) {
        return CC_CONTEXT;
    }
    stop_endpoints(x, slot, ~3u);
    struct usb_device *u = xhci_device(x, slot);
    if (u) {
        usb_reset(u);
    }
    set_slot_state(x, slot, SLOT_DEFAULT, 0);
    return CC_SUCCESS;
}

/* @slot: what the command names, and what the event will. */
static enum xhci_code run(struct xhci *x, const struct trb *t, unsigned *slot)
{
    unsigned type = trb_type(t);
    if (type == TRB_ENABLE_SLOT) {
        return enable_slot(x, slot);
    }
    if (type == TRB_NOOP_COMMAND) {
        return CC_SUCCESS;
    }
    if (!*slot || *slot > XHCI_SLOTS || !x->slot_used[*slot]) {
        return CC_SLOT;
    }
    if (type != TRB_DISABLE_SLOT && type != TRB_ADDRESS && !x->slot_context[*slot]) {
        return CC_CONTEXT;
    }
    switch (type) {
    case TRB_DISABLE_SLOT:
        return disable_slot(x, *slot);
    case TRB_ADDRESS:
        return address_device(x, *slot, t);
    case TRB_CONFIGURE:
        return configure(x, *slot, t);
    case TRB_EVALUATE:
        return evaluate(x, *slot, t);
    case TRB_RESET_ENDPOINT:
    case TRB_STOP_ENDPOINT:
    case TRB_SET_DEQUEUE:
        return endpoint_command(x, *slot, t);
    case TRB_RESET_DEVICE:
        return reset_device(x, *slot);
    default:
        return CC_TRB;
    }
}

void xhci_commands(struct xhci *x)
{
    unsigned links = 0;
    x->command_running = 1;
    for (unsigned i = 0; i < TURN_COMMANDS && (x->usbcmd & CMD_RUN); i++) {
        struct trb t;
        if (!xhci_event_room(x) || !xhci_read_trb(x, x->command_at, &t) ||
            (t.control & TRB_CYCLE) != x->command_cycle) {
            return;
        }
        if (trb_type(&t) == TRB_LINK) {
            if (++links > TURN_LINKS) {
                return;
            }
            x->command_at = t.parameter & ~UINT64_C(15);
            x->command_cycle ^= t.control & TRB_TOGGLE ? 1 : 0;
            continue;
        }
        unsigned slot = t.control >> 24;
        enum xhci_code code = run(x, &t, &slot);
        x->command_at += TRB_BYTES;
        xhci_event(x, TRB_COMMAND_DONE, t.at, (uint32_t)code << 24, slot << 24);
    }
    timer_arm(&x->again, clock_now());
}
