/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/format.h"

/*
 * An image with all that is below it, in blocking form: what lodge-img uses as it is, and
 * what lodge-vm's asynchronous requests (image.h) come down to when they must wait.
 *
 * Threads: reading, writing, zeroing, discarding, flushing and asking for the status of one
 * chain may go on in any number of threads at once; requests that overlap and of which one
 * changes where bytes live wait for each other.  All else only while nothing is under way.
 *
 * Untrusted (OPEN_UNTRUSTED): of the names inside an image only those of plain files in the
 * image's own directory are followed, with their format named; nothing is probed but the
 * first file, json: and protocols are refused.
 */
struct chain_open {
    const char *name;   /* a path, a name with a scheme, json:{...}; NULL: .options says it */
    const char *format; /* NULL: driver of .options, else probe */
    json_t *options;    /* as --image-opts and -blockdev have them; borrowed; may be NULL */
    unsigned flags;     /* enum open_flags */
};

enum { CHAIN_DEPTH_MAX = 200 };

/* On failure the text names the file that is at fault where it is not the top one itself. */
struct node *chain_open(const struct chain_open *how, GError **error);
/* Closes @node and all below. */
void chain_close(struct node *node);
/* Closes @node only; its backing node is the caller's again. */
void node_close(struct node *node);
/* Whether the format was guessed to be raw. */
bool node_guessed(const struct node *node);
/* As the user, or the image above, wrote it; and as it was found. */
const char *node_name(const struct node *node);
/* The name by which others open what @node's header says is below; NULL: no backing file. */
char *node_backing_path(const struct node *node);
/* Opens the file and the format again, for writing or not any more (commit). */
bool node_reopen(struct node *node, bool read_only, GError **error);
/*
 * Migration: the image is @ours from now on, read again and locked, or another process's, with
 * everything written and our lock gone.  It stays open, for reading only.
 */
bool node_hand(struct node *node, bool ours, GError **error);
/* Opens what @how says as @node's backing node; @node has none. */
bool node_open_backing(struct node *node, const struct chain_open *how, GError **error);
/*
 * More or fewer guest bytes.  A disk that cannot grow, or not with all the space that @how asks
 * for, stays what it was.
 */
bool chain_resize(struct node *node, uint64_t size, enum preallocation how, GError **error);
/* A temporary overlay over @base that takes what is written; @base is its own on success. */
struct node *node_overlay(struct node *base, GError **error);

const struct image_format *format_find(const char *name, GError **error);
/* Which format the first bytes are of; "raw" if no other. */
const struct image_format *format_probe(const uint8_t *head, size_t n, const char *file_name);
enum { PROBE_BYTES = 2048 };

/* ---- guest bytes: 0 or a negative errno value ---- */

int chain_read(struct node *top, uint64_t offset, void *to, uint64_t n);
int chain_write(struct node *top, uint64_t offset, const void *from, uint64_t n);
/* ZERO_KEEP, ZERO_UNMAP, ZERO_DISCARD at any alignment; ZERO_ABSENT in whole granules. */
int chain_zero(struct node *top, uint64_t offset, uint64_t n, enum zero_kind kind);
/* A unit at a multiple of .granule, packed by node->codec already; -ENOTSUP: it takes none. */
int chain_write_packed(struct node *top, uint64_t offset, const void *packed, uint32_t stored);
/* Makes what @top does not have itself of the range, but a node above @base has, its own. */
int chain_pull(struct node *top, struct node *base, uint64_t offset, uint64_t n, bool *copied);
int chain_flush(struct node *top);

struct chain_status {
    uint64_t length;   /* guest bytes from the asked offset with the same answer; > 0 */
    bool zero;         /* reads as zero for sure */
    bool data;         /* has bytes in a file (false: a hole, or nothing anywhere) */
    bool present;      /* some node of the chain answers for it, be it with zero */
    bool compressed;
    bool offset_valid; /* .at of .file is where the bytes lie as they are */
    unsigned depth;    /* which node: 0 is the top */
    struct node *node; /* NULL if !present */
    struct file *file;
    uint64_t at;
};
/* Looks at @top and what is below it, but not at @base or lower (NULL: at all). */
int chain_status(struct node *top, struct node *base, uint64_t offset, uint64_t length,
                 struct chain_status *out);
/* Ends what is remembered of unpacked units: after snapshots were made, applied or removed. */
void chain_forget(struct node *node);

/* ---- new images ---- */

struct chain_create {
    const char *name;
    json_t *target;  /* --target-image-opts and the like instead of .name; or NULL */
    const char *format;
    uint64_t size;
    const char *backing_name, *backing_format; /* or NULL: they are written as they are */
    const struct options *options; /* may be NULL */
    enum preallocation preallocation;
};
/* Replaces what the file held.  Nothing of a file that was not there before stays on failure. */
bool chain_create(const struct chain_create *how, GError **error);
