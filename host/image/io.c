/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * io: asynchronous transfers, by io_uring where the kernel lets us, else by threads.
 *
 * Everything but worker() runs with the machine lock held, so rings and lists need no lock
 * of their own.
 */
#include "host/image/io.h"

#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

enum { RING_ENTRIES = 256, WORKERS = 8 };

static struct {
    struct io_uring ring;
    bool up;
    unsigned plugged, collected; /* collected: prepared, not yet submitted */
    unsigned running;
} uring = {.ring.ring_fd = -1};

/* .lock guards the two lists; .todo and .done are linked by .next. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t thread[WORKERS];
    unsigned started, running;
    int event;
    struct io *todo, **todo_end, *done;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER, .event = -1};

/* ---- threads ---- */

static int do_fallocate(const struct io *io)
{
    int mode = io->kind == IO_PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    return fallocate(io->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)io->at, (off_t)io->left);
}

ssize_t io_do(const struct io *io)
{
    ssize_t r = -1;
    switch (io->kind) {
    case IO_READ:
        r = preadv(io->fd, io->now_iov, (int)io->now_niov, (off_t)io->at);
        break;
    case IO_WRITE:
        r = pwritev2(io->fd, io->now_iov, (int)io->now_niov, (off_t)io->at,
                     io->dsync ? RWF_DSYNC : 0);
        break;
    case IO_SYNC:
        r = fdatasync(io->fd);
        break;
    case IO_PUNCH:
    case IO_ZERO:
        r = do_fallocate(io);
        break;
    case IO_WAIT:
        return request_run(io->req);
    }
    return r < 0 ? -errno : r;
}

static struct io *next_todo(void)
{
    pthread_mutex_lock(&pool.lock);
    while (!pool.todo) {
        pthread_cond_wait(&pool.more, &pool.lock);
    }
    struct io *io = pool.todo;
    pool.todo = io->next;
    pthread_mutex_unlock(&pool.lock);
    return io;
}

static void *worker(void *unused)
{
    (void)unused;
    for (;;) {
        struct io *io = next_todo();
        io->result = io_do(io);
        pthread_mutex_lock(&pool.lock);
        io->next = pool.done;
        pool.done = io;
        pthread_mutex_unlock(&pool.lock);
        eventfd_write(pool.event, 1);
    }
    return NULL;
}

/* Workers live as long as the process. */
static void pool_start(struct io *io)
{
    pthread_mutex_lock(&pool.lock);
    io->next = NULL;
    if (!pool.todo) {
        pool.todo_end = &pool.todo;
    }
    *pool.todo_end = io;
    pool.todo_end = &io->next;
    pthread_cond_signal(&pool.more);
    pthread_mutex_unlock(&pool.lock);
    if (pool.running++ >= pool.started && pool.started < WORKERS &&
        !pthread_create(&pool.thread[pool.started], NULL, worker, NULL)) {
        pool.started++;
    }
}

static bool pool_has_done(void)
{
    pthread_mutex_lock(&pool.lock);
    bool has = pool.done;
    pthread_mutex_unlock(&pool.lock);
    return has;
}

static void pool_reap(bool wait)
{
    eventfd_t n;
    if (wait && pool.running && !pool_has_done()) {
        struct pollfd p = {.fd = pool.event, .events = POLLIN};
        poll(&p, 1, -1);
    }
    eventfd_read(pool.event, &n);
    pthread_mutex_lock(&pool.lock);
    struct io *list = pool.done;
    pool.done = NULL;
    pthread_mutex_unlock(&pool.lock);
    while (list) {
        struct io *io = list;
        list = io->next;
        pool.running--;
        io_ended(io);
    }
}

/* ---- io_uring ---- */

static void uring_submit(void)
{
    if (uring.collected) {
        int n = io_uring_submit(&uring.ring); /* what it does not take goes with the next */
        uring.collected -= (unsigned)MAX(n, 0);
    }
}

static void prepare(struct io_uring_sqe *sqe, struct io *io)
{
    switch (io->kind) {
    case IO_READ:
        io_uring_prep_readv(sqe, io->fd, io->now_iov, io->now_niov, io->at);
        break;
    case IO_WRITE:
        io_uring_prep_writev2(sqe, io->fd, io->now_iov, io->now_niov, io->at,
                              io->dsync ? RWF_DSYNC : 0);
        break;
    case IO_SYNC:
        io_uring_prep_fsync(sqe, io->fd, IORING_FSYNC_DATASYNC);
        break;
    case IO_PUNCH:
    case IO_ZERO:
        io_uring_prep_fallocate(sqe, io->fd,
                                FALLOC_FL_KEEP_SIZE | (io->kind == IO_PUNCH
                                                           ? FALLOC_FL_PUNCH_HOLE
                                                           : FALLOC_FL_ZERO_RANGE),
                                (off_t)io->at, (off_t)io->left);
        break;
    case IO_WAIT:
        break; /* never here */
    }
    io_uring_sqe_set_data(sqe, io);
}

static bool uring_start(struct io *io)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring.ring);
    if (!sqe) {
        uring_submit();
        sqe = io_uring_get_sqe(&uring.ring);
    }
    if (!sqe) {
        return false;
    }
    prepare(sqe, io);
    uring.running++;
    uring.collected++;
    if (!uring.plugged) {
        uring_submit();
    }
    return true;
}

static void uring_reap(bool wait)
{
    struct io_uring_cqe *cqe;
    uring_submit();
    if (wait && uring.running && io_uring_wait_cqe(&uring.ring, &cqe) < 0) {
        return;
    }
    while (!io_uring_peek_cqe(&uring.ring, &cqe)) {
        struct io *io = io_uring_cqe_get_data(cqe);
        io->result = cqe->res;
        io_uring_cqe_seen(&uring.ring, cqe);
        uring.running--;
        io_ended(io);
    }
}

/* ---- both ---- */

void io_init(void)
{
    if (pool.event < 0) {
        pool.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        uring.up = io_uring_queue_init(RING_ENTRIES, &uring.ring, 0) == 0;
    }
}

unsigned io_fds(int fds[2])
{
    fds[0] = pool.event;
    fds[1] = uring.ring.ring_fd;
    return uring.up ? 2 : 1;
}

void io_start(struct io *io)
{
    bool threads = io->kind == IO_WAIT || io->file->flags & OPEN_THREADS;
    if (!uring.up || threads || !uring_start(io)) {
        pool_start(io);
    }
}

void io_plug(void)
{
    uring.plugged++;
}

void io_unplug(void)
{
    if (!--uring.plugged) {
        uring_submit();
    }
}

unsigned io_running(void)
{
    return uring.running + pool.running;
}

bool io_has_ended(void)
{
    return (uring.up && io_uring_cq_ready(&uring.ring)) || (pool.running && pool_has_done());
}

void io_reap(bool wait)
{
    if (uring.up) {
        uring_reap(wait && !pool.running);
    }
    if (pool.running) {
        pool_reap(wait && !uring.running);
        if (wait && uring.running && pool.running) {
            g_usleep(100); /* both at once: rare, and only while draining */
        }
    }
}
