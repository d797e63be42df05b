/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * acpi_memhp: memory modules that come and go while the guest runs, told to it by ACPI.
 *
 * Spec: QEMU, "QEMU<->ACPI BIOS memory hotplug interface" (acpi_mem_hotplug); ACPI
 * Specification 6.3, "Device Object Notifications", "_OST (OSPM Status Indication)", "_EJx
 * (Eject)".
 */
#include "guest/device/acpi_memhp.h"

#include "guest/device/acpi_hotplug.h"
#include "guest/device/pc_dimm.h"

enum { GPE = 3 };

struct acpi_memhp {
    struct device dev;
    struct acpi_hotplug hot;
    struct device_window window;
};

static struct acpi_memhp *self(struct device *dev)
{
    return container_of(dev, struct acpi_memhp, dev);
}

static struct acpi_hotplug *find(struct board *board)
{
    struct device *dev = board_part(board, "memhp");
    return dev ? &self(dev)->hot : NULL;
}

static struct device *module_at(struct board *board, unsigned slot)
{
    struct dimm dimm;
    return pc_dimm_at(board, slot, &dimm) ? dimm.dev : NULL;
}

void acpi_memhp_plugged(struct board *board, unsigned slot)
{
    acpi_hotplug_plugged(find(board), slot);
}

bool acpi_memhp_unplug(struct board *board, unsigned slot, GError **error)
{
    bool asked = acpi_hotplug_unplug(find(board), slot);
    if (!asked) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "memory hot unplug is not possible without ACPI");
    }
    return asked;
}

bool acpi_memhp_status(struct board *board, unsigned slot, struct ost *out)
{
    return acpi_hotplug_status(find(board), slot, out);
}

/* ---- registers ---- */

static struct dimm look(struct device *dev)
{
    const struct acpi_hotplug *h = &self(dev)->hot;
    struct dimm dimm = {0};
    if (acpi_hotplug_selected(h)) {
        pc_dimm_at(dev->board, h->select, &dimm);
    }
    return dimm;
}

static uint64_t at_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return look(dev).at;
}

static uint64_t at_high_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return look(dev).at >> 32;
}

static uint64_t bytes_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return look(dev).bytes;
}

static uint64_t bytes_high_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return look(dev).bytes >> 32;
}

static uint64_t node_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return look(dev).node;
}

static uint64_t status_read(struct device *dev, uint64_t stored)
{
    const struct acpi_hotplug *h = &self(dev)->hot;
    (void)stored;
    return acpi_hotplug_selected(h) ? h->events[h->select] | (look(dev).dev ? HOTPLUG_ENABLED : 0)
                                    : 0;
}

static void control_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    acpi_hotplug_control(&self(dev)->hot, now);
}

static void ost_event_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    acpi_hotplug_ost_event(&self(dev)->hot, now);
}

static void ost_status_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    acpi_hotplug_ost_status(&self(dev)->hot, now);
}

/* ---- life ---- */

static bool start(struct device *dev, GError **error)
{
    struct acpi_memhp *s = self(dev);
    (void)error;
    s->hot.dev = dev;
    s->hot.kind = "DIMM";
    s->hot.gpe = GPE;
    s->hot.at = module_at;
    s->hot.places = MIN(dev->board->dimm_slots, ACPI_PLACES);
    device_window_init(&s->window, dev, 0, "acpi-memhp", ACPI_MEMHP_BYTES);
    device_place(&s->window, dev->board->ports, ACPI_MEMHP_AT, 1);
    board_add_part(dev->board, "memhp", dev);
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

#define READ(label, at, hook, text)                                                                \
    REG_COMPUTED(label, .port = at, .width = 4, .dir = REG_R, .on_read = hook, .help = text)
static const struct reg regs[] = {
    READ("address", 0x00, at_read, "of the selected module"),
    READ("address-high", 0x04, at_high_read, "its upper half"),
    READ("size", 0x08, bytes_read, "in bytes"),
    READ("size-high", 0x0c, bytes_high_read, "its upper half"),
    READ("node", 0x10, node_read, "proximity domain"),
    REG_COMPUTED("status", .port = 0x14, .width = 1, .dir = REG_R, .on_read = status_read,
                 .help = "enabled, came, is to go"),
    REG(struct acpi_memhp, hot.select, .port = 0x00, .dir = REG_W, .writable = UINT32_MAX,
        .help = "of which slot the others speak"),
    REG_COMPUTED("ost-event", .port = 0x04, .width = 4, .dir = REG_W, .on_write = ost_event_write,
                 .help = "what the guest speaks of"),
    REG_COMPUTED("ost-status", .port = 0x08, .width = 4, .dir = REG_W, .on_write = ost_status_write,
                 .help = "what became of it"),
    REG_COMPUTED("control", .port = 0x14, .width = 1, .dir = REG_W, .on_write = control_write,
                 .help = "event taken, eject"),
    ACPI_HOTPLUG_STATE(struct acpi_memhp, hot),
};

const struct device_model model_acpi_memhp = {
    .name = "acpi-memhp",
    .about = "memory modules that come and go, by ACPI",
    .spec = "QEMU, \"QEMU<->ACPI BIOS memory hotplug interface\"",
    .size = sizeof(struct acpi_memhp),
    .version = 2,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .start = start,
    .reset = reset,
    .loaded = loaded,
};
