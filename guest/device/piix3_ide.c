/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * piix3_ide: the IDE function of the PIIX3, two channels with bus-master DMA.
 *
 * Spec: Intel, "82371FB (PIIX) and 82371SB (PIIX3) PCI ISA IDE Xcelerator" (290550), "IDE
 * Controller Register Descriptions" and "Bus Master Function Description"; ANSI INCITS
 * 397-2005 (ATA/ATAPI-7), volume 2, "Parallel interface register definitions".
 * Not modelled: timing registers; the channels are decoded whatever they say.
 */
#include "guest/device/ata.h"
#include "guest/device/pci.h"

#include "base/bytes.h"
#include "base/util.h"

enum { CHANNELS = 2, BUS_MASTER_BYTES = 16, BAR_BUS_MASTER = 4 };
enum { PRD_BYTES = 8, PRD_ENTRIES_MAX = 8192, PRD_END = 1u << 31 };
enum { CTL_NIEN = 0x02, CTL_SRST = 0x04, CTL_HOB = 0x80 };
enum { BM_START = 0x01, BM_TO_MEMORY = 0x08 };
enum { BMS_ACTIVE = 0x01, BMS_ERROR = 0x02, BMS_INTERRUPT = 0x04, BMS_DRIVES = 0x60 };
enum bus_master { BM_COMMAND = 0, BM_STATUS = 2, BM_TABLE = 4 };
enum task_file {
    TF_DATA,
    TF_ERROR,
    TF_COUNT,
    TF_LOW,
    TF_MID,
    TF_HIGH,
    TF_DEVICE,
    TF_STATUS,
    TASK_BYTES,
};

struct channel {
    struct ata_port port;
    struct piix3_ide *ide;
    struct irq *irq;
    struct region task_region, control_region;
    struct placing *task_at, *control_at;
    struct ata_list list;
    uint32_t prd_at;
    unsigned prd_left; /* entries: a list must end some time */
    bool prd_last;
    /* State. */
    uint8_t control, select, wants, bm_command, bm_status;
    uint32_t bm_table;
};

struct piix3_ide {
    struct pci_device pci;
    struct region bus_master;
    struct channel channel[CHANNELS];
};

static const struct {
    const char *name;
    uint16_t task, control;
    uint8_t irq;
} places[CHANNELS] = {{"ide.0", 0x1f0, 0x3f6, 14}, {"ide.1", 0x170, 0x376, 15}};

static struct ata_drive *selected(const struct channel *c)
{
    return c->port.drive[c->select & ATA_DEVICE_DEV ? 1 : 0];
}

static void channel_settle(struct channel *c)
{
    irq_set(c->irq, c->wants && !(c->control & CTL_NIEN));
}

static void settle(struct device *dev)
{
    struct piix3_ide *ide = container_of(dev, struct piix3_ide, pci.dev);
    for (unsigned i = 0; i < CHANNELS; i++) {
        channel_settle(&ide->channel[i]);
    }
}

/* ---- the drives' side ---- */

static void port_pio(struct ata_port *port, struct ata_drive *d)
{
    (void)port, (void)d; /* the guest moves it */
}

static void port_attention(struct ata_port *port, struct ata_drive *d)
{
    struct channel *c = container_of(port, struct channel, port);
    if (d == selected(c)) {
        c->wants = 1;
        c->bm_status |= BMS_INTERRUPT;
        channel_settle(c);
    }
}

static void port_dma(struct ata_port *port, struct ata_drive *d)
{
    struct channel *c = container_of(port, struct channel, port);
    if (c->bm_status & BMS_ACTIVE) {
        ata_dma_go(d);
    }
}

static void port_dma_end(struct ata_port *port, struct ata_drive *d)
{
    struct channel *c = container_of(port, struct channel, port);
    (void)d;
    c->bm_status &= (uint8_t)~BMS_ACTIVE;
}

static bool prd_fetch(struct ata_list *list)
{
    struct channel *c = container_of(list, struct channel, list);
    uint8_t raw[PRD_BYTES];
    if (c->prd_last || !c->prd_left || !pci_dma_read(&c->ide->pci, c->prd_at, raw, sizeof(raw))) {
        return false;
    }
    uint32_t info = le32_at(raw + 4);
    list->at = le32_at(raw) & ~1u;
    list->bytes = (info & 0xfffe) ? info & 0xfffe : 65536;
    c->prd_last = info & PRD_END;
    c->prd_at += PRD_BYTES;
    c->prd_left--;
    return true;
}

