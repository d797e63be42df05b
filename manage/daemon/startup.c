/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * startupPolicy: what becomes of a disk whose file is not there when its machine starts.
 *
 * Spec: libvirt, "Domain XML format", "Hard drives, floppy disks, CDROMs", startupPolicy.
 */
#include "manage/daemon/files.h"
#include "manage/daemon/machine.h"

#include <string.h>

enum { CHANGE_MISSING, DROP_MISSING }; /* libvirt's numbers */

static bool may_lack(const struct domain_disk *disk, bool cold)
{
    const char *policy = disk->source ? disk->source->startup : NULL;
    return policy &&
           (strcmp(policy, "optional") == 0 || (strcmp(policy, "requisite") == 0 && !cold));
}

static bool is_there(struct domain_disk *disk)
{
    if (!disk_resolve(disk, NULL)) {
        return false;
    }
    const char *path = disk_path(disk);
    struct stat st;
    return !path || path_stat(path, &st) == 0;
}

static void tell(const struct machine *m, const struct domain_disk *disk, int reason)
{
    char *path = (char *)(uintptr_t)disk_path(disk);
    rpc_event_disk_change message = {
        .dom = domain_rpc(m->domain),
        .old_path = path ? &path : NULL,
        .alias = disk->alias,
        .reason = reason,
    };
    message.dom.id = (int)m->def->id;
    event_domain_disk_change(&message);
    g_free(message.dom.name);
}

void startup_drop_missing(struct machine *m, bool cold)
{
    GPtrArray *disks = m->def->disks;
    for (unsigned i = 0; i < xml_count(disks);) {
        struct domain_disk *disk = disks->pdata[i];
        bool drive = disk->device != DISK_DEVICE_DISK;
        if (!may_lack(disk, cold) || is_there(disk)) {
            i++;
            continue;
        }
        tell(m, disk, drive ? CHANGE_MISSING : DROP_MISSING);
        if (drive) {
            xml_free(&disk_source_table, g_steal_pointer(&disk->source));
            i++;
        } else {
            xml_free(&disk_table, g_ptr_array_remove_index(disks, i));
        }
    }
}
