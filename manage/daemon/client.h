/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/poller.h"
#include "manage/rpc/packet.h"

#include <stdatomic.h>
#include <sys/types.h>

/*
 * A connection.  The main loop reads and writes its socket; everything below "daemon lock" may
 * be touched by any thread that holds that.
 */
enum {
    OUT_HIGH = 1 << 20,    /* bytes waiting for the client: no new calls and stream data */
    OUT_MAX = 64 << 20,    /* a client that does not fetch its events is dropped */
    STREAM_HIGH = 1 << 20, /* bytes from the client waiting for a slow stream */
    CALLS_MAX = 5,         /* calls of one client on worker threads at a time */
    STREAMS_MAX = 256,     /* of one client: each may hold a descriptor */
};

/* How it came. */
struct listener {
    struct watch watch;
    enum { LISTEN_UNIX, LISTEN_TCP, LISTEN_TLS } kind;
    bool read_only;
    char *path; /* of a UNIX socket that we made, to be removed */
    struct listener *next;
};

struct stream;
struct tls;
struct login;
enum client_auth { PROVE_NOTHING, PROVE_SASL, PROVE_POLKIT }; /* libvirt's numbers */

struct client;
enum event_class {
    CLASS_DOMAIN,
    CLASS_NETWORK,
    CLASS_POOL,
    CLASS_NODE_DEVICE,
    CLASS_SECRET,
    CLASS_MONITOR
};

/* What one client wants to hear of. */
struct callback {
    int id;
    enum event_class class;
    int event;
    bool all; /* of any object; else only of the one that follows */
    uint8_t uuid[16];
    char *name;      /* of a node device, which has no uuid; of a monitor's event, NULL for all */
    GRegex *pattern; /* of the names of a monitor's events, instead of one */
};
/* Whether anybody has registered for something of @class. */
bool event_is_heard(enum event_class class);
/* Registers @wanted, whose .name and .pattern are handed over; the id that names it from now on. */
int event_register(struct client *c, struct callback wanted);
bool event_deregister(struct client *c, enum event_class class, int id);

struct client {
    struct watch watch; /* first */
    atomic_int refs;
    struct lane *lane; /* of its calls and streams */
    /* Main loop only. */
    GByteArray *in; /* bytes of packets not yet handled */
    int fds[PACKET_FDS_MAX];
    unsigned nfds;
    bool keepalive;              /* the client answers pings */
    unsigned silent, unanswered; /* seconds, pings */
    unsigned stalled;            /* seconds in the middle of something */
    struct tls *tls;             /* NULL: plain */
    bool handshaking;
    struct ucred peer; /* of a UNIX socket; pid -1 else */
    unsigned kind;

    /* Daemon lock. */
    bool dead, authenticated, opened, read_only;
    enum client_auth auth;
    struct login *login; /* SASL; NULL before */
    bool told_of_end;    /* it has asked for a word before we hang up */
    bool wrapped;        /* packets go through it, from the one after its last answer on */
    bool kicked;         /* client_work() is queued */
    unsigned calls;      /* on worker threads */
    struct packet *out, **out_tail;
    size_t out_bytes;
    size_t stream_bytes; /* waiting for streams */
    struct stream *streams;
    unsigned streams_count;
    GArray *callbacks; /* struct callback; NULL until the first */
    int last_callback;
    GArray *at_end;              /* struct client_end; NULL until the first */
    struct client *next, **link; /* all living clients */
};

extern struct client *clients; /* daemon lock */
extern unsigned clients_count;

/* Takes over @fd. */
void client_new(int fd, const struct listener *from);
struct client *client_ref(struct client *c);
void client_unref(struct client *c);
/* Main loop: ends the connection. */
void client_drop(struct client *c, const char *why);
void client_drop_all(void);
/* Every second while there are clients: pings, and an end to those that stopped half-way. */
void clients_tick(void);
/*
 * Daemon lock held: @act with @data when the connection ends, at once if it has; it is called with
 * the lock held and must not wait.
 */
void client_at_end(struct client *c, void (*act)(void *), void *data);
/* Connections that have not authenticated. */
unsigned clients_anonymous(void);
/* Daemon lock held.  Takes over @p; NULL (no memory) ends the connection. */
void client_send(struct client *c, struct packet *p);
/* Daemon lock held, any thread: the main loop is to look at this client again. */
void client_kick(struct client *c);
/* Daemon lock held. */
bool client_has_room(const struct client *c);

/* dispatch.c.  Main loop, lock not held; false: the client is to be dropped. */
bool dispatch_call(struct client *c, const struct packet_header *h, const uint8_t *body, size_t n,
                   int *fds, unsigned nfds);
/* stream.c.  Daemon lock held. */
bool stream_packet(struct client *c, const struct packet_header *h, const uint8_t *body, size_t n);
void streams_run(struct client *c);   /* main loop: starts what can go on */
void streams_abort(struct client *c); /* the client is gone */
struct stream_ops;
/* @name: of verb.h's call_stream_fd(), given away; else NULL. */
struct stream *stream_new(const struct stream_ops *ops, void *data, int fd, char *name);
void stream_free_unused(struct stream *s);
void stream_attach(struct client *c, struct stream *s, const struct packet_header *h);
