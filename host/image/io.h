/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/image.h"
#include "host/image/protocol.h"

/*
 * Inside host/image: the two ways to do asynchronous I/O, io_uring for local files and a
 * pool of threads, which also runs requests that must wait for something else (IO_WAIT).
 */
enum io_kind { IO_READ, IO_WRITE, IO_SYNC, IO_PUNCH, IO_ZERO, IO_WAIT };
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

/* All of a request in blocking form, on one of the threads. */
int request_run(struct image_request *req);
