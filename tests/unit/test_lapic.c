/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Local APICs, each driven from the thread of its own vCPU, as guest code does. */
#include "tests/unit/rig.h"

#include "guest/cpu/engine.h"
#include "guest/device/i8259.h"
#include "guest/device/ioapic.h"

#include <semaphore.h>

enum { CPUS = 3, BSP = 0 };
enum { ID = 0x20, VERSION = 0x30, TPR = 0x80, PPR = 0xa0, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0,
       SVR = 0xf0, ISR = 0x100, TMR = 0x180, IRR = 0x200, ESR = 0x280, ICR = 0x300, ICR2 = 0x310,
       LVT_TIMER = 0x320, LVT_LINT0 = 0x350, LVT_LINT1 = 0x360, LVT_ERROR = 0x370,
       INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3e0 };

static struct rig *rig;
static struct vcpu *cpus[CPUS];
static struct device *lapics[CPUS], *pic, *ioapic;
static const struct vcpu_board *calls;

/* ---- an engine whose guest code is a function of the test ---- */

static struct job {
    sem_t given, done;
    void (*run)(struct vcpu *cpu, void *arg);
    void *arg;
} jobs[CPUS];

static enum stop engine_run(struct vcpu *cpu)
{
    struct job *j = &jobs[cpu->index];
    while (!(atomic_load(&cpu->requests) & (REQ_PAUSE | REQ_EXIT))) {
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        ts.tv_nsec += 2000000;
        ts.tv_sec += ts.tv_nsec / 1000000000;
        ts.tv_nsec %= 1000000000;
        if (sem_timedwait(&j->given, &ts) == 0) {
            j->run(cpu, j->arg);
            sem_post(&j->done);
        }
    }
    return STOP_KICKED;
}

static bool engine_attach(struct vcpu *cpu, GError **error)
{
    (void)cpu, (void)error;
    return true;
}

static void engine_nothing(struct vcpu *cpu)
{
    (void)cpu;
}

static const struct cpu_engine engine = {
    .name = "test", .about = "runs the test's functions", .attach = engine_attach,
    .detach = engine_nothing, .run = engine_run, .pull = engine_nothing, .push = engine_nothing,
};

/* Runs @fn in the thread of CPU @n while this one lets go of the machine lock. */
static void on_cpu(unsigned n, void (*fn)(struct vcpu *cpu, void *arg), void *arg)
{
    jobs[n].run = fn;
    jobs[n].arg = arg;
    machine_unlock();
    sem_post(&jobs[n].given);
    while (sem_wait(&jobs[n].done)) {
    }
    machine_lock();
}

struct access {
    uint32_t at;
    uint64_t value;
    bool works;
};

static void do_load(struct vcpu *cpu, void *arg)
{
    struct access *a = arg;
    a->value = space_load(cpu->memory, 0xfee00000 + a->at, 4);
}

static void do_store(struct vcpu *cpu, void *arg)
{
    struct access *a = arg;
    space_store(cpu->memory, 0xfee00000 + a->at, a->value, 4);
}

static void do_rdmsr(struct vcpu *cpu, void *arg)
{
    struct access *a = arg;
    a->works = calls->apic_msr_read(calls->owner, cpu, a->at, &a->value);
}

static void do_wrmsr(struct vcpu *cpu, void *arg)
{
    struct access *a = arg;
    a->works = calls->apic_msr_write(calls->owner, cpu, a->at, a->value);
}

static void do_sleep(struct vcpu *cpu, void *arg)
{
    struct access *a = arg;
    a->value = (uint64_t)calls->sleeps(calls->owner, cpu);
}

static void do_wake(struct vcpu *cpu, void *arg)
{
    (void)arg;
    calls->wakes(calls->owner, cpu);
}

static void do_acknowledge(struct vcpu *cpu, void *arg)
{
    struct access *a = arg;
    a->works = calls->interrupt_pending(calls->owner, cpu);
    a->value = (uint64_t)calls->acknowledge(calls->owner, cpu);
    calls->interrupt_pending(calls->owner, cpu);
}

