/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -sandbox with programs in processes of their own: what those need of the calls that a sandbox
 * forbids is allowed, and nothing else of them.  Each attempt is a process of its own.
 */
#include "tests/unit/test.h"

#include "guest/cpu/translate/bt.h"
#include "guest/cpu/translate/direct.h"
#include "vmm/options.h"
#include "vmm/vm.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char *const none[] = {NULL};

/* Tried in the sandbox; what they return is the exit code if they are not killed for it. */
static int attach(void)
{
    return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) < 0;
}

static int seize(void)
{
    return ptrace(PTRACE_SEIZE, getppid(), NULL, NULL) < 0;
}

static int be_traced(void)
{
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0;
}

static int exec(void)
{
    return execve("/bin/true", none, none);
}

static int exec_other(void)
{
    int fd = open("/bin/true", O_RDONLY);
    return (int)syscall(SYS_execveat, fd, bt_direct_path, none, none, AT_EMPTY_PATH);
}

static int exec_path(void)
{
    return (int)syscall(SYS_execveat, BT_DIRECT_FD, "/bin/true", none, none, AT_EMPTY_PATH);
}

static int exec_without_flag(void)
{
    return (int)syscall(SYS_execveat, BT_DIRECT_FD, bt_direct_path, none, none, 0);
}

static int choose_core(void)
{
    cpu_set_t all;
    CPU_ZERO(&all);
    CPU_SET(0, &all);
    return sched_setaffinity(0, sizeof(all), &all) < 0;
}

/* The real thing: a process, and memory that it has mapped. */
static int have_process(void)
{
    int fd = memfd_create("memory", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, PAGE_SIZE) < 0) {
        return 2;
    }
    struct tracee *t = tracee_new(&fd, 1);
    bool ok = t && tracee_map(t, 0x400000, PAGE_SIZE, 0, 0, PROT_READ);
    if (t) {
        tracee_free(t);
    }
    return !ok;
}

static void run(int (*attempt)(void), bool direct, bool killed)
{
    pid_t pid = fork();
    int status;
    assert_true(pid >= 0);
    if (pid == 0) {
        struct vm_options o = {
            .sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"};
        ram_in_files = direct && bt_direct_prepare();
        _exit(!confine(&o, NULL) ? 99 : attempt());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (killed) {
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSYS);
    } else {
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

static void test_forbidden(void **state)
{
    static int (*const all[])(void) = {
        attach, seize, exec, exec_other, exec_path, exec_without_flag, choose_core};
    (void)state;
    for (unsigned k = 0; k < G_N_ELEMENTS(all); k++) {
        run(all[k], true, true);
        run(all[k], false, true);
    }
    run(be_traced, false, true); /* who needs no process may not even that */
    run(have_process, false, true);
}

static void test_needed(void **state)
{
    (void)state;
    if (have_process()) {
        print_message("this host lets no process be traced, or knows no user dispatch\n");
        skip();
    }
    run(have_process, true, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forbidden),
        cmocka_unit_test(test_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
