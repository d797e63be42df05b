/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine's state in a file: "LodgeSave1\n", three numbers of 32 bits, little-endian (length of
 * the XML, whether it ran, 0), the XML, and from there on lodge-vm's state stream.
 *
 * lodge-vm is an unprivileged user and may not write where a client wants the file, so it sends
 * its state through a socket and we write.
 */
#include "manage/daemon/disks.h"

#include "base/bytes.h"
#include "base/util.h"
#include "manage/daemon/files.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static const char magic[] = "LodgeSave1\n";
enum {
    MAGIC = sizeof(magic) - 1,
    HEAD = MAGIC + 12,
    XML_MAX = 4 << 20,
    CHUNK = 256 << 10,
    SLACK = 4096
};
enum {
    CONNECT_SECONDS = 30,
    STALL_SECONDS = 60,
    CANCEL_SECONDS = 30,
    ARRIVE_SECONDS = 60,
    LOOK_US = 20000
};

static bool write_all(int fd, const void *data, size_t n)
{
    const char *at = data;
    while (n) {
        ssize_t k = write(fd, at, n);
        if (k < 0 && errno != EINTR) {
            return false;
        }
        if (k > 0) {
            at += k;
            n -= (size_t)k;
        }
    }
    return true;
}

/* The XML of @n bytes, filled up with line ends, which XML may end with. */
static GString *make_head(const char *xml, size_t n, bool running)
{
    GString *out = g_string_sized_new(HEAD + n);
    g_string_set_size(out, HEAD);
    memset(out->str, 0, HEAD);
    memcpy(out->str, magic, MAGIC);
    le32_put((uint8_t *)out->str + MAGIC, (uint32_t)n);
    le32_put((uint8_t *)out->str + MAGIC + 4, running);
    g_string_append(out, xml);
    while (out->len < HEAD + n) {
        g_string_append_c(out, '\n');
    }
    return out;
}

/* A file with a machine in it: to look at, or to be given another head. */
struct saved {
    char *path, *xml;
    GString *head;
    GError *error;
    int fd;
    bool running;
};

static void saved_free(void *data)
{
    struct saved *s = data;
    fd_let_go(s->fd);
    if (s->head) {
        g_string_free(s->head, TRUE);
    }
    g_clear_error(&s->error);
    g_free(s->path);
    g_free(s->xml);
    g_free(s);
}

static void saved_read(void *data)
{
    struct saved *s = data;
    uint8_t head[HEAD];
    s->fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* it may be a pipe */
    if (s->fd < 0) {
        libvirt_error(&s->error, ERR_OPERATION_FAILED, "failed to open '%s': %s", s->path,
                      g_strerror(errno));
        return;
    }
    if (read(s->fd, head, sizeof(head)) != sizeof(head) || memcmp(head, magic, MAGIC) != 0) {
        libvirt_error(&s->error, ERR_OPERATION_FAILED,
                      "image magic is incorrect: '%s' is no saved machine", s->path);
        return;
    }
    uint32_t n = le32_at(head + MAGIC);
    s->xml = n <= XML_MAX ? g_try_malloc0((size_t)n + 1) : NULL;
    if (!s->xml || read(s->fd, s->xml, n) != (ssize_t)n) {
        libvirt_error(&s->error, ERR_OPERATION_FAILED, "failed to read the XML in '%s'", s->path);
    }
    s->running = le32_at(head + MAGIC + 4) != 0;
}

/* From the beginning, and the rest stays. */
static void saved_write(void *data)
{
    struct saved *s = data;
    bool whole = s->fd < 0; /* else more follows */
    s->fd = whole ? open(s->path, O_WRONLY | O_CLOEXEC | O_NONBLOCK) : s->fd;
    if (s->fd < 0 || !write_all(s->fd, s->head->str, s->head->len) ||
        (whole && fdatasync(s->fd) != 0)) {
        libvirt_error(&s->error, ERR_OPERATION_FAILED, "failed to write '%s': %s", s->path,
                      g_strerror(errno));
    }
}

/* NULL with an error, else the caller frees it.  Takes over @head and @fd. */
static struct saved *saved_act(const char *path, GString *head, int fd, GError **error)
{
    struct saved *s = g_new(struct saved, 1);
    *s = (struct saved){.path = g_strdup(path), .head = head, .fd = fd};
    if (!file_act(path, head ? saved_write : saved_read, s, saved_free, error)) {
        return NULL;
    }
    if (s->error) {
        g_propagate_error(error, g_steal_pointer(&s->error));
        saved_free(s);
        return NULL;
    }
    return s;
}

