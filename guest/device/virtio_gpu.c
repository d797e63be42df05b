/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * virtio_gpu: a frame buffer and a cursor behind virtqueues.
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.2, "GPU Device".
 * Not modelled: 3D, blobs, more than one screen; a copy of resources on the host's side: their
 * pixels are read from their backing when they are flushed, so what a driver draws between
 * transfer and flush shows already.
 */
#include "guest/device/virtio_gpu.h"

#include "base/bytes.h"
#include "base/util.h"
#include "guest/device/vga.h"

#include <string.h>

enum { CONTROL_QUEUE, CURSOR_QUEUE, QUEUES };
enum { CONTROL_SIZE = 256, CURSOR_SIZE = 16, BURST = 128, CONFIG_BYTES = 16, SCREENS = 16 };
enum { CFG_EVENTS = 0, CFG_CLEAR = 4, CFG_SCANOUTS = 8 };
enum { GPU_F_EDID = 1 };
enum { HEAD_BYTES = 24, FLAG_FENCE = 1, RECT_BYTES = 16, ENTRY_BYTES = 16, SIDE_MAX = 8192 };
enum { INFO_BYTES = HEAD_BYTES + SCREENS * 24, EDID_REPLY = HEAD_BYTES + 8 + 1024, REQUEST_MAX = 64 };
enum command {
    GET_DISPLAY_INFO = 0x100, CREATE_2D, UNREF, SET_SCANOUT, FLUSH, TRANSFER, ATTACH_BACKING,
    DETACH_BACKING, GET_EDID = 0x10a, UPDATE_CURSOR = 0x300, MOVE_CURSOR = 0x301,
};
enum reply {
    OK_NODATA = 0x1100, OK_DISPLAY_INFO = 0x1101, OK_EDID = 0x1104, ERR_UNSPEC = 0x1200,
    ERR_MEMORY, ERR_SCANOUT, ERR_RESOURCE, ERR_CONTEXT, ERR_PARAMETER,
};
enum { PIECES_MAX = 16384, CURSOR_SIDE = 64 };

static struct virtio_gpu *of(struct virtio *v)
{
    return container_of(v, struct virtio_gpu, base.virtio);
}

/* Where red, green and blue stand in the four bytes of a pixel. */
static const struct pixel_format {
    uint32_t number;
    uint8_t red, green, blue;
} formats[] = {
    {1, 2, 1, 0}, {2, 2, 1, 0}, {3, 1, 2, 3}, {4, 1, 2, 3}, {67, 0, 1, 2}, {68, 3, 2, 1}, {121, 3, 2, 1},
    {134, 0, 1, 2},
};

static const struct pixel_format *format_find(uint32_t number)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
        if (formats[i].number == number) {
            return &formats[i];
        }
    }
    return NULL;
}

/* ---- resources ---- */

static int find(const struct virtio_gpu *g, uint32_t id)
{
    for (int i = 0; id && i < GPU_RESOURCES; i++) {
        if (g->id[i] == id) {
            return i;
        }
    }
    return -1;
}

static void detach(struct virtio_gpu *g, unsigned r)
{
    uint32_t first = g->first[r], n = g->n[r], behind = g->pieces - first - n;
    memmove(g->piece_at + first, g->piece_at + first + n, behind * sizeof(*g->piece_at));
    memmove(g->piece_bytes + first, g->piece_bytes + first + n, behind * sizeof(*g->piece_bytes));
    g->pieces -= n;
    for (unsigned i = 0; i < GPU_RESOURCES; i++) {
        if (g->n[i] && g->first[i] > first) {
            g->first[i] -= n;
        }
    }
    g->first[r] = g->n[r] = 0;
}

/* Reads a row of @n pixels at byte @at of the backing; what lies outside of it stays black. */
static void read_row(struct virtio_gpu *g, unsigned r, uint64_t at, uint8_t *out, size_t n)
{
    const uint64_t *where = g->piece_at + g->first[r];
    const uint32_t *bytes = g->piece_bytes + g->first[r];
    memset(out, 0, n);
    for (uint32_t i = 0; i < g->n[r] && n; i++) {
        if (at >= bytes[i]) {
            at -= bytes[i];
            continue;
        }
        size_t step = MIN(n, bytes[i] - at);
        pci_dma_read(&g->base.pci, where[i] + at, out, step);
        out += step;
        n -= step;
        at = 0;
    }
}

/* ---- the picture ---- */

