/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The threads of a domain: on which processors of the host they run, and what they used of them. */
#include "manage/cli/object.h"
#include "manage/error.h"
#include "manage/model/cpuset.h"

#include <inttypes.h>
#include <string.h>

/* --- where they run --- */

typedef struct pinning {
    rpc_domain dom;
    unsigned cpus; /* of the host */
    bool given;    /* there is a list */
    struct cpuset set;
} pinning;

static void pinning_clear(struct pinning *p)
{
    rpc_domain_clear(&p->dom);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(pinning, pinning_clear)

static bool host_cpus(Rpc *rpc, unsigned *n, GError **error)
{
    rpc_none none = {0};
    rpc_node_info node;
    if (!ask_node_get_info(rpc, &none, &node, error)) {
        return false;
    }
    *n = (unsigned)CLAMP(node.cpus, 1, CPUSET_BITS);
    return true;
}

static bool parse_list(struct shell *sh, const char *text, unsigned cpus, struct cpuset *set,
                       GError **error)
{
    if (strcmp(text, "r") == 0) {
        cpuset_all(set, cpus);
        return true;
    }
    shell_failing(sh, "Invalid cpulist '%s'", text);
    bool ok = cpuset_parse(text, set, error);
    if (ok) {
        shell_failing(sh, "%s", "");
    }
    return ok;
}

static char *list_at(const char *maps, unsigned length, size_t at, unsigned bytes)
{
    struct cpuset set = {0};
    if (at + bytes <= length) {
        memcpy(set.bytes, maps + at, MIN(bytes, CPUSET_BYTES));
    }
    return cpuset_format(&set);
}

/* What all of these verbs are told: a domain and perhaps a list. */
static bool read_pinning(struct shell *sh, const struct args *a, struct pinning *p, GError **error)
{
    const char *list = args_text(a, "cpulist");
    p->given = list != NULL;
    return shell_domain(sh, args_text(a, "domain"), &p->dom, error) &&
           host_cpus(shell_rpc(sh, NULL), &p->cpus, error) &&
           (!list || parse_list(sh, list, p->cpus, &p->set, error));
}

static bool show_pins(struct shell *sh, const struct args *a, const struct pinning *p,
                      GError **error)
{
    static const char *const headers[] = {"VCPU", "CPU Affinity", NULL};
    enum { MAXIMUM = 4 };
    g_auto(rpc_cpu_maps) maps = {0};
    uint64_t one = UINT64_MAX;
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_domain_flags count = {p->dom, affect_of(a) | MAXIMUM};
    rpc_int vcpus;
    args_number(a, "vcpu", &one);
    if (!ask_domain_get_vcpus_flags(rpc, &count, &vcpus, error)) {
        return false;
    }
    if (one != UINT64_MAX && one >= (uint64_t)vcpus.value) {
        bool live = p->dom.id != -1 && !(affect_of(a) & AFFECT_CONFIG);
        return shell_fail(error, "vcpu %" PRIu64 " is out of range of %s cpu count %d", one,
                          live ? "live" : "persistent", vcpus.value);
    }
    unsigned bytes = (p->cpus + 7) / 8;
    rpc_vcpu_pins_args args = {p->dom, vcpus.value, (int)bytes, affect_of(a)};
    if (!ask_domain_get_vcpu_pin_info(rpc, &args, &maps, error)) {
        return false;
    }
    out_table(sh, headers);
    for (int i = 0; i < maps.count; i++) {
        if (one == UINT64_MAX || one == (uint64_t)i) {
            g_autofree char *number = g_strdup_printf("%d", i);
            g_autofree char *list = list_at(maps.maps.maps_val, maps.maps.maps_len,
                                            (size_t)i * bytes, bytes);
            out_row(sh, number, list, NULL);
        }
    }
    out_table_end(sh);
    return true;
}

static bool pin(struct shell *sh, const struct args *a, struct pinning *p, uint64_t number,
                bool (*ask)(Rpc *rpc, const rpc_pin_vcpu_flags *args, rpc_none *ret, GError **error),
                GError **error)
{
    rpc_pin_vcpu_flags args = {.dom = p->dom, .vcpu = (unsigned)number, .flags = affect_of(a)};
    rpc_none none;
    args.map.map_val = (char *)p->set.bytes;
    args.map.map_len = (p->cpus + 7) / 8;
    return ask(shell_rpc(sh, NULL), &args, &none, error);
}

static bool run_vcpupin(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(pinning) p = {0};
    uint64_t vcpu = 0;
    bool one = args_number(a, "vcpu", &vcpu);
    if (args_text(a, "cpulist") && !one) {
        return shell_fail(error, "vcpupin: Missing vCPU number in pin mode.");
    }
    return read_pinning(sh, a, &p, error) &&
           (p.given ? pin(sh, a, &p, vcpu, ask_domain_pin_vcpu_flags, error)
                    : show_pins(sh, a, &p, error));
}

static bool run_emulatorpin(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(pinning) p = {0};
    g_auto(rpc_cpu_maps) maps = {0};
    if (!read_pinning(sh, a, &p, error)) {
        return false;
    }
    unsigned bytes = (p.cpus + 7) / 8;
    if (p.given) {
        rpc_pin_emulator_args args = {.dom = p.dom, .flags = affect_of(a)};
        rpc_none none;
        args.map.map_val = (char *)p.set.bytes;
        args.map.map_len = bytes;
        return ask_domain_pin_emulator(shell_rpc(sh, NULL), &args, &none, error);
    }
    rpc_domain_int_flags args = {p.dom, (int)bytes, affect_of(a)};
    if (!ask_domain_get_emulator_pin_info(shell_rpc(sh, NULL), &args, &maps, error)) {
        return false;
    }
    g_autofree char *text = list_at(maps.maps.maps_val, maps.maps.maps_len, 0, bytes);
    out_note(sh, "emulator: CPU Affinity");
    out_note(sh, "----------------------------------");
    out_text(sh, "affinity", "       *: %s\n", text);
    return true;
}

/* --- threads for disks --- */

static bool run_iothreadinfo(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const headers[] = {"IOThread ID", "CPU Affinity", NULL};
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_iothreads) got = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_flags args = {dom, affect_of(a)};
    if (!ask_domain_get_iothread_info(shell_rpc(sh, NULL), &args, &got, error)) {
        shell_failing(sh, "Unable to get domain IOThreads information");
        return false;
    }
    if (!got.items.items_len) {
        out_note(sh, "No IOThreads found for the domain");
        return true;
    }
    out_table(sh, headers);
    for (unsigned i = 0; i < got.items.items_len; i++) {
        const rpc_iothread *t = &got.items.items_val[i];
        g_autofree char *number = g_strdup_printf("%u", t->id);
        g_autofree char *list = list_at(t->map.map_val, t->map.map_len, 0, t->map.map_len);
        out_row(sh, number, list, NULL);
    }
    out_table_end(sh);
    return true;
}

