/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * luks_header: the header of LUKS version 1 and its key slots.
 *
 * A key slot is written so that a crash leaves the old state or the new one: first the key
 * material, then, after a flush, the header that points at it; the other way round to erase.
 *
 * Spec: LUKS On-Disk Format Specification, version 1.2.3, sections "LUKS partition header",
 * "Master key recovery", "Key revocation".
 */
#include "host/image/luks.h"

#include "base/bytes.h"
#include "host/image/cipher.h"
#include "host/image/format.h"
#include "host/image/luks_key.h"
#include "host/image/secret.h"

enum {
    MAGIC = 6, NAME = 32, DIGEST = 20, UUID = 40, SLOTS = 8,
    HEADER = 592, SLOT = 48, SLOT_TABLE = 208,
    STRIPES = 4000, ALIGN = 4096, /* key material starts at multiples of it, the first at once */
    SLOT_ACTIVE = 0x00ac71f3, SLOT_FREE = 0x0000dead,
    ITER_TIME = 2000, /* ms */
    ITERATIONS_UNTRUSTED = 32 << 20, /* under a minute */
    ERASE_PASSES = 3,
};

static const uint8_t magic[MAGIC] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

struct slot {
    bool active;
    uint32_t iterations, sector, stripes;
    uint8_t salt[LUKS_SALT];
};

struct luks {
    struct luks_area area;
    bool untrusted;
    char cipher[NAME + 1], mode[NAME + 1], hash[NAME + 1], uuid[UUID + 1];
    char block[NAME + 1], ivgen[NAME + 1], ivhash[NAME + 1]; /* parts of .mode; may be "" */
    int hash_number;
    uint32_t payload; /* sectors */
    uint32_t key_n, iterations;
    uint8_t digest[DIGEST], salt[LUKS_SALT];
    struct slot slots[SLOTS];
    uint8_t key[LUKS_KEY_MAX];
    struct cipher *encryption; /* NULL: not opened */
};

static size_t material_bytes(const struct luks *l)
{
    return (size_t)l->key_n * STRIPES;
}

/* Sectors from one key slot's material to the next in headers that we make. */
static uint32_t material_sectors(uint32_t key_n)
{
    return (key_n * STRIPES + ALIGN - 1) / ALIGN * (ALIGN / CIPHER_SECTOR);
}

static uint32_t first_sector(unsigned slot, uint32_t key_n)
{
    return ALIGN / CIPHER_SECTOR + slot * material_sectors(key_n);
}

/* ---- the header as bytes ---- */

static void encode(const struct luks *l, uint8_t *h)
{
    memset(h, 0, HEADER);
    memcpy(h, magic, MAGIC);
    be16_put(h + 6, 1);
    memcpy(h + 8, l->cipher, NAME);
    memcpy(h + 40, l->mode, NAME);
    memcpy(h + 72, l->hash, NAME);
    be32_put(h + 104, l->payload);
    be32_put(h + 108, l->key_n);
    memcpy(h + 112, l->digest, DIGEST);
    memcpy(h + 132, l->salt, LUKS_SALT);
    be32_put(h + 164, l->iterations);
    memcpy(h + 168, l->uuid, UUID);
    for (unsigned i = 0; i < SLOTS; i++) {
        const struct slot *s = &l->slots[i];
        uint8_t *p = h + SLOT_TABLE + i * SLOT;
        be32_put(p, s->active ? SLOT_ACTIVE : SLOT_FREE);
        be32_put(p + 4, s->iterations);
        memcpy(p + 8, s->salt, LUKS_SALT);
        be32_put(p + 40, s->sector);
        be32_put(p + 44, s->stripes);
    }
}

static bool decode_text(char *to, const uint8_t *from, size_t n, const char *what, GError **error)
{
    if (!memchr(from, 0, n)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "LUKS header %s is not NUL terminated", what);
        return false;
    }
    memcpy(to, from, n);
    return true;
}

static bool decode_slot(struct luks *l, unsigned i, const uint8_t *p, GError **error)
{
    struct slot *s = &l->slots[i];
    uint32_t state = be32_at(p);
    if (state != SLOT_ACTIVE && state != SLOT_FREE) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Keyslot %u state 0x%x is corrupted", i, state);
        return false;
    }
    s->active = state == SLOT_ACTIVE;
    s->iterations = be32_at(p + 4);
    memcpy(s->salt, p + 8, LUKS_SALT);
    s->sector = be32_at(p + 40);
    s->stripes = be32_at(p + 44);
    return true;
}

