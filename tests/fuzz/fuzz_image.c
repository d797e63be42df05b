/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/core.h"
#include "host/image/describe.h"
#include "host/image/protocol.h"

#include <stdlib.h>
#include <string.h>

/*
 * Opens what libFuzzer made up as an image of the format $FUZZ_FORMAT ("probe": as whatever it
 * looks like) and reads all about it.
 *
 * An image is mostly holes, so the input is a list: its size in sectors (4 bytes), then records
 * of a sector number (4 bytes), a length (2 bytes) and bytes; little-endian.  run.py makes such
 * lists of real images.
 */
enum { SECTOR = 512, SIZE_MAX_SECTORS = 1 << 21, READS = 48, STEPS = 500, PIECE = 70000 };

struct list {
    const uint8_t *at;
    size_t n;
};

static uint32_t number(const uint8_t *p, unsigned bytes)
{
    uint32_t v = 0;
    while (bytes-- > 0) {
        v = v << 8 | p[bytes];
    }
    return v;
}

static int list_read(struct file *f, uint64_t at, void *to, size_t n)
{
    const struct list *l = f->priv;
    memset(to, 0, n);
    for (size_t i = 4; i + 6 <= l->n;) {
        uint64_t start = (uint64_t)number(l->at + i, 4) * SECTOR;
        size_t length = MIN(number(l->at + i + 4, 2), l->n - i - 6);
        uint64_t from = MAX(start, at), end = MIN(start + length, at + n);
        if (from < end) {
            memcpy((uint8_t *)to + (from - at), l->at + i + 6 + (from - start), end - from);
        }
        i += 6 + length;
    }
    return 0;
}

static void list_close(struct file *f)
{
    (void)f;
}

/* What the sparse file would take on a disk. */
static uint64_t list_allocated(struct file *f)
{
    return ((const struct list *)f->priv)->n;
}

static const struct protocol protocol_list = {
    .name = "list",
    .close = list_close,
    .read = list_read,
    .allocated = list_allocated,
};

static struct file *list_file(struct list *l, uint64_t size)
{
    struct file *f = g_new0(struct file, 1);
    *f = (struct file){.protocol = &protocol_list, .priv = l, .name = g_strdup("fuzz"), .size = size,
                       .align = 1, .flags = OPEN_READ_ONLY, .read_only = true, .fd = -1,
                       .cached_fd = -1};
    return f;
}

static void read_some(struct node *n)
{
    static uint8_t buf[PIECE];
    uint64_t step = MAX(n->size / READS, 512);
    for (uint64_t at = 0, i = 0; at < n->size && i < READS; at += step, i++) {
        (void)chain_read(n, at, buf, MIN(n->size - at, i % 8 ? 4096 : PIECE));
    }
    uint64_t at = 0;
    for (unsigned i = 0; i < STEPS && at < n->size; i++) {
        struct chain_status s;
        if (chain_status(n, NULL, at, n->size - at, &s) < 0) {
            break;
        }
        at += s.length;
    }
}

static void tell(void *owner, const char *line)
{
    (void)owner, (void)line;
}

static void look_at(struct node *n)
{
    const struct format_tools *t = n->format->tools;
    struct check_result result = {.tell = tell};
    json_decref(node_info(n));
    if (t && t->check) {
        (void)t->check(n, FIX_NOTHING, &result, NULL);
    }
    if (t && t->snapshots && t->snapshots->count(n) && t->snapshots->load) {
        if (t->snapshots->load(n, t->snapshots->get(n, 0)->id, NULL)) {
            read_some(n);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *format = getenv("FUZZ_FORMAT");
    struct list l = {data, n};
    if (n < 4 || number(data, 4) > SIZE_MAX_SECTORS) {
        return 0;
    }
    json_t *o = json_object();
    if (format && strcmp(format, "probe")) {
        json_object_set_new(o, "driver", json_string(format));
    }
    for (unsigned flags = OPEN_NO_IO; flags != UINT32_MAX;
         flags = flags == OPEN_NO_IO ? OPEN_CHECK : flags == OPEN_CHECK ? 0 : UINT32_MAX) {
        g_autoptr(GError) error = NULL;
        struct node *node = node_open_file(list_file(&l, (uint64_t)number(data, 4) * SECTOR), NULL, o,
                                           flags | OPEN_READ_ONLY | OPEN_UNTRUSTED, &error);
        if (node && flags == OPEN_CHECK) {
            look_at(node);
        } else if (node && !flags) {
            read_some(node);
        }
        if (!node && !error) {
            abort(); /* failed without saying why */
        }
        chain_close(node);
    }
    json_decref(o);
    return 0;
}
