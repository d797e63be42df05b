/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/migrate.h"

#include "base/util.h"
#include "manage/daemon/client.h"
#include "manage/daemon/disks.h"
#include "manage/daemon/files.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/vfs.h>

/* Facts: libvirt 9.0, "Guest migration" (flow of the steps). */
enum { LOOK_US = 20000 };
static const char cookie_line[] = "lodge-migration 2\n";

/* --- what can be asked for --- */

static const struct {
    unsigned flag;
    const char *what;
} refused[] = {
    {1 << 11, "compression"},
    {1 << 13, "auto-convergence"},
    {1 << 14, "RDMA"},
    {1 << 15, "post-copy"},
    {1 << 16, "TLS of the migration's own connection"},
    {1 << 17, "migration over several connections"},
    {1 << 18, "copying of storage with synchronous writes"},
    {1 << 19, "recovery of a post-copy migration"},
    {1 << 20, "zero-copy"},
};

bool move_check(const struct move *w, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(refused); i++) {
        if (w->flags & refused[i].flag) {
            libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED, "%s is not supported", refused[i].what);
            return false;
        }
    }
    if (w->flags >> 21) {
        libvirt_error(error, ERR_INVALID_ARG, "unsupported flags (0x%x)", w->flags >> 21 << 21);
        return false;
    }
    if ((w->flags & MOVE_TUNNELLED) && !(w->flags & MOVE_PEER2PEER)) {
        libvirt_error(error, ERR_INVALID_ARG, "tunnelled migration requires peer2peer migration");
        return false;
    }
    unsigned copies = w->flags & (MOVE_NON_SHARED_DISK | MOVE_NON_SHARED_INC);
    if (copies && (w->flags & (MOVE_TUNNELLED | MOVE_OFFLINE))) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      w->flags & MOVE_OFFLINE
                          ? "offline migration cannot handle non-shared storage"
                          : "copying of storage is not supported with tunnelled migration");
        return false;
    }
    if (copies == (MOVE_NON_SHARED_DISK | MOVE_NON_SHARED_INC)) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "migration flags for whole and incremental copies exclude each other");
        return false;
    }
    return true;
}

/* libvirt's list of file systems that several hosts have. */
static bool is_shared(const char *path)
{
    static const unsigned kinds[] = {
        0x6969 /* nfs */,      0x01161970 /* gfs2 */, 0x7461636f /* ocfs2 */,
        0x5346414f /* afs */,  0x517b /* smb */,      0xff534d42 /* cifs */,
        0xfe534d42 /* smb2 */, 0x00c36400 /* ceph */, 0x47504653 /* gpfs */};
    struct statfs st;
    if (statfs(path, &st) != 0) {
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if ((unsigned)st.f_type == kinds[i]) {
            return true;
        }
    }
    return false;
}

/* Whether the destination is sure to find the same bytes in the disks. */
static bool is_safe(const DomainDef *def, const struct move *w, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        const char *path = disk_path(disk);
        if (!path || disk->readonly || disk->shareable || move_copies(w, disk)) {
            continue;
        }
        if (!is_shared(path)) {
            libvirt_error(error, ERR_MIGRATE_UNSAFE, "Migration without shared storage is unsafe");
            return false;
        }
        if (disk->cache != CACHE_NONE && disk->cache != CACHE_DIRECTSYNC) {
            libvirt_error(error, ERR_MIGRATE_UNSAFE,
                          "Migration may lead to data corruption if disks use cache other than "
                          "none or directsync");
            return false;
        }
    }
    return true;
}

/* --- the definition that travels --- */

/* A copy of a running machine's definition without what is this host's choice. */
static DomainDef *portable(const struct machine *m)
{
    DomainDef *def = domain_def_copy(m->def);
    g_autofree char *emulator = vm_program();
    if (g_strcmp0(def->emulator, emulator) == 0) {
        g_clear_pointer(&def->emulator, g_free);
    }
    domain_def_forget_host(def, m->folder);
    return def;
}

