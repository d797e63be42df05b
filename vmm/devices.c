/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest/cpu/vcpu.h"
#include "guest/device/pc_dimm.h"
#include "guest/device/pci.h"
#include "host/image/image.h"
#include "vmm/options.h"
#include "vmm/build.h"
#include "vmm/dump.h"
#include "vmm/migrate.h"
#include "vmm/vm.h"

#include <string.h>

/* devices - -device, -global, and what `-device help` says */

static const char *const bus_names[] = {
    [BUS_BOARD] = NULL, [BUS_ISA] = "ISA", [BUS_PCI] = "PCI", [BUS_VIRTIO] = "virtio-bus",
    [BUS_IDE] = "IDE",  [BUS_SCSI] = "SCSI", [BUS_USB] = "usb-bus", [BUS_HDA] = "HDA", [BUS_OTHER] = "other",
};

/* ---- processors: their model's name is that of -cpu and this ---- */

static const char cpu_suffix[] = "x86_64-cpu";

uint64_t vm_memory(void)
{
    return vm_options()->machine.ram_bytes + pc_dimm_total(vm_board());
}

char *vm_cpu_type(void)
{
    const struct vcpu *cpu = vcpu_at(0);
    return g_strdup_printf("%s-%s", cpu && cpu->model ? cpu->model->name : "max", cpu_suffix);
}

static const struct device_model *cpu_model_for_user(const char *name, GError **error)
{
    g_autofree char *type = vm_cpu_type();
    if (g_str_equal(name, type) || g_str_equal(name, cpu_suffix)) {
        return device_model_find(cpu_suffix);
    }
    g_set_error(error, LODGE_ERROR, EINVAL, "Invalid CPU type, expected cpu type: '%s'", type);
    return NULL;
}

void vm_list_devices(GString *out)
{
    for (unsigned i = 0; i < n_device_models; i++) {
        const struct device_model *m = device_models[i];
        if (m->bus != BUS_BOARD) {
            g_string_append_printf(out, "name \"%s\", bus %s%s%s%s, desc \"%s\"\n", m->name,
                                   bus_names[m->bus], m->alias ? ", alias \"" : "",
                                   m->alias ? m->alias : "", m->alias ? "\"" : "",
                                   m->about ? m->about : "");
        }
    }
}

static const struct device_model *model_for_user(const char *name, GError **error)
{
    const struct device_model *m = device_model_find(name);
    if (g_str_has_suffix(name, cpu_suffix) && vm_board()) {
        return cpu_model_for_user(name, error);
    }
    if (!m) {
        g_set_error(error, LODGE_ERROR, ENOENT,
                    "'%s' is not a valid device model name; -device help lists them", name);
    } else if (m->bus == BUS_BOARD) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "device %s is soldered to boards", name);
    } else {
        return m;
    }
    return NULL;
}

bool vm_list_device_properties(const char *name, GString *out, GError **error)
{
    static const char *const kinds[] = {
        [PROP_BOOL] = "bool",     [PROP_U8] = "uint8",      [PROP_U16] = "uint16",
        [PROP_U32] = "uint32",    [PROP_U64] = "uint64",    [PROP_STRING] = "str",
        [PROP_MAC] = "str",       [PROP_DRIVE] = "str",     [PROP_NETDEV] = "str",
        [PROP_CHARDEV] = "str",   [PROP_RNG] = "link",       [PROP_AUDIO] = "str",
    };
    const struct device_model *m = model_for_user(name, error);
    if (!m) {
        return false;
    }
    g_string_append_printf(out, "%s options:\n", m->name);
    for (unsigned i = 0; i < m->nprops; i++) {
        const struct prop *p = &m->props[i];
        g_string_append_printf(out, "  %s=<%s>%s%s\n", p->name, kinds[p->kind], p->help ? " - " : "",
                               p->help ? p->help : "");
    }
    return true;
}

/* ---- -global ---- */

static bool add_global(const struct option_use *use, void *owner, GError **error)
{
    g_autofree char *model = NULL, *prop = NULL, *value = NULL;
    const char *eq = strchr(use->text, '='), *dot = strchr(use->text, '.');
    (void)owner;
    if (eq && dot && dot < eq) {
        model = g_strndup(use->text, (size_t)(dot - use->text));
        prop = g_strndup(dot + 1, (size_t)(eq - dot - 1));
        value = g_strdup(eq + 1);
    } else {
        g_autoptr(KeyVal) kv = keyval_parse(use->text, NULL, NULL);
        model = kv ? g_strdup(keyval_get(kv, "driver")) : NULL;
        prop = kv ? g_strdup(keyval_get(kv, "property")) : NULL;
        value = kv ? g_strdup(keyval_get(kv, "value")) : NULL;
    }
    if (!model || !prop || !value) {
        g_set_error(error, LODGE_ERROR, EINVAL, "-global %s: want MODEL.PROPERTY=VALUE", use->text);
        return false;
    }
    const struct device_model *m = device_model_find(model);
    if (!m) { /* lines name models of other machines, too */
        vm_report("-global %s: there is no device \"%s\"", use->text, model);
        return true;
    }
    if (!device_global(m, prop, value, error)) {
        g_prefix_error(error, "-global %s: ", use->text);
        return false;
    }
    return true;
}

bool build_globals(struct vm_options *o, GError **error)
{
    return vm_options_each(o, (const char *const[]){"global", NULL}, add_global, NULL, error);
}

/* ---- -device ---- */

