/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a machine's XML says of the host's processors, memory and disks, made true. */
#include "manage/daemon/tune.h"

#include "manage/daemon/capabilities.h"
#include "manage/daemon/files.h"
#include "manage/daemon/params.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NUMA_STRICT = 1, NUMA_PREFERRED, NUMA_INTERLEAVE, NUMA_RESTRICTIVE };
enum { POLICY_DEFAULT_NODES, POLICY_PREFERRED, POLICY_BIND, POLICY_INTERLEAVE }; /* of Linux */
enum { PLACEMENT_AUTO = 2 };

/* --- what is asked --- */

#define D(member) offsetof(DomainDef, member)
static const struct {
    enum knob knob;
    size_t offset;
    uint64_t unit;
} limits[] = {
    {KNOB_SHARES, D(cpu_shares), 1},        {KNOB_PERIOD, D(global_period), 1},
    {KNOB_QUOTA, D(global_quota), 1},       {KNOB_SOFT_LIMIT, D(soft_limit), 1024},
    {KNOB_HARD_LIMIT, D(hard_limit), 1024}, {KNOB_SWAP_HARD_LIMIT, D(swap_hard_limit), 1024},
    {KNOB_WEIGHT, D(blkio_weight), 1},
};
static const struct {
    enum knob knob;
    size_t offset;
} device_limits[] = {
#define B(member) offsetof(struct blkio_device, member)
    {KNOB_DEVICE_WEIGHT, B(weight)},    {KNOB_READ_IOPS, B(read_iops)},
    {KNOB_WRITE_IOPS, B(write_iops)},   {KNOB_READ_BYTES, B(read_bytes)},
    {KNOB_WRITE_BYTES, B(write_bytes)},
#undef B
};
#undef D

static int64_t value_of(const void *object, size_t offset)
{
    return *(const int64_t *)(const void *)((const char *)object + offset);
}

static bool has_bandwidth(const DomainDef *def)
{
    return def->cpu_period != XML_ABSENT || def->cpu_quota != XML_ABSENT ||
           def->emulator_period != XML_ABSENT || def->emulator_quota != XML_ABSENT;
}

bool tune_first(const DomainDef *def)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(limits); i++) {
        if (value_of(def, limits[i].offset) != XML_ABSENT) {
            return true;
        }
    }
    return has_bandwidth(def) || def->blkio_devices || def->emulator_pin || def->vcpu_cpuset ||
           def->numatune_nodeset || def->memory_allocation || def->locked || def->hugepages;
}

bool tune_check(const DomainDef *def, GError **error)
{
    if (def->vcpu_placement == PLACEMENT_AUTO || def->numatune_placement == PLACEMENT_AUTO) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "placement='auto': numad is not available on this host");
        return false;
    }
    return true;
}

/* --- the process --- */

static char *group_name(const DomainDef *def)
{
    char *name = g_strdup_printf(GROUP_PREFIX "%ld-%.60s", (long)def->id, def->name);
    return g_strcanon(name, GROUP_CHARACTERS, '_');
}

static bool set_devices(struct machine *m, GError **error)
{
    for (unsigned i = 0; i < xml_count(m->def->blkio_devices); i++) {
        const struct blkio_device *device = m->def->blkio_devices->pdata[i];
        struct stat st;
        if (path_stat(device->path, &st) != 0 || !S_ISBLK(st.st_mode)) {
            libvirt_error(error, ERR_SYSTEM, "Path '%s' must be a block device", device->path);
            return false;
        }
        for (unsigned k = 0; k < G_N_ELEMENTS(device_limits); k++) {
            int64_t v = value_of(device, device_limits[k].offset);
            if (v != XML_ABSENT && !cgroup_set_device(m->group, device_limits[k].knob, st.st_rdev,
                                                      (uint64_t)v, error)) {
                return false;
            }
        }
    }
    return true;
}

/* What has no controller on this host is refused in libvirt's words. */
static bool need(struct machine *m, enum group_controller c, bool wanted, const char *what,
                 GError **error)
{
    if (wanted && !cgroup_has(m->group, c)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "%s is not available on this host", what);
        return false;
    }
    return true;
}

static bool set_limits(struct machine *m, GError **error)
{
    const DomainDef *def = m->def;
    bool memory = def->hard_limit != XML_ABSENT || def->soft_limit != XML_ABSENT ||
                  def->swap_hard_limit != XML_ABSENT;
    bool cpu = def->cpu_shares != XML_ABSENT || def->global_period != XML_ABSENT ||
               def->global_quota != XML_ABSENT || has_bandwidth(def);
    if (!need(m, GROUP_CPU, cpu, "CPU tuning", error) ||
        !need(m, GROUP_MEMORY, memory, "Memory cgroup", error) ||
        !need(m, GROUP_BLKIO, def->blkio_weight != XML_ABSENT || def->blkio_devices,
              "Block I/O tuning", error)) {
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(limits); i++) {
        int64_t v = value_of(def, limits[i].offset);
        if (v == XML_ABSENT) {
            continue;
        }
        uint64_t n = v < 0 ? KNOB_UNLIMITED : (uint64_t)v * limits[i].unit;
        if (limits[i].knob == KNOB_SWAP_HARD_LIMIT && cgroup_version(m->group, GROUP_MEMORY) == 2) {
            n -= (uint64_t)MAX(def->hard_limit, 0) * 1024; /* there it is swap without memory */
        }
        if (!cgroup_set(m->group, NULL, limits[i].knob, n, error)) {
            return false;
        }
    }
    if (def->numatune_nodeset &&
        (def->numatune_mode == NUMA_STRICT || def->numatune_mode == NUMA_RESTRICTIVE ||
         !def->numatune_mode) &&
        cgroup_has(m->group, GROUP_CPUSET) &&
        !cgroup_set_text(m->group, NULL, KNOB_MEMS, def->numatune_nodeset, error)) {
        return false;
    }
    return set_devices(m, error);
}

