/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/qmp.h"

#include "base/error.h"
#include "manage/daemon/daemon.h"
#include "manage/daemon/files.h"
#include "manage/daemon/poller.h"
#include "manage/error.h"

#include <string.h>
#include <sys/socket.h>

struct qmp {
    struct watch watch; /* first */
    gatomicrefcount refs;
    bool closed;               /* nobody wants callbacks any more */
    bool dead;                 /* the other end is gone */
    struct json_framer framer; /* main loop only */
    const struct qmp_ops *ops;
    void *data;
    int64_t last_id;
    GHashTable *waiting; /* id -> struct pending */
    GQueue sent;         /* int64_t *: when, of those without answer, also where nobody waits now */
};

struct pending {
    json_t *reply;
};

static void unref(struct qmp *q)
{
    if (g_atomic_ref_count_dec(&q->refs)) {
        close(q->watch.fd);
        json_framer_clear(&q->framer);
        g_hash_table_unref(q->waiting);
        g_queue_clear_full(&q->sent, g_free);
        g_free(q);
    }
}

/* --- the main loop's side --- */

static void handle(struct qmp *q, const char *text, size_t n)
{
    g_autoptr(json_t) message = json_parse(text, n, NULL);
    const char *event = json_string_value(json_object_get(message, "event"));
    json_t *id = json_object_get(message, "id");
    daemon_lock();
    if (event && !q->closed) {
        q->ops->event(q->data, event, json_object_get(message, "data"),
                      json_object_get(message, "timestamp"));
    } else if (json_is_integer(id)) {
        int64_t number = json_integer_value(id);
        g_free(g_queue_pop_head(&q->sent)); /* answers come in the order of the commands */
        struct pending *p = g_hash_table_lookup(q->waiting, &number);
        if (p && !p->reply) {
            p->reply = g_steal_pointer(&message);
            daemon_wake();
        } else if (g_queue_is_empty(&q->sent) && !q->closed) {
            q->ops->caught_up(q->data);
        }
    }
    daemon_unlock();
}

static void lost(struct qmp *q)
{
    poller_remove(&q->watch);
    daemon_lock();
    q->dead = true;
    if (!q->closed) {
        q->ops->closed(q->data);
    }
    daemon_wake();
    daemon_unlock();
    unref(q);
}

static void ready(struct watch *watch, uint32_t events)
{
    struct qmp *q = (struct qmp *)watch;
    char buffer[16384];
    (void)events;
    ssize_t n = recv(watch->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        lost(q);
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (json_framer_byte(&q->framer, buffer[i])) {
            handle(q, q->framer.text->str, q->framer.text->len);
            g_string_truncate(q->framer.text, 0);
        } else if (q->framer.too_long) {
            lost(q);
            return;
        }
    }
}

static void attach(void *data)
{
    struct qmp *q = data;
    if (!poller_add(&q->watch)) {
        lost(q);
    }
}

/* --- everybody else's --- */

struct qmp *qmp_open(const char *path, const struct qmp_ops *ops, void *data, GError **error)
{
    int fd = socket_connect(path);
    if (fd < 0) {
        libvirt_error(error, ERR_SYSTEM, "Failed to connect to monitor socket %s: %s", path,
                      g_strerror(errno));
        return NULL;
    }
    struct qmp *q = g_new0(struct qmp, 1);
    q->watch = (struct watch){.fd = fd, .events = EPOLLIN, .ready = ready};
    q->ops = ops;
    q->data = data;
    q->waiting = g_hash_table_new(g_int64_hash, g_int64_equal);
    json_framer_init(&q->framer);
    g_atomic_ref_count_init(&q->refs);
    g_atomic_ref_count_inc(&q->refs); /* the main loop's */
    daemon_in_loop(G_PRIORITY_HIGH, attach, q);
    return q;
}

void qmp_close(struct qmp *q)
{
    if (q) {
        q->closed = true;
        shutdown(q->watch.fd, SHUT_RDWR); /* the main loop sees the end and lets go */
        unref(q);
    }
}

