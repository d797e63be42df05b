/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"
#include "manage/cli/xpath.h"
#include "manage/model/cpuset.h"

#include <inttypes.h>
#include <string.h>

/*
 * Domains: what tells about them.
 */
#define NAMED        DOMAIN_OPTION(COMPLETE_DOMAIN)
#define NAMED_ACTIVE DOMAIN_OPTION(COMPLETE_DOMAIN_ACTIVE)

enum { XML_INACTIVE = 2 };

/* ---- list ---- */

enum { LIST_ACTIVE = 1, LIST_INACTIVE = 2 };

static const struct flag_bit list_bits[] = {
    {"persistent", 4},          {"transient", 8},
    {"state-running", 16},      {"state-paused", 32},
    {"state-shutoff", 64},      {"state-other", 128},
    {"with-managed-save", 256}, {"without-managed-save", 512},
    {"autostart", 1024},        {"no-autostart", 2048},
    {"with-snapshot", 4096},    {"without-snapshot", 8192},
    {"with-checkpoint", 16384}, {"without-checkpoint", 32768},
};

/* Those that run by their number, the others behind them by name. */
static int by_id(const void *a, const void *b)
{
    const rpc_domain *x = a, *y = b;
    if (x->id != y->id && x->id != -1 && y->id != -1) {
        return x->id < y->id ? -1 : 1;
    }
    if ((x->id == -1) != (y->id == -1)) {
        return x->id == -1 ? 1 : -1;
    }
    return g_ascii_strcasecmp(x->name, y->name);
}

static char *title_of(Rpc *rpc, const rpc_domain *dom)
{
    enum { TITLE = 1 };
    rpc_get_metadata_args args = {.dom = *dom, .type = TITLE};
    g_auto(rpc_text) title = {0};
    return ask_domain_get_metadata(rpc, &args, &title, NULL) ? g_strdup(title.text) : g_strdup("");
}

enum { STATS_STATE = 1 };

uint64_t stats_number(const rpc_domain_stats *s, const char *name)
{
    for (unsigned i = 0; i < s->params.params_len; i++) {
        const rpc_param *p = &s->params.params_val[i];
        if (strcmp(p->field, name) == 0) {
            return p->value.type == 4   ? p->value.rpc_value_u.ul
                   : p->value.type == 3 ? (uint64_t)p->value.rpc_value_u.l
                                        : (uint64_t)p->value.rpc_value_u.i;
        }
    }
    return 0;
}

static int by_uuid(const void *a, const void *b)
{
    const rpc_domain_stats *x = a, *y = b;
    return memcmp(x->dom.uuid, y->dom.uuid, sizeof(rpc_uuid));
}

/* The states of all machines in one answer, sorted by UUID. */
static void states_of(Rpc *rpc, unsigned flags, rpc_all_stats *all)
{
    rpc_stats_args args = {.stats = STATS_STATE, .flags = flags};
    if (ask_connect_get_all_domain_stats(rpc, &args, all, NULL)) {
        sort_items(all->items.items_val, all->items.items_len, sizeof(rpc_domain_stats), by_uuid);
    }
}

static const char *state_of(Rpc *rpc, const rpc_all_stats *states, const rpc_domain *dom,
                            bool mark_saved)
{
    rpc_domain_flags args = {*dom, 0};
    rpc_domain_state state;
    rpc_int saved;
    const rpc_domain_stats key = {.dom = *dom};
    if (mark_saved && dom->id == -1 &&
        ask_domain_has_managed_save_image(rpc, &args, &saved, NULL) && saved.value) {
        return "saved";
    }
    const rpc_domain_stats *known =
        states->items.items_len
            ? bsearch(&key, states->items.items_val, states->items.items_len, sizeof(key), by_uuid)
            : NULL;
    if (known) {
        return domain_state_name((int)stats_number(known, "state.state"));
    }
    return ask_domain_get_state(rpc, &args, &state, NULL) ? domain_state_name(state.state)
                                                          : "no state";
}

static void list_table(struct shell *sh, const struct args *a, Rpc *rpc, const rpc_domains *all,
                       unsigned flags)
{
    static const char *const plain[] = {"Id", "Name", "State", NULL};
    static const char *const titled[] = {"Id", "Name", "State", "Title", NULL};
    bool title = args_flag(a, "title");
    g_auto(rpc_all_stats) states = {0};
    states_of(rpc, flags, &states);
    out_table(sh, title ? titled : plain);
    for (unsigned i = 0; i < all->items.items_len; i++) {
        const rpc_domain *d = &all->items.items_val[i];
        g_autofree char *id = d->id == -1 ? g_strdup("-") : g_strdup_printf("%d", d->id);
        const char *state = state_of(rpc, &states, d, args_flag(a, "managed-save"));
        g_autofree char *text = title ? title_of(rpc, d) : NULL;
        out_row(sh, id, d->name, state, text, NULL);
    }
    out_table_end(sh);
}

