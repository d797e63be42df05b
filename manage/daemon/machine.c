/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process of a running machine: how it starts, how its end is noticed, how another lodged
 * finds it again.
 *
 * DAEMON_RUN/qemu/UUID/ holds the sockets of one run and two files: "status" (process, ids,
 * why things are as they are) and "domain.xml", the live definition.
 */
#include "manage/daemon/checkpoint.h"
#include "manage/daemon/disks.h"

#include "base/error.h"
#include "base/util.h"
#include "manage/daemon/balloon.h"
#include "manage/daemon/files.h"
#include "manage/daemon/iothreads.h"
#include "manage/daemon/migrate.h"
#include "manage/daemon/port_guard.h"
#include "manage/daemon/tune.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

/*
 * Each machine is a user of its own, who owns nothing else: from this number on, where such
 * numbers exist (a container may have fewer).
 */
enum { FIRST_UID = 1879048192, UIDS = 1 << 16, NOBODY = 65534 };
enum { START_SECONDS = 60, TERM_SECONDS = 10, KILL_SECONDS = 20 };
enum { BACKLOG = 64 }; /* daemons that a stopped machine has not heard of */

static int next_id = 1;

/* --- small things --- */

/* Field 22 of /proc/PID/stat: tells a process from a later one of the same number. */
static uint64_t start_time_of(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", pid), *text = NULL;
    unsigned long long t = 0;
    const char *at = g_file_get_contents(path, &text, NULL, NULL) ? strrchr(text, ')') : NULL;
    if (!at || sscanf(at + 1,
                      " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
                      "%*d %*d %llu",
                      &t) != 1) {
        return 0;
    }
    return t;
}

/* Whether everybody can get to @folder, which a machine of another user must. */
static bool in_reach(const char *folder)
{
    struct stat st;
    g_autofree char *path = g_strdup(folder);
    while (strcmp(path, "/") != 0) {
        if (stat(path, &st) == 0 && !(st.st_mode & S_IXOTH)) {
            daemon_log("%s is closed to others: machines run as the user of lodged", path);
            return false;
        }
        char *above = g_path_get_dirname(path);
        g_free(path);
        path = above;
    }
    return true;
}

static unsigned uid_of(int id)
{
    g_autofree char *map = NULL;
    unsigned uid = FIRST_UID + (unsigned)id % UIDS;
    if (!g_file_get_contents("/proc/self/uid_map", &map, NULL, NULL)) {
        return NOBODY;
    }
    for (const char *line = map; line && *line;
         line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        unsigned inside, outside, count;
        if (sscanf(line, "%u %u %u", &inside, &outside, &count) == 3 && uid >= inside &&
            uid - inside < count) {
            return uid;
        }
    }
    return NOBODY;
}

Machine *machine_ref(Machine *m)
{
    m->refs++;
    return m;
}

void machine_unref(Machine *m)
{
    if (--m->refs) {
        return;
    }
    if (m->watch.fd >= 0) {
        close(m->watch.fd);
    }
    qmp_close(m->qmp);
    g_clear_pointer(&m->block_jobs, g_ptr_array_unref);
    g_clear_pointer(&m->backup, backup_free);
    g_clear_pointer(&m->move.made, g_ptr_array_unref);
    g_clear_pointer(&m->images, g_ptr_array_unref);
    g_free(m->move.door);
    domain_def_free(m->def);
    g_free(m->folder);
    g_free(m->group_name);
    g_free(m->plugging);
    g_free(m->refused);
    g_free(m->dump_error);
    g_free(m->unfinished);
    g_free(m->saved);
    g_free(m->snapshot);
    cgroup_free(m->group);
    g_clear_pointer(&m->children, g_hash_table_unref);
    domain_unref(m->domain);
    g_free(m);
}

Machine *machine_of(const Domain *d, GError **error)
{
    return domain_check_active(d, error) ? machine_ref(d->machine) : NULL;
}

/* --- what another lodged reads --- */

void machine_save(struct machine *m)
{
    g_autoptr(GKeyFile) status = g_key_file_new();
    Domain *d = m->domain;
    g_key_file_set_integer(status, "machine", "pid", m->pid);
    g_key_file_set_uint64(status, "machine", "start_time", m->start_time);
    g_key_file_set_integer(status, "machine", "id", (int)m->def->id);
    g_key_file_set_integer(status, "machine", "state", d->state);
    g_key_file_set_integer(status, "machine", "reason", d->reason);
    g_key_file_set_int64(status, "machine", "booted", d->booted);
    g_key_file_set_uint64(status, "machine", "next_node", m->next_node);
    g_key_file_set_uint64(status, "machine", "uid", m->uid);
    g_key_file_set_integer(status, "machine", "pause_reason", m->pause_reason);
    g_key_file_set_boolean(status, "machine", "rebooting", m->rebooting);
    g_key_file_set_uint64(status, "machine", "tainted", m->tainted);
    if (m->unfinished) {
        g_key_file_set_string(status, "machine", "unfinished", m->unfinished);
    }
    if (m->saved) {
        g_key_file_set_string(status, "machine", "saved", m->saved);
    }
    g_key_file_set_boolean(status, "machine", "wakes", m->wakes);
    if (m->snapshot) {
        g_key_file_set_string(status, "machine", "snapshot", m->snapshot);
    }
    if (m->plugging) {
        g_key_file_set_string(status, "machine", "plugging", m->plugging);
    }
    if (m->images) {
        g_key_file_set_string_list(status, "machine", "images",
                                   (const char *const *)m->images->pdata, m->images->len);
        g_key_file_set_boolean(status, "machine", "images_stay", m->images_stay);
    }
    if (m->move.incoming) {
        const GPtrArray *made = m->move.made;
        g_key_file_set_string_list(status, "machine", "incoming",
                                   made ? (const char *const *)made->pdata : NULL, xml_count(made));
    }
    g_autofree char *path = g_build_filename(m->folder, "status", NULL);
    g_autofree char *xml = g_build_filename(m->folder, "domain.xml", NULL);
    g_autofree char *text = domain_def_format(m->def, XML_MODE_LIVE | XML_MODE_SECRET);
    g_autoptr(GError) error = NULL;
    g_autofree char *words = g_key_file_to_data(status, NULL, NULL);
    if (!daemon_note_file(xml, text, &error) || !daemon_note_file(path, words, &error)) {
        daemon_log("%s: its state cannot be written: %s", d->name, error->message);
    }
}

