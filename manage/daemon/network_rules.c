/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * network_rules: what may pass between a network and the world.
 *
 * Spec: libnftables-json(5), "Supported schema for JSON input to and output from libnftables";
 * Linux, include/uapi/linux/netfilter/nf_tables.h for the messages of the watch.
 */
#include "base/error.h"
#include "base/json.h"
#include "base/util.h"
#include "manage/daemon/network_parts.h"
#include "manage/daemon/run.h"
#include "manage/error.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

enum { NFT_SECONDS = 20, PRIO_FILTER = 0, PRIO_SNAT = 100, PRIO_DSTNAT = -100 };

static const char family[] = "inet", prefix[] = "lodge_";

char *rules_name(const struct network_def *def)
{
    GString *name = g_string_new(prefix);
    for (const char *p = def->bridge; *p; p++) { /* nft's names are words */
        g_string_append_c(name, g_ascii_isalnum(*p) || *p == '_' ? *p : '.');
    }
    return g_string_free(name, FALSE);
}

/* ---- expressions ---- */

/* The list of commands in the making. */
struct rules {
    const struct network_def *def;
    char *table;
    json_t *commands;
    const char *chain; /* where rule() adds */
};

static void command(struct rules *r, const char *verb, const char *kind, json_t *object)
{
    json_object_set_new(object, "family", json_string(family));
    json_array_append_new(r->commands, json_pack("{s:{s:o}}", verb, kind, object));
}

static void chain(struct rules *r, const char *name, const char *type, int prio)
{
    r->chain = name;
    command(r, "add", "chain",
            json_pack("{s:s, s:s, s:s, s:s, s:i, s:s}", "table", r->table, "name", name, "type",
                      type, "hook", name, "prio", prio, "policy", "accept"));
}

/* @expr, an array, is taken over. */
static void rule(struct rules *r, json_t *expr)
{
    command(r, "add", "rule",
            json_pack("{s:s, s:s, s:o}", "table", r->table, "chain", r->chain, "expr", expr));
}

static json_t *match(const char *op, json_t *left, json_t *right)
{
    return json_pack("{s:{s:s, s:o, s:o}}", "match", "op", op, "left", left, "right", right);
}

static json_t *meta_is(const char *key, const char *value)
{
    return match("==", json_pack("{s:{s:s}}", "meta", "key", key), json_string(value));
}

static json_t *field_is(const char *op, const char *protocol, const char *field, json_t *value)
{
    return match(op, json_pack("{s:{s:s, s:s}}", "payload", "protocol", protocol, "field", field),
                 value);
}

static json_t *network_of(const struct net_ip *ip)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr a = ip->binary;
    for (unsigned i = 0; i < 16; i++) {
        unsigned bits = ip->bits > 8 * i ? MIN(ip->bits - 8 * i, 8) : 0;
        a.s6_addr[i] &= (uint8_t)(0xff00 >> bits);
    }
    inet_ntop(ip->af, &a, text, sizeof(text));
    return json_pack("{s:{s:s, s:i}}", "prefix", "addr", text, "len", (int)ip->bits);
}

static const char *protocol_of(const struct net_ip *ip)
{
    return ip->af == AF_INET ? "ip" : "ip6";
}

static json_t *accept_it(void)
{
    return json_pack("{s:n}", "accept");
}

static json_t *established(void)
{
    return match("in", json_pack("{s:{s:s}}", "ct", "key", "state"),
                 json_pack("[s, s]", "established", "related"));
}

/* ---- chains ---- */

static bool translates(const struct network_def *def, const struct net_ip *ip)
{
    return def->mode == FORWARD_NAT && (ip->af == AF_INET || def->nat_ipv6 == TRI_YES);
}

/* One rule a device where <forward> names some, else one for all. */
static void forward_pair(struct rules *r, const struct net_ip *ip, const char *dev)
{
    const char *bridge = r->def->bridge;
    json_t *in = json_pack("[o, o]", meta_is("oifname", bridge),
                           field_is("==", protocol_of(ip), "daddr", network_of(ip)));
    json_t *out = json_pack("[o, o]", meta_is("iifname", bridge),
                            field_is("==", protocol_of(ip), "saddr", network_of(ip)));
    if (dev) {
        json_array_append_new(in, meta_is("iifname", dev));
        json_array_append_new(out, meta_is("oifname", dev));
    }
    if (translates(r->def, ip)) {
        json_array_append_new(in, established());
    }
    json_array_append_new(in, accept_it());
    json_array_append_new(out, accept_it());
    rule(r, in);
    rule(r, out);
}