/* @fd (-1: none) goes along with the first byte. */
static ssize_t send_some(const struct qmp *q, const char *text, size_t n, int fd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {(char *)text, n};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = control.room;
        m.msg_controllen = sizeof(control.room);
        control.head = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
    }
    return sendmsg(q->watch.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static bool send_all(struct qmp *q, const char *text, size_t n, int fd, GError **error)
{
    while (n) {
        ssize_t sent = send_some(q, text, n, fd);
        if (sent > 0) {
            text += sent;
            n -= (size_t)sent;
            fd = -1;
        } else if (errno == EAGAIN) { /* some hundred commands that nobody has read */
            libvirt_error(error, ERR_OPERATION_TIMEOUT, "the machine's monitor does not read");
            return false;
        } else if (errno != EINTR) {
            libvirt_error(error, ERR_OPERATION_FAILED, "domain is no longer running");
            return false;
        }
    }
    return true;
}

/* Takes @reply (NULL: there is an error already). */
static json_t *result(const struct qmp *q, const char *command, json_t *reply, GError **error)
{
    g_autoptr(json_t) got = reply;
    json_t *bad = json_object_get(got, "error");
    if (bad) {
        const char *text = json_string_value(json_object_get(bad, "desc"));
        g_autofree char *words = q->closed || !text ? NULL : q->ops->words(q->data, text);
        libvirt_error(error, ERR_INTERNAL, "unable to execute QEMU command '%s': %s", command,
                      words  ? words
                      : text ? text
                             : "no reason given");
        return NULL;
    }
    return json_incref(json_object_get(got, "return"));
}

/* The whole reply. */
static json_t *ask(struct qmp *q, const char *command, json_t *args, int fd, int timeout_ms,
                   GError **error)
{
    g_autoptr(json_t) given = args;
    if (!q || q->dead || q->closed) {
        libvirt_error(error, ERR_OPERATION_FAILED, "domain is no longer running");
        return NULL;
    }
    int64_t id = ++q->last_id,
            wait_ms = MIN(timeout_ms, daemon_patience(INT_MAX / 1000) * INT64_C(1000));
    int64_t until = g_get_monotonic_time() + wait_ms * 1000;
    g_autoptr(json_t) message = json_pack("{s:s, s:I}", "execute", command, "id", (json_int_t)id);
    if (args) {
        json_object_set(message, "arguments", args);
    }
    g_autofree char *text = json_dumps(message, JSON_COMPACT);
    g_autofree char *line = g_strconcat(text, "\n", NULL);
    if (!send_all(q, line, strlen(line), fd, error)) {
        return NULL;
    }
    int64_t now = g_get_monotonic_time();
    g_queue_push_tail(&q->sent, g_memdup2(&now, sizeof(now)));
    struct pending p = {0};
    g_atomic_ref_count_inc(&q->refs);
    g_hash_table_insert(q->waiting, &id, &p);
    bool late = false;
    while (!p.reply && !q->dead && !q->closed && !late) {
        late = !daemon_wait(until);
    }
    g_hash_table_remove(q->waiting, &id);
    if (p.reply) {
        /* .reply is the caller's */
    } else if (q->dead || q->closed) {
        libvirt_error(error, ERR_OPERATION_FAILED, "domain is no longer running");
    } else {
        libvirt_error(error, ERR_OPERATION_TIMEOUT,
                      "the machine's monitor did not answer '%s' within %d s", command,
                      timeout_ms / 1000);
    }
    unref(q);
    return p.reply;
}

int64_t qmp_unanswered(const struct qmp *q)
{
    const int64_t *oldest = q ? g_queue_peek_head((GQueue *)&q->sent) : NULL;
    return oldest ? *oldest : 0;
}

bool qmp_is_dead(const struct qmp *q)
{
    return q && q->dead;
}

json_t *qmp_ask(struct qmp *q, const char *command, json_t *args, int timeout_ms, GError **error)
{
    return ask(q, command, args, -1, timeout_ms, error);
}

static json_t *run(struct qmp *q, const char *command, json_t *args, int fd, int timeout_ms,
                   GError **error)
{
    if (q) {
        g_atomic_ref_count_inc(&q->refs);
    }
    json_t *got = result(q, command, ask(q, command, args, fd, timeout_ms, error), error);
    if (q) {
        unref(q);
    }
    return got;
}

json_t *qmp_run(struct qmp *q, const char *command, json_t *args, int timeout_ms, GError **error)
{
    return run(q, command, args, -1, timeout_ms, error);
}

bool qmp_give_fd(struct qmp *q, int fd, const char *name, GError **error)
{
    json_t *args = json_pack("{s:s}", "fdname", name);
    g_autoptr(json_t) got = run(q, "getfd", args, fd, QMP_TIMEOUT_MS, error);
    return got != NULL;
}

bool qmp_do(struct qmp *q, GError **error, const char *command, const char *fmt, ...)
{
    json_t *args = NULL;
    if (fmt) {
        va_list ap;
        va_start(ap, fmt);
        args = json_vpack_ex(NULL, 0, fmt, ap);
        va_end(ap);
        if (!args) {
            libvirt_error(error, ERR_INTERNAL, "arguments of '%s' are no text", command);
            return false;
        }
    }
    g_autoptr(json_t) got = qmp_run(q, command, args, QMP_TIMEOUT_MS, error);
    return got != NULL;
}
