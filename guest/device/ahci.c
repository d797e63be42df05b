/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * ahci: the SATA function of the ICH9 in AHCI mode: six ports, 32 commands each, native
 * command queuing.
 *
 * Spec: Intel, "Serial ATA Advanced Host Controller Interface (AHCI) 1.3", "HBA Memory
 * Registers" and "Data Transfer Operation"; "I/O Controller Hub 9 Family Datasheet"
 * (316972), "SATA Controller Registers (D31:F2)"; Serial ATA 2.6, "FIS types".
 * Not modelled: port multipliers, command completion coalescing, staggered spin-up.
 */
#include "guest/device/ata.h"
#include "guest/device/pci.h"

#include "base/bytes.h"
#include "base/util.h"

enum { PORTS = 6, SLOTS = 32, HBA_BYTES = 0x1000, PORT_AT = 0x100, PORT_BYTES = 0x80 };
enum { BAR_INDEX = 4, BAR_HBA = 5, INDEX_BYTES = 32, INDEX_AT = 16, DATA_AT = 20 };
enum { HEADER_BYTES = 32, CFIS_BYTES = 64, ACMD_AT = 0x40, PRDT_AT = 0x80, PRD_BYTES = 16 };

enum hba_register { CAP = 0x00, GHC = 0x04, IS = 0x08, PI = 0x0c, VS = 0x10, HBA_END = 0x2c };
#define CAP_VALUE (UINT32_C(1) << 31 | 1 << 30 | 1 << 20 | 1 << 18 | (SLOTS - 1) << 8 | (PORTS - 1))
enum { GHC_RESET = 1 << 0, GHC_IE = 1 << 1, VERSION = 0x10000 };
#define GHC_AE (UINT32_C(1) << 31)

enum port_register {
    P_CLB = 0x00, P_CLBU = 0x04, P_FB = 0x08, P_FBU = 0x0c, P_IS = 0x10, P_IE = 0x14,
    P_CMD = 0x18, P_TFD = 0x20, P_SIG = 0x24, P_SSTS = 0x28, P_SCTL = 0x2c, P_SERR = 0x30,
    P_SACT = 0x34, P_CI = 0x38,
};
enum {
    CMD_ST = 1 << 0, CMD_CLO = 1 << 3, CMD_FRE = 1 << 4, CMD_FR = 1 << 14, CMD_CR = 1 << 15,
    CMD_WRITABLE = 0x07000017, SSTS_UP = 0x113, SCTL_COMRESET = 1,
};
enum { IS_D2H = 1 << 0, IS_PIO = 1 << 1, IS_SDB = 1 << 3, IS_ERROR = 1 << 30 };
#define IE_WRITABLE UINT32_C(0xfdc000ff)
#define NO_DRIVE_TFD 0x7f

enum fis_type { FIS_H2D = 0x27, FIS_D2H = 0x34, FIS_PIO = 0x5f, FIS_SDB = 0xa1 };
enum { RX_PIO = 0x20, RX_D2H = 0x40, RX_SDB = 0x58, FIS_COMMAND = 0x80, FIS_INTERRUPT = 0x40 };
enum { HDR_ATAPI = 1 << 5, CONTROL_SRST = 4, NCQ_READ = 0x60, NCQ_WRITE = 0x61, FUA = 0x80 };

struct ahci;
struct ahci_port;

/* The memory of one command. */
struct memory_list {
    struct ata_list list;
    struct ahci *hba;
    uint64_t at;   /* of the next entry */
    unsigned left; /* entries */
    uint32_t moved; /* bytes handed out */
};

/* A queued command. */
struct queued {
    struct image_request io;
    struct ahci_port *port;
    struct memory_list memory;
    struct iovec iov[ATA_PARTS];
    unsigned niov;
    uint64_t lba;
    uint32_t left;
    uint8_t slot;
    bool write, fua, running;
};

struct ahci_port {
    struct ata_port ata;
    struct ahci *hba;
    char *name; /* "ide.0", or "ID.0" of a controller that has an id */
    bool scanning; /* the loop over slots is running further up */
    struct memory_list memory; /* of the command in .slot */
    uint64_t header;
    struct queued queued[SLOTS];
    unsigned n_queued;
    /* State. */
    uint32_t clb, clbu, fb, fbu, is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;
    int8_t slot;      /* the command that the drive executes; -1: none */
    uint8_t srst, halted;
};

