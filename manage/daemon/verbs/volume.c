/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Verbs of storage volumes. */
#include "base/util.h"
#include "host/image/chain.h"
#include "manage/daemon/files.h"
#include "manage/daemon/secrets.h"
#include "manage/daemon/storage.h"
#include "manage/daemon/verb.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CREATE_VALIDATE = 4, /* what is unknown is always refused */
    INFO_PHYSICAL = 1,
    STREAM_SPARSE = 1,
};

static struct pool *get_pool(const rpc_pool *id, GError **error)
{
    struct pool *pool = managed_by_uuid(&pool_kind, id->uuid, id->name, error);
    return pool && pool_active_check(pool, true, error) ? pool : NULL;
}

static struct volume *get(const rpc_volume *id, struct pool **pool, GError **error)
{
    *pool = managed_by_name(&pool_kind, id->pool, error);
    return *pool ? volume_find(*pool, id->name, error) : NULL;
}

static void put(rpc_volume *out, const struct pool *pool, const struct volume_def *vol)
{
    out->pool = g_strdup(pool->def->name);
    out->name = g_strdup(vol->name);
    out->key = g_strdup(vol->key ? vol->key : vol->path);
}

/* ---- finding ---- */

bool verb_storage_vol_lookup_by_name(struct call *call, const rpc_pool_text *args,
                                     rpc_volume_ret *ret, GError **error)
{
    (void)call;
    struct pool *pool = get_pool(&args->pool, error);
    const struct volume *v = pool ? volume_find(pool, args->text, error) : NULL;
    if (v) {
        put(&ret->vol, pool, v->def);
    }
    return v;
}

bool verb_storage_vol_lookup_by_key(struct call *call, const rpc_text *args, rpc_volume_ret *ret,
                                    GError **error)
{
    (void)call;
    struct pool *pool;
    const struct volume *v = volume_find_path(args->text, &pool);
    if (!v) {
        libvirt_error(error, ERR_NO_STORAGE_VOL, "no storage vol with matching key %s", args->text);
        return false;
    }
    put(&ret->vol, pool, v->def);
    return true;
}

bool verb_storage_vol_lookup_by_path(struct call *call, const rpc_text *args, rpc_volume_ret *ret,
                                     GError **error)
{
    (void)call;
    struct pool *pool;
    g_autofree char *clean = g_canonicalize_filename(args->text, "/");
    const struct volume *v = volume_find_path(args->text, &pool);
    v = v || args->text[0] != '/' ? v : volume_find_path(clean, &pool);
    if (!v) {
        libvirt_error(error, ERR_NO_STORAGE_VOL, "no storage vol with matching path '%s'",
                      args->text);
        return false;
    }
    put(&ret->vol, pool, v->def);
    return true;
}

bool verb_storage_vol_get_path(struct call *call, const rpc_volume_args *args, rpc_text *ret,
                               GError **error)
{
    (void)call;
    struct pool *pool;
    const struct volume *v = get(&args->vol, &pool, error);
    ret->text = v ? g_strdup(v->def->path) : NULL;
    return v;
}

bool verb_storage_pool_num_of_volumes(struct call *call, const rpc_pool_args *args, rpc_int *ret,
                                      GError **error)
{
    (void)call;
    const struct pool *pool = get_pool(&args->pool, error);
    ret->value = pool ? (int)g_hash_table_size(pool->volumes) : 0;
    return pool;
}

static int by_name(const void *a, const void *b)
{
    const struct volume *const *x = a, *const *y = b;
    return strcmp((*x)->def->name, (*y)->def->name);
}

/* In the order of their names; the caller frees the array only. */
static const struct volume **sorted(const struct pool *pool, unsigned *n)
{
    GHashTableIter at;
    void *value;
    const struct volume **all = g_new(const struct volume *, g_hash_table_size(pool->volumes) + 1);
    *n = 0;
    g_hash_table_iter_init(&at, pool->volumes);
    while (g_hash_table_iter_next(&at, NULL, &value)) {
        all[(*n)++] = value;
    }
    qsort(all, *n, sizeof(*all), by_name);
    return all;
}

