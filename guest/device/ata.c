/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * ata: drives behind IDE channels and AHCI ports: the task file, PIO and DMA phases and the
 * commands of disks.
 *
 * Spec: ANSI INCITS 397-2005, AT Attachment with Packet Interface 7, volume 1, "Command
 * descriptions" and volume 2, "Protocols"; INCITS 482-2012 (ATA8-ACS-2) for DATA SET
 * MANAGEMENT.
 * Not modelled: SMART, security, power states beyond what CHECK POWER MODE shows.
 */
#include "guest/device/ata.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/device/board.h"

#include <string.h>

enum { FOR_DISK = 1, FOR_CD = 2, LBA48 = 4, FUA = 8, MULTIPLE = 16 };
enum { HEADS_DEFAULT = 16, TRACK_DEFAULT = 63, CYLINDERS_MAX = 16383 };
enum { RANGE_BYTES = 8, DMA_CHUNK = 8 << 20 };
#define LBA28_MAX UINT32_C(0x0fffffff)
#define LBA_MAX   (UINT64_C(1) << 48)

enum {
    CMD_READ_NATIVE_MAX_EXT = 0x27,
    CMD_INIT_PARAMETERS = 0x91,
    CMD_CHECK_POWER_OLD = 0x98,
    CMD_CHECK_POWER = 0xe5,
};

struct command {
    void (*run)(struct ata_drive *d);
    uint8_t flags;
};
static const struct command commands[256];

static struct ata_port *ports;

/* ---- ports ---- */

void ata_port_add(struct ata_port *port)
{
    struct ata_port **end = &ports;
    while (*end) {
        end = &(*end)->next;
    }
    port->next = NULL;
    *end = port;
}

void ata_port_remove(struct ata_port *port)
{
    for (unsigned i = 0; i < 2; i++) {
        if (port->drive[i]) {
            device_free(&port->drive[i]->dev);
        }
    }
    for (struct ata_port **at = &ports; *at; at = &(*at)->next) {
        if (*at == port) {
            *at = port->next;
            return;
        }
    }
}

struct ata_port *ata_port_find(struct board *board, const char *name)
{
    for (struct ata_port *p = ports; p; p = p->next) {
        if (p->board == board && !strcmp(p->name, name)) {
            return p;
        }
    }
    return NULL;
}

bool ata_attach(struct board *board, const char *bus, unsigned unit, struct image *img, bool cd,
                GError **error)
{
    struct device *dev = device_new(device_model_find(cd ? "ide-cd" : "ide-hd"));
    g_autofree char *unit_text = g_strdup_printf("%u", unit);
    g_autofree char *path = g_strdup_printf("%s.%u", bus, unit);
    if (!device_set(dev, "bus", bus, error) || !device_set(dev, "unit", unit_text, error) ||
        !device_give(dev, "drive", img, error)) {
        device_free(dev);
        return false;
    }
    return device_start(dev, board, path, error);
}

/* ---- transfers ---- */

static void transfer_done(struct image_request *io, int result)
{
    struct ata_transfer *t = container_of(io, struct ata_transfer, io);
    struct ata_drive *d = container_of(t, struct ata_drive, transfer);
    d->busy = false;
    t->then(d, result);
}

void ata_start_io(struct ata_drive *d, enum image_op op, uint64_t offset, uint32_t bytes,
                  ata_then_fn *then)
{
    struct ata_transfer *t = &d->transfer;
    t->io = (struct image_request){.op = op,
                                   .offset = offset,
                                   .bytes = bytes,
                                   .iov = t->iov,
                                   .niov = t->niov,
                                   .done = transfer_done};
    t->bytes = bytes;
    t->then = then;
    d->busy = true;
    d->task.status |= ATA_BSY;
    d->task.status &= (uint8_t)~ATA_DRQ;
    image_submit(d->drive, &t->io);
}

void ata_buffer_io(struct ata_drive *d, enum image_op op, uint64_t offset, uint32_t bytes,
                   ata_then_fn *then)
{
    d->transfer.iov[0] = (struct iovec){d->buf, bytes};
    d->transfer.niov = 1;
    ata_start_io(d, op, offset, bytes, then);
}

/* Cuts @n bytes off the end of @iov; false if they do not all lie in the last part. */
static bool cut_tail(struct iovec *iov, unsigned niov, uint32_t n)
{
    if (n && iov[niov - 1].iov_len <= n) {
        return false;
    }
    iov[niov - 1].iov_len -= n;
    return true;
}

uint32_t ata_list_next(struct ata_list *list, uint32_t bytes, bool to_guest, struct iovec *iov,
                       unsigned *n)
{
    uint32_t done = 0;
    for (*n = 0; done < bytes && *n < ATA_PARTS;) {
        if (!list->bytes && !list->fetch(list)) {
            return done;
        }
        uint64_t step = MIN(list->bytes, bytes - done);
        void *host = space_map(list->space, list->at, &step, to_guest);
        if (!host) {
            log_line(LOG_GUEST_ERRORS, "ata: DMA outside RAM at %#" G_GINT64_MODIFIER "x",
                     list->at);
            return done;
        }
        iov[(*n)++] = (struct iovec){host, step};
        list->at += step;
        list->bytes -= (uint32_t)step;
        done += (uint32_t)step;
    }
    /* Stopped for want of room: whole sectors, so that the next call can go on. */
    uint32_t more = done < bytes ? done % ATA_SECTOR : 0;
    if (!cut_tail(iov, *n, more)) {
        return 0;
    }
    list->at -= more;
    list->bytes += more;
    return done - more;
}

