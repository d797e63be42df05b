/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/dispatch.h"

#include "manage/daemon/client.h"
#include "manage/daemon/verb.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/*
 * From a call's packet to its verb and back: schema/verbs.def as a table.
 */
enum { SHAPE_MAX = 256 }; /* bytes of the largest arguments or result as a C struct */

enum verb_where { INLINE, WORKER };

struct verb {
    const char *name;
    bool (*run)(struct call *call, const void *args, void *ret, GError **error);
    xdrproc_t args, ret;
    uint16_t args_size, ret_size;
    uint8_t may, where, flags_size; /* 0: its arguments have no flags */
    uint16_t flags_at;              /* offset in the arguments */
    uint32_t known;                 /* flags */
    bool present;                   /* some file defines it */
};

/* The typed functions behind one untyped signature. */
#define RUN(name, args, ret)                                                                       \
    static bool run_##name(struct call *call, const void *a, void *r, GError **error)              \
    {                                                                                              \
        G_STATIC_ASSERT(sizeof(args) <= SHAPE_MAX && sizeof(ret) <= SHAPE_MAX);                    \
        return verb_##name(call, a, r, error);                                                     \
    }
#define EVENT(number, name, class, id, message)
#define QEMU_EVENT(number, name, class, id, message)
#define VERB(number, name, args, ret, may, where)      RUN(name, args, ret)
#define QEMU_VERB(number, name, args, ret, may, where) RUN(name, args, ret)
#include "schema/verbs.def"
#undef VERB
#undef QEMU_VERB

#define ROW(number, name, args, ret, may, where, flags)                                            \
    [number] = {#name,                                                                             \
                run_##name,                                                                        \
                (xdrproc_t)xdr_##args,                                                             \
                (xdrproc_t)xdr_##ret,                                                              \
                sizeof(args),                                                                      \
                sizeof(ret),                                                                       \
                MAY_##may,                                                                         \
                where,                                                                             \
                flags},
#define NO_FLAGS           .known = 0
#define FLAGS(args, known) sizeof(((args *)NULL)->flags), offsetof(args, flags), known
static struct verb remote_verbs[REMOTE_PROCEDURES] = {
#define VERB(number, name, args, ret, may, where) ROW(number, name, args, ret, may, where, NO_FLAGS)
#define VERB_FLAGS(number, name, args, ret, may, where, known)                                     \
    ROW(number, name, args, ret, may, where, FLAGS(args, known))
#define QEMU_VERB(number, name, args, ret, may, where)
#include "schema/verbs.def"
#undef VERB
#undef QEMU_VERB
};
static struct verb qemu_verbs[QEMU_PROCEDURES] = {
#define VERB(number, name, args, ret, may, where)
#define QEMU_VERB(number, name, args, ret, may, where)                                             \
    ROW(number, name, args, ret, may, where, NO_FLAGS)
#define QEMU_VERB_FLAGS(number, name, args, ret, may, where, known)                                \
    ROW(number, name, args, ret, may, where, FLAGS(args, known))
#include "schema/verbs.def"
#undef VERB
#undef QEMU_VERB
};

/* What there is no call of, by number; its name for users. */
#define VERB(number, name, args, ret, may, where)
#define QEMU_VERB(number, name, args, ret, may, where)
#undef EVENT
#undef QEMU_EVENT
static const char *const remote_absent[REMOTE_PROCEDURES] = {
#define ABSENT(number, name)                    [number] = (name),
#define EVENT(number, name, class, id, message) [number] = "the event " #name,
#define QEMU_EVENT(number, name, class, id, message)
#include "schema/verbs.def"
#undef EVENT
#undef QEMU_EVENT
};
static const char *const qemu_absent[QEMU_PROCEDURES] = {
#define QEMU_ABSENT(number, name) [number] = (name),
#define EVENT(number, name, class, id, message)
#define QEMU_EVENT(number, name, class, id, message) [number] = "the event " #name,
#include "schema/verbs.def"
};
#undef EVENT
#undef QEMU_EVENT
#undef VERB
#undef QEMU_VERB
#define EVENT(number, name, class, id, message)
#define QEMU_EVENT(number, name, class, id, message)

void dispatch_start(void)
{
#define VERB(number, name, args, ret, may, where)      remote_verbs[number].present = verb_##name;
#define QEMU_VERB(number, name, args, ret, may, where) qemu_verbs[number].present = verb_##name;
#include "schema/verbs.def"
#undef VERB
#undef QEMU_VERB
}

