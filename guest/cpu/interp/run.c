/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * run: fetch, decode, execute; requests; the engine's table.
 *
 * Decoded instructions are kept in a direct-mapped cache by host address and mode.  A hit
 * counts only if the bytes in memory are still those that were decoded, so code that is
 * changed needs no notice.
 */
#include "base/log.h"
#include "guest/cpu/debug.h"
#include "guest/cpu/interp/handlers.h"
#include "guest/cpu/interp/system.h"
#include "guest/cpu/models.h"
#include "guest/cpu/paging.h"
#include "guest/cpu/paravirt.h"

#include <setjmp.h>

enum { CACHE_SLOTS = 4096, MAX_INSN = 15 };

struct decoded {
    bool plain;
    struct insn insn;
};

struct interp {
    /* The page that code is fetched from. */
    uint64_t code_page; /* linear; valid while .code_turn is the TLB's */
    uint32_t code_turn;
    uint8_t code_mode;
    uint8_t *code_host;
    struct decoded odd; /* across pages, or not from memory */
    /* Where those below come from, NULL: nowhere.  Apart, so that a miss waits for little memory.
     */
    const uint8_t *cached[CACHE_SLOTS];
    struct decoded cache[CACHE_SLOTS];
};

/* Not inlined into a function with setjmp(), whose locals the compiler then fears for. */
static __attribute__((noinline)) struct interp *state(struct vcpu *cpu)
{
    if (G_UNLIKELY(!cpu->interp)) {
        interp_handlers_init();
        cpu->interp = g_new0(struct interp, 1);
    }
    return cpu->interp;
}

/* ---- fetch and decode ---- */

static unsigned code_bytes(const struct vcpu *cpu)
{
    uint32_t attr = cpu->r.seg[SEG_CS].attr;
    return vcpu_long_mode(cpu) && (attr & SEG_L) ? 8 : attr & SEG_DB ? 4 : 2;
}

/* The host address of the code at @linear, or NULL: bytes come from elsewhere. */
static uint8_t *code_at(struct vcpu *cpu, struct interp *s, uint64_t linear)
{
    enum tlb_mode mode = tlb_mode(cpu);
    uint64_t page = linear & PAGE_MASK;
    if (G_LIKELY(s->code_page == page && s->code_turn == cpu->tlb->turn && s->code_mode == mode)) {
        return s->code_host + (linear - page);
    }
    struct tlb_result r;
    uint32_t code;
    if (tlb_fill(cpu, mode, linear, ACCESS_FETCH, &r, &code) < 0) {
        cpu_raise_page_fault(cpu, linear, code);
    }
    if (r.host) {
        s->code_page = page;
        s->code_turn = cpu->tlb->turn;
        s->code_mode = (uint8_t)mode;
        s->code_host = r.host - (linear - page);
    }
    return r.host;
}

/* Copies up to @n bytes of code at @linear, as many as lie in its page. */
static unsigned fetch(struct vcpu *cpu, uint64_t linear, uint8_t *to, unsigned n)
{
    struct tlb_result r;
    uint32_t code;
    unsigned left = (unsigned)(PAGE_SIZE - (linear & (PAGE_SIZE - 1)));
    n = MIN(n, left);
    if (tlb_fill(cpu, tlb_mode(cpu), linear, ACCESS_FETCH, &r, &code) < 0) {
        cpu_raise_page_fault(cpu, linear, code);
    }
    if (r.host) {
        memcpy(to, r.host, n);
    } else {
        space_read(cpu->memory, r.gpa, to, n);
    }
    return n;
}

static void check_decoded(struct vcpu *cpu, enum decode_result result)
{
    if (result == DECODE_TOO_LONG) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
}

/* The slow way: byte by byte as needed, over a page boundary. */
static const struct decoded *decode_odd(struct vcpu *cpu, struct interp *s, uint64_t linear)
{
    uint8_t bytes[MAX_INSN + 1];
    unsigned mode = code_bytes(cpu);
    unsigned n = fetch(cpu, linear, bytes, MAX_INSN);
    enum decode_result result = insn_decode(bytes, n, mode, &s->odd.insn);
    if (result == DECODE_SHORT && n < MAX_INSN) {
        uint64_t next = vcpu_code64(cpu) ? linear + n : (uint32_t)(linear + n);
        fetch(cpu, next, bytes + n, MAX_INSN - n);
        result = insn_decode(bytes, MAX_INSN, mode, &s->odd.insn);
    }
    check_decoded(cpu, result == DECODE_SHORT ? DECODE_TOO_LONG : result);
    s->odd.plain = interp_plain(&s->odd.insn);
    return &s->odd;
}