static void remove_folder(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        if (g_file_test(path, G_FILE_TEST_IS_DIR) && !g_file_test(path, G_FILE_TEST_IS_SYMLINK)) {
            remove_folder(path);
        } else {
            g_unlink(path);
        }
    }
    g_rmdir(folder);
}

/* --- the end --- */

static const struct {
    int shutoff, event_detail;
} ends[] = {
    [SHUTOFF_UNKNOWN] = {SHUTOFF_UNKNOWN, 2},
    [SHUTOFF_SHUTDOWN] = {SHUTOFF_SHUTDOWN, 0},
    [SHUTOFF_DESTROYED] = {SHUTOFF_DESTROYED, 1},
    [SHUTOFF_CRASHED] = {SHUTOFF_CRASHED, 2},
    [SHUTOFF_MIGRATED] = {SHUTOFF_MIGRATED, 3},
    [SHUTOFF_SAVED] = {SHUTOFF_SAVED, 4},
    [SHUTOFF_FAILED] = {SHUTOFF_FAILED, 5},
    [SHUTOFF_FROM_SNAPSHOT] = {SHUTOFF_FROM_SNAPSHOT, 6},
};

/* Files that came while it ran were given to its user; see disk_lend().  Their server may be dead:
 * on a thread that nobody waits for but the next start. */
static gpointer take_back(gpointer machine)
{
    struct machine *m = machine;
    disks_return(m);
    daemon_lock();
    m->domain->returning = false;
    machine_unref(m);
    daemon_wake();
    daemon_unlock();
    return NULL;
}

static void begin_take_back(struct machine *m)
{
    if (m->uid == getuid() || !xml_count(m->def->disks)) {
        return;
    }
    GThread *thread = g_thread_try_new("files", take_back, machine_ref(m), NULL);
    if (!thread) {
        daemon_log("%s: no thread to take its files back", m->domain->name);
        machine_unref(m);
        return;
    }
    m->domain->returning = true;
    g_thread_unref(thread);
}

