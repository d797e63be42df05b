/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * job: block jobs.
 *
 * The thread copies piece by piece and looks at .cancel, .pause and .complete between pieces;
 * it never waits for the main loop.  When it has nothing more to do it ends, and over() joins
 * it in the main loop, where the drive can be brought to rest and its nodes changed.
 *
 * A mirror keeps a bit for each piece that differs: it is set when a write of the guest has
 * ended, and cleared before the piece is copied, so a write in between leaves it set.  A
 * backup keeps a bit for each piece that was copied; a write of the guest waits until those
 * that it will change have been.
 */
#include "host/image/job.h"

#include "host/image/dirty.h"
#include "host/image/drive.h"

#include <stdatomic.h>

enum { PIECE = 64 << 10, IDLE_US = 10000, RATE_PART_US = 100000 };

struct job {
    struct job *next;
    char *id, *error_text, *backing_file, *bitmap;
    struct dirty *taken; /* what the bitmap had when the job began */
    struct job_spec spec;
    struct node *source; /* read from */
    bool active;         /* the guest writes to the source: it never ends by itself */
    GThread *thread;
    enum job_state state;
    _Atomic bool cancel, pause, complete;
    bool forced;
    _Atomic uint64_t done, speed;
    _Atomic bool ready_told;
    int result;             /* the thread's; then the job's */
    uint64_t size, total;   /* of the disk; bytes to be copied */
    _Atomic uint64_t *bits; /* a bit a piece: dirty, or done (backup) */
    uint64_t pieces;
    GMutex lock; /* backup: .busy */
    GCond moved;
    uint64_t busy[32]; /* pieces + 1 that are being copied; 0: none */
    uint8_t *buf;      /* the thread's, PIECE bytes */
};

static struct job *jobs;
void (*job_news)(struct job *job);

static void tell(struct job *j)
{
    if (job_news) {
        job_news(j);
    }
}

/* ---- bits ---- */

static bool bit_take(struct job *j, uint64_t piece)
{
    uint64_t mask = UINT64_C(1) << piece % 64;
    return atomic_fetch_and(&j->bits[piece / 64], ~mask) & mask;
}

static void bit_set(struct job *j, uint64_t piece)
{
    atomic_fetch_or(&j->bits[piece / 64], UINT64_C(1) << piece % 64);
}

static bool bit_get(const struct job *j, uint64_t piece)
{
    return j->bits[piece / 64] >> piece % 64 & 1;
}

/* The next piece from @at on whose bit is set; .pieces: none. */
static uint64_t next_set(const struct job *j, uint64_t at)
{
    while (at < j->pieces) {
        uint64_t word = j->bits[at / 64] >> at % 64;
        if (word) {
            return at + (uint64_t)__builtin_ctzll(word);
        }
        at = (at | 63) + 1;
    }
    return j->pieces;
}

/* ---- pace ---- */

/* Sleeps as the speed wants it for @bytes; false if the job is to end. */
static bool pace(struct job *j, uint64_t bytes)
{
    uint64_t speed = j->speed;
    int64_t left = speed ? (int64_t)((double)bytes / (double)speed * G_USEC_PER_SEC) : 0;
    while ((left > 0 || j->pause) && !j->cancel) {
        int64_t step = left > 0 ? MIN(left, RATE_PART_US) : IDLE_US;
        g_usleep((gulong)step);
        left -= step;
    }
    return !j->cancel;
}

/* ---- copying one piece ---- */

static int copy_range(struct job *j, struct node *to, uint64_t at, uint64_t n)
{
    while (n) {
        struct chain_status s;
        int r = chain_status(j->source, NULL, at, n, &s);
        if (r == 0 && s.zero) {
            r = chain_zero(to, at, s.length, ZERO_UNMAP);
        } else if (r == 0) {
            s.length = MIN(s.length, PIECE);
            r = chain_read(j->source, at, j->buf, s.length);
            r = r ? r : chain_write(to, at, j->buf, s.length);
        }
        if (r < 0) {
            return r;
        }
        at += s.length;
        n -= s.length;
    }
    return 0;
}

