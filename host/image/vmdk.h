/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What the vmdk files share: the sparse extent's header, the text descriptor, the grain markers.
 *
 * Spec: VMware, "Virtual Disk Format 5.0", sections "The Descriptor File", "Hosted Sparse
 * Extents", "Stream-Optimized Compressed Sparse Extents".
 */
#include "base/error.h"

#include <stdint.h>

enum { VMDK_SECTOR = 512, VMDK_HEADER_BYTES = 512, VMDK_GTES = 512 };
enum { VMDK_GRAIN_BYTES = 65536, VMDK_DESC_SECTORS = 20 };
enum vmdk_flags {
    VMDK_NEWLINES = 1 << 0, /* the bytes that a text-mode copy would change are valid */
    VMDK_REDUNDANT = 1 << 1,
    VMDK_ZERO_GRAINS = 1 << 2, /* grain table entry 1: reads as zero */
    VMDK_COMPRESSED = 1 << 16,
    VMDK_MARKERS = 1 << 17,
};
enum vmdk_marker { MARKER_END = 0, MARKER_GT = 1, MARKER_GD = 2, MARKER_FOOTER = 3 };
enum { GRAIN_MARKER_BYTES = 12 }; /* sector number, stored bytes; then the grain's bytes */
static const uint64_t VMDK_GD_AT_END = UINT64_MAX;
static const uint64_t VMDK_MAX_SECTORS = UINT64_C(1) << 47; /* 64 PiB: sums stay in 63 bits */

/* The sparse extent's header; all positions in sectors. */
struct vmdk_header {
    uint32_t version, flags;
    uint64_t capacity, grain, desc_at, desc_n;
    uint32_t gtes;
    uint64_t rgd, gd, overhead;
    uint16_t compression; /* 1: deflate, RFC 1950 */
};

/* Checks each field by itself; whether the file is long enough is the caller's. */
bool vmdk_header_read(const uint8_t raw[VMDK_HEADER_BYTES], struct vmdk_header *h, GError **error);
void vmdk_header_write(const struct vmdk_header *h, uint8_t raw[VMDK_HEADER_BYTES]);
/* Bytes that a packed grain may take; more is not a grain. */
uint64_t vmdk_stored_max(const struct vmdk_header *h);
/* Grain tables and thus directory entries. */
uint64_t vmdk_tables(const struct vmdk_header *h);
/* The header of a new streamOptimized extent. */
struct vmdk_header vmdk_stream_header(uint64_t sectors);
void vmdk_grain_marker(uint8_t raw[GRAIN_MARKER_BYTES], uint64_t offset, uint32_t stored);

enum vmdk_access { VMDK_RW, VMDK_RDONLY, VMDK_NOACCESS };
enum vmdk_extent_type { VMDK_FLAT, VMDK_VMFS, VMDK_SPARSE, VMDK_VMFSSPARSE, VMDK_ZERO };

struct vmdk_line { /* one extent line of the descriptor */
    enum vmdk_access access;
    enum vmdk_extent_type type;
    uint64_t sectors;
    uint64_t offset; /* flat extents: sector in their file */
    char *name;      /* NULL for VMDK_ZERO */
};

struct vmdk_desc {
    uint32_t cid, parent_cid; /* parent UINT32_MAX: none */
    char *create_type, *parent_hint;
    struct vmdk_line *lines;
    unsigned n_lines;
    uint64_t sectors; /* of all lines */
};

enum { VMDK_MAX_EXTENTS = 2048, VMDK_DESC_BYTES_MAX = 1 << 20 };

bool vmdk_desc_parse(const char *text, struct vmdk_desc *d, GError **error);
void vmdk_desc_clear(struct vmdk_desc *d);
const char *vmdk_type_name(enum vmdk_extent_type type); /* as extent lines have it */

struct vmdk_desc_options {
    const char *create_type, *adapter_type, *hw_version, *tools_version; /* NULL: the default */
    const char *parent_hint;                                             /* or NULL */
    uint32_t cid, parent_cid;
    uint64_t sectors;
    const char *lines; /* extent lines, each with its newline */
};
char *vmdk_desc_make(const struct vmdk_desc_options *how);
/* @text with another line for "KEY=": the value as it is to stand there; NULL: no such line. */
char *vmdk_desc_replace(const char *text, const char *key, const char *value);
/* @text with other extent lines, and the geometry that goes with @sectors. */
char *vmdk_desc_with_extents(const char *text, const char *lines, uint64_t sectors);

/* ---- a streamOptimized extent being written ---- */

/*
 * Lays out the file: grains in ascending order, each grain table after the grains that it
 * covers, the directory, the footer and the end marker after everything.  Metadata goes out
 * through write(); with a pipe every byte does, in order.
 */
struct vmdk_layout {
    struct vmdk_header header;
    uint64_t at;       /* sector: where the next thing goes */
    uint64_t last;     /* grain placed last; UINT64_MAX: none */
    uint64_t gt_index; /* of the grain table in .gt; UINT64_MAX: none */
    uint32_t gt[VMDK_GTES];
    uint32_t *gd; /* vmdk_tables() entries, host byte order */
    int (*write)(void *owner, uint64_t at_byte, const void *from, size_t n);
    void *owner;
};

/* @header is for a file that begins with it; .gd and .rgd are set here. */
bool vmdk_layout_init(struct vmdk_layout *l, const struct vmdk_header *header, GError **error);
void vmdk_layout_clear(struct vmdk_layout *l);
/* Space for a grain of @stored bytes behind its marker: *@at is the marker's byte position. */
int vmdk_layout_place(struct vmdk_layout *l, uint64_t offset, uint32_t stored, uint64_t *at);
/* What follows the last grain; .at then is the file's end.  May be called again after more. */
int vmdk_layout_finish(struct vmdk_layout *l);
