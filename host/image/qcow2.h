/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "base/bytes.h"
#include "host/image/format.h"
#include "host/image/luks.h"
#include "host/image/tables.h"
#include "host/image/whole_table.h"

/*
 * What the files of the format "qcow2" share.
 *
 * Spec: QEMU, "docs/interop/qcow2.txt", all sections.
 *
 * The order in which things reach the file keeps it sound at any moment:
 *   1. refcounts of new clusters, and the data in them     flush
 *   2. the refcount table                                  flush
 *   3. L2 tables                                           flush
 *   4. the L1 table                                        flush
 *   5. refcounts of what nobody points at any more
 * qcow2_settle() does it; until then all of it is in memory.  A crash between two steps
 * leaves leaks, never a pointer to something that is free.
 */
enum {
    QCOW2_MAGIC = 0x514649fb,
    QCOW2_HEADER_V2 = 72,
    QCOW2_HEADER_V3 = 104,
    QCOW2_HEADER_OURS = 112, /* with the type of compression */
    QCOW2_L1_MAX = 32 << 20, /* bytes, as in QEMU */
    QCOW2_REFTABLE_MAX = 8 << 20,
    QCOW2_SNAPSHOTS_MAX = 65536,
    QCOW2_SNAPSHOT_TABLE_MAX = 64 << 20,
    QCOW2_SNAPSHOT_EXTRA_MAX = 1024,
    QCOW2_BITMAPS_MAX = 65535,
    QCOW2_NAME_MAX = 1023, /* of backing and data file */
    QCOW2_PIECE = 1 << 16, /* L2 tables and refcount blocks are cached in pieces up to this */
    QCOW2_SUBCLUSTERS = 32,
};

enum {
    INCOMPAT_DIRTY = 1,
    INCOMPAT_CORRUPT = 2,
    INCOMPAT_DATA_FILE = 4,
    INCOMPAT_COMPRESSION = 8,
    INCOMPAT_EXTENDED_L2 = 16,
    INCOMPAT_KNOWN = 31
};
enum { COMPAT_LAZY_REFCOUNTS = 1 };
enum { AUTOCLEAR_BITMAPS = 1, AUTOCLEAR_RAW_DATA = 2, AUTOCLEAR_KNOWN = 3 };
enum { CRYPT_NONE, CRYPT_AES, CRYPT_LUKS };
enum { COMPRESSION_ZLIB, COMPRESSION_ZSTD };

#define QCOW2_COPIED      (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED  (UINT64_C(1) << 62)
#define QCOW2_ZERO        UINT64_C(1)
#define QCOW2_OFFSET      UINT64_C(0x00fffffffffffe00) /* of L1 and L2 entries */
#define QCOW2_REF_OFFSET  UINT64_C(0xfffffffffffffe00) /* of refcount table entries */
#define QCOW2_L1_RESERVED UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED UINT64_C(0x3f000000000001fe)

struct qcow2_header { /* fields of the file's header, in the host's order */
    uint32_t version, backing_n, cluster_bits, crypt, l1_entries, reftable_clusters, n_snapshots,
        refcount_order, length;
    uint64_t backing_at, size, l1_at, reftable_at, snapshots_at;
    uint64_t incompatible, compatible, autoclear;
    uint8_t compression;
    /* extensions */
    uint32_t n_bitmaps;
    uint64_t bitmaps_at, bitmaps_n; /* the bitmap directory; 0: none */
    uint64_t crypto_at, crypto_n;
};

struct qcow2_extension { /* one that we do not know and keep */
    uint32_t type, n;
    uint8_t *data;
};

struct qcow2_snapshot {
    struct image_snapshot shown;
    uint64_t l1_at;
    uint32_t l1_entries;
    uint32_t extra_n; /* bytes of extra data in the file */
    uint8_t *unknown; /* extra data beyond what we know; may be NULL */
    uint32_t unknown_n;
};

struct qcow2_bitmap {
    char *name;
    uint64_t table_at; /* 0: the file has none yet */
    uint32_t table_entries, flags, granularity_bits;
    uint8_t *extra;
    uint32_t extra_n;
    uint64_t *bits; /* in memory while it is recording, else NULL */
    uint64_t n_bits;
    bool broken; /* not saved by who used it last, or it does not suit the disk */
};
enum { BITMAP_IN_USE = 1, BITMAP_AUTO = 2, BITMAP_EXTRA_OK = 4 };

