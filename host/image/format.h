/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The provider side of disk images.  host/image/chain.h and image.h are what users of an
 * image include; only files that implement a format, and the core, include this header.
 *
 * A format answers one question: where do the guest's bytes live?  The core does all data
 * I/O, partial writes (copy on write), compression, encryption, backing chains, locking of
 * overlapping requests, throttling and error policy.
 *
 * Threads: the core calls map/place/link/zero/flush of one node from any thread, but one at a
 * time (node->lock is held).  They may read and write their file (blocking).  Data I/O runs
 * without the lock, several at once.
 */

/* ---- the bytes under a format ---- */

struct file; /* a local file, block device, or what a protocol reaches; see protocol.h */
struct node;

/* Reads exactly @n bytes at byte offset @at.  0, -EIO if the file is shorter, or -errno. */
int file_read(struct file *f, uint64_t at, void *to, size_t n);
/* Grows the file where needed. */
int file_write(struct file *f, uint64_t at, const void *from, size_t n);
/* Grows the file where needed; space beyond the old end costs nothing. */
int file_zero(struct file *f, uint64_t at, uint64_t n, bool may_unmap);
int file_discard(struct file *f, uint64_t at, uint64_t n); /* advisory */
/* All writes that ended before are on the medium when it returns. */
int file_flush(struct file *f);
int file_resize(struct file *f, uint64_t size);
uint64_t file_size(const struct file *f);      /* bytes, now */
uint64_t file_allocated(const struct file *f); /* bytes it takes on the host: bounds memory */
const char *file_name(const struct file *f);
/* Opens another file that an image names (an extent, a data file): @name is relative to the
 * image's own directory; refused for untrusted images when it leaves that directory. */
struct file *file_open_beside(struct node *node, const char *name, bool read_only, GError **error);
/* A new or emptied file, open for writing: for formats that are made of several. */
struct file *file_create(const char *name, GError **error);
void file_close(struct file *f); /* NULL is fine */

/* ---- extents ---- */

enum extent_kind {
    EXTENT_DATA,   /* at byte .at of the file */
    EXTENT_ZERO,   /* reads as zero; .at is not 0 if space is kept for it */
    EXTENT_ABSENT, /* ask the backing node; zero if there is none */
    EXTENT_PACKED, /* inside a compressed unit */
};

struct extent {
    enum extent_kind kind;
    uint64_t length;   /* guest bytes from the asked offset with the same answer; > 0 */
    struct file *file; /* NULL: the node's own */
    uint64_t at;       /* file offset in bytes; for PACKED of the unit's first stored byte */
    uint64_t tweak;    /* byte position from which the cipher counts its 512-byte sectors */
    /* map(), DATA: place() would answer with the same space and change nothing, so the core
     * may write here at once.  Not set: the core asks place(), which is never wrong. */
    bool in_place;
    bool holes; /* map(), DATA: a hole of the file at .at reads as zero and is worth finding */
    /* PACKED only: */
    const struct codec *codec;
    uint32_t stored; /* bytes in the file, perhaps a little more than the unit needs */
    uint32_t unit;   /* guest bytes of the unit when unpacked; bounded by the format */
    uint64_t start;  /* guest offset of the unit */
    /* place() only: */
    bool fresh;      /* new space: link() must follow; else DATA that is overwritten in place */
    uint64_t cookie; /* the format's own, from place() to link() */
};

enum zero_kind {
    ZERO_KEEP,    /* reads as zero, space stays taken where there was some */
    ZERO_UNMAP,   /* reads as zero, space is given back */
    ZERO_DISCARD, /* content does not matter afterwards (but must not be somebody else's):
                     what is cheapest; with a backing file: zero, never what is below */
    ZERO_ABSENT,  /* the backing node shows through again (commit's make_empty, rebase) */
};

/* One opened file with its format; nodes form a chain through .backing. */
struct node {
    const struct image_format *format;
    struct file *file;
    struct node *backing;
    void *priv;       /* belongs to the format */
    uint64_t size;    /* guest-visible bytes; set by open() and resize() */
    uint32_t granule; /* space is taken in multiples of it: a power of two (1: flat formats);
                         place/zero/link get offsets and lengths that are multiples of it,
                         or that end at .size */
    uint32_t align;   /* smallest unit of data I/O in place: 1, or 512 under a cipher */
    struct cipher *cipher;     /* NULL: plain */
    const struct codec *codec; /* open(): what place_packed() takes units in; NULL: none */
    uint32_t unit;             /* guest bytes of such a unit; 0: .granule */
    bool read_only;            /* nothing may be written to the file, not even a repaired header */
    bool untrusted;            /* see chain.h */
    unsigned flags;            /* enum open_flags it was opened with */
    /* What open() found in the header; the core opens the backing node by it.  g_malloc'd. */
    char *backing_name, *backing_format;
    json_t *options;    /* its part of -blockdev and the like: "lazy-refcounts",
                           "encrypt": {"key-secret": ...}; never NULL */
    GMutex lock;        /* the core's, as are the rest */
    struct core *core;
};

