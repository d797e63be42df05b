/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * virtio: split rings, feature negotiation and device status; independent of the transport.
 *
 * Spec: OASIS, Virtual I/O Device (VIRTIO) Version 1.1, "Basic Facilities of a Virtio
 * Device" and "Split Virtqueues".
 *
 * Whatever lies in guest memory may change between two looks, so each field is read once
 * and checked after it was read.  Host addresses of the rings are kept as long as the
 * layout of the address space stays as it was.
 */
#include "guest/device/virtio.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/device/board.h"

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, DESC_BYTES = 16 };
enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };
enum { RING_FLAGS = 0, RING_IDX = 2, RING_ENTRIES = 4, USED_ENTRY_BYTES = 8 };
enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };
/* A part that straddles two blocks of RAM becomes two; there are only so many holes. */
enum { PARTS_MIN = 256, PARTS_EXTRA = 16 };

struct virtio_ring {
    unsigned size, parts; /* entries; iovecs of one element */
    uint32_t generation;  /* of the space when it was mapped */
    bool mapped, hushed;  /* hushed: the driver was told not to kick */
    uint8_t *desc, *avail, *used;
    struct virtio_element *free; /* elements that nobody holds */
    size_t stride;
    uint8_t slots[]; /* .size elements of .stride bytes, each followed by its iovecs */
};

struct desc {
    uint64_t at;
    uint32_t bytes;
    uint16_t flags, next;
};

static struct space *dma(struct virtio *v)
{
    return v->dev->board->memory;
}

static uint16_t shared_load(const uint8_t *p)
{
    return GUINT16_FROM_LE(__atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE));
}

static void shared_store(uint8_t *p, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)p, GUINT16_TO_LE(value), __ATOMIC_RELEASE);
    ram_note_write(p, 2);
}

/* ---- rings ---- */

static size_t element_stride(const struct virtio *v, unsigned parts)
{
    size_t head = MAX(v->model->element_bytes, sizeof(struct virtio_element));
    return ((head + 15) & ~(size_t)15) + parts * sizeof(struct iovec);
}

static struct virtio_element *slot(const struct virtio_ring *r, unsigned i)
{
    return (struct virtio_element *)(void *)(r->slots + i * r->stride);
}

/* Elements in order of their slots: a queue that is never deep touches little memory. */
static void free_all(struct virtio_ring *r)
{
    r->free = NULL;
    for (unsigned i = r->size; i-- > 0;) {
        struct virtio_element *e = slot(r, i);
        e->next = r->free;
        r->free = e;
    }
}

static struct virtio_ring *ring_new(const struct virtio *v, unsigned size)
{
    unsigned parts = MAX(size, PARTS_MIN) + PARTS_EXTRA;
    size_t stride = element_stride(v, parts);
    struct virtio_ring *r = g_try_malloc0(sizeof(*r) + size * stride);
    if (r) {
        r->size = size;
        r->parts = parts;
        r->stride = stride;
        for (unsigned i = 0; i < size; i++) {
            struct virtio_element *e = slot(r, i);
            e->iov = (struct iovec *)(void *)((uint8_t *)e + stride - parts * sizeof(*e->iov));
        }
        free_all(r);
    }
    return r;
}

static uint8_t *map_whole(struct virtio *v, uint64_t at, uint64_t bytes, bool for_write)
{
    uint64_t n = bytes;
    uint8_t *host = space_map(dma(v), at, &n, for_write);
    return host && n == bytes ? host : NULL;
}

static bool ring_map(struct virtio *v, unsigned queue, struct virtio_ring *r)
{
    uint32_t now = space_generation(dma(v));
    if (r->mapped && r->generation == now) {
        return true;
    }
    uint64_t n = r->size;
    r->desc = map_whole(v, v->q_desc[queue], n * DESC_BYTES, false);
    r->avail = map_whole(v, v->q_avail[queue], RING_ENTRIES + 2 * n + 2, false);
    r->used = map_whole(v, v->q_used[queue], RING_ENTRIES + USED_ENTRY_BYTES * n + 2, true);
    r->mapped = r->desc && r->avail && r->used;
    r->generation = now;
    if (!r->mapped) {
        virtio_break(v, "a ring is not in RAM");
    }
    return r->mapped;
}

