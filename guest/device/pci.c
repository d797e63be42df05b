/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pci: configuration space, BARs, capabilities, interrupts of PCI and PCI Express functions.
 *
 * Spec: PCI Local Bus Specification 3.0, "Configuration Space", "Message Signaled Interrupts";
 * PCI-to-PCI Bridge Architecture Specification 1.2, "Configuration Registers"; PCI Express
 * Base Specification 3.0, "PCI Express Capability Structure".
 * Not modelled: parity and system errors, VGA palette snooping.
 */
#include "guest/device/pci.h"

#include "base/bytes.h"

#include <stdlib.h>

enum { HEADER_BRIDGE = 1, HEADER_MULTI = 0x80, CAP_START = 0x40, EXT_START = 0x100 };
enum { BAR_IO = 1, BAR_64 = 4, BAR_PREFETCH = 8, ROM_ENABLE = 1 };
enum { MSI_ENABLE = 1, MSI_64 = 1 << 7, MSI_MASKABLE = 1 << 8 };
enum {
    MSI_CONTROL = 2,
    MSI_ADDRESS = 4,
    MSI_DATA = 12,
    MSI_MASK = 16,
    MSI_PENDING = 20,
    MSI_BYTES = 24
};
enum { MSIX_ENABLE = 1 << 15, MSIX_MASK_ALL = 1 << 14, MSIX_BYTES = 12 };
enum { MSIX_PBA_AT = 0x800, MSIX_BAR_BYTES = 0x1000, MSIX_ENTRY = 16, MSIX_MASKED = 1 };
enum { EXPRESS_BYTES = 0x3c, BRIDGE_BUS_RESET = 1 << 6 };

static bool is_bridge(const struct pci_device *pci)
{
    return (pci->config[PCI_HEADER] & 0x7f) == HEADER_BRIDGE;
}

static uint16_t command(const struct pci_device *pci)
{
    return le16_at(pci->config + PCI_COMMAND);
}

/* ---- buses ---- */

void pci_bus_init(struct pci_bus *bus, struct board *board, const char *name, bool express)
{
    bus->name = name;
    bus->express = express;
    bus->memory = board->memory;
    bus->ports = board->ports;
}

void pci_bus_init_below(struct pci_bus *bus, struct pci_device *bridge, const char *name)
{
    struct pci_bus *above = bridge->bus;
    bus->name = name;
    bus->express = above->express;
    bus->bridge = bridge;
    bus->memory = above->memory;
    bus->ports = above->ports;
    bus->sibling = above->child;
    above->child = bus;
}

void pci_bus_remove(struct pci_bus *bus)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(bus->function); i++) {
        if (bus->function[i]) {
            device_free(&bus->function[i]->dev);
        }
    }
    if (!bus->bridge) {
        return; /* it failed to start */
    }
    struct pci_bus **at = &bus->bridge->bus->child;
    while (*at && *at != bus) {
        at = &(*at)->sibling;
    }
    if (*at) {
        *at = bus->sibling;
    }
}

static struct pci_bus *bus_below(struct pci_device *bridge)
{
    struct pci_bus *b = bridge->bus->child;
    while (b && b->bridge != bridge) {
        b = b->sibling;
    }
    return b;
}

static struct pci_bus *find_below(struct pci_bus *bus, const char *name)
{
    struct pci_bus *hit = strcmp(bus->name, name) == 0 ? bus : NULL;
    for (struct pci_bus *b = bus->child; b && !hit; b = b->sibling) {
        hit = find_below(b, name);
    }
    return hit;
}

struct pci_bus *pci_bus_find(struct board *board, const char *name)
{
    return board->pci ? find_below(board->pci, name) : NULL;
}

void pci_bus_each(struct pci_bus *bus, void (*each)(struct pci_device *pci, void *owner),
                  void *owner)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(bus->function); i++) {
        struct pci_device *pci = bus->function[i];
        if (!pci) {
            continue;
        }
        each(pci, owner);
        struct pci_bus *below = is_bridge(pci) ? bus_below(pci) : NULL;
        if (below) {
            pci_bus_each(below, each, owner);
        }
    }
}

/* ---- INTx ---- */

/* Each bridge turns the pins by the slot, so that neighbours share evenly. */
static void drive(struct pci_device *pci, bool level)
{
    struct pci_bus *bus = pci->bus;
    unsigned devfn = pci->devfn, pin = pci->config[PCI_IRQ_PIN];
    if (!pin || pci->line == level) {
        return;
    }
    pci->line = level;
    for (pin--; bus->bridge; bus = bus->bridge->bus) {
        pin = (pin + (devfn >> 3)) & 3;
        devfn = bus->bridge->devfn;
    }
    if (bus->set_irq) {
        bus->set_irq(bus, devfn, pin, level);
    }
}

