/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/keyval.h"
#include "base/util.h"
#include "guest/cpu/translate/bt.h"
#include "guest/memory/ram.h"
#include "vmm/options.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <unistd.h>

/* confine - what the process gives up before the guest runs, and going to the background */

/* ---- -daemonize ---- */

static int ready_fd = -1;

/* The parent stays until the machine is made, so that its exit code and its messages are
 * those of the start. */
bool confine_daemonize(GError **error)
{
    int fds[2];
    char byte;
    if (pipe2(fds, O_CLOEXEC) < 0) {
        error_set_errno(error, errno, "pipe");
        return false;
    }
    pid_t pid = fork();
    if (pid < 0) {
        error_set_errno(error, errno, "fork");
        return false;
    }
    if (pid > 0) {
        close(fds[1]);
        ssize_t n;
        do {
            n = read(fds[0], &byte, 1);
        } while (n < 0 && errno == EINTR);
        _exit(n == 1 ? 0 : 1);
    }
    close(fds[0]);
    ready_fd = fds[1];
    setsid();
    return true;
}

void confine_ready(void)
{
    if (ready_fd < 0) {
        return;
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3 && null >= 0; fd++) {
        dup2(null, fd);
    }
    ssize_t n = write(ready_fd, "", 1);
    (void)n;
    close(ready_fd);
    close(null);
    ready_fd = -1;
}

bool confine_pidfile(const char *path, GError **error)
{
    char text[24];
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600); /* open and locked to the end */
    int n = g_snprintf(text, sizeof(text), "%d\n", getpid());
    if (fd >= 0 && lockf(fd, F_TLOCK, 0) == 0 && ftruncate(fd, 0) == 0 && write(fd, text, (size_t)n) == n) {
        return true;
    }
    error_set_errno(error, errno, "-pidfile %s", path);
    if (fd >= 0) {
        close(fd);
    }
    return false;
}

/* ---- -runas ---- */

static bool look_up(const char *who, uid_t *uid, gid_t *gid, GError **error)
{
    struct passwd *pw = getpwnam(who);
    uint64_t u, g;
    const char *colon = strchr(who, ':');
    g_autofree char *first = g_strndup(who, colon ? (size_t)(colon - who) : 0);
    if (pw) {
        *uid = pw->pw_uid;
        *gid = pw->pw_gid;
        return true;
    }
    if (colon && text_u64(first, &u) && text_u64(colon + 1, &g) && u < UINT32_MAX && g < UINT32_MAX) {
        *uid = (uid_t)u;
        *gid = (gid_t)g;
        return true;
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "-runas %s: no such user", who);
    return false;
}

/* @who's numbers were looked up before the root changed. */
static bool become(const char *who, uid_t uid, gid_t gid, GError **error)
{
    bool named = strchr(who, ':') == NULL;
    if ((named ? initgroups(who, gid) : setgroups(1, &gid)) < 0 || setgid(gid) < 0 || setuid(uid) < 0) {
        error_set_errno(error, errno, "-runas %s", who);
        return false;
    }
    if (uid != 0 && setuid(0) == 0) {
        g_set_error(error, LODGE_ERROR, EPERM, "-runas %s: root could be had back", who);
        return false;
    }
    return true;
}

static bool change_root(const char *path, GError **error)
{
    if (chroot(path) < 0 || chdir("/") < 0) {
        error_set_errno(error, errno, "-chroot %s", path);
        return false;
    }
    return true;
}

/* ---- -sandbox ---- */

enum call_set { SET_ALWAYS, SET_OBSOLETE, SET_PRIVILEGES, SET_SPAWN, SET_RESOURCES, SETS };

