/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's processors and a machine: who runs where, how much of them, what was used. */
#include "manage/daemon/capabilities.h"
#include "manage/daemon/params.h"
#include "manage/daemon/tune.h"

#include <inttypes.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- vCPUs --- */

bool verb_domain_get_vcpus(struct call *call, const rpc_vcpus_args *args, rpc_vcpus *ret,
                           GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d) {
        return false;
    }
    if (!domain_active(d)) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "cannot retrieve vcpu information for inactive domain");
        return false;
    }
    g_autoptr(Machine) m = machine_of(d, error);
    g_autoptr(GArray) threads = m ? tune_vcpu_threads(m, QMP_TIMEOUT_MS, error) : NULL;
    if (!threads) {
        return false;
    }
    unsigned bytes = (unsigned)CLAMP(args->map_bytes, 0, RPC_CPUMAP_MAX), n = 0;
    unsigned room = (unsigned)CLAMP(args->max, 0, (int)threads->len);
    ret->vcpus.vcpus_val = g_new0(rpc_vcpu, room + 1);
    ret->maps.maps_val = g_malloc0((size_t)room * bytes + 1);
    for (unsigned i = 0; i < threads->len && n < room; i++) {
        pid_t thread = g_array_index(threads, pid_t, i);
        rpc_vcpu *v = &ret->vcpus.vcpus_val[n];
        struct cpuset set = {0};
        if (!thread) {
            continue;
        }
        *v = (rpc_vcpu){.number = i, .state = 1, .cpu = -1};
        uint64_t ns = 0;
        tune_thread_time(m, thread, &ns, &v->cpu);
        v->cpu_time = ns;
        syscall(SYS_sched_getaffinity, thread, sizeof(set.bytes), set.bytes);
        memcpy(ret->maps.maps_val + (size_t)n * bytes, set.bytes, MIN(bytes, CPUSET_BYTES));
        n++;
    }
    ret->vcpus.vcpus_len = n;
    ret->maps.maps_len = n * bytes;
    return true;
}

/* --- pinning --- */

static bool parse_or_all(const char *text, const char *otherwise, struct cpuset *set,
                         GError **error)
{
    if (!text && !otherwise) {
        cpuset_all(set, (unsigned)host_cpus()->present);
        return true;
    }
    return cpuset_parse(text ? text : otherwise, set, error);
}

static struct vcpu_pin *find_pin(const DomainDef *def, unsigned vcpu)
{
    for (unsigned i = 0; i < xml_count(def->vcpu_pins); i++) {
        struct vcpu_pin *pin = def->vcpu_pins->pdata[i];
        if (pin->vcpu == vcpu) {
            return pin;
        }
    }
    return NULL;
}

static gint by_vcpu(gconstpointer a, gconstpointer b)
{
    const struct vcpu_pin *x = *(struct vcpu_pin *const *)a, *y = *(struct vcpu_pin *const *)b;
    return x->vcpu < y->vcpu ? -1 : x->vcpu > y->vcpu;
}

static void set_pin(DomainDef *def, unsigned vcpu, const char *text)
{
    struct vcpu_pin *pin = find_pin(def, vcpu);
    if (!pin) {
        pin = g_new0(struct vcpu_pin, 1);
        pin->vcpu = vcpu;
        xml_append(NULL, &def->vcpu_pins, pin);
        g_ptr_array_sort(def->vcpu_pins, by_vcpu);
    }
    g_free(pin->cpuset);
    pin->cpuset = g_strdup(text);
}

static bool pin_live(Domain *d, unsigned vcpu, const struct cpuset *set, const char *text,
                     GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m) {
        return false;
    }
    g_autoptr(GArray) threads = tune_vcpu_threads(m, QMP_TIMEOUT_MS, error);
    if (!threads) {
        return false;
    }
    pid_t thread = vcpu < threads->len ? g_array_index(threads, pid_t, vcpu) : 0;
    if (!thread) {
        libvirt_error(error, ERR_INVALID_ARG, "vcpu %u is out of range of live cpu count %u", vcpu,
                      domain_vcpus_online(m->def));
        return false;
    }
    if (!tune_pin_thread(thread, set, error)) {
        return false;
    }
    set_pin(m->def, vcpu, text);
    machine_save(m);
    char name[40];
    g_snprintf(name, sizeof(name), "cputune.vcpupin%u", vcpu);
    Params *p = params_new();
    params_text(p, name, text);
    tune_event(d, p);
    return true;
}

