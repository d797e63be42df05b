/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Figures of machines: disks, interfaces, memory, processors, all of them at once. */
#include "base/util.h"
#include "host/image/chain.h"
#include "manage/daemon/balloon.h"
#include "manage/daemon/files.h"
#include "manage/daemon/machine.h"
#include "manage/daemon/params.h"
#include "manage/daemon/storage_kind.h"
#include "manage/daemon/tune.h"
#include "manage/model/iothreads.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- disks --- */

static int64_t number(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

/* The entry of @disk in an answer of query-blockstats. */
static const json_t *entry_of(const json_t *all, const struct domain_disk *disk)
{
    size_t i;
    json_t *one;
    json_array_foreach(all, i, one)
    {
        const char *path = json_string_value(json_object_get(one, "qdev"));
        const char *base = path ? strrchr(path, '/') : NULL;
        if (path && (strcmp(path, disk->alias) == 0 ||
                     (base && strcmp(base + 1, disk->alias) == 0) || strstr(path, disk->alias))) {
            return json_object_get(one, "stats");
        }
    }
    return NULL;
}

static struct domain_disk *need_disk(const DomainDef *def, const char *name, GError **error)
{
    struct domain_disk *disk = domain_find_disk(def, name);
    if (!disk) {
        libvirt_error(error, ERR_INVALID_ARG, "invalid path: %s", name);
    }
    return disk;
}

bool verb_domain_block_stats(struct call *call, const rpc_domain_text *args, rpc_block_stats *ret,
                             GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    g_autoptr(json_t) all =
        m ? qmp_run(m->qmp, "query-blockstats", NULL, QMP_TIMEOUT_MS, error) : NULL;
    struct domain_disk *disk = all && *args->text ? need_disk(m->def, args->text, error) : NULL;
    if (!all || (*args->text && !disk)) {
        return false;
    }
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        struct domain_disk *each = m->def->disks->pdata[i];
        const json_t *s = !disk || each == disk ? entry_of(all, each) : NULL;
        ret->rd_req += number(s, "rd_operations");
        ret->rd_bytes += number(s, "rd_bytes");
        ret->wr_req += number(s, "wr_operations");
        ret->wr_bytes += number(s, "wr_bytes");
    }
    ret->errs = -1;
    return true;
}

static const struct {
    const char *name, *qmp;
} block_fields[] = {
    {"rd_operations", "rd_operations"},
    {"rd_bytes", "rd_bytes"},
    {"rd_total_times", "rd_total_time_ns"},
    {"wr_operations", "wr_operations"},
    {"wr_bytes", "wr_bytes"},
    {"wr_total_times", "wr_total_time_ns"},
    {"flush_operations", "flush_operations"},
    {"flush_total_times", "flush_total_time_ns"},
};

bool verb_domain_block_stats_flags(struct call *call, const rpc_domain_of_int_flags *args,
                                   rpc_params_count *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    if (args->max == 0) {
        ret->count = G_N_ELEMENTS(block_fields);
        return true;
    }
    g_autoptr(json_t) all = qmp_run(m->qmp, "query-blockstats", NULL, QMP_TIMEOUT_MS, error);
    struct domain_disk *disk = all && *args->of ? need_disk(m->def, args->of, error) : NULL;
    if (!all || (*args->of && !disk)) {
        return false;
    }
    Params *p = params_new();
    for (unsigned f = 0; f < G_N_ELEMENTS(block_fields) && p->len < (unsigned)args->max; f++) {
        int64_t sum = 0;
        for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
            struct domain_disk *each = m->def->disks->pdata[i];
            sum += !disk || each == disk ? number(entry_of(all, each), block_fields[f].qmp) : 0;
        }
        params_llong(p, block_fields[f].name, sum);
    }
    ret->params.params_len = p->len;
    ret->params.params_val = (rpc_param *)(void *)g_array_free(p, FALSE);
    return true;
}

/* --- interfaces: the host's counters of the tap, seen from the guest --- */

static int64_t net_counter(const char *device, const char *name)
{
    g_autofree char *path = g_strdup_printf("/sys/class/net/%s/statistics/%s", device, name);
    g_autofree char *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) ? g_ascii_strtoll(text, NULL, 10) : 0;
}

