/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * run - the engine's table and its loop around KVM_RUN
 *
 * Spec: KVM API documentation, "KVM_RUN", "KVM_INTERRUPT", "KVM_NMI", "KVM_SMI",
 * "KVM_SET_GUEST_DEBUG".
 */
#include "guest/cpu/kvm/kvm.h"

#include "base/lock.h"
#include "guest/cpu/debug.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Interrupts the ioctl; its handler does nothing. */
#define SIG_KICK (SIGRTMIN + 1)

static struct kvm_vcpu *self(const struct vcpu *cpu)
{
    return cpu->priv;
}

int kvm_vcpu_ioctl(struct vcpu *cpu, unsigned long request, void *arg)
{
    int r = ioctl(self(cpu)->fd, request, arg);
    return r < 0 ? -errno : r;
}

static bool probe(GError **error)
{
    if (kvm_fd() < 0) {
        error_set_errno(error, errno, "/dev/kvm");
        return false;
    }
    return kvm_selftest(error);
}

static void on_kick(int sig)
{
    (void)sig;
}

/* A VM never loses a vCPU: the descriptor waits here, one more than it, for the next with its
 * APIC id. */
enum { PARKED_MAX = 4096 };
static int parked[PARKED_MAX];

static void release(struct kvm_vcpu *v)
{
    if (v->run) {
        munmap(v->run, v->run_bytes);
    }
    if (v->fd >= 0 && v->cpu->apic_id < PARKED_MAX) {
        parked[v->cpu->apic_id] = v->fd + 1;
    } else if (v->fd >= 0) {
        close(v->fd);
    }
    g_free(v);
}

/* False if there is none. */
static bool take_parked(struct kvm_vcpu *v)
{
    uint32_t id = v->cpu->apic_id;
    if (id >= PARKED_MAX || !parked[id]) {
        return false;
    }
    v->fd = parked[id] - 1;
    parked[id] = 0;
    return true;
}

static void detach(struct vcpu *cpu)
{
    struct kvm_vcpu *v = self(cpu);
    __atomic_store_n(&cpu->priv, NULL, __ATOMIC_RELEASE);
    release(v);
}

static bool make_vcpu(struct kvm_vcpu *v, GError **error)
{
    bool again = take_parked(v);
    if (!again) {
        v->fd = ioctl(kvm_vm_fd(), KVM_CREATE_VCPU, (unsigned long)v->cpu->apic_id);
    }
    int size = ioctl(kvm_fd(), KVM_GET_VCPU_MMAP_SIZE, 0);
    if (v->fd < 0 || size < 0) {
        error_set_errno(error, errno, "KVM: vCPU %u", v->cpu->index);
        return false;
    }
    void *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (run == MAP_FAILED) {
        error_set_errno(error, errno, "KVM: vCPU %u", v->cpu->index);
        return false;
    }
    v->run = run;
    v->run_bytes = (size_t)size;
    return again || kvm_set_cpuid(v, error); /* what it shows has not changed */
}

/* Layouts belong to the machine lock; all vCPUs attach at once. */
static bool attach_memory(struct vcpu *cpu, GError **error)
{
    machine_lock();
    bool good = kvm_open(error) && kvm_memory_init(cpu->memory_normal, cpu->memory_smm, error);
    machine_unlock();
    return good;
}

static bool attach(struct vcpu *cpu, GError **error)
{
    if (!attach_memory(cpu, error)) {
        return false;
    }
    signal(SIG_KICK, on_kick);
    struct kvm_vcpu *v = g_new0(struct kvm_vcpu, 1);
    v->cpu = cpu;
    v->fd = -1;
    v->thread = pthread_self();
    v->dirty = true;
    if (!make_vcpu(v, error)) {
        release(v);
        return false;
    }
    __atomic_store_n(&cpu->priv, v, __ATOMIC_RELEASE); /* from now on others may kick it */
    return true;
}

static void kick(struct vcpu *cpu)
{
    struct kvm_vcpu *v = __atomic_load_n(&cpu->priv, __ATOMIC_ACQUIRE);
    if (v) {
        v->run->immediate_exit = 1;
        pthread_kill(v->thread, SIG_KICK);
    }
}

static void push(struct vcpu *cpu)
{
    self(cpu)->dirty = true; /* all of it goes over before the next entry */
}

static void pull(struct vcpu *cpu)
{
    if (!self(cpu)->dirty) {
        kvm_pull(cpu);
    }
}