struct freed { /* host clusters that lose a reference when the L2 tables are in the file */
    uint64_t first, n;
};

struct qcow2 {
    struct node *node;
    struct file *file;
    struct file *data;     /* where guest clusters lie: .file or the external data file */
    struct file *data_own; /* the external data file, for closing; NULL: none */
    char *data_name;
    struct qcow2_header h;
    GArray *extensions; /* struct qcow2_extension */
    uint32_t cluster;   /* bytes */
    uint32_t entry;     /* bytes of an L2 entry: 8, or 16 with subclusters */
    unsigned l2_bits;   /* log2 of the entries in an L2 table */
    unsigned sub_bits;  /* log2 of the bytes of a subcluster; of a cluster without them */
    uint64_t l2_bytes;  /* room for L2 tables in memory */
    uint32_t piece;     /* bytes of a piece of a table in .l2 and .refs */
    bool extended, raw_data, lazy, corrupt, holes;

    struct whole_table l1, reftable;
    bool forked;   /* .reftable is not yet what the header names: what becomes free stays as it is */
    GArray *held;  /* struct freed: that space, for when it may go */
    struct tables *l2, *refs;
    uint64_t first_free; /* no free host cluster before it */
    uint64_t packed_at;  /* where the next compressed bytes may go; 0: nowhere yet */
    struct freed *freed;
    unsigned n_freed;
    /* A bit for each host cluster that is known to hold metadata: nothing else goes there. */
    uint64_t *meta;
    uint64_t n_meta; /* bits */

    struct qcow2_snapshot *snapshots;
    struct qcow2_bitmap *bitmaps;
    bool record;        /* some bitmap wants to hear of writes */
    bool recording;     /* .bits are newer than the file, which calls the bitmaps in use */
    bool bitmaps_stale; /* the extension is there but its autoclear bit is not */
    struct luks *luks;
    struct cipher *own_cipher; /* AES of old images, ours to free; luks owns its own */
};

static inline struct qcow2 *qcow2_of(const struct node *node)
{
    return node->priv;
}

static inline uint64_t qcow2_clusters(const struct qcow2 *q, uint64_t bytes)
{
    return (bytes >> q->h.cluster_bits) + ((bytes & (q->cluster - 1)) != 0);
}

static inline uint64_t qcow2_l1_get(const struct qcow2 *q, uint64_t i)
{
    return be64_at(q->l1.bytes + 8 * i);
}

/* A piece of a table; NULL with @result. */
static inline uint8_t *qcow2_piece(struct tables *t, uint64_t at, bool wait, int *result)
{
    uint8_t *p = NULL;
    *result = tables_at(t, at, wait, &p);
    return p;
}

static inline uint8_t *qcow2_blank_piece(struct tables *t, uint64_t at, int *result)
{
    uint8_t *p = NULL;
    *result = tables_blank(t, at, &p);
    return p;
}

/* ---- qcow2_header.c ---- */
bool qcow2_header_read(struct qcow2 *q, GError **error);
/* The fixed part only: one sector, so a crash leaves the old or the new one. */
int qcow2_header_put(struct qcow2 *q);
/* All of it, with extensions and the backing file's name. */
bool qcow2_header_write(struct qcow2 *q, GError **error);
/* Sets or clears a bit of the incompatible features, on the medium when it returns. */
int qcow2_mark(struct qcow2 *q, uint64_t bit, bool on);
/* Something in the file contradicts something else: no more writes.  Returns -EIO. */
int qcow2_corrupt(struct qcow2 *q);
uint64_t qcow2_l1_entries_for(const struct qcow2 *q, uint64_t size);
void qcow2_geometry(struct qcow2 *q); /* what follows from .h */