uint32_t ata_next_sectors(struct ata_drive *d, uint32_t bytes, bool to_guest)
{
    struct ata_transfer *t = &d->transfer;
    uint32_t n = ata_next_memory(d, bytes, to_guest);
    for (uint32_t cut = n % ATA_SECTOR; cut;) { /* a list that ends inside a sector */
        struct iovec *last = &t->iov[t->niov - 1];
        uint32_t step = (uint32_t)MIN(cut, last->iov_len);
        last->iov_len -= step;
        t->niov -= !last->iov_len;
        cut -= step;
    }
    return n - n % ATA_SECTOR;
}

uint32_t ata_next_memory(struct ata_drive *d, uint32_t bytes, bool to_guest)
{
    struct ata_transfer *t = &d->transfer;
    return d->port->ops->next(d->port, bytes, to_guest, t->iov, &t->niov);
}

void ata_note_written(const struct ata_drive *d, uint32_t bytes)
{
    const struct ata_transfer *t = &d->transfer;
    for (unsigned i = 0; i < t->niov && bytes; i++) {
        uint32_t n = (uint32_t)MIN(t->iov[i].iov_len, bytes);
        ram_note_write(t->iov[i].iov_base, n);
        bytes -= n;
    }
}

static void drain(struct ata_drive *d)
{
    if (d->busy) {
        image_drain(d->drive);
    }
}

/* ---- ends of commands ---- */

static void dma_over(struct ata_drive *d)
{
    if (d->dma) {
        d->dma = 0;
        d->port->ops->dma_end(d->port, d);
    }
}

void ata_end(struct ata_drive *d)
{
    d->phase = ATA_IDLE;
    d->task.status = ATA_DRDY | ATA_DSC;
    d->task.error = 0;
    dma_over(d);
    d->port->ops->attention(d->port, d);
}

void ata_abort(struct ata_drive *d, uint8_t error)
{
    d->phase = ATA_IDLE;
    d->task.status = ATA_DRDY | ATA_DSC | ATA_ERR;
    d->task.error = error;
    dma_over(d);
    d->port->ops->attention(d->port, d);
}

/* Where the command stopped, in the registers it was given in. */
static void show_lba(struct ata_drive *d)
{
    struct ata_task *t = &d->task;
    if (d->lba48) {
        t->hob_low = (uint8_t)(d->lba >> 24);
        t->hob_mid = (uint8_t)(d->lba >> 32);
        t->hob_high = (uint8_t)(d->lba >> 40);
    } else if (t->device & ATA_DEVICE_LBA) {
        t->device = (uint8_t)((t->device & ~ATA_DEVICE_HEAD) | (d->lba >> 24 & ATA_DEVICE_HEAD));
    } else {
        uint64_t track = d->lba / d->now_track_sectors, cylinder = track / d->now_heads;
        t->low = (uint8_t)(d->lba % d->now_track_sectors + 1);
        t->mid = (uint8_t)cylinder;
        t->high = (uint8_t)(cylinder >> 8);
        t->device = (uint8_t)((t->device & ~ATA_DEVICE_HEAD) | track % d->now_heads);
        return;
    }
    t->low = (uint8_t)d->lba;
    t->mid = (uint8_t)(d->lba >> 8);
    t->high = (uint8_t)(d->lba >> 16);
}

static void end_at_lba(struct ata_drive *d)
{
    show_lba(d);
    ata_end(d);
}

static void fail_at_lba(struct ata_drive *d)
{
    show_lba(d);
    ata_abort(d, ATA_ABRT | ATA_UNC);
}

static void after_flush(struct ata_drive *d, int result)
{
    if (result < 0) {
        ata_abort(d, ATA_ABRT | ATA_UNC);
    } else {
        ata_end(d);
    }
}

static void flush_then_end(struct ata_drive *d)
{
    show_lba(d);
    d->transfer.niov = 0;
    ata_start_io(d, IMAGE_FLUSH, 0, 0, after_flush);
}

/* ---- PIO ---- */

void ata_show_block(struct ata_drive *d, enum ata_phase phase, uint32_t from, uint32_t to)
{
    d->phase = (uint8_t)phase;
    d->buf_at = from;
    d->buf_end = to;
    d->task.status = ATA_DRDY | ATA_DSC | ATA_DRQ;
}

static void attention_and_pio(struct ata_drive *d)
{
    d->port->ops->attention(d->port, d);
    d->port->ops->pio(d->port, d);
}

/* One interrupt a block: a sector, or several for READ and WRITE MULTIPLE. */
static void show_in_block(struct ata_drive *d)
{
    ata_show_block(d, ATA_PIO_IN, d->buf_end, MIN(d->buf_end + d->limit, d->filled));
    attention_and_pio(d);
}

static void pio_in_filled(struct ata_drive *d, int result)
{
    if (result < 0) {
        fail_at_lba(d);
        return;
    }
    d->filled = d->transfer.bytes;
    d->buf_end = 0;
    show_in_block(d);
}

