/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/util.h"
#include "host/image/tool/convert.h"
#include "host/image/tool/open.h"

#include <gcrypt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* lodge-img checksum: a sink that keeps nothing but a digest of what the guest would read. */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    {'l', NULL, "SNAPSHOT", "of this internal snapshot"},
    {'m', NULL, "N", "threads, 1 to 16 (one for each processor)"},
    OPTION_SRC_CACHE,
    OPTION_PROGRESS,
    OPTION_PROGRESS_AS,
    OPTION_QUIET,
    OPTION_OUTPUT,
    OPTION_SHARE,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

enum { DIGEST_BYTES = 32, ZEROES = 64 << 10 };

struct digest {
    struct sink sink;
    gcry_md_hd_t md;
};

static int take_data(struct sink *s, uint64_t offset, const void *from, uint64_t n)
{
    struct digest *d = container_of(s, struct digest, sink);
    (void)offset;
    gcry_md_write(d->md, from, n);
    return 0;
}

static int take_zero(struct sink *s, uint64_t offset, uint64_t n)
{
    static const uint8_t zeroes[ZEROES];
    struct digest *d = container_of(s, struct digest, sink);
    (void)offset;
    for (uint64_t now; n; n -= now) {
        now = MIN(n, ZEROES);
        gcry_md_write(d->md, zeroes, now);
    }
    return 0;
}

/* All bytes of @node as hexadecimal digits; NULL after a message. */
static char *digest_of(struct node *node, const char *name, unsigned threads)
{
    struct digest d = {.sink = {.size = node->size,
                                .granule = 4096,
                                .ordered = true,
                                .data = take_data,
                                .zero = take_zero}};
    if (gcry_md_open(&d.md, GCRY_MD_SHA256, 0)) {
        tool_error("no SHA-256 in libgcrypt");
        return NULL;
    }
    struct feed *feed = feed_of_chains(&node, 1);
    struct copy run = {.feed = feed,
                       .sink = &d.sink,
                       .threads = threads,
                       .progress_of = node->size,
                       .progress = progress_bytes};
    int error = copy_run(&run);
    feed_free(feed);
    g_autoptr(GString) hex = g_string_new(NULL);
    const uint8_t *bytes = error ? NULL : gcry_md_read(d.md, GCRY_MD_SHA256);
    for (unsigned i = 0; bytes && i < DIGEST_BYTES; i++) {
        g_string_append_printf(hex, "%02x", bytes[i]);
    }
    gcry_md_close(d.md);
    if (error) {
        tool_error("%s: error while reading at byte %" PRIu64 ": %s", name, run.failed_at,
                   g_strerror(-error));
        return NULL;
    }
    return g_string_free(g_steal_pointer(&hex), FALSE);
}

static void print(const char *name, const struct node *node, const char *hex, bool json)
{
    if (json) {
        g_autoptr(json_t) o =
            json_pack("{s:o, s:s, s:I, s:s}", "filename", json_text_of(name), "format",
                      node->format->name, "virtual-size", (json_int_t)node->size, "sha256", hex);
        print_json(o);
    } else {
        printf("%s  %s\n", hex, name); /* as sha256sum does */
    }
}

static int run(struct args *args)
{
    struct tool_common common;
    bool json;
    unsigned flags = OPEN_READ_ONLY;
    uint64_t threads = 0;
    const char *m = args_get(args, "m"), *cache = args_get(args, "T"), *snap = args_get(args, "l");
    if ((m && !tool_number("number of threads", m, 1, THREADS_MAX, &threads)) ||
        !tool_wants_json(args, &json) || !tool_common(args, &common)) {
        return 1;
    }
    if (!cache_flags(cache, &flags)) {
        tool_error("Invalid source cache option: %s", cache);
        return 1;
    }
    const char *file = tool_one_file(args);
    g_autoptr(Node) node = file ? tool_open(&common, file, args_get(args, "f"), flags) : NULL;
    GError *error = NULL;
    if (!node || !progress_begin(args)) {
        return 1;
    }
    if (snap && !tool_load_snapshot(node, snap, &error)) {
        tool_report(error, "Failed to load snapshot: ");
        return 1;
    }
    g_autofree char *hex = digest_of(node, file, m ? (unsigned)threads : tool_threads(node));
    progress_end();
    if (hex) {
        print(file, node, hex, json);
    }
    return hex ? 0 : 1;
}

const struct verb verb_checksum = {"checksum", "SHA-256 of the bytes that a guest reads", "FILE",
                                   options, run};
