/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/pci.h"
#include "host/display/display.h"

/*
 * vga - what vga.c (registers), vga_memory.c (the window at 0xa0000), vga_render.c (the
 * picture) and vga_edid.c share
 *
 * The four planes lie interleaved in .vram: byte 4 * n + p is byte n of plane p.  In this
 * layout odd/even addressing, chain-4 and the CRTC's byte, word and doubleword modes all
 * mean "counter n shows the four bytes at 4 * n", and a linear frame buffer is just .vram.
 */

/* Indexes into the register files; IBM's names. */
enum { SEQ_CLOCKING = 1, SEQ_MAP_MASK = 2, SEQ_FONTS = 3, SEQ_MEMORY = 4 };
enum { SEQ_DOT8 = 0x01, SEQ_HALF_CLOCK = 0x08, SEQ_SCREEN_OFF = 0x20, SEQ_CHAIN4 = 0x08 };
enum { GFX_SET_RESET, GFX_ENABLE_SR, GFX_COMPARE, GFX_ROTATE, GFX_READ_MAP, GFX_MODE, GFX_MISC,
       GFX_DONT_CARE, GFX_BIT_MASK };
enum { GFX_ODD_EVEN = 0x10, GFX_GRAPHICS = 0x01 };
enum { CRTC_HDISP = 1, CRTC_OVERFLOW = 7, CRTC_PRESET_ROW = 8, CRTC_MAX_SCAN = 9,
       CRTC_CURSOR_START = 10, CRTC_CURSOR_END = 11, CRTC_START_HI = 12, CRTC_START_LO = 13,
       CRTC_CURSOR_HI = 14, CRTC_CURSOR_LO = 15, CRTC_VSYNC_END = 17, CRTC_VDISP = 18,
       CRTC_OFFSET = 19, CRTC_UNDERLINE = 20, CRTC_MODE = 23, CRTC_LINE_COMPARE = 24 };
enum { ATTR_MODE = 16, ATTR_PLANES = 18, ATTR_PAN = 19, ATTR_COLOUR = 20, ATTR_PAS = 0x20 };

/* Bochs VBE registers. */
enum { VBE_ID, VBE_XRES, VBE_YRES, VBE_BPP, VBE_ENABLE, VBE_BANK, VBE_VIRT_WIDTH,
       VBE_VIRT_HEIGHT, VBE_X_OFFSET, VBE_Y_OFFSET, VBE_MEMORY_64K, VBE_REGS };
enum { VBE_ENABLED = 0x01, VBE_GETCAPS = 0x02, VBE_DAC8 = 0x20, VBE_LFB = 0x40,
       VBE_NO_CLEAR = 0x80 };
enum { VBE_MAX_X = 16000, VBE_MAX_Y = 12000 };

enum { EDID_BYTES = 128 };

/* All that the picture's layout depends on; when it changes everything is drawn anew. */
struct vga_look {
    enum { LOOK_BLANK, LOOK_TEXT, LOOK_PLANAR, LOOK_LINEAR } kind;
    unsigned width, height;     /* pixels */
    uint32_t start, pitch;      /* bytes in .vram */
    unsigned bpp;               /* LOOK_LINEAR: 8, 15, 16, 24, 32 */
    unsigned shift;             /* LOOK_PLANAR: 0 sixteen colours, 1 CGA, 2 256 colours */
    unsigned dot;               /* how wide a dot is drawn: 1 or 2 */
    unsigned pan, split;        /* dots; the scan line after which memory starts at 0 */
    bool pan_reset;             /* no panning below the split */
    unsigned scan_max, scan_double;
    uint8_t crtc_mode;
    unsigned cell_w, cell_h, columns, rows, font[2], underline;
    uint32_t colour[256];       /* palette, 0x00RRGGBB */
    uint8_t attr_mode, planes;
};

struct vga {
    struct pci_device pci; /* first */

    /* State. */
    uint8_t misc, feature, st01, seq_index, gfx_index, crtc_index, attr_index, attr_data_next;
    uint8_t dac_mask, dac_state, dac_sub, dac_read, dac_write;
    uint8_t seq[8], gfx[16], crtc[32], attr[32], dac_cache[3], palette[768];
    uint32_t latch;
    uint16_t vbe_index, vbe[VBE_REGS];

    /* Made at start. */
    bool bare;               /* set before it starts: shown by .host's BARs only, no VGA */
    struct pci_device *host; /* whose BARs show it: its own, or the adapter's that it is part of */
    struct ram *vram;
    struct device_window ports;
    struct region vbe_ports, window, lfb, mmio;
    struct placing *vbe_placing, *window_placing;
    struct display *display;
    uint8_t edid[EDID_BYTES];

    /* The picture; nothing here is state. */
    struct vga_look drawn;
    uint32_t *pixels;      /* owned; LOOK_LINEAR with 32 bits shows .vram itself */
    uint64_t *dirty;       /* a bit a page of .vram */
    uint32_t *cells;       /* what each text cell shows, see vga_render.c */
    size_t pixels_room, cells_room;
    bool fonts_written;    /* plane 2, where the glyphs are, since they were last drawn */
    bool blink_on;

    /* Properties. */
    uint32_t prop_vgamem_mb, prop_xres, prop_yres;
    bool prop_edid, prop_mmio, prop_qext;
};

static inline bool vga_vbe_on(const struct vga *s)
{
    return s->vbe[VBE_ENABLE] & VBE_ENABLED;
}

/* vga.c: for the adapter that it is part of; set .host before it starts. */
extern const struct device_model model_vga_part;
/* vga_memory.c */
extern const struct region_ops vga_window_ops;
/* vga_render.c: brings the display up to date; struct display's .refresh. */
void vga_refresh(void *adapter);
void vga_picture_free(struct vga *s);
/* vga_edid.c */
void vga_edid_make(uint8_t edid[EDID_BYTES], unsigned width, unsigned height);