static bool decode(struct luks *l, const uint8_t *h, GError **error)
{
    if (memcmp(h, magic, MAGIC)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Volume is not in LUKS format");
        return false;
    }
    if (be16_at(h + 6) != 1) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "LUKS version %u is not supported",
                    be16_at(h + 6));
        return false;
    }
    if (!decode_text(l->cipher, h + 8, NAME, "cipher name", error) ||
        !decode_text(l->mode, h + 40, NAME, "cipher mode", error) ||
        !decode_text(l->hash, h + 72, NAME, "hash spec", error) ||
        !decode_text(l->uuid, h + 168, UUID, "uuid", error)) {
        return false;
    }
    l->payload = be32_at(h + 104);
    l->key_n = be32_at(h + 108);
    memcpy(l->digest, h + 112, DIGEST);
    memcpy(l->salt, h + 132, LUKS_SALT);
    l->iterations = be32_at(h + 164);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (!decode_slot(l, i, h + SLOT_TABLE + i * SLOT, error)) {
            return false;
        }
    }
    return true;
}

static bool write_header(struct luks *l, GError **error)
{
    uint8_t h[HEADER];
    encode(l, h);
    int r = file_write(l->area.file, l->area.at, h, sizeof(h));
    if (r == 0) {
        r = file_flush(l->area.file);
    }
    if (r < 0) {
        error_set_errno(error, -r, "Cannot write LUKS header");
    }
    return r == 0;
}

/* ---- what the header says ---- */

/* "xts-plain64", "cbc-essiv:sha256", "ecb" */
static void split_mode(struct luks *l)
{
    g_auto(GStrv) parts = g_strsplit(l->mode, "-", 2);
    g_auto(GStrv) iv = g_strsplit(parts[0] && parts[1] ? parts[1] : "", ":", 2);
    g_strlcpy(l->block, parts[0] ? parts[0] : "", sizeof(l->block));
    g_strlcpy(l->ivgen, iv[0] ? iv[0] : "", sizeof(l->ivgen));
    g_strlcpy(l->ivhash, iv[0] && iv[1] ? iv[1] : "", sizeof(l->ivhash));
}

static struct cipher *make_cipher(const struct luks *l, const uint8_t *key, GError **error)
{
    return cipher_new(l->cipher, l->block, *l->ivgen ? l->ivgen : NULL,
                      *l->ivhash ? l->ivhash : NULL, key, l->key_n, error);
}

/* Whether hash and cipher are known and fit each other and the key. */
static bool check_algorithms(struct luks *l, GError **error)
{
    static const uint8_t key[LUKS_KEY_MAX] = {1};
    cipher_library_init();
    l->hash_number = cipher_hash(l->hash);
    if (!l->hash_number) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Hash algorithm '%s' is not supported", l->hash);
        return false;
    }
    if (l->key_n > LUKS_KEY_MAX) {
        g_set_error(error, LODGE_ERROR, EINVAL, "LUKS master key of %u bytes is too long",
                    l->key_n);
        return false;
    }
    struct cipher *c = make_cipher(l, key, error);
    cipher_free(c);
    return c;
}

static bool slot_end(const struct luks *l, unsigned i, uint64_t *end, GError **error)
{
    const struct slot *s = &l->slots[i];
    *end = s->sector + (material_bytes(l) + CIPHER_SECTOR - 1) / CIPHER_SECTOR;
    if (s->stripes != STRIPES) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Keyslot %u is corrupted (stripes %u != %d)", i,
                    s->stripes, STRIPES);
    } else if (s->sector < (HEADER + CIPHER_SECTOR - 1) / CIPHER_SECTOR) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Keyslot %u at sector %u is overlapping with the LUKS header", i, s->sector);
    } else if (s->active && !s->iterations) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Keyslot %u iteration count is zero", i);
    } else if (*end > l->payload || *end * CIPHER_SECTOR > l->area.length) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Keyslot %u at sector %u is overlapping with the encrypted payload", i,
                    s->sector);
    } else if (l->untrusted && s->active && s->iterations > ITERATIONS_UNTRUSTED) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Keyslot %u iteration count %u is too high for an untrusted image", i,
                    s->iterations);
    } else {
        return true;
    }
    return false;
}