/* @lines: keys and values, or NULL. */
static char *cookie_of(const char *lines, const char *lasting)
{
    return g_strconcat(cookie_line, lines ? lines : "", "\n", lasting, NULL);
}

/* The definition in @in, or "", and the lines before it; NULL if no lodged has made it. */
static char *cookie_read(struct move_cookie in, char **lines, GError **error)
{
    size_t front = sizeof(cookie_line) - 1;
    if (in.n <= front || memcmp(in.data, cookie_line, front) != 0) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "the other side is no lodged that speaks \"%.*s\"", (int)front - 1,
                      cookie_line);
        return NULL;
    }
    g_autofree char *rest = g_strndup(in.data + front, in.n - front);
    char *end = rest[0] == '\n' ? rest : strstr(rest, "\n\n");
    if (!end) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "the other side's cookie has no end");
        return NULL;
    }
    char *lasting = g_strdup(end == rest ? rest + 1 : end + 2);
    if (lines) {
        *lines = g_strndup(rest, end == rest ? 0 : (size_t)(end + 1 - rest));
    }
    return lasting;
}

/* What the guest sees must be the same; the rest is found out by the state itself. */
static bool fits(const DomainDef *def, const DomainDef *given, const struct move *w, GError **error)
{
    const char *name = w->name ? w->name : def->name;
    if (strcmp(given->uuid, def->uuid) != 0 || strcmp(given->name, name) != 0) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "target domain %s with uuid %s does not match source %s with uuid %s",
                      given->name, given->uuid, name, def->uuid);
        return false;
    }
    if (given->memory != def->memory || given->vcpus != def->vcpus) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "Target domain has %ld KiB and %ld vCPUs, which does not match source's %ld "
                      "and %ld",
                      (long)given->memory, (long)given->vcpus, (long)def->memory, (long)def->vcpus);
        return false;
    }
    return true;
}

/* What begin answers: the definition that prepare gets. */
static char *travelling_xml(const DomainDef *def, const struct move *w, GError **error)
{
    g_autoptr(DomainDef) given = w->xml ? domain_def_parse(w->xml, 0, error) : NULL;
    if (w->xml && (!given || !fits(def, given, w, error))) {
        return NULL;
    }
    return domain_def_format(given ? given : def, XML_MODE_SECRET);
}

/* --- what ends with the client that leads --- */

struct tie {
    Machine *machine;
    unsigned number; /* of the move; if the machine has another one, this is over */
    void (*lost)(Domain *d);
};

static void tie_lost(void *data)
{
    struct tie *t = data;
    Machine *m = t->machine;
    daemon_lock();
    if (!m->ended && m->move.number == t->number) {
        t->lost(m->domain);
    }
    machine_unref(m);
    daemon_unlock();
    g_free(t);
}

static void tie_broken(void *data)
{
    daemon_worker(tie_lost, data);
}

static void tie(Machine *m, struct client *c, void (*lost)(Domain *d))
{
    struct tie *t = g_new(struct tie, 1);
    *t = (struct tie){machine_ref(m), m->move.number, lost};
    client_at_end(c, tie_broken, t);
}

/* --- the source --- */

/* The guest goes on here, unless it runs at the destination, or may do. */
static void run_again(Domain *d, struct machine *m)
{
    g_autoptr(GError) error = NULL;
    if (d->machine == m && d->state == STATE_PAUSED && d->reason == PAUSED_MIGRATION &&
        !machine_resume(d, RUNNING_MIGRATION_CANCELED, &error)) {
        daemon_log("%s stays paused: %s", d->name, error->message);
    }
}

static void move_over(Domain *d, struct machine *m)
{
    if (d->machine == m) { /* else it ended with the machine, and another may have begun */
        m->move.number++;
        m->job.type = JOB_NONE;
        d->moving = false;
        daemon_wake();
    }
}

/* Who performs it gets the job in the end, however long another has it. */
static void take_job(Domain *d)
{
    g_autoptr(GError) held = NULL;
    while (!domain_job_begin_beside(d, &held)) {
        g_clear_error(&held);
    }
}