static void settle_irq(struct pci_device *pci)
{
    bool shown = pci->irq_level && !pci_msi_enabled(pci);
    uint16_t status = le16_at(pci->config + PCI_STATUS) & (uint16_t)~PCI_STATUS_INTX;
    le16_put(pci->config + PCI_STATUS, status | (shown ? PCI_STATUS_INTX : 0));
    drive(pci, shown && !(command(pci) & PCI_COMMAND_NO_INTX));
}

void pci_irq(struct pci_device *pci, bool level)
{
    pci->irq_level = level;
    settle_irq(pci);
}

/* ---- BARs ---- */

static unsigned bar_at(const struct pci_device *pci, unsigned n)
{
    if (n == PCI_BARS) {
        return is_bridge(pci) ? PCI_BRIDGE_ROM : PCI_ROM;
    }
    return PCI_BAR0 + 4 * n;
}

static uint16_t bar_flags(const struct pci_bar *bar)
{
    return bar->io ? BAR_IO : (bar->is64 ? BAR_64 : 0) | (bar->prefetch ? BAR_PREFETCH : 0);
}

/* Does the bridge pass [start, last] down to its secondary bus? */
static bool bridge_forwards(const struct pci_device *b, uint64_t start, uint64_t last, bool io)
{
    const uint8_t *c = b->config;
    if (io) {
        uint64_t base = (uint64_t)(c[PCI_IO_BASE] & 0xf0) << 8;
        uint64_t limit = (uint64_t)(c[PCI_IO_LIMIT] & 0xf0) << 8 | 0xfff;
        return (command(b) & PCI_COMMAND_IO) && start >= base && last <= limit;
    }
    uint64_t base = (uint64_t)(le16_at(c + PCI_MEM_BASE) & 0xfff0) << 16;
    uint64_t limit = (uint64_t)(le16_at(c + PCI_MEM_BASE + 2) & 0xfff0) << 16 | 0xfffff;
    uint64_t pbase = (uint64_t)(le16_at(c + PCI_PREFETCH_BASE) & 0xfff0) << 16 |
                     (uint64_t)le32_at(c + PCI_PREFETCH_BASE_HIGH) << 32;
    uint64_t plimit = (uint64_t)(le16_at(c + PCI_PREFETCH_BASE + 2) & 0xfff0) << 16 | 0xfffff |
                      (uint64_t)le32_at(c + PCI_PREFETCH_LIMIT_HIGH) << 32;
    return (command(b) & PCI_COMMAND_MEMORY) &&
           ((start >= base && last <= limit) || (start >= pbase && last <= plimit));
}

/*
 * Where the BAR decodes now; false if it does not.  All ones, as written for sizing, and
 * zero are no addresses: firmware sizes BARs with decoding left on.
 */
static bool bar_address(const struct pci_device *pci, unsigned n, uint64_t *at)
{
    const struct pci_bar *bar = &pci->bar[n];
    const uint8_t *c = pci->config + bar_at(pci, n);
    uint64_t v = le32_at(c), top = bar->io ? 0xffff : UINT32_MAX - 1;
    if (!(command(pci) & (bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)) ||
        (n == PCI_BARS && !(v & ROM_ENABLE))) {
        return false;
    }
    if (bar->is64) {
        v |= (uint64_t)le32_at(c + 4) << 32;
        top = (UINT64_C(1) << 52) - 1;
    }
    v &= ~(bar->size - 1);
    if (!v || v > top || top - v < bar->size - 1) {
        return false;
    }
    for (const struct pci_device *b = pci->bus->bridge; b; b = b->bus->bridge) {
        if (!bridge_forwards(b, v, v + bar->size - 1, bar->io)) {
            return false;
        }
    }
    *at = v;
    return true;
}

static void place_bar(struct pci_device *pci, unsigned n)
{
    struct pci_bar *bar = &pci->bar[n];
    uint64_t at = 0;
    bool shown = bar->region && bar_address(pci, n, &at);
    if (!shown) {
        if (bar->placing) {
            space_show(bar->placing, false);
        }
    } else if (!bar->placing) {
        bar->placing = space_place(bar->io ? pci->bus->ports : pci->bus->memory, bar->region, at,
                                   PCI_BAR_PRIORITY);
    } else {
        space_move(bar->placing, at);
        space_show(bar->placing, true);
    }
}

static void place_bars(struct pci_device *pci, void *unused)
{
    (void)unused;
    space_begin(pci->bus->memory);
    space_begin(pci->bus->ports);
    for (unsigned n = 0; n <= PCI_BARS; n++) {
        place_bar(pci, n);
    }
    space_commit(pci->bus->ports);
    space_commit(pci->bus->memory);
}

