/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/handover.h"

#include "base/lock.h"
#include "base/util.h"
#include "host/image/image.h"
#include "vmm/vm.h"

#include <errno.h>
#include <glib-unix.h>
#include <poll.h>
#include <sys/socket.h>

enum { ANSWER_MS = 20000 };
enum { TAKEN = 'T', BACK = 'B' };

static struct {
    enum { HERE, SENT, GONE, SILENT, ARRIVED, LEFT } stage;
    int fd; /* of SENT and ARRIVED */
    guint watch;
    bool asked; /* for it back */
} handover = {.fd = -1};

static void settle(int stage)
{
    g_clear_handle_id(&handover.watch, g_source_remove);
    if (handover.fd >= 0) {
        close(handover.fd);
    }
    handover.fd = -1;
    handover.stage = stage;
}

/* What the other side said; 0: it has hung up, -1: nothing yet, or (errno) there is no way to it.
 */
static int hear(void)
{
    char word;
    ssize_t n = recv(handover.fd, &word, 1, MSG_DONTWAIT);
    return n == 1 ? word : n == 0 || errno == ECONNRESET ? 0 : -1;
}

static void say(char word)
{
    send(handover.fd, &word, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ---- the source ---- */

void handover_sent(int fd)
{
    settle(SENT);
    handover.fd = fd;
    handover.asked = false;
}

static bool take_back(void)
{
    struct pollfd p = {.fd = handover.fd, .events = POLLIN};
    int word = hear();
    if (word == -1 && errno == EAGAIN) {
        if (!handover.asked) {
            say(BACK);
        }
        poll(&p, 1, handover.asked ? 0 : ANSWER_MS);
        handover.asked = true;
        word = hear();
    }
    switch (word) {
    case TAKEN:
        settle(GONE);
        return false;
    case -1:
        if (errno != EAGAIN && errno != EINTR) {
            settle(SILENT);
        }
        return false;
    default:
        settle(HERE);
        return true;
    }
}

/* ---- the destination ---- */

static void leave(void)
{
    g_autoptr(GError) error = NULL;
    vm_report("migration: the source has taken the machine back");
    if (!image_yield_all(&error)) { /* before the source hears that it may have them */
        vm_report("migration: %s", error->message);
    }
    settle(LEFT);
    vm_request_exit(1);
}

/* The source has it back, or is gone: then it is here. */
static gboolean source_spoke(int fd, GIOCondition condition, gpointer unused)
{
    (void)fd, (void)condition, (void)unused;
    int word = hear();
    if (word == -1 && errno == EAGAIN) {
        return G_SOURCE_CONTINUE;
    }
    handover.watch = 0; /* it goes by itself */
    if (word == BACK) {
        leave();
    } else {
        settle(HERE);
    }
    return G_SOURCE_REMOVE;
}

void handover_arrived(int fd)
{
    settle(ARRIVED);
    handover.fd = fd;
    handover.watch = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP | G_IO_ERR, source_spoke, NULL);
}

static bool take(void)
{
    if (hear() == BACK) {
        leave();
        return false;
    }
    say(TAKEN);
    settle(HERE);
    return true;
}

/* ---- both ---- */

bool handover_claim(GError **error)
{
    bool ours = handover.stage == HERE || (handover.stage == SENT && take_back()) ||
                (handover.stage == ARRIVED && take());
    if (ours) {
        return true;
    }
    g_set_error(error, LODGE_ERROR, EBUSY, "%s",
                handover.stage == GONE   ? "the machine runs at the migration's destination"
                : handover.stage == LEFT ? "the migration's source has the machine back"
                                         : "the migration's destination does not answer: the "
                                           "machine may run there");
    return false;
}

bool handover_own(GError **error)
{
    if (handover_claim(error)) {
        return true;
    }
    if (handover.stage == SENT || handover.stage == SILENT) {
        g_clear_error(error);
        settle(HERE); /* whoever hears of it there yet hears that it was asked for back */
    }
    return handover.stage == HERE;
}