static bool same_bytes(const uint8_t *host, const struct insn *i)
{
    uint64_t have, want;
    if (G_LIKELY(i->len <= 8)) {
        memcpy(&have, host, 8); /* a page has guard bytes behind its block */
        memcpy(&want, i->bytes, 8);
        return (have ^ want) << (64 - 8 * i->len) == 0;
    }
    return !memcmp(host, i->bytes, i->len);
}

static const struct decoded *decode(struct vcpu *cpu, struct interp *s, uint64_t linear)
{
    uint8_t *host = code_at(cpu, s, linear);
    unsigned left = (unsigned)(PAGE_SIZE - (linear & (PAGE_SIZE - 1)));
    unsigned mode = code_bytes(cpu);
    if (!host || left < MAX_INSN + 1) {
        return decode_odd(cpu, s, linear);
    }
    unsigned slot = ((uintptr_t)host ^ (uintptr_t)host >> 12) % CACHE_SLOTS;
    struct decoded *d = &s->cache[slot];
    if (s->cached[slot] == host && d->insn.code_bytes == mode && same_bytes(host, &d->insn)) {
        return d;
    }
    s->cached[slot] = NULL;
    __builtin_prefetch(host + 64); /* what is new goes on, and is nowhere near yet */
    check_decoded(cpu, insn_decode(host, MAX_INSN + 1, mode, &d->insn)); /* one read of all */
    d->plain = interp_plain(&d->insn);
    s->cached[slot] = d->insn.desc->class == CLASS_UNDEFINED ? NULL : host;
    return d;
}

/* Address of the instruction at RIP; #GP beyond the limit of CS. */
static uint64_t code_linear(struct vcpu *cpu)
{
    if (vcpu_code64(cpu)) {
        if (!is_canonical(cpu->r.rip)) {
            cpu_raise_code(cpu, VEC_GP, 0);
        }
        return cpu->r.rip;
    }
    if (cpu->r.rip > cpu->r.seg[SEG_CS].limit) {
        cpu_raise_code(cpu, VEC_GP, 0);
    }
    return (uint32_t)(cpu->r.seg[SEG_CS].base + cpu->r.rip);
}

/* ---- execute ---- */

static inline void execute(struct vcpu *cpu, const struct decoded *d)
{
    const struct insn *i = &d->insn;
    uint64_t next = cpu->r.rip + i->len;
    if (!vcpu_code64(cpu)) {
        if (G_UNLIKELY(next - 1 > cpu->r.seg[SEG_CS].limit)) {
            cpu_raise_code(cpu, VEC_GP, 0);
        }
        next = (uint32_t)next;
    }
    cpu->next_rip = next;
    if (G_UNLIKELY(!d->plain)) {
        interp_check(cpu, i);
    }
    interp_handlers[i->op](cpu, i);
    cpu->r.rip = cpu->next_rip;
}

void interp_execute(struct vcpu *cpu, const struct insn *i)
{
    state(cpu);
    cpu->next_rip = cpu->r.rip + i->len;
    if (!vcpu_code64(cpu)) {
        cpu->next_rip = (uint32_t)cpu->next_rip;
    }
    cpu->r.shadow = 0;
    if (!interp_plain(i)) {
        interp_check(cpu, i);
    }
    interp_handlers[i->op](cpu, i);
    cpu->r.rip = cpu->next_rip;
}

/* Instructions that clear TF on their way in are not trapped after. */
static bool hides_trap(const struct insn *i)
{
    switch (i->op) {
    case OP_INT:
    case OP_INT3:
    case OP_INTO:
    case OP_INT1:
    case OP_SYSCALL:
    case OP_SYSENTER:
    case OP_RSM:
        return true;
    default:
        return false;
    }
}

/* Traps after an instruction: #DB for the guest, stops for the debugger. */
static int after(struct vcpu *cpu, const struct insn *i, bool trap_flag, bool resume_flag)
{
    bool unfinished = cpu->next_rip == cpu->raised_at && (i->desc->bits & INSN_REP);
    if (resume_flag && unfinished) {
        cpu->r.rflags |= FLAG_RF; /* covers the whole instruction */
    }
    if (trap_flag && !hides_trap(i)) {
        cpu->traps |= DR6_BS;
    }
    if (cpu->traps && cpu->r.shadow != SHADOW_MOV_SS) {
        struct cpu_event ev = {.kind = EVENT_EXCEPTION, .vector = VEC_DB, .dr6 = cpu->traps};
        int stop = cpu_deliver(cpu, &ev, 0);
        if (stop != STOP_NONE) {
            return stop;
        }
    }
    if (cpu->watched || cpu->single_step) {
        return STOP_DEBUG; /* the debugger looks at .watched and clears it */
    }
    return STOP_NONE;
}

