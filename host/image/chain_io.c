/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * chain_io: reading and writing guest bytes, in blocking form and by any number of threads.
 *
 * node->lock is held around the format's functions only.  What keeps requests apart during
 * data I/O is track.h: a write that takes new space, a zeroing and a discard are alone in
 * their granules, everything else runs side by side.
 */
#include "host/image/chain.h"

#include "base/bytes.h"
#include "base/util.h"
#include "host/image/cipher.h"
#include "host/image/codec.h"
#include "host/image/core.h"
#include "host/image/dirty.h"
#include "host/image/protocol.h"

enum { BOUNCE = 1 << 20, FILL_WHOLE = 64 << 10 };

static const uint8_t zeroes[64 << 10];

static struct file *file_of(const struct node *n, const struct extent *e)
{
    return e->file ? e->file : n->file;
}

/* The part of @e from @skip on. */
static struct extent extent_from(const struct extent *e, uint64_t skip)
{
    struct extent part = *e;
    part.length -= skip;
    if (e->kind != EXTENT_PACKED && (e->at || e->kind == EXTENT_DATA)) {
        part.at += skip;
    }
    part.tweak += skip;
    return part;
}

/* ---- reading ---- */

static int decrypt_range(struct node *n, const struct extent *e, uint8_t *to, uint64_t bytes)
{
    uint64_t in = e->tweak & (n->align - 1), start = e->tweak - in;
    if (!in && !(bytes & (n->align - 1))) {
        int r = file_read(file_of(n, e), e->at, to, bytes);
        return r < 0 ? r : cipher_decrypt(n->cipher, start, to, bytes);
    }
    uint8_t *buf = g_try_malloc(BOUNCE);
    int r = buf ? 0 : -ENOMEM;
    for (uint64_t done = 0; r == 0 && done < bytes;) {
        uint64_t step = MIN(bytes - done, BOUNCE - in);
        uint64_t whole = (in + step + n->align - 1) & ~(uint64_t)(n->align - 1);
        r = file_read(file_of(n, e), e->at + done - in, buf, whole);
        r = r ? r : cipher_decrypt(n->cipher, e->tweak + done - in, buf, whole);
        if (r == 0) {
            memcpy(to + done, buf + in, step);
        }
        done += step;
        in = 0;
    }
    g_free(buf);
    return r;
}

static int read_data(struct node *n, const struct extent *e, uint8_t *to, uint64_t bytes)
{
    struct file *f = file_of(n, e);
    uint64_t size = file_size(f), there = e->at < size ? MIN(bytes, size - e->at) : 0;
    if (n->cipher) {
        return decrypt_range(n, e, to, bytes);
    }
    if (!there && !n->format->flat) {
        return -EIO; /* metadata points behind the end of the file */
    }
    int r = file_read(f, e->at, to, there);
    memset(to + there, 0, bytes - there);
    return r;
}

/* Bytes that @n answers for as @e says; not EXTENT_ABSENT. */
static int read_extent(struct node *n, const struct extent *e, uint64_t offset, uint8_t *to,
                       uint64_t bytes)
{
    switch (e->kind) {
    case EXTENT_DATA:
        return read_data(n, e, to, bytes);
    case EXTENT_PACKED:
        return units_read(&n->core->units, file_of(n, e), e, offset - e->start, to, bytes);
    case EXTENT_ZERO:
    case EXTENT_ABSENT:
        break;
    }
    memset(to, 0, bytes);
    return 0;
}

static int map_locked(struct node *n, uint64_t offset, uint64_t bytes, struct extent *out)
{
    *out = (struct extent){0};
    g_mutex_lock(&n->lock);
    int r = n->format->map(n, offset, bytes, true, out);
    g_mutex_unlock(&n->lock);
    if (r == 0 && !out->length) {
        return -EIO;
    }
    out->length = MIN(out->length, bytes);
    return r;
}

static int read_below(struct node *n, uint64_t offset, uint8_t *to, uint64_t bytes);

/* One step: how far it got is in *@done.  @tracked: the caller is in @n's track list. */
static int read_step(struct node *n, bool tracked, uint64_t offset, uint8_t *to, uint64_t bytes,
                     uint64_t *done)
{
    struct extent e;
    struct track t;
    if (!tracked) {
        track_begin(n, &t, offset, bytes);
    }
    int r = map_locked(n, offset, bytes, &e);
    *done = e.length;
    if (r == 0 && e.kind != EXTENT_ABSENT) {
        r = read_extent(n, &e, offset, to, e.length);
    }
    if (!tracked) {
        track_end(n, &t);
    }
    return r == 0 && e.kind == EXTENT_ABSENT ? read_below(n->backing, offset, to, e.length) : r;
}

