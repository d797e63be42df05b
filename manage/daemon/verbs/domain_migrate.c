/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The steps of a migration as clients call them, with named parameters and with plain ones. */
#include "manage/daemon/migrate.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- parameters --- */

typedef struct move Move;
static void move_clear(Move *w)
{
    if (w->disks) {
        g_ptr_array_unref(w->disks);
    }
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Move, move_clear)

static const struct {
    const char *name;
    uint16_t offset;
    bool number;
} known[] = {
    {"destination_xml", offsetof(struct move, xml), false},
    {"persistent_xml", offsetof(struct move, lasting), false},
    {"destination_name", offsetof(struct move, name), false},
    {"migrate_uri", offsetof(struct move, uri), false},
    {"listen_address", offsetof(struct move, listen), false},
    {"bandwidth", offsetof(struct move, bandwidth), true},
};
enum { TYPE_INT = 1, TYPE_ULLONG = 4, TYPE_TEXT = 7 };

static bool read_param(struct move *w, const rpc_param *p, GError **error)
{
    if (strcmp(p->field, "migrate_disks") == 0 && p->value.type == TYPE_TEXT) {
        w->disks = w->disks ? w->disks : g_ptr_array_new();
        g_ptr_array_add(w->disks, p->value.rpc_value_u.s);
        return true;
    }
    if (strcmp(p->field, "disks_port") == 0 && p->value.type == TYPE_INT) {
        w->disks_port = p->value.rpc_value_u.i;
        if (w->disks_port < 0 || w->disks_port > 65535) {
            libvirt_error(error, ERR_INVALID_ARG, "port %d for disks", w->disks_port);
            return false;
        }
        return true;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(known); i++) {
        void *at = (char *)w + known[i].offset;
        if (strcmp(p->field, known[i].name) != 0) {
            continue;
        }
        if (p->value.type != (known[i].number ? TYPE_ULLONG : TYPE_TEXT)) {
            libvirt_error(error, ERR_INVALID_ARG, "parameter '%s' has another type", p->field);
            return false;
        }
        if (known[i].number) {
            *(uint64_t *)at = p->value.rpc_value_u.ul;
        } else {
            *(const char **)at = p->value.rpc_value_u.s;
        }
        return true;
    }
    libvirt_error(error, ERR_INVALID_ARG, "parameter '%s' is not supported", p->field);
    return false;
}

static bool read_params(struct move *w, const rpc_param *params, unsigned n, unsigned flags,
                        GError **error)
{
    *w = (struct move){.flags = flags};
    for (unsigned i = 0; i < n; i++) {
        if (!read_param(w, &params[i], error)) {
            return false;
        }
    }
    return true;
}

static struct move plain(uint64_t flags, const rpc_maybe_string name, uint64_t bandwidth)
{
    return (struct move){.flags = (unsigned)flags | (flags >> 32 ? 1u << 31 : 0),
                         .name = name ? *name : NULL,
                         .bandwidth = bandwidth};
}

#define PARAMS(a)     (a)->params.params_val, (a)->params.params_len
#define COOKIE(a)     ((struct move_cookie){(a)->cookie.cookie_val, (a)->cookie.cookie_len})
#define TEXT_OF(word) ((word) ? *(word) : NULL)

static void give(char **val, u_int *len, char *text)
{
    *val = text;
    *len = text ? (u_int)strlen(text) : 0;
}
#define GIVE_COOKIE(r, text) give(&(r)->cookie.cookie_val, &(r)->cookie.cookie_len, text)

static rpc_maybe_string maybe(char *text)
{
    rpc_maybe_string m = text ? g_new(char *, 1) : NULL;
    if (m) {
        *m = text;
    }
    return m;
}

/* --- begin --- */

static bool begin(struct call *call, const rpc_domain *dom, const struct move *w,
                  rpc_begin3_ret *ret, GError **error)
{
    char *cookie = NULL;
    bool ok = move_begin(dom, w, call_client(call), &ret->xml, &cookie, error);
    GIVE_COOKIE(ret, cookie);
    return ok;
}

bool verb_domain_migrate_begin3_params(struct call *call, const rpc_domain_params_flags *args,
                                       rpc_begin3_ret *ret, GError **error)
{
    g_auto(Move) w = {0};
    return read_params(&w, PARAMS(args), args->flags, error) &&
           begin(call, &args->dom, &w, ret, error);
}

