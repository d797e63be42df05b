/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * cipher: encryption of disk sectors.
 *
 * A libgcrypt handle holds the running initialization vector, so a thread needs one for
 * itself.  A cipher keeps as many as there are processors; a thread borrows one for a call.
 *
 * Spec: IEEE Std 1619, "XTS-AES transform"; Clemens Fruhwirth, "New Methods in Hard Disk
 * Encryption", chapter "Block modes", for essiv.
 */
#include "host/image/cipher.h"

#include "base/bytes.h"

#include <gcrypt.h>
#include <sys/random.h>

enum { HANDLES_MAX = 16, BLOCK_MAX = 16, HASH_MAX = 64 };

enum ivgen { IV_NONE, IV_PLAIN, IV_PLAIN64, IV_ESSIV };

/* What one thread needs. */
struct handle {
    gcry_cipher_hd_t data;
    gcry_cipher_hd_t iv; /* essiv; else NULL */
};

struct cipher {
    int mode;
    enum ivgen ivgen;
    size_t block; /* bytes of a cipher block and of an initialization vector */
    struct handle handles[HANDLES_MAX];
    unsigned n_handles;
    GMutex lock; /* the rest */
    GCond given_back;
    unsigned idle[HANDLES_MAX], n_idle; /* numbers of handles */
};

static const struct {
    const char *name;
    size_t key_n; /* bytes */
    int number;
} algorithms[] = {
    {"aes", 16, GCRY_CIPHER_AES128},          {"aes", 24, GCRY_CIPHER_AES192},
    {"aes", 32, GCRY_CIPHER_AES256},          {"serpent", 16, GCRY_CIPHER_SERPENT128},
    {"serpent", 24, GCRY_CIPHER_SERPENT192},  {"serpent", 32, GCRY_CIPHER_SERPENT256},
    {"twofish", 16, GCRY_CIPHER_TWOFISH128},  {"twofish", 32, GCRY_CIPHER_TWOFISH},
    {"cast5", 16, GCRY_CIPHER_CAST5},
};

static const struct {
    const char *name;
    int number;
} modes[] = {
    {"xts", GCRY_CIPHER_MODE_XTS},
    {"cbc", GCRY_CIPHER_MODE_CBC},
    {"ctr", GCRY_CIPHER_MODE_CTR},
    {"ecb", GCRY_CIPHER_MODE_ECB},
};

static const struct {
    const char *name;
    int number;
} hashes[] = {
    {"md5", GCRY_MD_MD5},       {"sha1", GCRY_MD_SHA1},     {"sha224", GCRY_MD_SHA224},
    {"sha256", GCRY_MD_SHA256}, {"sha384", GCRY_MD_SHA384}, {"sha512", GCRY_MD_SHA512},
    {"ripemd160", GCRY_MD_RMD160},
};

static const char *const ivgens[] = {
    [IV_PLAIN] = "plain",
    [IV_PLAIN64] = "plain64",
    [IV_ESSIV] = "essiv",
};

void cipher_library_init(void)
{
    static gsize done;
    if (g_once_init_enter(&done)) {
        if (!gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P)) {
            gcry_check_version(NULL);
            gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
            gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
        }
        g_once_init_leave(&done, 1);
    }
}

int cipher_hash(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(hashes); i++) {
        if (!strcmp(hashes[i].name, name)) {
            return hashes[i].number;
        }
    }
    return 0;
}

bool cipher_random(void *to, size_t n, GError **error)
{
    uint8_t *p = to;
    while (n) {
        ssize_t r = getrandom(p, n, 0);
        if (r < 0 && errno != EINTR) {
            error_set_errno(error, errno, "no random numbers from the kernel");
            return false;
        }
        p += MAX(r, 0);
        n -= (size_t)MAX(r, 0);
    }
    return true;
}

static int find_algorithm(const char *name, size_t key_n)
{
    for (size_t i = 0; i < G_N_ELEMENTS(algorithms); i++) {
        if (!strcmp(algorithms[i].name, name) && algorithms[i].key_n == key_n) {
            return algorithms[i].number;
        }
    }
    return 0;
}

static int find_mode(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        if (!strcmp(modes[i].name, name)) {
            return modes[i].number;
        }
    }
    return 0;
}

static bool find_ivgen(const char *name, enum ivgen *out)
{
    *out = IV_NONE;
    for (unsigned i = IV_PLAIN; name && i < G_N_ELEMENTS(ivgens); i++) {
        if (!strcmp(ivgens[i], name)) {
            *out = (enum ivgen)i;
        }
    }
    return !name || *out != IV_NONE;
}

static bool open_handle(gcry_cipher_hd_t *out, int alg, int mode, const uint8_t *key, size_t key_n,
                        GError **error)
{
    gcry_error_t e = gcry_cipher_open(out, alg, mode, 0);
    if (!e) {
        e = gcry_cipher_setkey(*out, key, key_n);
    }
    if (e && gpg_err_code(e) != GPG_ERR_WEAK_KEY) {
        g_set_error(error, LODGE_ERROR, EINVAL, "cipher: %s", gcry_strerror(e));
        return false;
    }
    return true;
}

/* All handles that there will ever be: the data path allocates nothing. */
static bool open_handles(struct cipher *c, int alg, const uint8_t *key, size_t key_n, int iv_alg,
                         const uint8_t *iv_key, size_t iv_key_n, GError **error)
{
    unsigned n = CLAMP(g_get_num_processors(), 1, HANDLES_MAX);
    for (; c->n_handles < n; c->n_handles++) {
        struct handle *h = &c->handles[c->n_handles];
        if (!open_handle(&h->data, alg, c->mode, key, key_n, error) ||
            (iv_alg &&
             !open_handle(&h->iv, iv_alg, GCRY_CIPHER_MODE_ECB, iv_key, iv_key_n, error))) {
            gcry_cipher_close(h->data);
            gcry_cipher_close(h->iv);
            return false;
        }
        c->idle[c->n_idle++] = c->n_handles;
    }
    return true;
}