static bool write_head(const char *path, int fd, GString *head, GError **error)
{
    struct saved *s = saved_act(path, head, fd, error);
    bool ok = s;
    if (s) {
        saved_free(s);
    }
    return ok;
}

bool saved_define(const char *path, const DomainDef *def, int running, GError **error)
{
    g_autofree char *old = NULL, *xml = domain_def_format(def, XML_MODE_SECRET);
    bool ran;
    autofile int from = saved_open(path, &old, &ran, error);
    if (from < 0) {
        return false;
    }
    size_t room = (size_t)lseek(from, 0, SEEK_CUR) - HEAD;
    if (strlen(xml) > room) {
        libvirt_error(error, ERR_OPERATION_FAILED, "new xml too large to fit in file");
        return false;
    }
    return write_head(path, -1, make_head(xml, room, running < 0 ? ran : running), error);
}

int saved_open(const char *path, char **xml, bool *running, GError **error)
{
    struct saved *s = saved_act(path, NULL, -1, error);
    if (!s) {
        return -1;
    }
    int fd = g_steal_fd(&s->fd);
    *running = s->running;
    *xml = g_steal_pointer(&s->xml);
    saved_free(s);
    return fd;
}

/* From the machine's socket to the file. */
struct copy {
    int from, to, code;
    bool ok;
};

static void copy_free(void *data)
{
    struct copy *c = data;
    close(c->from);
    fd_let_go(c->to);
    g_free(c);
}

static bool copy_all(const struct copy *c)
{
    g_autofree char *buffer = g_malloc(CHUNK);
    for (;;) {
        struct pollfd p = {.fd = c->from, .events = POLLIN};
        if (poll(&p, 1, STALL_SECONDS * 1000) <= 0) {
            errno = ETIMEDOUT;
            return false;
        }
        ssize_t n = read(c->from, buffer, CHUNK);
        if (n == 0) {
            return fdatasync(c->to) == 0;
        }
        if (n < 0 || !write_all(c->to, buffer, (size_t)n)) {
            return false;
        }
    }
}

static void copy_run(void *data)
{
    struct copy *c = data;
    c->ok = copy_all(c);
    c->code = errno;
}

/* Takes over @from; -1 for one that never came. */
static bool copy(int from, int to, const char *path, GError **error)
{
    if (from < 0) {
        libvirt_error(error, ERR_OPERATION_FAILED, "the state cannot be written: %s",
                      g_strerror(EIO));
        return false;
    }
    struct copy *c = g_new(struct copy, 1);
    *c = (struct copy){.from = from, .to = fcntl(to, F_DUPFD_CLOEXEC, 0)};
    if (!file_work(path, copy_run, c, copy_free, error)) {
        return false;
    }
    bool ok = c->ok;
    if (!ok) {
        libvirt_error(error, ERR_OPERATION_FAILED, "the state cannot be written: %s",
                      g_strerror(c->code));
    }
    copy_free(c);
    return ok;
}

static int listen_for(const char *path, unsigned uid)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    unlink(path);
    autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        chmod(path, 0600) != 0 || (getuid() == 0 && chown(path, uid, uid) != 0) ||
        listen(fd, 1) != 0) {
        return -1;
    }
    return g_steal_fd(&fd);
}

/* Whether the migration that was begun is over; *@ok: with the state at the other end. */
static bool is_over(struct machine *m, bool *ok, GError **error)
{
    g_autoptr(json_t) info = qmp_run(m->qmp, "query-migrate", NULL, QMP_TIMEOUT_MS, error);
    const char *status = json_string_value(json_object_get(info, "status"));
    *ok = status && strcmp(status, "completed") == 0;
    if (*ok) {
        figures_learn(&m->job, info);
    }
    if (!status || *ok) {
        return true;
    }
    if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0) {
        const char *why = json_string_value(json_object_get(info, "error-desc"));
        g_autofree char *words = disks_words(m, why ? why : status);
        libvirt_error(error, ERR_OPERATION_FAILED, "the state cannot be saved: %s", words);
        return true;
    }
    return false;
}

/* Waits for that. */
static bool migrated(struct machine *m, GError **error)
{
    bool ok;
    while (!is_over(m, &ok, error)) {
        daemon_wait(g_get_monotonic_time() + LOOK_US);
    }
    return ok;
}

/* What nobody takes ends; before that the machine could not go on. */
static void end_stream(struct machine *m)
{
    int64_t until = g_get_monotonic_time() + daemon_patience(CANCEL_SECONDS) * G_USEC_PER_SEC;
    bool ok;
    qmp_do(m->qmp, NULL, "migrate_cancel", NULL);
    while (!m->ended && !is_over(m, &ok, NULL) && g_get_monotonic_time() < until) {
        daemon_wait(g_get_monotonic_time() + LOOK_US);
    }
}