static bool run_iothreadpin(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(pinning) p = {0};
    uint64_t number = 0;
    args_number(a, "iothread", &number);
    return read_pinning(sh, a, &p, error) &&
           pin(sh, a, &p, number, ask_domain_pin_iothread, error);
}

static bool add_or_del(struct shell *sh, const struct args *a,
                       bool (*ask)(Rpc *rpc, const rpc_domain_uint_flags *args, rpc_none *ret,
                                   GError **error),
                       GError **error)
{
    g_auto(rpc_domain) dom = {0};
    uint64_t number = 0;
    rpc_none none;
    if (!args_number(a, "id", &number) || number == 0 || number > INT32_MAX) {
        return shell_fail(error, "Invalid IOThread id value: '%" PRIu64 "'", number);
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_uint_flags args = {dom, (unsigned)number, affect_of(a)};
    return ask(shell_rpc(sh, NULL), &args, &none, error);
}

static bool run_iothreadadd(struct shell *sh, const struct args *a, GError **error)
{
    return add_or_del(sh, a, ask_domain_add_iothread, error);
}

static bool run_iothreaddel(struct shell *sh, const struct args *a, GError **error)
{
    return add_or_del(sh, a, ask_domain_del_iothread, error);
}

/* --- what they used --- */

static void cpu_time(struct shell *sh, const rpc_param *p)
{
    uint64_t ns = p->value.rpc_value_u.ul;
    g_autofree char *value = g_strdup_printf("%9" PRIu64 ".%09" PRIu64 " seconds",
                                             ns / 1000000000, ns % 1000000000);
    g_autofree char *label = g_strdup_printf("\t%-12s", p->field);
    out_field_wide(sh, 0, label, " %s", value);
}

static bool run_cpu_stats(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_params_count) each = {0}, total = {0};
    bool want_total = args_flag(a, "total");
    uint64_t start = 0, count = UINT64_MAX;
    bool some = args_number(a, "start", &start);
    some |= args_number(a, "count", &count);
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_cpu_stats_args args = {.dom = dom};
    if (some || !want_total) {
        g_auto(rpc_params_count) cpus = {0};
        if (!ask_domain_get_cpu_stats(rpc, &args, &cpus, error)) {
            shell_failing(sh, "Failed to retrieve CPU statistics for domain '%s'", dom.name);
            return false;
        }
        args.params = 2;
        args.start = (int)MIN(start, INT32_MAX);
        args.cpus = (unsigned)MIN(count, (uint64_t)cpus.count);
        if (!ask_domain_get_cpu_stats(rpc, &args, &each, error)) {
            return false;
        }
        for (unsigned i = 0; i < each.params.params_len; i++) {
            if (each.count > 0 && i % (unsigned)each.count == 0) {
                out_line(sh, "CPU%u:", (unsigned)args.start + i / (unsigned)each.count);
            }
            cpu_time(sh, &each.params.params_val[i]);
        }
    }
    if (want_total || !some) {
        args.params = 3;
        args.start = -1;
        args.cpus = 1;
        if (!ask_domain_get_cpu_stats(rpc, &args, &total, error)) {
            return false;
        }
        out_line(sh, "Total:");
        for (unsigned i = 0; i < total.params.params_len; i++) {
            cpu_time(sh, &total.params.params_val[i]);
        }
    }
    return true;
}

