/* SPDX-License-Identifier: GPL-2.0-or-later */

/* storage: the list of pools, what lasts of them, and who may change them. */
#include "manage/daemon/storage.h"

#include "manage/daemon/files.h"
#include "manage/daemon/verb.h"

#include <string.h>
#include <unistd.h>

GPtrArray *pools;

/* ---- kinds ---- */

const struct storage_kind *storage_kind_find(int type)
{
    for (unsigned i = 0; i < n_storage_kinds; i++) {
        if (storage_kinds[i]->type == type) {
            return storage_kinds[i];
        }
    }
    return NULL;
}

const struct pool_rules *storage_rules(int type)
{
    const struct storage_kind *kind = storage_kind_find(type);
    return kind ? &kind->rules : NULL;
}

/* ---- the list ---- */

static void volume_free(void *p)
{
    struct volume *v = p;
    volume_def_free(v->def);
    g_free(v);
}

struct pool *pool_ref(struct pool *pool)
{
    pool->refs++;
    return pool;
}

void pool_unref(struct pool *pool)
{
    if (pool && !--pool->refs) {
        pool_def_free(pool->def);
        pool_def_free(pool->next);
        g_hash_table_unref(pool->volumes);
        g_free(pool);
    }
}

static struct traits traits(const void *thing)
{
    enum { TYPE = 5 }; /* the flag of a type is 1 << (TYPE + type) */
    const struct pool *pool = thing;
    return (struct traits){.name = pool->def->name,
                           .uuid = pool->def->uuid,
                           .active = pool->active,
                           .persistent = pool->persistent,
                           .autostart = pool->autostart,
                           .type = 1u << (TYPE + pool->def->type)};
}

static bool turn;
const struct managed_kind pool_kind = {.noun = "storage pool",
                                       .word = "pool",
                                       .missing = ERR_NO_STORAGE_POOL,
                                       .folder = "storage",
                                       .all = &pools,
                                       .traits = traits,
                                       .turn = &turn};

struct pool *pool_find(const char *name)
{
    return managed_find(&pool_kind, name);
}

static bool same_device(const struct pool_def *a, const struct pool_def *b)
{
    for (unsigned i = 0; i < xml_count(a->devices); i++) {
        for (unsigned k = 0; k < xml_count(b->devices); k++) {
            const struct pool_device *x = a->devices->pdata[i], *y = b->devices->pdata[k];
            if (!strcmp(x->path, y->path)) {
                return true;
            }
        }
    }
    return false;
}

static bool same_host(const struct pool_def *a, const struct pool_def *b)
{
    const struct pool_host *x = xml_count(a->hosts) ? a->hosts->pdata[0] : NULL;
    const struct pool_host *y = xml_count(b->hosts) ? b->hosts->pdata[0] : NULL;
    return x && y && !strcmp(x->name, y->name) && x->port == y->port;
}

/* Two pools that would fight for the same space. */
static bool conflict(const struct pool_def *a, const struct pool_def *b)
{
    unsigned x = storage_rules(a->type)->needs, y = storage_rules(b->type)->needs;
    if ((x & NEEDS_HOST) || (y & NEEDS_HOST)) {
        return a->type == b->type && same_host(a, b) &&
               (x & NEEDS_DEVICE ? same_device(a, b) : !g_strcmp0(a->dir, b->dir)) &&
               !g_strcmp0(a->source_name, b->source_name);
    }
    if (a->type == POOL_DIR || b->type == POOL_DIR) {
        return a->type == b->type && !strcmp(a->path, b->path);
    }
    return same_device(a, b) ||
           (a->type == b->type && (x & NEEDS_NAME) && !strcmp(a->source_name, b->source_name));
}

/* Whether @def may be what the pool of its name is from now on. */
static bool may_add(const struct pool_def *def, bool transient, GError **error)
{
    const struct pool *named = pool_find(def->name);
    if (!managed_may_add(&pool_kind, def->name, def->uuid, transient, error)) {
        return false;
    }
    for (unsigned i = 0; i < pools->len; i++) {
        const struct pool *other = pools->pdata[i];
        if (other != named && conflict(def, other->def)) {
            libvirt_error(error, ERR_OPERATION_FAILED, "Storage source conflict with pool: '%s'",
                          other->def->name);
            return false;
        }
    }
    return true;
}

static struct pool *pool_new(struct pool_def *def)
{
    struct pool *pool = g_new0(struct pool, 1);
    pool->def = def;
    pool->kind = storage_kind_find(def->type);
    pool->refs = 1;
    pool->volumes = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, volume_free);
    managed_add(&pool_kind, pool);
    return pool;
}