static void leave_unsettled(Domain *d, struct machine *m)
{
    if (d->machine == m && d->state == STATE_PAUSED) {
        daemon_log("%s: nobody has confirmed where it runs now: it stays paused here", d->name);
    }
    move_over(d, m);
}

static void source_lost(Domain *d)
{
    g_autoptr(Machine) m = d->machine ? machine_ref(d->machine) : NULL;
    if (!m) {
        return;
    }
    unsigned number = m->move.number;
    m->move.given_up = true;
    daemon_wake();
    if (m->move.performing) { /* it sees to the rest */
        if (m->move.sending) {
            qmp_do(m->qmp, NULL, "migrate_cancel", NULL);
        }
        return;
    }
    take_job(d);
    g_autoptr(DomainJob) job = domain_ref(d);
    if (d->machine != m || !d->moving || m->move.number != number) {
        return; /* confirmed meanwhile */
    }
    if (m->move.returns) {
        run_again(d, m);
        move_over(d, m);
    } else {
        leave_unsettled(d, m);
    }
}

static char *begin_offline(Domain *d, const struct move *w, GError **error)
{
    if (!(w->flags & MOVE_PERSIST_DEST)) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "offline migration must be specified with the persistent flag set");
        return NULL;
    }
    g_autoptr(DomainDef) def = domain_config(d, error);
    return def ? travelling_xml(def, w, error) : NULL;
}

static char *begin_running(Domain *d, struct machine *m, const struct move *w, GError **error)
{
    if (d->moving) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "another migration job is already running for the domain");
        return NULL;
    }
    g_autoptr(DomainDef) def = portable(m);
    if (!block_jobs_none(m, error) || !disks_may_leave(def, error) || (!(w->flags & MOVE_UNSAFE) && !is_safe(def, w, error))) {
        return NULL;
    }
    return travelling_xml(def, w, error);
}

/* What the destination is to keep: as the client says, the definition here, or what runs. */
static char *lasting_xml(Domain *d, const struct move *w, GError **error)
{
    if (!(w->flags & MOVE_PERSIST_DEST)) {
        return g_strdup("");
    }
    if (w->lasting) {
        return g_strdup(w->lasting);
    }
    g_autoptr(DomainDef) def =
        d->persistent ? domain_config(d, error) : domain_def_copy(d->machine->def);
    return def ? domain_def_format(def, XML_MODE_SECRET) : NULL;
}

/* What would stay behind: nobody could find it there. */
static bool knows_no_points(const Domain *d, GError **error)
{
    unsigned n = d->snapshots ? d->snapshots : d->checkpoints;
    if (n) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cannot migrate domain with %u %s", n,
                      d->snapshots ? "snapshots" : "checkpoints");
    }
    return !n;
}

bool move_begin(const rpc_domain *named, const struct move *w, struct client *c, char **xml,
                char **cookie, GError **error)
{
    if (!move_check(w, error)) {
        return false;
    }
    g_autoptr(DomainJob) d = domain_take_beside(named, error);
    if (!d || !knows_no_points(d, error)) {
        return false;
    }
    bool offline = w->flags & MOVE_OFFLINE;
    g_autoptr(Machine) m = offline ? NULL : machine_of(d, error);
    *xml = offline ? begin_offline(d, w, error) : m ? begin_running(d, m, w, error) : NULL;
    g_autofree char *lasting = *xml ? lasting_xml(d, w, error) : NULL;
    if (!lasting) {
        g_clear_pointer(xml, g_free);
        return false;
    }
    g_autoptr(GString) lines = g_string_new(NULL);
    bool described = offline || move_disks_describe(m, w, lines, error);
    if (described && m && (m->ended || d->machine != m)) { /* while its disks were described */
        libvirt_error(error, ERR_OPERATION_INVALID, "domain is not running");
        described = false;
    }
    if (!described) {
        g_clear_pointer(xml, g_free);
        return false;
    }
    *cookie = cookie_of(lines->str, lasting);
    if ((w->flags & MOVE_CHANGE_PROTECTION) && !offline) {
        d->moving = true;
        m->move.given_up = m->move.returns = false;
        if (c) {
            tie(m, c, source_lost);
        }
    }
    return true;
}

