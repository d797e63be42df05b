/* SPDX-License-Identifier: GPL-2.0-or-later */

/* network: libvirt's <network> as a struct. */
#include "manage/model/network.h"

#include "manage/error.h"
#include "manage/model/network_rows.h"
#include "manage/model/pool.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

XML_WORDS(forward_mode_names, "nat", "route", "open", "bridge", "private", "vepa", "passthrough",
          XML_OTHERS, "hostdev");
static XML_WORDS(managed_words, "yes", "no");
static XML_WORDS(lease_units, "seconds", "minutes", "hours");

static const struct xml_row lease_rows[] = {
    XML_INT(struct net_lease, expiry, "@expiry", XML_REQUIRED),
    XML_ENUM(struct net_lease, unit, "@unit", lease_units, 0),
};
static const struct xml_table lease_table = XML_TABLE("lease", struct net_lease, lease_rows);

static const struct xml_row range_rows[] = {
    XML_TEXT(struct net_range, start, "@start", XML_REQUIRED),
    XML_TEXT(struct net_range, end, "@end", XML_REQUIRED),
    XML_STRUCT(struct net_range, lease, "lease", &lease_table, 0),
};
const struct xml_table net_range_table = XML_TABLE("range", struct net_range, range_rows);

static const struct xml_row host_rows[] = {
    XML_TEXT(struct net_host, mac, "@mac", 0),
    XML_TEXT(struct net_host, id, "@id", 0),
    XML_TEXT(struct net_host, name, "@name", 0),
    XML_TEXT(struct net_host, ip, "@ip", 0),
    XML_STRUCT(struct net_host, lease, "lease", &lease_table, 0),
};
const struct xml_table net_host_table = XML_TABLE("host", struct net_host, host_rows);

static const struct xml_row dhcp_rows[] = {
    XML_LIST(struct net_dhcp, ranges, "range", &net_range_table, 0),
    XML_LIST(struct net_dhcp, hosts, "host", &net_host_table, 0),
    XML_TEXT(struct net_dhcp, bootp_file, "bootp/@file", 0),
    XML_TEXT(struct net_dhcp, bootp_server, "bootp/@server", 0),
};
const struct xml_table net_dhcp_table = XML_TABLE("dhcp", struct net_dhcp, dhcp_rows);

static const struct xml_row ip_rows[] = {
    XML_TEXT(struct net_ip, family, "@family", 0),
    XML_TEXT(struct net_ip, address, "@address", XML_REQUIRED),
    XML_TEXT(struct net_ip, netmask, "@netmask", 0),
    XML_INT(struct net_ip, prefix, "@prefix", 0),
    XML_YESNO(struct net_ip, local_ptr, "@localPtr", 0),
    XML_TEXT(struct net_ip, tftp_root, "tftp/@root", 0),
    XML_STRUCT(struct net_ip, dhcp, "dhcp", &net_dhcp_table, 0),
};
static const struct xml_table ip_table = XML_TABLE("ip", struct net_ip, ip_rows);

static const struct xml_row route_rows[] = {
    XML_TEXT(struct net_route, family, "@family", 0),
    XML_TEXT(struct net_route, address, "@address", XML_REQUIRED),
    XML_TEXT(struct net_route, netmask, "@netmask", 0),
    XML_INT(struct net_route, prefix, "@prefix", 0),
    XML_TEXT(struct net_route, gateway, "@gateway", XML_REQUIRED),
    XML_INT(struct net_route, metric, "@metric", 0),
};
static const struct xml_table route_table = XML_TABLE("route", struct net_route, route_rows);

static const struct xml_row interface_rows[] = {
    XML_TEXT(struct net_interface, dev, "@dev", XML_REQUIRED),
    XML_INT(struct net_interface, connections, "@connections", XML_LIVE),
};
const struct xml_table net_interface_table =
    XML_TABLE("interface", struct net_interface, interface_rows);

static const struct xml_row forwarder_rows[] = {
    XML_TEXT(struct net_forwarder, domain, "@domain", 0),
    XML_TEXT(struct net_forwarder, address, "@addr", 0),
};
static const struct xml_table forwarder_table =
    XML_TABLE("forwarder", struct net_forwarder, forwarder_rows);

static const struct xml_row txt_rows[] = {
    XML_TEXT(struct net_txt, name, "@name", XML_REQUIRED),
    XML_TEXT(struct net_txt, value, "@value", 0),
};
const struct xml_table net_txt_table = XML_TABLE("txt", struct net_txt, txt_rows);

