/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tracee: a process with nothing in it, whose address space a guest program gets.
 *
 * It is a program of one page that we write ourselves, traced by the vCPU's thread.  It does what
 * the vCPU wants of it, to map and to unmap, from a list that it can only read, then loads the
 * guest's registers and goes on as the guest, which never makes a system call of the host:
 *
 * The kernel looks at a byte before each call, the selector (PR_SET_SYSCALL_USER_DISPATCH), and
 * allows the call or stops the process.  There are two, in the list.  The one in use allows while
 * commands wait; the last of them puts the other one in use, which forbids.  From there on nothing
 * that runs in the process can change it: the page is read-only, and prctl() is a call.
 *
 * Should a system call come through nevertheless (the vsyscall page), a seccomp filter refuses it.
 *
 * Spec: Linux manual pages ptrace(2), prctl(2), seccomp(2), execveat(2); Linux kernel
 * documentation, "Syscall User Dispatch"; System V ABI, "Object Files".
 */
#include <sys/user.h>
#undef PAGE_SIZE /* ram.h says the same */
#undef PAGE_MASK

#include "guest/cpu/translate/direct.h"

#include "base/util.h"
#include "guest/cpu/translate/bt.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

struct command {
    uint64_t call, arg[6];
};

/* What it reads: where it goes on as the guest, and what it does before. */
struct list {
    uint64_t flags, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, rsp;
    uint64_t rip;
    uint8_t selector[2], timed;
    uint64_t n;
    struct command at[];
};
G_STATIC_ASSERT(offsetof(struct list, rip) == 136 && offsetof(struct list, timed) == 146 &&
                offsetof(struct list, n) == 152 &&
                offsetof(struct list, at) == 160); /* tracee_list knows */

enum {
    LIST_BYTES = 64 << 10,
    SHARED_BYTES = LIST_BYTES + PAGE_SIZE,
    COMMANDS = (LIST_BYTES - sizeof(struct list)) / sizeof(struct command) - 1,
    ALLOWS = 0,
    FORBIDS = 1,                                /* a selector */
    FIRST_FD = BT_DIRECT_FD - 1 - TRACEE_FILES, /* where the tracee has its descriptors */
    TEXT = 512,
    FILTER = 1024, /* offsets in its page */
    XSTATE_MOST = 16 << 10,
    KICK = SIGUSR1,
    BY_FILTER = 1, /* si_code of SIGSYS; Linux names it SYS_SECCOMP, glibc does not */
};
G_STATIC_ASSERT(TRACEE_BYTES == LIST_BYTES + 2 * PAGE_SIZE);
#define LIST_AT (TRACEE_HOME + PAGE_SIZE)
#define NOTE_AT (LIST_AT + LIST_BYTES)
G_STATIC_ASSERT(NOTE_AT == 0x600000011000);

struct tracee {
    pid_t pid;
    struct list *list; /* writable here */
    uint64_t *note;    /* when the guest began, by the TSC; writable there, so anything */
    unsigned side;     /* the selector in use */
    uint8_t *xstate;   /* of the process, when last read */
    size_t xstate_bytes;
    uint64_t dr7;
    bool reads_tsc;
    struct user_regs_struct regs;
};

/*
 * tracee_text: one system call.  tracee_list: those of the list, which lies in the page behind this
 * one; tracee_guest: notes the time and loads the guest's registers from there.  512 is TEXT.
 */
__asm__(".pushsection .rodata\n"
        "tracee_text: syscall\n int3\n"
        "tracee_list:\n"
        " movabs $0x6000000010a0, %rbx\n"
        " mov -8(%rbx), %rbp\n"
        "1: mov 0(%rbx), %rax\n mov 8(%rbx), %rdi\n mov 16(%rbx), %rsi\n mov 24(%rbx), %rdx\n"
        " mov 32(%rbx), %r10\n mov 40(%rbx), %r8\n mov 48(%rbx), %r9\n"
        " syscall\n"
        " cmp $-4096, %rax\n ja tracee_failed\n"
        " add $56, %rbx\n dec %ebp\n jnz 1b\n"
        "tracee_guest:\n"
        " movabs $0x600000001000, %rsp\n"
        " cmpb $0, 146(%rsp)\n je 1f\n"
        " rdtsc\n shl $32, %rdx\n or %rdx, %rax\n movabs %rax, 0x600000011000\n"
        "1: popfq\n"
        " pop %rax\n pop %rcx\n pop %rdx\n pop %rbx\n pop %rbp\n pop %rsi\n pop %rdi\n"
        " pop %r8\n pop %r9\n pop %r10\n pop %r11\n pop %r12\n pop %r13\n pop %r14\n pop %r15\n"
        " pop %rsp\n"
        " .byte 0xff, 0x25\n .long 4096 - 512 + 136 - (2f - tracee_text)\n" /* jmp *rip(%rip) */
        "2:\n"
        "tracee_failed: int3\n"
        "tracee_pause: int3\n"
        "tracee_text_end:\n"
        ".popsection\n");
