/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/cli/object.h"

#include "base/json.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/*
 * event, net-event and the like: a row an event, which says what its message tells.
 */
#define WORD(list, n)  ((unsigned)(n) < G_N_ELEMENTS(list) && (list)[n] ? (list)[n] : "unknown")
#define OR_NULL(maybe) ((maybe) ? *(maybe) : "<null>")

/* Appends what follows the object's name. */
typedef void tell_fn(GString *out, const void *message);
struct event {
    const char *name;
    int id, procedure;
    xdrproc_t codec;
    size_t size;
    size_t object; /* where the message has the name, or a secret's UUID */
    tell_fn *tell; /* NULL: there is nothing more to tell */
};

static void tell_domain_lifecycle(GString *out, const void *message)
{
    static const char *const events[] = {"Defined",   "Undefined",   "Started",
                                         "Suspended", "Resumed",     "Stopped",
                                         "Shutdown",  "PMSuspended", "Crashed"};
    static const char *const details[][9] = {
        {"Added", "Updated", "Renamed", "Snapshot"},
        {"Removed", "Renamed"},
        {"Booted", "Migrated", "Restored", "Snapshot", "Event wakeup"},
        {"Paused", "Migrated", "I/O Error", "Watchdog", "Restored", "Snapshot", "API error",
         "Post-copy", "Post-copy Error"},
        {"Unpaused", "Migrated", "Snapshot", "Post-copy", "Post-copy Error"},
        {"Shutdown", "Destroyed", "Crashed", "Migrated", "Saved", "Failed", "Snapshot"},
        {"Finished", "Finished after guest request", "Finished after host request"},
        {"Memory", "Disk"},
        {"Panicked", "Crashloaded"}};
    const rpc_event_domain_int2 *m = message;
    const char *detail =
        (unsigned)m->event < G_N_ELEMENTS(details) ? WORD(details[m->event], m->detail) : "unknown";
    g_string_append_printf(out, ": %s %s", WORD(events, m->event), detail);
}

static void tell_number(GString *out, const void *message)
{
    const rpc_event_domain_hyper *m = message;
    g_string_append_printf(out, ": %" PRId64, (int64_t)m->value);
}

static void tell_balloon(GString *out, const void *message)
{
    const rpc_event_domain_uhyper *m = message;
    g_string_append_printf(out, ": %" PRIu64 "KiB", (uint64_t)m->value);
}

static void tell_watchdog(GString *out, const void *message)
{
    static const char *const actions[] = {"none",     "pause", "reset",     "poweroff",
                                          "shutdown", "debug", "inject-nmi"};
    const rpc_event_domain_int *m = message;
    g_string_append_printf(out, ": %s", WORD(actions, m->value));
}

static const char *const io_actions[] = {"none", "pause", "report"};

static void tell_io_error(GString *out, const void *message)
{
    const rpc_event_io_error *m = message;
    g_string_append_printf(out, ": %s (%s) %s", m->path, m->alias, WORD(io_actions, m->action));
}

static void tell_io_error_reason(GString *out, const void *message)
{
    const rpc_event_io_error_reason *m = message;
    g_string_append_printf(out, ": %s (%s) %s due to %s", m->path, m->alias,
                           WORD(io_actions, m->action), m->reason);
}

static void tell_graphics(GString *out, const void *message)
{
    static const char *const phases[] = {"connect", "initialize", "disconnect"};
    static const char *const families[] = {"IPv4", "IPv6", "unix"};
    const rpc_event_graphics *m = message;
    g_string_append_printf(out, ": %s local[%s %s %s] remote[%s %s %s] %s", WORD(phases, m->phase),
                           WORD(families, m->local.family), m->local.node, m->local.service,
                           WORD(families, m->remote.family), m->remote.node, m->remote.service,
                           m->auth);
    for (unsigned i = 0; i < m->subject.subject_len; i++) {
        g_string_append_printf(out, "%s%s=%s", i ? " " : "\n\t", m->subject.subject_val[i].type,
                               m->subject.subject_val[i].name);
    }
}

