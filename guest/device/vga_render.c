/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vga_render: the picture, from registers and video memory.
 *
 * Each refresh derives struct vga_look from the registers.  If it is as before, only lines
 * (or text cells) on pages that were written are drawn.
 *
 * Spec: IBM, "VGA Subsystem", sections "CRT Controller Registers", "Attribute Controller
 * Registers", "Video Memory Organization", "Alphanumeric Modes".
 */
#include "guest/device/vga.h"

#include "base/bytes.h"
#include "guest/cpu/vcpu.h"

#include <string.h>

#define BLINK_NS (INT64_C(16) * 1000000000 / 60) /* sixteen frames on, sixteen off */
enum { LEGACY_BYTES = 256 << 10 };               /* what registers of a plain VGA can reach */
enum { FONT_BYTES = 32 * 4, FONT_PLANE = 2 };    /* a glyph: 32 rows, every fourth byte */
/* A cell of s->cells. */
enum { CELL_FONT_B = 1 << 16, CELL_CURSOR = 1 << 17, CELL_BLINKED_OUT = 1 << 18 };

/* ---- what is to be seen ---- */

static uint32_t dac_colour(const struct vga *s, unsigned i)
{
    const uint8_t *c = s->palette + (i & s->dac_mask) * 3;
    if (s->vbe[VBE_ENABLE] & VBE_DAC8) {
        return (uint32_t)c[0] << 16 | (uint32_t)c[1] << 8 | c[2];
    }
    uint32_t rgb = 0;
    for (unsigned n = 0; n < 3; n++) {
        unsigned six = c[n] & 0x3f;
        rgb = rgb << 8 | six << 2 | six >> 4;
    }
    return rgb;
}

/* Sixteen colours through the attribute controller, or 256 straight from the DAC. */
static void look_colours(const struct vga *s, struct vga_look *l, bool all)
{
    for (unsigned i = 0; i < 256 && (all || i < 16); i++) {
        unsigned v = i;
        if (!all && (s->attr[ATTR_MODE] & 0x80)) {
            v = (s->attr[ATTR_COLOUR] & 0x0fu) << 4 | (s->attr[i] & 0x0f);
        } else if (!all) {
            v = (s->attr[ATTR_COLOUR] & 0x0cu) << 4 | (s->attr[i] & 0x3f);
        }
        l->colour[i] = dac_colour(s, v);
    }
}

static unsigned visible_lines(const struct vga *s)
{
    unsigned over = s->crtc[CRTC_OVERFLOW];
    return (s->crtc[CRTC_VDISP] | (over & 0x02) << 7 | (over & 0x40) << 3) + 1u;
}

static void look_addresses(const struct vga *s, struct vga_look *l)
{
    const uint8_t *c = s->crtc;
    l->start = (uint32_t)(c[CRTC_START_HI] << 8 | c[CRTC_START_LO]) * 4 +
               (c[CRTC_PRESET_ROW] >> 5 & 3) * 4;
    l->pitch = (uint32_t)c[CRTC_OFFSET] * 8;
    l->split = c[CRTC_LINE_COMPARE] | (c[CRTC_OVERFLOW] & 0x10) << 4 | (c[CRTC_MAX_SCAN] & 0x40) << 3;
    l->pan_reset = s->attr[ATTR_MODE] & 0x20;
    l->crtc_mode = c[CRTC_MODE];
    l->scan_max = c[CRTC_MAX_SCAN] & 0x1f;
    l->scan_double = c[CRTC_MAX_SCAN] >> 7;
    l->dot = s->seq[SEQ_CLOCKING] & SEQ_HALF_CLOCK ? 2 : 1;
    l->attr_mode = s->attr[ATTR_MODE];
    l->planes = s->attr[ATTR_PLANES] & 0x0f;
}

