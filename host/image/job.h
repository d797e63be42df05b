/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/chain.h"
#include "host/image/image.h"

/*
 * Block jobs: copying between the nodes of a drive, or from it to elsewhere, on a thread of
 * their own while the guest goes on.
 *
 * Thread: all functions with the machine lock held.  A job ends in the main loop, which tells
 * job_news of it.
 */
enum job_kind {
    JOB_STREAM, /* what is below becomes the top's own */
    JOB_COMMIT, /* nodes from .top down to above .base are written into .base and go away */
    JOB_MIRROR, /* .target becomes equal, and then the drive's if the user wants it */
    JOB_BACKUP, /* .target becomes what the drive was when the job began */
};

enum job_sync { SYNC_FULL, SYNC_TOP, SYNC_NONE, SYNC_BITMAP };
/* What becomes of the bitmap that says what to copy: it counts anew from the job's start. */
enum job_bitmap { BITMAP_ON_SUCCESS, BITMAP_NEVER, BITMAP_ALWAYS };

enum job_state { JOB_RUNNING, JOB_READY, JOB_PENDING, JOB_CONCLUDED };

struct job_spec {
    const char *id;
    enum job_kind kind;
    Image *img;
    struct node *top, *base;  /* COMMIT; STREAM: .base NULL: all */
    struct node *target;      /* MIRROR, BACKUP: the job's from now on, if it starts */
    enum job_sync sync;
    const char *bitmap;       /* SYNC_BITMAP: of the drive's node */
    enum job_bitmap bitmap_mode;
    bool no_flush_target;
    const char *backing_file; /* what the header says of .base afterwards; NULL: its name */
    uint64_t speed;           /* bytes a second; 0: no bound */
    bool manual_finalize, manual_dismiss;
};

struct job;

/* What changed: the state, or (JOB_CONCLUDED) the end with its error. */
extern void (*job_news)(struct job *job);

struct job *job_start(const struct job_spec *spec, GError **error);
struct job *job_find(const char *id);
void job_each(void (*each)(struct job *job, void *owner), void *owner);
/* MIRROR and active COMMIT that are ready: the drive moves to the target. */
bool job_complete(struct job *job, GError **error);
/* @force: also a job that is ready ends without its target being whole. */
void job_cancel(struct job *job, bool force);
void job_pause(struct job *job, bool pause);
void job_set_speed(struct job *job, uint64_t speed);
bool job_finalize(struct job *job, GError **error);
bool job_dismiss(struct job *job, GError **error);
/* For a machine that has stopped and goes elsewhere: mirrors take the last of its writes and end.
 * False if one was not whole yet or fails. */
bool jobs_settle_mirrors(GError **error);
/* Before the drive loses its medium, and at the end of the process: waits for the thread. */
void job_end(Image *img);

struct job_view {
    const char *id, *device, *error; /* NULL: none */
    enum job_kind kind;
    enum job_state state;
    bool active_commit, cancelled, paused, forced;
    uint64_t done, all, speed;
};
struct job_view job_view(const struct job *job);

/*
 * BACKUP: the drive as it was when the job began, be it in the target or still in the drive; any
 * thread while the job lasts.  0 or a negative errno value.
 */
struct job *job_of_target(const char *node_name);
struct node *job_target(const struct job *job);
struct node *job_source(const struct job *job);
int job_read(struct job *job, uint64_t offset, void *to, uint64_t n);
int job_status(struct job *job, uint64_t offset, uint64_t n, struct chain_status *out);

/* ---- for request.c: any thread ---- */

/* Before a write, zeroing or discard begins. */
void job_before_write(struct job *job, uint64_t offset, uint64_t bytes);
bool job_wants_before(const struct job *job);
/* After it ended. */
void job_after_write(struct job *job, uint64_t offset, uint64_t bytes);
