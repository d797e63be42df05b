/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/transport.h"

#include "base/inet.h"
#include "base/keyval.h"
#include "base/util.h"
#include "vmm/monitor/monitor.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* A new file takes the old one's place when it is whole; what is no file is written as it is. */
static bool open_file(struct transport *t, const char *path, GError **error)
{
    struct stat st;
    bool there = stat(path, &st) == 0;
    if (!t->out || (there && !S_ISREG(st.st_mode))) {
        t->fd = open(path, (t->out ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
        if (t->fd < 0) {
            error_set_errno(error, errno, "%s", path);
        }
        return t->fd >= 0;
    }
    char *target = there ? realpath(path, NULL) : NULL; /* a link stays one */
    t->path = g_strdup(target ? target : path);
    free(target);
    t->temporary = g_strdup_printf("%s.XXXXXX", t->path);
    t->fd = g_mkstemp_full(t->temporary, O_WRONLY | O_CLOEXEC, 0600);
    if (t->fd < 0) {
        error_set_errno(error, errno, "%s", path);
        g_clear_pointer(&t->temporary, g_free);
        g_clear_pointer(&t->path, g_free);
    }
    return t->fd >= 0;
}

static bool open_exec(struct transport *t, const char *command, GError **error)
{
    const char *argv[] = {"/bin/sh", "-c", command, NULL};
    int fds[2];
    if (!confine_may_spawn()) {
        g_set_error(error, LODGE_ERROR, EPERM, "exec: is not possible with -sandbox on,spawn=deny");
        return false;
    }
    if (pipe2(fds, O_CLOEXEC) < 0) {
        error_set_errno(error, errno, "pipe");
        return false;
    }
    int theirs = t->out ? fds[0] : fds[1], ours = t->out ? fds[1] : fds[0];
    g_autoptr(GError) why = NULL;
    bool ok = g_spawn_async_with_pipes_and_fds(
        NULL, argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, t->out ? theirs : -1,
        t->out ? -1 : theirs, -1, NULL, NULL, 0, &t->child, NULL, NULL, NULL, &why);
    close(theirs);
    if (!ok) {
        close(ours);
        g_set_error(error, LODGE_ERROR, EIO, "%s", why->message);
        return false;
    }
    t->fd = ours;
    return true;
}

static bool finish_socket(struct transport *t, int fd, const struct sockaddr *addr, socklen_t len)
{
    int r = t->out ? connect(fd, addr, len) : bind(fd, addr, len);
    if (r < 0 || (!t->out && listen(fd, 1) < 0)) {
        return false;
    }
    *(t->out ? &t->fd : &t->listener) = fd;
    return true;
}

static bool open_unix(struct transport *t, const char *path, GError **error)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(addr.sun_path)) {
        g_set_error(error, LODGE_ERROR, ENAMETOOLONG, "socket path is too long");
        return false;
    }
    memcpy(addr.sun_path, path, strlen(path));
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!t->out) {
        unix_forget(path);
        t->path = g_strdup(path);
    }
    if (fd < 0 || !finish_socket(t, fd, (struct sockaddr *)&addr, sizeof(addr))) {
        error_set_errno(error, errno, "%s", path);
        return false;
    }
    fd = -1;
    return true;
}

static bool open_tcp(struct transport *t, const char *where, GError **error)
{
    const char *colon = strrchr(where, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = t->out ? 0 : AI_PASSIVE}, *list;
    g_autofree char *host = g_strndup(where, colon ? (size_t)(colon - where) : 0);
    int on = 1;
    if (!colon) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: not HOST:PORT", where);
        return false;
    }
    if (!inet_look_up(host, colon + 1, &hints, &list, error)) {
        return false;
    }
    bool ok = false;
    for (struct addrinfo *a = list; a && !ok; a = a->ai_next) {
        autofd int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, a->ai_protocol);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        ok = fd >= 0 && finish_socket(t, fd, a->ai_addr, a->ai_addrlen);
        fd = ok ? -1 : fd;
    }
    int saved = errno;
    freeaddrinfo(list);
    if (!ok) {
        error_set_errno(error, saved, "%s", where);
    }
    return ok;
}

/* A number, or a name of getfd; a listening socket waits for its peer. */
static bool open_fd(struct transport *t, const char *name, GError **error)
{
    int listening = 0, fd = monitor_take_fd(name, error);
    socklen_t n = sizeof(listening);
    if (fd < 0) {
        return false;
    }
    if (!t->out && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) < 0) {
        listening = 0;
    }
    *(listening ? &t->listener : &t->fd) = fd;
    return true;
}

bool transport_open(struct transport *t, const char *uri, bool out, GError **error)
{
    static const struct {
        const char *prefix;
        bool (*open)(struct transport *t, const char *rest, GError **error);
    } kinds[] = {{"file:", open_file}, {"exec:", open_exec}, {"unix:", open_unix},
                 {"tcp:", open_tcp},   {"fd:", open_fd}};
    *t = (struct transport){.fd = -1, .listener = -1, .out = out};
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (g_str_has_prefix(uri, kinds[i].prefix)) {
            return kinds[i].open(t, uri + strlen(kinds[i].prefix), error);
        }
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "unknown migration protocol: %s", uri);
    return false;
}

bool transport_accept(struct transport *t, GError **error)
{
    if (t->listener < 0) {
        return true;
    }
    t->fd = accept4(t->listener, NULL, NULL, SOCK_CLOEXEC);
    if (t->fd < 0) {
        error_set_errno(error, errno, "accept");
        return false;
    }
    return true;
}

void transport_interrupt(struct transport *t)
{
    if (t->fd >= 0) {
        shutdown(t->fd, SHUT_RDWR);
    }
    if (t->child) {
        kill(t->child, SIGTERM);
    }
}

static bool end_child(struct transport *t, bool ok, GError **error)
{
    int status = 0;
    while (waitpid(t->child, &status, 0) < 0 && errno == EINTR) {
    }
    t->child = 0;
    if (ok && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        g_set_error(error, LODGE_ERROR, EIO, "the command failed with %s %d",
                    WIFEXITED(status) ? "exit code" : "signal",
                    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
        return false;
    }
    return true;
}

static bool end_file(struct transport *t, bool ok, GError **error)
{
    bool kept = ok && fsync(t->fd) == 0 && rename(t->temporary, t->path) == 0;
    if (ok && !kept) {
        error_set_errno(error, errno, "%s", t->path);
    }
    if (!kept) {
        unlink(t->temporary);
    }
    return kept;
}

bool transport_close(struct transport *t, bool ok, GError **error)
{
    bool kept = ok;
    if (t->temporary) {
        kept = end_file(t, ok, error);
    } else if (t->path) {
        unlink(t->path); /* the socket's */
    }
    if (t->fd >= 0) {
        close(t->fd);
    }
    if (t->listener >= 0) {
        close(t->listener);
    }
    if (t->child) {
        kept = end_child(t, kept, error) && kept;
    }
    g_clear_pointer(&t->path, g_free);
    g_clear_pointer(&t->temporary, g_free);
    t->fd = t->listener = -1;
    return kept;
}
