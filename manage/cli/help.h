/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/cli/shell.h"

/* Of all verb_groups (NULL), of one, or of one verb; on standard output. */
bool help_show(const char *about, GError **error);
/* --manual=KIND: the man page, or the completion of a shell. */
bool manual_show(const char *kind);
