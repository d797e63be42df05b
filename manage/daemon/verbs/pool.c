/* SPDX-License-Identifier: GPL-2.0-or-later */

/* Verbs of storage pools. */
#include "manage/daemon/storage.h"
#include "manage/daemon/verb.h"

#include <string.h>

enum {
    XML_INACTIVE = 1,
    STATE_INACTIVE = 0,
    STATE_BUILDING = 1,
    STATE_RUNNING = 2,
    WITH_BUILD = 1,
    WITH_BUILD_OVERWRITE = 2,
    WITH_BUILD_NO_OVERWRITE = 4,
    DELETE_ZEROED = 1,
};

static struct pool *get(const rpc_pool *id, GError **error)
{
    return managed_by_uuid(&pool_kind, id->uuid, id->name, error);
}

static void put(rpc_pool *out, const struct pool *pool)
{
    managed_put(&pool_kind, (managed_name *)out, pool);
}

MANAGED_VERBS(&pool_kind, storage_pool, storage_pools, rpc_pool, pool)

bool verb_storage_pool_lookup_by_volume(struct call *call, const rpc_volume_args *args,
                                        rpc_pool_ret *ret, GError **error)
{
    (void)call;
    const struct pool *pool = managed_by_name(&pool_kind, args->vol.pool, error);
    if (pool) {
        put(&ret->pool, pool);
    }
    return pool;
}

bool verb_storage_pool_lookup_by_target_path(struct call *call, const rpc_text *args,
                                             rpc_pool_ret *ret, GError **error)
{
    (void)call;
    for (unsigned i = 0; i < pools->len; i++) {
        const struct pool *pool = pools->pdata[i];
        if (pool->active && !g_strcmp0(pool->def->path, args->text)) {
            put(&ret->pool, pool);
            return true;
        }
    }
    libvirt_error(error, ERR_NO_STORAGE_POOL, "no storage pool with matching target path '%s'",
                  args->text);
    return false;
}

/* ---- looking ---- */

bool verb_storage_pool_get_info(struct call *call, const rpc_pool_args *args, rpc_pool_info *ret,
                                GError **error)
{
    (void)call;
    const struct pool *pool = get(&args->pool, error);
    if (!pool) {
        return false;
    }
    ret->state = pool->active ? STATE_RUNNING : pool->changing ? STATE_BUILDING : STATE_INACTIVE;
    ret->capacity = (uint64_t)pool->def->capacity;
    ret->allocation = (uint64_t)pool->def->allocation;
    ret->available = (uint64_t)pool->def->available;
    return true;
}

bool verb_storage_pool_get_xml_desc(struct call *call, const rpc_pool_flags *args, rpc_text *ret,
                                    GError **error)
{
    (void)call;
    const struct pool *pool = get(&args->pool, error);
    if (!pool) {
        return false;
    }
    ret->text = pool_format(args->flags & XML_INACTIVE ? pool_lasting(pool) : pool->def);
    return true;
}

bool verb_storage_pool_set_autostart(struct call *call, const rpc_pool_int *args, rpc_none *ret,
                                     GError **error)
{
    (void)call;
    (void)ret;
    struct pool *pool = get(&args->pool, error);
    if (pool && !pool->persistent) {
        libvirt_error(error, ERR_INVALID_ARG, "pool has no config file");
        return false;
    }
    return pool && (pool->autostart == (args->value != 0) ||
                    pool_set_autostart(pool, args->value != 0, error));
}

/* ---- changing ---- */

bool verb_storage_pool_define_xml(struct call *call, const rpc_text_flags *args, rpc_pool_ret *ret,
                                  GError **error)
{
    (void)call;
    struct pool_def *def = pool_parse(args->text, storage_rules, error);
    if (!def || !daemon_take_turn(pool_kind.turn, error)) {
        pool_def_free(def);
        return false;
    }
    const struct pool *pool = pool_define(def, error);
    if (pool) {
        pool_event(pool, POOL_DEFINED);
        put(&ret->pool, pool);
    }
    daemon_end_turn(pool_kind.turn);
    return pool;
}