extern const uint8_t tracee_text[], tracee_list[], tracee_guest[], tracee_failed[], tracee_pause[],
    tracee_text_end[];

static const struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 7),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 6, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 5, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_TSC, 2, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_SYSCALL_USER_DISPATCH, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

/* ---- the program ---- */

static void write_program(uint8_t page[PAGE_SIZE])
{
    Elf64_Ehdr head = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = TRACEE_HOME + TEXT,
        .e_phoff = sizeof(head),
        .e_ehsize = sizeof(head),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 1};
    Elf64_Phdr part = {.p_type = PT_LOAD,
                       .p_flags = PF_R | PF_X,
                       .p_vaddr = TRACEE_HOME,
                       .p_filesz = PAGE_SIZE,
                       .p_memsz = PAGE_SIZE,
                       .p_align = PAGE_SIZE};
    struct sock_fprog program = {.len = G_N_ELEMENTS(filter)};
    uint64_t at = TRACEE_HOME + FILTER + sizeof(program);
    memset(page, 0, PAGE_SIZE);
    memcpy(page, &head, sizeof(head));
    memcpy(page + sizeof(head), &part, sizeof(part));
    memcpy(page + TEXT, tracee_text, (size_t)(tracee_text_end - tracee_text));
    memcpy(&program.filter, &at, sizeof(at));
    memcpy(page + FILTER, &program, sizeof(program));
    memcpy(page + FILTER + sizeof(program), filter, sizeof(filter));
}

const char bt_direct_path[] = "";

static bool make_program(void)
{
    uint8_t page[PAGE_SIZE];
    autofd int fd = memfd_create("lodge-guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    write_program(page);
    if (fd < 0 || write(fd, page, sizeof(page)) != (ssize_t)sizeof(page) ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        return false;
    }
    int at = fcntl(fd, F_DUPFD_CLOEXEC, BT_DIRECT_FD);
    if (at >= 0 && at != BT_DIRECT_FD) {
        close(at);
    }
    return at == BT_DIRECT_FD;
}

void bt_direct_make_room(void)
{
    int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, BT_DIRECT_FD);
    if (fd >= 0) {
        close(fd);
    }
}

bool bt_direct_prepare(void)
{
    static gsize made;
    if (g_once_init_enter(&made)) {
        g_once_init_leave(&made, make_program() ? 1 : 2);
    }
    return made == 1;
}

/* In the child, which still shares our memory: @fds become FIRST_FD and so on. */
static G_NORETURN void become(const int *fds, unsigned n)
{
    static char *const none[] = {NULL};
    sigset_t all;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&all);
    bool ok =
        ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 && sigprocmask(SIG_SETMASK, &all, NULL) == 0;
    for (unsigned k = 0; ok && k < n; k++) {
        ok = dup2(fds[k], FIRST_FD + (int)k) >= 0;
    }
    ok = ok && syscall(SYS_close_range, 0, FIRST_FD - 1, 0) == 0 &&
         syscall(SYS_close_range, BT_DIRECT_FD + 1, ~0u, 0) == 0;
    for (int fd = FIRST_FD + (int)n; fd < BT_DIRECT_FD; fd++) {
        close(fd);
    }
    if (ok) {
        syscall(SYS_execveat, BT_DIRECT_FD, bt_direct_path, none, none, AT_EMPTY_PATH);
    }
    _exit(1);
}

/* The process, stopped before its first instruction; 0: it cannot be. */
static pid_t start(const int *fds, unsigned n)
{
    int status = 0;
    for (unsigned k = 0; k < n; k++) {
        if (fds[k] >= FIRST_FD) {
            return 0;
        }
    }
    pid_t pid = vfork();
    if (pid == 0) {
        become(fds, n);
    }
    if (pid < 0 || waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status)) {
        return 0;
    }
    ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)PTRACE_O_EXITKILL);
    return pid;
}

