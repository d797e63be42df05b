/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lapic: local interrupt controller of a vCPU, with timer, as xAPIC and x2APIC.
 *
 * Spec: Intel SDM volume 3, "Advanced Programmable Interrupt Controller (APIC)", its
 * sections "Local APIC", "Issuing Interprocessor Interrupts", "Handling Interrupts",
 * "Extended XAPIC (x2APIC)"; destinations of 15 bits in MSIs as KVM defines them.
 *
 * Who touches what: IRR and TMR are set by anybody, atomically.  All other registers are
 * written by the vCPU's own thread only (or while it is paused), without the machine lock;
 * senders look at LDR, DFR, SVR and the LVT, each one aligned word.  The timer fires in the
 * main loop and takes the deadline by compare-and-swap.  So EOI, IPIs, TPR and the timer
 * need no lock; an EOI of a level-triggered interrupt and the PIC do.
 *
 * Differs: the id cannot be changed (as on processors since Nehalem); where one processor has
 * moved its page, the others see nothing; messages go to 0xfee00000 wherever the pages are;
 * lowest priority means the first that matches; no CMCI, thermal or performance interrupts are
 * ever raised.
 */
#include "guest/device/lapic.h"

#include "base/lock.h"
#include "base/log.h"
#include "guest/cpu/models.h"
#include "guest/device/i8259.h"
#include "guest/device/ioapic.h"
#include "guest/device/pc_ports.h"

enum { MAX_LAPICS = 256, MAX_IDS = 4096 };

/* Registers by number: the MMIO offset / 16, the MSR - 0x800. */
enum {
    R_ID = 0x02, R_VERSION = 0x03, R_TPR = 0x08, R_APR = 0x09, R_PPR = 0x0a, R_EOI = 0x0b,
    R_LDR = 0x0d, R_DFR = 0x0e, R_SVR = 0x0f, R_ISR = 0x10, R_TMR = 0x18, R_IRR = 0x20,
    R_ESR = 0x28, R_LVT_CMCI = 0x2f, R_ICR = 0x30, R_ICR2 = 0x31, R_LVT = 0x32, R_INITIAL = 0x38,
    R_CURRENT = 0x39, R_DIVIDE = 0x3e, R_SELF_IPI = 0x3f, R_COUNT = 0x40,
};
enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC       0x800u
#define MSR_PV_EOI       0x4b564d04u

#define BASE_BSP    (1u << 8)
#define BASE_X2APIC (1u << 10)
#define BASE_ENABLE (1u << 11)

#define SVR_ENABLE (1u << 8)

#define LVT_VECTOR  0xffu
#define LVT_MODE    0x700u
#define LVT_MASKED  (1u << 16)
#define TIMER_MODE  (3u << 17)
#define TIMER_PERIODIC (1u << 17)
#define TIMER_DEADLINE (2u << 17)

enum {
    MODE_FIXED, MODE_LOWEST, MODE_SMI, MODE_REMOTE_READ, MODE_NMI, MODE_INIT, MODE_SIPI,
    MODE_EXTINT,
};

#define ICR_LOGICAL (1u << 11)
#define ICR_BUSY    (1u << 12)
#define ICR_ASSERT  (1u << 14)
#define ICR_LEVEL   (1u << 15)
#define ICR_SHORTHAND (3u << 18)

enum { ESR_SEND_VECTOR = 0x20, ESR_RECEIVE_VECTOR = 0x40, ESR_REGISTER = 0x80 };

/* A page of registers: of all processors whose IA32_APIC_BASE names it. */
struct apic_page {
    uint64_t at;
    unsigned users; /* 0: free */
    struct region region;
    struct placing *placing;
};

struct lapic {
    struct device dev;
    struct vcpu *cpu;
    struct apic_page *page;
    bool pv_eoi;         /* the guest was told that it need not write EOI: see offer_pv_eoi() */
    _Atomic bool extint; /* a message said that the PIC asks */
    _Atomic uint32_t irr[8], tmr[8];
    uint32_t isr[8];
    uint32_t tpr, ldr, dfr, svr, esr, icr, icr2, initial, divide;
    _Atomic uint32_t errors; /* what ESR shows after the next write to it */
    uint32_t lvt[LVT_COUNT];
    bool line[2];            /* LINT0 and LINT1 as they are */
    int64_t started;         /* guest clock when .initial was written */
    _Atomic uint64_t deadline;
    struct timer timer;
};

/* One machine a process. */
static struct lapic *lapics[MAX_LAPICS]; /* by vcpu->index */
static struct lapic *by_id[MAX_IDS];
static unsigned n_lapics;                  /* one more than the highest index; there may be gaps */
static struct irq lint[2];
static struct apic_page pages[MAX_LAPICS];

static struct lapic *self(struct device *dev)
{
    return container_of(dev, struct lapic, dev);
}

static struct lapic *lapic_of(const struct vcpu *cpu)
{
    return cpu ? lapics[cpu->index] : NULL;
}

static bool enabled(const struct lapic *s)
{
    return s->cpu->r.apic_base & BASE_ENABLE;
}

