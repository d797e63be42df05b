/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"

#include "base/util.h"

#include <poll.h>
#include <stdio.h>
#include <termios.h>

/*
 * The guest's serial line on this terminal; Ctrl-] leaves.
 */
enum { ESCAPE = 0x1d, CHUNK = 4096 };

bool terminal_raw(struct termios *before)
{
    struct termios t;
    if (tcgetattr(STDIN_FILENO, before) != 0) {
        return false;
    }
    t = *before;
    cfmakeraw(&t);
    return tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0;
}

/* From here to the guest; false at the escape, or at the end unless that is no reason to leave. */
static bool forward(Rpc *rpc, struct pollfd *in, bool stay, GError **error)
{
    char buffer[CHUNK];
    ssize_t n = read(in->fd, buffer, sizeof(buffer));
    if (n <= 0) {
        in->fd = -1;
        return stay;
    }
    char *escape = memchr(buffer, ESCAPE, (size_t)n);
    size_t send = escape ? (size_t)(escape - buffer) : (size_t)n;
    return (!send || rpc_stream_send(rpc, buffer, send, error)) && !escape;
}

/* What the guest has said; false at the end of the stream. */
static bool show(Rpc *rpc, GError **error)
{
    char buffer[CHUNK];
    while (rpc_stream_ready(rpc)) {
        ssize_t n = rpc_stream_receive(rpc, buffer, sizeof(buffer), NULL, error);
        if (n <= 0) {
            return false;
        }
        fwrite(buffer, 1, (size_t)n, stdout);
    }
    fflush(stdout);
    return true;
}

/* *@left: the user went, not the guest. */
static bool converse(Rpc *rpc, bool stay, bool *left, GError **error)
{
    GError *why = NULL;
    struct pollfd p[] = {{STDIN_FILENO, POLLIN, 0}, {rpc_fd(rpc), POLLIN, 0}};
    while (show(rpc, &why) && poll(p, 2, -1) >= 0) {
        if (p[1].revents && !rpc_wait(rpc, 0, &why)) {
            break;
        }
        if (p[0].revents && !forward(rpc, &p[0], stay, &why)) {
            *left = true;
            break;
        }
    }
    if (why) {
        g_propagate_error(error, why);
        return false;
    }
    rpc_stream_abort(rpc, NULL);
    return true;
}

bool console_on_terminal(Rpc *rpc, const rpc_domain *dom, const char *device, unsigned flags,
                         bool stay, bool *left, GError **error)
{
    struct termios before;
    rpc_none none;
    char *name = (char *)device;
    rpc_domain_maybe_flags args = {*dom, device ? &name : NULL, flags};
    *left = false;
    if (!ask_domain_open_console(rpc, &args, &none, error)) {
        return false;
    }
    printf("Connected to domain '%s'\nEscape character is ^]\n", dom->name);
    fflush(stdout);
    bool terminal = terminal_raw(&before);
    bool ok = converse(rpc, stay && !terminal, left, error);
    if (terminal) {
        tcsetattr(STDIN_FILENO, TCSANOW, &before);
    }
    putchar('\n');
    return ok;
}

bool run_console(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"force", 1}, {"safe", 2}};
    g_auto(rpc_domain) dom = {0};
    bool left;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    if (dom.id == -1) {
        return shell_fail(error, "The domain is not running");
    }
    return console_on_terminal(shell_rpc(sh, NULL), &dom, args_text(a, "devname"),
                               flags_of(a, bits, 2), false, &left, error);
}
