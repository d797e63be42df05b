/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/files.h"

#include "base/util.h"
#include "manage/daemon/daemon.h"
#include "manage/error.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>

enum { STUCK_MAX = 256 };

/* Paths that threads of ours still wait for; daemon lock. */
static GHashTable *stuck;

/* What a thread does that may never come back. */
struct deed {
    char **paths;
    unsigned n;
    atomic_uint at; /* which of them it is about */
    void (*act)(struct deed *deed);
    void (*run)(void *data); /* of file_act() */
    void (*drop)(void *data);
    void *data;
    bool lasts;        /* file_work() */
    atomic_uint steps; /* file_goes_on() */
    bool done, abandoned;
};

static __thread struct deed *own;

static void deed_free(struct deed *deed)
{
    g_strfreev(deed->paths);
    g_free(deed);
}

static gpointer deed_thread(gpointer data)
{
    struct deed *deed = own = data;
    deed->act(deed);
    daemon_lock();
    deed->done = true;
    bool abandoned = deed->abandoned;
    daemon_wake();
    daemon_unlock();
    if (abandoned) { /* nobody uses its paths before all is as it was */
        deed->drop(deed->data);
        daemon_lock();
        for (unsigned i = 0; i < deed->n; i++) {
            g_hash_table_remove(stuck, deed->paths[i]);
        }
        daemon_unlock();
        deed_free(deed);
    }
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

static void give_up(struct deed *deed)
{
    deed->abandoned = true;
    if (!stuck) {
        stuck = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    }
    for (unsigned i = deed->at; i < deed->n; i++) {
        g_hash_table_add(stuck, g_strdup(deed->paths[i]));
    }
}

static bool run_deed(const struct deed *plan, unsigned seconds, GError **error);

/* What the kernel does not remember. */
static void ask(struct deed *deed)
{
    enum { BLOCK = 4096 };
    const char *path = deed->paths[0];
    struct stat st;
    struct statvfs about;
    if (stat(path, &st) == 0 && S_ISBLK(st.st_mode)) {
        char block[BLOCK] __attribute__((aligned(BLOCK)));
        autofd int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
        ssize_t ignored = fd < 0 ? -1 : pread(fd, block, BLOCK, 0);
        (void)ignored;
    } else {
        g_autofree char *folder = g_path_get_dirname(path);
        statvfs(folder, &about);
    }
}

static bool server_answers(const char *path, unsigned seconds)
{
    char *paths[] = {(char *)path, NULL};
    const struct deed plan = {.paths = paths, .act = ask, .drop = g_free};
    return run_deed(&plan, seconds, NULL);
}

bool file_server_answers(const char *path)
{
    return server_answers(path, FILES_SECONDS);
}

void file_goes_on(void)
{
    if (own) {
        own->steps++;
    }
}

/* Whether @deed, which takes long, has gone on since it was asked before. */
static bool goes_on(struct deed *deed, unsigned *steps, unsigned seconds)
{
    unsigned before = *steps;
    *steps = deed->steps;
    return *steps != before ||
           (deed->paths[0][0] == '/' && server_answers(deed->paths[0], seconds));
}

/* Lock held, given up meanwhile.  Takes @plan's paths as they are; false: .data is .drop's. */
static bool run_deed(const struct deed *plan, unsigned seconds, GError **error)
{
    int64_t wait = daemon_patience(seconds) * (int64_t)G_USEC_PER_SEC;
    int64_t end = g_get_monotonic_time() + wait;
    if (known_to_be_silent((const char *const *)plan->paths, error)) {
        plan->drop(plan->data);
        return false;
    }
    struct deed *deed = g_new(struct deed, 1);
    *deed = *plan;
    deed->paths = g_strdupv(plan->paths);
    deed->n = g_strv_length(deed->paths);
    GThread *thread = g_thread_try_new("files", deed_thread, deed, NULL);
    if (!thread) {
        silent(deed->paths[0], error);
        deed->drop(deed->data);
        deed_free(deed);
        return false;
    }
    g_thread_unref(thread);
    unsigned steps = 0;
    while (!deed->done) {
        if (daemon_wait(end)) {
            continue;
        }
        if (deed->done || !deed->lasts || !goes_on(deed, &steps, seconds)) {
            break;
        }
        end = g_get_monotonic_time() + wait;
    }
    if (!deed->done) {
        unsigned at = deed->at; /* read once: by now it may be past the last */
        silent(deed->paths[MIN(at, deed->n - 1)], error);
        give_up(deed);
        return false;
    }
    deed_free(deed);
    return true;
}

static void look(struct deed *deed)
{
    struct stat *found = deed->data;
    for (; deed->at < deed->n; deed->at++) {
        if (stat(deed->paths[deed->at], &found[deed->at]) != 0) {
            found[deed->at] = (struct stat){0};
        }
    }
}

bool files_answer(const char *const *paths, struct stat *found, unsigned seconds, GError **error)
{
    unsigned n = g_strv_length((char **)paths);
    if (!n) {
        return true;
    }
    struct stat *all = g_new0(struct stat, n);
    const struct deed plan = {.paths = (char **)paths, .act = look, .data = all, .drop = g_free};
    if (!run_deed(&plan, seconds, error)) {
        return false;
    }
    if (found) {
        memcpy(found, all, n * sizeof(*found));
    }
    g_free(all);
    return true;
}

bool file_answers(const char *path, struct stat *found, GError **error)
{
    return files_answer((const char *const[]){path, NULL}, found, FILES_SECONDS, error);
}

/* --- one call --- */

static void run(struct deed *deed)
{
    deed->run(deed->data);
}

static bool act_on(const char *path, bool lasts, void (*act)(void *data), void *data,
                   void (*drop)(void *data), GError **error)
{
    char *paths[] = {(char *)path, NULL};
    const struct deed plan = {
        .paths = paths, .act = run, .run = act, .data = data, .drop = drop, .lasts = lasts};
    bool held = daemon_lock_held();
    if (!held) {
        daemon_lock();
    }
    bool ok = run_deed(&plan, FILES_SECONDS, error);
    if (!held) {
        daemon_unlock();
    }
    return ok;
}

bool file_act(const char *path, void (*act)(void *data), void *data, void (*drop)(void *data),
              GError **error)
{
    return act_on(path, false, act, data, drop, error);
}

bool file_work(const char *path, void (*act)(void *data), void *data, void (*drop)(void *data),
               GError **error)
{
    return act_on(path, true, act, data, drop, error);
}

struct op {
    int (*call)(struct op *op);
    void (*undo)(struct op *op); /* what has been done when nobody waited any more; NULL: stays */
    char *path, *to;
    int flags;
    mode_t mode;
    uid_t uid;
    struct stat st;
    int fd, result, code;
    bool made;
};

static void op_run(void *data)
{
    struct op *op = data;
    op->result = op->call(op);
    op->code = errno;
}

static void op_free(struct op *op)
{
    fd_let_go(op->fd);
    g_free(op->path);
    g_free(op->to);
    g_free(op);
}

static void op_drop(void *data)
{
    struct op *op = data;
    if (op->result == 0 && op->undo) {
        op->undo(op);
    }
    op_free(op);
}

/* -1 with errno; what was opened goes to @fd, what was found to @st. */
static int op_do(const struct op *plan, int *fd, struct stat *st)
{
    struct op *op = g_new(struct op, 1);
    *op = *plan;
    op->path = g_strdup(plan->path);
    op->to = g_strdup(plan->to);
    op->fd = op->result = -1;
    if (!file_act(plan->path, op_run, op, op_drop, NULL)) {
        errno = ETIMEDOUT;
        return -1;
    }
    int result = op->result, code = op->code;
    if (fd) {
        *fd = g_steal_fd(&op->fd);
    }
    if (st) {
        *st = op->st;
    }
    op_free(op);
    errno = code;
    return result;
}

static int do_open(struct op *op)
{
    const int always = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int flags = (op->flags & ~(O_TRUNC | O_CREAT)) | always;
    op->fd = open(op->path, flags);
    if (op->fd < 0 && errno == ENOENT && op->flags & O_CREAT) {
        op->fd = open(op->path, flags | O_CREAT | O_EXCL, op->mode);
        op->made = op->fd >= 0;
    }
    if (op->fd < 0 || fstat(op->fd, &op->st) != 0) {
        return -1;
    }
    return op->flags & O_TRUNC && S_ISREG(op->st.st_mode) ? ftruncate(op->fd, 0) : 0;
}

static void undo_open(struct op *op)
{
    if (op->made) {
        unlink(op->path);
    }
}

static int do_stat(struct op *op)
{
    return stat(op->path, &op->st);
}

static int do_chown(struct op *op)
{
    return stat(op->path, &op->st) == 0 ? chown(op->path, op->uid, op->uid) : -1;
}

static void undo_chown(struct op *op)
{
    struct stat now;
    if (stat(op->path, &now) != 0 || now.st_uid != op->uid ||
        chown(op->path, op->st.st_uid, op->st.st_gid) != 0) {
        daemon_log("%s: it answered late, and stays as it is", op->path);
    }
}

static int do_take_back(struct op *op)
{
    if (stat(op->path, &op->st) != 0) {
        return -1;
    }
    return op->st.st_uid == op->uid ? chown(op->path, 0, 0) : 0;
}

static int do_empty(struct op *op)
{
    return truncate(op->path, 0);
}

static int do_unlink(struct op *op)
{
    return unlink(op->path);
}

static int do_rename(struct op *op)
{
    return rename(op->path, op->to);
}

/* Who gave up goes on without what is under the new name now. */
static void undo_rename(struct op *op)
{
    unlink(op->to);
}

int path_stat(const char *path, struct stat *st)
{
    const struct op op = {.call = do_stat, .path = (char *)path};
    return op_do(&op, NULL, st);
}

int path_open(const char *path, int flags, mode_t mode, struct stat *st)
{
    const struct op op = {
        .call = do_open, .undo = undo_open, .path = (char *)path, .flags = flags, .mode = mode};
    int fd = -1;
    if (op_do(&op, &fd, st) == 0) {
        return fd;
    }
    int code = errno;
    fd_let_go(fd);
    errno = code;
    return -1;
}

int path_chown(const char *path, uid_t uid)
{
    const struct op op = {.call = do_chown, .undo = undo_chown, .path = (char *)path, .uid = uid};
    return op_do(&op, NULL, NULL);
}

int path_take_back(const char *path, uid_t from)
{
    struct op op = {.call = do_take_back, .path = (char *)path, .uid = from};
    return daemon_lock_held() ? op_do(&op, NULL, NULL) : do_take_back(&op);
}

int path_empty(const char *path)
{
    const struct op op = {.call = do_empty, .path = (char *)path};
    return op_do(&op, NULL, NULL);
}

int path_unlink(const char *path)
{
    const struct op op = {.call = do_unlink, .path = (char *)path};
    return op_do(&op, NULL, NULL);
}

int path_rename(const char *from, const char *to)
{
    const struct op op = {
        .call = do_rename, .undo = undo_rename, .path = (char *)from, .to = (char *)to};
    return op_do(&op, NULL, NULL);
}

void path_error(GError **error, int code, const char *words, const char *path)
{
    if (errno == ETIMEDOUT) {
        silent(path, error);
    } else {
        libvirt_error(error, code, "%s '%s': %s", words, path, g_strerror(errno));
    }
}

static gpointer close_it(gpointer fd)
{
    close(GPOINTER_TO_INT(fd));
    return NULL;
}

void fd_let_go(int fd)
{
    GThread *thread =
        fd >= 0 ? g_thread_try_new("close", close_it, GINT_TO_POINTER(fd), NULL) : NULL;
    if (thread) {
        g_thread_unref(thread);
    } else if (fd >= 0) {
        close(fd);
    }
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
