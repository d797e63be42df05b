/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Sending the machine's state elsewhere, and taking one.  @uri is file:PATH, exec:COMMAND,
 * unix:PATH, tcp:HOST:PORT or fd:N.  The main loop's thread, machine lock held.
 */
struct migrate_parameters { /* may change on the way */
    _Atomic uint64_t max_bandwidth; /* bytes a second; 0: no bound */
    _Atomic uint64_t downtime_ms;   /* that the guest may stand still at the end */
    _Atomic bool return_path;       /* the socket stays: see handover.h */
};
struct migrate_parameters *migrate_parameters(void);

/* Returns at once; the guest runs until most of its memory is sent. */
bool migrate_start(const char *uri, GError **error);
void migrate_stop(void);
bool migrate_running(void); /* to somewhere else, and it has not ended */
bool migrate_finishing(void); /* and has stopped the machine */
json_t *migrate_status(void); /* as query-migrate answers */
/* "", "active", "completed", "failed: why" */
char *migrate_describe(void);

/* -incoming: "defer" waits for migrate_deferred().  The machine starts when the state is
 * there, unless @paused or it was saved while it stood still. */
bool migrate_incoming(const char *uri, bool paused, GError **error);
bool migrate_deferred(const char *uri, GError **error);
