/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/device.h"

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
enum { PCI_CONFIG_BYTES = 4096, PCI_BARS = 6 /* and the ROM */ };

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
    struct pci_msix *msix;
    uint16_t cap_end;        /* next free byte for a capability */
    /* Properties that every PCI device has. */
    const char *prop_addr;   /* "4", "4.1": slot[.function] */
    const char *prop_bus, *prop_romfile;
    uint32_t prop_rombar;
    bool prop_multifunction;
    struct ram *rom;
};

/* Rows that each PCI device's tables begin with: state and properties of this layer. */
#define PCI_STATE(type, member)                                                                    \
    STATE_ARRAY(type, member.config, .keep = true), STATE(type, member.irq_level)
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
void pci_detach(struct pci_device *pci);
void pci_set_bar(struct pci_device *pci, unsigned n, struct region *r, bool io, bool is64,
                 bool prefetch);
/* Reserves @bytes for a capability, links it, returns its offset. */
unsigned pci_add_capability(struct pci_device *pci, uint8_t id, unsigned bytes);
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

/* ---- for boards and bridges ---- */
struct pci_bus {
    const char *name;  /* "pci.0", "pcie.0" */
    uint8_t number;    /* as software numbered it; 0 for the root */
    bool express;
    struct pci_device *bridge; /* the bridge above; NULL for the root */
    struct pci_device *function[256];
    struct space *memory, *ports; /* where BARs of its functions are placed */
    /* INTx: which of the board's inputs pin (0-3) of devfn drives; the root's. */
    void (*set_irq)(struct pci_bus *bus, unsigned devfn, unsigned pin, bool level);
    void *owner;
    struct pci_bus *sibling, *child;
};
void pci_bus_init(struct pci_bus *bus, struct board *board, const char *name, bool express);
uint32_t pci_config_read(struct pci_bus *root, unsigned bus, unsigned devfn, unsigned at,
                         unsigned bytes);
void pci_config_write(struct pci_bus *root, unsigned bus, unsigned devfn, unsigned at,
                      uint32_t value, unsigned bytes);
struct pci_bus *pci_bus_find(struct board *board, const char *name);