static const struct xml_row srv_rows[] = {
    XML_TEXT(struct net_srv, service, "@service", XML_REQUIRED),
    XML_TEXT(struct net_srv, protocol, "@protocol", XML_REQUIRED),
    XML_TEXT(struct net_srv, domain, "@domain", 0),
    XML_TEXT(struct net_srv, target, "@target", 0),
    XML_INT(struct net_srv, port, "@port", 0),
    XML_INT(struct net_srv, priority, "@priority", 0),
    XML_INT(struct net_srv, weight, "@weight", 0),
};
const struct xml_table net_srv_table = XML_TABLE("srv", struct net_srv, srv_rows);

static const struct xml_row name_rows[] = {
    XML_TEXT(struct net_name, text, ".", 0),
};
static const struct xml_table name_table = XML_TABLE("hostname", struct net_name, name_rows);

static const struct xml_row option_rows[] = {
    XML_TEXT(struct net_option, value, "@value", XML_REQUIRED),
};
static const struct xml_table option_table = XML_TABLE("option", struct net_option, option_rows);

static const struct xml_row dns_host_rows[] = {
    XML_TEXT(struct net_dns_host, ip, "@ip", 0),
    XML_LIST(struct net_dns_host, names, "hostname", &name_table, 0),
};
const struct xml_table net_dns_host_table = XML_TABLE("host", struct net_dns_host, dns_host_rows);

static const struct xml_row tag_rows[] = {
    XML_INT(struct net_tag, id, "@id", XML_REQUIRED),
    XML_TEXT(struct net_tag, native, "@nativeMode", 0),
};
static const struct xml_table tag_table = XML_TABLE("tag", struct net_tag, tag_rows);

static const struct xml_row vlan_rows[] = {
    XML_YESNO(struct net_vlan, trunk, "@trunk", 0),
    XML_LIST(struct net_vlan, tags, "tag", &tag_table, 0),
};
const struct xml_table net_vlan_table = XML_TABLE("vlan", struct net_vlan, vlan_rows);

static const struct xml_row portgroup_rows[] = {
    XML_TEXT(struct net_portgroup, name, "@name", XML_REQUIRED),
    XML_YESNO(struct net_portgroup, by_default, "@default", 0),
    XML_YESNO(struct net_portgroup, trust, "@trustGuestRxFilters", 0),
    XML_STRUCT(struct net_portgroup, inbound, "bandwidth/inbound", &inbound_table, 0),
    XML_STRUCT(struct net_portgroup, outbound, "bandwidth/outbound", &outbound_table, 0),
    XML_STRUCT(struct net_portgroup, vlan, "vlan", &net_vlan_table, 0),
};
const struct xml_table net_portgroup_table =
    XML_TABLE("portgroup", struct net_portgroup, portgroup_rows);

#define N struct network_def
static const struct xml_row network_rows[] = {
    XML_INT(N, connections, "@connections", XML_LIVE),
    XML_YESNO(N, ipv6, "@ipv6", 0),
    XML_YESNO(N, trust, "@trustGuestRxFilters", 0),
    XML_TEXT(N, name, "name", XML_REQUIRED),
    XML_TEXT(N, uuid, "uuid", 0),
    XML_RAW(N, metadata, "metadata", 0),
    XML_FLAG(N, forward, "forward", 0),
    XML_TEXT(N, forward_dev, "forward/@dev", 0),
    XML_ENUM(N, mode, "forward/@mode", forward_mode_names, 0),
    XML_WORD(N, forward_managed, "forward/@managed", managed_words, 0),
    XML_YESNO(N, nat_ipv6, "forward/nat/@ipv6", 0),
    XML_TEXT(N, nat_start, "forward/nat/address/@start", 0),
    XML_TEXT(N, nat_end, "forward/nat/address/@end", 0),
    XML_INT(N, port_start, "forward/nat/port/@start", 0),
    XML_INT(N, port_end, "forward/nat/port/@end", 0),
    XML_LIST(N, interfaces, "forward/interface", &net_interface_table, 0),
    XML_TEXT(N, bridge, "bridge/@name", 0),
    XML_TEXT(N, zone, "bridge/@zone", 0),
    XML_ONOFF(N, stp, "bridge/@stp", 0),
    XML_INT(N, delay, "bridge/@delay", 0),
    XML_TEXT(N, mac_table, "bridge/@macTableManager", 0),
    XML_INT(N, mtu, "mtu/@size", 0),
    XML_TEXT(N, mac, "mac/@address", 0),
    XML_TEXT(N, domain, "domain/@name", 0),
    XML_YESNO(N, domain_local, "domain/@localOnly", 0),
    XML_YESNO(N, domain_register, "domain/@register", 0),
    XML_YESNO(N, dns_enable, "dns/@enable", 0),
    XML_YESNO(N, dns_plain, "dns/@forwardPlainNames", 0),
    XML_LIST(N, forwarders, "dns/forwarder", &forwarder_table, 0),
    XML_LIST(N, txts, "dns/txt", &net_txt_table, 0),
    XML_LIST(N, srvs, "dns/srv", &net_srv_table, 0),
    XML_LIST(N, dns_hosts, "dns/host", &net_dns_host_table, 0),
    XML_STRUCT(N, inbound, "bandwidth/inbound", &inbound_table, 0),
    XML_STRUCT(N, outbound, "bandwidth/outbound", &outbound_table, 0),
    XML_STRUCT(N, vlan, "vlan", &net_vlan_table, 0),
    XML_YESNO(N, isolated, "port/@isolated", 0),
    XML_LIST(N, ips, "ip", &ip_table, 0),
    XML_LIST(N, routes, "route", &route_table, 0),
    XML_LIST(N, portgroups, "portgroup", &net_portgroup_table, 0),
    XML_LIST(N, options, "", &option_table, XML_OURS), /* of another name space */
};
const struct xml_table network_table = XML_TABLE("network", N, network_rows);

