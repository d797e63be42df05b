/* SPDX-License-Identifier: GPL-2.0-or-later */

/* The NBD server's TLS, by GnuTLS. */
#include "host/image/serve_nbd.h"

#include <gnutls/x509.h>
#include <string.h>

struct server_tls {
    const struct tls_creds *creds;
    const char *identity; /* the only peer's distinguished name; NULL: any */
    gnutls_certificate_credentials_t x509;
    gnutls_psk_server_credentials_t psk;
    gnutls_anon_server_credentials_t anon;
};

static bool failed(int r, const char *what, GError **error)
{
    if (r >= 0) {
        return false;
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "%s: %s", what, gnutls_strerror(r));
    return true;
}

static bool load_x509(struct server_tls *t, GError **error)
{
    g_autofree char *ca = g_build_filename(t->creds->dir, "ca-cert.pem", NULL);
    g_autofree char *crl = g_build_filename(t->creds->dir, "ca-crl.pem", NULL);
    g_autofree char *cert = g_build_filename(t->creds->dir, "server-cert.pem", NULL);
    g_autofree char *key = g_build_filename(t->creds->dir, "server-key.pem", NULL);
    if (failed(gnutls_certificate_allocate_credentials(&t->x509), "TLS", error) ||
        failed(gnutls_certificate_set_x509_trust_file(t->x509, ca, GNUTLS_X509_FMT_PEM), ca,
               error) ||
        failed(gnutls_certificate_set_x509_key_file(t->x509, cert, key, GNUTLS_X509_FMT_PEM), cert,
               error)) {
        return false;
    }
    return !g_file_test(crl, G_FILE_TEST_EXISTS) ||
           !failed(gnutls_certificate_set_x509_crl_file(t->x509, crl, GNUTLS_X509_FMT_PEM), crl,
                   error);
}

static bool load_psk(struct server_tls *t, GError **error)
{
    g_autofree char *keys = g_build_filename(t->creds->dir, "keys.psk", NULL);
    if (!g_file_test(keys, G_FILE_TEST_IS_REGULAR)) {
        g_set_error(error, LODGE_ERROR, ENOENT, "%s: no such file", keys);
        return false;
    }
    return !failed(gnutls_psk_allocate_server_credentials(&t->psk), "TLS", error) &&
           !failed(gnutls_psk_set_server_credentials_file(t->psk, keys), keys, error);
}

static bool load(struct server_tls *t, GError **error)
{
    switch (t->creds->kind) {
    case TLS_X509:
        return load_x509(t, error);
    case TLS_PSK:
        return load_psk(t, error);
    case TLS_ANON:
        return !failed(gnutls_anon_allocate_server_credentials(&t->anon), "TLS", error);
    }
    return false;
}

struct server_tls *server_tls_new(const struct tls_creds *creds, const char *identity,
                                  GError **error)
{
    if (!creds->server) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "TLS credentials \"%s\" are a client's: they need endpoint=server", creds->id);
        return NULL;
    }
    struct server_tls *t = g_new0(struct server_tls, 1);
    t->creds = creds;
    t->identity = identity;
    if (!load(t, error)) {
        server_tls_free(t);
        return NULL;
    }
    return t;
}

void server_tls_free(struct server_tls *t)
{
    if (t && t->x509) {
        gnutls_certificate_free_credentials(t->x509);
    }
    if (t && t->psk) {
        gnutls_psk_free_server_credentials(t->psk);
    }
    if (t && t->anon) {
        gnutls_anon_free_server_credentials(t->anon);
    }
    g_free(t);
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

gnutls_session_t server_tls_session(const struct server_tls *t)
{
    const struct tls_creds *c = t->creds;
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
        r = gnutls_credentials_set(tls, GNUTLS_CRD_CERTIFICATE, t->x509);
        gnutls_certificate_server_set_request(tls, c->verify_peer ? GNUTLS_CERT_REQUIRE
                                                                  : GNUTLS_CERT_IGNORE);
    } else if (r >= 0 && c->kind == TLS_PSK) {
        r = gnutls_credentials_set(tls, GNUTLS_CRD_PSK, t->psk);
    } else if (r >= 0) {
        r = gnutls_credentials_set(tls, GNUTLS_CRD_ANON, t->anon);
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

bool server_tls_allows(const struct server_tls *t, gnutls_session_t tls)
{
    const struct tls_creds *c = t->creds;
    unsigned status = 0;
    if (c->kind == TLS_X509 && c->verify_peer &&
        (gnutls_certificate_verify_peers3(tls, NULL, &status) < 0 || status)) {
        return false;
    }
    return !t->identity || is_called(tls, t->identity);
}
