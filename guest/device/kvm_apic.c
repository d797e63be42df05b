/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * kvm-apic: the local APIC that the kernel runs for one vCPU of the KVM engine, and the
 * state of a guest's own guests (nested virtualization)
 *
 * Spec: KVM API documentation, "KVM_GET_LAPIC", "KVM_GET_NESTED_STATE"; Intel SDM, volume
 * 3A, "Local APIC State After Power-Up or Reset".
 */
#include "base/bytes.h"
#include "base/util.h"
#include "guest/cpu/kvm/kvm.h"
#include "guest/device/board.h"

#include <linux/kvm.h>
#include <stdatomic.h>
#include <string.h>

enum { NESTED_BYTES = 128 + 2 * 4096 };

struct kvm_apic_device {
    struct device dev;
    uint32_t cpu;
    bool fresh; /* the rows are newer than the kernel's state */
    uint8_t lapic[KVM_APIC_REG_SIZE];
    uint8_t nested[NESTED_BYTES];
    uint64_t tsc_deadline;
    uint64_t hsave; /* where SVM keeps the hypervisor's state */
};

enum { MSR_TSC_DEADLINE = 0x6e0 };
#define MSR_VM_HSAVE 0xc0010117u

static struct kvm_apic_device *self(struct device *dev)
{
    return container_of(dev, struct kvm_apic_device, dev);
}

static void msr(struct vcpu *cpu, uint32_t index, uint64_t *value, bool set)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {.head.nmsrs = 1, .entry = {.index = index, .data = *value}};
    if (kvm_vcpu_ioctl(cpu, set ? KVM_SET_MSRS : KVM_GET_MSRS, &one) == 1) {
        *value = one.entry.data;
    }
}

static void fetch(struct device *dev)
{
    struct kvm_apic_device *k = self(dev);
    struct vcpu *cpu = vcpu_find(k->cpu);
    if (k->fresh || !cpu->priv) {
        return; /* the kernel has not seen these rows yet */
    }
    kvm_vcpu_ioctl(cpu, KVM_GET_LAPIC, k->lapic);
    msr(cpu, MSR_TSC_DEADLINE, &k->tsc_deadline, false);
    msr(cpu, MSR_VM_HSAVE, &k->hsave, false);
    memset(k->nested, 0, sizeof(k->nested));
    struct kvm_nested_state head = {.size = sizeof(k->nested)};
    memcpy(k->nested, &head, sizeof(head));
    if (kvm_vcpu_ioctl(cpu, KVM_GET_NESTED_STATE, k->nested) < 0) {
        memset(k->nested, 0, sizeof(k->nested));
    }
}

/* After a reset no guest of the guest's is left.  VMX says so by addresses of all ones. */
static void leave_nested(struct vcpu *cpu)
{
    uint8_t now[NESTED_BYTES] = {0};
    struct kvm_nested_state head = {.size = sizeof(now)};
    memcpy(now, &head, sizeof(head));
    if (kvm_vcpu_ioctl(cpu, KVM_GET_NESTED_STATE, now) < 0) {
        return;
    }
    memcpy(&head, now, sizeof(head));
    bool svm = head.format == KVM_STATE_NESTED_FORMAT_SVM;
    head.size = sizeof(head);
    head.flags = svm ? KVM_STATE_NESTED_GIF_SET : 0;
    if (!svm) {
        head.hdr.vmx.vmxon_pa = head.hdr.vmx.vmcs12_pa = UINT64_MAX;
        head.hdr.vmx.smm.flags = 0;
    }
    kvm_vcpu_ioctl(cpu, KVM_SET_NESTED_STATE, &head);
}

static void make_fresh(struct kvm_apic_device *k)
{
    if (!k->fresh) {
        k->fresh = true;
        atomic_fetch_add(&kvm_apics_due, 1);
    }
}

/* The engine's hook: the vCPU's other registers have just gone over. */
static void put(void *owner)
{
    struct kvm_apic_device *k = owner;
    struct vcpu *cpu = vcpu_find(k->cpu);
    if (!k->fresh) {
        return;
    }
    k->fresh = false;
    kvm_vcpu_ioctl(cpu, KVM_SET_LAPIC, k->lapic);
    msr(cpu, MSR_TSC_DEADLINE, &k->tsc_deadline, true);
    msr(cpu, MSR_VM_HSAVE, &k->hsave, true);
    struct kvm_nested_state head;
    memcpy(&head, k->nested, sizeof(head));
    if (!head.size) {
        leave_nested(cpu);
    } else if (head.size >= sizeof(head) && head.size <= sizeof(k->nested)) {
        kvm_vcpu_ioctl(cpu, KVM_SET_NESTED_STATE, k->nested);
    }
    atomic_fetch_sub(&kvm_apics_due, 1);
}

static bool start(struct device *dev, GError **error)
{
    struct kvm_apic_device *k = self(dev);
    if (!vcpu_find(k->cpu)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "kvm-apic: there is no CPU %u", k->cpu);
        return false;
    }
    kvm_on_push(k->cpu, put, k);
    return true;
}

static void stop(struct device *dev)
{
    struct kvm_apic_device *k = self(dev);
    kvm_on_push(k->cpu, NULL, NULL);
    if (k->fresh) {
        atomic_fetch_sub(&kvm_apics_due, 1);
    }
}

static void reg_put(struct kvm_apic_device *k, unsigned offset, uint32_t value)
{
    le32_put(k->lapic + offset, value);
}

static void reset(struct device *dev)
{
    struct kvm_apic_device *k = self(dev);
    reg_put(k, 0x20, vcpu_find(k->cpu)->apic_id << 24);
    reg_put(k, 0x30, 0x00050014);
    reg_put(k, 0xe0, UINT32_MAX);
    reg_put(k, 0xf0, 0xff);
    for (unsigned lvt = 0x320; lvt <= 0x370; lvt += 0x10) {
        reg_put(k, lvt, 0x10000);
    }
    if (k->cpu == 0) {
        reg_put(k, 0x350, 0x700); /* the boot processor takes the PIC's interrupts */
    }
    make_fresh(k);
}

static bool loaded(struct device *dev, GError **error)
{
    (void)error;
    make_fresh(self(dev));
    return true;
}

static const struct reg regs[] = {
    STATE_ARRAY(struct kvm_apic_device, lapic),
    STATE_ARRAY(struct kvm_apic_device, nested),
    STATE(struct kvm_apic_device, tsc_deadline),
    STATE(struct kvm_apic_device, hsave),
};

static const struct prop props[] = {
    {"cpu", PROP_U32, offsetof(struct kvm_apic_device, cpu), .help = "index of the vCPU"},
};

const struct device_model model_kvm_apic = {
    .name = "kvm-apic",
    .about = "the kernel's local APIC of one CPU, for the KVM engine",
    .spec = "KVM API documentation, \"KVM_GET_LAPIC\"",
    .size = sizeof(struct kvm_apic_device),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = stop,
    .reset = reset,
    .saving = fetch,
    .loaded = loaded,
};