bool machine_stream_state(struct machine *m, int to, const char *path, GError **error)
{
    g_autofree char *door = g_build_filename(m->folder, "save", NULL);
    g_autofree char *uri = g_strconcat("unix:", door, NULL);
    autofd int listener = listen_for(door, m->uid);
    if (listener < 0) {
        libvirt_error(error, ERR_SYSTEM, "%s: %s", door, g_strerror(errno));
        return false;
    }
    if (!qmp_do(m->qmp, error, "migrate", "{s:s}", "uri", uri)) {
        return false;
    }
    daemon_unlock();
    struct pollfd p = {.fd = listener, .events = POLLIN};
    int from =
        poll(&p, 1, CONNECT_SECONDS * 1000) > 0 ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
    daemon_lock();
    unlink(door);
    if (!copy(from, to, path, error)) {
        end_stream(m);
        return false;
    }
    return migrated(m, error);
}

void machine_writes(struct machine *m, const char *path, const char *saved)
{
    g_free(m->unfinished);
    g_free(m->saved);
    m->unfinished = g_strdup(path);
    m->saved = g_strdup(saved);
    if (!m->ended) {
        machine_save(m);
    }
}

/* A file that has its last name already is whole. */
static bool was_saved(const struct machine *m)
{
    struct stat half = {0}, whole = {0};
    return m->saved && file_answers(m->unfinished, &half, NULL) && !half.st_nlink &&
           file_answers(m->saved, &whole, NULL) && whole.st_nlink;
}

static void drop_unfinished(struct machine *m)
{
    struct stat st = {0};
    if (m->unfinished && file_answers(m->unfinished, &st, NULL) && S_ISREG(st.st_mode)) {
        path_unlink(m->unfinished);
    }
    if (m->unfinished) {
        machine_writes(m, NULL, NULL);
    }
}

/* A machine that is here is in no file: it has just come from there. */
static void drop_managed(Domain *d)
{
    g_autofree char *managed = domain_managed_save_path(d);
    if (d->managed_save) {
        path_unlink(managed);
        d->managed_save = false;
    }
}

void machine_save_recover(struct machine *m)
{
    Domain *d = m->domain;
    g_autoptr(GError) error = NULL;
    if (was_saved(m)) {
        if (!machine_stop(d, SHUTOFF_SAVED, false, &error)) {
            daemon_log("%s: it is saved, and does not end: %s", d->name, error->message);
        }
        return;
    }
    drop_unfinished(m);
    drop_managed(d);
    bool ours = d->machine == m && d->state == STATE_PAUSED &&
                (m->wakes || d->reason == PAUSED_SAVE || d->reason == PAUSED_DUMP ||
                 d->reason == PAUSED_SNAPSHOT);
    int why = m->wakes                   ? RUNNING_RESTORED
              : d->reason == PAUSED_SAVE ? RUNNING_SAVE_CANCELED
                                         : RUNNING_UNPAUSED;
    m->wakes = false;
    if (ours && !machine_resume(d, why, &error)) {
        daemon_log("%s: cannot go on: %s", d->name, error->message);
    }
}

bool machine_save_memory(struct machine *m, const char *path, const char *xml, bool running,
                         bool ends, GError **error)
{
    g_autofree char *own = domain_def_format(m->def, XML_MODE_SECRET);
    g_autofree char *temporary = g_strdup_printf("%s.new", path);
    machine_writes(m, temporary, ends ? path : NULL);
    autofile int fd = path_open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600, NULL);
    if (fd < 0) {
        path_error(error, ERR_OPERATION_FAILED, "failed to create", path);
        machine_writes(m, NULL, NULL);
        return false;
    }
    if (m->ended) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain is not running");
        path_unlink(temporary);
        return false;
    }
    m->job = (struct job_figures){
        .type = JOB_UNBOUNDED, .operation = OPERATION_SAVE, .since = g_get_monotonic_time()};
    g_autoptr(GError) why = NULL;
    const char *text = xml ? xml : own;
    size_t room = (strlen(text) + SLACK) / SLACK * SLACK + SLACK; /* see saved_define() */
    bool ok = write_head(temporary, fcntl(fd, F_DUPFD_CLOEXEC, 0), make_head(text, room, running),
                         &why) &&
              machine_stream_state(m, fd, temporary, &why) && path_rename(temporary, path) == 0;
    m->job.type = JOB_NONE;
    if (!ok) {
        if (why) {
            g_propagate_error(error, g_steal_pointer(&why));
        } else {
            path_error(error, ERR_OPERATION_FAILED, "cannot write", path);
        }
        path_unlink(temporary);
    }
    if (!ok || !ends) {
        machine_writes(m, NULL, NULL);
    }
    return ok;
}