/* Its process is gone; lock held. */
static void ended(struct machine *m)
{
    Domain *d = m->domain;
    if (m->ended) {
        return;
    }
    m->ended = true;
    int status = 0;
    waitpid(m->pid, &status, WNOHANG); /* not ours if an earlier lodged started it */
    int reason = m->shutoff ? m->shutoff : m->shut_down ? SHUTOFF_SHUTDOWN : SHUTOFF_CRASHED;
    bool was_up = d->id >= 0;
    if (reason == SHUTOFF_CRASHED) {
        daemon_log("%s: lodge-vm (process %d) has died: %s %d", d->name, m->pid,
                   WIFSIGNALED(status) ? "signal" : "exit code",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    qmp_close(g_steal_pointer(&m->qmp));
    machine_net_close(m->def);
    backup_lost(m);
    begin_take_back(m);
    remove_folder(m->folder);
    cgroup_remove(g_steal_pointer(&m->group));
    d->machine = NULL;
    d->id = -1;
    d->moving = false;
    domain_set_state(d, STATE_SHUTOFF, ends[reason].shutoff);
    if (was_up) {
        rpc_event_domain_int2 message = {
            .dom = domain_rpc(d), .event = EVENT_STOPPED, .detail = ends[reason].event_detail};
        event_domain_lifecycle(&message);
        g_free(message.dom.name);
    }
    domain_settle(d);
    daemon_wake();
}

/* Its name is free only when images that were made for it are gone, else they might be another's.
 */
static void incoming_ended(void *data)
{
    struct machine *m = data;
    daemon_lock();
    g_autoptr(GPtrArray) made = g_steal_pointer(&m->move.made);
    move_forget_made(made);
    ended(m);
    machine_unref(m);
    daemon_unlock();
}

static void process_ended(struct watch *watch, uint32_t events)
{
    struct machine *m = (struct machine *)watch;
    (void)events;
    poller_remove(watch);
    daemon_lock();
    if (xml_count(m->move.made) && m->domain->state != STATE_RUNNING) {
        daemon_worker(incoming_ended, m);
    } else {
        ended(m);
        machine_unref(m);
    }
    daemon_unlock();
}

/* Runs on the main loop, which owns the structure from now on. */
static void watch_process(void *data)
{
    struct machine *m = data;
    if (!poller_add(&m->watch)) {
        daemon_log("%s: cannot watch its process: %s", m->domain->name, g_strerror(errno));
        process_ended(&m->watch, 0);
    }
}

/* Waits until the process has gone, or the time is over. */
static bool wait_end(Domain *d, struct machine *m, unsigned seconds)
{
    int64_t until = g_get_monotonic_time() + seconds * (int64_t)G_USEC_PER_SEC;
    while (d->machine == m) {
        if (!daemon_wait(until)) {
            return d->machine != m;
        }
    }
    return true;
}

bool machine_stop(Domain *d, int shutoff_reason, bool gently, GError **error)
{
    struct machine *m = d->machine;
    if (!m) {
        return true;
    }
    m->shutoff = shutoff_reason;
    m->dying = true;
    int fd = m->watch.fd;
    syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0);
    /* A machine that hangs does not hear it; stopped ones neither. */
    if (wait_end(d, m, gently ? TERM_SECONDS : 1)) {
        return true;
    }
    if (gently) {
        m->shutoff = 0;
        m->dying = false;
        libvirt_error(error, ERR_RESOURCE_BUSY, "Failed to terminate process %d with SIGTERM: %s",
                      m->pid, g_strerror(EBUSY));
        return false;
    }
    syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
    if (!wait_end(d, m, KILL_SECONDS)) {
        libvirt_error(error, ERR_SYSTEM, "Failed to terminate process %d with SIGKILL: %s", m->pid,
                      g_strerror(EBUSY));
        return false;
    }
    return true;
}

static void stop_abandoned(void *data)
{
    g_autoptr(Machine) m = data;
    daemon_lock();
    if (!m->ended) {
        machine_stop(m->domain, SHUTOFF_DESTROYED, false, NULL);
    }
    machine_unref(g_steal_pointer(&m));
    daemon_unlock();
}

void machine_abandon(Machine *m)
{
    if (m->ended || m->dying) {
        return;
    }
    m->shutoff = SHUTOFF_DESTROYED;
    m->dying = true;
    syscall(SYS_pidfd_send_signal, m->watch.fd, SIGTERM, NULL, 0);
    daemon_worker(stop_abandoned, machine_ref(m));
}

/* --- the start --- */

static int listen_at(const char *path, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        libvirt_error(error, ERR_INTERNAL, "UNIX socket path '%s' is too long", path);
        return -1;
    }
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        chmod(path, 0600) != 0 || listen(fd, BACKLOG) != 0) {
        libvirt_error(error, ERR_SYSTEM, "%s: %s", path, g_strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

static int open_log(const Domain *d, char **words, GError **error)
{
    g_autofree char *file = g_strconcat(d->name, ".log", NULL);
    g_autofree char *path = daemon_path_make(DAEMON_VAR, 0755, error, "log", "qemu", file, NULL);
    if (!path) {
        return -1;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) {
        libvirt_error(error, ERR_SYSTEM, "%s: %s", path, g_strerror(errno));
        return -1;
    }
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *stamp = g_date_time_format(now, "%F %T+0000"), *line = g_strjoinv(" ", words);
    dprintf(fd, "%s: starting up\n%s\n", stamp, line);
    return fd;
}

bool machine_remove_log(const Domain *d, GError **error)
{
    g_autofree char *file = g_strconcat(d->name, ".log", NULL);
    g_autofree char *path = daemon_path(DAEMON_VAR, "log", "qemu", file, NULL);
    if (unlink(path) != 0 && errno != ENOENT) {
        libvirt_error(error, ERR_SYSTEM, "cannot remove '%s': %s", path, g_strerror(errno));
        return false;
    }
    return true;
}

char *machine_log_tail(const Domain *d, goffset from)
{
    g_autofree char *file = g_strconcat(d->name, ".log", NULL);
    g_autofree char *path = daemon_path(DAEMON_VAR, "log", "qemu", file, NULL), *text = NULL;
    gsize n;
    if (!g_file_get_contents(path, &text, &n, NULL) || (goffset)n <= from) {
        return g_strdup("it ended without a word");
    }
    g_auto(GStrv) lines = g_strsplit(text + MAX(from, (goffset)n - 1000), "\n", -1);
    g_autoptr(GString) tail = g_string_new(NULL);
    for (unsigned i = 0; lines[i]; i++) { /* where a console went matters no more */
        if (!g_str_has_prefix(lines[i], "char device redirected to ")) {
            g_string_append_printf(tail, "%s\n", lines[i]);
        }
    }
    return g_strstrip(g_utf8_make_valid(tail->str, -1));
}

/* Between fork and exec: only what signal handlers may do. */
static void G_GNUC_NORETURN become_machine(char **words, char **env, int log, const GArray *fds,
                                           int gate, const struct tune_nodes *nodes, bool locked)
{
    static const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    char go;
    if (read(gate, &go, 1) != 1) {
        _exit(127); /* there is no place for it, or no lodged any more */
    }
    setsid();
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    for (unsigned i = 0; i < fds->len; i++) {
        fcntl(g_array_index(fds, int, i), F_SETFD, 0);
    }
    if (locked) { /* for modules that come when it is no longer root */
        setrlimit(RLIMIT_MEMLOCK, &all);
    }
    int e = tune_nodes_apply(nodes);
    if (e) {
        dprintf(2, "set_mempolicy: error %d\n", e);
        _exit(127);
    }
    execve(words[0], words, env);
    dprintf(2, "%s cannot be run\n", words[0]);
    _exit(127);
}

static bool spawn(struct machine *m, char **words, const GArray *fds, goffset *log_at,
                  GError **error)
{
    autofd int log = open_log(m->domain, words, error);
    if (log < 0) {
        return false;
    }
    *log_at = lseek(log, 0, SEEK_END);
    int gate[2];
    struct tune_nodes nodes;
    tune_nodes(m->def, &nodes);
    if (!tune_check(m->def, error)) {
        return false;
    }
    if (pipe2(gate, O_CLOEXEC) != 0) {
        libvirt_error(error, ERR_SYSTEM, "cannot make a pipe: %s", g_strerror(errno));
        return false;
    }
    autofd int inside = gate[0], outside = gate[1];
    g_auto(GStrv) env = machine_environment(m->def);
    m->pid = fork();
    if (m->pid == 0) {
        close(outside); /* else the end of lodged would not end the wait */
        become_machine(words, env, log, fds, inside, &nodes, m->def->locked);
    }
    if (m->pid < 0) {
        libvirt_error(error, ERR_SYSTEM, "cannot fork: %s", g_strerror(errno));
        return false;
    }
    m->watch.fd = (int)syscall(SYS_pidfd_open, m->pid, 0);
    m->start_time = start_time_of(m->pid);
    if (m->watch.fd < 0) {
        libvirt_error(error, ERR_SYSTEM, "pidfd_open: %s", g_strerror(errno));
        kill(m->pid, SIGKILL);
        waitpid(m->pid, NULL, 0);
        return false;
    }
    bool placed = tune_process(m, error);
    if (placed) { /* from now on another lodged finds it */
        m->domain->state = STATE_PAUSED;
        m->domain->reason = PAUSED_STARTING_UP;
        machine_save(m);
    }
    if (!placed || write(outside, "", 1) != 1) {
        m->domain->state = STATE_SHUTOFF;
        kill(m->pid, SIGKILL);
        waitpid(m->pid, NULL, 0);
        cgroup_remove(g_steal_pointer(&m->group));
        return false;
    }
    return true;
}

/* What only the running machine knows: the names of its pseudo-terminals, the ports it took. */
static bool learn(struct machine *m, GError **error)
{
    g_autoptr(json_t) chars = qmp_run(m->qmp, "query-chardev", NULL, QMP_TIMEOUT_MS, error);
    if (!chars) {
        return false;
    }
    machine_learn_ports(m, chars);
    GPtrArray *lists[] = {m->def->serials, m->def->parallels, m->def->consoles, m->def->channels};
    for (unsigned l = 0; l < G_N_ELEMENTS(lists); l++) {
        for (unsigned i = 0; i < xml_count(lists[l]); i++) {
            struct domain_char *c = lists[l]->pdata[i];
            g_autofree char *label = g_strdup_printf("char%s", c->alias);
            size_t n;
            json_t *one;
            json_array_foreach(chars, n, one)
            {
                const char *name = json_string_value(json_object_get(one, "label"));
                const char *file = json_string_value(json_object_get(one, "filename"));
                file =
                    file && g_str_has_prefix(file, "disconnected:") ? strchr(file, ':') + 1 : file;
                if (c->type != CHAR_PTY || g_strcmp0(name, label) != 0 || !file ||
                    !g_str_has_prefix(file, "pty:")) {
                    continue;
                }
                if (!c->sources) {
                    xml_append(NULL, &c->sources, xml_new(&char_source_table));
                }
                struct char_source *s = c->sources->pdata[0];
                g_free(s->path);
                s->path = g_strdup(file + 4);
                if (lists[l] == m->def->consoles) {
                    g_free(c->tty);
                    c->tty = g_strdup(file + 4);
                }
            }
        }
    }
    return true;
}

bool modules_learn(struct machine *m, GError **error)
{
    if (!xml_count(m->def->memory_devices)) {
        return true;
    }
    g_autoptr(json_t) all = qmp_run(m->qmp, "query-memory-devices", NULL, QMP_TIMEOUT_MS, error);
    for (unsigned i = 0; all && i < xml_count(m->def->memory_devices); i++) {
        struct domain_memory_device *dimm = m->def->memory_devices->pdata[i];
        size_t n;
        json_t *one;
        json_array_foreach(all, n, one)
        {
            const json_t *data = json_object_get(one, "data");
            const char *id = json_string_value(json_object_get(data, "id"));
            if (g_strcmp0(id, dimm->alias) == 0 && dimm->address) {
                dimm->address->slot = json_integer_value(json_object_get(data, "slot"));
                dimm->address->base = json_integer_value(json_object_get(data, "addr"));
            }
        }
    }
    return all != NULL;
}

/* VNC passwords travel over the monitor, where no other process can read them. */
bool machine_set_password(struct machine *m, const struct domain_graphics *g, GError **error)
{
    g_autofree char *until = g->passwd_valid_to
                                 ? g_strdup_printf("%ld", (long)domain_valid_to(g->passwd_valid_to))
                                 : g_strdup("never");
    /* A password is never there with a longer life than its own. */
    return qmp_do(m->qmp, error, "expire_password", "{s:s, s:s}", "protocol", "vnc", "time",
                  until) &&
           qmp_do(m->qmp, error, "change-vnc-password", "{s:s}", "password", g->passwd);
}

static bool set_passwords(struct machine *m, GError **error)
{
    for (unsigned i = 0; i < xml_count(m->def->graphics); i++) {
        const struct domain_graphics *g = m->def->graphics->pdata[i];
        if (g->passwd && !machine_set_password(m, g, error)) {
            return false;
        }
    }
    return true;
}

/* Before the guest sends its first frame. */
static bool guard_ports(struct machine *m, GError **error)
{
    g_autoptr(DomainDef) def = domain_def_copy(m->def); /* cards may go while the lock is away */
    for (unsigned i = 0; i < xml_count(def->interfaces); i++) {
        const struct domain_interface *nic = def->interfaces->pdata[i];
        if ((nic->link == LINK_DOWN && !machine_net_link(m, nic, error)) ||
            !machine_net_guard(nic, error)) {
            return false;
        }
    }
    return true;
}

static bool talk(struct machine *m, const struct machine_start *how, GError **error)
{
    g_autofree char *path = g_build_filename(m->folder, "qmp", NULL);
    m->qmp = m->ended ? NULL : qmp_open(path, &machine_qmp_ops, m, error);
    g_autoptr(json_t) hello =
        m->qmp ? qmp_run(m->qmp, "qmp_capabilities", NULL, START_SECONDS * 1000, error) : NULL;
    if (!hello || !learn(m, error) || !modules_learn(m, error) || !disks_learn(m, error) ||
        !disks_throttle(m, error) || !balloon_start(m, error) || !set_passwords(m, error) ||
        !tune_vcpus(m, error) || !iothreads_place(m, error) || !guard_ports(m, error)) {
        return false;
    }
    return how->incoming || (how->flags & START_PAUSED) || qmp_do(m->qmp, error, "cont", NULL);
}

static void close_fds(GArray *fds)
{
    for (unsigned i = 0; i < fds->len; i++) {
        close(g_array_index(fds, int, i));
    }
    g_array_unref(fds);
}

/* Command line and process; what the process needs of ours is closed again here. */
static bool launch(struct machine *m, const struct machine_start *how, goffset *log_at,
                   GError **error)
{
    GArray *fds = g_array_new(FALSE, FALSE, sizeof(int));
    g_autofree char *path = g_build_filename(m->folder, "qmp", NULL);
    int fd = listen_at(path, error);
    bool ok = fd >= 0;
    if (ok) {
        g_array_append_val(fds, fd);
        if (how->incoming_fd >= 0) {
            int copy = fcntl(how->incoming_fd, F_DUPFD_CLOEXEC, 3);
            g_array_append_val(fds, copy);
        }
        struct launch l = {
            .qmp_fd = fd, .folder = m->folder, .fds = fds, .how = how, .uid = m->uid};
        g_auto(GStrv) words = command_line(m, &l, error);
        ok = words && spawn(m, words, fds, log_at, error);
    }
    close_fds(fds);
    return ok;
}

static struct machine *machine_new(Domain *d, const DomainDef *def, GError **error)
{
    g_autofree char *status =
        daemon_path_make(DAEMON_RUN, 0711, error, "qemu", def->uuid, "status", NULL);
    if (!status) {
        return NULL;
    }
    struct machine *m = g_new0(struct machine, 1);
    m->refs = 1; /* that of the process */
    m->watch = (struct watch){.fd = -1, .events = EPOLLIN, .ready = process_ended};
    m->domain = domain_ref(d);
    m->folder = g_path_get_dirname(status);
    m->def = domain_def_copy(def);
    g_autofree char *folders = daemon_path(DAEMON_RUN, "qemu", NULL);
    domain_def_forget_host(m->def, folders); /* it may be that of an earlier run: one saved */
    m->def->id = next_id++;
    m->uid = getuid() == 0 && in_reach(m->folder) ? uid_of((int)m->def->id) : getuid();
    domain_def_alias(m->def);
    g_autofree char *own = g_build_filename(m->folder, "own", NULL);
    if (g_mkdir(own, 0700) != 0 && errno != EEXIST) {
        daemon_log("%s: %s", own, g_strerror(errno));
    }
    if (getuid() == 0 && chown(own, m->uid, m->uid) != 0) {
        daemon_log("%s: %s", own, g_strerror(errno));
    }
    return m;
}

static void started(struct machine *m, const struct machine_start *how)
{
    Domain *d = m->domain;
    d->booted = g_get_real_time() / G_USEC_PER_SEC;
    bool paused = (how->flags & START_PAUSED) || how->incoming, comes = how->made;
    domain_set_state(d, paused ? STATE_PAUSED : STATE_RUNNING,
                     !paused          ? how->running_reason
                     : !how->incoming ? PAUSED_USER
                     : comes          ? PAUSED_MIGRATION
                                      : PAUSED_STARTING_UP);
    machine_save(m);
    machine_taint_defined(m);
    domain_event(d, EVENT_STARTED, how->event_detail);
    machine_tell_agent(m);
    if (paused && !how->incoming) {
        domain_event(d, EVENT_SUSPENDED, 0);
    }
}

/* The files that @def names, of which a server may be dead; the list ends with NULL. */
static GPtrArray *files_of(const DomainDef *def)
{
    GPtrArray *files = g_ptr_array_new();
    const char *own[] = {def->loader, def->nvram, def->nvram_template, def->kernel, def->initrd};
    for (unsigned i = 0; i < G_N_ELEMENTS(own); i++) {
        if (own[i]) {
            g_ptr_array_add(files, (char *)own[i]);
        }
    }
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const char *path = disk_path(def->disks->pdata[i]);
        if (path) {
            g_ptr_array_add(files, (char *)path);
        }
    }
    g_ptr_array_add(files, NULL);
    return files;
}

static bool files_ready(Domain *d, const DomainDef *def, GError **error)
{
    int64_t until = g_get_monotonic_time() + daemon_patience(FILES_SECONDS) * G_USEC_PER_SEC;
    while (d->returning) {
        if (!daemon_wait(until)) {
            libvirt_error(error, ERR_OPERATION_TIMEOUT, "disks of '%s' do not answer", d->name);
            return false;
        }
    }
    g_autoptr(GPtrArray) files = files_of(def);
    return files_answer((const char *const *)files->pdata, NULL, FILES_SECONDS, error);
}

bool machine_start(Domain *d, const DomainDef *def, const struct machine_start *how, GError **error)
{
    goffset log_at = 0;
    g_autoptr(GError) own = NULL;
    if (d->machine) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain is already running");
        return false;
    }
    if (!files_ready(d, def, error)) {
        domain_settle(d);
        return false;
    }
    vm_learn_devices();
    if (d->gone) { /* while the files were looked at */
        libvirt_error(error, ERR_NO_DOMAIN, "no domain with matching name '%s'", d->name);
        return false;
    }
    g_autoptr(Machine) m = machine_new(d, def, error);
    if (!m) {
        return false;
    }
    m->move.incoming = how->made != NULL;
    m->move.made = how->made ? g_ptr_array_ref(how->made) : NULL;
    d->machine = m;
    d->reason = 0;
    startup_drop_missing(m, !how->incoming);
    if (!launch(m, how, &log_at, error)) {
        d->machine = NULL;
        machine_net_close(m->def);
        remove_folder(m->folder);
        domain_settle(d);
        return false;
    }
    g_autoptr(Domain) keep = domain_ref(d);
    daemon_in_loop(G_PRIORITY_HIGH, watch_process, machine_ref(m));
    bool ok = talk(m, how, &own);
    if (!ok || d->machine != m) {
        if (d->machine == m && (!m->qmp || strstr(own ? own->message : "", "no longer running"))) {
            wait_end(d, m, 5); /* its last words are coming */
        }
        if (d->machine == m) {
            machine_stop(d, SHUTOFF_FAILED, false, NULL);
        } else {
            g_autofree char *tail = machine_log_tail(d, log_at);
            g_clear_error(&own);
            libvirt_error(&own, ERR_INTERNAL, "process exited while connecting to monitor: %s",
                          tail);
        }
        domain_set_state(d, STATE_SHUTOFF, SHUTOFF_FAILED);
        g_propagate_error(error, g_steal_pointer(&own));
        return false;
    }
    d->id = (int)m->def->id; /* nobody has heard of it before it was up */
    started(m, how);
    return true;
}

