/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/chain.h"
#include "host/image/track.h"
#include "host/image/units.h"

/* What the core keeps for a node: inside host/image only. */
struct core {
    struct tracks tracks;
    struct units units;
    char *name;    /* as it was asked for: a path, a name with a scheme or json:{...} */
    bool guessed;  /* raw by probing */
    bool opened;   /* the format's close() is due */
};

/* A node without a file's name that somebody puts together himself (snapshot=on). */
struct node *node_new(const struct image_format *format, struct file *file);
/* Opens what is in @f, which the node owns from now on, also if that fails.  @options: the
 * node's object, not NULL; @name NULL: the file's. */
struct node *node_open_file(struct file *f, const char *name, json_t *options, unsigned flags,
                            GError **error);

/* Which image format the first bytes are of, be it one that this build cannot open; NULL:
 * none that we know. */
const char *image_probe_name(const uint8_t *head, size_t n);
