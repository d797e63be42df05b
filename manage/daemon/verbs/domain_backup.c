/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Backups of running machines: pushed into images of the client's choice, or held still for
 * clients that pull them over NBD, what they hold back going to scratch images.  One at a time; the
 * file "backup" in the machine's folder lets another lodged go on with it.
 *
 * Spec: libvirt, "Backup XML format".
 */
#include "manage/daemon/checkpoint.h"
#include "manage/daemon/disks.h"
#include "manage/daemon/files.h"

#include "base/inet.h"
#include "base/util.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#define JOB_PREFIX "backup-"

enum { MODE_PUSH = 1, MODE_PULL };
enum { DISK_FULL = 1, DISK_INCREMENTAL };
enum { PART_NONE, PART_RUNS, PART_COMPLETE, PART_BAD, PART_GIVEN_UP };
struct place {
    char *file, *dev;
};
struct backup_disk {
    char *name, *incremental, *export_name, *export_bitmap, *format;
    enum tristate wanted;
    int type, mode;
    struct place *target, *scratch;
    /* From here on ours. */
    int64_t index, made, bitmap; /* of the node; the file is ours; a bitmap was made */
    int state;
};
struct backup {
    int mode, transport;
    int64_t id;
    char *incremental, *host, *socket;
    int64_t port;
    enum tristate tls;
    GPtrArray *disks;
    int64_t since, ending; /* monotonic, us */
};

static XML_WORDS(mode_words, "push", "pull");
static XML_WORDS(disk_mode_words, "full", "incremental");
static XML_WORDS(transport_words, "tcp", "unix");

static XML_WORDS(state_words, "running", "complete", "failed", "cancelled");
static const struct xml_row place_rows[] = {
    XML_TEXT(struct place, file, "@file", 0),
    XML_TEXT(struct place, dev, "@dev", 0),
};
static const struct xml_table target_table = XML_TABLE("target", struct place, place_rows);
static const struct xml_table scratch_table = XML_TABLE("scratch", struct place, place_rows);
#define D struct backup_disk
static const struct xml_row disk_rows[] = {
    XML_TEXT(D, name, "@name", XML_REQUIRED),
    XML_YESNO(D, wanted, "@backup", 0),
    XML_ENUM(D, type, "@type", disk_type_words, 0),
    XML_ENUM(D, mode, "@backupmode", disk_mode_words, 0),
    XML_TEXT(D, incremental, "@incremental", 0),
    XML_TEXT(D, export_name, "@exportname", 0),
    XML_TEXT(D, export_bitmap, "@exportbitmap", 0),
    XML_INT(D, index, "@index", XML_LIVE),
    XML_ENUM(D, state, "@state", state_words, XML_LIVE),
    XML_INT(D, made, "@made", XML_LIVE),
    XML_INT(D, bitmap, "@bitmap", XML_LIVE),
    XML_TEXT(D, format, "driver/@type", 0),
    XML_STRUCT(D, target, "target", &target_table, 0),
    XML_STRUCT(D, scratch, "scratch", &scratch_table, 0),
};
#undef D
static const struct xml_table disk_row_table = XML_TABLE("disk", struct backup_disk, disk_rows);
#define B struct backup
static const struct xml_row rows[] = {
    XML_ENUM(B, mode, "@mode", mode_words, 0),
    XML_INT(B, id, "@id", 0),
    XML_TEXT(B, incremental, "incremental", 0),
    XML_ENUM(B, transport, "server/@transport", transport_words, 0),
    XML_YESNO(B, tls, "server/@tls", 0),
    XML_TEXT(B, host, "server/@name", 0),
    XML_INT(B, port, "server/@port", 0),
    XML_TEXT(B, socket, "server/@socket", 0),
    XML_LIST(B, disks, "disks/disk", &disk_row_table, 0),
};
#undef B
static const struct xml_table backup_table = XML_TABLE("domainbackup", struct backup, rows);

void backup_free(struct backup *b)
{
    xml_free(&backup_table, b);
}