bool verb_domain_interface_stats(struct call *call, const rpc_domain_text *args,
                                 rpc_interface_stats *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    struct domain_interface *nic = domain_find_interface(m->def, args->text);
    if (!nic) {
        libvirt_error(error, ERR_INVALID_ARG, "invalid path, '%s' is not a known interface",
                      args->text);
        return false;
    }
    if (!nic->target) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "a user-mode interface has no counters");
        return false;
    }
    ret->rx_bytes = net_counter(nic->target, "tx_bytes");
    ret->rx_packets = net_counter(nic->target, "tx_packets");
    ret->rx_errs = net_counter(nic->target, "tx_errors");
    ret->rx_drop = net_counter(nic->target, "tx_dropped");
    ret->tx_bytes = net_counter(nic->target, "rx_bytes");
    ret->tx_packets = net_counter(nic->target, "rx_packets");
    ret->tx_errs = net_counter(nic->target, "rx_errors");
    ret->tx_drop = net_counter(nic->target, "rx_dropped");
    return true;
}

/* --- memory --- */

enum { MEMORY_ACTUAL = 6, MEMORY_RSS = 7 };

static uint64_t rss_kib(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/statm", pid), *text = NULL;
    unsigned long long size, resident = 0;
    if (!g_file_get_contents(path, &text, NULL, NULL) ||
        sscanf(text, "%llu %llu", &size, &resident) != 2) {
        return 0;
    }
    return resident * (unsigned)(sysconf(_SC_PAGESIZE) / 1024);
}

bool verb_domain_memory_stats(struct call *call, const rpc_domain_uint_flags *args,
                              rpc_memory_stats *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    if (!m) {
        return false;
    }
    struct balloon_figure figures[BALLOON_FIGURES];
    unsigned told = balloon_figures(m, QMP_TIMEOUT_MS, figures);
    rpc_memory_stat stats[BALLOON_FIGURES + 2] = {
        {.tag = MEMORY_ACTUAL, .value = (uint64_t)m->def->current_memory},
    };
    unsigned n = 1;
    for (unsigned i = 0; i < told; i++) {
        stats[n++] = (rpc_memory_stat){.tag = figures[i].tag, .value = figures[i].value};
    }
    stats[n++] = (rpc_memory_stat){.tag = MEMORY_RSS, .value = rss_kib(m->pid)};
    n = MIN(args->value, n);
    ret->stats.stats_len = n;
    ret->stats.stats_val = g_memdup2(stats, n * sizeof(stats[0]));
    return true;
}

/* --- block info --- */

/* What the guest sees of @disk, by query-named-block-nodes' answer; false: it is not there. */
static bool capacity_of(const json_t *nodes, const struct domain_disk *disk, uint64_t *bytes)
{
    g_autofree char *node = disk_node_name(disk);
    size_t i;
    json_t *one;
    json_array_foreach(nodes, i, one)
    {
        if (g_strcmp0(json_string_value(json_object_get(one, "node-name")), node) == 0) {
            *bytes = (uint64_t)number(json_object_get(one, "image"), "virtual-size");
            return true;
        }
    }
    return false;
}

/* The same of a file that no machine has open: what its own bytes say. */
struct size_ask {
    char *path, *format;
    uint64_t capacity, physical;
    GError *error;
};

static void size_ask_free(void *data)
{
    struct size_ask *f = data;
    g_clear_error(&f->error);
    g_free(f->path);
    g_free(f->format);
    g_free(f);
}

static void size_ask(void *data)
{
    struct size_ask *f = data;
    const struct chain_open how = {.name = f->path,
                                   .format = f->format,
                                   .flags = OPEN_READ_ONLY | OPEN_NO_IO | OPEN_UNTRUSTED |
                                            OPEN_NO_BACKING | OPEN_SHARE | OPEN_NO_LOCK};
    autofd int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1; /* of a device, too */
    struct node *node = chain_open(&how, &f->error);
    if (node) {
        f->physical = end >= 0 ? (uint64_t)end : node->size;
        f->capacity = node->size;
        chain_close(node);
    }
}

static bool look_at_file(const struct domain_disk *disk, const char *path, rpc_block_info *ret,
                         GError **error)
{
    struct size_ask *f = g_new0(struct size_ask, 1);
    f->path = g_strdup(path);
    f->format = g_strdup(image_format_of(disk->format ? disk->format : "raw"));
    if (!file_act(path, size_ask, f, size_ask_free, error)) {
        return false;
    }
    bool ok = !f->error;
    if (ok) {
        ret->capacity = f->capacity;
        ret->physical = f->physical;
    } else {
        libvirt_error(error, ERR_INTERNAL, "%s", f->error->message);
    }
    size_ask_free(f);
    return ok;
}

