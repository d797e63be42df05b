/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Snapshots outside of images: from now on writes go to a new image over the old one, which
 * stays as it is; the memory of a running machine goes to a file.
 */
#include "manage/daemon/snapshot.h"

#include "manage/daemon/checkpoint.h"
#include "manage/daemon/disks.h"
#include "manage/daemon/files.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

const struct snapshot_disk *snapshot_disk_of(const struct snapshot *s, const char *target)
{
    for (unsigned i = 0; i < xml_count(s->disks); i++) {
        const struct snapshot_disk *one = s->disks->pdata[i];
        if (g_strcmp0(one->name, target) == 0) {
            return one;
        }
    }
    return NULL;
}

bool snapshot_is_external(const struct snapshot *s)
{
    bool external = s->memory == LOCATION_EXTERNAL;
    for (unsigned i = 0; i < xml_count(s->disks); i++) {
        external |= ((struct snapshot_disk *)s->disks->pdata[i])->snapshot == LOCATION_EXTERNAL;
    }
    return external;
}

const char *snapshot_file(const struct snapshot_disk *one)
{
    return !one->source ? NULL : one->source->file ? one->source->file : one->source->dev;
}

/* --- what is to be done --- */

static bool check_memory(struct snapshot *s, bool up, unsigned flags, GError **error)
{
    const char *file = s->memory_file;
    if (file && !s->memory) {
        s->memory = LOCATION_EXTERNAL;
    }
    if (!s->memory) {
        s->memory = up && !(flags & SNAPSHOT_DISK_ONLY) ? LOCATION_INTERNAL : LOCATION_NONE;
    }
    if (s->memory == LOCATION_EXTERNAL && !file) {
        libvirt_error(error, ERR_XML, "external memory snapshots require a filename");
    } else if (s->memory != LOCATION_EXTERNAL && file) {
        libvirt_error(error, ERR_XML, "memory filename '%s' requires external snapshot", file);
    } else if (file && file[0] != '/') {
        libvirt_error(error, ERR_XML, "memory snapshot file path (%s) must be absolute", file);
    } else if (s->memory != LOCATION_NONE && (!up || (flags & SNAPSHOT_DISK_ONLY))) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "memory state cannot be saved with offline or disk-only snapshot");
    } else {
        return true;
    }
    return false;
}

/* Rows that came get the names of their disks. */
static bool check_rows(struct snapshot *s, const DomainDef *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(s->disks); i++) {
        struct snapshot_disk *one = s->disks->pdata[i];
        const struct domain_disk *disk =
            one->name ? domain_find_disk((DomainDef *)(uintptr_t)def, one->name) : NULL;
        if (!disk) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "no disk named '%s'",
                          one->name ? one->name : "");
            return false;
        }
        g_free(one->name);
        one->name = NULL;
        if (snapshot_disk_of(s, disk->target)) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "disk '%s' specified twice", disk->target);
            return false;
        }
        one->name = g_strdup(disk->target);
    }
    return true;
}

char *snapshot_image_name(const struct domain_disk *disk, const char *name, GError **error)
{
    const char *path = disk_path(disk);
    if (!path) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "cannot generate external snapshot name for disk '%s' without source",
                      disk->target);
        return NULL;
    }
    if (disk->type != DISK_FILE) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "source for disk '%s' is not a regular file; refusing to generate external "
                      "snapshot name",
                      disk->target);
        return NULL;
    }
    const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
    size_t stem = dot && slash && dot > slash ? (size_t)(dot - path) : strlen(path);
    return g_strdup_printf("%.*s.%s", (int)stem, path, name);
}

static bool make_name(struct snapshot_disk *one, const struct domain_disk *disk, const char *name,
                      GError **error)
{
    char *file = snapshot_image_name(disk, name, error);
    if (!file) {
        return false;
    }
    one->source = one->source ? one->source : xml_new(&disk_source_table);
    one->source->file = file;
    return true;
}