/* ---- qcow2_refs.c ---- */
/* An entry of a refcount block, whose width is 1 << @order bits. */
uint64_t qcow2_ref_at(const uint8_t *block, uint64_t i, unsigned order);
void qcow2_ref_put(uint8_t *block, uint64_t i, unsigned order, uint64_t value);
bool qcow2_refs_open(struct qcow2 *q, GError **error);
/* Refcount of host cluster @cluster; 0 with @result -errno. */
uint64_t qcow2_ref(struct qcow2 *q, uint64_t cluster, int *result);
uint64_t qcow2_ref_max(const struct qcow2 *q);
struct qcow2_view { /* refcounts of some clusters in a row */
    uint8_t *bytes; /* NULL: no block, all are 0 */
    uint64_t i, n;  /* the first of them in .bytes; how many */
};
/* Those from @cluster on, valid until the next call into this file. */
int qcow2_ref_view(struct qcow2 *q, uint64_t cluster, struct qcow2_view *v);
/* Entries [@from, @to) of a view's .bytes were changed. */
void qcow2_ref_changed(struct qcow2 *q, const struct qcow2_view *v, uint64_t from, uint64_t to);
/* At once, in memory. */
int qcow2_ref_add(struct qcow2 *q, uint64_t first, uint64_t n, int delta);
/* Up to @want free clusters in a row, refcount 1: how many, or -errno. */
int64_t qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *first);
/* Exactly @bytes in a row, for metadata; the file offset. */
int qcow2_alloc_table(struct qcow2 *q, uint64_t bytes, uint64_t *at);
/* Room for @n compressed bytes. */
int qcow2_alloc_packed(struct qcow2 *q, uint32_t n, uint64_t *at);
/* Loses a reference once nothing in the file points at it any more. */
int qcow2_free_later(struct qcow2 *q, uint64_t at, uint64_t bytes);
/* All changes to the file, in order; free space is free then. */
int qcow2_settle(struct qcow2 *q);
/* Whether metadata lies in a part of the file that is to be written as data. */
bool qcow2_meta_hit(const struct qcow2 *q, uint64_t at, uint64_t bytes);
int qcow2_meta_set(struct qcow2 *q, uint64_t at, uint64_t bytes);
/* Notes it all anew, from the tables. */
int qcow2_meta_collect(struct qcow2 *q);
/* Moves the refcount table to a place with room for @blocks entries. */
int qcow2_reftable_grow(struct qcow2 *q, uint64_t blocks);

/* ---- qcow2_map.c ---- */
struct spot { /* what an L2 entry says of one cluster or subcluster */
    enum extent_kind kind;
    uint64_t host; /* file offset of its space; 0 (or, with data file, NO_HOST): none */
    bool copied;   /* the space is this entry's alone */
    bool bad;
};
#define QCOW2_NO_HOST UINT64_MAX
/* The piece with the entry of guest cluster @cluster and the entry in it; NULL with @result 0:
 * there is no such table. */
uint8_t *qcow2_l2(struct qcow2 *q, uint64_t cluster, bool wait, int *result);
struct spot qcow2_spot(const struct qcow2 *q, const uint8_t *entry, unsigned sub);
/* Guest clusters from @cluster on whose entries lie in the same piece. */
uint64_t qcow2_l2_left(const struct qcow2 *q, uint64_t cluster);
void qcow2_unit(const struct qcow2 *q, uint64_t entry, uint64_t *at, uint32_t *stored);
int qcow2_map(struct node *node, uint64_t offset, uint64_t length, bool wait, struct extent *out);

/* ---- qcow2_place.c ---- */
int qcow2_place(struct node *node, uint64_t offset, uint64_t length, struct extent *out);
int qcow2_link(struct node *node, uint64_t offset, const struct extent *placed);
void qcow2_unplace(struct node *node, uint64_t offset, const struct extent *placed);
int qcow2_place_packed(struct node *node, uint64_t offset, uint32_t stored, struct extent *out);
int qcow2_zero(struct node *node, uint64_t offset, uint64_t length, enum zero_kind kind);
int qcow2_flush(struct node *node);
/* The same piece for writing: makes the table where there is none or a snapshot shares it. */
uint8_t *qcow2_l2_own(struct qcow2 *q, uint64_t cluster, int *result);

