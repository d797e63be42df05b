/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * file: local files and block devices under images, and the locks on them.
 *
 * Locks are QEMU's: for each thing that a process does with an image it holds a shared
 * byte lock at 100 + n, for each thing that it does not let others do one at 200 + n, and
 * then looks whether anybody holds the opposite.  Two programs that follow this refuse
 * each other's writers, whoever came first.
 */
#include "base/bytes.h"
#include "base/util.h"
#include "host/image/options.h"
#include "host/image/protocol.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

enum lock_base { LOCK_USES = 100, LOCK_DENIES = 200 };
enum perm { PERM_CONSISTENT_READ = 0, PERM_WRITE = 1, PERM_RESIZE = 3 };
enum { DIRECT_ALIGN = 4096 };

static const char *const perm_names[] = {"consistent read", "write", "write unchanged", "resize"};

/* ---- locks ---- */

static int lock_byte(int fd, int cmd, short type, int at)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    int r = fcntl(fd, cmd, &l) ? -errno : 0;
    return cmd == F_OFD_GETLK && !r && l.l_type != F_UNLCK ? -EAGAIN : r;
}

/* Holds @base + n for all bits n of @bits. */
static int hold(int fd, unsigned bits, enum lock_base base)
{
    for (int n = 0; n < 4; n++) {
        int r = bits >> n & 1 ? lock_byte(fd, F_OFD_SETLK, F_RDLCK, (int)base + n) : 0;
        if (r) {
            return r;
        }
    }
    return 0;
}

/* The first bit of @bits that somebody holds at @base; -1: nobody. */
static int held_by_other(int fd, unsigned bits, enum lock_base base)
{
    for (int n = 0; n < 4; n++) {
        if ((bits >> n & 1) && lock_byte(fd, F_OFD_GETLK, F_WRLCK, (int)base + n) == -EAGAIN) {
            return n;
        }
    }
    return -1;
}

static bool refused(GError **error, bool shared, int perm, const char *name)
{
    g_set_error(error, LODGE_ERROR, EBUSY,
                "Failed to get %s\"%s\" lock\nIs another process using the image [%s]?",
                shared ? "shared " : "", perm_names[perm], name);
    return false;
}

static bool lock_file(struct file *f, int fd, bool write, GError **error)
{
    unsigned uses = 1u << PERM_CONSISTENT_READ | (write ? 1u << PERM_WRITE : 0);
    unsigned denies = 1u << PERM_WRITE | 1u << PERM_RESIZE;
    int r = hold(fd, uses, LOCK_USES);
    if (r == 0) {
        r = hold(fd, denies, LOCK_DENIES);
    }
    if (r == -EINVAL || r == -ENOLCK || r == -EOPNOTSUPP) {
        return true; /* a file system without locks */
    }
    int who = r ? PERM_WRITE : held_by_other(fd, uses, LOCK_DENIES);
    if (who >= 0) {
        return refused(error, false, who, f->name);
    }
    who = held_by_other(fd, denies, LOCK_USES);
    return who < 0 || refused(error, true, who, f->name);
}

static void unlock_file(int fd)
{
    struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = LOCK_USES, .l_len = 200};
    fcntl(fd, F_OFD_SETLK, &l);
}

static bool wants_lock(const struct file *f)
{
    return !(f->flags & (OPEN_NO_LOCK | OPEN_SHARE | OPEN_LATER));
}

/* ---- opening ---- */

static bool find_size(struct file *f, GError **error)
{
    struct stat st;
    if (fstat(f->cached_fd, &st)) {
        error_set_errno(error, errno, "Could not open '%s'", f->name);
        return false;
    }
    f->block_device = S_ISBLK(st.st_mode);
    if (S_ISREG(st.st_mode) || S_ISCHR(st.st_mode)) { /* /dev/null is an empty disk */
        f->size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
        return true;
    }
    if (f->block_device && !ioctl(f->cached_fd, BLKGETSIZE64, &f->size)) {
        return true;
    }
    g_set_error(error, LODGE_ERROR, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
                "'%s' driver requires '%s' to be a regular file or device", f->protocol->name,
                f->name);
    return false;
}

static uint32_t direct_align(const struct file *f)
{
    struct statx sx = {0};
    unsigned sector;
    if (!statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) && (sx.stx_mask & STATX_DIOALIGN) &&
        sx.stx_dio_offset_align) {
        return MAX(sx.stx_dio_offset_align, sx.stx_dio_mem_align);
    }
    if (f->block_device && !ioctl(f->fd, BLKSSZGET, &sector)) {
        return sector;
    }
    return DIRECT_ALIGN;
}

static int open_cached(const struct file *f, bool read_only)
{
    /* A fifo must not hold us, but io_uring takes O_NONBLOCK at its word. */
    int fd = open(f->name, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) {
        fcntl(fd, F_SETFL, 0);
    }
    return fd;
}

