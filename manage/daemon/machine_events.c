/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a machine says of its own accord: QMP events become states and libvirt's events. */
#include "manage/daemon/checkpoint.h"
#include "manage/daemon/client.h"
#include "manage/daemon/disks.h"

#include <string.h>

static const char *text(const json_t *body, const char *key)
{
    const char *t = json_string_value(json_object_get(body, key));
    return t ? t : "";
}

static void on_stop(struct machine *m, const json_t *body)
{
    Domain *d = m->domain;
    (void)body;
    if (d->state != STATE_RUNNING || d->id < 0) {
        return;
    }
    int reason = m->pause_reason;
    reason = reason == PAUSED_UNKNOWN && m->move.sending ? PAUSED_MIGRATION : reason;
    m->pause_reason = PAUSED_UNKNOWN;
    domain_set_state(d, STATE_PAUSED, reason);
    machine_save(m);
    domain_event(d, EVENT_SUSPENDED, machine_pause_detail(reason));
}

static void on_resume(struct machine *m, const json_t *body)
{
    Domain *d = m->domain;
    (void)body;
    if (d->id < 0 || (d->state != STATE_PAUSED && d->state != STATE_PMSUSPENDED)) {
        return;
    }
    int reason = m->resume_reason  ? m->resume_reason
                 : m->move.sending ? RUNNING_MIGRATION_CANCELED
                                   : RUNNING_UNPAUSED;
    domain_set_state(d, STATE_RUNNING, reason);
    machine_save(m);
    domain_event(d, EVENT_RESUMED, reason == RUNNING_MIGRATED ? 1 : 0);
}

/* Asleep in S3, or (on its way to being off) in S4. */
static void asleep(struct machine *m, void (*told)(const rpc_event_pm *message), int detail)
{
    Domain *d = m->domain;
    if (d->id < 0) {
        return;
    }
    rpc_event_pm message = {.dom = domain_rpc(d)};
    told(&message);
    g_free(message.dom.name);
    if (d->state == STATE_RUNNING) {
        domain_set_state(d, STATE_PMSUSPENDED, 0);
        machine_save(m);
        domain_event(d, EVENT_PMSUSPENDED, detail);
    }
}

static void on_suspend(struct machine *m, const json_t *body)
{
    (void)body;
    asleep(m, event_domain_pmsuspend, 0);
}

static void on_suspend_disk(struct machine *m, const json_t *body)
{
    (void)body;
    asleep(m, event_domain_pmsuspend_disk, 1);
}

static void on_wakeup(struct machine *m, const json_t *body)
{
    enum { STARTED_WAKEUP = 4 };
    Domain *d = m->domain;
    (void)body;
    if (d->id < 0) {
        return;
    }
    rpc_event_pm message = {.dom = domain_rpc(d)};
    event_domain_pmwakeup(&message);
    g_free(message.dom.name);
    if (d->state == STATE_PMSUSPENDED) {
        domain_set_state(d, STATE_RUNNING, RUNNING_WAKEUP);
        machine_save(m);
        domain_event(d, EVENT_STARTED, STARTED_WAKEUP);
    }
}

static void on_pass(struct machine *m, const json_t *body)
{
    rpc_event_domain_int message = {
        .dom = domain_rpc(m->domain),
        .value = (int)json_integer_value(json_object_get(body, "pass")),
    };
    event_domain_migration_iteration(&message);
    g_free(message.dom.name);
}

static void restart(void *data)
{
    struct machine *m = data;
    daemon_lock();
    if (machine_set_off_action(m, NULL) && qmp_do(m->qmp, NULL, "system_reset", NULL) &&
        qmp_do(m->qmp, NULL, "cont", NULL) && !m->ended) {
        domain_set_state(m->domain, STATE_RUNNING, RUNNING_BOOTED);
        m->shut_down = false;
    }
    machine_unref(m);
    daemon_unlock();
}