static bool run_list(struct shell *sh, const struct args *a, GError **error)
{
    unsigned flags = flags_of(a, list_bits, G_N_ELEMENTS(list_bits));
    flags |= args_flag(a, "inactive") ? 0 : LIST_ACTIVE;
    flags |= args_flag(a, "inactive") || args_flag(a, "all") ? LIST_INACTIVE : 0;
    rpc_list_args args = {.need_results = 1, .flags = flags};
    g_auto(rpc_domains) all = {0};
    Rpc *rpc = shell_rpc(sh, error);
    bool names = args_flag(a, "name"), uuids = args_flag(a, "uuid"), ids = args_flag(a, "id");
    if (!rpc || !ask_connect_list_all_domains(rpc, &args, &all, error)) {
        shell_failing(sh, "Failed to list domains");
        return false;
    }
    sort_items(all.items.items_val, all.items.items_len, sizeof(rpc_domain), by_id);
    if (!names && !uuids && !ids) {
        list_table(sh, a, rpc, &all, flags);
        return true;
    }
    for (unsigned i = 0; i < all.items.items_len; i++) {
        const rpc_domain *d = &all.items.items_val[i];
        g_autofree char *id = d->id == -1 ? g_strdup("-") : g_strdup_printf("%d", d->id);
        g_autofree char *uuid = uuid_text(d->uuid);
        g_autofree char *line = g_strjoin(" ",
                                          ids     ? id
                                          : uuids ? uuid
                                                  : d->name,
                                          ids && uuids              ? uuid
                                          : names && (ids || uuids) ? d->name
                                                                    : NULL,
                                          ids && uuids && names ? d->name : NULL, NULL);
        out_line(sh, "%s", line);
    }
    return true;
}

/* ---- dominfo, domstate, ids ---- */

static void info_flags(struct shell *sh, Rpc *rpc, const rpc_domain *dom)
{
    rpc_domain_args args = {*dom};
    rpc_domain_flags flags = {*dom, 0};
    rpc_int v;
    if (ask_domain_is_persistent(rpc, &args, &v, NULL)) {
        out_field(sh, "Persistent:", "%s", v.value ? "yes" : "no");
    }
    if (ask_domain_get_autostart(rpc, &args, &v, NULL)) {
        out_field(sh, "Autostart:", "%s", v.value ? "enable" : "disable");
    }
    if (ask_domain_has_managed_save_image(rpc, &flags, &v, NULL)) {
        out_field(sh, "Managed save:", "%s", v.value ? "yes" : "no");
    }
}

static void info_security(struct shell *sh, Rpc *rpc, const rpc_domain *dom)
{
    rpc_none none = {0};
    g_auto(rpc_security_model) m = {0};
    g_auto(rpc_security_label) label = {0};
    rpc_domain_args args = {*dom};
    if (!ask_node_get_security_model(rpc, &none, &m, NULL)) {
        return;
    }
    if (!m.model.model_len || !*m.model.model_val) {
        out_field(sh, "Security model:", "none");
        out_field(sh, "Security DOI:", "0");
        return;
    }
    out_field(sh, "Security model:", "%.*s", (int)m.model.model_len, m.model.model_val);
    out_field(sh, "Security DOI:", "%.*s", (int)m.doi.doi_len, m.doi.doi_val);
    if (dom->id != -1 && ask_domain_get_security_label(rpc, &args, &label, NULL) &&
        label.label.label_len && *label.label.label_val) {
        out_field(sh, "Security label:", "%.*s (%s)", (int)label.label.label_len,
                  label.label.label_val, label.enforcing ? "enforcing" : "permissive");
    }
}

static bool run_dominfo(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_text) os = {0};
    g_auto(rpc_texts) messages = {0};
    rpc_domain_info info;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_domain_args args = {dom};
    rpc_domain_flags flags = {dom, 0};
    if (!ask_domain_get_info(rpc, &args, &info, error)) {
        return false;
    }
    g_autofree char *uuid = uuid_text(dom.uuid);
    if (dom.id == -1) {
        out_field(sh, "Id:", "-");
    } else {
        out_field(sh, "Id:", "%d", dom.id);
    }
    out_field(sh, "Name:", "%s", dom.name);
    out_field(sh, "UUID:", "%s", uuid);
    if (ask_domain_get_os_type(rpc, &args, &os, NULL)) {
        out_field(sh, "OS Type:", "%s", os.text);
    }
    out_field(sh, "State:", "%s", domain_state_name(info.state));
    out_field(sh, "CPU(s):", "%u", info.vcpus);
    if (info.cpu_time) {
        out_field(sh, "CPU time:", "%.1fs", (double)info.cpu_time / 1e9);
    }
    out_field(sh, "Max memory:", "%" PRIu64 " KiB", (uint64_t)info.max_memory);
    out_field(sh, "Used memory:", "%" PRIu64 " KiB", (uint64_t)info.memory);
    info_flags(sh, rpc, &dom);
    info_security(sh, rpc, &dom);
    if (ask_domain_get_messages(rpc, &flags, &messages, NULL)) {
        for (unsigned i = 0; i < messages.texts.texts_len; i++) {
            out_field(sh, i ? "" : "Messages:", "%s", messages.texts.texts_val[i]);
        }
    }
    return true;
}

static const char *reason_name(int state, int reason)
{
    static const char *const running[] = {
        "unknown",       "booted",   "migrated",           "restored",
        "from snapshot", "unpaused", "migration canceled", "save canceled",
        "event wakeup",  "crashed",  "post-copy",          "post-copy failed"};
    static const char *const paused[] = {
        "unknown",   "user",        "migrating",     "saving",          "dumping",
        "I/O error", "watchdog",    "from snapshot", "shutting down",   "creating snapshot",
        "crashed",   "starting up", "post-copy",     "post-copy failed"};
    static const char *const shutdown[] = {"unknown", "user"};
    static const char *const shutoff[] = {"unknown", "shutdown",      "destroyed",
                                          "crashed", "migrated",      "saved",
                                          "failed",  "from snapshot", "daemon"};
    static const char *const crashed[] = {"unknown", "panicked"};
    static const struct {
        const char *const *names;
        int n;
    } of[] = {{NULL, 0},
              {running, G_N_ELEMENTS(running)},
              {NULL, 0},
              {paused, G_N_ELEMENTS(paused)},
              {shutdown, G_N_ELEMENTS(shutdown)},
              {shutoff, G_N_ELEMENTS(shutoff)},
              {crashed, G_N_ELEMENTS(crashed)}};
    return state >= 0 && state < (int)G_N_ELEMENTS(of) && reason >= 0 && reason < of[state].n
               ? of[state].names[reason]
               : "unknown";
}