static bool build_flags(unsigned flags, unsigned *build, GError **error)
{
    *build = flags & WITH_BUILD_OVERWRITE      ? BUILD_OVERWRITE
             : flags & WITH_BUILD_NO_OVERWRITE ? BUILD_NO_OVERWRITE
             : flags & WITH_BUILD              ? BUILD_NEW
                                               : UINT_MAX;
    if ((flags & WITH_BUILD_OVERWRITE) && (flags & WITH_BUILD_NO_OVERWRITE)) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "flags 'build-overwrite' and 'build-no-overwrite' are mutually exclusive");
        return false;
    }
    return true;
}

/* Nobody changes the pool of that name, if there is one. */
static bool settled(const char *name, GError **error)
{
    struct pool *pool = pool_find(name);
    if (!pool || !pool_change(pool, error)) {
        return !pool;
    }
    pool_changed(pool);
    return true;
}

bool verb_storage_pool_create_xml(struct call *call, const rpc_text_flags *args, rpc_pool_ret *ret,
                                  GError **error)
{
    (void)call;
    unsigned build;
    struct pool_def *def = build_flags(args->flags, &build, error)
                               ? pool_parse(args->text, storage_rules, error)
                               : NULL;
    if (!def || !settled(def->name, error) || !daemon_take_turn(pool_kind.turn, error)) {
        pool_def_free(def);
        return false;
    }
    struct pool *pool = pool_add(def, true, error);
    daemon_end_turn(pool_kind.turn);
    if (!pool || !pool_change(pool, error)) {
        return false;
    }
    bool ok = pool_active_check(pool, false, error) && pool_start(pool, build, error);
    if (ok) {
        pool_event(pool, POOL_STARTED);
        put(&ret->pool, pool);
    } else if (!pool->persistent && !pool->active) {
        pool_remove(pool);
    }
    pool_changed(pool);
    return ok;
}

bool verb_storage_pool_create(struct call *call, const rpc_pool_flags *args, rpc_none *ret,
                              GError **error)
{
    (void)call;
    (void)ret;
    unsigned build;
    struct pool *pool = build_flags(args->flags, &build, error) ? get(&args->pool, error) : NULL;
    if (!pool || !pool_change(pool, error)) {
        return false;
    }
    bool ok = !pool->active;
    if (!ok) {
        libvirt_error(error, ERR_OPERATION_INVALID, "storage pool '%s' is already active",
                      pool->def->name);
    } else {
        ok = pool_start(pool, build, error);
    }
    if (ok) {
        pool_event(pool, POOL_STARTED);
    }
    pool_changed(pool);
    return ok;
}

/* Something that an inactive pool's kind can do to its source or target. */
static bool act(struct pool *pool, const char *what,
                bool (*doing)(struct pool *, unsigned, GError **), bool possible, unsigned flags,
                int event, GError **error)
{
    if (!pool_change(pool, error)) {
        return false;
    }
    bool ok = pool_active_check(pool, false, error);
    if (ok && !possible) {
        libvirt_error(error, ERR_NO_SUPPORT, "pool does not support %s", what);
        ok = false;
    }
    ok = ok && doing(pool, flags, error);
    if (ok) {
        pool_event(pool, event);
    }
    pool_changed(pool);
    return ok;
}

static bool remove_target(struct pool *pool, unsigned flags, GError **error)
{
    (void)flags;
    return pool_delete(pool, error);
}

bool verb_storage_pool_build(struct call *call, const rpc_pool_flags *args, rpc_none *ret,
                             GError **error)
{
    (void)call;
    (void)ret;
    struct pool *pool = get(&args->pool, error);
    return pool && act(pool, "pool building", pool_build, pool->kind->build, args->flags,
                       POOL_CREATED, error);
}

bool verb_storage_pool_delete(struct call *call, const rpc_pool_flags *args, rpc_none *ret,
                              GError **error)
{
    (void)call;
    (void)ret;
    struct pool *pool = get(&args->pool, error);
    if (pool && (args->flags & DELETE_ZEROED)) {
        libvirt_error(error, ERR_ARGUMENT_UNSUPPORTED, "deleting a pool with wiping");
        return false;
    }
    return pool &&
           act(pool, "pool deletion", remove_target, pool->kind->remove, 0, POOL_DELETED, error);
}

bool verb_storage_pool_destroy(struct call *call, const rpc_pool_args *args, rpc_none *ret,
                               GError **error)
{
    (void)call;
    (void)ret;
    struct pool *pool = get(&args->pool, error);
    if (!pool || !pool_change(pool, error)) {
        return false;
    }
    bool ok = pool_active_check(pool, true, error) && pool_stop(pool, error);
    if (ok) {
        pool_event(pool, POOL_STOPPED);
        if (!pool->persistent) {
            pool_remove(pool);
        }
    }
    pool_changed(pool);
    return ok;
}