static bool x2apic(const struct lapic *s)
{
    return (s->cpu->r.apic_base & (BASE_ENABLE | BASE_X2APIC)) == (BASE_ENABLE | BASE_X2APIC);
}

/* ---- bitmaps of 256 vectors ---- */

/* The highest vector set, or -1. */
static int highest_of(const uint32_t map[8])
{
    for (int i = 7; i >= 0; i--) {
        if (map[i]) {
            return i * 32 + 31 - __builtin_clz(map[i]);
        }
    }
    return -1;
}

static int highest_requested(const struct lapic *s)
{
    for (int i = 7; i >= 0; i--) {
        uint32_t v = atomic_load_explicit(&s->irr[i], memory_order_acquire);
        if (v) {
            return i * 32 + 31 - __builtin_clz(v);
        }
    }
    return -1;
}

static void map_set(_Atomic uint32_t map[8], unsigned vector, bool on)
{
    uint32_t bit = 1u << (vector & 31);
    if (on) {
        atomic_fetch_or(&map[vector / 32], bit);
    } else if (atomic_load_explicit(&map[vector / 32], memory_order_relaxed) & bit) {
        atomic_fetch_and(&map[vector / 32], ~bit);
    }
}

/* ---- towards the vCPU ---- */

static uint32_t ppr(const struct lapic *s)
{
    int in_service = highest_of(s->isr);
    uint32_t isr_class = in_service < 0 ? 0 : (uint32_t)in_service & 0xf0;
    return (s->tpr & 0xf0) >= isr_class ? s->tpr : isr_class;
}

/* The vector to deliver now, or -1. */
static int deliverable(const struct lapic *s)
{
    int vector = highest_requested(s);
    if (vector < 0 || !(s->svr & SVR_ENABLE) || !enabled(s)) {
        return -1;
    }
    return ((uint32_t)vector & 0xf0) > (ppr(s) & 0xf0) ? vector : -1;
}

/* Does the vCPU listen to the PIC? */
static bool takes_extint(const struct lapic *s)
{
    uint32_t lvt = s->lvt[LVT_LINT0];
    return !enabled(s) || (lvt & (LVT_MASKED | LVT_MODE)) == MODE_EXTINT << 8;
}

static bool pic_asks(const struct lapic *s)
{
    struct device *pic = board_part(s->dev.board, "pic");
    return pic && i8259_asks(pic);
}

/* A message counts only as long as the PIC still asks. */
static bool extint_pending(struct lapic *s)
{
    if (atomic_load(&s->extint) && !pic_asks(s)) {
        atomic_store(&s->extint, false);
    }
    return (s->line[0] && takes_extint(s)) || atomic_load(&s->extint);
}

/*
 * PV EOI: while one edge-triggered interrupt is in service and none waits, a bit in guest memory
 * says that clearing it is as good as an EOI.  Looked at before anything that depends on what is
 * in service; a bit that is still set is taken back then.  Own thread, or paused.
 */
enum { PV_EOI_ENABLED = 1 };

static uint64_t pv_eoi_at(const struct lapic *s)
{
    return s->cpu->r.kvm_eoi & ~(uint64_t)PV_EOI_ENABLED;
}

static void sync_pv_eoi(struct lapic *s)
{
    if (!s->pv_eoi) {
        return;
    }
    uint8_t bits = (uint8_t)space_load(s->cpu->memory, pv_eoi_at(s), 1);
    int vector = highest_of(s->isr);
    s->pv_eoi = false;
    if (bits & 1) {
        space_store(s->cpu->memory, pv_eoi_at(s), bits & 0xfe, 1);
    } else if (vector >= 0) {
        s->isr[vector / 32] &= ~(1u << (vector & 31));
    }
}

static void offer_pv_eoi(struct lapic *s)
{
    int vector = highest_of(s->isr);
    if (!(s->cpu->r.kvm_eoi & PV_EOI_ENABLED) || vector < 0 || highest_requested(s) >= 0) {
        return;
    }
    uint32_t bit = 1u << (vector & 31);
    for (int i = 0; i < 8; i++) {
        if (s->isr[i] & ~(i == vector / 32 ? bit : 0)) {
            return; /* the next EOI belongs to this one, the one after it to another */
        }
    }
    if (!(atomic_load_explicit(&s->tmr[vector / 32], memory_order_relaxed) & bit)) {
        s->pv_eoi = true;
        space_store(s->cpu->memory, pv_eoi_at(s), 1, 1);
    }
}

/* After anything of the vCPU's own that may have uncovered an interrupt. */
static void refresh(struct lapic *s)
{
    if (deliverable(s) >= 0 || extint_pending(s)) {
        vcpu_request(s->cpu, REQ_INTR);
    }
}

static void raise_error(struct lapic *s, uint32_t bit);