bool domain_save_to(Domain *d, const char *path, const char *xml, int running, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m || !block_jobs_none(m, error) || !disks_may_leave(m->def, error)) {
        return false;
    }
    bool ran = d->state == STATE_RUNNING;
    m->job.operation = 0; /* until it has begun */
    bool stands = !ran || machine_pause(d, PAUSED_SAVE, error);
    bool saved =
        stands && machine_save_memory(m, path, xml, running < 0 ? ran : running, true, error);
    if (m->job.operation == OPERATION_SAVE) {
        domain_job_over(d, &m->job, saved ? JOB_COMPLETED : JOB_FAILED);
    }
    if (!saved) {
        if (ran && d->machine == m && d->state == STATE_PAUSED) {
            machine_resume(d, RUNNING_SAVE_CANCELED, NULL);
        }
        return false;
    }
    if (!machine_stop(d, SHUTOFF_SAVED, false, error)) {
        machine_writes(m, NULL, NULL);
        return false;
    }
    return true;
}

bool machine_arrived(struct machine *m, const char *from, GError **error)
{
    int64_t wait = daemon_patience(ARRIVE_SECONDS) * (int64_t)G_USEC_PER_SEC;
    int64_t end = g_get_monotonic_time() + wait;
    for (;;) {
        g_autoptr(json_t) info = qmp_run(m->qmp, "query-status", NULL, QMP_TIMEOUT_MS, error);
        const char *status = json_string_value(json_object_get(info, "status"));
        if (!status) {
            return false; /* what does not load ends the process */
        }
        if (strcmp(status, "inmigrate") != 0) {
            return true;
        }
        daemon_wait(g_get_monotonic_time() + 10000);
        if (g_get_monotonic_time() < end) {
            continue;
        }
        if (!from || !file_server_answers(from)) {
            libvirt_error(error, ERR_OPERATION_TIMEOUT, "the state of the machine does not come");
            return false;
        }
        end = g_get_monotonic_time() + wait;
    }
}

bool domain_restore_from(Domain *d, const char *path, unsigned flags, GError **error)
{
    return domain_restore_with(d, path, NULL, flags, error);
}

/* @words, if lodge-vm ended with them over the state in the file, else @why. */
static void blame_file(const char *path, const char *words, GError *why, GError **error)
{
    static const char mark[] = "lodge-vm: -incoming fd:";
    const char *said = g_strrstr(words, mark);
    const char *reason = said ? strchr(said + strlen(mark), ' ') : NULL;
    if (!reason || strchr(reason, '\n')) {
        g_propagate_error(error, why);
        return;
    }
    g_error_free(why);
    libvirt_error(error, ERR_OPERATION_FAILED, "'%s' cannot be loaded:%s", path, reason);
}

bool domain_restore_with(Domain *d, const char *path, const DomainDef *def, unsigned flags,
                         GError **error)
{
    g_autofree char *xml = NULL;
    bool running;
    autofile int fd = saved_open(path, &xml, &running, error);
    g_autoptr(DomainDef) own = fd >= 0 ? domain_def_parse(xml, 0, error) : NULL;
    if (!own) {
        return false;
    }
    /* The stream's descriptor is the second that the machine gets. */
    const struct machine_start how = {.flags = START_PAUSED | (flags & START_RESET_NVRAM),
                                      .incoming = "fd",
                                      .incoming_fd = fd,
                                      .event_detail = 2,
                                      .running_reason = RUNNING_RESTORED};
    GError *why = NULL;
    if (!machine_start(d, def ? def : own, &how, &why)) {
        blame_file(path, why->message, why, error);
        return false;
    }
    g_autoptr(Machine) m = machine_of(d, &why);
    if (!m || !machine_arrived(m, path, &why)) {
        machine_stop(d, SHUTOFF_FAILED, false, NULL);
        g_autofree char *tail = machine_log_tail(d, 0);
        blame_file(path, tail, why, error);
        return false;
    }
    bool run = flags & START_PAUSED ? false : flags & SAVE_RUNNING ? true : running;
    domain_set_state(d, STATE_PAUSED, PAUSED_USER);
    m->wakes = run;
    machine_save(m); /* before it does anything that its file knows nothing of */
    bool ok = run ? machine_resume(d, RUNNING_RESTORED, error) : true;
    m->wakes = false;
    return ok;
}
