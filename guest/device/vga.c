/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vga: the registers of a VGA with Bochs' VBE extension ("-vga std").
 *
 * Spec: IBM, Personal System/2 Hardware Interface Technical Reference - Video Subsystems,
 * "VGA Subsystem"; Bochs, "VBE Display Extensions" (VBE_DISPI_*); QEMU, "QEMU Standard VGA"
 * (docs/specs/standard-vga).
 * Not modelled: beam timing (each look at the status register shows another phase),
 * interlace, the monitor sense switch.
 */
#include "guest/device/vga.h"

#include "base/util.h"

enum { PORTS_AT = 0x3b0, PORTS_BYTES = 0x30, VBE_PORTS_AT = 0x1ce, VBE_PORTS_BYTES = 4 };
enum { BANK_MONO = 1, BANK_COLOUR = 2, MISC_COLOUR = 1 };
enum { ST01_BLANKED = 1, ST01_VERTICAL = 8, CRTC_LOCK = 0x80 };
enum { DAC_READING = 3, DAC_WRITING = 0 };
enum { VBE_ID0 = 0xb0c0, VBE_ID5 = 0xb0c5 };
/* BAR 2. */
enum {
    MMIO_BYTES = 4096,
    MMIO_PORTS = 0x400,
    MMIO_PORTS_FROM = 0x3c0,
    MMIO_VBE = 0x500,
    MMIO_EXT = 0x600,
    EXT_BYTES = 8
};
#define EXT_LITTLE_ENDIAN 0x1e1e1e1eu

static struct vga *self(struct device *dev)
{
    return container_of(dev, struct vga, pci.dev);
}

static unsigned bank(const struct device *dev)
{
    return container_of(dev, struct vga, pci.dev)->misc & MISC_COLOUR ? BANK_COLOUR : BANK_MONO;
}

/* ---- index and data registers ---- */

static const uint8_t seq_bits[8] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e};
static const uint8_t gfx_bits[16] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};

static uint64_t seq_read(struct device *dev, uint64_t unused)
{
    (void)unused;
    return self(dev)->seq[self(dev)->seq_index];
}

static void seq_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct vga *s = self(dev);
    (void)old;
    s->seq[s->seq_index] = (uint8_t)now & seq_bits[s->seq_index];
}

static uint64_t gfx_read(struct device *dev, uint64_t unused)
{
    (void)unused;
    return self(dev)->gfx[self(dev)->gfx_index];
}

static void gfx_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct vga *s = self(dev);
    (void)old;
    s->gfx[s->gfx_index] = (uint8_t)now & gfx_bits[s->gfx_index];
}

static uint64_t crtc_read(struct device *dev, uint64_t unused)
{
    struct vga *s = self(dev);
    (void)unused;
    return s->crtc_index < sizeof(s->crtc) ? s->crtc[s->crtc_index] : 0;
}

static void crtc_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct vga *s = self(dev);
    unsigned i = s->crtc_index;
    (void)old;
    if (i >= sizeof(s->crtc)) {
        return;
    }
    if (i <= CRTC_OVERFLOW && (s->crtc[CRTC_VSYNC_END] & CRTC_LOCK)) {
        if (i == CRTC_OVERFLOW) { /* bit 8 of the line compare is never locked */
            s->crtc[i] = (uint8_t)((s->crtc[i] & ~0x10) | (now & 0x10));
        }
        return;
    }
    s->crtc[i] = (uint8_t)now;
}

/* Index and data alternate at one port; reading the status register starts over. */
static void attr_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct vga *s = self(dev);
    unsigned i = s->attr_index & 0x1f;
    (void)old;
    s->attr_data_next ^= 1;
    if (s->attr_data_next) {
        s->attr_index = (uint8_t)now & 0x3f;
    } else if (i < 16) {
        s->attr[i] = (uint8_t)now & 0x3f;
    } else {
        static const uint8_t bits[16] = {0xef, 0xff, 0x3f, 0x0f, 0x0f};
        s->attr[i] = (uint8_t)now & bits[i - 16];
    }
}

static uint64_t attr_read(struct device *dev, uint64_t unused)
{
    (void)unused;
    return self(dev)->attr[self(dev)->attr_index & 0x1f];
}

