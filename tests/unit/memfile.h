/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/protocol.h"

/*
 * A file in memory under an image: for tests that cut the power and for fuzzing.  It keeps
 * what was written since it was made, in order, so that a disk that did only some of it can
 * be made up afterwards.
 */
enum mem_kind { MEM_WRITE, MEM_ZERO, MEM_RESIZE, MEM_FLUSH };

struct mem_op {
    enum mem_kind kind;
    uint64_t at, n;
    uint8_t *data; /* WRITE */
};

struct mem {
    GMutex lock;
    GByteArray *bytes;
    GArray *ops; /* struct mem_op; NULL: they are not kept */
    uint64_t max; /* of the file; a write beyond it gets -ENOSPC */
};

/* Takes @bytes, which may be NULL. */
struct file *mem_file(GByteArray *bytes, bool keep_ops, unsigned flags);
struct mem *mem_of(struct file *f);
/* Does @op, or of a write only the sectors whose bit is set in @sectors, to @bytes. */
void mem_apply(GByteArray *bytes, const struct mem_op *op, uint64_t sectors);
