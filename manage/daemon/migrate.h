/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/machine.h"

/*
 * A machine goes to another host, in libvirt's five steps (protocol 3): begin at the source,
 * prepare at the destination, perform at the source, finish at the destination, confirm at the
 * source.  A client leads, or (peer to peer) the source does all as a client of the destination.
 * Whatever fails, the machine runs on at the source unless the destination has it whole.  Then the
 * two lodge-vm settle between themselves who runs it (vmm/handover.h): the source may always be told
 * to run again, and does so only if the destination does not.  Through a tunnel they cannot: where
 * nobody knows, the machine stays paused.
 *
 * Cookies go from each step to the next at the other side; ours are a line that names them, lines
 * of keys and values up to an empty one, and then the definition that the destination is to keep,
 * if any.
 */
enum move_flags {
    MOVE_LIVE = 1 << 0,
    MOVE_PEER2PEER = 1 << 1,
    MOVE_TUNNELLED = 1 << 2,
    MOVE_PERSIST_DEST = 1 << 3,
    MOVE_UNDEFINE_SOURCE = 1 << 4,
    MOVE_PAUSED = 1 << 5,
    MOVE_NON_SHARED_DISK = 1 << 6,
    MOVE_NON_SHARED_INC = 1 << 7,
    MOVE_CHANGE_PROTECTION = 1 << 8,
    MOVE_UNSAFE = 1 << 9,
    MOVE_OFFLINE = 1 << 10,
    MOVE_ABORT_ON_ERROR = 1 << 12,
};

/* What a client wants; the texts are the caller's, NULL if it does not say. */
struct move {
    unsigned flags;
    const char *xml;     /* for the destination; of begin, or as begin gave it */
    const char *lasting; /* what the destination is to keep */
    const char *name;    /* at the destination */
    const char *uri;     /* tcp:HOST:PORT, tcp://HOST[:PORT], unix:///PATH */
    const char *listen;  /* address at the destination */
    uint64_t bandwidth;  /* MiB/s; 0: as set for the machine */
    int disks_port;      /* where the destination takes disks; 0: any of the ports */
    GPtrArray *disks;    /* targets of those that are to be copied, borrowed; NULL: all */
};
struct move_cookie {
    const char *data;
    size_t n;
};

/* What of .flags cannot be had is refused by name. */
bool move_check(const struct move *w, GError **error);

/* All of these with the daemon lock held; they give it up while they wait. */
bool move_begin(const rpc_domain *named, const struct move *w, struct client *c, char **xml,
                char **cookie, GError **error);
/* @uri: where the state is to be sent.  @tunnel >= 0: it comes by this socket instead. */
bool move_prepare(const struct move *w, struct move_cookie in, struct client *c, int tunnel,
                  char **uri, char **cookie, GError **error);
/* To .uri, or into @tunnel. */
bool move_perform(const rpc_domain *named, const struct move *w, struct move_cookie in, int tunnel,
                  char **cookie, GError **error);
bool move_finish(const struct move *w, struct move_cookie in, bool cancelled, rpc_domain *out,
                 GError **error);
bool move_confirm(const rpc_domain *named, const struct move *w, bool cancelled, GError **error);
/* In place of confirm: nobody knows whether it runs at the destination. */
void move_unsettled(const rpc_domain *named);
/* A machine that stays paused because its destination does not answer goes on: somebody knows that
 * it does not run there. */
bool move_reclaim(Domain *d, struct machine *m, GError **error);
bool move_is_open(const Domain *d); /* it is such a one */

/* After a restart of lodged: whoever led it is gone.  A machine that was coming here goes, with
 * what was made for it; one that was leaving stays. */
void move_drop(Domain *d);
void move_forget_made(const GPtrArray *made);
void move_recover(struct machine *m);

/*
 * migrate_disks.c: disks that the two hosts do not share.  The destination serves its images over
 * NBD, the source mirrors its disks there and ends that when the machine has stopped.
 */
bool move_copies(const struct move *w, const struct domain_disk *disk);
/* Appends "disk TARGET BYTES" of each. */
bool move_disks_describe(struct machine *m, const struct move *w, GString *lines, GError **error);
/* The destination's images that are not there yet; what was made is appended to @made. */
bool move_disks_make(const struct move *w, const DomainDef *def, const char *lines, GPtrArray *made,
                     GError **error);
/* Serves them; the port goes to @port. */
bool move_disks_serve(struct machine *m, const struct move *w, unsigned *port, GError **error);
bool move_disks_send(struct machine *m, const struct move *w, unsigned port, GError **error);
/* False with an error if one of the mirrors has failed. */
bool move_disks_whole(struct machine *m, const struct move *w, GError **error);
void move_disks_recover(struct machine *m); /* ends what an earlier lodged has begun */
/* Nothing comes of it. */
void move_disks_cancel(struct machine *m, const struct move *w);
/* Waits until all have ended, and forgets them. */
void move_disks_end(struct machine *m, const struct move *w);
/* The number after "KEY " at the start of one of @lines; 0. */
uint64_t move_line(const char *lines, const char *key);
/* One that may be another's; 0 with an error. */
int move_port(const char *listen, unsigned *port, GError **error);

/*
 * migrate_way.c: sockets for the state, -1 with an error; they give the lock up meanwhile.  The
 * one that listens tells in @uri where it is to be sent: to this host's own name only if that
 * leads here, else to an address.
 */
int move_connect(const char *uri, GError **error);
char *move_host_of(const char *uri); /* NULL: of no TCP address */
int move_listen(const struct move *w, const struct client *c, char **uri, GError **error);
/* What this host, whose name is @name, is offered as to who asked at the address @came_in. */
struct sockaddr;
char *move_host(const char *name, const struct sockaddr *came_in);

/* migrate_peer.c: all five, as a client of the lodged at @peer. */
bool move_to_peer(const rpc_domain *named, const char *peer, const struct move *w, GError **error);
