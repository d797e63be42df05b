/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/format.h"

/*
 * The data path of formats that have one flat table of large blocks and nothing below them:
 * vdi, vpc, vhdx.
 *
 * New blocks read as zero before anybody writes to them, so that a small write costs a small
 * write: node->granule is smaller than a block, and two requests may meet in a block that is
 * taken but not linked yet (a claim).  Zeroing keeps the block and punches a hole.
 */
struct claim {
    uint64_t block, at;
    unsigned users; /* place() calls that link() or unplace() has not answered */
};

struct blocks {
    unsigned shift; /* bytes of a block are 1 << shift */
    /* Where block @b lies: DATA with its byte in the file, ZERO or ABSENT. */
    int (*get)(struct node *node, uint64_t b, bool wait, enum extent_kind *kind, uint64_t *at);
    /* The table's new entry; what is at @at follows to the medium before it does. */
    int (*set)(struct node *node, uint64_t b, uint64_t at);
    /* Space for block @b that reads as zero. */
    int (*take)(struct node *node, uint64_t b, uint64_t *at);
    /* Optional: before bytes of block @b, which lies at @at, change. */
    int (*touch)(struct node *node, uint64_t b, uint64_t at);
    /* Whether touch() would do nothing. */
    bool (*touched)(struct node *node, uint64_t b);

    struct claim *claims;
    unsigned n_claims, room;
};

enum { BLOCKS_GRANULE = 4096, UUID_BYTES = 16 };

/* A random UUID, its first fields little-endian.  From the kernel: two writers never get the
 * same, not even after fork(), which recovery of a vhdx relies on. */
void blocks_uuid(uint8_t out[UUID_BYTES]);

void blocks_clear(struct blocks *k);
int blocks_map(struct node *node, struct blocks *k, uint64_t offset, uint64_t length, bool wait,
               struct extent *out);
int blocks_place(struct node *node, struct blocks *k, uint64_t offset, uint64_t length,
                 struct extent *out);
int blocks_link(struct node *node, struct blocks *k, uint64_t offset, const struct extent *placed);
void blocks_unplace(struct blocks *k, uint64_t offset, const struct extent *placed);
int blocks_zero(struct node *node, struct blocks *k, uint64_t offset, uint64_t length,
                enum zero_kind kind);
