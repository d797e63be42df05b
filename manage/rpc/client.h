/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/rpc/error.h"
#include "manage/rpc/verbs.h"

#include <sys/types.h>

/*
 * The client's side: one thread, one call at a time, at most one stream.
 *
 *     g_autoptr(Rpc) rpc = rpc_connect(path, &error);
 *     rpc_open(rpc, "qemu:///system", 0, &error);
 *     rpc_text args = {"name"};
 *     rpc_domain_ret ret;
 *     if (ask_domain_lookup_by_name(rpc, &args, &ret, &error)) {
 *         ... ret.dom ...
 *         xdr_free((xdrproc_t)xdr_rpc_domain_ret, (char *)&ret);
 *     }
 */
typedef struct rpc Rpc;

/* To the UNIX socket @path. */
Rpc *rpc_connect(const char *path, GError **error);
/* Over @fd (what ssh's other end is), which is taken over. */
Rpc *rpc_new(int fd);
void rpc_free(Rpc *rpc);
/* From now on a daemon that says nothing for so long while somebody waits counts as lost. */
void rpc_patience(Rpc *rpc, unsigned seconds);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Rpc, rpc_free)

/* Asks how to authenticate (only "not at all" is spoken here) and opens @uri. */
bool rpc_open(Rpc *rpc, const char *uri, bool read_only, GError **error);

/* One call and its answer; @ret is the caller's to xdr_free() after true. */
bool rpc_ask(Rpc *rpc, uint32_t program, int procedure, xdrproc_t args_codec, const void *args,
             xdrproc_t ret_codec, void *ret, size_t ret_size, GError **error);
/* The FD number @i that came with the last answer, or -1; the caller owns it. */
int rpc_take_fd(Rpc *rpc, unsigned i);

/* ask_NAME(): one for each row of schema/verbs.def. */
#define ASK(program, number, name, args, ret)                                                      \
    static inline bool ask_##name(Rpc *rpc, const args *a, ret *r, GError **error)                 \
    {                                                                                              \
        return rpc_ask(rpc, program, number, (xdrproc_t)xdr_##args, a, (xdrproc_t)xdr_##ret, r,    \
                       sizeof(ret), error);                                                        \
    }
#define VERB(number, name, args, ret, may, where)      ASK(PROGRAM_REMOTE, number, name, args, ret)
#define QEMU_VERB(number, name, args, ret, may, where) ASK(PROGRAM_QEMU, number, name, args, ret)
#define EVENT(number, name, class, id, message)
#define QEMU_EVENT(number, name, class, id, message)
#include "schema/verbs.def"
#undef VERB
#undef QEMU_VERB
#undef EVENT
#undef QEMU_EVENT
#undef ASK

/* Called for each event packet, from inside whatever function reads; decodes with packet_decode().
 */
typedef void rpc_event_fn(uint32_t program, int procedure, const uint8_t *body, size_t n,
                          void *data);
void rpc_on_event(Rpc *rpc, rpc_event_fn *fn, void *data);
/* Handles what comes within @timeout_ms (-1: for ever).  False if the connection is lost. */
bool rpc_wait(Rpc *rpc, int timeout_ms, GError **error);
/* To poll together with other descriptors; rpc_wait(rpc, 0) then handles what is there. */
int rpc_fd(const Rpc *rpc);

/* ---- The stream of the last call that opened one. ---- */
bool rpc_stream_send(Rpc *rpc, const void *data, size_t n, GError **error);
bool rpc_stream_send_hole(Rpc *rpc, uint64_t n, GError **error);
/*
 * How many bytes, waiting for at least one; 0 at the end; -1 with an error.  If @hole is not
 * NULL and a hole comes, it is set to its length and 0 is returned.
 */
ssize_t rpc_stream_receive(Rpc *rpc, void *to, size_t n, uint64_t *hole, GError **error);
/* Whether rpc_stream_receive() would return at once. */
bool rpc_stream_ready(const Rpc *rpc);
/* All was sent, or the end was read; true when the daemon says that it is done too. */
bool rpc_stream_finish(Rpc *rpc, GError **error);
bool rpc_stream_abort(Rpc *rpc, GError **error);