bool verb_storage_pool_list_volumes(struct call *call, const rpc_pool_int *args, rpc_names *ret,
                                    GError **error)
{
    (void)call;
    const struct pool *pool = get_pool(&args->pool, error);
    if (!pool) {
        return false;
    }
    unsigned n;
    g_autofree const struct volume **all = sorted(pool, &n);
    n = MIN(n, (unsigned)MAX(args->value, 0));
    ret->names.names_val = g_new0(rpc_string, n);
    for (; ret->names.names_len < n; ret->names.names_len++) {
        ret->names.names_val[ret->names.names_len] = g_strdup(all[ret->names.names_len]->def->name);
    }
    return true;
}

bool verb_storage_pool_list_all_volumes(struct call *call, const rpc_pool_list_args *args,
                                        rpc_volumes *ret, GError **error)
{
    (void)call;
    const struct pool *pool = get_pool(&args->pool, error);
    if (!pool) {
        return false;
    }
    unsigned n;
    g_autofree const struct volume **all = sorted(pool, &n);
    ret->count = n;
    n = args->need_results ? n : 0;
    ret->items.items_val = g_new0(rpc_volume, n);
    for (; ret->items.items_len < n; ret->items.items_len++) {
        put(&ret->items.items_val[ret->items.items_len], pool, all[ret->items.items_len]->def);
    }
    return true;
}

/* ---- work on a volume ---- */

static bool pool_answers(const struct pool *pool, GError **error)
{
    return !pool->def->path || file_answers(pool->def->path, NULL, error);
}

/*
 * A volume that is worked on: nobody else changes or deletes it, and its pool stays as it is.
 * .def is a copy that belongs to the worker.
 */
struct work {
    struct pool *pool;
    struct volume *volume;
    struct volume_def *def;
};

/* @keep: what the worker knows of the volume now is true. */
static void work_end(struct work *w, bool keep)
{
    w->volume->busy = false;
    if (keep) {
        int64_t before = MAX(w->volume->def->allocation, 0);
        pool_account(w->pool, MAX(w->def->allocation, 0) - before);
        struct volume_def *old = w->volume->def;
        g_hash_table_steal(w->pool->volumes, old->name);
        w->volume->def = w->def;
        g_hash_table_insert(w->pool->volumes, w->def->name, w->volume);
        volume_def_free(old);
    } else {
        volume_def_free(w->def);
    }
    pool_used(w->pool);
}

static bool work_begin(struct work *w, const rpc_volume *id, GError **error)
{
    struct pool *pool;
    struct volume *v = get(id, &pool, error);
    if (!v || !pool_use(pool, error)) {
        return false;
    }
    gint64 end = g_get_monotonic_time() + STORAGE_WAIT * G_USEC_PER_SEC;
    while ((v = volume_find(pool, id->name, error)) && v->busy) {
        if (!daemon_wait(end)) {
            libvirt_error(error, ERR_OPERATION_INVALID, "volume '%s' is still in use.", id->name);
            v = NULL;
            break;
        }
    }
    if (!v) {
        pool_used(pool);
        return false;
    }
    v->busy = true;
    *w = (struct work){pool, v, volume_def_copy(v->def)};
    if (!file_answers(w->def->path, NULL, error)) {
        work_end(w, false);
        return false;
    }
    return true;
}

static void work_gone(struct work *w)
{
    pool_account(w->pool, -MAX(w->volume->def->allocation, 0));
    g_hash_table_remove(w->pool->volumes, w->def->name);
    volume_def_free(w->def);
    pool_used(w->pool);
}

/*
 * Work on a volume's files, on a thread of its own; one that its caller has given up ends when the
 * server answers again, and until then the volume is in use.
 */
