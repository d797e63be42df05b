/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The images of external snapshots after they were made: going back to one, deleting one, and
 * removing those that nobody needs any more.
 *
 * A snapshot owns no image: what it is of is what its disks named when it was made, and what is
 * below.  The image that was then put over it belongs to what came after.  Definitions and
 * snapshots' files are written before an image goes away, so being killed leaves images at most.
 */
#include "manage/daemon/snapshot.h"

#include "base/json.h"
#include "manage/daemon/disks.h"
#include "manage/daemon/files.h"
#include "manage/daemon/run.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

enum { IMAGE_SECONDS = 3600, NAMES_MAX = 1000 };

/* --- images on the disk --- */

static bool run_image(GError **error, const char *verb, ...) G_GNUC_NULL_TERMINATED;
static bool run_image(GError **error, const char *verb, ...)
{
    g_autofree char *program = daemon_program("lodge-img");
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    va_list ap;
    g_ptr_array_add(argv, program);
    va_start(ap, verb);
    for (const char *word = verb; word; word = va_arg(ap, const char *)) {
        g_ptr_array_add(argv, (char *)(uintptr_t)word);
    }
    va_end(ap);
    g_ptr_array_add(argv, NULL);
    g_autoptr(GError) why = NULL;
    daemon_unlock();
    bool ok = run_program((const char *const *)argv->pdata, NULL, IMAGE_SECONDS, NULL, NULL, &why);
    daemon_lock();
    if (!ok) {
        libvirt_error(error, ERR_OPERATION_FAILED, "%s", why->message);
    }
    return ok;
}

/* `lodge-img info --backing-chain`: an array, the top first; also of what a machine writes to. */
static json_t *chain_of(const char *path, GError **error)
{
    g_autofree char *program = daemon_program("lodge-img"), *out = NULL;
    const char *argv[] = {program, "info", "-U", "--backing-chain", "--output=json", path, NULL};
    g_autoptr(GError) why = NULL;
    daemon_unlock();
    bool ok = run_program(argv, NULL, IMAGE_SECONDS, &out, NULL, &why);
    daemon_lock();
    json_t *chain = ok ? json_parse(out, strlen(out), NULL) : NULL;
    if (!chain) {
        libvirt_error(error, ERR_OPERATION_FAILED, "%s: %s", path, why ? why->message : "no chain");
    }
    return chain;
}

static const char *chain_text(const json_t *chain, size_t at, const char *key)
{
    const char *text = json_string_value(json_object_get(json_array_get(chain, at), key));
    return text ? text : "";
}

static size_t chain_find(const json_t *chain, const char *path)
{
    size_t at = 0, n = json_array_size(chain);
    while (at < n && strcmp(chain_text(chain, at, "filename"), path) != 0) {
        at++;
    }
    return at;
}

/* Whether a file is there; false also if nobody answers for it. */
static bool is_there(const char *path)
{
    struct stat st = {0};
    return file_answers(path, &st, NULL) && st.st_nlink;
}

/* --- what nobody needs --- */

static void add_rows(GPtrArray *out, const GPtrArray *rows)
{
    for (unsigned i = 0; i < xml_count(rows); i++) {
        const struct snapshot_disk *row = rows->pdata[i];
        if (row->snapshot == LOCATION_EXTERNAL && snapshot_file(row)) {
            g_ptr_array_add(out, g_strdup(snapshot_file(row)));
        }
    }
}

GPtrArray *snapshot_candidates(const GPtrArray *all)
{
    GPtrArray *out = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; i < all->len; i++) {
        const Snapshot *s = all->pdata[i];
        add_rows(out, s->disks);
        add_rows(out, s->revert_disks);
    }
    return out;
}

static void add_disks(GPtrArray *roots, const DomainDef *def)
{
    for (unsigned i = 0; def && i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        const struct disk_source *copy = disk->mirror ? disk->mirror->source : NULL;
        if (disk_path(disk)) {
            g_ptr_array_add(roots, g_strdup(disk_path(disk)));
        }
        if (copy && copy->file) {
            g_ptr_array_add(roots, g_strdup(copy->file));
        }
    }
}

