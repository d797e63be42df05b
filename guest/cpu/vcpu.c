/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vcpu: threads, requests, pausing, reset.
 *
 * A thread runs guest code while .may_run; whoever pauses clears that for all and waits
 * until no .in_guest is left.  HLT sleeps in a futex on .requests itself, so that setting a
 * bit and falling asleep cannot miss each other.
 */
#include "guest/cpu/vcpu.h"

#include "base/lock.h"
#include "guest/cpu/debug.h"
#include "guest/cpu/engine.h"
#include "guest/cpu/models.h"
#include "guest/cpu/paravirt.h"
#include "guest/cpu/tlb.h"
#include "guest/time/clock.h"

#include <glib.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct vcpu_thread {
    pthread_t id;
    bool started;
    bool in_guest;    /* under .mutex: executes guest code, or sleeps in HLT */
    bool reported;    /* on_stop() was told; waits for the next vcpus_resume() */
    bool held;        /* under .mutex: stands still while others run */
    bool leaving;     /* under .mutex: the thread is to end */
    const struct cpu_engine *attached;
    _Atomic bool asleep;
    bool watches;     /* before it sleeps in HLT: its last sleep was short */
};

enum { MAX_VCPUS = 255 };
static struct vcpu *all[MAX_VCPUS];  /* by their index, without gaps */
static unsigned n_all;
static struct vcpu *made[MAX_VCPUS]; /* by index, those that were taken away too */
static __thread struct vcpu *self;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* never held with guest code running */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool may_run, ending;
static _Atomic bool a20_off;
static void (*stop_fn)(void *owner, struct vcpu *cpu, int stop);
static void *stop_owner;

unsigned vcpu_count(void)
{
    return n_all;
}

struct vcpu *vcpu_at(unsigned n)
{
    return n < n_all ? all[n] : NULL;
}

struct vcpu *vcpu_find(unsigned index)
{
    for (unsigned i = 0; i < n_all; i++) {
        if (all[i]->index == index) {
            return all[i];
        }
    }
    return NULL;
}

struct vcpu *vcpu_self(void)
{
    return self;
}

/* ---- attention ---- */

static void futex_wake(struct vcpu *cpu)
{
    syscall(SYS_futex, &cpu->requests, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void vcpu_request(struct vcpu *cpu, uint32_t bits)
{
    uint32_t old = atomic_fetch_or(&cpu->requests, bits);
    if (cpu == self || (old & bits) == bits) {
        return;
    }
    if (atomic_load(&cpu->thread->asleep)) {
        futex_wake(cpu);
    }
    if (cpu->engine && cpu->engine->kick) {
        cpu->engine->kick(cpu);
    }
}

static void request_all(uint32_t bits)
{
    for (unsigned i = 0; i < n_all; i++) {
        vcpu_request(all[i], bits);
    }
}

void vcpus_flush_tlb(void)
{
    request_all(REQ_FLUSH);
}

void vcpus_set_a20(bool on)
{
    if (atomic_exchange(&a20_off, !on) == on) {
        request_all(REQ_A20);
    }
}

void vcpu_take_a20(struct vcpu *cpu)
{
    uint8_t off = atomic_load(&a20_off);
    if (cpu->r.a20_off != off) {
        cpu->r.a20_off = off;
        tlb_flush(cpu, true);
    }
}

static void layout_changed(struct space_listener *l, struct space *s)
{
    (void)l, (void)s;
    vcpus_flush_tlb();
}

static void listen_to(struct space *s)
{
    static struct {
        struct space *space;
        struct space_listener listener;
    } known[4];
    for (unsigned i = 0; s && i < G_N_ELEMENTS(known); i++) {
        if (known[i].space == s) {
            return;
        }
        if (!known[i].space) {
            known[i].space = s;
            known[i].listener.changed = layout_changed;
            space_listen(s, &known[i].listener);
            return;
        }
    }
}

/* ---- state ---- */

static const struct segment real_data = {.limit = 0xffff, .attr = 0x93};

static void reset_segments(struct regs *r)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        r->seg[i] = real_data;
    }
    r->seg[SEG_CS] = (struct segment){
        .base = 0xffff0000, .limit = 0xffff, .attr = 0x9b, .selector = 0xf000};
    r->ldt = (struct segment){.limit = 0xffff, .attr = 0x82};
    r->tr = (struct segment){.limit = 0xffff, .attr = 0x8b};
    r->gdt.limit = r->idt.limit = 0xffff;
}