struct task {
    struct work work, from; /* .from.pool NULL: what is made is no copy */
    bool (*act)(struct task *task, GError **error);
    enum { TASK_CHANGES, TASK_MAKES, TASK_DELETES } kind;
    uint64_t size;
    unsigned flags; /* or an algorithm */
    GError *error;
    bool ok;
};

static void task_run(void *data)
{
    struct task *t = data;
    t->ok = t->act(t, &t->error);
}

static void task_end(struct task *t)
{
    if (t->kind == (t->ok ? TASK_DELETES : TASK_MAKES)) {
        work_gone(&t->work);
    } else {
        work_end(&t->work, t->ok);
    }
    if (t->from.pool) {
        work_end(&t->from, false);
    }
    g_clear_error(&t->error);
    g_free(t);
}

/* Whoever gave it up is gone, or still holds the lock. */
static void task_drop(void *data)
{
    bool held = daemon_lock_held();
    if (!held) {
        daemon_lock();
    }
    task_end(data);
    if (!held) {
        daemon_unlock();
    }
}

/* Daemon lock held, given up meanwhile.  Takes @plan's work over; what was made goes to @made. */
static bool task_do(const struct task *plan, rpc_volume *made, GError **error)
{
    struct task *t = g_memdup2(plan, sizeof(*plan));
    const char *path = t->work.def->path;
    if (!file_work(path, task_run, t, task_drop, error)) {
        return false;
    }
    bool ok = t->ok;
    if (ok && made) {
        put(made, t->work.pool, t->work.def);
    } else if (!ok) {
        g_propagate_error(error, g_steal_pointer(&t->error));
    }
    task_end(t);
    return ok;
}

/*
 * What is known of a volume, looked at afresh: its size changes while machines write to it.
 * One that is worked on is told as it was.
 */
static struct volume_def *look(const rpc_volume *id, GError **error)
{
    struct pool *pool;
    struct volume *v = get(id, &pool, error);
    if (!v) {
        return NULL;
    }
    struct volume_def *def = volume_def_copy(v->def);
    if (v->busy || pool->changing || pool->stuck || !pool->kind->vol_refresh) {
        return def;
    }
    pool_use_more(pool);
    bool ok = pool_look_at_volume(pool, &def, error);
    struct volume *now = volume_find(pool, id->name, NULL);
    if (ok && now && !now->busy) {
        struct work w = {pool, now, volume_def_copy(def)};
        work_end(&w, true);
    } else {
        pool_used(pool);
    }
    if (!ok && def) {
        g_clear_pointer(&def, volume_def_free);
    }
    return def;
}

bool verb_storage_vol_get_xml_desc(struct call *call, const rpc_volume_flags *args, rpc_text *ret,
                                   GError **error)
{
    (void)call;
    struct volume_def *def = look(&args->vol, error);
    if (def && def->encryption && !xml_count(def->encryption->secrets)) {
        const char *uuid = secret_uuid_for(SECRET_USAGE_VOLUME, def->path);
        if (uuid) {
            volume_encryption_add_secret(def->encryption, uuid);
        }
    }
    ret->text = def ? volume_format(def) : NULL;
    volume_def_free(def);
    return ret->text;
}

bool verb_storage_vol_get_info(struct call *call, const rpc_volume_args *args, rpc_volume_info *ret,
                               GError **error)
{
    (void)call;
    struct volume_def *def = look(&args->vol, error);
    if (!def) {
        return false;
    }
    ret->type = (char)(def->type - 1);
    ret->capacity = (uint64_t)MAX(def->capacity, 0);
    ret->allocation = (uint64_t)MAX(def->allocation, 0);
    volume_def_free(def);
    return true;
}

