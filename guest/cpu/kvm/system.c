/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * system - /dev/kvm, the VM, its interrupt controllers
 *
 * Spec: KVM API documentation, "KVM_CREATE_VM", "KVM_CREATE_IRQCHIP", "KVM_CREATE_PIT2",
 * "KVM_CAP_SPLIT_IRQCHIP".
 */
#include "guest/cpu/kvm/kvm.h"

#include "base/util.h"
#include "guest/cpu/debug.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

enum { IOAPIC_PINS = 24 };

static struct {
    int dev, vm;
    bool active, split;
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

void kvm_split_irqchip(void)
{
    kvm.split = true;
}

bool kvm_is_split(void)
{
    return kvm.split;
}

static int make_chips(void)
{
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {IOAPIC_PINS}};
    if (kvm.split) {
        return kvm_vm_ioctl(KVM_ENABLE_CAP, &split);
    }
    int r = kvm_vm_ioctl(KVM_CREATE_IRQCHIP, NULL);
    return r < 0 ? r : kvm_vm_ioctl(KVM_CREATE_PIT2, &pit);
}

static bool make_irqchip(GError **error)
{
    if (kvm.split && !kvm_has(KVM_CAP_SPLIT_IRQCHIP)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "/dev/kvm: this kernel cannot do kernel-irqchip=split");
        return false;
    }
    int r = make_chips();
    r = r < 0 ? r : kvm_routes_init(kvm.split);
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
    debug_in_hardware(DEBUG_REGISTERS);
    kvm.active = make_irqchip(error);
    return kvm.active;
}
