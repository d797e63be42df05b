/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How much of the host a domain may use, and which CPUs fit which hosts. */
#include "manage/cli/object.h"
#include "manage/error.h"
#include "manage/model/cpuset.h"
#include "manage/model/xml.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { PARAMS_ROOM = 64 };
#define UNLIMITED_KIB UINT64_C(9007199254740991)

/* A family of parameters: its two procedures have the same shapes in all of them. */
struct family {
    const char *changing, *getting; /* what failed */
    bool (*get)(Rpc *rpc, const rpc_domain_int_flags *args, rpc_params_count *ret, GError **error);
    bool (*set)(Rpc *rpc, const rpc_domain_params_flags *args, rpc_none *ret, GError **error);
    char *(*word)(const rpc_param *p); /* NULL: the value as it is */
};

static bool set_params(Rpc *rpc, const rpc_domain *dom, const struct family *f, GArray *list,
                       unsigned flags, GError **error)
{
    rpc_domain_params_flags args = {.dom = *dom, .flags = flags};
    rpc_none none;
    args.params.params_val = (rpc_param *)(void *)list->data;
    args.params.params_len = list->len;
    return f->set(rpc, &args, &none, error);
}

static void show_all(struct shell *sh, const struct family *f, const rpc_param *p, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        g_autofree char *value = f->word ? f->word(&p[i]) : param_text(&p[i]);
        show_param(sh, p[i].field, value);
    }
}

/* Sets what is in @list, or shows all there are if nothing is. */
static bool tune(struct shell *sh, const struct args *a, const struct family *f, GArray *list,
                 GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_params_count) got = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    shell_failing(sh, "%s", list->len ? f->changing : f->getting);
    if (list->len) {
        return set_params(rpc, &dom, f, list, affect_of(a), error);
    }
    rpc_domain_int_flags args = {dom, PARAMS_ROOM, affect_of(a)};
    if (!f->get(rpc, &args, &got, error)) {
        return false;
    }
    show_all(sh, f, got.params.params_val, got.params.params_len);
    return true;
}

/* --- processors --- */

static const struct family schedule = {.set = ask_domain_set_scheduler_parameters_flags};

static bool get_schedule(Rpc *rpc, const rpc_domain *dom, unsigned flags, rpc_params *got,
                         GError **error)
{
    rpc_domain_int_flags args = {*dom, PARAMS_ROOM, flags};
    return ask_domain_get_scheduler_parameters_flags(rpc, &args, got, error);
}

/* "name=value" of the parameters there are, in their own type. */
static bool schedule_word(const rpc_params *known, const char *word, GArray *list, GError **error)
{
    const char *eq = strchr(word, '=');
    for (unsigned i = 0; eq && i < known->params.params_len; i++) {
        const rpc_param *p = &known->params.params_val[i];
        if (strlen(p->field) == (size_t)(eq - word) &&
            strncmp(p->field, word, strlen(p->field)) == 0) {
            char *end;
            int64_t v = g_ascii_strtoll(eq + 1, &end, 10);
            if (!eq[1] || *end) {
                return shell_fail(error, "invalid value for parameter '%s': %s", p->field, eq + 1);
            }
            params_number(list, p->field, p->value.type, (uint64_t)v);
            return true;
        }
    }
    return shell_fail(error, "invalid scheduler option: %.*s", (int)strcspn(word, "="), word);
}

static bool run_schedinfo(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_scheduler_type) type = {0};
    g_auto(rpc_params) before = {0}, after = {0};
    g_autoptr(GArray) list = params_new();
    unsigned flags = affect_of(a);
    char **words = args_many(a, "set");
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_domain_args by_dom = {dom};
    bool known = ask_domain_get_scheduler_type(rpc, &by_dom, &type, error);
    show_param(sh, "Scheduler", known ? type.type : "Unknown");
    if (!known || !get_schedule(rpc, &dom, flags, &before, error)) {
        return false;
    }
    for (unsigned i = 0; words && words[i]; i++) {
        if (!schedule_word(&before, words[i], list, error)) {
            return false;
        }
    }
    if (list->len && !set_params(rpc, &dom, &schedule, list, flags, error)) {
        return false;
    }
    if (!get_schedule(rpc, &dom, flags, &after, error)) {
        return false;
    }
    show_all(sh, &schedule, after.params.params_val, after.params.params_len);
    return true;
}

/* --- memory, disks, nodes --- */

static char *memory_word(const rpc_param *p)
{
    return p->value.rpc_value_u.ul == UNLIMITED_KIB ? g_strdup("unlimited") : param_text(p);
}

