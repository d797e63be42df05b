/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * qcow2_crypt: encrypted images.  Spec: QEMU, "docs/interop/qcow2.txt", sections "Full disk
 * encryption header pointer" and "Data encryption".
 */
#include "host/image/cipher.h"
#include "host/image/luks.h"
#include "host/image/options.h"
#include "host/image/qcow2.h"
#include "host/image/secret.h"

#include <string.h>

enum { AES_KEY = 16 };

/* The passphrase's own bytes are the key, cut off or filled up with zeroes. */
static struct cipher *aes_cipher(const char *secret, GError **error)
{
    size_t n;
    uint8_t key[AES_KEY] = {0};
    if (!secret) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Parameter 'encrypt.key-secret' is required for cipher");
        return NULL;
    }
    uint8_t *text = secret_get(secret, &n, error);
    if (!text) {
        return NULL;
    }
    memcpy(key, text, MIN(n, sizeof(key)));
    secret_free(text, n);
    struct cipher *c = cipher_new("aes", "cbc", "plain64", NULL, key, sizeof(key), error);
    explicit_bzero(key, sizeof(key));
    return c;
}

bool qcow2_aes_check(const char *secret, GError **error)
{
    struct cipher *c = aes_cipher(secret, error);
    cipher_free(c);
    return c;
}

/* Says what stands in "encrypt.format" if somebody asks for another one. */
static bool format_fits(const struct qcow2 *q, const json_t *options, GError **error)
{
    const char *has = q->h.crypt == CRYPT_LUKS ? "luks" : "aes";
    const char *wants = json_text(json_object_get(options, "encrypt"), "format");
    if (q->h.crypt == CRYPT_NONE) {
        if (wants) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "No encryption in image header, but options specified format '%s'", wants);
        }
        return !wants;
    }
    if (wants && strcmp(wants, has)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Header reported '%s' encryption format but "
                    "options specify '%s'",
                    has, wants);
        return false;
    }
    return true;
}

bool qcow2_crypt_open(struct qcow2 *q, unsigned flags, GError **error)
{
    const json_t *options = q->node->options;
    const char *secret = json_text(json_object_get(options, "encrypt"), "key-secret");
    bool data = !(flags & (OPEN_NO_IO | OPEN_CHECK));
    if (!format_fits(q, options, error)) {
        return false;
    }
    if (q->h.crypt == CRYPT_NONE) {
        return true;
    }
    if (q->h.crypt == CRYPT_AES) {
        q->own_cipher = data ? aes_cipher(secret, error) : NULL;
        q->node->cipher = q->own_cipher;
        return !data || q->own_cipher;
    }
    if (data && !secret) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Parameter 'encrypt.key-secret' is required for cipher");
        return false;
    }
    struct luks_area area = {q->file, q->h.crypto_at,
                             qcow2_clusters(q, q->h.crypto_n) << q->h.cluster_bits};
    q->luks = luks_open(&area, data ? secret : NULL, q->node->untrusted, error);
    q->node->cipher = q->luks && data ? luks_cipher(q->luks) : NULL;
    return q->luks;
}

void qcow2_crypt_close(struct qcow2 *q)
{
    q->node->cipher = NULL;
    luks_free(q->luks);
    cipher_free(q->own_cipher);
    q->luks = NULL;
    q->own_cipher = NULL;
}

void qcow2_crypt_describe(struct qcow2 *q, json_t *data)
{
    if (q->h.crypt == CRYPT_NONE) {
        return;
    }
    json_t *encrypt = json_object();
    if (q->luks) {
        luks_describe(q->luks, true, encrypt);
    } else {
        json_object_set_new(encrypt, "format", json_string("aes"));
    }
    json_object_set_new(data, "encrypt", encrypt);
}