static uint64_t crtc_index_read(struct device *dev, uint64_t unused)
{
    (void)unused;
    return self(dev)->crtc_index;
}

static void crtc_index_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    self(dev)->crtc_index = (uint8_t)now;
}

/* Input status 1: drivers wait for a phase to come and for it to go; both happen at once. */
static uint64_t status_read(struct device *dev, uint64_t unused)
{
    struct vga *s = self(dev);
    (void)unused;
    s->attr_data_next = 0;
    s->st01 ^= ST01_BLANKED | ST01_VERTICAL;
    return s->st01;
}

static uint64_t switch_read(struct device *dev, uint64_t unused)
{
    (void)dev, (void)unused;
    return 0;
}

static uint64_t misc_read(struct device *dev, uint64_t unused)
{
    (void)unused;
    return self(dev)->misc;
}

static uint64_t feature_read(struct device *dev, uint64_t unused)
{
    (void)unused;
    return self(dev)->feature;
}

static void feature_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    self(dev)->feature = (uint8_t)now & 0x10;
}

/* ---- palette ---- */

static void dac_read_index(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    self(dev)->dac_sub = 0;
    self(dev)->dac_state = DAC_READING;
}

static void dac_write_index(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old, (void)now;
    self(dev)->dac_sub = 0;
    self(dev)->dac_state = DAC_WRITING;
}

static uint64_t dac_state_read(struct device *dev, uint64_t unused)
{
    (void)unused;
    return self(dev)->dac_state;
}

static uint64_t dac_data_read(struct device *dev, uint64_t unused)
{
    struct vga *s = self(dev);
    (void)unused;
    uint8_t v = s->palette[s->dac_read * 3 + s->dac_sub];
    if (++s->dac_sub == 3) {
        s->dac_sub = 0;
        s->dac_read++;
    }
    return v;
}

static void dac_data_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct vga *s = self(dev);
    (void)old;
    s->dac_cache[s->dac_sub] = (uint8_t)now;
    if (++s->dac_sub == 3) {
        memcpy(s->palette + s->dac_write * 3, s->dac_cache, 3);
        s->dac_sub = 0;
        s->dac_write++;
    }
}

/* ---- Bochs VBE ---- */

static uint32_t vbe_pitch(unsigned width, unsigned bpp)
{
    return bpp == 4 ? width / 2 : width * ((bpp + 7) / 8);
}

/* Makes what the guest asked for something that lies in the memory there is. */
static void vbe_fit(struct vga *s)
{
    uint16_t *v = s->vbe;
    uint64_t room = s->vram->size;
    if (v[VBE_BPP] != 4 && v[VBE_BPP] != 8 && v[VBE_BPP] != 15 && v[VBE_BPP] != 16 &&
        v[VBE_BPP] != 24 && v[VBE_BPP] != 32) {
        v[VBE_BPP] = 8;
    }
    v[VBE_XRES] = (uint16_t)CLAMP(v[VBE_XRES] & ~7u, 8, VBE_MAX_X);
    v[VBE_VIRT_WIDTH] = (uint16_t)CLAMP(v[VBE_VIRT_WIDTH] & ~7u, v[VBE_XRES], VBE_MAX_X);
    uint32_t pitch = vbe_pitch(v[VBE_VIRT_WIDTH], v[VBE_BPP]);
    uint64_t lines = room / pitch;
    v[VBE_YRES] = (uint16_t)CLAMP(v[VBE_YRES], 1, MIN(VBE_MAX_Y, lines));
    v[VBE_VIRT_HEIGHT] = (uint16_t)MIN(lines, UINT16_MAX);
    uint64_t x_bytes = vbe_pitch(v[VBE_X_OFFSET], v[VBE_BPP]);
    if (x_bytes + (v[VBE_Y_OFFSET] + (uint64_t)v[VBE_YRES]) * pitch > room) {
        v[VBE_X_OFFSET] = 0;
        v[VBE_Y_OFFSET] = (uint16_t)MIN(v[VBE_Y_OFFSET], lines - v[VBE_YRES]);
    }
}

