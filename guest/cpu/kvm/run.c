/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * run - the engine's table and its loop around KVM_RUN
 *
 * Spec: KVM API documentation, "KVM_RUN", "KVM_NMI", "KVM_SMI", "KVM_SET_GUEST_DEBUG".
 */
#include "guest/cpu/kvm/kvm.h"

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

static void detach(struct vcpu *cpu)
{
    struct kvm_vcpu *v = self(cpu);
    if (v->run) {
        munmap(v->run, v->run_bytes);
    }
    if (v->fd >= 0) {
        close(v->fd);
    }
    g_free(v);
    cpu->priv = NULL;
}

static bool attach_vcpu(struct kvm_vcpu *v, GError **error)
{
    v->fd = ioctl(kvm_vm_fd(), KVM_CREATE_VCPU, (unsigned long)v->cpu->apic_id);
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
    return kvm_set_cpuid(v, error);
}

static bool attach(struct vcpu *cpu, GError **error)
{
    if (!kvm_open(error) ||
        !kvm_memory_init(cpu->memory_normal, cpu->memory_smm, error)) {
        return false;
    }
    signal(SIG_KICK, on_kick);
    struct kvm_vcpu *v = g_new0(struct kvm_vcpu, 1);
    v->cpu = cpu;
    v->fd = -1;
    v->thread = pthread_self();
    v->dirty = true;
    cpu->priv = v;
    if (!attach_vcpu(v, error)) {
        detach(cpu);
        return false;
    }
    return true;
}

static void kick(struct vcpu *cpu)
{
    struct kvm_vcpu *v = self(cpu);
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

static void debug_registers(const struct vcpu *cpu, unsigned long long dr[8])
{
    static const unsigned kind[] = {
        [GDB_EXECUTE] = 0, [GDB_WRITE] = 1, [GDB_READ] = 3, [GDB_ACCESS] = 3};
    unsigned n = cpu->points ? MIN(cpu->points->n, 4) : 0;
    dr[7] = 0x400;
    for (unsigned i = 0; i < n; i++) {
        const struct gdb_point *p = &cpu->points->at[i];
        unsigned length = p->bytes >= 8 ? 2 : p->bytes >= 4 ? 3 : p->bytes >= 2 ? 1 : 0;
        length = p->kind == GDB_EXECUTE ? 0 : length;
        dr[i] = p->linear;
        dr[7] |= 2u << i * 2 | (unsigned long long)(kind[p->kind] | length << 2) << (16 + i * 4);
    }
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
        d.control = KVM_GUESTDBG_ENABLE | (cpu->single_step ? KVM_GUESTDBG_SINGLESTEP : 0) |
                    (cpu->points ? KVM_GUESTDBG_USE_HW_BP : 0);
        unsigned long long dr[8] = {0};
        debug_registers(cpu, dr);
        for (unsigned i = 0; i < 8; i++) {
            d.arch.debugreg[i] = dr[i];
        }
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

/* An access that ended the last run is finished by the next: leave nothing half done. */
static void finish_access(struct kvm_vcpu *v)
{
    v->run->immediate_exit = 1;
    ioctl(v->fd, KVM_RUN, 0);
    v->run->immediate_exit = 0;
}

static enum stop run(struct vcpu *cpu)
{
    struct kvm_vcpu *v = self(cpu);
    int stop = KVM_STAY;
    if (v->dirty) {
        kvm_push(cpu);
        v->dirty = false;
    }
    set_debugging(v);
    while (stop == KVM_STAY) {
        v->run->immediate_exit = 0;
        atomic_thread_fence(memory_order_seq_cst);
        if (cpu->requests && serve_requests(cpu)) {
            finish_access(v);
            return STOP_KICKED;
        }
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
    .probe = probe,
    .attach = attach,
    .detach = detach,
    .run = run,
    .pull = pull,
    .push = push,
    .kick = kick,
};
