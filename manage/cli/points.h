/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/cli/object.h"

/*
 * Points in a domain's life to which something goes back: snapshots and checkpoints. Both are a
 * name and a domain on the wire, form trees, and are asked for by procedures of the same shapes;
 * the .data of their verbs' rows is one of these.
 */
struct point_kind {
    const char *noun, *title; /* "snapshot", "Snapshot" */
    const char *option;       /* which option of its verbs names one */
    bool has_current;         /* one may be the current one, and has a state */
    int lookup, parent, get_xml, list, list_children, create, delete_one; /* procedures */
    unsigned descendants; /* the flag of list_children */
    unsigned edit_flags;  /* of get_xml */
    struct flag_bit list_bits[12];
};
extern const struct point_kind kind_snapshot, kind_checkpoint;

/* The one that the options name; its .dom is freed with it. */
bool point_find(struct shell *sh, const struct args *a, rpc_snapshot *out, GError **error);
bool point_xml(Rpc *rpc, const struct point_kind *k, const rpc_snapshot *point, unsigned flags,
               rpc_text *xml, GError **error);
/* NULL: it has none; with @error set, that is not known. */
char *point_parent(Rpc *rpc, const struct point_kind *k, const rpc_snapshot *point, GError **error);
/* From a file, if @path is not NULL, or of @xml; says so. */
bool point_create(struct shell *sh, const struct point_kind *k, const rpc_domain *dom,
                  const char *xml, unsigned flags, const char *path, GError **error);
/* <disks> of "vda,key=value,..."; @attributes become those of <disk>, driver and file elements. */
bool point_disks(const struct args *a, GString *xml, const char *const *attributes, GError **error);
/* <name> and <description> of the options. */
void point_words(const struct args *a, GString *xml);

verb_fn run_point_list, run_point_parent, run_point_delete, run_point_info, run_point_edit;