void pci_bridge_moved(struct pci_device *bridge)
{
    struct pci_bus *below = bus_below(bridge);
    if (below) {
        space_begin(below->memory);
        space_begin(below->ports);
        pci_bus_each(below, place_bars, NULL);
        space_commit(below->ports);
        space_commit(below->memory);
    }
}

static uint64_t power_of_two_above(uint64_t n)
{
    uint64_t size = 1;
    while (size < n) {
        size <<= 1;
    }
    return size;
}

void pci_set_bar(struct pci_device *pci, unsigned n, struct region *r, bool io, bool is64,
                 bool prefetch)
{
    struct pci_bar *bar = &pci->bar[n];
    uint8_t *config = pci->config + bar_at(pci, n), *mask = pci->writable + bar_at(pci, n);
    uint64_t size = power_of_two_above(r->size), low = io ? 4 : n == PCI_BARS ? 2048 : 16;
    bar->region = r;
    bar->io = io;
    bar->is64 = is64;
    bar->prefetch = prefetch;
    bar->size = MAX(size, low);
    le32_put(config, bar_flags(bar));
    le32_put(mask, (uint32_t) ~(bar->size - 1) | (n == PCI_BARS ? ROM_ENABLE : 0));
    if (is64) {
        le32_put(config + 4, 0);
        le32_put(mask + 4, (uint32_t)(~(bar->size - 1) >> 32));
    }
    place_bar(pci, n);
}

/* ---- MSI and MSI-X ---- */

static bool msi_on(const struct pci_device *pci)
{
    return pci->msi_cap && (pci->config[pci->msi_cap + MSI_CONTROL] & MSI_ENABLE);
}

static uint16_t msix_control(const struct pci_device *pci)
{
    return pci->msix_cap ? le16_at(pci->config + pci->msix_cap + MSI_CONTROL) : 0;
}

bool pci_msi_enabled(const struct pci_device *pci)
{
    return msi_on(pci) || (msix_control(pci) & MSIX_ENABLE);
}

static void send_msi(struct pci_device *pci, uint64_t address, uint32_t data)
{
    struct board *board = pci->dev.board;
    if ((command(pci) & PCI_COMMAND_MASTER) && board->msi) {
        board->msi(board, address, data);
    }
}

static void msi_send(struct pci_device *pci, unsigned n)
{
    uint8_t *cap = pci->config + pci->msi_cap;
    unsigned granted = 1u << (cap[MSI_CONTROL] >> 4 & 7);
    n = MIN(n, granted - 1); /* software gave fewer vectors than were asked: share the last */
    if (le32_at(cap + MSI_MASK) >> n & 1) {
        le32_put(cap + MSI_PENDING, le32_at(cap + MSI_PENDING) | 1u << n);
        return;
    }
    uint32_t data = (le16_at(cap + MSI_DATA) & ~(granted - 1)) | n;
    send_msi(pci, le64_at(cap + MSI_ADDRESS), data);
}

static bool msix_masked(const struct pci_device *pci, unsigned n)
{
    return (msix_control(pci) & MSIX_MASK_ALL) ||
           (pci->msix_table[n * MSIX_ENTRY + 12] & MSIX_MASKED);
}

static void msix_send(struct pci_device *pci, unsigned n)
{
    const uint8_t *entry = pci->msix_table + n * MSIX_ENTRY;
    struct board *board = pci->dev.board;
    if (msix_masked(pci, n)) {
        pci->msix_pending[n / 8] |= (uint8_t)(1u << n % 8);
    } else if (!board->msi_routed) {
        send_msi(pci, le64_at(entry), le32_at(entry + 8));
    } else if (command(pci) & PCI_COMMAND_MASTER) {
        board->msi_routed(board, &pci->msix_route[n], le64_at(entry), le32_at(entry + 8));
    }
}

bool pci_msi(struct pci_device *pci, unsigned n)
{
    if (msix_control(pci) & MSIX_ENABLE) {
        if (n < pci->msix_vectors) {
            msix_send(pci, n);
        }
        return true;
    }
    if (msi_on(pci)) {
        msi_send(pci, n);
        return true;
    }
    return false;
}

/* Sends what was held back and is masked no longer. */
static void msix_settle(struct pci_device *pci)
{
    for (unsigned n = 0; n < pci->msix_vectors; n++) {
        uint8_t bit = (uint8_t)(1u << n % 8);
        if ((pci->msix_pending[n / 8] & bit) && (msix_control(pci) & MSIX_ENABLE) &&
            !msix_masked(pci, n)) {
            pci->msix_pending[n / 8] &= (uint8_t)~bit;
            msix_send(pci, n);
        }
    }
}

