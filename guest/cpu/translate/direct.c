/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * direct: which programs run in a process of their own, and the way there and back.
 *
 * Going there and back costs some 12 us, a page that is not mapped there yet as much again; in
 * between a program runs as fast as the host.  So a program goes there when it has run
 * long enough between its visits to the kernel, and comes back when it does not any more.
 * Programs are told apart by CR3.
 *
 * Everything there and back happens between two instructions of the program: what the processor
 * refuses to do (faults, exceptions), the interpreter does again.
 */
#include "guest/cpu/translate/direct.h"

#include "guest/cpu/paging.h"
#include "guest/cpu/translate/bt.h"
#include "guest/time/clock.h"

#include <sched.h>
#include <time.h>

enum {
    PROGRAMS = 8,
    LONG_US = 500,    /* translated, at a time: somebody else may have had some of it */
    SLOW_US = 15,     /* what comes and goes sooner is not timed: that costs a tenth of a visit */
    KEPT_US = 10000,  /* to one core, at a time */
    LEAST_US = 20,    /* a way there and back takes less */
    REFUSED_MOST = 3, /* a host that lets nobody be traced says so each time */
};
#define VSYSCALL UINT64_C(0xffffffffff600000)

struct program {
    uint64_t cr3; /* without flags; 0: free */
    uint64_t used;
    struct mirror *mirror; /* made when it is hot */
    bool never;
    bool not_now; /* up to the next visit to the kernel */
    struct account account;
    uint64_t synced;  /* .turns when last compared */
    uint64_t wanted;  /* 1 + an address that the guest was asked to map */
    bool wanted_code; /* to be executed */
    int core;         /* the process's, like the vCPU's */
};

struct direct {
    struct program at[PROGRAMS], *now;
    bool timed;     /* the stretch in hand is */
    bool slow;      /* the last one took long, with the visit to the kernel before it */
    uint64_t left;  /* TSC: end of that */
    uint64_t since; /* TSC: what was counted up to there */
    int64_t cpu_at; /* the thread's time when last asked for, ns */
    uint64_t used;
    unsigned refused;            /* processes that could not be made */
    uint64_t deep;               /* .turns when memory may last have moved */
    uint64_t least, least_there; /* ticks: the shortest stay, the shortest way there */
    uint64_t there;              /* the way there, of late */
    uint64_t trip, move;         /* what a stretch there costs, and a process, of late */
    uint64_t inside;             /* of the stay in hand: what the program may have computed */
    cpu_set_t may_run_on;
    int core;               /* the one that the vCPU's thread keeps to; -1: any */
    uint64_t kept;          /* since then */
    _Atomic uint64_t turns; /* moves when a mirror may be wrong */
};

enum bt_direct bt_direct;
bool bt_direct_keeps_cores = true;

bool bt_direct_named(const char *name)
{
    static const char *const names[] = {
        [DIRECT_HOT] = "on", [DIRECT_OFF] = "off", [DIRECT_ALWAYS] = "always"};
    unsigned k = 0;
    while (k < G_N_ELEMENTS(names) && !g_str_equal(name, names[k])) {
        k++;
    }
    bt_direct = k < G_N_ELEMENTS(names) ? (enum bt_direct)k : bt_direct;
    return k < G_N_ELEMENTS(names);
}

static uint64_t ticks_of_us;

static uint64_t ticks_of(uint64_t us)
{
    return us * ticks_of_us;
}

/* A page of memory gets a flag.  True: another vCPU may be writing to it in its process. */
static bool drop_writes(struct vcpu *cpu, const void *host_page)
{
    bool others = false;
    if (!mirror_forget_writes(host_page)) {
        return false;
    }
    for (unsigned k = 0; k < BT_CPUS; k++) {
        struct bt_cpu *b = bt_cpus[k];
        if (b && b->native) {
            atomic_fetch_add(&b->native->turns, 1);
            others |= b->cpu != cpu && atomic_load(&b->tracee);
        }
    }
    return others;
}