/* ---- what it does for us ---- */

/* Lets it go on until it stops; the signal, or 0 if it is no more. */
static int go(struct tracee *t)
{
    int status;
    pid_t got;
    if (ptrace(PTRACE_CONT, t->pid, NULL, NULL) < 0) {
        return 0;
    }
    do {
        got = waitpid(t->pid, &status, __WALL);
    } while (got < 0 && errno == EINTR);
    if (got != t->pid || !WIFSTOPPED(status) ||
        ptrace(PTRACE_GETREGS, t->pid, NULL, &t->regs) < 0) {
        return 0;
    }
    return WSTOPSIG(status);
}

static uint64_t address_of(const uint8_t *text)
{
    return TRACEE_HOME + TEXT + (uint64_t)(text - tracee_text);
}

/* From @entry of its text with t->regs, to where that stops; kicks come in between. */
static bool run_text(struct tracee *t, const uint8_t *entry)
{
    int sig;
    t->regs.rip = address_of(entry);
    t->regs.orig_rax = UINT64_MAX;
    if (ptrace(PTRACE_SETREGS, t->pid, NULL, &t->regs) < 0) {
        return false;
    }
    do {
        sig = go(t);
    } while (sig == KICK);
    return sig == SIGTRAP;
}

static bool call(struct tracee *t, long number, const uint64_t arg[6])
{
    struct user_regs_struct *r = &t->regs;
    r->rax = (uint64_t)number;
    r->rdi = arg[0];
    r->rsi = arg[1];
    r->rdx = arg[2];
    r->r10 = arg[3];
    r->r8 = arg[4];
    r->r9 = arg[5];
    return run_text(t, tracee_text) && r->rax < -UINT64_C(4096);
}

static struct command use_selector(unsigned side)
{
    return (struct command){SYS_prctl,
                            {PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0,
                             LIST_AT + offsetof(struct list, selector) + side}};
}

static bool settle(struct tracee *t)
{
    const uint64_t below[6] = {0, TRACEE_HOME};
    const uint64_t above[6] = {LIST_AT, TRACEE_END - LIST_AT};
    const uint64_t list[6] = {LIST_AT, LIST_BYTES, PROT_READ, MAP_SHARED | MAP_FIXED, FIRST_FD, 0};
    const uint64_t note[6] = {NOTE_AT,  PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                              FIRST_FD, LIST_BYTES};
    const uint64_t no_more[6] = {PR_SET_NO_NEW_PRIVS, 1};
    const uint64_t filtered[6] = {PR_SET_SECCOMP, SECCOMP_MODE_FILTER, TRACEE_HOME + FILTER};
    const struct command dispatch = use_selector(t->side);
    bool ok = call(t, SYS_munmap, below) && call(t, SYS_munmap, above) && call(t, SYS_mmap, list) &&
              call(t, SYS_mmap, note) && call(t, SYS_prctl, dispatch.arg) &&
              call(t, SYS_prctl, no_more) && call(t, SYS_prctl, filtered);
    t->list->selector[t->side] = FORBIDS;
    return ok;
}

static bool measure_xstate(struct tracee *t)
{
    g_autofree uint8_t *all = g_malloc0(XSTATE_MOST);
    struct iovec io = {all, XSTATE_MOST};
    if (ptrace(PTRACE_GETREGSET, t->pid, (void *)NT_X86_XSTATE, &io) < 0 ||
        io.iov_len < XSAVE_AVX_END) {
        return false;
    }
    t->xstate_bytes = io.iov_len;
    t->xstate = g_memdup2(all, io.iov_len);
    return true;
}

struct tracee *tracee_new(const int *fds, unsigned n)
{
    int all[1 + TRACEE_FILES];
    autofd int list = memfd_create("lodge-list", MFD_CLOEXEC);
    void *view = list >= 0 && ftruncate(list, SHARED_BYTES) == 0
                     ? mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, list, 0)
                     : MAP_FAILED;
    if (!bt_direct_prepare() || view == MAP_FAILED || n > TRACEE_FILES) {
        return NULL;
    }
    all[0] = list;
    memcpy(all + 1, fds, n * sizeof(*fds));
    struct tracee *t = g_new0(struct tracee, 1);
    t->list = view;
    t->note = (uint64_t *)((uint8_t *)view + LIST_BYTES);
    t->reads_tsc = true;
    t->pid = start(all, n + 1);
    if (!t->pid || ptrace(PTRACE_GETREGS, t->pid, NULL, &t->regs) < 0 || !settle(t) ||
        !measure_xstate(t)) {
        tracee_free(t);
        return NULL;
    }
    return t;
}

