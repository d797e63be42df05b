/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdbool.h>

/*
 * Which side runs a machine whose state went to another process by a socket, whatever becomes of
 * those who lead the move.  When all is through, the socket stays.  The destination says that it
 * has taken the machine before it runs there for the first time.  The source that is to run again
 * asks for it back, and does so only when the destination has let go: hung up without that word.
 * One whose other side is gone may run; one that gets no answer may not.
 *
 * The main loop's thread, machine lock held.
 */
void handover_sent(int fd); /* all of it; @fd is given away */
void handover_arrived(int fd);
/* Before the machine runs or goes on to somewhere else; true if nobody else can run it. */
bool handover_claim(GError **error);
/* The machine is this process's: where the other side says nothing, somebody knows that it does not
 * run there. */
bool handover_own(GError **error);
