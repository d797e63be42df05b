/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Work on the disks of a running machine: pull, commit and copy, sizes, how it goes on. */
#include "manage/daemon/disks.h"
#include "manage/daemon/files.h"
#include "manage/daemon/run.h"

#include "base/json.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

enum { PROBE_SECONDS = 60 };

static struct domain_disk *disk_of(const struct machine *m, const char *name, GError **error)
{
    struct domain_disk *disk = domain_find_disk(m->def, name);
    if (!disk) {
        libvirt_error(error, ERR_INVALID_ARG, "No device found for specified path: '%s'", name);
    }
    return disk;
}

/* A disk with a node, for a job. */
static struct domain_disk *work_disk(const struct machine *m, const char *name, char **node,
                                     GError **error)
{
    struct domain_disk *disk = disk_of(m, name, error);
    *node = disk ? disk_node_name(disk) : NULL;
    if (disk && (!*node || disk->readonly)) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "disk %s has no source file that a job could work on", disk->target);
        return NULL;
    }
    return disk;
}

static bool speed_of(uint64_t bandwidth, bool in_bytes, uint64_t *speed, GError **error)
{
    uint64_t unit = in_bytes ? 1 : 1 << 20;
    if (bandwidth > INT64_MAX / unit) {
        libvirt_error(error, ERR_INVALID_ARG, "bandwidth must be less than %ld",
                      (long)(INT64_MAX / unit));
        return false;
    }
    *speed = bandwidth * unit;
    return true;
}

/* Tells the machine to begin; @args is given away. */
static bool begin(struct machine *m, struct domain_disk *disk, int type, const char *command,
                  json_t *args, uint64_t speed, GError **error)
{
    g_autofree char *alias = g_strdup(disk->alias), *id = g_strconcat("job-", alias, NULL);
    if (!block_job_new(m, disk, type, error)) {
        json_decref(args);
        return false;
    }
    json_object_set_new(args, "job-id", json_string(id));
    json_object_set_new(args, "speed", json_integer((json_int_t)speed));
    g_autoptr(json_t) got = qmp_run(m->qmp, command, args, QMP_TIMEOUT_MS, error);
    if (!got) {
        block_job_forget(m, alias);
    }
    return got != NULL;
}

/* @to as the header of @of may name it. */
static char *relative_path(const char *of, const char *to)
{
    g_autofree char *folder = g_path_get_dirname(of);
    g_auto(GStrv) from = g_strsplit(folder, "/", -1), parts = g_strsplit(to, "/", -1);
    g_autoptr(GString) out = g_string_new(NULL);
    unsigned same = 0;
    while (from[same] && parts[same] && strcmp(from[same], parts[same]) == 0) {
        same++;
    }
    for (unsigned i = same; from[i]; i++) {
        g_string_append(out, *from[i] ? "../" : "");
    }
    g_autofree char *rest = g_strjoinv("/", parts + same);
    g_string_append(out, rest);
    return g_string_free(g_steal_pointer(&out), FALSE);
}

/* --- pull --- */

enum { BANDWIDTH_BYTES = 64 };