static bool check_slots(const struct luks *l, GError **error)
{
    uint64_t ends[SLOTS];
    for (unsigned i = 0; i < SLOTS; i++) {
        if (!slot_end(l, i, &ends[i], error)) {
            return false;
        }
        for (unsigned j = 0; j < i; j++) {
            if (l->slots[i].sector < ends[j] && l->slots[j].sector < ends[i]) {
                g_set_error(error, LODGE_ERROR, EINVAL,
                            "Keyslots %u and %u are overlapping in the header", j, i);
                return false;
            }
        }
    }
    return true;
}

static bool check_header(struct luks *l, GError **error)
{
    if (!l->payload || (uint64_t)l->payload * CIPHER_SECTOR < ALIGN) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "LUKS payload at sector %u is overlapping with the header", l->payload);
        return false;
    }
    if (!l->iterations || (l->untrusted && l->iterations > ITERATIONS_UNTRUSTED)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "LUKS key iteration count %u is not valid",
                    l->iterations);
        return false;
    }
    split_mode(l);
    return check_algorithms(l, error) && check_slots(l, error);
}

/* ---- key slots ---- */

/* Whether @key is the master key. */
static bool is_master_key(const struct luks *l, const uint8_t *key, bool *yes, GError **error)
{
    uint8_t digest[DIGEST];
    if (!luks_derive(l->hash_number, key, l->key_n, l->salt, l->iterations, digest, DIGEST,
                     error)) {
        return false;
    }
    *yes = !memcmp(digest, l->digest, DIGEST);
    return true;
}

/* The cipher of slot @i's key material. */
static struct cipher *slot_cipher(const struct luks *l, unsigned i, const uint8_t *pass, size_t n,
                                  GError **error)
{
    const struct slot *s = &l->slots[i];
    uint8_t key[LUKS_KEY_MAX];
    if (!luks_derive(l->hash_number, pass, n, s->salt, s->iterations, key, l->key_n, error)) {
        return NULL;
    }
    struct cipher *c = make_cipher(l, key, error);
    explicit_bzero(key, sizeof(key));
    return c;
}

/* Does @pass open slot @i?  Then @key is the master key. */
static bool try_slot(const struct luks *l, unsigned i, const uint8_t *pass, size_t n,
                     uint8_t key[LUKS_KEY_MAX], bool *opens, GError **error)
{
    *opens = false;
    if (!l->slots[i].active) {
        return true;
    }
    size_t bytes = material_bytes(l);
    g_autofree uint8_t *split = g_malloc(bytes);
    int r = file_read(l->area.file, l->area.at + (uint64_t)l->slots[i].sector * CIPHER_SECTOR,
                      split, bytes);
    if (r < 0) {
        error_set_errno(error, -r, "Failed to read key material of keyslot %u", i);
        return false;
    }
    struct cipher *c = slot_cipher(l, i, pass, n, error);
    bool ok = c && cipher_decrypt(c, 0, split, bytes) == 0;
    cipher_free(c);
    if (ok) {
        luks_merge(l->hash_number, split, l->key_n, STRIPES, key);
        ok = is_master_key(l, key, opens, error);
    }
    explicit_bzero(split, bytes);
    return ok;
}

/* Which slots does @pass open?  A bit each; stops at the first unless @all. */
static bool try_slots(const struct luks *l, const uint8_t *pass, size_t n, bool all,
                      uint8_t key[LUKS_KEY_MAX], unsigned *opened, GError **error)
{
    *opened = 0;
    for (unsigned i = 0; i < SLOTS && (all || !*opened); i++) {
        bool opens;
        if (!try_slot(l, i, pass, n, key, &opens, error)) {
            return false;
        }
        *opened |= opens ? 1u << i : 0;
    }
    return true;
}

/* The slots that the secret @id opens. */
static bool try_secret(const struct luks *l, const char *id, bool all, uint8_t key[LUKS_KEY_MAX],
                       unsigned *opened, GError **error)
{
    size_t n;
    uint8_t *pass = secret_get(id, &n, error);
    bool ok = pass && try_slots(l, pass, n, all, key, opened, error);
    secret_free(pass, n);
    return ok;
}

static bool unlock(struct luks *l, const char *key_secret, GError **error)
{
    unsigned opened;
    if (!try_secret(l, key_secret, false, l->key, &opened, error)) {
        return false;
    }
    if (!opened) {
        g_set_error(error, LODGE_ERROR, EACCES, "Invalid password, cannot unlock any keyslot");
        return false;
    }
    l->encryption = make_cipher(l, l->key, error);
    return l->encryption;
}

