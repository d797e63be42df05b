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
typedef struct snapshot Snapshot;
struct snapshot {
    char *name, *description, *parent;
    int state, memory;
    char *memory_file;
    int64_t created, current;
    GPtrArray *disks, *revert_disks; /* images made for it, and when it was last gone back to */
    DomainDef *def, *inactive;       /* what ran, and the definition if that was another one */
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
enum { REVERT_RUNNING = 1, REVERT_PAUSED = 2, REVERT_FORCE = 4, REVERT_RESET_NVRAM = 8 };
extern const struct xml_table snapshot_disk_table;

/* verbs/domain_snapshot.c: all of @d, by name; one of them; its file written. */
GPtrArray *snapshots_load(const Domain *d);
bool snapshot_store(const Domain *d, const Snapshot *s, GError **error);
/* One that was known of before it was made, and was not made; NULL is fine. */
void snapshot_forget(Domain *d, const char *name);

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
/* Where the new image of an external row is. */
const char *snapshot_file(const struct snapshot_disk *row);
/* The name of a new image for @disk that @name tells apart: "/x/disk.qcow2" gives "/x/disk.NAME".
 */
char *snapshot_image_name(const struct domain_disk *disk, const char *name, GError **error);

/*
 * snapshot_chain.c: back to an external snapshot, whose images stay as they are: the machine gets
 * new ones over them, and what it wrote since is given up.  The caller makes @s the
 * current one.
 */
bool snapshot_revert_external(Domain *d, Snapshot *s, unsigned flags, GError **error);
/* Before going back to an internal one, after which the machine writes to the disks of @def again:
 * false with an error if another snapshot's image is one of them or over one. */
bool snapshot_may_write(const Domain *d, const GPtrArray *all, const Snapshot *s,
                        const DomainDef *def, GError **error);
/* What was written since goes into the images below, and its own go away. */
bool snapshot_delete_external(Domain *d, GPtrArray *all, const Snapshot *s, GError **error);
/* Images that were made for snapshots and that neither the machine nor one of them needs. */
void snapshot_clean(const Domain *d, const GPtrArray *candidates);
GPtrArray *snapshot_candidates(const GPtrArray *all);