static struct gpu_rect cut(struct gpu_rect a, uint32_t w, uint32_t h)
{
    a.x = MIN(a.x, w);
    a.y = MIN(a.y, h);
    a.w = MIN(a.w, w - a.x);
    a.h = MIN(a.h, h - a.y);
    return a;
}

static void draw_cursor(struct virtio_gpu *g)
{
    int r = find(g, g->cursor);
    uint8_t row[CURSOR_SIDE * 4];
    const struct pixel_format *f = r < 0 ? NULL : format_find(g->format[r]);
    g->cursor_drawn = (struct gpu_rect){0};
    if (!f || g->width[r] > CURSOR_SIDE || g->height[r] > CURSOR_SIDE || !g->pixels) {
        return;
    }
    int64_t x0 = (int64_t)g->cursor_x - g->hot_x, y0 = (int64_t)g->cursor_y - g->hot_y;
    for (unsigned y = 0; y < g->height[r]; y++) {
        read_row(g, (unsigned)r, (uint64_t)y * g->width[r] * 4, row, g->width[r] * 4);
        for (unsigned x = 0; x < g->width[r]; x++) {
            const uint8_t *p = row + 4 * x;
            unsigned alpha = p[f->red == 2 ? 3 : 0];
            int64_t px = x0 + x, py = y0 + y;
            if (!alpha || px < 0 || py < 0 || px >= g->drawn_w || py >= g->drawn_h) {
                continue;
            }
            uint32_t *to = &g->pixels[py * g->drawn_w + px], under = *to;
            uint32_t red = p[f->red] + (under >> 16 & 0xff) * (255 - alpha) / 255;
            uint32_t green = p[f->green] + (under >> 8 & 0xff) * (255 - alpha) / 255;
            uint32_t blue = p[f->blue] + (under & 0xff) * (255 - alpha) / 255;
            *to = MIN(red, 255) << 16 | MIN(green, 255) << 8 | MIN(blue, 255);
        }
    }
    struct gpu_rect at = {(uint32_t)MAX(x0, 0), (uint32_t)MAX(y0, 0), g->width[r], g->height[r]};
    g->cursor_drawn = cut(at, g->drawn_w, g->drawn_h);
}

static void draw_rows(struct virtio_gpu *g, unsigned r, struct gpu_rect a)
{
    const struct pixel_format *f = format_find(g->format[r]);
    for (uint32_t y = a.y; y < a.y + a.h; y++) {
        uint32_t *row = g->pixels + (size_t)y * g->drawn_w + a.x;
        uint64_t at = ((uint64_t)(g->view_y + y) * g->width[r] + g->view_x + a.x) * 4;
        read_row(g, r, at, (uint8_t *)row, (size_t)a.w * 4);
        for (uint32_t x = 0; x < a.w; x++) {
            const uint8_t *p = (const uint8_t *)(row + x);
            row[x] = (uint32_t)p[f->red] << 16 | (uint32_t)p[f->green] << 8 | p[f->blue];
        }
    }
}

/* Draws @a of the screen, and the cursor over it. */
static void draw(struct virtio_gpu *g, struct gpu_rect a)
{
    int r = find(g, g->scanout);
    if (r < 0 || !g->pixels || !g->display) {
        return;
    }
    a = cut(a, g->drawn_w, g->drawn_h);
    struct gpu_rect old = g->cursor_drawn;
    draw_rows(g, (unsigned)r, a);
    if (old.w) { /* it is blended: twice would be darker */
        draw_rows(g, (unsigned)r, old);
    }
    draw_cursor(g);
    if (a.w && a.h) {
        display_changed(g->display, a.x, a.y, a.w, a.h);
    }
    if (old.w && old.h) {
        display_changed(g->display, old.x, old.y, old.w, old.h);
    }
    if (g->cursor_drawn.w && g->cursor_drawn.h) {
        display_changed(g->display, g->cursor_drawn.x, g->cursor_drawn.y, g->cursor_drawn.w,
                        g->cursor_drawn.h);
    }
}

/* The picture gets the size of the view; false if there is no memory for it. */
static bool fit(struct virtio_gpu *g)
{
    size_t wanted = (size_t)g->view_w * g->view_h;
    if (!g->scanout || (g->drawn_w == g->view_w && g->drawn_h == g->view_h && g->pixels)) {
        return true;
    }
    if (wanted > g->room) {
        uint32_t *more = g_try_new0(uint32_t, wanted);
        if (!more) {
            return false;
        }
        display_resize(g->display, more, g->view_w, g->view_h, g->view_w * 4);
        g_free(g->pixels);
        g->pixels = more;
        g->room = wanted;
    } else {
        memset(g->pixels, 0, wanted * sizeof(*g->pixels));
        display_resize(g->display, g->pixels, g->view_w, g->view_h, g->view_w * 4);
    }
    g->drawn_w = g->view_w;
    g->drawn_h = g->view_h;
    g->cursor_drawn = (struct gpu_rect){0};
    return true;
}