static void msi_settle(struct pci_device *pci)
{
    uint8_t *cap = pci->config + pci->msi_cap;
    uint32_t ready = le32_at(cap + MSI_PENDING) & ~le32_at(cap + MSI_MASK);
    for (unsigned n = 0; ready && msi_on(pci) && n < 32; n++) {
        if (ready >> n & 1) {
            le32_put(cap + MSI_PENDING, le32_at(cap + MSI_PENDING) & ~(1u << n));
            msi_send(pci, n);
        }
    }
}

static uint64_t msix_read(void *owner, uint64_t at, unsigned bytes)
{
    const struct pci_device *pci = owner;
    uint64_t v = 0;
    if (at + bytes <= (uint64_t)pci->msix_vectors * MSIX_ENTRY) {
        memcpy(&v, pci->msix_table + at, bytes);
    } else if (at >= MSIX_PBA_AT && at + bytes <= MSIX_PBA_AT + sizeof(pci->msix_pending)) {
        memcpy(&v, pci->msix_pending + at - MSIX_PBA_AT, bytes);
    }
    return GUINT64_FROM_LE(v);
}

static void msix_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct pci_device *pci = owner;
    if (at + bytes <= (uint64_t)pci->msix_vectors * MSIX_ENTRY) {
        value = GUINT64_TO_LE(value);
        memcpy(pci->msix_table + at, &value, bytes);
        msix_settle(pci);
    }
}

static const struct region_ops msix_ops = {
    .read = msix_read, .write = msix_write, .min_bytes = 4, .max_bytes = 8};

static void reset_msi(struct pci_device *pci)
{
    if (pci->msi_cap) {
        uint8_t *cap = pci->config + pci->msi_cap, *mask = pci->writable + pci->msi_cap;
        for (unsigned i = MSI_CONTROL; i < MSI_BYTES; i++) {
            cap[i] &= (uint8_t)~mask[i];
        }
        le32_put(cap + MSI_PENDING, 0);
    }
    if (pci->msix_cap) {
        uint8_t *cap = pci->config + pci->msix_cap;
        le16_put(cap + MSI_CONTROL, (uint16_t)(pci->msix_vectors - 1));
    }
    memset(pci->msix_pending, 0, sizeof(pci->msix_pending));
    memset(pci->msix_table, 0, sizeof(pci->msix_table));
    for (unsigned n = 0; n < pci->msix_vectors; n++) {
        pci->msix_table[n * MSIX_ENTRY + 12] = MSIX_MASKED;
    }
}

/* ---- capabilities ---- */

unsigned pci_add_capability(struct pci_device *pci, uint8_t id, unsigned bytes)
{
    unsigned at = pci->cap_end;
    g_return_val_if_fail(at + bytes <= 256, 0); /* a model's table, not the guest's doing */
    pci->config[at] = id;
    pci->config[at + 1] = pci->config[PCI_CAPABILITIES];
    pci->config[PCI_CAPABILITIES] = (uint8_t)at;
    pci->config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
    pci->cap_end = (uint16_t)((at + bytes + 3) & ~3u);
    return at;
}

unsigned pci_add_ext_capability(struct pci_device *pci, uint16_t id, uint8_t version,
                                unsigned bytes)
{
    unsigned at = pci->ext_cap ? pci->ext_end : EXT_START;
    g_return_val_if_fail(at + bytes <= PCI_CONFIG_BYTES, 0);
    if (pci->ext_cap) {
        uint8_t *last = pci->config + pci->ext_cap;
        le32_put(last, le32_at(last) | at << 20);
    }
    le32_put(pci->config + at, id | (uint32_t)version << 16);
    pci->ext_cap = (uint16_t)at;
    pci->ext_end = (uint16_t)((at + bytes + 3) & ~3u);
    return at;
}

bool pci_add_msi(struct pci_device *pci, unsigned vectors, GError **error)
{
    if (!vectors || vectors > 32 || (vectors & (vectors - 1))) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: %u MSI vectors: must be 1, 2, 4, 8, 16 or 32",
                    pci->dev.model->name, vectors);
        return false;
    }
    unsigned at = pci_add_capability(pci, PCI_CAP_MSI, MSI_BYTES), log2 = 0;
    while (1u << log2 < vectors) {
        log2++;
    }
    uint8_t *mask = pci->writable + at;
    pci->msi_cap = (uint8_t)at;
    le16_put(pci->config + at + MSI_CONTROL, (uint16_t)(MSI_64 | MSI_MASKABLE | log2 << 1));
    le16_put(mask + MSI_CONTROL, (uint16_t)(MSI_ENABLE | 7 << 4));
    le64_put(mask + MSI_ADDRESS, ~UINT64_C(3));
    le16_put(mask + MSI_DATA, 0xffff);
    le32_put(mask + MSI_MASK, vectors == 32 ? UINT32_MAX : (1u << vectors) - 1);
    return true;
}

