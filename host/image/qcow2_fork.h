/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/qcow2.h"

/* Changes of the whole image that happen in one write of the header (qcow2_fork.c). */
struct qcow2_fork {
    struct freed l1, snapshots; /* room for the new tables */
    struct freed counts;        /* for the new refcount table */
    GArray *room;               /* struct freed: for its blocks and for copies of L2 tables */
    uint64_t n_room;            /* clusters of .room */
    unsigned run;               /* of .room, of which the first .used clusters are taken */
    uint64_t used;
    struct whole_table was; /* the old refcount table */
    bool lazy;
};

/*
 * Takes all the space that will be needed, for @entries of the new L1 table @l1 among others; from
 * then on refcounts are changed beside the old ones and space that becomes free stays as it is.
 * After a failure of it or of what follows: qcow2_fork_abort().
 */
int qcow2_fork_begin(struct qcow2 *q, struct qcow2_fork *f, const uint8_t *l1, uint64_t entries,
                     uint64_t snapshot_bytes);
void qcow2_fork_abort(struct qcow2 *q, struct qcow2_fork *f);
/* Adds @delta for what @l1 leads to: the L2 tables themselves and what they name. */
int qcow2_fork_count(struct qcow2 *q, const uint8_t *l1, uint64_t entries, int delta);
/* Makes the flags of the new L1 table and of what it names say what the new counts say. */
int qcow2_fork_flags(struct qcow2 *q, struct qcow2_fork *f, struct whole_table *l1);
/* The image becomes what @next, but for refcounts, and @l1 say; @l1 is taken on success. */
int qcow2_fork_end(struct qcow2 *q, struct qcow2_fork *f, const struct qcow2_header *next,
                   struct whole_table *l1);
