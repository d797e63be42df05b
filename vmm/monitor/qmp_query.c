/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/qmp_handlers.h"
#include "vmm/monitor/qmp_qom.h"

#include "guest/cpu/engine.h"
#include "guest/cpu/translate/bt.h"
#include "guest/cpu/vcpu.h"
#include "guest/device/pci.h"
#include "guest/device/iothread.h"
#include "guest/device/virtio_balloon.h"
#include "guest/machine/machine.h"
#include "host/audio/audio.h"
#include "host/chardev/chardev.h"
#include "host/display/display.h"
#include "host/image/image.h"
#include "host/net/net.h"
#include "vmm/events.h"
#include "vmm/options.h"
#include "vmm/vm.h"

#include <stddef.h>
#include <string.h>

/* The query-... commands: what there is, as JSON. */

enum { QUERY_CLIENTS = 64 };

#define UNUSED (void)args, (void)error
#define HANDLER(name) json_t *qmp_##name(json_t *args, GError **error)

static json_t *u64(uint64_t v)
{
    return json_integer((json_int_t)MIN(v, (uint64_t)INT64_MAX));
}

static const struct machine_config *config(void)
{
    return &vm_options()->machine;
}

HANDLER(query_version)
{
    UNUSED;
    return json_pack("{s:{s:i, s:i, s:i}, s:s+}", "qemu", "micro", 22, "minor", 2, "major", 7,
                     "package", "lodge-vm ", vm_version);
}

HANDLER(query_status)
{
    UNUSED;
    return json_pack("{s:b, s:b, s:s}", "running", vm_running(), "singlestep", 0, "status",
                     vm_states[vm_state()]);
}

HANDLER(query_name)
{
    UNUSED;
    return config()->name ? json_pack("{s:s}", "name", config()->name) : NULL;
}

HANDLER(query_uuid)
{
    UNUSED;
    return json_pack("{s:s}", "UUID",
                     config()->uuid ? config()->uuid : "00000000-0000-0000-0000-000000000000");
}

HANDLER(query_kvm)
{
    UNUSED;
    return json_pack("{s:b, s:b}", "enabled", g_str_equal(config()->engine->name, "kvm"), "present",
                     cpu_engine_find("kvm") != NULL);
}

static json_t *jit_of(unsigned index)
{
    struct bt_counter c[BT_COUNTERS];
    if (!bt_counters(index, c)) {
        return NULL;
    }
    json_t *one = json_pack("{s:i}", "cpu-index", (int)index);
    for (unsigned k = 0; k < BT_COUNTERS; k++) {
        json_object_set_new(one, c[k].name, json_integer((json_int_t)c[k].value));
    }
    return one;
}

HANDLER(query_jit)
{
    UNUSED;
    struct bt_cache_use cache = bt_cache_use();
    json_t *cpus = json_array();
    for (unsigned i = 0; i < vcpu_count(); i++) {
        json_t *one = jit_of(vcpu_at(i)->index);
        if (one) {
            json_array_append_new(cpus, one);
        }
    }
    return json_pack("{s:{s:I, s:I, s:I}, s:o}", "cache", "size", (json_int_t)cache.bytes, "used",
                     (json_int_t)cache.used, "emptied", (json_int_t)cache.emptied, "cpus", cpus);
}

HANDLER(query_target)
{
    UNUSED;
    return json_pack("{s:s}", "arch", "x86_64");
}

HANDLER(query_machines)
{
    UNUSED;
    json_t *list = json_array();
    for (unsigned i = 0; i < n_machine_models; i++) {
        const struct machine_model *m = machine_models[i];
        g_auto(GStrv) aliases = g_strsplit(m->alias ? m->alias : "", ",", -1);
        for (int a = -1; a < 0 || aliases[a]; a++) {
            json_t *row = json_pack("{s:s, s:i, s:b, s:b, s:b, s:b}", "name", a < 0 ? m->name : aliases[a],
                                    "cpu-max", (int)m->max_cpus, "hotpluggable-cpus", m->max_cpus > 1,
                                    "numa-mem-supported", 0, "deprecated", 0, "acpi", 1);
            if (a < 0 && m->is_default) {
                json_object_set_new(row, "is-default", json_true());
            }
            json_array_append_new(list, row);
            if (!aliases[0]) {
                break;
            }
        }
    }
    return list;
}