static uint64_t piece_bytes(const struct job *j, uint64_t piece)
{
    return MIN(PIECE, j->size - piece * PIECE);
}

static struct node *target_of(const struct job *j)
{
    return j->spec.kind == JOB_COMMIT ? j->spec.base : j->spec.target;
}

/* ---- stream ---- */

static int run_stream(struct job *j)
{
    uint64_t step = MAX(PIECE, j->source->granule);
    int r = 0;
    for (uint64_t at = 0; r == 0 && at < j->size; at += step) {
        uint64_t n = MIN(step, j->size - at);
        bool copied = false;
        r = chain_pull(j->source, j->spec.base, at, n, &copied);
        j->done = at + n;
        if (!pace(j, copied ? n : 0)) {
            break;
        }
    }
    return r ? r : chain_flush(j->source);
}

/* ---- commit of nodes that the guest does not write ---- */

static int commit_range(struct job *j, uint64_t at, uint64_t n, bool *copied)
{
    while (n) {
        struct chain_status s;
        int r = chain_status(j->source, j->spec.base, at, n, &s);
        if (r == 0 && s.present) {
            *copied = true;
            r = copy_range(j, j->spec.base, at, s.length);
        }
        if (r < 0) {
            return r;
        }
        at += s.length;
        n -= s.length;
    }
    return 0;
}

static int run_commit(struct job *j)
{
    int r = 0;
    for (uint64_t at = 0; r == 0 && at < j->size; at += PIECE) {
        uint64_t n = MIN(PIECE, j->size - at);
        bool copied = false;
        r = commit_range(j, at, n, &copied);
        j->done = at + n;
        if (!pace(j, copied ? n : 0)) {
            break;
        }
    }
    return r ? r : chain_flush(j->spec.base);
}

/* ---- mirror ---- */

static int mark_first(struct job *j)
{
    struct node *base = j->spec.kind == JOB_COMMIT ? j->spec.base
                        : j->spec.sync == SYNC_TOP ? j->source->backing
                                                   : NULL;
    bool all = j->spec.kind == JOB_MIRROR && j->spec.sync == SYNC_FULL;
    for (uint64_t at = 0; j->spec.sync != SYNC_NONE && at < j->size && !j->cancel;) {
        struct chain_status s;
        int r = chain_status(j->source, base, at, j->size - at, &s);
        if (r < 0) {
            return r;
        }
        for (uint64_t p = at / PIECE; (all || s.present) && p * PIECE < at + s.length; p++) {
            bit_set(j, p);
        }
        at += s.length;
    }
    return 0;
}

/* @last: nothing is under way any more; all of it, at any speed. */
static int copy_dirty(struct job *j, bool last)
{
    int r = 0;
    for (uint64_t p = next_set(j, 0); r == 0 && p < j->pieces; p = next_set(j, p + 1)) {
        uint64_t n = piece_bytes(j, p);
        if (bit_take(j, p)) {
            r = copy_range(j, target_of(j), p * PIECE, n);
            j->done += n;
            if (!last && !pace(j, n)) {
                break;
            }
        }
    }
    return r;
}

static gboolean tell_ready(gpointer id)
{
    struct job *j = job_find(id);
    if (j && j->state == JOB_RUNNING) {
        j->state = JOB_READY;
        tell(j);
    }
    g_free(id);
    return G_SOURCE_REMOVE;
}

static int run_mirror(struct job *j)
{
    int r = mark_first(j);
    while (r == 0 && !j->cancel) {
        r = copy_dirty(j, false);
        bool equal = next_set(j, 0) == j->pieces;
        if (equal && !atomic_exchange(&j->ready_told, true)) {
            g_idle_add(tell_ready, g_strdup(j->id));
        }
        if (equal && j->complete) {
            break;
        }
        if (equal) {
            g_usleep(IDLE_US);
        }
    }
    return r;
}

