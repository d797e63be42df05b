/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cpu: a processor that comes by -device or device_add, named by its place in the topology.
 *
 * Spec: QEMU, "QMP Reference Manual", "query-hotpluggable-cpus".
 * The vCPU and its local APIC are the board's: this is what they are called and asked for by.
 */
#include "guest/device/cpu.h"

#include "guest/device/acpi_cpuhp.h"
#include "guest/device/board.h"

struct cpu_device {
    struct device dev;
    struct cpu_place place;
    uint32_t node;  /* of -numa; UINT32_MAX: not said */
    uint32_t index; /* among all processors that there may be */
    bool leaving;
};

extern const struct device_model model_cpu;

static struct cpu_device *self(struct device *dev)
{
    return container_of(dev, struct cpu_device, dev);
}

struct device *cpu_device_find(struct board *board, unsigned index)
{
    for (struct device *d = board->devices; d; d = d->next) {
        if (d->model == &model_cpu && d->started && self(d)->index == index) {
            return d;
        }
    }
    return NULL;
}

bool cpu_device_leaving(struct board *board, unsigned index)
{
    struct device *dev = cpu_device_find(board, index);
    return dev && self(dev)->leaving;
}

static bool start(struct device *dev, GError **error)
{
    struct cpu_device *s = self(dev);
    if (!dev->board->cpu_start) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "CPU hotplug is not supported by this machine");
        return false;
    }
    return dev->board->cpu_start(dev->board, &s->place, s->node, &s->index, error);
}

static void stop(struct device *dev)
{
    dev->board->cpu_stop(dev->board, self(dev)->index);
}

static void plugged(struct device *dev)
{
    acpi_cpuhp_plugged(dev->board, self(dev)->index);
}

static bool unplug(struct device *dev, GError **error)
{
    return acpi_cpuhp_unplug(dev->board, self(dev)->index, error);
}

static void ejected(struct device *dev)
{
    self(dev)->leaving = true;
    if (dev->board->eject) {
        dev->board->eject(dev->board, dev);
    }
}

#define P(label, field)                                                                            \
    {                                                                                              \
        label, PROP_U32, offsetof(struct cpu_device, field), UINT32_MAX                            \
    }
static const struct prop props[] = {
    P("socket-id", place.socket), P("die-id", place.die), P("core-id", place.core),
    P("thread-id", place.thread), P("node-id", node),
};

const struct device_model model_cpu = {
    .name = "x86_64-cpu",
    .about = "processor; its name has the model of -cpu in front: query-hotpluggable-cpus",
    .spec = "QEMU, \"QMP Reference Manual\", \"query-hotpluggable-cpus\"",
    .size = sizeof(struct cpu_device),
    .version = 1,
    .bus = BUS_OTHER,
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = stop,
    .plugged = plugged,
    .unplug = unplug,
    .ejected = ejected,
};