struct ahci {
    struct pci_device pci;
    struct region hba, index_region;
    struct ahci_port port[PORTS];
    uint32_t ghc, is, index;
};

static struct ata_drive *drive_of(const struct ahci_port *p)
{
    return p->ata.drive[0];
}

/* ---- interrupts ---- */

static void settle(struct device *dev)
{
    struct ahci *a = container_of(dev, struct ahci, pci.dev);
    for (unsigned i = 0; i < PORTS; i++) {
        a->is |= a->port[i].is & a->port[i].ie ? 1u << i : 0;
    }
    pci_irq(&a->pci, a->is && (a->ghc & GHC_IE) && !pci_msi_enabled(&a->pci));
}

static void raise_event(struct ahci_port *p, uint32_t bits)
{
    struct ahci *a = p->hba;
    p->is |= bits;
    settle(&a->pci.dev);
    if ((bits & p->ie) && (a->ghc & GHC_IE) && pci_msi_enabled(&a->pci)) {
        pci_msi(&a->pci, 0);
    }
}

/* ---- FISes to memory ---- */

static void show_task(struct ahci_port *p)
{
    const struct ata_drive *d = drive_of(p);
    p->tfd = (uint32_t)d->task.error << 8 | d->task.status;
}

static void receive_fis(struct ahci_port *p, unsigned at, const uint8_t *fis, unsigned bytes)
{
    if (p->cmd & CMD_FRE) {
        pci_dma_write(&p->hba->pci, ((uint64_t)p->fbu << 32 | p->fb) + at, fis, bytes);
    }
}

static void fill_task_fis(const struct ata_drive *d, uint8_t fis[20], enum fis_type type)
{
    const struct ata_task *t = &d->task;
    const uint8_t bytes[20] = {(uint8_t)type, FIS_INTERRUPT, t->status, t->error, t->low, t->mid,
                               t->high, t->device, t->hob_low, t->hob_mid, t->hob_high, 0,
                               t->count, t->hob_count};
    memcpy(fis, bytes, sizeof(bytes));
}

static void send_d2h(struct ahci_port *p)
{
    uint8_t fis[20];
    fill_task_fis(drive_of(p), fis, FIS_D2H);
    receive_fis(p, RX_D2H, fis, sizeof(fis));
    show_task(p);
}

static void send_pio_setup(struct ahci_port *p, uint32_t bytes)
{
    const struct ata_drive *d = drive_of(p);
    uint8_t fis[20];
    fill_task_fis(d, fis, FIS_PIO);
    fis[1] |= ata_phase_is_out(d) ? 0 : 0x20;
    fis[15] = ATA_DRDY | ATA_DSC;
    le16_put(fis + 16, (uint16_t)bytes);
    receive_fis(p, RX_PIO, fis, sizeof(fis));
}

static void send_sdb(struct ahci_port *p, uint32_t finished)
{
    const struct ata_task *t = &drive_of(p)->task;
    uint8_t fis[8] = {FIS_SDB, FIS_INTERRUPT, t->status & 0x77, t->error};
    le32_put(fis + 4, finished);
    receive_fis(p, RX_SDB, fis, sizeof(fis));
    show_task(p);
}

/* ---- memory of a command ---- */

static bool prdt_fetch(struct ata_list *list)
{
    struct memory_list *m = container_of(list, struct memory_list, list);
    uint8_t raw[PRD_BYTES];
    if (!m->left || !pci_dma_read(&m->hba->pci, m->at, raw, sizeof(raw))) {
        return false;
    }
    list->at = le64_at(raw) & ~UINT64_C(1);
    list->bytes = (le32_at(raw + 12) & 0x3fffff) + 1;
    m->at += PRD_BYTES;
    m->left--;
    return true;
}

static void memory_begin(struct memory_list *m, struct ahci *a, uint64_t table, unsigned entries)
{
    *m = (struct memory_list){.list = {.space = pci_dma_space(&a->pci), .fetch = prdt_fetch},
                              .hba = a, .at = table + PRDT_AT, .left = entries};
}

