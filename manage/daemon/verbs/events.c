/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/client.h"
#include "manage/daemon/node_device.h"
#include "manage/daemon/verb.h"

/* Registration for events, a pair of verbs a class. */

enum { CALLBACKS_MAX = 1024 }; /* a connection */

/* What nothing here is a cause of, though libvirt has a number for it. */
static const struct {
    enum event_class class;
    int event;
    const char *name;
} never[] = {
    {CLASS_DOMAIN, 25, "memory-failure"}, /* the host's own memory errors end a machine */
    {CLASS_DOMAIN, 26, "memory-device-size-change"}, /* there is no virtio-mem */
    {CLASS_NETWORK, 1, "metadata-change"},           /* networks' metadata change with the rest */
};

static bool may_come(const struct callback *wanted, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(never); i++) {
        if (never[i].class == wanted->class && never[i].event == wanted->event) {
            libvirt_error(error, ERR_NO_SUPPORT, "the event %s", never[i].name);
            return false;
        }
    }
    return true;
}

static bool enlist(struct call *call, struct callback wanted, int events, const void *uuid,
                   rpc_int *ret, GError **error)
{
    struct client *c = call_client(call);
    if (wanted.event < 0 || wanted.event >= events) {
        libvirt_error(error, ERR_INVALID_ARG, "unsupported event ID %d", wanted.event);
    } else if (c->callbacks && c->callbacks->len >= CALLBACKS_MAX) {
        libvirt_error(error, ERR_RESOURCE_BUSY, "more than %d event callbacks on one connection",
                      CALLBACKS_MAX);
    } else if (may_come(&wanted, error)) {
        wanted.all = !uuid && !(wanted.class == CLASS_NODE_DEVICE && wanted.name);
        if (uuid) {
            memcpy(wanted.uuid, uuid, sizeof(wanted.uuid));
        }
        ret->value = event_register(c, wanted);
        return true;
    }
    g_free(wanted.name);
    g_clear_pointer(&wanted.pattern, g_regex_unref);
    return false;
}

static bool discharge(struct call *call, enum event_class class, int id, GError **error)
{
    if (!event_deregister(call_client(call), class, id)) {
        libvirt_error(error, ERR_INTERNAL, "event callback %d not registered", id);
        return false;
    }
    return true;
}

bool verb_connect_domain_event_callback_register_any(struct call *call,
                                                     const rpc_domain_register *args, rpc_int *ret,
                                                     GError **error)
{
    struct callback wanted = {.class = CLASS_DOMAIN, .event = args->event};
    return enlist(call, wanted, 27, args->dom ? args->dom->uuid : NULL, ret, error);
}

bool verb_connect_domain_event_callback_deregister_any(struct call *call, const rpc_int *args,
                                                       rpc_none *ret, GError **error)
{
    (void)ret;
    return discharge(call, CLASS_DOMAIN, args->value, error);
}

bool verb_connect_network_event_register_any(struct call *call, const rpc_network_register *args,
                                             rpc_int *ret, GError **error)
{
    struct callback wanted = {.class = CLASS_NETWORK, .event = args->event};
    return enlist(call, wanted, 2, args->net ? args->net->uuid : NULL, ret, error);
}

bool verb_connect_network_event_deregister_any(struct call *call, const rpc_int *args,
                                               rpc_none *ret, GError **error)
{
    (void)ret;
    return discharge(call, CLASS_NETWORK, args->value, error);
}

bool verb_connect_storage_pool_event_register_any(struct call *call, const rpc_pool_register *args,
                                                  rpc_int *ret, GError **error)
{
    struct callback wanted = {.class = CLASS_POOL, .event = args->event};
    return enlist(call, wanted, 2, args->pool ? args->pool->uuid : NULL, ret, error);
}

bool verb_connect_storage_pool_event_deregister_any(struct call *call, const rpc_int *args,
                                                    rpc_none *ret, GError **error)
{
    (void)ret;
    return discharge(call, CLASS_POOL, args->value, error);
}

bool verb_connect_node_device_event_register_any(struct call *call,
                                                 const rpc_node_device_register *args, rpc_int *ret,
                                                 GError **error)
{
    if (!node_events_begin(error)) {
        return false;
    }
    struct callback wanted = {.class = CLASS_NODE_DEVICE,
                              .event = args->event,
                              .name = args->dev ? g_strdup(args->dev->name) : NULL};
    return enlist(call, wanted, 2, NULL, ret, error);
}

bool verb_connect_node_device_event_deregister_any(struct call *call, const rpc_int *args,
                                                   rpc_none *ret, GError **error)
{
    (void)ret;
    return discharge(call, CLASS_NODE_DEVICE, args->value, error);
}

bool verb_connect_secret_event_register_any(struct call *call, const rpc_secret_register *args,
                                            rpc_int *ret, GError **error)
{
    struct callback wanted = {.class = CLASS_SECRET, .event = args->event};
    return enlist(call, wanted, 2, args->secret ? args->secret->uuid : NULL, ret, error);
}

bool verb_connect_secret_event_deregister_any(struct call *call, const rpc_int *args, rpc_none *ret,
                                              GError **error)
{
    (void)ret;
    return discharge(call, CLASS_SECRET, args->value, error);
}

bool verb_connect_monitor_event_register(struct call *call, const rpc_monitor_register *args,
                                         rpc_int *ret, GError **error)
{
    enum { REGEX = 1, NO_CASE = 2 };
    struct callback wanted = {.class = CLASS_MONITOR};
    if (args->event && args->flags & (REGEX | NO_CASE)) {
        g_autofree char *literal =
            args->flags & REGEX ? NULL : g_regex_escape_string(*args->event, -1);
        g_autofree char *whole = literal ? g_strdup_printf("^%s$", literal) : NULL;
        g_autoptr(GError) why = NULL;
        wanted.pattern = g_regex_new(whole ? whole : *args->event,
                                     args->flags & NO_CASE ? G_REGEX_CASELESS : 0, 0, &why);
        if (!wanted.pattern) {
            libvirt_error(error, ERR_INVALID_ARG, "failed to compile regex '%s': %s", *args->event,
                          why->message);
            return false;
        }
    } else if (args->event) {
        wanted.name = g_strdup(*args->event);
    }
    return enlist(call, wanted, 1, args->dom ? args->dom->uuid : NULL, ret, error);
}

bool verb_connect_monitor_event_deregister(struct call *call, const rpc_int *args, rpc_none *ret,
                                           GError **error)
{
    (void)ret;
    return discharge(call, CLASS_MONITOR, args->value, error);
}