bool verb_storage_vol_get_info_flags(struct call *call, const rpc_volume_flags *args,
                                     rpc_volume_info_flags *ret, GError **error)
{
    (void)call;
    struct volume_def *def = look(&args->vol, error);
    if (!def) {
        return false;
    }
    int64_t taken = args->flags & INFO_PHYSICAL ? def->physical : def->allocation;
    ret->type = (char)(def->type - 1);
    ret->capacity = (uint64_t)MAX(def->capacity, 0);
    ret->allocation = (uint64_t)MAX(taken, 0);
    ret->flags = args->flags;
    volume_def_free(def);
    return true;
}

static bool act_create(struct task *t, GError **error)
{
    const struct pool *pool = t->work.pool;
    return pool->kind->vol_create(pool->def, t->work.def, t->from.def, t->flags, error);
}

/* Makes @def, which is taken over as is @from, in @pool, with what @from holds if that is not NULL.
 */
static bool create(struct pool *pool, struct volume_def *def, const struct work *from,
                   unsigned flags, rpc_volume_ret *ret, GError **error)
{
    const struct storage_kind *kind = pool->kind;
    bool ok = false;
    if (!kind->vol_create) {
        libvirt_error(error, ERR_NO_SUPPORT, "storage pool does not support volume creation");
    } else if (g_hash_table_contains(pool->volumes, def->name)) {
        libvirt_error(error, ERR_STORAGE_VOL_EXIST, "%s", def->name);
    } else {
        ok = !kind->vol_plan || kind->vol_plan(pool->def, def, error);
    }
    if (!ok) {
        volume_def_free(def);
        if (from) {
            struct work unused = *from;
            work_end(&unused, false);
        }
        return false;
    }
    struct volume *v = g_new0(struct volume, 1); /* its name is taken from now on */
    v->def = volume_def_copy(def);
    v->def->allocation = 0;
    v->busy = true;
    g_hash_table_insert(pool->volumes, v->def->name, v);
    pool_use_more(pool);
    const struct task task = {.work = {pool, v, def},
                              .from = from ? *from : (struct work){0},
                              .act = act_create,
                              .kind = TASK_MAKES,
                              .flags = flags};
    return task_do(&task, &ret->vol, error);
}

bool verb_storage_vol_create_xml(struct call *call, const rpc_pool_text_flags *args,
                                 rpc_volume_ret *ret, GError **error)
{
    (void)call;
    struct pool *pool = get_pool(&args->pool, error);
    struct volume_def *def = pool ? volume_parse(args->text, error) : NULL;
    if (def && def->capacity == XML_ABSENT && !def->has_backing) {
        libvirt_error(error, ERR_XML, "missing capacity element");
        g_clear_pointer(&def, volume_def_free);
    }
    if (!def || !pool_use(pool, error)) {
        volume_def_free(def);
        return false;
    }
    bool ok = pool_active_check(pool, true, error) && pool_answers(pool, error);
    if (ok) {
        ok = create(pool, def, NULL, args->flags & ~(unsigned)CREATE_VALIDATE, ret, error);
    } else {
        volume_def_free(def);
    }
    pool_used(pool);
    return ok;
}

/* What a copy has from what it is a copy of, where nothing else was said. */
static void inherit(struct volume_def *def, const struct volume_def *from)
{
    if (def->capacity == XML_ABSENT || def->capacity < from->capacity) {
        def->capacity = from->capacity;
        def->allocation = def->allocation == XML_ABSENT ? from->allocation : def->allocation;
    }
    if (!def->format) {
        def->format = g_strdup(from->format);
    }
}

bool verb_storage_vol_create_xml_from(struct call *call, const rpc_volume_from_args *args,
                                      rpc_volume_ret *ret, GError **error)
{
    (void)call;
    struct work from;
    struct pool *pool = get_pool(&args->pool, error);
    struct volume_def *def = pool ? volume_parse(args->xml, error) : NULL;
    if (!def || !pool_use(pool, error)) {
        volume_def_free(def);
        return false;
    }
    bool ok = pool_active_check(pool, true, error) && pool_answers(pool, error) &&
              work_begin(&from, &args->from, error);
    if (ok) {
        inherit(def, from.def);
        ok = create(pool, def, &from, args->flags & ~(unsigned)CREATE_VALIDATE, ret, error);
    } else {
        volume_def_free(def);
    }
    pool_used(pool);
    return ok;
}