static bool busy(const struct pool *pool)
{
    return pool->changing || pool->users || pool->stuck;
}

static void put_lasting(struct pool *pool, struct pool_def *def)
{
    if (pool->active || busy(pool)) {
        pool_def_free(pool->next);
        pool->next = def;
    } else {
        pool_def_free(pool->def);
        pool->def = def;
        pool->kind = storage_kind_find(def->type);
    }
}

struct pool *pool_add(struct pool_def *def, bool transient, GError **error)
{
    if (!may_add(def, transient, error)) {
        pool_def_free(def);
        return NULL;
    }
    struct pool *pool = pool_find(def->name);
    if (!pool) {
        return pool_new(def);
    }
    if (!transient) {
        put_lasting(pool, def);
    } else if (busy(pool)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "storage pool '%s' is being changed",
                      def->name);
        pool_def_free(def);
        return NULL;
    } else {
        pool->next = pool->def;
        pool->def = def;
        pool->kind = storage_kind_find(def->type);
    }
    return pool;
}

void pool_remove(struct pool *pool)
{
    if (!pool->gone) {
        pool->gone = true;
        g_ptr_array_remove(pools, pool);
        pool_unref(pool);
    }
}

/* ---- what lasts ---- */

const struct pool_def *pool_lasting(const struct pool *pool)
{
    return pool->next ? pool->next : pool->def;
}

static bool save(const struct pool *pool, GError **error)
{
    const struct pool_def *def = pool_lasting(pool);
    g_autofree char *text = pool_format(def);
    return managed_write(&pool_kind, def->name, text, error);
}

/* The disk has not taken what @pool was to become: it is what it was, @old, or nothing. */
static void take_back(struct pool *pool, struct pool_def *old)
{
    pool->persistent = old;
    if (old) {
        put_lasting(pool, old);
    } else if (pool->active || busy(pool)) {
        pool_def_free(g_steal_pointer(&pool->next));
    } else {
        pool_remove(pool);
    }
    pool_unref(pool);
}

struct pool *pool_define(struct pool_def *def, GError **error)
{
    struct pool *pool = pool_find(def->name);
    bool was = pool && pool->persistent;
    struct pool_def *old = was ? pool_def_copy(pool_lasting(pool)) : NULL;
    pool = pool_add(def, false, error);
    if (pool) {
        pool_ref(pool);
        pool->persistent = true; /* whoever stops it meanwhile keeps it */
        if (save(pool, error)) {
            pool_unref(pool);
        } else {
            take_back(pool, g_steal_pointer(&old));
            pool = NULL;
        }
    }
    pool_def_free(old);
    return pool;
}

bool pool_set_autostart(struct pool *pool, bool on, GError **error)
{
    if (!managed_set_autostart(&pool_kind, pool->def->name, on, error)) {
        return false;
    }
    pool->autostart = on;
    return true;
}

bool pool_forget_files(struct pool *pool, GError **error)
{
    if ((pool->autostart && !pool_set_autostart(pool, false, error)) ||
        !managed_unlink(&pool_kind, pool->def->name, error)) {
        return false;
    }
    pool->persistent = false;
    return true;
}

/* That it runs, for the next daemon. */
static void note_running(const struct pool *pool)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *file = g_strconcat(pool->def->name, ".xml", NULL);
    g_autofree char *path = daemon_path_make(DAEMON_RUN, 0700, &error, "storage", file, NULL);
    g_autofree char *text = pool_format(pool->def);
    if (path && !pool->active) {
        unlink(path);
    } else if (!path || !daemon_note_file(path, text, &error)) {
        daemon_log("pool %s: %s", pool->def->name, error->message);
    }
}

void pool_event(const struct pool *pool, int event)
{
    rpc_event_pool message = {.pool.name = pool->def->name, .event = event};
    uuid_bytes(pool->def->uuid, (uint8_t *)message.pool.uuid);
    event_pool_lifecycle(&message);
}

/* ---- jobs ---- */

