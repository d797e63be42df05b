/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/cgroup.h"
#include "manage/daemon/machine.h"
#include "manage/model/cpuset.h"

/*
 * How much of the host a machine may use: control groups, processors, memory nodes.
 */

/* Before it starts: false if @def asks for what this host cannot do. */
bool tune_check(const DomainDef *def, GError **error);
/* Whether its process must not run a step before it has its place. */
bool tune_first(const DomainDef *def);
/* The place of the process, which has just been made; gives the lock up. */
bool tune_process(struct machine *m, GError **error);
/* The places of its vCPUs, when its monitor answers; again after one has come. */
bool tune_vcpus(struct machine *m, GError **error);
/* Between fork and exec: memory from the nodes that m->def says; errno or 0. */
struct tune_nodes {
    int mode;
    unsigned long nodes[16];
};
void tune_nodes(const DomainDef *def, struct tune_nodes *out);
int tune_nodes_apply(const struct tune_nodes *n);
/* Finds the group of a machine that an earlier lodged started. */
void tune_recover(struct machine *m);
/* Removes the group of one that ended while there was no lodged. */
void tune_forget(const DomainDef *def);

/* Thread ids by vCPU number, 0 for those that are not there; NULL with an error. */
GArray *tune_vcpu_threads(struct machine *m, int timeout_ms, GError **error);
bool tune_pin_thread(pid_t thread, const struct cpuset *set, GError **error);
/* The CPU time of a thread in ns and the processor that it last ran on. */
bool tune_thread_time(struct machine *m, pid_t thread, uint64_t *ns, int *cpu);
/* vCPUs' bandwidth as live XML says it. */
bool tune_bandwidth(struct machine *m, GError **error);
/* EVENT_TUNABLE with @p, which is given away; none if it is empty. */
void tune_event(Domain *d, GArray *p);