bool direct_open(struct bt_cpu *b)
{
    static bool open;
    if (bt_direct == DIRECT_OFF || (!open && !(open = mirror_open()))) {
        return false;
    }
    ticks_of_us = tsc_hz() / 1000000;
    tlb_other_writers = drop_writes;
    b->native = g_new0(struct direct, 1);
    b->native->turns = 1;
    b->native->least = ticks_of(LEAST_US);
    b->native->there = b->native->least_there = b->native->least / 2;
    b->native->core = -1;
    return true;
}

static void forget(struct program *p)
{
    g_clear_pointer(&p->mirror, mirror_free);
    *p = (struct program){.core = -1};
}

/*
 * Since when a vCPU keeps to the core; 0: none does.  Two on one would share it, while another
 * may be idle.
 */
static _Atomic uint64_t kept_since[CPU_SETSIZE];

static bool claim(struct direct *d, int core)
{
    uint64_t was = atomic_load(&kept_since[core]), now = __builtin_ia32_rdtsc();
    bool free = !was || now - was > ticks_of(KEPT_US); /* or who has it rests */
    if (!free || !atomic_compare_exchange_strong(&kept_since[core], &was, now)) {
        return false;
    }
    d->core = core;
    d->kept = now;
    return true;
}

static void let_go(struct direct *d)
{
    uint64_t own = d->kept;
    if (d->core >= 0) {
        atomic_compare_exchange_strong(&kept_since[d->core], &own, 0); /* another's meanwhile? */
    }
    d->core = -1;
}

void direct_close(struct bt_cpu *b)
{
    for (unsigned k = 0; b->native && k < PROGRAMS; k++) {
        forget(&b->native->at[k]);
    }
    if (b->native) {
        let_go(b->native);
    }
    g_clear_pointer(&b->native, g_free);
}

/*
 * The vCPU and the process take turns, so they belong on one core: waking another one costs
 * more than the way there.  Now and then they may move.
 */
static void keep_to_core(struct direct *d)
{
    cpu_set_t here;
    int core = d->core < 0 && bt_direct_keeps_cores ? sched_getcpu() : -1;
    if (core >= 0 && core < CPU_SETSIZE && claim(d, core)) {
        CPU_ZERO(&here);
        CPU_SET(d->core, &here);
        sched_getaffinity(0, sizeof(d->may_run_on), &d->may_run_on);
        sched_setaffinity(0, sizeof(here), &here);
    }
}

static void leave_core(struct direct *d)
{
    if (d->core >= 0 && d->since - d->kept > ticks_of(KEPT_US)) {
        let_go(d);
        sched_setaffinity(0, sizeof(d->may_run_on), &d->may_run_on);
    }
}

static void follow_core(const struct direct *d, struct program *p, int pid)
{
    cpu_set_t here;
    if (p->core == d->core) {
        return;
    }
    p->core = d->core;
    CPU_ZERO(&here);
    if (p->core >= 0) {
        CPU_SET(p->core, &here);
    }
    sched_setaffinity(pid, sizeof(here), p->core >= 0 ? &here : &d->may_run_on);
}

/* ---- who ---- */

static struct program *program_of(struct direct *d, uint64_t cr3)
{
    struct program *oldest = &d->at[0];
    cr3 &= ~UINT64_C(0xfff);
    for (unsigned k = 0; k < PROGRAMS; k++) {
        if (d->at[k].cr3 == cr3) {
            return &d->at[k];
        }
        oldest = d->at[k].used < oldest->used ? &d->at[k] : oldest;
    }
    forget(oldest);
    oldest->cr3 = cr3;
    oldest->never = d->refused > REFUSED_MOST;
    account_start(&oldest->account, ticks_of_us, d->trip, d->move);
    return oldest;
}

/* What passed since @d->since, less what other threads had of it if that may be much. */
static uint64_t passed_at(struct direct *d, uint64_t now)
{
    uint64_t ticks = now - d->since;
    struct timespec t;
    d->since = now;
    if (ticks > ticks_of(LONG_US)) {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        int64_t ns = t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
        ticks = MIN(ticks, ticks_of((uint64_t)(ns - d->cpu_at) / 1000));
        d->cpu_at = ns;
    }
    return ticks;
}

