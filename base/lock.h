/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>

/*
 * The machine lock: whoever looks at or changes devices, backends or address-space
 * layout holds it.
 *
 * The main loop holds it except while it sleeps in poll() (see lock_main_context()), so
 * every GSource callback already has it.  A vCPU thread takes it around a device access
 * and never while it executes guest code.  Worker threads (block I/O, TLS) never take it:
 * they hand their result to the main loop.  Not recursive.
 */
void machine_lock(void);
void machine_unlock(void);
bool machine_lock_held(void); /* by this thread; for assertions */

/* Makes the default GMainContext release the lock around poll().  Once, by main(). */
void lock_main_context(void);