static int read_node(struct node *n, bool tracked, uint64_t offset, uint8_t *to, uint64_t bytes)
{
    int r = 0;
    while (r == 0 && bytes) {
        uint64_t done = 0;
        r = read_step(n, tracked, offset, to, bytes, &done);
        to += done;
        offset += done;
        bytes -= done;
    }
    return r;
}

/* @n may be NULL or shorter than the range: what nobody has is zero. */
static int read_below(struct node *n, uint64_t offset, uint8_t *to, uint64_t bytes)
{
    uint64_t there = n && offset < n->size ? MIN(bytes, n->size - offset) : 0;
    memset(to + there, 0, bytes - there);
    return there ? read_node(n, false, offset, to, there) : 0;
}

static int check_range(const struct node *n, uint64_t offset, uint64_t bytes)
{
    return offset > n->size || bytes > n->size - offset ? -EIO : 0;
}

/* Makes what of the range comes from below @top's own, in whole granules. */
static int pull_for_read(struct node *top, uint64_t offset, uint64_t n)
{
    uint64_t mask = top->granule - UINT64_C(1), end = MIN((offset + n + mask) & ~mask, top->size);
    int r = 0;
    for (uint64_t at = offset & ~mask; at < end && r == 0;) {
        struct extent e;
        bool copied;
        r = map_locked(top, at, end - at, &e);
        if (r == 0 && e.kind == EXTENT_ABSENT) {
            r = chain_pull(top, NULL, at, e.length, &copied);
        }
        at += e.length;
    }
    return r;
}

int chain_read(struct node *top, uint64_t offset, void *to, uint64_t n)
{
    int r = check_range(top, offset, n);
    if (r == 0 && (top->flags & OPEN_COPY_ON_READ) && top->backing) {
        r = pull_for_read(top, offset, n);
    }
    return r ? r : read_node(top, false, offset, to, n);
}

/* ---- writing to a known place ---- */

static int write_encrypted(struct node *n, const struct extent *e, const uint8_t *from,
                           uint64_t bytes)
{
    uint8_t *buf = g_try_malloc(MIN(bytes, BOUNCE));
    int r = buf ? 0 : -ENOMEM;
    for (uint64_t done = 0; r == 0 && done < bytes;) {
        uint64_t step = MIN(bytes - done, BOUNCE);
        memcpy(buf, from + done, step);
        r = cipher_encrypt(n->cipher, e->tweak + done, buf, step);
        r = r ? r : file_write(file_of(n, e), e->at + done, buf, step);
        done += step;
    }
    g_free(buf);
    return r;
}

/* @e and @bytes suit node->align. */
static int write_extent(struct node *n, const struct extent *e, const uint8_t *from, uint64_t bytes)
{
    return n->cipher ? write_encrypted(n, e, from, bytes)
                     : file_write(file_of(n, e), e->at, from, bytes);
}

static int write_zeroes(struct node *n, const struct extent *e, uint64_t bytes)
{
    if (!n->cipher) {
        return file_zero(file_of(n, e), e->at, bytes, true);
    }
    int r = 0;
    for (uint64_t done = 0; r == 0 && done < bytes;) {
        struct extent part = extent_from(e, done);
        uint64_t step = MIN(bytes - done, sizeof(zeroes));
        r = write_encrypted(n, &part, zeroes, step);
        done += step;
    }
    return r;
}

/* ---- copy on write ---- */

/* Whether all of the range reads as zero, without reading data. */
static bool reads_zero(struct node *n, uint64_t offset, uint64_t bytes)
{
    while (bytes) {
        struct extent e;
        if (!n || offset >= n->size) {
            return true;
        }
        uint64_t there = MIN(bytes, n->size - offset);
        if (map_locked(n, offset, there, &e) || e.kind == EXTENT_DATA || e.kind == EXTENT_PACKED ||
            (e.kind == EXTENT_ABSENT && !reads_zero(n->backing, offset, e.length))) {
            return false;
        }
        offset += e.length;
        bytes -= e.length;
    }
    return true;
}

