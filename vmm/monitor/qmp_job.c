/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/qmp_handlers.h"

#include "host/image/job.h"
#include "host/image/options.h"
#include "host/image/protocol.h"
#include "vmm/savevm.h"
#include "vmm/vm.h"

#include <string.h>

/* Block jobs. */

#define HANDLER(name) json_t *qmp_##name(json_t *args, GError **error)
#define UNUSED        (void)args, (void)error

/* ---- what there is, and what happens ---- */

static const char *type_of(const struct job_view *v)
{
    static const char *const names[] = {"stream", "commit", "mirror", "backup"};
    return names[v->kind];
}

static const char *status_of(const struct job_view *v)
{
    bool ready = v->state == JOB_READY;
    return v->state == JOB_CONCLUDED ? "concluded"
           : v->state == JOB_PENDING ? "pending"
           : v->cancelled            ? "aborting"
           : v->paused               ? ready ? "standby" : "paused"
           : ready                   ? "ready"
                                     : "running";
}

static json_t *event_data(const struct job_view *v)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I}", "type", type_of(v), "device", v->id, "len",
                     (json_int_t)v->all, "offset", (json_int_t)v->done, "speed",
                     (json_int_t)v->speed);
}

static void on_news(struct job *job)
{
    struct job_view v = job_view(job);
    json_t *data = event_data(&v);
    bool stopped = v.cancelled && (v.forced || v.done < v.all || v.kind == JOB_STREAM ||
                                   (v.kind == JOB_COMMIT && !v.active_commit) || v.kind == JOB_BACKUP);
    vm_event("JOB_STATUS_CHANGE", json_pack("{s:s, s:s}", "status", status_of(&v), "id", v.id));
    if (v.error) {
        vm_event("BLOCK_JOB_ERROR", json_pack("{s:s, s:s, s:s}", "device", v.id, "operation",
                                              "write", "action", "report"));
        json_object_set_new(data, "error", json_string(v.error));
    }
    vm_event(v.state == JOB_READY     ? "BLOCK_JOB_READY"
             : v.state == JOB_PENDING ? "BLOCK_JOB_PENDING"
             : stopped                ? "BLOCK_JOB_CANCELLED"
                                      : "BLOCK_JOB_COMPLETED", data);
    if (v.state == JOB_CONCLUDED) {
        vm_event("JOB_STATUS_CHANGE", json_pack("{s:s, s:s}", "status", "null", "id", v.id));
    }
}

static void add_block_job(struct job *job, void *list)
{
    struct job_view v = job_view(job);
    json_t *o = event_data(&v);
    json_object_update_new(o, json_pack("{s:b, s:b, s:b, s:s, s:s, s:b, s:b}", "busy",
                                        v.state == JOB_RUNNING && !v.paused, "paused", v.paused,
                                        "ready", v.state == JOB_READY, "io-status", "ok", "status",
                                        status_of(&v), "auto-finalize", 1, "auto-dismiss", 1));
    if (v.error) {
        json_object_set_new(o, "error", json_string(v.error));
    }
    json_array_append_new(list, o);
}

HANDLER(query_block_jobs)
{
    UNUSED;
    json_t *list = json_array();
    job_each(add_block_job, list);
    return list;
}

static void add_job(struct job *job, void *list)
{
    struct job_view v = job_view(job);
    json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:I}", "id", v.id, "type", type_of(&v), "status",
                          status_of(&v), "current-progress", (json_int_t)v.done, "total-progress",
                          (json_int_t)v.all);
    if (v.error) {
        json_object_set_new(o, "error", json_string(v.error));
    }
    json_array_append_new(list, o);
}

/* ---- snapshots of the machine: done when the command returns, but told of as jobs ---- */

struct past {
    char *id, *error;
    const char *type;
};

static GPtrArray *past_jobs; /* struct past *, until they are dismissed */

static struct past *past_find(const char *id)
{
    for (unsigned i = 0; past_jobs && i < past_jobs->len; i++) {
        struct past *p = past_jobs->pdata[i];
        if (!g_strcmp0(p->id, id)) {
            return p;
        }
    }
    return NULL;
}

static void past_free(void *past)
{
    struct past *p = past;
    g_free(p->id);
    g_free(p->error);
    g_free(p);
}