/* KiB of "1G", "512" or "-1", which has no limit. */
static bool limit_of(const char *text, uint64_t *kib)
{
    char *end;
    uint64_t unit = 1024;
    int64_t n = g_ascii_strtoll(text, &end, 10);
    if (end == text || (*end && !xml_unit(end, &unit)) ||
        (n > 0 && (uint64_t)n > UINT64_MAX / unit)) {
        return false;
    }
    *kib = n < 0 ? UNLIMITED_KIB : ((uint64_t)n * unit + 1023) / 1024;
    return true;
}

static const struct family memory = {
    "Unable to change memory parameters", "Unable to get number of memory parameters",
    ask_domain_get_memory_parameters, ask_domain_set_memory_parameters, memory_word};

static bool run_memtune(struct shell *sh, const struct args *a, GError **error)
{
    static const struct {
        const char *option, *param;
    } rows[] = {{"hard-limit", "hard_limit"},
                {"soft-limit", "soft_limit"},
                {"swap-hard-limit", "swap_hard_limit"},
                {"min-guarantee", "min_guarantee"}};
    g_autoptr(GArray) list = params_new();
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        const char *text = args_text(a, rows[i].option);
        uint64_t kib;
        if (text && !limit_of(text, &kib)) {
            shell_failing(sh, "Unable to parse integer parameter %s", rows[i].option);
            const char *suffix = text + strspn(text, "-0123456789");
            if (*suffix && suffix != text) {
                libvirt_error(error, ERR_INVALID_ARG, "unknown suffix '%s'", suffix);
            }
            return false;
        }
        if (text) {
            params_number(list, rows[i].param, 4, kib);
        }
    }
    return tune(sh, a, &memory, list, error);
}

static const struct family blkio = {
    "Unable to change blkio parameters", "Unable to get number of blkio parameters",
    ask_domain_get_blkio_parameters, ask_domain_set_blkio_parameters};

static bool run_blkiotune(struct shell *sh, const struct args *a, GError **error)
{
    static const struct {
        const char *option, *param;
    } rows[] = {{"device-weights", "device_weight"},
                {"device-read-iops-sec", "device_read_iops_sec"},
                {"device-write-iops-sec", "device_write_iops_sec"},
                {"device-read-bytes-sec", "device_read_bytes_sec"},
                {"device-write-bytes-sec", "device_write_bytes_sec"}};
    g_autoptr(GArray) list = params_new();
    uint64_t weight;
    if (args_number(a, "weight", &weight)) {
        params_number(list, "weight", 2, weight);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (args_text(a, rows[i].option)) {
            params_text(list, rows[i].param, args_text(a, rows[i].option));
        }
    }
    return tune(sh, a, &blkio, list, error);
}

static const char *const modes[] = {"strict", "preferred", "interleave", "restrictive"};

static char *numa_word(const rpc_param *p)
{
    return p->value.type == 1 && p->value.rpc_value_u.i >= 0 && p->value.rpc_value_u.i < 4
               ? g_strdup(modes[p->value.rpc_value_u.i])
               : param_text(p);
}

static const struct family numa = {
    "Unable to change numa parameters", "Unable to get number of memory parameters",
    ask_domain_get_numa_parameters, ask_domain_set_numa_parameters, numa_word};

static bool run_numatune(struct shell *sh, const struct args *a, GError **error)
{
    g_autoptr(GArray) list = params_new();
    const char *mode = args_text(a, "mode"), *nodes = args_text(a, "nodeset");
    if (nodes) {
        params_text(list, "numa_nodeset", nodes);
    }
    unsigned m = 0;
    while (mode && m < G_N_ELEMENTS(modes) && strcmp(modes[m], mode) != 0) {
        m++;
    }
    if (m == G_N_ELEMENTS(modes)) {
        return shell_fail(error, "Invalid mode: %s", mode);
    }
    if (mode) {
        params_number(list, "numa_mode", 1, m);
    }
    return tune(sh, a, &numa, list, error);
}

/* --- traffic of a card --- */

