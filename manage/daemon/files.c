/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/files.h"

#include "base/util.h"
#include "manage/daemon/daemon.h"
#include "manage/error.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { STUCK_MAX = 256 };

/* Paths that threads of ours still wait for; daemon lock. */
static GHashTable *stuck;

struct look {
    char **paths;
    struct stat *found;
    unsigned n;
    atomic_uint at; /* which of them it looks at */
    bool done, abandoned;
};

static void look_free(struct look *l)
{
    g_strfreev(l->paths);
    g_free(l->found);
    g_free(l);
}

static gpointer look(gpointer data)
{
    struct look *l = data;
    for (; l->at < l->n; l->at++) {
        if (stat(l->paths[l->at], &l->found[l->at]) != 0) {
            l->found[l->at] = (struct stat){0};
        }
    }
    daemon_lock();
    l->done = true;
    if (l->abandoned) {
        for (unsigned i = 0; i < l->n; i++) {
            g_hash_table_remove(stuck, l->paths[i]);
        }
        look_free(l);
    }
    daemon_wake();
    daemon_unlock();
    return NULL;
}

static bool silent(const char *path, GError **error)
{
    libvirt_error(error, ERR_OPERATION_TIMEOUT, "'%s' does not answer", path);
    return false;
}

static bool known_to_be_silent(const char *const *paths, GError **error)
{
    for (unsigned i = 0; stuck && paths[i]; i++) {
        if (g_hash_table_contains(stuck, paths[i]) || g_hash_table_size(stuck) >= STUCK_MAX) {
            silent(paths[i], error);
            return true;
        }
    }
    return false;
}

static void give_up(struct look *l)
{
    l->abandoned = true;
    if (!stuck) {
        stuck = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    }
    for (unsigned i = l->at; i < l->n; i++) {
        g_hash_table_add(stuck, g_strdup(l->paths[i]));
    }
}

bool files_answer(const char *const *paths, struct stat *found, unsigned seconds, GError **error)
{
    int64_t end = g_get_monotonic_time() + daemon_patience(seconds) * (int64_t)G_USEC_PER_SEC;
    if (!paths[0]) {
        return true;
    }
    if (known_to_be_silent(paths, error)) {
        return false;
    }
    struct look *l = g_new0(struct look, 1);
    l->paths = g_strdupv((char **)paths);
    l->n = g_strv_length(l->paths);
    l->found = g_new0(struct stat, l->n);
    GThread *thread = g_thread_try_new("files", look, l, NULL);
    if (!thread) {
        look_free(l);
        return silent(paths[0], error);
    }
    g_thread_unref(thread);
    while (!l->done && daemon_wait(end)) {
    }
    if (!l->done) {
        silent(l->paths[l->at], error);
        give_up(l);
        return false;
    }
    if (found) {
        memcpy(found, l->found, l->n * sizeof(*found));
    }
    look_free(l);
    return true;
}

bool file_answers(const char *path, struct stat *found, GError **error)
{
    return files_answer((const char *const[]){path, NULL}, found, FILES_SECONDS, error);
}

int socket_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (g_strlcpy(address.sun_path, path, sizeof(address.sun_path)) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        return -1;
    }
    return g_steal_fd(&fd);
}
