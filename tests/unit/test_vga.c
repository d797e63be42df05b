/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/test.h"

#include "base/bytes.h"
#include "guest/device/vga.h"

#include <string.h>

static struct board *board;
static struct pci_bus bus;
static struct display *display;
static struct vga *vga;
static struct display_viewer viewer;
static unsigned n_changed, n_resized, last_x, last_y, last_w, last_h;

static void seen_changed(struct display_viewer *v, unsigned x, unsigned y, unsigned w, unsigned h)
{
    (void)v;
    n_changed++;
    last_x = x, last_y = y, last_w = w, last_h = h;
}

static void seen_resized(struct display_viewer *v)
{
    (void)v;
    n_resized++;
}

static int plug(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    board = board_new();
    memset(&bus, 0, sizeof(bus));
    pci_bus_init(&bus, board, "pci.0", false);
    board->pci = &bus;
    board->display = display = display_new();
    viewer = (struct display_viewer){.resized = seen_resized, .changed = seen_changed};
    display_add_viewer(display, &viewer);
    struct device *dev = device_new(device_model_find("VGA"));
    assert_works(device_start(dev, board, NULL, &error), error);
    vga = (struct vga *)dev;
    n_changed = n_resized = 0;
    return 0;
}

static int unplug(void **state)
{
    (void)state;
    display_remove_viewer(display, &viewer);
    board_free(board);
    g_free(display);
    return 0;
}

static void out(uint16_t port, unsigned v)
{
    space_store(board->ports, port, v, 1);
}

static uint8_t in(uint16_t port)
{
    return (uint8_t)space_load(board->ports, port, 1);
}

static void out_index(uint16_t port, unsigned i, unsigned v)
{
    space_store(board->ports, port, i | v << 8, 2); /* one outw, as all drivers do */
}

static void out_attr(unsigned i, unsigned v)
{
    in(0x3da);
    out(0x3c0, i);
    out(0x3c0, v);
}

static void colour(unsigned i, unsigned r, unsigned g, unsigned b)
{
    out(0x3c8, i);
    out(0x3c9, r);
    out(0x3c9, g);
    out(0x3c9, b);
}

/* Register values of a BIOS mode: what matters to the picture. */
struct mode {
    uint8_t misc, seq[4], gfx[6], attr_mode, hdisp, vdisp, overflow, max_scan, offset, crtc_mode;
};
static const struct mode text80 = {0x67, {0x00, 0x03, 0x00, 0x02}, {0, 0, 0, 0, 0, 0x10}, 0x0c,
                                   79, 0x8f, 0x1f, 0x4f, 40, 0xa3};
static const struct mode mode13 = {0x63, {0x01, 0x0f, 0x00, 0x0e}, {0, 0, 0, 0, 0, 0x40}, 0x41,
                                   79, 0x8f, 0x1f, 0x41, 40, 0xa3};
static const struct mode mode12 = {0xe3, {0x01, 0x0f, 0x00, 0x06}, {0, 0, 0, 0, 0, 0x00}, 0x01,
                                   79, 0xdf, 0x3e, 0x40, 40, 0xe3};
static const struct mode mode4 = {0x63, {0x09, 0x03, 0x00, 0x02}, {0, 0, 0, 0, 0, 0x30}, 0x01,
                                  39, 0x8f, 0x1f, 0xc1, 20, 0xa2};

static void set_mode(const struct mode *m, unsigned gfx_misc)
{
    out(0x3c2, m->misc);
    for (unsigned i = 0; i < 4; i++) {
        out_index(0x3c4, i + 1, m->seq[i]);
    }
    for (unsigned i = 0; i < 6; i++) {
        out_index(0x3ce, i, m->gfx[i]);
    }
    out_index(0x3ce, 6, gfx_misc);
    out_index(0x3ce, 7, 0x0f);
    out_index(0x3ce, 8, 0xff);
    const uint8_t crtc[][2] = {{17, 0}, {1, m->hdisp}, {7, m->overflow}, {9, m->max_scan},
                               {18, m->vdisp}, {19, m->offset}, {23, m->crtc_mode}, {24, 0xff},
                               {10, 0x20}, {12, 0}, {13, 0}};
    for (unsigned i = 0; i < G_N_ELEMENTS(crtc); i++) {
        out_index(0x3d4, crtc[i][0], crtc[i][1]);
    }
    for (unsigned i = 0; i < 16; i++) {
        out_attr(i, i);
        colour(i, i * 4, i, 63 - i);
    }
    out_attr(16, m->attr_mode);
    out_attr(18, 0x0f);
    out_attr(19, 0);
    out_attr(20, 0);
    in(0x3da);
    out(0x3c0, 0x20);
}

