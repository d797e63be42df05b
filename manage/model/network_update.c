/* SPDX-License-Identifier: GPL-2.0-or-later */

/* network_update: net-update changes one entry of a list. */
#include "manage/error.h"
#include "manage/model/network_rows.h"

#include <string.h>

static bool same(const char *a, const char *b)
{
    return a && b && !g_ascii_strcasecmp(a, b);
}

/* What @wanted does not say fits all. */
static bool fits(const char *is, const char *wanted)
{
    return !wanted || same(is, wanted);
}

static bool fits_number(int64_t is, int64_t wanted)
{
    return wanted == XML_ABSENT || is == wanted;
}

/* ---- which entry @wanted is about: for changing, for adding (would be in its way), for deleting
 * ---- */

static bool changes_host(const void *entry, const void *wanted)
{
    const struct net_host *a = entry, *b = wanted;
    return same(a->mac, b->mac) || same(a->name, b->name);
}

static bool hinders_host(const void *entry, const void *wanted)
{
    const struct net_host *a = entry, *b = wanted;
    return changes_host(entry, wanted) || same(a->id, b->id) || same(a->ip, b->ip);
}

static bool fits_host(const void *entry, const void *wanted)
{
    const struct net_host *a = entry, *b = wanted;
    return fits(a->mac, b->mac) && fits(a->id, b->id) && fits(a->name, b->name) &&
           fits(a->ip, b->ip);
}

static bool same_range(const void *entry, const void *wanted)
{
    const struct net_range *a = entry, *b = wanted;
    return same(a->start, b->start) && same(a->end, b->end);
}

static bool same_interface(const void *entry, const void *wanted)
{
    const struct net_interface *a = entry, *b = wanted;
    return same(a->dev, b->dev);
}

static bool same_portgroup(const void *entry, const void *wanted)
{
    const struct net_portgroup *a = entry, *b = wanted;
    return same(a->name, b->name);
}

/* A name may have several addresses. */
static bool hinders_dns_host(const void *entry, const void *wanted)
{
    const struct net_dns_host *a = entry, *b = wanted;
    return same(a->ip, b->ip);
}

static bool fits_dns_host(const void *entry, const void *wanted)
{
    const struct net_dns_host *a = entry, *b = wanted;
    bool found = same(a->ip, b->ip);
    for (unsigned i = 0; !found && i < xml_count(a->names); i++) {
        for (unsigned k = 0; k < xml_count(b->names); k++) {
            found |= same(((struct net_name *)a->names->pdata[i])->text,
                          ((struct net_name *)b->names->pdata[k])->text);
        }
    }
    return found;
}

static bool same_txt(const void *entry, const void *wanted)
{
    const struct net_txt *a = entry, *b = wanted;
    return same(a->name, b->name);
}

static bool fits_srv(const void *entry, const void *wanted)
{
    const struct net_srv *a = entry, *b = wanted;
    return fits(a->service, b->service) && fits(a->protocol, b->protocol) &&
           fits(a->domain, b->domain) && fits(a->target, b->target) &&
           fits_number(a->port, b->port) && fits_number(a->priority, b->priority) &&
           fits_number(a->weight, b->weight);
}

struct section {
    const char *name; /* as net-update has it */
    const char *what; /* in messages */
    const struct xml_table *table;
    bool (*changes)(const void *entry, const void *wanted); /* NULL: nothing can be changed */
    bool (*hinders)(const void *entry, const void *wanted);
    bool (*fits)(const void *entry, const void *wanted);
    size_t list; /* offset in struct network_def, or in struct net_dhcp */
    bool in_dhcp;
};

