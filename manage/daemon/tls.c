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
static GSList *retired; /* by a reload; sessions may still use them */

/* GnuTLS names no file in its errors. */
static bool loaded(int code, const char *path, GError **error)
{
    if (code < 0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: %s", path, gnutls_strerror(code));
    }
    return code >= 0;
}

static bool load(gnutls_certificate_credentials_t into, GError **error)
{
    const char *ca = setting("tls", "ca"), *certificate = setting("tls", "certificate");
    const char *key = setting("tls", "key"), *crl = setting("tls", "crl");
    int code = gnutls_certificate_set_x509_trust_file(into, ca, GNUTLS_X509_FMT_PEM);
    if (!loaded(code, ca, error)) {
        return false;
    }
    if (*crl) {
        code = gnutls_certificate_set_x509_crl_file(into, crl, GNUTLS_X509_FMT_PEM);
        if (!loaded(code, crl, error)) {
            return false;
        }
    }
    if (access(key, R_OK) != 0) {
        error_set_errno(error, errno, "%s", key);
        return false;
    }
    code = gnutls_certificate_set_x509_key_file(into, certificate, key, GNUTLS_X509_FMT_PEM);
    return loaded(code, certificate, error);
}

static bool tls_start(GError **error)
{
    gnutls_certificate_credentials_t fresh;
    if (!loaded(gnutls_certificate_allocate_credentials(&fresh), "TLS", error)) {
        return false;
    }
    if (!load(fresh, error)) {
        gnutls_certificate_free_credentials(fresh);
        return false;
    }
    if (credentials) {
        retired = g_slist_prepend(retired, credentials);
    }
    credentials = fresh;
    return true;
}

static void free_credentials(void *old)
{
    gnutls_certificate_free_credentials(old);
}

static void tls_stop(void)
{
    if (credentials) {
        gnutls_certificate_free_credentials(credentials);
        credentials = NULL;
    }
    g_slist_free_full(g_steal_pointer(&retired), free_credentials);
}

static void tls_free(struct tls *t)
{
    if (t) {
        if (t->session) {
            gnutls_deinit(t->session);
        }
        g_free(t->peer);
        g_free(t);
    }
}

static struct tls *tls_new(int fd)
{
    struct tls *t = g_new0(struct tls, 1);
    if (gnutls_init(&t->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0 ||
        gnutls_set_default_priority(t->session) < 0 ||
        gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, credentials) < 0) {
        tls_free(t);
        return NULL;
    }
    gnutls_certificate_server_set_request(t->session, GNUTLS_CERT_REQUIRE);
    gnutls_transport_set_int(t->session, fd);
    return t;
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
static bool verify(struct tls *t, GError **error)
{
    unsigned status = 0;
    int code = gnutls_certificate_verify_peers2(t->session, &status);
    t->peer = peer_name(t->session);
    if (code < 0 || status || !t->peer) {
        g_set_error(error, LODGE_ERROR, EACCES, "the client's certificate is %s",
                    code >= 0 && (status & GNUTLS_CERT_REVOKED) ? "revoked" : "not trusted");
        return false;
    }
    if (!setting_admits("tls", "allow", t->peer)) {
        g_autofree char *shown = g_strescape(t->peer, NULL);
        g_set_error(error, LODGE_ERROR, EACCES, "\"%s\" is not on the list tls.allow", shown);
        return false;
    }
    return true;
}

static enum tls_step tls_handshake(struct tls *t, GError **error)
{
    static const char confirmation = 1;
    int code = GNUTLS_E_SUCCESS;
    if (!t->verified) {
        code = gnutls_handshake(t->session);
        if (code == GNUTLS_E_SUCCESS) {
            t->verified = verify(t, error);
            if (!t->verified) {
                return TLS_FAILED;
            }
        }
    }
    if (t->verified) {
        code = (int)gnutls_record_send(t->session, &confirmation, 1);
    }
    if (code == 1) {
        return TLS_DONE;
    }
    if (gnutls_error_is_fatal(code)) {
        g_set_error(error, LODGE_ERROR, EPROTO, "TLS: %s", gnutls_strerror(code));
        return TLS_FAILED;
    }
    return gnutls_record_get_direction(t->session) ? TLS_WANTS_WRITE : TLS_WANTS_READ;
}

static ssize_t as_errno(ssize_t n)
{
    if (n >= 0) {
        return n;
    }
    errno = n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED ? EAGAIN : EPROTO;
    return n == GNUTLS_E_PREMATURE_TERMINATION ? 0 : -1;
}

static ssize_t tls_receive(struct tls *t, void *to, size_t n)
{
    return as_errno(gnutls_record_recv(t->session, to, n));
}

static ssize_t tls_send(struct tls *t, const void *from, size_t n)
{
    return as_errno(gnutls_record_send(t->session, from, n));
}

static bool tls_pending(struct tls *t)
{
    return gnutls_record_check_pending(t->session) > 0;
}

const struct tls_module lodge_tls = {
    .start = tls_start,
    .stop = tls_stop,
    .create = tls_new,
    .destroy = tls_free,
    .handshake = tls_handshake,
    .receive = tls_receive,
    .send = tls_send,
    .pending = tls_pending,
};