static bool pull(const rpc_domain *named, const char *path, const char *base, uint64_t bandwidth,
                 unsigned flags, GError **error)
{
    enum { RELATIVE = 16 };
    g_autofree char *node = NULL;
    uint64_t speed = 0;
    g_autoptr(DomainJob) d = domain_take(named, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    struct domain_disk *disk = m ? work_disk(m, path, &node, error) : NULL;
    if (!disk || !speed_of(bandwidth, flags & BANDWIDTH_BYTES, &speed, error)) {
        return false;
    }
    json_t *args = json_pack("{s:s}", "device", node);
    if (base) {
        g_autoptr(GArray) chain = disk_chain(disk);
        int at = disk_chain_find(chain, disk, base, error);
        const char *file = at < 0 ? NULL : g_array_index(chain, struct disk_link, at).path;
        if (at == 0 || (at > 0 && !file)) {
            libvirt_error(error, ERR_INVALID_ARG, "'%s' cannot be the base of disk '%s'", base,
                          disk->target);
        }
        if (at <= 0 || !file) {
            json_decref(args);
            return false;
        }
        json_object_set_new(args, "base", json_string(file));
        g_autofree char *name = flags & RELATIVE ? relative_path(disk_path(disk), file) : NULL;
        json_object_set_new(args, "backing-file", json_string(name ? name : file));
    }
    return begin(m, disk, BLOCK_JOB_PULL, "block-stream", args, speed, error);
}

bool verb_domain_block_pull(struct call *call, const rpc_domain_of_uhyper_flags *args,
                            rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    return pull(&args->dom, args->of, NULL, args->value, args->flags, error);
}

/* --- commit --- */

enum {
    COMMIT_SHALLOW = 1,
    COMMIT_DELETE = 2,
    COMMIT_ACTIVE = 4,
    COMMIT_RELATIVE = 8,
    COMMIT_BYTES = 16,
};

/* The two ends of the work in @chain; false with libvirt's words. */
static bool commit_ends(const GArray *chain, const struct domain_disk *disk,
                        const rpc_block_commit_args *args, int *top, int *base, GError **error)
{
    const struct disk_link *links = (const struct disk_link *)(const void *)chain->data;
    const char *name = disk_path(disk) ? disk_path(disk) : disk->target;
    *top = args->top ? disk_chain_find(chain, disk, *args->top, error) : 0;
    if (*top < 0) {
        return false;
    }
    const char *shown = links[*top].path ? links[*top].path : name;
    bool active = args->flags & COMMIT_ACTIVE;
    if ((*top == 0) != active) {
        libvirt_error(error, ERR_INVALID_ARG,
                      active ? "active commit requested but '%s' is not active"
                             : "commit of '%s' active layer requires active flag",
                      shown);
    } else if ((unsigned)*top + 1 >= chain->len) {
        libvirt_error(error, ERR_INVALID_ARG, "top '%s' in chain for '%s' has no backing file",
                      shown, name);
    } else {
        *base = args->base                     ? disk_chain_find(chain, disk, *args->base, error)
                : args->flags & COMMIT_SHALLOW ? *top + 1
                                               : (int)chain->len - 1;
        if (*base < 0) {
            return false;
        }
        if (*base <= *top) {
            libvirt_error(error, ERR_INVALID_ARG,
                          "could not find base '%s' below '%s' in chain for '%s'",
                          links[*base].path, shown, name);
        } else if ((args->flags & COMMIT_SHALLOW) && *base != *top + 1) {
            libvirt_error(error, ERR_INVALID_ARG,
                          "base '%s' is not immediately below '%s' in chain for '%s'",
                          links[*base].path, shown, name);
        } else if (!links[*base].path || (*top > 0 && !links[*top].path)) {
            libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                          "an image of disk '%s' that is no local file cannot be committed",
                          disk->target);
        } else {
            return true;
        }
    }
    return false;
}

