/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/daemon.h"

#include "base/error.h"
#include "base/util.h"
#include "manage/daemon/dispatch.h"
#include "manage/daemon/domain.h"
#include "manage/daemon/network.h"
#include "manage/daemon/paths.h"
#include "manage/daemon/server.h"
#include "manage/daemon/settings.h"
#include "manage/daemon/storage.h"
#include "manage/daemon/tls.h"

#include <fcntl.h>
#include <glib-unix.h>
#include <malloc.h>
#include <signal.h>
#include <sys/file.h>

/*
 * lodged: its options, its rooms, its life.
 */
/* They start in this order and stop in the opposite one. */
extern const struct daemon_room room_secrets, room_nwfilters, room_node_events;
static const struct daemon_room *const rooms[] = {
    &room_secrets, &room_nwfilters, &room_node_events, &room_network,
    &room_storage, &room_domains, /* needs all of the others */
    NULL,
};

static GMainLoop *loop;

void daemon_quit(void)
{
    g_main_loop_quit(loop);
}

void daemon_log(const char *fmt, ...)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *stamp = g_date_time_format(now, "%F %T");
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_autofree char *line = g_strdup_printf("%s lodged: %s\n", stamp, text);
    ssize_t ignored = write(STDERR_FILENO, line, strlen(line));
    (void)ignored;
}

/* One that was killed may have left a child that has not become a machine yet, and ends at once. */
static bool take_lock(int fd, const char *path)
{
    enum { TRIES = 500, PAUSE_US = 10000 };
    for (unsigned i = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; i++) {
        int code = errno;
        g_autofree char *owner = NULL;
        bool read = g_file_get_contents(path, &owner, NULL, NULL);
        int pid = read ? atoi(owner) : 0;
        if (code != EWOULDBLOCK || i == TRIES || pid <= 0 || kill(pid, 0) == 0) {
            errno = code;
            return false;
        }
        g_usleep(PAUSE_US);
    }
    return true;
}

/* Two daemons over the same files would undo each other's work. */
static int take_pid_file(GError **error)
{
    g_autofree char *path = daemon_path_make(DAEMON_RUN, 0755, error, "lodged.pid", NULL);
    if (!path) {
        return -1;
    }
    autofd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || !take_lock(fd, path)) {
        bool taken = fd >= 0 && errno == EWOULDBLOCK;
        g_autofree char *owner = NULL;
        if (taken && g_file_get_contents(path, &owner, NULL, NULL) && *g_strstrip(owner)) {
            g_set_error(error, LODGE_ERROR, EBUSY,
                        "%s: another lodged (process %s) is at work here", path, owner);
        } else {
            error_set_errno(error, taken ? EBUSY : errno, "%s", path);
        }
        return -1;
    }
    g_autofree char *text = g_strdup_printf("%d\n", getpid());
    if (ftruncate(fd, 0) != 0 || write(fd, text, strlen(text)) < 0) {
        error_set_errno(error, errno, "%s", path);
        return -1;
    }
    return g_steal_fd(&fd);
}

static void stop_rooms(unsigned count)
{
    while (count--) {
        if (rooms[count]->stop) {
            rooms[count]->stop();
        }
    }
}

static bool start_rooms(GError **error)
{
    for (unsigned i = 0; rooms[i]; i++) {
        if (!rooms[i]->start(error)) {
            g_prefix_error(error, "%s: ", rooms[i]->name);
            stop_rooms(i);
            return false;
        }
    }
    return true;
}

static gboolean on_signal(void *unused)
{
    (void)unused;
    daemon_quit();
    return G_SOURCE_CONTINUE;
}

static char *config;
static char **overrides;

/* SIGHUP: new settings and certificates for connections from now on. */
static gboolean on_reload(void *unused)
{
    g_autoptr(GError) error = NULL;
    (void)unused;
    daemon_lock();
    bool ok = settings_read(config, overrides, &error) && (!tls || tls->start(&error));
    daemon_unlock();
    daemon_log("%s", ok ? "settings read again" : error->message);
    return G_SOURCE_CONTINUE;
}