static void on_shutdown(struct machine *m, const json_t *body)
{
    bool guest = json_is_true(json_object_get(body, "guest"));
    m->shut_down = true;
    if (m->domain->id < 0 || m->dying) {
        return;
    }
    bool reset = strcmp(text(body, "reason"), "guest-reset") == 0;
    if (m->rebooting || (m->def->on_poweroff == ACTION_RESTART && !reset)) {
        daemon_worker(restart, machine_ref(m));
        return;
    }
    domain_set_state(m->domain, STATE_SHUTDOWN, 1);
    domain_event(m->domain, EVENT_SHUTDOWN, guest ? 1 : 2);
}

static void on_reset(struct machine *m, const json_t *body)
{
    (void)body;
    rpc_event_domain message = {.dom = domain_rpc(m->domain)};
    if (m->domain->id >= 0) {
        event_domain_reboot(&message);
    }
    g_free(message.dom.name);
}

static void kill_crashed(void *data)
{
    struct machine *m = data;
    daemon_lock();
    g_autoptr(GError) error = NULL;
    int action = m->def->on_crash;
    bool dump = action == ACTION_COREDUMP_DESTROY || action == ACTION_COREDUMP_RESTART;
    if (dump && !machine_dump_crashed(m, &error)) {
        daemon_log("%s: no dump: %s", m->domain->name, error->message);
    }
    if (action == ACTION_COREDUMP_RESTART) {
        daemon_unlock();
        restart(m);
        return;
    }
    if (!m->ended) {
        machine_stop(m->domain, SHUTOFF_CRASHED, false, NULL);
    }
    machine_unref(m);
    daemon_unlock();
}

/* What its definition says is to be done about it. */
static void on_crash(struct machine *m)
{
    if (m->def->on_crash == ACTION_RESTART) {
        daemon_worker(restart, machine_ref(m));
    } else if (m->def->on_crash != ACTION_PRESERVE) {
        daemon_worker(kill_crashed, machine_ref(m));
    }
}

static void on_panic(struct machine *m, const json_t *body)
{
    (void)body;
    domain_set_state(m->domain, STATE_CRASHED, 1);
    machine_save(m);
    domain_event(m->domain, EVENT_CRASHED, 0);
    on_crash(m);
}

void machine_state_follows(struct machine *m)
{
    Domain *d = m->domain;
    bool again = m->rebooting || m->def->on_poweroff == ACTION_RESTART;
    switch (d->state) {
    case STATE_RUNNING:
        domain_event(d, EVENT_RESUMED, 0);
        break;
    case STATE_PAUSED:
        domain_event(d, EVENT_SUSPENDED, machine_pause_detail(d->reason));
        break;
    case STATE_PMSUSPENDED:
        domain_event(d, EVENT_PMSUSPENDED, 0);
        break;
    case STATE_CRASHED:
        domain_event(d, EVENT_CRASHED, 0);
        on_crash(m);
        break;
    case STATE_SHUTDOWN:
        m->shut_down = true;
        if (again) {
            daemon_worker(restart, machine_ref(m));
        } else {
            domain_event(d, EVENT_SHUTDOWN, 0);
        }
        break;
    default:
        break;
    }
}

static void on_watchdog(struct machine *m, const json_t *body)
{
    static const char *const actions[] = {"none",     "pause", "reset",     "poweroff",
                                          "shutdown", "debug", "inject-nmi"};
    rpc_event_domain_int message = {.dom = domain_rpc(m->domain)};
    for (unsigned i = 0; i < G_N_ELEMENTS(actions); i++) {
        if (strcmp(text(body, "action"), actions[i]) == 0) {
            message.value = (int)i;
        }
    }
    if (message.value == 1) {
        m->pause_reason = PAUSED_WATCHDOG;
    }
    event_domain_watchdog(&message);
    g_free(message.dom.name);
}

static void on_balloon(struct machine *m, const json_t *body)
{
    int64_t kib = json_integer_value(json_object_get(body, "actual")) / 1024;
    m->def->current_memory = kib;
    m->domain->memory = kib;
    rpc_event_domain_uhyper message = {.dom = domain_rpc(m->domain), .value = (uint64_t)kib};
    event_domain_balloon_change(&message);
    g_free(message.dom.name);
}

