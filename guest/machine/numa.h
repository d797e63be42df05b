/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * numa - which processors and which part of the memory lie close together.
 *
 * Nodes are numbered without gaps; their memory follows one another in the order of the
 * numbers, from the first byte of RAM.
 */
enum { NUMA_NODES_MAX = 128, NUMA_LOCAL = 10, NUMA_REMOTE = 20 };

struct numa {
    unsigned nodes;
    uint64_t bytes[NUMA_NODES_MAX];
    uint8_t *cpu_node; /* of maxcpus processors */
    bool has_distances;
    uint8_t distance[NUMA_NODES_MAX][NUMA_NODES_MAX]; /* [from][to]; NUMA_LOCAL is the nearest */
};