static void past_add(const char *id, const char *type, const GError *error)
{
    static const char *const states[] = {"created", "running", "concluded"};
    struct past *p = g_new0(struct past, 1);
    *p = (struct past){g_strdup(id), error ? g_strdup(error->message) : NULL, type};
    past_jobs = past_jobs ? past_jobs : g_ptr_array_new_with_free_func(past_free);
    g_ptr_array_add(past_jobs, p);
    for (unsigned i = 0; i < G_N_ELEMENTS(states); i++) {
        vm_event("JOB_STATUS_CHANGE", json_pack("{s:s, s:s}", "status", states[i], "id", id));
    }
}

static json_t *run_snapshot(json_t *args, const char *type,
                            bool (*run)(const char *name, const char *const *nodes, GError **error),
                            GError **error)
{
    const char *id = qmp_str(args, "job-id"), *state = qmp_str(args, "vmstate");
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    g_autoptr(GError) why = NULL;
    json_t *name;
    size_t i;
    if (job_find(id) || past_find(id)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "Job ID '%s' already in use", id);
        return NULL;
    }
    if (state) {
        g_ptr_array_add(nodes, (char *)(uintptr_t)state);
    }
    json_array_foreach(json_object_get(args, "devices"), i, name)
    {
        g_ptr_array_add(nodes, (char *)(uintptr_t)json_string_value(name));
    }
    g_ptr_array_add(nodes, NULL);
    run(qmp_str(args, "tag"), (const char *const *)nodes->pdata, &why);
    past_add(id, type, why);
    return NULL;
}

HANDLER(snapshot_save)
{
    return run_snapshot(args, "snapshot-save", savevm_save, error);
}

HANDLER(snapshot_load)
{
    return run_snapshot(args, "snapshot-load", savevm_load, error);
}

HANDLER(snapshot_delete)
{
    return run_snapshot(args, "snapshot-delete", savevm_remove, error);
}

HANDLER(query_jobs)
{
    UNUSED;
    json_t *list = json_array();
    job_each(add_job, list);
    for (unsigned i = 0; past_jobs && i < past_jobs->len; i++) {
        const struct past *p = past_jobs->pdata[i];
        json_t *o = json_pack("{s:s, s:s, s:s, s:i, s:i}", "id", p->id, "type", p->type, "status",
                              "concluded", "current-progress", 1, "total-progress", 1);
        if (p->error) {
            json_object_set_new(o, "error", json_string(p->error));
        }
        json_array_append_new(list, o);
    }
    return list;
}

/* ---- starting ---- */

static bool refuse(GError **error, const char *what, const char *name)
{
    g_set_error(error, LODGE_ERROR, EINVAL, "%s '%s' not found", what, name);
    return false;
}

/* A node of @img's chain by node-name or by file. */
static struct node *node_in(Image *img, const char *node, const char *file)
{
    for (struct node *n = image_top(img); n; n = n->backing) {
        if ((node && !g_strcmp0(json_text(n->options, "node-name"), node)) ||
            (file && (!strcmp(node_name(n), file) || !strcmp(file_name(n->file), file)))) {
            return n;
        }
    }
    Image *other = NULL;
    struct node *found = node ? image_find_node(node, &other) : NULL;
    return other == img ? found : NULL;
}

static bool take_common(json_t *args, struct job_spec *s, GError **error)
{
    static const char *const syncs[] = {[SYNC_FULL] = "full", [SYNC_TOP] = "top", [SYNC_NONE] = "none"};
    const char *device = qmp_str(args, "device"), *sync = qmp_str(args, "sync");
    bool finalize = true, dismiss = true;
    s->img = image_find(device);
    if (!s->img && !image_find_node(device, &s->img)) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Cannot find device='%s' nor node-name='%s'", device,
                    device);
        return false;
    }
    s->id = qmp_str(args, "job-id") ? qmp_str(args, "job-id") : image_id(s->img);
    s->backing_file = qmp_str(args, "backing-file");
    for (unsigned i = 0; sync && i <= G_N_ELEMENTS(syncs); i++) {
        if (i == G_N_ELEMENTS(syncs)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "sync=%s is not supported", sync);
            return false;
        }
        if (g_str_equal(sync, syncs[i])) {
            s->sync = (enum job_sync)i;
            break;
        }
    }
    bool fine = json_u64(args, "speed", &s->speed, error) &&
                json_bool(args, "auto-finalize", &finalize, error) &&
                json_bool(args, "auto-dismiss", &dismiss, error);
    s->manual_finalize = !finalize;
    s->manual_dismiss = !dismiss;
    if (fine && !image_top(s->img)) {
        g_set_error(error, LODGE_ERROR, ENOMEDIUM, "Device '%s' has no medium", device);
        return false;
    }
    return fine;
}