int machine_pause_detail(int reason)
{
    return reason == PAUSED_MIGRATION  ? 1
           : reason == PAUSED_IOERROR  ? 2
           : reason == PAUSED_WATCHDOG ? 3
                                       : 0;
}

bool machine_pause(Domain *d, int reason, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m) {
        return false;
    }
    m->pause_reason = reason;
    machine_save(m); /* why it stands still, should nobody hear that it does */
    if (!qmp_do(m->qmp, error, "stop", NULL)) {
        return false;
    }
    if (d->machine == m && d->state == STATE_RUNNING) {
        domain_set_state(d, STATE_PAUSED, reason);
        machine_save(m);
        domain_event(d, EVENT_SUSPENDED, machine_pause_detail(reason));
    }
    return true;
}

bool machine_resume(Domain *d, int reason, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m) {
        return false;
    }
    m->resume_reason = reason;
    bool ok = qmp_do(m->qmp, error, "cont", NULL);
    m->resume_reason = RUNNING_UNKNOWN;
    if (!ok) {
        return false;
    }
    if (d->machine == m && d->state != STATE_RUNNING) {
        domain_set_state(d, STATE_RUNNING, reason);
        machine_save(m);
        domain_event(d, EVENT_RESUMED, reason == RUNNING_MIGRATED ? 1 : 0);
    }
    return true;
}