static bool open_direct(struct file *f, bool read_only, GError **error)
{
    int fd = open(f->name, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_DIRECT);
    if (fd < 0) {
        error_set_errno(error, errno, "Could not open '%s' with cache=none or cache.direct=on",
                        f->name);
        return false;
    }
    f->fd = fd;
    f->direct = true;
    f->align = direct_align(f);
    return true;
}

static bool local_open(struct file *f, const json_t *options, unsigned flags, GError **error)
{
    if (!f->name || !*f->name) {
        g_set_error(error, LODGE_ERROR, EINVAL, "The '%s' block driver requires a file name",
                    f->protocol->name);
        return false;
    }
    const char *locking = json_text(options, "locking");
    f->flags |= locking && !strcmp(locking, "off") ? OPEN_NO_LOCK : 0;
    f->cached_fd = open_cached(f, f->read_only);
    if (f->cached_fd < 0) {
        error_set_errno(error, errno, "Could not open '%s'", f->name);
        return false;
    }
    f->fd = f->cached_fd;
    return find_size(f, error) &&
           (!(flags & OPEN_DIRECT) || open_direct(f, f->read_only, error)) &&
           (!wants_lock(f) || lock_file(f, f->cached_fd, !f->read_only, error));
}

static void local_close(struct file *f)
{
    if (f->fd >= 0 && f->fd != f->cached_fd) {
        close(f->fd);
    }
    if (f->cached_fd >= 0) {
        close(f->cached_fd);
    }
    f->fd = f->cached_fd = -1;
}

/* Our own locks would refuse our second descriptor, so they are let go for a moment. */
static bool local_reopen(struct file *f, bool read_only, GError **error)
{
    int fd = open_cached(f, read_only), old = f->cached_fd, old_direct = f->fd;
    if (fd < 0) {
        error_set_errno(error, errno, "Could not reopen '%s'", f->name);
        return false;
    }
    unlock_file(old);
    if ((wants_lock(f) && !lock_file(f, fd, !read_only, error)) ||
        (f->direct && !open_direct(f, read_only, error))) {
        close(fd);
        lock_file(f, old, !f->read_only, NULL);
        return false;
    }
    if (f->direct) {
        close(old_direct);
    } else {
        f->fd = fd;
    }
    close(old);
    f->cached_fd = fd;
    f->read_only = read_only;
    return true;
}

static bool local_hold(struct file *f, bool on, GError **error)
{
    if (!on) {
        unlock_file(f->cached_fd);
        return true;
    }
    if (find_size(f, error) &&
        (!wants_lock(f) || lock_file(f, f->cached_fd, !f->read_only, error))) {
        return true;
    }
    unlock_file(f->cached_fd);
    return false;
}

static const char *temporary_directory(void)
{
    const char *dir = g_getenv("TMPDIR");
    return dir && *dir ? dir : "/var/tmp";
}

struct file *file_temporary(uint64_t size, GError **error)
{
    const char *dir = temporary_directory();
    g_autofree char *path = g_strconcat(dir, "/lodge-snapshot-XXXXXX", NULL);
    autofd int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && (fd = g_mkstemp_full(path, O_RDWR | O_CLOEXEC, 0600)) >= 0) {
        unlink(path); /* a file system without O_TMPFILE */
    }
    if (fd < 0 || ftruncate(fd, (off_t)size)) {
        error_set_errno(error, errno, "%s: temporary file for snapshot=on", dir);
        return NULL;
    }
    struct file *f = g_new0(struct file, 1);
    *f = (struct file){.protocol = &protocol_file, .name = g_strdup(dir), .size = size, .align = 1,
                       .flags = OPEN_NO_FLUSH | OPEN_NO_LOCK};
    f->fd = f->cached_fd = g_steal_fd(&fd);
    return f;
}

static bool local_create(const json_t *options, uint64_t size, GError **error)
{
    const char *name = json_text(options, "filename");
    if (!name || !*name) {
        g_set_error(error, LODGE_ERROR, EINVAL, "The 'file' block driver requires a file name");
        return false;
    }
    struct file f = {.name = (char *)(uintptr_t)name};
    autofd int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
    if (fd < 0) {
        error_set_errno(error, errno, "Could not create '%s'", name);
        return false;
    }
    struct stat st;
    if (!lock_file(&f, fd, true, error)) {
        return false;
    }
    if (fstat(fd, &st) || (S_ISREG(st.st_mode) && (ftruncate(fd, 0) || ftruncate(fd, (off_t)size)))) {
        error_set_errno(error, errno, "Could not resize '%s'", name);
        return false;
    }
    return true;
}

/* ---- bytes ---- */

