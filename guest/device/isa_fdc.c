/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * isa_fdc: floppy disk controller with two drives that take 360 KB to 2.88 MB disks.
 *
 * Spec: Intel, "82078 44 Pin CHMOS Single-Chip Floppy Disk Controller" (290475), "Register
 * Description", "Command Set/Descriptions", "Status Register Encoding".
 * Not modelled: SCAN commands, deleted data marks, sectors of other than 512 bytes, time:
 * each command is over as soon as its data has moved.
 */
#include "guest/device/isa_fdc.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/device/board.h"
#include "guest/device/i8237.h"
#include "host/image/image.h"

#include <string.h>

enum { DRIVES = 2, SECTOR = 512, SECTOR_CODE = 2, RESULT_BYTES = 7, TRACK_MAX = 85 };
enum { DMA_CHANNEL = 2, IRQ = 6, IOBASE = 0x3f0 };
enum { DOR_DRIVE = 0x03, DOR_NRESET = 0x04, DOR_DMA = 0x08, DOR_MOTOR = 0x10 };
enum { MSR_BUSY = 0x10, MSR_NONDMA = 0x20, MSR_DIO = 0x40, MSR_RQM = 0x80, DSR_RESET = 0x80 };
enum { ST0_ABNORMAL = 0x40, ST0_INVALID = 0x80, ST0_POLLING = 0xc0, ST0_SEEK_END = 0x20,
       ST0_EQUIPMENT = 0x10 };
enum { ST1_NO_MARK = 0x01, ST1_PROTECTED = 0x02, ST1_NO_DATA = 0x04, ST1_CRC = 0x20,
       ST1_END = 0x80 };
enum { ST2_WRONG_CYLINDER = 0x10, ST2_CRC = 0x20, ST3_TRACK0 = 0x10, ST3_PROTECTED = 0x40 };
enum { CONFIG_IMPLIED_SEEK = 0x40, COMMAND_MT = 0x80 };

enum phase { PHASE_COMMAND, PHASE_EXECUTE, PHASE_RESULT };
enum work { WORK_READ, WORK_WRITE, WORK_FORMAT };
enum rate { RATE_500 = 0, RATE_300 = 1, RATE_250 = 2, RATE_1000 = 3 };

struct medium {
    uint32_t bytes;
    uint8_t tracks, heads, sectors, rate;
    uint8_t type; /* of the drive, in CMOS */
};
static const struct medium media[] = {
    {1474560, 80, 2, 18, RATE_500, 4},  {2949120, 80, 2, 36, RATE_1000, 5},
    {737280, 80, 2, 9, RATE_250, 3},    {1228800, 80, 2, 15, RATE_500, 2},
    {1720320, 80, 2, 21, RATE_500, 4},  {368640, 40, 2, 9, RATE_300, 1},
    {3194880, 80, 2, 39, RATE_1000, 5}, {839680, 82, 2, 10, RATE_250, 3},
    {327680, 40, 2, 8, RATE_250, 1},    {184320, 40, 1, 9, RATE_300, 1},
    {163840, 40, 1, 8, RATE_250, 1},
};

struct fdc {
    struct device dev;
    struct irq *irq;
    struct device *dma;
    struct device_window registers, change;
    Image *drive[DRIVES];
    uint32_t bootindex[DRIVES]; /* UINT32_MAX: firmware does not try it */
    /* State. */
    uint8_t dor, tdr, rate, phase, work;
    uint8_t wants;            /* interrupt */
    uint8_t polls;            /* answers that SENSE INTERRUPT still owes after a reset */
    uint8_t seek_st0;         /* of the last seek; 0: none to tell */
    uint8_t fifo[16], fifo_at, fifo_bytes;
    uint8_t track[DRIVES], changed[DRIVES];
    uint8_t specify[2], config, precompensation, lock, perpendicular;
    uint8_t unit, cylinder, head, sector, last, multi, filler; /* of the command under way */
    uint16_t buf_at, buf_bytes;
    uint8_t buf[SECTOR];
};

struct command {
    uint8_t mask, value, bytes; /* bytes: the code included */
    void (*run)(struct fdc *f);
};

