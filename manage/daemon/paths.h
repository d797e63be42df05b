/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>

/* Once, first of all.  @root NULL: the places of the system, or of the user's session. */
void paths_start(const char *root, bool session);