static uint32_t rgb6(unsigned r, unsigned g, unsigned b)
{
    unsigned v[3] = {r, g, b};
    uint32_t out_v = 0;
    for (unsigned i = 0; i < 3; i++) {
        out_v = out_v << 8 | (v[i] << 2 | v[i] >> 4);
    }
    return out_v;
}

static uint32_t shade(unsigned i)
{
    return rgb6(i * 4, i, 63 - i);
}

static uint32_t pixel(unsigned x, unsigned y)
{
    assert_non_null(display->pixels);
    assert_true(x < display->width && y < display->height);
    return *(uint32_t *)((char *)display->pixels + (size_t)y * display->stride + x * 4);
}

static void poke(uint32_t at, unsigned v)
{
    space_store(board->memory, at, v, 1);
}

/* Loads a glyph as a BIOS does: plane 2 by itself, linear. */
static void glyph(unsigned ch, const uint8_t *rows, unsigned n)
{
    out_index(0x3c4, 2, 4);
    out_index(0x3c4, 4, 6);
    out_index(0x3ce, 5, 0);
    out_index(0x3ce, 6, 4);
    for (unsigned i = 0; i < n; i++) {
        poke(0xa0000 + ch * 32 + i, rows[i]);
    }
    out_index(0x3c4, 2, 3);
    out_index(0x3c4, 4, 2);
    out_index(0x3ce, 5, 0x10);
    out_index(0x3ce, 6, 0x0e);
}

static void text_is_drawn_with_the_guests_font(void **state)
{
    (void)state;
    static const uint8_t box[16] = {0xff, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81,
                                    0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0xff};
    set_mode(&text80, 0x0e);
    glyph('A', box, 16);
    glyph(0xc4, box, 16);
    space_store(board->memory, 0xb8000 + 2 * (80 + 3), 0x1e41, 2);
    space_store(board->memory, 0xb8000 + 2 * (80 + 4), 0x2fc4, 2);
    vga_refresh(vga);
    assert_int_equal(display->width, 720);
    assert_int_equal(display->height, 400);
    assert_int_equal(n_resized, 1);
    assert_int_equal(pixel(27, 16), shade(14));
    assert_int_equal(pixel(28, 17), shade(1));
    assert_int_equal(pixel(34, 17), shade(14));
    assert_int_equal(pixel(35, 16), shade(1)); /* the ninth dot */
    assert_int_equal(pixel(44, 16), shade(15)); /* but line graphics join */
    assert_int_equal(pixel(44, 17), shade(15));
    assert_int_equal(pixel(0, 0), shade(0));
    n_changed = 0;
    vga_refresh(vga);
    assert_int_equal(n_changed, 0);
    poke(0xb8000 + 2 * 163, 'A');
    vga_refresh(vga);
    assert_int_equal(n_changed, 1);
    assert_int_equal(last_x, 27);
    assert_int_equal(last_y, 32);
    assert_int_equal(last_w, 9);
    assert_int_equal(last_h, 16);
}

static void the_cursor_is_where_the_crtc_says(void **state)
{
    (void)state;
    set_mode(&text80, 0x0e);
    space_store(board->memory, 0xb8000 + 2 * 81, 0x0720, 2);
    out_index(0x3d4, 10, 13);
    out_index(0x3d4, 11, 14);
    out_index(0x3d4, 15, 81);
    vga_refresh(vga);
    bool on = vga->blink_on;
    assert_int_equal(pixel(9 + 4, 16 + 13), on ? shade(7) : shade(0));
    assert_int_equal(pixel(9 + 4, 16 + 12), shade(0));
    out_index(0x3d4, 10, 0x2d);
    vga_refresh(vga);
    assert_int_equal(pixel(9 + 4, 16 + 13), shade(0));
}

