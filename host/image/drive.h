/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/core.h"
#include "host/image/io.h"
#include "host/image/job.h"

/* Inside host/image: a drive, and the way of a request from image.c to transfer.c. */
struct image {
    char *id, *node_name, *file;
    struct node *top; /* NULL: no medium */
    bool read_only, no_flush, writethrough, discard;
    bool guarded; /* raw by probing: the guest may not make it look like something else */
    uint8_t head[PROBE_BYTES];
    unsigned running; /* requests under way */
    struct job *job;  /* NULL: none */
    enum image_on_error on_read_error, on_write_error;
    struct image_request *held; /* failed, for image_retry_held() */
    enum image_zeroes zeroes;
    struct throttle own_throttle, *throttle;      /* its own, or the group's */
    struct throttle_group *group;                 /* NULL: none */
    struct image_request *waiting, **waiting_end; /* for the throttle, in order */
    guint timer;                                  /* when the first of them may go */
    struct image_stats stats;
    void (*changed)(void *owner);
    void *changed_owner;
    struct image *next;
};

extern struct image *images;

/* image.c: after a job; the nodes below @top are the drive's from now on. */
void image_set_top(Image *img, struct node *top);

void node_moves(struct node *top); /* NULL is fine */

/* request.c */
bool requests_over(void); /* some wait for run_finished() */
void run_finished(void);
/* One part of @req has ended. */
void request_put(struct image_request *req, int result);

/* transfer.c */
void transfer_init(void);
void transfer_start(struct image_request *req, struct file *file, enum io_kind kind, uint64_t at,
                    uint64_t bytes, size_t skip);
void iov_zero(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t bytes);