bool pci_add_msix(struct pci_device *pci, unsigned vectors, unsigned bar, GError **error)
{
    if (!vectors || vectors > PCI_MSIX_MAX || bar >= PCI_BARS || pci->bar[bar].region) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: %u MSI-X vectors: must be 1 to %u",
                    pci->dev.model->name, vectors, PCI_MSIX_MAX);
        return false;
    }
    unsigned at = pci_add_capability(pci, PCI_CAP_MSIX, MSIX_BYTES);
    pci->msix_cap = (uint8_t)at;
    pci->msix_vectors = (uint16_t)vectors;
    le16_put(pci->writable + at + MSI_CONTROL, MSIX_ENABLE | MSIX_MASK_ALL);
    le32_put(pci->config + at + 4, bar);
    le32_put(pci->config + at + 8, MSIX_PBA_AT | bar);
    pci->msix_region =
        (struct region){.name = "msix", .size = MSIX_BAR_BYTES, .ops = &msix_ops, .owner = pci};
    pci_set_bar(pci, bar, &pci->msix_region, false, false, false);
    reset_msi(pci);
    return true;
}

void pci_add_express(struct pci_device *pci, enum pci_express_type type)
{
    unsigned at = pci_add_capability(pci, PCI_CAP_EXPRESS, EXPRESS_BYTES);
    uint8_t *c = pci->config + at, *w = pci->writable + at, *w1c = pci->w1c + at;
    bool slot = type == PCIE_ROOT_PORT || type == PCIE_DOWNSTREAM;
    pci->express_cap = (uint8_t)at;
    le16_put(c + 2, (uint16_t)(2 | type << 4 | (slot ? 1 << 8 : 0))); /* version 2 */
    le32_put(c + 4, 1 << 15);             /* role-based error reporting */
    le16_put(w + 8, 0x7fff & ~(3 << 10)); /* device control */
    le16_put(w1c + 10, 0xf);
    if (type != PCIE_ROOT_ENDPOINT) {
        le32_put(c + 12, 1 << 4 | 1 | (slot ? 1 << 20 | (uint32_t)pci->devfn << 24 : 0));
        le16_put(c + 18, 1 << 4 | 1); /* x1, 2.5 GT/s */
        le16_put(w + 16, 0x3 | 1 << 6 | 1 << 7);
    }
    if (slot) {
        le16_put(w + 24, 0x1fff & ~(1 << 11));
        le16_put(w1c + 26, 0x11f);
        le16_put(w + 28, 0x1f);
    }
    le32_put(c + 36, 1 << 4); /* completion timeout may be disabled */
    le16_put(w + 40, 1 << 4 | 0xf);
}

/* ---- configuration accesses ---- */

static unsigned config_size(const struct pci_device *pci)
{
    return pci->express_cap ? PCI_CONFIG_BYTES : 256;
}

static bool touches(unsigned at, unsigned bytes, unsigned reg, unsigned reg_bytes)
{
    return at < reg + reg_bytes && reg < at + bytes;
}

static void function_wrote(struct pci_device *pci, unsigned at, unsigned bytes)
{
    const struct pci_ident *ident = pci->dev.model->bus_data;
    bool bars = touches(at, bytes, PCI_COMMAND, 2) || touches(at, bytes, PCI_BAR0, 24) ||
                touches(at, bytes, PCI_ROM, 4) || touches(at, bytes, PCI_BRIDGE_ROM, 4);
    if (bars) {
        place_bars(pci, NULL);
    }
    if (is_bridge(pci) && (bars || touches(at, bytes, PCI_IO_BASE, 0x18))) {
        pci_bridge_moved(pci);
    }
    if (pci->msix_cap && touches(at, bytes, pci->msix_cap, MSIX_BYTES)) {
        msix_settle(pci);
    }
    if (pci->msi_cap && touches(at, bytes, pci->msi_cap, MSI_BYTES)) {
        msi_settle(pci);
    }
    settle_irq(pci);
    if (pci->layer_written) {
        pci->layer_written(pci, at, bytes);
    }
    if (ident->config_written) {
        ident->config_written(pci, at, bytes);
    }
}

static void reset_one(struct pci_device *pci, void *unused)
{
    (void)unused;
    device_reset(&pci->dev);
}

/* The bridge's secondary bus is reset while software holds the bit. */
static void bridge_control(struct pci_device *pci, uint8_t old)
{
    struct pci_bus *below = bus_below(pci);
    if (below && (pci->config[PCI_BRIDGE_CONTROL] & ~old & BRIDGE_BUS_RESET)) {
        pci_bus_each(below, reset_one, NULL);
    }
}

