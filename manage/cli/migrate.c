/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"
#include "manage/cli/progress.h"
#include "manage/rpc/connect.h"

#include <inttypes.h>
#include <string.h>

/*
 * A domain moves to another host, and the jobs that take long.
 */
#define NAMED  DOMAIN_OPTION(COMPLETE_DOMAIN)
#define ACTIVE DOMAIN_OPTION(COMPLETE_DOMAIN_ACTIVE)

enum { LIVE = 1, PEER2PEER = 2, TUNNELLED = 4, PAUSED = 32, CHANGE_PROTECTION = 256, OFFLINE = 1024 };
enum { ABORT_ON_ERROR = 4096, STATE_PAUSED = 3 };

static const struct flag_bit bits[] = {
    {"live", LIVE},
    {"p2p", PEER2PEER},
    {"tunnelled", TUNNELLED},
    {"persistent", 8},
    {"undefinesource", 16},
    {"suspend", PAUSED},
    {"copy-storage-all", 64},
    {"copy-storage-inc", 128},
    {"change-protection", CHANGE_PROTECTION},
    {"unsafe", 512},
    {"offline", OFFLINE},
    {"compressed", 2048},
    {"abort-on-error", ABORT_ON_ERROR},
    {"auto-converge", 8192},
    {"postcopy", 32768},
};

/* What the options say, in libvirt's names; NULL with an error. */
static GArray *read_params(const struct args *a, GError **error)
{
    g_autoptr(GArray) params = params_new();
    static const char *const files[][2] = {{"xml", "destination_xml"},
                                           {"persistent-xml", "persistent_xml"}};
    uint64_t bandwidth, port;
    params_text(params, "migrate_uri", args_text(a, "migrateuri"));
    params_text(params, "destination_name", args_text(a, "dname"));
    params_text(params, "listen_address", args_text(a, "listen-address"));
    for (unsigned i = 0; i < G_N_ELEMENTS(files); i++) {
        const char *path = args_text(a, files[i][0]);
        g_autofree char *xml = path ? shell_read_file(path, error) : NULL;
        if (path && !xml) {
            return NULL;
        }
        params_text(params, files[i][1], xml);
    }
    if (args_number(a, "bandwidth", &bandwidth)) {
        params_number(params, "bandwidth", 4, bandwidth);
    }
    if (args_number(a, "disks-port", &port)) {
        if (port > UINT16_MAX) {
            shell_fail(error, "disks-port %" PRIu64 " is too large", port);
            return NULL;
        }
        params_number(params, "disks_port", 1, port);
    }
    const char *list = args_text(a, "migrate-disks");
    g_auto(GStrv) disks = g_strsplit(list ? list : "", ",", -1);
    for (unsigned i = 0; disks[i]; i++) {
        params_text(params, "migrate_disks", disks[i]);
    }
    return g_steal_pointer(&params);
}

/* @name has @value from now on. */
static void set_text(GArray *params, const char *name, const char *value)
{
    for (unsigned i = 0; i < params->len; i++) {
        if (strcmp(g_array_index(params, rpc_param, i).field, name) == 0) {
            g_array_remove_index(params, i--);
        }
    }
    params_text(params, name, value);
}

struct leg {
    Rpc *here, *there;
    rpc_domain dom;
    GArray *params;
    unsigned flags;
    rpc_blob cookie; /* of the last step */
};

#define GIVE(params, given)                                                                        \
    (params).params_val = (rpc_param *)(void *)(given)->data, (params).params_len = (given)->len

static void keep_cookie(struct leg *l, char *val, u_int len)
{
    xdr_free((xdrproc_t)xdr_rpc_blob, (char *)&l->cookie);
    l->cookie.data.data_val = val;
    l->cookie.data.data_len = len;
}