/* Reads ahead as much as the buffer takes: the image is asked once for many blocks. */
static void pio_in_fill(struct ata_drive *d)
{
    uint32_t n = MIN(d->left, ATA_BUFFER / ATA_SECTOR);
    ata_buffer_io(d, IMAGE_READ, d->lba * ATA_SECTOR, n * ATA_SECTOR, pio_in_filled);
}

static void pio_in_moved(struct ata_drive *d, uint32_t sectors)
{
    d->lba += sectors;
    d->left -= MIN(sectors, d->left);
    if (!d->left) {
        show_lba(d);
        d->phase = ATA_IDLE;
        d->task.status = ATA_DRDY | ATA_DSC;
    } else if (d->buf_end < d->filled) {
        show_in_block(d);
    } else {
        pio_in_fill(d);
    }
}

static void show_out_block(struct ata_drive *d)
{
    uint32_t room = MIN(d->left * ATA_SECTOR, ATA_BUFFER);
    ata_show_block(d, ATA_PIO_OUT, d->filled, MIN(d->filled + d->limit, room));
}

static void pio_out_stored(struct ata_drive *d, int result)
{
    if (result < 0) {
        fail_at_lba(d);
        return;
    }
    uint32_t sectors = d->transfer.bytes / ATA_SECTOR;
    d->lba += sectors;
    d->left -= MIN(sectors, d->left);
    d->filled = 0;
    if (d->left) {
        show_out_block(d);
        attention_and_pio(d);
    } else if (d->flush_after) {
        flush_then_end(d);
    } else {
        end_at_lba(d);
    }
}

static void pio_out_moved(struct ata_drive *d)
{
    d->filled = d->buf_end;
    if (d->filled == ATA_BUFFER || d->filled / ATA_SECTOR >= d->left) {
        ata_buffer_io(d, IMAGE_WRITE, d->lba * ATA_SECTOR, d->filled, pio_out_stored);
    } else {
        show_out_block(d);
        attention_and_pio(d);
    }
}

void ata_block_moved(struct ata_drive *d)
{
    d->buf_at = d->buf_end;
    d->task.status &= (uint8_t)~ATA_DRQ;
    switch (d->phase) {
    case ATA_PIO_IN:
        pio_in_moved(d, (d->buf_end - (d->buf_end - 1) / d->limit * d->limit) / ATA_SECTOR);
        break;
    case ATA_PIO_OUT:
        pio_out_moved(d);
        break;
    case ATA_ANSWER:
        d->phase = ATA_IDLE;
        d->task.status = ATA_DRDY | ATA_DSC;
        break;
    case ATA_IDLE:
        break;
    default:
        atapi_block_moved(d);
        break;
    }
}

static bool shows_data(const struct ata_drive *d)
{
    return (d->task.status & ATA_DRQ) && !ata_phase_is_out(d) && !d->dma;
}

uint64_t ata_data_read_many(struct ata_drive *d, unsigned bytes, uint8_t *to, uint64_t count)
{
    uint64_t n = shows_data(d) ? MIN(count, (d->buf_end - d->buf_at) / bytes) : 0;
    if (n) {
        memcpy(to, d->buf + d->buf_at, n * bytes);
        d->buf_at += (uint32_t)n * bytes;
        if (d->buf_at == d->buf_end) {
            ata_block_moved(d);
        }
    }
    return n;
}

uint32_t ata_data_read(struct ata_drive *d, unsigned bytes)
{
    uint8_t raw[4] = {0};
    if (!shows_data(d)) {
        return 0;
    }
    unsigned n = MIN(bytes, d->buf_end - d->buf_at);
    memcpy(raw, d->buf + d->buf_at, n);
    d->buf_at += n;
    if (d->buf_at == d->buf_end) {
        ata_block_moved(d);
    }
    return le32_at(raw);
}

void ata_data_write(struct ata_drive *d, uint32_t value, unsigned bytes)
{
    uint8_t raw[4];
    if (!(d->task.status & ATA_DRQ) || !ata_phase_is_out(d) || d->dma) {
        return;
    }
    le32_put(raw, value);
    unsigned n = MIN(bytes, d->buf_end - d->buf_at);
    memcpy(d->buf + d->buf_at, raw, n);
    d->buf_at += n;
    if (d->buf_at == d->buf_end) {
        ata_block_moved(d);
    }
}

/* ---- reading and writing ---- */

static uint32_t sector_count(const struct ata_drive *d)
{
    uint32_t n = d->lba48 ? (uint32_t)d->task.hob_count << 8 | d->task.count : d->task.count;
    return n ? n : d->lba48 ? 65536 : 256;
}

static uint64_t chs_to_lba(const struct ata_drive *d)
{
    const struct ata_task *t = &d->task;
    uint64_t cylinder = (uint64_t)t->high << 8 | t->mid;
    uint64_t track = cylinder * d->now_heads + (t->device & ATA_DEVICE_HEAD);
    return t->low ? track * d->now_track_sectors + t->low - 1 : UINT64_MAX;
}

/* Sets .lba and .left from the registers; false, and both as they were, if the range is not on
 * the disk. */
