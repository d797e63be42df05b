/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/qemu_io.h"

#include "base/keyval.h"
#include "host/image/image.h"

#include <inttypes.h>
#include <string.h>

/* qemu_io - reading and writing a drive from the monitor, as the guest would */

enum { MOST = 64 << 20, WORDS_MAX = 8 };

struct request {
    uint64_t offset, bytes, pattern;
    bool has_pattern, zero;
};

static bool take_words(char **words, struct request *r, GError **error)
{
    uint64_t *numbers[] = {&r->offset, &r->bytes}, n = 0;
    for (char **w = words; *w; w++) {
        if (g_str_equal(*w, "-P") && w[1]) {
            w++;
            r->has_pattern = text_u64(*w, &r->pattern) && r->pattern < 256;
        } else if (g_str_equal(*w, "-z")) {
            r->zero = true;
        } else if (n < G_N_ELEMENTS(numbers) && text_size(*w, 1, numbers[n])) {
            n++;
        } else if (**w && !g_str_equal(*w, "-q") && !g_str_equal(*w, "-u")) {
            g_set_error(error, LODGE_ERROR, EINVAL, "%s: not understood", *w);
            return false;
        }
    }
    if (n < 2 || r->bytes > MOST) {
        g_set_error(error, LODGE_ERROR, EINVAL, "want OFFSET and LENGTH, at most 64M");
        return false;
    }
    return true;
}

struct waiter {
    struct image_request req;
    int result;
    bool over;
};

static void note_done(struct image_request *req, int result)
{
    struct waiter *w = (struct waiter *)req;
    w->result = result;
    w->over = true;
}

static int run_range(Image *img, enum image_op op, const struct request *r)
{
    struct waiter w = {.req = {.op = op, .offset = r->offset, .bytes = r->bytes, .may_unmap = true,
                               .done = note_done}};
    image_submit(img, &w.req);
    while (!w.over) {
        image_drain(img);
    }
    return w.result;
}

static int run_write(Image *img, const struct request *r, uint8_t *buf)
{
    if (r->zero) {
        return run_range(img, IMAGE_ZERO, r);
    }
    memset(buf, r->has_pattern ? (int)r->pattern : 0xcd, r->bytes);
    return image_write(img, r->offset, buf, r->bytes);
}

static void compare(const struct request *r, const uint8_t *buf, GString *out)
{
    for (uint64_t i = 0; r->has_pattern && i < r->bytes; i++) {
        if (buf[i] != r->pattern) {
            g_string_append_printf(out, "Pattern verification failed at offset %" PRIu64
                                        ", %" PRIu64 " bytes\n", r->offset, r->bytes);
            return;
        }
    }
}

bool qemu_io(const char *drive, const char *command, GString *out, GError **error)
{
    g_auto(GStrv) words = g_strsplit_set(command, " \t", WORDS_MAX);
    Image *img = image_find(drive);
    struct request r = {0};
    int result;
    if (!img && !image_find_node(drive, &img)) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Device '%s' not found", drive);
        return false;
    }
    const char *what = words[0] ? words[0] : "";
    bool read = g_str_equal(what, "read"), write = g_str_equal(what, "write");
    if (g_str_equal(what, "flush")) {
        result = image_flush(img);
    } else if (!read && !write && !g_str_equal(what, "discard")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "read, write, discard or flush");
        return false;
    } else if (!take_words(words + 1, &r, error)) {
        return false;
    } else {
        g_autofree uint8_t *buf = g_malloc(r.bytes + 1);
        result = read    ? image_read(img, r.offset, buf, r.bytes)
                 : write ? run_write(img, &r, buf)
                         : run_range(img, IMAGE_DISCARD, &r);
        if (read && result == 0) {
            compare(&r, buf, out);
        }
    }
    if (result < 0) {
        g_string_append_printf(out, "%s failed: %s\n", what, g_strerror(-result));
    } else if (r.bytes) {
        g_string_append_printf(out, "%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n",
                               read ? "read" : write ? "wrote" : "discard", r.bytes, r.bytes, r.offset);
    }
    return true;
}
