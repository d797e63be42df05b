/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/chain.h"
#include "host/image/codec.h"

/*
 * Copying disks: pieces are cut from a feed one after the other, then read, looked through for
 * zeros and packed by all threads at once, and go to the sink, in the order in which they were
 * cut if the sink wants that.
 */
enum piece_kind {
    PIECE_DATA,
    PIECE_ZERO,    /* reads as zero */
    PIECE_BACKING, /* the target's backing file has it already */
    PIECE_END,
};

struct piece {
    enum piece_kind kind;
    uint64_t offset, length; /* guest bytes */
    uint64_t turn;           /* counted from 0, in order */
    uint8_t *data;           /* of PIECE_BYTES */
    /* Where the bytes lie as they are: .from is NULL if that is not known. */
    struct file *from;
    uint64_t at;
    bool offloaded; /* not read: the sink lets the kernel copy */
    /* A feed of vmdk through a pipe: what next() has read and read() unpacks. */
    uint8_t *packed; /* of as many bytes as .data */
    size_t stored, unpacked;
};

enum {
    PIECE_BYTES = 256 << 10, /* stays in a core's cache between read and write */
    UNIT_MAX = 2 << 20,      /* larger units are not packed */
    THREADS_MAX = 16,
    GRANULE_MAX = 128 << 10, /* in larger ones zeros are looked for in smaller blocks */
    SPARSE_DEFAULT = 4096,
};

/* Where the bytes come from. */
struct feed {
    uint64_t size;  /* guest bytes; UINT64_MAX: not known before the end */
    uint32_t grain; /* pieces may be at least so long */
    uint32_t unit;  /* set by the engine: pieces start at multiples of it */
    uint64_t piece; /* set by the engine: the longest piece of data, in bytes */
    /* One at a time: the next piece; 0 or a negative errno value, with .offset set. */
    int (*next)(struct feed *f, struct piece *p);
    /* Any thread: fills .data. */
    int (*read)(struct feed *f, struct piece *p);
    void (*close)(struct feed *f); /* NULL: nothing to do */
    char *why; /* of a failed next(), where it knows more than a number; g_malloc'd, or NULL */
};

/* Where they go to. */
struct sink {
    uint64_t size;             /* guest bytes */
    uint32_t granule;          /* zeros are looked for in blocks of at least this */
    const struct codec *codec; /* not NULL: units of .unit bytes are packed by it */
    uint32_t unit;
    bool ordered;     /* one call at a time, offsets ascend */
    bool starts_zero; /* what is not written reads as zero */
    int (*data)(struct sink *s, uint64_t offset, const void *from, uint64_t n);
    int (*zero)(struct sink *s, uint64_t offset, uint64_t n);
    int (*packed)(struct sink *s, uint64_t offset, const void *from, uint32_t stored);
    /* May be NULL: the kernel copies from byte @at of @from; -ENOTSUP: it cannot. */
    int (*offload)(struct sink *s, uint64_t offset, struct file *from, uint64_t at, uint64_t n);
    /* May be NULL: everything came, and the disk ends at @size. */
    int (*end)(struct sink *s, uint64_t size);
    void (*close)(struct sink *s); /* NULL: nothing to do */
};

struct copy {
    struct feed *feed;
    struct sink *sink;
    unsigned threads;
    uint64_t sparse; /* runs of zeros of so many bytes are not written; 0: all is */
    int level;       /* of compression; 0: the default */
    uint64_t rate;   /* bytes a second; 0: no limit */
    bool salvage, quiet;
    bool offload; /* let the kernel copy where it can */
    uint64_t progress_of; /* bytes that are 100 % */
    void (*progress)(uint64_t done, uint64_t all);
    /* Results. */
    uint64_t failed_at;
    bool failed_writing;
};

/* 0 or a negative errno value. */
int copy_run(struct copy *c);

/* Several disks one after the other. */
struct feed *feed_of_chains(struct node *const *tops, unsigned n);
/* What @top and those between it and @base have of their own. */
struct feed *feed_above(struct node *top, struct node *base);
void feed_free(struct feed *f);

struct sink_options {
    bool packed;      /* units are packed by the format's codec */
    bool starts_zero; /* a new image without backing file */
    bool any_order;
    bool grows;      /* the size of the disk is not known yet */
    bool keep_space; /* zeros take space too */
};
struct sink *sink_of_chain(struct node *top, const struct sink_options *how);
void sink_free(struct sink *s);