static bool check_row(const struct snapshot *s, struct snapshot_disk *one,
                      const struct domain_disk *disk, int usual, bool match, GError **error)
{
    bool empty = !disk_path(disk) && !(disk->source && disk->source->protocol);
    if (!one->snapshot) {
        one->snapshot = disk->snapshot            ? disk->snapshot
                        : disk->readonly || empty ? LOCATION_NONE
                                                  : usual;
    }
    if (match && one->snapshot != LOCATION_NONE && one->snapshot != usual) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "disk '%s' must use snapshot mode '%s'",
                      one->name, usual == LOCATION_INTERNAL ? "internal" : "external");
        return false;
    }
    if (snapshot_file(one) && one->snapshot != LOCATION_EXTERNAL) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "file '%s' for disk '%s' requires use of external snapshot mode",
                      snapshot_file(one), one->name);
        return false;
    }
    if (one->snapshot != LOCATION_EXTERNAL) {
        return true;
    }
    if (one->type > DISK_BLOCK || (one->source && one->source->protocol)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "the new image of disk '%s' must be a file or a block device", one->name);
        return false;
    }
    if (!one->format) {
        one->format = g_strdup("qcow2");
    }
    if (strcmp(one->format, "qcow2") != 0 && strcmp(one->format, "qed") != 0) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "external snapshot format for disk %s is unsupported: %s", one->name,
                      one->format);
        return false;
    }
    if (!snapshot_file(one) && !make_name(one, disk, s->name, error)) {
        return false;
    }
    one->type = one->source->dev ? DISK_BLOCK : DISK_FILE;
    return true;
}

bool snapshot_align(struct snapshot *s, const DomainDef *def, bool up, unsigned flags,
                    GError **error)
{
    bool disk_only = flags & SNAPSHOT_DISK_ONLY;
    if (!check_memory(s, up, flags, error) || !check_rows(s, def, error)) {
        return false;
    }
    int usual = disk_only || s->memory == LOCATION_EXTERNAL ? LOCATION_EXTERNAL : LOCATION_INTERNAL;
    bool any = false;
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        struct snapshot_disk *one =
            (struct snapshot_disk *)(uintptr_t)snapshot_disk_of(s, disk->target);
        if (!one) {
            one = xml_new(&snapshot_disk_table);
            one->name = g_strdup(disk->target);
            xml_append(&snapshot_disk_table, &s->disks, one);
        }
        if (!check_row(s, one, disk, usual, !disk_only, error)) {
            return false;
        }
        if (up && disk_only && one->snapshot == LOCATION_INTERNAL) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "active qemu domains require external disk snapshots; disk %s requested "
                          "internal",
                          one->name);
            return false;
        }
        any |= one->snapshot == LOCATION_EXTERNAL;
    }
    if (disk_only && !any) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "disk-only snapshots for active domains require at least one disk to be "
                      "selected for snapshot");
        return false;
    }
    return true;
}

/* --- making --- */

/* One disk's part of the work. */
struct part {
    const struct snapshot_disk *row;
    char *alias, *target, *node, *old_path, *old_format;
    int64_t index; /* of the new node; -1 */
    bool made;     /* the file is ours */
};

static void free_part(void *data)
{
    struct part *p = data;
    g_free(p->alias);
    g_free(p->target);
    g_free(p->node);
    g_free(p->old_path);
    g_free(p->old_format);
    g_free(p);
}

static GPtrArray *parts_of(const struct snapshot *s, const DomainDef *def)
{
    GPtrArray *parts = g_ptr_array_new_with_free_func(free_part);
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        const struct snapshot_disk *row = snapshot_disk_of(s, disk->target);
        if (row && row->snapshot == LOCATION_EXTERNAL) {
            struct part *p = g_new0(struct part, 1);
            *p = (struct part){.row = row,
                               .alias = g_strdup(disk->alias),
                               .target = g_strdup(disk->target),
                               .node = disk_node_name(disk),
                               .old_path = g_strdup(disk_path(disk)),
                               .old_format = g_strdup(disk->format),
                               .index = -1};
            g_ptr_array_add(parts, p);
        }
    }
    return parts;
}

static bool check_part(const struct machine *m, const struct part *p, unsigned flags,
                       GError **error)
{
    const char *path = snapshot_file(p->row), *paths[] = {path, p->old_path, NULL};
    struct stat found[2] = {0}, *st = found;
    if (!files_answer(paths, found, FILES_SECONDS, error)) {
        return false;
    }
    bool there = st->st_nlink, device = there && S_ISBLK(st->st_mode);
    if (m && block_job_find(m, p->alias)) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "disk '%s' already in active block job",
                      p->target);
    } else if (m && !p->node) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "external snapshot for disk %s on a '%s' device is not supported", p->target,
                      "removable");
    } else if (!p->old_path) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "external snapshots of disk %s, which is no local file, are not supported",
                      p->target);
    } else if (!there && (flags & SNAPSHOT_REUSE)) {
        libvirt_error(error, ERR_SYSTEM, "missing existing file for disk %s: %s: %s", p->target,
                      path, g_strerror(ENOENT));
    } else if (there && !(flags & SNAPSHOT_REUSE) && !device && st->st_size) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "external snapshot file for disk %s already exists and is not a block "
                      "device: %s",
                      p->target, path);
    } else {
        return true;
    }
    return false;
}

