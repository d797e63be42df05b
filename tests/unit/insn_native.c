/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/insn_native.h"

#include <asm/ldt.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static struct native *self;
static unsigned current, total;
static bool started;

static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                              REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                              REG_R12, REG_R13, REG_R14, REG_R15};
enum { SW_RESERVED = 464, SW_RESERVED_END = 512, XSTATE_BV = 512, YMM = 576 };

static void load(const struct test_case *c, ucontext_t *uc)
{
    greg_t *g = uc->uc_mcontext.gregs;
    const struct test_state *s = &c->before;
    uint8_t *x = (uint8_t *)uc->uc_mcontext.fpregs;
    for (unsigned n = 0; n < 16; n++) {
        g[order[n]] = (greg_t)s->gpr[n];
    }
    g[REG_RIP] = (greg_t)s->rip;
    g[REG_EFL] = (greg_t)s->rflags;
    uint64_t cs = c->code_bytes == 8 ? 0x33 : c->code_bytes == 4 ? 0x23 : TEST_CS16;
    uint64_t ds = c->code_bytes == 2 ? TEST_DS16 : 0x2b;
    g[REG_CSGSFS] = (greg_t)(cs | ds << 48);
    memcpy(x, s->xsave, SW_RESERVED);
    memset(x + XSTATE_BV, 0, 64);
    memcpy(x + XSTATE_BV, s->xsave + XSTATE_BV, 8);
    memcpy(x + YMM, s->xsave + YMM, 256);
    memset((void *)(uintptr_t)TEST_CODE, 0xcc, 0x1000);
    memcpy((void *)(uintptr_t)TEST_AT, c->code, 16);
    memcpy((void *)(uintptr_t)TEST_MIDDLE, s->memory, TEST_MIDDLE_BYTES);
    memcpy((void *)(uintptr_t)TEST_TAIL, s->memory + TEST_MIDDLE_BYTES, TEST_TAIL_BYTES);
    /* For 32-bit code; 64-bit code does not look at them. */
    __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"((uint32_t)ds));
}

static void save(struct test_case *c, const ucontext_t *uc)
{
    const greg_t *g = uc->uc_mcontext.gregs;
    struct test_state *s = &c->after;
    const uint8_t *x = (const uint8_t *)uc->uc_mcontext.fpregs;
    for (unsigned n = 0; n < 16; n++) {
        s->gpr[n] = (uint64_t)g[order[n]];
    }
    s->vector = (int32_t)g[REG_TRAPNO];
    s->rip = (uint64_t)g[REG_RIP];
    s->rflags = (uint64_t)g[REG_EFL];
    memcpy(s->xsave, x, XSTATE_BV);
    memset(s->xsave + SW_RESERVED, 0, SW_RESERVED_END - SW_RESERVED);
    memset(s->xsave + XSTATE_BV, 0, 64);
    memcpy(s->xsave + XSTATE_BV, x + XSTATE_BV, 8);
    memcpy(s->xsave + YMM, x + YMM, 256);
    memcpy(s->memory, (void *)(uintptr_t)TEST_MIDDLE, TEST_MIDDLE_BYTES);
    memcpy(s->memory + TEST_MIDDLE_BYTES, (void *)(uintptr_t)TEST_TAIL, TEST_TAIL_BYTES);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    if (started) {
        save(&self->cases[current++], context);
    }
    if (!started || current == total) {
        uint32_t count;
        if (started && write(self->from_child, &total, sizeof(total)) != sizeof(total)) {
            _exit(1);
        }
        if (read(self->to_child, &count, sizeof(count)) != sizeof(count)) {
            _exit(0);
        }
        total = count;
        current = 0;
        started = true;
    }
    load(&self->cases[current], context);
}

static bool make_segment(unsigned selector, unsigned contents)
{
    struct user_desc d = {.entry_number = selector >> 3, .base_addr = TEST_CODE, .limit = 0xffff,
                          .contents = contents & 3, .useable = 1};
    return syscall(SYS_modify_ldt, 1, &d, sizeof(d)) == 0;
}

bool native_has_16_bit(void)
{
    return make_segment(TEST_CS16, 2);
}

static void child(void)
{
    static uint8_t stack[65536];
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    static const int signals[] = {SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGUSR1};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    void *code = mmap((void *)(uintptr_t)TEST_CODE, TEST_DATA_END - TEST_CODE,
                      PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1, 0);
    if (code == MAP_FAILED) {
        _exit(2);
    }
    make_segment(TEST_CS16, 2);
    make_segment(TEST_DS16, 0);
    sigaltstack(&alt, NULL);
    for (unsigned n = 0; n < sizeof(signals) / sizeof(signals[0]); n++) {
        sigaction(signals[n], &action, NULL);
    }
    raise(SIGUSR1);
    _exit(3);
}

bool native_start(struct native *n)
{
    int down[2], up[2];
    n->cases = mmap(NULL, sizeof(struct test_case) * TEST_BATCH, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (n->cases == MAP_FAILED || pipe(down) || pipe(up)) {
        return false;
    }
    n->pid = fork();
    if (n->pid == 0) {
        close(down[1]);
        close(up[0]);
        n->to_child = down[0];
        n->from_child = up[1];
        self = n;
        child();
    }
    close(down[0]);
    close(up[1]);
    n->to_child = down[1];
    n->from_child = up[0];
    return n->pid > 0;
}

bool native_run(struct native *n, unsigned count)
{
    uint32_t v = count;
    return write(n->to_child, &v, sizeof(v)) == sizeof(v) &&
           read(n->from_child, &v, sizeof(v)) == sizeof(v);
}

void native_stop(struct native *n)
{
    close(n->to_child);
    close(n->from_child);
    waitpid(n->pid, NULL, 0);
}