/* Fills [@offset, @offset + @bytes) of new space @e with what the guest reads there now. */
static int fill(struct node *n, const struct extent *e, uint64_t offset, uint64_t bytes)
{
    if (!bytes) {
        return 0;
    }
    if (reads_zero(n, offset, bytes)) {
        return write_zeroes(n, e, bytes);
    }
    uint8_t *buf = g_try_malloc(MIN(bytes, BOUNCE));
    int r = buf ? 0 : -ENOMEM;
    for (uint64_t done = 0; r == 0 && done < bytes;) {
        struct extent part = extent_from(e, done);
        uint64_t step = MIN(bytes - done, BOUNCE);
        r = read_node(n, true, offset + done, buf, step);
        r = r ? r : write_extent(n, &part, buf, step);
        done += step;
    }
    g_free(buf);
    return r;
}

/* New space @e for the guest range from @start on: a part of it comes from @from. */
static int fill_whole(struct node *n, const struct extent *e, uint64_t start, uint64_t skip,
                      const uint8_t *from, uint64_t bytes)
{
    uint8_t *buf = g_try_malloc(e->length);
    uint64_t end = skip + bytes;
    int r = buf ? 0 : -ENOMEM;
    r = r ? r : read_node(n, true, start, buf, skip);
    r = r ? r : read_node(n, true, start + end, buf + end, e->length - end);
    if (r == 0) {
        memcpy(buf + skip, from, bytes);
        r = write_extent(n, e, buf, e->length);
    }
    g_free(buf);
    return r;
}

/* All of new space @e: @bytes from @from at @skip, the rest as the guest reads it now. */
static int fill_fresh(struct node *n, const struct extent *e, uint64_t start, uint64_t skip,
                      const uint8_t *from, uint64_t bytes)
{
    uint64_t end = skip + bytes;
    if (skip == 0 && end == e->length) {
        return write_extent(n, e, from, bytes);
    }
    if (e->length <= FILL_WHOLE || ((skip | end) & (n->align - 1))) {
        return e->length <= BOUNCE ? fill_whole(n, e, start, skip, from, bytes) : -EINVAL;
    }
    struct extent middle = extent_from(e, skip), tail = extent_from(e, end);
    int r = fill(n, e, start, skip);
    r = r ? r : write_extent(n, &middle, from, bytes);
    return r ? r : fill(n, &tail, start + end, e->length - end);
}

static void forget_unit(struct node *n, uint64_t offset, uint64_t bytes)
{
    units_forget(&n->core->units, offset, bytes);
}

static int link_locked(struct node *n, uint64_t offset, const struct extent *e, int written)
{
    int r = written;
    g_mutex_lock(&n->lock);
    if (r == 0) {
        r = n->format->link(n, offset, e);
    } else if (n->format->unplace) {
        n->format->unplace(n, offset, e);
    }
    g_mutex_unlock(&n->lock);
    forget_unit(n, offset, e->length);
    return r;
}

/* ---- writing ---- */

/* In place, in a node whose cipher works on sectors of which only a part is written. */
static int merge_sectors(struct node *n, const struct extent *e, const uint8_t *from,
                         uint64_t bytes)
{
    uint64_t mask = n->align - UINT64_C(1), in = e->tweak & mask;
    uint8_t sector[4096];
    int r = n->align <= sizeof(sector) ? 0 : -EINVAL;
    for (uint64_t done = 0; r == 0 && done < bytes;) {
        struct extent part = extent_from(e, done);
        uint64_t step =
            in || bytes - done <= mask ? MIN(n->align - in, bytes - done) : (bytes - done) & ~mask;
        if (in || step <= mask) {
            part.at -= in;
            part.tweak -= in;
            r = decrypt_range(n, &part, sector, n->align);
            memcpy(sector + in, from + done, step);
            r = r ? r : write_extent(n, &part, sector, n->align);
        } else {
            r = write_extent(n, &part, from + done, step);
        }
        done += step;
        in = 0;
    }
    return r;
}

