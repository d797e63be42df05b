/* SPDX-License-Identifier: GPL-2.0-or-later */

/* raw: the guest's bytes are the file's bytes, or a part of them (offset=, size=). */
#include "host/image/format.h"
#include "host/image/options.h"

enum { SECTOR = 512 };

struct raw {
    uint64_t offset;
    bool fixed; /* size= was given */
};

static unsigned raw_probe(const uint8_t *head, size_t n, const char *file_name)
{
    (void)head, (void)n, (void)file_name;
    return 1; /* anything can be raw, so anything else is more likely */
}

/* A last sector that is cut short is whole for the guest; what is missing reads as zero. */
static bool raw_open(struct node *node, unsigned flags, GError **error)
{
    uint64_t offset = 0, bytes = file_size(node->file), size = UINT64_MAX;
    (void)flags;
    if (!json_u64(node->options, "offset", &offset, error) ||
        !json_u64(node->options, "size", &size, error)) {
        return false;
    }
    if (offset > bytes || (size != UINT64_MAX && size > bytes - offset)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "The sum of offset (%" G_GUINT64_FORMAT ") and size (%" G_GUINT64_FORMAT
                    ") has to be smaller or equal to the  actual size of the containing file (%"
                    G_GUINT64_FORMAT ")",
                    offset, size == UINT64_MAX ? 0 : size, bytes);
        return false;
    }
    if (size != UINT64_MAX && size % SECTOR) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Specified size %" G_GUINT64_FORMAT " is not multiple of 512", size);
        return false;
    }
    struct raw *r = g_new0(struct raw, 1);
    r->offset = offset;
    r->fixed = size != UINT64_MAX;
    node->priv = r;
    node->size = MIN(size, (bytes - offset + SECTOR - 1) & ~(uint64_t)(SECTOR - 1));
    return true;
}

static void raw_close(struct node *node)
{
    g_clear_pointer(&node->priv, g_free);
}

static int raw_map(struct node *node, uint64_t offset, uint64_t length, bool wait,
                   struct extent *out)
{
    const struct raw *r = node->priv;
    (void)wait;
    *out = (struct extent){.kind = EXTENT_DATA,
                           .length = length,
                           .at = r->offset + offset,
                           .tweak = offset,
                           .in_place = true,
                           .holes = true};
    return 0;
}

static int raw_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    return raw_map(node, offset, length, true, out);
}

static const struct option_desc create_options[] = {
    {"size", "size", "Virtual disk size", NULL},
    {"preallocation", "str", "Preallocation mode (allowed values: off, falloc, full)", NULL},
    {0},
};

static bool raw_create(const struct image_create *how, GError **error)
{
    if (how->preallocation == PREALLOC_METADATA) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Unsupported preallocation mode 'metadata'");
        return false;
    }
    return file_preallocate(how->file, 0, how->size, how->preallocation, error);
}

static bool raw_resize(struct node *node, uint64_t size, enum preallocation how, GError **error)
{
    struct raw *r = node->priv;
    uint64_t end = r->offset + size, now = file_size(node->file);
    if (r->fixed) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Cannot resize fixed-size raw disks");
        return false;
    }
    if (how == PREALLOC_METADATA) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Unsupported preallocation mode 'metadata'");
        return false;
    }
    if (end > now) {
        if (!file_preallocate(node->file, now, end, how, error)) {
            return false;
        }
    } else {
        int e = file_resize(node->file, end);
        if (e < 0) {
            error_set_errno(error, -e, "Failed to resize the file");
            return false;
        }
    }
    node->size = (size + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    return true;
}

static bool raw_measure(const struct image_create *how, uint64_t used, uint64_t out[2],
                        GError **error)
{
    (void)used, (void)error;
    out[0] = out[1] = how->size;
    return true;
}

static const struct format_tools tools = {
    .create_options = create_options,
    .create = raw_create,
    .resize = raw_resize,
    .measure = raw_measure,
    .dirty_flag = true,
};

static const char *const open_options[] = {"offset", "size", NULL};

const struct image_format format_raw = {
    .open_options = open_options,
    .name = "raw",
    .about = "the guest's bytes as they are",
    .probe = raw_probe,
    .open = raw_open,
    .close = raw_close,
    .map = raw_map,
    .place = raw_place,
    .tools = &tools,
    .flat = true,
};
