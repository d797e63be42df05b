/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Snapshots: those inside qcow2 images, of a machine that is off its disks, of a running one its
 * memory too; and those of new images over the old (snapshot_external.c).  What is known of each
 * is a file DAEMON_VAR/qemu/snapshot/MACHINE/NAME.xml.
 *
 * Spec: libvirt, "Snapshot XML format".
 */
#include "manage/daemon/disks.h"
#include "manage/daemon/files.h"
#include "manage/daemon/run.h"
#include "manage/daemon/snapshot.h"
#include "manage/daemon/uuid.h"

#include <glib/gstdio.h>
#include <string.h>

enum { JOB_MINUTES = 30, IMAGE_SECONDS = 600 };

static XML_WORDS(state_words, "running", "paused", "shutoff", "disk-snapshot", XML_OTHERS,
                 "nostate", "blocked", "shutdown", "crashed", "pmsuspended");
static const struct xml_row disk_rows[] = {
    XML_TEXT(struct snapshot_disk, name, "@name", XML_REQUIRED),
    XML_ENUM(struct snapshot_disk, snapshot, "@snapshot", snapshot_words, 0),
    XML_ENUM(struct snapshot_disk, type, "@type", disk_type_words, 0),
    XML_TEXT(struct snapshot_disk, format, "driver/@type", 0),
    XML_STRUCT(struct snapshot_disk, source, "source", &disk_source_table, 0),
};
const struct xml_table snapshot_disk_table = XML_TABLE("disk", struct snapshot_disk, disk_rows);
static const struct xml_row rows[] = {
    XML_TEXT(struct snapshot, name, "name", 0),
    XML_TEXT(struct snapshot, description, "description", 0),
    XML_ENUM(struct snapshot, state, "state", state_words, 0),
    XML_TEXT(struct snapshot, parent, "parent/name", 0),
    XML_LONG(struct snapshot, created, "creationTime", 0),
    XML_ENUM(struct snapshot, memory, "memory/@snapshot", snapshot_words, 0),
    XML_TEXT(struct snapshot, memory_file, "memory/@file", 0),
    XML_LIST(struct snapshot, disks, "disks/disk", &snapshot_disk_table, 0),
    XML_LIST(struct snapshot, revert_disks, "revertDisks/disk", &snapshot_disk_table, 0),
    XML_STRUCT(struct snapshot, def, "domain", &domain_table, 0),
    XML_STRUCT(struct snapshot, inactive, "inactiveDomain", &inactive_domain_table, 0),
    XML_INT(struct snapshot, current, "active", 0),
};
static const struct xml_table snapshot_table = XML_TABLE("domainsnapshot", struct snapshot, rows);

static void free_snapshot(void *s)
{
    xml_free(&snapshot_table, s);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Snapshot, free_snapshot)

/* --- files --- */

static char *folder_of(const Domain *d)
{
    return daemon_path(DAEMON_VAR, "qemu", "snapshot", d->name, NULL);
}

GPtrArray *snapshots_load(const Domain *d)
{
    GPtrArray *all = g_ptr_array_new_with_free_func(free_snapshot);
    g_autofree char *folder = folder_of(d);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *file;
    while (dir && (file = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, file, NULL), *text = NULL;
        Snapshot *s = g_str_has_suffix(file, ".xml") && g_file_get_contents(path, &text, NULL, NULL)
                          ? xml_read_text(&snapshot_table, text, "snapshot", 0, NULL)
                          : NULL;
        if (s) {
            g_ptr_array_add(all, s);
        }
    }
    return all;
}

void domain_count_snapshots(Domain *d)
{
    g_autoptr(GPtrArray) all = snapshots_load(d);
    d->snapshots = all->len;
}

bool snapshot_store(const Domain *d, const Snapshot *s, GError **error)
{
    if (d->gone) { /* while its disks were worked on */
        libvirt_error(error, ERR_NO_DOMAIN, "no domain with matching name '%s'", d->name);
        return false;
    }
    g_autofree char *file = g_strconcat(s->name, ".xml", NULL);
    g_autofree char *path =
        daemon_path_make(DAEMON_VAR, 0700, error, "qemu", "snapshot", d->name, file, NULL);
    g_autofree char *text = xml_write_text(&snapshot_table, s, XML_MODE_SECRET);
    return path && daemon_write_file(path, text, -1, 0600, error);
}

static void forget(Domain *d, const char *name)
{
    g_autofree char *file = g_strconcat(name, ".xml", NULL), *folder = folder_of(d);
    g_autofree char *path = g_build_filename(folder, file, NULL);
    g_unlink(path);
    domain_count_snapshots(d);
}

void domain_forget_snapshots(Domain *d)
{
    g_autoptr(GPtrArray) all = snapshots_load(d);
    for (unsigned i = 0; i < all->len; i++) {
        forget(d, ((Snapshot *)all->pdata[i])->name);
    }
    g_autofree char *folder = folder_of(d);
    g_rmdir(folder);
}

