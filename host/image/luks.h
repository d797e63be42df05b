/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdint.h>

/*
 * The header of LUKS version 1: what was encrypted how, and up to eight passphrases that open
 * it.  The format "luks" has it at the start of its file, qcow2 with encrypt.format=luks in a
 * few clusters of its own.
 */
struct cipher;
struct file;
struct luks;
struct options;

struct luks_area { /* where the header and its key slots lie */
    struct file *file;
    uint64_t at, length; /* bytes */
};

struct luks_params { /* of a new one; NULL or 0: the default */
    const char *cipher_alg;  /* "aes-256" */
    const char *cipher_mode; /* "xts" */
    const char *ivgen_alg, *ivgen_hash_alg;
    const char *hash_alg;
    uint64_t iter_time; /* milliseconds that trying a passphrase takes */
    const char *key_secret; /* id of the secret with the first passphrase */
};

/* Bytes of the header with its key slots; the payload of a "luks" file starts there. */
bool luks_header_size(const struct luks_params *params, uint64_t *out, GError **error);
/* Writes header and first key slot; the area is as long as luks_header_size() says. */
struct luks *luks_create(const struct luks_area *area, const struct luks_params *params,
                         GError **error);
/* @key_secret: id of the secret that opens it, or NULL: for luks_describe() only. */
struct luks *luks_open(const struct luks_area *area, const char *key_secret, bool untrusted,
                       GError **error);
void luks_free(struct luks *l); /* NULL is fine */
struct cipher *luks_cipher(const struct luks *l); /* @l's; NULL if it was not opened by a secret */
uint64_t luks_payload(const struct luks *l); /* bytes from the start of the header */
/* Adds QEMU's keys in QEMU's order; @format: among them "format", as qcow2's "encrypt" has it. */
void luks_describe(const struct luks *l, bool format, json_t *data);

struct luks_amend {
    bool active;      /* state: add a passphrase, or erase some */
    int keyslot;      /* -1: not given */
    uint64_t iter_time; /* 0: the default */
    const char *new_secret, *old_secret; /* ids; NULL: not given */
};
bool luks_amend(struct luks *l, const struct luks_amend *how, bool force, GError **error);

/* From -o options whose names start with @prefix: "" or "encrypt.".  They stay the owner. */
bool luks_params_of(const struct options *o, const char *prefix, struct luks_params *out,
                    GError **error);
bool luks_amend_of(const struct options *o, const char *prefix, struct luks_amend *out,
                   GError **error);