static bool run_domiftune(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const ways[] = {"inbound", "outbound"};
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_params_count) got = {0};
    g_autoptr(GArray) list = params_new();
    char *card = (char *)args_text(a, "interface");
    rpc_none none;
    for (unsigned w = 0; w < G_N_ELEMENTS(ways); w++) {
        struct rate rate;
        if (!rate_of(a, ways[w], &rate, error)) {
            return false;
        }
        for (unsigned i = 0; args_text(a, ways[w]) && i < N_RATES; i++) {
            g_autofree char *name = g_strdup_printf("%s.%s", ways[w], rate_names[i]);
            if (i == RATE_AVERAGE || rate.value[i]) { /* an average of 0 takes the limit away */
                params_number(list, name, 2, rate.value[i]);
            }
        }
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    if (list->len) {
        rpc_domain_of_params_flags args = {.dom = dom, .of = card, .flags = affect_of(a)};
        args.params.params_val = (rpc_param *)(void *)list->data;
        args.params.params_len = list->len;
        shell_failing(sh, "Unable to set interface parameters");
        return ask_domain_set_interface_parameters(rpc, &args, &none, error);
    }
    rpc_domain_of_int_flags args = {dom, card, PARAMS_ROOM, affect_of(a)};
    if (!ask_domain_get_interface_parameters(rpc, &args, &got, error)) {
        shell_failing(sh, "Unable to get interface parameters");
        return false;
    }
    for (unsigned i = 0; i < got.params.params_len; i++) {
        g_autofree char *value = param_text(&got.params.params_val[i]);
        show_param(sh, got.params.params_val[i].field, value);
    }
    return true;
}

static bool run_domblkerror(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const words[] = {"no error", "unspecified error", "no space"};
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_disk_errors) got = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_int_flags args = {dom, 256, 0};
    if (!ask_domain_get_disk_errors(shell_rpc(sh, NULL), &args, &got, error)) {
        return false;
    }
    for (unsigned i = 0; i < got.errors.errors_len; i++) {
        const rpc_disk_error *e = &got.errors.errors_val[i];
        out_line(sh, "%s: %s", e->disk, e->error >= 0 && e->error < 3 ? words[e->error] : words[1]);
    }
    if (!got.errors.errors_len) {
        out_note(sh, "No errors found");
    }
    return true;
}

/* --- CPUs --- */

static void collect(xmlNode *node, GPtrArray *out)
{
    for (; node; node = node->next) {
        const char *name = node->type == XML_ELEMENT_NODE ? (const char *)node->name : "";
        xmlChar *mode = *name ? xmlGetNoNsProp(node, (const xmlChar *)"name") : NULL;
        bool host_model = strcmp(name, "mode") == 0 && g_strcmp0((char *)mode, "host-model") == 0;
        xmlFree(mode);
        if (host_model) { /* of domain capabilities: what it stands for */
            xmlNodeSetName(node, (const xmlChar *)"cpu");
            xmlUnsetProp(node, (const xmlChar *)"name");
            xmlUnsetProp(node, (const xmlChar *)"supported");
            xmlSetProp(node, (const xmlChar *)"mode", (const xmlChar *)"custom");
        }
        if (host_model || (strcmp(name, "cpu") == 0 && node->parent &&
                           strcmp((const char *)node->parent->name, "domainCapabilities") != 0 &&
                           strcmp((const char *)node->parent->name, "cpus") != 0)) {
            xmlBuffer *buffer = xmlBufferCreate();
            xmlNodeDump(buffer, node->doc, node, 0, 0);
            g_ptr_array_add(out, g_strdup((const char *)xmlBufferContent(buffer)));
            xmlBufferFree(buffer);
        } else {
            collect(node->children, out);
        }
    }
}

/* All <cpu> in the file: alone, in a domain, or in capabilities of either kind. */
static GPtrArray *cpus_in(const char *path, GError **error)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        shell_fail(error, "Failed to open file '%s': %s", path, g_strerror(errno));
        return NULL;
    }
    const char *end = g_str_has_prefix(text, "<?xml") ? strstr(text, "?>") : NULL;
    const char *body = end ? end + 2 : text;
    g_autofree char *whole = g_strdup_printf("<container>%s</container>", body);
    g_autoptr(xmlDoc) doc = xml_parse(whole, "_CPUs_definition", "container", error);
    g_autoptr(GPtrArray) out = g_ptr_array_new_with_free_func(g_free);
    if (!doc) {
        return NULL;
    }
    collect(xmlDocGetRootElement(doc)->children, out);
    if (!out->len) {
        shell_fail(error,
                   "File '%s' does not contain any <cpu> element or valid domain XML, host "
                   "capabilities XML, or domain capabilities XML",
                   path);
        return NULL;
    }
    return g_steal_pointer(&out);
}

