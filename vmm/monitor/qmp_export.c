/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/qmp_handlers.h"

#include "base/inet.h"
#include "base/json.h"
#include "base/util.h"
#include "host/image/options.h"
#include "vmm/export.h"
#include "vmm/monitor/monitor.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The NBD server, its socket and exports. */

#define HANDLER(name) json_t *qmp_##name(json_t *args, GError **error)
#define UNUSED        (void)args, (void)error
enum { BACKLOG = 128 };

static int listen_at(int family, const struct sockaddr *to, socklen_t n)
{
    int on = 1;
    autofd int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, to, n) < 0 || listen(fd, BACKLOG) < 0) {
        return -1;
    }
    return g_steal_fd(&fd);
}

static int listen_unix(const char *path, GError **error)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof(to.sun_path)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "UNIX socket path is missing or too long");
        return -1;
    }
    g_strlcpy(to.sun_path, path, sizeof(to.sun_path));
    unix_forget(path);
    int fd = listen_at(AF_UNIX, (struct sockaddr *)&to, sizeof(to));
    if (fd < 0) {
        error_set_errno(error, errno, "Failed to bind socket to %s", path);
    }
    return fd;
}

static int listen_inet(const char *host, const char *port, GError **error)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list = NULL;
    int fd = -1;
    if (!port || !inet_look_up(host, port, &hints, &list, error)) {
        if (!port) {
            g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'addr.data.port' is missing");
        }
        return -1;
    }
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = listen_at(a->ai_family, a->ai_addr, a->ai_addrlen);
    }
    int code = errno;
    freeaddrinfo(list);
    if (fd < 0) {
        error_set_errno(error, code, "Failed to listen at %s:%s", host ? host : "", port);
    }
    return fd;
}

static int listen_as(json_t *addr, GError **error)
{
    const char *type = qmp_str(addr, "type");
    json_t *data = json_object_get(addr, "data");
    if (!g_strcmp0(type, "unix")) {
        return listen_unix(qmp_str(data, "path"), error);
    }
    if (!g_strcmp0(type, "inet")) {
        return listen_inet(qmp_str(data, "host"), qmp_str(data, "port"), error);
    }
    if (!g_strcmp0(type, "fd") && qmp_str(data, "str")) {
        return monitor_take_fd(qmp_str(data, "str"), error);
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "addr.type is inet, unix or fd");
    return -1;
}

HANDLER(nbd_server_start)
{
    uint64_t most = 100; /* as QEMU has it */
    struct nbd_start how = {.tls_creds = qmp_str(args, "tls-creds")};
    if (qmp_str(args, "tls-authz")) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "tls-authz is not supported");
        return NULL;
    }
    if (!json_u64(args, "max-connections", &most, error)) {
        return NULL;
    }
    if (export_server_runs()) { /* before its socket's name is taken from it */
        g_set_error(error, LODGE_ERROR, EBUSY, "NBD server already running");
        return NULL;
    }
    how.clients = (unsigned)MIN(most, UINT32_MAX);
    how.listening = listen_as(json_object_get(args, "addr"), error);
    if (how.listening >= 0) {
        export_server_start(&how, error);
    }
    return NULL;
}

HANDLER(nbd_server_stop)
{
    (void)args;
    export_server_stop(error);
    return NULL;
}

HANDLER(nbd_server_add)
{
    const char *device = qmp_str(args, "device"), *name = qmp_str(args, "name");
    const char *bitmap = qmp_str(args, "bitmap");
    g_autoptr(json_t) bitmaps = bitmap ? json_pack("[s]", bitmap) : NULL;
    struct export_add what = {.id = name ? name : device,
                              .node = device,
                              .name = name,
                              .description = qmp_str(args, "description"),
                              .bitmaps = bitmaps};
    if (json_bool(args, "writable", &what.writable, error)) {
        export_add(&what, error);
    }
    return NULL;
}

HANDLER(nbd_server_remove)
{
    export_remove(qmp_str(args, "name"), error);
    return NULL;
}

HANDLER(block_export_add)
{
    const char *type = qmp_str(args, "type");
    struct export_add what = {.id = qmp_str(args, "id"),
                              .node = qmp_str(args, "node-name"),
                              .name = qmp_str(args, "name"),
                              .description = qmp_str(args, "description"),
                              .bitmaps = json_object_get(args, "bitmaps")};
    if (strcmp(type, "nbd") != 0) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "exports of type '%s' are not supported", type);
        return NULL;
    }
    if (json_bool(args, "writable", &what.writable, error) &&
        json_bool(args, "allocation-depth", &what.depth, error)) {
        export_add(&what, error);
    }
    return NULL;
}

HANDLER(block_export_del)
{
    export_remove(qmp_str(args, "id"), error);
    return NULL;
}

HANDLER(query_block_exports)
{
    UNUSED;
    return export_list();
}
