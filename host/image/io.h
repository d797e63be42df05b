/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/image.h"

/*
 * Inside host/image: local files and the two ways to do asynchronous I/O on them, io_uring
 * and a small pool of threads (for containers whose seccomp filter forbids io_uring).
 */
struct file {
    char *path;
    int fd;        /* what requests go to; O_DIRECT if .direct */
    int cached_fd; /* through the page cache: start-up, and requests that are not aligned */
    uint64_t size;
    uint32_t align; /* of offset, length and memory, for .fd */
    bool read_only, direct, block_device, temporary;
    bool threads; /* aio=threads */
};

struct file *file_open(const char *path, const struct image_options *opts, bool read_only,
                       GError **error);
/* A file without a name that goes away with us. */
struct file *file_temporary(uint64_t size, GError **error);
void file_close(struct file *f);
/* QEMU's byte locks: what we do with the file and what we do not let others do. */
bool file_lock(struct file *f, bool write, GError **error);

enum io_kind { IO_READ, IO_WRITE, IO_SYNC, IO_PUNCH, IO_ZERO };
enum { IO_PARTS = 16 };

/* One transfer between a file and memory; pooled, made and ended with the machine lock held. */
struct io {
    struct io *next;
    struct image_request *req;
    struct file *file;
    int fd;
    enum io_kind kind;
    bool dsync;                /* a write is on the medium when it ends */
    bool zeroes;               /* writes zeroes: .iov is not used */
    uint64_t at, left;         /* file offset, bytes still to do */
    const struct iovec *iov;
    unsigned niov;
    size_t skip;               /* bytes of .iov before the transfer */
    const struct iovec *now_iov; /* what is being transferred: .iov or .part */
    unsigned now_niov;
    struct iovec part[IO_PARTS];
    ssize_t result;            /* bytes, or a negative errno value */
};

/* Starts; io_ended() is called from io_reap(). */
void io_start(struct io *io);
/* Between them starts are only collected. */
void io_plug(void);
void io_unplug(void);
/* Calls io_ended() for all that have; waits for one if @wait and there is one under way. */
void io_reap(bool wait);
void io_ended(struct io *io); /* the core's */
unsigned io_running(void);

/* For the event source: descriptors that become readable when something ended. */
void io_init(void);
unsigned io_fds(int fds[2]);
bool io_has_ended(void);
/* The blocking form of one step, used by the threads. */
ssize_t io_do(const struct io *io);

/* Which image format the first bytes are of; NULL: none that we know. */
const char *image_probe_name(const uint8_t *head, size_t n);
enum { PROBE_BYTES = 512 };