static void on_rtc(struct machine *m, const json_t *body)
{
    rpc_event_domain_hyper message = {
        .dom = domain_rpc(m->domain),
        .value = json_integer_value(json_object_get(body, "offset")),
    };
    event_domain_rtc_change(&message);
    g_free(message.dom.name);
}

static void on_io_error(struct machine *m, const json_t *body)
{
    bool stop = strcmp(text(body, "action"), "stop") == 0;
    const char *node = text(body, "node-name");
    if (stop) {
        m->pause_reason = PAUSED_IOERROR;
    }
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        struct domain_disk *disk = m->def->disks->pdata[i];
        g_autofree char *name = disk_drive_name(disk);
        if (g_strcmp0(name, node) != 0 && g_strcmp0(name, text(body, "device")) != 0) {
            continue;
        }
        const char *path = disk_path(disk);
        rpc_event_io_error message = {.dom = domain_rpc(m->domain),
                                      .path = (char *)(path ? path : ""),
                                      .alias = disk->alias,
                                      .action = stop ? 1 : 2};
        event_domain_io_error(&message);
        rpc_event_io_error_reason more = {
            .dom = message.dom,
            .path = message.path,
            .alias = disk->alias,
            .action = message.action,
            .reason = (char *)(json_is_true(json_object_get(body, "nospace")) ? "enospc" : ""),
        };
        event_domain_io_error_reason(&more);
        g_free(message.dom.name);
    }
}

/* Told twice: of the disk, and of the image by its number. */
static void on_threshold(struct machine *m, const json_t *body)
{
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        g_autofree char *name = disk_file_name(disk);
        if (g_strcmp0(name, text(body, "node-name")) != 0) {
            continue;
        }
        g_autofree char *image =
            g_strdup_printf("%s[%ld]", disk->target, (long)disk->source->index);
        char *path = (char *)disk_path(disk), *names[] = {disk->target, image};
        for (unsigned k = 0; k < G_N_ELEMENTS(names); k++) {
            rpc_event_block_threshold message = {
                .dom = domain_rpc(m->domain),
                .disk = names[k],
                .path = path ? &path : NULL,
                .threshold = (uint64_t)json_integer_value(json_object_get(body, "write-threshold")),
                .excess = (uint64_t)json_integer_value(json_object_get(body, "amount-exceeded"))};
            event_domain_block_threshold(&message);
            g_free(message.dom.name);
        }
    }
}

static void on_tray(struct machine *m, const json_t *body)
{
    const char *id = text(body, "id");
    bool open = json_is_true(json_object_get(body, "tray-open"));
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        struct domain_disk *disk = m->def->disks->pdata[i];
        if (g_strcmp0(disk->alias, id) == 0) {
            disk->tray = open ? 1 : 0;
            rpc_event_domain_alias_int message = {
                .dom = domain_rpc(m->domain), .alias = disk->alias, .reason = open ? 0 : 1};
            event_domain_tray_change(&message);
            g_free(message.dom.name);
            machine_save(m);
        }
    }
}

/* libvirt's reasons of an agent's coming and going. */
enum { AGENT_STARTED = 1, AGENT_CHANNEL = 2 };

static void tell_agent(struct machine *m, const struct domain_char *c, int reason)
{
    if (g_strcmp0(c->name, "org.qemu.guest_agent.0") == 0) {
        rpc_event_domain_int2 message = {
            .dom = domain_rpc(m->domain), .event = c->state, .detail = reason};
        event_domain_agent_lifecycle(&message);
        g_free(message.dom.name);
    }
}

static void port_is(struct machine *m, struct domain_char *c, bool open)
{
    int state = open ? 1 : 2;
    if (c->state != state) {
        c->state = state;
        if (m->domain->id >= 0) {
            tell_agent(m, c, AGENT_CHANNEL);
        }
    }
}

static void on_port(struct machine *m, const json_t *body)
{
    for (unsigned i = 0; i < xml_count(m->def->channels); i++) {
        struct domain_char *c = m->def->channels->pdata[i];
        if (g_strcmp0(c->alias, text(body, "id")) == 0) {
            port_is(m, c, json_is_true(json_object_get(body, "open")));
            machine_save(m);
        }
    }
}

