/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/disks.h"

#include "manage/daemon/checkpoint.h"
#include "manage/daemon/files.h"
#include "manage/daemon/run.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { IMAGE_SECONDS = 600, JOB_HOURS = 24 };
#define JOB_PREFIX "job-"

struct domain_disk *machine_disk(const struct machine *m, const char *alias)
{
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        struct domain_disk *disk = m->def->disks->pdata[i];
        if (g_strcmp0(disk->alias, alias) == 0) {
            return disk;
        }
    }
    return NULL;
}

bool disks_may_leave(const DomainDef *def, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        if (disk->transient) {
            libvirt_error(error, ERR_OPERATION_INVALID,
                          "what was written to transient disk '%s' cannot be saved, snapshotted or "
                          "migrated",
                          disk->target);
            return false;
        }
    }
    return true;
}

/* --- files --- */

bool disk_lend(const struct machine *m, const char *path, GError **error)
{
    if (!path || m->uid == getuid() || path_chown(path, m->uid) == 0) {
        return true;
    }
    if (errno == ETIMEDOUT) {
        path_error(error, ERR_OPERATION_FAILED, "cannot give away", path);
        return false;
    }
    daemon_log("%s: cannot be given to the machine: %s", path, g_strerror(errno));
    return true;
}

bool disk_lend_for_reading(const struct machine *m, const char *path, GError **error)
{
    struct stat st;
    if (!path) {
        return true;
    }
    return file_answers(path, &st, error) &&
           (!st.st_nlink || (st.st_mode & S_IROTH) || disk_lend(m, path, error));
}

/* Appends what the image lies over.  Of a raw one there is nothing below, whatever a guest has
 * written to it; what cannot be read is for the machine to say. */
static void add_below(GPtrArray *files, const char *path, const char *format)
{
    g_autofree char *program = daemon_program("lodge-img"), *out = NULL;
    const char *argv[] = {program,           "info",          "-U", "-f", format,
                          "--backing-chain", "--output=json", path, NULL};
    daemon_unlock();
    bool ok = run_program(argv, NULL, IMAGE_SECONDS, &out, NULL, NULL);
    daemon_lock();
    g_autoptr(json_t) chain = ok ? json_parse(out, strlen(out), NULL) : NULL;
    for (size_t i = 1; i < json_array_size(chain); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(chain, i), "filename"));
        if (name && name[0] == '/') {
            g_ptr_array_add(files, g_strdup(name));
        }
    }
}

GPtrArray *disk_lend_chain(const struct machine *m, const char *path, const char *format,
                           GError **error)
{
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);
    if (!path || m->uid == getuid()) {
        return g_steal_pointer(&files);
    }
    g_ptr_array_add(files, g_strdup(path));
    if (format && strcmp(format, "raw") != 0) {
        g_autofree char *own = g_strdup(format); /* it may change without the lock */
        add_below(files, files->pdata[0], own);
    }
    for (unsigned i = 0; i < files->len; i++) {
        if (!(i ? disk_lend_for_reading : disk_lend)(m, files->pdata[i], error)) {
            disk_give_back_all(m, files);
            return NULL;
        }
    }
    return g_steal_pointer(&files);
}

void disk_give_back_all(const struct machine *m, const GPtrArray *files)
{
    for (unsigned i = 0; files && i < files->len; i++) {
        disk_give_back(m, files->pdata[i]);
    }
}

void disk_return(const struct machine *m, const char *path)
{
    if (path && m->uid != getuid() && path_take_back(path, m->uid) != 0 && errno != ENOENT) {
        daemon_log("%s: %s", path, g_strerror(errno));
    }
}

static const char *path_of(const struct disk_source *s)
{
    return !s ? NULL : s->file ? s->file : s->dev;
}

void disks_return(const struct machine *m)
{
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        disk_return(m, disk_path(disk));
        disk_return(m, disk->mirror ? path_of(disk->mirror->source) : NULL);
        for (const struct disk_backing *b = disk->backing; b; b = b->backing) {
            disk_return(m, path_of(b->source));
        }
    }
}

