/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Questions to the guest agent, over the UNIX socket behind its virtio-serial channel.
 *
 * Spec: QEMU, "QEMU Guest Agent Protocol Reference": guest-sync-delimited before a command, so
 * that an answer to an earlier, given up one is not taken for this one's.
 */
#include "manage/daemon/machine.h"

#include "base/util.h"
#include "manage/daemon/files.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

enum { ANSWER_MAX = 16 << 20 };

static const char *agent_path(const struct machine *m)
{
    for (unsigned i = 0; i < xml_count(m->def->channels); i++) {
        const struct domain_char *c = m->def->channels->pdata[i];
        if (g_strcmp0(c->name, "org.qemu.guest_agent.0") == 0 && c->type == CHAR_UNIX &&
            c->sources) {
            return ((struct char_source *)c->sources->pdata[0])->path;
        }
    }
    return NULL;
}

/* The next line of the agent, before which it may say anything; NULL if time is over. */
static char *read_line(int fd, int64_t until)
{
    g_autoptr(GString) line = g_string_new(NULL);
    while (line->len < ANSWER_MAX) {
        int64_t left = (until - g_get_monotonic_time()) / 1000;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char c;
        if (left <= 0 || poll(&p, 1, (int)left) <= 0 || read(fd, &c, 1) != 1) {
            return NULL;
        }
        if (c == '\n') {
            return g_string_free(g_steal_pointer(&line), FALSE);
        }
        if ((unsigned char)c != 0xff) {
            g_string_append_c(line, c);
        }
    }
    return NULL;
}

/* All of @text, while time is left. */
static bool say(int fd, const char *text, int64_t until)
{
    size_t n = strlen(text);
    while (n) {
        ssize_t k = send(fd, text, n, MSG_NOSIGNAL);
        int64_t left = (until - g_get_monotonic_time()) / 1000;
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        if (k < 0 && (errno != EAGAIN || left <= 0 || poll(&p, 1, (int)left) <= 0)) {
            return false;
        }
        text += MAX(k, 0);
        n -= (size_t)MAX(k, 0);
    }
    return true;
}

/* Blocks without the lock. */
static char *exchange(int fd, const char *command, int64_t until)
{
    uint32_t id = g_random_int() & 0x7fffffff;
    g_autofree char *sync = g_strdup_printf(
        "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%u}}\n", id);
    g_autofree char *line = g_strconcat(command, "\n", NULL);
    if (!say(fd, sync, until)) {
        return NULL;
    }
    for (;;) {
        g_autofree char *answer = read_line(fd, until);
        g_autoptr(json_t) got = answer ? json_parse(answer, strlen(answer), NULL) : NULL;
        if (!answer) {
            return NULL;
        }
        if (json_integer_value(json_object_get(got, "return")) == id) {
            break;
        }
    }
    return say(fd, line, until) ? read_line(fd, until) : NULL;
}

char *agent_command(struct machine *m, const char *command, int seconds, GError **error)
{
    const char *path = agent_path(m);
    if (!path) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured");
        return NULL;
    }
    g_autofree char *at = g_strdup(path);
    int64_t until = g_get_monotonic_time() + seconds * (int64_t)G_USEC_PER_SEC;
    daemon_unlock();
    autofd int fd = socket_connect(at);
    char *answer = fd >= 0 ? exchange(fd, command, until) : NULL;
    daemon_lock();
    if (!answer) {
        libvirt_error(error, ERR_AGENT_UNRESPONSIVE, "QEMU guest agent is not connected");
    }
    return answer;
}

json_t *agent_run(struct machine *m, const char *command, json_t *args, GError **error)
{
    g_autoptr(json_t) given = args;
    g_autoptr(json_t) message = json_pack("{s:s}", "execute", command);
    if (args) {
        json_object_set(message, "arguments", args);
    }
    g_autofree char *text = json_dumps(message, JSON_COMPACT);
    g_autofree char *answer =
        agent_command(m, text, m->agent_seconds ? m->agent_seconds : AGENT_SECONDS, error);
    if (!answer) {
        return NULL;
    }
    g_autoptr(json_t) got = json_parse(answer, strlen(answer), NULL);
    const char *bad = json_string_value(json_object_get(json_object_get(got, "error"), "desc"));
    json_t *value = json_object_get(got, "return");
    if (!value) {
        libvirt_error(error, ERR_INTERNAL, "unable to execute QEMU agent command '%s': %s", command,
                      bad ? bad : "no answer that can be read");
    }
    return json_incref(value);
}

bool agent_send(struct machine *m, const char *command, json_t *args, GError **error)
{
    const char *path = agent_path(m);
    g_autoptr(json_t) given = args;
    if (!path) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured");
        return false;
    }
    /* guest-shutdown has no answer but the end of the guest: that it is heard is enough. */
    g_autoptr(json_t) hello = agent_run(m, "guest-ping", NULL, error);
    if (!hello) {
        return false;
    }
    g_autoptr(json_t) message = json_pack("{s:s, s:O}", "execute", command, "arguments", args);
    g_autofree char *text = json_dumps(message, JSON_COMPACT);
    g_autofree char *line = g_strconcat(text, "\n", NULL);
    path = agent_path(m); /* the lock was given up */
    autofd int fd = path ? socket_connect(path) : -1;
    if (fd < 0 || send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line)) {
        libvirt_error(error, ERR_AGENT_UNRESPONSIVE, "QEMU guest agent is not connected");
        return false;
    }
    return true;
}
