/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A metadata table that is in memory completely, as the bytes that the file has.  Changes stay
 * there until the format writes them.  Thread: node->lock held.
 */
struct file;

struct whole_table {
    uint64_t at;    /* in the file */
    size_t n;       /* bytes */
    uint8_t *bytes; /* n of them; address space that takes memory where the file has data */
    uint8_t *dirty; /* one for each WHOLE_PAGE bytes */
    bool any_dirty;
};
enum { WHOLE_PAGE = 4096 };

/* All leave @t alone unless they succeed.  0 or -errno. */
int whole_table_read(struct whole_table *t, struct file *f, uint64_t at, size_t n);
/* What the file was cut off before is 0, and not written unless it is changed. */
int whole_table_read_cut(struct whole_table *t, struct file *f, uint64_t at, size_t n);
int whole_table_blank(struct whole_table *t, uint64_t at, size_t n);
void whole_table_put64(struct whole_table *t, size_t index, uint64_t big_endian_value);
/* Changed pages go to the file, without flushing it. */
int whole_table_write(struct whole_table *t, struct file *f);
void whole_table_free(struct whole_table *t);
