/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ich9_smbus: SMBus controller of the machine "q35".
 *
 * Spec: Intel I/O Controller Hub 9 (ICH9) Family data sheet, order number 316972, "SMBus
 * Controller Registers (D31:F3)", "SMBus Base and Memory Mapped I/O Registers".
 * Nobody answers on the bus: each transaction ends at once with a device error.  The slave
 * and the alert function are storage.
 */
#include "guest/device/pci.h"

#include "base/bytes.h"

enum { HOSTC_AT = 0x40, HOSTC_ENABLE = 1 << 0, HOSTC_SMI = 1 << 1, HOSTC_RESET = 1 << 3 };
enum { STATUS_INTERRUPT = 0x02, STATUS_DEVICE_ERROR = 0x04, STATUS_IN_USE = 0x40 };
enum { STATUS_CAUSES = 0x9e /* done, errors, a byte of a block */ };
enum { CONTROL_INTERRUPT = 0x01, CONTROL_KILL = 0x02, CONTROL_START = 0x40 };
enum { BLOCK_BYTES = 32, BAR_BYTES = 32 };

struct ich9_smbus {
    struct pci_device pci;
    uint8_t status, control, command, address, data0, data1, pec, aux_control;
    uint8_t slave_address, slave_status, slave_command;
    uint8_t block[BLOCK_BYTES], block_at;
    struct device_window window;
};

static struct ich9_smbus *self(struct device *dev)
{
    return (struct ich9_smbus *)dev;
}

static void settle(struct device *dev)
{
    struct ich9_smbus *s = self(dev);
    pci_irq(&s->pci, (s->control & CONTROL_INTERRUPT) && (s->status & STATUS_CAUSES) &&
                         !(s->pci.config[HOSTC_AT] & HOSTC_SMI));
}

/* Who reads the semaphore as free has taken it. */
static uint64_t status_read(struct device *dev, uint64_t stored)
{
    self(dev)->status |= STATUS_IN_USE;
    return stored;
}

static void control_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct ich9_smbus *s = self(dev);
    (void)old;
    s->control &= (uint8_t)~CONTROL_START;
    if ((now & CONTROL_START) && !(now & CONTROL_KILL)) {
        s->status |= STATUS_DEVICE_ERROR;
    }
}

/* A read of the control register turns the block buffer back to its first byte. */
static uint64_t control_read(struct device *dev, uint64_t stored)
{
    self(dev)->block_at = 0;
    return stored;
}

static uint8_t *next_byte(struct ich9_smbus *s)
{
    uint8_t *at = &s->block[s->block_at];
    s->block_at = (uint8_t)((s->block_at + 1) % BLOCK_BYTES);
    return at;
}

static uint64_t block_read(struct device *dev, uint64_t stored)
{
    (void)stored;
    return *next_byte(self(dev));
}

static void block_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    *next_byte(self(dev)) = (uint8_t)now;
}

static void config_written(struct pci_device *pci, unsigned at, unsigned bytes)
{
    struct ich9_smbus *s = self(&pci->dev);
    (void)at, (void)bytes;
    if (pci->config[HOSTC_AT] & HOSTC_RESET) {
        pci->config[HOSTC_AT] &= (uint8_t)~HOSTC_RESET;
        s->status = s->control = 0;
    }
    settle(&pci->dev);
}

static void reset(struct device *dev)
{
    self(dev)->pci.config[HOSTC_AT] = HOSTC_ENABLE; /* as firmware leaves it */
}

static bool loaded(struct device *dev, GError **error)
{
    if (self(dev)->block_at >= BLOCK_BYTES) {
        g_set_error(error, LODGE_ERROR, EINVAL, "the block buffer is in no possible state");
        return false;
    }
    return true;
}

static bool start(struct device *dev, GError **error)
{
    struct ich9_smbus *s = self(dev);
    if (!pci_attach(&s->pci, error)) {
        return false;
    }
    s->pci.writable[HOSTC_AT] = HOSTC_ENABLE | HOSTC_SMI | HOSTC_RESET;
    device_window_init(&s->window, dev, 0, "smbus", BAR_BYTES);
    pci_set_bar(&s->pci, 4, &s->window.region, true, false, false);
    return true;
}

static void stop(struct device *dev)
{
    pci_detach(&self(dev)->pci);
}

static const struct pci_ident ident = {
    .vendor = 0x8086,
    .device = 0x2930,
    .revision = 2,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .class = 0x0c0500,
    .irq_pin = 1,
    .config_written = config_written,
};

#define R(field, ...) REG(struct ich9_smbus, field, .dir = REG_RW, __VA_ARGS__)
static const struct reg regs[] = {
    PCI_STATE(struct ich9_smbus, pci),
    R(status, .port = 0x0, .w1c = 0xfe, .on_read = status_read, .help = "host status"),
    R(control, .port = 0x2, .writable = 0xff, .on_read = control_read, .on_write = control_write,
      .help = "host control"),
    R(command, .port = 0x3, .writable = 0xff, .help = "host command"),
    R(address, .port = 0x4, .writable = 0xff, .help = "slave address and direction"),
    R(data0, .port = 0x5, .writable = 0xff, .help = "host data 0, or a block's count"),
    R(data1, .port = 0x6, .writable = 0xff, .help = "host data 1"),
    REG_COMPUTED("block-data", .port = 0x7, .dir = REG_RW, .on_read = block_read,
                 .on_write = block_write, .help = "the block buffer's next byte"),
    R(pec, .port = 0x8, .writable = 0xff, .help = "packet error check"),
    R(slave_address, .port = 0x9, .writable = 0x7f, .reset = 0x44, .help = "our own address"),
    R(aux_control, .port = 0xd, .writable = 0x03, .help = "block buffer, automatic CRC"),
    R(slave_status, .port = 0x10, .w1c = 0x01, .help = "slave status"),
    R(slave_command, .port = 0x11, .writable = 0x07, .help = "slave command"),
    STATE_ARRAY(struct ich9_smbus, block),
    STATE(struct ich9_smbus, block_at),
};
static const struct prop props[] = {PCI_PROPS(struct ich9_smbus, pci)};

const struct device_model model_ich9_smbus = {
    .name = "ICH9-SMB",
    .alias = "ICH9 SMB",
    .about = "SMBus controller of the machine q35",
    .spec = "Intel ICH9 data sheet, \"SMBus Controller Registers (D31:F3)\"",
    .size = sizeof(struct ich9_smbus),
    .version = 1,
    .bus = BUS_PCI,
    .soldered = true,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = stop,
    .settle = settle,
    .reset = reset,
    .loaded = loaded,
};
