/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manage/daemon/managed.h"
#include "manage/daemon/storage_kind.h"

/*
 * The pools of this daemon.  All of it belongs to the daemon lock.
 *
 * Work on a pool's disks goes on without the lock.  Meanwhile the pool is used (pool_use()) by
 * work on some of its volumes, or changed as a whole by one (pool_change()); each waits for the
 * other, and for a while only.  Who just looks never waits.
 */
struct volume {
    struct volume_def *def;
    bool busy; /* somebody makes, changes, copies or deletes it */
};

struct pool {
    struct pool_def *def;
    struct pool_def *next; /* defined while it runs: what it is after it was stopped; or NULL */
    const struct storage_kind *kind;
    bool active, persistent, autostart;
    bool changing;  /* one job has it for itself */
    unsigned users; /* jobs on single volumes */
    unsigned stuck; /* looks at it that have not come back: its server is dead */
    unsigned refs;
    bool gone;           /* no longer in the list */
    GHashTable *volumes; /* name: struct volume */
};

enum { POOL_DEFINED, POOL_UNDEFINED, POOL_STARTED, POOL_STOPPED, POOL_CREATED, POOL_DELETED };
/* Seconds until a second change gives up.  A look at a pool does after FILES_SECONDS. */
enum { STORAGE_WAIT = 30 };

extern GPtrArray *pools; /* struct pool, by name */
extern const struct daemon_room room_storage;

extern const struct managed_kind pool_kind;
struct pool *pool_find(const char *name);
struct pool *pool_ref(struct pool *pool);
void pool_unref(struct pool *pool);
/* A new pool or the one of that name with its definition changed; takes @def over.  With
 * @transient: one that is to be started now, whose lasting definition, if it has one, stays.  In a
 * turn. */
struct pool *pool_add(struct pool_def *def, bool transient, GError **error);
/* Takes it out of the list, for good. */
void pool_remove(struct pool *pool);
/* The same as what lasts, and on the disk, or not at all.  In a turn; gives the lock up. */
struct pool *pool_define(struct pool_def *def, GError **error);
/* The other way: no restart finds it again. */
bool pool_forget_files(struct pool *pool, GError **error);
/* The same definition that a restart would find, be the pool active or not. */
const struct pool_def *pool_lasting(const struct pool *pool);
bool pool_set_autostart(struct pool *pool, bool on, GError **error);
void pool_event(const struct pool *pool, int event);

/* Waits, without the lock, until nobody else changes or uses it; ended by pool_changed(). */
bool pool_change(struct pool *pool, GError **error);
void pool_changed(struct pool *pool);
/* The same for work on volumes of it, which only waits for a change of the whole. */
bool pool_use(struct pool *pool, GError **error);
void pool_used(struct pool *pool);
/* One use more, by who has one already. */
void pool_use_more(struct pool *pool);

/* With pool_change() in force; they give up the lock. */
/* Of a kind that can. */
bool pool_build(struct pool *pool, unsigned flags, GError **error);
bool pool_delete(struct pool *pool, GError **error);
bool pool_start(struct pool *pool, unsigned build, GError **error);
bool pool_refresh(struct pool *pool, GError **error);
bool pool_stop(struct pool *pool, GError **error);
bool pool_active_check(const struct pool *pool, bool active, GError **error);

/* What is known of a volume, looked at afresh into @vol, which is taken over and given back
 * through it; gives up the lock, and gives up on what does not answer: then *@vol is NULL. */
bool pool_look_at_volume(struct pool *pool, struct volume_def **vol, GError **error);

/* NULL with an error. */
struct volume *volume_find(const struct pool *pool, const char *name, GError **error);
/* By key or path, in any pool that runs. */
struct volume *volume_find_path(const char *path, struct pool **pool);
/* For disks of type "volume": what it is.  NULL with an error. */
const struct volume_def *storage_volume(const char *pool, const char *volume, GError **error);
/* Space that a volume has newly taken or given back, until the next refresh. */
void pool_account(struct pool *pool, int64_t bytes);