/* ---- small things ---- */

bool mac_parse(const char *text, uint8_t mac[6])
{
    unsigned b[6];
    int end = -1;
    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) !=
            6 ||
        text[end]) {
        return false;
    }
    for (unsigned i = 0; i < 6; i++) {
        mac[i] = (uint8_t)b[i];
    }
    return true;
}

int64_t lease_seconds(const struct net_lease *lease)
{
    static const int64_t seconds[] = {60, 1, 60, 3600}; /* minutes if not said */
    if (!lease || lease->expiry == XML_ABSENT) {
        return 0;
    }
    return lease->expiry ? lease->expiry * seconds[lease->unit] : -1;
}

static int family_of(const char *address, struct in6_addr *binary)
{
    memset(binary, 0, sizeof(*binary));
    if (inet_pton(AF_INET, address, binary) == 1) {
        return AF_INET;
    }
    return inet_pton(AF_INET6, address, binary) == 1 ? AF_INET6 : AF_UNSPEC;
}

/* The low 64 bits of an address as a number. */
static uint64_t number_of(int family, const struct in6_addr *a)
{
    uint64_t v = 0;
    for (unsigned i = family == AF_INET ? 0 : 8; i < (family == AF_INET ? 4u : 16u); i++) {
        v = v << 8 | a->s6_addr[i];
    }
    return v;
}

uint64_t range_size(const struct net_range *range)
{
    struct in6_addr a, b;
    int family = family_of(range->start, &a);
    if (!family || family_of(range->end, &b) != family ||
        (family == AF_INET6 && memcmp(&a, &b, 8) != 0) ||
        number_of(family, &a) > number_of(family, &b)) {
        return 0;
    }
    return number_of(family, &b) - number_of(family, &a) + 1;
}

static bool same_net(const struct in6_addr *a, const struct in6_addr *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    return !memcmp(a, b, whole) &&
           (!rest || !((a->s6_addr[whole] ^ b->s6_addr[whole]) >> (8 - rest)));
}

/* Nothing behind the prefix. */
static bool is_network(const struct in6_addr *a, unsigned bits)
{
    for (unsigned i = bits; i < 128; i++) {
        if (a->s6_addr[i / 8] >> (7 - i % 8) & 1) {
            return false;
        }
    }
    return true;
}

bool network_has_own_bridge(const struct network_def *def)
{
    return def->mode == FORWARD_NONE || def->mode == FORWARD_NAT || def->mode == FORWARD_ROUTE ||
           def->mode == FORWARD_OPEN;
}

const struct net_portgroup *network_portgroup(const struct network_def *def, const char *name)
{
    for (unsigned i = 0; i < xml_count(def->portgroups); i++) {
        const struct net_portgroup *group = def->portgroups->pdata[i];
        if (name ? !strcmp(group->name, name) : group->by_default == TRI_YES) {
            return group;
        }
    }
    return NULL;
}

/* ---- checking ---- */

#define BAD(...) (libvirt_error(error, ERR_XML, __VA_ARGS__), false)

/* Netmask or prefix as a number of bits; what neither says is the address's class, or 64. */
static bool bits_of(int family, const struct in6_addr *address, const char *netmask, int64_t prefix,
                    unsigned *bits)
{
    struct in6_addr mask;
    unsigned most = family == AF_INET ? 32 : 128;
    if (netmask) {
        if (family != AF_INET || family_of(netmask, &mask) != AF_INET || prefix != XML_ABSENT) {
            return false;
        }
        uint32_t value = (uint32_t)number_of(AF_INET, &mask);
        *bits = value ? 32u - (unsigned)__builtin_ctz(value) : 0;
        return value == (uint32_t)(*bits ? UINT32_MAX << (32 - *bits) : 0);
    }
    if (prefix == XML_ABSENT) {
        uint8_t first = address->s6_addr[0];
        *bits = family == AF_INET6 ? 64 : first < 128 ? 8 : first < 192 ? 16 : 24;
        return true;
    }
    *bits = (unsigned)prefix;
    return prefix >= 0 && prefix <= most;
}

