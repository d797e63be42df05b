/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/keyval.h"

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

/*
 * What jansson lacks: bounds for text from a peer, and the way from JSON to option text.
 */
enum { JSON_TEXT_MAX = 4 << 20, JSON_DEPTH_MAX = 64 };

G_DEFINE_AUTOPTR_CLEANUP_FUNC(json_t, json_decref)

/* One value, at most JSON_TEXT_MAX bytes and JSON_DEPTH_MAX deep, no key twice. */
json_t *json_parse(const char *text, size_t n, GError **error);
/* {"a": {"b": 1}, "c": true} as the pairs a.b=1, c=on; arrays as a.0, a.1. */
KeyVal *json_to_keyval(const json_t *object, GError **error);

/*
 * Cuts a stream of bytes into JSON texts, with or without line ends between them.  A text
 * that is no object or array ends at a line end.
 */
struct json_framer {
    GString *text;
    unsigned depth;
    bool in_string, escaped, too_long;
};
void json_framer_init(struct json_framer *f);
void json_framer_clear(struct json_framer *f);
/*
 * Takes one byte; true if .text now is one whole text, which the caller uses and then
 * truncates.  False with .too_long set: the peer is to be dropped.
 */
bool json_framer_byte(struct json_framer *f, char c);