static uint32_t port_next(struct ata_port *port, uint32_t bytes, bool to_guest, struct iovec *iov,
                          unsigned *n)
{
    struct ahci_port *p = container_of(port, struct ahci_port, ata);
    uint32_t done = ata_list_next(&p->memory.list, bytes, to_guest, iov, n);
    p->memory.moved += done;
    return done;
}

/* ---- ends of commands ---- */

static void scan_slots(struct ahci_port *p);

/* The drive has done with the command in .slot. */
static void finish_slot(struct ahci_port *p, uint32_t event)
{
    uint8_t bytes[4];
    bool failed = drive_of(p)->task.status & ATA_ERR;
    if (p->slot < 0) {
        return;
    }
    le32_put(bytes, p->memory.moved);
    pci_dma_write(&p->hba->pci, p->header + 4, bytes, sizeof(bytes));
    if (failed) {
        p->halted = 1; /* until software restarts the port; CI says which command it was */
    } else {
        p->ci &= ~(UINT32_C(1) << p->slot);
    }
    p->slot = -1;
    show_task(p);
    raise_event(p, event | (failed ? IS_ERROR : 0));
    scan_slots(p);
}

static void port_attention(struct ata_port *port, struct ata_drive *d)
{
    struct ahci_port *p = container_of(port, struct ahci_port, ata);
    if (p->slot >= 0 && !(d->task.status & (ATA_BSY | ATA_DRQ))) {
        send_d2h(p);
        finish_slot(p, IS_D2H);
    }
}

static void copy_block(struct ata_drive *d)
{
    bool out = ata_phase_is_out(d);
    while (d->buf_at < d->buf_end) {
        uint32_t n = ata_next_memory(d, d->buf_end - d->buf_at, !out);
        if (!n) {
            break; /* the list is too short: the rest is lost */
        }
        for (unsigned i = 0; i < d->transfer.niov; i++) {
            const struct iovec *part = &d->transfer.iov[i];
            memcpy(out ? d->buf + d->buf_at : part->iov_base,
                   out ? part->iov_base : d->buf + d->buf_at, part->iov_len);
            d->buf_at += (uint32_t)part->iov_len;
        }
        if (!out) {
            ata_note_written(d, n);
        }
    }
}

static void port_pio(struct ata_port *port, struct ata_drive *d)
{
    struct ahci_port *p = container_of(port, struct ahci_port, ata);
    bool to_guest = !ata_phase_is_out(d);
    if (p->slot < 0) {
        return;
    }
    send_pio_setup(p, d->buf_end - d->buf_at);
    if (d->phase == ATA_PACKET_OUT) {
        uint64_t table = p->memory.at - PRDT_AT; /* nothing was fetched yet */
        pci_dma_read(&p->hba->pci, table + ACMD_AT, d->buf, ATA_PACKET);
    } else {
        copy_block(d);
    }
    ata_block_moved(d);
    if (to_guest && !(d->task.status & (ATA_BSY | ATA_DRQ))) {
        finish_slot(p, IS_PIO); /* reads by PIO end without another FIS */
    }
}

static void port_dma(struct ata_port *port, struct ata_drive *d)
{
    (void)port;
    ata_dma_go(d);
}

static void port_dma_end(struct ata_port *port, struct ata_drive *d)
{
    /* A list that was too short ends the command without attention; here it must end too. */
    struct ahci_port *p = container_of(port, struct ahci_port, ata);
    if (p->slot >= 0 && d->phase == ATA_IDLE && d->left &&
        !(d->task.status & (ATA_BSY | ATA_ERR))) {
        port_attention(port, d);
    }
}

static const struct ata_port_ops port_ops = {
    .pio = port_pio, .dma = port_dma, .next = port_next, .dma_end = port_dma_end,
    .attention = port_attention,
};

/* ---- queued commands ---- */

static void queued_end(struct queued *q, int result)
{
    struct ahci_port *p = q->port;
    struct ata_task *t = &drive_of(p)->task;
    uint32_t bit = UINT32_C(1) << q->slot;
    q->running = false;
    p->n_queued--;
    t->status = result < 0 ? ATA_DRDY | ATA_DSC | ATA_ERR : ATA_DRDY | ATA_DSC;
    t->error = result < 0 ? ATA_ABRT | ATA_UNC : 0;
    if (result < 0) {
        p->halted = 1;
    } else {
        p->sact &= ~bit;
    }
    send_sdb(p, result < 0 ? 0 : bit);
    raise_event(p, IS_SDB | (result < 0 ? IS_ERROR : 0));
    scan_slots(p);
}

