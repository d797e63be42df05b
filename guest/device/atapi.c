/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * atapi: the packet commands of a CD-ROM or DVD-ROM drive, behind IDE and AHCI.
 *
 * Spec: ANSI INCITS 397-2005 (ATA/ATAPI-7), "PACKET command feature set".
 * What the packets say is in mmc.c.
 */
#include "guest/device/ata.h"

#include "base/bytes.h"
#include "base/util.h"

#include <string.h>

enum { PER_CD_SECTOR = SCSI_CD_BLOCK / ATA_SECTOR, DMA_CHUNK = 8 << 20, LIMIT_MAX = 0xfffe };
enum { REASON_COMMAND = 1, REASON_IN = 2, MODE_SENSE_6 = 0x1a };

/* ---- ends ---- */

static void packet_end(struct ata_drive *d)
{
    d->scsi.sense = (struct scsi_sense){0};
    d->task.count = REASON_COMMAND | REASON_IN;
    ata_end(d);
}

static void packet_fail(struct ata_drive *d, struct scsi_sense sense)
{
    d->scsi.sense = sense;
    d->task.count = REASON_COMMAND | REASON_IN;
    ata_abort(d, (uint8_t)(sense.key << 4 | ATA_ABRT));
}

static void read_failed(struct ata_drive *d)
{
    packet_fail(d, (struct scsi_sense){KEY_MEDIUM, ASC_READ_ERROR, 0});
}

/* ---- data to the host ---- */

/* Bytes of one DRQ block: what the host allows, and only the last may be odd. */
static uint32_t block_limit(const struct ata_drive *d)
{
    uint32_t limit = d->limit && d->limit < LIMIT_MAX ? d->limit : LIMIT_MAX;
    return limit > 1 ? limit & ~1u : 2;
}

static void show_next_block(struct ata_drive *d, enum ata_phase phase)
{
    uint32_t from = d->buf_end, to = MIN(from + block_limit(d), d->filled);
    ata_show_block(d, phase, from, to);
    d->task.count = REASON_IN;
    d->task.mid = (uint8_t)(to - from);
    d->task.high = (uint8_t)((to - from) >> 8);
    d->port->ops->attention(d->port, d);
    d->port->ops->pio(d->port, d);
}

/* Answers with the first bytes of .buf. */
static void reply(struct ata_drive *d, uint32_t bytes)
{
    d->filled = bytes;
    d->buf_at = d->buf_end = 0;
    if (!d->filled) {
        packet_end(d);
    } else if (d->packet_dma) {
        d->phase = ATA_PACKET_IN;
        d->buf_end = d->filled;
        d->dma = 1;
        d->dma_write = 0;
        d->task.count = REASON_IN;
        d->task.status = ATA_DRDY | ATA_DSC | ATA_DRQ;
        d->port->ops->dma(d->port, d);
    } else {
        show_next_block(d, ATA_PACKET_IN);
    }
}

static void reply_by_dma(struct ata_drive *d)
{
    uint32_t done = 0;
    while (done < d->filled) {
        uint32_t n = ata_next_memory(d, d->filled - done, true);
        if (!n) {
            break; /* the host has less room than it said */
        }
        for (unsigned i = 0; i < d->transfer.niov; i++) {
            const struct iovec *part = &d->transfer.iov[i];
            memcpy(part->iov_base, d->buf + done, part->iov_len);
            done += (uint32_t)part->iov_len;
        }
        ata_note_written(d, n);
    }
    packet_end(d);
}

static void read_dma_step(struct ata_drive *d);

static void read_dma_stepped(struct ata_drive *d, int result)
{
    uint32_t bytes = d->transfer.bytes;
    if (result < 0) {
        read_failed(d);
        return;
    }
    ata_note_written(d, bytes);
    d->lba += bytes / ATA_SECTOR;
    d->left -= bytes / ATA_SECTOR;
    if (d->left) {
        read_dma_step(d);
    } else {
        packet_end(d);
    }
}

static void read_dma_step(struct ata_drive *d)
{
    uint64_t wanted = (uint64_t)d->left * ATA_SECTOR;
    uint32_t n = ata_next_sectors(d, (uint32_t)MIN(wanted, DMA_CHUNK), true);
    if (!n) {
        packet_end(d);
        return;
    }
    ata_start_io(d, IMAGE_READ, d->lba * ATA_SECTOR, n, read_dma_stepped);
}

void atapi_dma(struct ata_drive *d)
{
    if (d->phase == ATA_PACKET_READ) {
        read_dma_step(d);
    } else {
        reply_by_dma(d);
    }
}

