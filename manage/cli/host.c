/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"

#include <inttypes.h>
#include <string.h>

static const rpc_none nothing;

/* Verbs that print one text: .data is the procedure. */
struct text_call {
    int procedure;
    const char *key, *format;
};

static bool run_text(struct shell *sh, const struct args *a, GError **error)
{
    const struct text_call *t = shell_data(sh);
    g_auto(rpc_text) text = {0};
    Rpc *rpc = shell_rpc(sh, error);
    bool sysinfo = t->procedure == PROC_connect_get_sysinfo;
    rpc_flags flags = {0};
    (void)a;
    if (!rpc || !rpc_ask(rpc, PROGRAM_REMOTE, t->procedure,
                         sysinfo ? (xdrproc_t)xdr_rpc_flags : (xdrproc_t)xdr_rpc_none,
                         sysinfo ? (const void *)&flags : (const void *)&nothing,
                         (xdrproc_t)xdr_rpc_text, &text, sizeof(text), error)) {
        shell_failing(sh, "failed to get %s", t->key);
        return false;
    }
    out_text(sh, t->key, strcmp(t->format, "line") == 0 ? "%s\n" : "%s", text.text);
    return true;
}

static void version_field(struct shell *sh, const char *label, const char *name, uint64_t v)
{
    enum { MAJOR = 1000000, MINOR = 1000 };
    out_field_wide(sh, 0, label, "%s %" PRIu64 ".%" PRIu64 ".%" PRIu64, name, v / MAJOR,
                   v / MINOR % MINOR, v % MINOR);
}

static bool run_version(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_text) type = {0};
    rpc_uhyper library, hypervisor;
    Rpc *rpc = shell_rpc(sh, error);
    (void)a;
    if (!rpc || !ask_connect_get_type(rpc, &nothing, &type, error) ||
        !ask_connect_get_lib_version(rpc, &nothing, &library, error) ||
        !ask_connect_get_version(rpc, &nothing, &hypervisor, error)) {
        return false;
    }
    out_field_wide(sh, 0, "Compiled against library: ", "lodge 0.1.0");
    version_field(sh, "Using library: ", "libvirt", library.value);
    version_field(sh, "Using API: ", type.text, library.value);
    version_field(sh, "Running hypervisor: ", type.text, hypervisor.value);
    return true;
}

static bool run_uri(struct shell *sh, const struct args *a, GError **error)
{
    (void)a;
    if (!shell_rpc(sh, error)) {
        return false;
    }
    out_text(sh, "uri", "%s\n", shell_uri(sh));
    return true;
}

static bool run_nodeinfo(struct shell *sh, const struct args *a, GError **error)
{
    enum { WIDTH = 21 };
    rpc_node_info n;
    Rpc *rpc = shell_rpc(sh, error);
    (void)a;
    if (!rpc || !ask_node_get_info(rpc, &nothing, &n, error)) {
        shell_failing(sh, "failed to get node information");
        return false;
    }
    out_field_wide(sh, WIDTH, "CPU model:", "%.32s", n.model);
    out_field_wide(sh, WIDTH, "CPU(s):", "%d", n.cpus);
    if (n.mhz) {
        out_field_wide(sh, WIDTH, "CPU frequency:", "%d MHz", n.mhz);
    }
    out_field_wide(sh, WIDTH, "CPU socket(s):", "%d", n.sockets);
    out_field_wide(sh, WIDTH, "Core(s) per socket:", "%d", n.cores);
    out_field_wide(sh, WIDTH, "Thread(s) per core:", "%d", n.threads);
    out_field_wide(sh, WIDTH, "NUMA cell(s):", "%d", n.nodes);
    out_field_wide(sh, WIDTH, "Memory size:", "%" PRIu64 " KiB", (uint64_t)n.memory);
    return true;
}

static bool run_maxvcpus(struct shell *sh, const struct args *a, GError **error)
{
    char *type = (char *)args_text(a, "type");
    rpc_maybe_text args = {type ? &type : NULL};
    rpc_int n;
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_get_max_vcpus(rpc, &args, &n, error)) {
        return false;
    }
    out_text(sh, "count", "%d\n", n.value);
    return true;
}

static bool run_domcapabilities(struct shell *sh, const struct args *a, GError **error)
{
    char *emulator = (char *)args_text(a, "emulatorbin"), *arch = (char *)args_text(a, "arch"),
         *machine = (char *)args_text(a, "machine"), *type = (char *)args_text(a, "virttype");
    rpc_domcaps_args args = {emulator ? &emulator : NULL, arch ? &arch : NULL,
                             machine ? &machine : NULL, type ? &type : NULL, 0};
    g_auto(rpc_text) xml = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_get_domain_capabilities(rpc, &args, &xml, error)) {
        shell_failing(sh, "failed to get emulator capabilities");
        return false;
    }
    out_text(sh, "xml", "%s", xml.text);
    return true;
}