/* Initial x87 and SSE state: FCW, MXCSR, XSTATE_BV with x87 and SSE. */
static void reset_xsave(struct regs *r)
{
    memset(r->xsave, 0, sizeof(r->xsave));
    r->xsave[0] = 0x7f;
    r->xsave[1] = 0x03;
    r->xsave[24] = 0x80;
    r->xsave[25] = 0x1f;
    r->xsave[28] = 0xff;
    r->xsave[29] = 0xff;
    r->xsave[512] = 3;
}

static const uint16_t first_kept = offsetof(struct regs, xcr0);
static const uint16_t last_kept = offsetof(struct regs, kvm_eoi) + sizeof(uint64_t);

static void reset_msrs(struct vcpu *cpu)
{
    struct regs *r = &cpu->r;
    r->xcr0 = 1;
    r->pat = 0x0007040600070406;
    r->misc_enable = 1;
    r->smbase = 0x30000;
    r->apic_base = 0xfee00800 | (cpu->index ? 0 : 0x100);
    r->mcg_ctl = UINT64_MAX;
    for (unsigned i = 0; i < 10; i++) {
        r->mc_bank[i * 4] = UINT64_MAX;
    }
}

void vcpu_reset(struct vcpu *cpu, bool init)
{
    struct regs *r = &cpu->r, old = cpu->r;
    memset(r, 0, sizeof(*r));
    r->rflags = 2;
    r->rip = 0xfff0;
    r->cr0 = 0x60000010;
    r->dr[6] = 0xffff0ff0;
    r->dr[7] = 0x400;
    reset_segments(r);
    r->gpr[RDX] = cpu->model ? cpu_signature(cpu->model) : 0x600;
    r->wait_sipi = cpu->index != 0;
    r->halted = r->wait_sipi;
    r->a20_off = old.a20_off;
    if (init) {
        r->cr0 |= old.cr0 & (CR0_CD | CR0_NW);
        memcpy((uint8_t *)r + first_kept, (uint8_t *)&old + first_kept, last_kept - first_kept);
        memcpy(r->xsave, old.xsave, sizeof(r->xsave));
    } else {
        reset_msrs(cpu);
        reset_xsave(r);
        vcpu_unrequest(cpu, REQ_NMI | REQ_SMI | REQ_INIT | REQ_SIPI);
    }
    cpu->traps = 0;
    cpu->watched = false;
    cpu->memory = cpu->memory_normal;
    vcpu_request(cpu, REQ_FLUSH);
}

void vcpu_loaded(struct vcpu *cpu)
{
    cpu->memory = cpu->r.in_smm ? cpu->memory_smm : cpu->memory_normal;
    atomic_store(&a20_off, cpu->r.a20_off);
    cpu->traps = 0;
    vcpu_request(cpu, REQ_FLUSH);
}

uint64_t vcpu_tsc(const struct vcpu *cpu)
{
    return tsc_now() + cpu->r.tsc_offset;
}