static bool set_all(struct device *dev, KeyVal *kv, GError **error)
{
    for (unsigned i = 0; i < keyval_count(kv); i++) {
        const char *key = keyval_key(kv, i);
        if (!g_str_equal(key, "driver") && !device_set(dev, key, keyval_value(kv, i), error)) {
            return false;
        }
    }
    return true;
}

bool vm_device_add(KeyVal *kv, GError **error)
{
    const char *name = keyval_get(kv, "driver"), *id = keyval_get(kv, "id");
    const struct device_model *m = model_for_user(name ? name : "", error);
    if (!m) {
        return false;
    }
    if (id && board_find(vm_board(), id)) {
        g_set_error(error, LODGE_ERROR, EEXIST, "Duplicate device ID '%s'", id);
        return false;
    }
    struct device *dev = device_new(m);
    if (!set_all(dev, kv, error)) {
        device_free(dev);
        return false;
    }
    return device_start(dev, vm_board(), NULL, error);
}

/* ---- coming and going while the guest runs ---- */

static bool is_hot(const struct pci_bus *bus, GError **error)
{
    if (!bus->plugged) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Bus '%s' does not support hotplugging", bus->name);
    }
    return bus->plugged != NULL;
}

/* On buses where the device itself tells the guest, and may go without being asked for. */
static bool comes_and_goes(const struct device_model *m)
{
    return m->bus == BUS_SCSI || m->bus == BUS_USB;
}

static bool add_now(KeyVal *kv, GError **error)
{
    vm_hold();
    bool good = vm_device_add(kv, error);
    vm_release();
    return good;
}

/* What the migration has not sent must not change under it. */
static bool stays(const char *command, GError **error)
{
    if (!migrate_running()) {
        return false;
    }
    g_set_error(error, LODGE_ERROR, EBUSY, "%s not allowed while migrating", command);
    return true;
}

/* Those that are told to the guest by their own kind of message. */
static bool plug(const struct device_model *m, KeyVal *kv, GError **error)
{
    struct board *board = vm_board();
    vm_hold();
    bool good = vm_device_add(kv, error);
    struct device *dev = board->devices;
    for (struct device *d = dev; d; d = d->next) {
        dev = d->model == m ? d : dev; /* the latest */
    }
    if (good) {
        m->plugged(dev);
    }
    vm_release();
    return good;
}

bool vm_device_hotplug(KeyVal *kv, GError **error)
{
    const char *name = keyval_get(kv, "driver"), *id = keyval_get(kv, "id");
    const char *bus_name = keyval_get(kv, "bus");
    struct board *board = vm_board();
    const struct device_model *m = model_for_user(name ? name : "", error);
    if (!m || stays("device_add", error)) {
        return false;
    }
    if (comes_and_goes(m)) {
        return add_now(kv, error);
    }
    if (m->plugged) {
        return plug(m, kv, error);
    }
    struct pci_bus *bus = bus_name ? pci_bus_find(board, bus_name) : board->pci;
    if (m->bus != BUS_PCI || m->soldered || !bus) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Bus of device '%s' does not support hotplugging",
                    m->name);
        return false;
    }
    if (!is_hot(bus, error)) {
        return false;
    }
    vm_hold();
    struct device *before = board->devices;
    bool good = vm_device_add(kv, error);
    struct device *dev = good && id ? board_find(board, id) : before;
    while (good && !id && dev && dev->next) {
        dev = dev->next; /* the latest */
    }
    if (dev && good) {
        bus->plugged(bus, (struct pci_device *)dev);
    }
    vm_release();
    return good;
}

bool vm_device_remove(const char *id, GError **error)
{
    struct device *dev = board_find(vm_board(), id);
    if (!dev) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Device '%s' not found", id);
        return false;
    }
    if (stays("device_del", error)) {
        return false;
    }
    if (dev->model->unplug) {
        return dev->model->unplug(dev, error);
    }
    if (comes_and_goes(dev->model)) {
        vm_device_eject(vm_board(), dev);
        return true;
    }
    if (dev->model->bus != BUS_PCI || dev->model->soldered) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "Device '%s' does not support hotplugging", id);
        return false;
    }
    struct pci_device *pci = (struct pci_device *)dev;
    return is_hot(pci->bus, error) && pci->bus->unplug(pci->bus, pci, error);
}

static GPtrArray *ejected; /* of struct device: under the machine lock */

static gboolean free_ejected(gpointer unused)
{
    (void)unused;
    if (migrate_running() || dump_view().status == DUMP_ACTIVE) { /* they read all memory */
        g_timeout_add(100, free_ejected, NULL);
        return G_SOURCE_REMOVE;
    }
    vm_hold();
    while (ejected->len) {
        struct device *dev = g_ptr_array_remove_index(ejected, 0);
        if (dev->model->ejected) {
            image_drain_all(); /* what a disk still writes to memory that goes */
        }
        json_t *what = json_pack("{s:s*, s:s}", "device", dev->id, "path", dev->path);
        device_free(dev);
        vm_event("DEVICE_DELETED", what);
    }
    vm_release();
    return G_SOURCE_REMOVE;
}

void vm_device_eject(struct board *board, struct device *dev)
{
    (void)board;
    ejected = ejected ? ejected : g_ptr_array_new();
    if (g_ptr_array_find(ejected, dev, NULL)) {
        return; /* asked for twice */
    }
    g_ptr_array_add(ejected, dev);
    if (ejected->len == 1) {
        g_idle_add(free_ejected, NULL);
    }
}
