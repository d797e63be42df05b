/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * atapi: the packet commands of a CD-ROM or DVD-ROM drive, behind IDE and AHCI.
 *
 * Spec: ANSI INCITS 397-2005 (ATA/ATAPI-7), "PACKET command feature set"; T10 MMC-6,
 * "Commands and parameters for MM devices"; SPC-3, "Sense data".
 * Not modelled: audio, raw sectors (READ CD gives user data only), writing.
 */
#include "guest/device/ata.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/util.h"

#include <string.h>

enum { CD_SECTOR = 2048, PER_CD_SECTOR = CD_SECTOR / ATA_SECTOR, DMA_CHUNK = 8 << 20 };
enum { MSF_OFFSET = 150, FRAMES = 75, LIMIT_MAX = 0xfffe };
enum { CD_MAX_SECTORS = 80 * 60 * 75 }; /* what is larger is a DVD */
enum { REASON_COMMAND = 1, REASON_IN = 2 };
enum { NEEDS_MEDIUM = 1, DURING_ATTENTION = 2 };

enum sense_key { NO_SENSE = 0, NOT_READY = 2, MEDIUM_ERROR = 3, ILLEGAL_REQUEST = 5, ATTENTION = 6 };
enum asc {
    ASC_READ_ERROR = 0x11, ASC_OPCODE = 0x20, ASC_LBA_RANGE = 0x21, ASC_FIELD = 0x24,
    ASC_MEDIUM_CHANGED = 0x28, ASC_SAVING = 0x39, ASC_NO_MEDIUM = 0x3a,
    ASC_REMOVAL_PREVENTED = 0x53,
};
enum media_event { EVENT_NONE = 0, EVENT_EJECT = 1, EVENT_NEW = 2, EVENT_REMOVAL = 3 };

struct packet_command {
    void (*run)(struct ata_drive *d, const uint8_t *p);
    uint8_t flags;
};

/* ---- ends ---- */

static void packet_end(struct ata_drive *d)
{
    d->sense_key = d->asc = d->ascq = 0;
    d->task.count = REASON_COMMAND | REASON_IN;
    ata_end(d);
}

static void packet_fail(struct ata_drive *d, enum sense_key key, enum asc asc, uint8_t ascq)
{
    d->sense_key = (uint8_t)key;
    d->asc = (uint8_t)asc;
    d->ascq = ascq;
    d->task.count = REASON_COMMAND | REASON_IN;
    ata_abort(d, (uint8_t)(key << 4 | ATA_ABRT));
}

