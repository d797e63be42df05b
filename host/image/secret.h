/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/keyval.h"

#include <stddef.h>
#include <stdint.h>

/*
 * Passphrases and keys by name: -object secret,id=ID,data=TEXT|file=PATH[,format=raw|base64]
 * [,keyid=ID,iv=BASE64].  With keyid the text is encrypted: AES-256 in CBC mode, padded as in
 * PKCS #7, by the 32 bytes of the other secret.  One table for the whole program; any thread.
 */
enum { SECRET_MAX = 64 << 10 }; /* bytes of a secret file */

/* Reads the keys above from @kv; the caller has read "qom-type" and calls keyval_done(). */
bool secret_add(KeyVal *kv, GError **error);
/* False if there is none such. */
bool secret_remove(const char *id);
/* A copy, NUL-terminated behind its @n bytes, for secret_free(); NULL if there is none such. */
uint8_t *secret_get(const char *id, size_t *n, GError **error);
/* Wipes and frees; NULL is fine. */
void secret_free(uint8_t *secret, size_t n);
