/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/server.h"

#include "base/error.h"
#include "base/util.h"
#include "manage/daemon/client.h"
#include "manage/daemon/daemon.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { CLIENTS_MAX = 5000, BACKLOG = 512 };

static struct listener *listeners;

static void accept_one(struct watch *watch, uint32_t events)
{
    struct listener *l = container_of(watch, struct listener, watch);
    int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    (void)events;
    if (fd < 0) {
        return;
    }
    if (clients_count >= CLIENTS_MAX) {
        daemon_log("a client was turned away: there are %d already", CLIENTS_MAX);
        close(fd);
        return;
    }
    client_new(fd, l);
}

static void listen_on(int fd, int kind, bool read_only, const char *path)
{
    struct listener *l = g_new0(struct listener, 1);
    l->watch = (struct watch){.fd = fd, .events = EPOLLIN, .ready = accept_one};
    l->kind = kind;
    l->read_only = read_only;
    l->path = g_strdup(path);
    l->next = listeners;
    listeners = l;
    poller_add(&l->watch);
}

/* @path must not be in use by a living daemon; a dead one's is taken over. */
static bool in_use(const struct sockaddr_un *address)
{
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0;
}

static bool listen_unix(const char *name, bool read_only, mode_t mode, GError **error)
{
    g_autofree char *path = g_build_filename(daemon_socket_folder(), name, NULL);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        error_set_errno(error, ENAMETOOLONG, "%s", path);
        return false;
    }
    strcpy(address.sun_path, path);
    if (in_use(&address)) {
        error_set_errno(error, EADDRINUSE, "%s", path);
        return false;
    }
    unlink(path);
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t old = umask(0777 & ~mode); /* never open to more than it should be */
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
              listen(fd, BACKLOG) == 0;
    int code = errno;
    umask(old);
    if (!ok) {
        error_set_errno(error, code, "%s", path);
        return false;
    }
    listen_on(g_steal_fd(&fd), LISTEN_UNIX, read_only, path);
    return true;
}

bool server_start(const struct server_options *options, GError **error)
{
    if (g_mkdir_with_parents(daemon_socket_folder(), 0755) != 0) {
        error_set_errno(error, errno, "%s", daemon_socket_folder());
        return false;
    }
    if (!listen_unix("virtlodged-sock", false, 0660, error) ||
        !listen_unix("virtlodged-sock-ro", true, 0666, error)) {
        return false;
    }
    return !options->libvirt_sockets || (listen_unix("libvirt-sock", false, 0660, error) &&
                                         listen_unix("libvirt-sock-ro", true, 0666, error));
}

void server_stop(void)
{
    while (listeners) {
        struct listener *l = listeners;
        listeners = l->next;
        poller_remove(&l->watch);
        close(l->watch.fd);
        if (l->path) {
            unlink(l->path);
        }
        g_free(l->path);
        g_free(l);
    }
    client_drop_all();
}