bool virtio_ready(const struct virtio *v, unsigned queue)
{
    return queue < v->nqueues && v->ring[queue] && v->q_enabled[queue] &&
           (v->status & VIRTIO_DRIVER_OK) && !v->broken;
}

/* The ring of @queue if it can be used now, else NULL. */
static struct virtio_ring *usable(struct virtio *v, unsigned queue)
{
    if (!virtio_ready(v, queue) || !ring_map(v, queue, v->ring[queue])) {
        return NULL;
    }
    return v->ring[queue];
}

void virtio_break(struct virtio *v, const char *why)
{
    log_line(LOG_GUEST_ERRORS, "%s: %s", v->model->name, why);
    if (v->broken) {
        return;
    }
    v->broken = 1;
    v->status |= VIRTIO_NEEDS_RESET;
    if (v->status & VIRTIO_DRIVER_OK) {
        v->notify(v, v->config_vector, ISR_CONFIG);
    }
}

/* ---- taking chains ---- */

static struct desc desc_at(const uint8_t *table, unsigned i)
{
    uint8_t raw[DESC_BYTES]; /* one look: the guest may change it meanwhile */
    memcpy(raw, table + (size_t)i * DESC_BYTES, DESC_BYTES);
    return (struct desc){le64_at(raw), le32_at(raw + 8), le16_at(raw + 12), le16_at(raw + 14)};
}

static const char *add_part(struct virtio *v, const struct virtio_ring *r,
                            struct virtio_element *e, const struct desc *d)
{
    bool in = d->flags & DESC_WRITE;
    uint64_t at = d->at, left = d->bytes;
    if (!in && e->nin) {
        return "a readable part follows a writable one";
    }
    while (left) {
        uint64_t n = left;
        void *host = space_map(dma(v), at, &n, in);
        unsigned i = e->nout + e->nin;
        if (!host || i == r->parts) {
            return host ? "a chain has too many parts" : "a buffer is not in RAM";
        }
        e->iov[i] = (struct iovec){host, n};
        *(in ? &e->nin : &e->nout) += 1;
        *(in ? &e->in_bytes : &e->out_bytes) += n;
        at += n;
        left -= n;
    }
    return NULL;
}

/* Fills @e from the chain at .head; NULL, or what is wrong with it. */
static const char *walk(struct virtio *v, struct virtio_ring *r, struct virtio_element *e)
{
    const uint8_t *table = r->desc;
    unsigned n = r->size, i = e->head;
    bool indirect = false;
    for (unsigned seen = 0;;) {
        if (i >= n) {
            return "a descriptor index lies outside its table";
        }
        struct desc d = desc_at(table, i);
        if (d.flags & DESC_INDIRECT) {
            if (indirect || !virtio_has(v, VIRTIO_F_INDIRECT_DESC) || (d.flags & DESC_NEXT) ||
                !d.bytes || d.bytes % DESC_BYTES) {
                return "an indirect descriptor is malformed";
            }
            indirect = true;
            n = d.bytes / DESC_BYTES;
            i = seen = 0;
            table = map_whole(v, d.at, d.bytes, false);
            if (!table) {
                return "an indirect table is not in RAM";
            }
            continue;
        }
        const char *wrong = add_part(v, r, e, &d);
        if (wrong || !(d.flags & DESC_NEXT)) {
            return wrong;
        }
        i = d.next;
        if (++seen >= MIN(n, VIRTIO_QUEUE_SIZE_MAX)) {
            return "a chain of descriptors is a loop";
        }
    }
}

