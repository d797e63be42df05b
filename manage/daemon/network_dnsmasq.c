/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * network_dnsmasq: addresses and names for a network's machines.
 *
 * Spec: dnsmasq(8), "OPTIONS" and "CONFIG FILE".  Everything stands in the configuration file,
 * which is read before the process gives up its rights: other files it could not read in a
 * folder that is closed to others.  Whatever changes it starts the process anew; leases last.
 */
#include "manage/daemon/daemon.h"
#include "manage/daemon/network_parts.h"
#include "manage/daemon/run.h"
#include "manage/error.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { START_SECONDS = 20, STOP_ATTEMPTS = 500, STOP_PAUSE = 10000000, LEASES_MAX = 65536 };

static char *file_of(enum daemon_place place, const struct network_def *def, const char *suffix)
{
    g_autofree char *file = g_strconcat(def->name, suffix, NULL);
    return daemon_path(place, "dnsmasq", file, NULL);
}

bool dnsmasq_wanted(const struct network_def *def)
{
    bool wanted = false;
    for (unsigned i = 0; i < xml_count(def->ips); i++) {
        const struct net_ip *ip = def->ips->pdata[i];
        wanted |= def->dns_enable != TRI_NO || ip->dhcp || ip->tftp_root || ip->af == AF_INET6;
    }
    return wanted;
}

/* ---- the configuration ---- */

static void names_part(const struct network_def *def, GString *out)
{
    const char *domain = def->domain;
    if (domain) {
        g_string_append_printf(out, "domain=%s\nexpand-hosts\n", domain);
        if (def->domain_local == TRI_YES) {
            g_string_append_printf(out, "local=/%s/\n", domain);
        }
    }
    if (def->dns_plain == TRI_NO) {
        g_string_append(out, "domain-needed\nlocal=//\n");
    }
    if (def->dns_enable == TRI_NO) {
        g_string_append(out, "port=0\n");
    }
    bool all = false;
    for (unsigned i = 0; i < xml_count(def->forwarders); i++) {
        const struct net_forwarder *f = def->forwarders->pdata[i];
        g_string_append(out, "server=");
        if (f->domain) {
            g_string_append_printf(out, "/%s/", f->domain);
        }
        g_string_append_printf(out, "%s\n", f->address ? f->address : "#");
        all |= !f->domain;
    }
    if (all || def->mode == FORWARD_NONE) { /* who is cut off asks nobody outside */
        g_string_append(out, "no-resolv\n");
    }
}

static void records_part(const struct network_def *def, GString *out)
{
    for (unsigned i = 0; i < xml_count(def->txts); i++) {
        const struct net_txt *t = def->txts->pdata[i];
        g_string_append_printf(out, "txt-record=%s,\"%s\"\n", t->name, t->value ? t->value : "");
    }
    for (unsigned i = 0; i < xml_count(def->srvs); i++) {
        const struct net_srv *s = def->srvs->pdata[i];
        g_string_append_printf(out, "srv-host=_%s._%s", s->service, s->protocol);
        g_string_append_printf(out, "%s%s", s->domain ? "." : "", s->domain ? s->domain : "");
        if (s->target) {
            g_string_append_printf(out, ",%s,%d,%d,%d", s->target,
                                   s->port == XML_ABSENT ? 1 : (int)s->port,
                                   s->priority == XML_ABSENT ? 0 : (int)s->priority,
                                   s->weight == XML_ABSENT ? 0 : (int)s->weight);
        }
        g_string_append_c(out, '\n');
    }
    for (unsigned i = 0; i < xml_count(def->dns_hosts); i++) {
        const struct net_dns_host *h = def->dns_hosts->pdata[i];
        if (xml_count(h->names)) {
            g_string_append(out, "host-record=");
            for (unsigned k = 0; k < h->names->len; k++) {
                const char *name = ((struct net_name *)h->names->pdata[k])->text;
                g_string_append_printf(out, "%s,", name);
                if (def->domain && !strchr(name, '.')) {
                    g_string_append_printf(out, "%s.%s,", name, def->domain);
                }
            }
            g_string_append_printf(out, "%s\n", h->ip);
        }
    }
}

