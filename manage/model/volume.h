/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/pool.h"

/* libvirt's <volume>: one disk in a pool. */

struct timestamps {
    char *atime, *mtime, *ctime, *btime; /* seconds with a fraction */
};

struct volume_extent {
    int64_t start, end;
};
struct volume_device { /* what a volume is made of, told of disk and logical pools */
    char *path;
    GPtrArray *extents; /* struct volume_extent */
};

struct volume_secret {
    int type;
    char *uuid, *usage;
};
struct volume_encryption {
    int format;
    char *engine;
    GPtrArray *secrets; /* struct volume_secret */
    char *cipher_name, *cipher_mode, *cipher_hash;
    int64_t cipher_size;
    char *ivgen_name, *ivgen_hash;
};

enum volume_type { VOLUME_FILE, VOLUME_BLOCK, VOLUME_DIR, VOLUME_NETWORK };

struct volume_def {
    int type; /* index into volume_type_names: enum volume_type + 1 */
    char *name, *key;
    GPtrArray *devices;                     /* struct volume_device */
    int64_t capacity, allocation, physical; /* bytes; XML_ABSENT: not said */
    char *path, *format;
    struct permissions *permissions;
    struct timestamps *timestamps;
    struct volume_encryption *encryption;
    char *compat;
    bool nocow, lazy_refcounts, extended_l2, has_features;
    int64_t cluster_size;
    char *backing_path, *backing_format;
    struct permissions *backing_permissions;
    struct timestamps *backing_timestamps;
    bool has_backing;
    /* Not told to anybody: how to open what is no file, as JSON of host/image.  NULL: .path. */
    char *access;
};

extern const char *const volume_type_names[];
extern const struct xml_table encryption_table, volume_table;

/* Reads and checks; a capacity is not asked for. */
struct volume_def *volume_parse(const char *text, GError **error);
struct volume_def *volume_def_new(const char *name);
void volume_def_free(struct volume_def *def); /* NULL is fine */
struct volume_def *volume_def_copy(const struct volume_def *def);
char *volume_format(const struct volume_def *def);
void volume_add_device(struct volume_def *def, const char *path, int64_t start, int64_t end);
struct timestamps *timestamps_new(void);
/* @format: "luks", ... */
struct volume_encryption *volume_encryption_new(const char *format);
void volume_encryption_add_secret(struct volume_encryption *e, const char *uuid);
/* Refuses by name all that is not LUKS, and ciphers without all of their parts. */
bool volume_encryption_check(const struct volume_encryption *e, GError **error);