/* ---- qcow2_resize.c ---- */
bool qcow2_resize(struct node *node, uint64_t size, enum preallocation how, GError **error);
/* Moves the L1 table to a place with room for @entries. */
int qcow2_l1_grow(struct qcow2 *q, uint64_t entries);
/* Puts table @fresh (in memory, with its place taken) in the L1 table's place. */
int qcow2_l1_replace(struct qcow2 *q, struct whole_table *fresh);

/* ---- qcow2_snapshot.c ---- */
bool qcow2_snapshots_read(struct qcow2 *q, GError **error);
void qcow2_snapshots_free(struct qcow2 *q);
/* The snapshot table with @n snapshots goes to a new place, which the header then names. */
int qcow2_snapshots_write(struct qcow2 *q, struct qcow2_snapshot *all, uint32_t n);
uint64_t qcow2_snapshots_bytes(const struct qcow2_snapshot *all, uint32_t n);
extern const struct snapshot_tools qcow2_snapshot_tools;

/* ---- qcow2_bitmap.c ---- */
bool qcow2_bitmaps_read(struct qcow2 *q, GError **error);
void qcow2_bitmaps_free(struct qcow2 *q);
/* A write is about to change the range. */
int qcow2_bitmaps_record(struct qcow2 *q, uint64_t offset, uint64_t length);
int qcow2_bitmaps_store(struct qcow2 *q); /* what was recorded */
/* Before the disk's size changes; qcow2_bitmaps_store() afterwards. */
int qcow2_bitmaps_hold(struct qcow2 *q);
/* Entries of a bitmap's table; 0 where the file has none. */
int qcow2_bitmap_table(struct qcow2 *q, const struct qcow2_bitmap *b, struct whole_table *out);
void qcow2_bitmaps_describe(struct qcow2 *q, json_t *data);
extern const struct bitmap_tools qcow2_bitmap_tools;

/* ---- qcow2_check.c ---- */
bool qcow2_check(struct node *node, unsigned fix, struct check_result *out, GError **error);

/* ---- qcow2_count.c ---- */
enum { COUNTS_CHUNK = 1 << 15, COUNT_MOST = UINT16_MAX };
struct qcow2_counts { /* how often each host cluster is referred to, up to COUNT_MOST */
    uint64_t n;
    uint16_t **chunks; /* NULL where nothing is */
};
bool qcow2_counts_init(struct qcow2_counts *c, uint64_t n, GError **error);
void qcow2_counts_free(struct qcow2_counts *c);
uint16_t qcow2_counts_get(const struct qcow2_counts *c, uint64_t i);
struct qcow2_counting {
    struct qcow2 *q;
    struct qcow2_counts counts;
    struct check_result *out;
    unsigned fix;
    uint64_t file_n; /* bytes of the file */
    bool rebuild;    /* the refcounts cannot be repaired one by one */
    bool failed;     /* could not go on: .out has an error more */
};
/* Counts every reference that there is. */
void qcow2_count(struct qcow2_counting *c);

/* ---- qcow2_rebuild.c ---- */
/* New refcount blocks and table, of 1 << @order bits, for references counted in @counts. */
int qcow2_refs_rebuild(struct qcow2 *q, struct qcow2_counts *counts, unsigned order);

/* ---- qcow2_create.c ---- */
bool qcow2_create(const struct image_create *how, GError **error);
bool qcow2_measure(const struct image_create *how, uint64_t used, uint64_t out[2], GError **error);
extern const struct option_desc qcow2_create_options[];
/* Bytes of refcount table and blocks for @clusters and for themselves; the number of blocks. */
uint64_t qcow2_refs_size(uint64_t clusters, uint32_t cluster, unsigned order, uint64_t *blocks);

/* ---- qcow2_amend.c ---- */
bool qcow2_amend(struct node *node, const struct options *options, bool force,
                 void (*progress)(void *owner, double part), void *owner, GError **error);
bool qcow2_set_backing(struct node *node, const char *name, const char *format, GError **error);
extern const struct option_desc qcow2_amend_options[];

/* ---- qcow2_crypt.c ---- */
bool qcow2_crypt_open(struct qcow2 *q, unsigned flags, GError **error);
bool qcow2_aes_check(const char *secret, GError **error); /* there is such a key */
void qcow2_crypt_close(struct qcow2 *q);
void qcow2_crypt_describe(struct qcow2 *q, json_t *data);