bool verb_domain_migrate_begin3(struct call *call, const rpc_begin3_plain *args,
                                rpc_begin3_ret *ret, GError **error)
{
    struct move w = plain(args->flags, args->dname, args->bandwidth);
    w.xml = TEXT_OF(args->xml);
    return begin(call, &args->dom, &w, ret, error);
}

/* --- prepare --- */

static bool prepare(struct call *call, const struct move *w, struct move_cookie in,
                    rpc_prepare3_ret *ret, GError **error)
{
    char *uri = NULL, *cookie = NULL;
    bool ok = move_prepare(w, in, call_client(call), -1, &uri, &cookie, error);
    ret->uri = maybe(uri);
    GIVE_COOKIE(ret, cookie);
    return ok;
}

bool verb_domain_migrate_prepare3_params(struct call *call, const rpc_prepare3_args *args,
                                         rpc_prepare3_ret *ret, GError **error)
{
    g_auto(Move) w = {0};
    return read_params(&w, PARAMS(args), args->flags, error) &&
           prepare(call, &w, COOKIE(args), ret, error);
}

bool verb_domain_migrate_prepare3(struct call *call, const rpc_prepare3_plain *args,
                                  rpc_prepare3_ret *ret, GError **error)
{
    struct move w = plain(args->flags, args->dname, args->bandwidth);
    w.xml = args->xml;
    w.uri = TEXT_OF(args->uri);
    return prepare(call, &w, COOKIE(args), ret, error);
}

/* The state comes as this call's stream. */
static bool tunnel_write(void *data, const void *from, size_t n, GError **error)
{
    int fd = GPOINTER_TO_INT(data);
    for (const char *at = from; n;) {
        ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) {
            libvirt_error(error, ERR_OPERATION_FAILED, "the machine takes no more of its state: %s",
                          g_strerror(errno));
            return false;
        }
        at += MAX(sent, 0);
        n -= (size_t)MAX(sent, 0);
    }
    return true;
}

static bool tunnel_finish(void *data, GError **error)
{
    (void)error;
    shutdown(GPOINTER_TO_INT(data), SHUT_WR);
    return true;
}

static void tunnel_free(void *data)
{
    close(GPOINTER_TO_INT(data));
}

bool verb_domain_migrate_prepare_tunnel3_params(struct call *call, const rpc_prepare3_args *args,
                                                rpc_blob *ret, GError **error)
{
    static const struct stream_ops ops = {
        .write = tunnel_write, .finish = tunnel_finish, .free = tunnel_free};
    g_auto(Move) w = {0};
    int pair[2];
    if (!read_params(&w, PARAMS(args), args->flags, error)) {
        return false;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        libvirt_error(error, ERR_SYSTEM, "socketpair: %s", g_strerror(errno));
        return false;
    }
    char *uri = NULL, *cookie = NULL;
    (void)ret;
    bool ok = move_prepare(&w, COOKIE(args), call_client(call), pair[1], &uri, &cookie, error);
    close(pair[1]);
    g_free(uri);
    g_free(cookie);
    if (!ok) {
        close(pair[0]);
        return false;
    }
    call_stream(call, &ops, GINT_TO_POINTER(pair[0]));
    return true;
}

/* --- perform --- */

static bool perform(const rpc_domain *dom, const char *peer, const struct move *w,
                    struct move_cookie in, rpc_blob *ret, GError **error)
{
    char *cookie = NULL;
    if (w->flags & MOVE_PEER2PEER) {
        if (!peer) {
            libvirt_error(error, ERR_INVALID_ARG, "the destination's connection is missing");
            return false;
        }
        return move_to_peer(dom, peer, w, error);
    }
    bool ok = move_perform(dom, w, in, -1, &cookie, error);
    give(&ret->data.data_val, &ret->data.data_len, cookie);
    return ok;
}

bool verb_domain_migrate_perform3_params(struct call *call, const rpc_perform3_args *args,
                                         rpc_blob *ret, GError **error)
{
    (void)call;
    g_auto(Move) w = {0};
    return read_params(&w, PARAMS(args), args->flags, error) &&
           perform(&args->dom, TEXT_OF(args->uri), &w, COOKIE(args), ret, error);
}