/* All that some chain has; NULL if that cannot be told. */
static GHashTable *needed(const Domain *d)
{
    g_autoptr(GHashTable) set = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GPtrArray) roots = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) all = snapshots_load(d);
    g_autoptr(DomainDef) config = d->persistent ? domain_config(d, NULL) : NULL;
    add_disks(roots, config);
    add_disks(roots, d->machine ? d->machine->def : NULL);
    for (unsigned i = 0; i < all->len; i++) {
        add_disks(roots, ((const Snapshot *)all->pdata[i])->def);
    }
    for (unsigned i = 0; i < roots->len; i++) {
        const char *path = roots->pdata[i];
        if (g_hash_table_contains(set, path)) {
            continue;
        }
        g_hash_table_add(set, g_strdup(path));
        g_autoptr(json_t) chain = is_there(path) ? chain_of(path, NULL) : json_array();
        if (!chain) {
            return NULL;
        }
        for (size_t k = 0; k < json_array_size(chain); k++) {
            g_hash_table_add(set, g_strdup(chain_text(chain, k, "filename")));
        }
    }
    return g_steal_pointer(&set);
}

void snapshot_clean(const Domain *d, const GPtrArray *candidates)
{
    g_autoptr(GHashTable) set = candidates->len ? needed(d) : NULL;
    for (unsigned i = 0; set && i < candidates->len; i++) {
        const char *path = candidates->pdata[i];
        if (!g_hash_table_contains(set, path) && is_there(path) && path_unlink(path) != 0) {
            daemon_log("unable to remove snapshot image file '%s' (%s)", path, g_strerror(errno));
        }
    }
}

/* --- who else needs an image --- */

/* An image that somebody's chain begins with. */
typedef struct root Root;
struct root {
    char *path;
    const char *owner; /* a snapshot; NULL: the domain */
    bool frozen;       /* of an external snapshot: nothing may be written to it */
};

static void root_clear(void *data)
{
    g_free(((Root *)data)->path);
}

static void add_roots(GArray *roots, const DomainDef *def, const Snapshot *s)
{
    for (unsigned i = 0; def && i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        const struct snapshot_disk *row = s ? snapshot_disk_of(s, disk->target) : NULL;
        if (disk_path(disk)) {
            Root root = {.path = g_strdup(disk_path(disk)),
                         .owner = s ? s->name : NULL,
                         .frozen = row && row->snapshot == LOCATION_EXTERNAL};
            g_array_append_val(roots, root);
        }
    }
}

/* Of all but @s. */
static GArray *other_roots(const Domain *d, const GPtrArray *all, const Snapshot *s)
{
    GArray *roots = g_array_new(FALSE, FALSE, sizeof(Root));
    g_autoptr(DomainDef) config = d->persistent ? domain_config(d, NULL) : NULL;
    g_array_set_clear_func(roots, root_clear);
    add_roots(roots, config, NULL);
    add_roots(roots, d->machine ? d->machine->def : NULL, NULL);
    for (unsigned i = 0; i < all->len; i++) {
        const Snapshot *other = all->pdata[i];
        if (other != s && strcmp(other->name, s->name) != 0) {
            add_roots(roots, other->def, other);
        }
    }
    return roots;
}

/* Whether @base is below @root: then what lies over it goes to @over; or is @root: NULL does. */
static bool is_of(const Root *root, const char *base, bool *of, char **over, GError **error)
{
    *of = strcmp(root->path, base) == 0;
    if (*of || !is_there(root->path)) {
        return true;
    }
    g_autoptr(json_t) chain = chain_of(root->path, error);
    size_t at = chain_find(chain, base);
    *of = at > 0 && at < json_array_size(chain);
    *over = *of ? g_strdup(chain_text(chain, at - 1, "filename")) : NULL;
    return chain != NULL;
}

static bool may_write(const GArray *roots, const char *path, const Snapshot *s, GError **error)
{
    for (unsigned i = 0; i < roots->len; i++) {
        const Root *root = &g_array_index(roots, Root, i);
        g_autofree char *over = NULL;
        bool of;
        if (root->owner && !is_of(root, path, &of, &over, error)) {
            return false;
        }
        if (root->owner && of && (over || root->frozen)) {
            libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                          "snapshot '%s' needs image '%s' as it is, and the domain would write to it "
                          "after going back to '%s': delete '%s' first",
                          root->owner, path, s->name, root->owner);
            return false;
        }
    }
    return true;
}