/* The VGA registers as a VBE BIOS would set them for the mode. */
static void vbe_set_vga(struct vga *s)
{
    unsigned h = s->vbe[VBE_YRES] - 1u;
    bool planar = s->vbe[VBE_BPP] == 4;
    s->gfx[GFX_MISC] = (uint8_t)((s->gfx[GFX_MISC] & ~0x0c) | 0x04 | GFX_GRAPHICS);
    s->gfx[GFX_MODE] = (uint8_t)((s->gfx[GFX_MODE] & ~0x60) | (planar ? 0 : 0x40));
    s->crtc[CRTC_MODE] |= 3;
    s->crtc[CRTC_OFFSET] = (uint8_t)(vbe_pitch(s->vbe[VBE_VIRT_WIDTH], s->vbe[VBE_BPP]) >> 3);
    s->crtc[CRTC_HDISP] = (uint8_t)((s->vbe[VBE_XRES] >> 3) - 1);
    s->crtc[CRTC_VDISP] = (uint8_t)h;
    s->crtc[CRTC_OVERFLOW] =
        (uint8_t)((s->crtc[CRTC_OVERFLOW] & ~0x42) | (h >> 7 & 2) | (h >> 3 & 0x40) | 0x10);
    s->crtc[CRTC_LINE_COMPARE] = 0xff;
    s->crtc[CRTC_MAX_SCAN] = (uint8_t)((s->crtc[CRTC_MAX_SCAN] & ~0x9f) | 0x40);
    s->seq[SEQ_CLOCKING] &= (uint8_t)~SEQ_HALF_CLOCK;
    s->seq[SEQ_MAP_MASK] |= 0x0f;
    s->seq[SEQ_MEMORY] =
        (uint8_t)(planar ? s->seq[SEQ_MEMORY] & ~SEQ_CHAIN4 : s->seq[SEQ_MEMORY] | SEQ_CHAIN4);
}

static void vbe_switch_on(struct vga *s, uint16_t how)
{
    s->vbe[VBE_VIRT_WIDTH] = s->vbe[VBE_XRES];
    s->vbe[VBE_X_OFFSET] = s->vbe[VBE_Y_OFFSET] = 0;
    s->vbe[VBE_ENABLE] = how;
    vbe_fit(s);
    if (!(how & VBE_NO_CLEAR)) {
        size_t n = (size_t)s->vbe[VBE_YRES] * vbe_pitch(s->vbe[VBE_VIRT_WIDTH], s->vbe[VBE_BPP]);
        memset(s->vram->host, 0, n);
        ram_note_write(s->vram->host, n);
    }
    vbe_set_vga(s);
}

static void vbe_enable(struct vga *s, uint16_t now)
{
    bool was = vga_vbe_on(s);
    if ((now & VBE_ENABLED) && !was) {
        vbe_switch_on(s, now);
    } else if (!(now & VBE_ENABLED)) {
        s->vbe[VBE_BANK] = 0;
    }
    s->vbe[VBE_ENABLE] = now;
}

static void vbe_write(struct vga *s, unsigned i, uint16_t now)
{
    switch (i) {
    case VBE_ID:
        if (now >= VBE_ID0 && now <= VBE_ID5) {
            s->vbe[i] = now;
        }
        break;
    case VBE_ENABLE:
        vbe_enable(s, now);
        break;
    case VBE_BANK:
        s->vbe[i] = (uint16_t)(now & ((s->vram->size >> (s->vbe[VBE_BPP] == 4 ? 18 : 16)) - 1));
        break;
    case VBE_XRES:
    case VBE_YRES:
    case VBE_BPP:
    case VBE_VIRT_WIDTH:
    case VBE_X_OFFSET:
    case VBE_Y_OFFSET:
        s->vbe[i] = now;
        if (vga_vbe_on(s)) {
            vbe_fit(s);
        }
        break;
    default:
        break;
    }
}

static uint16_t vbe_read(const struct vga *s, unsigned i)
{
    bool caps = s->vbe[VBE_ENABLE] & VBE_GETCAPS;
    if (i == VBE_MEMORY_64K) {
        return (uint16_t)(s->vram->size >> 16);
    }
    if (caps && i >= VBE_XRES && i <= VBE_BPP) {
        return i == VBE_XRES ? VBE_MAX_X : i == VBE_YRES ? VBE_MAX_Y : 32;
    }
    return i < VBE_REGS ? s->vbe[i] : 0;
}