void figures_learn(struct job_figures *j, const json_t *info)
{
    const json_t *ram = json_object_get(info, "ram");
    const json_t *down = json_object_get(info, "downtime");
    j->has_memory = true;
    j->total = (uint64_t)json_integer_value(json_object_get(ram, "total"));
    j->processed = (uint64_t)json_integer_value(json_object_get(ram, "transferred"));
    j->remaining = (uint64_t)json_integer_value(json_object_get(ram, "remaining"));
    j->passes = (uint64_t)json_integer_value(json_object_get(ram, "dirty-sync-count"));
    j->speed = (uint64_t)(json_number_value(json_object_get(ram, "mbps")) * 1e6 / 8);
    if (down) {
        j->has_downtime = true;
        j->downtime_ms = (uint64_t)json_integer_value(down);
    }
}

static bool is_wanted(const struct machine *m, GError **error)
{
    if (m->move.cancelled || m->move.given_up) {
        libvirt_error(error, ERR_OPERATION_ABORTED, "migration out job: canceled by client");
        return false;
    }
    return true;
}

/* Its STOP may still be on the way. */
static void note_stopped(Domain *d)
{
    if (d->state == STATE_RUNNING) {
        domain_set_state(d, STATE_PAUSED, PAUSED_MIGRATION);
        domain_event(d, EVENT_SUSPENDED, machine_pause_detail(PAUSED_MIGRATION));
    }
}

/* Whether "migrate" has ended; *@ok: with the state at the other side, or with an error. */
static bool is_over(const json_t *info, bool *ok, GError **error)
{
    const char *status = json_string_value(json_object_get(info, "status"));
    *ok = strcmp(status, "completed") == 0;
    if (*ok) {
        return true;
    }
    if (strcmp(status, "cancelled") == 0) {
        libvirt_error(error, ERR_OPERATION_ABORTED, "migration out job: canceled by client");
        return true;
    }
    if (strcmp(status, "failed") == 0) {
        const char *why = json_string_value(json_object_get(info, "error-desc"));
        libvirt_error(error, ERR_OPERATION_FAILED, "migration out job: %s",
                      why ? why : "unexpectedly failed");
        return true;
    }
    return false;
}

/* What speaks against going on: a mirror's end, an abort, and errors if the client minds them. */
static bool goes_on(struct machine *m, const struct move *w, GError **error)
{
    const Domain *d = m->domain;
    if ((w->flags & MOVE_ABORT_ON_ERROR) && d->state == STATE_PAUSED &&
        d->reason == PAUSED_IOERROR) {
        m->move.given_up = true;
    }
    return is_wanted(m, error) && move_disks_whole(m, w, error);
}

/* Waits for the end of what "migrate" has begun; an abort may have come before it. */
static bool sent(struct machine *m, const struct move *w, GError **error)
{
    g_autoptr(GError) against = NULL;
    for (;;) {
        g_autoptr(json_t) info = qmp_run(m->qmp, "query-migrate", NULL, QMP_TIMEOUT_MS, error);
        g_autoptr(GError) why = NULL;
        bool ok;
        if (!json_is_string(json_object_get(info, "status"))) {
            qmp_do(m->qmp, NULL, "migrate_cancel", NULL); /* hears it when it goes on */
            return false;
        }
        figures_learn(&m->job, info);
        bool over = is_over(info, &ok, &why);
        if (over && ok) {
            note_stopped(m->domain);
        }
        if ((!over || ok) && !against && !goes_on(m, w, &against) && !over) {
            qmp_do(m->qmp, NULL, "migrate_cancel", NULL);
        }
        if (over && (against || why)) {
            g_propagate_error(error, against ? g_steal_pointer(&against) : g_steal_pointer(&why));
            return false;
        }
        if (over) {
            return true;
        }
        daemon_wait(g_get_monotonic_time() + LOOK_US);
    }
}

