/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/error.h"
#include "schema/remote.h"

/*
 * Errors on the wire.  A verb says only the detail; the words that clients print in front of it
 * ("Domain not found: ") belong to the code and are put there by libvirt_error().
 */

/* @out, made of @error for a verb of family @domain; borrows from @error and from literals. */
struct error_body {
    rpc_error error;
    char *message;
    char *str1, *str2; /* what the maybe-strings of .error point at */
};
void error_body_make(struct error_body *out, const GError *error, int domain);
void error_body_clear(struct error_body *body);
/* The other way, at the client. */
GError *error_from_body(const rpc_error *body);
