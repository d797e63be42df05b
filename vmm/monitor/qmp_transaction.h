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
