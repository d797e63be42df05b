/* SPDX-License-Identifier: GPL-2.0-or-later */

/* raw: the guest's bytes are the file's bytes. */
#include "host/image/format.h"

enum { SECTOR = 512 };

static unsigned raw_probe(const uint8_t *head, size_t n)
{
    (void)head, (void)n;
    return 1; /* anything can be raw, so anything else is more likely */
}

/* A last sector that is cut short is whole for the guest; what is missing reads as zero. */
static bool raw_open(struct node *node, GError **error)
{
    (void)error;
    node->size = (file_size(node->file) + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    return true;
}

static void raw_close(struct node *node)
{
    (void)node;
}

static int raw_map(struct node *node, uint64_t offset, uint64_t length, struct extent *out)
{
    (void)node;
    *out = (struct extent){.kind = EXTENT_DATA, .length = length, .at = offset};
    return 0;
}

static int raw_allocate(struct node *node, uint64_t offset, uint64_t length)
{
    (void)node, (void)offset, (void)length;
    return 0;
}

const struct image_format format_raw = {
    .name = "raw",
    .about = "the guest's bytes as they are",
    .probe = raw_probe,
    .open = raw_open,
    .close = raw_close,
    .map = raw_map,
    .allocate = raw_allocate,
    .flat = true,
};
