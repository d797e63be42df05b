/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/migrate.h"

#include "base/util.h"
#include "manage/daemon/disks.h"
#include "manage/daemon/files.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define JOB_PREFIX "migration-"
enum { LOOK_US = 20000, END_SECONDS = 30 };
enum { MOVE_COPIES = MOVE_NON_SHARED_DISK | MOVE_NON_SHARED_INC };

bool move_copies(const struct move *w, const struct domain_disk *disk)
{
    if (!(w->flags & MOVE_COPIES) || disk->readonly || disk->device != DISK_DEVICE_DISK) {
        return false;
    }
    for (unsigned i = 0; w->disks && i < w->disks->len; i++) {
        if (g_strcmp0(w->disks->pdata[i], disk->target) == 0) {
            return true;
        }
    }
    return !w->disks && !disk->shareable;
}

uint64_t move_line(const char *lines, const char *key)
{
    g_auto(GStrv) all = g_strsplit(lines ? lines : "", "\n", -1);
    size_t n = strlen(key);
    for (char **one = all; *one; one++) {
        if (g_str_has_prefix(*one, key) && (*one)[n] == ' ') {
            return g_ascii_strtoull(*one + n + 1, NULL, 10);
        }
    }
    return 0;
}

/* All that @w names are disks of the machine. */
static bool check_names(const DomainDef *def, const struct move *w, GError **error)
{
    for (unsigned i = 0; w->disks && i < w->disks->len; i++) {
        const char *name = w->disks->pdata[i];
        if (!domain_find_disk((DomainDef *)(uintptr_t)def, name)) {
            libvirt_error(error, ERR_INVALID_ARG, "disk target %s not found", name);
            return false;
        }
    }
    return true;
}

bool move_disks_describe(struct machine *m, const struct move *w, GString *lines, GError **error)
{
    if (!(w->flags & MOVE_COPIES)) {
        return true;
    }
    if (!check_names(m->def, w, error)) {
        return false;
    }
    for (unsigned i = 0; !m->ended && i < xml_count(m->def->disks); i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        g_autofree char *alias = g_strdup(disk->alias), *target = g_strdup(disk->target);
        if (!move_copies(w, disk)) {
            continue;
        }
        uint64_t size = disk_size(m, alias, error);
        if (!size) {
            return false;
        }
        g_string_append_printf(lines, "disk-%s %" G_GUINT64_FORMAT "\n", target, size);
    }
    return true;
}

bool move_disks_make(const struct move *w, const DomainDef *def, const char *lines, GPtrArray *made,
                     GError **error)
{
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        g_autofree char *key = g_strconcat("disk-", disk->target, NULL);
        const char *path = disk_path(disk);
        struct stat st = {0};
        if (!move_copies(w, disk) || !path) {
            continue;
        }
        if (!file_answers(path, &st, error)) {
            return false;
        }
        if (st.st_nlink) {
            continue;
        }
        if (w->flags & MOVE_NON_SHARED_INC) {
            libvirt_error(error, ERR_OPERATION_UNSUPPORTED,
                          "pre-creation of storage targets for incremental storage migration is "
                          "not supported: '%s' is missing",
                          path);
            return false;
        }
        uint64_t size = move_line(lines, key);
        if (!size) {
            libvirt_error(error, ERR_OPERATION_FAILED,
                          "the source does not tell the size of disk '%s'", disk->target);
            return false;
        }
        if (!disk_create_image(path, disk->format, size, NULL, NULL, error)) {
            return false;
        }
        g_ptr_array_add(made, g_strdup(path));
    }
    return true;
}

/* --- the destination --- */