static bool run_domstate(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    rpc_domain_state state;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_flags args = {dom, 0};
    if (!ask_domain_get_state(shell_rpc(sh, NULL), &args, &state, error)) {
        return false;
    }
    if (args_flag(a, "reason")) {
        out_text(sh, "state", "%s (%s)\n", domain_state_name(state.state),
                 reason_name(state.state, state.reason));
    } else {
        out_text(sh, "state", "%s\n", domain_state_name(state.state));
    }
    return true;
}

static bool run_domid(struct shell *sh, const struct args *a, GError **error)
{
    const char *what = shell_data(sh);
    g_auto(rpc_domain) dom = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    g_autofree char *uuid = uuid_text(dom.uuid);
    if (strcmp(what, "name") == 0 && strcmp(args_text(a, "domain"), dom.name) == 0) {
        return shell_fail(error, "failed to get domain '%s'",
                          dom.name); /* virsh wants the others */
    }
    if (strcmp(what, "id") != 0) {
        out_text(sh, what, "%s\n", strcmp(what, "uuid") == 0 ? uuid : dom.name);
    } else if (dom.id == -1) {
        out_text(sh, what, "-\n");
    } else {
        out_text(sh, what, "%d\n", dom.id);
    }
    return true;
}

static bool run_domcontrol(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const names[] = {"ok", "background job", "occupied", "error"};
    g_auto(rpc_domain) dom = {0};
    rpc_control_info info;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_flags args = {dom, 0};
    if (!ask_domain_get_control_info(shell_rpc(sh, NULL), &args, &info, error)) {
        return false;
    }
    static const char *const reasons[] = {"", "unknown", "monitor failure",
                                          "internal (locking) error"};
    const char *name = info.state < G_N_ELEMENTS(names) ? names[info.state] : "unknown";
    if (info.state == 3 && info.details > 0 && info.details < G_N_ELEMENTS(reasons)) {
        out_text(sh, "state", "%s: %s\n", name, reasons[info.details]);
    } else if (info.state && info.state != 3) {
        out_text(sh, "state", "%s (%0.3fs)\n", name, (double)info.state_time / 1000);
    } else {
        out_text(sh, "state", "%s\n", name);
    }
    return true;
}

/* ---- What the XML says ---- */

static bool run_domblklist(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const plain[] = {"Target", "Source", NULL};
    static const char *const detailed[] = {"Type", "Device", "Target", "Source", NULL};
    bool details = args_flag(a, "details");
    g_auto(rpc_domain) dom = {0};
    g_auto(xpath_t) x = {0};
    if (!xpath_domain(sh, args_text(a, "domain"), args_flag(a, "inactive") ? XML_INACTIVE : 0, &dom,
                      &x, error)) {
        return false;
    }
    xmlXPathObjectPtr disks = xpath_nodes(&x, "devices/disk");
    out_table(sh, details ? detailed : plain);
    for (int i = 0; disks && disks->nodesetval && i < disks->nodesetval->nodeNr; i++) {
        xmlNodePtr n = disks->nodesetval->nodeTab[i];
        g_autofree char *type = xpath_text(&x, n, "@type");
        g_autofree char *device = xpath_text(&x, n, "@device");
        g_autofree char *target = xpath_text(&x, n, "target/@dev");
        g_autofree char *source = xpath_text(&x, n,
                                             "source/@file|source/@dev|source/@dir|"
                                             "source/@name|source/@volume");
        const char *from = source ? source : "-", *to = target ? target : "-";
        if (details) {
            out_row(sh, type ? type : "-", device ? device : "disk", to, from, NULL);
        } else {
            out_row(sh, to, from, NULL);
        }
    }
    out_table_end(sh);
    xmlXPathFreeObject(disks);
    return true;
}

static bool run_domiflist(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const headers[] = {"Interface", "Type", "Source", "Model", "MAC", NULL};
    g_auto(rpc_domain) dom = {0};
    g_auto(xpath_t) x = {0};
    if (!xpath_domain(sh, args_text(a, "domain"), args_flag(a, "inactive") ? XML_INACTIVE : 0, &dom,
                      &x, error)) {
        return false;
    }
    xmlXPathObjectPtr cards = xpath_nodes(&x, "devices/interface");
    out_table(sh, headers);
    for (int i = 0; cards && cards->nodesetval && i < cards->nodesetval->nodeNr; i++) {
        xmlNodePtr n = cards->nodesetval->nodeTab[i];
        g_autofree char *target = xpath_text(&x, n, "target/@dev");
        g_autofree char *type = xpath_text(&x, n, "@type");
        g_autofree char *source = xpath_text(&x, n,
                                             "source/@bridge|source/@dev|source/@network|"
                                             "source/@name");
        g_autofree char *model = xpath_text(&x, n, "model/@type");
        g_autofree char *mac = xpath_text(&x, n, "mac/@address");
        out_row(sh, target ? target : "-", type ? type : "-", source ? source : "-",
                model ? model : "-", mac ? mac : "-", NULL);
    }
    out_table_end(sh);
    xmlXPathFreeObject(cards);
    return true;
}

