/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/chardev/backend.h"

#include "base/error.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <termios.h>

static const char *need_path(KeyVal *opts, GError **error)
{
    const char *path = keyval_get(opts, "path");
    if (!path || !*path) {
        g_set_error(error, LODGE_ERROR, EINVAL, "it needs a path");
        return NULL;
    }
    return path;
}

static struct chardev *over(const char *kind, const char *path, int in, int out)
{
    struct stream *s = g_new0(struct stream, 1);
    stream_init(s, kind, in, out);
    s->chr.about = g_strdup_printf("%s:%s", kind, path);
    return &s->chr;
}

static struct chardev *file_open(KeyVal *opts, GError **error)
{
    const char *path = need_path(opts, error), *input = keyval_get(opts, "input-path");
    bool append = false;
    autofd int in = -1, out = -1;
    if (!path || !keyval_bool(opts, "append", &append, error)) {
        return NULL;
    }
    out = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (append ? O_APPEND : O_TRUNC), 0666);
    if (out < 0) {
        error_set_errno(error, errno, "%s", path);
        return NULL;
    }
    if (input && (in = open(input, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0) {
        error_set_errno(error, errno, "%s", input);
        return NULL;
    }
    return over("file", path, g_steal_fd(&in), g_steal_fd(&out));
}

/* PATH.in and PATH.out if they are there, as seen from the VM; else PATH for both. */
static struct chardev *pipe_open(KeyVal *opts, GError **error)
{
    const char *path = need_path(opts, error);
    if (!path) {
        return NULL;
    }
    g_autofree char *in_path = g_strconcat(path, ".in", NULL);
    g_autofree char *out_path = g_strconcat(path, ".out", NULL);
    /* O_RDWR, because O_WRONLY waits for a reader. */
    autofd int in = open(in_path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    autofd int out = open(out_path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (in >= 0 && out >= 0) {
        return over("pipe", path, g_steal_fd(&in), g_steal_fd(&out));
    }
    autofd int both = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (both < 0) {
        error_set_errno(error, errno, "%s", path);
        return NULL;
    }
    int fd = g_steal_fd(&both);
    return over("pipe", path, fd, fd);
}

static struct chardev *serial_open(KeyVal *opts, GError **error)
{
    const char *path = need_path(opts, error);
    struct termios tty;
    if (!path) {
        return NULL;
    }
    autofd int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        error_set_errno(error, errno, "%s", path);
        return NULL;
    }
    if (tcgetattr(fd, &tty) < 0) {
        error_set_errno(error, errno, "%s", path);
        return NULL;
    }
    cfmakeraw(&tty);
    tty.c_cflag |= CLOCAL | CREAD;
    tcsetattr(fd, TCSANOW, &tty);
    int both = g_steal_fd(&fd);
    return over("serial", path, both, both);
}

const struct chardev_backend chardev_file = {"file", "output to a file (path=, append=on)",
                                             file_open};
const struct chardev_backend chardev_pipe = {"pipe", "the pipes PATH.in and PATH.out (path=)",
                                             pipe_open};
const struct chardev_backend chardev_serial = {"serial", "a serial port of the host (path=)",
                                               serial_open};