static void lease_time(GString *out, const struct net_lease *lease)
{
    int64_t seconds = lease_seconds(lease);
    if (seconds < 0) {
        g_string_append(out, ",infinite");
    } else if (seconds) {
        g_string_append_printf(out, ",%" PRId64, seconds);
    }
}

static void host_line(const struct net_ip *ip, const struct net_host *host, GString *out)
{
    const char *ip_text = host->ip;
    bool v6 = ip->af == AF_INET6;
    g_string_append(out, "dhcp-host=");
    GString *items = g_string_new(NULL);
    if (host->mac) {
        g_string_append_printf(items, ",%s", host->mac);
    }
    if (host->id) {
        g_string_append_printf(items, ",id:%s", host->id);
    }
    if (host->name && v6) {
        g_string_append_printf(items, ",%s", host->name);
    }
    if (ip_text) {
        g_string_append_printf(items, v6 ? ",[%s]" : ",%s", ip_text);
    }
    if (host->name && !v6) {
        g_string_append_printf(items, ",%s", host->name);
    }
    lease_time(items, host->lease);
    g_string_append_printf(out, "%s\n", items->len ? items->str + 1 : "");
    g_string_free(items, TRUE);
}

/* "255.255.255.0" or "64", as dnsmasq wants it of the two families. */
static char *mask_of(const struct net_ip *ip)
{
    char text[INET_ADDRSTRLEN];
    uint32_t mask = htonl(ip->bits ? UINT32_MAX << (32 - MIN(ip->bits, 32)) : 0);
    inet_ntop(AF_INET, &mask, text, sizeof(text));
    return ip->af == AF_INET ? g_strdup(text) : g_strdup_printf("%u", ip->bits);
}

static uint64_t dhcp_part(const struct net_ip *ip, GString *out)
{
    const struct net_dhcp *dhcp = ip->dhcp;
    uint64_t addresses = 0;
    g_autofree char *mask = mask_of(ip);
    for (unsigned i = 0; i < xml_count(dhcp->ranges); i++) {
        const struct net_range *range = dhcp->ranges->pdata[i];
        g_string_append_printf(out, "dhcp-range=%s,%s,%s", range->start, range->end, mask);
        lease_time(out, range->lease);
        g_string_append_c(out, '\n');
        addresses += MIN(range_size(range), LEASES_MAX);
    }
    if (!xml_count(dhcp->ranges) && xml_count(dhcp->hosts)) {
        g_string_append_printf(out, "dhcp-range=%s,static\n", ip->address);
    }
    for (unsigned i = 0; i < xml_count(dhcp->hosts); i++) {
        host_line(ip, dhcp->hosts->pdata[i], out);
        addresses++;
    }
    if (dhcp->bootp_file) {
        g_string_append_printf(out, "dhcp-boot=%s%s%s\n", dhcp->bootp_file,
                               dhcp->bootp_server ? ",," : "",
                               dhcp->bootp_server ? dhcp->bootp_server : "");
    }
    return addresses;
}

static void reverse_zone(const struct net_ip *ip, GString *out)
{
    const uint8_t *a = ip->binary.s6_addr;
    g_string_append(out, "local=/");
    for (unsigned i = ip->bits / (ip->af == AF_INET ? 8 : 4); i-- > 0;) {
        g_string_append_printf(out, ip->af == AF_INET ? "%u." : "%x.",
                               ip->af == AF_INET ? a[i]
                               : i % 2           ? a[i / 2] & 15
                                                 : a[i / 2] >> 4);
    }
    g_string_append(out, ip->af == AF_INET ? "in-addr.arpa/\n" : "ip6.arpa/\n");
}