static struct virtio_element *take(struct virtio *v, unsigned queue, struct virtio_ring *r,
                                   uint16_t head)
{
    struct virtio_element *e = r->free;
    if (!e) {
        virtio_break(v, "more chains than entries");
        return NULL;
    }
    e->queue = (uint16_t)queue;
    e->head = head;
    e->nout = e->nin = 0;
    e->out_bytes = e->in_bytes = 0;
    const char *wrong = walk(v, r, e);
    if (wrong) {
        virtio_break(v, wrong);
        return NULL;
    }
    r->free = e->next;
    e->next = NULL;
    return e;
}

/* How many chains wait; a number that cannot be breaks the device and is 0. */
static unsigned waiting(struct virtio *v, unsigned queue, const struct virtio_ring *r)
{
    uint16_t n = (uint16_t)(shared_load(r->avail + RING_IDX) - v->q_next[queue]);
    if (n > r->size) {
        virtio_break(v, "the available index is ahead of the ring");
        return 0;
    }
    return n;
}

/* Asks for a kick; false if something has arrived meanwhile. */
static bool ask_for_kick(struct virtio *v, unsigned queue, struct virtio_ring *r)
{
    if (virtio_has(v, VIRTIO_F_EVENT_IDX)) {
        shared_store(r->used + RING_ENTRIES + (size_t)r->size * USED_ENTRY_BYTES,
                     v->q_next[queue]);
    } else if (shared_load(r->used + RING_FLAGS)) {
        shared_store(r->used + RING_FLAGS, 0);
    }
    r->hushed = false;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return waiting(v, queue, r) == 0;
}

/* While we work through a queue, kicks are of no use.  With event indexes silence is free. */
static void hush(const struct virtio *v, struct virtio_ring *r)
{
    if (!r->hushed && !virtio_has(v, VIRTIO_F_EVENT_IDX)) {
        shared_store(r->used + RING_FLAGS, USED_NO_NOTIFY);
        r->hushed = true;
    }
}

struct virtio_element *virtio_pop(struct virtio *v, unsigned queue)
{
    struct virtio_ring *r = usable(v, queue);
    if (!r || (!waiting(v, queue, r) && ask_for_kick(v, queue, r)) || v->broken) {
        return NULL;
    }
    hush(v, r);
    unsigned i = v->q_next[queue] & (r->size - 1);
    uint16_t head = shared_load(r->avail + RING_ENTRIES + 2 * (size_t)i);
    struct virtio_element *e = take(v, queue, r, head);
    if (e) {
        v->q_next[queue]++;
    }
    return e;
}

bool virtio_queue_empty(struct virtio *v, unsigned queue)
{
    struct virtio_ring *r = usable(v, queue);
    return !r || !waiting(v, queue, r);
}

static void release(struct virtio *v, struct virtio_element *e)
{
    struct virtio_ring *r = v->ring[e->queue];
    if (r) {
        e->next = r->free;
        r->free = e;
    }
}

void virtio_unpop(struct virtio *v, struct virtio_element *e)
{
    v->q_next[e->queue]--;
    release(v, e);
}

struct virtio_element *virtio_retake(struct virtio *v, unsigned queue, uint16_t head)
{
    struct virtio_ring *r = usable(v, queue);
    return r ? take(v, queue, r, head) : NULL;
}

/* ---- giving them back ---- */

static void note_written(const struct virtio_element *e, uint64_t written)
{
    for (unsigned i = 0; i < e->nin && written; i++) {
        const struct iovec *part = &e->iov[e->nout + i];
        uint64_t n = MIN(written, part->iov_len);
        ram_note_write(part->iov_base, n);
        written -= n;
    }
}

void virtio_fill(struct virtio *v, struct virtio_element *e, uint32_t written)
{
    struct virtio_ring *r = usable(v, e->queue);
    note_written(e, written);
    if (r) {
        unsigned i = v->q_used_at[e->queue]++ & (r->size - 1);
        uint8_t *entry = r->used + RING_ENTRIES + (size_t)i * USED_ENTRY_BYTES;
        le32_put(entry, e->head);
        le32_put(entry + 4, written);
        ram_note_write(entry, USED_ENTRY_BYTES);
    }
    release(v, e);
}