bool verb_domain_migrate_perform3(struct call *call, const rpc_perform3_plain *args, rpc_blob *ret,
                                  GError **error)
{
    (void)call;
    struct move w = plain(args->flags, args->dname, args->bandwidth);
    w.xml = TEXT_OF(args->xml);
    w.uri = TEXT_OF(args->uri);
    return perform(&args->dom, TEXT_OF(args->peer), &w, COOKIE(args), ret, error);
}

/* --- finish and confirm --- */

bool verb_domain_migrate_finish3_params(struct call *call, const rpc_finish3_args *args,
                                        rpc_finish3_ret *ret, GError **error)
{
    (void)call;
    g_auto(Move) w = {0};
    return read_params(&w, PARAMS(args), args->flags, error) &&
           move_finish(&w, COOKIE(args), args->cancelled, &ret->dom, error);
}

bool verb_domain_migrate_finish3(struct call *call, const rpc_finish3_plain *args,
                                 rpc_finish3_ret *ret, GError **error)
{
    (void)call;
    char *name = args->dname;
    struct move w = plain(args->flags, &name, 0);
    return move_finish(&w, COOKIE(args), args->cancelled, &ret->dom, error);
}

bool verb_domain_migrate_confirm3_params(struct call *call, const rpc_confirm3_args *args,
                                         rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    g_auto(Move) w = {0};
    return read_params(&w, PARAMS(args), args->flags, error) &&
           move_confirm(&args->dom, &w, args->cancelled, error);
}

bool verb_domain_migrate_confirm3(struct call *call, const rpc_confirm3_plain *args, rpc_none *ret,
                                  GError **error)
{
    (void)call, (void)ret;
    struct move w = plain(args->flags, NULL, 0);
    return move_confirm(&args->dom, &w, args->cancelled, error);
}

/* --- bounds --- */

enum { SPEED_POSTCOPY = 1 };
static const uint64_t no_bound = INT64_MAX >> 20; /* MiB/s, as libvirt says it */

static bool bound(uint64_t mib, const char *name, const rpc_domain *dom, GError **error)
{
    g_autoptr(Domain) d = domain_get(dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    return m && qmp_do(m->qmp, error, "migrate-set-parameters", "{s:I}", name, (json_int_t)mib);
}

bool verb_domain_migrate_set_max_speed(struct call *call, const rpc_domain_uhyper_flags *args,
                                       rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d || !domain_check_active(d, error)) {
        return false;
    }
    if (args->flags & SPEED_POSTCOPY) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED, "post-copy is not supported");
        return false;
    }
    if (args->value > no_bound) {
        libvirt_error(error, ERR_INVALID_ARG, "bandwidth must be less than %lu",
                      (unsigned long)no_bound + 1);
        return false;
    }
    uint64_t mib = args->value == no_bound ? 0 : args->value;
    d->machine->move.speed = mib;
    return bound(mib << 20, "max-bandwidth", &args->dom, error);
}

bool verb_domain_migrate_get_max_speed(struct call *call, const rpc_domain_flags *args,
                                       rpc_uhyper *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d) {
        return false;
    }
    if (args->flags & SPEED_POSTCOPY) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED, "post-copy is not supported");
        return false;
    }
    uint64_t speed = domain_active(d) ? d->machine->move.speed : 0;
    ret->value = speed ? speed : no_bound;
    return true;
}

bool verb_domain_migrate_set_max_downtime(struct call *call, const rpc_domain_uhyper_flags *args,
                                          rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    if (args->value > INT64_MAX) {
        libvirt_error(error, ERR_INVALID_ARG, "downtime of %lu ms", (unsigned long)args->value);
        return false;
    }
    return bound(args->value, "downtime-limit", &args->dom, error);
}

bool verb_domain_migrate_get_max_downtime(struct call *call, const rpc_domain_flags *args,
                                          rpc_uhyper *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    g_autoptr(json_t) all =
        qmp_run(m->qmp, "query-migrate-parameters", NULL, QMP_TIMEOUT_MS, error);
    ret->value = (uint64_t)json_integer_value(json_object_get(all, "downtime-limit"));
    return all != NULL;
}

/* Machines are not moved in that way: the flag that asks for it is refused when a migration begins.
 */
bool verb_domain_migrate_start_post_copy(struct call *call, const rpc_domain_flags *args,
                                         rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (d && domain_check_active(d, error)) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "post-copy can only be started while a migration that was begun with "
                      "VIR_MIGRATE_POSTCOPY is in progress");
    }
    return false;
}