static void function_write(struct pci_device *pci, unsigned at, uint32_t value, unsigned bytes)
{
    uint8_t control = pci->config[PCI_BRIDGE_CONTROL];
    for (unsigned i = 0; i < bytes; i++) {
        uint8_t *c = &pci->config[at + i], w = pci->writable[at + i];
        uint8_t v = (uint8_t)(value >> i * 8);
        *c = (uint8_t)((*c & ~w) | (v & w));
        *c &= (uint8_t) ~(v & pci->w1c[at + i]);
    }
    function_wrote(pci, at, bytes);
    if (is_bridge(pci) && touches(at, bytes, PCI_BRIDGE_CONTROL, 1)) {
        bridge_control(pci, control);
    }
}

static struct pci_bus *bus_numbered(struct pci_bus *bus, unsigned number)
{
    if (!bus->bridge && number == bus->number) {
        return bus;
    }
    for (struct pci_bus *b = bus->child; b; b = b->sibling) {
        const uint8_t *c = b->bridge->config;
        if (c[PCI_SECONDARY] == number && number) {
            return b;
        }
        if (number > c[PCI_SECONDARY] && number <= c[PCI_SUBORDINATE]) {
            return bus_numbered(b, number);
        }
    }
    return NULL;
}

static struct pci_device *function_at(struct pci_bus *root, unsigned bus, unsigned devfn)
{
    struct pci_bus *b = bus_numbered(root, bus);
    struct pci_device *pci = b ? b->function[devfn & 0xff] : NULL;
    return pci && !pci->ejected ? pci : NULL;
}

uint32_t pci_config_read(struct pci_bus *root, unsigned bus, unsigned devfn, unsigned at,
                         unsigned bytes)
{
    struct pci_device *pci = function_at(root, bus, devfn);
    uint32_t v = UINT32_MAX;
    if (pci && bytes <= 4 && at + bytes <= config_size(pci)) {
        if (pci->layer_reading) {
            pci->layer_reading(pci, at, bytes);
        }
        v = 0;
        memcpy(&v, pci->config + at, bytes);
        v = GUINT32_FROM_LE(v);
    }
    return v;
}

void pci_config_write(struct pci_bus *root, unsigned bus, unsigned devfn, unsigned at,
                      uint32_t value, unsigned bytes)
{
    struct pci_device *pci = function_at(root, bus, devfn);
    if (pci && bytes <= 4 && at + bytes <= config_size(pci)) {
        function_write(pci, at, value, bytes);
    }
}

/* ---- coming and going ---- */

static void fill_header(struct pci_device *pci, const struct pci_ident *ident)
{
    uint8_t *c = pci->config, *w = pci->writable;
    bool bridge = ident->class >> 8 == 0x0604;
    le16_put(c + PCI_VENDOR, ident->vendor);
    le16_put(c + PCI_DEVICE, ident->device);
    c[PCI_REVISION] = ident->revision;
    c[PCI_PROG_IF] = (uint8_t)ident->class;
    le16_put(c + PCI_CLASS, (uint16_t)(ident->class >> 8));
    c[PCI_HEADER] = (uint8_t)((bridge ? HEADER_BRIDGE : 0) |
                              (ident->multifunction || pci->prop_multifunction ? HEADER_MULTI : 0));
    c[PCI_IRQ_PIN] = ident->irq_pin;
    le16_put(w + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
                                  PCI_COMMAND_PARITY | PCI_COMMAND_SERR | PCI_COMMAND_NO_INTX);
    le16_put(pci->w1c + PCI_STATUS, 0xf900);
    w[PCI_CACHE_LINE] = 0xff;
    w[PCI_IRQ_LINE] = 0xff;
    pci->cap_end = CAP_START;
    if (!bridge) {
        le16_put(c + PCI_SUBSYSTEM_VENDOR, ident->subsystem_vendor);
        le16_put(c + PCI_SUBSYSTEM, ident->subsystem);
        return;
    }
    memset(w + PCI_LATENCY, 0xff, 1);
    memset(w + PCI_PRIMARY, 0xff, 4);
    w[PCI_IO_BASE] = w[PCI_IO_LIMIT] = 0xf0;
    le16_put(pci->w1c + PCI_SECONDARY_STATUS, 0xf900);
    le32_put(w + PCI_MEM_BASE, 0xfff0fff0);
    le32_put(w + PCI_PREFETCH_BASE, 0xfff0fff0);
    le32_put(c + PCI_PREFETCH_BASE, 0x00010001); /* 64-bit addresses */
    memset(w + PCI_PREFETCH_BASE_HIGH, 0xff, 8);
    le16_put(w + PCI_BRIDGE_CONTROL, 0x0fff & ~(1 << 4 | 1 << 7));
}

