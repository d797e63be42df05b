/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/model/domain.h"

/* What lodge-vm's -cpu can give on this host, and libvirt's ways to say what is wanted. */
struct cpu_kind {
    const char *name, *vendor; /* libvirt's word: "Intel"; NULL: none */
    GHashTable *features;      /* set of names as QEMU writes them */
    bool usable;               /* all of them can be had here */
};
struct cpu_choice {
    GPtrArray *kinds;                /* struct cpu_kind */
    GHashTable *host;                /* set: all that can be had */
    GHashTable *known;               /* set: all that there are */
    const char *vendor;              /* of the host */
    const struct cpu_choice *before; /* what was learnt of another version */
};
/* Asks lodge-vm, once for each of its versions, without the lock; never freed.  An error where KVM
 * is asked for and does not work. */
const struct cpu_choice *cpu_choice(bool kvm, GError **error);
/* Whether machines can run on this host's KVM, else why not (never freed); may give up the lock. */
bool cpu_has_kvm(const char **why);
/* The kind of @vendor (NULL: any) that differs least from @set. */
const struct cpu_kind *cpu_best(const struct cpu_choice *c, const char *vendor, GHashTable *set);
const struct cpu_kind *cpu_kind_find(const struct cpu_choice *c, const char *name);
/* What @set has beyond @kind, sorted, in libvirt's spelling; what no client knows is left out. */
GPtrArray *cpu_extras(const struct cpu_kind *kind, GHashTable *set);
/* The other way: what @kind has and @set has not. */
GPtrArray *cpu_lacks(const struct cpu_kind *kind, GHashTable *set);

/* A feature in QEMU's spelling; the caller frees. */
char *cpu_feature_name(const char *libvirt);

/*
 * -cpu's argument for @def, NULL with an error if this host cannot do it; "" if it says nothing.
 * <cpu mode='host-model'> becomes what it stands for in @def.
 */
char *cpu_argument(DomainDef *def, GError **error);