static struct fdc *self(struct device *dev)
{
    return container_of(dev, struct fdc, dev);
}

static void settle(struct device *dev)
{
    struct fdc *f = self(dev);
    irq_set(f->irq, f->wants && (f->dor & DOR_DMA)); /* that bit gates the interrupt too */
}

/* The geometry follows from the size; what is no known size is the start of a larger disk. */
static const struct medium *medium_of(const struct fdc *f, unsigned unit)
{
    Image *img = unit < DRIVES ? f->drive[unit] : NULL;
    if (!img || !image_inserted(img)) {
        return NULL;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(media); i++) {
        if (media[i].bytes == image_size(img)) {
            return &media[i];
        }
    }
    return &media[image_size(img) > media[0].bytes];
}

unsigned isa_fdc_drive_type(const struct device *dev, unsigned unit)
{
    const struct fdc *f = container_of(dev, struct fdc, dev);
    const struct medium *m = medium_of(f, unit);
    return m ? m->type : unit < DRIVES && f->drive[unit] ? 5 : 0;
}

static bool by_dma(const struct fdc *f)
{
    return (f->dor & DOR_DMA) && !(f->specify[1] & 1) && f->dma;
}

/* ---- results ---- */

static void show_result(struct fdc *f, unsigned bytes)
{
    f->phase = PHASE_RESULT;
    f->fifo_at = 0;
    f->fifo_bytes = (uint8_t)bytes;
}

static void back_to_command(struct fdc *f)
{
    f->phase = PHASE_COMMAND;
    f->fifo_at = f->fifo_bytes = 0;
}

static void finish(struct fdc *f, uint8_t st0, uint8_t st1, uint8_t st2)
{
    const uint8_t result[RESULT_BYTES] = {(uint8_t)(st0 | f->head << 2 | f->unit), st1, st2,
                                          f->cylinder, f->head, f->sector, SECTOR_CODE};
    memcpy(f->fifo, result, sizeof(result));
    show_result(f, sizeof(result));
    f->wants = 1;
    if (f->dma) {
        i8237_request(f->dma, DMA_CHANNEL, false);
    }
    settle(&f->dev);
}

static void fail(struct fdc *f, uint8_t st1, uint8_t st2)
{
    finish(f, ST0_ABNORMAL, st1, st2);
}

/* ---- sectors ---- */

static uint64_t position(const struct fdc *f, const struct medium *m)
{
    return (((uint64_t)f->cylinder * m->heads + f->head) * m->sectors + f->sector - 1) * SECTOR;
}

/* 0, or a negative errno value; a sector beyond a short image reads as zero. */
static int move_sector(struct fdc *f, bool write)
{
    const struct medium *m = medium_of(f, f->unit);
    if (!m) {
        return -ENOMEDIUM;
    }
    uint64_t at = position(f, m);
    Image *img = f->drive[f->unit];
    if (write) {
        return image_write(img, at, f->buf, SECTOR);
    }
    memset(f->buf, 0, SECTOR);
    return at + SECTOR <= image_size(img) ? image_read(img, at, f->buf, SECTOR) : 0;
}

/* False at the last sector of the command; the address is then what the result shows. */
static bool next_sector(struct fdc *f)
{
    const struct medium *m = medium_of(f, f->unit);
    if (!m) {
        return false;
    }
    if (f->sector < f->last && f->sector < m->sectors) {
        f->sector++;
        return true;
    }
    f->sector = 1;
    if (f->multi && f->head == 0 && m->heads == 2) {
        f->head = 1;
        return true;
    }
    f->head = f->multi ? 0 : f->head;
    f->cylinder++;
    return false;
}

static bool load_sector(struct fdc *f)
{
    f->buf_at = 0;
    f->buf_bytes = SECTOR;
    if (f->work == WORK_READ && move_sector(f, false) < 0) {
        fail(f, ST1_CRC, ST2_CRC);
        return false;
    }
    return true;
}

