/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -o: its help, and making an image by it. */

const struct option_desc local_options[] = {
    {"size", "size", "Virtual disk size", NULL},
    {"nocow", "bool (on/off)", "Turn off copy-on-write (valid only on btrfs)", NULL},
    {"preallocation", "str", "Preallocation mode (allowed values: off, falloc, full)", NULL},
    {"extent_size_hint", "size", "Extent size hint for the image file, 0 to disable", NULL},
    {NULL},
};

/* Without a file nothing is known of what its file system takes. */
static const struct option_desc size_option[] = {
    {"size", "size", "Virtual disk size", NULL},
    {NULL},
};

enum { HELP_COLUMN = 24, SECTOR = 512 };

static int by_name(const void *a, const void *b)
{
    const struct option_desc *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* The rows of both tables by name; of a name in both the first counts. */
static GPtrArray *merge(const struct option_desc *const tables[2])
{
    GPtrArray *rows = g_ptr_array_new();
    for (unsigned t = 0; t < 2; t++) {
        for (const struct option_desc *d = tables[t]; d && d->name; d++) {
            bool seen = false;
            for (unsigned i = 0; i < rows->len; i++) {
                const struct option_desc *other = rows->pdata[i];
                seen |= !strcmp(other->name, d->name);
            }
            if (!seen) {
                g_ptr_array_add(rows, (void *)d);
            }
        }
    }
    qsort(rows->pdata, rows->len, sizeof(*rows->pdata), by_name);
    return rows;
}

void print_option_table(const struct option_desc *const tables[2])
{
    g_autoptr(GPtrArray) rows = merge(tables);
    for (unsigned i = 0; i < rows->len; i++) {
        const struct option_desc *d = rows->pdata[i];
        g_autofree char *left = g_strdup_printf("  %s=<%s>", d->name, d->type);
        printf("%-*s - %s\n", HELP_COLUMN, left, d->help);
    }
}

int print_create_options(const struct image_format *format, bool for_file)
{
    if (!format->tools || !format->tools->create) {
        tool_error("Format driver '%s' does not support image creation", format->name);
        return 1;
    }
    if (for_file) {
        puts("Supported options:");
    } else {
        printf("Supported %s options:\n", format->name);
    }
    const struct option_desc *const tables[2] = {format->tools->create_options,
                                                 for_file ? local_options : size_option};
    print_option_table(tables);
    if (!for_file) {
        puts("\nThe protocol level may support further options.\n"
             "Specify the target filename to include those options.");
    }
    return 0;
}

bool create_prepare(struct tool_create *how, const char *options, GError **error)
{
    const struct image_format *format = format_find(how->format, NULL);
    if (!format) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Unknown file format '%s'", how->format);
        return false;
    }
    if (!format->tools || !format->tools->create) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Format driver '%s' does not support image creation", how->format);
        return false;
    }
    how->options = options_new(format->tools->create_options, local_options);
    return !options || options_parse(how->options, options, error);
}

bool create_run(const struct tool_create *how, GError **error)
{
    enum preallocation prealloc = PREALLOC_OFF;
    const char *mode = option_str(how->options, "preallocation");
    if (mode && !preallocation_of(mode, &prealloc, error)) {
        return false;
    }
    struct chain_create make = {
        .name = how->name,
        .format = how->format,
        .size = (how->size + SECTOR - 1) / SECTOR * SECTOR,
        .backing_name = how->backing,
        .backing_format = how->backing_format,
        .options = how->options,
        .preallocation = prealloc,
    };
    return chain_create(&make, error);
}
