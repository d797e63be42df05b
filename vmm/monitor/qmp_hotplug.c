/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/monitor/qmp_handlers.h"

#include "guest/cpu/vcpu.h"
#include "guest/device/acpi_cpuhp.h"
#include "guest/device/acpi_memhp.h"
#include "guest/device/cpu.h"
#include "guest/device/pc_dimm.h"
#include "guest/machine/machine.h"
#include "vmm/events.h"
#include "vmm/options.h"
#include "vmm/vm.h"

/* Processors and memory, which may come and go. */

#define UNUSED        (void)args, (void)error
#define HANDLER(name) json_t *qmp_##name(json_t *args, GError **error)

static const struct machine_config *config(void)
{
    return &vm_options()->machine;
}

/* ---- processors ---- */

static json_t *cpu_place(unsigned index)
{
    const struct cpu_topology *t = &config()->topology;
    unsigned core = index / t->threads, die = core / t->cores;
    json_t *place = json_pack("{s:i, s:i, s:i, s:i}", "thread-id", (int)(index % t->threads),
                              "core-id", (int)(core % t->cores), "die-id", (int)(die % t->dies),
                              "socket-id", (int)(die / t->dies));
    if (config()->numa) {
        json_object_set_new(place, "node-id", json_integer(config()->numa->cpu_node[index]));
    }
    return place;
}

static char *cpu_path(unsigned index)
{
    struct device *dev = cpu_device_find(vm_board(), index);
    return dev && dev->id ? g_strdup_printf("/machine/peripheral/%s", dev->id)
                          : g_strdup_printf("/machine/unattached/device[%u]", index);
}

HANDLER(query_cpus_fast)
{
    UNUSED;
    json_t *list = json_array();
    for (unsigned i = 0; i < vcpu_count(); i++) {
        struct vcpu *cpu = vcpu_at(i);
        g_autofree char *path = cpu_path(cpu->index);
        json_array_append_new(list,
                              json_pack("{s:i, s:s, s:i, s:o, s:s}", "cpu-index", (int)cpu->index,
                                        "qom-path", path, "thread-id", vcpu_thread_id(cpu), "props",
                                        cpu_place(cpu->index), "target", "x86_64"));
    }
    return list;
}

HANDLER(query_hotpluggable_cpus)
{
    UNUSED;
    g_autofree char *type = vm_cpu_type();
    json_t *list = json_array();
    for (unsigned i = 0; i < config()->maxcpus; i++) {
        json_t *row =
            json_pack("{s:s, s:i, s:o}", "type", type, "vcpus-count", 1, "props", cpu_place(i));
        if (vcpu_find(i)) {
            g_autofree char *path = cpu_path(i);
            json_object_set_new(row, "qom-path", json_string(path));
        }
        json_array_insert_new(list, 0, row);
    }
    return list;
}

/* ---- memory ---- */

HANDLER(query_memory_size_summary)
{
    UNUSED;
    return json_pack("{s:I, s:I}", "base-memory", (json_int_t)config()->ram_bytes, "plugged-memory",
                     (json_int_t)pc_dimm_total(vm_board()));
}

static json_t *module(const struct dimm *dimm)
{
    g_autofree char *memdev = g_strdup_printf("/objects/%s", dimm->memdev);
    return json_pack("{s:s, s:{s:s*, s:I, s:I, s:i, s:i, s:s, s:b, s:b}}", "type", "dimm", "data",
                     "id", dimm->dev->id, "addr", (json_int_t)dimm->at, "size",
                     (json_int_t)dimm->bytes, "slot", (int)dimm->slot, "node", (int)dimm->node,
                     "memdev", memdev, "hotpluggable", 1, "hotplugged", dimm->hotplugged);
}

HANDLER(query_memory_devices)
{
    UNUSED;
    struct dimm dimm;
    json_t *list = json_array();
    for (unsigned i = 0; i < vm_board()->dimm_slots; i++) {
        if (pc_dimm_at(vm_board(), i, &dimm)) {
            json_array_append_new(list, module(&dimm));
        }
    }
    return list;
}

/* ---- what the guest said of them ---- */

HANDLER(query_acpi_ospm_status)
{
    UNUSED;
    struct ost ost;
    json_t *list = json_array();
    for (unsigned i = 0; acpi_cpuhp_status(vm_board(), i, &ost); i++) {
        json_array_append_new(list, event_ost(&ost));
    }
    for (unsigned i = 0; acpi_memhp_status(vm_board(), i, &ost); i++) {
        json_array_append_new(list, event_ost(&ost));
    }
    return list;
}