static void mode_13h_has_256_colours(void **state)
{
    (void)state;
    set_mode(&mode13, 0x05);
    colour(200, 10, 20, 30);
    poke(0xa0000, 200);
    poke(0xa0000 + 319, 200);
    poke(0xa0000 + 199 * 320, 200);
    vga_refresh(vga);
    assert_int_equal(display->width, 640);
    assert_int_equal(display->height, 400);
    assert_int_equal(pixel(0, 0), rgb6(10, 20, 30));
    assert_int_equal(pixel(1, 1), rgb6(10, 20, 30));
    assert_int_equal(pixel(2, 0), shade(0));
    assert_int_equal(pixel(639, 1), rgb6(10, 20, 30));
    assert_int_equal(pixel(0, 398), rgb6(10, 20, 30));
    assert_int_equal(pixel(0, 397), shade(0));
}

static void unchained_planes_make_mode_x(void **state)
{
    (void)state;
    set_mode(&mode13, 0x05);
    colour(9, 1, 2, 3);
    out_index(0x3c4, 4, 0x06);
    out_index(0x3d4, 23, 0xe3);
    out_index(0x3c4, 2, 0x08); /* plane 3 */
    poke(0xa0000 + 80 * 2 + 1, 9);
    vga_refresh(vga);
    assert_int_equal(pixel((4 + 3) * 2, 4), rgb6(1, 2, 3));
    assert_int_equal(pixel((4 + 2) * 2, 4), shade(0));
}

static void write_modes_and_latches_work_in_16_colours(void **state)
{
    (void)state;
    set_mode(&mode12, 0x05);
    out_index(0x3ce, 0, 0x0a);  /* set/reset: colour 10 */
    out_index(0x3ce, 1, 0x0f);
    out_index(0x3ce, 8, 0xc0);  /* two dots */
    poke(0xa0000 + 80, 0x00);
    out_index(0x3ce, 1, 0);
    out_index(0x3ce, 8, 0xff);
    vga_refresh(vga);
    assert_int_equal(display->height, 480);
    assert_int_equal(pixel(0, 1), shade(10));
    assert_int_equal(pixel(1, 1), shade(10));
    assert_int_equal(pixel(2, 1), shade(0));

    space_load(board->memory, 0xa0000 + 80, 1); /* latch, then copy by write mode 1 */
    out_index(0x3ce, 5, 1);
    poke(0xa0000 + 160, 0);
    out_index(0x3ce, 5, 2); /* mode 2: the value is a colour */
    out_index(0x3ce, 8, 0x01);
    space_load(board->memory, 0xa0000 + 160, 1);
    poke(0xa0000 + 160, 5);
    vga_refresh(vga);
    assert_int_equal(pixel(1, 2), shade(10));
    assert_int_equal(pixel(7, 2), shade(5));

    out_index(0x3ce, 5, 8); /* read mode 1: compare */
    out_index(0x3ce, 2, 10);
    assert_int_equal(space_load(board->memory, 0xa0000 + 160, 1), 0xc0);
    out_index(0x3ce, 5, 0);
    out_index(0x3ce, 4, 3);
    assert_int_equal(space_load(board->memory, 0xa0000 + 160, 1), 0xc0);
    out_index(0x3ce, 4, 0);
    assert_int_equal(space_load(board->memory, 0xa0000 + 160, 1), 0x01);

    out_index(0x3ce, 8, 0xff);
    out_index(0x3ce, 3, 0x18); /* xor, not turned */
    space_load(board->memory, 0xa0000 + 160, 1);
    out_index(0x3c4, 2, 1);
    poke(0xa0000 + 160, 0xff);
    assert_int_equal(space_load(board->memory, 0xa0000 + 160, 1), 0xfe);
}

static void cga_colours_come_from_two_banks(void **state)
{
    (void)state;
    set_mode(&mode4, 0x0f);
    poke(0xb8000, 0x1b);        /* 0 1 2 3 */
    poke(0xb8000 + 0x2000, 0xc0);
    vga_refresh(vga);
    assert_int_equal(display->width, 640);
    assert_int_equal(display->height, 400);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(pixel(i, 0), shade(i / 2));
    }
    assert_int_equal(pixel(0, 1), shade(0));
    assert_int_equal(pixel(0, 2), shade(3));
    assert_int_equal(pixel(2, 3), shade(0));
}