bool machine_set_off_action(struct machine *m, GError **error)
{
    m->rebooting = false;
    machine_save(m);
    return qmp_do(m->qmp, error, "set-action", "{s:s}", "shutdown",
                  m->def->on_poweroff == ACTION_RESTART ? "pause" : "poweroff");
}

bool machine_power_off(struct machine *m, GError **error)
{
    return (!m->rebooting || machine_set_off_action(m, error)) &&
           qmp_do(m->qmp, error, "system_powerdown", NULL);
}

bool machine_reboot(struct machine *m, GError **error)
{
    m->rebooting = true;
    machine_save(m);
    return qmp_do(m->qmp, error, "set-action", "{s:s}", "shutdown", "pause") &&
           qmp_do(m->qmp, error, "system_powerdown", NULL);
}

/* --- after a restart of lodged --- */

static const struct {
    const char *status;
    int state, reason;
} status_words[] = {
    {"running", STATE_RUNNING, RUNNING_UNKNOWN},
    {"paused", STATE_PAUSED, PAUSED_UNKNOWN},
    {"io-error", STATE_PAUSED, PAUSED_IOERROR},
    {"watchdog", STATE_PAUSED, PAUSED_WATCHDOG},
    {"guest-panicked", STATE_CRASHED, 1},
    {"suspended", STATE_PMSUSPENDED, 0},
    {"shutdown", STATE_SHUTDOWN, 0},
    {"inmigrate", STATE_PAUSED, PAUSED_MIGRATION},
    {"postmigrate", STATE_PAUSED, PAUSED_MIGRATION},
    {"prelaunch", STATE_PAUSED, PAUSED_USER},
};

