/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/network.h"

/* What a running network is made of, besides its bridge.  Without the daemon lock. */

/*
 * Firewall and address translation: a table "lodge_BRIDGE" of nftables for each network, put in
 * and replaced as a whole, so that nobody else's rules are touched.
 */
bool rules_put(const struct network_def *def, GError **error);
bool rules_drop(const struct network_def *def, GError **error);
/* The JSON text that rules_put() hands to nft: for tests. */
char *rules_text(const struct network_def *def);
/* The names of all our tables that there are; NULL with an error. */
GPtrArray *rules_list(GError **error);
char *rules_name(const struct network_def *def);
/* A socket that is readable when tables come or go. */
int rules_watch(GError **error);
/* Reads it empty: whether a table of ours has gone. */
bool rules_watch_read(int fd);

/* DHCP, DNS, TFTP and router advertisements: a process dnsmasq for each network. */
bool dnsmasq_wanted(const struct network_def *def);
/* Its configuration: for tests. */
char *dnsmasq_text(const struct network_def *def, const char *pid_file, const char *lease_file);
bool dnsmasq_start(const struct network_def *def, GError **error);
bool dnsmasq_running(const struct network_def *def);
void dnsmasq_stop(const struct network_def *def);
/* Forgets leases and files. */
void dnsmasq_forget(const struct network_def *def);

struct dhcp_lease {
    int64_t expiry; /* seconds since 1970; 0: never */
    bool ipv6;
    char *mac, *iaid, *address, *hostname, *client_id; /* NULL: not known; .address always is */
    unsigned prefix;
};
void dhcp_lease_free(void *lease);
/* struct dhcp_lease, those of @mac only unless that is NULL. */
GPtrArray *dnsmasq_leases(const struct network_def *def, const char *mac);
