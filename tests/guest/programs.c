/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * programs: what user programs can see of the processor, each with a result that is known.
 * Usage: programs [native].  Ends with "programs: ok".
 *
 * Meant for programs that run in a process of their own (-accel bt,direct=always), where the
 * host's processor does what it may and the interpreter the rest.  With "native" what only a
 * guest sees is left out.
 */
#include <asm/prctl.h>
#include <cpuid.h>
#include <immintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { PAGE = 4096 };

static void expect(int ok, const char *what)
{
    if (!ok) {
        printf("programs: wrong: %s\n", what);
        fflush(stdout);
        _exit(1);
    }
}

/* ---- faults ---- */

static sigjmp_buf back;
static volatile int got, code;
static volatile uintptr_t address, at, steps;

static void on_signal(int number, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    got = number;
    code = info->si_code;
    address = (uintptr_t)info->si_addr;
    at = (uintptr_t)g[REG_RIP];
    if (number == SIGTRAP) {
        steps++;
        return;
    }
    siglongjmp(back, 1);
}

static void catch_all(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    for (unsigned k = 0; k < sizeof(signals) / sizeof(*signals); k++) {
        sigaction(signals[k], &sa, NULL);
    }
}

static void touch(uintptr_t where, int write, int want_code, const char *what)
{
    got = 0;
    if (sigsetjmp(back, 1) == 0) {
        if (write) {
            *(volatile char *)where = 1;
        } else {
            (void)*(volatile char *)where;
        }
    }
    expect(want_code ? got == SIGSEGV && code == want_code : !got, what);
    expect(!want_code || code == SI_KERNEL || address == where, "the address of a fault");
}

static void faults(void)
{
    touch(0x123, 0, SEGV_MAPERR, "NULL");
    touch(0xffff888000001000, 0, SEGV_MAPERR, "the kernel's memory");
    touch(0x8000000000001000, 1, SI_KERNEL, "an address that is not canonical");
    touch((uintptr_t)touch, 1, SEGV_ACCERR, "a write to code");
    got = 0;
    if (sigsetjmp(back, 1) == 0) {
        __asm__ volatile("ud2");
    }
    expect(got == SIGILL, "ud2");
    got = 0;
    if (sigsetjmp(back, 1) == 0) {
        __asm__ volatile("divl %0" : : "r"(0), "a"(1), "d"(0));
    }
    expect(got == SIGFPE && code == FPE_INTDIV, "a division by 0");
    got = 0;
    if (sigsetjmp(back, 1) == 0) {
        __asm__ volatile("hlt");
    }
    expect(got == SIGSEGV && code == SI_KERNEL, "hlt");
}

static void traps(void)
{
    uintptr_t behind;
    steps = 0;
    __asm__ volatile("int3\n1: lea 1b(%%rip), %0" : "=r"(behind));
    expect(steps == 1 && at == behind, "int3");
    steps = 0;
    __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; nop; nop\n"
                     "pushfq; andl $~0x100, (%%rsp); popfq"
                     :
                     :
                     : "memory", "cc");
    expect(steps >= 5 && steps <= 7, "single steps");
}

/* ---- memory ---- */

static void mappings(void)
{
    char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t a = (uintptr_t)p;
    for (int k = 0; k < 50; k++) {
        memset(p, k, 4 * PAGE);
        mprotect(p + PAGE, PAGE, PROT_READ);
        touch(a + PAGE, 1, SEGV_ACCERR, "a write to what is to be read");
        expect(p[PAGE + 5] == k, "what may not be written to");
        mprotect(p + PAGE, PAGE, PROT_NONE);
        touch(a + PAGE, 0, SEGV_ACCERR, "nothing may be done here");
        mprotect(p + PAGE, PAGE, PROT_READ | PROT_WRITE);
        touch(a + PAGE, 1, 0, "it may again");
        munmap(p + 2 * PAGE, PAGE);
        touch(a + 2 * PAGE, 0, SEGV_MAPERR, "what was unmapped");
        mmap(p + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
             -1, 0);
        expect(p[2 * PAGE] == 0, "a new page is empty");
        p[3 * PAGE] = (char)(k + 1);
        char *q = mremap(p + 3 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + 2 * PAGE);
        expect(q == p + 2 * PAGE && *q == k + 1, "a page that moved");
        mmap(p + 3 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
             -1, 0);
    }
}