static void tell_block_job(GString *out, const void *message)
{
    static const char *const types[] = {"Unknown job",  "Block Pull",          "Block Copy",
                                        "Block Commit", "Active Block Commit", "Backup"};
    static const char *const states[] = {"completed", "failed", "canceled", "ready"};
    const rpc_event_block_job *m = message;
    g_string_append_printf(out, ": %s for %s %s", WORD(types, m->type), m->disk,
                           WORD(states, m->status));
}

static void tell_disk_change(GString *out, const void *message)
{
    static const char *const reasons[] = {"changed", "dropped"};
    const rpc_event_disk_change *m = message;
    g_string_append_printf(out, " disk %s: %s -> %s: %s", m->alias, OR_NULL(m->old_path),
                           OR_NULL(m->new_path), WORD(reasons, m->reason));
}

static void tell_tray(GString *out, const void *message)
{
    static const char *const states[] = {"opened", "closed"};
    const rpc_event_domain_alias_int *m = message;
    g_string_append_printf(out, " disk %s: %s", m->alias, WORD(states, m->reason));
}

static void tell_alias(GString *out, const void *message)
{
    const rpc_event_domain_alias *m = message;
    g_string_append_printf(out, ": %s", m->alias);
}

static void tell_params(GString *out, const void *message)
{
    const rpc_event_domain_params *m = message;
    g_string_append_c(out, ':');
    for (unsigned i = 0; i < m->params.params_len; i++) {
        g_autofree char *text = param_text(&m->params.params_val[i]);
        g_string_append_printf(out, "\n\t%s: %s", m->params.params_val[i].field, text);
    }
}

static void tell_agent(GString *out, const void *message)
{
    static const char *const states[] = {NULL, "connected", "disconnected"};
    static const char *const reasons[] = {NULL, "domain started", "channel event"};
    const rpc_event_domain_int2 *m = message;
    g_string_append_printf(out, ": state: '%s' reason: '%s'", WORD(states, m->event),
                           WORD(reasons, m->detail));
}

static void tell_iteration(GString *out, const void *message)
{
    const rpc_event_domain_int *m = message;
    g_string_append_printf(out, ": iteration: '%d'", m->value);
}

static void tell_metadata(GString *out, const void *message)
{
    static const char *const types[] = {"description", "title", "element"};
    const rpc_event_metadata *m = message;
    g_string_append_printf(out, ": type %s, uri %s", WORD(types, m->type), OR_NULL(m->uri));
}

static void tell_threshold(GString *out, const void *message)
{
    const rpc_event_block_threshold *m = message;
    g_string_append_printf(out, ": dev: %s(%s) %" PRIu64 " %" PRIu64, m->disk, OR_NULL(m->path),
                           (uint64_t)m->threshold, (uint64_t)m->excess);
}

static void tell_memory_failure(GString *out, const void *message)
{
    static const char *const recipients[] = {"hypervisor", "guest"};
    static const char *const actions[] = {"ignore", "inject", "fatal", "reset"};
    const rpc_event_memory_failure *m = message;
    g_string_append_printf(out,
                           ":\nrecipient: %s\naction: %s\nflags:\n\taction required: %d\n"
                           "\trecursive: %d",
                           WORD(recipients, m->recipient), WORD(actions, m->action),
                           (m->flags & 1) != 0, (m->flags & 2) != 0);
}

static void tell_memory_device(GString *out, const void *message)
{
    const rpc_event_domain_alias_uhyper *m = message;
    g_string_append_printf(out, ":\nalias: %s\nsize: %" PRIu64, m->alias, (uint64_t)m->value);
}

/* The other kinds' lifecycles; both members are where they are in a network's. */
static void tell_lifecycle(GString *out, const void *message)
{
    static const char *const events[] = {"Defined", "Undefined", "Started",
                                         "Stopped", "Created",   "Deleted"};
    const rpc_event_network *m = message;
    g_string_append_printf(out, ": %s", WORD(events, m->event));
}

static void tell_node_device(GString *out, const void *message)
{
    static const char *const events[] = {"Created", "Deleted", "Defined", "Undefined"};
    const rpc_event_node_device *m = message;
    g_string_append_printf(out, ": %s", WORD(events, m->event));
}

static void tell_secret(GString *out, const void *message)
{
    static const char *const events[] = {"Defined", "Undefined"};
    const rpc_event_secret *m = message;
    g_string_append_printf(out, ": %s", WORD(events, m->event));
}