/* Memory for vCPU @index; that of one that was taken away if there was one. */
static struct vcpu *make(unsigned index, GError **error)
{
    if (index >= MAX_VCPUS || vcpu_find(index)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "CPU %u: there can be one of it, and %d of all",
                    index, MAX_VCPUS);
        return NULL;
    }
    struct vcpu *cpu = made[index];
    struct vcpu_thread *thread = cpu ? cpu->thread : g_new0(struct vcpu_thread, 1);
    if (!cpu && posix_memalign((void **)&cpu, 64, sizeof(*cpu))) {
        error_set_errno(error, ENOMEM, "CPU %u", index);
        g_free(thread);
        return NULL;
    }
    memset(cpu, 0, sizeof(*cpu));
    memset(thread, 0, sizeof(*thread));
    cpu->thread = thread;
    return made[index] = cpu;
}

static void list(struct vcpu *cpu)
{
    unsigned at = n_all;
    pthread_mutex_lock(&mutex);
    for (; at && all[at - 1]->index > cpu->index; at--) {
        all[at] = all[at - 1];
    }
    all[at] = cpu;
    n_all++;
    pthread_mutex_unlock(&mutex);
}

struct vcpu *vcpu_new(unsigned index, uint32_t apic_id, const struct cpu_engine *engine,
                      const struct cpu_model *model, const struct vcpu_board *board,
                      struct space *memory, struct space *memory_smm, struct space *ports,
                      GError **error)
{
    struct vcpu *cpu = make(index, error);
    if (!cpu) {
        return NULL;
    }
    cpu->index = index;
    cpu->apic_id = apic_id;
    cpu->engine = engine;
    cpu->model = model;
    cpu->board = board;
    cpu->memory_normal = memory;
    cpu->memory_smm = memory_smm ? memory_smm : memory;
    cpu->ports = ports;
    vcpu_reset(cpu, false);
    cpu->r.a20_off = atomic_load(&a20_off);
    if (n_all) { /* one that comes late counts with the others */
        cpu->r.tsc_offset = all[0]->r.tsc_offset;
        cpu->points = all[0]->points;
    }
    listen_to(memory);
    listen_to(memory_smm);
    list(cpu);
    return cpu;
}

/* ---- the thread ---- */

/* Does anything in @req wake a halted vCPU?  Requests that its flags hold off do not. */
static bool wakes(const struct vcpu *cpu, uint32_t req)
{
    const struct regs *r = &cpu->r;
    if (!(r->rflags & FLAG_IF) || r->wait_sipi) {
        req &= ~(uint32_t)REQ_INTR;
    }
    if (r->nmi_blocked || r->wait_sipi) {
        req &= ~(uint32_t)REQ_NMI;
    }
    if (r->in_smm || r->wait_sipi) {
        req &= ~(uint32_t)REQ_SMI;
    }
    return req;
}

void vcpu_gprs(struct vcpu *cpu, bool push)
{
    if (cpu->engine->gprs) {
        cpu->engine->gprs(cpu, push);
    }
}

/* Until it is requested, or its own timer fires. */
static void sleep_to_timer(struct vcpu *cpu)
{
    const struct vcpu_board *b = cpu->board;
    int64_t due = b && b->sleeps ? b->sleeps(b->owner, cpu) : 0;
    struct timespec at = {due / 1000000000, due % 1000000000};
    atomic_store(&cpu->thread->asleep, true);
    uint32_t seen = atomic_load(&cpu->requests);
    if (!wakes(cpu, seen)) {
        syscall(SYS_futex, &cpu->requests, FUTEX_WAIT_BITSET_PRIVATE, seen, due ? &at : NULL, NULL,
                FUTEX_BITSET_MATCH_ANY);
    }
    atomic_store(&cpu->thread->asleep, false);
    if (due) {
        b->wakes(b->owner, cpu);
    }
}

enum { WATCH_NS = 50000, SHORT_NS = 100000, TAKEN_AWAY_NS = 10000 };

/*
 * Is it requested while it watches?  To wake a thread takes a host some 20 us, twice that where
 * the host is a machine itself: whose last sleeps were short stays awake a while, unless somebody
 * else wants the processor.
 */
