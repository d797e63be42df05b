/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <glib.h>
#include <stdbool.h>

/*
 * Snapshots of the whole machine inside its disks' images: every disk that can be written is
 * snapshotted, and the first one keeps the machine's state too.  The main loop's thread,
 * machine lock held; the guest stands still meanwhile.
 */
/*
 * @nodes, perhaps NULL, ends with NULL: the node-names of the disks, of which the first keeps
 * the state, in place of all.
 */
bool savevm_save(const char *name, const char *const *nodes, GError **error); /* or replaces it */
bool savevm_load(const char *name, const char *const *nodes, GError **error); /* goes on if it ran */
bool savevm_remove(const char *name, const char *const *nodes, GError **error);
/* As "info snapshots" prints them. */
void savevm_list(GString *out);