static bool family_check(const char *said, int family)
{
    return family && (!said || !strcmp(said, family == AF_INET ? "ipv4" : "ipv6"));
}

static bool lease_check(const struct net_lease *lease, GError **error)
{
    enum { LEAST = 120 }; /* what dnsmasq takes */
    int64_t seconds = lease_seconds(lease);
    if (lease &&
        (lease->expiry < 0 || lease->expiry > UINT32_MAX || (seconds > 0 && seconds < LEAST))) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "The lease expiry time should be 0 or at least %d seconds", LEAST);
        return false;
    }
    return true;
}

static bool range_check(const struct net_ip *ip, const struct net_range *range, GError **error)
{
    struct in6_addr a, b;
    uint64_t size = range_size(range);
    if (!size || family_of(range->start, &a) != ip->af || family_of(range->end, &b) != ip->af) {
        return BAD("invalid dhcp range %s - %s in network", range->start, range->end);
    }
    if (!same_net(&a, &ip->binary, ip->bits) || !same_net(&b, &ip->binary, ip->bits)) {
        return BAD("dhcp range %s - %s is not entirely within network %s/%u", range->start,
                   range->end, ip->address, ip->bits);
    }
    return lease_check(range->lease, error);
}

/* What goes into a line of dnsmasq's files. */
static bool word_check(const char *text, const char *what, GError **error)
{
    for (const char *p = text ? text : ""; *p; p++) {
        if (g_ascii_iscntrl(*p) || strchr(" ,#\"\\", *p)) {
            return BAD("%s '%.100s' has a character that is not allowed there", what, text);
        }
    }
    return true;
}

static bool line_check(const char *text, const char *what, GError **error)
{
    for (const char *p = text ? text : ""; *p; p++) {
        if (g_ascii_iscntrl(*p) || *p == '"') {
            return BAD("%s '%.100s' has a character that is not allowed there", what, text);
        }
    }
    return true;
}

static bool host_check(const struct net_ip *ip, const struct net_host *host, GError **error)
{
    uint8_t mac[6];
    struct in6_addr a;
    if (host->mac && (!mac_parse(host->mac, mac) || (mac[0] & 1))) {
        return BAD("Invalid %s MAC address: '%s'", mac_parse(host->mac, mac) ? "multicast" : "host",
                   host->mac);
    }
    if (!host->mac && !host->id && !host->name) {
        return BAD("At least one of name, mac, or ip attribute must be specified for static host "
                   "definition");
    }
    if (ip->af == AF_INET6 && host->mac) {
        return BAD("Invalid to specify MAC address '%s' in network IPv6 static host definition",
                   host->mac);
    }
    if (host->ip && family_of(host->ip, &a) != ip->af) {
        return BAD("Invalid IP address '%s' in static host definition", host->ip);
    }
    return word_check(host->name, "host name", error) && word_check(host->id, "host id", error) &&
           lease_check(host->lease, error);
}

static bool dhcp_check(const struct net_ip *ip, GError **error)
{
    const struct net_dhcp *dhcp = ip->dhcp;
    for (unsigned i = 0; dhcp && i < xml_count(dhcp->ranges); i++) {
        if (!range_check(ip, dhcp->ranges->pdata[i], error)) {
            return false;
        }
    }
    for (unsigned i = 0; dhcp && i < xml_count(dhcp->hosts); i++) {
        if (!host_check(ip, dhcp->hosts->pdata[i], error)) {
            return false;
        }
    }
    return !dhcp || (word_check(dhcp->bootp_file, "bootp file", error) &&
                     word_check(dhcp->bootp_server, "bootp server", error));
}

static bool ips_check(struct network_def *def, GError **error)
{
    unsigned with_dhcp[2] = {0, 0};
    for (unsigned i = 0; i < xml_count(def->ips); i++) {
        struct net_ip *ip = def->ips->pdata[i];
        ip->af = family_of(ip->address, &ip->binary);
        if (!family_check(ip->family, ip->af)) {
            return BAD("Invalid address '%s' in definition of network '%s'", ip->address,
                       def->name);
        }
        if (!bits_of(ip->af, &ip->binary, ip->netmask, ip->prefix, &ip->bits)) {
            return BAD("network '%s' has invalid netmask or prefix for address '%s'", def->name,
                       ip->address);
        }
        if (!dhcp_check(ip, error) || !line_check(ip->tftp_root, "tftp root", error)) {
            return false;
        }
        if (ip->dhcp && with_dhcp[ip->af == AF_INET6]++) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "Multiple %s dhcp sections found -- dhcp is supported only for a single "
                          "%s address on each network",
                          ip->af == AF_INET ? "IPv4" : "IPv6", ip->af == AF_INET ? "IPv4" : "IPv6");
            return false;
        }
    }
    return true;
}