static bool run_ttyconsole(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(xpath_t) x = {0};
    if (!xpath_domain(sh, args_text(a, "domain"), 0, &dom, &x, error)) {
        return false;
    }
    g_autofree char *tty = xpath_text(&x, NULL, "devices/console/@tty");
    if (!tty) {
        shell_failing(sh, "%s", "");
        return false;
    }
    out_text(sh, "tty", "%s\n", tty);
    return true;
}

enum { VNC_BASE = 5900 };

/* Where a running domain's VNC server listens; port -1: it has none, or at a socket alone. */
struct screen {
    int port;
    char *listen, *socket, *password;
};

static void screen_clear(struct screen *s)
{
    g_free(s->listen);
    g_free(s->socket);
    g_free(s->password);
}
typedef struct screen screen_t;
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(screen_t, screen_clear)

static bool find_screen(struct shell *sh, const struct args *a, unsigned flags, screen_t *s,
                        GError **error)
{
    g_auto(rpc_domain) dom = {0};
    g_auto(xpath_t) x = {0};
    if (!xpath_domain(sh, args_text(a, "domain"), flags, &dom, &x, error)) {
        return false;
    }
    if (dom.id == -1) {
        return shell_fail(error, "Domain is not running");
    }
    g_autofree char *port = xpath_text(&x, NULL, "devices/graphics[@type='vnc']/@port");
    s->port = port ? (int)g_ascii_strtoll(port, NULL, 10) : -1;
    s->listen = xpath_text(&x, NULL, "devices/graphics[@type='vnc']/@listen");
    s->socket = xpath_text(&x, NULL, "devices/graphics[@type='vnc']/listen/@socket");
    s->password = xpath_text(&x, NULL, "devices/graphics[@type='vnc']/@passwd");
    return true;
}

static bool run_vncdisplay(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(screen_t) s = {0};
    if (!find_screen(sh, a, 0, &s, error)) {
        return false;
    }
    if (s.port < VNC_BASE) {
        return shell_fail(error, "Failed to get VNC port. Is this domain using VNC?");
    }
    bool any = !s.listen || strcmp(s.listen, "0.0.0.0") == 0;
    out_text(sh, "display", "%s:%d\n", any ? "" : s.listen, s.port - VNC_BASE);
    return true;
}

static bool run_domdisplay(struct shell *sh, const struct args *a, GError **error)
{
    enum { SECURE = 1 };
    const char *type = args_text(a, "type");
    bool secret = args_flag(a, "include-password");
    g_auto(screen_t) s = {0};
    if (!find_screen(sh, a, secret ? SECURE : 0, &s, error)) {
        return false;
    }
    if ((type && strcmp(type, "vnc") != 0) || (s.port < VNC_BASE && !s.socket)) {
        return type ? shell_fail(error, "No graphical display with type '%s' found", type)
                    : shell_fail(error, "No graphical display found");
    }
    bool any = !s.listen || strcmp(s.listen, "0.0.0.0") == 0 || strcmp(s.listen, "::") == 0;
    bool colons = !any && strchr(s.listen, ':');
    g_autofree char *where =
        s.port < VNC_BASE
            ? g_strdup(s.socket)
            : g_strdup_printf("%s%s%s:%d", colons ? "[" : "", any ? "localhost" : s.listen,
                              colons ? "]" : "", s.port - VNC_BASE);
    bool shown = secret && s.password;
    out_text(sh, "uri", "vnc://%s%s%s%s%s", shown ? ":" : "", shown ? s.password : "",
             shown ? "@" : "", where, args_flag(a, "all") ? "\n" : "");
    return true;
}

/* ---- Statistics ---- */

static const struct flag_bit stats_bits[] = {{"state", 1},       {"cpu-total", 2},  {"balloon", 4},
                                             {"vcpu", 8},        {"interface", 16}, {"block", 32},
                                             {"perf", 64},       {"iothread", 128}, {"memory", 256},
                                             {"dirtyrate", 512}, {"vm", 1024}};
static const struct flag_bit stats_flags[] = {
    {"list-active", 1},   {"list-inactive", 2},  {"list-persistent", 4}, {"list-transient", 8},
    {"list-running", 16}, {"list-paused", 32},   {"list-shutoff", 64},   {"list-other", 128},
    {"nowait", 1u << 29}, {"backing", 1u << 30}, {"enforce", 1u << 31}};

static bool run_domstats(struct shell *sh, const struct args *a, GError **error)
{
    Rpc *rpc = shell_rpc(sh, error);
    g_autoptr(GArray) doms = g_array_new(FALSE, TRUE, sizeof(rpc_domain));
    g_auto(rpc_all_stats) all = {0};
    bool ok = rpc != NULL;
    for (char **name = args_many(a, "domain"); ok && name && *name; name++) {
        rpc_domain dom = {0};
        ok = shell_domain(sh, *name, &dom, error);
        if (ok) {
            g_array_append_val(doms, dom);
        }
    }
    rpc_stats_args args = {{doms->len, (rpc_domain *)(void *)doms->data},
                           flags_of(a, stats_bits, G_N_ELEMENTS(stats_bits)),
                           flags_of(a, stats_flags, G_N_ELEMENTS(stats_flags))};
    ok = ok && ask_connect_get_all_domain_stats(rpc, &args, &all, error);
    for (unsigned i = 0; i < all.items.items_len; i++) {
        const rpc_domain_stats *s = &all.items.items_val[i];
        if (out_is_json(sh)) {
            out_field(sh, "domain", "%s", s->dom.name);
        } else {
            out_line(sh, "%sDomain: '%s'", i ? "\n" : "", s->dom.name);
        }
        for (unsigned p = 0; p < s->params.params_len; p++) {
            g_autofree char *value = param_text(&s->params.params_val[p]);
            out_stat(sh, s->params.params_val[p].field, value);
        }
        if (out_is_json(sh)) {
            out_next(sh);
        }
    }
    for (unsigned i = 0; i < doms->len; i++) {
        rpc_domain_clear(&g_array_index(doms, rpc_domain, i));
    }
    return ok;
}

