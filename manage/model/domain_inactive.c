/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What XML of a running machine says that is no part of a definition.  People define what
 * dumpxml has shown them, and move, clone and save it; what the host had chosen for that one run
 * must not be wished for in the next.
 *
 * Spec: libvirt, "Domain XML format" (aliases of users begin with "ua-").
 */
#include "manage/model/domain.h"

#include <string.h>

static void forget_below(char **path, const char *folder)
{
    if (*path && g_str_has_prefix(*path, folder)) {
        g_clear_pointer(path, g_free);
    }
}

static void forget_chars(const GPtrArray *list, const char *folder)
{
    for (unsigned i = 0; i < xml_count(list); i++) {
        struct domain_char *c = list->pdata[i];
        struct char_source *s = c->sources ? c->sources->pdata[0] : NULL;
        g_clear_pointer(&c->tty, g_free);
        if (s && c->type == CHAR_PTY) {
            g_clear_pointer(&s->path, g_free);
        } else if (s && c->type == CHAR_UNIX) {
            forget_below(&s->path, folder);
        }
    }
}

static void forget_screen(struct domain_graphics *g, const char *folder)
{
    forget_below(&g->socket, folder);
    for (unsigned i = 0; i < xml_count(g->listens); i++) {
        forget_below(&((struct graphics_listen *)g->listens->pdata[i])->socket, folder);
    }
    if (g->autoport == TRI_YES) {
        g->websocket = g->websocket == domain_websocket(g) ? -1 : g->websocket;
        g->port = -1;
    }
}

static void forget_card(struct domain_interface *nic)
{
    static const char *const made_here[] = {"vnet", "macvtap"};
    for (unsigned i = 0; i < G_N_ELEMENTS(made_here) && nic->target_managed != TRI_NO; i++) {
        if (nic->target && g_str_has_prefix(nic->target, made_here[i])) {
            g_clear_pointer(&nic->target, g_free);
        }
    }
    if (nic->type == IFACE_NETWORK) {
        g_clear_pointer(&nic->bridge, g_free);
        g_clear_pointer(&nic->dev, g_free);
        g_clear_pointer(&nic->port_id, g_free);
        nic->mode = 0;
    }
}

void domain_def_forget_host(DomainDef *def, const char *folder)
{
    GPtrArray *lists[] = {def->serials, def->parallels, def->consoles, def->channels};
    for (unsigned i = 0; i < G_N_ELEMENTS(lists); i++) {
        forget_chars(lists[i], folder);
    }
    for (unsigned i = 0; i < xml_count(def->graphics); i++) {
        forget_screen(def->graphics->pdata[i], folder);
    }
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        forget_card(def->interfaces->pdata[i]);
    }
}

void domain_device_forget_alias(struct device_head *d)
{
    if (d->alias && !g_str_has_prefix(d->alias, "ua-")) {
        g_clear_pointer(&d->alias, g_free);
    }
}

static void forget_alias(const struct xml_table *t, struct device_head *d, void *data)
{
    (void)t, (void)data;
    domain_device_forget_alias(d);
}

void domain_def_inactive(DomainDef *def, const char *folder)
{
    domain_def_forget_host(def, folder);
    domain_each_device(def, forget_alias, NULL);
}