static GPtrArray *one_model(const char *name)
{
    GPtrArray *out = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(out, g_markup_printf_escaped("<cpu><model>%s</model></cpu>", name));
    return out;
}

static char **maybe(const struct args *a, const char *name, char **store)
{
    *store = (char *)args_text(a, name);
    return *store ? store : NULL;
}

static bool run_compare(struct shell *sh, const struct args *a, GError **error)
{
    const char *hypervisor = shell_data(sh), *file = args_text(a, "file");
    char *emulator, *arch, *machine, *type;
    Rpc *rpc = shell_rpc(sh, error);
    g_autoptr(GPtrArray) cpus = rpc ? cpus_in(file, error) : NULL;
    rpc_int result;
    unsigned flags = (args_flag(a, "error") ? 1u : 0u) | (args_flag(a, "validate") ? 2u : 0u);
    if (!cpus) {
        return false;
    }
    rpc_text_flags plain = {cpus->pdata[0], flags};
    rpc_hypervisor_cpu_args full = {0};
    if (*hypervisor) {
        full = (rpc_hypervisor_cpu_args){
            maybe(a, "emulator", &emulator), maybe(a, "arch", &arch),
            maybe(a, "machine", &machine),   maybe(a, "virttype", &type),
            cpus->pdata[0],                  flags};
    }
    if (!(*hypervisor ? ask_connect_compare_hypervisor_cpu(rpc, &full, &result, error)
                      : ask_connect_compare_cpu(rpc, &plain, &result, error))) {
        shell_failing(sh, *hypervisor ? "Failed to compare hypervisor CPU with %s"
                                      : "Failed to compare host CPU with %s",
                      file);
        return false;
    }
    const char *host = *hypervisor ? "the CPU provided by hypervisor on the host" : "host CPU";
    if (result.value == 0) {
        out_line(sh, "CPU described in %s is incompatible with %s", file, host);
        return false; /* all is said */
    }
    if (result.value == 1) {
        out_line(sh, "CPU described in %s is identical to %s", file, host);
    } else if (*hypervisor) {
        out_line(sh, "The CPU provided by hypervisor on the host is a superset of CPU "
                     "described in %s", file);
    } else {
        out_line(sh, "Host CPU is a superset of CPU described in %s", file);
    }
    return true;
}

static bool run_baseline(struct shell *sh, const struct args *a, GError **error)
{
    const char *hypervisor = shell_data(sh), *file = args_text(a, "file");
    char *emulator, *arch, *machine, *type;
    const char *model = *hypervisor ? args_text(a, "model") : NULL;
    Rpc *rpc = shell_rpc(sh, error);
    g_auto(rpc_text) xml = {0};
    if (!rpc || (*hypervisor && !exclusive(a, "file", "model", error))) {
        return false;
    }
    if (!file && !model) {
        return shell_fail(error, "One of --file and --model is needed");
    }
    g_autoptr(GPtrArray) cpus = model ? one_model(model) : cpus_in(file, error);
    unsigned flags = (args_flag(a, "features") ? 1u : 0u) | (args_flag(a, "migratable") ? 2u : 0u);
    if (!cpus) {
        return false;
    }
    rpc_baseline_args plain = {.flags = flags};
    plain.cpus.cpus_val = (char **)cpus->pdata;
    plain.cpus.cpus_len = MIN(cpus->len, 256);
    rpc_hypervisor_baseline_args full = {.flags = flags};
    if (*hypervisor) {
        full.emulator = maybe(a, "emulator", &emulator);
        full.arch = maybe(a, "arch", &arch);
        full.machine = maybe(a, "machine", &machine);
        full.virt_type = maybe(a, "virttype", &type);
        full.cpus.cpus_val = plain.cpus.cpus_val;
        full.cpus.cpus_len = plain.cpus.cpus_len;
    }
    if (!(*hypervisor ? ask_connect_baseline_hypervisor_cpu(rpc, &full, &xml, error)
                      : ask_connect_baseline_cpu(rpc, &plain, &xml, error))) {
        return false;
    }
    out_text(sh, "xml", "%s", xml.text);
    return true;
}

#define NAMED        DOMAIN_OPTION(COMPLETE_DOMAIN)
#define NAMED_ACTIVE DOMAIN_OPTION(COMPLETE_DOMAIN_ACTIVE)
#define HYPERVISOR_OPTIONS                                                                         \
    {"virttype", OPT_TEXT, OPT_NAMED, "kvm, qemu"},                                                \
        {"emulator", OPT_TEXT, OPT_NAMED, "the emulator"},                                         \
        {"arch", OPT_TEXT, OPT_NAMED, "x86_64, i686"},                                             \
        {"machine", OPT_TEXT, OPT_NAMED, "pc, q35"}

