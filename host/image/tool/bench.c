/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/open.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* lodge-img bench */

static const struct tool_option options[] = {
    OPTION_HELP,
    {'c', NULL, "N", "number of requests (75000)"},
    {'d', NULL, "N", "requests in parallel (64)"},
    OPTION_FORMAT,
    {'i', "aio", "MODE", "threads, native, io_uring: for scripts; requests are made by threads"},
    {'n', NULL, NULL, "the same as -t none"},
    {'o', NULL, "OFFSET", "the first request (0)"},
    OPTION_QUIET,
    {'s', NULL, "SIZE", "bytes of a request (4k)"},
    {'S', NULL, "SIZE", "from one request to the next (what -s says)"},
    OPTION_CACHE,
    {'w', NULL, NULL, "write"},
    OPTION_SHARE,
    {0, "flush-interval", "N", "flush after so many requests"},
    {0, "pattern", "BYTE", "what is written (0)"},
    {0, "no-drain", NULL, "flush while other requests are under way"},
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

enum { COUNT_DEFAULT = 75000, DEPTH_DEFAULT = 64, SIZE_DEFAULT = 4096, ALIGN = 4096 };
enum { THREADS_MAX = 64 }; /* more requests in parallel than that wait */

struct bench {
    struct node *node;
    uint64_t count, depth, size, step, offset, flush_interval;
    uint8_t pattern;
    bool write, no_drain;
    atomic_uint_fast64_t taken;
    atomic_int error;
    GRWLock drain; /* requests read-lock it, a flush that drains write-locks it */
};

static int flush(struct bench *b)
{
    if (b->no_drain) {
        return chain_flush(b->node);
    }
    g_rw_lock_writer_lock(&b->drain);
    int error = chain_flush(b->node);
    g_rw_lock_writer_unlock(&b->drain);
    return error;
}

static int request(struct bench *b, uint64_t nth, uint8_t *buffer)
{
    uint64_t room = b->node->size - MIN(b->size, b->node->size) + 1;
    uint64_t at = (b->offset + nth * b->step) % room;
    uint64_t n = MIN(b->size, b->node->size);
    g_rw_lock_reader_lock(&b->drain);
    int error = b->write ? chain_write(b->node, at, buffer, n) : chain_read(b->node, at, buffer, n);
    g_rw_lock_reader_unlock(&b->drain);
    if (!error && b->flush_interval && (nth + 1) % b->flush_interval == 0) {
        error = flush(b);
    }
    return error;
}

static gpointer work(gpointer data)
{
    struct bench *b = data;
    uint8_t *buffer = aligned_alloc(ALIGN, (b->size + ALIGN - 1) / ALIGN * ALIGN);
    uint64_t nth;
    int error = buffer ? 0 : -ENOMEM;
    if (buffer) {
        memset(buffer, b->pattern, b->size);
    }
    while (!error && !b->error && (nth = b->taken++) < b->count) {
        error = request(b, nth, buffer);
    }
    if (error) {
        b->error = error;
    }
    free(buffer);
    return NULL;
}

static double run_all(struct bench *b)
{
    GThread *threads[THREADS_MAX] = {NULL};
    unsigned n = (unsigned)MIN(b->depth, THREADS_MAX);
    int64_t start = g_get_monotonic_time();
    g_rw_lock_init(&b->drain);
    for (unsigned i = 1; i < n; i++) {
        threads[i] = g_thread_try_new("bench", work, b, NULL);
    }
    work(b);
    for (unsigned i = 1; i < n; i++) {
        if (threads[i]) {
            g_thread_join(threads[i]);
        }
    }
    g_rw_lock_clear(&b->drain);
    return (double)(g_get_monotonic_time() - start) / 1e6;
}

static bool take_number(const struct args *args, const char *name, const char *what, uint64_t max,
                        uint64_t *out)
{
    const char *text = args_get(args, name);
    if (text && (!text_u64(text, out) || *out > max)) {
        tool_error("Invalid %s specified", what);
        return false;
    }
    return true;
}

static bool take_size(const struct args *args, const char *name, const char *what, uint64_t min,
                      uint64_t max, uint64_t *out)
{
    const char *text = args_get(args, name);
    return !text || tool_number(what, text, min, max, out);
}

static bool take_args(struct bench *b, const struct args *args)
{
    uint64_t pattern = 0;
    static const char *const modes[] = {"threads", "native", "io_uring", NULL};
    const char *aio = args_get(args, "i");
    if (aio && !g_strv_contains(modes, aio)) {
        tool_error("Invalid aio option: %s", aio);
        return false;
    }
    if (!take_number(args, "c", "request count", INT32_MAX, &b->count) ||
        !take_number(args, "d", "queue depth", INT32_MAX, &b->depth) ||
        !take_size(args, "o", "offset", 0, INT64_MAX, &b->offset) ||
        !take_size(args, "s", "buffer size", 1, INT32_MAX, &b->size) ||
        !take_size(args, "S", "step_size", 1, INT32_MAX, &b->step) ||
        !take_number(args, "flush-interval", "flush interval", INT32_MAX, &b->flush_interval) ||
        !take_number(args, "pattern", "pattern byte", UINT8_MAX, &pattern)) {
        return false;
    }
    b->pattern = (uint8_t)pattern;
    b->step = b->step ? b->step : b->size;
    if (!b->write && b->flush_interval) {
        tool_error("--flush-interval is only available in write tests");
        return false;
    }
    if (b->flush_interval && b->flush_interval < b->depth) {
        tool_error("Flush interval can't be smaller than depth");
        return false;
    }
    return true;
}

static bool measure(struct bench *b, bool quiet)
{
    if (!quiet) {
        printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64
               " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
               b->count, b->write ? "write" : "read", b->size, b->depth, b->offset, b->step);
        if (b->flush_interval) {
            printf("Sending flush every %" PRIu64 " requests\n", b->flush_interval);
        }
        fflush(stdout);
    }
    double seconds = run_all(b);
    if (b->error) {
        tool_error("Failed request: %s", g_strerror(-b->error));
        return false;
    }
    if (!quiet) {
        printf("Run completed in %3.3f seconds.\n", seconds);
    }
    return true;
}

static int run(struct args *args)
{
    struct bench b = {
        .count = COUNT_DEFAULT,
        .depth = DEPTH_DEFAULT,
        .size = SIZE_DEFAULT,
        .write = args_has(args, "w"),
        .no_drain = args_has(args, "no-drain"),
    };
    struct tool_common common;
    unsigned flags = b.write ? 0 : OPEN_READ_ONLY;
    const char *cache = args_has(args, "n") ? "none" : args_get(args, "t");
    if (!take_args(&b, args)) {
        return 1;
    }
    if (!cache_flags(cache, &flags)) {
        tool_error("Invalid cache mode");
        return 1;
    }
    if (!tool_common(args, &common)) {
        return 1;
    }
    const char *file = tool_one_file(args);
    b.node = file ? tool_open(&common, file, args_get(args, "f"), flags) : NULL;
    if (!b.node) {
        return 1;
    }
    bool ok = measure(&b, args_has(args, "q")) && tool_flush(b.node, file);
    tool_close(b.node);
    return ok ? 0 : 1;
}

const struct verb verb_bench = {"bench", "measure how fast requests are answered", "FILE", options,
                                run};
