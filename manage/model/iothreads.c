/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Spec: libvirt, "Domain XML format", "IOThreads Allocation", "CPU Tuning". */
#include "manage/model/iothreads.h"

#include "manage/error.h"
#include "manage/model/cpuset.h"

static int ascending(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static bool holds(const GArray *ids, int64_t id)
{
    for (unsigned i = 0; i < ids->len; i++) {
        if (g_array_index(ids, int64_t, i) == id) {
            return true;
        }
    }
    return false;
}

GArray *domain_iothreads(const DomainDef *def)
{
    GArray *ids = g_array_new(FALSE, FALSE, sizeof(int64_t));
    for (unsigned i = 0; i < xml_count(def->iothread_ids); i++) {
        g_array_append_val(ids, ((const struct iothread_id *)def->iothread_ids->pdata[i])->id);
    }
    for (int64_t id = 1; def->iothreads != XML_ABSENT && (int64_t)ids->len < def->iothreads; id++) {
        if (!holds(ids, id)) {
            g_array_append_val(ids, id);
        }
    }
    g_array_sort(ids, ascending);
    return ids;
}

bool domain_has_iothread(const DomainDef *def, int64_t id)
{
    g_autoptr(GArray) ids = domain_iothreads(def);
    return holds(ids, id);
}

static void append(DomainDef *def, int64_t id)
{
    struct iothread_id *one = g_new0(struct iothread_id, 1);
    one->id = id;
    xml_append(NULL, &def->iothread_ids, one);
}

void domain_add_iothread(DomainDef *def, int64_t id)
{
    g_autoptr(GArray) ids = domain_iothreads(def);
    append(def, id);
    def->iothreads = ids->len + 1;
}

void domain_drop_iothread(DomainDef *def, int64_t id)
{
    g_autoptr(GArray) ids = domain_iothreads(def);
    for (unsigned i = 0; i < xml_count(def->iothread_ids); i++) {
        g_free(def->iothread_ids->pdata[i]);
    }
    g_clear_pointer(&def->iothread_ids, g_ptr_array_unref);
    for (unsigned i = 0; i < ids->len; i++) {
        if (g_array_index(ids, int64_t, i) != id) {
            append(def, g_array_index(ids, int64_t, i));
        }
    }
    def->iothreads = xml_count(def->iothread_ids) ? xml_count(def->iothread_ids) : XML_ABSENT;
    for (unsigned i = 0; i < xml_count(def->iothread_pins); i++) {
        struct iothread_pin *pin = def->iothread_pins->pdata[i];
        if (pin->iothread == id) {
            g_ptr_array_remove_index(def->iothread_pins, i);
            g_free(pin->cpuset);
            g_free(pin);
            break;
        }
    }
}

const char *domain_iothread_user(const DomainDef *def, int64_t id)
{
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        if (disk->iothread == id) {
            return disk->target;
        }
    }
    for (unsigned i = 0; i < xml_count(def->controllers); i++) {
        const struct domain_controller *c = def->controllers->pdata[i];
        if (c->iothread == id) {
            return c->alias ? c->alias : "scsi";
        }
    }
    return NULL;
}

static struct iothread_pin *find_pin(const DomainDef *def, int64_t id)
{
    for (unsigned i = 0; i < xml_count(def->iothread_pins); i++) {
        struct iothread_pin *pin = def->iothread_pins->pdata[i];
        if (pin->iothread == id) {
            return pin;
        }
    }
    return NULL;
}

const char *domain_iothread_pin(const DomainDef *def, int64_t id)
{
    const struct iothread_pin *pin = find_pin(def, id);
    return pin ? pin->cpuset : NULL;
}

void domain_pin_iothread(DomainDef *def, int64_t id, const char *cpuset)
{
    struct iothread_pin *pin = find_pin(def, id);
    if (!pin) {
        pin = g_new0(struct iothread_pin, 1);
        pin->iothread = id;
        xml_append(NULL, &def->iothread_pins, pin);
    }
    g_free(pin->cpuset);
    pin->cpuset = g_strdup(cpuset);
}

static bool check_users(const DomainDef *def, const GArray *ids, GError **error)
{
    for (unsigned i = 0; i < xml_count(def->disks); i++) {
        const struct domain_disk *disk = def->disks->pdata[i];
        if (disk->iothread == XML_ABSENT) {
            continue;
        }
        if (disk->bus != BUS_VIRTIO) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "IOThreads not available for bus %s target %s", disk_bus_words[disk->bus],
                          disk->target);
            return false;
        }
        if (!holds(ids, disk->iothread)) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          "Disk iothread '%ld' not defined in iothreadid", (long)disk->iothread);
            return false;
        }
    }
    for (unsigned i = 0; i < xml_count(def->controllers); i++) {
        const struct domain_controller *c = def->controllers->pdata[i];
        if (c->iothread != XML_ABSENT && (c->type != CONTROLLER_SCSI || !holds(ids, c->iothread))) {
            libvirt_error(error, ERR_CONFIG_UNSUPPORTED,
                          c->type == CONTROLLER_SCSI
                              ? "Controller iothread '%ld' not defined in iothreadid"
                              : "'iothread' attribute only supported for virtio scsi controllers",
                          (long)c->iothread);
            return false;
        }
    }
    return true;
}

bool domain_check_iothreads(const DomainDef *def, GError **error)
{
    if (def->iothreads != XML_ABSENT && (def->iothreads < 0 || def->iothreads > IOTHREADS_MAX)) {
        libvirt_error(error, ERR_XML, "there are at most %d iothreads", IOTHREADS_MAX);
        return false;
    }
    g_autoptr(GArray) ids = domain_iothreads(def);
    for (unsigned i = 0; i < ids->len; i++) {
        int64_t id = g_array_index(ids, int64_t, i);
        if (id < 1 || id > UINT32_MAX || (i && id == g_array_index(ids, int64_t, i - 1))) {
            libvirt_error(error, ERR_XML, "iothread id %ld is not valid, or there twice", (long)id);
            return false;
        }
    }
    for (unsigned i = 0; i < xml_count(def->iothread_pins); i++) {
        const struct iothread_pin *pin = def->iothread_pins->pdata[i];
        struct cpuset set;
        if (!holds(ids, pin->iothread)) {
            libvirt_error(error, ERR_XML, "Cannot find 'iothread' : %ld", (long)pin->iothread);
            return false;
        }
        if (!cpuset_parse(pin->cpuset, &set, error)) {
            return false;
        }
    }
    return check_users(def, ids, error);
}