static bool commit(struct machine *m, struct domain_disk *disk, int top, int base, uint64_t speed,
                   unsigned flags, GError **error)
{
    g_autofree char *alias = g_strdup(disk->alias), *node = disk_node_name(disk);
    g_autoptr(GArray) chain = disk_chain(disk);
    const struct disk_link *links = (const struct disk_link *)(const void *)chain->data;
    bool active = top == 0;
    g_autofree char *to = g_strdup(links[base].path), *format = g_strdup(links[base].format);
    const char *files[] = {to, active ? NULL : links[top - 1].path};
    if (!disk_lend(m, files[0], error) || !disk_lend(m, files[1], error)) {
        return false;
    }
    disk = machine_disk(m, alias);
    if (m->ended || !disk) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain is not running");
        return false;
    }
    json_t *options = json_pack("{s:s, s:s}", "device", node, "base", to);
    if (!active) {
        const char *over = links[top - 1].path;
        g_autofree char *name =
            flags & COMMIT_RELATIVE && over ? relative_path(over, to) : g_strdup(to);
        json_object_set_new(options, "top", json_string(links[top].path));
        json_object_set_new(options, "backing-file", json_string(name));
    }
    int64_t index = links[base].index;
    int type = active ? BLOCK_JOB_ACTIVE_COMMIT : BLOCK_JOB_COMMIT;
    if (!begin(m, disk, type, "block-commit", options, speed, error)) {
        return false;
    }
    struct block_job *job = block_job_find(m, alias);
    disk = machine_disk(m, alias);
    if (job && disk && !m->ended) {
        job->unlink = flags & COMMIT_DELETE;
        if (active) {
            block_job_mirror(disk, type, to, format, index);
            disk->mirror->ready = job->ready ? 1 : 0;
        }
        machine_save(m);
    }
    return true;
}

bool block_commit_range(struct machine *m, struct domain_disk *disk, int top, int base,
                        GError **error)
{
    g_autoptr(GArray) chain = disk_chain(disk);
    if ((unsigned)base >= chain->len || !g_array_index(chain, struct disk_link, base).path) {
        libvirt_error(error, ERR_INVALID_ARG, "disk '%s' has no image to commit to", disk->target);
        return false;
    }
    return commit(m, disk, top, base, 0, 0, error);
}

bool verb_domain_block_commit(struct call *call, const rpc_block_commit_args *args, rpc_none *ret,
                              GError **error)
{
    (void)call, (void)ret;
    g_autofree char *node = NULL;
    uint64_t speed = 0;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    struct domain_disk *disk = m ? work_disk(m, args->disk, &node, error) : NULL;
    if (!disk || !speed_of(args->bandwidth, args->flags & COMMIT_BYTES, &speed, error)) {
        return false;
    }
    int top, base;
    g_autoptr(GArray) chain = disk_chain(disk);
    return commit_ends(chain, disk, args, &top, &base, error) &&
           commit(m, disk, top, base, speed, args->flags, error);
}

/* --- copy --- */

enum {
    COPY_SHALLOW = 1,
    COPY_REUSE = 2,
    COPY_TRANSIENT = 4,
    COPY_SYNCHRONOUS = 8,
};
struct copy_to { /* <disk> without a target */
    int type, device;
    char *driver_name, *format;
    struct disk_source *source;
    struct disk_backing *backing;
};
static const struct xml_row copy_rows[] = {
    XML_ENUM(struct copy_to, type, "@type", disk_type_words, 0),
    XML_ENUM(struct copy_to, device, "@device", disk_device_words, 0),
    XML_TEXT(struct copy_to, driver_name, "driver/@name", 0),
    XML_TEXT(struct copy_to, format, "driver/@type", 0),
    XML_STRUCT(struct copy_to, source, "source", &disk_source_table, 0),
    XML_STRUCT(struct copy_to, backing, "backingStore", &backing_table, 0),
};
static const struct xml_table copy_table = XML_TABLE("disk", struct copy_to, copy_rows);

/* The format of an image that somebody has put there; NULL with an error. */
static char *probe(const char *path, GError **error)
{
    g_autofree char *program = daemon_program("lodge-img"), *out = NULL;
    const char *argv[] = {program, "info", "-U", "--output=json", path, NULL};
    g_autoptr(GError) why = NULL;
    daemon_unlock();
    bool ok = run_program(argv, NULL, PROBE_SECONDS, &out, NULL, &why);
    daemon_lock();
    g_autoptr(json_t) info = ok ? json_parse(out, strlen(out), NULL) : NULL;
    const char *format = json_string_value(json_object_get(info, "format"));
    if (!format) {
        libvirt_error(error, ERR_OPERATION_FAILED, "cannot look at '%s': %s", path,
                      why ? why->message : "no format");
    }
    return g_strdup(format);
}