void tracee_free(struct tracee *t)
{
    if (t->pid) {
        kill(t->pid, SIGKILL);
        waitpid(t->pid, NULL, __WALL);
    }
    munmap(t->list, SHARED_BYTES);
    g_free(t->xstate);
    g_free(t);
}

int tracee_pid(const struct tracee *t)
{
    return t->pid;
}

void tracee_kick(int pid)
{
    syscall(SYS_tgkill, pid, pid, KICK);
}

/* Where it begins: at the commands that wait, which it may execute, or as the guest. */
static const uint8_t *prepare(struct tracee *t)
{
    struct list *l = t->list;
    if (!l->n) {
        return tracee_guest;
    }
    l->selector[!t->side] = FORBIDS;
    l->at[l->n++] = use_selector(!t->side);
    l->selector[t->side] = ALLOWS;
    return tracee_list;
}

/* It has stopped again. */
static void done(struct tracee *t)
{
    struct list *l = t->list;
    if (l->n) {
        l->selector[t->side] = FORBIDS;
        t->side = !t->side;
        memset(l->at, 0, l->n * sizeof(*l->at)); /* where memory lies is no program's business */
        l->n = 0;
    }
}

static bool make_room(struct tracee *t)
{
    if (t->list->n < COMMANDS) {
        return true;
    }
    t->list->rip = address_of(tracee_pause);
    bool ok = run_text(t, prepare(t)) && t->regs.rip == address_of(tracee_pause) + 1;
    done(t);
    return ok;
}

static bool add(struct tracee *t, const struct command *c)
{
    bool ok = make_room(t);
    t->list->at[t->list->n++] = *c;
    return ok;
}

bool tracee_map(struct tracee *t, uint64_t linear, uint64_t bytes, unsigned file, uint64_t offset,
                unsigned prot)
{
    return add(t, &(struct command){SYS_mmap,
                                    {linear, bytes, prot, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
                                     FIRST_FD + 1 + file, offset}});
}

bool tracee_unmap(struct tracee *t, uint64_t linear, uint64_t bytes)
{
    return add(t, &(struct command){SYS_munmap, {linear, bytes}});
}

bool tracee_has_more(const struct tracee *t)
{
    return t->list->n;
}

static bool poke_debug(struct tracee *t, unsigned n, uint64_t value)
{
    size_t at = offsetof(struct user, u_debugreg) + n * sizeof(value);
    return ptrace(PTRACE_POKEUSER, t->pid, (void *)at, (void *)value) == 0;
}

bool tracee_break(struct tracee *t, unsigned n, uint64_t linear)
{
    uint64_t on = UINT64_C(1) << 2 * n; /* DR7's L0 to L3; of one byte, when executed: 0 */
    t->dr7 &= ~on;
    if (!poke_debug(t, 7, t->dr7) || !linear) {
        return !linear;
    }
    t->dr7 |= poke_debug(t, n, linear) ? on : 0;
    if (!(t->dr7 & on) || !poke_debug(t, 7, t->dr7)) {
        t->dr7 &= ~on;
        return false;
    }
    return true;
}

bool tracee_may_read_tsc(struct tracee *t, bool may)
{
    if (may == t->reads_tsc) {
        return true;
    }
    t->reads_tsc = may;
    return add(t, &(struct command){SYS_prctl, {PR_SET_TSC, may ? PR_TSC_ENABLE : PR_TSC_SIGSEGV}});
}

/* ---- the guest in it ---- */

static void load_registers(struct list *l, const struct regs *r, bool reads_tsc)
{
    const uint64_t *g = r->gpr;
    l->timed = reads_tsc;
    l->flags = (r->rflags & TRACEE_FLAGS) | FLAG_IF | 2;
    l->rax = g[RAX];
    l->rcx = g[RCX];
    l->rdx = g[RDX];
    l->rbx = g[RBX];
    l->rbp = g[RBP];
    l->rsi = g[RSI];
    l->rdi = g[RDI];
    l->r8 = g[R8];
    l->r9 = g[R9];
    l->r10 = g[R10];
    l->r11 = g[R11];
    l->r12 = g[R12];
    l->r13 = g[R13];
    l->r14 = g[R14];
    l->r15 = g[R15];
    l->rsp = g[RSP];
    l->rip = r->rip;
}

