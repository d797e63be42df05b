/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/board.h"

/*
 * pci - PCI and PCI Express functions, buses, BARs, MSI and MSI-X
 *
 * Spec: PCI Local Bus Specification 3.0; PCI Express Base Specification, "Configuration
 * Space"; PCI-to-PCI Bridge Architecture Specification.
 *
 * A PCI device embeds struct pci_device first.  Its configuration space is an array with a
 * mask of writable bits beside it; pci.c handles header, BARs, capabilities, command bits
 * and INTx, and calls the hooks for what is special.  The array is state.
 */
enum { PCI_CONFIG_BYTES = 4096, PCI_BARS = 6 /* and the ROM */, PCI_MSIX_MAX = 128 };

/* BARs lie below RAM, firmware and what the board decodes by itself (priority 0 and up). */
enum { PCI_BAR_PRIORITY = -1 };

/* Offsets in the configuration space, and bits there. */
enum {
    PCI_VENDOR = 0x00, PCI_DEVICE = 0x02, PCI_COMMAND = 0x04, PCI_STATUS = 0x06,
    PCI_REVISION = 0x08, PCI_PROG_IF = 0x09, PCI_CLASS = 0x0a, PCI_CACHE_LINE = 0x0c,
    PCI_LATENCY = 0x0d, PCI_HEADER = 0x0e, PCI_BAR0 = 0x10, PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM = 0x2e, PCI_ROM = 0x30, PCI_CAPABILITIES = 0x34, PCI_IRQ_LINE = 0x3c,
    PCI_IRQ_PIN = 0x3d,
    PCI_PRIMARY = 0x18, PCI_SECONDARY = 0x19, PCI_SUBORDINATE = 0x1a, PCI_IO_BASE = 0x1c,
    PCI_IO_LIMIT = 0x1d, PCI_SECONDARY_STATUS = 0x1e, PCI_MEM_BASE = 0x20,
    PCI_PREFETCH_BASE = 0x24, PCI_PREFETCH_BASE_HIGH = 0x28, PCI_PREFETCH_LIMIT_HIGH = 0x2c,
    PCI_IO_BASE_HIGH = 0x30, PCI_BRIDGE_ROM = 0x38, PCI_BRIDGE_CONTROL = 0x3e,
};
enum {
    PCI_COMMAND_IO = 1 << 0, PCI_COMMAND_MEMORY = 1 << 1, PCI_COMMAND_MASTER = 1 << 2,
    PCI_COMMAND_PARITY = 1 << 6, PCI_COMMAND_SERR = 1 << 8, PCI_COMMAND_NO_INTX = 1 << 10,
    PCI_STATUS_INTX = 1 << 3, PCI_STATUS_CAPABILITIES = 1 << 4,
};
enum { PCI_CAP_POWER = 1, PCI_CAP_MSI = 5, PCI_CAP_VENDOR = 9, PCI_CAP_EXPRESS = 0x10,
       PCI_CAP_MSIX = 0x11, PCI_CAP_SATA = 0x12 };
enum pci_express_type {
    PCIE_ENDPOINT = 0, PCIE_ROOT_PORT = 4, PCIE_UPSTREAM = 5, PCIE_DOWNSTREAM = 6,
    PCIE_TO_PCI = 7, PCIE_ROOT_ENDPOINT = 9,
};

struct pci_device;

struct pci_ident {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint8_t revision;
    uint32_t class;     /* 24 bits: class, subclass, programming interface */
    uint8_t irq_pin;    /* 1: INTA#; 0: none */
    uint8_t msix;       /* vectors offered, 0: none */
    uint8_t msix_bar;
    uint8_t msi;        /* vectors offered, 0: none */
    bool express;       /* has a PCI Express capability when on an Express bus */
    bool multifunction;
    const char *romfile; /* option ROM by default, found in firmware folders */
    /* Called after bytes [at, at + bytes) of the configuration space were written. */
    void (*config_written)(struct pci_device *pci, unsigned at, unsigned bytes);
};

struct pci_bar {
    struct region *region;   /* what it shows; NULL: not implemented */
    struct placing *placing;
    bool io, is64, prefetch;
    uint64_t size;
};

struct pci_device {
    struct device dev;
    struct pci_bus *bus;
    uint8_t devfn;           /* device << 3 | function */
    uint8_t config[PCI_CONFIG_BYTES], writable[PCI_CONFIG_BYTES], w1c[PCI_CONFIG_BYTES];
    struct pci_bar bar[PCI_BARS + 1];
    bool irq_level;          /* INTx as the device drives it, before routing */
    bool line;               /* INTx as the bus sees it: derived from the above */
    bool ejected;            /* nobody sees it any more; the board will free it */
    uint16_t cap_end;        /* next free byte for a capability */
    uint16_t ext_cap, ext_end; /* the last extended capability; next free byte */
    uint8_t msi_cap, msix_cap, express_cap; /* where they are; 0: none */
    uint16_t msix_vectors;
    uint8_t msix_table[PCI_MSIX_MAX * 16], msix_pending[PCI_MSIX_MAX / 8];
    void *msix_route[PCI_MSIX_MAX]; /* the board's, see .msi_routed */
    struct region msix_region, rom_region;
    /* Of a layer between this one and the model (virtio), which sets them after
     * pci_attach(): before bytes are read, after bytes were written. */
    void (*layer_reading)(struct pci_device *pci, unsigned at, unsigned bytes);
    void (*layer_written)(struct pci_device *pci, unsigned at, unsigned bytes);
    /* Properties that every PCI device has. */
    const char *prop_addr;   /* "4", "4.1": slot[.function] */
    const char *prop_bus, *prop_romfile;
    uint32_t prop_rombar;
    bool prop_multifunction;
    struct ram *rom;
};

