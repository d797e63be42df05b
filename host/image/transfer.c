/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * transfer: the parts of a request that go between memory and a local file asynchronously.
 *
 * Thread: machine lock held.
 */
#include "host/image/drive.h"

#include <sys/mman.h>

enum { IO_POOL_STEP = 64, IO_POOL_MAX = 8192, ZERO_BYTES = 1 << 20, IOV_MOST = 1024 };

static struct io *free_ios;
static unsigned n_ios;
static const uint8_t *zeroes; /* ZERO_BYTES of them */

void transfer_init(void)
{
    zeroes = mmap(NULL, ZERO_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

void iov_zero(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t bytes)
{
    for (unsigned i = 0; i < n && bytes; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t step = (size_t)MIN(iov[i].iov_len - skip, bytes);
        memset((uint8_t *)iov[i].iov_base + skip, 0, step);
        bytes -= step;
        skip = 0;
    }
}

static struct io *io_new(void)
{
    if (!free_ios && n_ios < IO_POOL_MAX) {
        struct io *more = g_try_new0(struct io, IO_POOL_STEP);
        for (unsigned i = 0; more && i < IO_POOL_STEP; i++) {
            more[i].next = free_ios;
            free_ios = &more[i];
        }
        n_ios += more ? IO_POOL_STEP : 0;
    }
    struct io *io = free_ios;
    if (io) {
        free_ios = io->next;
    }
    return io;
}

static void io_free(struct io *io)
{
    io->next = free_ios;
    free_ios = io;
}

/* Fills .part with the next pieces of what is left. */
static void cut_parts(struct io *io)
{
    uint64_t left = io->left;
    size_t skip = io->skip;
    unsigned n = 0;
    for (unsigned i = 0; n < IO_PARTS && left && (io->zeroes || i < io->niov); i++) {
        struct iovec v = {(void *)(uintptr_t)zeroes, ZERO_BYTES};
        if (!io->zeroes) {
            v = io->iov[i];
        }
        if (!io->zeroes && skip >= v.iov_len) {
            skip -= v.iov_len;
            continue;
        }
        if (!io->zeroes) {
            v.iov_base = (uint8_t *)v.iov_base + skip;
            v.iov_len -= skip;
            skip = 0;
        }
        v.iov_len = (size_t)MIN(v.iov_len, left);
        left -= v.iov_len;
        io->part[n++] = v;
    }
    io->now_iov = io->part;
    io->now_niov = n;
}

static bool aligned(const struct io *io)
{
    uint64_t bits = io->at;
    for (unsigned i = 0; i < io->now_niov; i++) {
        bits |= (uintptr_t)io->now_iov[i].iov_base | io->now_iov[i].iov_len;
    }
    return !(bits & (io->file->align - 1));
}

static void io_step(struct io *io)
{
    bool moves = io->kind == IO_READ || io->kind == IO_WRITE;
    bool whole = !io->zeroes && !io->skip && io->left == io->req->bytes && io->niov <= IOV_MOST;
    if (moves && whole) {
        io->now_iov = io->iov;
        io->now_niov = io->niov;
    } else if (moves) {
        cut_parts(io);
    }
    io->fd = io->file->direct && moves && !aligned(io) ? io->file->cached_fd : io->file->fd;
    io_start(io);
}

void transfer_start(struct image_request *req, struct file *file, enum io_kind kind, uint64_t at,
                    uint64_t bytes, size_t skip)
{
    struct io *io = io_new();
    req->pending++;
    if (kind == IO_WRITE || kind == IO_ZERO) {
        file_writes_to(file, at + bytes);
    }
    if (!io) {
        request_put(req, -ENOMEM);
        return;
    }
    *io = (struct io){.req = req, .file = file, .kind = kind, .at = at, .left = bytes,
                      .dsync = req->image->writethrough && kind == IO_WRITE,
                      .zeroes = req->op == IMAGE_ZERO, .iov = req->iov, .niov = req->niov,
                      .skip = skip};
    io_step(io);
}

/* What an error of a transfer means: to go on in another way (0), or the end of it. */
static int io_recover(struct io *io, int error)
{
    if (io->kind == IO_WAIT) {
        return error;
    }
    if (error == -EINTR || error == -EAGAIN) {
        return 0;
    }
    if (error == -EINVAL && io->file->direct && io->fd == io->file->fd) {
        io->file->align = UINT32_C(1) << 31; /* its real rules are stricter than we know */
        return 0;
    }
    if (io->kind == IO_ZERO && (error == -EOPNOTSUPP || error == -EINVAL || error == -ENODEV)) {
        io->kind = IO_WRITE;
        return 0;
    }
    return error;
}

/* Advisory: a file system that cannot give space back is none the worse for it. */
static bool is_harmless(const struct io *io, int error)
{
    return io->kind == IO_PUNCH && (error == -EOPNOTSUPP || error == -ENODEV);
}

void io_ended(struct io *io)
{
    struct image_request *req = io->req;
    int error = io->result < 0 ? (int)io->result : 0;
    if (error && !is_harmless(io, error)) {
        error = io_recover(io, error);
        if (!error) {
            io_step(io);
            return;
        }
    } else if (io->kind == IO_READ || io->kind == IO_WRITE) {
        uint64_t n = (uint64_t)io->result;
        io->at += n;
        io->left -= n;
        io->skip += n;
        if (io->kind == IO_WRITE) {
            file_grown(io->file, io->at);
        }
        if (n && io->left) {
            io_step(io);
            return;
        }
        if (io->left && io->kind == IO_READ) {
            iov_zero(io->iov, io->niov, io->skip, io->left); /* beyond the end of the file */
        } else if (io->left) {
            error = -ENOSPC;
        }
    } else {
        error = 0;
    }
    io_free(io);
    request_put(req, error);
}
