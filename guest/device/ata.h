/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "guest/device/scsi.h"
#include "host/image/image.h"

/*
 * ata - disks (ide-hd) and CD-ROM drives (ide-cd) behind an IDE channel or an AHCI port
 *
 * Spec: ANSI INCITS 397, AT Attachment with Packet Interface 7 (ATA/ATAPI-7) and 482 (ATA8-ACS).
 *
 * A controller has ports; a drive is a device of its own that finds its port by name and
 * unit ("ide.0", 1).  ata.c executes commands, atapi.c those inside packets; the port's ops
 * are what differs between IDE and AHCI: where DMA goes and how the end is told.
 */
enum {
    ATA_SECTOR = 512,
    ATA_MULTIPLE_MAX = 16,
    ATA_BUFFER = 32768, /* of PIO and of answers to packets */
    ATA_PARTS = 256,    /* pieces of guest memory in one image request */
    ATA_PACKET = 12,
};
enum ata_status {
    ATA_ERR = 0x01,
    ATA_DRQ = 0x08,
    ATA_DSC = 0x10,
    ATA_DF = 0x20,
    ATA_DRDY = 0x40,
    ATA_BSY = 0x80,
};
enum ata_error {
    ATA_ABRT = 0x04,
    ATA_IDNF = 0x10,
    ATA_UNC = 0x40,
    ATA_ICRC = 0x80,
};
enum { ATA_DEVICE_HEAD = 0x0f, ATA_DEVICE_DEV = 0x10, ATA_DEVICE_LBA = 0x40 };

struct ata_drive;

struct ata_port {
    const char *name; /* "ide.0" */
    struct board *board;
    struct ata_drive *drive[2];
    unsigned units; /* 1 or 2 */
    bool ahci;
    const struct ata_port_ops *ops;
    void *owner;
    struct ata_port *next; /* ata.c's */
};

struct ata_port_ops {
    /* A block of .data is ready to be moved (DRQ is set); AHCI moves it here. */
    void (*pio)(struct ata_port *port, struct ata_drive *d);
    /* A command with DMA was given: call ata_dma_go() when memory is known. */
    void (*dma)(struct ata_port *port, struct ata_drive *d);
    /* Takes at most @bytes of the guest memory that comes next for this command: fills at
     * most ATA_PARTS of @iov, sets *@n; returns bytes, 0: there is no more. */
    uint32_t (*next)(struct ata_port *port, uint32_t bytes, bool to_guest, struct iovec *iov,
                     unsigned *n);
    /* The last byte of DMA was moved, or the command failed. */
    void (*dma_end)(struct ata_port *port, struct ata_drive *d);
    /* The drive asks for attention: INTRQ, or the D2H FIS of AHCI. */
    void (*attention)(struct ata_port *port, struct ata_drive *d);
};

void ata_port_add(struct ata_port *port);    /* at a controller's start */
void ata_port_remove(struct ata_port *port); /* its drives are freed too */
struct ata_port *ata_port_find(struct board *board, const char *name);

/*
 * For boards: makes an ide-hd or ide-cd on port @bus ("ide.0") as unit @unit and starts it.
 * @img may be an empty drive if @cd.
 */
bool ata_attach(struct board *board, const char *bus, unsigned unit, struct image *img, bool cd,
                GError **error);

/* What a drive's data phase does when the block in the buffer has been moved. */
enum ata_phase {
    ATA_IDLE,
    ATA_PIO_IN, /* disk sectors to the host */
    ATA_PIO_OUT,
    ATA_ANSWER,      /* a buffer to the host, then the end: identify */
    ATA_PACKET_OUT,  /* the packet itself */
    ATA_PACKET_IN,   /* an answer to a packet, in pieces of the byte count limit */
    ATA_PACKET_READ, /* sectors of a CD */
};

struct ata_task {
    uint8_t feature, count, low, mid, high, device, status, error, command;
    uint8_t hob_feature, hob_count, hob_low, hob_mid, hob_high;
};

