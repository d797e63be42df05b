/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "schema/remote.h"

#include <glib.h>
#include <stdbool.h>

/*
 * Errors as libvirt's clients know them: the code decides what a client does, the message
 * is what it prints.
 *
 * A verb says only the detail; the words that clients print in front of it ("Domain not
 * found: ") belong to the code and are put there by libvirt_error().
 */
#define LIBVIRT_ERROR libvirt_error_quark()
GQuark libvirt_error_quark(void);

enum libvirt_code {
    ERR_INTERNAL = 1,
    ERR_NO_MEMORY = 2,
    ERR_NO_SUPPORT = 3,
    ERR_INVALID_ARG = 8,
    ERR_OPERATION_FAILED = 9,
    ERR_XML = 27,
    ERR_DOM_EXIST = 28,
    ERR_OPERATION_DENIED = 29,
    ERR_SYSTEM = 38,
    ERR_RPC = 39,
    ERR_NO_DOMAIN = 42,
    ERR_NO_NETWORK = 43,
    ERR_AUTH_FAILED = 45,
    ERR_NO_POOL = 49,
    ERR_NO_VOLUME = 50,
    ERR_NO_NODE_DEVICE = 53,
    ERR_OPERATION_INVALID = 55,
    ERR_NO_INTERFACE = 57,
    ERR_NO_NWFILTER = 62,
    ERR_NO_SECRET = 66,
    ERR_CONFIG_UNSUPPORTED = 67,
    ERR_OPERATION_TIMEOUT = 68,
    ERR_NO_SNAPSHOT = 72,
    ERR_ARGUMENT_UNSUPPORTED = 74,
    ERR_SNAPSHOT_REVERT_RISKY = 76,
    ERR_OPERATION_ABORTED = 78,
    ERR_AUTH_CANCELLED = 79,
    ERR_NO_METADATA = 80,
    ERR_OPERATION_UNSUPPORTED = 84,
    ERR_AGENT_UNRESPONSIVE = 86,
    ERR_RESOURCE_BUSY = 87,
    ERR_ACCESS_DENIED = 88,
    ERR_VOL_EXIST = 90,
    ERR_CPU_INCOMPATIBLE = 91,
    ERR_XML_INVALID_SCHEMA = 92,
    ERR_MIGRATE_FINISH_OK = 93,
    ERR_AUTH_UNAVAILABLE = 94,
    ERR_NO_CLIENT = 96,
    ERR_AGENT_UNSYNCED = 97,
    ERR_DEVICE_MISSING = 99,
    ERR_NO_CHECKPOINT = 103,
    ERR_NO_BACKUP = 104,
    ERR_AGENT_COMMAND_TIMEOUT = 108,
    ERR_AGENT_COMMAND_FAILED = 109,
};

/* Sets @error in our domain; @fmt is the detail. */
void libvirt_error(GError **error, enum libvirt_code code, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);
/* "internal error: %s": the words in front of the detail, as a format with one %s. */
const char *libvirt_error_words(int code);
/* The code of any GError: a foreign one counts as a failed operation. */
enum libvirt_code libvirt_error_code(const GError *error);

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