static bool routes_check(struct network_def *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->routes); i++) {
        struct net_route *r = def->routes->pdata[i];
        r->af = family_of(r->address, &r->binary);
        if (!family_check(r->family, r->af) || family_of(r->gateway, &r->via) != r->af ||
            !bits_of(r->af, &r->binary, r->netmask, r->prefix, &r->bits) ||
            (r->metric != XML_ABSENT && (r->metric < 1 || r->metric > UINT32_MAX))) {
            return BAD("invalid route definition for %s via %s in network '%s'", r->address,
                       r->gateway, def->name);
        }
        if (!is_network(&r->binary, r->bits)) {
            return BAD("address '%s' in route definition of network '%s' is no network of %u bits",
                       r->address, def->name, r->bits);
        }
    }
    return true;
}

static bool srv_numbers_check(const struct network_def *def, const struct net_srv *s,
                              GError **error)
{
    const struct {
        const char *name;
        int64_t value, least;
    } numbers[] = {{"port", s->port, 1}, {"priority", s->priority, 0}, {"weight", s->weight, 0}};
    for (unsigned i = 0; i < G_N_ELEMENTS(numbers); i++) {
        if (numbers[i].value == XML_ABSENT) {
            continue;
        }
        if (!s->target) {
            return BAD("DNS SRV %s attribute not permitted without target for service '%s' in "
                       "network '%s'",
                       numbers[i].name, s->service, def->name);
        }
        if (numbers[i].value < numbers[i].least || numbers[i].value > UINT16_MAX) {
            return BAD("invalid DNS SRV %s attribute for service '%s' in network '%s'",
                       numbers[i].name, s->service, def->name);
        }
    }
    return true;
}

static bool dns_check(const struct network_def *def, GError **error)
{
    struct in6_addr a;
    bool ok = true;
    for (unsigned i = 0; ok && i < xml_count(def->forwarders); i++) {
        const struct net_forwarder *f = def->forwarders->pdata[i];
        ok = (f->address || f->domain ||
              BAD("Invalid forwarder element, must contain at least one of addr or domain")) &&
             (!f->address || family_of(f->address, &a) ||
              BAD("invalid forwarder '%s'", f->address)) &&
             word_check(f->domain, "forwarder domain", error);
    }
    for (unsigned i = 0; ok && i < xml_count(def->txts); i++) {
        const struct net_txt *t = def->txts->pdata[i];
        ok = word_check(t->name, "DNS TXT record name", error) &&
             line_check(t->value, "DNS TXT record value", error);
    }
    for (unsigned i = 0; ok && i < xml_count(def->srvs); i++) {
        const struct net_srv *s = def->srvs->pdata[i];
        ok = srv_numbers_check(def, s, error) && word_check(s->service, "DNS SRV service", error) &&
             word_check(s->protocol, "DNS SRV protocol", error) &&
             word_check(s->domain, "DNS SRV domain", error) &&
             word_check(s->target, "DNS SRV target", error);
    }
    for (unsigned i = 0; ok && i < xml_count(def->dns_hosts); i++) {
        const struct net_dns_host *h = def->dns_hosts->pdata[i];
        ok = (h->ip && family_of(h->ip, &a)) ||
             BAD("Invalid IP address in network '%s' DNS HOST record", def->name);
        ok = ok && (xml_count(h->names) ||
                    BAD("Missing hostname in network '%s' DNS HOST record", def->name));
        for (unsigned k = 0; ok && k < xml_count(h->names); k++) {
            const struct net_name *name = h->names->pdata[k];
            ok = name->text && *name->text ? word_check(name->text, "host name", error)
                                           : BAD("Missing hostname in DNS HOST record");
        }
    }
    if (ok && def->domain_register == TRI_YES) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "register='yes' of <domain> is not supported (network '%s')", def->name);
        return false;
    }
    if (ok && !def->domain && (def->domain_local || def->domain_register)) {
        return BAD("<domain> of network '%s' has no name", def->name);
    }
    return ok && word_check(def->domain, "domain name", error);
}

static bool device_check(const char *name, const char *what, GError **error)
{
    bool bad = !*name || strlen(name) >= IFNAMSIZ || !strcmp(name, ".") || !strcmp(name, "..");
    for (const char *p = name; *p; p++) {
        bad |= *p == '/' || *p == ':' || *p == '"' || (unsigned char)*p <= ' ';
    }
    return !bad || BAD("'%.50s' is no name for a %s", name, what);
}

