/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * system - /dev/kvm, the VM, its interrupt inputs
 *
 * Spec: KVM API documentation, "KVM_CREATE_VM", "KVM_CREATE_IRQCHIP", "KVM_IRQ_LINE",
 * "KVM_SIGNAL_MSI", "KVM_SET_GSI_ROUTING", "KVM_IRQFD", "KVM_IOEVENTFD".
 */
#include "guest/cpu/kvm/kvm.h"

#include "base/lock.h"
#include "base/util.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

enum { GSI_COUNT = 24, ROUTES_MAX = 1024 };

static struct {
    int dev, vm;
    bool active, split;
    struct kvm_irq_routing *routing;
    bool used[ROUTES_MAX];
    void (*eoi)(void *owner, uint8_t vector);
    void *eoi_owner;
} kvm = {.dev = -1, .vm = -1};

int kvm_fd(void)
{
    if (kvm.dev < 0) {
        kvm.dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    }
    return kvm.dev;
}

int kvm_vm_fd(void)
{
    return kvm.vm;
}

bool kvm_active(void)
{
    return kvm.active;
}

bool kvm_split_irqchip(void)
{
    return kvm.active && kvm.split;
}

bool kvm_has(int capability)
{
    return ioctl(kvm.vm >= 0 ? kvm.vm : kvm_fd(), KVM_CHECK_EXTENSION, capability) > 0;
}

int kvm_vm_ioctl(unsigned long request, void *arg)
{
    int r = ioctl(kvm.vm, request, arg);
    return r < 0 ? -errno : r;
}

static void route_default(unsigned gsi)
{
    struct kvm_irq_routing *table = kvm.routing;
    if (gsi < 16 && gsi != 2) { /* ISA interrupts reach both controllers */
        table->entries[table->nr++] = (struct kvm_irq_routing_entry){
            .gsi = gsi,
            .type = KVM_IRQ_ROUTING_IRQCHIP,
            .u.irqchip = {gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8}};
    }
    /* The PIT's interrupt 0 arrives at pin 2, as the MADT's override says. */
    unsigned pin = gsi == 0 ? 2 : gsi;
    if (gsi != 2) {
        table->entries[table->nr++] = (struct kvm_irq_routing_entry){
            .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {KVM_IRQCHIP_IOAPIC, pin}};
    }
}

static int routes_commit(void)
{
    return kvm_vm_ioctl(KVM_SET_GSI_ROUTING, kvm.routing);
}

static bool make_irqchip(GError **error)
{
    kvm.routing = g_malloc0(sizeof(*kvm.routing) +
                            (ROUTES_MAX + 2 * GSI_COUNT) * sizeof(struct kvm_irq_routing_entry));
    if (kvm.split) {
        struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {GSI_COUNT}};
        int r = kvm_vm_ioctl(KVM_ENABLE_CAP, &cap);
        if (r < 0) {
            error_set_errno(error, -r, "KVM: split interrupt controllers");
            return false;
        }
        return true;
    }
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    int r = kvm_vm_ioctl(KVM_CREATE_IRQCHIP, NULL);
    r = r < 0 ? r : kvm_vm_ioctl(KVM_CREATE_PIT2, &pit);
    for (unsigned gsi = 0; gsi < GSI_COUNT; gsi++) {
        route_default(gsi);
    }
    r = r < 0 ? r : routes_commit();
    if (r < 0) {
        error_set_errno(error, -r, "KVM: interrupt controllers");
        return false;
    }
    return true;
}