/* Makes slot @i one that @pass opens: the material only, the header is the caller's. */
static bool fill_slot(struct luks *l, unsigned i, const uint8_t *pass, size_t n, uint64_t ms,
                      GError **error)
{
    struct slot *s = &l->slots[i];
    size_t bytes = material_bytes(l);
    g_autofree uint8_t *split = g_malloc(bytes);
    if (!luks_iterations(l->hash_number, l->key_n, ms ? ms : ITER_TIME, &s->iterations, error) ||
        !cipher_random(s->salt, LUKS_SALT, error) ||
        !luks_split(l->hash_number, l->key, l->key_n, STRIPES, split, error)) {
        return false;
    }
    struct cipher *c = slot_cipher(l, i, pass, n, error);
    int r = !c ? -EINVAL : cipher_encrypt(c, 0, split, bytes);
    cipher_free(c);
    if (r == 0) {
        r = file_write(l->area.file, l->area.at + (uint64_t)s->sector * CIPHER_SECTOR, split,
                       bytes);
    }
    if (r == 0) {
        r = file_flush(l->area.file);
    }
    if (c && r < 0) {
        error_set_errno(error, -r, "Cannot write key material of keyslot %u", i);
    }
    s->active = r == 0;
    return r == 0;
}

static bool fill_slot_secret(struct luks *l, unsigned i, const char *id, uint64_t ms,
                             GError **error)
{
    size_t n;
    uint8_t *pass = secret_get(id, &n, error);
    bool ok = pass && fill_slot(l, i, pass, n, ms, error);
    secret_free(pass, n);
    return ok;
}

/* ---- open, create ---- */

struct luks *luks_open(const struct luks_area *area, const char *key_secret, bool untrusted,
                       GError **error)
{
    uint8_t h[HEADER];
    int r = area->length < HEADER ? -EIO : file_read(area->file, area->at, h, sizeof(h));
    if (r < 0) {
        error_set_errno(error, -r, "Unable to read LUKS header");
        return NULL;
    }
    struct luks *l = g_new0(struct luks, 1);
    l->area = *area;
    l->untrusted = untrusted;
    if (!decode(l, h, error) || !check_header(l, error) ||
        (key_secret && !unlock(l, key_secret, error))) {
        luks_free(l);
        return NULL;
    }
    return l;
}

void luks_free(struct luks *l)
{
    if (l) {
        cipher_free(l->encryption);
        explicit_bzero(l, sizeof(*l));
        g_free(l);
    }
}

/* "aes-256" in xts mode: "aes" and 64 bytes. */
static bool parse_cipher(struct luks *l, const char *alg, const char *mode, GError **error)
{
    const char *dash = strrchr(alg, '-');
    guint64 bits = 0;
    if (!dash || dash - alg >= NAME || !g_ascii_string_to_unsigned(dash + 1, 10, 1, 256, &bits,
                                                                  NULL) || bits % 8) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Invalid parameter 'cipher-alg': '%s'", alg);
        return false;
    }
    memcpy(l->cipher, alg, (size_t)(dash - alg));
    l->key_n = (uint32_t)bits / 8 * (strcmp(mode, "xts") ? 1 : 2);
    return true;
}

/* All of a new header that does not need the secret. */
static bool init_header(struct luks *l, const struct luks_params *p, GError **error)
{
    const char *mode = p->cipher_mode ? p->cipher_mode : "xts";
    const char *ivgen = p->ivgen_alg ? p->ivgen_alg : "plain64";
    const char *hash = p->hash_alg ? p->hash_alg : "sha256";
    const char *ivhash = p->ivgen_hash_alg ? p->ivgen_hash_alg : "sha256";
    bool essiv = !strcmp(ivgen, "essiv");
    if (!parse_cipher(l, p->cipher_alg ? p->cipher_alg : "aes-256", mode, error)) {
        return false;
    }
    g_autofree char *spec = g_strdup_printf("%s-%s%s%s", mode, ivgen, essiv ? ":" : "",
                                            essiv ? ivhash : "");
    g_autofree char *uuid = g_uuid_string_random();
    g_strlcpy(l->mode, spec, NAME);
    g_strlcpy(l->hash, hash, NAME);
    g_strlcpy(l->uuid, uuid, UUID);
    for (unsigned i = 0; i < SLOTS; i++) {
        l->slots[i] = (struct slot){.sector = first_sector(i, l->key_n), .stripes = STRIPES};
    }
    l->payload = first_sector(SLOTS, l->key_n);
    split_mode(l);
    return check_algorithms(l, error);
}