static bool listed(const json_t *modules, const char *alias)
{
    size_t n;
    json_t *one;
    json_array_foreach(modules, n, one)
    {
        const json_t *id = json_object_get(json_object_get(one, "data"), "id");
        if (g_strcmp0(json_string_value(id), alias) == 0) {
            return true;
        }
    }
    return false;
}

/* What the guest did while nobody listened: processors and memory modules that it has let go of,
 * channels that it opened and closed. */
static void catch_up(struct machine *m)
{
    g_autoptr(json_t) chars = xml_count(m->def->channels)
                                  ? qmp_run(m->qmp, "query-chardev", NULL, QMP_TIMEOUT_MS, NULL)
                                  : NULL;
    if (!m->ended) {
        machine_learn_ports(m, chars);
        machine_save(m);
    }
    g_autoptr(GArray) threads = tune_vcpu_threads(m, QMP_TIMEOUT_MS, NULL);
    g_autoptr(json_t) modules =
        xml_count(m->def->memory_devices)
            ? qmp_run(m->qmp, "query-memory-devices", NULL, QMP_TIMEOUT_MS, NULL)
            : NULL;
    for (unsigned i = 1; threads && !m->ended && i < threads->len; i++) {
        if (!g_array_index(threads, pid_t, i)) {
            machine_vcpu_gone(m, i);
        }
    }
    for (unsigned i = modules ? xml_count(m->def->memory_devices) : 0; i-- > 0 && !m->ended;) {
        const struct device_head *head = m->def->memory_devices->pdata[i];
        g_autofree char *alias = g_strdup(head->alias);
        if (!listed(modules, alias)) {
            machine_device_gone(m, alias);
        }
    }
}