HANDLER(query_current_machine)
{
    UNUSED;
    return json_pack("{s:b}", "wakeup-suspend-support", 1);
}

HANDLER(query_cpu_definitions)
{
    UNUSED;
    json_t *list = json_array();
    const char *name, *vendor;
    for (unsigned i = 0; (name = cpu_model_name(i, &vendor)); i++) {
        g_autoptr(GString) lacks = g_string_new(NULL);
        cpu_model_lacks(i, config()->engine->name, lacks);
        g_auto(GStrv) words = g_strsplit(lacks->str, ",", -1);
        json_t *missing = json_array();
        for (unsigned k = 0; words[k] && *words[k]; k++) {
            json_array_append_new(missing, json_string(words[k]));
        }
        json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:b, s:s, s:o}", "name", name,
                                              "migration-safe", vendor != NULL, "static", 0,
                                              "deprecated", 0, "typename", name,
                                              "unavailable-features", missing));
    }
    return list;
}

static void put_feature(const char *name, bool on, void *data)
{
    json_object_set_new(data, name, json_boolean(on));
}

/* {"name": "x", "props": {"avx2": false}} as -cpu's argument. */
static char *cpu_spec(json_t *model, GError **error)
{
    const char *name = qmp_str(model, "name"), *key;
    json_t *value;
    if (!name) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'model.name' is missing");
        return NULL;
    }
    g_autoptr(GString) spec = g_string_new(name);
    json_object_foreach(json_object_get(model, "props"), key, value)
    {
        if (!json_is_boolean(value) || strchr(key, ',')) {
            g_set_error(error, LODGE_ERROR, EINVAL, "Property '%s' is no boolean", key);
            return NULL;
        }
        g_string_append_printf(spec, ",%s=%s", key, json_is_true(value) ? "on" : "off");
    }
    return g_string_free(g_steal_pointer(&spec), FALSE);
}

/* What -cpu gives with the engine that runs; the answer's name is that of the model, whatever
 * the type of the expansion, since there is no model "base" here. */
HANDLER(query_cpu_model_expansion)
{
    const char *type = qmp_str(args, "type");
    if (strcmp(type, "static") != 0 && strcmp(type, "full") != 0) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Parameter 'type' does not accept value '%s'",
                    type);
        return NULL;
    }
    g_autofree char *spec = cpu_spec(json_object_get(args, "model"), error);
    g_autofree struct cpu_model *m =
        spec ? cpu_model_new(spec, config()->engine->name, NULL, error) : NULL;
    if (!m) {
        return NULL;
    }
    json_t *props = json_object();
    cpu_model_each_feature(m, put_feature, props);
    json_object_set_new(props, "vendor", json_string(m->vendor));
    json_object_set_new(props, "family", json_integer(m->family));
    json_object_set_new(props, "model", json_integer(m->model));
    json_object_set_new(props, "stepping", json_integer(m->stepping));
    json_object_set_new(props, "model-id", json_string(m->brand));
    return json_pack("{s:{s:s, s:o}}", "model", "name", m->name, "props", props);
}

HANDLER(query_nothing_list)
{
    UNUSED;
    return json_array();
}

HANDLER(query_mice)
{
    UNUSED;
    struct display *d = vm_board()->display;
    const struct display_input *current = display_pointer_input(d, NULL);
    json_t *list = json_array();
    for (const struct display_input *in = d->inputs; in; in = in->next) {
        if (in->pointer) {
            json_array_append_new(list, json_pack("{s:s, s:i, s:b, s:b}", "name", in->name, "index",
                                                  (int)json_array_size(list), "current", in == current,
                                                  "absolute", in->absolute));
        }
    }
    return list;
}