bool snapshot_may_write(const Domain *d, const GPtrArray *all, const Snapshot *s,
                        const DomainDef *def, GError **error)
{
    g_autoptr(GArray) roots = other_roots(d, all, s);
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        if (disk_path(disk) && !disk->readonly && !may_write(roots, disk_path(disk), s, error)) {
            return false;
        }
    }
    return true;
}

/* --- going back --- */

/* A name that no file has; NULL with an error. */
static char *free_name(const struct domain_disk *disk, GError **error)
{
    int64_t now = g_get_real_time() / G_USEC_PER_SEC;
    for (unsigned i = 0; i < NAMES_MAX; i++) {
        g_autofree char *word =
            i ? g_strdup_printf("%ld_%u", (long)now, i) : g_strdup_printf("%ld", (long)now);
        g_autofree char *path = snapshot_image_name(disk, word, error);
        struct stat st = {0};
        if (!path || !file_answers(path, &st, error)) {
            return NULL;
        }
        if (!st.st_nlink) {
            return g_steal_pointer(&path);
        }
    }
    libvirt_error(error, ERR_OPERATION_FAILED, "no free name for a new image of disk '%s'",
                  disk->target);
    return NULL;
}

static bool is_top(const DomainDef *def, const char *path)
{
    for (unsigned i = 0; def && i < xml_count(def->disks); i++) {
        if (g_strcmp0(disk_path(def->disks->pdata[i]), path) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether the domain writes to it, or will. */
static bool is_domains_top(const Domain *d, const char *path)
{
    g_autoptr(DomainDef) config = d->persistent ? domain_config(d, NULL) : NULL;
    return is_top(config, path) || is_top(d->machine ? d->machine->def : NULL, path);
}

/* A new image over what @disk of the snapshot had; its row is appended to @rows. */
static bool put_over(const Domain *d, struct domain_disk *disk, GPtrArray **rows, GError **error)
{
    g_autofree char *base = g_strdup(disk_path(disk)), *format = g_strdup(disk->format);
    if (base && is_domains_top(d, base)) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "the domain writes to image '%s' of the snapshot again", base);
        return false;
    }
    g_autofree char *path = free_name(disk, error);
    if (!path || !disk_create_image(path, "qcow2", 0, base, format, error)) {
        return false;
    }
    struct snapshot_disk *row = xml_new(&snapshot_disk_table);
    row->name = g_strdup(disk->target);
    row->snapshot = LOCATION_EXTERNAL;
    row->type = DISK_FILE;
    row->format = g_strdup("qcow2");
    row->source = xml_new(&disk_source_table);
    row->source->file = g_strdup(path);
    xml_append(&snapshot_disk_table, rows, row);
    disk_set_source(disk, path, "qcow2", XML_ABSENT);
    xml_free(&backing_table, g_steal_pointer(&disk->backing));
    return true;
}

static void drop_rows(GPtrArray *rows, bool unlink)
{
    for (unsigned i = 0; i < xml_count(rows); i++) {
        if (unlink) {
            path_unlink(snapshot_file(rows->pdata[i]));
        }
        xml_free(&snapshot_disk_table, rows->pdata[i]);
    }
    if (rows) {
        g_ptr_array_unref(rows);
    }
}

static bool make_overlays(const Domain *d, const Snapshot *s, DomainDef *def, GPtrArray **rows,
                          GError **error)
{
    for (unsigned i = 0; i < xml_count(s->disks); i++) {
        const struct snapshot_disk *row = s->disks->pdata[i];
        struct domain_disk *disk = domain_find_disk(def, row->name);
        if (row->snapshot == LOCATION_INTERNAL) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "a snapshot that is both internal and external cannot be gone back to");
            return false;
        }
        if (row->snapshot != LOCATION_EXTERNAL) {
            continue;
        }
        if (!disk) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "no disk named '%s'", row->name);
            return false;
        }
        if (!put_over(d, disk, rows, error)) {
            return false;
        }
    }
    return true;
}