static Snapshot *find(const GPtrArray *all, const char *name)
{
    for (unsigned i = 0; name && i < all->len; i++) {
        Snapshot *s = all->pdata[i];
        if (strcmp(s->name, name) == 0) {
            return s;
        }
    }
    return NULL;
}

static Snapshot *find_current(const GPtrArray *all)
{
    for (unsigned i = 0; i < all->len; i++) {
        Snapshot *s = all->pdata[i];
        if (s->current == 1) {
            return s;
        }
    }
    return NULL;
}

static Snapshot *need(const GPtrArray *all, const char *name, GError **error)
{
    Snapshot *s = find(all, name);
    if (!s) {
        libvirt_error(error, ERR_NO_DOMAIN_SNAPSHOT, "no domain snapshot with matching name '%s'",
                      name);
    }
    return s;
}

/* Makes @name (NULL: none) the current one. */
static bool make_current(Domain *d, GPtrArray *all, const char *name, GError **error)
{
    for (unsigned i = 0; i < all->len; i++) {
        Snapshot *s = all->pdata[i];
        int64_t now = name && strcmp(s->name, name) == 0;
        if ((s->current == 1) != now) {
            s->current = now;
            if (!snapshot_store(d, s, error)) {
                return false;
            }
        }
    }
    return true;
}

void snapshot_forget(Domain *d, const char *name)
{
    g_autoptr(GPtrArray) all = snapshots_load(d);
    const Snapshot *s = find(all, name);
    if (s && s->current == 1 && s->parent) {
        make_current(d, all, s->parent, NULL);
    }
    if (s && s->memory_file) {
        path_unlink(s->memory_file);
    }
    if (s) {
        forget(d, name);
    }
}

/* --- images --- */

/* The disks that a snapshot is of; NULL with an error if one of them cannot hold it. */
static GPtrArray *disks_of(const DomainDef *def, const Snapshot *s, GError **error)
{
    g_autoptr(GPtrArray) disks = g_ptr_array_new();
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        struct domain_disk *disk = def->disks->pdata[i];
        const struct snapshot_disk *row = snapshot_disk_of(s, disk->target);
        if (row && row->snapshot
                ? row->snapshot != LOCATION_INTERNAL
                : disk->readonly || disk->device != DISK_DEVICE_DISK || disk->snapshot == 1) {
            continue;
        }
        if (strcmp(disk->format, "qcow2") != 0) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "internal snapshot for disk %s unsupported for storage type %s",
                          disk->target, disk->format);
            return NULL;
        }
        g_ptr_array_add(disks, disk);
    }
    return g_steal_pointer(&disks);
}

/* `lodge-img snapshot OPTION NAME` on every disk of a machine that is off; gives up the lock. */
static bool on_images(const DomainDef *def, const char *option, const Snapshot *s, GError **error)
{
    g_autoptr(GPtrArray) disks = disks_of(def, s, error);
    g_autofree char *program = daemon_program("lodge-img");
    bool ok = disks != NULL;
    for (unsigned i = 0; ok && i < disks->len; i++) {
        const char *argv[] = {program, "snapshot", option, s->name, disk_path(disks->pdata[i]),
                              NULL};
        daemon_unlock();
        ok = run_program(argv, NULL, IMAGE_SECONDS, NULL, NULL, error);
        daemon_lock();
    }
    return ok;
}

static bool job_over(struct machine *m, const char *id, GError **error)
{
    int64_t until = g_get_monotonic_time() + JOB_MINUTES * 60 * (int64_t)G_USEC_PER_SEC;
    for (;;) {
        g_autoptr(json_t) jobs = qmp_run(m->qmp, "query-jobs", NULL, QMP_TIMEOUT_MS, error);
        size_t i;
        json_t *job;
        if (!jobs || g_get_monotonic_time() > until) {
            return false;
        }
        bool there = false;
        json_array_foreach(jobs, i, job)
        {
            const char *status = json_string_value(json_object_get(job, "status"));
            if (g_strcmp0(json_string_value(json_object_get(job, "id")), id) != 0) {
                continue;
            }
            there = true;
            if (g_strcmp0(status, "concluded") == 0) {
                const char *bad = json_string_value(json_object_get(job, "error"));
                if (bad) {
                    g_autofree char *words = disks_words(m, bad);
                    libvirt_error(error, ERR_OPERATION_FAILED, "%s", words);
                }
                qmp_do(m->qmp, NULL, "job-dismiss", "{s:s}", "id", id);
                return bad == NULL;
            }
        }
        if (!there) {
            return true;
        }
        daemon_wait(g_get_monotonic_time() + 10000);
    }
}