static uint64_t passed(struct direct *d)
{
    return passed_at(d, __builtin_ia32_rdtsc());
}

/* Back to translated code. */
static void cool(struct bt_cpu *b, struct program *p)
{
    g_clear_pointer(&p->mirror, mirror_free);
    p->account.hot = false;
    p->wanted = 0;
    b->direct = 0;
}

void direct_rested(struct bt_cpu *b)
{
    struct direct *d = b->native;
    if (d) {
        d->since = d->left = __builtin_ia32_rdtsc();
        leave_core(d);
    }
}

void direct_enter_user(struct bt_cpu *b)
{
    struct direct *d = b->native;
    uint64_t cr3 = b->cpu->r.cr3 & ~UINT64_C(0xfff);
    if (!d->now || d->now->cr3 != cr3) {
        d->now = program_of(d, cr3);
        d->now->used = ++d->used;
    }
    d->timed = d->slow || d->now->account.hot;
    d->since = d->timed ? __builtin_ia32_rdtsc() : 0;
    d->now->not_now = d->now->never;
    b->direct = !d->now->never && (bt_direct == DIRECT_ALWAYS || account_now(&d->now->account));
}

void direct_still_user(struct bt_cpu *b)
{
    struct direct *d = b->native;
    struct program *p = d->now;
    if (p && p->account.hot && !p->not_now && !b->direct) {
        p->account.translated += passed(d);
        b->direct = account_late(&p->account);
    }
}

void direct_leave_user(struct bt_cpu *b)
{
    struct direct *d = b->native;
    struct program *p = d->now;
    uint64_t now = __builtin_ia32_rdtsc();
    d->slow = now - d->left > ticks_of(SLOW_US);
    d->left = now;
    if (!p || (d->slow && !d->timed)) {
        return; /* the next one is timed */
    }
    p->account.translated += d->timed ? passed_at(d, now) : 0;
    bool had = p->account.hot;
    account_end(&p->account);
    if (had) {
        d->trip = p->account.trip;
    }
    if (!p->account.hot) {
        leave_core(d);
        if (had && bt_direct != DIRECT_ALWAYS) {
            cool(b, p);
        }
    }
}

/* ---- what is right there ---- */

void direct_unmapped(struct bt_cpu *b, uint64_t linear, uint64_t bytes, bool global)
{
    struct direct *d = b->native;
    struct program *p = d ? d->now : NULL;
    if (!d) {
        return;
    }
    if (!bytes) {
        uint64_t turn = atomic_fetch_add(&d->turns, 1) + 1;
        d->deep = global ? turn : d->deep;
    } else if (p && p->mirror && p->cr3 == (b->cpu->r.cr3 & ~UINT64_C(0xfff)) &&
               !mirror_drop(p->mirror, linear, bytes)) {
        cool(b, p);
    }
}

/* Brings the mirror up to date; false: there can be none. */
static bool refresh(struct bt_cpu *b, struct program *p)
{
    struct direct *d = b->native;
    uint64_t turn = atomic_load(&d->turns);
    bool shown, ok = true, other = false;
    if (p->synced != turn) {
        ok = mirror_sync(p->mirror, b->cpu, p->synced < d->deep, &other);
        p->synced = turn;
    } else if (p->wanted) {
        ok = mirror_look(p->mirror, b->cpu, p->wanted - 1, p->wanted_code, &shown);
    }
    p->wanted = 0;
    if (ok && other && bt_direct != DIRECT_ALWAYS) {
        account_start(&p->account, ticks_of_us, d->trip, d->move);
    }
    struct tracee *t = mirror_tracee(p->mirror);
    return ok && tracee_may_read_tsc(t, !tsc_offset() && !b->cpu->r.tsc_offset);
}

