/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/chardev/backend.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

/*
 * The terminal (or pipe) that the program was started on.
 *
 * A terminal is made raw, and given back as it was at close, at exit() and before SIGTSTP
 * stops us.  Output goes through a file description of our own where the kernel lets us have
 * one, so that O_NONBLOCK does not leak into the shell's.
 */
static struct termios before;
static bool changed, in_use, pass_signals;

static void restore(void)
{
    if (changed) {
        tcsetattr(STDIN_FILENO, TCSANOW, &before);
        changed = false;
    }
}

static void make_raw(void)
{
    struct termios tty;
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &tty) < 0) {
        return;
    }
    if (!changed) {
        before = tty;
        changed = true;
        atexit(restore);
    }
    tty.c_iflag &= (tcflag_t) ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    tty.c_oflag |= OPOST;
    tty.c_lflag &= (tcflag_t) ~(ECHO | ECHONL | ICANON | IEXTEN);
    if (!pass_signals) {
        tty.c_lflag &= (tcflag_t)~ISIG;
    }
    tty.c_cflag = (tty.c_cflag & (tcflag_t) ~(CSIZE | PARENB)) | CS8;
    tty.c_cc[VMIN] = 1;
    tty.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &tty);
}

/* After `fg` the shell has its own settings in force. */
static void continued(int signo)
{
    (void)signo;
    if (in_use) {
        make_raw();
    }
}

static int own_output(void)
{
    struct stat st;
    int fd = -1;
    if (fstat(STDOUT_FILENO, &st) == 0 && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode))) {
        fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    }
    if (fd < 0) {
        fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    }
    return fd;
}

static void stdio_close(struct chardev *chr)
{
    restore();
    in_use = false;
    stream_close(chr);
}

static struct chardev *stdio_open(KeyVal *opts, GError **error)
{
    bool signals = true;
    if (in_use) {
        g_set_error(error, LODGE_ERROR, EBUSY, "cannot use stdio by multiple character devices");
        return NULL;
    }
    if (!keyval_bool(opts, "signal", &signals, error)) {
        return NULL;
    }
    int in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    struct stream *s = g_new0(struct stream, 1);
    stream_init(s, "stdio", in, own_output());
    s->chr.about = g_strdup("stdio");
    s->chr.close = stdio_close;
    in_use = true;
    pass_signals = signals;
    make_raw();
    struct sigaction act = {.sa_handler = continued, .sa_flags = SA_RESTART};
    sigaction(SIGCONT, &act, NULL);
    return &s->chr;
}

const struct chardev_backend chardev_stdio = {"stdio", "this terminal (signal=on|off)", stdio_open};