static struct job *start_job(struct job_spec *s, bool fine, GError **error)
{
    job_news = on_news;
    struct job *job = fine ? job_start(s, error) : NULL;
    if (!job) {
        chain_close(s->target);
        return NULL;
    }
    vm_event("JOB_STATUS_CHANGE", json_pack("{s:s, s:s}", "status", "created", "id", s->id));
    vm_event("JOB_STATUS_CHANGE", json_pack("{s:s, s:s}", "status", "running", "id", s->id));
    return job;
}

static json_t *start(struct job_spec *s, bool fine, GError **error)
{
    start_job(s, fine, error);
    return NULL;
}

static bool find_named(json_t *args, struct job_spec *s, const char *key, struct node **out,
                       GError **error)
{
    g_autofree char *node_key = g_strconcat(key, "-node", NULL);
    const char *node = qmp_str(args, node_key), *file = qmp_str(args, key);
    if (!node && !file) {
        return true;
    }
    *out = node_in(s->img, node, file);
    return *out || refuse(error, key, node ? node : file);
}

HANDLER(block_stream)
{
    struct job_spec s = {.kind = JOB_STREAM};
    bool fine = take_common(args, &s, error) && find_named(args, &s, "base", &s.base, error);
    if (fine && s.base == image_top(s.img)) {
        fine = refuse(error, "a base below the drive:", qmp_str(args, "base"));
    }
    return start(&s, fine, error);
}

static struct node *lowest(Image *img)
{
    struct node *n = image_top(img);
    while (n && n->backing) {
        n = n->backing;
    }
    return n;
}

static bool is_below(const struct node *n, const struct node *top)
{
    for (top = top->backing; top && top != n; top = top->backing) {
    }
    return top;
}

HANDLER(block_commit)
{
    struct job_spec s = {.kind = JOB_COMMIT};
    bool fine = take_common(args, &s, error);
    if (fine) {
        s.top = image_top(s.img);
        s.base = lowest(s.img);
        fine = find_named(args, &s, "top", &s.top, error) &&
               find_named(args, &s, "base", &s.base, error);
    }
    if (fine && !is_below(s.base, s.top)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "'%s' is not in this backing file chain",
                    node_name(s.base));
        fine = false;
    }
    return start(&s, fine, error);
}

/* A new file for the copy, or the one that is there. */
static bool open_target(json_t *args, struct job_spec *s, GError **error)
{
    const char *file = qmp_str(args, "target"), *format = qmp_str(args, "format");
    const char *mode = qmp_str(args, "mode");
    struct node *top = image_top(s->img), *below = s->sync == SYNC_TOP ? top->backing : NULL;
    format = format ? format : top->format->name;
    struct chain_create make = {.name = file, .format = format, .size = top->size,
                                .backing_name = below ? file_name(below->file) : NULL,
                                .backing_format = below ? below->format->name : NULL};
    g_autofree char *full = make.backing_name ? g_canonicalize_filename(make.backing_name, NULL) : NULL;
    make.backing_name = below && below->file->fd < 0 ? make.backing_name : full;
    const char *name = qmp_str(args, "node-name");
    json_t *options = name ? json_pack("{s:s}", "node-name", name) : NULL;
    struct chain_open how = {.name = file, .format = format, .options = options,
                             .flags = top->flags & ~(unsigned)OPEN_READ_ONLY};
    if (g_strcmp0(mode, "existing") == 0 || chain_create(&make, error)) {
        s->target = chain_open(&how, error);
    }
    json_decref(options);
    return s->target;
}

/* A node of blockdev-add becomes the job's. */
static bool take_target(json_t *args, struct job_spec *s, GError **error)
{
    Image *other = NULL;
    const char *name = qmp_str(args, "target");
    if (!image_find_node(name, &other) || other == s->img || image_attached(other)) {
        g_set_error(error, LODGE_ERROR, other ? EBUSY : ENODEV, other ? "node '%s' is in use"
                                                                     : "Cannot find node-name='%s'",
                    name);
        return false;
    }
    s->target = image_take(other);
    image_close(other);
    return s->target;
}

HANDLER(drive_mirror)
{
    struct job_spec s = {.kind = JOB_MIRROR};
    return start(&s, take_common(args, &s, error) && open_target(args, &s, error), error);
}