const struct verb_group verb_group_tune = {"Domain Tuning", "tune", (const struct verb_row[]){
    {"blkiotune", (const struct option_row[]){NAMED,
        {"weight", OPT_NUMBER, OPT_NAMED, "10 to 1000"},
        {"device-weights", OPT_TEXT, OPT_NAMED, "/path,weight,/path,weight..."},
        {"device-read-iops-sec", OPT_TEXT, OPT_NAMED, "/path,reads a second..."},
        {"device-write-iops-sec", OPT_TEXT, OPT_NAMED, "/path,writes a second..."},
        {"device-read-bytes-sec", OPT_TEXT, OPT_NAMED, "/path,bytes a second..."},
        {"device-write-bytes-sec", OPT_TEXT, OPT_NAMED, "/path,bytes a second..."},
        AFFECT_OPTIONS, {NULL}}, "shows or sets the shares of disk traffic", run_blkiotune},
    {"cpu-baseline", (const struct option_row[]){FILE_OPTION,
        {"features", OPT_BOOL, 0, "those of the model too"},
        {"migratable", OPT_BOOL, 0, "without what cannot move"}, {NULL}},
     "prints the CPU that several hosts have in common", run_baseline, ""},
    {"cpu-compare", (const struct option_row[]){FILE_OPTION,
        {"error", OPT_BOOL, 0, "an incompatible CPU is an error"},
        {"validate", OPT_BOOL, 0, "checks the XML too"}, {NULL}},
     "compares a CPU with that of the host", run_compare, ""},
    {"domblkerror", (const struct option_row[]){NAMED_ACTIVE, {NULL}},
     "tells which disks have failed", run_domblkerror},
    {"domiftune", (const struct option_row[]){NAMED,
        {"interface", OPT_TEXT, OPT_NEEDED, "device or address of the card"},
        {"inbound", OPT_TEXT, OPT_NAMED, "AVERAGE,PEAK,BURST,FLOOR in KiB (a second); 0: no limit"},
        {"outbound", OPT_TEXT, OPT_NAMED, "AVERAGE,PEAK,BURST"}, AFFECT_OPTIONS, {NULL}},
     "shows or sets limits of a card's traffic", run_domiftune},
    {"hypervisor-cpu-baseline", (const struct option_row[]){
        {"file", OPT_TEXT, 0, "file with CPUs", COMPLETE_FILE}, HYPERVISOR_OPTIONS,
        {"model", OPT_TEXT, OPT_NAMED, "a model, instead of a file"},
        {"features", OPT_BOOL, 0, "those of the model too"},
        {"migratable", OPT_BOOL, 0, "without what cannot move"}, {NULL}},
     "prints the CPU that machines on several hosts can have", run_baseline, "yes"},
    {"hypervisor-cpu-compare", (const struct option_row[]){FILE_OPTION, HYPERVISOR_OPTIONS,
        {"error", OPT_BOOL, 0, "an incompatible CPU is an error"},
        {"validate", OPT_BOOL, 0, "checks the XML too"}, {NULL}},
     "compares a CPU with what machines can have", run_compare, "yes"},
    {"memtune", (const struct option_row[]){NAMED,
        {"hard-limit", OPT_TEXT, OPT_NAMED, "most memory; KiB, or with a unit; -1: no limit"},
        {"soft-limit", OPT_TEXT, OPT_NAMED, "when memory is short"},
        {"swap-hard-limit", OPT_TEXT, OPT_NAMED, "memory and swap"},
        {"min-guarantee", OPT_TEXT, OPT_NAMED, "least memory (of other hypervisors)"}, AFFECT_OPTIONS, {NULL}},
     "shows or sets limits of a domain's memory", run_memtune},
    {"numatune", (const struct option_row[]){NAMED,
        {"mode", OPT_TEXT, OPT_NAMED, "strict, preferred, interleave, restrictive"},
        {"nodeset", OPT_TEXT, OPT_NAMED, "nodes of the host"}, AFFECT_OPTIONS, {NULL}},
     "shows or sets which memory of the host a domain uses", run_numatune},
    {"schedinfo", (const struct option_row[]){NAMED, AFFECT_OPTIONS,
        {"set", OPT_MANY, 0, "name=value..."}, {NULL}},
     "shows or sets a domain's share of the processors", run_schedinfo},
    {NULL},
}};
