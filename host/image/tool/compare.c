/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/convert.h"
#include "host/image/tool/open.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* lodge-img compare */

static const struct tool_option options[] = {
    OPTION_HELP,
    {'f', NULL, "FORMAT", "format of the first image"},
    {'F', NULL, "FORMAT", "format of the second image"},
    OPTION_SRC_CACHE,
    OPTION_PROGRESS,
    OPTION_PROGRESS_AS,
    OPTION_QUIET,
    {'s', NULL, NULL, "sizes, and what takes space, must be the same too"},
    OPTION_SHARE,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

enum { CODE_SAME, CODE_DIFFERENT, CODE_NOT_OPENED, CODE_NO_STATUS, CODE_NOT_READ };
enum { STEP = 256 << 10, SECTOR = 512, ALIGN = 4096 }; /* STEP: two stay in a core's cache */

struct compare {
    const char *names[2];
    struct node *nodes[2];
    uint8_t *buffers[2];
    struct chain_status known[2]; /* of each from .known_at on */
    uint64_t known_at[2];
    bool strict, quiet;
    uint64_t common; /* bytes that both have */
    uint64_t longest;
};

static void say(const struct compare *c, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static void say(const struct compare *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!c->quiet) {
        vprintf(fmt, ap);
    }
    va_end(ap);
}

/* Asked once a range: for a file that is one of data the answer may take as long as a walk
 * through all of it. */
static int status_of(struct compare *c, unsigned which, uint64_t offset, struct chain_status *s)
{
    struct chain_status *k = &c->known[which];
    uint64_t end = c->known_at[which] + k->length;
    if (offset < c->known_at[which] || offset >= end) {
        uint64_t n = c->nodes[which]->size - offset;
        if (chain_status(c->nodes[which], NULL, offset, n, k)) {
            tool_error("Sector allocation test failed for %s", c->names[which]);
            return CODE_NO_STATUS;
        }
        c->known_at[which] = offset;
        end = offset + k->length;
    }
    *s = *k;
    s->length = end - offset;
    return CODE_SAME;
}

/* How many whole sectors from the start on are the same; as far as the first mismatch. */
static uint64_t same_bytes(const uint8_t *a, const uint8_t *b, uint64_t n)
{
    uint64_t at = 0;
    while (at < n && !memcmp(a + at, b + at, MIN(SECTOR, n - at))) {
        at += SECTOR;
    }
    return MIN(at, n);
}

static int fetch(const struct compare *c, unsigned which, uint64_t offset, uint64_t n)
{
    int error = chain_read(c->nodes[which], offset, c->buffers[which], n);
    if (error) {
        tool_error("Error while reading offset %" PRIu64 " of %s: %s", offset, c->names[which],
                   g_strerror(-error));
        return CODE_NOT_READ;
    }
    return CODE_SAME;
}

static int mismatch(const struct compare *c, uint64_t offset)
{
    say(c, "Content mismatch at offset %" PRIu64 "!\n", offset);
    return CODE_DIFFERENT;
}

static int both_data(const struct compare *c, uint64_t offset, uint64_t n)
{
    int code = fetch(c, 0, offset, n);
    code = code ? code : fetch(c, 1, offset, n);
    if (code || !memcmp(c->buffers[0], c->buffers[1], n)) {
        return code;
    }
    return mismatch(c, offset + same_bytes(c->buffers[0], c->buffers[1], n));
}

/* @which has bytes where the other reads as zero. */
static int must_be_zero(const struct compare *c, unsigned which, uint64_t offset, uint64_t n)
{
    int code = fetch(c, which, offset, n);
    if (code || is_zero(c->buffers[which], n)) {
        return code;
    }
    uint64_t at = 0;
    while (is_zero(c->buffers[which] + at, MIN(SECTOR, n - at))) {
        at += SECTOR;
    }
    return mismatch(c, offset + at);
}

static bool same_kind(const struct chain_status *a, const struct chain_status *b)
{
    return a->data == b->data && a->zero == b->zero && a->present == b->present;
}

static int compare_common(struct compare *c)
{
    struct chain_status s[2];
    uint64_t n;
    for (uint64_t at = 0; at < c->common; at += n) {
        int code = status_of(c, 0, at, &s[0]);
        code = code ? code : status_of(c, 1, at, &s[1]);
        if (code) {
            return code;
        }
        if (c->strict && !same_kind(&s[0], &s[1])) {
            say(c, "Strict mode: Offset %" PRIu64 " block status mismatch!\n", at);
            return CODE_DIFFERENT;
        }
        n = MIN(MIN(s[0].length, s[1].length), c->common - at);
        if (!s[0].zero || !s[1].zero) {
            n = MIN(n, STEP);
            code = s[0].zero   ? must_be_zero(c, 1, at, n)
                   : s[1].zero ? must_be_zero(c, 0, at, n)
                               : both_data(c, at, n);
        }
        if (code) {
            return code;
        }
        progress_bytes(at + n, c->longest);
    }
    return CODE_SAME;
}

/* What only the longer one has must read as zero. */
static int compare_rest(struct compare *c)
{
    unsigned which = c->nodes[1]->size > c->nodes[0]->size;
    struct chain_status s;
    uint64_t n;
    say(c, "Warning: Image size mismatch!\n");
    for (uint64_t at = c->common; at < c->longest; at += n) {
        int code = status_of(c, which, at, &s);
        if (code) {
            return code;
        }
        n = s.zero ? s.length : MIN(s.length, STEP);
        code = s.zero ? CODE_SAME : must_be_zero(c, which, at, n);
        if (code) {
            return code;
        }
        progress_bytes(at + n, c->longest);
    }
    return CODE_SAME;
}

static int compare(struct compare *c)
{
    uint64_t a = c->nodes[0]->size, b = c->nodes[1]->size;
    c->common = MIN(a, b);
    c->longest = MAX(a, b);
    if (c->strict && a != b) {
        say(c, "Strict mode: Image size mismatch!\n");
        return CODE_DIFFERENT;
    }
    c->buffers[0] = aligned_alloc(ALIGN, STEP);
    c->buffers[1] = aligned_alloc(ALIGN, STEP);
    if (!c->buffers[0] || !c->buffers[1]) {
        tool_error("%s", g_strerror(ENOMEM));
        return CODE_NOT_READ;
    }
    int code = compare_common(c);
    if (!code && a != b) {
        code = compare_rest(c);
    }
    if (!code) {
        say(c, "Images are identical.\n");
    }
    return code;
}

static int run(struct args *args)
{
    struct compare c = {.strict = args_has(args, "s"), .quiet = args_has(args, "q")};
    struct tool_common common;
    unsigned flags = OPEN_READ_ONLY;
    const char *cache = args_get(args, "T");
    int code = CODE_NOT_OPENED;
    if (!tool_common(args, &common)) {
        return CODE_NOT_OPENED;
    }
    if (args->n_operands != 2) {
        return tool_usage("Expecting two image file names");
    }
    if (!cache_flags(cache, &flags)) {
        tool_error("Invalid source cache option: %s", cache);
        return CODE_NOT_OPENED;
    }
    if (!progress_begin(args)) {
        return CODE_NOT_OPENED;
    }
    c.names[0] = args->operands[0];
    c.names[1] = args->operands[1];
    c.nodes[0] = tool_open(&common, c.names[0], args_get(args, "f"), flags);
    c.nodes[1] = c.nodes[0] ? tool_open(&common, c.names[1], args_get(args, "F"), flags) : NULL;
    if (c.nodes[1]) {
        progress_at(0);
        code = compare(&c);
        progress_end();
    }
    for (unsigned i = 0; i < 2; i++) {
        tool_close(c.nodes[i]);
        free(c.buffers[i]);
    }
    return code;
}

const struct verb verb_compare = {"compare", "tell whether two disks hold the same bytes",
                                  "FILE1 FILE2", options, run};
