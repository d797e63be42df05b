/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/convert.h"
#include "host/image/tool/open.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* lodge-img rebase */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    {'b', NULL, "BACKING", "the new backing file; empty: none"},
    {'F', NULL, "FORMAT", "its format"},
    {'u', NULL, NULL, "only change the name in FILE; nothing is read or copied"},
    OPTION_PROGRESS,
    OPTION_PROGRESS_AS,
    OPTION_CACHE,
    OPTION_SRC_CACHE,
    OPTION_QUIET,
    OPTION_SHARE,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

enum { STEP = 256 << 10, PART = 4 << 20, SECTOR = 512, ALIGN = 4096 };

struct rebase {
    struct node *top, *before, *after; /* backing nodes: NULL for none */
    struct node *shared;               /* .after is this node of the old chain */
    struct team *team;
    uint8_t *buffers[2];
    /* What is known of .before and .after, from an offset on: asked once a range. */
    struct range {
        uint64_t from, to;
        bool zero;
    } known[2];
};

/* All threads take parts of the disk, one after the other. */
struct team {
    GMutex lock; /* of all below, and of messages */
    uint64_t next, done, size;
    bool failed;
};

static void fail(struct rebase *r, const char *what, int error)
{
    g_mutex_lock(&r->team->lock);
    if (!r->team->failed) {
        tool_error("%s: %s", what, g_strerror(-error));
    }
    r->team->failed = true;
    g_mutex_unlock(&r->team->lock);
}

/* The bytes of a backing node, zeros behind its end. */
static int fetch(struct node *node, uint64_t offset, uint8_t *to, uint64_t n)
{
    uint64_t there = node && offset < node->size ? MIN(n, node->size - offset) : 0;
    memset(to + there, 0, n - there);
    return there ? chain_read(node, offset, to, there) : 0;
}

/* How far the status at @offset goes, and whether it is zero for sure. */
static int look(struct node *node, struct range *known, uint64_t offset, uint64_t n)
{
    struct chain_status s = {.length = n, .zero = true};
    if (offset >= known->from && offset < known->to) {
        return 0;
    }
    int error = node && offset < node->size
                    ? chain_status(node, NULL, offset, MIN(n, node->size - offset), &s)
                    : 0;
    *known = (struct range){offset, offset + s.length, s.zero};
    return error;
}

/* Writes the sectors in which the two differ. */
static int keep_difference(struct rebase *r, uint64_t offset, uint64_t n)
{
    const uint8_t *old = r->buffers[0], *new = r->buffers[1];
    for (uint64_t at = 0, end; at < n; at = end) {
        bool same = !memcmp(old + at, new + at, MIN(SECTOR, n - at));
        for (end = at + SECTOR; end < n; end += SECTOR) {
            if (!memcmp(old + end, new + end, MIN(SECTOR, n - end)) != same) {
                break;
            }
        }
        end = MIN(end, n);
        int error = same ? 0 : chain_write(r->top, offset + at, old + at, end - at);
        if (error) {
            fail(r, "Error while writing to COW image", error);
            return error;
        }
    }
    return 0;
}

/* A range that shows the backing file. */
static int settle(struct rebase *r, uint64_t offset, uint64_t *length)
{
    struct range *before = &r->known[0], *after = &r->known[1];
    int error = look(r->before, before, offset, r->top->size - offset);
    error = error ? error : look(r->after, after, offset, r->top->size - offset);
    if (error) {
        fail(r, "error while reading image metadata", error);
        return error;
    }
    *length = MIN(*length, MIN(before->to, after->to) - offset);
    if (before->zero && after->zero) {
        return 0;
    }
    *length = MIN(*length, STEP);
    error = fetch(r->before, offset, r->buffers[0], *length);
    if (error) {
        fail(r, "error while reading from old backing file", error);
        return error;
    }
    error = fetch(r->after, offset, r->buffers[1], *length);
    if (error) {
        fail(r, "error while reading from new backing file", error);
        return error;
    }
    return memcmp(r->buffers[0], r->buffers[1], *length) ? keep_difference(r, offset, *length) : 0;
}

/* Whether what shows at @offset comes from above the node that stays below; for *@length of @n
 * bytes. */
static int shows_backing(struct rebase *r, uint64_t offset, uint64_t n, uint64_t *length,
                         bool *shows)
{
    struct chain_status s;
    int error = chain_status(r->top, r->before, offset, n, &s);
    *shows = !error && !s.present;
    if (*shows && r->shared && offset < r->before->size) {
        n = MIN(s.length, r->before->size - offset);
        error = chain_status(r->before, r->shared, offset, n, &s);
        *shows = !error && s.present;
    }
    *length = s.length;
    if (error) {
        fail(r, "error while reading image metadata", error);
    }
    return error;
}

static bool settle_part(struct rebase *r, uint64_t from, uint64_t to)
{
    uint64_t range;
    for (uint64_t at = from; at < to; at += range) {
        bool shows;
        if (shows_backing(r, at, to - at, &range, &shows)) {
            return false;
        }
        for (uint64_t done = 0, n; done < range && shows; done += n) {
            n = range - done;
            if (settle(r, at + done, &n)) {
                return false;
            }
        }
    }
    return true;
}