void virtio_flush(struct virtio *v, unsigned queue)
{
    struct virtio_ring *r = usable(v, queue);
    if (r) {
        shared_store(r->used + RING_IDX, v->q_used_at[queue]);
    }
}

void virtio_push(struct virtio *v, struct virtio_element *e, uint32_t written)
{
    unsigned queue = e->queue;
    virtio_fill(v, e, written);
    virtio_flush(v, queue);
}

/* Whether the step from @old to @now passed the event index. */
static bool passed(uint16_t event, uint16_t old, uint16_t now)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

void virtio_interrupt(struct virtio *v, unsigned queue)
{
    struct virtio_ring *r = usable(v, queue);
    uint16_t old = v->q_signalled[queue], now = v->q_used_at[queue];
    if (!r || old == now) {
        return;
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* .idx is out before we look */
    v->q_signalled[queue] = now;
    bool wanted;
    if (virtio_has(v, VIRTIO_F_EVENT_IDX)) {
        wanted = passed(shared_load(r->avail + RING_ENTRIES + 2 * (size_t)r->size), old, now);
    } else {
        wanted = !(shared_load(r->avail + RING_FLAGS) & AVAIL_NO_INTERRUPT);
    }
    if (wanted) {
        v->notify(v, v->q_vector[queue], ISR_QUEUE);
    }
}

void virtio_config_changed(struct virtio *v)
{
    v->generation++;
    if (v->status & VIRTIO_DRIVER_OK) {
        v->notify(v, v->config_vector, ISR_CONFIG);
    }
}

/* ---- bytes of a chain ---- */

enum copy_dir { COPY_OUT_OF, COPY_INTO };

static size_t copy(const struct iovec *iov, unsigned niov, uint64_t skip, void *buf, size_t n,
                   enum copy_dir dir)
{
    size_t done = 0;
    for (unsigned i = 0; i < niov && done < n; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        uint8_t *part = (uint8_t *)iov[i].iov_base + skip, *mine = (uint8_t *)buf + done;
        size_t step = MIN(iov[i].iov_len - skip, n - done);
        memcpy(dir == COPY_INTO ? part : mine, dir == COPY_INTO ? mine : part, step);
        done += step;
        skip = 0;
    }
    return done;
}

size_t virtio_get(const struct virtio_element *e, uint64_t skip, void *to, size_t n)
{
    return copy(e->iov, e->nout, skip, to, n, COPY_OUT_OF);
}

size_t virtio_put(const struct virtio_element *e, uint64_t skip, const void *from, size_t n)
{
    return copy(e->iov + e->nout, e->nin, skip, (void *)(uintptr_t)from, n, COPY_INTO);
}

/* ---- negotiation ---- */

static void look_again(void *owner)
{
    struct virtio *v = owner;
    for (unsigned i = 0; i < v->nqueues; i++) {
        virtio_kick(v, i);
    }
}

void virtio_init(struct virtio *v, struct device *dev)
{
    v->dev = dev;
    v->again = (struct timer){.fire = look_again, .owner = v};
}

void virtio_free(struct virtio *v)
{
    timer_disarm(&v->again);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        g_clear_pointer(&v->ring[i], g_free);
    }
}

void virtio_reset(struct virtio *v)
{
    if (v->model->reset) {
        v->model->reset(v);
    }
    timer_disarm(&v->again);
    v->features = 0;
    v->status = v->isr = v->broken = 0;
    v->config_vector = VIRTIO_NO_VECTOR;
    for (unsigned i = 0; i < v->nqueues; i++) {
        v->q_enabled[i] = 0;
        v->q_next[i] = v->q_used_at[i] = v->q_signalled[i] = 0;
        v->q_size[i] = v->queue_size_max[i];
        v->q_vector[i] = VIRTIO_NO_VECTOR;
        v->q_desc[i] = v->q_avail[i] = v->q_used[i] = 0;
        g_clear_pointer(&v->ring[i], g_free);
    }
}