/* @vector arrives; any thread. */
static void accept(struct lapic *s, unsigned vector, bool level)
{
    if (vector < 16) {
        raise_error(s, ESR_RECEIVE_VECTOR);
        return;
    }
    if (!(s->svr & SVR_ENABLE) || !enabled(s)) {
        return;
    }
    map_set(s->tmr, vector, level);
    map_set(s->irr, vector, true);
    vcpu_request(s->cpu, REQ_INTR);
}

static void lvt_fire(struct lapic *s, unsigned n)
{
    uint32_t lvt = s->lvt[n];
    if (lvt & LVT_MASKED) {
        return;
    }
    switch (n == LVT_TIMER || n == LVT_ERROR ? MODE_FIXED : lvt >> 8 & 7) {
    case MODE_FIXED:
        accept(s, lvt & LVT_VECTOR, false);
        break;
    case MODE_SMI:
        vcpu_request(s->cpu, REQ_SMI);
        break;
    case MODE_NMI:
        vcpu_request(s->cpu, REQ_NMI);
        break;
    case MODE_INIT:
        vcpu_request(s->cpu, REQ_INIT);
        break;
    default:
        break;
    }
}

/* An error is reported once until the guest has looked. */
static void raise_error(struct lapic *s, uint32_t bit)
{
    uint32_t old = atomic_fetch_or(&s->errors, bit);
    if (!(old & bit) && (s->lvt[LVT_ERROR] & LVT_VECTOR) >= 16) {
        lvt_fire(s, LVT_ERROR);
    }
}

static void lint_set(struct irq *irq, bool level)
{
    for (unsigned i = 0; i < n_lapics; i++) {
        struct lapic *s = lapics[i];
        if (!s) {
            continue;
        }
        s->line[irq->n] = level;
        if (irq->n == 0 && takes_extint(s)) {
            if (level) {
                vcpu_request(s->cpu, REQ_INTR);
            }
        } else if (level && enabled(s)) {
            lvt_fire(s, LVT_LINT0 + irq->n);
        }
    }
}

static int board_acknowledge(void *owner, struct vcpu *cpu)
{
    struct lapic *s = lapic_of(cpu);
    struct board *board = owner;
    sync_pv_eoi(s);
    int vector = deliverable(s);
    if (vector >= 0) {
        map_set(s->irr, (unsigned)vector, false);
        s->isr[vector / 32] |= 1u << (vector & 31);
    } else if (extint_pending(s)) {
        machine_lock();
        vector = pic_asks(s) ? i8259_acknowledge(board_part(board, "pic")) : -1;
        machine_unlock();
    }
    return vector;
}

static bool board_interrupt_pending(void *owner, struct vcpu *cpu)
{
    struct lapic *s = lapic_of(cpu);
    (void)owner;
    sync_pv_eoi(s);
    vcpu_unrequest(cpu, REQ_INTR); /* first: who raises one from here on sets it again */
    if (deliverable(s) >= 0 || extint_pending(s)) {
        vcpu_request(cpu, REQ_INTR);
        return true;
    }
    offer_pv_eoi(s);
    return false;
}

/* ---- sending ---- */

struct message {
    uint32_t dest;
    uint8_t mode, vector;
    bool logical, level, broadcast;
};

static void deliver(struct lapic *s, const struct message *m)
{
    switch (m->mode) {
    case MODE_FIXED:
    case MODE_LOWEST:
        accept(s, m->vector, m->level);
        break;
    case MODE_SMI:
        vcpu_request(s->cpu, REQ_SMI);
        break;
    case MODE_NMI:
        vcpu_request(s->cpu, REQ_NMI);
        break;
    case MODE_INIT:
        vcpu_request(s->cpu, REQ_INIT);
        break;
    case MODE_SIPI:
        atomic_store(&s->cpu->sipi_vector, m->vector);
        vcpu_request(s->cpu, REQ_SIPI);
        break;
    case MODE_EXTINT:
        if (enabled(s)) {
            atomic_store(&s->extint, true);
            vcpu_request(s->cpu, REQ_INTR);
        }
        break;
    default:
        log_line(LOG_UNIMP, "lapic: delivery mode %u", m->mode);
        break;
    }
}

static uint32_t x2apic_ldr(const struct lapic *s)
{
    uint32_t id = s->cpu->apic_id;
    return (id >> 4) << 16 | 1u << (id & 15);
}

static bool matches(const struct lapic *s, const struct message *m)
{
    if (!m->logical) {
        return s->cpu->apic_id == m->dest;
    }
    if (x2apic(s)) {
        uint32_t own = x2apic_ldr(s);
        return m->dest >> 16 == own >> 16 && (m->dest & own & 0xffff);
    }
    uint32_t own = s->ldr >> 24, dest = m->dest & 0xff;
    if (s->dfr >> 28 == 0xf) {
        return own & dest;
    }
    return own >> 4 == dest >> 4 && (own & dest & 15);
}

static bool accepts_now(const struct lapic *s)
{
    return enabled(s) && (s->svr & SVR_ENABLE);
}