#define ROW(name, id, procedure, message, member, tell)                                            \
    {                                                                                              \
        name, id, EVENT_##procedure, (xdrproc_t)xdr_##message, sizeof(message),                    \
            offsetof(message, member), tell                                                        \
    }
#define DOM(name, id, procedure, message, tell)                                                    \
    ROW(name, id, domain_##procedure, message, dom, tell)

static const struct event domain_events[] = {
    DOM("lifecycle", 0, lifecycle, rpc_event_domain_int2, tell_domain_lifecycle),
    DOM("reboot", 1, reboot, rpc_event_domain, NULL),
    DOM("rtc-change", 2, rtc_change, rpc_event_domain_hyper, tell_number),
    DOM("watchdog", 3, watchdog, rpc_event_domain_int, tell_watchdog),
    DOM("io-error", 4, io_error, rpc_event_io_error, tell_io_error),
    DOM("graphics", 5, graphics, rpc_event_graphics, tell_graphics),
    DOM("io-error-reason", 6, io_error_reason, rpc_event_io_error_reason, tell_io_error_reason),
    DOM("control-error", 7, control_error, rpc_event_domain, NULL),
    DOM("block-job", 8, block_job, rpc_event_block_job, tell_block_job),
    DOM("disk-change", 9, disk_change, rpc_event_disk_change, tell_disk_change),
    DOM("tray-change", 10, tray_change, rpc_event_domain_alias_int, tell_tray),
    DOM("pm-wakeup", 11, pmwakeup, rpc_event_pm, NULL),
    DOM("pm-suspend", 12, pmsuspend, rpc_event_pm, NULL),
    DOM("balloon-change", 13, balloon_change, rpc_event_domain_uhyper, tell_balloon),
    DOM("pm-suspend-disk", 14, pmsuspend_disk, rpc_event_pm, NULL),
    DOM("device-removed", 15, device_removed, rpc_event_domain_alias, tell_alias),
    DOM("block-job-2", 16, block_job_2, rpc_event_block_job, tell_block_job),
    DOM("tunable", 17, tunable, rpc_event_domain_params, tell_params),
    DOM("agent-lifecycle", 18, agent_lifecycle, rpc_event_domain_int2, tell_agent),
    DOM("device-added", 19, device_added, rpc_event_domain_alias, tell_alias),
    DOM("migration-iteration", 20, migration_iteration, rpc_event_domain_int, tell_iteration),
    DOM("job-completed", 21, job_completed, rpc_event_domain_params, tell_params),
    DOM("device-removal-failed", 22, removal_failed, rpc_event_domain_alias, tell_alias),
    DOM("metadata-change", 23, metadata_change, rpc_event_metadata, tell_metadata),
    DOM("block-threshold", 24, block_threshold, rpc_event_block_threshold, tell_threshold),
    DOM("memory-failure", 25, memory_failure, rpc_event_memory_failure, tell_memory_failure),
    DOM("memory-device-size-change", 26, memory_device_size_change, rpc_event_domain_alias_uhyper,
        tell_memory_device),
    {NULL}};
static const struct event network_events[] = {
    ROW("lifecycle", 0, network_lifecycle, rpc_event_network, net, tell_lifecycle), {NULL}};
static const struct event pool_events[] = {
    ROW("lifecycle", 0, pool_lifecycle, rpc_event_pool, pool, tell_lifecycle),
    ROW("refresh", 1, pool_refresh, rpc_event_pool_refresh, pool, NULL),
    {NULL}};
static const struct event node_device_events[] = {
    ROW("lifecycle", 0, node_device_lifecycle, rpc_event_node_device, dev, tell_node_device),
    ROW("update", 1, node_device_update, rpc_event_node_device_update, dev, NULL),
    {NULL}};
static const struct event secret_events[] = {
    ROW("lifecycle", 0, secret_lifecycle, rpc_event_secret, secret, tell_secret),
    ROW("value-changed", 1, secret_value_changed, rpc_event_secret_value, secret, NULL),
    {NULL}};

/* The shapes of the calls that register are alike. */
struct registration {
    int event;
    union object *of; /* NULL: of all */
};
struct event_kind {
    const struct event *events;
    int registers, deregisters;
    xdrproc_t codec, object_codec;
    const char *option, *object; /* "network", "network %s" */
    bool uuid;                   /* there is no name */
    find_fn *find;
};

static bool find_node_device(struct shell *sh, const char *name, union object *out, GError **error)
{
    (void)sh, (void)error;
    out->device.name = g_strdup(name);
    return true;
}

static bool find_secret(struct shell *sh, const char *name, union object *out, GError **error)
{
    rpc_uuid_args args;
    rpc_secret_ret ret = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (rpc && !text_uuid(name, args.uuid)) {
        return shell_fail(error, "'%s' is no UUID", name);
    }
    bool ok = rpc && ask_secret_lookup_by_uuid(rpc, &args, &ret, error);
    out->secret = ret.secret;
    return ok;
}

struct waiting {
    struct shell *sh;
    const struct event_kind *kind;
    bool stamped, loop;
    unsigned count;
};

static char *now_text(void)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *stamp = g_date_time_format(now, "%F %T");
    return g_strdup_printf("%s.%03d+0000", stamp, g_date_time_get_microsecond(now) / 1000);
}