static bool uses(const struct domain_disk *disk, const char *path)
{
    bool found = g_strcmp0(disk_path(disk), path) == 0 ||
                 (disk->mirror && g_strcmp0(path_of(disk->mirror->source), path) == 0);
    for (const struct disk_backing *b = disk->backing; b && !found; b = b->backing) {
        found = g_strcmp0(path_of(b->source), path) == 0;
    }
    return found;
}

void disk_give_back(const struct machine *m, const char *path)
{
    for (unsigned i = 0; path && i < xml_count(m->def->disks); i++) {
        if (uses(m->def->disks->pdata[i], path)) {
            return;
        }
    }
    disk_return(m, path);
}

bool disk_create_image(const char *path, const char *format, uint64_t size, const char *backing,
                       const char *backing_format, GError **error)
{
    g_autofree char *program = daemon_program("lodge-img");
    g_autofree char *bytes = g_strdup_printf("%" G_GUINT64_FORMAT, size);
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    const char *const words[] = {program, "create", "-q", "-f", format};
    const char *const over[] = {"-b", backing, "-F", backing_format, size ? "-u" : "-q"};
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        g_ptr_array_add(argv, (char *)(uintptr_t)words[i]);
    }
    for (unsigned i = 0; backing && i < G_N_ELEMENTS(over); i++) {
        g_ptr_array_add(argv, (char *)(uintptr_t)over[i]);
    }
    g_ptr_array_add(argv, (char *)(uintptr_t)path);
    g_ptr_array_add(argv, size ? bytes : NULL);
    g_ptr_array_add(argv, NULL);
    g_autoptr(GError) why = NULL;
    struct stat st; /* a device, or an empty file: somebody else's */
    if (!file_answers(path, &st, error)) {
        return false;
    }
    bool there = st.st_nlink;
    daemon_unlock();
    bool ok = run_program((const char *const *)argv->pdata, NULL, IMAGE_SECONDS, NULL, NULL, &why);
    if (!ok && !there) {
        path_unlink(path);
    }
    daemon_lock();
    if (!ok) {
        libvirt_error(error, ERR_OPERATION_FAILED, "cannot create '%s': %s", path, why->message);
    }
    return ok;
}

/* --- chains --- */

GArray *disk_chain(const struct domain_disk *disk)
{
    GArray *chain = g_array_new(FALSE, FALSE, sizeof(struct disk_link));
    struct disk_link top = {disk_path(disk), disk->format,
                            disk->source ? disk->source->index : XML_ABSENT};
    g_array_append_val(chain, top);
    for (const struct disk_backing *b = disk->backing; b && b->source; b = b->backing) {
        struct disk_link link = {path_of(b->source), b->format, b->index};
        g_array_append_val(chain, link);
    }
    return chain;
}

int disk_chain_find(const GArray *chain, const struct domain_disk *disk, const char *name,
                    GError **error)
{
    const char *bracket = strchr(name, '[');
    long index = -1;
    bool numbered = bracket && g_str_has_prefix(name, disk->target) &&
                    (size_t)(bracket - name) == strlen(disk->target) &&
                    sscanf(bracket, "[%ld]", &index) == 1;
    for (unsigned i = 0; i < chain->len; i++) {
        const struct disk_link *link = &g_array_index(chain, struct disk_link, i);
        if (numbered ? link->index == index : g_strcmp0(link->path, name) == 0) {
            return (int)i;
        }
    }
    libvirt_error(error, ERR_INVALID_ARG, "could not find image '%s' in chain for '%s'", name,
                  disk_path(disk) ? disk_path(disk) : disk->target);
    return -1;
}

/* By its name alone: the file may lie on a server that is dead. */
static bool is_device(const char *path)
{
    return g_str_has_prefix(path, "/dev/");
}