static uint32_t rd(unsigned cpu, uint32_t at)
{
    struct access a = {.at = at};
    on_cpu(cpu, do_load, &a);
    return (uint32_t)a.value;
}

static void wr(unsigned cpu, uint32_t at, uint32_t v)
{
    struct access a = {.at = at, .value = v};
    on_cpu(cpu, do_store, &a);
}

static bool rdmsr(unsigned cpu, uint32_t msr, uint64_t *v)
{
    struct access a = {.at = msr};
    on_cpu(cpu, do_rdmsr, &a);
    *v = a.value;
    return a.works;
}

static bool wrmsr(unsigned cpu, uint32_t msr, uint64_t v)
{
    struct access a = {.at = msr, .value = v};
    on_cpu(cpu, do_wrmsr, &a);
    return a.works;
}

/* The vector that the CPU takes now; -1: none. */
static int take(unsigned cpu)
{
    struct access a = {.at = 0};
    on_cpu(cpu, do_acknowledge, &a);
    assert_int_equal(a.works, (int)a.value >= 0);
    return (int)a.value;
}

static bool asked(unsigned cpu)
{
    return atomic_load(&cpus[cpu]->requests) & REQ_INTR;
}

/* ---- the machine ---- */

static int set_up(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    for (unsigned i = 0; i < CPUS; i++) {
        lapics[i] = lapic_new(rig->board, cpus[i], &error);
        assert_works(lapics[i] != NULL, error);
        cpus[i]->r.apic_base = 0xfee00800 | (i == BSP ? 0x100 : 0);
        device_reset(lapics[i]);
        vcpu_unrequest(cpus[i], ~0u);
        wr(i, SVR, 0x1ff);
    }
    pic = rig_device(rig, "i8259");
    assert_works(device_connect(pic, "int", WIRE_IRQ, lapic_lint(rig->board, 0), &error), error);
    rig_start(rig, pic);
    ioapic = rig_start(rig, rig_device(rig, "ioapic"));
    rig->board->msi = lapic_msi;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_free(ioapic);
    device_free(pic);
    for (unsigned i = CPUS; i-- > 0;) {
        device_free(lapics[i]);
    }
    return 0;
}

static void start_machine(void)
{
    g_autoptr(GError) error = NULL;
    rig = rig_new();
    calls = lapic_vcpu_board(rig->board);
    for (unsigned i = 0; i < CPUS; i++) {
        sem_init(&jobs[i].given, 0, 0);
        sem_init(&jobs[i].done, 0, 0);
        cpus[i] = vcpu_new(i, i, &engine, NULL, calls, rig->board->memory, NULL,
                           rig->board->ports, &error);
        assert_works(cpus[i] != NULL, error);
        cpus[i]->r.wait_sipi = cpus[i]->r.halted = 0;
    }
    vcpus_resume();
}

/* ---- tests ---- */

static void a_fixed_message_is_delivered_and_ended(void **state)
{
    (void)state;
    assert_int_equal(rd(1, ID), 1u << 24);
    assert_int_equal(rd(0, VERSION), 0x50014);
    assert_int_equal(take(1), -1);
    lapic_msi(rig->board, 0xfee01000, 0x41);
    assert_true(asked(1));
    assert_false(asked(0));
    assert_int_equal(rd(1, IRR + 0x20), 2);
    assert_int_equal(take(1), 0x41);
    assert_false(asked(1));
    assert_int_equal(rd(1, ISR + 0x20), 2);
    assert_int_equal(rd(1, PPR), 0x40);
    lapic_msi(rig->board, 0xfee01000, 0x42); /* the same class: waits */
    assert_int_equal(take(1), -1);
    lapic_msi(rig->board, 0xfee01000, 0x51);
    assert_int_equal(take(1), 0x51);
    wr(1, EOI, 0);
    assert_int_equal(take(1), -1);
    wr(1, EOI, 0);
    assert_true(asked(1));
    assert_int_equal(take(1), 0x42);
}

