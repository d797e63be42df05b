/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Jobs that take long: saving and migrating; how far they are, and their end. */
#include "manage/daemon/checkpoint.h"
#include "manage/daemon/migrate.h"
#include "manage/daemon/params.h"

static uint64_t elapsed(const struct job_figures *j)
{
    return j->elapsed_ms ? j->elapsed_ms : (uint64_t)(g_get_monotonic_time() - j->since) / 1000;
}

/* Of what goes on in a machine that runs. */
static struct job_figures figures_of(Domain *d)
{
    g_autoptr(Machine) m = machine_ref(d->machine);
    struct job_figures j = m->job;
    if (j.type == JOB_NONE) {
        backup_figures(m, &j);
    }
    return j;
}

bool verb_domain_get_job_info(struct call *call, const rpc_domain_args *args, rpc_job_info *ret,
                              GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d || !domain_check_active(d, error)) {
        return false;
    }
    struct job_figures now = figures_of(d);
    const struct job_figures *j = &now;
    ret->type = j->type;
    if (j->type == JOB_NONE) {
        return true;
    }
    ret->time_elapsed = elapsed(j);
    ret->data_total = j->total;
    ret->data_processed = j->processed;
    ret->data_remaining = j->remaining;
    bool files = j->operation == OPERATION_BACKUP;
    *(files ? &ret->file_total : &ret->mem_total) = j->total;
    *(files ? &ret->file_processed : &ret->mem_processed) = j->processed;
    *(files ? &ret->file_remaining : &ret->mem_remaining) = j->remaining;
    return true;
}

/* libvirt's numbers, here and in .details. */
enum { CONTROL_OK, CONTROL_JOB, CONTROL_OCCUPIED, CONTROL_ERROR, ERROR_MONITOR = 2 };

bool verb_domain_get_control_info(struct call *call, const rpc_domain_flags *args,
                                  rpc_control_info *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d || !domain_check_active(d, error)) {
        return false;
    }
    const struct machine *m = d->machine;
    int64_t job = m->job.type != JOB_NONE ? m->job.since : backup_since(m);
    int64_t since = job ? job : qmp_unanswered(m->qmp);
    bool lost = m->qmp ? qmp_is_dead(m->qmp) : !d->job; /* else it is about to have one */
    if (lost) {
        ret->state = CONTROL_ERROR;
        ret->details = ERROR_MONITOR;
    } else if (since) {
        ret->state = job ? CONTROL_JOB : CONTROL_OCCUPIED;
        ret->state_time = (uint64_t)(g_get_monotonic_time() - since) / 1000;
    }
    return true;
}

static void put_figures(Params *p, const struct job_figures *j)
{
    params_int(p, "operation", j->operation);
    params_ullong(p, "time_elapsed", elapsed(j));
    if (j->has_downtime) {
        params_ullong(p, "downtime", j->downtime_ms);
    }
    if (j->type >= JOB_COMPLETED) {
        params_bool(p, "success", j->type == JOB_COMPLETED);
    }
    if (j->operation == OPERATION_BACKUP) {
        params_ullong(p, "disk_total", j->total);
        params_ullong(p, "disk_processed", j->processed);
        params_ullong(p, "disk_remaining", j->remaining);
    }
    if (!j->has_memory) {
        return;
    }
    params_ullong(p, "data_total", j->total);
    params_ullong(p, "data_processed", j->processed);
    params_ullong(p, "data_remaining", j->remaining);
    params_ullong(p, "memory_total", j->total);
    params_ullong(p, "memory_processed", j->processed);
    params_ullong(p, "memory_remaining", j->remaining);
    params_ullong(p, "memory_bps", j->speed);
    params_ullong(p, "memory_iteration", j->passes);
    params_ullong(p, "memory_page_size", 4096);
}

enum { STATS_COMPLETED = 1, STATS_KEEP_COMPLETED = 2 };

bool verb_domain_get_job_stats(struct call *call, const rpc_domain_flags *args, rpc_job_stats *ret,
                               GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    bool over = args->flags & STATS_COMPLETED;
    if (!d || (!over && !domain_check_active(d, error))) {
        return false;
    }
    struct job_figures now = over ? (struct job_figures){.type = JOB_NONE} : figures_of(d);
    const struct job_figures *j = over ? d->last_job : &now;
    ret->type = j ? j->type : JOB_NONE;
    if (ret->type == JOB_NONE) {
        return true;
    }
    Params *p = params_new();
    put_figures(p, j);
    ret->params.params_len = p->len;
    ret->params.params_val = (rpc_param *)(void *)g_array_free(p, FALSE);
    if (over && !(args->flags & STATS_KEEP_COMPLETED)) {
        g_clear_pointer(&d->last_job, g_free);
    }
    return true;
}

void domain_job_over(Domain *d, const struct job_figures *j, int type)
{
    g_free(d->last_job);
    d->last_job = g_memdup2(j, sizeof(*j));
    d->last_job->type = type;
    d->last_job->elapsed_ms = MAX(elapsed(j), 1);
    Params *p = params_new();
    put_figures(p, d->last_job);
    rpc_event_domain_params message = {.dom = domain_rpc(d)};
    message.params.params_len = p->len;
    message.params.params_val = (rpc_param *)(void *)p->data;
    event_domain_job_completed(&message);
    for (unsigned i = 0; i < p->len; i++) {
        g_free(message.params.params_val[i].field);
    }
    g_array_free(p, TRUE);
    g_free(message.dom.name);
}

static bool abort_job(const rpc_domain *named, GError **error)
{
    g_autoptr(Domain) d = domain_get(named, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    if (m->job.type == JOB_NONE && m->backup) {
        return backup_abort(m, error);
    }
    if (m->job.type == JOB_NONE && move_is_open(d)) {
        return move_reclaim(d, m, error);
    }
    if (m->move.incoming) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "cannot abort incoming migration; use virDomainDestroy instead");
        return false;
    }
    if (m->job.type == JOB_NONE && !machine_is_known(m, error)) {
        return false;
    }
    if (m->job.type == JOB_NONE) {
        libvirt_error(error, ERR_OPERATION_INVALID, "no job is active on the domain");
        return false;
    }
    m->move.cancelled = true;
    daemon_wake();
    return qmp_do(m->qmp, error, "migrate_cancel", NULL);
}

bool verb_domain_abort_job(struct call *call, const rpc_domain_args *args, rpc_none *ret,
                           GError **error)
{
    (void)call, (void)ret;
    return abort_job(&args->dom, error);
}

bool verb_domain_abort_job_flags(struct call *call, const rpc_domain_flags *args, rpc_none *ret,
                                 GError **error)
{
    enum { POSTCOPY = 1 }; /* see domain_migrate_start_post_copy */
    (void)call, (void)ret;
    if (args->flags & POSTCOPY) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "current job is not outgoing migration in post-copy mode");
        return false;
    }
    return abort_job(&args->dom, error);
}