static bool watch(struct vcpu *cpu)
{
    int64_t last = clock_now(), end = last + (cpu->thread->watches ? WATCH_NS : 0);
    while (last < end) {
        for (unsigned i = 0; i < 16; i++) {
            if (wakes(cpu, atomic_load(&cpu->requests))) {
                return true;
            }
            __builtin_ia32_pause();
        }
        int64_t now = clock_now();
        end = now - last < TAKEN_AWAY_NS ? end : 0;
        last = now;
    }
    return false;
}

static void sleep_halted(struct vcpu *cpu)
{
    if (cpu->engine->pull) {
        cpu->engine->pull(cpu);
    }
    int64_t since = clock_now();
    if (watch(cpu)) {
        return;
    }
    paravirt_asleep(cpu);
    while (!wakes(cpu, atomic_load(&cpu->requests))) {
        sleep_to_timer(cpu);
    }
    paravirt_awake(cpu);
    cpu->thread->watches = clock_now() - since < SHORT_NS;
}

static bool attach(struct vcpu *cpu)
{
    struct vcpu_thread *t = cpu->thread;
    if (t->attached == cpu->engine) {
        return true;
    }
    if (t->attached) {
        t->attached->detach(cpu);
        t->attached = NULL;
    }
    if (!cpu->engine->attach(cpu, &cpu->error)) {
        return false;
    }
    t->attached = cpu->engine;
    return true;
}

/* Runs until the machine pauses or something is to be reported: an enum stop then. */
static int run_until_stop(struct vcpu *cpu)
{
    if (!attach(cpu)) {
        return STOP_BROKEN;
    }
    if (cpu->engine->push) {
        cpu->engine->push(cpu);
    }
    for (;;) {
        uint32_t seen = atomic_load(&cpu->requests);
        int why = (seen & (REQ_PAUSE | REQ_EXIT)) ? STOP_KICKED : (int)cpu->engine->run(cpu);
        if (why == STOP_HALTED) {
            sleep_halted(cpu);
        } else if (why != STOP_KICKED ||
                   (atomic_load(&cpu->requests) & (REQ_PAUSE | REQ_EXIT))) {
            if (cpu->engine->pull) {
                cpu->engine->pull(cpu);
            }
            return why;
        }
    }
}

static void report(struct vcpu *cpu, int why)
{
    cpu->stop = why;
    machine_lock();
    if (stop_fn) {
        stop_fn(stop_owner, cpu, why);
    }
    machine_unlock();
}

static void *thread_main(void *arg)
{
    struct vcpu *cpu = self = arg;
    struct vcpu_thread *t = cpu->thread;
    prctl(PR_SET_TIMERSLACK, 1); /* it sleeps for guests, which have slack of their own */
    pthread_mutex_lock(&mutex);
    cpu->tid = (int)syscall(SYS_gettid);
    pthread_cond_broadcast(&changed);
    while (!ending && !t->leaving) {
        if (!may_run || t->reported || t->held) {
            pthread_cond_wait(&changed, &mutex);
            continue;
        }
        t->in_guest = true;
        pthread_mutex_unlock(&mutex);
        int why = run_until_stop(cpu);
        pthread_mutex_lock(&mutex);
        t->in_guest = false;
        t->reported = why != STOP_KICKED;
        pthread_cond_broadcast(&changed);
        if (t->reported) {
            pthread_mutex_unlock(&mutex);
            report(cpu, why);
            pthread_mutex_lock(&mutex);
        }
    }
    pthread_mutex_unlock(&mutex);
    if (t->attached) {
        t->attached->detach(cpu);
        t->attached = NULL;
    }
    return NULL;
}

/* ---- running and pausing ---- */

static void start_thread(struct vcpu *cpu)
{
    char name[16];
    if (cpu->thread->started) {
        return;
    }
    int rc = pthread_create(&cpu->thread->id, NULL, thread_main, cpu);
    if (rc) {
        g_error("cannot start the thread of CPU %u: %s", cpu->index, g_strerror(rc));
    }
    cpu->thread->started = true;
    g_snprintf(name, sizeof(name), "CPU %u", cpu->index);
    pthread_setname_np(cpu->thread->id, name);
}