static bool serve(const struct server_options *options, GError **error)
{
    autofd int pid = take_pid_file(error);
    if (pid < 0) {
        return false;
    }
    loop = g_main_loop_new(NULL, FALSE);
    g_unix_signal_add(SIGTERM, on_signal, NULL);
    g_unix_signal_add(SIGINT, on_signal, NULL);
    g_unix_signal_add(SIGHUP, on_reload, NULL);
    signal(SIGPIPE, SIG_IGN);
    dispatch_start();
    daemon_sweep();
    daemon_lock();
    bool ok = start_rooms(error);
    daemon_unlock();
    if (!ok) {
        return false;
    }
    ok = server_start(options, error);
    if (ok) {
        daemon_log("ready in %s", daemon_socket_folder());
        g_main_loop_run(loop);
    }
    server_stop();
    daemon_lock();
    stop_rooms(G_N_ELEMENTS(rooms) - 1);
    daemon_unlock();
    g_main_loop_unref(loop);
    return ok;
}

static void print_verb(const struct verb_row *row, void *data)
{
    static const char *const may[] = {"anyone", "reader", "writer"};
    (void)data;
    g_print("%s %d %s %s %s\n", row->program == PROGRAM_QEMU ? "qemu" : "remote", row->number,
            row->name, may[row->may], row->present ? "yes" : "no");
}

int daemon_main(int argc, char **argv)
{
    gboolean session = FALSE, libvirt_sockets = FALSE, version = FALSE, verbs = FALSE;
    int timeout = 0;
    g_autofree char *root = NULL;
    const GOptionEntry entries[] = {
        {"root", 0, 0, G_OPTION_ARG_FILENAME, &root, "keep all files and sockets below DIR", "DIR"},
        {"session", 0, 0, G_OPTION_ARG_NONE, &session, "serve one user, without privileges", NULL},
        {"libvirt-sockets", 0, 0, G_OPTION_ARG_NONE, &libvirt_sockets,
         "listen at libvirt's own socket names too", NULL},
        {"config", 'f', 0, G_OPTION_ARG_FILENAME, &config,
         "settings from FILE instead of lodged.conf", "FILE"},
        {"option", 'o', 0, G_OPTION_ARG_STRING_ARRAY, &overrides, "one setting", "GROUP.KEY=VALUE"},
        {"timeout", 't', 0, G_OPTION_ARG_INT, &timeout,
         "leave after so many seconds without clients", "SECONDS"},
        {"verbs", 0, 0, G_OPTION_ARG_NONE, &verbs, "print the table of procedures and exit", NULL},
        {"version", 0, 0, G_OPTION_ARG_NONE, &version, "print the version and exit", NULL},
        {NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new("- manager of virtual machines");
    g_autoptr(GError) error = NULL;
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error) || argc > 1) {
        g_printerr("lodged: %s\n", error ? error->message : "it takes options only");
        return 2;
    }
    if (version) {
        g_print("lodged 0.1\n");
        return 0;
    }
    if (verbs) {
        dispatch_start();
        dispatch_list(print_verb, NULL);
        return 0;
    }
    mallopt(M_ARENA_MAX, 2); /* worker threads come and go; an arena each is memory for nothing */
    paths_start(root, session || (!root && getuid() != 0));
    config = config ? config : daemon_path(DAEMON_ETC, "lodged.conf", NULL);
    const struct server_options options = {.libvirt_sockets = libvirt_sockets,
                                           .timeout = (unsigned)MAX(timeout, 0)};
    if (!settings_read(config, overrides, &error) || !serve(&options, &error)) {
        g_printerr("lodged: %s\n", error->message);
        return 1;
    }
    return 0;
}
