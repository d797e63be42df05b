/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/bandwidth.h"
#include "manage/model/domain.h"

#include <jansson.h>

/*
 * What a port of a bridge, or a bridge, lets through: limits of bandwidth and filters.  The
 * kernel's tables are called as those of networks are, "lodge_DEVICE", and come back like them
 * when somebody has flushed all.
 */
struct port_guard {
    const char *device;
    /* As whoever is behind the port sees it; NULL: no limit. */
    const struct bandwidth *inbound, *outbound;
    json_t *filter; /* of filter_rules(), or NULL */
};
/* Without the daemon lock.  What was there for @device is replaced. */
bool port_guard(const struct port_guard *guard, GError **error);
/* Any thread; the tables go a little later. */
void port_unguard(const char *device);
/* Puts back what is not among @there, the names of all tables; without the daemon lock. */
void port_guard_mend(const GPtrArray *there);

/* filter.c: commands for nft of what <filterref> means, NULL with an error; daemon lock held. */
json_t *filter_rules(const char *device, const struct domain_interface *nic, GError **error);
/* verbs/nwfilter.c: NULL if there is none of that name. */
const char *nwfilter_xml(const char *name);

/* machine_host.c: what @nic's definition says of bandwidth and filters is true from now on.  Gives
 * up the daemon lock. */
bool machine_net_guard(const struct domain_interface *nic, GError **error);
/* The same where something may have been said before that does not hold any more. */
bool machine_net_guard_anew(const struct domain_interface *nic, GError **error);
