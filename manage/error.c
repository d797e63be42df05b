/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/error.h"

G_DEFINE_QUARK(lodge_libvirt_error, libvirt_error)

static const char *const words[] = {
    [ERR_INTERNAL] = "internal error",
    [ERR_NO_MEMORY] = "out of memory",
    [ERR_NO_SUPPORT] = "this function is not supported by the connection driver",
    [ERR_NO_CONNECT] = "no connection driver available for",
    [ERR_INVALID_CONN] = "invalid connection pointer in",
    [ERR_INVALID_DOMAIN] = "invalid domain pointer in",
    [ERR_INVALID_ARG] = "invalid argument",
    [ERR_OPERATION_FAILED] = "operation failed",
    [ERR_XML] = "XML error",
    [ERR_DOM_EXIST] = "domain already exists",
    [ERR_OPERATION_DENIED] = "operation forbidden",
    [ERR_OPEN_FAILED] = "failed to open",
    [ERR_NETWORK_EXIST] = "network already exists",
    [ERR_NO_DOMAIN] = "Domain not found",
    [ERR_NO_NETWORK] = "Network not found",
    [ERR_INVALID_MAC] = "invalid MAC address",
    [ERR_AUTH_FAILED] = "authentication failed",
    [ERR_NO_STORAGE_POOL] = "Storage pool not found",
    [ERR_NO_STORAGE_VOL] = "Storage volume not found",
    [ERR_NO_NODE_DEVICE] = "Node device not found",
    [ERR_OPERATION_INVALID] = "Requested operation is not valid",
    [ERR_NO_INTERFACE] = "Interface not found",
    [ERR_NO_NWFILTER] = "Network filter not found",
    [ERR_NO_SECRET] = "Secret not found",
    [ERR_CONFIG_UNSUPPORTED] = "unsupported configuration",
    [ERR_OPERATION_TIMEOUT] = "Timed out during operation",
    [ERR_MIGRATE_PERSIST] = "Failed to make domain persistent after migration",
    [ERR_NO_DOMAIN_SNAPSHOT] = "Domain snapshot not found",
    [ERR_ARGUMENT_UNSUPPORTED] = "argument unsupported",
    [ERR_STORAGE_POOL_BUILT] = "Storage pool already built",
    [ERR_SNAPSHOT_REVERT_RISKY] = "revert requires force",
    [ERR_OPERATION_ABORTED] = "operation aborted",
    [ERR_AUTH_CANCELLED] = "authentication cancelled",
    [ERR_NO_DOMAIN_METADATA] = "metadata not found",
    [ERR_MIGRATE_UNSAFE] = "Unsafe migration",
    [ERR_BLOCK_COPY_ACTIVE] = "block copy still active",
    [ERR_OPERATION_UNSUPPORTED] = "Operation not supported",
    [ERR_AGENT_UNRESPONSIVE] = "Guest agent is not responding",
    [ERR_RESOURCE_BUSY] = "resource busy",
    [ERR_ACCESS_DENIED] = "access denied",
    [ERR_STORAGE_VOL_EXIST] = "storage vol already exists",
    [ERR_DEVICE_MISSING] = "device not found",
    [ERR_NO_DOMAIN_CHECKPOINT] = "Domain checkpoint not found",
};

const char *libvirt_error_words(int code)
{
    return code >= 0 && code < (int)G_N_ELEMENTS(words) ? words[code] : NULL;
}

void libvirt_error(GError **error, enum libvirt_error_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    const char *front = libvirt_error_words(code);
    g_set_error(error, LIBVIRT_ERROR, code, "%s%s%s", front ? front : "", front ? ": " : "", text);
}