static void undo(struct machine *m, GPtrArray *parts)
{
    for (unsigned i = 0; i < parts->len; i++) {
        const struct part *p = parts->pdata[i];
        if (m && !m->ended && p->index >= 0) {
            disk_drop_node(m, p->index);
        }
        if (p->made) {
            path_unlink(snapshot_file(p->row));
        }
    }
}

/* From here on another lodged looks whether the machine has come to them; @parts NULL: not any
 * more. */
static void note_images(struct machine *m, const GPtrArray *parts)
{
    g_clear_pointer(&m->images, g_ptr_array_unref);
    if (parts) {
        m->images = g_ptr_array_new_with_free_func(g_free);
    }
    for (unsigned i = 0; parts && i < parts->len; i++) {
        const struct part *p = parts->pdata[i];
        g_ptr_array_add(m->images, g_strdup(snapshot_file(p->row)));
    }
    if (!m->ended) {
        machine_save(m);
    }
}

void machine_images_recover(struct machine *m)
{
    bool switched = false;
    for (unsigned i = 0; i < xml_count(m->images); i++) {
        const char *path = m->images->pdata[i];
        for (unsigned k = 0; k < xml_count(m->def->disks); k++) {
            const struct domain_disk *disk = m->def->disks->pdata[k];
            const struct disk_backing *below = disk->backing;
            const char *old = !below || !below->source ? NULL
                              : below->source->file    ? below->source->file
                                                       : below->source->dev;
            if (g_strcmp0(disk_path(disk), path) == 0) {
                g_autofree char *target = g_strdup(disk->target), *format = g_strdup(disk->format);
                g_autofree char *was = g_strdup(old);
                switched = true;
                disk_config_follows(m->domain, target, was, path, format);
                break;
            }
        }
    }
    if (m->images && !switched) {
        snapshot_forget(m->domain, m->snapshot);
    }
    for (unsigned i = 0; !switched && !m->images_stay && i < xml_count(m->images); i++) {
        path_unlink(m->images->pdata[i]);
    }
    if (m->images) {
        g_clear_pointer(&m->snapshot, g_free);
        note_images(m, NULL);
    }
}

/* The files: @m NULL: of a machine that is off. */
static bool make_files(struct machine *m, GPtrArray *parts, unsigned flags, GError **error)
{
    for (unsigned i = 0; i < parts->len; i++) {
        if (!check_part(m, parts->pdata[i], flags, error)) {
            return false;
        }
    }
    if (m) {
        m->images_stay = flags & SNAPSHOT_REUSE;
        note_images(m, parts);
    }
    for (unsigned i = 0; i < parts->len && !(flags & SNAPSHOT_REUSE); i++) {
        struct part *p = parts->pdata[i];
        const char *path = snapshot_file(p->row);
        uint64_t size = m ? disk_size(m, p->alias, error) : 0;
        if ((m && !size) ||
            !disk_create_image(path, p->row->format, size, p->old_path, p->old_format, error)) {
            return false;
        }
        p->made = true;
    }
    return true;
}

static bool add_nodes(struct machine *m, GPtrArray *parts, GError **error)
{
    for (unsigned i = 0; i < parts->len; i++) {
        struct part *p = parts->pdata[i];
        /* The old one is opened again, for reading. */
        if (!disk_lend(m, snapshot_file(p->row), error) || !disk_lend(m, p->old_path, error)) {
            return false;
        }
        const struct domain_disk *disk = machine_disk(m, p->alias);
        p->index =
            disk ? disk_add_node(m, disk, snapshot_file(p->row), p->row->format, true, error) : -1;
        if (p->index < 0) {
            return false;
        }
    }
    return true;
}

