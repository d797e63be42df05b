/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"
#include "manage/cli/xpath.h"
#include "manage/model/cpuset.h"

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
    out_field_wide(sh, 0, label, "%s%s%" PRIu64 ".%" PRIu64 ".%" PRIu64, name ? name : "",
                   name ? " " : "", v / MAJOR, v / MINOR % MINOR, v % MINOR);
}

static bool run_version(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_text) type = {0};
    rpc_uhyper library, hypervisor;
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_get_type(rpc, &nothing, &type, error) ||
        !ask_connect_get_lib_version(rpc, &nothing, &library, error) ||
        !ask_connect_get_version(rpc, &nothing, &hypervisor, error)) {
        return false;
    }
    out_field_wide(sh, 0, "Compiled against library: ", "lodge 0.1.0");
    version_field(sh, "Using library: ", "libvirt", library.value);
    version_field(sh, "Using API: ", type.text, library.value);
    version_field(sh, "Running hypervisor: ", type.text, hypervisor.value);
    if (args_flag(a, "daemon")) {
        version_field(sh, "Running against daemon: ", NULL, library.value);
    }
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

/* ---- Memory of its cells ---- */

/* The numbers that @path names in the host's capabilities. */
static GArray *numbers_of(Rpc *rpc, const char *path, GError **error)
{
    g_auto(rpc_text) xml = {0};
    g_auto(xpath_t) x = {0};
    if (!ask_connect_get_capabilities(rpc, &nothing, &xml, error)) {
        return NULL;
    }
    if (!xpath_open(&x, xml.text, error)) {
        return NULL;
    }
    GArray *out = g_array_new(FALSE, FALSE, sizeof(int));
    xmlXPathObjectPtr found = xpath_nodes(&x, path);
    for (int i = 0; i < xmlXPathNodeSetGetLength(found ? found->nodesetval : NULL); i++) {
        xmlChar *text = xmlNodeGetContent(found->nodesetval->nodeTab[i]);
        int n = (int)g_ascii_strtoll((const char *)text, NULL, 10);
        g_array_append_val(out, n);
        xmlFree(text);
    }
    xmlXPathFreeObject(found);
    return out;
}

static bool cells_free(struct shell *sh, Rpc *rpc, GError **error)
{
    g_autoptr(GArray) cells = numbers_of(rpc, "host/topology/cells/cell/@id", error);
    uint64_t sum = 0;
    for (unsigned i = 0; cells && i < cells->len; i++) {
        rpc_cells_args args = {g_array_index(cells, int, i), 1};
        g_auto(rpc_cells) got = {0};
        if (!ask_node_get_cells_free_memory(rpc, &args, &got, error)) {
            shell_failing(sh, "failed to get free memory for NUMA node number: %d", args.start);
            return false;
        }
        uint64_t kib = got.cells.cells_len ? got.cells.cells_val[0] / 1024 : 0;
        g_autofree char *label = g_strdup_printf("%5d:", args.start);
        out_field_wide(sh, 0, label, " %10" PRIu64 " KiB", kib);
        sum += kib;
    }
    if (cells) {
        out_note(sh, "--------------------");
        out_field_wide(sh, 0, "Total:", " %10" PRIu64 " KiB", sum);
    }
    return cells != NULL;
}

static bool run_freecell(struct shell *sh, const struct args *a, GError **error)
{
    uint64_t cell;
    rpc_uhyper total;
    g_auto(rpc_cells) got = {0};
    bool one = args_number(a, "cellno", &cell);
    Rpc *rpc = shell_rpc(sh, error);
    if (!exclusive(a, "all", "cellno", error)) {
        return false;
    }
    if (!rpc || args_flag(a, "all")) {
        return rpc && cells_free(sh, rpc, error);
    }
    if (one) {
        rpc_cells_args args = {(int)MIN(cell, INT32_MAX), 1};
        if (!ask_node_get_cells_free_memory(rpc, &args, &got, error)) {
            return false;
        }
        g_autofree char *label = g_strdup_printf("%d:", args.start);
        out_field_wide(sh, 0, label, " %" PRIu64 " KiB",
                       got.cells.cells_len ? (uint64_t)got.cells.cells_val[0] / 1024 : 0);
        return true;
    }
    if (!ask_node_get_free_memory(rpc, &nothing, &total, error)) {
        return false;
    }
    out_field_wide(sh, 0, "Total:", " %" PRIu64 " KiB", (uint64_t)total.value / 1024);
    return true;
}

/* Free pages of @sizes in one cell. */
static bool show_pages(struct shell *sh, Rpc *rpc, GArray *sizes, int cell, GError **error)
{
    rpc_free_pages_args args = {{sizes->len, (u_int *)(void *)sizes->data}, cell, 1, 0};
    g_auto(rpc_counts) got = {0};
    if (!ask_node_get_free_pages(rpc, &args, &got, error)) {
        return false;
    }
    for (unsigned i = 0; i < MIN(sizes->len, got.counts.counts_len); i++) {
        g_autofree char *label = g_strdup_printf("%uKiB: ", g_array_index(sizes, u_int, i));
        out_field_wide(sh, 0, label, "%" PRIu64, (uint64_t)got.counts.counts_val[i]);
    }
    return true;
}

