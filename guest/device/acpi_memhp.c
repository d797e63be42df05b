/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * acpi_memhp: memory modules that come and go while the guest runs, told to it by ACPI.
 *
 * Spec: QEMU, "QEMU<->ACPI BIOS memory hotplug interface" (acpi_mem_hotplug); ACPI
 * Specification 6.3, "Device Object Notifications", "_OST (OSPM Status Indication)", "_EJx
 * (Eject)".
 */
#include "guest/device/acpi_memhp.h"

#include "guest/device/acpi_pm.h"
#include "guest/device/pc_dimm.h"

enum { GPE = 3 };
enum { STATUS_ENABLED = 1 << 0, EVENT_INSERT = 1 << 1, EVENT_REMOVE = 1 << 2, EJECT = 1 << 3 };

struct acpi_memhp {
    struct device dev;
    uint32_t select;
    uint8_t events[ACPI_MEMHP_SLOTS]; /* EVENT_... that the guest has not taken yet */
    uint32_t ost_event[ACPI_MEMHP_SLOTS], ost_status[ACPI_MEMHP_SLOTS];
    struct device_window window;
};

static struct acpi_memhp *self(struct device *dev)
{
    return container_of(dev, struct acpi_memhp, dev);
}

static struct acpi_memhp *find(struct board *board)
{
    struct device *dev = board_part(board, "memhp");
    return dev ? self(dev) : NULL;
}

static void tell(struct acpi_memhp *s)
{
    struct acpi_pm *pm = acpi_pm_of(s->dev.board);
    if (pm) {
        acpi_pm_gpe(pm, GPE);
    }
}

void acpi_memhp_plugged(struct board *board, unsigned slot)
{
    struct acpi_memhp *s = find(board);
    if (s && slot < ACPI_MEMHP_SLOTS) {
        s->events[slot] = EVENT_INSERT;
        tell(s);
    }
}

bool acpi_memhp_unplug(struct board *board, unsigned slot, GError **error)
{
    struct acpi_memhp *s = find(board);
    if (!s || slot >= ACPI_MEMHP_SLOTS) {
        g_set_error(error, LODGE_ERROR, ENOTSUP, "memory hot unplug is not possible without ACPI");
        return false;
    }
    s->events[slot] |= EVENT_REMOVE;
    tell(s);
    return true;
}

bool acpi_memhp_status(struct board *board, unsigned slot, struct ost *out)
{
    struct acpi_memhp *s = find(board);
    struct dimm dimm;
    if (!s || slot >= board->dimm_slots) {
        return false;
    }
    *out = (struct ost){.device = pc_dimm_at(board, slot, &dimm) ? dimm.dev->id : NULL,
                        .kind = "DIMM",
                        .slot = slot,
                        .source = s->ost_event[slot],
                        .status = s->ost_status[slot]};
    return true;
}

/* ---- registers ---- */

static bool selected(const struct acpi_memhp *s)
{
    return s->select < s->dev.board->dimm_slots && s->select < ACPI_MEMHP_SLOTS;
}

static struct dimm look(struct device *dev)
{
    struct dimm dimm = {0};
    if (selected(self(dev))) {
        pc_dimm_at(dev->board, self(dev)->select, &dimm);
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
    const struct acpi_memhp *s = self(dev);
    (void)stored;
    return selected(s) ? s->events[s->select] | (look(dev).dev ? STATUS_ENABLED : 0) : 0;
}

static void let_go(struct acpi_memhp *s, unsigned slot)
{
    struct dimm dimm;
    s->events[slot] = 0;
    if (pc_dimm_at(s->dev.board, slot, &dimm)) {
        dimm.dev->model->ejected(dimm.dev);
    }
}

/* One thing at a time, the first that is asked for. */
static void control_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct acpi_memhp *s = self(dev);
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

static void ost_event_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct acpi_memhp *s = self(dev);
    (void)old;
    if (selected(s)) {
        s->ost_event[s->select] = (uint32_t)now;
    }
}

static void ost_status_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct acpi_memhp *s = self(dev);
    struct ost ost;
    (void)old;
    if (!selected(s)) {
        return;
    }
    s->ost_status[s->select] = (uint32_t)now;
    if (dev->board->ost && acpi_memhp_status(dev->board, s->select, &ost)) {
        dev->board->ost(dev->board, &ost);
    }
}

/* ---- life ---- */

static bool start(struct device *dev, GError **error)
{
    struct acpi_memhp *s = self(dev);
    (void)error;
    device_window_init(&s->window, dev, 0, "acpi-memhp", ACPI_MEMHP_BYTES);
    device_place(&s->window, dev->board->ports, ACPI_MEMHP_AT, 1);
    board_add_part(dev->board, "memhp", dev);
    return true;
}

/* A guest that starts anew finds those that came; what it was asked to give it need not. */
static void reset(struct device *dev)
{
    struct acpi_memhp *s = self(dev);
    for (unsigned i = 0; i < ACPI_MEMHP_SLOTS; i++) {
        if (s->events[i] & EVENT_REMOVE) {
            let_go(s, i);
        }
        s->events[i] = 0;
        s->ost_event[i] = s->ost_status[i] = 0;
    }
}

static bool loaded(struct device *dev, GError **error)
{
    struct acpi_memhp *s = self(dev);
    for (unsigned i = 0; i < ACPI_MEMHP_SLOTS; i++) {
        if (s->events[i] & ~(EVENT_INSERT | EVENT_REMOVE)) {
            g_set_error(error, LODGE_ERROR, EINVAL, "no such event of a memory module");
            return false;
        }
    }
    return true;
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
    REG(struct acpi_memhp, select, .port = 0x00, .dir = REG_W, .writable = UINT32_MAX,
        .help = "of which slot the others speak"),
    REG_COMPUTED("ost-event", .port = 0x04, .width = 4, .dir = REG_W, .on_write = ost_event_write,
                 .help = "what the guest speaks of"),
    REG_COMPUTED("ost-status", .port = 0x08, .width = 4, .dir = REG_W, .on_write = ost_status_write,
                 .help = "what became of it"),
    REG_COMPUTED("control", .port = 0x14, .width = 1, .dir = REG_W, .on_write = control_write,
                 .help = "event taken, eject"),
    STATE_ARRAY(struct acpi_memhp, events, .keep = true),
    STATE_ARRAY(struct acpi_memhp, ost_event, .keep = true),
    STATE_ARRAY(struct acpi_memhp, ost_status, .keep = true),
};

const struct device_model model_acpi_memhp = {
    .name = "acpi-memhp",
    .about = "memory modules that come and go, by ACPI",
    .spec = "QEMU, \"QEMU<->ACPI BIOS memory hotplug interface\"",
    .size = sizeof(struct acpi_memhp),
    .version = 1,
    .bus = BUS_BOARD,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .start = start,
    .reset = reset,
    .loaded = loaded,
};