static bool act_delete(struct task *t, GError **error)
{
    return t->work.pool->kind->vol_delete(t->work.pool->def, t->work.def, error);
}

bool verb_storage_vol_delete(struct call *call, const rpc_volume_flags *args, rpc_none *ret,
                             GError **error)
{
    (void)call;
    (void)ret;
    struct work w;
    if (!work_begin(&w, &args->vol, error)) {
        return false;
    }
    if (!w.pool->kind->vol_delete) {
        libvirt_error(error, ERR_NO_SUPPORT, "storage pool does not support vol deletion");
        work_end(&w, false);
        return false;
    }
    const struct task task = {.work = w, .act = act_delete, .kind = TASK_DELETES};
    return task_do(&task, NULL, error);
}

static bool act_wipe(struct task *t, GError **error)
{
    const struct pool *pool = t->work.pool;
    struct volume_def *def = t->work.def;
    return pool->kind->vol_wipe(pool->def, def, t->flags, error) &&
           (!pool->kind->vol_refresh || pool->kind->vol_refresh(pool->def, def, error));
}

static bool wipe(const rpc_volume *id, unsigned algorithm, GError **error)
{
    struct work w;
    if (!work_begin(&w, id, error)) {
        return false;
    }
    if (!w.pool->kind->vol_wipe || w.def->type == 1 + VOLUME_DIR) {
        libvirt_error(error, ERR_NO_SUPPORT, "storage pool doesn't support wiping of volume '%s'",
                      id->name);
        work_end(&w, false);
        return false;
    }
    const struct task task = {.work = w, .act = act_wipe, .flags = algorithm};
    return task_do(&task, NULL, error);
}

bool verb_storage_vol_wipe(struct call *call, const rpc_volume_flags *args, rpc_none *ret,
                           GError **error)
{
    (void)call;
    (void)ret;
    return wipe(&args->vol, 0, error);
}

bool verb_storage_vol_wipe_pattern(struct call *call, const rpc_volume_uint_flags *args,
                                   rpc_none *ret, GError **error)
{
    (void)call;
    (void)ret;
    return wipe(&args->vol, args->value, error);
}

/* The size that is asked for, in bytes. */
static bool new_size(const struct volume_def *def, uint64_t value, unsigned flags, uint64_t *size,
                     GError **error)
{
    uint64_t now = (uint64_t)MAX(def->capacity, 0);
    if ((flags & RESIZE_DELTA) && (flags & RESIZE_SHRINK)) {
        *size = now - MIN(now, value);
    } else {
        *size = flags & RESIZE_DELTA ? now + value : value;
    }
    if (*size > INT64_MAX ||
        *size < ((flags & RESIZE_DELTA) && !(flags & RESIZE_SHRINK) ? now : 0)) {
        libvirt_error(error, ERR_INVALID_ARG, "capacity is too large");
        return false;
    }
    if (*size < now && !(flags & RESIZE_SHRINK)) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "Can't shrink capacity below current capacity unless shrink flag explicitly "
                      "specified");
        return false;
    }
    return true;
}

static bool act_resize(struct task *t, GError **error)
{
    const struct pool *pool = t->work.pool;
    return pool->kind->vol_resize(pool->def, t->work.def, t->size, t->flags, error);
}

