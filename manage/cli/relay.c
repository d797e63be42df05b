/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"
#include "manage/rpc/connect.h"

#include <sys/socket.h>
#include <unistd.h>

/*
 * What ssh runs on the daemon's host: bytes from here to the daemon's socket and back, a thread
 * each way, so that neither waits for the other.
 */
enum { CHUNK = 65536 };

static bool carry(int from, int to)
{
    char buffer[CHUNK];
    ssize_t n;
    while ((n = read(from, buffer, sizeof(buffer))) > 0) {
        for (ssize_t done = 0, w; done < n; done += w) {
            w = write(to, buffer + done, (size_t)(n - done));
            if (w <= 0) {
                return false;
            }
        }
    }
    return n == 0;
}

static void *to_daemon(void *data)
{
    int fd = GPOINTER_TO_INT(data);
    carry(STDIN_FILENO, fd);
    shutdown(fd, SHUT_RDWR); /* the client is gone; the other direction ends too */
    return NULL;
}

bool run_ssh_helper(struct shell *sh, const struct args *a, GError **error)
{
    g_autoptr(Rpc) rpc = connect_silently(args_text(a, "uri"), shell_read_only(sh), error);
    if (!rpc) {
        return false;
    }
    g_thread_unref(g_thread_new("to daemon", to_daemon, GINT_TO_POINTER(rpc_fd(rpc))));
    carry(rpc_fd(rpc), STDOUT_FILENO);
    _exit(0); /* the thread may be waiting for a client that says nothing more */
}