/* The file is there exactly if it is to be reused. */
typedef struct copy Copy;
struct copy {
    char *alias, *node, *path, *format;
    uint64_t speed;
    json_t *more; /* granularity, buf-size */
    unsigned flags;
    bool there, device; /* the target, before */
};

static void copy_clear(struct copy *c)
{
    g_free(c->alias);
    g_free(c->node);
    g_free(c->path);
    g_free(c->format);
    json_decref(c->more);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Copy, copy_clear)

static bool check_target(const char *target, struct copy *c, GError **error)
{
    g_autofree char *disk = g_strdup(target);
    const char *path = c->path;
    bool reuse = c->flags & COPY_REUSE;
    struct stat st = {0};
    if (path[0] == '/' && !file_answers(path, &st, error)) {
        return false;
    }
    bool there = c->there = st.st_nlink;
    c->device = S_ISBLK(st.st_mode);
    if (path[0] != '/') {
        libvirt_error(error, ERR_INVALID_ARG, "path '%s' is not absolute", path);
    } else if (reuse && !there) {
        libvirt_error(error, ERR_SYSTEM, "missing destination file for disk %s: %s: %s", disk, path,
                      g_strerror(ENOENT));
    } else if (there && !reuse && !c->device && st.st_size) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      "external destination file for disk %s already exists and is not a block "
                      "device: %s",
                      disk, path);
    } else {
        return true;
    }
    return false;
}

static bool make_target(struct machine *m, struct copy *c, GError **error)
{
    bool reuse = c->flags & COPY_REUSE;
    const struct domain_disk *disk = machine_disk(m, c->alias);
    g_autoptr(GArray) chain = disk_chain(disk);
    const struct disk_link *below = c->flags & COPY_SHALLOW && chain->len > 1
                                        ? &g_array_index(chain, struct disk_link, 1)
                                        : NULL;
    g_autofree char *backing = below ? g_strdup(below->path) : NULL;
    g_autofree char *backing_format = below ? g_strdup(below->format) : NULL;
    if (!c->format) {
        c->format = reuse ? probe(c->path, error) : g_strdup(disk->format);
    }
    if (!c->format) {
        return false;
    }
    if (!reuse) {
        uint64_t size = disk_size(m, c->alias, error);
        if (!size || !disk_create_image(c->path, c->format, size, backing, backing_format, error)) {
            return false;
        }
    }
    g_autoptr(GPtrArray) lent = disk_lend_chain(m, c->path, c->format, error);
    return lent != NULL;
}

/* As it was before nothing came of the copy.  One that began and is aborted stays, as with libvirt:
 * it may be of use. */
static void forget_target(const struct copy *c)
{
    if (!c->there) {
        path_unlink(c->path);
    } else if (!(c->flags & COPY_REUSE) && !c->device && path_empty(c->path) != 0) {
        daemon_log("%s cannot be emptied again: %s", c->path, g_strerror(errno));
    }
}

static bool copy(struct machine *m, struct copy *c, GError **error)
{
    if (!make_target(m, c, error)) {
        return false;
    }
    struct domain_disk *disk = machine_disk(m, c->alias);
    bool shallow = c->flags & COPY_SHALLOW && disk && disk->backing && disk->backing->source;
    int64_t index = disk ? disk_add_node(m, disk, c->path, c->format, !shallow, error) : -1;
    bool ok = index >= 0;
    disk = machine_disk(m, c->alias);
    if (ok && disk) {
        g_autofree char *target = g_strdup_printf("libvirt-%ld-format", (long)index);
        json_t *args = json_pack("{s:s, s:s, s:s}", "device", c->node, "target", target, "sync",
                                 shallow ? "top" : "full");
        json_object_update(args, c->more);
        ok = begin(m, disk, BLOCK_JOB_COPY, "blockdev-mirror", args, c->speed, error);
        if (!ok) {
            disk_drop_node(m, index);
        }
    }
    if (!ok) {
        disk_return(m, c->path);
        forget_target(c);
        return false;
    }
    struct block_job *job = block_job_find(m, c->alias);
    disk = machine_disk(m, c->alias);
    if (job && disk && !m->ended) {
        block_job_mirror(disk, BLOCK_JOB_COPY, c->path, c->format, index);
        disk->mirror->ready = job->ready ? 1 : 0;
        machine_save(m);
    }
    return true;
}