static struct disk_source *new_source(const char *path, int *type)
{
    struct disk_source *s = xml_new(&disk_source_table);
    bool device = is_device(path);
    *type = device ? DISK_BLOCK : DISK_FILE;
    *(device ? &s->dev : &s->file) = g_strdup(path);
    return s;
}

static void set_word(char **at, const char *text)
{
    char *copy = g_strdup(text); /* @text may be *@at */
    g_free(*at);
    *at = copy;
}

void disk_set_source(struct domain_disk *disk, const char *path, const char *format, int64_t index)
{
    struct disk_source *s = new_source(path, &disk->type);
    s->index = index;
    set_word(&disk->format, format);
    xml_free(&disk_source_table, disk->source);
    disk->source = s;
}

/* "libvirt-3-format" */
static int64_t index_of(const char *node)
{
    long index;
    return node && sscanf(node, "libvirt-%ld-format", &index) == 1 ? index : XML_ABSENT;
}

/* The number that the file had in @disk so far, so that "vda[2]" goes on meaning the same. */
static int64_t old_index(const struct domain_disk *disk, const char *path)
{
    g_autoptr(GArray) chain = disk_chain(disk);
    for (unsigned i = 0; i < chain->len; i++) {
        const struct disk_link *link = &g_array_index(chain, struct disk_link, i);
        if (g_strcmp0(link->path, path) == 0) {
            return link->index;
        }
    }
    return XML_ABSENT;
}

static struct disk_backing *read_backing(struct machine *m, const struct domain_disk *disk,
                                         const json_t *image)
{
    const json_t *below = json_object_get(image, "backing-image");
    const char *path = json_string_value(json_object_get(below, "filename"));
    if (below && (!path || path[0] != '/')) {
        return NULL; /* the rest of the chain is not here */
    }
    struct disk_backing *b = xml_new(&backing_table);
    if (!below) {
        return b; /* <backingStore/>: nothing is below */
    }
    b->index = old_index(disk, path);
    b->index = b->index == XML_ABSENT ? ++m->next_node : b->index;
    b->format = g_strdup(json_string_value(json_object_get(below, "format")));
    b->source = new_source(path, &b->type);
    b->backing = read_backing(m, disk, below);
    return b;
}

static void read_disk(struct machine *m, struct domain_disk *disk, const json_t *inserted)
{
    const json_t *image = json_object_get(inserted, "image");
    const char *path = json_string_value(json_object_get(image, "filename"));
    const char *format = json_string_value(json_object_get(image, "format"));
    int64_t index = index_of(json_string_value(json_object_get(inserted, "node-name")));
    const char *now = disk_path(disk);
    if (!disk->source || disk->source->protocol || !path || !format) {
        return;
    }
    struct disk_backing *backing = read_backing(m, disk, image);
    if (now && path[0] == '/' && strcmp(now, path) != 0) {
        disk_set_source(disk, path, format, index);
    } else if (index != XML_ABSENT) {
        disk->source->index = index;
    }
    xml_free(&backing_table, disk->backing);
    disk->backing = backing;
}

/* What query-block says of the disk. */
static const json_t *row_of(const json_t *rows, const char *alias)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *device = json_string_value(json_object_get(row, "qdev"));
        if (g_strcmp0(device, alias) == 0) {
            return json_object_get(row, "inserted");
        }
    }
    return NULL;
}

static bool learn(struct machine *m, const char *alias, GError **error)
{
    g_autoptr(json_t) rows = qmp_run(m->qmp, "query-block", NULL, QMP_TIMEOUT_MS, error);
    for (unsigned i = 0; rows && !m->ended && i < xml_count(m->def->disks); i++) {
        struct domain_disk *disk = m->def->disks->pdata[i];
        const json_t *inserted = row_of(rows, disk->alias);
        if (inserted && (!alias || strcmp(alias, disk->alias) == 0)) {
            read_disk(m, disk, inserted);
        }
    }
    return rows != NULL;
}

