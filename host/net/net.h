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
    void *card;
    bool link_up;
    uint8_t vnet_hdr_bytes; /* struct virtio_net_hdr in front of each frame, 0: none */
};

/* @options is -netdev's argument: "user,id=n0,hostfwd=tcp::2222-:22". */
struct netdev *netdev_new(const char *options, GError **error);
struct netdev *netdev_find(const char *id);
void netdev_each(void (*each)(struct netdev *net, void *owner), void *owner);
void netdevs_close(void);
/* Text of `-netdev help`. */
void netdev_kinds(GString *out);
