/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/open.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* lodge-img map */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_LONG_FORMAT,
    {'s', "start-offset", "OFFSET", "start there"},
    {'l', "max-length", "LENGTH", "tell of so many bytes"},
    OPTION_OUTPUT,
    OPTION_SHARE,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

struct entry {
    uint64_t start;
    struct chain_status s;
};

/* Whether @b goes on where @a ends. */
static bool merges(const struct entry *a, const struct entry *b)
{
    return a->s.zero == b->s.zero && a->s.data == b->s.data && a->s.present == b->s.present &&
           a->s.depth == b->s.depth && a->s.offset_valid == b->s.offset_valid &&
           a->s.file == b->s.file && (!a->s.offset_valid || a->s.at + a->s.length == b->s.at);
}

static bool print_human(const struct entry *e)
{
    if (!e->s.data || e->s.zero) {
        return true;
    }
    if (!e->s.offset_valid) {
        tool_error("File contains external, encrypted or compressed clusters.");
        return false;
    }
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", e->start, e->s.length, e->s.at,
           file_name(e->s.file));
    return true;
}

static bool print_as_json(const struct entry *e, bool last)
{
    printf("{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, \"present\": %s, "
           "\"zero\": %s, \"data\": %s",
           e->start, e->s.length, e->s.depth, e->s.present ? "true" : "false",
           e->s.zero ? "true" : "false", e->s.data ? "true" : "false");
    if (e->s.offset_valid) {
        printf(", \"offset\": %" PRIu64, e->s.at);
    }
    fputs(last ? "}" : "},\n", stdout);
    return true;
}

static bool print_entry(const struct entry *e, bool json, bool last)
{
    return !e->s.length || (json ? print_as_json(e, last) : print_human(e));
}

static bool map(struct node *node, uint64_t from, uint64_t to, bool json)
{
    struct entry now = {0}, next = {.start = from};
    for (; next.start < to; next.start += next.s.length) {
        int error = chain_status(node, NULL, next.start, to - next.start, &next.s);
        if (error) {
            tool_error("Failed to read image metadata: %s", g_strerror(-error));
            return false;
        }
        status_as_told(&next.s);
        if (now.s.length && merges(&now, &next)) {
            now.s.length += next.s.length;
            continue;
        }
        if (!print_entry(&now, json, false)) {
            return false;
        }
        now = next;
    }
    return print_entry(&now, json, true);
}

static int run(struct args *args)
{
    struct tool_common common;
    bool json;
    uint64_t start = 0, length = UINT64_MAX;
    const char *s = args_get(args, "s"), *l = args_get(args, "l");
    if ((s && !tool_number("start offset", s, 0, INT64_MAX, &start)) ||
        (l && !tool_number("max length", l, 0, INT64_MAX, &length)) ||
        !tool_wants_json(args, &json) || !tool_common(args, &common)) {
        return 1;
    }
    const char *file = tool_one_file(args);
    g_autoptr(Node) node =
        file ? tool_open(&common, file, args_get(args, "f"), OPEN_READ_ONLY) : NULL;
    if (!node) {
        return 1;
    }
    if (json) {
        putchar('[');
    } else {
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    }
    uint64_t end = length < node->size - MIN(start, node->size) ? start + length : node->size;
    bool ok = map(node, start, end, json);
    if (json && ok) {
        puts("]");
    }
    return ok ? 0 : 1;
}

const struct verb verb_map = {"map", "tell where the bytes of a disk lie", "FILE", options, run};
