/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ioapic: I/O interrupt controller, 24 inputs, with EOI register.
 *
 * Spec: Intel, "82093AA I/O Advanced Programmable Interrupt Controller (IOAPIC)" data
 * sheet, "Register Description"; Intel, "I/O Controller Hub 9 (ICH9) Family Datasheet",
 * "Advanced Programmable Interrupt Controller", for the EOI register.
 * Every message leaves as the MSI that means the same.
 */
#include "guest/device/ioapic.h"

#include "base/log.h"
#include "guest/device/board.h"

enum { PINS = 24, IOAPIC_VERSION = 0x20 };
#define IOAPIC_BASE 0xfec00000u
#define MSI_BASE    0xfee00000u

/* Bits of a redirection entry. */
#define RT_VECTOR     0xffu
#define RT_MODE       0x700u
#define RT_LOGICAL    (1u << 11)
#define RT_REMOTE_IRR (1u << 14)
#define RT_LEVEL      (1u << 15)
#define RT_MASKED     (1u << 16)
#define RT_WRITABLE   UINT64_C(0xfffe00000001afff)

struct ioapic {
    struct device dev;
    struct irq input[PINS];
    uint8_t index;
    uint32_t id, lines;
    uint64_t entry[PINS];
    struct device_window window;
    void (*changed)(struct device *ioapic);
};

static struct ioapic *self(struct device *dev)
{
    return container_of(dev, struct ioapic, dev);
}

/* Bits 55-49 extend the destination to 15 bits, as in an MSI's address bits 11-5. */
void ioapic_message(const struct device *dev, unsigned n, uint64_t *address, uint32_t *data)
{
    uint64_t e = container_of(dev, const struct ioapic, dev)->entry[n];
    *address = MSI_BASE | (uint32_t)(e >> 56) << 12 | (uint32_t)(e >> 49 & 0x7f) << 5 |
               (e & RT_LOGICAL ? 4 : 0);
    uint32_t asserted = e & RT_LEVEL ? 1u << 14 : 0;
    *data = (uint32_t)(e & (RT_VECTOR | RT_MODE | RT_LEVEL)) | asserted;
}

static void send(struct ioapic *s, unsigned n)
{
    uint64_t address;
    uint32_t data;
    ioapic_message(&s->dev, n, &address, &data);
    log_line(LOG_INT, "ioapic: pin %u sends 0x%x to 0x%x", n, data, (uint32_t)address);
    if (s->dev.board->msi) {
        s->dev.board->msi(s->dev.board, address, data);
    }
}

/* A level is sent once; the EOI asks again. */
static void service_level(struct ioapic *s, unsigned n)
{
    uint64_t e = s->entry[n];
    if ((e & RT_LEVEL) && !(e & (RT_MASKED | RT_REMOTE_IRR)) && (s->lines >> n & 1)) {
        s->entry[n] |= RT_REMOTE_IRR;
        send(s, n);
    }
}

static void input_set(struct irq *irq, bool level)
{
    struct ioapic *s = irq->owner;
    uint32_t bit = 1u << irq->n, before = s->lines;
    uint64_t e = s->entry[irq->n];
    s->lines = level ? before | bit : before & ~bit;
    if (e & RT_LEVEL) {
        service_level(s, irq->n);
    } else if (level && !(before & bit) && !(e & RT_MASKED)) {
        send(s, irq->n);
    }
}

struct irq *ioapic_input(struct device *ioapic, unsigned n)
{
    return n < PINS ? &self(ioapic)->input[n] : NULL;
}

void ioapic_eoi(struct device *ioapic, uint8_t vector)
{
    struct ioapic *s = self(ioapic);
    for (unsigned n = 0; n < PINS; n++) {
        if ((s->entry[n] & RT_REMOTE_IRR) && (s->entry[n] & RT_VECTOR) == vector) {
            s->entry[n] &= ~(uint64_t)RT_REMOTE_IRR;
            service_level(s, n);
        }
    }
}

static void entry_write(struct ioapic *s, unsigned n, bool high, uint32_t value)
{
    uint64_t mask = (high ? UINT64_C(0xffffffff) << 32 : 0xffffffff) & RT_WRITABLE;
    uint64_t v = high ? (uint64_t)value << 32 : value;
    s->entry[n] = (s->entry[n] & ~mask) | (v & mask);
    if (!(s->entry[n] & RT_LEVEL)) {
        s->entry[n] &= ~(uint64_t)RT_REMOTE_IRR; /* how drivers clear a stuck one */
    }
    service_level(s, n);
}

static uint64_t data_read(struct device *dev, uint64_t stored)
{
    struct ioapic *s = self(dev);
    unsigned n = (s->index - 0x10u) / 2;
    (void)stored;
    switch (s->index) {
    case 0:
    case 2: /* arbitration id */
        return s->id;
    case 1:
        return IOAPIC_VERSION | (PINS - 1) << 16;
    default:
        return s->index >= 0x10 && n < PINS ? s->entry[n] >> (s->index & 1) * 32 & 0xffffffff : 0;
    }
}

static void data_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct ioapic *s = self(dev);
    unsigned n = (s->index - 0x10u) / 2;
    (void)old;
    if (s->index == 0) {
        s->id = (uint32_t)now & 0x0f000000;
    } else if (s->index >= 0x10 && n < PINS) {
        entry_write(s, n, s->index & 1, (uint32_t)now);
    }
}

static void eoi_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    ioapic_eoi(dev, (uint8_t)now);
}

void ioapic_on_change(struct device *dev, void (*changed)(struct device *ioapic))
{
    self(dev)->changed = changed;
    changed(dev);
}

static void settle(struct device *dev)
{
    if (self(dev)->changed) {
        self(dev)->changed(dev);
    }
}

static bool start(struct device *dev, GError **error)
{
    struct ioapic *s = self(dev);
    (void)error;
    for (unsigned i = 0; i < PINS; i++) {
        s->input[i] = (struct irq){.set = input_set, .owner = s, .n = i};
    }
    device_window_init(&s->window, dev, 0, "ioapic", PAGE_SIZE);
    device_place(&s->window, dev->board->memory, IOAPIC_BASE, 0);
    board_add_part(dev->board, "ioapic", dev);
    return true;
}

static const struct reg regs[] = {
    REG(struct ioapic, index, .port = 0, .width = 4, .dir = REG_RW, .writable = 0xff),
    REG_COMPUTED("data", .port = 0x10, .width = 4, .dir = REG_RW, .on_read = data_read,
                 .on_write = data_write),
    REG_COMPUTED("eoi", .port = 0x40, .width = 4, .dir = REG_W, .on_write = eoi_write),
    STATE(struct ioapic, id),
    STATE(struct ioapic, lines, .keep = true, .help = "inputs as they are"),
    STATE_ARRAY(struct ioapic, entry, .reset = RT_MASKED),
};

const struct device_model model_ioapic = {
    .name = "ioapic",
    .about = "I/O APIC",
    .spec = "Intel 82093AA data sheet, \"Register Description\"",
    .size = sizeof(struct ioapic),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .start = start,
    .settle = settle,
};