static bool wait_for(struct pool *pool, bool whole, GError **error)
{
    gint64 end = g_get_monotonic_time() + STORAGE_WAIT * G_USEC_PER_SEC;
    pool_ref(pool);
    bool free = true;
    bool dead = pool->stuck; /* there is nothing to wait for */
    while (free && !dead && (pool->changing || (whole && pool->users))) {
        free = daemon_wait(end);
        dead = pool->stuck;
    }
    bool gone = pool->gone;
    if (gone) {
        libvirt_error(error, ERR_NO_STORAGE_POOL, "no storage pool with matching name '%s'",
                      pool->def->name);
    } else if (dead) {
        libvirt_error(error, ERR_OPERATION_TIMEOUT, "storage pool '%s' does not answer",
                      pool->def->name);
    } else if (!free) {
        libvirt_error(error, ERR_OPERATION_TIMEOUT, "pool '%s' has asynchronous jobs running.",
                      pool->def->name);
    }
    pool_unref(pool);
    return free && !gone && !dead;
}

bool pool_change(struct pool *pool, GError **error)
{
    if (!wait_for(pool, true, error)) {
        return false;
    }
    pool->changing = true;
    pool_ref(pool);
    return true;
}

/* What was defined while it ran or was busy is what it is now. */
static void take_next(struct pool *pool)
{
    if (pool->next && !pool->active && !pool->stuck) {
        pool_def_free(pool->def);
        pool->def = g_steal_pointer(&pool->next);
        pool->kind = storage_kind_find(pool->def->type);
    }
}

void pool_changed(struct pool *pool)
{
    pool->changing = false;
    take_next(pool);
    pool_unref(pool);
    daemon_wake();
}

bool pool_use(struct pool *pool, GError **error)
{
    if (!wait_for(pool, false, error)) {
        return false;
    }
    pool_use_more(pool);
    return true;
}

void pool_use_more(struct pool *pool)
{
    pool->users++;
    pool_ref(pool);
}

void pool_used(struct pool *pool)
{
    pool->users--;
    pool_unref(pool);
    daemon_wake();
}

bool pool_active_check(const struct pool *pool, bool active, GError **error)
{
    if (pool->active != active) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      active ? "storage pool '%s' is not active"
                             : "storage pool '%s' is still active",
                      pool->def->name);
    }
    return pool->active == active;
}

/* ---- what a pool holds ---- */

void pool_account(struct pool *pool, int64_t bytes)
{
    struct pool_def *def = pool->def;
    if (def->available != XML_ABSENT && bytes <= def->available && -bytes <= def->allocation) {
        def->available -= bytes;
        def->allocation += bytes;
    }
}

static void take_content(struct pool *pool, struct pool_content *content)
{
    struct pool_def *def = pool->def;
    def->capacity = (int64_t)content->capacity;
    def->allocation = (int64_t)content->allocation;
    def->available = (int64_t)content->available;
    if (content->permissions) {
        permissions_replace(&def->permissions, g_steal_pointer(&content->permissions));
    }
    pool_set_free_extents(def, content->free_extents);
    g_hash_table_remove_all(pool->volumes);
    for (unsigned i = 0; i < content->volumes->len; i++) {
        struct volume *v = g_new0(struct volume, 1);
        v->def = content->volumes->pdata[i];
        g_hash_table_replace(pool->volumes, v->def->name, v);
    }
}

static void content_clear(struct pool_content *content)
{
    for (unsigned i = 0; content->volumes && i < content->volumes->len; i++) {
        volume_def_free(content->volumes->pdata[i]);
    }
    permissions_replace(&content->permissions, NULL);
    g_clear_pointer(&content->volumes, g_ptr_array_unref);
    g_clear_pointer(&content->free_extents, g_ptr_array_unref);
}

/*
 * A look at a pool's disks, on a thread of its own: a server that is dead may hold it for ever.
 * Who waits gives up after a while; then the job belongs to the thread.
 */
struct job {
    struct pool *pool;
    bool (*act)(struct pool_def *def, GError **error);                   /* or: */
    bool (*build)(struct pool_def *def, unsigned flags, GError **error); /* or: */
    unsigned flags;
    struct pool_content content;
    struct volume_def *vol;
    GError *error;
    bool ok, done, abandoned;
};

static void job_free(struct job *job)
{
    content_clear(&job->content);
    volume_def_free(job->vol);
    g_clear_error(&job->error);
    pool_unref(job->pool);
    g_free(job);
}

static gpointer job_run(gpointer data)
{
    struct job *job = data;
    struct pool *pool = job->pool;
    const struct storage_kind *kind = pool->kind;
    job->ok = job->act               ? job->act(pool->def, &job->error)
              : job->build           ? job->build(pool->def, job->flags, &job->error)
              : job->content.volumes ? kind->refresh(pool->def, &job->content, &job->error)
                                     : kind->vol_refresh(pool->def, job->vol, &job->error);
    daemon_lock();
    job->done = true;
    if (job->abandoned) {
        pool->stuck--;
        if (!pool->changing) {
            take_next(pool);
        }
        job_free(job);
    }
    daemon_wake();
    daemon_unlock();
    return NULL;
}

