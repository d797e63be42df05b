/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * A network backend as a card sees it: whole Ethernet frames without FCS.
 * Thread: machine lock held in both directions.
 */
enum { NET_FRAME_MAX = 65536 + 18 };

struct netdev {
    char *id;
    const char *kind;  /* "user", "tap", "socket", ... */
    char *about;       /* for `info network` */
    /* Host end. */
    void (*send)(struct netdev *net, const struct iovec *iov, unsigned n);
    void (*resume)(struct netdev *net); /* the card can receive again */
    void (*close)(struct netdev *net);
    /* Card end: false from receive() means no room: the backend keeps the frame and waits
     * for resume(). */
    bool (*receive)(void *card, const void *frame, size_t n);
    void (*link_changed)(void *card); /* NULL: the card does not care */
    void *card;
    bool link_up;
    uint8_t vnet_hdr_bytes; /* struct virtio_net_hdr in front of each frame, 0: none */
    bool vnet_hdr_offered;  /* the card may set .vnet_hdr_bytes to 10 or 12, by set_offload() */
    /* Which offloads the guest can receive (TUN_F_* bits); NULL: the backend has none. */
    void (*set_offload)(struct netdev *net, unsigned vnet_hdr_bytes, unsigned tun_f);
    bool sums_good;   /* frames come from this host: nobody needs to check their checksums */
    bool takes_large; /* TCP segments of up to 64 KiB in one frame may be sent */
    /*
     * A backend of several queues is a chain of these, of which the first has the id; NULL: the
     * last.  use() says whether frames may come out of this queue; NULL: they always may.
     */
    struct netdev *more;
    void (*use)(struct netdev *net, bool on);
    /* Ports of the host that lead into a user network; NULL: the backend has none. */
    bool (*forward)(struct netdev *net, bool add, const char *rule, GError **error);
    char *(*connections)(struct netdev *net); /* a table of them, for `info usernet` */
    struct net_queue *queue; /* frames that the card had no room for; the core's */
};

/* @options is -netdev's argument: "user,id=n0,hostfwd=tcp::2222-:22". */
struct netdev *netdev_new(const char *options, GError **error);
struct netdev *netdev_find(const char *id);
void netdev_each(void (*each)(struct netdev *net, void *owner), void *owner);
/* One that no card uses. */
bool netdev_remove(const char *id, GError **error);
void netdevs_close(void);
/* What a card uses; @net may be NULL (no cable). */
static inline void net_send(struct netdev *net, const struct iovec *iov, unsigned n)
{
    if (net && net->link_up) {
        net->send(net, iov, n);
    }
}

static inline void net_resume(struct netdev *net)
{
    if (net) {
        net->resume(net);
    }
}
void net_set_link(struct netdev *net, bool up);

/* Text of `-netdev help`. */
void netdev_kinds(GString *out);