/* Under way: an image request and the memory it goes to. */
struct ata_transfer {
    struct image_request io;
    void (*then)(struct ata_drive *d, int result);
    struct iovec iov[ATA_PARTS];
    unsigned niov;
    uint32_t bytes;
};

struct ata_drive {
    struct device dev;
    struct ata_port *port;
    unsigned at; /* unit on its port */
    bool cd;
    uint64_t sectors; /* of ATA_SECTOR, also a CD's */
    struct ata_transfer transfer;
    bool busy; /* .transfer is under way */
    /* Properties. */
    Image *drive;
    struct drive_policy policy;
    const char *bus, *serial, *model_name, *version;
    uint32_t unit, cylinders, heads, track_sectors, bootindex, logical_block, physical_block;
    uint32_t rotation_rate;
    uint64_t wwn;
    bool share_rw, cached;
    /* State. */
    struct ata_task task;
    uint16_t now_heads, now_track_sectors; /* INITIALIZE DEVICE PARAMETERS */
    uint16_t mdma, udma;                   /* selected modes, as IDENTIFY shows them */
    uint8_t multiple, write_cache, standby;
    uint8_t phase;
    uint8_t lba48, dma, dma_write, flush_after, packet_dma;
    uint64_t lba;                     /* the next sector of the command */
    uint32_t left;                    /* sectors not yet moved */
    uint32_t buf_at, buf_end, filled; /* DRQ block in .buf; valid bytes of .buf */
    uint32_t limit;                   /* packets: bytes of one DRQ block */
    uint8_t buf[ATA_BUFFER];
    uint8_t packet[16];
    struct scsi_drive scsi; /* of a CD */
};

/* ---- for controllers ---- */

/* A list of pieces of guest memory, read as a command goes on. */
struct ata_list {
    struct space *space;
    uint64_t at; /* what is left of the current piece */
    uint32_t bytes;
    /* The next piece; false at the end of the list or if it cannot be read. */
    bool (*fetch)(struct ata_list *list);
};
/* ata_port_ops.next for such a list. */
uint32_t ata_list_next(struct ata_list *list, uint32_t bytes, bool to_guest, struct iovec *iov,
                       unsigned *n);
/* Executes @command with the registers in .task. */
void ata_command(struct ata_drive *d, uint8_t command);
/* Power-on and software reset: stops what is under way, leaves the signature. */
void ata_reset(struct ata_drive *d);
/* Stops DMA that is under way (bus master off, port stopped). */
void ata_stop_dma(struct ata_drive *d);
/* The controller knows memory for the DMA that the drive asked for. */
void ata_dma_go(struct ata_drive *d);
/* Moves bytes of the current DRQ block. */
uint32_t ata_data_read(struct ata_drive *d, unsigned bytes);
/* Up to @count reads of @bytes each from the block that is shown; how many, perhaps 0. */
uint64_t ata_data_read_many(struct ata_drive *d, unsigned bytes, uint8_t *to, uint64_t count);
void ata_data_write(struct ata_drive *d, uint32_t value, unsigned bytes);
/* The whole DRQ block was moved by the controller (AHCI). */
void ata_block_moved(struct ata_drive *d);
static inline bool ata_phase_is_out(const struct ata_drive *d)
{
    return d->phase == ATA_PIO_OUT || d->phase == ATA_PACKET_OUT;
}

/* ---- between ata.c and atapi.c ---- */
void ata_end(struct ata_drive *d); /* success */
void ata_abort(struct ata_drive *d, uint8_t error);
/* Shows [@from, @to) of .buf as a DRQ block. */
void ata_show_block(struct ata_drive *d, enum ata_phase phase, uint32_t from, uint32_t to);
/* Starts a request on what .transfer names; @then is called from the main loop. */
typedef void ata_then_fn(struct ata_drive *d, int result);
void ata_start_io(struct ata_drive *d, enum image_op op, uint64_t offset, uint32_t bytes,
                  ata_then_fn *then);