static bool format_sector(struct fdc *f)
{
    uint8_t head = f->head;
    f->cylinder = f->buf[0];
    f->sector = f->buf[2];
    f->head = f->buf[1] & 1;
    const struct medium *m = medium_of(f, f->unit);
    bool there = m && f->head < m->heads && f->sector && f->sector <= m->sectors &&
                 f->cylinder == f->track[f->unit];
    memset(f->buf, f->filler, SECTOR);
    int r = there ? move_sector(f, true) : -EIO;
    f->head = head;
    return r == 0;
}

/* The buffer is full, or the host has said that it is the last. */
static void sector_moved(struct fdc *f, bool last)
{
    bool ok = true;
    if (f->work == WORK_WRITE) {
        ok = move_sector(f, true) == 0;
    } else if (f->work == WORK_FORMAT) {
        ok = format_sector(f);
        f->last--;
        last |= f->last == 0;
        f->buf_at = 0;
    }
    if (!ok) {
        fail(f, ST1_CRC, ST2_CRC);
        return;
    }
    if (f->work == WORK_FORMAT) {
        if (last) {
            finish(f, 0, 0, 0);
        }
        return;
    }
    bool more = next_sector(f);
    if (last || (!more && !by_dma(f))) {
        finish(f, 0, 0, 0);
    } else if (!more) {
        fail(f, ST1_END, 0);
    } else {
        load_sector(f);
    }
}

/* ---- moving data ---- */

static void dma_ready(void *owner)
{
    struct fdc *f = owner;
    while (f->phase == PHASE_EXECUTE && by_dma(f)) {
        uint8_t *at = f->buf + f->buf_at;
        size_t room = f->buf_bytes - f->buf_at;
        size_t n = f->work == WORK_READ ? i8237_write_memory(f->dma, DMA_CHANNEL, at, room)
                                        : i8237_read_memory(f->dma, DMA_CHANNEL, at, room);
        bool done = i8237_done(f->dma, DMA_CHANNEL);
        f->buf_at = (uint16_t)(f->buf_at + n);
        if (!n && !done) {
            break;
        }
        if (f->buf_at == f->buf_bytes || done) {
            memset(f->buf + f->buf_at, 0, (size_t)(f->buf_bytes - f->buf_at));
            sector_moved(f, done);
        }
    }
}

static void execute(struct fdc *f, enum work work)
{
    f->phase = PHASE_EXECUTE;
    f->work = (uint8_t)work;
    if (!load_sector(f)) {
        return;
    }
    f->buf_bytes = work == WORK_FORMAT ? 4 : SECTOR;
    if (by_dma(f)) {
        i8237_request(f->dma, DMA_CHANNEL, true); /* dma_ready() may run inside */
        dma_ready(f);
    } else {
        f->wants = 1;
    }
}

/* ---- commands ---- */

/* What READ, WRITE and the like begin with; false after fail(). */
static bool take_address(struct fdc *f, bool write)
{
    f->unit = f->fifo[1] & 3;
    f->cylinder = f->fifo[2];
    f->head = f->fifo[3] & 1;
    f->sector = f->fifo[4];
    f->last = f->fifo[6];
    f->multi = f->fifo[0] & COMMAND_MT;
    const struct medium *m = medium_of(f, f->unit);
    if (!m || m->rate != f->rate) {
        fail(f, ST1_NO_MARK, 0);
        return false;
    }
    if (f->config & CONFIG_IMPLIED_SEEK) {
        f->track[f->unit] = f->cylinder;
    }
    if (f->cylinder != f->track[f->unit] || f->cylinder >= m->tracks) {
        fail(f, ST1_NO_DATA, ST2_WRONG_CYLINDER);
        return false;
    }
    if (f->head >= m->heads || !f->sector || f->sector > m->sectors ||
        f->fifo[5] != SECTOR_CODE) {
        fail(f, ST1_NO_DATA, 0);
        return false;
    }
    if (write && image_read_only(f->drive[f->unit])) {
        fail(f, ST1_PROTECTED, 0);
        return false;
    }
    return true;
}

static void run_read(struct fdc *f)
{
    if (take_address(f, false)) {
        execute(f, WORK_READ);
    }
}

static void run_write(struct fdc *f)
{
    if (take_address(f, true)) {
        execute(f, WORK_WRITE);
    }
}