static void send(const struct message *m)
{
    if (!m->logical && !m->broadcast) {
        struct lapic *s = m->dest < MAX_IDS ? by_id[m->dest] : NULL;
        if (s) {
            deliver(s, m);
        }
        return;
    }
    for (unsigned i = 0; i < n_lapics; i++) {
        struct lapic *s = lapics[i];
        if (!s || (!m->broadcast && !matches(s, m))) {
            continue;
        }
        if (m->mode != MODE_LOWEST) {
            deliver(s, m);
        } else if (accepts_now(s)) {
            deliver(s, m);
            return;
        }
    }
}

/* @dest as the sender's APIC mode has it: 8 or 32 bits. */
static void send_ipi(struct lapic *s, uint32_t icr, uint32_t dest, bool wide)
{
    struct message m = {
        .dest = dest, .mode = icr >> 8 & 7, .vector = (uint8_t)icr,
        .logical = icr & ICR_LOGICAL, .broadcast = dest == (wide ? UINT32_MAX : 0xff),
    };
    if (m.mode == MODE_INIT && (icr & ICR_LEVEL) && !(icr & ICR_ASSERT)) {
        return; /* INIT level de-assert: only old processors had arbitration ids to set */
    }
    if (m.mode == MODE_REMOTE_READ || m.mode == MODE_EXTINT) {
        return;
    }
    if (m.mode <= MODE_LOWEST && m.vector < 16) {
        raise_error(s, ESR_SEND_VECTOR);
    }
    switch (icr >> 18 & 3) {
    case 0:
        send(&m);
        break;
    case 1:
        deliver(s, &m);
        break;
    default:
        for (unsigned i = 0; i < n_lapics; i++) {
            if (lapics[i] && (lapics[i] != s || (icr >> 18 & 3) == 2)) {
                deliver(lapics[i], &m);
            }
        }
        break;
    }
}

void lapic_msi(struct board *board, uint64_t address, uint32_t data)
{
    uint32_t a = (uint32_t)address;
    struct message m = {
        .dest = (a >> 12 & 0xff) | (a >> 5 & 0x7f) << 8, .mode = data >> 8 & 7,
        .vector = (uint8_t)data, .logical = a & 4, .level = data & ICR_LEVEL,
    };
    (void)board;
    m.broadcast = m.dest == 0xff;
    send(&m);
}

void lapic_nmi_all(void)
{
    for (unsigned i = 0; i < n_lapics; i++) {
        if (lapics[i]) {
            lvt_fire(lapics[i], LVT_LINT1);
        }
    }
}

/* ---- timer ---- */

/* Nanoseconds a count: bits 0, 1 and 3 of the divide register hold 2, 4, ... 128, 1. */
static int64_t step_ns(const struct lapic *s)
{
    unsigned code = (s->divide & 3) | (s->divide >> 1 & 4);
    return INT64_C(1) << ((code + 1) & 7);
}

static uint32_t timer_mode(const struct lapic *s)
{
    return s->lvt[LVT_TIMER] & TIMER_MODE;
}

static uint32_t current_count(const struct lapic *s)
{
    if (!s->initial || timer_mode(s) == TIMER_DEADLINE) {
        return 0;
    }
    int64_t gone = MAX(clock_now() - s->started, 0) / step_ns(s);
    if (timer_mode(s) == TIMER_PERIODIC) {
        return (uint32_t)(s->initial - gone % s->initial);
    }
    return gone < s->initial ? (uint32_t)(s->initial - gone) : 0;
}

/* A period below this would be an attack on the main loop. */
#define MIN_PERIOD_NS 50000

/* Arms the timer for what the registers say, not before @after. */
static void timer_plan(struct lapic *s, int64_t after)
{
    int64_t due = TIMER_OFF, whole = (int64_t)s->initial * step_ns(s);
    if (timer_mode(s) == TIMER_DEADLINE) {
        uint64_t tsc = atomic_load(&s->deadline);
        due = tsc ? tsc_to_clock(tsc - s->cpu->r.tsc_offset) : TIMER_OFF;
    } else if (s->initial && !(s->lvt[LVT_TIMER] & LVT_MASKED)) {
        int64_t gone = MAX(after - s->started, 0);
        if (timer_mode(s) == TIMER_PERIODIC) {
            due = s->started + (gone / whole + 1) * whole;
            due = whole < MIN_PERIOD_NS ? MAX(due, clock_now() + MIN_PERIOD_NS) : due;
        } else if (gone < whole) {
            due = s->started + whole;
        }
    }
    if (due != TIMER_OFF) {
        timer_arm(&s->timer, due);
    } else {
        timer_disarm(&s->timer);
    }
}

static bool deadline_passed(const struct lapic *s, uint64_t deadline)
{
    return deadline && (int64_t)(vcpu_tsc(s->cpu) - deadline) >= 0;
}

static void fire(void *owner)
{
    struct lapic *s = owner;
    uint64_t deadline = atomic_load(&s->deadline);
    if (timer_mode(s) == TIMER_DEADLINE) {
        if (!deadline) {
            return; /* the vCPU took it back */
        }
        if (!deadline_passed(s, deadline)) {
            timer_plan(s, clock_now()); /* the guest's TSC runs behind, or it was set anew */
        } else if (atomic_compare_exchange_strong(&s->deadline, &deadline, 0)) {
            lvt_fire(s, LVT_TIMER);
        }
        return;
    }
    lvt_fire(s, LVT_TIMER);
    if (timer_mode(s) == TIMER_PERIODIC) {
        timer_plan(s, clock_now());
    }
}