static void look_text(const struct vga *s, struct vga_look *l)
{
    unsigned f = s->seq[SEQ_FONTS];
    look_addresses(s, l);
    look_colours(s, l, false);
    l->kind = LOOK_TEXT;
    l->cell_w = s->seq[SEQ_CLOCKING] & SEQ_DOT8 ? 8 : 9;
    l->cell_h = l->scan_max + 1;
    l->columns = s->crtc[CRTC_HDISP] + 1u;
    l->rows = MAX(visible_lines(s) / l->cell_h, 1);
    l->width = l->columns * l->cell_w * l->dot;
    l->height = l->rows * l->cell_h;
    /* Character map select: attribute bit 3 chooses map A, else map B. */
    l->font[0] = ((f >> 4 & 1) | (f << 1 & 6)) * 256 * FONT_BYTES;
    l->font[1] = ((f >> 5 & 1) | (f >> 1 & 6)) * 256 * FONT_BYTES;
    l->underline = s->crtc[CRTC_UNDERLINE] & 0x1f;
}

static void look_planar(const struct vga *s, struct vga_look *l)
{
    look_addresses(s, l);
    l->kind = LOOK_PLANAR;
    l->shift = MIN(s->gfx[GFX_MODE] >> 5 & 3, 2);
    look_colours(s, l, l->shift == 2);
    l->dot = l->shift == 2 ? 1 : l->dot;
    l->width = (s->crtc[CRTC_HDISP] + 1u) * 8 * l->dot;
    l->height = visible_lines(s);
    l->pan = s->attr[ATTR_PAN] & 7;
}

static void look_vbe(const struct vga *s, struct vga_look *l)
{
    const uint16_t *v = s->vbe;
    l->width = v[VBE_XRES];
    l->height = v[VBE_YRES];
    l->split = UINT_MAX;
    if (v[VBE_BPP] == 4) {
        l->kind = LOOK_PLANAR;
        l->pitch = v[VBE_VIRT_WIDTH] / 2;
        l->start = v[VBE_Y_OFFSET] * l->pitch + v[VBE_X_OFFSET] / 8 * 4;
        l->pan = v[VBE_X_OFFSET] & 7;
        l->dot = 1;
        l->crtc_mode = 0x43;
        l->planes = 0x0f;
        look_colours(s, l, false);
        return;
    }
    unsigned bytes = (v[VBE_BPP] + 7) / 8;
    l->kind = LOOK_LINEAR;
    l->bpp = v[VBE_BPP];
    l->pitch = v[VBE_VIRT_WIDTH] * bytes;
    l->start = v[VBE_Y_OFFSET] * l->pitch + v[VBE_X_OFFSET] * bytes;
    if (l->bpp == 8) {
        look_colours(s, l, true);
    }
}

static void look_of(const struct vga *s, struct vga_look *l)
{
    memset(l, 0, sizeof(*l));
    if (!(s->attr_index & ATTR_PAS) || (s->seq[SEQ_CLOCKING] & SEQ_SCREEN_OFF)) {
        l->width = s->drawn.width ? s->drawn.width : 720;
        l->height = s->drawn.width ? s->drawn.height : 400;
    } else if (vga_vbe_on(s)) {
        look_vbe(s, l);
    } else if (s->gfx[GFX_MISC] & GFX_GRAPHICS) {
        look_planar(s, l);
    } else {
        look_text(s, l);
    }
}

/* ---- text ---- */

static void draw_cell(const struct vga *s, const struct vga_look *l, unsigned col, unsigned row,
                      uint32_t cell)
{
    unsigned attr = cell >> 8 & 0xff, ch = cell & 0xff;
    bool blinks = l->attr_mode & 0x08, mono = l->attr_mode & 0x02;
    uint32_t fore = l->colour[attr & 15], back = l->colour[attr >> 4 & (blinks ? 7 : 15)];
    if (cell & CELL_BLINKED_OUT) {
        fore = back;
    }
    const uint8_t *glyph = s->vram->host + l->font[cell & CELL_FONT_B ? 1 : 0] + ch * FONT_BYTES +
                           FONT_PLANE;
    unsigned first = s->crtc[CRTC_CURSOR_START] & 0x1f, last = s->crtc[CRTC_CURSOR_END] & 0x1f;
    bool ninth = (l->attr_mode & 0x04) && ch >= 0xc0 && ch <= 0xdf; /* line graphics join */
    uint32_t *out = s->pixels + (size_t)row * l->cell_h * l->width + col * l->cell_w * l->dot;
    for (unsigned y = 0; y < l->cell_h; y++, out += l->width) {
        unsigned bits = (unsigned)glyph[y * 4] << 1;
        bits |= ninth ? bits >> 1 & 1 : 0;
        if (((cell & CELL_CURSOR) && y >= first && y <= last) ||
            (mono && (attr & 7) == 1 && y == l->underline)) {
            bits = 0x1ff;
        }
        for (unsigned x = 0; x < l->cell_w * l->dot; x++) {
            out[x] = bits >> (8 - x / l->dot) & 1 ? fore : back;
        }
    }
}