/* ---- backup ---- */

static bool is_busy(const struct job *j, uint64_t piece, unsigned *free_slot)
{
    bool busy = false;
    *free_slot = G_N_ELEMENTS(j->busy);
    for (unsigned i = 0; i < G_N_ELEMENTS(j->busy); i++) {
        busy |= j->busy[i] == piece + 1;
        *free_slot = j->busy[i] ? *free_slot : i;
    }
    return busy;
}

static int copy_through(struct job *j, uint64_t piece)
{
    uint64_t at = piece * PIECE, n = piece_bytes(j, piece);
    uint8_t *buf = g_try_malloc(PIECE);
    int r = buf ? chain_read(j->source, at, buf, n) : -ENOMEM;
    bool zero = r == 0 && !buf[0] && !memcmp(buf, buf + 1, n - 1);
    if (r == 0) {
        r = zero ? chain_zero(j->spec.target, at, n, ZERO_UNMAP)
                 : chain_write(j->spec.target, at, buf, n);
    }
    g_free(buf);
    return r;
}

/* Waits for who copies the piece; then it is ours to copy or read until done_with(), or (false) in
 * the target. */
static bool take_piece(struct job *j, uint64_t piece, unsigned *slot)
{
    g_mutex_lock(&j->lock);
    while (is_busy(j, piece, slot) || *slot == G_N_ELEMENTS(j->busy)) {
        g_cond_wait(&j->moved, &j->lock);
    }
    bool todo = !bit_get(j, piece);
    j->busy[*slot] = todo ? piece + 1 : 0;
    g_mutex_unlock(&j->lock);
    return todo;
}

static void done_with(struct job *j, uint64_t piece, unsigned slot, bool copied, int result)
{
    g_mutex_lock(&j->lock);
    if (copied) {
        bit_set(j, piece);
        j->result = j->result ? j->result : result;
    }
    j->busy[slot] = 0;
    g_cond_broadcast(&j->moved);
    g_mutex_unlock(&j->lock);
}

/* Copies the piece unless it has been, or waits for who does. */
static int save_piece(struct job *j, uint64_t piece, bool *copied)
{
    unsigned slot;
    if (!take_piece(j, piece, &slot)) {
        return 0;
    }
    int r = copy_through(j, piece);
    *copied = true;
    done_with(j, piece, slot, true, r);
    j->done += piece_bytes(j, piece);
    return r;
}

int job_read(struct job *j, uint64_t offset, void *to, uint64_t n)
{
    uint8_t *at = to;
    int r = 0;
    while (r == 0 && n) {
        unsigned slot;
        uint64_t piece = offset / PIECE, step = MIN(n, (piece + 1) * PIECE - offset);
        if (take_piece(j, piece, &slot)) {
            r = chain_read(j->source, offset, at, step);
            done_with(j, piece, slot, false, 0);
        } else {
            r = chain_read(j->spec.target, offset, at, step);
        }
        r = r ? r : j->result; /* what could not be saved is lost */
        at += step;
        offset += step;
        n -= step;
    }
    return r;
}

int job_status(struct job *j, uint64_t offset, uint64_t n, struct chain_status *out)
{
    unsigned slot;
    uint64_t piece = offset / PIECE, step = MIN(n, (piece + 1) * PIECE - offset);
    if (!take_piece(j, piece, &slot)) {
        return chain_status(j->spec.target, NULL, offset, step, out);
    }
    int r = chain_status(j->source, NULL, offset, step, out);
    done_with(j, piece, slot, false, 0);
    return r;
}

struct job *job_of_target(const char *name)
{
    for (struct job *j = jobs; j; j = j->next) {
        const json_t *options = j->spec.target ? j->spec.target->options : NULL;
        const char *is = json_string_value(json_object_get(options, "node-name"));
        if (j->spec.kind == JOB_BACKUP && is && !g_strcmp0(is, name)) {
            return j;
        }
    }
    return NULL;
}

struct node *job_target(const struct job *j)
{
    return j->spec.target;
}