/* "4", "0x4", "4.1", "0x4.0x1": hexadecimal, as QEMU reads it. */
static bool parse_addr(const struct pci_device *pci, unsigned *slot, unsigned *function,
                       GError **error)
{
    char *end;
    const char *text = pci->prop_addr;
    unsigned long s = strtoul(text, &end, 16), f = 0;
    bool good = end != text;
    if (good && *end == '.') {
        const char *after = end + 1;
        f = strtoul(after, &end, 16);
        good = end != after;
    }
    if (!good || *end || s > 31 || f > 7) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "%s: addr=%s is not slot[.function] with slot up to 1f and function up to 7",
                    pci->dev.model->name, text);
        return false;
    }
    *slot = (unsigned)s;
    *function = (unsigned)f;
    return true;
}

static bool choose_slot(struct pci_device *pci, GError **error)
{
    struct pci_bus *bus = pci->bus;
    const char *name = pci->dev.model->name;
    unsigned slot = 0, function = 0, slots = bus->one_slot ? 1 : 32;
    if (pci->prop_addr) {
        if (!parse_addr(pci, &slot, &function, error)) {
            return false;
        }
    } else {
        while (slot < slots && bus->function[slot << 3]) {
            slot++;
        }
    }
    if (slot >= slots) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s: bus %s has no %s slot", name, bus->name,
                    pci->prop_addr ? "such" : "free");
        return false;
    }
    const struct pci_device *there = bus->function[slot << 3 | function];
    if (there) {
        g_set_error(error, LODGE_ERROR, EBUSY,
                    "PCI: slot %u function %u not available for %s, in use by %s", slot, function,
                    name, there->dev.model->name);
        return false;
    }
    const struct pci_device *first = bus->function[slot << 3];
    if (function && first && !(first->config[PCI_HEADER] & HEADER_MULTI)) {
        g_set_error(error, LODGE_ERROR, EINVAL,
                    "PCI: single function device %s can't be populated in slot %u.%u: %s in "
                    "function 0 lacks multifunction=on",
                    name, slot, function, first->dev.model->name);
        return false;
    }
    pci->devfn = (uint8_t)(slot << 3 | function);
    return true;
}

/*
 * An option ROM names the device it drives.  One that drives several models of a family
 * is told the one that we are, as QEMU does it; the checksum byte follows.
 */
void pci_name_rom(struct pci_device *pci)
{
    uint8_t *rom = pci->rom ? pci->rom->host : NULL;
    uint64_t size = pci->rom ? pci->rom->size : 0;
    unsigned at = size >= 0x1c ? le16_at(rom + 0x18) : 0;
    if (!at || le16_at(rom) != 0xaa55 || at + 8u > size || memcmp(rom + at, "PCIR", 4) != 0) {
        return;
    }
    for (unsigned i = 0; i < 4; i++) {
        rom[6] = (uint8_t)(rom[6] + rom[at + 4 + i] - pci->config[i]);
        rom[at + 4 + i] = pci->config[i];
    }
}

static bool load_rom(struct pci_device *pci, const char *file, GError **error)
{
    struct board *board = pci->dev.board;
    g_autofree char *path = board->find_file ? board->find_file(board, file, error) : NULL;
    g_autofree char *bytes = NULL;
    gsize n;
    if (!path) {
        if (!board->find_file) {
            g_set_error(error, LODGE_ERROR, ENOENT, "option ROM %s: the board has no files", file);
        }
        return false;
    }
    g_autoptr(GError) why = NULL;
    if (!g_file_get_contents(path, &bytes, &n, &why)) {
        error_set_errno(error, error_errno(why), "option ROM %s", path);
        return false;
    }
    if (!n || n > 16 << 20) {
        g_set_error(error, LODGE_ERROR, EINVAL, "option ROM %s has %zu bytes: must be 1 to 16 MiB",
                    path, (size_t)n);
        return false;
    }
    uint64_t size = MAX(power_of_two_above(n), PAGE_SIZE);
    pci->rom = ram_new("pci.rom", size, NULL, error);
    if (!pci->rom) {
        return false;
    }
    memset(pci->rom->host, 0xff, size);
    memcpy(pci->rom->host, bytes, n);
    pci_name_rom(pci);
    pci->rom->read_only = true;
    pci->rom_region =
        (struct region){.name = "pci.rom", .size = size, .ram = pci->rom, .read_only = true};
    pci_set_bar(pci, PCI_BARS, &pci->rom_region, false, false, false);
    return true;
}

static bool add_rom(struct pci_device *pci, const struct pci_ident *ident, GError **error)
{
    const char *file = pci->prop_romfile ? pci->prop_romfile : ident->romfile;
    if (!file || !*file || !pci->prop_rombar ||
        (!pci->prop_romfile && !pci->dev.board->find_file)) {
        return true;
    }
    return load_rom(pci, file, error);
}