/* A lodge-vm that an earlier lodged has started may not know of it. */
static bool set_return_path(struct machine *m, bool on)
{
    return qmp_do(m->qmp, NULL, "migrate-set-capabilities", "{s:[{s:s, s:b}]}", "capabilities",
                  "capability", "return-path", "state", (int)on) &&
           on;
}

static bool send_state(struct machine *m, const struct move *w, int fd, bool direct, GError **error)
{
    uint64_t speed = w->bandwidth ? w->bandwidth : m->move.speed;
    speed = speed > INT64_MAX >> 20 ? 0 : speed << 20;
    if (!qmp_do(m->qmp, error, "migrate-set-parameters", "{s:I}", "max-bandwidth",
                (json_int_t)speed) ||
        !qmp_give_fd(m->qmp, fd, "migrate", error)) {
        return false;
    }
    m->move.returns = set_return_path(m, direct);
    m->move.sending = true;
    bool ok = is_wanted(m, error) &&
              qmp_do(m->qmp, error, "migrate", "{s:s}", "uri", "fd:migrate") && sent(m, w, error);
    m->move.sending = false;
    return ok;
}

static bool perform(Domain *d, struct machine *m, const struct move *w, unsigned disks_port,
                    int tunnel, GError **error)
{
    m->job = (struct job_figures){.type = JOB_UNBOUNDED,
                                  .operation = OPERATION_MIGRATION_OUT,
                                  .since = g_get_monotonic_time()};
    bool stop = !(w->flags & MOVE_LIVE) && d->state == STATE_RUNNING;
    m->move.returns = m->move.cancelled = false;
    bool ok = move_disks_send(m, w, disks_port, error) &&
              (!stop || machine_pause(d, PAUSED_MIGRATION, error));
    bool direct = tunnel < 0;
    autofd int way = ok && direct ? move_connect(w->uri, error) : -1;
    ok = ok && (!direct || way >= 0) && send_state(m, w, direct ? way : tunnel, direct, error);
    if (!ok) {
        bool aborted = error && *error && (*error)->code == ERR_OPERATION_ABORTED;
        move_disks_cancel(m, w);
        domain_job_over(d, &m->job, aborted ? JOB_CANCELLED : JOB_FAILED);
        run_again(d, m);
    }
    move_disks_end(m, w);
    m->job.elapsed_ms = (uint64_t)(g_get_monotonic_time() - m->job.since) / 1000;
    if (d->machine == m) {
        machine_save(m);
    }
    return ok;
}

bool move_perform(const rpc_domain *named, const struct move *w, struct move_cookie in, int tunnel,
                  char **cookie, GError **error)
{
    g_autofree char *lines = NULL, *ignored = in.n ? cookie_read(in, &lines, NULL) : NULL;
    unsigned disks_port = lines ? (unsigned)move_line(lines, "nbd") : 0;
    if (!move_check(w, error)) {
        return false;
    }
    g_autoptr(DomainJob) job = domain_take_beside(named, error);
    g_autoptr(Machine) m = job ? machine_of(job, error) : NULL;
    g_autofree char *lasting = m ? lasting_xml(job, w, error) : NULL;
    if (!lasting) {
        return false;
    }
    bool begun = w->flags & MOVE_CHANGE_PROTECTION;
    if (m->job.type != JOB_NONE || (job->moving && !begun)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "another job is running for the domain");
        return false;
    }
    if (begun && (!job->moving || m->move.given_up)) {
        libvirt_error(error, ERR_OPERATION_ABORTED, "the client that began the migration has gone");
        return false;
    }
    /* What may go on beside it (suspend) takes the job meanwhile; .moving keeps off the rest. */
    g_autoptr(Domain) d = domain_ref(job);
    d->moving = m->move.performing = true;
    m->move.given_up = false;
    domain_job_end(d);
    bool ok = perform(d, m, w, disks_port, tunnel, error);
    take_job(d); /* g_autoptr(job) gives it back */
    m->move.performing = false;
    if (ok && m->move.given_up) {
        ok = is_wanted(m, error);
        domain_job_over(d, &m->job, JOB_CANCELLED);
        if (m->move.returns) {
            run_again(d, m);
        }
    }
    if (!ok || !begun) { /* clients confirm only what has been performed */
        move_over(d, m);
    }
    *cookie = ok ? cookie_of(NULL, lasting) : NULL;
    return ok;
}

