/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/image/protocol.h"
#include "host/image/tool/convert.h"

#include <errno.h>
#include <unistd.h>

enum { SECTOR = 512 };
static const uint64_t GROW_MAX = UINT64_C(16) << 30; /* at a time */

/* Opened images as the beginning and the end of a copy. */

struct chain_feed {
    struct feed feed;
    struct node *const *tops;
    unsigned n;
    struct node *only; /* .tops points here if there is one */
    bool partly;       /* only what is above .base */
    struct node *base;
    uint64_t at;          /* where the next piece starts */
    enum piece_kind kind; /* of what is known: [.at, .known) */
    uint64_t known;
    struct file *file; /* that holds it as it is, .file_at bytes after .at; NULL: none */
    uint64_t file_at;
};

/* Which source holds byte *@at, which becomes the offset in it. */
static struct node *source_at(const struct chain_feed *f, uint64_t *at)
{
    unsigned i = 0;
    while (i + 1 < f->n && *at >= f->tops[i]->size) {
        *at -= f->tops[i]->size;
        i++;
    }
    return f->tops[i];
}

static enum piece_kind kind_of(const struct chain_feed *f, const struct chain_status *s)
{
    if (f->partly && !s->present) {
        return PIECE_BACKING;
    }
    return s->zero ? PIECE_ZERO : PIECE_DATA;
}

static int look(struct chain_feed *f)
{
    uint64_t at = f->at;
    struct node *top = source_at(f, &at);
    struct chain_status s;
    int error = chain_status(top, f->partly ? f->base : NULL, at, top->size - at, &s);
    if (!error) {
        f->kind = kind_of(f, &s);
        f->known = f->at + s.length;
        f->file = s.offset_valid ? s.file : NULL;
        f->file_at = s.at - f->at; /* may wrap round, and back */
    }
    return error;
}

static int chain_next(struct feed *feed, struct piece *p)
{
    struct chain_feed *f = (struct chain_feed *)feed;
    uint64_t unit = feed->unit;
    p->offset = f->at;
    p->kind = PIECE_END;
    if (f->at >= feed->size) {
        return 0;
    }
    int error = f->at >= f->known ? look(f) : 0;
    if (error) {
        return error;
    }
    p->kind = f->kind;
    uint64_t end = f->known;
    if (p->kind != PIECE_DATA && end < feed->size && end % unit) {
        /* The unit in which it ends is copied whole. */
        end -= end % unit;
        if (end <= f->at) {
            p->kind = PIECE_DATA;
            end = f->at + 1;
        }
    }
    if (p->kind == PIECE_DATA) {
        end = MIN((end + unit - 1) / unit * unit, f->at - f->at % unit + feed->piece);
    }
    end = MIN(end, feed->size);
    p->length = end - f->at;
    p->from = end <= f->known ? f->file : NULL;
    p->at = f->file_at + f->at;
    f->at = end;
    return 0;
}

static int chain_fill(struct feed *feed, struct piece *p)
{
    const struct chain_feed *f = (struct chain_feed *)feed;
    for (uint64_t done = 0, n; done < p->length; done += n) {
        uint64_t at = p->offset + done;
        struct node *top = source_at(f, &at);
        n = MIN(p->length - done, top->size - at);
        int error = chain_read(top, at, p->data + done, n);
        if (error) {
            return error;
        }
    }
    return 0;
}

static struct chain_feed *feed_new(void)
{
    struct chain_feed *f = g_new0(struct chain_feed, 1);
    f->feed.next = chain_next;
    f->feed.read = chain_fill;
    return f;
}

struct feed *feed_of_chains(struct node *const *tops, unsigned n)
{
    struct chain_feed *f = feed_new();
    f->tops = tops;
    f->n = n;
    for (unsigned i = 0; i < n; i++) {
        f->feed.size += tops[i]->size;
    }
    return &f->feed;
}

struct feed *feed_above(struct node *top, struct node *base)
{
    struct chain_feed *f = feed_new();
    f->only = top;
    f->tops = &f->only;
    f->n = 1;
    f->partly = true;
    f->base = base;
    f->feed.size = top->size;
    return &f->feed;
}

void feed_free(struct feed *f)
{
    if (f && f->close) {
        f->close(f);
    }
    g_free(f ? f->why : NULL);
    g_free(f);
}