static void run_verify(struct fdc *f)
{
    if (take_address(f, false)) {
        while (next_sector(f)) {
        }
        finish(f, 0, 0, 0);
    }
}

static void run_format(struct fdc *f)
{
    f->unit = f->fifo[1] & 3;
    f->head = f->fifo[1] >> 2 & 1;
    f->last = f->fifo[3];
    f->filler = f->fifo[5];
    f->sector = 1;
    const struct medium *m = medium_of(f, f->unit);
    if (!m || m->rate != f->rate || f->fifo[2] != SECTOR_CODE || !f->last) {
        fail(f, ST1_NO_MARK, 0);
    } else if (image_read_only(f->drive[f->unit])) {
        fail(f, ST1_PROTECTED, 0);
    } else {
        execute(f, WORK_FORMAT);
    }
}

static void run_read_id(struct fdc *f)
{
    f->unit = f->fifo[1] & 3;
    f->head = f->fifo[1] >> 2 & 1;
    const struct medium *m = medium_of(f, f->unit);
    f->cylinder = m ? f->track[f->unit] : 0;
    f->sector = 1;
    if (!m || m->rate != f->rate || f->head >= m->heads || f->cylinder >= m->tracks) {
        fail(f, ST1_NO_MARK, 0);
    } else {
        finish(f, 0, 0, 0);
    }
}

/* The head has arrived: at once. */
static void seek_to(struct fdc *f, unsigned unit, unsigned track)
{
    bool there = unit < DRIVES && f->drive[unit];
    f->seek_st0 = (uint8_t)(ST0_SEEK_END | unit | (there ? 0 : ST0_ABNORMAL | ST0_EQUIPMENT));
    f->wants = 1;
    if (there) {
        f->track[unit] = (uint8_t)MIN(track, TRACK_MAX);
        f->changed[unit] = !image_inserted(f->drive[unit]);
    }
    back_to_command(f);
}

static void run_seek(struct fdc *f)
{
    seek_to(f, f->fifo[1] & 3, f->fifo[2]);
}

static void run_recalibrate(struct fdc *f)
{
    seek_to(f, f->fifo[1] & 3, 0);
}

static void run_relative_seek(struct fdc *f)
{
    unsigned unit = f->fifo[1] & 3, now = unit < DRIVES ? f->track[unit] : 0, by = f->fifo[2];
    seek_to(f, unit, f->fifo[0] & 0x40 ? now + by : now - MIN(now, by));
}

static void run_sense_interrupt(struct fdc *f)
{
    if (f->polls) {
        f->fifo[0] = (uint8_t)(ST0_POLLING | (4 - f->polls));
        f->polls--;
    } else if (f->seek_st0) {
        f->fifo[0] = f->seek_st0;
    } else {
        f->fifo[0] = ST0_INVALID;
        show_result(f, 1);
        return;
    }
    unsigned unit = f->fifo[0] & 3;
    f->fifo[1] = unit < DRIVES ? f->track[unit] : 0;
    f->seek_st0 = 0;
    f->wants = 0;
    show_result(f, 2);
}

static void run_sense_drive(struct fdc *f)
{
    unsigned unit = f->fifo[1] & 3;
    bool there = unit < DRIVES && f->drive[unit];
    f->fifo[0] = (uint8_t)(0x28 | (f->fifo[1] & 7));
    f->fifo[0] |= there && f->track[unit] == 0 ? ST3_TRACK0 : 0;
    f->fifo[0] |= there && image_inserted(f->drive[unit]) && image_read_only(f->drive[unit])
                      ? ST3_PROTECTED : 0;
    show_result(f, 1);
}

static void run_specify(struct fdc *f)
{
    memcpy(f->specify, f->fifo + 1, 2);
    back_to_command(f);
}

static void run_configure(struct fdc *f)
{
    f->config = f->fifo[2];
    f->precompensation = f->fifo[3];
    back_to_command(f);
}

static void run_perpendicular(struct fdc *f)
{
    f->perpendicular = f->fifo[1];
    back_to_command(f);
}

static void run_version(struct fdc *f)
{
    f->fifo[0] = 0x90; /* an enhanced controller */
    show_result(f, 1);
}

