/* SPDX-License-Identifier: GPL-2.0-or-later */

/* run: programs that know firewalls, file systems, volume groups and targets. */
#include "manage/daemon/run.h"

#include "base/util.h"
#include "manage/error.h"

#include <errno.h>
#include <glib-unix.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { WORDS_MAX = 1000, PRINTED_MAX = 16 << 20 };

/* Its pipes and its end, until they close. */
enum { IN, OUT, ERR, END, WATCHED };
struct child {
    GPid pid;
    struct pollfd watched[WATCHED];
    const char *input;
    size_t left; /* of .input */
    GString *out, *err;
    int status;
};

static void let_go(struct child *c, int which)
{
    close(g_steal_fd(&c->watched[which].fd));
}

static void feed(struct child *c)
{
    ssize_t n = c->left ? write(c->watched[IN].fd, c->input, c->left) : 0;
    if (n > 0) {
        c->input += n;
        c->left -= (size_t)n;
    }
    if (!c->left || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        let_go(c, IN);
    }
}

static void fetch(struct child *c, int which, GString *to)
{
    char text[4096];
    ssize_t n = read(c->watched[which].fd, text, sizeof(text));
    if (n > 0 && to->len < PRINTED_MAX) {
        g_string_append_len(to, text, n);
    } else if (n >= 0 || (errno != EAGAIN && errno != EINTR)) {
        let_go(c, which);
    }
}

/* Until it has ended and closed its pipes; false if the time was over first. */
static bool attend(struct child *c, int64_t until)
{
    for (;;) {
        int64_t left = until - g_get_monotonic_time();
        struct pollfd *w = c->watched;
        if (w[OUT].fd < 0 && w[ERR].fd < 0 && w[END].fd < 0) {
            return true;
        }
        if (left <= 0 || (poll(w, WATCHED, (int)(left / 1000) + 1) < 0 && errno != EINTR)) {
            return false;
        }
        if (w[IN].fd >= 0 && w[IN].revents) {
            feed(c);
        }
        if (w[OUT].fd >= 0 && w[OUT].revents) {
            fetch(c, OUT, c->out);
        }
        if (w[ERR].fd >= 0 && w[ERR].revents) {
            fetch(c, ERR, c->err);
        }
        if (w[END].fd >= 0 && w[END].revents) {
            waitpid(c->pid, &c->status, 0);
            let_go(c, END);
        }
    }
}

static void reap(GPid pid, int status, void *unused)
{
    (void)status, (void)unused;
    g_spawn_close_pid(pid);
}

static bool spawn(struct child *c, const char *const *argv, GError **error)
{
    g_auto(GStrv) env = g_environ_setenv(g_get_environ(), "LC_ALL", "C", TRUE);
    int in = -1, out, err;
    if (!g_spawn_async_with_pipes(NULL, (char **)argv, env,
                                  G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL,
                                  &c->pid, c->input ? &in : NULL, &out, &err, NULL)) {
        libvirt_error(error, ERR_INTERNAL, "Cannot find '%s' in path", argv[0]);
        return false;
    }
    c->watched[IN] = (struct pollfd){in, POLLOUT, 0};
    c->watched[OUT] = (struct pollfd){out, POLLIN, 0};
    c->watched[ERR] = (struct pollfd){err, POLLIN, 0};
    c->watched[END] = (struct pollfd){(int)syscall(SYS_pidfd_open, c->pid, 0), POLLIN, 0};
    for (int i = IN; i <= ERR; i++) {
        if (c->watched[i].fd >= 0) {
            g_unix_set_fd_nonblocking(c->watched[i].fd, TRUE, NULL);
        }
    }
    return true;
}

/* Closes what is open.  One that sleeps in the kernel does not hear of its end: nobody waits. */
static void put_away(struct child *c)
{
    if (c->watched[END].fd >= 0) {
        kill(c->pid, SIGKILL);
        g_child_watch_add(c->pid, reap, NULL);
    }
    for (int i = 0; i < WATCHED; i++) {
        if (c->watched[i].fd >= 0) {
            let_go(c, i);
        }
    }
}

bool run_program(const char *const *argv, const char *input, unsigned seconds, char **out,
                 int *code, GError **error)
{
    g_autoptr(GString) said = g_string_new(NULL), complained = g_string_new(NULL);
    struct child c = {.input = input,
                      .left = input ? strlen(input) : 0,
                      .out = said,
                      .err = complained,
                      .status = -1};
    g_autofree char *line = g_strjoinv(" ", (char **)argv);
    if (!spawn(&c, argv, error)) {
        return false;
    }
    bool in_time = attend(&c, g_get_monotonic_time() + seconds * (int64_t)G_USEC_PER_SEC);
    put_away(&c);
    bool exited = in_time && WIFEXITED(c.status);
    int status = exited ? WEXITSTATUS(c.status) : -1;
    if (!in_time) {
        libvirt_error(error, ERR_OPERATION_TIMEOUT, "%s did not end within %u seconds", line,
                      seconds);
    } else if (!exited || (!code && status)) {
        g_autofree char *words = g_strstrip(g_utf8_make_valid(complained->str, -1));
        libvirt_error(error, ERR_INTERNAL, "Child process (%s) unexpected exit status %d: %.*s",
                      line, status, WORDS_MAX, words);
    }
    if (code) {
        *code = status;
    }
    if (out) {
        *out = g_utf8_make_valid(said->str, -1);
    }
    return exited && (code || !status);
}
