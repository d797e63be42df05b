/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What the vhdx files share.
 *
 * Spec: Microsoft, [MS-VHDX] "Virtual Hard Disk v2 (VHDX) File Format", sections 2.2 "Header
 * Section", 2.3 "Log", 2.5 "BAT", 2.6 "Metadata Region".
 */
#include "host/image/blocks.h"
#include "host/image/tables.h"

enum { VHDX_MIB = 1 << 20, VHDX_SECTOR = 4096, VHDX_GUID = 16 };
enum { VHDX_HEADER_BYTES = 4096, VHDX_TABLE_BYTES = 65536 };
static const uint64_t VHDX_HEADER_AT[2] = {64 << 10, 128 << 10};
static const uint64_t VHDX_REGIONS_AT[2] = {192 << 10, 256 << 10};
static const uint64_t VHDX_MAX_SIZE = UINT64_C(64) << 40;

enum vhdx_state { /* of a block, the low bits of its BAT entry */
                  VHDX_NOT_PRESENT = 0,
                  VHDX_UNDEFINED = 1,
                  VHDX_ZERO = 2,
                  VHDX_UNMAPPED = 3,
                  VHDX_PRESENT = 6,
                  VHDX_PARTLY = 7,
};

struct vhdx_region {
    uint64_t at;
    uint64_t length;
};

struct vhdx {
    struct blocks blocks;
    struct tables *tables; /* of the BAT, in pages of what the log takes */
    struct vhdx_region bat, metadata, log;

    uint64_t n;       /* payload blocks */
    uint64_t entries; /* of the BAT: a sector bitmap's follows each chunk */
    uint32_t block_size, sector_size, chunk;
    bool keep_blocks;            /* "fixed" */
    uint64_t params_at, size_at; /* file offsets of the metadata items */
    uint64_t next;               /* where a new block goes; valid if .next_known */
    bool next_known;

    uint8_t header[VHDX_HEADER_BYTES]; /* the current one */
    unsigned current;                  /* and which it is */
    bool started;                      /* something of this session may have been written */
    uint8_t log_guid[VHDX_GUID];
    uint64_t log_sequence, log_at; /* of the next entry; byte in the log */
    bool replayed;                 /* open() found a log and applied it */
};

static inline struct vhdx *vhdx_of(const struct node *node)
{
    return node->priv;
}

extern const uint8_t vhdx_guid_bat[VHDX_GUID], vhdx_guid_metadata[VHDX_GUID];
extern const uint8_t vhdx_guid_params[VHDX_GUID], vhdx_guid_size[VHDX_GUID];
extern const uint8_t vhdx_guid_disk_id[VHDX_GUID], vhdx_guid_sector[VHDX_GUID];
extern const uint8_t vhdx_guid_physical[VHDX_GUID], vhdx_guid_parent[VHDX_GUID];

/* Entries that @n payload blocks take, with those of sector bitmaps between them. */
uint64_t vhdx_entries(uint64_t n, uint32_t chunk);
uint32_t vhdx_chunk(uint32_t block_size, uint32_t sector_size);

/* ---- vhdx_log.c: checksums, headers, the log ---- */

/* CRC-32C; the four bytes at @skip count as zero. */
uint32_t vhdx_crc(const uint8_t *p, size_t n, size_t skip);
/* Reads both headers and takes the newer good one. */
bool vhdx_read_headers(struct node *node, GError **error);
/* Before the first change of a session: new GUIDs, and a log that crash recovery looks at. */
int vhdx_start(struct node *node);
/* At the end of it: all is on the medium, nothing to recover. */
int vhdx_finish(struct node *node);
/* Applies what the log holds to the file; ->replayed says whether it did. */
bool vhdx_replay(struct node *node, GError **error);

struct vhdx_change { /* one sector of metadata as it will be */
    uint64_t at;     /* byte in the file, a multiple of VHDX_SECTOR */
    const uint8_t *data;
};
/* Makes @n changes at once, or none: they are in the log, on the medium, then in their place. */
int vhdx_change(struct node *node, const struct vhdx_change *changes, unsigned n);
/* As many as one entry takes. */
unsigned vhdx_changes_max(const struct vhdx *v);

/* ---- vhdx_create.c ---- */

extern const struct option_desc vhdx_create_options[];
bool vhdx_create(const struct image_create *how, GError **error);
bool vhdx_measure(const struct image_create *how, uint64_t used, uint64_t out[2], GError **error);
bool vhdx_resize(struct node *node, uint64_t size, enum preallocation how, GError **error);

/* ---- vhdx.c, for vhdx_create.c ---- */

int vhdx_flush(struct node *node);
int vhdx_entry_get(struct vhdx *v, uint64_t index, bool wait, uint64_t *entry);
int vhdx_entry_set(struct node *node, uint64_t index, uint64_t entry);
uint64_t vhdx_index(const struct vhdx *v, uint64_t block); /* of a payload block in the BAT */
int vhdx_find_next(struct node *node);
