/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/chardev/backend.h"

#include "base/error.h"
#include "base/util.h"

#include <errno.h>

/*
 * The last bytes that a device wrote, for `ringbuf_read` of the monitor.  `vc`, QEMU's text
 * console inside the display, is kept the same way: its text can be read, it is not drawn.
 */
struct ringbuf {
    struct chardev chr;
    uint64_t size; /* a power of two */
    uint64_t in, out;
    uint8_t *bytes;
};

static size_t ring_write(struct chardev *chr, const void *data, size_t n)
{
    struct ringbuf *r = container_of(chr, struct ringbuf, chr);
    for (size_t i = 0; i < n; i++) {
        r->bytes[r->in++ & (r->size - 1)] = ((const uint8_t *)data)[i];
    }
    r->out = MAX(r->out, r->in > r->size ? r->in - r->size : 0);
    return n;
}

static void ring_close(struct chardev *chr)
{
    struct ringbuf *r = container_of(chr, struct ringbuf, chr);
    g_free(r->bytes);
    g_free(r);
}

static struct chardev *ring_new(KeyVal *opts, const char *kind, GError **error)
{
    uint64_t size = 65536;
    if (!keyval_size(opts, "size", 1, &size, error)) {
        return NULL;
    }
    if (size == 0 || (size & (size - 1)) || size > 16 << 20) {
        g_set_error(error, LODGE_ERROR, EINVAL, "size must be a power of two up to 16M");
        return NULL;
    }
    struct ringbuf *r = g_new0(struct ringbuf, 1);
    r->bytes = g_malloc0(size);
    r->size = size;
    r->chr = (struct chardev){.kind = kind,
                              .about = g_strdup(kind),
                              .write = ring_write,
                              .close = ring_close,
                              .open = true,
                              .log_fd = -1};
    return &r->chr;
}

char *chardev_ring_take(struct chardev *chr, size_t n)
{
    if (chr->close != ring_close) {
        return NULL;
    }
    struct ringbuf *r = container_of(chr, struct ringbuf, chr);
    GString *out = g_string_new(NULL);
    while (r->out < r->in && out->len < n) {
        g_string_append_c(out, (char)r->bytes[r->out++ & (r->size - 1)]);
    }
    return g_string_free(out, FALSE);
}

static struct chardev *ringbuf_open(KeyVal *opts, GError **error)
{
    return ring_new(opts, "ringbuf", error);
}

/* Geometry keys are for drawing. */
static struct chardev *vc_open(KeyVal *opts, GError **error)
{
    static const char *const geometry[] = {"width", "height", "cols", "rows"};
    for (unsigned i = 0; i < G_N_ELEMENTS(geometry); i++) {
        keyval_get(opts, geometry[i]);
    }
    return ring_new(opts, "vc", error);
}

const struct chardev_backend chardev_ringbuf = {"ringbuf", "keeps the last bytes (size=)",
                                                ringbuf_open};
const struct chardev_backend chardev_vc = {"vc", "a text console: kept, not drawn", vc_open};
