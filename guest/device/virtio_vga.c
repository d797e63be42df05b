/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * virtio_vga: a virtio GPU that is a VGA until its driver takes over; the work is in
 * virtio_gpu.c and vga.c.  BAR 0 and 2 are the VGA's, 1 and 4 virtio's.
 */
#include "guest/device/virtio_gpu.h"

#include "base/util.h"
#include "guest/device/vga.h"

static bool start(struct device *dev, GError **error)
{
    struct virtio_gpu *g = container_of(dev, struct virtio_gpu, base.pci.dev);
    if (!virtio_gpu_start(g, error)) {
        return false;
    }
    struct device *part = device_new(&model_vga_part);
    struct vga *vga = (struct vga *)part;
    g_autofree char *path = g_strdup_printf("%s.vga", dev->path);
    vga->host = &g->base.pci;
    vga->prop_xres = g->xres;
    vga->prop_yres = g->yres;
    if (!device_start(part, dev->board, path, error)) {
        virtio_gpu_stop(dev);
        return false;
    }
    g->other = vga;
    g->refresh_other = vga_refresh;
    return true;
}

/* The part comes after it on the board and has gone before. */
static void stop(struct device *dev)
{
    container_of(dev, struct virtio_gpu, base.pci.dev)->refresh_other = NULL;
    virtio_gpu_stop(dev);
}

static const struct reg regs[] = {VIRTIO_GPU_STATE};
static const struct prop props[] = {VIRTIO_GPU_PROPS};
static const struct pci_ident ident = {
    .vendor = 0x1af4, .class = 0x030000, .irq_pin = 1, .romfile = "vgabios-virtio.bin"};

const struct device_model model_virtio_vga = {
    .name = "virtio-vga",
    .about = "virtio graphics adapter that is a VGA at first (-vga virtio)",
    .spec = "OASIS VIRTIO 1.2, \"GPU Device\"",
    .size = sizeof(struct virtio_gpu),
    .version = 1,
    .bus = BUS_PCI,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = stop,
    .settle = virtio_pci_settle,
    .reset = virtio_pci_reset,
    .loaded = virtio_gpu_loaded,
};