#define IN_NETWORK(field) offsetof(struct network_def, field)
#define IN_DHCP(field)    offsetof(struct net_dhcp, field)
static const struct section sections[] = {
    [SECTION_BRIDGE] = {"bridge"},
    [SECTION_DOMAIN] = {"domain"},
    [SECTION_IP] = {"ip"},
    [SECTION_IP_DHCP_HOST] = {"ip-dhcp-host", "dhcp host", &net_host_table, changes_host,
                              hinders_host, fits_host, IN_DHCP(hosts), true},
    [SECTION_IP_DHCP_RANGE] = {"ip-dhcp-range", "dhcp range", &net_range_table, NULL, same_range,
                               same_range, IN_DHCP(ranges), true},
    [SECTION_FORWARD] = {"forward"},
    [SECTION_FORWARD_INTERFACE] = {"forward-interface", "interface", &net_interface_table, NULL,
                                   same_interface, same_interface, IN_NETWORK(interfaces), false},
    [SECTION_FORWARD_PF] = {"forward-pf"},
    [SECTION_PORTGROUP] = {"portgroup", "portgroup", &net_portgroup_table, same_portgroup,
                           same_portgroup, same_portgroup, IN_NETWORK(portgroups), false},
    [SECTION_DNS_HOST] = {"dns-host", "DNS HOST", &net_dns_host_table, NULL, hinders_dns_host,
                          fits_dns_host, IN_NETWORK(dns_hosts), false},
    [SECTION_DNS_TXT] = {"dns-txt", "DNS TXT", &net_txt_table, NULL, same_txt, same_txt,
                         IN_NETWORK(txts), false},
    [SECTION_DNS_SRV] = {"dns-srv", "DNS SRV", &net_srv_table, NULL, fits_srv, fits_srv,
                         IN_NETWORK(srvs), false},
};

/* The <ip> that an entry of DHCP belongs to: @parent, or the one that has DHCP, or the first. */
static struct net_ip *find_ip(const struct network_def *def, int parent, bool ipv6, GError **error)
{
    struct net_ip *first = NULL;
    for (unsigned i = 0; i < xml_count(def->ips); i++) {
        struct net_ip *ip = def->ips->pdata[i];
        if (parent >= 0 ? i == (unsigned)parent : ip->dhcp && (ip->af == AF_INET6) == ipv6) {
            return ip;
        }
        if (!first && parent < 0 && (ip->af == AF_INET6) == ipv6) {
            first = ip;
        }
    }
    if (!first) {
        libvirt_error(
            error, ERR_OPERATION_INVALID,
            "couldn't update dhcp host entry - no <ip> element found at index %d in network '%s'",
            parent, def->name);
    }
    return first;
}

static bool is_ipv6(const struct section *s, const void *entry)
{
    const char *address = s->table == &net_host_table ? ((const struct net_host *)entry)->ip
                                                      : ((const struct net_range *)entry)->start;
    return address && strchr(address, ':');
}

/* DHCP belongs to one address of each family. */
static bool only_dhcp(const struct network_def *def, const struct net_ip *mine, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->ips); i++) {
        const struct net_ip *ip = def->ips->pdata[i];
        if (ip != mine && ip->dhcp && ip->af == mine->af) {
            libvirt_error(error, ERR_OPERATION_INVALID,
                          "dhcp is supported only for a single %s address on each network",
                          ip->af == AF_INET ? "IPv4" : "IPv6");
            return false;
        }
    }
    return true;
}

static GPtrArray **find_list(struct network_def *def, const struct section *s, const void *entry,
                             int parent, GError **error)
{
    if (!s->in_dhcp) {
        return (GPtrArray **)((char *)def + s->list);
    }
    struct net_ip *ip = find_ip(def, parent, is_ipv6(s, entry), error);
    if (!ip || !only_dhcp(def, ip, error)) {
        return NULL;
    }
    if (!ip->dhcp) {
        ip->dhcp = xml_new(&net_dhcp_table);
    }
    return (GPtrArray **)((char *)ip->dhcp + s->list);
}

static bool not_found(const struct network_def *def, const struct section *s, GError **error)
{
    if (s->in_dhcp) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "couldn't locate a matching %s entry in network '%s'", s->what, def->name);
    } else {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "couldn't locate a matching %s record in network %s", s->what, def->name);
    }
    return false;
}

static bool exists_already(const struct network_def *def, const struct section *s,
                           const void *entry, GError **error)
{
    g_autofree char *text = xml_write_text(s->table, entry, 0);
    libvirt_error(error, ERR_OPERATION_INVALID,
                  "there is an existing %s entry in network '%s' that matches \"%s\"", s->what,
                  def->name, g_strchomp(text));
    return false;
}

static bool too_many(const struct network_def *def, const struct section *s, GError **error)
{
    libvirt_error(error, ERR_OPERATION_INVALID,
                  "multiple matching %s records were found in network %s", s->what, def->name);
    return false;
}