bool verb_domain_get_block_info(struct call *call, const rpc_domain_text_flags *args,
                                rpc_block_info *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(DomainDef) def = d ? domain_def_of(d, true, error) : NULL;
    struct domain_disk *disk = def ? need_disk(def, args->text, error) : NULL;
    const char *path = disk ? disk_path(disk) : NULL;
    struct stat st;
    if (!disk || (path && !file_answers(path, &st, error))) {
        return false;
    }
    if (!path || !st.st_mode) {
        libvirt_error(error, ERR_OPERATION_FAILED, "disk '%s' does not currently have a source",
                      args->text);
        return false;
    }
    ret->allocation = (uint64_t)st.st_blocks * 512;
    ret->physical = ret->capacity = (uint64_t)st.st_size;
    if (domain_active(d)) {
        g_autoptr(Machine) m = machine_of(d, error);
        g_autoptr(json_t) all =
            qmp_run(m->qmp, "query-named-block-nodes", NULL, QMP_TIMEOUT_MS, error);
        capacity_of(all, disk, &ret->capacity);
        return all != NULL;
    }
    return look_at_file(disk, path, ret, error);
}

/* --- everything at once --- */

enum {
    STATS_STATE = 1,
    STATS_CPU = 2,
    STATS_BALLOON = 4,
    STATS_VCPU = 8,
    STATS_INTERFACE = 16,
    STATS_BLOCK = 32,
    STATS_IOTHREAD = 128,
    STATS_ALL = 63 | STATS_IOTHREAD,
};
enum { STATS_NOWAIT = 1 << 29 };
#define STATS_ENFORCE (1u << 31)
enum { STATS_SECONDS = 2 }; /* a machine that hangs gives what is known without it */

static void put_interfaces(Params *p, const struct machine *m)
{
    static const struct {
        const char *name, *file;
    } fields[] = {{"rx.bytes", "tx_bytes"},  {"rx.pkts", "tx_packets"}, {"rx.errs", "tx_errors"},
                  {"rx.drop", "tx_dropped"}, {"tx.bytes", "rx_bytes"},  {"tx.pkts", "rx_packets"},
                  {"tx.errs", "rx_errors"},  {"tx.drop", "rx_dropped"}};
    char name[64];
    params_uint(p, "net.count", xml_count(m->def->interfaces));
    for (unsigned i = 0; i < xml_count(m->def->interfaces); i++) {
        const struct domain_interface *nic = m->def->interfaces->pdata[i];
        if (!nic->target) {
            continue;
        }
        g_snprintf(name, sizeof(name), "net.%u.name", i);
        params_text(p, name, nic->target);
        for (unsigned k = 0; k < G_N_ELEMENTS(fields); k++) {
            g_snprintf(name, sizeof(name), "net.%u.%s", i, fields[k].name);
            params_ullong(p, name, (uint64_t)net_counter(nic->target, fields[k].file));
        }
    }
}

/* What is known of the files of disks, by path; none if one does not answer.  Gives up the lock. */
static GHashTable *look_at_files(const DomainDef *def)
{
    GHashTable *files = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const char *path = disk_path(def->disks->pdata[i]);
        if (path) {
            g_ptr_array_add(paths, g_strdup(path));
        }
    }
    g_ptr_array_add(paths, NULL);
    g_autofree struct stat *found = g_new(struct stat, paths->len);
    if (files_answer((const char *const *)paths->pdata, found, STATS_SECONDS, NULL)) {
        for (unsigned i = 0; i + 1 < paths->len; i++) {
            g_hash_table_insert(files, g_strdup(paths->pdata[i]),
                                g_memdup2(&found[i], sizeof(found[i])));
        }
    }
    return files;
}

/* What the machine and the disks have said, where they did in time. */
struct asked {
    const json_t *blocks, *nodes;
    GHashTable *files;
    const GArray *threads;
    struct balloon_figure figures[BALLOON_FIGURES];
    unsigned figures_told;
};