/* Index at 0x1ce, data at 0x1cf (and 0x1d0, for machines that want it aligned). */
static uint64_t vbe_port_read(void *owner, uint64_t at, unsigned bytes)
{
    const struct vga *s = owner;
    (void)bytes;
    return at == 0 ? s->vbe_index : vbe_read(s, s->vbe_index);
}

static void vbe_port_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct vga *s = owner;
    (void)bytes;
    if (at == 0) {
        s->vbe_index = (uint16_t)value;
    } else {
        vbe_write(s, s->vbe_index, (uint16_t)value);
    }
}

static const struct region_ops vbe_port_ops = {
    .read = vbe_port_read, .write = vbe_port_write, .max_bytes = 2, .unaligned = true};

/* ---- BAR 2 ---- */

static uint64_t mmio_read(void *owner, uint64_t at, unsigned bytes)
{
    struct vga *s = owner;
    uint64_t v = 0;
    if (at + bytes <= EDID_BYTES) {
        memcpy(&v, s->edid + at, bytes);
    } else if (at >= MMIO_PORTS && at < MMIO_PORTS + 0x20 && bytes == 1) {
        v = device_read(&s->pci.dev, 0, at - MMIO_PORTS + MMIO_PORTS_FROM - PORTS_AT);
    } else if (at >= MMIO_VBE && at < MMIO_VBE + 2 * VBE_REGS && bytes == 2) {
        v = vbe_read(s, (unsigned)(at - MMIO_VBE) / 2);
    } else if (at == MMIO_EXT && s->prop_qext) {
        v = EXT_BYTES;
    } else if (at == MMIO_EXT + 4 && s->prop_qext) {
        v = EXT_LITTLE_ENDIAN;
    }
    return v;
}

static void mmio_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct vga *s = owner;
    if (at >= MMIO_PORTS && at < MMIO_PORTS + 0x20) {
        for (unsigned i = 0; i < MIN(bytes, 2) && at + i < MMIO_PORTS + 0x20; i++) {
            device_write(&s->pci.dev, 0, at + i - MMIO_PORTS + MMIO_PORTS_FROM - PORTS_AT,
                         value >> i * 8 & 0xff);
        }
    } else if (at >= MMIO_VBE && at < MMIO_VBE + 2 * VBE_REGS && bytes == 2) {
        vbe_write(s, (unsigned)(at - MMIO_VBE) / 2, (uint16_t)value);
    }
}

static const struct region_ops mmio_ops = {.read = mmio_read, .write = mmio_write, .max_bytes = 4};

/* ---- table ---- */

#define R(field, offset, ...) REG(struct vga, field, .port = 0x3##offset - PORTS_AT, __VA_ARGS__)
#define C(label, offset, ...) REG_COMPUTED(label, .port = 0x3##offset - PORTS_AT, __VA_ARGS__)
#define S(field, ...)         STATE(struct vga, field, __VA_ARGS__)
#define A(field, ...)         STATE_ARRAY(struct vga, field, __VA_ARGS__)
static const struct reg regs[] = {
    PCI_STATE(struct vga, pci),
    R(crtc_index, d4, .bank = BANK_COLOUR, .dir = REG_RW, .writable = 0xff),
    C("crtc_index_mono", b4, .bank = BANK_MONO, .dir = REG_RW, .on_read = crtc_index_read,
      .on_write = crtc_index_write),
    C("crtc_data_mono", b5, .bank = BANK_MONO, .dir = REG_RW, .on_read = crtc_read,
      .on_write = crtc_write),
    C("crtc_data", d5, .bank = BANK_COLOUR, .dir = REG_RW, .on_read = crtc_read,
      .on_write = crtc_write),
    C("input_status_1_mono", ba, .bank = BANK_MONO, .dir = REG_R, .on_read = status_read),
    C("input_status_1", da, .bank = BANK_COLOUR, .dir = REG_R, .on_read = status_read),
    C("feature_control_mono", ba, .bank = BANK_MONO, .dir = REG_W, .on_write = feature_write),
    C("feature_control", da, .bank = BANK_COLOUR, .dir = REG_W, .on_write = feature_write),
    R(attr_index, c0, .dir = REG_R, .help = "bit 5: the palette is on and the screen too"),
    C("attr_write", c0, .dir = REG_W, .on_write = attr_write),
    C("attr_data", c1, .dir = REG_R, .on_read = attr_read),
    C("input_status_0", c2, .dir = REG_R, .on_read = switch_read),
    R(misc, c2, .dir = REG_W, .writable = 0xef, .help = "bit 0: CRTC at 0x3d4, not 0x3b4"),
    R(seq_index, c4, .dir = REG_RW, .writable = 0x07),
    C("seq_data", c5, .dir = REG_RW, .on_read = seq_read, .on_write = seq_write),
    R(dac_mask, c6, .dir = REG_RW, .writable = 0xff, .reset = 0xff),
    C("dac_state_read", c7, .dir = REG_R, .on_read = dac_state_read),
    R(dac_read, c7, .dir = REG_W, .writable = 0xff, .on_write = dac_read_index),
    R(dac_write, c8, .dir = REG_RW, .writable = 0xff, .on_write = dac_write_index),
    C("dac_data", c9, .dir = REG_RW, .on_read = dac_data_read, .on_write = dac_data_write),
    C("feature_read", ca, .dir = REG_R, .on_read = feature_read),
    C("misc_read", cc, .dir = REG_R, .on_read = misc_read),
    R(gfx_index, ce, .dir = REG_RW, .writable = 0x0f),
    C("gfx_data", cf, .dir = REG_RW, .on_read = gfx_read, .on_write = gfx_write),
    S(feature),
    S(st01),
    S(attr_data_next),
    S(dac_state),
    S(dac_sub),
    S(latch),
    S(vbe_index),
    A(seq),
    A(gfx),
    A(crtc),
    A(attr),
    A(dac_cache),
    A(palette),
    A(vbe),
};

