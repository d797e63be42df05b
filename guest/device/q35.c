/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * q35: host bridge of the machine "q35", with memory-mapped configuration space.
 *
 * Spec: Intel 3 Series Express Chipset Family data sheet, order number 316966, "DRAM
 * Controller Registers (D0:F0)": PCIEXBAR, PAM0 to PAM6, SMRAM, ESMRAMC.
 * Not modelled: DMI, ME, remapping; TOLUD and its relatives are storage.
 */
#include "guest/device/pci_host.h"

#include "base/bytes.h"

struct q35 {
    struct pci_device pci;
    struct pci_host host;
    struct region ecam;
    struct placing *ecam_at;
};

enum { EXT_TSEG_AT = 0x50, PCIEXBAR_AT = 0x60, PAM_AT = 0x90, SMRAM_AT = 0x9d, ESMRAMC_AT = 0x9e };
enum {
    SMRAM_RESET = 0x02,
    SMRAM_WRITABLE = 0x7f & ~0x07,
    ESMRAMC_RESET = 0x38,
    ESMRAMC_WRITABLE = 0x87,
    TSEG_ENABLE = 1,
    EXT_TSEG_MB = 16
};
enum { ECAM_MAX = 256 << 20 };

static struct q35 *self(struct device *dev)
{
    return (struct q35 *)dev;
}

/* ---- memory-mapped configuration space ---- */

static uint64_t ecam_read(void *owner, uint64_t at, unsigned bytes)
{
    struct q35 *s = owner;
    return pci_config_read(&s->host.bus, (unsigned)(at >> 20), (unsigned)(at >> 12 & 0xff),
                           (unsigned)(at & 0xfff), bytes);
}

static void ecam_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct q35 *s = owner;
    pci_config_write(&s->host.bus, (unsigned)(at >> 20), (unsigned)(at >> 12 & 0xff),
                     (unsigned)(at & 0xfff), (uint32_t)value, bytes);
}

static const struct region_ops ecam_ops = {.read = ecam_read, .write = ecam_write, .max_bytes = 4};

static void show_ecam(struct q35 *s)
{
    static const uint32_t sizes[] = {256 << 20, 128 << 20, 64 << 20, 0};
    uint64_t v = le64_at(s->pci.config + PCIEXBAR_AT);
    uint32_t size = sizes[v >> 1 & 3];
    space_remove(s->ecam_at);
    s->ecam_at = NULL;
    if ((v & 1) && size) {
        uint64_t at = v & ~(uint64_t)(size - 1) & ((UINT64_C(1) << 36) - 1);
        s->ecam_at = space_place_part(s->host.board->memory, &s->ecam, 0, size, at, 0);
    }
}

/* ---- memory ---- */

static uint64_t tseg_bytes(const struct q35 *s)
{
    static const uint8_t mb[] = {1, 2, 8, EXT_TSEG_MB};
    uint8_t c = s->pci.config[ESMRAMC_AT];
    bool on = (c & TSEG_ENABLE) && (s->pci.config[SMRAM_AT] & SMRAM_ENABLE);
    return on ? (uint64_t)mb[c >> 1 & 3] << 20 : 0;
}

static void show_memory(struct q35 *s)
{
    struct board *board = s->host.board;
    uint8_t smram = s->pci.config[SMRAM_AT];
    space_begin(board->memory);
    shadow_pam(&s->host.shadow, s->pci.config + PAM_AT);
    shadow_smram(&s->host.shadow, smram);
    shadow_tseg(&s->host.shadow, board, tseg_bytes(s), smram & SMRAM_OPEN);
    space_commit(board->memory);
}

static void lock(struct q35 *s)
{
    bool locked = s->pci.config[SMRAM_AT] & SMRAM_LOCK;
    s->pci.writable[SMRAM_AT] = locked ? 0 : SMRAM_WRITABLE;
    s->pci.writable[ESMRAMC_AT] = locked ? 0 : ESMRAMC_WRITABLE;
    if (locked) {
        s->pci.config[SMRAM_AT] &= (uint8_t)~SMRAM_OPEN;
    }
}

/* Software asks for the size of the large TSEG by writing ones, as QEMU defines it. */
static void ext_tseg(struct q35 *s)
{
    uint8_t *c = s->pci.config + EXT_TSEG_AT;
    if (le16_at(c) == 0xffff) {
        le16_put(c, EXT_TSEG_MB);
    }
}

static bool in(unsigned at, unsigned bytes, unsigned reg, unsigned reg_bytes)
{
    return at < reg + reg_bytes && reg < at + bytes;
}

static void config_written(struct pci_device *pci, unsigned at, unsigned bytes)
{
    struct q35 *s = self(&pci->dev);
    if (in(at, bytes, EXT_TSEG_AT, 2)) {
        ext_tseg(s);
    }
    if (in(at, bytes, PCIEXBAR_AT, 8)) {
        show_ecam(s);
    }
    if (in(at, bytes, SMRAM_AT, 2)) {
        lock(s);
    }
    if (in(at, bytes, PAM_AT, ESMRAMC_AT + 1 - PAM_AT)) {
        show_memory(s);
    }
}

static void show(struct q35 *s)
{
    lock(s);
    if (s->host.board) {
        show_ecam(s);
        show_memory(s);
    }
}

static void reset(struct device *dev)
{
    struct q35 *s = self(dev);
    uint8_t *c = s->pci.config;
    le16_put(c + EXT_TSEG_AT, 0);
    le64_put(c + PCIEXBAR_AT, 0xb0000000);
    memset(c + PAM_AT, 0, 7);
    c[SMRAM_AT] = SMRAM_RESET;
    c[ESMRAMC_AT] = ESMRAMC_RESET;
    show(s);
}

static bool loaded(struct device *dev, GError **error)
{
    (void)error;
    show(self(dev));
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct q35 *s = self(dev);
    pci_host_init(&s->host, dev->board, "pcie.0", true);
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    le16_put(s->pci.writable + EXT_TSEG_AT, 0xffff);
    le64_put(s->pci.writable + PCIEXBAR_AT, UINT64_C(0xffc000007) | 0xc000000);
    memset(s->pci.writable + PAM_AT, 0x33, 7);
    s->pci.writable[PAM_AT] = 0x30;
    memset(s->pci.writable + 0xa0, 0xff, 0x20);
    memset(s->pci.writable + 0xdc, 0xff, 4); /* scratch pad */
    s->ecam = (struct region){.name = "ecam", .size = ECAM_MAX, .ops = &ecam_ops, .owner = s};
    shadow_init(&s->host.shadow, dev->board);
    return true;
}

static const struct pci_ident ident = {
    .vendor = 0x8086,
    .device = 0x29c0,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .class = 0x060000,
    .config_written = config_written,
};

static const struct reg regs[] = {
    PCI_STATE(struct q35, pci),
    PCI_HOST_STATE(struct q35, host),
};
static const struct prop props[] = {PCI_PROPS(struct q35, pci)};

const struct device_model model_q35 = {
    .name = "mch",
    .about = "host bridge of the machine q35",
    .spec = "Intel 3 Series Express Chipset data sheet, \"DRAM Controller Registers\"",
    .size = sizeof(struct q35),
    .version = 1,
    .bus = BUS_PCI,
    .soldered = true,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .reset = reset,
    .loaded = loaded,
};