static void put_blocks(Params *p, const DomainDef *def, const struct asked *asked)
{
    static const struct {
        const char *name, *qmp;
    } fields[] = {{"rd.reqs", "rd_operations"},     {"rd.bytes", "rd_bytes"},
                  {"rd.times", "rd_total_time_ns"}, {"wr.reqs", "wr_operations"},
                  {"wr.bytes", "wr_bytes"},         {"wr.times", "wr_total_time_ns"},
                  {"fl.reqs", "flush_operations"},  {"fl.times", "flush_total_time_ns"}};
    char name[64];
    params_uint(p, "block.count", xml_count(def->disks));
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        const json_t *s = asked->blocks && disk->alias ? entry_of(asked->blocks, disk) : NULL;
        g_snprintf(name, sizeof(name), "block.%u.name", i);
        params_text(p, name, disk->target);
        if (disk_path(disk)) {
            g_snprintf(name, sizeof(name), "block.%u.path", i);
            params_text(p, name, disk_path(disk));
        }
        for (unsigned k = 0; s && k < G_N_ELEMENTS(fields); k++) {
            g_snprintf(name, sizeof(name), "block.%u.%s", i, fields[k].name);
            params_ullong(p, name, (uint64_t)number(s, fields[k].qmp));
        }
        const struct stat *st = asked->files && disk_path(disk)
                                    ? g_hash_table_lookup(asked->files, disk_path(disk))
                                    : NULL;
        uint64_t capacity;
        if (st && st->st_mode) {
            g_snprintf(name, sizeof(name), "block.%u.allocation", i);
            params_ullong(p, name, (uint64_t)st->st_blocks * 512);
        }
        if (disk->alias && capacity_of(asked->nodes, disk, &capacity)) {
            g_snprintf(name, sizeof(name), "block.%u.capacity", i);
            params_ullong(p, name, capacity);
        }
        if (st && st->st_mode) {
            g_snprintf(name, sizeof(name), "block.%u.physical", i);
            params_ullong(p, name, (uint64_t)st->st_size);
        }
    }
}

/* Time that a thread was ready and had no processor: second number of its schedstat, ns. */
static uint64_t thread_wait(const struct machine *m, pid_t thread)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/schedstat", m->pid, thread);
    g_autofree char *text = NULL;
    unsigned long long ran, waited = 0;
    return g_file_get_contents(path, &text, NULL, NULL) &&
                   sscanf(text, "%llu %llu", &ran, &waited) == 2
               ? waited
               : 0;
}

static void put_vcpus(Params *p, struct machine *m, const GArray *threads)
{
    char name[64];
    for (unsigned i = 0; i < threads->len; i++) {
        pid_t thread = g_array_index(threads, pid_t, i);
        uint64_t ns;
        int cpu;
        if (!thread || !tune_thread_time(m, thread, &ns, &cpu)) {
            continue;
        }
        g_snprintf(name, sizeof(name), "vcpu.%u.state", i);
        params_int(p, name, 1); /* running */
        g_snprintf(name, sizeof(name), "vcpu.%u.time", i);
        params_ullong(p, name, ns);
        g_snprintf(name, sizeof(name), "vcpu.%u.wait", i);
        params_ullong(p, name, 0); /* for I/O: a vCPU does none */
        g_snprintf(name, sizeof(name), "vcpu.%u.delay", i);
        params_ullong(p, name, thread_wait(m, thread));
    }
}

static void put_all(Params *p, Domain *d, unsigned what, const struct asked *asked)
{
    struct machine *m = domain_active(d) ? d->machine : NULL;
    if (what & STATS_STATE) {
        params_int(p, "state.state", d->state);
        params_int(p, "state.reason", d->reason);
    }
    if ((what & STATS_CPU) && m) {
        uint64_t user = 0, kernel = 0;
        params_ullong(p, "cpu.time", machine_cpu_times(m, &user, &kernel));
        params_ullong(p, "cpu.user", user);
        params_ullong(p, "cpu.system", kernel);
    }
    if (what & STATS_BALLOON) {
        params_ullong(p, "balloon.current", (uint64_t)(m ? m->def->current_memory : d->memory));
        params_ullong(p, "balloon.maximum", (uint64_t)(m ? m->def->memory : d->max_memory));
        for (unsigned i = 0; m && i < asked->figures_told; i++) {
            g_autofree char *name = g_strconcat("balloon.", asked->figures[i].stat, NULL);
            params_ullong(p, name, asked->figures[i].value);
        }
        if (m) {
            params_ullong(p, "balloon.rss", rss_kib(m->pid));
        }
    }
    if (what & STATS_VCPU) {
        unsigned now = !m                                    ? d->vcpus
                       : m->def->current_vcpus == XML_ABSENT ? (unsigned)m->def->vcpus
                                                             : (unsigned)m->def->current_vcpus;
        params_uint(p, "vcpu.current", now);
        params_uint(p, "vcpu.maximum", m ? (unsigned)m->def->vcpus : d->vcpus);
        if (m && asked->threads) {
            put_vcpus(p, m, asked->threads);
        }
    }
    if ((what & STATS_IOTHREAD) && m) {
        g_autoptr(GArray) ids = domain_iothreads(m->def);
        params_uint(p, "iothread.count", ids->len);
    }
    if ((what & STATS_INTERFACE) && m) {
        put_interfaces(p, m);
    }
    if ((what & STATS_BLOCK) && m) {
        put_blocks(p, m->def, asked);
    }
}