static const struct prop props[] = {
    PCI_PROPS(struct vga, pci),
    {"vgamem_mb", PROP_U32, offsetof(struct vga, prop_vgamem_mb), 16, .help = "video memory"},
    {"xres", PROP_U32, offsetof(struct vga, prop_xres), 1280, .help = "preferred width"},
    {"yres", PROP_U32, offsetof(struct vga, prop_yres), 800, .help = "preferred height"},
    {"edid", PROP_BOOL, offsetof(struct vga, prop_edid), 1},
    {"mmio", PROP_BOOL, offsetof(struct vga, prop_mmio), 1, .help = "BAR 2"},
    {"qemu-extended-regs", PROP_BOOL, offsetof(struct vga, prop_qext), 1},
};

static const struct pci_ident ident = {
    .vendor = 0x1234,
    .device = 0x1111,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .revision = 2,
    .class = 0x030000,
    .romfile = "vgabios-stdvga.bin",
};

static bool check_props(struct vga *s, GError **error)
{
    uint32_t mb = s->prop_vgamem_mb;
    if (mb < 1 || mb > 256 || (mb & (mb - 1))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "vgamem_mb=%u: not a power of two up to 256", mb);
        return false;
    }
    if (s->prop_xres < 8 || s->prop_xres > 4088 || s->prop_yres < 8 || s->prop_yres > 4088) {
        g_set_error(error, LODGE_ERROR, EINVAL, "xres=%u,yres=%u: not from 8 to 4088", s->prop_xres,
                    s->prop_yres);
        return false;
    }
    return true;
}

static void place_legacy(struct vga *s)
{
    struct board *b = s->pci.dev.board;
    device_window_init(&s->ports, &s->pci.dev, 0, "vga", PORTS_BYTES);
    device_place(&s->ports, b->ports, PORTS_AT, 0);
    s->vbe_ports = (struct region){
        .name = "vga-vbe", .size = VBE_PORTS_BYTES, .ops = &vbe_port_ops, .owner = s};
    s->vbe_placing = space_place(b->ports, &s->vbe_ports, VBE_PORTS_AT, 0);
    s->window =
        (struct region){.name = "vga-window", .size = 0x20000, .ops = &vga_window_ops, .owner = s};
    s->window_placing = space_place(b->memory, &s->window, 0xa0000, 1);
}