static const struct {
    enum call_set set;
    int call;
} calls[] = {
    {SET_ALWAYS, SCMP_SYS(reboot)},        {SET_ALWAYS, SCMP_SYS(swapon)},
    {SET_ALWAYS, SCMP_SYS(swapoff)},       {SET_ALWAYS, SCMP_SYS(syslog)},
    {SET_ALWAYS, SCMP_SYS(mount)},         {SET_ALWAYS, SCMP_SYS(umount2)},
    {SET_ALWAYS, SCMP_SYS(pivot_root)},    {SET_ALWAYS, SCMP_SYS(kexec_load)},
    {SET_ALWAYS, SCMP_SYS(kexec_file_load)}, {SET_ALWAYS, SCMP_SYS(init_module)},
    {SET_ALWAYS, SCMP_SYS(finit_module)},  {SET_ALWAYS, SCMP_SYS(delete_module)},
    {SET_ALWAYS, SCMP_SYS(acct)},          {SET_ALWAYS, SCMP_SYS(quotactl)},
    {SET_ALWAYS, SCMP_SYS(ptrace)},        {SET_ALWAYS, SCMP_SYS(process_vm_readv)},
    {SET_ALWAYS, SCMP_SYS(process_vm_writev)}, {SET_ALWAYS, SCMP_SYS(bpf)},
    {SET_ALWAYS, SCMP_SYS(perf_event_open)}, {SET_ALWAYS, SCMP_SYS(settimeofday)},
    {SET_ALWAYS, SCMP_SYS(clock_settime)}, {SET_ALWAYS, SCMP_SYS(sethostname)},
    {SET_ALWAYS, SCMP_SYS(setdomainname)}, {SET_ALWAYS, SCMP_SYS(iopl)},
    {SET_ALWAYS, SCMP_SYS(ioperm)},        {SET_ALWAYS, SCMP_SYS(add_key)},
    {SET_ALWAYS, SCMP_SYS(request_key)},   {SET_ALWAYS, SCMP_SYS(keyctl)},
    {SET_ALWAYS, SCMP_SYS(nfsservctl)},    {SET_ALWAYS, SCMP_SYS(open_by_handle_at)},
    {SET_OBSOLETE, SCMP_SYS(uselib)},      {SET_OBSOLETE, SCMP_SYS(ustat)},
    {SET_OBSOLETE, SCMP_SYS(sysfs)},       {SET_OBSOLETE, SCMP_SYS(_sysctl)},
    {SET_OBSOLETE, SCMP_SYS(create_module)}, {SET_OBSOLETE, SCMP_SYS(query_module)},
    {SET_OBSOLETE, SCMP_SYS(get_kernel_syms)}, {SET_OBSOLETE, SCMP_SYS(lookup_dcookie)},
    {SET_PRIVILEGES, SCMP_SYS(setuid)},    {SET_PRIVILEGES, SCMP_SYS(setgid)},
    {SET_PRIVILEGES, SCMP_SYS(setreuid)},  {SET_PRIVILEGES, SCMP_SYS(setregid)},
    {SET_PRIVILEGES, SCMP_SYS(setresuid)}, {SET_PRIVILEGES, SCMP_SYS(setresgid)},
    {SET_PRIVILEGES, SCMP_SYS(setfsuid)},  {SET_PRIVILEGES, SCMP_SYS(setfsgid)},
    {SET_PRIVILEGES, SCMP_SYS(setgroups)},
    {SET_SPAWN, SCMP_SYS(fork)},           {SET_SPAWN, SCMP_SYS(vfork)},
    {SET_SPAWN, SCMP_SYS(execve)},         {SET_SPAWN, SCMP_SYS(execveat)},
    {SET_RESOURCES, SCMP_SYS(sched_setaffinity)}, {SET_RESOURCES, SCMP_SYS(sched_setparam)},
    {SET_RESOURCES, SCMP_SYS(sched_setscheduler)}, {SET_RESOURCES, SCMP_SYS(sched_setattr)},
    {SET_RESOURCES, SCMP_SYS(setpriority)},
};