struct chain_sink {
    struct sink sink;
    struct node *top;
    enum zero_kind zero_kind;
    bool grows;
    bool fills; /* zeros are written, so that they take space */
};

/* Nobody else uses the node meanwhile: a sink that grows is ordered. */
static int make_room(struct chain_sink *c, uint64_t end)
{
    g_autoptr(GError) error = NULL;
    if (!c->grows || end <= c->top->size) {
        return 0;
    }
    uint64_t size = MAX(end, c->top->size + MIN(c->top->size, GROW_MAX));
    size = (size + SECTOR - 1) / SECTOR * SECTOR;
    bool ok = chain_resize(c->top, size, PREALLOC_OFF, &error);
    return ok ? 0 : -error_errno(error);
}

static int set_size(struct sink *s, uint64_t size)
{
    struct chain_sink *c = (struct chain_sink *)s;
    g_autoptr(GError) error = NULL;
    size = (size + SECTOR - 1) / SECTOR * SECTOR;
    bool ok = !c->grows || chain_resize(c->top, size, PREALLOC_OFF, &error);
    return ok ? 0 : -error_errno(error);
}

static int chain_put(struct sink *s, uint64_t offset, const void *from, uint64_t n)
{
    struct chain_sink *c = (struct chain_sink *)s;
    int error = make_room(c, offset + n);
    return error ? error : chain_write(c->top, offset, from, n);
}

static int put_zeros(struct chain_sink *c, uint64_t offset, uint64_t n)
{
    static const uint8_t zeros[PIECE_BYTES];
    int error = 0;
    for (uint64_t step; n && !error; offset += step, n -= step) {
        step = MIN(n, sizeof(zeros));
        error = chain_write(c->top, offset, zeros, step);
    }
    return error;
}

static int chain_clear(struct sink *s, uint64_t offset, uint64_t n)
{
    struct chain_sink *c = (struct chain_sink *)s;
    int error = make_room(c, offset + n);
    if (error) {
        return error;
    }
    return c->fills ? put_zeros(c, offset, n) : chain_zero(c->top, offset, n, c->zero_kind);
}

/* Only between local files, and where the target's bytes lie as they are. */
static int chain_offload(struct sink *sink, uint64_t offset, struct file *from, uint64_t at,
                         uint64_t n)
{
    struct chain_sink *c = (struct chain_sink *)sink;
    struct chain_status s;
    if (from->fd < 0 || !c->top->format->flat || chain_status(c->top, NULL, offset, n, &s) ||
        !s.offset_valid || s.length < n || s.file->fd < 0) {
        return -ENOTSUP;
    }
    off_t in = (off_t)at, out = (off_t)s.at;
    while (n) {
        ssize_t k = copy_file_range(from->cached_fd, &in, s.file->cached_fd, &out, n, 0);
        if (k <= 0) {
            return k < 0 ? -errno : -ENOTSUP;
        }
        n -= (uint64_t)k;
    }
    return 0;
}

static int chain_put_packed(struct sink *s, uint64_t offset, const void *from, uint32_t stored)
{
    struct chain_sink *c = (struct chain_sink *)s;
    int error = make_room(c, offset + c->sink.unit);
    return error ? error : chain_write_packed(c->top, offset, from, stored);
}

struct sink *sink_of_chain(struct node *top, const struct sink_options *how)
{
    struct chain_sink *c = g_new0(struct chain_sink, 1);
    c->sink = (struct sink){
        .size = top->size,
        .granule = top->granule <= GRANULE_MAX ? top->granule : SPARSE_DEFAULT,
        .codec = how->packed ? top->codec : NULL,
        .unit = top->unit ? top->unit : top->granule,
        /* Space is taken in the order of the disk, unless offsets say where. */
        .ordered = how->packed || how->grows || (top->granule > 1 && !how->any_order),
        .starts_zero = how->starts_zero,
        .data = chain_put,
        .zero = chain_clear,
        .packed = chain_put_packed,
        .end = set_size,
        .offload = chain_offload,
    };
    c->grows = how->grows;
    c->top = top;
    c->zero_kind = how->keep_space ? ZERO_KEEP : ZERO_UNMAP;
    c->fills = how->keep_space && !how->packed && !top->format->flat;
    return &c->sink;
}

void sink_free(struct sink *s)
{
    if (s && s->close) {
        s->close(s);
    }
    g_free(s);
}