/* snapshot-save, -load or -delete of a running machine. */
static bool on_machine(struct machine *m, const char *command, const Snapshot *s, GError **error)
{
    g_autoptr(GPtrArray) disks = disks_of(m->def, s, error);
    if (!disks) {
        return false;
    }
    if (!disks->len) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "a running machine without a qcow2 disk has no place for its memory");
        return false;
    }
    json_t *nodes = json_array(), *first = NULL;
    for (unsigned i = 0; i < disks->len; i++) {
        g_autofree char *node = disk_node_name(disks->pdata[i]);
        json_array_append_new(nodes, json_string(node));
    }
    first = json_incref(json_array_get(nodes, 0));
    json_t *args =
        json_pack("{s:s, s:s, s:o}", "job-id", "snapshot", "tag", s->name, "devices", nodes);
    if (strcmp(command, "snapshot-delete") != 0) {
        json_object_set(args, "vmstate", first);
    }
    json_decref(first);
    g_autoptr(json_t) got = qmp_run(m->qmp, command, args, QMP_TIMEOUT_MS, error);
    return got && job_over(m, "snapshot", error);
}

static bool node_has(const json_t *nodes, const char *name, const char *snapshot)
{
    size_t i, k;
    const json_t *node, *one;
    json_array_foreach(nodes, i, node)
    {
        const json_t *image = json_object_get(node, "image");
        json_array_foreach(json_object_get(image, "snapshots"), k, one)
        {
            if (g_strcmp0(json_string_value(json_object_get(node, "node-name")), name) == 0 &&
                g_strcmp0(json_string_value(json_object_get(one, "name")), snapshot) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* Whether all disks of the running machine have @s; below an overlay that came later they do not.
 */
static bool in_all_disks(struct machine *m, const Snapshot *s, GError **error)
{
    g_autoptr(GPtrArray) disks = disks_of(m->def, s, error);
    g_autoptr(json_t) nodes =
        disks ? qmp_run(m->qmp, "query-named-block-nodes", NULL, QMP_TIMEOUT_MS, error) : NULL;
    for (unsigned i = 0; nodes && i < disks->len; i++) {
        const struct domain_disk *disk = disks->pdata[i];
        g_autofree char *node = disk_node_name(disk);
        if (!node_has(nodes, node, s->name)) {
            libvirt_error(error, ERR_OPERATION_FAILED,
                          "Snapshot '%s' does not exist in the image of disk '%s'", s->name,
                          disk->target);
            return false;
        }
    }
    return nodes != NULL;
}

static void remember(struct machine *m, const char *name)
{
    g_free(m->snapshot);
    m->snapshot = g_strdup(name);
    if (!m->ended) {
        machine_save(m);
    }
}

/* Waits for the end of the job that lodged left behind. */
static void end_job(struct machine *m)
{
    g_autoptr(json_t) jobs = qmp_run(m->qmp, "query-jobs", NULL, QMP_TIMEOUT_MS, NULL);
    size_t i;
    json_t *job;
    json_array_foreach(jobs, i, job)
    {
        if (g_strcmp0(json_string_value(json_object_get(job, "id")), "snapshot") == 0) {
            job_over(m, "snapshot", NULL);
            break;
        }
    }
}

void machine_snapshot_recover(struct machine *m)
{
    g_autoptr(GPtrArray) all = snapshots_load(m->domain);
    g_autoptr(GError) error = NULL;
    const Snapshot s = {.name = m->snapshot};
    end_job(m);
    bool orphan = m->snapshot && !find(all, m->snapshot) && in_all_disks(m, &s, NULL);
    bool left = orphan && !on_machine(m, "snapshot-delete", &s, &error);
    if (qmp_unanswered(m->qmp)) {
        return; /* later */
    }
    if (left) {
        daemon_log("%s: snapshot '%s' stays in its images: %s", m->domain->name, s.name,
                   error ? error->message : "no answer");
    }
    if (m->snapshot) {
        remember(m, NULL);
    }
}

/* --- making --- */

static bool check_new(const Domain *d, const Snapshot *s, const GPtrArray *all, unsigned flags,
                      GError **error)
{
    if (!d->persistent && (flags & SNAPSHOT_HALT)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "cannot halt after transient domain snapshot");
        return false;
    }
    if (!*s->name || strchr(s->name, '/') || s->name[0] == '.' || strlen(s->name) > 200) {
        libvirt_error(error, ERR_XML, "invalid snapshot name '%.210s'", s->name);
        return false;
    }
    if (find(all, s->name) && !(flags & SNAPSHOT_REDEFINE)) {
        libvirt_error(error, ERR_OPERATION_FAILED, "domain snapshot %s already exists", s->name);
        return false;
    }
    return true;
}

/* What a client says of them is of no use: they are those of now. */
static void take_definitions(const Domain *d, Snapshot *s, const DomainDef *def, bool up)
{
    xml_free(&domain_table, s->def);
    xml_free(&inactive_domain_table, s->inactive);
    s->def = domain_def_copy(def);
    s->inactive = up && d->persistent ? domain_config(d, NULL) : NULL;
}

/* Writes what is known of a new one, below the current one. */
static bool keep(Domain *d, Snapshot *s, GPtrArray *all, unsigned flags, GError **error)
{
    const Snapshot *above = find_current(all);
    bool again = flags & SNAPSHOT_REDEFINE;
    if (above && !again) {
        s->parent = g_strdup(above->name);
    }
    s->current =
        !again || (flags & SNAPSHOT_CURRENT) || (above && strcmp(above->name, s->name) == 0);
    /* First the new one: killed in between, there are two current ones and not none. */
    bool ok = snapshot_store(d, s, error);
    Snapshot *old = find(all, s->name);
    if (old) {
        g_ptr_array_remove(all, old);
    }
    ok = ok && (!s->current || make_current(d, all, NULL, error));
    domain_count_snapshots(d);
    return ok;
}

/*
 * One of a running machine is known of before it is made: what its disks are switched to has a
 * name then, whoever dies.  machine_images_recover() forgets what was not made.
 */
static bool make_external(Domain *d, Snapshot *s, GPtrArray *all, unsigned flags, bool *kept,
                          GError **error)
{
    if (!domain_active(d) || (flags & SNAPSHOT_NO_METADATA)) {
        return snapshot_external(d, s, flags, error);
    }
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m) {
        return false;
    }
    m->images = g_ptr_array_new_with_free_func(g_free);
    remember(m, s->name);
    *kept = keep(d, s, all, flags, error);
    if (*kept && snapshot_external(d, s, flags, error)) {
        return true;
    }
    snapshot_forget(d, s->name);
    g_clear_pointer(&m->images, g_ptr_array_unref);
    remember(m, NULL);
    return false;
}

/* Whether no job of a disk would be cut off. */
static bool disks_idle(Domain *d, const Snapshot *s, GError **error)
{
    g_autoptr(Machine) m = machine_of(d, error);
    for (unsigned i = 0; m && i < xml_count(m->def->disks); i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        const struct snapshot_disk *row = snapshot_disk_of(s, disk->target);
        if (row && row->snapshot != LOCATION_NONE && !disk_idle(m, disk, error)) {
            return false;
        }
    }
    return m != NULL;
}

static bool make(Domain *d, Snapshot *s, GPtrArray *all, unsigned flags, bool *kept, GError **error)
{
    g_autoptr(DomainDef) def = domain_def_of(d, true, error);
    bool up = domain_active(d);
    if (!def) {
        return false;
    }
    if ((up && !disks_may_leave(def, error)) || !snapshot_align(s, def, up, flags, error) ||
        (up && !disks_idle(d, s, error))) {
        return false;
    }
    if (!up && d->managed_save && snapshot_is_external(s)) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "the managed save image of the domain needs its disks as they are");
        return false;
    }
    s->created = g_get_real_time() / G_USEC_PER_SEC;
    s->state = !up                          ? SNAP_SHUTOFF
               : flags & SNAPSHOT_DISK_ONLY ? SNAP_DISK
               : d->state == STATE_RUNNING  ? SNAP_RUNNING
                                            : SNAP_PAUSED;
    take_definitions(d, s, def, up);
    if (snapshot_is_external(s)) {
        return make_external(d, s, all, flags, kept, error);
    }
    if (!up) {
        return on_images(def, "-c", s, error);
    }
    g_autoptr(Machine) m = machine_of(d, error);
    if (!m) {
        return false;
    }
    remember(m, s->name);
    bool ok = on_machine(m, "snapshot-save", s, error);
    if (!ok) {
        remember(m, NULL);
    }
    return ok && (!(flags & SNAPSHOT_HALT) || machine_stop(d, SHUTOFF_FROM_SNAPSHOT, false, error));
}