static bool begin_and_prepare(struct leg *l, GError **error)
{
    rpc_domain_params_flags begin = {.dom = l->dom, .flags = l->flags | CHANGE_PROTECTION};
    rpc_begin3_ret xml;
    GIVE(begin.params, l->params);
    if (!ask_domain_migrate_begin3_params(l->here, &begin, &xml, error)) {
        return false;
    }
    keep_cookie(l, xml.cookie.cookie_val, xml.cookie.cookie_len);
    set_text(l->params, "destination_xml", xml.xml);
    g_free(xml.xml);
    rpc_prepare3_args args = {.flags = l->flags & ~(unsigned)ABORT_ON_ERROR};
    GIVE(args.params, l->params);
    args.cookie.cookie_val = l->cookie.data.data_val;
    args.cookie.cookie_len = l->cookie.data.data_len;
    rpc_prepare3_ret ready;
    if (!ask_domain_migrate_prepare3_params(l->there, &args, &ready, error)) {
        return false;
    }
    keep_cookie(l, ready.cookie.cookie_val, ready.cookie.cookie_len);
    if (ready.uri) {
        set_text(l->params, "migrate_uri", *ready.uri);
        g_free(*ready.uri);
        g_free(ready.uri);
    }
    return true;
}

static bool perform(struct leg *l, GError **error)
{
    rpc_perform3_args args = {.dom = l->dom, .flags = l->flags | CHANGE_PROTECTION};
    rpc_blob cookie;
    GIVE(args.params, l->params);
    if (!ask_domain_migrate_perform3_params(l->here, &args, &cookie, error)) {
        return false;
    }
    keep_cookie(l, cookie.data.data_val, cookie.data.data_len);
    return true;
}

static bool finish(struct leg *l, bool cancelled, GError **error)
{
    rpc_finish3_args args = {.flags = l->flags & ~(unsigned)ABORT_ON_ERROR, .cancelled = cancelled};
    rpc_finish3_ret there;
    GIVE(args.params, l->params);
    args.cookie.cookie_val = l->cookie.data.data_val;
    args.cookie.cookie_len = l->cookie.data.data_len;
    if (!ask_domain_migrate_finish3_params(l->there, &args, &there, error)) {
        return false;
    }
    xdr_free((xdrproc_t)xdr_rpc_finish3_ret, (char *)&there);
    return true;
}

static bool confirm(struct leg *l, bool cancelled, GError **error)
{
    rpc_confirm3_args args = {
        .dom = l->dom, .flags = l->flags | CHANGE_PROTECTION, .cancelled = cancelled};
    rpc_none none;
    GIVE(args.params, l->params);
    return ask_domain_migrate_confirm3_params(l->here, &args, &none, error);
}

/* This shell leads; whatever fails, both sides hear of it. */
static bool lead(struct leg *l, GError **error)
{
    g_autoptr(GError) late = NULL;
    if (!begin_and_prepare(l, error)) {
        confirm(l, true, NULL);
        return false;
    }
    bool sent = (l->flags & OFFLINE) || perform(l, error);
    bool there = finish(l, !sent, &late);
    if (sent && !there) {
        g_propagate_error(error, g_steal_pointer(&late));
    }
    return confirm(l, !there, there ? error : NULL) && there;
}

static bool by_source(struct leg *l, const char *uri, GError **error)
{
    rpc_string peer = (char *)uri;
    rpc_perform3_args args = {.dom = l->dom, .uri = &peer, .flags = l->flags};
    rpc_blob cookie;
    GIVE(args.params, l->params);
    if (!ask_domain_migrate_perform3_params(l->here, &args, &cookie, error)) {
        return false;
    }
    xdr_free((xdrproc_t)xdr_rpc_blob, (char *)&cookie);
    return true;
}

/* By this shell, or by the source's daemon. */
static bool move(struct leg *l, const char *uri, const struct args *a, GError **error)
{
    if (l->flags & PEER2PEER) {
        return by_source(l, uri, error);
    }
    g_autoptr(Rpc) there = connect_to(uri, false, error);
    if (!there) {
        return false;
    }
    l->there = there;
    if (!args_text(a, "dname")) {
        set_text(l->params, "destination_name", l->dom.name);
    }
    bool ok = lead(l, error);
    keep_cookie(l, NULL, 0);
    return ok;
}