static void count(struct waiting *w)
{
    w->count++;
    if (w->loop) {
        out_look(w->sh);
    }
}

static void print_event(struct waiting *w, const struct event *e, const void *message)
{
    g_autoptr(GString) out = g_string_new(NULL);
    const char *name = (const char *)message + e->object;
    g_autofree char *shown =
        w->kind->uuid ? uuid_text(*(const rpc_uuid *)name) : g_strdup(*(char *const *)name);
    if (w->stamped) {
        g_autofree char *stamp = now_text();
        g_string_append_printf(out, "%s: ", stamp);
    }
    g_string_append_printf(out, "event '%s' for ", e->name);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    g_string_append_printf(out, w->kind->object, shown);
#pragma GCC diagnostic pop
    if (e->tell) {
        e->tell(out, message);
    }
    out_line(w->sh, "%s", out->str);
    count(w);
}

static void take_event(uint32_t program, int procedure, const uint8_t *body, size_t n, void *data)
{
    enum { MESSAGE_MAX = 256 };
    struct waiting *w = data;
    for (const struct event *e = w->kind->events; program == PROGRAM_REMOTE && e->name; e++) {
        union {
            max_align_t align;
            char bytes[MESSAGE_MAX];
        } message;
        if (e->procedure == procedure && e->size <= sizeof(message) &&
            packet_decode(body, n, e->codec, &message, e->size)) {
            print_event(w, e, &message);
            xdr_free(e->codec, (char *)&message);
        }
    }
}

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

/* Until something came (with .loop: for ever), the user has enough or the time is over. */
static bool wait_for_events(Rpc *rpc, struct waiting *w, gint64 end, GError **error)
{
    struct sigaction act = {.sa_handler = interrupt}, was;
    bool ok = true, late = false;
    interrupted = 0;
    sigaction(SIGINT, &act, &was);
    while (ok && !interrupted && !late && (w->loop || !w->count)) {
        gint64 left = end ? (end - g_get_monotonic_time() + 999) / 1000 : -1;
        late = end && left <= 0;
        ok = late || rpc_wait(rpc, end ? (int)MIN(left, INT_MAX) : -1, error);
    }
    sigaction(SIGINT, &was, NULL);
    if (ok && (interrupted || late)) {
        out_line(w->sh, interrupted ? "event loop interrupted" : "event loop timed out");
    }
    return ok;
}

