/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pc_dimm: a memory module: a backend's memory in the stretch of addresses that is kept for it.
 *
 * Spec: QEMU, "Memory hotplug" (memory-hotplug), its properties and errors.
 */
#include "guest/device/pc_dimm.h"

#include "guest/device/acpi_memhp.h"

#include <inttypes.h>

#define ALIGN (UINT64_C(2) << 20) /* large pages of guest and host fit */

struct pc_dimm {
    struct device dev;
    const char *memdev;
    uint64_t at; /* 0: the first gap */
    uint32_t slot, node;
    bool hotplugged;
    uint64_t state_at, state_slot; /* where a state had it */
    struct ram *ram;
    bool in_file; /* of the user's */
    struct region region;
    struct placing *placing;
};

extern const struct device_model model_pc_dimm;

static struct pc_dimm *self(struct device *dev)
{
    return container_of(dev, struct pc_dimm, dev);
}

static struct pc_dimm *next(struct board *board, struct pc_dimm *after)
{
    struct device *d = after ? after->dev.next : board->devices;
    while (d && !(d->model == &model_pc_dimm && d->started)) {
        d = d->next;
    }
    return d ? self(d) : NULL;
}

static struct pc_dimm *in_slot(struct board *board, unsigned slot)
{
    struct pc_dimm *s = NULL;
    while ((s = next(board, s)) && s->slot != slot) {
    }
    return s;
}

bool pc_dimm_at(struct board *board, unsigned slot, struct dimm *out)
{
    struct pc_dimm *s = in_slot(board, slot);
    if (s) {
        *out =
            (struct dimm){&s->dev, s->at, s->ram->size, s->slot, s->node, s->memdev, s->hotplugged};
    }
    return s;
}

bool pc_dimm_uses(struct board *board, const char *memdev)
{
    for (struct pc_dimm *s = NULL; (s = next(board, s));) {
        if (g_str_equal(s->memdev, memdev)) {
            return true;
        }
    }
    return false;
}

uint64_t pc_dimm_total(struct board *board)
{
    uint64_t bytes = 0;
    for (struct pc_dimm *s = NULL; (s = next(board, s));) {
        bytes += s->ram->size;
    }
    return bytes;
}

/* ---- where it goes ---- */

static bool choose_slot(struct pc_dimm *s, GError **error)
{
    struct board *board = s->dev.board;
    bool any = s->slot == UINT32_MAX;
    for (unsigned i = 0; any && i < board->dimm_slots; i++) {
        if (!in_slot(board, i)) {
            s->slot = i;
            any = false;
        }
    }
    if (any) {
        g_set_error(error, LODGE_ERROR, ENOSPC, "no free memory slots available");
    } else if (s->slot >= board->dimm_slots) {
        g_set_error(error, LODGE_ERROR, EINVAL, "invalid slot number %u, valid range is [0-%u]",
                    s->slot, board->dimm_slots - 1);
    } else if (in_slot(board, s->slot)) {
        g_set_error(error, LODGE_ERROR, EBUSY, "slot %u is busy", s->slot);
    } else {
        return true;
    }
    return false;
}

/* The module that has an address in [@at, @at + @bytes). */
static struct pc_dimm *in_the_way(struct board *board, uint64_t at, uint64_t bytes)
{
    struct pc_dimm *s = NULL;
    while ((s = next(board, s)) && !(s->at < at + bytes && at < s->at + s->ram->size)) {
    }
    return s;
}

static bool choose_address(struct pc_dimm *s, uint64_t bytes, uint64_t align, GError **error)
{
    struct board *board = s->dev.board;
    uint64_t end = board->dimm_at + board->dimm_bytes;
    struct pc_dimm *other;
    if (s->at & (align - 1)) {
        g_set_error(error, LODGE_ERROR, EINVAL, "address must be aligned to 0x%" PRIx64 " bytes",
                    align);
        return false;
    }
    if (s->at) {
        other = in_the_way(board, s->at, bytes);
        if (s->at < board->dimm_at || s->at > end || bytes > end - s->at || other) {
            g_set_error(error, LODGE_ERROR, EINVAL,
                        other ? "address range conflicts with memory device id='%s'"
                              : "address range is outside of the memory devices' %s",
                        other ? other->dev.path : "region");
            return false;
        }
        return true;
    }
    uint64_t at = (board->dimm_at + align - 1) & ~(align - 1);
    while ((other = in_the_way(board, at, bytes))) {
        at = (other->at + other->ram->size + align - 1) & ~(align - 1);
    }
    if (at > end || bytes > end - at) {
        g_set_error(error, LODGE_ERROR, ENOSPC,
                    "could not find position in guest address space for memory device");
        return false;
    }
    s->at = at;
    return true;
}

