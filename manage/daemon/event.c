/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/bytes.h"
#include "manage/daemon/client.h"
#include "manage/daemon/verb.h"

/*
 * Events: a packet encoded once, with the callback's id of each receiver written into it.
 */
struct event_row_info {
    uint32_t program;
    int32_t procedure;
    enum event_class class;
    int event;
    xdrproc_t codec;
    size_t object; /* offset in the message of the object's uuid, or of its name */
};

#define OBJECT_DOMAIN(message)      offsetof(message, dom.uuid)
#define OBJECT_MONITOR(message)     offsetof(message, dom.uuid)
#define OBJECT_NETWORK(message)     offsetof(message, net.uuid)
#define OBJECT_POOL(message)        offsetof(message, pool.uuid)
#define OBJECT_SECRET(message)      offsetof(message, secret.uuid)
#define OBJECT_NODE_DEVICE(message) offsetof(message, dev.name)

static const struct event_row_info rows[] = {
#define VERB(number, name, args, ret, may, where)
#define QEMU_VERB(number, name, args, ret, may, where)
#define EVENT(number, name, class, id, message)                                                    \
    {PROGRAM_REMOTE, number, CLASS_##class, id, (xdrproc_t)xdr_##message, OBJECT_##class(message)},
#define QEMU_EVENT(number, name, class, id, message)                                               \
    {PROGRAM_QEMU, number, CLASS_##class, id, (xdrproc_t)xdr_##message, OBJECT_##class(message)},
#include "schema/verbs.def"
#undef VERB
#undef QEMU_VERB
#undef EVENT
#undef QEMU_EVENT
};

static bool is_named(const struct callback *cb, const char *event)
{
    return cb->pattern ? g_regex_match(cb->pattern, event, 0, NULL)
                       : !cb->name || strcmp(cb->name, event) == 0;
}

static bool wants(const struct callback *cb, const struct event_row_info *row, const void *message)
{
    if (cb->class != row->class || cb->event != row->event) {
        return false;
    }
    const char *object = (const char *)message + row->object;
    switch (row->class) {
    case CLASS_NODE_DEVICE:
        return cb->all || strcmp(cb->name, *(char *const *)object) == 0;
    case CLASS_MONITOR:
        if (!is_named(cb, ((const rpc_event_monitor *)message)->event)) {
            return false;
        }
        break;
    default:
        break;
    }
    return cb->all || memcmp(cb->uuid, object, sizeof(cb->uuid)) == 0;
}

void event_send(unsigned at, const void *message)
{
    const struct event_row_info *row = &rows[at];
    struct packet_header h = {row->program, 1, row->procedure, PACKET_EVENT, 0, STATUS_OK};
    g_autofree struct packet *whole = NULL; /* has no FDs */
    for (struct client *c = clients; c; c = c->next) {
        for (unsigned i = 0; c->callbacks && i < c->callbacks->len; i++) {
            const struct callback *cb = &g_array_index(c->callbacks, struct callback, i);
            if (!wants(cb, row, message)) {
                continue;
            }
            if (!whole && !(whole = packet_encode(&h, row->codec, message, 0))) {
                return;
            }
            struct packet *p =
                packet_new(&h, whole->data + PACKET_HEAD, whole->length - PACKET_HEAD);
            if (p) {
                be32_put(p->data + PACKET_HEAD, (uint32_t)cb->id);
            }
            client_send(c, p);
        }
    }
}

static void callback_clear(void *item)
{
    struct callback *cb = item;
    g_free(cb->name);
    g_clear_pointer(&cb->pattern, g_regex_unref);
}

bool event_is_heard(enum event_class class)
{
    for (const struct client *c = clients; c; c = c->next) {
        for (unsigned i = 0; c->callbacks && i < c->callbacks->len; i++) {
            if (g_array_index(c->callbacks, struct callback, i).class == class) {
                return true;
            }
        }
    }
    return false;
}

int event_register(struct client *c, struct callback wanted)
{
    if (!c->callbacks) {
        c->callbacks = g_array_new(FALSE, FALSE, sizeof(struct callback));
        g_array_set_clear_func(c->callbacks, callback_clear);
    }
    wanted.id = c->last_callback++;
    g_array_append_val(c->callbacks, wanted);
    return wanted.id;
}

bool event_deregister(struct client *c, enum event_class class, int id)
{
    for (unsigned i = 0; c->callbacks && i < c->callbacks->len; i++) {
        const struct callback *cb = &g_array_index(c->callbacks, struct callback, i);
        if (cb->id == id && cb->class == class) {
            g_array_remove_index_fast(c->callbacks, i);
            return true;
        }
    }
    return false;
}
