/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/*
 * Encryption of disk sectors, by libgcrypt.  A sector is 512 bytes; its number, counted from
 * the start of the encrypted disk, makes its initialization vector.
 */
enum { CIPHER_SECTOR = 512 };

struct cipher;

/*
 * @alg "aes" "serpent" "twofish" "cast5", @mode "xts" "cbc" "ctr" "ecb", @ivgen "plain64"
 * "plain" "essiv" or NULL for none, @ivhash what essiv hashes the key with, or NULL.  The key's
 * length chooses the variant; xts takes two keys in one.
 */
struct cipher *cipher_new(const char *alg, const char *mode, const char *ivgen, const char *ivhash,
                          const uint8_t *key, size_t key_n, GError **error);
void cipher_free(struct cipher *c); /* NULL is fine */
/*
 * In place, from any thread.  @position: bytes from the start of the disk, a multiple of 512.
 * @n a multiple of 512, or at the end of something of the cipher's block.  0 or -EIO.
 */
int cipher_decrypt(struct cipher *c, uint64_t position, void *buf, size_t n);
int cipher_encrypt(struct cipher *c, uint64_t position, void *buf, size_t n);

/* Before anything else of libgcrypt; any number of times, any thread. */
void cipher_library_init(void);
/* libgcrypt's number for "sha256", ...; 0 if there is none such. */
int cipher_hash(const char *name);
bool cipher_random(void *to, size_t n, GError **error);