static gint64 end_of_wait(void)
{
    return g_get_monotonic_time() + daemon_patience(FILES_SECONDS) * G_USEC_PER_SEC;
}

/* A file system of any size may be made, by who answers meanwhile. */
static bool goes_on(const struct job *j, gint64 *end)
{
    const char *path = j->build && !j->done ? j->pool->def->path : NULL;
    bool answers = path && file_server_answers(path);
    *end = end_of_wait();
    return answers;
}

/* Lock held, given up meanwhile.  False: it failed, or it belongs to the thread: *@job is NULL. */
static bool job_wait(struct job **job, GError **error)
{
    struct job *j = *job;
    gint64 end = end_of_wait();
    GThread *thread = g_thread_try_new("storage", job_run, j, NULL);
    if (!thread) {
        libvirt_error(error, ERR_SYSTEM, "no thread to look at storage pool '%s'",
                      j->pool->def->name);
        return false;
    }
    g_thread_unref(thread);
    while (!j->done && (daemon_wait(end) || goes_on(j, &end))) {
    }
    if (!j->done) {
        j->abandoned = true;
        j->pool->stuck++;
        libvirt_error(error, ERR_OPERATION_TIMEOUT, "storage pool '%s' does not answer",
                      j->pool->def->name);
        *job = NULL;
        return false;
    }
    if (!j->ok) {
        g_propagate_error(error, g_steal_pointer(&j->error));
    }
    return j->ok;
}

static struct job *job_new(struct pool *pool)
{
    struct job *job = g_new0(struct job, 1);
    job->pool = pool_ref(pool);
    return job;
}

static bool look(struct pool *pool, GError **error)
{
    struct job *job = job_new(pool);
    job->content.volumes = g_ptr_array_new();
    bool ok = job_wait(&job, error);
    if (ok) {
        take_content(pool, &job->content);
        g_ptr_array_set_size(job->content.volumes, 0); /* they are the pool's now */
    }
    if (job) {
        job_free(job);
    }
    return ok;
}

bool pool_look_at_volume(struct pool *pool, struct volume_def **vol, GError **error)
{
    struct job *job = job_new(pool);
    job->vol = g_steal_pointer(vol);
    bool ok = job_wait(&job, error);
    if (job) {
        *vol = g_steal_pointer(&job->vol);
        job_free(job);
    }
    return ok;
}

static bool job_do(struct job *job, GError **error)
{
    bool ok = job_wait(&job, error);
    if (job) {
        job_free(job);
    }
    return ok;
}

/* With the pool's job in force, so nobody else touches .def while the lock is away. */
static bool without_lock(struct pool *pool, bool (*act)(struct pool_def *, GError **),
                         GError **error)
{
    if (!act) {
        return true;
    }
    struct job *job = job_new(pool);
    job->act = act;
    return job_do(job, error);
}

bool pool_build(struct pool *pool, unsigned flags, GError **error)
{
    struct job *job = job_new(pool);
    job->build = pool->kind->build;
    job->flags = flags;
    return job_do(job, error);
}

bool pool_delete(struct pool *pool, GError **error)
{
    return without_lock(pool, pool->kind->remove, error);
}

/* Back to what was defined: what ran is forgotten. */
static void forget(struct pool *pool)
{
    pool->active = false;
    g_hash_table_remove_all(pool->volumes);
    note_running(pool);
    take_next(pool);
}

bool pool_start(struct pool *pool, unsigned build, GError **error)
{
    if (build != UINT_MAX && pool->kind->build && !pool_build(pool, build, error)) {
        return false;
    }
    if (!without_lock(pool, pool->kind->start, error)) {
        return false;
    }
    if (!look(pool, error)) {
        without_lock(pool, pool->kind->stop, NULL);
        return false;
    }
    pool->active = true;
    note_running(pool);
    return true;
}

bool pool_refresh(struct pool *pool, GError **error)
{
    bool ok = look(pool, error);
    if (!ok && !pool->stuck) { /* what cannot be looked at does not run any more */
        without_lock(pool, pool->kind->stop, NULL);
        forget(pool);
        pool_event(pool, POOL_STOPPED);
        if (!pool->persistent) {
            pool_remove(pool);
        }
    } else if (ok) {
        rpc_event_pool_refresh message = {.pool.name = pool->def->name};
        uuid_bytes(pool->def->uuid, (uint8_t *)message.pool.uuid);
        event_pool_refresh(&message);
    }
    return ok;
}

