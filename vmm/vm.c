/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/vm.h"

#include "base/lock.h"
#include "base/log.h"
#include "guest/cpu/engine.h"
#include "guest/cpu/translate/bt.h"
#include "host/audio/audio.h"
#include "host/chardev/chardev.h"
#include "host/display/display.h"
#include "host/image/image.h"
#include "host/net/net.h"
#include "vmm/events.h"
#include "vmm/handover.h"
#include "vmm/migrate.h"
#include "vmm/monitor/monitor.h"
#include "vmm/options.h"
#include "vmm/savevm.h"

#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

/*
 * vm - the machine's life: run, stop, reset, shut down, and the events that say so.
 *
 * Requests come from vCPU threads, devices, monitors and signals; they set a bit and wake the
 * main loop, which alone changes the state.
 */
const char *const vm_states[VM_STATES] = {
    [VM_PRELAUNCH] = "prelaunch",
    [VM_RUNNING] = "running",
    [VM_PAUSED] = "paused",
    [VM_DEBUG] = "debug",
    [VM_SUSPENDED] = "suspended",
    [VM_SHUTDOWN] = "shutdown",
    [VM_INTERNAL_ERROR] = "internal-error",
    [VM_IO_ERROR] = "io-error",
    [VM_PANICKED] = "guest-panicked",
    [VM_INMIGRATE] = "inmigrate",
    [VM_POSTMIGRATE] = "postmigrate",
    [VM_WATCHDOG] = "watchdog",
};

enum wish {
    WISH_RESET = 1 << 0,
    WISH_SHUTDOWN = 1 << 1,
    WISH_EXIT = 1 << 2,
    WISH_SUSPEND = 1 << 3,
    WISH_WAKEUP = 1 << 4,
    WISH_PANIC = 1 << 5,
    WISH_DEBUG = 1 << 6,
    WISH_BROKEN = 1 << 7,
    WISH_IO_STOP = 1 << 8,
    WISH_WATCHDOG = 1 << 9,
    WISH_SUSPEND_DISK = 1 << 10,
};

static struct {
    struct vm_options *options;
    struct board *board;
    GMainLoop *loop;
    enum vm_state state;
    GSource *waker;
    _Atomic unsigned wishes;
    _Atomic int cause; /* enum vm_cause of the last request */
    int exit_code;
    struct vcpu *stopped_cpu; /* of WISH_DEBUG and WISH_BROKEN */
} vm;

bool (*vm_debug_stop)(struct vcpu *cpu);
void (*vm_stopped)(enum vm_state why);
void (*vm_event_sink)(const char *name, json_t *data);

/* ---- events and reports ---- */

void vm_report(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *said = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_auto(GStrv) lines = g_strsplit(said, "\n", -1);
    g_autofree char *text = g_strjoinv("; ", lines); /* one line each */
    if (vm.options && vm.options->timestamps) {
        g_autoptr(GDateTime) now = g_date_time_new_now_utc();
        g_autofree char *stamp = g_date_time_format_iso8601(now);
        fprintf(stderr, "%s ", stamp);
    }
    fprintf(stderr, "lodge-vm: %s\n", text);
}

void vm_event(const char *name, json_t *data)
{
    if (vm_event_sink) {
        vm_event_sink(name, data);
    } else {
        json_decref(data);
    }
}

static const char *cause_name(void)
{
    static const char *const names[] = {
        [CAUSE_GUEST] = "guest-shutdown", [CAUSE_GUEST_RESET] = "guest-reset",
        [CAUSE_HOST] = "host-qmp-quit",   [CAUSE_HOST_RESET] = "host-qmp-system-reset",
        [CAUSE_HOST_UI] = "host-ui",      [CAUSE_SIGNAL] = "host-signal",
        [CAUSE_PANIC] = "guest-panic"};
    return names[atomic_load(&vm.cause)];
}