/* Open for something other than guest I/O. */
enum open_flags {
    OPEN_READ_ONLY = 1 << 0,
    OPEN_NO_IO = 1 << 1, /* info: metadata only; no secret needed, no data file opened */
    OPEN_CHECK = 1 << 2, /* check/repair: open even if marked dirty or corrupt */
    OPEN_UNTRUSTED = 1 << 3,
    /* The rest is for the core: formats need not look at it. */
    OPEN_NO_BACKING = 1 << 4,   /* the top node only */
    OPEN_DIRECT = 1 << 5,       /* cache=none: O_DIRECT */
    OPEN_NO_FLUSH = 1 << 6,     /* cache=unsafe */
    OPEN_WRITETHROUGH = 1 << 7, /* cache=writethrough, directsync */
    OPEN_SHARE = 1 << 8,        /* -U, force-share: read what others may be writing */
    OPEN_NO_LOCK = 1 << 9,      /* file.locking=off */
    OPEN_UNMAP = 1 << 10,       /* discard=unmap */
    OPEN_THREADS = 1 << 11,     /* aio=threads */
    OPEN_COPY_ON_READ = 1 << 12, /* what was read from below is the node's own afterwards */
    OPEN_LATER = 1 << 13, /* another process writes to it until node_hand() */
};

struct image_format {
    const char *name;  /* "qcow2": command line and XML */
    const char *about; /* one line for lists */
    const char *spec;  /* document and edition */

    /* How sure are you, 0 to 100, from the first @n bytes (up to PROBE_BYTES)?  @n may be 0. */
    unsigned (*probe)(const uint8_t *head, size_t n, const char *file_name);
    /*
     * Reads the metadata, checks every field it will ever use, sets .size, .granule, .priv,
     * .backing_name...  The text says what is wrong; the core puts the file's name in front.
     */
    bool (*open)(struct node *node, unsigned flags, GError **error);
    /* Idempotent; also after an open() that failed.  Writes what is still to be written. */
    void (*close)(struct node *node);

    /* Data path: no allocation per call, 0 or a negative errno value. */

    /* 0 < @length, @offset + @length <= .size, both in guest bytes.
     * With !@wait: -EAGAIN if metadata would have to be read from the file first. */
    int (*map)(struct node *node, uint64_t offset, uint64_t length, bool wait, struct extent *out);
    /*
     * Optional, NULL if the format is read-only: where bytes written to the range go.  The
     * answer may be shorter (out->length).  If !out->fresh the core writes in place and is
     * done; if fresh, space has been taken in the file but nothing points at it: the core fills
     * whole granules (what the guest did not write comes from below) and then calls link().
     */
    int (*place)(struct node *node, uint64_t offset, uint64_t length, struct extent *out);
    /* @placed as place() gave it, .length perhaps cut to whole granules.  From now on map()
     * answers with it.  What it replaced is given back. */
    int (*link)(struct node *node, uint64_t offset, const struct extent *placed);
    /* Instead of link() after a failed write: gives the space back (may leak, never corrupt). */
    void (*unplace)(struct node *node, uint64_t offset, const struct extent *placed);
    /* Optional. */
    int (*zero)(struct node *node, uint64_t offset, uint64_t length, enum zero_kind kind);
    /* Optional: space for a unit of guest bytes (node->unit) compressed to @stored bytes by
     * node->codec; then the core writes it at out->at and calls link(). */
    int (*place_packed)(struct node *node, uint64_t offset, uint32_t stored, struct extent *out);
    /* Optional: metadata to the file in a safe order, including the data it points at:
     * the core has NOT flushed before; the format calls file_flush() between and at the end. */
    int (*flush)(struct node *node);

    /* Keys of node->options that open() takes, besides those of every format; ends with NULL. */
    const char *const *open_options;

    const struct format_tools *tools; /* what works on a whole image; NULL: nothing of it */
    /* Whether parts of the file may be given back or zeroed in place, offset for offset. */
    bool flat;
};

/* ---- whole images: what lodge-img and the monitor do ---- */

enum preallocation { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };

/* Makes [@from, @to) part of the file and takes space as FALLOC or FULL want it. */
bool file_preallocate(struct file *f, uint64_t from, uint64_t to, enum preallocation how,
                      GError **error);

struct option_desc { /* create/amend/open option, as -o help prints it */
    const char *name, *type, *help; /* type: "size" "bool (on/off)" "str" "num" */
    const char *fallback;           /* printed as (default: ...); NULL: none */
};