struct node *job_source(const struct job *j)
{
    return j->source;
}

static int run_backup(struct job *j)
{
    int r = 0;
    bool copies = j->spec.sync != SYNC_NONE;
    for (uint64_t p = 0; copies && r == 0 && j->result == 0 && p < j->pieces; p++) {
        bool copied = false;
        struct chain_status s = {.present = true};
        if (j->spec.sync == SYNC_TOP) {
            r = chain_status(j->source, j->source->backing, p * PIECE, piece_bytes(j, p), &s);
        }
        if (r == 0 && (s.present || s.length < piece_bytes(j, p))) {
            r = save_piece(j, p, &copied);
        }
        if (!pace(j, copied ? PIECE : 0)) {
            break;
        }
    }
    while (j->spec.sync == SYNC_NONE && !j->cancel && !j->result) {
        g_usleep(IDLE_US);
    }
    r = r ? r : j->result;
    return r ? r : chain_flush(j->spec.target);
}

bool job_wants_before(const struct job *j)
{
    return j->spec.kind == JOB_BACKUP;
}

void job_before_write(struct job *j, uint64_t offset, uint64_t bytes)
{
    bool copied;
    if (j->spec.kind != JOB_BACKUP || j->cancel || j->result || !bytes || offset >= j->size) {
        return;
    }
    uint64_t end = MIN(offset + bytes, j->size);
    for (uint64_t p = offset / PIECE; p * PIECE < end; p++) {
        (void)save_piece(j, p, &copied); /* the guest's write goes on; the job fails */
    }
}

void job_after_write(struct job *j, uint64_t offset, uint64_t bytes)
{
    if (!j->active || !bytes || offset >= j->size) {
        return;
    }
    uint64_t end = MIN(offset + bytes, j->size);
    for (uint64_t p = offset / PIECE; p * PIECE < end; p++) {
        bit_set(j, p);
    }
}

/* ---- the end, in the main loop ---- */

static void set_error(struct job *j, int error, const char *text)
{
    if (!j->error_text && error < 0) {
        j->error_text = g_strdup(text ? text : g_strerror(-error));
    }
    j->result = j->result ? j->result : error;
}

/* Closes the nodes from @first down to above @last. */
static void close_between(struct node *first, struct node *last)
{
    while (first && first != last) {
        struct node *below = first->backing;
        node_close(first);
        first = below;
    }
}

static bool set_header(struct job *j, struct node *n, struct node *base, GError **error)
{
    const struct format_tools *tools = n->format->tools;
    const char *name = j->backing_file ? j->backing_file : base ? node_name(base) : NULL;
    if (!tools || !tools->set_backing) {
        return true; /* a temporary overlay: it has no header */
    }
    if (!tools->set_backing(n, name, base ? base->format->name : NULL, error)) {
        return false;
    }
    g_free(n->backing_name);
    g_free(n->backing_format);
    n->backing_name = g_strdup(name);
    n->backing_format = g_strdup(base ? base->format->name : NULL);
    return true;
}

static bool finish_stream(struct job *j, GError **error)
{
    struct node *top = j->source, *old = top->backing;
    if (!set_header(j, top, j->spec.base, error)) {
        return false;
    }
    top->backing = j->spec.base;
    close_between(old, j->spec.base);
    return true;
}

static bool finish_commit(struct job *j, GError **error)
{
    struct node *over = j->spec.img->top;
    while (over && over->backing != j->spec.top) {
        over = over->backing;
    }
    if (!over) {
        g_set_error(error, LODGE_ERROR, ENODEV, "the node above is gone");
        return false;
    }
    bool was_read_only = over->read_only;
    if (!node_reopen(j->spec.base, true, error) || !node_reopen(over, false, error) ||
        !set_header(j, over, j->spec.base, error)) {
        return false;
    }
    over->backing = j->spec.base;
    close_between(j->spec.top, j->spec.base);
    return !was_read_only || node_reopen(over, true, error);
}