/* Nothing of ours is shown any more. */
static void blank(struct virtio_gpu *g)
{
    g->scanout = 0;
    if (g->drawn_w && g->display) {
        g->drawn_w = g->drawn_h = 0;
        display_resize(g->display, NULL, 0, 0, 0);
    }
}

static void refresh(void *adapter)
{
    struct virtio_gpu *g = adapter;
    if (!g->scanout && g->refresh_other) {
        g->refresh_other(g->other);
    } else if (g->stale && fit(g)) {
        g->stale = false;
        draw(g, (struct gpu_rect){0, 0, SIDE_MAX, SIDE_MAX});
    }
}

/* ---- commands ---- */

static struct gpu_rect rect_at(const uint8_t *m)
{
    return (struct gpu_rect){le32_at(m), le32_at(m + 4), le32_at(m + 8), le32_at(m + 12)};
}

static bool inside(struct gpu_rect a, uint32_t w, uint32_t h)
{
    return a.w && a.h && a.x <= w && a.y <= h && a.w <= w - a.x && a.h <= h - a.y;
}

static enum reply create(struct virtio_gpu *g, const uint8_t *m)
{
    uint32_t id = le32_at(m), format = le32_at(m + 4), w = le32_at(m + 8), h = le32_at(m + 12);
    if (!id || find(g, id) >= 0) {
        return ERR_RESOURCE;
    }
    if (!format_find(format) || !w || !h || w > SIDE_MAX || h > SIDE_MAX) {
        return ERR_PARAMETER;
    }
    for (unsigned i = 0; i < GPU_RESOURCES; i++) {
        if (!g->id[i]) {
            g->id[i] = id;
            g->format[i] = format;
            g->width[i] = w;
            g->height[i] = h;
            g->first[i] = g->n[i] = 0;
            return OK_NODATA;
        }
    }
    return ERR_MEMORY;
}

static enum reply unref(struct virtio_gpu *g, const uint8_t *m)
{
    int r = find(g, le32_at(m));
    if (r < 0) {
        return ERR_RESOURCE;
    }
    if (g->scanout == g->id[r]) {
        blank(g);
    }
    detach(g, (unsigned)r);
    g->id[r] = 0;
    return OK_NODATA;
}

static enum reply set_scanout(struct virtio_gpu *g, const uint8_t *m)
{
    struct gpu_rect view = rect_at(m);
    uint32_t id = le32_at(m + 20);
    int r = find(g, id);
    if (le32_at(m + 16) >= g->outputs) {
        return ERR_SCANOUT;
    }
    if (le32_at(m + 16)) { /* a screen that is off */
        return OK_NODATA;
    }
    if (!id) {
        blank(g);
        return OK_NODATA;
    }
    if (r < 0) {
        return ERR_RESOURCE;
    }
    if (!inside(view, g->width[r], g->height[r])) {
        return ERR_PARAMETER;
    }
    g->scanout = id;
    g->view_x = view.x;
    g->view_y = view.y;
    g->view_w = view.w;
    g->view_h = view.h;
    return !g->display || fit(g) ? OK_NODATA : ERR_MEMORY;
}

static enum reply flush(struct virtio_gpu *g, const uint8_t *m)
{
    struct gpu_rect a = rect_at(m);
    uint32_t id = le32_at(m + 16);
    int r = find(g, id);
    if (r < 0) {
        return ERR_RESOURCE;
    }
    if (!inside(a, g->width[r], g->height[r])) {
        return ERR_PARAMETER;
    }
    if (id != g->scanout) {
        return OK_NODATA;
    }
    uint32_t right = a.x + a.w, low = a.y + a.h;
    a.x = MAX(a.x, g->view_x) - g->view_x;
    a.y = MAX(a.y, g->view_y) - g->view_y;
    a.w = right > g->view_x + a.x ? right - g->view_x - a.x : 0;
    a.h = low > g->view_y + a.y ? low - g->view_y - a.y : 0;
    draw(g, a);
    return OK_NODATA;
}