/* What its text does not load itself.  A system call that it stopped in must not look as if it
 * were to be begun again. */
static bool begin_at(struct tracee *t, const struct regs *r, const uint8_t *entry)
{
    const struct user_regs_struct *u = &t->regs;
    bool as_was = u->cs == TRACEE_CS && u->ss == TRACEE_SS && !(u->ds | u->es | u->fs | u->gs) &&
                  u->fs_base == r->seg[SEG_FS].base && u->gs_base == r->seg[SEG_GS].base &&
                  u->rax < -UINT64_C(4096) && !(u->eflags & FLAG_TF);
    if (as_was) {
        return ptrace(PTRACE_POKEUSER, t->pid, (void *)offsetof(struct user, regs.rip),
                      (void *)address_of(entry)) == 0;
    }
    t->regs = (struct user_regs_struct){.rip = address_of(entry),
                                        .orig_rax = UINT64_MAX,
                                        .cs = TRACEE_CS,
                                        .ss = TRACEE_SS,
                                        .eflags = FLAG_IF | 2,
                                        .fs_base = r->seg[SEG_FS].base,
                                        .gs_base = r->seg[SEG_GS].base};
    return ptrace(PTRACE_SETREGS, t->pid, NULL, &t->regs) == 0;
}

static bool in_text(const struct tracee *t)
{
    return t->regs.rip - TRACEE_HOME < PAGE_SIZE;
}

/*
 * As the guest, until it stops.  A kick that comes before is remembered by having it stop where
 * the guest would go on.
 */
static int go_as_guest(struct tracee *t, const struct regs *r)
{
    load_registers(t->list, r, t->reads_tsc);
    int sig = begin_at(t, r, prepare(t)) ? go(t) : 0;
    while (sig == KICK && in_text(t)) {
        t->list->rip = address_of(tracee_pause);
        sig = go(t);
    }
    done(t);
    return sig;
}

static void store_selector(struct regs *r, enum seg_name seg, uint64_t selector)
{
    if (selector) { /* the host took it, so it is that of flat data */
        r->seg[seg].selector = (uint16_t)selector;
        r->seg[seg].limit = UINT32_MAX;
        r->seg[seg].attr = 0xc0f3;
    }
}

/* A far jump leads to 32-bit code of the host's, which is where Linux has it in a guest. */
static void store_code(struct regs *r, uint64_t selector)
{
    if (selector != TRACEE_CS) {
        r->seg[SEG_CS] =
            (struct segment){.selector = (uint16_t)selector, .limit = UINT32_MAX, .attr = 0xc0fb};
    }
}

static void store_registers(const struct tracee *t, struct regs *r)
{
    const struct user_regs_struct *u = &t->regs;
    const uint64_t g[16] = {u->rax, u->rcx, u->rdx, u->rbx, u->rsp, u->rbp, u->rsi, u->rdi,
                            u->r8,  u->r9,  u->r10, u->r11, u->r12, u->r13, u->r14, u->r15};
    memcpy(r->gpr, g, sizeof(g));
    r->rip = u->rip;
    r->rflags = (r->rflags & ~(uint64_t)TRACEE_FLAGS) | (u->eflags & TRACEE_FLAGS);
    r->seg[SEG_FS].base = u->fs_base;
    r->seg[SEG_GS].base = u->gs_base;
    store_code(r, u->cs);
    store_selector(r, SEG_DS, u->ds);
    store_selector(r, SEG_ES, u->es);
    store_selector(r, SEG_FS, u->fs);
    store_selector(r, SEG_GS, u->gs);
}

/* x87, SSE and AVX of the guest; .xsave's BV has all three.  What BV lacks, the host shows as it
 * is after its reset. */
static bool same_vectors(const struct tracee *t, const uint8_t *xsave)
{
    return !memcmp(t->xstate, xsave, XSAVE_SOFTWARE) &&
           !memcmp(t->xstate + XSAVE_YMM, xsave + XSAVE_YMM, XSAVE_AVX_END - XSAVE_YMM);
}

