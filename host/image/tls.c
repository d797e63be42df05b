/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * tls: credentials for servers and clients, by GnuTLS.
 */
#include "host/image/tls.h"

#include <gnutls/x509.h>
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

static bool failed(int r, const char *what, GError **error)
{
    if (r >= 0) {
        return false;
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "%s: %s", what, gnutls_strerror(r));
    return true;
}

static bool load_x509(struct tls_creds *c, GError **error)
{
    g_autofree char *ca = g_build_filename(c->dir, "ca-cert.pem", NULL);
    g_autofree char *crl = g_build_filename(c->dir, "ca-crl.pem", NULL);
    g_autofree char *cert = g_build_filename(c->dir, "server-cert.pem", NULL);
    g_autofree char *key = g_build_filename(c->dir, "server-key.pem", NULL);
    if (failed(gnutls_certificate_allocate_credentials(&c->x509), "TLS", error) ||
        failed(gnutls_certificate_set_x509_trust_file(c->x509, ca, GNUTLS_X509_FMT_PEM), ca,
               error) ||
        failed(gnutls_certificate_set_x509_key_file(c->x509, cert, key, GNUTLS_X509_FMT_PEM), cert,
               error)) {
        return false;
    }
    return !g_file_test(crl, G_FILE_TEST_EXISTS) ||
           !failed(gnutls_certificate_set_x509_crl_file(c->x509, crl, GNUTLS_X509_FMT_PEM), crl,
                   error);
}

static bool load_psk(struct tls_creds *c, GError **error)
{
    g_autofree char *keys = g_build_filename(c->dir, "keys.psk", NULL);
    if (!g_file_test(keys, G_FILE_TEST_IS_REGULAR)) {
        g_set_error(error, LODGE_ERROR, ENOENT, "%s: no such file", keys);
        return false;
    }
    return !failed(gnutls_psk_allocate_server_credentials(&c->psk), "TLS", error) &&
           !failed(gnutls_psk_set_server_credentials_file(c->psk, keys), keys, error);
}

static void creds_free(void *data)
{
    struct tls_creds *c = data;
    if (c->x509) {
        gnutls_certificate_free_credentials(c->x509);
    }
    if (c->psk) {
        gnutls_psk_free_server_credentials(c->psk);
    }
    if (c->anon) {
        gnutls_anon_free_server_credentials(c->anon);
    }
    g_free(c->id);
    g_free(c->dir);
    g_free(c->priority);
    g_free(c->username);
    g_free(c);
}

/* A client's files are read by whoever connects. */
static bool load(struct tls_creds *c, GError **error)
{
    if (c->kind != TLS_ANON && !c->dir) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: dir= is missing", types[c->kind]);
        return false;
    }
    if (!c->server) {
        return true;
    }
    switch (c->kind) {
    case TLS_X509:
        return load_x509(c, error);
    case TLS_PSK:
        return load_psk(c, error);
    case TLS_ANON:
        return !failed(gnutls_anon_allocate_server_credentials(&c->anon), "TLS", error);
    }
    return false;
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
        !keyval_bool(kv, "sanity-check", &sanity, error) || !load(c, error)) {
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

/* QEMU's choice: what the system says, and the kinds of key exchange that the kind needs. */
static const char *default_priority(enum tls_kind kind)
{
    static const char *const priorities[] = {
        [TLS_X509] = "NORMAL",
        [TLS_PSK] = "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK",
        [TLS_ANON] = "NORMAL:+ANON-DH:+ANON-ECDH:-VERS-TLS1.3",
    };
    return priorities[kind];
}

gnutls_session_t tls_server_session(const struct tls_creds *c)
{
    gnutls_session_t tls;
    if (gnutls_init(&tls, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0) {
        return NULL;
    }
    g_autofree char *own = NULL;
    if (c->priority && c->kind != TLS_X509) {
        const char *more = strchr(default_priority(c->kind), ':');
        own = g_strconcat(c->priority, more, NULL);
    }
    const char *priority = own ? own : c->priority ? c->priority : default_priority(c->kind);
    int r = gnutls_priority_set_direct(tls, priority, NULL);
    if (r >= 0 && c->kind == TLS_X509) {
        r = gnutls_credentials_set(tls, GNUTLS_CRD_CERTIFICATE, c->x509);
        gnutls_certificate_server_set_request(tls, c->verify_peer ? GNUTLS_CERT_REQUIRE
                                                                  : GNUTLS_CERT_IGNORE);
    } else if (r >= 0 && c->kind == TLS_PSK) {
        r = gnutls_credentials_set(tls, GNUTLS_CRD_PSK, c->psk);
    } else if (r >= 0) {
        r = gnutls_credentials_set(tls, GNUTLS_CRD_ANON, c->anon);
    }
    if (r < 0) {
        gnutls_deinit(tls);
        return NULL;
    }
    return tls;
}

/* The peer's distinguished name is @identity. */
static bool is_called(gnutls_session_t tls, const char *identity)
{
    unsigned n = 0;
    gnutls_x509_crt_t cert;
    gnutls_datum_t dn = {0};
    const gnutls_datum_t *list = gnutls_certificate_get_peers(tls, &n);
    if (!list || !n || gnutls_x509_crt_init(&cert) < 0) {
        return false;
    }
    bool same = gnutls_x509_crt_import(cert, &list[0], GNUTLS_X509_FMT_DER) >= 0 &&
                gnutls_x509_crt_get_dn2(cert, &dn) >= 0 && dn.size == strlen(identity) &&
                !memcmp(dn.data, identity, dn.size);
    gnutls_free(dn.data);
    gnutls_x509_crt_deinit(cert);
    return same;
}

bool tls_peer_allowed(const struct tls_creds *c, gnutls_session_t tls, const char *identity)
{
    unsigned status = 0;
    if (c->kind == TLS_X509 && c->verify_peer &&
        (gnutls_certificate_verify_peers3(tls, NULL, &status) < 0 || status)) {
        return false;
    }
    return !identity || is_called(tls, identity);
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
