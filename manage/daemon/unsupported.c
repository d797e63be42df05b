/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manage/daemon/machine.h"

#include "manage/rpc/error.h"

/*
 * What libvirt's XML can ask for and a machine here does not get yet.  Such a domain can be
 * defined, but starting it as if nothing had been asked would be a lie.
 */
struct wish {
    const char *element;
    uint16_t offset; /* of an int64_t, or of a pointer, in struct domain_def */
    bool pointer;
};
#define NUMBER(member, element) {element, offsetof(struct domain_def, member), false}
#define OBJECT(member, element) {element, offsetof(struct domain_def, member), true}
static const struct wish wishes[] = {
    NUMBER(iothreads, "iothreads"),
    NUMBER(blkio_weight, "blkiotune/weight"),
    OBJECT(blkio_devices, "blkiotune/device"),
    NUMBER(cpu_shares, "cputune/shares"),
    NUMBER(cpu_period, "cputune/period"),
    NUMBER(cpu_quota, "cputune/quota"),
    NUMBER(global_period, "cputune/global_period"),
    NUMBER(global_quota, "cputune/global_quota"),
    NUMBER(emulator_period, "cputune/emulator_period"),
    NUMBER(emulator_quota, "cputune/emulator_quota"),
    OBJECT(vcpu_pins, "cputune/vcpupin"),
    OBJECT(emulator_pin, "cputune/emulatorpin"),
    OBJECT(vcpu_cpuset, "vcpu/@cpuset"),
    NUMBER(hard_limit, "memtune/hard_limit"),
    NUMBER(soft_limit, "memtune/soft_limit"),
    NUMBER(swap_hard_limit, "memtune/swap_hard_limit"),
    OBJECT(numatune_nodeset, "numatune/memory"),
};

static bool refuse(GError **error, const char *what)
{
    libvirt_error(error, ERR_CONFIG_UNSUPPORTED, "%s is not supported by lodged yet", what);
    return false;
}

static bool asked(const DomainDef *def, const struct wish *w)
{
    const void *at = (const char *)def + w->offset;
    if (!w->pointer) {
        return *(const int64_t *)at != XML_ABSENT;
    }
    return *(void *const *)at != NULL;
}

/* A list that the model makes for every domain is asked for when something is in it. */
static bool empty_list(const DomainDef *def, const struct wish *w)
{
    const GPtrArray *list = *(GPtrArray *const *)((const char *)def + w->offset);
    bool is_list = w->offset == offsetof(struct domain_def, blkio_devices) ||
                   w->offset == offsetof(struct domain_def, vcpu_pins);
    return is_list && list->len == 0;
}

static bool disks_are_plain(const DomainDef *def, GError **error)
{
    for (unsigned i = 0; def->disks && i < def->disks->len; i++) {
        const struct domain_disk *d = def->disks->pdata[i];
        if (d->iotune) {
            return refuse(error, "disk/iotune");
        }
        if (d->iothread != XML_ABSENT) {
            return refuse(error, "disk/driver/@iothread");
        }
    }
    return true;
}

static bool cards_are_plain(const DomainDef *def, GError **error)
{
    for (unsigned i = 0; def->interfaces && i < def->interfaces->len; i++) {
        const struct domain_interface *n = def->interfaces->pdata[i];
        if (n->inbound || n->outbound) {
            return refuse(error, "interface/bandwidth");
        }
        if (n->queues != XML_ABSENT && n->queues > 1) {
            return refuse(error, "interface/driver/@queues");
        }
    }
    return true;
}

bool machine_can_be(const DomainDef *def, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(wishes); i++) {
        if (asked(def, &wishes[i]) && !empty_list(def, &wishes[i])) {
            return refuse(error, wishes[i].element);
        }
    }
    if (def->cpu && def->cpu->cells && def->cpu->cells->len) {
        return refuse(error, "cpu/numa");
    }
    return disks_are_plain(def, error) && cards_are_plain(def, error);
}