static struct backup_disk *row_of(const struct backup *b, const char *target)
{
    for (unsigned i = 0; i < xml_count(b->disks); i++) {
        struct backup_disk *row = b->disks->pdata[i];
        if (g_strcmp0(row->name, target) == 0) {
            return row;
        }
    }
    return NULL;
}

static struct place *place_of(const struct backup *b, const struct backup_disk *row)
{
    return b->mode == MODE_PULL ? row->scratch : row->target;
}

static const char *path_of(const struct backup *b, const struct backup_disk *row)
{
    const struct place *p = place_of(b, row);
    return !p ? NULL : p->file ? p->file : p->dev;
}

static char *node_of(const struct backup_disk *row)
{
    return g_strdup_printf("libvirt-%ld-format", (long)row->index);
}

static char *job_of(const struct backup_disk *row)
{
    return g_strconcat(JOB_PREFIX, row->name, NULL);
}

/* --- the note for another lodged --- */

static char *note_path(const struct machine *m)
{
    return g_build_filename(m->folder, "backup", NULL);
}

static void note(const struct machine *m)
{
    g_autofree char *path = note_path(m);
    g_autofree char *text = xml_write_text(&backup_table, m->backup, XML_MODE_LIVE);
    g_autoptr(GError) error = NULL;
    if (!daemon_note_file(path, text, &error)) {
        daemon_log("%s: %s", m->domain->name, error->message);
    }
}

/* --- what is to be done --- */

static bool name_rows(struct backup *b, const DomainDef *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(b->disks); i++) {
        struct backup_disk *row = b->disks->pdata[i];
        const struct domain_disk *disk = domain_find_disk((DomainDef *)(uintptr_t)def, row->name);
        const struct backup_disk *first = disk ? row_of(b, disk->target) : NULL;
        if (!disk || (first && first != row)) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          disk ? "disk '%s' specified twice" : "no disk named '%s'", row->name);
            return false;
        }
        if (row->target && b->mode == MODE_PULL) {
            libvirt_error(error, ERR_XML, "disk '%s': <target> is of a push backup", row->name);
            return false;
        }
        if (row->scratch && b->mode == MODE_PUSH) {
            libvirt_error(error, ERR_XML, "disk '%s': <scratch> is of a pull backup", row->name);
            return false;
        }
        g_free(row->name);
        row->name = g_strdup(disk->target);
        row->index = XML_ABSENT;
    }
    return true;
}

static bool choose_place(const struct backup *b, struct backup_disk *row,
                         const struct domain_disk *disk, const char *suffix, GError **error)
{
    struct place **at = b->mode == MODE_PULL ? &row->scratch : &row->target;
    const char *path = path_of(b, row);
    if (!path && (disk->type != DISK_FILE || !disk_path(disk))) {
        libvirt_error(error, ERR_INVALID_ARG,
                      "refusing to generate file name for disk '%s', which is no file", row->name);
        return false;
    }
    if (!path) {
        *at = *at ? *at : xml_new(b->mode == MODE_PULL ? &scratch_table : &target_table);
        (*at)->file = g_strconcat(disk_path(disk), ".", suffix, NULL);
        path = (*at)->file;
    }
    row->type = (*at)->file ? DISK_FILE : DISK_BLOCK;
    row->format = row->format ? row->format : g_strdup("qcow2");
    if (b->mode == MODE_PULL && strcmp(row->format, "qcow2") != 0) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "scratch image of disk '%s' must have the format qcow2", row->name);
        return false;
    }
    if (path[0] != '/') {
        libvirt_error(error, ERR_XML, "path '%s' is not absolute", path);
        return false;
    }
    return true;
}

