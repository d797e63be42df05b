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
#include "host/image/format.h"
#include "host/image/io.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

enum lock_base { LOCK_USES = 100, LOCK_DENIES = 200 };
enum perm { PERM_CONSISTENT_READ = 0, PERM_WRITE = 1, PERM_RESIZE = 3 };
enum { DIRECT_ALIGN = 4096 };

static const char *const perm_names[] = {"consistent read", "write", "write unchanged", "resize"};

static const char *const protocols[] = {"nbd", "nbd+unix", "http", "https", "ftp", "ftps", "ssh",
                                        "iscsi", "nfs", "rbd", "gluster", "json", "fat", "sheepdog"};

/* The path in @name, or NULL if it names something that is not a local file. */
static const char *local_path(const char *name, GError **error)
{
    if (g_str_has_prefix(name, "file://")) {
        return name + 7;
    }
    if (g_str_has_prefix(name, "file:")) {
        return name + 5;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(protocols); i++) {
        size_t n = strlen(protocols[i]);
        if (!strncmp(name, protocols[i], n) && name[n] == ':') {
            g_set_error(error, LODGE_ERROR, ENOTSUP, "\"%s:\" images are not supported yet",
                        protocols[i]);
            return NULL;
        }
    }
    return name;
}

static bool find_size(struct file *f, GError **error)
{
    struct stat st;
    if (fstat(f->fd, &st)) {
        error_set_errno(error, errno, "cannot stat");
        return false;
    }
    f->block_device = S_ISBLK(st.st_mode);
    if (S_ISREG(st.st_mode)) {
        f->size = (uint64_t)st.st_size;
        return true;
    }
    if (f->block_device && !ioctl(f->fd, BLKGETSIZE64, &f->size)) {
        return true;
    }
    g_set_error(error, LODGE_ERROR, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
                "not a regular file or block device");
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

static bool open_both(struct file *f, const struct image_options *opts, GError **error)
{
    int mode = (f->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
    f->cached_fd = open(f->path, mode | O_NONBLOCK); /* a fifo must not hold us */
    if (f->cached_fd < 0) {
        error_set_errno(error, errno, "cannot open");
        return false;
    }
    fcntl(f->cached_fd, F_SETFL, 0); /* io_uring takes O_NONBLOCK at its word */
    f->fd = f->cached_fd;
    if (!find_size(f, error)) {
        return false;
    }
    if (opts->direct) {
        int fd = open(f->path, mode | O_DIRECT);
        if (fd < 0) {
            error_set_errno(error, errno, "cannot open with cache=none or cache.direct=on");
            return false;
        }
        f->fd = fd;
        f->direct = true;
        f->align = direct_align(f);
    }
    return true;
}

struct file *file_open(const char *name, const struct image_options *opts, bool read_only,
                       GError **error)
{
    const char *path = local_path(name, error);
    if (!path) {
        return NULL;
    }
    struct file *f = g_new0(struct file, 1);
    *f = (struct file){.path = g_strdup(path), .fd = -1, .cached_fd = -1,
                       .read_only = read_only, .align = 1,
                       .threads = opts->aio && !strcmp(opts->aio, "threads")};
    if (!open_both(f, opts, error) || (!opts->lock_off && !file_lock(f, !read_only, error))) {
        file_close(f);
        return NULL;
    }
    return f;
}

struct file *file_temporary(uint64_t size, GError **error)
{
    const char *dir = g_getenv("TMPDIR");
    dir = dir && *dir ? dir : "/var/tmp";
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
    *f = (struct file){.path = g_strdup(dir), .size = size, .align = 1, .temporary = true};
    f->fd = f->cached_fd = g_steal_fd(&fd);
    return f;
}

void file_close(struct file *f)
{
    if (!f) {
        return;
    }
    if (f->fd >= 0 && f->fd != f->cached_fd) {
        close(f->fd);
    }
    if (f->cached_fd >= 0) {
        close(f->cached_fd);
    }
    g_free(f->path);
    g_free(f);
}

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

bool file_lock(struct file *f, bool write, GError **error)
{
    unsigned uses = 1u << PERM_CONSISTENT_READ | (write ? 1u << PERM_WRITE : 0);
    unsigned denies = 1u << PERM_WRITE | 1u << PERM_RESIZE;
    int fd = f->cached_fd, r = hold(fd, uses, LOCK_USES);
    if (r == 0) {
        r = hold(fd, denies, LOCK_DENIES);
    }
    if (r == -EINVAL || r == -ENOLCK || r == -EOPNOTSUPP) {
        return true; /* a file system without locks */
    }
    int who = r ? PERM_WRITE : held_by_other(fd, uses, LOCK_DENIES);
    who = who < 0 ? held_by_other(fd, denies, LOCK_USES) : who;
    if (who >= 0) {
        g_set_error(error, LODGE_ERROR, EBUSY,
                    "Failed to get \"%s\" lock. Is another process using the image?",
                    perm_names[who]);
        return false;
    }
    return true;
}

/* ---- blocking access, for formats ---- */

int file_read(struct file *f, uint64_t at, void *to, size_t n)
{
    uint8_t *p = to;
    while (n) {
        ssize_t r = pread(f->cached_fd, p, n, (off_t)at);
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

int file_write(struct file *f, uint64_t at, const void *from, size_t n)
{
    const uint8_t *p = from;
    while (n) {
        ssize_t r = pwrite(f->cached_fd, p, n, (off_t)at);
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
    f->size = MAX(f->size, at);
    return 0;
}

uint64_t file_size(const struct file *f)
{
    return f->size;
}