bool verb_storage_vol_resize(struct call *call, const rpc_volume_uhyper_flags *args, rpc_none *ret,
                             GError **error)
{
    (void)call;
    (void)ret;
    struct work w;
    uint64_t size;
    if (!work_begin(&w, &args->vol, error)) {
        return false;
    }
    bool ok = new_size(w.def, args->value, args->flags, &size, error);
    if (ok && !w.pool->kind->vol_resize) {
        libvirt_error(error, ERR_NO_SUPPORT,
                      "storage pool does not support changing of volume capacity");
        ok = false;
    }
    if (ok && (args->flags & RESIZE_ALLOCATE) && size > (uint64_t)w.def->capacity &&
        size - (uint64_t)w.def->capacity > (uint64_t)w.pool->def->available) {
        libvirt_error(error, ERR_OPERATION_FAILED, "Not enough space left in storage pool");
        ok = false;
    }
    if (!ok) {
        work_end(&w, false);
        return false;
    }
    const struct task task = {.work = w, .act = act_resize, .size = size, .flags = args->flags};
    return task_do(&task, NULL, error);
}

/* ---- the bytes, over a stream ---- */

struct transfer {
    struct work work;
    int fd;            /* of what has a file or a device; else: */
    struct node *node; /* what the volume is opened as */
    bool upload, sparse;
    uint64_t left; /* bytes that may still come; UINT64_MAX: no limit */
    uint64_t at;
    bool regular, released;
};

/* How many bytes, or a negative errno value. */
static ssize_t read_some(struct transfer *t, void *to, size_t n)
{
    if (!t->node) {
        ssize_t got = n ? pread(t->fd, to, n, (off_t)t->at) : 0;
        return got < 0 ? -errno : got;
    }
    n = t->at < t->node->size ? (size_t)MIN(n, t->node->size - t->at) : 0;
    int result = n ? chain_read(t->node, t->at, to, n) : 0;
    return result ? result : (ssize_t)n;
}

static ssize_t write_some(struct transfer *t, const void *from, size_t n)
{
    if (!t->node) {
        ssize_t put_now = pwrite(t->fd, from, n, (off_t)t->at);
        return put_now < 0 ? -errno : put_now;
    }
    if (t->at >= t->node->size || n > t->node->size - t->at) {
        return -ENOSPC;
    }
    int result = chain_write(t->node, t->at, from, n);
    return result ? result : (ssize_t)n;
}

static bool stream_failed(const struct transfer *t, const char *what, GError **error)
{
    libvirt_error(error, ERR_SYSTEM, "Unable to %s %s: %s", what, t->work.def->path,
                  g_strerror(errno));
    return false;
}

static ssize_t download(void *data, void *to, size_t n, GError **error)
{
    struct transfer *t = data;
    n = (size_t)MIN(n, t->left);
    if (t->sparse && t->regular && n) { /* up to where the next hole begins */
        off_t hole = lseek(t->fd, (off_t)t->at, SEEK_HOLE);
        n = hole > (off_t)t->at ? (size_t)MIN(n, (uint64_t)hole - t->at) : n;
    }
    ssize_t got = read_some(t, to, n);
    if (got < 0) {
        errno = (int)-got;
        stream_failed(t, "read", error);
        return -1;
    }
    t->at += (uint64_t)got;
    t->left -= t->left == UINT64_MAX ? 0 : (uint64_t)got;
    return got;
}

static int64_t download_hole(void *data, GError **error)
{
    struct transfer *t = data;
    struct stat st;
    if (!t->regular || !t->left) {
        return 0;
    }
    off_t next = lseek(t->fd, (off_t)t->at, SEEK_DATA);
    if (next < 0 && errno == ENXIO && fstat(t->fd, &st) == 0) { /* nothing but a hole is left */
        next = MAX(st.st_size, (off_t)t->at);
    }
    if (next < 0) {
        stream_failed(t, "look for holes in", error);
        return -1;
    }
    uint64_t n = MIN((uint64_t)next - t->at, t->left);
    t->at += n;
    t->left -= t->left == UINT64_MAX ? 0 : n;
    return (int64_t)n;
}