static bool set_period(struct shell *sh, const struct args *a, const rpc_domain *dom,
                       uint64_t seconds, GError **error)
{
    rpc_domain_int_flags args = {*dom, (int)MIN(seconds, INT32_MAX), affect_of(a)};
    rpc_none none;
    bool ok = ask_domain_set_memory_stats_period(shell_rpc(sh, NULL), &args, &none, error);
    if (!ok) {
        shell_failing(sh, "Unable to change balloon collection period.");
    }
    return ok;
}

static bool run_dommemstat(struct shell *sh, const struct args *a, GError **error)
{
    uint64_t seconds;
    static const char *const names[] = {
        "swap_in",     "swap_out",        "major_fault",   "minor_fault", "unused",
        "available",   "actual",          "rss",           "usable",      "last_update",
        "disk_caches", "hugetlb_pgalloc", "hugetlb_pgfail"};
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_memory_stats) stats = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    if (args_number(a, "period", &seconds)) {
        return set_period(sh, a, &dom, seconds, error);
    }
    rpc_domain_uint_flags args = {dom, G_N_ELEMENTS(names), 0};
    if (!ask_domain_memory_stats(shell_rpc(sh, NULL), &args, &stats, error)) {
        shell_failing(sh, "Failed to get memory statistics for domain %s", dom.name);
        return false;
    }
    for (unsigned i = 0; i < stats.stats.stats_len; i++) {
        const rpc_memory_stat *s = &stats.stats.stats_val[i];
        if (s->tag >= 0 && s->tag < (int)G_N_ELEMENTS(names)) {
            g_autofree char *label = g_strdup_printf("%s ", names[s->tag]);
            out_field_wide(sh, 0, label, "%" PRIu64, (uint64_t)s->value);
        }
    }
    return true;
}

static char *bytes_text(uint64_t bytes, bool human)
{
    return human ? out_size(bytes, 3) : g_strdup_printf("%" PRIu64, bytes);
}

/* A row for each disk; of one that has no medium nothing is known. */
static bool all_disks(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const headers[] = {"Target", "Capacity", "Allocation", "Physical", NULL};
    bool human = args_flag(a, "human");
    g_auto(rpc_domain) dom = {0};
    g_auto(xpath_t) x = {0};
    if (!xpath_domain(sh, args_text(a, "domain"), 0, &dom, &x, error)) {
        return false;
    }
    xmlXPathObjectPtr found = xpath_nodes(&x, "devices/disk");
    bool ok = true;
    out_table(sh, headers);
    for (int i = 0; ok && i < xmlXPathNodeSetGetLength(found ? found->nodesetval : NULL); i++) {
        xmlNodePtr disk = found->nodesetval->nodeTab[i];
        g_autofree char *target = xpath_text(&x, disk, "target/@dev");
        g_autofree char *source = xpath_text(&x, disk, "source");
        rpc_domain_text_flags args = {dom, target, 0};
        rpc_block_info info;
        if (!source) {
            out_row(sh, target, "-", "-", "-", NULL);
            continue;
        }
        ok = ask_domain_get_block_info(shell_rpc(sh, NULL), &args, &info, error);
        if (ok) {
            g_autofree char *capacity = bytes_text(info.capacity, human);
            g_autofree char *allocation = bytes_text(info.allocation, human);
            g_autofree char *physical = bytes_text(info.physical, human);
            out_row(sh, target, capacity, allocation, physical, NULL);
        }
    }
    xmlXPathFreeObject(found);
    if (ok) {
        out_table_end(sh);
    }
    return ok;
}

static bool run_domblkinfo(struct shell *sh, const struct args *a, GError **error)
{
    g_auto(rpc_domain) dom = {0};
    rpc_block_info info;
    if (args_flag(a, "all")) {
        return all_disks(sh, a, error);
    }
    if (!args_text(a, "device")) {
        return shell_fail(error, "command 'domblkinfo' requires <device> option");
    }
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_text_flags args = {dom, (char *)args_text(a, "device"), 0};
    if (!ask_domain_get_block_info(shell_rpc(sh, NULL), &args, &info, error)) {
        return false;
    }
    const struct {
        const char *label;
        uint64_t bytes;
    } rows[] = {{"Capacity:", info.capacity},
                {"Allocation:", info.allocation},
                {"Physical:", info.physical}};
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *text = bytes_text(rows[i].bytes, args_flag(a, "human"));
        out_field(sh, rows[i].label, "%s", text);
    }
    return true;
}

