/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/migrate.h"

#include "base/lock.h"
#include "base/util.h"
#include "guest/cpu/vcpu.h"
#include "guest/memory/ram.h"
#include "host/image/image.h"
#include "host/image/job.h"
#include "vmm/handover.h"
#include "vmm/state.h"
#include "vmm/transport.h"
#include "vmm/vm.h"

#include <stdatomic.h>
#include <sys/socket.h>

/*
 * migrate - one thread copies memory while the guest runs
 *
 * Pass by pass it sends the pages that were written during the pass before, until what is
 * left fits the downtime; then the main loop stops the machine and the thread sends the rest.
 * What touches vCPUs is done by the main loop: the thread hands it a function and waits.
 */
enum { PASSES_MAX = 30 };
enum status { NONE, SETUP, ACTIVE, COMPLETED, FAILED, CANCELLING, CANCELLED };
enum { OPEN, WHOLE, CUT };
static const char *const status_names[] = {"none",   "setup",      "active",   "completed",
                                           "failed", "cancelling", "cancelled"};

static struct {
    enum status status;
    char *error;
    struct transport to;
    struct state_io io;
    GThread *thread;
    _Atomic bool cancel;
    _Atomic int end; /* who was first: */
    int kept; /* the socket, if it is to stay; else -1 */
    _Atomic uint64_t remaining; /* bytes that are known to be unsent */
    bool was_running, stopped;
    GError *why; /* of stop_machine() */
    uint64_t **dirty; /* a bitmap a block */
    unsigned blocks;
    _Atomic unsigned passes; /* over memory, begun */
    int64_t started, ended, stopped_at; /* monotonic microseconds */
} out;

static struct migrate_parameters parameters = {.downtime_ms = 300};

struct migrate_parameters *migrate_parameters(void)
{
    return &parameters;
}

static void set_status(enum status s)
{
    out.status = s;
    vm_event("MIGRATION", json_pack("{s:s}", "status", status_names[s]));
}

/* ---- a function for the main loop, and waiting for it ---- */

struct errand {
    void (*run)(void);
    GMutex mutex;
    GCond cond;
    bool done;
};

static gboolean run_errand(gpointer data)
{
    struct errand *e = data;
    e->run();
    g_mutex_lock(&e->mutex);
    e->done = true;
    g_cond_signal(&e->cond);
    g_mutex_unlock(&e->mutex);
    return G_SOURCE_REMOVE;
}

static void in_main_loop(void (*run)(void))
{
    struct errand e = {.run = run};
    g_mutex_init(&e.mutex);
    g_cond_init(&e.cond);
    g_idle_add_full(G_PRIORITY_HIGH, run_errand, &e, NULL);
    g_mutex_lock(&e.mutex);
    while (!e.done) {
        g_cond_wait(&e.cond, &e.mutex);
    }
    g_mutex_unlock(&e.mutex);
    g_mutex_clear(&e.mutex);
    g_cond_clear(&e.cond);
}

/* ---- dirty memory; the main loop ---- */

static void collect_dirty(void)
{
    uint64_t pages = 0;
    vm_hold(); /* or a write on its way would be missed */
    for (unsigned b = 0; b < out.blocks; b++) {
        struct ram *ram = ram_at(b);
        ram_collect_dirty(ram, 0, ram->size, PAGE_CLEAN_LOG, out.dirty[b]);
        for (uint64_t i = 0; i <= (ram->size >> PAGE_BITS) / 64; i++) {
            pages += (uint64_t)__builtin_popcountll(out.dirty[b][i]);
        }
    }
    vcpus_flush_tlb();
    vm_release();
    atomic_store(&out.remaining, pages << PAGE_BITS);
}

static void next_pass(void)
{
    unsigned pass = atomic_fetch_add(&out.passes, 1) + 1;
    collect_dirty();
    vm_event("MIGRATION_PASS", json_pack("{s:i}", "pass", (int)pass));
}

static void end_log(void)
{
    for (unsigned b = 0; b < out.blocks; b++) {
        struct ram *ram = ram_at(b);
        for (uint64_t at = 0; at < ram->size; at += PAGE_SIZE) {
            ram_flags_clear(ram->host + at, PAGE_CLEAN_LOG);
        }
        g_free(out.dirty[b]);
    }
    g_clear_pointer(&out.dirty, g_free);
}

static void stop_machine(void)
{
    out.was_running = vm_running();
    out.stopped = true;
    out.stopped_at = g_get_monotonic_time();
    if (out.was_running) {
        vm_stop(VM_PAUSED);
    }
    image_drain_all();
    jobs_settle_mirrors(&out.why);
    collect_dirty();
}

static void all_dirty(void)
{
    out.blocks = 0;
    while (ram_at(out.blocks)) {
        out.blocks++;
    }
    out.dirty = g_new0(uint64_t *, out.blocks);
    for (unsigned b = 0; b < out.blocks; b++) {
        out.dirty[b] = g_new0(uint64_t, (ram_at(b)->size >> PAGE_BITS) / 64 + 1);
    }
}

