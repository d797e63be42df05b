/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"
#include "base/keyval.h"

#include <jansson.h>

/*
 * TLS credentials: -object tls-creds-x509, tls-creds-psk and tls-creds-anon with QEMU's
 * properties and file names (ca-cert.pem, server-cert.pem, server-key.pem, client-*.pem,
 * ca-crl.pem, keys.psk), and authz-simple.  What authz-simple says stays until the process ends.
 */
enum tls_kind { TLS_X509, TLS_PSK, TLS_ANON };

struct tls_creds {
    enum tls_kind kind;
    char *id, *dir, *priority, *username;
    bool server, verify_peer;
};

/* Whether "qom-type" @type is one of ours. */
bool tls_object_known(const char *type);
/* Reads @kv's keys but for qom-type; the caller calls keyval_done(). */
bool tls_object_add(const char *type, KeyVal *kv, GError **error);
const struct tls_creds *tls_creds_find(const char *id); /* NULL: none */
/*
 * False if there are none.  Images that are open have a copy (tls_creds_describe()); whoever holds
 * what tls_creds_find() gave must not let it come to this.
 */
bool tls_creds_remove(const char *id);
/* The distinguished name that -object authz-simple,id=@id lets in. */
const char *tls_authz_identity(const char *id);

/* What a client needs of them, for modules: qom-type, dir, username, verify-peer. */
json_t *tls_creds_describe(const struct tls_creds *creds);
