/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * null: a cable that ends nowhere, for -netdev hubport's lonely port and for tests.
 */
#include "host/net/backend.h"

static void null_send(struct netdev *net, const struct iovec *iov, unsigned n)
{
    (void)net, (void)iov, (void)n;
}

static void null_close(struct netdev *net)
{
    g_free(net);
}

static struct netdev *null_open(KeyVal *kv, const char *id, GError **error)
{
    (void)kv, (void)id, (void)error;
    struct netdev *net = g_new0(struct netdev, 1);
    net->send = null_send;
    net->close = null_close;
    net->about = g_strdup("null");
    return net;
}

const struct net_backend net_backend_null = {
    .name = "null",
    .about = "connected to nothing",
    .open = null_open,
};