static void place(struct vga *s)
{
    if (!s->bare) {
        place_legacy(s);
    }
    s->lfb = (struct region){.name = "vga.vram", .size = s->vram->size, .ram = s->vram};
    if (s->host) {
        pci_set_bar(s->host, 0, &s->lfb, false, false, true);
    }
    if (s->host && s->prop_mmio) {
        s->mmio =
            (struct region){.name = "vga-mmio", .size = MMIO_BYTES, .ops = &mmio_ops, .owner = s};
        pci_set_bar(s->host, 2, &s->mmio, false, false, false);
    }
}

/* What a VGA is without a place on a bus: .host's BARs show it, if there is one. */
static bool start_parts(struct vga *s, GError **error)
{
    g_autofree char *name = g_strdup_printf("%s.vram", s->pci.dev.path);
    s->vram = ram_new(name, (uint64_t)s->prop_vgamem_mb << 20, NULL, error);
    if (!s->vram) {
        return false;
    }
    s->dirty = g_new0(uint64_t, (s->vram->size >> PAGE_BITS) / 64 + 1);
    place(s);
    if (s->prop_edid) {
        vga_edid_make(s->edid, s->prop_xres, s->prop_yres);
    }
    s->display = s->pci.dev.board->display;
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct vga *s = self(dev);
    if (!check_props(s, error)) {
        return false;
    }
    if (dev->board->display && dev->board->display->adapter) {
        g_set_error(error, LODGE_ERROR, EBUSY, "the machine has a screen already");
        return false;
    }
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    s->host = &s->pci;
    if (!start_parts(s, error)) {
        return false;
    }
    if (s->display) {
        s->display->adapter = s;
        s->display->refresh = vga_refresh;
    }
    return true;
}

static bool start_part(struct device *dev, GError **error)
{
    return check_props(self(dev), error) && start_parts(self(dev), error);
}

static void stop_parts(struct vga *s)
{
    space_remove(s->vbe_placing);
    space_remove(s->window_placing);
    vga_picture_free(s);
    g_free(s->dirty);
}

/* Its host goes with it: nobody shows .vram any more. */
static void stop_part(struct device *dev)
{
    struct vga *s = self(dev);
    if (s->host) {
        pci_detach(s->host);
    }
    stop_parts(s);
    ram_free(s->vram);
}

static void stop(struct device *dev)
{
    struct vga *s = self(dev);
    if (s->display) {
        s->display->refresh = NULL;
        s->display->adapter = NULL;
        display_resize(s->display, NULL, 0, 0, 0);
    }
    stop_parts(s);
    pci_detach(&s->pci);
    ram_free(s->vram);
}

static void reset(struct device *dev)
{
    struct vga *s = self(dev);
    s->vbe[VBE_ID] = VBE_ID5;
    s->drawn.kind = LOOK_BLANK; /* draw all anew */
    s->drawn.width = 0;
}

/* What the ports could never have made is refused; the rest bounds itself when drawn. */
static bool loaded(struct device *dev, GError **error)
{
    struct vga *s = self(dev);
    uint64_t banks = s->vram->size >> 16;
    if (s->dac_sub > 2 || s->seq_index > 7 || s->gfx_index > 15 || s->attr_data_next > 1 ||
        s->vbe[VBE_BANK] >= banks) {
        g_set_error(error, LODGE_ERROR, EINVAL, "registers hold what they cannot");
        return false;
    }
    if (vga_vbe_on(s)) {
        vbe_fit(s);
    }
    s->drawn.width = 0;
    return true;
}

const struct device_model model_vga = {
    .name = "VGA",
    .alias = "vga-pci,std",
    .about = "VGA with Bochs VBE modes (-vga std)",
    .spec = "IBM PS/2 Hardware Interface Technical Reference, \"VGA Subsystem\"; Bochs VBE",
    .size = sizeof(struct vga),
    .version = 1,
    .bus = BUS_PCI,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = stop,
    .bank = bank,
    .reset = reset,
    .loaded = loaded,
};

/* The VGA inside another graphics adapter (virtio-vga), which shows it in its own BARs. */
const struct device_model model_vga_part = {
    .name = "vga-part",
    .about = "VGA inside another adapter",
    .spec = "IBM PS/2 Hardware Interface Technical Reference, \"VGA Subsystem\"; Bochs VBE",
    .size = sizeof(struct vga),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start_part,
    .stop = stop_part,
    .bank = bank,
    .reset = reset,
    .loaded = loaded,
};