/* The next part; false if there is none, or somebody has failed.  @n: of what has just been done. */
static bool next_part(struct team *t, uint64_t n, uint64_t *from, uint64_t *to)
{
    g_mutex_lock(&t->lock);
    t->done += n;
    progress_bytes(t->done, t->size);
    *from = t->next;
    *to = t->next = MIN(t->next + PART, t->size);
    bool more = !t->failed && *from < *to;
    g_mutex_unlock(&t->lock);
    return more;
}

static gpointer settle_parts(gpointer rebase)
{
    struct rebase r = *(struct rebase *)rebase;
    uint64_t from = 0, to = 0;
    r.buffers[0] = aligned_alloc(ALIGN, STEP);
    r.buffers[1] = aligned_alloc(ALIGN, STEP);
    if (!r.buffers[0] || !r.buffers[1]) {
        fail(&r, "no memory for a copy", -ENOMEM);
    }
    while (next_part(r.team, to - from, &from, &to) && settle_part(&r, from, to)) {
    }
    free(r.buffers[0]);
    free(r.buffers[1]);
    return NULL;
}

static bool settle_all(struct rebase *r)
{
    struct team team = {.size = r->top->size};
    GThread *others[THREADS_MAX];
    unsigned n = tool_threads(r->top) - 1;
    r->team = &team;
    g_mutex_init(&team.lock);
    for (unsigned i = 0; i < n; i++) {
        others[i] = g_thread_new("rebase", settle_parts, r);
    }
    settle_parts(r);
    for (unsigned i = 0; i < n; i++) {
        g_thread_join(others[i]);
    }
    g_mutex_clear(&team.lock);
    return !team.failed;
}

static bool change_name(struct node *top, const char *name, const char *format)
{
    const struct format_tools *tools = top->format->tools;
    g_autoptr(GError) error = NULL;
    const char *why = NULL;
    if (name && !format) {
        why = "backing format must be specified";
    } else if (!tools || !tools->set_backing) {
        why = g_strerror(ENOTSUP);
    } else if (!tools->set_backing(top, name, format, &error)) {
        why = error_errno(error) == ENOSPC ? "No space left in the file header" : error->message;
    }
    if (why) {
        tool_error("Could not change the backing file to '%s': %s", name ? name : "", why);
    }
    return !why;
}

/* The new backing file: a node of the old chain, or one of its own in *opened. */
static bool open_new(struct rebase *r, const char *file, const char *name, const char *format,
                     unsigned flags, struct node **opened)
{
    g_autofree char *path = backing_path(file, name), *real = realpath_of(path);
    g_autoptr(GError) error = NULL;
    for (struct node *n = r->before; n; n = n->backing) {
        g_autofree char *known = realpath_of(node_name(n));
        if (real && !g_strcmp0(real, known)) {
            r->after = r->shared = n;
            return true;
        }
    }
    struct chain_open how = {.name = path, .format = format, .flags = OPEN_READ_ONLY | flags};
    *opened = r->after = chain_open(&how, &error);
    if (!*opened) {
        tool_error("Could not open new backing file '%s': %s", name, error->message);
    }
    return *opened != NULL;
}

static bool safely(struct node *top, const char *file, const char *name, const char *format,
                   unsigned flags)
{
    struct rebase r = {.top = top, .before = top->backing};
    struct node *opened = NULL;
    bool ok = !name || open_new(&r, file, name, format, flags, &opened);
    ok = ok && settle_all(&r) && tool_flush(top, file);
    tool_close(opened);
    return ok;
}

static int run(struct args *args)
{
    const char *name = args_get(args, "b"), *format = args_get(args, "F");
    const char *t = args_get(args, "t"), *source = args_get(args, "T");
    bool unsafe = args_has(args, "u");
    struct tool_common common;
    unsigned flags = OPEN_UNMAP | (unsafe ? OPEN_NO_BACKING : 0), source_flags = 0;
    if (!tool_common(args, &common)) {
        return 1;
    }
    const char *file = tool_one_file(args);
    if (!file) {
        return 1;
    }
    if (!unsafe && !name) {
        return tool_usage("Must specify backing file (-b) or use unsafe mode (-u)");
    }
    if (!cache_flags(t, &flags)) {
        tool_error("Invalid cache option: %s", t);
        return 1;
    }
    if (!cache_flags(source, &source_flags)) {
        tool_error("Invalid source cache option: %s", source);
        return 1;
    }
    struct node *top =
        progress_begin(args) ? tool_open(&common, file, args_get(args, "f"), flags) : NULL;
    if (!top) {
        return 1;
    }
    name = name && *name ? name : NULL;
    bool ok = true;
    if (format && !format_find(format, NULL)) {
        tool_error("Invalid format name: '%s'", format);
        ok = false;
    }
    progress_at(0);
    ok = ok && (unsafe || safely(top, file, name, format, source_flags | common.flags)) &&
         change_name(top, name, format) && tool_flush(top, file);
    if (ok) {
        progress_at(100);
    }
    progress_end();
    tool_close(top);
    return ok ? 0 : 1;
}

const struct verb verb_rebase = {"rebase", "give an image another backing file", "FILE", options,
                                 run};