static bool fits(struct pc_dimm *s, uint64_t bytes, GError **error)
{
    struct board *board = s->dev.board;
    uint64_t used = pc_dimm_total(board);
    if (!board->dimm_bytes) {
        g_set_error(error, LODGE_ERROR, ENOTSUP,
                    "memory devices (e.g. for memory hotplug) are not enabled, "
                    "please specify the maxmem option");
    } else if (bytes > board->dimm_max - MIN(used, board->dimm_max)) {
        g_set_error(error, LODGE_ERROR, ENOSPC,
                    "not enough space, currently 0x%" PRIx64
                    " in use of total space for memory devices 0x%" PRIx64,
                    used, board->dimm_max);
    } else if (bytes & (ALIGN - 1)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "backend memory size must be multiple of 0x%" PRIx64, ALIGN);
    } else {
        return true;
    }
    return false;
}

/* ---- life ---- */

static bool start(struct device *dev, GError **error)
{
    struct pc_dimm *s = self(dev);
    struct board *board = dev->board;
    uint64_t bytes;
    if (!board->backends.memory || pc_dimm_uses(board, s->memdev)) {
        g_set_error(error, LODGE_ERROR, EBUSY, "can't use already busy memdev: %s", s->memdev);
        return false;
    }
    const struct ram_source *source = board->backends.memory(s->memdev, &bytes, error);
    if (!source || !fits(s, bytes, error) || !choose_slot(s, error) ||
        !choose_address(s, bytes, ALIGN, error)) {
        return false;
    }
    if (s->node >= board->numa_nodes) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "'DIMM property node has value %u' which exceeds the number of numa nodes: %u",
                    s->node, board->numa_nodes);
        return false;
    }
    s->ram = ram_new(s->memdev, bytes, source, error);
    if (!s->ram) {
        return false;
    }
    s->in_file = source->mem_path;
    s->region = (struct region){.name = s->ram->name, .size = bytes, .ram = s->ram};
    s->placing = space_place(board->memory, &s->region, s->at, 0);
    return true;
}

static void stop(struct device *dev)
{
    struct pc_dimm *s = self(dev);
    space_remove(s->placing);
    if (!s->in_file) { /* other processes of the translator may still hold the memory */
        ram_discard(s->ram->host, s->ram->size);
    }
    ram_free(s->ram);
}

static void plugged(struct device *dev)
{
    self(dev)->hotplugged = true;
    acpi_memhp_plugged(dev->board, self(dev)->slot);
}

static bool unplug(struct device *dev, GError **error)
{
    return acpi_memhp_unplug(dev->board, self(dev)->slot, error);
}

static void ejected(struct device *dev)
{
    if (dev->board->eject) {
        dev->board->eject(dev->board, dev);
    }
}

static void saving(struct device *dev)
{
    struct pc_dimm *s = self(dev);
    s->state_at = s->at;
    s->state_slot = s->slot;
}

static bool loaded(struct device *dev, GError **error)
{
    struct pc_dimm *s = self(dev);
    if (s->state_at == s->at && s->state_slot == s->slot) {
        return true;
    }
    g_set_error(error, LODGE_ERROR, EINVAL,
                "the state has it at 0x%" PRIx64 " in slot %" PRIu64 ", not at 0x%" PRIx64
                " in slot %u",
                s->state_at, s->state_slot, s->at, s->slot);
    return false;
}

static const struct reg regs[] = {
    STATE(struct pc_dimm, state_at, .keep = true),
    STATE(struct pc_dimm, state_slot, .keep = true),
};

static const struct prop props[] = {
    {"memdev", PROP_STRING, offsetof(struct pc_dimm, memdev), .required = true,
     .help = "-object memory-backend-..., whose memory it is"},
    {"addr", PROP_U64, offsetof(struct pc_dimm, at), .help = "0: the first gap"},
    {"slot", PROP_U32, offsetof(struct pc_dimm, slot), UINT32_MAX,
     .help = "default: the first free"},
    {"node", PROP_U32, offsetof(struct pc_dimm, node), .help = "of -numa"},
};

const struct device_model model_pc_dimm = {
    .name = "pc-dimm",
    .about = "memory module",
    .spec = "QEMU, \"Memory hotplug\"",
    .size = sizeof(struct pc_dimm),
    .version = 1,
    .bus = BUS_OTHER,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = stop,
    .plugged = plugged,
    .unplug = unplug,
    .ejected = ejected,
    .saving = saving,
    .loaded = loaded,
};