bool disks_learn(struct machine *m, GError **error)
{
    return learn(m, NULL, error);
}

uint64_t disk_size(struct machine *m, const char *alias, GError **error)
{
    g_autoptr(json_t) rows = qmp_run(m->qmp, "query-block", NULL, QMP_TIMEOUT_MS, error);
    const json_t *image = json_object_get(rows ? row_of(rows, alias) : NULL, "image");
    json_int_t size = json_integer_value(json_object_get(image, "virtual-size"));
    if (rows && size <= 0) {
        libvirt_error(error, ERR_OPERATION_FAILED, "the machine has no medium in '%s'", alias);
    }
    return (uint64_t)MAX(size, 0);
}

/* --- nodes --- */

int64_t disk_add_node(struct machine *m, const struct domain_disk *like, const char *path,
                      const char *format, bool alone, GError **error)
{
    struct domain_disk *copy = xml_copy(&disk_table, like);
    int64_t index = ++m->next_node;
    disk_set_source(copy, path, format, index);
    json_t *node = disk_node(copy, error);
    xml_free(&disk_table, copy);
    if (!node) {
        return -1;
    }
    if (alone) {
        json_object_set_new(node, "backing", json_null());
    }
    g_autoptr(json_t) got = qmp_run(m->qmp, "blockdev-add", node, QMP_TIMEOUT_MS, error);
    return got ? index : -1;
}

void disk_drop_node(struct machine *m, int64_t index)
{
    g_autofree char *name = g_strdup_printf("libvirt-%ld-format", (long)index);
    qmp_do(m->qmp, NULL, "blockdev-del", "{s:s}", "node-name", name);
}

void disk_config_follows(Domain *d, const char *target, const char *old, const char *path,
                         const char *format)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(DomainDef) def = d->persistent ? domain_config(d, &error) : NULL;
    struct domain_disk *disk = def ? domain_find_disk(def, target) : NULL;
    if (disk && g_strcmp0(disk_path(disk), old) == 0) {
        disk_set_source(disk, path, format, XML_ABSENT);
        xml_free(&backing_table, g_steal_pointer(&disk->backing));
        domain_save_config(d, def, &error);
    }
    if (error) {
        daemon_log("%s: its definition still names %s: %s", d->name, old, error->message);
    }
}

/* --- jobs --- */

struct block_job *block_job_find(const struct machine *m, const char *alias)
{
    for (unsigned i = 0; i < xml_count(m->block_jobs); i++) {
        struct block_job *job = m->block_jobs->pdata[i];
        if (strcmp(job->alias, alias) == 0) {
            return job;
        }
    }
    return NULL;
}

static void free_job(void *data)
{
    struct block_job *job = data;
    g_free(job->alias);
    g_free(job);
}

bool disk_idle(const struct machine *m, const struct domain_disk *disk, GError **error)
{
    bool busy = block_job_find(m, disk->alias) || backup_reads(m, disk->target);
    if (busy) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "disk '%s' already in active block job",
                      disk->target);
    }
    return !busy;
}

bool block_jobs_none(const struct machine *m, GError **error)
{
    bool busy = xml_count(m->block_jobs) > 0;
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        busy = busy || backup_reads(m, ((struct domain_disk *)m->def->disks->pdata[i])->target);
    }
    if (busy) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain has active block job");
    }
    return !busy;
}

struct block_job *block_job_new(struct machine *m, const struct domain_disk *disk, int type,
                                GError **error)
{
    if (!disk_idle(m, disk, error)) {
        return NULL;
    }
    struct block_job *job = g_new0(struct block_job, 1);
    *job = (struct block_job){.alias = g_strdup(disk->alias), .type = type, .ended = -1};
    m->block_jobs = m->block_jobs ? m->block_jobs : g_ptr_array_new_with_free_func(free_job);
    g_ptr_array_add(m->block_jobs, job);
    return job;
}

