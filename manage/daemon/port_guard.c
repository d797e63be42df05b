/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * port_guard: limits of bandwidth, and the tables that hold them and filters.
 *
 * What comes to a port's machine waits in a token bucket (tc's tbf); what the machine sends
 * beyond its limit is dropped by a rule on the device's ingress hook, which kernels have that
 * lack tc's police.
 *
 * Spec: libnftables-json(5), "LIMIT"; tc-tbf(8), "PARAMETERS".
 */
#include "manage/daemon/port_guard.h"

#include "base/json.h"
#include "manage/daemon/daemon.h"
#include "manage/daemon/netlink.h"
#include "manage/daemon/run.h"
#include "manage/error.h"

#include <net/if.h>
#include <string.h>

enum { NFT_SECONDS = 20, KIB = 1024, BURST_LEAST = 64, PRIO_LIMIT = -150 };

static GMutex lock;        /* of the table below */
static GHashTable *guards; /* device: the text for nft */

/* ---- text for nft ---- */

static void command(json_t *all, const char *verb, const char *kind, const char *family,
                    json_t *object)
{
    json_object_set_new(object, "family", json_string(family));
    json_array_append_new(all, json_pack("{s:{s:o}}", verb, kind, object));
}

/* One transaction: there may have been nothing, and nothing of it stays. */
static void renew_table(json_t *all, const char *family, const char *name, bool stays)
{
    command(all, "add", "table", family, json_pack("{s:s}", "name", name));
    command(all, "delete", "table", family, json_pack("{s:s}", "name", name));
    if (stays) {
        command(all, "add", "table", family, json_pack("{s:s}", "name", name));
    }
}

static int64_t burst_of(const struct bandwidth *b)
{
    return b->burst != XML_ABSENT ? b->burst : MAX(b->average / 8, BURST_LEAST);
}

static void limit(json_t *all, const char *name, const struct port_guard *g)
{
    command(all, "add", "chain", "netdev",
            json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s}", "table", name, "name", "outbound",
                      "type", "filter", "hook", "ingress", "dev", g->device, "prio", PRIO_LIMIT,
                      "policy", "accept"));
    json_t *rate =
        json_pack("{s:{s:I, s:s, s:s, s:I, s:s, s:b}}", "limit", "rate",
                  (json_int_t)g->outbound->average, "rate_unit", "kbytes", "per", "second", "burst",
                  (json_int_t)burst_of(g->outbound), "burst_unit", "kbytes", "inv", 1);
    command(all, "add", "rule", "netdev",
            json_pack("{s:s, s:s, s:[o, {s:n}]}", "table", name, "chain", "outbound", "expr", rate,
                      "drop"));
}

static bool limited(const struct bandwidth *b)
{
    return b && b->average != XML_ABSENT && b->average > 0;
}

static char *table_name(const char *device)
{
    GString *name = g_string_new("lodge_");
    for (const char *p = device; *p; p++) {
        g_string_append_c(name, g_ascii_isalnum(*p) || *p == '_' ? *p : '.');
    }
    return g_string_free(name, FALSE);
}

static char *text_of(const struct port_guard *g)
{
    g_autofree char *name = table_name(g->device);
    g_autoptr(json_t) all = json_array();
    renew_table(all, "netdev", name, limited(g->outbound));
    if (limited(g->outbound)) {
        limit(all, name, g);
    }
    if (g->filter) {
        renew_table(all, "bridge", name, true);
        json_array_extend(all, g->filter);
    }
    g_autoptr(json_t) whole = json_pack("{s:O}", "nftables", all);
    g_autofree char *text = json_dumps(whole, JSON_COMPACT);
    return g_strdup(text);
}

static bool nft(const char *text, GError **error)
{
    static const char *const argv[] = {"nft", "-j", "-f", "-", NULL};
    return run_program(argv, text, NFT_SECONDS, NULL, NULL, error);
}

/* ---- what is in force ---- */

static void remember(const char *device, char *text)
{
    g_mutex_lock(&lock);
    if (!guards) {
        guards = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    }
    if (text) {
        g_hash_table_replace(guards, g_strdup(device), text);
    } else {
        g_hash_table_remove(guards, device);
    }
    g_mutex_unlock(&lock);
}

static void drop(void *data)
{
    g_autofree char *device = data;
    g_autofree char *name = table_name(device);
    g_autoptr(json_t) all = json_array();
    renew_table(all, "netdev", name, false);
    renew_table(all, "bridge", name, false);
    g_autoptr(json_t) whole = json_pack("{s:O}", "nftables", all);
    g_autofree char *text = json_dumps(whole, JSON_COMPACT);
    g_mutex_lock(&lock);
    bool again = guards && g_hash_table_contains(guards, device); /* the name is in use again */
    g_mutex_unlock(&lock);
    if (!again) {
        nft(text, NULL);
    }
}

void port_unguard(const char *device)
{
    remember(device, NULL);
    daemon_worker(drop, g_strdup(device));
}

static bool shape(const struct port_guard *g, GError **error)
{
    g_autoptr(GError) inner = NULL;
    struct link_rate rate = {0};
    if (limited(g->inbound)) {
        rate.bytes = (uint64_t)g->inbound->average * KIB;
        rate.burst = (uint64_t)burst_of(g->inbound) * KIB;
        rate.peak = g->inbound->peak > g->inbound->average ? (uint64_t)g->inbound->peak * KIB : 0;
    }
    if (!link_shape(g->device, &rate, &inner)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "<bandwidth>: %s", inner->message);
        return false;
    }
    return true;
}

bool port_guard(const struct port_guard *g, GError **error)
{
    if (g->inbound && g->inbound->floor != XML_ABSENT) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "'floor' of <inbound> of %s is not supported",
                      g->device);
        return false;
    }
    g_autofree char *text = text_of(g);
    if (!shape(g, error) || !nft(text, error)) {
        return false;
    }
    bool keeps = limited(g->outbound) || g->filter; /* what a flush would take away */
    remember(g->device, keeps ? g_steal_pointer(&text) : NULL);
    return true;
}

void port_guard_mend(const GPtrArray *there)
{
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);
    GHashTableIter at;
    void *device, *text;
    g_mutex_lock(&lock);
    if (guards) {
        g_hash_table_iter_init(&at, guards);
    }
    while (guards && g_hash_table_iter_next(&at, &device, &text)) {
        g_autofree char *name = table_name(device);
        if (!g_ptr_array_find_with_equal_func((GPtrArray *)there, name, g_str_equal, NULL) &&
            link_index(device)) {
            g_ptr_array_add(texts, g_strdup(text));
        }
    }
    g_mutex_unlock(&lock);
    for (unsigned i = 0; i < texts->len; i++) {
        g_autoptr(GError) error = NULL;
        if (!nft(texts->pdata[i], &error)) {
            daemon_log("rules of a port do not come back: %s", error->message);
        }
    }
}