/* Breakpoints on the instruction itself. */
static int before(struct vcpu *cpu, uint64_t linear)
{
    if (debug_gdb_breakpoint(cpu, linear)) {
        if (cpu->stopped_at != linear + 1) {
            cpu->stopped_at = linear + 1;
            return STOP_DEBUG;
        }
    }
    cpu->stopped_at = 0;
    if (!(cpu->r.rflags & FLAG_RF)) {
        uint64_t hits = debug_code_hits(cpu, linear);
        if (hits) {
            cpu_raise_debug(cpu, hits);
        }
    }
    return STOP_NONE;
}

/* One instruction when something besides it has to be looked at. */
static int step_carefully(struct vcpu *cpu, struct interp *s)
{
    bool trap_flag = cpu->r.rflags & FLAG_TF, resume_flag = cpu->r.rflags & FLAG_RF;
    uint64_t linear = code_linear(cpu);
    int stop = before(cpu, linear);
    if (stop != STOP_NONE) {
        return stop;
    }
    const struct decoded *d = decode(cpu, s, linear);
    cpu->raised_at = cpu->r.rip;
    cpu->r.shadow = 0;
    cpu->r.rflags &= ~(uint64_t)FLAG_RF;
    execute(cpu, d);
    return after(cpu, &d->insn, trap_flag, resume_flag);
}

static inline bool careful(const struct vcpu *cpu)
{
    return (cpu->r.rflags & (FLAG_TF | FLAG_RF)) || cpu->r.shadow || debug_active(cpu) ||
           cpu->single_step || cpu->traps;
}

enum extent { ONE, STRAIGHT /* up to the next branch that is taken */, UNTIL_STOPPED };

/*
 * Executes until something stops it, or less.  An exception comes back to the setjmp() and is
 * delivered.
 */
static int execute_many(struct vcpu *cpu, enum extent extent)
{
    struct interp *s = state(cpu);
    jmp_buf here;
    void *outer = cpu->unwind;
    int stop = STOP_NONE, jumped = _setjmp(here);
    cpu->unwind = &here;
    if (jumped == 1) {
        stop = cpu_deliver_raised(cpu);
        if (stop == STOP_NONE && cpu->single_step) {
            stop = STOP_DEBUG;
        }
    } else if (jumped > 1) {
        stop = jumped - 2; /* cpu_leave() */
    }
    if (stop != STOP_NONE || (jumped && extent != UNTIL_STOPPED)) {
        cpu->unwind = outer;
        return stop;
    }
    uint64_t before;
    do {
        if (G_UNLIKELY(atomic_load_explicit(&cpu->requests, memory_order_relaxed)) &&
            extent != ONE && !cpu_may_go_on(cpu)) {
            break;
        }
        before = cpu->r.rip;
        if (G_UNLIKELY(careful(cpu))) {
            stop = step_carefully(cpu, s);
        } else {
            execute(cpu, decode(cpu, s, code_linear(cpu)));
        }
        if (G_UNLIKELY(cpu->r.halted)) {
            stop = stop == STOP_NONE ? STOP_HALTED : stop;
        }
    } while (stop == STOP_NONE && (extent == UNTIL_STOPPED ||
                                   (extent == STRAIGHT && cpu->r.rip - before - 1 < MAX_INSN)));
    cpu->unwind = outer;
    return stop;
}

int interp_step(struct vcpu *cpu)
{
    return execute_many(cpu, ONE);
}

int interp_straight(struct vcpu *cpu)
{
    return execute_many(cpu, STRAIGHT);
}

/* ---- requests ---- */

static void start_at_sipi(struct vcpu *cpu)
{
    uint8_t page = atomic_load(&cpu->sipi_vector);
    segment_set_real(cpu, SEG_CS, (uint16_t)(page << 8));
    cpu->r.rip = 0;
    cpu->r.wait_sipi = 0;
    cpu->r.halted = 0;
}

static void take_init(struct vcpu *cpu)
{
    const struct vcpu_board *b = cpu->board;
    vcpu_unrequest(cpu, REQ_INIT); /* a SIPI may already be there: it came after it */
    vcpu_reset(cpu, true);
    if (b && b->init) {
        b->init(b->owner, cpu);
    }
}

