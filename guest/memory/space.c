/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/memory/space.h"

#include "base/lock.h"
#include "base/util.h"

#include <inttypes.h>
#include <string.h>

struct placing {
    struct placing *next; /* of the same space, highest first */
    struct space *space;
    struct region *region;
    struct space *below; /* instead of a region */
    uint64_t from, length, at;
    int priority;
    bool visible;
};

/*
 * The flat view is read without a lock: a reader copies one span and looks whether .turn
 * moved meanwhile.  Buffers that were outgrown stay allocated, because a reader may still
 * look into one; they double, so that is less than the buffer in use.
 */
struct space {
    const char *name;
    uint64_t size;
    struct placing *placings;
    struct space_listener *listeners;
    struct space *above; /* whose view holds a copy of this one */
    unsigned nesting;
    bool stale;

    _Atomic uint32_t turn; /* odd while the view is being changed */
    struct span *_Atomic spans;
    _Atomic uint32_t n;
    _Atomic uint32_t last; /* found */
    unsigned room;
    struct span *work; /* where the next view is made */
    unsigned work_n, work_room;
};

struct space *space_new(const char *name, uint64_t size)
{
    struct space *s = g_new0(struct space, 1);
    s->name = name;
    s->size = size;
    return s;
}

void space_free(struct space *s)
{
    while (s->placings) {
        struct placing *p = s->placings;
        s->placings = p->next;
        g_free(p);
    }
    g_free(s->spans);
    g_free(s->work);
    g_free(s);
}

/* ---- making the flat view ---- */

static void insert_span(struct space *s, unsigned i, struct span span)
{
    if (s->work_n == s->work_room) {
        s->work_room = MAX(2 * s->work_room, 64);
        s->work = g_renew(struct span, s->work, s->work_room);
    }
    memmove(&s->work[i + 1], &s->work[i], (s->work_n - i) * sizeof(*s->work));
    s->work[i] = span;
    s->work_n++;
}

static struct span span_of(struct region *r, uint64_t region_at, uint64_t start, uint64_t end)
{
    struct span v = {.start = start, .end = end, .region = r, .region_at = region_at};
    if (r->ram) {
        v.host = r->ram->host + r->ram_at + region_at;
        v.writable = !r->read_only && !r->ram->read_only;
    }
    return v;
}

static struct span span_cut(struct span v, uint64_t start, uint64_t end)
{
    uint64_t skip = start - v.start;
    v.region_at += skip;
    v.host = v.host ? v.host + skip : NULL;
    v.start = start;
    v.end = end;
    return v;
}

/* Fills the gaps of the view in [span.start, span.end) with @span: higher ones came first. */
static void fill_gaps(struct space *s, struct span span)
{
    uint64_t at = span.start;
    unsigned i = 0;
    while (at < span.end) {
        while (i < s->work_n && s->work[i].end <= at) {
            i++;
        }
        if (i < s->work_n && s->work[i].start <= at) {
            at = s->work[i].end;
            continue;
        }
        uint64_t end = i < s->work_n ? MIN(span.end, s->work[i].start) : span.end;
        insert_span(s, i, span_cut(span, at, end));
        at = end;
    }
}

static void publish(struct space *s)
{
    if (s->work_n > s->room) {
        s->room = s->work_room;
        s->spans = g_new0(struct span, s->room); /* the old one stays, see struct space */
    }
    s->turn++;
    atomic_thread_fence(memory_order_seq_cst);
    if (s->work_n) {
        memcpy(s->spans, s->work, s->work_n * sizeof(*s->work));
    }
    s->n = s->work_n;
    atomic_thread_fence(memory_order_seq_cst);
    s->turn++;
}

static void rebuild(struct space *s)
{
    s->stale = false;
    s->work_n = 0;
    for (struct placing *p = s->placings; p; p = p->next) {
        if (!p->visible) {
            continue;
        }
        if (p->below) {
            for (unsigned i = 0; i < p->below->n; i++) {
                fill_gaps(s, p->below->spans[i]);
            }
        } else if (p->at < s->size) {
            uint64_t end = MIN(p->length, s->size - p->at) + p->at;
            fill_gaps(s, span_of(p->region, p->from, p->at, end));
        }
    }
    publish(s);
    for (struct space_listener *l = s->listeners; l; l = l->next) {
        l->changed(l, s);
    }
    if (s->above) {
        rebuild(s->above);
    }
}

static void changed(struct space *s)
{
    s->stale = true;
    if (!s->nesting) {
        rebuild(s);
    }
}

void space_begin(struct space *s)
{
    s->nesting++;
}

void space_commit(struct space *s)
{
    g_assert(s->nesting);
    if (--s->nesting == 0 && s->stale) {
        rebuild(s);
    }
}

/* Before all of lower or equal priority: the latest of equals wins. */
static void link_placing(struct placing *p)
{
    struct placing **at = &p->space->placings;
    while (*at && (*at)->priority > p->priority) {
        at = &(*at)->next;
    }
    p->next = *at;
    *at = p;
    changed(p->space);
}