void machine_tell_agent(struct machine *m)
{
    for (unsigned i = 0; i < xml_count(m->def->channels); i++) {
        const struct domain_char *c = m->def->channels->pdata[i];
        if (c->state) {
            tell_agent(m, c, AGENT_STARTED);
        }
    }
}

void machine_learn_ports(struct machine *m, const json_t *chardevs)
{
    for (unsigned i = 0; i < xml_count(m->def->channels); i++) {
        struct domain_char *c = m->def->channels->pdata[i];
        g_autofree char *label = g_strconcat("char", c->alias, NULL);
        size_t n;
        json_t *one;
        json_array_foreach(chardevs, n, one)
        {
            if (strcmp(text(one, "label"), label) == 0) {
                port_is(m, c, json_is_true(json_object_get(one, "frontend-open")));
            }
        }
    }
}

static rpc_graphics_address viewer_end(const json_t *end)
{
    static const char *const families[] = {"ipv4", "ipv6", "unix"};
    rpc_graphics_address a = {.node = (char *)text(end, "host"),
                              .service = (char *)text(end, "service")};
    for (unsigned i = 0; i < G_N_ELEMENTS(families); i++) {
        a.family = strcmp(text(end, "family"), families[i]) == 0 ? (int)i : a.family;
    }
    return a;
}

/* @phase is libvirt's: a viewer has come, has been let in, has gone. */
static void viewer(struct machine *m, const json_t *body, int phase)
{
    const json_t *server = json_object_get(body, "server"),
                 *client = json_object_get(body, "client");
    rpc_event_graphics message = {.dom = domain_rpc(m->domain),
                                  .phase = phase,
                                  .local = viewer_end(server),
                                  .remote = viewer_end(client),
                                  .auth = (char *)text(server, "auth")};
    event_domain_graphics(&message);
    g_free(message.dom.name);
}

static void on_viewer(struct machine *m, const json_t *body)
{
    viewer(m, body, 0);
}

static void on_viewer_ready(struct machine *m, const json_t *body)
{
    viewer(m, body, 1);
}

static void on_viewer_gone(struct machine *m, const json_t *body)
{
    viewer(m, body, 2);
}

struct gone {
    struct machine *machine;
    char *alias;
};

static void device_gone(void *data)
{
    struct gone *gone = data;
    daemon_lock();
    machine_device_gone(gone->machine, gone->alias);
    machine_unref(gone->machine);
    daemon_unlock();
    g_free(gone->alias);
    g_free(gone);
}

static void on_deleted(struct machine *m, const json_t *body)
{
    if (*text(body, "device")) {
        struct gone *gone = g_new(struct gone, 1);
        *gone = (struct gone){machine_ref(m), g_strdup(text(body, "device"))};
        daemon_worker(device_gone, gone); /* its backend goes by the monitor */
    }
}

/* Spec: ACPI 6.3, "_OST (OSPM Status Indication)": the guest would not let go of it. */
static void on_ost(struct machine *m, const json_t *body)
{
    enum { EJECT_REQUEST = 3, EJECTION = 0x103, IN_PROGRESS = 0x84 };
    const json_t *info = json_object_get(body, "info");
    json_int_t source = json_integer_value(json_object_get(info, "source"));
    json_int_t status = json_integer_value(json_object_get(info, "status"));
    if ((source != EJECT_REQUEST && source != EJECTION) || !status || status >= IN_PROGRESS ||
        !*text(info, "device")) {
        return;
    }
    g_free(m->refused);
    m->refused = g_strdup(text(info, "device"));
    rpc_event_domain_alias message = {.dom = domain_rpc(m->domain), .alias = m->refused};
    event_domain_removal_failed(&message);
    g_free(message.dom.name);
}

static void on_job_completed(struct machine *m, const json_t *body)
{
    int status = *text(body, "error") ? BLOCK_JOB_FAILED : BLOCK_JOB_COMPLETED;
    if (!backup_event(m, text(body, "device"), status)) {
        block_job_event(m, text(body, "device"), status);
    }
}