static void ip_part(const struct network_def *def, GString *out)
{
    uint64_t addresses = 0;
    bool v4 = false, v6 = false;
    for (unsigned i = 0; i < xml_count(def->ips); i++) {
        const struct net_ip *ip = def->ips->pdata[i];
        addresses += ip->dhcp ? dhcp_part(ip, out) : 0;
        v4 |= ip->dhcp && ip->af == AF_INET;
        v6 |= ip->af == AF_INET6;
        if (ip->af == AF_INET6 && !ip->dhcp) {
            g_string_append_printf(out, "dhcp-range=%s,ra-only\n", ip->address);
        }
        if (ip->tftp_root) {
            g_string_append_printf(out, "enable-tftp\ntftp-root=%s\n", ip->tftp_root);
        }
        if (ip->local_ptr == TRI_YES) {
            reverse_zone(ip, out);
        }
    }
    if (v4 && def->mode == FORWARD_NONE) {
        g_string_append(out, "dhcp-option=3\n"); /* no router: there is nowhere to go */
    }
    if (v4 && def->mtu != XML_ABSENT) {
        g_string_append_printf(out, "dhcp-option=option:mtu,%d\n", (int)def->mtu);
    }
    if (v6) {
        g_string_append(out, "enable-ra\n");
    }
    if (addresses) {
        g_string_append_printf(out, "dhcp-no-override\ndhcp-authoritative\ndhcp-lease-max=%u\n",
                               (unsigned)MIN(addresses, LEASES_MAX));
    }
}

char *dnsmasq_text(const struct network_def *def, const char *pid_file, const char *lease_file)
{
    GString *out = g_string_new("# Made by lodged for network ");
    g_string_append_printf(out, "%s; changes to it are lost.\n", def->name);
    g_string_append_printf(out, "strict-order\nbind-dynamic\nexcept-interface=lo\ninterface=%s\n",
                           def->bridge);
    g_string_append_printf(out, "no-hosts\npid-file=%s\ndhcp-leasefile=%s\n", pid_file, lease_file);
    names_part(def, out);
    records_part(def, out);
    ip_part(def, out);
    for (unsigned i = 0; i < xml_count(def->options); i++) {
        const struct net_option *o = def->options->pdata[i];
        g_string_append_printf(out, "%s\n", o->value);
    }
    return g_string_free(out, FALSE);
}

/* ---- the process ---- */

static pid_t find_process(const struct network_def *def)
{
    g_autofree char *pid_file = file_of(DAEMON_RUN, def, ".pid");
    g_autofree char *conf = file_of(DAEMON_RUN, def, ".conf");
    g_autofree char *text = NULL, *line = NULL;
    size_t n = 0;
    if (!g_file_get_contents(pid_file, &text, NULL, NULL)) {
        return 0;
    }
    int64_t pid = g_ascii_strtoll(text, NULL, 10);
    g_autofree char *path = g_strdup_printf("/proc/%" PRId64 "/cmdline", pid);
    /* The number may be somebody else's by now. */
    bool ours = pid > 1 && g_file_get_contents(path, &line, &n, NULL) &&
                memmem(line, n, conf, strlen(conf));
    return ours ? (pid_t)pid : 0;
}

bool dnsmasq_running(const struct network_def *def)
{
    return find_process(def) != 0;
}

void dnsmasq_stop(const struct network_def *def)
{
    g_autofree char *pid_file = file_of(DAEMON_RUN, def, ".pid");
    pid_t pid = find_process(def);
    for (unsigned i = 0; pid && i < STOP_ATTEMPTS; i++) {
        kill(pid, i < STOP_ATTEMPTS / 2 ? SIGTERM : SIGKILL);
        nanosleep(&(struct timespec){.tv_nsec = STOP_PAUSE}, NULL);
        pid = find_process(def);
    }
    unlink(pid_file);
}

void dnsmasq_forget(const struct network_def *def)
{
    static const char *const suffixes[] = {".conf", ".pid"};
    for (unsigned i = 0; i < G_N_ELEMENTS(suffixes); i++) {
        g_autofree char *path = file_of(DAEMON_RUN, def, suffixes[i]);
        unlink(path);
    }
}

