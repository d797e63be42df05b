/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/protocol.h"
#include "manage/daemon/client.h"
#include "manage/daemon/login.h"
#include "manage/daemon/verb.h"

/* Authentication: what is asked of this client, and the answers. */

bool verb_auth_list(struct call *call, const rpc_none *args, rpc_auth_list *ret, GError **error)
{
    const struct client *c = call_client(call);
    (void)args, (void)error;
    ret->types.types_val = g_new0(int, 1);
    ret->types.types_len = 1;
    ret->types.types_val[0] = c->authenticated ? PROVE_NOTHING : (int)c->auth;
    return true;
}

/* Whether @c was asked for a proof of this kind, which the module can then look at. */
static bool due(const struct client *c, enum client_auth kind, GError **error)
{
    if (c->authenticated || c->auth != kind) {
        libvirt_error(error, ERR_AUTH_FAILED, "the client was not asked for this");
        return false;
    }
    if (!login) {
        login = module_symbol_of("manage", "manage-login.so", "lodge_login", error);
    }
    return login;
}

bool verb_auth_polkit(struct call *call, const rpc_none *args, rpc_int *ret, GError **error)
{
    struct client *c = call_client(call);
    (void)args;
    if (!due(c, PROVE_POLKIT, error)) {
        return false;
    }
    daemon_unlock();
    bool ok = login->polkit_admits(c->peer.pid, c->peer.uid, c->read_only, error);
    daemon_lock();
    c->authenticated = ok;
    ret->value = ok;
    return ok;
}

/* One at a time for a connection: the library's state is not for two threads. */
static bool begin(struct client *c, GError **error)
{
    if (!due(c, PROVE_SASL, error)) {
        return false;
    }
    if (c->calls > 1) {
        libvirt_error(error, ERR_AUTH_FAILED, "one step of authentication at a time");
        return false;
    }
    return true;
}

bool verb_auth_sasl_init(struct call *call, const rpc_none *args, rpc_text *ret, GError **error)
{
    struct client *c = call_client(call);
    (void)args;
    if (!begin(c, error)) {
        return false;
    }
    if (c->login) {
        login->destroy(c->login);
    }
    c->login = login->create(c->kind == LISTEN_TLS, error);
    ret->text = c->login ? login->mechanisms(c->login, error) : NULL;
    return ret->text;
}

static bool step(struct client *c, const char *mechanism, const char *in, unsigned n, bool nil,
                 rpc_sasl_ret *ret, GError **error)
{
    const char *out = NULL;
    unsigned out_n = 0;
    if (!begin(c, error)) {
        return false;
    }
    if (!c->login) {
        libvirt_error(error, ERR_AUTH_FAILED, "SASL was not begun");
        return false;
    }
    daemon_unlock(); /* a mechanism may ask others */
    enum login_step done = login->step(c->login, mechanism,
                                       nil  ? NULL
                                       : in ? in
                                            : "",
                                       nil ? 0 : n, &out, &out_n, error);
    daemon_lock();
    if (done == LOGIN_FAILED || (done == LOGIN_DONE && !login->user(c->login, error)) ||
        out_n > RPC_SASL_MAX) {
        return false;
    }
    ret->complete = done == LOGIN_DONE;
    ret->nil = !out;
    ret->data.data_val = g_memdup2(out, out_n);
    ret->data.data_len = out_n;
    c->authenticated = done == LOGIN_DONE;
    return true;
}

bool verb_auth_sasl_start(struct call *call, const rpc_sasl_start_args *args, rpc_sasl_ret *ret,
                          GError **error)
{
    return step(call_client(call), args->mech, args->data.data_val, args->data.data_len, args->nil,
                ret, error);
}

bool verb_auth_sasl_step(struct call *call, const rpc_sasl_step_args *args, rpc_sasl_ret *ret,
                         GError **error)
{
    return step(call_client(call), NULL, args->data.data_val, args->data.data_len, args->nil, ret,
                error);
}