static bool run_event(struct shell *sh, const struct args *a, GError **error)
{
    const struct event_kind *kind = shell_data(sh);
    const char *wanted = args_text(a, "event"), *name = args_text(a, kind->option);
    bool all = kind->find == find_domain && args_flag(a, "all"); /* the others have few */
    uint64_t seconds;
    gint64 end = args_number(a, "timeout", &seconds)
                     ? g_get_monotonic_time() + (gint64)MIN(seconds, INT_MAX) * G_USEC_PER_SEC
                     : 0;
    if (args_flag(a, "list")) {
        for (const struct event *e = kind->events; e->name; e++) {
            out_line(sh, "%s", e->name);
        }
        return true;
    }
    if (!wanted && !all) {
        return shell_fail(error, "%s",
                          kind->find == find_domain
                              ? "one of --list, --all, or --event <type> is required"
                              : "either --list or --event <type> is required");
    }
    union object object = {0};
    Rpc *rpc = shell_rpc(sh, error);
    if (!rpc || (name && !kind->find(sh, name, &object, error))) {
        return false;
    }
    struct waiting w = {sh, kind, args_flag(a, "timestamp"), args_flag(a, "loop"), 0};
    g_autoptr(GArray) ids = g_array_new(FALSE, FALSE, sizeof(int));
    bool ok = true, known = all;
    rpc_on_event(rpc, take_event, &w);
    for (const struct event *e = kind->events; ok && e->name; e++) {
        if (all || g_strcmp0(wanted, e->name) == 0) {
            const struct registration args = {e->id, name ? &object : NULL};
            rpc_int id;
            g_autoptr(GError) why = NULL;
            known = true;
            ok = rpc_ask(rpc, PROGRAM_REMOTE, kind->registers, kind->codec, &args,
                         (xdrproc_t)xdr_rpc_int, &id, sizeof(id), &why);
            if (ok) {
                g_array_append_val(ids, id.value);
            } else if (all && libvirt_error_code(why) == ERR_NO_SUPPORT) {
                ok = true; /* all that this daemon tells of */
            } else {
                g_propagate_error(error, g_steal_pointer(&why));
            }
        }
    }
    ok = ok && (known || shell_fail(error, "unknown event type %s", wanted));
    ok = ok && wait_for_events(rpc, &w, end, error);
    rpc_on_event(rpc, NULL, NULL);
    for (unsigned i = 0; ok && i < ids->len; i++) {
        rpc_int id = {g_array_index(ids, int, i)};
        rpc_none none;
        rpc_ask(rpc, PROGRAM_REMOTE, kind->deregisters, (xdrproc_t)xdr_rpc_int, &id,
                (xdrproc_t)xdr_rpc_none, &none, sizeof(none), NULL);
    }
    if (name) {
        xdr_free(kind->object_codec, (char *)&object);
    }
    if (ok) {
        out_line(sh, "events received: %u", w.count);
    }
    return ok && w.count;
}

/* ---- What machines say to their own monitors ---- */

struct monitoring {
    struct waiting waiting;
    bool pretty;
};

static void take_monitor(uint32_t program, int procedure, const uint8_t *body, size_t n, void *data)
{
    enum { EVENT = 6 };
    struct monitoring *m = data;
    rpc_event_monitor e = {0};
    if (program != PROGRAM_QEMU || procedure != EVENT || (!m->waiting.loop && m->waiting.count) ||
        !packet_decode(body, n, (xdrproc_t)xdr_rpc_event_monitor, &e, sizeof(e))) {
        return;
    }
    const char *details = e.details ? *e.details : "(null)";
    g_autoptr(json_t) object = m->pretty ? json_loads(details, 0, NULL) : NULL;
    g_autofree char *pretty = object ? json_dumps(object, JSON_INDENT(2)) : NULL;
    g_autofree char *stamp = m->waiting.stamped ? now_text() : NULL;
    details = pretty ? pretty : details;
    if (stamp) {
        out_line(m->waiting.sh, "%s: event %s for domain '%s': %s", stamp, e.event, e.dom.name,
                 details);
    } else {
        out_line(m->waiting.sh, "event %s at %lld.%06u for domain '%s': %s", e.event,
                 (long long)e.seconds, e.micros, e.dom.name, details);
    }
    count(&m->waiting);
    xdr_free((xdrproc_t)xdr_rpc_event_monitor, (char *)&e);
}

