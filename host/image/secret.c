/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * secret: the table of -object secret.
 *
 * Spec: RFC 8018, "PKCS #5: Password-Based Cryptography Specification", section
 * "Encryption schemes", for the padding.
 */
#include "host/image/secret.h"

#include "base/util.h"
#include "host/image/cipher.h"

#include <fcntl.h>
#include <gcrypt.h>
#include <string.h>

enum { WRAP_KEY = 32, WRAP_BLOCK = 16 };

struct secret {
    char *id;
    uint8_t *data;
    size_t n;
    struct secret *next;
};

static struct secret *secrets;
static GMutex lock; /* of the table */

void secret_free(uint8_t *secret, size_t n)
{
    if (secret) {
        explicit_bzero(secret, n);
        g_free(secret);
    }
}

static struct secret *find(const char *id)
{
    struct secret *s = secrets;
    while (s && strcmp(s->id, id)) {
        s = s->next;
    }
    return s;
}

static uint8_t *copy(const uint8_t *from, size_t n)
{
    uint8_t *to = g_malloc(n + 1);
    memcpy(to, from, n);
    to[n] = 0;
    return to;
}

uint8_t *secret_get(const char *id, size_t *n, GError **error)
{
    g_mutex_lock(&lock);
    const struct secret *s = find(id);
    uint8_t *data = s ? copy(s->data, s->n) : NULL;
    *n = s ? s->n : 0;
    g_mutex_unlock(&lock);
    if (!data) {
        g_set_error(error, LODGE_ERROR, ENOENT, "No secret with id '%s'", id);
    }
    return data;
}

bool secret_remove(const char *id)
{
    g_mutex_lock(&lock);
    struct secret **at = &secrets;
    while (*at && strcmp((*at)->id, id)) {
        at = &(*at)->next;
    }
    struct secret *s = *at;
    if (s) {
        *at = s->next;
    }
    g_mutex_unlock(&lock);
    if (!s) {
        return false;
    }
    secret_free(s->data, s->n);
    g_free(s->id);
    g_free(s);
    return true;
}

/* ---- where it comes from ---- */

static uint8_t *read_secret_file(const char *path, size_t *n, GError **error)
{
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *data = fd < 0 ? NULL : g_malloc(SECRET_MAX + 1);
    *n = 0;
    for (ssize_t r = 1; data && r && *n <= SECRET_MAX; *n += (size_t)MAX(r, 0)) {
        r = read(fd, data + *n, SECRET_MAX + 1 - *n);
        if (r < 0 && errno != EINTR) {
            secret_free(g_steal_pointer(&data), SECRET_MAX + 1);
        }
    }
    if (!data) {
        error_set_errno(error, errno, "Unable to read %s", path);
        return NULL;
    }
    if (*n > SECRET_MAX) {
        secret_free(data, SECRET_MAX + 1);
        g_set_error(error, LODGE_ERROR, EFBIG, "%s: a secret has at most %d bytes", path,
                    SECRET_MAX);
        return NULL;
    }
    data[*n] = 0;
    return data;
}

/* Exactly what base64 text stands for; spaces and line ends between are fine. */
static bool from_base64(const char *what, uint8_t **data, size_t *n, GError **error)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n\t ";
    if (strlen((char *)*data) != *n || strspn((char *)*data, alphabet) != *n) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s is not valid base64", what);
        return false;
    }
    gsize out_n = 0;
    uint8_t *out = g_base64_decode((char *)*data, &out_n);
    uint8_t *kept = copy(out, out_n);
    secret_free(out, out_n);
    secret_free(*data, *n);
    *data = kept;
    *n = out_n;
    return true;
}

/* Takes the padding off; false if it is none. */
static bool unpad(const uint8_t *data, size_t *n)
{
    uint8_t pad = *n ? data[*n - 1] : 0;
    if (pad < 1 || pad > WRAP_BLOCK || pad > *n) {
        return false;
    }
    for (size_t i = *n - pad; i < *n; i++) {
        if (data[i] != pad) {
            return false;
        }
    }
    *n -= pad;
    return true;
}