/* ---- the thread ---- */

static bool send_dirty(bool first, GError **error)
{
    for (unsigned b = 0; b < out.blocks; b++) {
        if (!state_put_pages(&out.io, b, first ? NULL : out.dirty[b], !first, error)) {
            return false;
        }
    }
    return true;
}

/* What can be sent in the downtime, at the speed seen so far. */
static uint64_t affordable(void)
{
    int64_t us = MAX(g_get_monotonic_time() - out.started, 1);
    double speed = (double)atomic_load(&out.io.bytes) / (double)us;
    if (parameters.max_bandwidth) {
        speed = MIN(speed, (double)parameters.max_bandwidth / 1e6);
    }
    return (uint64_t)(speed * 1000 * (double)parameters.downtime_ms);
}

static bool send_machine(GError **error)
{
    g_autoptr(GByteArray) rest = NULL;
    uint32_t sections = 0;
    bool running = vm_running();
    in_main_loop(next_pass); /* starts the log; the first pass sends all */
    if (!state_put_head(&out.io, running, error) || !send_dirty(true, error)) {
        return false;
    }
    for (unsigned pass = 0; pass < PASSES_MAX; pass++) {
        in_main_loop(next_pass);
        if (atomic_load(&out.remaining) <= affordable()) {
            break;
        }
        if (!send_dirty(false, error)) {
            return false;
        }
    }
    /* Pages of the last look are still to be sent: the stop adds to them. */
    if (!send_dirty(false, error)) {
        return false;
    }
    in_main_loop(stop_machine);
    if (out.why) {
        g_propagate_error(error, g_steal_pointer(&out.why));
        return false;
    }
    if (!send_dirty(false, error)) {
        return false;
    }
    machine_lock();
    bool flushed = image_flush_all(error);
    if (flushed && image_holds_failed()) {
        g_set_error(error, LODGE_ERROR, EIO, "a disk request that failed waits to be tried again");
        flushed = false;
    }
    /* From here on whoever takes the state may write to the disks. */
    rest = flushed && image_yield_all(error) ? state_collect(&sections) : NULL;
    machine_unlock();
    return rest && state_put_rest(&out.io, rest, sections, error);
}

/* From then on nobody cuts it off. */
static bool is_whole(GError **error)
{
    int open = OPEN;
    if (!atomic_compare_exchange_strong(&out.end, &open, WHOLE)) {
        g_set_error(error, LODGE_ERROR, ECANCELED, "migration was cancelled");
        return false;
    }
    return true;
}

