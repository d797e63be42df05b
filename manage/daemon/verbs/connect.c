/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/capabilities.h"
#include "manage/daemon/client.h"
#include "manage/daemon/verb.h"

#include <string.h>
#include <unistd.h>

/* The connection itself: open, who we are, what we can. */

/*
 * What clients take their decisions by: the version of QEMU's interface and of libvirt's that
 * we speak; virt-manager falls back to old defaults below 2.11.
 */
enum { HYPERVISOR_VERSION = 7002022, LIBRARY_VERSION = 9000000 };
enum { OPEN_READ_ONLY = 1 };

/* Numbers of features that a client may ask for. */
static const int features[] = {
    4,  /* migration led by the source */
    6,  /* migration protocol 3 */
    7,  /* protection against changes during a migration */
    8,  /* FD passing */
    9,  /* strings as typed parameters */
    10, /* keepalive */
    11, /* XML for migration */
    12, /* migration of machines that are off */
    13, /* migration with parameters */
    14, /* events by callback id */
    15, /* close callback */
    16, /* net-update with its arguments in the documented order */
};
enum { FEATURE_KEEPALIVE = 10 };

static const char *own_path(void)
{
    return daemon_is_session() ? "/session" : "/system";
}

/* "qemu:///system": scheme, authority, path; an empty name takes whatever there is. */
static bool check_name(const char *name, GError **error)
{
    g_autoptr(GUri) uri = g_uri_parse(name, G_URI_FLAGS_NON_DNS, NULL);
    if (!uri) {
        libvirt_error(error, ERR_INTERNAL, "Unable to parse URI %s", name);
        return false;
    }
    const char *scheme = g_uri_get_scheme(uri), *path = g_uri_get_path(uri);
    if (strcmp(scheme, "qemu") != 0 && strcmp(scheme, "lodge") != 0) {
        libvirt_error(error, ERR_NO_SUPPORT, "no driver for the scheme of URI %s", name);
        return false;
    }
    if (*path && strcmp(path, "/") != 0 && strcmp(path, own_path()) != 0) {
        libvirt_error(error, ERR_INTERNAL, "unexpected QEMU URI path '%s', try qemu://%s", path,
                      own_path());
        return false;
    }
    return true;
}

bool verb_connect_open(struct call *call, const rpc_open_args *args, rpc_none *ret, GError **error)
{
    struct client *c = call_client(call);
    (void)ret;
    if (args->name && **args->name && !check_name(*args->name, error)) {
        return false;
    }
    if (c->opened) {
        libvirt_error(error, ERR_INTERNAL, "connection already open");
        return false;
    }
    c->opened = true;
    c->read_only |= args->flags & OPEN_READ_ONLY;
    return true;
}

bool verb_connect_close(struct call *call, const rpc_none *args, rpc_none *ret, GError **error)
{
    (void)args, (void)ret, (void)error;
    call_client(call)->opened = false;
    return true;
}

bool verb_connect_supports_feature(struct call *call, const rpc_int *args, rpc_int *ret,
                                   GError **error)
{
    (void)error;
    for (unsigned i = 0; i < G_N_ELEMENTS(features); i++) {
        if (features[i] == args->value) {
            ret->value = 1;
        }
    }
    if (args->value == FEATURE_KEEPALIVE) {
        call_client(call)->keepalive = true;
    }
    return true;
}

/*
 * A proxy says for whom it speaks.  Rights were decided when the connection came, so nothing
 * depends on it but the log; only root may say so, as in libvirt.
 */
bool verb_connect_set_identity(struct call *call, const rpc_params_flags *args, rpc_none *ret,
                               GError **error)
{
    static const char *const names[] = {
        "user-name",      "unix-user-id", "group-name",     "unix-group-id",
        "process-id",     "process-time", "sasl-user-name", "x509-distinguished-name",
        "selinux-context"};
    const struct client *c = call_client(call);
    const char *user = "?";
    (void)ret;
    if (c->kind != LISTEN_UNIX || (c->peer.uid != 0 && c->peer.uid != getuid())) {
        libvirt_error(error, ERR_ACCESS_DENIED, "the identity of others is root's to tell");
        return false;
    }
    for (unsigned i = 0; i < args->params.params_len; i++) {
        const rpc_param *p = &args->params.params_val[i];
        bool known = false;
        for (unsigned k = 0; k < G_N_ELEMENTS(names); k++) {
            known |= strcmp(names[k], p->field) == 0;
        }
        if (!known) {
            libvirt_error(error, ERR_INVALID_ARG, "parameter '%s' not supported", p->field);
            return false;
        }
        if (strcmp(p->field, "user-name") == 0 && p->value.type == 7) {
            user = p->value.rpc_value_u.s;
        }
    }
    g_autofree char *shown = g_strescape(user, NULL);
    daemon_log("process %d speaks for user %.100s", c->peer.pid, shown);
    return true;
}

bool verb_connect_get_type(struct call *call, const rpc_none *args, rpc_text *ret, GError **error)
{
    (void)call, (void)args, (void)error;
    ret->text = g_strdup("QEMU");
    return true;
}

bool verb_connect_get_version(struct call *call, const rpc_none *args, rpc_uhyper *ret,
                              GError **error)
{
    (void)call, (void)args, (void)error;
    ret->value = HYPERVISOR_VERSION;
    return true;
}

bool verb_connect_get_lib_version(struct call *call, const rpc_none *args, rpc_uhyper *ret,
                                  GError **error)
{
    (void)call, (void)args, (void)error;
    ret->value = LIBRARY_VERSION;
    return true;
}

bool verb_connect_get_hostname(struct call *call, const rpc_none *args, rpc_text *ret,
                               GError **error)
{
    (void)call, (void)args, (void)error;
    ret->text = g_strdup(g_get_host_name());
    return true;
}

bool verb_connect_get_uri(struct call *call, const rpc_none *args, rpc_text *ret, GError **error)
{
    (void)call, (void)args, (void)error;
    ret->text = g_strconcat("qemu://", own_path(), NULL);
    return true;
}

bool verb_connect_is_secure(struct call *call, const rpc_none *args, rpc_int *ret, GError **error)
{
    (void)args, (void)error;
    ret->value = call_client(call)->kind != LISTEN_TCP;
    return true;
}

bool verb_connect_get_capabilities(struct call *call, const rpc_none *args, rpc_text *ret,
                                   GError **error)
{
    (void)call, (void)args, (void)error;
    ret->text = capabilities_xml();
    return true;
}

bool verb_connect_register_close_callback(struct call *call, const rpc_none *args, rpc_none *ret,
                                          GError **error)
{
    (void)args, (void)ret, (void)error;
    call_client(call)->told_of_end = true;
    return true;
}

bool verb_connect_unregister_close_callback(struct call *call, const rpc_none *args, rpc_none *ret,
                                            GError **error)
{
    (void)args, (void)ret, (void)error;
    call_client(call)->told_of_end = false;
    return true;
}