#define NAMED        DOMAIN_OPTION(COMPLETE_DOMAIN)
#define NAMED_ACTIVE DOMAIN_OPTION(COMPLETE_DOMAIN_ACTIVE)
#define IOTHREAD(name) {name, OPT_NUMBER, OPT_NEEDED, "number of the thread"}

const struct verb_group verb_group_threads = {"Threads of Domains", "threads", (const struct verb_row[]){
    {"cpu-stats", (const struct option_row[]){NAMED_ACTIVE,
        {"total", OPT_BOOL, 0, "only the sums"},
        {"start", OPT_NUMBER, OPT_NAMED, "from this processor on"},
        {"count", OPT_NUMBER, OPT_NAMED, "so many processors"}, {NULL}},
     "tells what a domain used of the host's processors", run_cpu_stats},
    {"emulatorpin", (const struct option_row[]){NAMED,
        {"cpulist", OPT_TEXT, OPT_EMPTY_OK, "0-3,^2 or r"}, AFFECT_OPTIONS, {NULL}},
     "shows or sets where a domain's own threads run", run_emulatorpin},
    {"iothreadadd", (const struct option_row[]){NAMED, IOTHREAD("id"), AFFECT_OPTIONS, {NULL}},
     "gives a domain a thread for disks", run_iothreadadd},
    {"iothreaddel", (const struct option_row[]){NAMED, IOTHREAD("id"), AFFECT_OPTIONS, {NULL}},
     "takes a thread for disks away", run_iothreaddel},
    {"iothreadinfo", (const struct option_row[]){NAMED, AFFECT_OPTIONS, {NULL}},
     "lists a domain's threads for disks", run_iothreadinfo},
    {"iothreadpin", (const struct option_row[]){NAMED, IOTHREAD("iothread"),
        {"cpulist", OPT_TEXT, OPT_NEEDED, "0-3,^2 or r"}, AFFECT_OPTIONS, {NULL}},
     "sets where a thread for disks runs", run_iothreadpin},
    {"vcpupin", (const struct option_row[]){NAMED,
        {"vcpu", OPT_NUMBER, 0, "its number"},
        {"cpulist", OPT_TEXT, OPT_EMPTY_OK, "0-3,^2 or r"}, AFFECT_OPTIONS, {NULL}},
     "shows or sets where a domain's vCPUs run", run_vcpupin},
    {NULL},
}};
