/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/keyval.h"
#include "host/image/format.h"

/*
 * Options of -o: text that was checked against a table of option_desc, so that who asks for
 * one gets a value of its type.  And options of -blockdev, --image-opts and json: names: one
 * JSON object, however they were written.
 */
typedef struct options Options;

/* @known ends with .name NULL; @more, perhaps NULL, is a second table of the same kind. */
Options *options_new(const struct option_desc *known, const struct option_desc *more);
void options_free(Options *o); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Options, options_free)
/* "a=b,c=d", with ",," for a comma; may be called several times, the last value counts. */
bool options_parse(Options *o, const char *text, GError **error);
bool options_set(Options *o, const char *name, const char *value, GError **error);

bool option_given(const Options *o, const char *name);
/* NULL, @fallback: not given.  A name that no table has is not given either; NULL as @o too. */
const char *option_str(const Options *o, const char *name);
bool option_bool(const Options *o, const char *name, bool fallback);
uint64_t option_size(const Options *o, const char *name, uint64_t fallback);
uint64_t option_num(const Options *o, const char *name, uint64_t fallback);

/* "a.b=1,c=2" as {"a": {"b": "1"}, "c": "2"}: "a.0", "a.1" make an array. */
json_t *options_nest(KeyVal *kv, GError **error);
/* Puts @value, a reference that is given away, at "a.b.c" under @object. */
bool options_put(json_t *object, const char *path, json_t *value, GError **error);
/* {"driver": "qcow2", "file": {...}} of --image-opts text. */
json_t *options_of_text(const char *text, GError **error);
/* Of an object whose values may be JSON's own or text: @out is left alone if @key is absent. */
const char *json_text(const json_t *object, const char *key);
bool json_bool(const json_t *object, const char *key, bool *out, GError **error);
bool json_u64(const json_t *object, const char *key, uint64_t *out, GError **error);
/* Keys that every node of -blockdev may have, format or protocol; ends with NULL. */
extern const char *const options_of_nodes[];
/* off, metadata, falloc, full. */
bool preallocation_of(const char *text, enum preallocation *out, GError **error);