static bool choose_bitmap(const Domain *d, const struct backup *b, struct backup_disk *row,
                          GError **error)
{
    if (!row->incremental && b->incremental && row->mode != DISK_FULL) {
        row->incremental = g_strdup(b->incremental);
    }
    if (row->mode == DISK_INCREMENTAL && !row->incremental) {
        libvirt_error(error, ERR_XML, "disk '%s': an incremental backup needs a checkpoint",
                      row->name);
        return false;
    }
    if (row->mode == DISK_FULL && row->incremental) {
        libvirt_error(error, ERR_XML, "disk '%s': a full backup takes no checkpoint", row->name);
        return false;
    }
    row->mode = row->incremental ? DISK_INCREMENTAL : DISK_FULL;
    g_autofree char *bitmap =
        row->incremental ? checkpoint_bitmap(d, row->incremental, row->name, error) : NULL;
    if (row->incremental && !bitmap) {
        return false;
    }
    if (b->mode == MODE_PULL) {
        row->export_name = row->export_name ? row->export_name : g_strdup(row->name);
    }
    if (row->incremental && !row->export_bitmap) {
        row->export_bitmap = g_strconcat(JOB_PREFIX, row->name, NULL);
    }
    return true;
}

static bool check_server(struct backup *b, const struct machine *m, GError **error)
{
    bool said = b->transport || b->host || b->socket || b->port != XML_ABSENT || b->tls;
    if (b->mode == MODE_PUSH) {
        if (said) {
            libvirt_error(error, ERR_XML, "use of <server> requires pull mode backup");
        }
        return !said;
    }
    if (b->tls == TRI_YES) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "server/@tls is not supported by lodged yet");
        return false;
    }
    b->transport = b->transport ? b->transport : TRANSPORT_TCP;
    if (b->transport == TRANSPORT_UNIX) {
        b->socket = b->socket ? b->socket : g_build_filename(m->folder, "nbd", NULL);
        if (b->socket[0] != '/') {
            libvirt_error(error, ERR_XML, "backup socket path '%s' must be absolute", b->socket);
            return false;
        }
        return true;
    }
    b->host = b->host ? b->host : g_strdup("localhost");
    b->port = b->port == XML_ABSENT ? 10809 : b->port;
    if (b->port < 1 || b->port > 65535) {
        libvirt_error(error, ERR_XML, "invalid port %ld", (long)b->port);
        return false;
    }
    return true;
}

static bool align(const Domain *d, struct machine *m, struct backup *b, GError **error)
{
    bool said = xml_count(b->disks), any = false;
    g_autofree char *suffix =
        b->incremental ? g_strdup(b->incremental)
                       : g_strdup_printf("%ld", (long)(g_get_real_time() / G_USEC_PER_SEC));
    b->mode = b->mode ? b->mode : MODE_PUSH;
    if (!check_server(b, m, error) || !name_rows(b, m->def, error)) {
        return false;
    }
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        struct backup_disk *row = row_of(b, disk->target);
        g_autofree char *node = disk_node_name(disk);
        bool none = said || disk->readonly || !node || disk->device != DISK_DEVICE_DISK;
        if (!row) {
            row = xml_new(&disk_row_table);
            row->name = g_strdup(disk->target);
            row->wanted = none ? TRI_NO : TRI_YES;
            xml_append(&disk_row_table, &b->disks, row);
        }
        row->wanted = row->wanted ? row->wanted : TRI_YES;
        if (row->wanted == TRI_NO) {
            continue;
        }
        if (!node) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "disk '%s' has no image to back up",
                          row->name);
            return false;
        }
        if (!choose_bitmap(d, b, row, error) || !choose_place(b, row, disk, suffix, error)) {
            return false;
        }
        any = true;
    }
    if (!any) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "no disks selected for backup");
    }
    return any;
}

/* --- beginning --- */

enum { BACKUP_REUSE = 1 };

