/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/virtio.h"
#include "host/display/display.h"

/*
 * virtio_gpu - what virtio-gpu-pci and virtio-vga share: resources and the picture of them
 */
enum { GPU_RESOURCES = 256, GPU_PIECES = 32768, GPU_EDID_BYTES = 128 };

struct gpu_rect {
    uint32_t x, y, w, h;
};

struct virtio_gpu {
    struct virtio_pci base; /* first */
    struct display *display;
    /* Instead of ours, while the driver has not set one: virtio-vga's.  NULL: none. */
    void (*refresh_other)(void *owner);
    void *other;
    uint8_t edid[GPU_EDID_BYTES];
    uint32_t *pixels;       /* of the scanout, .drawn_w by .drawn_h */
    size_t room;
    uint32_t drawn_w, drawn_h;
    bool stale;             /* the whole picture is to be drawn at the next look */
    struct gpu_rect cursor_drawn;
    /* State.  A resource of id 0 is free; its backing is .pieces[first, first + n). */
    uint32_t id[GPU_RESOURCES], format[GPU_RESOURCES], width[GPU_RESOURCES], height[GPU_RESOURCES];
    uint32_t first[GPU_RESOURCES], n[GPU_RESOURCES];
    uint32_t pieces;
    uint64_t piece_at[GPU_PIECES];
    uint32_t piece_bytes[GPU_PIECES];
    uint32_t scanout;       /* resource that is shown; 0: none */
    uint32_t view_x, view_y, view_w, view_h;
    uint32_t cursor, cursor_x, cursor_y, hot_x, hot_y;
    /* Properties. */
    uint32_t outputs, xres, yres;
    bool prop_edid;
};

#define GPU_S(field) STATE(struct virtio_gpu, field)
#define GPU_A(field) STATE_ARRAY(struct virtio_gpu, field)
#define VIRTIO_GPU_STATE                                                                           \
    VIRTIO_PCI_STATE(struct virtio_gpu, base), GPU_A(id), GPU_A(format), GPU_A(width),             \
        GPU_A(height), GPU_A(first), GPU_A(n), GPU_S(pieces), GPU_A(piece_at), GPU_A(piece_bytes), \
        GPU_S(scanout), GPU_S(view_x), GPU_S(view_y), GPU_S(view_w), GPU_S(view_h), GPU_S(cursor), \
        GPU_S(cursor_x), GPU_S(cursor_y), GPU_S(hot_x), GPU_S(hot_y)
#define GPU_P(field) offsetof(struct virtio_gpu, field)
#define VIRTIO_GPU_PROPS                                                                           \
    VIRTIO_PCI_PROPS(struct virtio_gpu, base), {"max_outputs", PROP_U32, GPU_P(outputs), 1,        \
                                                .help = "1"},                                      \
        {"xres", PROP_U32, GPU_P(xres), 1280}, {"yres", PROP_U32, GPU_P(yres), 800},               \
        {"edid", PROP_BOOL, GPU_P(prop_edid), 1}

bool virtio_gpu_start(struct virtio_gpu *g, GError **error);
void virtio_gpu_stop(struct device *dev);
bool virtio_gpu_loaded(struct device *dev, GError **error);