static bool locate(struct ata_drive *d, uint32_t sectors)
{
    const struct ata_task *t = &d->task;
    uint64_t lba = (uint64_t)t->high << 16 | (uint64_t)t->mid << 8 | t->low;
    if (d->lba48) {
        lba |=
            (uint64_t)t->hob_high << 40 | (uint64_t)t->hob_mid << 32 | (uint64_t)t->hob_low << 24;
    } else if (t->device & ATA_DEVICE_LBA) {
        lba |= (uint64_t)(t->device & ATA_DEVICE_HEAD) << 24;
    } else {
        lba = chs_to_lba(d);
    }
    if (lba > d->sectors || sectors > d->sectors - lba) {
        return false;
    }
    d->lba = lba;
    d->left = sectors;
    return true;
}

static bool begin_range(struct ata_drive *d)
{
    if (!locate(d, sector_count(d))) {
        ata_abort(d, ATA_ABRT | ATA_IDNF);
        return false;
    }
    return true;
}

static uint32_t block_bytes(const struct ata_drive *d)
{
    bool many = commands[d->task.command].flags & MULTIPLE;
    return many ? (uint32_t)d->multiple * ATA_SECTOR : ATA_SECTOR;
}

static void run_read(struct ata_drive *d)
{
    d->limit = block_bytes(d);
    if (!d->limit) {
        ata_abort(d, ATA_ABRT); /* SET MULTIPLE was not successful */
    } else if (begin_range(d)) {
        d->task.status |= ATA_BSY;
        pio_in_fill(d);
    }
}

static void run_write(struct ata_drive *d)
{
    d->limit = block_bytes(d);
    if (!d->limit || image_read_only(d->drive)) {
        ata_abort(d, ATA_ABRT);
    } else if (begin_range(d)) {
        d->filled = 0;
        show_out_block(d);
        d->port->ops->pio(d->port, d); /* no interrupt for the first block */
    }
}

static void dma_step(struct ata_drive *d);

static void dma_stepped(struct ata_drive *d, int result)
{
    uint32_t bytes = d->transfer.bytes;
    if (result < 0) {
        fail_at_lba(d);
        return;
    }
    if (!d->dma_write) {
        ata_note_written(d, bytes);
    }
    d->lba += bytes / ATA_SECTOR;
    d->left -= bytes / ATA_SECTOR;
    if (d->left) {
        dma_step(d);
    } else if (d->flush_after) {
        flush_then_end(d);
    } else {
        end_at_lba(d);
    }
}

static void dma_step(struct ata_drive *d)
{
    uint64_t wanted = (uint64_t)d->left * ATA_SECTOR;
    uint32_t n = ata_next_sectors(d, (uint32_t)MIN(wanted, DMA_CHUNK), !d->dma_write);
    if (!n) { /* the list is too short: the end, without an interrupt */
        d->phase = ATA_IDLE;
        d->task.status = ATA_DRDY | ATA_DSC;
        dma_over(d);
        return;
    }
    ata_start_io(d, d->dma_write ? IMAGE_WRITE : IMAGE_READ, d->lba * ATA_SECTOR, n, dma_stepped);
}

static void begin_dma(struct ata_drive *d, bool write)
{
    d->dma = 1;
    d->dma_write = write;
    d->task.status = ATA_DRDY | ATA_DSC | ATA_DRQ;
    d->port->ops->dma(d->port, d);
}

static void run_read_dma(struct ata_drive *d)
{
    if (begin_range(d)) {
        begin_dma(d, false);
    }
}

static void run_write_dma(struct ata_drive *d)
{
    if (image_read_only(d->drive)) {
        ata_abort(d, ATA_ABRT);
    } else if (begin_range(d)) {
        begin_dma(d, true);
    }
}

static void run_verify(struct ata_drive *d)
{
    if (begin_range(d)) {
        d->lba += d->left;
        d->left = 0;
        end_at_lba(d);
    }
}

/* ---- DATA SET MANAGEMENT: ranges to discard come by DMA ---- */

static void trim_next(struct ata_drive *d, int result)
{
    if (result < 0) {
        ata_abort(d, ATA_ABRT);
        return;
    }
    for (; d->buf_at + RANGE_BYTES <= d->filled; d->buf_at += RANGE_BYTES) {
        uint64_t range = le64_at(d->buf + d->buf_at), lba = range & (LBA_MAX - 1);
        uint32_t n = (uint32_t)(range >> 48);
        if (lba > d->sectors || n > d->sectors - lba) {
            ata_abort(d, ATA_ABRT | ATA_IDNF);
            return;
        }
        if (n) {
            d->buf_at += RANGE_BYTES;
            d->transfer.niov = 0;
            ata_start_io(d, IMAGE_DISCARD, lba * ATA_SECTOR, n * ATA_SECTOR, trim_next);
            return;
        }
    }
    ata_end(d);
}

static void trim_go(struct ata_drive *d)
{
    d->filled = 0;
    while (d->filled < d->left * ATA_SECTOR) {
        uint32_t n = ata_next_memory(d, d->left * ATA_SECTOR - d->filled, false);
        if (!n) {
            ata_abort(d, ATA_ABRT);
            return;
        }
        for (unsigned i = 0; i < d->transfer.niov; i++) {
            const struct iovec *part = &d->transfer.iov[i];
            memcpy(d->buf + d->filled, part->iov_base, part->iov_len);
            d->filled += (uint32_t)part->iov_len;
        }
    }
    d->buf_at = 0;
    trim_next(d, 0);
}