static bool add_capabilities(struct pci_device *pci, const struct pci_ident *ident, GError **error)
{
    if (ident->express && pci->bus->express) {
        pci_add_express(pci, pci->bus->bridge ? PCIE_ENDPOINT : PCIE_ROOT_ENDPOINT);
    }
    return (!ident->msi || pci_add_msi(pci, ident->msi, error)) &&
           (!ident->msix || pci_add_msix(pci, ident->msix, ident->msix_bar, error));
}

bool pci_attach(struct pci_device *pci, GError **error)
{
    const struct pci_ident *ident = pci->dev.model->bus_data;
    struct board *board = pci->dev.board;
    pci->bus = pci->prop_bus ? pci_bus_find(board, pci->prop_bus) : board->pci;
    if (!pci->bus) {
        g_set_error(error, LODGE_ERROR, ENODEV, "%s: %s%s", pci->dev.model->name,
                    pci->prop_bus ? "there is no PCI bus " : "this machine has no PCI bus",
                    pci->prop_bus ? pci->prop_bus : "");
        return false;
    }
    if (!choose_slot(pci, error)) {
        return false;
    }
    fill_header(pci, ident);
    pci->bus->function[pci->devfn] = pci;
    if (!add_capabilities(pci, ident, error) || !add_rom(pci, ident, error)) {
        pci_detach(pci);
        return false;
    }
    return true;
}

void pci_detach(struct pci_device *pci)
{
    if (!pci->bus || pci->bus->function[pci->devfn] != pci) {
        return;
    }
    drive(pci, false);
    for (unsigned n = 0; n < PCI_MSIX_MAX; n++) {
        if (pci->msix_route[n]) {
            pci->dev.board->msi_forget(pci->msix_route[n]);
            pci->msix_route[n] = NULL;
        }
    }
    for (unsigned n = 0; n <= PCI_BARS; n++) {
        space_remove(pci->bar[n].placing);
        pci->bar[n] = (struct pci_bar){0};
    }
    pci->bus->function[pci->devfn] = NULL;
    if (pci->rom) {
        ram_free(pci->rom);
        pci->rom = NULL;
    }
}

void pci_eject(struct pci_device *pci)
{
    struct board *board = pci->dev.board;
    if (!pci->ejected && board->eject) {
        pci->ejected = true;
        board->eject(board, &pci->dev);
    }
}

static void reset_bars(struct pci_device *pci)
{
    for (unsigned n = 0; n <= PCI_BARS; n++) {
        const struct pci_bar *bar = &pci->bar[n];
        if (bar->region) {
            le32_put(pci->config + bar_at(pci, n), bar_flags(bar));
        }
        if (bar->region && bar->is64) {
            le32_put(pci->config + bar_at(pci, n) + 4, 0);
        }
    }
    place_bars(pci, NULL);
}

void pci_reset(struct pci_device *pci)
{
    if (!pci->bus) {
        return; /* not attached yet: the device core resets after start() */
    }
    uint8_t *c = pci->config;
    le16_put(c + PCI_COMMAND, 0);
    le16_put(c + PCI_STATUS, le16_at(c + PCI_STATUS) & 0x06f7);
    c[PCI_CACHE_LINE] = c[PCI_IRQ_LINE] = 0;
    pci->irq_level = false;
    if (is_bridge(pci)) {
        memset(c + PCI_PRIMARY, 0, 4);
        c[PCI_IO_BASE] = c[PCI_IO_LIMIT] = 0;
        le32_put(c + PCI_MEM_BASE, 0);
        le32_put(c + PCI_PREFETCH_BASE, 0x00010001);
        memset(c + PCI_PREFETCH_BASE_HIGH, 0, 8);
        le16_put(c + PCI_BRIDGE_CONTROL, 0);
    }
    reset_msi(pci);
    reset_bars(pci);
    settle_irq(pci);
}

void pci_restore(struct pci_device *pci)
{
    if (pci->bus) {
        place_bars(pci, NULL);
        if (is_bridge(pci)) {
            pci_bridge_moved(pci);
        }
        settle_irq(pci);
    }
}

/* ---- DMA ---- */

bool pci_dma_read(struct pci_device *pci, uint64_t at, void *to, uint64_t n)
{
    return (command(pci) & PCI_COMMAND_MASTER) && space_read(pci_dma_space(pci), at, to, n);
}

bool pci_dma_write(struct pci_device *pci, uint64_t at, const void *from, uint64_t n)
{
    return (command(pci) & PCI_COMMAND_MASTER) && space_write(pci_dma_space(pci), at, from, n);
}
