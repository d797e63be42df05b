/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * acpi_cpuhp: processors that come and go while the guest runs, told to it by ACPI.
 *
 * Spec: QEMU, "QEMU<->ACPI BIOS CPU hotplug interface" (acpi_cpu_hotplug), the modern
 * register block; ACPI Specification 6.3, "Device Object Notifications", "_OST (OSPM Status
 * Indication)", "_EJx (Eject)".
 * Not modelled: the bitmap of the interface's old form, ejection by firmware.
 */
#include "guest/device/acpi_cpuhp.h"

#include "guest/cpu/vcpu.h"
#include "guest/device/acpi_hotplug.h"
#include "guest/device/cpu.h"

enum { GPE = 2 };
enum { COMMAND_NEXT_EVENT = 0, COMMAND_OST_EVENT = 1, COMMAND_OST_STATUS = 2, COMMAND_ARCH_ID = 3 };

struct acpi_cpuhp {
    struct device dev;
    uint32_t port; /* property */
    uint8_t command;
    struct acpi_hotplug hot;
    struct device_window window;
};

static struct acpi_cpuhp *self(struct device *dev)
{
    return container_of(dev, struct acpi_cpuhp, dev);
}

static struct acpi_hotplug *find(struct board *board)
{
    struct device *dev = board_part(board, "cpuhp");
    return dev ? &self(dev)->hot : NULL;
}

void acpi_cpuhp_plugged(struct board *board, unsigned index)
{
    acpi_hotplug_plugged(find(board), index);
}

bool acpi_cpuhp_unplug(struct board *board, unsigned index, GError **error)
{
    bool asked = index && acpi_hotplug_unplug(find(board), index);
    if (!asked) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    index ? "CPU hot unplug not supported without ACPI"
                          : "Boot CPU is unpluggable");
    }
    return asked;
}

bool acpi_cpuhp_status(struct board *board, unsigned index, struct ost *out)
{
    return acpi_hotplug_status(find(board), index, out);
}

/* ---- registers ---- */

static uint64_t status_read(struct device *dev, uint64_t stored)
{
    const struct acpi_hotplug *h = &self(dev)->hot;
    (void)stored;
    if (!acpi_hotplug_selected(h)) {
        return 0;
    }
    bool there = vcpu_find(h->select) && !cpu_device_leaving(dev->board, h->select);
    return h->events[h->select] | (there ? HOTPLUG_ENABLED : 0);
}

static void control_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    acpi_hotplug_control(&self(dev)->hot, now);
}

/* From the selected on, around; where nothing has happened the selection stays. */
static void command_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct acpi_hotplug *h = &self(dev)->hot;
    bool looks = now == COMMAND_NEXT_EVENT && acpi_hotplug_selected(h);
    (void)old;
    for (unsigned i = 0; looks && i < h->places; i++) {
        unsigned at = (h->select + i) % h->places;
        if (h->events[at]) {
            h->select = at;
            return;
        }
    }
}

static uint64_t id_of(const struct acpi_cpuhp *s)
{
    const struct vcpu *cpu = vcpu_find(s->hot.select);
    return cpu ? cpu->apic_id : 0;
}

static uint64_t data_read(struct device *dev, uint64_t stored)
{
    const struct acpi_cpuhp *s = self(dev);
    (void)stored;
    if (!acpi_hotplug_selected(&s->hot)) {
        return 0;
    }
    return s->command == COMMAND_NEXT_EVENT ? s->hot.select
           : s->command == COMMAND_ARCH_ID  ? id_of(s)
                                            : 0;
}

/* The upper half of an id that has none; firmware looks here for the block's form. */
static uint64_t data2_read(struct device *dev, uint64_t stored)
{
    (void)dev, (void)stored;
    return 0;
}

static void data_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct acpi_cpuhp *s = self(dev);
    (void)old;
    if (s->command == COMMAND_OST_EVENT) {
        acpi_hotplug_ost_event(&s->hot, now);
    } else if (s->command == COMMAND_OST_STATUS) {
        acpi_hotplug_ost_status(&s->hot, now);
    }
}

/* ---- life ---- */

static bool start(struct device *dev, GError **error)
{
    struct acpi_cpuhp *s = self(dev);
    if (s->hot.places > ACPI_PLACES) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%u processors are too many", s->hot.places);
        return false;
    }
    s->hot.dev = dev;
    s->hot.kind = "CPU";
    s->hot.gpe = GPE;
    s->hot.at = cpu_device_find;
    device_window_init(&s->window, dev, 0, "acpi-cpuhp", ACPI_CPUHP_BYTES);
    device_place(&s->window, dev->board->ports, s->port, 1);
    board_add_part(dev->board, "cpuhp", dev);
    return true;
}

static void reset(struct device *dev)
{
    acpi_hotplug_reset(&self(dev)->hot);
}

static bool loaded(struct device *dev, GError **error)
{
    return acpi_hotplug_loaded(&self(dev)->hot, error);
}

static const struct reg regs[] = {
    REG(struct acpi_cpuhp, hot.select, .port = 0, .dir = REG_W, .writable = UINT32_MAX,
        .help = "of which processor the others speak"),
    REG_COMPUTED("data2", .port = 0, .width = 4, .dir = REG_R, .on_read = data2_read,
                 .help = "upper half of the command's answer"),
    REG_COMPUTED("status", .port = 4, .width = 1, .dir = REG_R, .on_read = status_read,
                 .help = "enabled, came, is to go"),
    REG_COMPUTED("control", .port = 4, .width = 1, .dir = REG_W, .on_write = control_write,
                 .help = "event taken, eject"),
    REG(struct acpi_cpuhp, command, .port = 5, .dir = REG_W, .writable = 0xff,
        .on_write = command_write, .help = "what the data are"),
    REG_COMPUTED("data", .port = 8, .width = 4, .dir = REG_RW, .on_read = data_read,
                 .on_write = data_write, .help = "the command's argument or answer"),
    ACPI_HOTPLUG_STATE(struct acpi_cpuhp, hot),
};

static const struct prop props[] = {
    {"port", PROP_U32, offsetof(struct acpi_cpuhp, port), ACPI_CPUHP_PC, .help = "first I/O port"},
    {"places", PROP_U32, offsetof(struct acpi_cpuhp, hot.places), 1, .help = "-smp maxcpus="},
};

const struct device_model model_acpi_cpuhp = {
    .name = "acpi-cpuhp",
    .about = "processors that come and go, by ACPI",
    .spec = "QEMU, \"QEMU<->ACPI BIOS CPU hotplug interface\"",
    .size = sizeof(struct acpi_cpuhp),
    .version = 2,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .reset = reset,
    .loaded = loaded,
};