/* After how many seconds a guest that still runs here is suspended, so that it can be caught up
 * with; 0: never. */
static bool read_patience(const struct args *a, uint64_t *seconds, GError **error)
{
    *seconds = 0;
    if (!args_number(a, "timeout", seconds) && args_flag(a, "timeout-suspend")) {
        return shell_fail(error, "migrate: Unexpected --timeout-* option without --timeout");
    }
    if (*seconds && !args_flag(a, "live")) {
        return shell_fail(error, "migrate: Unexpected timeout for offline migration");
    }
    return *seconds <= INT_MAX || shell_fail(error, "migrate: Timeout is too big");
}

static bool run_migrate(struct shell *sh, const struct args *a, GError **error)
{
    const char *uri = args_text(a, "desturi");
    uint64_t patience;
    g_auto(rpc_domain) dom = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    g_autoptr(GArray) params = read_params(a, error);
    rpc_domain_flags about = {.dom = dom};
    rpc_domain_state state;
    struct leg l = {.here = shell_rpc(sh, NULL), .dom = dom, .params = params};
    l.flags = flags_of(a, bits, G_N_ELEMENTS(bits));
    if (!params || !read_patience(a, &patience, error) ||
        !ask_domain_get_state(l.here, &about, &state, error)) {
        return false;
    }
    l.flags |= state.state == STATE_PAUSED ? PAUSED : 0;
    const char *label = args_flag(a, "verbose") ? "Migration" : NULL;
    struct progress *p =
        label || patience ? progress_begin_limited(sh, &dom, label, patience) : NULL;
    bool ok = move(&l, uri, a, error);
    if (p) {
        progress_end(p, ok);
    }
    return ok;
}

/* --- bounds --- */

static bool run_set(struct shell *sh, const struct args *a, GError **error)
{
    bool speed = strcmp(shell_data(sh), "bandwidth") == 0;
    rpc_domain_uhyper_flags args = {0};
    rpc_none none;
    g_auto(rpc_domain) dom = {0};
    args_number(a, shell_data(sh), &args.value);
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    args.dom = dom;
    Rpc *rpc = shell_rpc(sh, NULL);
    return speed ? ask_domain_migrate_set_max_speed(rpc, &args, &none, error)
                 : ask_domain_migrate_set_max_downtime(rpc, &args, &none, error);
}

static bool run_get(struct shell *sh, const struct args *a, GError **error)
{
    const char *what = shell_data(sh);
    rpc_domain_flags args = {0};
    rpc_uhyper got;
    g_auto(rpc_domain) dom = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    args.dom = dom;
    Rpc *rpc = shell_rpc(sh, NULL);
    if (strcmp(what, "bandwidth") == 0
            ? !ask_domain_migrate_get_max_speed(rpc, &args, &got, error)
            : !ask_domain_migrate_get_max_downtime(rpc, &args, &got, error)) {
        return false;
    }
    out_text(sh, what, "%" PRIu64 "\n", (uint64_t)got.value);
    return true;
}

/* --- jobs --- */

static const rpc_param *param(const rpc_job_stats *s, const char *name)
{
    for (u_int i = 0; i < s->params.params_len; i++) {
        if (strcmp(s->params.params_val[i].field, name) == 0) {
            return &s->params.params_val[i];
        }
    }
    return NULL;
}

enum unit { UNIT_BYTES, UNIT_RATE, UNIT_MS, UNIT_COUNT, UNIT_PAGE };

static void show_figure(struct shell *sh, const char *label, enum unit unit, uint64_t v)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned power = 0;
    double scaled = (double)v;
    for (; scaled >= 1024 && power + 1 < G_N_ELEMENTS(names); power++) {
        scaled /= 1024;
    }
    switch (unit) {
    case UNIT_BYTES:
        out_field_wide(sh, 18, label, "%-.3f %s", scaled, names[power]);
        break;
    case UNIT_RATE:
        out_field_wide(sh, 18, label, "%-.3f %s/s", scaled, names[power]);
        break;
    case UNIT_MS:
        out_field_wide(sh, 18, label, "%-12" PRIu64 " ms", v);
        break;
    case UNIT_COUNT:
        out_field_wide(sh, 18, label, "%-12" PRIu64, v);
        break;
    case UNIT_PAGE:
        out_field_wide(sh, 18, label, "%-12" PRIu64 " bytes", v);
        break;
    }
}