/* What is counted of a disk: the daemon's name, what virsh has always printed, words for people. */
static const struct {
    const char *field, *old, *human;
} disk_counts[] = {
    {"rd_operations", "rd_req", "number of read operations:"},
    {"rd_bytes", "rd_bytes", "number of bytes read:"},
    {"wr_operations", "wr_req", "number of write operations:"},
    {"wr_bytes", "wr_bytes", "number of bytes written:"},
    {"errs", "errs", "error count:"},
    {"flush_operations", "flush_operations", "number of flush operations:"},
    {"rd_total_times", "rd_total_times", "total duration of reads (ns):"},
    {"wr_total_times", "wr_total_times", "total duration of writes (ns):"},
    {"flush_total_times", "flush_total_times", "total duration of flushes (ns):"},
};

static void show_count(struct shell *sh, unsigned row, const char *device, bool human,
                       const rpc_param *p)
{
    g_autofree char *value = param_text(p);
    g_autofree char *label = human ? g_strdup_printf(" %-31s ", disk_counts[row].human)
                                   : g_strdup_printf("%s %s ", device, disk_counts[row].old);
    out_field_wide(sh, 0, out_is_json(sh) ? disk_counts[row].old : label, "%s", value);
}

static bool run_domblkstat(struct shell *sh, const struct args *a, GError **error)
{
    const char *device = args_text(a, "device") ? args_text(a, "device") : "";
    bool human = args_flag(a, "human");
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_params_count) counts = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_of_int_flags args = {dom, (char *)device, 0, 0};
    Rpc *rpc = shell_rpc(sh, NULL);
    if (!ask_domain_block_stats_flags(rpc, &args, &counts, error)) {
        return false;
    }
    args.max = counts.count;
    if (!ask_domain_block_stats_flags(rpc, &args, &counts, error)) {
        shell_failing(sh, "Failed to get block stats for domain '%s' device '%s'", dom.name,
                      device);
        return false;
    }
    if (human) {
        out_text(sh, "device", "Device: %s\n", device);
    }
    for (unsigned row = 0; row < G_N_ELEMENTS(disk_counts); row++) {
        for (unsigned i = 0; i < counts.params.params_len; i++) {
            if (strcmp(counts.params.params_val[i].field, disk_counts[row].field) == 0) {
                show_count(sh, row, device, human, &counts.params.params_val[i]);
            }
        }
    }
    return true;
}

static bool run_domifstat(struct shell *sh, const struct args *a, GError **error)
{
    const char *device = args_text(a, "interface");
    g_auto(rpc_domain) dom = {0};
    rpc_interface_stats s;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_text args = {dom, (char *)device};
    if (!ask_domain_interface_stats(shell_rpc(sh, NULL), &args, &s, error)) {
        shell_failing(sh, "Failed to get interface stats %s %s", dom.name, device);
        return false;
    }
    const struct {
        const char *name;
        int64_t value;
    } rows[] = {{"rx_bytes", s.rx_bytes}, {"rx_packets", s.rx_packets},
                {"rx_errs", s.rx_errs},   {"rx_drop", s.rx_drop},
                {"tx_bytes", s.tx_bytes}, {"tx_packets", s.tx_packets},
                {"tx_errs", s.tx_errs},   {"tx_drop", s.tx_drop}};
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (rows[i].value >= 0) {
            g_autofree char *label = g_strdup_printf("%s %s ", device, rows[i].name);
            out_field_wide(sh, 0, out_is_json(sh) ? rows[i].name : label, "%" PRId64,
                           rows[i].value);
        }
    }
    return true;
}

/* ---- Processors ---- */