static uint32_t cell_now(const struct vga *s, const struct vga_look *l, uint32_t at)
{
    at &= LEGACY_BYTES - 1;
    uint32_t cell = le16_at(s->vram->host + at);
    unsigned cursor = (unsigned)(s->crtc[CRTC_CURSOR_HI] << 8 | s->crtc[CRTC_CURSOR_LO]);
    cell |= cell & 0x0800 ? 0 : CELL_FONT_B;
    if (l->font[0] == l->font[1]) {
        cell &= ~(uint32_t)CELL_FONT_B;
    }
    if (at == cursor * 4 && s->blink_on && !(s->crtc[CRTC_CURSOR_START] & 0x20)) {
        cell |= CELL_CURSOR;
    }
    if ((l->attr_mode & 0x08) && (cell & 0x8000) && !s->blink_on) {
        cell |= CELL_BLINKED_OUT;
    }
    return cell;
}

/* No cell looks like all ones: each will be drawn. */
static void forget_cells(struct vga *s, const struct vga_look *l)
{
    memset(s->cells, 0xff, (size_t)l->columns * l->rows * sizeof(*s->cells));
}

/* Draws the cells that differ from what is shown; one rectangle a row tells the viewers. */
static void draw_text(struct vga *s, const struct vga_look *l)
{
    uint32_t at = l->start;
    for (unsigned row = 0, line = 0; row < l->rows; row++, line += l->cell_h, at += l->pitch) {
        uint32_t *shown = s->cells + (size_t)row * l->columns;
        unsigned first = UINT_MAX, last = 0;
        if (line > l->split && line - l->split <= l->cell_h) {
            at = 0;
        }
        for (unsigned col = 0; col < l->columns; col++) {
            uint32_t cell = cell_now(s, l, at + col * 4);
            if (cell != shown[col]) {
                shown[col] = cell;
                draw_cell(s, l, col, row, cell);
                first = MIN(first, col);
                last = col;
            }
        }
        if (first != UINT_MAX) {
            unsigned w = l->cell_w * l->dot;
            display_changed(s->display, first * w, line, (last - first + 1) * w, l->cell_h);
        }
    }
}

/* ---- graphics ---- */

static bool line_is_dirty(const struct vga *s, uint64_t from, uint64_t bytes)
{
    uint64_t mask = (s->vram->size >> PAGE_BITS) - 1;
    uint64_t last = (from + bytes - 1) >> PAGE_BITS;
    for (uint64_t page = from >> PAGE_BITS; page <= last; page++) {
        if (s->dirty[(page & mask) / 64] >> (page & mask) % 64 & 1) {
            return true;
        }
    }
    return false;
}

/* Eight dots of the four bytes that one count of the CRTC fetches. */
static void eight_dots(const struct vga_look *l, uint32_t v, uint32_t *out)
{
    if (l->shift == 2) {
        for (unsigned i = 0; i < 8; i++) {
            out[i] = l->colour[v >> i / 2 * 8 & 0xff];
        }
        return;
    }
    for (unsigned i = 0; i < 8; i++) {
        unsigned n;
        if (l->shift == 1) { /* two bits of a plane at a time; planes 2 and 3 above them */
            unsigned at = (i & 4) * 2 + 6 - (i & 3) * 2;
            n = (v >> at & 3) | (v >> (16 + at) & 3) << 2;
        } else {
            unsigned at = 7 - i;
            n = (v >> at & 1) | (v >> (8 + at) & 1) << 1 | (v >> (16 + at) & 1) << 2 |
                (v >> (24 + at) & 1) << 3;
        }
        out[i] = l->colour[n & l->planes];
    }
}