/* What is said once more of one that was made before, here or elsewhere. */
static bool check_again(const Domain *d, const Snapshot *s, const GPtrArray *all, GError **error)
{
    const Snapshot *above = s, *was = find(all, s->name);
    if (!s->state || s->created == XML_ABSENT) {
        libvirt_error(error, ERR_XML, "missing %s from existing snapshot",
                      s->state ? "creationTime" : "state");
        return false;
    }
    char uuid[UUID_TEXT];
    uuid_text(d->uuid, uuid);
    if (s->def && g_strcmp0(s->def->uuid, uuid) != 0) {
        libvirt_error(error, ERR_INVALID_ARG, "definition for snapshot %s must use uuid %s",
                      s->name, uuid);
        return false;
    }
    if (was && (was->state == SNAP_SHUTOFF || was->state == SNAP_DISK) !=
                   (s->state == SNAP_SHUTOFF || s->state == SNAP_DISK)) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "cannot change between online and offline snapshot state in snapshot %s",
                      s->name);
        return false;
    }
    for (unsigned depth = 0; above && above->parent; depth++) {
        if (strcmp(above->parent, s->name) == 0 || depth > all->len) {
            libvirt_error(error, ERR_INVALID_ARG, "parent %s would create cycle to %s", s->parent,
                          s->name);
            return false;
        }
        const char *wanted = above->parent;
        above = find(all, wanted);
        if (!above) {
            libvirt_error(error, ERR_INVALID_ARG, "parent %s for snapshot %s not found", wanted,
                          s->name);
            return false;
        }
    }
    return true;
}

