/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * fault: makes I/O on one file fail, by LD_PRELOAD.
 *
 * FAULT_FILE: a part of the path of the file; FAULT_KIND: "write" or "read"; FAULT_AT: the
 * number of the first call that fails, all after it fail too; FAULT_ERRNO: how.  FAULT_LOG: a
 * file that gets a byte when one has failed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;

static int is_ours(int fd)
{
    char link[64], path[4096];
    const char *part = getenv("FAULT_FILE");
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = part ? readlink(link, path, sizeof(path) - 1) : -1;
    if (n < 0) {
        return 0;
    }
    path[n] = 0;
    return strstr(path, part) != NULL;
}

static int fails(int fd, const char *kind)
{
    const char *wanted = getenv("FAULT_KIND"), *at = getenv("FAULT_AT"), *log = getenv("FAULT_LOG");
    if (!wanted || !at || strcmp(wanted, kind) || !is_ours(fd) || ++calls < atol(at)) {
        return 0;
    }
    int out = log ? open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (out >= 0) {
        static ssize_t (*real)(int, const void *, size_t);
        real = real ? real : (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
        (void)!real(out, "x", 1);
        close(out);
    }
    errno = atoi(getenv("FAULT_ERRNO"));
    return 1;
}

#define WRAP(result, name, kind, params, args)                                                     \
    result name params;                                                                            \
    result name params                                                                             \
    {                                                                                              \
        static result(*real) params;                                                               \
        if (fails(fd, kind)) {                                                                     \
            return -1;                                                                             \
        }                                                                                          \
        real = real ? real : (result(*) params)dlsym(RTLD_NEXT, #name);                            \
        return real args;                                                                          \
    }

WRAP(ssize_t, pread64, "read", (int fd, void *p, size_t n, off64_t at), (fd, p, n, at))
WRAP(ssize_t, pwrite64, "write", (int fd, const void *p, size_t n, off64_t at), (fd, p, n, at))
WRAP(ssize_t, pwritev64, "write", (int fd, const struct iovec *v, int n, off64_t at), (fd, v, n, at))
WRAP(int, ftruncate64, "write", (int fd, off64_t n), (fd, n))
WRAP(int, fallocate64, "write", (int fd, int mode, off64_t at, off64_t n), (fd, mode, at, n))
WRAP(int, fdatasync, "write", (int fd), (fd))
WRAP(int, fsync, "write", (int fd), (fd))
WRAP(ssize_t, copy_file_range, "write",
     (int from, off64_t *a, int fd, off64_t *b, size_t n, unsigned flags), (from, a, fd, b, n, flags))