/* @def gets the images that were made. */
static void take_rows(DomainDef *def, const GPtrArray *rows)
{
    for (unsigned i = 0; i < xml_count(rows); i++) {
        const struct snapshot_disk *row = rows->pdata[i];
        struct domain_disk *disk = domain_find_disk(def, row->name);
        if (disk) {
            disk_set_source(disk, snapshot_file(row), "qcow2", XML_ABSENT);
            xml_free(&backing_table, g_steal_pointer(&disk->backing));
        }
    }
}

static bool check_revert(const Domain *d, const Snapshot *s, bool up, GError **error)
{
    if (!s->def) {
        libvirt_error(error, ERR_SNAPSHOT_REVERT_RISKY,
                      "snapshot '%s' lacks domain '%s' rollback info", s->name, d->name);
    } else if (!d->persistent && !up) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "transient domain needs to request run or pause to revert to inactive "
                      "snapshot");
    } else if (s->memory == LOCATION_EXTERNAL && !is_there(s->memory_file)) {
        libvirt_error(error, ERR_OPERATION_FAILED, "the memory of snapshot '%s' is not in '%s'",
                      s->name, s->memory_file);
    } else {
        return true;
    }
    return false;
}

/* The disks are new, the definition says so: off it goes. */
static bool wake(Domain *d, const Snapshot *s, const DomainDef *def, bool run, unsigned flags,
                 GError **error)
{
    unsigned fresh = flags & REVERT_RESET_NVRAM ? START_RESET_NVRAM : 0;
    const struct machine_start how = {.flags = fresh | (run ? 0 : START_PAUSED),
                                      .incoming_fd = -1,
                                      .event_detail = 3,
                                      .running_reason = RUNNING_FROM_SNAPSHOT};
    if (s->memory != LOCATION_EXTERNAL) {
        return machine_start(d, def, &how, error);
    }
    if (!domain_restore_with(d, s->memory_file, def, fresh | (run ? SAVE_RUNNING : START_PAUSED),
                             error)) {
        return false;
    }
    if (run && d->state == STATE_RUNNING) {
        domain_set_state(d, STATE_RUNNING, RUNNING_FROM_SNAPSHOT);
    }
    return true;
}

bool snapshot_revert_external(Domain *d, Snapshot *s, unsigned flags, GError **error)
{
    bool active = s->state == SNAP_RUNNING || s->state == SNAP_PAUSED;
    bool up = active || (flags & (REVERT_RUNNING | REVERT_PAUSED));
    bool run = flags & REVERT_RUNNING  ? true
               : flags & REVERT_PAUSED ? false
                                       : s->state == SNAP_RUNNING;
    if (!check_revert(d, s, up, error)) {
        return false;
    }
    g_autoptr(DomainDef) def = domain_def_copy(s->def);
    g_autoptr(DomainDef) config = domain_def_copy(s->inactive ? s->inactive : s->def);
    GPtrArray *rows = NULL;
    bool ok = make_overlays(d, s, def, &rows, error);
    ok = ok && (!domain_active(d) || machine_stop(d, SHUTOFF_FROM_SNAPSHOT, false, error));
    take_rows(config, rows);
    if (!ok || (d->persistent && !domain_save_config(d, config, error))) {
        drop_rows(rows, true);
        return false;
    }
    drop_rows(s->revert_disks, false);
    s->revert_disks = rows;
    return snapshot_store(d, s, error) && (!up || wake(d, s, def, run, flags, error));
}

/* --- deleting --- */

/* Link @at of the running machine's chain is committed into what is below it. */
static bool merge_live(struct machine *m, const char *target, const char *path, GError **error)
{
    struct domain_disk *disk = domain_find_disk(m->def, target);
    g_autoptr(GArray) chain = disk ? disk_chain(disk) : NULL;
    g_autofree char *alias = disk ? g_strdup(disk->alias) : NULL;
    int at = disk ? disk_chain_find(chain, disk, path, error) : -1;
    if (at < 0) {
        return false;
    }
    if (!block_commit_range(m, disk, at, at + 1, error) || !block_job_wait(m, alias, true, error)) {
        return false;
    }
    if (at == 0) {
        g_autofree char *id = g_strconcat("job-", alias, NULL);
        if (!qmp_do(m->qmp, error, "block-job-complete", "{s:s}", "device", id)) {
            return false;
        }
    }
    if (!block_job_wait(m, alias, false, error)) {
        return false;
    }
    const struct block_job *job = block_job_find(m, alias);
    bool ok = job && job->ended == BLOCK_JOB_COMPLETED;
    block_job_settle(m, alias);
    if (!ok) {
        libvirt_error(error, ERR_OPERATION_FAILED, "the commit of '%s' has failed", path);
    }
    return ok;
}