static void queued_step(struct queued *q);

static void queued_note_written(const struct queued *q)
{
    for (unsigned i = 0; i < q->niov && !q->write; i++) {
        ram_note_write(q->iov[i].iov_base, q->iov[i].iov_len);
    }
}

static void queued_done(struct image_request *io, int result)
{
    struct queued *q = container_of(io, struct queued, io);
    if (result < 0 || io->op == IMAGE_FLUSH) {
        queued_end(q, result);
        return;
    }
    queued_note_written(q);
    q->lba += io->bytes / ATA_SECTOR;
    q->left -= (uint32_t)(io->bytes / ATA_SECTOR);
    if (q->left) {
        queued_step(q);
    } else if (q->fua) {
        io->op = IMAGE_FLUSH;
        image_submit(drive_of(q->port)->drive, io);
    } else {
        queued_end(q, 0);
    }
}

static void queued_step(struct queued *q)
{
    enum { CHUNK = 8 << 20 };
    uint64_t wanted = MIN((uint64_t)q->left * ATA_SECTOR, CHUNK);
    uint32_t n = ata_list_next(&q->memory.list, (uint32_t)wanted, !q->write, q->iov, &q->niov);
    if (!n || n % ATA_SECTOR) {
        queued_end(q, -EIO);
        return;
    }
    q->io = (struct image_request){.op = q->write ? IMAGE_WRITE : IMAGE_READ,
                                   .offset = q->lba * ATA_SECTOR, .bytes = n, .iov = q->iov,
                                   .niov = q->niov, .done = queued_done};
    image_submit(drive_of(q->port)->drive, &q->io);
}

static void start_queued(struct ahci_port *p, unsigned slot, const uint8_t *fis, uint64_t table,
                         unsigned entries)
{
    struct ata_drive *d = drive_of(p);
    struct queued *q = &p->queued[slot];
    uint32_t count = (uint32_t)fis[11] << 8 | fis[3];
    q->port = p;
    q->slot = (uint8_t)slot;
    q->lba = (uint64_t)fis[10] << 40 | (uint64_t)fis[9] << 32 | (uint64_t)fis[8] << 24 |
             (uint64_t)fis[6] << 16 | (uint64_t)fis[5] << 8 | fis[4];
    q->left = count ? count : 65536;
    q->write = fis[2] == NCQ_WRITE;
    q->fua = q->write && ((fis[7] & FUA) || !d->write_cache);
    q->running = true;
    p->n_queued++;
    p->ci &= ~(UINT32_C(1) << slot);
    memory_begin(&q->memory, p->hba, table, entries);
    if (q->lba > d->sectors || q->left > d->sectors - q->lba) {
        queued_end(q, -EIO);
    } else {
        queued_step(q);
    }
}

/* ---- issuing commands ---- */

static void take_task(struct ata_drive *d, const uint8_t *fis)
{
    struct ata_task *t = &d->task;
    t->feature = fis[3];
    t->low = fis[4];
    t->mid = fis[5];
    t->high = fis[6];
    t->device = fis[7];
    t->hob_low = fis[8];
    t->hob_mid = fis[9];
    t->hob_high = fis[10];
    t->hob_feature = fis[11];
    t->count = fis[12];
    t->hob_count = fis[13];
}

static void signature(struct ahci_port *p)
{
    const struct ata_drive *d = drive_of(p);
    p->sig = !d ? UINT32_MAX : d->cd ? UINT32_C(0xeb140101) : UINT32_C(0x00000101);
}

/* A FIS that is no command sets the control register: software reset. */
static void control_fis(struct ahci_port *p, unsigned slot, const uint8_t *fis)
{
    bool srst = fis[15] & CONTROL_SRST;
    p->ci &= ~(UINT32_C(1) << slot);
    if (p->srst && !srst) {
        ata_reset(drive_of(p));
        drive_of(p)->task.status = ATA_DRDY | ATA_DSC;
        signature(p);
        send_d2h(p);
    }
    p->srst = srst;
}