static bool copy_to(const rpc_domain *named, const char *name, struct copy *c, GError **error)
{
    g_autoptr(DomainJob) d = domain_take(named, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    struct domain_disk *disk = m ? work_disk(m, name, &c->node, error) : NULL;
    if (!disk) {
        return false;
    }
    if (d->persistent && !(c->flags & COPY_TRANSIENT)) {
        libvirt_error(error, ERR_OPERATION_INVALID, "domain is not transient");
        return false;
    }
    if (!disk_idle(m, disk, error)) {
        return false;
    }
    c->alias = g_strdup(disk->alias);
    return check_target(disk->target, c, error) && copy(m, c, error);
}

static bool take_params(struct copy *c, const rpc_param *params, unsigned n, GError **error)
{
    c->more = json_object();
    for (unsigned i = 0; i < n; i++) {
        const rpc_value *v = &params[i].value;
        uint64_t number = v->type == 2 ? v->rpc_value_u.ui : v->type == 4 ? v->rpc_value_u.ul : 0;
        if (number > INT64_MAX) {
            libvirt_error(error, ERR_INVALID_ARG, "%s is too large", params[i].field);
            return false;
        }
        if (strcmp(params[i].field, "granularity") == 0 && number & (number - 1)) {
            libvirt_error(error, ERR_INVALID_ARG, "granularity must be power of 2");
            return false;
        }
        if (strcmp(params[i].field, "bandwidth") == 0) {
            c->speed = number;
        } else if (strcmp(params[i].field, "granularity") == 0 ||
                   strcmp(params[i].field, "buf-size") == 0) {
            if (number) {
                json_object_set_new(c->more, params[i].field, json_integer((json_int_t)number));
            }
        } else {
            libvirt_error(error, ERR_INVALID_ARG, "parameter '%s' not supported", params[i].field);
            return false;
        }
    }
    return true;
}

bool verb_domain_block_copy(struct call *call, const rpc_block_copy_args *args, rpc_none *ret,
                            GError **error)
{
    (void)call, (void)ret;
    g_auto(Copy) c = {.flags = args->flags};
    struct copy_to *to = xml_read_text(&copy_table, args->xml, "disk_definition", 0, error);
    if (!to) {
        return false;
    }
    const char *path = !to->source ? NULL : to->source->file ? to->source->file : to->source->dev;
    c.path = g_strdup(path);
    c.format = g_strdup(to->format);
    xml_free(&copy_table, to);
    if (!path || (c.flags & COPY_SYNCHRONOUS)) {
        libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                      path ? "synchronous writes of a copy are not supported"
                           : "the target of a copy must be a file or a block device");
        return false;
    }
    return take_params(&c, args->params.params_val, args->params.params_len, error) &&
           copy_to(&args->dom, args->path, &c, error);
}

bool verb_domain_block_rebase(struct call *call, const rpc_block_rebase_args *args, rpc_none *ret,
                              GError **error)
{
    enum { REBASE_RAW = 4, REBASE_COPY = 8 };
    (void)call, (void)ret;
    const char *base = args->base ? *args->base : NULL;
    if (!(args->flags & REBASE_COPY)) {
        return pull(&args->dom, args->path, base, args->bandwidth, args->flags, error);
    }
    g_auto(Copy) c = {.flags = args->flags & (COPY_SHALLOW | COPY_REUSE), .path = g_strdup(base)};
    c.format = g_strdup(args->flags & REBASE_RAW ? "raw" : NULL);
    c.more = json_object();
    if (!base) {
        libvirt_error(error, ERR_INVALID_ARG, "a copy needs a destination");
        return false;
    }
    return speed_of(args->bandwidth, args->flags & BANDWIDTH_BYTES, &c.speed, error) &&
           copy_to(&args->dom, args->path, &c, error);
}