static const struct {
    const char *name, *label;
    enum unit unit;
} figures[] = {
    {"time_elapsed", "Time elapsed:", UNIT_MS},
    {"data_processed", "Data processed:", UNIT_BYTES},
    {"data_remaining", "Data remaining:", UNIT_BYTES},
    {"data_total", "Data total:", UNIT_BYTES},
    {"memory_processed", "Memory processed:", UNIT_BYTES},
    {"memory_remaining", "Memory remaining:", UNIT_BYTES},
    {"memory_total", "Memory total:", UNIT_BYTES},
    {"memory_bps", "Memory bandwidth:", UNIT_RATE},
    {"memory_page_size", "Page size:", UNIT_PAGE},
    {"memory_iteration", "Iteration:", UNIT_COUNT},
    {"downtime", "Total downtime:", UNIT_MS},
};

static void show_raw(struct shell *sh, const rpc_job_stats *s)
{
    out_line(sh, "Job type: %d\n", s->type);
    for (unsigned i = 0; i < s->params.params_len; i++) {
        g_autofree char *value = param_text(&s->params.params_val[i]);
        out_line(sh, "%s: %s", s->params.params_val[i].field, value);
    }
}

static bool run_domjobinfo(struct shell *sh, const struct args *a, GError **error)
{
    static const char *const types[] = {"None",      "Bounded", "Unbounded",
                                        "Completed", "Failed",  "Cancelled"};
    static const char *const operations[] = {"Unknown",
                                             "Start",
                                             "Save",
                                             "Restore",
                                             "Incoming migration",
                                             "Outgoing migration",
                                             "Snapshot",
                                             "Snapshot revert",
                                             "Dump",
                                             "Backup"};
    g_auto(rpc_domain) dom = {0};
    g_auto(rpc_job_stats) s = {0};
    if (!shell_domain(sh, args_text(a, "domain"), &dom, error)) {
        return false;
    }
    rpc_domain_flags args = {dom, (args_flag(a, "completed") ? 1u : 0) |
                                      (args_flag(a, "keep-completed") ? 2u : 0)};
    if (!ask_domain_get_job_stats(shell_rpc(sh, NULL), &args, &s, error)) {
        return false;
    }
    if (args_flag(a, "rawstats")) {
        show_raw(sh, &s);
        return true;
    }
    out_field_wide(sh, 18, "Job type:", "%-12s",
                   (unsigned)s.type < G_N_ELEMENTS(types) ? types[s.type] : "Unknown");
    if (s.type == 0) {
        return true;
    }
    const rpc_param *operation = param(&s, "operation");
    unsigned number = operation ? (unsigned)operation->value.rpc_value_u.i : 0;
    out_field_wide(sh, 18, "Operation:", "%-12s",
                   number < G_N_ELEMENTS(operations) ? operations[number] : "Unknown");
    for (unsigned i = 0; i < G_N_ELEMENTS(figures); i++) {
        const rpc_param *p = param(&s, figures[i].name);
        if (p) {
            show_figure(sh, figures[i].label, figures[i].unit, p->value.rpc_value_u.ul);
        }
    }
    return true;
}

