/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/memfile.h"

enum { SECTOR = 512, MEM_MAX = 512 << 20 };

struct mem *mem_of(struct file *f)
{
    return f->priv;
}

void mem_apply(GByteArray *bytes, const struct mem_op *op, uint64_t sectors)
{
    uint64_t old = bytes->len, end = op->at + op->n;
    if (op->kind == MEM_FLUSH) {
        return;
    }
    if (op->kind == MEM_RESIZE || end > old) {
        g_byte_array_set_size(bytes, (guint)end);
        if (end > old) {
            memset(bytes->data + old, 0, end - old);
        }
    }
    if (op->kind == MEM_ZERO) {
        memset(bytes->data + op->at, 0, op->n);
    }
    for (uint64_t done = 0, i = 0; op->kind == MEM_WRITE && done < op->n; i++) {
        uint64_t step = MIN(op->n - done, SECTOR - (op->at + done) % SECTOR);
        if (sectors >> i % 64 & 1) {
            memcpy(bytes->data + op->at + done, op->data + done, step);
        }
        done += step;
    }
}

static int do_op(struct file *f, struct mem_op op)
{
    struct mem *m = mem_of(f);
    if (op.at + op.n > m->max) {
        return -ENOSPC;
    }
    g_mutex_lock(&m->lock);
    mem_apply(m->bytes, &op, UINT64_MAX);
    if (m->ops) {
        op.data = op.kind == MEM_WRITE ? g_memdup2(op.data, op.n) : NULL;
        g_array_append_val(m->ops, op);
    }
    g_mutex_unlock(&m->lock);
    return 0;
}

static int mem_read(struct file *f, uint64_t at, void *to, size_t n)
{
    struct mem *m = mem_of(f);
    g_mutex_lock(&m->lock);
    bool inside = at <= m->bytes->len && n <= m->bytes->len - at;
    if (inside) {
        memcpy(to, m->bytes->data + at, n);
    }
    g_mutex_unlock(&m->lock);
    return inside ? 0 : -EIO;
}

static int mem_write(struct file *f, uint64_t at, const void *from, size_t n)
{
    return do_op(f, (struct mem_op){MEM_WRITE, at, n, (uint8_t *)(uintptr_t)from});
}

static int mem_zero(struct file *f, uint64_t at, uint64_t n, bool may_unmap)
{
    uint64_t size = file_size(f);
    (void)may_unmap;
    return at < size ? do_op(f, (struct mem_op){MEM_ZERO, at, MIN(n, size - at), NULL}) : 0;
}

static int mem_discard(struct file *f, uint64_t at, uint64_t n)
{
    return mem_zero(f, at, n, true);
}

static int mem_flush(struct file *f)
{
    return do_op(f, (struct mem_op){MEM_FLUSH, 0, 0, NULL});
}

static int mem_resize(struct file *f, uint64_t size)
{
    return do_op(f, (struct mem_op){MEM_RESIZE, 0, size, NULL});
}

static void mem_close(struct file *f)
{
    struct mem *m = mem_of(f);
    for (unsigned i = 0; m->ops && i < m->ops->len; i++) {
        g_free(g_array_index(m->ops, struct mem_op, i).data);
    }
    if (m->ops) {
        g_array_free(m->ops, TRUE);
    }
    g_byte_array_unref(m->bytes);
    g_mutex_clear(&m->lock);
    g_free(m);
}

static const struct protocol protocol_mem = {
    .name = "mem",
    .close = mem_close,
    .read = mem_read,
    .write = mem_write,
    .zero = mem_zero,
    .discard = mem_discard,
    .flush = mem_flush,
    .resize = mem_resize,
};

struct file *mem_file(GByteArray *bytes, bool keep_ops, unsigned flags)
{
    struct file *f = g_new0(struct file, 1);
    struct mem *m = g_new0(struct mem, 1);
    m->bytes = bytes ? bytes : g_byte_array_new();
    m->ops = keep_ops ? g_array_new(FALSE, FALSE, sizeof(struct mem_op)) : NULL;
    m->max = MEM_MAX;
    g_mutex_init(&m->lock);
    *f = (struct file){.protocol = &protocol_mem, .priv = m, .name = g_strdup("memory"),
                       .size = m->bytes->len, .align = 1, .flags = flags,
                       .read_only = flags & OPEN_READ_ONLY, .fd = -1, .cached_fd = -1};
    return f;
}