static bool switch_nodes(struct machine *m, GPtrArray *parts, GError **error)
{
    json_t *actions = json_array();
    for (unsigned i = 0; i < parts->len; i++) {
        const struct part *p = parts->pdata[i];
        g_autofree char *overlay = g_strdup_printf("libvirt-%ld-format", (long)p->index);
        const struct domain_disk *disk = machine_disk(m, p->alias);
        if (disk && !checkpoint_follow(m, disk, overlay, actions, error)) {
            json_decref(actions);
            return false;
        }
        json_array_append_new(actions, json_pack("{s:s, s:{s:s, s:s}}", "type", "blockdev-snapshot",
                                                 "data", "node", p->node, "overlay", overlay));
    }
    return qmp_do(m->qmp, error, "transaction", "{s:o}", "actions", actions);
}

/* The live XML and the definition name the new images. */
static void follow(struct machine *m, GPtrArray *parts)
{
    for (unsigned i = 0; i < parts->len; i++) {
        const struct part *p = parts->pdata[i];
        struct domain_disk *disk = machine_disk(m, p->alias);
        if (!disk) {
            continue;
        }
        struct disk_backing *below = xml_new(&backing_table);
        below->type = disk->type;
        below->format = g_strdup(disk->format);
        below->index = disk->source->index;
        below->source = g_steal_pointer(&disk->source);
        below->source->index = XML_ABSENT;
        below->backing = disk->backing;
        disk->backing = below;
        disk_set_source(disk, snapshot_file(p->row), p->row->format, p->index);
        disk_config_follows(m->domain, p->target, p->old_path, snapshot_file(p->row),
                            p->row->format);
    }
    machine_save(m);
}

/* The guest's file systems are still while the disks change, if that was asked for. */
static bool switch_quietly(struct machine *m, GPtrArray *parts, bool quiesce, GError **error)
{
    g_autoptr(json_t) frozen = quiesce ? agent_run(m, "guest-fsfreeze-freeze", NULL, error) : NULL;
    if (quiesce && !frozen) {
        return false;
    }
    bool ok = switch_nodes(m, parts, error);
    if (quiesce) {
        g_autoptr(json_t) thawed = agent_run(m, "guest-fsfreeze-thaw", NULL, ok ? error : NULL);
        ok = ok && thawed;
    }
    return ok;
}

static bool running(Domain *d, const struct snapshot *s, unsigned flags, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    g_autoptr(GPtrArray) parts = m ? parts_of(s, m->def) : NULL;
    if (!parts) {
        return false;
    }
    bool memory = s->memory == LOCATION_EXTERNAL, ran = d->state == STATE_RUNNING;
    bool ok = make_files(m, parts, flags, error) && add_nodes(m, parts, error);
    if (ok && memory) {
        ok = (!ran || (flags & SNAPSHOT_LIVE) || machine_pause(d, PAUSED_SNAPSHOT, error)) &&
             machine_save_memory(m, s->memory_file, NULL, ran, false, error);
    }
    ok = ok && !m->ended &&
         (!parts->len || switch_quietly(m, parts, flags & SNAPSHOT_QUIESCE, error));
    if (ok) {
        follow(m, parts);
    } else {
        undo(m, parts);
    }
    g_clear_pointer(&m->snapshot, g_free);
    note_images(m, NULL);
    if (memory && ran && d->machine == m && !(ok && (flags & SNAPSHOT_HALT))) {
        ok = machine_resume(d, RUNNING_UNPAUSED, ok ? error : NULL) && ok;
    }
    return ok && (!(flags & SNAPSHOT_HALT) || machine_stop(d, SHUTOFF_FROM_SNAPSHOT, false, error));
}

static bool off(Domain *d, const struct snapshot *s, unsigned flags, GError **error)
{
    g_autoptr(DomainDef) def = domain_config(d, error);
    g_autoptr(GPtrArray) parts = def ? parts_of(s, def) : NULL;
    if (!parts) {
        return false;
    }
    if (!make_files(NULL, parts, flags, error)) {
        undo(NULL, parts);
        return false;
    }
    for (unsigned i = 0; i < parts->len; i++) {
        const struct part *p = parts->pdata[i];
        struct domain_disk *disk = domain_find_disk(def, p->target);
        disk_set_source(disk, snapshot_file(p->row), p->row->format, XML_ABSENT);
        xml_free(&backing_table, g_steal_pointer(&disk->backing));
    }
    if (!domain_save_config(d, def, error)) {
        undo(NULL, parts);
        return false;
    }
    return true;
}

bool snapshot_external(Domain *d, const struct snapshot *s, unsigned flags, GError **error)
{
    if ((flags & SNAPSHOT_QUIESCE) && !domain_active(d)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain is not running");
        return false;
    }
    return domain_active(d) ? running(d, s, flags, error) : off(d, s, flags, error);
}
