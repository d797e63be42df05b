/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/format.h"
#include "host/image/tables.h"

/* Between the files of the format qed. */
enum {
    QED_HEADER = 64, QED_ENTRY = 8, QED_SECTOR = 512, QED_PAGE = 4096,
    QED_CLUSTER_MIN = 4096, QED_CLUSTER_MAX = 64 << 20, QED_CLUSTER = 64 << 10,
    QED_TABLE_MAX = 16, QED_TABLE = 4,
    QED_ZERO = 1, /* an entry: the cluster reads as zero */
};

enum qed_feature {
    QED_HAS_BACKING = 1,
    QED_NEED_CHECK = 2,
    QED_BACKING_RAW = 4, /* the backing file is not to be probed */
    QED_FEATURES = 7,
};

struct qed {
    struct node *node;
    uint32_t cluster, table, header; /* bytes of a cluster; clusters of a table, of the header */
    uint64_t features, compat_features, autoclear_features;
    uint64_t l1_at;
    uint64_t entries; /* of a table */
    uint64_t end; /* where the next cluster goes: what is taken but not linked counts */
    struct tables *l1, *l2;
};

static inline uint64_t qed_table_bytes(const struct qed *q)
{
    return (uint64_t)q->cluster * q->table;
}

/* Whether @n clusters at @at can be what an entry points at. */
bool qed_valid(const struct qed *q, uint64_t at, uint64_t n);
bool qed_size_fits(uint32_t cluster, uint32_t table, uint64_t size);
/* The header with node->size, the features and node->backing_name, flushed. */
int qed_write_header(struct qed *q);
bool qed_check(struct node *node, unsigned fix, struct check_result *out, GError **error);
int qed_flush(struct node *node);

extern const struct format_tools qed_tools;
