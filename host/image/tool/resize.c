/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/open.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* lodge-img resize */

static const struct tool_option options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    {0, "shrink", NULL, "the disk may become smaller: what is behind its new end is lost"},
    {0, "preallocation", "MODE", "off, metadata, falloc or full: for what is added"},
    OPTION_QUIET,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED,
    {0},
};

enum { SECTOR = 512 };

struct resize {
    uint64_t amount;
    char sign; /* '+', '-', or 0: the size itself */
    enum preallocation prealloc;
    bool shrink, quiet;
};

static bool take_amount(struct resize *r, const char *text)
{
    r->sign = *text == '+' || *text == '-' ? *text : 0;
    text += r->sign != 0;
    if (!*text || !text_size(text, 1, &r->amount) || r->amount > INT64_MAX) {
        tool_error("Parameter 'size' expects a non-negative number below 2^64\n"
                   "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                   "and exabytes, respectively.");
        return false;
    }
    return true;
}

static bool new_size(const struct resize *r, uint64_t now, uint64_t *size)
{
    uint64_t grown = now + r->amount;
    if (r->sign == '-' ? r->amount >= now : r->sign == '+' ? grown == 0 : r->amount == 0) {
        tool_error("New image size must be positive");
        return false;
    }
    *size = r->sign == '-' ? now - r->amount : r->sign == '+' ? grown : r->amount;
    return true;
}

static bool allowed(const struct resize *r, uint64_t now, uint64_t size)
{
    if (size <= now && r->prealloc != PREALLOC_OFF) {
        tool_error("Preallocation can only be used for growing images");
        return false;
    }
    if (size < now && !r->shrink) {
        tool_error("Use the --shrink option to perform a shrink operation.");
        tool_warn("Shrinking an image will delete all data beyond the shrunken image's end. Before "
                  "performing such an operation, make sure there is no important data there.");
        return false;
    }
    return true;
}

static bool resize(const struct resize *r, struct node *node)
{
    GError *error = NULL;
    uint64_t size;
    if (!new_size(r, node->size, &size) || !allowed(r, node->size, size)) {
        return false;
    }
    if (size % SECTOR && strcmp(node->format->name, "raw") != 0) {
        tool_error("The new size must be a multiple of 512");
        return false;
    }
    size = (size + SECTOR - 1) / SECTOR * SECTOR;
    if (!chain_resize(node, size, r->prealloc, &error)) {
        tool_report(error, "%s", "");
        return false;
    }
    return true;
}

static int run(struct args *args)
{
    struct resize r = {.shrink = args_has(args, "shrink"), .quiet = args_has(args, "q")};
    const char *mode = args_get(args, "preallocation");
    struct tool_common common;
    if (mode && !preallocation_of(mode, &r.prealloc, NULL)) {
        tool_error("Invalid preallocation mode '%s'", mode);
        return 1;
    }
    if (args->n_operands < 2) {
        return tool_usage("Not enough arguments");
    }
    if (args->n_operands > 2) {
        return tool_usage("Expecting image file name and size");
    }
    if (!tool_common(args, &common) || !take_amount(&r, args->operands[1])) {
        return 1;
    }
    const char *file = args->operands[0];
    struct node *node = tool_open(&common, file, args_get(args, "f"), OPEN_UNMAP);
    bool ok = node && resize(&r, node) && tool_flush(node, file);
    tool_close(node);
    if (ok && !r.quiet) {
        puts("Image resized.");
    }
    return ok ? 0 : 1;
}

const struct verb verb_resize = {
    "resize", "change the size of a disk", "FILE [+|-]SIZE", options, run, true};