/* The image is there exactly if it is to be reused. */
static bool make_image(struct machine *m, struct backup_disk *row, unsigned flags, GError **error)
{
    g_autofree char *path = g_strdup(path_of(m->backup, row));
    const struct domain_disk *disk = domain_find_disk(m->def, row->name);
    g_autofree char *alias = g_strdup(disk->alias);
    bool reuse = flags & BACKUP_REUSE;
    struct stat st = {0};
    if (!file_answers(path, &st, error)) {
        return false;
    }
    bool there = st.st_nlink, device = there && S_ISBLK(st.st_mode);
    if (reuse ? !there : there && !device && st.st_size) {
        libvirt_error(error, reuse ? ERR_SYSTEM : ERR_CONFIG_UNSUPPORTED,
                      reuse ? "missing existing file for disk %s: %s"
                            : "external backup file for disk %s already exists: %s",
                      row->name, path);
        return false;
    }
    uint64_t size = disk_size(m, alias, error);
    if (!size || (!reuse && !disk_create_image(path, row->format, size, NULL, NULL, error))) {
        return false;
    }
    row->made = reuse || device ? 0 : 1;
    if (!disk_lend(m, path, error)) {
        return false;
    }
    disk = machine_disk(m, alias);
    int64_t index = disk ? disk_add_node(m, disk, path, row->format, true, error) : -1;
    row->index = index < 0 ? XML_ABSENT : index;
    return index >= 0;
}

static bool add_bitmap(struct machine *m, struct backup_disk *row, json_t *actions, GError **error)
{
    const struct domain_disk *disk = domain_find_disk(m->def, row->name);
    g_autofree char *node = disk ? disk_node_name(disk) : NULL;
    g_autofree char *bitmap = checkpoint_bitmap(m->domain, row->incremental, row->name, error);
    if (!node || !bitmap) {
        return false;
    }
    json_array_append_new(actions, json_pack("{s:s, s:{s:s, s:s, s:b}}", "type",
                                             "block-dirty-bitmap-add", "data", "node", node, "name",
                                             row->export_bitmap, "disabled", 1));
    row->bitmap = 1;
    return checkpoint_merge(m, disk, bitmap, row->export_bitmap, actions, error);
}

static void add_job(const struct machine *m, const struct backup_disk *row, json_t *actions)
{
    const struct domain_disk *disk = domain_find_disk(m->def, row->name);
    g_autofree char *node = disk_node_name(disk), *target = node_of(row), *id = job_of(row);
    bool pull = m->backup->mode == MODE_PULL;
    json_t *data = json_pack("{s:s, s:s, s:s, s:s, s:b}", "device", node, "target", target,
                             "job-id", id, "sync",
                             pull               ? "none"
                             : row->incremental ? "incremental"
                                                : "full",
                             "auto-dismiss", 0);
    if (!pull && row->incremental) {
        json_object_set_new(data, "bitmap", json_string(row->export_bitmap));
    }
    json_array_append_new(actions,
                          json_pack("{s:s, s:o}", "type", "blockdev-backup", "data", data));
}

static json_t *all_actions(struct machine *m, const Checkpoint *c, GError **error)
{
    g_autoptr(json_t) actions = json_array();
    struct backup *b = m->backup;
    for (unsigned i = 0; i < xml_count(b->disks); i++) {
        struct backup_disk *row = b->disks->pdata[i];
        if (row->wanted == TRI_YES && row->incremental && !add_bitmap(m, row, actions, error)) {
            return NULL;
        }
    }
    if (c && !checkpoint_actions(m, c, actions, error)) {
        return NULL;
    }
    for (unsigned i = 0; i < xml_count(b->disks); i++) {
        const struct backup_disk *row = b->disks->pdata[i];
        if (row->wanted == TRI_YES && !domain_find_disk(m->def, row->name)) {
            libvirt_error(error, ERR_OPERATION_INVALID, "disk '%s' has gone", row->name);
            return NULL;
        }
        if (row->wanted == TRI_YES) {
            add_job(m, row, actions);
        }
    }
    return json_incref(actions);
}

static int open_door(const struct backup *b, GError **error)
{
    g_autofree char *host = g_strdup(b->host), *path = g_strdup(b->socket);
    bool local = b->transport == TRANSPORT_UNIX;
    unsigned port = (unsigned)b->port;
    daemon_unlock(); /* names may take long */
    if (local) {
        unix_forget(path);
    }
    int fd = local ? socket_listen_unix(path) : socket_listen_tcp(host, port), code = errno;
    daemon_lock();
    if (fd < 0) {
        libvirt_error(error, ERR_SYSTEM, "cannot listen for the backup at %s: %s",
                      local ? path : host, g_strerror(code));
    }
    return fd;
}

