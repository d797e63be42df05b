/* SPDX-License-Identifier: GPL-2.0-or-later */

/* run: programs that know firewalls, file systems, volume groups and targets. */
#include "manage/daemon/run.h"

#include "manage/error.h"

#include <gio/gio.h>
#include <string.h>

enum { WORDS_MAX = 1000 };

struct watch {
    GMainLoop *loop;
    GSubprocess *process;
    GCancellable *patience;
    char *out, *err;
    GError *error;
    bool late;
};

static void ended(GObject *source, GAsyncResult *result, gpointer data)
{
    struct watch *w = data;
    g_subprocess_communicate_utf8_finish(G_SUBPROCESS(source), result, &w->out, &w->err, &w->error);
    g_main_loop_quit(w->loop);
}

static gboolean too_late(gpointer data)
{
    struct watch *w = data;
    w->late = true;
    g_subprocess_force_exit(w->process);
    g_cancellable_cancel(w->patience); /* one that sleeps in the kernel does not hear of it */
    return G_SOURCE_REMOVE;
}

static void communicate(struct watch *w, const char *input, unsigned seconds)
{
    g_autoptr(GMainContext) context = g_main_context_new();
    g_main_context_push_thread_default(context);
    w->loop = g_main_loop_new(context, FALSE);
    w->patience = g_cancellable_new();
    g_autoptr(GSource) timer = g_timeout_source_new_seconds(seconds);
    g_source_set_callback(timer, too_late, w, NULL);
    g_source_attach(timer, context);
    g_subprocess_communicate_utf8_async(w->process, input, w->patience, ended, w);
    g_main_loop_run(w->loop);
    g_source_destroy(timer);
    g_main_loop_unref(w->loop);
    g_object_unref(w->patience);
    g_main_context_pop_thread_default(context);
}

bool run_program(const char *const *argv, const char *input, unsigned seconds, char **out,
                 int *code, GError **error)
{
    struct watch w = {0};
    g_autofree char *line = g_strjoinv(" ", (char **)argv);
    g_autoptr(GSubprocessLauncher) launcher =
        g_subprocess_launcher_new((input ? G_SUBPROCESS_FLAGS_STDIN_PIPE : 0) |
                                  G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_PIPE);
    g_subprocess_launcher_setenv(launcher, "LC_ALL", "C", TRUE);
    g_autoptr(GSubprocess) process = g_subprocess_launcher_spawnv(launcher, argv, NULL);
    if (!process) {
        libvirt_error(error, ERR_INTERNAL, "Cannot find '%s' in path", argv[0]);
        return false;
    }
    w.process = process;
    communicate(&w, input, seconds);
    bool exited = !w.error && !w.late && g_subprocess_get_if_exited(process);
    int status = exited ? g_subprocess_get_exit_status(process) : -1;
    if (w.late) {
        libvirt_error(error, ERR_OPERATION_TIMEOUT, "%s did not end within %u seconds", line,
                      seconds);
    } else if (!exited || (!code && status)) {
        g_autofree char *words = g_strstrip(g_utf8_make_valid(w.err ? w.err : "", -1));
        libvirt_error(error, ERR_INTERNAL, "Child process (%s) unexpected exit status %d: %.*s",
                      line, status, WORDS_MAX, words);
    }
    if (code) {
        *code = status;
    }
    if (out) {
        *out = g_steal_pointer(&w.out);
    }
    g_free(w.out);
    g_free(w.err);
    g_clear_error(&w.error);
    return exited && (code || !status);
}
