/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hugefile: memory in files, with huge pages.
 *
 * A host lets anonymous memory that asks for huge pages have them, but hardly ever memfds
 * (shmem_enabled).  Files of a tmpfs get them if its mount says so.  Ours is a mount of its own
 * that is attached nowhere.  To mount takes a right that users have in a user namespace of their
 * own: a child that shares our memory and descriptors goes there for a moment.
 *
 * Spec: Linux kernel documentation, "Tmpfs", "Transparent Hugepage Support"; Linux man-pages,
 * user_namespaces(7), "User and group ID mappings: uid_map and gid_map".
 */
#include "guest/memory/hugefile.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { CHILD_STACK = 65536 };

/* size=0: no bound; a file grows only where it is touched. */
static int new_mount(void)
{
    autofd int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
    if (fs < 0 || syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "huge", "always", 0) < 0 ||
        syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "size", "0", 0) < 0 ||
        syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
        return -1;
    }
    return (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
}

struct ids {
    unsigned uid, gid;
    int mount;
};

static bool put(const char *path, const char *format, unsigned id)
{
    char text[32];
    int n = snprintf(text, sizeof(text), format, id);
    autofd int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, (size_t)n) == n;
}

/* A file's owner must be somebody in the namespace. */
static int in_namespace(void *arg)
{
    struct ids *ids = arg;
    if (put("/proc/self/setgroups", "deny", 0) && put("/proc/self/uid_map", "0 %u 1", ids->uid) &&
        put("/proc/self/gid_map", "0 %u 1", ids->gid)) {
        ids->mount = new_mount();
    }
    return 0;
}

/* Like vfork(): we go on when the child has ended. */
static int mount_as_user(void)
{
    struct ids ids = {getuid(), getgid(), -1};
    g_autofree uint8_t *stack = g_malloc(CHILD_STACK);
    uint8_t *top = (uint8_t *)((uintptr_t)(stack + CHILD_STACK) & ~(uintptr_t)63);
    int flags = CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_NEWUSER | CLONE_NEWNS;
    pid_t child = clone(in_namespace, top, flags, &ids);
    if (child > 0) {
        waitpid(child, NULL, __WALL);
    }
    return ids.mount;
}

/* The mount is kept: to close it makes the host's kernel wait for all of its processors. */
static int the_mount(void)
{
    static int mount = -1;
    static bool tried;
    if (!tried) {
        tried = true;
        mount = new_mount();
        mount = mount >= 0 ? mount : mount_as_user();
    }
    return mount;
}

int huge_file(const char *name, uint64_t bytes)
{
    int mount = the_mount();
    autofd int fd = mount < 0 ? -1 : openat(mount, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        fd = memfd_create(name, MFD_CLOEXEC);
    }
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0) {
        return -1;
    }
    return g_steal_fd(&fd);
}