static void forward_chain(struct rules *r)
{
    const struct network_def *def = r->def;
    static const char *const sides[] = {"oifname", "iifname"};
    chain(r, "forward", "filter", PRIO_FILTER);
    rule(r, json_pack("[o, o, o]", meta_is("iifname", def->bridge), meta_is("oifname", def->bridge),
                      accept_it()));
    for (unsigned i = 0; i < def->forwarded->len; i++) {
        const struct net_forwarded *f = def->forwarded->pdata[i];
        rule(r, json_pack(
                    "[o, o, o, o, o]", meta_is("oifname", def->bridge),
                    field_is("==", "ip", "daddr", json_string(f->to)),
                    field_is("==", f->protocol, "dport", json_integer(f->to_port)),
                    match("in", json_pack("{s:{s:s}}", "ct", "key", "status"), json_string("dnat")),
                    accept_it()));
        rule(r,
             json_pack("[o, o, o]", meta_is("iifname", def->bridge), established(), accept_it()));
    }
    for (unsigned i = 0; def->mode != FORWARD_NONE && i < xml_count(def->ips); i++) {
        for (unsigned k = 0; k < MAX(1, xml_count(def->interfaces)); k++) {
            const struct net_interface *one = def->interfaces ? def->interfaces->pdata[k] : NULL;
            forward_pair(r, def->ips->pdata[i], one ? one->dev : NULL);
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(sides); i++) {
        rule(r, json_pack("[o, {s:{s:s, s:s}}]", meta_is(sides[i], def->bridge), "reject", "type",
                          "icmpx", "expr", "port-unreachable"));
    }
}

/* From what the network's machines are seen as: addresses and ports. */
static json_t *source_of(const struct network_def *def, const struct net_ip *ip, bool with_ports)
{
    json_t *how = json_object();
    bool pool = def->nat_start && ip->af == AF_INET;
    if (pool) {
        json_object_set_new(how, "addr",
                            def->nat_end
                                ? json_pack("{s:[s, s]}", "range", def->nat_start, def->nat_end)
                                : json_string(def->nat_start));
        json_object_set_new(how, "family", json_string("ip"));
    }
    if (with_ports) {
        bool said = def->port_start != XML_ABSENT;
        json_object_set_new(how, "port",
                            json_pack("{s:[i, i]}", "range", said ? (int)def->port_start : 1024,
                                      said ? (int)def->port_end : 65535));
    }
    return json_pack("{s:o}", pool ? "snat" : "masquerade", how);
}

static void postrouting_of(struct rules *r, const struct net_ip *ip)
{
    static const char *const protocols[] = {"tcp", "udp", NULL};
    static const char *const local[] = {"224.0.0.0", "255.255.255.255"};
    const char *p = protocol_of(ip);
    for (unsigned i = 0; ip->af == AF_INET && i < G_N_ELEMENTS(local); i++) {
        rule(r, json_pack("[o, o, {s:n}]", field_is("==", p, "saddr", network_of(ip)),
                          field_is("==", p, "daddr",
                                   json_pack("{s:{s:s, s:i}}", "prefix", "addr", local[i], "len",
                                             i ? 32 : 24)),
                          "return"));
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(protocols); i++) {
        json_t *expr = json_pack("[o, o]", field_is("==", p, "saddr", network_of(ip)),
                                 field_is("!=", p, "daddr", network_of(ip)));
        if (protocols[i]) {
            json_array_append_new(expr, meta_is("l4proto", protocols[i]));
        }
        json_array_append_new(expr, source_of(r->def, ip, protocols[i]));
        rule(r, expr);
    }
}

/* Ports of this host that are a machine's. */
static void forwarded_chain(struct rules *r, const char *hook)
{
    const struct network_def *def = r->def;
    chain(r, hook, "nat", PRIO_DSTNAT);
    for (unsigned i = 0; i < def->forwarded->len; i++) {
        const struct net_forwarded *f = def->forwarded->pdata[i];
        rule(r, json_pack(
                    "[o, o, {s:{s:s, s:i, s:s}}]",
                    match("==",
                          json_pack("{s:{s:s, s:[s]}}", "fib", "result", "type", "flags", "daddr"),
                          json_string("local")),
                    field_is("==", f->protocol, "dport", json_integer(f->port)), "dnat", "addr",
                    f->to, "port", (int)f->to_port, "family", "ip"));
    }
}

static json_t *whole_table(const struct network_def *def)
{
    g_autofree char *name = rules_name(def);
    struct rules r = {def, name, json_array(), NULL};
    /* One transaction: what was there is replaced, and there may have been nothing. */
    command(&r, "add", "table", json_pack("{s:s}", "name", name));
    command(&r, "delete", "table", json_pack("{s:s}", "name", name));
    command(&r, "add", "table", json_pack("{s:s}", "name", name));
    if (def->mode != FORWARD_OPEN) {
        forward_chain(&r);
    }
    if (def->mode == FORWARD_NAT) {
        chain(&r, "postrouting", "nat", PRIO_SNAT);
        for (unsigned i = 0; i < xml_count(def->ips); i++) {
            if (translates(def, def->ips->pdata[i])) {
                postrouting_of(&r, def->ips->pdata[i]);
            }
        }
    }
    if (def->forwarded->len) {
        forwarded_chain(&r, "prerouting");
        forwarded_chain(&r, "output");
    }
    return json_pack("{s:o}", "nftables", r.commands);
}

char *rules_text(const struct network_def *def)
{
    g_autoptr(json_t) all = whole_table(def);
    g_autofree char *text = json_dumps(all, JSON_COMPACT);
    return g_strdup(text);
}

/* ---- to the kernel ---- */

static bool nft(const char *text, GError **error)
{
    static const char *const argv[] = {"nft", "-j", "-f", "-", NULL};
    return run_program(argv, text, NFT_SECONDS, NULL, NULL, error);
}

bool rules_put(const struct network_def *def, GError **error)
{
    g_autofree char *text = rules_text(def);
    return nft(text, error);
}

bool rules_drop(const struct network_def *def, GError **error)
{
    g_autofree char *name = rules_name(def);
    g_autofree char *text = g_strdup_printf(
        "{\"nftables\": [{\"add\": {\"table\": {\"family\": \"inet\", \"name\": \"%s\"}}}, "
        "{\"delete\": {\"table\": {\"family\": \"inet\", \"name\": \"%s\"}}}]}",
        name, name);
    return nft(text, error);
}

GPtrArray *rules_list(GError **error)
{
    static const char *const argv[] = {"nft", "-j", "list", "tables", NULL};
    g_autofree char *text = NULL;
    if (!run_program(argv, NULL, NFT_SECONDS, &text, NULL, error)) {
        return NULL;
    }
    g_autoptr(json_t) all = json_parse(text, strlen(text), error);
    GPtrArray *names = all ? g_ptr_array_new_with_free_func(g_free) : NULL;
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(all, "nftables"), i, entry)
    {
        const char *name =
            json_string_value(json_object_get(json_object_get(entry, "table"), "name"));
        if (name && g_str_has_prefix(name, prefix)) {
            g_ptr_array_add(names, g_strdup(name));
        }
    }
    return names;
}

/* ---- what others do to our tables ---- */

int rules_watch(GError **error)
{
    autofd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK,
                                  .nl_groups = 1u << (NFNLGRP_NFTABLES - 1)};
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        error_set_errno(error, errno, "Unable to watch nftables");
        return -1;
    }
    return g_steal_fd(&fd);
}

bool rules_watch_read(int fd)
{
    enum { MESSAGES_MAX = 65536 };
    g_autofree char *buffer = g_malloc(MESSAGES_MAX);
    bool gone = false;
    for (;;) {
        ssize_t got = recv(fd, buffer, MESSAGES_MAX, 0);
        if (got <= 0) { /* ENOBUFS: something was missed */
            gone |= got < 0 && errno == ENOBUFS;
            return gone;
        }
        int left = (int)got;
        for (const struct nlmsghdr *m = (const void *)buffer; mnl_nlmsg_ok(m, left);
             m = mnl_nlmsg_next(m, &left)) {
            gone |= m->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE) ||
                    m->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELCHAIN) ||
                    m->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELRULE);
        }
    }
}
