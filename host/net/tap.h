/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/net/backend.h"

#include <net/if.h>

/* Between tap.c and bridge.c. */

/* Opens or makes the interface; @name empty: the kernel picks a name, which it returns.  @multi: once for each queue. */
int tap_interface(char name[IFNAMSIZ], bool vnet_hdr, bool multi, GError **error);
/* A backend over the descriptor of such an interface, which it owns from now on. */
struct netdev *tap_over(int fd, const char *about, bool vnet_hdr);