static void run_trim(struct ata_drive *d)
{
    uint32_t blocks = sector_count(d);
    if (!(d->task.feature & 1) || blocks > ATA_BUFFER / ATA_SECTOR || blocks > d->sectors ||
        image_read_only(d->drive)) {
        ata_abort(d, ATA_ABRT);
    } else {
        d->left = blocks;
        d->lba = 0;
        begin_dma(d, true);
    }
}

enum { CMD_TRIM = 0x06, CMD_PACKET = 0xa0 };

void ata_dma_go(struct ata_drive *d)
{
    if (!d->dma || d->busy) {
        return;
    }
    d->task.status = (uint8_t)((d->task.status | ATA_BSY) & ~ATA_DRQ);
    if (d->task.command == CMD_PACKET) {
        atapi_dma(d);
    } else if (d->task.command == CMD_TRIM) {
        trim_go(d);
    } else {
        dma_step(d);
    }
}

void ata_stop_dma(struct ata_drive *d)
{
    if (d->dma && d->busy) {
        drain(d);
    }
}

/* ---- IDENTIFY ---- */

/* Text in words: the first character of each pair is in the high byte. */
void ata_put_text(uint8_t *id, unsigned word, unsigned words, const char *text)
{
    size_t n = strlen(text);
    for (unsigned i = 0; i < 2 * words; i++) {
        id[2 * word + (i ^ 1)] = i < n ? (uint8_t)text[i] : ' ';
    }
}

static void put(uint8_t *id, unsigned word, uint64_t value)
{
    le16_put(id + 2 * word, (uint16_t)value);
}

static void identify_geometry(const struct ata_drive *d, uint8_t *id)
{
    uint64_t now = (uint64_t)d->cylinders * d->now_heads * d->now_track_sectors;
    put(id, 1, d->cylinders);
    put(id, 3, d->heads);
    put(id, 4, ATA_SECTOR * d->track_sectors);
    put(id, 5, ATA_SECTOR);
    put(id, 6, d->track_sectors);
    put(id, 54, d->cylinders);
    put(id, 55, d->now_heads);
    put(id, 56, d->now_track_sectors);
    le32_put(id + 2 * 57, (uint32_t)now);
    le32_put(id + 2 * 60, (uint32_t)MIN(d->sectors, LBA28_MAX));
    le64_put(id + 2 * 100, d->sectors);
}

static void identify_features(const struct ata_drive *d, uint8_t *id)
{
    uint16_t cache = d->write_cache ? 1 << 5 : 0;
    put(id, 80, 0xf0); /* ATA/ATAPI-4 to 7 */
    put(id, 81, 0x16);
    put(id, 82, 1 << 14 | 1 << 5);                         /* NOP; write cache */
    put(id, 83, 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10);    /* FLUSH CACHE (EXT), LBA48 */
    put(id, 84, 1 << 14 | (d->wwn ? 1 << 8 : 0) | 1 << 6); /* WWN, FUA */
    put(id, 85, 1 << 14 | cache);
    put(id, 86, 1 << 13 | 1 << 12 | 1 << 10);
    put(id, 87, 1 << 14 | (d->wwn ? 1 << 8 : 0) | 1 << 6);
    put(id, 169, 1); /* TRIM */
    put(id, 105, ATA_BUFFER / ATA_SECTOR);
    put(id, 217, d->rotation_rate);
    for (unsigned i = 0; d->wwn && i < 4; i++) {
        put(id, 108 + i, d->wwn >> (48 - 16 * i));
    }
}

static void identify_disk(const struct ata_drive *d, uint8_t *id)
{
    put(id, 0, 0x0040); /* a fixed disk */
    put(id, 20, 3);
    put(id, 21, ATA_BUFFER / ATA_SECTOR);
    put(id, 22, 4);
    put(id, 47, 0x8000 | ATA_MULTIPLE_MAX);
    put(id, 48, 1);                         /* 32-bit data port */
    put(id, 49, 1 << 11 | 1 << 9 | 1 << 8); /* IORDY, LBA, DMA */
    put(id, 50, 1 << 14);
    put(id, 51, 0x200);
    put(id, 52, 0x200);
    put(id, 53, 7); /* words 54-58, 64-70 and 88 are valid */
    put(id, 59, d->multiple ? 0x100 | d->multiple : 0);
    identify_geometry(d, id);
    identify_features(d, id);
    if (d->physical_block > d->logical_block) {
        put(id, 106, 0x6000 | __builtin_ctz(d->physical_block / d->logical_block));
    }
}

/* What disks and CD-ROM drives say in the same words. */
static void identify_common(const struct ata_drive *d, uint8_t *id)
{
    put(id, 63, 7 | d->mdma);
    put(id, 64, 3); /* PIO 3 and 4 */
    for (unsigned w = 65; w <= 68; w++) {
        put(id, w, 120);
    }
    put(id, 88, 0x3f | d->udma);
    put(id, 93, 1 | 1 << 14 | 0x2000); /* an 80-wire cable */
    if (d->port->ahci) {
        put(id, 75, 31);
        put(id, 76, (d->cd ? 0 : 1 << 8) | 1 << 1 | 1 << 2); /* NCQ; 1.5 and 3 Gb/s */
        put(id, 93, 0);
    }
}