static void vbe(unsigned i, unsigned v)
{
    space_store(board->ports, 0x1ce, i, 2);
    space_store(board->ports, 0x1cf, v, 2);
}

static unsigned vbe_get(unsigned i)
{
    space_store(board->ports, 0x1ce, i, 2);
    return (unsigned)space_load(board->ports, 0x1cf, 2);
}

static void vbe_mode(unsigned w, unsigned h, unsigned bpp)
{
    in(0x3da);
    out(0x3c0, 0x20);
    vbe(VBE_ENABLE, 0);
    vbe(VBE_XRES, w);
    vbe(VBE_YRES, h);
    vbe(VBE_BPP, bpp);
    vbe(VBE_ENABLE, VBE_ENABLED | VBE_LFB);
}

static void vram_put(size_t at, uint32_t v, unsigned bytes)
{
    memcpy(vga->vram->host + at, &v, bytes);
    ram_note_write(vga->vram->host + at, bytes);
}

static void vbe_modes_of_all_depths_are_shown(void **state)
{
    (void)state;
    static const struct {
        unsigned bpp, bytes;
        uint32_t value, shows;
    } rows[] = {
        {8, 1, 7, 0}, {15, 2, 0x7fe0, 0xffff00}, {16, 2, 0xf81f, 0xff00ff},
        {24, 3, 0x123456, 0x123456}, {32, 4, 0x654321, 0x654321},
    };
    assert_int_equal(vbe_get(VBE_ID), 0xb0c5);
    assert_int_equal(vbe_get(VBE_MEMORY_64K), 256);
    out(0x3c2, 1);
    colour(7, 1, 2, 3);
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        vbe_mode(800, 600, rows[i].bpp);
        vram_put((800 * 599 + 799) * rows[i].bytes, rows[i].value, rows[i].bytes);
        vga_refresh(vga);
        assert_int_equal(display->width, 800);
        assert_int_equal(display->height, 600);
        uint32_t shows = rows[i].bpp == 8 ? rgb6(1, 2, 3) : rows[i].shows;
        assert_int_equal(pixel(799, 599) & 0xffffff, shows);
        assert_int_equal(pixel(0, 0) & 0xffffff, 0);
        n_changed = 0;
        vga_refresh(vga);
        assert_int_equal(n_changed, 0);
        vram_put(0, 0, 1);
        vga_refresh(vga);
        assert_int_equal(n_changed, 1);
        assert_int_equal(last_y, 0);
        assert_true(last_h < 8);
    }
}

static void offsets_and_banks_move_the_picture_and_the_window(void **state)
{
    (void)state;
    out(0x3c2, 1);
    vbe_mode(640, 480, 32);
    vbe(VBE_VIRT_WIDTH, 1024);
    assert_int_equal(vbe_get(VBE_VIRT_HEIGHT), 4096);
    vbe(VBE_X_OFFSET, 16);
    vbe(VBE_Y_OFFSET, 32);
    vbe(VBE_BANK, 2);
    space_store(board->memory, 0xa0000 + 64, 0x11223344, 4); /* 32 lines of 4 KiB + 16 pixels */
    vga_refresh(vga);
    assert_int_equal(pixel(0, 0), 0x11223344);
    vbe(VBE_ENABLE, VBE_GETCAPS);
    assert_int_equal(vbe_get(VBE_XRES), VBE_MAX_X);
    assert_int_equal(vbe_get(VBE_BPP), 32);
    vbe(VBE_ENABLE, 0);
    assert_int_equal(vbe_get(VBE_BANK), 0);
}

static void a_mode_that_does_not_fit_is_made_to(void **state)
{
    (void)state;
    out(0x3c2, 1);
    vbe_mode(0xffff, 0xffff, 32);
    assert_true(vbe_get(VBE_XRES) <= VBE_MAX_X);
    assert_true(vbe_get(VBE_XRES) * 4u * vbe_get(VBE_YRES) <= 16 << 20);
    vbe(VBE_Y_OFFSET, 0xffff);
    vga_refresh(vga);
    vbe_mode(1, 0, 77);
    assert_int_equal(vbe_get(VBE_BPP), 8);
    vga_refresh(vga);
    assert_int_equal(display->width, 8);
    assert_int_equal(display->height, 1);
}

