/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/tool/convert.h"
#include "host/image/tool/tool.h"

#include "base/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/*
 * The engine of convert.  Each thread does the same: cut a piece (under .cut_lock), read it, pack
 * it, write it.  If the sink wants order a piece that is early is left to the thread that
 * writes at the moment, so that nobody sleeps while there is something to read.
 */
enum { SECTOR = 512, ALIGN = 4096 };

/* A piece on its way, with its buffers. */
struct job {
    struct engine *e;
    struct piece piece;
    uint8_t *packed; /* units of this piece, packed, each in .packed_max bytes */
    int64_t *stored; /* bytes of each; 0: all zero, -1: kept as it is */
    size_t n_units;
    struct job *next; /* of the free ones */
};

enum { JOBS_PER_THREAD = 3, JOBS_MAX = THREADS_MAX * JOBS_PER_THREAD };

struct engine {
    struct copy *copy;
    GMutex lock;
    GCond moved; /* a job came back, or .error is set */
    struct job jobs[JOBS_MAX], *free_jobs;
    struct job *waiting[JOBS_MAX]; /* for their turn, at turn % n_jobs */
    unsigned n_jobs;
    uint64_t turn; /* whose turn it is to be written */
    bool writing;  /* somebody writes what is .waiting */
    int error;
    uint64_t done;     /* guest bytes whose fate is settled */
    uint64_t copied;   /* of those: that were data, for .rate */
    int64_t started;   /* us, for .rate */
    size_t packed_max; /* of a unit: what takes more is kept as it is */
    GMutex cut_lock;   /* of the feed and: */
    uint64_t cut;      /* pieces cut so far */
    bool ended;
};

/* Only the first failure counts. */
static void fail(struct engine *e, int error, uint64_t at, bool writing)
{
    g_mutex_lock(&e->lock);
    if (!e->error) {
        e->error = error;
        e->copy->failed_at = at;
        e->copy->failed_writing = writing;
    }
    g_cond_broadcast(&e->moved);
    g_mutex_unlock(&e->lock);
}

/* Sleeps until what has been copied would have taken so long at the rate that was asked for. */
static void keep_rate(const struct engine *e, uint64_t copied)
{
    const struct copy *c = e->copy;
    if (c->rate) {
        int64_t due = e->started + (int64_t)((double)copied * 1e6 / (double)c->rate);
        int64_t now = g_get_monotonic_time();
        if (due > now) {
            g_usleep((gulong)(due - now));
        }
    }
}

/* False: there is none, or somebody failed.  The feed may wait for a pipe, so others that have
 * something to write do not wait for .cut_lock. */
static bool cut(struct engine *e, struct piece *p)
{
    g_mutex_lock(&e->lock);
    uint64_t copied = e->copied;
    bool more = !e->error;
    g_mutex_unlock(&e->lock);
    keep_rate(e, copied);
    g_mutex_lock(&e->cut_lock);
    more = more && !e->ended;
    int error = more ? e->copy->feed->next(e->copy->feed, p) : 0;
    e->ended |= more && (error || p->kind == PIECE_END);
    more = more && !e->ended;
    p->turn = e->cut;
    e->cut += more;
    g_mutex_unlock(&e->cut_lock);
    if (error) {
        fail(e, error, p->offset, false);
    }
    return more;
}

/* What cannot be read becomes zeros, sector by sector, with a warning each. */
static void salvage(struct engine *e, struct piece *p)
{
    struct piece part = *p;
    for (uint64_t done = 0; done < p->length; done += part.length) {
        part.offset = p->offset + done;
        part.data = p->data + done;
        part.length = MIN(SECTOR, p->length - done);
        int error = e->copy->feed->read(e->copy->feed, &part);
        if (error) {
            memset(part.data, 0, part.length);
            if (!e->copy->quiet) {
                tool_warn("error while reading offset %" PRIu64 ": %s", part.offset,
                          g_strerror(-error));
            }
        }
    }
}

static bool fetch(struct engine *e, struct piece *p)
{
    p->offloaded = e->copy->offload && p->kind == PIECE_DATA && p->from && e->copy->sink->offload;
    if (p->kind != PIECE_DATA || p->offloaded) {
        return true;
    }
    int error = e->copy->feed->read(e->copy->feed, p);
    if (error && e->copy->salvage) {
        salvage(e, p);
        error = 0;
    }
    if (error) {
        fail(e, error, p->offset, false);
    }
    return !error;
}

