/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/daemon.h"
#include "manage/rpc/error.h"
#include "manage/rpc/verbs.h"

#include <sys/types.h>

/*
 * A verb: one row of schema/verbs.def and one function
 *
 *     bool verb_NAME(struct call *call, const ARGS *args, RET *ret, GError **error);
 *
 * declared below from the row and defined in any file of manage/daemon/.  It is called with
 * the daemon lock held, on the main loop (INLINE: it must not wait) or on a worker thread
 * (WORKER: it gives the lock up while it waits).  @args is checked against its shape and
 * belongs to the caller; @ret is zeroed before and freed afterwards with xdr_free(), so its
 * strings and arrays come from g_strdup() and g_new(), and no rpc_string in it may stay NULL.
 * False with an error of libvirt_error(); @ret is then thrown away.
 */
struct call;
struct client;

#define VERB_DECLARE(name, args, ret)                                                              \
    bool verb_##name(struct call *call, const args *a, ret *r, GError **error)                     \
        __attribute__((weak));
#define VERB(number, name, args, ret, may, where)      VERB_DECLARE(name, args, ret)
#define QEMU_VERB(number, name, args, ret, may, where) VERB_DECLARE(name, args, ret)
#define EVENT(number, name, class, id, message)
#define QEMU_EVENT(number, name, class, id, message)
#include "schema/verbs.def"
#undef VERB
#undef QEMU_VERB
#undef EVENT
#undef QEMU_EVENT
#undef VERB_DECLARE

/* The connection came by the read-only socket or asked for it: no secrets for it. */
bool call_read_only(const struct call *call);
struct client *call_client(struct call *call);
/* The FD number @i that came with the call, or -1; the caller owns it from then on. */
int call_take_fd(struct call *call, unsigned i);
/* Sends @fd with the reply and closes it. */
void call_give_fd(struct call *call, int fd);

/*
 * A stream that a verb attaches to its call; it begins when the verb has returned true.
 * Functions run on a worker thread without the daemon lock, one at a time, and may wait.
 */
struct stream_ops {
    /* To the client.  How many bytes, 0 at the end, -1 with an error.  Optional. */
    ssize_t (*read)(void *data, void *to, size_t n, GError **error);
    /*
     * How many bytes of hole begin here, 0 if there are data or the end; skips them.  Only for
     * streams that the client wants sparse; optional.
     */
    int64_t (*read_hole)(void *data, GError **error);
    /* From the client; all of it.  Optional. */
    bool (*write)(void *data, const void *from, size_t n, GError **error);
    bool (*write_hole)(void *data, uint64_t n, GError **error);
    /* The client has said that it is done and is told so when this returns.  Optional. */
    bool (*finish)(void *data, GError **error);
    /* Once, at the end of every stream; without finish() before it, it was broken off. */
    void (*free)(void *data);
    /* What the functions above wait for, where that is a file that may never answer: then the
     * stream fails after a while, and .free comes when it has answered after all.  Optional. */
    const char *(*file)(const void *data);
};
void call_stream(struct call *call, const struct stream_ops *ops, void *data);
/* Both ways with a pollable @fd (a console, a socket), which is closed at the end; @name (copied)
 * is for the two below. */
void call_stream_fd(struct call *call, int fd, const char *name);
/* Whether anybody's stream of that name still gives and takes; daemon lock held. */
bool stream_is_open(const char *name);
/* Ends those: their clients see the end of the data, and what they still send goes nowhere. */
void stream_cut(const char *name);

/* ---- Events: called with the daemon lock held. ---- */

/*
 * event_domain_lifecycle(&(rpc_event_domain_int2){.dom = ..., .event = ..., .detail = ...}):
 * to all clients that registered for this event of this object or of all.  .callback is
 * filled in for each.
 */
void event_send(unsigned row, const void *message);
enum event_row {
#define VERB(number, name, args, ret, may, where)
#define QEMU_VERB(number, name, args, ret, may, where)
#define EVENT(number, name, class, id, message)      ROW_##name,
#define QEMU_EVENT(number, name, class, id, message) ROW_qemu_##name,
#include "schema/verbs.def"
#undef VERB
#undef QEMU_VERB
#undef EVENT
#undef QEMU_EVENT
    EVENT_ROWS,
};
#define VERB(number, name, args, ret, may, where)
#define QEMU_VERB(number, name, args, ret, may, where)
#define EVENT(number, name, class, id, message)                                                    \
    static inline void event_##name(const message *m)                                              \
    {                                                                                              \
        event_send(ROW_##name, m);                                                                 \
    }
#define QEMU_EVENT(number, name, class, id, message)                                               \
    static inline void event_qemu_##name(const message *m)                                         \
    {                                                                                              \
        event_send(ROW_qemu_##name, m);                                                            \
    }
#include "schema/verbs.def"
#undef VERB
#undef QEMU_VERB
#undef EVENT
#undef QEMU_EVENT