static void the_task_priority_holds_back(void **state)
{
    (void)state;
    wr(0, TPR, 0x50);
    assert_int_equal(calls->tpr_read(calls->owner, cpus[0]), 5);
    lapic_msi(rig->board, 0xfee00000, 0x55);
    assert_int_equal(take(0), -1);
    assert_false(asked(0));
    wr(0, TPR, 0x40);
    assert_true(asked(0));
    assert_int_equal(take(0), 0x55);
}

static void a_vector_below_16_is_an_error(void **state)
{
    (void)state;
    wr(0, LVT_ERROR, 0x77);
    lapic_msi(rig->board, 0xfee00000, 0x0f);
    assert_int_equal(take(0), 0x77);
    assert_int_equal(rd(0, ESR), 0);
    wr(0, ESR, 0);
    assert_int_equal(rd(0, ESR), 0x40);
    wr(0, ESR, 0);
    assert_int_equal(rd(0, ESR), 0);
}

static void processors_interrupt_each_other(void **state)
{
    (void)state;
    wr(0, ICR2, 2u << 24);
    wr(0, ICR, 0x4061);
    assert_int_equal(take(2), 0x61);
    assert_int_equal(take(1), -1);
    wr(1, ICR, 0xc4062); /* all but itself */
    assert_int_equal(take(0), 0x62);
    assert_int_equal(take(1), -1);
    wr(2, EOI, 0);
    assert_int_equal(take(2), 0x62);
    wr(1, ICR, 0x44063); /* itself */
    assert_int_equal(take(1), 0x63);
    wr(0, ICR2, 0xff000000);
    wr(0, EOI, 0);
    wr(0, ICR, 0x4064); /* broadcast */
    for (unsigned i = 0; i < CPUS; i++) {
        wr(i, EOI, 0);
        assert_int_equal(take(i), 0x64);
    }
}

static void start_up_messages_reach_the_processor(void **state)
{
    (void)state;
    wr(0, ICR2, 1u << 24);
    wr(0, ICR, 0xc500); /* INIT, assert */
    assert_int_equal(atomic_load(&cpus[1]->requests) & (REQ_INIT | REQ_SIPI), REQ_INIT);
    vcpu_unrequest(cpus[1], ~0u);
    wr(0, ICR, 0x8500); /* INIT, de-assert: nothing */
    assert_int_equal(atomic_load(&cpus[1]->requests) & REQ_INIT, 0);
    wr(0, ICR, 0x4699);
    assert_true(atomic_load(&cpus[1]->requests) & REQ_SIPI);
    assert_int_equal(cpus[1]->sipi_vector, 0x99);
    wr(0, ICR, 0x4400);
    assert_true(atomic_load(&cpus[1]->requests) & REQ_NMI);
    wr(0, ICR, 0x4200);
    assert_true(atomic_load(&cpus[1]->requests) & REQ_SMI);
    calls->init(calls->owner, cpus[1]);
    assert_int_equal(rd(1, SVR), 0xff);
    assert_int_equal(rd(1, LVT_TIMER), 0x10000);
}

static void logical_destinations_choose(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CPUS; i++) {
        wr(i, LDR, 1u << (24 + i));
    }
    lapic_msi(rig->board, 0xfee00004 | 6 << 12, 0x51); /* flat: 1 and 2 */
    assert_int_equal(take(0), -1);
    assert_int_equal(take(1), 0x51);
    assert_int_equal(take(2), 0x51);
    lapic_msi(rig->board, 0xfee00004 | 6 << 12, 0x161); /* lowest priority: one of them */
    assert_int_equal((take(1) == 0x61) + (take(2) == 0x61), 1);
    for (unsigned i = 0; i < CPUS; i++) {
        wr(i, DFR, 0);
        wr(i, LDR, (i + 1) << 28 | 1u << 24);
        while (rd(i, ISR + 0x20) | rd(i, ISR + 0x30)) {
            wr(i, EOI, 0);
        }
    }
    lapic_msi(rig->board, 0xfee00004 | 0x21 << 12, 0x52); /* cluster 2 */
    assert_int_equal(take(0), -1);
    assert_int_equal(take(1), 0x52);
    assert_int_equal(take(2), -1);
}