bool move_disks_serve(struct machine *m, const struct move *w, unsigned *port, GError **error)
{
    bool serving = false;
    for (unsigned i = 0; i < xml_count(m->def->disks); i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        g_autofree char *node = disk_node_name(disk), *name = g_strdup(disk->target);
        if (!move_copies(w, disk)) {
            continue;
        }
        if (!serving) {
            autofd int fd = move_port(w->listen, port, error);
            if (fd < 0 || !qmp_give_fd(m->qmp, fd, "disks", error) ||
                !qmp_do(m->qmp, error, "nbd-server-start", "{s:{s:s, s:{s:s}}}", "addr", "type",
                        "fd", "data", "str", "disks")) {
                return false;
            }
            serving = true;
        }
        if (!node || !qmp_do(m->qmp, error, "block-export-add", "{s:s, s:s, s:s, s:s, s:b}", "type",
                             "nbd", "id", name, "node-name", node, "name", name, "writable", 1)) {
            return false;
        }
    }
    *port = serving ? *port : 0;
    return true;
}

/* --- the source --- */

/* Of this move: what is left of one before may still be on its way out. */
static char *node_of(const struct machine *m, const char *target)
{
    return g_strdup_printf(JOB_PREFIX "%u-%s", m->move.number, target);
}

static bool send_one(struct machine *m, const struct domain_disk *disk, const struct move *w,
                     const char *host, unsigned port, GError **error)
{
    g_autofree char *node = node_of(m, disk->target), *from = disk_node_name(disk);
    g_autofree char *port_text = g_strdup_printf("%u", port);
    bool top = w->flags & MOVE_NON_SHARED_INC && disk->backing && disk->backing->source;
    uint64_t speed = w->bandwidth ? w->bandwidth : m->move.speed;
    speed = speed > INT64_MAX >> 20 ? 0 : speed << 20;
    if (!from) {
        libvirt_error(error, ERR_OPERATION_UNSUPPORTED, "disk '%s' cannot be copied", disk->target);
        return false;
    }
    return qmp_do(m->qmp, error, "blockdev-add", "{s:s, s:s, s:{s:s, s:{s:s, s:s, s:s}, s:s}}",
                  "driver", "raw", "node-name", node, "file", "driver", "nbd", "server", "type",
                  "inet", "host", host, "port", port_text, "export", disk->target) &&
           qmp_do(m->qmp, error, "blockdev-mirror", "{s:s, s:s, s:s, s:s, s:I, s:b}", "job-id",
                  node, "device", from, "target", node, "sync", top ? "top" : "full", "speed",
                  (json_int_t)speed, "auto-dismiss", 0);
}

/* False with an error if one has failed, or (@equal) ended.  @equal: whether all are, or NULL. */
static bool look(struct machine *m, unsigned wanted, struct job_figures *sum, bool *equal,
                 GError **error)
{
    g_autofree char *prefix = node_of(m, "");
    g_autoptr(json_t) rows = qmp_run(m->qmp, "query-block-jobs", NULL, QMP_TIMEOUT_MS, error);
    unsigned there = 0, ready = 0;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *id = json_string_value(json_object_get(row, "device"));
        const char *why = json_string_value(json_object_get(row, "error"));
        const char *status = json_string_value(json_object_get(row, "status"));
        if (!id || !g_str_has_prefix(id, prefix)) {
            continue;
        }
        if (why) {
            libvirt_error(error, ERR_OPERATION_FAILED,
                          "migration of disk %s to the destination failed: %s", id + strlen(prefix),
                          why);
            return false;
        }
        there += !equal || g_strcmp0(status, "concluded") != 0;
        ready += json_is_true(json_object_get(row, "ready"));
        sum->total += (uint64_t)json_integer_value(json_object_get(row, "len"));
        sum->processed += (uint64_t)json_integer_value(json_object_get(row, "offset"));
    }
    if (rows && there < wanted) {
        libvirt_error(error, ERR_OPERATION_FAILED, "migration of a disk to the destination failed");
        return false;
    }
    if (equal) {
        *equal = ready == wanted;
    }
    return rows != NULL;
}

static bool wait_equal(struct machine *m, unsigned wanted, GError **error)
{
    bool equal = false;
    while (!equal) {
        m->job.total = m->job.processed = 0;
        if (m->move.cancelled || m->move.given_up) {
            libvirt_error(error, ERR_OPERATION_ABORTED, "migration out job: canceled by client");
            return false;
        }
        if (!look(m, wanted, &m->job, &equal, error)) {
            return false;
        }
        if (!equal) {
            daemon_wait(g_get_monotonic_time() + LOOK_US);
        }
    }
    return true;
}