/* The second cipher of essiv: the same algorithm, its key is the hash of the first's key. */
static bool essiv_key(const char *alg, const char *ivhash, const uint8_t *key, size_t key_n,
                      uint8_t out[HASH_MAX], size_t *out_n, int *iv_alg, GError **error)
{
    int hash = ivhash ? cipher_hash(ivhash) : 0;
    if (!hash) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "essiv with the hash \"%s\" is not supported",
                    ivhash ? ivhash : "");
        return false;
    }
    *out_n = gcry_md_get_algo_dlen(hash);
    *iv_alg = find_algorithm(alg, *out_n);
    if (!*iv_alg) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "essiv with the hash \"%s\": %s has no key of %zu bytes", ivhash, alg, *out_n);
        return false;
    }
    gcry_md_hash_buffer(hash, out, key, key_n);
    return true;
}

static bool set_up(struct cipher *c, const char *alg, const char *ivhash, const uint8_t *key,
                   size_t key_n, int number, GError **error)
{
    uint8_t iv_key[HASH_MAX];
    size_t iv_key_n = 0;
    int iv_alg = 0;
    if (c->ivgen == IV_ESSIV &&
        !essiv_key(alg, ivhash, key, key_n, iv_key, &iv_key_n, &iv_alg, error)) {
        return false;
    }
    bool ok = open_handles(c, number, key, key_n, iv_alg, iv_key, iv_key_n, error);
    explicit_bzero(iv_key, sizeof(iv_key));
    return ok;
}

struct cipher *cipher_new(const char *alg, const char *mode, const char *ivgen, const char *ivhash,
                          const uint8_t *key, size_t key_n, GError **error)
{
    cipher_library_init();
    int mode_number = find_mode(mode);
    size_t half = mode_number == GCRY_CIPHER_MODE_XTS ? key_n / 2 : key_n;
    int number = find_algorithm(alg, half);
    enum ivgen gen;
    if (!number || !mode_number || !find_ivgen(ivgen, &gen)) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "cipher \"%s-%s-%s\" with a key of %zu bytes is not supported", alg, mode,
                    ivgen ? ivgen : "none", key_n);
        return NULL;
    }
    size_t block = gcry_cipher_get_algo_blklen(number);
    if (mode_number == GCRY_CIPHER_MODE_XTS && block != BLOCK_MAX) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "xts needs a cipher of 16-byte blocks, not %s",
                    alg);
        return NULL;
    }
    struct cipher *c = g_new0(struct cipher, 1);
    *c = (struct cipher){.mode = mode_number, .ivgen = gen, .block = block};
    g_mutex_init(&c->lock);
    g_cond_init(&c->given_back);
    if (!set_up(c, alg, ivhash, key, key_n, number, error)) {
        cipher_free(c);
        return NULL;
    }
    return c;
}

void cipher_free(struct cipher *c)
{
    if (!c) {
        return;
    }
    for (unsigned i = 0; i < c->n_handles; i++) {
        gcry_cipher_close(c->handles[i].data);
        gcry_cipher_close(c->handles[i].iv);
    }
    g_mutex_clear(&c->lock);
    g_cond_clear(&c->given_back);
    g_free(c);
}

static unsigned borrow(struct cipher *c)
{
    g_mutex_lock(&c->lock);
    while (!c->n_idle) {
        g_cond_wait(&c->given_back, &c->lock);
    }
    unsigned i = c->idle[--c->n_idle];
    g_mutex_unlock(&c->lock);
    return i;
}

static void give_back(struct cipher *c, unsigned i)
{
    g_mutex_lock(&c->lock);
    c->idle[c->n_idle++] = i;
    g_cond_signal(&c->given_back);
    g_mutex_unlock(&c->lock);
}

static bool set_iv(const struct cipher *c, const struct handle *h, uint64_t sector)
{
    uint8_t iv[BLOCK_MAX] = {0};
    if (c->mode == GCRY_CIPHER_MODE_ECB) {
        return true;
    }
    if (c->ivgen == IV_PLAIN) {
        le32_put(iv, (uint32_t)sector);
    } else if (c->ivgen != IV_NONE) {
        le64_put(iv, sector);
    }
    if (h->iv && gcry_cipher_encrypt(h->iv, iv, c->block, NULL, 0)) {
        return false;
    }
    return !(c->mode == GCRY_CIPHER_MODE_CTR ? gcry_cipher_setctr(h->data, iv, c->block)
                                             : gcry_cipher_setiv(h->data, iv, c->block));
}

static int run(struct cipher *c, bool encrypt, uint64_t position, uint8_t *p, size_t n)
{
    unsigned i = borrow(c);
    const struct handle *h = &c->handles[i];
    bool ok = true;
    for (uint64_t sector = position / CIPHER_SECTOR; ok && n; sector++) {
        size_t part = MIN(n, CIPHER_SECTOR);
        ok = set_iv(c, h, sector) && !(encrypt ? gcry_cipher_encrypt(h->data, p, part, NULL, 0)
                                               : gcry_cipher_decrypt(h->data, p, part, NULL, 0));
        p += part;
        n -= part;
    }
    give_back(c, i);
    return ok ? 0 : -EIO;
}

int cipher_decrypt(struct cipher *c, uint64_t position, void *buf, size_t n)
{
    return run(c, false, position, buf, n);
}

int cipher_encrypt(struct cipher *c, uint64_t position, void *buf, size_t n)
{
    return run(c, true, position, buf, n);
}