void dispatch_list(void (*each)(const struct verb_row *row, void *data), void *data)
{
    static const struct {
        const struct verb *verbs;
        int count;
        uint32_t program;
    } tables[] = {{remote_verbs, REMOTE_PROCEDURES, PROGRAM_REMOTE},
                  {qemu_verbs, QEMU_PROCEDURES, PROGRAM_QEMU}};
    for (unsigned t = 0; t < G_N_ELEMENTS(tables); t++) {
        for (int i = 0; i < tables[t].count; i++) {
            const struct verb *v = &tables[t].verbs[i];
            if (v->name) {
                struct verb_row row = {tables[t].program, i, v->name, v->may, v->present};
                each(&row, data);
            }
        }
    }
}

union shape {
    max_align_t align;
    char bytes[SHAPE_MAX];
};

struct call {
    struct client *client;
    const struct verb *verb;
    struct packet_header h;
    struct stream *stream;
    unsigned nfds, ngiven;
    int fds[PACKET_FDS_MAX], given[PACKET_FDS_MAX];
    union shape args;
};

bool call_read_only(const struct call *call)
{
    return call->client->read_only;
}

struct client *call_client(struct call *call)
{
    return call->client;
}

int call_take_fd(struct call *call, unsigned i)
{
    return i < call->nfds ? g_steal_fd(&call->fds[i]) : -1;
}

void call_give_fd(struct call *call, int fd)
{
    g_assert(call->ngiven < PACKET_FDS_MAX); /* verbs give one or two */
    call->given[call->ngiven++] = fd;
}

void call_stream(struct call *call, const struct stream_ops *ops, void *data)
{
    call->stream = stream_new(ops, data, -1, NULL);
}

void call_stream_fd(struct call *call, int fd, const char *name)
{
    call->stream = stream_new(NULL, NULL, fd, g_strdup(name));
}

/* The family that an error names, which is a number of libvirt's. */
static int family(const char *name)
{
    static const struct {
        const char *front;
        int domain;
    } families[] = {
        {"network_", 19},
        {"connect_network_", 19},
        {"storage_", 18},
        {"connect_storage_", 18},
        {"node_device_", 22},
        {"secret_", 30},
        {"connect_secret_", 30},
        {"nwfilter_", 33},
        {"auth_", 7},
        {"interface_", 26},
        {"connect_node_device_", 22},
    };
    for (unsigned i = 0; name && i < G_N_ELEMENTS(families); i++) {
        if (g_str_has_prefix(name, families[i].front)) {
            return families[i].domain;
        }
    }
    return 10; /* the driver of domains */
}

struct packet *dispatch_error(const struct packet_header *h, const char *verb, const GError *error)
{
    struct packet_header reply = *h;
    struct error_body body;
    reply.type = h->type == PACKET_STREAM || h->type == PACKET_HOLE ? PACKET_STREAM : PACKET_REPLY;
    reply.status = STATUS_ERROR;
    error_body_make(&body, error, family(verb));
    struct packet *p = packet_encode(&reply, (xdrproc_t)xdr_rpc_error, &body.error, 0);
    error_body_clear(&body);
    return p;
}

static struct packet *reply_of(struct call *call, const void *ret, GError **error)
{
    struct packet_header h = call->h;
    h.type = call->ngiven ? PACKET_REPLY_FDS : PACKET_REPLY;
    h.status = STATUS_OK;
    struct packet *p = packet_encode(&h, call->verb->ret, ret, call->ngiven);
    if (!p) {
        libvirt_error(error, ERR_RPC, "the answer of %s is too large", call->verb->name);
        return NULL;
    }
    if (call->ngiven) {
        p->fds = g_memdup2(call->given, call->ngiven * sizeof(int));
        p->nfds = call->ngiven;
        call->ngiven = 0;
    }
    return p;
}

static bool flags_known(const struct call *call, GError **error)
{
    const struct verb *v = call->verb;
    uint64_t flags = 0; /* of 32 or 64 bits, little-endian */
    memcpy(&flags, call->args.bytes + v->flags_at, v->flags_size);
    if (flags & ~(uint64_t)v->known) {
        libvirt_error(error, ERR_INVALID_ARG, "unsupported flags (0x%" PRIx64 ") in function %s",
                      flags & ~(uint64_t)v->known, v->name);
        return false;
    }
    return true;
}