struct gather {
    GPtrArray *domains;
    unsigned flags;
};

static void gather_one(Domain *d, void *data)
{
    struct gather *g = data;
    if (domain_matches(d, g->flags)) {
        g_ptr_array_add(g->domains, domain_ref(d));
    }
}

bool verb_connect_get_all_domain_stats(struct call *call, const rpc_stats_args *args,
                                       rpc_all_stats *ret, GError **error)
{
    (void)call;
    struct gather g = {.domains = g_ptr_array_new_with_free_func((GDestroyNotify)domain_unref),
                       .flags = args->flags};
    g_autoptr(GPtrArray) domains = g.domains;
    for (unsigned i = 0; i < args->doms.doms_len; i++) {
        Domain *d = domain_get(&args->doms.doms_val[i], error);
        if (!d) {
            return false;
        }
        g_ptr_array_add(domains, d);
    }
    if (!args->doms.doms_len) {
        domain_each(gather_one, &g);
    }
    unsigned what = args->stats ? args->stats : UINT_MAX;
    if ((args->stats & ~(unsigned)STATS_ALL) && (args->flags & STATS_ENFORCE)) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED,
                      "Stats types bits 0x%x are not supported by this daemon",
                      args->stats & ~(unsigned)STATS_ALL);
        return false;
    }
    GArray *out = g_array_new(FALSE, TRUE, sizeof(rpc_domain_stats));
    for (unsigned i = 0; i < domains->len; i++) {
        Domain *d = domains->pdata[i];
        g_autoptr(json_t) blocks = NULL, nodes = NULL;
        g_autoptr(GHashTable) files = NULL;
        if ((what & STATS_BLOCK) && domain_active(d) && d->machine->def->disks &&
            !(d->job && (args->flags & STATS_NOWAIT))) {
            g_autoptr(Machine) m = machine_ref(d->machine);
            blocks = qmp_run(m->qmp, "query-blockstats", NULL, STATS_SECONDS * 1000, NULL);
            nodes = blocks ? qmp_run(m->qmp, "query-named-block-nodes", NULL, STATS_SECONDS * 1000,
                                     NULL)
                           : NULL;
            files = look_at_files(m->def);
        }
        g_autoptr(GArray) threads = NULL;
        bool sick = (what & STATS_BLOCK) && domain_active(d) && d->machine->def->disks && !blocks;
        if ((what & STATS_VCPU) && domain_active(d) && !sick &&
            !(d->job && (args->flags & STATS_NOWAIT))) {
            g_autoptr(Machine) m = machine_ref(d->machine);
            threads = tune_vcpu_threads(m, STATS_SECONDS * 1000, NULL);
        }
        struct asked asked = {blocks, nodes, files, threads, {{0}}, 0};
        if ((what & STATS_BALLOON) && domain_active(d) && !sick &&
            (threads || !(what & STATS_VCPU)) && !(d->job && (args->flags & STATS_NOWAIT))) {
            g_autoptr(Machine) m = machine_ref(d->machine);
            asked.figures_told = balloon_figures(m, STATS_SECONDS * 1000, asked.figures);
        }
        Params *p = params_new();
        put_all(p, d, what, &asked);
        rpc_domain_stats one = {.dom = domain_rpc(d), .params.params_len = p->len};
        one.params.params_val = (rpc_param *)(void *)g_array_free(p, FALSE);
        g_array_append_val(out, one);
    }
    ret->items.items_len = out->len;
    ret->items.items_val = (rpc_domain_stats *)(void *)g_array_free(out, FALSE);
    return true;
}