static void x2apic_has_msrs_and_rules(void **state)
{
    uint64_t v;
    (void)state;
    assert_false(rdmsr(1, 0x802, &v)); /* not yet */
    assert_true(wrmsr(1, 0x1b, 0xfee00c00));
    assert_true(rdmsr(1, 0x802, &v));
    assert_int_equal(v, 1);
    assert_true(rdmsr(1, 0x80d, &v));
    assert_int_equal(v, 2);
    assert_int_equal(rd(1, ID), 0xffffffff); /* the page is gone */
    assert_false(wrmsr(1, 0x802, 1)); /* read-only */
    assert_false(rdmsr(1, 0x80e, &v)); /* no DFR */
    assert_false(rdmsr(1, 0x831, &v));
    assert_false(wrmsr(1, 0x80b, 1));
    assert_false(wrmsr(1, 0x808, 0x100));
    assert_true(wrmsr(1, 0x80f, 0x1ff));
    assert_true(wrmsr(1, 0x83f, 0x45)); /* self IPI */
    assert_int_equal(take(1), 0x45);
    assert_true(wrmsr(1, 0x80b, 0));
    assert_true(wrmsr(1, 0x830, UINT64_C(2) << 32 | 0x46));
    assert_int_equal(take(2), 0x46);
    assert_true(rdmsr(1, 0x830, &v));
    assert_int_equal(v, UINT64_C(2) << 32 | 0x46);
    lapic_msi(rig->board, 0xfee00004 | 2 << 12, 0x47); /* logical: cluster 0, bit 1 */
    assert_int_equal(take(1), 0x47);
    assert_false(wrmsr(1, 0x1b, 0xfee00800)); /* not back to xAPIC */
    assert_true(wrmsr(1, 0x1b, 0xfee00000));
    assert_false(wrmsr(1, 0x1b, 0xfee00c00)); /* not from disabled */
    assert_true(wrmsr(1, 0x1b, 0xfee00800));
    assert_int_equal(rd(1, ISR + 0x20), 0);
}

static void the_timer_counts_in_all_modes(void **state)
{
    uint64_t v;
    (void)state;
    wr(0, DIVIDE, 0x3); /* by 16 */
    wr(0, LVT_TIMER, 0x80);
    wr(0, INITIAL, 1000);
    clock_advance(8000);
    assert_int_equal(rd(0, CURRENT), 500);
    assert_int_equal(take(0), -1);
    clock_advance(8000);
    assert_int_equal(take(0), 0x80);
    assert_int_equal(rd(0, CURRENT), 0);
    wr(0, EOI, 0);
    clock_advance(100000);
    assert_int_equal(take(0), -1);
    wr(0, LVT_TIMER, 0x20081); /* periodic */
    wr(0, INITIAL, 100000);
    for (unsigned i = 0; i < 5; i++) {
        clock_advance(1600000);
        assert_int_equal(take(0), 0x81);
        wr(0, EOI, 0);
    }
    wr(0, LVT_TIMER, 0x30081); /* masked: counts, but is silent */
    clock_advance(1600000);
    assert_int_equal(take(0), -1);
    wr(0, LVT_TIMER, 0x40082); /* deadline */
    assert_int_equal(rd(0, INITIAL), 0);
    uint64_t tsc = vcpu_tsc(cpus[0]);
    assert_true(wrmsr(0, 0x6e0, tsc + tsc_hz() / 1000));
    clock_advance(999000);
    assert_int_equal(take(0), -1);
    assert_true(rdmsr(0, 0x6e0, &v));
    assert_int_equal(v, tsc + tsc_hz() / 1000);
    clock_advance(2000);
    assert_int_equal(take(0), 0x82);
    assert_true(rdmsr(0, 0x6e0, &v));
    assert_int_equal(v, 0);
    wr(0, EOI, 0);
    assert_true(wrmsr(0, 0x6e0, 1)); /* long past: at once */
    assert_int_equal(take(0), 0x82);
    wr(0, EOI, 0);
    assert_true(wrmsr(0, 0x6e0, vcpu_tsc(cpus[0]) + tsc_hz()));
    assert_true(wrmsr(0, 0x6e0, 0)); /* taken back */
    clock_advance(2000000000);
    assert_int_equal(take(0), -1);
}