static void give(rpc_snapshot *out, const Domain *d, const char *name)
{
    out->name = g_strdup(name);
    out->dom = domain_rpc(d);
}

bool verb_domain_snapshot_create_xml(struct call *call, const rpc_domain_text_flags *args,
                                     rpc_snapshot_ret *ret, GError **error)
{
    (void)call;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Snapshot) s =
        d ? xml_read_text(&snapshot_table, args->text, "domain_snapshot", 0, error) : NULL;
    if (!s) {
        return false;
    }
    g_autoptr(GPtrArray) all = snapshots_load(d);
    if (!s->name) {
        s->name = g_strdup_printf("%ld", (long)(g_get_real_time() / G_USEC_PER_SEC));
    }
    bool again = args->flags & SNAPSHOT_REDEFINE, kept = args->flags & SNAPSHOT_NO_METADATA;
    if (!check_new(d, s, all, args->flags, error) ||
        !(again ? check_again(d, s, all, error) : make(d, s, all, args->flags, &kept, error))) {
        return false;
    }
    give(&ret->snap, d, s->name);
    bool ok = kept || keep(d, s, all, args->flags, error);
    if (d->machine && d->machine->snapshot) {
        remember(d->machine, NULL);
    }
    return ok;
}

/* --- going back --- */

/* Whether a machine of @a could take what one of @b has saved, and is defined like it. */
static bool same_machine(const DomainDef *a, const DomainDef *b)
{
    g_autofree char *one = xml_write_text(&domain_table, a, 0);
    g_autofree char *other = xml_write_text(&domain_table, b, 0);
    return strcmp(one, other) == 0;
}

/* What @s knows of the domain's definition; NULL: it came from elsewhere and knows nothing. */
static const DomainDef *config_of(const Snapshot *s)
{
    return s->inactive ? s->inactive : s->def;
}

static bool restore_config(Domain *d, const Snapshot *s, GError **error)
{
    const DomainDef *config = config_of(s);
    return !config || !d->persistent || domain_save_config(d, config, error);
}

/* Firmware gets its variables when a machine starts. */
static bool may_be_reset(const Domain *d, const Snapshot *s, unsigned flags, GError **error)
{
    bool up = s->state == SNAP_RUNNING || s->state == SNAP_PAUSED ||
              (flags & (REVERT_RUNNING | REVERT_PAUSED));
    if (!(flags & REVERT_RESET_NVRAM)) {
        return true;
    }
    if (!up) {
        libvirt_error(error, ERR_OPERATION_INVALID,
                      "NVRAM is reset by a start: ask for the domain to run or to be paused");
        return false;
    }
    if (!d->persistent) { /* it would end before it could start */
        libvirt_error(error, ERR_OPERATION_INVALID, "cannot reset NVRAM of a transient domain");
        return false;
    }
    return true;
}

/*
 * The machine's memory too; one that was not there is there only if it has that.  One that has
 * become another machine since, or is to get fresh firmware variables, is started anew.
 */
static bool load(Domain *d, const Snapshot *s, DomainDef *def, bool run, unsigned flags,
                 GError **error)
{
    bool fresh = flags & REVERT_RESET_NVRAM;
    const struct machine_start how = {.flags = START_PAUSED | (fresh ? START_RESET_NVRAM : 0),
                                      .incoming_fd = -1,
                                      .event_detail = 3,
                                      .running_reason = RUNNING_FROM_SNAPSHOT};
    if (domain_active(d) && d->persistent &&
        (fresh || (s->def && !same_machine(d->machine->def, s->def))) &&
        !machine_stop(d, SHUTOFF_FROM_SNAPSHOT, false, error)) {
        return false;
    }
    bool starts = !domain_active(d);
    if (starts && !machine_start(d, s->def ? s->def : def, &how, error)) {
        return false;
    }
    g_autoptr(Machine) m = machine_of(d, error);
    bool ok = m && in_all_disks(m, s, error) &&
              (d->state != STATE_RUNNING || machine_pause(d, PAUSED_FROM_SNAPSHOT, error)) &&
              on_machine(m, "snapshot-load", s, error) && restore_config(d, s, error) &&
              (!run || machine_resume(d, RUNNING_FROM_SNAPSHOT, error));
    if (!ok && starts && domain_active(d)) {
        machine_stop(d, SHUTOFF_FAILED, false, NULL);
    }
    return ok;
}

