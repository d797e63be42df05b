/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * stress: what can go wrong between processors, each with a result that is known.
 * Usage: stress SECONDS.  Ends with "stress: ok" and how often each ran.
 *
 * All run at once, so that processes, page tables, signals and translated code of all kinds
 * meet each other on every processor.
 */
#include <cpuid.h>
#include <errno.h>
#include <immintrin.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static time_t end;

/* Once at least, however late it comes to run. */
static int going(void)
{
    static __thread int begun;
    return !begun++ || time(NULL) < end;
}

static void wrong(const char *what)
{
    printf("stress: wrong: %s\n", what);
    fflush(stdout);
    _exit(1);
}

/* fork, a child that works on its copy of memory, exec now and then. */
static unsigned long forks(void)
{
    static volatile unsigned cells[4096];
    unsigned long n = 0;
    for (; going(); n++) {
        unsigned key = (unsigned)n * 2654435761u;
        for (unsigned i = 0; i < 4096; i += 64) {
            cells[i] = key + i;
        }
        pid_t pid = fork();
        if (pid == 0) {
            if (n % 4 == 0) {
                execl("/proc/self/exe", "stress", "child", NULL);
                _exit(99);
            }
            for (unsigned i = 0; i < 4096; i += 64) {
                if (cells[i] != key + i) {
                    _exit(98);
                }
                cells[i] = 0;
            }
            _exit(42);
        }
        int status;
        if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 42) {
            wrong("a child's exit");
        }
        for (unsigned i = 0; i < 4096; i += 64) {
            if (cells[i] != key + i) {
                wrong("a parent's memory");
            }
        }
    }
    return n;
}

static sigjmp_buf back;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info, (void)context;
    siglongjmp(back, 1);
}

/* Maps, protects, faults, unmaps; threads beside it keep the same page tables busy. */
static unsigned long maps(void)
{
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    volatile unsigned long n = 0; /* kept over siglongjmp() */
    sigaction(SIGSEGV, &sa, NULL);
    for (; going(); n++) {
        volatile uint64_t *p = mmap(NULL, 64 << 12, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (unsigned i = 0; i < 64; i++) {
            if (p[i * 512]) {
                wrong("a fresh page is not empty");
            }
            p[i * 512 + i] = n + i;
        }
        mprotect((void *)p, 32 << 12, PROT_READ);
        volatile int caught = 0;
        if (sigsetjmp(back, 1) == 0) {
            p[5 * 512 + 5] = 1;
            wrong("a write to a read-only page");
        } else {
            caught = 1;
        }
        mprotect((void *)p, 32 << 12, PROT_READ | PROT_WRITE);
        for (unsigned i = 0; i < 64; i++) {
            if (p[i * 512 + i] != n + i || !caught) {
                wrong("a mapped page");
            }
        }
        munmap((void *)p, 64 << 12);
        if (sigsetjmp(back, 1) == 0) {
            (void)p[0];
            wrong("a read of what was unmapped");
        }
    }
    return n;
}

/* Two threads hand a number to and fro, four count together. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static unsigned long ball, locked_sum;
static atomic_ulong atomic_sum;
static atomic_int stop_all;

static void *player(void *arg)
{
    unsigned long side = (unsigned long)arg;
    pthread_mutex_lock(&lock);
    while (!stop_all) {
        if (ball % 2 == side) {
            ball++;
            pthread_cond_signal(&turn);
        } else {
            struct timespec t;
            clock_gettime(CLOCK_REALTIME, &t);
            t.tv_sec++;
            pthread_cond_timedwait(&turn, &lock, &t);
        }
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void *counter(void *arg)
{
    unsigned long n = 0;
    for (; !stop_all; n++) {
        atomic_fetch_add(&atomic_sum, 1);
        if (n % 64 == 0) {
            pthread_mutex_lock(&lock);
            locked_sum++;
            pthread_mutex_unlock(&lock);
        }
    }
    *(unsigned long *)arg = n;
    return NULL;
}

static unsigned long threads(void)
{
    pthread_t t[6];
    unsigned long n[4], sum = 0, locked = 0;
    for (unsigned long i = 0; i < 6; i++) {
        pthread_create(&t[i], NULL, i < 4 ? counter : player, i < 4 ? (void *)&n[i] : (void *)(i - 4));
    }
    while (going()) {
        usleep(50000);
    }
    stop_all = 1;
    for (unsigned i = 0; i < 6; i++) {
        pthread_join(t[i], NULL);
    }
    for (unsigned i = 0; i < 4; i++) {
        sum += n[i];
        locked += (n[i] + 63) / 64;
    }
    if (sum != atomic_sum || locked != locked_sum) {
        wrong("counters");
    }
    return ball;
}

/* Code that one thread writes and three execute, as a compiler with threads would have it. */
enum { ROUTINES = 16 };
static uint8_t *code;
static atomic_uint version[ROUTINES];

static void *executor(void *arg)
{
    unsigned long n = 0;
    while (!stop_all) {
        unsigned which = (unsigned)n++ % ROUTINES, a, b, c, d;
        unsigned before = atomic_load(&version[which]);
        __cpuid(0, a, b, c, d); /* serializes, as cross-modifying code must */
        unsigned got = ((unsigned (*)(void))(void *)(code + which * 256))();
        unsigned after = atomic_load(&version[which]);
        if (before == after && !(before & 1) && got != before) {
            wrong("code of another processor");
        }
    }
    *(unsigned long *)arg = n;
    return NULL;
}

static unsigned long jit(void)
{
    pthread_t t[3];
    unsigned long n = 0, ran[3];
    code = mmap(NULL, ROUTINES * 256, PROT_READ | PROT_WRITE | PROT_EXEC,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < ROUTINES; i++) {
        memcpy(code + i * 256, "\xb8\0\0\0\0\xc3", 6); /* mov $0, %eax; ret */
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_create(&t[i], NULL, executor, &ran[i]);
    }
    for (; going(); n++) {
        unsigned which = (unsigned)(n * 7) % ROUTINES, next = atomic_load(&version[which]) + 2;
        atomic_store(&version[which], next - 1); /* odd: being changed */
        atomic_store((atomic_uint *)(void *)(code + which * 256 + 1), next);
        atomic_store(&version[which], next);
        if (((unsigned (*)(void))(void *)(code + which * 256))() != next) {
            wrong("own code");
        }
        for (volatile unsigned k = 0; k < n % 512; k++) {
        }
    }
    stop_all = 1;
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
    }
    return n + ran[0] + ran[1] + ran[2];
}

