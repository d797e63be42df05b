/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"
#include "host/image/throttle.h"
#include "host/image/track.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * A disk image as its users see it: a number of bytes that can be read and written.
 * host/image/format.h is the provider side.
 *
 * Requests are asynchronous: image_submit() returns at once, .done is called from the main
 * loop with the machine lock held.  Requests may complete in any order; a FLUSH covers all
 * writes that had completed when it was submitted.
 */
typedef struct image Image;

enum image_op { IMAGE_READ, IMAGE_WRITE, IMAGE_FLUSH, IMAGE_DISCARD, IMAGE_ZERO };

/* One request; the submitter owns it and keeps it (and the memory) until .done. */
struct image_request {
    enum image_op op;
    uint64_t offset, bytes; /* guest bytes; any alignment */
    const struct iovec *iov;
    unsigned niov;
    /* @result: 0 or a negative errno value. */
    void (*done)(struct image_request *req, int result);
    void *owner;
    bool may_unmap;      /* ZERO: the space may be given back */
    struct image *image; /* the rest is the core's */
    struct image_request *next;
    int result;
    unsigned pending;
    int64_t started; /* monotonic nanoseconds */
    bool waits; /* the machine's owner, who has called a blocking form, looks at .pending */
    struct track track;
};

/* What becomes of a request that failed on the host: -drive werror=, rerror=. */
enum image_on_error {
    IMAGE_ON_ERROR_DEFAULT, /* reads: report; writes: enospc */
    IMAGE_ON_ERROR_REPORT,  /* the guest sees the error */
    IMAGE_ON_ERROR_IGNORE,  /* the guest sees success */
    IMAGE_ON_ERROR_STOP,    /* the machine stops; the request is tried again after it */
    IMAGE_ON_ERROR_ENOSPC,  /* stop for a full disk, else report */
};

/* The word of werror= and rerror=; "auto" is DEFAULT.  False: there is none such. */
bool image_on_error_parse(const char *word, enum image_on_error *out);

/* detect-zeroes=: what becomes of a write that is all zero. */
enum image_zeroes { IMAGE_ZEROES_WRITE, IMAGE_ZEROES_ZERO, IMAGE_ZEROES_UNMAP };

struct image_options {
    const char *id;
    const char *file;      /* a path, or a name with a protocol */
    const char *format;    /* NULL: probe (and then guard the first bytes of raw) */
    json_t *options;       /* what -blockdev says beside that, or in place of .file; or NULL */
    bool read_only, snapshot; /* snapshot: writes go to a temporary file */
    bool direct;           /* cache=none: O_DIRECT */
    bool no_flush;         /* cache=unsafe */
    bool writethrough;     /* cache=writethrough, directsync */
    bool discard;          /* discard=unmap */
    bool lock_off;
    const char *node_name;
    enum image_on_error on_read_error, on_write_error;
    enum image_zeroes zeroes;
    struct throttle_limits limits;
    const char *group; /* that shares the limits, or NULL */
};

Image *image_open(const struct image_options *opts, GError **error);
/* Whether the format was guessed to be raw, so that sector 0 is guarded. */
bool image_guarded(const Image *img);
void image_close(Image *img); /* waits for requests; NULL is fine */
uint64_t image_size(const Image *img); /* bytes */
bool image_read_only(const Image *img);
const char *image_id(const Image *img);
const char *image_file(const Image *img);
const char *image_format_name(const Image *img);
bool image_inserted(const Image *img);   /* a removable drive may hold nothing */
/* Removable media, from the monitor: the device hears of it through .changed. */
bool image_change(Image *img, const struct image_options *opts, GError **error);
void image_eject(Image *img);
void image_on_change(Image *img, void (*changed)(void *owner), void *owner);
/* An image without a medium, for an empty CD-ROM or floppy drive. */
Image *image_new_empty(const char *id);
Image *image_find(const char *id_or_node_name);
const char *image_node_name(const Image *img); /* NULL: none was given */
bool image_has_job(const Image *img);
bool image_attached(const Image *img);         /* a device uses it */
/* The chain under it, for who looks at it or changes it while nothing is under way. */
struct node *image_top(const Image *img);
/* A node of any image's chain, or the file under one, by node-name; a top node without one goes
 * by its drive's id.  NULL: none. */
struct node *image_find_node(const char *name, Image **img);
/*
 * Puts @over, whose backing file is not open, over what is there: writes go to @over from now
 * on.  What was the top is read-only then.
 */
bool image_push(Image *img, struct node *over, GError **error);
/* The other way, for one that has just been put there: the overlay, alone. */
struct node *image_pop(Image *img);
/* Takes the whole chain out, which the caller has to close; nothing may be under way. */
struct node *image_take(Image *img);
/* Its size as the medium has it now, for the device that hears of it through .changed. */
bool image_resize(Image *img, uint64_t size, GError **error);
/* DEFAULT leaves what there is. */
void image_set_on_error(Image *img, enum image_on_error read, enum image_on_error write);
void image_set_limits(Image *img, const struct throttle_limits *limits);
/* Shares the limits of all drives in the group from now on; NULL: has its own. */
void image_join_group(Image *img, const char *name);
const char *image_group(const Image *img); /* NULL: none */
struct throttle_limits image_limits(const Image *img);
/* Called in the main loop before nodes of the chain from @top down are closed, opened anew or put
 * elsewhere: whoever uses them beside the drive lets go of them.  May be NULL. */
extern void (*image_node_moves)(struct node *top);
void image_each(void (*each)(Image *img, void *owner), void *owner);

/* Data path. */
void image_submit(Image *img, struct image_request *req);
/* Blocking forms, for start-up, firmware and tools; 0 or a negative errno value. */
int image_read(Image *img, uint64_t offset, void *to, uint64_t bytes);
int image_write(Image *img, uint64_t offset, const void *from, uint64_t bytes);
int image_flush(Image *img);
/* Between them requests are collected and then go to the kernel together. */
void image_plug(void);
void image_unplug(void);
/*
 * Calls .done of @img's requests that are over and went well: what was in the host's cache is by
 * the time it was submitted, long before the main loop has woken up.
 */
void image_poll(Image *img);
/* Waits until nothing of @img is under way and ends what an error holds: a device's reset. */
void image_drain(Image *img);
/* Waits until nothing is under way, for stopping and saving. */
void image_drain_all(void);
bool image_flush_all(GError **error);
/*
 * Migration.  From image_await() on, images that are opened for writing are another process's:
 * neither locked nor written, until image_claim_all().  image_yield_all() gives them away; nothing
 * may be under way, and nothing is until they are claimed back.
 */
void image_await(void);
bool image_claim_all(GError **error);
bool image_claim(Image *img, GError **error); /* one before the others: it is written already */
bool image_yield_all(GError **error);
/* At the end of the process: formats write what they still hold, nobody uses an image again. */
void image_close_all(void);

/*
 * Requests that failed and that the machine stops for are held until image_retry_held().
 * The hook is the owner of the machine's; it must not stop vCPUs in place but ask for it.
 */
extern void (*image_failed)(Image *img, bool write, int error, enum image_on_error action);
/* The errno value for which requests of @img are held; 0: none are. */
int image_held_for(const Image *img);
bool image_holds_failed(void); /* then a state cannot be saved */
void image_retry_held(void);

struct image_stats {
    uint64_t rd_ops, rd_bytes, rd_ns, wr_ops, wr_bytes, wr_ns, flush_ops, flush_ns;
    uint64_t wr_highest; /* where the write that went farthest ended */
    uint64_t rd_failed, wr_failed, flush_failed;
};
struct image_stats image_stats(const Image *img);