static uint32_t port_next(struct ata_port *port, uint32_t bytes, bool to_guest, struct iovec *iov,
                          unsigned *n)
{
    struct channel *c = container_of(port, struct channel, port);
    return ata_list_next(&c->list, bytes, to_guest, iov, n);
}

static const struct ata_port_ops port_ops = {
    .pio = port_pio,
    .dma = port_dma,
    .next = port_next,
    .dma_end = port_dma_end,
    .attention = port_attention,
};

/* ---- task file ---- */

static uint8_t task_get(struct channel *c, unsigned at)
{
    const struct ata_drive *d = selected(c);
    bool hob = c->control & CTL_HOB;
    if (!d) {
        return 0;
    }
    const struct ata_task *t = &d->task;
    switch (at) {
    case TF_ERROR:
        return hob ? t->hob_feature : t->error;
    case TF_COUNT:
        return hob ? t->hob_count : t->count;
    case TF_LOW:
        return hob ? t->hob_low : t->low;
    case TF_MID:
        return hob ? t->hob_mid : t->mid;
    case TF_HIGH:
        return hob ? t->hob_high : t->high;
    case TF_DEVICE:
        return (uint8_t)((t->device & ~ATA_DEVICE_DEV) | (c->select & ATA_DEVICE_DEV) | 0xa0);
    default:
        return t->status;
    }
}

static uint8_t task_read(struct channel *c, unsigned at)
{
    uint8_t v = task_get(c, at);
    if (at == TF_STATUS) {
        c->wants = 0;
        channel_settle(c);
    }
    return v;
}

/* Both drives of a channel hear each write; the upper halves are the bytes before. */
static void task_put(struct ata_task *t, unsigned at, uint8_t value)
{
    switch (at) {
    case TF_ERROR:
        t->hob_feature = t->feature;
        t->feature = value;
        break;
    case TF_COUNT:
        t->hob_count = t->count;
        t->count = value;
        break;
    case TF_LOW:
        t->hob_low = t->low;
        t->low = value;
        break;
    case TF_MID:
        t->hob_mid = t->mid;
        t->mid = value;
        break;
    case TF_HIGH:
        t->hob_high = t->high;
        t->high = value;
        break;
    default:
        t->device = value;
        break;
    }
}

static void command(struct channel *c, uint8_t value)
{
    struct ata_drive *d = selected(c);
    enum { DEVICE_RESET = 0x08, DIAGNOSTIC = 0x90 };
    c->wants = 0;
    channel_settle(c);
    if (!d || ((d->task.status & (ATA_BSY | ATA_DRQ)) && value != DEVICE_RESET)) {
        return;
    }
    if (value == DIAGNOSTIC) { /* both do it, the first reports */
        c->select = 0;
        d = c->port.drive[0] ? c->port.drive[0] : d;
        struct ata_drive *other = c->port.drive[1];
        if (other && other != d) {
            ata_command(other, value);
        }
    }
    ata_command(d, value);
}

static void task_write(struct channel *c, unsigned at, uint8_t value)
{
    if (at == TF_STATUS) {
        command(c, value);
        return;
    }
    c->control &= (uint8_t)~CTL_HOB;
    if (at == TF_DEVICE) {
        c->select = value;
    }
    for (unsigned i = 0; i < 2; i++) {
        struct ata_drive *d = c->port.drive[i];
        if (d && !(d->task.status & (ATA_BSY | ATA_DRQ) && at != TF_DEVICE)) {
            task_put(&d->task, at, value);
        }
    }
}

enum { MAX_ACCESS = 4 };

static uint64_t task_region_read(void *owner, uint64_t at, unsigned bytes)
{
    struct channel *c = owner;
    uint64_t v = 0;
    if (at == TF_DATA) {
        return selected(c) ? ata_data_read(selected(c), bytes) : 0;
    }
    for (unsigned i = 0; i < bytes && at + i < TASK_BYTES; i++) {
        v |= (uint64_t)task_read(c, (unsigned)at + i) << 8 * i;
    }
    return v;
}

