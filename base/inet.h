/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <netdb.h>
#include <stdbool.h>

/*
 * Addresses of @host (NULL or empty: any, or this host) and @port, a number up to 65535 or a
 * service's name; @hints as for getaddrinfo().  freeaddrinfo() is the caller's.  Blocks while
 * names are looked up.
 */
bool inet_look_up(const char *host, const char *port, const struct addrinfo *hints,
                  struct addrinfo **out, GError **error);
/* Removes a socket that nobody listens on any more, never another kind of file. */
void unix_forget(const char *path);
