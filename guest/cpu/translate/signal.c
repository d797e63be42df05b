/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * signal: host faults in generated code that are the guest's.
 *
 * Not canonical addresses, alignment, division, unmasked x87 and SSE exceptions: the
 * interpreter executes the instruction again and raises what the guest gets.  Reads of a
 * bad .poll are requests.  Anything else, and anything outside generated code, is a fault
 * of ours and ends the process as usual.
 *
 * The guest's RSP may have any value when a signal comes, hence SS_AUTODISARM: without it
 * the kernel would compare it with the bounds of the alternate stack.
 */
#include "guest/cpu/translate/translate.h"

#include "base/error.h"

#include <errno.h>
#include <immintrin.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif
enum { STACK_BYTES = 64 * 1024, FLAG_BITS_CLEAR = FLAG_TF | FLAG_DF };

static const int ours[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};

static void stack_free(void *stack)
{
    sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    munmap(stack, STACK_BYTES);
}

static GPrivate stack_key = G_PRIVATE_INIT(stack_free); /* it goes with its thread */

static bool of_the_guest(int sig, const siginfo_t *info)
{
    switch (sig) {
    case SIGSEGV:
    case SIGBUS: /* #GP and #SS carry no address; page faults do and cannot be the guest's */
        return info->si_code == SI_KERNEL || info->si_code == BUS_ADRALN;
    default:
        return true;
    }
}

static const struct point *point_before(const struct block *b, unsigned offset)
{
    unsigned k = b->n_points - 1u;
    while (k && b->points[k].host > offset) {
        k--;
    }
    return &b->points[k];
}

static G_NO_INLINE void not_ours(int sig)
{
    signal(sig, SIG_DFL); /* comes again at once */
}

static __attribute__((target("fsgsbase"))) const struct bt_cpu *running(void)
{
    return (const struct bt_cpu *)(_readgsbase_u64() - TLB_HEADER_BYTES);
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *pc = (const uint8_t *)g[REG_RIP];
    const uint8_t *start = cache_start + cache_exec, *end = cache_end + cache_exec;
    struct block *b = pc >= start && pc < end ? cache_block_at(pc) : NULL;
    if (!b || !of_the_guest(sig, info)) {
        not_ours(sig);
        return;
    }
    unsigned offset = (unsigned)(pc - cache_exec - b->code);
    bool poll = offset < b->skip_poll;
    const struct point *p = point_before(b, offset);
    g[REG_R8 + S0 - R8] = (greg_t)(block_pc(running(), b) + (poll ? 0u : p->guest & ~(unsigned)POINT_SAVED));
    g[REG_R8 + S2 - R8] = !poll && (p->guest & POINT_SAVED);
    g[REG_RIP] = (greg_t)exec_of(thunk_at[poll ? THUNK_POLL : THUNK_FAULT]);
}

bool signals_open(GError **error)
{
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&sa.sa_mask);
    for (unsigned k = 0; k < G_N_ELEMENTS(ours); k++) {
        if (sigaction(ours[k], &sa, NULL) < 0) {
            error_set_errno(error, errno, "bt: signal handlers");
            return false;
        }
    }
    return true;
}

bool signals_thread(GError **error)
{
    void *stack = g_private_get(&stack_key);
    if (!stack) {
        stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (stack == MAP_FAILED) {
        error_set_errno(error, errno, "bt: signal stack");
        return false;
    }
    g_private_set(&stack_key, stack);
    stack_t s = {.ss_sp = stack, .ss_size = STACK_BYTES, .ss_flags = (int)SS_AUTODISARM};
    if (sigaltstack(&s, NULL) < 0) {
        error_set_errno(error, errno, "bt: signal stack");
        return false;
    }
    return true;
}