/* --- sizes --- */

bool verb_domain_block_resize(struct call *call, const rpc_domain_of_uhyper_flags *args,
                              rpc_none *ret, GError **error)
{
    enum { RESIZE_BYTES = 1 };
    (void)call, (void)ret;
    uint64_t unit = args->flags & RESIZE_BYTES ? 1 : 1024;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    struct domain_disk *disk = m ? disk_of(m, args->of, error) : NULL;
    g_autofree char *node = disk ? disk_node_name(disk) : NULL;
    if (!disk) {
        return false;
    }
    if (!node || !args->value || args->value > INT64_MAX / unit) {
        libvirt_error(error, ERR_INVALID_ARG, "disk %s cannot have this size", disk->target);
        return false;
    }
    return disk_idle(m, disk, error) &&
           qmp_do(m->qmp, error, "block_resize", "{s:s, s:I}", "node-name", node, "size",
                  (json_int_t)(args->value * unit));
}

/* "vda", or "vda[N]" with the number of its uppermost image. */
static struct domain_disk *disk_with_image(const struct machine *m, const char *name,
                                           GError **error)
{
    const char *bracket = strchr(name, '[');
    g_autofree char *target = bracket ? g_strndup(name, (size_t)(bracket - name)) : g_strdup(name);
    struct domain_disk *disk = disk_of(m, bracket ? target : name, error);
    g_autofree char *whole =
        disk && disk->source ? g_strdup_printf("%s[%ld]", target, (long)disk->source->index) : NULL;
    if (disk && bracket && g_strcmp0(whole, name) != 0) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "threshold currently can't be set for block device '%s'", name);
        return NULL;
    }
    return disk;
}

bool verb_domain_set_block_threshold(struct call *call, const rpc_domain_of_uhyper_flags *args,
                                     rpc_none *ret, GError **error)
{
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    struct domain_disk *disk = m ? disk_with_image(m, args->of, error) : NULL;
    g_autofree char *node = disk && !disk_changeable(disk) ? disk_file_name(disk) : NULL;
    if (!disk) {
        return false;
    }
    if (!node || args->value > INT64_MAX) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                      "threshold currently can't be set for block device '%s'", args->of);
        return false;
    }
    return qmp_do(m->qmp, error, "block-set-write-threshold", "{s:s, s:I}", "node-name", node,
                  "write-threshold", (json_int_t)args->value);
}

/* --- jobs under way --- */

static struct block_job *job_of(const struct machine *m, const struct domain_disk *disk,
                                GError **error)
{
    struct block_job *job = block_job_find(m, disk->alias);
    if (!job && machine_is_known(m, error)) {
        libvirt_error(error, ERR_INVALID_ARG, "disk %s does not have an active block job",
                      disk->target);
    }
    return job;
}

bool verb_domain_block_job_set_speed(struct call *call, const rpc_domain_of_uhyper_flags *args,
                                     rpc_none *ret, GError **error)
{
    enum { SPEED_BYTES = 1 };
    (void)call, (void)ret;
    uint64_t speed = 0;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    struct domain_disk *disk = m ? disk_of(m, args->of, error) : NULL;
    if (!disk || !speed_of(args->value, args->flags & SPEED_BYTES, &speed, error) ||
        !job_of(m, disk, error)) {
        return false;
    }
    g_autofree char *id = g_strconcat("job-", disk->alias, NULL);
    return qmp_do(m->qmp, error, "block-job-set-speed", "{s:s, s:I}", "device", id, "speed",
                  (json_int_t)speed);
}