static bool has_room(struct transfer *t, uint64_t n, GError **error)
{
    if (n > t->left) {
        libvirt_error(error, ERR_SYSTEM, "cannot write to stream: No space left on device");
        return false;
    }
    t->left -= t->left == UINT64_MAX ? 0 : n;
    return true;
}

static bool upload(void *data, const void *from, size_t n, GError **error)
{
    struct transfer *t = data;
    if (!has_room(t, n, error)) {
        return false;
    }
    while (n) {
        file_goes_on();
        ssize_t put_now = write_some(t, from, n);
        if (put_now < 0) {
            errno = (int)-put_now;
            return stream_failed(t, "write to", error);
        }
        from = (const char *)from + put_now;
        n -= (size_t)put_now;
        t->at += (uint64_t)put_now;
    }
    return true;
}

static bool upload_zeros(struct transfer *t, uint64_t n, GError **error)
{
    g_autofree uint8_t *zeros = g_malloc0(1 << 20);
    uint64_t left = t->left;
    t->left = UINT64_MAX; /* has_room() has counted them */
    bool ok = true;
    for (; ok && n; n -= MIN(n, 1 << 20)) {
        ok = upload(t, zeros, (size_t)MIN(n, 1 << 20), error);
    }
    t->left = left;
    return ok;
}

static bool upload_hole(void *data, uint64_t n, GError **error)
{
    struct transfer *t = data;
    struct stat st;
    if (n > INT64_MAX - t->at) {
        libvirt_error(error, ERR_RPC, "a hole of %" PRIu64 " bytes", n);
        return false;
    }
    if (!has_room(t, n, error)) {
        return false;
    }
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (!t->regular || fallocate(t->fd, mode, (off_t)t->at, (off_t)n) < 0) {
        return upload_zeros(t, n, error);
    }
    t->at += n;
    if (fstat(t->fd, &st) < 0 ||
        ((uint64_t)st.st_size < t->at && ftruncate(t->fd, (off_t)t->at) < 0)) {
        return stream_failed(t, "write to", error);
    }
    return true;
}

/* The volume is everybody's again.  Lock not held. */
static void release(struct transfer *t)
{
    struct pool *pool = t->work.pool;
    if (t->node) {
        chain_close(t->node);
    } else {
        close(t->fd);
    }
    bool known = t->upload && pool->kind->vol_refresh &&
                 pool->kind->vol_refresh(pool->def, t->work.def, NULL);
    daemon_lock();
    if (t->upload) {
        rpc_event_pool_refresh message = {.pool.name = pool->def->name};
        uuid_bytes(pool->def->uuid, (uint8_t *)message.pool.uuid);
        event_pool_refresh(&message);
    }
    work_end(&t->work, known);
    daemon_unlock();
}

/* Before the client is told, so that it finds what it has sent. */
static bool finish(void *data, GError **error)
{
    struct transfer *t = data;
    int result = !t->upload ? 0 : t->node ? -chain_flush(t->node) : fsync(t->fd) ? errno : 0;
    errno = result;
    bool ok = !result || stream_failed(t, "write to", error);
    t->released = true;
    release(t);
    return ok;
}

static void abandon(void *data)
{
    release(data);
    g_free(data);
}

static gpointer abandon_thread(gpointer data)
{
    abandon(data);
    return NULL;
}

static void transfer_free(void *data)
{
    struct transfer *t = data;
    if (t->released) {
        g_free(t);
        return;
    }
    /* It was broken off, and closing may wait for ever, too. */
    GThread *thread = g_thread_try_new("files", abandon_thread, t, NULL);
    if (thread) {
        g_thread_unref(thread);
    } else {
        daemon_worker(abandon, t);
    }
}

static const char *file_of(const void *data)
{
    const struct transfer *t = data;
    return t->work.def->path;
}

