/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vga_text: puts the screen into text mode as its BIOS would, for kernels that start without
 * firmware and expect to find it so.
 *
 * Spec: IBM VGA Technical Reference, "Video Subsystem", "VGA Programming Considerations"; the
 * values are those of BIOS mode 3 with 16-line characters.
 */
#include "guest/device/pci.h"
#include "guest/machine/pc.h"

#include <string.h>

enum {
    MISC = 0x3c2,
    SEQ = 0x3c4,
    DAC_INDEX = 0x3c8,
    DAC = 0x3c9,
    GFX = 0x3ce,
    CRTC = 0x3d4,
    ATTR = 0x3c0,
    ATTR_RESET = 0x3da
};
enum {
    FONT_AT = 0xa0000,
    TEXT_AT = 0xb8000,
    TEXT_CELLS = 80 * 25,
    GLYPHS = 256,
    GLYPH_ROWS = 16,
    GLYPH_STEP = 32,
    BLANK = 0x0720
};

static const uint8_t seq[] = {0x03, 0x00, 0x03, 0x00, 0x02};
static const uint8_t crtc[] = {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00,
                               0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x0e,
                               0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff};
static const uint8_t gfx[] = {0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff};
static const uint8_t attr[] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
                               0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00};

static void out(struct machine *m, unsigned port, unsigned value)
{
    space_store(m->board->ports, port, value, 1);
}

static void indexed(struct machine *m, unsigned port, unsigned index, unsigned value)
{
    out(m, port, index);
    out(m, port + 1, value);
}

static void table(struct machine *m, unsigned port, const uint8_t *values, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        indexed(m, port, i, values[i]);
    }
}

/* Six bits say a colour: strong red, green, blue, then weak ones. */
static void colours(struct machine *m)
{
    out(m, 0x3c6, 0xff);
    out(m, DAC_INDEX, 0);
    for (unsigned i = 0; i < 64; i++) {
        for (unsigned c = 0; c < 3; c++) {
            out(m, DAC, (i >> (2 - c) & 1) * 0x2a + (i >> (5 - c) & 1) * 0x15);
        }
    }
}

/* The screen's own BIOS has the characters: number 0 is empty, number 1 a face. */
static const uint8_t *find_font(const struct ram *rom)
{
    static const uint8_t face[GLYPH_ROWS] = {0,    0,    0x7e, 0x81, 0xa5, 0x81,
                                             0x81, 0xbd, 0x99, 0x81, 0x81, 0x7e};
    if (!rom || rom->size < (GLYPHS + 1) * GLYPH_ROWS) {
        return NULL;
    }
    for (uint64_t at = GLYPH_ROWS; at + (GLYPHS - 1) * GLYPH_ROWS <= rom->size; at++) {
        if (memcmp(rom->host + at, face, sizeof(face)) == 0) {
            return rom->host + at - GLYPH_ROWS;
        }
    }
    return NULL;
}

/* Characters live in plane 2, which shows at 0xa0000 for the time being. */
static void load_font(struct machine *m, const uint8_t *font)
{
    indexed(m, SEQ, 2, 0x04);
    indexed(m, SEQ, 4, 0x06);
    indexed(m, GFX, 5, 0x00);
    indexed(m, GFX, 6, 0x04);
    for (unsigned i = 0; i < GLYPHS; i++) {
        space_write(m->board->memory, FONT_AT + i * GLYPH_STEP, font + i * GLYPH_ROWS, GLYPH_ROWS);
    }
    indexed(m, SEQ, 2, seq[2]);
    indexed(m, SEQ, 4, seq[4]);
    indexed(m, GFX, 5, gfx[5]);
    indexed(m, GFX, 6, gfx[6]);
}

static struct pci_device *screen(struct machine *m)
{
    for (struct device *dev = m->board->devices; dev; dev = dev->next) {
        if (g_str_equal(dev->model->name, "VGA") || g_str_equal(dev->model->name, "virtio-vga")) {
            return (struct pci_device *)dev;
        }
    }
    return NULL;
}

bool vga_text_mode(struct machine *m)
{
    struct pci_device *vga = screen(m);
    const uint8_t *font = vga ? find_font(vga->rom) : NULL;
    if (!font) {
        return false;
    }
    out(m, MISC, 0x67);
    table(m, SEQ, seq, sizeof(seq));
    indexed(m, CRTC, 0x11, 0x00); /* registers 0 to 7 may be written */
    table(m, CRTC, crtc, sizeof(crtc));
    table(m, GFX, gfx, sizeof(gfx));
    space_load(m->board->ports, ATTR_RESET, 1);
    for (unsigned i = 0; i < sizeof(attr); i++) {
        out(m, ATTR, i);
        out(m, ATTR, attr[i]);
    }
    out(m, ATTR, 0x20); /* the picture on */
    colours(m);
    load_font(m, font);
    for (unsigned i = 0; i < TEXT_CELLS; i++) {
        space_store(m->board->memory, TEXT_AT + 2 * i, BLANK, 2);
    }
    return true;
}
