/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/convert.h"
#include "host/image/tool/open.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* lodge-img dd */

static const struct tool_option options[] = {
    OPTION_HELP,      OPTION_FORMAT, {'O', NULL, "FORMAT", "format of the new image (raw)"},
    OPTION_SHARE,     OPTION_OBJECT, OPTION_IMAGE_OPTS,
    OPTION_UNTRUSTED, {0},
};

enum { BLOCK_DEFAULT = 512, STEP = 256 << 10, ALIGN = 4096 };

struct dd {
    uint64_t block, count, skip;
    bool counted;
    const char *from, *to, *format;
};

static bool take_operand(struct dd *d, const char *word)
{
    const char *eq = strchr(word, '=');
    g_autofree char *name = eq ? g_strndup(word, (gsize)(eq - word)) : g_strdup(word);
    if (eq && !strcmp(name, "if")) {
        d->from = eq + 1;
    } else if (eq && !strcmp(name, "of")) {
        d->to = eq + 1;
    } else if (eq && !strcmp(name, "bs")) {
        return tool_number("bs", eq + 1, 1, INT32_MAX, &d->block);
    } else if (eq && !strcmp(name, "count")) {
        d->counted = true;
        return tool_number("count", eq + 1, 0, INT64_MAX, &d->count);
    } else if (eq && !strcmp(name, "skip")) {
        return tool_number("skip", eq + 1, 0, INT64_MAX, &d->skip);
    } else {
        tool_error("unrecognized operand %s", name);
        return false;
    }
    return true;
}

/* [*from, *to) of the source, which has @size bytes.  As with qemu-img count= is from the start. */
static void range_of(const struct dd *d, uint64_t size, uint64_t *from, uint64_t *to)
{
    uint64_t end;
    if (d->counted && !__builtin_mul_overflow(d->count, d->block, &end) && end < size) {
        size = end;
    }
    *to = size;
    if (__builtin_mul_overflow(d->skip, d->block, from) || *from > size) {
        tool_error("%s: cannot skip to specified offset", d->from);
        *from = size;
    }
}

static bool copy(const struct dd *d, struct node *in, struct node *out, uint64_t from, uint64_t to)
{
    g_autofree uint8_t *buffer = g_malloc(STEP);
    uint64_t n;
    for (uint64_t at = from; at < to; at += n) {
        n = MIN(STEP, to - at);
        int error = chain_read(in, at, buffer, n);
        if (error) {
            tool_error("error while reading from input image file: %s", g_strerror(-error));
            return false;
        }
        error = is_zero(buffer, n) ? 0 : chain_write(out, at - from, buffer, n);
        if (error) {
            tool_error("error while writing to output image file: %s", g_strerror(-error));
            return false;
        }
    }
    return tool_flush(out, d->to);
}

static bool make(const struct dd *d, uint64_t size)
{
    struct tool_create how = {.name = d->to, .format = d->format, .size = size};
    GError *error = NULL;
    if (!create_prepare(&how, NULL, &error)) {
        options_free(how.options);
        tool_report(error, "%s", "");
        return false;
    }
    bool ok = create_run(&how, &error);
    options_free(how.options);
    if (!ok) {
        tool_report(error, "%s: error while creating output image: ", d->to);
    }
    return ok;
}

static int run(struct args *args)
{
    const char *format = args_get(args, "O");
    struct dd d = {.block = BLOCK_DEFAULT, .format = format ? format : "raw"};
    struct tool_common common, plain = {0};
    uint64_t from, to;
    for (unsigned i = 0; i < args->n_operands; i++) {
        if (!take_operand(&d, args->operands[i])) {
            return 1;
        }
    }
    if (!d.from || !d.to) {
        tool_error("Must specify both input and output files");
        return 1;
    }
    if (!tool_common(args, &common)) {
        return 1;
    }
    g_autoptr(Node) in = tool_open(&common, d.from, args_get(args, "f"), OPEN_READ_ONLY);
    if (!in) {
        return 1;
    }
    range_of(&d, in->size, &from, &to);
    g_autoptr(Node) out = make(&d, to - from) ? tool_open(&plain, d.to, d.format, 0) : NULL;
    return out && copy(&d, in, out, from, to) ? 0 : 1;
}

const struct verb verb_dd = {"dd", "copy a part of a disk to a new image",
                             "[bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=FILE of=FILE", options,
                             run};
