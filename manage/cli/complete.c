/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/shell.h"

#include <string.h>

/*
 * What may come next, for the prompt and for the shells' completion.
 */
static void offer(GPtrArray *out, const char *begun, const char *word)
{
    if (g_str_has_prefix(word, begun)) {
        g_ptr_array_add(out, g_strdup(word));
    }
}

static void offer_verbs(GPtrArray *out, const char *begun)
{
    for (unsigned i = 0; verb_groups[i]; i++) {
        for (const struct verb_row *v = verb_groups[i]->verbs; v->name; v++) {
            offer(out, begun, v->name);
        }
    }
}

static void offer_domains(Rpc *rpc, GPtrArray *out, const char *begun, unsigned flags)
{
    rpc_list_args args = {.need_results = 1, .flags = flags};
    g_auto(rpc_domains) all = {0};
    if (ask_connect_list_all_domains(rpc, &args, &all, NULL)) {
        for (unsigned i = 0; i < all.items.items_len; i++) {
            offer(out, begun, all.items.items_val[i].name);
        }
    }
}

static void offer_networks(Rpc *rpc, GPtrArray *out, const char *begun)
{
    rpc_list_args args = {.need_results = 1};
    g_auto(rpc_networks) all = {0};
    if (ask_connect_list_all_networks(rpc, &args, &all, NULL)) {
        for (unsigned i = 0; i < all.items.items_len; i++) {
            offer(out, begun, all.items.items_val[i].name);
        }
    }
}

static void offer_pools(Rpc *rpc, GPtrArray *out, const char *begun)
{
    rpc_list_args args = {.need_results = 1};
    g_auto(rpc_pools) all = {0};
    if (ask_connect_list_all_storage_pools(rpc, &args, &all, NULL)) {
        for (unsigned i = 0; i < all.items.items_len; i++) {
            offer(out, begun, all.items.items_val[i].name);
        }
    }
}

/* Volumes of any pool that is named in the command. */
static void offer_volumes(Rpc *rpc, GPtrArray *out, const char *begun, char *const *words,
                          unsigned n)
{
    for (unsigned i = 1; i + 1 < n; i++) {
        rpc_text by_name = {words[i]};
        g_auto(rpc_pool_ret) pool = {0};
        g_auto(rpc_volumes) all = {0};
        if (!ask_storage_pool_lookup_by_name(rpc, &by_name, &pool, NULL)) {
            continue;
        }
        rpc_pool_list_args args = {.pool = pool.pool, .need_results = 1};
        if (ask_storage_pool_list_all_volumes(rpc, &args, &all, NULL)) {
            for (unsigned k = 0; k < all.items.items_len; k++) {
                offer(out, begun, all.items.items_val[k].name);
            }
        }
    }
}

static void offer_snapshots(Rpc *rpc, GPtrArray *out, const char *begun, const char *domain)
{
    rpc_text by_name = {(char *)domain};
    g_auto(rpc_domain_ret) dom = {0};
    g_auto(rpc_snapshots) all = {0};
    if (!ask_domain_lookup_by_name(rpc, &by_name, &dom, NULL)) {
        return;
    }
    rpc_domain_list_args args = {.dom = dom.dom, .need_results = 1};
    if (ask_domain_list_all_snapshots(rpc, &args, &all, NULL)) {
        for (unsigned i = 0; i < all.items.items_len; i++) {
            offer(out, begun, all.items.items_val[i].name);
        }
    }
}

static void offer_objects(struct shell *sh, const struct option_row *o, GPtrArray *out,
                          char *const *words, unsigned n)
{
    enum { ACTIVE = 1, INACTIVE = 2 };
    const char *begun = words[n - 1];
    if (o->complete == COMPLETE_NONE || o->complete == COMPLETE_FILE) {
        return;
    }
    if (o->complete == COMPLETE_VERB) {
        offer_verbs(out, begun);
        return;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    if (!rpc) {
        return;
    }
    switch (o->complete) {
    case COMPLETE_DOMAIN:
        offer_domains(rpc, out, begun, 0);
        break;
    case COMPLETE_DOMAIN_ACTIVE:
        offer_domains(rpc, out, begun, ACTIVE);
        break;
    case COMPLETE_DOMAIN_INACTIVE:
        offer_domains(rpc, out, begun, INACTIVE);
        break;
    case COMPLETE_NETWORK:
        offer_networks(rpc, out, begun);
        break;
    case COMPLETE_POOL:
        offer_pools(rpc, out, begun);
        break;
    case COMPLETE_VOLUME:
        offer_volumes(rpc, out, begun, words, n);
        break;
    case COMPLETE_SNAPSHOT:
        offer_snapshots(rpc, out, begun, n > 2 ? words[1] : "");
        break;
    default:
        break;
    }
}

static const struct option_row *option_named(const struct verb_row *v, const char *name)
{
    for (const struct option_row *o = v->options; o && o->name; o++) {
        if (strcmp(o->name, name) == 0) {
            return o;
        }
    }
    return NULL;
}

/* The option that word @n - 1 is the value of, by name or by place; NULL: of none. */
static const struct option_row *option_at(const struct verb_row *v, char *const *words, unsigned n)
{
    const struct option_row *before =
        g_str_has_prefix(words[n - 2], "--") ? option_named(v, words[n - 2] + 2) : NULL;
    unsigned place = 0;
    if (before && before->kind != OPT_BOOL) {
        return before;
    }
    for (unsigned i = 1; i + 1 < n; i++) {
        const struct option_row *o =
            g_str_has_prefix(words[i], "--") ? option_named(v, words[i] + 2) : NULL;
        i += o && o->kind != OPT_BOOL;
        place += !g_str_has_prefix(words[i], "--");
    }
    for (const struct option_row *o = v->options; o && o->name; o++) {
        if (o->kind != OPT_BOOL && !(o->flags & OPT_NAMED) &&
            (o->kind == OPT_MANY || place-- == 0)) {
            return o;
        }
    }
    return NULL;
}

char **shell_complete(struct shell *sh, char *const *words, unsigned n)
{
    g_autoptr(GPtrArray) out = g_ptr_array_new();
    const struct verb_row *v = n > 1 ? shell_find(words[0]) : NULL;
    if (n == 1) {
        offer_verbs(out, words[0]);
    } else if (v && g_str_has_prefix(words[n - 1], "-")) {
        for (const struct option_row *o = v->options; o && o->name; o++) {
            g_autofree char *dashed = g_strdup_printf("--%s", o->name);
            offer(out, words[n - 1], dashed);
        }
    } else if (v) {
        const struct option_row *o = option_at(v, words, n);
        if (o) {
            offer_objects(sh, o, out, words, n);
        }
    }
    g_ptr_array_add(out, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&out), FALSE);
}