int vcpu_thread_id(struct vcpu *cpu)
{
    pthread_mutex_lock(&mutex);
    start_thread(cpu); /* it waits for vcpus_resume() */
    while (!cpu->tid) {
        pthread_cond_wait(&changed, &mutex);
    }
    pthread_mutex_unlock(&mutex);
    return cpu->tid;
}

static bool any_in_guest(void)
{
    for (unsigned i = 0; i < n_all; i++) {
        if (all[i]->thread->in_guest) {
            return true;
        }
    }
    return false;
}

void vcpus_resume(void)
{
    pthread_mutex_lock(&mutex);
    if (!may_run && !any_in_guest()) {
        debug_patch();
    }
    may_run = true;
    for (unsigned i = 0; i < n_all; i++) {
        vcpu_unrequest(all[i], REQ_PAUSE);
        all[i]->thread->reported = false;
        start_thread(all[i]);
    }
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

void vcpus_pause(void)
{
    g_assert(!self);
    pthread_mutex_lock(&mutex);
    may_run = false;
    request_all(REQ_PAUSE);
    bool wait = any_in_guest(), locked = machine_lock_held();
    if (wait && locked) { /* a vCPU may need the lock to finish its instruction */
        pthread_mutex_unlock(&mutex);
        machine_unlock();
        pthread_mutex_lock(&mutex);
    }
    while (any_in_guest()) {
        pthread_cond_wait(&changed, &mutex);
    }
    debug_unpatch();
    pthread_mutex_unlock(&mutex);
    if (wait && locked) {
        machine_lock();
    }
}

void vcpu_hold(struct vcpu *cpu, bool held)
{
    pthread_mutex_lock(&mutex);
    cpu->thread->held = held;
    pthread_mutex_unlock(&mutex);
}

bool vcpus_paused(void)
{
    pthread_mutex_lock(&mutex);
    bool paused = !may_run && !any_in_guest();
    pthread_mutex_unlock(&mutex);
    return paused;
}

/* Waits for the ends of the threads of the @n in @cpus, which were told to. */
static void join_threads(struct vcpu *const cpus[], unsigned n)
{
    bool locked = machine_lock_held();
    if (locked) { /* a vCPU may be in its report() */
        machine_unlock();
    }
    for (unsigned i = 0; i < n; i++) {
        if (cpus[i]->thread->started) {
            pthread_join(cpus[i]->thread->id, NULL);
            cpus[i]->thread->started = false;
        }
    }
    if (locked) {
        machine_lock();
    }
}

/* What engines made for @cpu, whose thread has ended: others may have looked at it until then. */
static void free_engine_state(struct vcpu *cpu)
{
    g_clear_pointer(&cpu->interp, g_free);
    tlb_free(g_steal_pointer(&cpu->tlb));
}

void vcpus_exit(void)
{
    vcpus_pause();
    pthread_mutex_lock(&mutex);
    ending = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    join_threads(all, n_all);
    for (unsigned i = 0; i < n_all; i++) {
        free_engine_state(all[i]);
    }
}

void vcpu_remove(struct vcpu *cpu)
{
    unsigned at = 0;
    pthread_mutex_lock(&mutex);
    while (at < n_all && all[at] != cpu) {
        at++;
    }
    for (; at + 1 < n_all; at++) {
        all[at] = all[at + 1];
    }
    all[--n_all] = NULL;
    cpu->thread->leaving = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    join_threads(&cpu, 1);
    free_engine_state(cpu);
}

void vcpus_on_stop(void (*stopped)(void *owner, struct vcpu *cpu, int stop), void *owner)
{
    stop_fn = stopped;
    stop_owner = owner;
}