/* Packs each unit on its own; the last of the disk is filled up with zeros. */
static bool pack(struct job *w)
{
    const struct sink *s = w->e->copy->sink;
    struct piece *p = &w->piece;
    if (!s->codec || p->kind != PIECE_DATA) {
        return true;
    }
    uint64_t whole = (p->length + s->unit - 1) / s->unit * s->unit;
    memset(p->data + p->length, 0, whole - p->length);
    w->n_units = whole / s->unit;
    for (size_t i = 0; i < w->n_units; i++) {
        const uint8_t *unit = p->data + i * s->unit;
        if (s->starts_zero && w->e->copy->sparse && is_zero(unit, s->unit)) {
            w->stored[i] = 0;
            continue;
        }
        int64_t n = s->codec->pack(unit, s->unit, w->packed + i * w->e->packed_max,
                                   w->e->packed_max, w->e->copy->level);
        if (n < 0) {
            fail(w->e, (int)n, p->offset + i * s->unit, true);
            return false;
        }
        w->stored[i] = n ? n : -1;
    }
    return true;
}

static int write_packed(struct job *w)
{
    struct sink *s = w->e->copy->sink;
    const struct piece *p = &w->piece;
    int error = 0;
    for (size_t i = 0; i < w->n_units && !error; i++) {
        uint64_t at = i * s->unit;
        if (w->stored[i] > 0) {
            error = s->packed(s, p->offset + at, w->packed + i * w->e->packed_max,
                              (uint32_t)w->stored[i]);
        } else if (w->stored[i] < 0) {
            error = s->data(s, p->offset + at, p->data + at, MIN(s->unit, p->length - at));
        }
    }
    return error;
}

/* The length of the run from @at on that is zero or not as a whole, in blocks. */
static uint64_t run_of(const struct piece *p, uint64_t at, uint64_t block, bool *zero)
{
    uint64_t end = at;
    while (end < p->length) {
        uint64_t n = MIN(block - (p->offset + end) % block, p->length - end);
        bool z = is_zero(p->data + end, n);
        if (end == at) {
            *zero = z;
        } else if (z != *zero) {
            break;
        }
        end += n;
    }
    return end - at;
}

static int write_zero(struct engine *e, uint64_t offset, uint64_t n)
{
    struct sink *s = e->copy->sink;
    return s->starts_zero && e->copy->sparse ? 0 : s->zero(s, offset, n);
}

static int write_data(struct job *w)
{
    const struct copy *c = w->e->copy;
    const struct piece *p = &w->piece;
    struct sink *s = c->sink;
    uint64_t block = MAX(c->sparse, s->granule);
    uint64_t n;
    int error = 0;
    if (!c->sparse) {
        return s->data(s, p->offset, p->data, p->length);
    }
    for (uint64_t at = 0; at < p->length && !error; at += n) {
        bool zero = false;
        n = run_of(p, at, block, &zero);
        error = zero ? write_zero(w->e, p->offset + at, n)
                     : s->data(s, p->offset + at, p->data + at, n);
    }
    return error;
}

/* What the kernel will not copy is read after all. */
static bool put_offloaded(struct job *w)
{
    struct copy *c = w->e->copy;
    struct piece *p = &w->piece;
    int error = c->sink->offload(c->sink, p->offset, p->from, p->at, p->length);
    if (error == 0) {
        return true;
    }
    p->from = NULL;
    if (!fetch(w->e, p)) {
        return false;
    }
    error = write_data(w);
    if (error) {
        fail(w->e, error, p->offset, true);
    }
    return !error;
}

static void settled(struct engine *e, const struct piece *p)
{
    const struct copy *c = e->copy;
    e->done += p->length;
    e->copied += p->kind == PIECE_DATA ? p->length : 0;
    if (c->progress) {
        c->progress(e->done, c->progress_of);
    }
}

static bool put(struct job *w)
{
    struct piece *p = &w->piece;
    int error = 0;
    if (p->offloaded) {
        return put_offloaded(w);
    }
    switch (p->kind) {
    case PIECE_DATA:
        error = w->e->copy->sink->codec ? write_packed(w) : write_data(w);
        break;
    case PIECE_ZERO:
        error = write_zero(w->e, p->offset, p->length);
        break;
    case PIECE_BACKING:
    case PIECE_END:
        break;
    }
    if (error) {
        fail(w->e, error, p->offset, true);
    }
    return !error;
}

/* NULL: somebody failed. */
static struct job *take_job(struct engine *e)
{
    g_mutex_lock(&e->lock);
    while (!e->free_jobs && !e->error) {
        g_cond_wait(&e->moved, &e->lock);
    }
    struct job *w = e->error ? NULL : e->free_jobs;
    if (w) {
        e->free_jobs = w->next;
    }
    g_mutex_unlock(&e->lock);
    return w;
}

/* With .lock held. */
static void give_back(struct engine *e, struct job *w)
{
    w->next = e->free_jobs;
    e->free_jobs = w;
    g_cond_signal(&e->moved);
}