/* The same with the first @bytes of .buf. */
void ata_buffer_io(struct ata_drive *d, enum image_op op, uint64_t offset, uint32_t bytes,
                   ata_then_fn *then);
/* The next piece of DMA memory into .transfer, at most @bytes; 0: none. */
uint32_t ata_next_memory(struct ata_drive *d, uint32_t bytes, bool to_guest);
/* The same in whole sectors. */
uint32_t ata_next_sectors(struct ata_drive *d, uint32_t bytes, bool to_guest);
void ata_note_written(const struct ata_drive *d, uint32_t bytes);
void atapi_identify(struct ata_drive *d, uint8_t *id);
void atapi_start(struct ata_drive *d);
void atapi_reset(struct ata_drive *d);
void atapi_packet(struct ata_drive *d); /* .packet is complete */
void atapi_block_moved(struct ata_drive *d);
void atapi_dma(struct ata_drive *d);
void atapi_medium_changed(void *owner);
void ata_put_text(uint8_t *id, unsigned word, unsigned words, const char *text);

/* ---- for ide-hd and ide-cd ---- */
bool ata_drive_start(struct ata_drive *d, bool cd, GError **error);
void ata_drive_stop(struct device *dev);
void ata_drive_reset(struct device *dev);
bool ata_drive_loaded(struct device *dev, GError **error);

#define ATA_S(field, ...) STATE(struct ata_drive, field, __VA_ARGS__)
#define ATA_STATE                                                                                  \
    ATA_S(task.feature), ATA_S(task.count), ATA_S(task.low), ATA_S(task.mid), ATA_S(task.high),    \
        ATA_S(task.device), ATA_S(task.status), ATA_S(task.error), ATA_S(task.command),            \
        ATA_S(task.hob_feature), ATA_S(task.hob_count), ATA_S(task.hob_low), ATA_S(task.hob_mid),  \
        ATA_S(task.hob_high), ATA_S(now_heads), ATA_S(now_track_sectors), ATA_S(mdma),             \
        ATA_S(udma), ATA_S(multiple), ATA_S(write_cache), ATA_S(standby), ATA_S(phase),            \
        ATA_S(lba48), ATA_S(dma), ATA_S(dma_write), ATA_S(flush_after), ATA_S(packet_dma),         \
        ATA_S(lba), ATA_S(left), ATA_S(buf_at), ATA_S(buf_end), ATA_S(filled), ATA_S(limit),       \
        STATE_ARRAY(struct ata_drive, buf), STATE_ARRAY(struct ata_drive, packet),                 \
        SCSI_DRIVE_STATE(struct ata_drive, scsi)

#define ATA_P(field) offsetof(struct ata_drive, field)
#define ATA_PROPS                                                                                  \
    {"drive", PROP_DRIVE, ATA_P(drive)}, {"bus", PROP_STRING, ATA_P(bus)},                         \
        {"unit", PROP_U32, ATA_P(unit), UINT32_MAX}, {"serial", PROP_STRING, ATA_P(serial)},       \
        {"model", PROP_STRING, ATA_P(model_name)}, {"ver", PROP_STRING, ATA_P(version)},           \
        {"wwn", PROP_U64, ATA_P(wwn)}, {"bootindex", PROP_U32, ATA_P(bootindex), UINT32_MAX},      \
        {"logical_block_size", PROP_U32, ATA_P(logical_block), ATA_SECTOR},                        \
        {"physical_block_size", PROP_U32, ATA_P(physical_block), ATA_SECTOR},                      \
        {"rotation_rate", PROP_U32, ATA_P(rotation_rate)},                                         \
        {"share-rw", PROP_BOOL, ATA_P(share_rw)}, {"write-cache", PROP_BOOL, ATA_P(cached), 1},    \
        {"cyls", PROP_U32, ATA_P(cylinders)}, {"heads", PROP_U32, ATA_P(heads)},                   \
        {"secs", PROP_U32, ATA_P(track_sectors)}, DRIVE_POLICY_PROPS(struct ata_drive, policy)
