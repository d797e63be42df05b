/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/bandwidth.h"
#include "manage/model/xml.h"

#include <netinet/in.h>

/* libvirt's <network>: what connects machines with each other and with the world. */

struct net_lease {
    int64_t expiry; /* XML_ABSENT: not said; 0: never */
    int unit;       /* index into lease_units */
};
struct net_range {
    char *start, *end;
    struct net_lease *lease;
};
struct net_host { /* of DHCP */
    char *mac, *id, *name, *ip;
    struct net_lease *lease;
};
struct net_dhcp {
    GPtrArray *ranges, *hosts;
    char *bootp_file, *bootp_server;
};
struct net_ip {
    char *family, *address, *netmask;
    int64_t prefix;
    enum tristate local_ptr;
    char *tftp_root;
    struct net_dhcp *dhcp;
    /* Of the check: */
    int af;
    unsigned bits;          /* of the prefix */
    struct in6_addr binary; /* the first 4 bytes for AF_INET */
};
struct net_route {
    char *family, *address, *netmask, *gateway;
    int64_t prefix, metric;
    int af;
    unsigned bits;
    struct in6_addr binary, via;
};

struct net_interface {
    char *dev;
    int64_t connections;
};
struct net_forwarder {
    char *domain, *address;
};
struct net_txt {
    char *name, *value;
};
struct net_srv {
    char *service, *protocol, *domain, *target;
    int64_t port, priority, weight;
};
struct net_name {
    char *text;
};
struct net_dns_host {
    char *ip;
    GPtrArray *names; /* struct net_name */
};
struct net_tag {
    int64_t id;
    char *native; /* "tagged" or "untagged" */
};
struct net_vlan {
    enum tristate trunk;
    GPtrArray *tags; /* struct net_tag */
};
struct net_option { /* a line for dnsmasq's configuration */
    char *value;
};
struct net_portgroup {
    char *name;
    enum tristate by_default, trust;
    struct net_vlan *vlan;
    struct bandwidth *inbound, *outbound;
};

/* libvirt's own name space for what it has no words for. */
#define DNSMASQ_NAMESPACE "http://libvirt.org/schemas/network/dnsmasq/1.0"

/* What has no place in libvirt's words: of <metadata>, in the name space NETWORK_NAMESPACE. */
#define NETWORK_NAMESPACE "urn:lodge:network:1"
struct net_forwarded {
    char *protocol; /* "tcp" or "udp" */
    unsigned port, to_port;
    char *to;
};

enum forward_mode {
    FORWARD_NONE,
    FORWARD_NAT,
    FORWARD_ROUTE,
    FORWARD_OPEN,
    FORWARD_BRIDGE,
    FORWARD_PRIVATE,
    FORWARD_VEPA,
    FORWARD_PASSTHROUGH,
};
extern const char *const forward_mode_names[];

struct network_def {
    enum tristate ipv6, trust;
    char *name, *uuid, *metadata;
    bool forward;
    int mode; /* enum forward_mode */
    char *forward_dev, *forward_managed;
    enum tristate nat_ipv6;
    char *nat_start, *nat_end;
    int64_t port_start, port_end;
    GPtrArray *interfaces; /* struct net_interface */
    char *bridge, *zone, *mac_table;
    enum tristate stp;
    int64_t delay, mtu;
    char *mac;
    char *domain;
    enum tristate domain_local, domain_register;
    enum tristate dns_enable, dns_plain;
    GPtrArray *forwarders, *txts, *srvs, *dns_hosts;
    struct bandwidth *inbound, *outbound;
    struct net_vlan *vlan;
    enum tristate isolated;
    GPtrArray *ips, *routes, *portgroups;
    GPtrArray *options;   /* struct net_option */
    GPtrArray *forwarded; /* struct net_forwarded; read out of .metadata */
    int64_t connections;  /* of a running network: its ports */
};

extern const struct xml_table net_vlan_table, network_table;

/* Whether the bridge is ours: made at the start, with addresses, DHCP and rules. */
bool network_has_own_bridge(const struct network_def *def);

/* Reads and checks; a UUID, and a MAC address for the bridge, are made if they are not given. */
struct network_def *network_parse(const char *text, GError **error);
void network_def_free(struct network_def *def); /* NULL is fine */
struct network_def *network_def_copy(const struct network_def *def);
char *network_format(const struct network_def *def);
/* @name or, if that is NULL, the default one; NULL: there is none. */
const struct net_portgroup *network_portgroup(const struct network_def *def, const char *name);

/* libvirt's <networkport>. */
enum net_plug { PLUG_NETWORK = 1, PLUG_BRIDGE, PLUG_DIRECT };
struct net_port {
    char *uuid, *owner, *owner_uuid, *group, *mac;
    struct bandwidth *inbound, *outbound;
    struct net_vlan *vlan;
    enum tristate isolated, trust;
    int plug; /* enum net_plug; 0: not decided yet */
    char *bridge, *dev, *mode;
};
struct net_port *net_port_new(void);
/* A UUID is made if it is not given. */
struct net_port *net_port_parse(const char *text, GError **error);
void net_port_free(void *port); /* NULL is fine */
char *net_port_format(const struct net_port *port);

/* libvirt's numbers of net-update. */
enum network_command { NETWORK_MODIFY = 1, NETWORK_DELETE, NETWORK_ADD_LAST, NETWORK_ADD_FIRST };
enum network_section {
    SECTION_NONE,
    SECTION_BRIDGE,
    SECTION_DOMAIN,
    SECTION_IP,
    SECTION_IP_DHCP_HOST,
    SECTION_IP_DHCP_RANGE,
    SECTION_FORWARD,
    SECTION_FORWARD_INTERFACE,
    SECTION_FORWARD_PF,
    SECTION_PORTGROUP,
    SECTION_DNS_HOST,
    SECTION_DNS_TXT,
    SECTION_DNS_SRV,
};
/* @parent: which <ip>, counted from 0; -1: the first that fits. */
bool network_update(struct network_def *def, unsigned command, unsigned section, int parent,
                    const char *xml, GError **error);

/* "52:54:00:12:34:56" */
bool mac_parse(const char *text, uint8_t mac[6]);
/* Seconds; -1: for ever; 0: what dnsmasq has. */
int64_t lease_seconds(const struct net_lease *lease);
/* How many addresses lie from @start to @end; 0: they are no addresses of one family. */
uint64_t range_size(const struct net_range *range);
