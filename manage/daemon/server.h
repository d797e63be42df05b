/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>

/* Sockets: listening, accepting, the checks of every second. */
struct server_options {
    bool libvirt_sockets; /* at libvirt's own names too */
    unsigned timeout;     /* seconds without clients after which to leave; 0: never */
};

bool server_start(const struct server_options *options, GError **error);
/* Closes everything. */
void server_stop(void);