/* When it would wake itself, by the host's clock; 0: somebody else has to. */
static int64_t put_to_sleep(void)
{
    struct access a = {.at = 0};
    on_cpu(0, do_sleep, &a);
    return (int64_t)a.value;
}

static void a_halted_cpu_wakes_itself_for_its_deadline(void **state)
{
    struct timespec at;
    (void)state;
    wr(0, SVR, 0x1ff);
    wr(0, LVT_TIMER, 0x40082);
    assert_int_equal(put_to_sleep(), 0); /* no deadline */
    clock_start();
    assert_true(wrmsr(0, 0x6e0, vcpu_tsc(cpus[0]) + tsc_hz() / 100));
    int64_t due = put_to_sleep();
    clock_gettime(CLOCK_MONOTONIC, &at);
    assert_in_range(due, 1, at.tv_sec * INT64_C(1000000000) + at.tv_nsec + 20000000);
    at = (struct timespec){due / 1000000000, due % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) != 0) {
    }
    on_cpu(0, do_wake, NULL);
    assert_int_equal(take(0), 0x82);
    wr(0, EOI, 0);
    assert_int_equal(put_to_sleep(), 0);
    uint64_t far = vcpu_tsc(cpus[0]) + 3600 * tsc_hz(), v;
    assert_true(wrmsr(0, 0x6e0, far));
    assert_true(put_to_sleep() > due);
    on_cpu(0, do_wake, NULL); /* by somebody else: the deadline stays */
    assert_int_equal(take(0), -1);
    assert_true(rdmsr(0, 0x6e0, &v));
    assert_int_equal(v, far);
    assert_true(wrmsr(0, 0x6e0, 0));
    clock_stop();
}

static void the_pic_comes_through_lint0(void **state)
{
    static const uint16_t port[] = {0x20, 0x21, 0x21, 0x21, 0xa0, 0xa1, 0xa1, 0xa1};
    static const uint8_t value[] = {0x11, 0x08, 0x04, 0x01, 0x11, 0x70, 0x02, 0x01};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(port); i++) {
        space_store(rig->board->ports, port[i], value[i], 1);
    }
    wr(0, LVT_LINT0, 0x10700);
    irq_pulse(i8259_input(pic, 0));
    assert_int_equal(take(0), -1);
    wr(0, LVT_LINT0, 0x700);
    assert_true(asked(0));
    assert_int_equal(take(0), 0x08);
    assert_false(asked(0));
    assert_int_equal(take(1), -1);
    wr(0, LVT_LINT0, 0x90); /* virtual wire: fixed, on the edge */
    space_store(rig->board->ports, 0x20, 0x20, 1);
    irq_pulse(i8259_input(pic, 0));
    assert_int_equal(take(0), 0x90);
}

static void a_level_is_asked_for_again_after_its_end(void **state)
{
    (void)state;
    struct space *m = rig->board->memory;
    space_store(m, 0xfec00000, 0x10 + 2 * 11 + 1, 4);
    space_store(m, 0xfec00010, 1u << 24, 4);
    space_store(m, 0xfec00000, 0x10 + 2 * 11, 4);
    space_store(m, 0xfec00010, 0x8091, 4);
    irq_set(ioapic_input(ioapic, 11), true);
    assert_int_equal(take(1), 0x91);
    assert_int_equal(rd(1, TMR + 0x40), 1u << 17);
    assert_int_equal(take(1), -1);
    wr(1, EOI, 0);
    assert_int_equal(take(1), 0x91);
    irq_set(ioapic_input(ioapic, 11), false);
    wr(1, EOI, 0);
    assert_int_equal(take(1), -1);
}