struct placing *space_place_part(struct space *s, struct region *r, uint64_t from, uint64_t length,
                                 uint64_t at, int priority)
{
    struct placing *p = g_new0(struct placing, 1);
    *p = (struct placing){.space = s,
                          .region = r,
                          .from = from,
                          .length = length,
                          .at = at,
                          .priority = priority,
                          .visible = true};
    link_placing(p);
    return p;
}

struct placing *space_place(struct space *s, struct region *r, uint64_t at, int priority)
{
    return space_place_part(s, r, 0, r->size, at, priority);
}

struct placing *space_place_space(struct space *s, struct space *below, int priority)
{
    struct placing *p = g_new0(struct placing, 1);
    g_assert(!below->above);
    below->above = s;
    *p = (struct placing){.space = s, .below = below, .priority = priority, .visible = true};
    link_placing(p);
    return p;
}

void space_move(struct placing *p, uint64_t at)
{
    if (p->at != at) {
        p->at = at;
        changed(p->space);
    }
}

void space_show(struct placing *p, bool visible)
{
    if (p->visible != visible) {
        p->visible = visible;
        changed(p->space);
    }
}

void space_remove(struct placing *p)
{
    if (!p) {
        return;
    }
    struct placing **at = &p->space->placings;
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
    changed(p->space);
    g_free(p);
}

void space_listen(struct space *s, struct space_listener *l)
{
    l->next = s->listeners;
    s->listeners = l;
}

/* ---- doorbells ---- */

struct doorbell *doorbells;
void (*doorbells_changed)(void);

void doorbell_add(struct doorbell *d)
{
    d->next = doorbells;
    doorbells = d;
    if (doorbells_changed) {
        doorbells_changed();
    }
}

void doorbell_remove(struct doorbell *d)
{
    struct doorbell **at = &doorbells;
    while (*at && *at != d) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = d->next;
        if (doorbells_changed) {
            doorbells_changed();
        }
    }
}

/* ---- looking up ---- */