static int write_placed(struct node *n, uint64_t offset, const uint8_t *from, uint64_t bytes,
                        uint64_t *done)
{
    uint64_t mask = n->granule - UINT64_C(1), start = offset & ~mask;
    uint64_t end = MIN((offset + bytes + mask) & ~mask, n->size);
    struct extent e = {0};
    g_mutex_lock(&n->lock);
    int r = n->format->place(n, start, end - start, &e);
    g_mutex_unlock(&n->lock);
    if (r < 0) {
        return r;
    }
    e.length = MIN(e.length, end - start);
    uint64_t skip = offset - start;
    if (e.length <= skip) {
        return -EIO; /* less than a granule: the format is at fault */
    }
    *done = MIN(bytes, e.length - skip);
    if (e.fresh) {
        /* Only the granules that this request touches. */
        e.length = MIN(e.length, (skip + *done + mask) & ~mask);
        return link_locked(n, start, &e, fill_fresh(n, &e, start, skip, from, *done));
    }
    struct extent part = extent_from(&e, skip);
    return n->cipher ? merge_sectors(n, &part, from, *done) : write_extent(n, &part, from, *done);
}

/* Tries to write where the bytes are already; -EAGAIN: place() must be asked. */
static int write_in_place(struct node *n, uint64_t offset, const uint8_t *from, uint64_t bytes,
                          uint64_t *done)
{
    struct extent e;
    struct track t;
    track_begin(n, &t, offset, bytes);
    int r = map_locked(n, offset, bytes, &e);
    if (r == 0) {
        *done = e.length;
        bool whole = !((offset | e.length) & (n->align - 1));
        r = e.kind == EXTENT_DATA && e.in_place && whole ? write_extent(n, &e, from, e.length)
                                                         : -EAGAIN;
    }
    track_end(n, &t);
    return r;
}

static int write_step(struct node *n, uint64_t offset, const uint8_t *from, uint64_t bytes,
                      uint64_t *done)
{
    int r = write_in_place(n, offset, from, bytes, done);
    if (r == -EAGAIN) {
        struct track t;
        track_begin_exclusive(n, &t, offset, bytes);
        r = write_placed(n, offset, from, bytes, done);
        track_end(n, &t);
    }
    return r;
}

static int check_write(const struct node *n, uint64_t offset, uint64_t bytes)
{
    int r = check_range(n, offset, bytes);
    return r ? r : n->read_only ? -EROFS : 0;
}

static int after_write(struct node *n, int r)
{
    return r == 0 && (n->flags & OPEN_WRITETHROUGH) ? chain_flush(n) : r;
}

/* For formats that hold nothing but packed units (streamOptimized vmdk): whole ones. */
static int write_units(struct node *n, uint64_t offset, const uint8_t *from, uint64_t bytes)
{
    size_t room = n->granule + n->granule / 16 + 1024; /* a packer that gains nothing adds some */
    if (!n->codec || offset & (n->granule - 1) ||
        (bytes & (n->granule - 1) && offset + bytes != n->size)) {
        return -ENOTSUP;
    }
    g_autofree uint8_t *unit = g_try_malloc(n->granule), *packed = g_try_malloc(room);
    int r = unit && packed ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < bytes && r == 0; at += n->granule) {
        size_t part = (size_t)MIN(n->granule, bytes - at);
        memcpy(unit, from + at, part);
        memset(unit + part, 0, n->granule - part);
        int64_t stored = n->codec->pack(unit, n->granule, packed, room, 0);
        r = stored > 0   ? chain_write_packed(n, offset + at, packed, (uint32_t)stored)
            : stored < 0 ? (int)stored
                         : -EIO;
    }
    return r;
}

int chain_write(struct node *top, uint64_t offset, const void *from, uint64_t n)
{
    const uint8_t *p = from;
    const uint64_t first = offset, all = n;
    int r = check_write(top, offset, n);
    while (r == 0 && n) {
        uint64_t done = 0;
        r = write_step(top, offset, p, n, &done);
        if (r == -ENOTSUP) {
            return write_units(top, offset, p, n);
        }
        p += done;
        offset += done;
        n -= done;
    }
    dirty_record(top, first, all);
    return after_write(top, r);
}

int chain_write_packed(struct node *n, uint64_t offset, const void *packed, uint32_t stored)
{
    uint64_t unit = n->unit ? n->unit : n->granule;
    uint64_t length = offset < n->size ? MIN(unit, n->size - offset) : 0;
    int r = check_write(n, offset, length);
    if (r < 0 || !n->format->place_packed) {
        return r < 0 ? r : -ENOTSUP;
    }
    if (!length || offset & (unit - 1)) {
        return -EINVAL;
    }
    struct extent e = {0};
    struct track t;
    track_begin_exclusive(n, &t, offset, length);
    g_mutex_lock(&n->lock);
    r = n->format->place_packed(n, offset, stored, &e);
    g_mutex_unlock(&n->lock);
    if (r == 0) {
        r = link_locked(n, offset, &e, file_write(file_of(n, &e), e.at, packed, stored));
    }
    track_end(n, &t);
    dirty_record(n, offset, length);
    return after_write(n, r);
}