static void read_filled(struct ata_drive *d, int result)
{
    if (result < 0) {
        read_failed(d);
        return;
    }
    d->filled = d->transfer.bytes;
    d->lba += d->filled / ATA_SECTOR;
    d->left -= d->filled / ATA_SECTOR;
    d->buf_end = 0;
    show_next_block(d, ATA_PACKET_READ);
}

static void read_fill(struct ata_drive *d)
{
    uint32_t n = MIN(d->left, ATA_BUFFER / ATA_SECTOR);
    ata_buffer_io(d, IMAGE_READ, d->lba * ATA_SECTOR, n * ATA_SECTOR, read_filled);
}

static void begin_read(struct ata_drive *d, uint64_t lba, uint64_t count)
{
    d->lba = lba * PER_CD_SECTOR;
    d->left = (uint32_t)count * PER_CD_SECTOR;
    d->phase = ATA_PACKET_READ;
    if (!d->packet_dma) {
        read_fill(d);
        return;
    }
    d->buf_at = 0;
    d->buf_end = 1; /* not idle: a saved state may stand here */
    d->dma = 1;
    d->dma_write = 0;
    d->task.count = REASON_IN;
    d->task.status = ATA_DRDY | ATA_DSC | ATA_DRQ;
    d->port->ops->dma(d->port, d);
}

void atapi_block_moved(struct ata_drive *d)
{
    if (d->phase == ATA_PACKET_OUT) {
        memcpy(d->packet, d->buf, ATA_PACKET);
        atapi_packet(d);
    } else if (d->buf_end < d->filled) {
        show_next_block(d, d->phase);
    } else if (d->phase == ATA_PACKET_READ && d->left) {
        read_fill(d);
    } else {
        packet_end(d);
    }
}

void atapi_packet(struct ata_drive *d)
{
    uint8_t cdb[SCSI_CDB] = {0};
    memcpy(cdb, d->packet, ATA_PACKET);
    d->task.status = ATA_DRDY | ATA_DSC;
    d->phase = ATA_IDLE;
    if (cdb[0] == MODE_SENSE_6) { /* SPC's, which packet devices do not have */
        packet_fail(d, (struct scsi_sense){KEY_ILLEGAL, ASC_OPCODE, 0});
        return;
    }
    struct scsi_answer a = scsi_decode(&d->scsi, cdb, d->buf);
    switch (a.kind) {
    case SCSI_FAIL:
        packet_fail(d, a.sense);
        break;
    case SCSI_REPLY:
        reply(d, a.bytes);
        break;
    case SCSI_READ:
        begin_read(d, a.lba, a.blocks);
        break;
    default:
        packet_end(d);
        break;
    }
}

/* ---- life ---- */

void atapi_identify(struct ata_drive *d, uint8_t *id)
{
    (void)d;
    le16_put(id, 0x85c0);         /* a removable CD-ROM, DRQ within 50 us, packets of 12 bytes */
    le16_put(id + 2 * 20, 3);
    le16_put(id + 2 * 48, 1);
    le16_put(id + 2 * 49, 1 << 11 | 1 << 9 | 1 << 8);
    le16_put(id + 2 * 53, 7);
    le16_put(id + 2 * 71, 30);
    le16_put(id + 2 * 72, 30);
    le16_put(id + 2 * 80, 0xf0);
    le16_put(id + 2 * 82, 1 << 14 | 1 << 9 | 1 << 4); /* NOP, DEVICE RESET, PACKET */
    le16_put(id + 2 * 83, 1 << 14);
    le16_put(id + 2 * 85, 1 << 14 | 1 << 9 | 1 << 4);
}

void atapi_reset(struct ata_drive *d)
{
    d->scsi.sense = (struct scsi_sense){0};
    d->scsi.locked = 0;
}

/* Before the drive is used: what it is to its packet commands. */
void atapi_start(struct ata_drive *d)
{
    d->scsi.cd = d->scsi.atapi = true;
    d->scsi.image = d->drive;
    d->scsi.block = SCSI_CD_BLOCK;
    d->scsi.blocks = image_size(d->drive) / SCSI_CD_BLOCK;
}

/* The monitor put a disc in or took it out. */
void atapi_medium_changed(void *owner)
{
    struct ata_drive *d = owner;
    d->sectors = image_size(d->drive) / ATA_SECTOR;
    d->lba = d->left = 0;
    scsi_medium_changed(&d->scsi);
}