/* Rows that each PCI device's tables begin with: state and properties of this layer. */
#define PCI_STATE(type, member)                                                                    \
    STATE_ARRAY(type, member.config, .keep = true), STATE(type, member.irq_level),                 \
        STATE_ARRAY(type, member.msix_table, .keep = true),                                        \
        STATE_ARRAY(type, member.msix_pending, .keep = true)
#define PCI_PROPS(type, member)                                                                    \
    {"addr", PROP_STRING, offsetof(type, member.prop_addr)},                                       \
    {"bus", PROP_STRING, offsetof(type, member.prop_bus)},                                         \
    {"romfile", PROP_STRING, offsetof(type, member.prop_romfile)},                                 \
    {"rombar", PROP_U32, offsetof(type, member.prop_rombar), 1},                                   \
    {"multifunction", PROP_BOOL, offsetof(type, member.prop_multifunction)}

/*
 * From a model's start(), in this order.  pci_attach() takes a slot on the bus (prop_addr
 * or the next free), fills the header from the model's struct pci_ident.
 */
bool pci_attach(struct pci_device *pci, GError **error);
void pci_name_rom(struct pci_device *pci); /* for who has changed its identity since */
void pci_detach(struct pci_device *pci);
void pci_set_bar(struct pci_device *pci, unsigned n, struct region *r, bool io, bool is64,
                 bool prefetch);
/* Reserves @bytes for a capability, links it, returns its offset. */
unsigned pci_add_capability(struct pci_device *pci, uint8_t id, unsigned bytes);
/* Done by pci_attach() for what struct pci_ident says; for devices that decide later.
 * pci_add_msix() makes a BAR of its own of 4 KiB. */
bool pci_add_msi(struct pci_device *pci, unsigned vectors, GError **error);
bool pci_add_msix(struct pci_device *pci, unsigned vectors, unsigned bar, GError **error);
void pci_add_express(struct pci_device *pci, enum pci_express_type type);
/* An extended capability (Express, from 0x100). */
unsigned pci_add_ext_capability(struct pci_device *pci, uint16_t id, uint8_t version,
                                unsigned bytes);

/* Interrupts; data path. */
void pci_irq(struct pci_device *pci, bool level);
/* Sends MSI-X or MSI vector @n if either is enabled; false: use pci_irq(). */
bool pci_msi(struct pci_device *pci, unsigned n);
bool pci_msi_enabled(const struct pci_device *pci); /* MSI or MSI-X */

/* DMA as the function does it: nothing moves unless bus mastering is on. */
bool pci_dma_read(struct pci_device *pci, uint64_t at, void *to, uint64_t n);
bool pci_dma_write(struct pci_device *pci, uint64_t at, const void *from, uint64_t n);
static inline struct space *pci_dma_space(struct pci_device *pci)
{
    return pci->dev.board->memory;
}

/* ---- for the device core: struct device of a model with .bus = BUS_PCI ---- */
/* Header, BARs and interrupt registers as after a bus reset; before the model's reset(). */
void pci_reset(struct pci_device *pci);
/* After a state was loaded: places BARs, drives INTx; before the model's loaded(). */
void pci_restore(struct pci_device *pci);

/* ---- for boards and bridges ---- */
struct pci_bus {
    const char *name;  /* "pci.0", "pcie.0" */
    uint8_t number;    /* as software numbered it; 0 for the root */
    bool express, one_slot;
    struct pci_device *bridge; /* the bridge above; NULL for the root */
    struct pci_device *function[256];
    struct space *memory, *ports; /* where BARs of its functions are placed */
    /* INTx: which of the board's inputs pin (0-3) of devfn drives; the root's. */
    void (*set_irq)(struct pci_bus *bus, unsigned devfn, unsigned pin, bool level);
    void *owner;
    /*
     * Hot-plug; NULL: what is there stays.  A device has come (it is started), and: the guest
     * is to be asked to let one go, which pci_eject() then says.
     */
    void (*plugged)(struct pci_bus *bus, struct pci_device *pci);
    bool (*unplug)(struct pci_bus *bus, struct pci_device *pci, GError **error);
    void *hotplug;
    struct pci_bus *sibling, *child;
};
void pci_bus_init(struct pci_bus *bus, struct board *board, const char *name, bool express);
/* @bus is the secondary bus of @bridge: spaces and interrupts are those of the root. */
void pci_bus_init_below(struct pci_bus *bus, struct pci_device *bridge, const char *name);
/* From the bridge's stop(): frees what is behind it, and forgets the bus. */
void pci_bus_remove(struct pci_bus *bus);
/* From a bridge's config_written(): its windows may have changed. */
void pci_bridge_moved(struct pci_device *bridge);
void pci_bus_each(struct pci_bus *bus, void (*each)(struct pci_device *pci, void *owner),
                  void *owner); /* bridges before what is behind them */
uint32_t pci_config_read(struct pci_bus *root, unsigned bus, unsigned devfn, unsigned at,
                         unsigned bytes);
void pci_config_write(struct pci_bus *root, unsigned bus, unsigned devfn, unsigned at,
                      uint32_t value, unsigned bytes);
struct pci_bus *pci_bus_find(struct board *board, const char *name);
/* From a hot-plug controller: @pci vanishes from its bus now and is freed later. */
void pci_eject(struct pci_device *pci);