static bool pin_vcpu(const rpc_domain *named, unsigned vcpu, const void *map, unsigned n,
                     unsigned flags, GError **error)
{
    struct cpuset set;
    g_autoptr(DomainJob) d = domain_take(named, error);
    if (!d || !domain_affect(d, &flags, error) || !cpuset_from_map(map, n, &set, error)) {
        return false;
    }
    g_autofree char *text = cpuset_format(&set);
    g_autoptr(DomainDef) def = flags & AFFECT_CONFIG ? domain_config(d, error) : NULL;
    if ((flags & AFFECT_CONFIG) && !def) {
        return false;
    }
    if (def && vcpu >= def->vcpus) {
        libvirt_error(error, ERR_INVALID_ARG, "vcpu %u is out of range of persistent cpu count %ld",
                      vcpu, (long)def->vcpus);
        return false;
    }
    if ((flags & AFFECT_LIVE) && !pin_live(d, vcpu, &set, text, error)) {
        return false;
    }
    if (def) {
        set_pin(def, vcpu, text);
    }
    return !def || domain_save_config(d, def, error);
}

bool verb_domain_pin_vcpu(struct call *call, const rpc_pin_vcpu_args *args, rpc_none *ret,
                          GError **error)
{
    (void)call, (void)ret;
    return pin_vcpu(&args->dom, args->vcpu, args->map.map_val, args->map.map_len, AFFECT_LIVE,
                    error);
}

bool verb_domain_pin_vcpu_flags(struct call *call, const rpc_pin_vcpu_flags *args, rpc_none *ret,
                                GError **error)
{
    (void)call, (void)ret;
    return pin_vcpu(&args->dom, args->vcpu, args->map.map_val, args->map.map_len, args->flags,
                    error);
}

bool verb_domain_get_vcpu_pin_info(struct call *call, const rpc_vcpu_pins_args *args,
                                   rpc_cpu_maps *ret, GError **error)
{
    (void)call;
    unsigned flags = args->flags;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(DomainDef) def =
        d && domain_affect(d, &flags, error) ? domain_def_of(d, flags & AFFECT_LIVE, error) : NULL;
    if (!def) {
        return false;
    }
    unsigned bytes = (unsigned)CLAMP(args->map_bytes, 0, RPC_CPUMAP_MAX);
    unsigned n = (unsigned)CLAMP(args->max, 0, (int)def->vcpus);
    ret->maps.maps_val = g_malloc0((size_t)n * bytes + 1);
    ret->maps.maps_len = n * bytes;
    ret->count = (int)n;
    for (unsigned i = 0; i < n; i++) {
        const struct vcpu_pin *pin = find_pin(def, i);
        struct cpuset set;
        if (!parse_or_all(pin ? pin->cpuset : NULL, def->vcpu_cpuset, &set, error)) {
            return false;
        }
        memcpy(ret->maps.maps_val + (size_t)i * bytes, set.bytes, MIN(bytes, CPUSET_BYTES));
    }
    return true;
}

/* Every thread that is no vCPU's. */
static bool pin_emulator_live(Domain *d, const struct cpuset *set, const char *text, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    g_autoptr(GArray) threads = m ? tune_vcpu_threads(m, QMP_TIMEOUT_MS, error) : NULL;
    if (!threads) {
        return false;
    }
    g_autofree char *path = g_strdup_printf("/proc/%d/task", m->pid);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        pid_t thread = (pid_t)strtol(name, NULL, 10);
        bool vcpu = false;
        for (unsigned i = 0; i < threads->len; i++) {
            vcpu |= g_array_index(threads, pid_t, i) == thread;
        }
        g_autoptr(GError) own = NULL;
        if (!vcpu && !tune_pin_thread(thread, set, &own) && thread == m->pid) {
            g_propagate_error(error, g_steal_pointer(&own));
            return false;
        }
    }
    g_free(m->def->emulator_pin);
    m->def->emulator_pin = g_strdup(text);
    machine_save(m);
    Params *p = params_new();
    params_text(p, "cputune.emulatorpin", text);
    tune_event(d, p);
    return true;
}