bool luks_header_size(const struct luks_params *params, uint64_t *out, GError **error)
{
    struct luks l = {0};
    bool ok = init_header(&l, params, error);
    *out = luks_payload(&l);
    return ok;
}

/* An eighth of the time goes into the digest, as cryptsetup does it. */
static bool make_master_key(struct luks *l, uint64_t ms, GError **error)
{
    if (!cipher_random(l->key, l->key_n, error) || !cipher_random(l->salt, LUKS_SALT, error) ||
        !luks_iterations(l->hash_number, DIGEST, MAX(ms / 8, 1), &l->iterations, error)) {
        return false;
    }
    l->encryption = make_cipher(l, l->key, error);
    return l->encryption && luks_derive(l->hash_number, l->key, l->key_n, l->salt, l->iterations,
                                        l->digest, DIGEST, error);
}

struct luks *luks_create(const struct luks_area *area, const struct luks_params *params,
                         GError **error)
{
    struct luks *l = g_new0(struct luks, 1);
    l->area = *area;
    uint64_t ms = params->iter_time ? params->iter_time : ITER_TIME;
    if (!params->key_secret) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'key-secret' is required for cipher");
    } else if (init_header(l, params, error) && make_master_key(l, ms, error) &&
               fill_slot_secret(l, 0, params->key_secret, ms, error) && write_header(l, error)) {
        return l;
    }
    luks_free(l);
    return NULL;
}

struct cipher *luks_cipher(const struct luks *l)
{
    return l->encryption;
}

uint64_t luks_payload(const struct luks *l)
{
    return (uint64_t)l->payload * CIPHER_SECTOR;
}

/* ---- info ---- */

static json_t *describe_slot(const struct slot *s)
{
    json_t *o = json_object();
    json_object_set_new(o, "active", json_boolean(s->active));
    if (s->active) {
        json_object_set_new(o, "iters", json_integer(s->iterations));
    }
    json_object_set_new(o, "key-offset", json_integer((json_int_t)s->sector * CIPHER_SECTOR));
    if (s->active) {
        json_object_set_new(o, "stripes", json_integer(s->stripes));
    }
    return o;
}

void luks_describe(const struct luks *l, bool format, json_t *data)
{
    g_autofree char *alg = g_strdup_printf(
        "%s-%u", l->cipher, l->key_n * 8 / (strcmp(l->block, "xts") ? 1 : 2));
    json_t *slots = json_array();
    for (unsigned i = 0; i < SLOTS; i++) {
        json_array_append_new(slots, describe_slot(&l->slots[i]));
    }
    json_object_set_new(data, "ivgen-alg", json_string(l->ivgen));
    if (*l->ivhash) {
        json_object_set_new(data, "ivgen-hash-alg", json_string(l->ivhash));
    }
    json_object_set_new(data, "hash-alg", json_string(l->hash));
    json_object_set_new(data, "cipher-alg", json_string(alg));
    json_object_set_new(data, "uuid", json_string(l->uuid));
    if (format) {
        json_object_set_new(data, "format", json_string("luks"));
    }
    json_object_set_new(data, "cipher-mode", json_string(l->block));
    json_object_set_new(data, "slots", slots);
    json_object_set_new(data, "payload-offset", json_integer((json_int_t)luks_payload(l)));
    json_object_set_new(data, "master-key-iters", json_integer(l->iterations));
}

/* ---- amend ---- */

static unsigned active_slots(const struct luks *l)
{
    unsigned bits = 0;
    for (unsigned i = 0; i < SLOTS; i++) {
        bits |= l->slots[i].active ? 1u << i : 0;
    }
    return bits;
}

/* Which slot a new passphrase goes to; -1 with an error. */
static int choose_slot(const struct luks *l, const struct luks_amend *how, bool force,
                       GError **error)
{
    unsigned active = active_slots(l);
    if (how->keyslot < 0) {
        int free_slot = ffs((int)~active) - 1;
        if (free_slot >= SLOTS) {
            g_set_error(error, LODGE_ERROR, ENOSPC,
                        "Can't add a keyslot - all keyslots are in use");
            return -1;
        }
        return free_slot;
    }
    if ((active >> how->keyslot & 1) && !force) {
        g_set_error(error, LODGE_ERROR, EBUSY,
                    "Refusing to overwrite active keyslot %d - please erase it first",
                    how->keyslot);
        return -1;
    }
    return how->keyslot;
}