HANDLER(query_vnc)
{
    UNUSED;
    struct vnc_end server, client[QUERY_CLIENTS];
    if (!vnc_server(&server)) {
        return json_pack("{s:b}", "enabled", 0);
    }
    unsigned n = vnc_clients(client, QUERY_CLIENTS);
    json_t *answer = event_vnc_end(&server), *list = json_array();
    for (unsigned i = 0; i < n; i++) {
        json_array_append_new(list, event_vnc_end(&client[i]));
    }
    json_object_del(answer, "websocket");
    json_object_set_new(answer, "enabled", json_true());
    json_object_set_new(answer, "auth", json_string(vnc_auth()));
    json_object_set_new(answer, "clients", list);
    return answer;
}

static void add_iothread(const char *id, int tid, void *list)
{
    json_array_append_new(list, json_pack("{s:s, s:i, s:i, s:i, s:i, s:i}", "id", id, "thread-id",
                                          tid, "poll-max-ns", 0, "poll-grow", 0, "poll-shrink", 0,
                                          "aio-max-batch", 0));
}

HANDLER(query_iothreads)
{
    UNUSED;
    json_t *list = json_array();
    iothread_each(add_iothread, list);
    return list;
}

HANDLER(query_balloon)
{
    struct device *dev = board_part(vm_board(), "balloon");
    (void)args;
    if (!dev) {
        g_set_error(error, LODGE_ERROR, ENXIO, "No balloon device has been activated");
        return NULL;
    }
    return json_pack("{s:o}", "actual", u64(vm_memory() - balloon_given(dev)));
}

/* ---- command line ---- */

HANDLER(query_command_line_options)
{
    const char *wanted = qmp_str(args, "option");
    json_t *list = json_array();
    for (unsigned i = 0; i < vm_option_count(); i++) {
        bool argument, refused;
        const char *name = vm_option_name(i, &argument, &refused);
        if (name && !refused && argument && (!wanted || g_str_equal(wanted, name))) {
            json_array_append_new(list, json_pack("{s:s, s:[]}", "option", name, "parameters"));
        }
    }
    if (wanted && json_array_size(list) == 0) {
        json_decref(list);
        g_set_error(error, LODGE_ERROR, EINVAL, "invalid option name: %s", wanted);
        return NULL;
    }
    return list;
}

/* ---- chardevs ---- */

static void add_chardev(struct chardev *chr, void *list)
{
    bool front = chr->receive && (!chr->listens || chr->listens(chr->peer));
    g_autofree char *about = g_strconcat(chr->open ? "" : "disconnected:", chr->about, NULL);
    json_array_append_new(list, json_pack("{s:s, s:b, s:s}", "label", chr->id, "frontend-open",
                                          front, "filename", about));
}

HANDLER(query_chardev)
{
    UNUSED;
    json_t *list = json_array();
    chardev_each(add_chardev, list);
    return list;
}

HANDLER(query_chardev_backends)
{
    UNUSED;
    json_t *list = json_array();
    g_autoptr(GString) text = g_string_new(NULL);
    chardev_kinds(text);
    g_auto(GStrv) lines = g_strsplit(text->str, "\n", -1);
    for (unsigned i = 1; lines[i] && *lines[i]; i++) {
        g_auto(GStrv) words = g_strsplit(g_strstrip(lines[i]), " ", 2);
        json_array_append_new(list, json_pack("{s:s}", "name", words[0]));
    }
    return list;
}

/* ---- PCI ---- */

static unsigned config16(const struct pci_device *pci, unsigned at)
{
    return (unsigned)(pci->config[at] | pci->config[at + 1] << 8);
}

