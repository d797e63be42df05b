/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files that outlive a power cut.  A flush costs the disk as much for one file as for many, so
 * threads that come while one flushes a folder wait and are then done together, by one of them.
 */
#include "manage/daemon/daemon.h"

#include "base/error.h"
#include "base/util.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <pthread.h>

struct job {
    const char *path;
    const void *bytes;
    size_t n;
    int mode;
    int fd, code; /* -1; 0 or an errno value */
    char *temporary;
    bool done;
    struct job *next;
};

/* Those who write into one folder; a folder that hangs holds up nobody else. */
struct folder {
    char *path;
    struct job *waiting;
    bool busy; /* one of them is at the disk for all */
    unsigned users;
    struct folder *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct folder *folders;

/* --- at the disk --- */

static bool fill(struct job *j)
{
    const char *at = j->bytes;
    j->fd = g_mkstemp_full(j->temporary, O_WRONLY | O_CLOEXEC, 0600);
    if (j->fd < 0) {
        return false;
    }
    for (size_t left = j->n; left;) {
        ssize_t k = write(j->fd, at, left);
        if (k < 0 && errno != EINTR) {
            return false;
        }
        at += MAX(k, 0);
        left -= (size_t)MAX(k, 0);
    }
    return fchmod(j->fd, (mode_t)j->mode) == 0;
}

static void check(struct job *j, bool ok)
{
    j->code = j->code || ok ? j->code : errno;
}

/* A rename lasts when its folder is on the disk. */
static bool sync_folder(const char *path)
{
    autofd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0;
}

static void write_all(const char *folder, struct job *jobs)
{
    for (struct job *j = jobs; j; j = j->next) {
        j->temporary = g_strdup_printf("%s.XXXXXX", j->path);
        check(j, fill(j));
        if (!j->code && jobs->next) {
            sync_file_range(j->fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* begins for all */
        }
    }
    for (struct job *j = jobs; j; j = j->next) {
        check(j, j->code || fdatasync(j->fd) == 0);
        check(j, j->code || g_rename(j->temporary, j->path) == 0);
    }
    bool lasts = sync_folder(folder);
    for (struct job *j = jobs; j; j = j->next) {
        check(j, lasts);
        if (j->fd >= 0 && j->code) {
            unlink(j->temporary);
        }
        if (j->fd >= 0) {
            close(j->fd);
        }
        g_free(j->temporary);
    }
}

/* --- together --- */

static struct folder *folder_of(const char *path)
{
    g_autofree char *name = g_path_get_dirname(path);
    struct folder *f = folders;
    while (f && strcmp(f->path, name) != 0) {
        f = f->next;
    }
    if (!f) {
        f = g_new0(struct folder, 1);
        f->path = g_steal_pointer(&name);
        f->next = folders;
        folders = f;
    }
    f->users++;
    return f;
}

static void folder_leave(struct folder *f)
{
    if (--f->users) {
        return;
    }
    struct folder **at = &folders;
    while (*at != f) {
        at = &(*at)->next;
    }
    *at = f->next;
    g_free(f->path);
    g_free(f);
}

static void lead(struct folder *f)
{
    struct job *jobs = g_steal_pointer(&f->waiting);
    f->busy = true;
    pthread_mutex_unlock(&lock);
    write_all(f->path, jobs);
    pthread_mutex_lock(&lock);
    f->busy = false;
    for (struct job *j = jobs, *next; j; j = next) {
        next = j->next; /* who sees that it is done goes away with it */
        j->done = true;
    }
    pthread_cond_broadcast(&changed);
}

bool daemon_write_file(const char *path, const char *text, gssize n, int mode, GError **error)
{
    struct job own = {
        .path = path, .bytes = text, .n = n < 0 ? strlen(text) : (size_t)n, .mode = mode, .fd = -1};
    pthread_mutex_lock(&lock);
    struct folder *f = folder_of(path);
    own.next = f->waiting;
    f->waiting = &own;
    while (!own.done) {
        if (f->busy) {
            pthread_cond_wait(&changed, &lock);
        } else {
            lead(f);
        }
    }
    folder_leave(f);
    pthread_mutex_unlock(&lock);
    if (own.code) {
        error_set_errno(error, own.code, "%s", path);
    }
    return !own.code;
}