static void set_pin(unsigned n, uint64_t entry)
{
    struct space *m = rig->board->memory;
    space_store(m, 0xfec00000, 0x10 + 2 * n + 1, 4);
    space_store(m, 0xfec00010, entry >> 32, 4);
    space_store(m, 0xfec00000, 0x10 + 2 * n, 4);
    space_store(m, 0xfec00010, entry & 0xffffffff, 4);
}

/* CPU 1 takes the PIC's interrupts by way of the I/O APIC; its LINT0 is masked. */
static void an_extint_message_asks_the_pic(void **state)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } set_up_pic[] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 4}, {0x21, 1}, {0xa0, 0x11}, {0xa1, 0x28},
                      {0xa1, 2}, {0xa1, 1}, {0x21, 0}, {0xa1, 0}};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(set_up_pic); i++) {
        space_store(rig->board->ports, set_up_pic[i].port, set_up_pic[i].value, 1);
    }
    for (unsigned i = 0; i < CPUS; i++) {
        wr(i, LVT_LINT0, 0x10700);
    }
    set_pin(0, UINT64_C(1) << 56 | 0x700);
    irq_set(i8259_input(pic, 5), true);
    assert_int_equal(take(0), -1);
    assert_false(asked(1));
    irq_pulse(ioapic_input(ioapic, 0));
    assert_true(asked(1));
    assert_int_equal(take(1), 0x25);
    assert_int_equal(take(1), -1);
    irq_pulse(ioapic_input(ioapic, 0)); /* the PIC asks for nothing: nothing comes */
    assert_int_equal(take(1), -1);
}

/* One interrupt in service and none waiting: the guest may clear a bit instead of writing EOI. */
static void an_end_of_interrupt_may_be_a_bit_in_memory(void **state)
{
    uint8_t *bit = rig->ram->host + 0x1000;
    (void)state;
    *bit = 0;
    assert_false(wrmsr(1, 0x4b564d04, 0x1003));
    assert_true(wrmsr(1, 0x4b564d04, 0x1001));
    lapic_msi(rig->board, 0xfee01000, 0x41);
    assert_int_equal(take(1), 0x41);
    assert_int_equal(*bit, 1);
    *bit = 0; /* done; what is not in service any more holds nothing back */
    lapic_msi(rig->board, 0xfee01000, 0x31);
    assert_int_equal(take(1), 0x31);
    assert_int_equal(*bit, 1);
    lapic_msi(rig->board, 0xfee01000, 0x42); /* nested: two are in service, the bit is taken back */
    assert_int_equal(take(1), 0x42);
    assert_int_equal(*bit, 0);
    wr(1, EOI, 0);
    wr(1, EOI, 0);
    assert_int_equal(rd(1, ISR + 0x20), 0);
    lapic_msi(rig->board, 0xfee01000, 0x43);
    lapic_msi(rig->board, 0xfee01000, 0x44);
    assert_int_equal(take(1), 0x44); /* another waits: it needs a real EOI to come */
    assert_int_equal(*bit, 0);
    wr(1, EOI, 0);
    assert_int_equal(take(1), 0x43);
    assert_int_equal(*bit, 1);
    wr(1, EOI, 0); /* a guest may still write it, and the bit goes */
    assert_int_equal(*bit, 0);
    assert_int_equal(rd(1, ISR + 0x20), 0);
    set_pin(11, UINT64_C(1) << 56 | 0x8091);
    irq_set(ioapic_input(ioapic, 11), true);
    assert_int_equal(take(1), 0x91); /* the I/O APIC must hear of a level's end */
    assert_int_equal(*bit, 0);
    irq_set(ioapic_input(ioapic, 11), false);
    wr(1, EOI, 0);
    lapic_msi(rig->board, 0xfee01000, 0x45);
    assert_int_equal(take(1), 0x45);
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) saved = device_save(lapics[1]);
    device_reset(lapics[1]);
    assert_works(device_load(lapics[1], saved, &error), error);
    *bit = 0;
    assert_int_equal(rd(1, ISR + 0x20), 0);
    assert_true(wrmsr(1, 0x4b564d04, 0));
}

