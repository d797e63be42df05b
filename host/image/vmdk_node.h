/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* An open vmdk: for vmdk.c, vmdk_tools.c and vmdk_create.c. */
#include "host/image/format.h"
#include "host/image/tables.h"
#include "host/image/vmdk.h"

/* A run of the disk's bytes in one file. */
struct vmdk_extent {
    enum vmdk_extent_type type;
    enum vmdk_access access;
    struct file *file; /* the node's own, or one beside it; NULL: ZERO */
    bool owns_file;
    uint64_t start, bytes; /* guest bytes */
    uint64_t offset;       /* flat: byte in the file */
    /* Sparse: */
    struct vmdk_header header;
    uint64_t grain;   /* bytes */
    uint64_t gd, rgd; /* bytes in the file; rgd 0: none */
    bool packed, cowd;
    struct tables *tables;
    uint64_t next;              /* byte where a new grain goes; 0: not known yet */
    struct vmdk_layout *layout; /* streamOptimized that is being written */
    bool unfinished;            /* tables and footer of .layout are due */
};

struct vmdk {
    struct vmdk_desc desc;
    char *text;                  /* the descriptor; NULL: a bare extent */
    uint64_t desc_at, desc_room; /* bytes in the node's file; room 0: it is all of the file */
    struct vmdk_extent *extents;
    unsigned n;
    bool touched;       /* the content's number was changed in this session */
    uint32_t first_cid; /* what it was before */
};

static inline struct vmdk *vmdk_of(const struct node *node)
{
    return node->priv;
}

/* The entry of grain @g: 0 none, 1 zero where the header allows it, else its sector. */
int vmdk_entry_get(struct vmdk_extent *e, uint64_t g, bool wait, uint32_t *entry);
int vmdk_entry_set(struct vmdk_extent *e, uint64_t g, uint32_t entry);
enum extent_kind vmdk_entry_kind(const struct vmdk_extent *e, uint32_t entry);
uint64_t vmdk_grains(const struct vmdk_extent *e);
/* How many grains from @g on share a grain table that is not there; 0: it is there. */
uint64_t vmdk_absent_grains(struct vmdk_extent *e, uint64_t g, bool wait);
/* Data, then tables. */
int vmdk_extent_flush(struct vmdk_extent *e);
/* Replaces the descriptor. */
int vmdk_write_text(struct node *node, const char *text);
/* Opens extents by the descriptor that is in the file now. */
bool vmdk_reopen(struct node *node, GError **error);

/* vmdk_create.c */
extern const struct option_desc vmdk_create_options[];
bool vmdk_create(const struct image_create *how, GError **error);
/* A new, empty sparse extent of @sectors; @version 2: with zeroed grains. */
bool vmdk_create_sparse(struct file *f, uint64_t sectors, bool zero_grains, const char *desc,
                        enum preallocation how, GError **error);
enum { VMDK_SPLIT_SECTORS = 1 << 22 }; /* 2 GiB: what an extent of a split disk has at most */
/* "dir/x-s001.vmdk" of "dir/x.vmdk"; @number 0: "dir/x-flat.vmdk". */
char *vmdk_extent_path(const char *path, bool flat, unsigned number);

/* The content's number of the disk at @name, seen from @path's folder (or NULL). */
bool vmdk_parent_cid(const char *path, const char *name, const char *format, uint32_t *cid,
                     GError **error);

/* vmdk_tools.c */
bool vmdk_set_backing(struct node *node, const char *name, const char *format, GError **error);
bool vmdk_resize(struct node *node, uint64_t size, enum preallocation how, GError **error);
bool vmdk_check(struct node *node, unsigned fix, struct check_result *out, GError **error);
void vmdk_describe(struct node *node, json_t *data);