static bool confirm_gone(Domain *d, struct machine *m, const struct move *w, GError **error)
{
    struct job_figures j = m->job;
    j.operation = OPERATION_MIGRATION_OUT;
    domain_job_over(d, &j, JOB_COMPLETED);
    if (!machine_stop(d, SHUTOFF_MIGRATED, false, error)) {
        return false;
    }
    return !(w->flags & MOVE_UNDEFINE_SOURCE) || !d->persistent || domain_undefine(d, error);
}

bool move_confirm(const rpc_domain *named, const struct move *w, bool cancelled, GError **error)
{
    g_autoptr(DomainJob) d = domain_take_beside(named, error);
    if (!d) {
        return false;
    }
    if (w->flags & MOVE_OFFLINE) {
        return cancelled || !(w->flags & MOVE_UNDEFINE_SOURCE) || domain_undefine(d, error);
    }
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m) {
        return false;
    }
    bool ok = true;
    if (cancelled) {
        run_again(d, m);
    } else {
        ok = confirm_gone(d, m, w, error);
    }
    move_over(d, m);
    return ok;
}

void move_unsettled(const rpc_domain *named)
{
    g_autoptr(DomainJob) d = domain_take_beside(named, NULL);
    g_autoptr(Machine) m = d ? machine_of(d, NULL) : NULL;
    if (m) {
        leave_unsettled(d, m);
    }
}

bool move_is_open(const Domain *d)
{
    return domain_active(d) && !d->moving && d->state == STATE_PAUSED &&
           d->reason == PAUSED_MIGRATION;
}

bool move_reclaim(Domain *d, struct machine *m, GError **error)
{
    g_autoptr(DomainJob) job = domain_job_begin(d, error) ? domain_ref(d) : NULL;
    return job && d->machine == m && qmp_do(m->qmp, error, "x-migrate-own", NULL) &&
           machine_resume(d, RUNNING_MIGRATION_CANCELED, error);
}

static bool has_return_path(struct machine *m)
{
    g_autoptr(json_t) all =
        qmp_run(m->qmp, "query-migrate-capabilities", NULL, QMP_TIMEOUT_MS, NULL);
    const json_t *one = json_array_get(all, 0);
    return g_strcmp0(json_string_value(json_object_get(one, "capability")), "return-path") == 0 &&
           json_is_true(json_object_get(one, "state"));
}

/* It was on its way, or even there, and nobody is left who could say what became of it. */
static void end_sending(struct machine *m)
{
    bool ok = false, over = false;
    m->move.sending = true; /* says why it stops or goes on */
    qmp_do(m->qmp, NULL, "migrate_cancel", NULL);
    while (!over) {
        g_autoptr(json_t) info = qmp_run(m->qmp, "query-migrate", NULL, QMP_TIMEOUT_MS, NULL);
        over = !json_is_string(json_object_get(info, "status")) || is_over(info, &ok, NULL);
        if (!over) {
            daemon_wait(g_get_monotonic_time() + LOOK_US);
        }
    }
    m->move.sending = false;
    Domain *d = m->domain;
    if (ok && d->machine == m && d->state == STATE_PAUSED && d->reason == PAUSED_MIGRATION) {
        if (has_return_path(m)) {
            run_again(d, m);
        } else {
            leave_unsettled(d, m);
        }
    }
}

void move_recover(struct machine *m)
{
    end_sending(m);
    move_disks_recover(m);
}

/* --- the destination --- */

/* The name of the UNIX socket that the state came by is free again. */
static void close_door(struct machine *m)
{
    if (m->move.door) {
        g_unlink(m->move.door);
    }
    g_clear_pointer(&m->move.door, g_free);
}