static void event_with_cause(const char *name)
{
    int c = atomic_load(&vm.cause);
    bool guest = c == CAUSE_GUEST || c == CAUSE_GUEST_RESET || c == CAUSE_PANIC;
    vm_event(name, json_pack("{s:b, s:s}", "guest", guest, "reason", cause_name()));
}

/* ---- state ---- */

struct board *vm_board(void)
{
    return vm.board;
}

const struct vm_options *vm_options(void)
{
    return vm.options;
}

enum vm_state vm_state(void)
{
    return vm.state;
}

bool vm_running(void)
{
    return vm.state == VM_RUNNING;
}

void vm_stop(enum vm_state why)
{
    bool ran = vm_running();
    if (ran) {
        vcpus_pause();
        clock_stop();
        image_drain_all();
    }
    vm.state = why;
    if (ran) {
        vm_event("STOP", NULL);
    }
    if (ran && vm_stopped) {
        vm_stopped(why);
    }
}

bool vm_cont(GError **error)
{
    if (vm_running()) {
        return true;
    }
    if (vm.state == VM_INMIGRATE) {
        g_set_error(error, LODGE_ERROR, EBUSY, "the incoming state is not here yet");
        return false;
    }
    if (migrate_finishing()) {
        g_set_error(error, LODGE_ERROR, EBUSY, "the state is on its way to somewhere else");
        return false;
    }
    if (vm.state == VM_SHUTDOWN || vm.state == VM_INTERNAL_ERROR || vm.state == VM_PANICKED) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Resetting the Virtual Machine is required");
        return false;
    }
    if (vm.state == VM_SUSPENDED) {
        return true; /* what runs is the guest's sleep: system_wakeup ends it */
    }
    /* A state was sent elsewhere, and the disks with it. */
    if (!handover_claim(error) || !image_claim_all(error)) {
        return false;
    }
    vm.state = VM_RUNNING;
    clock_start();
    image_retry_held();
    vcpus_resume();
    vm_event("RESUME", NULL);
    return true;
}

static unsigned holds;

void vm_hold(void)
{
    if (holds++ == 0 && vm_running()) {
        vcpus_pause();
    }
}

void vm_release(void)
{
    if (--holds == 0 && vm_running()) {
        vcpus_resume();
    }
}

/* ---- requests; any thread ---- */

static void wish(enum wish what)
{
    atomic_fetch_or(&vm.wishes, what);
    if (vm.waker) {
        g_source_set_ready_time(vm.waker, 0);
    }
}

void vm_request_reset(enum vm_cause cause)
{
    atomic_store(&vm.cause, cause);
    wish(WISH_RESET);
}

void vm_request_shutdown(enum vm_cause cause)
{
    atomic_store(&vm.cause, cause);
    wish(WISH_SHUTDOWN);
}

void vm_request_exit(int code)
{
    vm.exit_code = code;
    wish(WISH_EXIT);
}

static void quit_by_key(void)
{
    atomic_store(&vm.cause, CAUSE_HOST_UI);
    vm_request_exit(0);
}

static void board_request(struct board *board, enum board_event event, int code)
{
    (void)board;
    switch (event) {
    case BOARD_RESET:
        vm_request_reset(CAUSE_GUEST_RESET);
        break;
    case BOARD_SHUTDOWN:
        vm_request_shutdown(CAUSE_GUEST);
        break;
    case BOARD_SUSPEND:
        wish(WISH_SUSPEND);
        break;
    case BOARD_SUSPEND_DISK:
        wish(WISH_SUSPEND_DISK);
        vm_request_shutdown(CAUSE_GUEST);
        break;
    case BOARD_EXIT:
        vm_request_exit(code);
        break;
    case BOARD_PANIC:
        wish(WISH_PANIC);
        break;
    case BOARD_WAKEUP:
        wish(WISH_WAKEUP);
        break;
    case BOARD_WATCHDOG:
        wish(WISH_WATCHDOG);
        break;
    }
}