static bool revert_to(Domain *d, const GPtrArray *all, Snapshot *s, unsigned flags, GError **error)
{
    bool run = flags & REVERT_RUNNING  ? true
               : flags & REVERT_PAUSED ? false
                                       : s->state == SNAP_RUNNING;
    if (!may_be_reset(d, s, flags, error)) {
        return false;
    }
    if (snapshot_is_external(s)) {
        return snapshot_revert_external(d, s, flags, error);
    }
    g_autoptr(DomainDef) def = domain_config(d, error);
    if (!def || !snapshot_may_write(d, all, s, s->def ? s->def : def, error)) {
        return false;
    }
    if (s->state == SNAP_SHUTOFF) {
        if (domain_active(d) && !machine_stop(d, SHUTOFF_FROM_SNAPSHOT, false, error)) {
            return false;
        }
        unsigned fresh = flags & REVERT_RESET_NVRAM ? START_RESET_NVRAM : 0;
        const struct machine_start how = {.flags = fresh | (run ? 0 : START_PAUSED),
                                          .incoming_fd = -1,
                                          .event_detail = 3,
                                          .running_reason = RUNNING_FROM_SNAPSHOT};
        const DomainDef *then = config_of(s) ? config_of(s) : def;
        return on_images(then, "-a", s, error) && restore_config(d, s, error) &&
               (!(flags & 3) || machine_start(d, then, &how, error));
    }
    return load(d, s, def, run, flags, error);
}

/* A managed save image is of disks that are no more after that: it waits beside its place until all
 * is done, and goes or comes back. */
static bool revert_saved(Domain *d, const GPtrArray *all, Snapshot *s, unsigned flags,
                         GError **error)
{
    if (!d->managed_save) {
        return revert_to(d, all, s, flags, error);
    }
    g_autofree char *saved = domain_managed_save_path(d);
    g_autofree char *aside = g_strconcat(saved, ".reverting", NULL);
    if (s->state != SNAP_RUNNING && s->state != SNAP_PAUSED && !(flags & REVERT_FORCE)) {
        libvirt_error(error, ERR_SNAPSHOT_REVERT_RISKY,
                      "snapshot without memory state, removal of existing managed saved state "
                      "strongly recommended to avoid corruption");
        return false;
    }
    if (rename(saved, aside) != 0) {
        path_error(error, ERR_SYSTEM, "failed to move aside", saved);
        return false;
    }
    d->managed_save = false;
    bool ok = revert_to(d, all, s, flags, error);
    if (ok) {
        unlink(aside);
    } else {
        d->managed_save = rename(aside, saved) == 0;
    }
    return ok;
}

bool verb_domain_revert_to_snapshot(struct call *call, const rpc_snapshot_flags *args,
                                    rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->snap.dom, error);
    if (!d) {
        return false;
    }
    g_autoptr(GPtrArray) all = snapshots_load(d);
    g_autoptr(GPtrArray) candidates = snapshot_candidates(all); /* as they were before */
    Snapshot *s = need(all, args->snap.name, error);
    if (!s || !revert_saved(d, all, s, args->flags, error) ||
        !make_current(d, all, s->name, error)) {
        return false;
    }
    if (snapshot_is_external(s)) {
        snapshot_clean(d, candidates);
    }
    return true;
}

/* --- deleting --- */

enum { DELETE_CHILDREN = 1, DELETE_METADATA = 2, DELETE_CHILDREN_ONLY = 4 };

static bool delete_one(Domain *d, GPtrArray *all, const Snapshot *s, unsigned flags, GError **error)
{
    bool external = !(flags & DELETE_METADATA) && snapshot_is_external(s);
    g_autoptr(GPtrArray) candidates = external ? snapshot_candidates(all) : NULL;
    if (external) {
        if (!snapshot_delete_external(d, all, s, error)) {
            return false;
        }
    } else if (!(flags & DELETE_METADATA)) {
        g_autoptr(DomainDef) def = domain_def_of(d, true, error);
        g_autoptr(Machine) m = def && domain_active(d) ? machine_of(d, error) : NULL;
        if (!def ||
            !(m ? on_machine(m, "snapshot-delete", s, error) : on_images(def, "-d", s, error))) {
            return false;
        }
    }
    for (unsigned i = 0; i < all->len; i++) { /* its children go up to its parent */
        Snapshot *child = all->pdata[i];
        if (g_strcmp0(child->parent, s->name) == 0) {
            g_free(child->parent);
            child->parent = g_strdup(s->parent);
            if (!snapshot_store(d, child, error)) {
                return false;
            }
        }
    }
    if (s->current == 1 && s->parent && !make_current(d, all, s->parent, error)) {
        return false;
    }
    forget(d, s->name);
    if (external) {
        snapshot_clean(d, candidates);
    }
    return true;
}

/* Deletes what is below @name, deepest first. */
static bool delete_below(Domain *d, const char *name, unsigned flags, GError **error)
{
    for (;;) {
        g_autoptr(GPtrArray) all = snapshots_load(d);
        const Snapshot *child = NULL;
        for (unsigned i = 0; i < all->len && !child; i++) {
            Snapshot *s = all->pdata[i];
            child = g_strcmp0(s->parent, name) == 0 ? s : NULL;
        }
        if (!child) {
            return true;
        }
        if (!delete_below(d, child->name, flags, error) ||
            !delete_one(d, all, child, flags, error)) {
            return false;
        }
    }
}