static bool start_slot(struct ahci_port *p, unsigned slot)
{
    uint8_t header[HEADER_BYTES], fis[CFIS_BYTES];
    uint64_t at = ((uint64_t)p->clbu << 32 | p->clb) + slot * HEADER_BYTES;
    if (!pci_dma_read(&p->hba->pci, at, header, sizeof(header))) {
        return false;
    }
    uint64_t table = le64_at(header + 8) & ~UINT64_C(0x7f);
    unsigned entries = le16_at(header + 2);
    if (!pci_dma_read(&p->hba->pci, table, fis, sizeof(fis)) || fis[0] != FIS_H2D) {
        return false;
    }
    if (!(fis[1] & FIS_COMMAND)) {
        control_fis(p, slot, fis);
        return true;
    }
    bool queued = (fis[2] == NCQ_READ || fis[2] == NCQ_WRITE) && !drive_of(p)->cd;
    if (queued) {
        start_queued(p, slot, fis, table, entries);
        return true;
    }
    if (p->n_queued) {
        return false; /* the two kinds do not mix: it waits for the queue to empty */
    }
    memory_begin(&p->memory, p->hba, table, entries);
    p->header = at;
    p->slot = (int8_t)slot;
    p->cmd = (p->cmd & ~UINT32_C(0x1f00)) | slot << 8;
    take_task(drive_of(p), fis);
    p->tfd |= ATA_BSY;
    ata_command(drive_of(p), fis[2]);
    return true;
}

static void scan_slots(struct ahci_port *p)
{
    if (p->scanning || !drive_of(p)) {
        return;
    }
    p->scanning = true;
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        if ((p->ci >> slot & 1) && p->slot < 0 && !p->halted && (p->cmd & CMD_ST)) {
            if (!p->queued[slot].running) {
                start_slot(p, slot);
            }
        }
    }
    p->scanning = false;
}

/* ---- ports ---- */

static void stop_commands(struct ahci_port *p)
{
    struct ata_drive *d = drive_of(p);
    p->ci = 0; /* nothing new starts while we wait */
    if (d && (p->n_queued || d->busy)) {
        image_drain(d->drive);
    }
    p->sact = 0;
    p->slot = -1;
    p->halted = 0;
}

static void reset_port(struct ahci_port *p)
{
    struct ata_drive *d = drive_of(p);
    stop_commands(p);
    p->serr = 0;
    p->srst = 0;
    p->ssts = d ? SSTS_UP : 0;
    p->tfd = NO_DRIVE_TFD;
    signature(p);
    if (d) {
        ata_reset(d);
        d->task.status = ATA_DRDY | ATA_DSC;
        send_d2h(p);
    }
}

static void cmd_write(struct ahci_port *p, uint32_t value)
{
    uint32_t old = p->cmd;
    p->cmd = (old & ~(uint32_t)CMD_WRITABLE) | (value & CMD_WRITABLE);
    if ((value & CMD_CLO) && drive_of(p)) {
        drive_of(p)->task.status &= (uint8_t) ~(ATA_BSY | ATA_DRQ);
        show_task(p);
    }
    p->cmd = value & CMD_FRE ? p->cmd | CMD_FR : p->cmd & ~(uint32_t)CMD_FR;
    if (value & ~old & CMD_FRE && drive_of(p) && p->slot < 0) {
        send_d2h(p); /* the signature, which waited for a place to go */
    }
    if (value & CMD_ST) {
        p->cmd |= CMD_CR;
    } else {
        p->cmd &= ~(uint32_t)CMD_CR;
        if (old & CMD_ST) {
            stop_commands(p);
        }
    }
}

static uint32_t *port_slot(struct ahci_port *p, unsigned at)
{
    switch (at) {
    case P_CLB:
        return &p->clb;
    case P_CLBU:
        return &p->clbu;
    case P_FB:
        return &p->fb;
    case P_FBU:
        return &p->fbu;
    case P_IS:
        return &p->is;
    case P_IE:
        return &p->ie;
    case P_CMD:
        return &p->cmd;
    case P_TFD:
        return &p->tfd;
    case P_SIG:
        return &p->sig;
    case P_SSTS:
        return &p->ssts;
    case P_SCTL:
        return &p->sctl;
    case P_SERR:
        return &p->serr;
    case P_SACT:
        return &p->sact;
    case P_CI:
        return &p->ci;
    default:
        return NULL;
    }
}