/* A disk of the host is full or broken: machine lock held, any thread. */
static void disk_failed(Image *img, bool write, int error, enum image_on_error action)
{
    bool stops = action == IMAGE_ON_ERROR_STOP;
    static const char *const actions[] = {[IMAGE_ON_ERROR_DEFAULT] = "report",
                                          [IMAGE_ON_ERROR_REPORT] = "report",
                                          [IMAGE_ON_ERROR_IGNORE] = "ignore",
                                          [IMAGE_ON_ERROR_STOP] = "stop",
                                          [IMAGE_ON_ERROR_ENOSPC] = "stop"};
    vm_event("BLOCK_IO_ERROR",
             json_pack("{s:s, s:s, s:s, s:s, s:b, s:s}", "device", image_id(img), "node-name",
                       image_node_name(img) ? image_node_name(img) : "", "operation",
                       write ? "write" : "read", "action", actions[action], "nospace",
                       error == ENOSPC, "reason", g_strerror(error)));
    if (stops) {
        vm_report("%s: %s; the machine stops, cont tries again", image_id(img), g_strerror(error));
        wish(WISH_IO_STOP);
    }
}

/* In the vCPU's thread, machine lock held. */
static void cpu_stopped(void *owner, struct vcpu *cpu, int stop)
{
    (void)owner;
    if (stop == STOP_RESET) {
        vm_request_reset(CAUSE_GUEST_RESET);
    } else {
        vm.stopped_cpu = cpu;
        wish(stop == STOP_DEBUG ? WISH_DEBUG : WISH_BROKEN);
    }
}

void vm_power_button(void)
{
    if (vm.board->power_button) {
        vm.board->power_button(vm.board);
    }
    vm_event("POWERDOWN", NULL);
}

bool vm_wakeup(GError **error)
{
    if (vm.state != VM_SUSPENDED) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "Unable to wake up: guest is not in suspended state");
        return false;
    }
    wish(WISH_WAKEUP);
    return true;
}

/* ---- granting them; the main loop ---- */

static void reset(void)
{
    bool run = vm_running() || vm.state == VM_SUSPENDED;
    if (vm.options->on_reboot == REBOOT_SHUTDOWN) {
        wish(WISH_SHUTDOWN);
        return;
    }
    if (vm_running()) {
        vcpus_pause();
    }
    image_drain_all();
    machine_reset(vm.board);
    event_with_cause("RESET");
    if (run) {
        vm.state = VM_RUNNING;
        clock_start();
        vcpus_resume();
    } else if (vm.state != VM_PRELAUNCH && vm.state != VM_INMIGRATE) {
        vm.state = VM_PAUSED;
    }
}

static void end(int code)
{
    vm.exit_code = code;
    g_main_loop_quit(vm.loop);
}

static void shut_down(void)
{
    event_with_cause("SHUTDOWN");
    if (vm.options->on_shutdown == SHUTDOWN_PAUSE && atomic_load(&vm.cause) != CAUSE_SIGNAL &&
        atomic_load(&vm.cause) != CAUSE_HOST) {
        vm_stop(VM_SHUTDOWN);
    } else {
        end(0);
    }
}

static void suspend(void)
{
    if (vm_running()) {
        vcpus_pause();
        vm.state = VM_SUSPENDED;
        vm_event("SUSPEND", NULL);
    }
}

/* What follows is a power-off like any other. */
static void suspend_disk(void)
{
    vm_event("SUSPEND_DISK", NULL);
}

/* From S3 a PC comes back through its reset vector; memory is as it was. */
static void wake(void)
{
    if (vm.state == VM_SUSPENDED) {
        machine_wake(vm.board);
        vm.state = VM_RUNNING;
        vcpus_resume();
        vm_event("WAKEUP", NULL);
    }
}

static void panicked(void)
{
    static const char *const actions[] = {[PANIC_PAUSE] = "pause",
                                          [PANIC_SHUTDOWN] = "poweroff",
                                          [PANIC_EXIT_FAILURE] = "poweroff",
                                          [PANIC_NONE] = "run"};
    enum action_panic action = vm.options->on_panic;
    vm_event("GUEST_PANICKED", json_pack("{s:s}", "action", actions[action]));
    if (action == PANIC_PAUSE) {
        vm_stop(VM_PANICKED);
    } else if (action != PANIC_NONE) {
        atomic_store(&vm.cause, CAUSE_PANIC);
        event_with_cause("SHUTDOWN");
        end(action == PANIC_EXIT_FAILURE);
    }
}