bool verb_domain_snapshot_delete(struct call *call, const rpc_snapshot_flags *args, rpc_none *ret,
                                 GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->snap.dom, error);
    if (!d) {
        return false;
    }
    if ((args->flags & (DELETE_CHILDREN | DELETE_CHILDREN_ONLY)) &&
        !delete_below(d, args->snap.name, args->flags, error)) {
        return false;
    }
    g_autoptr(GPtrArray) all = snapshots_load(d);
    const Snapshot *s = need(all, args->snap.name, error);
    return s && ((args->flags & DELETE_CHILDREN_ONLY) || delete_one(d, all, s, args->flags, error));
}

/* --- questions --- */

enum {
    LIST_ROOTS_OR_DESCENDANTS = 1,
    LIST_METADATA = 2,
    LIST_LEAVES = 4,
    LIST_NO_LEAVES = 8,
    LIST_NO_METADATA = 16,
    LIST_INACTIVE = 32,
    LIST_ACTIVE = 64,
    LIST_DISK_ONLY = 128,
    LIST_INTERNAL = 256,
    LIST_EXTERNAL = 512,
    LIST_TOPOLOGICAL = 1024,
};

/* Of each pair or triple of flags those that are given choose; none chooses all. */
static bool chosen(const GPtrArray *all, const Snapshot *s, unsigned flags)
{
    bool leaf = true;
    for (unsigned i = 0; i < all->len; i++) {
        leaf &= g_strcmp0(((const Snapshot *)all->pdata[i])->parent, s->name) != 0;
    }
    const struct {
        unsigned group, is;
    } groups[] = {
        {LIST_LEAVES | LIST_NO_LEAVES, leaf ? LIST_LEAVES : LIST_NO_LEAVES},
        {LIST_METADATA | LIST_NO_METADATA, LIST_METADATA},
        {LIST_INACTIVE | LIST_ACTIVE | LIST_DISK_ONLY, s->state == SNAP_SHUTOFF ? LIST_INACTIVE
                                                       : s->state == SNAP_DISK  ? LIST_DISK_ONLY
                                                                                : LIST_ACTIVE},
        {LIST_INTERNAL | LIST_EXTERNAL, snapshot_is_external(s) ? LIST_EXTERNAL : LIST_INTERNAL},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(groups); i++) {
        if ((flags & groups[i].group) && !(flags & groups[i].is)) {
            return false;
        }
    }
    return true;
}

static unsigned depth_of(const GPtrArray *all, const Snapshot *s)
{
    unsigned depth = 0;
    while ((s = find(all, s->parent)) && depth < all->len) {
        depth++;
    }
    return depth;
}

/* Whether @s is below @top: directly, or however deep with @deep; @top NULL: has no parent. */
static bool is_below(const GPtrArray *all, const Snapshot *s, const char *top, bool deep)
{
    for (unsigned depth = 0; depth <= all->len; depth++) {
        if (g_strcmp0(s->parent, top) == 0) {
            return true;
        }
        s = deep ? find(all, s->parent) : NULL;
        if (!s) {
            return false;
        }
    }
    return false;
}

/* Names of the snapshots of @d, all or those below @top. */
static GPtrArray *names_of(const Domain *d, const char *top, unsigned flags)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) all = snapshots_load(d);
    bool first = flags & LIST_ROOTS_OR_DESCENDANTS;
    unsigned steps = flags & LIST_TOPOLOGICAL ? all->len : 1;
    for (unsigned k = 0; k < steps; k++) {
        for (unsigned i = 0; i < all->len; i++) {
            const Snapshot *s = all->pdata[i];
            if ((top ? is_below(all, s, top, first) : !first || !s->parent) &&
                chosen(all, s, flags) && (steps == 1 || depth_of(all, s) == k)) {
                g_ptr_array_add(names, g_strdup(s->name));
            }
        }
    }
    return names;
}

static bool list_all(const rpc_domain *named, const char *top, int need_results, unsigned flags,
                     rpc_snapshots *ret, GError **error)
{
    g_autoptr(Domain) d = domain_get(named, error);
    g_autoptr(GPtrArray) names = d ? names_of(d, top, flags) : NULL;
    if (!names) {
        return false;
    }
    ret->count = (int)names->len;
    if (need_results) {
        ret->items.items_val = g_new0(rpc_snapshot, names->len);
        ret->items.items_len = names->len;
        for (unsigned i = 0; i < names->len; i++) {
            give(&ret->items.items_val[i], d, names->pdata[i]);
        }
    }
    return true;
}

bool verb_domain_list_all_snapshots(struct call *call, const rpc_domain_list_args *args,
                                    rpc_snapshots *ret, GError **error)
{
    (void)call;
    return list_all(&args->dom, NULL, args->need_results, args->flags, ret, error);
}

bool verb_domain_snapshot_list_all_children(struct call *call, const rpc_snapshot_list_args *args,
                                            rpc_snapshots *ret, GError **error)
{
    (void)call;
    return list_all(&args->snap.dom, args->snap.name, args->need_results, args->flags, ret, error);
}

static bool count_names(const rpc_domain *named, const char *top, unsigned flags, rpc_int *ret,
                        GError **error)
{
    g_autoptr(Domain) d = domain_get(named, error);
    g_autoptr(GPtrArray) names = d ? names_of(d, top, flags) : NULL;
    ret->value = names ? (int)names->len : 0;
    return names != NULL;
}

