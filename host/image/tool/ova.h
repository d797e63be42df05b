/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "host/image/tool/open.h"
#include "host/image/tool/ovf.h"
#include "host/image/tool/tool.h"

#include <gcrypt.h>

/*
 * import and export: their command lines are lodge-img's, what they do is in a module ("ova"),
 * because libarchive and libxml2 are large and seldom wanted.
 */
int ova_run(const char *symbol, struct args *args);

/* ---- inside the module ---- */

int lodge_import(struct args *args);
int lodge_export(struct args *args);

/* A folder that goes away with all that is in it. */
struct scratch {
    char *path;
};
bool scratch_make(struct scratch *s, const char *beside, const char *prefix, GError **error);
void scratch_remove(struct scratch *s);

/* -m; false after a message. */
bool ova_threads(const struct args *args, unsigned *out);

/* One file of a package. */
struct member {
    char *name;
    char *path;          /* where its bytes are */
    char *sha1, *sha256; /* hexadecimal digits; NULL: not taken */
};
void member_clear(void *member); /* struct member, which it also frees */

/* Digests while bytes pass. */
struct digests {
    gcry_md_hd_t md;
};
bool digests_begin(struct digests *d, GError **error);
void digests_add(struct digests *d, const void *from, size_t n);
/* Ends it; @m gets both. */
void digests_end(struct digests *d, struct member *m);

/* Unpacks an archive ("-": standard input) to @folder: all its members, in their order. */
GPtrArray *ova_unpack(const char *file, const char *folder, GError **error);
bool ova_pack(const char *file, const GPtrArray *members, GError **error);