static void do_send(struct vcpu *cpu, void *arg)
{
    struct access *a = arg;
    a->value = (uint64_t)calls->send_ipis(calls->owner, cpu, a->value, a->at, 0x4051);
    a->works = calls->send_ipis(calls->owner, cpu, 1, 0, 0x4851) < 0; /* logical: not this way */
}

static void one_call_interrupts_many(void **state)
{
    struct access a = {.value = 0x80000006, .at = 0}; /* there is no CPU 31 */
    (void)state;
    on_cpu(0, do_send, &a);
    assert_int_equal(a.value, 2);
    assert_true(a.works);
    assert_int_equal(take(1), 0x51);
    assert_int_equal(take(2), 0x51);
    assert_int_equal(take(0), -1);
    a = (struct access){.value = 1, .at = 2};
    on_cpu(0, do_send, &a);
    wr(2, EOI, 0);
    assert_int_equal(take(2), 0x51);
}

static void do_load_at_base(struct vcpu *cpu, void *arg)
{
    struct access *a = arg;
    a->value = space_load(cpu->memory, a->value + a->at, 4);
}

static uint32_t rd_at(unsigned cpu, uint64_t base, uint32_t at)
{
    struct access a = {.at = at, .value = base};
    on_cpu(cpu, do_load_at_base, &a);
    return (uint32_t)a.value;
}

/* Each processor's page is where its IA32_APIC_BASE says, also after a load and a reset. */
static void the_page_moves_with_its_base(void **state)
{
    g_autoptr(GError) error = NULL;
    enum { MOVED = 0x42000000 };
    uint64_t v;
    (void)state;
    assert_false(wrmsr(1, 0x1b, UINT64_C(1) << 45 | 0x800));
    assert_true(wrmsr(1, 0x1b, MOVED | 0x800));
    assert_true(rdmsr(1, 0x1b, &v));
    assert_int_equal(v, MOVED | 0x800);
    assert_int_equal(rd_at(1, MOVED, VERSION), 0x50014);
    assert_int_equal(rd(1, VERSION), UINT32_MAX);
    assert_int_equal(rd(0, ID), 0);
    assert_int_equal(rd_at(0, MOVED, ID), UINT32_MAX);
    assert_true(wrmsr(2, 0x1b, MOVED | 0x800));
    assert_int_equal(rd_at(2, MOVED, ID), 2u << 24);
    assert_int_equal(rd_at(1, MOVED, ID), 1u << 24);
    g_autoptr(GBytes) saved = device_save(lapics[1]);
    device_reset(lapics[1]);
    cpus[1]->r.apic_base = 0xfee00800;
    device_settle(lapics[1]);
    assert_int_equal(rd(1, SVR), 0xff);
    cpus[1]->r.apic_base = MOVED | 0x800; /* processors are loaded before devices */
    assert_works(device_load(lapics[1], saved, &error), error);
    assert_int_equal(rd_at(1, MOVED, SVR), 0x1ff);
    for (unsigned i = 1; i < CPUS; i++) {
        cpus[i]->r.apic_base = 0xfee00800;
        device_settle(lapics[i]);
    }
    assert_int_equal(rd_at(1, MOVED, VERSION), UINT32_MAX);
}