static bool add_passphrase(struct luks *l, const struct luks_amend *how, bool force,
                           GError **error)
{
    if (!how->new_secret) {
        g_set_error(error, LODGE_ERROR, EINVAL, "'new-secret' is required to activate a keyslot");
        return false;
    }
    unsigned opened = 1;
    if (how->old_secret && !try_secret(l, how->old_secret, false, l->key, &opened, error)) {
        return false;
    }
    if (!opened) {
        g_set_error(error, LODGE_ERROR, EACCES,
                    "Failed to retrieve the master key: 'old-secret' opens no keyslot");
        return false;
    }
    int slot = choose_slot(l, how, force, error);
    return slot >= 0 &&
           fill_slot_secret(l, (unsigned)slot, how->new_secret, how->iter_time, error) &&
           write_header(l, error);
}

static bool overwrite_slot(struct luks *l, unsigned i, GError **error)
{
    size_t bytes = material_bytes(l);
    uint64_t at = l->area.at + (uint64_t)l->slots[i].sector * CIPHER_SECTOR;
    g_autofree uint8_t *noise = g_malloc(bytes);
    if (!cipher_random(noise, bytes, error)) {
        return false;
    }
    int r = file_write(l->area.file, at, noise, bytes);
    if (r == 0) {
        r = file_flush(l->area.file);
    }
    if (r < 0) {
        error_set_errno(error, -r, "Cannot erase key material of keyslot %u", i);
    }
    return r == 0;
}

/* The header first: a slot half erased and still active would be an error at every opening. */
static bool erase_slots(struct luks *l, unsigned which, GError **error)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *s = &l->slots[i];
        if (which >> i & 1) {
            *s = (struct slot){.sector = s->sector, .stripes = s->stripes};
        }
    }
    bool ok = write_header(l, error);
    for (unsigned n = 0; ok && n < SLOTS * ERASE_PASSES; n++) {
        unsigned i = n / ERASE_PASSES;
        ok = !(which >> i & 1) || overwrite_slot(l, i, error);
    }
    return ok;
}

/* The slots to erase; 0 with an error. */
static unsigned choose_erased(struct luks *l, const struct luks_amend *how, bool force,
                              GError **error)
{
    uint8_t key[LUKS_KEY_MAX];
    unsigned which = how->keyslot >= 0 ? 1u << how->keyslot : active_slots(l), matching = which;
    if (how->old_secret && !try_secret(l, how->old_secret, true, key, &matching, error)) {
        return 0;
    }
    explicit_bzero(key, sizeof(key));
    which &= matching;
    if (!which) {
        g_set_error(error, LODGE_ERROR, EACCES,
                    "No keyslots match given (old) password for erase operation");
    } else if (!(which & active_slots(l)) && !force) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Given keyslot %d is already erased (inactive)",
                    how->keyslot);
        which = 0;
    } else if (!(active_slots(l) & ~which) && !force) {
        g_set_error(error, LODGE_ERROR, EPERM,
                    "Erasing every active keyslot would make the data unreadable for ever - "
                    "refusing operation");
        which = 0;
    }
    return which;
}

static bool erase_passphrase(struct luks *l, const struct luks_amend *how, bool force,
                             GError **error)
{
    const char *extra = how->new_secret ? "new-secret" : how->iter_time ? "iter-time" : NULL;
    if (extra) {
        g_set_error(error, LODGE_ERROR, EINVAL, "'%s' must not be given when erasing keyslots",
                    extra);
        return false;
    }
    if (how->keyslot < 0 && !how->old_secret) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "To erase keyslots, either 'keyslot' or 'old-secret' must be given");
        return false;
    }
    unsigned which = choose_erased(l, how, force, error);
    return which && erase_slots(l, which, error);
}

bool luks_amend(struct luks *l, const struct luks_amend *how, bool force, GError **error)
{
    if (how->keyslot >= SLOTS) {
        g_set_error(error, LODGE_ERROR, ERANGE,
                    "Invalid keyslot %d specified. Must be between 0 and %d", how->keyslot,
                    SLOTS - 1);
        return false;
    }
    return how->active ? add_passphrase(l, how, force, error)
                       : erase_passphrase(l, how, force, error);
}
