/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/open.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* lodge-img create */

static const struct tool_option options[] = {
    OPTION_HELP,
    {'f', NULL, "FORMAT", "format of the new image (raw)"},
    {'b', NULL, "BACKING", "what is not written comes from this image"},
    {'F', NULL, "FORMAT", "format of BACKING"},
    {'o', NULL, "OPTIONS", "options of the format; -o help lists them"},
    {'u', NULL, NULL, "do not look at BACKING"},
    OPTION_QUIET,
    OPTION_OBJECT,
    {0},
};

/* The order in which qemu-img shows what it makes. */
static const char *const order_qcow2[] = {
    "encryption",
    "encrypt.format",
    "encrypt.key-secret",
    "encrypt.cipher-alg",
    "encrypt.cipher-mode",
    "encrypt.ivgen-alg",
    "encrypt.ivgen-hash-alg",
    "encrypt.hash-alg",
    "encrypt.iter-time",
    "cluster_size",
    "extended_l2",
    "preallocation",
    "compression_type",
    "size",
    "compat",
    "backing_file",
    "backing_fmt",
    "data_file",
    "data_file_raw",
    "lazy_refcounts",
    "refcount_bits",
    "nocow",
    "extent_size_hint",
    NULL,
};
static const char *const order_others[] = {
    "size",         "adapter_type", "backing_file",   "backing_fmt",        "compat6",
    "hwversion",    "toolsversion", "log_size",       "block_size",         "static",
    "cluster_size", "table_size",   "subformat",      "force_size",         "block_state_zero",
    "zeroed_grain", "encryption",   "encrypt.format", "encrypt.key-secret", "key-secret",
    "cipher-alg",   "cipher-mode",  "ivgen-alg",      "ivgen-hash-alg",     "hash-alg",
    "iter-time",    "nocow",        "preallocation",  "extent_size_hint",   NULL,
};

static const struct option_desc *find_desc(const struct option_desc *table, const char *name)
{
    for (; table && table->name; table++) {
        if (!strcmp(table->name, name)) {
            return table;
        }
    }
    return NULL;
}

static void show_option(const struct image_format *f, const Options *o, const char *name)
{
    const struct option_desc *d = find_desc(f->tools->create_options, name);
    const char *value = option_str(o, name);
    d = d ? d : find_desc(local_options, name);
    if (!d || (!value && !d->fallback)) {
        return;
    }
    printf(" %s=", name);
    if (!value) {
        printf("%s", d->fallback);
    } else if (!strcmp(d->type, "size")) {
        printf("%" PRIu64, option_size(o, name, 0));
    } else if (!strcmp(d->type, "num")) {
        printf("%" PRIu64, option_num(o, name, 0));
    } else {
        for (; *value; value++) {
            printf(*value == ',' ? ",," : "%c", *value);
        }
    }
}

static void show(const struct tool_create *how)
{
    const struct image_format *f = format_find(how->format, NULL);
    printf("Formatting '%s', fmt=%s", how->name, how->format);
    for (const char *const *name = strcmp(how->format, "qcow2") ? order_others : order_qcow2; *name;
         name++) {
        show_option(f, how->options, *name);
    }
    putchar('\n');
    fflush(stdout);
}

/* -b and -F are options too; what -o says of them counts as much. */
static bool take_backing(struct tool_create *how, const char *b, const char *F, GError **error)
{
    if (b && !options_set(how->options, "backing_file", b, NULL)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Backing file not supported for file format '%s'",
                    how->format);
        return false;
    }
    if (F && !options_set(how->options, "backing_fmt", F, NULL)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Backing format not supported for file format '%s'",
                    how->format);
        return false;
    }
    how->backing = option_str(how->options, "backing_file");
    how->backing_format = option_str(how->options, "backing_fmt");
    if (how->backing && !*how->backing) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Expected backing file name, got empty string");
        return false;
    }
    if (how->backing && !strcmp(how->backing, how->name)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Error: Trying to create an image with the same filename as the backing file");
        return false;
    }
    return true;
}

/* The size of an image that gives none is that of the backing image. */
static bool look_at_backing(const struct tool_create *how, bool *sized, uint64_t *size,
                            GError **error)
{
    g_autofree char *path = backing_path(how->name, how->backing);
    struct chain_open open = {
        .name = path, .format = how->backing_format, .flags = OPEN_READ_ONLY | OPEN_SHARE};
    g_autoptr(GError) inner = NULL;
    g_autoptr(Node) node = chain_open(&open, &inner);
    if (!node) {
        g_set_error(error, LODGE_ERROR, error_errno(inner), "%s\nCould not open backing image.",
                    inner->message);
        return false;
    }
    if (!how->backing_format) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Backing file specified without backing format\nDetected format of %s.",
                    node->format->name);
        return false;
    }
    if (!*sized) {
        *size = node->size;
        *sized = true;
    }
    return true;
}

static bool create(struct tool_create *how, const struct args *args, bool sized, GError **error)
{
    g_autofree char *text = args_joined(args, "o");
    if (!create_prepare(how, text, error) ||
        !take_backing(how, args_get(args, "b"), args_get(args, "F"), error)) {
        return false;
    }
    if (option_given(how->options, "size")) {
        if (sized) {
            g_set_error(error, LODGE_ERROR, EINVAL, "The image size must be specified only once");
            return false;
        }
        how->size = option_size(how->options, "size", 0);
        sized = true;
    }
    if (how->backing && !args_has(args, "u")) {
        if (!look_at_backing(how, &sized, &how->size, error)) {
            return false;
        }
    } else if (how->backing && !how->backing_format) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Backing file specified without backing format");
        return false;
    }
    if (!sized) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Image creation needs a size parameter");
        return false;
    }
    g_autofree char *bytes = g_strdup_printf("%" PRIu64, how->size);
    if (!options_set(how->options, "size", bytes, error)) {
        return false;
    }
    if (!args_has(args, "q")) {
        show(how);
    }
    return create_run(how, error);
}

static int run(struct args *args)
{
    g_autofree char *text = args_joined(args, "o");
    struct tool_create how = {.format = args_get(args, "f")};
    struct tool_common common;
    GError *error = NULL;
    how.format = how.format ? how.format : "raw";
    if (options_ask_help(text)) {
        const struct image_format *f = format_find(how.format, NULL);
        if (!f) {
            tool_error("Unknown file format '%s'", how.format);
            return 1;
        }
        return print_create_options(f, args->n_operands > 0);
    }
    if (!tool_common(args, &common)) {
        return 1;
    }
    if (args->n_operands < 1) {
        return tool_usage("Expecting image file name");
    }
    how.name = args->operands[0];
    if (args->n_operands > 1 &&
        !tool_number("image size", args->operands[1], 0, INT64_MAX, &how.size)) {
        return 1;
    }
    if (args->n_operands > 2) {
        return tool_usage("Unexpected argument: %s", args->operands[2]);
    }
    bool ok = create(&how, args, args->n_operands > 1, &error);
    options_free(how.options);
    if (!ok) {
        tool_report(error, "%s: ", how.name);
    }
    return ok ? 0 : 1;
}

const struct verb verb_create = {"create", "make a new image", "FILE [SIZE]", options, run};