bool verb_domain_pin_emulator(struct call *call, const rpc_pin_emulator_args *args, rpc_none *ret,
                              GError **error)
{
    (void)call, (void)ret;
    struct cpuset set;
    unsigned flags = args->flags;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    if (!d || !domain_affect(d, &flags, error) ||
        !cpuset_from_map(args->map.map_val, args->map.map_len, &set, error)) {
        return false;
    }
    g_autofree char *text = cpuset_format(&set);
    if ((flags & AFFECT_LIVE) && !pin_emulator_live(d, &set, text, error)) {
        return false;
    }
    g_autoptr(DomainDef) def = flags & AFFECT_CONFIG ? domain_config(d, error) : NULL;
    if (def) {
        g_free(def->emulator_pin);
        def->emulator_pin = g_strdup(text);
    }
    return !(flags & AFFECT_CONFIG) || (def && domain_save_config(d, def, error));
}

bool verb_domain_get_emulator_pin_info(struct call *call, const rpc_domain_int_flags *args,
                                       rpc_cpu_maps *ret, GError **error)
{
    (void)call;
    struct cpuset set;
    unsigned flags = args->flags;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(DomainDef) def =
        d && domain_affect(d, &flags, error) ? domain_def_of(d, flags & AFFECT_LIVE, error) : NULL;
    if (!def || !parse_or_all(def->emulator_pin, def->vcpu_cpuset, &set, error)) {
        return false;
    }
    unsigned bytes = (unsigned)CLAMP(args->value, 0, CPUSET_BYTES);
    ret->maps.maps_val = g_memdup2(set.bytes, bytes);
    ret->maps.maps_len = bytes;
    ret->count = 1;
    return true;
}

/* --- shares and bandwidth --- */

enum { PERIOD_MIN = 1000, PERIOD_MAX = 1000000, QUOTA_MIN = 1000 };
#define QUOTA_MAX INT64_C(18446744073709551) /* what libvirt has for "none" */

static const struct scheduler_row {
    const char *name;
    enum { SHARES, PERIOD, QUOTA } kind;
    const char *part; /* NULL: the whole */
    int64_t offset;   /* in the definition, -1: there is nothing of the kind */
} scheduler[] = {
#define D(member) offsetof(DomainDef, member)
    {"cpu_shares", SHARES, NULL, D(cpu_shares)},
    {"vcpu_period", PERIOD, "vcpu0", D(cpu_period)},
    {"vcpu_quota", QUOTA, "vcpu0", D(cpu_quota)},
    {"emulator_period", PERIOD, "emulator", D(emulator_period)},
    {"emulator_quota", QUOTA, "emulator", D(emulator_quota)},
    {"global_period", PERIOD, NULL, D(global_period)},
    {"global_quota", QUOTA, NULL, D(global_quota)},
    {"iothread_period", PERIOD, NULL, -1},
    {"iothread_quota", QUOTA, NULL, -1},
#undef D
};

static int64_t *field_of(DomainDef *def, const struct scheduler_row *row)
{
    return (int64_t *)(void *)((char *)def + row->offset);
}

bool verb_domain_get_scheduler_type(struct call *call, const rpc_domain_args *args,
                                    rpc_scheduler_type *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d) {
        return false;
    }
    if (domain_active(d) && !cgroup_has(d->machine->group, GROUP_CPU)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cgroup CPU controller is not mounted");
        return false;
    }
    ret->type = g_strdup("posix");
    ret->params = G_N_ELEMENTS(scheduler);
    return true;
}

/* What is in force; a part that was never made has no limit of its own. */
static bool scheduler_live(struct machine *m, const struct scheduler_row *row, int64_t *v,
                           GError **error)
{
    static const enum knob knobs[] = {
        [SHARES] = KNOB_SHARES, [PERIOD] = KNOB_PERIOD, [QUOTA] = KNOB_QUOTA};
    uint64_t n = row->kind == PERIOD ? 100000 : KNOB_UNLIMITED;
    if (row->offset < 0) {
        n = 0;
    } else if (!cgroup_get(m->group, row->part, knobs[row->kind], &n, row->part ? NULL : error) &&
               !row->part) {
        return false;
    }
    *v = n == KNOB_UNLIMITED ? -1 : (int64_t)n;
    return true;
}