/* Daemon lock held: runs the verb and queues the answer. */
static void call_run(struct call *call)
{
    const struct verb *v = call->verb;
    union shape ret = {0};
    g_autoptr(GError) error = NULL;
    struct packet *p = NULL;
    bool done = flags_known(call, &error) && v->run(call, &call->args, &ret, &error);
    if (done && call->stream && call->client->streams_count >= STREAMS_MAX) {
        libvirt_error(&error, ERR_RPC, "more than %d streams on one connection", STREAMS_MAX);
    } else if (done) {
        p = reply_of(call, &ret, &error);
    } else if (!error) {
        libvirt_error(&error, ERR_INTERNAL, "%s failed without a reason", v->name);
    }
    xdr_free(v->ret, (char *)&ret);
    bool ok = p;
    client_send(call->client, ok ? p : dispatch_error(&call->h, v->name, error));
    if (call->stream && ok && !call->client->dead) {
        stream_attach(call->client, g_steal_pointer(&call->stream), &call->h);
    }
}

static void call_clear(struct call *call)
{
    xdr_free(call->verb->args, (char *)&call->args);
    for (unsigned i = 0; i < call->nfds; i++) {
        if (call->fds[i] >= 0) {
            close(call->fds[i]);
        }
    }
    for (unsigned i = 0; i < call->ngiven; i++) {
        close(call->given[i]);
    }
    if (call->stream) {
        stream_free_unused(call->stream);
    }
}

/* On a worker thread. */
static void call_work(void *data)
{
    struct call *call = data;
    struct client *c = call->client;
    daemon_lock();
    call_run(call);
    c->calls--;
    client_kick(c);
    daemon_unlock();
    call_clear(call);
    g_free(call);
    client_unref(c);
}

static const struct verb *find(const struct packet_header *h)
{
    const struct verb *v = NULL;
    if (h->program == PROGRAM_REMOTE && h->procedure > 0 && h->procedure < REMOTE_PROCEDURES) {
        v = &remote_verbs[h->procedure];
    } else if (h->program == PROGRAM_QEMU && h->procedure > 0 && h->procedure < QEMU_PROCEDURES) {
        v = &qemu_verbs[h->procedure];
    }
    return v && v->present ? v : NULL;
}

static void no_such_call(const struct packet_header *h, GError **error)
{
    unsigned n = (unsigned)h->procedure;
    const char *name = h->program == PROGRAM_REMOTE && n < REMOTE_PROCEDURES ? remote_absent[n]
                       : h->program == PROGRAM_QEMU && n < QEMU_PROCEDURES   ? qemu_absent[n]
                                                                             : NULL;
    if (name) {
        libvirt_error(error, ERR_NO_SUPPORT, "%s", name);
    } else {
        libvirt_error(error, ERR_NO_SUPPORT, "procedure %d of program 0x%x", h->procedure,
                      h->program);
    }
}

/* May @c make this call now? */
static bool allowed(const struct client *c, const struct packet_header *h, const struct verb *v,
                    GError **error)
{
    if (!c->authenticated && (!v || v->may != MAY_ANYONE)) {
        libvirt_error(error, ERR_AUTH_FAILED, "authentication required");
    } else if (!v) {
        no_such_call(h, error);
    } else if (c->read_only && v->may == MAY_WRITER) {
        libvirt_error(error, ERR_OPERATION_DENIED, "%s", v->name);
    } else {
        return true;
    }
    return false;
}

static void refuse(struct client *c, const struct packet_header *h, const struct verb *v,
                   const GError *error, int *fds, unsigned nfds)
{
    for (unsigned i = 0; i < nfds; i++) {
        close(fds[i]);
    }
    daemon_lock();
    client_send(c, dispatch_error(h, v ? v->name : NULL, error));
    daemon_unlock();
}

bool dispatch_call(struct client *c, const struct packet_header *h, const uint8_t *body, size_t n,
                   int *fds, unsigned nfds)
{
    const struct verb *v = find(h);
    g_autoptr(GError) error = NULL;
    if ((h->type != PACKET_CALL && h->type != PACKET_CALL_FDS) || h->status != STATUS_OK ||
        h->version != 1) {
        return false;
    }
    if (!allowed(c, h, v, &error)) {
        refuse(c, h, v, error, fds, nfds);
        return true;
    }
    struct call on_stack = {.client = c, .verb = v, .h = *h, .nfds = nfds};
    struct call *call = v->where == WORKER ? g_new(struct call, 1) : &on_stack;
    *call = on_stack;
    if (nfds) {
        memcpy(call->fds, fds, nfds * sizeof(int));
    }
    if (!packet_decode(body, n, v->args, &call->args, v->args_size)) {
        memset(&call->args, 0, sizeof(call->args));
        call_clear(call);
        if (call != &on_stack) {
            g_free(call);
        }
        return false;
    }
    daemon_lock();
    if (v->where == WORKER) {
        client_ref(c);
        c->calls++;
        daemon_unlock();
        lane_work(c->lane, call_work, call);
        return true;
    }
    call_run(call);
    daemon_unlock();
    call_clear(call);
    return true;
}