static void take_state(struct machine *m, const char *word)
{
    Domain *d = m->domain;
    for (unsigned i = 0; i < G_N_ELEMENTS(status_words); i++) {
        if (strcmp(word, status_words[i].status) == 0 && d->state != status_words[i].state) {
            bool ours = status_words[i].reason == PAUSED_UNKNOWN && m->pause_reason &&
                        status_words[i].state == STATE_PAUSED;
            domain_set_state(d, status_words[i].state,
                             ours ? m->pause_reason : status_words[i].reason);
            machine_state_follows(m);
        }
    }
    m->pause_reason = PAUSED_UNKNOWN;
}

/* Nobody is left who could end a move to or from another host. */
static void end_moves(struct machine *m)
{
    if (m->move.incoming && m->domain->state != STATE_RUNNING) {
        move_drop(m->domain);
        return;
    }
    m->move.incoming = false;
    g_clear_pointer(&m->move.made, g_ptr_array_unref);
    machine_save(m); /* else the next restart takes it for one that is still to come */
    move_recover(m);
}

static void guard_again(struct machine *m)
{
    g_autoptr(GError) error = NULL;
    if (!guard_ports(m, &error)) {
        daemon_log("%s: %s", m->domain->name, error->message);
    }
}

/* What goes on in a machine of an earlier lodged; the caller has the domain's job. */
static bool take_stock(struct machine *m, GError **error)
{
    static void (*const recoveries[])(struct machine *) = {
        machine_plug_recover,   guard_again,       end_moves,
        block_jobs_recover,     catch_up,          backup_recover,
        machine_images_recover, disks_drop_unused, machine_snapshot_recover,
        machine_save_recover};
    g_autoptr(json_t) status = qmp_run(m->qmp, "query-status", NULL, QMP_TIMEOUT_MS, error);
    const char *word = json_string_value(json_object_get(status, "status"));
    if (!word) {
        return false;
    }
    if (m->domain->machine == m) {
        take_state(m, word);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(recoveries); i++) {
        if (m->ended || m->domain->machine != m || qmp_unanswered(m->qmp)) {
            break;
        }
        recoveries[i](m);
    }
    return true;
}

/* Of take_stock(); the domain's job is given back. */
static void stock_taken(struct machine *m)
{
    m->hangs = m->recovering = !m->ended && qmp_unanswered(m->qmp);
    domain_job_end(m->domain);
}

/* Its monitor is asked on a worker: one that hangs delays nobody. */
static void reconnect(void *data)
{
    struct machine *m = data;
    Domain *d = m->domain; /* kept by the reference of machines_recover() */
    daemon_lock();
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(m->folder, "qmp", NULL);
    if (d->state == STATE_PAUSED && d->reason == PAUSED_STARTING_UP && !m->move.incoming) {
        daemon_log("%s: it was not started to the end", d->name);
        machine_stop(d, SHUTOFF_FAILED, false, &error);
    } else {
        m->qmp = qmp_open(path, &machine_qmp_ops, m, &error);
    }
    if (m->ended) {
        /* nothing is to be known */
    } else if (!m->qmp || !qmp_do(m->qmp, &error, "qmp_capabilities", NULL) ||
               !take_stock(m, &error)) {
        daemon_log("%s: its monitor does not answer: %s", d->name,
                   error ? error->message : "it has just ended");
    }
    stock_taken(m);
    machine_unref(m);
    domain_unref(d);
    daemon_unlock();
}

static void take_stock_late(void *data)
{
    g_autoptr(Machine) m = data;
    daemon_lock();
    g_autoptr(Domain) d = domain_ref(m->domain);
    bool have = false;
    while (!m->ended && !(have = domain_job_begin(d, NULL))) {
    }
    if (have) {
        if (!m->ended && take_stock(m, NULL)) {
            daemon_log("%s: its monitor answers again", d->name);
        }
        stock_taken(m);
    }
    machine_unref(g_steal_pointer(&m));
    domain_unref(g_steal_pointer(&d));
    daemon_unlock();
}

void machine_caught_up(struct machine *m)
{
    if (m->hangs) {
        m->hangs = false;
        daemon_worker(take_stock_late, machine_ref(m));
    }
}

bool machine_is_known(const struct machine *m, GError **error)
{
    if (m->recovering && !m->ended) {
        libvirt_error(error, ERR_OPERATION_TIMEOUT, "%s",
                      "the machine's monitor does not tell what goes on in it");
        return false;
    }
    return true;
}