/* A huge page is one entry, which goes by one INVLPG: all of it goes. */
static void huge_pages(void)
{
    enum { HUGE = 512 * PAGE };
    int how = MAP_PRIVATE | MAP_ANONYMOUS;
    uintptr_t m = (uintptr_t)mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, how, -1, 0);
    uintptr_t p = (m + HUGE - 1) / HUGE * HUGE;
    unsigned sum = 0;
    madvise((void *)p, HUGE, MADV_HUGEPAGE);
    for (unsigned k = 0; k < 512; k++) {
        touch(p + k * PAGE, 1, 0, "a write to a huge page");
    }
    mprotect((void *)p, HUGE, PROT_READ);
    touch(p + 300 * PAGE, 0, 0, "a read of a huge page that is read-only");
    touch(p + 300 * PAGE, 1, SEGV_ACCERR, "a write to it");
    munmap((void *)p, HUGE);
    touch(p + 511 * PAGE, 0, SEGV_MAPERR, "a read of a huge page that is gone");
    mmap((void *)p, HUGE, PROT_READ | PROT_WRITE, how | MAP_FIXED, -1, 0);
    madvise((void *)p, HUGE, MADV_HUGEPAGE);
    for (unsigned k = 0; k < 512; k++) {
        sum += *(volatile unsigned char *)(p + k * PAGE);
    }
    for (unsigned k = 0; k < 512; k += 2) { /* the page of zeroes, in pieces */
        *(volatile unsigned char *)(p + k * PAGE) = (unsigned char)(1 + k % 7);
        sum += *(volatile unsigned char *)(p + k * PAGE + PAGE);
    }
    expect(sum == 0, "zeroes of a huge page");
    for (unsigned k = 0; k < 512; k++) {
        expect(*(volatile unsigned char *)(p + k * PAGE) == (k % 2 ? 0 : 1 + k % 7), "pages of it");
    }
    munmap((void *)m, (p - m) + HUGE);
}

static void copies(void)
{
    static volatile int own[2 * PAGE];
    volatile int *both =
        mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int k = 1; k <= 40; k++) {
        own[PAGE] = k;
        pid_t pid = fork();
        if (pid == 0) {
            int ok = own[PAGE] == k;
            own[PAGE] = -1;
            *both = k;
            _exit(ok && own[PAGE] == -1 ? 7 : 8);
        }
        own[PAGE + 1] = k;
        int status;
        waitpid(pid, &status, 0);
        expect(WIFEXITED(status) && WEXITSTATUS(status) == 7, "a child's memory");
        expect(own[PAGE] == k && own[PAGE + 1] == k && *both == k, "a parent's memory");
    }
}

static void code_that_changes(void)
{
    uint8_t *p =
        mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static const uint8_t text[] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov $0, %eax; ret */
    memcpy(p, text, sizeof(text));
    for (int k = 0; k < 2000; k++) {
        memcpy(p + 1, &k, sizeof(k));
        expect(((int (*)(void))p)() == k, "code that changes");
    }
}

/*
 * What a process of a program's own has at this address, for the vCPU: text that makes system calls
 * and loads registers, and what it reads.  A guest has nothing there; that its programs may find
 * themselves where they last came from is all that jumping there does.
 */
static void others_text(void)
{
    static volatile uintptr_t next;
    static volatile char *const list = (volatile char *)0x600000001000;
    next = 0x600000000200;
    sigsetjmp(back, 1);
    getppid();
    while (next < 0x600000000290) {
        next++;
        ((void (*)(long, long, long, long))(next - 1))(0, 4096, 7, 0x22);
    }
    for (int k = 0; k < 3; k++) {
        got = 0;
        if (sigsetjmp(back, 1) == 0) {
            list[144 + k] = 0;
        }
        expect(got == SIGSEGV, "a write to the vCPU's page");
    }
    expect(getppid() > 0, "a system call");
}

/* ---- the processor ---- */

static void identity(void)
{
    unsigned a, b, c, d;
    uint32_t low, high;
    __cpuid_count(7, 0, a, b, c, d);
    expect(!(b & bit_AVX512F), "CPUID shows what the guest does not have");
    __cpuid(1, a, b, c, d);
    expect(c >> 31, "CPUID does not show a hypervisor");
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    expect(low == 7 && high == 0, "XCR0");
}

/* More pages with such instructions than a processor has breakpoints for, one with too many, and
 * plain code beside them. */