void virtio_set_features(struct virtio *v, uint64_t features)
{
    if (!(v->status & (VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK))) {
        v->features = features;
    }
}

static bool features_fit(const struct virtio *v)
{
    return !(v->features & ~v->offered) && virtio_has(v, VIRTIO_F_VERSION_1);
}

void virtio_set_status(struct virtio *v, uint8_t status)
{
    uint8_t old = v->status;
    if (!status) {
        virtio_reset(v);
    } else {
        if ((status & ~old & VIRTIO_FEATURES_OK) && !features_fit(v)) {
            status &= (uint8_t)~VIRTIO_FEATURES_OK;
        }
        if (status & ~old & VIRTIO_DRIVER_OK) {
            v->features &= v->offered; /* legacy drivers have no other moment for this */
        }
        v->status = status | (v->broken ? VIRTIO_NEEDS_RESET : 0);
    }
    if (v->model->status_changed && v->status != old) {
        v->model->status_changed(v, old);
    }
    if (v->status & ~old & VIRTIO_DRIVER_OK) {
        look_again(v); /* some drivers fill and kick before they say that they are ready */
    }
}

void virtio_enable_queue(struct virtio *v, unsigned queue)
{
    if (v->q_enabled[queue]) {
        return; /* elements may be out; only a reset takes a queue back */
    }
    unsigned size = v->q_size[queue];
    bool sane = size && size <= v->queue_size_max[queue] && !(size & (size - 1)) &&
                !(v->q_desc[queue] & 15) && !(v->q_avail[queue] & 1) && !(v->q_used[queue] & 3);
    if (!sane) {
        virtio_break(v, "a queue's size or address is not valid");
        return;
    }
    g_free(v->ring[queue]);
    v->ring[queue] = ring_new(v, size);
    if (!v->ring[queue]) {
        virtio_break(v, "no memory for a queue");
        return;
    }
    v->q_enabled[queue] = 1;
}

static void run_queue(void *owner, unsigned queue)
{
    struct virtio *v = owner;
    if (virtio_ready(v, queue)) {
        v->model->kick(v, queue);
    }
}

void virtio_kick(struct virtio *v, unsigned queue)
{
    if (v->io.thread && virtio_ready(v, queue)) {
        iothread_kick(&v->io, queue);
    } else {
        run_queue(v, queue);
    }
}

bool virtio_use_iothread(struct virtio *v, const char *id, GError **error)
{
    v->io.run = run_queue;
    v->io.owner = v;
    return iothread_join(&v->io, id, error);
}

/* ---- configuration ---- */

uint32_t virtio_config_read(struct virtio *v, uint64_t at, unsigned bytes)
{
    uint8_t raw[4] = {0};
    if (at + bytes > v->config_bytes || bytes > sizeof(raw)) {
        return UINT32_MAX;
    }
    if (v->model->config_reading) {
        v->model->config_reading(v);
    }
    memcpy(raw, v->config + at, bytes);
    return le32_at(raw);
}

void virtio_config_write(struct virtio *v, uint64_t at, unsigned bytes, uint32_t value)
{
    if (at + bytes <= v->config_bytes && v->model->config_written) {
        v->model->config_written(v, (unsigned)at, bytes, value);
    }
}

/* ---- state ---- */

bool virtio_loaded(struct virtio *v, GError **error)
{
    if (v->features & ~v->offered) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "features %#" G_GINT64_MODIFIER "x are not offered here",
                    v->features & ~v->offered);
        return false;
    }
    for (unsigned i = 0; i < v->nqueues; i++) {
        bool enabled = v->q_enabled[i];
        v->q_enabled[i] = 0;
        if (enabled) {
            virtio_enable_queue(v, i);
        }
        if (v->q_enabled[i] != enabled) {
            g_set_error(error, LODGE_ERROR, EINVAL, "queue %u cannot be as it is stated", i);
            return false;
        }
    }
    if (v->model->status_changed && v->status) {
        v->model->status_changed(v, 0);
    }
    timer_arm(&v->again, clock_now());
    return true;
}