bool verb_domain_snapshot_num(struct call *call, const rpc_domain_flags *args, rpc_int *ret,
                              GError **error)
{
    (void)call;
    return count_names(&args->dom, NULL, args->flags, ret, error);
}

bool verb_domain_snapshot_num_children(struct call *call, const rpc_snapshot_flags *args,
                                       rpc_int *ret, GError **error)
{
    (void)call;
    return count_names(&args->snap.dom, args->snap.name, args->flags, ret, error);
}

static bool give_names(const rpc_domain *named, const char *top, int max, unsigned flags,
                       rpc_names *ret, GError **error)
{
    g_autoptr(Domain) d = domain_get(named, error);
    g_autoptr(GPtrArray) names = d ? names_of(d, top, flags) : NULL;
    unsigned n = names ? MIN(names->len, (unsigned)MAX(max, 0)) : 0;
    ret->names.names_val = g_new0(char *, n + 1);
    ret->names.names_len = n;
    for (unsigned i = 0; i < n; i++) {
        ret->names.names_val[i] = g_strdup(names->pdata[i]);
    }
    return names != NULL;
}

bool verb_domain_snapshot_list_names(struct call *call, const rpc_domain_int_flags *args,
                                     rpc_names *ret, GError **error)
{
    (void)call;
    return give_names(&args->dom, NULL, args->value, args->flags, ret, error);
}

bool verb_domain_snapshot_list_children_names(struct call *call, const rpc_snapshot_int_flags *args,
                                              rpc_names *ret, GError **error)
{
    (void)call;
    return give_names(&args->snap.dom, args->snap.name, args->max, args->flags, ret, error);
}

bool verb_domain_snapshot_lookup_by_name(struct call *call, const rpc_domain_text_flags *args,
                                         rpc_snapshot_ret *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(GPtrArray) all = d ? snapshots_load(d) : NULL;
    if (!all || !need(all, args->text, error)) {
        return false;
    }
    give(&ret->snap, d, args->text);
    return true;
}

bool verb_domain_has_current_snapshot(struct call *call, const rpc_domain_flags *args, rpc_int *ret,
                                      GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(GPtrArray) all = d ? snapshots_load(d) : NULL;
    ret->value = all && find_current(all);
    return all != NULL;
}

bool verb_domain_snapshot_current(struct call *call, const rpc_domain_flags *args,
                                  rpc_snapshot_ret *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(GPtrArray) all = d ? snapshots_load(d) : NULL;
    const Snapshot *s = all ? find_current(all) : NULL;
    if (all && !s) {
        libvirt_error(error, ERR_NO_DOMAIN_SNAPSHOT, "the domain does not have a current snapshot");
    }
    if (!s) {
        return false;
    }
    give(&ret->snap, d, s->name);
    return true;
}

bool verb_domain_snapshot_get_parent(struct call *call, const rpc_snapshot_flags *args,
                                     rpc_snapshot_ret *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->snap.dom, error);
    g_autoptr(GPtrArray) all = d ? snapshots_load(d) : NULL;
    const Snapshot *s = all ? need(all, args->snap.name, error) : NULL;
    if (s && !s->parent) {
        libvirt_error(error, ERR_NO_DOMAIN_SNAPSHOT, "snapshot '%s' does not have a parent",
                      s->name);
    }
    if (!s || !s->parent) {
        return false;
    }
    give(&ret->snap, d, s->parent);
    return true;
}

bool verb_domain_snapshot_is_current(struct call *call, const rpc_snapshot_flags *args,
                                     rpc_int *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->snap.dom, error);
    g_autoptr(GPtrArray) all = d ? snapshots_load(d) : NULL;
    const Snapshot *s = all ? need(all, args->snap.name, error) : NULL;
    ret->value = s && s->current == 1;
    return s != NULL;
}

bool verb_domain_snapshot_has_metadata(struct call *call, const rpc_snapshot_flags *args,
                                       rpc_int *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->snap.dom, error);
    g_autoptr(GPtrArray) all = d ? snapshots_load(d) : NULL;
    ret->value = 1;
    return all && need(all, args->snap.name, error);
}

bool verb_domain_snapshot_get_xml_desc(struct call *call, const rpc_snapshot_flags *args,
                                       rpc_text *ret, GError **error)
{
    enum { XML_SECURE = 1 };
    g_autoptr(Domain) d = domain_get(&args->snap.dom, error);
    g_autoptr(GPtrArray) all = d ? snapshots_load(d) : NULL;
    Snapshot *s = all ? need(all, args->snap.name, error) : NULL;
    if (!s) {
        return false;
    }
    s->current = XML_ABSENT; /* ours alone */
    bool secret = !call_read_only(call) && (args->flags & XML_SECURE);
    ret->text = xml_write_text(&snapshot_table, s, secret ? XML_MODE_SECRET : 0);
    return true;
}