/* Is a program in the state in which it would be on the host, but for its memory? */
static bool like_host(const struct vcpu *cpu)
{
    const struct regs *r = &cpu->r;
    static const uint64_t cr4 = CR4_OSFXSR | CR4_OSXSAVE | CR4_PAE;
    uint64_t other = r->seg[SEG_DS].selector | r->seg[SEG_ES].selector | r->seg[SEG_FS].selector |
                     r->seg[SEG_GS].selector;
    return r->seg[SEG_CS].selector == TRACEE_CS && r->seg[SEG_SS].selector == TRACEE_SS && !other &&
           (r->cr4 & (cr4 | CR4_LA57 | CR4_TSD)) == cr4 && (r->cr0 & CR0_PG) &&
           !(r->cr0 & (CR0_TS | CR0_EM)) && (r->efer & EFER_NXE) && (r->efer & EFER_SCE) &&
           r->xcr0 == XSTATE_ALL && (r->rflags & FLAG_IF) &&
           !(r->rflags & (FLAG_IOPL | FLAG_TF | FLAG_VIF | FLAG_VIP)) && !r->shadow &&
           r->seg[SEG_FS].base < TRACEE_END && r->seg[SEG_GS].base < TRACEE_END &&
           r->rip < TRACEE_END && r->rip - TRACEE_HOME >= TRACEE_BYTES;
}

/* It would be so again. */
static void give_up(struct bt_cpu *b, struct program *p)
{
    cool(b, p);
    p->never = true;
}

static bool ready(struct bt_cpu *b, struct program *p)
{
    if (!like_host(b->cpu)) {
        return false;
    }
    if (!p->mirror) {
        p->mirror = mirror_new();
        p->core = b->native->core; /* it began on this thread's */
        p->synced = 0;
        b->native->refused += !p->mirror;
    }
    if (!p->mirror || !refresh(b, p)) {
        give_up(b, p);
    } else if (!p->account.hot && bt_direct != DIRECT_ALWAYS) {
        cool(b, p); /* another program is there now: its account has begun anew */
    }
    return p->mirror && (p->account.hot || bt_direct == DIRECT_ALWAYS);
}

/* ---- there and back ---- */

static bool stopped(struct bt_cpu *b, int stop)
{
    if (stop != STOP_NONE) {
        b->stop = stop;
    }
    return stop == STOP_NONE;
}

/* The interpreter does what the processor did not. */
static bool step_over(struct bt_cpu *b, struct program *p, const struct tracee_stop *why)
{
    struct vcpu *cpu = b->cpu;
    bool shown = false, fetch = why->address - cpu->r.rip < INSN_BYTES;
    int stop = interp_step(cpu);
    b->stats.one++;
    if (stop != STOP_NONE || !why->has_address) {
        return stopped(b, stop);
    }
    if (vcpu_cpl(cpu) != 3) {
        p->wanted = why->address + 1;
        p->wanted_code = fetch;
    } else if (!p->mirror || !mirror_look(p->mirror, cpu, why->address, fetch, &shown) || !shown) {
        b->direct = 0; /* more of that is bound to come */
        p->not_now = true;
    }
    return true;
}

/* INT 80h of the host, and its 32-bit programs' SYSCALL, stop there too: the guest's do other
 * things. */
static bool system_call_of(struct bt_cpu *b)
{
    struct vcpu *cpu = b->cpu;
    uint8_t code[2] = {0};
    paging_peek(cpu, cpu->r.rip, code, 2);
    if (code[0] != 0x0f || code[1] != 0x05 || cpu->r.seg[SEG_CS].selector != TRACEE_CS ||
        !system_call(cpu, cpu->r.rip + 2)) {
        return stopped(b, interp_step(cpu));
    }
    b->stats.system++;
    return true;
}

/* INT3 and INT1 stop behind themselves, TF behind the instruction after. */
static bool trapped(struct bt_cpu *b)
{
    struct vcpu *cpu = b->cpu;
    uint8_t code[2] = {0};
    paging_peek(cpu, cpu->r.rip - 2, code, 2);
    if (code[1] == 0xcc || code[1] == 0xf1 || (code[0] == 0xcd && code[1] == VEC_BP)) {
        cpu->r.rip -= code[0] == 0xcd && code[1] == VEC_BP ? 2 : 1;
        return stopped(b, interp_step(cpu));
    }
    struct cpu_event step = {.kind = EVENT_EXCEPTION, .vector = VEC_DB, .dr6 = UINT64_C(1) << 14};
    return stopped(b, cpu_deliver(cpu, &step, 0));
}