static bool refuse(const char *element, const struct network_def *def, GError **error)
{
    libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                  "%s element not allowed in network '%s' with forward mode='%s'", element,
                  def->name, def->mode ? forward_mode_names[def->mode] : "none");
    return false;
}

bool vlan_check(const struct net_vlan *vlan, GError **error)
{
    for (unsigned i = 0; vlan && i < xml_count(vlan->tags); i++) {
        const struct net_tag *tag = vlan->tags->pdata[i];
        if (tag->id < 0 || tag->id > 4094) {
            return BAD("vlan tag id %" PRId64 " too large (maximum 4095)", tag->id);
        }
        if (tag->native && strcmp(tag->native, "tagged") && strcmp(tag->native, "untagged")) {
            return BAD("Invalid \"nativeMode='%s'\" in vlan <tag> element", tag->native);
        }
    }
    return !vlan || xml_count(vlan->tags) ||
           BAD("missing tag id - each <vlan> must have at least one <tag id='n'/> subelement");
}

static bool forward_check(struct network_def *def, GError **error)
{
    struct in6_addr a;
    if (def->forward && !def->mode) {
        def->mode = FORWARD_NAT;
    }
    if ((def->nat_start || def->port_start != XML_ABSENT) && def->mode != FORWARD_NAT) {
        return refuse("<nat>", def, error);
    }
    if (def->nat_start && (family_of(def->nat_start, &a) != AF_INET ||
                           (def->nat_end && family_of(def->nat_end, &a) != AF_INET))) {
        return BAD("Bad ipv4 start address '%s' in <nat> in <forward> in network '%s'",
                   def->nat_start, def->name);
    }
    struct net_range pool = {def->nat_start, def->nat_end, NULL};
    if (def->nat_end && (!def->nat_start || !range_size(&pool))) {
        return BAD("range %s - %s in <nat> of network '%s' is reversed",
                   def->nat_start ? def->nat_start : "", def->nat_end, def->name);
    }
    if (network_has_own_bridge(def) && xml_count(def->interfaces) > 1) {
        return BAD("multiple forwarding interfaces specified for network '%s', only one is "
                   "supported",
                   def->name);
    }
    if ((def->port_start != XML_ABSENT) != (def->port_end != XML_ABSENT) ||
        (def->port_start != XML_ABSENT &&
         (def->port_start < 1 || def->port_start > def->port_end || def->port_end > 65535))) {
        return BAD("Bad port range in <nat> in <forward> in network '%s'", def->name);
    }
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        if (!device_check(((struct net_interface *)def->interfaces->pdata[i])->dev, "device",
                          error)) {
            return false;
        }
    }
    if (def->forward_dev) {
        const struct net_interface *first =
            xml_count(def->interfaces) ? def->interfaces->pdata[0] : NULL;
        if (first && strcmp(first->dev, def->forward_dev)) {
            return BAD(
                "forward dev '%s' must match first interface element dev '%s' in network '%s'",
                def->forward_dev, first->dev, def->name);
        }
        if (!first) {
            struct net_interface *one = xml_new(&net_interface_table);
            one->dev = g_strdup(def->forward_dev);
            xml_append(&net_interface_table, &def->interfaces, one);
        }
        return device_check(def->forward_dev, "device", error);
    }
    if (xml_count(def->interfaces)) {
        def->forward_dev = g_strdup(((struct net_interface *)def->interfaces->pdata[0])->dev);
    }
    return true;
}