bool dnsmasq_start(const struct network_def *def, GError **error)
{
    g_autofree char *program = g_find_program_in_path("dnsmasq");
    if (!program && g_file_test("/usr/sbin/dnsmasq", G_FILE_TEST_IS_EXECUTABLE)) {
        program = g_strdup("/usr/sbin/dnsmasq");
    }
    if (!program) {
        libvirt_error(error, ERR_INTERNAL,
                      "dnsmasq, which network '%s' needs for DHCP and DNS, is not installed",
                      def->name);
        return false;
    }
    g_autofree char *pid_file = file_of(DAEMON_RUN, def, ".pid");
    g_autofree char *file = g_strconcat(def->name, ".conf", NULL);
    g_autofree char *lease_name = g_strconcat(def->name, ".leases", NULL);
    g_autofree char *conf = daemon_path_make(DAEMON_RUN, 0755, error, "dnsmasq", file, NULL);
    g_autofree char *leases =
        conf ? daemon_path_make(DAEMON_VAR, 0755, error, "dnsmasq", lease_name, NULL) : NULL;
    g_autofree char *text = leases ? dnsmasq_text(def, pid_file, leases) : NULL;
    if (!text || !daemon_write_file(conf, text, -1, 0644, error)) {
        return false;
    }
    g_autofree char *option = g_strconcat("--conf-file=", conf, NULL);
    const char *const argv[] = {program, option, NULL};
    return run_program(argv, NULL, START_SECONDS, NULL, NULL, error);
}

/* ---- leases ---- */

void dhcp_lease_free(void *p)
{
    struct dhcp_lease *l = p;
    g_free(l->mac);
    g_free(l->iaid);
    g_free(l->address);
    g_free(l->hostname);
    g_free(l->client_id);
    g_free(l);
}

static char *unless_star(const char *text)
{
    return strcmp(text, "*") ? g_strdup(text) : NULL;
}

/* The prefix of the <ip> of that family. */
static unsigned prefix_of(const struct network_def *def, bool ipv6)
{
    for (unsigned i = 0; i < xml_count(def->ips); i++) {
        const struct net_ip *ip = def->ips->pdata[i];
        if ((ip->af == AF_INET6) == ipv6 && ip->dhcp) {
            return ip->bits;
        }
    }
    return 0;
}

/* "1700000000 52:54:00:12:34:56 192.168.122.5 name 01:52:..."; IPv6 has the IAID in place of
 * the MAC address, whose bytes end a DUID of the usual kinds. */
static struct dhcp_lease *lease_of(const struct network_def *def, const char *line)
{
    g_auto(GStrv) part = g_strsplit(line, " ", 5);
    if (g_strv_length(part) < 5) {
        return NULL;
    }
    struct dhcp_lease *l = g_new0(struct dhcp_lease, 1);
    l->expiry = g_ascii_strtoll(part[0], NULL, 10);
    l->ipv6 = strchr(part[2], ':');
    l->address = g_strdup(part[2]);
    l->hostname = unless_star(part[3]);
    l->client_id = unless_star(g_strstrip(part[4]));
    l->prefix = prefix_of(def, l->ipv6);
    if (l->ipv6) {
        size_t n = strlen(part[4]);
        l->iaid = g_strdup(part[1]);
        l->mac = n > 17 ? g_strdup(part[4] + n - 17) : NULL;
    } else {
        const char *dash = strchr(part[1], '-'); /* "06-..." where the hardware is no Ethernet */
        l->mac = g_strdup(dash ? dash + 1 : part[1]);
    }
    return l;
}

GPtrArray *dnsmasq_leases(const struct network_def *def, const char *mac)
{
    GPtrArray *all = g_ptr_array_new_with_free_func(dhcp_lease_free);
    g_autofree char *path = file_of(DAEMON_VAR, def, ".leases");
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return all;
    }
    int64_t now = g_get_real_time() / G_USEC_PER_SEC;
    g_auto(GStrv) lines = g_strsplit(text, "\n", LEASES_MAX);
    for (char **line = lines; *line; line++) {
        struct dhcp_lease *l = g_ascii_isdigit(**line) ? lease_of(def, *line) : NULL;
        if (l && (!l->expiry || l->expiry > now) &&
            (!mac || (l->mac && !g_ascii_strcasecmp(mac, l->mac)))) {
            g_ptr_array_add(all, l);
        } else if (l) {
            dhcp_lease_free(l);
        }
    }
    return all;
}
