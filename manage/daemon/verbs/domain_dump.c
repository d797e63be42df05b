/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine's core in a file: its memory as ELF, or the whole state as lodge-vm sends it. */
#include "manage/daemon/files.h"
#include "manage/daemon/machine.h"

#include "base/util.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum {
    DUMP_CRASH = 1,
    DUMP_LIVE = 2,
    DUMP_BYPASS_CACHE = 4,
    DUMP_RESET = 8,
    DUMP_MEMORY_ONLY = 16,
    DUMP_KNOWN = 31,
};
enum { POLL_US = 100000 };

/* Waits until lodge-vm has written all.  DUMP_COMPLETED comes before an answer that knows of it. */
static bool wait_written(struct machine *m, GError **error)
{
    for (;;) {
        g_autoptr(json_t) info = qmp_run(m->qmp, "query-dump", NULL, QMP_TIMEOUT_MS, error);
        const char *status = json_string_value(json_object_get(info, "status"));
        if (!status) {
            return false;
        }
        m->job.total = (uint64_t)json_integer_value(json_object_get(info, "total"));
        m->job.processed = (uint64_t)json_integer_value(json_object_get(info, "completed"));
        m->job.remaining = m->job.total - MIN(m->job.processed, m->job.total);
        if (strcmp(status, "active") != 0) {
            if (strcmp(status, "completed") != 0) {
                libvirt_error(error, ERR_OPERATION_FAILED, "memory-only dump failed: %s",
                              m->dump_error ? m->dump_error : "no reason given");
            }
            return strcmp(status, "completed") == 0;
        }
        daemon_wait(g_get_monotonic_time() + POLL_US); /* DUMP_COMPLETED comes earlier */
    }
}

static bool write_memory(struct machine *m, int fd, GError **error)
{
    return qmp_give_fd(m->qmp, fd, "dump", error) &&
           qmp_do(m->qmp, error, "dump-guest-memory", "{s:b, s:s, s:b}", "paging", 0, "protocol",
                  "fd:dump", "detach", 1) &&
           wait_written(m, error);
}

static bool core_fits(const struct stat *st)
{
    return S_ISREG(st->st_mode) || S_ISBLK(st->st_mode);
}

static bool write_core(struct machine *m, const char *path, unsigned flags, GError **error)
{
    struct stat st;
    autofile int fd = path_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600, &st);
    if (fd < 0 ? errno == ENXIO : !core_fits(&st)) {
        libvirt_error(error, ERR_OPERATION_FAILED,
                      "'%s' is neither a regular file nor a block device", path);
        return false;
    }
    if (fd < 0) {
        path_error(error, ERR_OPERATION_FAILED, "failed to create", path);
        return false;
    }
    if (m->ended) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain is not running");
        return false;
    }
    m->job = (struct job_figures){
        .type = JOB_UNBOUNDED, .operation = OPERATION_DUMP, .since = g_get_monotonic_time()};
    m->job.has_memory = flags & DUMP_MEMORY_ONLY;
    machine_writes(m, path, NULL);
    bool ok = flags & DUMP_MEMORY_ONLY ? write_memory(m, fd, error)
                                       : machine_stream_state(m, fd, path, error);
    m->job.type = JOB_NONE;
    domain_job_over(m->domain, &m->job, ok ? JOB_COMPLETED : JOB_FAILED);
    if (!ok && S_ISREG(st.st_mode)) {
        path_unlink(path); /* half a core would pass for a whole one */
    }
    machine_writes(m, NULL, NULL);
    return ok;
}

bool machine_dump_crashed(struct machine *m, GError **error)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *stamp = g_date_time_format(now, "%Y-%m-%d-%H:%M:%S");
    g_autofree char *file = g_strdup_printf("%ld-%s-%s", (long)m->def->id, m->def->name, stamp);
    g_autofree char *path = daemon_path_make(DAEMON_VAR, 0755, error, "qemu", "dump", file, NULL);
    return path && write_core(m, path, DUMP_MEMORY_ONLY, error);
}

static bool core_dump(const rpc_domain *named, const char *path, unsigned flags, GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    if (path[0] != '/' || (flags & ~DUMP_KNOWN)) {
        libvirt_error(error, ERR_INVALID_ARG,
                      path[0] != '/' ? "path '%s' is not absolute" : "flags for '%s' are not known",
                      path);
        return false;
    }
    if (flags & DUMP_BYPASS_CACHE) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED,
                      "a core cannot be written past the host's cache");
        return false;
    }
    bool ran = d->state == STATE_RUNNING;
    if (ran && !(flags & DUMP_LIVE) && !machine_pause(d, PAUSED_DUMP, error)) {
        return false;
    }
    bool ok = write_core(m, path, flags, error);
    if (ok && (flags & DUMP_CRASH)) {
        return machine_stop(d, SHUTOFF_CRASHED, false, error);
    }
    if (ok && (flags & DUMP_RESET)) {
        ok = qmp_do(m->qmp, error, "system_reset", NULL);
    }
    /* The state cannot be sent but from a machine that stands still at the end. */
    if (ran && d->machine == m && (!(flags & DUMP_LIVE) || !(flags & DUMP_MEMORY_ONLY))) {
        ok = machine_resume(d, RUNNING_UNPAUSED, ok ? error : NULL) && ok;
    }
    return ok;
}

bool verb_domain_core_dump(struct call *call, const rpc_domain_text_flags *args, rpc_none *ret,
                           GError **error)
{
    (void)call, (void)ret;
    return core_dump(&args->dom, args->text, args->flags, error);
}

bool verb_domain_core_dump_with_format(struct call *call, const rpc_core_dump_args *args,
                                       rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    static const char *const formats[] = {"elf", "kdump-zlib", "kdump-lzo", "kdump-snappy",
                                          "win-dmp"};
    if (args->format) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "unsupported dumpformat '%s' for this QEMU binary",
                      args->format < G_N_ELEMENTS(formats) ? formats[args->format] : "unknown");
        return false;
    }
    return core_dump(&args->dom, args->to, args->flags, error);
}
