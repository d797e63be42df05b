/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* What the host is and can run; the caller frees the text.  May give up the lock. */
char *capabilities_xml(void);

/* The host's processors as /sys tells. */
struct host_cpus {
    int online, present, nodes, sockets, cores, threads, mhz;
    char vendor[16];
};
const struct host_cpus *host_cpus(void);
/* KiB. */
unsigned long long host_memory(void);
/* A line of meminfo, KiB: of a node, or of the whole host if that is negative. */
uint64_t host_node_memory(int node, const char *name);
/* A count of pages of @kib KiB ("nr_hugepages", "free_hugepages"); UINT64_MAX: no such pages. */
uint64_t host_node_pages(int node, unsigned kib, const char *what);
/* The host's own UUID: of the board if it tells, else of the installation, else NULL. */
char *host_uuid(void);