/* Nothing is under way any more: the last pieces, then the drive is the target's. */
static bool finish_mirror(struct job *j, GError **error)
{
    Image *img = j->spec.img;
    struct node *old = img->top, *to = target_of(j);
    int r = copy_dirty(j, true);
    r = r ? r : chain_flush(to);
    if (r < 0) {
        error_set_errno(error, -r, "last pieces");
        return false;
    }
    if (!j->complete) {
        return true; /* cancelled when it was ready: the target is a copy of now */
    }
    if (!dirty_inherit(to, old, error)) {
        return false;
    }
    image_set_top(img, to);
    close_between(old, j->spec.kind == JOB_COMMIT ? to : NULL);
    j->spec.target = NULL;
    return true;
}

static bool finish(struct job *j, GError **error)
{
    switch (j->spec.kind) {
    case JOB_STREAM:
        return finish_stream(j, error);
    case JOB_COMMIT:
        return j->active ? finish_mirror(j, error) : finish_commit(j, error);
    case JOB_MIRROR:
        return finish_mirror(j, error);
    case JOB_BACKUP:
        break;
    }
    return true;
}

/* ---- the bitmap of a backup ---- */

/* All is done but what the bitmap marks; it counts anew.  The drive is at rest. */
static bool begin_bitmap(struct job *j, GError **error)
{
    for (uint64_t i = 0; i <= j->pieces / 64; i++) {
        j->bits[i] = UINT64_MAX;
    }
    for (uint64_t at = 0, run = 0; at < j->size; at += run) {
        bool dirty = false;
        int r = dirty_next(j->source, j->bitmap, at, j->size - at, &dirty, &run);
        if (r) {
            error_set_errno(error, -r, "bitmap '%s'", j->bitmap);
            return false;
        }
        for (uint64_t p = at / PIECE; dirty && p * PIECE < at + run; p++) {
            j->total += bit_take(j, p) ? piece_bytes(j, p) : 0;
        }
    }
    if (j->spec.bitmap_mode == BITMAP_NEVER) {
        return true;
    }
    j->taken = dirty_copy(j->source, j->bitmap, error);
    return j->taken && dirty_clear(j->source, j->bitmap, error);
}

/* Nothing came of the job: the bitmap marks again what it did. */
static void end_bitmap(struct job *j, bool failed)
{
    g_autoptr(GError) error = NULL;
    if (j->taken && failed && j->spec.bitmap_mode == BITMAP_ON_SUCCESS &&
        dirty_exists(j->source, j->bitmap) &&
        !dirty_restore(j->source, j->bitmap, j->taken, &error)) {
        g_warning("bitmap '%s' has lost its marks: %s", j->bitmap, error->message);
    }
    g_clear_pointer(&j->taken, dirty_free);
}

static void job_free(struct job *j)
{
    struct job **at = &jobs;
    while (*at != j) {
        at = &(*at)->next;
    }
    *at = j->next;
    g_free(j->id);
    g_free(j->error_text);
    g_free(j->backing_file);
    g_free(j->bitmap);
    dirty_free(j->taken);
    g_free((void *)j->bits);
    g_free(j->buf);
    g_mutex_clear(&j->lock);
    g_cond_clear(&j->moved);
    g_free(j);
}

static void leave(struct job *j)
{
    image_drain(j->spec.img);
    end_bitmap(j, j->result < 0 || j->cancel);
    j->spec.img->job = NULL;
    node_moves(j->spec.target);
    if (j->spec.kind == JOB_COMMIT && (j->result < 0 || j->cancel)) {
        node_reopen(j->spec.base, true, NULL);
    }
    chain_close(g_steal_pointer(&j->spec.target));
}