static void watchdog(void)
{
    static const char *const actions[] = {
        [WATCHDOG_RESET] = "reset",       [WATCHDOG_SHUTDOWN] = "shutdown",
        [WATCHDOG_POWEROFF] = "poweroff", [WATCHDOG_INJECT_NMI] = "inject-nmi",
        [WATCHDOG_PAUSE] = "pause",       [WATCHDOG_DEBUG] = "debug",
        [WATCHDOG_NONE] = "none"};
    enum action_watchdog action = vm.options->on_watchdog;
    vm_event("WATCHDOG", json_pack("{s:s}", "action", actions[action]));
    switch (action) {
    case WATCHDOG_RESET:
        vm_request_reset(CAUSE_GUEST_RESET);
        break;
    case WATCHDOG_SHUTDOWN:
        vm_power_button();
        break;
    case WATCHDOG_POWEROFF:
        vm_request_shutdown(CAUSE_GUEST);
        break;
    case WATCHDOG_INJECT_NMI:
        for (unsigned i = 0; i < vcpu_count(); i++) {
            vcpu_request(vcpu_at(i), REQ_NMI);
        }
        break;
    case WATCHDOG_PAUSE:
        vm_stop(VM_WATCHDOG);
        break;
    case WATCHDOG_DEBUG:
        vm_report("watchdog: the guest did not answer in time");
        break;
    case WATCHDOG_NONE:
        break;
    }
}

static void io_stopped(void)
{
    vm_stop(VM_IO_ERROR);
}

static void broken(void)
{
    struct vcpu *cpu = vm.stopped_cpu;
    vm_stop(VM_INTERNAL_ERROR);
    vm_report("CPU %u cannot go on at %#" G_GINT64_MODIFIER "x: %s", cpu->index, cpu->r.rip,
              cpu->error ? cpu->error->message : "no reason given");
    g_clear_error(&cpu->error);
}

static void debugged(void)
{
    vm_stop(VM_DEBUG);
    if (!vm_debug_stop || !vm_debug_stop(vm.stopped_cpu)) {
        vm.stopped_cpu->watched = false;
        vm_cont(NULL); /* the debugger has gone meanwhile */
    }
}

static gboolean grant(gpointer unused)
{
    static const struct {
        enum wish what;
        void (*run)(void);
    } rows[] = {
        {WISH_BROKEN, broken},      {WISH_PANIC, panicked},     {WISH_DEBUG, debugged},
        {WISH_SUSPEND, suspend},    {WISH_WAKEUP, wake},        {WISH_RESET, reset},
        {WISH_SUSPEND_DISK, suspend_disk},
        {WISH_SHUTDOWN, shut_down}, {WISH_IO_STOP, io_stopped}, {WISH_WATCHDOG, watchdog},
    };
    (void)unused;
    g_source_set_ready_time(vm.waker, -1);
    unsigned wishes = atomic_exchange(&vm.wishes, 0);
    if (wishes & WISH_EXIT) {
        g_main_loop_quit(vm.loop);
        return G_SOURCE_CONTINUE;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (wishes & rows[i].what) {
            rows[i].run();
        }
    }
    return G_SOURCE_CONTINUE;
}

/* ---- start and end ---- */

static gboolean waker_dispatch(GSource *source, GSourceFunc callback, gpointer data)
{
    (void)source;
    return callback(data);
}

static void make_waker(void)
{
    static GSourceFuncs funcs = {.dispatch = waker_dispatch};
    vm.waker = g_source_new(&funcs, sizeof(GSource));
    g_source_set_callback(vm.waker, grant, NULL, NULL);
    g_source_set_priority(vm.waker, G_PRIORITY_HIGH);
    g_source_attach(vm.waker, NULL);
}

