/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/serve.h"
#include "host/image/tls.h"

#include <glib.h>
#include <gnutls/gnutls.h>
#include <stdatomic.h>

/*
 * Inside the NBD server.  One struct client is one connection; up to CLIENT_WORKERS threads
 * serve it: whoever holds .receiving reads the next request from the peer, carries it out and
 * answers under .sending.
 *
 * Spec: "The NBD protocol" (doc/proto.md of the nbd project), whole.
 */
enum {
    NBD_NAME_MAX = 4096,        /* "Values": strings on the wire */
    NBD_OPTION_MAX = 64 << 10,  /* one option's data; a longer one is read over */
    NBD_REQUEST_MAX = 32 << 20, /* "Size constraints": what we tell clients */
    NBD_PIECE = 1 << 20,        /* larger requests are done piece by piece */
    NBD_OPTIONS_MAX = 1024,     /* one negotiation */
    CLIENT_WORKERS = 8,
    GREET_SECONDS = 10, /* a client that has not chosen an export by then is dropped */
};

/* What we number metadata contexts by; bitmaps count on. */
enum context {
    CONTEXT_ALLOCATION,
    CONTEXT_DEPTH,
    CONTEXT_BITMAPS,
    CONTEXTS_MAX = CONTEXT_BITMAPS + SERVE_BITMAPS_MAX
};

/* Credentials with their files read, and who may come. */
struct server_tls;
struct server_tls *server_tls_new(const struct tls_creds *creds, const char *identity,
                                  GError **error);
void server_tls_free(struct server_tls *t); /* NULL is fine */
/* A session that only lacks its transport; NULL on failure. */
gnutls_session_t server_tls_session(const struct server_tls *t);
/* After the handshake: is the peer who it has to be? */
bool server_tls_allows(const struct server_tls *t, gnutls_session_t tls);

/* Bytes both ways, perhaps through TLS: any one thread reads while any one writes. */
struct stream {
    int in, out;
    bool socket;      /* .in and .out are one socket */
    int64_t deadline; /* of g_get_monotonic_time(); 0: none */
    int stop;         /* an event descriptor that ends a wait */
    gnutls_session_t tls;
};

/* False at the end, on an error, and when the deadline has passed. */
bool stream_read(struct stream *s, void *to, size_t n);
bool stream_write(struct stream *s, const void *from, size_t n);
bool stream_skip(struct stream *s, uint64_t n);
/* More bytes have come than were read. */
bool stream_pending(const struct stream *s);
/* A handshake with a peer that @tls lets in. */
bool stream_start_tls(struct stream *s, const struct server_tls *tls);
void stream_close(struct stream *s);

struct client {
    Server *server;
    struct client *next;
    struct stream stream;
    bool structured, no_zeroes, greeted;
    /* What the client chose. */
    const struct serve_export *export;
    bool contexts[CONTEXTS_MAX]; /* by context id */
    bool any_context;

    GMutex receiving, sending;
    bool gone;           /* under .receiving: nothing more will be read */
    _Atomic bool broken; /* nothing more can be written */
    _Atomic unsigned workers, busy;
};

/* Up to the transmission phase; false: the connection ends. */
bool nbd_greet(struct client *c);
/* The transmission phase, until the peer goes; then client_end(), in some thread. */
void nbd_transmit(struct client *c);
void client_end(struct client *c);
uint16_t nbd_export_flags(const struct serve_export *e);

const struct serve_export *server_find_export(Server *s, const char *name, size_t n);
const struct serve_export *server_export(Server *s, unsigned i); /* NULL after the last */
/* Not if a disk that was guessed to be raw would be taken for something else afterwards.  @from
 * NULL: zeroes. */
bool server_may_write(const struct serve_export *e, uint64_t offset, const uint8_t *from,
                      uint64_t n);
/* Bytes from @offset that are known to be data; 0: it has to be looked up. */
uint64_t server_known_data(const struct serve_export *e, uint64_t offset);
void server_learn_data(const struct serve_export *e, uint64_t from, uint64_t to);
const struct server_tls *server_tls(const Server *s); /* NULL: plain */
bool server_stopping(const Server *s);
/* A new thread that runs @run(@c); false if there are no more threads. */
bool client_spawn(struct client *c, void (*run)(struct client *c));