static void conclude(struct job *j)
{
    g_autoptr(GError) error = NULL;
    bool copies = j->spec.kind == JOB_MIRROR || (j->spec.kind == JOB_COMMIT && j->active);
    bool stopped = j->cancel && !(copies && j->ready_told && !j->forced);
    image_drain(j->spec.img);
    if (j->spec.kind != JOB_BACKUP) {
        node_moves(j->spec.img->top);
    }
    if (j->result == 0 && !stopped && !finish(j, &error)) {
        set_error(j, -error_errno(error), error->message);
    }
    leave(j);
    j->state = JOB_CONCLUDED;
    tell(j);
    if (!j->spec.manual_dismiss) {
        job_free(j);
    }
}

static void join(struct job *j)
{
    int r = GPOINTER_TO_INT(g_thread_join(g_steal_pointer(&j->thread)));
    set_error(j, r, NULL);
}

static gboolean over(gpointer id)
{
    struct job *j = job_find(id);
    if (j && j->thread) {
        join(j);
        if (j->spec.manual_finalize && j->result == 0 && !j->cancel && j->spec.kind != JOB_MIRROR) {
            j->state = JOB_PENDING;
            tell(j);
        } else {
            conclude(j);
        }
    }
    g_free(id);
    return G_SOURCE_REMOVE;
}

static gpointer run(gpointer job)
{
    struct job *j = job;
    char *id = g_strdup(j->id);
    int r = j->spec.kind == JOB_STREAM   ? run_stream(j)
            : j->spec.kind == JOB_BACKUP ? run_backup(j)
            : j->active                  ? run_mirror(j)
                                         : run_commit(j);
    g_idle_add(over, id);
    return GINT_TO_POINTER(r);
}

/* ---- the user's side ---- */

struct job *job_find(const char *id)
{
    for (struct job *j = jobs; j; j = j->next) {
        if (!g_strcmp0(j->id, id)) {
            return j;
        }
    }
    return NULL;
}

void job_each(void (*each)(struct job *job, void *owner), void *owner)
{
    for (struct job *j = jobs, *next; j; j = next) {
        next = j->next;
        each(j, owner);
    }
}

static bool prepare_base(struct node *base, uint64_t size, GError **error)
{
    if (!node_reopen(base, false, error)) {
        return false;
    }
    if (base->size >= size) {
        return true;
    }
    if (!chain_resize(base, size, PREALLOC_OFF, error)) {
        g_prefix_error(error, "%s is too small: ", node_name(base));
        return false;
    }
    return true;
}

static bool check_spec(const struct job_spec *s, GError **error)
{
    struct node *top = s->img->top;
    const char *wrong = !s->id || !*s->id                         ? "Invalid job ID ''"
                        : job_find(s->id)                         ? "Job ID is already in use"
                        : s->img->job                             ? "the drive has a job already"
                        : !top                                    ? "the drive has no medium"
                        : s->kind == JOB_STREAM && top->read_only ? "the drive is read-only"
                        : s->target && s->target->read_only       ? "the target is read-only"
                        : s->target && s->target->size < top->size
                            ? "the target is smaller than the drive"
                            : NULL;
    if (wrong) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s", wrong);
    }
    return !wrong;
}

struct job *job_start(const struct job_spec *spec, GError **error)
{
    if (!check_spec(spec, error)) {
        return NULL;
    }
    Image *img = spec->img;
    bool active = spec->kind == JOB_MIRROR || (spec->kind == JOB_COMMIT && spec->top == img->top);
    image_drain(img);
    if (spec->kind == JOB_COMMIT && !prepare_base(spec->base, spec->top->size, error)) {
        return NULL;
    }
    struct job *j = g_new0(struct job, 1);
    j->id = g_strdup(spec->id);
    j->spec = *spec;
    j->backing_file = g_strdup(spec->backing_file);
    j->source = spec->kind == JOB_COMMIT ? spec->top : img->top;
    j->active = active;
    j->speed = spec->speed;
    j->size = j->source->size;
    j->pieces = (j->size + PIECE - 1) / PIECE;
    j->bits = g_new0(_Atomic uint64_t, j->pieces / 64 + 1);
    j->buf = g_malloc(PIECE);
    j->bitmap = g_strdup(spec->bitmap);
    j->total = spec->sync == SYNC_BITMAP ? 0 : j->size;
    g_mutex_init(&j->lock);
    g_cond_init(&j->moved);
    j->next = jobs;
    jobs = j;
    if (spec->sync == SYNC_BITMAP && !begin_bitmap(j, error)) {
        j->spec.target = NULL; /* the caller's again */
        job_free(j);
        return NULL;
    }
    img->job = j;
    j->thread = g_thread_new("block-job", run, j);
    return j;
}

