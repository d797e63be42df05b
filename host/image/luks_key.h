/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* Arithmetic of LUKS keys.  @hash is libgcrypt's number. */
enum { LUKS_SALT = 32, LUKS_KEY_MAX = 64, LUKS_ITERATIONS_MIN = 1000 };

/* PBKDF2. */
bool luks_derive(int hash, const uint8_t *pass, size_t pass_n, const uint8_t salt[LUKS_SALT],
                 uint32_t iterations, uint8_t *out, size_t out_n, GError **error);
/* How many iterations for @out_n bytes this machine does in @ms milliseconds. */
bool luks_iterations(int hash, size_t out_n, uint64_t ms, uint32_t *out, GError **error);
/*
 * The anti-forensic splitter: @stripes times @n bytes from which nothing of the key can be
 * had when any of them is lost.
 */
bool luks_split(int hash, const uint8_t *key, size_t n, unsigned stripes, uint8_t *out,
                GError **error);
void luks_merge(int hash, const uint8_t *split, size_t n, unsigned stripes, uint8_t *key);