/* One entry, and not half of one, for what the command is. */
static bool whole(const struct network_def *def, const struct section *s, unsigned command,
                  const void *entry, GError **error)
{
    const struct net_dns_host *host = entry;
    if (command == NETWORK_MODIFY && !s->changes) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "%s%s cannot be modified, only added or deleted", s->what,
                      s->in_dhcp ? "s" : " records");
        return false;
    }
    if (s->table == &net_dns_host_table && !host->ip && !xml_count(host->names)) {
        libvirt_error(error, ERR_XML, "Missing ip and hostname in network '%s' DNS HOST record",
                      def->name);
        return false;
    }
    return true;
}

static bool other_default(const struct network_def *def, const struct section *s, const void *entry,
                          GError **error)
{
    const struct net_portgroup *wanted = entry;
    for (unsigned i = 0; s->table == &net_portgroup_table && i < xml_count(def->portgroups); i++) {
        const struct net_portgroup *group = def->portgroups->pdata[i];
        if (wanted->by_default == TRI_YES && group->by_default == TRI_YES &&
            !same_portgroup(group, wanted)) {
            libvirt_error(error, ERR_OPERATION_INVALID,
                          "a different portgroup entry in network '%s' is already set as the "
                          "default. Only one default is allowed.",
                          def->name);
            return true;
        }
    }
    return false;
}

/* How many entries @entry is about, and where the last of them is. */
static unsigned find_entries(const struct section *s, unsigned command, const GPtrArray *list,
                             const void *entry, unsigned *at)
{
    bool (*about)(const void *, const void *) = command == NETWORK_MODIFY   ? s->changes
                                                : command == NETWORK_DELETE ? s->fits
                                                                            : s->hinders;
    unsigned n = 0;
    for (unsigned i = 0; i < xml_count(list); i++) {
        if (about(list->pdata[i], entry) && (!n++ || !s->in_dhcp)) {
            *at = i; /* of hosts of DHCP the first that fits goes */
        }
    }
    return n;
}

/* Takes @entry, which becomes part of @list or is freed. */
static bool apply(struct network_def *def, const struct section *s, unsigned command,
                  GPtrArray **list, void *entry, GError **error)
{
    unsigned at = 0, n = find_entries(s, command, *list, entry, &at);
    bool adds = command == NETWORK_ADD_FIRST || command == NETWORK_ADD_LAST;
    bool ok = adds ? !n || exists_already(def, s, entry, error) : n || not_found(def, s, error);
    ok = ok && (n < 2 || s->in_dhcp || too_many(def, s, error)) &&
         (command == NETWORK_DELETE || !other_default(def, s, entry, error));
    if (ok && command == NETWORK_MODIFY) {
        xml_free(s->table, (*list)->pdata[at]);
        (*list)->pdata[at] = entry;
    } else if (ok && command == NETWORK_DELETE) {
        xml_free(s->table, g_ptr_array_steal_index(*list, at));
    } else if (ok) {
        *list = *list ? *list : g_ptr_array_new();
        g_ptr_array_insert(*list, command == NETWORK_ADD_FIRST ? 0 : -1, entry);
    }
    if (!ok || command == NETWORK_DELETE) {
        xml_free(s->table, entry);
    }
    return ok;
}

/* The first device is also an attribute of <forward>. */
static void tell_device(struct network_def *def)
{
    g_clear_pointer(&def->forward_dev, g_free);
    if (xml_count(def->interfaces)) {
        def->forward_dev = g_strdup(((struct net_interface *)def->interfaces->pdata[0])->dev);
    }
}

bool network_update(struct network_def *def, unsigned command, unsigned section, int parent,
                    const char *xml, GError **error)
{
    const struct section *s = section < G_N_ELEMENTS(sections) ? &sections[section] : NULL;
    if (!s || !s->table || command < NETWORK_MODIFY || command > NETWORK_ADD_FIRST) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "can't update '%s' section of network '%s'",
                      s && s->name ? s->name : "unknown", def->name);
        return false;
    }
    void *entry = xml_read_text(s->table, xml, "network_update_xml", 0, error);
    if (!entry) {
        return false;
    }
    GPtrArray **list =
        whole(def, s, command, entry, error) ? find_list(def, s, entry, parent, error) : NULL;
    if (!list) {
        xml_free(s->table, entry);
        return false;
    }
    if (!apply(def, s, command, list, entry, error)) {
        return false;
    }
    if (s->table == &net_interface_table) {
        tell_device(def);
    }
    return network_check(def, error);
}