static enum reply transfer(struct virtio_gpu *g, const uint8_t *m)
{
    int r = find(g, le32_at(m + 24));
    return r < 0                                              ? ERR_RESOURCE
           : inside(rect_at(m), g->width[r], g->height[r]) ? OK_NODATA
                                                              : ERR_PARAMETER;
}

static enum reply attach(struct virtio_gpu *g, const struct virtio_element *e, const uint8_t *m)
{
    int r = find(g, le32_at(m));
    uint32_t n = le32_at(m + 4);
    if (r < 0) {
        return ERR_RESOURCE;
    }
    if (g->n[r] || n > PIECES_MAX || n > GPU_PIECES - g->pieces ||
        e->out_bytes < HEAD_BYTES + 8 + (uint64_t)n * ENTRY_BYTES) {
        return g->n[r] ? ERR_UNSPEC : ERR_MEMORY;
    }
    g->first[r] = g->pieces;
    g->n[r] = n;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t raw[ENTRY_BYTES] = {0};
        virtio_get(e, HEAD_BYTES + 8 + (uint64_t)i * ENTRY_BYTES, raw, sizeof(raw));
        g->piece_at[g->pieces] = le64_at(raw);
        g->piece_bytes[g->pieces++] = le32_at(raw + 8);
    }
    return OK_NODATA;
}

static enum reply detach_backing(struct virtio_gpu *g, const uint8_t *m)
{
    int r = find(g, le32_at(m));
    if (r < 0) {
        return ERR_RESOURCE;
    }
    detach(g, (unsigned)r);
    return OK_NODATA;
}

static void cursor(struct virtio_gpu *g, const uint8_t *m, bool update)
{
    if (le32_at(m)) {
        return; /* another screen's */
    }
    g->cursor_x = MIN(le32_at(m + 4), SIDE_MAX);
    g->cursor_y = MIN(le32_at(m + 8), SIDE_MAX);
    if (update) {
        g->cursor = le32_at(m + 16);
        g->hot_x = MIN(le32_at(m + 20), CURSOR_SIDE);
        g->hot_y = MIN(le32_at(m + 24), CURSOR_SIDE);
    }
    draw(g, (struct gpu_rect){0});
}

static size_t display_info(const struct virtio_gpu *g, uint8_t *out)
{
    le32_put(out + HEAD_BYTES + 8, g->xres);
    le32_put(out + HEAD_BYTES + 12, g->yres);
    le32_put(out + HEAD_BYTES + 16, 1);
    return INFO_BYTES;
}

static size_t edid(const struct virtio_gpu *g, uint8_t *out)
{
    le32_put(out + HEAD_BYTES, GPU_EDID_BYTES);
    memcpy(out + HEAD_BYTES + 8, g->edid, GPU_EDID_BYTES);
    return EDID_REPLY;
}

/* Length of each request that has one of its own, behind the header. */
static unsigned needs(enum command command)
{
    switch (command) {
    case CREATE_2D:
        return 16;
    case SET_SCANOUT:
    case FLUSH:
        return 24;
    case TRANSFER:
        return 32;
    case UPDATE_CURSOR:
    case MOVE_CURSOR:
        return 32;
    case GET_DISPLAY_INFO:
        return 0;
    default:
        return 8;
    }
}

/* Fills @out but for its header; how long it is in *@n. */
static enum reply run(struct virtio_gpu *g, const struct virtio_element *e, uint32_t command,
                      const uint8_t *m, uint8_t *out, size_t *n)
{
    switch (command) {
    case GET_DISPLAY_INFO:
        *n = display_info(g, out);
        return OK_DISPLAY_INFO;
    case GET_EDID:
        if (!g->prop_edid || le32_at(m) >= g->outputs) {
            return ERR_PARAMETER;
        }
        *n = edid(g, out);
        return OK_EDID;
    case CREATE_2D:
        return create(g, m);
    case UNREF:
        return unref(g, m);
    case SET_SCANOUT:
        return set_scanout(g, m);
    case FLUSH:
        return flush(g, m);
    case TRANSFER:
        return transfer(g, m);
    case ATTACH_BACKING:
        return attach(g, e, m);
    case DETACH_BACKING:
        return detach_backing(g, m);
    case UPDATE_CURSOR:
    case MOVE_CURSOR:
        cursor(g, m, command == UPDATE_CURSOR);
        return OK_NODATA;
    default:
        return ERR_UNSPEC;
    }
}

