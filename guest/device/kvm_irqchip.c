/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * kvm-irqchip: the PIC pair, IO-APIC and PIT that the kernel runs for the KVM engine
 *
 * Spec: KVM API documentation, "KVM_GET_IRQCHIP", "KVM_GET_PIT2", "KVM_GET_CLOCK".
 *
 * The guest's accesses never come here.  This is the board's end of the interrupt inputs,
 * and the place where the kernel's state is fetched and put back.
 */
#include "base/util.h"
#include "guest/cpu/kvm/kvm.h"
#include "guest/device/board.h"

#include <linux/kvm.h>
#include <string.h>

enum { GSI_COUNT = 24, CHIP_BYTES = 512 };

struct kvm_irqchip_device {
    struct device dev;
    struct irq input[GSI_COUNT];
    uint8_t pic_master[CHIP_BYTES], pic_slave[CHIP_BYTES], io_apic[CHIP_BYTES];
    uint8_t pit[sizeof(struct kvm_pit_state2)];
    uint64_t clock;
};

static struct kvm_irqchip_device *self(struct device *dev)
{
    return container_of(dev, struct kvm_irqchip_device, dev);
}

static void set_input(struct irq *irq, bool level)
{
    kvm_set_gsi(irq->n, level);
}

static void send_msi(struct board *board, uint64_t address, uint32_t data)
{
    (void)board;
    kvm_send_msi(address, data);
}

static void send_smi(struct board *board)
{
    (void)board;
    for (unsigned i = 0; i < vcpu_count(); i++) {
        vcpu_request(vcpu_at(i), REQ_SMI);
    }
}

static bool start(struct device *dev, GError **error)
{
    struct kvm_irqchip_device *k = self(dev);
    if (!kvm_open(error)) {
        return false;
    }
    for (unsigned i = 0; i < GSI_COUNT; i++) {
        k->input[i] = (struct irq){.set = set_input, .owner = k, .n = i};
        dev->board->gsi[i] = &k->input[i];
        if (i < 16) {
            dev->board->isa_irq[i] = &k->input[i];
        }
    }
    dev->board->msi = send_msi;
    dev->board->smi = send_smi;
    return true;
}

static const struct {
    uint32_t chip;
    uint32_t slot;
} chips[] = {
    {KVM_IRQCHIP_PIC_MASTER, offsetof(struct kvm_irqchip_device, pic_master)},
    {KVM_IRQCHIP_PIC_SLAVE, offsetof(struct kvm_irqchip_device, pic_slave)},
    {KVM_IRQCHIP_IOAPIC, offsetof(struct kvm_irqchip_device, io_apic)},
};

static void fetch(struct device *dev)
{
    struct kvm_irqchip_device *k = self(dev);
    struct kvm_clock_data clock = {0};
    for (unsigned i = 0; i < G_N_ELEMENTS(chips); i++) {
        struct kvm_irqchip chip = {.chip_id = chips[i].chip};
        kvm_vm_ioctl(KVM_GET_IRQCHIP, &chip);
        memcpy((char *)k + chips[i].slot, &chip.chip, CHIP_BYTES);
    }
    kvm_vm_ioctl(KVM_GET_PIT2, k->pit);
    kvm_vm_ioctl(KVM_GET_CLOCK, &clock);
    k->clock = clock.clock;
}

static int put_back(struct kvm_irqchip_device *k)
{
    int result = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(chips); i++) {
        struct kvm_irqchip chip = {.chip_id = chips[i].chip};
        memcpy(&chip.chip, (char *)k + chips[i].slot, CHIP_BYTES);
        int r = kvm_vm_ioctl(KVM_SET_IRQCHIP, &chip);
        result = result < 0 ? result : r;
    }
    int r = kvm_vm_ioctl(KVM_SET_PIT2, k->pit);
    return result < 0 ? result : r;
}

/* As after power-on: redirections masked, nothing pending, counters stopped. */
static void reset(struct device *dev)
{
    struct kvm_irqchip_device *k = self(dev);
    struct kvm_ioapic_state io = {.base_address = 0xfec00000};
    struct kvm_pit_state2 pit = {0};
    memset(k->pic_master, 0, CHIP_BYTES);
    memset(k->pic_slave, 0, CHIP_BYTES);
    for (unsigned i = 0; i < GSI_COUNT; i++) {
        io.redirtbl[i].bits = 1 << 16;
    }
    for (unsigned i = 0; i < 3; i++) {
        pit.channels[i].mode = 0xff;
        pit.channels[i].gate = i != 2;
    }
    memcpy(k->io_apic, &io, sizeof(io));
    memcpy(k->pit, &pit, sizeof(pit));
    put_back(k);
}

static bool loaded(struct device *dev, GError **error)
{
    struct kvm_irqchip_device *k = self(dev);
    int r = put_back(k);
    struct kvm_clock_data clock = {.clock = k->clock};
    r = r < 0 ? r : kvm_vm_ioctl(KVM_SET_CLOCK, &clock);
    if (r < 0) {
        error_set_errno(error, -r, "the kernel refused its interrupt controllers' state");
        return false;
    }
    return true;
}

#define S(field) STATE_ARRAY(struct kvm_irqchip_device, field)
static const struct reg regs[] = {
    S(pic_master),
    S(pic_slave),
    S(io_apic),
    S(pit),
    STATE(struct kvm_irqchip_device, clock, .help = "kvmclock, nanoseconds"),
};

const struct device_model model_kvm_irqchip = {
    .name = "kvm-irqchip",
    .about = "the kernel's interrupt controllers and timer, for the KVM engine",
    .spec = "KVM API documentation, \"KVM_GET_IRQCHIP\"",
    .size = sizeof(struct kvm_irqchip_device),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .start = start,
    .reset = reset,
    .saving = fetch,
    .loaded = loaded,
};
