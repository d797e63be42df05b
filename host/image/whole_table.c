/* SPDX-License-Identifier: GPL-2.0-or-later */

/* whole_table: one metadata table, all of it in memory. */
#include "host/image/whole_table.h"

#include "base/bytes.h"
#include "host/image/format.h"

#include <string.h>

enum { READ_STEP = 1 << 16 };

static int take_table(struct whole_table *t, uint64_t at, size_t n)
{
    *t = (struct whole_table){.at = at, .n = n};
    t->bytes = g_try_malloc0(MAX(n, 1)); /* of the kernel, if it is large: pages taken as used */
    t->dirty = g_try_malloc0(n / WHOLE_PAGE + 1);
    if (!t->bytes || !t->dirty) {
        whole_table_free(t);
        return -ENOMEM;
    }
    return 0;
}

/* Of @n bytes the first @there come from the file. */
static int read_table(struct whole_table *t, struct file *f, uint64_t at, size_t n, size_t there)
{
    struct whole_table fresh;
    g_autofree uint8_t *step = g_malloc(READ_STEP);
    int r = take_table(&fresh, at, n);
    /* By way of a buffer, so that what is zero in the file takes no memory here. */
    for (size_t i = 0; i < there && !r; i += READ_STEP) {
        size_t part = MIN(there - i, (size_t)READ_STEP);
        r = file_read(f, at + i, step, part);
        for (size_t k = 0; k < part && !r; k += WHOLE_PAGE) {
            size_t page = MIN(part - k, (size_t)WHOLE_PAGE);
            if (!is_zero(step + k, page)) {
                memcpy(fresh.bytes + i + k, step + k, page);
            }
        }
    }
    if (r) {
        whole_table_free(&fresh);
        return r;
    }
    *t = fresh;
    return 0;
}

int whole_table_read(struct whole_table *t, struct file *f, uint64_t at, size_t n)
{
    return read_table(t, f, at, n, n);
}

int whole_table_read_cut(struct whole_table *t, struct file *f, uint64_t at, size_t n)
{
    uint64_t size = file_size(f);
    return read_table(t, f, at, n, at < size ? (size_t)MIN(n, (size - at) & ~7ull) : 0);
}

int whole_table_blank(struct whole_table *t, uint64_t at, size_t n)
{
    struct whole_table fresh;
    int r = take_table(&fresh, at, n);
    if (r) {
        return r;
    }
    memset(fresh.dirty, 1, n / WHOLE_PAGE + 1);
    fresh.any_dirty = true;
    *t = fresh;
    return 0;
}

void whole_table_put64(struct whole_table *t, size_t index, uint64_t big_endian_value)
{
    be64_put(t->bytes + 8 * index, big_endian_value);
    t->dirty[8 * index / WHOLE_PAGE] = 1;
    t->any_dirty = true;
}

int whole_table_write(struct whole_table *t, struct file *f)
{
    for (size_t page = 0; page * WHOLE_PAGE < t->n && t->any_dirty; page++) {
        size_t from = page * WHOLE_PAGE, end = page;
        while (end * WHOLE_PAGE < t->n && t->dirty[end]) {
            end++;
        }
        if (end > page) {
            size_t to = MIN(end * WHOLE_PAGE, t->n);
            int r = file_write(f, t->at + from, t->bytes + from, to - from);
            if (r) {
                return r;
            }
            memset(t->dirty + page, 0, end - page);
            page = end - 1;
        }
    }
    t->any_dirty = false;
    return 0;
}

void whole_table_free(struct whole_table *t)
{
    g_free(t->bytes);
    g_free(t->dirty);
    *t = (struct whole_table){0};
}