static void its_state_moves_with_the_machine(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    wr(0, TPR, 0x20);
    wr(0, LVT_TIMER, 0x20083);
    wr(0, DIVIDE, 0xb);
    wr(0, INITIAL, 1000000);
    lapic_msi(rig->board, 0xfee00000, 0x61);
    assert_int_equal(take(0), 0x61);
    lapic_msi(rig->board, 0xfee00000, 0x71);
    clock_advance(300000);
    g_autoptr(GBytes) saved = device_save(lapics[0]);
    device_reset(lapics[0]);
    vcpu_unrequest(cpus[0], ~0u);
    assert_works(device_load(lapics[0], saved, &error), error);
    assert_true(asked(0));
    assert_int_equal(take(0), 0x71);
    assert_int_equal(rd(0, CURRENT), 700000);
    assert_int_equal(rd(0, PPR), 0x70);
    clock_advance(700000);
    assert_int_equal(take(0), 0x83);
    for (size_t cut = 0; cut < g_bytes_get_size(saved); cut += 3) {
        g_autoptr(GBytes) part = g_bytes_new_from_bytes(saved, 0, cut);
        assert_fails(device_load(lapics[0], part, &error), error, EINVAL);
    }
    device_reset(lapics[0]);
}

static void wild(struct vcpu *cpu, void *arg)
{
    uint64_t *seed = arg;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t v;
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        uint32_t r = (uint32_t)(*seed >> 32);
        switch (r & 3) {
        case 0:
            space_store(cpu->memory, 0xfee00000 + (r >> 2 & 0xff0), *seed >> (r >> 26), 4);
            break;
        case 1:
            calls->apic_msr_write(calls->owner, cpu, 0x800 + (r >> 2 & 0x3f), *seed >> (r >> 26));
            break;
        case 2:
            calls->apic_msr_read(calls->owner, cpu, 0x800 + (r >> 2 & 0x3f), &v);
            space_load(cpu->memory, 0xfee00000 + (r >> 2 & 0xff0), 4);
            break;
        default:
            calls->interrupt_pending(calls->owner, cpu);
            calls->acknowledge(calls->owner, cpu);
            if (r >> 2 % 64 == 0) {
                calls->apic_msr_write(calls->owner, cpu, 0x1b, (0xfee00000 ^ (r & 0x3000)) | (r >> 8 & 0xc00));
            }
            break;
        }
    }
}

static void wild_accesses_on_all_processors_do_no_harm(void **state)
{
    static uint64_t seeds[CPUS] = {1, 2, 3};
    (void)state;
    for (unsigned i = 0; i < CPUS; i++) {
        jobs[i].run = wild;
        jobs[i].arg = &seeds[i];
        sem_post(&jobs[i].given);
    }
    for (unsigned i = 0; i < 200; i++) {
        clock_advance(100000);
        lapic_msi(rig->board, 0xfee00000 | (i & 3) << 12, 0xc000 | i);
        machine_unlock();
        g_usleep(100);
        machine_lock();
    }
    machine_unlock();
    for (unsigned i = 0; i < CPUS; i++) {
        while (sem_wait(&jobs[i].done)) {
        }
    }
    machine_lock();
}

#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        T(a_fixed_message_is_delivered_and_ended),
        T(the_task_priority_holds_back),
        T(a_vector_below_16_is_an_error),
        T(processors_interrupt_each_other),
        T(start_up_messages_reach_the_processor),
        T(logical_destinations_choose),
        T(x2apic_has_msrs_and_rules),
        T(the_timer_counts_in_all_modes),
        T(a_halted_cpu_wakes_itself_for_its_deadline),
        T(the_pic_comes_through_lint0),
        T(a_level_is_asked_for_again_after_its_end),
        T(an_extint_message_asks_the_pic),
        T(an_end_of_interrupt_may_be_a_bit_in_memory),
        T(one_call_interrupts_many),
        T(the_page_moves_with_its_base),
        T(its_state_moves_with_the_machine),
        T(wild_accesses_on_all_processors_do_no_harm),
    };
    machine_lock();
    start_machine();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vcpus_exit();
    return failed;
}