/* DR0 to DR3 and DR7 for the debugger's points that are not INT3s. */
static void debug_registers(const struct vcpu *cpu, unsigned long long dr[8])
{
    static const unsigned kind[] = {
        [GDB_EXECUTE] = 0, [GDB_WRITE] = 1, [GDB_READ] = 3, [GDB_ACCESS] = 3};
    static const unsigned length[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
    dr[7] = 0x400;
    for (unsigned i = 0, used = 0; cpu->points && i < cpu->points->n; i++) {
        const struct gdb_point *p = &cpu->points->at[i];
        if (!p->soft && used < DEBUG_REGISTERS) {
            unsigned long long bits = kind[p->kind];
            bits |= p->kind == GDB_EXECUTE ? 0 : length[p->bytes] << 2;
            dr[used] = p->linear;
            dr[7] |= 2u << used * 2 | bits << (16 + used * 4);
            used++;
        }
    }
}

/* Interrupts wait while single-stepping, if the kernel can do that: no step ends in a handler. */
static uint32_t step_flags(void)
{
    int can = ioctl(kvm_vm_fd(), KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2);
    return KVM_GUESTDBG_SINGLESTEP | (can > 0 ? (uint32_t)can & KVM_GUESTDBG_BLOCKIRQ : 0);
}

static void set_debugging(struct kvm_vcpu *v)
{
    struct vcpu *cpu = v->cpu;
    bool want = cpu->single_step || cpu->points;
    if (!want && !v->debugging) {
        return;
    }
    struct kvm_guest_debug d = {0};
    if (want) {
        d.control = KVM_GUESTDBG_ENABLE | (cpu->single_step ? step_flags() : 0) |
                    (cpu->points ? KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_USE_SW_BP : 0);
        unsigned long long dr[8] = {0};
        debug_registers(cpu, dr);
        for (unsigned i = 0; i < 8; i++) {
            d.arch.debugreg[i] = dr[i];
        }
    }
    if (v->inject) {
        d.control |= v->inject == VEC_BP ? KVM_GUESTDBG_INJECT_BP : KVM_GUESTDBG_INJECT_DB;
        v->inject = 0;
    }
    kvm_vcpu_ioctl(cpu, KVM_SET_GUEST_DEBUG, &d);
    v->debugging = want;
}

/* What the kernel delivers for us.  True if other requests are left. */
static bool serve_requests(struct vcpu *cpu)
{
    uint32_t have = cpu->requests;
    vcpu_unrequest(cpu, have & (REQ_NMI | REQ_SMI | REQ_FLUSH | REQ_INTR | REQ_A20 | REQ_ENGINE));
    if (have & REQ_NMI) {
        kvm_vcpu_ioctl(cpu, KVM_NMI, NULL);
    }
    if (have & REQ_SMI) {
        kvm_vcpu_ioctl(cpu, KVM_SMI, NULL);
    }
    return cpu->requests != 0;
}

/*
 * With a split chip the PIC is the board's: what it asks goes over when the guest can take
 * it, and until then the kernel is to tell when it can.
 */
static void offer_interrupt(struct kvm_vcpu *v)
{
    struct vcpu *cpu = v->cpu;
    const struct vcpu_board *b = cpu->board;
    if (!kvm_is_split()) {
        return;
    }
    bool asks = b->interrupt_pending(b->owner, cpu);
    if (asks && v->run->ready_for_interrupt_injection) {
        int vector = b->acknowledge(b->owner, cpu);
        struct kvm_interrupt interrupt = {.irq = (uint32_t)vector};
        if (vector >= 0) {
            kvm_vcpu_ioctl(cpu, KVM_INTERRUPT, &interrupt);
        }
        asks = b->interrupt_pending(b->owner, cpu);
    }
    v->run->request_interrupt_window = asks;
}

/* An access that ended the last run is finished by the next: leave nothing half done. */
static void finish_access(struct kvm_vcpu *v)
{
    v->run->immediate_exit = 1;
    ioctl(v->fd, KVM_RUN, 0);
    v->run->immediate_exit = 0;
}

/* Bounded: a vCPU that a debugger holds does not come. */
static void wait_for_apics(const struct vcpu *cpu)
{
    enum { STEP_US = 100, PATIENCE_US = 1000000 };
    for (unsigned waited = 0; waited < PATIENCE_US && atomic_load(&kvm_apics_due) &&
                              !(cpu->requests & (REQ_PAUSE | REQ_EXIT));
         waited += STEP_US) {
        g_usleep(STEP_US);
    }
}

static enum stop run(struct vcpu *cpu)
{
    struct kvm_vcpu *v = self(cpu);
    int stop = KVM_STAY;
    if (v->dirty) {
        kvm_push(cpu);
        v->dirty = false;
        wait_for_apics(cpu);
    }
    set_debugging(v);
    while (stop == KVM_STAY) {
        if (v->inject) {
            set_debugging(v);
        }
        v->run->immediate_exit = 0;
        atomic_thread_fence(memory_order_seq_cst);
        if (cpu->requests && serve_requests(cpu)) {
            finish_access(v);
            return STOP_KICKED;
        }
        offer_interrupt(v);
        if (ioctl(v->fd, KVM_RUN, 0) == 0) {
            stop = kvm_handle_exit(v);
        } else if (errno != EINTR && errno != EAGAIN) {
            error_set_errno(&cpu->error, errno, "KVM_RUN");
            stop = STOP_BROKEN;
        }
    }
    return (enum stop)stop;
}

const struct cpu_engine engine_kvm = {
    .name = "kvm",
    .about = "the host processor's virtualization, through /dev/kvm",
    .features = kvm_features,
    .probe = probe,
    .attach = attach,
    .detach = detach,
    .run = run,
    .pull = pull,
    .push = push,
    .gprs = kvm_gprs,
    .kick = kick,
};