static void pages_that_tell(void)
{
    static const uint8_t by_cpuid[] = {0x53, 0xb8, 7,    0,    0,    0,
                                       0x31, 0xc9, /* push; eax 7, ecx 0 */
                                       0x0f, 0xa2, 0x89, 0xd8, 0x5b, 0xc3};
    static const uint8_t by_xgetbv[] = {0x31, 0xc9, 0x0f, 0x01, 0xd0, 0xc3};
    static const uint8_t constant[] = {0xb8, 0x0f, 0xa2, 0x0f, 0xa2, 0xc3};
    static const uint8_t plain[] = {0x8d, 0x47, 0x01, 0xc3}; /* lea 1(%rdi), %eax */
    enum { PAGES = 5, EACH = 256 };
    uint8_t *p =
        mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int k = 0; k < PAGES; k++) {
        uint8_t *at = p + k * PAGE;
        memcpy(at, plain, sizeof(plain));
        memcpy(at + EACH, by_xgetbv, sizeof(by_xgetbv));
        memcpy(at + 2 * EACH, by_cpuid, sizeof(by_cpuid));
        for (int n = 0; k == 2 && n < 3; n++) {
            memcpy(at + (3 + n) * EACH, constant, sizeof(constant));
        }
    }
    mprotect(p, PAGES * PAGE, PROT_READ | PROT_EXEC);
    for (int k = 0; k < 400; k++) {
        uint8_t *at = p + k % PAGES * PAGE;
        for (int n = 0; n < 50; n++) {
            expect(((int (*)(int))at)(n) == n + 1, "plain code beside what tells");
        }
        expect(((int (*)(void))(at + EACH))() == 7, "XCR0 again");
        expect(!(((int (*)(void))(at + 2 * EACH))() & bit_AVX512F), "CPUID again");
        expect(k % PAGES != 2 || ((unsigned (*)(void))(at + 3 * EACH))() == 0xa20fa20f,
               "a constant that looks like CPUID");
        if (k % 40 == 39) { /* another page at the same address */
            mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            memcpy(at, plain, sizeof(plain));
            memcpy(at + 2 * EACH, by_xgetbv, sizeof(by_xgetbv));
            memcpy(at + EACH, by_xgetbv, sizeof(by_xgetbv));
            memcpy(at + 3 * EACH, constant, sizeof(constant));
            mprotect(at, PAGE, PROT_READ | PROT_EXEC);
        }
    }
    munmap(p, PAGES * PAGE);
}

static void clocks(void)
{
    uint64_t was = __rdtsc();
    unsigned aux;
    for (int k = 0; k < 200; k++) {
        uint64_t now = k & 1 ? __rdtsc() : __rdtscp(&aux);
        expect(now > was, "the time stamp counter");
        was = now;
    }
    time_t (*oldest)(time_t *) = (time_t(*)(time_t *))(uintptr_t)0xffffffffff600400;
    time_t before = time(NULL), then = oldest(NULL), after = time(NULL);
    expect(then >= before - 1 && then <= after + 1, "time by vsyscall");
}

static void bases(void)
{
    static uint64_t word = 0x1234567890abcdef;
    uint64_t seen, was;
    syscall(SYS_arch_prctl, ARCH_SET_GS, &word);
    __asm__ volatile("movq %%gs:0, %0" : "=r"(seen));
    expect(seen == word, "the base of GS");
    __asm__ volatile("rdgsbase %0" : "=r"(was));
    expect(was == (uint64_t)(uintptr_t)&word, "rdgsbase");
    __asm__ volatile("wrgsbase %0" : : "r"(was - 8));
    getppid();
    __asm__ volatile("movq %%gs:8, %0" : "=r"(seen));
    expect(seen == word, "wrgsbase");
}

/* What a system call, a fault and a wait leave alone. */
static void vectors(int how)
{
    static const double in[4] = {1.5, -2.25, 3e300, 4e-300};
    double out[4];
    uint32_t mxcsr = 0x1f80 | 3 << 13, after;
    uint16_t control = 0x27f, word;
    long double x = 0;
    struct timespec nap = {.tv_nsec = 3000000};
    __asm__ volatile("ldmxcsr %0; fldcw %1; fldpi; vmovupd %2, %%ymm7"
                     :
                     : "m"(mxcsr), "m"(control), "m"(in)
                     : "xmm7", "st");
    register long number __asm__("rax") = how == 2 ? SYS_nanosleep : SYS_getppid;
    if (how == 1) {
        __asm__ volatile("rdtsc" : : : "rax", "rdx");
    } else {
        __asm__ volatile("syscall" : "+r"(number) : "D"(&nap), "S"(0) : "rcx", "r11", "memory");
    }
    __asm__ volatile("vmovupd %%ymm7, %0; fstpt %1; stmxcsr %2; fnstcw %3; fninit"
                     : "=m"(out), "=m"(x), "=m"(after), "=m"(word));
    expect(!memcmp(in, out, sizeof(in)), "a vector register");
    expect(x > 3.14159L && x < 3.1416L, "an x87 register");
    expect(after == mxcsr && word == control, "control words");
    mxcsr = 0x1f80;
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
}

int main(int argc, char **argv)
{
    int native = argc > 1 && !strcmp(argv[1], "native");
    catch_all();
    for (int k = 0; k < 3; k++) {
        faults();
        traps();
        mappings();
        huge_pages();
        copies();
        code_that_changes();
        clocks();
        bases();
        vectors(k);
        if (!native) {
            identity();
            pages_that_tell();
        }
    }
    if (!native) {
        others_text(); /* the last: it may have to do without the process from there on */
    }
    printf("programs: ok\n");
    return 0;
}