/* ---- zeroing and discarding ---- */

/* For formats that have no zero(): in the file where there is space, by writing otherwise. */
static int zero_by_data(struct node *n, uint64_t offset, uint64_t bytes, enum zero_kind kind)
{
    int r = 0;
    while (r == 0 && bytes) {
        struct extent e;
        uint64_t done = 0;
        r = map_locked(n, offset, bytes, &e);
        done = e.length;
        if (r == 0 && kind == ZERO_ABSENT) {
            return -ENOTSUP;
        }
        if (r == 0 && e.kind == EXTENT_DATA && n->format->flat && !n->cipher) {
            r = kind == ZERO_DISCARD
                    ? file_discard(file_of(n, &e), e.at, e.length)
                    : file_zero(file_of(n, &e), e.at, e.length, kind == ZERO_UNMAP);
        } else if (r == 0 && kind != ZERO_DISCARD && e.kind != EXTENT_ZERO) {
            done = MIN(done, sizeof(zeroes));
            r = write_placed(n, offset, zeroes, done, &done);
        }
        offset += done;
        bytes -= done;
    }
    return r;
}

/* Whole granules that this thread has for itself. */
static int zero_own(struct node *n, uint64_t offset, uint64_t bytes, enum zero_kind kind)
{
    int r = -ENOTSUP;
    if (n->format->zero) {
        g_mutex_lock(&n->lock);
        r = n->format->zero(n, offset, bytes, kind);
        g_mutex_unlock(&n->lock);
        forget_unit(n, offset, bytes);
    }
    return r == -ENOTSUP ? zero_by_data(n, offset, bytes, kind) : r;
}

static int zero_granules(struct node *n, uint64_t offset, uint64_t bytes, enum zero_kind kind)
{
    struct track t;
    track_begin_exclusive(n, &t, offset, bytes);
    int r = zero_own(n, offset, bytes, kind);
    track_end(n, &t);
    return r;
}

static int zero_inside(struct node *n, uint64_t offset, uint64_t bytes, enum zero_kind kind)
{
    int r = 0;
    if (kind == ZERO_DISCARD || reads_zero(n, offset, bytes)) {
        return 0;
    }
    while (r == 0 && bytes) {
        uint64_t done = 0;
        r = write_step(n, offset, zeroes, MIN(bytes, sizeof(zeroes)), &done);
        offset += done;
        bytes -= done;
    }
    return r;
}

int chain_zero(struct node *top, uint64_t offset, uint64_t n, enum zero_kind kind)
{
    uint64_t mask = MAX(top->granule, top->align) - UINT64_C(1), end = offset + n;
    int r = check_write(top, offset, n);
    if (r < 0 || !n) {
        return r;
    }
    uint64_t first = (offset + mask) & ~mask, last = end == top->size ? end : end & ~mask;
    if (first >= last) {
        r = kind == ZERO_ABSENT ? -EINVAL : zero_inside(top, offset, n, kind);
        dirty_record(top, offset, n);
        return after_write(top, r);
    }
    if (kind == ZERO_ABSENT && (first != offset || last != end)) {
        return -EINVAL;
    }
    r = zero_inside(top, offset, first - offset, kind);
    r = r ? r : zero_granules(top, first, last - first, kind);
    dirty_record(top, offset, n);
    return after_write(top, r ? r : zero_inside(top, last, end - last, kind));
}

int chain_flush(struct node *n)
{
    if (n->read_only) {
        return 0;
    }
    if (!n->format->flush) {
        return file_flush(n->file);
    }
    g_mutex_lock(&n->lock);
    int r = n->format->flush(n);
    g_mutex_unlock(&n->lock);
    return r;
}

/* ---- pulling up ---- */

/* Of @n bytes of whole granules those that are all zero, or all not, like the first. */
static uint64_t run_of(const struct node *top, const uint8_t *buf, uint64_t n, bool *zero)
{
    uint64_t granule = top->granule, end = MIN(granule, n);
    *zero = is_zero(buf, end);
    while (end < n && is_zero(buf + end, MIN(granule, n - end)) == *zero) {
        end += MIN(granule, n - end);
    }
    return end;
}