static bool run_cpu_models(struct shell *sh, const struct args *a, GError **error)
{
    rpc_cpu_models_args args = {(char *)args_text(a, "arch"), 1, 0};
    g_auto(rpc_names_count) names = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_get_cpu_model_names(rpc, &args, &names, error)) {
        shell_failing(sh, "failed to get CPU model names");
        return false;
    }
    for (unsigned i = 0; i < names.names.names_len; i++) {
        out_line(sh, "%s", names.names.names_val[i]);
    }
    return true;
}

static bool run_freecell(struct shell *sh, const struct args *a, GError **error)
{
    enum { CELLS = 64 };
    rpc_uhyper total;
    g_auto(rpc_cells) cells = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc) {
        return false;
    }
    if (args_flag(a, "all")) {
        rpc_cells_args args = {0, CELLS};
        uint64_t sum = 0;
        if (!ask_node_get_cells_free_memory(rpc, &args, &cells, error)) {
            return false;
        }
        for (unsigned i = 0; i < cells.cells.cells_len; i++) {
            g_autofree char *label = g_strdup_printf("%5u:", i);
            out_field_wide(sh, 0, label, " %10" PRIu64 " KiB", cells.cells.cells_val[i] / 1024);
            sum += cells.cells.cells_val[i];
        }
        out_line(sh, "--------------------");
        out_field_wide(sh, 0, "Total:", " %10" PRIu64 " KiB", sum / 1024);
        return true;
    }
    if (!ask_node_get_free_memory(rpc, &nothing, &total, error)) {
        return false;
    }
    out_field_wide(sh, 0, "Total:", " %" PRIu64 " KiB", (uint64_t)total.value / 1024);
    return true;
}

/* The names that virsh prints for what the daemon counts, in its order. */
static void print_cpu_stats(struct shell *sh, const rpc_node_stats *s)
{
    static const char *const names[][2] = {
        {"user", "user:"}, {"kernel", "system:"}, {"idle", "idle:"}, {"iowait", "iowait:"}};
    for (unsigned n = 0; n < G_N_ELEMENTS(names); n++) {
        for (unsigned i = 0; i < s->stats.stats_len; i++) {
            if (strcmp(s->stats.stats_val[i].field, names[n][0]) == 0) {
                out_field(sh, names[n][1], "%20" PRIu64, (uint64_t)s->stats.stats_val[i].value);
            }
        }
    }
}

static void print_memory_stats(struct shell *sh, const rpc_node_stats *s)
{
    for (unsigned i = 0; i < s->stats.stats_len; i++) {
        g_autofree char *label = g_strdup_printf("%-7s: ", s->stats.stats_val[i].field);
        out_field_wide(sh, 0, label, "%20" PRIu64 " KiB", (uint64_t)s->stats.stats_val[i].value);
    }
}

static bool run_node_stats(struct shell *sh, const struct args *a, GError **error)
{
    enum { ALL = -1, MAX_STATS = 16 };
    bool memory = strcmp(shell_data(sh), "memory") == 0;
    uint64_t which = UINT64_MAX;
    g_auto(rpc_node_stats) s = {0};
    Rpc *rpc = shell_rpc(sh, error);
    args_number(a, memory ? "cell" : "cpu", &which);
    rpc_node_memory_stats_args m = {MAX_STATS, which == UINT64_MAX ? ALL : (int)which, 0};
    rpc_node_cpu_stats_args c = {which == UINT64_MAX ? ALL : (int)which, MAX_STATS, 0};
    if (!rpc || !(memory ? ask_node_get_memory_stats(rpc, &m, &s, error)
                         : ask_node_get_cpu_stats(rpc, &c, &s, error))) {
        shell_failing(sh, memory ? "Unable to get memory stats" : "Unable to get node cpu stats");
        return false;
    }
    if (memory) {
        print_memory_stats(sh, &s);
    } else {
        print_cpu_stats(sh, &s);
    }
    return true;
}

static bool run_nodecpumap(struct shell *sh, const struct args *a, GError **error)
{
    rpc_cpu_map_args args = {1, 1, 0};
    g_auto(rpc_cpu_map) m = {0};
    g_autoptr(GString) map = g_string_new(NULL);
    Rpc *rpc = shell_rpc(sh, error);
    (void)a;
    if (!rpc || !ask_node_get_cpu_map(rpc, &args, &m, error)) {
        shell_failing(sh, "Unable to get cpu map");
        return false;
    }
    for (int i = 0; i < m.count; i++) {
        bool on = (unsigned)i / 8 < m.map.map_len && (m.map.map_val[i / 8] >> (i % 8) & 1);
        g_string_append_c(map, on ? 'y' : '-');
    }
    out_field(sh, "CPUs present:", "%d", m.count);
    out_field(sh, "CPUs online:", "%u", m.online);
    out_field(sh, "CPU map:", "%s", map->str);
    return true;
}