#define TRANSFER .finish = finish, .free = transfer_free, .file = file_of
static const struct stream_ops download_ops = {.read = download, TRANSFER};
static const struct stream_ops download_sparse_ops = {
    .read = download, .read_hole = download_hole, TRANSFER};
static const struct stream_ops upload_ops = {.write = upload, .write_hole = upload_hole, TRANSFER};

/* Opens what @w is about; the lock is given up. */
static int open_bytes(struct work *w, bool writes, struct stat *st, GError **error)
{
    autofile int fd = path_open(w->def->path, writes ? O_RDWR : O_RDONLY, 0, st);
    if (fd >= 0 && !S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode)) {
        errno = S_ISDIR(st->st_mode) ? EISDIR : EINVAL;
    } else if (fd >= 0) {
        return g_steal_fd(&fd);
    }
    path_error(error, ERR_SYSTEM, "Unable to open", w->def->path);
    return -1;
}

struct opening {
    struct volume_def *def;
    struct node *node;
    bool writes;
    GError *error;
};

static void opening_run(void *data)
{
    struct opening *o = data;
    o->node = bytes_open(o->def, o->writes ? 0 : OPEN_READ_ONLY, &o->error);
}

static void opening_drop(void *data)
{
    struct opening *o = data;
    if (o->node) {
        chain_close(o->node);
    }
    volume_def_free(o->def);
    g_clear_error(&o->error);
    g_free(o);
}

/* The same for what has no file. */
static struct node *open_node(struct work *w, bool writes, GError **error)
{
    struct opening *o = g_new0(struct opening, 1);
    *o = (struct opening){.def = volume_def_copy(w->def), .writes = writes};
    if (!file_act(w->def->path, opening_run, o, opening_drop, error)) {
        return NULL;
    }
    struct node *node = g_steal_pointer(&o->node);
    if (o->error) {
        g_propagate_error(error, g_steal_pointer(&o->error));
    }
    opening_drop(o);
    return node;
}

static bool begin(struct call *call, const rpc_volume_stream_args *args, bool writes,
                  GError **error)
{
    struct work w;
    struct stat st;
    if (!work_begin(&w, &args->vol, error)) {
        return false;
    }
    struct node *node = w.def->access ? open_node(&w, writes, error) : NULL;
    int fd = w.def->access ? -1 : open_bytes(&w, writes, &st, error);
    if (w.def->access) {
        st = (struct stat){.st_size = node ? (off_t)node->size : 0};
    }
    bool fits = (fd >= 0 || node) && args->offset <= INT64_MAX &&
                (writes || S_ISBLK(st.st_mode) || args->offset <= (uint64_t)st.st_size);
    if ((fd >= 0 || node) && !fits) {
        libvirt_error(error, ERR_SYSTEM, "Unable to seek %s to %" PRIu64, w.def->path,
                      args->offset);
        if (node) {
            chain_close(node);
        } else {
            fd_let_go(fd);
        }
    }
    if (!fits) {
        work_end(&w, false);
        return false;
    }
    struct transfer *t = g_new0(struct transfer, 1);
    *t = (struct transfer){.work = w,
                           .fd = fd,
                           .node = node,
                           .upload = writes,
                           .sparse = args->flags & STREAM_SPARSE,
                           .left = args->length ? args->length : UINT64_MAX,
                           .at = args->offset,
                           .regular = S_ISREG(st.st_mode)};
    call_stream(call, writes ? &upload_ops : t->sparse ? &download_sparse_ops : &download_ops, t);
    return true;
}

bool verb_storage_vol_upload(struct call *call, const rpc_volume_stream_args *args, rpc_none *ret,
                             GError **error)
{
    (void)ret;
    return begin(call, args, true, error);
}

bool verb_storage_vol_download(struct call *call, const rpc_volume_stream_args *args, rpc_none *ret,
                               GError **error)
{
    (void)ret;
    return begin(call, args, false, error);
}
