/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Peer to peer: the source leads the migration, as a client of the destination's lodged.  With
 * a tunnel the state goes through that connection too, as a stream.
 */
#include "manage/daemon/migrate.h"

#include "base/util.h"
#include "manage/daemon/params.h"
#include "manage/rpc/connect.h"

#include <string.h>
#include <sys/socket.h>

enum { FEATURE_PARAMS = 13, PEER_SECONDS = 300, PIECE = 256 << 10 };

struct peer {
    Rpc *rpc;
    const struct move *wish;
    rpc_domain dom;
    const char *name; /* at the destination */
    char *xml, *uri;  /* from begin; from prepare */
    char *cookie;     /* of the last step here */
    char *there;      /* of prepare; NULL: none */
    unsigned flags;   /* for the destination */
    bool performed;   /* the state has left, if perhaps it did not arrive */
};

static rpc_param *make_params(const struct peer *p, bool with_xml, u_int *n)
{
    Params *all = params_new();
    params_text(all, "destination_name", p->name);
    if (with_xml) {
        params_text(all, "destination_xml", p->xml);
    }
    if (p->wish->uri) {
        params_text(all, "migrate_uri", p->wish->uri);
    }
    for (unsigned i = 0; p->wish->disks && i < p->wish->disks->len; i++) {
        params_text(all, "migrate_disks", p->wish->disks->pdata[i]);
    }
    if (p->wish->disks_port) {
        params_int(all, "disks_port", p->wish->disks_port);
    }
    if (p->wish->listen) {
        params_text(all, "listen_address", p->wish->listen);
    }
    *n = all->len;
    return (rpc_param *)(void *)g_array_free(all, FALSE);
}

static bool has_params(struct peer *p, GError **error)
{
    rpc_int feature = {FEATURE_PARAMS}, has = {0};
    if (!ask_connect_supports_feature(p->rpc, &feature, &has, error)) {
        return false;
    }
    if (!has.value) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "the destination does not take migrations with parameters");
    }
    return has.value;
}

/* Without the lock. */
static bool prepare(struct peer *p, GError **error)
{
    bool tunnel = p->flags & MOVE_TUNNELLED;
    rpc_prepare3_args args = {.flags = p->flags};
    args.cookie.cookie_val = p->cookie;
    args.cookie.cookie_len = (u_int)strlen(p->cookie);
    args.params.params_val = make_params(p, true, &args.params.params_len);
    rpc_prepare3_ret ret = {0};
    rpc_blob blob = {0};
    bool ok = tunnel ? ask_domain_migrate_prepare_tunnel3_params(p->rpc, &args, &blob, error)
                     : ask_domain_migrate_prepare3_params(p->rpc, &args, &ret, error);
    args.cookie.cookie_val = NULL;
    args.cookie.cookie_len = 0;
    xdr_free((xdrproc_t)xdr_rpc_prepare3_args, (char *)&args);
    if (ok) {
        p->uri = g_strdup(ret.uri ? *ret.uri : NULL);
        if (ret.cookie.cookie_len) { /* disks: where they are to go */
            p->there = g_strndup(ret.cookie.cookie_val, ret.cookie.cookie_len);
        }
        xdr_free((xdrproc_t)xdr_rpc_prepare3_ret, (char *)&ret);
        xdr_free((xdrproc_t)xdr_rpc_blob, (char *)&blob);
    }
    return ok;
}

/* Without the lock.  Whether the machine runs there. */
static bool finish(struct peer *p, bool cancelled, GError **error)
{
    rpc_finish3_args args = {.flags = p->flags, .cancelled = cancelled};
    const char *cookie = p->cookie ? p->cookie : "";
    args.cookie.cookie_val = g_strdup(cookie);
    args.cookie.cookie_len = (u_int)strlen(cookie);
    args.params.params_val = make_params(p, false, &args.params.params_len);
    rpc_finish3_ret ret = {0};
    bool ok = ask_domain_migrate_finish3_params(p->rpc, &args, &ret, error);
    xdr_free((xdrproc_t)xdr_rpc_finish3_args, (char *)&args);
    if (ok) {
        xdr_free((xdrproc_t)xdr_rpc_finish3_ret, (char *)&ret);
    }
    return ok;
}

/* --- the tunnel --- */

struct tunnel {
    Rpc *rpc;
    int from;
    bool over; /* daemon lock */
    GError *error;
};

