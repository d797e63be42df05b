/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/xml.h"

#include <sys/types.h>

/* libvirt's <pool>: where volumes are kept. */

struct permissions {
    char *mode; /* octal digits */
    int64_t owner, group;
    char *label; /* accepted, told again, without effect */
};

struct pool_host {
    char *name;
    int64_t port;
};

struct free_extent {
    int64_t start, end; /* bytes */
};

struct pool_device {
    char *path;
    enum tristate part_separator;
    GPtrArray *free_extents; /* struct free_extent; told of disk pools that run */
};

struct pool_def {
    int type; /* enum pool_type */
    char *name, *uuid;
    int64_t capacity, allocation, available;
    enum tristate cow;
    GPtrArray *hosts;   /* struct pool_host */
    GPtrArray *devices; /* struct pool_device */
    char *dir, *source_name, *initiator, *format;
    char *auth_type, *auth_user, *secret_usage, *secret_uuid;
    char *vendor, *product, *protocol_version;
    char *path;                      /* of the target */
    struct permissions *permissions; /* NULL: not said */
};

/* In the order of libvirt's numbers: the flag of pool-list --type NAME is 1 << (5 + type). */
enum pool_type {
    POOL_NONE,
    POOL_DIR,
    POOL_FS,
    POOL_NETFS,
    POOL_LOGICAL,
    POOL_DISK,
    POOL_ISCSI,
    POOL_SCSI,
    POOL_MPATH,
    POOL_RBD,
    POOL_SHEEPDOG,
    POOL_GLUSTER,
    POOL_ZFS,
    POOL_VSTORAGE,
    POOL_ISCSI_DIRECT,
    POOL_NBD, /* ours */
    POOL_TYPES,
};
extern const char *const pool_type_names[];

/* What a pool of a type needs in its <source>, and what it may choose. */
enum pool_needs {
    NEEDS_HOST = 1,
    NEEDS_DEVICE = 2,
    NEEDS_DIR = 4,
    NEEDS_NAME = 8, /* the pool's own name if it is not given */
    NEEDS_PATH = 16,
    MAY_INITIATOR = 32,
};
struct pool_rules {
    unsigned needs;
    const char *const *formats; /* ends with NULL; the first is what is not said; NULL: none */
    const char *path;           /* in front of the source's name: the target where none is given */
};

/*
 * Reads and checks; names, UUID, format and target that were not given are filled in by @rules
 * of the type, which is NULL for types that nobody serves.
 */
struct pool_def *pool_parse(const char *text, const struct pool_rules *(*rules)(int type),
                            GError **error);
struct pool_def *pool_def_copy(const struct pool_def *def);
void pool_def_free(struct pool_def *def); /* NULL is fine */
char *pool_format(const struct pool_def *def);
/* <source> alone, as find-storage-pool-sources takes it; NULL text is an empty one. */
struct pool_def *pool_source_parse(const char *text, GError **error);
/* Appends <source> of @def at one step of indentation. */
void pool_source_format(const struct pool_def *def, GString *out);
struct pool_def *pool_def_new(int type);
void pool_add_device(struct pool_def *def, const char *path);
void pool_add_host(struct pool_def *def, const char *name);
/* Of the first device: @extents are struct free_extent, or NULL. */
void pool_set_free_extents(struct pool_def *def, const GPtrArray *extents);
struct free_extent *free_extent_new(int64_t start, int64_t end);

/* -1 where nothing is said. */
mode_t permissions_mode(const struct permissions *p);
/* Says what a file has. */
void permissions_set(struct permissions **p, mode_t mode, uid_t owner, gid_t group);
/* @with, which may be NULL, is handed over. */
void permissions_replace(struct permissions **p, struct permissions *with);
bool permissions_check(const struct permissions *p, GError **error);
extern const struct xml_table permissions_table, pool_table;

/* Neither empty nor with what a path or a line gives a meaning: no '/', not "." or "..". */
bool name_check(const char *name, const char *what, GError **error);
/* Brings @uuid, which is freed, into libvirt's form; a new one for NULL. */
bool uuid_normalise(char **uuid, GError **error);
void uuid_bytes(const char *uuid, uint8_t out[16]);
char *uuid_text(const uint8_t uuid[16]);