static bool run_freepages(struct shell *sh, const struct args *a, GError **error)
{
    uint64_t cell = 0, size;
    bool one = args_number(a, "cellno", &cell), sized = args_number(a, "pagesize", &size);
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !exclusive(a, "all", "cellno", error)) {
        return false;
    }
    if (!args_flag(a, "all") && !one) {
        return shell_fail(error, "missing cellno argument");
    }
    if (!args_flag(a, "all") && !sized) {
        return shell_fail(error, "missing pagesize argument");
    }
    g_autoptr(GArray) sizes = NULL, cells = NULL;
    if (sized) {
        u_int kib = (u_int)MIN(size, UINT32_MAX);
        sizes = g_array_append_val(g_array_new(FALSE, FALSE, sizeof(u_int)), kib);
    } else {
        sizes = numbers_of(rpc, "host/topology/cells/cell[1]/pages/@size", error);
    }
    if (!sizes || !args_flag(a, "all")) {
        return sizes && show_pages(sh, rpc, sizes, (int)MIN(cell, INT32_MAX), error);
    }
    cells = numbers_of(rpc, "host/topology/cells/cell/@id", error);
    for (unsigned i = 0; cells && i < cells->len; i++) {
        out_line(sh, "Node %d:", g_array_index(cells, int, i));
        if (!show_pages(sh, rpc, sizes, g_array_index(cells, int, i), error)) {
            return false;
        }
        out_line(sh, "%s", "");
    }
    return cells != NULL;
}

/* ---- What it does ---- */

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

static uint64_t stat_of(const rpc_node_stats *s, const char *name)
{
    for (unsigned i = 0; i < s->stats.stats_len; i++) {
        if (strcmp(s->stats.stats_val[i].field, name) == 0) {
            return s->stats.stats_val[i].value;
        }
    }
    return 0;
}