/* What only a bridge of ours has, and what only another's may have. */
static bool bridge_check(struct network_def *def, GError **error)
{
    if (!network_has_own_bridge(def)) {
        if (def->ips || def->routes || def->domain || def->dns_hosts || def->mac ||
            def->mtu != XML_ABSENT) {
            return refuse(def->ips         ? "<ip>"
                          : def->routes    ? "<route>"
                          : def->mac       ? "<mac>"
                          : def->domain    ? "<domain>"
                          : def->dns_hosts ? "<dns>"
                                           : "<mtu>",
                          def, error);
        }
        if (def->stp || def->delay != XML_ABSENT) {
            return BAD("bridge delay/stp options only allowed in route, nat, and isolated mode, "
                       "not in %s (network '%s')",
                       forward_mode_names[def->mode], def->name);
        }
        if (def->bridge && (def->mode != FORWARD_BRIDGE || def->interfaces)) {
            return BAD("A network with forward mode='%s' can specify a bridge name or a forward "
                       "dev, but not both (network '%s')",
                       forward_mode_names[def->mode], def->name);
        }
        if (!def->bridge && !def->interfaces) {
            return BAD("network '%s' needs a <bridge> or an <interface>", def->name);
        }
    } else {
        def->stp = def->stp ? def->stp : TRI_YES;
        def->delay = def->delay != XML_ABSENT ? def->delay : 0;
        if (!def->mac) {
            guint32 r = g_random_int();
            def->mac =
                g_strdup_printf("52:54:00:%02x:%02x:%02x", r & 0xff, r >> 8 & 0xff, r >> 16 & 0xff);
        }
    }
    uint8_t mac[6];
    if (def->mac && (!mac_parse(def->mac, mac) || (mac[0] & 1))) {
        return BAD("Invalid bridge mac address '%s' in network '%s'", def->mac, def->name);
    }
    if (def->delay != XML_ABSENT && (def->delay < 0 || def->delay > 30)) {
        return BAD("Invalid bridge delay in network '%s'", def->name);
    }
    if (def->mtu != XML_ABSENT && (def->mtu < 68 || def->mtu > 65535)) {
        return BAD("Invalid mtu size in network '%s'", def->name);
    }
    if (def->mac_table && strcmp(def->mac_table, "kernel")) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "macTableManager='%s' is not supported (network '%s')", def->mac_table,
                      def->name);
        return false;
    }
    if (def->zone) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "zone %s requested for network %s but firewalld is not supported", def->zone,
                      def->name);
        return false;
    }
    return !def->bridge || device_check(def->bridge, "bridge", error);
}

/* ---- what <metadata> has for us ---- */

static char *own_attribute(const xmlNode *node, const char *name)
{
    xmlChar *value = xmlGetNoNsProp(node, (const xmlChar *)name);
    char *copy = g_strdup((const char *)value);
    xmlFree(value);
    return copy;
}

static void forwarded_free(void *p)
{
    struct net_forwarded *f = p;
    g_free(f->protocol);
    g_free(f->to);
    g_free(f);
}

static bool forwarded_read(struct network_def *def, const xmlNode *node, GError **error)
{
    struct net_forwarded *f = g_new0(struct net_forwarded, 1);
    g_autofree char *port = own_attribute(node, "port"), *to_port = own_attribute(node, "toPort");
    struct in6_addr a;
    g_ptr_array_add(def->forwarded, f);
    f->protocol = own_attribute(node, "proto");
    f->to = own_attribute(node, "to");
    f->port = port ? (unsigned)g_ascii_strtoull(port, NULL, 10) : 0;
    f->to_port = to_port ? (unsigned)g_ascii_strtoull(to_port, NULL, 10) : f->port;
    if (strcmp((const char *)node->name, "forward") || !f->protocol ||
        (strcmp(f->protocol, "tcp") && strcmp(f->protocol, "udp")) || !f->to ||
        family_of(f->to, &a) != AF_INET || !f->port || f->port > 65535 || !f->to_port ||
        f->to_port > 65535) {
        return BAD("<%s> of %s in <metadata> of network '%s' must be <forward proto='tcp|udp' "
                   "port='N' to='IPv4 address' toPort='N'/>",
                   (const char *)node->name, NETWORK_NAMESPACE, def->name);
    }
    return true;
}

static bool metadata_check(struct network_def *def, GError **error)
{
    def->forwarded = g_ptr_array_new_with_free_func(forwarded_free);
    if (!def->metadata) {
        return true;
    }
    g_autofree char *whole = g_strconcat("<metadata>", def->metadata, "</metadata>", NULL);
    g_autoptr(xmlDoc) doc = xml_parse(whole, "metadata", "metadata", error);
    if (!doc) {
        return false;
    }
    for (const xmlNode *c = xmlDocGetRootElement(doc)->children; c; c = c->next) {
        if (c->type == XML_ELEMENT_NODE && c->ns &&
            !strcmp((const char *)c->ns->href, NETWORK_NAMESPACE) &&
            !forwarded_read(def, c, error)) {
            return false;
        }
    }
    return !def->forwarded->len || network_has_own_bridge(def) ||
           refuse("<forward> in <metadata>", def, error);
}

/* A bridge passes on whatever comes; a macvtap would have to follow the guest's filters. */
static bool trust_check(const struct network_def *def, GError **error)
{
    bool trust = def->trust == TRI_YES;
    for (unsigned i = 0; i < xml_count(def->portgroups); i++) {
        trust |= ((const struct net_portgroup *)def->portgroups->pdata[i])->trust == TRI_YES;
    }
    if (trust && !network_has_own_bridge(def) && !def->bridge) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "trustGuestRxFilters='yes' is not supported with macvtap (network '%s')",
                      def->name);
        return false;
    }
    return true;
}