/* On a worker, which alone uses the connection meanwhile. */
static void pump(void *data)
{
    struct tunnel *t = data;
    g_autofree char *piece = g_malloc(PIECE);
    ssize_t n;
    while ((n = read(t->from, piece, PIECE)) > 0) {
        if (!rpc_stream_send(t->rpc, piece, (size_t)n, &t->error)) {
            break;
        }
    }
    shutdown(t->from, SHUT_RDWR);
    if (!t->error) {
        rpc_stream_finish(t->rpc, &t->error);
    }
    daemon_lock();
    t->over = true;
    daemon_wake();
    daemon_unlock();
}

static bool perform_through(struct peer *p, const struct move *w, char **cookie, GError **error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        libvirt_error(error, ERR_SYSTEM, "socketpair: %s", g_strerror(errno));
        return false;
    }
    struct tunnel t = {.rpc = p->rpc, .from = pair[0]};
    daemon_worker(pump, &t);
    bool ok = move_perform(&p->dom, w, (struct move_cookie){0}, pair[1], cookie, error);
    close(pair[1]);
    p->performed = ok;
    while (!t.over) {
        daemon_wait(g_get_monotonic_time() + G_USEC_PER_SEC);
    }
    close(pair[0]);
    if (ok && t.error) {
        g_propagate_error(error, g_steal_pointer(&t.error));
        ok = false;
    }
    g_clear_error(&t.error);
    return ok;
}

/* --- all steps --- */

static bool perform(struct peer *p, GError **error)
{
    struct move here = *p->wish;
    char *cookie = NULL;
    here.xml = NULL;
    here.uri = p->uri;
    struct move_cookie in = {p->there, p->there ? strlen(p->there) : 0};
    bool ok = p->flags & MOVE_OFFLINE     ? true
              : p->flags & MOVE_TUNNELLED ? perform_through(p, &here, &cookie, error)
                                          : move_perform(&p->dom, &here, in, -1, &cookie, error);
    if (cookie || !ok) {
        g_free(p->cookie);
        p->cookie = cookie;
    }
    return ok;
}

/* The lock is held again after it. */
static bool run_steps(struct peer *p, GError **error)
{
    g_autoptr(GError) why = NULL;
    daemon_unlock();
    bool prepared = prepare(p, error);
    daemon_lock();
    if (!prepared) {
        move_confirm(&p->dom, p->wish, true, NULL);
        return false;
    }
    bool sent = perform(p, error);
    daemon_unlock();
    bool there = finish(p, !sent, &why);
    daemon_lock();
    if (!sent) {
        if (p->performed) { /* else it is over here */
            move_confirm(&p->dom, p->wish, true, NULL);
        }
        return false;
    }
    bool unknown = !there && (p->flags & MOVE_TUNNELLED) && why->code == ERR_RPC;
    if (!there) {
        g_propagate_error(error, g_steal_pointer(&why));
    }
    if (unknown) {
        move_unsettled(&p->dom);
        return false;
    }
    return move_confirm(&p->dom, p->wish, !there, there ? error : NULL) && there;
}

bool move_to_peer(const rpc_domain *named, const char *uri, const struct move *w, GError **error)
{
    struct move wish = *w;
    g_autoptr(Domain) d = domain_get(named, error);
    if (!d) {
        return false;
    }
    wish.flags |= MOVE_CHANGE_PROTECTION;
    struct peer p = {.wish = &wish, .dom = *named, .name = w->name ? w->name : named->name};
    p.flags = w->flags & ~(unsigned)(MOVE_CHANGE_PROTECTION | MOVE_ABORT_ON_ERROR);
    p.flags |= d->state == STATE_PAUSED ? MOVE_PAUSED : 0;
    g_autofree char *peer_uri = g_strdup(uri);
    daemon_unlock();
    p.rpc = connect_to(peer_uri, false, error);
    if (p.rpc) {
        rpc_patience(p.rpc, PEER_SECONDS);
    }
    bool ok = p.rpc && has_params(&p, error);
    daemon_lock();
    ok = ok && move_begin(named, &wish, NULL, &p.xml, &p.cookie, error) && run_steps(&p, error);
    rpc_free(p.rpc);
    g_free(p.xml);
    g_free(p.uri);
    g_free(p.cookie);
    g_free(p.there);
    return ok;
}
