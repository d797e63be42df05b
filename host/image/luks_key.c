/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * luks_key: arithmetic of LUKS keys.
 *
 * Spec: LUKS On-Disk Format Specification, version 1.2.3, sections "Anti-forensic information
 * splitting", "PBKDF2"; RFC 8018, section "PBKDF2".
 */
#include "host/image/luks_key.h"

#include "base/bytes.h"
#include "host/image/cipher.h"

#include <gcrypt.h>
#include <inttypes.h>
#include <time.h>

enum { DIGEST_MAX = 64, PROBE_MS = 60, MS = 1000000 };

bool luks_derive(int hash, const uint8_t *pass, size_t pass_n, const uint8_t salt[LUKS_SALT],
                 uint32_t iterations, uint8_t *out, size_t out_n, GError **error)
{
    gcry_error_t e = gcry_kdf_derive(pass, pass_n, GCRY_KDF_PBKDF2, hash, salt, LUKS_SALT,
                                     iterations, out_n, out);
    if (e) {
        g_set_error(error, LODGE_ERROR, EINVAL, "cannot derive a key from the passphrase: %s",
                    gcry_strerror(e));
    }
    return !e;
}

/* Processor time of this thread: other work on the machine must not weaken the key. */
static uint64_t thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

bool luks_iterations(int hash, size_t out_n, uint64_t ms, uint32_t *out, GError **error)
{
    static const uint8_t salt[LUKS_SALT], pass[] = "passphrase";
    uint8_t key[LUKS_KEY_MAX];
    uint64_t ns = 0;
    uint32_t n = LUKS_ITERATIONS_MIN;
    for (;; n *= 2) {
        uint64_t start = thread_ns();
        if (!luks_derive(hash, pass, sizeof(pass), salt, n, key, out_n, error)) {
            return false;
        }
        ns = thread_ns() - start;
        if (ns >= (uint64_t)PROBE_MS * MS || n > UINT32_MAX / 4) {
            break;
        }
    }
    double wanted = (double)n * (double)ms * MS / (double)MAX(ns, 1);
    if (wanted > UINT32_MAX) {
        g_set_error(error, LODGE_ERROR, ERANGE, "iter-time %" PRIu64 " ms is too long", ms);
        return false;
    }
    *out = MAX((uint32_t)wanted, (uint32_t)LUKS_ITERATIONS_MIN);
    return true;
}

/* Each digest-sized piece becomes the hash of its number and itself; the last is cut. */
static void diffuse(int hash, uint8_t *block, size_t n)
{
    uint8_t in[4 + DIGEST_MAX], digest[DIGEST_MAX];
    size_t size = gcry_md_get_algo_dlen(hash);
    for (uint32_t i = 0; n; i++) {
        size_t part = MIN(n, size);
        be32_put(in, i);
        memcpy(in + 4, block, part);
        gcry_md_hash_buffer(hash, digest, in, 4 + part);
        memcpy(block, digest, part);
        block += part;
        n -= part;
    }
}

static void mix(uint8_t *to, const uint8_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        to[i] ^= from[i];
    }
}

/* What the last stripe is mixed with to give the key. */
static void fold(int hash, const uint8_t *split, size_t n, unsigned stripes, uint8_t *out)
{
    memset(out, 0, n);
    for (unsigned i = 0; i + 1 < stripes; i++) {
        mix(out, split + i * n, n);
        diffuse(hash, out, n);
    }
}

bool luks_split(int hash, const uint8_t *key, size_t n, unsigned stripes, uint8_t *out,
                GError **error)
{
    uint8_t *last = out + (stripes - 1) * n;
    if (!cipher_random(out, (stripes - 1) * n, error)) {
        return false;
    }
    fold(hash, out, n, stripes, last);
    mix(last, key, n);
    return true;
}

void luks_merge(int hash, const uint8_t *split, size_t n, unsigned stripes, uint8_t *key)
{
    fold(hash, split, n, stripes, key);
    mix(key, split + (stripes - 1) * n, n);
}
