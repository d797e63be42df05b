/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>

/*
 * Runs one of the host's own programs to its end, at most @seconds long; any thread, without
 * the daemon lock.  @input (NULL: nothing) is what it reads; what it printed goes to *@out
 * (NULL: nowhere).  *@code is its exit code; NULL: anything but 0 is an error, which has the
 * program's last words.  No shell is involved.
 */
bool run_program(const char *const *argv, const char *input, unsigned seconds, char **out,
                 int *code, GError **error);