bool move_disks_send(struct machine *m, const struct move *w, unsigned port, GError **error)
{
    g_autofree char *host = move_host_of(w->uri);
    unsigned n = 0;
    for (unsigned i = 0; !m->ended && i < xml_count(m->def->disks); i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        if (!move_copies(w, disk)) {
            continue;
        }
        if (!port) {
            libvirt_error(error, ERR_OPERATION_FAILED, "the destination takes no disks");
            return false;
        }
        if (!send_one(m, disk, w, host ? host : "localhost", port, error)) {
            return false;
        }
        n++;
    }
    return n == 0 || wait_equal(m, n, error);
}

bool move_disks_whole(struct machine *m, const struct move *w, GError **error)
{
    struct job_figures ignored = {0};
    unsigned wanted = 0;
    for (unsigned i = 0; !m->ended && i < xml_count(m->def->disks); i++) {
        wanted += move_copies(w, m->def->disks->pdata[i]);
    }
    return wanted == 0 || look(m, wanted, &ignored, NULL, error);
}

void move_disks_cancel(struct machine *m, const struct move *w)
{
    for (unsigned i = 0; !m->ended && i < xml_count(m->def->disks); i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        g_autofree char *node = node_of(m, disk->target);
        if (move_copies(w, disk)) {
            qmp_do(m->qmp, NULL, "block-job-cancel", "{s:s, s:b}", "device", node, "force", 1);
        }
    }
}

/* The number in "migration-NUMBER-..."; -1: something else. */
static int64_t number_of(const char *name)
{
    return name && g_str_has_prefix(name, JOB_PREFIX)
               ? (int64_t)g_ascii_strtoull(name + strlen(JOB_PREFIX), NULL, 10)
               : -1;
}

/* Mirrors of any move that have ended; true if there are no others.  A machine that does not answer
 * has none. */
static bool dismiss(struct machine *m)
{
    g_autoptr(json_t) rows = qmp_run(m->qmp, "query-block-jobs", NULL, QMP_TIMEOUT_MS, NULL);
    bool all = true;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *id = json_string_value(json_object_get(row, "device"));
        if (number_of(id) >= 0) {
            all &= qmp_do(m->qmp, NULL, "job-dismiss", "{s:s}", "id", id);
        }
    }
    return all;
}

/* One that hangs at its server is left to the next move. */
static void dismiss_all(struct machine *m)
{
    int64_t until = g_get_monotonic_time() + END_SECONDS * (int64_t)G_USEC_PER_SEC;
    while (!m->ended && !dismiss(m) && g_get_monotonic_time() < until) {
        daemon_wait(g_get_monotonic_time() + LOOK_US);
    }
}

void move_disks_end(struct machine *m, const struct move *w)
{
    if (!(w->flags & MOVE_COPIES)) {
        return;
    }
    dismiss_all(m);
    for (unsigned i = 0; !m->ended && i < xml_count(m->def->disks); i++) {
        const struct domain_disk *disk = m->def->disks->pdata[i];
        g_autofree char *node = node_of(m, disk->target);
        if (move_copies(w, disk)) {
            qmp_do(m->qmp, NULL, "blockdev-del", "{s:s}", "node-name", node);
        }
    }
}

/* @command with @name for each of the rows of @query that a move has made. */
static void end_all(struct machine *m, const char *query, const char *key, const char *command,
                    const char *argument)
{
    g_autoptr(json_t) rows = qmp_run(m->qmp, query, NULL, QMP_TIMEOUT_MS, NULL);
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *name = json_string_value(json_object_get(row, key));
        int64_t number = number_of(name);
        if (number >= 0) {
            m->move.number = MAX(m->move.number, (unsigned)number + 1);
            qmp_do(m->qmp, NULL, command, "{s:s}", argument, name);
        }
    }
}

void move_disks_recover(struct machine *m)
{
    end_all(m, "query-block-jobs", "device", "job-cancel", "id");
    dismiss_all(m);
    end_all(m, "query-named-block-nodes", "node-name", "blockdev-del", "node-name");
}