/* Floating point and vectors under a rain of signals. */
static volatile unsigned long alarms;

static void on_alarm(int number)
{
    volatile double x = 1.5;
    (void)number;
    for (int i = 0; i < 8; i++) {
        x = x * 1.25 + i;
    }
    alarms++;
}

static unsigned long vectors(void)
{
    struct itimerval t = {{0, 900}, {0, 900}};
    struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    unsigned long n = 0;
    double want = 0;
    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &t, NULL);
    for (; going(); n++) {
        double sum = 0, x = 1;
        long double wide = 1;
        uint64_t v[8], seed = 88172645463325252u;
        for (int i = 0; i < 20000; i++) {
            x = x * 1.0000001 + 0.5;
            sum += x / (i + 1);
            wide = wide * 1.0000003L + 0.25L;
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            v[i & 7] = seed + (uint64_t)i;
        }
        sum += (double)wide + (double)(v[3] & 0xffff);
        if (n == 0) {
            want = sum;
        } else if (sum != want) {
            wrong("a sum that signals interrupted");
        }
    }
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    return n + alarms;
}

/* Message passing and store buffers: what the architecture forbids must not be seen. */
static atomic_ulong data_cell[8], flag_cell[8];

static void *receiver(void *arg)
{
    unsigned long last = 0;
    (void)arg;
    while (!stop_all) {
        unsigned long f = atomic_load_explicit(&flag_cell[0], memory_order_relaxed);
        unsigned long d = atomic_load_explicit(&data_cell[0], memory_order_relaxed);
        if (d < f || f < last) {
            wrong("memory order");
        }
        last = f;
    }
    return NULL;
}

static unsigned long order(void)
{
    pthread_t t[2];
    unsigned long n = 0;
    pthread_create(&t[0], NULL, receiver, NULL);
    pthread_create(&t[1], NULL, receiver, NULL);
    while (going()) {
        for (unsigned i = 0; i < 100000; i++) {
            n++;
            atomic_store_explicit(&data_cell[0], n, memory_order_relaxed);
            atomic_signal_fence(memory_order_seq_cst);
            atomic_store_explicit(&flag_cell[0], n, memory_order_relaxed);
        }
    }
    stop_all = 1;
    pthread_join(t[0], NULL);
    pthread_join(t[1], NULL);
    return n;
}

/*
 * What only 32-bit programs do: their way into the kernel, and their code.  In a page of its own:
 * one with CPUID in it is always translated.
 */
static __attribute__((noinline, aligned(4096), section("own_page"))) unsigned long old_ways(void)
{
    static char stack[4096];
    static volatile unsigned cells[256];
    unsigned long n = 0;
    long pid = getpid();
    for (; going(); n++) {
        enum { GETPID = 20, TURNS = 2000 };
        long got = GETPID, far = 1, turns = TURNS;
        __asm__ volatile("int $0x80" : "+a"(got) : : "r8", "r9", "r10", "r11", "memory");
        __asm__ volatile("mov %%rsp, %%r12\n mov %[low], %%rsp\n"
                         "ljmp *1f(%%rip)\n"
                         "1: .long 2f\n .word 0x23\n"
                         ".code32\n"
                         "2: inc %%eax\n" /* 64-bit code takes that for a prefix */
                         " dec %%ecx\n jnz 2b\n"
                         " mov $20, %%eax\n int $0x80\n"
                         " ljmp $0x33, $3f\n"
                         ".code64\n"
                         "3: mov %%r12, %%rsp\n"
                         : "+a"(far), "+c"(turns)
                         : [low] "r"((uint64_t)(uintptr_t)(stack + sizeof(stack)))
                         : "r8", "r9", "r10", "r11", "r12", "memory", "cc");
        for (unsigned i = 0; i < 100000; i++) {
            cells[i % 256] += i; /* so that it is worth a process of its own */
        }
        if (got != pid || far != pid || turns) {
            wrong("32-bit calls and code");
        }
    }
    __asm__(".p2align 12"); /* and what the linker puts behind is in the next */
    return n;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        unsigned long (*run)(void);
        unsigned copies;
    } jobs[] = {{"forks", forks, 2}, {"maps", maps, 2}, {"threads", threads, 1},
                {"jit", jit, 2}, {"vectors", vectors, 2}, {"order", order, 1},
                {"old ways", old_ways, 1}};
    unsigned running = 0;
    if (argc > 1 && strcmp(argv[1], "child") == 0) {
        return 42;
    }
    end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 10);
    for (unsigned i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
        for (unsigned k = 0; k < jobs[i].copies; k++, running++) {
            if (fork() == 0) {
                unsigned long n = jobs[i].run();
                printf("stress: %s %lu\n", jobs[i].name, n);
                fflush(stdout);
                _exit(n == 0);
            }
        }
    }
    int status, bad = 0;
    while (running--) {
        bad |= wait(&status) < 0 || status != 0;
    }
    puts(bad ? "stress: failed" : "stress: ok");
    return bad;
}