static void deadline_write(struct lapic *s, uint64_t tsc)
{
    if (timer_mode(s) != TIMER_DEADLINE) {
        return;
    }
    if (deadline_passed(s, tsc)) { /* at once: no need to go through the main loop */
        atomic_store(&s->deadline, 0);
        timer_disarm(&s->timer);
        lvt_fire(s, LVT_TIMER);
        return;
    }
    atomic_store(&s->deadline, tsc);
    timer_plan(s, 0);
}

static int64_t board_sleeps(void *owner, struct vcpu *cpu)
{
    struct lapic *s = lapic_of(cpu);
    uint64_t deadline = atomic_load(&s->deadline);
    (void)owner;
    if (timer_mode(s) != TIMER_DEADLINE || !deadline || !clock_running()) {
        return 0;
    }
    int64_t due = tsc_to_clock(deadline - cpu->r.tsc_offset);
    if (due == TIMER_OFF) {
        return 0;
    }
    timer_disarm(&s->timer);
    return clock_to_host(due);
}

static void board_wakes(void *owner, struct vcpu *cpu)
{
    struct lapic *s = lapic_of(cpu);
    uint64_t deadline = atomic_load(&s->deadline);
    (void)owner;
    if (!deadline_passed(s, deadline)) {
        timer_plan(s, 0);
    } else if (atomic_compare_exchange_strong(&s->deadline, &deadline, 0)) {
        lvt_fire(s, LVT_TIMER);
    }
}

static void divide_write(struct lapic *s, uint32_t v)
{
    int64_t now = clock_now();
    uint32_t left = current_count(s);
    s->divide = v & 0xb;
    if (left) { /* goes on from where it stands */
        s->started = now - (int64_t)(s->initial - left) * step_ns(s);
    }
    timer_plan(s, now);
}

static void initial_write(struct lapic *s, uint32_t v)
{
    if (timer_mode(s) != TIMER_DEADLINE) {
        s->initial = v;
        s->started = clock_now();
        timer_plan(s, s->started);
    }
}

/* ---- registers ---- */

static void eoi(struct lapic *s)
{
    int vector = highest_of(s->isr);
    if (vector < 0) {
        return;
    }
    uint32_t bit = 1u << (vector & 31);
    s->isr[vector / 32] &= ~bit;
    if (atomic_load_explicit(&s->tmr[vector / 32], memory_order_relaxed) & bit) {
        struct device *ioapic = board_part(s->dev.board, "ioapic");
        bool taken = !machine_lock_held();
        if (taken) {
            machine_lock();
        }
        if (ioapic) {
            ioapic_eoi(ioapic, (uint8_t)vector);
        }
        if (taken) {
            machine_unlock();
        }
    }
    refresh(s);
}