/* Shares of the second that begins with @before. */
static bool print_percents(struct shell *sh, Rpc *rpc, const rpc_node_cpu_stats_args *args,
                           const rpc_node_stats *before, GError **error)
{
    static const char *const names[] = {"user", "kernel", "idle", "iowait"};
    static const char *const labels[] = {"user:", "system:", "idle:", "iowait:"};
    g_auto(rpc_node_stats) after = {0};
    double v[G_N_ELEMENTS(names)], total = 0;
    g_usleep(G_USEC_PER_SEC);
    if (!ask_node_get_cpu_stats(rpc, args, &after, error)) {
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        v[i] = (double)(stat_of(&after, names[i]) - stat_of(before, names[i]));
        total += v[i];
    }
    total = total > 0 ? total / 100 : 1;
    out_field(sh, "usage:", "%5.1f%%", (v[0] + v[1]) / total);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        out_field(sh, labels[i], "%5.1f%%", v[i] / total);
    }
    return true;
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
        shell_failing(sh, memory ? "Unable to get number of memory stats"
                                 : "Unable to get number of cpu stats");
        return false;
    }
    if (memory) {
        print_memory_stats(sh, &s);
    } else if (args_flag(a, "percent")) {
        return print_percents(sh, rpc, &c, &s, error);
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
    if (!rpc || !ask_node_get_cpu_map(rpc, &args, &m, error)) {
        shell_failing(sh, "Unable to get cpu map");
        return false;
    }
    if (args_flag(a, "pretty")) {
        struct cpuset set = {0};
        memcpy(set.bytes, m.map.map_val, MIN(m.map.map_len, CPUSET_BYTES));
        g_autofree char *text = cpuset_format(&set);
        g_string_assign(map, text);
    }
    for (int i = 0; i < m.count && !args_flag(a, "pretty"); i++) {
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

/* The bits of "net,pci", one after the other. */
static bool caps_of(const char *text, unsigned *flags, GError **error)
{
    static const char *const caps[] = {
        "system",      "pci",        "usb_device", "usb",     "net",    "scsi_host",
        "scsi_target", "scsi",       "storage",    "fc_host", "vports", "scsi_generic",
        "drm",         "mdev_types", "mdev",       "ccw",     "css",    "vdpa",
        "ap_card",     "ap_queue",   "ap_matrix",  "vpd"};
    g_auto(GStrv) words = g_strsplit(text, ",", -1);
    for (unsigned i = 0; words[i]; i++) {
        unsigned n = 0;
        while (n < G_N_ELEMENTS(caps) && strcmp(caps[n], words[i]) != 0) {
            n++;
        }
        if (n == G_N_ELEMENTS(caps)) {
            return shell_fail(error, "Invalid capability type");
        }
        *flags |= 1u << n;
    }
    return true;
}

static void device_tree(struct shell *sh, Rpc *rpc, const rpc_node_devices *all)
{
    unsigned n = all->items.items_len;
    g_autofree struct out_node *nodes = g_new0(struct out_node, n);
    g_autoptr(GPtrArray) parents = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; i < n; i++) {
        rpc_text name = {all->items.items_val[i].name};
        g_auto(rpc_maybe_text) parent = {0};
        nodes[i].name = name.text;
        if (strcmp(name.text, "computer") != 0 &&
            ask_node_device_get_parent(rpc, &name, &parent, NULL) && parent.text) {
            g_ptr_array_add(parents, g_strdup(*parent.text));
            nodes[i].parent = g_ptr_array_index(parents, parents->len - 1);
        }
    }
    out_tree(sh, nodes, n);
}

static bool run_nodedev_list(struct shell *sh, const struct args *a, GError **error)
{
    const unsigned inactive = 1u << 30, active = 1u << 31;
    bool tree = args_flag(a, "tree");
    rpc_list_args args = {1, args_flag(a, "all")        ? inactive | active
                             : args_flag(a, "inactive") ? inactive
                                                        : active};
    g_auto(rpc_node_devices) all = {0};
    if (tree && (args_text(a, "cap") || args_flag(a, "inactive"))) {
        return shell_fail(error, "Option --tree is incompatible with --cap and --inactive");
    }
    if (args_text(a, "cap") && !caps_of(args_text(a, "cap"), &args.flags, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || !ask_connect_list_all_node_devices(rpc, &args, &all, error)) {
        shell_failing(sh, "Failed to list node devices");
        return false;
    }
    sort_items(all.items.items_val, all.items.items_len, sizeof(rpc_node_device), by_name);
    if (tree) {
        device_tree(sh, rpc, &all);
        return true;
    }
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
        shell_failing(sh, "Could not find matching device '%s'", args.text);
        return false;
    }
    return show_xml(sh, a, xml.text, error);
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
         (const struct option_row[]){{"cellno", OPT_NUMBER, 0, "of this NUMA cell"},
                                     {"all", OPT_BOOL, 0, "of every NUMA cell"},
                                     {NULL}},
         "tells how much memory is free", run_freecell},
        {"freepages",
         (const struct option_row[]){{"cellno", OPT_NUMBER, 0, "of this NUMA cell"},
                                     {"pagesize", OPT_SIZE, 0, "size of the pages, in KiB"},
                                     {"all", OPT_BOOL, 0, "of every NUMA cell"},
                                     {NULL}},
         "tells how many pages are free", run_freepages},
        {"hostname", NULL, "prints the host's name", run_text,
         TEXT(PROC_connect_get_hostname, "hostname", "line")},
        {"maxvcpus", (const struct option_row[]){{"type", OPT_TEXT, 0, "kvm, qemu"}, {NULL}},
         "prints how many processors a domain may have", run_maxvcpus},
        {"nodecpumap",
         (const struct option_row[]){{"pretty", OPT_BOOL, 0, "as people read it"}, {NULL}},
         "tells which processors are online", run_nodecpumap},
        {"nodecpustats",
         (const struct option_row[]){{"cpu", OPT_NUMBER, 0, "of this one"},
                                     {"percent", OPT_BOOL, 0, "shares of one second"},
                                     {NULL}},
         "tells what the processors did", run_node_stats, "cpu"},
        {"nodedev-dumpxml",
         (const struct option_row[]){
             {"device", OPT_TEXT, OPT_NEEDED, "name of the device"}, XPATH_OPTIONS, {NULL}},
         "prints a host device's XML", run_nodedev_xml},
        {"nodedev-info",
         (const struct option_row[]){{"device", OPT_TEXT, OPT_NEEDED, "name of the device"},
                                     {NULL}},
         "tells about a host device", run_nodedev_info},
        {"nodedev-list",
         (const struct option_row[]){{"tree", OPT_BOOL, 0, "as a tree"},
                                     {"cap", OPT_TEXT, OPT_NAMED, "of these kinds: net,pci,..."},
                                     {"inactive", OPT_BOOL, 0, "those that are not in use"},
                                     {"all", OPT_BOOL, 0, "both"},
                                     {NULL}},
         "lists the host's devices", run_nodedev_list},
        {"nodeinfo", NULL, "tells about the host", run_nodeinfo},
        {"nodememstats",
         (const struct option_row[]){{"cell", OPT_NUMBER, 0, "of this NUMA cell"}, {NULL}},
         "tells how memory is used", run_node_stats, "memory"},
        {"sysinfo", NULL, "prints the host's SMBIOS as XML", run_text,
         TEXT(PROC_connect_get_sysinfo, "sysinfo", "raw")},
        {"uri", NULL, "prints what one is connected to", run_uri},
        {"version",
         (const struct option_row[]){{"daemon", OPT_BOOL, 0, "the daemon's too"}, {NULL}},
         "prints versions", run_version},
        {NULL},
    }};
