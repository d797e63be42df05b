/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pci_host: configuration mechanism #1, reset control register, shadow RAM.
 *
 * Spec: PCI Local Bus Specification 3.0, "Configuration Mechanism"; Intel 82371SB (PIIX3)
 * data sheet, "Reset Control Register"; Intel 82441FX (PMC) data sheet, "Programmable
 * Attribute Map Registers", "System Management RAM Control Register".
 */
#include "guest/device/pci_host.h"

enum { CONFIG_ENABLE_SHIFT = 31, RESET_HARD = 2, RESET_GO = 4 };
enum { SHADOW_PRIORITY = 2, SMRAM_PRIORITY = 8, TSEG_PRIORITY = 4 };

static void reset_control(struct pci_host *h, uint8_t value)
{
    h->reset_control = value & RESET_HARD;
    if ((value & RESET_GO) && h->board->request) {
        h->board->request(h->board, BOARD_RESET, 0);
    }
}

static uint64_t host_read(void *owner, uint64_t at, unsigned bytes)
{
    struct pci_host *h = owner;
    if (at >= 4) {
        uint32_t a = h->address;
        unsigned reg = (a & 0xfc) + (unsigned)(at & 3);
        return a >> CONFIG_ENABLE_SHIFT
                   ? pci_config_read(&h->bus, a >> 16 & 0xff, a >> 8 & 0xff, reg, bytes)
                   : UINT32_MAX;
    }
    if (at == 1 && bytes == 1) {
        return h->reset_control;
    }
    return h->address >> at * 8;
}

static void host_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct pci_host *h = owner;
    if (at >= 4) {
        uint32_t a = h->address;
        unsigned reg = (a & 0xfc) + (unsigned)(at & 3);
        if (a >> CONFIG_ENABLE_SHIFT) {
            pci_config_write(&h->bus, a >> 16 & 0xff, a >> 8 & 0xff, reg, (uint32_t)value, bytes);
        }
    } else if (at == 1 && bytes == 1) {
        reset_control(h, (uint8_t)value);
    } else if (bytes == 4) { /* narrower writes pass through to other devices: there are none */
        h->address = (uint32_t)value & ~UINT32_C(0x7f000003);
    }
}

static const struct region_ops host_ops = {.read = host_read, .write = host_write, .max_bytes = 4};

void pci_host_init(struct pci_host *h, struct board *board, const char *name, bool express)
{
    h->board = board;
    pci_bus_init(&h->bus, board, name, express);
    board->pci = &h->bus;
    h->ports = (struct region){.name = "pci-config", .size = 8, .ops = &host_ops, .owner = h};
    space_place(board->ports, &h->ports, 0xcf8, 1);
}

/* ---- shadow RAM ---- */

static void shadow_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct shadow_segment *seg = owner;
    memcpy(seg->host + at, &value, bytes);
    ram_note_write(seg->host + at, bytes);
}

static uint64_t nothing_read(void *owner, uint64_t at, unsigned bytes)
{
    (void)owner, (void)at, (void)bytes;
    return UINT64_MAX;
}

static const struct region_ops shadow_ops = {.read = nothing_read, .write = shadow_write};
static const struct region_ops hole_ops = {.read = nothing_read};

static struct placing *place_hidden(struct space *s, struct region *r, uint64_t at, int priority)
{
    struct placing *p = space_place(s, r, at, priority);
    space_show(p, false);
    return p;
}

/* Twelve of 16 KiB from 0xc0000 on, then the 64 KiB at 0xf0000. */
static void segment_init(struct shadow_segment *seg, unsigned n, struct space *memory,
                         struct ram *ram, struct ram *bios)
{
    uint64_t at = 0xc0000 + n * UINT64_C(0x4000), size = n < 12 ? 0x4000 : 0x10000;
    uint64_t from_end = 0x100000 - at;
    seg->host = ram->host + at;
    seg->rw = (struct region){.name = "shadow", .size = size, .ram = ram, .ram_at = at};
    seg->ro = seg->rw;
    seg->ro.name = "shadow-ro";
    seg->ro.read_only = true;
    seg->wo = (struct region){
        .name = "shadow-wo", .size = size, .ops = &shadow_ops, .owner = seg, .read_only = true};
    if (bios && from_end <= bios->size) {
        seg->wo.ram = bios;
        seg->wo.ram_at = bios->size - from_end;
    }
    seg->placed_rw = place_hidden(memory, &seg->rw, at, SHADOW_PRIORITY);
    seg->placed_ro = place_hidden(memory, &seg->ro, at, SHADOW_PRIORITY);
    seg->placed_wo = place_hidden(memory, &seg->wo, at, SHADOW_PRIORITY);
}

void shadow_init(struct shadow *s, struct board *board)
{
    struct ram *ram = ram_find("pc.ram"), *bios = ram_find("isa-bios");
    if (!ram) {
        return; /* a board without RAM of its own: tests */
    }
    space_begin(board->memory);
    for (unsigned n = 0; n < SHADOW_SEGMENTS; n++) {
        segment_init(&s->segment[n], n, board->memory, ram, bios);
    }
    s->smram = (struct region){.name = "smram", .size = 0x20000, .ram = ram, .ram_at = 0xa0000};
    s->smram_open = place_hidden(board->memory, &s->smram, 0xa0000, SMRAM_PRIORITY);
    s->smram_smm = place_hidden(board->memory_smm, &s->smram, 0xa0000, SMRAM_PRIORITY);
    space_commit(board->memory);
}

void shadow_pam(struct shadow *s, const uint8_t *pam)
{
    if (!s->segment[0].placed_rw) {
        return;
    }
    for (unsigned n = 0; n < SHADOW_SEGMENTS; n++) {
        const struct shadow_segment *seg = &s->segment[n];
        unsigned bits = n < 12 ? pam[1 + n / 2] >> n % 2 * 4 & 3 : pam[0] >> 4 & 3;
        space_show(seg->placed_rw, bits == 3);
        space_show(seg->placed_ro, bits == 1);
        space_show(seg->placed_wo, bits == 2);
    }
}

void shadow_smram(struct shadow *s, uint8_t control)
{
    if (s->smram_open) {
        bool on = control & SMRAM_ENABLE;
        space_show(s->smram_open, on && (control & SMRAM_OPEN));
        space_show(s->smram_smm, on);
    }
}

static void tseg_remove(struct shadow *s)
{
    space_remove(s->tseg_smm);
    space_remove(s->tseg_hidden);
    s->tseg_smm = s->tseg_hidden = NULL;
    s->tseg_bytes = 0;
}

void shadow_tseg(struct shadow *s, struct board *board, uint64_t bytes, bool open)
{
    struct ram *ram = ram_find("pc.ram");
    uint64_t top = MIN(board->ram_below_4g, ram ? ram->size : 0);
    if (bytes != s->tseg_bytes) {
        tseg_remove(s);
    }
    if (bytes && bytes < top && !s->tseg_smm) {
        s->tseg = (struct region){.name = "tseg", .size = bytes, .ram = ram, .ram_at = top - bytes};
        s->tseg_hole = (struct region){.name = "tseg-hole", .size = bytes, .ops = &hole_ops};
        s->tseg_smm = space_place(board->memory_smm, &s->tseg, top - bytes, TSEG_PRIORITY);
        s->tseg_hidden = space_place(board->memory, &s->tseg_hole, top - bytes, TSEG_PRIORITY);
        s->tseg_bytes = bytes;
    }
    if (s->tseg_hidden) {
        space_show(s->tseg_hidden, !open);
    }
}