static bool run_monitor_event(struct shell *sh, const struct args *a, GError **error)
{
    static const struct flag_bit bits[] = {{"regex", 1}, {"no-case", 2}};
    char *event = (char *)args_text(a, "event");
    const char *name = args_text(a, "domain");
    struct monitoring m = {{sh, NULL, args_flag(a, "timestamp"), args_flag(a, "loop"), 0},
                           args_flag(a, "pretty")};
    uint64_t seconds;
    gint64 end = args_number(a, "timeout", &seconds)
                     ? g_get_monotonic_time() + (gint64)MIN(seconds, INT_MAX) * G_USEC_PER_SEC
                     : 0;
    g_auto(rpc_domain) dom = {0};
    Rpc *rpc = shell_rpc(sh, error);
    rpc_int id;
    rpc_none none;
    if (!rpc || (name && !shell_domain(sh, name, &dom, error))) {
        return false;
    }
    rpc_monitor_register args = {name ? &dom : NULL, event ? &event : NULL,
                                 flags_of(a, bits, G_N_ELEMENTS(bits))};
    rpc_on_event(rpc, take_monitor, &m);
    bool ok = ask_connect_monitor_event_register(rpc, &args, &id, error) &&
              wait_for_events(rpc, &m.waiting, end, error);
    rpc_on_event(rpc, NULL, NULL);
    if (ok) {
        ask_connect_monitor_event_deregister(rpc, &id, &none, NULL);
        out_line(sh, "events received: %u", m.waiting.count);
    }
    return ok && m.waiting.count;
}

#define KIND(events, verb, shape, option, object, uuid, find)                                      \
    (&(const struct event_kind){events, PROC_connect_##verb##_register_any,                        \
                                PROC_connect_##verb##_deregister_any,                              \
                                (xdrproc_t)xdr_rpc_##shape##_register, (xdrproc_t)xdr_rpc_##shape, \
                                option, object, uuid, find})
#define WAIT_OPTIONS                                                                               \
    {"event", OPT_TEXT, 0, "which event to wait for"},                                             \
        {"loop", OPT_BOOL, 0, "until the time is over or Ctrl-C, not until the first"},            \
        {"timeout", OPT_NUMBER, OPT_NAMED, "seconds to wait"},                                     \
        {"list", OPT_BOOL, 0, "list the events that there are"},                                   \
        {"timestamp", OPT_BOOL, 0, "say when each came"},                                          \
    {                                                                                              \
        NULL                                                                                       \
    }

const struct verb_group verb_group_event = {
    "Events", "events",
    (const struct verb_row[]){
        {"event",
         (const struct option_row[]){
             {"domain", OPT_TEXT, 0, "of this domain alone", COMPLETE_DOMAIN},
             {"all", OPT_BOOL, 0, "wait for all events"},
             WAIT_OPTIONS},
         "waits for events of domains", run_event,
         KIND(domain_events, domain_event_callback, domain, "domain", "domain '%s'", false,
              find_domain)},
        {"net-event",
         (const struct option_row[]){
             {"network", OPT_TEXT, 0, "of this network alone", COMPLETE_NETWORK}, WAIT_OPTIONS},
         "waits for events of networks", run_event,
         KIND(network_events, network_event, network, "network", "network %s", false,
              find_network)},
        {"nodedev-event",
         (const struct option_row[]){{"device", OPT_TEXT, 0, "of this device alone"}, WAIT_OPTIONS},
         "waits for events of the host's devices", run_event,
         KIND(node_device_events, node_device_event, node_device, "device", "node device %s", false,
              find_node_device)},
        {"pool-event",
         (const struct option_row[]){{"pool", OPT_TEXT, 0, "of this pool alone", COMPLETE_POOL},
                                     WAIT_OPTIONS},
         "waits for events of storage pools", run_event,
         KIND(pool_events, storage_pool_event, pool, "pool", "storage pool %s", false, find_pool)},
        {"qemu-monitor-event",
         (const struct option_row[]){
             {"domain", OPT_TEXT, 0, "of this domain alone", COMPLETE_DOMAIN},
             {"event", OPT_TEXT, 0, "which event to wait for"},
             {"pretty", OPT_BOOL, 0, "details in several lines"},
             {"loop", OPT_BOOL, 0, "until the time is over or Ctrl-C, not until the first"},
             {"timeout", OPT_NUMBER, OPT_NAMED, "seconds to wait"},
             {"regex", OPT_BOOL, 0, "the event's name is a regular expression"},
             {"no-case", OPT_BOOL, 0, "in capitals or not"},
             {"timestamp", OPT_BOOL, 0, "say when each came"},
             {NULL}},
         "waits for what machines say to their monitors", run_monitor_event},
        {"secret-event",
         (const struct option_row[]){{"secret", OPT_TEXT, 0, "UUID of the secret"}, WAIT_OPTIONS},
         "waits for events of secrets", run_event,
         KIND(secret_events, secret_event, secret, "secret", "secret %s", true, find_secret)},
        {NULL},
    }};