static json_t *regions(const struct pci_device *pci)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < PCI_BARS; i++) {
        if (pci->bar[i].region) {
            unsigned at = 0x10 + i * 4;
            uint64_t address = config16(pci, at) | (uint64_t)config16(pci, at + 2) << 16;
            if (pci->bar[i].is64) {
                address |= (uint64_t)config16(pci, at + 4) << 32 | (uint64_t)config16(pci, at + 6) << 48;
            }
            address &= pci->bar[i].io ? ~UINT64_C(3) : ~UINT64_C(15);
            json_t *row = json_pack("{s:i, s:s, s:o, s:o}", "bar", (int)i, "type",
                                    pci->bar[i].io ? "io" : "memory", "address", u64(address),
                                    "size", u64(pci->bar[i].size));
            if (!pci->bar[i].io) {
                json_object_set_new(row, "prefetch", json_boolean(pci->bar[i].prefetch));
                json_object_set_new(row, "mem_type_64", json_boolean(pci->bar[i].is64));
            }
            json_array_append_new(list, row);
        }
    }
    return list;
}

static json_t *buses(const struct pci_bus *bus);

static json_t *function(const struct pci_device *pci)
{
    const struct pci_bus *below = NULL;
    json_t *row = json_pack("{s:i, s:i, s:i, s:{s:i}, s:{s:i, s:i}, s:s, s:o}", "bus",
                            (int)pci->bus->number, "slot", pci->devfn >> 3, "function",
                            pci->devfn & 7, "class_info", "class", (int)config16(pci, 0x0a), "id",
                            "device", (int)config16(pci, 2), "vendor", (int)config16(pci, 0),
                            "qdev_id", pci->dev.id ? pci->dev.id : "", "regions", regions(pci));
    if (pci->config[0x3d]) {
        json_object_set_new(row, "irq", json_integer(pci->config[0x3c]));
        json_object_set_new(row, "irq_pin", json_integer(pci->config[0x3d]));
    }
    for (below = pci->bus->child; below; below = below->sibling) {
        if (below->bridge == pci) {
            json_t *all = buses(below);
            json_object_set_new(row, "pci_bridge",
                                json_pack("{s:{s:i}, s:O}", "bus", "number", (int)below->number,
                                          "devices",
                                          json_object_get(json_array_get(all, 0), "devices")));
            json_decref(all);
        }
    }
    return row;
}

static json_t *buses(const struct pci_bus *bus)
{
    json_t *devices = json_array();
    for (unsigned i = 0; bus && i < G_N_ELEMENTS(bus->function); i++) {
        if (bus->function[i]) {
            json_array_append_new(devices, function(bus->function[i]));
        }
    }
    return json_pack("[{s:i, s:o}]", "bus", bus ? (int)bus->number : 0, "devices", devices);
}

HANDLER(query_pci)
{
    UNUSED;
    return vm_board()->pci ? buses(vm_board()->pci) : json_array();
}

/* ---- objects ---- */

static const char *prop_type(enum prop_kind kind)
{
    static const char *const names[] = {
        [PROP_BOOL] = "bool",   [PROP_U8] = "uint8",   [PROP_U16] = "uint16", [PROP_U32] = "uint32",
        [PROP_U64] = "uint64",  [PROP_STRING] = "str", [PROP_MAC] = "str",    [PROP_DRIVE] = "str",
        [PROP_NETDEV] = "str",  [PROP_CHARDEV] = "str", [PROP_RNG] = "link<rng>",
        [PROP_AUDIO] = "str",
    };
    return names[kind];
}

HANDLER(device_list_properties)
{
    const char *name = qmp_str(args, "typename");
    const struct device_model *m = device_model_find(name);
    json_t *list = json_array();
    if (!m) {
        json_decref(list);
        g_set_error(error, LODGE_ERROR, ENODEV, "Device '%s' not found", name);
        return NULL;
    }
    for (unsigned i = 0; i < m->nprops; i++) {
        json_array_append_new(list, json_pack("{s:s, s:s}", "name", m->props[i].name, "type",
                                              prop_type(m->props[i].kind)));
    }
    return list;
}

