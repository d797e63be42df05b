/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * The control groups of machines, version 1 or 2 or, as some hosts mount them, each controller
 * in its own.  A machine has one group, with parts for its vCPUs and for everything else
 * ("emulator").  A controller that cannot be had is simply not there: who asks for something of
 * it is told so by name.
 */
enum group_controller { GROUP_CPU, GROUP_CPUACCT, GROUP_CPUSET, GROUP_MEMORY, GROUP_BLKIO, GROUPS };

enum knob {
    KNOB_SHARES,
    KNOB_PERIOD, /* us */
    KNOB_QUOTA,  /* us; KNOB_UNLIMITED */
    KNOB_CPUS,   /* text, as is the next */
    KNOB_MEMS,
    KNOB_MIGRATE_MEMORY, /* pages follow KNOB_MEMS */
    KNOB_HARD_LIMIT,     /* bytes; KNOB_UNLIMITED, as are the next two */
    KNOB_SOFT_LIMIT,
    KNOB_SWAP_HARD_LIMIT, /* version 2: of swap alone */
    KNOB_WEIGHT,
    KNOB_DEVICE_WEIGHT, /* this and the next of one device: 0 is none */
    KNOB_READ_IOPS,
    KNOB_WRITE_IOPS,
    KNOB_READ_BYTES,
    KNOB_WRITE_BYTES,
    KNOBS,
};
#define KNOB_UNLIMITED UINT64_MAX

/*
 * Where groups of machines go, from the texts of /proc/self/mountinfo and /proc/self/cgroup:
 * in @partition ("machine/x"), below the group of the caller or, if it begins with "/", from
 * the top.  Once, at start.
 */
void cgroups_find(const char *mountinfo, const char *own, const char *partition);
/* By what this daemon is: the system's one uses /machine, others a place below their own group. */
void cgroups_start(void);

/* Names of machines' groups begin and are made so. */
#define GROUP_PREFIX     "qemu-"
#define GROUP_CHARACTERS G_CSET_a_2_z G_CSET_A_2_Z G_CSET_DIGITS "-_+"
/* Groups of machines that ended while no daemon was there go; those that run stay. */
void cgroups_sweep(void);

struct cgroup;
/* A new group; NULL if there is no controller at all. */
struct cgroup *cgroup_new(const char *name);
/* That of a process, from the text of its /proc/PID/cgroup; NULL if it is in none called @name. */
struct cgroup *cgroup_find(const char *process, const char *name);
/* Removes the groups, which nobody may be in any more, and frees; NULL is fine. */
void cgroup_remove(struct cgroup *g);
/* Frees and leaves the groups; NULL is fine. */
void cgroup_free(struct cgroup *g);

/* NULL has nothing. */
bool cgroup_has(const struct cgroup *g, enum group_controller c);
unsigned cgroup_version(const struct cgroup *g, enum group_controller c);
/* The whole process, and what it starts from then on. */
bool cgroup_put_process(struct cgroup *g, pid_t pid, GError **error);
/* One thread into @part ("vcpu0"), which is made if need be. */
bool cgroup_put_thread(struct cgroup *g, const char *part, pid_t thread, GError **error);

/* @part NULL: the machine as a whole. */
bool cgroup_set(struct cgroup *g, const char *part, enum knob k, uint64_t v, GError **error);
bool cgroup_get(struct cgroup *g, const char *part, enum knob k, uint64_t *v, GError **error);
bool cgroup_set_text(struct cgroup *g, const char *part, enum knob k, const char *v,
                     GError **error);
char *cgroup_get_text(struct cgroup *g, const char *part, enum knob k);
bool cgroup_set_device(struct cgroup *g, enum knob k, dev_t device, uint64_t v, GError **error);

/* ns: all of it; false without the controller. */
bool cgroup_cpu_time(struct cgroup *g, uint64_t *total, uint64_t *user, uint64_t *kernel);
/* Of each of the host's processors, version 1 only; the caller frees. */
uint64_t *cgroup_cpu_times(struct cgroup *g, const char *part, unsigned *count);