static int take_interrupt(struct vcpu *cpu)
{
    const struct vcpu_board *b = cpu->board;
    struct cpu_event ev = {.kind = EVENT_EXTERNAL};
    if (!b || !b->acknowledge) {
        vcpu_unrequest(cpu, REQ_INTR);
        return STOP_NONE;
    }
    paravirt_tick(cpu);
    int vector = b->acknowledge(b->owner, cpu);
    b->interrupt_pending(b->owner, cpu);
    if (vector < 0) {
        return STOP_NONE;
    }
    ev.vector = (uint8_t)vector;
    return cpu_deliver(cpu, &ev, 0);
}

static int take_events(struct vcpu *cpu, uint32_t req)
{
    struct regs *r = &cpu->r;
    if (r->shadow) {
        return STOP_NONE;
    }
    if ((req & REQ_SMI) && !r->in_smm) {
        vcpu_unrequest(cpu, REQ_SMI);
        smm_enter(cpu);
        return STOP_NONE;
    }
    if ((req & REQ_NMI) && !r->nmi_blocked) {
        struct cpu_event nmi = {.kind = EVENT_NMI, .vector = VEC_NMI};
        vcpu_unrequest(cpu, REQ_NMI);
        return cpu_deliver(cpu, &nmi, 0);
    }
    if ((req & REQ_INTR) && (r->rflags & FLAG_IF)) {
        return take_interrupt(cpu);
    }
    return STOP_NONE;
}

int cpu_take_requests(struct vcpu *cpu)
{
    uint32_t req = atomic_load(&cpu->requests);
    int stop = STOP_NONE;
    if (req & REQ_FLUSH) {
        vcpu_unrequest(cpu, REQ_FLUSH);
        tlb_flush(cpu, true);
    }
    if (req & REQ_A20) {
        vcpu_unrequest(cpu, REQ_A20);
        vcpu_take_a20(cpu);
    }
    if (req & (REQ_PAUSE | REQ_EXIT)) {
        return STOP_KICKED;
    }
    vcpu_unrequest(cpu, REQ_WORK);
    if (req & REQ_INIT) {
        take_init(cpu);
        req = atomic_load(&cpu->requests);
    }
    if (cpu->r.wait_sipi) {
        if (!(req & REQ_SIPI)) {
            return STOP_HALTED;
        }
        start_at_sipi(cpu);
    }
    vcpu_unrequest(cpu, req & REQ_SIPI);
    if (req & (REQ_SMI | REQ_NMI | REQ_INTR)) {
        stop = take_events(cpu, req);
    }
    if (stop == STOP_NONE && cpu->r.halted) {
        stop = STOP_HALTED;
    }
    return stop;
}

/* ---- the engine ---- */

static bool interp_probe(GError **error)
{
    (void)error;
    return true;
}

static bool interp_attach(struct vcpu *cpu, GError **error)
{
    state(cpu);
    if (!cpu->tlb) {
        cpu->tlb = tlb_new(error);
    }
    return cpu->tlb != NULL;
}

static void interp_detach(struct vcpu *cpu)
{
    g_clear_pointer(&cpu->tlb, tlb_free);
    g_clear_pointer(&cpu->interp, g_free);
}

/* An event whose delivery another engine began. */
int cpu_finish_event(struct vcpu *cpu)
{
    struct regs *r = &cpu->r;
    if (!r->event_pending) {
        return STOP_NONE;
    }
    struct cpu_event ev = {.kind = r->event_soft                ? EVENT_SOFT
                                   : r->event_vector == VEC_NMI ? EVENT_NMI
                                   : r->event_vector < 32       ? EVENT_EXCEPTION
                                                                : EVENT_EXTERNAL,
                           .vector = r->event_vector,
                           .has_code = r->event_has_code,
                           .code = r->event_code,
                           .cr2 = r->cr2};
    r->event_pending = 0;
    return cpu_deliver(cpu, &ev, r->rip);
}

static enum stop interp_run(struct vcpu *cpu)
{
    int stop = cpu_finish_event(cpu);
    while (stop == STOP_NONE) {
        stop = cpu_take_requests(cpu);
        vcpu_unrequest(cpu, REQ_ENGINE);
        if (stop == STOP_NONE) {
            stop = execute_many(cpu, UNTIL_STOPPED);
        }
        if (stop == STOP_HALTED && atomic_load(&cpu->requests)) {
            int again = cpu_take_requests(cpu); /* what came in the meantime may wake it */
            stop = again;
        }
    }
    return (enum stop)stop;
}

static void interp_sync(struct vcpu *cpu)
{
    (void)cpu; /* the state is in cpu->r all the time */
}

const struct cpu_engine engine_interp = {
    .name = "interp",
    .about = "interpreter: slow, complete, everywhere",
    .probe = interp_probe,
    .attach = interp_attach,
    .detach = interp_detach,
    .run = interp_run,
    .pull = interp_sync,
    .push = interp_sync,
};
