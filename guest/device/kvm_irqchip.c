/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * kvm-irqchip: the PIC pair, IO-APIC and PIT that the kernel runs for the KVM engine
 *
 * Spec: KVM API documentation, "KVM_GET_IRQCHIP", "KVM_GET_PIT2", "KVM_GET_CLOCK".
 *
 * The guest's accesses never come here.  This is the board's end of the interrupt inputs,
 * and the place where the kernel's state is fetched and put back.
 *
 * With kernel-irqchip=split only the local APICs are the kernel's.  Then this device stands
 * between them and the board's i8259 and ioapic: kvm_irqchip_join().
 */
#include "guest/device/kvm_irqchip.h"

#include "base/lock.h"
#include "base/util.h"
#include "guest/cpu/kvm/kvm.h"
#include "guest/device/board.h"
#include "guest/device/i8259.h"
#include "guest/device/ioapic.h"

#include <linux/kvm.h>
#include <string.h>

enum { GSI_COUNT = 24, CHIP_BYTES = 512 };

struct kvm_irqchip_device {
    struct device dev;
    bool split;
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

static void send_routed(struct board *board, void **route, uint64_t address, uint32_t data)
{
    (void)board;
    kvm_route_send((struct kvm_route **)route, address, data);
}

static void forget_route(void *route)
{
    kvm_route_free(route);
}

/* ---- split: the board's controllers and the kernel's local APICs ---- */

static struct device *pic, *ioapic; /* one machine a process */

static int acknowledge(void *owner, struct vcpu *cpu)
{
    (void)owner;
    int vector = -1;
    machine_lock();
    if (cpu->index == 0 && i8259_asks(pic)) {
        vector = i8259_acknowledge(pic);
    }
    machine_unlock();
    return vector;
}

static bool interrupt_pending(void *owner, struct vcpu *cpu)
{
    (void)owner;
    return cpu->index == 0 && pic && i8259_asks(pic);
}

const struct vcpu_board kvm_irqchip_vcpu_board = {
    .acknowledge = acknowledge,
    .interrupt_pending = interrupt_pending,
};

static void pic_asks(struct irq *irq, bool level)
{
    (void)irq;
    if (level) {
        vcpu_request(vcpu_at(0), REQ_INTR);
    }
}

static void ended(void *owner, uint8_t vector)
{
    (void)owner;
    machine_lock();
    ioapic_eoi(ioapic, vector);
    machine_unlock();
}

static void pins_changed(struct device *dev)
{
    struct kvm_message pins[GSI_COUNT];
    for (unsigned i = 0; i < GSI_COUNT; i++) {
        ioapic_message(dev, i, &pins[i].address, &pins[i].data);
    }
    kvm_pin_routes(pins, GSI_COUNT);
}

struct irq *kvm_irqchip_intr(void)
{
    static struct irq intr = {.set = pic_asks};
    return &intr;
}

void kvm_irqchip_join(struct device *the_pic, struct device *the_ioapic)
{
    pic = the_pic;
    ioapic = the_ioapic;
    kvm_on_eoi(ended, NULL);
    ioapic_on_change(ioapic, pins_changed);
}

/* ---- life ---- */

static bool start(struct device *dev, GError **error)
{
    struct kvm_irqchip_device *k = self(dev);
    if (k->split) {
        kvm_split_irqchip();
    }
    if (!kvm_open(error)) {
        return false;
    }
    kvm_doorbells_init(dev->board->memory, dev->board->ports);
    dev->board->msi = send_msi;
    dev->board->msi_routed = send_routed;
    dev->board->msi_forget = forget_route;
    dev->board->smi = send_smi;
    for (unsigned i = 0; i < GSI_COUNT && !k->split; i++) {
        k->input[i] = (struct irq){.set = set_input, .owner = k, .n = i};
        dev->board->gsi[i] = &k->input[i];
        if (i < 16) {
            dev->board->isa_irq[i] = &k->input[i];
        }
    }
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
    kvm_vm_ioctl(KVM_GET_CLOCK, &clock);
    k->clock = clock.clock;
    if (k->split) {
        return;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(chips); i++) {
        struct kvm_irqchip chip = {.chip_id = chips[i].chip};
        kvm_vm_ioctl(KVM_GET_IRQCHIP, &chip);
        memcpy((char *)k + chips[i].slot, &chip.chip, CHIP_BYTES);
    }
    kvm_vm_ioctl(KVM_GET_PIT2, k->pit);
}

static int put_back(struct kvm_irqchip_device *k)
{
    int result = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(chips) && !k->split; i++) {
        struct kvm_irqchip chip = {.chip_id = chips[i].chip};
        memcpy(&chip.chip, (char *)k + chips[i].slot, CHIP_BYTES);
        int r = kvm_vm_ioctl(KVM_SET_IRQCHIP, &chip);
        result = result < 0 ? result : r;
    }
    int r = k->split ? 0 : kvm_vm_ioctl(KVM_SET_PIT2, k->pit);
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

static const struct prop props[] = {
    {"split", PROP_BOOL, offsetof(struct kvm_irqchip_device, split),
     .help = "only the local APICs are the kernel's"},
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
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .reset = reset,
    .saving = fetch,
    .loaded = loaded,
};