static gboolean signalled(gpointer unused)
{
    (void)unused;
    vm_request_shutdown(CAUSE_SIGNAL);
    return G_SOURCE_CONTINUE;
}

static void waiting(const char *about)
{
    vm_report("waiting for a connection on %s", about);
}

static bool start(GError **error)
{
    struct vm_options *o = vm.options;
    o->machine.request = board_request;
    vm.state = VM_PRELAUNCH;
    if (o->incoming) {
        image_await();
    }
    if (!vm_build(o, error)) {
        return false;
    }
    events_open(vm.board);
    machine_reset(vm.board);
    if (!confine(o, error)) {
        return false;
    }
    confine_ready();
    chardevs_start();
    if (o->incoming) {
        vm.state = VM_INMIGRATE;
        return migrate_incoming(o->incoming, o->paused, error);
    }
    if (o->loadvm && !savevm_load(o->loadvm, NULL, error)) {
        g_prefix_error(error, "-loadvm %s: ", o->loadvm);
        return false;
    }
    return o->paused || vm_cont(error);
}

void vm_set_board(struct board *board)
{
    vm.board = board;
}

void vm_set_state(enum vm_state state)
{
    vm.state = state;
}

/* Also after a failed start: whatever was made is given back. */
static void finish(void)
{
    if (vm_running()) {
        vcpus_pause();
        clock_stop();
    }
    g_autoptr(GError) error = NULL;
    if (vm.board) {
        image_drain_all();
        if (!image_flush_all(&error)) {
            vm_report("%s", error->message);
        }
        vcpus_exit();
    }
    image_close_all();
    monitors_close();
    vnc_stop();
    netdevs_close();
    audios_close();
    chardevs_close();
    if (vm.options && vm.options->pidfile) {
        unlink(vm.options->pidfile);
    }
}

static bool on_terminal(const struct option_use *use, void *owner, GError **error)
{
    const char *text = use->text;
    (void)owner;
    text += g_str_has_prefix(text, "mon:") ? 4 : 0;
    if (g_str_equal(text, "stdio") || g_str_has_prefix(text, "stdio,")) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-%s %s: cannot use stdio with -daemonize",
                    use->option, use->text);
        return false;
    }
    return true;
}

static bool may_daemonize(struct vm_options *o, GError **error)
{
    if (o->nographic) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-nographic cannot be used with -daemonize");
        return false;
    }
    return vm_options_each(o,
                           (const char *const[]){"serial", "parallel", "monitor", "qmp",
                                                 "qmp-pretty", "chardev", NULL},
                           on_terminal, NULL, error);
}

int vm_main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    vm.options = vm_options_parse(argc, argv, &error);
    if (vm.options && vm.options->answer) {
        fputs(vm.options->answer, stdout);
        return 0;
    }
    if (!vm.options) {
        vm_report("%s", error->message);
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    bt_direct_make_room();
    if ((vm.options->daemonize && !may_daemonize(vm.options, &error)) ||
        (vm.options->daemonize && !confine_daemonize(&error)) ||
        (vm.options->pidfile && !confine_pidfile(vm.options->pidfile, &error))) {
        vm_report("%s", error->message);
        return 1;
    }
    machine_lock();
    lock_main_context();
    vm.loop = g_main_loop_new(NULL, FALSE);
    make_waker();
    g_unix_signal_add(SIGINT, signalled, NULL);
    g_unix_signal_add(SIGTERM, signalled, NULL);
    g_unix_signal_add(SIGHUP, signalled, NULL);
    chardev_quit = quit_by_key;
    chardev_waiting = waiting;
    image_failed = disk_failed;
    vcpus_on_stop(cpu_stopped, NULL);
    if (start(&error)) {
        g_main_loop_run(vm.loop);
    } else {
        vm.exit_code = 1;
    }
    finish();
    if (error) {
        vm_report("%s", error->message);
    }
    return vm.exit_code;
}