static void fill_info(const struct block_job *job, const json_t *row, bool in_bytes,
                      rpc_block_job_info *ret)
{
    ret->found = 1;
    ret->type = job->type;
    ret->bandwidth = (uint64_t)json_integer_value(json_object_get(row, "speed"));
    ret->cur = (uint64_t)json_integer_value(json_object_get(row, "offset"));
    ret->end = row ? (uint64_t)json_integer_value(json_object_get(row, "len")) : 1;
    if (!in_bytes) {
        ret->bandwidth = (ret->bandwidth + (1 << 20) - 1) >> 20;
    }
    /* Equal numbers mean "ready" to clients. */
    bool two_ends = job->type == BLOCK_JOB_COPY || job->type == BLOCK_JOB_ACTIVE_COMMIT;
    if (ret->cur == ret->end && two_ends && !job->ready) {
        ret->end++;
    }
}

bool verb_domain_get_block_job_info(struct call *call, const rpc_domain_text_flags *args,
                                    rpc_block_job_info *ret, GError **error)
{
    (void)call;
    g_autoptr(Domain) d = domain_get(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    /* No job would mean that it has ended. */
    bool known = m && machine_await_recovery(m, error);
    struct domain_disk *disk = known ? disk_of(m, args->text, error) : NULL;
    if (!disk) {
        return false;
    }
    g_autofree char *alias = g_strdup(disk->alias), *id = g_strconcat("job-", alias, NULL);
    if (!block_job_find(m, alias)) {
        return true;
    }
    g_autoptr(json_t) rows = qmp_run(m->qmp, "query-block-jobs", NULL, QMP_TIMEOUT_MS, error);
    const struct block_job *job = block_job_find(m, alias);
    size_t i;
    json_t *row, *found = NULL;
    json_array_foreach(rows, i, row)
    {
        if (g_strcmp0(json_string_value(json_object_get(row, "device")), id) == 0) {
            found = row;
        }
    }
    if (rows && job) {
        fill_info(job, found, args->flags & 1, ret);
    }
    return rows != NULL;
}

static bool pivot(struct machine *m, const struct domain_disk *disk, const struct block_job *job,
                  GError **error)
{
    g_autofree char *id = g_strconcat("job-", disk->alias, NULL);
    if (job->type != BLOCK_JOB_COPY && job->type != BLOCK_JOB_ACTIVE_COMMIT) {
        libvirt_error(error, ERR_OPERATION_INVALID, "job type '%s' does not support pivot",
                      job->type == BLOCK_JOB_PULL ? "pull" : "commit");
        return false;
    }
    if (!job->ready) {
        libvirt_error(error, ERR_BLOCK_COPY_ACTIVE, "block job '%s' not ready for pivot yet", id);
        return false;
    }
    return qmp_do(m->qmp, error, "block-job-complete", "{s:s}", "device", id);
}

bool verb_domain_block_job_abort(struct call *call, const rpc_domain_text_flags *args,
                                 rpc_none *ret, GError **error)
{
    enum { ABORT_ASYNC = 1, ABORT_PIVOT = 2 };
    (void)call, (void)ret;
    g_autoptr(DomainJob) d = domain_take(&args->dom, error);
    g_autoptr(Machine) m = d ? machine_of(d, error) : NULL;
    struct domain_disk *disk = m ? disk_of(m, args->text, error) : NULL;
    struct block_job *job = disk ? job_of(m, disk, error) : NULL;
    if (!job) {
        return false;
    }
    g_autofree char *alias = g_strdup(disk->alias), *id = g_strconcat("job-", alias, NULL);
    bool forward = args->flags & ABORT_PIVOT;
    job->aborting = !forward;
    if (!(forward ? pivot(m, disk, job, error)
                  : qmp_do(m->qmp, error, "block-job-cancel", "{s:s}", "device", id))) {
        return false;
    }
    if (args->flags & ABORT_ASYNC) {
        return true;
    }
    if (!block_job_wait(m, alias, false, error)) {
        return false;
    }
    block_job_settle(m, alias);
    return true;
}
