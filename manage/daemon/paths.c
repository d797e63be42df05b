/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/paths.h"

#include "base/error.h"
#include "base/util.h"
#include "manage/daemon/daemon.h"
#include "manage/error.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <sys/stat.h>

/* Where things are: below --root, in the system's places, or in those of a user. */
static struct {
    char *root;
    bool session;
    char *places[3], *sockets;
} paths;

void paths_start(const char *root, bool session)
{
    paths.root = root ? g_canonicalize_filename(root, NULL) : NULL;
    paths.session = session;
    if (root) {
        paths.places[DAEMON_RUN] = g_build_filename(paths.root, "run", NULL);
        paths.places[DAEMON_ETC] = g_build_filename(paths.root, "etc", NULL);
        paths.places[DAEMON_VAR] = g_build_filename(paths.root, "var", NULL);
        paths.sockets = g_build_filename(paths.root, "run", "libvirt", NULL);
    } else if (session) {
        paths.places[DAEMON_RUN] = g_build_filename(g_get_user_runtime_dir(), "lodge", NULL);
        paths.places[DAEMON_ETC] = g_build_filename(g_get_user_config_dir(), "lodge", NULL);
        paths.places[DAEMON_VAR] = g_build_filename(g_get_user_data_dir(), "lodge", NULL);
        paths.sockets = g_build_filename(g_get_user_runtime_dir(), "libvirt", NULL);
    } else {
        paths.places[DAEMON_RUN] = g_strdup("/run/lodge");
        paths.places[DAEMON_ETC] = g_strdup("/etc/lodge");
        paths.places[DAEMON_VAR] = g_strdup("/var/lib/lodge");
        paths.sockets = g_strdup("/run/libvirt");
    }
}

bool daemon_is_session(void)
{
    return paths.session;
}

const char *daemon_root(void)
{
    return paths.root;
}

const char *daemon_socket_folder(void)
{
    return paths.sockets;
}

static char *path_from(enum daemon_place place, va_list ap)
{
    GString *path = g_string_new(paths.places[place]);
    const char *name;
    while ((name = va_arg(ap, const char *))) {
        g_string_append_c(path, '/');
        g_string_append(path, name);
    }
    return g_string_free(path, FALSE);
}

char *daemon_path(enum daemon_place place, ...)
{
    va_list ap;
    va_start(ap, place);
    char *path = path_from(place, ap);
    va_end(ap);
    return path;
}

char *daemon_path_make(enum daemon_place place, int mode, GError **error, ...)
{
    va_list ap;
    va_start(ap, error);
    g_autofree char *path = path_from(place, ap);
    va_end(ap);
    g_autofree char *folder = g_path_get_dirname(path);
    if (g_mkdir_with_parents(folder, mode) != 0) {
        error_set_errno(error, errno, "%s", folder);
        return NULL;
    }
    return g_steal_pointer(&path);
}

char *daemon_program(const char *name)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    if (self) {
        g_autofree char *folder = g_path_get_dirname(self);
        g_autofree char *beside = g_build_filename(folder, name, NULL);
        if (access(beside, X_OK) == 0) {
            return g_steal_pointer(&beside);
        }
    }
    return g_find_program_in_path(name);
}

static bool write_whole(int fd, const char *text, size_t n, int mode)
{
    while (n) {
        ssize_t k = write(fd, text, n);
        if (k < 0 && errno != EINTR) {
            return false;
        }
        if (k > 0) {
            text += k;
            n -= (size_t)k;
        }
    }
    return fchmod(fd, (mode_t)mode) == 0;
}

/*
 * One flush, not two: the bytes are with the disk before the new name is, so no order of what the
 * file system commits shows a name without them; then one flush takes both.  Files that several
 * threads flush at a time share the file system's commit.
 */
static bool make_last(int fd, const char *temporary, const char *path)
{
    enum { ALL = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER };
    return (sync_file_range(fd, 0, 0, ALL) == 0 || fdatasync(fd) == 0) &&
           g_rename(temporary, path) == 0 && fsync(fd) == 0;
}

#define HALF ".new-" /* and six characters: a file that is not whole yet */

static bool is_half(const char *name)
{
    const char *mark = g_strrstr(name, HALF);
    return mark && strlen(mark) == strlen(HALF) + 6;
}

static void sweep(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    bool links = g_str_has_suffix(folder, "/autostart");
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        bool link = g_file_test(path, G_FILE_TEST_IS_SYMLINK);
        if (is_half(name) || (links && link && !g_file_test(path, G_FILE_TEST_EXISTS))) {
            unlink(path);
        } else if (!link && !strchr(name, '.') && g_file_test(path, G_FILE_TEST_IS_DIR)) {
            sweep(path);
        }
    }
}

void daemon_sweep(void)
{
    const struct {
        enum daemon_place place;
        const char *folder, *below;
    } ours[] = {{DAEMON_ETC, "qemu", NULL},        {DAEMON_ETC, "storage", NULL},
                {DAEMON_ETC, "secrets", NULL},     {DAEMON_ETC, "nwfilter", NULL},
                {DAEMON_VAR, "qemu", "nvram"},     {DAEMON_VAR, "qemu", "snapshot"},
                {DAEMON_RUN, "network", NULL},     {DAEMON_RUN, "storage", NULL},
                {DAEMON_VAR, "qemu", "checkpoint"}};
    for (unsigned i = 0; i < G_N_ELEMENTS(ours); i++) {
        g_autofree char *folder = daemon_path(ours[i].place, ours[i].folder, ours[i].below, NULL);
        sweep(folder);
    }
}

static bool replace(const char *path, const char *text, size_t n, int mode, bool lasting,
                    GError **error)
{
    g_autofree char *temporary = g_strconcat(path, HALF, "XXXXXX", NULL);
    autofd int fd = g_mkstemp_full(temporary, O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) {
        error_set_errno(error, errno, "%s", path);
        return false;
    }
    if (!write_whole(fd, text, n, mode) ||
        !(lasting ? make_last(fd, temporary, path) : g_rename(temporary, path) == 0)) {
        int code = errno;
        unlink(temporary);
        error_set_errno(error, code, "%s", path);
        return false;
    }
    return true;
}

bool daemon_write_file(const char *path, const char *text, gssize n, int mode, GError **error)
{
    return replace(path, text, n < 0 ? strlen(text) : (size_t)n, mode, true, error);
}

bool daemon_keep_file(const char *path, const char *text, int mode, GError **error)
{
    enum { READABLE = 044, FOR_ALL = 0755, FOR_US = 0700 };
    g_autofree char *folder = g_path_get_dirname(path);
    daemon_unlock();
    bool ok = g_mkdir_with_parents(folder, mode & READABLE ? FOR_ALL : FOR_US) == 0;
    if (ok) {
        ok = daemon_write_file(path, text, -1, mode, error);
    } else {
        error_set_errno(error, errno, "%s", folder);
    }
    daemon_lock();
    return ok;
}

bool daemon_forget_file(const char *path, GError **error)
{
    daemon_unlock();
    bool ok = unlink(path) == 0 || errno == ENOENT;
    int code = errno;
    daemon_lock();
    if (!ok) {
        libvirt_error(error, ERR_SYSTEM, "cannot remove config file '%s': %s", path,
                      g_strerror(code));
    }
    return ok;
}

bool daemon_note_file(const char *path, const char *text, GError **error)
{
    return replace(path, text, strlen(text), 0600, false, error);
}