bool tune_pin_thread(pid_t thread, const struct cpuset *set, GError **error)
{
    if (syscall(SYS_sched_setaffinity, thread, sizeof(set->bytes), set->bytes) != 0) {
        libvirt_error(error, ERR_SYSTEM, "cannot set CPU affinity on process %d: %s", thread,
                      g_strerror(errno));
        return false;
    }
    return true;
}

static bool pin_to(pid_t thread, const char *text, GError **error)
{
    struct cpuset set;
    return cpuset_parse(text, &set, error) && tune_pin_thread(thread, &set, error);
}

bool tune_process(struct machine *m, GError **error)
{
    const DomainDef *def = m->def;
    const char *pin = def->emulator_pin ? def->emulator_pin : def->vcpu_cpuset;
    g_free(m->group_name);
    m->group_name = group_name(def);
    daemon_unlock(); /* the kernel may take 10 ms to move a process */
    m->group = cgroup_new(m->group_name);
    g_autoptr(GError) own = NULL;
    bool ok = set_limits(m, error);
    if (ok && !cgroup_put_process(m->group, m->pid, &own)) {
        if (tune_first(def)) {
            ok = false;
            g_propagate_error(error, g_steal_pointer(&own));
        }
    }
    ok = ok && (!pin || pin_to(m->pid, pin, error));
    daemon_lock();
    return ok;
}

void tune_recover(struct machine *m)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/cgroup", m->pid), *text = NULL;
    m->group_name = group_name(m->def);
    if (g_file_get_contents(path, &text, NULL, NULL)) {
        m->group = cgroup_find(text, m->group_name);
    }
}

void tune_forget(const DomainDef *def)
{
    g_autofree char *name = group_name(def);
    cgroup_remove(cgroup_new(name));
}

/* --- memory nodes --- */

void tune_nodes(const DomainDef *def, struct tune_nodes *out)
{
    static const int modes[] = {[0] = POLICY_BIND,
                                [NUMA_STRICT] = POLICY_BIND,
                                [NUMA_PREFERRED] = POLICY_PREFERRED,
                                [NUMA_INTERLEAVE] = POLICY_INTERLEAVE,
                                [NUMA_RESTRICTIVE] = POLICY_DEFAULT_NODES};
    struct cpuset set;
    memset(out, 0, sizeof(*out));
    if (!def->numatune_nodeset || !cpuset_parse(def->numatune_nodeset, &set, NULL)) {
        return;
    }
    out->mode = modes[def->numatune_mode];
    memcpy(out->nodes, set.bytes, sizeof(out->nodes));
}

int tune_nodes_apply(const struct tune_nodes *n)
{
    if (n->mode == POLICY_DEFAULT_NODES) {
        return 0;
    }
    return syscall(SYS_set_mempolicy, n->mode, n->nodes, sizeof(n->nodes) * 8) == 0 ? 0 : errno;
}

/* --- vCPUs --- */

GArray *tune_vcpu_threads(struct machine *m, int timeout_ms, GError **error)
{
    g_autoptr(json_t) all = qmp_run(m->qmp, "query-cpus-fast", NULL, timeout_ms, error);
    if (!all) {
        return NULL;
    }
    GArray *threads = g_array_new(FALSE, TRUE, sizeof(pid_t));
    g_array_set_size(threads, (unsigned)m->def->vcpus);
    size_t i;
    json_t *one;
    json_array_foreach(all, i, one)
    {
        json_int_t index = json_integer_value(json_object_get(one, "cpu-index"));
        if (index >= 0 && index < m->def->vcpus) {
            g_array_index(threads, pid_t, index) =
                (pid_t)json_integer_value(json_object_get(one, "thread-id"));
        }
    }
    return threads;
}

static const char *pin_of(const DomainDef *def, unsigned vcpu)
{
    for (unsigned i = 0; i < xml_count(def->vcpu_pins); i++) {
        const struct vcpu_pin *pin = def->vcpu_pins->pdata[i];
        if (pin->vcpu == vcpu) {
            return pin->cpuset;
        }
    }
    return def->vcpu_cpuset;
}