static void handle(struct virtio_gpu *g, struct virtio_element *e)
{
    uint8_t m[REQUEST_MAX] = {0}, out[EDID_REPLY] = {0};
    size_t got = virtio_get(e, 0, m, sizeof(m)), n = HEAD_BYTES;
    uint32_t command = le32_at(m), flags = le32_at(m + 4);
    enum reply reply = got < HEAD_BYTES + needs((enum command)command)
                           ? ERR_UNSPEC
                           : run(g, e, command, m + HEAD_BYTES, out, &n);
    le32_put(out, reply);
    if (flags & FLAG_FENCE) { /* all has been done by now */
        le32_put(out + 4, FLAG_FENCE);
        memcpy(out + 8, m + 8, 12);
    }
    virtio_push(&g->base.virtio, e, (uint32_t)virtio_put(e, 0, out, n));
}

static void kick(struct virtio *v, unsigned queue)
{
    struct virtio_gpu *g = of(v);
    struct virtio_element *e;
    unsigned n = 0;
    while (n++ < BURST && (e = virtio_pop(v, queue))) {
        handle(g, e);
    }
    virtio_interrupt(v, queue);
    if (!virtio_queue_empty(v, queue)) {
        timer_arm(&v->again, clock_now());
    }
}

static void forget(struct virtio *v)
{
    struct virtio_gpu *g = of(v);
    memset(g->id, 0, sizeof(g->id));
    memset(g->n, 0, sizeof(g->n));
    memset(g->first, 0, sizeof(g->first));
    g->pieces = 0;
    g->cursor = 0;
    blank(g);
}

static const struct virtio_model model = {
    .name = "virtio-gpu", .id = 16, .kick = kick, .reset = forget};

/* ---- life ---- */

bool virtio_gpu_start(struct virtio_gpu *g, GError **error)
{
    struct virtio *v = &g->base.virtio;
    struct display *d = g->base.pci.dev.board->display;
    if (!g->outputs || g->outputs > SCREENS || g->xres < 8 || g->xres > 4088 || g->yres < 8 ||
        g->yres > 4088) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "max_outputs is from 1 to 16, xres and yres are from 8 to 4088");
        return false;
    }
    if (d && d->adapter) {
        g_set_error(error, LODGE_ERROR, EBUSY, "the machine has a screen already");
        return false;
    }
    v->model = &model;
    v->nqueues = QUEUES;
    v->queue_size_max[CONTROL_QUEUE] = CONTROL_SIZE;
    v->queue_size_max[CURSOR_QUEUE] = CURSOR_SIZE;
    v->config_bytes = CONFIG_BYTES;
    v->offered = g->prop_edid ? VIRTIO_BIT(GPU_F_EDID) : 0;
    le32_put(v->config + CFG_SCANOUTS, g->outputs);
    vga_edid_make(g->edid, g->xres, g->yres);
    if (!virtio_pci_start(&g->base, error)) {
        return false;
    }
    g->display = d;
    if (d) {
        d->adapter = g;
        d->refresh = refresh;
    }
    return true;
}

void virtio_gpu_stop(struct device *dev)
{
    struct virtio_gpu *g = container_of(dev, struct virtio_gpu, base.pci.dev);
    if (g->display) {
        g->display->refresh = NULL;
        g->display->adapter = NULL;
        display_resize(g->display, NULL, 0, 0, 0);
    }
    virtio_pci_stop(dev);
    g_clear_pointer(&g->pixels, g_free);
}

static bool sane(const struct virtio_gpu *g)
{
    int r = find(g, g->scanout);
    bool good = g->pieces <= GPU_PIECES && (!g->scanout || r >= 0) && g->cursor_x <= SIDE_MAX &&
                g->cursor_y <= SIDE_MAX && g->hot_x <= CURSOR_SIDE && g->hot_y <= CURSOR_SIDE;
    for (unsigned i = 0; i < GPU_RESOURCES && good; i++) {
        good = !g->id[i] || (format_find(g->format[i]) && g->width[i] - 1 < SIDE_MAX &&
                             g->height[i] - 1 < SIDE_MAX);
        good = good && g->first[i] <= g->pieces && g->n[i] <= g->pieces - g->first[i];
    }
    struct gpu_rect view = {g->view_x, g->view_y, g->view_w, g->view_h};
    return good && (!g->scanout || inside(view, g->width[r], g->height[r]));
}

bool virtio_gpu_loaded(struct device *dev, GError **error)
{
    struct virtio_gpu *g = container_of(dev, struct virtio_gpu, base.pci.dev);
    if (!sane(g)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "resources cannot be as they are stated");
        return false;
    }
    g->stale = true; /* the guest's memory may come after this */
    return virtio_pci_loaded(dev, error);
}
