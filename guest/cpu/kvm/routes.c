/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * routes - where interrupt inputs lead: the pins of the chips, and messages (MSI)
 *
 * Spec: KVM API documentation, "KVM_SET_GSI_ROUTING", "KVM_IRQFD", "KVM_SIGNAL_MSI",
 * "KVM_CAP_SPLIT_IRQCHIP".
 *
 * The kernel takes the whole table at a time.  Its first entries are the pins; behind them
 * each message that a device sends again and again has an input of its own, which an
 * eventfd raises.  With a split chip the pins of the board's IO-APIC stand in the table as
 * the messages that they send, so that the kernel knows whose EOI is to be told.
 */
#include "guest/cpu/kvm/kvm.h"

#include <glib.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { PINS = 24, MESSAGES_MAX = 1000 };

struct kvm_route {
    unsigned gsi;
    int fd;
    uint64_t address;
    uint32_t data;
};

static struct {
    struct kvm_irq_routing *table; /* pins, then .n_messages messages */
    unsigned n_pins;               /* entries of the pins */
    struct kvm_route *message[MESSAGES_MAX]; /* by gsi - PINS */
    bool full;                     /* the kernel took no more: messages go one by one */
} routes;

static struct kvm_irq_routing_entry message_entry(unsigned gsi, uint64_t address, uint32_t data)
{
    return (struct kvm_irq_routing_entry){.gsi = gsi,
                                          .type = KVM_IRQ_ROUTING_MSI,
                                          .u.msi = {.address_lo = (uint32_t)address,
                                                    .address_hi = (uint32_t)(address >> 32),
                                                    .data = data}};
}

static void add_pin(unsigned gsi)
{
    struct kvm_irq_routing *t = routes.table;
    if (gsi < 16 && gsi != 2) { /* ISA interrupts reach both controllers */
        t->entries[t->nr++] = (struct kvm_irq_routing_entry){
            .gsi = gsi,
            .type = KVM_IRQ_ROUTING_IRQCHIP,
            .u.irqchip = {gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8}};
    }
    /* The PIT's interrupt 0 arrives at pin 2, as the MADT's override says. */
    unsigned pin = gsi == 0 ? 2 : gsi;
    if (gsi != 2) {
        t->entries[t->nr++] = (struct kvm_irq_routing_entry){
            .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {KVM_IRQCHIP_IOAPIC, pin}};
    }
}

static int commit(void)
{
    struct kvm_irq_routing *t = routes.table;
    t->nr = routes.n_pins;
    for (unsigned i = 0; i < MESSAGES_MAX; i++) {
        const struct kvm_route *r = routes.message[i];
        if (r) {
            t->entries[t->nr++] = message_entry(r->gsi, r->address, r->data);
        }
    }
    return kvm_vm_ioctl(KVM_SET_GSI_ROUTING, t);
}

int kvm_routes_init(bool split)
{
    size_t most = 2 * PINS + MESSAGES_MAX;
    routes.table = g_malloc0(sizeof(*routes.table) + most * sizeof(struct kvm_irq_routing_entry));
    for (unsigned gsi = 0; gsi < PINS; gsi++) {
        if (split) {
            routes.table->entries[routes.table->nr++] = message_entry(gsi, 0, 0);
        } else {
            add_pin(gsi);
        }
    }
    routes.n_pins = routes.table->nr;
    return commit();
}

void kvm_set_gsi(unsigned gsi, bool level)
{
    struct kvm_irq_level line = {.irq = gsi, .level = level};
    kvm_vm_ioctl(KVM_IRQ_LINE, &line);
}

void kvm_pin_routes(const struct kvm_message *pins, unsigned n)
{
    bool changed = false;
    for (unsigned i = 0; i < MIN(n, routes.n_pins); i++) {
        struct kvm_irq_routing_entry *e = &routes.table->entries[i];
        struct kvm_irq_routing_entry now = message_entry(i, pins[i].address, pins[i].data);
        changed |= memcmp(&e->u.msi, &now.u.msi, sizeof(now.u.msi)) != 0;
        *e = now;
    }
    if (changed) {
        commit();
    }
}

/* ---- messages ---- */

void kvm_send_msi(uint64_t address, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};
    kvm_vm_ioctl(KVM_SIGNAL_MSI, &msi);
}

static int irqfd(const struct kvm_route *r, uint32_t flags)
{
    struct kvm_irqfd arg = {.fd = (uint32_t)r->fd, .gsi = r->gsi, .flags = flags};
    return kvm_vm_ioctl(KVM_IRQFD, &arg);
}

void kvm_route_free(struct kvm_route *r)
{
    if (r) {
        irqfd(r, KVM_IRQFD_FLAG_DEASSIGN);
        close(r->fd);
        routes.message[r->gsi - PINS] = NULL;
        g_free(r); /* the entry goes with the next commit */
    }
}

static struct kvm_route *route_new(uint64_t address, uint32_t data)
{
    unsigned i = 0;
    while (i < MESSAGES_MAX && routes.message[i]) {
        i++;
    }
    int fd = routes.full || i == MESSAGES_MAX ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        routes.full = true;
        return NULL;
    }
    struct kvm_route *r = g_new0(struct kvm_route, 1);
    *r = (struct kvm_route){.gsi = PINS + i, .fd = fd, .address = address, .data = data};
    routes.message[i] = r;
    if (commit() < 0 || irqfd(r, 0) < 0) {
        routes.full = true;
        routes.message[i] = NULL;
        close(fd);
        g_free(r);
        return NULL;
    }
    return r;
}

void kvm_route_send(struct kvm_route **route, uint64_t address, uint32_t data)
{
    struct kvm_route *r = *route;
    if (!r) {
        r = *route = route_new(address, data);
    } else if (r->address != address || r->data != data) {
        r->address = address;
        r->data = data;
        commit();
    }
    if (!r || eventfd_write(r->fd, 1) < 0) {
        kvm_send_msi(address, data);
    }
}
