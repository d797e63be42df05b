/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/*
 * The provider side of disk images.  host/image/image.h is what users of an image
 * include; only files that implement a format include this header.
 *
 * A format answers one question: where do the guest's bytes live?  The core does all
 * I/O, alignment, backing chains, error policy and locking.  Thread: machine lock held.
 */

struct file; /* the bytes under a format: a local file or block device */

/* Reads exactly @n bytes at byte offset @at.  0, -EIO if the file is shorter, or -errno. */
int file_read(struct file *f, uint64_t at, void *to, size_t n);
int file_write(struct file *f, uint64_t at, const void *from, size_t n);
uint64_t file_size(const struct file *f); /* bytes, at open or after the last growth */

enum extent_kind {
    EXTENT_DATA,   /* at byte .at of the file */
    EXTENT_ZERO,   /* reads as zero, takes no space */
    EXTENT_ABSENT, /* ask the backing node; zero if there is none */
};

struct extent {
    enum extent_kind kind;
    uint64_t length; /* guest bytes from the asked offset with the same answer; > 0 */
    uint64_t at;     /* file offset in bytes, for EXTENT_DATA */
};

/* One opened file with its format; nodes form a chain through .backing. */
struct node {
    const struct image_format *format;
    struct file *file;
    struct node *backing;
    void *priv;       /* belongs to the format */
    uint64_t size;    /* guest-visible bytes; set by open() */
    uint32_t granule; /* writes come in multiples of it: a power of two; open() may raise it */
};

struct image_format {
    const char *name;  /* "qcow2": command line and XML */
    const char *about; /* one line for lists */
    const char *spec;  /* document and edition */

    /* How sure are you, 0 to 100, from the first @n bytes?  @n may be 0. */
    unsigned (*probe)(const uint8_t *head, size_t n);
    /*
     * Reads the metadata, checks every field it will ever use, sets .size and .priv.
     * The text says what is wrong; the core puts the name of the file in front.
     */
    bool (*open)(struct node *node, GError **error);
    /* Idempotent; also after an open() that failed. */
    void (*close)(struct node *node);

    /* Data path: no allocation, 0 or a negative errno value. */

    /* 0 < @length, @offset + @length <= .size, both in guest bytes. */
    int (*map)(struct node *node, uint64_t offset, uint64_t length, struct extent *out);
    /* Optional, NULL if the format is read-only: make the range EXTENT_DATA. */
    int (*allocate)(struct node *node, uint64_t offset, uint64_t length);
    /* Optional: metadata to the file, before the core flushes the file itself. */
    int (*flush)(struct node *node);
    /* Whether parts of the file may be given back or zeroed in place, offset for offset. */
    bool flat;
};

/* Generated from the list in host/image/meson.build. */
extern const struct image_format *const image_formats[];
extern const unsigned n_image_formats;