static bool portgroups_check(const struct network_def *def, GError **error)
{
    unsigned defaults = 0;
    for (unsigned i = 0; i < xml_count(def->portgroups); i++) {
        const struct net_portgroup *group = def->portgroups->pdata[i];
        defaults += group->by_default == TRI_YES;
        if (!vlan_check(group->vlan, error) ||
            !bandwidth_check(group->inbound, group->outbound, error)) {
            return false;
        }
        if (network_portgroup(def, group->name) != group) {
            return BAD("multiple portgroups with the same name '%s' in network '%s'", group->name,
                       def->name);
        }
    }
    return defaults < 2 || BAD("multiple default portgroups in network '%s'", def->name);
}

bool network_check(struct network_def *def, GError **error)
{
    g_clear_pointer(&def->forwarded, g_ptr_array_unref);
    return name_check(def->name, "network", error) && uuid_normalise(&def->uuid, error) &&
           forward_check(def, error) && bridge_check(def, error) && ips_check(def, error) &&
           routes_check(def, error) && dns_check(def, error) && vlan_check(def->vlan, error) &&
           bandwidth_check(def->inbound, def->outbound, error) && portgroups_check(def, error) &&
           trust_check(def, error) && metadata_check(def, error);
}

/* ---- whole networks ---- */

static bool in_dnsmasq(const xmlNode *node, const char *name)
{
    return node->ns && !strcmp((const char *)node->ns->href, DNSMASQ_NAMESPACE) &&
           !strcmp((const char *)node->name, name);
}

/* <dnsmasq:option value='...'/> of @node. */
static bool options_read(const xmlNode *node, GPtrArray **options, GError **error)
{
    for (const xmlNode *c = node->children; c; c = c->next) {
        if (c->type != XML_ELEMENT_NODE) {
            continue;
        }
        struct net_option *one = xml_new(&option_table);
        xml_append(&option_table, options, one);
        one->value = own_attribute(c, "value");
        if (!in_dnsmasq(c, "option") || !one->value || !*one->value) {
            return BAD("<%s> in <dnsmasq:options> must be <dnsmasq:option value='...'/>",
                       (const char *)c->name);
        }
        for (const char *p = one->value; *p; p++) {
            if (g_ascii_iscntrl(*p)) {
                return BAD("<dnsmasq:option> has a character that is not allowed there");
            }
        }
    }
    return true;
}

/* Takes <dnsmasq:options> out of the document. */
static bool options_take(xmlDoc *doc, GPtrArray **options, GError **error)
{
    bool ok = true;
    xmlNode *next = xmlDocGetRootElement(doc)->children;
    while (ok && next) {
        xmlNode *c = next;
        next = c->next;
        if (c->type == XML_ELEMENT_NODE && in_dnsmasq(c, "options")) {
            ok = options_read(c, options, error);
            xmlUnlinkNode(c);
            xmlFreeNode(c);
        }
    }
    return ok;
}

struct network_def *network_parse(const char *text, GError **error)
{
    g_autoptr(xmlDoc) doc = xml_parse(text, "network_definition", "network", error);
    GPtrArray *options = NULL;
    struct network_def *def = NULL;
    if (doc && options_take(doc, &options, error)) {
        def = xml_read(&network_table, xmlDocGetRootElement(doc), 0, error);
    }
    struct network_def *owner = def ? def : xml_new(&network_table);
    owner->options = options;
    if (!def || !network_check(def, error)) {
        network_def_free(owner);
        return NULL;
    }
    return def;
}

void network_def_free(struct network_def *def)
{
    if (def) {
        g_clear_pointer(&def->forwarded, g_ptr_array_unref);
        xml_free(&network_table, def);
    }
}

struct network_def *network_def_copy(const struct network_def *def)
{
    struct network_def *copy = xml_copy(&network_table, def);
    copy->forwarded = NULL;
    network_check(copy, NULL); /* it was right before: this fills in what is not XML */
    return copy;
}

char *network_format(const struct network_def *def)
{
    static const char start[] = "<network", end[] = "</network>\n";
    g_autofree char *plain = xml_write_text(&network_table, def, XML_MODE_LIVE);
    if (!xml_count(def->options)) {
        return g_steal_pointer(&plain);
    }
    GString *out = g_string_new(start);
    g_string_append(out, " xmlns:dnsmasq='" DNSMASQ_NAMESPACE "'");
    g_string_append_len(out, plain + strlen(start),
                        (gssize)(strlen(plain) - strlen(start) - strlen(end)));
    g_string_append(out, "  <dnsmasq:options>\n");
    for (unsigned i = 0; i < def->options->len; i++) {
        g_string_append(out, "    <dnsmasq:option value='");
        xml_escape(out, ((const struct net_option *)def->options->pdata[i])->value);
        g_string_append(out, "'/>\n");
    }
    g_string_append(out, "  </dnsmasq:options>\n");
    g_string_append(out, end);
    return g_string_free(out, FALSE);
}