static bool take_sets(const char *text, bool sets[SETS], bool *on, GError **error)
{
    static const char *const keys[SETS] = {[SET_OBSOLETE] = "obsolete",
                                           [SET_PRIVILEGES] = "elevateprivileges",
                                           [SET_SPAWN] = "spawn",
                                           [SET_RESOURCES] = "resourcecontrol"};
    g_autoptr(KeyVal) kv = keyval_parse(text, "enable", error);
    if (!kv || !keyval_bool(kv, "enable", on, error)) {
        return false;
    }
    sets[SET_ALWAYS] = sets[SET_OBSOLETE] = *on;
    for (unsigned i = SET_OBSOLETE; i < SETS; i++) {
        const char *value = keyval_get(kv, keys[i]);
        if (value && g_str_equal(value, "children") && i == SET_PRIVILEGES) {
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        } else if (value && !g_str_equal(value, "deny") && !g_str_equal(value, "allow")) {
            g_set_error(error, LODGE_ERROR, EINVAL, "%s=%s: want allow or deny", keys[i], value);
            return false;
        } else if (value) {
            sets[i] = *value == 'd';
        }
    }
    return keyval_done(kv, error);
}

/*
 * Programs in processes of their own (translate/bt.h) need these calls, so only this of them is
 * forbidden.  Nothing can be traced that is not born so; what is born has this same filter.  A
 * fence for accidents: whoever runs code of his own here can put another file at the descriptor.
 */
static const struct {
    int call;
    unsigned arg;
    enum scmp_compare is; /* 0: nothing is forbidden */
    uint64_t value;
} parts[] = {
    {SCMP_SYS(ptrace), 0, SCMP_CMP_EQ, PTRACE_ATTACH},
    {SCMP_SYS(ptrace), 0, SCMP_CMP_EQ, PTRACE_SEIZE},
    {SCMP_SYS(vfork), 0, 0, 0},
    {SCMP_SYS(execveat), 0, SCMP_CMP_NE, BT_DIRECT_FD},
    {SCMP_SYS(execveat), 1, SCMP_CMP_NE, (uintptr_t)bt_direct_path},
    {SCMP_SYS(execveat), 4, SCMP_CMP_NE, AT_EMPTY_PATH},
};

static int forbid(scmp_filter_ctx filter, int call)
{
    bool in_part = false;
    int r = 0;
    for (unsigned i = 0; ram_in_files && i < G_N_ELEMENTS(parts) && r == 0; i++) {
        if (parts[i].call == call) {
            in_part = true;
            r = !parts[i].is ? 0
                             : seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, call, 1,
                                                SCMP_CMP(parts[i].arg, parts[i].is, parts[i].value));
        }
    }
    r = in_part ? r : seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, call, 0);
    return r == -EDOM || r == -EFAULT ? 0 : r; /* a call this architecture has not */
}

static bool filter_calls(const bool sets[SETS], GError **error)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int r = filter ? 0 : -ENOMEM;
    bt_direct_keeps_cores = !sets[SET_RESOURCES];
    for (unsigned i = 0; i < G_N_ELEMENTS(calls) && r == 0; i++) {
        if (sets[calls[i].set]) {
            r = forbid(filter, calls[i].call);
        }
    }
    if (r == 0) {
        /* Threads that run already are bound as well. */
        r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
        r = r ? r : seccomp_load(filter);
    }
    if (filter) {
        seccomp_release(filter);
    }
    if (r) {
        error_set_errno(error, -r, "-sandbox");
    }
    return r == 0;
}

static bool spawn_denied;

bool confine_may_spawn(void)
{
    return !spawn_denied;
}

#ifdef __SANITIZE_ADDRESS__
/* The leak detector stops the process from outside, which a sandbox forbids: it would wait for ever. */
static bool sandboxed;

__attribute__((used)) int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return sandboxed;
}
#endif

static bool sandbox(const char *text, GError **error)
{
    bool sets[SETS] = {false}, on = false;
    if (!take_sets(text, sets, &on, error)) {
        g_prefix_error(error, "-sandbox %s: ", text);
        return false;
    }
    spawn_denied = on && sets[SET_SPAWN];
#ifdef __SANITIZE_ADDRESS__
    sandboxed = on;
#endif
    return !on || filter_calls(sets, error);
}

bool confine(const struct vm_options *o, GError **error)
{
    uid_t uid = 0;
    gid_t gid = 0;
    return (!o->runas || look_up(o->runas, &uid, &gid, error)) &&
           (!o->chroot || change_root(o->chroot, error)) &&
           (!o->runas || become(o->runas, uid, gid, error)) &&
           (!o->sandbox || sandbox(o->sandbox, error));
}