void block_job_forget(struct machine *m, const char *alias)
{
    struct block_job *job = block_job_find(m, alias);
    struct domain_disk *disk = machine_disk(m, alias);
    if (job) {
        g_ptr_array_remove(m->block_jobs, job);
    }
    if (disk && disk->mirror) {
        xml_free(&mirror_table, g_steal_pointer(&disk->mirror));
    }
    daemon_wake();
}

void block_job_mirror(struct domain_disk *disk, int type, const char *path, const char *format,
                      int64_t index)
{
    struct disk_mirror *mirror = xml_new(&mirror_table);
    mirror->source = new_source(path, &mirror->type);
    mirror->source->index = index;
    mirror->job = type == BLOCK_JOB_COPY ? 1 : 2;
    mirror->format = g_strdup(format);
    if (type == BLOCK_JOB_COPY && mirror->type == DISK_FILE) { /* said twice, as ever */
        mirror->file = g_strdup(path);
        mirror->file_format = g_strdup(format);
    }
    disk->mirror = mirror;
}

static void tell(struct machine *m, const char *alias, int type, int status)
{
    const struct domain_disk *disk = machine_disk(m, alias);
    const char *path = disk ? disk_path(disk) : NULL;
    rpc_event_block_job message = {.dom = domain_rpc(m->domain), .type = type, .status = status};
    if (disk) {
        message.disk = (char *)(path ? path : disk->target);
        event_domain_block_job(&message);
        message.disk = disk->target;
        event_domain_block_job_2(&message);
    }
    g_free(message.dom.name);
}

/* Files of @before that are not of the chain any more. */
static void leave(struct machine *m, const struct domain_disk *before, bool unlink)
{
    g_autoptr(GArray) old = disk_chain(before);
    const struct domain_disk *disk = machine_disk(m, before->alias);
    g_autoptr(GArray) now = disk_chain(disk);
    for (unsigned i = 0; i < old->len; i++) {
        const struct disk_link *link = &g_array_index(old, struct disk_link, i);
        bool there = !link->path;
        for (unsigned k = 0; k < now->len && !there; k++) {
            there = g_strcmp0(g_array_index(now, struct disk_link, k).path, link->path) == 0;
        }
        if (!there) {
            disk_return(m, link->path);
            if (link->index != XML_ABSENT && !m->ended) {
                disk_drop_node(m, link->index);
            }
            if (unlink && path_unlink(link->path) != 0) {
                daemon_log("%s: %s", link->path, g_strerror(errno));
            }
        }
    }
}

void block_job_settle(struct machine *m, const char *alias)
{
    struct block_job *job = block_job_find(m, alias);
    if (!job || job->ended < 0) {
        return;
    }
    struct domain_disk *disk = machine_disk(m, alias);
    struct domain_disk *before = disk ? xml_copy(&disk_table, disk) : NULL;
    g_autoptr(GError) error = NULL;
    if (before && !learn(m, alias, &error)) {
        daemon_log("%s: %s", m->domain->name, error->message);
    }
    job = block_job_find(m, alias);
    disk = machine_disk(m, alias);
    int type = job->type, status = job->ended;
    bool unlink = job->unlink && status == BLOCK_JOB_COMPLETED;
    block_job_forget(m, alias);
    if (disk && before && !m->ended) {
        const char *was = disk_path(before), *now = disk_path(disk);
        const char *target = before->mirror ? path_of(before->mirror->source) : NULL;
        if (was && now && strcmp(was, now) != 0) {
            disk_config_follows(m->domain, disk->target, was, now, disk->format);
        } else if (target && type == BLOCK_JOB_COPY) { /* it goes its own way */
            disk_return(m, target);
            disk_drop_node(m, before->mirror->source->index);
        }
        leave(m, before, unlink);
        machine_save(m);
    }
    xml_free(&disk_table, before);
    tell(m, alias, type, status);
    daemon_wake();
}

struct over {
    struct machine *machine;
    char *alias;
};