static void port_write(struct ahci_port *p, unsigned at, uint32_t value)
{
    uint32_t *slot = port_slot(p, at), old = slot ? *slot : 0;
    switch (at) {
    case P_CLB:
        p->clb = value & ~UINT32_C(0x3ff);
        break;
    case P_FB:
        p->fb = value & ~UINT32_C(0xff);
        break;
    case P_CLBU:
    case P_FBU:
        *slot = value;
        break;
    case P_IS:
    case P_SERR:
        *slot &= ~value;
        break;
    case P_IE:
        p->ie = value & IE_WRITABLE;
        break;
    case P_CMD:
        cmd_write(p, value);
        scan_slots(p);
        break;
    case P_SCTL:
        p->sctl = value & 0xfff;
        if ((old & 0xf) == SCTL_COMRESET && !(value & 0xf)) {
            reset_port(p);
        }
        break;
    case P_SACT:
        p->sact |= p->cmd & CMD_ST ? value : 0;
        break;
    case P_CI:
        p->ci |= p->cmd & CMD_ST ? value : 0;
        image_plug();
        scan_slots(p);
        image_unplug();
        break;
    default:
        break;
    }
}

/* ---- the host bus adapter ---- */

static void reset_hba(struct ahci *a)
{
    a->ghc = GHC_AE;
    a->is = 0;
    for (unsigned i = 0; i < PORTS; i++) {
        struct ahci_port *p = &a->port[i];
        stop_commands(p);
        p->is = p->ie = p->cmd = p->sctl = 0;
        reset_port(p);
    }
}

static uint32_t hba_get(struct ahci *a, unsigned at)
{
    if (at >= PORT_AT) {
        unsigned n = (at - PORT_AT) / PORT_BYTES;
        uint32_t *slot = n < PORTS ? port_slot(&a->port[n], (at - PORT_AT) % PORT_BYTES) : NULL;
        return slot ? *slot : 0;
    }
    switch (at) {
    case CAP:
        return CAP_VALUE;
    case GHC:
        return a->ghc;
    case IS:
        return a->is;
    case PI:
        return (1u << PORTS) - 1;
    case VS:
        return VERSION;
    default:
        return 0;
    }
}

static void hba_put(struct ahci *a, unsigned at, uint32_t value)
{
    if (at >= PORT_AT) {
        unsigned n = (at - PORT_AT) / PORT_BYTES;
        if (n < PORTS) {
            port_write(&a->port[n], (at - PORT_AT) % PORT_BYTES, value);
        }
    } else if (at == GHC) {
        if (value & GHC_RESET) {
            reset_hba(a);
        } else {
            a->ghc = GHC_AE | (value & GHC_IE);
        }
    } else if (at == IS) {
        a->is &= ~value;
    }
    settle(&a->pci.dev);
}

static uint64_t hba_read(void *owner, uint64_t at, unsigned bytes)
{
    (void)bytes;
    return hba_get(owner, (unsigned)at);
}

static void hba_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    (void)bytes;
    hba_put(owner, (unsigned)at, (uint32_t)value);
}

static const struct region_ops hba_ops = {
    .read = hba_read, .write = hba_write, .min_bytes = 4, .max_bytes = 4};

/* An index and a data port, for software in real mode. */
static uint64_t index_read(void *owner, uint64_t at, unsigned bytes)
{
    struct ahci *a = owner;
    (void)bytes;
    return at == INDEX_AT ? a->index : at == DATA_AT ? hba_get(a, a->index) : 0;
}

static void index_write(void *owner, uint64_t at, uint64_t value, unsigned bytes)
{
    struct ahci *a = owner;
    (void)bytes;
    if (at == INDEX_AT) {
        a->index = (uint32_t)value & (HBA_BYTES - 4);
    } else if (at == DATA_AT) {
        hba_put(a, a->index, (uint32_t)value);
    }
}