HANDLER(blockdev_mirror)
{
    struct job_spec s = {.kind = JOB_MIRROR};
    return start(&s, take_common(args, &s, error) && take_target(args, &s, error), error);
}

/* sync=incremental is sync=bitmap with the mode on-success. */
static bool take_bitmap(json_t *args, struct job_spec *s, GError **error)
{
    static const char *const modes[] = {
        [BITMAP_ON_SUCCESS] = "on-success", [BITMAP_NEVER] = "never", [BITMAP_ALWAYS] = "always"};
    const char *mode = qmp_str(args, "bitmap-mode");
    g_autofree char *sync = g_strdup(qmp_str(args, "sync"));
    bool by_bitmap = !g_strcmp0(sync, "bitmap"), incremental = !g_strcmp0(sync, "incremental");
    s->bitmap = qmp_str(args, "bitmap");
    if (!by_bitmap && !incremental) {
        if (s->bitmap || mode) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        "a bitmap is taken with sync=bitmap and sync=incremental only");
        }
        return !s->bitmap && !mode;
    }
    json_object_del(args, "sync"); /* the rest is a backup as any other */
    s->sync = SYNC_BITMAP;
    mode = mode ? mode : incremental ? "on-success" : "";
    for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
        if (g_str_equal(modes[i], mode) && (by_bitmap || i == BITMAP_ON_SUCCESS)) {
            s->bitmap_mode = (enum job_bitmap)i;
            if (s->bitmap) {
                return true;
            }
        }
    }
    g_set_error(error, LODGE_ERROR, EINVAL,
                s->bitmap ? "Parameter 'bitmap-mode' is on-success, always or never"
                          : "must provide a valid bitmap name for '%s' sync mode", sync);
    return false;
}

static bool take_backup(json_t *args, struct job_spec *s, GError **error)
{
    return take_bitmap(args, s, error) && take_common(args, s, error);
}

void *drive_backup_run(json_t *args, GError **error)
{
    struct job_spec s = {.kind = JOB_BACKUP};
    return start_job(&s, take_backup(args, &s, error) && open_target(args, &s, error), error);
}

void *blockdev_backup_run(json_t *args, GError **error)
{
    struct job_spec s = {.kind = JOB_BACKUP};
    return start_job(&s, take_backup(args, &s, error) && take_target(args, &s, error), error);
}

void backup_undo(void *job)
{
    job_cancel(job, true);
}

HANDLER(drive_backup)
{
    drive_backup_run(args, error);
    return NULL;
}

HANDLER(blockdev_backup)
{
    blockdev_backup_run(args, error);
    return NULL;
}

/* ---- steering ---- */

static struct job *job_in(json_t *args, GError **error)
{
    const char *id = qmp_str(args, "id") ? qmp_str(args, "id") : qmp_str(args, "device");
    struct job *job = job_find(id);
    if (!job) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Block job '%s' not found", id);
    }
    return job;
}

HANDLER(job_cancel)
{
    struct job *job = job_in(args, error);
    if (job) {
        job_cancel(job, json_is_true(json_object_get(args, "force")) || qmp_str(args, "id"));
    }
    return NULL;
}

HANDLER(job_complete)
{
    struct job *job = job_in(args, error);
    if (job) {
        job_complete(job, error);
    }
    return NULL;
}

HANDLER(job_pause)
{
    struct job *job = job_in(args, error);
    if (job) {
        job_pause(job, true);
    }
    return NULL;
}

HANDLER(job_resume)
{
    struct job *job = job_in(args, error);
    if (job) {
        job_pause(job, false);
    }
    return NULL;
}

HANDLER(job_set_speed)
{
    uint64_t speed = 0;
    struct job *job = job_in(args, error);
    if (job && json_u64(args, "speed", &speed, error)) {
        job_set_speed(job, speed);
    }
    return NULL;
}

HANDLER(job_finalize)
{
    struct job *job = job_in(args, error);
    if (job) {
        job_finalize(job, error);
    }
    return NULL;
}

HANDLER(job_dismiss)
{
    struct past *past = past_find(qmp_str(args, "id"));
    if (past) {
        g_ptr_array_remove(past_jobs, past);
        return NULL;
    }
    struct job *job = job_in(args, error);
    if (job) {
        job_dismiss(job, error);
    }
    return NULL;
}