/* The first span that ends behind @at. */
static unsigned search(const struct span *spans, unsigned n, uint64_t at)
{
    unsigned lo = 0, hi = n;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (spans[mid].end <= at) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* The span at @at, or a span without region that tells how far nothing is.  It is mostly the one
 * that was asked for before: low RAM, in which page tables lie. */
static struct span look_up(struct space *s, const struct span *spans, unsigned n, uint64_t at)
{
    unsigned i = atomic_load_explicit(&s->last, memory_order_relaxed);
    if (i >= n || at < spans[i].start || at >= spans[i].end) {
        i = search(spans, n, at);
        atomic_store_explicit(&s->last, i, memory_order_relaxed);
    }
    if (i < n && spans[i].start <= at) {
        return spans[i];
    }
    return (struct span){.start = at, .end = i < n ? spans[i].start : UINT64_MAX};
}

struct span space_find(struct space *s, uint64_t at)
{
    for (;;) {
        uint32_t turn = s->turn;
        struct span v = look_up(s, s->spans, s->n, at);
        atomic_thread_fence(memory_order_acquire);
        if (!(turn & 1) && s->turn == turn) {
            return v;
        }
    }
}

unsigned space_spans(struct space *s, struct span *out, unsigned room)
{
    unsigned n = s->n;
    if (n) {
        memcpy(out, s->spans, MIN(n, room) * sizeof(*out));
    }
    return n;
}

/* ---- accesses ---- */

static bool enter(const struct region_ops *ops)
{
    bool take = !ops->lockless && !machine_lock_held();
    if (take) {
        machine_lock();
    }
    return take;
}

static uint64_t mask_of(unsigned bytes)
{
    return bytes >= 8 ? UINT64_MAX : (UINT64_C(1) << bytes * 8) - 1;
}

/* The size in which @ops takes an access of @bytes at @at. */
static unsigned piece(const struct region_ops *ops, uint64_t at, unsigned bytes)
{
    unsigned max = ops->max_bytes ? ops->max_bytes : 8, size = MIN(bytes, max);
    while (!ops->unaligned && size > 1 && (at & (size - 1))) {
        size /= 2;
    }
    return size;
}

static uint64_t ops_load(struct region *r, uint64_t at, unsigned bytes)
{
    const struct region_ops *ops = r->ops;
    if (!ops || !ops->read) {
        return mask_of(bytes);
    }
    bool taken = enter(ops);
    uint64_t v = 0;
    for (unsigned done = 0; done < bytes;) {
        unsigned size = piece(ops, at + done, bytes - done), min = ops->min_bytes;
        uint64_t part;
        if (min > size) { /* a narrow read of a wide register */
            uint64_t low = (at + done) & ~(uint64_t)(min - 1);
            part = ops->read(r->owner, low, min) >> ((at + done - low) * 8);
        } else {
            part = ops->read(r->owner, at + done, size);
        }
        v |= (part & mask_of(size)) << done * 8;
        done += size;
    }
    if (taken) {
        machine_unlock();
    }
    return v;
}

static void ops_store(struct region *r, uint64_t at, uint64_t value, unsigned bytes)
{
    const struct region_ops *ops = r->ops;
    if (!ops || !ops->write) {
        return;
    }
    bool taken = enter(ops);
    for (unsigned done = 0; done < bytes;) {
        unsigned size = piece(ops, at + done, bytes - done);
        unsigned wide = MAX(size, ops->min_bytes);
        uint64_t low = (at + done) & ~(uint64_t)(wide - 1);
        uint64_t part = (value >> done * 8) & mask_of(size);
        if (wide > size) {
            part <<= (at + done - low) * 8; /* the other byte lanes carry zeroes */
            ops->write(r->owner, low, part, wide);
        } else {
            ops->write(r->owner, at + done, part, size);
        }
        done += size;
    }
    if (taken) {
        machine_unlock();
    }
}

uint64_t space_load(struct space *s, uint64_t at, unsigned bytes)
{
    struct span v = space_find(s, at);
    uint64_t value = 0;
    if (v.region && v.end - at < bytes) { /* across a boundary: byte by byte */
        for (unsigned i = 0; i < bytes; i++) {
            value |= space_load(s, at + i, 1) << i * 8;
        }
        return value;
    }
    if (v.host) {
        memcpy(&value, v.host + (at - v.start), bytes);
        return value;
    }
    return v.region ? ops_load(v.region, v.region_at + (at - v.start), bytes) : mask_of(bytes);
}

void space_load_many(struct space *s, uint64_t at, unsigned bytes, void *to, uint64_t count)
{
    struct span v = space_find(s, at);
    uint8_t *p = to;
    if (!v.region || v.host || v.end - at < bytes) {
        for (; count; count--, p += bytes) {
            uint64_t value = space_load(s, at, bytes);
            memcpy(p, &value, bytes);
        }
        return;
    }
    const struct region_ops *ops = v.region->ops;
    uint64_t in_region = v.region_at + (at - v.start), n = 0;
    bool taken = ops && enter(ops);
    for (; count; count -= n, p += n * bytes) {
        n = ops && ops->read_many ? ops->read_many(v.region->owner, in_region, bytes, p, count) : 0;
        if (!n) {
            uint64_t value = ops_load(v.region, in_region, bytes);
            memcpy(p, &value, bytes);
            n = 1;
        }
    }
    if (taken) {
        machine_unlock();
    }
}

void space_store(struct space *s, uint64_t at, uint64_t value, unsigned bytes)
{
    struct span v = space_find(s, at);
    if (v.region && v.end - at < bytes) {
        for (unsigned i = 0; i < bytes; i++) {
            space_store(s, at + i, value >> i * 8 & 0xff, 1);
        }
        return;
    }
    if (v.host && v.writable) {
        void *host = v.host + (at - v.start);
        memcpy(host, &value, bytes);
        ram_note_write(host, bytes);
    } else if (v.region) {
        ops_store(v.region, v.region_at + (at - v.start), value, bytes);
    }
}

uint32_t space_generation(const struct space *s)
{
    return atomic_load_explicit(&s->turn, memory_order_acquire);
}

void *space_map(struct space *s, uint64_t at, uint64_t *n, bool for_write)
{
    struct span v = space_find(s, at);
    if (!v.host || (for_write && !v.writable)) {
        return NULL;
    }
    *n = MIN(*n, v.end - at);
    return v.host + (at - v.start);
}

/* The largest register access that starts at @at, in a buffer of @n bytes. */
static unsigned step_at(uint64_t at, uint64_t n)
{
    unsigned size = 8;
    while (size > n || (at & (size - 1))) {
        size /= 2;
    }
    return size;
}

bool space_read(struct space *s, uint64_t at, void *to, uint64_t n)
{
    bool whole = true;
    for (uint8_t *out = to; n;) {
        uint64_t step = n;
        void *host = space_map(s, at, &step, false);
        if (host) {
            memcpy(out, host, step);
        } else {
            step = step_at(at, n);
            whole &= space_find(s, at).region != NULL;
            uint64_t v = space_load(s, at, (unsigned)step);
            memcpy(out, &v, step);
        }
        at += step;
        out += step;
        n -= step;
    }
    return whole;
}

bool space_write(struct space *s, uint64_t at, const void *from, uint64_t n)
{
    bool whole = true;
    for (const uint8_t *in = from; n;) {
        uint64_t step = n;
        void *host = space_map(s, at, &step, true);
        if (host) {
            memcpy(host, in, step);
            ram_note_write(host, step);
        } else {
            uint64_t v = 0;
            step = step_at(at, n);
            memcpy(&v, in, step);
            whole &= space_find(s, at).region != NULL;
            space_store(s, at, v, (unsigned)step);
        }
        at += step;
        in += step;
        n -= step;
    }
    return whole;
}

void space_describe(struct space *s, GString *out)
{
    g_string_append_printf(out, "%s\n", s->name);
    for (unsigned i = 0; i < s->n; i++) {
        const struct span *v = &s->spans[i];
        g_string_append_printf(
            out, "  %016" PRIx64 "-%016" PRIx64 " %s: %s +%" PRIx64 "\n", v->start, v->end - 1,
            v->host ? (v->writable ? "ram" : "rom") : "i/o", v->region->name, v->region_at);
    }
}