static bool load_vectors(struct tracee *t, struct vcpu *cpu)
{
    static const uint64_t parts = XSTATE_ALL;
    uint8_t *x = t->xstate;
    xstate_own(cpu, XSTATE_ALL);
    if (same_vectors(t, cpu->r.xsave)) {
        return true;
    }
    memcpy(x, cpu->r.xsave, XSAVE_SOFTWARE);
    memset(x + XSAVE_BV, 0, 64);
    memcpy(x + XSAVE_BV, &parts, sizeof(parts));
    memcpy(x + XSAVE_YMM, cpu->r.xsave + XSAVE_YMM, XSAVE_AVX_END - XSAVE_YMM);
    struct iovec io = {x, t->xstate_bytes};
    return ptrace(PTRACE_SETREGSET, t->pid, (void *)NT_X86_XSTATE, &io) == 0;
}

static bool store_vectors(struct tracee *t, struct vcpu *cpu)
{
    uint8_t *x = cpu->r.xsave;
    uint64_t parts;
    struct iovec io = {t->xstate, t->xstate_bytes};
    if (ptrace(PTRACE_GETREGSET, t->pid, (void *)NT_X86_XSTATE, &io) < 0) {
        return false;
    }
    memcpy(&parts, t->xstate + XSAVE_BV, sizeof(parts));
    memcpy(x, t->xstate, XSAVE_SOFTWARE);
    memcpy(x + XSAVE_YMM, t->xstate + XSAVE_YMM, XSAVE_AVX_END - XSAVE_YMM);
    parts = (xstate_bv(cpu) & ~(uint64_t)XSTATE_ALL) | (parts & XSTATE_ALL);
    memcpy(x + XSAVE_BV, &parts, sizeof(parts));
    return true;
}

static uint64_t fault_address(const struct tracee *t, bool *known)
{
    siginfo_t info;
    *known = ptrace(PTRACE_GETSIGINFO, t->pid, NULL, &info) == 0 && info.si_code != SI_KERNEL &&
             info.si_code > 0;
    return *known ? (uint64_t)info.si_addr : 0;
}

static bool is_break(const struct tracee *t)
{
    siginfo_t info;
    return ptrace(PTRACE_GETSIGINFO, t->pid, NULL, &info) == 0 && info.si_code == TRAP_HWBKPT;
}

/* Is it a call of the guest's, or the vsyscall page's?  Only there no number is left. */
static bool is_vsyscall(const struct tracee *t, uint64_t *number)
{
    siginfo_t info;
    if (t->regs.orig_rax != UINT64_MAX || ptrace(PTRACE_GETSIGINFO, t->pid, NULL, &info) < 0 ||
        info.si_code != BY_FILTER) {
        return false;
    }
    *number = (uint64_t)info.si_syscall;
    return true;
}

/*
 * Where it stopped in its own text: on its way to the guest, whose registers are as they were.  So
 * they are for a guest that jumps there.
 */
static bool on_its_way(const struct tracee *t, int sig, struct tracee_stop *out)
{
    if (sig != SIGTRAP || !in_text(t)) {
        return false;
    }
    *out = (struct tracee_stop){.why = t->regs.rip == address_of(tracee_pause) + 1 ? TRACEE_KICK
                                                                                   : TRACEE_BROKEN};
    return true;
}

bool tracee_run(struct tracee *t, struct vcpu *cpu, struct tracee_stop *out)
{
    struct regs *r = &cpu->r;
    if (!load_vectors(t, cpu)) {
        return false;
    }
    *t->note = 0;
    int sig = go_as_guest(t, r);
    if (sig && on_its_way(t, sig, out)) {
        return true;
    }
    if (!sig || !store_vectors(t, cpu)) {
        return false;
    }
    store_registers(t, r);
    *out = (struct tracee_stop){.why = TRACEE_FAULT, .began = *(volatile uint64_t *)t->note};
    if (sig == SIGSYS) {
        out->why = is_vsyscall(t, &out->address) ? TRACEE_VSYSCALL : TRACEE_CALL;
        r->rip -= out->why == TRACEE_CALL ? 2 : 0;
    } else if (sig == SIGSEGV || sig == SIGBUS) {
        out->address = fault_address(t, &out->has_address);
    } else if (sig == SIGTRAP) {
        out->why = is_break(t) ? TRACEE_FAULT : TRACEE_TRAP;
    } else if (sig != SIGFPE && sig != SIGILL) {
        out->why = TRACEE_KICK;
    }
    return true;
}