/* The same for images that no machine has open. */
static bool merge_off(const char *path, const char *format, GError **error)
{
    return run_image(error, "commit", "-q", "-d", "-f", format, path, NULL);
}

/* Whatever of @files is over @gone is over @base from now on. */
static bool follow_images(const GPtrArray *files, const char *gone, const char *base,
                          const char *base_format, GError **error)
{
    for (unsigned i = 0; i < files->len; i++) {
        const char *path = files->pdata[i];
        if (strcmp(path, gone) == 0 || strcmp(path, base) == 0 || !is_there(path)) {
            continue;
        }
        g_autoptr(json_t) chain = chain_of(path, error);
        if (!chain) {
            return false;
        }
        if (strcmp(chain_text(chain, 1, "filename"), gone) == 0 &&
            !run_image(error, "rebase", "-q", "-u", "-b", base, "-F", base_format, "-f",
                       chain_text(chain, 0, "format"), path, NULL)) {
            return false;
        }
    }
    return true;
}

static bool follow_def(DomainDef *def, const char *gone, const char *base, const char *format)
{
    bool changed = false;
    for (unsigned i = 0; def && i < xml_count(def->disks); i++) {
        struct domain_disk *disk = def->disks->pdata[i];
        if (g_strcmp0(disk_path(disk), gone) == 0) {
            disk_set_source(disk, base, format, XML_ABSENT);
            xml_free(&backing_table, g_steal_pointer(&disk->backing));
            changed = true;
        }
    }
    return changed;
}

/* Definitions that name @gone name @base. */
static bool follow_names(Domain *d, const GPtrArray *all, const char *gone, const char *base,
                         const char *format, GError **error)
{
    g_autoptr(DomainDef) config = d->persistent ? domain_config(d, error) : NULL;
    if (d->persistent && !config) {
        return false;
    }
    if (config && follow_def(config, gone, base, format) && !domain_save_config(d, config, error)) {
        return false;
    }
    for (unsigned i = 0; i < all->len; i++) {
        Snapshot *s = all->pdata[i];
        bool here = follow_def(s->def, gone, base, format);
        if ((follow_def(s->inactive, gone, base, format) || here) && !snapshot_store(d, s, error)) {
            return false;
        }
    }
    return true;
}

/* What lies over a snapshot's image of one disk. */
typedef struct over Over;
struct over {
    char *path, *format;
    bool live; /* a running machine has it open */
};

static void over_clear(struct over *o)
{
    g_free(o->path);
    g_free(o->format);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Over, over_clear)

static bool look_in(const char *top, const char *base, bool live, struct over *out, GError **error)
{
    g_autoptr(json_t) chain = top && is_there(top) ? chain_of(top, error) : json_array();
    size_t at = chain_find(chain, base);
    if (!chain) {
        return false;
    }
    if (at > 0 && at < json_array_size(chain)) {
        *out = (struct over){g_strdup(chain_text(chain, at - 1, "filename")),
                             g_strdup(chain_text(chain, at - 1, "format")), live};
    }
    return true;
}

/* .path stays NULL if nothing is. */
static bool find_over(const Domain *d, const GPtrArray *all, const Snapshot *s, const char *target,
                      const char *base, struct over *out, GError **error)
{
    g_autoptr(DomainDef) def = domain_def_of(d, true, error);
    const struct domain_disk *disk = def ? domain_find_disk(def, target) : NULL;
    if (!def || !look_in(disk ? disk_path(disk) : NULL, base, domain_active(d), out, error)) {
        return false;
    }
    for (unsigned i = 0; i < all->len && !out->path; i++) {
        const Snapshot *child = all->pdata[i];
        disk = child->def && g_strcmp0(child->parent, s->name) == 0
                   ? domain_find_disk(child->def, target)
                   : NULL;
        if (disk && !look_in(disk_path(disk), base, false, out, error)) {
            return false;
        }
    }
    return true;
}

