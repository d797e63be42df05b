/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/keyval.h"
#include "host/net/net.h"

/*
 * The provider side of net.h: one table a backend.
 */
struct net_backend {
    const char *name; /* "user": the first word of -netdev */
    const char *about;
    /*
     * Takes its options out of @kv and returns a netdev with .send, .close, .about and,
     * where it holds frames back, .resume set; the core sets the rest.  NULL with a line
     * for the user.
     */
    struct netdev *(*open)(KeyVal *kv, const char *id, GError **error);
};

/* Generated from the list in host/net/meson.build. */
extern const struct net_backend *const net_backends[];
extern const unsigned n_net_backends;

/*
 * A frame for the card.  If the card has no room the core keeps a copy until it has, up to
 * a bound; beyond that the frame is lost, as on a wire.  Allocates nothing.
 */
void net_deliver(struct netdev *net, const void *frame, size_t n);
/* Is nothing waiting?  A backend that can hold its peer back reads only then. */
bool net_idle(const struct netdev *net);
/* Hands over what waits, in order; .resume of backends that need nothing more. */
void net_flush(struct netdev *net);