/* @part gets its share; what the XML does not say stays as it is. */
static bool set_part(struct machine *m, const char *part, int64_t period, int64_t quota,
                     GError **error)
{
    return (period == XML_ABSENT || period == 0 ||
            cgroup_set(m->group, part, KNOB_PERIOD, (uint64_t)period, error)) &&
           (quota == XML_ABSENT || quota == 0 ||
            cgroup_set(m->group, part, KNOB_QUOTA, quota < 0 ? KNOB_UNLIMITED : (uint64_t)quota,
                       error));
}

/* All threads that are no vCPU's. */
static bool place_emulator(struct machine *m, const GArray *vcpus, GError **error)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task", m->pid);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        pid_t thread = atoi(name);
        bool is_vcpu = false;
        for (unsigned i = 0; i < vcpus->len; i++) {
            is_vcpu |= g_array_index(vcpus, pid_t, i) == thread;
        }
        g_autoptr(GError) own = NULL;
        if (!is_vcpu && !cgroup_put_thread(m->group, "emulator", thread, &own) &&
            thread == m->pid) { /* others may have ended meanwhile */
            g_propagate_error(error, g_steal_pointer(&own));
            return false;
        }
    }
    return true;
}

static bool place_parts(struct machine *m, const GArray *threads, GError **error)
{
    const DomainDef *def = m->def;
    if (!cgroup_has(m->group, GROUP_CPU)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cgroup CPU controller is not mounted");
        return false;
    }
    for (unsigned i = 0; i < threads->len; i++) {
        char part[24];
        pid_t thread = g_array_index(threads, pid_t, i);
        g_snprintf(part, sizeof(part), "vcpu%u", i);
        if (thread && (!cgroup_put_thread(m->group, part, thread, error) ||
                       !set_part(m, part, def->cpu_period, def->cpu_quota, error))) {
            return false;
        }
    }
    return place_emulator(m, threads, error) &&
           set_part(m, "emulator", def->emulator_period, def->emulator_quota, error);
}

bool tune_bandwidth(struct machine *m, GError **error)
{
    g_autoptr(GArray) threads = tune_vcpu_threads(m, QMP_TIMEOUT_MS, error);
    return threads && place_parts(m, threads, error);
}

bool tune_vcpus(struct machine *m, GError **error)
{
    const DomainDef *def = m->def;
    if (!has_bandwidth(def) && !def->vcpu_pins && !def->emulator_pin && !def->vcpu_cpuset) {
        return true; /* where the process is, its threads are */
    }
    g_autoptr(GArray) threads = tune_vcpu_threads(m, QMP_TIMEOUT_MS, error);
    for (unsigned i = 0; threads && i < threads->len; i++) {
        pid_t thread = g_array_index(threads, pid_t, i);
        const char *pin = pin_of(def, i);
        struct cpuset set;
        if (!thread || (!pin && !def->emulator_pin)) {
            continue;
        }
        if (!pin) { /* has inherited the emulator's */
            cpuset_all(&set, (unsigned)host_cpus()->present);
        } else if (!cpuset_parse(pin, &set, error)) {
            return false;
        }
        if (!tune_pin_thread(thread, &set, error)) {
            return false;
        }
    }
    return threads && (!has_bandwidth(def) || place_parts(m, threads, error));
}

bool tune_thread_time(struct machine *m, pid_t thread, uint64_t *ns, int *cpu)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/stat", m->pid, thread), *text = NULL;
    unsigned long long user = 0, kernel = 0;
    const char *at = g_file_get_contents(path, &text, NULL, NULL) ? strrchr(text, ')') : NULL;
    /* Fields 14, 15 and 39 of proc(5). */
    if (!at || sscanf(at + 1,
                      " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d "
                      "%*d %*u %*u %*d %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*d %d",
                      &user, &kernel, cpu) != 3) {
        return false;
    }
    *ns = (user + kernel) * (1000000000u / (unsigned)sysconf(_SC_CLK_TCK)) +
          machine_children_time(m, thread);
    return true;
}

/* --- what clients say and hear --- */

bool param_number(const rpc_param *p, int64_t *v, GError **error)
{
    const rpc_value *value = &p->value;
    switch (value->type) {
    case 1:
        *v = value->rpc_value_u.i;
        return true;
    case 2:
        *v = value->rpc_value_u.ui;
        return true;
    case 3:
        *v = value->rpc_value_u.l;
        return true;
    case 4:
        /* The largest of them mean "without a limit", as -1 does. */
        *v = value->rpc_value_u.ul > INT64_MAX ? -1 : (int64_t)value->rpc_value_u.ul;
        return true;
    case 6:
        *v = value->rpc_value_u.b != 0;
        return true;
    default:
        libvirt_error(error, ERR_INVALID_ARG, "invalid type of parameter '%s'", p->field);
        return false;
    }
}

void tune_event(Domain *d, Params *p)
{
    rpc_event_domain_params message = {.dom = domain_rpc(d)};
    unsigned n;
    message.params.params_val = params_finish(p, &n);
    message.params.params_len = n;
    if (n) {
        event_domain_tunable(&message);
    }
    xdr_free((xdrproc_t)xdr_rpc_event_domain_params, (char *)&message);
}
