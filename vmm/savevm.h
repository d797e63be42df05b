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
bool savevm_save(const char *name, GError **error); /* replaces one of the same name */
bool savevm_load(const char *name, GError **error); /* the machine goes on if it ran */
bool savevm_remove(const char *name, GError **error);
/* As "info snapshots" prints them. */
bool savevm_list(GString *out, GError **error);
