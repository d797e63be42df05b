/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * i440fx: host bridge of the machine "pc".
 *
 * Spec: Intel 440FX PCIset, 82441FX PCI and Memory Controller (PMC) data sheet, order number
 * 290549, "Register Description".
 * Not modelled: DRAM timing and row registers (kept as storage), error reporting.
 */
#include "guest/device/pci_host.h"

struct i440fx {
    struct pci_device pci;
    struct pci_host host;
};

enum { PMCCFG_AT = 0x50, PAM_AT = 0x59, SMRAM_AT = 0x72, SMRAM_RESET = 0x02 };

static struct i440fx *self(struct device *dev)
{
    return (struct i440fx *)dev;
}

static void show_memory(struct i440fx *s)
{
    space_begin(s->host.board->memory);
    shadow_pam(&s->host.shadow, s->pci.config + PAM_AT);
    shadow_smram(&s->host.shadow, s->pci.config[SMRAM_AT]);
    space_commit(s->host.board->memory);
}

/* Locked SMRAM cannot be opened nor unlocked until the next reset. */
static void config_written(struct pci_device *pci, unsigned at, unsigned bytes)
{
    struct i440fx *s = self(&pci->dev);
    if (at <= SMRAM_AT && at + bytes > SMRAM_AT && (pci->config[SMRAM_AT] & SMRAM_LOCK)) {
        pci->config[SMRAM_AT] &= (uint8_t)~SMRAM_OPEN;
        pci->writable[SMRAM_AT] = 0;
    }
    if (at <= SMRAM_AT && at + bytes > PAM_AT) {
        show_memory(s);
    }
}

static void reset(struct device *dev)
{
    struct i440fx *s = self(dev);
    memset(s->pci.config + PAM_AT, 0, 7);
    s->pci.config[SMRAM_AT] = SMRAM_RESET;
    s->pci.writable[SMRAM_AT] = 0x78;
    if (s->host.board) {
        show_memory(s);
    }
}

static bool loaded(struct device *dev, GError **error)
{
    struct i440fx *s = self(dev);
    (void)error;
    s->pci.writable[SMRAM_AT] = s->pci.config[SMRAM_AT] & SMRAM_LOCK ? 0 : 0x78;
    show_memory(s);
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct i440fx *s = self(dev);
    pci_host_init(&s->host, dev->board, "pci.0", false);
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    memset(s->pci.writable + PMCCFG_AT, 0xff, SMRAM_AT - PMCCFG_AT);
    memset(s->pci.writable + PAM_AT, 0x33, 7);
    s->pci.writable[PAM_AT] = 0x30;
    shadow_init(&s->host.shadow, dev->board);
    return true;
}

static const struct pci_ident ident = {.vendor = 0x8086,
                                       .device = 0x1237,
                                       .revision = 2,
                                       .subsystem_vendor = 0x1af4,
                                       .subsystem = 0x1100,
                                       .class = 0x060000,
                                       .config_written = config_written};

static const struct reg regs[] = {
    PCI_STATE(struct i440fx, pci),
    PCI_HOST_STATE(struct i440fx, host),
};
static const struct prop props[] = {PCI_PROPS(struct i440fx, pci)};

const struct device_model model_i440fx = {
    .name = "i440FX",
    .about = "host bridge of the machine pc",
    .spec = "Intel 82441FX data sheet, \"Register Description\"",
    .size = sizeof(struct i440fx),
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
