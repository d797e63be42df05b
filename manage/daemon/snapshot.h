/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/domain.h"

/* A snapshot as its XML says; verbs/domain_snapshot.c keeps them. */
enum { LOCATION_NONE = 1, LOCATION_INTERNAL, LOCATION_EXTERNAL };
struct snapshot_disk {
    char *name; /* the disk's target once it is aligned */
    int snapshot, type;
    char *format;
    struct disk_source *source; /* of the new image */
};
enum { SNAP_RUNNING = 1, SNAP_PAUSED, SNAP_SHUTOFF, SNAP_DISK };
struct snapshot {
    char *name, *description, *parent, *domain;
    int state, memory;
    char *memory_file;
    int64_t created, current;
    GPtrArray *disks;
};
enum {
    SNAPSHOT_REDEFINE = 1,
    SNAPSHOT_CURRENT = 2,
    SNAPSHOT_NO_METADATA = 4,
    SNAPSHOT_HALT = 8,
    SNAPSHOT_DISK_ONLY = 16,
    SNAPSHOT_REUSE = 32,
    SNAPSHOT_QUIESCE = 64,
    SNAPSHOT_ATOMIC = 128,
    SNAPSHOT_LIVE = 256,
    SNAPSHOT_VALIDATE = 512,
};
extern const struct xml_table snapshot_disk_table;

const struct snapshot_disk *snapshot_disk_of(const struct snapshot *s, const char *target);
bool snapshot_is_external(const struct snapshot *s);
/*
 * snapshot_external.c: every disk of @def gets its row in @s, with the place where the snapshot
 * will be; false with libvirt's words if that cannot be.
 */
bool snapshot_align(struct snapshot *s, const DomainDef *def, bool up, unsigned flags,
                    GError **error);
/* Makes an aligned external one; the caller has the domain's job. */
bool snapshot_external(Domain *d, const struct snapshot *s, unsigned flags, GError **error);
/* What was written since goes into the images below, and its own go away. */
bool snapshot_delete_external(Domain *d, const struct snapshot *s, GError **error);
