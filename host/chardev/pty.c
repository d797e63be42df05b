/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/chardev/backend.h"

#include "base/error.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

/*
 * A pseudo-terminal whose other end a user opens with minicom, screen, virsh console ...
 * The master says POLLHUP while nobody has it open, and nothing tells when somebody does: so
 * it is looked at once a second until then, and whenever there is something to say.
 */
enum { LOOK_SECONDS = 1 };

struct pty {
    struct stream stream;
    guint look;
};

static gboolean look(gpointer data);

static void hung_up(struct stream *s)
{
    struct pty *p = container_of(s, struct pty, stream);
    if (s->chr.open) {
        s->chr.open = false;
        chardev_tell(&s->chr, CHARDEV_CLOSED);
    }
    if (!p->look) {
        p->look = g_timeout_add_seconds(LOOK_SECONDS, look, p);
    }
}

static bool is_open(const struct pty *p)
{
    struct pollfd fd = {.fd = p->stream.in, .events = POLLOUT};
    return poll(&fd, 1, 0) < 0 || !(fd.revents & POLLHUP);
}

static void opened(struct pty *p)
{
    p->look = 0;
    p->stream.chr.open = true;
    chardev_tell(&p->stream.chr, CHARDEV_OPENED);
    stream_start(&p->stream);
}

static gboolean look(gpointer data)
{
    if (!is_open(data)) {
        return G_SOURCE_CONTINUE;
    }
    opened(data);
    return G_SOURCE_REMOVE;
}

static gboolean tell_opened(gpointer data)
{
    opened(data);
    return G_SOURCE_REMOVE;
}

/* Called from inside a device's write: whoever is to hear of it hears later. */
static bool somebody(struct stream *s)
{
    struct pty *p = container_of(s, struct pty, stream);
    if (!is_open(p)) {
        return false;
    }
    g_clear_handle_id(&p->look, g_source_remove);
    p->look = g_idle_add(tell_opened, p);
    return true;
}

static void pty_close(struct chardev *chr)
{
    struct pty *p = container_of(chr, struct pty, stream.chr);
    g_clear_handle_id(&p->look, g_source_remove);
    stream_stop(&p->stream);
    g_free(p);
}

static struct chardev *pty_open(KeyVal *opts, GError **error)
{
    char name[64];
    struct termios tty;
    (void)opts;
    autofd int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof(name)) != 0) {
        error_set_errno(error, errno, "no pseudo-terminal");
        return NULL;
    }
    if (tcgetattr(fd, &tty) == 0) {
        cfmakeraw(&tty);
        tcsetattr(fd, TCSANOW, &tty);
    }
    /* Opened and closed once, or the master would not know yet that nobody is there. */
    int slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave >= 0) {
        close(slave);
    }
    struct pty *p = g_new0(struct pty, 1);
    int master = g_steal_fd(&fd);
    stream_init(&p->stream, "pty", master, master);
    p->stream.chr.about = g_strdup_printf("pty:%s", name);
    p->stream.chr.close = pty_close;
    p->stream.hung_up = hung_up;
    p->stream.somebody = somebody;
    p->stream.chr.open = false;
    p->look = g_timeout_add_seconds(LOOK_SECONDS, look, p);
    return &p->stream.chr;
}

const struct chardev_backend chardev_pty = {"pty", "a new pseudo-terminal of the host", pty_open};
