/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/chain.h"
#include "host/image/track.h"
#include "host/image/units.h"

/* What the core keeps for a node: inside host/image only. */
struct core {
    struct tracks tracks;
    struct units units;
    struct dirty *dirty; /* bitmaps that end with the node */
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

/* ---- what is said of a node (node_options.c) ---- */

/* What @how says as one object, new; names and formats given beside it are put in. */
json_t *options_merge(const struct chain_open *how, GError **error);
bool options_have_file(const json_t *o);
/* Whether @o describes an image with a format, rather than a protocol's file. */
bool options_are_node(const json_t *o);
/* The object from which the node's file is opened: that of a format's "file", or all of a
 * protocol's own. */
json_t *options_file_part(json_t *o);
/* The name under which messages show it: json: where no plain name says as much; NULL: the file's. */
char *options_name(const json_t *o, const char *name);
/* Flags for what keys say that every driver has. */
bool options_flags(const json_t *o, unsigned *flags, GError **error);
/* That keys are known to who gets them: @part was the file's. */
bool options_check(const struct node *n, const json_t *part, GError **error);

/* ---- files under a node ---- */

/* @part: of a protocol, or of a whole image, which is the file then. */
struct file *node_file_open(json_t *part, unsigned flags, GError **error);
/* A file whose bytes are those of the image @top, which it owns. */
struct file *file_of_node(struct node *top);
/* What a protocol reaches, under images in images. */
const struct file *file_innermost(const struct file *f);

/* Which image format the first bytes are of, be it one that this build cannot open; NULL:
 * none that we know. */
const char *image_probe_name(const uint8_t *head, size_t n);