bool job_complete(struct job *j, GError **error)
{
    if (j->state != JOB_READY) {
        g_set_error(error, LODGE_ERROR, EBUSY,
                    "Job '%s' cannot be completed in its state: it is not ready", j->id);
        return false;
    }
    j->complete = true;
    return true;
}

void job_cancel(struct job *j, bool force)
{
    if (j->state == JOB_CONCLUDED) {
        return;
    }
    j->forced |= force;
    j->cancel = true;
    if (j->state == JOB_PENDING) {
        conclude(j);
    }
}

void job_pause(struct job *j, bool pause)
{
    j->pause = pause;
}

void job_set_speed(struct job *j, uint64_t speed)
{
    j->speed = speed;
}

bool job_finalize(struct job *j, GError **error)
{
    if (j->state != JOB_PENDING) {
        g_set_error(error, LODGE_ERROR, EBUSY, "Job '%s' is not pending", j->id);
        return false;
    }
    conclude(j);
    return true;
}

bool job_dismiss(struct job *j, GError **error)
{
    if (j->state != JOB_CONCLUDED) {
        g_set_error(error, LODGE_ERROR, EBUSY, "Job '%s' is not concluded", j->id);
        return false;
    }
    job_free(j);
    return true;
}

bool jobs_settle_mirrors(GError **error)
{
    for (struct job *j = jobs, *next; j; j = next) {
        next = j->next;
        if (j->spec.kind != JOB_MIRROR || (j->state == JOB_CONCLUDED && !j->error_text)) {
            continue;
        }
        if (j->state == JOB_CONCLUDED) { /* what goes elsewhere must not find half a copy */
            g_set_error(error, LODGE_ERROR, EIO, "mirror '%s': %s", j->id, j->error_text);
            return false;
        }
        if (!j->ready_told) {
            g_set_error(error, LODGE_ERROR, EBUSY, "mirror '%s' is not whole yet", j->id);
            return false;
        }
        bool dismiss = !j->spec.manual_dismiss;
        j->spec.manual_dismiss = true; /* its end is looked at first */
        j->cancel = true;
        if (j->thread) {
            join(j);
        }
        conclude(j);
        if (j->error_text) {
            g_set_error(error, LODGE_ERROR, EIO, "mirror '%s': %s", j->id, j->error_text);
        }
        bool ok = !j->error_text;
        if (dismiss) {
            job_free(j);
        }
        if (!ok) {
            return false;
        }
    }
    return true;
}

void job_end(Image *img)
{
    struct job *j = img->job;
    if (!j) {
        return;
    }
    j->forced = true;
    j->cancel = true;
    if (j->thread) {
        join(j);
    }
    conclude(j);
}

struct job_view job_view(const struct job *j)
{
    uint64_t dirty = 0;
    for (uint64_t i = 0; j->active && i <= j->pieces / 64; i++) {
        dirty += (uint64_t)__builtin_popcountll(j->bits[i]);
    }
    return (struct job_view){
        .id = j->id,
        .device = j->spec.img ? j->spec.img->id : "",
        .error = j->error_text,
        .kind = j->spec.kind,
        .state = j->state,
        .active_commit = j->spec.kind == JOB_COMMIT && j->active,
        .cancelled = j->cancel,
        .paused = j->pause,
        .forced = j->forced,
        .done = j->active ? j->done : MIN(j->done, j->total),
        .all = j->active ? j->done + dirty * PIECE : j->total,
        .speed = j->speed,
    };
}