static void run_identify(struct ata_drive *d)
{
    memset(d->buf, 0, ATA_SECTOR);
    char serial[16];
    g_snprintf(serial, sizeof(serial), "LD%05u", d->at + 1);
    ata_put_text(d->buf, 10, 10, d->serial ? d->serial : serial);
    ata_put_text(d->buf, 23, 4, d->version ? d->version : "1.0");
    ata_put_text(d->buf, 27, 20,
                 d->model_name ? d->model_name
                 : d->cd       ? "LODGE DVD-ROM"
                               : "LODGE HARDDISK");
    identify_common(d, d->buf);
    if (d->cd) {
        atapi_identify(d, d->buf);
    } else {
        identify_disk(d, d->buf);
    }
    ata_show_block(d, ATA_ANSWER, 0, ATA_SECTOR);
    attention_and_pio(d);
}

/* ---- other commands ---- */

static void signature(struct ata_drive *d)
{
    d->task.count = d->task.low = 1;
    d->task.mid = d->cd ? 0x14 : 0;
    d->task.high = d->cd ? 0xeb : 0;
    d->task.device &= (uint8_t)~ATA_DEVICE_HEAD;
}

/* A CD-ROM drive answers with its signature, so that software finds out what it is. */
static void run_identify_on_cd(struct ata_drive *d)
{
    signature(d);
    ata_abort(d, ATA_ABRT);
}

static void run_identify_device(struct ata_drive *d)
{
    if (d->cd) {
        run_identify_on_cd(d);
    } else {
        run_identify(d);
    }
}

static void run_read_on_cd_or_disk(struct ata_drive *d)
{
    if (d->cd) {
        run_identify_on_cd(d);
    } else {
        run_read(d);
    }
}

static void run_nothing(struct ata_drive *d)
{
    ata_end(d);
}

static void run_refused(struct ata_drive *d)
{
    ata_abort(d, ATA_ABRT);
}

static void run_flush(struct ata_drive *d)
{
    d->transfer.niov = 0;
    ata_start_io(d, IMAGE_FLUSH, 0, 0, after_flush);
}

static void run_device_reset(struct ata_drive *d)
{
    ata_reset(d);
    d->task.status = 0;
    d->task.error = 1;
}

static void run_diagnostic(struct ata_drive *d)
{
    signature(d);
    d->task.device = 0;
    d->phase = ATA_IDLE;
    d->task.error = 1; /* this drive passed */
    d->task.status = d->cd ? 0 : ATA_DRDY | ATA_DSC;
    d->port->ops->attention(d->port, d);
}

static void run_init_parameters(struct ata_drive *d)
{
    if (!d->task.count) {
        ata_abort(d, ATA_ABRT);
        return;
    }
    d->now_track_sectors = d->task.count;
    d->now_heads = (uint16_t)((d->task.device & ATA_DEVICE_HEAD) + 1);
    ata_end(d);
}

static void run_set_multiple(struct ata_drive *d)
{
    uint8_t n = d->task.count;
    if (n > ATA_MULTIPLE_MAX || (n & (n - 1))) {
        ata_abort(d, ATA_ABRT);
        return;
    }
    d->multiple = n;
    ata_end(d);
}

static void run_check_power(struct ata_drive *d)
{
    d->task.count = d->standby ? 0 : 0xff;
    ata_end(d);
}

static void run_standby(struct ata_drive *d)
{
    d->standby = 1;
    ata_end(d);
}

static void run_idle(struct ata_drive *d)
{
    d->standby = 0;
    ata_end(d);
}

static void run_native_max(struct ata_drive *d)
{
    d->lba = d->sectors - 1;
    if (!d->lba48) {
        d->lba = MIN(d->lba, LBA28_MAX);
        d->task.device |= ATA_DEVICE_LBA;
    }
    end_at_lba(d);
}

static bool set_mode(struct ata_drive *d, uint8_t value)
{
    unsigned kind = value >> 3, n = value & 7;
    switch (kind) {
    case 0: /* PIO, with or without flow control */
    case 1:
        d->mdma = d->udma = 0;
        return true;
    case 4:
        d->mdma = (uint16_t)(1u << (n + 8));
        d->udma = 0;
        return n < 3;
    case 8:
        d->udma = (uint16_t)(1u << (n + 8));
        d->mdma = 0;
        return n < 6;
    default:
        return false;
    }
}

static void run_set_features(struct ata_drive *d)
{
    bool ok = true;
    switch (d->task.feature) {
    case 0x02:
        d->write_cache = 1;
        break;
    case 0x82: /* cache off: what it held goes out */
        d->write_cache = 0;
        if (!d->cd) {
            run_flush(d);
            return;
        }
        break;
    case 0x03:
        ok = set_mode(d, d->task.count);
        break;
    case 0x05: /* power and noise, look-ahead, defaults: nothing to do */
    case 0x85:
    case 0x42:
    case 0xc2:
    case 0x55:
    case 0xaa:
    case 0x66:
    case 0xcc:
    case 0x10: /* SATA features */
    case 0x90:
        break;
    default:
        ok = false;
        break;
    }
    if (ok) {
        ata_end(d);
    } else {
        ata_abort(d, ATA_ABRT);
    }
}

