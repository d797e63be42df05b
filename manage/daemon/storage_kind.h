/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/pool.h"
#include "manage/model/volume.h"

#include <sys/stat.h>

/*
 * The provider side of storage: a kind of pool is one file and one word in
 * manage/daemon/meson.build, its table is `const struct storage_kind storage_kind_NAME`.
 *
 * All calls run on a worker thread without the daemon lock and may block.  They get definitions
 * that nobody else changes meanwhile, and say what they found in structs of their own.
 */

/* What refresh() found. */
struct pool_content {
    uint64_t capacity, allocation, available; /* bytes */
    struct permissions *permissions;          /* of the target; NULL: not known */
    GPtrArray *volumes;                       /* struct volume_def; owned */
    GPtrArray *free_extents;                  /* struct free_extent, of disk pools; may be NULL */
};

enum build_flags {
    BUILD_NEW = 0,
    BUILD_REPAIR = 1,
    BUILD_RESIZE = 2,
    BUILD_NO_OVERWRITE = 4,
    BUILD_OVERWRITE = 8
};
enum create_flags { CREATE_PREALLOCATE = 1, CREATE_REFLINK = 2 };
enum resize_flags { RESIZE_ALLOCATE = 1, RESIZE_DELTA = 2, RESIZE_SHRINK = 4 };

struct storage_kind {
    int type; /* enum pool_type */
    const char *about;
    struct pool_rules rules;
    const char *const *volume_formats; /* for pool-capabilities; NULL: volumes have none */
    /* All of these are optional; what is NULL is refused, or needs no doing. */
    bool (*find)(const struct pool_def *source, GPtrArray *found, GError **error);
    bool (*build)(struct pool_def *def, unsigned flags, GError **error);
    bool (*start)(struct pool_def *def, GError **error);
    /* Whether a pool of before this daemon's time still runs. */
    bool (*running)(const struct pool_def *def);
    bool (*refresh)(struct pool_def *def, struct pool_content *out, GError **error);
    bool (*stop)(struct pool_def *def, GError **error);
    bool (*remove)(struct pool_def *def, GError **error);
    /* @vol is what was asked for; its path and key are set before anything is made. */
    bool (*vol_plan)(struct pool_def *def, struct volume_def *vol, GError **error);
    bool (*vol_create)(struct pool_def *def, struct volume_def *vol, const struct volume_def *from,
                       unsigned flags, GError **error);
    bool (*vol_refresh)(struct pool_def *def, struct volume_def *vol, GError **error);
    bool (*vol_delete)(struct pool_def *def, const struct volume_def *vol, GError **error);
    bool (*vol_resize)(struct pool_def *def, struct volume_def *vol, uint64_t size, unsigned flags,
                       GError **error);
    bool (*vol_wipe)(struct pool_def *def, const struct volume_def *vol, unsigned algorithm,
                     GError **error);
};

/* Generated from the list in manage/daemon/meson.build. */
extern const struct storage_kind *const storage_kinds[];
extern const unsigned n_storage_kinds;
const struct storage_kind *storage_kind_find(int type); /* NULL: nobody serves it */
const struct pool_rules *storage_rules(int type);

/* ---- volumes that are files: storage_files.c ---- */

extern const char *const file_formats[];
/* The image library's name for libvirt's word. */
const char *image_format_of(const char *format);
/* What dir, fs and netfs share. */
bool files_build(struct pool_def *def, GError **error);
bool files_refresh(struct pool_def *def, struct pool_content *out, GError **error);
bool files_remove(struct pool_def *def, GError **error);
bool files_vol_plan(struct pool_def *def, struct volume_def *vol, GError **error);
bool files_vol_create(struct pool_def *def, struct volume_def *vol, const struct volume_def *from,
                      unsigned flags, GError **error);
bool files_vol_refresh(struct pool_def *def, struct volume_def *vol, GError **error);
bool files_vol_delete(struct pool_def *def, const struct volume_def *vol, GError **error);
bool files_vol_resize(struct pool_def *def, struct volume_def *vol, uint64_t size, unsigned flags,
                      GError **error);

/* ---- the bytes of any volume that has a path: storage_bytes.c ---- */

bool bytes_wipe(struct pool_def *def, const struct volume_def *vol, unsigned algorithm,
                GError **error);
/* NULL with an error; raw bytes if it has no format. */
struct node *bytes_open(const struct volume_def *vol, unsigned flags, GError **error);
/* All guest bytes of @from into @to, which is as large and reads as zero if @to_is_zero. */
bool bytes_copy(const struct volume_def *from, const struct volume_def *to, bool to_is_zero,
                GError **error);
/* Owner, group and mode as @p says. */
bool bytes_set_permissions(const char *path, const struct permissions *p, mode_t fallback,
                           GError **error);
/* Permissions and timestamps of what is there. */
void bytes_look(const struct stat *st, struct permissions **p, struct timestamps **t);
/* Size, format and permissions of a block device. */
bool device_vol_refresh(struct pool_def *def, struct volume_def *vol, GError **error);