static const struct region_ops index_ops = {
    .read = index_read, .write = index_write, .min_bytes = 4, .max_bytes = 4};

/* ---- life ---- */

static void add_sata_capability(struct ahci *a)
{
    unsigned at = pci_add_capability(&a->pci, PCI_CAP_SATA, 8);
    le16_put(a->pci.config + at + 2, 0x10);
    le32_put(a->pci.config + at + 4, INDEX_AT / 4 << 4 | (BAR_INDEX + 4));
}

static bool start(struct device *dev, GError **error)
{
    struct ahci *a = container_of(dev, struct ahci, pci.dev);
    if (!pci_attach(&a->pci, error)) {
        return false;
    }
    a->pci.config[0x90] = 1 << 6; /* address map: AHCI */
    add_sata_capability(a);
    a->hba = (struct region){.name = "ahci", .size = HBA_BYTES, .ops = &hba_ops, .owner = a};
    a->index_region =
        (struct region){.name = "ahci index", .size = INDEX_BYTES, .ops = &index_ops, .owner = a};
    pci_set_bar(&a->pci, BAR_INDEX, &a->index_region, true, false, false);
    pci_set_bar(&a->pci, BAR_HBA, &a->hba, false, false, false);
    for (unsigned i = 0; i < PORTS; i++) {
        struct ahci_port *p = &a->port[i];
        p->name = g_strdup_printf("%s.%u", dev->id ? dev->id : "ide", i);
        p->hba = a;
        p->slot = -1;
        p->ata = (struct ata_port){.name = p->name, .board = dev->board, .units = 1, .ahci = true,
                                   .ops = &port_ops, .owner = p};
        ata_port_add(&p->ata);
    }
    return true;
}

static void stop(struct device *dev)
{
    struct ahci *a = container_of(dev, struct ahci, pci.dev);
    for (unsigned i = 0; i < PORTS; i++) {
        stop_commands(&a->port[i]);
        ata_port_remove(&a->port[i].ata);
        g_clear_pointer(&a->port[i].name, g_free);
    }
    pci_detach(&a->pci);
}

static void reset(struct device *dev)
{
    reset_hba(container_of(dev, struct ahci, pci.dev));
}

static bool loaded(struct device *dev, GError **error)
{
    struct ahci *a = container_of(dev, struct ahci, pci.dev);
    for (unsigned i = 0; i < PORTS; i++) {
        struct ahci_port *p = &a->port[i];
        if (p->slot != -1 || (p->sact & ~p->ci && !p->halted && drive_of(p))) {
            g_set_error(error, LODGE_ERROR, EINVAL, "port %u was saved inside a command", i);
            return false;
        }
    }
    a->index &= HBA_BYTES - 4;
    return true;
}

#define S(n, field, ...) STATE(struct ahci, port[n].field, __VA_ARGS__)
#define PORT_STATE(n)                                                                              \
    S(n, clb), S(n, clbu), S(n, fb), S(n, fbu), S(n, is), S(n, ie), S(n, cmd), S(n, tfd),          \
        S(n, sig), S(n, ssts), S(n, sctl), S(n, serr), S(n, sact), S(n, ci),                       \
        S(n, slot, .reset = 0xff), S(n, srst), S(n, halted)
static const struct reg regs[] = {
    PCI_STATE(struct ahci, pci),
    STATE(struct ahci, ghc, .reset = GHC_AE),
    STATE(struct ahci, is),
    STATE(struct ahci, index),
    PORT_STATE(0), PORT_STATE(1), PORT_STATE(2), PORT_STATE(3), PORT_STATE(4), PORT_STATE(5),
};

static const struct prop props[] = {PCI_PROPS(struct ahci, pci)};

static const struct pci_ident ident = {
    .vendor = 0x8086,
    .device = 0x2922,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
    .revision = 2,
    .class = 0x010601,
    .irq_pin = 1,
    .msi = 1,
};

const struct device_model model_ahci = {
    .name = "ich9-ahci",
    .alias = "ahci",
    .about = "SATA controller of the ICH9",
    .spec = "Intel, AHCI 1.3, \"HBA Memory Registers\"",
    .size = sizeof(struct ahci),
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
    .reset = reset,
    .loaded = loaded,
};
