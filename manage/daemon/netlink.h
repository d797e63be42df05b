/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The kernel's network devices, over rtnetlink.  Each call opens a socket of its own and waits
 * for the kernel's answer, so any thread may call at any time.  Devices go by name.
 */

/* 0: there is none. */
unsigned link_index(const char *name);
/* @vlans may be NULL: whether the bridge tells VLANs apart. */
bool link_is_bridge(const char *name, bool *vlans);
bool link_delete(const char *name, GError **error);
bool link_up(const char *name, GError **error);
bool link_set_mtu(const char *name, unsigned mtu, GError **error);
bool link_set_mac(const char *name, const uint8_t mac[6], GError **error);
/* Makes @name a port of @bridge; NULL: of none. */
bool link_set_master(const char *name, const char *bridge, GError **error);

struct bridge {
    const char *name;
    uint8_t mac[6];
    bool stp;
    unsigned delay; /* seconds until a port forwards */
    bool vlans;     /* ports have VLAN tags */
};
bool bridge_create(const struct bridge *how, GError **error);
/* How fast frames leave @name; .bytes a second 0: as they come.  .burst bytes may go at once, at
 * .peak bytes a second (0: at any speed). */
struct link_rate {
    uint64_t bytes, burst, peak;
};
bool link_shape(const char *name, const struct link_rate *rate, GError **error);
/* Of a bridge's port: it talks to ports that are not isolated only. */
bool port_isolate(const char *name, GError **error);
/* Of a port: frames of VLAN @id; @untagged: those that come without a tag belong to it. */
bool port_vlan_add(const char *name, unsigned id, bool untagged, GError **error);
bool port_vlan_remove(const char *name, unsigned id, GError **error);

/* A macvtap over @lower: @mode "bridge", "private", "vepa" or "passthrough". */
bool macvtap_create(const char *name, const char *lower, const char *mode, const uint8_t mac[6],
                    GError **error);
/* A tap under @name, where "%d" stands for the first free number; -1 with an error.  @taken: at
 * least 16 bytes for the name that it got.  @multi: it may be opened once for each queue. */
int tap_open(const char *name, bool vnet_header, bool multi, char *taken, GError **error);
/* The character device of a macvtap, whose frames have a header for offloads if @vnet_header. */
int macvtap_open(const char *name, bool vnet_header, GError **error);

/* @address: 4 bytes (AF_INET) or 16 (AF_INET6). */
bool address_add(const char *name, int family, const void *address, unsigned prefix,
                 GError **error);
/* Whom the host has heard of lately, of both families. */
typedef void (*neighbour_fn)(void *owner, int family, const void *address, const uint8_t mac[6]);
bool neighbours_each(neighbour_fn each, void *owner, GError **error);
/* @gateway reaches the network; NULL: it is behind @name itself.  @metric 0: the kernel's. */
bool route_add(const char *name, int family, const void *network, unsigned prefix,
               const void *gateway, unsigned metric, GError **error);
/* *@device, to be freed: through which the main table routes exactly these addresses; NULL: none.
 * False: the table could not be read. */
bool route_device(int family, const void *network, unsigned prefix, char **device, GError **error);
