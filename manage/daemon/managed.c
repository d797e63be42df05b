/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/managed.h"

#include "manage/error.h"
#include "manage/model/pool.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- the list ---- */

static struct traits traits_at(const struct managed_kind *kind, unsigned i)
{
    return kind->traits((*kind->all)->pdata[i]);
}

void *managed_find(const struct managed_kind *kind, const char *name)
{
    for (unsigned i = 0; i < (*kind->all)->len; i++) {
        if (!strcmp(traits_at(kind, i).name, name)) {
            return (*kind->all)->pdata[i];
        }
    }
    return NULL;
}

void *managed_find_uuid(const struct managed_kind *kind, const uint8_t uuid[16])
{
    uint8_t own[16];
    for (unsigned i = 0; i < (*kind->all)->len; i++) {
        uuid_bytes(traits_at(kind, i).uuid, own);
        if (!memcmp(own, uuid, sizeof(own))) {
            return (*kind->all)->pdata[i];
        }
    }
    return NULL;
}

void *managed_by_name(const struct managed_kind *kind, const char *name, GError **error)
{
    void *thing = managed_find(kind, name);
    if (!thing) {
        libvirt_error(error, kind->missing, "no %s with matching name '%s'", kind->noun, name);
    }
    return thing;
}

void *managed_by_uuid(const struct managed_kind *kind, const char *uuid, const char *name,
                      GError **error)
{
    void *thing = managed_find_uuid(kind, (const uint8_t *)uuid);
    if (!thing) {
        g_autofree char *text = uuid_text((const uint8_t *)uuid);
        libvirt_error(error, kind->missing, "no %s with matching uuid '%s'%s%s%s", kind->noun, text,
                      name ? " (" : "", name ? name : "", name ? ")" : "");
    }
    return thing;
}

static int by_name(const void *a, const void *b, void *kind)
{
    const struct managed_kind *k = kind;
    return strcmp(k->traits(*(void *const *)a).name, k->traits(*(void *const *)b).name);
}

void managed_add(const struct managed_kind *kind, void *thing)
{
    g_ptr_array_add(*kind->all, thing);
    g_ptr_array_sort_with_data(*kind->all, by_name, (void *)kind);
}

bool managed_may_add(const struct managed_kind *kind, const char *name, const char *uuid,
                     bool transient, GError **error)
{
    uint8_t bytes[16];
    uuid_bytes(uuid, bytes);
    const void *named = managed_find(kind, name), *same = managed_find_uuid(kind, bytes);
    if (same && same != named) {
        libvirt_error(error, ERR_OPERATION_FAILED, "%s '%s' is already defined with uuid %s",
                      kind->word, kind->traits(same).name, uuid);
    } else if (named && named != same) {
        libvirt_error(error, ERR_OPERATION_FAILED, "%s '%s' already exists with uuid %s",
                      kind->word, name, kind->traits(named).uuid);
    } else if (named && transient && kind->traits(named).active) {
        libvirt_error(error, ERR_OPERATION_INVALID, "%s is already active as '%s'", kind->word,
                      name);
    } else {
        return true;
    }
    return false;
}

/* ---- the disk ---- */

char *managed_file(const struct managed_kind *kind, const char *name)
{
    g_autofree char *file = g_strconcat(name, ".xml", NULL);
    return daemon_path(DAEMON_ETC, kind->folder, file, NULL);
}

bool managed_starts(const struct managed_kind *kind, const char *name)
{
    g_autofree char *file = g_strconcat(name, ".xml", NULL);
    g_autofree char *link = daemon_path(DAEMON_ETC, kind->folder, "autostart", file, NULL);
    return g_file_test(link, G_FILE_TEST_IS_SYMLINK);
}

bool managed_set_autostart(const struct managed_kind *kind, const char *name, bool on,
                           GError **error)
{
    g_autofree char *file = g_strconcat(name, ".xml", NULL);
    g_autofree char *link =
        daemon_path_make(DAEMON_ETC, 0700, error, kind->folder, "autostart", file, NULL);
    g_autofree char *target = g_strconcat("../", file, NULL);
    if (!link) {
        return false;
    }
    if ((on ? symlink(target, link) : unlink(link)) < 0 && errno != (on ? EEXIST : ENOENT)) {
        libvirt_error(error, ERR_SYSTEM, "Failed to %s '%s': %s",
                      on ? "create symlink" : "delete symlink", link, g_strerror(errno));
        return false;
    }
    return true;
}

bool managed_write(const struct managed_kind *kind, const char *name, const char *xml,
                   GError **error)
{
    g_autofree char *path = managed_file(kind, name);
    return daemon_keep_file(path, xml, 0600, error);
}

bool managed_unlink(const struct managed_kind *kind, const char *name, GError **error)
{
    g_autofree char *path = managed_file(kind, name);
    return daemon_forget_file(path, error);
}

/* ---- verbs ---- */

void managed_put(const struct managed_kind *kind, managed_name *out, const void *thing)
{
    struct traits t = kind->traits(thing);
    out->name = g_strdup(t.name);
    uuid_bytes(t.uuid, (uint8_t *)out->uuid);
}

/* Of each pair of flags one must hold, unless none of the pair is asked for. */
static bool wanted(const struct traits *t, unsigned flags)
{
    enum { PERSISTENT = 4, TRANSIENT = 8, AUTOSTART = 16, NO_AUTOSTART = 32, TYPES = ~63u };
    const struct {
        unsigned group, has;
    } groups[] = {
        {MANAGED_ACTIVE | MANAGED_INACTIVE, t->active ? MANAGED_ACTIVE : MANAGED_INACTIVE},
        {PERSISTENT | TRANSIENT, t->persistent ? PERSISTENT : TRANSIENT},
        {AUTOSTART | NO_AUTOSTART, t->autostart ? AUTOSTART : NO_AUTOSTART},
        {t->type ? TYPES : 0, t->type},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(groups); i++) {
        if ((flags & groups[i].group) && !(flags & groups[i].has)) {
            return false;
        }
    }
    return true;
}

unsigned managed_list(const struct managed_kind *kind, unsigned flags, managed_name **items)
{
    unsigned n = 0;
    if (items) {
        *items = g_new0(managed_name, (*kind->all)->len);
    }
    for (unsigned i = 0; i < (*kind->all)->len; i++) {
        struct traits t = traits_at(kind, i);
        if (wanted(&t, flags)) {
            if (items) {
                managed_put(kind, &(*items)[n], (*kind->all)->pdata[i]);
            }
            n++;
        }
    }
    return n;
}

unsigned managed_count(const struct managed_kind *kind, unsigned flags)
{
    return managed_list(kind, flags, NULL);
}

void managed_names(const struct managed_kind *kind, unsigned flags, int max, rpc_names *ret)
{
    ret->names.names_val = g_new0(rpc_string, (*kind->all)->len);
    for (unsigned i = 0; i < (*kind->all)->len; i++) {
        struct traits t = traits_at(kind, i);
        if (wanted(&t, flags) && (int)ret->names.names_len < max) {
            ret->names.names_val[ret->names.names_len++] = g_strdup(t.name);
        }
    }
}
