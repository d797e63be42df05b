/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/qmp_transaction.h"

#include "base/error.h"
#include "vmm/monitor/qmp_handlers.h"

/*
 * Several changes of drives, all or none: what was done is undone when a later one fails.
 * Devices belong to the machine lock, which nobody gives up in between, so all of them happen
 * at one moment of the guest.
 */
static const struct {
    const char *type;
    transaction_fn *run;
    void (*undo)(void *done);
    void (*keep)(void *done); /* all have succeeded */
} actions[] = {
    {"block-dirty-bitmap-add", bitmap_add_run, bitmap_undo, bitmap_keep},
    {"block-dirty-bitmap-clear", bitmap_clear_run, bitmap_undo, bitmap_keep},
    {"block-dirty-bitmap-disable", bitmap_disable_run, bitmap_undo, bitmap_keep},
    {"block-dirty-bitmap-enable", bitmap_enable_run, bitmap_undo, bitmap_keep},
    {"block-dirty-bitmap-merge", bitmap_merge_run, bitmap_undo, bitmap_keep},
    {"block-dirty-bitmap-remove", bitmap_remove_run, bitmap_undo, bitmap_keep},
    {"blockdev-backup", blockdev_backup_run, backup_undo, NULL},
    {"blockdev-snapshot", snapshot_run, snapshot_undo, NULL},
    {"blockdev-snapshot-sync", snapshot_sync_run, snapshot_undo, NULL},
    {"drive-backup", drive_backup_run, backup_undo, NULL},
};

static int find(const json_t *action, GError **error)
{
    const char *type = json_string_value(json_object_get(action, "type"));
    for (unsigned i = 0; i < G_N_ELEMENTS(actions); i++) {
        if (g_strcmp0(actions[i].type, type) == 0) {
            return (int)i;
        }
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "Invalid parameter '%s'", type ? type : "type");
    return -1;
}

json_t *qmp_transaction(json_t *args, GError **error)
{
    json_t *list = json_object_get(args, "actions"), *action;
    size_t n = json_array_size(list), i, done = 0;
    g_autofree int *kinds = g_new(int, n + 1);
    g_autofree void **results = g_new0(void *, n + 1);
    json_array_foreach(list, i, action)
    {
        kinds[i] = find(action, error);
        if (kinds[i] < 0) {
            return NULL;
        }
    }
    for (; done < n; done++) {
        json_t *data = json_object_get(json_array_get(list, done), "data");
        results[done] = actions[kinds[done]].run(data, error);
        if (!results[done]) {
            break;
        }
    }
    bool whole = done == n;
    while (done-- > 0) {
        void (*end)(void *) = whole ? actions[kinds[done]].keep : actions[kinds[done]].undo;
        if (end) {
            end(results[done]);
        }
    }
    return NULL;
}
