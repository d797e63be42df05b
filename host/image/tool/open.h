/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/chain.h"
#include "host/image/options.h"
#include "host/image/tool/tool.h"

/* Opening and making images for verbs.  What fails has been reported when it returns. */

G_DEFINE_AUTOPTR_CLEANUP_FUNC(json_t, json_decref)

/* chain_close() that takes NULL. */
void tool_close(struct node *node);
typedef struct node Node;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Node, tool_close)

/* --image-opts, -U, --untrusted, --object: what is common to all images of a command. */
struct tool_common {
    bool image_opts;
    unsigned flags;           /* enum open_flags */
    const Options *made_with; /* -o of an image that was just made: its key opens it; or NULL */
};
bool tool_common(const struct args *args, struct tool_common *out);
/* none, writeback, writethrough, directsync, unsafe; NULL is fine.  False if it is none. */
bool cache_flags(const char *mode, unsigned *flags);
/* The format of -f; false after "Unknown driver". */
struct node *tool_open(const struct tool_common *common, const char *name, const char *format,
                       unsigned flags);
/* How many threads a copy from or to @node is best done by. */
unsigned tool_threads(const struct node *node);
/* chain_flush() that reports: what is late to fail counts too. */
bool tool_flush(struct node *node, const char *name);
/* The one operand of @args; NULL after a message. */
const char *tool_one_file(const struct args *args);

/* Of all local files: what -o takes besides what the format does; ends with .name NULL. */
extern const struct option_desc local_options[];
/* Prints -o help of @format for a named file, or of the format alone; gives the exit code. */
int print_create_options(const struct image_format *format, bool for_file);
void print_option_table(const struct option_desc *const tables[2]);

/* One new image, after the words of -o, -b and -F: what create, convert and dd make. */
struct tool_create {
    const char *name, *format;
    Options *options;
    const char *backing, *backing_format; /* or NULL */
    uint64_t size;
};
/* -o text; checks the format's name.  @error's text follows the file's name. */
bool create_prepare(struct tool_create *how, const char *options, GError **error);
bool create_run(const struct tool_create *how, GError **error);

/* ---- small things that several verbs share ---- */

/* The list as people read it; nothing if there are none. */
void print_snapshots(struct node *node, const struct snapshot_tools *tools);
bool tool_load_snapshot(struct node *node, const char *id_or_name, GError **error);
/* json_string() of any bytes: those that are no UTF-8 are replaced. */
json_t *json_text_of(const char *text);
/* Whether what a disk held before shows until it is overwritten. */
bool target_is_device(const struct node *node);
/*
 * Makes @s what qemu-img tells: it does not look for holes of the file inside of what a format
 * says is data, unless the format took all of its space in advance.
 */
void status_as_told(struct chain_status *s);
/* realpath() of a local file's name; NULL for others. */
char *realpath_of(const char *name);
/* @backing, as the image @name's header would have it, as a name that we can open. */
char *backing_path(const char *name, const char *backing);