/* clang-format off */
static const struct verb_row verbs[] = {
    {"domjobabort", (const struct option_row[]){ACTIVE, {NULL}}, "ends the job that a domain has",
     run_simple, &(const struct simple){&kind_domain, .procedure = PROC_domain_abort_job}},
    {"domjobinfo", (const struct option_row[]){NAMED,
        {"completed", OPT_BOOL, 0, "the last one that has ended"},
        {"keep-completed", OPT_BOOL, 0, "and it can be asked for again"},
        {"anystats", OPT_BOOL, 0, "of one that has failed, too (they always are shown)"},
        {"rawstats", OPT_BOOL, 0, "the figures as they come"}, {NULL}},
     "tells how far a domain's job is", run_domjobinfo},
    {"migrate", (const struct option_row[]){ACTIVE,
        {"desturi", OPT_TEXT, OPT_NEEDED, "connection to the destination"},
        {"migrateuri", OPT_TEXT, 0, "where the state goes: tcp://HOST[:PORT], unix:///PATH"},
        {"dname", OPT_TEXT, OPT_NAMED, "name at the destination"},
        {"listen-address", OPT_TEXT, OPT_NAMED, "where the destination waits"},
        {"xml", OPT_TEXT, OPT_NAMED, "file with the definition for the destination", COMPLETE_FILE},
        {"persistent-xml", OPT_TEXT, OPT_NAMED, "file with what the destination keeps", COMPLETE_FILE},
        {"bandwidth", OPT_NUMBER, OPT_NAMED, "bound in MiB/s"},
        {"migrate-disks", OPT_TEXT, OPT_NAMED, "targets of the disks to copy, with commas"},
        {"disks-port", OPT_NUMBER, OPT_NAMED, "where the destination takes disks"},
        {"timeout", OPT_NUMBER, OPT_NAMED, "seconds, after which the guest is suspended"},
        {"timeout-suspend", OPT_BOOL, 0, "what happens after --timeout (default)"},
        {"live", OPT_BOOL, 0, "the guest runs meanwhile"},
        {"offline", OPT_BOOL, 0, "only the definition"},
        {"p2p", OPT_BOOL, 0, "the source's daemon leads"},
        {"direct", OPT_BOOL, 0, "this shell leads (default)"},
        {"tunnelled", OPT_BOOL, 0, "the state goes through the daemons' connection"},
        {"persistent", OPT_BOOL, 0, "the destination keeps the definition"},
        {"undefinesource", OPT_BOOL, 0, "the source forgets it"},
        {"suspend", OPT_BOOL, 0, "it stays paused at the destination"},
        {"copy-storage-all", OPT_BOOL, 0, "with its disks"},
        {"copy-storage-inc", OPT_BOOL, 0, "with its disks' overlays"},
        {"change-protection", OPT_BOOL, 0, "nobody changes it meanwhile (always)"},
        {"unsafe", OPT_BOOL, 0, "though the disks may not be the same there"},
        {"abort-on-error", OPT_BOOL, 0, "an I/O error ends it"},
        {"compressed", OPT_BOOL, 0, "compressed (not supported)"},
        {"auto-converge", OPT_BOOL, 0, "slow the guest down (not supported)"},
        {"postcopy", OPT_BOOL, 0, "post-copy (not supported)"},
        {"verbose", OPT_BOOL, 0, "how far it is"}, {NULL}},
     "moves a domain to another host", run_migrate},
    {"migrate-getmaxdowntime", (const struct option_row[]){ACTIVE, {NULL}},
     "prints for how long a guest may stand still at the end, in ms", run_get, "downtime"},
    {"migrate-getspeed", (const struct option_row[]){NAMED, {NULL}},
     "prints the bound on a migration's speed, in MiB/s", run_get, "bandwidth"},
    {"migrate-setmaxdowntime", (const struct option_row[]){ACTIVE,
        {"downtime", OPT_NUMBER, OPT_NEEDED, "milliseconds"}, {NULL}},
     "sets for how long a guest may stand still at the end", run_set, "downtime"},
    {"migrate-setspeed", (const struct option_row[]){ACTIVE,
        {"bandwidth", OPT_NUMBER, OPT_NEEDED, "MiB/s"}, {NULL}},
     "bounds a migration's speed", run_set, "bandwidth"},
    {NULL},
};
/* clang-format on */

const struct verb_group verb_group_migrate = {"Domain Migration and Jobs", "migration", verbs};
