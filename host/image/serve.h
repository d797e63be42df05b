/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/chain.h"
#include "host/image/tls.h"

/*
 * An NBD server: exports images to any number of clients, each served by threads of its own.
 */
typedef struct server Server;

enum { SERVE_BITMAPS_MAX = 16 };

/* Instead of the image's own bytes, for an export that is not the image as it is now; 0 or a
 * negative errno value, any thread. */
struct serve_view {
    int (*read)(void *owner, uint64_t offset, void *to, uint64_t n);
    int (*status)(void *owner, uint64_t offset, uint64_t n, struct chain_status *out);
};

struct serve_export {
    const char *name, *description; /* description NULL: none */
    struct node *image;
    uint64_t offset, size; /* the part of the image that clients see */
    bool read_only;
    bool unmap;                                                   /* clients may give space back */
    enum { ZEROES_AS_DATA, ZEROES_KEPT, ZEROES_UNMAPPED } zeroes; /* --detect-zeroes= */
    bool depth;                                                   /* offer qemu:allocation-depth */
    bool shared; /* invite clients to connect several times */
    const char *bitmaps[SERVE_BITMAPS_MAX];
    unsigned n_bitmaps;        /* offer qemu:dirty-bitmap:NAME */
    struct node *bitmaps_node; /* whose they are; NULL: the image's */
    const struct serve_view *view; /* NULL: none; only for reading */
    void *owner;
};

struct serve_options {
    unsigned clients;               /* at once; 0: as many as there are threads for */
    bool persistent;                /* stay when the last client has gone */
    const struct tls_creds *tls;    /* NULL: plain */
    const char *identity;           /* the only client's distinguished name; NULL: any */
    void (*tell)(const char *line); /* of what happens to clients; NULL: nothing */
};

/*
 * The server is a module ("serve", symbol lodge_serve), because TLS is large.  What options and
 * exports point at stays the caller's and must live as long as the server.
 */
struct serve_api {
    Server *(*new)(const struct serve_options *opts, GError **error);
    bool (*add_export)(Server *s, const struct serve_export *e, GError **error);
    /* A listening socket, which the server closes. */
    void (*listen)(Server *s, int fd);
    /* One client over two descriptors, which the server closes; no limit of time. */
    bool (*client)(Server *s, int in, int out, GError **error);
    /* Until .stop, or the last client has gone and .persistent is off. */
    void (*run)(Server *s);
    void (*stop)(Server *s); /* any thread, also a signal handler */
    void (*free)(Server *s); /* NULL is fine */
};