static void run_part_id(struct fdc *f)
{
    f->fifo[0] = 0x41;
    show_result(f, 1);
}

static void run_lock(struct fdc *f)
{
    f->lock = f->fifo[0] >> 7;
    f->fifo[0] = (uint8_t)(f->lock << 4);
    show_result(f, 1);
}

static void run_dump(struct fdc *f)
{
    const uint8_t result[10] = {f->track[0], f->track[1], 0, 0, f->specify[0], f->specify[1],
                                f->last, (uint8_t)(f->lock << 7 | (f->perpendicular & 0x7f)),
                                f->config, f->precompensation};
    memcpy(f->fifo, result, sizeof(result));
    show_result(f, sizeof(result));
}

static void run_invalid(struct fdc *f)
{
    log_line(LOG_UNIMP, "fdc: command %#x", f->fifo[0]);
    f->fifo[0] = ST0_INVALID;
    show_result(f, 1);
}

static const struct command commands[] = {
    {0x1f, 0x06, 9, run_read},        {0x9f, 0x02, 9, run_read},
    {0x3f, 0x05, 9, run_write},       {0x1f, 0x16, 9, run_verify},
    {0xbf, 0x0d, 6, run_format},      {0xbf, 0x0a, 2, run_read_id},
    {0xff, 0x07, 2, run_recalibrate}, {0xff, 0x0f, 3, run_seek},
    {0xbf, 0x8f, 3, run_relative_seek}, {0xff, 0x08, 1, run_sense_interrupt},
    {0xff, 0x04, 2, run_sense_drive}, {0xff, 0x03, 3, run_specify},
    {0xff, 0x13, 4, run_configure},   {0xff, 0x12, 2, run_perpendicular},
    {0xff, 0x10, 1, run_version},     {0xff, 0x18, 1, run_part_id},
    {0x7f, 0x14, 1, run_lock},        {0xff, 0x0e, 1, run_dump},
};
static const struct command invalid = {0, 0, 1, run_invalid};

static const struct command *command_of(uint8_t code)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        if ((code & commands[i].mask) == commands[i].value) {
            return &commands[i];
        }
    }
    return &invalid;
}

/* ---- registers ---- */

static void controller_reset(struct fdc *f)
{
    if (f->dma) {
        i8237_request(f->dma, DMA_CHANNEL, false);
    }
    back_to_command(f);
    f->seek_st0 = 0;
    if (!f->lock) {
        f->config = 0;
        f->precompensation = 0;
    }
}

static void reset_ends(struct fdc *f)
{
    f->polls = 4;
    f->wants = 1;
}

static void dor_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct fdc *f = self(dev);
    if (!(now & DOR_NRESET)) {
        controller_reset(f);
        f->wants = 0;
    } else if (!(old & DOR_NRESET)) {
        reset_ends(f);
    }
}

static void dsr_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct fdc *f = self(dev);
    (void)old;
    f->rate = now & 3;
    if (now & DSR_RESET) { /* clears itself */
        controller_reset(f);
        reset_ends(f);
    }
}

static void ccr_write(struct device *dev, uint64_t old, uint64_t now)
{
    (void)old;
    self(dev)->rate = now & 3;
}

static uint64_t sra_read(struct device *dev, uint64_t stored)
{
    const struct fdc *f = self(dev);
    const Image *img = f->drive[0];
    unsigned unit = f->dor & 1;
    (void)stored;
    return (uint64_t)(f->wants << 7 | !f->drive[1] << 6 | (f->track[unit] != 0) << 4 |
                      f->head << 3 | 1 << 2 | !(img && image_read_only(img)) << 1);
}

static uint64_t srb_read(struct device *dev, uint64_t stored)
{
    const struct fdc *f = self(dev);
    (void)stored;
    return 0xc0 | (f->dor & 1) << 5 | (f->dor >> 4 & 3);
}