bool machine_await_recovery(const struct machine *m, GError **error)
{
    unsigned seconds = daemon_patience(QMP_TIMEOUT_MS / 1000);
    int64_t until = g_get_monotonic_time() + seconds * (int64_t)G_USEC_PER_SEC;
    while (m->recovering && !m->ended && daemon_wait(until)) {
    }
    return machine_is_known(m, error);
}

/* NULL if there is none. */
static GPtrArray *read_list(GKeyFile *status, const char *key)
{
    g_auto(GStrv) made = g_key_file_get_string_list(status, "machine", key, NULL, NULL);
    GPtrArray *list = made ? g_ptr_array_new_with_free_func(g_free) : NULL;
    for (unsigned i = 0; made && made[i]; i++) {
        g_ptr_array_add(list, g_strdup(made[i]));
    }
    return list;
}

static Domain *find_recovered(const DomainDef *def, GError **error)
{
    Domain *d = domain_by_name(def->name);
    return d ? d : domain_add_transient(def, error);
}

static bool recover(const char *folder, GError **error)
{
    g_autofree char *path = g_build_filename(folder, "status", NULL), *text = NULL;
    g_autofree char *xml = g_build_filename(folder, "domain.xml", NULL);
    g_autoptr(GKeyFile) status = g_key_file_new();
    if (!g_file_test(path, G_FILE_TEST_EXISTS)) { /* it had not come to a process yet */
        remove_folder(folder);
        return true;
    }
    if (!g_key_file_load_from_file(status, path, 0, error) ||
        !g_file_get_contents(xml, &text, NULL, error)) {
        return false;
    }
    g_autoptr(DomainDef) def = domain_def_load(text, XML_MODE_LIVE, error);
    Domain *d = def ? find_recovered(def, error) : NULL;
    if (!d) {
        return false;
    }
    pid_t pid = g_key_file_get_integer(status, "machine", "pid", NULL);
    uint64_t began = g_key_file_get_uint64(status, "machine", "start_time", NULL);
    struct pollfd end = {.fd = pid > 1 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1,
                         .events = POLLIN};
    g_autoptr(GPtrArray) made = read_list(status, "incoming");
    int fd = end.fd; /* it can be read from when the process has ended and nobody took note */
    if (fd < 0 || start_time_of(pid) != began || !began || poll(&end, 1, 0) > 0) {
        if (fd >= 0) {
            close(fd);
        }
        tune_forget(def);
        domain_set_state(d, STATE_SHUTOFF, SHUTOFF_UNKNOWN);
        domain_settle(d);
        machine_net_close(def);
        remove_folder(folder);
        move_forget_made(made);
        return true;
    }
    struct machine *m = g_new0(struct machine, 1);
    m->refs = 1; /* that of the process */
    m->watch = (struct watch){.fd = fd, .events = EPOLLIN, .ready = process_ended};
    m->domain = domain_ref(d);
    m->folder = g_strdup(folder);
    m->def = g_steal_pointer(&def);
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        disk_resolve(m->def->disks->pdata[i], NULL);
    }
    m->pid = pid;
    m->recovering = true;
    m->start_time = began;
    m->next_node = (unsigned)g_key_file_get_uint64(status, "machine", "next_node", NULL);
    m->tainted = (unsigned)g_key_file_get_uint64(status, "machine", "tainted", NULL);
    m->uid = (unsigned)g_key_file_get_uint64(status, "machine", "uid", NULL);
    m->pause_reason = g_key_file_get_integer(status, "machine", "pause_reason", NULL);
    m->rebooting = g_key_file_get_boolean(status, "machine", "rebooting", NULL);
    m->unfinished = g_key_file_get_string(status, "machine", "unfinished", NULL);
    m->saved = g_key_file_get_string(status, "machine", "saved", NULL);
    m->wakes = g_key_file_get_boolean(status, "machine", "wakes", NULL);
    m->snapshot = g_key_file_get_string(status, "machine", "snapshot", NULL);
    m->plugging = g_key_file_get_string(status, "machine", "plugging", NULL);
    m->images = read_list(status, "images");
    m->images_stay = g_key_file_get_boolean(status, "machine", "images_stay", NULL);
    m->move.incoming = made != NULL;
    m->move.made = g_steal_pointer(&made);
    tune_recover(m);
    d->machine = m;
    d->id = g_key_file_get_integer(status, "machine", "id", NULL);
    d->booted = g_key_file_get_int64(status, "machine", "booted", NULL);
    d->state = (uint8_t)g_key_file_get_integer(status, "machine", "state", NULL);
    d->reason = (uint8_t)g_key_file_get_integer(status, "machine", "reason", NULL);
    d->job = true;
    next_id = MAX(next_id, d->id + 1);
    domain_ref(d);
    daemon_in_loop(G_PRIORITY_HIGH, watch_process, m);
    daemon_worker(reconnect, machine_ref(m));
    return true;
}

void machines_recover(void)
{
    g_autofree char *folder = daemon_path(DAEMON_RUN, "qemu", NULL);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_autoptr(GError) error = NULL;
        g_autofree char *status = g_build_filename(path, "status", NULL);
        if (!g_file_test(path, G_FILE_TEST_IS_DIR)) {
            continue;
        }
        if (access(status, F_OK) != 0 && errno == ENOENT) {
            remove_folder(path); /* of a start that was cut short: nobody will ask for it */
        } else if (!recover(path, &error)) {
            daemon_log("%s: no machine can be found by it: %s", path, error->message);
        }
    }
}