/* What lies below @top; zeroes take no space in it. */
static int pull_data(struct node *top, uint64_t offset, uint8_t *buf, uint64_t n)
{
    int r = read_below(top->backing, offset, buf, n);
    while (r == 0 && n) {
        bool zero;
        uint64_t run = run_of(top, buf, n, &zero), done = run;
        r = zero ? zero_own(top, offset, run, ZERO_UNMAP)
                 : write_placed(top, offset, buf, run, &done);
        offset += done;
        buf += done;
        n -= done;
    }
    return r;
}

/* In granules that @top does not have and that this thread has for itself. */
static int pull_absent(struct node *top, struct node *base, uint64_t offset, uint64_t n,
                       bool *copied)
{
    static GPrivate key = G_PRIVATE_INIT(g_free);
    uint64_t mask = top->granule - UINT64_C(1);
    uint8_t *buf = thread_buffer(&key, BOUNCE);
    int r = buf ? 0 : -ENOMEM;
    while (r == 0 && n) {
        struct chain_status s = {.length = n};
        if (top->backing && offset < top->backing->size) {
            r = chain_status(top->backing, base, offset, MIN(n, top->backing->size - offset), &s);
        }
        /* What only a part of a granule has makes all of it the top's. */
        uint64_t whole = s.length & ~mask, step = whole;
        if (r == 0 && whole && s.present && s.zero) {
            r = zero_own(top, offset, whole, ZERO_UNMAP);
        } else if (r == 0 && (s.present || !whole)) {
            step = MIN(MIN((s.length + mask) & ~mask, n), BOUNCE);
            r = pull_data(top, offset, buf, step);
            *copied = true;
        }
        offset += step;
        n -= step;
    }
    return r;
}

int chain_pull(struct node *top, struct node *base, uint64_t offset, uint64_t n, bool *copied)
{
    struct track t;
    int r = check_write(top, offset, n);
    track_begin_exclusive(top, &t, offset, n);
    while (r == 0 && n) {
        struct extent e;
        r = map_locked(top, offset, n, &e);
        if (r == 0 && e.kind == EXTENT_ABSENT) {
            r = pull_absent(top, base, offset, e.length, copied);
        }
        offset += e.length;
        n -= MIN(n, e.length);
    }
    track_end(top, &t);
    return r;
}

void chain_forget(struct node *n)
{
    units_clear(&n->core->units);
}

/* ---- status ---- */

static int status_of(struct node *n, unsigned depth, const struct extent *e,
                     struct chain_status *out)
{
    struct file *f = file_of(n, e);
    bool plain = e->kind == EXTENT_DATA || (e->kind == EXTENT_ZERO && e->at);
    *out = (struct chain_status){.length = e->length,
                                 .zero = e->kind == EXTENT_ZERO,
                                 .data = e->kind == EXTENT_DATA || e->kind == EXTENT_PACKED,
                                 .present = true,
                                 .compressed = e->kind == EXTENT_PACKED,
                                 .offset_valid = plain && !n->cipher,
                                 .depth = depth,
                                 .node = n,
                                 .file = f,
                                 .at = e->at};
    bool data = true;
    int r = 0;
    if (e->kind == EXTENT_DATA && (e->holes || n->format->flat)) {
        r = file_extent(f, e->at, e->length, &data, &out->length);
    }
    if (!data) {
        out->data = false;
        out->zero = true;
    }
    return r;
}

int chain_status(struct node *top, struct node *base, uint64_t offset, uint64_t length,
                 struct chain_status *out)
{
    unsigned depth = 0;
    int r = check_range(top, offset, length);
    for (struct node *n = top; r == 0 && n && n != base; n = n->backing, depth++) {
        struct extent e;
        if (offset >= n->size) {
            break;
        }
        r = map_locked(n, offset, MIN(length, n->size - offset), &e);
        if (r == 0 && e.kind != EXTENT_ABSENT) {
            return status_of(n, depth, &e, out);
        }
        length = e.length;
    }
    /* Nobody has it: the lowest node that could have had says zero. */
    *out = (struct chain_status){.length = length, .zero = true, .depth = depth ? depth - 1 : 0};
    return r;
}
