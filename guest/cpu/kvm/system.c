/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * system - /dev/kvm, the VM, its interrupt inputs
 *
 * Spec: KVM API documentation, "KVM_CREATE_VM", "KVM_CREATE_IRQCHIP", "KVM_IRQ_LINE",
 * "KVM_SIGNAL_MSI", "KVM_SET_GSI_ROUTING".
 */
#include "guest/cpu/kvm/kvm.h"

#include "base/util.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

enum { GSI_COUNT = 24 };

static struct {
    int dev, vm;
    bool active;
    struct kvm_irq_routing *routing;
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

static bool make_irqchip(GError **error)
{
    kvm.routing = g_malloc0(sizeof(*kvm.routing) + (2 * GSI_COUNT) * sizeof(struct kvm_irq_routing_entry));
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    int r = kvm_vm_ioctl(KVM_CREATE_IRQCHIP, NULL);
    r = r < 0 ? r : kvm_vm_ioctl(KVM_CREATE_PIT2, &pit);
    for (unsigned gsi = 0; gsi < GSI_COUNT; gsi++) {
        route_default(gsi);
    }
    r = r < 0 ? r : kvm_vm_ioctl(KVM_SET_GSI_ROUTING, kvm.routing);
    if (r < 0) {
        error_set_errno(error, -r, "KVM: interrupt controllers");
        return false;
    }
    return true;
}

bool kvm_open(GError **error)
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
