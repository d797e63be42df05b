/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/tool/convert.h"

/*
 * Disks that come through standard input and go through standard output: "-" as a name.  raw,
 * streamOptimized vmdk and, of a source whose map is known before, qcow2 pass as they come;
 * all else goes through a file without a name in $TMPDIR.
 */

/* Whether @name is "-" and standard input is no file that can be opened like others. */
bool is_pipe_in(const char *name);
bool is_pipe_out(const char *name);

/* What standard input turned out to be. */
struct pipe_in {
    const char *format;        /* of format_probe(), or what the caller knew */
    uint8_t head[PROBE_BYTES]; /* what was read to find out */
    size_t n_head, used_head;
};
/* @format: NULL to find out. */
bool pipe_in_open(struct pipe_in *in, const char *format, GError **error);
/* NULL if the format needs more than one look: then pipe_in_spool(). */
struct feed *feed_of_pipe(struct pipe_in *in, GError **error);
/* All of it in a file without a name; its name for opening, or NULL. */
char *pipe_in_spool(struct pipe_in *in, GError **error);

/* @format: raw or vmdk, for which @options may say adapter_type and the like. */
struct sink *sink_of_pipe(const char *format, const struct options *options, uint64_t size,
                          GError **error);
/* What these have one after the other, as qcow2 without any option. */
struct sink *sink_of_qcow2_pipe(struct node *const *tops, unsigned n, GError **error);

/* A file without a name: what it can be opened by. */
char *spool_new(GError **error);
/* All bytes of such a file to standard output. */
bool spool_out(const char *name, GError **error);
/* Writes all: 0 or a negative errno value. */
int pipe_write(const void *from, size_t n);