static void bad_field(struct ata_drive *d)
{
    packet_fail(d, ILLEGAL_REQUEST, ASC_FIELD, 0);
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

/* Answers with the first bytes of .buf, at most as many as the host has room for. */
static void reply(struct ata_drive *d, uint32_t bytes, uint32_t room)
{
    d->filled = MIN(bytes, room);
    d->buf_end = 0;
    if (!d->filled) {
        packet_end(d);
    } else if (d->packet_dma) {
        d->phase = ATA_PACKET_IN;
        d->buf_at = 0;
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
        packet_fail(d, MEDIUM_ERROR, ASC_READ_ERROR, 0);
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
        packet_fail(d, MEDIUM_ERROR, ASC_READ_ERROR, 0);
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

static void begin_read(struct ata_drive *d, uint32_t lba, uint32_t count)
{
    uint64_t total = d->sectors / PER_CD_SECTOR;
    if (lba > total || count > total - lba) {
        packet_fail(d, ILLEGAL_REQUEST, ASC_LBA_RANGE, 0);
        return;
    }
    if (!count) {
        packet_end(d);
        return;
    }
    d->lba = (uint64_t)lba * PER_CD_SECTOR;
    d->left = count * PER_CD_SECTOR;
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

/* ---- commands ---- */

static void run_ready(struct ata_drive *d, const uint8_t *p)
{
    (void)p;
    packet_end(d);
}

static void run_request_sense(struct ata_drive *d, const uint8_t *p)
{
    memset(d->buf, 0, 18);
    d->buf[0] = 0xf0;
    d->buf[2] = d->sense_key;
    d->buf[7] = 10;
    d->buf[12] = d->asc;
    d->buf[13] = d->ascq;
    if (d->sense_key == ATTENTION) {
        d->unit_attention = 0;
    }
    reply(d, 18, p[4]);
}

static void run_inquiry(struct ata_drive *d, const uint8_t *p)
{
    static const uint8_t head[8] = {0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0};
    if (p[1] & 1) { /* vital product data: none */
        bad_field(d);
        return;
    }
    memset(d->buf, ' ', 36);
    memcpy(d->buf, head, sizeof(head));
    memcpy(d->buf + 8, "LODGE", 5);
    memcpy(d->buf + 16, "DVD-ROM", 7);
    memcpy(d->buf + 32, "1.0", 3);
    reply(d, 36, p[4]);
}

static void run_start_stop(struct ata_drive *d, const uint8_t *p)
{
    bool start = p[4] & 1, load_eject = p[4] & 2;
    if (load_eject && !start && !d->tray_open && d->locked) {
        packet_fail(d, image_inserted(d->drive) ? ILLEGAL_REQUEST : NOT_READY,
                    ASC_REMOVAL_PREVENTED, 2);
        return;
    }
    if (load_eject && d->tray_open == start) {
        d->tray_open = !start;
        d->media_event = start ? (image_inserted(d->drive) ? EVENT_NEW : EVENT_NONE) : EVENT_REMOVAL;
    }
    packet_end(d);
}

static void run_prevent(struct ata_drive *d, const uint8_t *p)
{
    d->locked = p[4] & 1;
    packet_end(d);
}

static void run_read_capacity(struct ata_drive *d, const uint8_t *p)
{
    (void)p;
    uint32_t total = (uint32_t)MIN(d->sectors / PER_CD_SECTOR, UINT32_MAX);
    be32_put(d->buf, total - 1);
    be32_put(d->buf + 4, CD_SECTOR);
    reply(d, 8, 8);
}

static void run_read_10(struct ata_drive *d, const uint8_t *p)
{
    begin_read(d, be32_at(p + 2), be16_at(p + 7));
}

static void run_read_12(struct ata_drive *d, const uint8_t *p)
{
    begin_read(d, be32_at(p + 2), be32_at(p + 6));
}

static void run_read_cd(struct ata_drive *d, const uint8_t *p)
{
    uint32_t count = (uint32_t)p[6] << 16 | be16_at(p + 7);
    uint8_t parts = p[9] & 0xf8;
    if (parts == 0x10) {
        begin_read(d, be32_at(p + 2), count);
    } else if (!parts || !count) {
        packet_end(d);
    } else {
        bad_field(d);
    }
}

static void run_seek(struct ata_drive *d, const uint8_t *p)
{
    if (be32_at(p + 2) >= d->sectors / PER_CD_SECTOR) {
        packet_fail(d, ILLEGAL_REQUEST, ASC_LBA_RANGE, 0);
        return;
    }
    packet_end(d);
}

static void put_address(uint8_t *out, uint32_t lba, bool msf)
{
    if (!msf) {
        be32_put(out, lba);
        return;
    }
    uint32_t frame = lba + MSF_OFFSET;
    out[0] = 0;
    out[1] = (uint8_t)(frame / FRAMES / 60);
    out[2] = (uint8_t)(frame / FRAMES % 60);
    out[3] = (uint8_t)(frame % FRAMES);
}

/* One data track and the lead-out. */
static uint32_t toc_tracks(struct ata_drive *d, bool msf, uint8_t start)
{
    uint32_t n = 4, total = (uint32_t)(d->sectors / PER_CD_SECTOR);
    static const uint8_t track[4] = {0, 0x14, 1, 0}, lead_out[4] = {0, 0x16, 0xaa, 0};
    if (start <= 1) {
        memcpy(d->buf + n, track, sizeof(track));
        put_address(d->buf + n + 4, 0, msf);
        n += 8;
    }
    memcpy(d->buf + n, lead_out, sizeof(lead_out));
    put_address(d->buf + n + 4, total, msf);
    return n + 8;
}

static uint32_t toc_raw(struct ata_drive *d, bool msf)
{
    static const uint8_t points[] = {0xa0, 0xa1, 0xa2, 1};
    uint32_t n = 4, total = (uint32_t)(d->sectors / PER_CD_SECTOR);
    for (unsigned i = 0; i < sizeof(points); i++, n += 11) {
        uint8_t *e = d->buf + n;
        memset(e, 0, 11);
        e[0] = 1;
        e[1] = 0x14;
        e[3] = points[i];
        if (points[i] == 0xa2 || points[i] == 1) {
            put_address(e + 7, points[i] == 1 ? 0 : total, msf);
        } else {
            e[8] = 1; /* first and last track */
        }
    }
    return n;
}

static void run_read_toc(struct ata_drive *d, const uint8_t *p)
{
    bool msf = p[1] & 2;
    uint8_t format = (p[2] & 0xf) ? p[2] & 0xf : p[9] >> 6, start = p[6];
    uint32_t n = 12;
    memset(d->buf, 0, 64);
    d->buf[2] = d->buf[3] = 1;
    if ((format == 0 && start > 1 && start != 0xaa) || format > 2) {
        bad_field(d);
        return;
    }
    if (format == 0) {
        n = toc_tracks(d, msf, start);
    } else if (format == 1) { /* the first track of the last session */
        d->buf[5] = 0x14;
        d->buf[6] = 1;
        put_address(d->buf + 8, 0, msf);
    } else {
        n = toc_raw(d, msf);
    }
    be16_put(d->buf, (uint16_t)(n - 2));
    reply(d, n, be16_at(p + 7));
}

static void run_read_subchannel(struct ata_drive *d, const uint8_t *p)
{
    memset(d->buf, 0, 4);
    d->buf[1] = 0x15; /* no audio is playing */
    reply(d, 4, be16_at(p + 7));
}

static bool is_dvd(const struct ata_drive *d)
{
    return d->sectors / PER_CD_SECTOR > CD_MAX_SECTORS;
}

static bool has_medium(const struct ata_drive *d)
{
    return image_inserted(d->drive) && !d->tray_open;
}

/* A feature descriptor: number, version and flags, additional bytes. */
static uint32_t put_feature(uint8_t *out, uint16_t number, uint8_t flags, const uint8_t *more,
                            uint8_t bytes)
{
    be16_put(out, number);
    out[2] = flags;
    out[3] = bytes;
    memcpy(out + 4, more, bytes);
    return 4u + bytes;
}

static void run_get_configuration(struct ata_drive *d, const uint8_t *p)
{
    uint16_t first = be16_at(p + 2), profile = !has_medium(d) ? 0 : is_dvd(d) ? 0x10 : 0x08;
    uint8_t profiles[] = {0, 0x10, profile == 0x10, 0, 0, 0x08, profile == 0x08, 0};
    static const uint8_t core[] = {0, 0, 0, 2, 1, 0, 0, 0}, removable[] = {0x39, 0, 0, 0};
    static const uint8_t readable[] = {0, 0, 8, 0, 0, 16, 1, 0}, cd_read[] = {0, 0, 0, 0};
    const struct {
        uint16_t number;
        uint8_t flags, bytes;
        const uint8_t *more;
    } all[] = {
        {0x00, 0x03, sizeof(profiles), profiles}, {0x01, 0x0b, sizeof(core), core},
        {0x03, 0x03, sizeof(removable), removable},
        {0x10, profile != 0, sizeof(readable), readable},
        {0x1e, profile == 0x08, sizeof(cd_read), cd_read}, {0x1f, profile == 0x10, 0, cd_read},
    };
    uint8_t which = p[1] & 3;
    uint32_t n = 8;
    for (unsigned i = 0; i < G_N_ELEMENTS(all) && which < 3; i++) {
        bool wanted = which == 2 ? all[i].number == first : all[i].number >= first;
        if (wanted && (which != 1 || (all[i].flags & 1))) {
            n += put_feature(d->buf + n, all[i].number, all[i].flags, all[i].more, all[i].bytes);
        }
    }
    if (which == 3) {
        bad_field(d);
        return;
    }
    memset(d->buf, 0, 8);
    be32_put(d->buf, n - 4);
    be16_put(d->buf + 6, profile);
    reply(d, n, be16_at(p + 7));
}

static void run_get_event(struct ata_drive *d, const uint8_t *p)
{
    bool media = p[4] & 0x10;
    if (!(p[1] & 1)) { /* asynchronous notification is not ours */
        bad_field(d);
        return;
    }
    memset(d->buf, 0, 8);
    be16_put(d->buf, media ? 6 : 2);
    d->buf[2] = media ? 4 : 0x80; /* the media class, or no event available */
    d->buf[3] = 0x10;
    d->buf[4] = d->media_event;
    d->buf[5] = (uint8_t)(d->tray_open | image_inserted(d->drive) << 1);
    if (media) {
        d->media_event = EVENT_NONE;
    }
    reply(d, media ? 8 : 4, be16_at(p + 7));
}

static void run_read_disc_information(struct ata_drive *d, const uint8_t *p)
{
    if (p[1] & 7) {
        bad_field(d);
        return;
    }
    memset(d->buf, 0, 34);
    be16_put(d->buf, 32);
    d->buf[2] = 0x0e; /* a finished disc */
    d->buf[3] = d->buf[4] = d->buf[5] = d->buf[6] = 1;
    d->buf[7] = 0x20;
    reply(d, 34, be16_at(p + 7));
}

static void run_read_dvd_structure(struct ata_drive *d, const uint8_t *p)
{
    uint32_t total = (uint32_t)(d->sectors / PER_CD_SECTOR), n = 8;
    if (p[1] & 0xf || p[6] || p[7] > 1) {
        bad_field(d);
        return;
    }
    if (!is_dvd(d)) {
        packet_fail(d, ILLEGAL_REQUEST, (enum asc)0x30, 2); /* incompatible medium */
        return;
    }
    memset(d->buf, 0, 4 + 2048);
    if (p[7] == 0) { /* physical format: a DVD-ROM of one layer */
        d->buf[4] = 1;
        d->buf[5] = 0x0f;
        d->buf[6] = 1;
        be32_put(d->buf + 8, 0x30000);
        be32_put(d->buf + 12, 0x30000 + total - 1);
        n = 4 + 2048;
    }
    be16_put(d->buf, (uint16_t)(n - 2));
    reply(d, n, be16_at(p + 8));
}

static void run_mechanism_status(struct ata_drive *d, const uint8_t *p)
{
    memset(d->buf, 0, 8);
    d->buf[1] = d->tray_open ? 0x10 : 0;
    d->buf[5] = 1;
    reply(d, 8, be16_at(p + 8));
}

static uint32_t page_errors(uint8_t *out)
{
    static const uint8_t page[8] = {0x01, 6, 0, 5};
    memcpy(out, page, sizeof(page));
    return sizeof(page);
}

static uint32_t page_capabilities(const struct ata_drive *d, uint8_t *out)
{
    static const uint8_t page[22] = {0x2a, 20, 0x3b, 0, 0x70, 0x03, 0x29, 0, 0x02, 0xc2, 0, 2,
                                     0x02, 0x00, 0x02, 0xc2};
    memcpy(out, page, sizeof(page));
    out[6] |= d->locked ? 2 : 0;
    return sizeof(page);
}

static void run_mode_sense(struct ata_drive *d, const uint8_t *p)
{
    uint8_t page = p[2] & 0x3f, control = p[2] >> 6;
    uint32_t n = 8;
    if (control == 3) {
        packet_fail(d, ILLEGAL_REQUEST, ASC_SAVING, 0);
        return;
    }
    if (control == 1 || (page != 0x01 && page != 0x2a && page != 0x3f)) {
        bad_field(d);
        return;
    }
    memset(d->buf, 0, 8);
    if (page != 0x2a) {
        n += page_errors(d->buf + n);
    }
    if (page != 0x01) {
        n += page_capabilities(d, d->buf + n);
    }
    be16_put(d->buf, (uint16_t)(n - 2));
    d->buf[2] = d->tray_open ? 0x71 : image_inserted(d->drive) ? 0x01 : 0x70;
    reply(d, n, be16_at(p + 7));
}

static const struct packet_command packets[256] = {
    [0x00] = {run_ready, NEEDS_MEDIUM},
    [0x03] = {run_request_sense, DURING_ATTENTION},
    [0x12] = {run_inquiry, DURING_ATTENTION},
    [0x1b] = {run_start_stop, 0},
    [0x1e] = {run_prevent, 0},
    [0x25] = {run_read_capacity, NEEDS_MEDIUM},
    [0x28] = {run_read_10, NEEDS_MEDIUM},
    [0x2b] = {run_seek, NEEDS_MEDIUM},
    [0x42] = {run_read_subchannel, NEEDS_MEDIUM},
    [0x43] = {run_read_toc, NEEDS_MEDIUM},
    [0x46] = {run_get_configuration, DURING_ATTENTION},
    [0x4a] = {run_get_event, DURING_ATTENTION},
    [0x51] = {run_read_disc_information, NEEDS_MEDIUM},
    [0x5a] = {run_mode_sense, 0},
    [0xa8] = {run_read_12, NEEDS_MEDIUM},
    [0xad] = {run_read_dvd_structure, NEEDS_MEDIUM},
    [0xbb] = {run_ready, 0},
    [0xbd] = {run_mechanism_status, 0},
    [0xbe] = {run_read_cd, NEEDS_MEDIUM},
};

void atapi_packet(struct ata_drive *d)
{
    const struct packet_command *c = &packets[d->packet[0]];
    d->task.status = ATA_DRDY | ATA_DSC;
    d->phase = ATA_IDLE;
    if (!c->run) {
        log_line(LOG_UNIMP, "%s: packet command %#x", d->dev.path, d->packet[0]);
        packet_fail(d, ILLEGAL_REQUEST, ASC_OPCODE, 0);
    } else if (d->unit_attention && !(c->flags & DURING_ATTENTION)) {
        d->unit_attention = 0;
        packet_fail(d, ATTENTION, ASC_MEDIUM_CHANGED, 0);
    } else if ((c->flags & NEEDS_MEDIUM) && !has_medium(d)) {
        packet_fail(d, NOT_READY, ASC_NO_MEDIUM, d->tray_open ? 2 : 0);
    } else {
        c->run(d, d->packet);
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
    d->sense_key = d->asc = d->ascq = 0;
    d->locked = 0;
}

/* The monitor put a disc in or took it out. */
void atapi_medium_changed(void *owner)
{
    struct ata_drive *d = owner;
    bool there = image_inserted(d->drive);
    d->sectors = image_size(d->drive) / ATA_SECTOR;
    d->lba = d->left = 0;
    d->tray_open = 0;
    d->unit_attention = there;
    d->media_event = there ? EVENT_NEW : EVENT_REMOVAL;
}
