/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/tls.h"

#include "base/error.h"
#include "manage/daemon/settings.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <unistd.h>

struct tls {
    gnutls_session_t session;
    bool verified;
    char *peer;
};

static gnutls_certificate_credentials_t credentials;

/* GnuTLS names no file in its errors. */
static bool loaded(int code, const char *path, GError **error)
{
    if (code < 0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: %s", path, gnutls_strerror(code));
    }
    return code >= 0;
}

bool tls_start(GError **error)
{
    const char *ca = setting("tls", "ca"), *certificate = setting("tls", "certificate");
    const char *key = setting("tls", "key");
    int code = gnutls_certificate_allocate_credentials(&credentials);
    if (!loaded(code, "TLS", error)) {
        return false;
    }
    code = gnutls_certificate_set_x509_trust_file(credentials, ca, GNUTLS_X509_FMT_PEM);
    if (!loaded(code, ca, error)) {
        return false;
    }
    if (access(key, R_OK) != 0) {
        error_set_errno(error, errno, "%s", key);
        return false;
    }
    code = gnutls_certificate_set_x509_key_file(credentials, certificate, key, GNUTLS_X509_FMT_PEM);
    return loaded(code, certificate, error);
}

void tls_stop(void)
{
    if (credentials) {
        gnutls_certificate_free_credentials(credentials);
        credentials = NULL;
    }
}

struct tls *tls_new(int fd)
{
    struct tls *tls = g_new0(struct tls, 1);
    if (gnutls_init(&tls->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0 ||
        gnutls_set_default_priority(tls->session) < 0 ||
        gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, credentials) < 0) {
        tls_free(tls);
        return NULL;
    }
    gnutls_certificate_server_set_request(tls->session, GNUTLS_CERT_REQUIRE);
    gnutls_transport_set_int(tls->session, fd);
    return tls;
}

void tls_free(struct tls *tls)
{
    if (tls) {
        if (tls->session) {
            gnutls_deinit(tls->session);
        }
        g_free(tls->peer);
        g_free(tls);
    }
}

const char *tls_peer(const struct tls *tls)
{
    return tls->peer;
}

static char *peer_name(gnutls_session_t session)
{
    unsigned n = 0;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(session, &n);
    gnutls_x509_crt_t certificate;
    char *name = NULL;
    if (!n || gnutls_x509_crt_init(&certificate) < 0) {
        return NULL;
    }
    gnutls_datum_t dn = {0};
    if (gnutls_x509_crt_import(certificate, &list[0], GNUTLS_X509_FMT_DER) >= 0 &&
        gnutls_x509_crt_get_dn2(certificate, &dn) >= 0) {
        name = g_strndup((const char *)dn.data, dn.size);
        gnutls_free(dn.data);
    }
    gnutls_x509_crt_deinit(certificate);
    return name;
}

/* The certificate is ours and on the list. */
static bool verify(struct tls *tls, GError **error)
{
    unsigned status = 0;
    int code = gnutls_certificate_verify_peers2(tls->session, &status);
    tls->peer = peer_name(tls->session);
    if (code < 0 || status || !tls->peer) {
        g_set_error(error, LODGE_ERROR, EACCES, "the client's certificate is not trusted");
        return false;
    }
    if (!setting_admits("tls", "allow", tls->peer)) {
        g_autofree char *shown = g_strescape(tls->peer, NULL);
        g_set_error(error, LODGE_ERROR, EACCES, "\"%s\" is not on the list tls.allow", shown);
        return false;
    }
    return true;
}

enum tls_step tls_handshake(struct tls *tls, GError **error)
{
    static const char confirmation = 1;
    int code;
    if (!tls->verified) {
        code = gnutls_handshake(tls->session);
        if (code == GNUTLS_E_SUCCESS) {
            tls->verified = verify(tls, error);
            if (!tls->verified) {
                return TLS_FAILED;
            }
        }
    }
    if (tls->verified) {
        code = (int)gnutls_record_send(tls->session, &confirmation, 1);
    }
    if (code == 1) {
        return TLS_DONE;
    }
    if (gnutls_error_is_fatal(code)) {
        g_set_error(error, LODGE_ERROR, EPROTO, "TLS: %s", gnutls_strerror(code));
        return TLS_FAILED;
    }
    return gnutls_record_get_direction(tls->session) ? TLS_WANTS_WRITE : TLS_WANTS_READ;
}

static ssize_t as_errno(ssize_t n)
{
    if (n >= 0) {
        return n;
    }
    errno = n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED ? EAGAIN : EPROTO;
    return n == GNUTLS_E_PREMATURE_TERMINATION ? 0 : -1;
}

ssize_t tls_receive(struct tls *tls, void *to, size_t n)
{
    return as_errno(gnutls_record_recv(tls->session, to, n));
}

ssize_t tls_send(struct tls *tls, const void *from, size_t n)
{
    return as_errno(gnutls_record_send(tls->session, from, n));
}

bool tls_pending(struct tls *tls)
{
    return gnutls_record_check_pending(tls->session) > 0;
}