static bool get_scheduler(const rpc_domain *named, int max, unsigned flags, rpc_params *ret,
                          GError **error)
{
    g_autoptr(Domain) d = domain_get(named, error);
    g_autoptr(DomainDef) def =
        d && domain_affect(d, &flags, error) ? domain_def_of(d, flags & AFFECT_LIVE, error) : NULL;
    g_autoptr(Machine) m = def && (flags & AFFECT_LIVE) ? machine_of(d, error) : NULL;
    if (!def || ((flags & AFFECT_LIVE) && !m)) {
        return false;
    }
    g_autoptr(GArray) p = params_new();
    for (unsigned i = 0; i < G_N_ELEMENTS(scheduler) && (int)i < max; i++) {
        const struct scheduler_row *row = &scheduler[i];
        int64_t v = 0;
        if (m && !scheduler_live(m, row, &v, error)) {
            return false;
        }
        if (!m && row->offset >= 0 && *field_of(def, row) != XML_ABSENT) {
            v = *field_of(def, row);
        }
        if (row->kind == QUOTA) {
            params_llong(p, row->name, v);
        } else {
            params_ullong(p, row->name, (uint64_t)v);
        }
    }
    ret->params.params_val = params_finish(g_steal_pointer(&p), &ret->params.params_len);
    return true;
}

bool verb_domain_get_scheduler_parameters(struct call *call, const rpc_domain_int *args,
                                          rpc_params *ret, GError **error)
{
    (void)call;
    return get_scheduler(&args->dom, args->value, 0, ret, error);
}

bool verb_domain_get_scheduler_parameters_flags(struct call *call, const rpc_domain_int_flags *args,
                                                rpc_params *ret, GError **error)
{
    (void)call;
    return get_scheduler(&args->dom, args->value, args->flags & 3, ret, error);
}

static const struct scheduler_row *scheduler_row(const rpc_param *p, int64_t *v, GError **error)
{
    const struct scheduler_row *row = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(scheduler); i++) {
        row = strcmp(scheduler[i].name, p->field) == 0 ? &scheduler[i] : row;
    }
    if (!row) {
        libvirt_error(error, ERR_INVALID_ARG, "parameter '%s' not supported", p->field);
        return NULL;
    }
    if (row->offset < 0) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "IOThreads are not supported by lodge-vm");
        return NULL;
    }
    if (!param_number(p, v, error)) {
        return NULL;
    }
    /* As libvirt: 0 leaves things alone. */
    if (row->kind == PERIOD && *v != 0 && (*v < PERIOD_MIN || *v > PERIOD_MAX)) {
        libvirt_error(error, ERR_INVALID_ARG, "value of '%s' is out of range [%d, %d]", p->field,
                      PERIOD_MIN, PERIOD_MAX);
        return NULL;
    }
    if (row->kind == QUOTA && ((*v > 0 && *v < QUOTA_MIN) || *v > QUOTA_MAX)) {
        libvirt_error(error, ERR_INVALID_ARG, "value of '%s' is out of range [%d, %" PRId64 "]",
                      p->field, QUOTA_MIN, QUOTA_MAX);
        return NULL;
    }
    *v = row->kind == QUOTA && *v == QUOTA_MAX ? -1 : *v;
    return row;
}

/* Writes @params over the fields of @def. */
static bool scheduler_change(DomainDef *def, const rpc_param *params, unsigned n, GError **error)
{
    for (unsigned i = 0; i < n; i++) {
        int64_t v;
        const struct scheduler_row *row = scheduler_row(&params[i], &v, error);
        if (!row) {
            return false;
        }
        if (row->kind == SHARES || v) {
            *field_of(def, row) = v;
        }
    }
    return true;
}

static bool scheduler_apply(struct machine *m, const rpc_param *params, unsigned n, GError **error)
{
    bool parts = false;
    Params *told = params_new();
    bool ok = true;
    for (unsigned i = 0; i < n && ok; i++) {
        int64_t v;
        const struct scheduler_row *row = scheduler_row(&params[i], &v, error);
        enum knob k = row->kind == SHARES   ? KNOB_SHARES
                      : row->kind == PERIOD ? KNOB_PERIOD
                                            : KNOB_QUOTA;
        parts |= row->part != NULL;
        if (!row->part && (row->kind == SHARES || v)) {
            ok = cgroup_set(m->group, NULL, k, v < 0 ? KNOB_UNLIMITED : (uint64_t)v, error);
        }
        uint64_t now;
        if (ok && row->kind == SHARES && cgroup_get(m->group, NULL, k, &now, NULL)) {
            *field_of(m->def, row) = v = (int64_t)now; /* the kernel has its own bounds */
        }
        g_autofree char *name = g_strconcat("cputune.", row->name, NULL);
        if (row->kind == QUOTA) {
            params_llong(told, name, v);
        } else {
            params_ullong(told, name, (uint64_t)v);
        }
    }
    ok = ok && (!parts || tune_bandwidth(m, error));
    if (ok) {
        machine_save(m);
    } else {
        g_array_set_size(told, 0);
    }
    tune_event(m->domain, told);
    return ok;
}

