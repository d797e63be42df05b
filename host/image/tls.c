/* SPDX-License-Identifier: GPL-2.0-or-later */

/* tls: what -object says of credentials; who talks TLS reads the files. */
#include "host/image/tls.h"

#include <string.h>

static const char *const types[] = {
    [TLS_X509] = "tls-creds-x509",
    [TLS_PSK] = "tls-creds-psk",
    [TLS_ANON] = "tls-creds-anon",
};

struct authz {
    char *id, *identity;
};

static GPtrArray *all_creds, *all_authz;

bool tls_object_known(const char *type)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        if (!strcmp(type, types[i])) {
            return true;
        }
    }
    return !strcmp(type, "authz-simple");
}

const struct tls_creds *tls_creds_find(const char *id)
{
    for (unsigned i = 0; all_creds && i < all_creds->len; i++) {
        struct tls_creds *c = g_ptr_array_index(all_creds, i);
        if (!strcmp(c->id, id)) {
            return c;
        }
    }
    return NULL;
}

bool tls_creds_remove(const char *id)
{
    return all_creds && g_ptr_array_remove(all_creds, (void *)tls_creds_find(id));
}

const char *tls_authz_identity(const char *id)
{
    for (unsigned i = 0; all_authz && i < all_authz->len; i++) {
        struct authz *a = g_ptr_array_index(all_authz, i);
        if (!strcmp(a->id, id)) {
            return a->identity;
        }
    }
    return NULL;
}

static void creds_free(void *data)
{
    struct tls_creds *c = data;
    g_free(c->id);
    g_free(c->dir);
    g_free(c->priority);
    g_free(c->username);
    g_free(c);
}

static bool add_creds(KeyVal *kv, enum tls_kind kind, GError **error)
{
    const char *endpoint = keyval_get(kv, "endpoint");
    bool sanity;
    if (endpoint && strcmp(endpoint, "client") && strcmp(endpoint, "server")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "endpoint=%s: want client or server", endpoint);
        return false;
    }
    struct tls_creds *c = g_new0(struct tls_creds, 1);
    c->kind = kind;
    c->id = g_strdup(keyval_get(kv, "id"));
    c->dir = g_strdup(keyval_get(kv, "dir"));
    c->priority = g_strdup(keyval_get(kv, "priority"));
    c->username = g_strdup(keyval_get(kv, "username"));
    c->server = endpoint && !strcmp(endpoint, "server");
    c->verify_peer = true;
    if (!keyval_bool(kv, "verify-peer", &c->verify_peer, error) ||
        !keyval_bool(kv, "sanity-check", &sanity, error)) {
        creds_free(c);
        return false;
    }
    if (kind != TLS_ANON && !c->dir) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: dir= is missing", types[kind]);
        creds_free(c);
        return false;
    }
    if (!all_creds) {
        all_creds = g_ptr_array_new_with_free_func(creds_free);
    }
    g_ptr_array_add(all_creds, c);
    return true;
}

static bool add_authz(KeyVal *kv, GError **error)
{
    const char *identity = keyval_get(kv, "identity");
    if (!identity) {
        g_set_error(error, LODGE_ERROR, EINVAL, "authz-simple: identity= is missing");
        return false;
    }
    struct authz *a = g_new0(struct authz, 1);
    a->id = g_strdup(keyval_get(kv, "id"));
    a->identity = g_strdup(identity);
    if (!all_authz) {
        all_authz = g_ptr_array_new();
    }
    g_ptr_array_add(all_authz, a);
    return true;
}

bool tls_object_add(const char *type, KeyVal *kv, GError **error)
{
    const char *id = keyval_get(kv, "id");
    if (!id) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: id= is missing", type);
        return false;
    }
    if (tls_creds_find(id) || tls_authz_identity(id)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "id=%s is taken", id);
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        if (!strcmp(type, types[i])) {
            return add_creds(kv, (enum tls_kind)i, error);
        }
    }
    return add_authz(kv, error);
}

json_t *tls_creds_describe(const struct tls_creds *c)
{
    json_t *o = json_object();
    json_object_set_new(o, "qom-type", json_string(types[c->kind]));
    json_object_set_new(o, "verify-peer", json_boolean(c->verify_peer));
    if (c->dir) {
        json_object_set_new(o, "dir", json_string(c->dir));
    }
    if (c->username) {
        json_object_set_new(o, "username", json_string(c->username));
    }
    return o;
}