void move_forget_made(const GPtrArray *made)
{
    for (unsigned i = 0; i < xml_count(made); i++) {
        path_unlink(made->pdata[i]);
    }
}

/* Nothing came of it: the machine goes, and images that were made for it. */
void move_drop(Domain *d)
{
    g_autoptr(Machine) m = d->machine ? machine_ref(d->machine) : NULL;
    g_autoptr(GPtrArray) made = m ? g_steal_pointer(&m->move.made) : NULL;
    if (m) {
        close_door(m);
    }
    move_forget_made(made); /* first: after its end another move may make them again */
    if (m && d->machine == m) {
        machine_stop(d, SHUTOFF_FAILED, false, NULL);
    }
}

static void destination_lost(Domain *d)
{
    if (d->machine && d->moving) {
        daemon_log("%s: the client that brought it has gone before the end", d->name);
        move_drop(d);
    }
}

static bool begin_incoming(Domain *d, const DomainDef *def, GPtrArray *made, int fd,
                           struct client *c, GError **error)
{
    const struct machine_start how = {.flags = START_PAUSED,
                                      .incoming = "fd",
                                      .incoming_fd = fd,
                                      .made = made,
                                      .event_detail = 1,
                                      .running_reason = RUNNING_MIGRATED};
    if (!machine_start(d, def, &how, error)) {
        return false;
    }
    d->moving = true;
    d->machine->shutoff = SHUTOFF_FAILED; /* if it ends before it is here */
    d->machine->job = (struct job_figures){.type = JOB_UNBOUNDED,
                                           .operation = OPERATION_MIGRATION_IN,
                                           .since = g_get_monotonic_time()};
    tie(d->machine, c, destination_lost);
    return true;
}

static bool keep(const char *lasting, const char *name, GError **error)
{
    g_autoptr(DomainDef) def = domain_def_parse(lasting, 0, error);
    if (!def) {
        return false;
    }
    g_free(def->name);
    def->name = g_strdup(name);
    return domain_define(def, error);
}

/* Disks that are to be copied: their images, and a server for them. */
static bool take_disks(Domain *d, const struct move *w, char **cookie, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    unsigned port = (unsigned)w->disks_port;
    if (!m || !move_disks_serve(m, w, &port, error)) {
        return false;
    }
    g_autofree char *lines = g_strdup_printf("nbd %u\n", port);
    *cookie = port ? cookie_of(lines, "") : NULL;
    return true;
}

bool move_prepare(const struct move *w, struct move_cookie in, struct client *c, int tunnel,
                  char **uri, char **cookie, GError **error)
{
    g_autofree char *lines = NULL;
    g_autofree char *lasting = move_check(w, error) ? cookie_read(in, &lines, error) : NULL;
    if (!lasting) {
        return false;
    }
    g_autoptr(DomainDef) def = domain_def_parse(w->xml ? w->xml : "", 0, error);
    if (!def) {
        return false;
    }
    if (w->name) {
        g_free(def->name);
        def->name = g_strdup(w->name);
    }
    if (!domain_def_check(def, error)) {
        return false;
    }
    if (w->flags & MOVE_OFFLINE) {
        *uri = g_strdup("");
        return keep(lasting, def->name, error); /* clients give finish() no cookie then */
    }
    autofd int door = tunnel < 0 ? move_listen(w, c, uri, error) : -1;
    g_autoptr(GPtrArray) made = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(DomainJob) d = tunnel >= 0 || door >= 0 ? domain_take_transient(def, error) : NULL;
    if (!d) {
        return false;
    }
    bool started = move_disks_make(w, def, lines, made, error) &&
                   begin_incoming(d, def, made, tunnel >= 0 ? tunnel : door, c, error);
    const char *path = *uri && g_str_has_prefix(*uri, "unix:") ? *uri + strlen("unix:") : NULL;
    if (started && path && d->machine) {
        d->machine->move.door = g_strdup(path + (g_str_has_prefix(path, "//") ? 2 : 0));
    }
    bool ok = started && take_disks(d, w, cookie, error);
    if (started && !ok) {
        move_drop(d);
    } else if (!ok) {
        move_forget_made(made);
    }
    domain_settle(d);
    return ok;
}