static uint64_t msr_read(struct device *dev, uint64_t stored)
{
    const struct fdc *f = self(dev);
    uint64_t busy = f->phase != PHASE_COMMAND || f->fifo_at ? MSR_BUSY : 0;
    (void)stored;
    if (!(f->dor & DOR_NRESET)) {
        return 0;
    }
    if (f->phase == PHASE_RESULT) {
        return MSR_RQM | MSR_DIO | busy;
    }
    if (f->phase == PHASE_EXECUTE) {
        return by_dma(f) ? busy
                         : MSR_RQM | MSR_NONDMA | busy | (f->work == WORK_READ ? MSR_DIO : 0);
    }
    return MSR_RQM | busy;
}

static uint64_t dir_read(struct device *dev, uint64_t stored)
{
    const struct fdc *f = self(dev);
    unsigned unit = f->dor & DOR_DRIVE;
    bool motor = f->dor & DOR_MOTOR << unit;
    (void)stored;
    return motor && unit < DRIVES && f->drive[unit] && f->changed[unit] ? 0x80 : 0;
}

static uint64_t data_read(struct fdc *f)
{
    uint8_t v = f->buf[f->buf_at++];
    if (f->buf_at == f->buf_bytes) {
        f->wants = 0;
        sector_moved(f, false);
    }
    return v;
}

static uint64_t fifo_read(struct device *dev, uint64_t stored)
{
    struct fdc *f = self(dev);
    (void)stored;
    if (f->phase == PHASE_EXECUTE && !by_dma(f) && f->work == WORK_READ) {
        return data_read(f);
    }
    if (f->phase != PHASE_RESULT) {
        return 0;
    }
    uint8_t v = f->fifo[f->fifo_at++];
    f->wants = 0;
    if (f->fifo_at == f->fifo_bytes) {
        back_to_command(f);
    }
    return v;
}

static void data_write(struct fdc *f, uint8_t value)
{
    f->buf[f->buf_at++] = value;
    if (f->buf_at == f->buf_bytes) {
        f->wants = 0;
        sector_moved(f, false);
    }
}

static void command_write(struct fdc *f, uint8_t value)
{
    f->fifo[f->fifo_at++] = value;
    const struct command *c = command_of(f->fifo[0]);
    if (f->fifo_at == 1) {
        f->fifo_bytes = c->bytes;
    }
    if (f->fifo_at >= c->bytes) {
        f->fifo_at = 0;
        c->run(f);
    }
}

static void fifo_write(struct device *dev, uint64_t old, uint64_t now)
{
    struct fdc *f = self(dev);
    (void)old;
    if (!(f->dor & DOR_NRESET)) {
        return;
    }
    if (f->phase == PHASE_EXECUTE && !by_dma(f) && f->work != WORK_READ) {
        data_write(f, (uint8_t)now);
    } else if (f->phase == PHASE_COMMAND) {
        command_write(f, (uint8_t)now);
    }
}

/* ---- life ---- */

static void medium_changed(void *owner)
{
    struct fdc *f = owner; /* which drive does not matter: the guest looks at the disk again */
    for (unsigned i = 0; i < DRIVES; i++) {
        f->changed[i] = 1;
    }
}

static bool start(struct device *dev, GError **error)
{
    struct fdc *f = self(dev);
    (void)error;
    f->irq = device_irq(dev, dev->board->isa_irq[IRQ]);
    f->dma = board_part(dev->board, "dma");
    if (f->dma) {
        i8237_attach(f->dma, DMA_CHANNEL, dma_ready, f);
    }
    for (unsigned i = 0; i < DRIVES; i++) {
        if (f->drive[i]) {
            image_on_change(f->drive[i], medium_changed, f);
        }
    }
    device_window_init(&f->registers, dev, 0, "fdc", 6);
    device_window_init(&f->change, dev, 1, "fdc", 1);
    device_place(&f->registers, dev->board->ports, IOBASE, 0);
    device_place(&f->change, dev->board->ports, IOBASE + 7, 0);
    board_add_part(dev->board, "fdc", dev);
    return true;
}

static void stop(struct device *dev)
{
    struct fdc *f = self(dev);
    for (unsigned i = 0; i < DRIVES; i++) {
        if (f->drive[i]) {
            image_on_change(f->drive[i], NULL, NULL);
        }
    }
    if (f->dma && board_part(dev->board, "dma") == f->dma) {
        i8237_attach(f->dma, DMA_CHANNEL, NULL, NULL);
    }
}