/* The host has answered a call of the oldest kind with a return: before it, so the guest can. */
static bool vsyscall(struct bt_cpu *b, uint64_t number)
{
    struct regs *r = &b->cpu->r;
    r->gpr[RSP] -= 8;
    r->rip = VSYSCALL + (number == 96 ? 0 : number == 201 ? 0x400 : 0x800);
    b->direct = 0;
    return true;
}

static bool back(struct bt_cpu *b, struct program *p, const struct tracee_stop *why)
{
    switch (why->why) {
    case TRACEE_CALL:
        return system_call_of(b);
    case TRACEE_FAULT:
        return step_over(b, p, why);
    case TRACEE_TRAP:
        return trapped(b);
    case TRACEE_VSYSCALL:
        return vsyscall(b, why->address);
    case TRACEE_BROKEN:
        give_up(b, p);
        return true;
    default:
        return true;
    }
}

static bool died(struct bt_cpu *b, struct program *p)
{
    forget(p);
    b->native->now = NULL;
    if (!b->cpu->error) {
        g_set_error(&b->cpu->error, LODGE_ERROR, EIO,
                    "bt: the process of a guest program was killed");
    }
    b->stop = STOP_BROKEN;
    return false;
}

/*
 * How long the program has computed in a stay: how long the way there took it says itself, which
 * may be a lie, and the way back takes longer or shorter by as much as ever.
 */
static uint64_t computed(struct direct *d, uint64_t from, uint64_t to, uint64_t began, bool more)
{
    uint64_t there = began - from, all = to - from;
    d->least = MIN(d->least, all);
    if (there >= all || there < d->least / 8) {
        there = MIN(d->there, all);
    } else if (!more) {
        d->least_there = MIN(d->least_there, there);
        d->there += (int64_t)(MIN(there, ticks_of(LONG_US)) - d->there) / 8;
    }
    uint64_t way_back = d->there * (d->least - MIN(d->least_there, d->least)) / d->least_there;
    return all - there > way_back ? all - there - way_back : 0;
}

static bool stay(struct bt_cpu *b, struct program *p)
{
    struct direct *d = b->native;
    struct vcpu *cpu = b->cpu;
    struct tracee_stop why = {0};
    d->inside = 0;
    if (!ready(b, p)) {
        b->direct = 0;
        p->not_now = true;
        return true;
    }
    struct tracee *t = mirror_tracee(p->mirror);
    atomic_store(&b->tracee, tracee_pid(t));
    if (atomic_load(&cpu->requests) || __atomic_load_n(&b->poll, __ATOMIC_SEQ_CST) != &b->ok ||
        atomic_load(&d->turns) != p->synced) {
        atomic_store(&b->tracee, 0);
        return true;
    }
    keep_to_core(d);
    follow_core(d, p, tracee_pid(t));
    cpu->r.rflags &= ~(uint64_t)FLAG_RF;
    b->stats.direct++;
    bool more = tracee_has_more(t);
    uint64_t from = __builtin_ia32_rdtsc();
    bool alive = tracee_run(t, cpu, &why);
    d->inside = computed(d, from, __builtin_ia32_rdtsc(), why.began, more);
    atomic_store(&b->tracee, 0);
    if (!alive) {
        return died(b, p);
    }
    if (why.why == TRACEE_KICK) {
        leave_core(d);
    }
    return back(b, p, &why);
}

bool direct_run(struct bt_cpu *b)
{
    struct direct *d = b->native;
    struct program *p = d->now;
    p->account.translated += passed(d);
    bool moves = !p->mirror, ok = stay(b, p);
    uint64_t ticks = __builtin_ia32_rdtsc() - d->since;
    d->since += ticks;
    if (moves && p->mirror) {
        d->move = ticks - d->inside;
    } else {
        p->account.inside += d->inside;
        p->account.beside += ticks - d->inside;
    }
    if (bt_direct != DIRECT_ALWAYS && account_vain(&p->account)) {
        b->direct = 0;
        p->not_now = true;
    }
    return ok;
}
