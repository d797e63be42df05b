/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/error.h"

#include "base/error.h"

#include <string.h>

/*
 * The numbers and leading words of libvirt's errors: what its clients compare and print.
 */
ERROR_DOMAIN(libvirt_error)

static const struct {
    int code;
    const char *words;
} table[] = {
    {ERR_INTERNAL, "internal error: %s"},
    {ERR_NO_MEMORY, "out of memory: %s"},
    {ERR_NO_SUPPORT, "this function is not supported by the connection driver: %s"},
    {ERR_INVALID_ARG, "invalid argument: %s"},
    {ERR_OPERATION_FAILED, "operation failed: %s"},
    {ERR_XML, "XML error: %s"},
    {ERR_DOM_EXIST, "domain %s exists already"},
    {ERR_OPERATION_DENIED, "operation %s forbidden for read only access"},
    {ERR_OPEN_FAILED, "failed to open %s"},
    {ERR_NETWORK_EXIST, "network %s exists already"},
    {ERR_INVALID_MAC, "invalid MAC address: %s"},
    {ERR_MIGRATE_PERSIST, "Failed to make domain persistent after migration: %s"},
    {ERR_STORAGE_POOL_BUILT, "Storage pool already built: %s"},
    {ERR_MIGRATE_UNSAFE, "Unsafe migration: %s"},
    {ERR_OVERFLOW, "numerical overflow: %s"},
    {ERR_BLOCK_COPY_ACTIVE, "block copy still active: %s"},
    {ERR_SYSTEM, "%s"},
    {ERR_RPC, "%s"},
    {ERR_NO_DOMAIN, "Domain not found: %s"},
    {ERR_NO_NETWORK, "Network not found: %s"},
    {ERR_AUTH_FAILED, "authentication failed: %s"},
    {ERR_NO_STORAGE_POOL, "Storage pool not found: %s"},
    {ERR_NO_STORAGE_VOL, "Storage volume not found: %s"},
    {ERR_NO_NODE_DEVICE, "Node device not found: %s"},
    {ERR_OPERATION_INVALID, "Requested operation is not valid: %s"},
    {ERR_NO_INTERFACE, "Interface not found: %s"},
    {ERR_NO_NWFILTER, "Network filter not found: %s"},
    {ERR_INVALID_SECRET, "Invalid secret: %s"},
    {ERR_NO_SECRET, "Secret not found: %s"},
    {ERR_CONFIG_UNSUPPORTED, "unsupported configuration: %s"},
    {ERR_OPERATION_TIMEOUT, "Timed out during operation: %s"},
    {ERR_NO_DOMAIN_SNAPSHOT, "Domain snapshot not found: %s"},
    {ERR_ARGUMENT_UNSUPPORTED, "argument unsupported: %s"},
    {ERR_SNAPSHOT_REVERT_RISKY, "revert requires force: %s"},
    {ERR_OPERATION_ABORTED, "operation aborted: %s"},
    {ERR_AUTH_CANCELLED, "authentication cancelled: %s"},
    {ERR_NO_DOMAIN_METADATA, "metadata not found: %s"},
    {ERR_OPERATION_UNSUPPORTED, "Operation not supported: %s"},
    {ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding: %s"},
    {ERR_RESOURCE_BUSY, "resource busy: %s"},
    {ERR_ACCESS_DENIED, "access denied: %s"},
    {ERR_STORAGE_VOL_EXIST, "storage volume '%s' exists already"},
    {ERR_CPU_INCOMPATIBLE, "the CPU is incompatible with host CPU: %s"},
    {ERR_XML_INVALID_SCHEMA, "XML document failed to validate against schema: %s"},
    {ERR_MIGRATE_FINISH_OK, "migration successfully aborted: %s"},
    {ERR_AUTH_UNAVAILABLE, "authentication unavailable: %s"},
    {ERR_NO_CLIENT, "Client not found: %s"},
    {ERR_AGENT_UNSYNCED, "guest agent replied with wrong id to guest-sync command: %s"},
    {ERR_DEVICE_MISSING, "device not found: %s"},
    {ERR_NO_DOMAIN_CHECKPOINT, "Domain checkpoint not found: %s"},
    {ERR_NO_DOMAIN_BACKUP, "Domain backup job id not found: %s"},
    {ERR_NO_HOSTNAME, "no hostname found: %s"},
};

const char *libvirt_error_words(int code)
{
    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        if (table[i].code == code) {
            return table[i].words;
        }
    }
    return "%s";
}

char *libvirt_error_text(int code, const char *detail)
{
    const char *words = libvirt_error_words(code), *at = strstr(words, "%s");
    return g_strdup_printf("%.*s%s%s", (int)(at - words), words, detail, at + 2);
}

void libvirt_error(GError **error, enum libvirt_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *detail = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_autofree char *text = libvirt_error_text(code, detail);
    g_set_error_literal(error, LIBVIRT_ERROR, code, text);
}

enum libvirt_code libvirt_error_code(const GError *error)
{
    if (error->domain == LIBVIRT_ERROR) {
        return (enum libvirt_code)error->code;
    }
    return error->domain == LODGE_ERROR && error->code == ENOMEM ? ERR_NO_MEMORY
                                                                 : ERR_OPERATION_FAILED;
}
