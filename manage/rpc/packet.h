/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "schema/remote.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Packets of libvirt's RPC: a length word that counts itself, a header of six words, a body.
 * Everything is big-endian.
 */
enum {
    PACKET_HEAD = 28,              /* length word and header */
    PACKET_MAX = 32 << 20,         /* whole packet */
    PACKET_MAX_ANYONE = 256 << 10, /* before authentication */
    PACKET_FDS_MAX = 32,
    STREAM_CHUNK = 262120, /* bytes of stream data a packet; what libvirt's clients take */
};

enum packet_program {
    PROGRAM_REMOTE = 0x20008086,
    PROGRAM_QEMU = 0x20008087,
    PROGRAM_KEEPALIVE = 0x6b656570,
};
enum packet_type {
    PACKET_CALL,
    PACKET_REPLY,
    PACKET_EVENT,
    PACKET_STREAM,
    PACKET_CALL_FDS,
    PACKET_REPLY_FDS,
    PACKET_HOLE,
};
enum packet_status { STATUS_OK, STATUS_ERROR, STATUS_CONTINUE };
enum { KEEPALIVE_PING = 1, KEEPALIVE_PONG = 2 };
enum { EVENT_CONNECTION_CLOSED = 362 }; /* with a reason of libvirt's */

struct packet_header {
    uint32_t program, version;
    int32_t procedure;
    uint32_t type, serial, status;
};

/* A packet on its way out; .data is whole, length word included. */
struct packet {
    struct packet *next;
    size_t length, sent;
    unsigned nfds, fds_sent; /* each FD goes out with a byte of its own behind the packet */
    int *fds;                /* owned */
    uint8_t data[];
};

void packet_header_read(const uint8_t at[PACKET_HEAD], struct packet_header *h);
void packet_header_write(uint8_t at[PACKET_HEAD], const struct packet_header *h, size_t length);

/* Body of @n bytes, left to the caller if @body is NULL.  NULL if there is no memory. */
struct packet *packet_new(const struct packet_header *h, const void *body, size_t n);
/*
 * With @value encoded by @codec as body; @nfds is written in front of it if the type says so.
 * NULL if @value does not fit in a packet.
 */
struct packet *packet_encode(const struct packet_header *h, xdrproc_t codec, const void *value,
                             unsigned nfds);
void packet_free(struct packet *p);

/* Decodes all of @n bytes into @out, which is zeroed first; false (and @out freed) if they
 * are not exactly one value. */
bool packet_decode(const uint8_t *body, size_t n, xdrproc_t codec, void *out, size_t size);

/* Adds the FDs that came with @m to the @n in @fds and closes those for which there is no room; how
 * many there are then. */
struct msghdr;
unsigned packet_keep_fds(struct msghdr *m, int fds[PACKET_FDS_MAX], unsigned n);

/* An empty body: no argument or no result. */
typedef struct rpc_none {
    char unused;
} rpc_none;
bool_t xdr_rpc_none(XDR *xdr, rpc_none *value);