static bool serve(struct machine *m, GError **error)
{
    struct backup *b = m->backup;
    autofd int fd = open_door(b, error);
    if (fd < 0 || !qmp_give_fd(m->qmp, fd, "backup", error) ||
        !qmp_do(m->qmp, error, "nbd-server-start", "{s:{s:s, s:{s:s}}}", "addr", "type", "fd",
                "data", "str", "backup")) {
        return false;
    }
    for (unsigned i = 0; i < xml_count(b->disks); i++) {
        const struct backup_disk *row = b->disks->pdata[i];
        g_autofree char *node = node_of(row), *id = job_of(row);
        json_t *bitmaps = json_array();
        if (row->incremental) {
            json_array_append_new(bitmaps, json_string(row->export_bitmap));
        }
        if (row->wanted != TRI_YES) {
            json_decref(bitmaps);
        } else if (!qmp_do(m->qmp, error, "block-export-add", "{s:s, s:s, s:s, s:s, s:o}", "type",
                           "nbd", "id", id, "node-name", node, "name", row->export_name, "bitmaps",
                           bitmaps)) {
            return false;
        }
    }
    return true;
}

/* --- the end --- */

/* Removes what is left of it in the machine and on the disk. */
static void clean(struct machine *m)
{
    struct backup *b = m->backup;
    g_autofree char *file = note_path(m);
    if (b->mode == MODE_PULL && !m->ended) {
        qmp_do(m->qmp, NULL, "nbd-server-stop", NULL);
    }
    if (b->socket) {
        path_unlink(b->socket);
    }
    for (unsigned i = 0; i < xml_count(b->disks); i++) {
        struct backup_disk *row = b->disks->pdata[i];
        const struct domain_disk *disk = domain_find_disk(m->def, row->name);
        g_autofree char *top = disk ? disk_node_name(disk) : NULL, *id = job_of(row);
        const char *path = path_of(b, row);
        if (row->wanted != TRI_YES || !path) {
            continue;
        }
        if (!m->ended) {
            qmp_do(m->qmp, NULL, "job-dismiss", "{s:s}", "id", id);
        }
        if (row->bitmap == 1 && top && !m->ended) {
            qmp_do(m->qmp, NULL, "block-dirty-bitmap-remove", "{s:s, s:s}", "node", top, "name",
                   row->export_bitmap);
        }
        if (row->index != XML_ABSENT && !m->ended) {
            disk_drop_node(m, row->index);
        }
        disk_return(m, path);
        if (row->made == 1 && (b->mode == MODE_PULL || row->state != PART_COMPLETE)) {
            path_unlink(path);
        }
    }
    g_unlink(file);
    g_clear_pointer(&m->backup, backup_free);
    daemon_wake();
}

static bool runs(const struct backup *b)
{
    for (unsigned i = 0; i < xml_count(b->disks); i++) {
        if (((struct backup_disk *)b->disks->pdata[i])->state == PART_RUNS) {
            return true;
        }
    }
    return false;
}

static bool any_is(const struct backup *b, int state)
{
    for (unsigned i = 0; i < xml_count(b->disks); i++) {
        if (((struct backup_disk *)b->disks->pdata[i])->state == state) {
            return true;
        }
    }
    return false;
}

static void finish(struct machine *m)
{
    struct job_figures j = {0};
    g_autoptr(Domain) d = domain_ref(m->domain);
    if (!m->backup || runs(m->backup)) {
        return;
    }
    backup_figures(m, &j);
    int type = any_is(m->backup, PART_BAD)        ? JOB_FAILED
               : any_is(m->backup, PART_GIVEN_UP) ? JOB_CANCELLED
                                                  : JOB_COMPLETED;
    if (!m->backup) {
        return; /* while figures were asked for */
    }
    clean(m);
    domain_job_over(d, &j, type);
}

/* On a worker. */
static void over(void *data)
{
    struct machine *m = data;
    daemon_lock();
    while (m->backup && !runs(m->backup)) {
        if (domain_job_begin(m->domain, NULL)) {
            finish(m);
            domain_job_end(m->domain);
        }
    }
    machine_unref(m);
    daemon_unlock();
}