HANDLER(qom_list_types)
{
    UNUSED;
    json_t *list = json_array();
    for (unsigned i = 0; i < n_device_models; i++) {
        json_array_append_new(list, json_pack("{s:s, s:s}", "name", device_models[i]->name, "parent",
                                              "device"));
    }
    return list;
}

/* "/machine/peripheral/ID" */
struct device *qom_device(const char *path)
{
    static const char prefix[] = "/machine/peripheral/";
    return g_str_has_prefix(path, prefix) ? board_find(vm_board(), path + strlen(prefix)) : NULL;
}

HANDLER(qom_list)
{
    const char *path = qmp_str(args, "path");
    struct device *dev = qom_device(path);
    json_t *list = json_array();
    if (g_str_equal(path, "/machine/peripheral")) {
        for (struct device *d = vm_board()->devices; d; d = d->next) {
            g_autofree char *type = g_strdup_printf("child<%s>", d->model->name);
            if (d->id) {
                json_array_append_new(list, json_pack("{s:s, s:s}", "name", d->id, "type", type));
            }
        }
    } else if (g_str_equal(path, "/machine") || g_str_equal(path, "/")) {
        json_array_append_new(list, json_pack("{s:s, s:s}", "name", path[1] ? "peripheral" : "machine",
                                              "type", "child<container>"));
    } else if (dev) {
        json_array_append_new(list, json_pack("{s:s, s:s}", "name", "type", "type", "string"));
        for (unsigned i = 0; i < dev->model->nprops; i++) {
            const struct prop *p = &dev->model->props[i];
            json_array_append_new(list, json_pack("{s:s, s:s}", "name", p->name, "type",
                                                  prop_type(p->kind)));
        }
    } else {
        json_decref(list);
        g_set_error(error, LODGE_ERROR, ENODEV, "Device '%s' not found", path);
        return NULL;
    }
    return list;
}

static json_t *prop_value(const struct device *dev, const struct prop *p)
{
    const void *at = (const char *)dev + p->slot;
    const uint8_t *mac = at;
    switch (p->kind) {
    case PROP_BOOL:
        return json_boolean(*(const bool *)at);
    case PROP_U8:
        return json_integer(*(const uint8_t *)at);
    case PROP_U16:
        return json_integer(*(const uint16_t *)at);
    case PROP_U32:
        return json_integer(*(const uint32_t *)at);
    case PROP_U64:
        return u64(*(const uint64_t *)at);
    case PROP_STRING:
        return json_string(*(const char *const *)at ? *(const char *const *)at : "");
    case PROP_MAC:
        return json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                            mac[5]);
    case PROP_DRIVE:
        return json_string(*(Image *const *)at ? image_id(*(Image *const *)at) : "");
    case PROP_NETDEV:
        return json_string(*(struct netdev *const *)at ? (*(struct netdev *const *)at)->id : "");
    case PROP_CHARDEV:
        return json_string(*(struct chardev *const *)at ? (*(struct chardev *const *)at)->id : "");
    case PROP_AUDIO:
        return json_string(*(struct audio *const *)at ? (*(struct audio *const *)at)->id : "");
    case PROP_RNG:
        break;
    }
    return NULL;
}

HANDLER(qom_get)
{
    const char *path = qmp_str(args, "path"), *name = qmp_str(args, "property");
    struct device *dev = qom_device(path);
    json_t *value = dev ? qom_balloon(dev, name) : NULL;
    if (!dev) {
        g_set_error(error, LODGE_ERROR, ENODEV, "Device '%s' not found", path);
        return NULL;
    }
    if (g_str_equal(name, "type")) {
        return json_string(dev->model->name);
    }
    for (unsigned i = 0; i < dev->model->nprops && !value; i++) {
        const struct prop *p = &dev->model->props[i];
        value = g_str_equal(p->name, name) ? prop_value(dev, p) : NULL;
    }
    if (!value) {
        g_set_error(error, LODGE_ERROR, EINVAL, "Property '%s.%s' not found", dev->model->name, name);
    }
    return value;
}
