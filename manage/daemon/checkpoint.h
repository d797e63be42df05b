/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/machine.h"

/*
 * A checkpoint: a moment since which each of its disks keeps a bitmap of what was written, of its
 * name, in the disk's image and in every image that is put over that later.  All bitmaps record,
 * so a checkpoint needs no other one.
 */
struct checkpoint_disk {
    char *name; /* the disk's target once it is aligned */
    int kind;
    char *bitmap;
    int64_t size; /* bytes written since; for clients that ask */
};
enum { CHECKPOINT_NO = 1, CHECKPOINT_BITMAP };
typedef struct checkpoint Checkpoint;
struct checkpoint {
    char *name, *description, *parent;
    int64_t created, current;
    GPtrArray *disks;
    DomainDef *def;
};

/* verbs/domain_checkpoint.c */
Checkpoint *checkpoint_parse(const char *xml, GError **error);
void checkpoint_free(Checkpoint *c);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Checkpoint, checkpoint_free)
/* Names what has none and finds the disks; false with libvirt's words. */
bool checkpoint_align(const Domain *d, Checkpoint *c, const DomainDef *def, GError **error);
/* The parts of a transaction that make it. */
bool checkpoint_actions(struct machine *m, const Checkpoint *c, json_t *actions, GError **error);
/* Its file, as the current one. */
bool checkpoint_keep(Domain *d, Checkpoint *c, GError **error);
/* The bitmap of @name for the disk @target; NULL with an error. */
char *checkpoint_bitmap(const Domain *d, const char *name, const char *target, GError **error);
/* Appends a merge of the bitmap, from every image of the disk that has it, into @into of the top.
 */
bool checkpoint_merge(struct machine *m, const struct domain_disk *disk, const char *bitmap,
                      const char *into, json_t *actions, GError **error);
/* Appends what lets the bitmaps of @disk's image go on in @overlay. */
bool checkpoint_follow(struct machine *m, const struct domain_disk *disk, const char *overlay,
                       json_t *actions, GError **error);
void checkpoint_recount(Domain *d); /* .checkpoints */
void checkpoint_forget_all(Domain *d);

/* verbs/domain_backup.c: the machine's backup job. */
struct backup;
void backup_free(struct backup *b); /* NULL is fine */
/* Job @id has ended; on the main loop. */
bool backup_event(struct machine *m, const char *id, int status);
/* The machine has ended. */
void backup_lost(struct machine *m);
/* After a restart of lodged. */
void backup_recover(struct machine *m);
/* What is known of its progress; false if there is none. */
bool backup_figures(struct machine *m, struct job_figures *out);
bool backup_reads(const struct machine *m, const char *target); /* one that is under way */
int64_t backup_since(const struct machine *m); /* monotonic, us; 0: none is under way */
bool backup_abort(struct machine *m, GError **error);