static void lvt_write(struct lapic *s, unsigned n, uint32_t v)
{
    static const uint32_t writable[LVT_COUNT] = {
        [LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
        [LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
    };
    uint32_t old = s->lvt[n];
    v &= writable[n];
    if (!(s->svr & SVR_ENABLE)) {
        v |= LVT_MASKED;
    }
    s->lvt[n] = v;
    if (n != LVT_TIMER) {
        refresh(s);
        return;
    }
    if ((old ^ v) & TIMER_DEADLINE) { /* to or from the deadline mode: disarmed */
        s->initial = 0;
        atomic_store(&s->deadline, 0);
    }
    if ((old ^ v) & (TIMER_MODE | LVT_MASKED)) {
        timer_plan(s, clock_now());
    }
}

static void svr_write(struct lapic *s, uint32_t v)
{
    s->svr = v & 0x1ff;
    if (!(v & SVR_ENABLE)) {
        for (unsigned i = 0; i < LVT_COUNT; i++) {
            s->lvt[i] |= LVT_MASKED;
        }
        timer_plan(s, clock_now());
    }
    refresh(s);
}

static uint32_t reg_read(struct lapic *s, unsigned n)
{
    sync_pv_eoi(s);
    switch (n) {
    case R_ID:
        return x2apic(s) ? s->cpu->apic_id : s->cpu->apic_id << 24;
    case R_VERSION:
        return 0x14 | (LVT_COUNT - 1) << 16;
    case R_TPR:
        return s->tpr;
    case R_PPR:
        return ppr(s);
    case R_LDR:
        return x2apic(s) ? x2apic_ldr(s) : s->ldr;
    case R_DFR:
        return s->dfr;
    case R_SVR:
        return s->svr;
    case R_ISR ... R_ISR + 7:
        return s->isr[n - R_ISR];
    case R_TMR ... R_TMR + 7:
        return s->tmr[n - R_TMR];
    case R_IRR ... R_IRR + 7:
        return s->irr[n - R_IRR];
    case R_ESR:
        return s->esr;
    case R_ICR:
        return s->icr;
    case R_ICR2:
        return s->icr2;
    case R_LVT ... R_LVT + LVT_COUNT - 1:
        return s->lvt[n - R_LVT];
    case R_INITIAL:
        return s->initial;
    case R_CURRENT:
        return current_count(s);
    case R_DIVIDE:
        return s->divide;
    default:
        return 0; /* APR, EOI and what is reserved */
    }
}

static void reg_write(struct lapic *s, unsigned n, uint32_t v)
{
    sync_pv_eoi(s);
    switch (n) {
    case R_TPR:
        s->tpr = v & 0xff;
        s->cpu->r.cr8 = s->tpr >> 4;
        refresh(s);
        break;
    case R_EOI:
        eoi(s);
        break;
    case R_LDR:
        s->ldr = v & 0xff000000;
        break;
    case R_DFR:
        s->dfr = v | 0x0fffffff;
        break;
    case R_SVR:
        svr_write(s, v);
        break;
    case R_ESR:
        s->esr = atomic_exchange(&s->errors, 0);
        break;
    case R_ICR:
        s->icr = v & ~ICR_BUSY;
        send_ipi(s, v, s->icr2 >> 24, false);
        break;
    case R_ICR2:
        s->icr2 = v & 0xff000000;
        break;
    case R_LVT ... R_LVT + LVT_COUNT - 1:
        lvt_write(s, n - R_LVT, v);
        break;
    case R_INITIAL:
        initial_write(s, v);
        break;
    case R_DIVIDE:
        divide_write(s, v);
        break;
    default:
        break;
    }
}

/* ---- the page at IA32_APIC_BASE: every vCPU sees its own ---- */

static uint64_t page_read(void *owner, uint64_t at, unsigned bytes)
{
    struct lapic *s = lapic_of(vcpu_self());
    (void)bytes;
    if (!s || s->page != owner || !enabled(s) || x2apic(s)) {
        return UINT64_MAX;
    }
    return at < R_COUNT * 16 ? reg_read(s, (unsigned)at / 16) : 0;
}

static void page_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct lapic *s = lapic_of(vcpu_self());
    (void)bytes;
    if (s && s->page == owner && enabled(s) && !x2apic(s) && at < R_COUNT * 16 && !(at & 15)) {
        reg_write(s, (unsigned)at / 16, (uint32_t)value);
    }
}

static const struct region_ops page_ops = {
    .read = page_read, .write = page_write, .min_bytes = 4, .max_bytes = 4, .lockless = true,
};

static void page_leave(struct lapic *s)
{
    if (s->page && --s->page->users == 0) {
        space_remove(s->page->placing);
    }
    s->page = NULL;
}

/* There are as many as processors, so one is free. */
static struct apic_page *page_at(struct lapic *s, uint64_t at)
{
    struct apic_page *spare = NULL;
    for (unsigned i = 0; i < MAX_LAPICS; i++) {
        if (pages[i].users && pages[i].at == at) {
            return &pages[i];
        }
        spare = pages[i].users ? spare : &pages[i];
    }
    *spare = (struct apic_page){.at = at};
    spare->region =
        (struct region){.name = "lapic", .size = PAGE_SIZE, .ops = &page_ops, .owner = spare};
    spare->placing = space_place(s->dev.board->memory, &spare->region, at, 10);
    return spare;
}

/* Machine lock held. */
static void page_move(struct lapic *s)
{
    uint64_t at = s->cpu->r.apic_base & PAGE_MASK;
    if (!s->page || s->page->at != at) {
        page_leave(s);
        s->page = page_at(s, at);
        s->page->users++;
    }
}

static void settle(struct device *dev)
{
    page_move(self(dev));
    refresh(self(dev));
}

/* ---- MSRs ---- */

enum { X2_READ = 1, X2_WRITE = 2 };

/* What x2APIC has at register number @n. */
static unsigned x2_access(unsigned n)
{
    switch (n) {
    case R_ID:
    case R_VERSION:
    case R_PPR:
    case R_LDR:
    case R_ISR ... R_IRR + 7:
    case R_CURRENT:
        return X2_READ;
    case R_EOI:
    case R_SELF_IPI:
        return X2_WRITE;
    case R_TPR:
    case R_SVR:
    case R_ESR:
    case R_ICR:
    case R_LVT ... R_LVT + LVT_COUNT - 1:
    case R_INITIAL:
    case R_DIVIDE:
        return X2_READ | X2_WRITE;
    default:
        return 0;
    }
}

/* Bits that x2APIC lets be written; others raise #GP. */
static uint64_t x2_writable(unsigned n)
{
    switch (n) {
    case R_EOI:
    case R_ESR:
        return 0;
    case R_TPR:
    case R_SELF_IPI:
        return 0xff;
    case R_SVR:
        return 0x1ff;
    case R_ICR:
        return UINT64_C(0xffffffff000ccfff);
    case R_LVT + LVT_TIMER:
        return 0x710ff;
    case R_LVT + LVT_LINT0:
    case R_LVT + LVT_LINT1:
        return 0x1f7ff;
    case R_LVT + LVT_ERROR:
        return 0x110ff;
    case R_DIVIDE:
        return 0xb;
    case R_INITIAL:
        return 0xffffffff;
    default:
        return 0x117ff;
    }
}

static void reset_registers(struct lapic *s);

/* SDM, "x2APIC State Transitions": x2APIC is left through disabled, and entered from xAPIC. */
static bool base_write(struct lapic *s, uint64_t v)
{
    uint64_t old = s->cpu->r.apic_base, state = v & (BASE_ENABLE | BASE_X2APIC);
    uint64_t was = old & (BASE_ENABLE | BASE_X2APIC);
    const struct cpu_model *model = s->cpu->model;
    uint64_t writable = (UINT64_C(1) << (model ? model->phys_bits : 40)) - PAGE_SIZE;
    writable |= BASE_BSP | BASE_X2APIC | BASE_ENABLE;
    if ((v & ~writable) || state == BASE_X2APIC ||
        (was == (BASE_ENABLE | BASE_X2APIC) && state == BASE_ENABLE) ||
        (was == 0 && state == (BASE_ENABLE | BASE_X2APIC))) {
        return false;
    }
    s->cpu->r.apic_base = v;
    if ((old ^ v) & PAGE_MASK) {
        machine_lock();
        page_move(s);
        machine_unlock();
    }
    if (was && !state) {
        reset_registers(s);
    }
    refresh(s);
    return true;
}

static bool pv_eoi_write(struct lapic *s, uint64_t v)
{
    if (v & 2) {
        return false;
    }
    sync_pv_eoi(s);
    s->cpu->r.kvm_eoi = v;
    return true;
}

static bool board_msr_read(void *owner, struct vcpu *cpu, uint32_t msr, uint64_t *value)
{
    struct lapic *s = lapic_of(cpu);
    (void)owner;
    if (msr == MSR_APIC_BASE) {
        *value = cpu->r.apic_base;
        return true;
    }
    if (msr == MSR_TSC_DEADLINE) {
        *value = timer_mode(s) == TIMER_DEADLINE ? atomic_load(&s->deadline) : 0;
        return true;
    }
    unsigned n = msr - MSR_X2APIC;
    if (n >= R_COUNT || !x2apic(s) || !(x2_access(n) & X2_READ)) {
        return false;
    }
    *value = reg_read(s, n) | (n == R_ICR ? (uint64_t)s->icr2 << 32 : 0);
    return true;
}

static bool board_msr_write(void *owner, struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    struct lapic *s = lapic_of(cpu);
    (void)owner;
    if (msr == MSR_TSC_DEADLINE) {
        deadline_write(s, value);
        return true;
    }
    if (msr == MSR_APIC_BASE) {
        return base_write(s, value);
    }
    if (msr == MSR_PV_EOI) {
        return pv_eoi_write(s, value);
    }
    unsigned n = msr - MSR_X2APIC;
    if (n >= R_COUNT || !x2apic(s) || !(x2_access(n) & X2_WRITE) || (value & ~x2_writable(n))) {
        return false;
    }
    if (n == R_ICR) {
        s->icr = (uint32_t)value;
        s->icr2 = (uint32_t)(value >> 32);
        send_ipi(s, s->icr, s->icr2, true);
    } else if (n == R_SELF_IPI) {
        accept(s, (uint8_t)value, false);
    } else {
        reg_write(s, n, (uint32_t)value);
    }
    return true;
}

static uint64_t board_tpr_read(void *owner, struct vcpu *cpu)
{
    (void)owner;
    return lapic_of(cpu)->tpr >> 4;
}

static void board_tpr_write(void *owner, struct vcpu *cpu, uint64_t cr8)
{
    (void)owner;
    reg_write(lapic_of(cpu), R_TPR, (uint32_t)cr8 << 4);
}

/* KVM's hypercall: only what names neither a shorthand nor a logical destination. */
static int board_send_ipis(void *owner, struct vcpu *cpu, uint64_t who, uint32_t first, uint32_t icr)
{
    struct message m = {.mode = icr >> 8 & 7, .vector = (uint8_t)icr};
    int n = 0;
    (void)owner;
    if ((icr & (ICR_LOGICAL | ICR_SHORTHAND)) || m.mode == MODE_REMOTE_READ ||
        m.mode == MODE_EXTINT) {
        return -1;
    }
    sync_pv_eoi(lapic_of(cpu));
    for (; who; who &= who - 1) {
        uint64_t id = first + (uint64_t)__builtin_ctzll(who);
        if (id < MAX_IDS && by_id[id]) {
            deliver(by_id[id], &m);
            n++;
        }
    }
    return n;
}

static void board_ferr(void *owner, struct vcpu *cpu)
{
    struct device *ports = board_part(owner, "pc-ports");
    (void)cpu;
    machine_lock();
    if (ports) {
        pc_ports_ferr(ports);
    }
    machine_unlock();
}

/* ---- life ---- */

static void reset_registers(struct lapic *s)
{
    for (unsigned i = 0; i < 8; i++) {
        s->irr[i] = s->tmr[i] = s->isr[i] = 0;
    }
    for (unsigned i = 0; i < LVT_COUNT; i++) {
        s->lvt[i] = LVT_MASKED;
    }
    s->tpr = s->ldr = s->esr = s->icr = s->icr2 = s->initial = s->divide = 0;
    s->dfr = UINT32_MAX;
    s->svr = 0xff;
    s->errors = 0;
    s->extint = s->pv_eoi = false;
    s->deadline = 0;
    s->cpu->r.cr8 = 0;
    timer_disarm(&s->timer);
    if (s->cpu->index == 0) {
        s->lvt[LVT_LINT0] = MODE_EXTINT << 8; /* the virtual wire that firmware expects */
    }
}

static void reset(struct device *dev)
{
    reset_registers(self(dev));
}

static void board_init(void *owner, struct vcpu *cpu)
{
    (void)owner;
    reset_registers(lapic_of(cpu));
    cpu->r.kvm_eoi = 0;
}

const struct vcpu_board *lapic_vcpu_board(struct board *board)
{
    static struct vcpu_board table = {
        .acknowledge = board_acknowledge,
        .interrupt_pending = board_interrupt_pending,
        .tpr_read = board_tpr_read,
        .tpr_write = board_tpr_write,
        .apic_msr_read = board_msr_read,
        .apic_msr_write = board_msr_write,
        .send_ipis = board_send_ipis,
        .sleeps = board_sleeps,
        .wakes = board_wakes,
        .ferr = board_ferr,
        .init = board_init,
    };
    table.owner = board;
    for (unsigned i = 0; i < 2; i++) {
        lint[i] = (struct irq){.set = lint_set, .n = i};
    }
    return &table;
}

struct irq *lapic_lint(struct board *board, unsigned n)
{
    (void)board;
    return n < 2 ? &lint[n] : NULL;
}

static bool start(struct device *dev, GError **error)
{
    struct lapic *s = self(dev);
    if (!s->cpu || s->cpu->index >= MAX_LAPICS || lapics[s->cpu->index] ||
        s->cpu->apic_id >= MAX_IDS) {
        g_set_error(error, LODGE_ERROR, EINVAL, "a local APIC comes with its CPU");
        return false;
    }
    s->timer.fire = fire;
    s->timer.owner = s;
    lapics[s->cpu->index] = s;
    n_lapics = MAX(n_lapics, s->cpu->index + 1);
    for (unsigned i = 0; i < 2; i++) { /* one that comes late finds the lines as they are */
        s->line[i] = lapics[0] && lapics[0]->line[i];
    }
    by_id[s->cpu->apic_id] = s;
    return true;
}

static void stop(struct device *dev)
{
    struct lapic *s = self(dev);
    lapics[s->cpu->index] = NULL;
    by_id[s->cpu->apic_id] = NULL;
    while (n_lapics && !lapics[n_lapics - 1]) {
        n_lapics--;
    }
    page_leave(s);
}

struct device *lapic_new(struct board *board, struct vcpu *cpu, GError **error)
{
    extern const struct device_model model_lapic;
    g_autofree char *path = g_strdup_printf("lapic.%u", cpu->index);
    struct device *dev = device_new(&model_lapic);
    self(dev)->cpu = cpu;
    return device_start(dev, board, path, error) ? dev : NULL;
}

static bool loaded(struct device *dev, GError **error)
{
    struct lapic *s = self(dev);
    if (s->started < 0 || s->started > INT64_MAX / 4) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the timer is in no possible state");
        return false;
    }
    s->divide &= 0xb;
    return true;
}

static const struct reg regs[] = {
    STATE_ARRAY(struct lapic, irr),
    STATE_ARRAY(struct lapic, tmr),
    STATE_ARRAY(struct lapic, isr),
    STATE_ARRAY(struct lapic, lvt),
    STATE_ARRAY(struct lapic, line, .keep = true),
    STATE(struct lapic, extint),
    STATE(struct lapic, pv_eoi),
    STATE(struct lapic, tpr),
    STATE(struct lapic, ldr),
    STATE(struct lapic, dfr),
    STATE(struct lapic, svr),
    STATE(struct lapic, esr),
    STATE(struct lapic, errors),
    STATE(struct lapic, icr),
    STATE(struct lapic, icr2),
    STATE(struct lapic, initial),
    STATE(struct lapic, divide),
    STATE(struct lapic, started),
    STATE(struct lapic, deadline),
    STATE_TIMER(struct lapic, timer),
};

const struct device_model model_lapic = {
    .name = "apic",
    .about = "local APIC of a CPU",
    .spec = "Intel SDM volume 3, \"Advanced Programmable Interrupt Controller (APIC)\"",
    .size = sizeof(struct lapic),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .start = start,
    .stop = stop,
    .reset = reset,
    .settle = settle,
    .loaded = loaded,
};
