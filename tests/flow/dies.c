/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dies: a lodged that is killed at any step it takes.  Loaded by LD_PRELOAD; a step is a call that
 * others see: files that come, go or change their names, messages to machines and to the kernel,
 * signals and processes.
 *
 * LODGED_DIES names a file of one number, which the test changes while lodged runs: 0 for a long
 * life, N to be killed instead of the N-th step from then on.  LODGED_STEPS, another, gets a line a
 * step.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_int *left;
static int steps = -1;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("LODGED_DIES"), *log = getenv("LODGED_STEPS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *at = mmap(NULL, sizeof(*left), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        left = at == MAP_FAILED ? NULL : at;
        close(fd);
    }
    steps = log ? open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    unsetenv("LD_PRELOAD"); /* not for its children */
}

static void step(const char *what, const char *about)
{
    if (!left || atomic_load(left) <= 0) {
        return;
    }
    char line[300];
    int n = snprintf(line, sizeof(line), "%s %.250s\n", what, about);
    if (steps >= 0 && write(steps, line, (size_t)n) < 0) {
        _exit(1);
    }
    if (atomic_fetch_sub(left, 1) == 1) {
        kill(getpid(), SIGKILL);
        for (;;) {
            pause();
        }
    }
}

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

int rename(const char *from, const char *to)
{
    step("rename", to);
    return REAL(rename)(from, to);
}

int unlink(const char *path)
{
    step("unlink", path);
    return REAL(unlink)(path);
}

int symlink(const char *target, const char *path)
{
    step("symlink", path);
    return REAL(symlink)(target, path);
}

int rmdir(const char *path)
{
    step("rmdir", path);
    return REAL(rmdir)(path);
}

int mkdir(const char *path, mode_t mode)
{
    step("mkdir", path);
    return REAL(mkdir)(path, mode);
}

int chown(const char *path, uid_t owner, gid_t group)
{
    step("chown", path);
    return REAL(chown)(path, owner, group);
}

int open64(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    if (flags & O_CREAT) {
        step("open", path);
    }
    return REAL(open64)(path, flags, mode);
}

int ftruncate64(int fd, off64_t size)
{
    step("ftruncate", "");
    return REAL(ftruncate64)(fd, size);
}

int chmod(const char *path, mode_t mode)
{
    step("chmod", path);
    return REAL(chmod)(path, mode);
}

pid_t fork(void)
{
    step("fork", "");
    return REAL(fork)();
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                const posix_spawnattr_t *attributes, char *const argv[], char *const env[])
{
    step("spawn", path);
    return REAL(posix_spawn)(pid, path, actions, attributes, argv, env);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    char text[200] = "";
    if (m->msg_iovlen) {
        size_t n =
            m->msg_iov[0].iov_len < sizeof(text) - 1 ? m->msg_iov[0].iov_len : sizeof(text) - 1;
        memcpy(text, m->msg_iov[0].iov_base, n);
        for (char *at = text; *at; at++) {
            *at = *at < ' ' ? '.' : *at;
        }
    }
    step("sendmsg", text);
    return REAL(sendmsg)(fd, m, flags);
}

ssize_t sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *to,
               socklen_t size)
{
    step("sendto", "");
    return REAL(sendto)(fd, data, n, flags, to, size);
}

long syscall(long number, ...)
{
    long a[6];
    va_list ap;
    va_start(ap, number);
    for (unsigned i = 0; i < 6; i++) {
        a[i] = va_arg(ap, long);
    }
    va_end(ap);
    if (number == SYS_pidfd_send_signal) {
        step("signal", "");
    }
    return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
