/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * paravirt: what a guest that knows KVM's interface is spared: interrupts to processors that
 * sleep, one exit for each target of an interrupt.
 *
 * Spec: Linux, "KVM-specific MSRs", "Linux KVM Hypercall".
 */
#include "guest/cpu/paravirt.h"

#include "guest/cpu/models.h"

#include <string.h>
#include <time.h>

enum { STEAL_ENABLED = 1, STEAL_VERSION_AT = 8, STEAL_PREEMPTED_AT = 16, STEAL_BYTES = 64 };
enum { PREEMPTED = 1, FLUSH_WANTED = 2 };
enum { UPDATE_NS = 10000000 };
enum { HC_SEND_IPI = 10 };
enum { KVM_EPERM = 1, KVM_EINVAL = 22, KVM_ENOSYS = 1000 };

/* ---- steal time ---- */

/* The vCPU's area in guest memory, if it has one there. */
static uint8_t *area(struct vcpu *cpu)
{
    uint64_t n = STEAL_BYTES;
    if (!(cpu->r.kvm_steal_time & STEAL_ENABLED) || !cpu->tlb) {
        return NULL;
    }
    uint8_t *at = space_map(cpu->memory, cpu->r.kvm_steal_time & ~UINT64_C(63), &n, true);
    return n == STEAL_BYTES ? at : NULL;
}

static int64_t thread_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static int64_t wall_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static void start_counting(struct vcpu *cpu)
{
    cpu->steal_wall = wall_ns();
    cpu->steal_thread = thread_ns();
}

/* Time in which the thread was awake and did not run; the host had other things to do. */
static void add_stolen(struct vcpu *cpu, uint8_t *at)
{
    int64_t wall = cpu->steal_wall, thread = cpu->steal_thread;
    start_counting(cpu);
    int64_t stolen = cpu->steal_wall - wall - (cpu->steal_thread - thread);
    uint32_t version;
    uint64_t all;
    memcpy(&version, at + STEAL_VERSION_AT, sizeof(version));
    memcpy(&all, at, sizeof(all));
    version = (version | 1) + 1;
    all += (uint64_t)MAX(stolen, 0);
    memcpy(at, &all, sizeof(all)); /* only this vCPU's own code reads it, and it stands still */
    memcpy(at + STEAL_VERSION_AT, &version, sizeof(version));
    ram_note_write(at, STEAL_BYTES);
}

bool paravirt_steal_time(struct vcpu *cpu, uint64_t v)
{
    if (v & 0x3e) {
        return false;
    }
    cpu->r.kvm_steal_time = v;
    start_counting(cpu);
    return true;
}

void paravirt_tick(struct vcpu *cpu)
{
    uint8_t *at = cpu->r.kvm_steal_time ? area(cpu) : NULL;
    if (at && wall_ns() - cpu->steal_wall > UPDATE_NS) {
        add_stolen(cpu, at);
    }
}

void paravirt_asleep(struct vcpu *cpu)
{
    uint8_t *at = area(cpu);
    if (at) {
        add_stolen(cpu, at);
        __atomic_store_n(at + STEAL_PREEMPTED_AT, PREEMPTED, __ATOMIC_SEQ_CST);
        ram_note_write(at, STEAL_BYTES);
    }
}

/* Who wanted this vCPU's translations dropped while it slept has left a bit. */
void paravirt_awake(struct vcpu *cpu)
{
    uint8_t *at = area(cpu);
    if (!at) {
        return;
    }
    if (__atomic_exchange_n(at + STEAL_PREEMPTED_AT, 0, __ATOMIC_SEQ_CST) & FLUSH_WANTED) {
        vcpu_request(cpu, REQ_FLUSH);
    }
    ram_note_write(at, STEAL_BYTES);
    start_counting(cpu);
}

/* ---- hypercalls ---- */

static int64_t send_ipi(struct vcpu *cpu, const uint64_t a[4])
{
    const struct vcpu_board *b = cpu->board;
    if (!cpu->model->offers[FEAT_KVM_PV_IPI] || !b || !b->send_ipis) {
        return -KVM_ENOSYS;
    }
    unsigned word = vcpu_code64(cpu) ? 64 : 32;
    int low = b->send_ipis(b->owner, cpu, a[0], (uint32_t)a[2], (uint32_t)a[3]);
    int high = b->send_ipis(b->owner, cpu, a[1], (uint32_t)a[2] + word, (uint32_t)a[3]);
    return low < 0 || high < 0 ? -KVM_EINVAL : low + high;
}

void paravirt_call(struct vcpu *cpu)
{
    static const enum gpr from[] = {RBX, RCX, RDX, RSI};
    bool wide = vcpu_code64(cpu);
    uint64_t *r = cpu->r.gpr, a[4], number = wide ? r[RAX] : (uint32_t)r[RAX];
    for (unsigned i = 0; i < 4; i++) {
        a[i] = wide ? r[from[i]] : (uint32_t)r[from[i]];
    }
    int64_t answer = vcpu_cpl(cpu)           ? -KVM_EPERM
                     : number == HC_SEND_IPI ? send_ipi(cpu, a)
                                             : -KVM_ENOSYS;
    r[RAX] = wide ? (uint64_t)answer : (uint32_t)answer;
}
