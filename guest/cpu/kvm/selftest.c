/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * selftest - is this /dev/kvm the real thing?
 *
 * Some hosts offer a KVM that runs user-mode code natively and emulates every instruction
 * of kernel-mode code, a hundred times slower than our translator.  A loop in 64-bit kernel
 * mode with paging on tells in milliseconds.
 */
#include "guest/cpu/kvm/kvm.h"

#include "base/util.h"

#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

enum {
    LOOPS = 125000,
    INSNS = 2 * LOOPS,
    LEAST_MIPS = 50,
    LIMIT_NS = INSNS / LEAST_MIPS * 1000, /* 5 ms */
    TRIES = 8, /* short ones: a busy host lets one of them run through */
    MEMORY = 0x8000,
    PML4 = 0x1000,
    PDPT = 0x2000,
    PD = 0x3000,
    CODE = 0x4000,
};

/* mov ecx, LOOPS; again: dec ecx; jnz again; hlt */
static const uint8_t code[] = {
    0xb9, LOOPS & 0xff, LOOPS >> 8 & 0xff, LOOPS >> 16 & 0xff, 0, 0xff, 0xc9, 0x75, 0xfc, 0xf4};

static struct kvm_run *watched;

static void too_long(int sig)
{
    (void)sig;
    watched->immediate_exit = 1;
}

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static void set_long_mode(int vcpu)
{
    struct kvm_sregs s;
    ioctl(vcpu, KVM_GET_SREGS, &s);
    struct kvm_segment flat = {
        .limit = UINT32_MAX, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    s.cs = flat;
    flat.type = 3, flat.l = 0, flat.db = 1, flat.selector = 16;
    s.ds = s.es = s.ss = s.fs = s.gs = flat;
    s.cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
    s.cr3 = PML4;
    s.cr4 = CR4_PAE;
    s.efer = EFER_LME | EFER_LMA;
    ioctl(vcpu, KVM_SET_SREGS, &s);
    struct kvm_regs r = {.rip = CODE, .rflags = 2};
    ioctl(vcpu, KVM_SET_REGS, &r);
}

/* Runs to the HLT; nanoseconds, or -1 if the limit came first, or -errno - 1. */
static int64_t run_loop(int vcpu, struct kvm_run *run)
{
    struct sigaction old, act = {.sa_handler = too_long};
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 2};
    ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    struct itimerspec limit = {.it_value = {0, LIMIT_NS}};
    timer_t timer;
    watched = run;
    run->immediate_exit = 0;
    sigaction(SIGRTMIN + 2, &act, &old);
    if (timer_create(CLOCK_MONOTONIC, &ev, &timer) < 0) {
        return -errno - 1;
    }
    timer_settime(timer, 0, &limit, NULL);
    int64_t start = now_ns(), result = -1;
    int r = ioctl(vcpu, KVM_RUN, 0);
    if (r == 0 && run->exit_reason == KVM_EXIT_HLT) {
        result = now_ns() - start;
    } else if (r == 0) {
        result = -EIO - 1;
    } else if (errno != EINTR) {
        result = -errno - 1;
    }
    timer_delete(timer);
    sigaction(SIGRTMIN + 2, &old, NULL);
    return result;
}

static int64_t measure(int vm, uint8_t *memory)
{
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY,
                                                 .userspace_addr = (uintptr_t)memory};
    uint64_t pml4e = PDPT | 3, pdpte = PD | 3, pde = 0x83; /* one page of 2 MiB */
    memcpy(memory + PML4, &pml4e, 8);
    memcpy(memory + PDPT, &pdpte, 8);
    memcpy(memory + PD, &pde, 8);
    memcpy(memory + CODE, code, sizeof(code));
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
        return -errno - 1;
    }
    autofd int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    int size = ioctl(kvm_fd(), KVM_GET_VCPU_MMAP_SIZE, 0);
    if (vcpu < 0 || size < 0) {
        return -errno - 1;
    }
    struct kvm_run *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED) {
        return -errno - 1;
    }
    int64_t ns = -1;
    for (unsigned i = 0; i < TRIES && (ns == -1 || ns > LIMIT_NS); i++) {
        set_long_mode(vcpu);
        ns = run_loop(vcpu, run);
    }
    munmap(run, (size_t)size);
    return ns;
}

bool kvm_selftest(GError **error)
{
    autofd int vm = ioctl(kvm_fd(), KVM_CREATE_VM, 0);
    if (vm < 0) {
        error_set_errno(error, errno, "/dev/kvm: KVM_CREATE_VM");
        return false;
    }
    uint8_t *memory =
        mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        error_set_errno(error, errno, "/dev/kvm: memory for its self-test");
        return false;
    }
    int64_t ns = measure(vm, memory);
    munmap(memory, MEMORY);
    if (ns >= 0 && ns <= LIMIT_NS) {
        return true;
    }
    if (ns < -1) {
        error_set_errno(error, (int)(-ns - 1), "/dev/kvm cannot run 64-bit kernel code");
    } else {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "/dev/kvm runs 64-bit kernel code at less than "
                    "%d million instructions a second: it emulates them",
                    LEAST_MIPS);
    }
    return false;
}