static bool decrypt(const uint8_t *key, const uint8_t *iv, uint8_t *data, size_t n)
{
    cipher_library_init();
    gcry_cipher_hd_t h;
    if (gcry_cipher_open(&h, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_CBC, 0)) {
        return false;
    }
    bool ok = !gcry_cipher_setkey(h, key, WRAP_KEY) && !gcry_cipher_setiv(h, iv, WRAP_BLOCK) &&
              !gcry_cipher_decrypt(h, data, n, NULL, 0);
    gcry_cipher_close(h);
    return ok;
}

static bool unwrap_with(const uint8_t *key, size_t key_n, const char *keyid, const uint8_t *iv,
                        size_t iv_n, uint8_t *data, size_t *n, GError **error)
{
    if (key_n != WRAP_KEY) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Key '%s' has %zu bytes, it should have %d", keyid,
                    key_n, WRAP_KEY);
        return false;
    }
    if (iv_n != WRAP_BLOCK) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Initialization vector has %zu bytes, it should have %d", iv_n, WRAP_BLOCK);
        return false;
    }
    if (*n % WRAP_BLOCK || !decrypt(key, iv, data, *n) || !unpad(data, n)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Secret does not decrypt with key '%s'", keyid);
        return false;
    }
    data[*n] = 0;
    return true;
}

static bool unwrap(const char *keyid, const char *iv_text, uint8_t *data, size_t *n,
                   GError **error)
{
    size_t key_n = 0, iv_n = iv_text ? strlen(iv_text) : 0;
    if (!iv_text) {
        g_set_error(error, LODGE_ERROR, EINVAL, "'iv' is required with 'keyid'");
        return false;
    }
    uint8_t *iv = copy((const uint8_t *)iv_text, iv_n);
    uint8_t *key = NULL;
    bool ok = from_base64("'iv'", &iv, &iv_n, error) && (key = secret_get(keyid, &key_n, error)) &&
              unwrap_with(key, key_n, keyid, iv, iv_n, data, n, error);
    secret_free(iv, iv_n);
    secret_free(key, key_n);
    return ok;
}

/* The bytes of the secret that @kv describes. */
static uint8_t *load(KeyVal *kv, size_t *n, GError **error)
{
    const char *text = keyval_get(kv, "data"), *file = keyval_get(kv, "file");
    const char *format = keyval_get(kv, "format"), *keyid = keyval_get(kv, "keyid");
    const char *iv = keyval_get(kv, "iv");
    bool base64 = format && !strcmp(format, "base64");
    if (!text == !file) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    text ? "'file' and 'data' are mutually exclusive"
                         : "Must provide 'file' or 'data'");
        return NULL;
    }
    if (format && !base64 && strcmp(format, "raw")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid parameter 'format=%s': raw or base64",
                    format);
        return NULL;
    }
    *n = text ? strlen(text) : 0;
    uint8_t *data = file ? read_secret_file(file, n, error) : copy((const uint8_t *)text, *n);
    if (data && ((base64 && !from_base64("secret", &data, n, error)) ||
                 (keyid && !unwrap(keyid, iv, data, n, error)))) {
        secret_free(g_steal_pointer(&data), *n);
    }
    return data;
}

bool secret_add(KeyVal *kv, GError **error)
{
    const char *id = keyval_get(kv, "id");
    if (!id || !*id) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'id' is missing");
        return false;
    }
    size_t n;
    uint8_t *data = load(kv, &n, error);
    if (!data) {
        g_prefix_error(error, "secret '%s': ", id);
        return false;
    }
    g_mutex_lock(&lock);
    bool taken = find(id) != NULL;
    if (!taken) {
        struct secret *s = g_new0(struct secret, 1);
        *s = (struct secret){.id = g_strdup(id), .data = g_steal_pointer(&data), .n = n,
                             .next = secrets};
        secrets = s;
    }
    g_mutex_unlock(&lock);
    if (taken) {
        secret_free(data, n);
        g_set_error(error, LODGE_ERROR, EEXIST, "attempt to add duplicate property '%s' to object",
                    id);
    }
    return !taken;
}