static uint64_t task_region_read_many(void *owner, uint64_t at, unsigned bytes, uint8_t *to,
                                      uint64_t count)
{
    struct ata_drive *d = at == TF_DATA ? selected(owner) : NULL;
    return d && bytes <= MAX_ACCESS ? ata_data_read_many(d, bytes, to, count) : 0;
}

static void task_region_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct channel *c = owner;
    if (at == TF_DATA) {
        if (selected(c)) {
            ata_data_write(selected(c), (uint32_t)value, bytes);
        }
        return;
    }
    for (unsigned i = 0; i < bytes && at + i < TASK_BYTES; i++) {
        task_write(c, (unsigned)at + i, (uint8_t)(value >> 8 * i));
    }
}

static const struct region_ops task_ops = {.read = task_region_read,
                                           .write = task_region_write,
                                           .read_many = task_region_read_many,
                                           .max_bytes = MAX_ACCESS};

static uint64_t control_read(void *owner, uint64_t at, unsigned bytes)
{
    (void)at, (void)bytes;
    return task_get(owner, TF_STATUS); /* the alternate status: nothing is acknowledged */
}

static void control_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct channel *c = owner;
    uint8_t old = c->control;
    (void)at, (void)bytes;
    c->control = (uint8_t)value;
    for (unsigned i = 0; i < 2; i++) {
        struct ata_drive *d = c->port.drive[i];
        if (d && (value & ~old & CTL_SRST)) {
            ata_reset(d);
            d->task.status = ATA_BSY;
        } else if (d && (old & ~value & CTL_SRST)) {
            ata_reset(d);
        }
    }
    if (old & ~value & CTL_SRST) {
        c->select = 0;
        c->wants = 0;
    }
    channel_settle(c);
}

static const struct region_ops control_ops = {
    .read = control_read, .write = control_write, .max_bytes = 1};

/* ---- bus master ---- */

static void bm_start(struct channel *c)
{
    struct ata_drive *d = selected(c);
    c->bm_status |= BMS_ACTIVE;
    c->prd_at = c->bm_table;
    c->prd_left = PRD_ENTRIES_MAX;
    c->prd_last = false;
    c->list.bytes = 0;
    if (d && d->dma) {
        ata_dma_go(d);
    }
}

static void bm_command(struct channel *c, uint8_t value)
{
    uint8_t old = c->bm_command;
    c->bm_command = value & (BM_START | BM_TO_MEMORY);
    if (value & ~old & BM_START) {
        bm_start(c);
    } else if (old & ~value & BM_START) {
        if (selected(c)) {
            ata_stop_dma(selected(c));
        }
        c->bm_status &= (uint8_t)~BMS_ACTIVE;
    }
}

static uint8_t bm_read(const struct channel *c, unsigned at)
{
    switch (at) {
    case BM_COMMAND:
        return c->bm_command;
    case BM_STATUS:
        return c->bm_status;
    case BM_TABLE:
    case BM_TABLE + 1:
    case BM_TABLE + 2:
    case BM_TABLE + 3:
        return (uint8_t)(c->bm_table >> 8 * (at - BM_TABLE));
    default:
        return 0xff;
    }
}

static void bm_write(struct channel *c, unsigned at, uint8_t value)
{
    unsigned shift = 8 * (at - BM_TABLE);
    switch (at) {
    case BM_COMMAND:
        bm_command(c, value);
        break;
    case BM_STATUS:
        c->bm_status = (uint8_t)((value & BMS_DRIVES) | (c->bm_status & BMS_ACTIVE) |
                                 (c->bm_status & ~value & (BMS_ERROR | BMS_INTERRUPT)));
        break;
    case BM_TABLE:
    case BM_TABLE + 1:
    case BM_TABLE + 2:
    case BM_TABLE + 3:
        c->bm_table = ((c->bm_table & ~(0xffu << shift)) | (uint32_t)value << shift) & ~3u;
        break;
    default:
        break;
    }
}

static uint64_t bm_region_read(void *owner, uint64_t at, unsigned bytes)
{
    struct piix3_ide *ide = owner;
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++) {
        v |= (uint64_t)bm_read(&ide->channel[(at + i) / 8 % CHANNELS], (at + i) % 8) << 8 * i;
    }
    return v;
}