/* The others have no use any more. */
static void cancel_all(struct machine *m)
{
    for (unsigned i = 0; m->backup && i < xml_count(m->backup->disks); i++) {
        const struct backup_disk *row = m->backup->disks->pdata[i];
        g_autofree char *id = job_of(row);
        if (row->state == PART_RUNS) {
            qmp_do(m->qmp, NULL, "job-cancel", "{s:s}", "id", id);
        }
    }
}

static void cancel_rest(void *data)
{
    struct machine *m = data;
    daemon_lock();
    cancel_all(m);
    machine_unref(m);
    daemon_unlock();
}

bool backup_event(struct machine *m, const char *id, int status)
{
    if (!g_str_has_prefix(id, JOB_PREFIX)) {
        return false;
    }
    struct backup_disk *row = m->backup ? row_of(m->backup, id + strlen(JOB_PREFIX)) : NULL;
    if (row && row->state == PART_RUNS) {
        row->state = status == BLOCK_JOB_COMPLETED  ? PART_COMPLETE
                     : status == BLOCK_JOB_CANCELED ? PART_GIVEN_UP
                                                    : PART_BAD;
        note(m);
        if (!runs(m->backup)) {
            daemon_worker(over, machine_ref(m));
        } else if (row->state == PART_BAD) {
            daemon_worker(cancel_rest, machine_ref(m));
        }
    }
    return true;
}

void backup_lost(struct machine *m)
{
    for (unsigned i = 0; m->backup && i < xml_count(m->backup->disks); i++) {
        struct backup_disk *row = m->backup->disks->pdata[i];
        row->state = row->state == PART_RUNS ? PART_BAD : row->state;
    }
    if (m->backup) {
        daemon_worker(over, machine_ref(m));
    }
}

/* --- after a restart of lodged --- */

static void recover_row(struct backup_disk *row, const json_t *jobs)
{
    g_autofree char *id = job_of(row);
    const json_t *found = NULL;
    size_t i;
    json_t *one;
    json_array_foreach(jobs, i, one)
    {
        if (g_strcmp0(json_string_value(json_object_get(one, "id")), id) == 0) {
            found = one;
        }
    }
    const char *status = json_string_value(json_object_get(found, "status"));
    if (!found) {
        row->state = PART_BAD;
    } else if (g_strcmp0(status, "concluded") == 0) {
        json_int_t done = json_integer_value(json_object_get(found, "current-progress"));
        bool whole = done == json_integer_value(json_object_get(found, "total-progress"));
        row->state = json_object_get(found, "error") ? PART_BAD
                     : whole                         ? PART_COMPLETE
                                                     : PART_GIVEN_UP;
    }
}

void backup_recover(struct machine *m)
{
    g_autofree char *path = note_path(m), *text = NULL;
    if (m->ended || m->backup || !g_file_get_contents(path, &text, NULL, NULL)) {
        return;
    }
    struct backup *b = xml_read_text(&backup_table, text, "backup", XML_MODE_LIVE, NULL);
    g_autoptr(json_t) jobs = b ? qmp_run(m->qmp, "query-jobs", NULL, QMP_TIMEOUT_MS, NULL) : NULL;
    if (!jobs || m->ended) {
        backup_free(b);
        return;
    }
    b->since = g_get_monotonic_time();
    m->backup = b;
    for (unsigned i = 0; i < xml_count(b->disks); i++) {
        struct backup_disk *row = b->disks->pdata[i];
        if (row->state == PART_RUNS) {
            recover_row(row, jobs);
        }
    }
    finish(m);
}

/* --- questions --- */

bool backup_reads(const struct machine *m, const char *target)
{
    for (unsigned i = 0; m->backup && i < m->backup->disks->len; i++) {
        const struct backup_disk *row = m->backup->disks->pdata[i];
        if (row->state == PART_RUNS && strcmp(row->name, target) == 0) {
            return true;
        }
    }
    return false;
}