/* @dots has room for eight more than a line. */
static void planar_line(const struct vga *s, const struct vga_look *l, uint64_t at, unsigned pan,
                        uint32_t *dots, uint32_t *out)
{
    unsigned n = l->width / l->dot;
    for (unsigned x = 0; x < n + pan; x += 8, at += 4) {
        eight_dots(l, le32_at(s->vram->host + (at & (s->vram->size - 4))), dots + x);
    }
    for (unsigned x = 0; x < l->width; x++) {
        out[x] = dots[pan + x / l->dot];
    }
}

static void linear_line(const struct vga_look *l, const uint8_t *in, uint32_t *out)
{
    for (unsigned x = 0; x < l->width; x++) {
        uint32_t v;
        switch (l->bpp) {
        case 8:
            out[x] = l->colour[in[x]];
            break;
        case 15:
            v = le16_at(in + x * 2);
            out[x] = (v << 9 & 0xf80000) | (v << 4 & 0x070000) | (v << 6 & 0xf800) |
                     (v << 1 & 0x0700) | (v << 3 & 0xf8) | (v >> 2 & 7);
            break;
        case 16:
            v = le16_at(in + x * 2);
            out[x] = (v << 8 & 0xf80000) | (v << 3 & 0x070000) | (v << 5 & 0xfc00) |
                     (v >> 1 & 0x0300) | (v << 3 & 0xf8) | (v >> 2 & 7);
            break;
        default:
            out[x] = in[x * 3] | (uint32_t)in[x * 3 + 1] << 8 | (uint32_t)in[x * 3 + 2] << 16;
            break;
        }
    }
}

/* Where the scan lines of a planar mode lie: row scan counter and memory counter. */
struct beam {
    uint64_t row_at;
    unsigned scan;
    bool again; /* this line a second time */
};

static uint64_t beam_address(const struct vga_look *l, const struct beam *b)
{
    uint64_t at = b->row_at;
    unsigned bit = 14 + (l->crtc_mode >> 6 & 1); /* CGA and Hercules banks, by scan line */
    if (!(l->crtc_mode & 1)) {
        at = (at & ~(UINT64_C(1) << bit)) | (uint64_t)(b->scan & 1) << bit;
    }
    if (!(l->crtc_mode & 2)) {
        at = (at & ~(UINT64_C(2) << bit)) | (uint64_t)(b->scan >> 1 & 1) << (bit + 1);
    }
    return at;
}

static void beam_next(const struct vga_look *l, struct beam *b)
{
    if (l->scan_double && !b->again) {
        b->again = true;
        return;
    }
    b->again = false;
    if (b->scan == l->scan_max) {
        b->scan = 0;
        b->row_at += l->pitch;
    } else {
        b->scan++;
    }
}

/* Draws line @y if it has to be; returns whether it did. */
static bool draw_line(struct vga *s, const struct vga_look *l, struct beam *b, unsigned y, bool full)
{
    uint32_t *out = s->pixels + (size_t)y * l->width;
    if (l->kind == LOOK_LINEAR) {
        uint64_t at = l->start + (uint64_t)y * l->pitch;
        if (!full && !line_is_dirty(s, at, (uint64_t)l->width * ((l->bpp + 7) / 8))) {
            return false;
        }
        if (l->bpp != 32) {
            linear_line(l, s->vram->host + at, out);
        }
        return true;
    }
    uint64_t at = beam_address(l, b);
    unsigned pan = y > l->split && l->pan_reset ? 0 : l->pan;
    beam_next(l, b);
    if (y == l->split) {
        *b = (struct beam){0};
    }
    if (!full && !line_is_dirty(s, at, l->width / l->dot / 2 + 8)) {
        return false;
    }
    planar_line(s, l, at, pan, s->pixels + (size_t)l->height * l->width, out);
    return true;
}