bool kvm_open(enum kvm_chips chips, GError **error)
{
    if (kvm.active) {
        return true;
    }
    if (kvm_fd() < 0) {
        error_set_errno(error, errno, "/dev/kvm");
        return false;
    }
    int version = ioctl(kvm.dev, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "/dev/kvm speaks version %d of its API, not %d",
                    version, KVM_API_VERSION);
        return false;
    }
    do {
        kvm.vm = ioctl(kvm.dev, KVM_CREATE_VM, 0);
    } while (kvm.vm < 0 && errno == EINTR);
    if (kvm.vm < 0) {
        error_set_errno(error, errno, "/dev/kvm: KVM_CREATE_VM");
        return false;
    }
    /* Three pages below the firmware that Intel processors without unrestricted guest need. */
    uint64_t identity_map = 0xfeffc000;
    kvm_vm_ioctl(KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
    ioctl(kvm.vm, KVM_SET_TSS_ADDR, 0xfeffd000ul);
    kvm.split = chips == KVM_CHIPS_SPLIT;
    kvm.active = make_irqchip(error);
    return kvm.active;
}

void kvm_set_gsi(unsigned gsi, bool level)
{
    struct kvm_irq_level line = {.irq = gsi, .level = level};
    kvm_vm_ioctl(KVM_IRQ_LINE, &line);
}

void kvm_send_msi(uint64_t address, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};
    kvm_vm_ioctl(KVM_SIGNAL_MSI, &msi);
}

/* ---- routes beyond the interrupt inputs ---- */

static struct kvm_irq_routing_entry *route_of(unsigned gsi)
{
    for (unsigned i = 0; i < kvm.routing->nr; i++) {
        if (kvm.routing->entries[i].gsi == gsi) {
            return &kvm.routing->entries[i];
        }
    }
    return &kvm.routing->entries[kvm.routing->nr++];
}

static void route_drop(unsigned gsi)
{
    struct kvm_irq_routing_entry *e = route_of(gsi);
    *e = kvm.routing->entries[--kvm.routing->nr];
}

static void route_set_msi(unsigned gsi, uint64_t address, uint32_t data)
{
    *route_of(gsi) =
        (struct kvm_irq_routing_entry){.gsi = gsi,
                                       .type = KVM_IRQ_ROUTING_MSI,
                                       .u.msi = {.address_lo = (uint32_t)address,
                                                 .address_hi = (uint32_t)(address >> 32),
                                                 .data = data}};
}

void kvm_route_ioapic(unsigned pin, uint64_t address, uint32_t data)
{
    g_assert(kvm.split && pin < GSI_COUNT);
    route_set_msi(pin, address, data);
    routes_commit();
}

void kvm_on_eoi(void (*eoi)(void *owner, uint8_t vector), void *owner)
{
    kvm.eoi = eoi;
    kvm.eoi_owner = owner;
}

void kvm_tell_eoi(uint8_t vector)
{
    machine_lock();
    if (kvm.eoi) {
        kvm.eoi(kvm.eoi_owner, vector);
    }
    machine_unlock();
}

int kvm_irqfd_add(int fd, uint64_t address, uint32_t data)
{
    unsigned gsi = GSI_COUNT;
    while (gsi < ROUTES_MAX && kvm.used[gsi]) {
        gsi++;
    }
    if (gsi == ROUTES_MAX) {
        return -ENOSPC;
    }
    route_set_msi(gsi, address, data);
    struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = gsi};
    int r = routes_commit();
    r = r < 0 ? r : kvm_vm_ioctl(KVM_IRQFD, &irqfd);
    if (r < 0) {
        route_drop(gsi);
        return r;
    }
    kvm.used[gsi] = true;
    return (int)gsi;
}

void kvm_irqfd_remove(int route, int fd)
{
    struct kvm_irqfd irqfd = {
        .fd = (uint32_t)fd, .gsi = (uint32_t)route, .flags = KVM_IRQFD_FLAG_DEASSIGN};
    kvm_vm_ioctl(KVM_IRQFD, &irqfd);
    kvm.used[route] = false;
    route_drop((unsigned)route);
    routes_commit();
}

int kvm_ioeventfd(uint64_t at, unsigned bytes, int fd, bool add)
{
    struct kvm_ioeventfd e = {
        .addr = at, .len = bytes, .fd = fd, .flags = add ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN};
    return kvm_vm_ioctl(KVM_IOEVENTFD, &e);
}