int64_t backup_since(const struct machine *m)
{
    return m->backup ? m->backup->since : 0;
}

bool backup_figures(struct machine *m, struct job_figures *out)
{
    if (!m->backup) {
        return false;
    }
    *out = (struct job_figures){
        .type = JOB_UNBOUNDED, .operation = OPERATION_BACKUP, .since = m->backup->since};
    g_autoptr(json_t) jobs = qmp_run(m->qmp, "query-jobs", NULL, QMP_TIMEOUT_MS, NULL);
    size_t i;
    json_t *one;
    json_array_foreach(jobs, i, one)
    {
        const char *id = json_string_value(json_object_get(one, "id"));
        if (id && g_str_has_prefix(id, JOB_PREFIX)) {
            out->total += (uint64_t)json_integer_value(json_object_get(one, "total-progress"));
            out->processed +=
                (uint64_t)json_integer_value(json_object_get(one, "current-progress"));
        }
    }
    out->remaining = out->total - MIN(out->processed, out->total);
    return true;
}

bool backup_abort(struct machine *m, GError **error)
{
    (void)error;
    cancel_all(m);
    return true;
}

bool verb_domain_backup_get_xml_desc(struct call *call, const rpc_domain_flags *args, rpc_text *ret,
                                     GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    if (!d) {
        return false;
    }
    g_autoptr(Machine) m = d->machine ? machine_ref(d->machine) : NULL;
    if (m && !machine_await_recovery(m, error)) {
        return false;
    }
    if (!m || !m->backup) {
        libvirt_error(error, ERR_NO_DOMAIN_BACKUP, "no domain backup job present");
        return false;
    }
    ret->text = xml_write_text(&backup_table, m->backup, 0);
    return true;
}

/* --- the verb --- */

static bool begin(struct machine *m, const Checkpoint *c, unsigned flags, GError **error)
{
    struct backup *b = m->backup;
    for (unsigned i = 0; i < xml_count(b->disks); i++) {
        struct backup_disk *row = b->disks->pdata[i];
        if (row->wanted == TRI_YES && !make_image(m, row, flags, error)) {
            return false;
        }
    }
    json_t *actions = all_actions(m, c, error);
    if (!actions) {
        return false;
    }
    for (unsigned i = 0; i < xml_count(b->disks); i++) {
        struct backup_disk *row = b->disks->pdata[i];
        row->state = row->wanted == TRI_YES ? PART_RUNS : PART_NONE;
    }
    note(m);
    if (!qmp_do(m->qmp, error, "transaction", "{s:o}", "actions", actions)) {
        for (unsigned i = 0; i < xml_count(b->disks); i++) {
            ((struct backup_disk *)b->disks->pdata[i])->state = PART_NONE;
        }
        return false;
    }
    return true;
}

/* The jobs run, but nobody can fetch anything: they end, and with them the backup. */
static bool begin_serving(struct machine *m, GError **error)
{
    if (m->backup->mode == MODE_PUSH || serve(m, error)) {
        return true;
    }
    cancel_all(m);
    return false;
}

bool verb_domain_backup_begin(struct call *call, const rpc_backup_args *args, rpc_none *ret,
                              GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    g_autoptr(Checkpoint) c = NULL;
    if (!m) {
        return false;
    }
    if (m->backup || m->job.type != JOB_NONE || d->moving) {
        libvirt_error(error, ERR_OPERATION_INVALID, "another job is running for the domain");
        return false;
    }
    if (args->checkpoint && (!(c = checkpoint_parse(*args->checkpoint, error)) ||
                             !checkpoint_align(d, c, m->def, error))) {
        return false;
    }
    struct backup *b = xml_read_text(&backup_table, args->xml, "domain_backup", 0, error);
    if (!b || !align(d, m, b, error)) {
        backup_free(b);
        return false;
    }
    b->since = g_get_monotonic_time();
    m->backup = b;
    if (!begin(m, c, args->flags, error)) {
        clean(m);
        return false;
    }
    return begin_serving(m, error) && (!c || checkpoint_keep(d, c, error));
}