struct image_create {
    struct file *file; /* empty, open for writing */
    const char *name;  /* as the user gave it: for formats of several files */
    uint64_t size;     /* guest bytes */
    const char *backing_name, *backing_format; /* or NULL */
    const struct options *options; /* -o, checked against .create_options; see options.h */
    enum preallocation preallocation;
};

enum check_fix { FIX_NOTHING = 0, FIX_LEAKS = 1, FIX_ERRORS = 2 }; /* -r leaks: 1; -r all: 3 */

struct check_result { /* the fields of `check --output=json` */
    uint64_t corruptions, leaks, check_errors, corruptions_fixed, leaks_fixed;
    uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
    uint64_t image_end_offset;
    void (*tell)(void *owner, const char *line); /* "ERROR cluster 5 refcount=1 reference=2" */
    void *owner;
};

/* One line of what check finds. */
void check_tell(struct check_result *out, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

struct image_snapshot {
    char *id, *name;
    uint64_t vm_state_size, vm_clock_ns, disk_size;
    uint32_t date_sec, date_nsec;
    uint64_t icount; /* UINT64_MAX: none */
};

struct format_tools {
    const struct option_desc *create_options; /* ends with .name NULL */
    const struct option_desc *amend_options;
    bool (*create)(const struct image_create *how, GError **error);
    bool (*resize)(struct node *node, uint64_t size, enum preallocation, GError **error);
    bool (*check)(struct node *node, unsigned fix, struct check_result *out, GError **error);
    bool (*amend)(struct node *node, const struct options *options, bool force,
                  void (*progress)(void *owner, double part), void *owner, GError **error);
    /* format-specific.data of `info --output=json`, QEMU's keys in QEMU's order. */
    void (*describe)(struct node *node, json_t *data);
    uint32_t (*cluster_size)(struct node *node); /* 0: info prints none */
    /* Bytes a new image for these guest bytes needs; @used: guest bytes that are data. */
    bool (*measure)(const struct image_create *how, uint64_t used, uint64_t out[2], GError **error);
    bool (*set_backing)(struct node *node, const char *name, const char *format, GError **error);
    const struct snapshot_tools *snapshots; /* see below */
    const struct bitmap_tools *bitmaps;
    uint64_t (*allocated)(struct node *node); /* bytes on the host; NULL: those of node->file */
    bool dirty_flag; /* info has "dirty-flag" */
};

struct snapshot_tools {
    unsigned (*count)(struct node *node);
    const struct image_snapshot *(*get)(struct node *node, unsigned n);
    bool (*create)(struct node *node, struct image_snapshot *snap, GError **error);
    bool (*apply)(struct node *node, const char *id_or_name, GError **error);
    bool (*remove)(struct node *node, const char *id_or_name, GError **error);
    /* Optional: where a machine's state is kept, a guest offset behind the disk from which on
     * map(), place() and zero() work although .size ends before. */
    uint64_t (*state_offset)(struct node *node);
    /* A read-only view: convert -l. */
    bool (*load)(struct node *node, const char *id_or_name, GError **error);
};

struct bitmap_tools {
    bool (*add)(struct node *node, const char *name, uint32_t granularity, bool enabled,
                GError **error);
    bool (*remove)(struct node *node, const char *name, GError **error);
    bool (*clear)(struct node *node, const char *name, GError **error);
    bool (*enable)(struct node *node, const char *name, bool on, GError **error);
    bool (*merge)(struct node *node, const char *name, struct node *from, const char *source,
                  GError **error);
    /* The same with @n marks of 1 << @grain_bits bytes each. */
    bool (*merge_bits)(struct node *node, const char *name, const uint64_t *bits, uint64_t n,
                       unsigned grain_bits, GError **error);
    /* After bytes changed: any thread, without the node's lock; the bitmaps that record them
     * stay where they are as long as requests are under way. */
    void (*record)(struct node *node, uint64_t offset, uint64_t length);
    /* Appends an object for each, as dirty_list() has them. */
    void (*list)(struct node *node, json_t *all);
    /* Copies all (convert --bitmaps); broken ones are skipped or an error. */
    bool (*copy)(struct node *to, struct node *from, bool skip_broken, GError **error);
    /* Whether the bytes from @offset are marked in the bitmap, and how far that goes, at most
     * @length.  0, -ENOENT (no such bitmap) or -errno. */
    int (*next)(struct node *node, const char *name, uint64_t offset, uint64_t length, bool *dirty,
                uint64_t *run);
};

/* Generated from the list in host/image/meson.build. */
extern const struct image_format *const image_formats[];
extern const unsigned n_image_formats;
