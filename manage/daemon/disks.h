/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/machine.h"

/*
 * What the disks of a running machine consist of, and the jobs on them.  A job is lodge-vm's
 * "job-ALIAS"; what lodged must know of it after a restart is in the live XML (<mirror>).
 *
 * Functions that talk to the machine give up the lock: find the disk by its alias again.
 */
enum block_job_type {
    BLOCK_JOB_PULL = 1,
    BLOCK_JOB_COPY,
    BLOCK_JOB_COMMIT,
    BLOCK_JOB_ACTIVE_COMMIT,
    BLOCK_JOB_BACKUP,
};
struct block_job {
    char *alias;
    int type;
    bool ready, aborting;
    bool unlink; /* files that are no longer of the chain go away */
    int ended;   /* enum block_job_status; -1 while it runs */
};

/* False with an error if a disk's contents cannot go anywhere: <transient>. */
bool disks_may_leave(const DomainDef *def, GError **error);
/* @text of lodge-vm, where nodes and jobs have names of ours, with the disks that users know. */
char *disks_words(const struct machine *m, const char *text);
struct domain_disk *machine_disk(const struct machine *m, const char *alias);
/* Source, format and <backingStore> of every disk as the machine has them. */
bool disks_learn(struct machine *m, GError **error);

/* A node of the chain, from the top down; .path NULL: no local file. */
struct disk_link {
    const char *path, *format;
    int64_t index;
};
/* Borrows from @disk. */
GArray *disk_chain(const struct domain_disk *disk);
/* The position of @name in @chain: a path, or "vda[3]" with an index; -1 with an error. */
int disk_chain_find(const GArray *chain, const struct domain_disk *disk, const char *name,
                    GError **error);

/*
 * lodge-vm is a user of its own: a file that it is to write must be its own for the time.  All of
 * these give up the lock; false: the file's server does not answer.
 */
bool disk_lend(const struct machine *m, const char *path, GError **error);
/* What it only reads stays whose it is, if everybody may read it. */
bool disk_lend_for_reading(const struct machine *m, const char *path, GError **error);
/* All of the image at @path, which is of @format: those below it for reading.  What was lent, or
 * NULL; disk_give_back_all() returns it again. */
GPtrArray *disk_lend_chain(const struct machine *m, const char *path, const char *format,
                           GError **error);
void disk_give_back_all(const struct machine *m, const GPtrArray *files);
void disk_return(const struct machine *m, const char *path);
void disks_return(const struct machine *m);
/* Returns what no disk of the machine is made of any more. */
void disk_give_back(const struct machine *m, const char *path);

/* A new image; without the lock.  What was not there before is gone if it fails.  @size 0: as large
 * as @backing. */
bool disk_create_image(const char *path, const char *format, uint64_t size, const char *backing,
                       const char *backing_format, GError **error);
/* Bytes of the disk as the guest sees it; 0 with an error. */
uint64_t disk_size(struct machine *m, const char *alias, GError **error);
/* A node with @path in it, opened as the disk's own is, without what is below if @alone; its
 * number, or -1. */
int64_t disk_add_node(struct machine *m, const struct domain_disk *like, const char *path,
                      const char *format, bool alone, GError **error);
void disk_drop_node(struct machine *m, int64_t index);
/* Gives @disk another file; what it had before is freed. */
void disk_set_source(struct domain_disk *disk, const char *path, const char *format, int64_t index);
/* The definition on disk follows, if it said @old. */
void disk_config_follows(Domain *d, const char *target, const char *old, const char *path,
                         const char *format);

/* Tells the machine what <iotune> says of each disk; the start, and a disk that comes later. */
bool disks_throttle(struct machine *m, GError **error);

/* NULL: it has none. */
/* False with libvirt's words if a disk has a job, or a backup reads it. */
bool block_jobs_none(const struct machine *m, GError **error);
struct block_job *block_job_find(const struct machine *m, const char *alias);
/* Whether nothing is under way on it, be it a job or a backup; else an error. */
bool disk_idle(const struct machine *m, const struct domain_disk *disk, GError **error);
/* Before the machine is told to begin; false with an error if the disk has one already. */
struct block_job *block_job_new(struct machine *m, const struct domain_disk *disk, int type,
                                GError **error);
void block_job_forget(struct machine *m, const char *alias);
/* <mirror> of a job that will have two ends. */
void block_job_mirror(struct domain_disk *disk, int type, const char *path, const char *format,
                      int64_t index);
/* Begins to write links @top to above @base of the chain into @base; verbs/domain_block.c. */
bool block_commit_range(struct machine *m, struct domain_disk *disk, int top, int base,
                        GError **error);
/* Waits until it is over or (@ready) could be completed. */
bool block_job_wait(struct machine *m, const char *alias, bool ready, GError **error);
/* After the end of a job: the XML follows, clients hear of it.  The caller has the domain's job. */
void block_job_settle(struct machine *m, const char *alias);
/* After a restart of lodged. */
void block_jobs_recover(struct machine *m);
void disks_drop_unused(struct machine *m); /* nodes that no disk has come to */
/* Block job @id has come to @status; on the main loop. */
void block_job_event(struct machine *m, const char *id, int status);
