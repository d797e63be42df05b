/* SPDX-License-Identifier: GPL-2.0-or-later */

/* network_update: net-update changes one entry of a list. */
#include "manage/error.h"
#include "manage/model/network_rows.h"

#include <string.h>

static bool same(const char *a, const char *b)
{
    return a && b && !g_ascii_strcasecmp(a, b);
}

/* Whether two entries are about the same thing; for deleting, what is not said fits all. */

static bool same_host(const void *x, const void *y)
{
    const struct net_host *a = x, *b = y;
    return same(a->mac, b->mac) || same(a->id, b->id) || same(a->ip, b->ip) ||
           same(a->name, b->name);
}

static bool same_range(const void *x, const void *y)
{
    const struct net_range *a = x, *b = y;
    return same(a->start, b->start) && same(a->end, b->end);
}

static bool same_interface(const void *x, const void *y)
{
    const struct net_interface *a = x, *b = y;
    return same(a->dev, b->dev);
}

static bool same_portgroup(const void *x, const void *y)
{
    const struct net_portgroup *a = x, *b = y;
    return same(a->name, b->name);
}

static bool same_dns_host(const void *x, const void *y)
{
    const struct net_dns_host *a = x, *b = y;
    bool found = same(a->ip, b->ip);
    for (unsigned i = 0; !found && i < xml_count(a->names); i++) {
        for (unsigned k = 0; k < xml_count(b->names); k++) {
            found |= same(((struct net_name *)a->names->pdata[i])->text,
                          ((struct net_name *)b->names->pdata[k])->text);
        }
    }
    return found;
}

static bool same_txt(const void *x, const void *y)
{
    const struct net_txt *a = x, *b = y;
    return same(a->name, b->name);
}

static bool same_srv(const void *x, const void *y)
{
    const struct net_srv *a = x, *b = y;
    return same(a->service, b->service) && same(a->protocol, b->protocol) &&
           (!b->domain || same(a->domain, b->domain)) && (!b->target || same(a->target, b->target));
}

struct section {
    const char *name; /* as net-update has it */
    const char *what; /* in messages */
    const struct xml_table *table;
    bool (*same)(const void *a, const void *b);
    size_t list; /* offset in struct network_def, or in struct net_dhcp */
    bool in_dhcp, modifies;
};

#define IN_NETWORK(field) offsetof(struct network_def, field)
#define IN_DHCP(field)    offsetof(struct net_dhcp, field)
static const struct section sections[] = {
    [SECTION_BRIDGE] = {"bridge"},
    [SECTION_DOMAIN] = {"domain"},
    [SECTION_IP] = {"ip"},
    [SECTION_IP_DHCP_HOST] = {"ip-dhcp-host", "dhcp host", &net_host_table, same_host,
                              IN_DHCP(hosts), true, true},
    [SECTION_IP_DHCP_RANGE] = {"ip-dhcp-range", "dhcp range", &net_range_table, same_range,
                               IN_DHCP(ranges), true, false},
    [SECTION_FORWARD] = {"forward"},
    [SECTION_FORWARD_INTERFACE] = {"forward-interface", "interface", &net_interface_table,
                                   same_interface, IN_NETWORK(interfaces), false, false},
    [SECTION_FORWARD_PF] = {"forward-pf"},
    [SECTION_PORTGROUP] = {"portgroup", "portgroup", &net_portgroup_table, same_portgroup,
                           IN_NETWORK(portgroups), false, true},
    [SECTION_DNS_HOST] = {"dns-host", "DNS HOST", &net_dns_host_table, same_dns_host,
                          IN_NETWORK(dns_hosts), false, false},
    [SECTION_DNS_TXT] = {"dns-txt", "DNS TXT", &net_txt_table, same_txt, IN_NETWORK(txts), false,
                         false},
    [SECTION_DNS_SRV] = {"dns-srv", "DNS SRV", &net_srv_table, same_srv, IN_NETWORK(srvs), false,
                         false},
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
    const char *address = s->same == same_host ? ((const struct net_host *)entry)->ip
                                               : ((const struct net_range *)entry)->start;
    return address && strchr(address, ':');
}

static GPtrArray **find_list(struct network_def *def, const struct section *s, const void *entry,
                             int parent, GError **error)
{
    if (!s->in_dhcp) {
        return (GPtrArray **)((char *)def + s->list);
    }
    struct net_ip *ip = find_ip(def, parent, is_ipv6(s, entry), error);
    if (!ip) {
        return NULL;
    }
    if (!ip->dhcp) {
        ip->dhcp = xml_new(&net_dhcp_table);
    }
    return (GPtrArray **)((char *)ip->dhcp + s->list);
}

static int find_entry(const struct section *s, const GPtrArray *list, const void *entry)
{
    for (unsigned i = 0; i < xml_count(list); i++) {
        if (s->same(list->pdata[i], entry)) {
            return (int)i;
        }
    }
    return -1;
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

/* Takes @entry, which becomes part of @list or is freed. */
static bool apply(struct network_def *def, const struct section *s, unsigned command,
                  GPtrArray **list, void *entry, GError **error)
{
    int at = find_entry(s, *list, entry);
    bool adds = command == NETWORK_ADD_FIRST || command == NETWORK_ADD_LAST;
    bool ok = false;
    if (!adds && at < 0) {
        not_found(def, s, error);
    } else if (adds && at >= 0) {
        exists_already(def, s, entry, error);
    } else if (command == NETWORK_MODIFY && !s->modifies) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "%s records cannot be modified, only added or deleted", s->what);
    } else {
        ok = true;
    }
    if (ok && command == NETWORK_MODIFY) {
        xml_free(s->table, (*list)->pdata[at]);
        (*list)->pdata[at] = entry;
    } else if (ok && command == NETWORK_DELETE) {
        xml_free(s->table, g_ptr_array_steal_index(*list, (unsigned)at));
    } else if (ok) {
        *list = *list ? *list : g_ptr_array_new();
        g_ptr_array_insert(*list, command == NETWORK_ADD_FIRST ? 0 : -1, entry);
    }
    if (!ok || command == NETWORK_DELETE) {
        xml_free(s->table, entry);
    }
    return ok;
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
    GPtrArray **list = find_list(def, s, entry, parent, error);
    if (!list) {
        xml_free(s->table, entry);
        return false;
    }
    return apply(def, s, command, list, entry, error) && network_check(def, error);
}
