/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <jansson.h>

/*
 * A part of a transaction: does what @data (NULL: nothing was given) says and returns what its
 * undo() takes, or NULL with an error and nothing done.
 */
typedef void *transaction_fn(json_t *data, GError **error);

/* qmp_block.c */
transaction_fn snapshot_run, snapshot_sync_run;
void snapshot_undo(void *drive);

/* qmp_bitmap.c: what they return is freed by the second of each pair. */
transaction_fn bitmap_add_run, bitmap_clear_run, bitmap_enable_run, bitmap_disable_run,
    bitmap_merge_run, bitmap_remove_run;
void bitmap_undo(void *change);
void bitmap_keep(void *change);
/* qmp_job.c */
transaction_fn drive_backup_run, blockdev_backup_run;
void backup_undo(void *job);
