/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/convert.h"
#include "host/image/tool/open.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* lodge-img commit */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    {'b', NULL, "BASE", "commit all above this backing file into it"},
    {'d', NULL, NULL, "do not empty FILE afterwards"},
    OPTION_CACHE,
    OPTION_PROGRESS,
    OPTION_PROGRESS_AS,
    OPTION_QUIET,
    {'r', NULL, "RATE", "bytes a second at most"},
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

/* The node below @top that @name means, as a header has it or as it was found. */
static struct node *find_base(struct node *top, const char *name)
{
    g_autofree char *real = realpath_of(name);
    for (struct node *n = top; n->backing; n = n->backing) {
        g_autofree char *path = node_backing_path(n), *found = path ? realpath_of(path) : NULL;
        if (!g_strcmp0(n->backing_name, name) || !g_strcmp0(node_name(n->backing), name) ||
            (real && !g_strcmp0(real, found))) {
            return n->backing;
        }
    }
    return NULL;
}

static struct node *base_of(struct node *top, const char *file, const char *name)
{
    struct node *base = name ? find_base(top, name) : top->backing;
    if (!base && name) {
        tool_error("Did not find '%s' in the backing chain of '%s'", name, file);
    } else if (!base) {
        tool_error("Image does not have a backing file");
    }
    return base;
}

static bool grow(struct node *base, uint64_t size)
{
    GError *error = NULL;
    if (base->size >= size) {
        return true;
    }
    if (!chain_resize(base, size, PREALLOC_OFF, &error)) {
        tool_report(error, "%s is smaller than what is committed: ", node_name(base));
        return false;
    }
    return true;
}

static bool copy(struct node *top, struct node *base, uint64_t rate)
{
    struct sink_options how = {.packed = false};
    struct feed *feed = feed_above(top, base);
    struct sink *sink = sink_of_chain(base, &how);
    struct copy run = {
        .feed = feed,
        .sink = sink,
        .threads = (unsigned)CLAMP(sysconf(_SC_NPROCESSORS_ONLN), 1, THREADS_MAX),
        .sparse = SPARSE_DEFAULT,
        .rate = rate,
        .progress_of = feed->size,
        .progress = progress_bytes,
    };
    int error = copy_run(&run);
    feed_free(feed);
    sink_free(sink);
    if (error) {
        tool_error("error while %s at byte %" PRIu64 ": %s",
                   run.failed_writing ? "writing" : "reading", run.failed_at, g_strerror(-error));
    }
    return !error;
}

/* The base must be on the medium before anything of the top goes. */
static bool empty(struct node *top, const char *file)
{
    int error = chain_zero(top, 0, top->size, ZERO_ABSENT);
    if (error) {
        tool_error("Could not empty %s: %s", file, g_strerror(-error));
        return false;
    }
    return tool_flush(top, file);
}

static bool commit(struct args *args, struct node *top, const char *file, uint64_t rate)
{
    struct node *base = base_of(top, file, args_get(args, "b"));
    bool drop = args_has(args, "d") || args_has(args, "b");
    GError *error = NULL;
    if (!base) {
        return false;
    }
    if (!node_reopen(base, false, &error)) {
        tool_report(error, "Could not open '%s' for writing: ", node_name(base));
        return false;
    }
    bool ok = grow(base, top->size) && copy(top, base, rate) && tool_flush(base, node_name(base));
    if (!node_reopen(base, true, &error)) {
        tool_report(error, "%s: ", node_name(base));
        return false;
    }
    return ok && (drop || empty(top, file));
}

static int run(struct args *args)
{
    struct tool_common common;
    unsigned flags = OPEN_UNMAP;
    const char *cache = args_get(args, "t"), *r = args_get(args, "r");
    uint64_t rate = 0;
    if (r && !tool_number("rate limit", r, 1, INT64_MAX, &rate)) {
        return 1;
    }
    if (!tool_common(args, &common)) {
        return 1;
    }
    const char *file = tool_one_file(args);
    if (!file) {
        return 1;
    }
    if (!cache_flags(cache, &flags)) {
        tool_error("Invalid cache option: %s", cache);
        return 1;
    }
    struct node *top =
        progress_begin(args) ? tool_open(&common, file, args_get(args, "f"), flags) : NULL;
    if (!top) {
        return 1;
    }
    progress_at(0);
    bool ok = commit(args, top, file, rate);
    if (ok) {
        progress_at(100);
    }
    progress_end();
    tool_close(top);
    if (ok && !args_has(args, "q")) {
        puts("Image committed.");
    }
    return ok ? 0 : 1;
}

const struct verb verb_commit = {"commit", "write what an image changes into its backing file",
                                 "FILE", options, run};