static void reset(struct device *dev)
{
    struct fdc *f = self(dev);
    for (unsigned i = 0; i < DRIVES; i++) {
        f->changed[i] = f->drive[i] && !image_inserted(f->drive[i]);
    }
}

static bool loaded(struct device *dev, GError **error)
{
    struct fdc *f = self(dev);
    bool sane = f->phase <= PHASE_RESULT && f->work <= WORK_FORMAT && f->rate <= 3 &&
                f->unit <= 3 && f->fifo_bytes <= 10 && f->buf_bytes <= SECTOR && f->polls <= 4 &&
                f->head <= 1 && f->lock <= 1;
    if (f->phase == PHASE_COMMAND) {
        sane &= f->fifo_at < 9 && (!f->fifo_at || f->fifo_at < command_of(f->fifo[0])->bytes);
    } else if (f->phase == PHASE_RESULT) {
        sane &= f->fifo_at < f->fifo_bytes;
    } else {
        sane &= f->buf_at < f->buf_bytes && f->sector && f->last &&
                medium_of(f, f->unit) != NULL;
    }
    if (!sane) {
        g_set_error(error, LODGE_ERROR, EINVAL, "registers do not fit together");
    }
    return sane;
}

#define S(field, ...) STATE(struct fdc, field, __VA_ARGS__)
#define A(field) STATE_ARRAY(struct fdc, field)
static const struct reg regs[] = {
    REG_COMPUTED("sra", .port = 0, .dir = REG_R, .on_read = sra_read, .help = "status A"),
    REG_COMPUTED("srb", .port = 1, .dir = REG_R, .on_read = srb_read, .help = "status B"),
    REG(struct fdc, dor, .port = 2, .dir = REG_RW, .writable = 0xff,
        .reset = DOR_NRESET | DOR_DMA, .on_write = dor_write, .help = "digital output"),
    REG(struct fdc, tdr, .port = 3, .dir = REG_RW, .writable = 0x03, .help = "tape drive"),
    REG_COMPUTED("msr", .port = 4, .dir = REG_R, .on_read = msr_read, .help = "main status"),
    REG_COMPUTED("dsr", .port = 4, .dir = REG_W, .on_write = dsr_write, .help = "data rate"),
    REG_COMPUTED("data", .port = 5, .dir = REG_RW, .on_read = fifo_read, .on_write = fifo_write,
                 .help = "FIFO"),
    REG_COMPUTED("dir", .window = 1, .port = 0, .dir = REG_R, .on_read = dir_read,
                 .help = "disk changed"),
    REG_COMPUTED("ccr", .window = 1, .port = 0, .dir = REG_W, .on_write = ccr_write,
                 .help = "data rate"),
    S(rate, .reset = RATE_250), S(phase), S(work), S(wants), S(polls), S(seek_st0), A(fifo),
    S(fifo_at), S(fifo_bytes), A(track), A(changed), A(specify), S(config), S(precompensation),
    S(lock), S(perpendicular), S(unit), S(cylinder), S(head), S(sector), S(last), S(multi),
    S(filler), S(buf_at), S(buf_bytes), A(buf),
};

static const struct prop props[] = {
    {"driveA", PROP_DRIVE, offsetof(struct fdc, drive[0])},
    {"driveB", PROP_DRIVE, offsetof(struct fdc, drive[1])},
    {"bootindexA", PROP_U32, offsetof(struct fdc, bootindex[0]), UINT32_MAX},
    {"bootindexB", PROP_U32, offsetof(struct fdc, bootindex[1]), UINT32_MAX},
};

const struct device_model model_isa_fdc = {
    .name = "isa-fdc",
    .about = "floppy disk controller",
    .spec = "Intel 290475, 82078, \"Command Set/Descriptions\"",
    .size = sizeof(struct fdc),
    .version = 1,
    .bus = BUS_ISA,
    .regs = regs,
    .nregs = G_N_ELEMENTS(regs),
    .props = props,
    .nprops = G_N_ELEMENTS(props),
    .start = start,
    .stop = stop,
    .settle = settle,
    .reset = reset,
    .loaded = loaded,
};
