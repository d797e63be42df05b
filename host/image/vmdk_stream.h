/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * streamOptimized vmdk as a stream: for pipes and archives, where nobody can seek.
 *
 * Grains pass as they are stored, packed by codec_zlib: whoever reads or writes a stream may
 * unpack or pack on as many threads as it likes.  One thread at a time for each object.
 */

/* Bytes read, fewer than @n if need be; 0 at the end; or a negative errno value. */
typedef ssize_t vmdk_read_fn(void *owner, void *to, size_t n);
/* Writes all: 0 or a negative errno value. */
typedef int vmdk_write_fn(void *owner, const void *from, size_t n);

/* ---- reading ---- */

struct vmdk_reader;

struct vmdk_grain {
    uint64_t offset; /* guest bytes; ascends, and what no grain covers reads as zero */
    uint32_t unit;   /* guest bytes when unpacked; the last may end after the disk */
    uint32_t stored;
    const uint8_t *packed; /* valid until the next call */
};

/* Reads the header and the descriptor. */
struct vmdk_reader *vmdk_reader_new(vmdk_read_fn *read, void *owner, GError **error);
void vmdk_reader_free(struct vmdk_reader *r);           /* NULL is fine */
uint64_t vmdk_reader_size(const struct vmdk_reader *r); /* guest bytes */
uint32_t vmdk_reader_unit(const struct vmdk_reader *r); /* guest bytes of a grain */
/* 1: *@out is the next grain; 0: the disk ends here, and all of it was there; -1: error. */
int vmdk_reader_next(struct vmdk_reader *r, struct vmdk_grain *out, GError **error);

/* ---- writing ---- */

enum { VMDK_STREAM_UNIT = 65536 }; /* guest bytes of each grain that we write */

struct vmdk_writer;

struct vmdk_stream_options {
    uint64_t size;            /* guest bytes, a multiple of 512 */
    const char *name;         /* for the descriptor: the file's name, perhaps in an archive */
    const char *adapter_type; /* "ide", "lsilogic", "buslogic", "legacyESX"; NULL: ide */
    const char *hw_version, *tools_version; /* NULL: 4, 2147483647 */
};

/* Writes the header and the descriptor. */
struct vmdk_writer *vmdk_writer_new(const struct vmdk_stream_options *how, vmdk_write_fn *write,
                                    void *owner, GError **error);
void vmdk_writer_free(struct vmdk_writer *w); /* NULL is fine */
/*
 * @offset: guest bytes, a multiple of VMDK_STREAM_UNIT, more than in the call before.
 * @packed: VMDK_STREAM_UNIT bytes packed (zeros after the disk's end).  Grains of zeros are
 * better left out.
 */
bool vmdk_writer_grain(struct vmdk_writer *w, uint64_t offset, const void *packed, size_t stored,
                       GError **error);
/* Tables, footer and end marker. */
bool vmdk_writer_finish(struct vmdk_writer *w, GError **error);