static bool is_aligned(const struct file *f, uint64_t at, const void *p, size_t n)
{
    return !((at | (uintptr_t)p | n) & (f->align - 1));
}

static int fd_for(const struct file *f, uint64_t at, const void *p, size_t n)
{
    return f->direct && is_aligned(f, at, p, n) ? f->fd : f->cached_fd;
}

static int local_read(struct file *f, uint64_t at, void *to, size_t n)
{
    uint8_t *p = to;
    while (n) {
        ssize_t r = pread(fd_for(f, at, p, n), p, n, (off_t)at);
        if (r < 0 && errno == EINTR) {
            continue;
        }
        if (r <= 0) {
            return r ? -errno : -EIO;
        }
        p += r;
        at += (uint64_t)r;
        n -= (size_t)r;
    }
    return 0;
}

static int local_write(struct file *f, uint64_t at, const void *from, size_t n)
{
    const uint8_t *p = from;
    while (n) {
        ssize_t r = pwrite(fd_for(f, at, p, n), p, n, (off_t)at);
        if (r < 0 && errno == EINTR) {
            continue;
        }
        if (r <= 0) {
            return r ? -errno : -ENOSPC;
        }
        p += r;
        at += (uint64_t)r;
        n -= (size_t)r;
    }
    return 0;
}

static bool is_unsupported(int error)
{
    return error == EOPNOTSUPP || error == EINVAL || error == ENODEV || error == ENOSYS ||
           error == ENOTTY;
}

static int local_zero(struct file *f, uint64_t at, uint64_t n, bool may_unmap)
{
    int mode = may_unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    if (!fallocate(f->cached_fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n)) {
        return 0;
    }
    if (f->block_device && is_unsupported(errno)) {
        uint64_t range[2] = {at, n};
        return ioctl(f->cached_fd, BLKZEROOUT, range) ? is_unsupported(errno) ? -ENOTSUP : -errno : 0;
    }
    return is_unsupported(errno) ? -ENOTSUP : -errno;
}

static int local_discard(struct file *f, uint64_t at, uint64_t n)
{
    int r = fallocate(f->cached_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n);
    return r && !is_unsupported(errno) ? -errno : 0;
}

static int local_flush(struct file *f)
{
    return fdatasync(f->cached_fd) ? -errno : 0;
}

static int local_resize(struct file *f, uint64_t size)
{
    if (f->block_device) {
        return size <= f->size ? 0 : -ENOTSUP;
    }
    return ftruncate(f->cached_fd, (off_t)size) ? -errno : 0;
}

static int local_extent(struct file *f, uint64_t at, uint64_t n, bool *data, uint64_t *length)
{
    *data = true;
    *length = n;
    if (f->block_device) {
        return 0;
    }
    off_t start = lseek(f->cached_fd, (off_t)at, SEEK_DATA);
    if (start < 0 && errno == ENXIO) {
        *data = false; /* a hole up to the end */
        return 0;
    }
    if (start > (off_t)at) {
        *data = false;
        *length = MIN(n, (uint64_t)start - at);
        return 0;
    }
    off_t end = start < 0 ? start : lseek(f->cached_fd, (off_t)at, SEEK_HOLE);
    if (end > (off_t)at) {
        *length = MIN(n, (uint64_t)end - at);
    }
    return 0;
}

static uint64_t local_allocated(struct file *f)
{
    struct stat st;
    return fstat(f->cached_fd, &st) ? 0 : f->block_device ? f->size : (uint64_t)st.st_blocks * 512;
}

static const char *const open_options[] = {"filename", "locking", "aio", NULL};

const struct protocol protocol_file = {
    .name = "file",
    .open_options = open_options,
    .open = local_open,
    .close = local_close,
    .read = local_read,
    .write = local_write,
    .zero = local_zero,
    .discard = local_discard,
    .flush = local_flush,
    .resize = local_resize,
    .extent = local_extent,
    .allocated = local_allocated,
    .create = local_create,
    .reopen = local_reopen,
    .hold = local_hold,
};

static bool device_open(struct file *f, const json_t *options, unsigned flags, GError **error)
{
    if (!local_open(f, options, flags, error)) {
        return false;
    }
    if (!f->block_device) {
        g_set_error(error, LODGE_ERROR, EINVAL, "'%s' is no block device", f->name);
        return false;
    }
    return true;
}

const struct protocol protocol_host_device = {
    .name = "host_device",
    .open_options = open_options,
    .open = device_open,
    .close = local_close,
    .read = local_read,
    .write = local_write,
    .zero = local_zero,
    .discard = local_discard,
    .flush = local_flush,
    .resize = local_resize,
    .extent = local_extent,
    .allocated = local_allocated,
    .reopen = local_reopen,
    .hold = local_hold,
};