static bool finish_offline(const struct move *w, bool cancelled, rpc_domain *out, GError **error)
{
    Domain *d = domain_by_name(w->name);
    if (cancelled || !d) {
        libvirt_error(error, cancelled ? ERR_MIGRATE_FINISH_OK : ERR_NO_DOMAIN, "%s", w->name);
        return false;
    }
    *out = domain_rpc(d);
    return true;
}

/* The source has lost it then. */
static bool own(Domain *d, struct machine *m, const struct move *w, GError **error)
{
    if (!(w->flags & MOVE_PAUSED)) {
        return machine_resume(d, RUNNING_MIGRATED, error);
    }
    if (!qmp_do(m->qmp, error, "x-migrate-own", NULL)) {
        return false;
    }
    domain_set_state(d, STATE_PAUSED, PAUSED_USER);
    machine_save(m);
    domain_event(d, EVENT_SUSPENDED, 0);
    return true;
}

/* The state is here: from now on this is where it runs. */
static bool arrive(Domain *d, struct machine *m, const struct move *w, const char *lasting,
                   GError **error)
{
    if (!machine_arrived(m, NULL, error)) {
        return false;
    }
    close_door(m);
    if (w->flags & (MOVE_NON_SHARED_DISK | MOVE_NON_SHARED_INC)) {
        qmp_do(m->qmp, NULL, "nbd-server-stop", NULL);
    }
    bool known = d->persistent;
    if ((w->flags & MOVE_PERSIST_DEST) && !keep(lasting, d->name, error)) {
        return false;
    }
    m->shutoff = 0;
    m->job.operation = OPERATION_MIGRATION_IN;
    m->move.incoming = false; /* before it is taken: from then on it may be nowhere else */
    machine_save(m);
    if (own(d, m, w, error)) {
        return true;
    }
    if (d->persistent && !known) {
        domain_undefine(d, NULL);
    }
    return false;
}

bool move_finish(const struct move *w, struct move_cookie in, bool cancelled, rpc_domain *out,
                 GError **error)
{
    if (!w->name) {
        libvirt_error(error, ERR_INVALID_ARG, "the domain's name is missing");
        return false;
    }
    if (w->flags & MOVE_OFFLINE) {
        return finish_offline(w, cancelled, out, error);
    }
    g_autofree char *lasting = cancelled ? g_strdup("") : cookie_read(in, NULL, error);
    if (!lasting) {
        return false;
    }
    g_autoptr(Domain) found = domain_by_name(w->name) ? domain_ref(domain_by_name(w->name)) : NULL;
    g_autoptr(Machine) m = found && found->machine ? machine_ref(found->machine) : NULL;
    if (!m || !found->moving || !domain_job_begin_beside(found, error)) {
        if (!m && cancelled) {
            libvirt_error(error, ERR_MIGRATE_FINISH_OK, "%s", w->name);
        } else if (!m || !found->moving) {
            libvirt_error(error, ERR_OPERATION_FAILED,
                          "domain '%s' is not processing incoming migration", w->name);
        }
        return false;
    }
    g_autoptr(DomainJob) d = domain_ref(found);
    m->move.number++; /* from now on it does not end with its client */
    if (cancelled) {
        move_drop(d);
        libvirt_error(error, ERR_MIGRATE_FINISH_OK, "%s", w->name);
        return false;
    }
    bool ok = arrive(d, m, w, lasting, error);
    if (!ok) {
        move_drop(d);
        return false;
    }
    g_clear_pointer(&m->move.made, g_ptr_array_unref);
    domain_job_over(d, &m->job, JOB_COMPLETED);
    m->job.type = JOB_NONE;
    d->moving = false;
    *out = domain_rpc(d);
    return true;
}