static void bar_2_holds_edid_ports_and_vbe(void **state)
{
    (void)state;
    pci_config_write(&bus, 0, vga->pci.devfn, PCI_BAR0 + 8, 0xfe000000, 4);
    pci_config_write(&bus, 0, vga->pci.devfn, PCI_COMMAND, 3, 2);
    uint8_t sum = 0;
    for (unsigned i = 0; i < 128; i++) {
        sum = (uint8_t)(sum + space_load(board->memory, 0xfe000000 + i, 1));
    }
    assert_int_equal(sum, 0);
    assert_int_equal(space_load(board->memory, 0xfe000000, 4), 0xffffff00);
    assert_int_equal(space_load(board->memory, 0xfe000500, 2), 0xb0c5);
    assert_int_equal(space_load(board->memory, 0xfe000600, 4), 8);
    space_store(board->memory, 0xfe000402, 1, 1);
    assert_int_equal(in(0x3cc), 1);
    space_store(board->memory, 0xfe000502, 1024, 2);
    assert_int_equal(vbe_get(VBE_XRES), 1024);
}

static void a_blanked_screen_is_black(void **state)
{
    (void)state;
    set_mode(&mode13, 0x05);
    colour(0, 63, 0, 0);
    vga_refresh(vga);
    assert_int_equal(pixel(5, 5), 0xff0000);
    out(0x3c0, 0);
    in(0x3da);
    out(0x3c0, 0);
    vga_refresh(vga);
    assert_int_equal(pixel(5, 5), 0);
    assert_int_equal(display->width, 640);
}

static uint32_t noise(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 32);
}

static void no_register_value_breaks_the_picture(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (unsigned round = 0; round < 1500; round++) {
        for (unsigned i = 0; i < 40; i++) {
            uint32_t r = noise(&seed);
            switch (r & 7) {
            case 0:
                vbe(noise(&seed) % 12, noise(&seed) >> (noise(&seed) % 16));
                break;
            case 1:
                space_store(board->memory, 0xa0000 + (noise(&seed) & 0x1ffff), noise(&seed), 4);
                break;
            case 2:
                space_load(board->memory, 0xa0000 + (noise(&seed) & 0x1ffff), 4);
                break;
            case 3:
                in((uint16_t)(0x3b0 + noise(&seed) % 48));
                break;
            default:
                out_index((uint16_t)(0x3b0 + noise(&seed) % 47), noise(&seed) & 31, r >> 8 & 0xff);
                break;
            }
        }
        vga->attr_index |= noise(&seed) & ATTR_PAS;
        vga->seq[1] &= (uint8_t)~SEQ_SCREEN_OFF;
        if (vga->vbe[VBE_YRES] > 700) {
            vbe(VBE_YRES, 64); /* only to be quick */
        }
        vga_refresh(vga);
        if (display->pixels) {
            pixel(display->width - 1, display->height - 1);
        }
    }
}

static void a_loaded_screen_looks_the_same(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    set_mode(&mode13, 0x05);
    colour(3, 1, 1, 1);
    poke(0xa0000 + 7, 3);
    vga_refresh(vga);
    g_autoptr(GBytes) saved = device_save(&vga->pci.dev);
    device_reset(&vga->pci.dev);
    vga_refresh(vga);
    assert_works(device_load(&vga->pci.dev, saved, &error), error);
    vga_refresh(vga);
    assert_int_equal(pixel(14, 0), rgb6(1, 1, 1));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, plug, unplug)
    const struct CMUnitTest tests[] = {
        T(text_is_drawn_with_the_guests_font),
        T(the_cursor_is_where_the_crtc_says),
        T(mode_13h_has_256_colours),
        T(unchained_planes_make_mode_x),
        T(write_modes_and_latches_work_in_16_colours),
        T(cga_colours_come_from_two_banks),
        T(vbe_modes_of_all_depths_are_shown),
        T(offsets_and_banks_move_the_picture_and_the_window),
        T(a_mode_that_does_not_fit_is_made_to),
        T(bar_2_holds_edid_ports_and_vbe),
        T(a_blanked_screen_is_black),
        T(no_register_value_breaks_the_picture),
        T(a_loaded_screen_looks_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
