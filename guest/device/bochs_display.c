/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * bochs_display: a frame buffer with Bochs VBE registers and nothing of a VGA; the work is in
 * vga.c, of which it shows a part.
 *
 * Spec: Bochs, "VBE Display API"; QEMU, "QEMU standard vga", for the registers' places in BAR 2.
 */
#include "guest/device/vga.h"

#include "base/util.h"

#include <inttypes.h>

struct bochs_display {
    struct pci_device pci; /* first */
    struct vga *part;
    uint64_t prop_vgamem;
    uint32_t prop_xres, prop_yres;
    bool prop_edid;
};

static struct bochs_display *self(struct device *dev)
{
    return container_of(dev, struct bochs_display, pci.dev);
}

static void refresh(void *adapter)
{
    struct bochs_display *s = adapter;
    if (s->part) {
        vga_refresh(s->part);
    }
}

static bool start(struct device *dev, GError **error)
{
    struct bochs_display *s = self(dev);
    struct display *d = dev->board->display;
    if (s->prop_vgamem & ((1 << 20) - 1)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "vgamem=%" PRIu64 ": not whole MiB",
                    s->prop_vgamem);
        return false;
    }
    if (d && d->adapter) {
        g_set_error(error, LODGE_ERROR, EBUSY, "the machine has a screen already");
        return false;
    }
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    struct vga *part = (struct vga *)device_new(&model_vga_part);
    g_autofree char *path = g_strdup_printf("%s.vga", dev->path);
    part->host = &s->pci;
    part->bare = true;
    part->prop_vgamem_mb = (uint32_t)MIN(s->prop_vgamem >> 20, UINT32_MAX);
    part->prop_xres = s->prop_xres;
    part->prop_yres = s->prop_yres;
    part->prop_edid = s->prop_edid;
    if (!device_start(&part->pci.dev, dev->board, path, error)) {
        return false;
    }
    s->part = part;
    if (d) {
        d->adapter = s;
        d->refresh = refresh;
    }
    return true;
}

/* The part comes after it on the board and has gone before. */
static void stop(struct device *dev)
{
    struct bochs_display *s = self(dev);
    struct display *d = dev->board->display;
    s->part = NULL;
    if (d && d->adapter == s) {
        d->refresh = NULL;
        d->adapter = NULL;
        display_resize(d, NULL, 0, 0, 0);
    }
    pci_detach(&s->pci);
}

static const struct reg regs[] = {PCI_STATE(struct bochs_display, pci)};
static const struct prop props[] = {
    PCI_PROPS(struct bochs_display, pci),
    {"vgamem", PROP_U64, offsetof(struct bochs_display, prop_vgamem), 16 << 20,
     .help = "video memory"},
    {"xres", PROP_U32, offsetof(struct bochs_display, prop_xres), 1280, .help = "preferred width"},
    {"yres", PROP_U32, offsetof(struct bochs_display, prop_yres), 800, .help = "preferred height"},
    {"edid", PROP_BOOL, offsetof(struct bochs_display, prop_edid), 1},
};
static const struct pci_ident ident = {
    .vendor = 0x1234,
    .device = 0x1111,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .revision = 2,
    .class = 0x038000,
    .express = true,
};

const struct device_model model_bochs_display = {
    .name = "bochs-display",
    .about = "frame buffer with Bochs VBE modes, no VGA",
    .spec = "Bochs, \"VBE Display API\"",
    .size = sizeof(struct bochs_display),
    .version = 1,
    .bus = BUS_PCI,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = stop,
};
