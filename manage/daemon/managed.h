/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/verb.h"

/*
 * What networks and storage pools have in common for their clients and on the disk: a list of
 * things by name, which run or not, last or not, and have a UUID.  Daemon lock held for all of it.
 */
struct traits {
    const char *name, *uuid;
    bool active, persistent, autostart;
    unsigned type; /* the flag of lists for things of its type; 0: there are no types */
};

struct managed_kind {
    const char *noun, *word; /* "storage pool", and "pool" where libvirt says no more */
    int missing;             /* ERR_NO_... */
    const char *folder;      /* below DAEMON_ETC */
    GPtrArray **all;
    struct traits (*traits)(const void *thing);
    bool *turn; /* who adds, writes or removes a definition has it */
};

/* ---- the list ---- */

void *managed_find(const struct managed_kind *kind, const char *name);
void *managed_find_uuid(const struct managed_kind *kind, const uint8_t uuid[16]);
/* The same; NULL with the error that clients know. */
void *managed_by_name(const struct managed_kind *kind, const char *name, GError **error);
/* @name, which may be NULL: what the client calls it. */
void *managed_by_uuid(const struct managed_kind *kind, const char *uuid, const char *name,
                      GError **error);
void managed_add(const struct managed_kind *kind, void *thing);
/* Whether a definition of this name and UUID may come to the list, with @transient to run at once.
 */
bool managed_may_add(const struct managed_kind *kind, const char *name, const char *uuid,
                     bool transient, GError **error);

/* ---- the disk ---- */

/* NAME.xml in the folder, and in the one that holds what starts with the daemon. */
char *managed_file(const struct managed_kind *kind, const char *name);
bool managed_starts(const struct managed_kind *kind, const char *name);
bool managed_set_autostart(const struct managed_kind *kind, const char *name, bool on,
                           GError **error);
/* In a turn; gives the lock up. */
bool managed_write(const struct managed_kind *kind, const char *name, const char *xml,
                   GError **error);
bool managed_unlink(const struct managed_kind *kind, const char *name, GError **error);

/* ---- verbs ---- */

/* A thing on the wire; all kinds have this shape. */
typedef rpc_network managed_name;
void managed_put(const struct managed_kind *kind, managed_name *out, const void *thing);

enum { MANAGED_INACTIVE = 1, MANAGED_ACTIVE = 2 };
unsigned managed_count(const struct managed_kind *kind, unsigned flags);
unsigned managed_list(const struct managed_kind *kind, unsigned flags, managed_name **items);
void managed_names(const struct managed_kind *kind, unsigned flags, int max, rpc_names *ret);

#define MANAGED_COUNT(kind, verb, flag)                                                            \
    bool verb_##verb(struct call *call, const rpc_none *args, rpc_int *ret, GError **error)        \
    {                                                                                              \
        (void)call, (void)args, (void)error;                                                       \
        ret->value = (int)managed_count(kind, flag);                                               \
        return true;                                                                               \
    }
#define MANAGED_NAMES(kind, verb, flag)                                                            \
    bool verb_##verb(struct call *call, const rpc_int *args, rpc_names *ret, GError **error)       \
    {                                                                                              \
        (void)call, (void)error;                                                                   \
        managed_names(kind, flag, args->value, ret);                                               \
        return true;                                                                               \
    }
#define MANAGED_TRAIT(kind, verb, shape, member, trait)                                            \
    bool verb_##verb(struct call *call, const shape##_args *args, rpc_int *ret, GError **error)    \
    {                                                                                              \
        const void *thing = managed_by_uuid(kind, args->member.uuid, args->member.name, error);    \
        (void)call;                                                                                \
        ret->value = thing && (kind)->traits(thing).trait;                                         \
        return thing;                                                                              \
    }
/*
 * The verbs that are the same for all kinds: those that find, list and look.  @one and @many as in
 * the names of the procedures; @shape is one on the wire, which answers and arguments call @member.
 */
#define MANAGED_VERBS(kind, one, many, shape, member)                                              \
    G_STATIC_ASSERT(sizeof(shape) == sizeof(managed_name) &&                                       \
                    offsetof(shape, uuid) == offsetof(managed_name, uuid));                        \
    bool verb_##one##_lookup_by_name(struct call *call, const rpc_text *args, shape##_ret *ret,    \
                                     GError **error)                                               \
    {                                                                                              \
        const void *thing = managed_by_name(kind, args->text, error);                              \
        (void)call;                                                                                \
        if (thing) {                                                                               \
            managed_put(kind, (managed_name *)&ret->member, thing);                                \
        }                                                                                          \
        return thing;                                                                              \
    }                                                                                              \
    bool verb_##one##_lookup_by_uuid(struct call *call, const rpc_uuid_args *args,                 \
                                     shape##_ret *ret, GError **error)                             \
    {                                                                                              \
        const void *thing = managed_by_uuid(kind, args->uuid, NULL, error);                        \
        (void)call;                                                                                \
        if (thing) {                                                                               \
            managed_put(kind, (managed_name *)&ret->member, thing);                                \
        }                                                                                          \
        return thing;                                                                              \
    }                                                                                              \
    bool verb_connect_list_all_##many(struct call *call, const rpc_list_args *args, shape##s *ret, \
                                      GError **error)                                              \
    {                                                                                              \
        managed_name *items = NULL;                                                                \
        (void)call, (void)error;                                                                   \
        ret->count = managed_list(kind, args->flags, args->need_results ? &items : NULL);          \
        ret->items.items_val = (shape *)items;                                                     \
        ret->items.items_len = items ? ret->count : 0;                                             \
        return true;                                                                               \
    }                                                                                              \
    MANAGED_COUNT(kind, connect_num_of_##many, MANAGED_ACTIVE)                                     \
    MANAGED_COUNT(kind, connect_num_of_defined_##many, MANAGED_INACTIVE)                           \
    MANAGED_NAMES(kind, connect_list_##many, MANAGED_ACTIVE)                                       \
    MANAGED_NAMES(kind, connect_list_defined_##many, MANAGED_INACTIVE)                             \
    MANAGED_TRAIT(kind, one##_is_active, shape, member, active)                                    \
    MANAGED_TRAIT(kind, one##_is_persistent, shape, member, persistent)                            \
    MANAGED_TRAIT(kind, one##_get_autostart, shape, member, autostart)
