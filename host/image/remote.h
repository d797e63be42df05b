/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <jansson.h>

/* What the network protocols share: how their names and options are read. */

/* Fails if @object has a key that is not in @known (ends with NULL). */
bool remote_keys(const json_t *object, const char *const *known, GError **error);
/* The same for a protocol's own options, beside which those that every node has may stand. */
bool remote_options(const json_t *object, const char *const *known, GError **error);
/* Parts are decoded, but for the query. */
GUri *remote_uri(const char *name, GError **error);
/* ?key=value&key=value, decoded; empty if there is none. */
GHashTable *remote_query(GUri *uri, GError **error);
