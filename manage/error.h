/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>

/*
 * Errors as libvirt's clients know them: GErrors of domain LIBVIRT_ERROR whose code is libvirt's
 * number, which decides what a client does; the message is what it prints.
 */
#define LIBVIRT_ERROR libvirt_error_quark()
GQuark libvirt_error_quark(void);

enum libvirt_code {
    ERR_INTERNAL = 1,
    ERR_NO_MEMORY = 2,
    ERR_NO_SUPPORT = 3,
    ERR_NO_CONNECT = 5,
    ERR_INVALID_CONN = 6,
    ERR_INVALID_DOMAIN = 7,
    ERR_INVALID_ARG = 8,
    ERR_OPERATION_FAILED = 9,
    ERR_XML = 27,
    ERR_DOM_EXIST = 28,
    ERR_OPERATION_DENIED = 29,
    ERR_OPEN_FAILED = 30,
    ERR_XML_DETAIL = 35,
    ERR_INVALID_NETWORK = 36,
    ERR_NETWORK_EXIST = 37,
    ERR_SYSTEM = 38,
    ERR_RPC = 39,
    ERR_NO_DOMAIN = 42,
    ERR_NO_NETWORK = 43,
    ERR_INVALID_MAC = 44,
    ERR_AUTH_FAILED = 45,
    ERR_NO_STORAGE_POOL = 49,
    ERR_NO_STORAGE_VOL = 50,
    ERR_NO_NODE_DEVICE = 53,
    ERR_OPERATION_INVALID = 55,
    ERR_NO_INTERFACE = 57,
    ERR_NO_NWFILTER = 62,
    ERR_INVALID_SECRET = 65,
    ERR_NO_SECRET = 66,
    ERR_CONFIG_UNSUPPORTED = 67,
    ERR_OPERATION_TIMEOUT = 68,
    ERR_MIGRATE_PERSIST = 69,
    ERR_NO_DOMAIN_SNAPSHOT = 72,
    ERR_ARGUMENT_UNSUPPORTED = 74,
    ERR_STORAGE_POOL_BUILT = 76,
    ERR_SNAPSHOT_REVERT_RISKY = 77,
    ERR_OPERATION_ABORTED = 78,
    ERR_AUTH_CANCELLED = 79,
    ERR_NO_DOMAIN_METADATA = 80,
    ERR_MIGRATE_UNSAFE = 81,
    ERR_OVERFLOW = 82,
    ERR_BLOCK_COPY_ACTIVE = 83,
    ERR_OPERATION_UNSUPPORTED = 84,
    ERR_AGENT_UNRESPONSIVE = 86,
    ERR_RESOURCE_BUSY = 87,
    ERR_ACCESS_DENIED = 88,
    ERR_STORAGE_VOL_EXIST = 90,
    ERR_CPU_INCOMPATIBLE = 91,
    ERR_XML_INVALID_SCHEMA = 92,
    ERR_MIGRATE_FINISH_OK = 93,
    ERR_AUTH_UNAVAILABLE = 94,
    ERR_NO_CLIENT = 96,
    ERR_AGENT_UNSYNCED = 97,
    ERR_DEVICE_MISSING = 99,
    ERR_NO_NWFILTER_BINDING = 101,
    ERR_NO_DOMAIN_CHECKPOINT = 103,
    ERR_NO_DOMAIN_BACKUP = 104,
    ERR_NETWORK_PORT_EXIST = 106,
    ERR_NO_NETWORK_PORT = 107,
    ERR_NO_HOSTNAME = 108,
};

/*
 * Sets an error with the words that libvirt puts in front of this code: ERR_NO_DOMAIN gives
 * "Domain not found: " and then @fmt.
 */
void libvirt_error(GError **error, enum libvirt_code code, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);
/* "internal error: %s": the words in front of the detail, as a format with one %s. */
const char *libvirt_error_words(int code);
/* The words of @code with @detail in the place of their one %s. */
char *libvirt_error_text(int code, const char *detail);
/* The code of any GError: a foreign one counts as a failed operation. */
enum libvirt_code libvirt_error_code(const GError *error);