static void bm_region_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct piix3_ide *ide = owner;
    for (unsigned i = 0; i < bytes; i++) {
        bm_write(&ide->channel[(at + i) / 8 % CHANNELS], (at + i) % 8, (uint8_t)(value >> 8 * i));
    }
}

static const struct region_ops bm_ops = {
    .read = bm_region_read, .write = bm_region_write, .max_bytes = 4};

/* ---- life ---- */

static void start_channel(struct piix3_ide *ide, unsigned i)
{
    struct channel *c = &ide->channel[i];
    struct device *dev = &ide->pci.dev;
    struct board *b = dev->board;
    c->ide = ide;
    c->list = (struct ata_list){.space = pci_dma_space(&ide->pci), .fetch = prd_fetch};
    c->irq = device_irq(dev, b->isa_irq[places[i].irq]);
    c->port = (struct ata_port){
        .name = places[i].name, .board = b, .units = 2, .ops = &port_ops, .owner = c};
    ata_port_add(&c->port);
    c->task_region =
        (struct region){.name = places[i].name, .size = TASK_BYTES, .ops = &task_ops, .owner = c};
    c->control_region =
        (struct region){.name = "ide control", .size = 1, .ops = &control_ops, .owner = c};
    c->task_at = space_place(b->ports, &c->task_region, places[i].task, 0);
    c->control_at = space_place(b->ports, &c->control_region, places[i].control, 0);
}

static bool start(struct device *dev, GError **error)
{
    struct piix3_ide *ide = container_of(dev, struct piix3_ide, pci.dev);
    if (!pci_attach(&ide->pci, error)) {
        return false;
    }
    ide->pci.config[0x41] = ide->pci.config[0x43] = 0x80; /* both channels are decoded */
    ide->bus_master = (struct region){
        .name = "ide bus master", .size = BUS_MASTER_BYTES, .ops = &bm_ops, .owner = ide};
    pci_set_bar(&ide->pci, BAR_BUS_MASTER, &ide->bus_master, true, false, false);
    for (unsigned i = 0; i < CHANNELS; i++) {
        start_channel(ide, i);
    }
    return true;
}

static bool loaded(struct device *dev, GError **error)
{
    const struct piix3_ide *ide = container_of(dev, struct piix3_ide, pci.dev);
    for (unsigned i = 0; i < CHANNELS; i++) {
        if (ide->channel[i].prd_left > PRD_ENTRIES_MAX) {
            g_set_error(error, LODGE_ERROR, EINVAL, "a list of DMA pieces without end");
            return false;
        }
    }
    return true;
}

static void stop(struct device *dev)
{
    struct piix3_ide *ide = container_of(dev, struct piix3_ide, pci.dev);
    for (unsigned i = 0; i < CHANNELS; i++) {
        ata_port_remove(&ide->channel[i].port);
        space_remove(ide->channel[i].task_at);
        space_remove(ide->channel[i].control_at);
    }
    pci_detach(&ide->pci);
}

#define S(n, field) STATE(struct piix3_ide, channel[n].field)
#define CHANNEL_STATE(n)                                                                           \
    S(n, control), S(n, select), S(n, wants), S(n, bm_command), S(n, bm_status), S(n, bm_table),   \
        S(n, prd_at), S(n, prd_left), S(n, prd_last), S(n, list.at), S(n, list.bytes)
static const struct reg regs[] = {
    PCI_STATE(struct piix3_ide, pci),
    CHANNEL_STATE(0),
    CHANNEL_STATE(1),
};

static const struct prop props[] = {PCI_PROPS(struct piix3_ide, pci)};

static const struct pci_ident ident = {
    .vendor = 0x8086,
    .device = 0x7010,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .class = 0x010180,
};

const struct device_model model_piix3_ide = {
    .name = "piix3-ide",
    .about = "IDE controller of the PIIX3",
    .spec = "Intel 290550, \"IDE Controller Register Descriptions\"",
    .size = sizeof(struct piix3_ide),
    .version = 1,
    .bus = BUS_PCI,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .bus_data = &ident,
    .start = start,
    .stop = stop,
    .settle = settle,
    .loaded = loaded,
};