bool verb_storage_pool_undefine(struct call *call, const rpc_pool_args *args, rpc_none *ret,
                                GError **error)
{
    (void)call;
    (void)ret;
    struct pool *pool = get(&args->pool, error);
    if (!pool || !pool_change(pool, error)) {
        return false;
    }
    bool ok = pool_active_check(pool, false, error) && daemon_take_turn(pool_kind.turn, error);
    if (ok) {
        ok = pool_forget_files(pool, error);
        if (ok) {
            pool_event(pool, POOL_UNDEFINED);
            pool_remove(pool);
        }
        daemon_end_turn(pool_kind.turn);
    }
    pool_changed(pool);
    return ok;
}

bool verb_storage_pool_refresh(struct call *call, const rpc_pool_flags *args, rpc_none *ret,
                               GError **error)
{
    (void)call;
    (void)ret;
    struct pool *pool = get(&args->pool, error);
    if (!pool || !pool_change(pool, error)) {
        return false;
    }
    bool ok = pool_active_check(pool, true, error) && pool_refresh(pool, error);
    pool_changed(pool);
    return ok;
}

/* ---- what there could be ---- */

bool verb_connect_find_storage_pool_sources(struct call *call, const rpc_find_sources_args *args,
                                            rpc_text *ret, GError **error)
{
    (void)call;
    int type = 0;
    for (int i = 1; pool_type_names[i]; i++) {
        type = strcmp(pool_type_names[i], args->type) ? type : i;
    }
    const struct storage_kind *kind = type ? storage_kind_find(type) : NULL;
    if (!type) {
        libvirt_error(error, ERR_INTERNAL, "unknown storage pool type %s", args->type);
        return false;
    }
    if (!kind || !kind->find) {
        libvirt_error(error, ERR_NO_SUPPORT, "pool type '%s' does not support source discovery",
                      args->type);
        return false;
    }
    struct pool_def *spec = pool_source_parse(args->spec ? *args->spec : NULL, error);
    if (!spec) {
        return false;
    }
    g_autoptr(GPtrArray) found = g_ptr_array_new_with_free_func((GDestroyNotify)pool_def_free);
    daemon_unlock();
    bool ok = kind->find(spec, found, error);
    daemon_lock();
    pool_def_free(spec);
    GString *out = g_string_new("<sources>\n");
    for (unsigned i = 0; i < found->len; i++) {
        pool_source_format(found->pdata[i], out);
    }
    g_string_append(out, "</sources>\n");
    ret->text = g_string_free(out, FALSE);
    return ok;
}

static void append_enum(GString *out, const char *name, const char *const *values)
{
    g_string_append_printf(out, "      <defaultFormat type='%s'/>\n      <enum name='%s'>\n",
                           values[0], name);
    for (; *values; values++) {
        g_string_append_printf(out, "        <value>%s</value>\n", *values);
    }
    g_string_append(out, "      </enum>\n");
}

bool verb_connect_get_storage_pool_capabilities(struct call *call, const rpc_flags *args,
                                                rpc_text *ret, GError **error)
{
    (void)call, (void)args, (void)error;
    GString *out = g_string_new("<storagepoolCapabilities>\n");
    for (int i = 1; pool_type_names[i]; i++) {
        const struct storage_kind *kind = storage_kind_find(i);
        g_string_append_printf(out, "  <pool type='%s' supported='%s'>\n", pool_type_names[i],
                               kind ? "yes" : "no");
        if (kind && kind->rules.formats) {
            g_string_append(out, "    <poolOptions>\n");
            append_enum(out, "sourceFormatType", kind->rules.formats);
            g_string_append(out, "    </poolOptions>\n");
        }
        if (kind && kind->volume_formats) {
            g_string_append(out, "    <volOptions>\n");
            append_enum(out, "targetFormatType", kind->volume_formats);
            g_string_append(out, "    </volOptions>\n");
        }
        g_string_append(out, "  </pool>\n");
    }
    g_string_append(out, "</storagepoolCapabilities>\n");
    ret->text = g_string_free(out, FALSE);
    return true;
}