/* The connection of @t, to be kept; -1: it is something else. */
static int keep_socket(struct transport *t)
{
    int type;
    socklen_t n = sizeof(type);
    return t->fd >= 0 && getsockopt(t->fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0
               ? g_steal_fd(&t->fd)
               : -1;
}

static gboolean finished(gpointer data);

static gpointer sender(gpointer unused)
{
    GError *error = NULL;
    (void)unused;
    bool ok = send_machine(&error) && is_whole(&error);
    out.kept = ok && parameters.return_path ? keep_socket(&out.to) : -1;
    ok = transport_close(&out.to, ok, ok ? &error : NULL) && ok;
    g_idle_add(finished, error);
    return NULL;
}

/* ---- start and end; the main loop ---- */

static gboolean finished(gpointer data)
{
    g_autoptr(GError) error = data;
    g_clear_pointer(&out.thread, g_thread_join);
    end_log();
    state_io_clear(&out.io);
    out.ended = g_get_monotonic_time();
    if (!error) {
        if (out.kept >= 0) {
            handover_sent(out.kept);
        }
        vm_set_state(VM_POSTMIGRATE);
        set_status(COMPLETED);
        return G_SOURCE_REMOVE;
    }
    bool cancelled = g_error_matches(error, LODGE_ERROR, ECANCELED);
    out.error = g_strdup(error->message);
    if (!cancelled) {
        vm_report("migrate: %s", error->message);
    }
    set_status(cancelled ? CANCELLED : FAILED);
    g_clear_error(&error);
    if (!image_claim_all(&error)) {
        vm_report("migrate: %s", error->message);
    } else if (out.stopped && out.was_running) {
        vm_cont(NULL);
    }
    return G_SOURCE_REMOVE;
}

bool migrate_running(void)
{
    return out.status == ACTIVE || out.status == SETUP || out.status == CANCELLING;
}

bool migrate_finishing(void)
{
    return migrate_running() && out.stopped;
}

bool migrate_start(const char *uri, GError **error)
{
    if (migrate_running()) {
        g_set_error(error, LODGE_ERROR, EBUSY, "There's a migration process in progress");
        return false;
    }
    if (vm_state() == VM_INMIGRATE) {
        g_set_error(error, LODGE_ERROR, EBUSY, "Guest is waiting for an incoming migration");
        return false;
    }
    if (!handover_claim(error) || !transport_open(&out.to, uri, true, error)) {
        return false;
    }
    g_clear_pointer(&out.error, g_free);
    atomic_store(&out.cancel, false);
    atomic_store(&out.end, OPEN);
    atomic_store(&out.passes, 0);
    out.stopped = false;
    all_dirty();
    state_io_init(&out.io, out.to.fd);
    out.io.cancelled = &out.cancel;
    out.io.max_rate = &parameters.max_bandwidth;
    out.started = g_get_monotonic_time();
    set_status(SETUP);
    set_status(ACTIVE);
    out.thread = g_thread_new("migrate", sender, NULL);
    return true;
}

void migrate_stop(void)
{
    int open = OPEN;
    if (out.status == ACTIVE && atomic_compare_exchange_strong(&out.end, &open, CUT)) {
        set_status(CANCELLING);
        atomic_store(&out.cancel, true);
        transport_interrupt(&out.to);
    }
}

json_t *migrate_status(void)
{
    uint64_t sent = atomic_load(&out.io.bytes), total = 0;
    if (out.status == NONE) {
        return json_object();
    }
    for (unsigned b = 0; ram_at(b); b++) {
        total += ram_at(b)->size;
    }
    int64_t now = out.status == ACTIVE ? g_get_monotonic_time() : out.ended;
    double speed = (double)sent / (double)MAX(now - out.started, 1); /* bytes a microsecond */
    json_t *answer = json_pack(
        "{s:s, s:I, s:{s:I, s:I, s:I, s:I, s:I, s:f}}", "status", status_names[out.status], "total-time",
        (json_int_t)((now - out.started) / 1000), "ram", "transferred", (json_int_t)sent, "remaining",
        (json_int_t)(out.status == ACTIVE ? atomic_load(&out.remaining) : 0), "total",
        (json_int_t)total, "dirty-sync-count", (json_int_t)atomic_load(&out.passes), "page-size",
        (json_int_t)PAGE_SIZE, "mbps", speed * 8);
    if (out.error) {
        json_object_set_new(answer, "error-desc", json_string(out.error));
    }
    if (out.status == COMPLETED) {
        json_object_set_new(answer, "downtime",
                            json_integer((out.ended - out.stopped_at) / 1000));
    }
    return answer;
}

char *migrate_describe(void)
{
    return out.status == NONE ? g_strdup("no migration\n")
                              : g_strdup_printf("Migration status: %s%s%s\ntransferred ram: %" G_GUINT64_FORMAT
                                                " kbytes\n",
                                                status_names[out.status], out.error ? ": " : "",
                                                out.error ? out.error : "",
                                                atomic_load(&out.io.bytes) / 1024);
}

/* ---- incoming ---- */

static struct {
    struct transport from;
    struct state_io io;
    GThread *thread;
    bool paused, running, waiting;
    int kept; /* the socket by which it came; -1 */
    char *uri;
} in;

static gboolean arrived(gpointer data)
{
    g_autoptr(GError) error = data;
    g_clear_pointer(&in.thread, g_thread_join);
    state_io_clear(&in.io);
    if (error || !image_claim_all(&error)) {
        vm_report("-incoming %s: %s", in.uri, error->message);
        vm_event("MIGRATION", json_pack("{s:s}", "status", "failed"));
        vm_request_exit(1);
        return G_SOURCE_REMOVE;
    }
    if (in.kept >= 0) {
        handover_arrived(in.kept);
    }
    vm_set_state(VM_PAUSED);
    vm_event("MIGRATION", json_pack("{s:s}", "status", "completed"));
    if (in.running && !in.paused) {
        vm_cont(NULL);
    }
    return G_SOURCE_REMOVE;
}

static gpointer receiver(gpointer unused)
{
    GError *error = NULL;
    (void)unused;
    bool ok = transport_accept(&in.from, &error);
    if (ok) {
        state_io_init(&in.io, in.from.fd);
        ok = state_load(&in.io, &in.running, &error);
    }
    in.kept = ok ? keep_socket(&in.from) : -1;
    transport_close(&in.from, ok, ok ? &error : NULL);
    g_idle_add(arrived, error);
    return NULL;
}

static bool receive(const char *uri, GError **error)
{
    if (!transport_open(&in.from, uri, false, error)) {
        return false;
    }
    in.uri = g_strdup(uri);
    vm_event("MIGRATION", json_pack("{s:s}", "status", "setup"));
    in.thread = g_thread_new("incoming", receiver, NULL);
    return true;
}

bool migrate_incoming(const char *uri, bool paused, GError **error)
{
    in.paused = paused;
    in.waiting = g_str_equal(uri, "defer");
    if (!in.waiting && !receive(uri, error)) {
        g_prefix_error(error, "-incoming %s: ", uri);
        return false;
    }
    return true;
}

bool migrate_deferred(const char *uri, GError **error)
{
    if (!in.waiting) {
        g_set_error(error, LODGE_ERROR, EINVAL, "'-incoming' was not specified on the command line");
        return false;
    }
    in.waiting = !receive(uri, error);
    return !in.waiting;
}