static void draw_lines(struct vga *s, const struct vga_look *l, bool full)
{
    struct beam beam = {.row_at = l->start};
    unsigned first = 0, n = 0;
    for (unsigned y = 0; y < l->height; y++) {
        if (draw_line(s, l, &beam, y, full)) {
            first = n++ ? first : y;
        } else if (n) {
            display_changed(s->display, 0, first, l->width, n);
            n = 0;
        }
    }
    if (n) {
        display_changed(s->display, 0, first, l->width, n);
    }
}

/* ---- refresh ---- */

/* Makes *@p hold @n elements; false, with *@p as it was, if there is no memory. */
static bool make_room(uint32_t **p, size_t *room, size_t n)
{
    if (*room >= n) {
        return true;
    }
    uint32_t *more = g_try_malloc_n(n, sizeof(*more));
    if (!more) {
        return false;
    }
    g_free(*p);
    *p = more;
    *room = n;
    return true;
}

/* The screen has another size, place or layout. */
static bool set_up(struct vga *s, const struct vga_look *l)
{
    struct display *d = s->display;
    size_t n = (size_t)l->width * l->height;
    uint32_t *shown;
    unsigned stride = l->width * 4;
    if (l->kind == LOOK_LINEAR && l->bpp == 32) {
        shown = (uint32_t *)(void *)(s->vram->host + l->start);
        stride = l->pitch;
    } else {
        /* A scratch line follows the picture. */
        if (d->pixels && d->pixels == s->pixels && s->pixels_room < n + l->width + 16) {
            display_resize(d, NULL, 0, 0, 0); /* its memory is about to go */
        }
        if (!make_room(&s->pixels, &s->pixels_room, n + l->width + 16)) {
            return false;
        }
        shown = s->pixels;
    }
    if (l->kind == LOOK_TEXT) {
        if (!make_room(&s->cells, &s->cells_room, (size_t)l->columns * l->rows)) {
            return false;
        }
        forget_cells(s, l);
    } else if (l->kind == LOOK_BLANK) {
        memset(s->pixels, 0, n * sizeof(*s->pixels));
    }
    if (d->pixels != shown || d->width != l->width || d->height != l->height ||
        d->stride != stride) {
        display_resize(d, shown, l->width, l->height, stride);
    }
    return true;
}

/* Marks what the picture shows as clean and has writes to it noticed from now on. */
static bool collect(struct vga *s, const struct vga_look *l)
{
    uint64_t from = 0, bytes = MIN(s->vram->size, LEGACY_BYTES);
    if (vga_vbe_on(s)) {
        from = l->start & PAGE_MASK;
        bytes = MIN((uint64_t)l->pitch * l->height + (l->start - from) + PAGE_SIZE,
                    s->vram->size - from);
    }
    /* The bitmap of the range starts at its first page: make that a multiple of 64. */
    uint64_t slack = from >> PAGE_BITS & 63;
    from -= slack << PAGE_BITS;
    bytes += slack << PAGE_BITS;
    bool any = ram_collect_dirty(s->vram, from, bytes, PAGE_CLEAN_VGA,
                                 s->dirty + (from >> PAGE_BITS) / 64);
    if (any) {
        vcpus_flush_tlb();
    }
    return any;
}

void vga_refresh(void *adapter)
{
    struct vga *s = adapter;
    struct vga_look look;
    look_of(s, &look);
    bool anew = memcmp(&look, &s->drawn, sizeof(look)) != 0;
    s->blink_on = !(clock_now() / BLINK_NS & 1);
    if (anew && !set_up(s, &look)) {
        return; /* no memory: the old picture stays */
    }
    s->drawn = look;
    if (look.kind == LOOK_BLANK) {
        if (anew) {
            display_changed(s->display, 0, 0, look.width, look.height);
        }
        return;
    }
    bool dirty = collect(s, &look);
    if (look.kind == LOOK_TEXT) {
        if (s->fonts_written) {
            forget_cells(s, &look);
            s->fonts_written = false;
        }
        draw_text(s, &look);
    } else if (anew || dirty) {
        draw_lines(s, &look, anew);
    }
}

void vga_picture_free(struct vga *s)
{
    g_clear_pointer(&s->pixels, g_free);
    g_clear_pointer(&s->cells, g_free);
}
