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
#include "guest/device/acpi_pm.h"
#include "guest/device/cpu.h"

enum { GPE = 2, PLACES = 256 };
enum { STATUS_ENABLED = 1 << 0, EVENT_INSERT = 1 << 1, EVENT_REMOVE = 1 << 2, EJECT = 1 << 3 };
enum { COMMAND_NEXT_EVENT = 0, COMMAND_OST_EVENT = 1, COMMAND_OST_STATUS = 2, COMMAND_ARCH_ID = 3 };

struct acpi_cpuhp {
    struct device dev;
    uint32_t port, places; /* properties */
    uint32_t select;
    uint8_t command;
    uint8_t events[PLACES]; /* EVENT_... that the guest has not taken yet */
    uint32_t ost_event[PLACES], ost_status[PLACES];
    struct device_window window;
};

static struct acpi_cpuhp *self(struct device *dev)
{
    return container_of(dev, struct acpi_cpuhp, dev);
}

static struct acpi_cpuhp *find(struct board *board)
{
    struct device *dev = board_part(board, "cpuhp");
    return dev ? self(dev) : NULL;
}

static void tell(struct acpi_cpuhp *s)
{
    struct acpi_pm *pm = acpi_pm_of(s->dev.board);
    if (pm) {
        acpi_pm_gpe(pm, GPE);
    }
}

void acpi_cpuhp_plugged(struct board *board, unsigned index)
{
    struct acpi_cpuhp *s = find(board);
    if (s && index < s->places) {
        s->events[index] = EVENT_INSERT;
        tell(s);
    }
}

bool acpi_cpuhp_unplug(struct board *board, unsigned index, GError **error)
{
    struct acpi_cpuhp *s = find(board);
    if (!s || index >= s->places || index == 0) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    index ? "CPU hot unplug not supported without ACPI"
                          : "Boot CPU is unpluggable");
        return false;
    }
    s->events[index] |= EVENT_REMOVE;
    tell(s);
    return true;
}

bool acpi_cpuhp_status(struct board *board, unsigned index, struct ost *out)
{
    struct acpi_cpuhp *s = find(board);
    if (!s || index >= s->places) {
        return false;
    }
    struct device *dev = cpu_device_find(board, index);
    *out = (struct ost){.device = dev ? dev->id : NULL,
                        .kind = "CPU",
                        .slot = index,
                        .source = s->ost_event[index],
                        .status = s->ost_status[index]};
    return true;
}

/* ---- registers ---- */

static bool selected(const struct acpi_cpuhp *s)
{
    return s->select < s->places;
}

static void let_go(struct acpi_cpuhp *s, unsigned index)
{
    struct device *dev = cpu_device_find(s->dev.board, index);
    s->events[index] = 0;
    if (dev) {
        dev->model->ejected(dev);
    }
}

static uint64_t status_read(struct device *dev, uint64_t stored)
{
    struct acpi_cpuhp *s = self(dev);
    (void)stored;
    if (!selected(s)) {
        return 0;
    }
    bool there = vcpu_find(s->select) && !cpu_device_leaving(dev->board, s->select);
    return s->events[s->select] | (there ? STATUS_ENABLED : 0);
}

/* One thing at a time, the first that is asked for. */
static void control_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct acpi_cpuhp *s = self(dev);
    (void)old;
    if (!selected(s)) {
        return;
    }
    if (now & EVENT_INSERT) {
        s->events[s->select] &= (uint8_t)~EVENT_INSERT;
    } else if (now & EVENT_REMOVE) {
        s->events[s->select] &= (uint8_t)~EVENT_REMOVE;
    } else if (now & EJECT) {
        let_go(s, s->select);
    }
}

/* From the selected on, around; where nothing has happened the selection stays. */
static void command_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct acpi_cpuhp *s = self(dev);
    (void)old;
    for (unsigned i = 0; now == COMMAND_NEXT_EVENT && selected(s) && i < s->places; i++) {
        unsigned at = (s->select + i) % s->places;
        if (s->events[at]) {
            s->select = at;
            return;
        }
    }
}

static uint64_t id_of(const struct acpi_cpuhp *s)
{
    const struct vcpu *cpu = vcpu_find(s->select);
    return cpu ? cpu->apic_id : 0;
}

static uint64_t data_read(struct device *dev, uint64_t stored)
{
    const struct acpi_cpuhp *s = self(dev);
    (void)stored;
    if (!selected(s)) {
        return 0;
    }
    return s->command == COMMAND_NEXT_EVENT ? s->select
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
    struct ost ost;
    (void)old;
    if (!selected(s)) {
        return;
    }
    if (s->command == COMMAND_OST_EVENT) {
        s->ost_event[s->select] = (uint32_t)now;
    } else if (s->command == COMMAND_OST_STATUS) {
        s->ost_status[s->select] = (uint32_t)now;
        if (dev->board->ost && acpi_cpuhp_status(dev->board, s->select, &ost)) {
            dev->board->ost(dev->board, &ost);
        }
    }
}

/* ---- life ---- */

static bool start(struct device *dev, GError **error)
{
    struct acpi_cpuhp *s = self(dev);
    if (s->places > PLACES) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%u processors are too many", s->places);
        return false;
    }
    device_window_init(&s->window, dev, 0, "acpi-cpuhp", ACPI_CPUHP_BYTES);
    device_place(&s->window, dev->board->ports, s->port, 1);
    board_add_part(dev->board, "cpuhp", dev);
    return true;
}

/* A guest that starts anew finds those that came; what it was asked to give it need not. */
static void reset(struct device *dev)
{
    struct acpi_cpuhp *s = self(dev);
    for (unsigned i = 0; i < s->places; i++) {
        if (s->events[i] & EVENT_REMOVE) {
            let_go(s, i);
        }
        s->events[i] = 0;
        s->ost_event[i] = s->ost_status[i] = 0;
    }
}

static bool loaded(struct device *dev, GError **error)
{
    struct acpi_cpuhp *s = self(dev);
    for (unsigned i = 0; i < PLACES; i++) {
        if (s->events[i] & ~(EVENT_INSERT | EVENT_REMOVE)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "no such event of a processor");
            return false;
        }
    }
    return true;
}

static const struct reg regs[] = {
    REG(struct acpi_cpuhp, select, .port = 0, .dir = REG_W, .writable = UINT32_MAX,
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
    STATE_ARRAY(struct acpi_cpuhp, events, .keep = true),
    STATE_ARRAY(struct acpi_cpuhp, ost_event, .keep = true),
    STATE_ARRAY(struct acpi_cpuhp, ost_status, .keep = true),
};

static const struct prop props[] = {
    {"port", PROP_U32, offsetof(struct acpi_cpuhp, port), ACPI_CPUHP_PC, .help = "first I/O port"},
    {"places", PROP_U32, offsetof(struct acpi_cpuhp, places), 1, .help = "-smp maxcpus="},
};

const struct device_model model_acpi_cpuhp = {
    .name = "acpi-cpuhp",
    .about = "processors that come and go, by ACPI",
    .spec = "QEMU, \"QEMU<->ACPI BIOS CPU hotplug interface\"",
    .size = sizeof(struct acpi_cpuhp),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .reset = reset,
    .loaded = loaded,
};
