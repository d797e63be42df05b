/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * node_file: a whole image as the file under another format: qcow2 in a part of a raw disk, a
 * disk inside a disk.
 *
 * The format above may write behind the end, for which the image below grows; that is alone,
 * everything else runs side by side.
 */
#include "host/image/core.h"
#include "host/image/protocol.h"

enum { SECTOR = 512 };

struct inner {
    struct node *top;
    GRWLock size_lock; /* held for writing while the image's size changes */
};

static struct node *top_of(const struct file *f)
{
    return ((const struct inner *)f->priv)->top;
}

static int node_read(struct file *f, uint64_t at, void *to, size_t n)
{
    struct inner *i = f->priv;
    g_rw_lock_reader_lock(&i->size_lock);
    int r = chain_read(i->top, at, to, n);
    g_rw_lock_reader_unlock(&i->size_lock);
    return r;
}

static int grow(struct inner *i, uint64_t end)
{
    int r = 0;
    g_rw_lock_writer_lock(&i->size_lock);
    if (end > i->top->size) {
        g_autoptr(GError) error = NULL;
        end = (end + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
        r = chain_resize(i->top, end, PREALLOC_OFF, &error) ? 0 : -error_errno(error);
    }
    g_rw_lock_writer_unlock(&i->size_lock);
    return r == -ENOTSUP ? -ENOSPC : r; /* a disk of fixed size is full */
}

static int node_write(struct file *f, uint64_t at, const void *from, size_t n)
{
    struct inner *i = f->priv;
    int r = at + n > file_size(f) ? grow(i, at + n) : 0;
    g_rw_lock_reader_lock(&i->size_lock);
    r = r ? r : chain_write(i->top, at, from, n);
    g_rw_lock_reader_unlock(&i->size_lock);
    return r;
}

/* The part of the range that is inside; the caller of struct protocol does the rest. */
static int zero_inside(struct file *f, uint64_t at, uint64_t n, enum zero_kind kind)
{
    struct inner *i = f->priv;
    g_rw_lock_reader_lock(&i->size_lock);
    uint64_t size = i->top->size, there = at < size ? MIN(n, size - at) : 0;
    int r = there ? chain_zero(i->top, at, there, kind) : 0;
    g_rw_lock_reader_unlock(&i->size_lock);
    return r;
}

static int node_zero(struct file *f, uint64_t at, uint64_t n, bool may_unmap)
{
    return zero_inside(f, at, n, may_unmap ? ZERO_UNMAP : ZERO_KEEP);
}

static int node_discard(struct file *f, uint64_t at, uint64_t n)
{
    return zero_inside(f, at, n, ZERO_DISCARD);
}

static int node_flush(struct file *f)
{
    return chain_flush(top_of(f));
}

static int node_resize(struct file *f, uint64_t size)
{
    struct inner *i = f->priv;
    g_autoptr(GError) error = NULL;
    g_rw_lock_writer_lock(&i->size_lock);
    size = (size + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    int r = chain_resize(i->top, size, PREALLOC_OFF, &error) ? 0 : -error_errno(error);
    g_rw_lock_writer_unlock(&i->size_lock);
    return r;
}

static int node_extent(struct file *f, uint64_t at, uint64_t n, bool *data, uint64_t *length)
{
    struct chain_status s;
    int r = chain_status(top_of(f), NULL, at, n, &s);
    *data = !s.zero;
    *length = s.length;
    return r;
}

static uint64_t node_allocated(struct file *f)
{
    struct node *n = top_of(f);
    const struct format_tools *tools = n->format->tools;
    return tools && tools->allocated ? tools->allocated(n) : file_allocated(n->file);
}

static bool reopen(struct file *f, bool read_only, GError **error)
{
    struct node *n = top_of(f);
    bool ok = node_reopen(n, read_only, error);
    f->read_only = n->read_only;
    return ok;
}

static bool node_hold(struct file *f, bool on, GError **error)
{
    struct node *n = top_of(f);
    bool ok = node_hand(n, on, error);
    f->size = n->size;
    return ok;
}

static void inner_close(struct file *f)
{
    struct inner *i = f->priv;
    chain_close(i->top);
    g_rw_lock_clear(&i->size_lock);
    g_free(i);
}

static const struct protocol protocol_node = {
    .name = "node",
    .close = inner_close,
    .read = node_read,
    .write = node_write,
    .zero = node_zero,
    .discard = node_discard,
    .flush = node_flush,
    .resize = node_resize,
    .extent = node_extent,
    .allocated = node_allocated,
    .reopen = reopen,
    .hold = node_hold,
};

const struct file *file_innermost(const struct file *f)
{
    while (f->protocol == &protocol_node) {
        f = top_of(f)->file;
    }
    return f;
}

struct file *file_of_node(struct node *top)
{
    struct file *f = g_new0(struct file, 1);
    struct inner *i = g_new0(struct inner, 1);
    i->top = top;
    g_rw_lock_init(&i->size_lock);
    *f = (struct file){.protocol = &protocol_node,
                       .priv = i,
                       .name = g_strdup(node_name(top)),
                       .size = top->size,
                       .align = 1,
                       .flags = top->flags & ~(unsigned)OPEN_UNTRUSTED,
                       .read_only = top->read_only,
                       .fd = -1,
                       .cached_fd = -1};
    f->flags |= top->untrusted ? OPEN_UNTRUSTED : 0;
    return f;
}
