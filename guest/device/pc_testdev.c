/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pc_testdev: ports, memory and interrupt lines that test kernels play with.
 *
 * Spec: QEMU's `-device pc-testdev` as kvm-unit-tests use it (x86/emulator.c, x86/ioapic.c,
 * x86/eventinj.c): E0h is a 32-bit latch, E4h flushes, E8h is a latch in bytes, 2000h + n
 * drives input n of the I/O APIC, 64 KiB at ff000000h are memory behind an I/O handler.
 */
#include "guest/cpu/vcpu.h"
#include "guest/device/board.h"

enum { LINES = 24, MEMORY_BYTES = 0x10000 };
enum { WINDOW_LATCH, WINDOW_FLUSH, WINDOW_BYTES };
#define MEMORY_AT 0xff000000u

struct pc_testdev {
    struct device dev;
    uint32_t latch;
    uint32_t bytes;
    uint8_t line[LINES];
    uint8_t memory[MEMORY_BYTES];
    struct irq *irq[LINES];
    struct device_window window[3];
    struct region lines, mmio;
    struct placing *lines_placing, *mmio_placing;
};

static struct pc_testdev *self(struct device *dev)
{
    return container_of(dev, struct pc_testdev, dev);
}

static void settle(struct device *dev)
{
    struct pc_testdev *s = self(dev);
    for (unsigned i = 0; i < LINES; i++) {
        irq_set(s->irq[i], s->line[i]);
    }
}

static void flush_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)dev, (void)old, (void)now;
    vcpus_flush_tlb();
}

static void lines_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct pc_testdev *s = owner;
    (void)bytes;
    s->line[at] = value != 0;
    settle(&s->dev);
}

static uint64_t mmio_read(void *owner, uint64_t at, unsigned bytes)
{
    struct pc_testdev *s = owner;
    uint64_t v = 0;
    memcpy(&v, s->memory + at, bytes);
    return v;
}

static void mmio_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct pc_testdev *s = owner;
    memcpy(s->memory + at, &value, bytes);
}

static bool start(struct device *dev, GError **error)
{
    static const struct region_ops line_ops = {.write = lines_write, .max_bytes = 1};
    static const struct region_ops mmio_ops = {
        .read = mmio_read, .write = mmio_write, .unaligned = true};
    static const uint16_t at[] = {0xe0, 0xe4, 0xe8};
    static const char *const names[] = {"testdev-latch", "testdev-flush", "testdev-bytes"};
    struct pc_testdev *s = self(dev);
    if (!board_ports_free(dev->board, at[0], 12, error)) {
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(at); i++) {
        device_window_init(&s->window[i], dev, i, names[i], 4);
        device_place(&s->window[i], dev->board->ports, at[i], 0);
    }
    for (unsigned i = 0; i < LINES; i++) {
        s->irq[i] = device_irq(dev, dev->board->gsi[i]);
    }
    s->lines = (struct region){.name = "testdev-irq", .size = LINES, .ops = &line_ops, .owner = s};
    s->mmio = (struct region){
        .name = "testdev-memory", .size = MEMORY_BYTES, .ops = &mmio_ops, .owner = s};
    s->lines_placing = space_place(dev->board->ports, &s->lines, 0x2000, 0);
    s->mmio_placing = space_place(dev->board->memory, &s->mmio, MEMORY_AT, 0);
    return true;
}

static void stop(struct device *dev)
{
    space_remove(self(dev)->lines_placing);
    space_remove(self(dev)->mmio_placing);
}

static const struct reg regs[] = {
    REG(struct pc_testdev, latch, .window = WINDOW_LATCH, .port = 0, .dir = REG_RW,
        .writable = 0xffffffff),
    REG_COMPUTED("flush", .window = WINDOW_FLUSH, .port = 0, .width = 4, .dir = REG_W,
                 .on_write = flush_write),
    REG(struct pc_testdev, bytes, .window = WINDOW_BYTES, .port = 0, .dir = REG_RW,
        .writable = 0xffffffff),
    STATE_ARRAY(struct pc_testdev, line),
    STATE_ARRAY(struct pc_testdev, memory, .keep = true),
};

const struct device_model model_pc_testdev = {
    .name = "pc-testdev",
    .about = "ports and memory for test kernels",
    .spec = "QEMU, pc-testdev",
    .size = sizeof(struct pc_testdev),
    .version = 1,
    .bus = BUS_ISA,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .start = start,
    .stop = stop,
    .settle = settle,
};