/* On a worker: the machine is asked, and the domain's job may be somebody else's for long. */
static void job_over(void *data)
{
    struct over *over = data;
    struct machine *m = over->machine;
    daemon_lock();
    while (!m->ended && block_job_find(m, over->alias)) {
        if (domain_job_begin(m->domain, NULL)) {
            block_job_settle(m, over->alias);
            domain_job_end(m->domain);
        }
    }
    machine_unref(m);
    daemon_unlock();
    g_free(over->alias);
    g_free(over);
}

void block_job_event(struct machine *m, const char *id, int status)
{
    const char *alias = g_str_has_prefix(id, JOB_PREFIX) ? id + strlen(JOB_PREFIX) : "";
    struct block_job *job = block_job_find(m, alias);
    struct domain_disk *disk = machine_disk(m, alias);
    if (!job || !disk) {
        return;
    }
    if (status == BLOCK_JOB_READY) {
        job->ready = true;
        if (disk->mirror) {
            disk->mirror->ready = 1;
            machine_save(m);
        }
        tell(m, alias, job->type, status);
    } else if (job->ended < 0) {
        struct over *over = g_new(struct over, 1);
        *over = (struct over){machine_ref(m), g_strdup(alias)};
        job->ended = status == BLOCK_JOB_COMPLETED && job->aborting ? BLOCK_JOB_CANCELED : status;
        daemon_worker(job_over, over);
    }
    daemon_wake();
}

bool block_job_wait(struct machine *m, const char *alias, bool ready, GError **error)
{
    int64_t until = g_get_monotonic_time() + JOB_HOURS * 3600 * (int64_t)G_USEC_PER_SEC;
    for (;;) {
        const struct block_job *job = block_job_find(m, alias);
        if (m->ended) {
            libvirt_error(error, ERR_OPERATION_FAILED, "domain is no longer running");
            return false;
        }
        if (!job || job->ended >= 0 || (ready && job->ready)) {
            return true;
        }
        if (!daemon_wait(until)) {
            libvirt_error(error, ERR_OPERATION_TIMEOUT, "the block job does not end");
            return false;
        }
    }
}

/* --- after a restart --- */

static void recover_job(struct machine *m, const json_t *row)
{
    const char *id = json_string_value(json_object_get(row, "device"));
    const char *type = json_string_value(json_object_get(row, "type"));
    const char *alias = id && g_str_has_prefix(id, JOB_PREFIX) ? id + strlen(JOB_PREFIX) : "";
    struct domain_disk *disk = machine_disk(m, alias);
    if (!disk) {
        return;
    }
    int kind = disk->mirror && disk->mirror->job == 1 ? BLOCK_JOB_COPY
               : disk->mirror                         ? BLOCK_JOB_ACTIVE_COMMIT
               : g_strcmp0(type, "stream") == 0       ? BLOCK_JOB_PULL
               : g_strcmp0(type, "backup") == 0       ? BLOCK_JOB_BACKUP
                                                      : BLOCK_JOB_COMMIT;
    struct block_job *job = block_job_new(m, disk, kind, NULL);
    if (job) {
        job->ready = json_is_true(json_object_get(row, "ready"));
    }
    if (job && job->ready && disk->mirror) {
        disk->mirror->ready = 1;
    }
}

/* The next disk whose <mirror> no job fills any more. */
static const char *unfinished(const struct machine *m)
{
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        if (disk->mirror && !block_job_find(m, disk->alias)) {
            return disk->alias;
        }
    }
    return NULL;
}

