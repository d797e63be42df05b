/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * null: a file that keeps nothing and reads as zero, as fast as can be: for measuring what is
 * above it.  Keys are those of QEMU's drivers null-co and null-aio, which are one here.
 */
#include "host/image/options.h"
#include "host/image/protocol.h"

#include <string.h>
#include <time.h>

struct null {
    uint64_t latency_ns;
    bool zeroes; /* that it reads as zero may be known */
};

static bool null_open(struct file *f, const json_t *options, unsigned flags, GError **error)
{
    struct null *n = f->priv = g_new0(struct null, 1);
    (void)flags;
    f->name = f->name ? f->name : g_strconcat(f->protocol->name, "://", NULL);
    f->size = UINT64_C(1) << 30;
    return json_u64(options, "size", &f->size, error) &&
           json_u64(options, "latency-ns", &n->latency_ns, error) &&
           json_bool(options, "read-zeroes", &n->zeroes, error);
}

static void null_close(struct file *f)
{
    g_clear_pointer(&f->priv, g_free);
}

static int pass_time(struct file *f)
{
    uint64_t ns = ((const struct null *)f->priv)->latency_ns;
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    while (ns && nanosleep(&t, &t) && errno == EINTR) {
    }
    return 0;
}

static int null_read(struct file *f, uint64_t at, void *to, size_t n)
{
    (void)at;
    memset(to, 0, n);
    return pass_time(f);
}

static int null_write(struct file *f, uint64_t at, const void *from, size_t n)
{
    (void)at, (void)from, (void)n;
    return pass_time(f);
}

static int null_zero(struct file *f, uint64_t at, uint64_t n, bool may_unmap)
{
    (void)at, (void)n, (void)may_unmap;
    return pass_time(f);
}

static int null_extent(struct file *f, uint64_t at, uint64_t n, bool *data, uint64_t *length)
{
    (void)at;
    *data = !((const struct null *)f->priv)->zeroes;
    *length = n;
    return 0;
}

static uint64_t null_allocated(struct file *f)
{
    (void)f;
    return 0;
}

static const char *const open_options[] = {"filename", "size", "latency-ns", "read-zeroes", NULL};

#define NULL_PROTOCOL(text)                                                                        \
    {                                                                                              \
        .name = (text), .open_options = open_options, .open = null_open, .close = null_close,      \
        .read = null_read, .write = null_write, .zero = null_zero, .flush = pass_time,             \
        .extent = null_extent, .allocated = null_allocated,                                        \
    }

const struct protocol protocol_null_co = NULL_PROTOCOL("null-co");
const struct protocol protocol_null_aio = NULL_PROTOCOL("null-aio");
