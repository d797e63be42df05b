/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The addresses and the name of a guest: by our DHCP servers' leases, by what the host has seen, by
 * the agent. */
#include "manage/daemon/machine.h"
#include "manage/daemon/netlink.h"
#include "manage/daemon/network.h"
#include "manage/daemon/network_parts.h"

#include <arpa/inet.h>
#include <string.h>

enum { SOURCE_LEASE, SOURCE_AGENT, SOURCE_ARP };
enum { ADDRESS_IPV4 = 0, ADDRESS_IPV6 = 1 };

static rpc_domain_interface *one_more(GArray *out, const char *name, const char *mac)
{
    rpc_domain_interface i = {.name = g_strdup(name)};
    if (mac) {
        i.mac = g_new(char *, 1);
        *i.mac = g_strdup(mac);
    }
    g_array_append_val(out, i);
    return &g_array_index(out, rpc_domain_interface, out->len - 1);
}

static void add_address(rpc_domain_interface *i, bool six, const char *address, unsigned prefix)
{
    u_int n = i->addresses.addresses_len++;
    i->addresses.addresses_val = g_renew(rpc_address, i->addresses.addresses_val, n + 1);
    i->addresses.addresses_val[n] = (rpc_address){
        .type = six ? ADDRESS_IPV6 : ADDRESS_IPV4, .address = g_strdup(address), .prefix = prefix};
}

static void by_leases(const DomainDef *def, GArray *out)
{
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        const struct domain_interface *nic = def->interfaces->pdata[i];
        const struct network *net = nic->network ? network_find(nic->network) : NULL;
        if (nic->type != IFACE_NETWORK || !net || !net->active) {
            continue;
        }
        g_autoptr(GPtrArray) leases = dnsmasq_leases(net->def, nic->mac);
        rpc_domain_interface *row = leases->len ? one_more(out, nic->target, nic->mac) : NULL;
        for (unsigned k = 0; k < leases->len; k++) {
            const struct dhcp_lease *l = leases->pdata[k];
            add_address(row, l->ipv6, l->address, l->prefix);
        }
    }
}

struct heard {
    const DomainDef *def;
    GArray *out;
};

/* Which of @out's rows is @mac's; NULL: none yet. */
static rpc_domain_interface *row_of(GArray *out, const char *mac)
{
    for (unsigned i = 0; i < out->len; i++) {
        rpc_domain_interface *row = &g_array_index(out, rpc_domain_interface, i);
        if (row->mac && strcmp(*row->mac, mac) == 0) {
            return row;
        }
    }
    return NULL;
}

static void hear(void *owner, int family, const void *address, const uint8_t mac[6])
{
    const struct heard *h = owner;
    for (unsigned i = 0; i < xml_count(h->def->interfaces); i++) {
        const struct domain_interface *nic = h->def->interfaces->pdata[i];
        uint8_t own[6];
        if (mac_parse(nic->mac, own) && memcmp(own, mac, sizeof(own)) == 0) {
            char text[INET6_ADDRSTRLEN];
            rpc_domain_interface *row = row_of(h->out, nic->mac);
            row = row ? row : one_more(h->out, nic->target ? nic->target : "", nic->mac);
            inet_ntop(family, address, text, sizeof(text));
            add_address(row, family == AF_INET6, text, 0);
        }
    }
}

static const char *word(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* What the guest says, cut to what an answer may hold. */
static bool by_agent(struct machine *m, GArray *out, GError **error)
{
    enum { CARDS_MAX = 256, ADDRESSES_MAX = 256 };
    g_autoptr(json_t) all = agent_run(m, "guest-network-get-interfaces", NULL, error);
    size_t i, k;
    json_t *card, *address;
    json_array_foreach(all, i, card)
    {
        const char *name = word(card, "name");
        if (!name || i >= CARDS_MAX) {
            continue;
        }
        rpc_domain_interface *row = one_more(out, name, word(card, "hardware-address"));
        json_array_foreach(json_object_get(card, "ip-addresses"), k, address)
        {
            const char *text = word(address, "ip-address");
            if (text && k < ADDRESSES_MAX) {
                add_address(row, g_strcmp0(word(address, "ip-address-type"), "ipv6") == 0, text,
                            (unsigned)json_integer_value(json_object_get(address, "prefix")));
            }
        }
    }
    return all != NULL;
}

bool verb_domain_interface_addresses(struct call *call, const rpc_domain_uint_flags *args,
                                     rpc_domain_interfaces *ret, GError **error)
{
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    if (args->value > SOURCE_ARP) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED, "Unknown IP address data source %u",
                      args->value);
        return false;
    }
    if (args->value == SOURCE_AGENT && call_read_only(call)) {
        libvirt_error(error, ERR_OPERATION_DENIED, "the guest agent of a read-only connection");
        return false;
    }
    GArray *out = g_array_new(FALSE, TRUE, sizeof(rpc_domain_interface));
    bool ok = true;
    if (args->value == SOURCE_AGENT) {
        ok = by_agent(m, out, error);
    } else if (args->value == SOURCE_LEASE) {
        by_leases(m->def, out);
    } else {
        ok = neighbours_each(hear, &(struct heard){m->def, out}, error);
    }
    ret->items.items_len = out->len;
    ret->items.items_val = (rpc_domain_interface *)(void *)g_array_free(out, FALSE);
    return ok;
}

/* --- its name --- */

/* What it called itself when it asked for an address; NULL: no lease has a name. */
static char *leased_name(const DomainDef *def)
{
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        const struct domain_interface *nic = def->interfaces->pdata[i];
        const struct network *net = nic->network ? network_find(nic->network) : NULL;
        g_autoptr(GPtrArray) leases = nic->type == IFACE_NETWORK && net && net->active
                                          ? dnsmasq_leases(net->def, nic->mac)
                                          : NULL;
        for (unsigned k = 0; leases && k < leases->len; k++) {
            const struct dhcp_lease *l = leases->pdata[k];
            if (l->hostname) {
                return g_strdup(l->hostname);
            }
        }
    }
    return NULL;
}

static char *name_by_agent(const rpc_domain *named, GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    g_autoptr(json_t) got = m ? agent_run(m, "guest-get-host-name", NULL, error) : NULL;
    const char *name = word(got, "host-name");
    return got ? g_strdup(name ? name : "") : NULL;
}

static char *name_by_leases(const rpc_domain *named, GError **error)
{
    g_autoptr(Domain) d = domain_get(named, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    char *name = m ? leased_name(m->def) : NULL;
    if (m && !name) {
        libvirt_error(error, ERR_NO_HOSTNAME, "no hostname found for domain '%s'", d->name);
    }
    return name;
}

bool verb_domain_get_hostname(struct call *call, const rpc_domain_flags *args, rpc_text *ret,
                              GError **error)
{
    enum { BY_LEASE = 1, BY_AGENT = 2 };
    (void)call;
    if (args->flags == (BY_LEASE | BY_AGENT)) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "a hostname is asked for of leases or of the agent, not of both");
        return false;
    }
    ret->text = args->flags & BY_LEASE ? name_by_leases(&args->dom, error)
                                       : name_by_agent(&args->dom, error);
    return ret->text;
}
