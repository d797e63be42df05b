/* SPDX-License-Identifier: GPL-2.0-or-later */

/* virtio_gpu_pci: the virtio GPU alone; the work is in virtio_gpu.c. */
#include "guest/device/virtio_gpu.h"

#include "base/util.h"

static bool start(struct device *dev, GError **error)
{
    return virtio_gpu_start(container_of(dev, struct virtio_gpu, base.pci.dev), error);
}

static const struct reg regs[] = {VIRTIO_GPU_STATE};
static const struct prop props[] = {VIRTIO_GPU_PROPS};
static const struct pci_ident ident = {.vendor = 0x1af4, .class = 0x038000, .irq_pin = 1};

const struct device_model model_virtio_gpu_pci = {
    .name = "virtio-gpu-pci",
    .alias = "virtio-gpu",
    .about = "virtio graphics adapter",
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
    .stop = virtio_gpu_stop,
    .settle = virtio_pci_settle,
    .reset = virtio_pci_reset,
    .loaded = virtio_gpu_loaded,
};