void block_jobs_recover(struct machine *m)
{
    g_autoptr(json_t) rows = qmp_run(m->qmp, "query-block-jobs", NULL, QMP_TIMEOUT_MS, NULL);
    size_t i;
    json_t *row;
    const char *name;
    if (!rows || m->ended) {
        return;
    }
    json_array_foreach(rows, i, row)
    {
        recover_job(m, row);
    }
    while (!m->ended && (name = unfinished(m))) {
        struct domain_disk *disk = machine_disk(m, name);
        int kind = disk->mirror->job == 1 ? BLOCK_JOB_COPY : BLOCK_JOB_ACTIVE_COMMIT;
        struct block_job *job = block_job_new(m, disk, kind, NULL);
        g_autofree char *alias = g_strdup(name);
        job->ended = BLOCK_JOB_COMPLETED;
        block_job_settle(m, alias);
    }
    if (!m->ended && disks_learn(m, NULL) && !m->ended) {
        machine_save(m);
    }
}

static char *node_words(const struct machine *m, int64_t index);

void disks_drop_unused(struct machine *m)
{
    static const char *const levels[] = {"format", "storage"}; /* from the top down */
    g_autoptr(json_t) nodes =
        qmp_run(m->qmp, "query-named-block-nodes", NULL, QMP_TIMEOUT_MS, NULL);
    for (unsigned level = 0; nodes && level < G_N_ELEMENTS(levels); level++) {
        size_t i;
        json_t *node;
        json_array_foreach(nodes, i, node)
        {
            const char *name = json_string_value(json_object_get(node, "node-name"));
            char word[16];
            long index;
            bool ours = name && sscanf(name, "libvirt-%ld-%15s", &index, word) == 2 &&
                        strcmp(word, levels[level]) == 0;
            m->next_node = ours ? MAX(m->next_node, (unsigned)index) : m->next_node;
            g_autofree char *words = ours && !m->ended ? node_words(m, index) : NULL;
            if (ours && !m->ended && !words) { /* one that is used all the same stays */
                qmp_do(m->qmp, NULL, "blockdev-del", "{s:s}", "node-name", name);
            }
        }
    }
}

/* --- what lodge-vm says of them --- */

/* "disk 'vda'" for the top of its chain, "image 'vda[3]'" below; NULL: no disk has the node. */
static char *node_words(const struct machine *m, int64_t index)
{
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        g_autoptr(GArray) chain = disk_chain(disk);
        for (unsigned k = 0; k < chain->len; k++) {
            if (g_array_index(chain, struct disk_link, k).index != index) {
                continue;
            }
            return k ? g_strdup_printf("image '%s[%ld]'", disk->target, (long)index)
                     : g_strdup_printf("disk '%s'", disk->target);
        }
        if (disk->mirror && disk->mirror->source && disk->mirror->source->index == index) {
            return g_strdup_printf("the copy of disk '%s'", disk->target);
        }
    }
    return NULL;
}

static gboolean put_words(const GMatchInfo *match, GString *out, void *data)
{
    const struct machine *m = data;
    g_autofree char *all = g_match_info_fetch(match, 0), *index = g_match_info_fetch(match, 1);
    g_autofree char *kind = g_match_info_fetch(match, 2), *alias = g_match_info_fetch(match, 3);
    const struct domain_disk *disk = alias ? machine_disk(m, alias) : NULL;
    g_autofree char *node = *index ? node_words(m, g_ascii_strtoll(index, NULL, 10)) : NULL;
    if (disk) {
        g_string_append_printf(out, "%sdisk '%s'",
                               strcmp(kind, JOB_PREFIX) == 0 ? "the job of " : "", disk->target);
    } else {
        g_string_append(out, node ? node : all);
    }
    return FALSE;
}

char *disks_words(const struct machine *m, const char *text)
{
    static GRegex *names;
    if (!names) {
        names =
            g_regex_new("(?:(?:[Bb]lock )?(?:[Dd]evice|[Nn]ode|[Dd]rive|[Mm]irror|[Jj]ob) )?['\"]?"
                        "(?:libvirt-(\\d+)-(?:format|storage)|(job-|drive-)([\\w-]+))['\"]?",
                        G_REGEX_OPTIMIZE, 0, NULL);
    }
    return g_regex_replace_eval(names, text, -1, 0, 0, put_words, (void *)m, NULL);
}
