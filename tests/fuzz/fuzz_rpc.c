/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a client may send: the shapes of every procedure's arguments (decoded, encoded and
 * compared), and packets through a connection's framing.
 */
#include "base/bytes.h"
#include "manage/daemon/client.h"
#include "manage/daemon/daemon.h"
#include "manage/daemon/dispatch.h"
#include "manage/rpc/verbs.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct {
    xdrproc_t codec;
    size_t size;
} shapes[] = {
#define VERB(number, name, args, ret, may, where)                                                  \
    {(xdrproc_t)xdr_##args, sizeof(args)}, {(xdrproc_t)xdr_##ret, sizeof(ret)},
#define QEMU_VERB(number, name, args, ret, may, where)                                             \
    {(xdrproc_t)xdr_##args, sizeof(args)}, {(xdrproc_t)xdr_##ret, sizeof(ret)},
#define EVENT(number, name, class, id, message)      {(xdrproc_t)xdr_##message, sizeof(message)},
#define QEMU_EVENT(number, name, class, id, message) {(xdrproc_t)xdr_##message, sizeof(message)},
#include "schema/verbs.def"
    {(xdrproc_t)xdr_rpc_error, sizeof(rpc_error)},
};

/* In the place of the daemon's: a line for each connection would be too many. */
void daemon_log(const char *fmt, ...)
{
    (void)fmt;
}

/* Whatever decodes is the same after a second way round. */
static void round_trip(unsigned at, const uint8_t *data, size_t n)
{
    union {
        max_align_t align;
        char bytes[512];
    } value, again;
    static const struct packet_header h = {PROGRAM_REMOTE, 1, 1, PACKET_REPLY, 0, 0};
    if (!packet_decode(data, n, shapes[at].codec, &value, shapes[at].size)) {
        return;
    }
    struct packet *p = packet_encode(&h, shapes[at].codec, &value, 0);
    if (!p || !packet_decode(p->data + PACKET_HEAD, p->length - PACKET_HEAD, shapes[at].codec,
                             &again, shapes[at].size)) {
        abort();
    }
    struct packet *q = packet_encode(&h, shapes[at].codec, &again, 0);
    if (q->length != p->length || memcmp(q->data, p->data, p->length) != 0) {
        abort();
    }
    packet_free(p);
    packet_free(q);
    xdr_free(shapes[at].codec, (char *)&value);
    xdr_free(shapes[at].codec, (char *)&again);
}

static void through_connection(const uint8_t *data, size_t n)
{
    int pair[2];
    struct listener from = {.kind = LISTEN_UNIX};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
        abort();
    }
    client_new(pair[0], &from);
    if (send(pair[1], data, n, MSG_NOSIGNAL) > 0) {
        while (g_main_context_iteration(NULL, FALSE)) {
        }
    }
    close(pair[1]);
    while (clients) {
        g_main_context_iteration(NULL, TRUE);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2) {
        return 0;
    }
    unsigned at = (unsigned)(data[0] | data[1] << 8);
    if (at < G_N_ELEMENTS(shapes)) {
        round_trip(at, data + 2, n - 2);
    } else {
        through_connection(data + 2, n - 2);
    }
    return 0;
}
