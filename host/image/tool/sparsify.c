/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/util.h"
#include "host/image/tool/convert.h"
#include "host/image/tool/open.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * lodge-img sparsify: a copy of the image onto itself of which only the zeros are carried out.
 */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    {'S', NULL, "SIZE", "leave runs of zeros that are shorter than this (4k)"},
    {'m', NULL, "N", "threads, 1 to 16 (one for each processor)"},
    OPTION_CACHE,
    OPTION_PROGRESS,
    OPTION_PROGRESS_AS,
    OPTION_QUIET,
    OPTION_OUTPUT,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

struct cleaner {
    struct sink sink;
    struct node *top;
};

static int keep_data(struct sink *s, uint64_t offset, const void *from, uint64_t n)
{
    (void)s, (void)offset, (void)from, (void)n;
    return 0;
}

static int give_back(struct sink *s, uint64_t offset, uint64_t n)
{
    return chain_zero(container_of(s, struct cleaner, sink)->top, offset, n, ZERO_UNMAP);
}

static bool clean(struct node *top, const char *name, uint64_t sparse, unsigned threads)
{
    struct cleaner c = {.top = top,
                        .sink = {.size = top->size,
                                 .granule = MAX(top->granule, SPARSE_DEFAULT),
                                 .data = keep_data,
                                 .zero = give_back}};
    struct feed *feed = feed_above(top, top->backing);
    struct copy run = {.feed = feed,
                       .sink = &c.sink,
                       .threads = threads,
                       .sparse = sparse,
                       .progress_of = top->size,
                       .progress = progress_bytes};
    int error = copy_run(&run);
    feed_free(feed);
    if (error) {
        tool_error("%s: error while %s at byte %" PRIu64 ": %s", name,
                   run.failed_writing ? "giving space back" : "reading", run.failed_at,
                   g_strerror(-error));
    }
    return !error;
}

static void print(const char *name, uint64_t before, uint64_t after, bool json)
{
    if (json) {
        g_autoptr(json_t) o =
            json_pack("{s:o, s:I, s:I}", "filename", json_text_of(name), "actual-size-before",
                      (json_int_t)before, "actual-size", (json_int_t)after);
        print_json(o);
        return;
    }
    g_autofree char *was = size_text(before), *is = size_text(after);
    printf("Image sparsified: it took %s and takes %s.\n", was, is);
}

struct wish {
    unsigned flags;
    uint64_t sparse, threads;
    bool json;
};

static bool take_args(struct args *args, struct wish *w)
{
    const char *m = args_get(args, "m"), *cache = args_get(args, "t"), *S = args_get(args, "S");
    *w = (struct wish){OPEN_UNMAP, SPARSE_DEFAULT,
                       (uint64_t)CLAMP(sysconf(_SC_NPROCESSORS_ONLN), 1, THREADS_MAX), false};
    if ((m && !tool_number("number of threads", m, 1, THREADS_MAX, &w->threads)) ||
        (S && !tool_number("run of zeros", S, SPARSE_DEFAULT, INT32_MAX, &w->sparse)) ||
        !tool_wants_json(args, &w->json)) {
        return false;
    }
    if (!cache_flags(cache, &w->flags)) {
        tool_error("Invalid cache option: %s", cache);
        return false;
    }
    return true;
}

static int run(struct args *args)
{
    struct tool_common common;
    struct wish wish;
    if (!take_args(args, &wish) || !tool_common(args, &common)) {
        return 1;
    }
    const char *file = tool_one_file(args);
    g_autoptr(Node) node = file ? tool_open(&common, file, args_get(args, "f"), wish.flags) : NULL;
    if (!node || !progress_begin(args)) {
        return 1;
    }
    if (!node->format->zero && !node->format->flat) {
        tool_error("%s: format '%s' cannot give space back in place", file, node->format->name);
        return 1;
    }
    uint64_t before = file_allocated(node->file);
    bool ok = clean(node, file, wish.sparse, (unsigned)wish.threads) && tool_flush(node, file);
    progress_end();
    if (ok && !args_has(args, "q")) {
        print(file, before, file_allocated(node->file), wish.json);
    }
    return ok ? 0 : 1;
}

const struct verb verb_sparsify = {"sparsify", "give back the space that zeros take", "FILE",
                                   options, run};