static bool set_scheduler(const rpc_domain *named, const rpc_param *params, unsigned n,
                          unsigned flags, GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    if (!d || !domain_affect(d, &flags, error)) {
        return false;
    }
    g_autoptr(DomainDef) def = flags & AFFECT_CONFIG ? domain_config(d, error) : NULL;
    if ((flags & AFFECT_CONFIG) && (!def || !scheduler_change(def, params, n, error))) {
        return false;
    }
    if (flags & AFFECT_LIVE) {
        g_autoptr(Machine) m = machine_of(d, error);
        if (m && !cgroup_has(m->group, GROUP_CPU)) {
            libvirt_error(error, ERR_OPERATION_INVALID, "cgroup CPU controller is not mounted");
            return false;
        }
        g_autoptr(DomainDef) before = m ? domain_def_copy(m->def) : NULL;
        if (!m || !scheduler_change(m->def, params, n, error) ||
            !scheduler_apply(m, params, n, error)) {
            for (unsigned i = 0; before && i < G_N_ELEMENTS(scheduler); i++) {
                if (scheduler[i].offset >= 0) {
                    *field_of(m->def, &scheduler[i]) = *field_of(before, &scheduler[i]);
                }
            }
            return false;
        }
    }
    return !def || domain_save_config(d, def, error);
}

bool verb_domain_set_scheduler_parameters(struct call *call, const rpc_domain_params *args,
                                          rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    return set_scheduler(&args->dom, args->params.params_val, args->params.params_len, 0, error);
}

bool verb_domain_set_scheduler_parameters_flags(struct call *call,
                                                const rpc_domain_params_flags *args, rpc_none *ret,
                                                GError **error)
{
    (void)call, (void)ret;
    return set_scheduler(&args->dom, args->params.params_val, args->params.params_len,
                         args->flags & 3, error);
}

/* --- what was used --- */

enum { TOTALS = 3, PER_CPU = 2 };

static bool cpu_totals(struct machine *m, rpc_params_count *ret)
{
    uint64_t total = 0, user = 0, kernel = 0;
    if (!cgroup_cpu_time(m->group, &total, &user, &kernel)) {
        total = machine_cpu_times(m, &user, &kernel);
    }
    Params *p = params_new();
    params_ullong(p, "cpu_time", total);
    params_ullong(p, "user_time", user);
    params_ullong(p, "system_time", kernel);
    ret->params.params_val = params_finish(p, &ret->params.params_len);
    ret->count = TOTALS;
    return true;
}

bool verb_domain_get_cpu_stats(struct call *call, const rpc_cpu_stats_args *args,
                               rpc_params_count *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    unsigned n = 0;
    if (!m) {
        return false;
    }
    if (args->start == -1) {
        ret->count = TOTALS;
        return args->params == 0 || cpu_totals(m, ret);
    }
    g_autofree uint64_t *all = cgroup_cpu_times(m->group, NULL, &n);
    if (!all) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "times by processor need the cpuacct controller of cgroup version 1");
        return false;
    }
    if (args->cpus == 0 || args->params == 0) {
        ret->count = args->cpus == 0 ? (int)n : PER_CPU;
        return true;
    }
    if (args->start < 0 || (unsigned)args->start >= n) {
        libvirt_error(error, ERR_INVALID_ARG, "start_cpu %d larger than maximum of %u", args->start,
                      n - 1);
        return false;
    }
    g_autofree uint64_t *vcpus = g_new0(uint64_t, n);
    for (unsigned v = 0; v < (unsigned)m->def->vcpus; v++) {
        char part[24];
        unsigned k = 0;
        g_snprintf(part, sizeof(part), "vcpu%u", v);
        g_autofree uint64_t *own = cgroup_cpu_times(m->group, part, &k);
        for (unsigned i = 0; own && i < MIN(n, k); i++) {
            vcpus[i] += own[i];
        }
    }
    Params *p = params_new();
    for (unsigned i = (unsigned)args->start; i < n && i - (unsigned)args->start < args->cpus; i++) {
        params_ullong(p, "cpu_time", all[i]);
        params_ullong(p, "vcpu_time", vcpus[i]);
    }
    ret->params.params_val = params_finish(p, &ret->params.params_len);
    ret->count = PER_CPU;
    return true;
}