static void run_packet(struct ata_drive *d)
{
    d->packet_dma = d->task.feature & 1;
    d->limit = (uint32_t)d->task.high << 8 | d->task.mid;
    d->task.count = 1; /* C/D: a command is wanted */
    ata_show_block(d, ATA_PACKET_OUT, 0, ATA_PACKET);
    d->port->ops->pio(d->port, d);
}

static const struct command commands[256] = {
    [0x00] = {run_refused, FOR_DISK | FOR_CD},
    [CMD_TRIM] = {run_trim, FOR_DISK | LBA48},
    [0x08] = {run_device_reset, FOR_CD},
    [0x10] = {run_nothing, FOR_DISK},
    [0x20] = {run_read_on_cd_or_disk, FOR_DISK | FOR_CD},
    [0x21] = {run_read, FOR_DISK},
    [0x24] = {run_read, FOR_DISK | LBA48},
    [0x25] = {run_read_dma, FOR_DISK | LBA48},
    [CMD_READ_NATIVE_MAX_EXT] = {run_native_max, FOR_DISK | LBA48},
    [0x29] = {run_read, FOR_DISK | LBA48 | MULTIPLE},
    [0x30] = {run_write, FOR_DISK},
    [0x31] = {run_write, FOR_DISK},
    [0x34] = {run_write, FOR_DISK | LBA48},
    [0x35] = {run_write_dma, FOR_DISK | LBA48},
    [0x39] = {run_write, FOR_DISK | LBA48 | MULTIPLE},
    [0x3d] = {run_write_dma, FOR_DISK | LBA48 | FUA},
    [0x40] = {run_verify, FOR_DISK},
    [0x41] = {run_verify, FOR_DISK},
    [0x42] = {run_verify, FOR_DISK | LBA48},
    [0x70] = {run_nothing, FOR_DISK},
    [0x90] = {run_diagnostic, FOR_DISK | FOR_CD},
    [CMD_INIT_PARAMETERS] = {run_init_parameters, FOR_DISK},
    [0x94] = {run_standby, FOR_DISK | FOR_CD},
    [0x95] = {run_idle, FOR_DISK | FOR_CD},
    [0x96] = {run_standby, FOR_DISK | FOR_CD},
    [0x97] = {run_idle, FOR_DISK | FOR_CD},
    [CMD_CHECK_POWER_OLD] = {run_check_power, FOR_DISK | FOR_CD},
    [0x99] = {run_standby, FOR_DISK | FOR_CD},
    [CMD_PACKET] = {run_packet, FOR_CD},
    [0xa1] = {run_identify, FOR_CD},
    [0xc4] = {run_read, FOR_DISK | MULTIPLE},
    [0xc5] = {run_write, FOR_DISK | MULTIPLE},
    [0xc6] = {run_set_multiple, FOR_DISK},
    [0xc8] = {run_read_dma, FOR_DISK},
    [0xc9] = {run_read_dma, FOR_DISK},
    [0xca] = {run_write_dma, FOR_DISK},
    [0xcb] = {run_write_dma, FOR_DISK},
    [0xce] = {run_write, FOR_DISK | LBA48 | MULTIPLE | FUA},
    [0xe0] = {run_standby, FOR_DISK | FOR_CD},
    [0xe1] = {run_idle, FOR_DISK | FOR_CD},
    [0xe2] = {run_standby, FOR_DISK | FOR_CD},
    [0xe3] = {run_idle, FOR_DISK | FOR_CD},
    [CMD_CHECK_POWER] = {run_check_power, FOR_DISK | FOR_CD},
    [0xe6] = {run_standby, FOR_DISK | FOR_CD},
    [0xe7] = {run_flush, FOR_DISK},
    [0xea] = {run_flush, FOR_DISK},
    [0xec] = {run_identify_device, FOR_DISK | FOR_CD},
    [0xef] = {run_set_features, FOR_DISK | FOR_CD},
    [0xf8] = {run_native_max, FOR_DISK},
};

void ata_command(struct ata_drive *d, uint8_t command)
{
    const struct command *c = &commands[command];
    drain(d);
    d->task.command = command;
    d->phase = ATA_IDLE;
    d->dma = 0;
    d->task.error = 0;
    d->task.status = ATA_DRDY | ATA_DSC;
    d->lba48 = (c->flags & LBA48) != 0;
    d->flush_after = (c->flags & FUA) || !d->write_cache;
    if (!(c->flags & (d->cd ? FOR_CD : FOR_DISK))) {
        log_line(LOG_UNIMP, "%s: command %#x", d->dev.path, command);
        ata_abort(d, ATA_ABRT);
        return;
    }
    c->run(d);
}

/* ---- life ---- */

void ata_reset(struct ata_drive *d)
{
    drain(d);
    uint8_t device = d->task.device;
    memset(&d->task, 0, sizeof(d->task));
    d->task.device = device;
    signature(d);
    d->task.device = 0;
    d->task.error = 1;
    d->task.status = d->cd ? 0 : ATA_DRDY | ATA_DSC;
    d->phase = ATA_IDLE;
    d->dma = d->lba48 = d->packet_dma = d->flush_after = 0;
    d->buf_at = d->buf_end = d->filled = d->left = d->limit = 0;
    d->multiple = ATA_MULTIPLE_MAX;
    if (d->cd) {
        atapi_reset(d);
    }
}

