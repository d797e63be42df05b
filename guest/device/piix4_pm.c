/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * piix4_pm: power management function of the machine "pc": ACPI, APM and SMI, SMBus.
 *
 * Spec: Intel 82371AB (PIIX4) data sheet, order number 290562, "Power Management PCI
 * Configuration Registers", "Power Management I/O Space Registers", "SMBus I/O Space
 * Registers".
 * Not modelled: device monitors and traps, clock control; nobody answers on the SMBus.
 */
#include "guest/device/acpi_pm.h"
#include "guest/device/pci.h"

#include "base/bytes.h"

struct piix4_pm {
    struct pci_device pci;
    struct acpi_pm pm;
    uint8_t apm_control, apm_status;
    uint8_t smb_status, smb_control, smb_command, smb_address, smb_data0, smb_data1;
    bool prop_smm;
    struct region apm;
    struct device_window smbus;
    struct placing *pm_at, *smb_at, *apm_at, *gpe_at;
};

enum {
    PMBA_AT = 0x40,
    DEVACTB_AT = 0x58,
    PMREGMISC_AT = 0x80,
    SMBBA_AT = 0x90,
    SMBHSTCFG_AT = 0xd2
};
enum { APMC_EN = 1 << 1 /* of byte 3 of DEVACTB */, SMB_START = 0x40, SMB_ERROR = 0x04 };
enum { GPE_AT = 0xafe0, GPE_LENGTH = 2 };
enum { ACPI_ENABLE = 0xf1, ACPI_DISABLE = 0xf0 }; /* the tables say so too */

static struct piix4_pm *self(struct device *dev)
{
    return (struct piix4_pm *)dev;
}

static void place(struct placing *p, uint64_t at, bool on)
{
    space_move(p, at);
    space_show(p, on && at);
}

static void decode(struct piix4_pm *s)
{
    const uint8_t *c = s->pci.config;
    if (s->pm_at) {
        place(s->pm_at, le16_at(c + PMBA_AT) & 0xffc0, c[PMREGMISC_AT] & 1);
        place(s->smb_at, le16_at(c + SMBBA_AT) & 0xfff0, c[SMBHSTCFG_AT] & 1);
    }
}

static void config_written(struct pci_device *pci, unsigned at, unsigned bytes)
{
    (void)at, (void)bytes;
    decode(self(&pci->dev));
}

static uint64_t apm_read(void *owner, uint64_t at, unsigned bytes)
{
    const struct piix4_pm *s = owner;
    (void)bytes;
    return at ? s->apm_status : s->apm_control;
}

static void apm_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct piix4_pm *s = owner;
    struct board *board = s->pci.dev.board;
    (void)bytes;
    if (at) {
        s->apm_status = (uint8_t)value;
        return;
    }
    s->apm_control = (uint8_t)value;
    if (value == ACPI_ENABLE || value == ACPI_DISABLE) {
        acpi_pm_enable(&s->pm, value == ACPI_ENABLE);
    } else if ((s->pci.config[DEVACTB_AT + 3] & APMC_EN) && s->prop_smm && board->smi) {
        board->smi(board);
    }
}

static const struct region_ops apm_ops = {.read = apm_read, .write = apm_write, .max_bytes = 1};

static void smb_go(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    if (now & SMB_START) {
        self(dev)->smb_control &= (uint8_t)~SMB_START;
        self(dev)->smb_status |= SMB_ERROR;
    }
}

static void settle(struct device *dev)
{
    acpi_pm_settle(&self(dev)->pm);
}

/* Without SMM the bit that firmware sets after its set-up is set from the start. */
static void reset(struct device *dev)
{
    struct piix4_pm *s = self(dev);
    uint8_t *c = s->pci.config;
    le16_put(c + PCI_STATUS, 0x0280);
    memset(c + 0x40, 0, 0xc0);
    c[PMBA_AT] = c[SMBBA_AT] = 1; /* I/O space */
    c[DEVACTB_AT + 3] = s->prop_smm ? 0 : APMC_EN;
    c[0x5f] = 0x90; /* serial ports and floppy decode, for those who look */
    c[0x63] = 0x60;
    c[0x67] = 0x98;
    acpi_pm_reset(&s->pm);
    decode(s);
}

