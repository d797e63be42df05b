/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Work on the disks of a running machine: pulling a backing image in, sizes, how it goes on. */
#include "manage/daemon/machine.h"

#include <string.h>

enum { BANDWIDTH_BYTES_PULL = 64, BANDWIDTH_BYTES_SPEED = 1, RESIZE_BYTES = 1 };
enum { TYPE_PULL = 1 };
enum { JOB_PREFIX = 4 }; /* "job-" and the alias */

static struct domain_disk *disk_of(const struct machine *m, const char *name, GError **error)
{
    struct domain_disk *disk = domain_find_disk(m->def, name);
    if (!disk) {
        libvirt_error(error, ERR_INVALID_ARG, "No device found for specified path: '%s'", name);
    }
    return disk;
}

static bool pull(const rpc_domain *named, const char *path, uint64_t speed, GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    struct domain_disk *disk = m ? disk_of(m, path, error) : NULL;
    g_autofree char *node = disk ? disk_node_name(disk) : NULL;
    if (!disk) {
        return false;
    }
    if (!node) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "disk %s has no source file to pull into",
                      disk->target);
        return false;
    }
    g_autofree char *id = g_strconcat("job-", disk->alias, NULL);
    return qmp_do(m->qmp, error, "block-stream", "{s:s, s:s, s:I}", "job-id", id, "device", node,
                  "speed", (json_int_t)speed);
}

bool verb_domain_block_pull(struct call *call, const rpc_domain_of_uhyper_flags *args,
                            rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    uint64_t unit = args->flags & BANDWIDTH_BYTES_PULL ? 1 : 1 << 20;
    if (args->value > INT64_MAX / unit) {
        libvirt_error(error, ERR_INVALID_ARG, "bandwidth must be less than %ld",
                      (long)(INT64_MAX / unit));
        return false;
    }
    return pull(&args->dom, args->of, args->value * unit, error);
}

bool verb_domain_block_resize(struct call *call, const rpc_domain_of_uhyper_flags *args,
                              rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    uint64_t unit = args->flags & RESIZE_BYTES ? 1 : 1024;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    struct domain_disk *disk = m ? disk_of(m, args->of, error) : NULL;
    g_autofree char *node = disk ? disk_node_name(disk) : NULL;
    if (!disk) {
        return false;
    }
    if (!node || !args->value || args->value > INT64_MAX / unit) {
        libvirt_error(error, ERR_INVALID_ARG, "disk %s cannot have this size", disk->target);
        return false;
    }
    return qmp_do(m->qmp, error, "block_resize", "{s:s, s:I}", "node-name", node, "size",
                  (json_int_t)(args->value * unit));
}

bool verb_domain_block_job_set_speed(struct call *call, const rpc_domain_of_uhyper_flags *args,
                                     rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    uint64_t unit = args->flags & BANDWIDTH_BYTES_SPEED ? 1 : 1 << 20;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    struct domain_disk *disk = m ? disk_of(m, args->of, error) : NULL;
    if (!disk) {
        return false;
    }
    if (args->value > INT64_MAX / unit) {
        libvirt_error(error, ERR_INVALID_ARG, "bandwidth must be less than %ld",
                      (long)(INT64_MAX / unit));
        return false;
    }
    g_autofree char *id = g_strconcat("job-", disk->alias, NULL);
    return qmp_do(m->qmp, error, "block-job-set-speed", "{s:s, s:I}", "device", id, "speed",
                  (json_int_t)(args->value * unit));
}

bool verb_domain_get_block_job_info(struct call *call, const rpc_domain_text_flags *args,
                                    rpc_block_job_info *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    struct domain_disk *disk = m ? disk_of(m, args->text, error) : NULL;
    if (!disk) {
        return false;
    }
    g_autofree char *id = g_strconcat("job-", disk->alias, NULL);
    g_autoptr(json_t) jobs = qmp_run(m->qmp, "query-block-jobs", NULL, QMP_TIMEOUT_MS, error);
    size_t i;
    json_t *job;
    json_array_foreach(jobs, i, job)
    {
        if (g_strcmp0(json_string_value(json_object_get(job, "device")), id) == 0) {
            ret->found = 1;
            ret->type = TYPE_PULL;
            ret->bandwidth = (uint64_t)json_integer_value(json_object_get(job, "speed"));
            ret->cur = (uint64_t)json_integer_value(json_object_get(job, "offset"));
            ret->end = (uint64_t)json_integer_value(json_object_get(job, "len"));
            if (!(args->flags & 1)) { /* MiB/s unless bytes are asked for */
                ret->bandwidth >>= 20;
            }
        }
    }
    return jobs != NULL;
}

bool verb_domain_block_job_abort(struct call *call, const rpc_domain_text_flags *args,
                                 rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    enum { ABORT_PIVOT = 2 };
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    struct domain_disk *disk = m ? disk_of(m, args->text, error) : NULL;
    if (!disk) {
        return false;
    }
    if (args->flags & ABORT_PIVOT) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "pivot of disk '%s' requires an active copy job", disk->target);
        return false;
    }
    g_autofree char *id = g_strconcat("job-", disk->alias, NULL);
    return qmp_do(m->qmp, error, "block-job-cancel", "{s:s}", "device", id);
}

void machine_block_job(struct machine *m, const char *id, int status)
{
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        struct domain_disk *disk = m->def->disks->pdata[i];
        if (!g_str_has_prefix(id, "job-") || g_strcmp0(disk->alias, id + JOB_PREFIX) != 0) {
            continue;
        }
        const char *path = disk_path(disk);
        rpc_event_block_job message = {.dom = domain_rpc(m->domain),
                                       .disk = (char *)(path ? path : disk->target),
                                       .type = TYPE_PULL,
                                       .status = status};
        event_domain_block_job(&message);
        message.disk = disk->target;
        event_domain_block_job_2(&message);
        g_free(message.dom.name);
    }
}