static void on_job_cancelled(struct machine *m, const json_t *body)
{
    if (!backup_event(m, text(body, "device"), BLOCK_JOB_CANCELED)) {
        block_job_event(m, text(body, "device"), BLOCK_JOB_CANCELED);
    }
}

static void on_job_ready(struct machine *m, const json_t *body)
{
    block_job_event(m, text(body, "device"), BLOCK_JOB_READY);
}

static void on_dump(struct machine *m, const json_t *body)
{
    g_free(m->dump_error);
    m->dump_error = g_strdup(json_string_value(json_object_get(body, "error")));
}

static const struct {
    const char *name;
    void (*handle)(struct machine *m, const json_t *body);
} handlers[] = {
    {"DUMP_COMPLETED", on_dump},
    {"STOP", on_stop},
    {"RESUME", on_resume},
    {"SUSPEND", on_suspend},
    {"SUSPEND_DISK", on_suspend_disk},
    {"WAKEUP", on_wakeup},
    {"SHUTDOWN", on_shutdown},
    {"RESET", on_reset},
    {"GUEST_PANICKED", on_panic},
    {"WATCHDOG", on_watchdog},
    {"BALLOON_CHANGE", on_balloon},
    {"RTC_CHANGE", on_rtc},
    {"BLOCK_IO_ERROR", on_io_error},
    {"BLOCK_WRITE_THRESHOLD", on_threshold},
    {"DEVICE_TRAY_MOVED", on_tray},
    {"VSERPORT_CHANGE", on_port},
    {"VNC_CONNECTED", on_viewer},
    {"VNC_INITIALIZED", on_viewer_ready},
    {"VNC_DISCONNECTED", on_viewer_gone},
    {"DEVICE_DELETED", on_deleted},
    {"ACPI_DEVICE_OST", on_ost},
    {"MIGRATION_PASS", on_pass},
    {"BLOCK_JOB_COMPLETED", on_job_completed},
    {"BLOCK_JOB_CANCELLED", on_job_cancelled},
    {"BLOCK_JOB_READY", on_job_ready},
};

/* For those who listen to the machine's own monitor. */
static void pass_on(Domain *d, const char *name, const json_t *body, const json_t *when)
{
    g_autofree char *details = body ? json_dumps(body, JSON_COMPACT) : NULL;
    rpc_event_monitor message = {
        .dom = domain_rpc(d),
        .event = (char *)name,
        .seconds = json_integer_value(json_object_get(when, "seconds")),
        .micros = (u_int)json_integer_value(json_object_get(when, "microseconds")),
        .details = details ? &details : NULL,
    };
    event_qemu_domain_monitor(&message);
    g_free(message.dom.name);
}

static void handle(void *data, const char *name, const json_t *body, const json_t *when)
{
    struct machine *m = data;
    if (!m->ended && event_is_heard(CLASS_MONITOR)) {
        pass_on(m->domain, name, body, when);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(handlers) && !m->ended; i++) {
        if (strcmp(handlers[i].name, name) == 0) {
            handlers[i].handle(m, body);
        }
    }
    daemon_wake();
}

/* The process that hung up has had time to end. */
static gboolean out_of_control(void *data)
{
    struct machine *m = data;
    daemon_lock();
    if (!m->ended && !m->dying && m->domain->id >= 0) {
        daemon_log("%s: its process runs, but its monitor has hung up", m->domain->name);
        rpc_event_domain message = {.dom = domain_rpc(m->domain)};
        event_domain_control_error(&message);
        g_free(message.dom.name);
    }
    machine_unref(m);
    daemon_unlock();
    return G_SOURCE_REMOVE;
}

/* Mostly its process ends, too, and that is watched. */
static void closed(void *data)
{
    enum { PAUSE_SECONDS = 2 };
    g_timeout_add_seconds(PAUSE_SECONDS, out_of_control, machine_ref(data));
}

static void caught_up(void *data)
{
    machine_caught_up(data);
}

static char *words(void *data, const char *text)
{
    return disks_words(data, text);
}

const struct qmp_ops machine_qmp_ops = {
    .event = handle, .closed = closed, .caught_up = caught_up, .words = words};
