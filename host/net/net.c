/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/net/backend.h"

#include <string.h>

/*
 * Frames that wait for the card: a ring of bytes, each frame after its length.  Pages that
 * were never used cost nothing.
 */
enum { QUEUE_BYTES = 1 << 20 };

struct net_queue {
    uint32_t head, used; /* first byte in use, and how many */
    bool flushing;       /* a card that sends from receive() must not start a second pass */
    uint8_t frame[NET_FRAME_MAX];
    uint8_t ring[QUEUE_BYTES];
};

static GPtrArray *netdevs; /* in order of creation */

static void ring_copy_in(struct net_queue *q, const void *from, uint32_t n)
{
    uint32_t at = (q->head + q->used) % QUEUE_BYTES, first = MIN(n, QUEUE_BYTES - at);
    memcpy(q->ring + at, from, first);
    memcpy(q->ring, (const uint8_t *)from + first, n - first);
    q->used += n;
}

/* Looks at @n bytes, @skip bytes behind the head. */
static void ring_peek(const struct net_queue *q, uint32_t skip, void *to, uint32_t n)
{
    uint32_t at = (q->head + skip) % QUEUE_BYTES, first = MIN(n, QUEUE_BYTES - at);
    memcpy(to, q->ring + at, first);
    memcpy((uint8_t *)to + first, q->ring, n - first);
}

bool net_idle(const struct netdev *net)
{
    return net->queue->used == 0;
}

void net_flush(struct netdev *net)
{
    struct net_queue *q = net->queue;
    if (q->flushing) {
        return;
    }
    q->flushing = true;
    while (q->used) {
        uint32_t n;
        ring_peek(q, 0, &n, sizeof(n));
        ring_peek(q, sizeof(n), q->frame, n);
        if (net->receive && net->link_up && !net->receive(net->card, q->frame, n)) {
            break;
        }
        q->head = (q->head + (uint32_t)sizeof(n) + n) % QUEUE_BYTES;
        q->used -= (uint32_t)sizeof(n) + n;
    }
    q->flushing = false;
}

void net_deliver(struct netdev *net, const void *frame, size_t n)
{
    struct net_queue *q = net->queue;
    if (!net->receive || !net->link_up || n > NET_FRAME_MAX) {
        return;
    }
    if (q->used == 0 && !q->flushing && net->receive(net->card, frame, n)) {
        return;
    }
    uint32_t bytes = (uint32_t)n;
    if (QUEUE_BYTES - q->used >= sizeof(bytes) + bytes) {
        ring_copy_in(q, &bytes, sizeof(bytes));
        ring_copy_in(q, frame, bytes);
    }
}

static const struct net_backend *backend_find(const char *name)
{
    for (unsigned i = 0; i < n_net_backends; i++) {
        if (g_str_equal(net_backends[i]->name, name)) {
            return net_backends[i];
        }
    }
    return NULL;
}

static struct netdev *open_kind(KeyVal *kv, GError **error)
{
    const char *kind = keyval_get(kv, "type"), *id = keyval_get(kv, "id");
    const struct net_backend *b = kind ? backend_find(kind) : NULL;
    if (!b) {
        g_autoptr(GString) kinds = g_string_new(NULL);
        for (unsigned i = 0; i < n_net_backends; i++) {
            g_string_append_printf(kinds, " %s", net_backends[i]->name);
        }
        g_set_error(error, LODGE_ERROR, EINVAL, "no network backend \"%s\"; there are:%s",
                    kind ? kind : "", kinds->str);
        return NULL;
    }
    if (!id || netdev_find(id)) {
        g_set_error(error, LODGE_ERROR, EINVAL, id ? "id=%s: there is one already" : "%s: no id=",
                    id ? id : kind);
        return NULL;
    }
    struct netdev *net = b->open(kv, id, error);
    if (!net) {
        return NULL;
    }
    for (struct netdev *each = net; each; each = each->more) {
        each->id = g_strdup(id);
        each->kind = b->name;
        each->link_up = true;
        each->queue = g_malloc(sizeof(*each->queue));
        each->queue->head = each->queue->used = 0;
        each->queue->flushing = false;
        each->resume = each->resume ? each->resume : net_flush;
    }
    return net;
}

/* Undoes open_kind(); .close() frees the struct itself. */
static void netdev_free(void *data)
{
    struct netdev *net = data;
    while (net) {
        struct netdev *more = net->more;
        g_free(net->queue);
        g_free(net->about);
        g_free(net->id);
        net->close(net);
        net = more;
    }
}

struct netdev *netdev_new(const char *options, GError **error)
{
    g_autoptr(KeyVal) kv = keyval_parse(options, "type", error);
    struct netdev *net = kv ? open_kind(kv, error) : NULL;
    if (net && !keyval_done(kv, error)) {
        netdev_free(net);
        net = NULL;
    }
    if (!net) {
        g_prefix_error(error, "-netdev %s: ", options);
        return NULL;
    }
    if (!netdevs) {
        netdevs = g_ptr_array_new_with_free_func(netdev_free);
    }
    g_ptr_array_add(netdevs, net);
    return net;
}

struct netdev *netdev_find(const char *id)
{
    for (unsigned i = 0; netdevs && i < netdevs->len; i++) {
        struct netdev *net = netdevs->pdata[i];
        if (g_str_equal(net->id, id)) {
            return net;
        }
    }
    return NULL;
}

void netdev_each(void (*each)(struct netdev *net, void *owner), void *owner)
{
    for (unsigned i = 0; netdevs && i < netdevs->len; i++) {
        each(netdevs->pdata[i], owner);
    }
}

bool netdev_remove(const char *id, GError **error)
{
    struct netdev *net = netdev_find(id);
    if (!net || net->card) {
        g_set_error(error, LODGE_ERROR, net ? EBUSY : ENODEV,
                    net ? "netdev '%s' is used by a card" : "Device '%s' not found", id);
        return false;
    }
    return g_ptr_array_remove(netdevs, net);
}

void netdevs_close(void)
{
    g_clear_pointer(&netdevs, g_ptr_array_unref);
}

void net_set_link(struct netdev *net, bool up)
{
    for (struct netdev *each = net; each; each = each->more) {
        each->link_up = up;
    }
    if (net->link_changed) {
        net->link_changed(net->card);
    }
    for (struct netdev *each = net; up && each; each = each->more) {
        each->resume(each);
    }
}

void netdev_kinds(GString *out)
{
    for (unsigned i = 0; i < n_net_backends; i++) {
        g_string_append_printf(out, "%-8s %s\n", net_backends[i]->name, net_backends[i]->about);
    }
}
