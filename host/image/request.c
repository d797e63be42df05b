/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * request: what becomes of a drive's requests.
 *
 * Where the format knows at once that the bytes lie plainly in local files, a request is cut
 * along the extents into transfers (transfer.c).  Everything else (metadata to be read, new
 * space, compressed or encrypted data, network) goes to a thread that does it in blocking
 * form (chain.h).  When its last part has ended a request joins the finished ones, and the
 * event source in image.c calls .done from the main loop, or the device does that has just
 * submitted some (image_poll()).  Nothing completes inside image_submit().
 */
#include "host/image/drive.h"

#include "base/util.h"
#include "host/image/dirty.h"

#include <time.h>

enum { FAST_EXTENTS = 16, GATHER = 1 << 20 };

static struct {
    struct image_request *first, **end;
} finished = {.end = &finished.first};
static bool polling; /* somebody looks at .finished next */

void (*image_failed)(Image *img, bool write, int error, enum image_on_error action);

/* ---- the end of a request ---- */

bool requests_over(void)
{
    return finished.first != NULL;
}

static bool is_change(const struct image_request *req)
{
    return req->op != IMAGE_READ && req->op != IMAGE_FLUSH;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void count(struct image *img, const struct image_request *req)
{
    struct image_stats *s = &img->stats;
    uint64_t ns = (uint64_t)(now_ns() - req->started), bad = req->result < 0;
    switch (req->op) {
    case IMAGE_READ:
        s->rd_ops++;
        s->rd_ns += ns;
        s->rd_failed += bad;
        s->rd_bytes += req->bytes;
        break;
    case IMAGE_WRITE:
        s->wr_ops++;
        s->wr_ns += ns;
        s->wr_failed += bad;
        s->wr_bytes += req->bytes;
        s->wr_highest = MAX(s->wr_highest, req->offset + req->bytes);
        break;
    case IMAGE_FLUSH:
        s->flush_ops++;
        s->flush_ns += ns;
        s->flush_failed += bad;
        break;
    case IMAGE_DISCARD:
    case IMAGE_ZERO:
        break;
    }
}

static void finish(struct image_request *req)
{
    if (req->track.at) { /* what went to a thread was recorded there */
        if (is_change(req)) {
            dirty_record(req->image->top, req->offset, req->bytes);
        }
        track_end(req->image->top, &req->track);
    }
    if (req->started) {
        count(req->image, req);
    }
    if (req->image->job && is_change(req)) {
        job_after_write(req->image->job, req->offset, req->bytes);
    }
    if (req->waits) {
        req->image->running--;
        return;
    }
    if (!finished.first) {
        finished.end = &finished.first;
        if (!polling) {
            g_main_context_wakeup(NULL);
        }
    }
    req->next = NULL;
    *finished.end = req;
    finished.end = &req->next;
}

void request_put(struct image_request *req, int result)
{
    if (result < 0 && !req->result) {
        req->result = result;
    }
    if (!--req->pending) {
        finish(req);
    }
}

/* ---- in blocking form, on a thread ---- */

static void copy_iov(const struct image_request *req, uint64_t skip, uint8_t *buf, uint64_t n,
                     bool to_iov)
{
    for (unsigned i = 0; i < req->niov && n; i++) {
        const struct iovec *v = &req->iov[i];
        if (skip >= v->iov_len) {
            skip -= v->iov_len;
            continue;
        }
        size_t step = (size_t)MIN(v->iov_len - skip, n);
        uint8_t *at = (uint8_t *)v->iov_base + skip;
        memcpy(to_iov ? at : buf, to_iov ? buf : at, step);
        buf += step;
        n -= step;
        skip = 0;
    }
}

/* Scattered memory goes through a buffer, so that the format sees large pieces. */
static int move_scattered(const struct image_request *req)
{
    static GPrivate key = G_PRIVATE_INIT(g_free);
    struct node *top = req->image->top;
    bool read = req->op == IMAGE_READ;
    uint8_t *buf = thread_buffer(&key, GATHER);
    int r = buf ? 0 : -ENOMEM;
    for (uint64_t done = 0; r == 0 && done < req->bytes;) {
        uint64_t step = MIN(req->bytes - done, GATHER - ((req->offset + done) & (GATHER - 1)));
        if (read) {
            r = chain_read(top, req->offset + done, buf, step);
            copy_iov(req, done, buf, step, true);
        } else {
            copy_iov(req, done, buf, step, false);
            r = chain_write(top, req->offset + done, buf, step);
        }
        done += step;
    }
    return r;
}

static bool is_all_zero(const struct image_request *req)
{
    for (unsigned i = 0; i < req->niov; i++) {
        const uint8_t *p = req->iov[i].iov_base;
        size_t n = req->iov[i].iov_len;
        if (n && (p[0] || memcmp(p, p + 1, n - 1))) {
            return false;
        }
    }
    return true;
}

int request_run(struct image_request *req)
{
    struct node *top = req->image->top;
    if (req->image->job && is_change(req)) {
        job_before_write(req->image->job, req->offset, req->bytes);
    }
    switch (req->op) {
    case IMAGE_FLUSH:
        return chain_flush(top);
    case IMAGE_DISCARD:
        return chain_zero(top, req->offset, req->bytes, ZERO_DISCARD);
    case IMAGE_ZERO:
        return chain_zero(top, req->offset, req->bytes,
                          req->may_unmap && req->image->discard ? ZERO_UNMAP : ZERO_KEEP);
    case IMAGE_READ:
        return req->niov == 1 ? chain_read(top, req->offset, req->iov->iov_base, req->bytes)
                              : move_scattered(req);
    case IMAGE_WRITE:
        if (req->image->zeroes && is_all_zero(req)) {
            return chain_zero(top, req->offset, req->bytes,
                              req->image->zeroes == IMAGE_ZEROES_UNMAP ? ZERO_UNMAP : ZERO_KEEP);
        }
        return req->niov == 1 ? chain_write(top, req->offset, req->iov->iov_base, req->bytes)
                              : move_scattered(req);
    }
    return -EINVAL;
}

static void submit_to_thread(struct image *img, struct image_request *req)
{
    transfer_start(req, img->top->file, IO_WAIT, 0, 0, 0);
}

/* ---- at once ---- */

static int map_now(struct node *n, uint64_t offset, uint64_t length, struct extent *out)
{
    if (!g_mutex_trylock(&n->lock)) {
        return -EAGAIN;
    }
    *out = (struct extent){0};
    int r = n->format->map(n, offset, length, false, out);
    g_mutex_unlock(&n->lock);
    out->length = MIN(out->length, length);
    out->file = out->file ? out->file : n->file;
    return r ? r : out->length ? 0 : -EIO;
}

/* DATA lies plainly in a local file, or it is not known at once (-EAGAIN). */
static bool is_plain(const struct node *n, const struct extent *e)
{
    return e->kind == EXTENT_DATA && !n->cipher && e->file->fd >= 0 &&
           (n->format->flat || e->at < file_size(e->file));
}

/* Descends to the node that answers for @offset. */
static int find_now(struct node *n, uint64_t offset, uint64_t length, struct extent *out)
{
    for (; n && offset < n->size; n = n->backing) {
        int r = map_now(n, offset, MIN(length, n->size - offset), out);
        if (r < 0) {
            return r;
        }
        if (out->kind == EXTENT_ZERO || is_plain(n, out)) {
            return 0;
        }
        if (out->kind != EXTENT_ABSENT || (n->flags & OPEN_COPY_ON_READ)) {
            return -EAGAIN;
        }
        length = out->length;
    }
    *out = (struct extent){.kind = EXTENT_ZERO, .length = length};
    return 0;
}

static int find_in_place(struct node *n, uint64_t offset, uint64_t length, struct extent *out)
{
    int r = map_now(n, offset, length, out);
    return r ? r : is_plain(n, out) && out->in_place ? 0 : -EAGAIN;
}

static enum io_kind write_kind(const struct image *img, const struct image_request *req)
{
    if (req->op == IMAGE_WRITE) {
        return IO_WRITE;
    }
    if (req->op == IMAGE_DISCARD || (req->may_unmap && img->discard)) {
        return IO_PUNCH;
    }
    return IO_ZERO;
}

/* All extents are looked up before the first transfer starts. */
static bool submit_now(struct image *img, struct image_request *req)
{
    struct extent plan[FAST_EXTENTS];
    bool read = req->op == IMAGE_READ;
    unsigned n = 0;
    int r = 0;
    if (!track_try(img->top, &req->track, req->offset, req->bytes)) {
        return false;
    }
    for (uint64_t done = 0; r == 0 && done < req->bytes; done += r ? 0 : plan[n++].length) {
        uint64_t at = req->offset + done, left = req->bytes - done;
        r = n == FAST_EXTENTS ? -EAGAIN
            : read            ? find_now(img->top, at, left, &plan[n])
                              : find_in_place(img->top, at, left, &plan[n]);
    }
    if (r < 0) {
        track_end(img->top, &req->track);
        return false;
    }
    uint64_t done = 0;
    for (unsigned i = 0; i < n; i++) {
        if (plan[i].kind == EXTENT_DATA) {
            transfer_start(req, plan[i].file, read ? IO_READ : write_kind(img, req), plan[i].at,
                           plan[i].length, (size_t)done);
        } else {
            iov_zero(req->iov, req->niov, done, plan[i].length);
        }
        done += plan[i].length;
    }
    return true;
}

static bool submit_flush_now(struct image *img, struct image_request *req)
{
    struct node *top = img->top;
    if (img->no_flush || top->file->read_only) {
        return true;
    }
    if (top->format->flush || top->file->fd < 0) {
        return false;
    }
    transfer_start(req, top->file, IO_SYNC, 0, 0, 0);
    return true;
}

/* Also one that this build cannot open: other programs can. */
static bool is_other_format(const uint8_t *head, size_t n, const char *file)
{
    return image_probe_name(head, n) || strcmp(format_probe(head, n, file)->name, "raw") != 0;
}

/* Would these bytes at the start make a guessed raw image look like another format? */
static bool guard_allows(struct image *img, uint64_t offset, const struct iovec *iov, unsigned n,
                         uint64_t bytes)
{
    uint8_t head[PROBE_BYTES];
    if (!img->guarded || offset >= sizeof(head)) {
        return true;
    }
    memcpy(head, img->head, sizeof(head));
    uint64_t at = offset, end = MIN(offset + bytes, sizeof(head));
    if (!iov) {
        memset(head + at, 0, end - at);
    }
    for (unsigned i = 0; i < n && at < end; i++) {
        size_t step = (size_t)MIN(iov[i].iov_len, end - at);
        memcpy(head + at, iov[i].iov_base, step);
        at += step;
    }
    if (is_other_format(head, sizeof(head), img->file)) {
        return false;
    }
    memcpy(img->head, head, sizeof(head));
    return true;
}

static int check(struct image *img, const struct image_request *req)
{
    bool writes = req->op != IMAGE_READ && req->op != IMAGE_FLUSH;
    if (!img->top) {
        return -ENOMEDIUM;
    }
    if (req->op == IMAGE_FLUSH) {
        return 0;
    }
    if (req->offset > img->top->size || req->bytes > img->top->size - req->offset) {
        return -EIO;
    }
    if (!writes) {
        return 0;
    }
    if (img->read_only) {
        return -EROFS;
    }
    bool data = req->op == IMAGE_WRITE;
    return req->op == IMAGE_DISCARD || guard_allows(img, req->offset, data ? req->iov : NULL,
                                                    data ? req->niov : 0, req->bytes)
               ? 0
               : -EPERM;
}

static void route(struct image *img, struct image_request *req)
{
    bool started = false, flat = img->top->format->flat;
    bool at_once = !img->job || !job_wants_before(img->job);
    switch (req->op) {
    case IMAGE_FLUSH:
        started = submit_flush_now(img, req);
        break;
    case IMAGE_DISCARD:
        if (!img->discard) {
            return; /* the guest may ask, nobody has to do it */
        }
        /* fall through */
    case IMAGE_ZERO:
        started = flat && at_once && submit_now(img, req);
        break;
    case IMAGE_READ:
        started = submit_now(img, req);
        break;
    case IMAGE_WRITE:
        started = !img->zeroes && at_once && submit_now(img, req);
        break;
    }
    if (!started) {
        submit_to_thread(img, req);
    }
}

/* ---- limits ---- */

static gboolean go_on(gpointer image);

static void start_timer(struct image *img, int64_t microseconds)
{
    if (!img->timer) {
        img->timer = g_timeout_add((guint)(microseconds / 1000 + 1), go_on, img);
    }
}

/* Lets those go whose turn it is. */
static gboolean go_on(gpointer image)
{
    struct image *img = image;
    img->timer = 0;
    while (img->waiting) {
        struct image_request *req = img->waiting;
        int64_t wait =
            throttle_take(img->throttle, req->op != IMAGE_READ, req->bytes, g_get_monotonic_time());
        if (wait) {
            start_timer(img, wait);
            break;
        }
        img->waiting = req->next;
        route(img, req);
        request_put(req, req->result);
    }
    return G_SOURCE_REMOVE;
}

/* All at once: somebody waits for the drive to come to rest. */
static void end_waiting(struct image *img)
{
    while (img->waiting) {
        struct image_request *req = img->waiting;
        img->waiting = req->next;
        route(img, req);
        request_put(req, req->result);
    }
    g_clear_handle_id(&img->timer, g_source_remove);
}

static bool must_wait(struct image *img, struct image_request *req)
{
    if (req->op == IMAGE_FLUSH || req->waits || !throttle_is_on(img->throttle)) {
        return false;
    }
    int64_t wait = img->waiting ? 1
                                : throttle_take(img->throttle, req->op != IMAGE_READ, req->bytes,
                                                g_get_monotonic_time());
    if (!wait) {
        return false;
    }
    img->waiting_end = img->waiting ? img->waiting_end : &img->waiting;
    req->next = NULL;
    *img->waiting_end = req;
    img->waiting_end = &req->next;
    start_timer(img, wait);
    return true;
}

void image_set_limits(Image *img, const struct throttle_limits *limits)
{
    struct throttle *t = img->throttle;
    *t = (struct throttle){.limits = *limits, .leaked_at = g_get_monotonic_time()};
    for (struct image *other = images; other; other = other->next) {
        if (other->throttle == t) {
            end_waiting(other);
        }
    }
}

void image_join_group(Image *img, const char *name)
{
    struct throttle_group *old = img->group;
    img->group = name ? throttle_group_join(name) : NULL;
    img->throttle = name ? &img->group->throttle : &img->own_throttle;
    throttle_group_leave(old);
    end_waiting(img);
}

const char *image_group(const Image *img)
{
    return img->group ? img->group->name : NULL;
}

struct throttle_limits image_limits(const Image *img)
{
    return img->throttle->limits;
}

void image_submit(Image *img, struct image_request *req)
{
    req->image = img;
    req->pending = 1;
    req->track.at = NULL;
    req->started = 0;
    img->running++;
    req->result = check(img, req);
    if (!req->result) {
        req->started = now_ns();
        if (must_wait(img, req)) {
            return;
        }
        route(img, req);
    }
    request_put(req, req->result);
}

static enum image_on_error action_for(const struct image *img, const struct image_request *req)
{
    bool read = req->op == IMAGE_READ;
    enum image_on_error a = read ? img->on_read_error : img->on_write_error;
    if (a == IMAGE_ON_ERROR_DEFAULT) {
        a = read ? IMAGE_ON_ERROR_REPORT : IMAGE_ON_ERROR_ENOSPC;
    }
    if (a == IMAGE_ON_ERROR_ENOSPC) {
        a = req->result == -ENOSPC ? IMAGE_ON_ERROR_STOP : IMAGE_ON_ERROR_REPORT;
    }
    return a == IMAGE_ON_ERROR_STOP && !image_failed ? IMAGE_ON_ERROR_REPORT : a;
}

/* True if the request is not over: it waits for the machine to go on. */
static bool held_by_error(struct image *img, struct image_request *req)
{
    int r = req->result;
    if (r >= 0 || r == -ENOMEDIUM || r == -EROFS || r == -EINVAL || r == -EPERM) {
        return false; /* no failure of the host */
    }
    enum image_on_error action = action_for(img, req);
    if (image_failed) {
        image_failed(img, req->op != IMAGE_READ, -r, action);
    }
    if (action == IMAGE_ON_ERROR_IGNORE) {
        req->result = 0;
    }
    if (action == IMAGE_ON_ERROR_STOP) {
        req->next = img->held;
        img->held = req;
    }
    return action == IMAGE_ON_ERROR_STOP;
}

void run_finished(void)
{
    while (finished.first) {
        struct image_request *req = finished.first;
        finished.first = req->next;
        req->image->running--;
        if (!held_by_error(req->image, req)) {
            req->done(req, req->result);
        }
    }
}

/* The first that went well of @img's. */
static struct image_request *take_finished(const struct image *img)
{
    struct image_request **at = &finished.first, *req;
    while ((req = *at) && (req->image != img || req->result < 0)) {
        at = &req->next;
    }
    if (req) {
        *at = req->next;
        finished.end = req->next ? finished.end : at;
    }
    return req;
}

void image_poll(Image *img)
{
    struct image_request *req;
    if (polling || !img->running || (!io_has_ended() && !requests_over())) {
        return;
    }
    polling = true;
    io_reap(false);
    while ((req = take_finished(img))) {
        img->running--;
        req->done(req, req->result);
    }
    polling = false;
    if (finished.first) {
        g_main_context_wakeup(NULL);
    }
}

void image_retry_held(void)
{
    for (struct image *img = images; img; img = img->next) {
        struct image_request *req = g_steal_pointer(&img->held);
        while (req) {
            struct image_request *next = req->next;
            image_submit(img, req);
            req = next;
        }
    }
}

int image_held_for(const Image *img)
{
    return img->held ? -img->held->result : 0;
}

bool image_holds_failed(void)
{
    for (struct image *img = images; img; img = img->next) {
        if (img->held) {
            return true;
        }
    }
    return false;
}

void image_plug(void)
{
    io_plug();
}

void image_unplug(void)
{
    io_unplug();
}

static void wait_for(struct image *img)
{
    while (img->running) {
        end_waiting(img);
        run_finished();
        if (img->running) {
            io_reap(true);
        }
    }
}

void image_drain(Image *img)
{
    while (img->running || img->held) {
        wait_for(img);
        struct image_request *req = img->held;
        if (req) {
            img->held = req->next;
            req->done(req, req->result);
        }
    }
}

void image_drain_all(void)
{
    for (struct image *img = images; img;) {
        bool busy = img->running;
        wait_for(img);
        img = busy ? images : img->next; /* its .done may have started something elsewhere */
    }
}

/* ---- blocking forms ---- */

/* Other requests go on meanwhile, but their .done waits for the main loop. */
static int run_waiting(Image *img, struct image_request *req)
{
    req->waits = true;
    image_submit(img, req);
    while (req->pending) {
        io_reap(true);
    }
    return req->result;
}

int image_read(Image *img, uint64_t offset, void *to, uint64_t bytes)
{
    struct iovec iov = {to, bytes};
    struct image_request req = {
        .op = IMAGE_READ, .offset = offset, .bytes = bytes, .iov = &iov, .niov = 1};
    return run_waiting(img, &req);
}

int image_write(Image *img, uint64_t offset, const void *from, uint64_t bytes)
{
    struct iovec iov = {(void *)(uintptr_t)from, bytes};
    struct image_request req = {
        .op = IMAGE_WRITE, .offset = offset, .bytes = bytes, .iov = &iov, .niov = 1};
    return run_waiting(img, &req);
}

int image_flush(Image *img)
{
    struct image_request req = {.op = IMAGE_FLUSH};
    return img->top && !img->read_only ? run_waiting(img, &req) : 0;
}