static bool run_vcpucount(struct shell *sh, const struct args *a, GError **error)
{
    static const struct {
        const char *first, *second;
        unsigned flags; /* LIVE 1, CONFIG 2, MAXIMUM 4, GUEST 8 */
    } rows[] = {{"maximum", "config", 6},
                {"maximum", "live", 5},
                {"current", "config", 2},
                {"current", "live", 1}};
    g_auto(rpc_domain) dom = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    unsigned want = (args_flag(a, "live") ? 1 : 0) | (args_flag(a, "config") ? 2 : 0) |
                    (args_flag(a, "maximum") ? 4 : 0) | (args_flag(a, "guest") ? 8 : 0);
    bool one = want || args_flag(a, "current") || args_flag(a, "active");
    if (!exclusive(a, "live", "config", error) || !exclusive(a, "active", "maximum", error) ||
        !exclusive(a, "current", "live", error) || !exclusive(a, "current", "config", error) ||
        !exclusive(a, "guest", "config", error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    if (one) {
        rpc_domain_flags args = {dom, want};
        rpc_int n;
        if (!ask_domain_get_vcpus_flags(rpc, &args, &n, error)) {
            return false;
        }
        out_text(sh, "count", "%d\n", n.value);
        return true;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        rpc_domain_flags args = {dom, rows[i].flags};
        rpc_int n;
        if (ask_domain_get_vcpus_flags(rpc, &args, &n, NULL)) {
            g_autofree char *label = g_strdup_printf("%-12s %-12s ", rows[i].first, rows[i].second);
            out_field_wide(sh, 0, label, "%3d", n.value);
        }
    }
    return true;
}

/* "yy--": on which of the host's processors; the map begins at byte @at. */
static char *affinity_of(const char *maps, size_t len, size_t at, int cpus, bool pretty)
{
    if (pretty) {
        struct cpuset set = {0};
        memcpy(set.bytes, maps + MIN(at, len), MIN(len - MIN(at, len), ((size_t)cpus + 7) / 8));
        g_autofree char *list = cpuset_format(&set);
        return g_strdup_printf("%s (out of %d)", list, cpus);
    }
    GString *text = g_string_new(NULL);
    for (int p = 0; p < cpus; p++) {
        size_t byte = at + (size_t)p / 8;
        bool may = byte < len && (maps[byte] >> (p % 8) & 1);
        g_string_append_c(text, may ? 'y' : '-');
    }
    return g_string_free(text, FALSE);
}

/* What is off runs nowhere, but where it may run is known. */
static bool pins_of_inactive(struct shell *sh, Rpc *rpc, const rpc_domain *dom, int vcpus, int cpus,
                             bool pretty, GError **error)
{
    enum { CONFIG = 2 };
    int bytes = (cpus + 7) / 8;
    rpc_vcpu_pins_args args = {*dom, vcpus, bytes, CONFIG};
    g_auto(rpc_cpu_maps) maps = {0};
    if (!ask_domain_get_vcpu_pin_info(rpc, &args, &maps, error)) {
        return false;
    }
    for (int i = 0; i < vcpus; i++) {
        g_autofree char *affinity = affinity_of(maps.maps.maps_val, maps.maps.maps_len,
                                                (size_t)i * (size_t)bytes, cpus, pretty);
        out_field(sh, "VCPU:", "%d", i);
        out_field(sh, "CPU:", "N/A");
        out_field(sh, "State:", "N/A");
        out_field(sh, "CPU time", "N/A");
        out_field(sh, "CPU Affinity:", "%s", affinity);
        if (i + 1 < vcpus) {
            out_next(sh);
        }
    }
    return true;
}

static bool run_vcpuinfo(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const states[] = {"offline", "running", "blocked"};
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_vcpus) v = {0};
    rpc_none none = {0};
    rpc_node_info node;
    rpc_domain_info info;
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    Rpc *rpc = shell_rpc(sh, NULL);
    rpc_domain_args by_dom = {dom};
    if (!ask_node_get_info(rpc, &none, &node, error) ||
        !ask_domain_get_info(rpc, &by_dom, &info, error)) {
        return false;
    }
    int bytes = (node.cpus + 7) / 8;
    rpc_vcpus_args args = {dom, info.vcpus, bytes};
    if (dom.id == -1) {
        return pins_of_inactive(sh, rpc, &dom, info.vcpus, node.cpus, args_flag(a, "pretty"),
                                error);
    }
    if (!ask_domain_get_vcpus(rpc, &args, &v, error)) {
        return false;
    }
    for (unsigned i = 0; i < v.vcpus.vcpus_len; i++) {
        const rpc_vcpu *c = &v.vcpus.vcpus_val[i];
        g_autofree char *affinity = affinity_of(v.maps.maps_val, v.maps.maps_len, i * (size_t)bytes,
                                                node.cpus, args_flag(a, "pretty"));
        out_field(sh, "VCPU:", "%u", c->number);
        out_field(sh, "CPU:", "%d", c->cpu);
        out_field(sh, "State:", "%s",
                  c->state >= 0 && c->state < 3 ? states[c->state] : "no state");
        if (c->cpu_time) {
            out_field(sh, "CPU time:", "%.1fs", (double)c->cpu_time / 1e9);
        }
        out_field(sh, "CPU Affinity:", "%s", affinity);
        if (i + 1 < v.vcpus.vcpus_len) {
            out_next(sh);
        }
    }
    return true;
}

const struct verb_group verb_group_monitor = {
    "Domain Monitoring", "monitor",
    (const struct verb_row[]){
        {"domblkinfo",
         (const struct option_row[]){NAMED,
                                     {"device", OPT_TEXT, 0, "target or source of the disk"},
                                     {"human", OPT_BOOL, 0, "sizes for people"},
                                     {"all", OPT_BOOL, 0, "of all disks"},
                                     {NULL}},
         "tells how large a disk is", run_domblkinfo},
        {"domblklist",
         (const struct option_row[]){NAMED,
                                     {"inactive", OPT_BOOL, 0, "as it will be at the next start"},
                                     {"details", OPT_BOOL, 0, "type and device too"},
                                     {NULL}},
         "lists a domain's disks", run_domblklist},
        {"domblkstat",
         (const struct option_row[]){NAMED_ACTIVE,
                                     {"device", OPT_TEXT, 0, "target of the disk"},
                                     {"human", OPT_BOOL, 0, "in words for people"},
                                     {NULL}},
         "counts what a disk did", run_domblkstat},
        {"domcontrol", (const struct option_row[]){NAMED_ACTIVE, {NULL}},
         "tells whether the machine's monitor answers", run_domcontrol},
        {"domdisplay",
         (const struct option_row[]){NAMED_ACTIVE,
                                     {"include-password", OPT_BOOL, 0, "with its password"},
                                     {"type", OPT_TEXT, OPT_NAMED, "vnc"},
                                     {"all", OPT_BOOL, 0, "of all there are"},
                                     {NULL}},
         "prints the URI of a domain's screen", run_domdisplay},
        {"domid", (const struct option_row[]){NAMED, {NULL}}, "prints a domain's number", run_domid,
         "id"},
        {"domiflist",
         (const struct option_row[]){
             NAMED, {"inactive", OPT_BOOL, 0, "as it will be at the next start"}, {NULL}},
         "lists a domain's network cards", run_domiflist},
        {"domifstat",
         (const struct option_row[]){
             NAMED_ACTIVE,
             {"interface", OPT_TEXT, OPT_NEEDED, "target or MAC of the card"},
             {NULL}},
         "counts what a network card did", run_domifstat},
        {"dominfo", (const struct option_row[]){NAMED, {NULL}}, "tells about a domain",
         run_dominfo},
        {"dommemstat",
         (const struct option_row[]){
             NAMED_ACTIVE,
             {"period", OPT_NUMBER, OPT_NAMED, "every how many seconds the guest is asked"},
             AFFECT_OPTIONS,
             {NULL}},
         "tells how a domain uses its memory", run_dommemstat},
        {"domname", (const struct option_row[]){NAMED, {NULL}}, "prints a domain's name", run_domid,
         "name"},
        {"domstate", (const struct option_row[]){NAMED, {"reason", OPT_BOOL, 0, "and why"}, {NULL}},
         "prints a domain's state", run_domstate},
        {"domstats",
         (const struct option_row[]){
             {"state", OPT_BOOL, 0, "state"},
             {"cpu-total", OPT_BOOL, 0, "CPU time"},
             {"balloon", OPT_BOOL, 0, "memory"},
             {"vcpu", OPT_BOOL, 0, "processors"},
             {"interface", OPT_BOOL, 0, "network cards"},
             {"block", OPT_BOOL, 0, "disks"},
             {"perf", OPT_BOOL, 0, "performance counters"},
             {"iothread", OPT_BOOL, 0, "I/O threads"},
             {"memory", OPT_BOOL, 0, "memory bandwidth"},
             {"dirtyrate", OPT_BOOL, 0, "how fast memory is written"},
             {"vm", OPT_BOOL, 0, "counters of the virtual machine"},
             {"raw", OPT_BOOL, 0, "numbers as they are (they always are)"},
             {"list-active", OPT_BOOL, 0, "of running domains"},
             {"list-inactive", OPT_BOOL, 0, "of domains that do not run"},
             {"list-persistent", OPT_BOOL, 0, "of defined domains"},
             {"list-transient", OPT_BOOL, 0, "of domains without definition"},
             {"list-running", OPT_BOOL, 0, "of running domains"},
             {"list-paused", OPT_BOOL, 0, "of paused domains"},
             {"list-shutoff", OPT_BOOL, 0, "of domains that are off"},
             {"list-other", OPT_BOOL, 0, "of domains in other states"},
             {"enforce", OPT_BOOL, 0, "fail if a statistic is not there"},
             {"backing", OPT_BOOL, 0, "backing files of disks too"},
             {"nowait", OPT_BOOL, 0, "only what can be had at once"},
             {"domain", OPT_MANY, 0, "of these", COMPLETE_DOMAIN},
             {NULL}},
         "prints statistics of domains", run_domstats},
        {"domuuid", (const struct option_row[]){NAMED, {NULL}}, "prints a domain's UUID", run_domid,
         "uuid"},
        {"list",
         (const struct option_row[]){{"inactive", OPT_BOOL, 0, "those that do not run"},
                                     {"all", OPT_BOOL, 0, "both"},
                                     {"transient", OPT_BOOL, 0, "without definition"},
                                     {"persistent", OPT_BOOL, 0, "with one"},
                                     {"with-snapshot", OPT_BOOL, 0, "with snapshots"},
                                     {"without-snapshot", OPT_BOOL, 0, "without"},
                                     {"with-checkpoint", OPT_BOOL, 0, "with checkpoints"},
                                     {"without-checkpoint", OPT_BOOL, 0, "without"},
                                     {"state-running", OPT_BOOL, 0, "that run"},
                                     {"state-paused", OPT_BOOL, 0, "paused"},
                                     {"state-shutoff", OPT_BOOL, 0, "that are off"},
                                     {"state-other", OPT_BOOL, 0, "others"},
                                     {"autostart", OPT_BOOL, 0, "started with the daemon"},
                                     {"no-autostart", OPT_BOOL, 0, "not"},
                                     {"with-managed-save", OPT_BOOL, 0, "with a saved state"},
                                     {"without-managed-save", OPT_BOOL, 0, "without"},
                                     {"uuid", OPT_BOOL, 0, "only UUIDs"},
                                     {"name", OPT_BOOL, 0, "only names"},
                                     {"id", OPT_BOOL, 0, "only numbers"},
                                     {"table", OPT_BOOL, 0, "a table (default)"},
                                     {"managed-save", OPT_BOOL, 0, "mark those with a saved state"},
                                     {"title", OPT_BOOL, 0, "titles too"},
                                     {NULL}},
         "lists domains", run_list},
        {"ttyconsole", (const struct option_row[]){NAMED_ACTIVE, {NULL}},
         "prints the pseudo terminal of a domain's console", run_ttyconsole},
        {"vcpucount",
         (const struct option_row[]){NAMED,
                                     {"maximum", OPT_BOOL, 0, "the limit"},
                                     {"active", OPT_BOOL, 0, "in use"},
                                     {"live", OPT_BOOL, 0, "in the running machine"},
                                     {"config", OPT_BOOL, 0, "from the next start on"},
                                     {"current", OPT_BOOL, 0, "in whichever of the two there is"},
                                     {"guest", OPT_BOOL, 0, "as the guest's agent counts them"},
                                     {NULL}},
         "counts a domain's processors", run_vcpucount},
        {"vcpuinfo",
         (const struct option_row[]){NAMED, {"pretty", OPT_BOOL, 0, "as people read it"}, {NULL}},
         "tells about a domain's processors", run_vcpuinfo},
        {"vncdisplay", (const struct option_row[]){NAMED_ACTIVE, {NULL}},
         "prints the VNC display of a domain", run_vncdisplay},
        {NULL},
    }};