/* Whether @over may be committed into @base: nobody else is over that, or writes to it. */
static bool may_merge(const Domain *d, const GPtrArray *all, const Snapshot *s, const char *base,
                      const struct over *over, GError **error)
{
    g_autoptr(GArray) roots = other_roots(d, all, s);
    for (unsigned i = 0; i < roots->len; i++) {
        const Root *root = &g_array_index(roots, Root, i);
        g_autofree char *other = NULL;
        bool of;
        if (!is_of(root, base, &of, &other, error)) {
            return false;
        }
        if (of && (other ? strcmp(other, over->path) != 0 : !root->owner || root->frozen)) {
            libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                          "'%s' cannot be committed into '%s', which %s%s%s needs as it is",
                          over->path, base, root->owner ? "snapshot '" : "the domain",
                          root->owner ? root->owner : "", root->owner ? "'" : "");
            return false;
        }
    }
    return true;
}

static bool delete_disk(Domain *d, const GPtrArray *all, const Snapshot *s,
                        const struct snapshot_disk *row, GError **error)
{
    const struct domain_disk *was = s->def ? domain_find_disk(s->def, row->name) : NULL;
    g_autofree char *base = g_strdup(was ? disk_path(was) : NULL);
    g_autofree char *format = g_strdup(was ? was->format : NULL);
    g_auto(Over) over = {0};
    if (!base) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "what disk '%s' was at snapshot '%s' is not known", row->name, s->name);
        return false;
    }
    if (is_domains_top(d, base)) { /* it has been committed into, or taken back: what is over it is old */
        return true;
    }
    if (!find_over(d, all, s, row->name, base, &over, error)) {
        return false;
    }
    if (!over.path) {
        return true;
    }
    if (!may_merge(d, all, s, base, &over, error)) {
        return false;
    }
    g_autoptr(Machine) m = over.live ? machine_of(d, error) : NULL;
    if (over.live && !m) {
        return false;
    }
    if (!(m ? merge_live(m, row->name, over.path, error)
            : merge_off(over.path, over.format, error))) {
        return false;
    }
    g_autoptr(GPtrArray) files = snapshot_candidates(all);
    g_autoptr(DomainDef) config = !m && d->persistent ? domain_config(d, NULL) : NULL;
    add_disks(files, config);
    if (!follow_images(files, over.path, base, format, error) ||
        !follow_names(d, all, over.path, base, format, error)) {
        return false;
    }
    if (is_there(over.path) && path_unlink(over.path) != 0) {
        daemon_log("unable to remove snapshot image file '%s' (%s)", over.path, g_strerror(errno));
    }
    return true;
}

static bool check_delete(const Domain *d, const GPtrArray *all, const Snapshot *s, GError **error)
{
    unsigned children = 0;
    for (unsigned i = 0; i < all->len; i++) {
        const Snapshot *child = all->pdata[i];
        children += g_strcmp0(child->parent, s->name) == 0;
    }
    if (children > 1) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "deletion of external disk snapshots with multiple children snapshots not "
                      "supported");
    } else if (children && s->current == 1) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "deletion of active external snapshot that is not a leaf snapshot is not "
                      "supported");
    } else if (d->machine && xml_count(d->machine->block_jobs)) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "cannot delete external snapshots when there is another active block job");
    } else {
        return true;
    }
    return false;
}

bool snapshot_delete_external(Domain *d, GPtrArray *all, const Snapshot *s, GError **error)
{
    if (!check_delete(d, all, s, error)) {
        return false;
    }
    for (unsigned i = 0; i < xml_count(s->disks); i++) {
        const struct snapshot_disk *row = s->disks->pdata[i];
        if (row->snapshot == LOCATION_EXTERNAL && !delete_disk(d, all, s, row, error)) {
            return false;
        }
    }
    if (s->memory_file) {
        path_unlink(s->memory_file);
    }
    return true;
}
