/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/open.h"

#include "base/util.h"
#include "host/image/protocol.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

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

/* Asks the file system not to copy on write what the file holds: possible while it is empty. */
static void set_nocow(int fd)
{
    int flags;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
        flags |= FS_NOCOW_FL;
        ioctl(fd, FS_IOC_SETFLAGS, &flags); /* means something to btrfs only */
    }
}

static void set_extent_size(int fd, uint64_t bytes)
{
    struct fsxattr attr;
    bool ok = bytes <= UINT32_MAX && ioctl(fd, FS_IOC_FSGETXATTR, &attr) == 0;
    if (ok) {
        attr.fsx_xflags |= FS_XFLAG_EXTSIZE;
        attr.fsx_extsize = (uint32_t)bytes;
        ok = ioctl(fd, FS_IOC_FSSETXATTR, &attr) == 0;
    }
    if (!ok) {
        tool_warn("Failed to set extent size hint: %s",
                  g_strerror(bytes > UINT32_MAX ? EINVAL : errno));
    }
}

/*
 * What the file system must know before the first byte comes: makes the file if need be.
 * *@made: it was not there before.
 */
static bool prepare_file(const struct tool_create *how, bool *made, GError **error)
{
    bool nocow = option_bool(how->options, "nocow", false);
    uint64_t hint = option_size(how->options, "extent_size_hint", 0);
    const char *path = name_local_path(how->name);
    *made = false;
    if ((!nocow && !hint) || !path) {
        return true;
    }
    autofd int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    *made = fd >= 0;
    if (fd < 0) {
        fd = open(path, O_WRONLY | O_CLOEXEC);
    }
    if (fd < 0) {
        error_set_errno(error, errno, "Could not create '%s'", how->name);
        return false;
    }
    if (nocow) {
        set_nocow(fd);
    }
    if (hint) {
        set_extent_size(fd, hint);
    }
    return true;
}

bool create_run(const struct tool_create *how, GError **error)
{
    bool made;
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
    if (!prepare_file(how, &made, error)) {
        return false;
    }
    bool ok = chain_create(&make, error);
    if (!ok && made) {
        unlink(name_local_path(how->name));
    }
    return ok;
}