/* ---- Node devices ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const rpc_node_device *)a)->name, ((const rpc_node_device *)b)->name);
}

static bool run_nodedev_list(struct shell *sh, const struct args *a, GError **error)
{
    rpc_list_args args = {1, 1u << 31}; /* those that are active */
    g_auto(rpc_node_devices) all = {0};
    Rpc *rpc = shell_rpc(sh, error);
    (void)a;
    if (!rpc || !ask_connect_list_all_node_devices(rpc, &args, &all, error)) {
        shell_failing(sh, "Failed to list node devices");
        return false;
    }
    sort_items(all.items.items_val, all.items.items_len, sizeof(rpc_node_device), by_name);
    for (unsigned i = 0; i < all.items.items_len; i++) {
        out_line(sh, "%s", all.items.items_val[i].name);
    }
    return true;
}

static bool run_nodedev_xml(struct shell *sh, const struct args *a, GError **error)
{
    rpc_text_flags args = {(char *)args_text(a, "device"), 0};
    g_auto(rpc_text) xml = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_node_device_get_xml_desc(rpc, &args, &xml, error)) {
        return false;
    }
    out_text(sh, "xml", "%s", xml.text);
    return true;
}

static bool run_nodedev_info(struct shell *sh, const struct args *a, GError **error)
{
    rpc_text name = {(char *)args_text(a, "device")};
    g_auto(rpc_maybe_text) parent = {0};
    rpc_int is;
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_node_device_get_parent(rpc, &name, &parent, error)) {
        shell_failing(sh, "Could not find matching device '%s'", name.text);
        return false;
    }
    out_field(sh, "Name:", "%s", name.text);
    out_field(sh, "Parent:", "%s", parent.text ? *parent.text : "");
    if (ask_node_device_is_active(rpc, &name, &is, NULL)) {
        out_field(sh, "Active:", "%s", is.value ? "yes" : "no");
    }
    if (ask_node_device_is_persistent(rpc, &name, &is, NULL)) {
        out_field(sh, "Persistent:", "%s", is.value ? "yes" : "no");
    }
    if (ask_node_device_get_autostart(rpc, &name, &is, NULL)) {
        out_field(sh, "Autostart:", "%s", is.value ? "yes" : "no");
    }
    return true;
}

#define TEXT(procedure, key, format) (&(const struct text_call){procedure, key, format})

const struct verb_group verb_group_host = {
    "Host and Hypervisor", "host",
    (const struct verb_row[]){
        {"capabilities", NULL, "prints what the host can do, as XML", run_text,
         TEXT(PROC_connect_get_capabilities, "capabilities", "raw")},
        {"cpu-models",
         (const struct option_row[]){{"arch", OPT_TEXT, OPT_NEEDED, "x86_64, i686"}, {NULL}},
         "lists CPU models", run_cpu_models},
        {"domcapabilities",
         (const struct option_row[]){{"virttype", OPT_TEXT, 0, "kvm, qemu"},
                                     {"emulatorbin", OPT_TEXT, 0, "the emulator"},
                                     {"arch", OPT_TEXT, 0, "x86_64, i686"},
                                     {"machine", OPT_TEXT, 0, "pc, q35"},
                                     {NULL}},
         "prints what a domain can have, as XML", run_domcapabilities},
        {"freecell",
         (const struct option_row[]){{"all", OPT_BOOL, 0, "of every NUMA cell"}, {NULL}},
         "tells how much memory is free", run_freecell},
        {"hostname", NULL, "prints the host's name", run_text,
         TEXT(PROC_connect_get_hostname, "hostname", "line")},
        {"maxvcpus", (const struct option_row[]){{"type", OPT_TEXT, 0, "kvm, qemu"}, {NULL}},
         "prints how many processors a domain may have", run_maxvcpus},
        {"nodecpumap", NULL, "tells which processors are online", run_nodecpumap},
        {"nodecpustats", (const struct option_row[]){{"cpu", OPT_NUMBER, 0, "of this one"}, {NULL}},
         "tells what the processors did", run_node_stats, "cpu"},
        {"nodedev-dumpxml",
         (const struct option_row[]){{"device", OPT_TEXT, OPT_NEEDED, "name of the device"},
                                     {NULL}},
         "prints a host device's XML", run_nodedev_xml},
        {"nodedev-info",
         (const struct option_row[]){{"device", OPT_TEXT, OPT_NEEDED, "name of the device"},
                                     {NULL}},
         "tells about a host device", run_nodedev_info},
        {"nodedev-list", NULL, "lists the host's devices", run_nodedev_list},
        {"nodeinfo", NULL, "tells about the host", run_nodeinfo},
        {"nodememstats",
         (const struct option_row[]){{"cell", OPT_NUMBER, 0, "of this NUMA cell"}, {NULL}},
         "tells how memory is used", run_node_stats, "memory"},
        {"sysinfo", NULL, "prints the host's SMBIOS as XML", run_text,
         TEXT(PROC_connect_get_sysinfo, "sysinfo", "raw")},
        {"uri", NULL, "prints what one is connected to", run_uri},
        {"version", NULL, "prints versions", run_version},
        {NULL},
    }};