void ata_drive_reset(struct device *dev)
{
    struct ata_drive *d = container_of(dev, struct ata_drive, dev);
    d->now_heads = (uint16_t)d->heads;
    d->now_track_sectors = (uint16_t)d->track_sectors;
    d->write_cache = d->cached;
    d->udma = 1 << (5 + 8);
    ata_reset(d);
}

static void fill_geometry(struct ata_drive *d)
{
    d->sectors = image_size(d->drive) / ATA_SECTOR;
    d->heads = d->heads ? d->heads : HEADS_DEFAULT;
    d->track_sectors = d->track_sectors ? d->track_sectors : TRACK_DEFAULT;
    if (!d->cylinders) {
        uint64_t n = d->sectors / (d->heads * d->track_sectors);
        d->cylinders = (uint32_t)CLAMP(n, 2, CYLINDERS_MAX);
    }
}

static bool check_props(struct ata_drive *d, GError **error)
{
    const char *wrong = NULL;
    if (!d->cd && (!d->drive || !image_inserted(d->drive))) {
        wrong = "a disk needs a drive with a medium";
    } else if (!d->cd && image_read_only(d->drive)) {
        wrong = "the drive is read-only, and an IDE disk cannot say so to the guest";
    } else if (d->logical_block != ATA_SECTOR) {
        wrong = "logical_block_size is 512";
    } else if (d->physical_block < ATA_SECTOR || d->physical_block > 1 << 21 ||
               (d->physical_block & (d->physical_block - 1))) {
        wrong = "physical_block_size is a power of two from 512";
    } else if (d->heads > 16 || d->track_sectors > 255 || d->cylinders > 65535) {
        wrong = "the geometry is at most 65535 cylinders, 16 heads, 255 sectors";
    }
    if (wrong) {
        g_set_error(error, LODGE_ERROR, EINVAL, "%s", wrong);
    }
    return !wrong;
}

/* The first free place on @port at or after .unit; false if there is none. */
static bool take_unit(struct ata_drive *d, struct ata_port *port)
{
    bool any = d->unit == UINT32_MAX;
    for (unsigned i = any ? 0 : d->unit; i < port->units; i++) {
        if (!port->drive[i]) {
            d->at = i;
            d->port = port;
            port->drive[i] = d;
            return true;
        }
        if (!any) {
            break;
        }
    }
    return false;
}

static bool find_place(struct ata_drive *d, GError **error)
{
    struct ata_port *port = d->bus ? ata_port_find(d->dev.board, d->bus) : NULL;
    if (d->bus && !port) {
        g_set_error(error, LODGE_ERROR, ENODEV, "there is no bus \"%s\"", d->bus);
        return false;
    }
    if (port) {
        if (take_unit(d, port)) {
            return true;
        }
    } else {
        for (port = ports; port; port = port->next) {
            if (port->board == d->dev.board && take_unit(d, port)) {
                return true;
            }
        }
    }
    g_set_error(error, LODGE_ERROR, EBUSY, "bus \"%s\" has no free place%s",
                d->bus ? d->bus : "ide", d->unit != UINT32_MAX ? " of that unit" : "");
    return false;
}

bool ata_drive_start(struct ata_drive *d, bool cd, GError **error)
{
    d->cd = cd;
    if (!check_props(d, error) || !find_place(d, error)) {
        return false;
    }
    if (!d->drive) {
        d->drive = image_new_empty(d->dev.path);
    }
    if (!drive_policy_apply(&d->policy, d->drive, error)) {
        return false;
    }
    fill_geometry(d);
    if (cd) {
        atapi_start(d);
        image_on_change(d->drive, atapi_medium_changed, d);
    }
    return true;
}

void ata_drive_stop(struct device *dev)
{
    struct ata_drive *d = container_of(dev, struct ata_drive, dev);
    drain(d);
    image_on_change(d->drive, NULL, NULL);
    d->port->drive[d->at] = NULL;
}

static bool phase_is_sane(const struct ata_drive *d)
{
    bool pio = d->phase == ATA_PIO_IN || d->phase == ATA_PIO_OUT;
    return d->phase <= ATA_PACKET_READ && d->buf_at <= d->buf_end && d->buf_end <= ATA_BUFFER &&
           d->filled <= ATA_BUFFER && d->lba <= d->sectors && d->left <= d->sectors - d->lba &&
           (d->phase == ATA_IDLE || d->buf_end) &&
           (!pio || (d->limit >= ATA_SECTOR && d->limit <= ATA_MULTIPLE_MAX * ATA_SECTOR &&
                     !(d->limit & (d->limit - 1))));
}

bool ata_drive_loaded(struct device *dev, GError **error)
{
    struct ata_drive *d = container_of(dev, struct ata_drive, dev);
    bool sane = phase_is_sane(d) && d->multiple <= ATA_MULTIPLE_MAX && d->now_heads &&
                d->now_heads <= 16 && d->now_track_sectors && d->now_track_sectors <= 255;
    if (!sane) {
        g_set_error(error, LODGE_ERROR, EINVAL, "registers of a drive do not fit together");
    }
    return sane;
}
