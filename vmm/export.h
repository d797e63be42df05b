/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

/*
 * The machine's NBD server: drives, nodes, and what drives were when a backup job began, for
 * clients on other threads.  Machine lock held.
 */
struct nbd_start {
    int listening;         /* a socket, taken over in any case */
    const char *tls_creds; /* id; NULL: plain */
    unsigned clients;      /* 0: any number */
};
bool export_server_start(const struct nbd_start *how, GError **error);
bool export_server_runs(void);
bool export_server_uses(const char *tls_creds); /* id */
/* Ends all exports; false if there is no server. */
bool export_server_stop(GError **error);

struct export_add {
    const char *id, *node, *name, *description;
    bool writable, depth;
    json_t *bitmaps; /* names, or objects with "node" and "name"; NULL: none */
};
/* Clients that are there have to come again; also when one is removed. */
bool export_add(const struct export_add *what, GError **error);
bool export_remove(const char *id, GError **error);
/* An array as query-block-exports has it. */
json_t *export_list(void);
