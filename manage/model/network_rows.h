/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/network.h"

/* Of network.c, for network_update.c: the tables of what net-update changes. */
extern const struct xml_table net_range_table, net_host_table, net_dhcp_table, net_interface_table;
extern const struct xml_table net_portgroup_table, net_dns_host_table, net_txt_table, net_srv_table;
bool vlan_check(const struct net_vlan *vlan, GError **error);

/* Everything that must be right; fills in what was not given. */
bool network_check(struct network_def *def, GError **error);
