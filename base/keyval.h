/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * QEMU's "first,key=value,flag" option text.
 *
 * A comma inside a value is written ",,".  The first item may lack its key: it is then the
 * value of @implied.  A later item without "=" is a switch: "server" is server=on and
 * "nowait" is wait=off.  Of a key given twice the last counts.
 *
 * Who reads a key marks it as known; keyval_done() at the end names the ones nobody asked
 * for, so each option has its list of keys in one place: the code that uses them.
 */
typedef struct keyval KeyVal;

KeyVal *keyval_parse(const char *text, const char *implied, GError **error);
KeyVal *keyval_new(void);
void keyval_free(KeyVal *kv); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(KeyVal, keyval_free)

void keyval_set(KeyVal *kv, const char *key, const char *value);
/* NULL if absent; valid until keyval_free(). */
const char *keyval_get(KeyVal *kv, const char *key);
/* @out is left alone if the key is absent; false if the value does not fit. */
bool keyval_bool(KeyVal *kv, const char *key, bool *out, GError **error);
bool keyval_u64(KeyVal *kv, const char *key, uint64_t max, uint64_t *out, GError **error);
bool keyval_unsigned(KeyVal *kv, const char *key, unsigned max, unsigned *out, GError **error);
/* With suffix; a bare number counts in @unit bytes. */
bool keyval_size(KeyVal *kv, const char *key, uint64_t unit, uint64_t *out, GError **error);
/* Fails if a key was given that nobody has asked for. */
bool keyval_done(KeyVal *kv, GError **error);
/* The pairs in the order in which they were given, and whether somebody asked for them. */
unsigned keyval_count(const KeyVal *kv);
const char *keyval_key(const KeyVal *kv, unsigned i);
const char *keyval_value(const KeyVal *kv, unsigned i);
bool keyval_known(const KeyVal *kv, unsigned i);
/* The pairs that nobody has asked for, as option text again; NULL if there are none. */
char *keyval_rest(const KeyVal *kv);

/* on/off/yes/no/true/false/y/n. */
bool text_bool(const char *text, bool *out);
/* Decimal or 0x hex, all of @text. */
bool text_u64(const char *text, uint64_t *out);
/* "512", "1.5G", "64k": suffixes b k M G T P E, binary; a bare number counts in @unit. */
bool text_size(const char *text, uint64_t unit, uint64_t *out);
