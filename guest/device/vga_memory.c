/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vga_memory: the window at 0xa0000 with its planes, latches and write modes.
 *
 * Spec: IBM, "VGA Subsystem" in the Personal System/2 Hardware Interface Technical
 * Reference - Video Subsystems, sections "Graphics Controller Registers", "Map Mask
 * Register", "Memory Mode Register".
 */
#include "guest/device/vga.h"

#include "base/bytes.h"

/* Where the window begins behind 0xa0000 and how long it is: Miscellaneous, bits 3-2. */
static const struct {
    uint32_t at, bytes;
} maps[4] = {{0, 0x20000}, {0, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}};

/* Each of the low four bits as a byte of ones. */
static uint32_t spread(unsigned planes)
{
    return ((planes & 1) | (planes & 2) << 7 | (planes & 4) << 14 | (planes & 8) << 21) * 0xffu;
}

/* False if the window does not decode @at; else *@at is in the window, banks added. */
static bool decode(const struct vga *s, uint64_t *at)
{
    unsigned map = s->gfx[GFX_MISC] >> 2 & 3;
    if (*at < maps[map].at || *at - maps[map].at >= maps[map].bytes) {
        return false;
    }
    *at -= maps[map].at;
    if (vga_vbe_on(s)) {
        *at += (uint64_t)s->vbe[VBE_BANK] << 16;
    }
    return true;
}

/* Byte in .vram of an odd/even access: the low address bit picks the plane. */
static uint64_t odd_even(const struct vga *s, uint64_t at)
{
    return (at & ~UINT64_C(1)) << 1 | (s->gfx[GFX_READ_MAP] & 2) | (at & 1);
}

static uint8_t read_byte(struct vga *s, uint64_t at)
{
    const uint8_t *vram = s->vram->host;
    if (!decode(s, &at)) {
        return 0xff;
    }
    if (s->seq[SEQ_MEMORY] & SEQ_CHAIN4) {
        return at < s->vram->size ? vram[at] : 0xff;
    }
    if (s->gfx[GFX_MODE] & GFX_ODD_EVEN) {
        at = odd_even(s, at);
        return at < s->vram->size ? vram[at] : 0xff;
    }
    if (at >= s->vram->size / 4) {
        return 0xff;
    }
    s->latch = le32_at(vram + at * 4);
    if (!(s->gfx[GFX_MODE] & 0x08)) {
        return (uint8_t)(s->latch >> (s->gfx[GFX_READ_MAP] & 3) * 8);
    }
    uint32_t differs = (s->latch ^ spread(s->gfx[GFX_COMPARE])) & spread(s->gfx[GFX_DONT_CARE]);
    differs |= differs >> 16;
    return (uint8_t)~(differs | differs >> 8);
}

/* "Data Rotate": function select. */
static uint32_t combine(const struct vga *s, uint32_t v)
{
    switch (s->gfx[GFX_ROTATE] >> 3 & 3) {
    case 1:
        return v & s->latch;
    case 2:
        return v | s->latch;
    case 3:
        return v ^ s->latch;
    default:
        return v;
    }
}

/* The four bytes that a write of @value in the current write mode makes. */
static uint32_t planar_value(const struct vga *s, uint8_t value)
{
    unsigned turn = s->gfx[GFX_ROTATE] & 7;
    uint8_t turned = (uint8_t)(value >> turn | value << (8 - turn)), mask = s->gfx[GFX_BIT_MASK];
    uint32_t v, set = spread(s->gfx[GFX_SET_RESET]), enable;
    switch (s->gfx[GFX_MODE] & 3) {
    case 0:
        enable = spread(s->gfx[GFX_ENABLE_SR]);
        v = combine(s, (turned * 0x01010101u & ~enable) | (set & enable));
        break;
    case 1:
        return s->latch;
    case 2:
        v = combine(s, spread(value));
        break;
    default:
        mask &= turned;
        v = set;
        break;
    }
    uint32_t bits = mask * 0x01010101u;
    return (v & bits) | (s->latch & ~bits);
}

static void write_byte(struct vga *s, uint64_t at, uint8_t value)
{
    uint8_t *vram = s->vram->host, planes = s->seq[SEQ_MAP_MASK];
    if (!decode(s, &at)) {
        return;
    }
    bool chain4 = s->seq[SEQ_MEMORY] & SEQ_CHAIN4;
    if (chain4 || (s->gfx[GFX_MODE] & GFX_ODD_EVEN)) {
        at = chain4 ? at : odd_even(s, at);
        if (at < s->vram->size && (planes >> (at & 3) & 1)) {
            vram[at] = value;
            ram_note_write(vram + at, 1);
        }
        return;
    }
    if (at >= s->vram->size / 4) {
        return;
    }
    s->fonts_written |= planes & 4;
    uint32_t mask = spread(planes), old = le32_at(vram + at * 4);
    le32_put(vram + at * 4, (planar_value(s, value) & mask) | (old & ~mask));
    ram_note_write(vram + at * 4, 4);
}

static uint64_t window_read(void *owner, uint64_t at, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++) {
        v |= (uint64_t)read_byte(owner, at + i) << i * 8;
    }
    return v;
}

static void window_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        write_byte(owner, at + i, (uint8_t)(value >> i * 8));
    }
}

const struct region_ops vga_window_ops = {
    .read = window_read, .write = window_write, .unaligned = true};