/* With .lock held: writes all whose turn has come. */
static void write_waiting(struct engine *e)
{
    struct job *w;
    e->writing = true;
    while (!e->error && (w = e->waiting[e->turn % e->n_jobs])) {
        e->waiting[e->turn % e->n_jobs] = NULL;
        g_mutex_unlock(&e->lock);
        bool ok = put(w);
        g_mutex_lock(&e->lock);
        e->turn++;
        if (ok) {
            settled(e, &w->piece);
        }
        give_back(e, w);
    }
    e->writing = false;
}

static void finish_job(struct engine *e, struct job *w)
{
    bool ordered = e->copy->sink->ordered, ok = ordered || put(w);
    g_mutex_lock(&e->lock);
    if (!ordered) {
        if (ok) {
            settled(e, &w->piece);
        }
        give_back(e, w);
    } else {
        e->waiting[w->piece.turn % e->n_jobs] = w;
        if (!e->writing) {
            write_waiting(e);
        }
    }
    g_mutex_unlock(&e->lock);
}

static gpointer work(gpointer data)
{
    struct engine *e = data;
    struct job *w;
    while ((w = take_job(e))) {
        if (!cut(e, &w->piece)) {
            g_mutex_lock(&e->lock);
            give_back(e, w);
            g_mutex_unlock(&e->lock);
            break;
        }
        if (!fetch(e, &w->piece) || !pack(w)) {
            break; /* .error is set, so all stop */
        }
        finish_job(e, w);
    }
    return NULL;
}

static bool job_init(struct job *w, struct engine *e)
{
    const struct copy *c = e->copy;
    size_t bytes = c->feed->piece;
    w->e = e;
    w->piece.data = aligned_alloc(ALIGN, bytes);
    w->piece.packed = aligned_alloc(ALIGN, bytes);
    if (c->sink->codec) {
        size_t units = bytes / c->sink->unit;
        w->packed = g_try_malloc(units * e->packed_max);
        w->stored = g_try_new(int64_t, units);
    }
    return w->piece.data && w->piece.packed && (!c->sink->codec || (w->packed && w->stored));
}

static void job_clear(struct job *w)
{
    free(w->piece.data);
    free(w->piece.packed);
    g_free(w->packed);
    g_free(w->stored);
}

static void run_threads(struct engine *e, unsigned n)
{
    GThread *threads[THREADS_MAX] = {NULL};
    for (unsigned i = 1; i < n; i++) {
        /* Without a second thread the first does it all. */
        threads[i] = g_thread_try_new("convert", work, e, NULL);
    }
    work(e);
    for (unsigned i = 1; i < n; i++) {
        if (threads[i]) {
            g_thread_join(threads[i]);
        }
    }
}

/* Every grain of a vmdk stream is packed, even if that makes it longer. */
static size_t packed_max(const struct sink *s)
{
    return s->codec == &codec_zlib ? s->unit + s->unit / 8 + 64 : s->unit - 1;
}

static bool prepare(struct engine *e, unsigned threads)
{
    struct copy *c = e->copy;
    uint32_t unit = c->sink->codec ? c->sink->unit : MIN(c->sink->granule, UNIT_MAX);
    c->feed->unit = MAX(unit, 1);
    c->feed->piece = MAX(MAX(PIECE_BYTES, unit), c->feed->grain);
    e->packed_max = packed_max(c->sink);
    e->n_jobs = threads > 1 && c->sink->ordered ? threads * JOBS_PER_THREAD : threads;
    for (unsigned i = 0; i < e->n_jobs; i++) {
        if (!job_init(&e->jobs[i], e)) {
            return false;
        }
        e->jobs[i].next = e->free_jobs;
        e->free_jobs = &e->jobs[i];
    }
    return true;
}

int copy_run(struct copy *c)
{
    g_autofree struct engine *e = g_new0(struct engine, 1);
    unsigned threads = CLAMP(c->threads, 1, THREADS_MAX);
    e->copy = c;
    e->started = g_get_monotonic_time();
    g_mutex_init(&e->lock);
    g_mutex_init(&e->cut_lock);
    g_cond_init(&e->moved);
    if (prepare(e, threads)) {
        run_threads(e, threads);
    } else {
        e->error = -ENOMEM;
    }
    for (unsigned i = 0; i < e->n_jobs; i++) {
        job_clear(&e->jobs[i]);
    }
    if (!e->error && c->sink->end) {
        e->error = c->sink->end(c->sink, e->done);
        c->failed_writing = true;
        c->failed_at = e->done;
    }
    g_cond_clear(&e->moved);
    g_mutex_clear(&e->lock);
    g_mutex_clear(&e->cut_lock);
    return e->error;
}