bool pool_stop(struct pool *pool, GError **error)
{
    if (!without_lock(pool, pool->kind->stop, error)) {
        return false;
    }
    forget(pool);
    return true;
}

/* ---- volumes ---- */

struct volume *volume_find(const struct pool *pool, const char *name, GError **error)
{
    if (!pool_active_check(pool, true, error)) {
        return NULL;
    }
    struct volume *v = g_hash_table_lookup(pool->volumes, name);
    if (!v) {
        libvirt_error(error, ERR_NO_STORAGE_VOL, "no storage vol with matching name '%s'", name);
    }
    return v;
}

struct volume *volume_find_path(const char *path, struct pool **pool)
{
    for (unsigned i = 0; i < pools->len; i++) {
        struct pool *p = pools->pdata[i];
        GHashTableIter at;
        void *value;
        g_hash_table_iter_init(&at, p->volumes);
        while (p->active && g_hash_table_iter_next(&at, NULL, &value)) {
            struct volume *v = value;
            if (!strcmp(v->def->path, path) || !g_strcmp0(v->def->key, path)) {
                *pool = p;
                return v;
            }
        }
    }
    return NULL;
}

const struct volume_def *storage_volume(const char *pool, const char *volume, GError **error)
{
    struct pool *p = managed_by_name(&pool_kind, pool, error);
    struct volume *v = p ? volume_find(p, volume, error) : NULL;
    return v ? v->def : NULL;
}

/* ---- start and end of the daemon ---- */

static struct pool_def *read_def(const char *path)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    struct pool_def *def = NULL;
    if (g_file_get_contents(path, &text, NULL, &error)) {
        def = pool_parse(text, storage_rules, &error);
    }
    if (!def) {
        daemon_log("%s: %s", path, error->message);
    }
    return def;
}

static void each_file(enum daemon_place place, void (*each)(struct pool_def *def))
{
    g_autofree char *folder = daemon_path(place, "storage", NULL);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        struct pool_def *def = g_str_has_suffix(name, ".xml") ? read_def(path) : NULL;
        if (def) {
            each(def);
        }
    }
}

static void load_defined(struct pool_def *def)
{
    g_autoptr(GError) error = NULL;
    struct pool *pool = pool_add(def, false, &error);
    if (!pool) {
        daemon_log("pool: %s", error->message);
        return;
    }
    pool->persistent = true;
    pool->autostart = managed_starts(&pool_kind, pool->def->name);
}

/* It ran when the last daemon ended. */
static void load_running(struct pool_def *def)
{
    struct pool *pool = pool_find(def->name);
    if (pool) {
        pool->next = pool->def;
        pool->def = def;
        pool->kind = storage_kind_find(def->type);
    } else {
        pool = pool_new(def);
    }
    pool->active = true;
}

static unsigned waking; /* pools that are still looked at after the start */

/* On a worker thread, so that a dead server holds up nobody. */
static void wake(void *data)
{
    struct pool *pool = data;
    g_autoptr(GError) error = NULL;
    daemon_lock();
    if (pool->active && pool->kind->running) {
        daemon_unlock();
        bool running = pool->kind->running(pool->def);
        daemon_lock();
        if (!running) {
            forget(pool);
        }
    }
    bool ok =
        pool->active ? look(pool, &error) : !pool->autostart || pool_start(pool, UINT_MAX, &error);
    if (!ok) {
        daemon_log("pool %s: %s", pool->def->name, error->message);
        forget(pool);
    }
    if (!pool->active && !pool->persistent) {
        pool_remove(pool);
    }
    waking--;
    pool_changed(pool);
    daemon_unlock();
}

static bool start(GError **error)
{
    enum { START_WAIT = 3 * G_USEC_PER_SEC };
    (void)error;
    pools = g_ptr_array_new();
    each_file(DAEMON_ETC, load_defined);
    each_file(DAEMON_RUN, load_running);
    for (unsigned i = 0; i < pools->len; i++) {
        struct pool *pool = pools->pdata[i];
        if ((pool->active || pool->autostart) && pool_change(pool, NULL)) {
            waking++;
            daemon_worker(wake, pool);
        }
    }
    gint64 end = g_get_monotonic_time() + START_WAIT;
    while (waking && daemon_wait(end)) {
    }
    return true;
}

const struct daemon_room room_storage = {.name = "storage", .start = start};