static bool loaded(struct device *dev, GError **error)
{
    (void)error;
    decode(self(dev));
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct piix4_pm *s = self(dev);
    struct space *ports = dev->board->ports;
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    memset(s->pci.writable + 0x40, 0xff, 0xc0);
    le32_put(s->pci.writable + PMBA_AT, 0xffc0);
    le32_put(s->pci.writable + SMBBA_AT, 0xfff0);
    s->pci.writable[PCI_IRQ_LINE] = 0xff;
    acpi_pm_init(&s->pm, dev, GPE_LENGTH);
    s->apm = (struct region){.name = "apm", .size = 2, .ops = &apm_ops, .owner = s};
    s->apm_at = space_place(ports, &s->apm, 0xb2, 1);
    s->gpe_at = space_place(ports, &s->pm.gpe, GPE_AT, 1);
    device_window_init(&s->smbus, dev, 1, "smbus", 16);
    s->pm_at = space_place(ports, &s->pm.fixed, 0, 1);
    space_show(s->pm_at, false);
    s->smb_at = space_place(ports, &s->smbus.region, 0, 1);
    space_show(s->smb_at, false);
    return true;
}

static void stop(struct device *dev)
{
    struct piix4_pm *s = self(dev);
    acpi_pm_stop(&s->pm);
    space_remove(s->pm_at);
    space_remove(s->smb_at);
    space_remove(s->apm_at);
    space_remove(s->gpe_at);
}

static const struct pci_ident ident = {
    .vendor = 0x8086,
    .device = 0x7113,
    .revision = 3,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .class = 0x068000,
    .irq_pin = 1,
    .config_written = config_written,
};

#define R(field, ...) REG(struct piix4_pm, field, .dir = REG_RW, .window = 1, __VA_ARGS__)
static const struct reg regs[] = {
    PCI_STATE(struct piix4_pm, pci),
    ACPI_PM_STATE(struct piix4_pm, pm),
    STATE(struct piix4_pm, apm_control, .help = "APM_CNT, port 0xb2"),
    STATE(struct piix4_pm, apm_status, .help = "APM_STS, port 0xb3"),
    R(smb_status, .port = 0, .w1c = 0x1e, .help = "SMBus host status"),
    R(smb_control, .port = 2, .writable = 0x5f, .on_write = smb_go, .help = "host control"),
    R(smb_command, .port = 3, .writable = 0xff, .help = "host command"),
    R(smb_address, .port = 4, .writable = 0xff, .help = "host address"),
    R(smb_data0, .port = 5, .writable = 0xff, .help = "host data 0"),
    R(smb_data1, .port = 6, .writable = 0xff, .help = "host data 1"),
};
static const struct prop props[] = {
    PCI_PROPS(struct piix4_pm, pci),
    ACPI_PM_PROPS(struct piix4_pm, pm),
    {"acpi-root-pci-hotplug", PROP_BOOL, offsetof(struct piix4_pm, pm.hotplug_root), 1,
     .help = "off: what is in slots of the root bus stays"},
    {"smm", PROP_BOOL, offsetof(struct piix4_pm, prop_smm), 1, .help = "SMIs are delivered"},
};
static const struct wire wires[] = {{"sci", WIRE_IRQ, offsetof(struct piix4_pm, pm.sci)}};

const struct device_model model_piix4_pm = {
    .name = "PIIX4_PM",
    .about = "power management of the machine pc",
    .spec = "Intel 82371AB (PIIX4) data sheet, \"Power Management\"",
    .size = sizeof(struct piix4_pm),
    .version = 1,
    .bus = BUS_PCI,
    .soldered = true,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .wires = wires,
    .nwires = G_N_ELEMENTS(wires),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = stop,
    .settle = settle,
    .reset = reset,
    .loaded = loaded,
};
